//! What each format costs: mrcond carries the same orders in one after the other, and their CPU time is held
//! against that of relaxed Extended JSON in the same round.

use crate::catch_up;
use crate::figure::median;
use crate::meter::{Costs, Measured};
use crate::options::Options;
use crate::place::Place;
use crate::report::{Chapter, noise};
use crate::rounds::{Collected, turned};
use crate::stage::{QUEUE, Streams};
use crate::table::Table;
use crate::target::Target;
use crate::verdict::Verdict;
use bson::Document;
use mrcon_bench::failure::Result;
use mrcon_bench::output::{grouped, say};
use serde::{Deserialize, Serialize};

/// Where to: what costs the least, so that the format counts the most.
const TARGET: Target = Target::Native;

/// One way to write an event.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Case {
    name: &'static str,
    /// Lines of the entry, in a flow mapping's form.
    settings: &'static [&'static str],
    /// How many times the CPU time of the first case it may take.
    most: Option<f64>,
}

impl Case {
    const fn new(name: &'static str, settings: &'static [&'static str], most: Option<f64>) -> Case {
        Case {
            name,
            settings,
            most,
        }
    }
}

/// All cases; others are held against the first.
const CASES: [Case; 11] = [
    Case::new("relaxed", &[], None),
    Case::new("canonical", &["format: canonical"], None),
    Case::new("bson", &["format: bson"], None),
    Case::new("document", &["format: document"], Some(1.5)),
    Case::new("cloudevents", &["format: cloudevents"], Some(1.5)),
    Case::new(
        "cloudevents, binary",
        &["format: cloudevents", "cloudevents: {mode: binary}"],
        Some(1.5),
    ),
    Case::new("debezium", &["format: debezium"], None),
    Case::new(
        "relaxed, gzip",
        &["compression: {algorithm: gzip, min_bytes: 0}"],
        None,
    ),
    Case::new(
        "relaxed, zstd",
        &["compression: {algorithm: zstd, min_bytes: 0}"],
        None,
    ),
    Case::new(
        "document, zstd",
        &[
            "format: document",
            "compression: {algorithm: zstd, min_bytes: 0}",
        ],
        None,
    ),
    Case::new(
        "relaxed, 3 masked",
        &[
            "mask: [{path: customer.name, action: hash, key: a-key-of-sixteen}, {path: payment.last4, action: mask}, {path: totals.tax, action: drop}]",
        ],
        Some(1.3),
    ),
];

/// Costs by format.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Formats {
    events: u64,
    document_bytes: u64,
    formats: Vec<Carried>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Carried {
    name: String,
    costs: Costs,
    /// Of each round, the CPU time of an event as a multiple of that in relaxed; the median.
    ratio: f64,
    most: Option<f64>,
}

impl Chapter for Formats {
    fn title(&self) -> &'static str {
        "Formats"
    }

    fn method(&self) -> Vec<String> {
        vec![format!(
            "The same {} orders of {} B, carried by mrcond to {} in each format. CPU of mrcond an event, and its \
             multiple of that in relaxed Extended JSON in the same round.",
            grouped(self.events),
            self.document_bytes,
            TARGET.as_str()
        )]
    }

    fn tables(&self) -> Vec<Table> {
        let head = [
            "format", "events/s", "us CPU", "peak MiB", "spread", "ratio",
        ];
        let mut table = Table::new(1, &head);
        for carried in &self.formats {
            let costs = &carried.costs;
            table.row([
                carried.name.clone(),
                grouped(costs.events_per_second.median as u64),
                format!("{:.2}", costs.cpu_us_per_event.median),
                format!("{:.0}", costs.peak_rss_mib.median),
                noise(&costs.cpu_us_per_event),
                format!("{:.2}", carried.ratio),
            ]);
        }
        vec![table]
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let limited = self.formats.iter();
        let limited = limited.filter_map(|carried| Some((carried, carried.most?)));
        let verdicts = limited.map(|(carried, most)| {
            let what = format!("CPU of {}, times relaxed", carried.name);
            Verdict::at_most(what, carried.ratio, most, "")
        });
        verdicts.collect()
    }
}

pub(crate) async fn measure(place: &Place<'_>, options: &Options) -> Result<Formats> {
    let (events, rounds) = (options.events(), options.rounds());
    let (checkpoints, document_bytes) = prepare(place, events).await?;
    let mut collected = Collected::new();
    for round in 0..rounds {
        for case in turned(round, CASES.to_vec()) {
            let measured = carry(place, case, &checkpoints, events).await?;
            say(format_args!(
                "formats  round {}/{rounds}  {:20} {:>8}/s {:>6.2} us {:>6.1} MiB",
                round + 1,
                case.name,
                grouped(measured.events_per_second as u64),
                measured.cpu_us_per_event,
                measured.peak_rss_mib,
            ));
            collected.add(case.name, measured);
        }
    }
    place.stage.clear().await?;
    Ok(Formats {
        events,
        document_bytes,
        formats: carried(&collected),
    })
}

fn carried(collected: &Collected<&'static str, Measured>) -> Vec<Carried> {
    let reference = collected.of(&CASES[0].name);
    let of = |case: &Case| {
        let rounds = collected.of(&case.name);
        let ratios = rounds.iter().zip(reference);
        let ratios = ratios.map(|(one, other)| one.cpu_us_per_event / other.cpu_us_per_event);
        Some(Carried {
            name: case.name.to_owned(),
            ratio: median(ratios)?,
            costs: Costs::of(rounds)?,
            most: case.most,
        })
    };
    CASES.iter().filter_map(of).collect()
}

/// Saves where every run begins, then writes the orders. Returns the positions, and the size of an order.
async fn prepare(place: &Place<'_>, events: u64) -> Result<(Vec<Document>, u64)> {
    let stage = &place.stage;
    stage.check_oplog(events).await?;
    stage.set(1).await?;
    let config = |text| changed(text, CASES[0]);
    let daemon = place.start_changed(TARGET, Streams::Each(1), config)?;
    place.ready(daemon).await?.stop().await?;
    stage.broker.delete(QUEUE).await?;
    let checkpoints = stage.positions().await?;
    say(format_args!("writing {} orders", grouped(events)));
    let document_bytes = stage.write_orders(1, events).await?;
    Ok((checkpoints, document_bytes))
}

async fn carry(
    place: &Place<'_>,
    case: Case,
    checkpoints: &[Document],
    events: u64,
) -> Result<Measured> {
    place.stage.restore(checkpoints).await?;
    let config = |text| changed(text, case);
    let mut daemon = place.start_changed(TARGET, Streams::Each(1), config)?;
    let (measured, _) = catch_up::watch(&mut daemon, events, None).await?;
    daemon.stop().await?;
    place.verify(case.name, TARGET, 1, events).await?;
    place.discard(1).await?;
    Ok(measured)
}

/// The configuration of one connector with the case's settings. All have the same image options, as the
/// position that they begin from was saved under these.
fn changed(config: String, case: Case) -> String {
    let mut text = config.replacen(
        "coll_name: \"orders\"",
        "coll_name: \"orders\", full_document: update_lookup",
        1,
    );
    for line in case.settings {
        text.push_str("    ");
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::Stage;
    use mrcon::config::{FullDocument, ValidConfig};

    #[test]
    fn slow_format_is_within_the_limit() {
        let measured = |cpu_us_per_event| Measured {
            events_per_second: 100.0,
            cpu_us_per_event,
            peak_rss_mib: 30.0,
        };
        let mut collected = Collected::new();
        for (name, micros) in [
            ("relaxed", [2.0, 4.0]),
            ("document", [2.9, 6.0]),
            ("cloudevents", [3.2, 6.4]),
            ("debezium", [9.0, 9.0]),
        ] {
            for micros in micros {
                collected.add(name, measured(micros));
            }
        }
        let formats = Formats {
            events: 10,
            document_bytes: 750,
            formats: carried(&collected),
        };
        let verdicts = formats.verdicts();
        let met: Vec<_> = verdicts.iter().map(|verdict| verdict.met).collect();
        assert_eq!(met, [true, false]);
        assert_eq!(formats.tables()[0].terminal().len(), 5);
    }

    #[test]
    fn daemon_refuses_a_format_or_its_position() {
        for case in CASES {
            let address = "127.0.0.1:3000".parse().unwrap();
            let text = changed(Stage::config(address, TARGET, Streams::Each(1)), case);
            let config = ValidConfig::from_yaml("config.yaml", text.as_bytes()).unwrap();
            let entry = &config.collections()[0];
            assert_eq!(entry.watched.full_document, FullDocument::UpdateLookup);
            let packs = case.name.ends_with("gzip") || case.name.ends_with("zstd");
            assert_eq!(entry.compression.is_some(), packs, "{}", case.name);
        }
    }
}
