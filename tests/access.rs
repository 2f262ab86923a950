//! What somebody without a ticket gets: the transport, one lane called admission, and five seconds.
//!
//! The stranger here is no node of ours but bare libp2p parts: TCP, Noise, Yamux, and protocol negotiation by
//! hand, so that nothing but the host decides what is offered.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::core::Endpoint;
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox};
use libp2p::core::transport::{DialOpts, PortUse, Transport};
use libp2p::core::upgrade::Version;
use libp2p::{identity, noise, tcp, yamux};

use crate::harness::{Machine, Node, SOON};

const ADMISSION: &str = "/collab-p2p/1/admission";
/// What a member, or any libp2p node, would speak.
const OTHERS: [&str; 12] = [
    "/collab-p2p/1/control",
    "/collab-p2p/1/input",
    "/collab-p2p/1/screen",
    "/collab-p2p/1/gossip/1.1.0",
    "/collab-p2p/1/gossip/1.2.0",
    "/meshsub/1.1.0",
    "/meshsub/1.2.0",
    "/ipfs/id/1.0.0",
    "/ipfs/id/push/1.0.0",
    "/ipfs/ping/1.0.0",
    "/ipfs/kad/1.0.0",
    "/libp2p/circuit/relay/0.2.0/hop",
];
/// An unproven connection is closed after this time.
const PROOF_WITHIN: Duration = Duration::from_secs(5);

/// Somebody's connection to a node.
struct Stranger {
    muxer: StreamMuxerBox,
    since: Instant,
}

impl Stranger {
    async fn at(node: &Node) -> Self {
        let listen = node.ready["listen"].as_array().unwrap();
        let addr = listen
            .iter()
            .map(|addr| addr.as_str().unwrap())
            .find(|addr| addr.contains("127.0.0.1/tcp"))
            .unwrap();
        let key = identity::Keypair::generate_ed25519();
        let mut transport = tcp::tokio::Transport::new(tcp::Config::default())
            .upgrade(Version::V1)
            .authenticate(noise::Config::new(&key).unwrap())
            .multiplex(yamux::Config::default())
            .boxed();
        let how = DialOpts {
            role: Endpoint::Dialer,
            port_use: PortUse::New,
        };
        let (_, muxer) = transport
            .dial(addr.parse().unwrap(), how)
            .unwrap()
            .await
            .unwrap();
        let since = Instant::now();
        Self { muxer, since }
    }

    /// Does something on the connection, which only moves while it is polled.
    async fn while_alive<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| {
            if let Poll::Ready(done) = work.as_mut().poll(context) {
                return Poll::Ready(done);
            }
            // Streams that the host opens are dropped; an error shows in the work itself.
            while let Poll::Ready(Ok(_)) = self.muxer.poll_inbound_unpin(context) {}
            while let Poll::Ready(Ok(_)) = self.muxer.poll_unpin(context) {}
            work.as_mut().poll(context)
        })
        .await
    }

    async fn stream(&mut self) -> std::io::Result<SubstreamBox> {
        poll_fn(|context| {
            let opened = self.muxer.poll_outbound_unpin(context);
            while let Poll::Ready(Ok(_)) = self.muxer.poll_unpin(context) {}
            opened
        })
        .await
    }

    /// Asks for a protocol on a new stream; the stream if it is spoken.
    async fn asks_for(&mut self, protocol: &str) -> std::io::Result<Option<SubstreamBox>> {
        let mut stream = self.stream().await?;
        let asked = [line("/multistream/1.0.0"), line(protocol)].concat();
        self.while_alive(async move {
            stream.write_all(&asked).await?;
            stream.flush().await?;
            assert_eq!(read_line(&mut stream).await?, "/multistream/1.0.0");
            let answer = read_line(&mut stream).await?;
            Ok((answer == protocol).then_some(stream))
        })
        .await
    }

    /// Waits until the host closes the connection.
    async fn is_closed(&mut self) -> Duration {
        let closed = poll_fn(|context| {
            while let Poll::Ready(inbound) = self.muxer.poll_inbound_unpin(context) {
                if inbound.is_err() {
                    return Poll::Ready(());
                }
            }
            match self.muxer.poll_unpin(context) {
                Poll::Ready(Err(_)) => Poll::Ready(()),
                Poll::Ready(Ok(_)) | Poll::Pending => Poll::Pending,
            }
        });
        tokio::time::timeout(SOON, closed).await.unwrap();
        self.since.elapsed()
    }
}

fn line(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len() + 1).unwrap();
    assert!(length < 128);
    [&[length], text.as_bytes(), b"\n"].concat()
}

async fn read_line(stream: &mut SubstreamBox) -> std::io::Result<String> {
    let mut length = [0];
    stream.read_exact(&mut length).await?;
    let mut text = vec![0; length[0].into()];
    stream.read_exact(&mut text).await?;
    Ok(String::from_utf8_lossy(&text).trim_end().to_owned())
}

#[tokio::test]
async fn a_stranger_gets_admission_and_nothing_else() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["cat"]);

    for protocol in OTHERS {
        let mut stranger = Stranger::at(&ada).await;
        let spoken = stranger.asks_for(protocol).await;
        assert!(
            !matches!(spoken, Ok(Some(_))),
            "{protocol} is spoken with a stranger"
        );
    }
    let mut stranger = Stranger::at(&ada).await;

    assert!(stranger.asks_for(ADMISSION).await.unwrap().is_some());
}

#[tokio::test]
async fn a_stranger_who_proves_nothing_is_closed_within_five_seconds() {
    let machine = Machine::new();
    let ada = machine.share("ada", &[], &["cat"]);
    let mut silent = Stranger::at(&ada).await;
    let mut asking = Stranger::at(&ada).await;
    let _stream = asking.asks_for(ADMISSION).await.unwrap();

    let (silent, asking) = tokio::join!(silent.is_closed(), asking.is_closed());

    let slack = Duration::from_millis(1_500);
    assert!(silent < PROOF_WITHIN + slack, "{silent:?}");
    assert!(asking < PROOF_WITHIN + slack, "{asking:?}");
}

#[tokio::test]
async fn noise_on_the_admission_lane_teaches_nothing_and_hurts_nobody() {
    let machine = Machine::new();
    let ada = machine.share("ada", &["--title", "the-secret-title"], &["cat"]);

    for noise in [&b"\x00"[..], &[0xff; 64 * 1024], b"\x05hello", &[0x80; 32]] {
        let mut stranger = Stranger::at(&ada).await;
        let mut stream = stranger.asks_for(ADMISSION).await.unwrap().unwrap();
        let heard = stranger
            .while_alive(async {
                // The host may cut this off at any byte.
                drop(stream.write_all(noise).await);
                drop(stream.flush().await);
                let mut heard = Vec::new();
                let mut piece = [0; 4096];
                while let Ok(Ok(count @ 1..)) =
                    tokio::time::timeout(Duration::from_secs(7), stream.read(&mut piece)).await
                {
                    heard.extend_from_slice(&piece[..count]);
                    assert!(heard.len() < 4096, "a stranger hears too much");
                }
                heard
            })
            .await;
        let session = ada.ready["session"].as_str().unwrap();
        let heard_text = String::from_utf8_lossy(&heard);
        assert!(!heard_text.contains("the-secret-title"), "{heard_text}");
        assert!(!heard_text.contains(session), "{heard_text}");
    }

    let bob = machine.join("bob", &ada.ticket());
    bob.says("still here");
    ada.hears("still here");
    assert!(!ada.stderr().contains("panicked"), "{}", ada.stderr());
}
