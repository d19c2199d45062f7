//! The table that people read, and the file that programs read.

use crate::meter::Measured;
use crate::results::{
    LEAST_RATIO, MOST_COUNTING, MOST_CPU_US, MOST_MIB, MOST_SCRAPE_MS, Results, Series, Subject,
};
use mrcon_bench::failure::{Failure, Result};
use mrcon_bench::output::{grouped, say};
use std::path::Path;

pub(crate) fn print(results: &Results) {
    say("");
    say(&results.machine);
    say(format_args!(
        "MongoDB {}, RabbitMQ {}",
        results.mongodb, results.rabbitmq
    ));
    say(format_args!(
        "catch-up of {} orders of {} bytes of BSON, {} bytes as change events; window {}",
        grouped(results.events),
        results.document_bytes,
        results.event_bytes,
        grouped(u64::from(results.window)),
    ));
    say("from the first confirmed event to the last; medians, then the events/s of every round");
    say("");
    say(format_args!(
        "{:8} {:20} {:>9} {:>7} {:>13} {:>9}   {}",
        "queue", "", "events/s", "of pipe", "CPU us/event", "peak MiB", "every round"
    ));
    let mut queue = None;
    for series in &results.series {
        if queue.is_some_and(|queue| queue != series.queue) {
            say("");
        }
        queue = Some(series.queue);
        say(row(series, results));
    }
    say("");
    let word = |met| if met { "met" } else { "NOT MET" };
    for judgement in &results.judgements {
        say(format_args!(
            "{:8} {:.2} of the bare pipe (at least {LEAST_RATIO}): {}; {:.1} us of CPU (at most {MOST_CPU_US}): {}; {:.1} MiB (at most {MOST_MIB}): {}",
            judgement.queue,
            judgement.ratio,
            word(judgement.ratio_met),
            judgement.cpu_us_per_event,
            word(judgement.cpu_met),
            judgement.peak_rss_mib,
            word(judgement.memory_met),
        ));
    }
    if let Some(counting) = &results.counting {
        say(format_args!(
            "metrics  {:.3} us of CPU an event, counted alone: {:.1} % of the library's (less than {:.0} %): {}; the library with them {:.1} us, without {:.1} us",
            counting.us_per_event,
            counting.part * 100.0,
            MOST_COUNTING * 100.0,
            word(counting.part < MOST_COUNTING),
            counting.with_us,
            counting.without_us,
        ));
    }
    let scrape = &results.scrape;
    say(format_args!(
        "scrape   {:.1} ms for {} connectors, {} lines, {} KiB (less than {MOST_SCRAPE_MS:.0} ms): {}; a bare answer of {} lines {:.1} ms",
        scrape.median_ms,
        scrape.connectors,
        grouped(scrape.lines as u64),
        grouped(scrape.bytes as u64 >> 10),
        word(scrape.median_ms < MOST_SCRAPE_MS),
        grouped(scrape.bare_lines as u64),
        scrape.bare_ms,
    ));
}

fn row(series: &Series, results: &Results) -> String {
    let rounds: Vec<String> = series.rounds.iter().map(rate).collect();
    format!(
        "{:8} {:20} {:>9} {:>7} {:>13.1} {:>9.1}   {}",
        series.queue.unwrap_or("-"),
        series.subject.title(),
        rate(&series.median),
        ratio(series, results),
        series.median.cpu_us_per_event,
        series.median.peak_rss_bytes as f64 / f64::from(1 << 20),
        rounds.join(" "),
    )
}

fn rate(measured: &Measured) -> String {
    grouped(measured.events_per_second.round() as u64)
}

/// Only mrcond is compared; see [`crate::results::Judgement::ratio`].
fn ratio(series: &Series, results: &Results) -> String {
    let judgement = results
        .judgements
        .iter()
        .find(|judgement| Some(judgement.queue) == series.queue);
    match judgement {
        Some(judgement) if series.subject == Subject::Mrcond => format!("{:.2}", judgement.ratio),
        _ => String::new(),
    }
}

pub(crate) fn write_json(results: &Results, path: &Path) -> Result<()> {
    let place = path.display();
    let text = serde_json::to_string_pretty(results)
        .map_err(|error| Failure::because(&place, error, "report this"))?;
    if let Some(folder) = path.parent() {
        // Writing the file says what is wrong with the folder.
        let _ = std::fs::create_dir_all(folder);
    }
    std::fs::write(path, text + "\n")
        .map_err(|error| Failure::because(&place, error, "name another file with --json"))?;
    say(format_args!("written to {place}"));
    Ok(())
}
