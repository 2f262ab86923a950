//! The lease: who may type into a terminal, until when, and which keys the shell has taken.
//!
//! [`LeaseHost`] runs where the shell runs and decides alone; [`InputSender`] runs at every other member for
//! each terminal it may type into. Between them go [`InputMessage`] (towards the host) and [`ControlMessage`]
//! (from it). Streams are reliable, but are cut and opened anew at any byte, so both machines hold even when
//! messages are lost, doubled or overtaken:
//!
//! - A lease has a number that only grows. A byte is named by (lease number, position in that lease), is
//!   applied once, in order, and only while that lease lives.
//! - A sender attaches first and is told which lease lives and which position comes next. Everything it says
//!   afterwards names that attachment; what an earlier attachment (a dead process, a cut stream) had on its way
//!   is void. So a holder that restarted goes on where the host is, and its ghosts cannot type.
//! - An acknowledgement says what the PTY has *taken*. When a lease ends, what it has not taken is withdrawn,
//!   and only then is the sender told how far it got.

use std::fmt;

use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::engine::entropy::Entropy;
use crate::engine::identity::{self, MemberKey, Signature};
use crate::engine::ids::{MemberId, SessionId, TerminalId};
use crate::engine::limits::{INPUT_FRAME_BYTES_MAX, INPUT_MESSAGE_BYTES_MAX};
use crate::engine::time::Mono;

mod input;
mod lease;
mod order;
mod sender;
#[cfg(test)]
pub(in crate::engine) mod tests;

pub use input::{Authorized, Origin};
#[cfg(feature = "sim")]
pub use lease::PlantedBugs;
pub use lease::{
    Asked, HostEvent, HostInput, HostOutput, HostSettings, LeaseHost, LeaseView, Person, Prompt,
    Timer,
};
pub use order::{Action, Order, SignedOrder};
pub use sender::{InputSender, SenderEvent, SenderInput, SenderOutput, TypeResult};

/// The terminal that a machine serves, and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The session.
    pub session: SessionId,
    /// The terminal.
    pub terminal: TerminalId,
    /// The member on whose machine the shell runs.
    pub host: MemberId,
}

/// What a machine needs from outside for one input.
pub struct At<'a> {
    /// The moment.
    pub now: Mono,
    /// Fresh randomness.
    pub entropy: &'a mut Entropy,
    /// This member's key.
    pub key: &'a MemberKey,
    /// Who may what, at this moment.
    pub members: &'a dyn Members,
}

/// The session's members as far as control asks.
pub trait Members {
    /// May look at terminals, and so ask for a lease and hold one.
    fn may_watch(&self, who: &MemberId) -> bool;
    /// May edit, and so gets a free lease on the first key where the host gives such.
    fn may_edit(&self, who: &MemberId) -> bool;
    /// May decide who has control.
    fn may_control(&self, who: &MemberId) -> bool;
    /// Is one of the owner's devices.
    fn is_owner(&self, who: &MemberId) -> bool;
    /// Is connected to this node.
    fn is_connected(&self, who: &MemberId) -> bool;
}

/// The right to type into one terminal for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The session.
    pub session: SessionId,
    /// The terminal.
    pub terminal: TerminalId,
    /// Who may type.
    pub holder: MemberId,
    /// The fencing number: 1 for the terminal's first lease, then always one more.
    pub number: u64,
    /// How long it was given for, in seconds, on the host's monotonic clock.
    pub duration_s: u32,
}

/// A lease under its terminal host's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedLease {
    /// The lease.
    pub lease: Lease,
    /// The host's signature over [`Lease::signing_bytes`].
    pub signature: Signature,
}

/// What anybody may know about control of a terminal; its host sends it to whom it concerns on each change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    /// Grows with each change; an older status never replaces a newer one.
    pub version: u64,
    /// The newest lease number, whether that lease lives or not; 0 before the first.
    pub number: u64,
    /// The living lease.
    pub lease: Option<SignedLease>,
    /// What is left of it, in milliseconds.
    pub remaining_ms: u32,
    /// Who has forbidden leases, if somebody has.
    pub locked: Option<MemberId>,
    /// Whether an editor's first key gets a free lease.
    pub auto: bool,
}

/// Towards the host of a terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputMessage {
    /// Which terminal.
    pub terminal: TerminalId,
    /// What is said.
    pub body: ToHost,
}

/// What a member says to a terminal's host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToHost {
    /// Opens the conversation, and first on every new stream.
    Attach {
        /// Drawn once for each attachment, so that a repetition is known as such.
        nonce: u64,
        /// A lease whose account the sender still waits for.
        unsettled: Option<u64>,
    },
    /// Asks for the lease.
    Request {
        /// The attachment in which it is asked.
        attachment: u64,
        /// Grows with each request of an attachment; a repetition is answered, not asked again.
        request: u64,
        /// Whether a key waits for it, which only `--control auto` honours.
        first_key: bool,
        /// For how long, in seconds, if the asker says so.
        duration_s: Option<u32>,
    },
    /// Takes a request back.
    Withdraw {
        /// The attachment in which it was asked.
        attachment: u64,
        /// Which request.
        request: u64,
    },
    /// Gives the lease back.
    Release {
        /// Which lease.
        number: u64,
    },
    /// An order of a holder of `control`.
    Order(SignedOrder),
    /// Keys. Without bytes it asks for an acknowledgement.
    Input {
        /// Under which lease.
        number: u64,
        /// In which attachment.
        attachment: u64,
        /// Position of the first byte among all bytes of this lease.
        seq: u64,
        /// The bytes.
        bytes: Keys,
    },
}

/// From the host of a terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlMessage {
    /// Which terminal.
    pub terminal: TerminalId,
    /// What is said.
    pub body: FromHost,
}

/// What a terminal's host says to a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromHost {
    /// Answers [`ToHost::Attach`].
    Attached {
        /// The nonce of the question.
        nonce: u64,
        /// The attachment's number.
        attachment: u64,
        /// What the next order must answer.
        challenge: [u8; 16],
        /// Position that the living lease expects next (0 if it is another member's).
        next: u64,
        /// Bytes of the living lease that the PTY has taken (0 if it is another member's).
        taken: u64,
        /// The state of control.
        status: LeaseStatus,
    },
    /// Control has changed hands, or may.
    Status(LeaseStatus),
    /// The request is before the host's person.
    Recorded {
        /// Which request.
        request: u64,
    },
    /// The lease is the receiver's.
    Granted {
        /// The request it answers, if there was one.
        request: Option<u64>,
        /// Position that the lease expects next.
        next: u64,
        /// The state of control, with the lease.
        status: LeaseStatus,
    },
    /// The request is refused.
    Denied {
        /// Which request.
        request: u64,
        /// Why.
        reason: Denial,
    },
    /// A lease of the receiver's is over and its account is closed.
    Ended {
        /// Which lease.
        number: u64,
        /// Why.
        reason: EndReason,
        /// Bytes of it that the PTY has taken; none if the host does not remember.
        written: Option<u64>,
    },
    /// How far keys have come.
    Ack {
        /// Under which lease.
        number: u64,
        /// In which attachment.
        attachment: u64,
        /// Position that the host expects next.
        next: u64,
        /// Bytes that the PTY has taken.
        taken: u64,
    },
    /// What became of an order.
    Ordered {
        /// The challenge that the order answered.
        challenge: [u8; 16],
        /// The result.
        outcome: OrderOutcome,
        /// What the next order must answer.
        next: [u8; 16],
    },
    /// A message had no effect.
    Refused {
        /// Why.
        reason: Refusal,
    },
}

/// What became of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderOutcome {
    /// It is done.
    Done,
    /// The host's person is asked.
    Waiting,
    /// It had no effect.
    Refused(Refusal),
}

/// Why a request was not granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Denial {
    /// The host's person said no.
    #[error("the host said no")]
    Person,
    /// Nobody answered in time.
    #[error("the host did not answer in time")]
    Unanswered,
    /// Somebody else has the lease, and the request was for a free one.
    #[error("{} has control", .by.short())]
    Held {
        /// Who.
        by: MemberId,
    },
    /// Leases are forbidden here.
    #[error("input is locked by {}", .by.short())]
    Locked {
        /// By whom.
        by: MemberId,
    },
    /// The asker may not look at terminals, or not edit where a first key asks.
    #[error("this role may not type here")]
    NotPermitted,
    /// A first key asked, but this host decides each request.
    #[error("the host decides each request")]
    AskFirst,
    /// The host's person has just taken control.
    #[error("the host has just taken control")]
    Paused,
    /// Too many requests wait, or this member has asked too often in the last minute.
    #[error("too many requests at the host; try again in a minute")]
    Busy,
    /// The terminal is closed.
    #[error("the terminal is closed")]
    Closed,
}

/// Why a lease ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum EndReason {
    /// Its holder gave it back.
    #[error("released")]
    Released,
    /// Its time is over.
    #[error("its time is over")]
    Expired,
    /// Somebody who may decide ended it.
    #[error("revoked by {}", .by.short())]
    Revoked {
        /// Who.
        by: MemberId,
    },
    /// Somebody took control.
    #[error("taken over by {}", .by.short())]
    Taken {
        /// Who.
        by: MemberId,
    },
    /// Control was given to another member.
    #[error("given to {}", .to.short())]
    Given {
        /// To whom.
        to: MemberId,
    },
    /// Leases were forbidden.
    #[error("input was locked by {}", .by.short())]
    Locked {
        /// By whom.
        by: MemberId,
    },
    /// The holder's connection was gone for too long.
    #[error("its holder was gone for too long")]
    Gone,
    /// The holder is no longer a member, or may no longer watch.
    #[error("its holder may no longer watch")]
    Removed,
    /// The terminal is closed.
    #[error("the terminal is closed")]
    Closed,
    /// The host knows no such lease any more.
    #[error("the host no longer knows it")]
    Forgotten,
}

impl EndReason {
    /// The reason in words, where `called` names a member.
    pub fn in_words(&self, called: impl Fn(&MemberId) -> String) -> String {
        match self {
            Self::Revoked { by } => format!("revoked by {}", called(by)),
            Self::Taken { by } => format!("taken over by {}", called(by)),
            Self::Given { to } => format!("given to {}", called(to)),
            Self::Locked { by } => format!("input was locked by {}", called(by)),
            Self::Released
            | Self::Expired
            | Self::Gone
            | Self::Removed
            | Self::Closed
            | Self::Forgotten => self.to_string(),
        }
    }
}

/// Why a message had no effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Keys without the lease.
    #[error("you do not have control")]
    NotHeld,
    /// The message names an attachment that is not the sender's newest; it attaches anew.
    #[error("this connection to the terminal is not the newest")]
    Detached,
    /// The order was made for another lease number.
    #[error("control has changed since (it is at lease {number})")]
    Stale {
        /// The newest number.
        number: u64,
    },
    /// The order does not answer the newest challenge, or is not signed by its sender for this terminal.
    #[error("the order is not valid here")]
    Invalid,
    /// The member may not decide who has control.
    #[error("this role may not decide who has control")]
    NotPermitted,
    /// There is nothing to revoke.
    #[error("nobody has control")]
    NoLease,
    /// Who should get the lease cannot have it: not connected, not a reader, or the host itself.
    #[error("{} cannot be given control", .who.short())]
    Unfit {
        /// Who.
        who: MemberId,
    },
    /// Leases are forbidden here.
    #[error("input is locked by {}", .by.short())]
    Locked {
        /// By whom.
        by: MemberId,
    },
    /// The host's person did not agree.
    #[error("the host's person did not agree")]
    Disagreed,
    /// Too many orders wait.
    #[error("too many orders wait at the host")]
    Busy,
    /// The terminal is closed.
    #[error("the terminal is closed")]
    Closed,
    /// The terminal's host is not connected.
    #[error("the terminal's host is not connected")]
    Unreachable,
    /// More is typed than can be kept until it is confirmed.
    #[error("too much is typed and not yet confirmed")]
    Full,
    /// The request was denied.
    #[error("control was not granted: {0}")]
    Denied(Denial),
}

/// What became of typed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Account {
    /// Bytes that the PTY has taken.
    pub written: u64,
    /// Bytes that it has not taken and never will.
    pub not_written: u64,
    /// Bytes that may have been taken: the host died before it said so.
    pub unknown: u64,
}

impl Account {
    /// Whether anything typed was not written, or may not have been.
    pub fn is_short(&self) -> bool {
        self.not_written > 0 || self.unknown > 0
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            written,
            not_written,
            unknown,
        } = self;
        write!(
            f,
            "{written} bytes of the keys were written, {not_written} were not, {unknown} may have been"
        )
    }
}

/// Bytes of keys, at most [`INPUT_FRAME_BYTES_MAX`]; what was typed is never shown in logs.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Keys(Vec<u8>);

/// A message that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// It is longer than any message may be.
    #[error("a control message has at most {INPUT_MESSAGE_BYTES_MAX} bytes, this one {0}")]
    TooLong(usize),
    /// It is no message of this kind.
    #[error("a control message does not decode: {0}")]
    Malformed(String),
    /// It decodes, but is not what the encoder would have written.
    #[error("a control message is not in canonical form")]
    NotCanonical,
}

impl InputMessage {
    /// Canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads canonical bytes of any origin.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        decode(bytes)
    }
}

impl ControlMessage {
    /// Canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads canonical bytes of any origin.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        decode(bytes)
    }
}

impl Lease {
    /// What the terminal's host signs: the canonical encoding, under the lease's domain.
    pub fn signing_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Signs as the terminal's host.
    pub fn sign(self, key: &MemberKey) -> SignedLease {
        let signature = key.sign(identity::Domain::Lease, &self.signing_bytes());
        SignedLease {
            lease: self,
            signature,
        }
    }
}

impl SignedLease {
    /// Whether `place`'s host gave this lease for that terminal.
    pub fn is_of(&self, place: &Place) -> bool {
        self.lease.session == place.session
            && self.lease.terminal == place.terminal
            && identity::verify(
                &place.host,
                identity::Domain::Lease,
                &self.lease.signing_bytes(),
                &self.signature,
            )
            .is_ok()
    }
}

impl LeaseStatus {
    /// Who may type.
    pub fn holder(&self) -> Option<MemberId> {
        self.lease.as_ref().map(|signed| signed.lease.holder)
    }
}

impl Keys {
    /// Takes bytes that fit a frame; more than fit are no keys.
    pub fn new(bytes: Vec<u8>) -> Option<Self> {
        (bytes.len() <= INPUT_FRAME_BYTES_MAX).then_some(Self(bytes))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({} bytes)", self.0.len())
    }
}

impl fmt::Debug for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("At")
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

impl Serialize for Keys {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(KeysVisitor)
    }
}

struct KeysVisitor;

impl Visitor<'_> for KeysVisitor {
    type Value = Keys;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {INPUT_FRAME_BYTES_MAX} bytes")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Keys, E> {
        if bytes.len() > INPUT_FRAME_BYTES_MAX {
            return Err(E::invalid_length(bytes.len(), &self));
        }
        Ok(Keys(bytes.to_vec()))
    }
}

/// Canonical bytes of a plain value. Encoding into memory cannot fail for the types of this module; were it to,
/// the empty result decodes as nothing and verifies as nothing.
fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).unwrap_or_default()
}

fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    if bytes.len() > INPUT_MESSAGE_BYTES_MAX {
        return Err(WireError::TooLong(bytes.len()));
    }
    let (value, rest) =
        postcard::take_from_bytes::<T>(bytes).map_err(|e| WireError::Malformed(e.to_string()))?;
    if !rest.is_empty() || encode(&value) != bytes {
        return Err(WireError::NotCanonical);
    }
    Ok(value)
}
