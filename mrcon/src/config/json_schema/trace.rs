//! What serde asks for when it reads a structure, as JSON Schema.
//!
//! A deserializer without input: each question is noted, and answered with something that fits, so that the
//! next one comes. A form that is not known here is a panic of the tests, which read every key.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_json::{Map, Value, json};

/// What is wrong with the answers: a form that [`form`] does not know.
#[derive(Debug)]
pub(super) struct Unknown(String);

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unknown {}

impl de::Error for Unknown {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Unknown(text.to_string())
    }
}

/// The schema of a type, and of the structures in it by their names.
pub(super) fn trace<T: for<'de> Deserialize<'de>>() -> (Value, Map<String, Value>) {
    let (mut root, mut structures) = (Value::Null, Map::new());
    let tracer = Tracer {
        structures: &mut structures,
        schema: &mut root,
    };
    if let Err(error) = T::deserialize(tracer) {
        unreachable!("every form is in a test: {error}");
    }
    (root, structures)
}

/// The key under which the name of an enum is noted, for its words' meaning.
pub(super) const WORDS_OF: &str = "words of";

/// How a form is written, and one that is right.
struct Form {
    schema: Value,
    answer: Answer,
}

/// What a visitor gets.
enum Answer {
    Text(&'static str),
    Number(u64),
    Mapping,
}

/// A number, then a size with its unit: as [`bytes`](super::super::forms) reads it.
const SIZE: &str = "^[0-9]+ *([bB]|[kKmMgGtT][iI]?[bB]|[pP][iI][bB])$";

/// One or more numbers with units, as durations are read.
const DURATION: &str = "^ *([0-9]+(\\.[0-9]+)? *(nanos|nsec|ns|usec|us|µs|millis|msec|ms|seconds|second|secs|sec|s|minutes|minute|min|mins|m|hours|hour|hrs|hr|h|days|day|d|weeks|week|wks|wk|w|months|month|M|years|year|yrs|yr|y) *)+$";

/// What a visitor says it expects, in the words of the `forms` module or of serde.
fn form(expected: &str) -> Option<Form> {
    let (schema, answer) = match expected {
        "a string" | "path string" => (json!({"type": "string"}), Answer::Text("")),
        "socket address" => (json!({"type": "string"}), Answer::Text("0.0.0.0:0")),
        "a duration with its unit, such as 20s, 500ms or 2m" => (duration(), Answer::Text("1s")),
        "auto, or a duration with its unit, such as 5s or 500ms" => (
            either(json!({"const": "auto"}), duration()),
            Answer::Text("auto"),
        ),
        "a number of bytes, or a size such as 500MB or 10GiB" => {
            (either(number(), size()), Answer::Number(1))
        }
        "auto, or a number of bytes, or a size such as 16MiB" => {
            let schema = json!({"anyOf": [{"const": "auto"}, number(), size()]});
            (schema, Answer::Text("auto"))
        }
        "auto or a whole number" => (
            either(json!({"const": "auto"}), number()),
            Answer::Text("auto"),
        ),
        "auto, true or false" => (json!({"enum": ["auto", true, false]}), Answer::Text("auto")),
        "now or a time such as 2024-05-01T00:00:00Z" => {
            (json!({"type": "string"}), Answer::Text("now"))
        }
        "1, or a path to a number such as fullDocument.price" => (
            either(json!({"const": 1}), json!({"type": "string"})),
            Answer::Number(1),
        ),
        "text, a whole number, true or false" => (
            json!({"type": ["string", "integer", "boolean"]}),
            Answer::Text(""),
        ),
        "a stage such as {$match: {operationType: insert}}" => (
            json!({"type": "object", "minProperties": 1}),
            Answer::Mapping,
        ),
        _ => return None,
    };
    Some(Form { schema, answer })
}

fn number() -> Value {
    json!({"type": "integer", "minimum": 0})
}

fn size() -> Value {
    json!({"type": "string", "pattern": SIZE})
}

fn duration() -> Value {
    json!({"type": "string", "pattern": DURATION})
}

fn either(one: Value, other: Value) -> Value {
    json!({"anyOf": [one, other]})
}

/// The same, or nothing.
fn or_null(schema: Value) -> Value {
    match schema.get("type") {
        Some(Value::String(kind)) => {
            let kinds = json!([kind, "null"]);
            let mut schema = schema;
            schema["type"] = kinds;
            // Words are compared whatever the type is.
            if let Some(Value::Array(words)) = schema.get_mut("enum") {
                words.push(Value::Null);
            }
            schema
        }
        _ => either(schema, json!({"type": "null"})),
    }
}

/// Answers for one value, and notes what it is.
struct Tracer<'t> {
    structures: &'t mut Map<String, Value>,
    schema: &'t mut Value,
}

impl<'t> Tracer<'t> {
    fn form<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unknown> {
        let expected = (&visitor as &dyn Expected).to_string();
        let Some(Form { schema, answer }) = form(&expected) else {
            return Err(Unknown(format!("no form for: {expected}")));
        };
        *self.schema = schema;
        match answer {
            Answer::Text(text) => visitor.visit_str(text),
            Answer::Number(number) => visitor.visit_u64(number),
            Answer::Mapping => visitor.visit_map(Nothing),
        }
    }

    fn whole<'de, V: Visitor<'de>>(
        self,
        visitor: V,
        smallest: Option<u64>,
    ) -> Result<V::Value, Unknown> {
        *self.schema = json!({"type": "integer"});
        if let Some(smallest) = smallest {
            self.schema["minimum"] = json!(smallest);
        }
        visitor.visit_u64(1)
    }
}

impl<'de> Deserializer<'de> for Tracer<'_> {
    type Error = Unknown;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unknown> {
        self.form(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unknown> {
        *self.schema = json!({"type": "boolean"});
        visitor.visit_bool(false)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unknown> {
        self.whole(visitor, None)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unknown> {
        self.whole(visitor, Some(0))
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unknown> {
        self.whole(visitor, Some(0))
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unknown> {
        *self.schema = json!({"type": "number"});
        visitor.visit_f64(1.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unknown> {
        let mut inner = Value::Null;
        let value = visitor.visit_some(Tracer {
            structures: self.structures,
            schema: &mut inner,
        })?;
        *self.schema = or_null(inner);
        Ok(value)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Unknown> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unknown> {
        let mut items = Value::Null;
        let value = visitor.visit_seq(One {
            structures: self.structures,
            schema: Some(&mut items),
        })?;
        *self.schema = json!({"type": "array", "items": items});
        Ok(value)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unknown> {
        let mut values = Value::Null;
        let value = visitor.visit_map(One {
            structures: self.structures,
            schema: Some(&mut values),
        })?;
        *self.schema = json!({"type": "object", "additionalProperties": values});
        Ok(value)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        keys: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unknown> {
        let mut properties = Map::new();
        let value = visitor.visit_map(Fields {
            structures: self.structures,
            properties: &mut properties,
            keys: keys.iter(),
            key: "",
        })?;
        self.structures.insert(
            name.to_owned(),
            json!({
                "type": ["object", "null"],
                "properties": properties,
                "additionalProperties": false,
            }),
        );
        *self.schema = json!({"$ref": format!("#/$defs/{name}")});
        Ok(value)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        words: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unknown> {
        *self.schema = json!({"type": "string", "enum": words, WORDS_OF: name});
        let first = words.first().copied().unwrap_or_default();
        let word: StrDeserializer<'_, Unknown> = first.into_deserializer();
        visitor.visit_enum(word)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u16 u128 f32 char str string bytes byte_buf
        unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

/// The keys of a structure, each once.
struct Fields<'t> {
    structures: &'t mut Map<String, Value>,
    properties: &'t mut Map<String, Value>,
    keys: std::slice::Iter<'static, &'static str>,
    key: &'static str,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Unknown;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Unknown> {
        let Some(key) = self.keys.next() else {
            return Ok(None);
        };
        self.key = key;
        let key: StrDeserializer<'_, Unknown> = self.key.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Unknown> {
        let mut schema = Value::Null;
        let value = seed.deserialize(Tracer {
            structures: self.structures,
            schema: &mut schema,
        })?;
        self.properties.insert(self.key.to_owned(), schema);
        Ok(value)
    }
}

/// One item of a list, or one entry of a mapping whose keys are the user's.
struct One<'t> {
    structures: &'t mut Map<String, Value>,
    schema: Option<&'t mut Value>,
}

impl One<'_> {
    fn next<'de, S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Unknown> {
        let Some(schema) = self.schema.take() else {
            return Ok(None);
        };
        let tracer = Tracer {
            structures: self.structures,
            schema,
        };
        seed.deserialize(tracer).map(Some)
    }
}

impl<'de> SeqAccess<'de> for One<'_> {
    type Error = Unknown;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Unknown> {
        self.next(seed)
    }
}

impl<'de> MapAccess<'de> for One<'_> {
    type Error = Unknown;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Unknown> {
        if self.schema.is_none() {
            return Ok(None);
        }
        let key: StrDeserializer<'_, Unknown> = "".into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Unknown> {
        let value = self.next(seed)?;
        value.ok_or_else(|| Unknown("a value without its key".to_owned()))
    }
}

/// A mapping without entries.
struct Nothing;

impl<'de> MapAccess<'de> for Nothing {
    type Error = Unknown;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        _: K,
    ) -> Result<Option<K::Value>, Unknown> {
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, _: S) -> Result<S::Value, Unknown> {
        Err(Unknown("a value without its key".to_owned()))
    }
}
