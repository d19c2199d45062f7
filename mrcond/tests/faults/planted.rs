//! Passwords that are told nowhere, and everything that might tell them: the daemon, the commands that people
//! look at a fault with, and the servers.

use crate::common::canary;
use crate::common::config::{Config, Entry};
use crate::common::daemon::{ConfigFile, Daemon, Uris, command};
use crate::common::rig::Rig;
use crate::common::wait::PATIENTLY;
use std::process::Output;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Starts a daemon with passwords that are told nowhere, whatever goes wrong, at no log level.
pub(crate) fn spawn(config: &Config, uris: &Uris, panics: bool) -> Daemon {
    let mut variables = planted(uris);
    variables.push(("MRCON_LOG", "trace".to_owned()));
    if panics {
        variables.push(("MRCON_FAULTS_PANIC", "1".to_owned()));
    }
    let variables: Vec<(&str, &str)> = variables
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let mut daemon = Daemon::spawn_with(config, &variables, &[]);
    daemon.may_panic = panics;
    daemon.has_canary = true;
    daemon
}

/// Where the servers are, with the passwords.
fn planted(uris: &Uris) -> Vec<(&'static str, String)> {
    let mut variables = vec![
        ("MRCON_MONGO_URI", canary::planted(&uris.mongo)),
        ("MRCON_RABBITMQ_URI", canary::planted(&uris.rabbit)),
    ];
    let stream = uris.stream.as_deref().map(canary::planted);
    variables.extend(stream.map(|stream| ("MRCON_RABBITMQ_STREAM_URI", stream)));
    variables
}

/// Starts a daemon as a trial does, for a scenario that has another shape, and waits until it is ready.
pub(crate) async fn start(rig: &Rig, entries: &[Entry]) -> Daemon {
    canary::admit(&rig.client, &rig.broker).await;
    let mut daemon = spawn(&Config::new(entries), &rig.uris(), false);
    daemon.ready().await;
    daemon
}

/// Fails if a password is in what the servers show while the daemon uses them, or in what it has stored there.
pub(crate) async fn look_around(rig: &Rig) {
    let database = rig.tokens_database();
    let (broker, mongo) = tokio::join!(
        canary::shown_by_broker(&rig.broker),
        canary::shown_by_mongo(&rig.client, &database)
    );
    for text in broker.iter().chain(&mongo) {
        canary::check("a server", text);
    }
}

/// Commands that look while something is wrong, as a person would.
#[derive(Default)]
pub(crate) struct Looks(Vec<JoinHandle<Output>>);

impl Looks {
    /// Begins to look, with the daemon's configuration and servers.
    pub(crate) fn begin(&mut self, config: &str, uris: &Uris) {
        let commands: [&[&str]; 2] = [&["check"], &["position", "show"]];
        for arguments in commands {
            let file = ConfigFile::new(config);
            let mut command = command();
            command.args(arguments).arg("-c").arg(file.path());
            command.envs(planted(uris)).kill_on_drop(true);
            let run = async move {
                let ended = timeout(PATIENTLY, command.output()).await;
                drop(file);
                let ended = ended.unwrap_or_else(|_| panic!("{arguments:?} does not end"));
                ended.unwrap_or_else(|error| panic!("start mrcond: {error}"))
            };
            self.0.push(tokio::spawn(run));
        }
    }

    /// Waits for all of them, and fails if a password is in what they say.
    pub(crate) async fn end(self) {
        for look in self.0 {
            let said = look.await.unwrap_or_else(|error| panic!("{error}"));
            for said in [&said.stdout, &said.stderr] {
                canary::check("a command", &String::from_utf8_lossy(said));
            }
        }
    }
}
