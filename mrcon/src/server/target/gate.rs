//! The topology is in order before any connector of this process connects to RabbitMQ.
//!
//! Whoever comes first looks and declares, the others wait for what comes of it. Once it is done it is done,
//! until a connector finds something gone.

use crate::config::Topology;
use crate::error::{Error, ErrorKind, Result};
use crate::topology::{self, Action, Plan, Step};
use crate::uri::AmqpUri;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::Mutex;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Gate {
    topology: Topology,
    uri: std::sync::Mutex<AmqpUri>,
    is_empty: bool,
    /// Attempts that have come to an end.
    attempts: AtomicU64,
    /// Something was found to be gone.
    is_due: AtomicBool,
    last: Mutex<Option<Attempt>>,
}

/// What came of an attempt.
#[derive(Debug, Clone)]
enum Attempt {
    Done,
    Failed(ErrorKind, String),
}

impl Gate {
    pub(super) fn new(topology: &Topology, uri: AmqpUri) -> Gate {
        Gate {
            topology: topology.clone(),
            uri: std::sync::Mutex::new(uri),
            is_empty: topology::things(topology).is_empty(),
            attempts: AtomicU64::new(0),
            is_due: AtomicBool::new(false),
            last: Mutex::default(),
        }
    }

    /// Waits until RabbitMQ has what it is to have.
    ///
    /// # Errors
    /// When it cannot be reached, or has something otherwise. Of those who wait for the same attempt all get
    /// the same error.
    pub(super) async fn pass(&self) -> Result<()> {
        if self.is_empty {
            return Ok(());
        }
        let before = self.attempts.load(Ordering::Acquire);
        let mut last = self.last.lock().await;
        match &*last {
            Some(Attempt::Done) if !self.is_due.load(Ordering::Acquire) => return Ok(()),
            Some(Attempt::Failed(kind, text)) if self.attempts.load(Ordering::Acquire) > before => {
                return Err(Error::new(*kind, text.clone()));
            }
            Some(Attempt::Done | Attempt::Failed(..)) | None => {}
        }
        // This may be dropped half-way; then it was no attempt.
        *last = None;
        self.is_due.store(false, Ordering::Release);
        let attempt = match self.attempt(before == 0).await {
            Ok(()) => Attempt::Done,
            Err(error) => Attempt::Failed(error.kind(), error.chain()),
        };
        *last = Some(attempt.clone());
        self.attempts.fetch_add(1, Ordering::Release);
        match attempt {
            Attempt::Done => Ok(()),
            Attempt::Failed(kind, text) => Err(Error::new(kind, text)),
        }
    }

    /// A connector failed like this: if something may be gone, the next run looks again.
    pub(super) fn heed(&self, error: &Error) {
        let may_be_gone = matches!(
            error.kind(),
            ErrorKind::TargetMissing | ErrorKind::ExchangeMissing | ErrorKind::Unroutable
        );
        if may_be_gone {
            self.is_due.store(true, Ordering::Release);
        }
    }

    fn uri(&self) -> AmqpUri {
        let uri = self.uri.lock();
        uri.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// At another broker, or with another login.
    pub(super) fn lead_to(&self, uri: AmqpUri) {
        *self.uri.lock().unwrap_or_else(PoisonError::into_inner) = uri;
    }

    async fn attempt(&self, is_first: bool) -> Result<()> {
        if is_first {
            for warning in topology::warnings(&self.topology) {
                tracing::warn!("topology: {warning}");
            }
        }
        let may_declare = self.topology.declare;
        let tell = |plan: &Plan| tell(plan, may_declare, is_first);
        match may_declare {
            true => {
                topology::apply(&self.topology, self.uri(), tell).await?;
            }
            false => {
                let plan = topology::plan(&self.topology, self.uri()).await?;
                tell(&plan);
                plan.check_all_there()?;
            }
        }
        tracing::info!("topology: RabbitMQ has what it is to have");
        Ok(())
    }
}

/// What is declared is told each time, everything else once; what differs is told by the error.
fn tell(plan: &Plan, may_declare: bool, is_first: bool) {
    let told = |step: &&Step| match step.action() {
        Action::Declare => may_declare,
        Action::Trust => is_first,
        Action::Keep | Action::Bind | Action::Stop => false,
    };
    for step in plan.steps().iter().filter(told) {
        tracing::info!("topology: {step}");
    }
    if is_first {
        let count = |action| plan.count(action);
        tracing::info!(
            missing = count(Action::Declare),
            as_configured = count(Action::Keep),
            not_compared = count(Action::Trust),
            bindings = count(Action::Bind),
            wrong = count(Action::Stop),
            declare = may_declare,
            "topology: looked at"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TopologyQueue;
    use futures_util::future::join_all;

    fn gate(topology: &Topology) -> Gate {
        // Nobody listens where somebody did a moment ago.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        Gate::new(
            topology,
            AmqpUri::parse(&format!("amqp://{address}")).unwrap(),
        )
    }

    #[tokio::test]
    async fn each_of_many_connectors_asks_a_broker_that_is_away() {
        let topology = Topology {
            queues: vec![TopologyQueue {
                name: "orders".into(),
                ..TopologyQueue::default()
            }],
            ..Topology::default()
        };
        let gate = gate(&topology);
        for attempts in 1..=2 {
            let passed = join_all((0..100).map(|_| gate.pass())).await;
            assert!(passed.iter().all(
                |one| matches!(one, Err(error) if error.kind() == ErrorKind::RabbitConnection)
            ));
            assert_eq!(gate.attempts.load(Ordering::Relaxed), attempts);
        }
    }

    #[tokio::test]
    async fn empty_topology_needs_a_broker() {
        gate(&Topology::default()).pass().await.unwrap();
    }

    #[test]
    fn thing_that_is_gone_is_not_looked_at_again() {
        let gate = gate(&Topology::default());
        gate.heed(&Error::new(ErrorKind::RabbitConnection, "test"));
        assert!(!gate.is_due.load(Ordering::Relaxed));
        gate.heed(&Error::new(ErrorKind::Unroutable, "test"));
        assert!(gate.is_due.load(Ordering::Relaxed));
    }
}
