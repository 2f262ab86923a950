//! The network: connections, streams, gossip and discovery over libp2p, behind two plain vocabularies.
//!
//! [`Net::start`] gives a [`NetHandle`], which performs [`NetEffect`]s and never waits for a peer, and
//! [`NetEvents`], which yields [`NetEvent`]s. Nothing else leads in or out.
//!
//! QUIC and TCP are dialled at once and one connection comes of it. A connection whose peer's key is a member's
//! carries the lanes and gossip; any other carries admission only ([`gate`]). Streams are framed, bounded and
//! paced by their reader ([`lanes`], [`inbox`]).

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use libp2p::swarm::{Config, Swarm};
use libp2p::{identify, identity};
use tokio::sync::{mpsc, watch};

use crate::engine::address::Addr;
use crate::engine::effect::NetEffect;
use crate::engine::event::NetEvent;
use crate::engine::ids::MemberId;
use crate::engine::limits;

mod addresses;
mod convert;
mod discovery;
mod gate;
mod gauges;
mod gossip;
mod inbox;
mod lanes;
mod streams;
mod swarm;
mod transport;

pub use addresses::{Scope, everywhere};
pub use gauges::NetQueues;
pub use inbox::NetEvents;

use gate::Gate;
use inbox::Line;
use streams::{Shared, lock};
use swarm::{Driver, Request};

/// The name of our protocols' family in identify.
const PROTOCOL: &str = "collab-p2p/1";
/// Inbound streams of one connection that may be in negotiation at once.
const NEGOTIATING_STREAMS_MAX: usize = 16;
/// Connections stand until the engine closes them; this is beyond any session.
const IDLE_TIMEOUT: Duration = Duration::from_secs(7 * 24 * 3600);

/// What a node's network is made of.
#[derive(Clone)]
pub struct NetConfig {
    /// The seed of the member's ed25519 key, which is also the libp2p identity.
    pub secret: [u8; 32],
    /// Where to listen; port 0 is any. "All interfaces" is told as the concrete addresses behind it.
    pub listen: Vec<Addr>,
    /// Whether another port is taken where the given one is in use.
    pub ports_may_move: bool,
    /// Whether to announce and look for peers by multicast DNS. Never on loopback alone.
    pub mdns: bool,
    /// How far connections may reach, in both directions.
    pub scope: Scope,
}

impl NetConfig {
    /// All interfaces, any port, multicast DNS, no bounds on reach.
    pub fn new(secret: [u8; 32]) -> Self {
        Self {
            secret,
            listen: everywhere(),
            ports_may_move: true,
            mdns: true,
            scope: Scope::Anywhere,
        }
    }
}

impl fmt::Debug for NetConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetConfig")
            .field("listen", &self.listen)
            .field("ports_may_move", &self.ports_may_move)
            .field("mdns", &self.mdns)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The member's key cannot be used.
    #[error("the key of this member cannot be used on the network: {0}")]
    Key(String),
    /// An address that was asked for cannot be listened at.
    #[error("cannot listen at {addr}: {reason}")]
    Listen {
        /// Which.
        addr: Addr,
        /// What the system says.
        reason: String,
    },
    /// A fault of the settings.
    #[error("the network cannot be set up: {0}")]
    Setup(String),
}

/// The network of one node.
#[derive(Debug)]
pub struct Net;

impl Net {
    /// Binds the addresses and starts the network's task. To be called within a tokio runtime.
    ///
    /// # Errors
    /// When the key is unusable, or none of the addresses can be bound.
    pub fn start(config: NetConfig) -> Result<(NetHandle, NetEvents), NetError> {
        let mut secret = config.secret;
        let key = identity::Keypair::ed25519_from_bytes(&mut secret)
            .map_err(|error| NetError::Key(error.to_string()))?;
        let shared = Arc::new(Shared::default());
        let networks = addresses::networks();
        lock(&shared.networks).clone_from(&networks);
        shared
            .inbox
            .put(Line::Node, NetEvent::Networks(networks), None);
        let (requests, asked) = mpsc::channel(limits::NET_REQUESTS_MAX);
        let mut driver = Driver::new(swarm(&config, &key, &shared)?, Arc::clone(&shared), asked);
        listen(&config, &mut driver)?;
        let events = NetEvents::of(&shared.inbox);
        let done = spawn(driver, &shared);
        Ok((
            NetHandle {
                shared,
                requests,
                done,
            },
            events,
        ))
    }
}

/// Performs the engine's requests. Clones are the same network; it ends with the last of them.
#[derive(Clone)]
pub struct NetHandle {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
    done: watch::Receiver<()>,
}

impl NetHandle {
    /// Performs a request, in the order of calls. Never waits.
    pub fn perform(&self, effect: NetEffect) {
        match effect {
            NetEffect::SetMembers(members) => *lock(&self.shared.members) = Arc::new(members),
            NetEffect::Dial { peer, addrs } => self.dial(peer, addrs),
            NetEffect::Close { conn } => self.shared.close(conn),
            NetEffect::OpenStream { conn, stream, lane } => self.shared.open(conn, stream, lane),
            NetEffect::Send { stream, message } => self.shared.send(stream, message),
            NetEffect::CloseStream { stream } => self.shared.close_stream(stream),
            NetEffect::Subscribe(topic) => {
                lock(&self.shared.topics).insert(topic);
                self.ask(Request::Topics);
            }
            NetEffect::Publish { topic, data } => self.ask(Request::Publish(topic, data)),
            NetEffect::Judge { id, verdict } => self.ask(Request::Judge(id, verdict)),
        }
    }

    /// Closes all connections, giving what was sent a second to arrive, and ends the network.
    pub async fn shutdown(&self) {
        let mut done = self.done.clone();
        if self.requests.send(Request::Shutdown).await.is_ok() {
            while done.changed().await.is_ok() {}
        }
    }

    /// How full the network's bounded queues are, for whoever shows it.
    pub fn queues(&self) -> NetQueues {
        NetQueues {
            shared: Arc::clone(&self.shared),
        }
    }

    fn dial(&self, peer: MemberId, addrs: Vec<Addr>) {
        if !self.try_ask(Request::Dial(peer, addrs)) {
            let reason = "the network is busy or has ended".to_owned();
            self.shared
                .inbox
                .put(Line::Node, NetEvent::DialFailed { peer, reason }, None);
        }
    }

    /// False if the task has too much to do. Gossip is best effort, and topics are read from what is shared.
    fn try_ask(&self, request: Request) -> bool {
        let asked = self.requests.try_send(request);
        let waiting = limits::NET_REQUESTS_MAX.saturating_sub(self.requests.capacity());
        self.shared.gauges.requests.set(waiting);
        if let Err(error) = &asked {
            self.shared.gauges.requests.drop_one();
            tracing::debug!(%error, "the network's task takes no more requests");
        }
        asked.is_ok()
    }

    fn ask(&self, request: Request) {
        let _taken: bool = self.try_ask(request);
    }
}

impl fmt::Debug for NetHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetHandle").finish_non_exhaustive()
    }
}

fn swarm(
    config: &NetConfig,
    key: &identity::Keypair,
    shared: &Arc<Shared>,
) -> Result<Swarm<Gate>, NetError> {
    let setup = |error: &dyn fmt::Display| NetError::Setup(error.to_string());
    let peer = key.public().to_peer_id();
    let transport = transport::build(key).map_err(|error| setup(&error))?;
    let budget = Arc::default();
    let gossip = gossip::build(shared, &budget).map_err(|error| setup(&error))?;
    let mdns = match (config.mdns, config.scope) {
        (true, Scope::Anywhere | Scope::Lan) => discovery::mdns(peer),
        (true, Scope::Loopback) | (false, _) => None,
    };
    let gate = Gate::new(
        Arc::clone(shared),
        config.scope,
        (gossip, budget),
        identify::Behaviour::new(identifying(key)),
        mdns,
    );
    let settings = Config::with_tokio_executor()
        .with_idle_connection_timeout(IDLE_TIMEOUT)
        .with_max_negotiating_inbound_streams(NEGOTIATING_STREAMS_MAX);
    Ok(Swarm::new(transport, gate, peer, settings))
}

/// What members tell each other by identify: the program and its version, and where they see the other. Listen
/// addresses travel signed, in the addresses message, and nowhere else.
fn identifying(key: &identity::Keypair) -> identify::Config {
    identify::Config::new(PROTOCOL.to_owned(), key.public())
        .with_agent_version(concat!("collab-p2p/", env!("CARGO_PKG_VERSION")).to_owned())
        .with_hide_listen_addrs(true)
        .with_cache_size(0)
}

/// Binds what can be bound: a machine without IPv6 still listens on IPv4.
fn listen(config: &NetConfig, driver: &mut Driver) -> Result<(), NetError> {
    let mut bound = 0;
    let mut failed = None;
    for asked in &config.listen {
        let addr = match config.scope {
            Scope::Loopback => addresses::on_loopback(*asked),
            Scope::Anywhere | Scope::Lan => *asked,
        };
        let mut outcome = driver.listen(&addr);
        if outcome.is_err() && config.ports_may_move && addr.port != 0 {
            tracing::info!(%addr, "the port is in use; another one is taken");
            outcome = driver.listen(&Addr { port: 0, ..addr });
        }
        match outcome {
            Ok(()) => bound += 1,
            Err(error) => {
                tracing::warn!(%addr, %error, "cannot listen there");
                failed = Some(NetError::Listen {
                    addr,
                    reason: error.to_string(),
                });
            }
        }
    }
    match failed {
        Some(failed) if bound == 0 => Err(failed),
        Some(_) | None => Ok(()),
    }
}

fn spawn(driver: Driver, shared: &Arc<Shared>) -> watch::Receiver<()> {
    let (finished, done) = watch::channel(());
    let shared = Arc::clone(shared);
    let task = async move {
        guarded(Box::pin(driver.run()), &shared).await;
        drop(finished);
    };
    drop(tokio::spawn(task));
    done
}

/// Runs `task`. Whatever ends it, a panic included, ends the events too.
async fn guarded(task: impl Future<Output = ()>, shared: &Shared) {
    if AssertUnwindSafe(task).catch_unwind().await.is_err() {
        tracing::error!("the network's task ended by a fault of its own");
    }
    shared.inbox.end();
}

#[cfg(test)]
mod tests;
