//! Positions as lines for people, and as JSON for programs.

use mrcon::position::{Place, PositionChange, Stored};
use mrcon::status::rfc3339;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

/// What stands for something that is not there.
const NOTHING: &str = "-";
/// One byte of type and eight of cluster time, in hexadecimal: what tells tokens of different times apart.
const SHOWN_TOKEN: usize = 18;

/// A connector's name and what is stored of it.
type Row = (String, Option<Stored>);
/// When the oldest entry of the oplog was written, or why that is unknown.
type Oldest = Result<SystemTime, String>;

/// The beginning of a token.
pub(super) fn short(token: &str) -> String {
    match token.chars().count() > SHOWN_TOKEN {
        true => token.chars().take(SHOWN_TOKEN).chain(['…']).collect(),
        false => token.to_owned(),
    }
}

/// A heading, a line for each, and what is to be said besides.
pub(super) fn lines(rows: &[Row], oldest: &Oldest, now: SystemTime) -> Vec<String> {
    let headings = [
        "CONNECTOR",
        "POSITION",
        "AGE",
        "EVENT",
        "SAVED",
        "OPLOG",
        "TOKEN",
    ];
    let cells = rows.iter().map(|(name, stored)| {
        let place = stored.as_ref().and_then(|stored| stored.place.as_ref());
        let at = place.and_then(|place| place.at);
        let saved = stored.as_ref().and_then(|stored| stored.saved_at);
        [
            name.clone(),
            at.map_or(NOTHING.into(), rfc3339),
            at.map_or(NOTHING.into(), |at| age(at, now)),
            place.map_or(NOTHING.into(), |place| place.seq.to_string()),
            saved.map_or(NOTHING.into(), rfc3339),
            in_oplog(place, oldest).unwrap_or(NOTHING).to_owned(),
            place.map_or(NOTHING.into(), |place| short(&place.token)),
        ]
    });
    let mut lines = aligned(headings, cells.collect());
    for (name, stored) in rows {
        let complaint = match stored {
            None => Some("never ran, or its document is gone".to_owned()),
            Some(stored) => stored.complaint.clone(),
        };
        lines.extend(complaint.map(|complaint| format!("{name}: {complaint}")));
    }
    if let Err(why) = oldest {
        lines.push(format!("how far back the oplog reaches is unknown: {why}"));
    }
    lines
}

/// What operators have done, the last one last.
pub(super) fn changes(rows: &[Row]) -> Vec<String> {
    let headings = ["CONNECTOR", "WHEN", "WHAT", "BY", "FROM", "TO"];
    let place = |place: &Option<Place>| {
        place.as_ref().map_or(NOTHING.to_owned(), |place| {
            let at = place.at.map_or(NOTHING.to_owned(), rfc3339);
            format!("{at} #{} {}", place.seq, short(&place.token))
        })
    };
    let cells = all_changes(rows).map(|(name, change)| {
        [
            name.to_owned(),
            change.at.map_or(NOTHING.into(), rfc3339),
            change.what.clone(),
            change.by.clone(),
            place(&change.from),
            place(&change.to),
        ]
    });
    aligned(headings, cells.collect())
}

fn all_changes(rows: &[Row]) -> impl Iterator<Item = (&str, &PositionChange)> {
    rows.iter().flat_map(|(name, stored)| {
        let changes = stored.iter().flat_map(|stored| &stored.changes);
        changes.map(move |change| (name.as_str(), change))
    })
}

/// For programs: all that is known, tokens as they are.
pub(super) fn json(rows: &[Row], oldest: &Oldest, now: SystemTime) -> Value {
    let rows = rows.iter().map(|(name, stored)| {
        let place = stored.as_ref().and_then(|stored| stored.place.as_ref());
        let seconds = |since: SystemTime| now.duration_since(since).unwrap_or_default().as_secs_f64();
        let changes = stored.iter().flat_map(|stored| &stored.changes);
        json!({
            "connector": name,
            "position": place.map(place_json),
            "age_seconds": place.and_then(|place| place.at).map(seconds),
            "saved_at": stored.as_ref().and_then(|stored| stored.saved_at).map(rfc3339),
            "holder": stored.as_ref().and_then(|stored| stored.holder.clone()),
            "complaint": stored.as_ref().and_then(|stored| stored.complaint.clone()),
            "in_oplog": in_oplog(place, oldest).map(|word| word == INSIDE),
            "changes": changes.map(|change| json!({
                "at": change.at.map(rfc3339), "by": change.by, "what": change.what,
                "from": change.from.as_ref().map(place_json), "to": change.to.as_ref().map(place_json),
            })).collect::<Vec<_>>(),
        })
    });
    json!({
        "oplog": {
            "oldest_at": oldest.as_ref().ok().map(|at| rfc3339(*at)),
            "error": oldest.as_ref().err(),
        },
        "connectors": rows.collect::<Vec<_>>(),
    })
}

fn place_json(place: &Place) -> Value {
    json!({"token": place.token, "seq": place.seq, "at": place.at.map(rfc3339)})
}

const INSIDE: &str = "inside";

/// Whether what comes after the position is still there; `None` if that is unknown.
fn in_oplog(place: Option<&Place>, oldest: &Oldest) -> Option<&'static str> {
    let (at, oldest) = (place?.at?, oldest.as_ref().ok()?);
    Some(match at >= *oldest {
        true => INSIDE,
        false => "gone",
    })
}

/// A time ago, in the largest unit that tells enough.
fn age(at: SystemTime, now: SystemTime) -> String {
    let seconds = now.duration_since(at).unwrap_or(Duration::ZERO).as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

fn aligned<const N: usize>(headings: [&str; N], rows: Vec<[String; N]>) -> Vec<String> {
    let all: Vec<[String; N]> = std::iter::once(headings.map(str::to_owned))
        .chain(rows)
        .collect();
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &[String; N]| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    all.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn stored(seconds: u64) -> Stored {
        let mut place = Place::default();
        place.token = "8265F0C0FF0000000123456789".into();
        place.seq = 7;
        place.at = Some(at(seconds));
        let mut stored = Stored::default();
        stored.place = Some(place);
        stored.saved_at = Some(at(seconds));
        stored
    }

    #[test]
    fn position_that_has_left_the_oplog_looks_well() {
        let rows = [
            ("a".to_owned(), Some(stored(1000))),
            ("b".to_owned(), Some(stored(10))),
            ("c".to_owned(), None),
        ];
        let lines = lines(&rows, &Ok(at(500)), at(1300));
        assert!(
            lines[1].contains("5 min") && lines[1].contains(" inside "),
            "{lines:?}"
        );
        assert!(lines[1].ends_with(" 8265F0C0FF00000001…"), "{lines:?}");
        assert!(lines[2].contains(" gone "), "{lines:?}");
        assert_eq!(lines[4], "c: never ran, or its document is gone");
        let json = json(&rows, &Err("not permitted".into()), at(1300));
        assert_eq!(json["connectors"][1]["in_oplog"], Value::Null);
        assert_eq!(json["connectors"][0]["age_seconds"], 300.0);
        assert_eq!(
            json["connectors"][0]["position"]["token"],
            "8265F0C0FF0000000123456789"
        );
    }
}
