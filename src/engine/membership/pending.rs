//! Where statements wait for others that they name.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::identity::Verified;
use crate::engine::ids::{Hash, MemberId};
use crate::engine::limits::{PENDING_STATEMENTS_BYTES_MAX, PENDING_STATEMENTS_MAX};
use crate::engine::statement::Statement;

/// Statements whose parents are not all here, bounded in number and bytes. When it is full, the author with most
/// of them loses the one that is furthest in its log: it will be offered again.
#[derive(Debug, Clone, Default)]
pub(super) struct Pending {
    waiting: BTreeMap<Hash, Waiting>,
    /// Who waits for whom.
    by_missing: BTreeMap<Hash, BTreeSet<Hash>>,
    by_author: BTreeMap<MemberId, BTreeSet<(u64, Hash)>>,
    bytes: usize,
}

#[derive(Debug, Clone)]
struct Waiting {
    statement: Verified<Statement>,
    missing: BTreeSet<Hash>,
}

impl Pending {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn holds(&self, hash: &Hash) -> bool {
        self.waiting.contains_key(hash)
    }

    pub(super) fn wanted(&self) -> impl Iterator<Item = &Hash> {
        self.by_missing.keys()
    }

    pub(super) fn hold(&mut self, statement: Verified<Statement>, missing: &[Hash]) {
        let hash = statement.hash();
        for one in missing {
            self.by_missing.entry(*one).or_default().insert(hash);
        }
        self.by_author
            .entry(statement.member)
            .or_default()
            .insert((statement.seq, hash));
        self.bytes += statement.bytes().len();
        let missing = missing.iter().copied().collect();
        self.waiting.insert(hash, Waiting { statement, missing });
        while self.len() > PENDING_STATEMENTS_MAX || self.bytes > PENDING_STATEMENTS_BYTES_MAX {
            let Some(victim) = self.victim() else { return };
            self.take(&victim);
        }
    }

    fn victim(&self) -> Option<Hash> {
        let most = self
            .by_author
            .iter()
            .max_by_key(|(author, held)| (held.len(), **author));
        most.and_then(|(_, held)| held.last())
            .map(|(_, hash)| *hash)
    }

    /// Takes out those that waited only for this one any more.
    pub(super) fn ready(&mut self, arrived: &Hash) -> Vec<Verified<Statement>> {
        let waiters = self.by_missing.remove(arrived).unwrap_or_default();
        let mut ready = Vec::new();
        for waiter in waiters {
            let Some(waiting) = self.waiting.get_mut(&waiter) else {
                continue;
            };
            waiting.missing.remove(arrived);
            if waiting.missing.is_empty() {
                ready.extend(self.take(&waiter));
            }
        }
        ready
    }

    fn take(&mut self, hash: &Hash) -> Option<Verified<Statement>> {
        let Waiting { statement, missing } = self.waiting.remove(hash)?;
        self.bytes = self.bytes.saturating_sub(statement.bytes().len());
        for one in &missing {
            remove_from(&mut self.by_missing, one, hash);
        }
        remove_from(
            &mut self.by_author,
            &statement.member,
            &(statement.seq, *hash),
        );
        Some(statement)
    }
}

fn remove_from<K: Ord, V: Ord>(map: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(set) = map.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            map.remove(key);
        }
    }
}
