//! A program's own folder: configuration, log, and a mark of who works here.

use crate::daemon::{Setup, end_left_over};
use crate::failure::{Failure, Result};
use std::fs::{self, DirBuilder, File, TryLockError};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A folder for temporary files that no other process of this program and user works in.
#[derive(Debug)]
pub struct Workplace {
    folder: PathBuf,
    /// Held while this process lives, so that two of them do not share one queue.
    _lock: File,
}

impl Workplace {
    /// Takes the folder of `program`, and ends the daemon that a killed run has left behind.
    ///
    /// # Errors
    /// When the same program runs already, or the folder cannot be used.
    pub async fn claim(program: &str) -> Result<Workplace> {
        let user = rustix::process::getuid().as_raw();
        let folder = std::env::temp_dir().join(format!("mrcon-{program}-{user}"));
        make_private(&folder, user).map_err(|error| {
            Failure::because(
                folder.display(),
                error,
                "remove it, or set TMPDIR to another folder",
            )
        })?;
        let workplace = Workplace {
            _lock: lock(program, &folder.join("lock"))?,
            folder,
        };
        if let Some(pid) = workplace.remembered() {
            end_left_over(pid, &workplace.config_file()).await;
        }
        Ok(workplace)
    }

    /// What to start here.
    pub fn setup(&self, program: PathBuf) -> Setup {
        Setup {
            program,
            config_file: self.config_file(),
            log_file: self.log_file(),
        }
    }

    /// Notes the daemon's process id, in case this process is killed.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn remember(&self, pid: u32) -> Result<()> {
        fs::write(self.pid_file(), pid.to_string()).map_err(|error| {
            Failure::because(
                self.pid_file().display(),
                error,
                "see that it can be written",
            )
        })
    }

    fn remembered(&self) -> Option<u32> {
        fs::read_to_string(self.pid_file())
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    /// Where the daemon's log is.
    pub fn log_file(&self) -> PathBuf {
        self.folder.join("mrcond.log")
    }

    fn config_file(&self) -> PathBuf {
        self.folder.join("config.yaml")
    }

    fn pid_file(&self) -> PathBuf {
        self.folder.join("mrcond.pid")
    }

    /// Removes the folder.
    pub fn remove(self) {
        // What stays is small, and the next run uses the folder again.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Creates `folder`, or accepts it if it is ours: others can write into the folder around it.
fn make_private(folder: &Path, user: u32) -> std::io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let found = fs::symlink_metadata(folder)?;
            match found.is_dir() && found.uid() == user {
                true => Ok(()),
                false => Err(std::io::Error::other("it belongs to somebody else")),
            }
        }
        created => created,
    }
}

fn lock(program: &str, path: &Path) -> Result<File> {
    let place = path.display();
    let file = File::create(path)
        .map_err(|error| Failure::because(&place, error, "see that it can be written"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Failure::new(
            format_args!("another {program} is running"),
            "end it first (Ctrl-C there)",
        )),
        Err(TryLockError::Error(error)) => Err(Failure::because(
            place,
            error,
            "set TMPDIR to a folder on a local disk",
        )),
    }
}
