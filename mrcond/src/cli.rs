//! The command line and the environment.

#[cfg(feature = "amqp")]
use crate::check::CheckArgs;
#[cfg(feature = "amqp")]
use crate::dead_letters::DeadLettersArgs;
use crate::describe::Description;
use crate::health::HealthArgs;
use crate::output::{self, Wishes};
use crate::systemd;
use crate::telemetry::LogSettings;
#[cfg(feature = "amqp")]
use crate::topology::TopologySub;
use crate::{Failure, exit};
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use mrcon::config::ValidConfig;
use mrcon::uri::{AmqpUri, BrokerUri, MongoUri, StreamUri, UriError};
use mrcon::{Reader, Sources};
use std::ffi::OsString;
use std::fmt::Display;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest configuration file that is read; a real one has a few KiB.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// Largest file that is read for a URI.
const MAX_URI_BYTES: u64 = 64 << 10;

/// The URIs that the environment holds, by the end of their variables.
const URIS: [&str; 4] = [
    "MONGO_URI",
    "RABBITMQ_URI",
    "RABBITMQ_STREAM_URI",
    "RABBITMQ_MANAGEMENT_URL",
];

/// What every command has comes behind what only this one has, and before --help.
const BEHIND_ITS_OWN: usize = 900;

const AFTER_HELP: &str = "\
Environment (PREFIX is MRCON unless --prefix says otherwise):
  PREFIX_MONGO_URI         mongodb://user:password@host:27017/?replicaSet=rs0
  PREFIX_MONGO_URI_FILE    file that holds the MongoDB URI, instead of the variable
  PREFIX_RABBITMQ_URI      amqp://user:password@host:5672/vhost, or amqps://
  PREFIX_RABBITMQ_URI_FILE file that holds the RabbitMQ URI, instead of the variable
  PREFIX_RABBITMQ_STREAM_URI
                           rabbitmq-stream://user:password@host:5552/vhost, or rabbitmq-stream+tls://, for
                           protocol: stream [default: as PREFIX_RABBITMQ_URI, at port 5552, with TLS 5551]
  PREFIX_RABBITMQ_STREAM_URI_FILE
                           file that holds this URI, instead of the variable
  CREDENTIALS_DIRECTORY    set by systemd (LoadCredential): its files mongo_uri, rabbitmq_uri,
                           rabbitmq_stream_uri and rabbitmq_management_url hold the URIs that no variable
                           is set for
  PREFIX_RABBITMQ_MANAGEMENT_URL
                           http://user:password@host:15672, or https://, for check: it tells what AMQP does not
                           [default: not asked; without a login that of PREFIX_RABBITMQ_URI]
  PREFIX_RABBITMQ_MANAGEMENT_URL_FILE
                           file that holds this URL, instead of the variable
  PREFIX_LOG               log filter, such as info, debug, mrcon=debug [default: info]
  PREFIX_LOG_FORMAT        text or json [default: text]
  OTEL_...                 traces and metrics by OTLP, off until OTEL_EXPORTER_OTLP_ENDPOINT is set; also
                           OTEL_EXPORTER_OTLP_HEADERS, OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER and others

Exit codes:
  0   finished, or stopped in order by SIGTERM or SIGINT
  64  wrong usage
  69  check: a side cannot be reached; dead-letters, topology: RabbitMQ cannot be reached
  78  bad configuration
  1   anything else; check: an error was found; topology: something differs, is refused, or
      is missing though it is passive";

/// Carry MongoDB change events to RabbitMQ: confirmed, resumable, supervised, measured.
#[derive(Debug, Parser)]
#[command(name = "mrcond", version = VERSION, after_help = AFTER_HELP, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Configuration file
    #[arg(
        short,
        long,
        global = true,
        value_name = "FILE",
        default_value = "/app/config.yaml",
        display_order = BEHIND_ITS_OWN
    )]
    pub(crate) config: PathBuf,

    /// Prefix of the environment variables
    #[arg(
        short,
        long,
        global = true,
        value_name = "PREFIX",
        default_value = "MRCON",
        display_order = BEHIND_ITS_OWN + 1
    )]
    pub(crate) prefix: String,

    /// Say nothing but what was asked for, and errors
    #[arg(short, long, global = true, display_order = BEHIND_ITS_OWN + 2)]
    quiet: bool,

    /// Print for programs: what is listed, done or wrong, as JSON
    #[arg(long, global = true, display_order = BEHIND_ITS_OWN + 3)]
    json: bool,

    #[command(flatten)]
    run: RunArgs,

    #[command(subcommand)]
    subcommand: Option<Sub>,
}

/// How the connectors are run.
#[derive(Debug, Clone, Args)]
struct RunArgs {
    /// Read the configuration file again when it changes, not only at SIGHUP
    #[arg(long)]
    watch_config: bool,
}

const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("MRCON_REVISION"),
    ", ",
    env!("MRCON_RUSTC"),
    ")"
);

#[derive(Debug, Subcommand)]
enum Sub {
    /// Run the connectors until SIGTERM or SIGINT (what happens without a command)
    Run(RunArgs),
    /// Print a configuration to begin with: every key, or an entry for each collection that you choose
    Init(InitArgs),
    #[cfg(feature = "amqp")]
    /// Find what keeps the configuration from working between its servers, with what to do about it
    Check(CheckArgs),
    /// Ask the running mrcond whether it is well: exit code 0 or 1, for health checks
    Health(HealthArgs),
    /// Have the running mrcond send every document of a connector's collection, between its events
    Snapshot(SnapshotArgs),
    /// Show the saved positions, or change one while mrcond does not run
    #[command(arg_required_else_help = false)]
    Position {
        #[command(subcommand)]
        what: PositionSub,
    },
    /// Show events as they would be published, and publish nothing
    Tail(TailArgs),
    #[cfg(feature = "amqp")]
    #[command(arg_required_else_help = false)]
    /// List, show, replay or drop the events that could not be delivered
    DeadLetters(DeadLettersArgs),
    /// Describe the configuration file (JSON Schema), or what a configuration sends (AsyncAPI)
    Schema(SchemaArgs),
    #[cfg(feature = "amqp")]
    /// Show what RabbitMQ lacks of the configured exchanges, queues, streams and bindings, or declare it
    #[command(arg_required_else_help = false)]
    Topology {
        #[command(subcommand)]
        what: TopologySub,
    },
    /// Print what completes commands and options in a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Print the manual page
    Man(ManArgs),
}

/// What is described.
#[derive(Debug, Clone, Args)]
struct SchemaArgs {
    /// The messages that the configuration sends, as AsyncAPI 3.0 [default: the configuration file, as JSON Schema]
    #[arg(long)]
    messages: bool,
}

/// What a configuration is made of, and where it goes.
#[derive(Debug, Clone, Args)]
pub(crate) struct InitArgs {
    /// Look at MongoDB, and write an entry for each collection that is chosen there
    #[arg(long)]
    pub(crate) from: bool,
    /// With --from: these collections; DB.* is one entry for a whole database [default: asks, on a terminal]
    #[arg(
        long,
        value_name = "DB.COLL,...",
        value_delimiter = ',',
        requires = "from",
        conflicts_with = "all"
    )]
    pub(crate) collections: Vec<String>,
    /// With --from: all collections that can be watched
    #[arg(long, requires = "from")]
    pub(crate) all: bool,
    /// With --from: only list what there is, and why some of it cannot be watched
    #[arg(long, requires = "from", conflicts_with_all = ["collections", "all", "output"])]
    pub(crate) list: bool,
    /// Write to this file [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Write over a file that is there
    #[arg(long, requires = "output")]
    pub(crate) force: bool,
}

/// Where manual pages go.
#[derive(Debug, Clone, Args)]
pub(crate) struct ManArgs {
    /// Write a page for each command into this folder
    #[arg(short, long, value_name = "FOLDER")]
    pub(crate) output: Option<PathBuf>,
}

/// What is to be said of a file with a secret that every user of the machine can read.
fn open_to_all(name: &str, file: &Path) -> Option<String> {
    const READ_BY_OTHERS: u32 = 0o004;
    let mode = std::fs::metadata(file).ok()?.permissions().mode() & 0o777;
    (mode & READ_BY_OTHERS != 0).then(|| {
        let file = file.display();
        format!(
            "{name}: every user of this machine can read {file} (mode {mode:04o}); chmod o-r it"
        )
    })
}

/// Which documents, and whether to wait.
#[derive(Debug, Clone, Args)]
pub(crate) struct SnapshotArgs {
    /// DATABASE.COLLECTION, or the connector's name in /status
    pub(crate) connector: String,
    /// Only documents that match this MongoDB query, as Extended JSON
    #[arg(long, value_name = "JSON")]
    pub(crate) filter: Option<String>,
    /// Do not wait for the end; without this, Ctrl-C ends the waiting and not the snapshot
    #[arg(long)]
    pub(crate) detach: bool,
}

/// Whose events, and how many.
#[derive(Debug, Clone, Args)]
pub(crate) struct TailArgs {
    /// DATABASE.COLLECTION, or the connector's name in /status [default: all]
    pub(crate) connectors: Vec<String>,
    /// Begin with what happened in this second, instead of now
    #[arg(long, value_name = "RFC3339")]
    pub(crate) since: Option<String>,
    /// End after so many events
    #[arg(short = 'n', long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) count: Option<u64>,
}

/// What is done to a saved position.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum PositionSub {
    /// Where the connectors stand, and whether MongoDB still has what comes after that
    Show {
        /// DATABASE.COLLECTION, or the connector's name in /status [default: all]
        connectors: Vec<String>,
        /// What was done to them by hand, instead
        #[arg(long)]
        history: bool,
    },
    /// Go on elsewhere, earlier or later; MongoDB is asked whether it has what comes after that
    Set {
        #[command(flatten)]
        how: ToChange,
        #[command(flatten)]
        to: Whereto,
    },
    /// Go on from it under the configuration as it is now, whatever it was saved for
    Accept {
        /// DATABASE.COLLECTION, or the connector's name in /status
        connector: String,
        /// Also if mrcond runs, or did a moment ago on another host: the connector is halted there
        #[arg(long)]
        force: bool,
    },
    /// Give it up: the next start begins from now, and publishes a gap record
    Reset {
        #[command(flatten)]
        how: ToChange,
        /// Forget it instead, as if the connector had never run: begin as `start` and `snapshot` say, with number 1
        /// and no gap record
        #[arg(long)]
        as_new: bool,
    },
}

/// Of which connector, and whether to ask.
#[derive(Debug, Clone, Args)]
pub(crate) struct ToChange {
    /// DATABASE.COLLECTION, or the connector's name in /status
    pub(crate) connector: String,
    /// Do not ask; needed where there is no terminal
    #[arg(long)]
    pub(crate) yes: bool,
    /// Also if mrcond runs, or did a moment ago on another host: the connector is halted there
    #[arg(long)]
    pub(crate) force: bool,
}

/// Where to go on.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Whereto {
    /// Behind the event with this resume token: a message_id, or what `show --json` has
    #[arg(long, value_name = "HEX")]
    pub(crate) token: Option<String>,
    /// With what happened in this second or later
    #[arg(long, value_name = "RFC3339")]
    pub(crate) time: Option<String>,
}

/// What to do.
#[derive(Debug, Clone)]
pub(crate) enum Command {
    Run,
    #[cfg(feature = "amqp")]
    Check(CheckArgs),
    Health(HealthArgs),
    Position(PositionSub),
    Snapshot(SnapshotArgs),
    Tail(TailArgs),
    #[cfg(feature = "amqp")]
    DeadLetters(DeadLettersArgs),
    /// The messages.
    Schema,
    #[cfg(feature = "amqp")]
    Topology(TopologySub),
    Init(InitArgs),
    Describe(Description),
}

/// What the environment says.
pub(crate) struct Environment {
    pub(crate) mongodb: MongoUri,
    pub(crate) rabbitmq: AmqpUri,
    /// If it is not where the AMQP URI leads.
    pub(crate) stream: Option<StreamUri>,
    /// Reads those again that files hold.
    pub(crate) sources: Sources,
    pub(crate) log: LogSettings,
    /// What should be otherwise, and does not keep from starting.
    pub(crate) warnings: Vec<String>,
}

/// Reads the command line; `Err` is the end of the process: help, version, or wrong usage.
pub(crate) fn parse() -> Result<Cli, Result<(), Failure>> {
    let cli = Cli::try_parse_from(arguments(std::env::args_os())).map_err(|error| {
        match error.use_stderr() {
            false => say(error.render().to_string().trim_end()),
            true => {
                // What is wrong is told as it was wished, if that can be made out.
                let json = std::env::args_os().any(|argument| argument == "--json");
                output::set(Wishes { quiet: false, json });
                Err(Failure::new(exit::USAGE, usage_line(&error)))
            }
        }
    })?;
    output::set(Wishes {
        quiet: cli.quiet,
        json: cli.json,
    });
    Ok(cli)
}

/// `mrcond help COMMAND` is what many type for `mrcond COMMAND --help`.
fn arguments(given: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = given.collect();
    if arguments.get(1).is_some_and(|first| first == "help") {
        arguments.remove(1);
        arguments.push("--help".into());
    }
    arguments
}

/// What clap has to say, on one line.
fn usage_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let mut first = first.trim_start_matches("error: ").to_owned();
    if first.ends_with(':') {
        // What it is about stands indented below.
        for line in lines.take_while(|line| line.starts_with(' ')) {
            first = format!("{first} {}", line.trim());
        }
    }
    let lines = || text.lines().map(str::trim);
    let tip = lines().find_map(|line| line.strip_prefix("tip: "));
    let allowed = lines().find_map(|line| line.strip_prefix('[')?.strip_suffix(']'));
    let parts = [Some(first.as_str()), tip, allowed].into_iter().flatten();
    let parts: Vec<&str> = parts.collect();
    format!("{}; see {} --help", parts.join("; "), command_of(&text))
}

/// The command whose usage a message shows.
fn command_of(text: &str) -> String {
    let usage = text.lines().find_map(|line| line.strip_prefix("Usage: "));
    let words = usage.unwrap_or("mrcond").split(' ');
    let is_name = |word: &&str| word.starts_with(|c: char| c.is_ascii_lowercase());
    let words: Vec<&str> = words.take_while(is_name).collect();
    words.join(" ")
}

/// Prints what was asked for to standard output. A closed pipe is no failure.
pub(crate) fn say(text: &str) -> Result<(), Failure> {
    output::print(text);
    Ok(())
}

impl Cli {
    pub(crate) fn command(&self) -> Command {
        match &self.subcommand {
            None | Some(Sub::Run(_)) => Command::Run,
            #[cfg(feature = "amqp")]
            Some(Sub::Check(arguments)) => Command::Check(arguments.clone()),
            Some(Sub::Health(arguments)) => Command::Health(arguments.clone()),
            Some(Sub::Position { what }) => Command::Position(what.clone()),
            Some(Sub::Snapshot(arguments)) => Command::Snapshot(arguments.clone()),
            Some(Sub::Tail(arguments)) => Command::Tail(arguments.clone()),
            #[cfg(feature = "amqp")]
            Some(Sub::DeadLetters(arguments)) => Command::DeadLetters(arguments.clone()),
            Some(Sub::Schema(SchemaArgs { messages: true })) => Command::Schema,
            Some(Sub::Schema(_)) => Command::Describe(Description::Schema),
            #[cfg(feature = "amqp")]
            Some(Sub::Topology { what }) => Command::Topology(what.clone()),
            Some(Sub::Init(arguments)) => Command::Init(arguments.clone()),
            Some(Sub::Completions { shell }) => Command::Describe(Description::Completions(*shell)),
            Some(Sub::Man(arguments)) => Command::Describe(Description::Man(arguments.clone())),
        }
    }

    /// Whether a change of the file counts as a wish to read it again.
    pub(crate) fn watches_config(&self) -> bool {
        let own = match &self.subcommand {
            Some(Sub::Run(arguments)) => arguments.watch_config,
            _ => false,
        };
        own || self.run.watch_config
    }

    /// Reads and checks the file again, and what it needs; with what is to be said of it.
    pub(crate) fn reread(&self) -> Result<(ValidConfig, Vec<String>), Failure> {
        let config = self.config()?;
        let warnings = self.check_keys(&config)?;
        // A file with a URI that cannot be read would keep the next start from succeeding.
        self.environment()?;
        Ok((config, warnings))
    }

    /// Reads and checks the configuration file.
    pub(crate) fn config(&self) -> Result<ValidConfig, Failure> {
        let file = self.config.display().to_string();
        let bytes = read_config(&self.config).map_err(|error| {
            Failure::new(
                exit::CONFIG,
                format!("{file}: {error}; name the configuration file with -c FILE"),
            )
        })?;
        let config = ValidConfig::from_yaml(&file, &bytes).map_err(Failure::of_problems)?;
        let built = config.check_features();
        built.map_err(|error| Failure::new(exit::CONFIG, format!("{file}: {error}")))?;
        Ok(config)
    }

    /// Looks at the files with keys that the configuration names; says which of them anybody can read.
    pub(crate) fn check_keys(&self, config: &ValidConfig) -> Result<Vec<String>, Failure> {
        let config_file = self.config.display();
        let faults = mrcon::mask::key_file_faults(config);
        if !faults.is_empty() {
            let lines = faults.iter().map(|fault| format!("{config_file}: {fault}"));
            return Err(Failure::of_lines(exit::CONFIG, lines.collect()));
        }
        let rules = config.collections().iter().flat_map(|entry| &entry.mask);
        let files = rules.filter_map(|rule| rule.key_file.as_deref());
        let warnings = files.filter_map(|file| open_to_all("key_file", file));
        Ok(warnings.collect())
    }

    /// Has a command write lines of the log, as the daemon does.
    pub(crate) fn start_log(&self) -> Result<(), Failure> {
        let log = LogSettings::from_variables(&self.prefix, |name| self.variable(name))?;
        crate::telemetry::init(&log)
    }

    /// Where MongoDB is.
    pub(crate) fn mongodb(&self) -> Result<MongoUri, Failure> {
        self.uri(URIS[0], MongoUri::parse)
    }

    /// Where RabbitMQ is.
    pub(crate) fn rabbitmq(&self) -> Result<AmqpUri, Failure> {
        self.uri(URIS[1], AmqpUri::parse)
    }

    /// Reads the variables that `run` needs.
    pub(crate) fn environment(&self) -> Result<Environment, Failure> {
        let stream = URIS[2];
        let (mongodb, rabbitmq) = match (self.mongodb(), self.rabbitmq()) {
            (Ok(mongodb), Ok(rabbitmq)) => (mongodb, rabbitmq),
            (Err(mut both), Err(other)) => {
                both.lines.extend(other.lines);
                return Err(both);
            }
            (Err(one), _) | (_, Err(one)) => return Err(one),
        };
        let environment = Environment {
            mongodb,
            rabbitmq,
            stream: self.optional_uri(stream, StreamUri::parse)?,
            sources: self.sources()?,
            log: LogSettings::from_variables(&self.prefix, |name| self.variable(name))?,
            warnings: self.readable_by_all()?,
        };
        self.check_files(URIS[1], &environment.rabbitmq)?;
        if let Some(broker) = &environment.stream {
            self.check_files(stream, broker)?;
        }
        Ok(environment)
    }

    /// Looks at the certificates that a broker's URI names.
    pub(crate) fn check_files(&self, name: &str, broker: &BrokerUri) -> Result<(), Failure> {
        broker.check_files().map_err(|fault| {
            let text = format!("{}_{name}: {fault}", self.prefix);
            Failure::new(exit::CONFIG, text)
        })
    }

    /// What is to be said of files with a URI that every user of the machine can read.
    fn readable_by_all(&self) -> Result<Vec<String>, Failure> {
        let mut warnings = Vec::new();
        for name in URIS {
            let Some(file) = self.uri_file(name)? else {
                continue;
            };
            let name = format!("{}_{name}_FILE", self.prefix);
            warnings.extend(open_to_all(&name, &file));
        }
        Ok(warnings)
    }

    /// What reads the URIs again that files hold.
    fn sources(&self) -> Result<Sources, Failure> {
        let mut sources = Sources::default();
        sources.mongodb = reader(self.read_from(URIS[0])?, MongoUri::parse);
        sources.rabbitmq = reader(self.read_from(URIS[1])?, AmqpUri::parse);
        sources.stream = reader(self.read_from(URIS[2])?, StreamUri::parse);
        Ok(sources)
    }

    /// The file that a URI is read from, if it is from one.
    fn read_from(&self, name: &str) -> Result<Option<PathBuf>, Failure> {
        match (self.variable(name)?, self.uri_file(name)?) {
            (None, None) => Ok(systemd::credential(name)),
            (_, file) => Ok(file),
        }
    }

    /// The file that holds a URI, if one does.
    fn uri_file(&self, name: &str) -> Result<Option<PathBuf>, Failure> {
        let file = self.variable(&format!("{name}_FILE"))?;
        Ok(file.map(PathBuf::from))
    }

    fn variable(&self, name: &str) -> Result<Option<String>, Failure> {
        let name = format!("{}_{name}", self.prefix);
        match std::env::var(&name) {
            Ok(value) if value.is_empty() => Ok(None),
            Ok(value) => Ok(Some(value)),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => {
                Err(Failure::new(exit::CONFIG, format!("{name}: not UTF-8")))
            }
        }
    }

    /// A URI from `PREFIX_NAME` or from the file that `PREFIX_NAME_FILE` names.
    fn uri<T>(&self, name: &str, parse: fn(&str) -> Result<T, UriError>) -> Result<T, Failure> {
        let prefix = &self.prefix;
        self.optional_uri(name, parse)?.ok_or_else(|| {
            let text = format!("{prefix}_{name} is not set; set it, or {prefix}_{name}_FILE");
            Failure::new(exit::CONFIG, text)
        })
    }

    pub(crate) fn optional_uri<T>(
        &self,
        name: &str,
        parse: fn(&str) -> Result<T, UriError>,
    ) -> Result<Option<T>, Failure> {
        let prefix = &self.prefix;
        let bad = |text: &dyn Display| Failure::new(exit::CONFIG, format!("{prefix}_{name}{text}"));
        let file = self.uri_file(name)?;
        let (text, from) = match (self.variable(name)?, file) {
            (Some(_), Some(_)) => {
                return Err(bad(&format!(
                    " and {prefix}_{name}_FILE are both set; unset one"
                )));
            }
            (Some(text), None) => (text, String::new()),
            (None, Some(file)) => {
                let text = read_uri(&file)
                    .map_err(|error| bad(&format!("_FILE: {}: {error}", file.display())))?;
                (text, "_FILE".to_owned())
            }
            (None, None) => match systemd::credential(name) {
                Some(file) => {
                    let read = uri_in(&file, parse).map(Some);
                    return read
                        .map_err(|text| Failure::new(exit::CONFIG, format!("credential {text}")));
                }
                None => return Ok(None),
            },
        };
        parse(text.trim())
            .map(Some)
            .map_err(|error| bad(&format!("{from}: {error}")))
    }
}

/// What a configuration file holds.
pub(crate) fn read_config(path: &Path) -> std::io::Result<Vec<u8>> {
    read_bounded(path, MAX_CONFIG_BYTES)
}

/// Reads one byte more than is allowed at most, which tells that it is too large.
fn read_bounded(path: &Path, allowed: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(allowed + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The URI that a file holds; the error names the file.
fn uri_in<T>(file: &Path, parse: fn(&str) -> Result<T, UriError>) -> Result<T, String> {
    let told = |error: &dyn Display| format!("{}: {error}", file.display());
    let text = read_uri(file).map_err(|error| told(&error))?;
    parse(text.trim()).map_err(|error| told(&error))
}

/// Reads a URI from its file whenever it is asked to.
fn reader<T: 'static>(
    file: Option<PathBuf>,
    parse: fn(&str) -> Result<T, UriError>,
) -> Option<Reader<T>> {
    let file = file?;
    Some(Arc::new(move || uri_in(&file, parse)))
}

/// The text of a file that holds a URI.
fn read_uri(path: &Path) -> std::io::Result<String> {
    let bytes = read_bounded(path, MAX_URI_BYTES)?;
    if bytes.len() as u64 > MAX_URI_BYTES {
        return Err(std::io::Error::other(format!(
            "more than {MAX_URI_BYTES} bytes, which no URI has"
        )));
    }
    String::from_utf8(bytes).map_err(|_| std::io::Error::other("not UTF-8 text"))
}
