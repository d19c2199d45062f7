// What a message of mrcon says: a change, whatever the format of its body.
"use strict";

const zlib = require("node:zlib");
const { EJSON, deserialize } = require("bson");

// `message` is { queue, body, headers, contentType, contentEncoding, timestamp, offset }: the timestamp of the change
// in seconds since 1970, 0 for a gap record; the offset of a stream.
//
// A change is { operation, db, coll, key, position, document, patch, event }:
//   key       equal keys have equal text, whatever the format; undefined: it is about more than one document
//   position  tells which of two changes came first, see README.md
//   document  the whole document after the change, if the message has it
//   patch     else what an update changed in it: MongoDB's updateDescription
//   event     the change event of a gap record, a drop or a rename
function decode(message, format) {
  const { headers } = message;
  const change = {
    operation: headers["x-mrcon-op"],
    db: headers["x-mrcon-db"],
    coll: headers["x-mrcon-coll"],
    key: headers["x-mrcon-key"],
    position: { timestamp: message.timestamp, seq: Number(headers["x-mrcon-seq"]) },
  };
  let content = parse(decompress(message), message.contentType);
  // In binary mode the body is the data, and the attributes are headers.
  if (message.contentType?.startsWith("application/cloudevents")) content = content.data;
  if (change.operation === "gap") {
    change.event = content;
  } else {
    DECODERS[format](change, content, message);
  }
  if (change.key === undefined && change.event?.documentKey) {
    // The header is left out above 64 KiB; then it is so for each change of this document.
    change.key = JSON.stringify(change.event.documentKey);
  }
  return change;
}

function decompress({ body, contentEncoding }) {
  if (contentEncoding === "gzip") return zlib.gunzipSync(body);
  if (contentEncoding === "zstd") return zlib.zstdDecompressSync(body);
  return body;
}

// JSON as it is, BSON as canonical Extended JSON, text as text, and other bytes as base64.
//
// Integers above 2^53 lose digits in JSON.parse. Where there are some, choose the format canonical or bson.
function parse(body, contentType) {
  const kind = (contentType ?? "").split(";")[0].trim().toLowerCase();
  if (kind === "application/json" || kind.endsWith("+json")) return JSON.parse(body);
  if (kind === "application/bson") {
    const document = deserialize(body, { promoteValues: false, bsonRegExp: true });
    return JSON.parse(EJSON.stringify(document, { relaxed: false }));
  }
  return body.toString(kind.startsWith("text/") ? "utf8" : "base64");
}

function fromEvent(change, event) {
  change.event = event;
  change.document = event.fullDocument;
  change.patch = event.updateDescription;
}

function fromDocument(change, content, { headers }) {
  if (["insert", "update", "replace", "read"].includes(change.operation)) {
    // Where the document was gone when MongoDB looked for it, or is too large, the body is the key.
    const absent = [headers["x-mrcon-image-missing"], headers["x-mrcon-stripped"]].join(",").split(",");
    if (!absent.includes("fullDocument")) change.document = content;
  } else if (change.operation !== "delete") {
    change.event = content;
  }
}

function fromDebezium(change, value) {
  const payload = value.payload ?? value; // with schemas: { schema, payload }
  if (payload.after != null) change.document = JSON.parse(payload.after);
  const description = payload.updateDescription;
  if (description) {
    change.patch = {
      updatedFields: JSON.parse(description.updatedFields ?? "{}"),
      removedFields: description.removedFields ?? [],
      truncatedArrays: (description.truncatedArrays ?? []).map(({ array, size }) => ({ field: array, newSize: size })),
    };
  }
}

function fromOutbox(change, payload) {
  change.document = payload;
}

const DECODERS = {
  relaxed: fromEvent,
  canonical: fromEvent,
  bson: fromEvent,
  document: fromDocument,
  cloudevents: fromEvent,
  "cloudevents-document": fromDocument, // cloudevents.data: document
  debezium: fromDebezium,
  outbox: fromOutbox,
};

module.exports = { decode };
