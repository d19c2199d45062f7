//! Whom a process is connected to over TCP, as Linux shows it in `/proc`.

use crate::failure::{Failure, Result};
use std::collections::HashSet;
use std::fs;

/// One established connection: the ports at both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// The port on the process' side.
    pub local_port: u16,
    /// The port on the other side.
    pub remote_port: u16,
}

impl Connection {
    /// Whether both are ends of the same connection, if they are on the same machine.
    pub fn is_other_end_of(&self, other: &Connection) -> bool {
        (self.local_port, self.remote_port) == (other.remote_port, other.local_port)
    }
}

/// What a process is connected to, whoever opened the connection.
///
/// # Errors
/// When there is no such process, or it belongs to somebody else.
pub fn connections(pid: u32) -> Result<Vec<Connection>> {
    let folder = format!("/proc/{pid}/fd");
    let entries = fs::read_dir(&folder)
        .map_err(|error| Failure::because(&folder, error, "run this as the same user"))?;
    let targets = entries
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok());
    let own: HashSet<u64> = targets
        .filter_map(|target| inode(target.to_str()?))
        .collect();
    let tables = ["tcp", "tcp6"].map(|table| {
        // Without IPv6 there is no second table.
        fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default()
    });
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    Ok(lines
        .filter_map(established)
        .filter(|(_, inode)| own.contains(inode))
        .map(|(connection, _)| connection)
        .collect())
}

/// The number in `socket:[number]`.
fn inode(target: &str) -> Option<u64> {
    let number = target.strip_prefix("socket:[")?.strip_suffix(']')?;
    number.parse().ok()
}

/// A line of `/proc/net/tcp`, if its connection is established, and its inode.
fn established(line: &str) -> Option<(Connection, u64)> {
    const ESTABLISHED: &str = "01";
    let fields: Vec<&str> = line.split_whitespace().collect();
    let port = |address: &str| u16::from_str_radix(address.rsplit_once(':')?.1, 16).ok();
    if *fields.get(3)? != ESTABLISHED {
        return None;
    }
    let connection = Connection {
        local_port: port(fields[1])?,
        remote_port: port(fields[2])?,
    };
    Some((connection, fields.get(9)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn fields_are_mixed_up() {
        let line = "   3: 0100007F:1692 0100007F:C350 01 00000000:00000000 02:000003E8 00000000     0        0 41234 2 ffff 20 4 30 10 -1";
        let connection = Connection {
            local_port: 0x1692,
            remote_port: 50_000,
        };
        assert_eq!(established(line), Some((connection, 41_234)));
        let listening = line.replace(" 01 ", " 0A ");
        assert_eq!(established(&listening), None);
    }

    #[test]
    fn own_connection_is_not_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let wanted = Connection {
            local_port: client.local_addr().unwrap().port(),
            remote_port: address.port(),
        };
        let found = connections(std::process::id()).unwrap();
        assert_eq!(found.iter().filter(|one| **one == wanted).count(), 1);
    }
}
