//! The arguments of a queue that exists, from what RabbitMQ says when it refuses a declaration. Pure.

use amq_protocol::types::{AMQPValue, FieldTable};

const LIMITS: [&str; 2] = ["x-max-length", "x-max-length-bytes"];

/// In what a declaration differs from the queue.
#[derive(Debug, PartialEq)]
pub(super) struct Difference {
    name: String,
    /// Of the queue; none if it does not have this argument.
    value: Option<AMQPValue>,
}

impl Difference {
    /// From RabbitMQ's words, such as `inequivalent arg 'x-overflow' for queue 'q' in vhost '/': received none
    /// but current is the value 'drop-head' of type 'longstr'`.
    pub(super) fn told_by(words: &str) -> Option<Difference> {
        let (_, rest) = words.split_once("inequivalent arg '")?;
        let (name, rest) = rest.split_once('\'')?;
        let (_, current) = rest.rsplit_once("but current is ")?;
        let value = match current.strip_prefix("the value '") {
            Some(told) => {
                let (value, kind) = told.split_once("' of type '")?;
                Some(typed(value, kind.split('\'').next()?)?)
            }
            None if current.starts_with("none") => None,
            None => {
                let value = current.strip_prefix('\'')?.split('\'').next()?;
                Some(AMQPValue::LongString(value.into()))
            }
        };
        let name = name.to_owned();
        // Only arguments are guessed.
        name.starts_with("x-").then_some(Difference { name, value })
    }

    /// Makes a declaration agree with the queue in this.
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

/// RabbitMQ compares integers of any width by their value.
fn typed(value: &str, kind: &str) -> Option<AMQPValue> {
    match kind {
        "longstr" => Some(AMQPValue::LongString(value.into())),
        "bool" => Some(AMQPValue::Boolean(value == "true")),
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

    fn told(name: &str, current: &str) -> Option<Difference> {
        let words = format!(
            "look: RabbitMQ closed the channel or connection: 406 PRECONDITION_FAILED - inequivalent arg '{name}' \
             for queue 'it's mine but current is' in vhost '/': received none but current is {current}"
        );
        Difference::told_by(&words)
    }

    #[test]
    fn words_of_rabbitmq_are_read_wrong() {
        let value = |difference: Option<Difference>| difference.unwrap().value;
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
            ("durable", "'false'"),
            ("x-max-length", "the value 'ten' of type 'signedint'"),
            ("x-max-length", "something new"),
        ] {
            assert_eq!(told(name, current), None, "{name} {current}");
        }
        assert_eq!(Difference::told_by("403 ACCESS_REFUSED"), None);
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
