//! The task that drives libp2p: the only place that names the concrete swarm.
//!
//! Messages of streams do not pass through here; connections exchange them with the engine's side directly.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use libp2p::PeerId;
use libp2p::core::transport::TransportError;
use libp2p::gossipsub::{MessageAcceptance, MessageId, TopicHash};
use libp2p::multiaddr::Multiaddr;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{DialError, Swarm, SwarmEvent};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::engine::address::{Addr, Reach};
use crate::engine::effect::Verdict;
use crate::engine::event::{GossipId, NetEvent};
use crate::engine::ids::{MemberId, TopicId};
use crate::engine::limits;
use crate::net::addresses::{Listening, networks};
use crate::net::convert::{from_multiaddr, from_topic, to_member, to_multiaddr, to_peer};
use crate::net::discovery::{Neighbours, REPEAT_SECONDS};
use crate::net::gate::{Gate, GateEvent};
use crate::net::inbox::Line;
use crate::net::streams::{Shared, lock};

/// How long connections may take to close when the network shuts down.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);
/// What QUIC needs to send its last packets once all connections are closed.
const LAST_PACKETS: Duration = Duration::from_millis(10);
/// Characters of a failed dial's reason.
const REASON_CHARS_MAX: usize = 400;

/// What the task is asked.
#[derive(Debug)]
pub(crate) enum Request {
    /// Connect to a peer.
    Dial(MemberId, Vec<Addr>),
    /// The topics in [`Shared`] have changed.
    Topics,
    /// Tell all neighbours.
    Publish(TopicId, Vec<u8>),
    /// The verdict on a gossip message.
    Judge(GossipId, Verdict),
    /// Close everything and end.
    Shutdown,
}

/// The task's state.
pub(crate) struct Driver {
    swarm: Swarm<Gate>,
    shared: Arc<Shared>,
    requests: mpsc::Receiver<Request>,
    listening: Listening,
    neighbours: Neighbours,
    subscribed: Vec<TopicId>,
    unsent: VecDeque<Unsent>,
    unjudged: BTreeMap<GossipId, (MessageId, PeerId)>,
    last_gossip: u64,
    observed_by: BTreeSet<PeerId>,
    seconds: u32,
    second: Interval,
    dirty: bool,
    expired: bool,
}

/// An own gossip message that waits for a neighbour.
struct Unsent {
    topic: TopicId,
    data: Vec<u8>,
    until: u32,
}

impl Driver {
    /// Drives `swarm` by `requests`.
    pub(crate) fn new(
        swarm: Swarm<Gate>,
        shared: Arc<Shared>,
        requests: mpsc::Receiver<Request>,
    ) -> Self {
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Skip);
        Self {
            swarm,
            shared,
            requests,
            listening: Listening::default(),
            neighbours: Neighbours::default(),
            subscribed: Vec::new(),
            unsent: VecDeque::new(),
            unjudged: BTreeMap::new(),
            last_gossip: 0,
            observed_by: BTreeSet::new(),
            seconds: 0,
            second,
            dirty: false,
            expired: false,
        }
    }

    /// Binds an address now, and reports it once it stands.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub(crate) fn listen(&mut self, addr: &Addr) -> Result<(), TransportError<std::io::Error>> {
        self.swarm.listen_on(to_multiaddr(addr)).map(drop)
    }

    /// Runs until asked to shut down, or until nobody can ask any more.
    pub(crate) async fn run(mut self) {
        loop {
            tokio::select! {
                biased;
                request = self.requests.recv() => match request {
                    Some(Request::Shutdown) | None => break,
                    Some(request) => {
                        self.shared.gauges.requests.set(self.requests.len());
                        self.handle(request);
                    }
                },
                event = self.swarm.select_next_some() => self.on_swarm_event(event),
                _ = self.second.tick() => self.on_second(),
                () = std::future::ready(()), if self.dirty => self.report_addresses(),
            }
        }
        self.shut_down().await;
    }

    async fn shut_down(&mut self) {
        self.shared.close_all();
        let closed = async {
            while self.shared.connected() > 0 {
                let event = self.swarm.select_next_some().await;
                tracing::trace!(?event, "while closing");
            }
        };
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, closed)
            .await
            .is_err()
        {
            tracing::debug!("some connections did not close in time");
        }
        tokio::time::sleep(LAST_PACKETS).await;
    }

    fn handle(&mut self, request: Request) {
        match request {
            Request::Dial(peer, addrs) => self.dial(peer, &addrs),
            Request::Topics => self.subscribe(),
            Request::Publish(topic, data) => self.publish(topic, data),
            Request::Judge(id, verdict) => self.judge(id, verdict),
            Request::Shutdown => {}
        }
    }

    fn report(&self, event: NetEvent) {
        self.shared.inbox.put(Line::Node, event, None);
        let waiting = self.shared.inbox.waiting(Line::Node);
        self.shared.gauges.facts.set(waiting);
    }

    /// Tells who is near, unless the engine is behind with what it was told before: it is told again.
    fn report_neighbours(&self, events: Vec<NetEvent>) {
        for event in events {
            if self.shared.inbox.waiting(Line::Node) < limits::NET_FACTS_MAX / 2 {
                self.report(event);
            } else {
                self.shared.gauges.facts.drop_one();
            }
        }
    }

    fn dial(&mut self, member: MemberId, addrs: &[Addr]) {
        let failed = |reason: &str| NetEvent::DialFailed {
            peer: member,
            reason: reason.to_owned(),
        };
        let Some(peer) = to_peer(&member) else {
            return self.report(failed("no key of a member"));
        };
        let gate = self.swarm.behaviour();
        let addrs: Vec<Multiaddr> = addrs
            .iter()
            .filter(|addr| addr.ip.reach() != Reach::Never && gate.is_in_scope(&addr.ip))
            .take(limits::DIAL_ADDRESSES_MAX)
            .map(to_multiaddr)
            .collect();
        if addrs.is_empty() {
            return self.report(failed("no address to try"));
        }
        let options = DialOpts::peer_id(peer)
            .condition(PeerCondition::Always)
            .addresses(addrs)
            .build();
        if let Err(error) = self.swarm.dial(options) {
            let reason = reason_of(&error);
            self.report(NetEvent::DialFailed {
                peer: member,
                reason,
            });
        }
    }

    fn subscribe(&mut self) {
        let topics: Vec<TopicId> = lock(&self.shared.topics).iter().copied().collect();
        for topic in topics {
            if !self.subscribed.contains(&topic) {
                self.swarm.behaviour_mut().subscribe(&topic);
                self.subscribed.push(topic);
            }
        }
    }

    fn publish(&mut self, topic: TopicId, data: Vec<u8>) {
        if data.len() > limits::GOSSIP_MESSAGE_BYTES_MAX {
            tracing::debug!(bytes = data.len(), "too long for gossip");
        } else if !self.swarm.behaviour_mut().publish(&topic, data.clone()) {
            let until = self.seconds + limits::GOSSIP_UNSENT_SECONDS_MAX;
            self.unsent.push_back(Unsent { topic, data, until });
            if self.unsent.len() > limits::GOSSIP_UNSENT_MAX {
                self.unsent.pop_front();
                self.shared.gauges.unsent.drop_one();
            }
            self.shared.gauges.unsent.set(self.unsent.len());
        }
    }

    fn judge(&mut self, id: GossipId, verdict: Verdict) {
        let Some((name, from)) = self.unjudged.remove(&id) else {
            return;
        };
        self.shared.gauges.unjudged.set(self.unjudged.len());
        let verdict = match verdict {
            Verdict::Accept => MessageAcceptance::Accept,
            Verdict::Ignore => MessageAcceptance::Ignore,
            Verdict::Reject => MessageAcceptance::Reject,
        };
        self.swarm.behaviour_mut().judge(&name, &from, verdict);
    }

    fn on_second(&mut self) {
        self.seconds = self.seconds.wrapping_add(1);
        self.swarm.behaviour_mut().on_second();
        let now = self.seconds;
        self.unsent.retain(|unsent| unsent.until > now);
        if self.seconds.is_multiple_of(REPEAT_SECONDS) {
            self.report_neighbours(self.neighbours.all());
        }
        let gauges = &self.shared.gauges;
        gauges.gossip.set(self.shared.inbox.waiting(Line::Gossip));
        gauges.facts.set(self.shared.inbox.waiting(Line::Node));
        gauges.unsent.set(self.unsent.len());
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<GateEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_gate_event(event),
            SwarmEvent::NewListenAddr {
                listener_id,
                address,
            } => {
                self.listening.add(listener_id, &address);
                self.dirty = true;
            }
            SwarmEvent::ExpiredListenAddr {
                listener_id,
                address,
            } => {
                if self.listening.remove(listener_id, &address) {
                    tracing::info!(%address, "an address of this machine went away");
                    self.expired = true; // once for all listeners at that address
                }
                self.dirty = true;
            }
            SwarmEvent::ListenerClosed {
                listener_id,
                reason,
                ..
            } => {
                tracing::warn!(?reason, "a listener ended");
                self.listening.end(listener_id);
                self.dirty = true;
            }
            SwarmEvent::OutgoingConnectionError { peer_id, error, .. } => {
                if let Some(peer) = peer_id.as_ref().and_then(to_member) {
                    self.report(NetEvent::DialFailed {
                        peer,
                        reason: reason_of(&error),
                    });
                }
            }
            SwarmEvent::IncomingConnectionError {
                send_back_addr,
                error,
                ..
            } => {
                tracing::debug!(from = %send_back_addr, %error, "nobody was let in");
            }
            SwarmEvent::ListenerError { error, .. } => {
                tracing::warn!(%error, "a listener has trouble");
            }
            SwarmEvent::ConnectionEstablished { .. }
            | SwarmEvent::ConnectionClosed { .. }
            | SwarmEvent::IncomingConnection { .. }
            | SwarmEvent::Dialing { .. }
            | SwarmEvent::NewExternalAddrCandidate { .. }
            | SwarmEvent::ExternalAddrConfirmed { .. }
            | SwarmEvent::ExternalAddrExpired { .. }
            | SwarmEvent::NewExternalAddrOfPeer { .. }
            | _ => {}
        }
    }

    fn on_gate_event(&mut self, event: GateEvent) {
        match event {
            GateEvent::Gossip {
                name,
                from,
                topic,
                data,
            } => {
                self.on_gossip(name, from, &topic, data);
            }
            GateEvent::Subscribed(topic) => self.resend(&topic),
            GateEvent::Observed { by, at } => self.on_observed(by, &at),
            GateEvent::Mdns(event) => {
                let events = self.neighbours.update(event);
                self.report_neighbours(events);
            }
        }
    }

    /// Tells the log where a member sees this node: at no address of ours, a router translates between. A member
    /// may say so as often as it likes, and is written down once.
    fn on_observed(&mut self, by: PeerId, at: &Multiaddr) {
        if self.observed_by.len() >= limits::MEMBERS_MAX {
            self.observed_by.clear();
        }
        if let Some(addr) = from_multiaddr(at)
            && self.observed_by.insert(by)
        {
            let translated = !self.listening.is_at(&addr.ip);
            tracing::info!(%by, %addr, translated, "a member sees this node there");
        }
    }

    fn on_gossip(&mut self, name: MessageId, from: PeerId, topic: &TopicHash, data: Vec<u8>) {
        let waiting = self.shared.inbox.waiting(Line::Gossip);
        let full = waiting >= limits::GOSSIP_BACKLOG_MAX;
        if full {
            self.shared.gauges.gossip.drop_one();
        }
        let (Some(member), Some(topic), false) = (to_member(&from), from_topic(topic), full) else {
            let gate = self.swarm.behaviour_mut();
            return gate.judge(&name, &from, MessageAcceptance::Ignore);
        };
        self.last_gossip += 1;
        let id = GossipId(self.last_gossip);
        self.unjudged.insert(id, (name, from));
        if self.unjudged.len() > limits::GOSSIP_UNJUDGED_MAX {
            self.unjudged.pop_first();
            self.shared.gauges.unjudged.drop_one();
        }
        self.shared.gauges.unjudged.set(self.unjudged.len());
        self.shared.gauges.gossip.set(waiting + 1);
        let event = NetEvent::Gossip {
            id,
            from: member,
            topic,
            data,
        };
        self.shared.inbox.put(Line::Gossip, event, None);
    }

    /// Sends what waited for a neighbour in `topic`.
    fn resend(&mut self, topic: &TopicHash) {
        let Some(topic) = from_topic(topic) else {
            return;
        };
        let (ready, waiting) = std::mem::take(&mut self.unsent)
            .into_iter()
            .partition(|unsent: &Unsent| unsent.topic == topic);
        self.unsent = waiting;
        let ready: VecDeque<Unsent> = ready;
        for unsent in ready {
            self.publish(unsent.topic, unsent.data);
        }
    }

    /// Tells what went away and where we are reached, the networks first, once nothing more is waiting to change it.
    fn report_addresses(&mut self) {
        self.dirty = false;
        if std::mem::take(&mut self.expired) {
            self.report(NetEvent::AddressExpired);
        }
        let now = networks();
        let changed = {
            let mut known = lock(&self.shared.networks);
            let changed = *known != now;
            known.clone_from(&now);
            changed
        };
        if changed {
            self.report(NetEvent::Networks(now));
        }
        if let Some(addrs) = self.listening.changed() {
            self.report(NetEvent::Listening(addrs));
        }
    }
}

/// A dial's failure as a person reads it.
fn reason_of(error: &DialError) -> String {
    let reason = match error {
        DialError::Transport(tried) => {
            let tried = tried.iter().map(|(addr, error)| attempt(addr, error));
            tried.collect::<Vec<_>>().join("; ")
        }
        DialError::WrongPeerId { address, .. } => {
            format!("{}: somebody else answered there", shown(address))
        }
        DialError::LocalPeerId { address } => format!("{}: this node itself", shown(address)),
        DialError::Denied { cause } => cause.to_string(),
        DialError::NoAddresses | DialError::Aborted | DialError::DialPeerConditionFalse(_) => {
            error.to_string()
        }
    };
    reason.chars().take(REASON_CHARS_MAX).collect()
}

fn attempt(addr: &Multiaddr, error: &TransportError<std::io::Error>) -> String {
    let cause = match error {
        TransportError::MultiaddrNotSupported(_) => "cannot be dialled".to_owned(),
        TransportError::Other(error) => innermost(error),
    };
    format!("{}: {cause}", shown(addr))
}

/// The cause beneath the layers that wrap it.
fn innermost(error: &std::io::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

fn shown(addr: &Multiaddr) -> String {
    from_multiaddr(addr).map_or_else(|| addr.to_string(), |addr| addr.to_string())
}
