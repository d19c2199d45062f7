//! What a scenario is made of: servers, a writer, the daemon between them, and the oracles at the end.
//!
//! | oracle | where it is judged |
//! |---|---|
//! | I1 nothing lost, I2 order, I5 nothing invented, repeats the same to the byte | `common::oracle`, against MongoDB's own change stream; and the writer's counters, which ask nobody |
//! | I3 duplicates | `judge`: of each kill of the daemon what came after the stored position, of each other incident a window, or none |
//! | I4 no position ahead of what is confirmed | a kill, and then I1 |
//! | I6 liveness | `recovers`, `judge` |
//! | I7 memory, files, threads | `resources` |
//! | I8 no password is told | `planted`, and `common::canary` in every page, message and log |
//! | I8 the fault is named | the scenario, with `Daemon::unhealthy` and the like |

use crate::common::canary;
use crate::common::config::{Config, Entry};
use crate::common::daemon::{Daemon, Uris, confirmed};
use crate::common::mongo::Mongo;
use crate::common::oracle::{AT_LEAST_ONCE, Order, Rules};
use crate::common::rabbit::{Broker, Collector, Delivery};
use crate::common::rig::Rig;
use crate::common::stream;
use crate::harness::{Case, Figures};
use crate::planted::{Looks, look_around, spawn};
use crate::writer::{Writer, Written};
use bson::Document;
use mongodb::Collection;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::slice::from_ref;
use std::time::{Duration, Instant};

/// `max_unconfirmed`, as it is by default.
pub(crate) const WINDOW: usize = 1000;

/// See the module's documentation.
pub(crate) struct Trial {
    pub(crate) rig: Rig,
    pub(crate) entry: Entry,
    /// Where the daemon finds its servers; a scenario may put a proxy in between.
    pub(crate) uris: Uris,
    /// More of the configuration than the entry.
    pub(crate) configure: Box<dyn Fn(Config) -> Config>,
    /// Further entries, of which the scenario judges itself what becomes of them.
    pub(crate) others: Vec<Entry>,
    /// Who consumes meanwhile; otherwise the queue is read at the end.
    pub(crate) consumer: Option<Collector>,
    /// What earlier consumers have got.
    pub(crate) taken: Vec<Delivery>,
    /// Lets the daemon panic where a document has the words for it.
    pub(crate) panics: bool,
    /// Events in the collection that the scenario itself has made.
    pub(crate) own_events: usize,
    daemon: Option<Daemon>,
    writer: Option<Writer>,
    written: Option<Written>,
    /// The stored position after each kill of the daemon.
    kills: Vec<u64>,
    recovery: Option<Duration>,
    /// What commands say while something is wrong.
    looks: RefCell<Looks>,
}

/// How often events may come twice, beside those after a kill of the daemon.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowed {
    /// Incidents of which each may bring what was in flight again.
    pub(crate) windows: usize,
    pub(crate) order: Order,
}

/// Nothing comes twice, unless the daemon was killed.
pub(crate) const NOTHING: Allowed = Allowed {
    windows: 0,
    order: Order::First,
};

/// What was in flight may come again, at each of so many incidents.
pub(crate) const fn windows(windows: usize) -> Allowed {
    Allowed {
        windows,
        order: Order::First,
    }
}

impl Trial {
    pub(crate) async fn on(case: &Case, mongo: &Mongo, broker: &Broker) -> Trial {
        let rig = Rig::on(mongo, broker, &case.number()).await;
        canary::admit(&rig.client, broker).await;
        Trial {
            entry: rig.entry(),
            uris: rig.uris(),
            rig,
            configure: Box::new(|config| config),
            others: Vec::new(),
            consumer: None,
            taken: Vec::new(),
            panics: false,
            own_events: 0,
            daemon: None,
            writer: None,
            written: None,
            kills: Vec::new(),
            recovery: None,
            looks: RefCell::default(),
        }
    }

    /// Sets a key of the entry, such as `rabbitmq.queue_type`.
    pub(crate) fn with(mut self, path: &str, value: impl Into<Value>) -> Trial {
        self.entry = self.entry.with(path, value);
        self
    }

    /// With the key of a mask in the configuration, of which nothing may be told either; it masks what is not
    /// there, so that messages stay as they are.
    pub(crate) fn with_secret_key(self) -> Trial {
        let mask = json!([{"path": "nowhere", "action": "hash", "key": canary::MASK_KEY}]);
        self.with("mask", mask)
    }

    /// The connector's name.
    pub(crate) fn name(&self) -> String {
        self.entry.name()
    }

    pub(crate) fn collection(&self) -> Collection<Document> {
        self.rig.collection()
    }

    /// Starts the daemon, which may not get ready.
    pub(crate) fn spawn(&mut self) {
        let daemon = spawn(&self.config(), &self.uris, self.panics);
        self.daemon = Some(daemon);
    }

    fn config(&self) -> Config {
        let entries = [from_ref(&self.entry), &self.others].concat();
        (self.configure)(Config::new(entries))
    }

    /// Starts the daemon and waits until it is ready.
    pub(crate) async fn start(&mut self) {
        self.spawn();
        self.daemon_mut().ready().await;
    }

    pub(crate) fn daemon(&self) -> &Daemon {
        let daemon = self.daemon.as_ref();
        daemon.unwrap_or_else(|| unreachable!("the scenario has started it"))
    }

    fn daemon_mut(&mut self) -> &mut Daemon {
        let daemon = self.daemon.as_mut();
        daemon.unwrap_or_else(|| unreachable!("the scenario has started it"))
    }

    /// The daemon, which the scenario ends itself.
    pub(crate) fn take_daemon(&mut self) -> Daemon {
        let daemon = self.daemon.take();
        daemon.unwrap_or_else(|| unreachable!("the scenario has started it"))
    }

    /// What `/status` says of the connector.
    pub(crate) async fn connector(&self) -> Value {
        self.daemon().connector(&self.name()).await
    }

    /// Begins to write, a turn of all keys every `pace`; the daemon must have been ready once.
    pub(crate) fn write(&mut self, pace: Duration) {
        self.writer = Some(Writer::start(&self.collection(), pace));
    }

    pub(crate) fn writer(&self) -> &Writer {
        let writer = self.writer.as_ref();
        writer.unwrap_or_else(|| unreachable!("the scenario has started it"))
    }

    /// Starts the daemon and the writer, and waits until both are in the middle of it.
    pub(crate) async fn begin(&mut self, pace: Duration) {
        self.start().await;
        self.write(pace);
        self.flows().await;
    }

    /// Waits until some hundred more events are confirmed than now.
    pub(crate) async fn flows(&self) {
        self.daemon().goes_on(&self.name()).await;
    }

    /// Waits until what is written from now on is confirmed; the time since `fault` is the recovery. Of
    /// several the longest is told.
    pub(crate) async fn recovers(&mut self, fault: Instant) {
        let target = self.writer().begun();
        let what = format!("confirms more than {target} events");
        let daemon = self.daemon();
        daemon
            .until(&self.name(), &what, |now| confirmed(now) > target)
            .await;
        self.recovered(fault);
    }

    /// The scenario has seen itself that everything is well again.
    pub(crate) fn recovered(&mut self, fault: Instant) {
        self.recovery = self.recovery.max(Some(fault.elapsed()));
    }

    /// What is known without judging.
    pub(crate) fn figures(&self) -> Figures {
        Figures {
            recovery: self.recovery,
            ..Figures::default()
        }
    }

    /// Ends the daemon at once, as a crash would.
    pub(crate) async fn kill(&mut self) {
        self.take_daemon().kill().await;
        let stored = self.rig.stored().await;
        self.kills
            .push(stored.get_i64("seq").unwrap_or_default() as u64);
    }

    /// Stops the daemon in order.
    pub(crate) async fn stop(&mut self) {
        let ended = self.take_daemon().terminate().await;
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        self.looks.take().end().await;
    }

    /// Stops the writer, if it still writes; what it wrote.
    pub(crate) async fn stop_writing(&mut self) -> Written {
        if let Some(writer) = self.writer.take() {
            self.written = Some(writer.finish().await);
        }
        let written = self.written;
        written.unwrap_or_else(|| unreachable!("the scenario has written"))
    }

    /// Waits until `/health` names the connector and has all these words in its line.
    pub(crate) async fn unhealthy(&self, words: &[&str]) -> String {
        let name = self.name();
        let words: Vec<&str> = [&[name.as_str()], words].concat();
        let line = self.daemon().unhealthy(&words).await;
        let text = self.config().text("127.0.0.1:0");
        self.looks.borrow_mut().begin(&text, &self.uris);
        line
    }

    /// Waits until `/status` of the connector satisfies `condition`.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        self.daemon().until(&self.name(), what, condition).await
    }

    /// Waits until so many more events are confirmed than now.
    pub(crate) async fn confirms(&self, more: u64) {
        let before = confirmed(&self.connector().await);
        let what = format!("confirms {more} more events");
        self.until(&what, |now| confirmed(now) >= before + more)
            .await;
    }

    /// What the daemon's process takes now.
    pub(crate) fn resources(&self) -> Resources {
        resources(self.daemon().pid)
    }

    /// Whether the connector was ever restarted, and by what: `reason` of the counter, or all.
    pub(crate) async fn restarts(&self, reason: Option<&str>) -> f64 {
        let labels: Vec<(&str, &str)> = reason
            .map(|reason| ("reason", reason))
            .into_iter()
            .collect();
        let metrics = self.daemon().metrics().await;
        metrics.sum("mrcon_task_restarts_total", &labels)
    }

    /// Judges everything since the beginning, against the rules and what may come twice.
    pub(crate) async fn judge(&mut self, allowed: Allowed) -> Figures {
        let written = self.stop_writing().await;
        let truth = self.rig.truth().await;
        self.daemon().confirmed(&self.name(), truth.len()).await;
        self.daemon().healthy().await;
        look_around(&self.rig).await;
        let deliveries = self.deliveries().await;
        // First the writer's word, which explains more than the change stream's.
        let lost = match allowed.order {
            Order::First | Order::FirstOnly => written.lost(&deliveries),
            Order::Last | Order::Any => written.lost(&by_seq(deliveries.clone())),
        };
        let lost = lost.unwrap_or_else(|complaint| panic!("{complaint}"));
        assert_eq!(lost, 0, "events lost, of {}", written.events());
        assert_eq!(
            truth.len(),
            written.events() + self.own_events + 1,
            "MongoDB has other events than were written (and a mark): {:?}",
            written.others(&truth)
        );
        let rules = Rules {
            order: allowed.order,
            ..AT_LEAST_ONCE
        };
        let verdict = self.rig.judge(&truth, &deliveries, rules);
        let bound = bound(&deliveries, &self.kills, allowed.windows);
        assert!(
            verdict.repeats <= bound,
            "{} duplicates, and {bound} are allowed; stored at kills: {:?}, replays: {:?}",
            verdict.repeats,
            self.kills,
            replays(&deliveries)
        );
        Figures {
            events: truth.len(),
            lost,
            duplicates: verdict.repeats,
            bound,
            recovery: self.recovery,
        }
    }

    /// Everything that consumers got, in order.
    async fn deliveries(&mut self) -> Vec<Delivery> {
        let (broker, queue) = (&self.rig.broker, &self.rig.name);
        let rest = match self.consumer.take() {
            Some(consumer) => consumer.finish().await,
            None if self.entry.partitions() > 0 => {
                read_partitions(broker, queue, self.entry.partitions()).await
            }
            None if self.entry.is_over_streams() => stream::read(broker, queue).await,
            None if self.entry.is_stream_queue() => {
                Collector::of_stream(broker, queue).await.finish().await
            }
            None => Collector::drain(broker, queue).await,
        };
        let all = std::mem::take(&mut self.taken).into_iter().chain(rest);
        all.collect()
    }

    /// The end: everything is judged, the daemon stops in order, and nothing is left behind.
    pub(crate) async fn finish(mut self, allowed: Allowed) -> Figures {
        let figures = self.judge(allowed).await;
        self.clear().await;
        figures
    }

    /// The daemon stops in order, and nothing is left behind.
    pub(crate) async fn clear(&mut self) {
        self.stop().await;
        if self.entry.partitions() > 0 {
            let broker = &self.rig.broker;
            let partitions = self.entry.partitions();
            broker.delete_super_stream(&self.rig.name, partitions).await;
        }
        self.rig.clean().await;
    }
}

/// The number of a delivered event.
pub(crate) fn seq(delivery: &Delivery) -> Option<u64> {
    delivery.headers.get("x-mrcon-seq").and_then(Value::as_u64)
}

/// What is in the partitions of a super stream, in which only the order of each is certain.
async fn read_partitions(broker: &Broker, name: &str, count: usize) -> Vec<Delivery> {
    let partitions: Vec<String> = (0..count)
        .map(|number| format!("{name}-{number}"))
        .collect();
    let found = stream::read_all(broker, &partitions).await;
    for partition in &partitions {
        let its = found.iter().filter(|found| found.stream == *partition);
        let numbers: Vec<u64> = its.filter_map(|found| seq(&found.delivery)).collect();
        assert!(!numbers.is_empty(), "{partition} is empty");
        assert!(
            numbers.is_sorted(),
            "{partition} is out of order: {numbers:?}"
        );
    }
    by_seq(found.into_iter().map(|found| found.delivery).collect())
}

/// As a consumer has them that sorts by number.
fn by_seq(mut deliveries: Vec<Delivery>) -> Vec<Delivery> {
    deliveries.sort_by_key(seq);
    deliveries
}

/// Where the deliveries go back: from which number to which.
fn replays(deliveries: &[Delivery]) -> Vec<(u64, u64)> {
    let numbers: Vec<u64> = deliveries.iter().filter_map(seq).collect();
    let steps = numbers.windows(2).filter(|pair| pair[1] <= pair[0]);
    steps.map(|pair| (pair[0], pair[1])).collect()
}

/// How many may come twice. A kill of the daemon: what was published after the stored position. Any other
/// incident: a window.
fn bound(deliveries: &[Delivery], kills: &[u64], incidents: usize) -> usize {
    let mut kills = kills.iter().copied().peekable();
    let mut after_kills = 0;
    for (last, first) in replays(deliveries) {
        // The kill that this replay follows begins right behind its stored position, or, where a save
        // was on its way, a little later.
        if let Some(saved) = kills.find(|saved| *saved < first) {
            after_kills += last - saved.min(last);
        }
    }
    after_kills as usize + incidents * WINDOW
}

/// What a process takes, and has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Resources {
    pub(crate) memory_bytes: u64,
    pub(crate) files: usize,
    pub(crate) threads: usize,
    /// Of all its threads since it began.
    pub(crate) cpu: Duration,
}

/// What the process takes now.
pub(crate) fn resources(pid: u32) -> Resources {
    let read = |path: &str| {
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let status = read(&format!("/proc/{pid}/status"));
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name));
        let number = value.and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok());
        number.unwrap_or_else(|| panic!("no {name} in {status}"))
    };
    let files = std::fs::read_dir(format!("/proc/{pid}/fd"));
    // The fields behind the name, which may have anything in it; a tick is 10 ms everywhere.
    let stat = read(&format!("/proc/{pid}/stat"));
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = behind_name.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Resources {
        memory_bytes: field("VmRSS:") << 10,
        files: files.map(Iterator::count).unwrap_or_default(),
        threads: field("Threads:") as usize,
        cpu: Duration::from_millis(ticks * 10),
    }
}
