//! The world itself: nodes with engines, disks and shells, and one step after the other.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::Adversary;
use super::agenda::{Agenda, Dice, Occurrence, Process};
use super::disk::{Committed, Disk};
use super::network::{Links, Network, Now as NetNow};
use super::shell::Shell;
use super::trace::Trace;
use crate::engine::command::{Command, CommandError, Reply};
use crate::engine::control::Origin;
use crate::engine::effect::{Effect, Outcome, PtyEffect, StopReason};
use crate::engine::entropy::Entropy;
use crate::engine::event::{Event, ExitStatus, PtyEvent, RequestId};
use crate::engine::ids::{MemberId, TerminalId};
use crate::engine::terminal::redaction::Redacted;
use crate::engine::terminal::screen::Screen;
use crate::engine::ticket::Ticket;
use crate::engine::time::{Mono, Now, Wall};
use crate::engine::view::{View, What};
use crate::engine::{Bugs, Engine, JoinWith, NewSession, Setup};
use crate::pty::echo::Glass;

const MILLI: u64 = 1000;
/// The virtual day on which each world begins, in milliseconds since 1970.
const BEGINNING: u64 = 1_800_000_000_000;
/// An engine that is woken so often without time passing is stuck.
const WAKES_PER_MOMENT_MAX: u32 = 10_000;

/// What a world is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WorldConfig {
    /// Everything random follows from it.
    pub seed: u64,
    /// How links are at first.
    pub links: Links,
    /// Longest time that a commit takes, in milliseconds.
    pub commit_ms: u64,
    /// How far clocks are from the truth at most, in milliseconds, either way.
    pub skew_ms: u64,
    /// What the adversary does.
    pub adversary: Adversary,
    /// Whether nodes that reach each other find each other without being told addresses.
    pub mdns: bool,
    /// Whether to keep the text of the trace.
    pub trace: bool,
}

/// A node of the world, from 0 in the order of their making.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId(pub usize);

/// Bytes that an engine gave to a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Which terminal.
    pub terminal: TerminalId,
    /// By whose right.
    pub origin: Origin,
    /// What.
    pub bytes: Vec<u8>,
}

/// Something that checkers may look at.
#[derive(Debug, Clone)]
pub enum Fact {
    /// An engine handled an event, and these came of it at once: events for faces, and bytes for terminals.
    Handled {
        /// Which node.
        node: NodeId,
        /// Events, in order.
        events: Vec<What>,
        /// Bytes, in order.
        writes: Vec<Write>,
    },
    /// A command was answered.
    Replied {
        /// Which node.
        node: NodeId,
        /// Which command.
        request: RequestId,
        /// The answer.
        result: Result<Reply, CommandError>,
    },
    /// A shell took input.
    Took {
        /// Which node.
        node: NodeId,
        /// Which terminal.
        terminal: TerminalId,
        /// Bytes with their origins.
        bytes: Vec<(u8, Origin)>,
    },
    /// A node published an entry or a presence by gossip, after everything that it depends on was on disk.
    Published {
        /// Which node.
        node: NodeId,
        /// The message.
        data: Vec<u8>,
    },
    /// A node began, for the first time or again.
    Started {
        /// Which node.
        node: NodeId,
        /// Its member.
        member: MemberId,
    },
    /// A node died.
    Crashed {
        /// Which node.
        node: NodeId,
    },
    /// A node ended by itself.
    Stopped {
        /// Which node.
        node: NodeId,
        /// Why.
        reason: StopReason,
    },
}

/// A simulated world.
#[derive(Debug)]
pub struct World {
    config: WorldConfig,
    now: u64,
    dice: Dice,
    agenda: Agenda,
    network: Network,
    nodes: Vec<Node>,
    trace: Trace,
    facts: VecDeque<Fact>,
    wakes: (u64, u32),
    fault: Option<String>,
}

#[derive(Debug)]
struct Node {
    /// Milliseconds that its wall clock is ahead; behind if negative.
    skew_ms: i64,
    setup: Setup,
    life: u64,
    started: u64,
    /// How long the node has slept since it started: time that passed for it alone.
    slept: u64,
    engine: Option<Engine>,
    view: Option<View>,
    screens: BTreeMap<TerminalId, Arc<Redacted<Screen>>>,
    disk: Disk,
    shells: BTreeMap<TerminalId, Shell>,
    stuck: bool,
    wake: Option<u64>,
    requests: u64,
    /// How it joins, for another try.
    invitation: Option<(String, String)>,
}

impl World {
    /// An empty world.
    pub fn new(config: WorldConfig) -> Self {
        let network = Network::new(config.links, config.adversary);
        let trace = Trace::new(config.trace);
        Self {
            config,
            now: MILLI,
            dice: Dice::new(config.seed),
            agenda: Agenda::default(),
            network,
            nodes: Vec::new(),
            trace,
            facts: VecDeque::new(),
            wakes: (0, 0),
            fault: None,
        }
    }

    /// Microseconds since the world began.
    pub fn now(&self) -> Duration {
        Duration::from_micros(self.now)
    }

    /// The hash over everything that has happened.
    pub fn trace(&self) -> [u8; 32] {
        self.trace.hash()
    }

    /// The text of the trace so far, if it is kept; taken out.
    pub fn take_lines(&mut self) -> Vec<String> {
        self.trace.take_lines()
    }

    /// What has happened since the last call, in order.
    pub fn take_facts(&mut self) -> Vec<Fact> {
        self.facts.drain(..).collect()
    }

    /// What went wrong with the world or a driver's contract, if something did.
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// A number below `bound`, from the world's seed, for whoever makes things happen here.
    pub fn draw(&mut self, bound: u64) -> u64 {
        self.dice.between(0, bound.saturating_sub(1))
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.nodes.len()).map(NodeId)
    }

    /// The engine of a node that runs.
    pub fn engine(&self, node: NodeId) -> Option<&Engine> {
        self.nodes.get(node.0)?.engine.as_ref()
    }

    /// The member that a running node is.
    pub fn member(&self, node: NodeId) -> Option<MemberId> {
        self.engine(node).map(Engine::me)
    }

    /// What a running node shows.
    pub fn view(&mut self, node: NodeId) -> Option<&View> {
        let now = self.time_at(node.0)?;
        let node = self.nodes.get_mut(node.0)?;
        if let Some(view) = node.engine.as_mut()?.view_if_changed(now) {
            node.view = Some(view);
        }
        node.view.as_ref()
    }

    /// The newest pictures of the terminals that a node knows.
    pub fn screens(&mut self, node: NodeId) -> BTreeMap<TerminalId, Arc<Redacted<Screen>>> {
        let Some(node) = self.nodes.get_mut(node.0) else {
            return BTreeMap::new();
        };
        if let Some(screens) = node.engine.as_mut().and_then(Engine::screens_if_changed) {
            node.screens = screens;
        }
        node.screens.clone()
    }

    /// Makes a node that begins a session.
    pub fn host(&mut self, session: NewSession, bugs: Bugs) -> NodeId {
        let id = self.add(bugs);
        let (setup, now, entropy) = self.birth(id);
        match Engine::create(setup, session, now, entropy) {
            Ok((engine, outcome)) => self.begin(id, engine, outcome),
            Err(error) => self.break_down(format!("a session could not begin: {error}")),
        }
        NodeId(id)
    }

    /// Makes a node that joins by a ticket.
    pub fn guest(&mut self, ticket: &str, name: &str, bugs: Bugs) -> NodeId {
        let id = self.add(bugs);
        if let Some(node) = self.nodes.get_mut(id) {
            node.invitation = Some((ticket.to_owned(), name.to_owned()));
        }
        self.join(id);
        NodeId(id)
    }

    /// Starts a node again that crashed or stopped. Who lost everything before it was let in joins anew.
    pub fn restart(&mut self, node: NodeId) {
        self.set_room(node);
        let Some(records) = self.nodes.get(node.0).map(|node| node.disk.records()) else {
            return;
        };
        let Ok(records) = records else {
            return self.break_down("a disk cannot be read".to_owned());
        };
        let (setup, now, entropy) = self.birth(node.0);
        match Engine::resume(setup, &records, now, entropy) {
            Ok((engine, outcome)) => self.begin(node.0, engine, outcome),
            Err(_)
                if self
                    .nodes
                    .get(node.0)
                    .is_some_and(|node| node.invitation.is_some()) =>
            {
                self.join(node.0);
            }
            Err(error) => self.break_down(format!("node {} cannot resume: {error}", node.0)),
        }
    }

    /// A node is not started on a full disk: somebody makes room first.
    fn set_room(&mut self, node: NodeId) {
        if let Some(node) = self.nodes.get_mut(node.0) {
            node.disk.set_full(false);
        }
    }

    /// Changes the rules that a node breaks, from its next start on.
    pub fn set_bugs(&mut self, node: NodeId, bugs: Bugs) {
        if let Some(node) = self.nodes.get_mut(node.0) {
            node.setup.bugs = bugs;
        }
    }

    /// Kills a node between any two instructions.
    pub fn crash(&mut self, node: NodeId) {
        let Some(process) = self.running(node.0) else {
            return;
        };
        self.trace
            .deed(self.now, &format!("node {} crashes", node.0));
        let silently = self.dice.percent(50);
        let mut at = NetNow {
            at: self.now,
            agenda: &mut self.agenda,
            dice: &mut self.dice,
        };
        self.network.end(process, silently, &mut at);
        if let Some(node) = self.nodes.get_mut(node.0) {
            node.disk.crash(&mut self.dice);
            node.end();
        }
        self.facts.push_back(Fact::Crashed { node });
    }

    /// Somebody copies a node's folder while it runs.
    pub fn copy_folder(&mut self, node: NodeId) {
        self.trace
            .deed(self.now, &format!("the folder of {} is copied", node.0));
        if let Some(node) = self.nodes.get_mut(node.0) {
            node.disk.copy();
        }
    }

    /// Whether a node's folder was copied and the copy not put back.
    pub fn has_copy(&self, node: NodeId) -> bool {
        let node = self.nodes.get(node.0);
        node.is_some_and(|node| node.disk.has_copy())
    }

    /// The copy is put back in place of a dead node's folder. Whether there is one.
    pub fn put_back(&mut self, node: NodeId) -> bool {
        let text = format!("the old folder of {} is put back", node.0);
        self.trace.deed(self.now, &text);
        let down = !self.runs(node);
        let node = self.nodes.get_mut(node.0).filter(|_| down);
        node.is_some_and(|node| node.disk.put_back())
    }

    /// Whether a node runs.
    pub fn runs(&self, node: NodeId) -> bool {
        self.running(node.0).is_some()
    }

    /// Lets nothing through between two sides, in both directions or only towards the second.
    pub fn part(&mut self, from: &[NodeId], to: &[NodeId], both_ways: bool) {
        self.trace.deed(
            self.now,
            &format!("{from:?} | {to:?}, both ways: {both_ways}"),
        );
        for a in from {
            for b in to {
                self.network.block(a.0, b.0);
                if both_ways {
                    self.network.block(b.0, a.0);
                }
            }
        }
    }

    /// Ends all partitions.
    pub fn heal(&mut self) {
        self.trace.deed(self.now, "healed");
        for (process, event) in self.network.heal() {
            self.handle(process, Event::Net(event));
        }
    }

    /// Cuts the connections between two nodes, which may connect again at once.
    pub fn cut(&mut self, a: NodeId, b: NodeId) {
        self.trace
            .deed(self.now, &format!("cut between {} and {}", a.0, b.0));
        let mut at = NetNow {
            at: self.now,
            agenda: &mut self.agenda,
            dice: &mut self.dice,
        };
        self.network.cut_between(a.0, b.0, &mut at);
    }

    /// How many connections stand between two nodes.
    pub fn connections(&self, a: NodeId, b: NodeId) -> usize {
        self.network.between(a.0, b.0)
    }

    /// Changes how links are from now on. Links without faults also carry gossip both ways again.
    pub fn set_links(&mut self, links: Links) {
        self.trace.deed(self.now, &format!("{links:?}"));
        self.network.links = links;
        if links.mute == 0 {
            self.network.unmute();
        }
    }

    /// The adversary changes its manners.
    pub fn set_adversary(&mut self, adversary: Adversary) {
        self.network.adversary = adversary;
    }

    /// Whether a node's shells take input.
    pub fn set_stuck(&mut self, node: NodeId, stuck: bool) {
        self.trace
            .deed(self.now, &format!("node {}: stuck: {stuck}", node.0));
        let Some(process) = self.running(node.0) else {
            return;
        };
        let Some(node) = self.nodes.get_mut(node.0) else {
            return;
        };
        node.stuck = stuck;
        for terminal in node.shells.keys() {
            self.agenda
                .put(self.now, Occurrence::PtyTakes(process, *terminal));
        }
    }

    /// Fills a node's disk, or makes room on it.
    pub fn set_full(&mut self, node: NodeId, full: bool) {
        self.trace
            .deed(self.now, &format!("node {}: full: {full}", node.0));
        if let Some(node) = self.nodes.get_mut(node.0) {
            node.disk.set_full(full);
        }
    }

    /// The next fsync of a node fails, so that nothing more is saved until its next start.
    pub fn fail_disk(&mut self, node: NodeId) {
        self.trace
            .deed(self.now, &format!("node {}: fsync fails", node.0));
        if let Some(node) = self.nodes.get_mut(node.0) {
            node.disk.fail(&mut self.dice);
        }
    }

    /// Sets a node's wall clock so many milliseconds ahead of the truth, or behind it.
    pub fn set_clock(&mut self, node: NodeId, ahead_ms: i64) {
        self.trace
            .deed(self.now, &format!("node {}: clock {ahead_ms}", node.0));
        if let Some(node) = self.nodes.get_mut(node.0) {
            node.skew_ms = ahead_ms;
        }
    }

    /// A node's machine wakes up: for its clocks so much time has passed, and none for the others.
    pub fn sleep(&mut self, node: NodeId, time: Duration) {
        self.trace
            .deed(self.now, &format!("node {} slept {time:?}", node.0));
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        if let Some(own) = self.nodes.get_mut(node.0) {
            own.slept = own.slept.saturating_add(micros);
        }
        if let Some(process) = self.running(node.0) {
            self.set_alarm(process);
        }
    }

    /// How many milliseconds a node's wall clock is ahead of the truth.
    pub fn clock(&self, node: NodeId) -> i64 {
        self.nodes.get(node.0).map_or(0, |node| node.skew_ms)
    }

    /// Gives a command to a node. Its answer comes as a [`Fact::Replied`].
    pub fn command(&mut self, node: NodeId, command: Command) -> Option<RequestId> {
        let process = self.running(node.0)?;
        let own = self.nodes.get_mut(node.0)?;
        own.requests += 1;
        let request = RequestId(own.requests);
        self.handle(process, Event::Command { request, command });
        Some(request)
    }

    /// Does what is next, if that is not after `until`; else time passes until then. Says which.
    pub fn step(&mut self, until: Duration) -> bool {
        let until = u64::try_from(until.as_micros()).unwrap_or(u64::MAX);
        if self.agenda.next().is_none_or(|next| next > until) || self.fault.is_some() {
            self.now = self.now.max(until);
            return false;
        }
        if let Some((at, occurrence)) = self.agenda.pop() {
            self.now = self.now.max(at);
            self.occur(occurrence);
        }
        true
    }
}

/// How things come about.
impl World {
    fn add(&mut self, bugs: Bugs) -> usize {
        let reach = self.config.skew_ms;
        let skew = i64::try_from(self.dice.between(0, 2 * reach)).unwrap_or(0);
        let setup = Setup {
            emulators: Arc::new(|cols, rows| Box::new(Glass::new(cols, rows))),
            machine: self.dice.seed(),
            lan_only: false,
            bugs,
        };
        self.nodes.push(Node {
            skew_ms: skew.saturating_sub_unsigned(reach),
            setup,
            life: 0,
            started: 0,
            slept: 0,
            engine: None,
            view: None,
            screens: BTreeMap::new(),
            disk: Disk::default(),
            shells: BTreeMap::new(),
            stuck: false,
            wake: None,
            requests: 0,
            invitation: None,
        });
        self.nodes.len() - 1
    }

    /// What a new process is born with.
    fn birth(&mut self, id: usize) -> (Setup, Now, Entropy) {
        let entropy = Entropy::new(self.dice.seed());
        let now = self.now;
        // Nodes are never removed, so the default is for form's sake.
        let setup = self.nodes.get_mut(id).map(|node| {
            node.life += 1;
            node.started = now;
            node.slept = 0;
            node.setup.clone()
        });
        let time = self.time_at(id).unwrap_or_default();
        let setup = setup.unwrap_or_else(|| Setup {
            emulators: Arc::new(|cols, rows| Box::new(Glass::new(cols, rows))),
            machine: [0; 32],
            lan_only: false,
            bugs: Bugs::default(),
        });
        (setup, time, entropy)
    }

    fn join(&mut self, id: usize) {
        let Some((ticket, name)) = self.nodes.get(id).and_then(|node| node.invitation.clone())
        else {
            return;
        };
        let Ok(ticket) = Ticket::parse(&ticket) else {
            return self.break_down("a ticket does not parse".to_owned());
        };
        let (setup, now, entropy) = self.birth(id);
        let with = JoinWith {
            ticket,
            name,
            addrs: Vec::new(),
            timeout: Duration::from_secs(60),
        };
        let (engine, outcome) = Engine::join(setup, with, now, entropy);
        self.begin(id, engine, outcome);
    }

    fn begin(&mut self, id: usize, engine: Engine, outcome: Outcome) {
        let member = engine.me();
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        node.engine = Some(engine);
        node.wake = None;
        node.view = None;
        let process = Process {
            node: id,
            life: node.life,
        };
        self.trace
            .deed(self.now, &format!("node {id} starts as {}", member.short()));
        self.facts.push_back(Fact::Started {
            node: NodeId(id),
            member,
        });
        let heard = self.network.begin(process, member);
        self.outcome(process, outcome);
        for event in heard {
            self.handle(process, Event::Net(event));
        }
        if self.config.mdns {
            let mut at = NetNow {
                at: self.now,
                agenda: &mut self.agenda,
                dice: &mut self.dice,
            };
            self.network.announce(process, &mut at);
        }
    }

    fn running(&self, id: usize) -> Option<Process> {
        let node = self.nodes.get(id)?;
        node.engine.as_ref().map(|_| Process {
            node: id,
            life: node.life,
        })
    }

    fn is_alive(&self, process: Process) -> bool {
        self.running(process.node) == Some(process)
    }

    fn time_at(&self, id: usize) -> Option<Now> {
        let node = self.nodes.get(id)?;
        let mono = Mono(self.now.saturating_sub(node.started) + node.slept);
        let wall = (BEGINNING + self.now / MILLI).saturating_add_signed(node.skew_ms);
        Some(Now {
            mono,
            wall: Wall(wall),
        })
    }

    fn occur(&mut self, occurrence: Occurrence) {
        match occurrence {
            Occurrence::Wake(process) => self.wake(process),
            Occurrence::Net(happening) => {
                let mut at = NetNow {
                    at: self.now,
                    agenda: &mut self.agenda,
                    dice: &mut self.dice,
                };
                for (process, event) in self.network.happen(happening, &mut at) {
                    self.handle(process, Event::Net(event));
                }
            }
            Occurrence::Committed(process) => self.committed(process),
            Occurrence::PtyTakes(process, terminal) => self.pty_takes(process, terminal),
            Occurrence::Pty(process, terminal, event) => {
                self.handle(process, Event::Pty { terminal, event });
            }
        }
    }

    fn wake(&mut self, process: Process) {
        if !self.is_alive(process) {
            return;
        }
        let due = self.due(process);
        if let Some(node) = self.nodes.get_mut(process.node) {
            node.wake = None;
        }
        match due {
            Some(due) if due <= self.now => {
                self.count_wakes();
                self.note_why(process);
                self.handle(process, Event::Tick);
            }
            Some(_) | None => self.set_alarm(process),
        }
    }

    /// The trace says which deadline woke an engine.
    fn note_why(&mut self, process: Process) {
        let engine = self
            .nodes
            .get(process.node)
            .and_then(|node| node.engine.as_ref());
        if let Some((_, timer)) = engine.and_then(Engine::next_timer) {
            self.trace.deed(
                self.now,
                &format!("node {} is woken by {timer:?}", process.node),
            );
        }
    }

    fn count_wakes(&mut self) {
        let (moment, count) = self.wakes;
        self.wakes = if moment == self.now {
            (moment, count + 1)
        } else {
            (self.now, 1)
        };
        if self.wakes.1 > WAKES_PER_MOMENT_MAX {
            self.break_down("an engine is woken without end".to_owned());
        }
    }

    /// When an engine wants to be woken, on the world's clock.
    fn due(&self, process: Process) -> Option<u64> {
        let node = self.nodes.get(process.node)?;
        Some(
            node.engine
                .as_ref()?
                .deadline()?
                .0
                .saturating_add(node.started)
                .saturating_sub(node.slept),
        )
    }

    /// Timers fire late, never early.
    fn set_alarm(&mut self, process: Process) {
        let Some(due) = self.due(process) else { return };
        let late = self.dice.between(0, 500);
        let Some(node) = self.nodes.get_mut(process.node) else {
            return;
        };
        let at = due.max(self.now) + late;
        if node.wake.is_none_or(|standing| at < standing) {
            node.wake = Some(at);
            self.agenda.put(at, Occurrence::Wake(process));
        }
    }

    fn handle(&mut self, process: Process, event: Event) {
        if !self.is_alive(process) {
            return;
        }
        self.trace.event(self.now, process.node, &event);
        let mut entropy = Entropy::new(self.dice.seed());
        let Some(now) = self.time_at(process.node) else {
            return;
        };
        let engine = self
            .nodes
            .get_mut(process.node)
            .and_then(|node| node.engine.as_mut());
        let Some(engine) = engine else { return };
        let outcome = engine.handle(event, now, &mut entropy);
        self.outcome(process, outcome);
        self.set_alarm(process);
    }

    fn outcome(&mut self, process: Process, outcome: Outcome) {
        self.trace.outcome(process.node, &outcome);
        self.note(process, &outcome);
        let Some(node) = self.nodes.get_mut(process.node) else {
            return;
        };
        let (effects, begun) = node.disk.accept(outcome);
        self.commit_takes_time(process, begun);
        self.perform(process, effects);
    }

    fn note(&mut self, process: Process, outcome: &Outcome) {
        let events: Vec<What> = outcome
            .effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Emit(event) => Some(event.what.clone()),
                Effect::Net(_) | Effect::Pty { .. } | Effect::Reply { .. } | Effect::Stop(_) => {
                    None
                }
            })
            .collect();
        let writes: Vec<Write> = outcome
            .live
            .iter()
            .filter_map(|effect| match effect {
                Effect::Pty {
                    terminal,
                    effect: PtyEffect::Write(input),
                } => Some(Write {
                    terminal: *terminal,
                    origin: input.origin(),
                    bytes: input.value().clone(),
                }),
                Effect::Pty { .. }
                | Effect::Emit(_)
                | Effect::Net(_)
                | Effect::Reply { .. }
                | Effect::Stop(_) => None,
            })
            .collect();
        if !events.is_empty() || !writes.is_empty() {
            let node = NodeId(process.node);
            self.facts.push_back(Fact::Handled {
                node,
                events,
                writes,
            });
        }
    }

    fn commit_takes_time(&mut self, process: Process, begun: bool) {
        if begun {
            let takes = self.dice.between(100, 100 + self.config.commit_ms * MILLI);
            self.agenda
                .put(self.now + takes, Occurrence::Committed(process));
        }
    }

    fn committed(&mut self, process: Process) {
        if !self.is_alive(process) {
            return;
        }
        let Some(node) = self.nodes.get_mut(process.node) else {
            return;
        };
        match node.disk.committed() {
            Committed::Saved(effects, begun) => {
                self.commit_takes_time(process, begun);
                self.perform(process, effects);
            }
            Committed::Unsaved(error, effects, again) => {
                self.perform(process, effects);
                self.commit_again_later(process, again);
                self.handle(process, Event::CommitFailed { error });
            }
            Committed::StillUnsaved => self.commit_again_later(process, true),
            Committed::SavedAgain(effects) => {
                self.perform(process, effects);
                self.handle(process, Event::CommittedAgain);
            }
        }
    }

    fn commit_again_later(&mut self, process: Process, again: bool) {
        if again {
            let at = self.now + self.dice.between(500 * MILLI, 2000 * MILLI);
            self.agenda.put(at, Occurrence::Committed(process));
        }
    }

    fn perform(&mut self, process: Process, effects: Vec<Effect>) {
        let node = NodeId(process.node);
        for effect in effects {
            if !self.is_alive(process) {
                return;
            }
            match effect {
                Effect::Net(effect) => self.perform_net(process, effect),
                Effect::Pty { terminal, effect } => self.perform_pty(process, terminal, effect),
                Effect::Reply { request, result } => {
                    self.facts.push_back(Fact::Replied {
                        node,
                        request,
                        result,
                    });
                }
                Effect::Emit(_) => {}
                Effect::Stop(reason) => self.stop(process, reason),
            }
        }
    }

    fn perform_net(&mut self, process: Process, effect: crate::engine::effect::NetEffect) {
        if let crate::engine::effect::NetEffect::Publish { data, .. } = &effect {
            let (node, data) = (NodeId(process.node), data.clone());
            self.facts.push_back(Fact::Published { node, data });
        }
        let mut at = NetNow {
            at: self.now,
            agenda: &mut self.agenda,
            dice: &mut self.dice,
        };
        self.network.perform(process, effect, &mut at);
    }

    fn perform_pty(&mut self, process: Process, terminal: TerminalId, effect: PtyEffect) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(process.node) else {
            return;
        };
        let soon = |event| (now + MILLI, Occurrence::Pty(process, terminal, event));
        let (at, occurrence) = match (effect, node.shells.get_mut(&terminal)) {
            (PtyEffect::Spawn(_), _) => {
                let (shell, prompt) = Shell::start();
                node.shells.insert(terminal, shell);
                soon(PtyEvent::Output(prompt))
            }
            (PtyEffect::Write(input), Some(shell)) => {
                shell.write(input);
                let takes = self.dice.between(20, 2 * MILLI);
                (now + takes, Occurrence::PtyTakes(process, terminal))
            }
            (PtyEffect::Return(output), Some(_)) => {
                let again = Occurrence::Pty(process, terminal, PtyEvent::Output(output));
                (now, again)
            }
            (PtyEffect::DropInput, Some(shell)) => {
                let total = shell.withdraw();
                (
                    now + 50,
                    Occurrence::Pty(process, terminal, PtyEvent::Withdrawn(total)),
                )
            }
            (PtyEffect::Hangup, Some(_)) => {
                node.shells.remove(&terminal);
                soon(PtyEvent::Exited(ExitStatus(129)))
            }
            (PtyEffect::Resize { .. }, Some(_)) | (_, None) => return,
        };
        self.agenda.put(at, occurrence);
    }

    fn pty_takes(&mut self, process: Process, terminal: TerminalId) {
        if !self.is_alive(process) {
            return;
        }
        let Some(node) = self.nodes.get_mut(process.node).filter(|node| !node.stuck) else {
            return;
        };
        let Some(shell) = node
            .shells
            .get_mut(&terminal)
            .filter(|shell| shell.is_busy())
        else {
            return;
        };
        let bite = shell.take(&mut self.dice);
        let busy = shell.is_busy();
        let bytes = bite.bytes;
        self.facts.push_back(Fact::Took {
            node: NodeId(process.node),
            terminal,
            bytes,
        });
        let now = self.now;
        let mut put = |delay, event| {
            self.agenda
                .put(now + delay, Occurrence::Pty(process, terminal, event));
        };
        put(30, PtyEvent::Written(bite.total));
        put(60, PtyEvent::Output(bite.output));
        if let Some(status) = bite.status {
            put(90, PtyEvent::Exited(ExitStatus(status)));
        }
        if busy {
            self.agenda
                .put(now + 200, Occurrence::PtyTakes(process, terminal));
        }
    }

    fn stop(&mut self, process: Process, reason: StopReason) {
        let mut at = NetNow {
            at: self.now,
            agenda: &mut self.agenda,
            dice: &mut self.dice,
        };
        self.network.end(process, false, &mut at);
        if let Some(node) = self.nodes.get_mut(process.node) {
            node.end();
        }
        self.facts.push_back(Fact::Stopped {
            node: NodeId(process.node),
            reason,
        });
    }

    fn break_down(&mut self, fault: String) {
        self.fault.get_or_insert(fault);
    }
}

impl Node {
    /// The process is gone; the disk stays.
    fn end(&mut self) {
        self.engine = None;
        self.view = None;
        self.screens.clear();
        self.shells.clear();
        self.wake = None;
        self.stuck = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::capability::Role;
    use crate::engine::command::{Ask, ControlMode};

    fn world(seed: u64, links: Links) -> World {
        World::new(WorldConfig {
            seed,
            links,
            commit_ms: 5,
            skew_ms: 1000,
            ..WorldConfig::default()
        })
    }

    fn run(world: &mut World, time: Duration) {
        let until = world.now() + time;
        while world.step(until) {}
        assert_eq!(world.fault(), None);
    }

    fn session() -> NewSession {
        NewSession {
            name: "ana".to_owned(),
            title: "kernel".to_owned(),
            ask: Ask::Never,
            control: ControlMode::Ask,
        }
    }

    fn ticket(world: &mut World, host: NodeId, role: Role) -> String {
        let expires_in = Some(Duration::from_secs(3600));
        let invite = Command::CreateInvite {
            role,
            expires_in,
            ask: Ask::Never,
            addresses: true,
        };
        world.command(host, invite).unwrap();
        run(world, Duration::from_millis(100));
        let view = world.view(host).unwrap();
        view.invites
            .last()
            .and_then(|invite| invite.ticket.clone())
            .unwrap()
    }

    fn say(world: &mut World, node: NodeId, text: &str) {
        let (text, mentions) = (text.to_owned(), Vec::new());
        world
            .command(
                node,
                Command::PostMessage {
                    text,
                    reply: None,
                    mentions,
                    anchor: None,
                },
            )
            .unwrap();
    }

    fn texts(world: &mut World, node: NodeId) -> Vec<String> {
        world
            .view(node)
            .unwrap()
            .messages
            .iter()
            .map(|message| message.text.clone())
            .collect()
    }

    /// A host, two guests, and words of each.
    fn three_talk(seed: u64, links: Links) -> World {
        let mut world = world(seed, links);
        let ana = world.host(session(), Bugs::default());
        run(&mut world, Duration::from_millis(100));
        let ticket = ticket(&mut world, ana, Role::Viewer);
        let ben = world.guest(&ticket, "ben", Bugs::default());
        let cleo = world.guest(&ticket, "cleo", Bugs::default());
        run(&mut world, Duration::from_secs(20));
        for (node, text) in [(ana, "one"), (ben, "two"), (cleo, "three")] {
            say(&mut world, node, text);
            run(&mut world, Duration::from_secs(2));
        }
        run(&mut world, Duration::from_secs(20));
        world
    }

    #[test]
    fn guests_join_and_everybody_hears_everybody() {
        let mut world = three_talk(1, Links::default());

        for node in world.nodes() {
            assert_eq!(texts(&mut world, node), ["one", "two", "three"]);
        }
    }

    #[test]
    fn words_arrive_over_links_that_lose_double_and_cut() {
        let links = Links {
            loss: 20,
            duplicate: 20,
            reorder: 20,
            cut: 2,
            mute: 20,
            ..Links::default()
        };
        let mut world = three_talk(2, links);

        for node in world.nodes() {
            assert_eq!(texts(&mut world, node), ["one", "two", "three"]);
        }
    }

    #[test]
    fn equal_seeds_give_equal_worlds_and_others_do_not() {
        let links = Links {
            loss: 10,
            cut: 1,
            ..Links::default()
        };

        assert_eq!(three_talk(3, links).trace(), three_talk(3, links).trace());
        assert_ne!(three_talk(3, links).trace(), three_talk(4, links).trace());
    }

    #[test]
    fn a_node_that_crashed_comes_back_with_what_was_said() {
        let mut world = three_talk(5, Links::default());
        let ben = NodeId(1);

        world.crash(ben);
        assert!(!world.runs(ben));
        say(&mut world, NodeId(0), "while ben was away");
        run(&mut world, Duration::from_secs(5));
        world.restart(ben);
        assert_eq!(texts(&mut world, ben), ["one", "two", "three"]);
        run(&mut world, Duration::from_secs(30));

        assert_eq!(texts(&mut world, ben).last().unwrap(), "while ben was away");
    }

    #[test]
    fn nodes_that_come_back_at_once_and_dial_each_other_keep_one_connection_for_each_two() {
        let mut dialled_both_ways = 0;
        for seed in 100..106 {
            let mut world = three_talk(seed, Links::default());
            let nodes: Vec<NodeId> = world.nodes().collect();
            nodes.iter().for_each(|node| world.crash(*node));
            nodes.iter().for_each(|node| world.restart(*node));
            let pairs = [(0, 1), (0, 2), (1, 2)].map(|(a, b)| (nodes[a], nodes[b]));

            let mut most = 0;
            let until = world.now() + Duration::from_secs(8);
            while world.step(until) {
                let counts = pairs.map(|(a, b)| world.connections(a, b));
                most = counts.into_iter().chain([most]).max().unwrap();
            }
            assert_eq!(world.fault(), None);

            dialled_both_ways += u32::from(most > 1);
            for (a, b) in pairs {
                assert_eq!(world.connections(a, b), 1, "seed {seed}");
            }
            for node in &nodes {
                say(&mut world, *node, &format!("{} is back", node.0));
            }
            run(&mut world, Duration::from_secs(5));
            let all: Vec<_> = nodes.iter().map(|node| texts(&mut world, *node)).collect();
            assert!(
                all.iter().all(|texts| texts.len() == 6 && *texts == all[0]),
                "seed {seed}"
            );
        }
        assert!(dialled_both_ways > 0, "only {dialled_both_ways} times");
    }

    #[test]
    fn a_full_disk_keeps_a_node_from_hearing_and_speaking_until_there_is_room() {
        let mut world = three_talk(7, Links::default());
        let (ana, ben) = (NodeId(0), NodeId(1));

        world.set_full(ben, true);
        say(&mut world, ben, "not saved at once");
        say(&mut world, ana, "while there is no room");
        run(&mut world, Duration::from_secs(20));
        assert_eq!(texts(&mut world, ana).len(), 4, "nothing unsaved is told");
        let why = world.view(ben).unwrap().unsaved.clone().unwrap();
        assert_eq!(why.code, crate::engine::error::Code::DiskFull);
        world.set_full(ben, false);
        run(&mut world, Duration::from_secs(20));

        assert_eq!(world.view(ben).unwrap().unsaved, None);
        let heard = texts(&mut world, ana);
        assert!(heard.contains(&"not saved at once".to_owned()), "{heard:?}");
        assert_eq!(texts(&mut world, ben), heard);
        assert_eq!(heard.len(), 5);
    }

    #[test]
    fn after_a_failed_fsync_nothing_is_told_until_the_next_start_finds_what_was_saved() {
        for seed in 8..12 {
            let mut world = three_talk(seed, Links::default());
            let (ana, ben) = (NodeId(0), NodeId(1));

            world.fail_disk(ben);
            say(&mut world, ben, "who knows");
            say(&mut world, ana, "meanwhile");
            run(&mut world, Duration::from_secs(20));
            assert_eq!(texts(&mut world, ana).len(), 4, "nothing unsaved is told");
            world.crash(ben);
            world.restart(ben);
            say(&mut world, ben, "back");
            run(&mut world, Duration::from_secs(20));

            let heard = texts(&mut world, ana);
            assert_eq!(texts(&mut world, ben), heard);
            for text in ["one", "two", "three", "meanwhile", "back"] {
                assert!(heard.contains(&text.to_owned()), "{heard:?}");
            }
        }
    }

    /// Ana shares a terminal and gives control of it to Ben, an editor; Cleo looks on.
    fn ben_has_control(seed: u64) -> (World, TerminalId) {
        let mut world = three_talk(seed, Links::default());
        let spec = crate::engine::command::TerminalSpec {
            argv: vec!["echo".to_owned()],
            cwd: None,
            env: Vec::new(),
            title: "echo".to_owned(),
            cols: 80,
            rows: 24,
        };
        world.command(NodeId(0), Command::OpenTerminal { spec });
        run(&mut world, Duration::from_secs(3));
        let terminal = world.view(NodeId(0)).unwrap().terminals[0].id;
        let to = world.member(NodeId(1)).unwrap();
        let duration = Some(Duration::from_secs(600));
        let command = crate::engine::command::ControlCommand::Grant { to, duration };
        world.command(NodeId(0), Command::Control { terminal, command });
        run(&mut world, Duration::from_secs(3));
        assert!(controls(&mut world));
        (world, terminal)
    }

    /// Whether Ben and Ana both know that Ben has control.
    fn controls(world: &mut World) -> bool {
        let ben = world.member(NodeId(1));
        let host = world.view(NodeId(0)).unwrap().terminals[0].control.clone();
        let view = world.view(NodeId(1)).unwrap();
        host.holder == ben && view.terminals[0].control.mine
    }

    fn types(world: &mut World, terminal: TerminalId) -> bool {
        drop(world.take_facts());
        let input = Command::Input {
            terminal,
            bytes: b"x".to_vec(),
            source: crate::engine::command::InputSource::Verb,
            timeout: None,
        };
        let asked = world.command(NodeId(1), input);
        run(world, Duration::from_secs(12));
        world.take_facts().into_iter().any(|fact| match fact {
            Fact::Replied {
                node: NodeId(1),
                request,
                result,
            } => Some(request) == asked && result.is_ok(),
            Fact::Handled { .. }
            | Fact::Replied { .. }
            | Fact::Took { .. }
            | Fact::Published { .. }
            | Fact::Started { .. }
            | Fact::Crashed { .. }
            | Fact::Stopped { .. } => false,
        })
    }

    #[test]
    fn clocks_that_jump_disturb_no_lease_no_presence_and_no_chat() {
        const DAY: i64 = 24 * 3_600_000;
        let (ana, ben, cleo) = (NodeId(0), NodeId(1), NodeId(2));
        for jump in [
            DAY,
            -DAY,
            3652 * DAY,
            -3652 * DAY,
            i64::MAX / 2,
            i64::MIN / 2,
        ] {
            let (mut world, terminal) = ben_has_control(13);
            let right = [ana, ben, cleo].map(|node| world.clock(node));

            world.set_clock(ben, jump);
            run(&mut world, Duration::from_secs(5));
            say(&mut world, ben, "by a wrong clock");
            say(&mut world, cleo, "by a right one");
            assert!(types(&mut world, terminal), "{jump}");
            world.set_clock(ana, -jump);
            say(&mut world, ana, "the host's is wrong, too");
            assert!(types(&mut world, terminal), "{jump}");
            assert!(controls(&mut world), "{jump}");
            for node in [ana, ben, cleo] {
                let view = world.view(node).unwrap();
                let gone = |one: &crate::engine::view::ParticipantView| {
                    one.status == crate::engine::view::Status::Gone
                };
                assert!(!view.participants.iter().any(gone), "{jump}");
            }
            let marked = |world: &mut World, text: &str| {
                let view = world.view(cleo).unwrap();
                let found = view.messages.iter().find(|message| message.text == text);
                found.unwrap().from_the_future
            };
            assert_eq!(marked(&mut world, "by a wrong clock"), jump > 0, "{jump}");
            assert!(!marked(&mut world, "by a right one"), "{jump}");

            for (node, clock) in [ana, ben, cleo].into_iter().zip(right) {
                world.set_clock(node, clock);
            }
            for node in [cleo, ben, ana] {
                say(&mut world, node, "all is right");
                run(&mut world, Duration::from_secs(5));
            }
            let all: Vec<_> = [ana, ben, cleo].map(|node| texts(&mut world, node)).into();
            assert!(all.iter().all(|texts| *texts == all[0]), "{jump}: {all:?}");
            assert_eq!(all[0].len(), 9, "{jump}: {all:?}");
            assert!(!marked(&mut world, "all is right"));
            let authors: Vec<MemberId> = world
                .view(cleo)
                .unwrap()
                .messages
                .iter()
                .filter(|message| message.text == "all is right")
                .map(|message| message.from)
                .collect();
            let expected = [cleo, ben, ana].map(|node| world.member(node).unwrap());
            assert_eq!(authors, expected, "{jump}");
            assert!(controls(&mut world), "{jump}");
        }
    }

    #[test]
    fn after_hours_of_sleep_a_node_finds_the_others_and_no_lease_outlives_its_time() {
        let hours = Duration::from_secs(9 * 3600);
        for sleeper in [0, 1] {
            let (mut world, terminal) = ben_has_control(14);

            world.sleep(NodeId(sleeper), hours);
            say(&mut world, NodeId(2), "good morning");
            run(&mut world, Duration::from_secs(30));

            for node in world.nodes() {
                let heard = texts(&mut world, node);
                assert_eq!(heard.last().unwrap(), "good morning");
                let view = world.view(node).unwrap();
                assert_eq!(view.peers.len(), 2, "{sleeper}");
            }
            if sleeper == 0 {
                // By the host's clock, which alone counts, the time is over.
                assert!(!controls(&mut world) && !types(&mut world, terminal));
            } else {
                let host = world.view(NodeId(0)).unwrap().terminals[0].control.clone();
                assert_eq!(host.holder.is_some(), types(&mut world, terminal));
            }
        }
    }

    #[test]
    fn words_said_on_both_sides_of_a_partition_meet_when_it_heals() {
        let mut world = three_talk(6, Links::default());
        let nodes: Vec<NodeId> = world.nodes().collect();

        world.part(&nodes[..1], &nodes[1..], true);
        run(&mut world, Duration::from_secs(15));
        say(&mut world, nodes[0], "here");
        say(&mut world, nodes[1], "there");
        run(&mut world, Duration::from_secs(15));
        assert_eq!(texts(&mut world, nodes[0]).len(), 4);
        world.heal();
        run(&mut world, Duration::from_secs(60));

        let all: Vec<_> = nodes.iter().map(|node| texts(&mut world, *node)).collect();
        assert_eq!(all[0].len(), 5);
        assert!(all.iter().all(|texts| *texts == all[0]));
    }
}
