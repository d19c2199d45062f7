//! What people read, at a terminal or as Markdown, and the file that programs read.

use crate::figure::Figure;
use crate::formats::Formats;
use crate::latency::Latency;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::peers::Peers;
use crate::scale::Scale;
use crate::scrape::Scrape;
use crate::snapshot::Snapshot;
use crate::start::Start;
use crate::table::Table;
use crate::throughput::Throughput;
use crate::verdict::Verdict;
use mrcon_bench::failure::{Failure, Result};
use mrcon_bench::output::say;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The results of one section.
pub(crate) trait Chapter {
    fn title(&self) -> &'static str;
    /// How it was measured, a paragraph each.
    fn method(&self) -> Vec<String>;
    fn tables(&self) -> Vec<Table>;
    fn verdicts(&self) -> Vec<Verdict>;
}

/// Everything that one run has measured.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    /// When it began, in UTC.
    pub(crate) date: String,
    pub(crate) version: String,
    pub(crate) machine: Machine,
    pub(crate) mongodb: String,
    pub(crate) rabbitmq: String,
    pub(crate) rounds: u32,
    /// How long all of it took.
    pub(crate) seconds: u64,
    /// Too small to judge by.
    pub(crate) quick: bool,
    pub(crate) throughput: Option<Throughput>,
    pub(crate) latency: Option<Latency>,
    pub(crate) memory: Option<Memory>,
    pub(crate) scale: Option<Scale>,
    pub(crate) peers: Option<Peers>,
    pub(crate) scrape: Option<Scrape>,
    #[serde(default)]
    pub(crate) snapshot: Option<Snapshot>,
    #[serde(default)]
    pub(crate) formats: Option<Formats>,
    #[serde(default)]
    pub(crate) start: Option<Start>,
    /// Of all chapters; filled in when the run is over.
    pub(crate) verdicts: Vec<Verdict>,
}

/// The least and the most of all rounds.
pub(crate) fn range(figure: &Figure, show: impl Fn(f64) -> String) -> String {
    format!("{}-{}", show(figure.min), show(figure.max))
}

/// How far the rounds lie apart, with a mark if that is too far to trust the median.
pub(crate) fn noise(figure: &Figure) -> String {
    let mark = if figure.is_noisy() { "!" } else { "" };
    format!("{:.0} %{mark}", figure.spread() * 100.0)
}

impl Results {
    fn chapters(&self) -> Vec<&dyn Chapter> {
        fn chapter<C: Chapter>(one: &Option<C>) -> Option<&dyn Chapter> {
            one.as_ref().map(|one| one as &dyn Chapter)
        }
        let all = [
            chapter(&self.throughput),
            chapter(&self.latency),
            chapter(&self.memory),
            chapter(&self.scale),
            chapter(&self.peers),
            chapter(&self.scrape),
            chapter(&self.snapshot),
            chapter(&self.formats),
            chapter(&self.start),
        ];
        all.into_iter().flatten().collect()
    }

    /// Holds every chapter against its limits.
    pub(crate) fn judge(&mut self) {
        let verdicts = self.chapters().into_iter().flat_map(Chapter::verdicts);
        self.verdicts = verdicts.collect();
    }

    fn about(&self) -> [String; 3] {
        let noisy =
            "spread: the rounds' largest difference as a part of their median; ! above 10 %";
        let quick = if self.quick {
            "; QUICK: too small to judge by"
        } else {
            ""
        };
        [
            format!("{}, mrcond {}", self.date, self.version),
            format!(
                "{}; MongoDB {}, RabbitMQ {}",
                self.machine, self.mongodb, self.rabbitmq
            ),
            format!(
                "medians of {} rounds; {noisy}{quick}; all of it took {:.1} min",
                self.rounds,
                self.seconds as f64 / 60.0
            ),
        ]
    }

    pub(crate) fn print(&self) {
        say("");
        self.about().iter().for_each(say);
        for chapter in self.chapters() {
            say(format_args!("\n{}", chapter.title().to_uppercase()));
            chapter.method().iter().for_each(say);
            for table in chapter.tables() {
                say("");
                table.terminal().iter().for_each(say);
            }
        }
        say("");
        for verdict in &self.verdicts {
            let (measured, wanted) = (verdict.measured(), verdict.wanted());
            say(format_args!(
                "{:8} {}: {measured} ({wanted})",
                verdict.word(),
                verdict.what
            ));
        }
    }

    pub(crate) fn markdown(&self) -> String {
        let mut lines: Vec<String> = self
            .about()
            .iter()
            .map(|line| format!("- {line}"))
            .collect();
        for chapter in self.chapters() {
            lines.extend([String::new(), format!("### {}", chapter.title())]);
            for paragraph in chapter.method() {
                lines.extend([String::new(), paragraph]);
            }
            for table in chapter.tables() {
                lines.push(String::new());
                lines.extend(table.markdown());
            }
        }
        lines.extend([String::new(), "### Limits".into(), String::new()]);
        let mut table = Table::new(4, &["limit", "measured", "wanted", ""]);
        for verdict in &self.verdicts {
            let (measured, wanted) = (verdict.measured(), verdict.wanted());
            table.row([
                verdict.what.clone(),
                measured,
                wanted,
                verdict.word().into(),
            ]);
        }
        lines.extend(table.markdown());
        lines.join("\n") + "\n"
    }

    pub(crate) fn write_json(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| Failure::because(path.display(), error, "report this"))?;
        write(path, &(text + "\n"))
    }

    pub(crate) fn read_json(path: &Path) -> Result<Results> {
        let failed = |error: &dyn std::fmt::Display| {
            let remedy = "name a file that this version of the benchmark has written";
            Failure::because(path.display(), error, remedy)
        };
        let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
        serde_json::from_str(&text).map_err(|error| failed(&error))
    }
}

pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    let place = path.display();
    if let Some(folder) = path.parent() {
        // Writing the file says what is wrong with the folder.
        let _ = std::fs::create_dir_all(folder);
    }
    std::fs::write(path, text)
        .map_err(|error| Failure::because(&place, error, "name another file"))?;
    say(format_args!("written to {place}"));
    Ok(())
}
