//! One member's hash chain of statements and envelopes, and all the chains that a node holds.
//!
//! Every entry names its author, its number in the author's log and the hash of the entry before it, so a
//! log's [`Frontier`] says everything about it, and a [`Logs::vector`] everything about a node. Entries come in
//! any order and from anybody; here they are put in order, those that came early wait in a bounded pool, and
//! two entries with the same number are a proof that their author wrote two histories.
//!
//! Whether an entry is allowed is not asked here: membership and the gate say so later.

use std::collections::BTreeMap;

use crate::engine::entropy::Entropy;
use crate::engine::envelope::{EnvelopeBody, EnvelopeError, Place, SealedEnvelope};
use crate::engine::epoch::EpochId;
use crate::engine::identity::{MemberKey, Verified};
use crate::engine::ids::{DocumentId, Hash, MemberId, SessionId};
use crate::engine::limits::{LOG_POOL_BYTES_MAX, LOG_POOL_ENTRIES_MAX, LOG_POOLS_BYTES_MAX};
use crate::engine::statement::{
    Draft, Frontier, SignedStatement, Statement, StatementBody, StatementError,
};
use crate::engine::time::Wall;

/// First byte of an encoded statement.
const STATEMENT_TAG: u8 = 0;
/// First byte of an encoded envelope.
const ENVELOPE_TAG: u8 = 1;

/// Why bytes are no entry, or an entry cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The first byte names no kind of entry.
    #[error("the bytes are no log entry")]
    Unknown,
    /// It does not continue the log it is meant for.
    #[error("the entry does not follow the last one of its log")]
    OutOfPlace,
    /// It is meant to be a statement and is none.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// It is meant to be an envelope and is none.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
}

/// One link of a log. Its signature has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A fact about membership.
    Statement(Box<Verified<Statement>>),
    /// A document change, with or without its body.
    Envelope(Box<SealedEnvelope>),
}

impl Entry {
    /// Reads an entry from a peer and checks size, form and signature.
    ///
    /// # Errors
    /// The bytes are no statement and no envelope of this protocol version.
    pub fn decode(bytes: &[u8]) -> Result<Self, LogError> {
        match bytes.split_first() {
            Some((&STATEMENT_TAG, rest)) => {
                Ok(Self::Statement(Box::new(SignedStatement::decode(rest)?)))
            }
            Some((&ENVELOPE_TAG, rest)) => {
                Ok(Self::Envelope(Box::new(SealedEnvelope::decode(rest)?)))
            }
            Some(_) | None => Err(LogError::Unknown),
        }
    }

    /// Reads an entry that this node checked before it stored it. Only for records whose own authentication
    /// has just been verified: an envelope's signature is not looked at again.
    ///
    /// # Errors
    /// The bytes are no entry of this protocol version.
    pub fn decode_stored(bytes: &[u8]) -> Result<Self, LogError> {
        match bytes.split_first() {
            Some((&STATEMENT_TAG, rest)) => {
                Ok(Self::Statement(Box::new(SignedStatement::decode(rest)?)))
            }
            Some((&ENVELOPE_TAG, rest)) => Ok(Self::Envelope(Box::new(
                SealedEnvelope::decode_stored(rest)?,
            ))),
            Some(_) | None => Err(LogError::Unknown),
        }
    }

    /// The bytes for wire and disk: one byte for the kind, then the signed form.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Statement(statement) => tagged(STATEMENT_TAG, statement.bytes()),
            Self::Envelope(envelope) => tagged(ENVELOPE_TAG, &envelope.encode()),
        }
    }

    /// The same bytes without an envelope's body.
    pub fn encode_head(&self) -> Vec<u8> {
        match self {
            Self::Statement(statement) => tagged(STATEMENT_TAG, statement.bytes()),
            Self::Envelope(envelope) => tagged(ENVELOPE_TAG, &envelope.encode_head()),
        }
    }

    /// The session that the entry was written for; a Genesis begins the session of its own hash.
    pub fn session(&self) -> SessionId {
        match self {
            Self::Statement(statement) => match &statement.body {
                StatementBody::Genesis(_) => SessionId(statement.hash().0),
                StatementBody::Grant(_)
                | StatementBody::Admit(_)
                | StatementBody::Revoke(_)
                | StatementBody::Epoch(_)
                | StatementBody::Prekey { .. }
                | StatementBody::Fork(_)
                | StatementBody::Seal(_)
                | StatementBody::Leave
                | StatementBody::Role(_)
                | StatementBody::Quota { .. }
                | StatementBody::Close { .. } => statement.session,
            },
            Self::Envelope(envelope) => envelope.header().session,
        }
    }

    /// The author, whose log it extends.
    pub fn member(&self) -> MemberId {
        match self {
            Self::Statement(statement) => statement.member,
            Self::Envelope(envelope) => envelope.header().member,
        }
    }

    /// Its number in that log, from 1.
    pub fn seq(&self) -> u64 {
        match self {
            Self::Statement(statement) => statement.seq,
            Self::Envelope(envelope) => envelope.header().seq,
        }
    }

    /// The hash of the entry before it.
    pub fn prev(&self) -> Hash {
        match self {
            Self::Statement(statement) => statement.prev,
            Self::Envelope(envelope) => envelope.header().prev,
        }
    }

    /// The hash by which others name it.
    pub fn hash(&self) -> Hash {
        match self {
            Self::Statement(statement) => statement.hash(),
            Self::Envelope(envelope) => envelope.hash(),
        }
    }

    /// Where its log ends with it.
    pub fn frontier(&self) -> Frontier {
        Frontier {
            seq: self.seq(),
            hash: self.hash(),
        }
    }

    /// Whether it is the entry after `have`. A Genesis follows nothing.
    fn follows(&self, have: &Frontier) -> bool {
        let genesis = self.prev() == Hash([0; 32]) && self.hash() == Hash(self.session().0);
        let prev = if genesis {
            Hash(self.session().0)
        } else {
            self.prev()
        };
        self.seq() == have.seq.saturating_add(1) && prev == have.hash
    }

    /// The running size of the log's envelopes after it, if it says so.
    fn total(&self) -> Option<u64> {
        match self {
            Self::Statement(_) => None,
            Self::Envelope(envelope) => Some(envelope.header().total),
        }
    }

    /// What it adds to that size.
    fn charge(&self) -> u64 {
        match self {
            Self::Statement(_) => 0,
            Self::Envelope(envelope) => envelope.header().charge(),
        }
    }

    fn lacks_body(&self) -> bool {
        match self {
            Self::Statement(_) => false,
            Self::Envelope(envelope) => envelope.body().is_none(),
        }
    }
}

/// Of what an envelope is made, beside its change.
#[derive(Debug, Clone)]
pub struct NewEnvelope<'a> {
    /// The document that is changed.
    pub document: DocumentId,
    /// Its kind, as numbered by the document schema.
    pub kind: u8,
    /// The epoch that `key` belongs to.
    pub epoch: EpochId,
    /// The document's key in that epoch.
    pub key: &'a [u8; 32],
    /// The membership heads known here, in any order.
    pub heads: Vec<Hash>,
}

/// The end of a node's own log. Whatever it appends must be on disk before anybody sees it.
#[derive(Debug)]
pub struct LogWriter {
    key: MemberKey,
    session: SessionId,
    frontier: Frontier,
    total: u64,
}

impl LogWriter {
    /// Writes behind `frontier`, where the log's envelopes have `total` bytes: [`Frontier::start`] and 0 for a
    /// new member, [`Logs::frontier`] and [`Logs::total`] otherwise.
    pub fn new(key: MemberKey, session: SessionId, frontier: Frontier, total: u64) -> Self {
        Self {
            key,
            session,
            frontier,
            total,
        }
    }

    /// Writes behind what `logs` holds of this key's log.
    pub fn behind(key: MemberKey, logs: &Logs) -> Self {
        let member = key.id();
        Self::new(
            key,
            logs.session(),
            logs.frontier(&member),
            logs.total(&member),
        )
    }

    /// The member that writes.
    pub fn member(&self) -> MemberId {
        self.key.id()
    }

    /// The member's key.
    pub fn key(&self) -> &MemberKey {
        &self.key
    }

    /// Where the log ends.
    pub fn frontier(&self) -> Frontier {
        self.frontier
    }

    /// The running size in bytes of the log's envelopes.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Adds a statement made under `standing`, with the membership heads known here, ascending, as its
    /// parents.
    ///
    /// # Errors
    /// The statement breaks a bound of its format.
    pub fn append_statement(
        &mut self,
        body: StatementBody,
        parents: Vec<Hash>,
        standing: Option<Hash>,
        ts: Wall,
    ) -> Result<Entry, LogError> {
        let draft = Draft {
            session: self.session,
            after: self.frontier,
            parents,
            standing,
            ts,
            body,
        };
        let statement = draft.sign(&self.key)?;
        Ok(self.advance(Entry::Statement(Box::new(statement))))
    }

    /// Adds a statement that was signed elsewhere with this key, behind [`Self::frontier`].
    ///
    /// # Errors
    /// It is another member's, or does not follow what was written last.
    pub fn push(&mut self, statement: Verified<Statement>) -> Result<Entry, LogError> {
        let entry = Entry::Statement(Box::new(statement));
        let ours = entry.member() == self.member() && entry.session() == self.session;
        if !ours || !entry.follows(&self.frontier) {
            return Err(LogError::OutOfPlace);
        }
        Ok(self.advance(entry))
    }

    /// Adds an envelope.
    ///
    /// # Errors
    /// The change or the heads break a bound of the format.
    pub fn append_envelope(
        &mut self,
        new: NewEnvelope<'_>,
        body: &EnvelopeBody,
        entropy: &mut Entropy,
    ) -> Result<Entry, LogError> {
        let place = Place {
            session: self.session,
            seq: self.frontier.seq.saturating_add(1),
            prev: self.frontier.hash,
            total: self.total,
            heads: new.heads,
            document: new.document,
            kind: new.kind,
            epoch: new.epoch,
        };
        let envelope = SealedEnvelope::seal(&self.key, place, new.key, body, entropy)?;
        Ok(self.advance(Entry::Envelope(Box::new(envelope))))
    }

    fn advance(&mut self, entry: Entry) -> Entry {
        self.frontier = entry.frontier();
        self.total = entry.total().unwrap_or(self.total);
        entry
    }
}

/// What became of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inserted {
    /// It extends its log. The list, in order, is the entry and those that had waited for it: all of them are
    /// to be stored.
    Appended(Vec<Entry>),
    /// The header was here; now its body is too. The entry is to be stored again.
    Completed(Entry),
    /// It was here, or waits already.
    Duplicate,
    /// Entries before it are missing.
    Gap {
        /// Where the log ends here.
        have: Frontier,
        /// The first number that is missing.
        needs: u64,
        /// Whether the entry waits here; if the pool is full it is forgotten and has to come again.
        pooled: bool,
    },
    /// Its author signed two entries with the same number: both together prove it.
    Fork {
        /// The one that is held.
        ours: Entry,
        /// The one that came.
        theirs: Entry,
    },
    /// It has the next number but names another entry before it: its author wrote two histories, which part
    /// somewhere at or before `have`.
    NotChained {
        /// Where the log ends here.
        have: Frontier,
    },
    /// No node takes it: it is of another session, or its running size is not the sum.
    Invalid(&'static str),
}

/// A body that is asked for until it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MissingBody {
    /// The author.
    pub member: MemberId,
    /// The envelope's number.
    pub seq: u64,
    /// The envelope's hash.
    pub hash: Hash,
}

/// All logs of a session that a node holds, as encoded entries.
#[derive(Debug)]
pub struct Logs {
    session: SessionId,
    logs: BTreeMap<MemberId, Log>,
    places: BTreeMap<Hash, (MemberId, u64)>,
    lacking: BTreeMap<(MemberId, u64), Hash>,
    bytes: usize,
    pooled: usize,
}

impl Logs {
    /// No logs yet.
    pub fn new(session: SessionId) -> Self {
        Self {
            session,
            logs: BTreeMap::new(),
            places: BTreeMap::new(),
            lacking: BTreeMap::new(),
            bytes: 0,
            pooled: 0,
        }
    }

    /// The session whose logs these are.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Puts an entry in its place. See [`Inserted`] for what it leads to.
    pub fn insert(&mut self, entry: Entry) -> Inserted {
        if entry.session() != self.session {
            return Inserted::Invalid("it belongs to another session");
        }
        if entry.seq() == 0 {
            return Inserted::Invalid("the numbers of a log begin at 1");
        }
        let have = self.frontier(&entry.member());
        match entry.seq().checked_sub(have.seq) {
            None | Some(0) => self.compare(entry),
            Some(1) if !entry.follows(&have) => Inserted::NotChained { have },
            Some(1) => self.append(entry),
            Some(_) => self.wait(entry, have),
        }
    }

    /// Where each log ends. Members whose first entry is not here are not in it.
    pub fn vector(&self) -> BTreeMap<MemberId, Frontier> {
        self.logs
            .iter()
            .filter_map(|(member, log)| Some((*member, log.frontier()?)))
            .collect()
    }

    /// Where the log of `member` ends.
    pub fn frontier(&self, member: &MemberId) -> Frontier {
        self.logs
            .get(member)
            .and_then(Log::frontier)
            .unwrap_or_else(|| Frontier::start(&self.session))
    }

    /// The running size in bytes of the envelopes of `member`.
    pub fn total(&self, member: &MemberId) -> u64 {
        self.logs.get(member).map_or(0, |log| log.total)
    }

    /// The hash of one entry of `member`, for finding where two histories part.
    pub fn hash_at(&self, member: &MemberId, seq: u64) -> Option<Hash> {
        self.logs.get(member)?.slot(seq).map(|slot| slot.hash)
    }

    /// The encoded entries of `member` from number `from` on, in order, until their sum would pass `max_bytes`;
    /// at least one if there is any.
    pub fn range(&self, member: &MemberId, from: u64, max_bytes: usize) -> Vec<&[u8]> {
        let mut room = max_bytes;
        let mut range = Vec::new();
        let Some(log) = self.logs.get(member) else {
            return range;
        };
        for slot in log.from(from) {
            if slot.bytes.len() > room && !range.is_empty() {
                break;
            }
            room = room.saturating_sub(slot.bytes.len());
            range.push(&*slot.bytes);
        }
        range
    }

    /// One encoded entry.
    pub fn get(&self, hash: &Hash) -> Option<&[u8]> {
        let (member, seq) = self.places.get(hash)?;
        self.logs.get(member)?.slot(*seq).map(|slot| &*slot.bytes)
    }

    /// One entry.
    pub fn entry(&self, hash: &Hash) -> Option<Entry> {
        self.get(hash)
            .and_then(|bytes| Entry::decode_stored(bytes).ok())
    }

    /// Where an entry stands.
    pub fn place(&self, hash: &Hash) -> Option<(MemberId, u64)> {
        self.places.get(hash).copied()
    }

    /// The envelopes of which only the header is here, by member and number.
    pub fn missing_bodies(&self) -> impl Iterator<Item = MissingBody> + '_ {
        self.lacking
            .iter()
            .map(|(&(member, seq), &hash)| MissingBody { member, seq, hash })
    }

    /// Whether an entry has the place of another one here, and follows the same predecessor: its author's log
    /// parts with it.
    pub fn parts_with(&self, entry: &Entry) -> bool {
        let member = entry.member();
        let before = entry.seq().saturating_sub(1);
        let predecessor = match before {
            0 => Some(Frontier::start(&self.session)),
            seq => self
                .hash_at(&member, seq)
                .map(|hash| Frontier { seq, hash }),
        };
        let other = self
            .hash_at(&member, entry.seq())
            .is_some_and(|hash| hash != entry.hash());
        other && predecessor.is_some_and(|predecessor| entry.follows(&predecessor))
    }

    /// Takes the entries of `member` out from number `from` on. Yields them in order.
    pub fn cut_back(&mut self, member: &MemberId, from: u64) -> Vec<Entry> {
        let Some((log, keep)) = self.logs.get_mut(member).zip(index(from)) else {
            return Vec::new();
        };
        if keep >= log.slots.len() {
            return Vec::new();
        }
        let cut = log.slots.split_off(keep);
        let newest = log.slots.iter().rev();
        log.total = newest
            .filter_map(|slot| Entry::decode_stored(&slot.bytes).ok()?.total())
            .next()
            .unwrap_or(0);
        for slot in &cut {
            self.places.remove(&slot.hash);
            self.bytes = self.bytes.saturating_sub(slot.bytes.len());
        }
        self.lacking
            .retain(|(author, seq), _| author != member || *seq < from);
        cut.iter()
            .filter_map(|slot| Entry::decode_stored(&slot.bytes).ok())
            .collect()
    }

    /// Bytes of all entries held in order.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of all entries that wait for others.
    pub fn pooled_bytes(&self) -> usize {
        self.pooled
    }

    /// Number of entries held in order.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether no entry is held in order.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// An entry whose number is taken: the same, the same with its body, or another.
    fn compare(&mut self, entry: Entry) -> Inserted {
        let ours = self
            .logs
            .get(&entry.member())
            .and_then(|log| log.slot(entry.seq()))
            .and_then(|slot| Entry::decode_stored(&slot.bytes).ok());
        match ours {
            Some(ours) if ours.hash() != entry.hash() => Inserted::Fork {
                ours,
                theirs: entry,
            },
            Some(ours) if ours.lacks_body() && !entry.lacks_body() => self.complete(entry),
            Some(_) | None => Inserted::Duplicate,
        }
    }

    fn complete(&mut self, entry: Entry) -> Inserted {
        self.lacking.remove(&(entry.member(), entry.seq()));
        let bytes = entry.encode();
        if let Some(slot) = self
            .logs
            .get_mut(&entry.member())
            .and_then(|l| l.slot_mut(entry.seq()))
        {
            self.bytes = self
                .bytes
                .saturating_sub(slot.bytes.len())
                .saturating_add(bytes.len());
            slot.bytes = bytes.into();
        }
        Inserted::Completed(entry)
    }

    fn append(&mut self, entry: Entry) -> Inserted {
        if !self.sum_is_right(&entry) {
            return Inserted::Invalid("its running size is not the sum of its log's envelopes");
        }
        let member = entry.member();
        let mut appended = vec![entry.clone()];
        self.push(&entry);
        while let Some(next) = self.take_waiting(&member) {
            self.push(&next);
            appended.push(next);
        }
        Inserted::Appended(appended)
    }

    fn sum_is_right(&self, entry: &Entry) -> bool {
        let sum = self.total(&entry.member()).saturating_add(entry.charge());
        entry.total().is_none_or(|total| total == sum)
    }

    fn push(&mut self, entry: &Entry) {
        let (member, seq, hash) = (entry.member(), entry.seq(), entry.hash());
        let bytes = entry.encode();
        self.bytes = self.bytes.saturating_add(bytes.len());
        self.places.insert(hash, (member, seq));
        if entry.lacks_body() {
            self.lacking.insert((member, seq), hash);
        }
        let log = self.logs.entry(member).or_default();
        log.total = entry.total().unwrap_or(log.total);
        log.slots.push(Slot {
            hash,
            bytes: bytes.into(),
        });
    }

    /// The waiting entry that comes next in the log of `member`. What waited under its number and does not
    /// chain, or what is passed already, is forgotten: whoever holds it offers it again, and it is then
    /// recognised as a fork.
    fn take_waiting(&mut self, member: &MemberId) -> Option<Entry> {
        let have = self.frontier(member);
        let next = have.seq.checked_add(1)?;
        let log = self.logs.get_mut(member)?;
        let (candidates, freed) = log.pool.take_through(next);
        self.pooled = self.pooled.saturating_sub(freed);
        candidates
            .into_iter()
            .filter_map(|bytes| Entry::decode_stored(&bytes).ok())
            .find(|entry| entry.seq() == next && entry.follows(&have) && self.sum_is_right(entry))
    }

    fn wait(&mut self, entry: Entry, have: Frontier) -> Inserted {
        let bytes = entry.encode();
        let log = self.logs.entry(entry.member()).or_default();
        if log.pool.holds(entry.seq(), &entry.hash(), bytes.len()) {
            return Inserted::Duplicate;
        }
        let fits = self.pooled.saturating_add(bytes.len()) <= LOG_POOLS_BYTES_MAX;
        let (before, mut pooled) = (log.pool.bytes, false);
        if fits {
            pooled = log.pool.put(entry.seq(), entry.hash(), bytes);
        }
        self.pooled = self
            .pooled
            .saturating_sub(before)
            .saturating_add(log.pool.bytes);
        let needs = have.seq.saturating_add(1);
        Inserted::Gap {
            have,
            needs,
            pooled,
        }
    }
}

#[derive(Debug)]
struct Slot {
    hash: Hash,
    bytes: Box<[u8]>,
}

/// The log of one member: slot *i* holds the entry with number *i* + 1.
#[derive(Debug, Default)]
struct Log {
    slots: Vec<Slot>,
    total: u64,
    pool: Pool,
}

impl Log {
    fn frontier(&self) -> Option<Frontier> {
        let seq = u64::try_from(self.slots.len()).ok()?;
        self.slots.last().map(|slot| Frontier {
            seq,
            hash: slot.hash,
        })
    }

    fn slot(&self, seq: u64) -> Option<&Slot> {
        self.slots.get(index(seq)?)
    }

    fn slot_mut(&mut self, seq: u64) -> Option<&mut Slot> {
        self.slots.get_mut(index(seq)?)
    }

    fn from(&self, seq: u64) -> &[Slot] {
        index(seq.max(1))
            .and_then(|from| self.slots.get(from..))
            .unwrap_or_default()
    }
}

fn index(seq: u64) -> Option<usize> {
    usize::try_from(seq.checked_sub(1)?).ok()
}

/// Entries of one member that came before their predecessors. When it is full the one with the greatest
/// number goes first: what comes sooner can be used sooner.
#[derive(Debug, Default)]
struct Pool {
    waiting: BTreeMap<(u64, Hash), Vec<u8>>,
    bytes: usize,
}

impl Pool {
    /// Whether the entry waits here in a form at least as complete: a body only adds bytes.
    fn holds(&self, seq: u64, hash: &Hash, length: usize) -> bool {
        self.waiting
            .get(&(seq, *hash))
            .is_some_and(|bytes| bytes.len() >= length)
    }

    /// Puts an entry in and pushes out what no longer fits; false if that is the entry itself.
    fn put(&mut self, seq: u64, hash: Hash, bytes: Vec<u8>) -> bool {
        self.bytes = self.bytes.saturating_add(bytes.len());
        if let Some(old) = self.waiting.insert((seq, hash), bytes) {
            self.bytes = self.bytes.saturating_sub(old.len());
        }
        while self.waiting.len() > LOG_POOL_ENTRIES_MAX || self.bytes > LOG_POOL_BYTES_MAX {
            let Some((_, bytes)) = self.waiting.pop_last() else {
                break;
            };
            self.bytes = self.bytes.saturating_sub(bytes.len());
        }
        self.waiting.contains_key(&(seq, hash))
    }

    /// Takes out everything up to number `seq`; also says how many bytes that were.
    fn take_through(&mut self, seq: u64) -> (Vec<Vec<u8>>, usize) {
        let later = match seq.checked_add(1) {
            Some(next) => self.waiting.split_off(&(next, Hash([0; 32]))),
            None => BTreeMap::new(),
        };
        let taken = std::mem::replace(&mut self.waiting, later);
        let freed = taken.values().map(Vec::len).sum();
        self.bytes = self.bytes.saturating_sub(freed);
        (taken.into_values().collect(), freed)
    }
}

fn tagged(tag: u8, bytes: &[u8]) -> Vec<u8> {
    let mut tagged = Vec::with_capacity(bytes.len().saturating_add(1));
    tagged.push(tag);
    tagged.extend_from_slice(bytes);
    tagged
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::statement::Genesis;

    const KEY: [u8; 32] = [7; 32];

    #[test]
    fn every_kind_of_entry_survives_the_wire_and_the_disk() {
        let mut writer = writer(1);
        let entries = [leave(&mut writer), change(&mut writer, b"one"), genesis()];

        for entry in entries {
            let bytes = entry.encode();
            assert_eq!(Entry::decode(&bytes).unwrap(), entry);
            assert_eq!(Entry::decode_stored(&bytes).unwrap(), entry);
        }
        assert_eq!(Entry::decode(&[]), Err(LogError::Unknown));
        assert_eq!(Entry::decode(&[9, 1, 2]), Err(LogError::Unknown));
    }

    #[test]
    fn a_log_of_statements_and_envelopes_is_one_chain() {
        let (mut writer, mut logs) = (writer(1), logs());
        let entries = history(&mut writer, 6);

        for entry in &entries {
            assert_eq!(
                logs.insert(entry.clone()),
                Inserted::Appended(vec![entry.clone()])
            );
        }

        assert_eq!(logs.frontier(&writer.member()), writer.frontier());
        assert_eq!(logs.total(&writer.member()), writer.total());
        assert_eq!(
            logs.vector(),
            BTreeMap::from([(writer.member(), writer.frontier())])
        );
        assert_eq!(logs.len(), 6);
    }

    #[test]
    fn a_genesis_begins_the_log_of_the_root_key() {
        let genesis = genesis();
        let mut logs = Logs::new(genesis.session());

        assert!(matches!(
            logs.insert(genesis.clone()),
            Inserted::Appended(_)
        ));

        let mut root = LogWriter::behind(MemberKey::from_bytes(&[1; 32]), &logs);
        assert!(matches!(
            logs.insert(leave(&mut root)),
            Inserted::Appended(_)
        ));
        assert_eq!(logs.insert(genesis), Inserted::Duplicate);
    }

    #[test]
    fn entries_that_come_early_wait_and_follow_the_one_they_miss() {
        let (mut writer, mut logs) = (writer(1), logs());
        let entries = history(&mut writer, 4);
        let start = Frontier::start(&session());
        let gap = Inserted::Gap {
            have: start,
            needs: 1,
            pooled: true,
        };

        assert_eq!(logs.insert(entries[3].clone()), gap);
        assert_eq!(logs.insert(entries[1].clone()), gap);
        assert_eq!(logs.insert(entries[1].clone()), Inserted::Duplicate);
        assert!(logs.vector().is_empty());

        assert_eq!(
            logs.insert(entries[0].clone()),
            Inserted::Appended(entries[..2].to_vec())
        );
        assert_eq!(
            logs.insert(entries[2].clone()),
            Inserted::Appended(entries[2..].to_vec())
        );
        assert_eq!(logs.pooled_bytes(), 0);
    }

    #[test]
    fn two_entries_with_one_number_are_a_fork() {
        let (mut one, mut logs) = (writer(1), logs());
        let first = change(&mut one, b"first");
        let mut other = LogWriter::new(key(1), session(), one.frontier(), one.total());
        let (ours, theirs) = (change(&mut one, b"ours"), change(&mut other, b"theirs"));
        logs.insert(first);
        logs.insert(ours.clone());

        assert_eq!(logs.insert(theirs.clone()), Inserted::Fork { ours, theirs });
        let later = change(&mut other, b"later");
        assert_eq!(
            logs.insert(later),
            Inserted::NotChained {
                have: one.frontier()
            }
        );
    }

    #[test]
    fn a_waiting_entry_of_another_history_never_joins_ours() {
        let (mut one, mut other, mut logs) = (writer(1), writer(1), logs());
        let first = change(&mut one, b"ours");
        change(&mut other, b"theirs");
        logs.insert(change(&mut other, b"built on theirs"));

        assert_eq!(logs.insert(first.clone()), Inserted::Appended(vec![first]));
        assert_eq!(logs.pooled_bytes(), 0);
    }

    #[test]
    fn a_header_chains_without_its_body_which_is_asked_for_until_it_comes() {
        let (mut writer, mut logs) = (writer(1), logs());
        let entries = history(&mut writer, 3);
        for entry in &entries {
            logs.insert(Entry::decode(&entry.encode_head()).unwrap());
        }

        let missing: Vec<_> = logs.missing_bodies().collect();
        assert_eq!(missing.len(), 2);
        let complete = entries
            .iter()
            .find(|entry| entry.hash() == missing[0].hash)
            .unwrap();
        assert_eq!(
            logs.insert(complete.clone()),
            Inserted::Completed(complete.clone())
        );
        assert_eq!(logs.insert(complete.clone()), Inserted::Duplicate);

        assert_eq!(logs.missing_bodies().collect::<Vec<_>>(), missing[1..]);
        assert_eq!(
            logs.get(&complete.hash()),
            Some(complete.encode().as_slice())
        );
        assert_eq!(logs.entry(&complete.hash()), Some(complete.clone()));
    }

    #[test]
    fn a_waiting_header_gives_way_to_the_same_entry_with_its_body() {
        let (mut writer, mut logs) = (writer(1), logs());
        let (first, second) = (change(&mut writer, b"one"), change(&mut writer, b"two"));
        logs.insert(Entry::decode(&second.encode_head()).unwrap());
        logs.insert(second.clone());
        let Inserted::Duplicate = logs.insert(Entry::decode(&second.encode_head()).unwrap()) else {
            panic!("the poorer form replaced the richer one");
        };

        assert_eq!(
            logs.insert(first.clone()),
            Inserted::Appended(vec![first, second])
        );
        assert_eq!(logs.missing_bodies().count(), 0);
    }

    #[test]
    fn an_envelope_whose_running_size_is_no_sum_is_invalid() {
        let (writer, mut logs) = (writer(1), logs());
        let mut liar = LogWriter::new(key(1), session(), writer.frontier(), 1);

        assert!(matches!(
            logs.insert(change(&mut liar, b"lie")),
            Inserted::Invalid(_)
        ));
        let (mut honest, mut other) = (self::writer(2), Logs::new(SessionId([8; 32])));
        assert!(matches!(
            other.insert(change(&mut honest, b"x")),
            Inserted::Invalid(_)
        ));
    }

    #[test]
    fn a_range_is_in_order_and_within_its_bytes_but_never_empty_handed() {
        let (mut writer, mut logs) = (writer(1), logs());
        let entries = history(&mut writer, 5);
        entries.iter().for_each(|entry| {
            logs.insert(entry.clone());
        });
        let encoded: Vec<_> = entries.iter().map(Entry::encode).collect();
        let member = writer.member();

        assert_eq!(logs.range(&member, 0, usize::MAX), encoded);
        assert_eq!(logs.range(&member, 4, usize::MAX), encoded[3..]);
        assert_eq!(logs.range(&member, 2, 1), encoded[1..2]);
        let two = encoded[1].len() + encoded[2].len();
        assert_eq!(logs.range(&member, 2, two), encoded[1..3]);
        assert_eq!(logs.range(&member, 2, two - 1), encoded[1..2]);
        assert!(logs.range(&member, 6, usize::MAX).is_empty());
        assert!(logs.range(&MemberId([0; 32]), 1, usize::MAX).is_empty());
        assert_eq!(logs.bytes(), encoded.iter().map(Vec::len).sum::<usize>());
    }

    #[test]
    fn a_full_pool_keeps_what_comes_sooner() {
        let (mut writer, mut logs) = (writer(1), logs());
        let entries: Vec<_> = (0..=1_002).map(|_| change(&mut writer, b"")).collect();
        for entry in entries[1..].iter().rev() {
            logs.insert(entry.clone());
        }

        let have = Frontier::start(&session());
        let last = logs.insert(entries[1_002].clone());
        assert_eq!(
            last,
            Inserted::Gap {
                have,
                needs: 1,
                pooled: false
            }
        );
        assert!(logs.pooled_bytes() <= LOG_POOL_BYTES_MAX);
        let Inserted::Appended(appended) = logs.insert(entries[0].clone()) else {
            panic!("the first entry did not enter");
        };
        assert_eq!(appended, entries[..=LOG_POOL_ENTRIES_MAX]);
        assert_eq!(logs.pooled_bytes(), 0);
    }

    #[test]
    fn all_pools_together_stay_within_their_bytes() {
        let mut logs = logs();
        for member in 0..20 {
            let mut writer = writer(member);
            change(&mut writer, b"");
            (0..64).for_each(|_| {
                logs.insert(change(&mut writer, &vec![0; 64 * 1024]));
            });
        }

        assert!(logs.pooled_bytes() <= LOG_POOLS_BYTES_MAX);
        assert!(logs.pooled_bytes() > LOG_POOLS_BYTES_MAX - 70 * 1024);
    }

    #[test]
    fn a_writer_goes_on_where_the_logs_end() {
        let (mut first, mut logs) = (writer(1), logs());
        for entry in history(&mut first, 3) {
            logs.insert(entry);
        }

        let mut again = LogWriter::behind(key(1), &logs);
        let next = change(&mut again, b"next");

        assert_eq!(next, {
            let twin = change(&mut first, b"next");
            assert_eq!(twin.prev(), next.prev());
            twin
        });
        assert!(matches!(logs.insert(next), Inserted::Appended(_)));
    }

    proptest! {
        #[test]
        fn any_order_with_repeats_ends_in_the_same_log(
            order in prop::collection::vec(0_usize..12, 60..200)
        ) {
            let (mut writer, mut logs) = (writer(1), logs());
            let entries = history(&mut writer, 12);
            let mut appended = Vec::new();
            for index in order.into_iter().chain(0..12) {
                if let Inserted::Appended(new) = logs.insert(entries[index].clone()) {
                    appended.extend(new);
                }
            }

            prop_assert_eq!(appended, entries);
            prop_assert_eq!(logs.pooled_bytes(), 0);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            drop(Entry::decode(&bytes));
            drop(Entry::decode_stored(&bytes));
        }
    }

    fn session() -> SessionId {
        SessionId([3; 32])
    }

    fn logs() -> Logs {
        Logs::new(session())
    }

    fn key(seed: u8) -> MemberKey {
        MemberKey::from_bytes(&[seed; 32])
    }

    fn writer(seed: u8) -> LogWriter {
        LogWriter::new(key(seed), session(), Frontier::start(&session()), 0)
    }

    fn genesis() -> Entry {
        let body = Genesis {
            nonce: [1; 32],
            discovery: Hash([2; 32]),
        };
        let draft = Draft {
            session: SessionId([0; 32]),
            after: Frontier {
                seq: 0,
                hash: Hash([0; 32]),
            },
            parents: Vec::new(),
            standing: None,
            ts: Wall(1),
            body: StatementBody::Genesis(body),
        };
        Entry::Statement(Box::new(draft.sign(&key(1)).unwrap()))
    }

    fn leave(writer: &mut LogWriter) -> Entry {
        let standing = Some(Hash([5; 32]));
        writer
            .append_statement(StatementBody::Leave, vec![Hash([4; 32])], standing, Wall(1))
            .unwrap()
    }

    fn change(writer: &mut LogWriter, change: &[u8]) -> Entry {
        let new = NewEnvelope {
            document: DocumentId([9; 32]),
            kind: 1,
            epoch: EpochId([10; 32]),
            key: &KEY,
            heads: vec![Hash([4; 32])],
        };
        let body = EnvelopeBody {
            actor: [1; 16],
            actor_nonce: [2; 16],
            change: change.to_vec(),
        };
        let mut entropy = Entropy::new([writer.frontier().seq.to_le_bytes()[0]; 32]);
        writer.append_envelope(new, &body, &mut entropy).unwrap()
    }

    /// Statements and envelopes in turn.
    fn history(writer: &mut LogWriter, length: usize) -> Vec<Entry> {
        (0..length)
            .map(|index| {
                if index % 3 == 1 {
                    leave(writer)
                } else {
                    change(writer, &[1, 2, 3])
                }
            })
            .collect()
    }
}
