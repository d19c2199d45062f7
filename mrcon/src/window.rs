//! The confirm window: what was published and is not yet confirmed, in order, bounded.
//!
//! Pure: no clock, no I/O. The broker may confirm in any order and many at once; only the
//! **contiguous** confirmed prefix may move the position that is saved, so a hole (one message the
//! broker still owes an answer for) holds everything behind it.
//!
//! ```
//! use mrcon::window::ConfirmWindow;
//!
//! let mut window = ConfirmWindow::new(1, 1000, 32 << 20);
//! for text in ["a", "b", "c"] {
//!     window.push(text, text.len() as u64);
//! }
//! // The third one is confirmed first, which moves nothing.
//! window.confirm(3, false);
//! assert_eq!(window.pop_confirmed(), None);
//! window.confirm(2, true);
//! assert_eq!(window.pop_confirmed(), Some((1, "a")));
//! assert_eq!(std::iter::from_fn(|| window.pop_confirmed()).count(), 2);
//! ```

use std::collections::VecDeque;

/// Published and unconfirmed entries, each with a value of the caller's (`T`: where it stands in
/// the change stream) and its size in bytes.
///
/// Sequence numbers are consecutive: the entry pushed last has the highest.
#[derive(Debug)]
pub struct ConfirmWindow<T> {
    entries: VecDeque<Entry<T>>,
    /// Seq of the front entry, or of the next push when there is none.
    first: u64,
    bytes: u64,
    max_entries: usize,
    max_bytes: u64,
}

#[derive(Debug)]
struct Entry<T> {
    value: T,
    bytes: u64,
    state: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// The broker owes an answer.
    Sent,
    /// It goes elsewhere: what the broker says of other messages does not mean it.
    Aside,
    Confirmed,
}

impl<T> ConfirmWindow<T> {
    /// An empty window whose first entry will have the number `first`.
    ///
    /// `max_bytes` bounds what is in flight before the last push: a single message larger than the
    /// bound still goes, alone.
    pub fn new(first: u64, max_entries: u32, max_bytes: u64) -> Self {
        assert!(
            max_entries > 0 && max_bytes > 0,
            "a window without room would never move"
        );
        ConfirmWindow {
            entries: VecDeque::new(),
            first,
            bytes: 0,
            max_entries: max_entries as usize,
            max_bytes,
        }
    }

    /// Whether one more message may be published.
    pub fn has_room(&self) -> bool {
        self.entries.len() < self.max_entries && self.bytes < self.max_bytes
    }

    /// Whether nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Messages in flight.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Body bytes in flight.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The number that the next push gets.
    pub fn next_seq(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Notes a published message and returns its number.
    pub fn push(&mut self, value: T, bytes: u64) -> u64 {
        debug_assert!(self.has_room(), "published past the window");
        let seq = self.next_seq();
        self.bytes += bytes;
        self.entries.push_back(Entry {
            value,
            bytes,
            state: Standing::Sent,
        });
        seq
    }

    /// Marks `seq`, or with `multiple` everything up to it, as confirmed.
    ///
    /// Returns how many entries this newly confirmed; numbers outside the window count for nothing
    /// (a broker that repeats itself), and neither do entries that were put aside.
    pub fn confirm(&mut self, seq: u64, multiple: bool) -> usize {
        let Some(index) = self.index_of(seq) else {
            return 0;
        };
        let from = if multiple { 0 } else { index };
        let mut newly = 0;
        for entry in self.entries.range_mut(from..=index) {
            if entry.state == Standing::Sent {
                entry.state = Standing::Confirmed;
                newly += 1;
            }
        }
        newly
    }

    /// Notes that an entry goes elsewhere: only [`ConfirmWindow::confirm_aside`] confirms it from now on.
    ///
    /// Returns its value, to be changed; `None` if it is confirmed, aside already, or not in the window.
    pub fn put_aside(&mut self, seq: u64) -> Option<&mut T> {
        let index = self.index_of(seq)?;
        let entry = &mut self.entries[index];
        (entry.state == Standing::Sent).then(|| {
            entry.state = Standing::Aside;
            &mut entry.value
        })
    }

    /// Marks an entry that was put aside as confirmed; false if there is none of this number.
    pub fn confirm_aside(&mut self, seq: u64) -> bool {
        let Some(index) = self.index_of(seq) else {
            return false;
        };
        let state = &mut self.entries[index].state;
        let was_aside = *state == Standing::Aside;
        if was_aside {
            *state = Standing::Confirmed;
        }
        was_aside
    }

    /// Notes that an entry makes no message, so that nobody owes an answer for it.
    pub fn leave_out(&mut self, seq: u64) {
        if self.put_aside(seq).is_some() {
            self.confirm_aside(seq);
        }
    }

    /// The numbers up to `seq` that the broker owes an answer for.
    pub fn owed_up_to(&self, seq: u64) -> impl Iterator<Item = u64> {
        let count = self.index_of(seq).map_or(0, |index| index + 1);
        let entries = self.entries.range(..count);
        let owed = entries
            .zip(self.first..)
            .filter(|(entry, _)| entry.state == Standing::Sent);
        owed.map(|(_, seq)| seq)
    }

    /// The value of an entry.
    pub fn get(&self, seq: u64) -> Option<&T> {
        let index = self.index_of(seq)?;
        Some(&self.entries[index].value)
    }

    fn index_of(&self, seq: u64) -> Option<usize> {
        let index = seq.checked_sub(self.first)? as usize;
        (index < self.entries.len()).then_some(index)
    }

    /// Takes the front entry if it is confirmed: the next step of the contiguous confirmed frontier.
    pub fn pop_confirmed(&mut self) -> Option<(u64, T)> {
        if self.entries.front()?.state != Standing::Confirmed {
            return None;
        }
        let entry = self.entries.pop_front()?;
        let seq = self.first;
        self.first += 1;
        self.bytes -= entry.bytes;
        Some((seq, entry.value))
    }

    /// The front entry's value: the oldest message that the broker owes an answer for.
    pub fn front(&self) -> Option<&T> {
        self.entries.front().map(|entry| &entry.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frontier(window: &mut ConfirmWindow<u64>) -> Vec<u64> {
        std::iter::from_fn(|| window.pop_confirmed())
            .map(|(seq, value)| {
                assert_eq!(seq, value, "an entry came out under another number");
                seq
            })
            .collect()
    }

    fn filled(count: u64) -> ConfirmWindow<u64> {
        let mut window = ConfirmWindow::new(1, 100, 1_000_000);
        for seq in 1..=count {
            assert_eq!(window.push(seq, 10), seq);
        }
        window
    }

    #[test]
    fn frontier_moves_past_a_message_the_broker_owes() {
        let mut window = filled(3);
        window.confirm(2, false);
        window.confirm(3, false);
        assert_eq!(frontier(&mut window), [0_u64; 0]);
        window.confirm(1, false);
        assert_eq!(frontier(&mut window), [1, 2, 3]);
        assert!(window.is_empty());
        assert_eq!(window.bytes(), 0);
    }

    #[test]
    fn entry_without_a_message_waits_for_an_answer_or_overtakes_others() {
        let mut window = filled(3);
        window.leave_out(2);
        window.leave_out(3);
        window.leave_out(4);
        assert_eq!(frontier(&mut window), [0_u64; 0]);
        assert_eq!(window.owed_up_to(3).collect::<Vec<_>>(), [1]);
        window.confirm(1, false);
        assert_eq!(frontier(&mut window), [1, 2, 3]);
    }

    #[test]
    fn multiple_confirms_only_the_named_message() {
        let mut window = filled(5);
        assert_eq!(window.confirm(3, true), 3);
        assert_eq!(frontier(&mut window), [1, 2, 3]);
        assert_eq!(window.confirm(3, true), 0);
    }

    #[test]
    fn repeated_or_foreign_confirm_counts_twice() {
        let mut window = filled(2);
        assert_eq!(window.confirm(1, false), 1);
        assert_eq!(window.confirm(1, false), 0);
        assert_eq!(window.confirm(0, false), 0);
        assert_eq!(window.confirm(3, true), 0);
        assert_eq!(frontier(&mut window), [1]);
    }

    #[test]
    fn what_was_put_aside_is_confirmed_with_its_neighbours() {
        let mut window = filled(4);
        assert_eq!(window.put_aside(2), Some(&mut 2));
        assert_eq!(window.put_aside(2), None, "twice");
        assert_eq!(window.owed_up_to(3).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(window.confirm(4, true), 3);
        assert_eq!(
            window.confirm(2, false),
            0,
            "the broker's own confirm of a returned message"
        );
        assert_eq!(frontier(&mut window), [1]);
        assert!(!window.confirm_aside(3), "not put aside");
        assert!(window.confirm_aside(2) && !window.confirm_aside(2));
        assert_eq!(frontier(&mut window), [2, 3, 4]);
        assert_eq!(window.put_aside(4), None, "gone");
        assert_eq!(window.put_aside(9), None, "never there");
        assert!(!window.confirm_aside(9));
    }

    #[test]
    fn window_grows_past_its_bounds() {
        let mut window = ConfirmWindow::new(7, 2, 100);
        assert!(window.has_room());
        window.push(7, 100);
        assert!(!window.has_room(), "bytes are the bound");
        window.confirm(7, false);
        window.pop_confirmed();
        window.push(8, 1);
        window.push(9, 1);
        assert!(!window.has_room(), "count is the bound");
    }

    #[test]
    fn one_message_over_the_byte_bound_blocks_for_ever() {
        let window = ConfirmWindow::<u64>::new(1, 10, 100);
        assert!(window.has_room());
    }

    proptest! {
        /// Whatever the order of confirms, the frontier is contiguous, complete, and never ahead.
        #[test]
        fn frontier_is_wrong_for_some_order_of_confirms(
            count in 1_u64..60,
            answers in proptest::collection::vec((0_u64..70, 0..5), 0..80),
        ) {
            let mut window = filled(count);
            let mut settled = vec![false; count as usize + 1];
            let mut aside = settled.clone();
            let mut out = Vec::new();
            let mut newly = 0;
            for (seq, answer) in answers {
                let known = (1..=count).contains(&seq);
                match answer {
                    0 if window.put_aside(seq).is_some() => {
                        prop_assert!(known && !settled[seq as usize]);
                        aside[seq as usize] = true;
                    }
                    0 => {}
                    1 if window.confirm_aside(seq) => {
                        prop_assert!(aside[seq as usize] && !settled[seq as usize]);
                        settled[seq as usize] = true;
                        newly += 1;
                    }
                    1 => {}
                    _ => {
                        let multiple = answer == 2;
                        newly += window.confirm(seq, multiple);
                        let from = if multiple { 1 } else { seq };
                        let named = if known { from..seq + 1 } else { 0..0 };
                        named.for_each(|seq| settled[seq as usize] |= !aside[seq as usize]);
                    }
                }
                out.extend(frontier(&mut window));
                let expected = (1..=count).take_while(|seq| settled[*seq as usize]).count();
                prop_assert_eq!(out.len(), expected);
            }
            prop_assert_eq!(newly, settled.iter().filter(|settled| **settled).count());
            prop_assert!(out.iter().copied().eq(1..=out.len() as u64));
            prop_assert_eq!(window.len() as u64, count - out.len() as u64);
            prop_assert_eq!(window.bytes(), 10 * window.len() as u64);
        }
    }
}
