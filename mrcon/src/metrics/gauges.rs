//! Gauges (and a counter) that are read from the connectors' status at each scrape, and absent while
//! unknown.
//!
//! Of connectors that watch the same collection, amounts add up, of ages and lags the larger one
//! shows, and a side is up when it is up for all of them.

use super::LABELS;
use crate::budget::Budget;
use crate::oplog::Oplog;
use crate::status::{ConnectorStatus, State};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, Gauge, GaugeVec, Opts, Registry, Result};
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// One gauge per collection: its name, its meaning, how to read it, and how two readings join.
struct Definition {
    name: &'static str,
    help: &'static str,
    read: fn(&ConnectorStatus) -> Option<f64>,
    join: fn(f64, f64) -> f64,
}

const DEFINITIONS: [Definition; 13] = [
    Definition {
        name: "mrcon_unconfirmed_messages",
        help: "Messages published and not yet confirmed",
        read: |status| Some(status.unconfirmed().0 as f64),
        join: |one, other| one + other,
    },
    Definition {
        name: "mrcon_unconfirmed_bytes",
        help: "Bytes of message bodies published and not yet confirmed",
        read: |status| Some(status.unconfirmed().1 as f64),
        join: |one, other| one + other,
    },
    Definition {
        name: "mrcon_read_ahead_bytes",
        help: "Memory held by what was read and is not confirmed, and by what is being read; part of mrcon_memory_used_bytes",
        read: |status| Some(status.memory.held() as f64),
        join: |one, other| one + other,
    },
    Definition {
        name: "mrcon_memory_wait_seconds_total",
        help: "Time that reading has waited for room in the memory budget",
        read: |status| Some(status.memory.waited().as_secs_f64()),
        join: |one, other| one + other,
    },
    Definition {
        name: "mrcon_replication_lag_seconds",
        help: "Now minus the time of the last confirmed position, event or idle token; absent until known",
        read: |status| going(status)?.lag().map(|lag| lag.as_secs_f64()),
        join: f64::max,
    },
    Definition {
        name: "mrcon_checkpoint_age_seconds",
        help: "Time since a position was last made durable by this process; absent before the first time",
        read: |status| going(status)?.saved_at().map(age),
        join: f64::max,
    },
    Definition {
        name: "mrcon_stalled_seconds",
        help: "How long messages have been waiting for a confirm without any coming; 0 while none wait",
        read: |status| Some(status.stalled_for().as_secs_f64()),
        join: f64::max,
    },
    Definition {
        name: "mrcon_progress_age_seconds",
        help: "Time since the confirmed position last moved, by an event or an idle token; absent before it first did",
        read: |status| going(status)?.progressed_at().map(age),
        join: f64::max,
    },
    Definition {
        name: "mrcon_time_to_history_loss_seconds",
        help: "How long the connector may stay stuck before its saved position leaves the oplog; absent while either is unknown",
        read: |status| Some(going(status)?.time_to_history_loss()?.as_secs_f64()),
        join: f64::min,
    },
    Definition {
        name: "mrcon_snapshot_running",
        help: "1 while a snapshot runs",
        read: |status| Some(number(status.is_in_snapshot())),
        join: f64::max,
    },
    Definition {
        name: "mrcon_snapshot_progress_ratio",
        help: "Part of the last snapshot, or of the running one, that is confirmed, from 0 to 1; absent before the first, and with a filter until it is over",
        read: |status| status.snapshot_progress()?.ratio(),
        join: f64::min,
    },
    Definition {
        name: "mrcon_mongodb_up",
        help: "1 if MongoDB answered this connector last time, 0 if not; absent before the first try",
        read: |status| status.up().0.map(number),
        join: f64::min,
    },
    Definition {
        name: "mrcon_rabbitmq_up",
        help: "1 if RabbitMQ answered this connector last time, 0 if not; absent before the first try",
        read: |status| status.up().1.map(number),
        join: f64::min,
    },
];

const STATE: &str = "mrcon_connector_state";
const STATE_HELP: &str = "Connectors of the collection that are in this state";
const BLOCKED: &str = "mrcon_rabbitmq_blocked";
const BLOCKED_HELP: &str =
    "1 while RabbitMQ blocks a publishing connection of this process (memory or disk alarm)";
const OPLOG_WINDOW: &str = "mrcon_oplog_window_seconds";
const OPLOG_WINDOW_HELP: &str = "Time between the oldest entry of MongoDB's oplog and now; absent while MongoDB does not say (rights, a sharded cluster)";

const BUDGET: &str = "mrcon_memory_budget_bytes";
const BUDGET_HELP: &str =
    "Memory that all connectors together may hold for events: server.memory_budget";
const USED: &str = "mrcon_memory_used_bytes";
const USED_HELP: &str = "Memory that all connectors together hold for events: being read, being published, waiting for confirms";

/// Of a connector that has done all that it was for, no age means anything.
fn going(status: &ConnectorStatus) -> Option<&ConnectorStatus> {
    (status.state() != State::Finished).then_some(status)
}

fn number(flag: bool) -> f64 {
    f64::from(u8::from(flag))
}

fn age(since: SystemTime) -> f64 {
    SystemTime::now()
        .duration_since(since)
        .unwrap_or(Duration::ZERO)
        .as_secs_f64()
}

/// See the module's documentation.
#[derive(Debug, Clone)]
pub(super) struct ConnectorGauges {
    connectors: Arc<Mutex<Vec<Arc<ConnectorStatus>>>>,
    oplog: Arc<Oplog>,
    descriptions: Vec<Desc>,
}

impl ConnectorGauges {
    pub(super) fn register(registry: &Registry) -> Result<ConnectorGauges> {
        let describe = |name: &str, help: &str, labels: &[&str]| {
            let labels = labels.iter().map(|label| (*label).to_owned()).collect();
            Desc::new(name.into(), help.into(), labels, Default::default())
        };
        let mut descriptions = DEFINITIONS
            .iter()
            .map(|gauge| describe(gauge.name, gauge.help, &LABELS))
            .collect::<Result<Vec<_>>>()?;
        descriptions.push(describe(
            STATE,
            STATE_HELP,
            &[LABELS[0], LABELS[1], "state"],
        )?);
        descriptions.push(describe(BLOCKED, BLOCKED_HELP, &[])?);
        descriptions.push(describe(OPLOG_WINDOW, OPLOG_WINDOW_HELP, &[])?);
        descriptions.push(describe(BUDGET, BUDGET_HELP, &[])?);
        descriptions.push(describe(USED, USED_HELP, &[])?);
        let gauges = ConnectorGauges {
            connectors: Arc::default(),
            oplog: Arc::default(),
            descriptions,
        };
        registry.register(Box::new(gauges.clone()))?;
        Ok(gauges)
    }

    pub(super) fn oplog(&self) -> &Arc<Oplog> {
        &self.oplog
    }

    pub(super) fn add(&self, status: Arc<ConnectorStatus>) {
        self.list().push(status);
    }

    pub(super) fn remove(&self, status: &Arc<ConnectorStatus>) {
        self.list().retain(|one| !Arc::ptr_eq(one, status));
    }

    pub(super) fn connectors(&self) -> Vec<Arc<ConnectorStatus>> {
        self.list().clone()
    }

    fn list(&self) -> MutexGuard<'_, Vec<Arc<ConnectorStatus>>> {
        self.connectors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for ConnectorGauges {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let connectors = without_predecessors(self.connectors());
        let gauges = DEFINITIONS
            .iter()
            .filter_map(|gauge| per_collection(gauge, &connectors));
        gauges
            .chain(states(&connectors))
            .chain(blocked(&connectors))
            .chain(oplog_window(&self.oplog))
            .chain(memory(&connectors, BUDGET, BUDGET_HELP, Budget::bytes))
            .chain(memory(&connectors, USED, USED_HELP, Budget::used))
            .collect()
    }
}

/// In the moment in which a connector takes another one's place both are there, with the same memory account:
/// counted twice, what that has counted would go back afterwards.
fn without_predecessors(connectors: Vec<Arc<ConnectorStatus>>) -> Vec<Arc<ConnectorStatus>> {
    let mut accounts = HashSet::with_capacity(connectors.len());
    let newest_first = connectors.into_iter().rev();
    let mut kept: Vec<_> = newest_first
        .filter(|status| accounts.insert(Arc::as_ptr(&status.memory)))
        .collect();
    kept.reverse();
    kept
}

fn per_collection(gauge: &Definition, connectors: &[Arc<ConnectorStatus>]) -> Option<MetricFamily> {
    let mut values: BTreeMap<[&str; 2], f64> = BTreeMap::new();
    for status in connectors {
        if let Some(value) = (gauge.read)(status) {
            let labels = [status.collection.as_str(), status.database.as_str()];
            values
                .entry(labels)
                .and_modify(|joined| *joined = (gauge.join)(*joined, value))
                .or_insert(value);
        }
    }
    let options = Opts::new(gauge.name, gauge.help);
    // What is counted elsewhere and only read here is a counter all the same.
    if gauge.name.ends_with("_total") {
        let vec = CounterVec::new(options, &LABELS).ok()?;
        for (labels, value) in values {
            vec.with_label_values(&labels).inc_by(value);
        }
        return family(&vec);
    }
    let vec = GaugeVec::new(options, &LABELS).ok()?;
    for (labels, value) in values {
        vec.with_label_values(&labels).set(value);
    }
    family(&vec)
}

fn states(connectors: &[Arc<ConnectorStatus>]) -> Option<MetricFamily> {
    let vec = GaugeVec::new(
        Opts::new(STATE, STATE_HELP),
        &[LABELS[0], LABELS[1], "state"],
    )
    .ok()?;
    for status in connectors {
        let now = status.state();
        for state in State::ALL {
            let labels = [
                status.collection.as_str(),
                status.database.as_str(),
                state.as_str(),
            ];
            vec.with_label_values(&labels).add(number(state == now));
        }
    }
    family(&vec)
}

fn blocked(connectors: &[Arc<ConnectorStatus>]) -> Option<MetricFamily> {
    let gauge = Gauge::new(BLOCKED, BLOCKED_HELP).ok()?;
    gauge.set(number(
        connectors
            .iter()
            .any(|status| status.state() == State::Blocked),
    ));
    family(&gauge)
}

fn oplog_window(oplog: &Oplog) -> Option<MetricFamily> {
    let gauge = Gauge::new(OPLOG_WINDOW, OPLOG_WINDOW_HELP).ok()?;
    gauge.set(oplog.window()?.as_secs_f64());
    family(&gauge)
}

/// All connectors of a process share one budget.
fn memory(
    connectors: &[Arc<ConnectorStatus>],
    name: &str,
    help: &str,
    read: fn(&Budget) -> u64,
) -> Option<MetricFamily> {
    let gauge = Gauge::new(name, help).ok()?;
    gauge.set(read(connectors.first()?.memory.budget()) as f64);
    family(&gauge)
}

/// The family, unless it has no series: the text format knows no empty ones.
fn family(collector: &impl Collector) -> Option<MetricFamily> {
    collector
        .collect()
        .pop()
        .filter(|family| !family.get_metric().is_empty())
}
