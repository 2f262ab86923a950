//! The disk's side of *handle → persist → perform*: one worker commits batches; outcomes that come while it
//! works are gathered into the next transaction, and their effects wait with them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::engine::command::CommandError;
use crate::engine::effect::{Effect, NetEffect, Outcome, unkept};
use crate::engine::error::Code;
use crate::engine::limits::{COMMIT_PAUSE_BYTES, STORE_RETRY, STORE_RETRY_MAX};
use crate::engine::persist::{Batch, Durability};
use crate::node::gauges::NodeGauges;
use crate::store::{Store, StoreError};

/// Opens the store, in the worker; again if there was no room for it.
pub(crate) type OpenStore = Box<dyn FnMut() -> Result<Box<dyn Store>, StoreError> + Send>;

/// Outcomes on their way through the disk.
#[derive(Debug)]
pub(crate) struct Committer {
    work: mpsc::Sender<Batch>,
    done: mpsc::Receiver<Result<(), (StoreError, Batch)>>,
    under_way: Option<Vec<Effect>>,
    queued: Option<(Batch, Vec<Effect>)>,
    /// Bytes of what is under way, and of what is queued.
    under_way_bytes: usize,
    queued_bytes: usize,
    health: Health,
    gauges: Arc<NodeGauges>,
}

/// Whether the disk takes what it is given.
#[derive(Debug, Clone, Copy)]
enum Health {
    Saves,
    /// There was no room. What is queued is tried again at this time, and then after twice this pause.
    Full {
        again: Instant,
        pause: Duration,
    },
    /// Nothing more is saved until the next start.
    Failed,
}

/// What became of a commit, and what is to be performed now.
#[derive(Debug)]
pub(crate) enum Committed {
    /// It is on disk.
    Saved(Vec<Effect>),
    /// It is not, for a reason that was not known yet.
    Unsaved(CommandError, Vec<Effect>),
    /// It is not, as before.
    StillUnsaved,
    /// It is on disk, and with it everything that could not be saved before.
    SavedAgain(Vec<Effect>),
}

impl Committer {
    /// Starts the worker that opens the store and owns it. Opening a new store takes the disk a while, which
    /// nothing but the first commit waits for.
    pub(crate) fn start(mut open: OpenStore, gauges: Arc<NodeGauges>) -> Self {
        let (work, mut todo) = mpsc::channel::<Batch>(1);
        let (told, done) = mpsc::channel(1);
        tokio::task::spawn_blocking(move || {
            let mut store = open();
            while let Some(batch) = todo.blocking_recv() {
                if matches!(store, Err(StoreError::DiskFull)) {
                    store = open();
                }
                let result = match &mut store {
                    Ok(store) => store.commit(batch.clone(), Durability::Immediate),
                    Err(error) => Err(error.clone()),
                };
                if told
                    .blocking_send(result.map_err(|error| (error, batch)))
                    .is_err()
                {
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
            health: Health::Saves,
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
        match self.health {
            Health::Saves => {}
            // The engine knows, and its effects depend on nothing that is not saved.
            Health::Full { .. } => {
                self.queued_bytes += persist.bytes();
                self.queued.get_or_insert_default().0.append(persist);
                self.gauge();
                now.extend(effects);
                return now;
            }
            Health::Failed => {
                now.extend(effects);
                return now;
            }
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

    /// Waits for the commit under way, or until it is time to try again what could not be saved; never returns
    /// if there is neither. It may be dropped at any moment and called again.
    pub(crate) async fn finished(&mut self) -> Committed {
        if self.under_way.is_none() {
            match self.health {
                Health::Full { again, .. } => tokio::time::sleep_until(again).await,
                Health::Saves | Health::Failed => std::future::pending::<()>().await,
            }
            self.submit();
        }
        let gone = || Err((StoreError::Poisoned, Batch::new()));
        let committed = match self.done.recv().await.unwrap_or_else(gone) {
            Ok(()) => self.saved(),
            Err((error, batch)) => self.unsaved(&error, batch),
        };
        self.gauge();
        committed
    }

    /// Whether so much waits for the disk that peers should add nothing to it. On a full disk nothing is added anyway,
    /// and who is still heard keeps its connection.
    pub(crate) fn is_behind(&self) -> bool {
        matches!(self.health, Health::Saves) && self.bytes() >= COMMIT_PAUSE_BYTES
    }

    fn bytes(&self) -> usize {
        self.under_way_bytes.saturating_add(self.queued_bytes)
    }

    fn gauge(&self) {
        self.gauges.commits.set(self.bytes());
    }

    /// What could not be saved is tried once more, now.
    pub(crate) fn hurry(&mut self) {
        if let Health::Full { .. } = self.health {
            self.submit();
        }
    }

    /// Whether a commit is under way.
    pub(crate) fn is_busy(&self) -> bool {
        self.under_way.is_some()
    }

    fn saved(&mut self) -> Committed {
        let effects = self.under_way.take().unwrap_or_default();
        self.under_way_bytes = 0;
        let before = std::mem::replace(&mut self.health, Health::Saves);
        self.submit();
        match before {
            Health::Full { .. } => Committed::SavedAgain(effects),
            Health::Saves | Health::Failed => Committed::Saved(effects),
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "when the disk is tried again is the adapter's own affair"
    )]
    fn unsaved(&mut self, error: &StoreError, mut batch: Batch) -> Committed {
        let mut effects = self.under_way.take().unwrap_or_default();
        let queued = self.queued.take();
        (self.under_way_bytes, self.queued_bytes) = (0, 0);
        let is_full = *error == StoreError::DiskFull;
        let (pause, is_news) = match self.health {
            Health::Full { pause, .. } => (pause.saturating_mul(2).min(STORE_RETRY_MAX), !is_full),
            Health::Saves | Health::Failed => (STORE_RETRY, true),
        };
        let refusal = refusal(error);
        if !is_full {
            self.health = Health::Failed;
            effects.extend(queued.into_iter().flat_map(|(_, effects)| effects));
            return Committed::Unsaved(refusal.clone(), unkept(effects, &refusal).0);
        }
        let again = Instant::now() + pause;
        self.health = Health::Full { again, pause };
        if let Some((later, waiting)) = queued {
            batch.append(later);
            effects.extend(waiting);
        }
        let (now, told_later) = unkept(effects, &refusal);
        self.queued_bytes = batch.bytes() + told_later.iter().map(weight).sum::<usize>();
        self.queued = Some((batch, told_later));
        if is_news {
            Committed::Unsaved(refusal, now)
        } else {
            Committed::StillUnsaved
        }
    }

    fn submit(&mut self) {
        if self.under_way.is_some() {
            return;
        }
        if let Some((batch, effects)) = self.queued.take() {
            // The worker takes one batch at a time and this is the only one under way, so there is room; if the
            // worker is gone, waiting for it says so.
            drop(self.work.try_send(batch));
            self.under_way_bytes = std::mem::take(&mut self.queued_bytes);
            self.under_way = Some(effects);
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

/// What a person is told when the store does not do as it was told.
pub(crate) fn refusal(error: &StoreError) -> CommandError {
    let code = match error {
        StoreError::Unwritable(_) => Code::StateUnwritable,
        StoreError::DiskFull => Code::DiskFull,
        StoreError::Locked => Code::StateLocked,
        StoreError::Corrupt { .. } | StoreError::Damaged(_) => Code::StoreCorrupt,
        StoreError::Poisoned | StoreError::Io(_) => Code::StoreFailed,
    };
    CommandError::new(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc as blocking;

    use super::*;
    use crate::engine::command::Reply;
    use crate::engine::event::{RequestId, StreamId};
    use crate::engine::persist::{Key, Table};
    use crate::store::Scan;
    use crate::store::memory::{Fault, Memory};

    /// A store that fails as it is told, and can be looked at.
    #[derive(Debug, Clone, Default)]
    struct Shared(Arc<std::sync::Mutex<Memory>>);

    impl Shared {
        fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
            self.0.lock().unwrap()
        }

        fn holds(&self, n: u8) -> bool {
            let place = Key::new(Table::Log, [n]);
            self.memory().load(&place).unwrap().is_some()
        }
    }

    impl Store for Shared {
        fn load(&self, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
            self.memory().load(key)
        }

        fn scan(&self, table: Table) -> Result<Scan, StoreError> {
            self.memory().scan(table)
        }

        fn commit(&mut self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
            self.memory().commit(batch, durability)
        }

        fn compact(&mut self) -> Result<(), StoreError> {
            self.memory().compact()
        }
    }

    fn committer() -> (Shared, Committer) {
        let shared = Shared::default();
        let store = shared.clone();
        let open: OpenStore = Box::new(move || Ok(Box::new(store.clone())));
        let committer = Committer::start(open, Arc::default());
        (shared, committer)
    }

    fn answer(n: u8) -> Effect {
        let request = RequestId(u64::from(n));
        let result = Ok(Reply::Done);
        Effect::Reply { request, result }
    }

    fn outcome(n: u8, effects: Vec<Effect>) -> Outcome {
        let mut persist = Batch::new();
        persist.put(Key::new(Table::Log, [n]), vec![n]);
        Outcome {
            persist,
            effects,
            live: Vec::new(),
        }
    }

    fn refusals(effects: &[Effect]) -> Vec<Code> {
        effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Reply { result, .. } => result.as_ref().err().map(|error| error.code),
                Effect::Net(_) | Effect::Pty { .. } | Effect::Emit(_) | Effect::Stop(_) => None,
            })
            .collect()
    }

    #[tokio::test]
    async fn a_full_disk_is_tried_again_until_everything_is_saved() {
        let (store, mut committer) = committer();
        store.memory().set_full(true);

        assert!(committer.accept(outcome(1, vec![answer(1)])).is_empty());
        assert!(committer.accept(outcome(2, vec![answer(2)])).is_empty());
        let Committed::Unsaved(error, effects) = committer.finished().await else {
            panic!("there is no room");
        };
        assert_eq!(error.code, Code::DiskFull);
        assert_eq!(refusals(&effects), [Code::DiskFull; 2]);
        let at_once = committer.accept(outcome(3, vec![answer(3)]));
        assert_eq!((at_once.len(), refusals(&at_once).len()), (1, 0));
        for _ in 0..5 {
            committer.hurry();
            let again = committer.finished().await;
            assert!(matches!(again, Committed::StillUnsaved), "{again:?}");
        }
        store.memory().set_full(false);
        committer.hurry();
        let again = committer.finished().await;

        assert!(matches!(again, Committed::SavedAgain(_)), "{again:?}");
        assert!((1..=3).all(|n| store.holds(n)));
        committer.accept(outcome(4, vec![answer(4)]));
        let saved = committer.finished().await;
        assert!(matches!(saved, Committed::Saved(effects) if effects.len() == 1));
        assert!(store.holds(4));
    }

    #[tokio::test]
    async fn after_any_other_failure_nothing_more_is_saved() {
        let (store, mut committer) = committer();
        store.memory().fail_next_commit(Fault::Lost);

        committer.accept(outcome(1, vec![answer(1)]));
        let Committed::Unsaved(error, effects) = committer.finished().await else {
            panic!("fsync failed");
        };

        assert_eq!(error.code, Code::StoreFailed);
        assert_eq!(refusals(&effects), [Code::StoreFailed]);
        assert_eq!(committer.accept(outcome(2, vec![answer(2)])).len(), 1);
        committer.hurry();
        assert!(!committer.is_busy());
        assert!(!store.holds(2));
    }

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

    fn heavy(kept: usize, sent: usize) -> Outcome {
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
        let mut waits = Some(waits);
        let gauges: Arc<NodeGauges> = Arc::default();
        let mut committer = Committer::start(
            Box::new(move || Ok(Box::new(Slow(waits.take().unwrap())))),
            Arc::clone(&gauges),
        );

        committer.accept(heavy(1_000, 10));
        assert!(!committer.is_behind());
        committer.accept(heavy(1_000, COMMIT_PAUSE_BYTES / 2));
        assert!(!committer.is_behind());
        committer.accept(heavy(0, COMMIT_PAUSE_BYTES / 2));
        assert!(committer.is_behind(), "messages that wait count too");

        for _ in 0..2 {
            done.send(()).unwrap();
            let finished = tokio::time::timeout(Duration::from_secs(10), committer.finished());
            assert!(matches!(finished.await.unwrap(), Committed::Saved(_)));
        }
        assert!(!committer.is_behind());
        let commits = gauges.commits.read();
        assert_eq!(commits.now, 0);
        assert!(commits.peak >= COMMIT_PAUSE_BYTES as u64 && commits.peak <= commits.limit);
    }
}
