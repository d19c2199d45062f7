use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn lasts(example: usize, others: usize, times: u64, seconds: u32) -> Summary {
    Summary::Lasts {
        example,
        others,
        repeated: repeated(times, seconds),
    }
}

fn over(example: usize, others: usize, still: usize, repeated: Repeated) -> Summary {
    Summary::Over {
        example,
        others,
        still,
        repeated,
    }
}

fn repeated(times: u64, seconds: u32) -> Repeated {
    Repeated {
        times,
        lasted: SECOND * seconds,
    }
}

fn down(outages: &mut Outages, who: usize, now: Instant) -> bool {
    outages.failed(who, "down".into(), now)
}

#[test]
fn streak_is_told_at_each_failure_or_never_again() {
    let start = Instant::now();
    let mut streak = Streak::default();
    assert_eq!(streak.over(start), None);
    let said: Vec<(u32, Repeated)> = (0..2000)
        .filter_map(|second| Some((second, streak.failed(start + SECOND * second)?)))
        .collect();
    let expected = [0, 60, 660, 1260, 1860];
    assert_eq!(
        said,
        expected.map(|second| (second, repeated(u64::from(second) + 1, second)))
    );
    assert_eq!(
        streak.over(start + SECOND * 2000),
        Some(repeated(2000, 2000))
    );
    assert_eq!(streak.over(start + SECOND * 2001), None);
    assert!(
        streak.failed(start + SECOND * 2002).is_some(),
        "the next outage is not told"
    );
}

#[test]
fn one_connector_tells_each_attempt_or_not_the_end() {
    let start = Instant::now();
    let mut outages = Outages::default();
    assert!(down(&mut outages, 0, start));
    let mut lines = Vec::new();
    for second in 1..=700 {
        let now = start + SECOND * second;
        assert!(!down(&mut outages, 0, now));
        lines.extend(outages.due(now));
    }
    assert_eq!(lines, [lasts(0, 0, 60, 60), lasts(0, 0, 600, 660)]);
    let end = start + SECOND * 701;
    outages.recovered(0, end);
    assert_eq!(outages.due(end), [over(0, 0, 0, repeated(701, 701))]);
    assert!(outages.by_essence.is_empty() && !outages.has(0));
    assert!(down(&mut outages, 0, end), "the next outage is not told");
}

#[test]
fn many_connectors_tell_the_same_thing_each() {
    let start = Instant::now();
    let mut outages = Outages::default();
    let told = (0..200)
        .filter(|who| down(&mut outages, *who, start))
        .count();
    assert_eq!(told, 1);
    assert_eq!(outages.due(start), []);
    let mut lines = Vec::new();
    for second in 1..=60 {
        let now = start + SECOND * second;
        (0..200).for_each(|who| assert!(!down(&mut outages, who, now)));
        lines.extend(outages.due(now));
    }
    assert_eq!(lines, [lasts(1, 199, 399, 1)]);
    let now = start + SECOND * 61;
    down(&mut outages, 0, now);
    assert_eq!(outages.due(now), [lasts(0, 199, 11_801, 61)]);
    // They come back within their backoff.
    for who in 0..200 {
        outages.recovered(who, now + SECOND * (who as u32 / 10));
        if who < 199 {
            assert_eq!(outages.due(now + SECOND * (who as u32 / 10)), []);
        }
    }
    let end = now + SECOND * 19;
    assert_eq!(outages.due(end), [over(0, 199, 0, repeated(62, 80))]);
    assert!(outages.by_essence.is_empty());
}

#[test]
fn one_that_stays_broken_hides_that_the_others_are_well() {
    let start = Instant::now();
    let mut outages = Outages::default();
    (0..3).for_each(|who| {
        down(&mut outages, who, start);
    });
    outages.due(start + SECOND);
    outages.recovered(0, start + SECOND * 2);
    outages.recovered(2, start + SECOND * 3);
    assert_eq!(outages.due(start + SECOND * 31), []);
    let line = over(0, 1, 1, repeated(1, 3));
    assert_eq!(outages.due(start + SECOND * 32), [line]);
    assert!(outages.has(1) && !outages.has(0));
}

#[test]
fn late_comer_is_not_named_until_the_reminder() {
    let start = Instant::now();
    let mut outages = Outages::default();
    down(&mut outages, 0, start);
    let now = start + SECOND * 50;
    down(&mut outages, 7, now);
    assert_eq!(outages.due(now), [lasts(7, 1, 1, 50)]);
}

#[test]
fn two_errors_that_take_turns_are_told_each_time() {
    let start = Instant::now();
    let mut outages = Outages::default();
    let told: Vec<u32> = (0..50)
        .filter(|second| {
            let essence = if second % 2 == 0 { "refused" } else { "reset" };
            outages.failed(0, essence.into(), start + SECOND * *second)
        })
        .collect();
    assert_eq!(told, [0, 1]);
    outages.recovered(0, start + SECOND * 50);
    assert_eq!(
        outages.due(start + SECOND * 50),
        [over(0, 0, 0, repeated(50, 50))]
    );
    assert!(outages.by_essence.is_empty());
}

#[test]
fn halted_connector_ends_an_outage_as_if_it_were_well() {
    let start = Instant::now();
    let mut outages = Outages::default();
    down(&mut outages, 0, start);
    outages.gone(0);
    assert_eq!(outages.due(start + SECOND * 700), []);
    assert!(outages.by_essence.is_empty());
}

#[test]
fn endless_kinds_of_errors_fill_the_memory() {
    let start = Instant::now();
    let mut outages = Outages::default();
    for number in 0..MAX_OUTAGES * 2 {
        outages.failed(0, format!("error {number}"), start);
    }
    assert_eq!(outages.by_essence.len(), MAX_OUTAGES + 1);
    outages.recovered(0, start);
    outages.due(start);
    assert!(outages.by_essence.is_empty());
}

#[test]
fn essence_differs_between_attempts_or_connectors() {
    let of = |cause: &str, names: &[&str]| essence("Nacked", cause, names);
    assert_eq!(
        of("publish event 17 to shop.orders: refused", &["shop.orders"]),
        of("publish event 4711 to shop.users: refused", &["shop.users"])
    );
    assert_eq!(
        of(r#"labels: {"Retryable", "Overloaded"}, on 10.0.0.1:1"#, &[]),
        of(
            r#"labels: {"Overloaded", "Retryable"}, on 10.0.0.27:23"#,
            &[]
        )
    );
    assert_ne!(of("refused", &["shop.orders"]), of("reset", &[""]));
    assert_ne!(essence("Nacked", "no", &[]), essence("Mongo", "no", &[]));
}
