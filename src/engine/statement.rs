//! Signed facts about membership: their fields, canonical encoding and signatures.
//!
//! A statement is an entry of its author's log, beside the author's envelopes, and names the membership heads
//! that the author knew. On the wire it is the postcard encoding of [`Statement`] and 64 bytes of signature.
//! The hash is over the encoding alone, and the signature over `(session, author, seq, hash)`: so one statement
//! has one name whatever signature it carries, and two statements for one place prove a fork in 200 bytes.
//!
//! All kinds have their final format. [`Membership`](crate::engine::membership::Membership) gives effect to
//! Genesis, Grant, Admit, Epoch, Prekey, Leave and Close; it keeps and passes on Revoke, Role, Fork, Seal and
//! Quota without effect.

use serde::{Deserialize, Serialize};

use crate::engine::bounded;
use crate::engine::capability::{Capabilities, CapabilityError, Kind, Paths, Rank, Role, Scope};
use crate::engine::epoch::{EpochId, EpochWrap, PreviousWrap, Wrap};
use crate::engine::identity::{
    AgreementPublic, Domain, IdentityError, InviteKey, MemberKey, Signature, Verified, hash,
    verify, verify_invite,
};
use crate::engine::ids::{DocumentId, Hash, InviteId, MemberId, SessionId};
use crate::engine::limits::{
    EPOCH_PREVIOUS_MAX, EPOCH_WRAPS_MAX, FORK_ENTRY_BYTES_MAX, GRANT_BYTES_MAX, GRANT_CHAIN_MAX,
    GRANT_SPONSORS_MAX, MEMBERS_MAX, MEMBERSHIP_HEADS_MAX, NAME_CHARS_MAX, REASON_CHARS_MAX,
    SEAL_HEADS_MAX, STATEMENT_BYTES_MAX,
};
use crate::engine::time::Wall;

/// The version in front of every statement.
pub const STATEMENT_VERSION: u8 = 1;

/// Why bytes are no statement, whoever is a member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// Longer than any statement.
    #[error("a statement has at most {STATEMENT_BYTES_MAX} bytes, got {0}")]
    TooLong(usize),
    /// Too short for a signature, or the encoding ends early or says what cannot be.
    #[error("the bytes are no statement")]
    Malformed,
    /// A later version of the format.
    #[error("the statement has version {got}, expected {STATEMENT_VERSION}")]
    Version {
        /// The version it has.
        got: u8,
    },
    /// The same statement has another, canonical encoding.
    #[error("the statement is not encoded canonically")]
    NotCanonical,
    /// Not signed by its author.
    #[error(transparent)]
    Signature(#[from] IdentityError),
    /// A place in a log that cannot be: see [`Statement`].
    #[error("the statement's place in its log or session is impossible")]
    Place,
    /// A list, name or text longer than allowed, or not in ascending order where it must be.
    #[error("{0} exceeds its bounds or is not in order")]
    Bounds(&'static str),
    /// A scope that cannot be.
    #[error(transparent)]
    Scope(#[from] CapabilityError),
}

/// A place in a member's log, which holds statements and envelopes together.
///
/// The first entry has seq 1 and the bytes of the session's id as its predecessor; [`Frontier::start`] stands
/// for a log in which nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Frontier {
    /// Entries up to here.
    pub seq: u64,
    /// The hash of the last of them.
    pub hash: Hash,
}

impl Frontier {
    /// Before the first entry.
    pub fn start(session: &SessionId) -> Self {
        Self {
            seq: 0,
            hash: Hash(session.0),
        }
    }

    /// After the entry with this hash was appended.
    pub fn then(self, hash: Hash) -> Self {
        Self {
            seq: self.seq.saturating_add(1),
            hash,
        }
    }
}

/// One signed fact.
///
/// Three kinds of author: the session's root key (`standing` is none), an invitation's key (a Grant outside any
/// log, seq 0, that travels in tickets and admissions; `standing` names the Grant it narrows), and members
/// (`standing` names the Admit or Role they act under; none only where one admits oneself by a grant of the root
/// key). Genesis alone has zeros for session and predecessor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// [`STATEMENT_VERSION`].
    pub version: u8,
    /// The session it is about.
    pub session: SessionId,
    /// Its author.
    pub member: MemberId,
    /// Its number in the author's log.
    pub seq: u64,
    /// The entry before it in that log.
    pub prev: Hash,
    /// Membership heads that the author knew, ascending, at most [`MEMBERSHIP_HEADS_MAX`].
    #[serde(deserialize_with = "bounded::list::<_, _, MEMBERSHIP_HEADS_MAX>")]
    pub parents: Vec<Hash>,
    /// What entitles the author.
    pub standing: Option<Hash>,
    /// The author's clock, for people to read; no verdict depends on it.
    pub ts: Wall,
    /// What it says.
    pub body: StatementBody,
}

/// What a statement says. The order of the variants is part of the wire format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StatementBody {
    /// The session begins.
    Genesis(Genesis),
    /// An invitation, or a right promised to one key.
    Grant(Grant),
    /// Somebody was admitted.
    Admit(Box<Admit>),
    /// Members or grants end.
    Revoke(Revoke),
    /// A new secret for the readers.
    Epoch(Epoch),
    /// A new key to wrap secrets to.
    Prekey {
        /// The author's new x25519 key.
        key: AgreementPublic,
    },
    /// Proof that a key signed two entries for one place.
    Fork(Fork),
    /// A document's history up to here is vouched for.
    Seal(Seal),
    /// The author goes.
    Leave,
    /// A member gets another standing.
    Role(RoleChange),
    /// A member's log may grow.
    Quota {
        /// Whose log.
        member: MemberId,
        /// Bytes of envelopes that it may hold.
        bytes: u64,
    },
    /// The session ends for all.
    Close {
        /// Words for people.
        reason: String,
    },
}

impl StatementBody {
    /// The kind, for logs and errors.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Genesis(_) => "Genesis",
            Self::Grant(_) => "Grant",
            Self::Admit(_) => "Admit",
            Self::Revoke(_) => "Revoke",
            Self::Epoch(_) => "Epoch",
            Self::Prekey { .. } => "Prekey",
            Self::Fork(_) => "Fork",
            Self::Seal(_) => "Seal",
            Self::Leave => "Leave",
            Self::Role(_) => "Role",
            Self::Quota { .. } => "Quota",
            Self::Close { .. } => "Close",
        }
    }
}

/// The session begins: its hash is the session's id, its author the root key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Genesis {
    /// Makes every session's id new.
    pub nonce: [u8; 32],
    /// Commitment to the discovery key, which never changes: see [`discovery_commitment`].
    pub discovery: Hash,
}

/// What a Genesis says about the discovery key, so that a joiner can tell a ticket with a foreign one.
pub fn discovery_commitment(discovery_key: &[u8; 32]) -> Hash {
    hash("collab-p2p v1 discovery commit", &[discovery_key])
}

/// To whom a grant is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Grantee {
    /// Whoever proves the secret of this invitation.
    Invite(InviteId),
    /// The holder of this key.
    Member(MemberId),
}

/// Who may admit by a grant, besides having `admit` and enough seniority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sponsors {
    /// Any such member.
    Any,
    /// Members of this rank or more senior.
    UpTo(Rank),
    /// These members, each so many times.
    These(
        #[serde(deserialize_with = "bounded::list::<_, _, GRANT_SPONSORS_MAX>")] Vec<SponsorQuota>,
    ),
}

/// One sponsor and how often it may use the grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SponsorQuota {
    /// The sponsor.
    pub member: MemberId,
    /// Admissions it may make.
    pub uses: u32,
}

/// A person's long-term key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PersonId(pub MemberId);

/// An invitation, or a right promised to one key. It only ever gives less than its issuer has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// To whom.
    pub to: Grantee,
    /// Seniority of those admitted.
    pub rank: Rank,
    /// The preset; its own rank is not above `rank`.
    pub role: Role,
    /// What those admitted may do.
    pub capabilities: Capabilities,
    /// How far that reaches.
    pub scope: Scope,
    /// End of joining; membership goes on.
    pub not_after: Option<Wall>,
    /// End of membership of those admitted: others stop talking to them.
    pub membership_until: Option<Wall>,
    /// Members that may come by it. Exact only as far as sponsors know of each other.
    pub max_uses: Option<u32>,
    /// The only person who may use it.
    pub audience: Option<PersonId>,
    /// Who may admit by it.
    pub sponsors: Sponsors,
    /// How many times it may be narrowed into further grants, one under the other.
    pub sub_depth: u8,
    /// A member with `moderate` is asked before each admission.
    pub ask: bool,
}

/// Whether somebody is asked before an admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Asking {
    /// For whoever would get more than viewing.
    #[default]
    Auto,
    /// For everybody.
    Always,
    /// For nobody.
    Never,
}

impl Grant {
    /// A role as its table says, without end, limit or question, by any sponsor.
    pub fn preset(to: Grantee, role: Role) -> Self {
        Self {
            to,
            rank: role.rank(),
            role,
            capabilities: role.capabilities(),
            scope: Scope::default(),
            not_after: None,
            membership_until: None,
            max_uses: None,
            audience: None,
            sponsors: Sponsors::Any,
            sub_depth: 0,
            ask: false,
        }
    }

    /// An invitation to a role. One that asks, or that counts its uses, is left to the owner's devices and to
    /// admins: they can be asked, and they keep count.
    pub fn invitation(
        invite: InviteId,
        role: Role,
        asking: Asking,
        not_after: Option<Wall>,
        max_uses: Option<u32>,
    ) -> Self {
        let preset = Self::preset(Grantee::Invite(invite), role);
        let ask = match asking {
            Asking::Auto => !Role::Viewer.capabilities().covers(preset.capabilities),
            Asking::Always => true,
            Asking::Never => false,
        };
        let named = ask || max_uses.is_some();
        let sponsors = if named {
            Sponsors::UpTo(Role::Admin.rank())
        } else {
            Sponsors::Any
        };
        Self {
            not_after,
            max_uses,
            sponsors,
            ask,
            ..preset
        }
    }

    /// Whether this grant gives nothing that `wider` does not give, with less depth.
    pub fn narrows(&self, wider: &Self) -> bool {
        wider.rank.is_above(self.rank)
            && wider.capabilities.covers(self.capabilities)
            && wider.scope.covers(&self.scope)
            && ends_no_later(self.not_after, wider.not_after)
            && ends_no_later(self.membership_until, wider.membership_until)
            && wider
                .max_uses
                .is_none_or(|most| self.max_uses.is_some_and(|uses| uses <= most))
            && wider
                .audience
                .is_none_or(|person| self.audience == Some(person))
            && self.sub_depth < wider.sub_depth
            && (self.ask || !wider.ask)
            && self.sponsors == wider.sponsors
    }
}

/// Whether an end is not after another, where none means never.
pub(in crate::engine) fn ends_no_later(end: Option<Wall>, limit: Option<Wall>) -> bool {
    limit.is_none_or(|limit| end.is_some_and(|end| end <= limit))
}

/// What a newcomer signs, over the sponsor's fresh challenge. The ids of member and sponsor are also the peer
/// ids of the connection on which it is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The session to join.
    pub session: SessionId,
    /// By which right.
    pub by: Grantee,
    /// The key that becomes a member.
    pub member: MemberId,
    /// The key to wrap secrets to.
    pub prekey: AgreementPublic,
    /// 1 to [`NAME_CHARS_MAX`] characters, none of them a control character.
    pub name: String,
    /// Person or program.
    pub kind: Kind,
    /// The person who vouches for the key, if one does.
    pub person: Option<Vouch>,
    /// To whom it is said, and to nobody else.
    pub sponsor: MemberId,
    /// Drawn by the sponsor for this admission.
    pub challenge: [u8; 32],
}

/// A person's signature over session and member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vouch {
    /// The person.
    pub person: PersonId,
    /// Made in [`Domain::Person`].
    pub signature: Signature,
}

impl Vouch {
    /// Vouches for a member's key with a person's.
    pub fn sign(person: &MemberKey, session: &SessionId, member: &MemberId) -> Self {
        let signature = person.sign(Domain::Person, &Self::payload(session, member));
        Self {
            person: PersonId(person.id()),
            signature,
        }
    }

    /// Checks the person's signature.
    pub fn verify(&self, session: &SessionId, member: &MemberId) -> Result<(), IdentityError> {
        let payload = Self::payload(session, member);
        verify(&self.person.0, Domain::Person, &payload, &self.signature)
    }

    fn payload(session: &SessionId, member: &MemberId) -> Vec<u8> {
        [session.0, member.0].concat()
    }
}

/// A [`JoinRequest`] signed by the member's key and, where it came by invitation, by the invitation's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// What is signed.
    pub request: JoinRequest,
    /// By the member's key, in [`Domain::Join`].
    pub signature: Signature,
    /// By the invitation's key, in [`Domain::JoinInvite`].
    pub invite_signature: Option<Signature>,
}

impl Join {
    /// Signs a request. `member` must be the key that the request names, and `invite` the invitation's where it
    /// names one; otherwise nobody will believe the result.
    pub fn sign(
        request: JoinRequest,
        member: &MemberKey,
        invite: Option<&InviteKey>,
    ) -> Result<Self, StatementError> {
        let payload = request.payload()?;
        let signature = member.sign(Domain::Join, &payload);
        let invite_signature = invite.map(|key| key.sign(Domain::JoinInvite, &payload));
        let join = Self {
            request,
            signature,
            invite_signature,
        };
        join.check()?;
        Ok(join)
    }

    /// Checks both signatures, the person's where there is one, and the name.
    pub fn verify(&self) -> Result<(), StatementError> {
        self.check()?;
        let payload = self.request.payload()?;
        verify(
            &self.request.member,
            Domain::Join,
            &payload,
            &self.signature,
        )?;
        match (&self.request.by, &self.invite_signature) {
            (Grantee::Invite(invite), Some(signature)) => {
                verify_invite(invite, Domain::JoinInvite, &payload, signature)?;
            }
            (Grantee::Member(member), None) if *member == self.request.member => {}
            (Grantee::Invite(_), None) | (Grantee::Member(_), _) => {
                return Err(StatementError::Malformed);
            }
        }
        let Some(vouch) = &self.request.person else {
            return Ok(());
        };
        Ok(vouch.verify(&self.request.session, &self.request.member)?)
    }

    fn check(&self) -> Result<(), StatementError> {
        let name = &self.request.name;
        let long = name.chars().count() > NAME_CHARS_MAX;
        if name.trim().is_empty() || long || name.chars().any(char::is_control) {
            return Err(StatementError::Bounds("a member's name"));
        }
        Ok(())
    }
}

impl JoinRequest {
    fn payload(&self) -> Result<Vec<u8>, StatementError> {
        postcard::to_stdvec(self).map_err(|_| StatementError::Malformed)
    }
}

/// Somebody was admitted by the author.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admit {
    /// The Grant in the author's past from which the right comes.
    pub grant: Hash,
    /// Signed grants that narrow it one after the other, as the ticket carried them; the last names the
    /// invitation that the Join proves. Empty where `grant` itself does.
    #[serde(deserialize_with = "bounded::list::<_, _, GRANT_CHAIN_MAX>")]
    pub chain: Vec<Vec<u8>>,
    /// What the newcomer signed.
    pub join: Join,
    /// The sponsor's clock when it checked the expiry.
    pub at: Wall,
    /// Secrets of current epochs for the newcomer.
    #[serde(deserialize_with = "bounded::list::<_, _, EPOCH_PREVIOUS_MAX>")]
    pub wraps: Vec<EpochWrap>,
    /// The human member for whom an agent stands.
    pub principal: Option<MemberId>,
    /// Person or program: a program stays one whatever its sponsor says.
    pub kind: Kind,
}

/// Members or grants end, from these frontiers on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoke {
    /// Members, each with the last entry that counts, ascending.
    #[serde(deserialize_with = "bounded::list::<_, _, MEMBERS_MAX>")]
    pub members: Vec<Cut>,
    /// Grants, ascending.
    #[serde(deserialize_with = "bounded::list::<_, _, MEMBERS_MAX>")]
    pub grants: Vec<GrantEnd>,
    /// Words for people.
    pub reason: String,
    /// The epoch that those removed do not get.
    pub epoch: Option<Epoch>,
}

/// The end of one key's log as far as it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cut {
    /// Whose log.
    pub member: MemberId,
    /// The last entry that counts.
    pub frontier: Frontier,
}

/// A grant ends, and with it all who came by it save some.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GrantEnd {
    /// The Grant statement.
    pub grant: Hash,
    /// Admit statements that stay, ascending.
    #[serde(deserialize_with = "bounded::list::<_, _, MEMBERS_MAX>")]
    pub keep: Vec<Hash>,
}

/// A new secret for the readers of a scope as of the statement's parents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// One more than the greatest of the same scope in the statement's past.
    pub number: u64,
    /// What its readers may read; by default the whole session.
    pub scope: Paths,
    /// The commitment to the secret.
    pub id: EpochId,
    /// The secret for each reader, or for none where there are more than [`EPOCH_WRAPS_MAX`].
    #[serde(deserialize_with = "bounded::list::<_, _, EPOCH_WRAPS_MAX>")]
    pub wraps: Vec<Wrap>,
    /// The secrets of the epochs it follows.
    #[serde(deserialize_with = "bounded::list::<_, _, EPOCH_PREVIOUS_MAX>")]
    pub previous: Vec<PreviousWrap>,
}

/// Two entries that one key signed for one place of its log. Proves itself, whoever carries it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// Whose log.
    pub member: MemberId,
    /// The place.
    pub seq: u64,
    /// One entry.
    pub one: ForkEntry,
    /// The other.
    pub other: ForkEntry,
}

/// Proof that a key signed an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ForkEntry {
    /// A statement: hash and signature suffice.
    Statement {
        /// The statement's hash.
        hash: Hash,
        /// The author's signature over place and hash.
        signature: Signature,
    },
    /// An envelope: its signed header.
    Envelope(Vec<u8>),
}

/// The author vouches for a document's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// Which document.
    pub document: DocumentId,
    /// Which generation of it.
    pub generation: u64,
    /// Its heads, ascending.
    #[serde(deserialize_with = "bounded::list::<_, _, SEAL_HEADS_MAX>")]
    pub heads: Vec<Hash>,
    /// The hash of the compressed whole.
    pub chunk: Hash,
    /// The size of that.
    pub bytes: u64,
}

/// A member gets another standing; lowering also ends the former ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleChange {
    /// Whose.
    pub member: MemberId,
    /// The new seniority.
    pub rank: Rank,
    /// The new preset.
    pub role: Role,
    /// What it allows.
    pub capabilities: Capabilities,
    /// How far that reaches.
    pub scope: Scope,
    /// The key's log up to here counts under the new standing.
    pub covers: Option<Frontier>,
    /// The end of the former standings.
    pub revoke: Option<Revoke>,
}

/// A statement that is still to be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The session; of a Genesis zeros.
    pub session: SessionId,
    /// The last entry of the author's log.
    pub after: Frontier,
    /// Membership heads the author knows, ascending.
    pub parents: Vec<Hash>,
    /// What entitles the author.
    pub standing: Option<Hash>,
    /// The author's clock.
    pub ts: Wall,
    /// What it says.
    pub body: StatementBody,
}

impl Draft {
    /// Signs the statement as the next entry of the key's log.
    pub fn sign(self, key: &MemberKey) -> Result<Verified<Statement>, StatementError> {
        let statement = Statement {
            version: STATEMENT_VERSION,
            session: self.session,
            member: key.id(),
            seq: self.after.seq.saturating_add(1),
            prev: self.after.hash,
            parents: self.parents,
            standing: self.standing,
            ts: self.ts,
            body: self.body,
        };
        statement.sign(key)
    }
}

/// Signs a grant that narrows another, as the holder of an invitation: `proof` is the hash of the wider grant.
pub fn sign_sub_grant(
    invite: &InviteKey,
    session: SessionId,
    proof: Hash,
    ts: Wall,
    grant: Grant,
) -> Result<Verified<Statement>, StatementError> {
    let statement = Statement {
        version: STATEMENT_VERSION,
        session,
        member: MemberId(invite.id().0),
        seq: 0,
        prev: Hash(session.0),
        parents: Vec::new(),
        standing: Some(proof),
        ts,
        body: StatementBody::Grant(grant),
    };
    statement.sign(invite.as_author())
}

/// The way from bytes to a statement.
#[derive(Debug, Clone, Copy)]
pub struct SignedStatement;

impl SignedStatement {
    /// Reads and verifies one statement: size, version, canonical encoding, bounds, place, signature. Says nothing
    /// about what its author may do.
    pub fn decode(bytes: &[u8]) -> Result<Verified<Statement>, StatementError> {
        if bytes.len() > STATEMENT_BYTES_MAX {
            return Err(StatementError::TooLong(bytes.len()));
        }
        let (payload, signature) = bytes
            .split_last_chunk::<64>()
            .ok_or(StatementError::Malformed)?;
        let version = *payload.first().ok_or(StatementError::Malformed)?;
        if version != STATEMENT_VERSION {
            return Err(StatementError::Version { got: version });
        }
        let statement: Statement =
            postcard::from_bytes(payload).map_err(|_| StatementError::Malformed)?;
        if statement.payload()? != payload {
            return Err(StatementError::NotCanonical);
        }
        statement.check()?;
        let hash = statement_hash(payload);
        let place = statement.place(&hash);
        verify(
            &statement.member,
            Domain::Statement,
            &place,
            &Signature(*signature),
        )?;
        Ok(Verified::vouch(statement, hash, bytes.to_vec()))
    }
}

/// What the author of a statement signs: proof of it, without the statement itself.
pub fn signed_place(session: &SessionId, member: &MemberId, seq: u64, hash: &Hash) -> Vec<u8> {
    [
        &session.0[..],
        &member.0[..],
        &seq.to_le_bytes()[..],
        &hash.0[..],
    ]
    .concat()
}

impl Verified<Statement> {
    /// The signature, for a proof of a fork.
    pub fn signature(&self) -> Signature {
        Signature(self.bytes().last_chunk::<64>().copied().unwrap_or([0; 64]))
    }

    /// Its place in its author's log.
    pub fn frontier(&self) -> Frontier {
        Frontier {
            seq: self.seq,
            hash: self.hash(),
        }
    }
}

impl Statement {
    fn sign(self, key: &MemberKey) -> Result<Verified<Self>, StatementError> {
        self.check()?;
        let mut bytes = self.payload()?;
        let hash = statement_hash(&bytes);
        let signature = key.sign(Domain::Statement, &self.place(&hash));
        bytes.extend_from_slice(&signature.0);
        if bytes.len() > STATEMENT_BYTES_MAX {
            return Err(StatementError::TooLong(bytes.len()));
        }
        Ok(Verified::vouch(self, hash, bytes))
    }

    fn payload(&self) -> Result<Vec<u8>, StatementError> {
        postcard::to_stdvec(self).map_err(|_| StatementError::Malformed)
    }

    fn place(&self, hash: &Hash) -> Vec<u8> {
        signed_place(&self.session, &self.member, self.seq, hash)
    }

    /// What holds of every statement whoever is a member.
    fn check(&self) -> Result<(), StatementError> {
        self.check_place()?;
        ascending(&self.parents, MEMBERSHIP_HEADS_MAX, "the list of parents")?;
        match &self.body {
            StatementBody::Genesis(_)
            | StatementBody::Prekey { .. }
            | StatementBody::Leave
            | StatementBody::Quota { .. } => Ok(()),
            StatementBody::Grant(grant) => grant.check(),
            StatementBody::Admit(admit) => admit.check(),
            StatementBody::Revoke(revoke) => revoke.check(),
            StatementBody::Epoch(epoch) => epoch.check(),
            StatementBody::Fork(fork) => fork.check(),
            StatementBody::Seal(seal) => {
                ascending(&seal.heads, SEAL_HEADS_MAX, "the list of heads")
            }
            StatementBody::Role(role) => role.check(),
            StatementBody::Close { reason } => check_reason(reason),
        }
    }

    fn check_place(&self) -> Result<(), StatementError> {
        let zeros = self.session.0 == [0; 32];
        let possible = match (&self.body, self.seq) {
            (StatementBody::Genesis(_), seq) => {
                let first = seq == 1 && self.prev.0 == [0; 32] && self.parents.is_empty();
                zeros && first && self.standing.is_none()
            }
            (StatementBody::Grant(_), 0) => {
                let outside = self.prev.0 == self.session.0 && self.parents.is_empty();
                !zeros && outside && self.standing.is_some()
            }
            (_, 0) => false,
            (_, 1) => !zeros && self.prev.0 == self.session.0 && !self.parents.is_empty(),
            (_, _) => !zeros && !self.parents.is_empty(),
        };
        if possible {
            Ok(())
        } else {
            Err(StatementError::Place)
        }
    }
}

impl Grant {
    fn check(&self) -> Result<(), StatementError> {
        self.scope.check()?;
        if let Sponsors::These(sponsors) = &self.sponsors {
            ascending(sponsors, GRANT_SPONSORS_MAX, "the list of sponsors")?;
        }
        Ok(())
    }
}

impl Admit {
    fn check(&self) -> Result<(), StatementError> {
        let links_fit = self.chain.iter().all(|link| link.len() <= GRANT_BYTES_MAX);
        if self.chain.len() > GRANT_CHAIN_MAX || !links_fit {
            return Err(StatementError::Bounds("the chain of grants"));
        }
        if self.wraps.len() > EPOCH_PREVIOUS_MAX {
            return Err(StatementError::Bounds("the list of wraps"));
        }
        self.join.check()
    }
}

impl Revoke {
    fn check(&self) -> Result<(), StatementError> {
        ascending(&self.members, MEMBERS_MAX, "the list of members")?;
        ascending(&self.grants, MEMBERS_MAX, "the list of grants")?;
        for grant in &self.grants {
            ascending(&grant.keep, MEMBERS_MAX, "the list of who stays")?;
        }
        check_reason(&self.reason)?;
        self.epoch.as_ref().map_or(Ok(()), Epoch::check)
    }
}

impl Epoch {
    fn check(&self) -> Result<(), StatementError> {
        self.scope.check()?;
        if self.wraps.len() > EPOCH_WRAPS_MAX || self.previous.len() > EPOCH_PREVIOUS_MAX {
            return Err(StatementError::Bounds("the list of wraps"));
        }
        Ok(())
    }
}

impl Fork {
    fn check(&self) -> Result<(), StatementError> {
        self.one.check()?;
        self.other.check()
    }
}

impl ForkEntry {
    fn check(&self) -> Result<(), StatementError> {
        match self {
            Self::Statement { .. } => Ok(()),
            Self::Envelope(header) if header.len() <= FORK_ENTRY_BYTES_MAX => Ok(()),
            Self::Envelope(_) => Err(StatementError::Bounds("the envelope header of a fork")),
        }
    }
}

impl RoleChange {
    fn check(&self) -> Result<(), StatementError> {
        self.scope.check()?;
        self.revoke.as_ref().map_or(Ok(()), Revoke::check)
    }
}

fn check_reason(reason: &str) -> Result<(), StatementError> {
    if reason.chars().count() > REASON_CHARS_MAX {
        return Err(StatementError::Bounds("a reason"));
    }
    Ok(())
}

/// One set has one encoding: strictly ascending, within its bound.
fn ascending<T: Ord>(list: &[T], most: usize, what: &'static str) -> Result<(), StatementError> {
    if list.len() > most || !list.is_sorted_by(|one, next| one < next) {
        return Err(StatementError::Bounds(what));
    }
    Ok(())
}

fn statement_hash(payload: &[u8]) -> Hash {
    hash("collab-p2p v1 statement", &[payload])
}

#[cfg(test)]
pub(in crate::engine) mod tests {
    use proptest::prelude::*;

    use super::*;

    const SESSION: SessionId = SessionId([1; 32]);

    #[test]
    fn every_kind_survives_the_wire() {
        for body in bodies() {
            let made = draft(body).sign(&key(1)).unwrap();

            let read = SignedStatement::decode(made.bytes()).unwrap();

            assert_eq!(read, made, "{}", made.body.name());
        }
    }

    #[test]
    fn a_genesis_survives_the_wire_and_names_its_session() {
        let draft = Draft {
            session: SessionId([0; 32]),
            after: Frontier {
                seq: 0,
                hash: Hash([0; 32]),
            },
            parents: Vec::new(),
            standing: None,
            ..draft(genesis_body())
        };

        let made = draft.sign(&key(1)).unwrap();

        assert_eq!(SignedStatement::decode(made.bytes()), Ok(made));
    }

    #[test]
    fn every_kind_cut_short_anywhere_is_refused() {
        for body in bodies() {
            let made = draft(body).sign(&key(1)).unwrap();

            for length in 0..made.bytes().len() {
                assert!(SignedStatement::decode(&made.bytes()[..length]).is_err());
            }
            let longer = [made.bytes(), &[0]].concat();
            assert!(SignedStatement::decode(&longer).is_err());
        }
    }

    #[test]
    fn a_statement_with_any_bit_turned_is_refused() {
        let made = draft(StatementBody::Leave).sign(&key(1)).unwrap();

        for bit in 0..made.bytes().len() * 8 {
            let mut turned = made.bytes().to_vec();
            turned[bit / 8] ^= 1 << (bit % 8);
            assert!(SignedStatement::decode(&turned).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn an_encoding_that_is_not_the_shortest_is_refused() {
        let statement = draft(StatementBody::Leave)
            .sign(&key(1))
            .unwrap()
            .into_value();
        let short = statement.payload().unwrap();
        let place_of_seq = 1 + 32 + 32;
        assert_eq!(short[place_of_seq], 8);

        let (head, tail) = short.split_at(place_of_seq);
        let long = [head, &[0x88, 0x00], &tail[1..]].concat();
        let signed = sign_raw(&long, &statement);

        assert_eq!(postcard::from_bytes::<Statement>(&long).unwrap(), statement);
        assert_eq!(
            SignedStatement::decode(&signed),
            Err(StatementError::NotCanonical)
        );
    }

    #[test]
    fn a_statement_names_one_place_of_one_log_by_one_hash() {
        let one = draft(StatementBody::Leave).sign(&key(1)).unwrap();
        let other = draft(StatementBody::Close {
            reason: String::new(),
        })
        .sign(&key(1))
        .unwrap();
        let proves = |statement: &Verified<Statement>| {
            let place = signed_place(&SESSION, &key(1).id(), 8, &statement.hash());
            verify(
                &key(1).id(),
                Domain::Statement,
                &place,
                &statement.signature(),
            )
            .is_ok()
        };

        assert_ne!(one.hash(), other.hash());
        assert!(proves(&one) && proves(&other));
        assert_eq!(
            one.frontier(),
            Frontier {
                seq: 8,
                hash: one.hash()
            }
        );
    }

    #[test]
    fn a_statement_signed_by_another_key_is_refused() {
        let statement = draft(StatementBody::Leave).sign(&key(1)).unwrap();
        let mut forged = statement.bytes().to_vec();
        let place = signed_place(&SESSION, &key(1).id(), 8, &statement.hash());
        let length = forged.len();
        forged[length - 64..].copy_from_slice(&key(2).sign(Domain::Statement, &place).0);

        assert!(matches!(
            SignedStatement::decode(&forged),
            Err(StatementError::Signature(_))
        ));
    }

    #[test]
    fn a_later_version_is_named_as_such() {
        let mut later = draft(StatementBody::Leave)
            .sign(&key(1))
            .unwrap()
            .bytes()
            .to_vec();
        later[0] = 2;

        assert_eq!(
            SignedStatement::decode(&later),
            Err(StatementError::Version { got: 2 })
        );
    }

    #[test]
    fn a_statement_over_its_size_is_refused_unread() {
        let large = vec![1; STATEMENT_BYTES_MAX + 1];

        assert_eq!(
            SignedStatement::decode(&large),
            Err(StatementError::TooLong(large.len()))
        );
    }

    #[test]
    fn impossible_places_are_refused() {
        let start = Frontier::start(&SESSION);
        let elsewhere = Frontier {
            seq: 0,
            hash: Hash([9; 32]),
        };
        let nowhere = SessionId([0; 32]);
        let leave = || draft(StatementBody::Leave);
        let wrong = [
            Draft {
                after: elsewhere,
                ..leave()
            },
            Draft {
                session: nowhere,
                ..leave()
            },
            Draft {
                parents: Vec::new(),
                ..leave()
            },
            draft(genesis_body()),
            Draft {
                session: nowhere,
                parents: Vec::new(),
                ..draft(genesis_body())
            },
        ];

        assert!(
            Draft {
                after: start,
                ..leave()
            }
            .sign(&key(1))
            .is_ok()
        );
        for draft in wrong {
            assert_eq!(draft.sign(&key(1)), Err(StatementError::Place));
        }
    }

    #[test]
    fn lists_that_are_unordered_repeated_or_too_long_are_refused() {
        let hashes = |numbers: &[u8]| numbers.iter().map(|n| Hash([*n; 32])).collect::<Vec<_>>();
        let with = |parents| {
            Draft {
                parents,
                ..draft(StatementBody::Leave)
            }
            .sign(&key(1))
        };
        let long: Vec<u8> = (0..65).collect();

        assert!(with(hashes(&[1, 2, 3])).is_ok());
        for parents in [hashes(&[2, 1]), hashes(&[1, 1]), hashes(&long)] {
            assert_eq!(
                with(parents),
                Err(StatementError::Bounds("the list of parents"))
            );
        }
    }

    #[test]
    fn a_join_needs_both_signatures_over_what_it_says() {
        let (member, invite) = (key(1), InviteKey::from_seed(&[7; 32]));
        let join = Join::sign(request("ana"), &member, Some(&invite)).unwrap();
        assert_eq!(join.verify(), Ok(()));

        let mut changed = vec![join.clone(); 7];
        changed[0].request.challenge = [0; 32];
        changed[1].request.sponsor = key(5).id();
        changed[2].request.session = SessionId([2; 32]);
        changed[3].request.member = key(5).id();
        changed[4].invite_signature = None;
        changed[5].request.by = Grantee::Member(member.id());
        changed[6].signature = join.invite_signature.unwrap();
        for (case, join) in changed.iter().enumerate() {
            assert!(join.verify().is_err(), "case {case}");
        }
        let without_member = Join::sign(request("ana"), &key(5), Some(&invite)).unwrap();
        let other_seed = InviteKey::from_seed(&[8; 32]);
        let without_ticket = Join::sign(request("ana"), &member, Some(&other_seed)).unwrap();
        assert!(without_member.verify().is_err() && without_ticket.verify().is_err());
    }

    #[test]
    fn a_name_is_short_visible_and_on_one_line() {
        let named = |name: &str| Join::sign(request(name), &key(1), None);

        assert!(named("Ana María 学").is_ok() && named(&"é".repeat(64)).is_ok());
        for name in ["", "  ", "a\nb", "a\u{1b}[2J", &"é".repeat(65)] {
            assert_eq!(named(name), Err(StatementError::Bounds("a member's name")));
        }
    }

    #[test]
    fn a_person_vouches_for_one_member_of_one_session() {
        let vouch = Vouch::sign(&key(9), &SESSION, &key(1).id());

        assert_eq!(vouch.verify(&SESSION, &key(1).id()), Ok(()));
        assert!(vouch.verify(&SESSION, &key(2).id()).is_err());
        assert!(vouch.verify(&SessionId([2; 32]), &key(1).id()).is_err());
    }

    #[test]
    fn a_narrower_grant_gives_less_in_every_respect() {
        let wide = Grant {
            sub_depth: 2,
            max_uses: Some(5),
            ..grant()
        };
        let narrow = Grant {
            rank: Rank(5),
            sub_depth: 1,
            max_uses: Some(5),
            ..grant()
        };
        let wider: [Grant; 8] = [
            Grant {
                rank: wide.rank,
                ..narrow.clone()
            },
            Grant {
                capabilities: Capabilities::ALL,
                ..narrow.clone()
            },
            Grant {
                sub_depth: 2,
                ..narrow.clone()
            },
            Grant {
                max_uses: None,
                ..narrow.clone()
            },
            Grant {
                max_uses: Some(6),
                ..narrow.clone()
            },
            Grant {
                not_after: None,
                ..narrow.clone()
            },
            Grant {
                not_after: Some(Wall(10_001)),
                ..narrow.clone()
            },
            Grant {
                sponsors: Sponsors::UpTo(Rank(4)),
                ..narrow.clone()
            },
        ];

        assert!(narrow.narrows(&wide));
        for grant in wider {
            assert!(!grant.narrows(&wide), "{grant:?}");
        }
        let asks = Grant {
            ask: true,
            ..wide.clone()
        };
        let audience = Grant {
            audience: Some(PersonId(key(9).id())),
            ..wide
        };
        assert!(!narrow.narrows(&asks) && !narrow.narrows(&audience));
    }

    #[test]
    fn an_invitation_asks_where_it_gives_more_than_viewing() {
        let invite =
            |role, asking, uses| Grant::invitation(InviteId([1; 32]), role, asking, None, uses);
        let admins = Sponsors::UpTo(Role::Admin.rank());

        let viewer = invite(Role::Viewer, Asking::Auto, None);
        assert_eq!((viewer.ask, viewer.sponsors), (false, Sponsors::Any));
        let editor = invite(Role::Editor, Asking::Auto, None);
        assert_eq!((editor.ask, &editor.sponsors), (true, &admins));
        let accepted = invite(Role::Editor, Asking::Never, None);
        assert_eq!((accepted.ask, accepted.sponsors), (false, Sponsors::Any));
        let counted = invite(Role::Viewer, Asking::Auto, Some(1));
        assert_eq!((counted.ask, counted.sponsors), (false, admins));
        assert!(invite(Role::Viewer, Asking::Always, None).ask);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(SignedStatement::decode(&bytes).is_err());
            let begun = [&[STATEMENT_VERSION], bytes.as_slice()].concat();
            prop_assert!(SignedStatement::decode(&begun).is_err());
        }

        #[test]
        fn changed_bytes_never_pass(
            kind in 0_usize..12,
            at in any::<prop::sample::Index>(),
            byte in 1_u8..,
        ) {
            let bodies = bodies();
            let body = bodies[kind % bodies.len()].clone();
            let made = draft(body).sign(&key(1)).unwrap();
            let mut changed = made.bytes().to_vec();
            let at = at.index(changed.len());
            changed[at] ^= byte;

            prop_assert!(SignedStatement::decode(&changed).is_err());
        }
    }

    fn key(number: u8) -> MemberKey {
        MemberKey::from_bytes(&[number; 32])
    }

    fn draft(body: StatementBody) -> Draft {
        Draft {
            session: SESSION,
            after: Frontier {
                seq: 7,
                hash: Hash([7; 32]),
            },
            parents: vec![Hash([1; 32]), Hash([2; 32])],
            standing: Some(Hash([1; 32])),
            ts: Wall(1_000),
            body,
        }
    }

    fn sign_raw(payload: &[u8], statement: &Statement) -> Vec<u8> {
        let place = statement.place(&statement_hash(payload));
        let signature = key(1).sign(Domain::Statement, &place);
        [payload, &signature.0[..]].concat()
    }

    fn genesis_body() -> StatementBody {
        StatementBody::Genesis(Genesis {
            nonce: [3; 32],
            discovery: discovery_commitment(&[4; 32]),
        })
    }

    fn grant() -> Grant {
        Grant {
            not_after: Some(Wall(10_000)),
            ..Grant::preset(Grantee::Invite(InviteId([1; 32])), Role::Viewer)
        }
    }

    fn request(name: &str) -> JoinRequest {
        JoinRequest {
            session: SESSION,
            by: Grantee::Invite(InviteKey::from_seed(&[7; 32]).id()),
            member: key(1).id(),
            prekey: AgreementPublic([5; 32]),
            name: name.to_owned(),
            kind: Kind::Human,
            person: Some(Vouch::sign(&key(9), &SESSION, &key(1).id())),
            sponsor: key(2).id(),
            challenge: [6; 32],
        }
    }

    /// One of each kind that is no Genesis, signed by the first key.
    pub(in crate::engine) fn samples() -> (MemberKey, Vec<Vec<u8>>) {
        let signed = |body| draft(body).sign(&key(1)).unwrap().bytes().to_vec();
        (key(1), bodies().into_iter().map(signed).collect())
    }

    /// One of each kind that belongs behind other entries of a log.
    #[expect(
        clippy::too_many_lines,
        reason = "a table of cases reads best in one piece"
    )]
    fn bodies() -> Vec<StatementBody> {
        let secret = crate::engine::epoch::EpochSecret::from_bytes([1; 32]);
        let mut entropy = crate::engine::entropy::Entropy::new([2; 32]);
        let prekey = crate::engine::identity::AgreementKey::from_bytes(&[3; 32]).public();
        let wrap = secret
            .wrap(&SESSION, &key(1).id(), &prekey, &mut entropy)
            .unwrap();
        let previous = secret.wrap_previous(&SESSION, &secret).unwrap();
        let frontier = Frontier {
            seq: 3,
            hash: Hash([3; 32]),
        };
        let epoch = Epoch {
            number: 2,
            scope: Paths::Only(vec!["docs/".to_owned()]),
            id: secret.id(),
            wraps: vec![wrap.clone()],
            previous: vec![previous],
        };
        let revoke = Revoke {
            members: vec![Cut {
                member: key(3).id(),
                frontier,
            }],
            grants: vec![GrantEnd {
                grant: Hash([4; 32]),
                keep: vec![Hash([5; 32])],
            }],
            reason: "spam".to_owned(),
            epoch: Some(epoch.clone()),
        };
        let join = Join::sign(
            request("ana"),
            &key(1),
            Some(&InviteKey::from_seed(&[7; 32])),
        );
        let sponsors = vec![SponsorQuota {
            member: key(2).id(),
            uses: 3,
        }];
        vec![
            StatementBody::Grant(Grant {
                sponsors: Sponsors::These(sponsors),
                ..grant()
            }),
            StatementBody::Admit(Box::new(Admit {
                grant: Hash([4; 32]),
                chain: vec![vec![1, 2, 3]],
                join: join.unwrap(),
                at: Wall(9),
                wraps: vec![EpochWrap {
                    epoch: secret.id(),
                    wrap,
                }],
                principal: Some(key(3).id()),
                kind: Kind::Agent,
            })),
            StatementBody::Revoke(revoke.clone()),
            StatementBody::Epoch(epoch),
            StatementBody::Prekey { key: prekey },
            StatementBody::Fork(Fork {
                member: key(3).id(),
                seq: 4,
                one: ForkEntry::Statement {
                    hash: Hash([6; 32]),
                    signature: Signature([7; 64]),
                },
                other: ForkEntry::Envelope(vec![8; 200]),
            }),
            StatementBody::Seal(Seal {
                document: DocumentId([1; 32]),
                generation: 2,
                heads: vec![Hash([1; 32]), Hash([2; 32])],
                chunk: Hash([3; 32]),
                bytes: 4_000,
            }),
            StatementBody::Leave,
            StatementBody::Role(RoleChange {
                member: key(3).id(),
                rank: Rank(3),
                role: Role::Editor,
                capabilities: Role::Editor.capabilities(),
                scope: Scope::default(),
                covers: Some(frontier),
                revoke: Some(revoke),
            }),
            StatementBody::Quota {
                member: key(3).id(),
                bytes: 1 << 30,
            },
            StatementBody::Close {
                reason: "done".to_owned(),
            },
        ]
    }
}
