//! The causal past of a statement as runs of positions.
//!
//! Positions are local, but a past is closed under parents, so whether it holds a statement is the same on every
//! replica. As statements are kept in causal order and most authors know most of what there is, a past is a few
//! runs, however many statements it holds.

/// A set of positions: ascending runs, each from its first position to before its second, with gaps between.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Past(Vec<(u32, u32)>);

impl Past {
    /// All positions before this one.
    pub(super) fn up_to(end: u32) -> Self {
        if end == 0 {
            Self::default()
        } else {
            Self(vec![(0, end)])
        }
    }

    /// Everything in any of these.
    pub(super) fn union<'a>(pasts: impl Iterator<Item = &'a Self>) -> Self {
        let mut runs: Vec<(u32, u32)> = pasts.flat_map(|past| past.0.iter().copied()).collect();
        runs.sort_unstable();
        let mut union = Self::default();
        for run in runs {
            union.append(run);
        }
        union
    }

    /// Adds a position that is greater than all others.
    pub(super) fn add(&mut self, position: u32) {
        self.append((position, position.saturating_add(1)));
    }

    /// Whether the position is in the set.
    pub(super) fn holds(&self, position: u32) -> bool {
        let after = self.0.partition_point(|(start, _)| *start <= position);
        let run = after.checked_sub(1).and_then(|index| self.0.get(index));
        run.is_some_and(|(_, end)| position < *end)
    }

    /// Adds a run that starts no earlier than the last one.
    fn append(&mut self, (start, end): (u32, u32)) {
        match self.0.last_mut() {
            Some((_, last)) if start <= *last => *last = end.max(*last),
            Some(_) | None => self.0.push((start, end)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_union_holds_what_any_of_its_parts_holds(
            parts in prop::collection::vec(prop::collection::btree_set(0_u32..60, 0..20), 0..5)
        ) {
            let pasts: Vec<Past> = parts.iter().map(past_of).collect();

            let union = Past::union(pasts.iter());

            for position in 0..60 {
                let expected = parts.iter().any(|part| part.contains(&position));
                prop_assert_eq!(union.holds(position), expected);
            }
        }
    }

    fn past_of(positions: &BTreeSet<u32>) -> Past {
        let mut past = Past::default();
        positions.iter().for_each(|position| past.add(*position));
        past
    }
}
