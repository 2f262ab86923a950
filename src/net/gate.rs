//! The one behaviour of the swarm: it decides what is spoken on a connection, and shows gossip only the
//! connections it serves.
//!
//! Whether a connection has a member's lanes, gossip and identify is decided when it is made, by whether its key
//! is a member's, and never changes after that.
//!
//! Gossip tells a peer its topics on the first connection only, keeps one queue for all connections of a peer,
//! and so can go silent one way for ever when a peer returns while an older connection still stands, or when
//! one of two connections closes (<https://github.com/libp2p/rust-libp2p/issues/5097>). The gate therefore
//! shows it one connection per peer, always the newest:
//!
//! * A new connection of a peer is shown as its first one: the older is shown as closed before, so its handler
//!   keeps a queue that nobody fills any more, and the topics are told anew on the new one. Both sides do so,
//!   each for the connection that it saw last, which need not be the same one: each handler goes on reading.
//! * When the shown connection closes and another stands, that one is shown as new *before* the old one is
//!   shown as closed, so what is known of the peer stays.
//! * The peer may show a connection, forget with the older one what it was told on it, and lose the new one
//!   before it is told there. So the topics are told again whenever the peer opens a stream for gossip: it does
//!   so after each forgetting.
//! * A handler whose stream was lost is not woken by what is queued for it, so the gate wakes the connections
//!   itself whenever gossip may have queued something.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};

use either::Either;
use libp2p::core::Endpoint;
use libp2p::core::connection::ConnectedPoint;
use libp2p::core::transport::PortUse;
use libp2p::gossipsub::{self, MessageAcceptance, MessageId, TopicHash};
use libp2p::multiaddr::Multiaddr;
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished};
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionHandler, ConnectionHandlerSelect, ConnectionId,
    FromSwarm, NetworkBehaviour, NotifyHandler, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm, dummy,
};
use libp2p::{PeerId, identify, mdns};

use crate::engine::address::{Ip, Reach};
use crate::engine::event::{NetEvent, Path};
use crate::engine::ids::TopicId;
use crate::engine::limits;
use crate::net::addresses::Scope;
use crate::net::convert::{ip_of, path_to, to_member, to_topic};
use crate::net::gossip::{Budget, FromGossip, Gossip, GossipHandler, Inner, Install};
use crate::net::lanes::{LaneHandler, LaneReport};
use crate::net::streams::{Connection, Shared, lock};

/// What is spoken on a connection: lanes with everybody, gossip and identify with members.
pub(crate) type Handlers =
    ConnectionHandlerSelect<ConnectionHandlerSelect<LaneHandler, GossipHandler>, MemberIdentify>;
type MemberIdentify = Either<THandler<identify::Behaviour>, dummy::ConnectionHandler>;
type ToHandlers = THandlerInEvent<Gate>;

/// Times that gossip may be moved to one connection.
const MOVES_MAX: u8 = 3;

/// What the gate tells the swarm's task.
#[derive(Debug)]
pub(crate) enum GateEvent {
    /// A gossip message awaits a verdict.
    Gossip {
        /// Its name in gossip.
        name: MessageId,
        /// Who passed it on.
        from: PeerId,
        /// Its topic.
        topic: TopicHash,
        /// Its content.
        data: Vec<u8>,
    },
    /// A neighbour takes part in a topic: what waits for one may go.
    Subscribed(TopicHash),
    /// What multicast DNS says.
    Mdns(mdns::Event),
    /// A member says where it sees this node.
    Observed {
        /// Who says so.
        by: PeerId,
        /// The address, as far as `by` tells the truth.
        at: Multiaddr,
    },
}

/// A connection that is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// Its key is of a kind that no member has.
    #[error("its key is no ed25519 key")]
    Key,
    /// It comes from, or leads, outside of where this node may go.
    #[error("it is outside of the networks this node keeps to")]
    Scope,
    /// Too many strangers, handshakes or connections.
    #[error("there are too many {0}")]
    TooMany(&'static str),
}

/// Decides what is spoken on each connection.
pub(crate) struct Gate {
    shared: Arc<Shared>,
    scope: Scope,
    gossip: Gossip,
    identify: identify::Behaviour,
    budget: Arc<Budget>,
    mdns: Option<mdns::tokio::Behaviour>,
    /// Inbound connections whose handshake goes on, by where they come from.
    pending: BTreeMap<ConnectionId, Option<Ip>>,
    known: BTreeMap<ConnectionId, Known>,
    /// The connection of each peer that gossip sees.
    shown: BTreeMap<PeerId, ConnectionId>,
    out: VecDeque<ToSwarm<GateEvent, ToHandlers>>,
}

/// A connection that stands.
struct Known {
    connection: Arc<Connection>,
    peer: PeerId,
    at: ConnectedPoint,
    ip: Option<Ip>,
    /// Gossip packets in this second.
    packets: u32,
    /// How often gossip was moved here from another connection.
    moves: u8,
}

impl Gate {
    /// Lets in by `shared`'s members, within `scope`.
    pub(crate) fn new(
        shared: Arc<Shared>,
        scope: Scope,
        (gossip, budget): (Gossip, Arc<Budget>),
        identify: identify::Behaviour,
        mdns: Option<mdns::tokio::Behaviour>,
    ) -> Self {
        Self {
            shared,
            scope,
            gossip,
            identify,
            budget,
            mdns,
            pending: BTreeMap::new(),
            known: BTreeMap::new(),
            shown: BTreeMap::new(),
            out: VecDeque::new(),
        }
    }

    /// A second has begun.
    pub(crate) fn on_second(&mut self) {
        self.wake_shown();
        self.budget.refill();
        for known in self.known.values_mut() {
            known.packets = 0;
        }
    }

    /// Takes part in a topic.
    pub(crate) fn subscribe(&mut self, topic: &TopicId) {
        let topic = gossipsub::IdentTopic::new(to_topic(topic).into_string());
        if let Err(error) = self.gossip.subscribe(&topic) {
            tracing::error!(%error, %topic, "gossip refuses a topic");
        }
        self.wake_shown();
    }

    /// Tells the neighbours. False if there is none in that topic yet.
    pub(crate) fn publish(&mut self, topic: &TopicId, data: Vec<u8>) -> bool {
        let published = self.gossip.publish(to_topic(topic), data);
        self.wake_shown();
        match published {
            Ok(_) => true,
            Err(gossipsub::PublishError::NoPeersSubscribedToTopic) => false,
            Err(error) => {
                tracing::debug!(%error, "a gossip message is not sent");
                true
            }
        }
    }

    /// Tells gossip what became of a message.
    pub(crate) fn judge(&mut self, name: &MessageId, from: &PeerId, verdict: MessageAcceptance) {
        self.gossip
            .report_message_validation_result(name, from, verdict);
        self.wake_shown();
    }

    /// Lets the connections that gossip uses look for something to send.
    fn wake_shown(&self) {
        for known in self.shown.values().filter_map(|id| self.known.get(id)) {
            known.connection.wake.wake();
        }
    }

    /// Whether a host is within the scope.
    pub(crate) fn is_in_scope(&self, ip: &Ip) -> bool {
        match (self.scope, path_to(ip, &lock(&self.shared.networks))) {
            (Scope::Anywhere, _) | (_, Path::Loopback) | (Scope::Lan, Path::Lan) => true,
            (Scope::Lan, Path::Direct | Path::Relayed)
            | (Scope::Loopback, Path::Lan | Path::Direct | Path::Relayed) => false,
        }
    }

    /// Registers a connection, or says why it may not stand.
    fn admit(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        at: ConnectedPoint,
    ) -> Result<Arc<Connection>, Refused> {
        let member_id = to_member(&peer).ok_or(Refused::Key)?;
        let member = lock(&self.shared.members).contains(&member_id);
        let ip = ip_of(at.get_remote_address());
        self.check_room(peer, member, at.is_dialer(), ip)?;
        let connection = self.shared.connect(member_id, member, at.is_dialer());
        let path = ip.map_or(Path::Direct, |ip| {
            path_to(&ip, &lock(&self.shared.networks))
        });
        let event = NetEvent::Connected {
            conn: connection.id,
            peer: member_id,
            outbound: at.is_dialer(),
            path,
            member,
        };
        self.shared.inbox.put(connection.line(), event, None);
        let known = Known {
            connection: Arc::clone(&connection),
            peer,
            at,
            ip,
            packets: 0,
            moves: 0,
        };
        self.known.insert(id, known);
        Ok(connection)
    }

    fn check_room(
        &self,
        peer: PeerId,
        member: bool,
        outbound: bool,
        ip: Option<Ip>,
    ) -> Result<(), Refused> {
        if self.known.len() >= limits::CONNECTIONS_MAX {
            return Err(Refused::TooMany("connections"));
        }
        let of_peer = self
            .known
            .values()
            .filter(|known| known.peer == peer)
            .count();
        if member && of_peer >= limits::CONNECTIONS_PER_MEMBER_MAX {
            return Err(Refused::TooMany("connections of one member"));
        }
        if member || outbound {
            return Ok(());
        }
        if of_peer >= limits::UNPROVEN_CONNECTIONS_PER_PEER_MAX {
            return Err(Refused::TooMany("connections of one stranger"));
        }
        if self.strangers().count() >= limits::UNPROVEN_CONNECTIONS_MAX {
            return Err(Refused::TooMany("strangers"));
        }
        let standing = self.strangers().filter(|known| known.ip == ip).count();
        if !is_here(ip) && standing >= limits::UNPROVEN_CONNECTIONS_PER_IP_MAX {
            return Err(Refused::TooMany("strangers from one address"));
        }
        Ok(())
    }

    fn strangers(&self) -> impl Iterator<Item = &Known> {
        self.known
            .values()
            .filter(|known| !known.connection.member && !known.connection.outbound)
    }

    /// Whether too many handshakes go on, in all or with one host. Strangers who stand already count for nothing
    /// here: whoever comes may be a member.
    fn check_handshakes(&self, ip: Option<Ip>) -> Result<(), Refused> {
        if self.pending.len() >= limits::PENDING_CONNECTIONS_MAX {
            return Err(Refused::TooMany("handshakes"));
        }
        let of_host = self.pending.values().filter(|of| **of == ip).count();
        if !is_here(ip) && of_host >= limits::PENDING_CONNECTIONS_PER_IP_MAX {
            return Err(Refused::TooMany("handshakes with one address"));
        }
        Ok(())
    }

    fn establish(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        at: ConnectedPoint,
    ) -> Result<Handlers, ConnectionDenied> {
        self.pending.remove(&id);
        let connection = self.admit(id, peer, at.clone()).map_err(|refused| {
            tracing::debug!(%peer, %refused, "a connection is refused");
            ConnectionDenied::new(refused)
        })?;
        let (gossip, identify) = if connection.member {
            let identify = handler_of(&mut self.identify, id, peer, &at)?;
            (self.show_instead(id, peer, &at)?, Either::Left(identify))
        } else {
            (None, Either::Right(dummy::ConnectionHandler))
        };
        let lanes = LaneHandler::new(connection, Arc::clone(&self.shared));
        Ok(lanes.select(GossipHandler::new(gossip)).select(identify))
    }

    /// Makes a new connection the one that gossip sees of its peer.
    fn show_instead(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        at: &ConnectedPoint,
    ) -> Result<Option<Inner>, ConnectionDenied> {
        if let Some(older) = self.shown.remove(&peer) {
            self.hide(older, peer, 0);
        }
        let inner = handler_of(&mut self.gossip, id, peer, at)?;
        self.shown.insert(peer, id);
        Ok(Some(inner))
    }

    /// Tells gossip that a connection stands, and as the first of its peer, so that it tells its topics.
    fn announce(&mut self, id: ConnectionId, peer: PeerId, at: &ConnectedPoint) {
        self.gossip
            .on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id: peer,
                connection_id: id,
                endpoint: at,
                failed_addresses: &[],
                other_established: 0,
            }));
    }

    /// Tells gossip that a connection is gone.
    fn hide(&mut self, id: ConnectionId, peer: PeerId, remaining: usize) {
        let Some(known) = self.known.get(&id) else {
            return;
        };
        self.gossip
            .on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id: peer,
                connection_id: id,
                endpoint: &known.at,
                cause: None,
                remaining_established: remaining,
            }));
    }

    /// A connection is gone: gossip moves to another one of the same peer, if there is one.
    fn close(&mut self, id: ConnectionId, cause: Option<String>) {
        let Some(peer) = self.known.get(&id).map(|known| known.peer) else {
            return;
        };
        if self.shown.get(&peer) == Some(&id) {
            let moved = self.move_gossip(id, peer);
            self.hide(id, peer, usize::from(moved));
        }
        if let Some(known) = self.known.remove(&id) {
            let ended = self.shared.end_of(&known.connection, cause);
            self.shared.disconnect(&known.connection, ended);
        }
    }

    /// Shows gossip the newest other connection of a peer. False if there is none.
    fn move_gossip(&mut self, from: ConnectionId, peer: PeerId) -> bool {
        self.shown.remove(&peer);
        let others =
            self.known.iter().rev().filter(|(id, known)| {
                **id != from && known.peer == peer && known.connection.member
            });
        let Some((id, at)) = others.map(|(id, known)| (*id, known.at.clone())).next() else {
            return false;
        };
        if !self.may_move_to(id, peer) {
            return false;
        }
        let Ok(inner) = handler_of(&mut self.gossip, id, peer, &at) else {
            return false;
        };
        self.announce(id, peer, &at);
        self.shown.insert(peer, id);
        self.out.push_back(ToSwarm::NotifyHandler {
            peer_id: peer,
            handler: NotifyHandler::One(id),
            event: Either::Left(Either::Right(Install(Box::new(inner)))),
        });
        true
    }

    /// Gossip gives up on a connection after its fifth stream, so one that it was moved to often is closed and
    /// dialled anew instead.
    fn may_move_to(&mut self, id: ConnectionId, peer: PeerId) -> bool {
        let moves = self.known.get_mut(&id).map_or(0, |known| {
            known.moves = known.moves.saturating_add(1);
            known.moves
        });
        if moves > MOVES_MAX {
            self.drop_connection(id, peer);
        }
        moves <= MOVES_MAX
    }

    fn drop_connection(&mut self, id: ConnectionId, peer: PeerId) {
        self.out.push_back(ToSwarm::CloseConnection {
            peer_id: peer,
            connection: CloseConnection::One(id),
        });
    }

    /// Counts a gossip packet. True if the connection has had its share of this second.
    fn is_flooding(&mut self, id: ConnectionId) -> bool {
        self.known.get_mut(&id).is_some_and(|known| {
            known.packets = known.packets.saturating_add(1);
            known.packets == limits::GOSSIP_PACKETS_PER_SECOND_MAX
        })
    }

    /// The peer begins to speak gossip, and may know nothing of this node any more.
    fn introduce(&mut self, peer: PeerId) {
        let shown = self.shown.get(&peer).copied();
        let standing = shown.and_then(|id| Some((id, self.known.get(&id)?.at.clone())));
        if let Some((id, at)) = standing {
            self.announce(id, peer, &at);
            self.wake_shown();
        }
    }

    fn on_gossip(&mut self, id: ConnectionId, peer: PeerId, event: FromGossip) {
        let event = match event {
            FromGossip::Opened => return self.introduce(peer),
            FromGossip::Inner(event) => event,
        };
        if self.is_flooding(id) {
            tracing::warn!(%peer, "closed for flooding gossip");
            self.drop_connection(id, peer);
        } else if self.shown.contains_key(&peer) {
            self.gossip.on_connection_handler_event(peer, id, event);
        }
    }

    /// What gossip wants, except what only the engine may decide: dials, closings, and handlers' hints on them.
    fn poll_gossip(&mut self, cx: &mut Context<'_>) -> Poll<GateEvent> {
        loop {
            match self.gossip.poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(ToSwarm::GenerateEvent(gossipsub::Event::Message {
                    propagation_source: from,
                    message_id: name,
                    message,
                })) => {
                    let (topic, data) = (message.topic, message.data);
                    return Poll::Ready(GateEvent::Gossip {
                        name,
                        from,
                        topic,
                        data,
                    });
                }
                Poll::Ready(ToSwarm::GenerateEvent(gossipsub::Event::Subscribed {
                    topic, ..
                })) => return Poll::Ready(GateEvent::Subscribed(topic)),
                Poll::Ready(_) => {}
            }
        }
    }

    /// What identify tells its handlers, and where members see this node. Their lists of addresses are not used:
    /// only what a member signed as its own is dialled.
    fn poll_identify(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<GateEvent, THandlerInEvent<Self>>> {
        loop {
            match self.identify.poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(ToSwarm::GenerateEvent(identify::Event::Received {
                    peer_id: by,
                    info,
                    ..
                })) => {
                    let at = info.observed_addr;
                    return Poll::Ready(ToSwarm::GenerateEvent(GateEvent::Observed { by, at }));
                }
                Poll::Ready(ToSwarm::NotifyHandler {
                    peer_id,
                    handler,
                    event,
                }) => {
                    return Poll::Ready(ToSwarm::NotifyHandler {
                        peer_id,
                        handler,
                        event: Either::Right(Either::Left(event)),
                    });
                }
                Poll::Ready(_) => {}
            }
        }
    }

    fn is_member(&self, id: ConnectionId) -> bool {
        self.known
            .get(&id)
            .is_some_and(|known| known.connection.member)
    }

    fn poll_mdns(&mut self, cx: &mut Context<'_>) -> Poll<GateEvent> {
        let Some(mdns) = &mut self.mdns else {
            return Poll::Pending;
        };
        loop {
            match mdns.poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(ToSwarm::GenerateEvent(event)) => {
                    return Poll::Ready(GateEvent::Mdns(event));
                }
                Poll::Ready(_) => {}
            }
        }
    }
}

impl NetworkBehaviour for Gate {
    type ConnectionHandler = Handlers;
    type ToSwarm = GateEvent;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let ip = ip_of(remote);
        if !ip.is_some_and(|ip| self.is_in_scope(&ip)) {
            return Err(ConnectionDenied::new(Refused::Scope));
        }
        self.check_handshakes(ip).map_err(ConnectionDenied::new)?;
        self.pending.insert(id, ip);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<Self::ConnectionHandler, ConnectionDenied> {
        let (local_addr, send_back_addr) = (local.clone(), remote.clone());
        self.establish(
            id,
            peer,
            ConnectedPoint::Listener {
                local_addr,
                send_back_addr,
            },
        )
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role_override: Endpoint,
        port_use: PortUse,
    ) -> Result<Self::ConnectionHandler, ConnectionDenied> {
        let address = address.clone();
        self.establish(
            id,
            peer,
            ConnectedPoint::Dialer {
                address,
                role_override,
                port_use,
            },
        )
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionEstablished(established) = event {
            let (id, peer) = (established.connection_id, established.peer_id);
            if self.shown.get(&peer) == Some(&id) {
                self.announce(id, peer, established.endpoint);
            }
            if self.is_member(id) {
                self.identify.on_swarm_event(event);
            }
        } else if let FromSwarm::ConnectionClosed(closed) = event {
            if self.is_member(closed.connection_id) {
                self.identify.on_swarm_event(event);
            }
            self.close(closed.connection_id, closed.cause.map(ToString::to_string));
        } else if let FromSwarm::ListenFailure(failure) = event {
            self.pending.remove(&failure.connection_id);
        } else if let Some(mdns) = &mut self.mdns {
            mdns.on_swarm_event(event); // our addresses, to be announced
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {
            Either::Left(Either::Left(LaneReport::Farewell)) => self.drop_connection(id, peer),
            Either::Left(Either::Left(LaneReport::Flood)) => {
                tracing::warn!(%peer, "closed for saying too much unproven");
                self.drop_connection(id, peer);
            }
            Either::Left(Either::Right(event)) => self.on_gossip(id, peer, event),
            Either::Right(Either::Left(event)) => {
                self.identify.on_connection_handler_event(peer, id, event);
            }
            Either::Right(Either::Right(never)) => match never {},
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<GateEvent, THandlerInEvent<Self>>> {
        if let Some(event) = self.out.pop_front() {
            return Poll::Ready(event);
        }
        if let Poll::Ready(event) = self.poll_gossip(cx) {
            return Poll::Ready(ToSwarm::GenerateEvent(event));
        }
        if let Poll::Ready(event) = self.poll_identify(cx) {
            return Poll::Ready(event);
        }
        self.poll_mdns(cx).map(ToSwarm::GenerateEvent)
    }
}

/// Whether a host is this machine, of which limits for each host do not speak.
fn is_here(ip: Option<Ip>) -> bool {
    ip.is_some_and(|ip| ip.reach() == Reach::Loopback)
}

/// What `behaviour` speaks on a connection.
fn handler_of<B: NetworkBehaviour>(
    behaviour: &mut B,
    id: ConnectionId,
    peer: PeerId,
    at: &ConnectedPoint,
) -> Result<THandler<B>, ConnectionDenied> {
    match at {
        ConnectedPoint::Dialer {
            address,
            role_override,
            port_use,
        } => behaviour.handle_established_outbound_connection(
            id,
            peer,
            address,
            *role_override,
            *port_use,
        ),
        ConnectedPoint::Listener {
            local_addr,
            send_back_addr,
        } => behaviour.handle_established_inbound_connection(id, peer, local_addr, send_back_addr),
    }
}
