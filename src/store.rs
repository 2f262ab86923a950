//! Storage in four verbs: `load`, `scan`, `commit`, `compact`. The engine says what to keep (a
//! [`Batch`] of places and bytes); a store keeps it, may fail, and says how.
//!
//! Two stores pass the same list of tests (at the bottom): [`memory`], for the simulated world, which can
//! crash and fail on order, and [`disk`], one redb file per member in which every record is sealed
//! to its place ([`seal`]).

#[cfg(feature = "store")]
pub mod disk;
pub mod memory;
#[cfg(feature = "store")]
mod schema;
pub mod seal;

pub use crate::engine::persist::{Batch, Durability, Key, Table};

/// A place for records that outlives the process.
pub trait Store: Send {
    /// The record at `key`, or `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if the record is there and is not what was written there.
    fn load(&self, key: &Key) -> Result<Option<Vec<u8>>, StoreError>;

    /// All records of `table`, ordered by key, and the places of those that are damaged.
    ///
    /// # Errors
    /// Those of reading the table as a whole; a damaged record is no error.
    fn scan(&self, table: Table) -> Result<Scan, StoreError>;

    /// Makes the whole batch take effect, or nothing of it.
    ///
    /// # Errors
    /// After [`StoreError::DiskFull`] what the disk holds of this batch is unknown, and reading may fail, until
    /// a later commit succeeds: the same batch, with what has come since, may be tried again. Any other error
    /// poisons the store: what the disk holds of this batch is unknown until the next start, and every later
    /// commit answers [`StoreError::Poisoned`].
    fn commit(&mut self, batch: Batch, durability: Durability) -> Result<(), StoreError>;

    /// Gives space of deleted and replaced records back.
    ///
    /// # Errors
    /// As for [`Store::commit`].
    fn compact(&mut self) -> Result<(), StoreError>;
}

/// What a scan found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scan {
    /// Sound records, ordered by key.
    pub records: Vec<(Key, Vec<u8>)>,
    /// Places whose record is not what was written there, ordered; members have it and are asked.
    pub damaged: Vec<Key>,
}

/// Why a store did not do as it was told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The folder or file may not be written: permissions or a read-only mount.
    #[error("the state folder cannot be written: {0}")]
    Unwritable(String),
    /// No space, quota or file size left.
    #[error("the disk is full")]
    DiskFull,
    /// The record at this place fails its authentication.
    #[error("the record {key} is damaged")]
    Corrupt {
        /// The place.
        key: Key,
    },
    /// The file as a whole, or its key, cannot be used.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// An earlier commit failed; the store is read-only until the next start.
    #[error("an earlier write failed, so nothing more is saved until the next start")]
    Poisoned,
    /// Another process, or another part of this one, has the store open.
    #[error("the store is in use by another process")]
    Locked,
    /// Anything else the operating system says.
    #[error("the store cannot be used: {0}")]
    Io(String),
}

impl StoreError {
    /// The stable code that people and scripts see.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unwritable(_) => "state-unwritable",
            Self::DiskFull => "disk-full",
            Self::Corrupt { .. } | Self::Damaged(_) => "store-corrupt",
            Self::Poisoned | Self::Io(_) => "store-failed",
            Self::Locked => "state-locked",
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A store that can be closed, reopened and damaged, so that one list of tests fits all.
    pub(crate) trait Bench {
        fn store(&mut self) -> &mut dyn Store;
        /// Drops the store without a farewell and opens what remains.
        fn crash(&mut self);
        /// Flips one bit of the stored record.
        fn flip_a_bit(&mut self, key: &Key);
        /// Stores the record of `from` at `to`, as a misdirected write would.
        fn misdirect(&mut self, from: &Key, to: &Key);
        /// Makes the next commit fail as a failing fsync does.
        fn fail_next_commit(&mut self);
        /// Makes commits meet a full disk.
        fn fill_disk(&mut self);
        /// Makes room on the disk.
        fn free_disk(&mut self);
    }

    /// Every promise of [`Store`], on a fresh bench each.
    pub(crate) fn keeps_its_promises<B: Bench>(fresh: impl Fn() -> B) {
        what_is_committed_is_loaded_and_survives_a_crash(fresh());
        a_scan_is_ordered_and_stays_in_its_table(fresh());
        a_batch_deletes_and_puts_together(fresh());
        an_eventual_commit_is_seen_at_once_and_kept_by_the_next_immediate_one(fresh());
        an_eventual_commit_alone_is_lost_in_a_crash(fresh());
        a_flipped_bit_is_found_and_the_others_are_returned(fresh());
        a_record_at_a_foreign_place_is_refused(fresh());
        a_failed_commit_poisons_the_store(fresh());
        a_full_disk_takes_the_batch_once_there_is_room(fresh());
        a_crash_on_a_full_disk_loses_nothing_that_was_saved(fresh());
        compacting_changes_nothing(fresh());
        an_empty_batch_is_no_commit(fresh());
        a_damaged_record_can_be_written_again(fresh());
    }

    fn at(table: Table, key: &[u8]) -> Key {
        Key::new(table, key)
    }

    fn put(store: &mut dyn Store, key: &Key, value: &[u8]) {
        let mut batch = Batch::new();
        batch.put(key.clone(), value.to_vec());
        store.commit(batch, Durability::Immediate).unwrap();
    }

    fn what_is_committed_is_loaded_and_survives_a_crash(mut bench: impl Bench) {
        let (log, keys) = (at(Table::Log, b"a"), at(Table::Keys, b"a"));
        put(bench.store(), &log, b"one");
        put(bench.store(), &keys, b"");

        assert_eq!(
            bench.store().load(&log).unwrap().as_deref(),
            Some(&b"one"[..])
        );
        bench.crash();

        assert_eq!(
            bench.store().load(&log).unwrap().as_deref(),
            Some(&b"one"[..])
        );
        assert_eq!(
            bench.store().load(&keys).unwrap().as_deref(),
            Some(&b""[..])
        );
        assert_eq!(bench.store().load(&at(Table::Log, b"b")).unwrap(), None);
        assert_eq!(bench.store().load(&at(Table::Bodies, b"a")).unwrap(), None);
    }

    fn a_scan_is_ordered_and_stays_in_its_table(mut bench: impl Bench) {
        for key in [&b"b"[..], b"", b"ab", b"a", &[0xff]] {
            put(bench.store(), &at(Table::Log, key), key);
        }
        put(bench.store(), &at(Table::Bodies, b"aa"), b"elsewhere");

        let scan = bench.store().scan(Table::Log).unwrap();

        let keys: Vec<&[u8]> = scan
            .records
            .iter()
            .map(|(key, _)| key.key.as_slice())
            .collect();
        assert_eq!(keys, [&b""[..], b"a", b"ab", b"b", &[0xff]]);
        assert!(scan.records.iter().all(|(key, value)| key.key == *value));
        assert!(scan.damaged.is_empty());
        assert_eq!(bench.store().scan(Table::Events).unwrap(), Scan::default());
    }

    fn a_batch_deletes_and_puts_together(mut bench: impl Bench) {
        let (old, new) = (at(Table::Meta, b"old"), at(Table::Membership, b"new"));
        put(bench.store(), &old, b"x");
        let mut batch = Batch::new();
        batch.delete(old.clone());
        batch.delete(at(Table::Log, b"never was"));
        batch.put(new.clone(), b"y".to_vec());

        bench.store().commit(batch, Durability::Immediate).unwrap();
        bench.crash();

        assert_eq!(bench.store().load(&old).unwrap(), None);
        assert_eq!(
            bench.store().load(&new).unwrap().as_deref(),
            Some(&b"y"[..])
        );
    }

    fn eventually(store: &mut dyn Store, key: &Key) {
        let mut batch = Batch::new();
        batch.put(key.clone(), b"cache".to_vec());
        store.commit(batch, Durability::Eventual).unwrap();
    }

    fn an_eventual_commit_is_seen_at_once_and_kept_by_the_next_immediate_one(
        mut bench: impl Bench,
    ) {
        let cache = at(Table::Documents, b"d");
        eventually(bench.store(), &cache);
        assert!(bench.store().load(&cache).unwrap().is_some());

        put(bench.store(), &at(Table::Log, b"a"), b"one");
        bench.crash();

        assert!(bench.store().load(&cache).unwrap().is_some());
    }

    fn an_eventual_commit_alone_is_lost_in_a_crash(mut bench: impl Bench) {
        let cache = at(Table::Documents, b"d");
        put(bench.store(), &at(Table::Log, b"a"), b"one");
        eventually(bench.store(), &cache);

        bench.crash();

        assert_eq!(bench.store().load(&cache).unwrap(), None);
        assert!(bench.store().load(&at(Table::Log, b"a")).unwrap().is_some());
    }

    fn a_flipped_bit_is_found_and_the_others_are_returned(mut bench: impl Bench) {
        let (good, bad) = (at(Table::Bodies, b"good"), at(Table::Bodies, b"hurt"));
        put(bench.store(), &good, &[7; 600]);
        put(bench.store(), &bad, &[8; 600]);

        bench.flip_a_bit(&bad);

        let error = bench.store().load(&bad).unwrap_err();
        assert_eq!(error, StoreError::Corrupt { key: bad.clone() });
        let scan = bench.store().scan(Table::Bodies).unwrap();
        assert_eq!(scan.records, [(good, vec![7; 600])]);
        assert_eq!(scan.damaged, [bad]);
    }

    fn a_record_at_a_foreign_place_is_refused(mut bench: impl Bench) {
        let places = [
            at(Table::Log, b"a"),
            at(Table::Log, b"b"),
            at(Table::Membership, b"a"),
        ];
        let [home, sibling, cousin] = &places;
        places
            .iter()
            .for_each(|place| put(bench.store(), place, b"mine"));

        bench.misdirect(home, sibling);
        bench.misdirect(home, cousin);

        for stranger in [sibling, cousin] {
            let error = bench.store().load(stranger).unwrap_err();
            assert_eq!(
                error,
                StoreError::Corrupt {
                    key: stranger.clone()
                }
            );
        }
        assert_eq!(
            bench.store().load(home).unwrap().as_deref(),
            Some(&b"mine"[..])
        );
    }

    fn a_failed_commit_poisons_the_store(mut bench: impl Bench) {
        let (before, after) = (at(Table::Log, b"1"), at(Table::Log, b"2"));
        put(bench.store(), &before, b"safe");
        bench.fail_next_commit();
        let mut batch = Batch::new();
        batch.put(after, b"lost".to_vec());

        let first = bench
            .store()
            .commit(batch.clone(), Durability::Immediate)
            .unwrap_err();
        let second = bench
            .store()
            .commit(batch, Durability::Immediate)
            .unwrap_err();

        assert!(matches!(first, StoreError::Io(_)), "{first:?}");
        assert_eq!(second, StoreError::Poisoned);
        assert_eq!(bench.store().compact().unwrap_err(), StoreError::Poisoned);
        bench.crash();
        assert_eq!(
            bench.store().load(&before).unwrap().as_deref(),
            Some(&b"safe"[..])
        );
        put(bench.store(), &before, b"again");
    }

    fn a_full_disk_takes_the_batch_once_there_is_room(mut bench: impl Bench) {
        let (before, big) = (at(Table::Log, b"1"), at(Table::Bodies, b"big"));
        put(bench.store(), &before, b"safe");
        bench.fill_disk();
        let mut batch = Batch::new();
        batch.put(big.clone(), vec![1; 1 << 20]);

        for _ in 0..3 {
            let refused = bench.store().commit(batch.clone(), Durability::Immediate);
            assert_eq!(refused, Err(StoreError::DiskFull));
        }
        bench.free_disk();
        bench.store().commit(batch, Durability::Immediate).unwrap();

        put(bench.store(), &at(Table::Log, b"2"), b"goes on");
        bench.crash();
        let sizes = [&before, &big].map(|key| bench.store().load(key).unwrap().unwrap().len());
        assert_eq!(sizes, [4, 1 << 20]);
        assert!(bench.store().load(&at(Table::Log, b"2")).unwrap().is_some());
    }

    fn a_crash_on_a_full_disk_loses_nothing_that_was_saved(mut bench: impl Bench) {
        let before = at(Table::Log, b"1");
        put(bench.store(), &before, b"safe");
        bench.fill_disk();
        let mut batch = Batch::new();
        batch.put(at(Table::Bodies, b"big"), vec![1; 1 << 20]);
        bench
            .store()
            .commit(batch, Durability::Immediate)
            .unwrap_err();

        bench.crash();

        let kept = bench.store().load(&before).unwrap();
        assert_eq!(kept.as_deref(), Some(&b"safe"[..]));
    }

    fn compacting_changes_nothing(mut bench: impl Bench) {
        for n in 0_u8..50 {
            put(bench.store(), &at(Table::Bodies, &[n]), &[n; 2_000]);
        }
        let mut batch = Batch::new();
        (0_u8..40).for_each(|n| batch.delete(at(Table::Bodies, &[n])));
        bench.store().commit(batch, Durability::Immediate).unwrap();
        let before = bench.store().scan(Table::Bodies).unwrap();

        bench.store().compact().unwrap();

        assert_eq!(bench.store().scan(Table::Bodies).unwrap(), before);
        bench.crash();
        assert_eq!(bench.store().scan(Table::Bodies).unwrap(), before);
        assert_eq!(before.records.len(), 10);
    }

    fn an_empty_batch_is_no_commit(mut bench: impl Bench) {
        bench.fail_next_commit();

        bench
            .store()
            .commit(Batch::new(), Durability::Immediate)
            .unwrap();
    }

    fn a_damaged_record_can_be_written_again(mut bench: impl Bench) {
        let place = at(Table::Log, b"a");
        put(bench.store(), &place, &[3; 300]);
        bench.flip_a_bit(&place);

        put(bench.store(), &place, &[3; 300]);

        assert_eq!(bench.store().load(&place).unwrap(), Some(vec![3; 300]));
    }
}
