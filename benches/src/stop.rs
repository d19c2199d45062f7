//! Ctrl-C and SIGTERM: the first asks for an orderly end, the second for a quick one.

use crate::failure::{Failure, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// How often this process was told to end.
#[derive(Debug, Clone)]
pub struct Stop {
    asked: watch::Receiver<u32>,
}

impl Stop {
    /// Listens from now on; the signals no longer end the process by themselves.
    ///
    /// # Errors
    /// When the system refuses signal handlers.
    pub fn listen() -> Result<Stop> {
        let on = |kind| {
            signal(kind).map_err(|error| Failure::because("handle signals", error, "try again"))
        };
        let (interrupt, terminate) = (on(SignalKind::interrupt())?, on(SignalKind::terminate())?);
        // A closed terminal must not leave a daemon behind.
        let hangup = on(SignalKind::hangup())?;
        let (sender, asked) = watch::channel(0);
        tokio::spawn(count([interrupt, terminate, hangup], sender));
        Ok(Stop { asked })
    }

    /// Ready once somebody asked for the end.
    pub async fn requested(&self) {
        self.asked_times(1).await;
    }

    /// Ready once somebody asked twice, and does not want to wait.
    pub async fn insisted(&self) {
        self.asked_times(2).await;
    }

    /// Whether somebody asked for the end.
    pub fn is_requested(&self) -> bool {
        *self.asked.borrow() > 0
    }

    /// Does `work`, unless somebody asks for the end before it is done.
    ///
    /// # Errors
    /// That of the work, or that it was interrupted.
    pub async fn or_interrupted<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            outcome = work => outcome,
            () = self.requested() => Err(Failure::new("interrupted", "start again when you like")),
        }
    }

    async fn asked_times(&self, times: u32) {
        let mut asked = self.asked.clone();
        if asked.wait_for(|asked| *asked >= times).await.is_err() {
            // Nobody counts any more, so nobody can ask.
            std::future::pending().await
        }
    }
}

async fn count([mut one, mut two, mut three]: [Signal; 3], sender: watch::Sender<u32>) {
    loop {
        tokio::select! {
            _ = one.recv() => {}
            _ = two.recv() => {}
            _ = three.recv() => {}
        }
        sender.send_modify(|asked| *asked += 1);
    }
}
