//! The newcomer's side: from a ticket to the membership, believing nothing but the ticket.

use std::fmt;
use std::time::Duration;

use crate::engine::capability::Kind;
use crate::engine::entropy::Entropy;
use crate::engine::epoch::Keyring;
use crate::engine::identity::{AgreementKey, InviteKey, MemberKey, Verified};
use crate::engine::ids::{MemberId, SessionId};
use crate::engine::limits::{ADMISSION_MESSAGE_BYTES_MAX, ADMISSION_WELCOME_BYTES_MAX};
use crate::engine::membership::Membership;
use crate::engine::statement::{
    Grantee, Join, JoinRequest, Statement, StatementBody, Vouch, discovery_commitment,
};
use crate::engine::time::{Mono, Now};

use super::proof::{Dialler, Transcript};
use super::{
    APPROVAL, APPROVAL_GRACE, AdmissionDeadline, AdmissionInput, AdmissionMessage, AdmissionOutput,
    JoinMessage, OUT_OF_TURN, Received, Refusal, TRANSFER, UNPROVEN, refused_by, send,
};

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
    pub(super) phase: Joining,
    deadline: Option<(Mono, AdmissionDeadline)>,
}

pub(super) enum Joining {
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
        let deadline = Some((now.mono + UNPROVEN, AdmissionDeadline::Unproven));
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
                self.wait(now, TRANSFER, AdmissionDeadline::Transfer);
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
        self.wait(now, APPROVAL + APPROVAL_GRACE, AdmissionDeadline::Approval);
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
            self.wait(now, TRANSFER, AdmissionDeadline::Transfer);
            return Ok(());
        }
        let joined = self.conclude(received.statements, authentication)?;
        send(out, &AdmissionMessage::Done);
        out.push(AdmissionOutput::Joined(Box::new(joined)));
        out.push(AdmissionOutput::Close);
        self.end();
        Ok(())
    }

    pub(super) fn join(&self, challenge: [u8; 32]) -> Result<AdmissionMessage, Refusal> {
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

/// All epoch secrets that this member can open from the statements.
fn open_epochs(membership: &Membership, us: &MemberId, key: &AgreementKey) -> Keyring {
    let mut keyring = Keyring::default();
    keyring.open_wraps(&membership.session(), us, key, membership.wraps());
    keyring.open_previous(&membership.session(), &membership.previous_wraps());
    keyring
}
