//! The example consumers end with what is in the collection, whatever comes twice; and others' libraries read
//! the messages that are written in others' formats.

mod cases;
mod contract;
mod example;
mod others;

use crate::common::daemon::Daemon;
use crate::common::mongo::{self, Mongo};
use crate::common::rabbit::Broker;
use crate::common::rig::Rig;
use crate::common::truth::{Event, Watch};
use crate::common::wait::{SOON, eventually};
use amqprs::FieldValue;
use bson::doc;
use cases::{CASES, Case, DOCUMENTS, QueueKind, work};
use example::{Consumer, Language, Protocol, Reader};
use mongodb::options::FullDocumentType;
use serde_json::Value;

/// One test's queues, and who reads them.
struct Scene {
    rig: Rig,
    kind: QueueKind,
    /// Whose messages the daemon writes.
    cases: Vec<Case>,
}

/// What MongoDB reports, without and with documents that are looked up.
struct Truth {
    plain: Vec<Event>,
    looked_up: Vec<Event>,
}

impl Truth {
    fn of(&self, case: Case) -> &[Event] {
        match case.looks_up() {
            true => &self.looked_up,
            false => &self.plain,
        }
    }
}

impl Scene {
    /// The queue of a case. Readers of a stream share it; others have one each.
    fn queue(&self, case: Case, language: Language) -> String {
        let name = format!("{}-{}", self.rig.name, case.name);
        match self.kind.is_stream() {
            true => name,
            false => format!("{name}-{language:?}").to_lowercase(),
        }
    }

    /// All queues, each once.
    fn queues(&self) -> Vec<(String, Case)> {
        let mut all = Vec::new();
        for case in &self.cases {
            for language in Language::ALL {
                let queue = self.queue(*case, language);
                if !all.iter().any(|(other, _)| *other == queue) {
                    all.push((queue, *case));
                }
            }
        }
        all
    }

    async fn start_daemon(&self) -> Daemon {
        let written = self.queues().into_iter();
        let entries: Vec<_> = written
            .filter(|(_, case)| case.is_supported())
            .map(|(queue, case)| case.entry(&self.rig, &queue, self.kind))
            .collect();
        self.rig.start(&entries).await
    }

    fn readers(&self) -> Vec<Reader> {
        let protocols: &[Protocol] = match self.kind.is_stream() {
            true => &[Protocol::Amqp, Protocol::Stream],
            false => &[Protocol::Amqp],
        };
        let mut readers = Vec::new();
        for language in Language::ALL {
            for protocol in protocols {
                let queues = self.cases.iter();
                let queues = queues.map(|case| (self.queue(*case, language), *case));
                readers.push(Reader::new(
                    language,
                    *protocol,
                    &self.rig.broker,
                    self.kind,
                    queues.collect(),
                ));
            }
        }
        readers
    }

    async fn truth(&self) -> Truth {
        let plain = self.rig.truth().await;
        let last = plain.last().map(|event| event.token().to_owned());
        let watch = Watch {
            full_document: Some(FullDocumentType::UpdateLookup),
            before_change: None,
            expanded: false,
        };
        let orders = self.rig.collection();
        let is_last = |event: &Event| Some(event.token()) == last.as_deref();
        let looked_up = self.rig.truth_until(&orders, &watch, is_last).await;
        Truth { plain, looked_up }
    }

    /// Sends the first event once more, behind newer ones of its document, as a broker does that had not noticed the
    /// end of a connection.
    async fn repeat_late(&self, daemon: &Daemon) {
        let truth = self.truth().await;
        for (queue, case) in self.queues() {
            if case.is_supported() {
                let name = case.entry(&self.rig, &queue, self.kind).name();
                daemon
                    .confirmed(&name, case.numbered(&truth.plain).len())
                    .await;
                let written = contract::message(case, &truth.of(case)[0], 1);
                let late = vec![(written.properties, written.body)];
                self.rig.broker.put(&queue, late).await;
            }
        }
    }

    /// Writes what the daemon does not write yet, as if it had been killed twice on the way, with a last repeat
    /// that comes late.
    async fn write_by_contract(&self, truth: &Truth) {
        for (queue, case) in self.queues() {
            if case.is_supported() {
                continue;
            }
            let sent = case.numbered(truth.of(case));
            let (last, before) = sent
                .split_last()
                .unwrap_or_else(|| unreachable!("there are events"));
            let half = before.len() / 2;
            let order = [
                &before[..half],
                before,
                &before[half..],
                &before[..1],
                &[*last],
            ];
            let messages = order.into_iter().flatten().map(|(event, seq)| {
                let written = contract::message(case, event, *seq);
                (written.properties, written.body)
            });
            self.rig.broker.put(&queue, messages.collect()).await;
        }
    }

    /// Compares what the consumers have with what is in the collection.
    async fn compare(&self, truth: &Truth, consumers: Vec<Consumer>) {
        for consumer in consumers {
            let told: Vec<Value> = self
                .cases
                .iter()
                .map(|case| consumer.told(&self.queue(*case, consumer.reader.language)))
                .collect();
            let reader = consumer.stop().await;
            let found = reader.documents().await;
            for (case, told) in self.cases.iter().zip(told) {
                let queue = self.queue(*case, reader.language);
                let what = format!(
                    "{:?} {:?} {queue}: {told}",
                    reader.language, reader.protocol
                );
                let expected = case.expected(&self.rig, &truth.plain).await;
                assert_eq!(Some(&expected), found.get(&queue), "{what}");
                assert!(
                    told["repeats"].as_u64() > Some(0),
                    "nothing came twice: {what}"
                );
            }
            reader.remove();
        }
    }

    async fn clean(&self) {
        for (queue, _) in self.queues() {
            self.rig.broker.delete(&queue).await;
        }
        for database in [self.rig.name.clone(), self.rig.tokens_database()] {
            let _ = self.rig.client.database(&database).drop().await;
        }
    }
}

/// Everything comes twice, daemon and consumers are killed, and the consumers end with what is in the collection.
async fn consume(rig: Rig, kind: QueueKind) {
    let scene = Scene {
        rig,
        kind,
        cases: CASES.to_vec(),
    };
    for (queue, case) in scene.queues() {
        if !case.is_supported() {
            let queue_type = FieldValue::from(kind.name().to_owned());
            let arguments = [("x-queue-type", queue_type)];
            scene.rig.broker.declare(&queue, &arguments).await;
        }
    }
    let daemon = scene.start_daemon().await;
    let mut consumers = Vec::new();
    for reader in scene.readers() {
        consumers.push(reader.start().await);
    }
    work(&scene.rig, 0).await;
    let first = scene.rig.truth().await;
    for consumer in &mut consumers {
        for (queue, case) in consumer.reader.queues.clone() {
            if case.is_supported() {
                consumer.has_read(&queue, case.numbered(&first).len()).await;
            }
        }
    }
    daemon.kill().await;
    let mut restarted = Vec::new();
    for consumer in consumers {
        restarted.push(consumer.kill_and_restart().await);
    }
    let mut consumers = restarted;
    let daemon = scene.start_daemon().await;
    work(&scene.rig, DOCUMENTS).await;
    scene.repeat_late(&daemon).await;
    let truth = scene.truth().await;
    scene.write_by_contract(&truth).await;
    for consumer in &mut consumers {
        for (queue, case) in consumer.reader.queues.clone() {
            let count = case.numbered(&truth.plain).len();
            consumer.has_read(&queue, count).await;
        }
    }
    scene.compare(&truth, consumers).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    scene.clean().await;
}

#[tokio::test]
async fn consumers_of_classic_queues_have_other_documents() {
    consume(Rig::new("consumers-classic").await, QueueKind::Classic).await;
}

#[tokio::test]
async fn consumers_of_quorum_queues_have_other_documents() {
    consume(Rig::new("consumers-quorum").await, QueueKind::Quorum).await;
}

#[tokio::test]
async fn consumers_of_stream_queues_have_other_documents() {
    consume(Rig::new("consumers-stream").await, QueueKind::Stream).await;
}

#[tokio::test]
async fn consumers_of_streams_over_their_protocol_have_other_documents() {
    consume(Rig::new("consumers-native").await, QueueKind::NativeStream).await;
}

#[tokio::test]
async fn consumers_do_not_come_back_when_the_broker_was_killed() {
    let mut broker = Broker::private().await;
    let mongo = Mongo::shared().await;
    let cases = vec![Case::named("relaxed")];
    let mut scenes = Vec::new();
    let mut daemons = Vec::new();
    let mut consumers = Vec::new();
    for kind in [QueueKind::Quorum, QueueKind::NativeStream] {
        let rig = Rig::on(&mongo, &broker, "consumers-broker").await;
        let scene = Scene {
            rig,
            kind,
            cases: cases.clone(),
        };
        daemons.push(scene.start_daemon().await);
        for reader in scene.readers() {
            consumers.push(reader.start().await);
        }
        work(&scene.rig, 0).await;
        for (queue, _) in scene.queues() {
            match kind {
                QueueKind::Quorum => broker.knows_for_good(&queue).await,
                _ => broker.knows_streams_for_good().await,
            }
        }
        scenes.push(scene);
    }
    for consumer in &mut consumers {
        for (queue, _) in consumer.reader.queues.clone() {
            let something = |told: &Value| told["seq"].as_u64() > Some(0);
            consumer.until(&queue, "reads", something).await;
        }
    }
    broker.kill().await;
    for scene in &scenes {
        work(&scene.rig, DOCUMENTS).await;
    }
    broker.restart().await;
    let mut rest = consumers.into_iter();
    for (scene, daemon) in scenes.iter().zip(daemons) {
        let truth = scene.truth().await;
        for (queue, case) in scene.queues() {
            let entry = case.entry(&scene.rig, &queue, scene.kind);
            daemon.confirmed(&entry.name(), truth.plain.len()).await;
        }
        for mut consumer in rest.by_ref().take(scene.readers().len()) {
            for (queue, case) in consumer.reader.queues.clone() {
                consumer.has_read(&queue, truth.plain.len()).await;
                let expected = case.expected(&scene.rig, &truth.plain).await;
                let found = consumer.reader.documents().await;
                assert_eq!(
                    Some(&expected),
                    found.get(&queue),
                    "{queue}: {}",
                    consumer.complaints()
                );
            }
            assert!(consumer.complaints().contains("connection lost"));
            consumer.stop().await.remove();
        }
        assert_eq!(daemon.terminate().await.code, Some(0));
        scene.clean().await;
    }
}

/// Waits until the clock of MongoDB shows another second, as it does between two starts of a daemon by hand.
async fn next_second(rig: &Rig) {
    let before = mongo::now(&rig.client).await;
    eventually(SOON, "the next second", async || {
        let now = mongo::now(&rig.client).await;
        match now.time > before.time {
            true => Ok(()),
            false => Err(now.to_string()),
        }
    })
    .await;
}

#[tokio::test]
async fn consumers_ignore_changes_behind_a_snapshot_a_gap_or_a_position_that_was_lost() {
    let scene = Scene {
        rig: Rig::new("consumers-anew").await,
        kind: QueueKind::Classic,
        cases: vec![Case::named("relaxed")],
    };
    let (rig, case) = (&scene.rig, scene.cases[0]);
    let queues = scene.queues();
    let entries = |snapshot: &str| {
        let entries = queues.iter().map(|(queue, case)| {
            let entry = case.entry(rig, queue, scene.kind);
            entry.with("watched.snapshot", snapshot)
        });
        entries.collect::<Vec<_>>()
    };
    // What is there already comes as rows.
    work(rig, 0).await;
    let daemon = rig.start(&entries("initial")).await;
    let mut consumers = Vec::new();
    for reader in scene.readers() {
        consumers.push(reader.start().await);
    }
    for entry in entries("initial") {
        let done = |connector: &Value| connector["snapshot"]["phase"] == "done";
        daemon
            .until(&entry.name(), "the snapshot is done", done)
            .await;
    }
    work(rig, DOCUMENTS).await;
    all_have_what_is_there(&scene, case, &mut consumers).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    // The numbers begin at 1 again, far below those that the consumers have seen.
    rig.tokens().delete_many(doc! {}).await.unwrap();
    next_second(rig).await;
    let daemon = rig.start(&entries("never")).await;
    let grow = doc! {"$inc": {"count": 1}};
    rig.collection()
        .update_many(doc! {}, grow.clone())
        .await
        .unwrap();
    all_have_what_is_there(&scene, case, &mut consumers).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    // A gap is told, and what comes behind it is applied.
    for entry in entries("never") {
        let reset = rig
            .position(&entry, &["reset", &entry.name(), "--yes"])
            .await;
        assert!(reset.status.success(), "{reset:?}");
    }
    let daemon = rig.start(&entries("never")).await;
    rig.collection().update_many(doc! {}, grow).await.unwrap();
    all_have_what_is_there(&scene, case, &mut consumers).await;
    for consumer in consumers {
        let queue = scene.queue(case, consumer.reader.language);
        assert_eq!(consumer.told(&queue)["gaps"], 1, "{queue}");
        let complaints = consumer.complaints();
        for expected in [
            "the connector's numbers have begun anew",
            "changes are missing here: position_reset",
        ] {
            assert!(complaints.contains(expected), "{complaints}");
        }
        consumer.stop().await.remove();
    }
    assert_eq!(daemon.terminate().await.code, Some(0));
    scene.clean().await;
}

/// Waits until each consumer has exactly what is in the collection.
async fn all_have_what_is_there(scene: &Scene, case: Case, consumers: &mut [Consumer]) {
    let expected = case.expected(&scene.rig, &[]).await;
    for consumer in consumers {
        let queue = scene.queue(case, consumer.reader.language);
        eventually(SOON, &format!("{queue} is applied"), async || {
            let found = consumer.reader.documents().await;
            match found.get(&queue) {
                Some(found) if *found == expected => Ok(()),
                found => Err(format!("{found:?}; {}", consumer.complaints())),
            }
        })
        .await;
    }
}
