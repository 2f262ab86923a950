//! From the set of statements to who is a member and may do what.
//!
//! The set only grows, and every answer is a pure function of it, whatever the order of arrival. A statement is
//! judged by its causal past alone (its parents and all beneath them), so its verdict never changes: it is
//! either *effective*, *void* (well signed by a member but beyond what that member may say, so it is kept to
//! keep logs whole and does nothing), *deferred* (a kind that has no effect in this version), or its author is
//! no member in its past, and then it is refused and not kept. Statements whose parents are missing wait in a
//! bounded pool.
//!
//! Revoke, Role, Fork, Seal and Quota are deferred: kept and passed on without effect. A Leave ends every
//! standing of its key that does not have this Leave in its own past. Whether a log is one chain is the business
//! of [`log`](crate::engine::log), since it holds envelopes too.

mod create;
mod judge;
mod past;
mod pending;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::engine::capability::{Action, Kind, Paths, Standing, may};
use crate::engine::epoch::{EpochError, EpochId, PreviousWrap, Wrap};
use crate::engine::identity::{AgreementPublic, Verified};
use crate::engine::ids::{Hash, InviteId, MemberId, SessionId};
use crate::engine::limits::MEMBERSHIP_HEADS_MAX;
use crate::engine::statement::{
    Admit, Epoch, Grant, Grantee, Join, Statement, StatementBody, StatementError,
};
use crate::engine::time::Wall;

pub use self::create::{Admission, Created, NewSession, Position, make_admit, make_grant};
use self::judge::Author;
pub use self::judge::Reason;
use self::past::Past;
use self::pending::Pending;

/// Why a membership cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// The statement is of another kind.
    #[error("a session begins with a Genesis, got {0}")]
    NoGenesis(&'static str),
    /// A statement could not be made.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// A secret could not be wrapped.
    #[error(transparent)]
    Epoch(#[from] EpochError),
    /// What was to be said would have no effect.
    #[error("the statement would be void: {0}")]
    Void(Reason),
}

/// What became of a statement that was offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inserted {
    /// Kept, and with it those that waited for it: all of them in causal order, to be persisted. Whether one has
    /// effect is said by [`Membership::verdict`].
    New(Vec<Hash>),
    /// It is here already, or waits already.
    Duplicate,
    /// It waits for these.
    Pending {
        /// Statements that are neither here nor waiting, or are waiting themselves.
        missing: Vec<Hash>,
    },
    /// It is not kept, here or on any other replica.
    Invalid(Reason),
}

/// What a kept statement does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// What it says holds.
    Effective,
    /// It does nothing, for this reason.
    Void(Reason),
    /// It is of a kind that this version keeps without effect.
    Deferred,
}

/// A member as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The key.
    pub id: MemberId,
    /// The name that the member chose.
    pub name: String,
    /// Person or program.
    pub kind: Kind,
    /// The key to wrap secrets to.
    pub prekey: AgreementPublic,
    /// The sponsor; of the owner's first device itself.
    pub admitted_by: MemberId,
    /// The sponsor's clock then.
    pub admitted_at: Wall,
    /// The Grant by which it came.
    pub grant: Hash,
    /// What it may do now; none once it is gone.
    pub standing: Option<Standing>,
    /// It ended its membership itself.
    pub left: bool,
}

/// An effective grant.
#[derive(Debug, Clone, Copy)]
pub struct GrantFact<'a> {
    /// The statement's hash.
    pub hash: Hash,
    /// Who issued it.
    pub issuer: MemberId,
    /// When, by the issuer's clock.
    pub issued_at: Wall,
    /// What it gives.
    pub grant: &'a Grant,
}

/// An effective epoch.
#[derive(Debug, Clone, Copy)]
pub struct EpochFact<'a> {
    /// The statement's hash.
    pub statement: Hash,
    /// Who began it.
    pub author: MemberId,
    /// Its number, wraps and commitment.
    pub epoch: &'a Epoch,
}

/// An effective end of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClosedFact<'a> {
    /// Who ended it.
    pub by: MemberId,
    /// When, by that member's clock.
    pub at: Wall,
    /// Words for people.
    pub reason: &'a str,
}

/// The statements of one session and what follows from them.
#[derive(Debug, Clone)]
pub struct Membership {
    session: SessionId,
    root: MemberId,
    nodes: BTreeMap<Hash, Node>,
    /// Hashes by the position at which they were kept here; positions are the currency of [`Past`].
    order: Vec<Hash>,
    heads: BTreeSet<Hash>,
    /// Effective Admits by member.
    admits: BTreeMap<MemberId, BTreeSet<Hash>>,
    /// Effective Leaves by member.
    leaves: BTreeMap<MemberId, BTreeSet<Hash>>,
    /// Effective Prekeys by member.
    prekeys: BTreeMap<MemberId, BTreeSet<Hash>>,
    /// Effective Grants by whom they are made to.
    grantees: BTreeMap<Grantee, BTreeSet<Hash>>,
    /// Effective Admits by the Grant they name.
    uses: BTreeMap<Hash, BTreeSet<Hash>>,
    epochs: BTreeSet<Hash>,
    closes: BTreeSet<Hash>,
    pending: Pending,
}

#[derive(Debug, Clone)]
struct Node {
    statement: Verified<Statement>,
    position: u32,
    /// Longest way to the Genesis: sorts causally, alike on every replica.
    height: u64,
    /// All beneath the statement, and itself.
    past: Past,
    verdict: Verdict,
    /// What an effective Admit gives.
    standing: Option<Standing>,
}

impl Membership {
    /// The membership of the session that this Genesis begins.
    pub fn new(genesis: Verified<Statement>) -> Result<Self, MembershipError> {
        let StatementBody::Genesis(_) = genesis.body else {
            return Err(MembershipError::NoGenesis(genesis.body.name()));
        };
        let hash = genesis.hash();
        let mut membership = Self {
            session: SessionId(hash.0),
            root: genesis.member,
            nodes: BTreeMap::new(),
            order: Vec::new(),
            heads: BTreeSet::new(),
            admits: BTreeMap::new(),
            leaves: BTreeMap::new(),
            prekeys: BTreeMap::new(),
            grantees: BTreeMap::new(),
            uses: BTreeMap::new(),
            epochs: BTreeSet::new(),
            closes: BTreeSet::new(),
            pending: Pending::default(),
        };
        membership.keep(genesis, Past::default(), Verdict::Effective, None);
        Ok(membership)
    }

    /// Offers a statement. Total: every statement has one of four outcomes, and none is an error.
    pub fn insert(&mut self, statement: Verified<Statement>) -> Inserted {
        let hash = statement.hash();
        if self.nodes.contains_key(&hash) || self.pending.holds(&hash) {
            return Inserted::Duplicate;
        }
        if statement.session != self.session {
            return Inserted::Invalid(Reason::OtherSession);
        }
        let missing = self.missing(&statement.parents);
        if !missing.is_empty() {
            self.pending.hold(statement, &missing);
            return Inserted::Pending { missing };
        }
        match self.settle(statement) {
            Ok(()) => Inserted::New(self.release(hash)),
            Err(reason) => Inserted::Invalid(reason),
        }
    }

    /// Which of these statements are not here.
    pub fn missing(&self, heads: &[Hash]) -> Vec<Hash> {
        heads
            .iter()
            .filter(|head| !self.nodes.contains_key(head))
            .copied()
            .collect()
    }

    /// The session's id.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// The session's root key.
    pub fn root(&self) -> MemberId {
        self.root
    }

    /// The newest statements: those that no other names as its parent.
    pub fn heads(&self) -> &BTreeSet<Hash> {
        &self.heads
    }

    /// Heads for a new statement or envelope of `member`: all of them, ascending, or, where there are more than
    /// [`MEMBERSHIP_HEADS_MAX`], so many with the member's standing beneath one of them.
    pub fn heads_for(&self, member: &MemberId) -> Vec<Hash> {
        let source = self.standing(member).map(|standing| standing.source);
        let knows_member = |head: &Hash| match (
            self.nodes.get(head),
            source.and_then(|s| self.nodes.get(&s)),
        ) {
            (Some(head), Some(source)) => head.past.holds(source.position),
            (Some(_) | None, _) => false,
        };
        let mut heads: Vec<Hash> = self.heads.iter().copied().collect();
        heads.sort_by_key(|head| !knows_member(head));
        heads.truncate(MEMBERSHIP_HEADS_MAX);
        heads.sort();
        heads
    }

    /// What a member may do now: the most senior of its effective standings.
    pub fn standing(&self, member: &MemberId) -> Option<Standing> {
        self.standings(member, None).into_iter().next()
    }

    /// What a member could do as of these heads, for judging what it wrote then. None where a head is not here:
    /// see [`Self::missing`].
    pub fn standing_in_past(&self, member: &MemberId, heads: &[Hash]) -> Option<Standing> {
        let past = self.past_of(heads)?;
        self.standings(member, Some(&past)).into_iter().next()
    }

    /// Whether some effective standing of the member allows the action now.
    pub fn may(&self, member: &MemberId, action: &Action) -> bool {
        self.standings(member, None)
            .iter()
            .any(|standing| may(standing, action))
    }

    /// Whether some standing of the member as of these heads allows the action. False where a head is not here.
    pub fn may_in_past(&self, member: &MemberId, heads: &[Hash], action: &Action) -> bool {
        let Some(past) = self.past_of(heads) else {
            return false;
        };
        self.standings(member, Some(&past))
            .iter()
            .any(|standing| may(standing, action))
    }

    /// Whether others talk to this member at this time: it has a standing whose time is not over.
    pub fn is_present(&self, member: &MemberId, at: Wall) -> bool {
        let lasts = |standing: &Standing| standing.until.is_none_or(|until| at <= until);
        self.standings(member, None).iter().any(lasts)
    }

    /// When the next time of some standing is over: the first moment at or after `at` that is the last of one.
    pub fn next_end(&self, at: Wall) -> Option<Wall> {
        let standings = self.admits.keys().flat_map(|id| self.standings(id, None));
        let ends = standings.filter_map(|standing| standing.until);
        ends.filter(|until| at <= *until).min()
    }

    /// Everybody who was ever admitted, by id.
    pub fn members(&self) -> impl Iterator<Item = Member> {
        self.admits.keys().filter_map(|id| self.member(id))
    }

    /// One who was ever admitted.
    pub fn member(&self, id: &MemberId) -> Option<Member> {
        let standing = self.standing(id);
        let admits = self.admits.get(id)?;
        let source = match &standing {
            Some(standing) => standing.source,
            None => *admits.iter().min_by_key(|hash| self.seniority(hash))?,
        };
        let node = self.nodes.get(&source)?;
        let StatementBody::Admit(admit) = &node.statement.body else {
            return None;
        };
        let request = &admit.join.request;
        Some(Member {
            id: *id,
            name: request.name.clone(),
            kind: node.standing.as_ref()?.kind,
            prekey: self.prekey(id, node, request.prekey),
            admitted_by: node.statement.member,
            admitted_at: admit.at,
            grant: admit.grant,
            left: self.leaves.contains_key(id) && standing.is_none(),
            standing,
        })
    }

    /// The effective grants made to this invitation or key: the most senior first, then by hash. So whoever
    /// repeats another's invitation with less in it takes nothing from its holders.
    pub fn grants_to(&self, to: &Grantee) -> Vec<GrantFact<'_>> {
        let hashes = self.grantees.get(to).into_iter().flatten();
        let mut facts: Vec<_> = hashes.filter_map(|hash| self.grant_by_hash(hash)).collect();
        facts.sort_by_key(|fact| (fact.grant.rank, fact.hash));
        facts
    }

    /// The most senior effective grant to this invitation.
    pub fn grant(&self, invite: &InviteId) -> Option<GrantFact<'_>> {
        self.grants_to(&Grantee::Invite(*invite)).into_iter().next()
    }

    /// The effective grant made by this statement.
    pub fn grant_by_hash(&self, hash: &Hash) -> Option<GrantFact<'_>> {
        let node = self
            .nodes
            .get(hash)
            .filter(|node| node.verdict == Verdict::Effective)?;
        let StatementBody::Grant(grant) = &node.statement.body else {
            return None;
        };
        let (issuer, issued_at) = (node.statement.member, node.statement.ts);
        Some(GrantFact {
            hash: *hash,
            issuer,
            issued_at,
            grant,
        })
    }

    /// All effective grants, by hash.
    pub fn grants(&self) -> impl Iterator<Item = GrantFact<'_>> {
        self.nodes
            .keys()
            .filter_map(|hash| self.grant_by_hash(hash))
    }

    /// The members who came by this grant, each once.
    pub fn uses(&self, grant: &Hash) -> BTreeSet<MemberId> {
        let admits = self.uses.get(grant).into_iter().flatten();
        admits
            .filter_map(|hash| Some(self.admit(hash)?.join.request.member))
            .collect()
    }

    /// Whether `sponsor` may let a joiner in at this time by its own clock, without leeway, and by which grant.
    /// `chain` is what the joiner's ticket carried.
    pub fn admissible(
        &self,
        sponsor: &MemberId,
        join: Join,
        chain: Vec<Vec<u8>>,
        at: Wall,
    ) -> Result<Admission, Reason> {
        let standing = self.standing(sponsor).ok_or(Reason::NoStanding)?;
        let mut refused = None;
        for fact in self.grants_behind(&join.request.by, &chain)? {
            match self.gives(&fact, (sponsor, &standing), &join, &chain, at) {
                Ok(gives) => {
                    return Ok(Admission {
                        grant: fact.hash,
                        gives,
                        chain,
                        join,
                        at,
                    });
                }
                Err(reason) => refused = refused.or(Some(reason)),
            }
        }
        Err(refused.unwrap_or(Reason::UnknownGrant))
    }

    /// All effective epochs, by number and id.
    pub fn epochs(&self) -> Vec<EpochFact<'_>> {
        let mut epochs: Vec<_> = self
            .epochs
            .iter()
            .filter_map(|hash| self.epoch_by_hash(hash))
            .collect();
        epochs.sort_by_key(|fact| (fact.epoch.number, fact.epoch.id, fact.statement));
        epochs
    }

    /// The effective epoch with this commitment (the one with the smallest number if it was said twice).
    pub fn epoch(&self, id: &EpochId) -> Option<EpochFact<'_>> {
        self.epochs().into_iter().find(|fact| fact.epoch.id == *id)
    }

    /// The epoch to write under: of those for the whole session the one with the greatest number; of several the
    /// one begun by the most senior; of several such the one with the smallest id.
    pub fn current_epoch(&self) -> Option<EpochFact<'_>> {
        let whole = |fact: &EpochFact<'_>| fact.epoch.scope == Paths::All;
        self.epochs().into_iter().filter(whole).min_by_key(|fact| {
            let author = self
                .nodes
                .get(&fact.statement)
                .and_then(|node| self.author_standing(node));
            (
                Reverse(fact.epoch.number),
                author.map(|standing| standing.rank),
                fact.epoch.id,
            )
        })
    }

    /// Every wrap of an epoch's secret in any effective statement, for [`Keyring::open_wraps`].
    ///
    /// [`Keyring::open_wraps`]: crate::engine::epoch::Keyring::open_wraps
    pub fn wraps(&self) -> impl Iterator<Item = (EpochId, &Wrap)> {
        self.nodes
            .values()
            .filter(|node| node.verdict == Verdict::Effective)
            .flat_map(wraps_in)
    }

    /// What each effective epoch wraps of those before it, newest first, for [`Keyring::open_previous`].
    ///
    /// [`Keyring::open_previous`]: crate::engine::epoch::Keyring::open_previous
    pub fn previous_wraps(&self) -> Vec<(EpochId, &[PreviousWrap])> {
        let facts = self.epochs().into_iter().rev();
        facts
            .map(|fact| (fact.epoch.id, fact.epoch.previous.as_slice()))
            .collect()
    }

    /// How the session ended, if it did: of several ends the one with the smallest hash.
    pub fn closed(&self) -> Option<ClosedFact<'_>> {
        let node = self.nodes.get(self.closes.first()?)?;
        let StatementBody::Close { reason } = &node.statement.body else {
            return None;
        };
        Some(ClosedFact {
            by: node.statement.member,
            at: node.statement.ts,
            reason,
        })
    }

    /// What a kept statement does.
    pub fn verdict(&self, hash: &Hash) -> Option<&Verdict> {
        self.nodes.get(hash).map(|node| &node.verdict)
    }

    /// A kept statement.
    pub fn get(&self, hash: &Hash) -> Option<&Verified<Statement>> {
        self.nodes.get(hash).map(|node| &node.statement)
    }

    /// The kept statements of one author, in the order of its log.
    pub fn statements_of(&self, author: &MemberId) -> Vec<&Verified<Statement>> {
        let nodes = self.nodes.values().map(|node| &node.statement);
        let mut statements: Vec<_> = nodes
            .filter(|statement| statement.member == *author)
            .collect();
        statements.sort_by_key(|statement| statement.frontier());
        statements
    }

    /// All kept statements in a causal order that is the same on every replica: whoever inserts them so never
    /// has one wait. Genesis comes first.
    pub fn all(&self) -> Vec<&Verified<Statement>> {
        self.beyond(&[])
    }

    /// The kept statements that whoever has these heads lacks, in causal order. Unknown heads count for nothing.
    pub fn beyond(&self, heads: &[Hash]) -> Vec<&Verified<Statement>> {
        let known = heads
            .iter()
            .filter_map(|head| self.nodes.get(head))
            .map(|node| &node.past);
        let known = Past::union(known);
        let mut nodes: Vec<&Node> = self
            .nodes
            .values()
            .filter(|node| !known.holds(node.position))
            .collect();
        nodes.sort_by_key(|node| (node.height, node.statement.hash()));
        nodes.into_iter().map(|node| &node.statement).collect()
    }

    /// Kept statements.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never: there is a Genesis.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Statements that wait for others.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// What waiting statements wait for and nobody has offered yet, to be asked for.
    pub fn wanted(&self) -> Vec<Hash> {
        self.pending
            .wanted()
            .filter(|hash| !self.pending.holds(hash))
            .copied()
            .collect()
    }
}

/// How a statement enters.
impl Membership {
    /// Judges a statement whose parents are all here, and keeps it unless it is refused.
    fn settle(&mut self, statement: Verified<Statement>) -> Result<(), Reason> {
        let past = self.past_of(&statement.parents).unwrap_or_default();
        let (verdict, standing) = self.verdict_on(&statement, &past)?;
        self.keep(statement, past, verdict, standing);
        Ok(())
    }

    /// What would become of a statement whose parents are all here.
    fn preview(&self, statement: &Verified<Statement>) -> Result<Verdict, Reason> {
        let past = self.past_of(&statement.parents).ok_or(Reason::NoStanding)?;
        self.verdict_on(statement, &past)
            .map(|(verdict, _)| verdict)
    }

    fn verdict_on(
        &self,
        statement: &Verified<Statement>,
        past: &Past,
    ) -> Result<(Verdict, Option<Standing>), Reason> {
        let author = match self.judge_author(statement, past)? {
            Ok(author) => author,
            Err(reason) => return Ok((Verdict::Void(reason), None)),
        };
        match (self.judge(statement, &author, past), author) {
            (Ok(judged), _) => Ok(judged),
            // Whoever fails to admit itself is a stranger, and strangers fill nobody's memory.
            (Err(reason), Author::Oneself) => Err(reason),
            (Err(reason), Author::Root | Author::Member(_)) => Ok((Verdict::Void(reason), None)),
        }
    }

    /// Settles what waited for a statement that is now here, and what waited for those; all kept, in order.
    fn release(&mut self, hash: Hash) -> Vec<Hash> {
        let mut kept = vec![hash];
        let mut next = 0;
        while let Some(arrived) = kept.get(next).copied() {
            next += 1;
            for statement in self.pending.ready(&arrived) {
                let hash = statement.hash();
                if self.settle(statement).is_ok() {
                    kept.push(hash);
                }
            }
        }
        kept
    }

    fn keep(
        &mut self,
        statement: Verified<Statement>,
        mut past: Past,
        verdict: Verdict,
        standing: Option<Standing>,
    ) {
        let hash = statement.hash();
        let position = u32::try_from(self.order.len()).unwrap_or(u32::MAX);
        past.add(position);
        let heights = statement
            .parents
            .iter()
            .filter_map(|parent| self.nodes.get(parent));
        let height = heights
            .map(|node| node.height)
            .max()
            .map_or(0, |height| height + 1);
        for parent in &statement.parents {
            self.heads.remove(parent);
        }
        self.heads.insert(hash);
        self.order.push(hash);
        if verdict == Verdict::Effective {
            self.index(&statement);
        }
        self.nodes.insert(
            hash,
            Node {
                statement,
                position,
                height,
                past,
                verdict,
                standing,
            },
        );
    }

    fn index(&mut self, statement: &Verified<Statement>) {
        let (hash, author) = (statement.hash(), statement.member);
        match &statement.body {
            StatementBody::Grant(grant) => {
                self.grantees.entry(grant.to).or_default().insert(hash);
            }
            StatementBody::Admit(admit) => {
                self.admits
                    .entry(admit.join.request.member)
                    .or_default()
                    .insert(hash);
                self.uses.entry(admit.grant).or_default().insert(hash);
            }
            StatementBody::Epoch(_) => {
                self.epochs.insert(hash);
            }
            StatementBody::Prekey { .. } => {
                self.prekeys.entry(author).or_default().insert(hash);
            }
            StatementBody::Leave => {
                self.leaves.entry(author).or_default().insert(hash);
            }
            StatementBody::Close { .. } => {
                self.closes.insert(hash);
            }
            StatementBody::Genesis(_)
            | StatementBody::Revoke(_)
            | StatementBody::Fork(_)
            | StatementBody::Seal(_)
            | StatementBody::Role(_)
            | StatementBody::Quota { .. } => {}
        }
    }
}

/// Questions about a past. `None` stands for everything that is here.
impl Membership {
    fn past_of(&self, heads: &[Hash]) -> Option<Past> {
        let pasts: Option<Vec<&Past>> = heads
            .iter()
            .map(|head| self.nodes.get(head).map(|node| &node.past))
            .collect();
        pasts.map(|pasts| Past::union(pasts.into_iter()))
    }

    fn everything(&self) -> Past {
        Past::up_to(u32::try_from(self.order.len()).unwrap_or(u32::MAX))
    }

    /// Effective standings of a member within a past, most senior first; of equals the one that allows more,
    /// then the one with the smallest hash.
    fn standings(&self, member: &MemberId, past: Option<&Past>) -> Vec<Standing> {
        let own = self.own_standings(member, past);
        let stands = |standing: &Standing| {
            standing
                .principal
                .is_none_or(|principal| self.is_human_within(&principal, past))
        };
        own.into_iter().filter(stands).collect()
    }

    /// A principal is a person who stands for himself: so no two members can hold each other up.
    fn is_human_within(&self, member: &MemberId, past: Option<&Past>) -> bool {
        self.own_standings(member, past)
            .iter()
            .any(|standing| standing.kind == Kind::Human && standing.principal.is_none())
    }

    /// Standings that no Leave of the member has ended, whatever becomes of a principal.
    fn own_standings(&self, member: &MemberId, past: Option<&Past>) -> Vec<Standing> {
        let within = |node: &&Node| past.is_none_or(|past| past.holds(node.position));
        let nodes = |hashes: Option<&BTreeSet<Hash>>| -> Vec<&Node> {
            let hashes = hashes.into_iter().flatten();
            hashes
                .filter_map(|hash| self.nodes.get(hash))
                .filter(within)
                .collect()
        };
        let leaves = nodes(self.leaves.get(member));
        let mut admits = nodes(self.admits.get(member));
        admits.retain(|admit| leaves.iter().all(|leave| admit.past.holds(leave.position)));
        admits.sort_by_key(|admit| self.seniority(&admit.statement.hash()));
        admits
            .into_iter()
            .filter_map(|admit| admit.standing.clone())
            .collect()
    }

    /// Sorts standings as [`Self::standings`] says.
    fn seniority(&self, admit: &Hash) -> impl Ord + use<> {
        let standing = self
            .nodes
            .get(admit)
            .and_then(|node| node.standing.as_ref());
        let allowed = standing.map_or(0, |standing| standing.capabilities.iter().count());
        (
            standing.map(|standing| standing.rank),
            Reverse(allowed),
            *admit,
        )
    }

    /// The newest Prekey said under this admission, or the key in its Join.
    fn prekey(
        &self,
        member: &MemberId,
        admit: &Node,
        joined_with: AgreementPublic,
    ) -> AgreementPublic {
        let hashes = self.prekeys.get(member).into_iter().flatten();
        let later = hashes.filter_map(|hash| self.nodes.get(hash));
        let later = later.filter(|node| node.past.holds(admit.position));
        let newest = later.max_by_key(|node| node.statement.frontier());
        match newest.map(|node| &node.statement.body) {
            Some(StatementBody::Prekey { key }) => *key,
            Some(_) | None => joined_with,
        }
    }

    fn admit(&self, hash: &Hash) -> Option<&Admit> {
        let StatementBody::Admit(admit) = &self.nodes.get(hash)?.statement.body else {
            return None;
        };
        Some(admit)
    }

    fn epoch_by_hash(&self, hash: &Hash) -> Option<EpochFact<'_>> {
        let node = self.nodes.get(hash)?;
        let StatementBody::Epoch(epoch) = &node.statement.body else {
            return None;
        };
        Some(EpochFact {
            statement: *hash,
            author: node.statement.member,
            epoch,
        })
    }

    /// The standing under which a kept statement was made.
    fn author_standing(&self, node: &Node) -> Option<&Standing> {
        self.nodes.get(&node.statement.standing?)?.standing.as_ref()
    }
}

fn wraps_in(node: &Node) -> Vec<(EpochId, &Wrap)> {
    match &node.statement.body {
        StatementBody::Admit(admit) => admit
            .wraps
            .iter()
            .map(|one| (one.epoch, &one.wrap))
            .collect(),
        StatementBody::Epoch(epoch) => epoch.wraps.iter().map(|wrap| (epoch.id, wrap)).collect(),
        StatementBody::Genesis(_)
        | StatementBody::Grant(_)
        | StatementBody::Revoke(_)
        | StatementBody::Prekey { .. }
        | StatementBody::Fork(_)
        | StatementBody::Seal(_)
        | StatementBody::Leave
        | StatementBody::Role(_)
        | StatementBody::Quota { .. }
        | StatementBody::Close { .. } => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
