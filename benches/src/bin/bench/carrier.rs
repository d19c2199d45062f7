//! What lies between MongoDB and the queue while orders are written: mrcond, or the bare pipe in its
//! place.

use crate::place::Place;
use crate::probe::{Probe, READY, Subject};
use crate::stage::Streams;
use crate::target::Target;
use mrcon_bench::daemon::Daemon;
use mrcon_bench::failure::{Failure, Result};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tokio::time::timeout;

/// How long the bare pipe may take to connect to both sides.
const START_TIME: Duration = Duration::from_secs(30);

pub(crate) enum Carrier {
    Daemon(Daemon),
    /// Killed when it is dropped.
    Relay(Child),
}

impl Carrier {
    /// Starts it; when this returns, no event can escape it.
    pub(crate) async fn start(
        place: &Place<'_>,
        target: Target,
        subject: Subject,
    ) -> Result<Carrier> {
        match subject {
            Subject::Mrcond => {
                let daemon = place.start_ready(target, Streams::Each(1)).await?;
                Ok(Carrier::Daemon(daemon))
            }
            _ => Ok(Carrier::Relay(start_relay(target).await?)),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        match self {
            Carrier::Daemon(daemon) => daemon.pid(),
            Carrier::Relay(relay) => relay.id().unwrap_or_default(),
        }
    }

    pub(crate) async fn stop(self) -> Result<()> {
        match self {
            Carrier::Daemon(daemon) => daemon.stop().await,
            Carrier::Relay(mut relay) => relay
                .kill()
                .await
                .map_err(|error| Failure::because("end the bare pipe", error, "try again")),
        }
    }
}

async fn start_relay(target: Target) -> Result<Child> {
    let fail = |reason: &dyn std::fmt::Display| {
        Failure::because(
            "start the bare pipe",
            reason,
            "check both servers and try again",
        )
    };
    let mut child = Place::command(&Probe::relay(target))?
        .spawn()
        .map_err(|error| fail(&error))?;
    let out = child
        .stdout
        .take()
        .ok_or_else(|| fail(&"it has no output"))?;
    let mut line = String::new();
    let said = timeout(START_TIME, BufReader::new(out).read_line(&mut line)).await;
    match said {
        Ok(Ok(_)) if line.trim() == READY => Ok(child),
        Ok(_) => Err(fail(&"it has ended")),
        Err(_) => Err(fail(&"it does not get ready")),
    }
}
