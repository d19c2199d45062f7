//! What is done with each command that a page shows.

use super::lines::{Block, program};

/// The pages whose commands another test types, all of them, word by word.
pub(super) const GUIDES: [&str; 1] = ["docs/src/start.md"];

/// The programs that may stand behind a `|`, and are left away where a machine lacks them.
pub(super) const FILTERS: [&str; 3] = ["jq", "grep", "openssl"];

/// A row of the table: the longest one that a line begins with is for it.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) begins: &'static str,
    pub(super) way: Way,
}

#[derive(Debug)]
pub(super) enum Way {
    /// It is run as it stands, between real servers.
    Run(Run),
    /// It takes too long, or needs too much. The Makefile has the target, and who runs it is said.
    Make(&'static str),
    /// What may be said, and no command: every option is known. Who runs it is said.
    Usage(&'static str),
    /// A test in this file runs it.
    Elsewhere(&'static str),
    /// It is not run, and this is why.
    NotRun(&'static str),
}

/// What a command needs and promises.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) daemon: Daemon,
    /// What is typed at a terminal; without it there is none.
    pub(super) typed: &'static str,
    pub(super) ends: Ends,
    /// What it prints.
    pub(super) says: &'static [&'static str],
    /// A file that it leaves, and what is in it.
    pub(super) writes: Option<(&'static str, &'static str)>,
    /// What stands for something else in this command alone.
    pub(super) with: &'static [(&'static str, &'static str)],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Daemon {
    /// It does not matter.
    Any,
    Runs,
    /// It was stopped in order; positions are as they were then.
    IsStopped,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Ends {
    With(i32),
    /// It goes on until Ctrl-C, which is pressed once it has said everything.
    AtCtrlC,
}

/// It ends well and says these words.
const fn runs(begins: &'static str, says: &'static [&'static str]) -> Row {
    row(begins, Daemon::Any, "", Ends::With(0), says)
}

/// The same, with a daemon that runs.
const fn beside(begins: &'static str, says: &'static [&'static str]) -> Row {
    row(begins, Daemon::Runs, "", Ends::With(0), says)
}

/// The same, with a daemon that was stopped.
const fn stopped(begins: &'static str, says: &'static [&'static str]) -> Row {
    row(begins, Daemon::IsStopped, "", Ends::With(0), says)
}

/// The same, at a terminal, where it is answered.
const fn asks(begins: &'static str, typed: &'static str, says: &'static [&'static str]) -> Row {
    row(begins, Daemon::IsStopped, typed, Ends::With(0), says)
}

/// It says these words and goes on until Ctrl-C.
const fn until(begins: &'static str, daemon: Daemon, says: &'static [&'static str]) -> Row {
    row(begins, daemon, "", Ends::AtCtrlC, says)
}

const fn row(
    begins: &'static str,
    daemon: Daemon,
    typed: &'static str,
    ends: Ends,
    says: &'static [&'static str],
) -> Row {
    let way = Way::Run(Run {
        daemon,
        typed,
        ends,
        says,
        writes: None,
        with: &[],
    });
    Row { begins, way }
}

impl Row {
    const fn writes(mut self, file: &'static str, text: &'static str) -> Row {
        if let Way::Run(run) = &mut self.way {
            run.writes = Some((file, text));
        }
        self
    }

    const fn with(mut self, names: &'static [(&'static str, &'static str)]) -> Row {
        if let Way::Run(run) = &mut self.way {
            run.with = names;
        }
        self
    }
}

const fn make(begins: &'static str, by: &'static str) -> Row {
    Row {
        begins,
        way: Way::Make(by),
    }
}

const fn usage(begins: &'static str, by: &'static str) -> Row {
    Row {
        begins,
        way: Way::Usage(by),
    }
}

const fn elsewhere(begins: &'static str, file: &'static str) -> Row {
    Row {
        begins,
        way: Way::Elsewhere(file),
    }
}

const fn not_run(begins: &'static str, because: &'static str) -> Row {
    Row {
        begins,
        way: Way::NotRun(because),
    }
}

/// What is typed where the connector's name is asked for.
const ORDERS: &str = "shop.orders\n";

/// A queue that is a stream, for those who read one.
const STREAM: &[(&str, &str)] = &[("shop.orders", "shop.audit")];

pub(super) const TABLE: &[Row] = &[
    // mrcond
    runs(
        "mrcond init --from --list",
        &["shop.orders", "shop.customers"],
    ),
    runs("mrcond init --from --collections", &["wrote config.yaml"]),
    runs("mrcond init --from --all", &["wrote config.yaml"]),
    runs("mrcond check -c", &["is inside the oplog"]),
    runs("mrcond check --offline", &["config.yaml: correct, "]),
    runs(
        "target/release/mrcond check",
        &["mongodb_reachable", "is inside the oplog"],
    ),
    until(
        "target/release/mrcond -c",
        Daemon::IsStopped,
        &["connector runs"],
    ),
    runs("mrcond schema >", &[]).writes("mrcon.schema.json", "\"$schema\""),
    runs("mrcond completions bash", &[]).writes(
        "~/.local/share/bash-completion/completions/mrcond",
        "complete -F",
    ),
    runs("mrcond completions zsh", &[]).writes("~/.zfunc/_mrcond", "#compdef mrcond"),
    runs("mrcond completions fish", &[]).writes(
        "~/.config/fish/completions/mrcond.fish",
        "complete -c mrcond",
    ),
    beside(
        "mrcond position show -c",
        &["OPLOG", "shop.orders -> shop.orders", "inside"],
    ),
    beside("mrcond position show shop.orders --history", &["WHAT"]),
    stopped("mrcond position show shop.orders --json", &["\"token\""]),
    stopped(
        "mrcond position set shop.orders --token 8265F0C0FF... --yes",
        &["shop.orders: stands at"],
    ),
    stopped(
        "mrcond position set shop.orders --time 2026-01-31T06:00:00Z --yes",
        &["shop.orders: stands at"],
    ),
    asks(
        "mrcond position set",
        ORDERS,
        &["type the connector's name", "shop.orders: stands at"],
    ),
    asks(
        "mrcond position reset",
        ORDERS,
        &["type the connector's name", "begins from now"],
    ),
    stopped(
        "mrcond position reset shop.orders --yes",
        &["gave its position up", "a gap record"],
    ),
    stopped(
        "mrcond position accept",
        &["shop.orders: nothing to accept"],
    ),
    until("mrcond tail -c", Daemon::Any, &["routing_key: shop.orders"]),
    runs(
        "mrcond tail shop.orders -n 10",
        &["routing_key: shop.orders"],
    ),
    until("mrcond tail --json", Daemon::Any, &["\"shop.orders\""]),
    beside("mrcond snapshot shop.orders -c", &["shop.orders: done, "]),
    beside(
        "mrcond snapshot shop.products -c",
        &["shop.products: done, 1 documents"],
    ),
    beside(
        "mrcond snapshot crm.customers -c",
        &["crm.customers: done, 1 documents"],
    ),
    beside(
        "mrcond snapshot shop.orders -c config.yaml --filter",
        &["asked for snapshot"],
    ),
    beside(
        "mrcond snapshot shop.products -c config.yaml --filter",
        &["asked for snapshot"],
    ),
    beside(
        "mrcond dead-letters list",
        &["shop.returns", "unroutable", " dead letters"],
    ),
    beside(
        "mrcond dead-letters show",
        &["x-mrcon-dead-cause: ", "\"operationType\""],
    ),
    beside("mrcond dead-letters replay", &["1 replayed, "]),
    beside("mrcond dead-letters drop", &["1 dropped, "]),
    row("mrcond topology plan", Daemon::Any, "", Ends::With(1), &[]),
    // What the daemon serves
    beside("curl 'http://localhost:3000/history", &["\"series\""]),
    until(
        "curl -N http://localhost:3000/events",
        Daemon::Runs,
        &["event: status"],
    ),
    beside("curl -s http://localhost:3000/health", &["OK"]),
    beside("curl -s http://localhost:3000/status", &["\"connectors\""]),
    runs(
        "curl -s http://HOST:3000/health",
        &["shop.payments", "remedy"],
    ),
    runs("curl -s http://HOST:3000/status |", &["shop.payments"]),
    runs(
        "journalctl -u mrcond | grep",
        &["connector restarts", "shop.payments"],
    ),
    // What stands beside it
    runs("mkdir -p ~/", &[]),
    runs("export ", &[]),
    runs(
        "printf %s 078-05-1120 | openssl",
        &["1ef0ddfc5eafa0709a31b1f52b167679c0caf256581257205325298deafa1bbf"],
    ),
    runs("rabbitmq-diagnostics alarms", &["alarms"]),
    runs("rabbitmq-diagnostics memory_breakdown", &["queue"]),
    beside("rabbitmqctl list_queues", &["shop.orders"]),
    runs(
        "sudo install -m 600 /dev/stdin /etc/mrcond/credentials/mongo_uri",
        &[],
    )
    .writes("/etc/mrcond/credentials/mongo_uri", "mongodb://"),
    runs(
        "sudo install -m 600 /dev/stdin /etc/mrcond/credentials/rabbitmq_uri",
        &[],
    )
    .writes("/etc/mrcond/credentials/rabbitmq_uri", "amqp://"),
    runs("sudo install -m 755 mrcond-", &[]).writes("/usr/bin/mrcond", ""),
    runs("sudo install -D -m 644 deploy/systemd/mrcond.sysusers", &[])
        .writes("/etc/sysusers.d/mrcond.conf", "mrcond"),
    runs("sudo install -D -m 644 deploy/systemd/mrcond.service", &[])
        .writes("/etc/systemd/system/mrcond.service", "ExecStart="),
    runs("sudo install -D -m 644 config.yaml", &[])
        .writes("/etc/mrcond/config.yaml", "collections"),
    runs("sudo install -d -m 700 /etc/mrcond/credentials", &[]),
    runs(
        "sudo install -d -m 750 --group=mrcond /etc/mrcond/uris",
        &[],
    ),
    runs(
        "sudo install -m 640 --group=mrcond /dev/stdin /etc/mrcond/uris/mongo_uri",
        &[],
    )
    .writes("/etc/mrcond/uris/mongo_uri", "mongodb://"),
    runs(
        "sudo install -m 640 --group=mrcond /dev/stdin /etc/mrcond/uris/rabbitmq_uri",
        &[],
    )
    .writes("/etc/mrcond/uris/rabbitmq_uri", "amqp://"),
    // With what the credentials above hold, and no variable.
    beside(
        "sudo env CREDENTIALS_DIRECTORY=/etc/mrcond/credentials mrcond check",
        &["is inside the oplog"],
    ),
    beside(
        "sudo env CREDENTIALS_DIRECTORY=/etc/mrcond/credentials mrcond position show",
        &["OPLOG", "shop.orders -> shop.orders"],
    ),
    beside(
        "sudo env CREDENTIALS_DIRECTORY=/etc/mrcond/credentials mrcond dead-letters list",
        &["shop.returns", "unroutable", " dead letters"],
    ),
    asks(
        "sudo env CREDENTIALS_DIRECTORY=/etc/mrcond/credentials mrcond position set",
        ORDERS,
        &["type the connector's name", "shop.orders: stands at"],
    ),
    runs("kubectl create secret", &["mrcond-uris"]),
    runs("helm install mrcond", &["rollout status"]),
    runs(
        "mongosh \"$MRCON_MONGO_URI\" --eval 'db.hello()",
        &["127.0.0.1:"],
    ),
    runs(
        "mongosh \"$MRCON_MONGO_URI\" --eval 'rs.status()",
        &["PRIMARY"],
    ),
    runs(
        "mongosh \"$MRCON_MONGO_URI\" <<'END'\ndb.adminCommand({replSetResizeOplog",
        &["\"ok\""],
    ),
    stopped(
        "mongosh \"$MRCON_MONGO_URI\" <<'END'\nconst position",
        &["\"ok\"", "\"n\":{\"$numberInt\":\"1\"}"],
    ),
    elsewhere(
        "mongosh \"$MRCON_MONGO_URI\" <<'END'\nsession.withTransaction",
        "mrcond/tests/e2e/outbox.rs",
    ),
    // Consumers
    until("python3 consumer.py amqp:", Daemon::Runs, &["applied"]),
    until("python3 consumer.py --streams", Daemon::Runs, &["applied"]).with(STREAM),
    until("python3 stream_consumer.py", Daemon::Runs, &["applied"]).with(STREAM),
    runs("python3 state.py", &["customer"]),
    until("node consumer.js", Daemon::Runs, &["applied"]),
    until("node stream-consumer.js", Daemon::Runs, &["applied"]).with(STREAM),
    runs("node state.js", &["customer"]),
    // Development
    runs("dev/services.py up", &["MRCON_MONGO_URI"]),
    runs("eval \"$(dev/services.py env)\"", &[]),
    runs("dev/services.py status", &[]),
    runs("dev/services.py down", &[]),
    usage(
        "dev/services.py start",
        "every test that needs a server: `common/services.rs`",
    ),
    usage(
        "dev/services.py stop",
        "tests that need a server no more: `common/services.rs`",
    ),
    make("make test", "`.ci/run`"),
    make(
        "make test-faults",
        "hours; `make test` runs the fast ones of the same scenarios",
    ),
    make("make demo", "`benches/tests/make.rs`, with a debug build"),
    make(
        "make bench",
        "half an hour; `benches/tests/make.rs` runs a part of it",
    ),
    make("make fuzz", "minutes, and downloads a tool"),
    not_run(
        "cargo build --release -p mrcond",
        "minutes; tests build the same with other options",
    ),
    elsewhere("cargo test --locked -p mrcond --test faults", ".ci/run"),
    elsewhere(
        "cargo run -p mrcon --no-default-features --example",
        "mrcond/tests/e2e/own_sink.rs",
    ),
    elsewhere("target/release/bench render", "benches/tests/make.rs"),
    not_run(
        "cd python && pip install",
        "`dev/services.py fetch consumers-python` installs the same",
    ),
    not_run(
        "cd node && npm ci",
        "`dev/services.py fetch consumers-node` installs the same",
    ),
    not_run("cd java && mvn", "no Java on the machine"),
    not_run("cd go && go mod", "no Go on the machine"),
    not_run(
        "cd rust && cargo run",
        "downloads and builds a client of its own",
    ),
    // What a bare machine does not have, or a test must not do
    not_run(
        "sudo apt install",
        "changes the machine; `package/debian.rs` installs into a root of its own",
    ),
    not_run("sudoedit", "an editor"),
    not_run(
        "sudo systemctl",
        "needs a booted systemd; `package/unit.rs` verifies the unit",
    ),
    not_run("docker ", "needs a Docker engine"),
    not_run("kubectl exec", "needs a pod"),
    not_run("kubectl rollout", "needs a cluster"),
    not_run("df -h", "a folder of the broker's machine"),
];

/// The row for a line, if there is one.
pub(super) fn row_of(line: &str) -> Option<&'static Row> {
    let line = program(line);
    let rows = TABLE.iter().filter(|row| line.starts_with(row.begins));
    rows.max_by_key(|row| row.begins.len())
}

/// Whether another test types this block.
pub(super) fn is_of_a_guide(block: &Block) -> bool {
    GUIDES.contains(&block.page.as_str())
}
