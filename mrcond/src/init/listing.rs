//! What there is to watch, as a table and as JSON.

use crate::cli;
use crate::telemetry::one_line;
use crate::{Failure, output};
use mrcon::inventory::{Found, Inventory};
use serde_json::{Value, json};

/// Prints what was found.
pub(super) fn print(inventory: &Inventory) -> Result<(), Failure> {
    if output::is_json() {
        return cli::say(&format!("{:#}", described(inventory)));
    }
    for line in lines(inventory) {
        cli::say(&line)?;
    }
    Ok(())
}

/// A heading and a line for each; what can be watched has the number that it is chosen by.
pub(super) fn lines(inventory: &Inventory) -> Vec<String> {
    let heading = ["#", "COLLECTION", "DOCUMENTS", "IMAGES", "REMARK"].map(str::to_owned);
    let mut number = 0;
    let rows = inventory.found.iter().map(|found| {
        let chosen_by = match found.unfit {
            Some(_) => "-".to_owned(),
            None => {
                number += 1;
                number.to_string()
            }
        };
        row(found, chosen_by)
    });
    let rows: Vec<_> = [heading].into_iter().chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<_> = (0..5).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &[String; 5]| {
        let cells = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, width))| {
                // Numbers stand under each other.
                match column {
                    0 | 2 => format!("{cell:>width$}"),
                    _ => format!("{cell:width$}"),
                }
            });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines: Vec<_> = rows.iter().map(line).collect();
    if inventory.left_out > 0 {
        lines.push(format!("and {} more collections", inventory.left_out));
    }
    lines
}

fn row(found: &Found, number: String) -> [String; 5] {
    let known = |text: Option<String>| text.unwrap_or_else(|| "?".to_owned());
    let of_fit = |text: Option<String>| match found.unfit {
        Some(_) => "-".to_owned(),
        None => known(text),
    };
    let images = found
        .images
        .map(|on| if on { "on" } else { "off" }.to_owned());
    [
        number,
        one_line(&name(found)).into_owned(),
        of_fit(found.documents.map(|count| count.to_string())),
        of_fit(images),
        found
            .unfit
            .as_deref()
            .map(one_line)
            .unwrap_or_default()
            .into_owned(),
    ]
}

/// `db.coll`, or the database.
pub(super) fn name(found: &Found) -> String {
    match &found.coll {
        Some(coll) => format!("{}.{coll}", found.db),
        None => found.db.clone(),
    }
}

fn described(inventory: &Inventory) -> Value {
    let found = inventory.found.iter().map(|found| {
        json!({
            "database": found.db,
            "collection": found.coll,
            "can_be_watched": found.unfit.is_none(),
            "reason": found.unfit,
            "documents": found.documents,
            "images": found.images,
        })
    });
    json!({
        "has_change_streams": inventory.has_change_streams,
        "found": found.collect::<Vec<_>>(),
        "left_out": inventory.left_out,
    })
}
