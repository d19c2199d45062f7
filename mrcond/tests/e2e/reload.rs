//! Another configuration while the daemon runs: by SIGHUP, and by a change of the file.

use crate::common::config::{Config, Entry};
use crate::common::daemon::Daemon;
use crate::common::load::{self, Load};
use crate::common::metrics::Metrics;
use crate::common::oracle::{AT_LEAST_ONCE, NOTHING_TWICE};
use crate::common::rabbit::Collector;
use crate::common::rig::Rig;
use crate::common::wait::{PATIENTLY, eventually};
use serde_json::{Value, json};
use std::time::Duration;

/// About 2,000 events a second for each of two connectors.
const LOAD: Duration = Duration::from_millis(45);

pub(crate) async fn start(rig: &Rig, config: &Config) -> Daemon {
    let mut daemon = Daemon::spawn(config, &rig.uris());
    daemon.ready().await;
    daemon
}

/// Waits until so many reloads came to an end, and returns what `/status` says of the last.
pub(crate) async fn reloaded(daemon: &Daemon, count: f64) -> Value {
    daemon
        .until_metrics(&format!("{count} reloads"), |metrics| {
            metrics.sum("mrcon_config_reloads_total", &[]) >= count
        })
        .await;
    daemon.status().await["config"]["last_reload"].clone()
}

/// Reloads `config`, which has to be applied.
pub(crate) async fn apply(daemon: &Daemon, config: &Config, count: f64) -> String {
    daemon.rewrite(config);
    daemon.signal("HUP").await;
    let last = reloaded(daemon, count).await;
    assert_eq!(last["result"], "applied", "{last}");
    last["detail"].as_str().unwrap_or_default().to_owned()
}

pub(crate) fn names(status: &Value) -> Vec<&str> {
    let connectors = status["connectors"].as_array().unwrap();
    let names = connectors.iter().map(|one| one["name"].as_str().unwrap());
    names.collect()
}

#[tokio::test]
async fn unchanged_connector_is_touched_or_a_changed_one_loses_events() {
    let rig = Rig::new("reload").await;
    let queue = |name: &str| format!("{}-{name}", rig.name);
    let same = rig.entry();
    let old = rig.entry_for("carts", &queue("carts"));
    let gone = rig.entry_for("gone", &queue("gone"));
    let added = rig.entry_for("added", &queue("added"));
    let daemon = start(
        &rig,
        &Config::new([same.clone(), old.clone(), gone.clone()]),
    )
    .await;
    let loads = ["orders", "carts"].map(|name| Load::start(&rig.collection_named(name), 0, LOAD));
    for entry in [&same, &old] {
        daemon.goes_on(&entry.name()).await;
    }
    let before = daemon.connector(&same.name()).await;
    let epoch = daemon.connector(&old.name()).await["checkpoint"]["epoch"].clone();

    let new = old.clone().with("rabbitmq.max_unconfirmed", 77);
    let config = Config::new([added.clone(), new.clone(), same.clone()]);
    let detail = apply_over_removal(&daemon, &config, None).await;
    for part in ["1 unchanged, 1 changed, 1 added", "1 removed", &gone.name()] {
        assert!(detail.contains(part), "{part}: {detail}");
    }
    let status = daemon.status().await;
    assert_eq!(names(&status), [added.name(), new.name(), same.name()]);
    for entry in [&same, &new] {
        daemon.goes_on(&entry.name()).await;
    }
    load::insert(&rig.collection_named("added"), 0, 5).await;
    daemon
        .until(&added.name(), "delivers", |now| {
            now["positions"]["confirmed"] == 5
        })
        .await;

    let after = daemon.connector(&same.name()).await;
    for key in ["mongodb_reconnects", "rabbitmq_reconnects", "restarts"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    assert_eq!(after["checkpoint"]["epoch"], before["checkpoint"]["epoch"]);
    let changed = daemon.connector(&new.name()).await;
    assert_eq!(changed["window"]["max_messages"], 77);
    assert_eq!(
        changed["checkpoint"]["epoch"].as_u64(),
        epoch.as_u64().map(|epoch| epoch + 1)
    );
    // What it did before counts on.
    let totals = &changed["totals"]["events_confirmed"];
    assert!(
        totals.as_u64() >= changed["positions"]["confirmed"].as_u64(),
        "{changed}"
    );
    let metrics = daemon.get("/metrics").await.body;
    let metrics = Metrics::parse(&metrics).unwrap();
    assert!(
        !metrics
            .family("mrcon_gaps_total")
            .label_values("collection")
            .contains("gone")
    );
    assert_eq!(metrics.value("mrcon_configured_connectors", &[]), Some(3.0));
    assert_eq!(metrics.value("mrcon_running_servers_total", &[]), Some(3.0));
    daemon.healthy().await;

    for load in loads {
        load.finish().await;
    }
    for (entry, name, queue) in [
        (&same, "orders", rig.name.clone()),
        (&new, "carts", queue("carts")),
    ] {
        let collection = rig.collection_named(name);
        let truth = rig.truth_of(&collection, &Default::default()).await;
        daemon.confirmed(&entry.name(), truth.len()).await;
        let deliveries = Collector::drain(&rig.broker, &queue).await;
        assert_eq!(rig.judge(&truth, &deliveries, AT_LEAST_ONCE), NOTHING_TWICE);
    }
    assert_eq!(daemon.terminate().await.code, Some(0));
    for name in ["carts", "gone", "added"] {
        rig.broker.delete(&queue(name)).await;
    }
    rig.clean().await;
}

/// Reloads `config`, which has to be applied, over a reload whose report has the words `before`. Counters of a
/// connector that is no more go away, which the daemon's other scrapes would take for
/// counters that go back.
pub(crate) async fn apply_over_removal(
    daemon: &Daemon,
    config: &Config,
    before: Option<&str>,
) -> String {
    daemon.rewrite(config);
    daemon.signal("HUP").await;
    let last = eventually(PATIENTLY, "the reload is applied", async || {
        let last = daemon.status().await["config"]["last_reload"].clone();
        let detail = last["detail"].as_str();
        match detail.is_none() || before.is_some_and(|old| detail.unwrap_or_default().contains(old))
        {
            true => Err("none yet".to_owned()),
            false => Ok(last),
        }
    })
    .await;
    assert_eq!(last["result"], "applied", "{last}");
    last["detail"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn bad_file_ends_what_runs_or_is_not_told() {
    let rig = Rig::new("reload-bad").await;
    let entry = rig.entry();
    let config = Config::new([entry.clone()]);
    let daemon = start(&rig, &config).await;
    load::insert(&rig.collection(), 0, 10).await;
    daemon.confirmed(&entry.name(), 10).await;
    let before = daemon.connector(&entry.name()).await;
    let loaded_at = daemon.status().await["config"]["loaded_at"].clone();

    let changed = entry.clone().with("rabbitmq.max_unconfirmed", 77);
    let misspelt = changed.clone().with("rabbitmq.max_unconfirmd", 1);
    let nobody = "/nowhere/at/all";
    let hash = json!([{"path": "customer", "action": "hash", "key_file": nobody}]);
    let elsewhere = Config::new([changed.clone()]).with_server("memory_budget", "64MiB");
    let texts = [
        (Some("collections: [".to_owned()), ":2: not valid YAML"),
        (
            Some(daemon.text(&Config::new([misspelt]))),
            "max_unconfirmd",
        ),
        (Some(daemon.text(&elsewhere)), "server.memory_budget"),
        (
            Some(daemon.text(&Config::new([changed.clone().with("mask", hash)]))),
            nobody,
        ),
        (None, "No such file"),
    ];
    let count = texts.len();
    for (index, (text, place)) in texts.into_iter().enumerate() {
        daemon.rewrite_as(text.as_deref());
        daemon.signal("HUP").await;
        let last = reloaded(&daemon, (index + 1) as f64).await;
        assert_eq!(last["result"], "refused", "{place}: {last}");
        assert!(
            last["detail"].as_str().unwrap().contains(place),
            "{place}: {last}"
        );
        let log = daemon.log();
        let told: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("not reloaded"))
            .collect();
        assert_eq!(told.len(), index + 1, "{log}");
        assert!(told[index].contains(place), "{place}: {}", told[index]);
    }
    let metrics = daemon.metrics().await;
    let refused = metrics.value("mrcon_config_reloads_total", &[("result", "refused")]);
    assert_eq!(refused, Some(count as f64));
    assert_eq!(
        metrics.value("mrcon_config_last_reload_successful", &[]),
        Some(0.0)
    );
    assert_eq!(daemon.status().await["config"]["loaded_at"], loaded_at);
    let now = daemon.connector(&entry.name()).await;
    assert_eq!(now["window"], before["window"]);
    assert_eq!(now["checkpoint"]["epoch"], before["checkpoint"]["epoch"]);

    // The next good one counts.
    apply(&daemon, &Config::new([changed]), (count + 1) as f64).await;
    let metrics = daemon.metrics().await;
    assert_eq!(
        metrics.value("mrcon_config_last_reload_successful", &[]),
        Some(1.0)
    );
    let now = daemon.connector(&entry.name()).await;
    assert_eq!(now["window"]["max_messages"], 77);
    assert_eq!(
        rig.judge_all(&daemon, &entry, AT_LEAST_ONCE).await,
        NOTHING_TWICE
    );
    rig.clean().await;
}

#[tokio::test]
async fn two_sighups_at_once_or_one_during_a_stop_break_the_order() {
    let rig = Rig::new("reload-twice").await;
    let entry = rig.entry();
    let with = |window: u64| Config::new([entry.clone().with("rabbitmq.max_unconfirmed", window)]);
    let daemon = start(&rig, &with(500)).await;
    let load = Load::start(&rig.collection(), 0, LOAD);
    daemon.goes_on(&entry.name()).await;
    daemon.rewrite(&with(60));
    daemon.signal("HUP").await;
    daemon.signal("HUP").await;
    let name = entry.name();
    let has = |window: u64| move |now: &Value| now["window"]["max_messages"] == window;
    daemon.until(&name, "has the new window", has(60)).await;
    // A third one while the second may still be on its way.
    daemon.rewrite(&with(70));
    daemon.signal("HUP").await;
    daemon.until(&name, "has the newest window", has(70)).await;
    daemon.goes_on(&name).await;
    daemon.rewrite(&with(80));
    daemon.signal("TERM").await;
    daemon.signal("HUP").await;
    let ended = daemon.end(Duration::from_secs(60)).await;
    assert_eq!(ended.code, Some(0), "{:?}\n{}", ended.status, ended.log);
    // The other way round the stop comes into the middle of the change.
    let daemon = start(&rig, &with(500)).await;
    daemon.goes_on(&name).await;
    daemon.rewrite(&with(80));
    daemon.signal("HUP").await;
    daemon.signal("TERM").await;
    let ended = daemon.end(Duration::from_secs(60)).await;
    assert_eq!(ended.code, Some(0), "{:?}\n{}", ended.status, ended.log);
    load.finish().await;
    let daemon = start(&rig, &with(500)).await;
    assert_eq!(
        rig.judge_all(&daemon, &entry, AT_LEAST_ONCE).await,
        NOTHING_TWICE
    );
    rig.clean().await;
}

#[tokio::test]
async fn changed_file_is_not_noticed_or_many_more_connectors_get_no_connection() {
    let rig = Rig::new("reload-watch").await;
    let first = rig.entry();
    let uris = rig.uris();
    let variables = [
        ("MRCON_MONGO_URI", uris.mongo.as_str()),
        ("MRCON_RABBITMQ_URI", &uris.rabbit),
    ];
    let config = Config::new([first.clone()]);
    let mut daemon = Daemon::spawn_with(&config, &variables, &["run", "--watch-config"]);
    daemon.ready().await;
    let queue = |number: usize| format!("{}-{number}", rig.name);
    let name = |number: usize| format!("c{number}");
    let many = (0..20).map(|number| rig.entry_for(&name(number), &queue(number)));
    let many: Vec<Entry> = std::iter::once(first.clone()).chain(many).collect();
    daemon.rewrite(&Config::new(many.clone()));
    let last = reloaded(&daemon, 1.0).await;
    assert_eq!(last["result"], "applied", "{last}");
    daemon.ready().await;
    for number in 0..20 {
        load::insert(&rig.collection_named(&name(number)), 0, 1).await;
    }
    for entry in &many[1..] {
        daemon.confirmed(&entry.name(), 1).await;
    }
    load::insert(&rig.collection(), 0, 1).await;
    daemon.confirmed(&first.name(), 1).await;
    daemon.healthy().await;
    for number in 0..20 {
        rig.broker.delete(&queue(number)).await;
    }
    rig.clean().await;
}
