//! A store in memory that keeps the promises of the one on disk and breaks on order: commits fail, disks
//! fill, records rot, and a crash takes what no immediate commit had secured. The simulated world runs on
//! it; so does a node that is told to keep nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::{Batch, Durability, Key, Scan, Store, StoreError, Table};

/// Records in memory. What a crash would leave is [`Memory::image`].
#[derive(Debug, Clone, Default)]
pub struct Memory {
    records: BTreeMap<Key, Vec<u8>>,
    damaged: BTreeSet<Key>,
    /// What the secured state holds at each place that changed since.
    unsecured: BTreeMap<Key, Option<Vec<u8>>>,
    /// What a failed fsync left behind, where that is not what was acknowledged.
    unsaid: Option<Image>,
    fault: Option<Fault>,
    full: bool,
    poisoned: bool,
}

/// What remains after a crash. Two images are equal if they hold the same records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Image {
    records: BTreeMap<Key, Vec<u8>>,
    damaged: BTreeSet<Key>,
}

/// How a commit fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The write fails and nothing of the batch reaches the disk.
    Lost,
    /// Fsync fails although the batch has reached the disk: the next start finds it.
    KeptUnsaid,
}

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// The store as the next start finds it: after a crash, or from an old backup.
    pub fn from_image(image: Image) -> Self {
        Self {
            records: image.records,
            damaged: image.damaged,
            ..Self::default()
        }
    }

    /// What a crash now would leave: the effect of all immediate commits.
    pub fn image(&self) -> Image {
        if let Some(unsaid) = &self.unsaid {
            return unsaid.clone();
        }
        let mut records = self.records.clone();
        set_all(&mut records, self.unsecured.clone());
        Image {
            records,
            damaged: self.damaged.clone(),
        }
    }

    /// Makes the next commit fail; a later call replaces the order.
    pub fn fail_next_commit(&mut self, fault: Fault) {
        self.fault = Some(fault);
    }

    /// Fills the disk, or makes room on it.
    pub fn set_full(&mut self, full: bool) {
        self.full = full;
    }

    /// Lets the record at `key` rot, if there is one; it is refused until it is written again.
    pub fn damage(&mut self, key: &Key) {
        if self.records.contains_key(key) {
            self.damaged.insert(key.clone());
        }
    }

    /// Bytes of all values.
    pub fn bytes(&self) -> usize {
        self.records.values().map(Vec::len).sum()
    }

    fn apply(&mut self, batch: Batch) {
        for (key, value) in batch.into_changes() {
            self.damaged.remove(&key);
            let before = set(&mut self.records, key.clone(), value);
            self.unsecured.entry(key).or_insert(before);
        }
    }

    fn fail(&mut self, fault: Fault, batch: Batch) -> StoreError {
        self.poisoned = true;
        match fault {
            Fault::Lost => StoreError::Io("the write failed".to_owned()),
            Fault::KeptUnsaid => {
                let mut kept = Image {
                    records: self.records.clone(),
                    damaged: self.damaged.clone(),
                };
                kept.damaged
                    .retain(|key| !batch.puts().any(|(put, _)| put == key));
                set_all(&mut kept.records, batch.into_changes());
                self.unsaid = Some(kept);
                StoreError::Io("fsync failed".to_owned())
            }
        }
    }
}

impl Store for Memory {
    fn load(&self, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
        if self.damaged.contains(key) {
            return Err(StoreError::Corrupt { key: key.clone() });
        }
        Ok(self.records.get(key).cloned())
    }

    fn scan(&self, table: Table) -> Result<Scan, StoreError> {
        let mut scan = Scan::default();
        let start = Key::new(table, []);
        for (key, value) in self
            .records
            .range(start..)
            .take_while(|(key, _)| key.table == table)
        {
            if self.damaged.contains(key) {
                scan.damaged.push(key.clone());
            } else {
                scan.records.push((key.clone(), value.clone()));
            }
        }
        Ok(scan)
    }

    fn commit(&mut self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        if self.poisoned {
            return Err(StoreError::Poisoned);
        }
        if batch.is_empty() && (durability == Durability::Eventual || self.unsecured.is_empty()) {
            return Ok(());
        }
        if self.full {
            return Err(StoreError::DiskFull);
        }
        if let Some(fault) = self.fault.take() {
            return Err(self.fail(fault, batch));
        }
        self.apply(batch);
        if durability == Durability::Immediate {
            self.unsecured.clear();
        }
        Ok(())
    }

    fn compact(&mut self) -> Result<(), StoreError> {
        if self.poisoned {
            Err(StoreError::Poisoned)
        } else {
            Ok(())
        }
    }
}

/// Sets or removes one record and returns what was there.
fn set(records: &mut BTreeMap<Key, Vec<u8>>, key: Key, value: Option<Vec<u8>>) -> Option<Vec<u8>> {
    match value {
        Some(value) => records.insert(key, value),
        None => records.remove(&key),
    }
}

fn set_all(
    records: &mut BTreeMap<Key, Vec<u8>>,
    changes: impl IntoIterator<Item = (Key, Option<Vec<u8>>)>,
) {
    for (key, value) in changes {
        set(records, key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{Bench, keeps_its_promises};

    struct InMemory(Memory);

    impl Bench for InMemory {
        fn store(&mut self) -> &mut dyn Store {
            &mut self.0
        }

        fn crash(&mut self) {
            self.0 = Memory::from_image(self.0.image());
        }

        fn flip_a_bit(&mut self, key: &Key) {
            self.0.damage(key);
        }

        fn misdirect(&mut self, _from: &Key, to: &Key) {
            self.0.damage(to);
        }

        fn fail_next_commit(&mut self) {
            self.0.fail_next_commit(Fault::Lost);
        }

        fn fill_disk(&mut self) {
            self.0.set_full(true);
        }

        fn free_disk(&mut self) {
            self.0.set_full(false);
        }
    }

    #[test]
    fn the_memory_store_keeps_the_promises_of_a_store() {
        keeps_its_promises(|| InMemory(Memory::new()));
    }

    #[test]
    fn a_batch_that_fsync_failed_on_may_be_there_after_the_crash() {
        let place = Key::new(Table::Log, *b"a");
        let mut batch = Batch::new();
        batch.put(place.clone(), vec![1]);
        let mut store = Memory::new();
        store.fail_next_commit(Fault::KeptUnsaid);

        assert!(store.commit(batch, Durability::Immediate).is_err());

        assert_eq!(store.load(&place), Ok(None));
        assert_eq!(
            Memory::from_image(store.image()).load(&place),
            Ok(Some(vec![1]))
        );
    }

    #[test]
    fn an_image_is_not_changed_by_later_commits() {
        let place = Key::new(Table::Log, *b"a");
        let mut store = Memory::new();
        let backup = store.image();
        let mut batch = Batch::new();
        batch.put(place.clone(), vec![1]);

        store.commit(batch, Durability::Immediate).unwrap();

        assert_ne!(store.image(), backup);
        assert_eq!(Memory::from_image(backup).load(&place), Ok(None));
    }
}
