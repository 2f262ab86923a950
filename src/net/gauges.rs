//! How full the network's bounded queues are. Of queues that exist per stream or per connection the fullest counts:
//! their peaks are told by whoever fills them, what they hold now is looked up when somebody asks.

use std::fmt;
use std::sync::Arc;

use crate::engine::event::Lane;
use crate::engine::limits;
use crate::engine::queues::{Gauge, Queue};
use crate::net::streams::Shared;

/// The gauges of one node's network.
#[derive(Debug)]
pub(crate) struct Gauges {
    /// Requests for the network's task.
    pub(crate) requests: Gauge,
    /// Facts of the node itself that wait for the engine.
    pub(crate) facts: Gauge,
    admission: Gauge,
    control: Gauge,
    input: Gauge,
    screen: Gauge,
    /// Messages of one stream that wait for the engine.
    pub(crate) backlog: Gauge,
    /// Their bytes.
    pub(crate) backlog_bytes: Gauge,
    /// Streams that a peer opened and the engine has not heard of.
    pub(crate) unseen: Gauge,
    /// Gossip that waits for the engine.
    pub(crate) gossip: Gauge,
    /// Gossip that waits for a verdict.
    pub(crate) unjudged: Gauge,
    /// Own gossip that waits for a neighbour.
    pub(crate) unsent: Gauge,
}

impl Default for Gauges {
    fn default() -> Self {
        Self {
            requests: Gauge::items("net_requests", limits::NET_REQUESTS_MAX),
            facts: Gauge::items("net_facts", limits::NET_FACTS_MAX),
            admission: Gauge::bytes("admission_out", limits::ADMISSION_QUEUE_BYTES_MAX),
            control: Gauge::bytes("control_out", limits::CONTROL_QUEUE_BYTES_MAX),
            input: Gauge::bytes("input_out", limits::INPUT_QUEUE_BYTES_MAX),
            screen: Gauge::bytes("screen_out", limits::SCREEN_QUEUE_BYTES_MAX),
            backlog: Gauge::items("stream_backlog", limits::STREAM_BACKLOG_MESSAGES_MAX),
            backlog_bytes: Gauge::bytes("stream_backlog_bytes", limits::STREAM_HELD_BYTES_MAX),
            unseen: Gauge::items("unseen_streams", limits::UNSEEN_STREAMS_MAX),
            gossip: Gauge::items("gossip_backlog", limits::GOSSIP_BACKLOG_MAX),
            unjudged: Gauge::items("gossip_unjudged", limits::GOSSIP_UNJUDGED_MAX),
            unsent: Gauge::items("gossip_unsent", limits::GOSSIP_UNSENT_MAX),
        }
    }
}

impl Gauges {
    /// What waits to be written on a stream of a lane.
    pub(crate) fn out(&self, lane: Lane) -> &Gauge {
        match lane {
            Lane::Admission => &self.admission,
            Lane::Control => &self.control,
            Lane::Input => &self.input,
            Lane::Screen => &self.screen,
        }
    }
}

/// Shows how full the network's queues are, without keeping the network alive.
#[derive(Clone)]
pub struct NetQueues {
    pub(crate) shared: Arc<Shared>,
}

impl NetQueues {
    /// All of them at this moment.
    pub fn read(&self) -> Vec<Queue> {
        let gauges = &self.shared.gauges;
        let fullest = self.shared.fullest();
        let [admission, control, input, screen] = fullest.out;
        vec![
            gauges.requests.read(),
            gauges.facts.read(),
            gauges.admission.read_with(admission),
            gauges.control.read_with(control),
            gauges.input.read_with(input),
            gauges.screen.read_with(screen),
            gauges.backlog.read_with(fullest.backlog),
            gauges.backlog_bytes.read_with(fullest.backlog_bytes),
            gauges.unseen.read_with(fullest.unseen),
            gauges.gossip.read(),
            gauges.unjudged.read(),
            gauges.unsent.read(),
        ]
    }
}

impl fmt::Debug for NetQueues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetQueues").finish_non_exhaustive()
    }
}

/// What the fullest stream and connection hold at a moment.
#[derive(Debug, Default)]
pub(crate) struct Fullest {
    /// Bytes to be written: admission, control, input, screen.
    pub(crate) out: [u64; 4],
    /// Messages for the engine.
    pub(crate) backlog: u64,
    /// Their bytes.
    pub(crate) backlog_bytes: u64,
    /// Streams that the engine has not heard of.
    pub(crate) unseen: u64,
}
