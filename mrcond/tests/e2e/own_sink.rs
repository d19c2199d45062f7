//! Sinks of a program's own: the library's examples, built without any code for RabbitMQ.

mod endpoint;

use crate::common::daemon::Watchdog;
use crate::common::load::{self, Load};
use crate::common::rig::Rig;
use crate::common::services;
use crate::common::truth::Event;
use crate::common::wait::{PATIENTLY, SOON, eventually};
use bson::doc;
use endpoint::{Endpoint, Trouble};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;
use tokio::time::timeout;

/// How long it may take to compile the library again, on a busy machine.
const COMPILING: Duration = Duration::from_secs(1200);

/// An example's file, without the protocols that it does not need.
async fn example(name: &str) -> PathBuf {
    static BUILT: OnceCell<HashMap<String, PathBuf>> = OnceCell::const_new();
    let built = BUILT.get_or_init(build).await;
    built
        .get(name)
        .unwrap_or_else(|| panic!("cargo built no {name}: {built:?}"))
        .clone()
}

async fn build() -> HashMap<String, PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--locked", "-p", "mrcon", "--no-default-features"]);
    command.args(["--example", "file_sink", "--example", "http_sink"]);
    command.arg("--message-format=json-render-diagnostics");
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command.stderr(Stdio::inherit()).kill_on_drop(true);
    let output = timeout(COMPILING, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("cargo needs longer than {COMPILING:?}"));
    let output = output.unwrap_or_else(|error| panic!("start cargo: {error}"));
    assert!(output.status.success(), "cargo build: {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let messages = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let built = messages.filter_map(|message: Value| {
        let name = message["target"]["name"].as_str()?.to_owned();
        Some((name, PathBuf::from(message["executable"].as_str()?)))
    });
    built.collect()
}

/// A running example.
struct Program {
    child: Child,
    pid: u32,
    _watchdog: Watchdog,
}

impl Program {
    async fn start(rig: &Rig, name: &str, target: &[&str]) -> Program {
        let mut command = Command::new(example(name).await);
        command.args([&rig.uris().mongo, &rig.name, "orders"]);
        command.args(target).kill_on_drop(true);
        let child = command.spawn();
        let child = child.unwrap_or_else(|error| panic!("start {name}: {error}"));
        let pid = child.id().unwrap_or_else(|| unreachable!("just started"));
        let _watchdog = Watchdog::of(pid);
        Program {
            child,
            pid,
            _watchdog,
        }
    }

    /// Ends it as a power cut would.
    async fn kill(mut self) {
        services::signal("KILL", self.pid).await;
        let _ = self.child.wait().await;
        self._watchdog.dismiss();
    }

    /// Ends it as Ctrl-C does; it has to say that all is well.
    async fn interrupt(mut self) {
        services::signal("INT", self.pid).await;
        let ended = timeout(SOON, self.child.wait()).await;
        let ended = ended.unwrap_or_else(|_| panic!("it does not end"));
        let status = ended.unwrap_or_else(|error| panic!("{error}"));
        self._watchdog.dismiss();
        assert!(status.success(), "{status}");
    }
}

/// Waits until a position of the collection's connector is saved, and one behind the event of this number, if
/// there is one: from the first one on nothing may be missing. Its own number.
async fn position(rig: &Rig, behind: Option<i64>) -> i64 {
    let tokens = rig.client.database("mrcon");
    let tokens = tokens.collection::<bson::Document>("resume_tokens");
    eventually(PATIENTLY, "a position is saved", async || {
        let query = doc! {"_id.db": &rig.name, "token": {"$exists": true}};
        match tokens.find_one(query).await {
            Ok(Some(saved)) => match saved.get_i64("seq") {
                Ok(seq) if behind.is_none_or(|behind| seq > behind) => Ok(seq),
                other => Err(format!("{other:?}")),
            },
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// Removes what the test has left on a server that others use, too.
async fn clean(rig: &Rig) {
    let tokens = rig.client.database("mrcon");
    let tokens = tokens.collection::<bson::Document>("resume_tokens");
    let _ = tokens.delete_many(doc! {"_id.db": &rig.name}).await;
    rig.clean().await;
}

/// Every event is there, in order; what comes again does so from some earlier one on.
#[track_caller]
fn judge(truth: &[Event], delivered: &[String], most_repeats: usize) {
    let places: HashMap<&str, usize> = truth.iter().map(Event::token).zip(0..).collect();
    let (mut next, mut steps_back) = (0, 0);
    let mut before = None;
    for token in delivered {
        let place = *places
            .get(&**token)
            .unwrap_or_else(|| panic!("no event of MongoDB: {token}"));
        assert!(place <= next, "event {next} is missing before {place}");
        if before.is_some_and(|before| place != before + 1) {
            steps_back += 1;
        }
        before = Some(place);
        next = next.max(place + 1);
    }
    assert_eq!(next, truth.len(), "events are missing at the end");
    assert!(steps_back <= most_repeats, "{steps_back} steps back");
}

/// The tokens in the whole lines of the file.
fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let end = text.rfind('\n').map_or(0, |end| end + 1);
    let lines = text[..end].lines().map(|line| {
        let event: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        event["_id"]["_data"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    });
    lines.collect()
}

#[tokio::test]
async fn line_is_lost_torn_or_out_of_order_when_the_program_is_killed() {
    let rig = Rig::new("file-sink").await;
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(services::unique("events.jsonl"));
    let file = path.display().to_string();
    let mut program = Program::start(&rig, "file_sink", &[&file]).await;
    let mut saved = position(&rig, None).await;
    let load = Load::start(&rig.collection(), 0, Duration::from_millis(20));
    const KILLS: usize = 3;
    for _ in 0..KILLS {
        saved = position(&rig, Some(saved)).await;
        let before = lines(&path).len();
        eventually(PATIENTLY, "500 more lines", async || {
            let more = lines(&path).len() - before;
            (more >= 500).then_some(()).ok_or(format!("{more} lines"))
        })
        .await;
        program.kill().await;
        // As it is when the power goes in the midst of a write.
        tear(&path);
        program = Program::start(&rig, "file_sink", &[&file]).await;
    }
    load.finish().await;
    let truth = rig.truth().await;
    let last = truth.last().map(Event::token).unwrap_or_default();
    eventually(PATIENTLY, "the last event is written", async || {
        let lines = lines(&path);
        match lines.last().is_some_and(|line| line == last) {
            true => Ok(()),
            false => Err(format!("{} lines", lines.len())),
        }
    })
    .await;
    program.interrupt().await;
    judge(&truth, &lines(&path), KILLS);
    let _ = std::fs::remove_file(&path);
    clean(&rig).await;
}

/// A line without its end, of an event that nobody has confirmed.
fn tear(path: &Path) {
    use std::io::Write;
    let file = std::fs::OpenOptions::new().append(true).open(path);
    let torn = file.and_then(|mut file| file.write_all(b"{\"_id\": {\"_data\": \"82"));
    torn.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

#[tokio::test]
async fn event_is_lost_or_overtaken_when_the_endpoint_refuses_it_or_goes_away() {
    let rig = Rig::new("http-sink").await;
    let endpoint = Endpoint::start().await;
    let address = endpoint.address.to_string();
    let target = [&*address, "/events"];
    let program = Program::start(&rig, "http_sink", &target).await;
    position(&rig, None).await;
    let load = Load::start(&rig.collection(), 0, Duration::from_millis(50));
    let more = async |count: usize| {
        let before = endpoint.taken();
        eventually(PATIENTLY, "events are taken", async || {
            let taken = endpoint.taken() - before;
            (taken >= count).then_some(()).ok_or(format!("{taken}"))
        })
        .await;
    };
    more(200).await;
    // What passes, what does not by itself, and nothing at all.
    let troubles = [Trouble::Answer(503), Trouble::Answer(422), Trouble::Cut];
    endpoint.trouble(&troubles);
    eventually(PATIENTLY, "the troubles are over", async || {
        endpoint.is_well().then_some(()).ok_or(String::new())
    })
    .await;
    more(200).await;
    program.kill().await;
    let program = Program::start(&rig, "http_sink", &target).await;
    more(200).await;
    load.finish().await;
    load::insert(&rig.collection(), 1_000_000, 10).await;
    let truth = rig.truth().await;
    let last = truth.last().map(Event::token).unwrap_or_default();
    eventually(PATIENTLY, "the last event is taken", async || {
        let seen = endpoint.seen();
        match seen.iter().any(|one| one.key == last) {
            true => Ok(()),
            false => Err(format!("{} requests", seen.len())),
        }
    })
    .await;
    program.interrupt().await;
    let seen = endpoint.seen();
    let in_trouble: Vec<usize> = (0..seen.len())
        .filter(|index| seen[*index].trouble.is_some())
        .collect();
    assert_eq!(in_trouble.len(), troubles.len());
    let taken: Vec<String> = seen
        .iter()
        .filter(|one| one.trouble.is_none())
        .map(|one| one.key.clone())
        .collect();
    // A kill, and one for each trouble: what is not yet saved comes again.
    judge(&truth, &taken, 1 + troubles.len());
    for one in &seen {
        let event: Value = serde_json::from_str(&one.body).unwrap_or_default();
        assert_eq!(
            event["_id"]["_data"], *one.key,
            "another body than its key says"
        );
    }
    clean(&rig).await;
}
