//! Catch-up: orders are written once, and then one program after the other carries them from the
//! same position on.

mod results;

pub(crate) use results::{Sizes, Throughput};

use crate::catch_up;
use crate::meter::{Measured, counting_alone};
use crate::options::Options;
use crate::place::Place;
use crate::probe::{Probe, Subject};
use crate::reader;
use crate::rounds::{REFERENCE_ROUNDS, turned};
use crate::stage::{QUEUE, Stage, Streams};
use crate::target::Target;
use bson::Document;
use bson::raw::RawDocument;
use mrcon::envelope::{Envelope, Format, Scratch};
use mrcon::event::ChangeEvent;
use mrcon_bench::failure::{Failure, Result};
use mrcon_bench::output::{grouped, say};
use results::Campaigned;
use tokio::time::timeout;

/// Events whose size is looked at.
const SAMPLE: u64 = 100;

struct Campaign<'a> {
    place: &'a Place<'a>,
    events: u64,
    prepared: Prepared,
}

/// What all measurements begin from.
struct Prepared {
    /// For the pipes: where the change stream stood before the orders.
    position: String,
    /// For mrcond: the same, as it saved it itself.
    checkpoints: Vec<Document>,
    sizes: Sizes,
}

pub(crate) async fn measure(place: &Place<'_>, options: &Options) -> Result<Throughput> {
    let (events, rounds, targets) = (options.events(), options.rounds(), &options.queues);
    let campaign = Campaign {
        place,
        events,
        prepared: prepare(place, events).await?,
    };
    let mut collected = Campaigned::new();
    for round in 0..rounds {
        for (target, subject) in plan(round, targets) {
            let measured = campaign.measure(target, subject).await?;
            report(round, rounds, target, subject, &measured);
            collected.add(target, subject, measured);
        }
    }
    let sizes = campaign.prepared.sizes;
    Ok(collected.into_results(events, sizes, targets, counting_alone()?))
}

/// Everything that is measured in a round. The usual client and the library are compared once, with the
/// first target.
fn plan(round: u32, targets: &[Target]) -> Vec<(Option<Target>, Subject)> {
    let is_reference = round < REFERENCE_ROUNDS;
    let mut plan = vec![(None, Subject::Reader)];
    for target in targets {
        let target = Some(*target);
        plan.extend([Subject::Mrcond, Subject::Pipe].map(|subject| (target, subject)));
        if is_reference {
            plan.push((target, Subject::Publisher));
        }
    }
    if is_reference {
        let once = [Subject::PipeAmqprs, Subject::Counting, Subject::NotCounting];
        plan.extend(once.map(|subject| (targets.first().copied(), subject)));
    }
    turned(round, plan)
}

fn report(round: u32, rounds: u32, target: Option<Target>, subject: Subject, measured: &Measured) {
    say(format_args!(
        "round {}/{rounds}  {:8} {:20} {:>8}/s {:>6.1} us {:>6.1} MiB",
        round + 1,
        target.map_or("", Target::as_str),
        subject.title(),
        grouped(measured.events_per_second as u64),
        measured.cpu_us_per_event,
        measured.peak_rss_mib,
    ));
}

/// Notes the positions, then writes the orders.
async fn prepare(place: &Place<'_>, events: u64) -> Result<Prepared> {
    let stage = &place.stage;
    stage.check_oplog(events).await?;
    stage.set(1).await?;
    let orders = Stage::orders(&stage.client);
    let position = reader::position(&orders).await?;
    // mrcond runs once, so that it saves where it begins.
    place
        .start_ready(Target::Classic, Streams::Each(1))
        .await?
        .stop()
        .await?;
    stage.broker.delete(QUEUE).await?;
    let checkpoints = stage.positions().await?;
    say(format_args!("writing {} orders", grouped(events)));
    let document_bytes = stage.write_orders(1, events).await?;
    let (event_bytes, body_bytes) = sample(stage, &position, SAMPLE.min(events)).await?;
    Ok(Prepared {
        position,
        checkpoints,
        sizes: Sizes {
            document_bytes,
            event_bytes,
            body_bytes,
        },
    })
}

/// How large events and mrcond's bodies are on average.
async fn sample(stage: &Stage, position: &str, events: u64) -> Result<(u64, u64)> {
    let fail = |error: &dyn std::fmt::Display| {
        Failure::because("look at the events", error, "report this")
    };
    let (envelope, mut scratch) = (Envelope::new(Format::Relaxed), Scratch::default());
    let mut cursor = reader::open(&Stage::orders(&stage.client), Some(position)).await?;
    let (mut seen, mut event_bytes, mut body_bytes) = (0, 0, 0);
    while seen < events {
        let mut batch = reader::next(&mut cursor).await?;
        while let Some(raw) = batch.take().filter(|_| seen < events) {
            let raw = RawDocument::from_bytes(raw).map_err(|error| fail(&error))?;
            let event = ChangeEvent::parse(raw).map_err(|error| fail(&error))?;
            let message = envelope.message(&event, &mut scratch);
            body_bytes += message.map_err(|error| fail(&error))?.body.len() as u64;
            event_bytes += raw.as_bytes().len() as u64;
            seen += 1;
        }
    }
    Ok((event_bytes / seen, body_bytes / seen))
}

impl Campaign<'_> {
    async fn measure(&self, target: Option<Target>, subject: Subject) -> Result<Measured> {
        let queue = target.unwrap_or(Target::Classic);
        if matches!(
            subject,
            Subject::Mrcond | Subject::Counting | Subject::NotCounting
        ) {
            self.place.stage.restore(&self.prepared.checkpoints).await?;
        }
        let measured = match subject {
            Subject::Mrcond => self.measure_daemon(queue).await?,
            _ => self.measure_probe(queue, subject).await?,
        };
        if target.is_some() {
            let who = subject.as_str();
            self.place.verify(who, queue, 1, self.events).await?;
            self.place.discard(1).await?;
        }
        Ok(measured)
    }

    async fn measure_daemon(&self, target: Target) -> Result<Measured> {
        let mut daemon = self.place.start_daemon(target, Streams::Each(1))?;
        let (measured, _) = catch_up::watch(&mut daemon, self.events, None).await?;
        daemon.stop().await?;
        Ok(measured)
    }

    async fn measure_probe(&self, target: Target, subject: Subject) -> Result<Measured> {
        let Sizes {
            event_bytes,
            body_bytes,
            ..
        } = self.prepared.sizes;
        let probe = Probe {
            subject,
            target,
            events: self.events,
            position: Some(self.prepared.position.clone()),
            body_bytes: body_bytes as usize,
            stretch: body_bytes as isize - event_bytes as isize,
        };
        let failed = |reason: &dyn std::fmt::Display| {
            Failure::because(subject.as_str(), reason, "check both servers and try again")
        };
        let output = timeout(
            catch_up::patience(self.events),
            Place::command(&probe)?.output(),
        )
        .await;
        let output = output.map_err(|_| failed(&"it does not come to an end"))?;
        let output = output.map_err(|error| failed(&error))?;
        serde_json::from_slice(&output.stdout).map_err(|_| failed(&output.status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_program_always_comes_first() {
        let targets = [Target::Classic, Target::Quorum];
        let (third, fourth) = (plan(2, &targets), plan(3, &targets));
        assert_eq!(third.len(), 5, "a reader, and two programs for each queue");
        assert!(third.iter().eq(fourth.iter().rev()));
        assert!(plan(0, &targets).contains(&(Some(Target::Classic), Subject::Counting)));
    }
}
