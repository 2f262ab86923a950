//! What a face holds: commands in, views, screens and events out. Cheap to clone; every face is equal.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::engine::command::{Command, CommandError, Reply};
use crate::engine::effect::StopReason;
use crate::engine::error::Code;
use crate::engine::ids::TerminalId;
use crate::engine::queues::{Queue, SharedGauges};
use crate::engine::terminal::redaction::Redacted;
use crate::engine::terminal::screen::Screen;
use crate::engine::view::{SessionEvent, View};
use crate::net::NetQueues;
use crate::node::gauges::{NodeGauges, NodeQueues};

/// The newest picture of each terminal that this node watches or runs.
pub type Screens = BTreeMap<TerminalId, Arc<Redacted<Screen>>>;

/// A numbered event, as kept for readers that come back with `since`.
#[derive(Debug, Clone, PartialEq)]
pub struct NumberedEvent {
    /// Grows by one with each durable event of this process; 0 for ephemeral ones.
    pub seq: u64,
    /// The event.
    pub event: SessionEvent,
}

/// A command on its way to the driver.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) command: Command,
    pub(crate) answer: oneshot::Sender<Result<Reply, CommandError>>,
}

/// The receiving ends that the driver holds.
#[derive(Debug)]
pub(crate) struct HandleSource {
    pub(crate) asked: mpsc::Receiver<Asked>,
    pub(crate) view: watch::Sender<Arc<View>>,
    pub(crate) screens: watch::Sender<Screens>,
    pub(crate) events: broadcast::Sender<NumberedEvent>,
    pub(crate) stopped: watch::Sender<Option<StopReason>>,
    pub(crate) gauges: Arc<NodeGauges>,
}

/// A face's way to its node.
#[derive(Debug, Clone)]
pub struct Handle {
    asked: mpsc::Sender<Asked>,
    view: watch::Receiver<Arc<View>>,
    screens: watch::Receiver<Screens>,
    events: broadcast::Sender<NumberedEvent>,
    stopped: watch::Receiver<Option<StopReason>>,
    queues: NodeQueues,
}

/// Commands that wait for the driver before callers wait in turn.
pub(crate) const COMMANDS_QUEUED_MAX: usize = 256;

/// Events that a slow reader may be behind before it is told that it lost some.
pub(crate) const EVENTS_BEHIND_MAX: usize = 1_024;

impl Handle {
    /// A handle and the ends for its driver, beginning with `view`. The queues of engine and network are shown with
    /// those in between.
    pub(crate) fn new(
        view: View,
        engine: SharedGauges,
        net: Option<NetQueues>,
    ) -> (Self, HandleSource) {
        let gauges = Arc::new(NodeGauges::default());
        let (asked_in, asked_out) = mpsc::channel(COMMANDS_QUEUED_MAX);
        let (view_in, view_out) = watch::channel(Arc::new(view));
        let (screens_in, screens_out) = watch::channel(Screens::new());
        let (events_in, _) = broadcast::channel(EVENTS_BEHIND_MAX);
        let (stopped_in, stopped_out) = watch::channel(None);
        let handle = Self {
            asked: asked_in,
            view: view_out,
            screens: screens_out,
            events: events_in.clone(),
            stopped: stopped_out,
            queues: NodeQueues {
                node: Arc::clone(&gauges),
                engine,
                net,
            },
        };
        let source = HandleSource {
            asked: asked_out,
            view: view_in,
            screens: screens_in,
            events: events_in,
            stopped: stopped_in,
            gauges,
        };
        (handle, source)
    }

    /// Asks for something and waits for the answer.
    ///
    /// # Errors
    /// What the engine refuses, or `failure` if the node has stopped.
    pub async fn command(&self, command: Command) -> Result<Reply, CommandError> {
        let (answer, answered) = oneshot::channel();
        if self.asked.send(Asked { command, answer }).await.is_err() {
            return Err(stopped());
        }
        let room = self.asked.capacity();
        let gauge = &self.queues.node.commands;
        gauge.set(COMMANDS_QUEUED_MAX.saturating_sub(room));
        answered.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// The newest view.
    pub fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// Follows the view; slow readers skip to the newest.
    pub fn watch_view(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// The newest picture of a terminal.
    pub fn screen(&self, terminal: &TerminalId) -> Option<Arc<Redacted<Screen>>> {
        self.screens.borrow().get(terminal).cloned()
    }

    /// Follows the pictures; slow readers skip to the newest.
    pub fn watch_screens(&self) -> watch::Receiver<Screens> {
        self.screens.clone()
    }

    /// Follows the events; a reader too far behind is told how many it lost.
    pub fn events(&self) -> broadcast::Receiver<NumberedEvent> {
        self.events.subscribe()
    }

    /// How full the node's bounded queues are and have been. Asks nobody, so it answers also while the node is
    /// busy.
    pub fn queues(&self) -> Vec<Queue> {
        self.queues.read()
    }

    /// Waits until the node has stopped, and tells why. One that said nothing has failed.
    pub async fn stopped(&self) -> StopReason {
        let mut stopped = self.stopped.clone();
        let reason = stopped
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|reason| reason.clone());
        reason.unwrap_or(StopReason::Broken)
    }
}

fn stopped() -> CommandError {
    CommandError::new(Code::Failure, "the node has stopped")
}
