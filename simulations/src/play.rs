//! Plays one scenario with one seed: everybody joins, things happen, then all faults end and order must return.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use collab_p2p::engine::capability::Role;
use collab_p2p::engine::command::{Ask, Command, ControlMode, TerminalSpec};
use collab_p2p::engine::effect::StopReason;
use collab_p2p::engine::{Bugs, NewSession};
use collab_p2p::sim::{Adversary, Fact, Links, NodeId, World, WorldConfig};

use crate::checks::{self, Check};
use crate::operator::{LOOKS_PER_MINUTE, Operator};
use crate::reference::Reference;
use crate::scenario::Scenario;
use crate::{Plant, errors, say};

const HOST: NodeId = NodeId(0);
const LOOK: Duration = Duration::from_millis(60_000 / LOOKS_PER_MINUTE);
/// Everybody has joined after so long, on good links.
const JOINING: Duration = Duration::from_secs(30);

/// What broke, where and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The checker, or what else noticed.
    pub(crate) check: String,
    /// What it saw.
    reason: String,
    /// Virtual time.
    at: Option<Duration>,
}

/// What a play, or many, amounted to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    /// The hash over everything that happened.
    pub(crate) trace: [u8; 32],
    virtual_time: Duration,
    messages: usize,
    tokens: usize,
    leases: usize,
    keys: usize,
    crashes: u32,
}

/// Plays a scenario with a seed.
pub(crate) fn play(
    scenario: &Scenario,
    seed: u64,
    plant: Option<Plant>,
    trace: bool,
) -> Result<Report, Failure> {
    drop(errors::take());
    let result = catch_unwind(AssertUnwindSafe(|| {
        let mut play = Play::new(scenario, seed, plant, trace)?;
        let result = play.all();
        result.map_err(|failure| failure.at(play.world.now()))
    }));
    result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no words");
        Err(Failure::new("nothing_panics", text))
    })
}

struct Play<'a> {
    scenario: &'a Scenario,
    plant: Bugs,
    trace: bool,
    world: World,
    reference: Reference,
    checks: Vec<(String, Box<dyn Check>)>,
    operator: Operator,
}

impl<'a> Play<'a> {
    fn new(
        scenario: &'a Scenario,
        seed: u64,
        plant: Option<Plant>,
        trace: bool,
    ) -> Result<Self, Failure> {
        let checks = scenario.checks.iter().map(|name| {
            let check = checks::by_name(name);
            check
                .map(|check| (name.clone(), check))
                .ok_or_else(|| Failure::new(name, "no such checker"))
        });
        let config = WorldConfig {
            seed,
            links: Links::default(),
            commit_ms: scenario.commit_ms,
            skew_ms: scenario.skew_ms,
            adversary: Adversary::default(),
            mdns: scenario.mdns,
            trace,
        };
        Ok(Self {
            scenario,
            plant: bugs(scenario, plant),
            trace,
            world: World::new(config),
            reference: Reference::default(),
            checks: checks.collect::<Result<_, _>>()?,
            operator: Operator::new(scenario, bugs(scenario, plant)),
        })
    }

    fn all(&mut self) -> Result<Report, Failure> {
        self.join_all()?;
        self.world.set_links(self.scenario.links);
        self.world.set_adversary(self.scenario.adversary);
        let until = self.world.now() + Duration::from_secs(self.scenario.busy_s);
        while self.world.now() < until {
            self.operator.look(&mut self.world, &mut self.reference);
            self.pass(LOOK)?;
        }
        self.world.set_links(Links::default());
        self.world.set_adversary(Adversary::default());
        self.operator.rest(&mut self.world, &mut self.reference);
        self.pass(Duration::from_secs(self.scenario.quiet_s))?;
        self.rest()?;
        Ok(self.report())
    }

    /// The host begins, shares what the scenario says, and lets everybody in.
    fn join_all(&mut self) -> Result<(), Failure> {
        let session = NewSession {
            name: "node 0".to_owned(),
            title: self.scenario.name.clone(),
            ask: Ask::Never,
            control: if self.scenario.auto {
                ControlMode::Auto
            } else {
                ControlMode::Ask
            },
        };
        self.world.host(session, self.joining());
        self.pass(Duration::from_secs(1))?;
        if self.scenario.terminal {
            self.world
                .command(HOST, Command::OpenTerminal { spec: shell() });
        }
        let ticket = self.ticket(Role::Editor)?;
        // Who forges keys must never have control, not even by a free lease.
        let stranger = self.scenario.adversary.member;
        let watching = self.ticket(Role::Viewer)?;
        self.operator.invite(&ticket);
        for guest in 1..self.scenario.members.saturating_sub(self.scenario.late) {
            let ticket = if stranger == Some(guest) {
                &watching
            } else {
                &ticket
            };
            self.world
                .guest(ticket, &format!("node {guest}"), self.joining());
            self.pass(Duration::from_millis(300))?;
        }
        self.pass(JOINING)?;
        if !self.scenario.catch_up {
            self.switch_off_catch_up()?;
        }
        self.check_joined()
    }

    /// An invitation for this role.
    fn ticket(&mut self, role: Role) -> Result<String, Failure> {
        let invite = Command::CreateInvite {
            role,
            expires_in: Some(Duration::from_secs(3600)),
            ask: Ask::Never,
            addresses: true,
        };
        self.world.command(HOST, invite);
        self.pass(Duration::from_secs(1))?;
        let view = self.world.view(HOST);
        let invite = view.and_then(|view| view.invites.iter().find(|invite| invite.role == role));
        let ticket = invite.and_then(|invite| invite.ticket.clone());
        ticket.ok_or_else(|| Failure::new("everybody_joins", "there is no ticket"))
    }

    fn check_joined(&self) -> Result<(), Failure> {
        let joined = |node: &NodeId| {
            self.world
                .engine(*node)
                .is_some_and(|engine| engine.replica().is_some())
        };
        match self.world.nodes().find(|node| !joined(node)) {
            None => Ok(()),
            Some(node) => Err(Failure::new(
                "everybody_joins",
                &format!("node {} has not", node.0),
            )),
        }
    }

    /// The rules that nodes break while they join: those of the plant, but everybody catches up.
    fn joining(&self) -> Bugs {
        Bugs {
            no_catch_up: false,
            ..self.plant
        }
    }

    /// Everybody has everything; from now on gossip is alone. A node changes its ways with its next start.
    fn switch_off_catch_up(&mut self) -> Result<(), Failure> {
        let nodes: Vec<NodeId> = self.world.nodes().collect();
        for node in &nodes {
            self.world.set_bugs(*node, self.plant);
            self.world.crash(*node);
        }
        nodes.into_iter().for_each(|node| self.world.restart(node));
        self.pass(JOINING)
    }

    /// Lets time pass and looks at everything that happens in it.
    fn pass(&mut self, time: Duration) -> Result<(), Failure> {
        let until = self.world.now() + time;
        loop {
            let more = self.world.step(until);
            for fact in self.world.take_facts() {
                self.see(&fact)?;
            }
            self.print();
            if let Some(error) = errors::take().into_iter().next() {
                return Err(Failure::new("nothing_logs_an_error", &error));
            }
            if let Some(fault) = self.world.fault() {
                return Err(Failure::new("the_world_holds", fault));
            }
            if !more {
                return Ok(());
            }
        }
    }

    fn see(&mut self, fact: &Fact) -> Result<(), Failure> {
        for (name, check) in &mut self.checks {
            check
                .see(&self.world, &self.reference, fact)
                .map_err(|reason| Failure::new(name, &reason))?;
        }
        self.reference.see(fact);
        if let Fact::Stopped { node, reason } = fact {
            match reason {
                StopReason::JoinFailed(error) => {
                    tracing::debug!(%error, node = node.0, "a guest tries again");
                    self.world.restart(*node);
                }
                StopReason::Closed(_)
                | StopReason::Left
                | StopReason::Removed
                | StopReason::Offline
                | StopReason::NetworkFailed
                | StopReason::Broken => {
                    let reason = format!("node {} stopped: {reason:?}", node.0);
                    return Err(Failure::new("nobody_stops", &reason));
                }
            }
        }
        Ok(())
    }

    fn rest(&mut self) -> Result<(), Failure> {
        self.check_joined()?;
        for (name, check) in &mut self.checks {
            let result = check.at_rest(&mut self.world, &self.reference);
            result.map_err(|reason| Failure::new(name, &reason))?;
        }
        Ok(())
    }

    fn print(&mut self) {
        if self.trace {
            self.world.take_lines().iter().for_each(|line| say(line));
        }
    }

    fn report(&self) -> Report {
        Report {
            trace: self.world.trace(),
            virtual_time: self.world.now(),
            messages: self.reference.said.len(),
            tokens: self.reference.typed.len(),
            leases: self.reference.leases.len(),
            keys: self.reference.keys,
            crashes: self.reference.crashes.values().sum(),
        }
    }
}

fn bugs(scenario: &Scenario, plant: Option<Plant>) -> Bugs {
    Bugs {
        drop_dedup: plant == Some(Plant::DropDedup),
        ignore_lease_number: plant == Some(Plant::IgnoreLeaseNumber),
        skip_persist: plant == Some(Plant::SkipPersist),
        two_controllers: plant == Some(Plant::TwoControllers),
        accept_unsigned: plant == Some(Plant::AcceptUnsigned),
        no_catch_up: !scenario.catch_up,
        no_gossip: !scenario.gossip,
    }
}

fn shell() -> TerminalSpec {
    TerminalSpec {
        argv: vec!["echo".to_owned()],
        cwd: None,
        env: Vec::new(),
        title: "echo".to_owned(),
        cols: 80,
        rows: 24,
    }
}

impl Failure {
    /// A failure of this checker.
    pub(crate) fn new(check: &str, reason: &str) -> Self {
        Self {
            check: check.to_owned(),
            reason: reason.to_owned(),
            at: None,
        }
    }

    fn at(mut self, at: Duration) -> Self {
        self.at = Some(at);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.reason)?;
        self.at
            .map_or(Ok(()), |at| write!(f, " (after {:.3} s)", at.as_secs_f64()))
    }
}

impl Report {
    /// Adds another play's.
    pub(crate) fn add(&mut self, other: &Self) {
        self.virtual_time += other.virtual_time;
        self.messages += other.messages;
        self.tokens += other.tokens;
        self.leases += other.leases;
        self.keys += other.keys;
        self.crashes += other.crashes;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.virtual_time.as_secs_f64() / 3600.0;
        write!(
            f,
            "{hours:.1} virtual hours, {} crashes, {} messages, {} tokens typed, {} leases with {} bytes",
            self.crashes, self.messages, self.tokens, self.leases, self.keys
        )
    }
}

#[cfg(test)]
mod tests {
    use collab_p2p::engine::command::InputSource;

    use super::*;

    /// Three members with a terminal, one of them cut off while the host types.
    fn one_is_cut_off(check: &str) -> Result<(), String> {
        let mut scenario = Scenario::find("convergence").unwrap().remove(0);
        scenario.members = 3;
        let mut play = Play::new(&scenario, 1, None, false).unwrap();
        play.join_all().unwrap();
        let mut check = checks::by_name(check).unwrap();
        assert_eq!(check.at_rest(&mut play.world, &play.reference), Ok(()));

        play.world.part(&[NodeId(1)], &[HOST, NodeId(2)], true);
        let terminal = play.world.view(HOST).unwrap().terminals[0].id;
        let (bytes, source) = (b"pwd\r".to_vec(), InputSource::Key);
        let types = Command::Input {
            terminal,
            bytes,
            source,
            timeout: None,
        };
        play.world.command(HOST, types);
        play.pass(Duration::from_secs(15)).unwrap();

        check.at_rest(&mut play.world, &play.reference)
    }

    #[test]
    fn who_is_cut_off_is_missed() {
        let missed = one_is_cut_off("everybody_is_present").unwrap_err();
        assert!(missed.contains("Some(Gone)"), "{missed}");
    }

    #[test]
    fn an_old_picture_is_noticed() {
        let noticed = one_is_cut_off("pictures_agree").unwrap_err();
        assert!(noticed.contains("node 1 sees"), "{noticed}");
    }
}
