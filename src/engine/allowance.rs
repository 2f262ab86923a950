//! What a neighbour may have of this node in answer to its requests: so much at once, and so much in a second for
//! long. Who asks for more gets nothing for a while; honest catch-up never gets there.

use std::collections::BTreeMap;

use crate::engine::ids::MemberId;
use crate::engine::limits::{
    GIVEN_ANSWER_BYTES_MIN, GIVEN_BURST_BYTES, GIVEN_BYTES_PER_S, MEMBERS_MAX,
};
use crate::engine::time::Mono;

/// What each peer has been given lately. It outlives connections, so that nobody gains by connecting again.
#[derive(Debug, Default)]
pub struct Allowances(BTreeMap<MemberId, Allowance>);

#[derive(Debug, Clone, Copy)]
struct Allowance {
    bytes: u64,
    /// What the last answer took beyond that: it is made up for first.
    owed: u64,
    at: Mono,
}

impl Allowances {
    /// Whether a peer's request is answered now.
    pub fn may_have(&mut self, peer: MemberId, now: Mono) -> bool {
        if self.0.len() >= MEMBERS_MAX && !self.0.contains_key(&peer) {
            self.0
                .retain(|_, one| one.refilled(now).bytes < GIVEN_BURST_BYTES);
        }
        let allowance = self.0.entry(peer).or_insert(Allowance {
            bytes: GIVEN_BURST_BYTES,
            owed: 0,
            at: now,
        });
        *allowance = allowance.refilled(now);
        allowance.bytes > 0
    }

    /// A peer was given so much.
    pub fn spend(&mut self, peer: &MemberId, bytes: usize) {
        if let Some(allowance) = self.0.get_mut(peer) {
            let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
            let cost = bytes.max(GIVEN_ANSWER_BYTES_MIN);
            allowance.owed = allowance
                .owed
                .saturating_add(cost.saturating_sub(allowance.bytes));
            allowance.bytes = allowance.bytes.saturating_sub(cost);
        }
    }
}

impl Allowance {
    fn refilled(&self, now: Mono) -> Self {
        let micros = now.0.saturating_sub(self.at.0);
        let refill = micros.saturating_mul(GIVEN_BYTES_PER_S) / 1_000_000;
        let bytes = refill.saturating_sub(self.owed);
        Self {
            bytes: self.bytes.saturating_add(bytes).min(GIVEN_BURST_BYTES),
            owed: self.owed.saturating_sub(refill),
            at: now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKER: MemberId = MemberId([1; 32]);
    const OTHER: MemberId = MemberId([2; 32]);

    #[test]
    fn a_peer_has_a_burst_and_then_its_rate_whatever_others_have() {
        let mut allowances = Allowances::default();
        let answer = usize::try_from(GIVEN_ANSWER_BYTES_MIN).unwrap();
        let mut given = |peer: MemberId, at: Mono| {
            let mut count = 0;
            while allowances.may_have(peer, at) {
                // Nothing to say still counts.
                allowances.spend(&peer, if count % 2 == 0 { 0 } else { answer });
                count += 1;
            }
            count
        };

        let (burst, rate) = (
            GIVEN_BURST_BYTES / GIVEN_ANSWER_BYTES_MIN,
            GIVEN_BYTES_PER_S / GIVEN_ANSWER_BYTES_MIN,
        );
        assert_eq!(given(ASKER, Mono(0)), burst);
        assert_eq!(given(ASKER, Mono(0)), 0);
        assert_eq!(given(ASKER, Mono(1_000_000)), rate);
        assert_eq!(given(OTHER, Mono(1_000_000)), burst);
        assert_eq!(given(ASKER, Mono(3_600_000_000)), burst);
    }

    #[test]
    fn who_asks_as_soon_as_it_may_is_given_no_more_than_its_rate() {
        let mut allowances = Allowances::default();
        let answer = GIVEN_BURST_BYTES / 64;
        let mut given = 0;
        for micros in 0..1_000_000 {
            if allowances.may_have(ASKER, Mono(micros)) {
                allowances.spend(&ASKER, usize::try_from(answer).unwrap());
                given += answer;
            }
        }
        let most = GIVEN_BURST_BYTES + GIVEN_BYTES_PER_S + answer;
        assert!(given <= most, "{given} bytes, at most {most}");
    }
}
