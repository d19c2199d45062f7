//! The exchanges, queues, streams and bindings of the configuration, in RabbitMQ.
//!
//! What is there is asked first ([`plan`]), over AMQP 0.9.1 and without changing anything: by passive
//! declarations, and of what exists by declaring it once more, which RabbitMQ refuses with the first property
//! in which it differs. Each is corrected until there is none left, so that all are known. Only where nothing
//! differs is anything declared ([`apply`]). What RabbitMQ does not compare is not seen: arguments that it
//! does not know itself, those of exchanges but for `alternate-exchange`, and policies.
//!
//! AMQP has no question for a binding. Making one that is there changes nothing, so each is made.
//!
//! ```no_run
//! use mrcon::topology::{self, Action};
//! use mrcon::uri::AmqpUri;
//!
//! # async fn example(config: mrcon::config::ValidConfig) -> Result<(), Box<dyn std::error::Error>> {
//! let uri = AmqpUri::parse("amqp://guest:guest@127.0.0.1:5672")?;
//! let plan = topology::plan(config.topology(), uri.clone()).await?;
//! println!("{} to declare", plan.count(Action::Declare));
//! if plan.check().is_ok() {
//!     topology::apply(config.topology(), uri, |_| {}).await?;
//! }
//! # Ok(())
//! # }
//! ```

mod difference;
mod plan;
mod wanted;

pub use difference::Difference;
pub use plan::{Action, Found, Plan, Step};
pub use wanted::{Binding, Exchange, Queue, Thing, things};

use crate::config::Topology;
use crate::error::Result;
use crate::sink::amqp::declare::Declarer;
use crate::uri::AmqpUri;
use std::collections::{HashMap, HashSet};

/// What would be done. Changes nothing.
///
/// # Errors
/// When the broker cannot be asked. What differs is in the plan.
pub async fn plan(topology: &Topology, uri: AmqpUri) -> Result<Plan> {
    let mut declarer = Declarer::to(uri);
    let plan = declarer.look(things(topology)).await;
    declarer.close().await;
    plan
}

/// Looks, tells the plan, and if nothing is wrong with it, does it.
///
/// # Errors
/// As [`plan`] and [`Plan::check`]; then nothing was done. When RabbitMQ refuses a declaration, which it does
/// not tell before, those before it were done.
pub async fn apply(topology: &Topology, uri: AmqpUri, tell: impl FnOnce(&Plan)) -> Result<Plan> {
    let mut declarer = Declarer::to(uri);
    let applied = async {
        let plan = declarer.look(things(topology)).await?;
        tell(&plan);
        plan.check()?;
        declarer.apply(&plan).await?;
        Ok(plan)
    };
    let applied = applied.await;
    declarer.close().await;
    applied
}

/// What is to be noted of queues that drop messages which they have confirmed.
pub fn warnings(topology: &Topology) -> Vec<String> {
    let dropping = topology.queues.iter().filter(|queue| queue.drops());
    let told = dropping.map(|queue| {
        format!(
            "queue {}: drop_head drops its oldest messages when it is full, although they were confirmed; use reject_publish, or give it a dead_letter_exchange",
            queue.name
        )
    });
    told.collect()
}

/// How queues of the topology are declared, for connectors that find one of them gone.
#[derive(Debug, Default)]
pub(crate) struct Declarations {
    declare: bool,
    queues: HashMap<String, (Queue, Vec<Binding>)>,
    super_streams: HashSet<String>,
    exchanges: HashSet<String>,
}

impl Declarations {
    pub(crate) fn of(topology: &Topology) -> Declarations {
        let all = things(topology);
        let bindings_of = |name: &str| {
            let to = all.iter().filter_map(|thing| match thing {
                Thing::Binding(one) if !one.to_exchange && one.to == name => Some(one.clone()),
                Thing::Binding(_) | Thing::Exchange(_) | Thing::Queue(_) => None,
            });
            to.collect::<Vec<_>>()
        };
        let queues = all.iter().filter_map(|thing| match thing {
            Thing::Queue(queue) => {
                let bindings = bindings_of(&queue.name);
                Some((queue.name.clone(), (queue.clone(), bindings)))
            }
            Thing::Exchange(_) | Thing::Binding(_) => None,
        });
        Declarations {
            declare: topology.declare,
            queues: queues.collect(),
            super_streams: topology
                .super_streams
                .iter()
                .map(|stream| stream.name.clone())
                .collect(),
            exchanges: topology
                .exchanges
                .iter()
                .map(|exchange| exchange.name.clone())
                .collect(),
        }
    }

    /// Whether an exchange of this name is in the topology, which then says what is bound to it.
    pub(crate) fn has_exchange(&self, name: &str) -> bool {
        self.exchanges.contains(name)
    }

    /// Whether a stream or super stream of this name is in the topology.
    pub(crate) fn has_stream(&self, name: &str) -> bool {
        self.queues.contains_key(name) || self.super_streams.contains(name)
    }

    /// The queue of this name, if it is in the topology: whether it is to be declared, how, and what is
    /// bound to it.
    pub(crate) fn queue(&self, name: &str) -> Option<(bool, &Queue, &[Binding])> {
        let (queue, bindings) = self.queues.get(name)?;
        Some((self.declare && !queue.passive, queue, bindings))
    }
}
