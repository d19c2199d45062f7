//! The server's clock against ours. Pure.

use super::Seen;
use crate::doctor::finding::{Check, Finding};
use std::time::{Duration, SystemTime};

/// Ages, delays and the times of positions are as wrong as the clocks are apart.
const TOLERANCE: Duration = Duration::from_secs(5);

pub(super) fn judge(seen: &Seen) -> Finding {
    match seen.hello.get_datetime("localTime") {
        Ok(time) => compare(time.to_system_time(), seen.asked, seen.took),
        Err(_) => Finding::unseen(Check::MongodbClock, "MongoDB does not tell its time"),
    }
}

/// The server looked at its clock at some moment between question and answer.
fn compare(theirs: SystemTime, asked: SystemTime, took: Duration) -> Finding {
    let ahead = theirs.duration_since(asked + took).unwrap_or_default();
    let behind = asked.duration_since(theirs).unwrap_or_default();
    let (apart, word) = match ahead > behind {
        true => (ahead, "ahead of"),
        false => (behind, "behind"),
    };
    if apart <= TOLERANCE {
        return Finding::info(Check::MongodbClock, "MongoDB's clock agrees with ours");
    }
    let seconds = apart.as_secs();
    let cause = format!(
        "MongoDB's clock is {seconds} s {word} that of this machine: delays, ages and windows are told wrong by as much"
    );
    let remedy = "set both clocks by NTP (timedatectl set-ntp true)";
    Finding::warning(Check::MongodbClock, cause).remedy(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Severity;

    #[test]
    fn slow_answer_is_taken_for_a_wrong_clock_or_a_wrong_clock_for_a_slow_answer() {
        let asked = SystemTime::now();
        let seconds = Duration::from_secs;
        let found = |theirs, took| compare(theirs, asked, took);
        assert_eq!(
            found(asked + seconds(30), seconds(60)).severity,
            Severity::Info
        );
        assert_eq!(
            found(asked - seconds(5), seconds(1)).severity,
            Severity::Info
        );
        let ahead = found(asked + seconds(61), seconds(1));
        assert_eq!(ahead.severity, Severity::Warning);
        assert!(ahead.cause.contains("60 s ahead of"), "{}", ahead.cause);
        let behind = found(asked - seconds(60), seconds(1));
        assert!(behind.cause.contains("60 s behind"), "{}", behind.cause);
    }
}
