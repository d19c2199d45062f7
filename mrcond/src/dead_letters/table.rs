//! Dead letters as lines for people, and as JSON for programs.

use mrcon::dead_letters::{DeadLetter, Listing};
use mrcon::status::rfc3339;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What stands for something that is not there.
const NOTHING: &str = "-";
/// Ids are shown at least so long. Resume tokens begin with the second, which many have in common.
const SHORTEST_ID: usize = 12;
const HEADINGS: [&str; 7] = [
    "ID",
    "WHEN",
    "COLLECTION",
    "OPERATION",
    "REASON",
    "SIZE",
    "STRIPPED",
];

/// A heading and a line for each.
pub(super) fn lines(letters: &[DeadLetter]) -> Vec<String> {
    let length = id_length(letters);
    let rows = letters.iter().map(|letter| row(letter, length));
    let rows: Vec<_> = [HEADINGS.map(str::to_owned)]
        .into_iter()
        .chain(rows)
        .collect();
    let widths = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<_> = (0..HEADINGS.len())
        .map(|n| widths(n).unwrap_or(0))
        .collect();
    let line = |row: &[String; 7]| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        let cells: Vec<_> = cells.collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

fn row(letter: &DeadLetter, id_length: usize) -> [String; 7] {
    let text = |text: &Option<String>| text.as_deref().map_or(NOTHING.to_owned(), clean);
    [
        match letter.id.chars().count() > id_length {
            true => letter.id.chars().take(id_length).chain(['…']).collect(),
            false => id(letter),
        },
        letter.at.map_or(NOTHING.to_owned(), rfc3339),
        collection(letter),
        text(&letter.operation),
        clean(&letter.reason),
        size(letter.size),
        text(&letter.stripped),
    ]
}

/// How much of an id tells it from all others that are shown.
fn id_length(letters: &[DeadLetter]) -> usize {
    let ids: BTreeSet<&str> = letters.iter().map(|letter| letter.id.as_str()).collect();
    let neighbours = ids.iter().zip(ids.iter().skip(1));
    let common = |one: &str, other: &str| {
        let pairs = one.chars().zip(other.chars());
        pairs.take_while(|(one, other)| one == other).count()
    };
    let longest = neighbours.map(|(one, other)| common(one, other)).max();
    longest.map_or(0, |common| common + 1).max(SHORTEST_ID)
}

/// The whole id.
pub(super) fn id(letter: &DeadLetter) -> String {
    match letter.id.is_empty() {
        true => NOTHING.to_owned(),
        false => clean(&letter.id),
    }
}

/// Where it was to go.
pub(super) fn target(letter: &DeadLetter) -> String {
    let key = letter.routing_key.as_deref().unwrap_or(NOTHING);
    clean(&match letter.exchange.as_deref() {
        None | Some("") => key.to_owned(),
        Some(exchange) => format!("{exchange}/{key}"),
    })
}

fn collection(letter: &DeadLetter) -> String {
    match (&letter.db, &letter.coll) {
        (Some(db), Some(coll)) => clean(&format!("{db}.{coll}")),
        (Some(db), None) => clean(db),
        (None, _) => NOTHING.to_owned(),
    }
}

/// A length as people read it.
pub(super) fn size(bytes: u64) -> String {
    let tenths = |unit: u64| bytes as f64 / unit as f64;
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", tenths(1 << 10)),
        _ => format!("{:.1} MiB", tenths(1 << 20)),
    }
}

/// Text that cannot move the cursor, or say something else to a terminal.
pub(super) fn clean(text: &str) -> String {
    let visible = |letter: char| {
        if letter.is_control() {
            '\u{FFFD}'
        } else {
            letter
        }
    };
    text.chars().map(visible).collect()
}

/// For programs: all that is known, ids as they are.
pub(super) fn json(queue: &str, listing: &Listing) -> String {
    let letters: Vec<Value> = listing.letters.iter().map(object).collect();
    let all = json!({
        "queue": queue,
        "messages": listing.total,
        "looked_at": listing.looked_at,
        "dead_letters": letters,
        "other_messages": listing.others,
    });
    format!("{all:#}")
}

fn object(letter: &DeadLetter) -> Value {
    json!({
        "id": letter.id,
        "at": letter.at.map(rfc3339),
        "database": letter.db,
        "collection": letter.coll,
        "operation": letter.operation,
        "seq": letter.seq,
        "reason": letter.reason,
        "cause": letter.cause,
        "exchange": letter.exchange,
        "routing_key": letter.routing_key,
        "content_type": letter.content_type,
        "size": letter.size,
        "stripped": letter.stripped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn letter(id: &str) -> DeadLetter {
        let mut letter = DeadLetter::default();
        letter.id = id.to_owned();
        letter.at = Some(UNIX_EPOCH + Duration::from_millis(1_700_000_000_123));
        letter.db = Some("shop".to_owned());
        letter.coll = Some("orders".to_owned());
        letter.operation = Some("insert".to_owned());
        letter.seq = Some(7);
        letter.reason = "unroutable".to_owned();
        letter.exchange = Some(String::new());
        letter.routing_key = Some("orders".to_owned());
        letter.size = 1536;
        letter
    }

    #[test]
    fn shortened_id_stands_for_two() {
        let ids = [
            "8265ABCDEF012345AA",
            "8265ABCDEF012345AB",
            "82FFFFFFFFFFFFFFFF",
        ];
        let letters: Vec<_> = ids.map(letter).into();
        assert_eq!(id_length(&letters), 18);
        assert_eq!(id_length(&letters[1..]), SHORTEST_ID);
        assert_eq!(
            id_length(&[letter("same-id-for-both"), letter("same-id-for-both")]),
            12
        );
        assert_eq!(id_length(&[]), SHORTEST_ID);
    }

    #[test]
    fn table_has_ragged_columns_or_another_order() {
        let mut other = letter("82FFFFFFFFFFFFFFFF");
        (other.at, other.coll) = (None, None);
        other.stripped = Some("fullDocument".to_owned());
        other.size = 20 << 20;
        let lines = lines(&[letter("8265ABCDEF01"), other]);
        assert_eq!(
            lines,
            [
                "ID             WHEN                      COLLECTION   OPERATION  REASON      SIZE      STRIPPED",
                "8265ABCDEF01   2023-11-14T22:13:20.123Z  shop.orders  insert     unroutable  1.5 KiB   -",
                "82FFFFFFFFFF…  -                         shop         insert     unroutable  20.0 MiB  fullDocument",
            ]
        );
    }

    #[test]
    fn header_moves_the_cursor_of_a_terminal() {
        let mut evil = letter("8265");
        evil.coll = Some("or\u{1b}[2Jders\n".to_owned());
        let lines = lines(&[evil]);
        assert!(!lines[1].contains(['\u{1b}', '\n']), "{}", lines[1]);
    }
}
