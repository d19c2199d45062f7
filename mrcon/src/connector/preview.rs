//! What would be published of an event, for somebody who only looks.

use super::envelopes::Choice;
use super::fate::{Fate, Judge};
use super::place::{has_place, place};
use super::{Envelopes, Policies};
use crate::config::Scope;
use crate::envelope::{Message, Scratch};
use crate::error::Result;
use crate::event::ChangeEvent;
use crate::source::EventBatch;

/// Decides on events as a run does, without a broker.
pub(crate) struct Preview {
    scope: Scope,
    envelopes: Envelopes,
    policies: Policies,
    choice: Choice,
    scratch: Scratch,
}

/// A message and where it would go.
pub(crate) struct Previewed<'a> {
    pub(crate) message: &'a Message<'a>,
    pub(crate) exchange: &'a str,
    pub(crate) routing_key: &'a str,
    /// Whether it would be put aside.
    pub(crate) is_dead: bool,
}

impl Preview {
    pub(crate) fn new(scope: Scope, envelopes: Envelopes, policies: Policies) -> Preview {
        Preview {
            scope,
            envelopes,
            policies,
            choice: Choice::default(),
            scratch: Scratch::default(),
        }
    }

    /// Shows what would become of the event at `index`; nothing of one that makes no message.
    ///
    /// # Errors
    /// What would end a run: an event that the configuration does not say how to go on from.
    pub(crate) fn show<T>(
        &mut self,
        batch: &EventBatch,
        index: usize,
        seq: u64,
        show: impl FnOnce(Previewed<'_>) -> T,
    ) -> Result<Option<T>> {
        let raw = batch.event(index);
        let mut names = (None, None);
        let parsed = ChangeEvent::parse(raw);
        if let Ok(event) = &parsed {
            has_place(&self.scope, event)?;
            names = place(&self.scope, event);
        }
        let envelope = self.choice.among(&self.envelopes, names);
        let judge = Judge {
            policies: &self.policies,
            scope: &self.scope,
            envelope,
            limit: u64::MAX,
        };
        let (event, fate) = match parsed {
            Ok(event) => {
                let fate = match batch.head_only(index) {
                    Some(error) => judge.unmasked(seq, &event, &error)?,
                    None => judge.fate(seq, &event, batch.stripped(), &mut self.scratch)?,
                };
                (event, fate)
            }
            Err(error) => {
                let fate = judge.unreadable(seq, raw, error)?;
                let event = ChangeEvent::position_only(raw);
                let event = event.unwrap_or_else(|_| unreachable!("it has a fate, so a position"));
                (event, fate)
            }
        };
        let (exchange, routing_key) = self.policies.destination_of(envelope, &self.scope, &event);
        let shown = |message: &Message<'_>, is_dead: bool| {
            let place = message.place.filter(|_| !is_dead);
            show(Previewed {
                exchange: place.map_or(&exchange, |place| place.exchange),
                routing_key: place.map_or(&routing_key, |place| place.routing_key),
                message,
                is_dead,
            })
        };
        Ok(match &fate {
            Fate::Goes(message) => Some(shown(message, false)),
            Fate::Instead(letter) => Some(shown(&letter.message(), false)),
            Fate::Aside(letter) => Some(shown(&letter.message(), true)),
            Fate::Nothing => None,
        })
    }
}
