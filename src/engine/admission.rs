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
#[derive(Debug)]
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
        let asking = self.is_asking();
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
            turn.out.push(AdmissionOutput::Withdraw(self.peer));
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
