//! What a process cost, as Linux counts it in `/proc`.

use crate::failure::{Failure, Result};
use std::fs;
use std::time::Duration;

/// User and system time of a process so far, all threads together; in steps of 10 ms.
///
/// # Errors
/// When there is no such process.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let text = read(pid, "stat")?;
    let ticks = cpu_ticks(&text).ok_or_else(|| unexpected(pid, "stat"))?;
    Ok(Duration::from_secs_f64(
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
    ))
}

/// The most memory a process ever had resident (`VmHWM`), in bytes.
///
/// # Errors
/// When there is no such process.
pub fn peak_memory(pid: u32) -> Result<u64> {
    let text = read(pid, "status")?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    let kib: Option<u64> = kib.and_then(|kib| kib.trim().parse().ok());
    kib.map(|kib| kib << 10)
        .ok_or_else(|| unexpected(pid, "status"))
}

/// The command line of a process, its arguments parted by spaces; `None` if there is none.
pub fn command_line(pid: u32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    Some(String::from_utf8_lossy(&bytes).replace('\0', " "))
}

fn read(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).map_err(|error| Failure::because(&path, error, "try again"))
}

fn unexpected(pid: u32, file: &str) -> Failure {
    Failure::new(
        format_args!("/proc/{pid}/{file} is not as on Linux"),
        "run this on Linux",
    )
}

/// Fields 14 and 15. The second field, the program's name, may contain spaces and parentheses.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_program_name_shifts_the_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 150 25 0 0 20 0 3 0 9 1 1";
        assert_eq!(cpu_ticks(stat), Some(175));
    }

    #[test]
    fn own_numbers_are_not_found() {
        let pid = std::process::id();
        assert!(peak_memory(pid).unwrap() > 1 << 20);
        cpu_time(pid).unwrap();
        assert!(command_line(pid).unwrap().contains("mrcon"));
    }
}
