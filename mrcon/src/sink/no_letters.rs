//! In the place of `amqp`'s way to the dead letters, in builds without AMQP 0.9.1: there is none.

use super::Settlement;
use crate::envelope::Letter;
use crate::error::Result;

/// Never there.
#[derive(Debug)]
pub(crate) enum Aside {}

impl Aside {
    pub(crate) fn put(&mut self, _seq: u64, _letter: Letter) {
        match *self {}
    }

    pub(crate) async fn turn(&mut self) -> Result<()> {
        match *self {}
    }

    pub(crate) fn take_answers(&mut self, _into: &mut Vec<Settlement>) {
        match *self {}
    }

    pub(crate) async fn close(self) {
        match self {}
    }
}
