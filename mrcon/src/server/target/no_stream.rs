//! In the place of `stream.rs` in builds without the native stream protocol. Who needs it was refused before.

use super::super::entry::Entry;
use super::super::opening::Opened;
use crate::config::Protocol;
use crate::error::Result;
use crate::sink::Main;
use crate::uri::StreamUri;

#[derive(Debug)]
pub(super) struct Way;

/// Never there.
pub(super) enum Ready {}

impl Way {
    pub(super) fn new(_: StreamUri, _: &[String], _: Option<usize>) -> Way {
        Way
    }

    pub(super) fn lead_to(&self, _: StreamUri) {}

    pub(super) async fn connect(
        &self,
        entry: &Entry,
        _: usize,
        _: impl Fn(&str) -> bool,
    ) -> Result<Ready> {
        Err(super::left_out(&entry.status.name, Protocol::Stream))
    }
}

impl Ready {
    pub(super) async fn begin(self, _: &Entry, _: &Opened) -> Result<Main> {
        match self {}
    }

    pub(super) async fn close(self) {
        match self {}
    }
}
