//! A figure against the limit that was set for it.

use serde::{Deserialize, Serialize};
use std::fmt;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) what: String,
    pub(crate) value: f64,
    pub(crate) bound: Bound,
    pub(crate) limit: f64,
    pub(crate) unit: String,
    pub(crate) met: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    AtLeast,
    AtMost,
}

impl Verdict {
    pub(crate) fn at_least(what: impl fmt::Display, value: f64, limit: f64, unit: &str) -> Verdict {
        Verdict::new(what, value, Bound::AtLeast, limit, unit)
    }

    pub(crate) fn at_most(what: impl fmt::Display, value: f64, limit: f64, unit: &str) -> Verdict {
        Verdict::new(what, value, Bound::AtMost, limit, unit)
    }

    fn new(what: impl fmt::Display, value: f64, bound: Bound, limit: f64, unit: &str) -> Verdict {
        let met = match bound {
            Bound::AtLeast => value >= limit,
            Bound::AtMost => value <= limit,
        };
        Verdict {
            what: what.to_string(),
            value,
            bound,
            limit,
            unit: unit.to_owned(),
            met,
        }
    }

    pub(crate) fn wanted(&self) -> String {
        let bound = match self.bound {
            Bound::AtLeast => "at least",
            Bound::AtMost => "at most",
        };
        format!("{bound} {}", self.with_unit(self.limit))
    }

    pub(crate) fn measured(&self) -> String {
        self.with_unit((self.value * 1000.0).round() / 1000.0)
    }

    pub(crate) fn word(&self) -> &'static str {
        if self.met { "met" } else { "NOT MET" }
    }

    fn with_unit(&self, value: f64) -> String {
        format!("{value} {}", self.unit).trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_is_judged_the_other_way_round() {
        let ratio = Verdict::at_least("ratio", 0.9512, 0.95, "");
        assert!(ratio.met && !Verdict::at_least("ratio", 0.9499, 0.95, "").met);
        assert_eq!(
            (ratio.measured(), ratio.wanted()),
            ("0.951".into(), "at least 0.95".into())
        );
        let memory = Verdict::at_most("memory", 64.004, 64.0, "MiB");
        assert!(!memory.met && Verdict::at_most("memory", 64.0, 64.0, "MiB").met);
        assert_eq!(memory.wanted(), "at most 64 MiB");
        assert!(!Verdict::at_most("nothing", f64::NAN, 1.0, "").met);
    }
}
