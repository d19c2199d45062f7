//! What a configuration needs of the build: the features `amqp` and `stream`.

use super::{Protocol, Topology, ValidConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::status::connector_name;

/// What is in this build.
#[derive(Clone, Copy)]
struct Built {
    amqp: bool,
    stream: bool,
}

const THIS: Built = Built {
    amqp: cfg!(feature = "amqp"),
    stream: cfg!(feature = "stream"),
};

impl ValidConfig {
    /// Whether this build has the code for all that is configured: features of the crate that are off leave
    /// protocols out.
    ///
    /// [`Server::new`](crate::Server::new) asks this, too.
    ///
    /// # Errors
    /// [`ErrorKind::NotSupported`], with the first key that needs a feature, and which one.
    pub fn check_features(&self) -> Result<()> {
        self.check_with(THIS)
    }

    fn check_with(&self, built: Built) -> Result<()> {
        for entry in self.collections() {
            let name = connector_name(entry);
            let protocol = entry.rabbitmq.protocol;
            let (word, has) = match protocol {
                Protocol::Amqp => ("amqp", built.amqp),
                Protocol::Stream => ("stream", built.stream),
            };
            if !has {
                return Err(left_out(&format!("{name}: protocol: {word}"), protocol));
            }
            // Whatever the protocol of the events is.
            if entry.has_dead_letters() && !built.amqp {
                return Err(left_out(&format!("{name}: dead_letter"), Protocol::Amqp));
            }
        }
        if *self.topology() != Topology::default() && !built.amqp {
            return Err(left_out("topology", Protocol::Amqp));
        }
        Ok(())
    }
}

/// The feature for `protocol` is off, and what was asked for needs it.
pub(crate) fn left_out(what: &str, protocol: Protocol) -> Error {
    let (feature, is) = match protocol {
        Protocol::Amqp => ("amqp", "AMQP 0.9.1"),
        Protocol::Stream => ("stream", "the native stream protocol"),
    };
    let text = format!(
        "use the configuration: {what} needs {is}, which this build leaves out; build it with the feature `{feature}`"
    );
    Error::new(ErrorKind::NotSupported, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CollectionConfig, Config, OnOversize, TopologyQueue};

    fn refused(config: &Config, built: Built) -> Option<String> {
        let config = config.clone().validate().unwrap();
        config.check_with(built).err().map(|error| error.chain())
    }

    #[test]
    fn what_the_build_leaves_out_is_accepted_or_told_without_its_feature() {
        const BOTH: Built = Built {
            amqp: true,
            stream: true,
        };
        const STREAM: Built = Built {
            amqp: false,
            stream: true,
        };
        const AMQP: Built = Built {
            amqp: true,
            stream: false,
        };
        let mut config = Config::new([CollectionConfig::new("shop", "orders", "orders")]);
        let told = |config: &Config, built| refused(config, built).unwrap_or_default();
        assert_eq!(refused(&config, AMQP), None);
        let words = told(&config, STREAM);
        assert!(
            words.contains("shop.orders -> orders: protocol: amqp"),
            "{words}"
        );
        assert!(words.contains("the feature `amqp`"), "{words}");
        config.collections[0].rabbitmq.protocol = Protocol::Stream;
        assert_eq!(refused(&config, STREAM), None);
        assert!(told(&config, AMQP).contains("the feature `stream`"));
        let streams = config.clone();
        config.collections[0].rabbitmq.on_oversize = OnOversize::DeadLetter;
        config.collections[0].rabbitmq.dead_letter.routing_key = "dead".into();
        assert!(told(&config, STREAM).contains("dead_letter needs AMQP"));
        assert_eq!(refused(&config, BOTH), None);
        config = streams;
        config.topology.queues = vec![TopologyQueue {
            name: "q".into(),
            ..TopologyQueue::default()
        }];
        assert!(told(&config, STREAM).contains("topology needs AMQP"));
    }
}
