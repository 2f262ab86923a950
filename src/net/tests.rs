//! Nodes on loopback, with real sockets.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test waits for one of many events"
)]

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use libp2p::swarm::SwarmEvent;

use super::*;
use crate::engine::address::Transport;
use crate::engine::effect::Verdict;
use crate::engine::event::{ConnId, Ended, Lane, Path, StreamId};
use crate::engine::ids::TopicId;

mod broken;

const TOPIC: TopicId = TopicId([7; 32]);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_exchange_messages_on_every_lane() {
    for transport in [Transport::Tcp, Transport::Quic] {
        let (mut a, mut b) = members().await;
        let (at_b, at_a) = connect(&mut b, &mut a, transport).await;
        assert!(at_a.member && at_b.member && at_b.outbound && !at_a.outbound);
        assert_eq!(at_a.path, Path::Loopback);

        for lane in [Lane::Admission, Lane::Control, Lane::Input, Lane::Screen] {
            let ours = b.open(at_b.conn, lane).await;
            let theirs = a.opened(lane).await;
            let longest = match lane {
                Lane::Screen => limits::SCREEN_ASK_BYTES_MAX,
                Lane::Admission | Lane::Control | Lane::Input => limits::INPUT_MESSAGE_BYTES_MAX,
            };
            b.send(ours, b"one");
            b.send(ours, &vec![9; longest]);
            assert_eq!(a.received(theirs).await, b"one");
            assert_eq!(a.received(theirs).await, vec![9; longest]);
            a.send(theirs, b"two");
            assert_eq!(b.received(ours).await, b"two");
            b.net.perform(NetEffect::CloseStream { stream: ours });
            assert_eq!(a.closed(theirs).await, Ended::Finished);
            assert_eq!(b.closed(ours).await, Ended::Finished);
        }
        let screen = b.open(at_b.conn, Lane::Screen).await;
        let theirs = a.opened(Lane::Screen).await;
        a.send(theirs, &vec![3; limits::SCREEN_MESSAGE_BYTES_MAX]);
        assert_eq!(
            b.received(screen).await,
            vec![3; limits::SCREEN_MESSAGE_BYTES_MAX]
        );
        a.ready(theirs).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_gets_admission_and_nothing_else() {
    let (mut a, mut b) = members().await;
    a.net.perform(NetEffect::SetMembers(BTreeSet::new()));
    a.net.perform(NetEffect::Subscribe(TOPIC));
    b.net.perform(NetEffect::Subscribe(TOPIC));
    let (at_b, at_a) = connect(&mut b, &mut a, Transport::Tcp).await;
    assert!(at_b.member && !at_a.member);

    let admission = b.open(at_b.conn, Lane::Admission).await;
    let theirs = a.opened(Lane::Admission).await;
    b.send(admission, b"let me in");
    assert_eq!(a.received(theirs).await, b"let me in");
    for lane in [Lane::Control, Lane::Input, Lane::Screen] {
        let refused = b.ask_for(at_b.conn, lane);
        assert_eq!(b.closed(refused).await, Ended::Unsupported);
    }
    b.publish("to a");
    a.publish("to b");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!a.has(|event| matches!(event, NetEvent::Gossip { .. })));
    assert!(!b.has(|event| matches!(event, NetEvent::Gossip { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_who_says_too_much_is_cut_off() {
    let (mut a, mut b) = members().await;
    a.net.perform(NetEffect::SetMembers(BTreeSet::new()));
    let (at_b, at_a) = connect(&mut b, &mut a, Transport::Tcp).await;

    let admission = b.open(at_b.conn, Lane::Admission).await;
    let pieces = limits::UNPROVEN_INBOUND_BYTES_MAX / limits::ADMISSION_MESSAGE_BYTES_MAX;
    for _ in 0..=pieces {
        b.send(admission, &[0; limits::ADMISSION_MESSAGE_BYTES_MAX]);
    }
    a.disconnected(at_a.conn).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_stranger_has_only_so_many_connections() {
    let (mut a, b) = members().await;
    a.net.perform(NetEffect::SetMembers(BTreeSet::new()));
    for _ in 0..=limits::UNPROVEN_CONNECTIONS_PER_PEER_MAX {
        b.dial(&a, &a.over(Transport::Tcp));
    }
    for _ in 0..limits::UNPROVEN_CONNECTIONS_PER_PEER_MAX {
        a.connected().await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!a.has(|event| matches!(event, NetEvent::Connected { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_reaches_who_judges_it_and_passes_it_on_only_if_good() {
    let (mut a, mut b) = members().await;
    let mut c = Node::start(3).await;
    for node in [&a, &b, &c] {
        node.know([&a, &b, &c]);
        node.net.perform(NetEffect::Subscribe(TOPIC));
    }
    connect(&mut b, &mut a, Transport::Tcp).await;
    connect(&mut c, &mut b, Transport::Quic).await;
    assert!(heard(&b, &mut c).await); // so b knows that c takes part

    a.publish("bad");
    let (bad, _) = b.gossip("bad").await;
    b.net.perform(NetEffect::Judge {
        id: bad,
        verdict: Verdict::Reject,
    });
    a.publish("good");
    let (good, from) = b.gossip("good").await;
    assert_eq!(from, a.id);
    b.net.perform(NetEffect::Judge {
        id: good,
        verdict: Verdict::Accept,
    });
    let (_, from) = c.gossip("good").await;
    assert_eq!(from, b.id);
    assert!(!c.has(|event| matches!(event, NetEvent::Gossip { data, .. } if data == b"bad")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_before_a_neighbour_comes_reaches_it() {
    let (mut a, mut b) = members().await;
    subscribe(&a, &b);
    a.publish("early");
    connect(&mut b, &mut a, Transport::Tcp).await;

    b.gossip("early").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_goes_on_with_a_new_instance_while_the_old_connection_still_stands() {
    for transport in [Transport::Tcp, Transport::Quic] {
        let (mut a, mut old) = members().await;
        subscribe(&a, &old);
        let (_, stale) = connect(&mut old, &mut a, transport).await;
        both_ways(&mut a, &mut old).await;

        let mut new = Node::start(2).await;
        new.know([&a]);
        new.net.perform(NetEffect::Subscribe(TOPIC));
        connect(&mut new, &mut a, transport).await;
        both_ways(&mut a, &mut new).await;
        a.net.perform(NetEffect::Close { conn: stale.conn });
        a.disconnected(stale.conn).await;
        both_ways(&mut a, &mut new).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_survives_the_closing_of_either_of_two_connections() {
    let transports = [Transport::Tcp, Transport::Quic];
    for (first, second) in transports
        .into_iter()
        .flat_map(|a| transports.map(|b| (a, b)))
    {
        for closed_by_a in [true, false] {
            let (mut a, mut b) = members().await;
            subscribe(&a, &b);
            b.dial(&a, &a.over(first));
            a.dial(&b, &b.over(second));
            let ours = [a.connected().await, a.connected().await];
            let theirs = [b.connected().await, b.connected().await];
            assert_ne!(ours[0].outbound, ours[1].outbound);
            both_ways(&mut a, &mut b).await;

            let dialled_by_a = |ends: &[Connected; 2], by_a: bool| {
                ends.iter().find(|end| end.outbound == by_a).unwrap().conn
            };
            let (at_a, at_b) = (dialled_by_a(&ours, true), dialled_by_a(&theirs, false));
            if closed_by_a {
                a.net.perform(NetEffect::Close { conn: at_a });
            } else {
                b.net.perform(NetEffect::Close { conn: at_b });
            }
            both_ways(&mut a, &mut b).await;
            a.disconnected(at_a).await;
            b.disconnected(at_b).await;
            both_ways(&mut a, &mut b).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_comes_of_a_dial_with_several_addresses() {
    let (mut a, mut b) = members().await;
    b.dial(&a, &a.addrs);
    let at_b = b.connected().await;
    tokio::time::sleep(Duration::from_millis(400)).await;

    assert!(!b.has(|event| matches!(event, NetEvent::Connected { .. })));
    let mut standing = BTreeSet::new();
    while let Some(event) = a.next_now() {
        match event {
            NetEvent::Connected { conn, .. } => drop(standing.insert(conn)),
            NetEvent::Disconnected { conn, .. } => drop(standing.remove(&conn)),
            _ => {}
        }
    }
    assert_eq!(standing.len(), 1);
    b.open(at_b.conn, Lane::Control).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_else_at_one_address_does_not_spoil_the_others() {
    let (a, mut b) = members().await;
    let c = Node::start(3).await;
    let mut addrs = c.over(Transport::Tcp);
    addrs.extend(a.over(Transport::Quic));
    b.dial(&a, &addrs);
    assert_eq!(b.connected().await.peer, a.id);

    b.dial(&a, &c.over(Transport::Tcp));
    let reason = b
        .wait("the dial's failure", |event| match event {
            NetEvent::DialFailed { reason, .. } => Some(reason.clone()),
            _ => None,
        })
        .await;
    assert!(reason.contains("somebody else"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_announced_longer_than_its_lane_allows_ends_the_stream() {
    let (mut a, mut b) = members().await;
    let (at_b, _) = connect(&mut b, &mut a, Transport::Tcp).await;
    let ours = b.open(at_b.conn, Lane::Input).await;
    let theirs = a.opened(Lane::Input).await;

    b.net
        .shared
        .send_unchecked(ours, vec![0; limits::INPUT_MESSAGE_BYTES_MAX + 1]);
    assert_eq!(a.closed(theirs).await, Ended::TooLarge);

    let asks = b.open(at_b.conn, Lane::Screen).await;
    let asked = a.opened(Lane::Screen).await;
    b.send(asks, &[0; limits::SCREEN_ASK_BYTES_MAX + 1]);
    assert_eq!(a.closed(asked).await, Ended::TooLarge);

    let honest = b.open(at_b.conn, Lane::Input).await;
    b.send(honest, &[0; limits::INPUT_MESSAGE_BYTES_MAX + 1]);
    assert_eq!(b.closed(honest).await, Ended::TooLarge);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stalls_is_not_filled_up_and_loses_nothing() {
    let (mut a, mut b) = members().await;
    let (at_b, at_a) = connect(&mut b, &mut a, Transport::Tcp).await;
    let ours = b.open(at_b.conn, Lane::Control).await;
    let theirs = a.opened(Lane::Control).await;
    let count = 3_000_u32;
    for number in 0..count {
        let mut message = vec![0; 1024];
        message[..4].copy_from_slice(&number.to_le_bytes());
        b.send(ours, &message);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let waiting = a.net.shared.inbox.waiting(Line::Connection(at_a.conn));
    assert!(waiting <= limits::STREAM_BACKLOG_MESSAGES_MAX, "{waiting}");

    let other = b.open(at_b.conn, Lane::Input).await;
    b.send(other, b"past it");
    for number in 0..count {
        assert_eq!(a.received(theirs).await[..4], number.to_le_bytes());
    }
    let input = a.opened(Lane::Input).await;
    assert_eq!(a.received(input).await, b"past it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_never_reads_costs_the_writer_only_the_lanes_queue() {
    let (mut a, mut b) = members().await;
    let (at_b, _) = connect(&mut b, &mut a, Transport::Quic).await;
    let ours = b.open(at_b.conn, Lane::Input).await;
    let message = vec![0; limits::INPUT_MESSAGE_BYTES_MAX];
    for _ in 0..1000 {
        b.send(ours, &message);
    }
    assert!(matches!(b.closed(ours).await, Ended::Failed(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_before_a_closing_or_a_shutdown_arrives() {
    for transport in [Transport::Tcp, Transport::Quic] {
        for shutdown in [true, false] {
            let (mut a, mut b) = members().await;
            let (at_b, at_a) = connect(&mut b, &mut a, transport).await;
            let theirs = a.open(at_a.conn, Lane::Screen).await;
            let ours = b.opened(Lane::Screen).await;
            let last = vec![5; limits::SCREEN_MESSAGE_BYTES_MAX];
            b.send(ours, &last);
            b.send(ours, b"bye");
            let net = b.net.clone();
            let closing = tokio::spawn(async move {
                if shutdown {
                    net.shutdown().await;
                } else {
                    net.perform(NetEffect::Close { conn: at_b.conn });
                }
            });

            assert!(a.received(theirs).await == last);
            assert_eq!(a.received(theirs).await, b"bye");
            assert_eq!(a.disconnected(at_a.conn).await, Ended::Finished);
            closing.await.unwrap();
            b.disconnected(at_b.conn).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_on_a_connection_that_is_gone_fails() {
    let mut a = Node::start(1).await;
    let stream = a.ask_for(ConnId(99), Lane::Control);
    assert!(matches!(a.closed(stream).await, Ended::Failed(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_used_port_moves_only_if_it_may() {
    let a = Node::start(1).await;
    let taken = a.over(Transport::Quic);
    let mut config = NetConfig {
        listen: taken,
        ..config(2)
    };
    config.ports_may_move = false;
    assert!(matches!(
        Net::start(config.clone()),
        Err(NetError::Listen { .. })
    ));
    config.ports_may_move = true;
    assert!(Net::start(config).is_ok());
}

#[tokio::test]
async fn a_panic_of_the_networks_task_ends_the_events() {
    let shared = Shared::default();
    let mut events = NetEvents::of(&shared.inbox);
    guarded(async { panic!("on purpose") }, &shared).await;
    assert!(events.recv().await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn networks_are_told_before_addresses() {
    let (net, mut events) = Net::start(NetConfig::new([9; 32])).unwrap();
    assert!(matches!(events.recv().await, Some(NetEvent::Networks(_))));
    let Some(NetEvent::Listening(addrs)) = events.recv().await else {
        panic!("no addresses");
    };
    assert!(
        addrs
            .iter()
            .any(|addr| addr.to_string().starts_with("/ip4/127.0.0.1/tcp/"))
    );
    assert!(addrs.iter().all(|addr| addr.port != 0));
    net.shutdown().await;
    while events.recv().await.is_some() {}
}

/// One end of a connection, as it was reported.
#[derive(Debug, Clone, Copy)]
struct Connected {
    conn: ConnId,
    peer: MemberId,
    outbound: bool,
    path: Path,
    member: bool,
}

struct Node {
    net: NetHandle,
    events: NetEvents,
    id: MemberId,
    addrs: Vec<Addr>,
    seen: VecDeque<NetEvent>,
}

fn config(seed: u8) -> NetConfig {
    NetConfig {
        mdns: false,
        scope: Scope::Loopback,
        ..NetConfig::new([seed; 32])
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_learns_by_identify_where_it_is_seen_and_no_listen_address() {
    let a = Node::start(1).await;
    a.net
        .perform(NetEffect::SetMembers(BTreeSet::from([member_of(2)])));
    let info = identified(2, &a).await.unwrap();
    assert!(
        info.agent_version.starts_with("collab-p2p/"),
        "{}",
        info.agent_version
    );
    assert_eq!(info.listen_addrs, []);
    assert!(
        info.observed_addr
            .to_string()
            .starts_with("/ip4/127.0.0.1/tcp/")
    );
    assert_eq!(info.protocol_version, PROTOCOL);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_learns_nothing_by_identify() {
    let a = Node::start(1).await;
    assert!(identified(2, &a).await.is_none());
}

/// What bare libp2p with a member's or a stranger's key gets from `node` by identify.
async fn identified(seed: u8, node: &Node) -> Option<identify::Info> {
    let key = identity::Keypair::ed25519_from_bytes([seed; 32]).unwrap();
    let asks = identify::Behaviour::new(identify::Config::new("test".to_owned(), key.public()));
    let mut swarm = Swarm::new(
        transport::build(&key).unwrap(),
        asks,
        key.public().to_peer_id(),
        Config::with_tokio_executor(),
    );
    let [addr] = node.over(Transport::Tcp)[..] else {
        panic!("the node listens on TCP");
    };
    swarm.dial(convert::to_multiaddr(&addr)).unwrap();
    let answer = async {
        loop {
            match swarm.next().await.unwrap() {
                SwarmEvent::Behaviour(identify::Event::Received { info, .. }) => return Some(info),
                SwarmEvent::Behaviour(identify::Event::Error { .. })
                | SwarmEvent::ConnectionClosed { .. } => return None,
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), answer)
        .await
        .unwrap()
}

fn member_of(seed: u8) -> MemberId {
    MemberId(
        ed25519_dalek::SigningKey::from_bytes(&[seed; 32])
            .verifying_key()
            .to_bytes(),
    )
}

async fn members() -> (Node, Node) {
    let (a, b) = (Node::start(1).await, Node::start(2).await);
    a.know([&a, &b]);
    b.know([&a, &b]);
    (a, b)
}

fn subscribe(a: &Node, b: &Node) {
    a.net.perform(NetEffect::Subscribe(TOPIC));
    b.net.perform(NetEffect::Subscribe(TOPIC));
}

async fn connect(from: &mut Node, to: &mut Node, over: Transport) -> (Connected, Connected) {
    from.dial(to, &to.over(over));
    (from.connected().await, to.connected().await)
}

/// Gossip is not sure: each side says something new until it arrives, at most for five seconds.
#[track_caller]
fn both_ways<'a>(a: &'a mut Node, b: &'a mut Node) -> impl Future<Output = ()> + 'a {
    let caller = std::panic::Location::caller();
    async move {
        assert!(
            heard(a, b).await,
            "line {}: the second hears nothing",
            caller.line()
        );
        assert!(
            heard(b, a).await,
            "line {}: the first hears nothing",
            caller.line()
        );
    }
}

async fn heard(from: &Node, to: &mut Node) -> bool {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    for _ in 0..50 {
        let said = format!("number {}", NUMBER.fetch_add(1, Ordering::Relaxed));
        from.publish(&said);
        let arrived = tokio::time::timeout(Duration::from_millis(100), to.gossip(&said)).await;
        if arrived.is_ok() {
            return true;
        }
    }
    false
}

impl Node {
    async fn start(seed: u8) -> Self {
        let (net, events) = Net::start(config(seed)).unwrap();
        let mut node = Self {
            net,
            events,
            id: member_of(seed),
            addrs: Vec::new(),
            seen: VecDeque::new(),
        };
        while node.addrs.len() < 2 {
            node.addrs = node
                .wait("addresses", |event| match event {
                    NetEvent::Listening(addrs) => Some(addrs.clone()),
                    _ => None,
                })
                .await;
        }
        node
    }

    fn over(&self, transport: Transport) -> Vec<Addr> {
        let addrs = self.addrs.iter().filter(|addr| addr.transport == transport);
        addrs.take(1).copied().collect()
    }

    fn know<const N: usize>(&self, nodes: [&Self; N]) {
        self.net.perform(NetEffect::SetMembers(
            nodes.iter().map(|node| node.id).collect(),
        ));
    }

    fn dial(&self, to: &Self, addrs: &[Addr]) {
        self.net.perform(NetEffect::Dial {
            peer: to.id,
            addrs: addrs.to_vec(),
        });
    }

    fn send(&self, stream: StreamId, message: &[u8]) {
        self.net.perform(NetEffect::Send {
            stream,
            message: message.to_vec(),
        });
    }

    fn publish(&self, text: &str) {
        self.net.perform(NetEffect::Publish {
            topic: TOPIC,
            data: text.as_bytes().to_vec(),
        });
    }

    fn ask_for(&self, conn: ConnId, lane: Lane) -> StreamId {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let stream = StreamId(NEXT.fetch_add(2, Ordering::Relaxed));
        self.net
            .perform(NetEffect::OpenStream { conn, stream, lane });
        stream
    }

    async fn open(&mut self, conn: ConnId, lane: Lane) -> StreamId {
        let stream = self.ask_for(conn, lane);
        self.ready(stream).await;
        stream
    }

    async fn ready(&mut self, wanted: StreamId) {
        self.wait("readiness", |event| {
            matches!(event, NetEvent::StreamReady { stream } if *stream == wanted).then_some(())
        })
        .await;
    }

    async fn opened(&mut self, wanted: Lane) -> StreamId {
        self.opened_on(wanted).await.1
    }

    async fn opened_on(&mut self, wanted: Lane) -> (ConnId, StreamId) {
        self.wait("a stream", |event| match event {
            NetEvent::StreamOpened { conn, stream, lane } if *lane == wanted => {
                Some((*conn, *stream))
            }
            _ => None,
        })
        .await
    }

    async fn received(&mut self, wanted: StreamId) -> Vec<u8> {
        self.wait("a message", |event| match event {
            NetEvent::StreamReceived { stream, message } if *stream == wanted => {
                Some(message.clone())
            }
            _ => None,
        })
        .await
    }

    async fn closed(&mut self, wanted: StreamId) -> Ended {
        self.wait("the end of a stream", |event| match event {
            NetEvent::StreamClosed { stream, ended } if *stream == wanted => Some(ended.clone()),
            _ => None,
        })
        .await
    }

    async fn connected(&mut self) -> Connected {
        self.wait("a connection", |event| match *event {
            NetEvent::Connected {
                conn,
                peer,
                outbound,
                path,
                member,
            } => Some(Connected {
                conn,
                peer,
                outbound,
                path,
                member,
            }),
            _ => None,
        })
        .await
    }

    async fn disconnected(&mut self, wanted: ConnId) -> Ended {
        self.wait("the end of a connection", |event| match event {
            NetEvent::Disconnected { conn, ended } if *conn == wanted => Some(ended.clone()),
            _ => None,
        })
        .await
    }

    async fn gossip(&mut self, text: &str) -> (crate::engine::event::GossipId, MemberId) {
        self.wait("gossip", |event| match event {
            NetEvent::Gossip { id, from, data, .. } if data == text.as_bytes() => {
                Some((*id, *from))
            }
            _ => None,
        })
        .await
    }

    /// The next event, seen before or not, if there is one.
    fn next_now(&mut self) -> Option<NetEvent> {
        self.seen.pop_front().or_else(|| self.events.try_recv())
    }

    fn has(&mut self, wanted: impl Fn(&NetEvent) -> bool) -> bool {
        while let Some(event) = self.events.try_recv() {
            self.seen.push_back(event);
        }
        self.seen.iter().any(wanted)
    }

    /// Takes out the first event that `wanted` accepts, and keeps those before it for later.
    async fn wait<T>(&mut self, what: &str, wanted: impl Fn(&NetEvent) -> Option<T>) -> T {
        let found = |event: &NetEvent| wanted(event);
        if let Some(at) = self.seen.iter().position(|event| found(event).is_some()) {
            return self
                .seen
                .remove(at)
                .and_then(|event| wanted(&event))
                .unwrap();
        }
        let waiting = async {
            loop {
                let event = self.events.recv().await.expect("the network ended");
                if let Some(value) = wanted(&event) {
                    return value;
                }
                self.seen.push_back(event);
            }
        };
        match tokio::time::timeout(Duration::from_secs(10), waiting).await {
            Ok(value) => value,
            Err(_) => panic!("{what} did not come; instead {:?}", self.seen),
        }
    }
}
