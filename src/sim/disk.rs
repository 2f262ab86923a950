//! A node's disk: batches are committed one after the other, each takes its time, and effects wait for theirs.

use super::agenda::Dice;
use crate::engine::effect::{Effect, Outcome};
use crate::engine::persist::{Batch, Durability, Table};
use crate::engine::replica::Records;
use crate::store::memory::{Image, Memory};
use crate::store::{Store, StoreError};

/// A store and what is on its way there.
#[derive(Debug, Default)]
pub(super) struct Disk {
    store: Memory,
    under_way: Option<(Batch, Vec<Effect>)>,
    queued: Option<(Batch, Vec<Effect>)>,
    copy: Option<Image>,
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

    /// The commit under way is on disk. Returns its effects, and whether another began.
    pub(super) fn committed(&mut self) -> Result<(Vec<Effect>, bool), StoreError> {
        let Some((batch, effects)) = self.under_way.take() else {
            return Ok((Vec::new(), false));
        };
        self.store.commit(batch, Durability::Immediate)?;
        Ok((effects, self.begin()))
    }

    fn begin(&mut self) -> bool {
        if self.under_way.is_some() {
            return false;
        }
        self.under_way = self.queued.take();
        self.under_way.is_some()
    }

    /// The process dies. What it wanted performed is never performed; the batch under way has reached the disk or
    /// has not.
    pub(super) fn crash(&mut self, dice: &mut Dice) {
        self.queued = None;
        if let Some((batch, _)) = self.under_way.take()
            && dice.percent(50)
        {
            // A store in memory without a planted fault takes every batch.
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
