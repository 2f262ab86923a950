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

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::engine::capability::{Action, Capabilities, Kind, Rank, Role};
use crate::engine::entropy::Entropy;
use crate::engine::epoch::Keyring;
use crate::engine::identity::{
    AgreementKey, InviteKey, MemberKey, Verified, derive_key, hash, keyed_hash,
};
use crate::engine::ids::{Hash, MemberId, SessionId};
use crate::engine::limits::{
    ADDRESS_BYTES_MAX, ADMISSION_BATCH_BYTES, ADMISSION_GREETING_BYTES_MAX,
    ADMISSION_MESSAGE_BYTES_MAX, ADMISSION_SHOWN_BYTES_MAX, ADMISSION_WELCOME_BYTES_MAX,
    ADMITS_PER_MINUTE_MAX, APPROVALS_WAITING_MAX, GRANT_CHAIN_MAX, MEMBERS_MAX,
    SPONSOR_HINT_ADDRESSES_MAX, SPONSOR_HINTS_MAX,
};
use crate::engine::log::{Entry, LogWriter};
use crate::engine::membership::{Membership, MembershipError, Position, Reason, make_admit};
use crate::engine::statement::{
    Grant, Grantee, Join, JoinRequest, SignedStatement, Sponsors, Statement, StatementBody, Vouch,
    discovery_commitment,
};
use crate::engine::time::{Mono, Now, Wall};

/// The version of this protocol. Peers with different versions tell each other so and part.
pub const ADMISSION_VERSION: u16 = 1;

/// How long a peer may take to prove the session and say what it wants.
pub const UNPROVEN_MAX: Duration = Duration::from_secs(5);
/// How long a person may take to decide.
pub const APPROVAL_MAX: Duration = Duration::from_secs(120);
/// How much longer the newcomer waits for that decision to arrive.
const APPROVAL_GRACE: Duration = Duration::from_secs(5);
/// How long the next message of a transfer may take.
pub const TRANSFER_MAX: Duration = Duration::from_secs(15);
/// How long a peer may take to show what makes it a member.
const SHOWING_MAX: Duration = Duration::from_secs(60);
/// How long a peer may take to receive all that was sent to it.
const PARTING_MAX: Duration = Duration::from_secs(60);

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
    pub chain: Vec<Vec<u8>>,
}

/// Some of a list of signed statements in causal order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// About 64 KiB of them.
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

/// A finished admission, on the newcomer's side.
#[derive(Debug, Clone)]
pub struct Joined {
    /// The session's membership as the sponsor knows it, with us in it.
    pub membership: Membership,
    /// Its statements in causal order, Genesis first, to be persisted.
    pub statements: Vec<Verified<Statement>>,
    /// The epoch secrets that could be had from them. Where the current one is missing, members give it.
    pub keyring: Keyring,
    /// Who admitted us.
    pub sponsor: MemberId,
    /// To compare with what the sponsor sees.
    pub authentication: [u8; 8],
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

/// What holds for the whole exchange: both ends and both nonces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transcript {
    /// Who opened the stream.
    pub dialler: MemberId,
    /// Who answered.
    pub listener: MemberId,
    /// The dialler's nonce.
    pub dialler_nonce: [u8; 32],
    /// The listener's nonce.
    pub listener_nonce: [u8; 32],
}

impl Transcript {
    /// Eight bytes that are the same on both ends if nobody sits between them, for people to compare in words
    /// or digits.
    pub fn authentication(&self) -> [u8; 8] {
        let whole = hash("collab-p2p v1 admission authentication", &self.parts());
        whole.0.first_chunk().copied().unwrap_or_default()
    }

    fn mac(&self, discovery_key: &[u8; 32], side: Side) -> Hash {
        let key = Zeroizing::new(derive_key("collab-p2p v1 admission mac", &[discovery_key]));
        let version = ADMISSION_VERSION.to_le_bytes();
        let front = [side.role(), version.as_slice()].into_iter();
        keyed_hash(&key, &front.chain(self.parts()).collect::<Vec<_>>())
    }

    /// Compares in constant time.
    fn proves(&self, discovery_key: &[u8; 32], side: Side, mac: &Hash) -> bool {
        blake3::Hash::from(self.mac(discovery_key, side).0) == blake3::Hash::from(mac.0)
    }

    fn parts(&self) -> [&[u8]; 4] {
        [
            &self.dialler.0,
            &self.listener.0,
            &self.dialler_nonce,
            &self.listener_nonce,
        ]
    }
}

/// Which end makes a MAC.
#[derive(Debug, Clone, Copy)]
enum Side {
    Dialler,
    Listener,
}

impl Side {
    fn role(self) -> &'static [u8] {
        match self {
            Self::Dialler => b"dialler",
            Self::Listener => b"listener",
        }
    }
}

fn commitment(nonce: &[u8; 32]) -> [u8; 32] {
    hash("collab-p2p v1 admission commit", &[nonce]).0
}

/// The dialler's half of the mutual proof.
struct Dialler {
    us: MemberId,
    peer: MemberId,
    discovery_key: Zeroizing<[u8; 32]>,
    nonce: [u8; 32],
}

impl Dialler {
    fn new(us: MemberId, peer: MemberId, discovery_key: [u8; 32], entropy: &mut Entropy) -> Self {
        let discovery_key = Zeroizing::new(discovery_key);
        Self {
            us,
            peer,
            discovery_key,
            nonce: entropy.bytes(),
        }
    }

    fn hello(&self) -> AdmissionMessage {
        AdmissionMessage::Hello {
            version: ADMISSION_VERSION,
            token: commitment(&self.nonce),
        }
    }

    /// Reads the listener's Hello; opens the commitment.
    fn prove(&self, bytes: &[u8]) -> Result<(Transcript, AdmissionMessage), Refusal> {
        let transcript = Transcript {
            dialler: self.us,
            listener: self.peer,
            dialler_nonce: self.nonce,
            listener_nonce: AdmissionMessage::decode_hello(bytes)?,
        };
        let mac = transcript.mac(&self.discovery_key, Side::Dialler);
        Ok((
            transcript,
            AdmissionMessage::Proof {
                nonce: self.nonce,
                mac,
            },
        ))
    }

    /// Reads the listener's Answer; the challenge in it.
    fn check(&self, transcript: &Transcript, bytes: &[u8]) -> Result<[u8; 32], Refusal> {
        let message = AdmissionMessage::decode(bytes, ADMISSION_GREETING_BYTES_MAX)?;
        let AdmissionMessage::Answer { mac, challenge } = message else {
            return Err(refused_by(message));
        };
        if !transcript.proves(&self.discovery_key, Side::Listener, &mac) {
            return Err(Refusal::WrongSession);
        }
        Ok(challenge)
    }
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

/// With what one joins: a ticket and a member's keys. Neither the invitation's key nor its seed is ever sent.
pub struct JoinerSettings {
    /// The session that the ticket names.
    pub session: SessionId,
    /// The ticket's discovery key.
    pub discovery_key: [u8; 32],
    /// The invitation's key; none for a grant that was promised to the member's own key.
    pub invite: Option<InviteKey>,
    /// The ticket's grants.
    pub chain: Vec<Vec<u8>>,
    /// The key that becomes a member; also the transport's.
    pub member: MemberKey,
    /// The key to which secrets are wrapped.
    pub agreement: AgreementKey,
    /// 1 to 64 characters.
    pub name: String,
    /// Person or program.
    pub kind: Kind,
    /// A person's word for the member's key, where the invitation asks for it.
    pub person: Option<Vouch>,
}

impl fmt::Debug for JoinerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "JoinerSettings({:?} to {})",
            self.member,
            self.session.short()
        )
    }
}

/// The newcomer, who dials with a ticket.
pub struct Joiner {
    settings: JoinerSettings,
    dialler: Dialler,
    phase: Joining,
    deadline: Option<(Mono, AdmissionDeadline)>,
}

enum Joining {
    Greeting,
    Proving(Transcript),
    Asked {
        authentication: [u8; 8],
    },
    Receiving {
        authentication: [u8; 8],
        received: Received,
    },
    Ended,
}

impl Joiner {
    /// Starts with a connection to `peer`. The first message goes out on [`AdmissionInput::Opened`].
    pub fn new(settings: JoinerSettings, peer: MemberId, now: Now, entropy: &mut Entropy) -> Self {
        let dialler = Dialler::new(settings.member.id(), peer, settings.discovery_key, entropy);
        let deadline = Some((now.mono + UNPROVEN_MAX, AdmissionDeadline::Unproven));
        Self {
            settings,
            dialler,
            phase: Joining::Greeting,
            deadline,
        }
    }

    /// The peer that is asked.
    pub fn peer(&self) -> MemberId {
        self.dialler.peer
    }

    /// When to feed a tick at the latest, and why.
    pub fn deadline(&self) -> Option<(Mono, AdmissionDeadline)> {
        self.deadline
    }

    /// Takes one input.
    pub fn handle(&mut self, input: AdmissionInput, now: Now, out: &mut Vec<AdmissionOutput>) {
        if matches!(self.phase, Joining::Ended) {
            return;
        }
        let step = match input {
            AdmissionInput::Opened => {
                send(out, &self.dialler.hello());
                Ok(())
            }
            AdmissionInput::Received(bytes) => self.receive(&bytes, now, out),
            AdmissionInput::Decided { .. } => Ok(()),
            AdmissionInput::Tick => self.check_time(now),
            AdmissionInput::Closed => Err(Refusal::Silent),
        };
        if let Err(refusal) = step {
            self.end();
            out.push(AdmissionOutput::Refused(refusal));
            out.push(AdmissionOutput::Close);
        }
    }

    fn check_time(&self, now: Now) -> Result<(), Refusal> {
        match self.deadline {
            Some((at, AdmissionDeadline::Approval)) if now.mono >= at => {
                Err(Refusal::ApprovalTimeout)
            }
            Some((at, AdmissionDeadline::Unproven | AdmissionDeadline::Transfer))
                if now.mono >= at =>
            {
                Err(Refusal::Silent)
            }
            Some(_) | None => Ok(()),
        }
    }

    fn receive(
        &mut self,
        bytes: &[u8],
        now: Now,
        out: &mut Vec<AdmissionOutput>,
    ) -> Result<(), Refusal> {
        match std::mem::replace(&mut self.phase, Joining::Ended) {
            Joining::Greeting => {
                let (transcript, proof) = self.dialler.prove(bytes)?;
                send(out, &proof);
                self.phase = Joining::Proving(transcript);
            }
            Joining::Proving(transcript) => {
                let challenge = self.dialler.check(&transcript, bytes)?;
                send(out, &self.join(challenge)?);
                let authentication = transcript.authentication();
                self.phase = Joining::Asked { authentication };
                self.wait(now, TRANSFER_MAX, AdmissionDeadline::Transfer);
            }
            Joining::Asked { authentication } => self.decided(bytes, authentication, now, out)?,
            Joining::Receiving {
                authentication,
                received,
            } => {
                self.welcomed(bytes, authentication, received, now, out)?;
            }
            Joining::Ended => {}
        }
        Ok(())
    }

    /// The answer to the Join: wait, welcome, or no.
    fn decided(
        &mut self,
        bytes: &[u8],
        authentication: [u8; 8],
        now: Now,
        out: &mut Vec<AdmissionOutput>,
    ) -> Result<(), Refusal> {
        let received = Received::new(ADMISSION_WELCOME_BYTES_MAX);
        if bytes != AdmissionMessage::Waiting.encode() {
            return self.welcomed(bytes, authentication, received, now, out);
        }
        let first_time = !matches!(self.deadline, Some((_, AdmissionDeadline::Approval)));
        if !first_time {
            return Err(OUT_OF_TURN);
        }
        self.phase = Joining::Asked { authentication };
        self.wait(
            now,
            APPROVAL_MAX + APPROVAL_GRACE,
            AdmissionDeadline::Approval,
        );
        out.push(AdmissionOutput::Waits);
        Ok(())
    }

    fn welcomed(
        &mut self,
        bytes: &[u8],
        authentication: [u8; 8],
        mut received: Received,
        now: Now,
        out: &mut Vec<AdmissionOutput>,
    ) -> Result<(), Refusal> {
        let message = AdmissionMessage::decode(bytes, ADMISSION_MESSAGE_BYTES_MAX)?;
        let AdmissionMessage::Welcome(batch) = message else {
            return Err(refused_by(message));
        };
        if !received.take(&batch)? {
            self.phase = Joining::Receiving {
                authentication,
                received,
            };
            self.wait(now, TRANSFER_MAX, AdmissionDeadline::Transfer);
            return Ok(());
        }
        let joined = self.conclude(received.statements, authentication)?;
        send(out, &AdmissionMessage::Done);
        out.push(AdmissionOutput::Joined(Box::new(joined)));
        out.push(AdmissionOutput::Close);
        self.end();
        Ok(())
    }

    fn join(&self, challenge: [u8; 32]) -> Result<AdmissionMessage, Refusal> {
        let settings = &self.settings;
        let member = settings.member.id();
        let by = match &settings.invite {
            Some(invite) => Grantee::Invite(invite.id()),
            None => Grantee::Member(member),
        };
        let request = JoinRequest {
            session: settings.session,
            by,
            member,
            prekey: settings.agreement.public(),
            name: settings.name.clone(),
            kind: settings.kind,
            person: settings.person.clone(),
            sponsor: self.dialler.peer,
            challenge,
        };
        let join = Join::sign(request, &settings.member, settings.invite.as_ref())
            .map_err(|_| Refusal::Denied("this name cannot be used"))?;
        let chain = settings.chain.clone();
        Ok(AdmissionMessage::Join(Box::new(JoinMessage {
            join,
            chain,
        })))
    }

    /// Builds the membership from what came, believing nothing but what the ticket's session id vouches for.
    fn conclude(
        &self,
        statements: Vec<Verified<Statement>>,
        authentication: [u8; 8],
    ) -> Result<Joined, Refusal> {
        let genesis = statements
            .first()
            .ok_or(Refusal::Misbehaved("the membership is empty"))?;
        if genesis.hash().0 != self.settings.session.0 {
            return Err(Refusal::WrongSession);
        }
        if let StatementBody::Genesis(first) = &genesis.body
            && first.discovery != discovery_commitment(&self.settings.discovery_key)
        {
            return Err(Refusal::WrongSession);
        }
        let mut membership = Membership::new(genesis.clone()).map_err(|_| Refusal::WrongSession)?;
        for statement in statements.iter().skip(1) {
            membership.insert(statement.clone());
        }
        let us = self.settings.member.id();
        if membership.standing(&us).is_none() {
            return Err(Refusal::Misbehaved("the membership does not hold us"));
        }
        let keyring = open_epochs(&membership, &us, &self.settings.agreement);
        Ok(Joined {
            membership,
            statements,
            keyring,
            sponsor: self.dialler.peer,
            authentication,
        })
    }

    fn wait(&mut self, now: Now, at_most: Duration, why: AdmissionDeadline) {
        self.deadline = Some((now.mono + at_most, why));
    }

    fn end(&mut self) {
        self.phase = Joining::Ended;
        self.deadline = None;
    }
}

impl fmt::Debug for Joiner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = match &self.phase {
            Joining::Greeting => "greeting",
            Joining::Proving(_) => "proving",
            Joining::Asked { .. } => "asked",
            Joining::Receiving { .. } => "receiving",
            Joining::Ended => "ended",
        };
        write!(f, "Joiner(with {}, {phase})", self.dialler.peer.short())
    }
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

/// A member whom the other side may not know, or who does not know the other side; it dials.
pub struct Presenter {
    dialler: Dialler,
    phase: Presenting,
    deadline: Option<(Mono, AdmissionDeadline)>,
}

enum Presenting {
    Greeting,
    Proving(Transcript),
    Asking,
    Shown,
    Watching(Received),
    Ended,
}

impl Presenter {
    /// Starts with a connection to `peer`. The first message goes out on [`AdmissionInput::Opened`].
    pub fn new(
        us: MemberId,
        peer: MemberId,
        discovery_key: [u8; 32],
        now: Now,
        entropy: &mut Entropy,
    ) -> Self {
        let dialler = Dialler::new(us, peer, discovery_key, entropy);
        let deadline = Some((now.mono + UNPROVEN_MAX, AdmissionDeadline::Unproven));
        Self {
            dialler,
            phase: Presenting::Greeting,
            deadline,
        }
    }

    /// The peer that is dialled.
    pub fn peer(&self) -> MemberId {
        self.dialler.peer
    }

    /// When to feed a tick at the latest, and why.
    pub fn deadline(&self) -> Option<(Mono, AdmissionDeadline)> {
        self.deadline
    }

    /// Takes one input.
    pub fn handle(
        &mut self,
        input: AdmissionInput,
        now: Now,
        ctx: &SessionContext<'_>,
        out: &mut Vec<AdmissionOutput>,
    ) {
        if matches!(self.phase, Presenting::Ended) {
            return;
        }
        let late = self.deadline.is_some_and(|(at, _)| now.mono >= at);
        let step = match input {
            AdmissionInput::Opened => {
                send(out, &self.dialler.hello());
                Ok(())
            }
            AdmissionInput::Received(bytes) => self.receive(&bytes, now, ctx, out),
            AdmissionInput::Tick if late => Err(Refusal::Silent),
            AdmissionInput::Tick | AdmissionInput::Decided { .. } => Ok(()),
            AdmissionInput::Closed => Err(Refusal::Silent),
        };
        if let Err(refusal) = step {
            self.end();
            out.extend(
                refusal
                    .to_message()
                    .map(|message| AdmissionOutput::Send(message.encode())),
            );
            out.push(AdmissionOutput::Refused(refusal));
            out.push(AdmissionOutput::Close);
        }
    }

    fn receive(
        &mut self,
        bytes: &[u8],
        now: Now,
        ctx: &SessionContext<'_>,
        out: &mut Vec<AdmissionOutput>,
    ) -> Result<(), Refusal> {
        match std::mem::replace(&mut self.phase, Presenting::Ended) {
            Presenting::Greeting => {
                let (transcript, proof) = self.dialler.prove(bytes)?;
                send(out, &proof);
                self.phase = Presenting::Proving(transcript);
            }
            Presenting::Proving(transcript) => {
                self.dialler.check(&transcript, bytes)?;
                let knows_you = is_member(ctx.membership, &self.dialler.peer, now.wall);
                send(out, &AdmissionMessage::Member { knows_you });
                self.phase = Presenting::Asking;
                self.wait(now);
            }
            Presenting::Asking => self.asked(bytes, now, ctx, out)?,
            Presenting::Shown => {
                match AdmissionMessage::decode(bytes, ADMISSION_MESSAGE_BYTES_MAX)? {
                    AdmissionMessage::Done => self.finish(Vec::new(), out),
                    other => return Err(refused_by(other)),
                }
            }
            Presenting::Watching(received) => self.watch(bytes, received, now, ctx, out)?,
            Presenting::Ended => {}
        }
        Ok(())
    }

    fn asked(
        &mut self,
        bytes: &[u8],
        now: Now,
        ctx: &SessionContext<'_>,
        out: &mut Vec<AdmissionOutput>,
    ) -> Result<(), Refusal> {
        let message = AdmissionMessage::decode(bytes, ADMISSION_MESSAGE_BYTES_MAX)?;
        let AdmissionMessage::Member {
            knows_you: knows_us,
        } = message
        else {
            return Err(refused_by(message));
        };
        if !knows_us {
            show(ctx.membership, &self.dialler.us, out);
        }
        self.phase = if is_member(ctx.membership, &self.dialler.peer, now.wall) {
            Presenting::Shown
        } else {
            Presenting::Watching(Received::new(ADMISSION_SHOWN_BYTES_MAX))
        };
        self.wait(now);
        Ok(())
    }

    fn watch(
        &mut self,
        bytes: &[u8],
        mut received: Received,
        now: Now,
        ctx: &SessionContext<'_>,
        out: &mut Vec<AdmissionOutput>,
    ) -> Result<(), Refusal> {
        let message = AdmissionMessage::decode(bytes, ADMISSION_MESSAGE_BYTES_MAX)?;
        let AdmissionMessage::Shown(batch) = message else {
            return Err(refused_by(message));
        };
        if !received.take(&batch)? {
            self.phase = Presenting::Watching(received);
            self.wait(now);
            return Ok(());
        }
        recognise(
            ctx.membership,
            &self.dialler.peer,
            &received.statements,
            now.wall,
        )?;
        send(out, &AdmissionMessage::Done);
        self.finish(received.statements, out);
        Ok(())
    }

    fn finish(&mut self, statements: Vec<Verified<Statement>>, out: &mut Vec<AdmissionOutput>) {
        out.push(AdmissionOutput::Recognised {
            member: self.dialler.peer,
            statements,
        });
        out.push(AdmissionOutput::Close);
        self.end();
    }

    fn wait(&mut self, now: Now) {
        self.deadline = Some((now.mono + TRANSFER_MAX, AdmissionDeadline::Transfer));
    }

    fn end(&mut self) {
        self.phase = Presenting::Ended;
        self.deadline = None;
    }
}

impl fmt::Debug for Presenter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = match &self.phase {
            Presenting::Greeting => "greeting",
            Presenting::Proving(_) => "proving",
            Presenting::Asking => "asking",
            Presenting::Shown => "shown",
            Presenting::Watching(_) => "watching",
            Presenting::Ended => "ended",
        };
        write!(f, "Presenter(to {}, {phase})", self.dialler.peer.short())
    }
}

/// The listener: a member who lets others prove themselves, and admits them if it may.
pub struct Sponsor {
    us: MemberId,
    peer: MemberId,
    loopback: bool,
    since: Mono,
    phase: Sponsoring,
    deadline: Option<(Mono, AdmissionDeadline)>,
}

enum Sponsoring {
    Greeting,
    Proving {
        commitment: [u8; 32],
        nonce: [u8; 32],
    },
    Proven {
        transcript: Transcript,
        challenge: [u8; 32],
    },
    Asking(Box<JoinMessage>),
    Watching {
        received: Received,
        knows_us: bool,
    },
    /// All is sent; the peer says when it has it.
    Parting,
    Ended,
}

/// What one input needs besides the machine itself.
struct Turn<'t, 'c> {
    now: Now,
    entropy: &'t mut Entropy,
    ctx: &'t mut SessionContext<'c>,
    out: &'t mut Vec<AdmissionOutput>,
}

impl Turn<'_, '_> {
    fn send(&mut self, message: &AdmissionMessage) {
        send(self.out, message);
    }
}

impl Sponsor {
    /// Starts when `peer` opens an admission stream on its connection; `loopback` says that it is on this
    /// machine.
    pub fn new(us: MemberId, peer: MemberId, loopback: bool, now: Now) -> Self {
        let deadline = Some((now.mono + UNPROVEN_MAX, AdmissionDeadline::Unproven));
        let (since, phase) = (now.mono, Sponsoring::Greeting);
        Self {
            us,
            peer,
            loopback,
            since,
            phase,
            deadline,
        }
    }

    /// The peer that opened the stream.
    pub fn peer(&self) -> MemberId {
        self.peer
    }

    /// Whether a person here is asked about the peer.
    pub fn is_asking(&self) -> bool {
        matches!(self.phase, Sponsoring::Asking(_))
    }

    /// When to feed a tick at the latest, and why.
    pub fn deadline(&self) -> Option<(Mono, AdmissionDeadline)> {
        self.deadline
    }

    /// Takes one input. An [`AdmissionOutput::Admit`] has been written to `ctx.writer` already.
    pub fn handle(
        &mut self,
        input: AdmissionInput,
        now: Now,
        entropy: &mut Entropy,
        ctx: &mut SessionContext<'_>,
        out: &mut Vec<AdmissionOutput>,
    ) {
        if matches!(self.phase, Sponsoring::Ended) {
            return;
        }
        let (asking, before) = (self.is_asking(), out.len());
        let mut turn = Turn {
            now,
            entropy,
            ctx,
            out,
        };
        let step = match input {
            AdmissionInput::Opened => Ok(()),
            AdmissionInput::Received(bytes) => self.receive(&bytes, &mut turn),
            AdmissionInput::Decided { approve } => self.decide(approve, &mut turn),
            AdmissionInput::Tick => self.check_time(now),
            AdmissionInput::Closed => Err(Refusal::Silent),
        };
        if asking && (step.is_err() || !self.is_asking()) {
            turn.ctx.limits.stop_waiting(&self.peer);
            turn.out
                .insert(before, AdmissionOutput::Withdraw(self.peer));
        }
        if let Err(refusal) = step {
            self.part(refusal, turn.out);
        }
    }

    /// Ends in failure. Once all was sent nothing can fail any more: the peer is merely gone.
    fn part(&mut self, refusal: Refusal, out: &mut Vec<AdmissionOutput>) {
        if !matches!(self.phase, Sponsoring::Parting) {
            out.extend(
                refusal
                    .to_message()
                    .map(|message| AdmissionOutput::Send(message.encode())),
            );
            out.push(AdmissionOutput::Refused(refusal));
        }
        self.close(out);
    }

    fn close(&mut self, out: &mut Vec<AdmissionOutput>) {
        out.push(AdmissionOutput::Close);
        self.phase = Sponsoring::Ended;
        self.deadline = None;
    }

    fn check_time(&self, now: Now) -> Result<(), Refusal> {
        match self.deadline {
            Some((at, AdmissionDeadline::Approval)) if now.mono >= at => {
                Err(Refusal::ApprovalTimeout)
            }
            Some((at, AdmissionDeadline::Unproven | AdmissionDeadline::Transfer))
                if now.mono >= at =>
            {
                Err(Refusal::Silent)
            }
            Some(_) | None => Ok(()),
        }
    }

    fn receive(&mut self, bytes: &[u8], turn: &mut Turn<'_, '_>) -> Result<(), Refusal> {
        match std::mem::replace(&mut self.phase, Sponsoring::Ended) {
            Sponsoring::Greeting => self.greet(bytes, turn),
            Sponsoring::Proving { commitment, nonce } => self.prove(bytes, commitment, nonce, turn),
            Sponsoring::Proven {
                transcript,
                challenge,
            } => match AdmissionMessage::decode(bytes, ADMISSION_MESSAGE_BYTES_MAX)? {
                AdmissionMessage::Join(join) => self.join(join, transcript, challenge, turn),
                AdmissionMessage::Member { knows_you } => self.meet(knows_you, turn),
                other => Err(refused_by(other)),
            },
            Sponsoring::Asking(_) => Err(OUT_OF_TURN),
            Sponsoring::Watching { received, knows_us } => {
                self.watch(bytes, received, knows_us, turn)
            }
            Sponsoring::Parting => {
                self.close(turn.out);
                Ok(())
            }
            Sponsoring::Ended => Ok(()),
        }
    }

    fn greet(&mut self, bytes: &[u8], turn: &mut Turn<'_, '_>) -> Result<(), Refusal> {
        let greeting = AdmissionMessage::decode_hello(bytes);
        let nonce = turn.entropy.bytes();
        if matches!(greeting, Ok(_) | Err(Refusal::VersionMismatch { .. })) {
            turn.send(&AdmissionMessage::Hello {
                version: ADMISSION_VERSION,
                token: nonce,
            });
        }
        self.phase = Sponsoring::Proving {
            commitment: greeting?,
            nonce,
        };
        Ok(())
    }

    fn prove(
        &mut self,
        bytes: &[u8],
        committed: [u8; 32],
        listener_nonce: [u8; 32],
        turn: &mut Turn<'_, '_>,
    ) -> Result<(), Refusal> {
        let message = AdmissionMessage::decode(bytes, ADMISSION_GREETING_BYTES_MAX)?;
        let AdmissionMessage::Proof { nonce, mac } = message else {
            return Err(refused_by(message));
        };
        let transcript = Transcript {
            dialler: self.peer,
            listener: self.us,
            dialler_nonce: nonce,
            listener_nonce,
        };
        let key = turn.ctx.discovery_key;
        if commitment(&nonce) != committed || !transcript.proves(key, Side::Dialler, &mac) {
            return Err(Refusal::WrongSession);
        }
        let challenge = turn.entropy.bytes();
        let mac = transcript.mac(key, Side::Listener);
        turn.send(&AdmissionMessage::Answer { mac, challenge });
        self.phase = Sponsoring::Proven {
            transcript,
            challenge,
        };
        Ok(())
    }

    fn wait(&mut self, until: Mono, why: AdmissionDeadline) {
        self.deadline = Some((until, why));
    }
}

/// The peer holds an invitation.
impl Sponsor {
    fn join(
        &mut self,
        message: Box<JoinMessage>,
        transcript: Transcript,
        challenge: [u8; 32],
        turn: &mut Turn<'_, '_>,
    ) -> Result<(), Refusal> {
        self.check_join(&message, challenge, turn)?;
        if is_member(turn.ctx.membership, &self.peer, turn.now.wall) {
            self.welcome(None, turn);
            return Ok(());
        }
        let (hash, grant) = self.admissible(&message, turn)?;
        if !grant.ask {
            return self.admit(&message, hash, &grant, turn);
        }
        let until = turn.now.mono + APPROVAL_MAX;
        if !turn
            .ctx
            .limits
            .start_waiting(self.peer, until, turn.now.mono)
        {
            return Err(Refusal::LimitExceeded);
        }
        turn.send(&AdmissionMessage::Waiting);
        let question = question(&message, hash, &grant, &transcript, until);
        turn.out
            .push(AdmissionOutput::AskPerson(Box::new(question)));
        self.phase = Sponsoring::Asking(message);
        self.wait(until, AdmissionDeadline::Approval);
        Ok(())
    }

    /// What holds of a Join whatever the membership says: it is for us, now, by this peer.
    fn check_join(
        &self,
        message: &JoinMessage,
        challenge: [u8; 32],
        turn: &Turn<'_, '_>,
    ) -> Result<(), Refusal> {
        let request = &message.join.request;
        if request.session != turn.ctx.membership.session() {
            return Err(Refusal::WrongSession);
        }
        if request.challenge != challenge || request.sponsor != self.us {
            return Err(Refusal::Denied("the Join was made for another admission"));
        }
        if request.member != self.peer {
            return Err(Refusal::Denied("the Join was made by another key"));
        }
        if message.chain.len() > GRANT_CHAIN_MAX {
            return Err(Refusal::Denied("the chain of grants is too long"));
        }
        message
            .join
            .verify()
            .map_err(|_| Refusal::Denied("the Join is not signed as it must be"))
    }

    /// The Grant in the log by which the newcomer may come, and the one that its invitation has in the end.
    fn admissible(
        &self,
        message: &JoinMessage,
        turn: &Turn<'_, '_>,
    ) -> Result<(Hash, Grant), Refusal> {
        let membership = turn.ctx.membership;
        let mut refusal = Refusal::NotSponsor { hints: Vec::new() };
        for hash in candidates(membership, message) {
            let (join, chain) = (&message.join, &message.chain);
            match membership.admissible(&self.us, join, &hash, chain, turn.now.wall) {
                Ok(grant) if self.can_sponsor(&grant, turn.ctx) => return Ok((hash, grant)),
                Ok(grant) => {
                    refusal = Refusal::NotSponsor {
                        hints: self.hints(&grant, turn.ctx),
                    };
                }
                Err(reason) => refusal = self.refusal(reason, &hash, turn.ctx),
            }
        }
        Err(refusal)
    }

    /// Whether this node can write, and ask where it must.
    fn can_sponsor(&self, grant: &Grant, ctx: &SessionContext<'_>) -> bool {
        let may_decide = !grant.ask || ctx.membership.may(&self.us, &Action::Approve);
        ctx.writer.is_some() && may_decide
    }

    fn refusal(&self, reason: Reason, grant: &Hash, ctx: &SessionContext<'_>) -> Refusal {
        match reason {
            Reason::NotASponsor => {
                let fact = ctx.membership.grant_by_hash(grant);
                let hints = fact
                    .map(|fact| self.hints(fact.grant, ctx))
                    .unwrap_or_default();
                Refusal::NotSponsor { hints }
            }
            other => denial(other),
        }
    }

    /// Members seen of late who could admit by this grant.
    fn hints(&self, grant: &Grant, ctx: &SessionContext<'_>) -> Vec<SponsorHint> {
        let able = |hint: &&SponsorHint| {
            hint.member != self.us && may_sponsor(ctx.membership, &hint.member, grant)
        };
        let cut = |hint: &SponsorHint| {
            let fits = |address: &&String| address.len() <= ADDRESS_BYTES_MAX;
            let addresses = hint
                .addresses
                .iter()
                .filter(fits)
                .take(SPONSOR_HINT_ADDRESSES_MAX);
            SponsorHint {
                member: hint.member,
                addresses: addresses.cloned().collect(),
            }
        };
        ctx.hints
            .iter()
            .filter(able)
            .take(SPONSOR_HINTS_MAX)
            .map(cut)
            .collect()
    }

    /// A person decided. Everything is checked anew: the invitation may have ended while the person thought.
    fn decide(&mut self, approve: bool, turn: &mut Turn<'_, '_>) -> Result<(), Refusal> {
        match std::mem::replace(&mut self.phase, Sponsoring::Ended) {
            Sponsoring::Asking(_) if !approve => Err(Refusal::Denied("a person said no")),
            Sponsoring::Asking(message) => {
                let (hash, grant) = self.admissible(&message, turn)?;
                self.admit(&message, hash, &grant, turn)
            }
            other => {
                self.phase = other;
                Ok(())
            }
        }
    }

    fn admit(
        &mut self,
        message: &JoinMessage,
        hash: Hash,
        grant: &Grant,
        turn: &mut Turn<'_, '_>,
    ) -> Result<(), Refusal> {
        let Turn {
            now, entropy, ctx, ..
        } = turn;
        let present = ctx
            .membership
            .members()
            .filter(|member| member.standing.is_some())
            .count();
        let fits = present < MEMBERS_MAX;
        if !fits || !ctx.limits.admit(&hash, self.loopback, now.mono) {
            return Err(Refusal::LimitExceeded);
        }
        let Some(writer) = ctx.writer.as_deref_mut() else {
            return Err(Refusal::NotSponsor { hints: Vec::new() });
        };
        let principal = principal(ctx.membership, message, &hash, grant);
        let position = Position {
            after: writer.frontier(),
            at: now.wall,
        };
        let admit = make_admit(
            ctx.membership,
            writer.key(),
            position,
            hash,
            message.chain.clone(),
            message.join.clone(),
            principal,
            ctx.keyring,
            entropy,
        )
        .map_err(|error| failed(&error))?;
        let entry = writer
            .push(admit.clone())
            .map_err(|_| Refusal::Denied("the sponsor's log cannot take the admission"))?;
        turn.out.push(AdmissionOutput::Admit(entry));
        self.welcome(Some(&admit), turn);
        Ok(())
    }

    /// Sends the membership, with an Admit that is not yet in it at the end.
    fn welcome(&mut self, admit: Option<&Verified<Statement>>, turn: &mut Turn<'_, '_>) {
        let all = turn.ctx.membership.all();
        for batch in batches(all.into_iter().chain(admit)) {
            turn.send(&AdmissionMessage::Welcome(batch));
        }
        self.part_in_peace(turn.now);
    }

    fn part_in_peace(&mut self, now: Now) {
        self.phase = Sponsoring::Parting;
        self.wait(now.mono + PARTING_MAX, AdmissionDeadline::Transfer);
    }
}

/// The peer says that it is a member.
impl Sponsor {
    fn meet(&mut self, knows_us: bool, turn: &mut Turn<'_, '_>) -> Result<(), Refusal> {
        let knows_you = is_member(turn.ctx.membership, &self.peer, turn.now.wall);
        turn.send(&AdmissionMessage::Member { knows_you });
        if knows_you {
            self.recognised(knows_us, Vec::new(), turn);
        } else {
            let received = Received::new(ADMISSION_SHOWN_BYTES_MAX);
            self.phase = Sponsoring::Watching { received, knows_us };
            self.wait_for_more(turn.now);
        }
        Ok(())
    }

    fn watch(
        &mut self,
        bytes: &[u8],
        mut received: Received,
        knows_us: bool,
        turn: &mut Turn<'_, '_>,
    ) -> Result<(), Refusal> {
        let message = AdmissionMessage::decode(bytes, ADMISSION_MESSAGE_BYTES_MAX)?;
        let AdmissionMessage::Shown(batch) = message else {
            return Err(refused_by(message));
        };
        if !received.take(&batch)? {
            self.phase = Sponsoring::Watching { received, knows_us };
            self.wait_for_more(turn.now);
            return Ok(());
        }
        recognise(
            turn.ctx.membership,
            &self.peer,
            &received.statements,
            turn.now.wall,
        )?;
        self.recognised(knows_us, received.statements, turn);
        Ok(())
    }

    /// The peer is a member; now it is our turn to be known.
    fn recognised(
        &mut self,
        knows_us: bool,
        statements: Vec<Verified<Statement>>,
        turn: &mut Turn<'_, '_>,
    ) {
        turn.out.push(AdmissionOutput::Recognised {
            member: self.peer,
            statements,
        });
        if knows_us {
            turn.send(&AdmissionMessage::Done);
        } else {
            show(turn.ctx.membership, &self.us, turn.out);
        }
        self.part_in_peace(turn.now);
    }

    fn wait_for_more(&mut self, now: Now) {
        let until = (now.mono + TRANSFER_MAX).min(self.since + SHOWING_MAX);
        self.wait(until, AdmissionDeadline::Transfer);
    }
}

impl fmt::Debug for Sponsor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = match &self.phase {
            Sponsoring::Greeting => "greeting",
            Sponsoring::Proving { .. } => "proving",
            Sponsoring::Proven { .. } => "proven",
            Sponsoring::Asking(_) => "asking",
            Sponsoring::Watching { .. } => "watching",
            Sponsoring::Parting => "parting",
            Sponsoring::Ended => "ended",
        };
        write!(f, "Sponsor(for {}, {phase})", self.peer.short())
    }
}

/// What all sponsors of one node share: who waits for a person, and how many came by each ticket of late.
#[derive(Debug, Default)]
pub struct SponsorLimits {
    waiting: BTreeMap<MemberId, Mono>,
    recent: BTreeMap<Hash, VecDeque<Mono>>,
}

impl SponsorLimits {
    /// Peers about whom a person is asked.
    pub fn waiting(&self) -> impl Iterator<Item = &MemberId> {
        self.waiting.keys()
    }

    /// Whether one more may wait; each peer once.
    fn start_waiting(&mut self, peer: MemberId, until: Mono, now: Mono) -> bool {
        self.waiting.retain(|_, until| *until > now);
        if self.waiting.len() >= APPROVALS_WAITING_MAX || self.waiting.contains_key(&peer) {
            return false;
        }
        self.waiting.insert(peer, until);
        true
    }

    fn stop_waiting(&mut self, peer: &MemberId) {
        self.waiting.remove(peer);
    }

    /// Counts an admission by this grant, unless this minute has had enough. Peers on this machine are neither
    /// counted nor refused.
    fn admit(&mut self, grant: &Hash, loopback: bool, now: Mono) -> bool {
        if loopback {
            return true;
        }
        self.recent.retain(|_, times| {
            times.retain(|time| now.since(*time) < Duration::from_secs(60));
            !times.is_empty()
        });
        let times = self.recent.entry(*grant).or_default();
        if times.len() >= ADMITS_PER_MINUTE_MAX {
            return false;
        }
        times.push_back(now);
        true
    }
}

/// The grants in the log from which this invitation may come.
fn candidates(membership: &Membership, message: &JoinMessage) -> Vec<Hash> {
    let by = message.join.request.by;
    match (message.chain.first(), by) {
        (Some(link), _) => {
            let link = SignedStatement::decode(link).ok();
            link.and_then(|link| link.standing).into_iter().collect()
        }
        (None, Grantee::Invite(invite)) => membership
            .grants_of(&invite)
            .map(|fact| fact.hash)
            .collect(),
        (None, Grantee::Member(_)) => {
            let promised = membership.grants().filter(|fact| fact.grant.to == by);
            promised.map(|fact| fact.hash).collect()
        }
    }
}

/// Whether this member could admit by the grant, uses and expiry aside.
fn may_sponsor(membership: &Membership, member: &MemberId, grant: &Grant) -> bool {
    let named = match &grant.sponsors {
        Sponsors::Any => true,
        Sponsors::UpTo(rank) => membership
            .standing(member)
            .is_some_and(|standing| standing.rank <= *rank),
        Sponsors::These(list) => list.iter().any(|entry| entry.member == *member),
    };
    let decides = !grant.ask || membership.may(member, &Action::Approve);
    named && decides && membership.may(member, &Action::Admit { rank: grant.rank })
}

/// The person for whom an agent stands: who issued its invitation, if that is a person and present.
fn principal(
    membership: &Membership,
    message: &JoinMessage,
    hash: &Hash,
    grant: &Grant,
) -> Option<MemberId> {
    let fact = membership.grant_by_hash(hash)?;
    let is_agent = message.join.request.kind == Kind::Agent || grant.role == Role::Agent;
    let issuer = membership.standing(&fact.issuer)?;
    let is_person = issuer.kind == Kind::Human && issuer.principal.is_none();
    (is_agent && is_person).then_some(fact.issuer)
}

fn question(
    message: &JoinMessage,
    hash: Hash,
    grant: &Grant,
    transcript: &Transcript,
    until: Mono,
) -> Question {
    let request = &message.join.request;
    Question {
        member: request.member,
        name: request.name.clone(),
        kind: request.kind,
        person: request.person.clone(),
        grant: hash,
        role: grant.role,
        rank: grant.rank,
        capabilities: grant.capabilities,
        authentication: transcript.authentication(),
        until,
    }
}

/// Whether others talk to this member: it has a standing whose time is not over.
fn is_member(membership: &Membership, member: &MemberId, at: Wall) -> bool {
    let standing = membership.standing(member);
    standing.is_some_and(|standing| standing.until.is_none_or(|until| at <= until))
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

fn failed(error: &MembershipError) -> Refusal {
    match error {
        MembershipError::Void(reason) => denial(*reason),
        MembershipError::Epoch(_) => Refusal::Denied("no secret can be wrapped to the key given"),
        MembershipError::NoGenesis(_) | MembershipError::Statement(_) => {
            Refusal::Denied("the admission cannot be written")
        }
    }
}

/// What a newcomer is told when the membership says no.
fn denial(reason: Reason) -> Refusal {
    match reason {
        Reason::Expired => Refusal::TicketExpired,
        Reason::UsedUp => Refusal::TicketUsedUp,
        Reason::OtherSession => Refusal::WrongSession,
        Reason::NotASponsor | Reason::NoStanding | Reason::UnknownGrant => {
            Refusal::NotSponsor { hints: Vec::new() }
        }
        Reason::BadJoin => Refusal::Denied("the Join does not fit its invitation"),
        Reason::BrokenChain | Reason::Widened | Reason::RankAboveRole | Reason::LooseGrant => {
            Refusal::Denied("the chain of grants does not hold")
        }
        Reason::WrongAudience => Refusal::Denied("the invitation is for another person"),
        Reason::WrongKind | Reason::NoPrincipal => {
            Refusal::Denied("the invitation does not fit a person, or a program")
        }
        Reason::AuthorLeft
        | Reason::PrincipalGone
        | Reason::NotForRoot
        | Reason::NotPermitted
        | Reason::EpochOutOfOrder => Refusal::Denied("the sponsor cannot admit"),
    }
}

/// All epoch secrets that this member can open from the statements.
fn open_epochs(membership: &Membership, us: &MemberId, key: &AgreementKey) -> Keyring {
    let mut keyring = Keyring::default();
    keyring.open_wraps(&membership.session(), us, key, membership.wraps());
    keyring.open_previous(&membership.session(), &membership.previous_wraps());
    keyring
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::membership::{NewSession, make_grant};
    use crate::engine::statement::{Frontier, Genesis, sign_sub_grant};

    const DISCOVERY: [u8; 32] = [42; 32];
    const SEED: [u8; 32] = [77; 32];

    #[test]
    fn a_newcomer_with_a_ticket_becomes_a_member() {
        let mut host = owner();
        invite(&mut host, viewers());

        let run = admit(&mut host, joiner(10), 10);

        let joined = run.joined();
        assert_eq!(joined.membership.heads(), host.membership.heads());
        assert_eq!(joined.sponsor, host.id());
        let member = host.membership.member(&member(10).id()).unwrap();
        assert_eq!(
            (member.name.as_str(), member.admitted_by),
            ("guest 10", host.id())
        );
        assert_eq!(member.standing.unwrap().role, Role::Viewer);
        assert_eq!(run.listener_ends(), ["admit", "close"]);
        assert_eq!(run.dialler_ends(), ["joined", "close"]);
    }

    #[test]
    fn a_newcomer_holds_the_secrets_of_the_epochs() {
        let mut host = owner();
        invite(&mut host, viewers());

        let joined = admit(&mut host, joiner(10), 10).joined();

        let epoch = host.membership.current_epoch().unwrap().epoch.id;
        assert_eq!(
            joined.keyring.presence_key(&epoch).unwrap(),
            host.keyring.presence_key(&epoch).unwrap()
        );
        assert_eq!(
            joined.keyring.epochs().count(),
            host.keyring.epochs().count()
        );
    }

    #[test]
    fn the_admission_continues_the_sponsors_log() {
        let mut host = owner();
        invite(&mut host, viewers());
        let before = host.writer.frontier();

        let run = admit(&mut host, joiner(10), 10);

        let entry = run.admission();
        assert_eq!((entry.prev(), entry.seq()), (before.hash, before.seq + 1));
        assert_eq!(host.writer.frontier(), entry.frontier());
    }

    #[test]
    fn any_member_may_sponsor_while_the_owner_is_away() {
        let mut host = owner();
        invite(&mut host, viewers());
        let joined = admit(&mut host, joiner(10), 10).joined();
        let mut guest = Node::of(10, joined);

        let second = admit(&mut guest, joiner(11), 11);

        assert_eq!(second.joined().sponsor, guest.id());
        let host_takes = host.membership.insert(second.statement());
        assert!(matches!(
            host_takes,
            crate::engine::membership::Inserted::New(_)
        ));
        assert!(host.membership.standing(&member(11).id()).is_some());
    }

    #[test]
    fn a_sub_invitation_works_through_the_chain_in_its_ticket() {
        let mut host = owner();
        let wide = invite(
            &mut host,
            Grant {
                sub_depth: 1,
                ..grant(Role::Editor)
            },
        );
        let narrow = InviteKey::from_seed(&[78; 32]);
        let sub = Grant {
            to: Grantee::Invite(narrow.id()),
            ..grant(Role::Viewer)
        };
        let session = host.membership.session();
        let link =
            sign_sub_grant(&InviteKey::from_seed(&SEED), session, wide, Wall(1), sub).unwrap();
        let settings = JoinerSettings {
            invite: Some(narrow),
            chain: vec![link.bytes().to_vec()],
            ..settings(&host, 10)
        };

        let run = admit(&mut host, Make::With(settings), 10);

        let standing = run.joined().membership.standing(&member(10).id()).unwrap();
        assert_eq!(standing.role, Role::Viewer);
    }

    #[test]
    fn whoever_lacks_the_ticket_gets_a_greeting_and_no_more() {
        let mut host = owner();
        invite(&mut host, viewers());
        let stranger = JoinerSettings {
            discovery_key: [1; 32],
            ..settings(&host, 10)
        };

        let run = admit(&mut host, Make::With(stranger), 10);

        let said: Vec<_> = run.from_listener.iter().map(|bytes| read(bytes)).collect();
        assert!(matches!(said[0], AdmissionMessage::Hello { .. }));
        assert_eq!(
            said[1..],
            [AdmissionMessage::Refused(RefusalCode::WrongSession)]
        );
        assert_eq!(run.refusal(), Refusal::WrongSession);
        assert_eq!(run.listener_ends(), ["refused", "close"]);
    }

    #[test]
    fn a_listener_of_another_session_learns_nothing_that_names_ours() {
        let mut host = owner();
        invite(&mut host, viewers());
        host.discovery_key = [1; 32];

        let run = admit(&mut host, joiner(10), 10);

        assert_eq!(run.from_dialler.len(), 2);
        assert_eq!(run.from_dialler[1].len(), 1 + 32 + 32);
        let settings = settings(&host, 10);
        let secrets = [
            settings.session.0,
            DISCOVERY,
            settings.invite.unwrap().id().0,
        ];
        assert!(
            run.from_dialler
                .iter()
                .all(|bytes| secrets.iter().all(|s| !holds(bytes, s)))
        );
    }

    #[test]
    fn a_listener_that_cannot_prove_the_session_sees_no_join() {
        let host = owner();
        let mut entropy = Entropy::new([3; 32]);
        let mut guest = Joiner::new(settings(&host, 10), host.id(), now(0), &mut entropy);
        let mut out = Vec::new();
        let hello = AdmissionMessage::Hello {
            version: ADMISSION_VERSION,
            token: [1; 32],
        };
        let answer = AdmissionMessage::Answer {
            mac: Hash([2; 32]),
            challenge: [3; 32],
        };

        guest.handle(AdmissionInput::Opened, now(0), &mut out);
        guest.handle(AdmissionInput::Received(hello.encode()), now(0), &mut out);
        out.clear();
        guest.handle(AdmissionInput::Received(answer.encode()), now(0), &mut out);

        assert_eq!(names(&out), ["refused", "close"]);
    }

    #[test]
    fn nothing_but_a_greeting_is_answered_first() {
        let mut host = owner();
        let others = [
            AdmissionMessage::Proof {
                nonce: [0; 32],
                mac: Hash([0; 32]),
            },
            AdmissionMessage::Member { knows_you: true },
            AdmissionMessage::Done,
            AdmissionMessage::Waiting,
        ];

        for message in others {
            let mut sponsor = Sponsor::new(host.id(), member(10).id(), false, now(0));
            let out = host.feed(&mut sponsor, AdmissionInput::Received(message.encode()), 0);
            assert_eq!(names(&out), ["refused", "close"]);
        }
    }

    #[test]
    fn peers_of_different_versions_tell_each_other_and_part() {
        let mut host = owner();
        let theirs = AdmissionMessage::Hello {
            version: 2,
            token: [0; 32],
        };
        let mismatch = Refusal::VersionMismatch { ours: 1, theirs: 2 };
        let later = [theirs.encode(), vec![9; 900]].concat();
        let mut sponsor = Sponsor::new(host.id(), member(10).id(), false, now(0));
        let mut entropy = Entropy::new([3; 32]);
        let mut guest = Joiner::new(settings(&host, 10), host.id(), now(0), &mut entropy);

        let answer = host.feed(&mut sponsor, AdmissionInput::Received(later.clone()), 0);
        let mut out = Vec::new();
        guest.handle(AdmissionInput::Received(later), now(0), &mut out);

        assert_eq!(names(&answer), ["send", "refused", "close"]);
        assert_eq!(refusal(&answer), mismatch);
        assert_eq!(refusal(&out), mismatch);
        assert_eq!(mismatch.code(), "version-mismatch");
    }

    #[test]
    fn a_replayed_join_is_refused() {
        let mut host = owner();
        invite(&mut host, viewers());
        let (_, join) = signed_join(&mut host, 10);

        let (mut sponsor, _) = proven(&mut host, 10);
        let out = host.feed(&mut sponsor, AdmissionInput::Received(join), 0);

        assert_eq!(refusal(&out).code(), "admission-refused");
        assert!(host.membership.member(&member(10).id()).is_none());
    }

    #[test]
    fn an_altered_join_admits_nobody() {
        let mut host = owner();
        invite(&mut host, viewers());
        let length = signed_join(&mut host, 10).1.len();

        for place in 0..length {
            let (mut sponsor, mut join) = signed_join(&mut host, 10);
            join[place] ^= 1;
            let out = host.feed(&mut sponsor, AdmissionInput::Received(join), 0);
            assert!(names(&out).contains(&"refused"), "byte {place}");
            assert!(!names(&out).contains(&"admit"), "byte {place}");
        }
    }

    #[test]
    fn a_join_for_another_session_is_refused() {
        let mut host = owner();
        invite(&mut host, viewers());
        let foreign = JoinerSettings {
            session: SessionId([5; 32]),
            ..settings(&host, 10)
        };

        let run = admit(&mut host, Make::With(foreign), 10);

        assert_eq!(run.refusal(), Refusal::WrongSession);
        assert_eq!(run.refusal().code(), "wrong-session");
    }

    #[test]
    fn a_newcomer_does_not_believe_the_membership_of_another_session() {
        let (mut host, other) = (owner(), Node::owner(2));
        invite(&mut host, viewers());
        let mut guest = asked(&host);
        let all = other.membership.all();

        let batch = batches(all.iter().copied()).remove(0);
        let mut out = Vec::new();
        let welcome = AdmissionMessage::Welcome(batch);
        guest.handle(AdmissionInput::Received(welcome.encode()), now(0), &mut out);

        assert_eq!(refusal(&out), Refusal::WrongSession);
    }

    #[test]
    fn a_welcome_that_leaves_the_newcomer_out_is_not_believed() {
        let mut host = owner();
        invite(&mut host, viewers());
        let mut guest = asked(&host);

        let batch = batches(host.membership.all()).remove(0);
        let mut out = Vec::new();
        let welcome = AdmissionMessage::Welcome(batch);
        guest.handle(AdmissionInput::Received(welcome.encode()), now(0), &mut out);

        assert!(matches!(refusal(&out), Refusal::Misbehaved(_)));
    }

    #[test]
    fn a_stolen_join_serves_no_other_key() {
        let mut host = owner();
        invite(&mut host, viewers());
        let (mut thief_sees, challenge) = proven(&mut host, 11);
        let stolen = join_message(&host, 10, challenge);

        let out = host.feed(
            &mut thief_sees,
            AdmissionInput::Received(stolen.encode()),
            0,
        );

        assert_eq!(refusal(&out).code(), "admission-refused");
        assert!(!names(&out).contains(&"admit"));
    }

    #[test]
    fn a_join_made_for_one_sponsor_serves_no_other() {
        let mut host = owner();
        invite(&mut host, viewers());
        let (mut sponsor, challenge) = proven(&mut host, 10);
        let mut settings = settings(&host, 10);
        settings.name = "for another".into();
        let elsewhere = Joiner::new(settings, member(9).id(), now(0), &mut Entropy::new([1; 32]));

        let join = elsewhere.join(challenge).unwrap();
        let out = host.feed(&mut sponsor, AdmissionInput::Received(join.encode()), 0);

        assert_eq!(refusal(&out).code(), "admission-refused");
    }

    #[test]
    fn joining_ends_when_the_ticket_expires_by_the_sponsors_clock() {
        let mut host = owner();
        let end = Wall(now(7_000).wall.0);
        invite(
            &mut host,
            Grant {
                not_after: Some(end),
                ..grant(Role::Viewer)
            },
        );

        let (late, in_time) = (
            admit_at(&mut host, 10, 7_001),
            admit_at(&mut host, 11, 7_000),
        );

        assert_eq!(late.refusal(), Refusal::TicketExpired);
        assert_eq!(late.refusal().code(), "ticket-expired");
        in_time.joined();
    }

    #[test]
    fn a_ticket_admits_no_more_than_its_uses() {
        let mut host = owner();
        invite(
            &mut host,
            Grant {
                max_uses: Some(1),
                ..grant(Role::Viewer)
            },
        );
        admit(&mut host, joiner(10), 10).joined();

        let second = admit(&mut host, joiner(11), 11);

        assert_eq!(second.refusal(), Refusal::TicketUsedUp);
        assert_eq!(second.refusal().code(), "ticket-used-up");
    }

    #[test]
    fn a_member_without_admit_names_those_who_have_it() {
        let mut host = owner();
        invite(&mut host, grant(Role::Agent));
        let joined = admit(&mut host, joiner(10), 10).joined();
        let mut agent = Node::of(10, joined);
        let hint = |member| SponsorHint {
            member,
            addresses: vec!["/ip4/10.0.0.1".into(); 20],
        };
        agent.hints = vec![hint(agent.id()), hint(host.id()), hint(member(99).id())];

        let run = admit(&mut agent, joiner(11), 11);

        let Refusal::NotSponsor { hints } = run.refusal() else {
            panic!("it sponsored")
        };
        assert_eq!(hints.len(), 1);
        assert_eq!((hints[0].member, hints[0].addresses.len()), (host.id(), 8));
    }

    #[test]
    fn a_node_that_must_not_write_sponsors_nobody() {
        let mut host = owner();
        invite(&mut host, viewers());
        host.writes = false;

        let run = admit(&mut host, joiner(10), 10);

        assert!(matches!(run.refusal(), Refusal::NotSponsor { .. }));
    }

    #[test]
    fn a_junior_may_not_sponsor_a_senior() {
        let mut host = owner();
        invite(&mut host, viewers());
        let mut guest = Node::of(10, admit(&mut host, joiner(10), 10).joined());
        let editors = InviteKey::from_seed(&[79; 32]);
        let grant = Grant {
            to: Grantee::Invite(editors.id()),
            ..grant(Role::Editor)
        };
        let statement = invite_statement(&mut host, grant);
        guest.membership.insert(statement);
        let settings = JoinerSettings {
            invite: Some(editors),
            ..settings(&guest, 11)
        };

        let run = admit(&mut guest, Make::With(settings), 11);

        assert!(matches!(run.refusal(), Refusal::NotSponsor { .. }));
    }

    #[test]
    fn a_person_who_approves_lets_the_newcomer_in() {
        let mut host = owner();
        invite(&mut host, asking());

        let run = admit(&mut host, Make::Answered(10, true), 10);

        let question = run.question();
        assert_eq!(
            (question.member, question.name.as_str()),
            (member(10).id(), "guest 10")
        );
        assert_eq!(question.role, Role::Editor);
        assert_eq!(run.dialler_ends(), ["waits", "joined", "close"]);
        assert_eq!(run.listener_ends(), ["ask", "withdraw", "admit", "close"]);
        assert_eq!(run.joined().authentication, question.authentication);
    }

    #[test]
    fn a_person_who_denies_keeps_the_newcomer_out() {
        let mut host = owner();
        invite(&mut host, asking());

        let run = admit(&mut host, Make::Answered(10, false), 10);

        assert_eq!(run.refusal().code(), "admission-refused");
        assert_eq!(run.listener_ends(), ["ask", "withdraw", "refused", "close"]);
        assert!(host.membership.member(&member(10).id()).is_none());
    }

    #[test]
    fn a_question_lapses_after_two_minutes() {
        let mut host = owner();
        invite(&mut host, asking());
        let mut pair = Pair::new(&mut host, joiner(10), 10, 0);
        pair.run();
        let (at, why) = pair.sponsor.deadline().unwrap();
        assert_eq!((at, why), (now(120_000).mono, AdmissionDeadline::Approval));

        pair.at = 119_999;
        pair.tick();
        assert!(pair.sponsor.is_asking());
        pair.at = 120_000;
        pair.tick();

        let run = pair.finish();
        assert_eq!(run.refusal(), Refusal::ApprovalTimeout);
        assert_eq!(run.refusal().code(), "approval-timeout");
        assert_eq!(run.listener_ends(), ["ask", "withdraw", "refused", "close"]);
        assert_eq!(host.limits.waiting().count(), 0);
    }

    #[test]
    fn approval_does_not_outlive_the_ticket() {
        let mut host = owner();
        let end = Wall(now(60_000).wall.0);
        invite(
            &mut host,
            Grant {
                not_after: Some(end),
                ..asking()
            },
        );
        let mut pair = Pair::new(&mut host, joiner(10), 10, 0);
        pair.run();

        pair.at = 60_001;
        pair.decide(true);

        assert_eq!(pair.finish().refusal(), Refusal::TicketExpired);
    }

    #[test]
    fn a_newcomer_who_goes_while_waiting_is_asked_about_no_more() {
        let mut host = owner();
        invite(&mut host, asking());
        let mut pair = Pair::new(&mut host, joiner(10), 10, 0);
        pair.run();

        pair.sponsor_takes(AdmissionInput::Closed);
        pair.decide(true);

        let run = pair.finish();
        assert_eq!(run.listener_ends(), ["ask", "withdraw", "refused", "close"]);
        assert_eq!(host.limits.waiting().count(), 0);
        assert!(host.membership.member(&member(10).id()).is_none());
    }

    #[test]
    fn at_most_eight_wait_and_each_peer_once() {
        let mut host = owner();
        invite(&mut host, asking());
        let mut waiting = Vec::new();
        for peer in 10..18 {
            let (mut sponsor, join) = signed_join(&mut host, peer);
            let out = host.feed(&mut sponsor, AdmissionInput::Received(join), 0);
            assert!(names(&out).contains(&"ask"));
            waiting.push(sponsor);
        }

        for peer in [18, 10] {
            let (mut sponsor, join) = signed_join(&mut host, peer);
            let out = host.feed(&mut sponsor, AdmissionInput::Received(join), 0);
            assert_eq!(refusal(&out), Refusal::LimitExceeded);
        }

        host.feed(
            &mut waiting[0],
            AdmissionInput::Decided { approve: false },
            0,
        );
        let (mut sponsor, join) = signed_join(&mut host, 18);
        let out = host.feed(&mut sponsor, AdmissionInput::Received(join), 0);
        assert!(names(&out).contains(&"ask"));
    }

    #[test]
    fn who_cannot_decide_does_not_sponsor_where_a_person_is_asked() {
        let mut host = owner();
        invite(
            &mut host,
            Grant {
                ask: true,
                ..grant(Role::Viewer)
            },
        );
        let mut guest = Node::of(10, admit(&mut host, Make::Answered(10, true), 10).joined());
        guest.hints = vec![SponsorHint {
            member: host.id(),
            addresses: Vec::new(),
        }];

        let run = admit(&mut guest, joiner(11), 11);

        let Refusal::NotSponsor { hints } = run.refusal() else {
            panic!("it sponsored")
        };
        assert_eq!(hints, guest.hints);
    }

    #[test]
    fn one_ticket_admits_sixty_a_minute_save_on_this_machine() {
        let mut host = owner();
        invite(&mut host, viewers());
        for peer in 10..70 {
            admit(&mut host, joiner(peer), peer).joined();
        }

        let refused = admit(&mut host, joiner(70), 70);
        assert_eq!(refused.refusal(), Refusal::LimitExceeded);
        assert_eq!(refused.refusal().code(), "limit-exceeded");

        let mut near = Pair::new(&mut host, joiner(71), 71, 0);
        near.sponsor = Sponsor::new(near.node.id(), member(71).id(), true, now(0));
        near.run();
        near.finish().joined();
        admit_at(&mut host, 72, 60_000).joined();
    }

    #[test]
    fn an_unproven_peer_is_closed_after_five_seconds() {
        let mut host = owner();
        let mut sponsor = Sponsor::new(host.id(), member(10).id(), false, now(0));
        assert_eq!(
            sponsor.deadline(),
            Some((now(5_000).mono, AdmissionDeadline::Unproven))
        );

        assert!(
            host.feed(&mut sponsor, AdmissionInput::Tick, 4_999)
                .is_empty()
        );
        let out = host.feed(&mut sponsor, AdmissionInput::Tick, 5_000);

        assert_eq!(names(&out), ["refused", "close"]);
        assert_eq!(sponsor.deadline(), None);
        let (mut proven, _) = proven(&mut host, 10);
        let out = host.feed(&mut proven, AdmissionInput::Tick, 5_000);
        assert_eq!(names(&out), ["refused", "close"]);
    }

    #[test]
    fn a_newcomer_gives_up_on_a_silent_peer() {
        let host = owner();
        let mut entropy = Entropy::new([3; 32]);
        let mut guest = Joiner::new(settings(&host, 10), host.id(), now(0), &mut entropy);
        let mut out = Vec::new();

        guest.handle(AdmissionInput::Opened, now(0), &mut out);
        guest.handle(AdmissionInput::Tick, now(5_000), &mut out);

        assert_eq!(refusal(&out), Refusal::Silent);
        assert_eq!(refusal(&out).code(), "peer-unreachable");
    }

    #[test]
    fn a_member_that_lost_the_welcome_is_welcomed_again_without_a_new_admission() {
        let mut host = owner();
        invite(
            &mut host,
            Grant {
                max_uses: Some(1),
                ..grant(Role::Viewer)
            },
        );
        admit(&mut host, joiner(10), 10);
        let before = host.writer.frontier();

        let again = admit(&mut host, joiner(10), 10);

        assert_eq!(again.joined().membership.heads(), host.membership.heads());
        assert_eq!(again.listener_ends(), ["close"]);
        assert_eq!(host.writer.frontier(), before);
    }

    #[test]
    fn a_large_membership_comes_in_batches() {
        let mut host = owner();
        invite(&mut host, viewers());
        for peer in 10..150 {
            let mut pair = Pair::new(&mut host, joiner(peer), peer, 0);
            pair.sponsor = Sponsor::new(pair.node.id(), member(peer).id(), true, now(0));
            pair.run();
        }

        let run = admit(&mut host, joiner(150), 150);

        let welcomes = run.from_listener.iter().filter(|bytes| {
            assert!(bytes.len() <= ADMISSION_MESSAGE_BYTES_MAX);
            matches!(read(bytes), AdmissionMessage::Welcome(_))
        });
        assert!(welcomes.count() > 1);
        assert_eq!(run.joined().membership.heads(), host.membership.heads());
    }

    #[test]
    fn no_secret_is_in_any_message() {
        let mut host = owner();
        invite(&mut host, asking());

        let run = admit(&mut host, Make::Answered(10, true), 10);

        let epoch = host.membership.current_epoch().unwrap().epoch.id;
        let secrets = [
            SEED,
            derive_key("collab-p2p v1 invite-sign", &[&SEED]),
            DISCOVERY,
            member(10).to_bytes(),
            agreement(10).to_bytes(),
            host.writer.key().to_bytes(),
            *host.keyring.get(&epoch).unwrap().to_bytes(),
        ];
        for bytes in run.from_dialler.iter().chain(&run.from_listener) {
            assert!(secrets.iter().all(|secret| !holds(bytes, secret)));
        }
        run.joined();
    }

    #[test]
    fn a_member_shows_one_who_does_not_know_it_that_it_is_one() {
        let (host, mut guest, other) = three();

        let run = meet(&mut guest, &mut Node::of(11, other), 0);

        assert_eq!(run.dialler_ends(), ["recognised", "close"]);
        assert_eq!(run.listener_ends(), ["recognised", "close"]);
        let AdmissionOutput::Recognised { member, statements } = &run.listener[0] else {
            panic!("nobody was recognised");
        };
        assert_eq!(*member, guest.id());
        let mut fresh = Membership::new((*host.membership.all()[0]).clone()).unwrap();
        for statement in statements {
            fresh.insert(statement.clone());
        }
        assert!(fresh.standing(&guest.id()).is_some());
    }

    #[test]
    fn two_members_unknown_to_each_other_come_to_know_each_other() {
        let mut host = owner();
        invite(&mut host, viewers());
        let mut one = Node::of(10, admit(&mut host, joiner(10), 10).joined());
        let mut two = Node::of(12, admit(&mut one, joiner(12), 12).joined());
        let mut three = Node::of(11, admit(&mut host, joiner(11), 11).joined());

        let run = meet(&mut two, &mut three, 0);

        assert_eq!(run.dialler_ends(), ["recognised", "close"]);
        assert_eq!(run.listener_ends(), ["recognised", "close"]);
        for (node, other, outputs) in [
            (&mut two, member(11), &run.dialler),
            (&mut three, member(12), &run.listener),
        ] {
            let AdmissionOutput::Recognised { statements, .. } = &outputs[0] else {
                panic!("nobody was recognised");
            };
            for statement in statements {
                node.membership.insert(statement.clone());
            }
            assert!(node.membership.standing(&other.id()).is_some());
        }
    }

    #[test]
    fn a_listener_unknown_to_the_dialler_shows_itself() {
        let (_, mut known, other) = three();
        let mut stale = Node::of(11, other);

        let run = meet(&mut stale, &mut known, 0);

        assert_eq!(run.dialler_ends(), ["recognised", "close"]);
        let AdmissionOutput::Recognised { member, .. } = &run.dialler[0] else {
            panic!("nobody was recognised");
        };
        assert_eq!(*member, known.id());
    }

    #[test]
    fn whoever_is_no_member_cannot_pass_for_one() {
        let mut host = owner();
        invite(&mut host, viewers());
        let mut claimant = Node::of(10, admit(&mut host, joiner(10), 10).joined());
        claimant.writer = writer_of(99, &claimant.membership);

        let run = meet(&mut claimant, &mut host, 0);

        let refused = RefusalCode::NotAMember;
        assert_eq!(
            read(run.from_listener.last().unwrap()),
            AdmissionMessage::Refused(refused)
        );
        assert_eq!(run.dialler_ends(), ["refused", "close"]);
        assert_eq!(run.listener_ends(), ["refused", "close"]);
        assert!(host.membership.member(&member(99).id()).is_none());
    }

    #[test]
    fn a_member_whose_time_is_over_is_not_recognised() {
        let mut host = owner();
        let until = Some(Wall(now(9_000).wall.0));
        invite(
            &mut host,
            Grant {
                membership_until: until,
                ..grant(Role::Viewer)
            },
        );
        let mut guest = Node::of(10, admit(&mut host, joiner(10), 10).joined());

        let late = meet(&mut guest, &mut host, 9_001);
        let in_time = meet(&mut guest, &mut host, 9_000);

        assert_eq!(late.listener_ends(), ["refused", "close"]);
        assert_eq!(in_time.listener_ends(), ["recognised", "close"]);
    }

    #[test]
    fn authentication_differs_where_somebody_sits_between() {
        let transcript = Transcript {
            dialler: MemberId([1; 32]),
            listener: MemberId([2; 32]),
            dialler_nonce: [3; 32],
            listener_nonce: [4; 32],
        };
        let others = [
            Transcript {
                dialler: MemberId([9; 32]),
                ..transcript
            },
            Transcript {
                listener: MemberId([9; 32]),
                ..transcript
            },
            Transcript {
                dialler_nonce: [9; 32],
                ..transcript
            },
            Transcript {
                listener_nonce: [9; 32],
                ..transcript
            },
        ];

        for other in others {
            assert_ne!(other.authentication(), transcript.authentication());
            assert!(!other.proves(
                &DISCOVERY,
                Side::Dialler,
                &transcript.mac(&DISCOVERY, Side::Dialler)
            ));
        }
        let dialler = transcript.mac(&DISCOVERY, Side::Dialler);
        assert!(transcript.proves(&DISCOVERY, Side::Dialler, &dialler));
        assert!(!transcript.proves(&DISCOVERY, Side::Listener, &dialler));
    }

    #[test]
    fn a_dialler_cannot_change_its_nonce_after_it_saw_the_listeners() {
        let mut host = owner();
        let mut sponsor = Sponsor::new(host.id(), member(10).id(), false, now(0));
        let hello = AdmissionMessage::Hello {
            version: ADMISSION_VERSION,
            token: commitment(&[1; 32]),
        };
        let out = host.feed(&mut sponsor, AdmissionInput::Received(hello.encode()), 0);
        let AdmissionMessage::Hello { token, .. } = read(&sent(&out)[0]) else {
            panic!("no greeting");
        };
        let transcript = Transcript {
            dialler: member(10).id(),
            listener: host.id(),
            dialler_nonce: [2; 32],
            listener_nonce: token,
        };

        let mac = transcript.mac(&DISCOVERY, Side::Dialler);
        let proof = AdmissionMessage::Proof {
            nonce: [2; 32],
            mac,
        };
        let out = host.feed(&mut sponsor, AdmissionInput::Received(proof.encode()), 0);

        assert_eq!(refusal(&out), Refusal::WrongSession);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        #[test]
        fn a_damaged_message_never_panics_and_never_admits_another(
            step in 0_usize..9,
            place: prop::sample::Index,
            damage in 1_u8..,
            cut: bool,
        ) {
            let mut host = owner();
            invite(&mut host, viewers());
            let mut pair = Pair::new(&mut host, joiner(10), 10, 0);
            pair.damage = Some((step, Box::new(move |bytes: &mut Vec<u8>| {
                let at = place.index(bytes.len());
                if cut { bytes.truncate(at) } else { bytes[at] ^= damage }
            })));

            pair.run();
            let run = pair.finish();

            prop_assert!(run.listener_ends().len() <= 3);
            for member in host.membership.members() {
                prop_assert!([host.id(), self::member(10).id()].contains(&member.id));
            }
        }

        #[test]
        fn any_bytes_in_any_phase_are_taken_without_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            tag in 0_u8..12,
        ) {
            let mut host = owner();
            invite(&mut host, viewers());
            let bytes = [vec![tag], bytes].concat();
            let input = || AdmissionInput::Received(bytes.clone());
            let (mut proven, _) = proven(&mut host, 10);
            let mut fresh = Sponsor::new(host.id(), member(10).id(), false, now(0));
            let mut guest = asked(&host);

            prop_assert!(!names(&host.feed(&mut proven, input(), 0)).contains(&"admit"));
            prop_assert!(!names(&host.feed(&mut fresh, input(), 0)).contains(&"admit"));
            let mut out = Vec::new();
            guest.handle(input(), now(0), &mut out);
            prop_assert!(!names(&out).contains(&"joined"));
        }
    }

    /// A member's node, as far as admission needs one.
    struct Node {
        membership: Membership,
        keyring: Keyring,
        writer: LogWriter,
        limits: SponsorLimits,
        hints: Vec<SponsorHint>,
        discovery_key: [u8; 32],
        writes: bool,
        entropy: Entropy,
    }

    impl Node {
        fn owner(seed: u8) -> Self {
            let (root, owner) = (member(200 + seed), member(seed));
            let new = NewSession {
                root: &root,
                owner: &owner,
                prekey: agreement(seed).public(),
                name: "owner".into(),
                discovery_key: &DISCOVERY,
                at: now(0).wall,
            };
            let created = Genesis::create(&new, &mut Entropy::new([seed; 32])).unwrap();
            let session = created.membership.session();
            let mut keyring = Keyring::default();
            keyring.insert(created.secret.clone());
            let writer = LogWriter::new(owner, session, created.owner_log, 0);
            Self::new(created.membership, keyring, writer)
        }

        fn of(seed: u8, joined: Joined) -> Self {
            let writer = writer_of(seed, &joined.membership);
            Self::new(joined.membership, joined.keyring, writer)
        }

        fn new(membership: Membership, keyring: Keyring, writer: LogWriter) -> Self {
            Self {
                membership,
                keyring,
                writer,
                limits: SponsorLimits::default(),
                hints: Vec::new(),
                discovery_key: DISCOVERY,
                writes: true,
                entropy: Entropy::new([99; 32]),
            }
        }

        fn id(&self) -> MemberId {
            self.writer.member()
        }

        fn ctx(&mut self) -> (SessionContext<'_>, &mut Entropy) {
            let ctx = SessionContext {
                membership: &self.membership,
                discovery_key: &self.discovery_key,
                keyring: &self.keyring,
                writer: self.writes.then_some(&mut self.writer),
                limits: &mut self.limits,
                hints: &self.hints,
            };
            (ctx, &mut self.entropy)
        }

        /// Feeds a sponsor of this node and does what it wants done to the membership.
        fn feed(
            &mut self,
            sponsor: &mut Sponsor,
            input: AdmissionInput,
            at: u64,
        ) -> Vec<AdmissionOutput> {
            let mut out = Vec::new();
            let (mut ctx, entropy) = self.ctx();
            sponsor.handle(input, now(at), entropy, &mut ctx, &mut out);
            for output in &out {
                if let AdmissionOutput::Admit(Entry::Statement(statement)) = output {
                    self.membership.insert((**statement).clone());
                }
            }
            out
        }
    }

    /// How a newcomer is made.
    enum Make {
        Plain(u8),
        Answered(u8, bool),
        With(JoinerSettings),
    }

    type Damage = (usize, Box<dyn Fn(&mut Vec<u8>)>);

    /// A newcomer and a sponsor whose messages reach each other.
    struct Pair<'a> {
        node: &'a mut Node,
        joiner: Joiner,
        sponsor: Sponsor,
        answer: Option<bool>,
        at: u64,
        damage: Option<Damage>,
        run: Run,
    }

    /// What two machines said and did.
    #[derive(Default)]
    struct Run {
        from_dialler: Vec<Vec<u8>>,
        from_listener: Vec<Vec<u8>>,
        dialler: Vec<AdmissionOutput>,
        listener: Vec<AdmissionOutput>,
    }

    impl<'a> Pair<'a> {
        fn new(node: &'a mut Node, make: Make, seed: u8, at: u64) -> Self {
            let (settings, answer) = match make {
                Make::Plain(seed) => (settings(node, seed), None),
                Make::Answered(seed, answer) => (settings(node, seed), Some(answer)),
                Make::With(settings) => (settings, None),
            };
            let mut entropy = Entropy::new([seed; 32]);
            Self {
                joiner: Joiner::new(settings, node.id(), now(at), &mut entropy),
                sponsor: Sponsor::new(node.id(), member(seed).id(), false, now(at)),
                node,
                answer,
                at,
                damage: None,
                run: Run::default(),
            }
        }

        fn run(&mut self) {
            self.joiner_takes(AdmissionInput::Opened);
        }

        fn tick(&mut self) {
            self.sponsor_takes(AdmissionInput::Tick);
        }

        fn decide(&mut self, approve: bool) {
            self.sponsor_takes(AdmissionInput::Decided { approve });
        }

        fn joiner_takes(&mut self, input: AdmissionInput) {
            let mut out = Vec::new();
            self.joiner.handle(input, now(self.at), &mut out);
            for output in out {
                if let AdmissionOutput::Send(bytes) = output {
                    let bytes = self.harm(bytes);
                    self.run.from_dialler.push(bytes.clone());
                    self.sponsor_takes(AdmissionInput::Received(bytes));
                } else {
                    self.run.dialler.push(output);
                }
            }
        }

        fn sponsor_takes(&mut self, input: AdmissionInput) {
            for output in self.node.feed(&mut self.sponsor, input, self.at) {
                match output {
                    AdmissionOutput::Send(bytes) => {
                        let bytes = self.harm(bytes);
                        self.run.from_listener.push(bytes.clone());
                        self.joiner_takes(AdmissionInput::Received(bytes));
                    }
                    AdmissionOutput::AskPerson(question) => {
                        self.run.listener.push(AdmissionOutput::AskPerson(question));
                        if let Some(approve) = self.answer {
                            self.decide(approve);
                        }
                    }
                    other => self.run.listener.push(other),
                }
            }
        }

        fn harm(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
            let sent = self.run.from_dialler.len() + self.run.from_listener.len();
            if let Some((step, damage)) = &self.damage
                && *step == sent
            {
                damage(&mut bytes);
            }
            bytes
        }

        fn finish(self) -> Run {
            self.run
        }
    }

    impl Run {
        fn joined(&self) -> Joined {
            let joined = self.dialler.iter().find_map(|output| match output {
                AdmissionOutput::Joined(joined) => Some((**joined).clone()),
                _ => None,
            });
            joined.expect("the newcomer did not join")
        }

        fn refusal(&self) -> Refusal {
            refusal(&self.dialler)
        }

        fn admission(&self) -> &Entry {
            let admission = self.listener.iter().find_map(|output| match output {
                AdmissionOutput::Admit(entry) => Some(entry),
                _ => None,
            });
            admission.expect("nobody was admitted")
        }

        fn statement(&self) -> Verified<Statement> {
            let Entry::Statement(statement) = self.admission() else {
                panic!("no statement")
            };
            (**statement).clone()
        }

        fn question(&self) -> Question {
            let question = self.listener.iter().find_map(|output| match output {
                AdmissionOutput::AskPerson(question) => Some((**question).clone()),
                _ => None,
            });
            question.expect("nobody was asked")
        }

        fn join(&self) -> AdmissionMessage {
            read(&self.from_dialler[2])
        }

        fn dialler_ends(&self) -> Vec<&'static str> {
            names(&self.dialler)
        }

        fn listener_ends(&self) -> Vec<&'static str> {
            names(&self.listener)
        }
    }

    fn owner() -> Node {
        Node::owner(1)
    }

    fn grant(role: Role) -> Grant {
        Grant::preset(Grantee::Invite(InviteKey::from_seed(&SEED).id()), role)
    }

    fn viewers() -> Grant {
        grant(Role::Viewer)
    }

    fn asking() -> Grant {
        Grant {
            ask: true,
            ..grant(Role::Editor)
        }
    }

    fn invite(node: &mut Node, grant: Grant) -> Hash {
        invite_statement(node, grant).hash()
    }

    fn invite_statement(node: &mut Node, grant: Grant) -> Verified<Statement> {
        let position = Position {
            after: node.writer.frontier(),
            at: now(0).wall,
        };
        let statement = make_grant(&node.membership, node.writer.key(), position, grant).unwrap();
        node.writer.push(statement.clone()).unwrap();
        node.membership.insert(statement.clone());
        statement
    }

    fn joiner(seed: u8) -> Make {
        Make::Plain(seed)
    }

    fn settings(node: &Node, seed: u8) -> JoinerSettings {
        JoinerSettings {
            session: node.membership.session(),
            discovery_key: DISCOVERY,
            invite: Some(InviteKey::from_seed(&SEED)),
            chain: Vec::new(),
            member: member(seed),
            agreement: agreement(seed),
            name: format!("guest {seed}"),
            kind: Kind::Human,
            person: None,
        }
    }

    fn admit(node: &mut Node, make: Make, seed: u8) -> Run {
        let mut pair = Pair::new(node, make, seed, 0);
        pair.run();
        pair.finish()
    }

    fn admit_at(node: &mut Node, seed: u8, at: u64) -> Run {
        let mut pair = Pair::new(node, joiner(seed), seed, at);
        pair.run();
        pair.finish()
    }

    fn member(seed: u8) -> MemberKey {
        MemberKey::from_bytes(&[seed; 32])
    }

    fn agreement(seed: u8) -> AgreementKey {
        AgreementKey::from_bytes(&[seed ^ 0x80; 32])
    }

    fn writer_of(seed: u8, membership: &Membership) -> LogWriter {
        let session = membership.session();
        LogWriter::new(member(seed), session, Frontier::start(&session), 0)
    }

    fn now(milliseconds: u64) -> Now {
        Now {
            mono: Mono(1_000_000 + milliseconds * 1_000),
            wall: Wall(1_700_000_000_000 + milliseconds),
        }
    }

    /// A sponsor to whom this peer has proven the session, and its challenge.
    fn proven(host: &mut Node, seed: u8) -> (Sponsor, [u8; 32]) {
        let mut entropy = Entropy::new([seed; 32]);
        let dialler = Dialler::new(member(seed).id(), host.id(), DISCOVERY, &mut entropy);
        let mut sponsor = Sponsor::new(host.id(), member(seed).id(), false, now(0));
        let hello = AdmissionInput::Received(dialler.hello().encode());
        let hello = sent(&host.feed(&mut sponsor, hello, 0)).remove(0);
        let (transcript, proof) = dialler.prove(&hello).unwrap();
        let answer = AdmissionInput::Received(proof.encode());
        let answer = sent(&host.feed(&mut sponsor, answer, 0)).remove(0);
        (sponsor, dialler.check(&transcript, &answer).unwrap())
    }

    fn join_message(host: &Node, seed: u8, challenge: [u8; 32]) -> AdmissionMessage {
        let mut entropy = Entropy::new([seed; 32]);
        let joiner = Joiner::new(settings(host, seed), host.id(), now(0), &mut entropy);
        joiner.join(challenge).unwrap()
    }

    /// A sponsor that waits for a Join, and the Join it would believe.
    fn signed_join(host: &mut Node, seed: u8) -> (Sponsor, Vec<u8>) {
        let (sponsor, challenge) = proven(host, seed);
        (sponsor, join_message(host, seed, challenge).encode())
    }

    /// A newcomer that has sent its Join.
    fn asked(host: &Node) -> Joiner {
        let mut entropy = Entropy::new([10; 32]);
        let mut guest = Joiner::new(settings(host, 10), host.id(), now(0), &mut entropy);
        let mut out = Vec::new();
        let hello = AdmissionMessage::Hello {
            version: ADMISSION_VERSION,
            token: [5; 32],
        };
        guest.handle(AdmissionInput::Received(hello.encode()), now(0), &mut out);
        let AdmissionMessage::Proof { nonce, .. } = read(&sent(&out)[0]) else {
            panic!("no proof");
        };
        let transcript = Transcript {
            dialler: member(10).id(),
            listener: host.id(),
            dialler_nonce: nonce,
            listener_nonce: [5; 32],
        };
        let mac = transcript.mac(&DISCOVERY, Side::Listener);
        let answer = AdmissionMessage::Answer {
            mac,
            challenge: [6; 32],
        };
        guest.handle(AdmissionInput::Received(answer.encode()), now(0), &mut out);
        assert!(matches!(guest.phase, Joining::Asked { .. }));
        guest
    }

    /// An owner, a guest (10) who knows all, and what another (11) knew when it joined before that guest.
    fn three() -> (Node, Node, Joined) {
        let mut host = owner();
        invite(&mut host, viewers());
        let other = admit(&mut host, joiner(11), 11).joined();
        let guest = admit(&mut host, joiner(10), 10).joined();
        (host, Node::of(10, guest), other)
    }

    /// One member dials another.
    fn meet(from: &mut Node, to: &mut Node, at: u64) -> Run {
        let (us, peer) = (from.id(), to.id());
        let mut presenter =
            Presenter::new(us, peer, DISCOVERY, now(at), &mut Entropy::new([8; 32]));
        let mut sponsor = Sponsor::new(peer, us, false, now(at));
        let mut run = Run::default();
        let mut to_presenter = VecDeque::from([AdmissionInput::Opened]);
        let mut to_sponsor = VecDeque::new();
        while !to_presenter.is_empty() || !to_sponsor.is_empty() {
            if let Some(input) = to_presenter.pop_front() {
                let mut out = Vec::new();
                presenter.handle(input, now(at), &from.ctx().0, &mut out);
                deliver(
                    out,
                    &mut to_sponsor,
                    &mut run.from_dialler,
                    &mut run.dialler,
                );
            }
            if let Some(input) = to_sponsor.pop_front() {
                let out = to.feed(&mut sponsor, input, at);
                deliver(
                    out,
                    &mut to_presenter,
                    &mut run.from_listener,
                    &mut run.listener,
                );
            }
        }
        run
    }

    fn deliver(
        out: Vec<AdmissionOutput>,
        to: &mut VecDeque<AdmissionInput>,
        wire: &mut Vec<Vec<u8>>,
        kept: &mut Vec<AdmissionOutput>,
    ) {
        for output in out {
            match output {
                AdmissionOutput::Send(bytes) => {
                    wire.push(bytes.clone());
                    to.push_back(AdmissionInput::Received(bytes));
                }
                AdmissionOutput::Close => {
                    to.push_back(AdmissionInput::Closed);
                    kept.push(AdmissionOutput::Close);
                }
                other => kept.push(other),
            }
        }
    }

    fn names(out: &[AdmissionOutput]) -> Vec<&'static str> {
        out.iter()
            .map(|output| match output {
                AdmissionOutput::Send(_) => "send",
                AdmissionOutput::AskPerson(_) => "ask",
                AdmissionOutput::Withdraw(_) => "withdraw",
                AdmissionOutput::Admit(_) => "admit",
                AdmissionOutput::Recognised { .. } => "recognised",
                AdmissionOutput::Waits => "waits",
                AdmissionOutput::Joined(_) => "joined",
                AdmissionOutput::Refused(_) => "refused",
                AdmissionOutput::Close => "close",
            })
            .collect()
    }

    fn refusal(out: &[AdmissionOutput]) -> Refusal {
        let refusal = out.iter().find_map(|output| match output {
            AdmissionOutput::Refused(refusal) => Some(refusal.clone()),
            _ => None,
        });
        refusal.expect("nothing was refused")
    }

    fn sent(out: &[AdmissionOutput]) -> Vec<Vec<u8>> {
        let sent = out.iter().filter_map(|output| match output {
            AdmissionOutput::Send(bytes) => Some(bytes.clone()),
            _ => None,
        });
        sent.collect()
    }

    fn read(bytes: &[u8]) -> AdmissionMessage {
        AdmissionMessage::decode(bytes, ADMISSION_MESSAGE_BYTES_MAX).unwrap()
    }

    fn holds(bytes: &[u8], secret: &[u8]) -> bool {
        bytes.windows(secret.len()).any(|window| window == secret)
    }
}
