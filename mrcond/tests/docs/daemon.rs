//! A daemon to ask.

use crate::MRCOND;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A daemon whose servers do not exist: its listener answers all the same.
pub(crate) struct Daemon {
    child: Child,
    address: SocketAddr,
    config: std::path::PathBuf,
    log: std::path::PathBuf,
}

impl Daemon {
    pub(crate) fn start() -> Daemon {
        let address = free_address();
        let config = std::env::temp_dir().join(format!("mrcond-docs-{}.yaml", address.port()));
        let text = format!(
            "server: {{listen: \"{address}\"}}\ncollections:\n  - watched: {{db_name: db, coll_name: coll}}\n    rabbitmq: {{stream_name: queue}}\n  - watched: {{db_name: db, coll_name: other}}\n    rabbitmq: {{stream_name: stream, protocol: stream}}\n"
        );
        std::fs::write(&config, text).unwrap();
        let nobody = free_address();
        let log = config.with_extension("log");
        let child = Command::new(MRCOND)
            .arg("-c")
            .arg(&config)
            .env("MRCON_MONGO_URI", format!("mongodb://{nobody}/"))
            .env("MRCON_RABBITMQ_URI", format!("amqp://{nobody}"))
            .env("MRCON_LOG_FORMAT", "json")
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Daemon {
            child,
            address,
            config,
            log,
        }
    }

    /// The first line of the log with this message, once there is one.
    pub(crate) fn logged(&self, message: &str) -> serde_json::Value {
        let wanted = format!("\"message\":\"{message}\"");
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let log = std::fs::read_to_string(&self.log).unwrap();
            // The last one may be half written.
            let mut lines = log
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'));
            if let Some(line) = lines.find(|line| line.contains(&wanted)) {
                return serde_json::from_str(line).unwrap();
            }
            assert!(Instant::now() < deadline, "{message} is not in:\n{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The answer to `GET path`, once the listener is there.
    pub(crate) fn get(&self, path: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match request(self.address, path) {
                Ok(answer) => return answer,
                Err(error) if Instant::now() > deadline => panic!("{path}: {error}"),
                Err(_) => std::thread::yield_now(),
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.config);
        let _ = std::fs::remove_file(&self.log);
    }
}

/// An address that nobody listens on, and that no other test of this process gets.
fn free_address() -> SocketAddr {
    static GIVEN: Mutex<BTreeSet<SocketAddr>> = Mutex::new(BTreeSet::new());
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        if GIVEN.lock().unwrap().insert(address) {
            return address;
        }
    }
}

fn request(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: mrcond\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    Ok(body.to_owned())
}
