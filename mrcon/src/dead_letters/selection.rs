//! Which dead letters are meant by the ids, or the beginnings of ids, that a person gives.

use super::Problem;
use std::collections::BTreeSet;

/// So many ids are told of when a beginning fits several.
const TOLD: usize = 5;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Selection {
    wanted: Vec<Wanted>,
}

#[derive(Debug)]
struct Wanted {
    text: String,
    /// There is a letter of exactly this id.
    exact: bool,
    /// Ids that begin with it: enough of them to tell.
    found: BTreeSet<String>,
}

impl Selection {
    pub(super) fn of(ids: &[String]) -> Selection {
        let wanted = ids.iter().map(|text| Wanted {
            text: text.clone(),
            exact: false,
            found: BTreeSet::new(),
        });
        Selection {
            wanted: wanted.collect(),
        }
    }

    /// Whether this id may be meant; notes that there is one.
    pub(super) fn notes(&mut self, id: &str) -> bool {
        let mut meant = false;
        for wanted in &mut self.wanted {
            if wanted.text.is_empty() || !id.starts_with(&wanted.text) {
                continue;
            }
            meant = true;
            wanted.exact |= id == wanted.text;
            if wanted.found.len() <= TOLD && !wanted.found.contains(id) {
                wanted.found.insert(id.to_owned());
            }
        }
        meant
    }

    /// The ids that are meant.
    ///
    /// # Errors
    /// When one is meant that is not there, or it is not clear which.
    pub(super) fn resolve(
        self,
        looked_through: u64,
        total: u64,
    ) -> Result<BTreeSet<String>, Problem> {
        let mut ids = BTreeSet::new();
        for Wanted { text, exact, found } in self.wanted {
            let mut found = found.into_iter();
            match (exact, found.next(), found.next()) {
                (true, ..) => ids.insert(text),
                (false, Some(id), None) => ids.insert(id),
                (false, None, _) => {
                    return Err(Problem::Unknown {
                        id: text,
                        looked_through,
                        total,
                    });
                }
                (false, Some(one), Some(two)) => {
                    let ids = [one, two].into_iter().chain(found).collect();
                    return Err(Problem::Ambiguous { id: text, ids });
                }
            };
        }
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THERE: [&str; 5] = ["8265AA", "8265AA", "8265AB", "82", "77"];

    fn resolve(wanted: &[&str]) -> Result<Vec<String>, Problem> {
        let wanted: Vec<_> = wanted.iter().map(ToString::to_string).collect();
        let mut selection = Selection::of(&wanted);
        for id in THERE {
            selection.notes(id);
        }
        let ids = selection.resolve(5, 9)?;
        Ok(ids.into_iter().collect())
    }

    #[test]
    fn beginning_of_an_id_means_another_one() {
        assert_eq!(resolve(&["8265AA"]).unwrap(), ["8265AA"]);
        assert_eq!(resolve(&["8265AB", "7"]).unwrap(), ["77", "8265AB"]);
        assert_eq!(resolve(&["7", "77"]).unwrap(), ["77"]);
        // One of exactly this id is meant, though others begin with it.
        assert_eq!(resolve(&["82"]).unwrap(), ["82"]);
    }

    #[test]
    fn unclear_id_is_taken_for_one() {
        let told = |wanted: &[&str]| resolve(wanted).unwrap_err().to_string();
        assert_eq!(
            told(&["77", "8265A"]),
            "`8265A` is the beginning of several ids: 8265AA, 8265AB"
        );
        assert_eq!(
            told(&["8265AC"]),
            "no dead letter has the id `8265AC` among the first 5 of 9 messages"
        );
        assert!(told(&[""]).contains("no dead letter"));
    }

    #[test]
    fn beginning_of_very_many_ids_fills_the_memory() {
        let mut selection = Selection::of(&["8".to_owned()]);
        for number in 0..10_000 {
            assert!(selection.notes(&format!("8{number}")));
        }
        assert_eq!(selection.wanted[0].found.len(), TOLD + 1);
    }
}
