//! Scenarios as data.

use collab_p2p::sim::{Adversary, Links};
use serde::Deserialize;

/// The scenarios of this folder.
const KNOWN: [&str; 8] = [
    include_str!("../scenarios/convergence.toml"),
    include_str!("../scenarios/convergence_without_gossip.toml"),
    include_str!("../scenarios/gossip_alone.toml"),
    include_str!("../scenarios/control.toml"),
    include_str!("../scenarios/control_auto.toml"),
    include_str!("../scenarios/arrivals.toml"),
    include_str!("../scenarios/bad_machines.toml"),
    include_str!("../scenarios/old_folders.toml"),
];

/// What happens to whom, and what must hold.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    /// Its name.
    pub(crate) name: String,
    /// What it is for, in a sentence.
    #[expect(dead_code, reason = "it speaks to the readers of the file")]
    about: String,
    /// Members in the end, the host among them.
    pub(crate) members: usize,
    /// Members that come only while it is busy.
    #[serde(default)]
    pub(crate) late: usize,
    /// Whether nodes find each other without being told addresses.
    #[serde(default)]
    pub(crate) mdns: bool,
    /// Whether an editor's first key gets a free lease.
    #[serde(default)]
    pub(crate) auto: bool,
    /// How long faults and deeds go on, in virtual seconds.
    pub(crate) busy_s: u64,
    /// How long after the last fault everything must be in order, in virtual seconds.
    pub(crate) quiet_s: u64,
    /// Spread news by gossip.
    pub(crate) gossip: bool,
    /// Compare and catch up once everybody has joined.
    pub(crate) catch_up: bool,
    /// Whether the host shares a terminal.
    pub(crate) terminal: bool,
    /// Longest time that a commit takes, in milliseconds.
    pub(crate) commit_ms: u64,
    /// How far clocks are from the truth, in milliseconds.
    pub(crate) skew_ms: u64,
    /// Links while it is busy.
    #[serde(default)]
    pub(crate) links: Links,
    /// The adversary while it is busy.
    #[serde(default)]
    pub(crate) adversary: Adversary,
    /// What people and fate do.
    pub(crate) deeds: Deeds,
    /// What must hold, by the names of `checks/`.
    pub(crate) checks: Vec<String>,
}

/// How often things are done, each in times a minute, and how long they last.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Deeds {
    /// Somebody says something.
    pub(crate) chat: u32,
    /// Somebody joins with the first ticket, until all have.
    pub(crate) join: u32,
    /// The host changes the session's title.
    pub(crate) title: u32,
    /// The world falls into two parts that do not reach each other.
    pub(crate) partition: u32,
    /// Longest partition, in seconds.
    pub(crate) partition_s: u64,
    /// A guest's node dies.
    pub(crate) crash: u32,
    /// The host's node dies.
    pub(crate) host_crash: u32,
    /// A node's folder is copied.
    pub(crate) copy: u32,
    /// A node dies whose folder was copied, and comes back with the copy.
    pub(crate) put_back: u32,
    /// Longest time that a node stays dead, in seconds.
    pub(crate) down_s: u64,
    /// A node's disk is full for a while.
    pub(crate) full: u32,
    /// Longest time that a disk stays full, in seconds.
    pub(crate) full_s: u64,
    /// A guest's fsync fails; somebody starts its node again some time later.
    pub(crate) fsync: u32,
    /// A node's wall clock is set wrong for a while.
    pub(crate) clock: u32,
    /// How far at most, in seconds, either way.
    pub(crate) clock_s: u64,
    /// A node's machine sleeps for up to a day.
    pub(crate) sleep: u32,
    /// Two nodes lose their connections.
    pub(crate) cut: u32,
    /// Somebody asks for control.
    pub(crate) request: u32,
    /// The host gives control to somebody.
    pub(crate) grant: u32,
    /// Whoever has control gives it back.
    pub(crate) release: u32,
    /// The host takes control, by verb or by typing.
    pub(crate) take: u32,
    /// The host revokes control.
    pub(crate) revoke: u32,
    /// Somebody types a key.
    pub(crate) key: u32,
    /// Somebody types by verb, which waits for the answer.
    pub(crate) verb: u32,
    /// The shell stops reading for a while.
    pub(crate) stuck: u32,
}

impl Scenario {
    /// The scenario of this name or file, or all of this folder.
    pub(crate) fn find(name: &str) -> Result<Vec<Self>, String> {
        let all: Vec<Self> = KNOWN
            .iter()
            .map(|text| parse(text))
            .collect::<Result<_, _>>()?;
        if name == "all" {
            return Ok(all);
        }
        if let Some(known) = all.into_iter().find(|scenario| scenario.name == name) {
            return Ok(vec![known]);
        }
        let text = std::fs::read_to_string(name)
            .map_err(|error| format!("{name:?} is neither a scenario nor a file: {error}"))?;
        Ok(vec![parse(&text)?])
    }

    /// The names of this folder's scenarios.
    pub(crate) fn names() -> Vec<String> {
        Self::find("all")
            .unwrap_or_default()
            .into_iter()
            .map(|scenario| scenario.name)
            .collect()
    }
}

fn parse(text: &str) -> Result<Scenario, String> {
    toml::from_str(text).map_err(|error| format!("a scenario does not parse: {error}"))
}
