//! Several programs in several rounds: whose turn it is, and what was measured of each.

/// What nothing is judged by is measured in so many rounds only, to save time.
pub(crate) const REFERENCE_ROUNDS: u32 = 2;

/// Back and forth: who comes first in one round comes last in the next.
pub(crate) fn turned<T>(round: u32, mut plan: Vec<T>) -> Vec<T> {
    if round % 2 == 1 {
        plan.reverse();
    }
    plan
}

/// The rounds of each program, as they come in.
#[derive(Debug)]
pub(crate) struct Collected<K, V>(Vec<(K, Vec<V>)>);

impl<K: PartialEq, V> Collected<K, V> {
    pub(crate) fn new() -> Collected<K, V> {
        Collected(Vec::new())
    }

    pub(crate) fn add(&mut self, key: K, value: V) {
        match self.0.iter_mut().find(|(known, _)| *known == key) {
            Some((_, rounds)) => rounds.push(value),
            None => self.0.push((key, vec![value])),
        }
    }

    /// All rounds of one program, in their order.
    pub(crate) fn of(&self, key: &K) -> &[V] {
        let found = self.0.iter().find(|(known, _)| known == key);
        found.map_or(&[], |(_, rounds)| rounds)
    }

    /// Everything, in the order in which it was first seen.
    pub(crate) fn into_inner(self) -> Vec<(K, Vec<V>)> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_program_always_comes_first() {
        assert_eq!(turned(0, vec![1, 2, 3]), [1, 2, 3]);
        assert_eq!(turned(1, vec![1, 2, 3]), [3, 2, 1]);
    }

    #[test]
    fn rounds_of_two_programs_are_mixed_up() {
        let mut collected = Collected::new();
        for (name, value) in [("b", 1), ("a", 2), ("a", 3), ("b", 4)] {
            collected.add(name, value);
        }
        assert_eq!(collected.of(&"a"), [2, 3]);
        assert!(collected.of(&"c").is_empty());
        assert_eq!(
            collected.into_inner(),
            [("b", vec![1, 4]), ("a", vec![2, 3])]
        );
    }
}
