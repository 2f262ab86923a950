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

#[cfg(test)]
mod tests {
    use std::sync::mpsc as blocking;
    use std::time::Duration;

    use super::*;
    use crate::engine::event::StreamId;
    use crate::engine::persist::{Key, Table};
    use crate::store::Scan;

    /// A disk that takes a batch only when it is told to.
    struct Slow(blocking::Receiver<()>);

    impl Store for Slow {
        fn load(&self, _: &Key) -> Result<Option<Vec<u8>>, StoreError> {
            Ok(None)
        }

        fn scan(&self, _: Table) -> Result<Scan, StoreError> {
            Ok(Scan::default())
        }

        fn commit(&mut self, _: Batch, _: Durability) -> Result<(), StoreError> {
            self.0.recv().map_err(|_| StoreError::Poisoned)
        }

        fn compact(&mut self) -> Result<(), StoreError> {
            Ok(())
        }
    }

    fn outcome(kept: usize, sent: usize) -> Outcome {
        let mut outcome = Outcome::default();
        if kept > 0 {
            outcome
                .persist
                .put(Key::new(Table::Log, *b"entry"), vec![0; kept]);
        }
        let message = vec![0; sent];
        let stream = StreamId(2);
        let send = Effect::Net(NetEffect::Send { stream, message });
        outcome.effects.push(send);
        outcome
    }

    #[tokio::test]
    async fn peers_are_not_heard_while_too_much_waits_for_the_disk() {
        let (done, waits) = blocking::channel();
        let gauges: Arc<NodeGauges> = Arc::default();
        let mut committer =
            Committer::start(Box::new(|| Ok(Box::new(Slow(waits)))), Arc::clone(&gauges));

        committer.accept(outcome(1_000, 10));
        assert!(!committer.is_behind());
        committer.accept(outcome(1_000, COMMIT_PAUSE_BYTES / 2));
        assert!(!committer.is_behind());
        committer.accept(outcome(0, COMMIT_PAUSE_BYTES / 2));
        assert!(committer.is_behind(), "messages that wait count too");

        for _ in 0..2 {
            done.send(()).unwrap();
            let finished = tokio::time::timeout(Duration::from_secs(10), committer.finished());
            finished.await.unwrap().unwrap();
        }
        assert!(!committer.is_behind());
        let commits = gauges.commits.read();
        assert_eq!(commits.now, 0);
        assert!(commits.peak >= COMMIT_PAUSE_BYTES as u64 && commits.peak <= commits.limit);
    }
}
