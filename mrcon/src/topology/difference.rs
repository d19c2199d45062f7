//! In what a thing of RabbitMQ differs from the configuration, and whether it matters. Pure.

use crate::config::Argument;
use std::fmt;
use std::time::Duration;

/// Arguments that only say where a queue is to be put when it is declared: of one that exists they mean
/// nothing, and RabbitMQ compares them all the same.
const PLACEMENT: [&str; 4] = [
    "x-initial-cluster-size",
    "x-queue-leader-locator",
    "x-queue-master-locator",
    "x-quorum-initial-group-size",
];

/// What an argument stands for that is left out.
const LEFT_OUT: [(&str, &str); 4] = [
    ("x-queue-type", "classic"),
    ("x-overflow", "drop-head"),
    ("x-dead-letter-strategy", "at-most-once"),
    ("x-queue-mode", "default"),
];

/// One property that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// RabbitMQ's name for it, such as `x-max-length`, `type` or `durable`.
    pub property: String,
    /// What RabbitMQ has; none if it has no such argument.
    pub found: Option<Argument>,
    /// What the configuration says; none if it does not.
    pub wanted: Option<Argument>,
}

impl Difference {
    /// The difference, unless both mean the same.
    pub(crate) fn between(
        property: &str,
        found: Option<Argument>,
        wanted: Option<Argument>,
    ) -> Option<Difference> {
        let found = found.or_else(|| left_out(property));
        let means = |value: &Option<Argument>| match value {
            Some(Argument::Text(age)) if property == "x-max-age" => {
                seconds(age).map_or_else(|| value.clone(), |age| Some(Argument::Number(age)))
            }
            Some(_) => value.clone(),
            None => left_out(property),
        };
        let same = PLACEMENT.contains(&property) || means(&found) == means(&wanted);
        (!same).then(|| Difference {
            property: property.to_owned(),
            found,
            wanted,
        })
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = |value: &Option<Argument>| match value {
            Some(value) if value.to_string().is_empty() => "\"\"".to_owned(),
            Some(value) => value.to_string(),
            None => "not set".to_owned(),
        };
        let (property, found, wanted) = (&self.property, told(&self.found), told(&self.wanted));
        write!(
            f,
            "{property} is {found} in RabbitMQ, {wanted} in the configuration"
        )
    }
}

fn left_out(property: &str) -> Option<Argument> {
    if property == "x-single-active-consumer" {
        return Some(Argument::Bool(false));
    }
    let word = LEFT_OUT.iter().find(|(name, _)| *name == property);
    word.map(|(_, word)| Argument::Text((*word).to_owned()))
}

/// RabbitMQ's `7D` is our `604800s`.
fn seconds(age: &str) -> Option<i64> {
    let (number, unit) = age.split_at_checked(age.len().checked_sub(1)?)?;
    let of_unit = match unit {
        "Y" => Duration::from_secs(365 * 24 * 3600),
        "M" => Duration::from_secs(30 * 24 * 3600),
        "D" => Duration::from_secs(24 * 3600),
        "h" => Duration::from_secs(3600),
        "m" => Duration::from_secs(60),
        "s" => Duration::from_secs(1),
        _ => return None,
    };
    let of_unit = i64::try_from(of_unit.as_secs()).ok()?;
    number.parse::<i64>().ok()?.checked_mul(of_unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn between(property: &str, found: Option<&str>, wanted: Option<&str>) -> Option<String> {
        let text = |value: Option<&str>| value.map(|text| Argument::Text(text.to_owned()));
        let difference = Difference::between(property, text(found), text(wanted));
        difference.map(|difference| difference.to_string())
    }

    #[test]
    fn same_in_other_words_is_a_difference() {
        for (property, found, wanted) in [
            ("x-max-age", Some("7D"), Some("604800s")),
            ("x-max-age", Some("1Y"), Some("31536000s")),
            ("x-overflow", None, Some("drop-head")),
            ("x-overflow", Some("drop-head"), None),
            ("x-queue-type", None, Some("classic")),
            ("x-dead-letter-strategy", None, Some("at-most-once")),
            ("x-queue-leader-locator", Some("balanced"), None),
            ("x-queue-leader-locator", None, Some("balanced")),
        ] {
            assert_eq!(between(property, found, wanted), None, "{property}");
        }
        let single = |found, wanted| Difference::between("x-single-active-consumer", found, wanted);
        assert_eq!(single(Some(Argument::Bool(false)), None), None);
        assert!(single(Some(Argument::Bool(true)), None).is_some());
    }

    #[test]
    fn difference_is_passed_over_or_told_wrong() {
        for (property, found, wanted, told) in [
            (
                "x-max-age",
                Some("7D"),
                Some("1s"),
                "x-max-age is 7D in RabbitMQ, 1s in the configuration",
            ),
            (
                "x-max-age",
                Some("7d"),
                Some("604800s"),
                "x-max-age is 7d in RabbitMQ, 604800s in the configuration",
            ),
            (
                "x-overflow",
                None,
                Some("reject-publish"),
                "x-overflow is drop-head in RabbitMQ, reject-publish in the configuration",
            ),
            (
                "x-queue-type",
                None,
                Some("quorum"),
                "x-queue-type is classic in RabbitMQ, quorum in the configuration",
            ),
            (
                "alternate-exchange",
                None,
                Some("a"),
                "alternate-exchange is not set in RabbitMQ, a in the configuration",
            ),
            (
                "x-dead-letter-exchange",
                Some(""),
                None,
                "x-dead-letter-exchange is \"\" in RabbitMQ, not set in the configuration",
            ),
        ] {
            assert_eq!(between(property, found, wanted).as_deref(), Some(told));
        }
        let length = Difference::between(
            "x-max-length",
            Some(Argument::Number(10)),
            Some(Argument::Number(100_000)),
        );
        assert_eq!(
            length.unwrap().to_string(),
            "x-max-length is 10 in RabbitMQ, 100000 in the configuration"
        );
    }
}
