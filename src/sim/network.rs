//! Links between nodes: connections, streams, gossip, and everything that goes wrong with them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Adversary;
use super::adversary::Memory;
use super::agenda::{Agenda, Dice, Occurrence, Process};
use crate::engine::address::{Addr, Ip, Network as Subnet, Transport};
use crate::engine::effect::{NetEffect, Verdict};
use crate::engine::event::{ConnId, Ended, GossipId, Lane, NetEvent, Path, Source, StreamId};
use crate::engine::ids::{MemberId, TopicId};

const MILLI: u64 = 1000;
/// A dial to nowhere fails after so long.
const DIAL_TIMEOUT: u64 = 3_000 * MILLI;
/// What a closing connection still has to say may take so long.
const FAREWELL: u64 = 1_000 * MILLI;
/// How long a peer that vanished without a word is believed in by the transport.
const SILENT: u64 = 10_000 * MILLI;
/// A lost packet of a stream is sent again after so long, and after twice that the next time.
const RESEND: u64 = 100 * MILLI;
/// Gossip messages that a node remembers to have seen.
const SEEN_MAX: usize = 4_096;

/// How links are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Links {
    /// Shortest and longest delay of a message, in milliseconds.
    pub delay_ms: (u64, u64),
    /// Packets lost, in per cent: on streams they come later.
    pub loss: u32,
    /// Messages doubled, in per cent, where the lane allows it.
    pub duplicate: u32,
    /// Messages delayed by up to ten times the longest delay, in per cent, where the lane allows it.
    pub reorder: u32,
    /// Connections cut at a message, per thousand messages.
    pub cut: u32,
    /// Directions in which a new connection carries no gossip, in per cent.
    pub mute: u32,
    /// The input lane loses, doubles and reorders like gossip does.
    pub wild_input: bool,
}

impl Default for Links {
    fn default() -> Self {
        Self {
            delay_ms: (1, 10),
            loss: 0,
            duplicate: 0,
            reorder: 0,
            cut: 0,
            mute: 0,
            wild_input: false,
        }
    }
}

/// Something in the network that happens at its time.
#[derive(Debug)]
pub(super) enum Happening {
    /// A process hears something.
    Event(Process, NetEvent),
    /// A dial arrives.
    Dial {
        from: Process,
        peer: MemberId,
        addrs: Vec<Addr>,
    },
    /// An item of a stream arrives at one end.
    Arrive {
        flow: u64,
        to: usize,
        seq: u64,
        item: Item,
    },
    /// A message of a lane without order arrives at one end.
    Stray {
        flow: u64,
        to: usize,
        bytes: Vec<u8>,
    },
    /// A gossip message arrives.
    Gossip {
        wire: u64,
        to: Process,
        topic: TopicId,
        data: Vec<u8>,
    },
    /// One end notices that a connection is gone.
    Down { wire: u64, end: usize, ended: Ended },
    /// A connection whose end wants to close it may be flushed.
    Farewell { wire: u64, end: usize, since: u64 },
}

/// What travels on a stream.
#[derive(Debug, Clone)]
pub(super) enum Item {
    Open,
    Message(Vec<u8>),
    Finish,
}

/// A connection between two processes.
#[derive(Debug)]
struct Wire {
    ends: [End; 2],
    open: bool,
}

#[derive(Debug)]
struct End {
    process: Process,
    conn: ConnId,
    /// Whether the other end's key is a member's here.
    member: bool,
    /// Whether this end knows that the connection is gone.
    told: bool,
}

/// A stream on a connection.
#[derive(Debug)]
struct Flow {
    wire: u64,
    lane: Lane,
    /// Its number at each end, as long as that end holds it.
    streams: [Option<StreamId>; 2],
    /// Towards each end.
    pipes: [Pipe; 2],
    opened: bool,
}

/// One direction of a stream.
#[derive(Debug, Default)]
struct Pipe {
    sent: u64,
    delivered: u64,
    arrived: BTreeMap<u64, Item>,
    /// Messages of a lane without order that came before the stream was open.
    strays: VecDeque<Vec<u8>>,
    ready: bool,
}

/// A node's place in the network while it runs.
#[derive(Debug)]
struct Host {
    process: Process,
    me: MemberId,
    members: BTreeSet<MemberId>,
    topics: BTreeSet<TopicId>,
    conns: BTreeMap<ConnId, u64>,
    streams: BTreeMap<StreamId, u64>,
    numbered: u64,
    seen: BTreeSet<[u8; 32]>,
    awaiting: BTreeMap<GossipId, (MemberId, TopicId, Vec<u8>)>,
}

/// All links.
#[derive(Debug, Default)]
pub(super) struct Network {
    pub(super) links: Links,
    pub(super) adversary: Adversary,
    hosts: BTreeMap<usize, Host>,
    wires: BTreeMap<u64, Wire>,
    flows: BTreeMap<u64, Flow>,
    numbered: u64,
    blocked: BTreeSet<(usize, usize)>,
    mute: BTreeSet<(usize, usize)>,
    memory: Memory,
}

/// What the network needs for one step.
#[derive(Debug)]
pub(super) struct Now<'a> {
    pub(super) at: u64,
    pub(super) agenda: &'a mut Agenda,
    pub(super) dice: &'a mut Dice,
}

impl Now<'_> {
    fn after(&mut self, delay: u64, happening: Happening) {
        self.agenda.put(self.at + delay, Occurrence::Net(happening));
    }
}

/// The address of a node, one for each and for ever.
pub(super) fn address_of(node: usize) -> Addr {
    let last = u8::try_from(node + 1).unwrap_or(u8::MAX);
    Addr {
        ip: Ip::V4([10, 0, 0, last]),
        port: 4000,
        transport: Transport::Quic,
    }
}

impl Network {
    /// No node yet.
    pub(super) fn new(links: Links, adversary: Adversary) -> Self {
        Self {
            links,
            adversary,
            ..Self::default()
        }
    }

    /// A process begins to listen. Returns what it hears first.
    pub(super) fn begin(&mut self, process: Process, me: MemberId) -> [NetEvent; 2] {
        let host = Host {
            process,
            me,
            members: BTreeSet::new(),
            topics: BTreeSet::new(),
            conns: BTreeMap::new(),
            streams: BTreeMap::new(),
            numbered: 0,
            seen: BTreeSet::new(),
            awaiting: BTreeMap::new(),
        };
        self.hosts.insert(process.node, host);
        let addr = address_of(process.node);
        [
            NetEvent::Networks(vec![Subnet {
                ip: addr.ip,
                prefix: 24,
            }]),
            NetEvent::Listening(vec![addr]),
        ]
    }

    /// A process and all others find each other by multicast, where they reach each other.
    pub(super) fn announce(&mut self, process: Process, now: &mut Now<'_>) {
        let Some(me) = self.host(process).map(|host| host.me) else {
            return;
        };
        let others: Vec<(Process, MemberId)> = self
            .hosts
            .values()
            .map(|host| (host.process, host.me))
            .filter(|(_, id)| *id != me)
            .collect();
        for (other, id) in others {
            for (hearer, who, node) in [(process, id, other.node), (other, me, process.node)] {
                if self.reaches(node, hearer.node) {
                    let (addrs, source) = (vec![address_of(node)], Source::Mdns);
                    let event = NetEvent::Discovered {
                        peer: who,
                        addrs,
                        source,
                    };
                    let delay = now.dice.between(1, 500) * MILLI;
                    now.after(delay, Happening::Event(hearer, event));
                }
            }
        }
    }

    /// A process is gone: its peers learn it soon, or only when the transport gives up.
    pub(super) fn end(&mut self, process: Process, silently: bool, now: &mut Now<'_>) {
        if self.host(process).is_none() {
            return;
        }
        self.hosts.remove(&process.node);
        let wires: Vec<u64> = self.wires_of(process).map(|(id, _)| id).collect();
        for id in wires {
            let delay = if silently {
                SILENT
            } else {
                now.dice.between(1, 200) * MILLI
            };
            self.cut(
                id,
                &Ended::Failed("the peer is gone".to_owned()),
                delay,
                now,
            );
        }
    }

    /// Whether two nodes reach each other.
    pub(super) fn reaches(&self, from: usize, to: usize) -> bool {
        !self.blocked.contains(&(from, to))
    }

    /// Nothing passes from one node to another until [`Network::heal`].
    pub(super) fn block(&mut self, from: usize, to: usize) {
        self.blocked.insert((from, to));
    }

    /// Every node reaches every other; what was held up arrives.
    pub(super) fn heal(&mut self) -> Vec<(Process, NetEvent)> {
        self.blocked.clear();
        let flows: Vec<u64> = self.flows.keys().copied().collect();
        flows
            .into_iter()
            .flat_map(|flow| [0, 1].map(|end| self.drain(flow, end)))
            .flatten()
            .collect()
    }

    /// Cuts all connections between two nodes.
    pub(super) fn cut_between(&mut self, a: usize, b: usize, now: &mut Now<'_>) {
        let between = |wire: &Wire| {
            let nodes = wire.ends.each_ref().map(|end| end.process.node);
            wire.open && (nodes == [a, b] || nodes == [b, a])
        };
        let cut: Vec<u64> = self
            .wires
            .iter()
            .filter(|(_, wire)| between(wire))
            .map(|(id, _)| *id)
            .collect();
        for id in cut {
            self.break_wire(id, now);
        }
    }

    /// How many connections stand between two nodes.
    pub(super) fn between(&self, a: usize, b: usize) -> usize {
        let joins = |wire: &&Wire| {
            let nodes = wire.ends.each_ref().map(|end| end.process.node);
            wire.open && (nodes == [a, b] || nodes == [b, a])
        };
        self.wires.values().filter(joins).count()
    }

    /// Ends the one-way failures of gossip.
    pub(super) fn unmute(&mut self) {
        self.mute.clear();
    }

    fn host(&self, process: Process) -> Option<&Host> {
        self.hosts
            .get(&process.node)
            .filter(|host| host.process == process)
    }

    fn host_mut(&mut self, process: Process) -> Option<&mut Host> {
        self.hosts
            .get_mut(&process.node)
            .filter(|host| host.process == process)
    }

    fn wires_of(&self, process: Process) -> impl Iterator<Item = (u64, usize)> {
        self.wires.iter().filter_map(move |(id, wire)| {
            let end = wire.ends.iter().position(|end| end.process == process)?;
            wire.open.then_some((*id, end))
        })
    }

    fn number(&mut self) -> u64 {
        self.numbered += 1;
        self.numbered
    }

    /// How long a packet takes, with those that were lost before it.
    fn delay(&self, dice: &mut Dice) -> u64 {
        let (low, high) = self.links.delay_ms;
        let mut delay = dice.between(low * MILLI, high * MILLI);
        let mut resend = RESEND;
        while dice.percent(self.links.loss) && resend < 16 * RESEND {
            delay += resend;
            resend *= 2;
        }
        delay
    }

    /// The delays of a message's copies on a lane that may lose it.
    fn copies(&self, dice: &mut Dice) -> Vec<u64> {
        let (low, high) = self.links.delay_ms;
        let count = if dice.percent(self.links.loss) { 0 } else { 1 };
        let count = count + usize::from(dice.percent(self.links.duplicate));
        let mut delay = |_| {
            let late = if dice.percent(self.links.reorder) {
                10
            } else {
                1
            };
            dice.between(low * MILLI, late * high * MILLI)
        };
        (0..count).map(&mut delay).collect()
    }
}

/// What processes ask for.
impl Network {
    /// Performs an effect of a process.
    pub(super) fn perform(&mut self, process: Process, effect: NetEffect, now: &mut Now<'_>) {
        match effect {
            NetEffect::SetMembers(members) => {
                if let Some(host) = self.host_mut(process) {
                    host.members = members;
                }
            }
            NetEffect::Dial { peer, addrs } => {
                let delay = 2 * self.delay(now.dice);
                now.after(
                    delay,
                    Happening::Dial {
                        from: process,
                        peer,
                        addrs,
                    },
                );
            }
            NetEffect::Close { conn } => self.close(process, conn, now),
            NetEffect::OpenStream { conn, stream, lane } => {
                self.open(process, conn, (stream, lane), now);
            }
            NetEffect::Send { stream, message } => {
                self.send(process, stream, Item::Message(message), now);
            }
            NetEffect::CloseStream { stream } => self.close_stream(process, stream, now),
            NetEffect::Subscribe(topic) => {
                if let Some(host) = self.host_mut(process) {
                    host.topics.insert(topic);
                }
            }
            NetEffect::Publish { topic, data } => {
                if let Some(host) = self.host_mut(process) {
                    host.see(topic, &data);
                    self.spread(process, None, topic, &data, now);
                }
            }
            NetEffect::Judge { id, verdict } => self.judge(process, id, verdict, now),
        }
    }

    fn close(&mut self, process: Process, conn: ConnId, now: &mut Now<'_>) {
        let wire = self
            .host(process)
            .and_then(|host| host.conns.get(&conn))
            .copied();
        let Some(id) = wire else { return };
        let Some(wire) = self.wires.get(&id) else {
            return;
        };
        let Some(end) = wire.ends.iter().position(|end| end.process == process) else {
            return;
        };
        if wire.open {
            let since = now.at;
            now.after(
                5 * MILLI,
                Happening::Farewell {
                    wire: id,
                    end,
                    since,
                },
            );
        } else {
            now.after(
                MILLI,
                Happening::Down {
                    wire: id,
                    end,
                    ended: Ended::Finished,
                },
            );
        }
    }

    fn open(
        &mut self,
        process: Process,
        conn: ConnId,
        (stream, lane): (StreamId, Lane),
        now: &mut Now<'_>,
    ) {
        let wire = self
            .host(process)
            .and_then(|host| host.conns.get(&conn))
            .copied();
        let standing = wire.and_then(|id| Some((id, self.wires.get(&id)?)));
        let Some((wire, standing)) = standing.filter(|(_, wire)| wire.open) else {
            let ended = Ended::Failed("the connection is gone".to_owned());
            now.after(
                MILLI,
                Happening::Event(process, NetEvent::StreamClosed { stream, ended }),
            );
            return;
        };
        let end = usize::from(
            standing
                .ends
                .get(1)
                .is_some_and(|end| end.process == process),
        );
        let flow = self.number();
        let mut streams = [None, None];
        if let Some(own) = streams.get_mut(end) {
            *own = Some(stream);
        }
        let pipes = [Pipe::default(), Pipe::default()];
        self.flows.insert(
            flow,
            Flow {
                wire,
                lane,
                streams,
                pipes,
                opened: false,
            },
        );
        if let Some(host) = self.host_mut(process) {
            host.streams.insert(stream, flow);
        }
        self.send(process, stream, Item::Open, now);
    }

    /// Puts an item on a stream, unless its end is gone.
    fn send(&mut self, process: Process, stream: StreamId, item: Item, now: &mut Now<'_>) {
        let Some(id) = self
            .host(process)
            .and_then(|host| host.streams.get(&stream))
            .copied()
        else {
            return;
        };
        let Some(flow) = self.flows.get(&id) else {
            return;
        };
        let (wire, wild) = (flow.wire, flow.lane == Lane::Input && self.links.wild_input);
        if now.dice.per_mille(self.links.cut) {
            self.break_wire(wire, now);
            return;
        }
        let Some(to) = self.flows.get(&id).and_then(|flow| flow.other_end(stream)) else {
            return;
        };
        match item {
            Item::Message(bytes) if wild => self.stray(id, to, bytes, now),
            Item::Message(_) | Item::Open | Item::Finish => self.sequence(id, to, item, now),
        }
        self.ready(process, id, 1 - to, stream, now);
    }

    /// On a stream everything arrives, in order, later rather than never.
    fn sequence(&mut self, id: u64, to: usize, item: Item, now: &mut Now<'_>) {
        let delay = self.delay(now.dice);
        let besides = match (&item, self.flows.get(&id)) {
            (Item::Message(bytes), Some(flow)) if flow.lane == Lane::Input => {
                let from = self.node_at(flow.wire, 1 - to);
                self.memory.input(self.adversary, from, bytes, now.dice)
            }
            (Item::Message(_) | Item::Open | Item::Finish, _) => Vec::new(),
        };
        let items = std::iter::once(item).chain(besides.into_iter().map(Item::Message));
        for item in items {
            let Some(pipe) = self
                .flows
                .get_mut(&id)
                .and_then(|flow| flow.pipes.get_mut(to))
            else {
                return;
            };
            let seq = pipe.sent;
            pipe.sent += 1;
            now.after(
                delay,
                Happening::Arrive {
                    flow: id,
                    to,
                    seq,
                    item,
                },
            );
        }
    }

    fn stray(&mut self, id: u64, to: usize, bytes: Vec<u8>, now: &mut Now<'_>) {
        let Some(wire) = self.flows.get(&id).map(|flow| flow.wire) else {
            return;
        };
        let from = self.node_at(wire, 1 - to);
        let besides = self.memory.input(self.adversary, from, &bytes, now.dice);
        for bytes in std::iter::once(bytes).chain(besides) {
            for delay in self.copies(now.dice) {
                let bytes = bytes.clone();
                now.after(
                    delay,
                    Happening::Stray {
                        flow: id,
                        to,
                        bytes,
                    },
                );
            }
        }
    }

    fn node_at(&self, wire: u64, end: usize) -> usize {
        let end = self.wires.get(&wire).and_then(|wire| wire.ends.get(end));
        end.map_or(usize::MAX, |end| end.process.node)
    }

    /// Tells the sender, once, that its stream takes more.
    fn ready(
        &mut self,
        process: Process,
        id: u64,
        end: usize,
        stream: StreamId,
        now: &mut Now<'_>,
    ) {
        let Some(flow) = self.flows.get_mut(&id).filter(|flow| flow.opened) else {
            return;
        };
        let Some(pipe) = flow.pipes.get_mut(end) else {
            return;
        };
        if !std::mem::replace(&mut pipe.ready, true) {
            now.after(
                MILLI,
                Happening::Event(process, NetEvent::StreamReady { stream }),
            );
        }
    }

    fn close_stream(&mut self, process: Process, stream: StreamId, now: &mut Now<'_>) {
        self.send(process, stream, Item::Finish, now);
        let Some(id) = self
            .host_mut(process)
            .and_then(|host| host.streams.remove(&stream))
        else {
            return;
        };
        if let Some(flow) = self.flows.get_mut(&id) {
            flow.forget(stream);
        }
        let ended = Ended::Finished;
        now.after(
            MILLI,
            Happening::Event(process, NetEvent::StreamClosed { stream, ended }),
        );
    }

    fn judge(&mut self, process: Process, id: GossipId, verdict: Verdict, now: &mut Now<'_>) {
        let Some(host) = self.host_mut(process) else {
            return;
        };
        let Some((from, topic, data)) = host.awaiting.remove(&id) else {
            return;
        };
        match verdict {
            Verdict::Accept => self.spread(process, Some(from), topic, &data, now),
            Verdict::Ignore | Verdict::Reject => {}
        }
    }

    /// Gossip to all neighbours but the one that it came from.
    fn spread(
        &mut self,
        process: Process,
        except: Option<MemberId>,
        topic: TopicId,
        data: &[u8],
        now: &mut Now<'_>,
    ) {
        let besides = self.memory.gossip(self.adversary, data, now.dice);
        let mut reached = BTreeSet::new();
        let wires: Vec<(u64, usize)> = self.wires_of(process).collect();
        for (id, end) in wires {
            let Some(wire) = self.wires.get(&id).filter(|wire| wire.is_gossiped()) else {
                continue;
            };
            let Some(to) = wire.ends.get(1 - end).map(|end| end.process) else {
                continue;
            };
            let Some(host) = self.host(to).filter(|host| host.topics.contains(&topic)) else {
                continue;
            };
            let muted = self.mute.contains(&(process.node, to.node));
            if Some(host.me) == except || muted || !reached.insert(to) {
                continue;
            }
            for data in std::iter::once(data).chain(besides.iter().map(Vec::as_slice)) {
                for delay in self.copies(now.dice) {
                    let data = data.to_vec();
                    now.after(
                        delay,
                        Happening::Gossip {
                            wire: id,
                            to,
                            topic,
                            data,
                        },
                    );
                }
            }
        }
    }
}

/// What happens by itself.
impl Network {
    /// Something is due. Returns what processes hear of it, in order.
    pub(super) fn happen(
        &mut self,
        happening: Happening,
        now: &mut Now<'_>,
    ) -> Vec<(Process, NetEvent)> {
        match happening {
            Happening::Event(process, event) => self.event(process, event),
            Happening::Dial { from, peer, addrs } => self.dial(from, peer, &addrs, now),
            Happening::Arrive {
                flow,
                to,
                seq,
                item,
            } => {
                if let Some(pipe) = self
                    .flows
                    .get_mut(&flow)
                    .and_then(|flow| flow.pipes.get_mut(to))
                {
                    pipe.arrived.insert(seq, item);
                }
                let opened = self.flows.get(&flow).is_some_and(|flow| flow.opened);
                let heard = self.drain(flow, to);
                if !opened {
                    self.agree(flow, to, now);
                }
                heard
            }
            Happening::Stray { flow, to, bytes } => self.strayed(flow, to, bytes),
            Happening::Gossip {
                wire,
                to,
                topic,
                data,
            } => self.gossiped(wire, to, topic, data),
            Happening::Down { wire, end, ended } => self.down(wire, end, ended),
            Happening::Farewell { wire, end, since } => {
                self.farewell(wire, end, since, now);
                Vec::new()
            }
        }
    }

    fn event(&mut self, process: Process, event: NetEvent) -> Vec<(Process, NetEvent)> {
        if self.host(process).is_none() {
            return Vec::new();
        }
        if let NetEvent::StreamReady { stream } = &event {
            let flow = self
                .host(process)
                .and_then(|host| host.streams.get(stream))
                .copied();
            let Some(flow) = flow.and_then(|id| self.flows.get_mut(&id)) else {
                return Vec::new();
            };
            if let Some(pipe) = flow
                .other_end(*stream)
                .and_then(|to| flow.pipes.get_mut(1 - to))
            {
                pipe.ready = false;
            }
        }
        vec![(process, event)]
    }

    fn dial(
        &mut self,
        from: Process,
        peer: MemberId,
        addrs: &[Addr],
        now: &mut Now<'_>,
    ) -> Vec<(Process, NetEvent)> {
        if self.host(from).is_none() {
            return Vec::new();
        }
        let there = |host: &&Host| addrs.contains(&address_of(host.process.node));
        let to = self
            .hosts
            .values()
            .find(there)
            .map(|host| (host.process, host.me));
        let fail = |reason: &str| NetEvent::DialFailed {
            peer,
            reason: reason.to_owned(),
        };
        let Some((to, key)) = to else {
            return vec![(from, fail("connection refused"))];
        };
        let node = to.node;
        if !self.reaches(from.node, node) || !self.reaches(node, from.node) {
            now.after(DIAL_TIMEOUT, Happening::Event(from, fail("timed out")));
            return Vec::new();
        }
        if key != peer {
            return vec![(from, fail("another key answered"))];
        }
        self.connect(from, to, now)
    }

    fn connect(
        &mut self,
        from: Process,
        to: Process,
        now: &mut Now<'_>,
    ) -> Vec<(Process, NetEvent)> {
        let id = self.number();
        for (a, b) in [(from, to), (to, from)] {
            if now.dice.percent(self.links.mute) {
                self.mute.insert((a.node, b.node));
            } else {
                self.mute.remove(&(a.node, b.node));
            }
        }
        let keys = (
            self.host(from).map(|host| host.me),
            self.host(to).map(|host| host.me),
        );
        let (Some(from_key), Some(to_key)) = keys else {
            return Vec::new();
        };
        let mut ends = Vec::new();
        let mut heard = Vec::new();
        for (process, peer, outbound) in [(to, from_key, false), (from, to_key, true)] {
            let Some(host) = self.host_mut(process) else {
                continue;
            };
            host.numbered += 1;
            let conn = ConnId(host.numbered);
            host.conns.insert(conn, id);
            let member = host.members.contains(&peer);
            let path = Path::Lan;
            heard.push((
                process,
                NetEvent::Connected {
                    conn,
                    peer,
                    outbound,
                    path,
                    member,
                },
            ));
            ends.push(End {
                process,
                conn,
                member,
                told: false,
            });
        }
        if let Ok(ends) = <[End; 2]>::try_from(ends) {
            self.wires.insert(id, Wire { ends, open: true });
        }
        heard
    }

    /// Hands over what has arrived in order, unless the way is blocked.
    fn drain(&mut self, id: u64, to: usize) -> Vec<(Process, NetEvent)> {
        let mut heard = Vec::new();
        while let Some(item) = self.next_item(id, to) {
            heard.extend(self.arrived(id, to, item));
        }
        heard
    }

    fn next_item(&mut self, id: u64, to: usize) -> Option<Item> {
        let wire = self.wires.get(&self.flows.get(&id)?.wire)?;
        let (from, target) = (wire.ends.get(1 - to)?, wire.ends.get(to)?);
        if !wire.open || !self.reaches(from.process.node, target.process.node) {
            return None;
        }
        let pipe = self.flows.get_mut(&id)?.pipes.get_mut(to)?;
        let item = pipe.arrived.remove(&pipe.delivered)?;
        pipe.delivered += 1;
        Some(item)
    }

    fn arrived(&mut self, id: u64, to: usize, item: Item) -> Vec<(Process, NetEvent)> {
        let Some(process) = self.process_at(id, to) else {
            return Vec::new();
        };
        match item {
            Item::Open => self.accept(id, to, process),
            Item::Message(message) => {
                let stream = self.flows.get(&id).and_then(|flow| *flow.streams.get(to)?);
                let event = |stream| (process, NetEvent::StreamReceived { stream, message });
                stream.map(event).into_iter().collect()
            }
            Item::Finish => {
                let stream = self
                    .flows
                    .get_mut(&id)
                    .and_then(|flow| flow.streams.get_mut(to)?.take());
                if let (Some(stream), Some(host)) = (stream, self.host_mut(process)) {
                    host.streams.remove(&stream);
                }
                let ended = Ended::Finished;
                let event = |stream| (process, NetEvent::StreamClosed { stream, ended });
                stream.map(event).into_iter().collect()
            }
        }
    }

    fn accept(&mut self, id: u64, to: usize, process: Process) -> Vec<(Process, NetEvent)> {
        let Some(flow) = self.flows.get(&id) else {
            return Vec::new();
        };
        let (lane, wire) = (flow.lane, flow.wire);
        let end = self.wires.get(&wire).and_then(|wire| wire.ends.get(to));
        let Some((conn, member)) = end.map(|end| (end.conn, end.member)) else {
            return Vec::new();
        };
        if lane != Lane::Admission && !member {
            return Vec::new();
        }
        let Some(host) = self.host_mut(process) else {
            return Vec::new();
        };
        host.numbered += 1;
        let stream = StreamId(2 * host.numbered + 1);
        host.streams.insert(stream, id);
        let mut heard = vec![(process, NetEvent::StreamOpened { conn, stream, lane })];
        if let Some(flow) = self.flows.get_mut(&id) {
            if let Some(own) = flow.streams.get_mut(to) {
                *own = Some(stream);
            }
            flow.opened = true;
            let strays = flow
                .pipes
                .get_mut(to)
                .map(|pipe| std::mem::take(&mut pipe.strays));
            let message = |message| (process, NetEvent::StreamReceived { stream, message });
            heard.extend(strays.unwrap_or_default().into_iter().map(message));
        }
        heard
    }

    /// Tells the opener of a stream whether the other end speaks its lane.
    fn agree(&mut self, id: u64, to: usize, now: &mut Now<'_>) {
        let delay = self.delay(now.dice);
        let Some(process) = self.process_at(id, 1 - to) else {
            return;
        };
        let Some(flow) = self.flows.get(&id) else {
            return;
        };
        let Some(stream) = flow.streams.get(1 - to).copied().flatten() else {
            return;
        };
        let asked = flow.pipes.get(to).is_some_and(|pipe| pipe.delivered > 0);
        if flow.opened {
            now.after(
                delay,
                Happening::Event(process, NetEvent::StreamReady { stream }),
            );
        } else if asked {
            self.flows.remove(&id);
            if let Some(host) = self.host_mut(process) {
                host.streams.remove(&stream);
            }
            let ended = Ended::Unsupported;
            now.after(
                delay,
                Happening::Event(process, NetEvent::StreamClosed { stream, ended }),
            );
        }
    }

    fn strayed(&mut self, id: u64, to: usize, message: Vec<u8>) -> Vec<(Process, NetEvent)> {
        let Some(process) = self.process_at(id, to) else {
            return Vec::new();
        };
        let Some(flow) = self.flows.get(&id) else {
            return Vec::new();
        };
        let (from, node) = (self.node_at(flow.wire, 1 - to), process.node);
        let open = self.wires.get(&flow.wire).is_some_and(|wire| wire.open);
        if !open || !self.reaches(from, node) {
            return Vec::new();
        }
        let Some(flow) = self.flows.get_mut(&id) else {
            return Vec::new();
        };
        match (flow.opened, flow.streams.get(to).copied().flatten()) {
            (true, Some(stream)) => vec![(process, NetEvent::StreamReceived { stream, message })],
            (true, None) => Vec::new(),
            (false, _) => {
                flow.pipes
                    .get_mut(to)
                    .into_iter()
                    .for_each(|pipe| pipe.strays.push_back(message.clone()));
                Vec::new()
            }
        }
    }

    fn process_at(&self, flow: u64, end: usize) -> Option<Process> {
        let process = self
            .wires
            .get(&self.flows.get(&flow)?.wire)?
            .ends
            .get(end)?
            .process;
        self.host(process).map(|host| host.process)
    }

    fn gossiped(
        &mut self,
        wire: u64,
        to: Process,
        topic: TopicId,
        data: Vec<u8>,
    ) -> Vec<(Process, NetEvent)> {
        let Some(wire) = self.wires.get(&wire).filter(|wire| wire.open) else {
            return Vec::new();
        };
        let Some(from) = wire.ends.iter().find(|end| end.process != to) else {
            return Vec::new();
        };
        let (from, to_node) = (from.process, to.node);
        let Some(sender) = self.host(from).map(|host| host.me) else {
            return Vec::new();
        };
        if !self.reaches(from.node, to_node) {
            return Vec::new();
        }
        let Some(host) = self.host_mut(to) else {
            return Vec::new();
        };
        if !host.see(topic, &data) {
            return Vec::new();
        }
        host.numbered += 1;
        let id = GossipId(host.numbered);
        host.awaiting.insert(id, (sender, topic, data.clone()));
        vec![(
            to,
            NetEvent::Gossip {
                id,
                from: sender,
                topic,
                data,
            },
        )]
    }

    /// A connection ends at once; each end notices in its own time.
    fn break_wire(&mut self, id: u64, now: &mut Now<'_>) {
        let longest = if now.dice.percent(50) { 200 } else { 4_000 };
        let delay = now.dice.between(1, longest) * MILLI;
        self.cut(
            id,
            &Ended::Failed("connection reset".to_owned()),
            delay,
            now,
        );
    }

    fn cut(&mut self, id: u64, ended: &Ended, delay: u64, now: &mut Now<'_>) {
        let Some(wire) = self.wires.get_mut(&id).filter(|wire| wire.open) else {
            return;
        };
        wire.open = false;
        let nodes = wire.ends.each_ref().map(|end| end.process.node);
        let apart = !self.reaches(nodes[0], nodes[1]) || !self.reaches(nodes[1], nodes[0]);
        for end in [0, 1] {
            let delay = now.dice.between(MILLI, delay.max(MILLI));
            let delay = if apart && end == 1 { SILENT } else { delay };
            now.after(
                delay,
                Happening::Down {
                    wire: id,
                    end,
                    ended: ended.clone(),
                },
            );
        }
        self.flows.retain(|_, flow| flow.wire != id);
        let flows = &self.flows;
        for host in self.hosts.values_mut() {
            host.streams.retain(|_, flow| flows.contains_key(flow));
        }
    }

    fn down(&mut self, id: u64, end: usize, ended: Ended) -> Vec<(Process, NetEvent)> {
        let Some(wire) = self.wires.get_mut(&id) else {
            return Vec::new();
        };
        let Some(own) = wire.ends.get_mut(end) else {
            return Vec::new();
        };
        if std::mem::replace(&mut own.told, true) {
            return Vec::new();
        }
        let (process, conn) = (own.process, own.conn);
        if wire.ends.iter().all(|end| end.told) {
            self.wires.remove(&id);
        }
        let Some(host) = self.host_mut(process) else {
            return Vec::new();
        };
        host.conns.remove(&conn);
        vec![(process, NetEvent::Disconnected { conn, ended })]
    }

    /// Closes a connection once what was sent has arrived, or its time is over.
    fn farewell(&mut self, id: u64, end: usize, since: u64, now: &mut Now<'_>) {
        let unsaid = |flow: &Flow| {
            let pipe = flow.pipes.get(1 - end);
            flow.wire == id && pipe.is_some_and(|pipe| pipe.delivered < pipe.sent)
        };
        if self.flows.values().any(unsaid) && now.at < since + FAREWELL {
            now.after(
                20 * MILLI,
                Happening::Farewell {
                    wire: id,
                    end,
                    since,
                },
            );
        } else {
            self.cut(id, &Ended::Finished, 5 * MILLI, now);
        }
    }
}

impl Wire {
    /// Gossip goes only where both ends know each other as members.
    fn is_gossiped(&self) -> bool {
        self.open && self.ends.iter().all(|end| end.member)
    }
}

impl Flow {
    /// The end that this stream's sender sends to.
    fn other_end(&self, stream: StreamId) -> Option<usize> {
        let own = self.streams.iter().position(|own| *own == Some(stream))?;
        Some(1 - own)
    }

    fn forget(&mut self, stream: StreamId) {
        for own in self.streams.iter_mut().filter(|own| **own == Some(stream)) {
            *own = None;
        }
    }
}

impl Host {
    /// Notes a gossip message; whether it is new here.
    fn see(&mut self, topic: TopicId, data: &[u8]) -> bool {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&topic.0).update(data);
        if self.seen.len() >= SEEN_MAX {
            self.seen.pop_first();
        }
        self.seen.insert(*hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::wildcard_enum_match_arm,
        reason = "a test looks for one of many events"
    )]

    use super::*;

    const SENT: u8 = 40;

    /// What arrived of a run of messages at whose end, or in whose middle, the connection was cut.
    fn arrived(seed: u64, cut_after: u8) -> Vec<u8> {
        let links = Links {
            delay_ms: (1, 20),
            loss: 2,
            ..Links::default()
        };
        let mut network = Network::new(links, Adversary::default());
        let (mut agenda, mut dice) = (Agenda::default(), Dice::new(seed));
        let processes = [0, 1].map(|node| Process { node, life: 0 });
        let ids = [MemberId([1; 32]), MemberId([2; 32])];
        for (process, id) in processes.into_iter().zip(ids) {
            network.begin(process, id);
            let members = ids.into();
            let mut now = Now {
                at: 0,
                agenda: &mut agenda,
                dice: &mut dice,
            };
            network.perform(process, NetEffect::SetMembers(members), &mut now);
        }
        let mut now = Now {
            at: 0,
            agenda: &mut agenda,
            dice: &mut dice,
        };
        let connected = network.connect(processes[0], processes[1], &mut now);
        let Some((_, NetEvent::Connected { conn, .. })) = connected.last() else {
            panic!("{connected:?}");
        };
        let (conn, stream, lane) = (*conn, StreamId(2), Lane::Control);
        let open = NetEffect::OpenStream { conn, stream, lane };
        network.perform(processes[0], open, &mut now);
        let mut heard = Vec::new();
        let mut at = 0;
        for number in 0..SENT {
            // Some have arrived, some are under way, and the rest is yet to be sent when it is cut.
            let message = vec![number];
            let mut now = Now {
                at,
                agenda: &mut agenda,
                dice: &mut dice,
            };
            network.perform(processes[0], NetEffect::Send { stream, message }, &mut now);
            if number == cut_after {
                network.cut_between(0, 1, &mut now);
            }
            at += 2 * MILLI;
            while agenda.next().is_some_and(|next| next <= at) {
                heard.extend(happen(&mut network, &mut agenda, &mut dice));
            }
        }
        while agenda.next().is_some() {
            heard.extend(happen(&mut network, &mut agenda, &mut dice));
        }
        heard
    }

    fn happen(network: &mut Network, agenda: &mut Agenda, dice: &mut Dice) -> Vec<u8> {
        let Some((at, Occurrence::Net(happening))) = agenda.pop() else {
            panic!("only the network does anything");
        };
        let mut now = Now { at, agenda, dice };
        let heard = network.happen(happening, &mut now).into_iter();
        let number = |(_, event)| match event {
            NetEvent::StreamReceived { message, .. } => message.first().copied(),
            _ => None,
        };
        heard.filter_map(number).collect()
    }

    #[test]
    fn a_cut_lets_a_part_of_what_was_under_way_arrive_and_loses_the_rest() {
        let (mut nothing, mut part) = (0, 0);
        for seed in 0..100 {
            for cut_after in [1, 20] {
                let heard = arrived(seed, cut_after);
                let count = u8::try_from(heard.len()).unwrap();
                assert_eq!(
                    heard,
                    (0..count).collect::<Vec<u8>>(),
                    "whole, in order, once"
                );
                assert!(count <= cut_after + 1);
                nothing += u32::from(count == 0);
                part += u32::from(count > 0 && count <= cut_after);
            }
        }

        assert!(nothing > 10 && part > 40, "{nothing} {part}");
    }
}
