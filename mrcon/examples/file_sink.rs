//! Appends every change of a collection to a file, a line of JSON each, with no RabbitMQ anywhere:
//!
//! `cargo run -p mrcon --no-default-features --example file_sink -- MONGODB_URI DATABASE COLLECTION FILE`
//!
//! A line is confirmed when it is on the disk, and only what is confirmed moves the saved position. So no event is
//! lost, whenever the process or the machine dies, and lines stand in the order in which MongoDB has
//! the events. **At least once**: what was written behind the last saved position (a second's worth, by
//! default) is written again by the next start, from some earlier line on in the same order. Whoever
//! reads the file and minds drops lines whose `_id` it has seen.

use mrcon::config::{CollectionConfig, Config};
use mrcon::envelope::Message;
use mrcon::sink::{Opening, Settlement, Sink};
use mrcon::uri::MongoUri;
use mrcon::{Error, ErrorKind, Metrics, Result, Server};
use std::fs::{File, OpenOptions};
use std::future::pending;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::task::{JoinHandle, spawn_blocking};

/// Bytes that wait for the disk above which no more are taken.
const QUEUED_BYTES: usize = 4 << 20;

/// A file that lines are appended to.
struct FileSink {
    file: Arc<File>,
    /// Lines that nobody writes yet, and the number of the last event in them.
    queued: Vec<u8>,
    last_queued: u64,
    /// Those that are being written, and the number of their last event.
    writing: Option<(u64, JoinHandle<io::Result<()>>)>,
}

impl FileSink {
    fn open(path: &Path) -> Result<FileSink> {
        let opened = whole_lines(path);
        let file = opened.map_err(|error| failed(&format!("open {}", path.display()), error))?;
        Ok(FileSink {
            file: Arc::new(file),
            queued: Vec::new(),
            last_queued: 0,
            writing: None,
        })
    }

    /// Begins to write what is queued, all in one go: one `fsync` for many lines.
    fn start_writing(&mut self) {
        let lines = std::mem::take(&mut self.queued);
        let file = Arc::clone(&self.file);
        // A disk may be slow; it is not to hold up the connectors that share the runtime.
        let writing = spawn_blocking(move || {
            (&*file).write_all(&lines)?;
            file.sync_data()
        });
        self.writing = Some((self.last_queued, writing));
    }
}

impl Sink for FileSink {
    fn publish(&mut self, seq: u64, message: &Message<'_>) -> Result<()> {
        // JSON as it is written here has no line breaks.
        self.queued.extend_from_slice(message.body);
        self.queued.push(b'\n');
        self.last_queued = seq;
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.queued.len() < QUEUED_BYTES
    }

    fn blocked(&self) -> Option<&str> {
        None
    }

    async fn settled(&mut self, into: &mut Vec<Settlement>) -> Result<()> {
        if self.writing.is_none() && !self.queued.is_empty() {
            self.start_writing();
        }
        let Some((last, writing)) = &mut self.writing else {
            // Whoever has something new asks again.
            return pending().await;
        };
        // This may be dropped while it waits: nothing is forgotten, the write goes on and is here the next time.
        let written = writing.await;
        let last = *last;
        self.writing = None;
        written
            .unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
            .map_err(|error| failed("append to the file", error))?;
        into.push(Settlement::confirmed_up_to(last));
        Ok(())
    }

    async fn close(mut self) {
        // The next run may open the file as soon as this is done.
        if let Some((_, writing)) = self.writing.take() {
            let _ = writing.await;
        }
    }
}

/// Opens the file behind its last whole line: the end of another one is what a crash left of an event that was
/// not confirmed.
fn whole_lines(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let mut file = options.create(true).read(true).append(true).open(path)?;
    let mut end = file.metadata()?.len();
    let mut chunk = vec![0; 64 << 10];
    while end > 0 {
        let begin = end.saturating_sub(chunk.len() as u64);
        let part = &mut chunk[..(end - begin) as usize];
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(part)?;
        let line_break = part.iter().rposition(|byte| *byte == b'\n');
        end = line_break.map_or(begin, |at| begin + at as u64 + 1);
        if line_break.is_some() {
            break;
        }
    }
    file.set_len(end)?;
    file.sync_all()?;
    // A new file is there for good when its folder says so.
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(file)
}

/// An error with which the run ends; the next one begins after a pause.
fn failed(what: &str, error: io::Error) -> Error {
    Error::new(ErrorKind::Sink, what).with_source(error)
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [mongodb, database, collection, file] = &arguments[..] else {
        return Err("usage: file_sink MONGODB_URI DATABASE COLLECTION FILE".into());
    };
    let path = PathBuf::from(file);
    // The position is kept under the names of all three.
    let entry = CollectionConfig::new(database, collection, file);
    let config = Config::new([entry])
        .validate()
        .map_err(|wrong| wrong[0].to_string())?;
    let metrics = Metrics::register(&mrcon::prometheus::Registry::new())?;
    let open = move |_: Opening| {
        let path = path.clone();
        async move { FileSink::open(&path) }
    };
    let server = Server::with_sinks(config, MongoUri::parse(mongodb)?, metrics, open).await?;
    let stop = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    Ok(server.run(stop).await?)
}
