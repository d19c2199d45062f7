//! A queue, an exchange or a message is not as it should be: F28 to F35.

use crate::common::load;
use crate::common::mongo::Mongo;
use crate::common::oracle::{AT_LEAST_ONCE, Order, Rules};
use crate::common::proxy::{Line, Proxy, Way};
use crate::common::rabbit::{Broker, Collector, Delivery};
use crate::common::stream::{self, resets, warnings};
use crate::common::truth::Event;
use crate::common::wait::{PATIENTLY, eventually};
use crate::harness::{Case, Figures, Scenario, scenario};
use crate::servers::proxied;
use crate::trial::{Allowed, NOTHING, Trial, WINDOW, seq, windows};
use crate::writer::STEADY;
use amqprs::FieldValue;
use bson::{Bson, doc};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario!(f28_queue_is_deleted),
    scenario!(f28b_queue_is_deleted_and_not_to_be_declared),
    scenario!(f28s_stream_is_deleted),
    scenario!(f29_exchange_is_deleted),
    scenario!(f29e_exchange_of_the_events_is_deleted),
    scenario!(f31_full_queue_refuses),
    scenario!(f31q_full_queue_refuses),
    scenario!(f32_full_queue_drops),
    scenario!(f33_queue_is_not_as_declared, fast),
    scenario!(f35_message_is_too_big),
];

fn restarts(connector: &Value) -> u64 {
    connector["restarts"].as_u64().unwrap_or_default()
}

fn confirmed(connector: &Value) -> usize {
    crate::common::daemon::confirmed(connector) as usize
}

async fn classic(case: &Case) -> Trial {
    Trial::on(case, &Mongo::shared().await, &Broker::shared().await).await
}

/// Judges all events but those with these numbers, which are elsewhere; how many messages came twice.
fn judge_without(
    trial: &Trial,
    truth: &[Event],
    deliveries: &[Delivery],
    elsewhere: &BTreeSet<usize>,
    order: Order,
) -> usize {
    let number = |delivery: &Delivery| seq(delivery).unwrap_or_default() as usize;
    for delivery in deliveries {
        let number = number(delivery);
        assert!((1..=truth.len()).contains(&number), "invented: {number}");
        assert!(!elsewhere.contains(&number), "event {number} is here, too");
    }
    let mut repeats = 0;
    let ends = elsewhere.iter().copied().chain([truth.len() + 1]);
    let mut first = 1;
    for end in ends {
        let inside = |delivery: &&Delivery| (first..end).contains(&number(delivery));
        let its: Vec<Delivery> = deliveries.iter().filter(inside).cloned().collect();
        let rules = Rules {
            order,
            first_seq: first as u64,
            ..AT_LEAST_ONCE
        };
        repeats += trial
            .rig
            .judge(&truth[first - 1..end - 1], &its, rules)
            .repeats;
        first = end + 1;
    }
    repeats
}

/// Deletes the queue under load in a moment in which the consumer has got everything that is in it, and nothing
/// is on the way into it: RabbitMQ confirms what is, and it is gone with the queue. What the connector sends
/// meanwhile waits in the network, and finds no queue any more.
async fn delete_queue(trial: &mut Trial, proxy: &Proxy) {
    proxy.set(Way::ToServer, Line::Silent);
    let received = || trial.consumer.as_ref().map_or(0, Collector::count);
    let mut before = None;
    eventually(PATIENTLY, "nothing is on the way", async || {
        let now = (received(), confirmed(&trial.connector().await));
        let since = *before.get_or_insert_with(|| (now, Instant::now()));
        match now.0 == now.1 && now == since.0 {
            true if since.1.elapsed() > A_WHILE => Ok(()),
            true => Err(format!("{now:?}")),
            false => {
                before = None;
                Err(format!("{now:?}"))
            }
        }
    })
    .await;
    trial.rig.broker.delete_while_empty(&trial.rig.name).await;
    if let Some(consumer) = trial.consumer.take() {
        trial.taken = consumer.cancelled().await;
    }
    proxy.heal();
}

/// A broker that has confirmed nothing for so long has nothing to confirm.
const A_WHILE: Duration = Duration::from_millis(500);

/// A queue is deleted that the connector may declare.
async fn f28_queue_is_deleted(case: Case) -> Figures {
    let mut trial = classic(&case).await;
    let (proxy, uri) = proxied(&trial.uris.rabbit);
    trial.uris.rabbit = uri;
    trial.start().await;
    trial.consumer = Some(Collector::start(&trial.rig.broker, &trial.rig.name).await);
    trial.write(STEADY);
    trial.flows().await;
    delete_queue(&mut trial, &proxy).await;
    trial.recovers(Instant::now()).await;
    assert!(trial.restarts(Some("publish_unroutable")).await >= 1.0);
    let metrics = trial.daemon().metrics().await;
    assert_eq!(metrics.sum("mrcon_queues_lost_total", &[]), 1.0);
    let log = trial.daemon().log();
    assert_eq!(log.matches("the queue was gone with").count(), 1);
    // What was returned was in no queue.
    trial.finish(NOTHING).await
}

/// A queue is deleted that is the operator's: `/health` says so until it is there again.
async fn f28b_queue_is_deleted_and_not_to_be_declared(case: Case) -> Figures {
    let mut trial = classic(&case).await.with("rabbitmq.declare", false);
    let name = trial.rig.name.clone();
    let (proxy, uri) = proxied(&trial.uris.rabbit);
    trial.uris.rabbit = uri;
    trial.rig.broker.declare(&name, &[]).await;
    trial.start().await;
    trial.consumer = Some(Collector::start(&trial.rig.broker, &name).await);
    trial.write(STEADY);
    trial.flows().await;
    delete_queue(&mut trial, &proxy).await;
    trial
        .unhealthy(&["restarting", "remedy: create the queue"])
        .await;
    trial.rig.broker.declare(&name, &[]).await;
    trial.recovers(Instant::now()).await;
    trial.finish(NOTHING).await
}

/// A stream is deleted with all that is in it, which is the operator's will; what it had not confirmed goes into
/// the next one.
async fn f28s_stream_is_deleted(case: Case) -> Figures {
    let mut trial = classic(&case).await.with("rabbitmq.protocol", "stream");
    trial.begin(STEADY).await;
    let fault = Instant::now();
    trial.rig.broker.delete(&trial.rig.name).await;
    let gone = trial
        .until("sees that it is gone", |now| restarts(now) > 0)
        .await;
    trial.recovers(fault).await;
    trial.flows().await;
    let written = trial.stop_writing().await;
    let truth = trial.rig.truth().await;
    assert_eq!(truth.len(), written.events() + 1);
    trial.daemon().confirmed(&trial.name(), truth.len()).await;
    trial.daemon().healthy().await;
    let deliveries = stream::read(&trial.rig.broker, &trial.rig.name).await;
    let first = deliveries.first().and_then(seq).unwrap_or_default() as usize;
    assert!(
        first <= confirmed(&gone) + 1,
        "event {first} is the first one, and no more than {gone} was confirmed"
    );
    let elsewhere = (1..first).collect();
    let duplicates = judge_without(&trial, &truth, &deliveries, &elsewhere, Order::First);
    assert_eq!(duplicates, 0);
    let told = resets(trial.daemon()).await;
    assert_eq!(told.get("stream_lost"), Some(&1.0), "{told:?}");
    assert_eq!(warnings(trial.daemon(), "stream_lost"), 1);
    trial.clear().await;
    Figures {
        events: truth.len(),
        duplicates,
        ..trial.figures()
    }
}

/// Documents that are large enough to be put aside, with `_id`s that begin with this.
const BIG: &str = "big-";

fn is_big(event: &Event) -> bool {
    matches!(event.key(), Some(Bson::String(id)) if id.starts_with(BIG))
}

async fn insert_big(trial: &Trial, number: usize, bytes: usize) {
    let big = doc! {"_id": format!("{BIG}{number}"), "text": "x".repeat(bytes)};
    let inserted = trial.collection().insert_one(big).await;
    inserted.unwrap_or_else(|error| panic!("insert a big document: {error}"));
}

/// Where events go that are too big.
fn aside(trial: &Trial) -> String {
    format!("{}.dead", trial.rig.name)
}

/// The end of a scenario in which the big ones went another way; returns also all messages, in two parts.
async fn judge_all_but_big(
    trial: &mut Trial,
    allowed: Allowed,
) -> (Figures, Vec<Event>, Vec<Delivery>) {
    let written = trial.stop_writing().await;
    let truth = trial.rig.truth().await;
    trial.daemon().confirmed(&trial.name(), truth.len()).await;
    trial.daemon().healthy().await;
    let deliveries = Collector::drain(&trial.rig.broker, &trial.rig.name).await;
    let big: BTreeSet<usize> = (1..)
        .zip(&truth)
        .filter(|(_, event)| is_big(event))
        .map(|(number, _)| number)
        .collect();
    let is_aside = |delivery: &Delivery| {
        let number = seq(delivery).unwrap_or_default() as usize;
        big.contains(&number)
    };
    let (aside, deliveries): (Vec<Delivery>, Vec<Delivery>) =
        deliveries.into_iter().partition(is_aside);
    assert_eq!(written.lost(&deliveries), Ok(0));
    let duplicates = judge_without(trial, &truth, &deliveries, &big, allowed.order);
    let bound = allowed.windows * WINDOW;
    assert!(duplicates <= bound, "{duplicates} duplicates");
    let figures = Figures {
        events: truth.len(),
        duplicates,
        bound,
        ..trial.figures()
    };
    let big = truth.into_iter().filter(is_big).collect();
    (figures, big, aside)
}

/// What was put aside is what should be, each event at least once.
async fn judge_aside(trial: &Trial, big: &[Event], reason: &str) {
    let letters = Collector::drain(&trial.rig.broker, &aside(trial)).await;
    let ids: BTreeSet<&str> = letters.iter().map(|letter| letter.id.as_str()).collect();
    let expected: BTreeSet<&str> = big.iter().map(Event::token).collect();
    assert_eq!(ids, expected);
    for letter in &letters {
        assert_eq!(letter.headers["x-mrcon-dead-reason"], reason);
    }
    trial.rig.broker.delete(&aside(trial)).await;
}

/// Events go to the default exchange, which RabbitMQ does not let anybody delete. Dead letters may go to
/// another one: while that is gone, the connector steps over nothing.
async fn f29_exchange_is_deleted(case: Case) -> Figures {
    let mut trial = classic(&case).await;
    let (exchange, queue) = (format!("{}.exchange", trial.rig.name), aside(&trial));
    trial = trial
        .with("rabbitmq.max_message_bytes", 4096)
        .with("rabbitmq.on_oversize", "dead_letter")
        .with("rabbitmq.dead_letter", json!({"exchange": exchange}));
    let broker = trial.rig.broker.clone();
    broker.declare(&queue, &[]).await;
    broker.declare_exchange(&exchange, &queue).await;
    trial.begin(STEADY).await;
    insert_big(&trial, 0, 10_000).await;
    trial.flows().await;
    assert_eq!(trial.restarts(None).await, 0.0);
    broker.delete_exchange(&exchange).await;
    insert_big(&trial, 1, 10_000).await;
    trial
        .unhealthy(&["restarting", &exchange, "remedy: "])
        .await;
    let so_far = trial.connector().await;
    let again = trial
        .until("tries in vain", |now| {
            restarts(now) >= restarts(&so_far) + 2
        })
        .await;
    assert!(confirmed(&again) <= confirmed(&so_far) + WINDOW, "{again}");
    broker.declare_exchange(&exchange, &queue).await;
    trial.recovers(Instant::now()).await;
    // After the first attempt nothing goes out behind a dead letter until it has arrived.
    let (figures, big, here) = judge_all_but_big(&mut trial, windows(1)).await;
    assert!(here.is_empty(), "not put aside: {here:?}");
    judge_aside(&trial, &big, "oversized").await;
    broker.delete_exchange(&exchange).await;
    trial.clear().await;
    figures
}

/// The exchange of the events is deleted, with its binding.
async fn f29e_exchange_of_the_events_is_deleted(case: Case) -> Figures {
    let mut trial = classic(&case).await;
    let exchange = format!("{}.exchange", trial.rig.name);
    trial = trial.with("rabbitmq.exchange", exchange.as_str());
    trial.begin(STEADY).await;
    trial.rig.broker.delete_exchange(&exchange).await;
    trial.recovers(Instant::now()).await;
    assert!(trial.restarts(Some("rabbitmq_connection_failed")).await >= 1.0);
    let figures = trial.finish(windows(1)).await;
    Broker::shared().await.delete_exchange(&exchange).await;
    figures
}

/// Room for a tenth of what may be in flight.
const ROOM: i32 = 100;

/// A queue of few messages that refuses more, and a consumer that is slower than the writer.
async fn refused(case: Case, kind: &str) -> Figures {
    let mut trial = classic(&case).await;
    let (broker, name) = (trial.rig.broker.clone(), trial.rig.name.clone());
    let arguments: [(&str, FieldValue); 3] = [
        ("x-queue-type", kind.to_owned().into()),
        ("x-max-length", FieldValue::I(ROOM)),
        ("x-overflow", "reject-publish".to_owned().into()),
    ];
    broker.declare(&name, &arguments).await;
    trial.start().await;
    trial.consumer = Some(Collector::slow(&broker, &name).await);
    trial.write(STEADY);
    trial.unhealthy(&["restarting", "refuse", "remedy: "]).await;
    trial
        .until("is refused again", |now| restarts(now) >= 3)
        .await;
    let written = trial.stop_writing().await;
    let fault = Instant::now();
    trial
        .until("has delivered everything", |now| {
            confirmed(now) == written.events()
        })
        .await;
    trial.recovered(fault);
    let refusals = trial.restarts(Some("publish_rejected")).await;
    assert_eq!(trial.restarts(None).await, refusals, "for another reason");
    // One at a time after a refusal, until a thousand have gone well.
    let allowed = Allowed {
        order: Order::Last,
        ..windows(1 + written.events() / 1000)
    };
    trial.finish(allowed).await
}

async fn f31_full_queue_refuses(case: Case) -> Figures {
    refused(case, "classic").await
}

async fn f31q_full_queue_refuses(case: Case) -> Figures {
    refused(case, "quorum").await
}

/// A queue of few messages that drops the oldest, as queues do by default: they are confirmed and gone.
/// The connector can but warn.
async fn f32_full_queue_drops(case: Case) -> Figures {
    let mut trial = classic(&case).await;
    let (broker, name) = (trial.rig.broker.clone(), trial.rig.name.clone());
    let arguments: [(&str, FieldValue); 2] = [
        ("x-queue-type", "classic".to_owned().into()),
        ("x-max-length", FieldValue::I(ROOM)),
    ];
    broker.declare(&name, &arguments).await;
    trial.begin(STEADY).await;
    let log = trial.daemon().log();
    let mut lines = log.lines();
    let warning = lines.find(|line| line.contains("WARN") && line.contains("drop-head"));
    assert!(
        warning.is_some_and(|line| line.contains(&name) && line.contains("remedy: ")),
        "{log}"
    );
    trial.stop_writing().await;
    let truth = trial.rig.truth().await;
    trial.daemon().confirmed(&trial.name(), truth.len()).await;
    let deliveries = Collector::drain(&broker, &name).await;
    let lost = truth.len() - ROOM as usize;
    let dropped = (1..=lost).collect();
    let duplicates = judge_without(&trial, &truth, &deliveries, &dropped, Order::First);
    assert_eq!((deliveries.len(), duplicates), (ROOM as usize, 0));
    assert_eq!(trial.restarts(None).await, 0.0);
    trial.clear().await;
    Figures {
        events: truth.len(),
        lost,
        ..trial.figures()
    }
}

/// One queue is another program's alone, one is of another type than configured, and one is as it should be.
async fn f33_queue_is_not_as_declared(case: Case) -> Figures {
    let mut trial = classic(&case).await;
    let broker = trial.rig.broker.clone();
    let [taken, other] = ["taken", "other"].map(|label| {
        let queue = format!("{}-{label}", trial.rig.name);
        (trial.rig.entry_for(label, &queue), queue)
    });
    trial.others = vec![taken.0.clone(), other.0.clone()];
    let lock = broker.lock(&taken.1).await;
    let quorum = [("x-queue-type", FieldValue::from("quorum".to_owned()))];
    broker.declare(&other.1, &quorum).await;
    trial.spawn();
    let line = trial
        .daemon()
        .unhealthy(&[&taken.0.name(), "remedy: the queue cannot be used as it is"])
        .await;
    assert!(line.contains("exclusive"), "{line}");
    let health = trial.daemon().get("/health").await;
    assert_eq!(health.body.lines().count(), 1, "{}", health.body);
    // The others run: what exists is used as it is.
    trial.write(STEADY);
    trial.flows().await;
    for (entry, queue) in [&other, &taken] {
        let label = queue.rsplit('-').next().unwrap_or_default();
        load::insert(&trial.rig.collection_named(label), 0, 100).await;
        if entry.name() == other.0.name() {
            trial.daemon().confirmed(&entry.name(), 100).await;
        }
    }
    trial.flows().await;
    for entry in [&trial.entry, &other.0] {
        let connector = trial.daemon().connector(&entry.name()).await;
        assert_eq!(restarts(&connector), 0, "{connector}");
    }
    let fault = Instant::now();
    lock.release().await;
    trial.daemon().healthy().await;
    trial.recovered(fault);
    for (entry, queue) in [&other, &taken] {
        trial.daemon().confirmed(&entry.name(), 100).await;
        let deliveries = Collector::drain(&broker, queue).await;
        let numbers: Vec<u64> = deliveries.iter().filter_map(seq).collect();
        assert!(numbers.iter().copied().eq(1..=100), "{numbers:?}");
        broker.delete(queue).await;
    }
    trial.finish(NOTHING).await
}

/// What the broker takes, and less than the daemon takes it to be.
const LIMIT: usize = 1 << 20;

/// A document of 2 MiB, and a broker that takes 1 MiB.
async fn f35_message_is_too_big(case: Case) -> Figures {
    let settings = [format!("max_message_size = {LIMIT}")];
    let broker = Broker::with_settings(&settings).await;
    let mut trial = Trial::on(&case, &Mongo::shared().await, &broker)
        .await
        .with_secret_key();
    trial.begin(STEADY).await;
    // Nobody told the daemon: the broker closes the channel.
    insert_big(&trial, 0, 2 * LIMIT).await;
    trial
        .unhealthy(&["halted", "remedy: raise max_message_size"])
        .await;
    let fault = Instant::now();
    let letters = json!({"routing_key": aside(&trial)});
    trial = trial
        .with("rabbitmq.max_message_bytes", LIMIT)
        .with("rabbitmq.dead_letter", letters);
    for (number, policy) in (1..).zip(["dead_letter", "compress", "strip_images"]) {
        let ended = trial.take_daemon().terminate().await;
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        trial = trial.with("rabbitmq.on_oversize", policy);
        trial.start().await;
        if number == 1 {
            trial.recovers(fault).await;
        }
        insert_big(&trial, number, 2 * LIMIT).await;
        trial.flows().await;
        assert_eq!(trial.restarts(None).await, 0.0, "{policy}");
    }
    let (figures, big, here) = judge_all_but_big(&mut trial, windows(1)).await;
    judge_aside(&trial, &big[..2], "oversized").await;
    let ids: Vec<&str> = here.iter().map(|delivery| delivery.id.as_str()).collect();
    assert_eq!(ids, [big[2].token(), big[3].token()]);
    assert_eq!(here[0].content_encoding.as_deref(), Some("gzip"));
    assert_eq!(here[1].headers["x-mrcon-stripped"], "fullDocument");
    trial.clear().await;
    broker.remove().await;
    figures
}
