//! What a process cost, as Linux counts it in `/proc`.

use crate::failure::{Failure, Result};
use std::fs;
use std::time::Duration;

/// User and system time of a process so far, all threads together; in steps of 10 ms.
///
/// # Errors
/// When there is no such process.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    ticks(pid, OWN_TIMES)
}

/// The same, with that of its children which have ended and were waited for.
pub(crate) fn cpu_time_with_ended(pid: u32) -> Result<Duration> {
    ticks(pid, OWN_TIMES + 2)
}

/// The process that started a process, if both are there.
pub(crate) fn parent(pid: u32) -> Option<u32> {
    let stat = read(pid, "stat").ok()?;
    fields_after_name(&stat)?.nth(1)?.parse().ok()
}

/// User and system time, fields 14 and 15, come first; those of ended children follow.
const OWN_TIMES: usize = 2;

fn ticks(pid: u32, times: usize) -> Result<Duration> {
    let text = read(pid, "stat")?;
    let ticks = cpu_ticks(&text, times).ok_or_else(|| unexpected(pid, "stat"))?;
    Ok(Duration::from_secs_f64(
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
    ))
}

/// The most memory a process ever had resident (`VmHWM`), in bytes.
///
/// # Errors
/// When there is no such process.
pub fn peak_memory(pid: u32) -> Result<u64> {
    Ok(status(pid, "VmHWM:")? << 10)
}

/// The memory that a process has resident now (`VmRSS`), in bytes.
///
/// # Errors
/// When there is no such process.
pub fn memory(pid: u32) -> Result<u64> {
    Ok(status(pid, "VmRSS:")? << 10)
}

/// How many threads a process has.
///
/// # Errors
/// When there is no such process.
pub fn threads(pid: u32) -> Result<u64> {
    status(pid, "Threads:")
}

/// The command line of a process, its arguments parted by spaces; `None` if there is none.
pub fn command_line(pid: u32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    Some(String::from_utf8_lossy(&bytes).replace('\0', " "))
}

/// A number in `/proc/PID/status`, in the unit that stands there.
fn status(pid: u32, name: &str) -> Result<u64> {
    let text = read(pid, "status")?;
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value
        .and_then(|value| value.trim().trim_end_matches(" kB").parse().ok())
        .ok_or_else(|| unexpected(pid, "status"))
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

/// The sum of so many times, from field 14 on.
fn cpu_ticks(stat: &str, times: usize) -> Option<u64> {
    let fields = fields_after_name(stat)?.skip(11).take(times);
    fields.map(|field| field.parse::<u64>().ok()).sum()
}

/// The fields from the third on. The second, the program's name, may contain spaces and
/// parentheses.
fn fields_after_name(stat: &str) -> Option<std::str::SplitWhitespace<'_>> {
    Some(stat.rsplit_once(')')?.1.split_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_program_name_shifts_the_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 150 25 7 3 20 0 3 0 9 1 1";
        assert_eq!(cpu_ticks(stat, OWN_TIMES), Some(175));
        assert_eq!(cpu_ticks(stat, OWN_TIMES + 2), Some(185));
    }

    #[test]
    fn own_numbers_are_not_found() {
        let pid = std::process::id();
        let now = memory(pid).unwrap();
        assert!(now > 1 << 20 && peak_memory(pid).unwrap() >= now);
        assert!(threads(pid).unwrap() >= 1);
        cpu_time(pid).unwrap();
        assert!(command_line(pid).unwrap().contains("mrcon"));
    }
}
