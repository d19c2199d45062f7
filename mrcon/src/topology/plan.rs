//! What would have to be done so that RabbitMQ has what it is to have. Pure.

use super::difference::Difference;
use super::wanted::Thing;
use crate::error::{Error, ErrorKind, Result};
use std::collections::HashSet;
use std::fmt;

/// What RabbitMQ has of a thing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Found {
    /// Nothing of this name.
    Nothing,
    /// A thing that is as it is to be; of a passive one, that it is there.
    Same,
    /// A thing that is otherwise.
    Differs(Vec<Difference>),
    /// A thing, of which RabbitMQ does not tell us more: we lack the permission `configure`.
    Unseen,
    /// It cannot be looked at or declared: why.
    Refused(String),
    /// A binding. AMQP has no question for those.
    Unknown,
}

/// A thing, and what there is of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Step {
    /// What is to be there.
    pub thing: Thing,
    /// What is there.
    pub found: Found,
    /// It cannot be there: one of its ends is not.
    missing_end: bool,
}

/// What is done about a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// `+`: it is declared.
    Declare,
    /// `=`: nothing.
    Keep,
    /// `~`: a binding is made unless it is there, which RabbitMQ does not tell.
    Bind,
    /// `?`: nothing, and whether it differs cannot be seen.
    Trust,
    /// `!`: nothing at all is done, until a person has decided.
    Stop,
}

impl Action {
    /// The word in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Action::Declare => "declare",
            Action::Keep => "keep",
            Action::Bind => "bind",
            Action::Trust => "trust",
            Action::Stop => "stop",
        }
    }

    const fn mark(self) -> char {
        match self {
            Action::Declare => '+',
            Action::Keep => '=',
            Action::Bind => '~',
            Action::Trust => '?',
            Action::Stop => '!',
        }
    }
}

impl Step {
    /// What is done about it.
    pub fn action(&self) -> Action {
        let passive = match &self.thing {
            Thing::Exchange(exchange) => exchange.passive,
            Thing::Queue(queue) => queue.passive,
            Thing::Binding(_) => false,
        };
        match &self.found {
            Found::Nothing if passive => Action::Stop,
            Found::Nothing => Action::Declare,
            Found::Same => Action::Keep,
            Found::Unseen => Action::Trust,
            Found::Differs(_) | Found::Refused(_) => Action::Stop,
            Found::Unknown if self.missing_end => Action::Declare,
            Found::Unknown => Action::Bind,
        }
    }

    /// What stands behind the thing in its line.
    pub fn remark(&self) -> Option<String> {
        match &self.found {
            Found::Nothing if self.action() == Action::Stop => {
                Some("there is none, and it is declared by somebody else (passive)".to_owned())
            }
            Found::Nothing | Found::Same => None,
            Found::Differs(all) => {
                let all: Vec<String> = all.iter().map(Difference::to_string).collect();
                Some(all.join("; "))
            }
            Found::Unseen => Some(
                "it is there; without the permission `configure` on it, RabbitMQ does not tell whether it differs"
                    .to_owned(),
            ),
            Found::Refused(why) => Some(why.clone()),
            Found::Unknown if self.missing_end => None,
            Found::Unknown => Some("made if it is missing".to_owned()),
        }
    }
}

/// `+ exchange events (topic, durable)`.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = self.action();
        write!(f, "{} {}", action.mark(), self.thing)?;
        let traits = self.thing.traits();
        if action == Action::Declare && !traits.is_empty() {
            write!(f, " ({traits})")?;
        }
        match self.remark() {
            Some(remark) => write!(f, ": {remark}"),
            None => Ok(()),
        }
    }
}

/// All things, and what there is of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    steps: Vec<Step>,
}

impl Plan {
    /// In the order of declaring.
    pub fn new(found: Vec<(Thing, Found)>) -> Plan {
        let missing: HashSet<(bool, String)> = found
            .iter()
            .filter(|(_, found)| *found == Found::Nothing)
            .filter_map(|(thing, _)| {
                let is_exchange = matches!(thing, Thing::Exchange(_));
                thing.name().map(|name| (is_exchange, name.to_owned()))
            })
            .collect();
        let steps = found.into_iter().map(|(thing, found)| {
            let missing_end = match &thing {
                Thing::Binding(binding) => {
                    missing.contains(&(true, binding.from.clone()))
                        || missing.contains(&(binding.to_exchange, binding.to.clone()))
                }
                Thing::Exchange(_) | Thing::Queue(_) => false,
            };
            Step {
                thing,
                found,
                missing_end,
            }
        });
        Plan {
            steps: steps.collect(),
        }
    }

    /// Each thing, in the order of declaring.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Things about which this is done.
    pub fn count(&self, action: Action) -> usize {
        let with = self.steps.iter().filter(|step| step.action() == action);
        with.count()
    }

    /// Whether everything can be done, or has been.
    ///
    /// # Errors
    /// [`ErrorKind::TopologyDiffers`], with each thing that is not as it is to be and each difference;
    /// [`ErrorKind::TopologyMissing`] and [`ErrorKind::TopologyRefused`] when nothing worse is the matter.
    pub fn check(&self) -> Result<()> {
        let stops = self
            .steps
            .iter()
            .filter(|step| step.action() == Action::Stop);
        self.fail(stops.collect())
    }

    /// Whether everything is there, as far as can be seen.
    ///
    /// # Errors
    /// As [`Plan::check`]; what is missing is one, too.
    pub fn check_all_there(&self) -> Result<()> {
        let stops = self.steps.iter().filter(|step| {
            let is_binding = matches!(step.thing, Thing::Binding(_));
            match step.action() {
                Action::Stop => true,
                // Of a binding its missing end is told.
                Action::Declare => !is_binding,
                Action::Keep | Action::Bind | Action::Trust => false,
            }
        });
        self.fail(stops.collect())
    }

    fn fail(&self, stops: Vec<&Step>) -> Result<()> {
        let kind = |step: &&Step| match &step.found {
            Found::Differs(_) => ErrorKind::TopologyDiffers,
            Found::Refused(_) => ErrorKind::TopologyRefused,
            Found::Nothing | Found::Same | Found::Unseen | Found::Unknown => {
                ErrorKind::TopologyMissing
            }
        };
        let kinds: Vec<ErrorKind> = stops.iter().map(kind).collect();
        let worst = [
            ErrorKind::TopologyDiffers,
            ErrorKind::TopologyRefused,
            ErrorKind::TopologyMissing,
        ];
        let Some(worst) = worst.into_iter().find(|kind| kinds.contains(kind)) else {
            return Ok(());
        };
        let told = stops.iter().map(|step| match step.remark() {
            Some(remark) => format!("{}: {remark}", step.thing),
            None => format!("{}: there is none", step.thing),
        });
        let told: Vec<String> = told.collect();
        let text = format!("check the topology: {}", told.join("; "));
        Err(Error::new(worst, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Argument;
    use crate::topology::wanted::{Binding, Exchange, Queue};

    fn exchange(name: &str, passive: bool) -> Thing {
        Thing::Exchange(Exchange {
            name: name.into(),
            kind: "topic".into(),
            durable: true,
            internal: false,
            arguments: Default::default(),
            passive,
        })
    }

    fn queue(name: &str) -> Thing {
        Thing::Queue(Queue {
            name: name.into(),
            arguments: [("x-queue-type".into(), Argument::Text("quorum".into()))].into(),
            passive: false,
        })
    }

    fn binding(from: &str, to: &str) -> Thing {
        Thing::Binding(Binding {
            from: from.into(),
            to: to.into(),
            to_exchange: false,
            routing_key: "shop.#".into(),
            arguments: Default::default(),
        })
    }

    fn length(found: i64, wanted: i64) -> Difference {
        let number = |value| Some(Argument::Number(value));
        Difference::between("x-max-length", number(found), number(wanted)).unwrap()
    }

    fn lines(plan: &Plan) -> Vec<String> {
        plan.steps().iter().map(Step::to_string).collect()
    }

    #[test]
    fn line_of_the_plan_says_something_else() {
        let plan = Plan::new(vec![
            (exchange("events", false), Found::Nothing),
            (exchange("old", true), Found::Same),
            (queue("orders"), Found::Same),
            (queue("new"), Found::Nothing),
            (queue("theirs"), Found::Unseen),
            (binding("events", "orders"), Found::Unknown),
            (binding("old", "new"), Found::Unknown),
            (binding("old", "orders"), Found::Unknown),
        ]);
        assert_eq!(
            lines(&plan),
            [
                "+ exchange events (topic, durable)",
                "= exchange old",
                "= queue orders",
                "+ queue new (quorum)",
                "? queue theirs: it is there; without the permission `configure` on it, RabbitMQ does not tell whether it differs",
                "+ binding events -> orders (shop.#)",
                "+ binding old -> new (shop.#)",
                "~ binding old -> orders (shop.#): made if it is missing",
            ]
        );
        assert_eq!(plan.count(Action::Declare), 4);
        plan.check().unwrap();
        let error = plan.check_all_there().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TopologyMissing);
        assert_eq!(
            error.to_string(),
            "check the topology: exchange events: there is none; queue new: there is none"
        );
    }

    #[test]
    fn difference_is_left_out_of_the_error_or_something_is_done_in_spite_of_it() {
        let plan = Plan::new(vec![
            (exchange("new", false), Found::Nothing),
            (exchange("x", true), Found::Nothing),
            (exchange("y", false), Found::Refused("no such type".into())),
            (
                queue("q"),
                Found::Differs(vec![length(10, 100), length(1, 2)]),
            ),
        ]);
        assert_eq!(
            lines(&plan)[1..],
            [
                "! exchange x: there is none, and it is declared by somebody else (passive)",
                "! exchange y: no such type",
                "! queue q: x-max-length is 10 in RabbitMQ, 100 in the configuration; x-max-length is 1 in RabbitMQ, 2 in the configuration",
            ]
        );
        let error = plan.check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TopologyDiffers);
        for told in [
            "exchange x: there is none",
            "exchange y: no such type",
            "queue q: x-max-length is 10",
            "is 1 in RabbitMQ, 2",
        ] {
            assert!(error.to_string().contains(told), "{error}");
        }
        let refused = Plan::new(vec![
            (exchange("x", true), Found::Nothing),
            (exchange("y", false), Found::Refused("no such type".into())),
        ]);
        assert_eq!(
            refused.check().unwrap_err().kind(),
            ErrorKind::TopologyRefused
        );
        let missing = Plan::new(vec![(exchange("x", true), Found::Nothing)]);
        assert_eq!(
            missing.check().unwrap_err().kind(),
            ErrorKind::TopologyMissing
        );
    }

    #[test]
    fn queue_and_exchange_of_one_name_are_taken_for_each_other() {
        let plan = Plan::new(vec![
            (exchange("events", false), Found::Same),
            (queue("events"), Found::Nothing),
            (exchange("orders", false), Found::Nothing),
            (queue("orders"), Found::Same),
            (binding("events", "orders"), Found::Unknown),
        ]);
        assert_eq!(plan.steps()[4].action(), Action::Bind);
    }
}
