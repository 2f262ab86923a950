//! The listener's side: a member who lets others prove themselves, and admits them if it may.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use crate::engine::capability::{Action, Kind, Role};
use crate::engine::entropy::Entropy;
use crate::engine::identity::Verified;
use crate::engine::ids::{Hash, MemberId};
use crate::engine::limits::{
    ADDRESS_BYTES_MAX, ADMISSION_GREETING_BYTES_MAX, ADMISSION_MESSAGE_BYTES_MAX,
    ADMISSION_SHOWN_BYTES_MAX, ADMITS_PER_MINUTE_MAX, APPROVALS_WAITING_MAX, GRANT_CHAIN_MAX,
    MEMBERS_MAX, SPONSOR_HINT_ADDRESSES_MAX, SPONSOR_HINTS_MAX,
};
use crate::engine::membership::{
    Admission, Membership, MembershipError, Position, Reason, make_admit,
};
use crate::engine::statement::{Grant, SignedStatement, Sponsors, Statement};
use crate::engine::time::{Mono, Now};

use super::proof::{Side, Transcript, commitment};
use super::{
    ADMISSION_VERSION, APPROVAL, AdmissionDeadline, AdmissionInput, AdmissionMessage,
    AdmissionOutput, JoinMessage, OUT_OF_TURN, PARTING, Question, Received, Refusal, SHOWING,
    SessionContext, SponsorHint, TRANSFER, UNPROVEN, batches, is_member, recognise, refused_by,
    send, show,
};

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
        let deadline = Some((now.mono + UNPROVEN, AdmissionDeadline::Unproven));
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
                message @ (AdmissionMessage::Hello { .. }
                | AdmissionMessage::Proof { .. }
                | AdmissionMessage::Answer { .. }
                | AdmissionMessage::Waiting
                | AdmissionMessage::Welcome(_)
                | AdmissionMessage::Shown(_)
                | AdmissionMessage::NotSponsor { .. }
                | AdmissionMessage::Refused(_)
                | AdmissionMessage::Done) => Err(refused_by(message)),
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
        if turn.ctx.membership.closed().is_some() {
            return Err(Refusal::Denied("the session has ended"));
        }
        let admission = self.admissible(&message, turn)?;
        if !admission.gives.ask {
            return self.admit(admission, turn);
        }
        let until = turn.now.mono + APPROVAL;
        if !turn
            .ctx
            .limits
            .start_waiting(self.peer, until, turn.now.mono)
        {
            return Err(Refusal::LimitExceeded);
        }
        turn.send(&AdmissionMessage::Waiting);
        let question = question(&admission, &transcript, until);
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

    /// By which right the newcomer may come, now and by this sponsor.
    fn admissible(&self, message: &JoinMessage, turn: &Turn<'_, '_>) -> Result<Admission, Refusal> {
        let (join, chain) = (message.join.clone(), message.chain.clone());
        let membership = turn.ctx.membership;
        match membership.admissible(&self.us, join, chain, turn.now.wall) {
            Ok(admission) if self.can_sponsor(&admission.gives, turn.ctx) => Ok(admission),
            Ok(admission) => {
                let hints = self.hints(&admission.gives, turn.ctx);
                Err(Refusal::NotSponsor { hints })
            }
            Err(Reason::NotASponsor) => {
                let grant = grant_behind(membership, message);
                let hints = grant
                    .map(|grant| self.hints(grant, turn.ctx))
                    .unwrap_or_default();
                Err(Refusal::NotSponsor { hints })
            }
            Err(reason) => Err(denial(reason)),
        }
    }

    /// Whether this node can write, and ask where it must.
    fn can_sponsor(&self, grant: &Grant, ctx: &SessionContext<'_>) -> bool {
        let may_decide = !grant.ask || ctx.membership.may(&self.us, &Action::Approve);
        ctx.writer.is_some() && may_decide
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
        if !self.is_asking() {
            return Ok(());
        }
        let phase = std::mem::replace(&mut self.phase, Sponsoring::Ended);
        let Sponsoring::Asking(message) = phase else {
            return Ok(());
        };
        if !approve {
            return Err(Refusal::Denied("a person said no"));
        }
        let admission = self.admissible(&message, turn)?;
        self.admit(admission, turn)
    }

    fn admit(&mut self, admission: Admission, turn: &mut Turn<'_, '_>) -> Result<(), Refusal> {
        let Turn {
            now, entropy, ctx, ..
        } = turn;
        let present = ctx
            .membership
            .members()
            .filter(|member| member.standing.is_some())
            .count();
        let fits = present < MEMBERS_MAX;
        if !fits || !ctx.limits.admit(&admission.grant, self.loopback, now.mono) {
            return Err(Refusal::LimitExceeded);
        }
        let Some(writer) = ctx.writer.as_deref_mut() else {
            return Err(Refusal::NotSponsor { hints: Vec::new() });
        };
        let principal = principal(ctx.membership, &admission);
        let position = Position {
            after: writer.frontier(),
            at: now.wall,
        };
        let (membership, key) = (ctx.membership, writer.key());
        let admit = make_admit(
            membership,
            key,
            position,
            admission,
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
        self.wait(now.mono + PARTING, AdmissionDeadline::Transfer);
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
        let until = (now.mono + TRANSFER).min(self.since + SHOWING);
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

/// The grant in the log from which this invitation comes.
fn grant_behind<'a>(membership: &'a Membership, message: &JoinMessage) -> Option<&'a Grant> {
    let fact = match message.chain.first() {
        Some(link) => {
            let link = SignedStatement::decode(link).ok()?;
            membership.grant_by_hash(&link.standing?)
        }
        None => membership
            .grants_to(&message.join.request.by)
            .into_iter()
            .next(),
    };
    fact.map(|fact| fact.grant)
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
fn principal(membership: &Membership, admission: &Admission) -> Option<MemberId> {
    let fact = membership.grant_by_hash(&admission.grant)?;
    let said = admission.join.request.kind == Kind::Agent;
    let is_agent = said || admission.gives.role == Role::Agent;
    let issuer = membership.standing(&fact.issuer)?;
    let is_person = issuer.kind == Kind::Human && issuer.principal.is_none();
    (is_agent && is_person).then_some(fact.issuer)
}

fn question(admission: &Admission, transcript: &Transcript, until: Mono) -> Question {
    let request = &admission.join.request;
    let grant = &admission.gives;
    Question {
        member: request.member,
        name: request.name.clone(),
        kind: request.kind,
        person: request.person.clone(),
        grant: admission.grant,
        role: grant.role,
        rank: grant.rank,
        capabilities: grant.capabilities,
        authentication: transcript.authentication(),
        until,
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
        Reason::BrokenChain
        | Reason::Widened
        | Reason::RankAboveRole
        | Reason::MoreThanRole
        | Reason::LooseGrant => Refusal::Denied("the chain of grants does not hold"),
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
