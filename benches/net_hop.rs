//! What one hop between two nodes on loopback costs: connecting, opening a stream, a message one way.
//!
//! `cargo bench --bench net_hop --no-default-features --features net`
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement that prints"
)]
#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use collab_p2p::engine::address::{Addr, Transport};
use collab_p2p::engine::effect::NetEffect;
use collab_p2p::engine::event::{ConnId, Lane, NetEvent, StreamId};
use collab_p2p::engine::ids::MemberId;
use collab_p2p::net::{Net, NetConfig, NetEvents, NetHandle, Scope};

const MESSAGES: usize = 2_000;
const PAUSE: Duration = Duration::from_millis(1);

#[tokio::main]
async fn main() {
    let mut other = 10;
    for (name, transports) in [
        ("tcp", &[Transport::Tcp][..]),
        ("quic", &[Transport::Quic]),
        ("quic again", &[Transport::Quic]),
        ("raced", &[Transport::Tcp, Transport::Quic]),
    ] {
        other += 2;
        measure(name, transports, other).await;
    }
}

async fn measure(name: &str, transports: &[Transport], seed: u8) {
    let (a, mut from_a, addrs) = start(seed).await;
    let (b, mut from_b, _) = start(seed + 1).await;
    let members = BTreeSet::from([member(seed), member(seed + 1)]);
    a.perform(NetEffect::SetMembers(members.clone()));
    b.perform(NetEffect::SetMembers(members));
    let addrs = addrs
        .into_iter()
        .filter(|addr| transports.contains(&addr.transport))
        .collect();

    let begun = Instant::now();
    b.perform(NetEffect::Dial {
        peer: member(seed),
        addrs,
    });
    let conn = connected(&mut from_b).await;
    let connecting = begun.elapsed();
    let begun = Instant::now();
    let stream = StreamId(0);
    b.perform(NetEffect::OpenStream {
        conn,
        stream,
        lane: Lane::Control,
    });
    until(&mut from_b, |event| {
        matches!(event, NetEvent::StreamReady { .. })
    })
    .await;
    let opening = begun.elapsed();

    let mut taken = Vec::with_capacity(MESSAGES);
    for _ in 0..MESSAGES {
        tokio::time::sleep(PAUSE).await;
        let begun = Instant::now();
        b.perform(NetEffect::Send {
            stream,
            message: vec![7; 200],
        });
        until(&mut from_a, |event| {
            matches!(event, NetEvent::StreamReceived { .. })
        })
        .await;
        taken.push(begun.elapsed());
    }
    taken.sort();
    let at = |part: usize| taken.get(taken.len() * part / 100).copied().unwrap();
    println!(
        "{name:10} connect {connecting:>9.1?}  open {opening:>9.1?}  message p50 {:>8.1?} p99 {:>8.1?}",
        at(50),
        at(99)
    );
    a.shutdown().await;
    b.shutdown().await;
}

async fn start(seed: u8) -> (NetHandle, NetEvents, Vec<Addr>) {
    let config = NetConfig {
        mdns: false,
        scope: Scope::Loopback,
        ..NetConfig::new([seed; 32])
    };
    let (net, mut events) = Net::start(config).unwrap();
    loop {
        if let Some(NetEvent::Listening(addrs)) = events.recv().await
            && transports(&addrs).len() == 2
        {
            return (net, events, addrs);
        }
    }
}

fn transports(addrs: &[Addr]) -> BTreeSet<Transport> {
    addrs.iter().map(|addr| addr.transport).collect()
}

fn member(seed: u8) -> MemberId {
    MemberId(
        ed25519_dalek::SigningKey::from_bytes(&[seed; 32])
            .verifying_key()
            .to_bytes(),
    )
}

async fn connected(events: &mut NetEvents) -> ConnId {
    loop {
        if let NetEvent::Connected { conn, .. } = events.recv().await.unwrap() {
            return conn;
        }
    }
}

async fn until(events: &mut NetEvents, wanted: impl Fn(&NetEvent) -> bool) {
    while !wanted(&events.recv().await.unwrap()) {}
}
