//! Deadlines, each with a name, so that a trace says why the engine woke.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use crate::engine::ids::TerminalId;
use crate::engine::time::Mono;

/// Why the engine wants to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Heartbeats are due, and the silence of peers is judged.
    Heartbeat,
    /// A peer may be dialled again.
    Dial,
    /// A connection must have proven itself, or said hello, by now.
    Proof,
    /// An admission's own deadline.
    Admission,
    /// Own presence is due: a heartbeat, or a change that waited for the rate.
    Presence,
    /// A presence or an idle time runs out.
    PresenceEnds,
    /// The time of some membership is over.
    MembershipEnds,
    /// Somebody who said to have more of the own log, or to know another node with its key, has had its time.
    Own,
    /// Vectors are compared after a burst.
    Compare,
    /// A request for entries was not answered.
    Fetch,
    /// What gossip brought is judged.
    Judge,
    /// A frame of a local terminal is due.
    Frame(TerminalId),
    /// The emulator of a local terminal wants to be woken (synchronized update).
    Emulator(TerminalId),
    /// A viewer looks whether its parent still serves it.
    Attach(TerminalId),
    /// Something of a terminal's lease is due: its end, a retransmission, a rate.
    Lease(TerminalId),
    /// A verb waits no longer.
    Request,
    /// The node goes offline when its last words are out.
    Stop,
}

/// The table of deadlines: one per name, the earliest first when asked.
#[derive(Debug, Default)]
pub struct Timers(BTreeMap<Timer, Mono>);

impl Timers {
    /// Sets the deadline of `timer`, replacing an earlier setting.
    pub fn set(&mut self, timer: Timer, at: Mono) {
        self.0.insert(timer, at);
    }

    /// Sets the deadline unless an earlier one stands.
    pub fn set_earliest(&mut self, timer: Timer, at: Mono) {
        self.0
            .entry(timer)
            .and_modify(|stands| *stands = at.min(*stands))
            .or_insert(at);
    }

    /// Sets or clears.
    pub fn arm(&mut self, timer: Timer, at: Option<Mono>) {
        match at {
            Some(at) => self.set(timer, at),
            None => self.clear(timer),
        }
    }

    /// Forgets the deadline.
    pub fn clear(&mut self, timer: Timer) {
        self.0.remove(&timer);
    }

    /// Whether the deadline is set.
    pub fn is_set(&self, timer: Timer) -> bool {
        self.0.contains_key(&timer)
    }

    /// The earliest deadline and its name.
    pub fn next(&self) -> Option<(Mono, Timer)> {
        self.0.iter().map(|(timer, at)| (*at, *timer)).min()
    }

    /// Takes one timer that is due, the earliest first.
    pub fn pop_due(&mut self, now: Mono) -> Option<Timer> {
        let (at, timer) = self.next()?;
        (at <= now).then(|| {
            self.0.remove(&timer);
            timer
        })
    }
}

/// A duration in milliseconds, for constants.
pub const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_deadline_comes_first_and_once() {
        let mut timers = Timers::default();
        timers.set(Timer::Dial, Mono(20));
        timers.set(Timer::Compare, Mono(10));
        timers.set_earliest(Timer::Dial, Mono(30));

        assert_eq!(timers.pop_due(Mono(5)), None);
        assert_eq!(timers.next(), Some((Mono(10), Timer::Compare)));
        assert_eq!(timers.pop_due(Mono(25)), Some(Timer::Compare));
        assert_eq!(timers.pop_due(Mono(25)), Some(Timer::Dial));
        assert_eq!(timers.pop_due(Mono(25)), None);
    }
}
