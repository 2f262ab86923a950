//! Connections that break at any byte, that nobody uses, that go dead, that are made twice, and places that
//! strangers have taken.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::*;
use crate::engine::address::Ip;

/// Messages sent on each stream of a connection that is to break.
const MESSAGES: u32 = 100;

/// Bytes that pass one way of the first connection over a wire.
#[derive(Debug, Clone, Copy)]
struct Cut {
    after: usize,
    /// From who dialled, or towards it.
    there: bool,
}

/// Forwards TCP connections to a node. The first is cut, later ones last.
async fn wire(to: &Node, mut cut: Option<Cut>) -> Addr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let target = to.over(Transport::Tcp)[0].port;
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await;
            let (near_in, near_out) = near.into_split();
            let (far_in, far_out) = far.unwrap().into_split();
            let cut = cut.take();
            let most = |there| match cut {
                Some(cut) if cut.there == there => cut.after,
                Some(_) | None => usize::MAX,
            };
            let (there, back) = (most(true), most(false));
            tokio::spawn(async move {
                tokio::select! {
                    () = pump(near_in, far_out, there) => {}
                    () = pump(far_in, near_out, back) => {}
                }
            });
        }
    });
    Addr {
        ip: Ip::V4([127, 0, 0, 1]),
        port,
        transport: Transport::Tcp,
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut left: usize) {
    let mut buffer = [0; 4096];
    while left > 0 {
        let most = left.min(buffer.len());
        let count = from.read(&mut buffer[..most]).await.unwrap_or(0);
        if count == 0 || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
        left -= count;
    }
}

/// Forwards the packets of one QUIC connection for as long as `alive` says so.
async fn packets(to: &Node, alive: &Arc<AtomicBool>) -> Addr {
    let near = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let far = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let target = to.over(Transport::Quic)[0].port;
    far.connect((Ipv4Addr::LOCALHOST, target)).await.unwrap();
    let port = near.local_addr().unwrap().port();
    let alive = Arc::clone(alive);
    tokio::spawn(async move {
        let (mut there, mut back) = ([0; 2048], [0; 2048]);
        let mut dialler = None;
        loop {
            tokio::select! {
                Ok((count, from)) = near.recv_from(&mut there) => {
                    dialler = Some(from);
                    if alive.load(Ordering::SeqCst) {
                        drop(far.send(&there[..count]).await);
                    }
                }
                Ok(count) = far.recv(&mut back) => {
                    if let Some(dialler) = dialler.filter(|_| alive.load(Ordering::SeqCst)) {
                        drop(near.send_to(&back[..count], dialler).await);
                    }
                }
            }
        }
    });
    Addr {
        ip: Ip::V4([127, 0, 0, 1]),
        port,
        transport: Transport::Quic,
    }
}

/// What one side sees of a connection that breaks.
#[derive(Default)]
struct Seen {
    conn: Option<ConnId>,
    over: bool,
    heard: BTreeMap<StreamId, Vec<u32>>,
}

impl Seen {
    /// Takes an event; as soon as the connection stands, everything is sent on these lanes.
    fn take(&mut self, node: &Node, event: NetEvent, lanes: &[Lane]) {
        match event {
            NetEvent::Connected { conn, .. } if self.conn.is_none() => {
                self.conn = Some(conn);
                for lane in lanes {
                    let stream = node.ask_for(conn, *lane);
                    for number in 0..MESSAGES {
                        let mut message = number.to_le_bytes().to_vec();
                        message.resize(200, 7);
                        node.send(stream, &message);
                    }
                }
            }
            NetEvent::StreamReceived { stream, message } => {
                assert_eq!(message.len(), 200, "a message is whole");
                let number = u32::from_le_bytes(message[..4].try_into().unwrap());
                self.heard.entry(stream).or_default().push(number);
            }
            NetEvent::Disconnected { conn, .. } => self.over |= self.conn == Some(conn),
            NetEvent::DialFailed { .. } => self.over = true,
            _ => {}
        }
    }
}

/// Plays a connection to its end, which a wire brings.
async fn breaks(a: &mut Node, b: &mut Node) -> [Seen; 2] {
    let (mut at_a, mut at_b) = (Seen::default(), Seen::default());
    let playing = async {
        while !at_b.over || (at_a.conn.is_some() && !at_a.over) {
            tokio::select! {
                event = a.events.recv() => at_a.take(a, event.unwrap(), &[Lane::Screen]),
                event = b.events.recv() => {
                    at_b.take(b, event.unwrap(), &[Lane::Control, Lane::Input]);
                }
            }
        }
    };
    let played = tokio::time::timeout(Duration::from_secs(20), playing).await;
    played.expect("both sides learn of the end");
    [at_a, at_b]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_whatever_byte_it_is_cut_whole_messages_have_come_in_order_and_the_next_one_works() {
    let (mut a, mut b) = members().await;
    subscribe(&a, &b);
    let mut random: u64 = 7;
    let mut stood = 0;
    for round in 0..24 {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        // The handshake takes some hundred bytes, agreement on the lanes some hundred more.
        let most = [400, 1_500, 20_000][round % 3];
        let after = 1 + usize::try_from(random >> 33).unwrap() % most;
        let there = round % 2 == 0;
        let addr = wire(&a, Some(Cut { after, there })).await;

        b.dial(&a, &[addr]);
        let seen = breaks(&mut a, &mut b).await;

        stood += usize::from(seen[1].conn.is_some());
        for heard in seen.iter().flat_map(|seen| seen.heard.values()) {
            let count = u32::try_from(heard.len()).unwrap();
            assert_eq!(
                *heard,
                (0..count).collect::<Vec<u32>>(),
                "cut after {after}"
            );
        }
        b.dial(&a, &[addr]);
        let at_b = b.connected().await;
        let ours = b.open(at_b.conn, Lane::Control).await;
        // A connection that broke for who dialled may have stood for the other for a moment.
        let (conn, theirs) = a.opened_on(Lane::Control).await;
        b.send(ours, b"there");
        assert_eq!(a.received(theirs).await, b"there");
        a.send(theirs, b"back");
        assert_eq!(b.received(ours).await, b"back");
        both_ways(&mut a, &mut b).await;
        b.net.perform(NetEffect::Close { conn: at_b.conn });
        b.disconnected(at_b.conn).await;
        a.disconnected(conn).await;
        a.seen.clear();
        b.seen.clear();
    }
    assert!(
        (4..24).contains(&stood),
        "{stood} stood before they were cut"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_nobody_uses_stays_and_a_dead_quic_path_ends() {
    let (mut a, mut b) = members().await;
    let alive = Arc::new(AtomicBool::new(true));
    let dying = packets(&a, &alive).await;
    let tcp = connect(&mut b, &mut a, Transport::Tcp).await;
    b.dial(&a, &[dying]);
    let quic = (b.connected().await, a.connected().await);

    // Longer than libp2p keeps a connection without streams, and than QUIC believes in a silent path.
    tokio::time::sleep(Duration::from_secs(11)).await;
    for node in [&mut a, &mut b] {
        assert!(!node.has(|event| matches!(event, NetEvent::Disconnected { .. })));
    }
    alive.store(false, Ordering::SeqCst);

    for (node, end) in [(&mut b, quic.0), (&mut a, quic.1)] {
        node.disconnected(end.conn).await;
    }
    b.open(tcp.0.conn, Lane::Control).await;
    a.opened(Lane::Control).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_connections_dialled_at_once_the_one_that_stays_carries_every_lane() {
    for transport in [Transport::Tcp, Transport::Quic] {
        let (mut a, mut b) = members().await;
        subscribe(&a, &b);
        a.dial(&b, &b.over(transport));
        b.dial(&a, &a.over(transport));
        let at_a = [a.connected().await, a.connected().await];
        let at_b = [b.connected().await, b.connected().await];
        let which = |ends: [Connected; 2], outbound: bool| {
            let end = ends.into_iter().find(|end| end.outbound == outbound);
            end.expect("each side dialled one").conn
        };

        // Both close the one that b dialled.
        let (gone_at_a, gone_at_b) = (which(at_a, false), which(at_b, true));
        a.net.perform(NetEffect::Close { conn: gone_at_a });
        b.net.perform(NetEffect::Close { conn: gone_at_b });
        a.disconnected(gone_at_a).await;
        b.disconnected(gone_at_b).await;

        let (stays_at_a, stays_at_b) = (which(at_a, true), which(at_b, false));
        for lane in [Lane::Control, Lane::Input, Lane::Screen] {
            let ours = a.open(stays_at_a, lane).await;
            let theirs = b.opened(lane).await;
            a.send(ours, b"one");
            assert_eq!(b.received(theirs).await, b"one");
            let ours = b.open(stays_at_b, lane).await;
            let theirs = a.opened(lane).await;
            b.send(ours, b"two");
            assert_eq!(a.received(theirs).await, b"two");
        }
        both_ways(&mut a, &mut b).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_dial_leaves_from_a_port_of_its_own() {
    let node = Node::start(2).await;
    let listens = node.over(Transport::Tcp)[0].port;
    let key = identity::Keypair::ed25519_from_bytes([3; 32]).unwrap();
    let mut other = Swarm::new(
        transport::build(&key).unwrap(),
        libp2p::swarm::dummy::Behaviour,
        key.public().to_peer_id(),
        Config::with_tokio_executor(),
    );
    other
        .listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap())
        .unwrap();

    let dialled_from = async {
        loop {
            match other.next().await.unwrap() {
                SwarmEvent::NewListenAddr { address, .. } => {
                    node.net.perform(NetEffect::Dial {
                        peer: member_of(3),
                        addrs: vec![convert::from_multiaddr(&address).unwrap()],
                    });
                }
                SwarmEvent::ConnectionEstablished { endpoint, .. } => {
                    let from = endpoint.get_remote_address();
                    return convert::from_multiaddr(from).unwrap().port;
                }
                _ => {}
            }
        }
    };
    let dialled_from = tokio::time::timeout(Duration::from_secs(10), dialled_from).await;

    assert_ne!(dialled_from.unwrap(), listens);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_in_every_place_keep_no_member_out() {
    let (mut a, mut b) = members().await;
    let mut strangers = Vec::new();
    let each = limits::UNPROVEN_CONNECTIONS_PER_PEER_MAX;
    for number in 0..=limits::UNPROVEN_CONNECTIONS_MAX / each {
        let stranger = Node::start(u8::try_from(100 + number).unwrap()).await;
        stranger.know([&a]);
        for _ in 0..each {
            stranger.dial(&a, &a.over(Transport::Tcp));
        }
        strangers.push(stranger);
    }
    for _ in 0..limits::UNPROVEN_CONNECTIONS_MAX {
        assert!(!a.connected().await.member);
    }

    connect(&mut b, &mut a, Transport::Tcp).await;
    assert!(
        !a.has(|event| matches!(event, NetEvent::Connected { .. })),
        "no more strangers"
    );

    // Every place for a handshake is taken by somebody who says nothing: the member is still dialled from here.
    let port = a.over(Transport::Tcp)[0].port;
    let mut silent = Vec::new();
    for _ in 0..limits::PENDING_CONNECTIONS_MAX {
        silent.push(
            TcpStream::connect((Ipv4Addr::LOCALHOST, port))
                .await
                .unwrap(),
        );
    }
    let (at_a, at_b) = connect(&mut a, &mut b, Transport::Tcp).await;
    assert!(at_a.member && at_b.member);
}
