//! How full the bounded queues between a node's tasks are, and all of a node's queues in one list for its faces.

use std::sync::Arc;

use crate::engine::limits::{COMMIT_QUEUE_BYTES_MAX, PTY_INPUT_BYTES_MAX, PTY_OUTPUT_EVENTS_MAX};
use crate::engine::queues::{Gauge, Queue, SharedGauges};
use crate::net::NetQueues;
use crate::node::handle::{COMMANDS_QUEUED_MAX, EVENTS_BEHIND_MAX};

/// The gauges of one node's tasks.
#[derive(Debug)]
pub(crate) struct NodeGauges {
    /// Commands that wait for the driver.
    pub(crate) commands: Gauge,
    /// Events that the slowest face has not read.
    pub(crate) events: Gauge,
    /// Bytes that wait for the disk, with what waits for them.
    pub(crate) commits: Gauge,
    /// Pieces of a shell's output that wait for the engine.
    pub(crate) pty_output: Gauge,
    /// Bytes of input that a shell has not taken.
    pub(crate) pty_input: Gauge,
}

impl Default for NodeGauges {
    fn default() -> Self {
        Self {
            commands: Gauge::items("commands", COMMANDS_QUEUED_MAX),
            events: Gauge::items("events", EVENTS_BEHIND_MAX),
            commits: Gauge::bytes("commits", COMMIT_QUEUE_BYTES_MAX),
            pty_output: Gauge::items("pty_output", PTY_OUTPUT_EVENTS_MAX),
            pty_input: Gauge::bytes("pty_input", PTY_INPUT_BYTES_MAX),
        }
    }
}

/// All queues of a node, to be read without a word to its driver, so also while that is stuck.
#[derive(Debug, Clone)]
pub(crate) struct NodeQueues {
    pub(crate) node: Arc<NodeGauges>,
    pub(crate) engine: SharedGauges,
    /// None in tests without a network.
    pub(crate) net: Option<NetQueues>,
}

impl NodeQueues {
    /// Each at this moment.
    pub(crate) fn read(&self) -> Vec<Queue> {
        let NodeGauges {
            commands,
            events,
            commits,
            pty_output,
            pty_input,
        } = &*self.node;
        let own = [commands, events, commits, pty_output, pty_input].map(Gauge::read);
        let mut queues = Vec::from(own);
        queues.extend(self.engine.read());
        queues.extend(self.net.iter().flat_map(NetQueues::read));
        queues
    }
}
