//! From ticket to member, both sides of one stream.
//!
//! A connection of a peer that is no member carries this protocol and nothing else. Both ends are known by the
//! keys that the transport proved; what is left to prove is the session, then the right to be in it:
//!
//! ```text
//! dialler                         listener
//!   Hello {version, commitment} →
//!                               ← Hello {version, nonce}
//!   Proof {nonce, mac}          →
//!                               ← Answer {mac, challenge}
//!   Join {join, grants}         →                            with a ticket: Joiner and Sponsor
//!                               ← Waiting, if a person decides
//!                               ← Welcome {statements} …     the last statement is the newcomer's Admit
//!   Done                        →
//! or
//!   Member {knows_you}          →                            as a member: Presenter and Sponsor
//!                               ← Member {knows_you}
//!   Shown {statements} …        ⇄                            whoever is unknown, the dialler first
//!   Done                        →
//! ```
//!
//! The MACs are under a key derived from the discovery key and the dialler's comes first, so a stranger on
//! either end learns that the protocol exists and no more. The dialler is bound to its nonce before it sees the
//! listener's, and shows it only afterwards: neither can choose its nonce by the other's, which is what lets
//! people compare [`Transcript::authentication`].
//!
//! The machines here do no I/O and keep no clock. Each takes an [`AdmissionInput`] and says what is to be done
//! as [`AdmissionOutput`]s; whoever drives one feeds it [`AdmissionInput::Tick`] when [`Sponsor::deadline`] (or
//! its like) is due, and [`AdmissionInput::Closed`] when the stream ends before [`AdmissionOutput::Close`].

mod joiner;
mod presenter;
mod proof;
mod sponsor;

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::engine::bounded;
use crate::engine::capability::{Capabilities, Kind, Rank, Role};
use crate::engine::epoch::Keyring;
use crate::engine::identity::Verified;
use crate::engine::ids::{Hash, MemberId};
use crate::engine::limits::{
    ADDRESS_BYTES_MAX, ADMISSION_APPROVAL_MS_MAX, ADMISSION_BATCH_BYTES,
    ADMISSION_GREETING_BYTES_MAX, ADMISSION_MESSAGE_BYTES_MAX, ADMISSION_PARTING_MS_MAX,
    ADMISSION_SHOWING_MS_MAX, ADMISSION_TRANSFER_MS_MAX, ADMISSION_UNPROVEN_MS_MAX,
    ENTRY_BYTES_MIN, GRANT_CHAIN_MAX, SPONSOR_HINT_ADDRESSES_MAX, SPONSOR_HINTS_MAX,
};
use crate::engine::log::{Entry, LogWriter};
use crate::engine::membership::Membership;
use crate::engine::statement::{Join, SignedStatement, Statement, Vouch};
use crate::engine::time::{Mono, Wall};

pub use self::joiner::{Joined, Joiner, JoinerSettings};
pub use self::presenter::Presenter;
pub use self::proof::Transcript;
pub use self::sponsor::{Sponsor, SponsorLimits};

/// The version of this protocol. Peers with different versions tell each other so and part.
pub const ADMISSION_VERSION: u16 = 1;

/// More statements than that do not fit a message.
const BATCH_STATEMENTS_MAX: usize = ADMISSION_MESSAGE_BYTES_MAX / ENTRY_BYTES_MIN;

const UNPROVEN: Duration = Duration::from_millis(ADMISSION_UNPROVEN_MS_MAX);
const APPROVAL: Duration = Duration::from_millis(ADMISSION_APPROVAL_MS_MAX);
/// How much longer the newcomer waits for that decision to arrive.
const APPROVAL_GRACE: Duration = Duration::from_secs(5);
const TRANSFER: Duration = Duration::from_millis(ADMISSION_TRANSFER_MS_MAX);
const SHOWING: Duration = Duration::from_millis(ADMISSION_SHOWING_MS_MAX);
const PARTING: Duration = Duration::from_millis(ADMISSION_PARTING_MS_MAX);

/// What the two sides say to each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdmissionMessage {
    /// The first message of each side. Its encoding up to the version never changes.
    Hello {
        /// [`ADMISSION_VERSION`].
        version: u16,
        /// The dialler's commitment to its nonce, or the listener's nonce.
        token: [u8; 32],
    },
    /// The dialler opens its commitment and proves that it knows the session.
    Proof {
        /// The dialler's nonce.
        nonce: [u8; 32],
        /// See [`Transcript`].
        mac: Hash,
    },
    /// The listener proves the same.
    Answer {
        /// See [`Transcript`].
        mac: Hash,
        /// What a Join must sign.
        challenge: [u8; 32],
    },
    /// The dialler holds an invitation.
    Join(Box<JoinMessage>),
    /// The dialler is a member, or the listener answers that it is one.
    Member {
        /// Whether the other is an effective member as far as this side knows.
        knows_you: bool,
    },
    /// A person decides; it may take two minutes.
    Waiting,
    /// The membership, for a newcomer.
    Welcome(Batch),
    /// What makes this side a member, for one who does not know it.
    Shown(Batch),
    /// This member cannot admit by this invitation; these perhaps can.
    NotSponsor {
        /// At most eight.
        #[serde(deserialize_with = "bounded::list::<_, _, SPONSOR_HINTS_MAX>")]
        hints: Vec<SponsorHint>,
    },
    /// No.
    Refused(RefusalCode),
    /// All is received; the stream may be closed.
    Done,
}

/// A Join and the grants that lead from the membership log to its invitation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinMessage {
    /// Signed by the newcomer's key and the invitation's.
    pub join: Join,
    /// Signed grants, as the ticket carries them.
    #[serde(deserialize_with = "bounded::list::<_, _, GRANT_CHAIN_MAX>")]
    pub chain: Vec<Vec<u8>>,
}

/// Some of a list of signed statements in causal order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// About 64 KiB of them.
    #[serde(deserialize_with = "bounded::list::<_, _, BATCH_STATEMENTS_MAX>")]
    pub statements: Vec<Vec<u8>>,
    /// Whether the list ends here.
    pub last: bool,
}

/// A member that may be able to sponsor, and where it was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SponsorHint {
    /// The member.
    pub member: MemberId,
    /// Its addresses as text, at most eight.
    #[serde(deserialize_with = "bounded::list::<_, _, SPONSOR_HINT_ADDRESSES_MAX>")]
    pub addresses: Vec<String>,
}

/// A refusal as it crosses the wire. The order of the variants is part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalCode {
    /// Joining by this invitation has ended.
    TicketExpired,
    /// As many as may have come by it.
    TicketUsedUp,
    /// The invitation was taken back.
    TicketRevoked,
    /// A person said no, or the Join does not hold.
    Denied,
    /// No person decided in time.
    ApprovalTimeout,
    /// Too many at once: waiting, admitted in this minute, or members.
    LimitExceeded,
    /// This is another session.
    WrongSession,
    /// What was shown makes nobody a member here; a ticket is needed.
    NotAMember,
}

/// Why an admission failed, seen from either side.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Joining by this invitation has ended.
    #[error("the ticket has expired")]
    TicketExpired,
    /// As many as may have come by it.
    #[error("the ticket has been used as often as it may")]
    TicketUsedUp,
    /// The invitation was taken back.
    #[error("the ticket has been revoked")]
    TicketRevoked,
    /// A person said no, or a proof does not hold.
    #[error("admission was refused: {0}")]
    Denied(&'static str),
    /// No person decided in time.
    #[error("nobody decided about the admission within two minutes")]
    ApprovalTimeout,
    /// Too many at once.
    #[error(
        "the session admits nobody just now: too many wait, were just admitted, or are members"
    )]
    LimitExceeded,
    /// The other side is of another session.
    #[error("the other side belongs to another session")]
    WrongSession,
    /// What was shown makes nobody a member.
    #[error("the membership shown does not hold there; a ticket is needed")]
    NotAMember,
    /// The listener is a member but cannot admit by this invitation.
    #[error("this member cannot admit by this ticket")]
    NotSponsor {
        /// Members who perhaps can.
        hints: Vec<SponsorHint>,
    },
    /// The other side speaks another version.
    #[error("the other side speaks version {theirs} of the protocol, this program version {ours}")]
    VersionMismatch {
        /// [`ADMISSION_VERSION`].
        ours: u16,
        /// The other side's.
        theirs: u16,
    },
    /// The other side said nothing more in time, or broke off.
    #[error("the other side fell silent")]
    Silent,
    /// The other side broke the protocol.
    #[error("the other side broke the protocol: {0}")]
    Misbehaved(&'static str),
}

impl Refusal {
    /// The stable code that faces show.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TicketExpired => "ticket-expired",
            Self::TicketUsedUp => "ticket-used-up",
            Self::TicketRevoked => "ticket-revoked",
            Self::Denied(_) | Self::NotAMember | Self::NotSponsor { .. } | Self::Misbehaved(_) => {
                "admission-refused"
            }
            Self::ApprovalTimeout => "approval-timeout",
            Self::LimitExceeded => "limit-exceeded",
            Self::WrongSession => "wrong-session",
            Self::VersionMismatch { .. } => "version-mismatch",
            Self::Silent => "peer-unreachable",
        }
    }

    fn from_wire(code: RefusalCode) -> Self {
        match code {
            RefusalCode::TicketExpired => Self::TicketExpired,
            RefusalCode::TicketUsedUp => Self::TicketUsedUp,
            RefusalCode::TicketRevoked => Self::TicketRevoked,
            RefusalCode::Denied => Self::Denied("the other side said no"),
            RefusalCode::ApprovalTimeout => Self::ApprovalTimeout,
            RefusalCode::LimitExceeded => Self::LimitExceeded,
            RefusalCode::WrongSession => Self::WrongSession,
            RefusalCode::NotAMember => Self::NotAMember,
        }
    }

    /// What the other side is told; nothing if it knows already or deserves no answer.
    fn to_message(&self) -> Option<AdmissionMessage> {
        let code = match self {
            Self::TicketExpired => RefusalCode::TicketExpired,
            Self::TicketUsedUp => RefusalCode::TicketUsedUp,
            Self::TicketRevoked => RefusalCode::TicketRevoked,
            Self::Denied(_) => RefusalCode::Denied,
            Self::ApprovalTimeout => RefusalCode::ApprovalTimeout,
            Self::LimitExceeded => RefusalCode::LimitExceeded,
            Self::WrongSession => RefusalCode::WrongSession,
            Self::NotAMember => RefusalCode::NotAMember,
            Self::NotSponsor { hints } => {
                return Some(AdmissionMessage::NotSponsor {
                    hints: hints.clone(),
                });
            }
            Self::VersionMismatch { .. } | Self::Silent | Self::Misbehaved(_) => return None,
        };
        Some(AdmissionMessage::Refused(code))
    }
}

impl AdmissionMessage {
    /// The bytes for the wire.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).unwrap_or_default()
    }

    /// Reads a message of at most `most` bytes in its one canonical form.
    ///
    /// # Errors
    /// Too long, or not such a message.
    pub fn decode(bytes: &[u8], most: usize) -> Result<Self, Refusal> {
        if bytes.len() > most {
            return Err(Refusal::Misbehaved("a message is too long"));
        }
        let message: Self = postcard::from_bytes(bytes)
            .map_err(|_| Refusal::Misbehaved("a message cannot be read"))?;
        if message.encode() != bytes {
            return Err(Refusal::Misbehaved("a message is not in canonical form"));
        }
        Ok(message)
    }

    /// Whether these bytes, which this node made, tell statements of the membership.
    pub fn is_membership(bytes: &[u8]) -> bool {
        match Self::decode(bytes, ADMISSION_MESSAGE_BYTES_MAX) {
            Ok(Self::Welcome(_) | Self::Shown(_)) => true,
            Ok(
                Self::Hello { .. }
                | Self::Proof { .. }
                | Self::Answer { .. }
                | Self::Join(_)
                | Self::Member { .. }
                | Self::Waiting
                | Self::NotSponsor { .. }
                | Self::Refused(_)
                | Self::Done,
            ) => false,
            // Nothing is held for harmless that cannot be read.
            Err(_) => true,
        }
    }

    /// The token of a Hello of our version. Of another version only the beginning is read.
    fn decode_hello(bytes: &[u8]) -> Result<[u8; 32], Refusal> {
        let greeting = bytes.get(..bytes.len().min(ADMISSION_GREETING_BYTES_MAX));
        match postcard::take_from_bytes::<(u8, u16)>(greeting.unwrap_or_default()) {
            Ok(((0, theirs), _)) if theirs != ADMISSION_VERSION => {
                return Err(Refusal::VersionMismatch {
                    ours: ADMISSION_VERSION,
                    theirs,
                });
            }
            Ok(_) | Err(_) => {}
        }
        match Self::decode(bytes, ADMISSION_GREETING_BYTES_MAX)? {
            Self::Hello { token, .. } => Ok(token),
            Self::Proof { .. }
            | Self::Answer { .. }
            | Self::Join(_)
            | Self::Member { .. }
            | Self::Waiting
            | Self::Welcome(_)
            | Self::Shown(_)
            | Self::NotSponsor { .. }
            | Self::Refused(_)
            | Self::Done => Err(OUT_OF_TURN),
        }
    }
}

const OUT_OF_TURN: Refusal = Refusal::Misbehaved("a message is out of turn");

/// What happens to a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdmissionInput {
    /// The stream stands.
    Opened,
    /// A whole message came.
    Received(Vec<u8>),
    /// A person here decided about the one who waits.
    Decided {
        /// Whether it is let in.
        approve: bool,
    },
    /// Time has passed.
    Tick,
    /// The stream or its connection is gone.
    Closed,
}

/// What a machine wants done, in order.
#[derive(Debug)]
pub enum AdmissionOutput {
    /// Send this message.
    Send(Vec<u8>),
    /// Ask a person here; the answer comes back as [`AdmissionInput::Decided`].
    AskPerson(Box<Question>),
    /// The question about this peer is settled, whoever settled it.
    Withdraw(MemberId),
    /// A new entry of our own log, the newcomer's Admit: persist it, insert it and tell all members, before
    /// anything after it is sent.
    Admit(Entry),
    /// The peer is a member: what proves it, in causal order, to be inserted. It will come again on a new
    /// connection. Empty if nothing was new.
    Recognised {
        /// The peer.
        member: MemberId,
        /// Signed statements; those known already are among them.
        statements: Vec<Verified<Statement>>,
    },
    /// The sponsor asks a person about us; it may take two minutes.
    Waits,
    /// We are a member now.
    Joined(Box<Joined>),
    /// It has failed.
    Refused(Refusal),
    /// Close the stream and its connection once what was sent is out. Nothing follows.
    Close,
}

/// What a person is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The key that wants to become a member.
    pub member: MemberId,
    /// The name it gives itself.
    pub name: String,
    /// Person or program.
    pub kind: Kind,
    /// The person who vouches for the key, if one does.
    pub person: Option<Vouch>,
    /// The Grant in the log from which its invitation comes.
    pub grant: Hash,
    /// What it would be.
    pub role: Role,
    /// Its seniority.
    pub rank: Rank,
    /// What it could do.
    pub capabilities: Capabilities,
    /// To compare with what the newcomer sees.
    pub authentication: [u8; 8],
    /// When the question lapses.
    pub until: Mono,
}

/// Why a machine wants to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdmissionDeadline {
    /// The peer has not proven itself.
    Unproven,
    /// Nobody has decided.
    Approval,
    /// The next message of a transfer is late.
    Transfer,
}

/// What a machine on a member's side knows of its session.
#[derive(Debug)]
pub struct SessionContext<'a> {
    /// The membership as it is known here.
    pub membership: &'a Membership,
    /// The session's discovery key.
    pub discovery_key: &'a [u8; 32],
    /// The epoch secrets known here.
    pub keyring: &'a Keyring,
    /// Our own log; none while this node must not write, and then it cannot sponsor.
    pub writer: Option<&'a mut LogWriter>,
    /// What all sponsors of this node share.
    pub limits: &'a mut SponsorLimits,
    /// Members seen of late and where, to be named to whoever we cannot admit.
    pub hints: &'a [SponsorHint],
}

/// What a message means that is not the one expected.
fn refused_by(message: AdmissionMessage) -> Refusal {
    match message {
        AdmissionMessage::Refused(code) => Refusal::from_wire(code),
        AdmissionMessage::NotSponsor { mut hints } => {
            hints.truncate(SPONSOR_HINTS_MAX);
            for hint in &mut hints {
                hint.addresses
                    .retain(|address| address.len() <= ADDRESS_BYTES_MAX);
                hint.addresses.truncate(SPONSOR_HINT_ADDRESSES_MAX);
            }
            Refusal::NotSponsor { hints }
        }
        AdmissionMessage::Hello { .. }
        | AdmissionMessage::Proof { .. }
        | AdmissionMessage::Answer { .. }
        | AdmissionMessage::Join(_)
        | AdmissionMessage::Member { .. }
        | AdmissionMessage::Waiting
        | AdmissionMessage::Welcome(_)
        | AdmissionMessage::Shown(_)
        | AdmissionMessage::Done => OUT_OF_TURN,
    }
}

/// Whether others talk to this member.
fn is_member(membership: &Membership, member: &MemberId, at: Wall) -> bool {
    membership.is_present(member, at)
}

/// Whether these statements, with what is known, make the peer a member.
fn recognise(
    membership: &Membership,
    peer: &MemberId,
    statements: &[Verified<Statement>],
    at: Wall,
) -> Result<(), Refusal> {
    let mut shown = membership.clone();
    for statement in statements {
        shown.insert(statement.clone());
    }
    if is_member(&shown, peer, at) {
        Ok(())
    } else {
        Err(Refusal::NotAMember)
    }
}

/// Sends what makes `us` a member: the statement that gives our standing and all beneath it.
fn show(membership: &Membership, us: &MemberId, out: &mut Vec<AdmissionOutput>) {
    let source = membership.standing(us).map(|standing| standing.source);
    let mut needed = BTreeSet::new();
    let mut next: Vec<Hash> = source.into_iter().collect();
    while let Some(hash) = next.pop() {
        if needed.insert(hash) {
            next.extend(
                membership
                    .get(&hash)
                    .into_iter()
                    .flat_map(|s| s.parents.iter().copied()),
            );
        }
    }
    let all = membership.all().into_iter();
    for batch in batches(all.filter(|statement| needed.contains(&statement.hash()))) {
        send(out, &AdmissionMessage::Shown(batch));
    }
}

/// A list of statements while it comes.
#[derive(Debug)]
struct Received {
    statements: Vec<Verified<Statement>>,
    room: usize,
}

impl Received {
    fn new(room: usize) -> Self {
        Self {
            statements: Vec::new(),
            room,
        }
    }

    /// Adds a batch; whether it was the last.
    fn take(&mut self, batch: &Batch) -> Result<bool, Refusal> {
        if batch.statements.is_empty() && !batch.last {
            return Err(Refusal::Misbehaved("a batch is empty"));
        }
        for bytes in &batch.statements {
            self.room = self
                .room
                .checked_sub(bytes.len())
                .ok_or(Refusal::Misbehaved("the membership is too large"))?;
            let statement = SignedStatement::decode(bytes)
                .map_err(|_| Refusal::Misbehaved("a statement does not hold"))?;
            self.statements.push(statement);
        }
        Ok(batch.last)
    }
}

/// Statements as messages of about 64 KiB.
fn batches<'a>(statements: impl IntoIterator<Item = &'a Verified<Statement>>) -> Vec<Batch> {
    let (mut batches, mut current, mut bytes) = (Vec::new(), Vec::new(), 0_usize);
    for statement in statements {
        let length = statement.bytes().len();
        if bytes.saturating_add(length) > ADMISSION_BATCH_BYTES && !current.is_empty() {
            batches.push(Batch {
                statements: std::mem::take(&mut current),
                last: false,
            });
            bytes = 0;
        }
        bytes = bytes.saturating_add(length);
        current.push(statement.bytes().to_vec());
    }
    batches.push(Batch {
        statements: current,
        last: true,
    });
    batches
}

fn send(out: &mut Vec<AdmissionOutput>, message: &AdmissionMessage) {
    out.push(AdmissionOutput::Send(message.encode()));
}

#[cfg(test)]
mod tests;
