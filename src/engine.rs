//! The session as a pure state machine: facts and wishes in, records and effects out.
//!
//! [`Engine::handle`] is all there is to drive. It reads no clock, draws no randomness, owns no thread, opens
//! no file and no socket; the product drives it with tokio and libp2p (`node`), the simulated world with a
//! virtual clock and seeded faults (`sim`).

pub mod address;
pub mod admission;
pub mod allowance;
pub mod capability;
pub mod command;
pub mod connections;
pub mod control;
pub mod documents;
pub mod effect;
pub mod entropy;
pub mod envelope;
pub mod epoch;
pub mod error;
pub mod event;
pub mod identity;
pub mod ids;
pub mod limits;
pub mod log;
pub mod membership;
pub mod message;
pub mod persist;
pub mod presence;
pub mod queues;
pub mod replica;
pub mod statement;
pub mod sync;
pub mod terminal;
pub mod ticket;
pub mod time;
pub mod timers;
pub mod view;

#[cfg(test)]
mod bad_bytes;
mod bounded;
mod commands;
mod compression;
mod context;
mod hosted;
mod joining;
mod member;
mod own;
mod peers;
mod picture;
#[cfg(test)]
pub(crate) mod stage;
mod terminals;
mod viewed;
mod words;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::engine::command::CommandError;
use crate::engine::connections::{Connections, LinkInput, LinkOutput};
use crate::engine::context::Context;
use crate::engine::effect::{Effect, Outcome, StopReason};
use crate::engine::entropy::Entropy;
use crate::engine::error::Code;
use crate::engine::event::{ConnId, Ended, Event, Lane, NetEvent, StreamId};
use crate::engine::ids::{MemberId, TerminalId};
use crate::engine::joining::Joining;
use crate::engine::member::Member;
use crate::engine::queues::SharedGauges;
use crate::engine::replica::{LoadError, Records};
use crate::engine::terminal::emulator::Emulator;
use crate::engine::terminal::redaction::Redacted;
use crate::engine::terminal::screen::Screen;
use crate::engine::ticket::Ticket;
use crate::engine::time::{Mono, Now};
use crate::engine::timers::{Timer, Timers};
use crate::engine::view::View;

pub use crate::engine::member::{Bugs, NewSession};

/// Makes an emulator with so many columns and rows.
pub type EmulatorFactory = Arc<dyn Fn(u16, u16) -> Box<dyn Emulator> + Send + Sync>;

/// What an engine is given besides its session.
#[derive(Clone)]
pub struct Setup {
    /// Makes emulators for terminals that run here.
    pub emulators: EmulatorFactory,
    /// The secret of this user's run folder: who knows it shares our loopback addresses.
    pub machine: [u8; 32],
    /// Never dial beyond the networks of our interfaces.
    pub lan_only: bool,
    /// Rules broken on purpose; the product never sets any.
    pub bugs: Bugs,
}

/// How one joins.
#[derive(Debug)]
pub struct JoinWith {
    /// The invitation.
    pub ticket: Ticket,
    /// The name to be known by.
    pub name: String,
    /// Addresses to try besides the ticket's.
    pub addrs: Vec<address::Addr>,
    /// How long to look for somebody who proves the session.
    pub timeout: std::time::Duration,
}

/// What a stream is used for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) enum Use {
    /// Hello, heartbeats, catch-up.
    Control,
    /// Admission, as dialler or listener.
    Admission,
    /// Keys: opened by who types.
    Input(MemberId),
    /// A screen stream that a child opened: its member and, once asked, the terminal.
    Child(MemberId, Option<TerminalId>),
    /// A screen stream that we opened to a parent.
    Parent(TerminalId, MemberId),
}

/// Where a node stands.
enum Phase {
    Joining(Box<Joining>),
    Member(Box<Member>),
    Over,
}

/// A session on one node.
pub struct Engine {
    setup: Setup,
    me: MemberId,
    phase: Phase,
    links: Connections,
    streams: BTreeMap<StreamId, (ConnId, Use)>,
    opened: u64,
    timers: Timers,
    listen: Vec<address::Addr>,
    changed: bool,
    version: u64,
    gauges: SharedGauges,
}

impl Engine {
    /// Begins a session that this node owns.
    ///
    /// # Errors
    /// The name or title breaks a bound.
    pub fn create(
        setup: Setup,
        new: NewSession,
        now: Now,
        mut entropy: Entropy,
    ) -> Result<(Self, Outcome), CommandError> {
        let mut context = Context::new(now, &mut entropy);
        let member = Member::create(&setup, new, &mut context)?;
        Ok(Self::begin(setup, Phase::Member(Box::new(member)), context))
    }

    /// Begins to join a session.
    pub fn join(setup: Setup, with: JoinWith, now: Now, mut entropy: Entropy) -> (Self, Outcome) {
        let context = Context::new(now, &mut entropy);
        Self::join_in(setup, with, context)
    }

    fn join_in(setup: Setup, with: JoinWith, context: Context<'_>) -> (Self, Outcome) {
        let joining = Joining::new(with, context.now, context.entropy);
        Self::begin(setup, Phase::Joining(Box::new(joining)), context)
    }

    /// Goes on with a membership that is kept in these records. The session's terminal is opened anew at a host.
    ///
    /// # Errors
    /// What makes the member is missing or damaged.
    pub fn resume(
        setup: Setup,
        records: &Records,
        now: Now,
        mut entropy: Entropy,
    ) -> Result<(Self, Outcome), LoadError> {
        let mut context = Context::new(now, &mut entropy);
        let member = Member::load(&setup, records, &mut context)?;
        Ok(Self::begin(setup, Phase::Member(Box::new(member)), context))
    }

    fn begin(setup: Setup, phase: Phase, mut context: Context<'_>) -> (Self, Outcome) {
        let me = match &phase {
            Phase::Joining(joining) => joining.me(),
            Phase::Member(member) => member.me(),
            Phase::Over => MemberId([0; 32]),
        };
        let mut engine = Self {
            links: Connections::new(me, setup.lan_only),
            setup,
            me,
            phase,
            streams: BTreeMap::new(),
            opened: 0,
            timers: Timers::default(),
            listen: Vec::new(),
            changed: true,
            version: 0,
            gauges: SharedGauges::default(),
        };
        engine.start(&mut context);
        engine.settle(&mut context);
        (engine, context.out)
    }

    /// Takes a fact or a wish.
    ///
    /// # Contract: handle → persist → perform
    /// Whoever drives commits [`Outcome::persist`] before it performs [`Outcome::effects`], and keeps the order
    /// of effects across outcomes; [`Outcome::live`] is performed at once. If a commit fails, nothing is told of
    /// what its effects would tell and [`Event::CommitFailed`] is handled at once. From then on outcomes want
    /// nothing kept that their effects depend on: what they want kept is added to what waits, or dropped where
    /// nothing more can be saved, and their effects are performed. Once everything that waits is on disk,
    /// [`Event::CommittedAgain`] is handled. `entropy` was never used before; `now.mono` never goes back.
    pub fn handle(&mut self, event: Event, now: Now, entropy: &mut Entropy) -> Outcome {
        let mut context = Context::new(now, entropy);
        match event {
            Event::Tick => {}
            Event::Command { request, command } => self.command(request, command, &mut context),
            Event::Net(event) => self.net(event, &mut context),
            Event::Pty { terminal, event } => self.pty(terminal, event, &mut context),
            Event::CommitFailed { error } => self.commit_failed(error, &mut context),
            Event::CommittedAgain => self.committed_again(&mut context),
        }
        self.tick(&mut context);
        self.settle(&mut context);
        context.out
    }

    /// When to handle [`Event::Tick`] at the latest.
    pub fn deadline(&self) -> Option<Mono> {
        self.timers.next().map(|(at, _)| at)
    }

    /// The same with the name of the deadline, for traces.
    pub fn next_timer(&self) -> Option<(Mono, Timer)> {
        self.timers.next()
    }

    /// This member's key.
    pub fn me(&self) -> MemberId {
        self.me
    }

    /// The seed of this member's key, which is also its identity on the network.
    pub fn network_secret(&self) -> [u8; 32] {
        match &self.phase {
            Phase::Member(member) => member.replica.key().to_bytes(),
            Phase::Joining(joining) => joining.key().to_bytes(),
            Phase::Over => [0; 32],
        }
    }

    /// What this node holds of its session, once it is a member.
    pub fn replica(&self) -> Option<&replica::Replica> {
        match &self.phase {
            Phase::Member(member) => Some(&member.replica),
            Phase::Joining(_) | Phase::Over => None,
        }
    }

    /// How full this engine's bounded queues are; kept up to date by each event.
    pub fn gauges(&self) -> SharedGauges {
        Arc::clone(&self.gauges)
    }

    /// A new view if anything has changed since the last.
    pub fn view_if_changed(&mut self, now: Now) -> Option<View> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        self.version += 1;
        Some(self.view(now))
    }

    /// The newest pictures of all terminals if one has changed since the last call.
    pub fn screens_if_changed(&mut self) -> Option<BTreeMap<TerminalId, Arc<Redacted<Screen>>>> {
        match &mut self.phase {
            Phase::Member(member) => member.terminals.screens_if_changed(),
            Phase::Joining(_) | Phase::Over => None,
        }
    }

    fn start(&mut self, context: &mut Context<'_>) {
        match self.phase {
            Phase::Joining(_) => self.start_joining(context),
            Phase::Member(_) => self.start_member(context),
            Phase::Over => {}
        }
    }

    fn net(&mut self, event: NetEvent, context: &mut Context<'_>) {
        match event {
            NetEvent::Listening(addrs) => {
                self.listen = addrs;
                self.changed = true;
                self.listening(context);
            }
            NetEvent::Networks(networks) => {
                self.link(LinkInput::Networks(&networks), context);
                self.consider_addresses(context);
            }
            NetEvent::AddressExpired => self.link(LinkInput::AddressExpired, context),
            NetEvent::Discovered {
                peer,
                addrs,
                source,
            } => {
                let addrs = &addrs;
                let found = LinkInput::Discovered {
                    peer,
                    addrs,
                    source,
                };
                self.link(found, context);
            }
            NetEvent::Connected {
                conn,
                peer,
                outbound,
                path,
                member,
            } => {
                let connected = LinkInput::Connected {
                    conn,
                    peer,
                    outbound,
                    path,
                    member,
                };
                self.link(connected, context);
            }
            NetEvent::Disconnected { conn, ended } => {
                self.drop_streams(conn, context);
                let ended = &ended;
                self.link(LinkInput::Disconnected { conn, ended }, context);
            }
            NetEvent::DialFailed { peer, reason } => {
                let reason = &reason;
                self.link(LinkInput::DialFailed { peer, reason }, context);
            }
            NetEvent::StreamOpened { conn, stream, lane } => {
                self.stream_opened(conn, stream, lane, context);
            }
            NetEvent::StreamReceived { stream, message } => {
                self.received(stream, message, context);
            }
            NetEvent::StreamReady { stream } => self.ready(stream, context),
            NetEvent::StreamClosed { stream, ended } => {
                self.stream_closed(stream, &ended, context);
            }
            NetEvent::Gossip {
                id,
                from,
                topic,
                data,
            } => {
                let verdict = self.gossip(from, topic, &data, context);
                context.net(effect::NetEffect::Judge { id, verdict });
            }
        }
    }

    /// Gives a fact to the connections and does what they ask.
    fn link(&mut self, input: LinkInput<'_>, context: &mut Context<'_>) {
        tracing::trace!(?input, "connections");
        let mut outputs = Vec::new();
        self.links
            .handle(input, context.now.mono, context.entropy, &mut outputs);
        for output in outputs {
            self.linked(output, context);
        }
    }

    fn linked(&mut self, output: LinkOutput, context: &mut Context<'_>) {
        tracing::debug!(?output, "connections");
        match output {
            LinkOutput::Dial { peer, addrs } => {
                context.net(effect::NetEffect::Dial { peer, addrs });
                self.changed = true;
            }
            LinkOutput::Close(conn) => context.net(effect::NetEffect::Close { conn }),
            LinkOutput::Greet(conn) => self.greet(conn, context),
            LinkOutput::Prove { conn, peer } => self.prove(conn, peer, context),
            LinkOutput::Beat(conn) => self.beat(conn, context),
            LinkOutput::Up {
                conn,
                peer,
                instead_of,
            } => {
                self.up(conn, peer, instead_of, context);
            }
            LinkOutput::Down { peer } => self.down(peer, context),
        }
    }

    /// Opens a stream; its number is even.
    fn open(&mut self, conn: ConnId, lane: Lane, used: Use, context: &mut Context<'_>) -> StreamId {
        self.opened += 2;
        let stream = StreamId(self.opened);
        self.streams.insert(stream, (conn, used));
        context.on_lane(lane, effect::NetEffect::OpenStream { conn, stream, lane });
        stream
    }

    /// A connection is gone, and all its streams with it.
    fn drop_streams(&mut self, conn: ConnId, context: &mut Context<'_>) {
        let on_it = |(_, (on, _)): &(&StreamId, &(ConnId, Use))| *on == conn;
        let gone: Vec<StreamId> = self
            .streams
            .iter()
            .filter(on_it)
            .map(|(stream, _)| *stream)
            .collect();
        for stream in gone {
            let ended = Ended::Failed("the connection was lost".to_owned());
            self.stream_closed(stream, &ended, context);
        }
        if let Some(member) = self.member_mut() {
            member.forget_connection(conn);
        }
    }

    fn tick(&mut self, context: &mut Context<'_>) {
        // Each timer is taken once per call, so one that arms itself for now cannot hold the engine.
        let mut due = Vec::new();
        while let Some(timer) = self.timers.pop_due(context.now.mono) {
            due.push(timer);
        }
        for timer in due {
            self.due(timer, context);
        }
    }

    fn due(&mut self, timer: Timer, context: &mut Context<'_>) {
        match timer {
            Timer::Heartbeat | Timer::Dial | Timer::Proof => {
                self.link(LinkInput::Tick, context);
            }
            Timer::Admission => self.admission_due(context),
            Timer::Presence => self.presence_due(context),
            Timer::PresenceEnds => self.changed = true,
            Timer::MembershipEnds => self.membership_changed(context),
            Timer::Own => self.own_due(context),
            Timer::Compare | Timer::Fetch => self.sync_due(context),
            Timer::Judge => self.judge(context),
            Timer::Frame(terminal) => self.frame_due(terminal, context),
            Timer::Emulator(terminal) => self.emulator_due(terminal, context),
            Timer::Attach(terminal) => self.attach_due(terminal, context),
            Timer::Lease(terminal) => self.lease_due(terminal, context),
            Timer::Request => self.requests_due(context),
            Timer::Stop => self.stop_due(context),
        }
    }

    /// Arms the deadlines that follow from the present state.
    fn settle(&mut self, context: &mut Context<'_>) {
        while !context.news.is_empty() {
            let news = std::mem::take(&mut context.news);
            self.hear_news(news, context);
        }
        self.timers.arm(Timer::Heartbeat, self.links.deadline());
        match &mut self.phase {
            Phase::Joining(joining) => {
                self.timers.arm(Timer::Admission, joining.deadline());
            }
            Phase::Member(member) => {
                let connected = self.links.up().next().is_some();
                member.arm(&mut self.timers, connected, context.now);
                member.gauge(&self.gauges);
            }
            Phase::Over => {}
        }
        self.changed |= context.changed;
        context.changed = false;
    }

    fn stop(&mut self, reason: StopReason, context: &mut Context<'_>) {
        context.out.effects.push(Effect::Stop(reason));
        self.phase = Phase::Over;
        self.timers = Timers::default();
        self.changed = true;
    }

    fn commit_failed(&mut self, error: CommandError, context: &mut Context<'_>) {
        match &mut self.phase {
            Phase::Member(member) => {
                let until = if error.code == Code::DiskFull {
                    "until there is room"
                } else {
                    "until the next start"
                };
                let text = format!(
                    "{error}: nothing is saved, said or heard {until}; the terminal goes on"
                );
                member.replica.freeze(error);
                member.notice(text, context);
            }
            Phase::Joining(_) => self.stop(StopReason::JoinFailed(error), context),
            Phase::Over => {}
        }
    }

    /// Peers are told what there is here and asked for what was not taken meanwhile.
    fn committed_again(&mut self, context: &mut Context<'_>) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        member.replica.thaw();
        member.notice("everything is saved again".to_owned(), context);
        self.own_log_again(context);
        self.announce_again(context);
        self.compare_with_all(context);
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let phase = match self.phase {
            Phase::Joining(_) => "joining",
            Phase::Member(_) => "member",
            Phase::Over => "over",
        };
        write!(f, "Engine({} {phase})", self.me.short())
    }
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Setup(lan_only: {})", self.lan_only)
    }
}
