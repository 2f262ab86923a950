//! What will happen when, and the world's dice.

use std::collections::BTreeMap;

use super::network::Happening;
use crate::engine::entropy::Entropy;
use crate::engine::event::PtyEvent;
use crate::engine::ids::TerminalId;

/// One start of a node. What is meant for an earlier start of the same node is void.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Process {
    pub(super) node: usize,
    pub(super) life: u64,
}

/// Something that happens at its time.
#[derive(Debug)]
pub(super) enum Occurrence {
    /// A deadline of the engine may be due.
    Wake(Process),
    /// Something in the network.
    Net(Happening),
    /// The commit under way has reached the disk.
    Committed(Process),
    /// A PTY takes some of what it was given.
    PtyTakes(Process, TerminalId),
    /// A PTY reports something.
    Pty(Process, TerminalId, PtyEvent),
}

/// Occurrences in the order of their times, and of their scheduling within one moment.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    queue: BTreeMap<(u64, u64), Occurrence>,
    count: u64,
}

impl Agenda {
    /// Puts an occurrence at `at` microseconds.
    pub(super) fn put(&mut self, at: u64, occurrence: Occurrence) {
        self.count += 1;
        self.queue.insert((at, self.count), occurrence);
    }

    /// The time of the next occurrence.
    pub(super) fn next(&self) -> Option<u64> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes the next occurrence.
    pub(super) fn pop(&mut self) -> Option<(u64, Occurrence)> {
        self.queue
            .pop_first()
            .map(|((at, _), occurrence)| (at, occurrence))
    }
}

/// The world's randomness.
#[derive(Debug)]
pub(super) struct Dice(Entropy);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        let seed = blake3::derive_key("collab-p2p v1 simulated world", &seed.to_le_bytes());
        Self(Entropy::new(seed))
    }

    /// Whether something of this likelihood happens.
    pub(super) fn percent(&mut self, percent: u32) -> bool {
        percent > 0 && self.0.below(100) < percent
    }

    /// Whether something of this likelihood happens.
    pub(super) fn per_mille(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && self.0.below(1000) < per_mille
    }

    /// A number from `low` to `high`, both included.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        let span = u32::try_from(high.saturating_sub(low)).unwrap_or(u32::MAX - 1);
        low + u64::from(self.0.below(span.saturating_add(1)))
    }

    /// An index below `count`.
    pub(super) fn index(&mut self, count: usize) -> usize {
        self.0.below(u32::try_from(count).unwrap_or(u32::MAX)) as usize
    }

    /// Fresh bytes for an engine.
    pub(super) fn seed(&mut self) -> [u8; 32] {
        self.0.bytes()
    }
}
