//! From a ticket to a membership: whoever may let us in is dialled, and the first who does ends the search.

use std::collections::BTreeMap;

use crate::engine::admission::{
    AdmissionInput, AdmissionOutput, Joined, Joiner, JoinerSettings, Refusal,
};
use crate::engine::capability::Kind;
use crate::engine::command::CommandError;
use crate::engine::connections::LinkInput;
use crate::engine::context::Context;
use crate::engine::effect::{NetEffect, StopReason};
use crate::engine::entropy::Entropy;
use crate::engine::error::Code;
use crate::engine::event::{ConnId, Ended, Lane, Source, StreamId};
use crate::engine::identity::{AgreementKey, MemberKey};
use crate::engine::ids::MemberId;
use crate::engine::member::Member;
use crate::engine::ticket::Ticket;
use crate::engine::time::{Mono, Now};
use crate::engine::{Engine, JoinWith, Phase, Use};

/// A node that is not a member yet.
pub(in crate::engine) struct Joining {
    pub(in crate::engine) ticket: Ticket,
    pub(in crate::engine) name: String,
    key: MemberKey,
    prekey: AgreementKey,
    addrs: Vec<crate::engine::address::Addr>,
    machines: BTreeMap<StreamId, Attempt>,
    until: Mono,
    /// The most telling refusal so far, for when the time is over.
    refusal: Option<CommandError>,
    pub(in crate::engine) waits_for_person: bool,
}

/// An admission with one peer.
struct Attempt {
    machine: Joiner,
    conn: ConnId,
    /// Messages sent: the third, the Join, goes only to who has proven the session.
    sent: u32,
}

/// The Join is the third message that a joiner sends.
const JOIN_SENT: u32 = 3;

impl Joining {
    pub(in crate::engine) fn new(with: JoinWith, now: Now, entropy: &mut Entropy) -> Self {
        Self {
            key: MemberKey::generate(entropy),
            prekey: AgreementKey::generate(entropy),
            until: now.mono + with.timeout,
            ticket: with.ticket,
            name: with.name,
            addrs: with.addrs,
            machines: BTreeMap::new(),
            refusal: None,
            waits_for_person: false,
        }
    }

    pub(in crate::engine) fn me(&self) -> MemberId {
        self.key.id()
    }

    pub(in crate::engine) fn key(&self) -> &MemberKey {
        &self.key
    }

    pub(in crate::engine) fn prekey(&self) -> &AgreementKey {
        &self.prekey
    }

    pub(in crate::engine) fn deadline(&self) -> Option<Mono> {
        let machines = self
            .machines
            .values()
            .filter_map(|attempt| attempt.machine.deadline());
        machines.map(|(at, _)| at).chain([self.until]).min()
    }

    /// Addresses of the ticket, and those that were given besides.
    pub(in crate::engine) fn addresses(&self) -> Vec<crate::engine::address::Addr> {
        let ticket = self
            .ticket
            .addresses
            .iter()
            .filter_map(|addr| addr.parse().ok());
        self.addrs.iter().copied().chain(ticket).collect()
    }

    fn settings(&self) -> JoinerSettings {
        JoinerSettings {
            session: self.ticket.session,
            discovery_key: self.ticket.discovery_key,
            invite: self.ticket.invite_key(),
            chain: self.ticket.chain.clone(),
            member: self.key.clone(),
            agreement: self.prekey.clone(),
            name: self.name.clone(),
            kind: Kind::Human,
            person: None,
        }
    }
}

impl Engine {
    /// The search begins: the ticket's host, and anybody else who turns up.
    pub(in crate::engine) fn start_joining(&mut self, context: &mut Context<'_>) {
        let Phase::Joining(joining) = &self.phase else {
            return;
        };
        let (host, addrs) = (joining.ticket.host, joining.addresses());
        context.net(NetEffect::SetMembers(std::collections::BTreeSet::new()));
        self.link(LinkInput::AnybodyWanted(true), context);
        self.link(LinkInput::Wanted([host].into()), context);
        let found = LinkInput::Discovered {
            peer: host,
            addrs: &addrs,
            source: Source::Ticket,
        };
        self.link(found, context);
    }

    /// A connection stands on which we have to prove ourselves.
    pub(in crate::engine) fn prove_joiner(
        &mut self,
        conn: ConnId,
        peer: MemberId,
        context: &mut Context<'_>,
    ) {
        let stream = self.open(conn, Lane::Admission, Use::Admission, context);
        let Phase::Joining(joining) = &mut self.phase else {
            return;
        };
        let machine = Joiner::new(joining.settings(), peer, context.now, context.entropy);
        joining.machines.insert(
            stream,
            Attempt {
                machine,
                conn,
                sent: 0,
            },
        );
        self.feed_joiner(stream, AdmissionInput::Opened, context);
    }

    /// Gives an input to the admission on a stream and does what it asks.
    pub(in crate::engine) fn feed_joiner(
        &mut self,
        stream: StreamId,
        input: AdmissionInput,
        context: &mut Context<'_>,
    ) {
        let Phase::Joining(joining) = &mut self.phase else {
            return;
        };
        let Some(attempt) = joining.machines.get_mut(&stream) else {
            return;
        };
        let mut outputs = Vec::new();
        attempt.machine.handle(input, context.now, &mut outputs);
        let conn = attempt.conn;
        for output in outputs {
            match output {
                AdmissionOutput::Send(message) => {
                    self.count_sent(stream);
                    context.send(stream, message);
                }
                AdmissionOutput::Waits => self.joiner_waits(conn, context),
                AdmissionOutput::Joined(joined) => self.joined(*joined, context),
                AdmissionOutput::Refused(refusal) => self.joiner_refused(stream, &refusal, context),
                AdmissionOutput::Close => {
                    let welcome = matches!(self.phase, Phase::Member(_));
                    self.close_admission(stream, (conn, welcome), context);
                }
                AdmissionOutput::AskPerson(_)
                | AdmissionOutput::Withdraw(_)
                | AdmissionOutput::Admit(_)
                | AdmissionOutput::Recognised { .. } => {}
            }
        }
    }

    fn count_sent(&mut self, stream: StreamId) {
        if let Phase::Joining(joining) = &mut self.phase
            && let Some(attempt) = joining.machines.get_mut(&stream)
        {
            attempt.sent += 1;
        }
    }

    /// The sponsor asks a person; the search for others stops meanwhile.
    fn joiner_waits(&mut self, conn: ConnId, context: &mut Context<'_>) {
        let until =
            context.now.mono + crate::engine::limits::APPROVAL + crate::engine::limits::UNPROVEN;
        if let Phase::Joining(joining) = &mut self.phase {
            joining.waits_for_person = true;
            joining.until = until;
        }
        context.changed = true;
        self.link(LinkInput::Waits { conn, until }, context);
        self.link(LinkInput::AnybodyWanted(false), context);
    }

    fn joiner_refused(&mut self, stream: StreamId, refusal: &Refusal, context: &mut Context<'_>) {
        let Phase::Joining(joining) = &mut self.phase else {
            return;
        };
        let Some(attempt) = joining.machines.get(&stream) else {
            return;
        };
        // Only who has proven the session, or is the ticket's own host, can end the search.
        let believed = attempt.sent >= JOIN_SENT || attempt.machine.peer() == joining.ticket.host;
        let conn = attempt.conn;
        let (code, ends) = meaning(refusal);
        let error = CommandError::new(code, refusal.to_string());
        if let (Refusal::WrongSession, false) = (refusal, believed) {
            // Another session's node, found nearby: it says nothing about ours.
            self.link(LinkInput::Foreign { conn }, context);
        } else if ends && believed {
            self.stop(StopReason::JoinFailed(error), context);
        } else if joining.refusal.is_none() || believed {
            joining.refusal = Some(error);
        }
    }

    /// Closes an admission's stream and connection once what was sent is out; a new connection is dialled as
    /// soon as this one is gone.
    pub(in crate::engine) fn close_admission(
        &mut self,
        stream: StreamId,
        (conn, welcome): (ConnId, bool),
        context: &mut Context<'_>,
    ) {
        self.streams.remove(&stream);
        if let Phase::Joining(joining) = &mut self.phase {
            joining.machines.remove(&stream);
        }
        context.net(NetEffect::CloseStream { stream });
        self.link(LinkInput::Finished { conn, welcome }, context);
    }

    /// The door is open: this node is a member from now on.
    fn joined(&mut self, joined: Joined, context: &mut Context<'_>) {
        let Phase::Joining(joining) = &self.phase else {
            return;
        };
        let attempts: Vec<(StreamId, ConnId)> = joining
            .machines
            .iter()
            .map(|(stream, attempt)| (*stream, attempt.conn))
            .collect();
        let sponsor = joined.sponsor;
        let addrs = joining.addresses();
        let host = joining.ticket.host;
        let member = Member::joined(joining, joined, &self.setup, context);
        self.phase = Phase::Member(Box::new(member));
        for (stream, conn) in attempts {
            if self
                .links
                .link(conn)
                .is_some_and(|link| link.peer != sponsor)
            {
                self.close_admission(stream, (conn, false), context);
            }
        }
        self.start_member(context);
        let found = LinkInput::Discovered {
            peer: host,
            addrs: &addrs,
            source: Source::Ticket,
        };
        self.link(found, context);
        self.listening(context);
    }

    /// Deadlines of the search and of its admissions.
    pub(in crate::engine) fn joining_due(&mut self, context: &mut Context<'_>) {
        let Phase::Joining(joining) = &self.phase else {
            return;
        };
        if joining.until <= context.now.mono {
            let error = self.why_not_joined(context.now.mono);
            self.stop(StopReason::JoinFailed(error), context);
            return;
        }
        let streams: Vec<StreamId> = joining.machines.keys().copied().collect();
        for stream in streams {
            self.feed_joiner(stream, AdmissionInput::Tick, context);
        }
    }

    fn why_not_joined(&self, now: Mono) -> CommandError {
        let Phase::Joining(joining) = &self.phase else {
            return CommandError::new(Code::Failure, "the session is over");
        };
        if joining.waits_for_person {
            return CommandError::new(Code::ApprovalTimeout, "nobody decided in time");
        }
        joining.refusal.clone().unwrap_or_else(|| {
            let waits = self.links.waits_for(now);
            CommandError::new(
                Code::PeerUnreachable,
                format!("no member was reached ({waits})"),
            )
        })
    }

    /// The stream of an admission is gone.
    pub(in crate::engine) fn joiner_closed(
        &mut self,
        stream: StreamId,
        ended: &Ended,
        context: &mut Context<'_>,
    ) {
        if let Ended::Unsupported = ended
            && let Phase::Joining(joining) = &mut self.phase
        {
            let message = "the other side does not speak this protocol";
            joining
                .refusal
                .get_or_insert_with(|| CommandError::new(Code::VersionMismatch, message));
        }
        self.feed_joiner(stream, AdmissionInput::Closed, context);
        if let Phase::Joining(joining) = &mut self.phase {
            joining.machines.remove(&stream);
        }
    }
}

/// The code for the person, and whether asking others is pointless.
fn meaning(refusal: &Refusal) -> (Code, bool) {
    match refusal {
        Refusal::TicketExpired => (Code::TicketExpired, true),
        Refusal::TicketUsedUp => (Code::TicketUsedUp, true),
        Refusal::TicketRevoked => (Code::TicketRevoked, true),
        Refusal::Denied(_) => (Code::AdmissionRefused, true),
        Refusal::ApprovalTimeout => (Code::ApprovalTimeout, true),
        Refusal::VersionMismatch { .. } => (Code::VersionMismatch, true),
        Refusal::LimitExceeded => (Code::LimitExceeded, false),
        Refusal::WrongSession | Refusal::NotAMember | Refusal::NotSponsor { .. } => {
            (Code::AdmissionRefused, false)
        }
        Refusal::Silent | Refusal::Misbehaved(_) => (Code::PeerUnreachable, false),
    }
}
