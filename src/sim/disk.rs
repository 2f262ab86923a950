//! A node's disk: batches are committed one after the other, each takes its time, and effects wait for theirs. It may
//! be full for a while, and fsync may fail once and for all.

use super::agenda::Dice;
use crate::engine::command::CommandError;
use crate::engine::effect::{Effect, Outcome, unkept};
use crate::engine::error::Code;
use crate::engine::persist::{Batch, Durability, Table};
use crate::engine::replica::Records;
use crate::store::memory::{Fault, Image, Memory};
use crate::store::{Store, StoreError};

/// A store and what is on its way there.
#[derive(Debug, Default)]
pub(super) struct Disk {
    store: Memory,
    under_way: Option<(Batch, Vec<Effect>)>,
    queued: Option<(Batch, Vec<Effect>)>,
    health: Health,
    copy: Option<Image>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Health {
    #[default]
    Saves,
    Full,
    Failed,
}

/// What became of a commit, and what is to be performed.
#[derive(Debug)]
pub(super) enum Committed {
    /// It is on disk; whether another began.
    Saved(Vec<Effect>, bool),
    /// It is not, for a reason that the engine does not know yet; whether it is tried again.
    Unsaved(CommandError, Vec<Effect>, bool),
    /// It is not, as before, and is tried again.
    StillUnsaved,
    /// It is on disk, and with it everything that could not be saved before.
    SavedAgain(Vec<Effect>),
}

impl Disk {
    /// Takes an outcome. Returns what may be performed at once, and whether a commit began.
    pub(super) fn accept(&mut self, outcome: Outcome) -> (Vec<Effect>, bool) {
        let Outcome {
            persist,
            effects,
            live,
        } = outcome;
        let mut at_once = live;
        match self.health {
            Health::Saves => {}
            Health::Full => {
                self.queued.get_or_insert_default().0.append(persist);
                at_once.extend(effects);
                return (at_once, false);
            }
            Health::Failed => {
                at_once.extend(effects);
                return (at_once, false);
            }
        }
        if !persist.is_empty() {
            let (batch, waiting) = self.queued.get_or_insert_default();
            batch.append(persist);
            waiting.extend(effects);
        } else if let Some((_, waiting)) = self.queued.as_mut().or(self.under_way.as_mut()) {
            waiting.extend(effects);
        } else {
            at_once.extend(effects);
        }
        (at_once, self.begin())
    }

    /// The commit under way reaches the disk, or what waits for room is tried again.
    pub(super) fn committed(&mut self) -> Committed {
        self.begin();
        let Some((batch, effects)) = self.under_way.take() else {
            return Committed::Saved(Vec::new(), false);
        };
        match self.store.commit(batch.clone(), Durability::Immediate) {
            Ok(()) if self.health == Health::Full => {
                self.health = Health::Saves;
                Committed::SavedAgain(effects)
            }
            Ok(()) => Committed::Saved(effects, self.begin()),
            Err(error) => self.unsaved(&error, batch, effects),
        }
    }

    fn unsaved(
        &mut self,
        error: &StoreError,
        mut batch: Batch,
        mut effects: Vec<Effect>,
    ) -> Committed {
        let is_full = *error == StoreError::DiskFull;
        let code = if is_full {
            Code::DiskFull
        } else {
            Code::StoreFailed
        };
        let refusal = CommandError::new(code, error.to_string());
        if let Some((later, waiting)) = self.queued.take() {
            batch.append(later);
            effects.extend(waiting);
        }
        let (now, later) = unkept(effects, &refusal);
        let is_news = !is_full || self.health == Health::Saves;
        self.health = if is_full {
            self.queued = Some((batch, later));
            Health::Full
        } else {
            Health::Failed
        };
        if is_news {
            Committed::Unsaved(refusal, now, is_full)
        } else {
            Committed::StillUnsaved
        }
    }

    fn begin(&mut self) -> bool {
        if self.under_way.is_some() {
            return false;
        }
        self.under_way = self.queued.take();
        self.under_way.is_some()
    }

    /// Fills the disk, or makes room on it.
    pub(super) fn set_full(&mut self, full: bool) {
        self.store.set_full(full);
    }

    /// The next fsync fails. What it was for has reached the disk or has not: the next start sees.
    pub(super) fn fail(&mut self, dice: &mut Dice) {
        self.store.fail_next_commit(if dice.percent(50) {
            Fault::KeptUnsaid
        } else {
            Fault::Lost
        });
    }

    /// The process dies. What it wanted performed is never performed; the batch under way has reached the disk or
    /// has not.
    pub(super) fn crash(&mut self, dice: &mut Dice) {
        self.queued = None;
        self.health = Health::Saves;
        if let Some((batch, _)) = self.under_way.take()
            && dice.percent(50)
        {
            // A disk that is full or has failed takes nothing now either.
            drop(self.store.commit(batch, Durability::Immediate));
        }
        self.store = Memory::from_image(self.store.image());
    }

    /// Somebody makes a copy of what is on disk.
    pub(super) fn copy(&mut self) {
        self.copy = Some(self.store.image());
    }

    /// The copy is put back, if there is one; the process has died.
    pub(super) fn put_back(&mut self) -> bool {
        let copy = self.copy.take();
        let there = copy.is_some();
        if let Some(copy) = copy {
            self.store = Memory::from_image(copy);
        }
        there
    }

    /// Whether there is a copy.
    pub(super) fn has_copy(&self) -> bool {
        self.copy.is_some()
    }

    /// Everything that the next start finds.
    pub(super) fn records(&self) -> Result<Records, StoreError> {
        let mut records = Vec::new();
        for table in Table::ALL {
            records.extend(self.store.scan(table)?.records);
        }
        Ok(Records::new(records))
    }
}
