//! What RabbitMQ says without being asked: that it closes a channel or connection, and why, and its
//! answers to what was published. amqprs tells it to callbacks only.

use amqprs::callbacks::{ChannelCallback, ConnectionCallback};
use amqprs::channel::Channel;
use amqprs::connection::Connection;
use amqprs::error::Error;
use amqprs::{Ack, BasicProperties, Cancel, Close, CloseChannel, Nack, Return};
use async_trait::async_trait;
use mrcon::sink::{Outcome, Settlement};
use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc::UnboundedSender;

/// Why the broker has closed a channel or connection last.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastWords(Arc<Mutex<Option<String>>>);

impl LastWords {
    /// The words, once; `None` if the broker has closed nothing since.
    pub(crate) fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, code: u16, text: impl Display) {
        let words = format!("{code} {text}");
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(words);
    }
}

/// Passes on what the broker says about a connection, or about a channel.
pub(crate) struct Listener {
    words: LastWords,
    /// Who waits for confirms. Delivery tags count from 1, as our numbers do.
    answers: Option<UnboundedSender<Settlement>>,
}

impl Listener {
    pub(crate) fn of(words: LastWords) -> Listener {
        Listener {
            words,
            answers: None,
        }
    }

    pub(crate) fn with_answers(self, answers: UnboundedSender<Settlement>) -> Listener {
        Listener {
            answers: Some(answers),
            ..self
        }
    }

    fn pass(&self, seq: u64, multiple: bool, outcome: Outcome) {
        if let Some(answers) = &self.answers {
            // Fails only when nobody waits for answers any more.
            let _ = answers.send(Settlement {
                seq,
                multiple,
                outcome,
            });
        }
    }
}

#[async_trait]
impl ConnectionCallback for Listener {
    async fn close(&mut self, _: &Connection, close: Close) -> Result<(), Error> {
        self.words.set(close.reply_code(), close.reply_text());
        Ok(())
    }

    async fn blocked(&mut self, _: &Connection, _: String) {}

    async fn unblocked(&mut self, _: &Connection) {}

    async fn secret_updated(&mut self, _: &Connection) {}
}

#[async_trait]
impl ChannelCallback for Listener {
    async fn close(&mut self, _: &Channel, close: CloseChannel) -> Result<(), Error> {
        self.words.set(close.reply_code(), close.reply_text());
        Ok(())
    }

    async fn cancel(&mut self, _: &Channel, _: Cancel) -> Result<(), Error> {
        Ok(())
    }

    async fn flow(&mut self, _: &Channel, active: bool) -> Result<bool, Error> {
        Ok(active)
    }

    async fn publish_ack(&mut self, _: &Channel, ack: Ack) {
        self.pass(ack.delivery_tag(), ack.mutiple(), Outcome::Confirmed);
    }

    async fn publish_nack(&mut self, _: &Channel, nack: Nack) {
        self.pass(nack.delivery_tag(), nack.multiple(), Outcome::Nacked);
    }

    async fn publish_return(
        &mut self,
        _: &Channel,
        returned: Return,
        _: BasicProperties,
        _: Vec<u8>,
    ) {
        self.pass(0, false, Outcome::Returned(returned.reply_text().clone()));
    }
}
