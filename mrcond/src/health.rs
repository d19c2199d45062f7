//! `mrcond health`: the answer of the running mrcond as an exit code, for health checks in images that
//! have neither a shell nor an HTTP client.

use crate::cli::{self, Cli};
use crate::{Failure, exit, output};
use clap::Args;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Time for all of it. Docker gives a health check 30 s unless told otherwise, an orchestrator 1 s.
const TIME: Duration = Duration::from_secs(3);
/// The longest answer that is read: a line for each connector that is not well.
const MOST_BYTES: u64 = 1 << 20;

/// What is asked.
#[derive(Debug, Clone, Args)]
pub(crate) struct HealthArgs {
    /// Whether the process answers at all, whatever its servers do
    #[arg(long, conflicts_with = "ready")]
    live: bool,
    /// Whether every connector is connected to both sides
    #[arg(long)]
    ready: bool,
    /// Where it listens [default: what server.listen in the configuration file is]
    #[arg(long, value_name = "IP:PORT")]
    address: Option<SocketAddr>,
}

impl HealthArgs {
    fn path(&self) -> &'static str {
        match (self.live, self.ready) {
            (true, _) => "/livez",
            (_, true) => "/readyz",
            _ => "/health",
        }
    }
}

/// Asks the mrcond that was started with the same configuration on this machine.
pub(crate) fn ask(cli: &Cli, arguments: &HealthArgs) -> std::result::Result<(), Failure> {
    let address = match arguments.address {
        Some(address) => address,
        None => reachable(listen(cli)?),
    };
    let path = arguments.path();
    let answer = get(address, path).map_err(|error| {
        let text = format!("http://{address}{path}: {error}; see whether mrcond runs");
        Failure::new(exit::OTHER, text)
    })?;
    match answer {
        (200, body) => {
            output::inform(body.trim_end());
            Ok(())
        }
        (code, body) => {
            let lines = match body.trim_end() {
                "" => vec![format!("http://{address}{path}: {code}")],
                body => body.lines().map(str::to_owned).collect(),
            };
            Err(Failure::of_lines(exit::OTHER, lines))
        }
    }
}

/// Where the configuration has it. Whether all of that is right is not asked here: the daemon may run on an older one.
fn listen(cli: &Cli) -> std::result::Result<SocketAddr, Failure> {
    let file = cli.config.display();
    let fail = |text: String| Failure::new(exit::OTHER, text);
    let bytes = cli::read_config(&cli.config);
    let bytes = bytes.map_err(|error| {
        fail(format!("{file}: {error}; name the configuration file with -c FILE, or the listener with --address"))
    })?;
    mrcon::config::listen_address(&bytes).ok_or_else(|| {
        fail(format!("{file}: server.listen cannot be made out; correct it, or name the listener with --address"))
    })
}

/// Where a listener can be reached from its own machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// The status code and the body.
fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let deadline = Instant::now() + TIME;
    let mut stream = TcpStream::connect_timeout(&address, TIME)?;
    stream.set_write_timeout(Some(TIME))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut chunk = [0; 8192];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk)? {
            0 => break,
            length => answer.extend_from_slice(&chunk[..length]),
        }
        if answer.len() as u64 > MOST_BYTES {
            break;
        }
    }
    parse(&String::from_utf8_lossy(&answer))
}

fn parse(answer: &str) -> Result<(u16, String)> {
    let bad = || Error::new(ErrorKind::InvalidData, "not an answer of mrcond");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(bad)?;
    let code = head
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    let code = code.and_then(|code| code.parse().ok()).ok_or_else(bad)?;
    Ok((code, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_to_listen_on_is_asked_where_nobody_can_be() {
        for (listen, asked) in [
            ("0.0.0.0:3000", "127.0.0.1:3000"),
            ("[::]:80", "[::1]:80"),
            ("10.0.0.7:3000", "10.0.0.7:3000"),
        ] {
            let listen: SocketAddr = listen.parse().unwrap();
            assert_eq!(reachable(listen).to_string(), asked);
        }
    }

    #[test]
    fn answer_of_something_else_is_taken_for_health() {
        let ok = parse("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nOK\n").unwrap();
        assert_eq!(ok, (200, "OK\n".to_owned()));
        assert_eq!(parse("HTTP/1.1 503 X\r\n\r\n").unwrap().0, 503);
        for bad in [
            "",
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\n",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
