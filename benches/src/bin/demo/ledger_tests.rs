use super::*;
use bson::bson;

fn reported(number: u32) -> Reported {
    Reported {
        id: number.to_string(),
        at: SystemTime::UNIX_EPOCH,
        event: bson!({"n": number as i32}),
    }
}

fn arrival(number: u32) -> Arrival {
    Arrival {
        id: number.to_string(),
        body: format!("{{\"n\":{number}}}").into_bytes(),
        at: SystemTime::UNIX_EPOCH,
    }
}

fn verdict(
    reports: impl IntoIterator<Item = u32>,
    arrivals: impl IntoIterator<Item = u32>,
) -> Verdict {
    let mut ledger = Ledger::default();
    reports
        .into_iter()
        .for_each(|number| ledger.report(reported(number)));
    arrivals
        .into_iter()
        .for_each(|number| ledger.arrive(arrival(number)));
    ledger.close()
}

#[test]
fn all_is_well_and_called_wrong() {
    let verdict = verdict(0..1000, 0..1000);
    assert!(verdict.is_good(), "{verdict:?}");
    assert_eq!(verdict.to_string(), "1000/1000 events delivered, 0 lost");
}

#[test]
fn message_before_its_report_is_called_wrong() {
    let mut ledger = Ledger::default();
    for number in 0..10 {
        ledger.arrive(arrival(number));
    }
    assert!(!ledger.is_even());
    for number in 0..10 {
        ledger.report(reported(number));
    }
    assert!(ledger.is_even());
    assert!(ledger.close().is_good());
}

#[test]
fn repetition_is_called_wrong() {
    let verdict = verdict(0..10, (0..8).chain(5..10));
    assert!(verdict.is_good(), "{verdict:?}");
}

#[test]
fn lost_event_goes_unnoticed() {
    let in_the_middle = verdict(0..10, (0..10).filter(|number| *number != 4));
    assert!(!in_the_middle.is_good());
    assert_eq!(in_the_middle.to_string(), "9/10 events delivered, 1 lost");
    assert_eq!(in_the_middle.notes, ["lost: event 4"]);
    let at_the_end = verdict(0..10, 0..8);
    assert_eq!(at_the_end.to_string(), "8/10 events delivered, 2 lost");
    assert!(!at_the_end.is_good());
}

#[test]
fn wrong_order_goes_unnoticed() {
    let verdict = verdict(0..5, [0, 2, 1, 3, 4]);
    assert!(!verdict.is_good());
    assert_eq!(
        verdict.to_string(),
        "5/5 events delivered, 0 lost, 1 out of order"
    );
}

#[test]
fn wrong_body_goes_unnoticed() {
    let mut ledger = Ledger::default();
    ledger.report(reported(1));
    ledger.arrive(Arrival {
        body: b"{\"n\":2}".to_vec(),
        ..arrival(1)
    });
    assert!(ledger.has_mistakes());
    let verdict = ledger.close();
    assert!(!verdict.is_good());
    assert_eq!(verdict.to_string(), "1/1 events delivered, 0 lost, 1 wrong");
    assert_eq!(verdict.notes, ["wrong body (n): event 1"]);
}

#[test]
fn message_out_of_nowhere_goes_unnoticed() {
    let verdict = verdict(0..3, 0..4);
    assert!(!verdict.is_good());
    assert_eq!(verdict.to_string(), "3/3 events delivered, 0 lost, 1 wrong");
}

#[test]
fn message_out_of_nowhere_hides_what_follows() {
    let mut ledger = Ledger::default();
    ledger.arrive(arrival(99));
    for number in 0..10 {
        ledger.arrive(arrival(number));
        ledger.report(reported(number));
    }
    assert!(ledger.has_mistakes());
    assert_eq!(ledger.delivered(), 10);
    assert_eq!(
        ledger.close().to_string(),
        "10/10 events delivered, 0 lost, 1 wrong"
    );
}

#[test]
fn wrong_order_goes_unnoticed_when_messages_come_before_reports() {
    let mut ledger = Ledger::default();
    [0, 2, 1, 3]
        .into_iter()
        .for_each(|number| ledger.arrive(arrival(number)));
    (0..4).for_each(|number| ledger.report(reported(number)));
    let verdict = ledger.close();
    assert!(!verdict.is_good());
    assert_eq!(
        verdict.to_string(),
        "4/4 events delivered, 0 lost, 1 out of order"
    );
}

#[test]
fn change_that_mongodb_did_not_report_goes_unnoticed() {
    let mut verdict = verdict(0..3, 0..3);
    verdict.expect(4);
    assert!(!verdict.is_good());
}

#[test]
fn lag_of_a_stalled_queue_looks_small() {
    let mut ledger = Ledger::default();
    ledger.report(reported(0));
    let later = SystemTime::UNIX_EPOCH + Duration::from_secs(7);
    assert_eq!(ledger.lag(later), Some(Duration::from_secs(7)));
    ledger.arrive(arrival(0));
    assert_eq!(ledger.lag(later), Some(Duration::ZERO));
}
