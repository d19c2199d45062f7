//! RabbitMQ fails, stands still, or is cut off: F20 to F27, F34 and F36.
//!
//! A letter behind the number is another target than a classic queue: `q` a quorum queue, `a` a stream
//! over AMQP, `s` a stream over its own protocol, and `p` one with partitions, into which nothing comes twice.

use crate::common::mongo::Mongo;
use crate::common::proxy::{Line, Way};
use crate::common::rabbit::Broker;
use crate::common::stream::resets;
use crate::frames::{Fate, Frame, FrameProxy, Protocol};
use crate::harness::{Case, Figures, Scenario, scenario};
use crate::servers::{framed, proxied};
use crate::trial::{Allowed, NOTHING, Trial, windows};
use crate::writer::{SLOW, STEADY};
use serde_json::Value;
use std::time::{Duration, Instant};

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario!(f20_memory_alarm),
    scenario!(f20s_memory_alarm),
    scenario!(f21_disk_alarm),
    scenario!(f21s_disk_alarm),
    scenario!(f22_broker_is_killed, fast),
    scenario!(f22a_broker_is_killed),
    scenario!(f22c_broker_is_killed),
    scenario!(f22p_broker_is_killed),
    scenario!(f22s_broker_is_killed),
    scenario!(f23_broker_is_restarted_in_order),
    scenario!(f23s_broker_is_restarted_in_order),
    scenario!(f24_broker_is_frozen),
    scenario!(f24s_broker_is_frozen),
    scenario!(f25_connection_is_cut_within_a_frame),
    scenario!(f25s_connection_is_cut_within_a_frame),
    scenario!(f26_answers_are_lost),
    scenario!(f26s_answers_are_lost),
    scenario!(f27_connection_is_closed_by_hand),
    scenario!(f27s_connection_is_closed_by_hand),
    scenario!(f34_permission_is_revoked),
    scenario!(f34s_permission_is_revoked),
    scenario!(f36_confirms_never_come),
    scenario!(f36s_confirms_never_come),
];

/// What is published to, and over which protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Classic,
    Quorum,
    /// A stream over AMQP.
    StreamQueue,
    /// A stream over its own protocol.
    Stream,
    /// A super stream.
    Partitions,
}

use Target::{Classic, Partitions, Quorum, Stream, StreamQueue};

impl Target {
    async fn trial(self, case: &Case, broker: &Broker) -> Trial {
        let trial = Trial::on(case, &Mongo::shared().await, broker).await;
        match self {
            Classic => trial,
            Quorum => trial.with("rabbitmq.queue_type", "quorum"),
            StreamQueue => trial.with("rabbitmq.queue_type", "stream"),
            Stream => trial.with("rabbitmq.protocol", "stream"),
            Partitions => trial
                .with("rabbitmq.protocol", "stream")
                .with("rabbitmq.stream.partitions", 3),
        }
    }

    /// What may come twice after so many incidents.
    fn after(self, incidents: usize) -> Allowed {
        match self {
            Stream | Partitions => NOTHING,
            Classic | Quorum | StreamQueue => windows(incidents),
        }
    }

    fn protocol(self) -> Protocol {
        match self {
            Stream | Partitions => Protocol::Stream,
            Classic | Quorum | StreamQueue => Protocol::Amqp,
        }
    }
}

impl Trial {
    /// Where the daemon finds the broker.
    fn broker_uri(&mut self) -> &mut String {
        match self.entry.is_over_streams() {
            false => &mut self.uris.rabbit,
            true => {
                let stream = self.uris.stream.as_mut();
                stream.unwrap_or_else(|| unreachable!("brokers of our own tell it"))
            }
        }
    }

    /// Puts a proxy that knows frames before the broker.
    async fn framed(&mut self, target: Target) -> FrameProxy {
        let (proxy, uri) = framed(self.broker_uri(), target.protocol()).await;
        *self.broker_uri() = uri;
        proxy
    }

    /// All restarts of the connector were because of RabbitMQ, and there was at least one.
    async fn lost_rabbitmq(&self) {
        let counted = self.restarts(Some("rabbitmq_connection_failed")).await;
        assert!(counted >= 1.0, "the failure is not counted");
        assert_eq!(self.restarts(None).await, counted, "for another reason");
    }

    /// Judges and ends; what RabbitMQ drops as repeats, it has dropped by its own protocol.
    async fn end(self, allowed: Allowed) -> Figures {
        if self.entry.is_over_streams() {
            assert!(
                resets(self.daemon()).await.is_empty(),
                "repeats are not dropped"
            );
        }
        self.finish(allowed).await
    }
}

fn restarts(connector: &Value) -> u64 {
    connector["restarts"].as_u64().unwrap_or_default()
}

/// Watches for as long as the fault lasts that the connector is in this state and has not been restarted.
async fn stays(trial: &Trial, state: &str, time: Duration) {
    let (begin, mut looks) = (
        Instant::now(),
        tokio::time::interval(Duration::from_millis(500)),
    );
    let before = restarts(&trial.connector().await);
    while begin.elapsed() < time {
        looks.tick().await;
        let now = trial.connector().await;
        assert_eq!((&now["state"], restarts(&now)), (&state.into(), before));
    }
}

/// Longer than a broker may owe a confirm while it is not blocked.
const BEYOND_THE_WATCHDOG: Duration = Duration::from_secs(40);

/// The broker has no memory left: it reads nothing from publishers.
async fn f20_memory_alarm(case: Case) -> Figures {
    let broker = Broker::private().await;
    let mut trial = Classic.trial(&case, &broker).await;
    trial.begin(SLOW).await;
    broker.block().await;
    trial.unhealthy(&["blocked", "memory", "remedy: "]).await;
    stays(&trial, "blocked", BEYOND_THE_WATCHDOG).await;
    broker.unblock().await;
    trial.recovers(Instant::now()).await;
    assert_eq!(trial.restarts(None).await, 0.0, "a block is no failure");
    trial.end(NOTHING).await
}

/// The stream protocol does not mind.
async fn f20s_memory_alarm(case: Case) -> Figures {
    let broker = Broker::private().await;
    let mut trial = Stream.trial(&case, &broker).await;
    trial.begin(STEADY).await;
    let fault = Instant::now();
    broker.block().await;
    trial.recovers(fault).await;
    trial.flows().await;
    trial.daemon().healthy().await;
    broker.unblock().await;
    assert_eq!(trial.restarts(None).await, 0.0);
    trial.end(NOTHING).await
}

const NO_DISK: [&str; 2] = ["set_disk_free_limit", "900000GB"];
const ENOUGH_DISK: [&str; 2] = ["set_disk_free_limit", "50MB"];

/// The broker has no disk left, which over AMQP it says.
async fn f21_disk_alarm(case: Case) -> Figures {
    let broker = Broker::private().await;
    let mut trial = Quorum.trial(&case, &broker).await;
    trial.begin(STEADY).await;
    broker.ctl(&NO_DISK).await;
    trial.unhealthy(&["blocked", "disk", "remedy: "]).await;
    stays(&trial, "blocked", Duration::from_secs(5)).await;
    broker.ctl(&ENOUGH_DISK).await;
    trial.recovers(Instant::now()).await;
    assert_eq!(trial.restarts(None).await, 0.0, "a block is no failure");
    trial.end(NOTHING).await
}

/// The stream protocol has no word for it: nothing is confirmed any more.
async fn f21s_disk_alarm(case: Case) -> Figures {
    let broker = Broker::private().await;
    let mut trial = Stream.trial(&case, &broker).await;
    trial.begin(SLOW).await;
    broker.ctl(&NO_DISK).await;
    trial
        .unhealthy(&["restarting", "no confirm", "disk alarm", "remedy: "])
        .await;
    broker.ctl(&ENOUGH_DISK).await;
    trial.recovers(Instant::now()).await;
    trial.lost_rabbitmq().await;
    trial.end(NOTHING).await
}

const IS_UP: &str = "remedy: check that RabbitMQ is up";

/// kill -9 of the broker under load, and a restart.
async fn killed(case: Case, target: Target) -> Figures {
    let mut broker = Broker::private().await;
    let mut trial = target.trial(&case, &broker).await;
    trial.start().await;
    match target {
        Classic => broker.knows_classic_for_good(&trial.rig.name).await,
        Quorum => broker.knows_for_good(&trial.rig.name).await,
        StreamQueue | Stream | Partitions => broker.knows_streams_for_good().await,
    }
    trial.write(STEADY);
    trial.flows().await;
    broker.kill().await;
    trial
        .unhealthy(&["restarting", "remedy: check that "])
        .await;
    broker.restart().await;
    trial.recovers(Instant::now()).await;
    trial.lost_rabbitmq().await;
    trial.end(target.after(1)).await
}

async fn f22_broker_is_killed(case: Case) -> Figures {
    killed(case, Quorum).await
}

async fn f22a_broker_is_killed(case: Case) -> Figures {
    killed(case, StreamQueue).await
}

async fn f22c_broker_is_killed(case: Case) -> Figures {
    killed(case, Classic).await
}

async fn f22p_broker_is_killed(case: Case) -> Figures {
    killed(case, Partitions).await
}

async fn f22s_broker_is_killed(case: Case) -> Figures {
    killed(case, Stream).await
}

/// The broker stops and starts within its virtual machine, and takes leave of its clients.
async fn restarted(case: Case, target: Target) -> Figures {
    let broker = Broker::private().await;
    let mut trial = target.trial(&case, &broker).await;
    trial.begin(STEADY).await;
    broker.ctl(&["stop_app"]).await;
    trial
        .unhealthy(&["restarting", "remedy: check that "])
        .await;
    broker.ctl(&["start_app"]).await;
    trial.recovers(Instant::now()).await;
    trial.lost_rabbitmq().await;
    trial.end(target.after(1)).await
}

async fn f23_broker_is_restarted_in_order(case: Case) -> Figures {
    restarted(case, Classic).await
}

async fn f23s_broker_is_restarted_in_order(case: Case) -> Figures {
    restarted(case, Stream).await
}

/// Half of how long a connection may be silent, in seconds.
const HEARTBEAT: &str = "?heartbeat=5";

/// SIGSTOP of the broker: its connections stay open, and nothing comes over them. On waking up it also
/// takes what it still has of the connection that was given up.
async fn frozen(case: Case, target: Target) -> Figures {
    let broker = Broker::private().await;
    let mut trial = target.trial(&case, &broker).await;
    trial.broker_uri().push_str(HEARTBEAT);
    trial.begin(SLOW).await;
    broker.signal("STOP").await;
    let begin = Instant::now();
    trial
        .unhealthy(&["restarting", "no heartbeat", IS_UP])
        .await;
    let noticed = restarts(&trial.connector().await);
    trial
        .until("tries in vain", |now| {
            restarts(now) > noticed && begin.elapsed() > Duration::from_secs(30)
        })
        .await;
    broker.signal("CONT").await;
    trial.recovers(Instant::now()).await;
    trial.lost_rabbitmq().await;
    let allowed = Allowed {
        order: crate::common::oracle::Order::FirstOnly,
        ..target.after(1)
    };
    trial.end(allowed).await
}

async fn f24_broker_is_frozen(case: Case) -> Figures {
    frozen(case, Classic).await
}

async fn f24s_broker_is_frozen(case: Case) -> Figures {
    frozen(case, Stream).await
}

/// Which frame is cut, and behind which of its bytes.
#[derive(Debug, Clone, Copy)]
struct Cut {
    is_it: fn(&Frame<'_>) -> bool,
    behind: fn(usize) -> usize,
}

/// Behind nothing, within the head, at its end, in the middle, before the last byte, and behind all.
const PLACES: [fn(usize) -> usize; 6] = [
    |_| 0,
    |_| 3,
    |_| 7,
    |length| length / 2,
    |length| length - 1,
    |length| length,
];

fn cuts(kinds: &[fn(&Frame<'_>) -> bool]) -> impl Iterator<Item = Cut> {
    kinds.iter().flat_map(|is_it| {
        PLACES.map(|behind| Cut {
            is_it: *is_it,
            behind,
        })
    })
}

/// A connector that has failed often waits long, and a process that was just started has not.
const CUTS_A_PROCESS: usize = 3;

/// The connection is cut in the middle of frames under load, over and over, each time elsewhere.
async fn cut(case: Case, target: Target, cuts: impl Iterator<Item = Cut>) -> Figures {
    let broker = Broker::private().await;
    let mut trial = target.trial(&case, &broker).await;
    let proxy = trial.framed(target).await;
    trial.begin(STEADY).await;
    let mut count = 0;
    for cut in cuts {
        if count > 0 && count % CUTS_A_PROCESS == 0 {
            let ended = trial.take_daemon().terminate().await;
            assert_eq!(ended.code, Some(0), "{}", ended.log);
            trial.start().await;
        }
        count += 1;
        let (before, fault) = (restarts(&trial.connector().await), Instant::now());
        let mut is_over = false;
        proxy.set(move |frame| match !is_over && (cut.is_it)(&frame) {
            true => {
                is_over = true;
                Fate::CutBehind((cut.behind)(frame.bytes.len()))
            }
            false => Fate::Arrives,
        });
        trial
            .until("sees the cut", |now| restarts(now) > before)
            .await;
        trial.recovers(fault).await;
        trial.lost_rabbitmq().await;
    }
    trial.end(target.after(count)).await
}

async fn f25_connection_is_cut_within_a_frame(case: Case) -> Figures {
    let kinds: [fn(&Frame<'_>) -> bool; 4] = [
        |frame| frame.way == Way::ToServer && frame.is_method(60, 40),
        |frame| frame.way == Way::ToServer && frame.is_kind(2),
        |frame| frame.way == Way::ToServer && frame.is_kind(3),
        |frame| frame.way == Way::ToClient && frame.is_method(60, 80),
    ];
    cut(case, Classic, cuts(&kinds)).await
}

async fn f25s_connection_is_cut_within_a_frame(case: Case) -> Figures {
    let kinds: [fn(&Frame<'_>) -> bool; 2] = [
        |frame| frame.way == Way::ToServer && frame.is_command(PUBLISH),
        |frame| frame.way == Way::ToClient && frame.is_command(PUBLISH_CONFIRM),
    ];
    cut(case, Stream, cuts(&kinds)).await
}

/// Commands of the stream protocol.
const PUBLISH: u16 = 2;
const PUBLISH_CONFIRM: u16 = 3;

/// Everything that the broker sends is lost, while it gets everything.
async fn half_open(case: Case, target: Target) -> Figures {
    let broker = Broker::private().await;
    let mut trial = target.trial(&case, &broker).await;
    let (proxy, uri) = proxied(trial.broker_uri());
    *trial.broker_uri() = uri + HEARTBEAT;
    trial.begin(STEADY).await;
    proxy.set(Way::ToClient, Line::Deaf);
    trial
        .unhealthy(&["restarting", "no heartbeat", IS_UP])
        .await;
    proxy.heal();
    trial.recovers(Instant::now()).await;
    trial.lost_rabbitmq().await;
    trial.end(target.after(1)).await
}

async fn f26_answers_are_lost(case: Case) -> Figures {
    half_open(case, Classic).await
}

async fn f26s_answers_are_lost(case: Case) -> Figures {
    half_open(case, Stream).await
}

/// How often the administrator does it.
const CLOSES: usize = 3;

async fn closed_by_hand(case: Case, target: Target) -> Figures {
    let broker = Broker::private().await;
    let mut trial = target.trial(&case, &broker).await;
    trial.begin(STEADY).await;
    for _ in 0..CLOSES {
        trial.flows().await;
        let before = restarts(&trial.connector().await);
        let fault = Instant::now();
        close_connections(&broker, target).await;
        trial
            .until("sees the close", |now| restarts(now) > before)
            .await;
        trial.recovers(fault).await;
    }
    trial.lost_rabbitmq().await;
    trial.end(target.after(CLOSES)).await
}

async fn close_connections(broker: &Broker, target: Target) {
    match target {
        Stream => {
            let close = "[Pid ! {shutdown, <<\"maintenance\">>} || \
                 {_, Pid, _, _} <- supervisor:which_children(rabbit_stream_sup)].";
            broker.ctl(&["eval", close]).await
        }
        _ => broker.ctl(&["close_all_connections", "maintenance"]).await,
    };
}

async fn f27_connection_is_closed_by_hand(case: Case) -> Figures {
    closed_by_hand(case, Classic).await
}

async fn f27s_connection_is_closed_by_hand(case: Case) -> Figures {
    closed_by_hand(case, Stream).await
}

/// First the right to write is taken away, then every right. RabbitMQ asks for rights when a connection is
/// new, so the old one is closed.
async fn revoked(case: Case, target: Target) -> Figures {
    let broker = Broker::private().await;
    let mut trial = target.trial(&case, &broker).await;
    let user = trial.rig.name.clone();
    let rights = |configure: &'static str, write: &'static str, read: &'static str| {
        let (broker, user) = (&*broker, user.as_str());
        async move {
            broker
                .ctl(&["set_permissions", user, configure, write, read])
                .await
        }
    };
    broker.ctl(&["add_user", &user, "pw"]).await;
    rights(".*", ".*", ".*").await;
    let uri = trial.broker_uri();
    *uri = uri.replace("guest:guest", &format!("{user}:pw"));
    trial.begin(SLOW).await;
    for (configure, write, read) in [(".*", "^$", ".*"), ("^$", "^$", "^$")] {
        rights(configure, write, read).await;
        close_connections(&broker, target).await;
        trial
            .unhealthy(&["restarting", "remedy: grant the RabbitMQ user"])
            .await;
        rights(".*", ".*", ".*").await;
        trial.recovers(Instant::now()).await;
        trial.daemon().healthy().await;
    }
    trial.lost_rabbitmq().await;
    let figures = trial.end(target.after(2)).await;
    broker.ctl(&["delete_user", &user]).await;
    figures
}

async fn f34_permission_is_revoked(case: Case) -> Figures {
    revoked(case, Classic).await
}

async fn f34s_permission_is_revoked(case: Case) -> Figures {
    revoked(case, Stream).await
}

/// Confirms vanish on a connection that is otherwise alive, with heartbeats.
async fn confirms_vanish(
    case: Case,
    target: Target,
    is_confirm: fn(&Frame<'_>) -> bool,
) -> Figures {
    let broker = Broker::private().await;
    let mut trial = target.trial(&case, &broker).await;
    let proxy = trial.framed(target).await;
    trial.begin(SLOW).await;
    proxy.set(move |frame| match is_confirm(&frame) {
        true => Fate::Vanishes,
        false => Fate::Arrives,
    });
    trial
        .unhealthy(&["stalled", "does not confirm", "remedy: "])
        .await;
    trial
        .unhealthy(&["restarting", "no confirm for", "remedy: "])
        .await;
    proxy.heal();
    trial.recovers(Instant::now()).await;
    trial.lost_rabbitmq().await;
    trial.end(target.after(1)).await
}

async fn f36_confirms_never_come(case: Case) -> Figures {
    let is_ack = |frame: &Frame<'_>| frame.way == Way::ToClient && frame.is_method(60, 80);
    confirms_vanish(case, Classic, is_ack).await
}

async fn f36s_confirms_never_come(case: Case) -> Figures {
    let is_confirm =
        |frame: &Frame<'_>| frame.way == Way::ToClient && frame.is_command(PUBLISH_CONFIRM);
    confirms_vanish(case, Stream, is_confirm).await
}
