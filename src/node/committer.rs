//! The disk's side of *handle → persist → perform*: one worker commits batches; outcomes that come while it
//! works are gathered into the next transaction, and their effects wait with them.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::engine::effect::{Effect, NetEffect, Outcome};
use crate::engine::limits::COMMIT_PAUSE_BYTES;
use crate::engine::persist::{Batch, Durability};
use crate::node::gauges::NodeGauges;
use crate::store::{Store, StoreError};

/// Opens the store, in the worker.
pub(crate) type OpenStore = Box<dyn FnOnce() -> Result<Box<dyn Store>, StoreError> + Send>;

/// Outcomes on their way through the disk.
#[derive(Debug)]
pub(crate) struct Committer {
    work: mpsc::Sender<Batch>,
    done: mpsc::Receiver<Result<(), StoreError>>,
    under_way: Option<Vec<Effect>>,
    queued: Option<(Batch, Vec<Effect>)>,
    /// Bytes of what is under way, and of what is queued.
    under_way_bytes: usize,
    queued_bytes: usize,
    failed: bool,
    gauges: Arc<NodeGauges>,
}

impl Committer {
    /// Starts the worker that opens the store and owns it. Opening a new store takes the disk a while, which
    /// nothing but the first commit waits for.
    pub(crate) fn start(open: OpenStore, gauges: Arc<NodeGauges>) -> Self {
        let (work, mut todo) = mpsc::channel::<Batch>(1);
        let (told, done) = mpsc::channel(1);
        tokio::task::spawn_blocking(move || {
            let mut store = open();
            while let Some(batch) = todo.blocking_recv() {
                let result = match &mut store {
                    Ok(store) => store.commit(batch, Durability::Immediate),
                    Err(error) => Err(error.clone()),
                };
                if told.blocking_send(result).is_err() {
                    break;
                }
            }
        });
        Self {
            work,
            done,
            under_way: None,
            queued: None,
            under_way_bytes: 0,
            queued_bytes: 0,
            failed: false,
            gauges,
        }
    }

    /// Takes an outcome and returns what may be performed at once.
    pub(crate) fn accept(&mut self, outcome: Outcome) -> Vec<Effect> {
        let Outcome {
            persist,
            effects,
            live,
        } = outcome;
        let mut now = live;
        if self.failed && !persist.is_empty() {
            // Nothing of a batch that cannot be kept is ever sent; its questioners are answered by the driver.
            now.extend(effects.into_iter().filter_map(refused));
            return now;
        }
        let bytes = persist.bytes() + effects.iter().map(weight).sum::<usize>();
        if !persist.is_empty() {
            self.queued_bytes += bytes;
            let (batch, waiting) = self.queued.get_or_insert_default();
            batch.append(persist);
            waiting.extend(effects);
            self.submit();
        } else if let Some((_, waiting)) = &mut self.queued {
            self.queued_bytes += bytes;
            waiting.extend(effects);
        } else if let Some(waiting) = &mut self.under_way {
            self.under_way_bytes += bytes;
            waiting.extend(effects);
        } else {
            now.extend(effects);
        }
        self.gauge();
        now
    }

    /// Waits for the commit under way; never returns if there is none.
    pub(crate) async fn finished(&mut self) -> Result<Vec<Effect>, (StoreError, Vec<Effect>)> {
        if self.under_way.is_none() {
            std::future::pending::<()>().await;
        }
        let result = self.done.recv().await.unwrap_or(Err(StoreError::Poisoned));
        let effects = self.under_way.take().unwrap_or_default();
        self.under_way_bytes = 0;
        match result {
            Ok(()) => {
                self.submit();
                self.gauge();
                Ok(effects)
            }
            Err(error) => {
                self.failed = true;
                self.queued_bytes = 0;
                self.gauge();
                let queued = self
                    .queued
                    .take()
                    .map(|(_, effects)| effects)
                    .unwrap_or_default();
                let answers = effects
                    .into_iter()
                    .chain(queued)
                    .filter_map(refused)
                    .collect();
                Err((error, answers))
            }
        }
    }

    /// Whether so much waits for the disk that peers should add nothing to it.
    pub(crate) fn is_behind(&self) -> bool {
        self.bytes() >= COMMIT_PAUSE_BYTES
    }

    fn bytes(&self) -> usize {
        self.under_way_bytes.saturating_add(self.queued_bytes)
    }

    fn gauge(&self) {
        self.gauges.commits.set(self.bytes());
    }

    /// Whether something is not on disk yet.
    pub(crate) fn is_busy(&self) -> bool {
        self.under_way.is_some()
    }

    fn submit(&mut self) {
        if self.under_way.is_some() {
            return;
        }
        if let Some((batch, effects)) = self.queued.take() {
            self.under_way_bytes = std::mem::take(&mut self.queued_bytes);
            // The worker takes one batch at a time and this is the only one under way, so there is room.
            if self.work.try_send(batch).is_ok() {
                self.under_way = Some(effects);
            } else {
                self.under_way = Some(effects);
                self.failed = true;
            }
        }
    }
}

/// Bytes of an effect that waits for the disk.
fn weight(effect: &Effect) -> usize {
    match effect {
        Effect::Net(NetEffect::Send { message, .. }) => message.len(),
        Effect::Net(NetEffect::Publish { data, .. }) => data.len(),
        Effect::Net(_)
        | Effect::Pty { .. }
        | Effect::Reply { .. }
        | Effect::Emit(_)
        | Effect::Stop(_) => 0,
    }
}

/// Of the effects of a batch that was not kept, only answers are given, as refusals, and verdicts are dropped.
fn refused(effect: Effect) -> Option<Effect> {
    use crate::engine::command::CommandError;
    use crate::engine::error::Code;
    match effect {
        Effect::Reply { request, result: _ } => {
            let message = "the state could not be saved; nothing of it was sent";
            let result = Err(CommandError::new(Code::StoreFailed, message));
            Some(Effect::Reply { request, result })
        }
        Effect::Stop(reason) => Some(Effect::Stop(reason)),
        Effect::Net(_) | Effect::Pty { .. } | Effect::Emit(_) => None,
    }
}
