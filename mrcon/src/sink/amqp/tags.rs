//! Which event a delivery tag stands for.
//!
//! Tags count the messages of a channel from 1. Numbers of events have gaps on it, where an event was
//! put aside instead of published, so a tag stands for the number that is so much higher. Pure.

use std::collections::VecDeque;

/// The messages of one channel, in the order in which they were published.
#[derive(Debug, Default)]
pub(super) struct Tags {
    last: u64,
    /// Stretches without a gap, by their first tag.
    stretches: VecDeque<Stretch>,
}

#[derive(Debug)]
struct Stretch {
    first: u64,
    ahead: u64,
}

impl Tags {
    /// The next message is event `seq`; numbers only rise.
    pub(super) fn published(&mut self, seq: u64) {
        self.last += 1;
        let ahead = seq - self.last;
        if self
            .stretches
            .back()
            .is_none_or(|stretch| stretch.ahead != ahead)
        {
            let first = self.last;
            self.stretches.push_back(Stretch { first, ahead });
        }
    }

    /// The number of the event with this tag; `None` if nothing was published with it.
    pub(super) fn seq_of(&self, tag: u64) -> Option<u64> {
        if tag > self.last {
            return None;
        }
        let mut stretches = self.stretches.iter().rev();
        let stretch = stretches.find(|stretch| stretch.first <= tag)?;
        Some(tag + stretch.ahead)
    }

    /// Nothing is heard any more of this tag and those before it.
    pub(super) fn settled_up_to(&mut self, tag: u64) {
        while let Some(next) = self.stretches.get(1)
            && next.first <= tag
        {
            self.stretches.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tag_of_nothing_has_a_number() {
        let mut tags = Tags::default();
        assert_eq!(tags.seq_of(1), None);
        tags.published(7);
        assert_eq!(
            (tags.seq_of(0), tags.seq_of(1), tags.seq_of(2)),
            (None, Some(7), None)
        );
    }

    proptest! {
        #[test]
        fn tag_stands_for_another_event(
            first in 1_u64..1000,
            gaps in proptest::collection::vec(0_u64..3, 1..100),
            settled in 0_usize..100,
        ) {
            let mut tags = Tags::default();
            let mut seqs = Vec::new();
            let mut seq = first;
            for gap in gaps {
                seq += gap;
                tags.published(seq);
                seqs.push(seq);
                seq += 1;
            }
            let settled = settled.min(seqs.len() - 1);
            tags.settled_up_to(settled as u64);
            for (index, seq) in seqs.iter().enumerate().skip(settled) {
                prop_assert_eq!(tags.seq_of(index as u64 + 1), Some(*seq));
            }
        }
    }
}
