//! Two engines on one page, without any I/O: each is handed what the other asks the world for. Ada opens a
//! session around an echoing shell, Bob joins by her ticket, they chat, and Bob types with her leave. Time is a
//! number that this file counts up; randomness is drawn from a seed; the network is a queue.
//!
//! ```sh
//! cargo run --no-default-features --features sim --example two_engines
//! ```
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "an example that prints, and whose failure is worth a panic"
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use collab_p2p::engine::command::{
    Ask, Command, CommandError, ControlCommand, ControlMode, InputSource, Reply, TerminalSpec,
};
use collab_p2p::engine::effect::{Effect, NetEffect, Outcome, PtyEffect};
use collab_p2p::engine::entropy::Entropy;
use collab_p2p::engine::event::{
    ConnId, Ended, Event, GossipId, Lane, NetEvent, Path, PtyEvent, RequestId, StreamId,
};
use collab_p2p::engine::ids::{InviteId, MemberId, TerminalId, TopicId};
use collab_p2p::engine::terminal::redaction::Redacted;
use collab_p2p::engine::terminal::screen::Screen;
use collab_p2p::engine::ticket::Ticket;
use collab_p2p::engine::time::{Mono, Now, Wall};
use collab_p2p::engine::view::{Phase, View};
use collab_p2p::engine::{Bugs, Engine, JoinWith, NewSession, Setup};
use collab_p2p::pty::echo::{Echo, Glass};
use collab_p2p::store::{Durability, Store, memory::Memory};

const ADA: usize = 0;
const BOB: usize = 1;
/// The session begins on a morning in May 2026.
const BEGUN: Wall = Wall(1_777_800_600_000);

fn main() {
    let mut world = World::new();

    world.add(|world| {
        let new = NewSession {
            name: "ada".to_owned(),
            title: "two engines".to_owned(),
            ask: Ask::Auto,
            control: ControlMode::Ask,
        };
        Engine::create(setup(1), new, world.now(), world.entropy()).unwrap()
    });
    let terminal = world.opens_a_terminal(ADA);
    let ticket = world.invites(ADA);
    println!(
        "ada shares a terminal; her ticket has {} characters",
        ticket.to_text().len()
    );

    world.add(|world| {
        let with = JoinWith {
            ticket,
            name: "bob".to_owned(),
            addrs: Vec::new(),
            timeout: Duration::from_secs(60),
        };
        Engine::join(setup(2), with, world.now(), world.entropy())
    });
    world.until("bob is a member", |world| {
        matches!(world.view(BOB).phase, Phase::Member { synced: true })
    });

    world.says(ADA, "hello bob");
    world.until("bob hears ada", |world| {
        world.chat(BOB) == ["ada: hello bob"]
    });
    world.says(BOB, "hello ada");
    world.until("ada hears bob", |world| world.chat(ADA).len() == 2);
    assert_eq!(world.chat(ADA), world.chat(BOB));
    println!("bob sees the same chat as ada: {:?}", world.chat(BOB));

    bob_types(&mut world, terminal);
    println!(
        "all that took {:?} of their time and none of ours",
        world.time
    );
}

/// Bob sees the shell, is refused, asks, is given control, and types.
fn bob_types(world: &mut World, terminal: TerminalId) {
    world.until("bob sees ada's screen", |world| {
        world.shows(BOB, terminal, "$")
    });
    let refused = world.types(BOB, terminal, "ls\r").unwrap_err();
    println!(
        "bob types without control: {} ({})",
        refused.code.as_str(),
        refused.message
    );
    let bob = world.nodes[BOB].engine.me();
    world
        .orders(BOB, terminal, ControlCommand::Request)
        .unwrap();
    world.until("ada is asked", |world| {
        world.view(ADA).terminals[0].control.requests.contains(&bob)
    });
    let grant = ControlCommand::Grant {
        to: bob,
        duration: Some(Duration::from_secs(600)),
    };
    world.orders(ADA, terminal, grant).unwrap();
    world.until("bob has control", |world| {
        world.view(BOB).terminals[0].control.mine
    });
    world.types(BOB, terminal, "typed by bob\r").unwrap();
    world.until("both see what bob typed", |world| {
        [ADA, BOB]
            .into_iter()
            .all(|node| world.shows(node, terminal, "typed by bob"))
    });
    println!("bob types with control, and both see it:");
    for row in world
        .rows(BOB, terminal)
        .iter()
        .filter(|row| !row.is_empty())
    {
        println!("  | {row}");
    }
}

fn setup(machine: u8) -> Setup {
    Setup {
        emulators: Arc::new(|cols, rows| Box::new(Glass::new(cols, rows))),
        machine: [machine; 32],
        lan_only: false,
        bugs: Bugs::default(),
    }
}

/// An engine and what stands around it.
struct Node {
    engine: Engine,
    store: Memory,
    /// Keys that get a member's lanes on new connections.
    members: BTreeSet<MemberId>,
    /// Whether this side of each connection offers a member's lanes.
    conns: BTreeMap<ConnId, bool>,
    /// Its name of each stream, with the stream's name on the other side.
    streams: BTreeMap<StreamId, (ConnId, StreamId)>,
    topics: BTreeSet<TopicId>,
    shells: BTreeMap<TerminalId, Echo>,
    answers: BTreeMap<RequestId, Result<Reply, CommandError>>,
    view: View,
    screens: BTreeMap<TerminalId, Arc<Redacted<Screen>>>,
}

/// Both nodes, the clock, and what is under way between them.
struct World {
    nodes: Vec<Node>,
    queue: VecDeque<(usize, Event)>,
    time: Duration,
    drawn: u64,
    named: u64,
}

impl World {
    fn new() -> Self {
        Self {
            nodes: Vec::new(),
            queue: VecDeque::new(),
            time: Duration::ZERO,
            drawn: 0,
            named: 0,
        }
    }

    fn now(&self) -> Now {
        Now {
            mono: Mono::default() + self.time,
            wall: BEGUN + self.time,
        }
    }

    /// Never twice the same, always the same in every run.
    fn entropy(&mut self) -> Entropy {
        self.drawn += 1;
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.drawn.to_le_bytes());
        Entropy::new(seed)
    }

    fn fresh_name(&mut self) -> u64 {
        self.named += 1;
        self.named
    }

    fn add(&mut self, begin: impl FnOnce(&mut Self) -> (Engine, Outcome)) {
        let (engine, outcome) = begin(self);
        let number = self.nodes.len();
        let view = engine.view(self.now());
        self.nodes.push(Node {
            engine,
            store: Memory::new(),
            members: BTreeSet::new(),
            conns: BTreeMap::new(),
            streams: BTreeMap::new(),
            topics: BTreeSet::new(),
            shells: BTreeMap::new(),
            answers: BTreeMap::new(),
            view,
            screens: BTreeMap::new(),
        });
        self.perform(number, outcome);
        let port = 4000 + number;
        let addr = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
        self.tell(number, NetEvent::Networks(Vec::new()));
        self.tell(number, NetEvent::Listening(vec![addr]));
    }

    // --- what people do ---

    fn asks(&mut self, node: usize, command: Command) -> Result<Reply, CommandError> {
        let request = RequestId(self.fresh_name());
        self.queue
            .push_back((node, Event::Command { request, command }));
        self.until("there is an answer", |world| {
            world.nodes[node].answers.contains_key(&request)
        });
        self.nodes[node].answers.remove(&request).unwrap()
    }

    fn opens_a_terminal(&mut self, node: usize) -> TerminalId {
        let spec = TerminalSpec {
            argv: vec!["echo".to_owned()],
            cwd: None,
            env: Vec::new(),
            title: "echo".to_owned(),
            cols: 40,
            rows: 6,
        };
        match self.asks(node, Command::OpenTerminal { spec }) {
            Ok(Reply::Terminal { id }) => id,
            other => panic!("no terminal: {other:?}"),
        }
    }

    fn invites(&mut self, node: usize) -> Ticket {
        let invite = Command::CreateInvite {
            role: collab_p2p::engine::capability::Role::Viewer,
            expires_in: None,
            ask: Ask::Auto,
            addresses: true,
        };
        let Ok(Reply::Invite { id }) = self.asks(node, invite) else {
            panic!("no invitation");
        };
        self.ticket(node, id)
    }

    fn ticket(&self, node: usize, id: InviteId) -> Ticket {
        let invites = &self.view(node).invites;
        let invite = invites.iter().find(|invite| invite.id == id).unwrap();
        Ticket::parse(invite.ticket.as_ref().unwrap()).unwrap()
    }

    fn says(&mut self, node: usize, text: &str) {
        let post = Command::PostMessage {
            text: text.to_owned(),
            reply: None,
            mentions: Vec::new(),
            anchor: None,
        };
        self.asks(node, post).unwrap();
    }

    fn orders(
        &mut self,
        node: usize,
        terminal: TerminalId,
        command: ControlCommand,
    ) -> Result<Reply, CommandError> {
        self.asks(node, Command::Control { terminal, command })
    }

    fn types(
        &mut self,
        node: usize,
        terminal: TerminalId,
        keys: &str,
    ) -> Result<Reply, CommandError> {
        let input = Command::Input {
            terminal,
            bytes: keys.into(),
            source: InputSource::Verb,
            timeout: Some(Duration::from_secs(10)),
        };
        self.asks(node, input)
    }

    // --- what they see ---

    fn view(&self, node: usize) -> &View {
        &self.nodes[node].view
    }

    fn chat(&self, node: usize) -> Vec<String> {
        let messages = self.view(node).messages.iter();
        messages
            .map(|message| format!("{}: {}", message.name, message.text))
            .collect()
    }

    fn rows(&self, node: usize, terminal: TerminalId) -> Vec<String> {
        let screen = self.nodes[node].screens.get(&terminal);
        let rows = screen.into_iter().flat_map(|screen| screen.rows.iter());
        rows.map(|row| row.line.text()).collect()
    }

    fn shows(&self, node: usize, terminal: TerminalId, text: &str) -> bool {
        self.rows(node, terminal)
            .iter()
            .any(|row| row.contains(text))
    }

    // --- the world ---

    /// Hands over what is under way, then lets time pass to the next deadline, until something holds.
    fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let end = self.time + Duration::from_secs(60);
        while !holds(self) {
            if let Some((node, event)) = self.queue.pop_front() {
                self.handle(node, event);
                continue;
            }
            let deadlines = self.nodes.iter().filter_map(|node| node.engine.deadline());
            let next = deadlines
                .min()
                .unwrap_or_else(|| panic!("nothing moves any more: {what}"));
            self.time = self.time.max(next.since(Mono::default()));
            assert!(self.time < end, "not within a minute of their time: {what}");
            for node in 0..self.nodes.len() {
                self.handle(node, Event::Tick);
            }
        }
    }

    fn handle(&mut self, node: usize, event: Event) {
        let (now, mut entropy) = (self.now(), self.entropy());
        let outcome = self.nodes[node].engine.handle(event, now, &mut entropy);
        self.perform(node, outcome);
    }

    /// *handle → persist → perform*: what others can see is kept first.
    fn perform(&mut self, node: usize, outcome: Outcome) {
        let kept = self.nodes[node]
            .store
            .commit(outcome.persist, Durability::Immediate);
        kept.unwrap();
        for effect in outcome.effects.into_iter().chain(outcome.live) {
            match effect {
                Effect::Net(effect) => self.net(node, effect),
                Effect::Pty { terminal, effect } => self.pty(node, terminal, effect),
                Effect::Reply { request, result } => {
                    self.nodes[node].answers.insert(request, result);
                }
                // Faces would tell the person; this page reads views.
                Effect::Emit(_) => {}
                Effect::Stop(reason) => panic!("nobody stops here: {reason:?}"),
            }
        }
        let now = self.now();
        let changed = self.nodes[node].engine.view_if_changed(now);
        changed
            .into_iter()
            .for_each(|view| self.nodes[node].view = view);
        if let Some(screens) = self.nodes[node].engine.screens_if_changed() {
            self.nodes[node].screens = screens;
        }
    }

    fn tell(&mut self, node: usize, event: NetEvent) {
        self.queue.push_back((node, Event::Net(event)));
    }

    fn net(&mut self, node: usize, effect: NetEffect) {
        let other = 1 - node;
        match effect {
            NetEffect::SetMembers(members) => self.nodes[node].members = members,
            NetEffect::Dial { peer, .. } => self.dial(node, peer),
            NetEffect::Close { conn } => {
                for side in [node, other] {
                    self.nodes[side].conns.remove(&conn);
                    self.nodes[side].streams.retain(|_, (on, _)| *on != conn);
                    let ended = Ended::Finished;
                    self.tell(side, NetEvent::Disconnected { conn, ended });
                }
            }
            NetEffect::OpenStream { conn, stream, lane } => self.open(node, conn, stream, lane),
            NetEffect::Send { stream, message } => {
                if let Some(&(_, theirs)) = self.nodes[node].streams.get(&stream) {
                    self.tell(
                        other,
                        NetEvent::StreamReceived {
                            stream: theirs,
                            message,
                        },
                    );
                    self.tell(node, NetEvent::StreamReady { stream });
                }
            }
            NetEffect::CloseStream { stream } => {
                if let Some((_, theirs)) = self.nodes[node].streams.remove(&stream) {
                    self.nodes[other].streams.remove(&theirs);
                    for (side, stream) in [(node, stream), (other, theirs)] {
                        let ended = Ended::Finished;
                        self.tell(side, NetEvent::StreamClosed { stream, ended });
                    }
                }
            }
            NetEffect::Subscribe(topic) => {
                self.nodes[node].topics.insert(topic);
            }
            NetEffect::Publish { topic, data } => {
                let from = self.nodes[node].engine.me();
                let id = GossipId(self.fresh_name());
                let linked = !self.nodes[node].conns.is_empty();
                let heard = self
                    .nodes
                    .get(other)
                    .is_some_and(|other| other.topics.contains(&topic));
                if linked && heard {
                    self.tell(
                        other,
                        NetEvent::Gossip {
                            id,
                            from,
                            topic,
                            data,
                        },
                    );
                }
            }
            // There is nobody to pass it on to.
            NetEffect::Judge { .. } => {}
        }
    }

    fn dial(&mut self, node: usize, peer: MemberId) {
        let other = 1 - node;
        let reachable = self
            .nodes
            .get(other)
            .is_some_and(|other| other.engine.me() == peer);
        if !reachable {
            let reason = "nobody is there".to_owned();
            return self.tell(node, NetEvent::DialFailed { peer, reason });
        }
        let conn = ConnId(self.fresh_name());
        for (side, outbound) in [(node, true), (other, false)] {
            let peer = self.nodes[1 - side].engine.me();
            let member = self.nodes[side].members.contains(&peer);
            self.nodes[side].conns.insert(conn, member);
            let path = Path::Loopback;
            self.tell(
                side,
                NetEvent::Connected {
                    conn,
                    peer,
                    outbound,
                    path,
                    member,
                },
            );
        }
    }

    /// A stream gets an odd name at the side that did not open it.
    fn open(&mut self, node: usize, conn: ConnId, stream: StreamId, lane: Lane) {
        let other = 1 - node;
        let offered = match self.nodes[other].conns.get(&conn) {
            None => return,
            Some(member) => *member || lane == Lane::Admission,
        };
        if !offered {
            let ended = Ended::Unsupported;
            return self.tell(node, NetEvent::StreamClosed { stream, ended });
        }
        let theirs = StreamId(self.fresh_name() * 2 + 1);
        self.nodes[node].streams.insert(stream, (conn, theirs));
        self.nodes[other].streams.insert(theirs, (conn, stream));
        self.tell(
            other,
            NetEvent::StreamOpened {
                conn,
                stream: theirs,
                lane,
            },
        );
        self.tell(node, NetEvent::StreamReady { stream });
    }

    fn pty(&mut self, node: usize, terminal: TerminalId, effect: PtyEffect) {
        let shells = &mut self.nodes[node].shells;
        let events = match effect {
            PtyEffect::Spawn(_) => {
                let (shell, prompt) = Echo::start();
                shells.insert(terminal, shell);
                vec![PtyEvent::Output(prompt)]
            }
            PtyEffect::Write(input) => {
                let Some(shell) = shells.get_mut(&terminal) else {
                    return;
                };
                let output = shell.input(&input.into_inner());
                vec![PtyEvent::Written(shell.taken()), PtyEvent::Output(output)]
            }
            // This shell takes everything at once: nothing is left to drop.
            PtyEffect::DropInput => {
                let taken = shells.get(&terminal).map(Echo::taken).unwrap_or_default();
                vec![PtyEvent::Withdrawn(taken)]
            }
            // The emulator of this shell takes everything at once too.
            PtyEffect::Return(output) => vec![PtyEvent::Output(output)],
            PtyEffect::Resize { .. } | PtyEffect::Hangup => Vec::new(),
        };
        for event in events {
            self.queue.push_back((node, Event::Pty { terminal, event }));
        }
    }
}
