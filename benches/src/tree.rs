//! A process and all its descendants, counted together: a peer may be a script that starts others.

use crate::failure::Result;
use crate::process::{cpu_time_with_ended, parent, peak_memory};
use std::fs;
use std::time::Duration;

/// User and system time of `root` and its descendants so far, ended ones too once they have been
/// waited for.
///
/// # Errors
/// When there is no process `root`.
pub fn cpu_time(root: u32) -> Result<Duration> {
    let mut sum = cpu_time_with_ended(root)?;
    for pid in descendants(root) {
        // It may have ended since; its time is with its parent then.
        sum += cpu_time_with_ended(pid).unwrap_or_default();
    }
    Ok(sum)
}

/// The peaks of resident memory of `root` and its living descendants added up, in bytes: what
/// they share is counted more than once.
///
/// # Errors
/// When there is no process `root`.
pub fn peak(root: u32) -> Result<u64> {
    let own = peak_memory(root)?;
    let others = descendants(root).into_iter();
    Ok(own + others.filter_map(|pid| peak_memory(pid).ok()).sum::<u64>())
}

/// All living descendants of `root`.
pub fn descendants(root: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let pairs: Vec<(u32, u32)> = pids.filter_map(|pid| Some((pid, parent(pid)?))).collect();
    below(root, &pairs)
}

/// Who descends from `root`, from pairs of process and parent in any order.
fn below(root: u32, pairs: &[(u32, u32)]) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while next < found.len() {
        let children = pairs.iter().filter(|(_, parent)| *parent == found[next]);
        found.extend(children.map(|(pid, _)| *pid).collect::<Vec<_>>());
        next += 1;
    }
    found.split_off(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn grandchildren_are_forgotten() {
        let pairs = [(5, 4), (4, 2), (3, 2), (2, 1), (9, 1)];
        assert_eq!(below(2, &pairs), [4, 3, 5]);
        assert!(below(9, &pairs).is_empty());
    }

    #[test]
    fn work_of_a_child_is_not_counted() {
        // It reads until its input ends, which is when this test ends it.
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let us = std::process::id();
        assert!(descendants(us).contains(&child.id()));
        assert!(peak(us).unwrap() > peak_memory(us).unwrap());
        cpu_time(us).unwrap();
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
