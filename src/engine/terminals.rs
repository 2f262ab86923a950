//! The terminals of a session as this node has them: those that run here, those that it watches, and the
//! children that it serves with either.

use std::collections::BTreeMap;
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
    pub(in crate::engine) links: &'a Connections,
}

impl Members for Rights<'_> {
    fn may_watch(&self, who: &MemberId) -> bool {
        self.replica.membership().may(who, &Action::RequestControl)
    }

    fn may_edit(&self, who: &MemberId) -> bool {
        self.replica.membership().may(who, &Action::TakeFreeControl)
    }

    fn may_control(&self, who: &MemberId) -> bool {
        self.replica.membership().may(who, &Action::OrderControl)
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
