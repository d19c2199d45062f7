//! What a bare pipe can publish with, behind one interface.

use mrcon::envelope::Message;
use mrcon::sink::{Settlement, Sink};
use mrcon_bench::failure::Result;
use mrcon_bench::publisher::{Publisher, lost};
use std::borrow::Cow;

/// Takes bodies in order, and says which the broker has confirmed.
pub(crate) trait Client {
    /// Publishes a persistent message; numbers are consecutive from 1.
    async fn publish(&mut self, seq: u64, body: &[u8]) -> Result<()>;

    /// Whether more may be published now.
    fn has_room(&self) -> bool;

    /// Waits for answers of the broker. Safe to drop half-way.
    async fn settled(&mut self, into: &mut Vec<Settlement>) -> Result<()>;

    /// Takes leave of the broker.
    async fn close(self);
}

/// A message id as long as those of real events.
const TOKEN: &str = "8265B049888000000022B022C0100296E5A1004BDBE353F83CE40D08C8AE7D25375C46461E5F6964002B0200\
                     04";
/// A document key as long as that of a document with an ObjectId.
const KEY: &str = r#"{"_id":{"$oid":"65b04988800000002b022c01"}}"#;

/// One of mrcond's own publishers, without the rest of mrcond.
pub(crate) struct Bare<S>(pub(crate) S);

impl<S: Sink> Client for Bare<S> {
    async fn publish(&mut self, seq: u64, body: &[u8]) -> Result<()> {
        // The properties and headers that every message of mrcond has, here always the same ones:
        // what they cost the broker is not mrcond's doing. A quorum queue takes half as many
        // messages with them as without.
        let mut message = Message::new(body);
        message.id = Cow::Borrowed(TOKEN);
        message.timestamp = Some(1_700_000_000);
        message.operation = "insert";
        message.db = Some("mrcon_bench");
        message.coll = Some("orders");
        message.key = Some(KEY);
        message.route = Some(KEY.as_bytes());
        self.0
            .publish(seq, &message)
            .map_err(|error| lost(error.chain()))
    }

    fn has_room(&self) -> bool {
        self.0.has_room()
    }

    async fn settled(&mut self, into: &mut Vec<Settlement>) -> Result<()> {
        self.0
            .settled(into)
            .await
            .map_err(|error| lost(error.chain()))
    }

    async fn close(self) {
        self.0.close().await;
    }
}

/// What a Rust program usually publishes with, and messages without headers: for reference, not a
/// limit.
impl Client for Publisher {
    async fn publish(&mut self, _: u64, body: &[u8]) -> Result<()> {
        Publisher::publish(self, body.to_vec()).await
    }

    fn has_room(&self) -> bool {
        true
    }

    async fn settled(&mut self, into: &mut Vec<Settlement>) -> Result<()> {
        Publisher::settled(self, into).await
    }

    async fn close(self) {
        Publisher::close(self).await;
    }
}
