//! Gossip: settings, the screen before its caches, and its handlers on a connection.
//!
//! Messages carry no author; who wrote them and whether they are good is the engine's business. A message's
//! name is the hash of topic and content.

use std::fmt;
use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use either::Either;
use libp2p::core::upgrade::DeniedUpgrade;
use libp2p::gossipsub::{
    AllowAllSubscriptionFilter, Behaviour, Config, ConfigBuilder, ConfigBuilderError,
    DataTransform, MaxCountSubscriptionFilter, Message, MessageAuthenticity, MessageId, RawMessage,
    TopicHash, ValidationMode,
};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
    ListenUpgradeError,
};
use libp2p::swarm::{ConnectionHandler, ConnectionHandlerEvent, SubstreamProtocol, THandler};

use crate::engine::limits;
use crate::net::convert::from_topic;
use crate::net::streams::{Shared, lock};

/// Gossip as we run it.
pub(crate) type Gossip = Behaviour<Screen, MaxCountSubscriptionFilter<AllowAllSubscriptionFilter>>;
/// Gossip's own handler of a connection.
pub(crate) type Inner = THandler<Gossip>;

/// Handlers of one connection that are kept for what the peer still sends on their streams.
const HANDLERS_MAX: usize = 4;

/// Gossip could not be set up: a fault of its settings.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GossipError {
    /// Contradicting settings.
    #[error("the settings of gossip contradict each other: {0}")]
    Config(#[from] ConfigBuilderError),
    /// Settings that do not go together with unsigned messages.
    #[error("the settings of gossip do not suit unsigned messages: {0}")]
    Build(&'static str),
}

/// Gossip under our settings, screening what comes in against the topics in `shared`.
///
/// # Errors
/// When the settings contradict each other.
pub(crate) fn build(shared: &Arc<Shared>, budget: &Arc<Budget>) -> Result<Gossip, GossipError> {
    let filter = MaxCountSubscriptionFilter {
        filter: AllowAllSubscriptionFilter::default(),
        max_subscribed_topics: limits::GOSSIP_TOPICS_PER_PEER_MAX,
        max_subscriptions_per_request: limits::GOSSIP_TOPICS_PER_PEER_MAX,
    };
    let screen = Screen {
        shared: Arc::clone(shared),
        budget: Arc::clone(budget),
    };
    Behaviour::new_with_subscription_filter_and_transform(
        MessageAuthenticity::Anonymous,
        settings()?,
        filter,
        screen,
    )
    .map_err(GossipError::Build)
}

fn settings() -> Result<Config, ConfigBuilderError> {
    ConfigBuilder::default()
        .protocol_id_prefix("/collab-p2p/1/gossip")
        .validation_mode(ValidationMode::Anonymous)
        .validate_messages()
        .message_id_fn(name_of)
        .heartbeat_initial_delay(Duration::from_millis(100))
        .heartbeat_interval(Duration::from_secs(1))
        .mesh_n(4)
        .mesh_n_low(3)
        .mesh_n_high(8)
        .mesh_outbound_min(1)
        .flood_publish(true)
        .prune_peers(0)
        .max_transmit_size(64 * 1024)
        .connection_handler_queue_len(256)
        .idontwant_message_size_threshold(8192)
        .publish_queue_duration(Duration::from_secs(2))
        .forward_queue_duration(Duration::from_secs(2))
        .build()
}

/// The first 20 bytes of blake3 over the topic's digits (always 64) and the content.
fn name_of(message: &Message) -> MessageId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(message.topic.as_str().as_bytes());
    hasher.update(&message.data);
    let hash = hasher.finalize();
    MessageId::from(
        hash.as_bytes()
            .iter()
            .take(20)
            .copied()
            .collect::<Vec<u8>>(),
    )
}

/// How much more gossip is let in until the next second.
#[derive(Debug)]
pub(crate) struct Budget {
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            messages: AtomicUsize::new(limits::GOSSIP_MESSAGES_PER_SECOND_MAX),
            bytes: AtomicUsize::new(limits::GOSSIP_BYTES_PER_SECOND_MAX),
        }
    }
}

impl Budget {
    /// A second has begun.
    pub(crate) fn refill(&self) {
        self.messages
            .store(limits::GOSSIP_MESSAGES_PER_SECOND_MAX, Ordering::Relaxed);
        self.bytes
            .store(limits::GOSSIP_BYTES_PER_SECOND_MAX, Ordering::Relaxed);
    }

    fn spend(&self, bytes: usize) -> bool {
        take(&self.messages, 1) && take(&self.bytes, bytes)
    }
}

fn take(of: &AtomicUsize, count: usize) -> bool {
    let less = |left: usize| left.checked_sub(count);
    of.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
        .is_ok()
}

/// Refuses what is not for us before gossip remembers anything of it.
pub(crate) struct Screen {
    shared: Arc<Shared>,
    budget: Arc<Budget>,
}

impl DataTransform for Screen {
    fn inbound_transform(&self, raw: RawMessage) -> Result<Message, io::Error> {
        let known =
            from_topic(&raw.topic).is_some_and(|id| lock(&self.shared.topics).contains(&id));
        if !known {
            return Err(io::Error::other("no topic of ours"));
        }
        if raw.data.len() > limits::GOSSIP_MESSAGE_BYTES_MAX {
            return Err(io::Error::other("longer than a message may be"));
        }
        if !self.budget.spend(raw.data.len()) {
            return Err(io::Error::other("more than we take in a second"));
        }
        Ok(Message {
            source: raw.source,
            data: raw.data,
            sequence_number: raw.sequence_number,
            topic: raw.topic,
        })
    }

    fn outbound_transform(&self, _: &TopicHash, data: Vec<u8>) -> Result<Vec<u8>, io::Error> {
        Ok(data)
    }
}

/// Gossip's handlers on one connection: none with a stranger, usually one, and more after gossip was moved to
/// this connection from another. The newest one opens and accepts streams; those before it still read what the
/// peer sends on the streams they have.
pub(crate) struct GossipHandler {
    inner: Vec<(u64, Inner)>,
    last: u64,
    /// The peer has opened a stream, and the gate is not told yet.
    opened: bool,
}

/// What gossip's handlers on a connection tell the gate.
#[expect(
    clippy::large_enum_variant,
    reason = "the small one is rare, and a box would cost every message an allocation"
)]
pub(crate) enum FromGossip {
    /// The peer begins to speak gossip here, perhaps after it has forgotten what it knew of this node.
    Opened,
    /// What gossip's own handler says.
    Inner(<Inner as ConnectionHandler>::ToBehaviour),
}

impl fmt::Debug for FromGossip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opened => f.write_str("Opened"),
            Self::Inner(event) => event.fmt(f),
        }
    }
}

/// A new handler for a connection that gossip is moved to.
pub(crate) struct Install(pub(crate) Box<Inner>);

impl fmt::Debug for Install {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Install")
    }
}

impl GossipHandler {
    /// Serves gossip with `inner`, or not at all.
    pub(crate) fn new(inner: Option<Inner>) -> Self {
        Self {
            inner: inner.into_iter().map(|handler| (0, handler)).collect(),
            last: 0,
            opened: false,
        }
    }

    fn newest(&mut self) -> Option<&mut Inner> {
        self.inner.last_mut().map(|(_, handler)| handler)
    }

    fn numbered(&mut self, number: u64) -> Option<&mut Inner> {
        self.inner
            .iter_mut()
            .find(|(at, _)| *at == number)
            .map(|(_, handler)| handler)
    }
}

impl ConnectionHandler for GossipHandler {
    type FromBehaviour = Install;
    type ToBehaviour = FromGossip;
    type InboundProtocol = <Inner as ConnectionHandler>::InboundProtocol;
    type OutboundProtocol = <Inner as ConnectionHandler>::OutboundProtocol;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = u64;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        match self.inner.last() {
            Some((_, handler)) => handler.listen_protocol(),
            None => SubstreamProtocol::new(Either::Right(DeniedUpgrade), ()),
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, u64, Self::ToBehaviour>> {
        if mem::take(&mut self.opened) {
            let event = FromGossip::Opened;
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event));
        }
        for (number, handler) in self.inner.iter_mut().rev() {
            while let Poll::Ready(event) = handler.poll(cx) {
                let opens = matches!(
                    event,
                    ConnectionHandlerEvent::OutboundSubstreamRequest { .. }
                );
                // An older handler only reads on. The peer keeps one stream, the last: two that both open one
                // anew whenever they lose theirs come to the count at which the peer gives gossip up.
                if !opens || *number == self.last {
                    let event = event.map_custom(FromGossip::Inner);
                    return Poll::Ready(event.map_outbound_open_info(|()| *number));
                }
            }
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, Install(handler): Install) {
        self.last += 1;
        self.inner.push((self.last, *handler));
        if self.inner.len() > HANDLERS_MAX {
            self.inner.remove(0);
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), u64>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, info }) => {
                self.opened = true;
                if let Some(handler) = self.newest() {
                    let event = FullyNegotiatedInbound { protocol, info };
                    handler.on_connection_event(ConnectionEvent::FullyNegotiatedInbound(event));
                }
            }
            ConnectionEvent::ListenUpgradeError(ListenUpgradeError { info, error }) => {
                if let Some(handler) = self.newest() {
                    let event = ListenUpgradeError { info, error };
                    handler.on_connection_event(ConnectionEvent::ListenUpgradeError(event));
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol,
                info,
            }) => {
                if let Some(handler) = self.numbered(info) {
                    let event = FullyNegotiatedOutbound { protocol, info: () };
                    handler.on_connection_event(ConnectionEvent::FullyNegotiatedOutbound(event));
                }
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                if let Some(handler) = self.numbered(info) {
                    let event = DialUpgradeError { info: (), error };
                    handler.on_connection_event(ConnectionEvent::DialUpgradeError(event));
                }
            }
            ConnectionEvent::AddressChange(_)
            | ConnectionEvent::LocalProtocolsChange(_)
            | ConnectionEvent::RemoteProtocolsChange(_)
            | _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ids::TopicId;
    use crate::net::convert::to_topic;

    #[test]
    fn only_our_topics_pass_the_screen_and_only_so_much_in_a_second() {
        let shared = Arc::new(Shared::default());
        let budget = Arc::new(Budget::default());
        let screen = Screen {
            shared: Arc::clone(&shared),
            budget: Arc::clone(&budget),
        };
        let (ours, foreign) = (TopicId([1; 32]), TopicId([2; 32]));
        lock(&shared.topics).insert(ours);
        let passes = |topic: &TopicId, size| screen.inbound_transform(raw(topic, size)).is_ok();

        assert!(passes(&ours, 10));
        assert!(!passes(&foreign, 10));
        assert!(!passes(&ours, limits::GOSSIP_MESSAGE_BYTES_MAX + 1));
        for _ in 1..limits::GOSSIP_MESSAGES_PER_SECOND_MAX {
            assert!(passes(&ours, 10));
        }
        assert!(!passes(&ours, 10));
        budget.refill();
        assert!(passes(&ours, 10));
    }

    #[test]
    fn a_message_is_named_by_topic_and_content() {
        let name = |topic: u8, data: &[u8]| {
            name_of(&Message {
                source: None,
                data: data.to_vec(),
                sequence_number: None,
                topic: to_topic(&TopicId([topic; 32])),
            })
        };

        assert_eq!(name(1, b"x"), name(1, b"x"));
        assert_ne!(name(1, b"x"), name(1, b"y"));
        assert_ne!(name(1, b"x"), name(2, b"x"));
        assert_eq!(name(1, b"x").0.len(), 20);
    }

    fn raw(topic: &TopicId, size: usize) -> RawMessage {
        RawMessage {
            source: None,
            data: vec![0; size],
            sequence_number: None,
            topic: to_topic(topic),
            signature: None,
            key: None,
            validated: false,
        }
    }
}
