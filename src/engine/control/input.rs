//! The host's side of keys: which bytes may go to the PTY, and which of them it has taken.
//!
//! [`InputReceiver`] takes the frames of one lease, each byte once and in order, and lets them go at a bounded
//! rate. [`PtyQueue`] is the one way to the PTY for everybody: it knows whose bytes the adapter has and the PTY
//! has not, so that the end of a lease can withdraw exactly that lease's.

use std::collections::VecDeque;

use crate::engine::limits::{
    INPUT_BURST_BYTES, INPUT_RATE_BYTES_PER_S, INPUT_WINDOW_BYTES_MAX, PTY_QUEUE_BYTES_MAX,
};
use crate::engine::terminal::input::InputCloser;
use crate::engine::time::Mono;

/// Something that passed the lease check. Only this module can make one, so a write to a PTY that nobody
/// checked does not compile.
#[derive(Debug, PartialEq, Eq)]
pub struct Authorized<T> {
    value: T,
    origin: Origin,
}

/// Whose bytes go to a PTY.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The person at the terminal's host, or a verb there, which wants to know when they are taken.
    Person {
        /// The verb's number, chosen by the caller.
        verb: Option<u64>,
    },
    /// The holder of this lease.
    Lease {
        /// Its number.
        number: u64,
    },
    /// The end of an escape sequence or a paste that an ended lease left open.
    Closing {
        /// That lease's number.
        number: u64,
    },
    /// The emulator, answering the program.
    Answer,
}

impl<T> Authorized<T> {
    /// By whose right.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// What may be written.
    pub fn value(&self) -> &T {
        &self.value
    }

    /// What may be written, to be written.
    pub fn into_inner(self) -> T {
        self.value
    }
}

/// Bytes of one origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) origin: Origin,
    pub(super) bytes: Vec<u8>,
}

/// Bytes of one origin that the PTY has taken, and whether they were the last of their piece.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) origin: Origin,
    pub(super) bytes: Vec<u8>,
    pub(super) whole: bool,
}

/// All bytes on their way to one PTY, in order.
#[derive(Debug, Default)]
pub(super) struct PtyQueue {
    waiting: VecDeque<Piece>,
    given: VecDeque<Piece>,
    taken: u64,
    withdrawing: bool,
}

impl PtyQueue {
    /// Appends bytes of `origin`.
    pub(super) fn push(&mut self, origin: Origin, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.waiting.push_back(Piece { origin, bytes });
        }
    }

    /// Puts bytes of `origin` before all that wait.
    pub(super) fn push_front(&mut self, origin: Origin, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.waiting.push_front(Piece { origin, bytes });
        }
    }

    /// Bytes that wait here and are of such an origin.
    pub(super) fn waiting(&self, of: impl Fn(Origin) -> bool) -> usize {
        self.waiting
            .iter()
            .filter(|piece| of(piece.origin))
            .map(|piece| piece.bytes.len())
            .sum()
    }

    /// Bytes that the adapter has and the PTY has not taken.
    pub(super) fn given(&self) -> usize {
        self.given.iter().map(|piece| piece.bytes.len()).sum()
    }

    /// How many bytes more the adapter may be given at once.
    pub(super) fn room(&self) -> usize {
        let held: usize = self
            .given
            .iter()
            .chain(&self.waiting)
            .map(|piece| piece.bytes.len())
            .sum();
        PTY_QUEUE_BYTES_MAX.saturating_sub(held)
    }

    /// What the adapter is to be given now: nothing while a withdrawal is under way.
    pub(super) fn give(&mut self) -> Vec<Authorized<Vec<u8>>> {
        let mut out = Vec::new();
        let mut held = self.given();
        while !self.withdrawing && held < PTY_QUEUE_BYTES_MAX {
            let Some(piece) = self.waiting.pop_front() else {
                break;
            };
            held = held.saturating_add(piece.bytes.len());
            out.push(Authorized {
                value: piece.bytes.clone(),
                origin: piece.origin,
            });
            self.given.push_back(piece);
        }
        out
    }

    /// The PTY has taken `total` bytes since it was opened. A smaller number than before, or a larger one than
    /// it was given, is cut to what can be.
    pub(super) fn advance(&mut self, total: u64) -> Vec<Taken> {
        let mut out = Vec::new();
        while self.taken < total {
            let Some(mut piece) = self.given.pop_front() else {
                break;
            };
            let fresh = usize::try_from(total - self.taken).unwrap_or(usize::MAX);
            let rest = piece.bytes.split_off(fresh.min(piece.bytes.len()));
            self.taken = self.taken.saturating_add(piece.bytes.len() as u64);
            out.push(Taken {
                origin: piece.origin,
                bytes: piece.bytes,
                whole: rest.is_empty(),
            });
            if !rest.is_empty() {
                self.given.push_front(Piece {
                    origin: piece.origin,
                    bytes: rest,
                });
            }
        }
        out
    }

    /// Forgets what waits of a lease. Says whether the adapter has some of it, which then must be withdrawn
    /// and is asked for by the caller.
    pub(super) fn end_lease(&mut self, number: u64) -> Withdrawal {
        let of_lease = |piece: &Piece| piece.origin == Origin::Lease { number };
        self.waiting.retain(|piece| !of_lease(piece));
        if !self.given.iter().any(of_lease) {
            return Withdrawal::Needless;
        }
        if std::mem::replace(&mut self.withdrawing, true) {
            return Withdrawal::UnderWay;
        }
        Withdrawal::Needed
    }

    /// The adapter has thrown away what the PTY had not taken at `total` bytes. What was not of a lease goes
    /// back to the front; the bytes of leases are gone, because a withdrawal begins with the end of the only
    /// lease that had bytes there.
    pub(super) fn withdrawn(&mut self, total: u64) -> Vec<Taken> {
        let taken = self.advance(total);
        if std::mem::replace(&mut self.withdrawing, false) {
            while let Some(piece) = self.given.pop_back() {
                if !matches!(piece.origin, Origin::Lease { .. }) {
                    self.waiting.push_front(piece);
                }
            }
        }
        taken
    }

    /// Gives up everything: the PTY is gone. Says what was still to be taken.
    pub(super) fn close(&mut self) -> Vec<Piece> {
        self.withdrawing = false;
        self.given.drain(..).chain(self.waiting.drain(..)).collect()
    }
}

/// What the end of a lease asks of the adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Withdrawal {
    /// Nothing: it has no byte of the lease.
    Needless,
    /// To throw away what the PTY has not taken, and say how much it has.
    Needed,
    /// Nothing more: it was asked already and has not answered.
    UnderWay,
}

/// The bytes of one lease as they come in.
#[derive(Debug)]
pub(super) struct InputReceiver {
    next: u64,
    taken: u64,
    waiting: VecDeque<u8>,
    bucket: Bucket,
    closer: InputCloser,
}

impl InputReceiver {
    /// A lease's first moment.
    pub(super) fn new(now: Mono) -> Self {
        Self {
            next: 0,
            taken: 0,
            waiting: VecDeque::new(),
            bucket: Bucket {
                tokens: INPUT_BURST_BYTES,
                at: now,
            },
            closer: InputCloser::new(),
        }
    }

    /// The position that comes next.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Bytes that the PTY has taken.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Bytes that came and that the PTY has not taken.
    pub(super) fn untaken(&self) -> usize {
        usize::try_from(self.next.saturating_sub(self.taken)).unwrap_or(usize::MAX)
    }

    /// A frame whose first byte has position `seq`. Takes what is new and follows without a gap, as far as the
    /// window reaches; the rest has to come again.
    pub(super) fn frame(&mut self, seq: u64, bytes: &[u8]) {
        let Some(known) = self.next.checked_sub(seq) else {
            return;
        };
        let known = usize::try_from(known).unwrap_or(usize::MAX);
        let fresh = bytes.get(known..).unwrap_or_default();
        self.append(fresh);
    }

    /// Takes bytes as they come, whatever their position: the planted bug that forgets to look for repetitions.
    #[cfg(feature = "sim")]
    pub(super) fn frame_without_dedup(&mut self, bytes: &[u8]) {
        self.append(bytes);
    }

    fn append(&mut self, fresh: &[u8]) {
        let room = INPUT_WINDOW_BYTES_MAX.saturating_sub(self.untaken());
        let fresh = fresh.get(..room.min(fresh.len())).unwrap_or_default();
        self.waiting.extend(fresh);
        self.next = self.next.saturating_add(fresh.len() as u64);
    }

    /// At most `room` bytes that may go to the PTY now.
    pub(super) fn release(&mut self, now: Mono, room: usize) -> Vec<u8> {
        let wanted = self.waiting.len().min(room);
        let granted = self.bucket.take(now, wanted as u64);
        let count = usize::try_from(granted)
            .unwrap_or(0)
            .min(self.waiting.len());
        self.waiting.drain(..count).collect()
    }

    /// When the rate lets more bytes go, if it is the rate that holds some back.
    pub(super) fn due(&self) -> Option<Mono> {
        (!self.waiting.is_empty() && self.bucket.tokens == 0).then(|| self.bucket.next())
    }

    /// The PTY has taken these bytes of the lease.
    pub(super) fn took(&mut self, bytes: &[u8]) {
        self.taken = self.taken.saturating_add(bytes.len() as u64);
        self.closer.observe(bytes);
    }

    /// What closes the escape sequence or paste that the taken bytes leave open.
    pub(super) fn closing(&self) -> Vec<u8> {
        self.closer.clone().close()
    }
}

/// Bytes that may go now; refilled by time.
#[derive(Debug)]
struct Bucket {
    tokens: u64,
    at: Mono,
}

/// The refill is counted in steps of this length, so that rounding never gives or takes a byte.
const STEP_MICROS: u64 = 15_625;
const STEP_BYTES: u64 = INPUT_RATE_BYTES_PER_S * STEP_MICROS / 1_000_000;

impl Bucket {
    fn take(&mut self, now: Mono, wanted: u64) -> u64 {
        let steps = now.0.saturating_sub(self.at.0) / STEP_MICROS;
        self.at = Mono(self.at.0.saturating_add(steps.saturating_mul(STEP_MICROS)));
        let refill = steps.saturating_mul(STEP_BYTES);
        self.tokens = self.tokens.saturating_add(refill).min(INPUT_BURST_BYTES);
        let granted = wanted.min(self.tokens);
        self.tokens -= granted;
        granted
    }

    fn next(&self) -> Mono {
        Mono(self.at.0.saturating_add(STEP_MICROS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERSON: Origin = Origin::Person { verb: None };
    const FIRST: Origin = Origin::Lease { number: 1 };

    #[test]
    fn a_frame_counts_once_however_often_it_comes() {
        let mut receiver = InputReceiver::new(Mono(0));

        receiver.frame(0, b"ab");
        receiver.frame(0, b"ab");
        receiver.frame(4, b"no: a gap before it");
        receiver.frame(1, b"bcd");

        assert_eq!(receiver.next(), 4);
        assert_eq!(receiver.release(Mono(0), 100), b"abcd");
    }

    #[test]
    fn no_more_than_a_window_is_kept() {
        let mut receiver = InputReceiver::new(Mono(0));

        for seq in 0..100 {
            receiver.frame(seq * 4096, &[b'x'; 4096]);
        }

        assert_eq!(receiver.next(), INPUT_WINDOW_BYTES_MAX as u64);
    }

    #[test]
    fn the_rate_is_the_burst_and_then_sixty_four_kibibytes_a_second() {
        let mut receiver = InputReceiver::new(Mono(0));
        let mut released = 0;

        for tick in 0..=1000_u64 {
            let start = receiver.next();
            receiver.frame(start, &[b'x'; 4096]);
            let bytes = receiver.release(Mono(tick * 1000), usize::MAX);
            receiver.took(&bytes);
            released += bytes.len() as u64;
        }

        assert_eq!(released, INPUT_BURST_BYTES + INPUT_RATE_BYTES_PER_S);
        assert!(receiver.due().is_some());
    }

    #[test]
    fn the_queue_tells_whose_bytes_were_taken() {
        let mut queue = PtyQueue::default();
        queue.push(PERSON, b"ab".to_vec());
        queue.push(FIRST, b"cde".to_vec());
        let given: Vec<_> = queue
            .give()
            .into_iter()
            .map(Authorized::into_inner)
            .collect();

        let taken = queue.advance(3);

        assert_eq!(given, [b"ab".to_vec(), b"cde".to_vec()]);
        assert_eq!(
            taken,
            [
                Taken {
                    origin: PERSON,
                    bytes: b"ab".to_vec(),
                    whole: true
                },
                Taken {
                    origin: FIRST,
                    bytes: b"c".to_vec(),
                    whole: false
                },
            ]
        );
        assert!(queue.advance(3).is_empty());
    }

    #[test]
    fn a_withdrawal_drops_the_lease_and_keeps_the_rest_in_order() {
        let mut queue = PtyQueue::default();
        queue.push(FIRST, b"abc".to_vec());
        queue.push(Origin::Answer, b"!".to_vec());
        assert_eq!(queue.give().len(), 2);
        queue.push(FIRST, b"never given".to_vec());

        assert_eq!(queue.end_lease(1), Withdrawal::Needed);
        queue.push(PERSON, b"x".to_vec());
        assert!(
            queue.give().is_empty(),
            "nothing is given while a withdrawal is under way"
        );
        let taken = queue.withdrawn(1);

        assert_eq!(
            taken,
            [Taken {
                origin: FIRST,
                bytes: b"a".to_vec(),
                whole: false
            }]
        );
        let given: Vec<_> = queue
            .give()
            .into_iter()
            .map(Authorized::into_inner)
            .collect();
        assert_eq!(given, [b"!".to_vec(), b"x".to_vec()]);
    }

    #[test]
    fn a_total_beyond_what_was_given_is_cut() {
        let mut queue = PtyQueue::default();
        queue.push(PERSON, b"ab".to_vec());
        assert_eq!(queue.give().len(), 1);

        assert_eq!(queue.advance(u64::MAX).len(), 1);
        assert_eq!(queue.taken, 2);
    }
}
