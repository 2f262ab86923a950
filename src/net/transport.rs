//! TCP with Noise and Yamux, and QUIC, as one transport.
//!
//! A dial races all its addresses. An address where somebody else answers counts as failed and the race goes
//! on, and a connection whose peer does not answer is closed within bounds.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future;
use libp2p::core::connection::ConnectedPoint;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent};
use libp2p::core::transport::{
    Boxed, DialOpts, ListenerId, OrTransport, PortUse, Transport, TransportError, TransportEvent,
};
use libp2p::core::upgrade::Version;
use libp2p::multiaddr::Multiaddr;
use libp2p::{PeerId, identity, noise, quic, tcp, yamux};
use tokio::time::Sleep;

use crate::net::convert::peer_of;

/// How long a connection may take from the first packet until the peer's key is proven.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the transport may take to say goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(250);
/// A QUIC path that has been silent for so long is dead.
const QUIC_IDLE_MS: u32 = 4_000;
/// Streams that a peer may have open at once, on either transport.
const STREAMS_MAX: u32 = 128;
/// Bytes in flight on one QUIC stream.
const QUIC_STREAM_BYTES: u32 = 2 * 1024 * 1024;
/// Bytes in flight on one QUIC connection.
const QUIC_CONNECTION_BYTES: u32 = 8 * 1024 * 1024;

type Connected = (PeerId, StreamMuxerBox);

/// Both transports under the identity `key`.
///
/// # Errors
/// When Noise cannot make its own key.
pub(crate) fn build(key: &identity::Keypair) -> Result<Boxed<Connected>, noise::Error> {
    let noise = noise::Config::new(key)?;
    let mut yamux = yamux::Config::default();
    yamux.set_max_num_streams(STREAMS_MAX as usize);
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(yamux)
        .timeout(HANDSHAKE_TIMEOUT)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(Bounded::new(muxer))))
        .boxed();
    let quic = quic::tokio::Transport::new(quic_config(key))
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(Bounded::new(muxer))))
        .boxed();
    let both = OrTransport::new(FreshPorts(tcp), quic)
        .map(|either, _| match either {
            future::Either::Left(connected) | future::Either::Right(connected) => connected,
        })
        .and_then(|connected, at| future::ready(expect_peer(connected, &at)));
    Ok(both.boxed())
}

fn quic_config(key: &identity::Keypair) -> quic::Config {
    let mut config = quic::Config::new(key);
    config.keep_alive_interval = Duration::from_secs(1);
    config.max_idle_timeout = QUIC_IDLE_MS;
    config.handshake_timeout = HANDSHAKE_TIMEOUT;
    config.max_concurrent_stream_limit = STREAMS_MAX;
    config.max_stream_data = QUIC_STREAM_BYTES;
    config.max_connection_data = QUIC_CONNECTION_BYTES;
    config
}

/// Refuses a dialled connection whose key is not the expected one while the other addresses still race; libp2p
/// itself compares only the winner, and would fail the whole dial.
fn expect_peer(connected: Connected, at: &ConnectedPoint) -> io::Result<Connected> {
    let expected = match at {
        ConnectedPoint::Dialer { address, .. } => peer_of(address),
        ConnectedPoint::Listener { .. } => None,
    };
    match expected {
        Some(peer) if peer != connected.0 => Err(io::Error::other("somebody else answered there")),
        Some(_) | None => Ok(connected),
    }
}

/// Dials from a port of its own. From the listening port, two nodes that dial each other at once can meet in one
/// TCP connection in which both take themselves for the dialler.
struct FreshPorts(Boxed<Connected>);

impl Transport for FreshPorts {
    type Output = Connected;
    type Error = io::Error;
    type ListenerUpgrade = <Boxed<Connected> as Transport>::ListenerUpgrade;
    type Dial = <Boxed<Connected> as Transport>::Dial;

    fn listen_on(
        &mut self,
        id: ListenerId,
        addr: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        self.0.listen_on(id, addr)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.0.remove_listener(id)
    }

    fn dial(
        &mut self,
        addr: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        self.0.dial(
            addr,
            DialOpts {
                port_use: PortUse::New,
                ..options
            },
        )
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Pin::new(&mut self.0).poll(cx)
    }
}

/// A connection whose closing takes a bounded time even if the peer has vanished.
struct Bounded<M> {
    muxer: M,
    closing: Option<Pin<Box<Sleep>>>,
}

impl<M> Bounded<M> {
    fn new(muxer: M) -> Self {
        Self {
            muxer,
            closing: None,
        }
    }
}

impl<M: StreamMuxer + Unpin> StreamMuxer for Bounded<M> {
    type Substream = M::Substream;
    type Error = M::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<M::Substream, M::Error>> {
        Pin::new(&mut self.muxer).poll_inbound(cx)
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<M::Substream, M::Error>> {
        Pin::new(&mut self.muxer).poll_outbound(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), M::Error>> {
        let this = &mut *self;
        if let Poll::Ready(outcome) = Pin::new(&mut this.muxer).poll_close(cx) {
            return Poll::Ready(outcome);
        }
        let sleep = || Box::pin(tokio::time::sleep(CLOSE_TIMEOUT));
        this.closing
            .get_or_insert_with(sleep)
            .as_mut()
            .poll(cx)
            .map(Ok)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, M::Error>> {
        Pin::new(&mut self.muxer).poll(cx)
    }
}
