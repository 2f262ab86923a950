//! People and fate: does what the scenario says, as often as it says, by the world's dice.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use collab_p2p::engine::Bugs;
use collab_p2p::engine::command::{Command, ControlCommand, InputSource, SessionPatch};
use collab_p2p::engine::ids::TerminalId;
use collab_p2p::sim::{NodeId, World};

use crate::checks::token;
use crate::reference::Reference;
use crate::scenario::{Deeds, Scenario};

/// How often the operator looks, in a minute.
pub(crate) const LOOKS_PER_MINUTE: u64 = 600;
const HOST: NodeId = NodeId(0);
/// Nodes that run and reach each other have the same after so long, on bad links.
const OTHERS_AGREE: Duration = Duration::from_secs(10);

/// Deeds under way.
#[derive(Debug)]
pub(crate) struct Operator {
    deeds: Deeds,
    /// A member that never asks for control.
    stranger: Option<NodeId>,
    /// The ticket, and how many may still come.
    newcomers: (String, usize),
    bugs: Bugs,
    said: u64,
    down: BTreeMap<NodeId, Duration>,
    /// Full disks, and until when.
    full: BTreeMap<NodeId, Duration>,
    /// Nodes that cannot save, and when somebody starts them again.
    failed: BTreeMap<NodeId, Duration>,
    /// Clocks that are wrong, until when, and how they are when they are right.
    wrong: BTreeMap<NodeId, (Duration, i64)>,
    /// Who comes back with an old folder.
    aged: Option<NodeId>,
    /// Until then nobody else does: all have what others have.
    settled_at: Duration,
    healed_at: Option<Duration>,
    unstuck_at: Option<Duration>,
}

impl Operator {
    /// Nothing done yet.
    pub(crate) fn new(scenario: &Scenario, bugs: Bugs) -> Self {
        Self {
            deeds: scenario.deeds,
            stranger: scenario.adversary.member.map(NodeId),
            newcomers: (String::new(), scenario.late),
            bugs,
            said: 0,
            down: BTreeMap::new(),
            full: BTreeMap::new(),
            failed: BTreeMap::new(),
            wrong: BTreeMap::new(),
            aged: None,
            settled_at: Duration::ZERO,
            healed_at: None,
            unstuck_at: None,
        }
    }

    /// Those who come late have this ticket.
    pub(crate) fn invite(&mut self, ticket: &str) {
        ticket.clone_into(&mut self.newcomers.0);
    }

    /// Does what it is time for.
    pub(crate) fn look(&mut self, world: &mut World, reference: &mut Reference) {
        self.mend(world, reference);
        self.fate(world);
        let deeds = self.deeds;
        if happens(world, deeds.chat) {
            self.chat(world, reference);
        }
        if happens(world, deeds.join) {
            self.join(world);
        }
        if happens(world, deeds.title) {
            self.title(world);
        }
        let Some(terminal) = terminal(world) else {
            return;
        };
        self.control(world, terminal);
        for (rate, source) in [
            (deeds.key, InputSource::Key),
            (deeds.verb, InputSource::Verb),
        ] {
            if happens(world, rate) {
                let node = self.typist(world);
                types(world, reference, node, terminal, source);
            }
        }
    }

    /// Ends what is under way: everything runs, and everybody reaches everybody.
    pub(crate) fn rest(&mut self, world: &mut World, reference: &mut Reference) {
        while self.newcomers.1 > 0 {
            self.join(world);
        }
        self.mend_machines(world, Duration::MAX);
        let stopped: Vec<NodeId> = world.nodes().filter(|node| !world.runs(*node)).collect();
        for node in stopped {
            self.restart(world, reference, node);
        }
        world.heal();
        world.set_stuck(HOST, false);
        self.down.clear();
    }

    /// Machines whose time has come are whole again.
    fn mend_machines(&mut self, world: &mut World, now: Duration) {
        for node in due(&mut self.full, |until| *until <= now) {
            world.set_full(node, false);
        }
        for node in due(&mut self.failed, |until| *until <= now) {
            self.crash(world, node);
        }
        let wrong = std::mem::take(&mut self.wrong);
        for (node, (until, right)) in wrong {
            if until <= now {
                world.set_clock(node, right);
            } else {
                self.wrong.insert(node, (until, right));
            }
        }
    }

    /// What lasts a while ends.
    fn mend(&mut self, world: &mut World, reference: &mut Reference) {
        let now = world.now();
        self.mend_machines(world, now);
        let due: Vec<NodeId> = self
            .down
            .iter()
            .filter(|(_, until)| **until <= now)
            .map(|(node, _)| *node)
            .collect();
        for node in due {
            self.down.remove(&node);
            self.restart(world, reference, node);
        }
        if self.healed_at.take_if(|at| *at <= now).is_some() {
            world.heal();
        }
        if self.unstuck_at.take_if(|at| *at <= now).is_some() {
            world.set_stuck(HOST, false);
        }
    }

    fn fate(&mut self, world: &mut World) {
        let deeds = self.deeds;
        if happens(world, deeds.crash) {
            let guests = world.nodes().count() as u64 - 1;
            let victim = NodeId(1 + usize::try_from(world.draw(guests)).unwrap_or(0));
            self.crash(world, victim);
        }
        if happens(world, deeds.host_crash) {
            self.crash(world, HOST);
        }
        self.break_machines(world);
        self.age(world);
        if happens(world, deeds.cut) {
            let (a, b) = (anybody(world), anybody(world));
            world.cut(a, b);
        }
        if happens(world, deeds.partition) && self.healed_at.is_none() {
            self.part(world);
        }
        if happens(world, deeds.stuck) && self.unstuck_at.is_none() {
            world.set_stuck(HOST, true);
            self.unstuck_at = Some(later(world, 3));
        }
    }

    fn break_machines(&mut self, world: &mut World) {
        let deeds = self.deeds;
        if happens(world, deeds.full) {
            let victim = anybody(world);
            world.set_full(victim, true);
            let until = later(world, deeds.full_s);
            self.full.insert(victim, until);
        }
        if happens(world, deeds.fsync) {
            let guests = world.nodes().count() as u64 - 1;
            let victim = NodeId(1 + usize::try_from(world.draw(guests)).unwrap_or(0));
            if world.runs(victim) && !self.failed.contains_key(&victim) {
                world.fail_disk(victim);
                let until = later(world, 10);
                self.failed.insert(victim, until);
            }
        }
        if happens(world, deeds.clock) {
            self.set_clock(world);
        }
        if happens(world, deeds.sleep) {
            let victim = anybody(world);
            let time = Duration::from_secs(world.draw(86_400));
            world.sleep(victim, time);
        }
    }

    fn set_clock(&mut self, world: &mut World) {
        let victim = anybody(world);
        let right = world.clock(victim);
        let ahead = world.draw(2) == 0;
        let by = i64::try_from(world.draw(self.deeds.clock_s) * 1000).unwrap_or(0);
        let until = later(world, 20);
        if let Entry::Vacant(place) = self.wrong.entry(victim) {
            let wrong = if ahead { right + by } else { right - by };
            world.set_clock(victim, wrong);
            place.insert((until, right));
        }
    }

    fn crash(&mut self, world: &mut World, victim: NodeId) {
        if world.runs(victim) {
            world.crash(victim);
            let until = later(world, self.deeds.down_s);
            self.down.insert(victim, until);
        }
    }

    /// Somebody's folder is copied, or was and the copy comes into use.
    fn age(&mut self, world: &mut World) {
        let deeds = self.deeds;
        if happens(world, deeds.copy) {
            let node = anybody(world);
            if world.runs(node) && !world.has_copy(node) {
                world.copy_folder(node);
            }
        }
        let settled = self.down.is_empty() && self.settled_at <= world.now();
        if happens(world, deeds.put_back) && settled {
            let victim = anybody(world);
            if world.has_copy(victim) {
                world.crash(victim);
                // Long enough for those who are there to tell each other what they have.
                let until = later(world, deeds.down_s) + OTHERS_AGREE;
                self.down.insert(victim, until);
                self.aged = Some(victim);
                self.settled_at = until + OTHERS_AGREE;
            }
        }
    }

    fn restart(&mut self, world: &mut World, reference: &mut Reference, node: NodeId) {
        if self.aged.take_if(|aged| *aged == node).is_some() {
            reference.forgets(node, &heard_by_others(world, node));
            world.put_back(node);
        }
        world.restart(node);
    }

    fn part(&mut self, world: &mut World) {
        let both_ways = world.draw(4) > 0;
        let (mut here, mut there) = (Vec::new(), Vec::new());
        for node in world.nodes() {
            if world.draw(2) == 0 {
                here.push(node);
            } else {
                there.push(node);
            }
        }
        world.part(&here, &there, both_ways);
        self.healed_at = Some(later(world, self.deeds.partition_s));
    }

    fn chat(&mut self, world: &mut World, reference: &mut Reference) {
        let node = anybody(world);
        self.said += 1;
        let text = format!("word {} of node {}", self.said, node.0);
        let said = text.clone();
        let say = Command::PostMessage {
            text,
            reply: None,
            mentions: Vec::new(),
            anchor: None,
        };
        if let Some(request) = world.command(node, say) {
            reference.says(node, request, said);
        }
    }

    fn join(&mut self, world: &mut World) {
        if let Some(left) = self.newcomers.1.checked_sub(1) {
            self.newcomers.1 = left;
            let name = format!("node {}", world.nodes().count());
            world.guest(&self.newcomers.0, &name, self.bugs);
        }
    }

    fn title(&mut self, world: &mut World) {
        self.said += 1;
        let title = Some(format!("title {}", self.said));
        let patch = SessionPatch {
            title,
            ..SessionPatch::default()
        };
        world.command(HOST, Command::PatchSession(patch));
    }

    fn control(&mut self, world: &mut World, terminal: TerminalId) {
        let deeds = self.deeds;
        let to = self.candidate(world);
        let grant = to.and_then(|to| world.member(to)).map(|to| {
            let duration = Some(Duration::from_secs(1 + world.draw(20)));
            ControlCommand::Grant { to, duration }
        });
        let wishes = [
            (deeds.request, to, Some(ControlCommand::Request)),
            (deeds.grant, Some(HOST), grant),
            (deeds.release, to, Some(ControlCommand::Release)),
            (deeds.take, Some(HOST), Some(ControlCommand::Take)),
            (deeds.revoke, Some(HOST), Some(ControlCommand::Revoke)),
        ];
        for (rate, node, command) in wishes {
            if happens(world, rate)
                && let (Some(node), Some(command)) = (node, command)
            {
                world.command(node, Command::Control { terminal, command });
            }
        }
    }

    /// Mostly who believes to have control, at times anybody: a guest who has not, or the host.
    fn typist(&self, world: &mut World) -> NodeId {
        let nodes: Vec<NodeId> = world.nodes().collect();
        let dice = world.draw(40);
        let controls = |world: &mut World, node: NodeId| {
            let view = world.view(node);
            view.is_some_and(|view| {
                view.terminals
                    .iter()
                    .any(|one| one.open && one.control.mine)
            })
        };
        match dice {
            0 => HOST,
            1 => anybody(world),
            2..8 => NodeId(nodes.len() - 1),
            _ => {
                let holder = nodes
                    .into_iter()
                    .find(|node| *node != HOST && controls(world, *node));
                holder.or_else(|| self.candidate(world)).unwrap_or(HOST)
            }
        }
    }

    /// A guest who may ask for control.
    fn candidate(&self, world: &mut World) -> Option<NodeId> {
        let guests: Vec<NodeId> = world
            .nodes()
            .filter(|node| *node != HOST && Some(*node) != self.stranger)
            .collect();
        let index = usize::try_from(world.draw(guests.len() as u64)).unwrap_or(0);
        guests.get(index).copied()
    }
}

/// Takes out those whose time has come.
fn due(all: &mut BTreeMap<NodeId, Duration>, come: impl Fn(&Duration) -> bool) -> Vec<NodeId> {
    let due: Vec<NodeId> = all
        .iter()
        .filter(|(_, until)| come(until))
        .map(|(node, _)| *node)
        .collect();
    for node in &due {
        all.remove(node);
    }
    due
}

/// The texts of a node that some other node has.
fn heard_by_others(world: &World, node: NodeId) -> BTreeSet<String> {
    let others = world.nodes().filter(|other| *other != node);
    let replicas = others.filter_map(|other| world.engine(other)?.replica());
    let mut heard = BTreeSet::new();
    for replica in replicas {
        let all = replica.documents().timeline().iter();
        heard.extend(all.map(|message| message.text.clone()));
    }
    heard
}

/// Whether something that happens `rate` times a minute happens at this look.
fn happens(world: &mut World, rate: u32) -> bool {
    rate > 0 && world.draw(LOOKS_PER_MINUTE) < u64::from(rate)
}

fn later(world: &mut World, seconds: u64) -> Duration {
    world.now() + Duration::from_millis(500 + world.draw(seconds.max(1) * 1000))
}

fn anybody(world: &mut World) -> NodeId {
    let count = world.nodes().count() as u64;
    NodeId(usize::try_from(world.draw(count)).unwrap_or(0))
}

fn types(
    world: &mut World,
    reference: &mut Reference,
    node: NodeId,
    terminal: TerminalId,
    source: InputSource,
) {
    let first = reference.next_token(node);
    // Now and then a paste of several frames.
    let count = if world.draw(40) == 0 {
        1 + world.draw(1500)
    } else {
        1
    };
    let numbers = first..first.saturating_add(u32::try_from(count).unwrap_or(1));
    let bytes = numbers
        .clone()
        .flat_map(|number| token(node, number))
        .collect();
    let input = Command::Input {
        terminal,
        bytes,
        source,
        timeout: None,
    };
    if let Some(request) = world.command(node, input) {
        let verb = (source == InputSource::Verb).then_some(request);
        numbers.for_each(|number| reference.types(node, number, verb));
    }
}

/// The terminal that the host shares now.
fn terminal(world: &mut World) -> Option<TerminalId> {
    let view = world.view(HOST)?;
    view.terminals
        .iter()
        .find(|terminal| terminal.open && terminal.mine)
        .map(|terminal| terminal.id)
}
