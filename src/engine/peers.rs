//! Neighbours: hello, heartbeats, catch-up, presence, gossip, admission of others.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::engine::address::{Addr, Reach};
use crate::engine::admission::{
    AdmissionInput, AdmissionMessage, AdmissionOutput, Presenter, Question, Refusal, Sponsor,
    SponsorHint,
};
use crate::engine::command::CommandError;
use crate::engine::connections::LinkInput;
use crate::engine::context::Context;
use crate::engine::effect::{NetEffect, StopReason, Verdict};
use crate::engine::epoch::EpochId;
use crate::engine::error::Code;
use crate::engine::event::{ConnId, Ended, Lane, Path, Source, StreamId};
use crate::engine::identity::hash;
use crate::engine::ids::{Hash, MemberId, SessionId, TopicId};
use crate::engine::limits::{
    ADDRESS_CHANGES_PER_MINUTE_MAX, ADDRESSES_PER_MESSAGE, FULL_MESH_MEMBERS_MAX, JUDGE_INTERVAL,
    MEMBERS_MAX, NEIGHBOURS, PRESENCE_ANSWER_INTERVAL, PRESENCE_HEARTBEAT, PRESENCES_PER_MESSAGE,
    PROTOCOL_VERSION,
};
use crate::engine::log::Entry;
use crate::engine::member::{Door, DoorKind, Ending, LINGER, Member, Waiting, effective, mark};
use crate::engine::message::{
    Hello, PassedPresence, PeerMessage, Reached, SignedAddresses, SignedInstance, unpack,
};
use crate::engine::persist::{Key, Table};
use crate::engine::replica::Taken;
use crate::engine::sync::{SyncOutput, digest};
use crate::engine::time::Mono;
use crate::engine::timers::Timer;
use crate::engine::view::{ApprovalView, What};
use crate::engine::{Engine, Phase, Use};

impl Engine {
    /// A member's node begins: topics, wanted peers, what is known of where they are.
    pub(in crate::engine) fn start_member(&mut self, context: &mut Context<'_>) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        if !member.bugs.no_gossip {
            context.net(NetEffect::Subscribe(member.replica.log_topic()));
        }
        context.net(NetEffect::Subscribe(member.replica.presence_topic()));
        self.look_for_anybody(context);
        self.tell_members(context);
        self.consider_addresses(context);
        self.settle_own(context);
        self.reopen_terminals(context);
        self.watch_terminals(context);
    }

    /// What members have signed is looked at again: which of it may be dialled depends on our networks.
    pub(in crate::engine) fn consider_addresses(&mut self, context: &mut Context<'_>) {
        let Phase::Member(member) = &self.phase else {
            return;
        };
        let known: Vec<SignedAddresses> = member.addresses.values().cloned().collect();
        for signed in known {
            self.dialable(&signed, context);
        }
    }

    /// Tells connections and the network who is a member.
    pub(in crate::engine) fn tell_members(&mut self, context: &mut Context<'_>) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let now_members = effective(&member.replica, context.now.wall);
        member.judged_at = context.now.wall;
        member.next_end = member.replica.membership().next_end(context.now.wall);
        let session = member.replica.session();
        let me = member.me();
        let gone: Vec<MemberId> = member.members.difference(&now_members).copied().collect();
        member.members.clone_from(&now_members);
        let mut others = now_members.clone();
        others.remove(&me);
        context.net(NetEffect::SetMembers(others));
        for peer in gone {
            member.board.forget(&peer);
            member.shown.remove(&peer);
            member.address_changes.remove(&peer);
            member.late_addresses.remove(&peer);
            for conn in self.links.with(&peer) {
                context.net(NetEffect::Close { conn });
            }
        }
        let mut wanted = neighbours(&me, &now_members, &session);
        let mut hosts = member.hosts();
        hosts.retain(|host| now_members.contains(host));
        wanted.extend(&hosts);
        self.link(LinkInput::First(hosts), context);
        self.link(LinkInput::Wanted(wanted), context);
    }

    /// Our addresses have changed, or a member's node has just begun: tell everybody.
    pub(in crate::engine) fn listening(&mut self, context: &mut Context<'_>) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        member.address_counter += 1;
        let own = member.own_addresses(&self.setup, &self.listen);
        let all: Vec<MemberId> = self.links.up().map(|(peer, ..)| peer).collect();
        for peer in all {
            self.tell(peer, &PeerMessage::Addresses(vec![own.clone()]), context);
        }
    }

    /// While no other member is connected, though there are some, any will do: in a large session others than
    /// the neighbours, and those that were admitted elsewhere.
    fn look_for_anybody(&mut self, context: &mut Context<'_>) {
        let Phase::Member(member) = &self.phase else {
            return;
        };
        let lonely = member.members.len() > 1 && self.links.up().next().is_none();
        self.link(LinkInput::AnybodyWanted(lonely), context);
    }

    /// Sends a message on the control stream of the connection that carries a peer's traffic.
    pub(in crate::engine) fn tell(
        &self,
        peer: MemberId,
        message: &PeerMessage,
        context: &mut Context<'_>,
    ) {
        if let Some(stream) = self.links.active(&peer).and_then(|(_, link)| link.control) {
            context.send(stream, message.encode());
        }
    }

    /// We dialled a member: open the control stream and say hello.
    pub(in crate::engine) fn greet(&mut self, conn: ConnId, context: &mut Context<'_>) {
        let stream = self.open(conn, Lane::Control, Use::Control, context);
        self.link(LinkInput::ControlOpened { conn, stream }, context);
        self.hello(conn, stream, context);
    }

    fn hello(&mut self, conn: ConnId, stream: StreamId, context: &mut Context<'_>) {
        let Some(peer) = self.links.link(conn).map(|link| link.peer) else {
            return;
        };
        let another = self.knows_another(conn, &peer);
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let challenge = member.challenge(conn, context);
        let end = member.replica.logs().frontier(&peer);
        let session = member.replica.session();
        let start = (member.instance, member.own.run());
        let hello = Hello {
            version: PROTOCOL_VERSION,
            instance: SignedInstance::sign(member.replica.key(), &session, start),
            your_instance: member.instances.get(&peer).cloned(),
            your_log: Reached {
                seq: end.seq,
                hash: end.hash,
            },
            addresses: member.own_addresses(&self.setup, &self.listen),
            challenge,
            another,
        };
        context.send(stream, PeerMessage::Hello(Box::new(hello)).encode());
    }

    /// We dialled somebody who does not know us, or whom we do not know.
    pub(in crate::engine) fn prove(
        &mut self,
        conn: ConnId,
        peer: MemberId,
        context: &mut Context<'_>,
    ) {
        match &self.phase {
            Phase::Joining(_) => self.prove_joiner(conn, peer, context),
            Phase::Member(_) => {
                let stream = self.open(conn, Lane::Admission, Use::Admission, context);
                let Phase::Member(member) = &mut self.phase else {
                    return;
                };
                let discovery = *member.replica.discovery();
                let me = member.me();
                let machine = Presenter::new(me, peer, discovery, context.now, context.entropy);
                let machine = DoorKind::Presenter(Box::new(machine));
                member.doors.insert(
                    stream,
                    Door {
                        conn,
                        machine,
                        refused: false,
                    },
                );
                self.feed_door(stream, AdmissionInput::Opened, context);
            }
            Phase::Over => {}
        }
    }

    /// A heartbeat is due on a connection.
    pub(in crate::engine) fn beat(&mut self, conn: ConnId, context: &mut Context<'_>) {
        self.take_late_addresses(context);
        let Some(link) = self.links.link(conn) else {
            return;
        };
        let Some(stream) = link.control else { return };
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        member.ping_number += 1;
        let nonce = member.ping_number;
        member.pings.insert(nonce, (conn, context.now.mono));
        while member.pings.len() > 4 * MEMBERS_MAX {
            member.pings.pop_first();
        }
        // What is not saved is not claimed: neighbours keep it for us.
        let vector = match member.replica.frozen() {
            None => digest(&member.replica.vector()),
            Some(_) => Hash([0; 32]),
        };
        context.send(stream, PeerMessage::Ping { nonce, vector }.encode());
    }

    /// A connection carries a peer's traffic from now on.
    pub(in crate::engine) fn up(
        &mut self,
        conn: ConnId,
        peer: MemberId,
        instead_of: Option<ConnId>,
        context: &mut Context<'_>,
    ) {
        let Some(path) = self.links.link(conn).map(|link| link.path) else {
            return;
        };
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        if instead_of.is_none() {
            let actor = member.actor(&peer);
            context.emit(Some(actor), What::PeerConnected { peer, path });
        }
        member.alone = false;
        self.link(LinkInput::AnybodyWanted(false), context);
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let mut out = Vec::new();
        member.presences_told.remove(&peer);
        member.sync.up(peer, &member.replica, &mut out);
        let have = member.board.known(member.me());
        let mut addresses: Vec<SignedAddresses> = member.addresses.values().cloned().collect();
        addresses.retain(|signed| signed.member != peer);
        // Whoever comes up should hear at once what we do.
        member.board.change(|_| ());
        member.board.say_again();
        self.synced(out, context);
        self.tell(peer, &PeerMessage::PresenceHave(have), context);
        for part in addresses.chunks(ADDRESSES_PER_MESSAGE) {
            self.tell(peer, &PeerMessage::Addresses(part.to_vec()), context);
        }
        self.terminals_up(peer, context);
        context.changed = true;
    }

    /// No connection carries a peer's traffic any more.
    pub(in crate::engine) fn down(&mut self, peer: MemberId, context: &mut Context<'_>) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let actor = member.actor(&peer);
        let mut out = Vec::new();
        member
            .sync
            .down(&peer, context.now.mono, &member.replica, &mut out);
        member.board.doubt(&peer, member.members.len());
        context.emit(Some(actor), What::PeerDisconnected { peer });
        self.synced(out, context);
        self.terminals_down(peer, context);
        self.look_for_anybody(context);
    }

    /// Begins catch-up with every neighbour anew.
    pub(in crate::engine) fn compare_with_all(&mut self, context: &mut Context<'_>) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let mut out = Vec::new();
        for (peer, ..) in self.links.up() {
            member.sync.up(peer, &member.replica, &mut out);
        }
        self.synced(out, context);
    }

    /// Does what catch-up asks.
    fn synced(&mut self, outputs: Vec<SyncOutput>, context: &mut Context<'_>) {
        if self
            .replica()
            .is_some_and(|replica| replica.frozen().is_some())
        {
            return;
        }
        for output in outputs {
            match output {
                SyncOutput::Send(peer, message) => self.tell(peer, &message, context),
                SyncOutput::CompareAll => {
                    let conns: Vec<ConnId> = self.links.up().map(|(_, conn, _)| conn).collect();
                    conns.into_iter().for_each(|conn| self.beat(conn, context));
                }
                SyncOutput::Completed(peer) => {
                    if let Phase::Member(member) = &mut self.phase {
                        member.synced = true;
                        self.introduce_late(context);
                    }
                    context.emit(None, What::SyncCompleted { peer });
                }
            }
        }
    }

    /// A newcomer says its name in its own document as soon as it can.
    fn introduce_late(&mut self, context: &mut Context<'_>) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let me = member.me();
        if member.replica.documents().member(&me).is_some() || member.cannot_write().is_some() {
            return;
        }
        let mut taken = Taken::default();
        // Without the epoch's secret it cannot; it is tried again with the next completed catch-up.
        if member.introduce(&mut taken, context).is_ok() {
            member.absorb(taken, context);
        }
    }

    /// A peer opened a stream.
    pub(in crate::engine) fn stream_opened(
        &mut self,
        conn: ConnId,
        stream: StreamId,
        lane: Lane,
        context: &mut Context<'_>,
    ) {
        let Some(link) = self.links.link(conn) else {
            context.on_lane(lane, NetEffect::CloseStream { stream });
            return;
        };
        let (peer, path) = (link.peer, link.path);
        let used = match (&mut self.phase, lane) {
            (Phase::Member(member), Lane::Admission) => {
                let loopback = path == Path::Loopback;
                let machine = Sponsor::new(member.me(), peer, loopback, context.now);
                let machine = DoorKind::Sponsor(Box::new(machine));
                member.doors.insert(
                    stream,
                    Door {
                        conn,
                        machine,
                        refused: false,
                    },
                );
                Use::Admission
            }
            (Phase::Member(_), Lane::Control) => Use::Control,
            (Phase::Member(_), Lane::Input) => Use::Input(peer),
            (Phase::Member(_), Lane::Screen) => Use::Child(peer, None),
            (Phase::Joining(_) | Phase::Over, _) => {
                context.on_lane(lane, NetEffect::CloseStream { stream });
                return;
            }
        };
        let control = used == Use::Control;
        self.streams.insert(stream, (conn, used));
        if control {
            self.link(LinkInput::ControlOpened { conn, stream }, context);
            self.hello(conn, stream, context);
        }
    }

    /// A message came on a stream.
    pub(in crate::engine) fn received(
        &mut self,
        stream: StreamId,
        message: Vec<u8>,
        context: &mut Context<'_>,
    ) {
        let Some((conn, used)) = self.streams.get(&stream).cloned() else {
            return;
        };
        match used {
            Use::Control => self.control_received(conn, &message, context),
            Use::Admission => {
                let input = AdmissionInput::Received(message);
                match self.phase {
                    Phase::Joining(_) => self.feed_joiner(stream, input, context),
                    Phase::Member(_) => self.feed_door(stream, input, context),
                    Phase::Over => {}
                }
            }
            Use::Input(peer) => self.input_received(stream, peer, &message, context),
            Use::Child(peer, terminal) => {
                self.child_said(stream, (conn, peer, terminal), &message, context);
            }
            Use::Parent(terminal, _) => self.parent_said(stream, terminal, &message, context),
        }
    }

    /// A stream takes more.
    pub(in crate::engine) fn ready(&mut self, stream: StreamId, context: &mut Context<'_>) {
        if let Some((_, Use::Child(_, Some(terminal)))) = self.streams.get(&stream) {
            let terminal = *terminal;
            self.child_ready(stream, terminal, context);
        }
    }

    /// A stream is gone.
    pub(in crate::engine) fn stream_closed(
        &mut self,
        stream: StreamId,
        ended: &Ended,
        context: &mut Context<'_>,
    ) {
        let Some((conn, used)) = self.streams.remove(&stream) else {
            return;
        };
        match used {
            Use::Control if *ended == Ended::Unsupported => {
                self.link(LinkInput::ControlRefused { conn }, context);
            }
            // A connection without its control stream is of no use.
            Use::Control => context.net(NetEffect::Close { conn }),
            Use::Admission => match self.phase {
                Phase::Joining(_) => self.joiner_closed(stream, ended, context),
                Phase::Member(_) => {
                    self.feed_door(stream, AdmissionInput::Closed, context);
                    if let Some(member) = self.member_mut() {
                        member.doors.remove(&stream);
                    }
                }
                Phase::Over => {}
            },
            Use::Input(peer) => self.input_closed(stream, peer, context),
            Use::Child(_, terminal) => self.child_gone(stream, terminal),
            Use::Parent(terminal, _) => self.parent_gone(stream, terminal, context),
        }
    }

    fn control_received(&mut self, conn: ConnId, bytes: &[u8], context: &mut Context<'_>) {
        let Some(peer) = self.links.link(conn).map(|link| link.peer) else {
            return;
        };
        self.link(LinkInput::Heard { conn }, context);
        let message = match PeerMessage::decode(bytes) {
            Ok(message) => message,
            Err(error) => {
                match PeerMessage::other_version(bytes) {
                    Some(version) => self.other_version(peer, version, context),
                    None => {
                        tracing::warn!(peer = %peer.short(), %error, "a peer broke the protocol");
                    }
                }
                context.net(NetEffect::Close { conn });
                return;
            }
        };
        let greeted = self.links.link(conn).is_some_and(|link| link.greeted());
        match message {
            PeerMessage::Hello(hello) => self.heard_hello(conn, peer, *hello, context),
            other @ (PeerMessage::Ping { .. }
            | PeerMessage::Pong { .. }
            | PeerMessage::Vector(_)
            | PeerMessage::Want(_)
            | PeerMessage::Entries { .. }
            | PeerMessage::WantBodies(_)
            | PeerMessage::Bodies(_)
            | PeerMessage::WantEpochs(_)
            | PeerMessage::Epochs(_)
            | PeerMessage::PresenceHave(_)
            | PeerMessage::Presences(_)
            | PeerMessage::Addresses(_)
            | PeerMessage::Lease(_)
            | PeerMessage::Bye
            | PeerMessage::Challenge(_)
            | PeerMessage::Alive(_)) => {
                // Nothing counts before hello.
                if greeted {
                    self.neighbour_said(conn, peer, other, context);
                } else {
                    context.net(NetEffect::Close { conn });
                }
            }
        }
    }

    fn heard_hello(
        &mut self,
        conn: ConnId,
        peer: MemberId,
        hello: Hello,
        context: &mut Context<'_>,
    ) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let session = member.replica.session();
        let signed = hello.instance.member == peer && hello.instance.check(&session).is_ok();
        if hello.version != PROTOCOL_VERSION {
            self.other_version(peer, hello.version, context);
            context.net(NetEffect::Close { conn });
            return;
        }
        if !signed {
            tracing::warn!(peer = %peer.short(), "a hello is not signed by the one who says it");
            context.net(NetEffect::Close { conn });
            return;
        }
        let instance = hello.instance.age();
        let known = member.instances.get(&peer);
        if known.is_none_or(|known| known.age() < instance) {
            member.instances.insert(peer, hello.instance.clone());
        }
        let before = member.instance;
        self.compare_own(conn, peer, &hello, context);
        self.link(LinkInput::Hello { conn, instance }, context);
        self.take_addresses(peer, vec![hello.addresses], context);
        let begun_again = self
            .member_mut()
            .is_some_and(|member| member.instance > before);
        if begun_again {
            self.listening(context);
        }
    }

    /// Tells the person, once, that somebody's program is older or newer.
    fn other_version(&mut self, peer: MemberId, version: u16, context: &mut Context<'_>) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let begins = format!("{} speaks version ", member.called(&peer));
        let text = format!(
            "{begins}{version} of the protocol, this program version {PROTOCOL_VERSION}: use the same version of \
             collab-p2p on both sides"
        );
        // It dials again and again, and may name another version each time.
        if member
            .notices
            .iter()
            .all(|notice| !notice.text.starts_with(&begins))
        {
            member.notice(text, context);
        }
    }

    fn neighbour_said(
        &mut self,
        conn: ConnId,
        peer: MemberId,
        message: PeerMessage,
        context: &mut Context<'_>,
    ) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        if !member.members.contains(&peer) {
            context.net(NetEffect::Close { conn });
            return;
        }
        let now = context.now.mono;
        let mut out = Vec::new();
        if member.replica.frozen().is_some() && is_about_logs(&message) {
            return;
        }
        match message {
            PeerMessage::Ping { nonce, vector } => {
                self.ask_bodies(peer, context);
                let Phase::Member(member) = &mut self.phase else {
                    return;
                };
                member
                    .sync
                    .digest(peer, &vector, now, &member.replica, &mut out);
                self.tell_on(conn, &PeerMessage::Pong { nonce }, context);
            }
            PeerMessage::Pong { nonce } => self.pong(nonce, context),
            PeerMessage::Vector(vector) => {
                let me = member.me();
                let own = vector.iter().find(|(author, _)| *author == me);
                let asked = member.sync.is_asked(&peer);
                if let Some(reached) = own.map(|(_, reached)| *reached).filter(|_| !asked) {
                    self.own_log_at(conn, peer, reached, context);
                    self.settle_own(context);
                }
                let Phase::Member(member) = &mut self.phase else {
                    return;
                };
                member
                    .sync
                    .vector(peer, vector, now, &member.replica, &mut out);
            }
            PeerMessage::Want(wanted) => self.give_entries((peer, conn), &wanted, context),
            PeerMessage::Entries { packed, .. } => self.take_entries(peer, &packed, context),
            PeerMessage::WantBodies(wanted) => self.give_bodies((peer, conn), &wanted, context),
            PeerMessage::Bodies(bodies) => self.take_bodies(bodies, context),
            PeerMessage::WantEpochs(wanted) => self.give_epochs((peer, conn), &wanted, context),
            PeerMessage::Epochs(epochs) => self.take_epochs(epochs, context),
            PeerMessage::PresenceHave(known) => {
                if !member.may_be_told_presences(peer, now) {
                    return;
                }
                let lacking = member.board.lacking(&known, now);
                for part in lacking.chunks(PRESENCES_PER_MESSAGE) {
                    self.tell_on(conn, &PeerMessage::Presences(part.to_vec()), context);
                }
            }
            PeerMessage::Presences(passed) => self.take_presences(passed, context),
            PeerMessage::Addresses(signed) => self.take_addresses(peer, signed, context),
            PeerMessage::Lease(message) => self.host_said(peer, &message, context),
            PeerMessage::Bye => context.net(NetEffect::Close { conn }),
            PeerMessage::Challenge(drawn) => self.challenged((peer, conn), drawn, context),
            PeerMessage::Alive(word) => self.heard_alive(peer, *word, context),
            PeerMessage::Hello(_) => {}
        }
        self.synced(out, context);
    }

    /// Gives a neighbour entries. What it is given of the own log is known to others from then on.
    fn give_entries(
        &mut self,
        (peer, conn): (MemberId, ConnId),
        wanted: &[(MemberId, u64)],
        context: &mut Context<'_>,
    ) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let now = context.now.mono;
        let Some(entries) = member.sync.want(peer, wanted, now, &member.replica) else {
            return;
        };
        let me = member.me();
        if wanted.iter().any(|(author, _)| *author == me) {
            let end = member.replica.offered(&me).seq;
            member.replica.show(end, &mut context.out.persist);
        }
        self.tell_on(conn, &entries, context);
    }

    pub(in crate::engine) fn tell_on(
        &self,
        conn: ConnId,
        message: &PeerMessage,
        context: &mut Context<'_>,
    ) {
        if let Some(stream) = self.links.link(conn).and_then(|link| link.control) {
            context.send(stream, message.encode());
        }
    }

    fn pong(&mut self, nonce: u64, context: &mut Context<'_>) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let Some((conn, sent)) = member.pings.remove(&nonce) else {
            return;
        };
        let micros = context.now.mono.0.saturating_sub(sent.0);
        self.link(LinkInput::RoundTrip { conn, micros }, context);
    }

    fn take_entries(&mut self, peer: MemberId, packed: &[u8], context: &mut Context<'_>) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let entries = match unpack(packed) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!(peer = %peer.short(), %error, "a peer sent no entries");
                return;
            }
        };
        let mut taken = Taken::default();
        let batch = &mut context.out.persist;
        let before = member.replica.shown();
        for entry in &entries {
            member.replica.take(entry, &mut taken, batch);
        }
        member.replica.judge(&mut taken, batch);
        if let Some(reason) = &taken.invalid {
            tracing::warn!(peer = %peer.short(), reason, "a peer sent an entry that nobody takes");
        }
        let forks = std::mem::take(&mut taken.forks);
        member.absorb_received(taken, context);
        self.parted(&forks, context);
        self.own_entries_came(peer, before, context);
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let mut out = Vec::new();
        member
            .sync
            .answered(peer, context.now.mono, &member.replica, &mut out);
        let waiting = member.sync.waiting(&member.replica);
        if waiting > 0 {
            context.emit(None, What::SyncProgress { waiting });
        }
        self.synced(out, context);
        self.ask_bodies(peer, context);
    }

    /// Bodies of which only the header is here are asked for until they come.
    fn ask_bodies(&self, peer: MemberId, context: &mut Context<'_>) {
        let Phase::Member(member) = &self.phase else {
            return;
        };
        // Sixteen at a time, from another place each time: bodies that nobody has hold up no others.
        let all: Vec<Hash> = member
            .replica
            .logs()
            .missing_bodies()
            .map(|body| body.hash)
            .collect();
        let from = context
            .entropy
            .below(u32::try_from(all.len()).unwrap_or(u32::MAX));
        let from = usize::try_from(from).unwrap_or(0);
        let missing: Vec<Hash> = all
            .iter()
            .cycle()
            .skip(from)
            .take(all.len().min(16))
            .copied()
            .collect();
        if !missing.is_empty() {
            self.tell(peer, &PeerMessage::WantBodies(missing), context);
        }
    }

    fn give_bodies(
        &mut self,
        (peer, conn): (MemberId, ConnId),
        wanted: &[Hash],
        context: &mut Context<'_>,
    ) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        if !member.sync.may_be_given(peer, context.now.mono) {
            return;
        }
        let body_of = |hash: &Hash| match member.replica.logs().entry(hash)? {
            Entry::Envelope(envelope) => Some((*hash, envelope.body()?.to_vec())),
            Entry::Statement(_) => None,
        };
        let bodies: Vec<(Hash, Vec<u8>)> = wanted.iter().take(16).filter_map(body_of).collect();
        let bytes = bodies.iter().map(|(_, body)| body.len()).sum();
        member.sync.was_given(&peer, bytes);
        for body in bodies {
            self.tell_on(conn, &PeerMessage::Bodies(vec![body]), context);
        }
    }

    fn take_bodies(&mut self, bodies: Vec<(Hash, Vec<u8>)>, context: &mut Context<'_>) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let mut taken = Taken::default();
        for (hash, body) in bodies {
            member
                .replica
                .take_body(&hash, body, &mut taken, &mut context.out.persist);
        }
        member.replica.judge(&mut taken, &mut context.out.persist);
        member.absorb_received(taken, context);
    }

    /// Whoever holds an epoch's secret gives it to every effective member that lacks it.
    fn give_epochs(
        &mut self,
        (peer, conn): (MemberId, ConnId),
        wanted: &[Hash],
        context: &mut Context<'_>,
    ) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        if !member.sync.may_be_given(peer, context.now.mono) {
            return;
        }
        member.sync.was_given(&peer, 0);
        let keyring = member.replica.keyring();
        let give = |id: &Hash| Some((*id, *keyring.get(&EpochId(id.0))?.to_bytes()));
        let epochs: Vec<(Hash, [u8; 32])> = wanted.iter().filter_map(give).collect();
        if !epochs.is_empty() {
            self.tell_on(conn, &PeerMessage::Epochs(epochs), context);
        }
    }

    fn take_epochs(&mut self, epochs: Vec<(Hash, [u8; 32])>, context: &mut Context<'_>) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let mut taken = Taken::default();
        for (epoch, secret) in epochs {
            let batch = &mut context.out.persist;
            member
                .replica
                .learn_epoch(EpochId(epoch.0), secret, &mut taken, batch);
        }
        member.absorb_received(taken, context);
        self.introduce_late(context);
    }

    fn take_presences(&mut self, passed: Vec<PassedPresence>, context: &mut Context<'_>) {
        for passed in passed {
            let age = Duration::from_millis(u64::from(passed.age_ms));
            // What another node passes on is checked like what comes by gossip; a refusal blames nobody.
            drop(self.hear_presence(&passed.message, age, context));
        }
    }

    /// Takes a presence message; whether it is news.
    fn hear_presence(
        &mut self,
        bytes: &[u8],
        age: Duration,
        context: &mut Context<'_>,
    ) -> Result<bool, String> {
        let Phase::Member(member) = &mut self.phase else {
            return Ok(false);
        };
        let now = context.now.mono;
        let Some(who) = member.board.hear(bytes, age, &mut member.replica, now)? else {
            return Ok(false);
        };
        if !member.members.contains(&who) {
            // Its time is over.
            member.board.forget(&who);
            return Ok(false);
        }
        let (status, state) = member.board.of(&who, &member.replica, now);
        let typing = state.and_then(|state| state.typing);
        let (pointer, selection) =
            state.map_or((None, None), |state| (state.pointer, state.selection));
        let actor = member.actor(&who);
        let before = member
            .shown
            .insert(who, (status, typing, pointer, selection));
        if before.is_none_or(|before| (before.0, before.1) != (status, typing)) {
            let what = What::PresenceUpdated {
                participant: who,
                status,
                typing,
            };
            context.emit(Some(actor.clone()), what);
        }
        if before.is_some_and(|before| before.2 != pointer) {
            context.emit(
                Some(actor.clone()),
                What::CursorMoved {
                    participant: who,
                    pointer,
                },
            );
        }
        if before.is_some_and(|before| before.3 != selection) {
            context.emit(
                Some(actor),
                What::SelectionChanged {
                    participant: who,
                    selection,
                },
            );
        }
        context.changed = true;
        self.check_pictures(context);
        Ok(true)
    }

    /// Takes the addresses that came too soon after others of the same member, as far as it is time.
    fn take_late_addresses(&mut self, context: &mut Context<'_>) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        for (from, signed) in std::mem::take(&mut member.late_addresses).into_values() {
            self.take_addresses(from, vec![signed], context);
        }
    }

    fn take_addresses(
        &mut self,
        from: MemberId,
        list: Vec<SignedAddresses>,
        context: &mut Context<'_>,
    ) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let session = member.replica.session();
        let me = member.me();
        let mut fresh = Vec::new();
        for signed in list {
            let newer = member.addresses.get(&signed.member).is_none_or(|known| {
                (known.instance, known.counter) < (signed.instance, signed.counter)
            });
            let known = member.members.contains(&signed.member);
            if signed.member == me || !known || !newer || signed.check(&session).is_err() {
                continue;
            }
            if !member.may_change_addresses(signed.member, context.now.mono) {
                let late = member.late_addresses.get(&signed.member);
                if late.is_none_or(|(_, late)| late.age() < signed.age()) {
                    member.late_addresses.insert(signed.member, (from, signed));
                }
                continue;
            }
            let key = Key::new(Table::Addresses, signed.member.0);
            let bytes = postcard::to_stdvec(&signed).unwrap_or_default();
            context.out.persist.put(key, bytes);
            member.addresses.insert(signed.member, signed.clone());
            fresh.push(signed);
        }
        if fresh.is_empty() {
            return;
        }
        for signed in &fresh {
            self.dialable(signed, context);
        }
        let others: Vec<MemberId> = self
            .links
            .up()
            .map(|(peer, ..)| peer)
            .filter(|peer| *peer != from)
            .collect();
        for peer in others {
            self.tell(peer, &PeerMessage::Addresses(fresh.clone()), context);
        }
    }

    /// Gives a member's addresses to the connections; loopback ones only if it shares our machine.
    fn dialable(&mut self, signed: &SignedAddresses, context: &mut Context<'_>) {
        let same_machine = signed.mark == mark(&self.setup, &signed.member);
        let addrs: Vec<Addr> = signed
            .addrs
            .iter()
            .filter(|addr| addr.ip.reach() != Reach::Loopback || same_machine)
            .copied()
            .collect();
        let peer = signed.member;
        self.link(
            LinkInput::Discovered {
                peer,
                addrs: &addrs,
                source: Source::Member,
            },
            context,
        );
    }

    /// A gossip message: whether neighbours should hear it.
    pub(in crate::engine) fn gossip(
        &mut self,
        from: MemberId,
        topic: TopicId,
        data: &[u8],
        context: &mut Context<'_>,
    ) -> Verdict {
        let Phase::Member(member) = &mut self.phase else {
            return Verdict::Ignore;
        };
        if topic == member.replica.presence_topic() {
            return match self.hear_presence(data, Duration::ZERO, context) {
                Ok(true) => Verdict::Accept,
                Ok(false) => Verdict::Ignore,
                Err(reason) => {
                    tracing::debug!(from = %from.short(), reason, "a presence was refused");
                    Verdict::Reject
                }
            };
        }
        if topic != member.replica.log_topic() {
            return Verdict::Ignore;
        }
        let mut taken = Taken::default();
        member
            .replica
            .take(data, &mut taken, &mut context.out.persist);
        let mut out = Vec::new();
        let news = taken.changed;
        let me = member.me();
        for author in taken.gaps.iter().filter(|author| **author != me) {
            member
                .sync
                .gap(from, *author, context.now.mono, &member.replica, &mut out);
        }
        // What is early is good news for others all the same, if its author is somebody.
        let early = taken
            .gaps
            .iter()
            .any(|author| member.replica.may_keep(author));
        let verdict = match (&taken.invalid, taken.changed || early) {
            (Some(_), _) => Verdict::Reject,
            (None, true) => Verdict::Accept,
            (None, false) => Verdict::Ignore,
        };
        // What faces show of it changes when it is judged.
        if news {
            member.sync.changed(context.now.mono);
        }
        context.news.extend(std::mem::take(&mut taken.news));
        let (own_gap, forks) = (taken.gaps.contains(&me), std::mem::take(&mut taken.forks));
        self.parted(&forks, context);
        if own_gap {
            self.own_gap(from, context);
        }
        self.synced(out, context);
        if news {
            self.judge_soon(context);
        }
        verdict
    }

    /// Judges what gossip brought: at once after a pause, else together with what comes until a short time is over.
    fn judge_soon(&mut self, context: &mut Context<'_>) {
        let now = context.now.mono;
        if let Phase::Member(member) = &mut self.phase
            && now < member.judged + JUDGE_INTERVAL
        {
            self.timers
                .set_earliest(Timer::Judge, member.judged + JUDGE_INTERVAL);
        } else {
            self.judge(context);
        }
    }

    /// Judges what was taken and not judged so far.
    pub(in crate::engine) fn judge(&mut self, context: &mut Context<'_>) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        member.judged = context.now.mono;
        let mut taken = Taken::default();
        member.replica.judge(&mut taken, &mut context.out.persist);
        context.changed = true;
        member.absorb_received(taken, context);
    }

    /// Gives an input to an admission on a member's side and does what it asks.
    pub(in crate::engine) fn feed_door(
        &mut self,
        stream: StreamId,
        input: AdmissionInput,
        context: &mut Context<'_>,
    ) {
        let hints = self.sponsor_hints();
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let Some(mut door) = member.doors.remove(&stream) else {
            return;
        };
        let may_write = member.may_admit();
        let mut outputs = Vec::new();
        let mut session = member
            .replica
            .session_context(&mut member.limits, &hints, may_write);
        match &mut door.machine {
            DoorKind::Sponsor(machine) => {
                machine.handle(
                    input,
                    context.now,
                    context.entropy,
                    &mut session,
                    &mut outputs,
                );
            }
            DoorKind::Presenter(machine) => {
                machine.handle(input, context.now, &session, &mut outputs);
            }
        }
        let conn = door.conn;
        member.doors.insert(stream, door);
        for output in outputs {
            self.door_output(stream, conn, output, context);
        }
    }

    fn door_output(
        &mut self,
        stream: StreamId,
        conn: ConnId,
        output: AdmissionOutput,
        context: &mut Context<'_>,
    ) {
        match output {
            AdmissionOutput::Send(message) => {
                let shows = AdmissionMessage::is_membership(&message);
                let member = self.member_mut().filter(|_| shows);
                if member.is_none_or(|member| member.shows_statements(context)) {
                    context.send(stream, message);
                } else {
                    self.door_output(stream, conn, AdmissionOutput::Close, context);
                }
            }
            AdmissionOutput::AskPerson(question) => self.ask_person(stream, *question, context),
            AdmissionOutput::Withdraw(member) => self.question_over(&member, false, context),
            AdmissionOutput::Admit(entry) => self.admitted(entry, context),
            AdmissionOutput::Recognised {
                member: who,
                statements,
            } => {
                tracing::debug!(member = %who.short(), "a peer has shown that it is a member");
                if let Phase::Member(member) = &mut self.phase {
                    let mut taken = Taken::default();
                    for statement in &statements {
                        let batch = &mut context.out.persist;
                        member.replica.learn(statement, &mut taken, batch);
                    }
                    member.absorb_received(taken, context);
                }
                self.tell_members(context);
            }
            AdmissionOutput::Refused(refusal) => self.door_refused(conn, &refusal, context),
            AdmissionOutput::Close => {
                let peer = self.links.link(conn).map(|link| link.peer);
                let Phase::Member(member) = &mut self.phase else {
                    return;
                };
                let welcome = peer.is_some_and(|peer| member.members.contains(&peer));
                let refused = member
                    .doors
                    .remove(&stream)
                    .is_some_and(|door| door.refused);
                self.close_admission(stream, (conn, welcome && !refused), context);
            }
            AdmissionOutput::Waits | AdmissionOutput::Joined(_) => {}
        }
    }

    /// A newcomer's Admit, already written to the own log.
    fn admitted(&mut self, entry: Entry, context: &mut Context<'_>) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let mut taken = Taken::default();
        member
            .replica
            .insert(entry, &mut taken, &mut context.out.persist);
        member.absorb(taken, context);
        // The newcomer dials again as soon as it is welcome: the network must know it by then.
        self.tell_members(context);
    }

    fn door_refused(&mut self, conn: ConnId, refusal: &Refusal, context: &mut Context<'_>) {
        let peer = self.links.link(conn).map(|link| link.peer);
        tracing::info!(?peer, %refusal, "an admission failed");
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        if let Refusal::VersionMismatch { .. } = refusal {
            member.notice(refusal.to_string(), context);
        }
        if let Refusal::WrongSession = refusal {
            self.link(LinkInput::Foreign { conn }, context);
        }
    }

    fn ask_person(&mut self, stream: StreamId, question: Question, context: &mut Context<'_>) {
        let until = question.until;
        let conn = self.streams.get(&stream).map(|(conn, _)| *conn);
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let id = question.member.short();
        let asked = context.now.wall;
        member.waiting.insert(
            id.clone(),
            Waiting {
                stream,
                question,
                asked,
            },
        );
        if let Some(approval) = member.approval_view(&id, context.now) {
            context.emit(None, What::ApprovalRequested { approval });
        }
        if let Some(conn) = conn {
            self.link(LinkInput::Waits { conn, until }, context);
        }
    }

    fn question_over(&mut self, who: &MemberId, approved: bool, context: &mut Context<'_>) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let id = who.short();
        if member.waiting.remove(&id).is_some() {
            context.emit(
                None,
                What::ApprovalDecided {
                    approval: id,
                    approved,
                },
            );
        }
    }

    /// A person decided about somebody who waits.
    pub(in crate::engine) fn decide(
        &mut self,
        approval: &str,
        approve: bool,
        context: &mut Context<'_>,
    ) -> Result<(), CommandError> {
        let Phase::Member(member) = &mut self.phase else {
            return Err(CommandError::new(
                Code::Failure,
                "this node is no member yet",
            ));
        };
        let Some(waiting) = member.waiting.remove(approval) else {
            let message = format!("nobody waits under `{approval}`");
            return Err(CommandError::new(Code::NoApproval, message));
        };
        let decided = What::ApprovalDecided {
            approval: approval.to_owned(),
            approved: approve,
        };
        context.emit(None, decided);
        self.feed_door(waiting.stream, AdmissionInput::Decided { approve }, context);
        Ok(())
    }

    /// Members that can perhaps admit where this node cannot: those connected, seniors first.
    fn sponsor_hints(&self) -> Vec<SponsorHint> {
        let Phase::Member(member) = &self.phase else {
            return Vec::new();
        };
        let mut hints: Vec<(crate::engine::capability::Rank, SponsorHint)> = self
            .links
            .up()
            .filter_map(|(peer, ..)| {
                let rank = member.replica.standing(&peer)?.rank;
                let addrs = &member.addresses.get(&peer)?.addrs;
                let addresses = addrs.iter().map(ToString::to_string).collect();
                Some((
                    rank,
                    SponsorHint {
                        member: peer,
                        addresses,
                    },
                ))
            })
            .collect();
        hints.sort_by_key(|(rank, hint)| (*rank, hint.member));
        hints.into_iter().map(|(_, hint)| hint).take(8).collect()
    }

    /// Deadlines of admissions.
    pub(in crate::engine) fn admission_due(&mut self, context: &mut Context<'_>) {
        match &self.phase {
            Phase::Joining(_) => self.joining_due(context),
            Phase::Member(member) => {
                let streams: Vec<StreamId> = member.doors.keys().copied().collect();
                for stream in streams {
                    self.feed_door(stream, AdmissionInput::Tick, context);
                }
            }
            Phase::Over => {}
        }
    }

    /// Own presence is due.
    pub(in crate::engine) fn presence_due(&mut self, context: &mut Context<'_>) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let marks = member.terminals.marks();
        member.board.note_screens(marks);
        member.speak(false, context);
        if member.presence_told + PRESENCE_HEARTBEAT <= context.now.mono {
            member.presence_told = context.now.mono;
            let have = member.board.known(member.me());
            let peers: Vec<MemberId> = self.links.up().map(|(peer, ..)| peer).collect();
            for peer in peers {
                self.tell(peer, &PeerMessage::PresenceHave(have.clone()), context);
            }
        }
        context.changed = true;
    }

    /// Catch-up has something to do.
    pub(in crate::engine) fn sync_due(&mut self, context: &mut Context<'_>) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let mut out = Vec::new();
        member
            .sync
            .tick(context.now.mono, &member.replica, &mut out);
        self.synced(out, context);
    }

    /// The node is to end: last words first.
    pub(in crate::engine) fn end(&mut self, reason: StopReason, context: &mut Context<'_>) {
        let goodbye = reason != StopReason::Removed;
        let Phase::Member(member) = &mut self.phase else {
            self.stop(reason, context);
            return;
        };
        if member.ending.is_some() {
            return;
        }
        let alone = self.links.up().next().is_none();
        let linger = if alone { Duration::ZERO } else { LINGER };
        member.ending = Some(Ending {
            reason,
            at: context.now.mono + linger,
        });
        if goodbye {
            member.speak(true, context);
        }
        let conns: Vec<ConnId> = self.links.up().map(|(_, conn, _)| conn).collect();
        for conn in conns {
            self.beat(conn, context);
        }
        context.changed = true;
    }

    /// The last words are out.
    pub(in crate::engine) fn stop_due(&mut self, context: &mut Context<'_>) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let Some(ending) = member.ending.take() else {
            return;
        };
        let peers: Vec<MemberId> = self.links.up().map(|(peer, ..)| peer).collect();
        for peer in peers {
            self.tell(peer, &PeerMessage::Bye, context);
        }
        self.stop(ending.reason, context);
    }
}

impl Member {
    /// Whether a peer's list of presences is answered: not more often than one that has just connected needs.
    fn may_be_told_presences(&mut self, peer: MemberId, now: Mono) -> bool {
        let last = self.presences_told.get(&peer);
        if last.is_some_and(|at| *at + PRESENCE_ANSWER_INTERVAL > now) {
            return false;
        }
        self.presences_told.insert(peer, now);
        true
    }

    /// Whether a member's new addresses are taken, which costs a record and a message to each neighbour.
    fn may_change_addresses(&mut self, member: MemberId, now: Mono) -> bool {
        let changes = self.address_changes.entry(member).or_default();
        changes.retain(|at| *at + Duration::from_secs(60) > now);
        if changes.len() >= ADDRESS_CHANGES_PER_MINUTE_MAX {
            return false;
        }
        changes.push_back(now);
        true
    }

    /// The members at whose machines terminals run.
    fn hosts(&self) -> BTreeSet<MemberId> {
        let viewed = self.terminals.viewed.values();
        viewed
            .filter(|viewed| viewed.open)
            .map(|viewed| viewed.host)
            .collect()
    }

    /// Publishes own presence if it is time.
    fn speak(&mut self, goodbye: bool, context: &mut Context<'_>) {
        let spoken = self
            .board
            .speak(&mut self.replica, context.now, goodbye, context.entropy);
        if let Some(data) = spoken {
            let topic = self.replica.presence_topic();
            context.live(NetEffect::Publish { topic, data });
        }
    }

    /// A question as faces show it.
    pub(in crate::engine) fn approval_view(
        &self,
        id: &str,
        now: crate::engine::time::Now,
    ) -> Option<ApprovalView> {
        let waiting = self.waiting.get(id)?;
        let left = waiting.question.until.since(now.mono);
        Some(ApprovalView {
            id: id.to_owned(),
            member: waiting.question.member,
            name: waiting.question.name.clone(),
            role: waiting.question.role,
            asked: waiting.asked,
            ends: now.wall + left,
        })
    }
}

/// Whom a member keeps connected to: everybody in a small session; in a larger one those at distances of
/// powers of two, either way, in an order that the session's id shuffles, so that both sides choose each other.
fn neighbours(
    me: &MemberId,
    members: &BTreeSet<MemberId>,
    session: &SessionId,
) -> BTreeSet<MemberId> {
    if members.len() <= FULL_MESH_MEMBERS_MAX {
        return members
            .iter()
            .filter(|member| *member != me)
            .copied()
            .collect();
    }
    let mut ring: Vec<(Hash, MemberId)> = members
        .iter()
        .map(|member| {
            (
                hash("collab-p2p v1 ring", &[&session.0, &member.0]),
                *member,
            )
        })
        .collect();
    ring.sort_unstable();
    let Some(place) = ring.iter().position(|(_, member)| member == me) else {
        return BTreeSet::new();
    };
    let mut chosen = BTreeSet::new();
    let mut distance = 1;
    while chosen.len() < NEIGHBOURS && distance < ring.len() {
        for at in [place + distance, place + ring.len() - distance] {
            if let Some((_, member)) = ring.get(at % ring.len()).filter(|(_, other)| other != me) {
                chosen.insert(*member);
            }
        }
        distance *= 2;
    }
    chosen
}

/// Whether a message is about what is in logs and what is missing there.
fn is_about_logs(message: &PeerMessage) -> bool {
    match message {
        PeerMessage::Vector(_)
        | PeerMessage::Want(_)
        | PeerMessage::Entries { .. }
        | PeerMessage::WantBodies(_)
        | PeerMessage::Bodies(_)
        | PeerMessage::WantEpochs(_)
        | PeerMessage::Epochs(_) => true,
        PeerMessage::Hello(_)
        | PeerMessage::Ping { .. }
        | PeerMessage::Pong { .. }
        | PeerMessage::PresenceHave(_)
        | PeerMessage::Presences(_)
        | PeerMessage::Addresses(_)
        | PeerMessage::Lease(_)
        | PeerMessage::Challenge(_)
        | PeerMessage::Alive(_)
        | PeerMessage::Bye => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::address::{Ip, Transport};
    use crate::engine::capability::Role;
    use crate::engine::command::Command;
    use crate::engine::documents::DocumentName;
    use crate::engine::identity::MemberKey;
    use crate::engine::ids::TerminalId;
    use crate::engine::limits::{
        CONTROL_MESSAGE_BYTES_MAX, FETCH_BYTES_MAX, GIVEN_ANSWER_BYTES_MIN, GIVEN_BURST_BYTES,
        PRESENCE_BODY_BYTES_MAX,
    };
    use crate::engine::message::pack;
    use crate::engine::stage::Stage;

    const HERE: usize = 0;
    const THERE: usize = 1;

    #[test]
    fn in_a_large_session_neighbours_choose_each_other() {
        let members: BTreeSet<MemberId> = (0..60).map(|number| MemberId([number; 32])).collect();
        let session = SessionId([7; 32]);

        for me in &members {
            let chosen = neighbours(me, &members, &session);
            assert!((8..=12).contains(&chosen.len()), "{}", chosen.len());
            for other in chosen {
                assert!(neighbours(&other, &members, &session).contains(me));
            }
        }
    }

    #[test]
    fn in_a_small_session_everybody_is_a_neighbour() {
        let members: BTreeSet<MemberId> = (0..12).map(|number| MemberId([number; 32])).collect();

        let chosen = neighbours(&MemberId([3; 32]), &members, &SessionId([7; 32]));

        assert_eq!(chosen.len(), 11);
        assert!(!chosen.contains(&MemberId([3; 32])));
    }

    #[test]
    fn of_a_burst_of_gossip_the_first_counts_at_once_and_the_rest_together() {
        let mut stage = Stage::with(&[Role::Editor]);
        let said = |stage: &mut Stage| stage.member(HERE).replica.documents().timeline().len();
        let mut known = Vec::new();

        for number in 0..4 {
            let post = Command::PostMessage {
                text: format!("message {number}"),
                reply: None,
                mentions: Vec::new(),
                anchor: None,
            };
            stage.command(THERE, post).unwrap();
            known.push(said(&mut stage));
        }
        assert_eq!(known, [1, 1, 1, 1], "all are kept, and one is judged");
        let vectors = [HERE, THERE].map(|node| stage.member(node).replica.vector());
        assert_eq!(vectors[0], vectors[1]);

        stage.run(JUDGE_INTERVAL);
        assert_eq!(said(&mut stage), 4);
        assert_eq!(stage.view(HERE).messages_total, 4);
    }

    #[test]
    fn the_addresses_of_a_thousand_members_go_in_messages_that_fit_the_lane() {
        let mut stage = Stage::with(&[Role::Editor]);
        let session = stage.member(HERE).replica.session();
        let addr = |port| Addr {
            ip: Ip::V6([0x2a; 16]),
            port,
            transport: Transport::Quic,
        };
        let addrs: Vec<Addr> = (60_000..60_008).map(addr).collect();
        let mut all = BTreeSet::new();
        for number in 0..1_000_u16 {
            let mut seed = [3; 32];
            seed[..2].copy_from_slice(&number.to_le_bytes());
            let key = MemberKey::from_bytes(&seed);
            let at = (u64::MAX, u64::MAX);
            let signed = SignedAddresses::sign(&key, &session, at, addrs.clone(), Hash([9; 32]));
            all.insert(signed.member);
            stage.member(HERE).addresses.insert(signed.member, signed);
        }
        let known = stage.member(HERE).addresses.values().cloned().collect();
        let in_one = PeerMessage::Addresses(known).encode();
        assert!(
            in_one.len() > CONTROL_MESSAGE_BYTES_MAX,
            "they need several"
        );

        stage.sent.clear();
        stage.cut(HERE, THERE);
        stage.run(Duration::from_secs(2));

        let mut told = BTreeSet::new();
        for message in stage.said(HERE, THERE) {
            if let PeerMessage::Addresses(list) = message {
                told.extend(list.iter().map(|signed| signed.member));
            }
        }
        assert!(all.is_subset(&told));
        assert!(largest(&stage) <= CONTROL_MESSAGE_BYTES_MAX);
    }

    #[test]
    fn many_large_presences_go_in_messages_that_fit_the_lane() {
        let mut stage = Stage::with(&[Role::Editor]);
        let now = stage.now().mono;
        for number in 0..40 {
            let message = vec![number; PRESENCE_BODY_BYTES_MAX + 512];
            let board = &mut stage.member(HERE).board;
            board.remember(MemberId([number; 32]), message, now);
        }
        stage.sent.clear();

        stage.say(THERE, HERE, &PeerMessage::PresenceHave(Vec::new()));

        let mut told = BTreeSet::new();
        for message in stage.said(HERE, THERE) {
            if let PeerMessage::Presences(list) = message {
                told.extend(list.into_iter().map(|passed| passed.message[0]));
            }
        }
        assert!(told.is_superset(&(0..40).collect()));
        assert!(largest(&stage) <= CONTROL_MESSAGE_BYTES_MAX);
    }

    #[test]
    fn bodies_that_are_held_back_are_asked_for_sixteen_at_a_time_and_hold_up_no_others() {
        let mut stage = Stage::with(&[Role::Editor]);
        stage.gag(THERE);
        let author = stage.id(THERE);
        let written = envelopes(&mut stage, 40);
        let heads: Vec<Vec<u8>> = written.iter().map(Entry::encode_head).collect();
        stage.sent.clear();

        let (packed, done) = (pack(&heads), true);
        stage.say(THERE, HERE, &PeerMessage::Entries { packed, done });
        let mut lists = body_lists(&stage);
        assert_eq!(lists.len(), 1, "an answer is followed by one question");
        for nonce in 0..60 {
            let vector = digest(&stage.member(HERE).replica.vector());
            stage.say(THERE, HERE, &PeerMessage::Ping { nonce, vector });
        }
        lists = body_lists(&stage);
        assert_eq!(lists.len(), 61, "so is each heartbeat");
        assert!(lists.iter().all(|list| list.len() == 16));
        let asked: BTreeSet<Hash> = lists.into_iter().flatten().collect();
        let all: BTreeSet<Hash> = written.iter().map(Entry::hash).collect();
        assert_eq!(asked, all, "each has its turn");

        for entry in &written {
            let Entry::Envelope(envelope) = entry else {
                panic!("{entry:?}")
            };
            let body = envelope.body().unwrap().to_vec();
            stage.say(
                THERE,
                HERE,
                &PeerMessage::Bodies(vec![(entry.hash(), body)]),
            );
        }
        stage.sent.clear();
        let vector = digest(&stage.member(HERE).replica.vector());
        stage.say(THERE, HERE, &PeerMessage::Ping { nonce: 99, vector });

        assert_eq!(body_lists(&stage), Vec::<Vec<Hash>>::new());
        let state = stage.member(HERE).replica.documents().member(&author);
        assert_eq!(state.unwrap().terminals.len(), 40);
    }

    #[test]
    fn who_asks_for_presences_again_and_again_is_answered_at_its_pace() {
        let mut stage = Stage::with(&[Role::Editor]);
        let answers = |stage: &Stage| {
            let said = stage.said(HERE, THERE);
            let answer = |message: &&PeerMessage| matches!(message, PeerMessage::Presences(_));
            said.iter().filter(answer).count()
        };
        let ask = |stage: &mut Stage| {
            let now = stage.now().mono;
            let board = &mut stage.member(HERE).board;
            board.remember(MemberId([7; 32]), vec![7; 1_000], now);
            stage.say(THERE, HERE, &PeerMessage::PresenceHave(Vec::new()));
        };
        stage.run(Duration::from_secs(2));
        stage.gag(THERE);
        stage.run(PRESENCE_ANSWER_INTERVAL);
        stage.sent.clear();

        (0..100).for_each(|_| ask(&mut stage));
        assert_eq!(answers(&stage), 1);
        stage.run(PRESENCE_ANSWER_INTERVAL);
        ask(&mut stage);

        assert_eq!(answers(&stage), 2);
    }

    #[test]
    fn who_asks_for_entries_and_bodies_again_and_again_gets_a_bounded_amount() {
        for bodies in [false, true] {
            let mut stage = Stage::with(&[Role::Editor, Role::Viewer]);
            let me = stage.id(HERE);
            for number in 0..16 {
                stage
                    .command(HERE, post(format!("{number} ").repeat(4_000)))
                    .unwrap();
            }
            let wants = PeerMessage::Want(vec![(me, 0)]);
            let asks = if bodies {
                let entries = stage.member(HERE).replica.logs().range(&me, 1, usize::MAX);
                let hash = |entry: &&[u8]| Entry::decode(entry).unwrap().hash();
                PeerMessage::WantBodies(entries.iter().rev().take(16).map(hash).collect())
            } else {
                wants.clone()
            };
            stage.gag(THERE);
            let there = stage.id(THERE);
            let left = 4 * FETCH_BYTES_MAX;
            let begun = stage.now().mono;
            let sync = &mut stage.member(HERE).sync;
            assert!(sync.may_be_given(there, begun));
            sync.was_given(&there, usize::try_from(GIVEN_BURST_BYTES).unwrap() - left);

            let mut given = 0;
            for _ in 0..40 {
                stage.sent.clear();
                stage.say(THERE, HERE, &asks);
                given += sent_to(&stage, THERE);
            }
            assert!(
                given <= left + 2 * CONTROL_MESSAGE_BYTES_MAX,
                "{given} bytes"
            );
            assert!(given >= left, "{given} bytes");

            for (asker, after) in [(2, Duration::ZERO), (THERE, Duration::from_secs(1))] {
                stage.run(after);
                stage.sent.clear();
                stage.say(asker, HERE, &wants);
                assert!(
                    sent_to(&stage, asker) > FETCH_BYTES_MAX / 2,
                    "{asker} is answered"
                );
            }
        }
    }

    #[test]
    fn who_asks_for_nothing_again_and_again_is_soon_not_answered() {
        let mut stage = Stage::with(&[Role::Editor]);
        stage.gag(THERE);
        stage.sent.clear();
        let answers = |stage: &Stage| {
            let said = stage.said(HERE, THERE);
            let answer = |message: &&PeerMessage| matches!(message, PeerMessage::Entries { .. });
            said.iter().filter(answer).count()
        };

        for _ in 0..4_000 {
            stage.say(THERE, HERE, &PeerMessage::Want(Vec::new()));
        }

        let most = GIVEN_BURST_BYTES / GIVEN_ANSWER_BYTES_MIN;
        assert_eq!(answers(&stage), usize::try_from(most).unwrap());
    }

    #[test]
    fn of_two_who_dial_each_other_at_once_one_connection_stays_and_both_are_heard() {
        for _ in 0..20 {
            let mut stage = Stage::with(&[Role::Editor]);
            let (here, there) = (stage.id(HERE), stage.id(THERE));
            stage.cut(HERE, THERE);
            for (node, peer) in [(HERE, there), (THERE, here)] {
                let addrs = Vec::new();
                stage.act(node, |_, context| {
                    context.net(NetEffect::Dial { peer, addrs });
                });
            }
            stage.run(Duration::from_secs(2));

            let links = [(HERE, there), (THERE, here)].map(|(node, peer)| {
                let links = &stage.engine(node).links;
                (links.with(&peer), links.active(&peer).map(|(conn, _)| conn))
            });
            assert_eq!(links[0].0.len(), 1, "{links:?}");
            assert_eq!(links[0], links[1]);
            assert_eq!(links[0].1, Some(links[0].0[0]));
            for (from, to) in [(HERE, THERE), (THERE, HERE)] {
                let text = format!("from {from}");
                stage.command(from, post(text.clone())).unwrap();
                stage.run(Duration::from_secs(1));
                let heard = stage.view(to).messages;
                assert!(heard.iter().any(|message| message.text == text));
            }
        }
    }

    #[test]
    fn who_changes_its_addresses_without_end_soon_has_nobody_told_of_it() {
        let mut stage = Stage::with(&[Role::Editor, Role::Viewer]);
        let session = stage.member(HERE).replica.session();
        let key = stage.member(THERE).replica.key().clone();
        let mut counter = 1_000;
        let mut change = |stage: &mut Stage| {
            counter += 1;
            let at = (1_000, counter);
            let signed = SignedAddresses::sign(&key, &session, at, Vec::new(), Hash([9; 32]));
            stage.say(THERE, HERE, &PeerMessage::Addresses(vec![signed]));
        };
        let told = |stage: &Stage| {
            let said = stage.said(HERE, 2);
            let told = |message: &&PeerMessage| matches!(message, PeerMessage::Addresses(_));
            said.iter().filter(told).count()
        };
        stage.run(Duration::from_secs(60));
        stage.sent.clear();

        (0..1_000).for_each(|_| change(&mut stage));
        assert_eq!(told(&stage), ADDRESS_CHANGES_PER_MINUTE_MAX);
        stage.run(Duration::from_secs(61));

        assert_eq!(told(&stage), ADDRESS_CHANGES_PER_MINUTE_MAX + 1);
        let known = &stage.member(HERE).addresses[&key.id()];
        assert_eq!(
            known.counter, 2_000,
            "the last one is taken when there is time"
        );
    }

    /// Changes of the other member that it has told nobody of.
    fn envelopes(stage: &mut Stage, count: u8) -> Vec<Entry> {
        let owner = stage.id(THERE);
        stage.act(THERE, |engine, context| {
            let replica = &mut engine.member_mut().unwrap().replica;
            let from = replica.frontier().seq + 1;
            for number in 0..count {
                let now = context.now.wall;
                let name = DocumentName::Member { owner };
                let taken = (&mut Taken::default(), &mut context.out.persist);
                let written = replica.write(name, context.entropy, taken, |documents, writer| {
                    let id = TerminalId([number; 16]);
                    let change = documents.announce_terminal(writer, now, id, "shell", (40, 6));
                    change.map(|change| (change, ()))
                });
                written.unwrap();
            }
            let range = replica.logs().range(&owner, from, usize::MAX);
            let decode = |bytes: &&[u8]| Entry::decode(bytes).unwrap();
            range.iter().map(decode).collect()
        })
    }

    /// The bodies that the other member was asked for, question by question.
    fn body_lists(stage: &Stage) -> Vec<Vec<Hash>> {
        let said = stage.said(HERE, THERE).into_iter();
        let lists = said.filter_map(|message| {
            let PeerMessage::WantBodies(list) = message else {
                return None;
            };
            Some(list)
        });
        lists.collect()
    }

    fn post(text: String) -> Command {
        Command::PostMessage {
            text,
            reply: None,
            mentions: Vec::new(),
            anchor: None,
        }
    }

    /// Bytes that the node here has sent to another on the control lane since the record was emptied.
    fn sent_to(stage: &Stage, to: usize) -> usize {
        let control = |sent: &&crate::engine::stage::Sent| {
            (sent.from, sent.to, sent.lane) == (HERE, to, Lane::Control)
        };
        let sizes = stage.sent.iter().filter(control);
        sizes.map(|sent| sent.bytes.len()).sum()
    }

    fn largest(stage: &Stage) -> usize {
        let control = |sent: &&crate::engine::stage::Sent| sent.lane == Lane::Control;
        let sizes = stage.sent.iter().filter(control);
        sizes.map(|sent| sent.bytes.len()).max().unwrap()
    }
}
