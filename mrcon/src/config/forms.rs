//! Values whose written form is not what serde derives: durations, sizes, `auto | true | false`, `now` or
//! a point in time, 1 or a path, two keys that may be `null`, and aggregation stages.

use std::fmt;

use bson::Document;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Error as _, Serialize, Serializer};

use super::limits::{DEFAULT_TOKENS_COLL_CAPPED, DEFAULT_TOKENS_COLL_SIZE_IN_BYTES};
use super::schema::{CustomValue, SplitLargeEvents, Start};

/// Durations are written with a unit (`20s`, `500ms`, `2m`), so that no reader has to guess it.
pub(super) mod duration {
    use std::time::Duration;

    use super::{Deserializer, Serialize, Serializer, Visitor, de, fmt};

    pub(in super::super) fn serialize<S: Serializer>(
        value: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        humantime::format_duration(*value)
            .to_string()
            .serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        deserializer.deserialize_any(DurationVisitor)
    }

    pub(super) struct DurationVisitor;

    impl Visitor<'_> for DurationVisitor {
        type Value = Duration;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a duration with its unit, such as 20s, 500ms or 2m")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
            humantime::parse_duration(text)
                .map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<Duration, E> {
            match u64::try_from(number) {
                Ok(number) => self.visit_u64(number),
                Err(_) => Err(E::invalid_value(de::Unexpected::Signed(number), &self)),
            }
        }

        /// A bare number could be seconds or milliseconds; the answer shows how to say which.
        fn visit_u64<E: de::Error>(self, number: u64) -> Result<Duration, E> {
            let expected = format!("a duration with its unit; write {number}s or {number}ms");
            let found = de::Unexpected::Unsigned(number);
            Err(E::invalid_value(found, &expected.as_str()))
        }
    }
}

/// A duration that may be left out.
pub(super) mod optional_duration {
    use std::time::Duration;

    use super::{Deserializer, Serializer, duration};

    pub(in super::super) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            None => serializer.serialize_none(),
            Some(value) => duration::serialize(value, serializer),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        duration::deserialize(deserializer).map(Some)
    }
}

/// A number of bytes, or a size with its unit (`500MB`, `10GiB`); it may be left out.
pub(super) mod bytes {
    use super::{Deserializer, Serialize, Serializer, Visitor, de, fmt};

    /// Units in lower case, and how many bytes each has.
    const UNITS: [(&str, u64); 10] = [
        ("b", 1),
        ("kb", 1000),
        ("kib", 1 << 10),
        ("mb", 1_000_000),
        ("mib", 1 << 20),
        ("gb", 1_000_000_000),
        ("gib", 1 << 30),
        ("tb", 1_000_000_000_000),
        ("tib", 1 << 40),
        ("pib", 1 << 50),
    ];

    pub(in super::super) fn serialize<S: Serializer>(
        value: &Option<u64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<u64>, D::Error> {
        required(deserializer).map(Some)
    }

    /// A size that there is always.
    pub(in super::super) fn required<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<u64, D::Error> {
        deserializer.deserialize_any(BytesVisitor)
    }

    pub(super) struct BytesVisitor;

    impl Visitor<'_> for BytesVisitor {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number of bytes, or a size such as 500MB or 10GiB")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
            parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<u64, E> {
            u64::try_from(number)
                .map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<u64, E> {
            Ok(number)
        }
    }

    fn parse(text: &str) -> Option<u64> {
        let end = text.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = text.split_at(end);
        let unit = unit.trim().to_ascii_lowercase();
        let (_, bytes) = UNITS.iter().find(|(name, _)| *name == unit)?;
        number.parse::<u64>().ok()?.checked_mul(*bytes)
    }
}

/// What another form reads, or `auto` for what suits the rest of the configuration.
struct AutoOr<V> {
    other: V,
    expecting: &'static str,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for AutoOr<V> {
    type Value = Option<V::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        let invalid = E::invalid_value(de::Unexpected::Str(text), &self);
        match text {
            "auto" => Ok(None),
            other => self
                .other
                .visit_str::<E>(other)
                .map(Some)
                .map_err(|_| invalid),
        }
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        self.other.visit_i64(number).map(Some)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        self.other.visit_u64(number).map(Some)
    }
}

/// A whole number, or `auto`.
pub(super) mod auto_number {
    use super::{AutoOr, Deserializer, Serialize, Serializer, Visitor, de, fmt};

    const EXPECTING: &str = "auto or a whole number";

    pub(in super::super) fn serialize<S: Serializer>(
        value: &Option<u32>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            None => "auto".serialize(serializer),
            Some(number) => number.serialize(serializer),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<u32>, D::Error> {
        deserializer.deserialize_any(AutoOr {
            other: NumberVisitor,
            expecting: EXPECTING,
        })
    }

    struct NumberVisitor;

    impl Visitor<'_> for NumberVisitor {
        type Value = u32;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(EXPECTING)
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<u32, E> {
            u32::try_from(number)
                .map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<u32, E> {
            u32::try_from(number)
                .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(number), &self))
        }
    }
}

/// A number of bytes, or a size with its unit, or `auto`.
pub(super) mod auto_bytes {
    use super::{AutoOr, Deserializer, Serialize, Serializer, bytes};

    pub(in super::super) fn serialize<S: Serializer>(
        value: &Option<u64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            None => "auto".serialize(serializer),
            Some(bytes) => bytes.serialize(serializer),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<u64>, D::Error> {
        deserializer.deserialize_any(AutoOr {
            other: bytes::BytesVisitor,
            expecting: "auto, or a number of bytes, or a size such as 16MiB",
        })
    }
}

/// A duration, or `auto`.
pub(super) mod auto_duration {
    use std::time::Duration;

    use super::{AutoOr, Deserializer, Serialize, Serializer, duration};

    pub(in super::super) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            None => "auto".serialize(serializer),
            Some(value) => duration::serialize(value, serializer),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        deserializer.deserialize_any(AutoOr {
            other: duration::DurationVisitor,
            expecting: "auto, or a duration with its unit, such as 5s or 500ms",
        })
    }
}

/// `tokens_coll_capped`, which files of earlier versions may have as `null`.
pub(super) fn capped<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Option::deserialize(deserializer).map(|capped| capped.unwrap_or(DEFAULT_TOKENS_COLL_CAPPED))
}

/// `tokens_coll_size_in_bytes`, which files of earlier versions may have as `null`.
pub(super) fn capped_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    Option::deserialize(deserializer).map(|size| size.unwrap_or(DEFAULT_TOKENS_COLL_SIZE_IN_BYTES))
}

impl Serialize for SplitLargeEvents {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Always => serializer.serialize_bool(true),
            Self::Never => serializer.serialize_bool(false),
        }
    }
}

impl<'de> Deserialize<'de> for SplitLargeEvents {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FormVisitor;

        impl Visitor<'_> for FormVisitor {
            type Value = SplitLargeEvents;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("auto, true or false")
            }

            fn visit_bool<E: de::Error>(self, always: bool) -> Result<Self::Value, E> {
                Ok(if always {
                    SplitLargeEvents::Always
                } else {
                    SplitLargeEvents::Never
                })
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                match text {
                    "auto" => Ok(SplitLargeEvents::Auto),
                    other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
                }
            }
        }

        deserializer.deserialize_any(FormVisitor)
    }
}

impl Serialize for Start {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Now => serializer.serialize_str("now"),
            Self::At(time) => {
                serializer.serialize_str(&time.try_to_rfc3339_string().map_err(S::Error::custom)?)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Start {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FormVisitor;

        impl Visitor<'_> for FormVisitor {
            type Value = Start;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("now or a time such as 2024-05-01T00:00:00Z")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                if text == "now" {
                    return Ok(Start::Now);
                }
                bson::DateTime::parse_rfc3339_str(text)
                    .map(Start::At)
                    .map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(FormVisitor)
    }
}

impl Serialize for CustomValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::One => serializer.serialize_u8(1),
            Self::Path(path) => serializer.serialize_str(path),
        }
    }
}

impl<'de> Deserialize<'de> for CustomValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FormVisitor;

        impl Visitor<'_> for FormVisitor {
            type Value = CustomValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("1, or a path to a number such as fullDocument.price")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
                match number {
                    1 => Ok(CustomValue::One),
                    other => Err(E::invalid_value(de::Unexpected::Unsigned(other), &self)),
                }
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
                match number {
                    1 => Ok(CustomValue::One),
                    other => Err(E::invalid_value(de::Unexpected::Signed(other), &self)),
                }
            }

            fn visit_str<E: de::Error>(self, path: &str) -> Result<Self::Value, E> {
                Ok(CustomValue::Path(path.to_owned()))
            }
        }

        deserializer.deserialize_any(FormVisitor)
    }
}

/// `pipeline`: stages are mappings, with Extended JSON for the values that YAML does not have.
pub(super) fn pipeline<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Document>, D::Error> {
    let stages = Vec::<Stage>::deserialize(deserializer)?;
    Ok(stages.into_iter().map(|Stage(stage)| stage).collect())
}

/// One stage. [`Document`] itself would also take what is not a mapping, and complain about it in
/// words that are not a user's.
struct Stage(Document);

impl<'de> Deserialize<'de> for Stage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StageVisitor;

        impl<'de> Visitor<'de> for StageVisitor {
            type Value = Stage;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a stage such as {$match: {operationType: insert}}")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Stage, A::Error> {
                Document::deserialize(MapAccessDeserializer::new(map)).map(Stage)
            }
        }

        deserializer.deserialize_any(StageVisitor)
    }
}
