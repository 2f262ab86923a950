//! Which peers to be connected to, and which connection of several to keep.
//!
//! The rules come from DESIGN §4 and §9 and from measurements of what goes wrong without them: one connection
//! per peer in the end, chosen by a rule that both sides compute; a higher instance number replaces what is
//! stale; a connection without hello, or silent, is closed and dialled anew; an expired address drops
//! everything; addresses are dialled only where their source may name them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::engine::address::{Addr, Network, Reach};
use crate::engine::entropy::Entropy;
use crate::engine::event::{ConnId, Ended, Path, Source, StreamId};
use crate::engine::ids::MemberId;
use crate::engine::limits::{
    ADDRS_PER_PEER_MAX, ANOTHER_LINGERS, CANDIDATES_MAX, DIAL_COURTESY, DIALS_PER_MINUTE_MAX,
    FINISHED_ONCE, HEARTBEAT, HELLO, PEER_DEAD, REDIAL_FIRST, REDIAL_LONGEST, REDIAL_SHARE,
    UNPROVEN,
};
use crate::engine::time::Mono;
use crate::engine::timers::ms;

/// What happens to connections.
#[derive(Debug)]
pub enum LinkInput<'a> {
    /// A connection stands.
    Connected {
        /// Its number.
        conn: ConnId,
        /// Its peer.
        peer: MemberId,
        /// Whether we dialled.
        outbound: bool,
        /// How it goes.
        path: Path,
        /// Whether it has a member's lanes here.
        member: bool,
    },
    /// A connection is gone.
    Disconnected {
        /// Which.
        conn: ConnId,
        /// Why.
        ended: &'a Ended,
    },
    /// A dial failed.
    DialFailed {
        /// Of whom.
        peer: MemberId,
        /// Why.
        reason: &'a str,
    },
    /// A peer may be reachable.
    Discovered {
        /// Who.
        peer: MemberId,
        /// Where.
        addrs: &'a [Addr],
        /// Who says so.
        source: Source,
    },
    /// A control stream was opened, by either side.
    ControlOpened {
        /// On which connection.
        conn: ConnId,
        /// Which.
        stream: StreamId,
    },
    /// The peer does not speak the control lane with us on this connection.
    ControlRefused {
        /// Which connection.
        conn: ConnId,
    },
    /// The peer said hello.
    Hello {
        /// On which connection.
        conn: ConnId,
        /// Its start, under its signature: number and lot.
        instance: (u64, u64),
    },
    /// Anything came on the control stream.
    Heard {
        /// On which connection.
        conn: ConnId,
    },
    /// A newcomer's verified join waits for a person on this connection.
    Waits {
        /// Which.
        conn: ConnId,
        /// Until when it may stay.
        until: Mono,
    },
    /// An admission on this connection is done: it is closed. Whoever was let in dials anew as soon as it is
    /// gone; whoever was not, after a pause that grows.
    Finished {
        /// Which.
        conn: ConnId,
        /// Whether both sides know each other as members now.
        welcome: bool,
    },
    /// The peer on this connection belongs to another session, as its key does for ever.
    Foreign {
        /// Which connection.
        conn: ConnId,
    },
    /// The peer answered our heartbeat.
    RoundTrip {
        /// On which connection.
        conn: ConnId,
        /// How long it took, in microseconds.
        micros: u64,
    },
    /// The networks of our interfaces.
    Networks(&'a [Network]),
    /// An address of ours went away.
    AddressExpired,
    /// Whom to be connected to.
    Wanted(BTreeSet<MemberId>),
    /// Whom to be connected to before all others: hosts of terminals.
    First(BTreeSet<MemberId>),
    /// While joining, whoever is discovered may let us in.
    AnybodyWanted(bool),
    /// Time has passed.
    Tick,
}

/// What follows.
#[derive(Debug, PartialEq, Eq)]
pub enum LinkOutput {
    /// Dial.
    Dial {
        /// Whom.
        peer: MemberId,
        /// Where.
        addrs: Vec<Addr>,
    },
    /// Close a connection.
    Close(ConnId),
    /// Open the control stream and say hello.
    Greet(ConnId),
    /// Prove ourselves on this connection: it has no member's lanes on one of the sides.
    Prove {
        /// The connection.
        conn: ConnId,
        /// The peer.
        peer: MemberId,
    },
    /// Send a heartbeat.
    Beat(ConnId),
    /// This connection carries the peer's traffic from now on.
    Up {
        /// The connection.
        conn: ConnId,
        /// The peer.
        peer: MemberId,
        /// The connection that carried it before.
        instead_of: Option<ConnId>,
    },
    /// No connection carries the peer's traffic any more.
    Down {
        /// The peer.
        peer: MemberId,
    },
}

/// A connection as this node knows it.
#[derive(Debug, Clone)]
pub struct Link {
    /// Its peer.
    pub peer: MemberId,
    /// How it goes.
    pub path: Path,
    /// Its control stream.
    pub control: Option<StreamId>,
    /// Round trip in microseconds, smoothed.
    pub rtt_micros: Option<u64>,
    outbound: bool,
    member: bool,
    since: Mono,
    until: Option<Mono>,
    instance: Option<(u64, u64)>,
    /// Another start of the same member carries its traffic: until when this one may still be asked whether it
    /// lives.
    lingers: Option<Mono>,
    heard: Mono,
    beaten: Mono,
    closing: bool,
    finished: bool,
}

#[derive(Debug, Default)]
struct Peer {
    addrs: BTreeMap<Addr, Source>,
    failures: u32,
    next_dial: Option<Mono>,
    dialling: Option<Mono>,
    active: Option<ConnId>,
    last_error: Option<String>,
    /// Since when it is away that had been here.
    gone: Option<Mono>,
    /// When an admission with it was last done.
    finished: Option<Mono>,
    /// It belongs to another session: looked for no more, unless it is known as a member.
    foreign: bool,
}

/// The connections of a node.
#[derive(Debug)]
pub struct Connections {
    me: MemberId,
    lan_only: bool,
    networks: Vec<Network>,
    peers: BTreeMap<MemberId, Peer>,
    links: BTreeMap<ConnId, Link>,
    wanted: BTreeSet<MemberId>,
    first: BTreeSet<MemberId>,
    anybody: bool,
    /// Dials after a failure, in the last minute.
    redials: VecDeque<Mono>,
}

/// A dial that neither led to a connection nor failed is given up after so long.
const DIAL_GIVEN_UP: std::time::Duration = ms(10_000);

impl Connections {
    /// No connections yet. With `lan_only`, public addresses are never dialled.
    pub fn new(me: MemberId, lan_only: bool) -> Self {
        Self {
            me,
            lan_only,
            networks: Vec::new(),
            peers: BTreeMap::new(),
            links: BTreeMap::new(),
            wanted: BTreeSet::new(),
            first: BTreeSet::new(),
            anybody: false,
            redials: VecDeque::new(),
        }
    }

    /// Takes a fact and tells what follows.
    pub fn handle(
        &mut self,
        input: LinkInput<'_>,
        now: Mono,
        entropy: &mut Entropy,
        out: &mut Vec<LinkOutput>,
    ) {
        match input {
            LinkInput::Connected {
                conn,
                peer,
                outbound,
                path,
                member,
            } => {
                self.connected(conn, peer, (outbound, path, member), now, out);
            }
            LinkInput::Disconnected { conn, ended } => self.disconnected(conn, ended, now, out),
            LinkInput::DialFailed { peer, reason } => self.failed(peer, reason, now, entropy),
            LinkInput::Discovered {
                peer,
                addrs,
                source,
            } => {
                self.discovered(peer, addrs, source, now);
            }
            LinkInput::ControlOpened { conn, stream } => self.control_opened(conn, stream, now),
            LinkInput::ControlRefused { conn } => self.control_refused(conn, out),
            LinkInput::Hello { conn, instance } => self.hello(conn, instance, now, out),
            LinkInput::Heard { conn } => self.heard(conn, now),
            LinkInput::Waits { conn, until } => self.waits(conn, until),
            LinkInput::Finished { conn, welcome } => self.finished(conn, welcome, out),
            LinkInput::Foreign { conn } => self.foreign(conn),
            LinkInput::RoundTrip { conn, micros } => self.round_trip(conn, micros),
            LinkInput::Networks(networks) => self.networks_changed(networks, now),
            LinkInput::AddressExpired => self.address_expired(now, out),
            LinkInput::Wanted(wanted) => self.wanted_changed(wanted, now),
            LinkInput::First(first) => self.first = first,
            LinkInput::AnybodyWanted(anybody) => self.anybody = anybody,
            LinkInput::Tick => self.tick(now, out),
        }
        self.dial_due(now, out);
    }

    /// The connection that carries a peer's traffic.
    pub fn active(&self, peer: &MemberId) -> Option<(ConnId, &Link)> {
        let conn = self.peers.get(peer)?.active?;
        Some((conn, self.links.get(&conn)?))
    }

    /// The peers whose traffic is carried, with their connections.
    pub fn up(&self) -> impl Iterator<Item = (MemberId, ConnId, &Link)> {
        self.peers.iter().filter_map(|(peer, known)| {
            let conn = known.active?;
            Some((*peer, conn, self.links.get(&conn)?))
        })
    }

    /// A connection.
    pub fn link(&self, conn: ConnId) -> Option<&Link> {
        self.links.get(&conn)
    }

    /// The connection of a control stream.
    pub fn by_control(&self, stream: StreamId) -> Option<ConnId> {
        self.links
            .iter()
            .find(|(_, link)| link.control == Some(stream))
            .map(|(conn, _)| *conn)
    }

    /// Connections with a peer.
    pub fn with(&self, peer: &MemberId) -> Vec<ConnId> {
        self.links
            .iter()
            .filter(|(_, link)| link.peer == *peer)
            .map(|(conn, _)| *conn)
            .collect()
    }

    /// The networks of our interfaces.
    pub fn networks(&self) -> &[Network] {
        &self.networks
    }

    /// When something is due, if nothing else happens.
    pub fn deadline(&self) -> Option<Mono> {
        let links = self
            .links
            .values()
            .filter(|link| !link.closing)
            .map(Link::deadline);
        let dials = self.peers.iter().filter_map(|(peer, known)| {
            if known.dialling.is_some() {
                return known.dialling.map(|since| since + DIAL_GIVEN_UP);
            }
            let due = !known.addrs.is_empty() && self.lacks(peer, known);
            due.then_some(known.next_dial).flatten()
        });
        links.chain(dials).min()
    }

    /// What the program waits for, for the person.
    pub fn waits_for(&self, now: Mono) -> String {
        let dialling = self
            .peers
            .values()
            .filter(|peer| peer.dialling.is_some() && !peer.foreign)
            .count();
        if dialling > 0 {
            return format!("dialling {}", counted(dialling, "peer"));
        }
        let next = self
            .peers
            .iter()
            .filter(|(peer, known)| self.lacks(peer, known) && !known.addrs.is_empty())
            .filter_map(|(_, known)| Some((known.next_dial?, known.last_error.as_deref())))
            .min();
        match next {
            Some((at, Some(error))) => {
                format!("next try in {} s: {error}", at.since(now).as_secs() + 1)
            }
            Some((at, None)) => format!("next try in {} s", at.since(now).as_secs() + 1),
            None if self.wanted.is_empty() && !self.anybody => "nobody else is a member".to_owned(),
            None => "for a member to be found (LAN, this machine, or its address)".to_owned(),
        }
    }

    fn connected(
        &mut self,
        conn: ConnId,
        peer: MemberId,
        (outbound, path, member): (bool, Path, bool),
        now: Mono,
        out: &mut Vec<LinkOutput>,
    ) {
        let link = Link {
            peer,
            path,
            control: None,
            rtt_micros: None,
            outbound,
            member,
            since: now,
            until: None,
            instance: None,
            lingers: None,
            heard: now,
            beaten: now,
            closing: false,
            finished: false,
        };
        self.links.insert(conn, link);
        if outbound {
            self.peers.entry(peer).or_default().dialling = None;
        }
        match (outbound, member) {
            (true, true) => out.push(LinkOutput::Greet(conn)),
            (true, false) => out.push(LinkOutput::Prove { conn, peer }),
            (false, _) => {}
        }
    }

    fn disconnected(&mut self, conn: ConnId, ended: &Ended, now: Mono, out: &mut Vec<LinkOutput>) {
        let Some(link) = self.links.remove(&conn) else {
            return;
        };
        let others: Vec<ConnId> = self.with(&link.peer);
        let Some(peer) = self.peers.get_mut(&link.peer) else {
            return;
        };
        if let Ended::Failed(reason) = ended {
            peer.last_error = Some(reason.clone());
        }
        let again = peer.finished.is_some_and(|at| at + FINISHED_ONCE > now);
        if link.finished && !again {
            peer.finished = Some(now);
            peer.failures = 0;
            peer.next_dial = Some(now);
        } else if link.instance.is_none() && link.outbound {
            // Closed before hello: dial again only after a pause, lest two sides chase each other.
            peer.failures = peer.failures.saturating_add(1);
            peer.next_dial = Some(now + peer.pause(now));
        } else if others.is_empty() {
            peer.next_dial = Some(now + REDIAL_FIRST);
        }
        if peer.active == Some(conn) {
            peer.active = None;
            peer.gone = Some(now);
            match others.into_iter().find(|other| self.greeted(*other)) {
                Some(other) => self.activate(other, out),
                None => out.push(LinkOutput::Down { peer: link.peer }),
            }
        }
    }

    fn failed(&mut self, peer: MemberId, reason: &str, now: Mono, entropy: &mut Entropy) {
        let Some(peer) = self.peers.get_mut(&peer) else {
            return;
        };
        peer.dialling = None;
        peer.failures = peer.failures.saturating_add(1);
        peer.last_error = Some(reason.chars().take(200).collect());
        let pause = peer.pause(now);
        let spread = u32::try_from(pause.as_millis() / 4).unwrap_or(u32::MAX);
        peer.next_dial = Some(now + pause + ms(u64::from(entropy.below(spread))));
    }

    fn discovered(&mut self, peer: MemberId, addrs: &[Addr], source: Source, now: Mono) {
        if peer == self.me {
            return;
        }
        if !self.peers.contains_key(&peer) && !self.has_room_for_a_candidate() {
            return;
        }
        let allowed: Vec<Addr> = addrs
            .iter()
            .filter(|addr| self.may_dial(addr, source))
            .copied()
            .collect();
        let courtesy = if self.me < peer || self.anybody {
            ms(0)
        } else {
            DIAL_COURTESY
        };
        let known = self.peers.entry(peer).or_default();
        let mut news = false;
        for addr in allowed {
            news |= known.addrs.insert(addr, source).is_none();
        }
        while known.addrs.len() > ADDRS_PER_PEER_MAX {
            let worst = known
                .addrs
                .iter()
                .max_by_key(|(addr, source)| (**source, **addr));
            let Some(worst) = worst.map(|(addr, _)| *addr) else {
                break;
            };
            known.addrs.remove(&worst);
        }
        if news {
            known.failures = known.failures.min(1);
            let at = now + courtesy;
            known.next_dial = Some(known.next_dial.map_or(at, |stands| stands.min(at)));
        }
    }

    /// Whether one more peer may be remembered: who belongs to another session makes room.
    fn has_room_for_a_candidate(&mut self) -> bool {
        let most = CANDIDATES_MAX + self.wanted.len();
        if self.peers.len() >= most {
            let linked: BTreeSet<MemberId> = self.links.values().map(|link| link.peer).collect();
            let wanted = &self.wanted;
            self.peers
                .retain(|id, known| !known.foreign || wanted.contains(id) || linked.contains(id));
        }
        self.peers.len() < most
    }

    /// Whether an address may be dialled at the word of `source`: DESIGN §9.
    fn may_dial(&self, addr: &Addr, source: Source) -> bool {
        if addr.port == 0 {
            return false;
        }
        match addr.ip.reach() {
            Reach::Never => false,
            Reach::Public => !self.lan_only || self.on_link(addr),
            Reach::Loopback => matches!(source, Source::Folder | Source::Ticket | Source::Member),
            Reach::Private => match source {
                Source::Mdns | Source::Ticket | Source::Folder => true,
                Source::Member => self.on_link(addr),
            },
        }
    }

    fn on_link(&self, addr: &Addr) -> bool {
        self.networks.iter().any(|network| network.holds(&addr.ip))
    }

    fn control_opened(&mut self, conn: ConnId, stream: StreamId, now: Mono) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.control = Some(stream);
            link.heard = now;
        }
    }

    fn control_refused(&mut self, conn: ConnId, out: &mut Vec<LinkOutput>) {
        let Some(link) = self.links.get_mut(&conn) else {
            return;
        };
        link.member = false;
        out.push(LinkOutput::Prove {
            conn,
            peer: link.peer,
        });
    }

    fn hello(&mut self, conn: ConnId, instance: (u64, u64), now: Mono, out: &mut Vec<LinkOutput>) {
        let Some(link) = self.links.get_mut(&conn) else {
            return;
        };
        link.instance = Some(instance);
        link.heard = now;
        let peer = link.peer;
        let known = self.peers.entry(peer).or_default();
        known.failures = 0;
        known.last_error = None;
        known.next_dial = Some(now + REDIAL_FIRST);
        let best = self
            .with(&peer)
            .into_iter()
            .filter(|conn| self.greeted(*conn))
            .max_by_key(|conn| {
                self.links
                    .get(conn)
                    .map(|link| (link.instance, link.rank(self.me), *conn))
            });
        let Some(best) = best else { return };
        self.activate(best, out);
        for other in self.with(&peer) {
            if other == best || !self.loses(other, best) {
                continue;
            }
            if self.is_another_start(other, best) {
                self.linger(other, now);
            } else {
                self.close(other, out);
            }
        }
    }

    /// Whether two connections are with two starts of their member: the older one has died, or both run.
    fn is_another_start(&self, other: ConnId, best: ConnId) -> bool {
        let start = |conn| self.links.get(&conn).and_then(|link| link.instance);
        start(other)
            .zip(start(best))
            .is_some_and(|(other, best)| other != best)
    }

    fn linger(&mut self, conn: ConnId, now: Mono) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.lingers.get_or_insert(now + ANOTHER_LINGERS);
        }
    }

    /// Whether `other` is to be closed now that `best` is known: it has said hello (so both sides know both),
    /// or it belongs to an older instance, or has no member's lanes.
    fn loses(&self, other: ConnId, best: ConnId) -> bool {
        let (Some(other), Some(best)) = (self.links.get(&other), self.links.get(&best)) else {
            return false;
        };
        other.instance.is_some() || (!other.member && best.member && other.until.is_none())
    }

    fn activate(&mut self, conn: ConnId, out: &mut Vec<LinkOutput>) {
        let Some(link) = self.links.get_mut(&conn) else {
            return;
        };
        link.lingers = None;
        let peer = link.peer;
        let known = self.peers.entry(peer).or_default();
        known.gone = None;
        if known.active == Some(conn) {
            return;
        }
        let instead_of = known.active.replace(conn);
        out.push(LinkOutput::Up {
            conn,
            peer,
            instead_of,
        });
    }

    fn greeted(&self, conn: ConnId) -> bool {
        self.links
            .get(&conn)
            .is_some_and(|link| link.instance.is_some() && !link.closing)
    }

    fn heard(&mut self, conn: ConnId, now: Mono) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.heard = now;
        }
    }

    fn waits(&mut self, conn: ConnId, until: Mono) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.until = Some(until);
        }
    }

    fn finished(&mut self, conn: ConnId, welcome: bool, out: &mut Vec<LinkOutput>) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.finished = welcome;
        }
        self.close(conn, out);
    }

    fn foreign(&mut self, conn: ConnId) {
        let peer = self.links.get(&conn).map(|link| link.peer);
        if let Some(known) = peer.and_then(|peer| self.peers.get_mut(&peer)) {
            known.foreign = true;
        }
    }

    fn round_trip(&mut self, conn: ConnId, micros: u64) {
        if let Some(link) = self.links.get_mut(&conn) {
            let before = link.rtt_micros.unwrap_or(micros);
            link.rtt_micros = Some((before * 3 + micros) / 4);
        }
    }

    fn networks_changed(&mut self, networks: &[Network], now: Mono) {
        self.networks = networks.to_vec();
        for peer in self.peers.values_mut() {
            peer.next_dial = Some(now);
            peer.failures = 0;
        }
    }

    fn address_expired(&mut self, now: Mono, out: &mut Vec<LinkOutput>) {
        let lost: Vec<ConnId> = self
            .links
            .iter()
            .filter(|(_, link)| link.path != Path::Loopback)
            .map(|(conn, _)| *conn)
            .collect();
        for conn in lost {
            self.close(conn, out);
        }
        for peer in self.peers.values_mut() {
            peer.failures = 0;
            peer.next_dial = Some(now + REDIAL_FIRST);
        }
    }

    fn wanted_changed(&mut self, mut wanted: BTreeSet<MemberId>, now: Mono) {
        wanted.remove(&self.me);
        for peer in &wanted {
            let courtesy = if self.me < *peer {
                ms(0)
            } else {
                DIAL_COURTESY
            };
            let known = self.peers.entry(*peer).or_default();
            if !self.wanted.contains(peer) {
                known.next_dial = Some(now + courtesy);
            }
        }
        self.wanted = wanted;
    }

    fn tick(&mut self, now: Mono, out: &mut Vec<LinkOutput>) {
        let due: Vec<ConnId> = self
            .links
            .iter()
            .filter(|(_, link)| !link.closing && link.overdue() <= now)
            .map(|(conn, _)| *conn)
            .collect();
        for conn in due {
            self.close(conn, out);
        }
        for (conn, link) in &mut self.links {
            if link.instance.is_some() && !link.closing && link.beaten + HEARTBEAT <= now {
                link.beaten = now;
                out.push(LinkOutput::Beat(*conn));
            }
        }
        for peer in self.peers.values_mut() {
            if peer
                .dialling
                .is_some_and(|since| since + DIAL_GIVEN_UP <= now)
            {
                peer.dialling = None;
                peer.failures = peer.failures.saturating_add(1);
                peer.next_dial = Some(now + peer.pause(now));
            }
        }
    }

    /// Asks for the connection to be closed. If it carried its peer's traffic, another takes over or the peer
    /// is down from this moment, not only when the transport has noticed.
    fn close(&mut self, conn: ConnId, out: &mut Vec<LinkOutput>) {
        let Some(link) = self.links.get_mut(&conn) else {
            return;
        };
        if link.closing {
            return;
        }
        link.closing = true;
        let peer = link.peer;
        out.push(LinkOutput::Close(conn));
        let heir = self
            .with(&peer)
            .into_iter()
            .find(|other| self.greeted(*other));
        let Some(known) = self.peers.get_mut(&peer) else {
            return;
        };
        if known.active == Some(conn) {
            known.active = None;
            match heir {
                Some(heir) => self.activate(heir, out),
                None => out.push(LinkOutput::Down { peer }),
            }
        }
    }

    fn lacks(&self, id: &MemberId, known: &Peer) -> bool {
        let wanted = self.wanted.contains(id) || (self.anybody && !known.foreign);
        // A connection that is being closed still counts: a new one beside it would be judged with it.
        let connected = self.links.values().any(|link| link.peer == *id);
        wanted && known.dialling.is_none() && !connected
    }

    /// Dials whom it is time to dial: hosts first, then members, then those who failed least. Of dials that follow a failure
    /// there are [`DIALS_PER_MINUTE_MAX`] a minute, so that many absent members cost little.
    fn dial_due(&mut self, now: Mono, out: &mut Vec<LinkOutput>) {
        while self
            .redials
            .front()
            .is_some_and(|at| *at + ms(60_000) <= now)
        {
            self.redials.pop_front();
        }
        let mut due: Vec<((bool, bool), u32, MemberId)> = self
            .peers
            .iter()
            .filter(|(id, peer)| {
                peer.next_dial.is_some_and(|at| at <= now)
                    && !peer.addrs.is_empty()
                    && self.lacks(id, peer)
            })
            .map(|(id, peer)| {
                let later = (!self.first.contains(id), !self.wanted.contains(id));
                (later, peer.failures, *id)
            })
            .collect();
        due.sort_unstable();
        for (_, failures, id) in due {
            let Some(peer) = self.peers.get_mut(&id) else {
                continue;
            };
            if failures > 0 {
                if self.redials.len() >= DIALS_PER_MINUTE_MAX {
                    peer.next_dial = self.redials.front().map(|at| *at + ms(60_000));
                    continue;
                }
                self.redials.push_back(now);
            }
            peer.dialling = Some(now);
            let addrs = peer.addrs.keys().copied().collect();
            out.push(LinkOutput::Dial { peer: id, addrs });
        }
    }
}

impl Link {
    /// Whether the peer said hello here.
    pub fn greeted(&self) -> bool {
        self.instance.is_some()
    }

    /// Whether we dialled.
    pub fn outbound(&self) -> bool {
        self.outbound
    }

    /// Among several, a direct one beats a relayed one, and then the one that the smaller key dialled.
    fn rank(&self, me: MemberId) -> (bool, bool) {
        let dialled_by_smaller = self.outbound == (me < self.peer);
        (self.path != Path::Relayed, dialled_by_smaller)
    }

    fn overdue(&self) -> Mono {
        if self.instance.is_some() {
            let dead = self.heard + PEER_DEAD;
            return self.lingers.map_or(dead, |until| until.min(dead));
        }
        let proven = if self.member && self.outbound {
            HELLO
        } else {
            UNPROVEN
        };
        self.until.unwrap_or(self.since + proven)
    }

    fn deadline(&self) -> Mono {
        if self.instance.is_some() {
            self.overdue().min(self.beaten + HEARTBEAT)
        } else {
            self.overdue()
        }
    }
}

impl Peer {
    /// The pause after a failed dial. Who was here is found again within a quarter of the time that it was away; for
    /// whom nobody has met the pause is doubled each time. Both lie between [`REDIAL_FIRST`] and [`REDIAL_LONGEST`].
    fn pause(&self, now: Mono) -> std::time::Duration {
        let doubled = || 1u32.checked_shl(self.failures.saturating_sub(1).min(16));
        let pause = match self.gone {
            Some(gone) => now.since(gone) / REDIAL_SHARE,
            None => REDIAL_FIRST.saturating_mul(doubled().unwrap_or(1)),
        };
        pause.clamp(REDIAL_FIRST, REDIAL_LONGEST)
    }
}

fn counted(number: usize, noun: &str) -> String {
    if number == 1 {
        format!("1 {noun}")
    } else {
        format!("{number} {noun}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: MemberId = MemberId([5; 32]);
    const SMALLER: MemberId = MemberId([1; 32]);
    const GREATER: MemberId = MemberId([9; 32]);

    /// The pause of whom nobody has met, after so many failures.
    fn pause(failures: u32) -> std::time::Duration {
        let peer = Peer {
            failures,
            ..Peer::default()
        };
        peer.pause(Mono(0))
    }

    #[test]
    fn of_two_connections_both_sides_keep_the_one_that_the_smaller_key_dialled() {
        let (mut here, mut there) = (
            Connections::new(ME, false),
            Connections::new(GREATER, false),
        );

        // Connection 1 is dialled by ME, connection 2 by GREATER.
        let (mut out_here, mut out_there) = (Vec::new(), Vec::new());
        connect(&mut here, 1, GREATER, true, &mut out_here);
        connect(&mut there, 1, ME, false, &mut out_there);
        connect(&mut here, 2, GREATER, false, &mut out_here);
        connect(&mut there, 2, ME, true, &mut out_there);
        for conn in [2, 1] {
            say(&mut here, conn, 7, &mut out_here);
            say(&mut there, conn, 7, &mut out_there);
        }

        assert!(out_here.contains(&LinkOutput::Close(ConnId(2))));
        assert!(out_there.contains(&LinkOutput::Close(ConnId(2))));
        assert_eq!(here.active(&GREATER).map(|(conn, _)| conn), Some(ConnId(1)));
        assert_eq!(there.active(&ME).map(|(conn, _)| conn), Some(ConnId(1)));
    }

    #[test]
    fn a_higher_instance_replaces_the_stale_connection() {
        let mut here = Connections::new(ME, false);
        let mut out = Vec::new();
        connect(&mut here, 1, GREATER, true, &mut out);
        say(&mut here, 1, 7, &mut out);

        connect(&mut here, 2, GREATER, false, &mut out);
        say(&mut here, 2, 8, &mut out);
        assert_eq!(here.active(&GREATER).map(|(conn, _)| conn), Some(ConnId(2)));

        // Until then it may be asked whether it lives.
        let asked_until = Mono(0) + ANOTHER_LINGERS;
        for conn in [1, 2] {
            let (conn, now) = (ConnId(conn), Mono(2_000_000));
            handle(&mut here, LinkInput::Heard { conn }, now, &mut out);
        }
        handle(&mut here, LinkInput::Tick, asked_until - ms(1), &mut out);
        assert!(!out.contains(&LinkOutput::Close(ConnId(1))));
        handle(&mut here, LinkInput::Tick, asked_until, &mut out);

        assert!(out.contains(&LinkOutput::Close(ConnId(1))));
        assert_eq!(here.active(&GREATER).map(|(conn, _)| conn), Some(ConnId(2)));
    }

    #[test]
    fn of_two_live_starts_of_one_member_one_keeps_the_traffic_however_often_the_other_comes() {
        let mut here = Connections::new(ME, false);
        let mut out = Vec::new();
        connect(&mut here, 1, GREATER, false, &mut out);
        handle(&mut here, hello(1, (7, 9)), Mono(0), &mut out);
        out.clear();

        for conn in 2..20 {
            connect(&mut here, conn, GREATER, false, &mut out);
            handle(&mut here, hello(conn, (7, 8)), Mono(0), &mut out);
        }

        let moved = |output: &LinkOutput| matches!(output, LinkOutput::Up { .. });
        assert!(!out.iter().any(moved));
        assert_eq!(here.active(&GREATER).map(|(conn, _)| conn), Some(ConnId(1)));
    }

    #[test]
    fn a_silent_peer_is_down_after_three_seconds() {
        let mut here = Connections::new(ME, false);
        let mut out = Vec::new();
        connect(&mut here, 1, GREATER, true, &mut out);
        say(&mut here, 1, 7, &mut out);
        out.clear();

        handle(&mut here, LinkInput::Tick, Mono(2_900_000), &mut out);
        assert_eq!(out, [LinkOutput::Beat(ConnId(1))]);
        out.clear();
        handle(&mut here, LinkInput::Tick, Mono(3_000_000), &mut out);

        assert!(out.contains(&LinkOutput::Close(ConnId(1))));
        assert!(out.contains(&LinkOutput::Down { peer: GREATER }));
    }

    #[test]
    fn an_unproven_connection_is_closed_after_five_seconds() {
        let mut here = Connections::new(ME, false);
        let mut out = Vec::new();
        let stranger = LinkInput::Connected {
            conn: ConnId(1),
            peer: GREATER,
            outbound: false,
            path: Path::Lan,
            member: false,
        };
        handle(&mut here, stranger, Mono(0), &mut out);

        handle(&mut here, LinkInput::Tick, Mono(4_999_999), &mut out);
        assert!(out.is_empty());
        handle(&mut here, LinkInput::Tick, Mono(5_000_000), &mut out);

        assert_eq!(out, [LinkOutput::Close(ConnId(1))]);
    }

    #[test]
    fn a_members_connection_without_hello_is_closed_and_dialled_anew() {
        let mut here = Connections::new(ME, false);
        let mut out = Vec::new();
        want(&mut here, [GREATER], Mono(0), &mut out);
        discover(&mut here, "/ip4/10.0.0.1/tcp/1", Source::Ticket, &mut out);
        connect(&mut here, 1, GREATER, true, &mut out);
        assert!(out.contains(&LinkOutput::Greet(ConnId(1))));
        out.clear();

        let late = Mono(0) + HELLO;
        handle(&mut here, LinkInput::Tick, Mono(late.0 - 1), &mut out);
        assert!(out.is_empty(), "{out:?}");
        handle(&mut here, LinkInput::Tick, late, &mut out);
        assert_eq!(out, [LinkOutput::Close(ConnId(1))]);
        out.clear();
        end(&mut here, 1, late, &mut out);
        assert!(here.deadline() >= Some(late + REDIAL_FIRST));
        handle(&mut here, LinkInput::Tick, late + REDIAL_FIRST, &mut out);

        assert_eq!(dials(&out), 1);
    }

    #[test]
    fn a_connection_that_was_lost_is_dialled_anew_by_either_side_after_a_moment() {
        for other in [SMALLER, GREATER] {
            let mut here = Connections::new(ME, false);
            let mut out = Vec::new();
            want(&mut here, [other], Mono(0), &mut out);
            let addrs = &["/ip4/10.0.0.1/tcp/1".parse().unwrap()];
            let found = LinkInput::Discovered {
                peer: other,
                addrs,
                source: Source::Ticket,
            };
            handle(&mut here, found, Mono(0), &mut out);
            connect(&mut here, 1, other, ME < other, &mut out);
            say(&mut here, 1, 7, &mut out);
            out.clear();

            let lost = Mono(2_000_000);
            end(&mut here, 1, lost, &mut out);
            assert_eq!(out, [LinkOutput::Down { peer: other }]);
            handle(&mut here, LinkInput::Tick, lost + REDIAL_FIRST, &mut out);

            assert_eq!(dials(&out), 1);
        }
    }

    #[test]
    fn who_belongs_to_another_session_is_dialled_no_more_and_makes_room_for_others() {
        let mut here = Connections::new(ME, false);
        let mut out = Vec::new();
        handle(&mut here, LinkInput::AnybodyWanted(true), Mono(0), &mut out);
        let candidate = |number: usize| {
            let mut id = [7; 32];
            id[0] = u8::try_from(number).unwrap();
            MemberId(id)
        };
        for number in 0..CANDIDATES_MAX {
            find(&mut here, candidate(number), &mut out);
        }
        assert_eq!(dials(&out), CANDIDATES_MAX);
        out.clear();
        find(&mut here, candidate(200), &mut out);
        assert_eq!(dials(&out), 0, "there is no room");

        connect(&mut here, 1, candidate(3), true, &mut out);
        let conn = ConnId(1);
        handle(&mut here, LinkInput::Foreign { conn }, Mono(1), &mut out);
        let ended = &Ended::Finished;
        handle(
            &mut here,
            LinkInput::Disconnected { conn, ended },
            Mono(2),
            &mut out,
        );
        out.clear();
        handle(&mut here, LinkInput::Tick, Mono(10_000_000), &mut out);
        let again = |out: &[LinkOutput]| {
            out.iter()
                .any(|one| matches!(one, LinkOutput::Dial { peer, .. } if *peer == candidate(3)))
        };
        assert!(!again(&out));
        want(&mut here, [candidate(3)], Mono(20_000_000), &mut out);
        handle(&mut here, LinkInput::Tick, Mono(100_000_000), &mut out);
        assert!(again(&out), "a member is dialled whatever it said");

        want(&mut here, [], Mono(100_000_001), &mut out);
        out.clear();
        find(&mut here, candidate(201), &mut out);
        assert_eq!(dials(&out), 1);
    }

    #[test]
    fn failed_dials_pause_longer_each_time() {
        let mut here = Connections::new(ME, false);
        let mut out = Vec::new();
        want(&mut here, [GREATER], Mono(0), &mut out);
        discover(&mut here, "/ip4/10.0.0.1/tcp/1", Source::Ticket, &mut out);
        assert_eq!(dials(&out), 1);

        for failures in 1..6 {
            let failed = LinkInput::DialFailed {
                peer: GREATER,
                reason: "refused",
            };
            handle(&mut here, failed, Mono(0), &mut out);
            let next = here.deadline().unwrap();
            assert!(next >= Mono(0) + pause(failures), "{failures}");
            out.clear();
            handle(&mut here, LinkInput::Tick, next, &mut out);
            assert_eq!(dials(&out), 1);
        }
    }

    #[test]
    fn the_dial_filter_follows_the_source_of_an_address() {
        for (addr, source, expected) in [
            ("/ip4/169.254.169.254/tcp/80", Source::Ticket, 0),
            ("/ip4/224.0.0.1/tcp/80", Source::Mdns, 0),
            ("/ip4/0.0.0.0/tcp/80", Source::Ticket, 0),
            ("/ip4/127.0.0.1/tcp/80", Source::Mdns, 0),
            ("/ip4/127.0.0.1/tcp/80", Source::Ticket, 1),
            ("/ip4/192.168.7.7/tcp/80", Source::Member, 0),
            ("/ip4/10.77.0.9/tcp/80", Source::Member, 1),
            ("/ip4/192.168.7.7/tcp/80", Source::Mdns, 1),
            ("/ip4/8.8.8.8/udp/80/quic-v1", Source::Member, 1),
            ("/ip4/10.77.0.9/tcp/0", Source::Ticket, 0),
        ] {
            let mut here = Connections::new(ME, false);
            let mut out = Vec::new();
            let network = Network {
                ip: crate::engine::address::Ip::V4([10, 77, 0, 1]),
                prefix: 24,
            };
            handle(
                &mut here,
                LinkInput::Networks(&[network]),
                Mono(0),
                &mut out,
            );
            want(&mut here, [GREATER], Mono(0), &mut out);
            discover(&mut here, addr, source, &mut out);
            handle(
                &mut here,
                LinkInput::Tick,
                Mono(0) + DIAL_COURTESY,
                &mut out,
            );

            assert_eq!(dials(&out), expected, "{addr} {source:?}");
        }
    }

    #[test]
    fn no_more_than_thirty_dials_a_minute_follow_failures() {
        let mut here = Connections::new(ME, false);
        let mut out = Vec::new();
        handle(&mut here, LinkInput::AnybodyWanted(true), Mono(0), &mut out);
        for number in 10..60 {
            let peer = MemberId([number; 32]);
            let addr: Addr = format!("/ip4/10.0.0.{number}/tcp/1").parse().unwrap();
            let found = LinkInput::Discovered {
                peer,
                addrs: &[addr],
                source: Source::Mdns,
            };
            handle(&mut here, found, Mono(0), &mut out);
            handle(
                &mut here,
                LinkInput::DialFailed {
                    peer,
                    reason: "refused",
                },
                Mono(0),
                &mut out,
            );
        }
        assert_eq!(dials(&out), 50);
        out.clear();

        handle(&mut here, LinkInput::Tick, Mono(1_000_000), &mut out);
        assert_eq!(dials(&out), DIALS_PER_MINUTE_MAX);
        handle(&mut here, LinkInput::Tick, Mono(61_000_000), &mut out);
        assert_eq!(dials(&out), 50);
    }

    #[test]
    fn who_was_away_is_found_again_within_a_quarter_of_that_time() {
        let mut here = Connections::new(ME, false);
        let mut out = Vec::new();
        let other = SMALLER;
        want(&mut here, [other], Mono(0), &mut out);
        let addr: Addr = "/ip4/10.0.0.9/tcp/1".parse().unwrap();
        let found = LinkInput::Discovered {
            peer: other,
            addrs: &[addr],
            source: Source::Ticket,
        };
        handle(&mut here, found, Mono(0), &mut out);
        connect(&mut here, 1, other, true, &mut out);
        say(&mut here, 1, 7, &mut out);
        let lost = Mono(2_000_000);
        end(&mut here, 1, lost, &mut out);
        out.clear();

        let (mut now, mut asked) = (lost, Vec::new());
        while now < lost + ms(60_000) {
            now = here.deadline().expect("a dial is due").max(now);
            handle(&mut here, LinkInput::Tick, now, &mut out);
            if std::mem::take(&mut out).len() == 1 {
                asked.push(now.since(lost));
                let failed = LinkInput::DialFailed {
                    peer: other,
                    reason: "refused",
                };
                handle(&mut here, failed, now, &mut out);
            }
        }

        assert!(asked.len() <= DIALS_PER_MINUTE_MAX, "{asked:?}");
        for pair in asked.windows(2) {
            // A quarter, and a quarter of that as the spread.
            let longest = REDIAL_FIRST.max(pair[0] / 4) * 5 / 4;
            assert!(pair[1] - pair[0] <= longest, "{asked:?}");
        }
    }

    #[test]
    fn a_terminals_host_is_dialled_before_others_who_failed_less() {
        let mut here = Connections::new(ME, false);
        let mut out = Vec::new();
        want(&mut here, [SMALLER, GREATER], Mono(0), &mut out);
        handle(
            &mut here,
            LinkInput::First([GREATER].into()),
            Mono(0),
            &mut out,
        );
        let addr: Addr = "/ip4/10.0.0.1/tcp/1".parse().unwrap();
        for peer in [SMALLER, GREATER] {
            let found = LinkInput::Discovered {
                peer,
                addrs: &[addr],
                source: Source::Ticket,
            };
            handle(&mut here, found, Mono(0), &mut out);
        }
        for _ in 0..3 {
            let failed = LinkInput::DialFailed {
                peer: GREATER,
                reason: "refused",
            };
            handle(&mut here, failed, Mono(0), &mut out);
        }
        out.clear();

        handle(&mut here, LinkInput::Tick, Mono(30_000_000), &mut out);

        let order: Vec<MemberId> = out
            .iter()
            .filter_map(|output| {
                let LinkOutput::Dial { peer, .. } = output else {
                    return None;
                };
                Some(*peer)
            })
            .collect();
        assert_eq!(order, [GREATER, SMALLER]);
    }

    #[test]
    fn the_greater_key_leaves_the_first_dial_to_the_other() {
        let mut here = Connections::new(ME, false);
        let mut out = Vec::new();
        want(&mut here, [SMALLER], Mono(0), &mut out);
        let addr: Addr = "/ip4/10.0.0.1/tcp/1".parse().unwrap();
        let found = LinkInput::Discovered {
            peer: SMALLER,
            addrs: &[addr],
            source: Source::Mdns,
        };
        handle(&mut here, found, Mono(0), &mut out);
        assert_eq!(dials(&out), 0);

        handle(
            &mut here,
            LinkInput::Tick,
            Mono(0) + DIAL_COURTESY,
            &mut out,
        );

        assert_eq!(dials(&out), 1);
    }

    #[test]
    fn who_finishes_one_admission_after_the_other_is_dialled_ever_more_rarely() {
        let mut here = Connections::new(ME, false);
        let mut out = Vec::new();
        want(&mut here, [GREATER], Mono(0), &mut out);
        discover(&mut here, "/ip4/10.0.0.1/tcp/1", Source::Ticket, &mut out);

        // As a member would, the peer ends each admission well, and then shows no member's lanes again.
        let (mut now, mut dialled) = (Mono(0), Vec::new());
        while now < Mono(9_000_000) && dialled.len() < 100 {
            assert_eq!(dials(&out), 1);
            out.clear();
            dialled.push(now);
            let conn = ConnId(dialled.len() as u64);
            let connected = LinkInput::Connected {
                conn,
                peer: GREATER,
                outbound: true,
                path: Path::Lan,
                member: false,
            };
            handle(&mut here, connected, now, &mut out);
            let welcome = true;
            handle(
                &mut here,
                LinkInput::Finished { conn, welcome },
                now,
                &mut out,
            );
            let ended = &Ended::Finished;
            out.clear();
            handle(
                &mut here,
                LinkInput::Disconnected { conn, ended },
                now,
                &mut out,
            );
            if dials(&out) == 0 {
                now = here.deadline().unwrap();
                handle(&mut here, LinkInput::Tick, now, &mut out);
            }
        }

        let again: Vec<Mono> = vec![
            Mono(0),
            Mono(0),
            Mono(0) + pause(1),
            Mono(0) + pause(1) + pause(2),
        ];
        assert_eq!(dialled[..4], again, "only the first is followed at once");
        assert!(dialled.len() <= 8, "{dialled:?}");
    }

    #[test]
    fn an_expired_address_drops_every_connection_but_loopback() {
        let mut here = Connections::new(ME, false);
        let mut out = Vec::new();
        connect(&mut here, 1, GREATER, true, &mut out);
        say(&mut here, 1, 7, &mut out);

        let loopback = LinkInput::Connected {
            conn: ConnId(2),
            peer: SMALLER,
            outbound: true,
            path: Path::Loopback,
            member: true,
        };
        handle(&mut here, loopback, Mono(0), &mut out);
        say(&mut here, 2, 7, &mut out);
        want(&mut here, [GREATER], Mono(0), &mut out);
        discover(&mut here, "/ip4/10.0.0.1/tcp/1", Source::Ticket, &mut out);

        handle(&mut here, LinkInput::AddressExpired, Mono(0), &mut out);

        assert!(out.contains(&LinkOutput::Close(ConnId(1))));
        assert!(!out.contains(&LinkOutput::Close(ConnId(2))));
        assert!(out.contains(&LinkOutput::Down { peer: GREATER }));
        end(&mut here, 1, Mono(0), &mut out);
        handle(&mut here, LinkInput::Tick, Mono(0) + REDIAL_FIRST, &mut out);
        assert_eq!(dials(&out), 1, "it is dialled from the new address at once");
    }

    fn connect(
        to: &mut Connections,
        conn: u64,
        peer: MemberId,
        outbound: bool,
        out: &mut Vec<LinkOutput>,
    ) {
        let input = LinkInput::Connected {
            conn: ConnId(conn),
            peer,
            outbound,
            path: Path::Lan,
            member: true,
        };
        handle(to, input, Mono(0), out);
    }

    fn end(to: &mut Connections, conn: u64, now: Mono, out: &mut Vec<LinkOutput>) {
        let (conn, ended) = (ConnId(conn), &Ended::Failed("lost".to_owned()));
        handle(to, LinkInput::Disconnected { conn, ended }, now, out);
    }

    fn want<const N: usize>(
        to: &mut Connections,
        peers: [MemberId; N],
        now: Mono,
        out: &mut Vec<LinkOutput>,
    ) {
        handle(to, LinkInput::Wanted(peers.into()), now, out);
    }

    fn say(to: &mut Connections, conn: u64, number: u64, out: &mut Vec<LinkOutput>) {
        handle(to, hello(conn, (number, number)), Mono(0), out);
    }

    fn hello(conn: u64, instance: (u64, u64)) -> LinkInput<'static> {
        let conn = ConnId(conn);
        LinkInput::Hello { conn, instance }
    }

    fn find(to: &mut Connections, peer: MemberId, out: &mut Vec<LinkOutput>) {
        let addrs = &["/ip4/10.0.0.1/tcp/1".parse().unwrap()];
        let source = Source::Ticket;
        let found = LinkInput::Discovered {
            peer,
            addrs,
            source,
        };
        handle(to, found, Mono(0), out);
    }

    fn discover(to: &mut Connections, addr: &str, source: Source, out: &mut Vec<LinkOutput>) {
        let addr: Addr = addr.parse().unwrap();
        let input = LinkInput::Discovered {
            peer: GREATER,
            addrs: &[addr],
            source,
        };
        handle(to, input, Mono(0), out);
    }

    fn handle(to: &mut Connections, input: LinkInput<'_>, now: Mono, out: &mut Vec<LinkOutput>) {
        to.handle(input, now, &mut Entropy::new([0; 32]), out);
    }

    fn dials(out: &[LinkOutput]) -> usize {
        out.iter()
            .filter(|output| matches!(output, LinkOutput::Dial { .. }))
            .count()
    }
}
