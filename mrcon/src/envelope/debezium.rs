//! The envelope of Debezium's MongoDB connector, so that consumers written for it go on working.
//!
//! Documents are JSON in a string. What Debezium knows and we do not has the value that it has there when
//! there is none: `sequence` and `transaction` are null. `ts_ms` is the server's wall clock, and not the time
//! at which the event was handled: the same event makes the same message whenever it is sent.

use bson::{RawDocument, spec::ElementType};

use super::extjson::{ExtJson, write_document};
use super::fields::{Fields, Value};
use super::headers::HeaderText;
use super::json::{Written, write_value};
use super::legacy::Legacy;
use super::number::write_integer;
use super::text::write_text;
use super::{About, EncodeError, document::Plain, json_text};
use crate::elements::Cursor;
use crate::event::{ChangeEvent, Operation};

/// How documents are written in their strings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Json {
    /// As Debezium does: Extended JSON version 1, and `updatedFields` in version 2, relaxed.
    #[default]
    Legacy,
    /// Extended JSON version 2, relaxed.
    Relaxed,
    /// Extended JSON version 2, canonical.
    Canonical,
}

/// How the envelope is made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Debezium {
    /// `source.name`, which Debezium calls the topic prefix.
    pub name: String,
    /// How documents are written.
    pub json: Json,
    /// Whether the envelope is the `payload` beside a Kafka Connect `schema`.
    pub schemas: bool,
    /// The header that has what is the record's key in Kafka, if there is to be one.
    pub key_header: Option<String>,
}

/// A longer key is in no header, which has to fit into a frame.
const MAX_KEY_BYTES: usize = 16 << 10;

impl Debezium {
    /// Under this name, as Debezium does it, without schemas and without the header of a key.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            json: Json::default(),
            schemas: false,
            key_header: None,
        }
    }

    /// Whether Debezium sends such an event, or it is a gap, which has to be told in any case.
    pub(super) fn takes(event: &ChangeEvent<'_>) -> bool {
        event.operation == Operation::Gap || code(event.operation).is_some()
    }

    /// Appends the body; `inner` is for documents before they are in their strings.
    pub(super) fn write(
        &self,
        about: &About<'_>,
        part: &RawDocument,
        body: &mut Vec<u8>,
        inner: &mut Vec<u8>,
    ) -> Result<Written, EncodeError> {
        let Some(code) = code(about.event.operation) else {
            return write_document(body, part, ExtJson::Relaxed);
        };
        let start = body.len();
        if self.schemas {
            self.put_schema(about.event, body);
        }
        let mut writer = Writer {
            out: body,
            inner,
            json: self.json,
            written: Written::default(),
        };
        let result = writer.envelope(&self.name, about.event, part, code);
        let written = writer.written;
        if self.schemas {
            body.push(b'}');
        }
        if let Err(error) = result {
            body.truncate(start);
            return Err(error);
        }
        Ok(written)
    }

    /// Adds the record's key as a header: `{"id": "JSON"}`, of the `_id` alone.
    pub(super) fn push_headers(
        &self,
        about: &About<'_>,
        headers: &mut HeaderText,
        text: &mut Vec<u8>,
        inner: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let (Some(name), Some(key)) = (&self.key_header, about.event.document_key) else {
            return Ok(());
        };
        let Some(id) = id_of(key)? else {
            return Ok(());
        };
        inner.clear();
        let _written = write_value(inner, id, ExtJson::Relaxed)?;
        if inner.len() > MAX_KEY_BYTES {
            return Ok(());
        }
        text.clear();
        if self.schemas {
            text.extend_from_slice(b"{\"schema\":{\"type\":\"struct\",\"fields\":[{\"type\":\"string\",\"optional\":false,\"field\":\"id\"}],\"optional\":false,\"name\":\"");
            self.put_topic(about.event, text);
            text.extend_from_slice(b".Key\"},\"payload\":");
        }
        text.extend_from_slice(b"{\"id\":\"");
        write_text(text, inner, inner.len());
        text.extend_from_slice(b"\"}");
        if self.schemas {
            text.push(b'}');
        }
        headers.push(name, json_text(text));
        Ok(())
    }

    fn put_topic(&self, event: &ChangeEvent<'_>, out: &mut Vec<u8>) {
        put_text(out, &self.name);
        for name in [event.db, event.coll].into_iter().flatten() {
            out.push(b'.');
            put_text(out, name);
        }
    }

    /// The schema, up to the payload. Names of Debezium's own types are what consumers look for.
    fn put_schema(&self, event: &ChangeEvent<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(SCHEMA_TO_ITS_NAME.as_bytes());
        self.put_topic(event, out);
        out.extend_from_slice(b".Envelope\"},\"payload\":");
    }
}

/// A schema of a primitive type.
macro_rules! field {
    ($type:literal, $optional:literal, $name:literal) => {
        concat!(
            "{\"type\":\"",
            $type,
            "\",\"optional\":",
            $optional,
            ",\"field\":\"",
            $name,
            "\"}"
        )
    };
}

/// The schema of a document in a string.
macro_rules! json_field {
    ($name:literal) => {
        concat!(
            "{\"type\":\"string\",\"optional\":true,\"name\":\"io.debezium.data.Json\",\"version\":1,\"field\":\"",
            $name, "\"}"
        )
    };
}

const SCHEMA_TO_ITS_NAME: &str = concat!(
    "{\"schema\":{\"type\":\"struct\",\"fields\":[",
    json_field!("before"),
    ",",
    json_field!("after"),
    ",",
    "{\"type\":\"struct\",\"fields\":[",
    "{\"type\":\"array\",\"items\":{\"type\":\"string\",\"optional\":false},\"optional\":true,\"field\":\"removedFields\"},",
    json_field!("updatedFields"),
    ",",
    "{\"type\":\"array\",\"items\":{\"type\":\"struct\",\"fields\":[",
    field!("string", "false", "field"),
    ",",
    field!("int32", "false", "size"),
    "],\"optional\":false,\"name\":\"io.debezium.connector.mongodb.changestream.truncatedarray\",\"version\":1},",
    "\"optional\":true,\"field\":\"truncatedArrays\"}",
    "],\"optional\":true,\"name\":\"io.debezium.connector.mongodb.changestream.updatedescription\",\"version\":1,\"field\":\"updateDescription\"},",
    "{\"type\":\"struct\",\"fields\":[",
    field!("string", "false", "version"),
    ",",
    field!("string", "false", "connector"),
    ",",
    field!("string", "false", "name"),
    ",",
    field!("int64", "false", "ts_ms"),
    ",",
    "{\"type\":\"string\",\"optional\":true,\"name\":\"io.debezium.data.Enum\",\"version\":1,\"parameters\":{\"allowed\":",
    "\"true,first,first_in_data_collection,last_in_data_collection,last,false,incremental\"},\"default\":\"false\",\"field\":\"snapshot\"},",
    field!("string", "false", "db"),
    ",",
    field!("string", "true", "sequence"),
    ",",
    field!("int64", "true", "ts_us"),
    ",",
    field!("int64", "true", "ts_ns"),
    ",",
    field!("string", "false", "collection"),
    ",",
    field!("int32", "false", "ord"),
    ",",
    field!("string", "true", "lsid"),
    ",",
    field!("int64", "true", "txnNumber"),
    ",",
    field!("int64", "true", "wallTime"),
    "],\"optional\":false,\"name\":\"io.debezium.connector.mongo.Source\",\"field\":\"source\"},",
    field!("string", "true", "op"),
    ",",
    field!("int64", "true", "ts_ms"),
    ",",
    field!("int64", "true", "ts_us"),
    ",",
    field!("int64", "true", "ts_ns"),
    ",",
    "{\"type\":\"struct\",\"fields\":[",
    field!("string", "false", "id"),
    ",",
    field!("int64", "false", "total_order"),
    ",",
    field!("int64", "false", "data_collection_order"),
    "],\"optional\":true,\"name\":\"event.block\",\"version\":1,\"field\":\"transaction\"}",
    "],\"optional\":false,\"name\":\"",
);

/// `op`, of the events that Debezium sends.
fn code(operation: Operation) -> Option<&'static str> {
    match operation {
        Operation::Insert => Some("c"),
        Operation::Update | Operation::Replace => Some("u"),
        Operation::Delete => Some("d"),
        Operation::Read => Some("r"),
        Operation::Drop
        | Operation::Rename
        | Operation::DropDatabase
        | Operation::Invalidate
        | Operation::Create
        | Operation::CreateIndexes
        | Operation::DropIndexes
        | Operation::Modify
        | Operation::ShardCollection
        | Operation::ReshardCollection
        | Operation::RefineCollectionShardKey
        | Operation::Gap
        | Operation::Other => None,
    }
}

struct Writer<'o> {
    out: &'o mut Vec<u8>,
    inner: &'o mut Vec<u8>,
    json: Json,
    written: Written,
}

impl Writer<'_> {
    fn envelope(
        &mut self,
        name: &str,
        event: &ChangeEvent<'_>,
        part: &RawDocument,
        code: &str,
    ) -> Result<(), EncodeError> {
        let fields = Fields::of(part)?;
        self.literal("{\"before\":");
        self.document(fields.before_change)?;
        self.literal(",\"after\":");
        self.document(fields.full_document)?;
        self.literal(",\"updateDescription\":");
        self.update_description(fields.update_description)?;
        self.literal(",\"source\":{\"version\":\"");
        self.literal(env!("CARGO_PKG_VERSION"));
        self.literal("\",\"connector\":\"mongodb\",\"name\":\"");
        put_text(self.out, name);
        let cluster = event.cluster_time.unwrap_or(bson::Timestamp {
            time: 0,
            increment: 0,
        });
        let at_cluster = i64::from(cluster.time) * 1000;
        let wall = event.wall_time.map(|time| time.timestamp_millis());
        self.literal("\",\"ts_ms\":");
        write_integer(self.out, at_cluster);
        // Rows stand between events, as those of Debezium's incremental snapshots do.
        self.literal(match event.operation {
            Operation::Read => ",\"snapshot\":\"incremental\",\"db\":\"",
            _ => ",\"snapshot\":\"false\",\"db\":\"",
        });
        put_text(self.out, event.db.unwrap_or_default());
        self.literal("\",\"sequence\":null");
        self.finer_times(at_cluster);
        self.literal(",\"collection\":\"");
        put_text(self.out, event.coll.unwrap_or_default());
        self.literal("\",\"ord\":");
        write_integer(self.out, cluster.increment);
        self.transaction(fields.lsid, fields.txn_number)?;
        self.literal(",\"wallTime\":");
        match wall {
            Some(millis) => write_integer(self.out, millis),
            None => self.literal("null"),
        }
        self.literal("},\"op\":\"");
        self.literal(code);
        let at = wall.unwrap_or(at_cluster);
        self.literal("\",\"ts_ms\":");
        write_integer(self.out, at);
        self.finer_times(at);
        self.literal(",\"transaction\":null}");
        Ok(())
    }

    fn literal(&mut self, json: &str) {
        self.out.extend_from_slice(json.as_bytes());
    }

    fn finer_times(&mut self, millis: i64) {
        self.literal(",\"ts_us\":");
        write_integer(self.out, millis.saturating_mul(1000));
        self.literal(",\"ts_ns\":");
        write_integer(self.out, millis.saturating_mul(1_000_000));
    }

    /// Which session and transaction it was in; of an event that was in none, null.
    fn transaction(
        &mut self,
        lsid: Option<Value<'_>>,
        number: Option<Value<'_>>,
    ) -> Result<(), EncodeError> {
        let number = match number {
            Some((ElementType::Int64, mut input)) => Some(input.i64()?),
            Some((ElementType::Int32, mut input)) => Some(i64::from(input.i32()?)),
            _ => None,
        };
        self.literal(",\"lsid\":");
        self.document(lsid.filter(|_| number.is_some()))?;
        self.literal(",\"txnNumber\":");
        match number.filter(|_| lsid.is_some()) {
            Some(number) => write_integer(self.out, number),
            None => self.literal("null"),
        }
        Ok(())
    }

    /// A document in a string, or null.
    fn document(&mut self, value: Option<Value<'_>>) -> Result<(), EncodeError> {
        let Some(value) = value else {
            self.literal("null");
            return Ok(());
        };
        self.inner.clear();
        let written = match self.json {
            Json::Legacy => write_value(self.inner, value, Legacy),
            Json::Relaxed => write_value(self.inner, value, ExtJson::Relaxed),
            Json::Canonical => write_value(self.inner, value, ExtJson::Canonical),
        };
        self.put_inner(written?);
        Ok(())
    }

    fn put_inner(&mut self, written: Written) {
        self.written.replaced_text |= written.replaced_text;
        self.out.push(b'"');
        write_text(self.out, self.inner, self.inner.len());
        self.out.push(b'"');
    }

    fn update_description(&mut self, value: Option<Value<'_>>) -> Result<(), EncodeError> {
        let Some((ElementType::EmbeddedDocument, mut input)) = value else {
            self.literal("null");
            return Ok(());
        };
        let (mut updated, mut removed, mut truncated) = (None, None, None);
        let mut members = input.document()?;
        while let Some(kind) = members.kind()? {
            match (members.cstring()?, kind) {
                (b"updatedFields", ElementType::EmbeddedDocument) => updated = Some(members),
                (b"removedFields", ElementType::Array) => removed = Some(members),
                (b"truncatedArrays", ElementType::Array) => truncated = Some(members),
                _ => {}
            }
            members.skip(kind)?;
        }
        self.literal("{\"removedFields\":");
        self.removed_fields(removed)?;
        self.literal(",\"updatedFields\":");
        self.updated_fields(updated)?;
        self.literal(",\"truncatedArrays\":");
        self.truncated_arrays(truncated)?;
        self.literal("}");
        Ok(())
    }

    fn removed_fields(&mut self, names: Option<Cursor<'_>>) -> Result<(), EncodeError> {
        match names {
            Some(names) if !is_empty(names)? => {
                let names = (ElementType::Array, names);
                let written = write_value(self.out, names, Plain::default())?;
                self.written.replaced_text |= written.replaced_text;
            }
            _ => self.literal("null"),
        }
        Ok(())
    }

    fn updated_fields(&mut self, fields: Option<Cursor<'_>>) -> Result<(), EncodeError> {
        let Some(fields) = fields else {
            self.literal("null");
            return Ok(());
        };
        let fields = (ElementType::EmbeddedDocument, fields);
        self.inner.clear();
        let written = match self.json {
            Json::Legacy | Json::Relaxed => write_value(self.inner, fields, ExtJson::Relaxed),
            Json::Canonical => write_value(self.inner, fields, ExtJson::Canonical),
        };
        self.put_inner(written?);
        Ok(())
    }

    fn truncated_arrays(&mut self, arrays: Option<Cursor<'_>>) -> Result<(), EncodeError> {
        let mut arrays = match arrays {
            Some(mut arrays) if !is_empty(arrays)? => arrays.document()?,
            _ => {
                self.literal("null");
                return Ok(());
            }
        };
        let mut opening = "[";
        while let Some(kind) = arrays.kind()? {
            arrays.cstring()?;
            if kind != ElementType::EmbeddedDocument {
                arrays.skip(kind)?;
                continue;
            }
            let mut members = arrays.document()?;
            let (mut name, mut size) = (&b""[..], 0);
            while let Some(kind) = members.kind()? {
                match (members.cstring()?, kind) {
                    (b"field", ElementType::String) => name = members.string()?,
                    (b"newSize", ElementType::Int32) => size = members.i32()?,
                    _ => members.skip(kind)?,
                }
            }
            self.literal(opening);
            opening = ",";
            self.literal("{\"field\":\"");
            self.written.replaced_text |= write_text(self.out, name, name.len());
            self.literal("\",\"size\":");
            write_integer(self.out, size);
            self.literal("}");
        }
        self.literal(if opening == "[" { "[]" } else { "]" });
        Ok(())
    }
}

fn is_empty(mut array: Cursor<'_>) -> Result<bool, EncodeError> {
    Ok(array.document()?.rest().is_empty())
}

fn id_of(key: &RawDocument) -> Result<Option<Value<'_>>, EncodeError> {
    let mut input = Cursor::new(key);
    while let Some(kind) = input.kind()? {
        if input.cstring()? == b"_id" {
            return Ok(Some((kind, input)));
        }
        input.skip(kind)?;
    }
    Ok(None)
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    write_text(out, text.as_bytes(), text.len());
}
