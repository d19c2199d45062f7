//! Another configuration while something is wrong, and for connectors of every kind.

use crate::common::config::{Config, Entry};
use crate::common::daemon::Daemon;
use crate::common::load::{self, Load};
use crate::common::metrics::Metrics;
use crate::common::mongo::Mongo;
use crate::common::oracle::{AT_LEAST_ONCE, FIRST_IN_ORDER, NOTHING_TWICE, Rules};
use crate::common::rabbit::{Broker, Collector};
use crate::common::rig::Rig;
use crate::common::stream::{self, SELDOM, resets};
use crate::common::truth::Of;
use crate::common::wait::{SOON, eventually};
use crate::reload::{apply, apply_over_removal, names, reloaded, start};
use serde_json::{Value, json};
use std::time::Duration;

const LOAD: Duration = Duration::from_millis(60);
/// In flight at most.
const WINDOW: u64 = 500;

/// A connector that stays as it is and one that changes, under load.
struct Two {
    rig: Rig,
    same: Entry,
    old: Entry,
    new: Entry,
    daemon: Daemon,
    loads: [Load; 2],
}

impl Two {
    async fn start(broker: &Broker, label: &str) -> Two {
        let rig = Rig::on(&Mongo::shared().await, broker, label).await;
        let same = rig.entry().with("rabbitmq.max_unconfirmed", WINDOW);
        let old = rig
            .entry_for("carts", &format!("{}-carts", rig.name))
            .with("rabbitmq.max_unconfirmed", WINDOW);
        let new = old.clone().with("rabbitmq.max_unconfirmed", 77);
        let config = Two::config([&same, &old]);
        let daemon = start(&rig, &config).await;
        let loads =
            ["orders", "carts"].map(|name| Load::start(&rig.collection_named(name), 0, LOAD));
        for entry in [&same, &old] {
            daemon.goes_on(&entry.name()).await;
        }
        Two {
            rig,
            same,
            old,
            new,
            daemon,
            loads,
        }
    }

    fn config(entries: [&Entry; 2]) -> Config {
        Config::new(entries.map(Clone::clone)).with_server("shutdown_timeout", "3s")
    }

    /// The reload comes to its end although RabbitMQ takes nothing, and leaves the other connector alone.
    async fn apply(&self) {
        let before = self.daemon.connector(&self.same.name()).await;
        let detail = apply(&self.daemon, &Two::config([&self.same, &self.new]), 1.0).await;
        assert!(detail.contains("1 unchanged, 1 changed"), "{detail}");
        let after = self.daemon.connector(&self.same.name()).await;
        let epoch = |connector: &Value| connector["checkpoint"]["epoch"].clone();
        if before["state"] == "blocked" {
            assert_eq!(after["state"], "blocked");
            assert_eq!(epoch(&after), epoch(&before));
        }
        let changed = self.daemon.connector(&self.new.name()).await;
        assert_eq!(changed["window"]["max_messages"], 77);
    }

    /// Nothing is lost, and what comes twice was in flight at an incident.
    async fn finish(self, incidents: usize, rules: Rules) {
        for entry in [&self.same, &self.new] {
            self.daemon.goes_on(&entry.name()).await;
        }
        for load in self.loads {
            load.finish().await;
        }
        let carts = format!("{}-carts", self.rig.name);
        for (entry, name, queue) in [
            (&self.same, "orders", &self.rig.name),
            (&self.new, "carts", &carts),
        ] {
            let collection = self.rig.collection_named(name);
            let truth = self.rig.truth_of(&collection, &Default::default()).await;
            self.daemon.confirmed(&entry.name(), truth.len()).await;
            let deliveries = Collector::drain(&self.rig.broker, queue).await;
            let verdict = self.rig.judge(&truth, &deliveries, rules);
            let bound = incidents * WINDOW as usize;
            assert!(verdict.repeats <= bound, "{name}: {verdict:?}");
        }
        self.daemon.healthy().await;
        assert_eq!(self.daemon.terminate().await.code, Some(0));
        self.rig.broker.delete(&carts).await;
        self.rig.clean().await;
    }
}

#[tokio::test]
async fn reload_waits_for_ever_for_a_broker_that_is_blocked_or_loses_what_was_in_flight() {
    let broker = Broker::private().await;
    let two = Two::start(&broker, "reload-blocked").await;
    broker.block().await;
    for entry in [&two.same, &two.old] {
        let is_blocked = |now: &Value| now["state"] == "blocked";
        two.daemon
            .until(&entry.name(), "is blocked", is_blocked)
            .await;
    }
    two.apply().await;
    // Its successor meets the same alarm.
    two.daemon
        .unhealthy(&[&two.new.name(), "memory", "remedy: "])
        .await;
    // It had not read all that the former sent, and takes it between the messages of the successor.
    broker.unblock().await;
    two.finish(1, FIRST_IN_ORDER).await;
}

#[tokio::test]
async fn second_signal_waits_for_what_cannot_be_confirmed() {
    let broker = Broker::private().await;
    let rig = Rig::on(&Mongo::shared().await, &broker, "twice").await;
    let entry = rig.entry();
    let config = Config::new([entry.clone()]).with_server("shutdown_timeout", "10m");
    let daemon = start(&rig, &config).await;
    let load = Load::start(&rig.collection(), 0, LOAD);
    broker.block().await;
    let is_stuck = |now: &Value| now["state"] == "blocked" && now["window"]["messages"] != 0;
    daemon
        .until(&entry.name(), "has messages in flight", is_stuck)
        .await;
    daemon.signal("TERM").await;
    let told = "finishing what is in flight, within 600 s";
    eventually(SOON, told, async || {
        let log = daemon.log();
        log.contains(told).then_some(()).ok_or(log)
    })
    .await;
    daemon.signal("INT").await;
    let ended = daemon.end(SOON).await;
    assert_eq!(ended.code, Some(1), "{}", ended.log);
    assert!(
        ended.log.contains("SIGINT again: ends at once"),
        "{}",
        ended.log
    );
    broker.unblock().await;
    // Nothing is lost by it.
    let daemon = start(&rig, &config).await;
    load.finish().await;
    rig.judge_all(&daemon, &entry, FIRST_IN_ORDER).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.clean().await;
}

#[tokio::test]
async fn reload_waits_for_a_broker_that_is_away_or_loses_what_was_in_flight() {
    let mut broker = Broker::private().await;
    let two = Two::start(&broker, "reload-away").await;
    for queue in [&two.rig.name, &format!("{}-carts", two.rig.name)] {
        broker.knows_classic_for_good(queue).await;
    }
    broker.kill().await;
    for entry in [&two.same, &two.old] {
        two.daemon.unhealthy(&[&entry.name(), "restarting"]).await;
    }
    two.apply().await;
    two.daemon
        .unhealthy(&[&two.new.name(), "restarting", "remedy: check that RabbitMQ"])
        .await;
    broker.restart().await;
    two.finish(2, AT_LEAST_ONCE).await;
}

#[tokio::test]
async fn reload_of_a_connector_of_the_stream_protocol_brings_events_twice() {
    let rig = Rig::new("reload-stream").await;
    let old = stream::entry(&rig).with("resume_tokens.save_interval", SELDOM);
    let daemon = start(&rig, &Config::new([old.clone()])).await;
    let load = Load::start(&rig.collection(), 0, LOAD);
    let mut new = old;
    for (count, window) in [(1.0, 77), (2.0, 300)] {
        daemon.goes_on(&new.name()).await;
        new = new.with("rabbitmq.max_unconfirmed", window);
        let detail = apply(&daemon, &Config::new([new.clone()]), count).await;
        assert!(detail.contains("0 unchanged, 1 changed"), "{detail}");
        let changed = daemon.connector(&new.name()).await;
        assert_eq!(changed["window"]["max_messages"], window);
    }
    daemon.goes_on(&new.name()).await;
    load.finish().await;
    let truth = rig.truth().await;
    daemon.confirmed(&new.name(), truth.len()).await;
    assert!(resets(&daemon).await.is_empty());
    let deliveries = stream::read(&rig.broker, &rig.name).await;
    stream::judge(&rig, &truth, &deliveries);
    daemon.healthy().await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.clean().await;
}

#[tokio::test]
async fn reload_of_a_whole_database_loses_events_or_its_collections() {
    let rig = Rig::new("reload-database").await;
    let queue = |name: &str| format!("{}-{name}", rig.name);
    let old = rig.entry_for("*", &queue("all"));
    let daemon = start(&rig, &Config::new([old.clone()])).await;
    let loads = ["orders", "carts"].map(|name| Load::start(&rig.collection_named(name), 0, LOAD));
    daemon.goes_on(&old.name()).await;
    let counted = |metrics: &Metrics, name: &str| {
        let labels = [("collection", name), ("database", rig.name.as_str())];
        metrics.sum("mrcon_events_confirmed_total", &labels)
    };
    let before = daemon.metrics().await;
    let new = old.clone().with("rabbitmq.max_unconfirmed", 77);
    // Beside it, from now on, one of its collections by itself.
    let own = rig.entry_for("carts", &queue("carts"));
    let both = Config::new([new.clone(), own.clone()]);
    let detail = apply(&daemon, &both, 1.0).await;
    for part in ["0 unchanged, 1 changed, 1 added", "0 removed"] {
        assert!(detail.contains(part), "{detail}");
    }
    for entry in [&new, &own] {
        daemon.goes_on(&entry.name()).await;
    }
    for name in ["orders", "carts"] {
        let (before, after) = (
            counted(&before, name),
            counted(&daemon.metrics().await, name),
        );
        assert!(after >= before && before > 0.0, "{name}: {before} {after}");
    }
    // And without it.
    apply_over_removal(&daemon, &Config::new([new.clone()]), Some("1 added")).await;
    assert_eq!(names(&daemon.status().await), [new.name()]);
    // What the connector that is gone had for itself is gone from the metrics.
    let scrape = async || Metrics::parse(&daemon.get("/metrics").await.body).unwrap();
    let before = scrape().await;
    daemon.goes_on(&new.name()).await;
    for name in ["orders", "carts"] {
        let (before, after) = (counted(&before, name), counted(&scrape().await, name));
        assert!(after > before && before > 0.0, "{name}: {before} {after}");
    }
    for load in loads {
        load.finish().await;
    }
    let of = Of::Database(rig.client.database(&rig.name));
    let truth = rig.whole_truth(&of).await;
    daemon.confirmed(&new.name(), truth.len()).await;
    let deliveries = Collector::drain(&rig.broker, &queue("all")).await;
    assert_eq!(rig.judge(&truth, &deliveries, AT_LEAST_ONCE), NOTHING_TWICE);
    daemon.healthy().await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    for name in ["all", "carts"] {
        rig.broker.delete(&queue(name)).await;
    }
    rig.clean().await;
}

#[tokio::test]
async fn changed_topology_is_not_declared_or_a_wrong_one_cannot_be_taken_back() {
    let rig = Rig::new("reload-topology").await;
    let exchange = format!("{}-events", rig.name);
    let queue = |name: &str| format!("{}-{name}", rig.name);
    let with = |queues: Value| {
        let names: Vec<Value> = queues.as_array().unwrap().clone();
        let bindings = names
            .iter()
            .map(|queue| json!({"from": exchange, "to": queue["name"], "routing_key": "#"}));
        json!({
            "exchanges": [{"name": exchange}], "queues": queues,
            "bindings": bindings.collect::<Vec<_>>(),
        })
    };
    let entry = rig
        .entry_for("orders", "")
        .with("rabbitmq.exchange", exchange.as_str());
    let first = json!({"name": queue("first"), "type": "classic"});
    let second = json!({"name": queue("second"), "type": "classic"});
    let config = |topology: Value| Config::new([entry.clone()]).with_topology(topology);
    let good = config(with(json!([first])));
    let daemon = start(&rig, &good).await;
    load::insert(&rig.collection(), 0, 10).await;
    daemon.confirmed(&entry.name(), 10).await;
    // A queue more, which gets what comes from then on.
    let more = config(with(json!([first, second])));
    let detail = apply(&daemon, &more, 1.0).await;
    assert!(detail.contains("1 changed"), "{detail}");
    let mut daemon = daemon;
    daemon.ready().await;
    load::insert(&rig.collection(), 10, 10).await;
    daemon.confirmed(&entry.name(), 20).await;
    assert_eq!(rig.broker.ready(&queue("second")).await, Ok(10));
    // One that is otherwise in RabbitMQ.
    let other = json!({"name": queue("second"), "type": "classic", "max_length": 5});
    apply(&daemon, &config(with(json!([first, other]))), 2.0).await;
    let words = ["halted", "x-max-length", "mrcond topology plan"];
    daemon
        .unhealthy(&[&[entry.name().as_str()], &words[..]].concat())
        .await;
    load::insert(&rig.collection(), 20, 10).await;
    // Taken back.
    apply(&daemon, &more, 3.0).await;
    daemon.ready().await;
    let truth = rig.truth().await;
    daemon.confirmed(&entry.name(), truth.len()).await;
    daemon.healthy().await;
    let deliveries = Collector::drain(&rig.broker, &queue("first")).await;
    assert_eq!(rig.judge(&truth, &deliveries, AT_LEAST_ONCE), NOTHING_TWICE);
    // A topology that is no topology is refused as a whole.
    let wrong = json!([first, {"name": queue("second"), "type": "classical"}]);
    daemon.rewrite(&config(with(wrong)));
    daemon.signal("HUP").await;
    let last = reloaded(&daemon, 4.0).await;
    assert_eq!(last["result"], "refused", "{last}");
    daemon.healthy().await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    for name in ["first", "second"] {
        rig.broker.delete(&queue(name)).await;
    }
    rig.broker.delete_exchange(&exchange).await;
    rig.clean().await;
}
