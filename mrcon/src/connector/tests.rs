//! The loop with a scripted change stream, broker and store: what real servers do seldom, or only
//! by chance, happens here on purpose. Time is paused, so deadlines cost nothing.

use super::*;
use crate::budget::{Account, Budget};
use crate::checkpoint::Claim;
use crate::config::{CollectionConfig, Config, DEFAULT_MEMORY_BUDGET};
use crate::envelope::{Envelope, Format, Message};
use crate::metrics::Metrics;
use crate::metrics::custom::{CustomMetrics, CustomNumber};
use crate::pace::Place;
use crate::sink::Outcome;
use crate::sink::amqp::{Publisher, Routes};
use crate::sink::stream::write_message;
use bson::doc;
use prometheus::Registry;
use std::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

const EPOCH: u64 = 3;

/// What the test tells the sink to do.
enum Answer {
    Settle(Settlement),
    Block(Option<&'static str>),
    Lose,
}

/// A broker under the test's control.
struct FakeSink {
    answers: UnboundedReceiver<Answer>,
    blocked: Option<&'static str>,
    published: watch::Sender<Vec<u64>>,
}

impl Sink for FakeSink {
    fn publish(&mut self, seq: u64, message: &Message<'_>) -> Result<()> {
        assert!(!message.body.is_empty());
        self.published.send_modify(|published| published.push(seq));
        Ok(())
    }

    fn has_room(&self) -> bool {
        true
    }

    fn blocked(&self) -> Option<&str> {
        self.blocked
    }

    async fn settled(&mut self, into: &mut Vec<Settlement>) -> Result<()> {
        match self.answers.recv().await {
            Some(Answer::Settle(settlement)) => into.push(settlement),
            Some(Answer::Block(reason)) => self.blocked = reason,
            Some(Answer::Lose) => return Err(Error::new(ErrorKind::RabbitConnection, "lost")),
            None => std::future::pending().await,
        }
        Ok(())
    }

    async fn close(self) {}
}

#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Well,
    Failing,
    Fencing,
}

/// A store that remembers every save.
struct FakeStore {
    saves: watch::Sender<Vec<u64>>,
    mood: Mutex<Mood>,
}

impl Default for FakeStore {
    fn default() -> Self {
        FakeStore {
            saves: watch::channel(Vec::new()).0,
            mood: Mutex::new(Mood::Well),
        }
    }
}

impl CheckpointStore for FakeStore {
    async fn claim(&self) -> Result<Claim> {
        unreachable!("a run does not claim")
    }

    async fn save(&self, epoch: u64, checkpoint: &Checkpoint) -> Result<()> {
        assert_eq!(epoch, EPOCH);
        match *self.mood.lock().unwrap() {
            Mood::Well => {
                self.saves.send_modify(|saves| saves.push(checkpoint.seq));
                Ok(())
            }
            Mood::Failing => Err(Error::new(ErrorKind::CheckpointStore, "store is down")),
            Mood::Fencing => Err(Error::new(ErrorKind::Fenced, "somebody else")),
        }
    }
}

type Outcome_ = (Option<Checkpoint>, Result<()>);

/// One run with everything around it in the test's hands.
struct Stage {
    events: mpsc::Sender<Result<SourceItem>>,
    answers: UnboundedSender<Answer>,
    published: watch::Receiver<Vec<u64>>,
    saves: watch::Receiver<Vec<u64>>,
    store: Arc<FakeStore>,
    status: Arc<ConnectorStatus>,
    stop: CancellationToken,
    run: JoinHandle<Outcome_>,
}

struct Options {
    collection: &'static str,
    start: u64,
    careful: bool,
    max_unconfirmed: u32,
    custom: CustomObservers,
    memory: Arc<Account>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            collection: "coll",
            start: 0,
            careful: false,
            max_unconfirmed: 100,
            custom: observers(&CustomMetrics::default()),
            memory: Budget::new(DEFAULT_MEMORY_BUDGET).open(),
        }
    }
}

fn observers(metrics: &CustomMetrics) -> CustomObservers {
    metrics.for_entry(&[CollectionConfig::new("db", "coll", "queue")], 0)
}

fn token(text: &str) -> ResumeToken {
    let raw = bson::RawDocumentBuf::try_from(&doc! {"_data": text}).unwrap();
    ResumeToken::from(&*raw)
}

fn stage(options: Options) -> Stage {
    let (events, items) = mpsc::channel(16);
    let (answers, receiver) = unbounded_channel();
    let (published_sender, published) = watch::channel(Vec::new());
    let store = Arc::new(FakeStore::default());
    let saves = store.saves.subscribe();
    let sink = FakeSink {
        answers: receiver,
        blocked: None,
        published: published_sender,
    };
    let parts = parts(options, Source::scripted(items), sink, Arc::clone(&store));
    let status = Arc::clone(&parts.status);
    let stop = CancellationToken::new();
    let run = tokio::spawn({
        let stop = stop.clone();
        async move { Run::new(parts).run(&stop).await }
    });
    Stage {
        events,
        answers,
        published,
        saves,
        store,
        status,
        stop,
        run,
    }
}

fn parts<S: Sink>(
    options: Options,
    source: Source,
    sink: S,
    store: Arc<FakeStore>,
) -> Parts<S, FakeStore> {
    let config = CollectionConfig::new("db", options.collection, "queue");
    let status = ConnectorStatus::new(&config, options.memory, Arc::default());
    let status = Arc::new(status);
    let start = Checkpoint {
        token: token("start"),
        seq: options.start,
        at: None,
    };
    Parts {
        source,
        sink,
        store,
        epoch: EPOCH,
        start: Some(start.clone()),
        saved: Some(start),
        careful: options.careful,
        settings: Settings {
            scope: Scope::new(&config.watched, Vec::new()),
            envelopes: Envelope::new(Format::Relaxed).into(),
            max_unconfirmed: options.max_unconfirmed,
            max_unconfirmed_bytes: 1 << 20,
            save_interval: Duration::from_secs(1),
            policies: Policies::of(&config),
            on_invalidate: OnInvalidate::Continue,
            pace: Pace::of(Place { index: 0, count: 1 }),
            drain_deadline: Duration::from_secs(8),
            tracing: None,
        },
        metrics: Metrics::register(&Registry::new())
            .unwrap()
            .connector(&status),
        status,
        custom: options.custom,
        copier: None,
        cleaner: None,
        in_snapshot: false,
    }
}

fn event(n: u64) -> bson::Document {
    event_of("coll", n)
}

fn event_of(coll: &str, n: u64) -> bson::Document {
    doc! {
        "_id": {"_data": format!("{n:08}")},
        "operationType": "insert",
        "ns": {"db": "db", "coll": coll},
        "documentKey": {"_id": n as i64},
    }
}

impl Stage {
    /// Events with the numbers `from..=to`, in one batch.
    async fn read(&self, from: u64, to: u64) {
        let batch = EventBatch::made((from..=to).map(event).collect(), None);
        self.item(SourceItem::Batch(Arc::new(batch))).await;
    }

    async fn idle(&self, text: &str) {
        let batch = EventBatch::made(vec![], Some(doc! {"_data": text}));
        self.item(SourceItem::Batch(Arc::new(batch))).await;
    }

    async fn item(&self, item: SourceItem) {
        self.events.send(Ok(item)).await.expect("the run reads");
    }

    async fn until_published(&mut self, count: usize) {
        self.published
            .wait_for(|published| published.len() >= count)
            .await
            .expect("the run publishes");
    }

    async fn until_saved(&mut self, seq: u64) {
        self.saves
            .wait_for(|saves| saves.last() == Some(&seq))
            .await
            .expect("the run saves");
    }

    fn confirm(&self, seq: u64, multiple: bool) {
        self.answer(seq, multiple, Outcome::Confirmed);
    }

    fn answer(&self, seq: u64, multiple: bool, outcome: Outcome) {
        let _ = self.answers.send(Answer::Settle(Settlement {
            seq,
            multiple,
            outcome,
        }));
    }

    fn feel(&self, mood: Mood) {
        *self.store.mood.lock().unwrap() = mood;
    }

    async fn end(self) -> (Option<u64>, Result<()>, Vec<u64>) {
        let (frontier, outcome) = self.run.await.expect("the run does not panic");
        (
            frontier.map(|checkpoint| checkpoint.seq),
            outcome,
            self.saves.borrow().clone(),
        )
    }
}

fn kind(outcome: &Result<()>) -> ErrorKind {
    outcome.as_ref().expect_err("the run fails").kind()
}

#[tokio::test(start_paused = true)]
async fn position_is_saved_past_a_message_the_broker_owes() {
    let mut stage = stage(Options::default());
    stage.read(1, 10).await;
    stage.until_published(10).await;
    (2..=10).for_each(|seq| stage.confirm(seq, false));
    // Ten intervals of saving.
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(
        stage.saves.borrow().is_empty(),
        "nothing is confirmed up to any event"
    );
    stage.confirm(1, false);
    stage.until_saved(10).await;
    stage.stop.cancel();
    assert_eq!(stage.end().await.0, Some(10));
}

#[tokio::test(start_paused = true)]
async fn business_metric_counts_what_will_be_sent_again() {
    let text = "metrics: {custom: [{name: ids_total, help: h, collection: db.coll, value: documentKey._id}]}";
    let config = Config::from_yaml(text).unwrap().metrics.custom;
    let metrics = CustomMetrics::register(&config, &Registry::new()).unwrap();
    let mut stage = stage(Options {
        custom: observers(&metrics),
        ..Options::default()
    });
    stage.read(1, 5).await;
    stage.until_published(5).await;
    stage.confirm(2, true);
    stage.confirm(4, false);
    stage.until_saved(2).await;
    stage.answers.send(Answer::Lose).ok();
    assert_eq!(kind(&stage.end().await.1), ErrorKind::RabbitConnection);
    // 1 + 2; 4 was confirmed, but 3 was not.
    let counted = metrics.snapshot()[0].series[0].value;
    assert_eq!(counted, CustomNumber::Value(3.0));
}

#[tokio::test(start_paused = true)]
async fn idle_token_is_saved_while_an_event_before_it_is_in_flight() {
    let mut stage = stage(Options::default());
    stage.read(1, 2).await;
    stage.idle("later").await;
    stage.until_published(2).await;
    stage.confirm(1, false);
    stage.until_saved(1).await;
    stage.confirm(2, false);
    stage.stop.cancel();
    let (frontier, outcome) = stage.run.await.unwrap();
    outcome.unwrap();
    let frontier = frontier.unwrap();
    assert_eq!(
        (frontier.seq, frontier.token),
        (2, token("later")),
        "the idle token counts once all is confirmed"
    );
}

#[tokio::test(start_paused = true)]
async fn idle_connector_writes_for_ever() {
    let mut stage = stage(Options::default());
    for n in 0..40 {
        stage.idle(&format!("idle {n}")).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let saves = stage.saves.borrow_and_update().len();
    assert!((3..=5).contains(&saves), "{saves} saves in 40 s");
}

#[tokio::test(start_paused = true)]
async fn refused_message_is_skipped() {
    for (outcome, expected) in [
        (Outcome::Nacked, ErrorKind::Nacked),
        (Outcome::Refused("HTTP 422".into()), ErrorKind::SinkRefused),
        (
            Outcome::Returned("312 NO_ROUTE".into()),
            ErrorKind::Unroutable,
        ),
    ] {
        let mut stage = stage(Options::default());
        stage.read(1, 5).await;
        stage.until_published(5).await;
        stage.confirm(2, true);
        stage.answer(3, false, outcome);
        // A broker confirms a returned message, too, and whatever comes behind it.
        stage.confirm(5, true);
        let (frontier, outcome, saves) = stage.end().await;
        assert_eq!((kind(&outcome), frontier), (expected, Some(2)));
        assert_eq!(
            saves.last(),
            Some(&2),
            "what was confirmed before it is saved"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn lost_connection_loses_or_invents_confirms() {
    let mut stage = stage(Options::default());
    stage.read(1, 5).await;
    stage.until_published(5).await;
    stage.confirm(1, false);
    stage.confirm(3, false);
    let _ = stage.answers.send(Answer::Lose);
    let (frontier, outcome, saves) = stage.end().await;
    assert_eq!(
        (kind(&outcome), frontier),
        (ErrorKind::RabbitConnection, Some(1))
    );
    assert_eq!(saves.last(), Some(&1));
}

#[tokio::test(start_paused = true)]
async fn stop_leaves_messages_behind_or_reads_on() {
    let mut stage = stage(Options {
        max_unconfirmed: 3,
        ..Options::default()
    });
    stage.read(1, 10).await;
    stage.until_published(3).await;
    stage.stop.cancel();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(stage.status.snapshot().state, State::Draining);
    stage.confirm(3, true);
    let published = stage.published.clone();
    let (frontier, outcome, saves) = stage.end().await;
    outcome.unwrap();
    assert_eq!((frontier, saves.last()), (Some(3), Some(&3)));
    assert_eq!(
        published.borrow().len(),
        3,
        "nothing new goes out after a stop"
    );
}

#[tokio::test(start_paused = true)]
async fn stop_waits_for_ever_for_a_blocked_broker() {
    let mut stage = stage(Options::default());
    stage.read(1, 4).await;
    stage.until_published(4).await;
    stage.confirm(2, true);
    stage.until_saved(2).await;
    let _ = stage.answers.send(Answer::Block(Some("low on memory")));
    stage.stop.cancel();
    let (frontier, outcome, saves) = stage.end().await;
    assert_eq!(
        (kind(&outcome), frontier, saves.last()),
        (ErrorKind::ConfirmTimeout, Some(2), Some(&2))
    );
}

#[tokio::test(start_paused = true)]
async fn forgotten_confirm_stalls_for_ever_or_a_blocked_broker_is_taken_for_lost() {
    let mut stage = stage(Options::default());
    stage.read(1, 1).await;
    stage.until_published(1).await;
    let _ = stage.answers.send(Answer::Block(Some("low on disk")));
    tokio::time::sleep(CONFIRM_DEADLINE * 10).await;
    assert!(
        !stage.run.is_finished(),
        "a blocked broker answers when it can"
    );
    assert_eq!(stage.status.snapshot().state, State::Blocked);
    let _ = stage.answers.send(Answer::Block(None));
    tokio::time::sleep(CONFIRM_DEADLINE / 2).await;
    assert_eq!(stage.status.snapshot().state, State::Running);
    let (frontier, outcome, _) = stage.end().await;
    assert_eq!(
        (kind(&outcome), frontier),
        (ErrorKind::ConfirmTimeout, Some(0))
    );
}

#[tokio::test(start_paused = true)]
async fn blocked_broker_gets_more_messages() {
    let mut stage = stage(Options::default());
    stage.read(1, 1).await;
    stage.until_published(1).await;
    let _ = stage.answers.send(Answer::Block(Some("low on memory")));
    stage.confirm(1, false);
    stage.until_saved(1).await;
    stage.read(2, 9).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(stage.published.borrow().len(), 1);
    let _ = stage.answers.send(Answer::Block(None));
    stage.until_published(9).await;
}

#[tokio::test(start_paused = true)]
async fn failing_store_stops_delivery_at_once_or_never() {
    let mut stage = stage(Options::default());
    stage.feel(Mood::Failing);
    for n in 1..=30 {
        stage.read(n, n).await;
        stage.until_published(n as usize).await;
        stage.confirm(n, false);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(
        !stage.run.is_finished(),
        "delivery goes on for {UNSAVED_LIMIT:?}"
    );
    let (frontier, outcome, _) = stage.end().await;
    assert_eq!(
        (kind(&outcome), frontier),
        (ErrorKind::CheckpointStore, Some(30))
    );
}

#[tokio::test(start_paused = true)]
async fn fenced_run_goes_on() {
    let mut stage = stage(Options::default());
    stage.feel(Mood::Fencing);
    stage.read(1, 1).await;
    stage.until_published(1).await;
    stage.confirm(1, false);
    assert_eq!(kind(&stage.end().await.1), ErrorKind::Fenced);
}

#[tokio::test(start_paused = true)]
async fn event_overtakes_another_after_a_refusal() {
    let mut stage = stage(Options {
        careful: true,
        ..Options::default()
    });
    stage.read(1, 50).await;
    for seq in 1..=50 {
        stage.until_published(seq as usize).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(stage.published.borrow().len() as u64, seq, "one at a time");
        stage.confirm(seq, false);
    }
}

#[tokio::test(start_paused = true)]
async fn window_is_exceeded() {
    let mut stage = stage(Options {
        max_unconfirmed: 7,
        ..Options::default()
    });
    stage.read(1, 100).await;
    for confirmed in 0..=93 {
        stage.until_published(confirmed as usize + 7).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(stage.published.borrow().len(), confirmed as usize + 7);
        assert_eq!(stage.status.snapshot().unconfirmed_messages, 7);
        stage.confirm(confirmed + 1, false);
    }
}

#[tokio::test(start_paused = true)]
async fn event_that_is_none_is_skipped_or_holds_its_predecessors_back() {
    let mut stage = stage(Options::default());
    let batch = EventBatch::made(
        vec![event(1), event(2), doc! {"no": "token"}, event(4)],
        None,
    );
    stage.item(SourceItem::Batch(Arc::new(batch))).await;
    stage.until_published(2).await;
    stage.confirm(2, true);
    let (frontier, outcome, saves) = stage.end().await;
    assert_eq!(
        (kind(&outcome), frontier, saves.last()),
        (ErrorKind::Encode, Some(2), Some(&2))
    );
}

#[tokio::test(start_paused = true)]
async fn end_of_the_stream_drops_what_came_before_it() {
    let mut stage = stage(Options::default());
    stage.read(1, 3).await;
    stage.item(SourceItem::End).await;
    stage.until_published(3).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(
        !stage.run.is_finished(),
        "three messages are still in flight"
    );
    stage.confirm(3, true);
    let (frontier, outcome, saves) = stage.end().await;
    assert_eq!(
        (kind(&outcome), frontier, saves.last()),
        (ErrorKind::Invalidated, Some(3), Some(&3))
    );
}

#[tokio::test(start_paused = true)]
async fn numbers_begin_anew_after_a_restart() {
    let mut stage = stage(Options {
        start: 41,
        ..Options::default()
    });
    stage.read(1, 2).await;
    stage.until_published(2).await;
    assert_eq!(*stage.published.borrow(), [42, 43]);
    stage.confirm(43, true);
    stage.until_saved(43).await;
    let positions = stage.status.snapshot().positions;
    assert_eq!((positions.confirmed, positions.saved), (43, 43));
}

#[tokio::test(start_paused = true)]
async fn lag_hides_what_mongodb_does_not_show_yet() {
    let stage = stage(Options::default());
    let token = |time: u32| Some(doc! {"_data": format!("82{time:08X}000000012B0229296E04")});
    // The majority has last acknowledged a write at 1000; more is written, and not shown.
    for (server, behind) in [(1000, 0.0), (1001, 0.0), (1002, 2.0), (1060, 60.0)] {
        let batch = EventBatch::made(vec![], token(1000)).at_server_time(server);
        stage.item(SourceItem::Batch(Arc::new(batch))).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        let lag = stage.status.lag().expect("it is known").as_secs_f64();
        // Of the machine's own clock.
        assert!((behind..behind + 1.0).contains(&lag), "{server}: {lag}");
    }
    let batch = EventBatch::made(vec![], token(1060)).at_server_time(1060);
    stage.item(SourceItem::Batch(Arc::new(batch))).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(stage.status.lag() < Some(Duration::from_secs(1)));
}

#[tokio::test(start_paused = true)]
async fn silent_mongodb_looks_healthy() {
    let stage = stage(Options::default());
    stage.idle("now").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(
        stage.status.complaint_line(),
        None,
        "a short silence is nothing"
    );
    tokio::time::sleep(crate::status::STALLED_AFTER).await;
    let complaint = stage.status.complaint_line().expect("a long one is");
    assert!(
        complaint.contains("stalled") && complaint.contains("MongoDB does not answer"),
        "{complaint}"
    );
    stage.idle("later").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(stage.status.complaint_line(), None);
}

#[tokio::test(start_paused = true)]
async fn connector_that_waits_for_room_looks_healthy_or_blames_mongodb() {
    use crate::status::{STALLED_AFTER, STARVED_AFTER};
    const SECOND: Duration = Duration::from_secs(1);
    let budget = Budget::new(100);
    let (others, memory) = (budget.open(), budget.open());
    let stage = stage(Options {
        memory: Arc::clone(&memory),
        ..Options::default()
    });
    stage.idle("now").await;
    let complaint = || stage.status.complaint_line();
    // The answer is there at once, and others hold all the room.
    let held = others.reserve(100).await;
    let waiting = tokio::spawn(async move { memory.reserve(50).await });
    tokio::time::sleep(STARVED_AFTER - SECOND).await;
    assert_eq!(complaint(), None, "others give theirs back by and by");
    tokio::time::sleep(SECOND * 2).await;
    let line = complaint().expect("they do not");
    assert!(
        line.contains("stalled") && line.contains("waits for room in the memory budget"),
        "{line}"
    );
    drop(held);
    let room = waiting.await.unwrap();
    assert_eq!(complaint(), None, "blamed for the time of the waiting");
    // A silence after that is MongoDB's own.
    tokio::time::sleep(STALLED_AFTER + SECOND * 5).await;
    let line = complaint().expect("nothing comes");
    assert!(line.contains("MongoDB does not answer"), "{line}");
    // Then something comes, and there is no room again.
    let held = others.reserve(50).await;
    let memory = Arc::clone(&stage.status.memory);
    let waiting = tokio::spawn(async move { memory.reserve(50).await });
    tokio::task::yield_now().await;
    assert_eq!(complaint(), None, "it has answered");
    drop((held, room));
    drop(waiting.await.unwrap());
    stage.idle("later").await;
    tokio::time::sleep(SECOND).await;
    assert_eq!(complaint(), None);
}

/// A broker that takes whatever comes, as the bytes that would go over the wire.
struct WillingSink<W> {
    write: W,
    out: Vec<u8>,
    published: u64,
    confirmed: u64,
    last: u64,
    stop: CancellationToken,
}

impl<W> Sink for WillingSink<W>
where
    W: FnMut(&mut Vec<u8>, u64, &Message<'_>) -> Result<()> + Send,
{
    fn publish(&mut self, seq: u64, message: &Message<'_>) -> Result<()> {
        self.published = seq;
        (self.write)(&mut self.out, seq, message)
    }

    fn has_room(&self) -> bool {
        true
    }

    fn blocked(&self) -> Option<&str> {
        None
    }

    async fn settled(&mut self, into: &mut Vec<Settlement>) -> Result<()> {
        if self.confirmed == self.published {
            std::future::pending::<()>().await;
        }
        self.out.clear();
        self.confirmed = self.published;
        into.push(Settlement {
            seq: self.published,
            multiple: true,
            outcome: Outcome::Confirmed,
        });
        if self.confirmed == self.last {
            self.stop.cancel();
        }
        Ok(())
    }

    async fn close(self) {}
}

/// Allocations of a whole run over `batches` replies of a thousand orders each, which are of the
/// collections in turn.
fn allocations<W>(batches: u64, watched: &'static str, collections: &[&str], write: W) -> u64
where
    W: FnMut(&mut Vec<u8>, u64, &Message<'_>) -> Result<()> + Send,
{
    let (events, items) = mpsc::channel(batches as usize);
    let event = |n| event_of(collections[n as usize % collections.len()], n);
    for batch in 0..batches {
        let events_of_batch = (batch * 1000..(batch + 1) * 1000).map(event).collect();
        let item = SourceItem::Batch(Arc::new(EventBatch::made(events_of_batch, None)));
        assert!(events.try_send(Ok(item)).is_ok());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let stop = CancellationToken::new();
    let options = Options {
        collection: watched,
        ..Options::default()
    };
    let counted = allocation_counter::measure(|| {
        let (confirmed, outcome) = runtime.block_on(async {
            let sink = WillingSink {
                write,
                out: Vec::new(),
                published: 0,
                confirmed: 0,
                last: batches * 1000,
                stop: stop.clone(),
            };
            let parts = parts(options, Source::scripted(items), sink, Arc::default());
            Run::new(parts).run(&stop).await
        });
        outcome.unwrap();
        assert_eq!(confirmed.unwrap().seq, batches * 1000);
    });
    counted.count_total
}

/// What an event costs once a run has seen all there is, by what goes on in between.
fn allocations_an_event<W>(watched: &'static str, collections: &[&str], mut write: W) -> f64
where
    W: FnMut(&mut Vec<u8>, u64, &Message<'_>) -> Result<()> + Send,
{
    let [many, few] =
        [40, 10].map(|batches| allocations(batches, watched, collections, &mut write));
    (many - few) as f64 / 30_000.0
}

/// From the server's reply in memory to the bytes for the socket, and back to the position.
#[test]
fn event_costs_an_allocation() {
    let publisher = Publisher::new(1, 128 << 10, "", "queue").unwrap();
    let over_amqp =
        |out: &mut Vec<u8>, seq, message: &Message<'_>| publisher.write(out, seq, message);
    let over_streams = |out: &mut Vec<u8>, seq, message: &Message<'_>| {
        write_message(out, seq, message);
        Ok(())
    };
    // A queue for each collection of a database.
    let several = [
        "orders",
        "people",
        "carts",
        "a collection with a longer name",
    ];
    let mut routes = Routes::knowing(&several);
    let routed = |out: &mut Vec<u8>, seq, message: &Message<'_>| {
        assert!(routes.is_ready_for(message.db, message.coll)?);
        routes.publisher().write(out, seq, message)
    };
    for (case, per_event) in [
        ("AMQP", allocations_an_event("coll", &["coll"], over_amqp)),
        (
            "streams",
            allocations_an_event("coll", &["coll"], over_streams),
        ),
        (
            "database",
            allocations_an_event("*", &several, over_streams),
        ),
        ("queues", allocations_an_event("*", &several, routed)),
    ] {
        // What is left is done once a turn of the loop, for 64 events or a window.
        assert!(per_event < 0.05, "{case}: {per_event} allocations an event");
    }
}

#[test]
fn text_of_a_large_event_is_kept_until_the_next_one() {
    const LARGE: usize = 4 << 20;
    let sink = WillingSink {
        write: |_: &mut Vec<u8>, _, _: &Message<'_>| Ok(()),
        out: Vec::new(),
        published: 0,
        confirmed: 0,
        last: 1,
        stop: CancellationToken::new(),
    };
    let mut large = event(1);
    large.insert("fullDocument", doc! {"text": "x".repeat(LARGE)});
    let (_events, items) = mpsc::channel(1);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let source = runtime.block_on(async { Source::scripted(items) });
    let mut run = Run::new(parts(Options::default(), source, sink, Arc::default()));
    let batch = Arc::new(EventBatch::made(vec![large], None));
    let counted = allocation_counter::measure(|| {
        run.on_item(SourceItem::Batch(batch));
        run.publish_turn().unwrap();
    });
    assert_eq!(run.window.len(), 1);
    assert!(counted.bytes_max >= LARGE as u64, "{counted:?}");
    assert!(counted.bytes_current < 1 << 20, "{counted:?}");
}
