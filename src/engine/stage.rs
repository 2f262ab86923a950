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
use crate::engine::ticket::Ticket;
use crate::engine::time::{Mono, Now, Wall};
use crate::engine::view::{View, What};
use crate::engine::{Bugs, Engine, JoinWith, NewSession, Setup};

const BEGINNING: u64 = 1_800_000_000_000;
/// More deliveries than that without time passing: two engines chase each other.
const DELIVERIES_PER_MOMENT_MAX: usize = 20_000;

/// The engines, from 0 in the order in which they came, and what is between them.
pub(in crate::engine) struct Stage {
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
    /// Nodes that reach nobody.
    alone: BTreeSet<usize>,
    /// Every message that was sent: by whom, to whom, on which lane.
    pub(in crate::engine) sent: Vec<Sent>,
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
        let mut stage = Self {
            now: 1_000,
            numbered: 0,
            nodes: Vec::new(),
            wires: BTreeMap::new(),
            flows: BTreeMap::new(),
            due: VecDeque::new(),
            gagged: BTreeSet::new(),
            alone: BTreeSet::new(),
            sent: Vec::new(),
        };
        let session = NewSession {
            name: "ana".to_owned(),
            title: "kernel".to_owned(),
            ask: Ask::Never,
            control: ControlMode::Ask,
        };
        let entropy = stage.entropy();
        let begun = Engine::create(setup(), session, stage.now(), entropy);
        let (engine, outcome) = begun.unwrap();
        stage.enter(engine, outcome);
        stage
    }

    /// The owner and so many guests with these roles, all connected.
    pub(in crate::engine) fn with(roles: &[Role]) -> Self {
        let mut stage = Self::new();
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
        let (engine, outcome) = Engine::join(setup(), with, self.now(), self.entropy());
        let node = self.enter(engine, outcome);
        self.run(Duration::from_secs(2));
        assert!(self.engine(node).replica().is_some(), "{node} is a member");
        node
    }

    /// A node opens a terminal.
    pub(in crate::engine) fn open_terminal(&mut self, node: usize) -> TerminalId {
        let spec = TerminalSpec {
            argv: vec!["sh".to_owned()],
            cwd: None,
            env: Vec::new(),
            title: "shell".to_owned(),
            cols: 40,
            rows: 6,
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

    pub(in crate::engine) fn id(&mut self, node: usize) -> MemberId {
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

    pub(in crate::engine) fn now(&self) -> Now {
        Now {
            mono: Mono(self.now),
            wall: Wall(BEGINNING + self.now / 1_000),
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

    /// A fact comes to a node.
    pub(in crate::engine) fn happen(&mut self, node: usize, event: Event) {
        self.due.push_back((node, event));
        self.deliver();
    }

    pub(in crate::engine) fn command(
        &mut self,
        node: usize,
        command: Command,
    ) -> Result<Reply, CommandError> {
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
    pub(in crate::engine) fn run(&mut self, time: Duration) {
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
        Engine::resume(setup(), &records, self.now(), entropy).unwrap()
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
        for node in ends {
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
        self.due.push_back((flow.to, Event::Net(event)));
        let ready = NetEvent::StreamReady { stream };
        self.due.push_back((node, Event::Net(ready)));
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

fn setup() -> Setup {
    Setup {
        emulators: Arc::new(|cols, rows| {
            Box::new(Paper {
                cols,
                rows,
                printed: String::new(),
            })
        }),
        machine: [9; 32],
        lan_only: false,
        bugs: Bugs::default(),
    }
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
