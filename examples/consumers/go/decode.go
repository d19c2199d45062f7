package main

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"
	amqp "github.com/rabbitmq/amqp091-go"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// object is a document or event in JSON. Numbers are json.Number, so that none loses a digit.
type object = map[string]any

// position tells which of two changes came first, see README.md.
type position struct {
	seconds int64 // since 1970
	seq     int64 // x-mrcon-seq
}

func (p position) after(last position) bool {
	return p.seconds > last.seconds || p.seconds == last.seconds && p.seq > last.seq
}

// change is what a message says, whatever the format of its body.
type change struct {
	operation string
	db, coll  string
	// Equal keys have equal text, whatever the format. Empty: the change is about more than one document.
	key      string
	position position
	// The whole document after the change, if the message has it.
	document any
	// Else what an update changed in it: MongoDB's updateDescription.
	patch object
	// The change event of a gap record, a drop or a rename.
	event object
}

func decode(delivery amqp.Delivery, format string) (change, error) {
	text := func(name string) string {
		value, _ := delivery.Headers[name].(string)
		return value
	}
	seq, isNumbered := delivery.Headers["x-mrcon-seq"].(int64)
	if !isNumbered {
		return change{}, fmt.Errorf("no x-mrcon-seq in %v", delivery.Headers)
	}
	c := change{
		operation: text("x-mrcon-op"),
		db:        text("x-mrcon-db"),
		coll:      text("x-mrcon-coll"),
		key:       text("x-mrcon-key"),
		position:  position{seq: seq},
	}
	if !delivery.Timestamp.IsZero() { // a gap record has none
		c.position.seconds = delivery.Timestamp.Unix()
	}
	body, err := decompress(delivery.Body, delivery.ContentEncoding)
	if err != nil {
		return c, err
	}
	content, err := parse(body, delivery.ContentType)
	if err != nil {
		return c, err
	}
	if strings.HasPrefix(delivery.ContentType, "application/cloudevents") {
		// In binary mode the body is the data, and the attributes are headers.
		envelope, _ := content.(object)
		content = envelope["data"]
	}
	if c.operation == "gap" {
		c.event, _ = content.(object)
		return c, nil
	}
	switch format {
	case "relaxed", "canonical", "bson", "cloudevents":
		c.fromEvent(content)
	case "document", "cloudevents-document": // cloudevents.data: document
		c.fromDocument(content, text("x-mrcon-image-missing")+","+text("x-mrcon-stripped"))
	case "debezium":
		err = c.fromDebezium(content)
	case "outbox":
		c.document = content
	default:
		err = fmt.Errorf("no format %q", format)
	}
	if key := c.event["documentKey"]; c.key == "" && key != nil {
		// The header is left out above 64 KiB; then it is so for each change of this document.
		written, _ := json.Marshal(key)
		c.key = string(written)
	}
	return c, err
}

func (c *change) fromEvent(content any) {
	c.event, _ = content.(object)
	c.patch, _ = c.event["updateDescription"].(object)
	if document := c.event["fullDocument"]; document != nil {
		c.document = document
	}
}

func (c *change) fromDocument(content any, absent string) {
	switch c.operation {
	case "insert", "update", "replace", "read":
		// Where the document was gone when MongoDB looked for it, or is too large, the body is the key.
		for _, name := range strings.Split(absent, ",") {
			if name == "fullDocument" {
				return
			}
		}
		c.document = content
	case "delete":
	default:
		c.event, _ = content.(object)
	}
}

func (c *change) fromDebezium(content any) error {
	value, _ := content.(object)
	if payload, isThere := value["payload"].(object); isThere { // with schemas: {schema, payload}
		value = payload
	}
	if after, isText := value["after"].(string); isText {
		document, err := parseJSON([]byte(after))
		if err != nil {
			return err
		}
		c.document = document
	}
	description, isThere := value["updateDescription"].(object)
	if !isThere {
		return nil
	}
	c.patch = object{"removedFields": description["removedFields"]}
	if updated, isText := description["updatedFields"].(string); isText {
		fields, err := parseJSON([]byte(updated))
		if err != nil {
			return err
		}
		c.patch["updatedFields"] = fields
	}
	var arrays []any
	for _, array := range list(description["truncatedArrays"]) {
		array, _ := array.(object)
		arrays = append(arrays, object{"field": array["array"], "newSize": array["size"]})
	}
	c.patch["truncatedArrays"] = arrays
	return nil
}

func decompress(body []byte, encoding string) ([]byte, error) {
	switch encoding {
	case "gzip":
		reader, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		return io.ReadAll(reader)
	case "zstd":
		reader, err := zstd.NewReader(bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		defer reader.Close()
		return io.ReadAll(reader)
	}
	return body, nil
}

// parse returns JSON as it is, BSON as canonical Extended JSON, text as text, and other bytes as base64.
func parse(body []byte, contentType string) (any, error) {
	kind, _, _ := strings.Cut(contentType, ";")
	switch kind = strings.ToLower(strings.TrimSpace(kind)); {
	case kind == "application/json" || strings.HasSuffix(kind, "+json"):
		return parseJSON(body)
	case kind == "application/bson":
		written, err := bson.MarshalExtJSON(bson.Raw(body), true, false)
		if err != nil {
			return nil, err
		}
		return parseJSON(written)
	case strings.HasPrefix(kind, "text/"):
		return string(body), nil
	}
	return base64.StdEncoding.EncodeToString(body), nil
}

func parseJSON(text []byte) (any, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var value any
	err := decoder.Decode(&value)
	return value, err
}

func list(value any) []any {
	items, _ := value.([]any)
	return items
}
