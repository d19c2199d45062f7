//! What an exchange or queue that exists is like, from what RabbitMQ says when it refuses a declaration. Pure.

use amq_protocol::types::{AMQPValue, FieldTable};

const LIMITS: [&str; 2] = ["x-max-length", "x-max-length-bytes"];

/// Properties that are true or false.
const FLAGS: [&str; 4] = ["auto_delete", "durable", "exclusive", "internal"];

/// One property of a thing that differs from a declaration.
#[derive(Debug, PartialEq)]
pub(super) struct Told {
    /// RabbitMQ's name for it, such as `x-max-length`, `type` or `durable`.
    pub(super) name: String,
    /// Of the thing; none if it does not have this argument.
    pub(super) value: Option<AMQPValue>,
}

impl Told {
    /// From RabbitMQ's words, such as `inequivalent arg 'x-overflow' for queue 'q' in vhost '/': received none
    /// but current is the value 'drop-head' of type 'longstr'`. Where both sides have a value, it does not say
    /// of which type: it is that of `sent`.
    pub(super) fn by(words: &str, sent: &FieldTable) -> Option<Told> {
        let (_, rest) = words.split_once("inequivalent arg '")?;
        let (name, rest) = rest.split_once('\'')?;
        let (_, current) = rest.rsplit_once("but current is ")?;
        let value = match current.strip_prefix("the value '") {
            Some(told) => {
                let (value, kind) = told.rsplit_once("' of type '")?;
                Some(typed(value, kind.split('\'').next()?)?)
            }
            None if current.starts_with("none") => None,
            None => {
                let value = current.strip_prefix('\'')?.strip_suffix('\'')?;
                Some(like(value, name, sent)?)
            }
        };
        let name = name.to_owned();
        Some(Told { name, value })
    }

    /// The name alone, where RabbitMQ's words were too long for its answer and are cut off.
    pub(super) fn name_of_cut(words: &str) -> Option<&str> {
        let (_, rest) = words.split_once("inequivalent arg '")?;
        let (name, rest) = rest.split_once('\'')?;
        rest.ends_with("...").then_some(name)
    }

    /// Whether it is about an argument, and no other property.
    pub(super) fn is_argument(&self) -> bool {
        self.name.starts_with("x-")
    }

    /// Makes the arguments of a declaration agree with the thing in this.
    pub(super) fn correct(self, arguments: &mut FieldTable) {
        let others = arguments
            .inner()
            .iter()
            .filter(|(name, _)| name.as_str() != self.name);
        let mut corrected = FieldTable::default();
        for (name, value) in others {
            corrected.insert(name.clone(), value.clone());
        }
        if let Some(value) = self.value {
            corrected.insert(self.name.into(), value);
        }
        *arguments = corrected;
    }
}

/// A value of which the type is not told.
fn like(value: &str, name: &str, sent: &FieldTable) -> Option<AMQPValue> {
    match sent.inner().get(name) {
        None if FLAGS.contains(&name) => typed(value, "bool"),
        Some(AMQPValue::Boolean(_)) => typed(value, "bool"),
        Some(AMQPValue::LongLongInt(_)) => typed(value, "long"),
        _ => typed(value, "longstr"),
    }
}

/// RabbitMQ compares integers of any width by their value.
fn typed(value: &str, kind: &str) -> Option<AMQPValue> {
    match kind {
        "longstr" => Some(AMQPValue::LongString(value.into())),
        "bool" => value.parse().ok().map(AMQPValue::Boolean),
        _ => value.parse().ok().map(AMQPValue::LongLongInt),
    }
}

/// Whether a queue with these arguments drops confirmed messages for good, and beyond what.
pub(super) fn drops_beyond(arguments: &FieldTable) -> Option<String> {
    let get = |name: &str| arguments.inner().get(name);
    let is = |name: &str, text: &str| matches!(get(name), Some(AMQPValue::LongString(value)) if value.as_bytes() == text.as_bytes());
    // Of a stream it is how much it keeps; messages with a dead-letter exchange go there.
    if is("x-queue-type", "stream") || get("x-dead-letter-exchange").is_some() {
        return None;
    }
    if get("x-overflow").is_some() && !is("x-overflow", "drop-head") {
        return None;
    }
    LIMITS.iter().find_map(|name| match get(name) {
        Some(AMQPValue::LongLongInt(limit)) => Some(format!("{name}: {limit}")),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(name: &str, current: &str) -> Option<Told> {
        let words = format!(
            "look: RabbitMQ closed the channel or connection: 406 PRECONDITION_FAILED - inequivalent arg '{name}' \
             for queue 'it's mine but current is' in vhost '/': received none but current is {current}"
        );
        Told::by(&words, &FieldTable::default())
    }

    #[test]
    fn words_of_rabbitmq_are_read_wrong() {
        let value = |told: Option<Told>| told.unwrap().value;
        let limit = value(told("x-max-length", "the value '10' of type 'signedint'"));
        assert_eq!(limit, Some(AMQPValue::LongLongInt(10)));
        let overflow = value(told(
            "x-overflow",
            "the value 'reject-publish' of type 'longstr'",
        ));
        assert_eq!(
            overflow,
            Some(AMQPValue::LongString("reject-publish".into()))
        );
        assert_eq!(
            value(told("x-queue-type", "'classic'")),
            Some(AMQPValue::LongString("classic".into()))
        );
        assert_eq!(value(told("x-max-age", "none")), None);
        for (name, current) in [
            ("durable", "'maybe'"),
            ("x-max-length", "'cut of..."),
            ("x-max-length", "the value 'ten' of type 'signedint'"),
            ("x-max-length", "something new"),
        ] {
            assert_eq!(told(name, current), None, "{name} {current}");
        }
        let nothing = FieldTable::default();
        assert_eq!(Told::by("403 ACCESS_REFUSED", &nothing), None);
        let durable = told("durable", "'false'").unwrap();
        assert!(!durable.is_argument());
        assert_eq!(durable.value, Some(AMQPValue::Boolean(false)));
        let key = value(told("x-dead-letter-routing-key", "'it's'"));
        assert_eq!(key, Some(AMQPValue::LongString("it's".into())));
    }

    #[test]
    fn property_is_lost_with_the_end_of_the_words() {
        let cut = "406 PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'lllllll...";
        assert_eq!(Told::name_of_cut(cut), Some("x-max-length"));
        assert_eq!(Told::by(cut, &FieldTable::default()), None);
        let whole = "inequivalent arg 'x-max-length' for queue 'q' in vhost '/': received '1' but current is '2'";
        assert_eq!(Told::name_of_cut(whole), None);
    }

    #[test]
    fn number_is_taken_for_text_so_that_it_differs_for_ever() {
        let mut sent = FieldTable::default();
        sent.insert("x-max-length".into(), AMQPValue::LongLongInt(100));
        sent.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
        let told = |name: &str, received: &str, current: &str| {
            let words = format!(
                "406 PRECONDITION_FAILED - inequivalent arg '{name}' for queue 'q' in vhost '/': \
                 received '{received}' but current is '{current}'"
            );
            Told::by(&words, &sent).unwrap().value
        };
        let length = told("x-max-length", "100", "10");
        assert_eq!(length, Some(AMQPValue::LongLongInt(10)));
        let single = told("x-single-active-consumer", "true", "false");
        assert_eq!(single, Some(AMQPValue::Boolean(false)));
    }

    #[test]
    fn difference_is_not_corrected_so_it_is_told_for_ever() {
        let mut arguments = FieldTable::default();
        arguments.insert(
            "x-queue-type".into(),
            AMQPValue::LongString("quorum".into()),
        );
        arguments.insert("x-max-age".into(), AMQPValue::LongString("1s".into()));
        told("x-queue-type", "'classic'")
            .unwrap()
            .correct(&mut arguments);
        told("x-max-age", "none").unwrap().correct(&mut arguments);
        let inner = arguments.inner();
        assert_eq!(inner.len(), 1);
        assert_eq!(
            inner["x-queue-type"],
            AMQPValue::LongString("classic".into())
        );
    }

    #[test]
    fn queue_that_loses_nothing_raises_a_warning_or_one_that_does_raises_none() {
        let text = |text: &str| AMQPValue::LongString(text.into());
        let limit = ("x-max-length", AMQPValue::LongLongInt(10));
        let drops = |arguments: &[(&str, AMQPValue)]| {
            let mut table = FieldTable::default();
            for (name, value) in arguments {
                table.insert((*name).into(), value.clone());
            }
            drops_beyond(&table)
        };
        assert_eq!(drops(&[]), None);
        assert_eq!(
            drops(std::slice::from_ref(&limit)).as_deref(),
            Some("x-max-length: 10")
        );
        let overflow = |mode: &str| ("x-overflow", text(mode));
        assert!(drops(&[limit.clone(), overflow("drop-head")]).is_some());
        assert_eq!(drops(&[limit.clone(), overflow("reject-publish")]), None);
        let bytes = ("x-max-length-bytes", AMQPValue::LongLongInt(10));
        assert!(drops(std::slice::from_ref(&bytes)).is_some());
        assert_eq!(drops(&[bytes, ("x-queue-type", text("stream"))]), None);
        assert_eq!(
            drops(&[limit, ("x-dead-letter-exchange", text("dlx"))]),
            None
        );
    }
}
