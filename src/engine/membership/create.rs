//! How statements are made: a new session whole, grants, admissions and all others.

use std::collections::BTreeSet;

use crate::engine::capability::{Action, Kind, Paths, Role};
use crate::engine::entropy::Entropy;
use crate::engine::epoch::{EpochId, EpochSecret, EpochWrap, Keyring};
use crate::engine::identity::{AgreementPublic, MemberKey, Verified};
use crate::engine::ids::{Hash, MemberId, SessionId};
use crate::engine::limits::{EPOCH_PREVIOUS_MAX, EPOCH_WRAPS_MAX};
use crate::engine::statement::{
    Admit, Draft, Epoch, Frontier, Genesis, Grant, Grantee, Join, JoinRequest, Statement,
    StatementBody, discovery_commitment,
};
use crate::engine::time::Wall;

use super::{Membership, MembershipError, Verdict};

/// What a new session is made from.
#[derive(Debug)]
pub struct NewSession<'a> {
    /// The session's root key, of rank 0.
    pub root: &'a MemberKey,
    /// The key of the owner's first device.
    pub owner: &'a MemberKey,
    /// That device's key to wrap secrets to.
    pub prekey: AgreementPublic,
    /// That member's name.
    pub name: String,
    /// The key under which holders of tickets find the session.
    pub discovery_key: &'a [u8; 32],
    /// The owner's clock.
    pub at: Wall,
}

/// A new session.
#[derive(Debug)]
pub struct Created {
    /// Its membership, with all statements in it.
    pub membership: Membership,
    /// Genesis, the owner's grant, the owner's admission and the first epoch, in this order.
    pub statements: Vec<Verified<Statement>>,
    /// The secret of the first epoch.
    pub secret: EpochSecret,
    /// The end of the root key's log.
    pub root_log: Frontier,
    /// The end of the owner's log.
    pub owner_log: Frontier,
}

impl Genesis {
    /// Begins a session: the root key signs Genesis and a grant of rank 1 to the owner's device; the device
    /// admits itself by it and begins the first epoch.
    pub fn create(new: &NewSession<'_>, entropy: &mut Entropy) -> Result<Created, MembershipError> {
        let genesis = sign_genesis(new, entropy)?;
        let mut membership = Membership::new(genesis.clone())?;
        let session = membership.session();
        let root_log = genesis.frontier();

        let grant = Grant::preset(Grantee::Member(new.owner.id()), Role::Owner);
        let body = StatementBody::Grant(grant);
        let grant = membership.make(new.root, root_log, new.at, body)?;
        membership.insert(grant.clone());

        let body = own_admission(new, session, grant.hash(), entropy)?;
        let admit = membership.make(new.owner, Frontier::start(&session), new.at, body)?;
        membership.insert(admit.clone());

        let secret = EpochSecret::generate(entropy);
        let body =
            StatementBody::Epoch(membership.next_epoch(&secret, &Keyring::default(), entropy)?);
        let epoch = membership.make(new.owner, admit.frontier(), new.at, body)?;
        membership.insert(epoch.clone());

        Ok(Created {
            membership,
            secret,
            root_log: grant.frontier(),
            owner_log: epoch.frontier(),
            statements: vec![genesis, grant, admit, epoch],
        })
    }
}

fn sign_genesis(
    new: &NewSession<'_>,
    entropy: &mut Entropy,
) -> Result<Verified<Statement>, MembershipError> {
    let genesis = Genesis {
        nonce: entropy.bytes(),
        discovery: discovery_commitment(new.discovery_key),
    };
    let draft = Draft {
        session: SessionId([0; 32]),
        after: Frontier {
            seq: 0,
            hash: Hash([0; 32]),
        },
        parents: Vec::new(),
        standing: None,
        ts: new.at,
        body: StatementBody::Genesis(genesis),
    };
    Ok(draft.sign(new.root)?)
}

fn own_admission(
    new: &NewSession<'_>,
    session: SessionId,
    grant: Hash,
    entropy: &mut Entropy,
) -> Result<StatementBody, MembershipError> {
    let request = JoinRequest {
        session,
        by: Grantee::Member(new.owner.id()),
        member: new.owner.id(),
        prekey: new.prekey,
        name: new.name.clone(),
        kind: Kind::Human,
        person: None,
        sponsor: new.owner.id(),
        challenge: entropy.bytes(),
    };
    Ok(StatementBody::Admit(Box::new(Admit {
        grant,
        chain: Vec::new(),
        join: Join::sign(request, new.owner, None)?,
        at: new.at,
        wraps: Vec::new(),
        principal: None,
        kind: Kind::Human,
    })))
}

/// The end of the author's log and its clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The last entry of the author's log, statement or envelope.
    pub after: Frontier,
    /// The author's clock.
    pub at: Wall,
}

/// Signs a grant as the next entry of the issuer's log. Fails where it would have no effect. The statement still
/// has to be inserted.
pub fn make_grant(
    membership: &Membership,
    issuer: &MemberKey,
    position: Position,
    grant: Grant,
) -> Result<Verified<Statement>, MembershipError> {
    membership.make(
        issuer,
        position.after,
        position.at,
        StatementBody::Grant(grant),
    )
}

/// A joiner whom a sponsor may admit: see [`Membership::admissible`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// The Grant statement from which the right comes.
    pub grant: Hash,
    /// What the joiner gets, and whether somebody is asked first.
    pub gives: Grant,
    /// What the ticket carried.
    pub chain: Vec<Vec<u8>>,
    /// What the joiner signed.
    pub join: Join,
    /// When the sponsor checked.
    pub at: Wall,
}

/// Signs an admission as the next entry of the sponsor's log, with the newest epoch secrets in `keyring` wrapped
/// to the joiner. Fails where it would have no effect. `principal` is for agents alone.
pub fn make_admit(
    membership: &Membership,
    sponsor: &MemberKey,
    position: Position,
    admission: Admission,
    principal: Option<MemberId>,
    keyring: &Keyring,
    entropy: &mut Entropy,
) -> Result<Verified<Statement>, MembershipError> {
    let body = membership.admit_body(admission, principal, keyring, entropy)?;
    membership.make(sponsor, position.after, position.at, body)
}

impl Membership {
    /// Signs any statement as the next entry of the key's log, under the key's present standing and over the
    /// present heads. Fails where it would have no effect, so that nobody writes what others will ignore. It
    /// still has to be inserted.
    pub fn make(
        &self,
        key: &MemberKey,
        after: Frontier,
        at: Wall,
        body: StatementBody,
    ) -> Result<Verified<Statement>, MembershipError> {
        let author = key.id();
        let draft = Draft {
            session: self.session(),
            after,
            parents: self.heads_for(&author),
            standing: self.standing(&author).map(|standing| standing.source),
            ts: at,
            body,
        };
        let statement = draft.sign(key)?;
        match self.preview(&statement) {
            Ok(Verdict::Effective | Verdict::Deferred) => Ok(statement),
            Ok(Verdict::Void(reason)) | Err(reason) => Err(MembershipError::Void(reason)),
        }
    }

    /// What an Admit says, for whoever signs by other means than [`make_admit`].
    pub fn admit_body(
        &self,
        admission: Admission,
        principal: Option<MemberId>,
        keyring: &Keyring,
        entropy: &mut Entropy,
    ) -> Result<StatementBody, MembershipError> {
        let Admission {
            grant,
            gives,
            chain,
            join,
            at,
        } = admission;
        let kind = if gives.role == Role::Agent {
            Kind::Agent
        } else {
            join.request.kind
        };
        let request = &join.request;
        let wraps = self.wraps_for(&request.member, &request.prekey, keyring, entropy)?;
        let admit = Admit {
            grant,
            chain,
            join,
            at,
            wraps,
            principal,
            kind,
        };
        Ok(StatementBody::Admit(Box::new(admit)))
    }

    /// The next epoch for the whole session, its secret wrapped to every present reader (to none where there are
    /// more than a statement has room for) and wrapping the secrets of the epochs it follows as far as known.
    pub fn next_epoch(
        &self,
        secret: &EpochSecret,
        keyring: &Keyring,
        entropy: &mut Entropy,
    ) -> Result<Epoch, MembershipError> {
        let session = self.session();
        let readers = self.readers();
        let fits = readers.len() <= EPOCH_WRAPS_MAX;
        // A reader whose own key is unusable goes without, and keeps nobody else from the new epoch.
        let wrapped = readers
            .iter()
            .filter(|_| fits)
            .filter_map(|(reader, prekey)| secret.wrap(&session, reader, prekey, entropy).ok());
        let wraps = wrapped.collect();
        let mut previous = Vec::new();
        for earlier in self
            .leaf_epochs()
            .iter()
            .filter_map(|epoch| keyring.get(epoch))
        {
            previous.push(secret.wrap_previous(&session, earlier)?);
        }
        let number = self
            .current_epoch()
            .map_or(0, |fact| fact.epoch.number)
            .saturating_add(1);
        Ok(Epoch {
            number,
            scope: Paths::All,
            id: secret.id(),
            wraps,
            previous,
        })
    }

    /// The newest known secrets, from which all earlier ones follow, wrapped to one reader. Fails on an unusable
    /// prekey.
    pub fn wraps_for(
        &self,
        reader: &MemberId,
        prekey: &AgreementPublic,
        keyring: &Keyring,
        entropy: &mut Entropy,
    ) -> Result<Vec<EpochWrap>, MembershipError> {
        let session = self.session();
        let mut wraps = Vec::new();
        for secret in self
            .leaf_epochs()
            .iter()
            .filter_map(|epoch| keyring.get(epoch))
        {
            let wrap = secret.wrap(&session, reader, prekey, entropy)?;
            wraps.push(EpochWrap {
                epoch: secret.id(),
                wrap,
            });
        }
        Ok(wraps)
    }

    /// Effective epochs that no other wraps: the newest, at most [`EPOCH_PREVIOUS_MAX`].
    pub fn leaf_epochs(&self) -> Vec<EpochId> {
        let epochs = self.epochs();
        let wrapped: BTreeSet<EpochId> = epochs
            .iter()
            .flat_map(|fact| &fact.epoch.previous)
            .map(|wrap| wrap.epoch)
            .collect();
        let newest = epochs.iter().rev().map(|fact| fact.epoch.id);
        newest
            .filter(|epoch| !wrapped.contains(epoch))
            .take(EPOCH_PREVIOUS_MAX)
            .collect()
    }

    /// Present members who may read, with the key to wrap secrets to.
    pub fn readers(&self) -> Vec<(MemberId, AgreementPublic)> {
        let members = self
            .members()
            .filter(|member| self.may(&member.id, &Action::ReadSession));
        members.map(|member| (member.id, member.prekey)).collect()
    }
}
