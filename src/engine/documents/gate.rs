//! The only way from a peer's bytes into Automerge, which trusts its input: a few dozen hostile bytes can cost
//! it minutes or gigabytes, make it panic, or make a document that never loads again. So each change is
//! scanned without being expanded, decoded, encoded again and compared, and then judged operation by
//! operation against its causal past and the words of its document's kind.
//!
//! The verdict is a function of the change, its causal past, and its author's earlier changes to the document
//! in the order of its log; so all replicas reach the same one. Three rules make that so:
//! a change builds on everything that its author wrote into the document before (which leaves no place for two
//! changes with one number), what is built on a refused change is refused, and all bounds are constants. A
//! panic is no verdict: it is a [`Fault`], and freezes the document.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::legacy::{ElementId, Key, ObjectId, Op, OpId, OpType};
use automerge::{Change, ChangeHash, ExpandedChange, ObjType};

use crate::engine::documents::document::Document;
use crate::engine::documents::past::{Effects, Object, Outside, Past, Write};
use crate::engine::documents::scan::scan;
use crate::engine::documents::schema::{ActorNonce, DocumentKind, Role, actor_of, terminal_key};
use crate::engine::ids::{DocumentId, Hash, MemberId};
use crate::engine::limits::{
    CHANGE_COUNTER_END, CHANGE_TIME_S_END, CHAT_DOCUMENT_MESSAGES_MAX, MEMBER_TERMINALS_MAX,
    PRESENCE_GENERATION_CHANGES_MAX, PRESENCE_KEYS_MAX,
};

/// Why a change is refused. The change stays in its author's log; it is never applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Too many bytes.
    #[error("the change has {bytes} bytes, more than is allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// No chunk of Automerge's format.
    #[error("the bytes are no Automerge chunk")]
    NotAChange,
    /// A whole document, a compressed change or a bundle.
    #[error("chunk type {0} is not taken, only single uncompressed changes are")]
    ChunkType(u8),
    /// The bytes end early, or the stated length is not theirs.
    #[error("the change's length is not what it says")]
    Truncated,
    /// Bytes after the last column.
    #[error("there are bytes after the change's columns")]
    Trailing,
    /// A number that is too large or not in its shortest form.
    #[error("a number of the change is too large or not in its shortest form")]
    Number,
    /// Too many dependencies.
    #[error("the change names too many dependencies")]
    TooManyDependencies,
    /// Too many actors.
    #[error("the change names too many actors")]
    TooManyActors,
    /// Too many operations, or a run that stands for too many.
    #[error("the change expands to too many operations")]
    TooManyOperations,
    /// No operation at all.
    #[error("the change does nothing")]
    NoOperations,
    /// A column of marks, a compressed or an unknown one.
    #[error("column {0} is not used by any document")]
    UnknownColumn(u32),
    /// Columns out of order, or of different lengths.
    #[error("the change's columns do not fit together")]
    Columns,
    /// A key of a map that is too long.
    #[error("a key of the change is too long")]
    LongKey,
    /// An operation number beyond those in use.
    #[error("an operation number of the change is out of range")]
    Counter,
    /// An actor that is not the author's for this document, or an index to none.
    #[error("the change's actor is not its author's for this document")]
    ForeignActor,
    /// A commit message.
    #[error("the change carries a commit message")]
    Message,
    /// A commit time out of range.
    #[error("the change's commit time is out of range")]
    Time,
    /// Automerge cannot read it.
    #[error("the change cannot be decoded: {0}")]
    Undecodable(String),
    /// Encoding it again yields other bytes.
    #[error("the change is not in the one form that encoding it yields")]
    NotCanonical,
    /// A document of another member.
    #[error("the document belongs to another member")]
    NotTheWriter,
    /// No dependencies, or one twice.
    #[error("the change's dependencies are not a set of earlier changes")]
    Dependencies,
    /// Built on a refused change.
    #[error("the change builds on a refused one")]
    RefusedAncestor,
    /// The author's own earlier change is not in the causal past.
    #[error("the change does not build on its author's earlier one")]
    NotOnOwnChange,
    /// Not the next in the single line of a document that one member writes.
    #[error("the change does not continue the document's single line")]
    NotNext,
    /// The actor has written a change with this number.
    #[error("the actor has already written change {0}")]
    DuplicateSequence(u64),
    /// A number is left out.
    #[error("the change has number {found} where {expected} comes next")]
    Sequence {
        /// The next number.
        expected: u64,
        /// The change's.
        found: u64,
    },
    /// The first operation does not follow those of the dependencies.
    #[error("the change's operations begin at {found} where {expected} comes next")]
    StartOperation {
        /// The next number.
        expected: u64,
        /// The change's.
        found: u64,
    },
    /// An object that is not in the causal past.
    #[error("an operation is in an object that is not there")]
    NoSuchObject,
    /// A map key in a list, a place of a list in a map, or a place that is not the end.
    #[error("an operation is at a place where its object has none to write")]
    Place,
    /// What is replaced is not what stands there.
    #[error("an operation replaces other values than those that stand there")]
    Predecessors,
    /// A kind of operation, key or value that the document does not have.
    #[error("an operation is not among those of this kind of document")]
    Vocabulary,
    /// A value of the wrong type, or too long.
    #[error("the value under {0:?} is of another type or too long")]
    Value(String),
    /// The same key twice.
    #[error("the change writes a key twice")]
    RepeatedKey,
    /// A new object without its parts.
    #[error("the change leaves out {0:?}")]
    Incomplete(&'static str),
    /// The document holds as much as it may.
    #[error("the document is full")]
    Full,
}

/// A local failure of the document engine. It says nothing about the change, so it is no verdict: the document
/// keeps its last good state, takes no more changes, and the person is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("document {} failed to {step}: {reason}; it is frozen until the next start", document.short())]
pub struct Fault {
    /// Which document.
    pub document: DocumentId,
    /// What was being done.
    pub step: Step,
    /// The panic's or error's text.
    pub reason: String,
}

/// Where Automerge is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Making the document.
    Begin,
    /// Reading a change's bytes.
    Decode,
    /// Applying changes to a copy.
    Apply,
    /// Writing a change here.
    Write,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Begin => "begin",
            Self::Decode => "decode a change",
            Self::Apply => "apply changes",
            Self::Write => "write a change",
        })
    }
}

/// A change that may be applied.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) author: MemberId,
    pub(crate) change: Change,
    pub(crate) effects: Effects,
}

/// Why a change may not be applied, or not yet.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It is there already.
    Known(ChangeHash),
    /// It builds on changes that are not here.
    Hold(Vec<ChangeHash>),
    /// Never; with its hash, if it could be read that far.
    Refuse(Option<ChangeHash>, Refusal),
    /// Automerge failed.
    Fault(Fault),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(None, refusal)
    }
}

/// Judges a change whose envelope is verified: `author` signed it, and `nonce` came in its body.
pub(crate) fn check(
    document: &Document,
    author: MemberId,
    nonce: &ActorNonce,
    bytes: &[u8],
) -> Result<Admitted, Stop> {
    if document.name().owner().is_some_and(|owner| owner != author) {
        return Err(Refusal::NotTheWriter.into());
    }
    scan(bytes)?;
    let (change, expanded) = decode(document, bytes)?;
    let hash = change.hash();
    let refuse = |refusal| Stop::Refuse(Some(hash), refusal);
    if *change.actor_id() != actor_of(&author, document.id(), nonce) {
        return Err(refuse(Refusal::ForeignActor));
    }
    if document.past().knows(&hash) {
        return Err(Stop::Known(hash));
    }
    if !(0..CHANGE_TIME_S_END).contains(&change.timestamp()) {
        return Err(refuse(Refusal::Time));
    }
    let outside = ancestry(document, author, &change)?;
    let effects = operations(document, &change, &expanded, &outside).map_err(refuse)?;
    Ok(Admitted {
        author,
        change,
        effects,
    })
}

/// Runs a call of Automerge on copies; a panic of its is caught and becomes a fault.
pub(crate) fn guarded<T>(
    document: &DocumentId,
    step: Step,
    work: impl FnOnce() -> T,
) -> Result<T, Fault> {
    // Nothing that the work changes outlives a panic: it owns its copies.
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let text = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned());
        let reason = text.or_else(|| payload.downcast_ref::<String>().cloned());
        Fault {
            document: *document,
            step,
            reason: reason.unwrap_or_else(|| "panic".to_owned()),
        }
    })
}

/// Automerge's form of the engine's hash.
pub(crate) fn hash_of(change: &ChangeHash) -> Hash {
    Hash(change.0)
}

/// Decodes a scanned change, and compares what encoding it again yields: a second form of the same content
/// would change its hash inside Automerge, and the saved document would not load.
fn decode(document: &Document, bytes: &[u8]) -> Result<(Change, ExpandedChange), Stop> {
    let decoded = guarded(document.id(), Step::Decode, || {
        let change = Change::from_bytes(bytes.to_vec())?;
        let expanded = change.decode();
        let canonical = Change::from(expanded.clone()).raw_bytes() == bytes;
        Ok::<_, automerge::LoadChangeError>((change, expanded, canonical))
    });
    match decoded.map_err(Stop::Fault)? {
        Ok((change, expanded, true)) => Ok((change, expanded)),
        Ok((.., false)) => Err(Refusal::NotCanonical.into()),
        Err(error) => Err(Refusal::Undecodable(error.to_string()).into()),
    }
}

/// Judges the change's place in the graph; yields the known changes outside its causal past.
fn ancestry(document: &Document, author: MemberId, change: &Change) -> Result<Outside, Stop> {
    let past = document.past();
    let hash = change.hash();
    let refuse = |refusal| Stop::Refuse(Some(hash), refusal);
    let deps = change.deps();
    if deps.is_empty() || !deps.is_sorted_by(|one, next| one < next) {
        return Err(refuse(Refusal::Dependencies));
    }
    if deps.iter().any(|dep| document.has_refused(dep)) {
        return Err(refuse(Refusal::RefusedAncestor));
    }
    let missing: Vec<ChangeHash> = deps
        .iter()
        .filter(|dep| !past.knows(dep))
        .copied()
        .collect();
    if !missing.is_empty() {
        return Err(Stop::Hold(missing));
    }
    let outside = past.outside(deps);
    lineage(document, author, change, &outside).map_err(refuse)?;
    Ok(outside)
}

/// Judges how the change continues what its author, its actor and its dependencies have written.
fn lineage(
    document: &Document,
    author: MemberId,
    change: &Change,
    outside: &Outside,
) -> Result<(), Refusal> {
    let past = document.past();
    let seq = past.last_seq(change.actor_id()) + 1;
    if change.seq() < seq {
        return Err(Refusal::DuplicateSequence(change.seq()));
    }
    if past
        .latest(&author)
        .is_some_and(|own| outside.contains(own))
    {
        return Err(Refusal::NotOnOwnChange);
    }
    if change.seq() != seq {
        return Err(Refusal::Sequence {
            expected: seq,
            found: change.seq(),
        });
    }
    let single = document.name().owner().is_some();
    if single && (change.deps().len() != 1 || !outside.is_empty()) {
        return Err(Refusal::NotNext);
    }
    let (expected, found) = (past.next_op(change.deps()), change.start_op().get());
    if found != expected {
        return Err(Refusal::StartOperation { expected, found });
    }
    if change.max_op() >= CHANGE_COUNTER_END {
        return Err(Refusal::Counter);
    }
    let presence = document.name().kind() == DocumentKind::Presence;
    // The first change counts as none of a generation's.
    if presence && past.len() > PRESENCE_GENERATION_CHANGES_MAX {
        return Err(Refusal::Full);
    }
    Ok(())
}

/// Judges each operation; yields what they do together.
fn operations(
    document: &Document,
    change: &Change,
    expanded: &ExpandedChange,
    outside: &Outside,
) -> Result<Effects, Refusal> {
    let mut judge = Judge {
        past: document.past(),
        outside,
        effects: Effects::default(),
        filled: BTreeMap::new(),
    };
    for (number, operation) in (change.start_op().get()..).zip(&expanded.operations) {
        judge.operation(OpId::new(number, change.actor_id()), operation)?;
    }
    judge.complete(document.name().kind())?;
    Ok(judge.effects)
}

/// Goes through the operations of one change.
struct Judge<'a> {
    past: &'a Past,
    outside: &'a Outside,
    effects: Effects,
    /// Keys that this change has written.
    filled: BTreeMap<Object, BTreeSet<String>>,
}

impl Judge<'_> {
    fn operation(&mut self, id: OpId, operation: &Op) -> Result<(), Refusal> {
        let object = match &operation.obj {
            ObjectId::Root => None,
            ObjectId::Id(id) => Some(id.clone()),
        };
        let role = self.role(&object).ok_or(Refusal::NoSuchObject)?;
        if role == Role::Messages {
            return self.append(id, operation);
        }
        let Key::Map(key) = &operation.key else {
            return Err(Refusal::Place);
        };
        if operation.insert {
            return Err(Refusal::Place);
        }
        let key = key.to_string();
        if !self
            .filled
            .entry(object.clone())
            .or_default()
            .insert(key.clone())
        {
            return Err(Refusal::RepeatedKey);
        }
        let standing = self.past.visible(&object, &key, self.outside);
        let replaces = match (&operation.action, standing.split_last()) {
            (OpType::Delete, Some((_, losers))) if role.settles() => losers,
            (_, _) => &standing,
        };
        if !operation.pred.iter().eq(replaces) {
            return Err(Refusal::Predecessors);
        }
        let value = self.action(role, &key, &id, operation, replaces)?;
        let replaces = replaces.to_vec();
        self.effects.writes.push(Write {
            object,
            key,
            value,
            replaces,
        });
        Ok(())
    }

    /// What the object is for, if it is in the causal past or made by this change, and not removed by it.
    fn role(&self, object: &Object) -> Option<Role> {
        if let Some(id) = object {
            if self.effects.removed.contains(id) {
                return None;
            }
            if let Some((_, role)) = self.effects.made.iter().find(|(made, _)| made == id) {
                return Some(*role);
            }
        }
        self.past.role(object, self.outside)
    }

    /// An operation on a key of a map and the values that it replaces; yields the value that then stands there.
    fn action(
        &mut self,
        role: Role,
        key: &str,
        id: &OpId,
        operation: &Op,
        replaces: &[OpId],
    ) -> Result<Option<OpId>, Refusal> {
        match &operation.action {
            OpType::Put(value) => {
                let shapes = role.shapes(key).ok_or(Refusal::Vocabulary)?;
                if !shapes.iter().any(|shape| shape.admits(value)) {
                    return Err(Refusal::Value(key.to_owned()));
                }
                Ok(Some(id.clone()))
            }
            OpType::Make(ObjType::Map) if role == Role::Terminals => {
                let left = self
                    .past
                    .count(Role::Terminal)
                    .saturating_sub(self.effects.removed.len());
                if terminal_key(key).is_none() || !replaces.is_empty() {
                    return Err(Refusal::Vocabulary);
                }
                if left + self.effects.made.len() >= MEMBER_TERMINALS_MAX {
                    return Err(Refusal::Full);
                }
                self.effects.made.push((id.clone(), Role::Terminal));
                Ok(Some(id.clone()))
            }
            OpType::Delete if role == Role::Terminals && !replaces.is_empty() => {
                self.effects.removed.extend_from_slice(replaces);
                Ok(None)
            }
            OpType::Delete if role.settles() && !replaces.is_empty() => Ok(None),
            OpType::Make(_)
            | OpType::Delete
            | OpType::Increment(_)
            | OpType::MarkBegin(_)
            | OpType::MarkEnd(_) => Err(Refusal::Vocabulary),
        }
    }

    /// The one operation that the list of messages knows: a new message after the last.
    fn append(&mut self, id: OpId, operation: &Op) -> Result<(), Refusal> {
        let (last, count) = self.past.list();
        let at_end = match (&operation.key, last) {
            (Key::Seq(ElementId::Head), None) => true,
            (Key::Seq(ElementId::Id(element)), Some(last)) => element == last,
            (Key::Seq(_) | Key::Map(_), _) => false,
        };
        if operation.action != OpType::Make(ObjType::Map) || self.effects.appended.is_some() {
            return Err(Refusal::Vocabulary);
        }
        if !operation.insert || !at_end {
            return Err(Refusal::Place);
        }
        if !operation.pred.is_empty() {
            return Err(Refusal::Predecessors);
        }
        if count >= CHAT_DOCUMENT_MESSAGES_MAX {
            return Err(Refusal::Full);
        }
        self.effects.made.push((id.clone(), Role::Message));
        self.effects.appended = Some(id);
        Ok(())
    }

    /// Judges what the operations amount to together.
    fn complete(&self, kind: DocumentKind) -> Result<(), Refusal> {
        for (id, role) in &self.effects.made {
            self.has_all(&Some(id.clone()), *role)?;
        }
        match kind {
            DocumentKind::Session | DocumentKind::Member => Ok(()),
            DocumentKind::Chat if self.effects.appended.is_some() => Ok(()),
            DocumentKind::Chat => Err(Refusal::Vocabulary),
            DocumentKind::Presence => {
                if self.past.len() == 1 {
                    self.has_all(&None, Role::Presence)?;
                }
                let filled = self
                    .filled
                    .get(&None)
                    .into_iter()
                    .flatten()
                    .map(String::as_str);
                let keys: BTreeSet<&str> = self.past.keys(&None).chain(filled).collect();
                if keys.len() > PRESENCE_KEYS_MAX {
                    Err(Refusal::Full)
                } else {
                    Ok(())
                }
            }
        }
    }

    fn has_all(&self, object: &Object, role: Role) -> Result<(), Refusal> {
        let filled = self.filled.get(object);
        let lacks = |key: &&&str| !filled.is_some_and(|keys| keys.contains(**key));
        match role.required().iter().find(lacks) {
            Some(key) => Err(Refusal::Incomplete(key)),
            None => Ok(()),
        }
    }
}
