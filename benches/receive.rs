//! How many chat messages a second one core receives: opened, verified, judged by the gate, applied, persisted in
//! batches into a real store, and shown. Whole engines are joined in memory; the guests write while they are cut
//! off, and the host receives. The network's rate limits stand before the engine and are therefore lifted; every
//! rule of the engine holds. What counts is the CPU time of the one thread.
//!
//! `cargo bench --bench receive [-- MEMBERS MESSAGES]`
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a measurement that prints"
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use collab_p2p::engine::capability::Role;
use collab_p2p::engine::command::{Ask, Command, CommandError, ControlMode, Reply};
use collab_p2p::engine::effect::{Effect, NetEffect, Outcome};
use collab_p2p::engine::entropy::Entropy;
use collab_p2p::engine::event::{
    ConnId, Ended, Event, GossipId, Lane, NetEvent, Path, RequestId, StreamId,
};
use collab_p2p::engine::ids::{MemberId, TopicId};
use collab_p2p::engine::replica::Replica;
use collab_p2p::engine::ticket::Ticket;
use collab_p2p::engine::time::{Mono, Now, Wall};
use collab_p2p::engine::view::Phase;
use collab_p2p::engine::{Bugs, Engine, JoinWith, NewSession, Setup};
use collab_p2p::pty::echo::Glass;
use collab_p2p::store::{Batch, Durability, Store, disk::Disk};

const HOST: usize = 0;
const BEGUN: Wall = Wall(1_777_800_600_000);
/// What a commit takes on this machine's disk gathers about so many outcomes when gossip is at its limit.
const GOSSIP_PER_COMMIT: usize = 64;

fn main() {
    let given: Vec<usize> = std::env::args()
        .filter_map(|word| word.parse().ok())
        .collect();
    let members = given.first().copied().unwrap_or(8);
    let messages = given.get(1).copied().unwrap_or(500);
    println!("{members} members, {messages} messages each");
    for way in [Way::CatchUp, Way::Gossip] {
        measure(way, members, messages);
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    /// In answers of up to 128 KiB, asked for after a connection was made.
    CatchUp,
    /// One by one, members in turn.
    Gossip,
}

fn measure(way: Way, members: usize, messages: usize) {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new(Disk::open(folder.path()).unwrap());
    (0..members).for_each(|_| world.join());
    world.until("all have the same", |world| {
        let vector = |node: &Node| node.engine.replica().map(Replica::vector);
        let mut vectors = world.nodes.iter().map(vector);
        let first = vectors.next();
        vectors.all(|one| Some(one) == first)
    });
    world.cut_all();
    let before = world.messages(HOST);
    for number in 0..messages {
        for guest in 1..=members {
            world.says(guest, &format!("message {number} of guest {guest}"));
        }
    }
    let all = before + u64::try_from(members * messages).unwrap();
    world.spent = Spent::default();
    match way {
        Way::CatchUp => {
            world.cut = false;
            (1..=members).for_each(|guest| world.dial(guest, HOST));
        }
        Way::Gossip => {
            world.cut = true;
            world.per_commit = GOSSIP_PER_COMMIT;
            let published = std::mem::take(&mut world.published);
            for (from, topic, data) in published {
                let id = GossipId(world.fresh_name());
                let from = world.nodes[from].engine.me();
                let event = NetEvent::Gossip {
                    id,
                    from,
                    topic,
                    data,
                };
                world.tell(HOST, event);
            }
        }
    }
    world.until("everything is there", |world| world.messages(HOST) == all);
    world.commit();
    let Spent {
        engine,
        view,
        store,
        commits,
    } = world.spent;
    let count = f64::from(u32::try_from(members * messages).unwrap());
    let total = engine + view + store;
    println!(
        "{way:?}: {:.0} messages/s; each {:.0} µs: engine {:.0}, view {:.0}, store {:.0} in {commits} commits",
        count / total.as_secs_f64(),
        total.as_secs_f64() * 1e6 / count,
        engine.as_secs_f64() * 1e6 / count,
        view.as_secs_f64() * 1e6 / count,
        store.as_secs_f64() * 1e6 / count,
    );
}

/// Where the host's time went.
#[derive(Default)]
struct Spent {
    engine: Duration,
    view: Duration,
    store: Duration,
    commits: u32,
}

struct Node {
    engine: Engine,
    members: BTreeSet<MemberId>,
    streams: BTreeMap<StreamId, (ConnId, usize, StreamId)>,
    answers: BTreeMap<RequestId, Result<Reply, CommandError>>,
}

/// A host with its disk, guests without, connected through the host.
struct World {
    nodes: Vec<Node>,
    conns: BTreeMap<ConnId, [usize; 2]>,
    queue: VecDeque<(usize, Event)>,
    published: Vec<(usize, TopicId, Vec<u8>)>,
    disk: Disk,
    batch: Batch,
    gathered: usize,
    per_commit: usize,
    time: Duration,
    named: u64,
    cut: bool,
    spent: Spent,
}

impl World {
    fn new(disk: Disk) -> Self {
        let mut world = Self {
            nodes: Vec::new(),
            conns: BTreeMap::new(),
            queue: VecDeque::new(),
            published: Vec::new(),
            disk,
            batch: Batch::new(),
            gathered: 0,
            per_commit: 1,
            time: Duration::ZERO,
            named: 0,
            cut: false,
            spent: Spent::default(),
        };
        let new = NewSession {
            name: "ada".to_owned(),
            title: "receiving".to_owned(),
            ask: Ask::Never,
            control: ControlMode::Ask,
        };
        let (engine, outcome) = Engine::create(setup(), new, world.now(), world.entropy()).unwrap();
        world.enter(engine, outcome);
        world
    }

    fn join(&mut self) {
        let invite = Command::CreateInvite {
            role: Role::Viewer,
            expires_in: None,
            ask: Ask::Never,
            addresses: true,
        };
        self.asks(HOST, invite).unwrap();
        let view = self.nodes[HOST].engine.view(self.now());
        let ticket = view.invites.last().unwrap().ticket.clone().unwrap();
        let with = JoinWith {
            ticket: Ticket::parse(&ticket).unwrap(),
            name: format!("guest {}", self.nodes.len()),
            addrs: Vec::new(),
            timeout: Duration::from_secs(60),
        };
        let (engine, outcome) = Engine::join(setup(), with, self.now(), self.entropy());
        let guest = self.nodes.len();
        self.enter(engine, outcome);
        self.until("the guest is a member", |world| {
            let view = world.nodes[guest].engine.view(world.now());
            view.phase == Phase::Member { synced: true }
        });
    }

    fn enter(&mut self, engine: Engine, outcome: Outcome) {
        let number = self.nodes.len();
        self.nodes.push(Node {
            engine,
            members: BTreeSet::new(),
            streams: BTreeMap::new(),
            answers: BTreeMap::new(),
        });
        self.perform(number, outcome);
        let addr = format!("/ip4/127.0.0.1/tcp/{}", 4000 + number);
        self.tell(number, NetEvent::Networks(Vec::new()));
        self.tell(number, NetEvent::Listening(vec![addr.parse().unwrap()]));
        self.hand_over();
    }

    /// Hands over all that is under way.
    fn hand_over(&mut self) {
        while let Some((node, event)) = self.queue.pop_front() {
            self.handle(node, event);
        }
    }

    fn now(&self) -> Now {
        Now {
            mono: Mono::default() + self.time,
            wall: BEGUN + self.time,
        }
    }

    fn entropy(&mut self) -> Entropy {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.fresh_name().to_le_bytes());
        Entropy::new(seed)
    }

    fn fresh_name(&mut self) -> u64 {
        self.named += 1;
        self.named
    }

    fn messages(&self, node: usize) -> u64 {
        let replica = self.nodes[node].engine.replica();
        let timeline = replica.map(|replica| replica.documents().timeline().len());
        u64::try_from(timeline.unwrap_or(0)).unwrap()
    }

    fn asks(&mut self, node: usize, command: Command) -> Result<Reply, CommandError> {
        let request = RequestId(self.fresh_name());
        self.handle(node, Event::Command { request, command });
        self.nodes[node].answers.remove(&request).unwrap()
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

    /// Hands over what is under way, then lets time pass to the next deadline, until something holds.
    fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let end = self.time + Duration::from_secs(600);
        while !holds(self) {
            if let Some((node, event)) = self.queue.pop_front() {
                self.handle(node, event);
                continue;
            }
            let deadlines = self.nodes.iter().filter_map(|node| node.engine.deadline());
            let next = deadlines.min().unwrap();
            self.time = self.time.max(next.since(Mono::default()));
            assert!(self.time < end, "not in time: {what}");
            for node in 0..self.nodes.len() {
                self.handle(node, Event::Tick);
            }
        }
    }

    fn handle(&mut self, node: usize, event: Event) {
        let (now, mut entropy) = (self.now(), self.entropy());
        let begun = cpu();
        let outcome = self.nodes[node].engine.handle(event, now, &mut entropy);
        if node == HOST {
            let elapsed = cpu() - begun;
            self.spent.engine += elapsed;
            self.time += elapsed;
        }
        self.perform(node, outcome);
    }

    fn perform(&mut self, node: usize, outcome: Outcome) {
        if node == HOST && !outcome.persist.is_empty() {
            self.batch.append(outcome.persist);
            self.gathered += 1;
            if self.gathered >= self.per_commit {
                self.commit();
            }
        }
        for effect in outcome.effects.into_iter().chain(outcome.live) {
            match effect {
                Effect::Net(effect) => self.net(node, effect),
                Effect::Reply { request, result } => {
                    self.nodes[node].answers.insert(request, result);
                }
                Effect::Pty { .. } | Effect::Emit(_) => {}
                Effect::Stop(reason) => panic!("nobody stops here: {reason:?}"),
            }
        }
        let (now, begun) = (self.now(), cpu());
        let view = self.nodes[node].engine.view_if_changed(now);
        if node == HOST {
            drop(view.map(Arc::new));
            self.spent.view += cpu() - begun;
        }
    }

    fn commit(&mut self) {
        let begun = cpu();
        let batch = std::mem::take(&mut self.batch);
        self.disk.commit(batch, Durability::Immediate).unwrap();
        self.spent.store += cpu() - begun;
        self.spent.commits += 1;
        self.gathered = 0;
    }

    fn tell(&mut self, node: usize, event: NetEvent) {
        self.queue.push_back((node, Event::Net(event)));
    }

    fn cut_all(&mut self) {
        self.cut = true;
        let conns: Vec<ConnId> = self.conns.keys().copied().collect();
        conns.into_iter().for_each(|conn| self.close(conn));
        self.hand_over();
    }

    fn close(&mut self, conn: ConnId) {
        for node in self.conns.remove(&conn).into_iter().flatten() {
            self.nodes[node].streams.retain(|_, (on, ..)| *on != conn);
            let ended = Ended::Finished;
            self.tell(node, NetEvent::Disconnected { conn, ended });
        }
    }

    fn net(&mut self, node: usize, effect: NetEffect) {
        match effect {
            NetEffect::SetMembers(members) => self.nodes[node].members = members,
            NetEffect::Dial { peer, .. } => {
                let other = self.nodes.iter().position(|node| node.engine.me() == peer);
                match other {
                    Some(other) if [node, other].contains(&HOST) && !self.cut => {
                        self.dial(node, other);
                    }
                    _ => {
                        let reason = "nobody is there".to_owned();
                        self.tell(node, NetEvent::DialFailed { peer, reason });
                    }
                }
            }
            NetEffect::Close { conn } => self.close(conn),
            NetEffect::OpenStream { conn, stream, lane } => self.open(node, conn, stream, lane),
            NetEffect::Send { stream, message } => {
                if let Some(&(_, other, stream)) = self.nodes[node].streams.get(&stream) {
                    self.tell(other, NetEvent::StreamReceived { stream, message });
                }
            }
            NetEffect::CloseStream { stream } => {
                if let Some((_, other, theirs)) = self.nodes[node].streams.remove(&stream) {
                    self.nodes[other].streams.remove(&theirs);
                    for (side, stream) in [(node, stream), (other, theirs)] {
                        let ended = Ended::Finished;
                        self.tell(side, NetEvent::StreamClosed { stream, ended });
                    }
                }
            }
            NetEffect::Publish { topic, data } => {
                if self.cut && node != HOST {
                    self.published.push((node, topic, data));
                }
            }
            NetEffect::Subscribe(_) | NetEffect::Judge { .. } => {}
        }
    }

    fn dial(&mut self, node: usize, other: usize) {
        let conn = ConnId(self.fresh_name());
        self.conns.insert(conn, [node, other]);
        for (side, there, outbound) in [(node, other, true), (other, node, false)] {
            let peer = self.nodes[there].engine.me();
            let member = self.nodes[side].members.contains(&peer);
            let path = Path::Loopback;
            let event = NetEvent::Connected {
                conn,
                peer,
                outbound,
                path,
                member,
            };
            self.tell(side, event);
        }
    }

    fn open(&mut self, node: usize, conn: ConnId, stream: StreamId, lane: Lane) {
        let Some(ends) = self.conns.get(&conn) else {
            return;
        };
        let other = if ends[0] == node { ends[1] } else { ends[0] };
        let peer = self.nodes[node].engine.me();
        if lane != Lane::Admission && !self.nodes[other].members.contains(&peer) {
            let ended = Ended::Unsupported;
            return self.tell(node, NetEvent::StreamClosed { stream, ended });
        }
        let theirs = StreamId(self.fresh_name() * 2 + 1);
        self.nodes[node]
            .streams
            .insert(stream, (conn, other, theirs));
        self.nodes[other]
            .streams
            .insert(theirs, (conn, node, stream));
        let opened = NetEvent::StreamOpened {
            conn,
            stream: theirs,
            lane,
        };
        self.tell(other, opened);
        self.tell(node, NetEvent::StreamReady { stream });
    }
}

/// What this thread has had of a core, so that whatever else runs on the machine does not count.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanoseconds = stat.split(' ').next().unwrap();
    Duration::from_nanos(nanoseconds.parse().unwrap())
}

fn setup() -> Setup {
    Setup {
        emulators: Arc::new(|cols, rows| Box::new(Glass::new(cols, rows))),
        machine: [7; 32],
        lan_only: false,
        bugs: Bugs::default(),
    }
}
