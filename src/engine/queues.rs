//! What waits where: how full each bounded queue of a node is, and how full it has been since the start.
//!
//! A [`Gauge`] is two or three relaxed atomic words beside a queue; whoever fills the queue tells the gauge, and
//! whoever shows it reads without a lock. Of queues that exist several times (per stream, per terminal) the
//! fullest counts. [`EngineGauges`] are those of the engine, told after each event.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::engine::limits::{
    APPROVALS_WAITING_MAX, HELD_TOTAL_BYTES_MAX, INPUT_BUFFER_BYTES_MAX, INPUT_WINDOW_BYTES_MAX,
    LOG_POOLS_BYTES_MAX, PENDING_STATEMENTS_MAX, PERSON_INPUT_BYTES_MAX, PTY_GIVEN_BYTES_MAX,
    SCREEN_UNACKED_MAX,
};

/// What a queue is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Messages, events, requests.
    Items,
    /// Bytes.
    Bytes,
}

/// One bounded queue at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Queue {
    /// Its name, stable and in snake case.
    pub name: &'static str,
    /// What the numbers count.
    pub unit: Unit,
    /// What waits now.
    pub now: u64,
    /// The most that has waited since the start.
    pub peak: u64,
    /// The most that may wait.
    pub limit: u64,
    /// How often something found no room: it was dropped, refused, or its stream broken, as the queue has it.
    pub dropped: u64,
}

/// The level of one bounded queue.
#[derive(Debug)]
pub struct Gauge {
    name: &'static str,
    unit: Unit,
    limit: u64,
    now: AtomicU64,
    peak: AtomicU64,
    dropped: AtomicU64,
}

impl Gauge {
    /// The gauge of an empty queue for so many items.
    pub const fn items(name: &'static str, limit: usize) -> Self {
        Self::new(name, Unit::Items, limit)
    }

    /// The gauge of an empty queue for so many bytes.
    pub const fn bytes(name: &'static str, limit: usize) -> Self {
        Self::new(name, Unit::Bytes, limit)
    }

    const fn new(name: &'static str, unit: Unit, limit: usize) -> Self {
        Self {
            name,
            unit,
            limit: limit as u64,
            now: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// So much waits now.
    pub fn set(&self, now: usize) {
        self.now.store(count(now), Ordering::Relaxed);
        self.reach(now);
    }

    /// So much waited in one of several queues of this name.
    pub fn reach(&self, level: usize) {
        let level = count(level);
        // Peaks are rare and events are not, so mostly one load is all.
        if level > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(level, Ordering::Relaxed);
        }
    }

    /// Something found no room.
    pub fn drop_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// The queue at this moment.
    pub fn read(&self) -> Queue {
        self.read_with(self.now.load(Ordering::Relaxed))
    }

    /// The queue at this moment, where the fullest of several was found to hold `now`.
    pub fn read_with(&self, now: u64) -> Queue {
        Queue {
            name: self.name,
            unit: self.unit,
            now,
            peak: self.peak.load(Ordering::Relaxed).max(now),
            limit: self.limit,
            dropped: self.dropped.load(Ordering::Relaxed),
        }
    }
}

fn count(of: usize) -> u64 {
    u64::try_from(of).unwrap_or(u64::MAX)
}

/// The bounded queues of an engine.
#[derive(Debug)]
pub struct EngineGauges {
    /// Bytes typed here that a terminal's host has not confirmed.
    pub(in crate::engine) typed: Gauge,
    /// Bytes of a lease's holder that a terminal here has not taken.
    pub(in crate::engine) lease_input: Gauge,
    /// Bytes of this node's own person that a terminal here has not taken.
    pub(in crate::engine) person_input: Gauge,
    /// Bytes given to a PTY that it has not taken.
    pub(in crate::engine) given: Gauge,
    /// Updates of a screen under way to a child.
    pub(in crate::engine) unacked: Gauge,
    /// Entries that wait for earlier ones of their logs.
    pub(in crate::engine) log_pools: Gauge,
    /// Changes that wait for what they build on.
    pub(in crate::engine) held: Gauge,
    /// Statements that wait for others they name.
    pub(in crate::engine) statements: Gauge,
    /// Newcomers that wait for a person.
    pub(in crate::engine) approvals: Gauge,
}

impl Default for EngineGauges {
    fn default() -> Self {
        Self {
            typed: Gauge::bytes("typed_unconfirmed", INPUT_BUFFER_BYTES_MAX),
            lease_input: Gauge::bytes("lease_input", INPUT_WINDOW_BYTES_MAX),
            person_input: Gauge::bytes("person_input", PERSON_INPUT_BYTES_MAX),
            given: Gauge::bytes("pty_given", PTY_GIVEN_BYTES_MAX),
            unacked: Gauge::items("screen_unacked", SCREEN_UNACKED_MAX),
            log_pools: Gauge::bytes("log_pools", LOG_POOLS_BYTES_MAX),
            held: Gauge::bytes("held_changes", HELD_TOTAL_BYTES_MAX),
            statements: Gauge::items("pending_statements", PENDING_STATEMENTS_MAX),
            approvals: Gauge::items("approvals", APPROVALS_WAITING_MAX),
        }
    }
}

impl EngineGauges {
    /// All of them at this moment.
    pub fn read(&self) -> Vec<Queue> {
        let all = [
            &self.typed,
            &self.lease_input,
            &self.person_input,
            &self.given,
            &self.unacked,
            &self.log_pools,
            &self.held,
            &self.statements,
            &self.approvals,
        ];
        all.into_iter().map(Gauge::read).collect()
    }
}

/// The gauges of an engine, shared with who shows them.
pub type SharedGauges = Arc<EngineGauges>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_remembers_the_most_that_waited() {
        let gauge = Gauge::items("letters", 8);
        gauge.set(3);
        gauge.set(7);
        gauge.set(1);
        gauge.drop_one();

        let queue = gauge.read();
        assert_eq!((queue.now, queue.peak, queue.limit), (1, 7, 8));
        assert_eq!(queue.dropped, 1);
    }

    #[test]
    fn of_several_queues_the_fullest_counts() {
        let gauge = Gauge::bytes("streams", 100);
        gauge.reach(40);
        gauge.reach(20);

        let queue = gauge.read_with(20);
        assert_eq!((queue.now, queue.peak), (20, 40));
    }
}
