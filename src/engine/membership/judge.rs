//! Whether a statement holds: a pure function of the statement and its causal past.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::engine::capability::{Action, Capability, Kind, Rank, Role, Standing, may};
use crate::engine::identity::Verified;
use crate::engine::ids::{Hash, InviteId, MemberId};
use crate::engine::limits::{ADMIT_LATE_MS_MAX, GRANT_CHAIN_MAX};
use crate::engine::statement::{
    Admit, Epoch, Grant, Grantee, Join, SignedStatement, Sponsors, Statement, StatementBody,
    ends_no_later,
};
use crate::engine::time::Wall;

use super::past::Past;
use super::{GrantFact, Membership, Verdict};

/// Why a statement is refused, or kept without effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// It belongs to another session.
    #[error("it belongs to another session")]
    OtherSession,
    /// A grant by an invitation's key counts inside an admission only.
    #[error("a grant signed by an invitation stands alone")]
    LooseGrant,
    /// The author is no member in the statement's past, or names another's standing.
    #[error("its author has no standing in its past")]
    NoStanding,
    /// The author had left.
    #[error("its author had left")]
    AuthorLeft,
    /// The person for whom the author stands was no longer a member.
    #[error("the person its author stands for had gone")]
    PrincipalGone,
    /// The root key signs only Genesis, grants of rank 1 and their revocation.
    #[error("the root key may not say this")]
    NotForRoot,
    /// The author's standing does not allow it.
    #[error("its author's standing does not allow it")]
    NotPermitted,
    /// It gives more than its issuer has, or a rank not below the issuer's.
    #[error("it gives more than its issuer has")]
    Widened,
    /// The role's name promises less than the rank gives.
    #[error("its rank is above its role")]
    RankAboveRole,
    /// The role's name promises less than the capabilities give.
    #[error("it gives more than its role's name says")]
    MoreThanRole,
    /// No effective grant with that hash is in its past.
    #[error("it names no grant in its past")]
    UnknownGrant,
    /// A link of the chain is unsigned, by another key, or wider than the one before.
    #[error("its chain of grants does not hold")]
    BrokenChain,
    /// The Join is not signed as it must be, or made for another session, sponsor or grant.
    #[error("its join does not verify")]
    BadJoin,
    /// The grant is for another person.
    #[error("the grant is for another person")]
    WrongAudience,
    /// The grant had expired.
    #[error("the grant had expired")]
    Expired,
    /// The grant had been used as often as it may.
    #[error("the grant had been used up")]
    UsedUp,
    /// The author may not admit by this grant.
    #[error("its author may not sponsor by this grant")]
    NotASponsor,
    /// An agent passed off as a person, or a person with a principal.
    #[error("it mistakes an agent for a person")]
    WrongKind,
    /// The principal is no human member.
    #[error("the principal is no human member")]
    NoPrincipal,
    /// The epoch's number does not follow, or its secret was used before.
    #[error("the epoch does not follow those before it")]
    EpochOutOfOrder,
}

/// In what capacity a statement was made.
#[derive(Debug)]
pub(super) enum Author {
    /// By the session's root key.
    Root,
    /// By a key that admits itself by a grant of the root key.
    Oneself,
    /// By a member.
    Member(Standing),
}

impl Membership {
    /// Outer error: the author is no member in this past, so the statement is not kept. Inner error: it is one
    /// whose words no longer count.
    pub(super) fn judge_author(
        &self,
        statement: &Statement,
        past: &Past,
    ) -> Result<Result<Author, Reason>, Reason> {
        if statement.seq == 0 {
            return Err(Reason::LooseGrant);
        }
        let Some(standing) = statement.standing else {
            return self.author_without_standing(statement).map(Ok);
        };
        let node = self
            .nodes
            .get(&standing)
            .filter(|node| past.holds(node.position));
        let standing = node
            .and_then(|node| node.standing.as_ref())
            .ok_or(Reason::NoStanding)?;
        if self.holder(standing) != Some(statement.member) {
            return Err(Reason::NoStanding);
        }
        let own = self.own_standings(&statement.member, Some(past));
        if !own.contains(standing) {
            return Ok(Err(Reason::AuthorLeft));
        }
        let principal = standing.principal;
        if principal.is_some_and(|principal| !self.is_human_within(&principal, Some(past))) {
            return Ok(Err(Reason::PrincipalGone));
        }
        Ok(Ok(Author::Member(standing.clone())))
    }

    fn author_without_standing(&self, statement: &Statement) -> Result<Author, Reason> {
        if statement.member == self.root {
            return Ok(Author::Root);
        }
        let StatementBody::Admit(admit) = &statement.body else {
            return Err(Reason::NoStanding);
        };
        if admit.join.request.member != statement.member {
            return Err(Reason::NoStanding);
        }
        Ok(Author::Oneself)
    }

    fn holder(&self, standing: &Standing) -> Option<MemberId> {
        Some(self.admit(&standing.source)?.join.request.member)
    }

    /// Whether the statement has effect, and which standing it gives.
    pub(super) fn judge(
        &self,
        statement: &Verified<Statement>,
        author: &Author,
        past: &Past,
    ) -> Result<(Verdict, Option<Standing>), Reason> {
        let effective = (Verdict::Effective, None);
        match &statement.body {
            StatementBody::Genesis(_) => Err(Reason::OtherSession),
            StatementBody::Grant(grant) => self.judge_grant(author, grant).map(|()| effective),
            StatementBody::Admit(admit) => {
                let standing = self.judge_admit(statement, author, admit, past)?;
                Ok((Verdict::Effective, Some(standing)))
            }
            StatementBody::Epoch(epoch) => {
                author.member()?.need(&Action::Rekey)?;
                self.judge_epoch(epoch, past).map(|()| effective)
            }
            StatementBody::Prekey { .. } => author.member().map(|_| effective),
            StatementBody::Leave => author.member()?.need(&Action::Leave).map(|()| effective),
            StatementBody::Close { .. } => author
                .member()?
                .need(&Action::EndSession)
                .map(|()| effective),
            StatementBody::Revoke(_) => Ok((Verdict::Deferred, None)),
            StatementBody::Fork(_)
            | StatementBody::Seal(_)
            | StatementBody::Role(_)
            | StatementBody::Quota { .. } => author.member().map(|_| (Verdict::Deferred, None)),
        }
    }

    fn judge_grant(&self, author: &Author, grant: &Grant) -> Result<(), Reason> {
        check_preset(grant)?;
        if usize::from(grant.sub_depth) > GRANT_CHAIN_MAX {
            return Err(Reason::Widened);
        }
        let issuer = match author {
            Author::Root if grant.rank == Rank::OWNER => return Ok(()),
            Author::Root => return Err(Reason::NotForRoot),
            Author::Oneself => return Err(Reason::NoStanding),
            Author::Member(standing) => standing,
        };
        if !issuer.capabilities.has(Capability::Invite) {
            return Err(Reason::NotPermitted);
        }
        let action = Action::CreateInvite {
            rank: grant.rank,
            capabilities: grant.capabilities,
        };
        let narrower = may(issuer, &action)
            && issuer.scope.covers(&grant.scope)
            && ends_no_later(grant.membership_until, issuer.until);
        if narrower {
            Ok(())
        } else {
            Err(Reason::Widened)
        }
    }

    fn judge_admit(
        &self,
        statement: &Verified<Statement>,
        author: &Author,
        admit: &Admit,
        past: &Past,
    ) -> Result<Standing, Reason> {
        let node = self
            .nodes
            .get(&admit.grant)
            .filter(|node| past.holds(node.position));
        node.ok_or(Reason::UnknownGrant)?;
        let fact = self
            .grant_by_hash(&admit.grant)
            .ok_or(Reason::UnknownGrant)?;
        let grant = self.follow_chain(&admit.grant, fact.grant, &admit.chain)?;
        self.judge_join(&statement.member, &admit.join, &grant)?;
        let late = Duration::from_millis(ADMIT_LATE_MS_MAX);
        if grant.not_after.is_some_and(|end| admit.at > end + late) {
            return Err(Reason::Expired);
        }
        match author {
            Author::Root => return Err(Reason::NotForRoot),
            Author::Oneself if fact.issuer == self.root && admit.chain.is_empty() => {
                if grant.to != Grantee::Member(statement.member) {
                    return Err(Reason::NotASponsor);
                }
            }
            Author::Oneself => return Err(Reason::NotASponsor),
            Author::Member(sponsor) => {
                self.judge_sponsor(sponsor, &statement.member, &admit.grant, &grant, past)?;
            }
        }
        self.judge_uses(&admit.grant, &grant, &admit.join.request.member, past)?;
        self.judge_kind(admit, &grant, past)?;
        Ok(Standing {
            source: statement.hash(),
            rank: grant.rank,
            role: grant.role,
            capabilities: grant.capabilities,
            scope: grant.scope,
            kind: admit.kind,
            principal: admit.principal,
            until: grant.membership_until,
        })
    }

    /// The last grant of a chain, each link signed by the invitation of the one before and narrower.
    pub(super) fn follow_chain(
        &self,
        hash: &Hash,
        grant: &Grant,
        chain: &[Vec<u8>],
    ) -> Result<Grant, Reason> {
        let mut wider = (*hash, grant.clone());
        for link in chain {
            let link = SignedStatement::decode(link).map_err(|_| Reason::BrokenChain)?;
            let StatementBody::Grant(narrower) = &link.body else {
                return Err(Reason::BrokenChain);
            };
            let signed_by_invite = wider.1.to == Grantee::Invite(InviteId(link.member.0));
            let follows =
                link.seq == 0 && link.session == self.session && link.standing == Some(wider.0);
            if !signed_by_invite || !follows || !narrower.narrows(&wider.1) {
                return Err(Reason::BrokenChain);
            }
            check_preset(narrower)?;
            wider = (link.hash(), narrower.clone());
        }
        Ok(wider.1)
    }

    /// The grants by which somebody may come: to the key that he proves, or the one beneath his chain.
    pub(super) fn grants_behind(
        &self,
        by: &Grantee,
        chain: &[Vec<u8>],
    ) -> Result<Vec<GrantFact<'_>>, Reason> {
        let Some(first) = chain.first() else {
            return Ok(self.grants_to(by));
        };
        if chain.len() > GRANT_CHAIN_MAX {
            return Err(Reason::BrokenChain);
        }
        let first = SignedStatement::decode(first).map_err(|_| Reason::BrokenChain)?;
        let hash = first.standing.ok_or(Reason::BrokenChain)?;
        Ok(self.grant_by_hash(&hash).into_iter().collect())
    }

    /// What a grant gives a joiner now.
    pub(super) fn gives(
        &self,
        fact: &GrantFact<'_>,
        (sponsor, standing): (&MemberId, &Standing),
        join: &Join,
        chain: &[Vec<u8>],
        at: Wall,
    ) -> Result<Grant, Reason> {
        let everything = self.everything();
        let last = self.follow_chain(&fact.hash, fact.grant, chain)?;
        self.judge_join(sponsor, join, &last)?;
        if last.not_after.is_some_and(|end| at > end) {
            return Err(Reason::Expired);
        }
        self.judge_uses(&fact.hash, &last, &join.request.member, &everything)?;
        self.judge_sponsor(standing, sponsor, &fact.hash, &last, &everything)?;
        Ok(last)
    }

    fn judge_join(&self, sponsor: &MemberId, join: &Join, grant: &Grant) -> Result<(), Reason> {
        let request = &join.request;
        let meant = request.session == self.session && request.sponsor == *sponsor;
        if !meant || request.by != grant.to || request.member == self.root {
            return Err(Reason::BadJoin);
        }
        join.verify().map_err(|_| Reason::BadJoin)?;
        let person = request.person.as_ref().map(|vouch| vouch.person);
        if grant.audience.is_some() && grant.audience != person {
            return Err(Reason::WrongAudience);
        }
        Ok(())
    }

    fn judge_sponsor(
        &self,
        standing: &Standing,
        sponsor: &MemberId,
        grant_hash: &Hash,
        grant: &Grant,
        past: &Past,
    ) -> Result<(), Reason> {
        let allowed = match &grant.sponsors {
            Sponsors::Any => true,
            Sponsors::UpTo(rank) => standing.rank <= *rank,
            Sponsors::These(list) => list.iter().any(|entry| {
                let used = self
                    .admits_by(grant_hash, past)
                    .filter(|(by, _)| by == sponsor)
                    .count();
                entry.member == *sponsor && used < usize::try_from(entry.uses).unwrap_or(usize::MAX)
            }),
        };
        if allowed && may(standing, &Action::Admit { rank: grant.rank }) {
            Ok(())
        } else {
            Err(Reason::NotASponsor)
        }
    }

    /// A member who came by the grant may come by it again; others only while uses are left.
    fn judge_uses(
        &self,
        grant_hash: &Hash,
        last: &Grant,
        member: &MemberId,
        past: &Past,
    ) -> Result<(), Reason> {
        let widest = self
            .grant_by_hash(grant_hash)
            .and_then(|fact| fact.grant.max_uses);
        let by_last = |admit: &&Admit| admit.join.request.by == last.to;
        let admits = || self.admits_by(grant_hash, past).map(|(_, admit)| admit);
        if is_left(widest, member, admits())
            && is_left(last.max_uses, member, admits().filter(by_last))
        {
            Ok(())
        } else {
            Err(Reason::UsedUp)
        }
    }

    /// Admissions by one grant within a past, with their sponsors.
    fn admits_by<'a>(
        &'a self,
        grant: &Hash,
        past: &'a Past,
    ) -> impl Iterator<Item = (MemberId, &'a Admit)> {
        let nodes = self
            .uses
            .get(grant)
            .into_iter()
            .flatten()
            .filter_map(|hash| self.nodes.get(hash));
        nodes
            .filter(|node| past.holds(node.position))
            .filter_map(|node| {
                let admit = self.admit(&node.statement.hash())?;
                Some((node.statement.member, admit))
            })
    }

    fn judge_kind(&self, admit: &Admit, grant: &Grant, past: &Past) -> Result<(), Reason> {
        let agent = admit.join.request.kind == Kind::Agent || grant.role == Role::Agent;
        match (admit.kind, admit.principal) {
            (Kind::Human, None) if !agent => Ok(()),
            (Kind::Human, _) => Err(Reason::WrongKind),
            (Kind::Agent, None) => Ok(()),
            (Kind::Agent, Some(principal)) if self.is_human_within(&principal, Some(past)) => {
                Ok(())
            }
            (Kind::Agent, Some(_)) => Err(Reason::NoPrincipal),
        }
    }

    fn judge_epoch(&self, epoch: &Epoch, past: &Past) -> Result<(), Reason> {
        let known = self.epochs.iter().filter_map(|hash| {
            let node = self
                .nodes
                .get(hash)
                .filter(|node| past.holds(node.position))?;
            self.epoch_by_hash(&node.statement.hash())
                .map(|fact| fact.epoch)
        });
        let (mut greatest, mut reused) = (0, false);
        for earlier in known {
            reused |= earlier.id == epoch.id;
            if earlier.scope == epoch.scope {
                greatest = greatest.max(earlier.number);
            }
        }
        if reused || greatest.checked_add(1) != Some(epoch.number) {
            return Err(Reason::EpochOutOfOrder);
        }
        Ok(())
    }
}

impl Author {
    fn member(&self) -> Result<&Standing, Reason> {
        match self {
            Self::Member(standing) => Ok(standing),
            Self::Root => Err(Reason::NotForRoot),
            Self::Oneself => Err(Reason::NoStanding),
        }
    }
}

impl Standing {
    fn need(&self, action: &Action) -> Result<(), Reason> {
        if may(self, action) {
            Ok(())
        } else {
            Err(Reason::NotPermitted)
        }
    }
}

/// A role's name must not promise less than the grant gives.
fn check_preset(grant: &Grant) -> Result<(), Reason> {
    if grant.rank < grant.role.rank() {
        return Err(Reason::RankAboveRole);
    }
    let within = grant.role.capabilities().covers(grant.capabilities);
    // What an agent may do is what its grant adds to the preset; it is shown as an agent all the same.
    if within || grant.role == Role::Agent {
        Ok(())
    } else {
        Err(Reason::MoreThanRole)
    }
}

fn is_left<'a>(
    most: Option<u32>,
    member: &MemberId,
    admits: impl Iterator<Item = &'a Admit>,
) -> bool {
    let Some(most) = most else { return true };
    let users: BTreeSet<MemberId> = admits.map(|admit| admit.join.request.member).collect();
    users.contains(member) || users.len() < usize::try_from(most).unwrap_or(usize::MAX)
}
