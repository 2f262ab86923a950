//! What the engine wants on disk, as plain data. Every record has a place, `(table, key)`; an outcome's
//! [`Batch`] is committed whole or not at all, before anything that follows from it is sent
//! (handle → persist → perform).
//!
//! Values are sealed by the store, places are not: a key holds ids and numbers only, never a word, a name or
//! a secret.

use std::collections::BTreeMap;
use std::fmt;

use data_encoding::HEXLOWER;

/// One of the store's tables. Its number is part of the format on disk and is never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// Facts about this node: format, instance number, ports, settings.
    Meta = 1,
    /// Secret keys: the member's, the session's root, prekeys, seeds of invitations.
    Keys = 2,
    /// Membership statements.
    Membership = 3,
    /// Epoch secrets.
    Epochs = 4,
    /// Headers of envelopes, by log and sequence number, so that a scan gives each log in order.
    Log = 5,
    /// Sealed bodies of envelopes, by their hash.
    Bodies = 6,
    /// Saved documents: a cache that can be rebuilt from `Log` and `Bodies`.
    Documents = 7,
    /// Signed addresses of members.
    Addresses = 8,
    /// Events shown to faces, by their local number.
    Events = 9,
}

/// Where a record lives.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its table.
    pub table: Table,
    /// Its name there; records of one table are ordered by these bytes.
    pub key: Vec<u8>,
}

/// What a commit promises when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The batch survives any crash and power loss once the disk has obeyed fsync.
    Immediate,
    /// The batch is visible at once, survives once a later immediate commit returns, and may be lost before:
    /// for caches only.
    Eventual,
}

/// Puts and deletes that take effect together. For each place the last word counts.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Batch {
    changes: BTreeMap<Key, Option<Vec<u8>>>,
}

impl Table {
    /// All tables, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Meta,
        Self::Keys,
        Self::Membership,
        Self::Epochs,
        Self::Log,
        Self::Bodies,
        Self::Documents,
        Self::Addresses,
        Self::Events,
    ];

    /// The number of the table in the format on disk.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// Whether losing the newest commit's atomicity would cost keys or rights, so that it is worth a second
    /// fsync.
    pub fn is_precious(self) -> bool {
        match self {
            Self::Keys | Self::Membership | Self::Epochs => true,
            Self::Meta
            | Self::Log
            | Self::Bodies
            | Self::Documents
            | Self::Addresses
            | Self::Events => false,
        }
    }
}

impl Key {
    /// The place `key` in `table`.
    pub fn new(table: Table, key: impl Into<Vec<u8>>) -> Self {
        Self {
            table,
            key: key.into(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{}", self.table, HEXLOWER.encode(&self.key))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

impl Batch {
    /// A batch that changes nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes `value` at `key`, replacing what is there.
    pub fn put(&mut self, key: Key, value: Vec<u8>) {
        self.changes.insert(key, Some(value));
    }

    /// Removes what is at `key`, if anything.
    pub fn delete(&mut self, key: Key) {
        self.changes.insert(key, None);
    }

    /// Adds what a later outcome wants, so that both go out in one commit.
    pub fn append(&mut self, later: Self) {
        self.changes.extend(later.changes);
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Number of places it changes.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Bytes of all values it writes.
    pub fn bytes(&self) -> usize {
        self.puts().map(|(_, value)| value.len()).sum()
    }

    /// Whether it touches a table that is worth a two-phase commit.
    pub fn is_precious(&self) -> bool {
        self.changes.keys().any(|key| key.table.is_precious())
    }

    /// What it writes, ordered by place.
    pub fn puts(&self) -> impl Iterator<Item = (&Key, &[u8])> {
        self.changes
            .iter()
            .filter_map(|(key, value)| Some((key, value.as_deref()?)))
    }

    /// What it removes, ordered by place.
    pub fn deletes(&self) -> impl Iterator<Item = &Key> {
        self.changes
            .iter()
            .filter(|(_, value)| value.is_none())
            .map(|(key, _)| key)
    }

    /// Every change, ordered by place: a value to write, or `None` to remove.
    pub fn into_changes(self) -> impl Iterator<Item = (Key, Option<Vec<u8>>)> {
        self.changes.into_iter()
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes = self
            .changes
            .iter()
            .map(|(key, value)| (key, value.as_ref().map(Vec::len)));
        f.debug_map().entries(sizes).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_about_a_place_counts() {
        let place = Key::new(Table::Meta, *b"instance");
        let mut batch = Batch::new();
        batch.put(place.clone(), vec![1]);
        let mut later = Batch::new();
        later.put(place.clone(), vec![2]);

        batch.append(later);

        assert_eq!(batch.puts().collect::<Vec<_>>(), [(&place, &[2][..])]);
        batch.delete(place.clone());
        assert_eq!(batch.puts().count(), 0);
        assert_eq!(batch.deletes().collect::<Vec<_>>(), [&place]);
        assert_eq!(batch.len(), 1);
    }

    #[test]
    fn table_numbers_are_distinct_and_in_order() {
        let numbers: Vec<u8> = Table::ALL.iter().map(|table| table.number()).collect();

        assert!(numbers.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn a_batch_never_prints_its_values() {
        let mut batch = Batch::new();
        batch.put(Key::new(Table::Keys, *b"k"), b"hush".to_vec());

        let printed = format!("{batch:?}");

        assert!(
            !printed.contains("hush") && !printed.contains("104"),
            "{printed}"
        );
        assert!(printed.contains("Keys/6b"));
    }
}
