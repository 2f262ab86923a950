//! When the local terminal rings: a bell of the shared shell that came while this window was looking, at most once in
//! [`BELL_INTERVAL`] whatever the host says.

use crate::engine::ids::TerminalId;
use crate::engine::limits::BELL_INTERVAL;
use crate::engine::time::Mono;

/// A terminal with the bells that its shell has rung, as a picture says.
pub(super) type Rung = (TerminalId, u32);

/// What of the bells this window has heard.
#[derive(Debug, Default)]
pub(super) struct Bell {
    /// The terminal whose picture is shown, and its bells when this window last listened.
    heard: Option<Rung>,
    /// When the local terminal last rang.
    rang: Option<Mono>,
    /// When a bell that came too soon is due.
    due: Option<Mono>,
}

impl Bell {
    /// Whether the local terminal rings now that it shows this picture. The first picture of a terminal never rings:
    /// what it counts is the past. A bell soon after another waits for its time.
    pub(super) fn rings(&mut self, shown: Option<Rung>, now: Mono) -> bool {
        let same = |(terminal, _): &Rung| shown.is_some_and(|(shown, _)| shown == *terminal);
        let before = self.heard.filter(same);
        self.due = None;
        if before.is_none() || before == shown {
            self.heard = shown;
            return false;
        }
        let free = self.rang.map(|rang| rang + BELL_INTERVAL);
        if let Some(free) = free.filter(|free| *free > now) {
            self.due = Some(free);
            return false;
        }
        self.heard = shown;
        self.rang = Some(now);
        true
    }

    /// When a bell that waits is to be rung.
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.due
    }

    /// The time has come; the next picture that the terminal takes rings.
    pub(super) fn due(&mut self, now: Mono) {
        self.due = self.due.filter(|due| *due > now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ONE: TerminalId = TerminalId([1; 16]);
    const OTHER: TerminalId = TerminalId([2; 16]);

    fn at(ms: u64) -> Mono {
        Mono(0) + Duration::from_millis(ms)
    }

    #[test]
    fn each_new_bell_rings_once_and_what_was_before_does_not() {
        let mut bell = Bell::default();

        assert!(!bell.rings(None, at(0)), "no picture yet");
        assert!(!bell.rings(Some((ONE, 7)), at(1)), "the past");
        assert!(bell.rings(Some((ONE, 8)), at(2)));
        assert!(!bell.rings(Some((ONE, 8)), at(2_000)), "painted again");
        assert!(bell.rings(Some((ONE, 0)), at(2_001)), "any change counts");
        assert_eq!(bell.deadline(), None);
    }

    #[test]
    fn another_terminal_brings_its_past_and_no_bell() {
        let mut bell = Bell::default();
        bell.rings(Some((ONE, 1)), at(0));

        assert!(!bell.rings(Some((OTHER, 5)), at(1)));
        assert!(!bell.rings(Some((ONE, 3)), at(2)), "nobody listened to it");
        assert!(!bell.rings(None, at(3)));
        assert!(!bell.rings(Some((ONE, 4)), at(4)));
        assert!(bell.rings(Some((ONE, 5)), at(5)));
    }

    #[test]
    fn a_host_that_counts_without_end_rings_once_a_second() {
        let mut bell = Bell::default();

        let rings = |ms: &u64| bell.rings(Some((ONE, u32::try_from(*ms).unwrap())), at(*ms));
        let rung: Vec<u64> = (0..3_500).filter(rings).collect();

        assert_eq!(rung, [1, 1_001, 2_001, 3_001]);
    }

    #[test]
    fn a_bell_that_comes_too_soon_waits_for_its_time_and_is_asked_for_once() {
        let mut bell = Bell::default();
        bell.rings(Some((ONE, 0)), at(0));
        assert!(bell.rings(Some((ONE, 1)), at(10)));

        assert!(!bell.rings(Some((ONE, 2)), at(1_000)));
        assert_eq!(bell.deadline(), Some(at(1_010)));
        bell.due(at(1_009));
        assert_eq!(bell.deadline(), Some(at(1_010)));
        bell.due(at(1_010));
        assert_eq!(
            bell.deadline(),
            None,
            "a terminal that takes nothing wakes nobody"
        );

        assert!(bell.rings(Some((ONE, 2)), at(1_010)));
        assert!(!bell.rings(Some((ONE, 2)), at(3_000)));
    }
}
