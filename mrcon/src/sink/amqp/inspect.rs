//! What an exchange or a queue that exists is like, and what may be done with one: questions that change
//! nothing, whatever the answer.

use super::arguments::Told;
use super::declare::{Declaration, Declarer, What, is_lost, knows_no_type, shown, words};
use super::frames::short;
use crate::config::Arguments;
use crate::error::{ErrorKind, Result};
use amq_protocol::protocol::{AMQPClass, exchange};
use amq_protocol::types::{AMQPValue, FieldTable};

/// Properties of a thing that are found out, one by one; RabbitMQ compares some twenty.
const MAX_GUESSES: usize = 25;
/// An exchange that nobody has.
const NO_EXCHANGE: &str = "mrcon-check-no-such-exchange";

/// What there is of a name.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Seen {
    Nothing,
    There(Properties),
    /// It is there, and RabbitMQ does not tell us more: we lack the permission `configure`.
    Unseen,
    /// It cannot be looked at: RabbitMQ's words.
    Refused {
        words: String,
        is_permission: bool,
    },
}

/// What a thing is like.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Properties {
    /// The type of an exchange.
    pub(crate) kind: String,
    pub(crate) durable: bool,
    pub(crate) auto_delete: bool,
    /// Of an exchange.
    pub(crate) internal: bool,
    pub(crate) arguments: Arguments,
}

impl Declarer {
    /// Major, minor and patch version of the broker; zeros if it does not tell.
    ///
    /// # Errors
    /// When the broker cannot be reached, or refuses the login.
    pub(crate) async fn version(&mut self) -> Result<[u16; 3]> {
        Ok(self.channel().await?.version())
    }

    /// What the queue is like, as far as RabbitMQ tells; `kind` is the type that is expected.
    ///
    /// # Errors
    /// When the broker cannot be asked.
    pub(crate) async fn queue(&mut self, name: &str, kind: &str) -> Result<Seen> {
        let mut guess = Declaration::new(What::Queue, name);
        let kind = AMQPValue::LongString(kind.into());
        guess.arguments.insert("x-queue-type".into(), kind);
        self.see(guess).await
    }

    /// The same of an exchange.
    ///
    /// # Errors
    /// When the broker cannot be asked.
    pub(crate) async fn exchange(&mut self, name: &str, kind: &str) -> Result<Seen> {
        let guess = Declaration {
            kind: kind.to_owned(),
            ..Declaration::new(What::Exchange, name)
        };
        self.see(guess).await
    }

    async fn see(&mut self, mut guess: Declaration) -> Result<Seen> {
        let context = format!("look at `{}`", guess.name);
        let refused = |words, is_permission| Seen::Refused {
            words,
            is_permission,
        };
        if let Err(error) = self.call(guess.request(true)?, &context).await {
            return match error.kind() {
                ErrorKind::TargetMissing | ErrorKind::ExchangeMissing => Ok(Seen::Nothing),
                ErrorKind::RabbitPermission => Ok(refused(words(&error), true)),
                _ if is_lost(&error) => Err(error),
                _ => Ok(refused(words(&error), false)),
            };
        }
        for _ in 0..MAX_GUESSES {
            let error = match self.call(guess.request(false)?, &context).await {
                Ok(_) => return Ok(Seen::There(properties(guess))),
                Err(error) => error,
            };
            if error.kind() == ErrorKind::RabbitPermission {
                return Ok(Seen::Unseen);
            }
            if is_lost(&error) && !knows_no_type(&error) {
                return Err(error);
            }
            match Told::by(&error.chain(), &guess.arguments) {
                Some(told) => guess.correct(told),
                None => return Ok(refused(words(&error), false)),
            }
        }
        Ok(Seen::There(properties(guess)))
    }

    /// Whether we may publish to an exchange; the empty name is the default exchange.
    ///
    /// RabbitMQ looks at this permission before it looks for the exchange at the other end, of which there is
    /// none. So it refuses in any case.
    ///
    /// # Errors
    /// When the broker cannot be asked.
    pub(crate) async fn may_write(&mut self, name: &str) -> Result<bool> {
        let request = exchange::Bind {
            destination: short(name, "the exchange's name")?,
            source: NO_EXCHANGE.into(),
            routing_key: "".into(),
            nowait: false,
            arguments: FieldTable::default(),
        };
        let request = AMQPClass::Exchange(exchange::AMQPMethod::Bind(request));
        match self.call(request, "look for the permission write").await {
            Err(error) if error.kind() == ErrorKind::RabbitPermission => {
                let words = words(&error);
                // What is refused may be to read the other one, or to bind the default exchange.
                Ok(!words.contains("access to") || words.contains(NO_EXCHANGE))
            }
            Err(error) if is_lost(&error) => Err(error),
            _ => Ok(true),
        }
    }

    /// Whether we may declare a queue of this name.
    ///
    /// RabbitMQ looks at this permission first, and then refuses the argument, which no queue can have.
    ///
    /// # Errors
    /// When the broker cannot be asked.
    pub(crate) async fn may_declare(&mut self, name: &str) -> Result<bool> {
        let mut probe = Declaration::new(What::Queue, name);
        probe
            .arguments
            .insert("x-expires".into(), AMQPValue::LongLongInt(0));
        let asked = self.call(probe.request(false)?, "look for the permission configure");
        match asked.await {
            Err(error) if error.kind() == ErrorKind::RabbitPermission => Ok(false),
            Err(error) if is_lost(&error) => Err(error),
            _ => Ok(true),
        }
    }
}

fn properties(guess: Declaration) -> Properties {
    let arguments = guess.arguments.inner().iter();
    Properties {
        arguments: arguments
            .map(|(name, value)| (name.to_string(), shown(value)))
            .collect(),
        kind: guess.kind,
        durable: guess.durable,
        auto_delete: guess.auto_delete,
        internal: guess.internal,
    }
}
