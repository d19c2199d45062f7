//! The server's version, where that decides what it can be asked for.

use bson::{Document, doc};
use mongodb::Database;

/// Major, minor and patch version.
///
/// # Errors
/// The server does not answer.
pub(crate) async fn of(database: &Database) -> Result<[i32; 3], mongodb::error::Error> {
    let info = database.run_command(doc! {"buildInfo": 1}).await?;
    Ok(said(&info))
}

/// What is not told counts as 0, so as a server that can nothing new.
fn said(info: &Document) -> [i32; 3] {
    let version = info.get_array("versionArray").ok();
    let number = |at: usize| version?.get(at)?.as_i32();
    [0, 1, 2].map(|at| number(at).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_taken_for_a_newer_one() {
        let info = doc! {"versionArray": [6, 0, 27, 0]};
        assert_eq!(said(&info), [6, 0, 27]);
        assert_eq!(said(&doc! {"versionArray": [5]}), [5, 0, 0]);
        assert_eq!(said(&doc! {"version": "8.0.1"}), [0, 0, 0]);
        assert_eq!(said(&doc! {"versionArray": ["8"]}), [0, 0, 0]);
    }
}
