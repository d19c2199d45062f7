//! Runs scenarios and says of each, in a line, what came of it.
//!
//! It speaks as much of libtest's command line as cargo and nextest use. Which scenarios did not run is
//! said, so that nobody takes them for passed.

use crate::common::daemon;
use std::collections::VecDeque;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// `all`: every scenario, instead of the fast ones.
const SELECTION: &str = "MRCON_FAULTS";
/// A number that decides what scenarios leave to chance.
const SEED: &str = "MRCON_FAULTS_SEED";
/// `1`: RELIABILITY.md gets the figures of those that passed.
const RECORD: &str = "MRCON_FAULTS_RECORD";
const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../RELIABILITY.md");
/// They mostly wait for servers, which have the machine for themselves meanwhile.
const JOBS: usize = 2;
/// Longer than any scenario takes on a slow machine.
const DEADLINE: Duration = Duration::from_secs(600);

/// One row of RELIABILITY.md.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    /// Its function's.
    pub(crate) name: &'static str,
    /// Whether it runs with all the other tests.
    pub(crate) is_fast: bool,
    pub(crate) run: fn(Case) -> Running,
}

pub(crate) type Running = Pin<Box<dyn Future<Output = Figures>>>;

/// A scenario from a function; `fast` lets it run with all the other tests.
macro_rules! scenario {
    ($name:ident) => {
        $crate::harness::Scenario {
            name: stringify!($name),
            is_fast: false,
            run: |case| Box::pin($name(case)),
        }
    };
    ($name:ident, fast) => {
        $crate::harness::Scenario {
            is_fast: true,
            ..scenario!($name)
        }
    };
}
pub(crate) use scenario;

/// What a scenario gets.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    seed: u64,
}

impl Case {
    /// `F05`.
    pub(crate) fn number(&self) -> String {
        title(self.name).0
    }

    /// The scenario's chance: the same for the same seed.
    pub(crate) fn chance(&self) -> fastrand::Rng {
        let mut hasher = DefaultHasher::new();
        (self.seed, self.name).hash(&mut hasher);
        fastrand::Rng::with_seed(hasher.finish())
    }
}

/// What came of a scenario in which everything was as it has to be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    pub(crate) events: usize,
    pub(crate) lost: usize,
    pub(crate) duplicates: usize,
    /// How many duplicates there may be.
    pub(crate) bound: usize,
    /// From the fault, or from its end where it says so, until what was written after it is confirmed.
    pub(crate) recovery: Option<Duration>,
}

impl Figures {
    /// Nothing lost, nothing twice.
    pub(crate) fn exact(events: usize, recovery: Duration) -> Figures {
        Figures {
            events,
            recovery: Some(recovery),
            ..Figures::default()
        }
    }

    fn recovery(&self) -> String {
        let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
        self.recovery.map_or("-".to_owned(), seconds)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "lost {}, duplicates {} (bound {}), recovered in {}, events {}",
            self.lost,
            self.duplicates,
            self.bound,
            self.recovery(),
            self.events
        )
    }
}

/// `f05_primary_is_killed` as `F05` and `primary is killed`.
fn title(name: &str) -> (String, String) {
    let (number, words) = name.split_once('_').unwrap_or((name, ""));
    (number.to_uppercase(), words.replace('_', " "))
}

pub(crate) fn main(groups: &[&[Scenario]]) -> ExitCode {
    let mut all: Vec<Scenario> = groups.iter().copied().flatten().copied().collect();
    all.sort_by_key(|scenario| scenario.name);
    let options = Options::from(std::env::args().skip(1), &all);
    if options.lists {
        options.list(&all);
        return ExitCode::SUCCESS;
    }
    let (chosen, left): (Vec<Scenario>, Vec<Scenario>) =
        all.iter().partition(|scenario| options.selects(scenario));
    let begin = Instant::now();
    let results = run_all(&chosen, options.jobs, options.seed);
    let failed: Vec<&str> = results
        .iter()
        .filter(|(_, figures)| figures.is_none())
        .map(|(name, _)| *name)
        .collect();
    eprintln!(
        "\nfaults: {} passed, {} failed, in {:.0} s; {}",
        results.len() - failed.len(),
        failed.len(),
        begin.elapsed().as_secs_f64(),
        left_out(&left)
    );
    if std::env::var(RECORD).is_ok_and(|value| value == "1") {
        record(TABLE, &results);
    }
    for name in &failed {
        eprintln!("again: {}", again(name, options.seed));
    }
    // A scenario that starts them in another way would not find what they tell.
    let bare = daemon::without_canary();
    if bare > 0 {
        eprintln!("{bare} daemons had no passwords that can be looked for; see planted::start");
    }
    match failed.is_empty() && bare == 0 {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn left_out(left: &[Scenario]) -> String {
    if left.is_empty() {
        return "all scenarios ran".to_owned();
    }
    let numbers: Vec<String> = left.iter().map(|one| title(one.name).0).collect();
    format!(
        "NOT run, `make test-faults` runs them too: {}",
        numbers.join(" ")
    )
}

fn again(name: &str, seed: u64) -> String {
    format!("{SEED}={seed} cargo test --locked -p mrcond --test faults -- --exact {name}")
}

/// What the command line and the environment say.
struct Options {
    lists: bool,
    only_left_out: bool,
    is_exact: bool,
    filters: Vec<String>,
    runs_all: bool,
    jobs: usize,
    seed: u64,
}

impl Options {
    fn from(arguments: impl Iterator<Item = String>, all: &[Scenario]) -> Options {
        let mut options = Options {
            lists: false,
            only_left_out: false,
            is_exact: false,
            filters: Vec::new(),
            runs_all: std::env::var(SELECTION).is_ok_and(|value| value == "all"),
            jobs: JOBS,
            seed: seed(),
        };
        let mut arguments = arguments.peekable();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--list" => options.lists = true,
                "--ignored" => options.only_left_out = true,
                "--include-ignored" => options.runs_all = true,
                "--exact" => options.is_exact = true,
                "--test-threads" => {
                    let jobs = arguments.next().and_then(|jobs| jobs.parse().ok());
                    options.jobs = jobs.unwrap_or(JOBS);
                }
                "--format" | "--skip" | "--color" | "--logfile" | "-Z" => drop(arguments.next()),
                other => match other.strip_prefix("--test-threads=") {
                    Some(jobs) => options.jobs = jobs.parse().unwrap_or(JOBS),
                    None if other.starts_with('-') => {}
                    None => options.filters.push(other.to_owned()),
                },
            }
        }
        assert!(!all.is_empty(), "no scenarios");
        options
    }

    fn is_named(&self, scenario: &Scenario) -> bool {
        self.filters.iter().any(|filter| match self.is_exact {
            true => scenario.name == filter,
            false => scenario.name.contains(filter.as_str()),
        })
    }

    /// Who is named runs, fast or not.
    fn selects(&self, scenario: &Scenario) -> bool {
        match self.filters.is_empty() {
            true if self.only_left_out => !scenario.is_fast,
            true => scenario.is_fast || self.runs_all,
            false => self.is_named(scenario),
        }
    }

    #[allow(clippy::print_stdout, reason = "this is what was asked for")]
    fn list(&self, all: &[Scenario]) {
        let listed = all
            .iter()
            .filter(|scenario| !self.only_left_out || !(scenario.is_fast || self.runs_all))
            .filter(|scenario| self.filters.is_empty() || self.is_named(scenario));
        listed.for_each(|scenario| println!("{}: test", scenario.name));
    }
}

fn seed() -> u64 {
    let given = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| fastrand::u64(0..1_000_000))
}

type Results = Vec<(&'static str, Option<Figures>)>;

fn run_all(chosen: &[Scenario], jobs: usize, seed: u64) -> Results {
    let waiting: Mutex<VecDeque<Scenario>> = Mutex::new(chosen.iter().copied().collect());
    let results = Mutex::new(Results::new());
    let next = || locked(&waiting).pop_front();
    thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, chosen.len().max(1)) {
            scope.spawn(|| {
                while let Some(scenario) = next() {
                    let result = run(scenario, seed);
                    locked(&results).push((scenario.name, result));
                }
            });
        }
    });
    results.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Runs one in a thread of its name, which a panic then tells; says what came of it.
fn run(scenario: Scenario, seed: u64) -> Option<Figures> {
    let begin = Instant::now();
    let case = Case {
        name: scenario.name,
        seed,
    };
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap_or_else(|error| panic!("start a runtime: {error}"));
        runtime.block_on(async {
            let ended = tokio::time::timeout(DEADLINE, (scenario.run)(case)).await;
            ended.unwrap_or_else(|_| panic!("not over within {DEADLINE:?}"))
        })
    };
    let thread = thread::Builder::new().name(scenario.name.to_owned());
    let figures = thread.spawn(run).ok().and_then(|it| it.join().ok());
    let (number, words) = title(scenario.name);
    let took = begin.elapsed().as_secs_f64();
    match &figures {
        Some(figures) => eprintln!("{number} {words}: {figures} [{took:.0} s]"),
        None => eprintln!(
            "{number} {words}: FAILED after {took:.0} s; again: {}",
            again(scenario.name, seed)
        ),
    }
    figures
}

/// Puts what was measured into the last cells of the scenarios' rows.
fn record(path: &str, results: &Results) {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let lines = text.lines().map(|line| {
        let row = line.strip_prefix("| ").unwrap_or_default();
        let measured = results.iter().find_map(|(name, figures)| {
            let is_its = row.split(' ').next() == Some(&title(name).0);
            figures.as_ref().filter(|_| is_its)
        });
        match measured {
            Some(figures) => measured_row(line, figures),
            None => line.to_owned(),
        }
    });
    let text: String = lines.map(|line| line + "\n").collect();
    std::fs::write(path, text).unwrap_or_else(|error| panic!("{path}: {error}"));
}

fn measured_row(line: &str, figures: &Figures) -> String {
    let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
    let (kept, old) = cells.split_at(cells.len().saturating_sub(4));
    // Who has lost them is said by hand.
    let by = old.get(1).and_then(|lost| lost.trim().split_once(' '));
    let by = by.map_or(String::new(), |(_, by)| format!(" {by}"));
    let kept = kept.join("|");
    format!(
        "|{kept}| {} | {}{by} | {} ({}) | {} |",
        figures.events,
        figures.lost,
        figures.duplicates,
        figures.bound,
        figures.recovery()
    )
}

fn locked<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
