//! In the place of `amqp.rs` in builds without AMQP 0.9.1. Who needs it was refused before.

use super::super::entry::Entry;
use super::super::opening::Opened;
use crate::config::{Protocol, ValidConfig};
use crate::error::{Error, Result};
use crate::sink::{Aside, Main};
use crate::uri::AmqpUri;

#[derive(Debug)]
pub(super) struct Way;

/// Never there.
pub(super) enum Ready {}

impl Way {
    pub(super) fn new(_: &AmqpUri, _: &[String], _: &[String], _: &ValidConfig) -> Way {
        Way
    }

    pub(super) fn lead_to(&self, _: &AmqpUri) {}

    pub(super) async fn pass_gate(&self) -> Result<()> {
        Ok(())
    }

    pub(super) fn heed(&self, _: &Error) {}

    pub(super) fn has_stream(&self, _: &str) -> bool {
        false
    }

    pub(super) async fn connect(&self, entry: &Entry, _: usize) -> Result<Ready> {
        Err(super::left_out(&entry.status.name, Protocol::Amqp))
    }

    pub(super) async fn letters_of(&self, _: &Entry) -> Result<Option<Aside>> {
        Ok(None)
    }
}

impl Ready {
    pub(super) fn begin(self, _: &Entry, _: &Opened) -> Main {
        match self {}
    }

    pub(super) async fn close(self) {
        match self {}
    }
}
