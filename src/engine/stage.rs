//! A stage for tests of whole engines: a few of them joined in memory, without delay or loss, and a voice that
//! says anything in a connected member's name. What every engine sends is written down.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::engine::address::{Addr, Ip, Network, Transport};
use crate::engine::capability::Role;
use crate::engine::command::{Ask, Command, CommandError, ControlMode, Reply, TerminalSpec};
use crate::engine::context::Context;
use crate::engine::effect::{Effect, NetEffect, Outcome, PtyEffect};
use crate::engine::entropy::Entropy;
use crate::engine::event::{
    ConnId, Ended, Event, GossipId, Lane, NetEvent, Path, PtyEvent, RequestId, StreamId,
};
use crate::engine::ids::{MemberId, TerminalId, TopicId};
use crate::engine::member::Member;
use crate::engine::message::PeerMessage;
use crate::engine::persist::Key;
use crate::engine::replica::Records;
use crate::engine::terminal::cell::{Cell, Style};
use crate::engine::terminal::emulator::{Emulator, RawRow, RawScreen};
use crate::engine::terminal::frame::ScreenUpdate;
use crate::engine::terminal::redaction::Redacted;
use crate::engine::terminal::screen::Screen;
use crate::engine::terminal::tree::ToChild;
use crate::engine::terminals::{decode, encode};
use crate::engine::ticket::Ticket;
use crate::engine::time::{Mono, Now, Wall};
use crate::engine::view::{View, What};
use crate::engine::{Bugs, EmulatorFactory, Engine, JoinWith, NewSession, Setup};

const BEGINNING: u64 = 1_800_000_000_000;
/// More deliveries than that without time passing: two engines chase each other.
const DELIVERIES_PER_MOMENT_MAX: usize = 20_000;

/// The engines, from 0 in the order in which they came, and what is between them.
pub(crate) struct Stage {
    now: u64,
    numbered: u64,
    nodes: Vec<Node>,
    /// The two ends of each connection.
    wires: BTreeMap<ConnId, [usize; 2]>,
    /// Where each end of a stream leads.
    flows: BTreeMap<(usize, StreamId), Flow>,
    due: VecDeque<(usize, Event)>,
    /// Nodes whose own engine is not heard: others speak in its name.
    gagged: BTreeSet<usize>,
    /// Connections whose dialler is a voice: its engine hears nothing of them.
    voiced: BTreeSet<ConnId>,
    /// Links, from and to, whose screens wait, and what waits there: the node that is to have it, and its event.
    slow: BTreeMap<(usize, usize), Vec<(usize, Event)>>,
    emulators: EmulatorFactory,
    /// Nodes that reach nobody.
    alone: BTreeSet<usize>,
    /// Every message that was sent: by whom, to whom, on which lane.
    pub(in crate::engine) sent: Vec<Sent>,
    /// How far everybody's wall clock is from the truth.
    pub(in crate::engine) ahead_ms: i64,
}

/// A message on its way.
#[derive(Debug, Clone)]
pub(in crate::engine) struct Sent {
    pub(in crate::engine) from: usize,
    pub(in crate::engine) to: usize,
    pub(in crate::engine) lane: Lane,
    pub(in crate::engine) bytes: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Flow {
    conn: ConnId,
    lane: Lane,
    to: usize,
    there: StreamId,
}

struct Node {
    engine: Engine,
    members: BTreeSet<MemberId>,
    topics: BTreeSet<TopicId>,
    replies: BTreeMap<RequestId, Result<Reply, CommandError>>,
    events: Vec<What>,
    taken: u64,
    /// What is on its disk.
    folder: BTreeMap<Key, Vec<u8>>,
    /// Whether its process has ended.
    ended: bool,
}

impl Stage {
    /// A session's owner, alone: node 0.
    pub(in crate::engine) fn new() -> Self {
        Self::emulating(paper())
    }

    /// The same, with terminals of that emulator.
    fn emulating(emulators: EmulatorFactory) -> Self {
        let mut stage = Self {
            now: 1_000,
            numbered: 0,
            nodes: Vec::new(),
            wires: BTreeMap::new(),
            flows: BTreeMap::new(),
            due: VecDeque::new(),
            gagged: BTreeSet::new(),
            voiced: BTreeSet::new(),
            slow: BTreeMap::new(),
            emulators,
            alone: BTreeSet::new(),
            sent: Vec::new(),
            ahead_ms: 0,
        };
        let session = NewSession {
            name: "ana".to_owned(),
            title: "kernel".to_owned(),
            ask: Ask::Never,
            control: ControlMode::Ask,
        };
        let entropy = stage.entropy();
        let begun = Engine::create(stage.setup(), session, stage.now(), entropy);
        let (engine, outcome) = begun.unwrap();
        stage.enter(engine, outcome);
        stage
    }

    /// The owner and so many guests with these roles, all connected.
    pub(crate) fn with(roles: &[Role]) -> Self {
        Self::new().joined_by(roles)
    }

    /// The same, with terminals of that emulator.
    pub(crate) fn with_emulators(roles: &[Role], emulators: EmulatorFactory) -> Self {
        Self::emulating(emulators).joined_by(roles)
    }

    fn joined_by(self, roles: &[Role]) -> Self {
        let mut stage = self;
        for role in roles {
            stage.join(*role);
        }
        stage.run(Duration::from_secs(5));
        for a in 0..stage.nodes.len() {
            for b in 0..stage.nodes.len() {
                assert!(
                    a == b || stage.control(a, b).is_some(),
                    "{a} and {b} are connected"
                );
            }
        }
        stage
    }

    /// Somebody joins by the owner's invitation.
    pub(in crate::engine) fn join(&mut self, role: Role) -> usize {
        let invite = Command::CreateInvite {
            role,
            expires_in: None,
            ask: Ask::Never,
            addresses: true,
        };
        self.command(0, invite).unwrap();
        self.join_by_newest()
    }

    /// Somebody joins by the owner's newest invitation.
    pub(in crate::engine) fn join_by_newest(&mut self) -> usize {
        let ticket = self.view(0).invites.last().unwrap().ticket.clone().unwrap();
        let with = JoinWith {
            ticket: Ticket::parse(&ticket).unwrap(),
            name: format!("guest {}", self.nodes.len()),
            addrs: Vec::new(),
            timeout: Duration::from_secs(60),
        };
        let (engine, outcome) = Engine::join(self.setup(), with, self.now(), self.entropy());
        let node = self.enter(engine, outcome);
        self.run(Duration::from_secs(2));
        assert!(self.engine(node).replica().is_some(), "{node} is a member");
        node
    }

    /// A node opens a terminal.
    pub(in crate::engine) fn open_terminal(&mut self, node: usize) -> TerminalId {
        self.open_terminal_of(node, (40, 6))
    }

    /// A node opens a terminal of so many columns and rows.
    pub(crate) fn open_terminal_of(&mut self, node: usize, (cols, rows): (u16, u16)) -> TerminalId {
        let spec = TerminalSpec {
            argv: vec!["sh".to_owned()],
            cwd: None,
            env: Vec::new(),
            title: "shell".to_owned(),
            cols,
            rows,
        };
        match self.command(node, Command::OpenTerminal { spec }) {
            Ok(Reply::Terminal { id }) => id,
            other => panic!("{other:?}"),
        }
    }

    pub(in crate::engine) fn engine(&mut self, node: usize) -> &mut Engine {
        &mut self.nodes[node].engine
    }

    pub(in crate::engine) fn member(&mut self, node: usize) -> &mut Member {
        self.engine(node).member_mut().unwrap()
    }

    pub(crate) fn id(&mut self, node: usize) -> MemberId {
        self.engine(node).me()
    }

    pub(in crate::engine) fn view(&mut self, node: usize) -> View {
        let now = self.now();
        self.engine(node).view(now)
    }

    /// What faces of a node were told since this was asked last.
    pub(in crate::engine) fn take_events(&mut self, node: usize) -> Vec<What> {
        std::mem::take(&mut self.nodes[node].events)
    }

    /// What a node has sent to another on the control lane since the record was emptied.
    pub(in crate::engine) fn said(&self, from: usize, to: usize) -> Vec<PeerMessage> {
        let control = |sent: &&Sent| (sent.from, sent.to, sent.lane) == (from, to, Lane::Control);
        let decode = |sent: &Sent| PeerMessage::decode(&sent.bytes).unwrap();
        self.sent.iter().filter(control).map(decode).collect()
    }

    pub(crate) fn now(&self) -> Now {
        Now {
            mono: Mono(self.now),
            wall: Wall((BEGINNING + self.now / 1_000).saturating_add_signed(self.ahead_ms)),
        }
    }

    /// A member says something to another on the control stream between them, honest or not.
    pub(in crate::engine) fn say(&mut self, from: usize, to: usize, message: &PeerMessage) {
        let stream = self.control(to, from).unwrap();
        self.say_on(to, stream, message.encode());
    }

    /// Something comes to a node on one of its streams.
    pub(in crate::engine) fn say_on(&mut self, to: usize, stream: StreamId, message: Vec<u8>) {
        let event = NetEvent::StreamReceived { stream, message };
        self.happen(to, Event::Net(event));
    }

    /// A member opens a stream to another that its own engine knows nothing of. Yields its number there.
    pub(in crate::engine) fn open(&mut self, from: usize, to: usize, lane: Lane) -> StreamId {
        let peer = self.id(from);
        let conn = self.engine(to).links.active(&peer).unwrap().0;
        let stream = self.odd();
        self.happen(
            to,
            Event::Net(NetEvent::StreamOpened { conn, stream, lane }),
        );
        stream
    }

    /// The streams of a lane that lead to a node, with who is at their other end.
    pub(in crate::engine) fn streams(&self, node: usize, lane: Lane) -> Vec<(StreamId, usize)> {
        let of = self
            .flows
            .iter()
            .filter(|((at, _), flow)| *at == node && flow.lane == lane);
        of.map(|((_, stream), flow)| (*stream, flow.to)).collect()
    }

    /// A connection to a node that the dialler's own engine knows nothing of: for a voice in its name, as the member
    /// that it is, or as nobody yet.
    pub(in crate::engine) fn connect(&mut self, from: usize, to: usize, member: bool) -> ConnId {
        self.numbered += 1;
        let conn = ConnId(self.numbered);
        self.wires.insert(conn, [from, to]);
        self.voiced.insert(conn);
        let peer = self.id(from);
        let connected = NetEvent::Connected {
            conn,
            peer,
            outbound: false,
            path: Path::Lan,
            member,
        };
        self.happen(to, Event::Net(connected));
        conn
    }

    /// A stream that a voice opens to a node on such a connection. Yields its number there.
    pub(in crate::engine) fn open_on(&mut self, to: usize, conn: ConnId, lane: Lane) -> StreamId {
        let stream = self.odd();
        let opened = NetEvent::StreamOpened { conn, stream, lane };
        self.happen(to, Event::Net(opened));
        stream
    }

    /// Whether a connection has not been closed.
    pub(in crate::engine) fn stands(&self, conn: ConnId) -> bool {
        self.wires.contains_key(&conn)
    }

    /// A voice ends its connection.
    pub(in crate::engine) fn hang_up(&mut self, conn: ConnId) {
        self.close(conn, &Ended::Finished);
        self.deliver();
    }

    /// A fact comes to a node.
    pub(crate) fn happen(&mut self, node: usize, event: Event) {
        self.due.push_back((node, event));
        self.deliver();
    }

    pub(crate) fn command(&mut self, node: usize, command: Command) -> Result<Reply, CommandError> {
        self.numbered += 1;
        let request = RequestId(self.numbered);
        self.happen(node, Event::Command { request, command });
        let reply = self.nodes[node].replies.remove(&request);
        reply.expect("the command is answered at once")
    }

    /// Does something with an engine that its public face has no way for.
    pub(in crate::engine) fn act<T>(
        &mut self,
        node: usize,
        deed: impl FnOnce(&mut Engine, &mut Context<'_>) -> T,
    ) -> T {
        let mut entropy = self.entropy();
        let mut context = Context::new(self.now(), &mut entropy);
        let engine = self.engine(node);
        let result = deed(engine, &mut context);
        engine.settle(&mut context);
        let outcome = context.out;
        self.perform(node, outcome);
        self.deliver();
        result
    }

    /// The screen of a terminal as a node has it now.
    pub(crate) fn screen(&mut self, node: usize, terminal: TerminalId) -> Option<Redacted<Screen>> {
        let terminals = &self.member(node).terminals;
        let hosted = terminals.hosted.get(&terminal).map(|own| &own.pictures);
        let viewed = terminals.viewed.get(&terminal).map(|own| &own.pictures);
        hosted.or(viewed)?.newest.clone()
    }

    /// Who serves a node with a terminal's screen.
    pub(crate) fn parent(&mut self, node: usize, terminal: TerminalId) -> Option<MemberId> {
        let viewed = self.member(node).terminals.viewed.get(&terminal)?;
        viewed.viewer.parent()
    }

    /// The one that serves `viewer` with a screen refers it to another, as one that is full does.
    pub(crate) fn refer(&mut self, viewer: usize, terminal: TerminalId, to: usize) {
        let referral = ToChild::Refer(vec![self.id(to)]);
        self.say_as_parent(viewer, terminal, &referral);
    }

    /// Somebody says something in the name of the one that serves `viewer` with a screen.
    pub(in crate::engine) fn say_as_parent(
        &mut self,
        viewer: usize,
        terminal: TerminalId,
        message: &ToChild,
    ) {
        let parent = self.parent(viewer, terminal).expect("it is served");
        let flows = self.flows.clone();
        let found = flows.iter().find(|((node, _), flow)| {
            *node == viewer && flow.lane == Lane::Screen && self.id(flow.to) == parent
        });
        let (_, stream) = found.expect("a stream leads to the parent").0;
        self.say_on(viewer, *stream, encode(message));
    }

    /// Screens that go from one node to another wait from now on, and the link takes no more than one.
    pub(crate) fn stall(&mut self, from: usize, to: usize) {
        self.slow.entry((from, to)).or_default();
    }

    /// What waits arrives; what follows waits again if the link stays `slow`.
    pub(crate) fn release(&mut self, from: usize, to: usize, slow: bool) {
        let waits = self.slow.remove(&(from, to)).unwrap_or_default();
        if slow {
            self.stall(from, to);
        }
        self.due.extend(waits);
        self.deliver();
    }

    /// How many bytes a node's shells have taken.
    pub(crate) fn taken(&self, node: usize) -> u64 {
        self.nodes[node].taken
    }

    /// On which lanes something was sent since the record was emptied.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = Lane> {
        self.sent.iter().map(|sent| sent.lane)
    }

    /// The screens that a node has sent to another since the record was emptied.
    pub(in crate::engine) fn screens_sent(&self, from: usize, to: usize) -> Vec<ScreenUpdate> {
        let on_way = |sent: &&Sent| (sent.from, sent.to, sent.lane) == (from, to, Lane::Screen);
        let update = |sent: &Sent| match decode::<ToChild>(&sent.bytes) {
            Some(ToChild::Update(bytes)) => ScreenUpdate::decode(&bytes).ok(),
            Some(ToChild::Serving { .. } | ToChild::Refer(_) | ToChild::NotHere) | None => None,
        };
        self.sent.iter().filter(on_way).filter_map(update).collect()
    }

    /// Forgets what was sent so far.
    pub(crate) fn forget_sent(&mut self) {
        self.sent.clear();
    }

    /// What a node's own engine sends from now on reaches nobody.
    pub(in crate::engine) fn gag(&mut self, node: usize) {
        self.gagged.insert(node);
    }

    /// A node, which need not be there yet, reaches nobody from now on.
    pub(in crate::engine) fn leave_alone(&mut self, node: usize) {
        self.alone.insert(node);
    }

    /// A node reaches others again.
    pub(in crate::engine) fn let_meet(&mut self, node: usize) {
        self.alone.remove(&node);
    }

    /// The connections between two nodes are gone.
    pub(in crate::engine) fn cut(&mut self, a: usize, b: usize) {
        let between = |ends: &[usize; 2]| ends.contains(&a) && ends.contains(&b);
        let cut = self.wires.iter().filter(|(_, ends)| between(ends));
        let cut: Vec<ConnId> = cut.map(|(conn, _)| *conn).collect();
        for conn in cut {
            self.close(conn, &Ended::Failed("cut".to_owned()));
        }
        self.deliver();
    }

    /// Time passes.
    pub(crate) fn run(&mut self, time: Duration) {
        let until = self.now + u64::try_from(time.as_micros()).unwrap();
        let mut wakes = 0;
        loop {
            let next = self.nodes.iter().enumerate().filter(|(_, own)| !own.ended);
            let next = next.filter_map(|(node, own)| Some((own.engine.deadline()?.0, node)));
            let Some((at, node)) = next.min().filter(|(at, _)| *at <= until) else {
                break;
            };
            wakes = if at > self.now { 0 } else { wakes + 1 };
            assert!(wakes < 1_000, "node {node} is woken without end");
            self.now = self.now.max(at);
            self.happen(node, Event::Tick);
        }
        self.now = until;
    }

    fn enter(&mut self, engine: Engine, outcome: Outcome) -> usize {
        let node = self.nodes.len();
        self.nodes.push(Node {
            engine,
            members: BTreeSet::new(),
            topics: BTreeSet::new(),
            replies: BTreeMap::new(),
            events: Vec::new(),
            taken: 0,
            folder: BTreeMap::new(),
            ended: false,
        });
        self.begin(node, outcome);
        node
    }

    /// A node's state folder as it is now.
    pub(in crate::engine) fn folder(&self, node: usize) -> BTreeMap<Key, Vec<u8>> {
        self.nodes[node].folder.clone()
    }

    /// A node's process ends between two instructions.
    pub(in crate::engine) fn kill(&mut self, node: usize) {
        let its = self.wires.iter().filter(|(_, ends)| ends.contains(&node));
        let its: Vec<ConnId> = its.map(|(conn, _)| *conn).collect();
        self.nodes[node].ended = true;
        for conn in its {
            self.close(conn, &Ended::Failed("killed".to_owned()));
        }
        self.due.retain(|(to, _)| *to != node);
        self.deliver();
    }

    /// A node's process, which has ended, is started on a folder: its own, or a copy that was put back.
    pub(in crate::engine) fn resume(&mut self, node: usize, folder: BTreeMap<Key, Vec<u8>>) {
        let (engine, outcome) = self.born_of(&folder);
        let own = &mut self.nodes[node];
        assert!(own.ended, "{node} runs");
        own.engine = engine;
        own.folder = folder;
        own.ended = false;
        self.begin(node, outcome);
    }

    /// A second process is started on a copy of a folder.
    pub(in crate::engine) fn resume_beside(&mut self, folder: BTreeMap<Key, Vec<u8>>) -> usize {
        let (engine, outcome) = self.born_of(&folder);
        let node = self.enter(engine, outcome);
        let own = std::mem::replace(&mut self.nodes[node].folder, folder);
        self.nodes[node].folder.extend(own);
        node
    }

    fn born_of(&mut self, folder: &BTreeMap<Key, Vec<u8>>) -> (Engine, Outcome) {
        let records = Records::new(folder.clone());
        let entropy = self.entropy();
        Engine::resume(self.setup(), &records, self.now(), entropy).unwrap()
    }

    /// What a process does first.
    fn begin(&mut self, node: usize, outcome: Outcome) {
        self.perform(node, outcome);
        let addr = Addr {
            ip: Ip::V4([10, 0, 0, u8::try_from(node + 1).unwrap()]),
            port: 4000,
            transport: Transport::Quic,
        };
        let network = Network {
            ip: addr.ip,
            prefix: 24,
        };
        self.happen(node, Event::Net(NetEvent::Networks(vec![network])));
        self.happen(node, Event::Net(NetEvent::Listening(vec![addr])));
    }

    fn entropy(&mut self) -> Entropy {
        self.numbered += 1;
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&self.numbered.to_le_bytes());
        Entropy::new(seed)
    }

    fn odd(&mut self) -> StreamId {
        self.numbered += 1;
        StreamId(1_000_001 + 2 * self.numbered)
    }

    /// The control stream of a node that leads to another.
    fn control(&self, node: usize, to: usize) -> Option<StreamId> {
        let to = self.nodes[to].engine.me();
        self.nodes[node].engine.links.active(&to)?.1.control
    }

    fn deliver(&mut self) {
        let mut count = 0;
        while let Some((node, event)) = self.due.pop_front() {
            count += 1;
            assert!(count < DELIVERIES_PER_MOMENT_MAX, "no end of messages");
            if let Event::Net(NetEvent::Connected { conn, .. }) = &event
                && !self.wires.contains_key(conn)
            {
                continue;
            }
            if self.nodes[node].ended {
                continue;
            }
            let (now, mut entropy) = (self.now(), self.entropy());
            let outcome = self.engine(node).handle(event, now, &mut entropy);
            self.perform(node, outcome);
        }
    }

    fn perform(&mut self, node: usize, outcome: Outcome) {
        for (key, change) in outcome.persist.into_changes() {
            let folder = &mut self.nodes[node].folder;
            match change {
                Some(value) => folder.insert(key, value),
                None => folder.remove(&key),
            };
        }
        for effect in outcome.effects.into_iter().chain(outcome.live) {
            match effect {
                Effect::Net(effect) => self.net(node, effect),
                Effect::Pty { terminal, effect } => self.pty(node, terminal, effect),
                Effect::Reply { request, result } => {
                    self.nodes[node].replies.insert(request, result);
                }
                Effect::Emit(event) => self.nodes[node].events.push(event.what),
                Effect::Stop(_) => {
                    let its = self.wires.iter().filter(|(_, ends)| ends.contains(&node));
                    let its: Vec<ConnId> = its.map(|(conn, _)| *conn).collect();
                    for conn in its {
                        self.close(conn, &Ended::Finished);
                    }
                }
            }
        }
    }

    fn pty(&mut self, node: usize, terminal: TerminalId, effect: PtyEffect) {
        let event = match effect {
            PtyEffect::Spawn(_) => PtyEvent::Output(b"$ ".to_vec()),
            PtyEffect::Write(input) => {
                self.nodes[node].taken += input.value().len() as u64;
                PtyEvent::Written(self.nodes[node].taken)
            }
            PtyEffect::Return(rest) => PtyEvent::Output(rest),
            PtyEffect::DropInput => PtyEvent::Withdrawn(self.nodes[node].taken),
            PtyEffect::Resize { .. } | PtyEffect::Hangup => return,
        };
        self.due.push_back((node, Event::Pty { terminal, event }));
    }

    fn net(&mut self, node: usize, effect: NetEffect) {
        match effect {
            NetEffect::SetMembers(members) => self.nodes[node].members = members,
            NetEffect::Dial { peer, .. } => self.dial(node, peer),
            NetEffect::Close { conn } => self.close(conn, &Ended::Finished),
            NetEffect::OpenStream { conn, stream, lane } => {
                self.open_stream(node, conn, stream, lane);
            }
            NetEffect::Send { stream, message } => self.send(node, stream, message),
            NetEffect::CloseStream { stream } => {
                if let Some(flow) = self.flows.remove(&(node, stream)) {
                    self.flows.remove(&(flow.to, flow.there));
                    self.closed(flow.to, flow.there, Ended::Finished);
                    self.closed(node, stream, Ended::Finished);
                }
            }
            NetEffect::Subscribe(topic) => {
                self.nodes[node].topics.insert(topic);
            }
            NetEffect::Publish { topic, data } => self.publish(node, topic, &data),
            NetEffect::Judge { .. } => {}
        }
    }

    fn dial(&mut self, node: usize, peer: MemberId) {
        let is_it = |own: &Node| own.engine.me() == peer && !own.ended;
        let to = self.nodes.iter().position(is_it);
        let reached = |to: &usize| !self.alone.contains(&node) && !self.alone.contains(to);
        let Some(to) = to.filter(reached) else {
            let reason = "nobody there".to_owned();
            let event = NetEvent::DialFailed { peer, reason };
            return self.due.push_back((node, Event::Net(event)));
        };
        self.numbered += 1;
        let conn = ConnId(self.numbered);
        self.wires.insert(conn, [node, to]);
        for (here, there, outbound) in [(node, to, true), (to, node, false)] {
            let peer = self.id(there);
            let event = NetEvent::Connected {
                conn,
                peer,
                outbound,
                path: Path::Lan,
                member: self.nodes[here].members.contains(&peer),
            };
            self.due.push_back((here, Event::Net(event)));
        }
    }

    fn close(&mut self, conn: ConnId, ended: &Ended) {
        let Some(ends) = self.wires.remove(&conn) else {
            return;
        };
        self.flows.retain(|_, flow| flow.conn != conn);
        let heard = usize::from(self.voiced.remove(&conn));
        for node in ends.into_iter().skip(heard) {
            let ended = ended.clone();
            let event = NetEvent::Disconnected { conn, ended };
            self.due.push_back((node, Event::Net(event)));
        }
    }

    fn open_stream(&mut self, node: usize, conn: ConnId, stream: StreamId, lane: Lane) {
        let Some(ends) = self.wires.get(&conn) else {
            let ended = Ended::Failed("the connection is gone".to_owned());
            return self.closed(node, stream, ended);
        };
        let to = if ends[0] == node { ends[1] } else { ends[0] };
        let me = self.id(node);
        if lane != Lane::Admission && !self.nodes[to].members.contains(&me) {
            return self.closed(node, stream, Ended::Unsupported);
        }
        let there = self.odd();
        let flow = |to, there| Flow {
            conn,
            lane,
            to,
            there,
        };
        self.flows.insert((node, stream), flow(to, there));
        self.flows.insert((to, there), flow(node, stream));
        if self.voiced.contains(&conn) {
            return;
        }
        let stream = there;
        let event = NetEvent::StreamOpened { conn, stream, lane };
        self.due.push_back((to, Event::Net(event)));
    }

    fn send(&mut self, node: usize, stream: StreamId, message: Vec<u8>) {
        let heard = !self.gagged.contains(&node);
        let Some(flow) = self.flows.get(&(node, stream)).filter(|_| heard).copied() else {
            return;
        };
        self.sent.push(Sent {
            from: node,
            to: flow.to,
            lane: flow.lane,
            bytes: message.clone(),
        });
        let there = flow.there;
        let event = NetEvent::StreamReceived {
            stream: there,
            message,
        };
        let ready = NetEvent::StreamReady { stream };
        let events = [(flow.to, Event::Net(event)), (node, Event::Net(ready))];
        match self.slow.get_mut(&(node, flow.to)) {
            Some(waits) if flow.lane == Lane::Screen => waits.extend(events),
            Some(_) | None => self.due.extend(events),
        }
    }

    fn setup(&self) -> Setup {
        Setup {
            emulators: Arc::clone(&self.emulators),
            machine: [9; 32],
            lan_only: false,
            bugs: Bugs::default(),
        }
    }

    fn closed(&mut self, node: usize, stream: StreamId, ended: Ended) {
        let event = NetEvent::StreamClosed { stream, ended };
        self.due.push_back((node, Event::Net(event)));
    }

    fn publish(&mut self, node: usize, topic: TopicId, data: &[u8]) {
        if self.gagged.contains(&node) {
            return;
        }
        let from = self.id(node);
        let mut reached: BTreeSet<usize> = self
            .wires
            .values()
            .filter(|ends| ends.contains(&node))
            .flatten()
            .copied()
            .collect();
        reached.remove(&node);
        for to in reached {
            if self.nodes[to].topics.contains(&topic) {
                self.numbered += 1;
                let event = NetEvent::Gossip {
                    id: GossipId(self.numbered),
                    from,
                    topic,
                    data: data.to_vec(),
                };
                self.due.push_back((to, Event::Net(event)));
            }
        }
    }
}

fn paper() -> EmulatorFactory {
    Arc::new(|cols, rows| {
        Box::new(Paper {
            cols,
            rows,
            printed: String::new(),
        })
    })
}

/// The plainest emulator: the end of what was printed, on the first row.
#[derive(Debug)]
struct Paper {
    cols: u16,
    rows: u16,
    printed: String,
}

impl Emulator for Paper {
    fn feed(&mut self, bytes: &[u8], _: Mono) -> usize {
        self.printed.push_str(&String::from_utf8_lossy(bytes));
        bytes.len()
    }

    fn resize(&mut self, cols: u16, rows: u16) {
        (self.cols, self.rows) = (cols, rows);
    }

    fn snapshot(&self) -> RawScreen {
        let mut rows = vec![RawRow::default(); self.rows.into()];
        let surplus = self
            .printed
            .chars()
            .count()
            .saturating_sub(self.cols.into());
        let cell = |char| Cell::new(char, &[], false, Style::default());
        if let Some(row) = rows.first_mut() {
            row.cells = self.printed.chars().skip(surplus).map(cell).collect();
        }
        RawScreen {
            cols: self.cols,
            rows,
            ..RawScreen::default()
        }
    }

    fn take_replies(&mut self) -> Vec<u8> {
        Vec::new()
    }

    fn take_bells(&mut self) -> u32 {
        0
    }

    fn deadline(&self) -> Option<Mono> {
        None
    }

    fn tick(&mut self, _: Mono) {}
}
