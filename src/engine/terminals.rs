//! The terminals of a session as this node has them: those that run here, those that it watches, and the
//! children that it serves with either.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::engine::capability::{Action, Rank};
use crate::engine::connections::Connections;
use crate::engine::context::Context;
use crate::engine::control::Members;
use crate::engine::documents::{Running, ScreenMark};
use crate::engine::effect::NetEffect;
use crate::engine::event::{ConnId, StreamId};
use crate::engine::hosted::Hosted;
use crate::engine::ids::{MemberId, TerminalId};
use crate::engine::queues::EngineGauges;
use crate::engine::replica::Replica;
use crate::engine::terminal::frame::{Frame, ScreenStamp, ScreenUpdate};
use crate::engine::terminal::redaction::Redacted;
use crate::engine::terminal::screen::Screen;
use crate::engine::terminal::tree::{Serve, Server, ToChild, ToParent, Version};
use crate::engine::timers::{Timer, Timers};
use crate::engine::viewed::Viewed;
use crate::engine::{Engine, Phase, Use};

/// The terminals that this node runs or watches.
#[derive(Default)]
pub(in crate::engine) struct Terminals {
    pub(in crate::engine) hosted: BTreeMap<TerminalId, Hosted>,
    pub(in crate::engine) viewed: BTreeMap<TerminalId, Viewed>,
    /// The newest that a connected peer said about control of a terminal that nobody has announced yet: what it
    /// says once must not be lost because its announcement takes another way.
    pub(in crate::engine) early: BTreeMap<(MemberId, TerminalId), Vec<u8>>,
    pub(in crate::engine) changed: bool,
}

/// A picture under its host's signature, as it is passed on.
#[derive(Debug, Clone, Default)]
pub(in crate::engine) struct Pictures {
    /// The newest.
    pub(in crate::engine) newest: Option<Redacted<Screen>>,
    /// The one before it, for differences of single cells.
    pub(in crate::engine) previous: Option<Redacted<Screen>>,
    /// The host's word for the newest.
    pub(in crate::engine) word: Option<(ScreenStamp, [u8; 64])>,
}

/// Who may what about control, for the lease's rules.
pub(in crate::engine) struct Rights<'a> {
    pub(in crate::engine) replica: &'a Replica,
    /// Who is a member now, and no longer than its time.
    pub(in crate::engine) present: &'a BTreeSet<MemberId>,
    pub(in crate::engine) links: &'a Connections,
}

impl Rights<'_> {
    fn may(&self, who: &MemberId, action: &Action) -> bool {
        self.present.contains(who) && self.replica.membership().may(who, action)
    }
}

impl Members for Rights<'_> {
    fn may_watch(&self, who: &MemberId) -> bool {
        self.may(who, &Action::RequestControl)
    }

    fn may_edit(&self, who: &MemberId) -> bool {
        self.may(who, &Action::TakeFreeControl)
    }

    fn may_control(&self, who: &MemberId) -> bool {
        self.may(who, &Action::OrderControl)
    }

    fn is_owner(&self, who: &MemberId) -> bool {
        self.replica
            .standing(who)
            .is_some_and(|standing| standing.rank == Rank::OWNER)
    }

    fn is_connected(&self, who: &MemberId) -> bool {
        self.links.active(who).is_some()
    }
}

/// The version that a screen has.
pub(in crate::engine) fn version_of(screen: &Screen) -> Version {
    Version {
        epoch: screen.epoch,
        number: screen.version,
    }
}

impl Pictures {
    /// The newest version.
    pub(in crate::engine) fn version(&self) -> Option<Version> {
        self.newest.as_deref().map(version_of)
    }

    /// The update that leads a child from `base` to the newest version.
    fn update(&self, base: Option<Version>) -> Option<ScreenUpdate> {
        let newest = self.newest.as_ref()?;
        let (stamp, signature) = self.word?;
        let previous = self
            .previous
            .as_ref()
            .filter(|screen| Some(version_of(screen)) == base);
        let frame = match previous {
            Some(previous) => Frame::step(previous, newest)?,
            None => Frame::between(base.map(|base| (base.epoch, base.number)), newest)?,
        };
        Some(ScreenUpdate {
            stamp,
            signature,
            frame: frame.encode(),
        })
    }
}

impl Terminals {
    /// Tells how full the queues of the terminals are; of several the fullest counts.
    pub(in crate::engine) fn gauge(&self, gauges: &EngineGauges) {
        let (mut lease, mut person, mut given, mut typed, mut unacked) = (0, 0, 0, 0, 0);
        for hosted in self.hosted.values() {
            lease = hosted.lease.lease_bytes().max(lease);
            person = hosted.lease.person_bytes().max(person);
            given = hosted.lease.given_bytes().max(given);
            unacked = hosted.server.most_under_way().max(unacked);
        }
        for viewed in self.viewed.values() {
            typed = viewed.sender.buffered().max(typed);
            unacked = viewed.server.most_under_way().max(unacked);
        }
        gauges.lease_input.set(lease);
        gauges.person_input.set(person);
        gauges.given.set(given);
        gauges.typed.set(typed);
        gauges.unacked.set(unacked);
    }

    pub(in crate::engine) fn screens_if_changed(
        &mut self,
    ) -> Option<BTreeMap<TerminalId, Arc<Redacted<Screen>>>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let hosted = self
            .hosted
            .iter()
            .map(|(id, hosted)| (id, &hosted.pictures));
        let viewed = self
            .viewed
            .iter()
            .map(|(id, viewed)| (id, &viewed.pictures));
        let all = hosted.chain(viewed);
        Some(
            all.filter_map(|(id, pictures)| Some((*id, Arc::new(pictures.newest.clone()?))))
                .collect(),
        )
    }

    /// The newest versions of the screens that run here.
    pub(in crate::engine) fn marks(&self) -> BTreeMap<TerminalId, ScreenMark> {
        let mark = |(id, hosted): (&TerminalId, &Hosted)| {
            let version = hosted.pictures.version()?;
            let mark = ScreenMark {
                epoch: u64::from(version.epoch),
                version: version.number,
            };
            Some((*id, mark))
        };
        self.hosted.iter().filter_map(mark).collect()
    }

    pub(in crate::engine) fn arm(&self, timers: &mut Timers) {
        for (id, hosted) in &self.hosted {
            timers.arm(Timer::Frame(*id), hosted.frame_at);
            timers.arm(Timer::Emulator(*id), hosted.emulator.deadline());
            timers.arm(Timer::Lease(*id), hosted.lease.deadline().map(|(at, _)| at));
        }
        for (id, viewed) in &self.viewed {
            timers.arm(
                Timer::Attach(*id),
                viewed.viewer.deadline().filter(|_| viewed.open),
            );
            timers.arm(
                Timer::Lease(*id),
                viewed.sender.deadline().map(|(at, _)| at),
            );
        }
    }

    fn server(&mut self, terminal: &TerminalId) -> Option<(&mut Server, &Pictures)> {
        if let Some(hosted) = self.hosted.get_mut(terminal) {
            return Some((&mut hosted.server, &hosted.pictures));
        }
        let viewed = self.viewed.get_mut(terminal)?;
        Some((&mut viewed.server, &viewed.pictures))
    }
}

impl Engine {
    /// A peer is connected: terminals that it hosts can be watched, or typed into.
    pub(in crate::engine) fn terminals_up(&mut self, peer: MemberId, context: &mut Context<'_>) {
        self.watch_terminals(context);
        self.tell_control(peer, context);
        self.senders_up(peer, context);
        self.check_pictures(context);
    }

    /// A peer is gone.
    pub(in crate::engine) fn terminals_down(&mut self, peer: MemberId, context: &mut Context<'_>) {
        self.senders_down(peer, context);
        self.holder_down(peer, context);
        self.forget_early(peer);
    }

    /// Members' documents may name terminals that are not watched yet, or that are over. Only who may host
    /// terminals is believed, and of two who claim one terminal the more senior.
    pub(in crate::engine) fn watch_terminals(&mut self, context: &mut Context<'_>) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let me = member.me();
        let (mut open, mut closed) = (Vec::new(), Vec::new());
        for (host, id, terminal) in member.announced_terminals() {
            if host == me {
                continue;
            }
            match terminal.state {
                Running::Open => open.push((id, host)),
                Running::Closed { .. } => closed.push((id, host)),
            }
        }
        for (id, host) in open {
            let Phase::Member(member) = &mut self.phase else {
                return;
            };
            let watched = member.terminals.viewed.get(&id);
            if watched.is_some_and(|viewed| viewed.host == host) {
                continue;
            }
            let place = member.place(id, host);
            member.terminals.viewed.insert(id, Viewed::new(place, me));
            if self.links.active(&host).is_some() {
                self.sender_up(id, context);
            }
            self.heard_early(id, host, context);
            self.check_picture(id, context);
        }
        for (id, host) in closed {
            self.viewed_closed(id, host, context);
        }
        self.tell_members(context);
    }

    /// A child said something on its screen stream.
    pub(in crate::engine) fn child_said(
        &mut self,
        stream: StreamId,
        (conn, peer, asked): (ConnId, MemberId, Option<TerminalId>),
        bytes: &[u8],
        context: &mut Context<'_>,
    ) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let Some(message) = decode::<ToParent>(bytes) else {
            context.live(NetEffect::CloseStream { stream });
            return;
        };
        let may_watch = member.replica.membership().may(&peer, &Action::ReadSession);
        match (message, asked) {
            (
                ToParent::Attach {
                    terminal,
                    have,
                    failed,
                },
                None,
            ) if may_watch => {
                self.streams
                    .insert(stream, (conn, Use::Child(peer, Some(terminal))));
                let Some((server, pictures)) = member.terminals.server(&terminal) else {
                    say(stream, &ToChild::NotHere, context);
                    return;
                };
                if pictures.newest.is_none() {
                    say(stream, &ToChild::NotHere, context);
                    return;
                }
                let mut out = Vec::new();
                server.attach(stream, peer, have, failed, &mut out);
                self.serve(terminal, out, context);
                self.serve_due(terminal, context);
            }
            (ToParent::Ack(version), Some(terminal)) => {
                if let Some((server, _)) = member.terminals.server(&terminal) {
                    server.acknowledged(stream, version);
                }
                self.serve_due(terminal, context);
            }
            (ToParent::Attach { .. } | ToParent::Ack(_), _) => {
                context.live(NetEffect::CloseStream { stream });
            }
        }
    }

    /// A child's stream takes more.
    pub(in crate::engine) fn child_ready(
        &mut self,
        stream: StreamId,
        terminal: TerminalId,
        context: &mut Context<'_>,
    ) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        if let Some((server, _)) = member.terminals.server(&terminal) {
            server.ready(stream);
        }
        self.serve_due(terminal, context);
    }

    /// A child's stream is gone.
    pub(in crate::engine) fn child_gone(&mut self, stream: StreamId, terminal: Option<TerminalId>) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        if let Some((server, _)) = terminal.and_then(|id| member.terminals.server(&id)) {
            server.closed(stream);
        }
    }

    /// Sends every child that can take it what is newer than it has.
    pub(in crate::engine) fn serve_due(&mut self, terminal: TerminalId, context: &mut Context<'_>) {
        self.sign_newest(terminal);
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let Some((server, pictures)) = member.terminals.server(&terminal) else {
            return;
        };
        let Some(newest) = pictures.version() else {
            return;
        };
        let due = server.due(newest);
        self.serve(terminal, due, context);
    }

    fn serve(&mut self, terminal: TerminalId, serves: Vec<Serve>, context: &mut Context<'_>) {
        let path = self.path_to(terminal);
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let Some((server, pictures)) = member.terminals.server(&terminal) else {
            return;
        };
        // Children with the same base get the same bytes, which are made once.
        let mut made: BTreeMap<Option<Version>, Vec<u8>> = BTreeMap::new();
        for serve in serves {
            match serve {
                Serve::Serving(stream) => {
                    say(stream, &ToChild::Serving { path: path.clone() }, context);
                }
                Serve::Refer(stream, others) => {
                    say(stream, &ToChild::Refer(others), context);
                    context.live(NetEffect::CloseStream { stream });
                    self.streams.remove(&stream);
                }
                Serve::Difference { stream, base } => {
                    let make = |update: ScreenUpdate| encode(&ToChild::Update(update.encode()));
                    let known = made.get(&base).cloned();
                    let update = known.or_else(|| pictures.update(base).map(make));
                    if let (Some(bytes), Some(newest)) = (update, pictures.version()) {
                        made.entry(base).or_insert_with(|| bytes.clone());
                        server.sent(stream, newest, bytes.len());
                        context.send_live(stream, bytes);
                    }
                }
            }
        }
    }

    /// From the host of a terminal to this node.
    fn path_to(&self, terminal: TerminalId) -> Vec<MemberId> {
        let Phase::Member(member) = &self.phase else {
            return Vec::new();
        };
        match member.terminals.viewed.get(&terminal) {
            Some(viewed) => {
                let mut path = viewed.path.clone();
                path.push(member.me());
                path
            }
            None => vec![member.me()],
        }
    }
}

/// A message on a screen stream.
pub(in crate::engine) fn say(stream: StreamId, message: &ToChild, context: &mut Context<'_>) {
    context.send_live(stream, encode(message));
}

/// Encodes a message of the screen lane.
pub(in crate::engine) fn encode<T: serde::Serialize>(message: &T) -> Vec<u8> {
    postcard::to_stdvec(message).unwrap_or_default()
}

/// Reads a message of the screen lane: canonical, or none.
pub(in crate::engine) fn decode<T>(bytes: &[u8]) -> Option<T>
where
    T: serde::Serialize + serde::de::DeserializeOwned,
{
    let message = postcard::from_bytes(bytes).ok()?;
    (encode(&message) == bytes).then_some(message)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::capability::Role;
    use crate::engine::stage::Stage;
    use crate::engine::view::What;

    const OWNER: usize = 0;

    /// A member writes into its own document that it has a terminal, whatever its role; it may be over already.
    fn claim(stage: &mut Stage, who: usize, terminal: TerminalId, open: bool) {
        stage.act(who, |engine, context| {
            let member = engine.member_mut().unwrap();
            let announced = member.announce(context, |documents, writer, now| {
                documents.announce_terminal(writer, now, terminal, "claimed", (40, 6))
            });
            announced.unwrap();
            if !open {
                let closed = member.announce(context, |documents, writer, now| {
                    documents.close_terminal(writer, now, terminal, None)
                });
                closed.unwrap();
            }
        });
        stage.run(Duration::from_secs(2));
    }

    /// Whether a member's own document, as another node has it, names this terminal.
    fn is_in_document(stage: &mut Stage, at: usize, of: usize, terminal: TerminalId) -> bool {
        let of = stage.id(of);
        let state = stage.member(at).replica.documents().member(&of).unwrap();
        state.terminals.contains_key(&terminal)
    }

    /// What a node shows: each terminal with its host.
    fn shown(stage: &mut Stage, at: usize) -> Vec<(TerminalId, MemberId)> {
        let view = stage.view(at);
        let shown = view.terminals.iter();
        shown.map(|terminal| (terminal.id, terminal.host)).collect()
    }

    /// From whom a node fetches a terminal's pictures and to whom it would send keys.
    fn watched_at(stage: &mut Stage, at: usize, terminal: TerminalId) -> Option<MemberId> {
        let viewed = stage.member(at).terminals.viewed.get(&terminal)?;
        Some(viewed.host)
    }

    fn opened(events: &[What]) -> usize {
        let opened = |event: &&What| matches!(event, What::TerminalOpened { .. });
        events.iter().filter(opened).count()
    }

    #[test]
    fn a_terminal_of_somebody_who_may_host_none_is_not_believed() {
        let mut stage = Stage::with(&[Role::Viewer]);
        let terminal = TerminalId([1; 16]);
        drop(stage.take_events(OWNER));

        claim(&mut stage, 1, terminal, true);

        assert!(is_in_document(&mut stage, OWNER, 1, terminal));
        assert_eq!(shown(&mut stage, OWNER), []);
        assert_eq!(watched_at(&mut stage, OWNER, terminal), None);
        assert_eq!(opened(&stage.take_events(OWNER)), 0);
    }

    #[test]
    fn who_claims_a_seniors_terminal_gets_neither_its_viewers_nor_its_end() {
        let mut stage = Stage::with(&[Role::Viewer, Role::Editor]);
        let (watcher, thief) = (1, 2);
        let terminal = stage.open_terminal(OWNER);
        stage.run(Duration::from_secs(2));
        let owner = stage.id(OWNER);
        assert_eq!(watched_at(&mut stage, watcher, terminal), Some(owner));
        drop(stage.take_events(watcher));

        claim(&mut stage, thief, terminal, true);
        assert!(is_in_document(&mut stage, watcher, thief, terminal));
        for node in [OWNER, watcher] {
            assert_eq!(shown(&mut stage, node), [(terminal, owner)]);
        }
        assert_eq!(watched_at(&mut stage, watcher, terminal), Some(owner));
        stage.act(thief, |engine, context| {
            let member = engine.member_mut().unwrap();
            let closed = member.announce(context, |documents, writer, now| {
                documents.close_terminal(writer, now, terminal, None)
            });
            closed.unwrap();
        });
        stage.run(Duration::from_secs(2));

        assert!(stage.member(watcher).terminals.viewed[&terminal].open);
        assert!(stage.view(watcher).terminals[0].open);
        let events = stage.take_events(watcher);
        let closed = |event: &What| matches!(event, What::TerminalClosed { .. });
        assert_eq!((opened(&events), events.iter().any(closed)), (0, false));
    }

    #[test]
    fn who_claims_the_terminal_of_an_equal_does_not_get_it_whatever_its_key() {
        let mut stage = Stage::with(&[Role::Viewer, Role::Editor, Role::Editor]);
        let watcher = 1;
        let (host, thief) = if stage.id(2) < stage.id(3) {
            (3, 2)
        } else {
            (2, 3)
        };
        let terminal = stage.open_terminal(host);
        stage.run(Duration::from_secs(2));

        claim(&mut stage, thief, terminal, true);

        assert!(is_in_document(&mut stage, watcher, thief, terminal));
        let honest = stage.id(host);
        for node in [OWNER, watcher, host] {
            assert_eq!(shown(&mut stage, node), [(terminal, honest)]);
        }
        assert_eq!(watched_at(&mut stage, watcher, terminal), Some(honest));
        assert_eq!(watched_at(&mut stage, host, terminal), None);
    }

    #[test]
    fn the_end_of_a_terminal_counts_only_if_the_host_that_is_watched_says_so() {
        let mut stage = Stage::with(&[Role::Viewer, Role::Editor]);
        let (watcher, host) = (1, 2);
        let terminal = stage.open_terminal(host);
        stage.run(Duration::from_secs(2));

        // Beginning and end of the claim come together: there is no moment at which the senior has the terminal.
        stage.cut(OWNER, watcher);
        stage.cut(OWNER, host);
        claim(&mut stage, OWNER, terminal, false);

        assert!(is_in_document(&mut stage, watcher, OWNER, terminal));
        let viewed = &stage.member(watcher).terminals.viewed[&terminal];
        assert!(viewed.open, "the shell still runs at its host");
    }
}
