//! One document: Automerge's state, what the gate remembers of it, and its typed contents, which are kept up
//! with every accepted change. Changes of others come in by [`Document::settle`], one's own by the typed
//! writers of each kind; both pass the gate, so nothing leaves this node that another one refuses.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use automerge::legacy::OpId;
use automerge::transaction::{CommitOptions, Transactable, Transaction};
use automerge::{Automerge, AutomergeError, Change, ChangeHash, ObjId, ReadDoc, ScalarValue};

use crate::engine::documents::chat::ChatMessage;
use crate::engine::documents::gate::{
    Admitted, Fault, Refusal, Step, Stop, check, guarded, hash_of,
};
use crate::engine::documents::member::MemberState;
use crate::engine::documents::past::Past;
use crate::engine::documents::pool::{Held, Queue, Queues};
use crate::engine::documents::presence::PresenceState;
use crate::engine::documents::schema::{
    ActorNonce, DocumentKind, DocumentName, Writer, actor_of, commit_time, genesis, scalar,
};
use crate::engine::documents::session::SessionState;
use crate::engine::ids::{DocumentId, Hash, MemberId, SessionId, TerminalId};
use crate::engine::limits::{
    CHAT_DOCUMENT_MESSAGES_MAX, DOCUMENT_MERGE_HEADS_MAX, REFUSED_REMEMBERED_MAX,
};
use crate::engine::time::Wall;

/// A change from a verified envelope or presence message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// Who signed it.
    pub author: MemberId,
    /// Its place in the author's log (for presence: the message's counter). It names the change in the answer.
    /// Changes of one author to one document are judged in this order.
    pub position: u64,
    /// From the signed body.
    pub nonce: ActorNonce,
    /// The change's bytes.
    pub change: Vec<u8>,
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Who signed it.
    pub author: MemberId,
    /// Its place in the author's log.
    pub position: u64,
    /// The hash of the change, where it could be read.
    pub change: Option<Hash>,
    /// What became of it.
    pub verdict: Verdict,
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is part of the document.
    Accepted,
    /// It was part of the document before.
    Known,
    /// It waits for these changes, or, where none is named, behind an earlier one of its author. A later call
    /// tells what becomes of it.
    Held {
        /// The changes it builds on that are not here.
        missing: Vec<Hash>,
    },
    /// It would have to wait and there is no room: it is forgotten, to be given again
    /// ([`crate::engine::documents::Documents::wanted`]).
    LetGo,
    /// It belongs to a generation of presence that is over.
    Stale,
    /// It will never be part of the document.
    Refused(Refusal),
}

/// A change that was written here, to be signed, stored and sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalChange {
    /// The document.
    pub document: DocumentName,
    /// The change's hash.
    pub hash: Hash,
    /// Goes into the envelope's body beside the change.
    pub nonce: ActorNonce,
    /// The change's bytes.
    pub change: Vec<u8>,
}

/// Why nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// A document of another kind.
    #[error("the document is a {found:?} document, not a {expected:?} document")]
    WrongKind {
        /// What the writer is for.
        expected: DocumentKind,
        /// What the document is.
        found: DocumentKind,
    },
    /// The terminal is not announced in the member's document.
    #[error("terminal {} is not announced here", _0.short())]
    NoSuchTerminal(TerminalId),
    /// The gate would refuse the change everywhere; nothing is changed.
    #[error("the change would be refused: {0}")]
    Refused(#[from] Refusal),
    /// The document is frozen.
    #[error(transparent)]
    Frozen(#[from] Fault),
}

/// One Automerge document of the session.
#[derive(Debug)]
pub struct Document {
    session: SessionId,
    name: DocumentName,
    id: DocumentId,
    automerge: Automerge,
    /// The object that the first change makes, or the root.
    container: ObjId,
    past: Past,
    contents: Contents,
    refused: Refused,
    fault: Option<Fault>,
}

/// The typed contents.
#[derive(Debug)]
enum Contents {
    Session(Box<SessionState>),
    Chat(Vec<Arc<ChatMessage>>),
    Member(MemberState),
    Presence(Option<Box<PresenceState>>),
}

impl Document {
    /// The document of this name with nothing but its first change.
    ///
    /// # Errors
    /// If Automerge fails at a change that this program makes itself.
    pub fn new(session: SessionId, name: DocumentName) -> Result<Self, Fault> {
        let id = name.id(&session);
        let begun = guarded(&id, Step::Begin, || {
            let (automerge, container) = genesis(&name, &id)?;
            let first = automerge.get_changes(&[]).into_iter().next();
            Ok::<_, AutomergeError>((automerge, container, first))
        })?;
        let fault = |reason| Fault {
            document: id,
            step: Step::Begin,
            reason,
        };
        let (automerge, container, first) = begun.map_err(|error| fault(error.to_string()))?;
        let first = first.ok_or_else(|| fault("there is no first change".to_owned()))?;
        let made = match &container {
            ObjId::Root => None,
            ObjId::Id(counter, actor, _) => Some(OpId::new(*counter, actor)),
        };
        let past = Past::new(name.kind(), &first, made);
        let contents = match name.kind() {
            DocumentKind::Session => Contents::Session(Box::default()),
            DocumentKind::Chat => Contents::Chat(Vec::new()),
            DocumentKind::Member => Contents::Member(MemberState::default()),
            DocumentKind::Presence => Contents::Presence(None),
        };
        let refused = Refused::default();
        Ok(Self {
            session,
            name,
            id,
            automerge,
            container,
            past,
            contents,
            refused,
            fault: None,
        })
    }

    /// The document as these accepted changes make it: what to do when a removal or a fork takes some away,
    /// and at the start. `accepted` holds each author's changes with their places in its log.
    ///
    /// # Errors
    /// If Automerge fails; the old document then stays as it is.
    pub fn rebuild(
        &self,
        accepted: impl IntoIterator<Item = Incoming>,
    ) -> Result<(Self, Vec<Settled>), Fault> {
        let mut fresh = Self::new(self.session, self.name)?;
        let mut queues = Queues::new();
        for incoming in accepted {
            let queue: &mut Queue = queues.entry(incoming.author).or_default();
            queue.insert(
                incoming.position,
                Held::new(incoming.nonce, incoming.change),
            );
        }
        let mut settled = fresh.settle(&mut queues)?;
        settled.extend(Held::report(&mut queues));
        Ok((fresh, settled))
    }

    /// Its name.
    pub fn name(&self) -> &DocumentName {
        &self.name
    }

    /// Its id.
    pub fn id(&self) -> &DocumentId {
        &self.id
    }

    /// The hashes of the changes on which no other builds, in order. Two replicas with equal heads have equal
    /// documents.
    pub fn heads(&self) -> Vec<Hash> {
        self.past.heads().iter().map(hash_of).collect()
    }

    /// Whether the change is part of the document.
    pub fn has(&self, change: &Hash) -> bool {
        self.past.knows(&ChangeHash(change.0))
    }

    /// How many changes it has, its first one not counted.
    pub fn changes(&self) -> usize {
        self.past.len().saturating_sub(1)
    }

    /// What froze the document, if anything did.
    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    /// The whole document in Automerge's format: a cache or an export, never what is trusted.
    pub fn save(&self) -> Vec<u8> {
        self.automerge.save()
    }

    /// The session's facts, of a session document.
    pub fn session(&self) -> Option<&SessionState> {
        match &self.contents {
            Contents::Session(state) => Some(state),
            Contents::Chat(_) | Contents::Member(_) | Contents::Presence(_) => None,
        }
    }

    /// The messages in their order, of a chat document; else none.
    pub fn messages(&self) -> &[Arc<ChatMessage>] {
        match &self.contents {
            Contents::Chat(messages) => messages,
            Contents::Session(_) | Contents::Member(_) | Contents::Presence(_) => &[],
        }
    }

    /// What the member says of itself, of a member's document.
    pub fn member(&self) -> Option<&MemberState> {
        match &self.contents {
            Contents::Member(state) => Some(state),
            Contents::Session(_) | Contents::Chat(_) | Contents::Presence(_) => None,
        }
    }

    /// What the member does, of a presence document that has its first state.
    pub fn presence(&self) -> Option<&PresenceState> {
        match &self.contents {
            Contents::Presence(state) => state.as_deref(),
            Contents::Session(_) | Contents::Chat(_) | Contents::Member(_) => None,
        }
    }

    /// Whether a chat document has all the messages it may have.
    pub fn is_full(&self) -> bool {
        self.messages().len() >= CHAT_DOCUMENT_MESSAGES_MAX
    }

    /// Whether the gate lets a change in at this moment; nothing is applied. For measuring what the gate costs.
    #[cfg(any(test, feature = "sim"))]
    pub fn passes_gate(&self, incoming: &Incoming) -> bool {
        check(self, incoming.author, &incoming.nonce, &incoming.change).is_ok()
    }

    pub(crate) fn past(&self) -> &Past {
        &self.past
    }

    pub(crate) fn automerge(&self) -> &Automerge {
        &self.automerge
    }

    pub(crate) fn container(&self) -> &ObjId {
        &self.container
    }

    pub(crate) fn has_refused(&self, change: &ChangeHash) -> bool {
        self.refused.set.contains(change)
    }

    pub(crate) fn expect_kind(&self, expected: DocumentKind) -> Result<(), WriteError> {
        let found = self.name.kind();
        if found == expected {
            Ok(())
        } else {
            Err(WriteError::WrongKind { expected, found })
        }
    }

    /// Judges what waits, in rounds until nothing more is settled, and applies all that is admitted in one go:
    /// applying costs as much as the touched object has operations, however many changes it is.
    ///
    /// # Errors
    /// If Automerge fails; the document is then frozen in its last good state.
    pub(crate) fn settle(&mut self, queues: &mut Queues) -> Result<Vec<Settled>, Fault> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        let mut round = Round::default();
        let settled = loop {
            let mut progress = false;
            for (author, queue) in &mut *queues {
                match self.settle_queue(*author, queue, &mut round) {
                    Ok(moved) => progress |= moved,
                    Err(fault) => return Err(self.freeze(fault)),
                }
            }
            if !progress {
                break round.settled;
            }
        };
        queues.retain(|_, queue| !queue.is_empty());
        match self.apply(round.admitted) {
            Ok(()) => Ok(settled),
            Err(fault) => Err(self.freeze(fault)),
        }
    }

    /// Judges one author's changes in their order up to the first that must wait; in presence, where messages
    /// may be lost or overtake each other, whichever need not wait. Yields whether any was settled.
    fn settle_queue(
        &mut self,
        author: MemberId,
        queue: &mut Queue,
        round: &mut Round,
    ) -> Result<bool, Fault> {
        let before = queue.len();
        let positions: Vec<u64> = queue.keys().copied().collect();
        for position in positions {
            let Some(held) = queue.get_mut(&position) else {
                continue;
            };
            let waits =
                !held.missing.is_empty() && !held.missing.iter().any(|dep| self.is_judged(dep));
            let outcome = if waits {
                None
            } else {
                self.judge(author, held, round)?
            };
            match outcome {
                Some((change, verdict)) => {
                    queue.remove(&position);
                    let change = change.as_ref().map(hash_of);
                    round.settled.push(Settled {
                        author,
                        position,
                        change,
                        verdict,
                    });
                }
                None if self.name.stored() => break,
                None => {}
            }
        }
        Ok(queue.len() < before)
    }

    fn is_judged(&self, change: &ChangeHash) -> bool {
        self.past.knows(change) || self.has_refused(change)
    }

    /// Judges one change and remembers the answer; `None`: it must wait.
    fn judge(
        &mut self,
        author: MemberId,
        held: &mut Held,
        round: &mut Round,
    ) -> Result<Option<(Option<ChangeHash>, Verdict)>, Fault> {
        match check(self, author, &held.nonce, &held.change) {
            Ok(Admitted {
                author,
                change,
                effects,
            }) => {
                let hash = change.hash();
                self.past.record(author, &change, effects);
                round.admitted.push(change);
                Ok(Some((Some(hash), Verdict::Accepted)))
            }
            Err(Stop::Known(hash)) => Ok(Some((Some(hash), Verdict::Known))),
            Err(Stop::Hold(missing)) => {
                held.missing = missing;
                Ok(None)
            }
            Err(Stop::Refuse(hash, refusal)) => {
                if let Some(hash) = hash {
                    self.refused.remember(hash);
                }
                Ok(Some((hash, Verdict::Refused(refusal))))
            }
            Err(Stop::Fault(fault)) => Err(fault),
        }
    }

    /// Applies a change past the gate, as if the gate had a hole.
    #[cfg(test)]
    pub(crate) fn fail_with(&mut self, change: Change) -> Fault {
        let fault = self
            .apply(vec![change])
            .expect_err("the change should fail");
        self.freeze(fault)
    }

    fn freeze(&mut self, fault: Fault) -> Fault {
        tracing::error!(document = %self.id.short(), step = %fault.step, reason = fault.reason, "frozen");
        self.fault.get_or_insert(fault).clone()
    }

    /// Applies admitted changes to a copy and takes it on, if it is what the gate expects.
    fn apply(&mut self, changes: Vec<Change>) -> Result<(), Fault> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut copy = self.automerge.clone();
        let copy = guarded(&self.id, Step::Apply, move || {
            copy.apply_changes(changes).map(|()| copy)
        })?;
        self.take_on(copy.map_err(|error| self.failed(Step::Apply, error))?)
    }

    /// Makes a state the document's, after reading it whole.
    fn take_on(&mut self, automerge: Automerge) -> Result<(), Fault> {
        if !automerge.get_heads().iter().eq(self.past.heads()) {
            return Err(self.failed(
                Step::Apply,
                "the heads are not those of the accepted changes",
            ));
        }
        let news = guarded(&self.id, Step::Apply, || self.read(&automerge))?;
        match (
            news.map_err(|reason| self.failed(Step::Apply, reason))?,
            &mut self.contents,
        ) {
            (Contents::Chat(new), Contents::Chat(messages)) => messages.extend(new),
            (new, contents) => *contents = new,
        }
        self.automerge = automerge;
        Ok(())
    }

    /// Reads the typed contents; of chat the messages that are new.
    fn read(&self, automerge: &Automerge) -> Result<Contents, &'static str> {
        let unreadable = "the accepted changes cannot be read back";
        Ok(match self.name {
            DocumentName::Session => {
                Contents::Session(Box::new(SessionState::read(automerge, &self.container)))
            }
            DocumentName::Member { .. } => {
                Contents::Member(MemberState::read(automerge, &self.container))
            }
            DocumentName::Presence { .. } => {
                let state = PresenceState::read(automerge).ok_or(unreadable)?;
                Contents::Presence(Some(Box::new(state)))
            }
            DocumentName::Chat { owner, index } => {
                let places = self.messages().len()..automerge.length(&self.container);
                let at = (&self.id, owner, index);
                let read = |place| ChatMessage::read(automerge, &self.container, at, place);
                let new: Option<_> = places.map(|place| read(place).map(Arc::new)).collect();
                Contents::Chat(new.ok_or(unreadable)?)
            }
        })
    }

    fn failed(&self, step: Step, reason: impl ToString) -> Fault {
        Fault {
            document: self.id,
            step,
            reason: reason.to_string(),
        }
    }

    /// Of these values those that do not stand already.
    pub(crate) fn changed<'a>(
        &self,
        mut puts: Vec<(ObjId, &'a str, ScalarValue)>,
    ) -> Vec<(ObjId, &'a str, ScalarValue)> {
        puts.retain(|(object, key, value)| {
            scalar(&self.automerge, object, key).as_ref() != Some(value)
        });
        puts
    }

    /// Writes values under keys, one change for all; no change where there are none.
    pub(crate) fn write_values(
        &mut self,
        writer: &Writer,
        now: Wall,
        puts: Vec<(ObjId, &str, ScalarValue)>,
    ) -> Result<Option<LocalChange>, WriteError> {
        self.write(writer, now, |transaction| {
            puts.into_iter()
                .try_for_each(|(object, key, value)| transaction.put(object, key, value))
        })
    }

    /// Makes a change here: on a copy, under the writer's own actor, with the stated time, and through the gate.
    /// Nothing is changed unless the gate admits it.
    pub(crate) fn write(
        &mut self,
        writer: &Writer,
        now: Wall,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<(), AutomergeError>,
    ) -> Result<Option<LocalChange>, WriteError> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone().into());
        }
        self.try_write(writer, now, edit)
            .map_err(|error| match error {
                WriteError::Frozen(fault) => self.freeze(fault).into(),
                other @ (WriteError::WrongKind { .. }
                | WriteError::NoSuchTerminal(_)
                | WriteError::Refused(_)) => other,
            })
    }

    fn try_write(
        &mut self,
        writer: &Writer,
        now: Wall,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<(), AutomergeError>,
    ) -> Result<Option<LocalChange>, WriteError> {
        let merged = self.merge_heads(&writer.member);
        let actor = actor_of(&writer.member, &self.id, &writer.nonce);
        let written = guarded(&self.id, Step::Write, || {
            let mut copy = match &merged {
                Some(heads) => self.automerge.fork_at(heads)?,
                None => self.automerge.clone(),
            };
            copy.set_actor(actor);
            let time = CommitOptions::default().with_time(commit_time(now));
            let done = copy
                .transact_with(|()| time, edit)
                .map_err(|failure| failure.error)?;
            let change = done.hash.and_then(|hash| copy.get_change_by_hash(&hash));
            Ok::<_, AutomergeError>((copy, change))
        })?;
        let (copy, change) = written.map_err(|error| self.failed(Step::Write, error))?;
        let Some(change) = change else {
            return Ok(None);
        };
        let bytes = change.raw_bytes().to_vec();
        let admitted = match check(self, writer.member, &writer.nonce, &bytes) {
            Ok(admitted) => admitted,
            Err(Stop::Refuse(_, refusal)) => return Err(refusal.into()),
            Err(Stop::Fault(fault)) => return Err(fault.into()),
            Err(stop @ (Stop::Known(_) | Stop::Hold(..))) => {
                return Err(self.failed(Step::Write, format!("{stop:?}")).into());
            }
        };
        let hash = hash_of(&admitted.change.hash());
        self.past
            .record(writer.member, &admitted.change, admitted.effects);
        if merged.is_some() {
            self.apply(vec![change])?;
        } else {
            self.take_on(copy)?;
        }
        let document = self.name;
        Ok(Some(LocalChange {
            document,
            hash,
            nonce: writer.nonce,
            change: bytes,
        }))
    }

    /// Where there are more heads than one change should merge: the ones that this change merges, the writer's
    /// own line among them.
    fn merge_heads(&self, writer: &MemberId) -> Option<Vec<ChangeHash>> {
        if self.past.heads().len() <= DOCUMENT_MERGE_HEADS_MAX {
            return None;
        }
        let own = self.past.latest(writer).copied();
        let others = self
            .past
            .heads()
            .iter()
            .filter(|head| Some(**head) != own)
            .copied();
        Some(
            own.into_iter()
                .chain(others)
                .take(DOCUMENT_MERGE_HEADS_MAX)
                .collect(),
        )
    }
}

/// What one call of [`Document::settle`] has come to so far.
#[derive(Default)]
struct Round {
    admitted: Vec<Change>,
    settled: Vec<Settled>,
}

/// The latest refused changes. Forgetting one only means that what builds on it waits for ever instead of
/// being refused: neither is accepted.
#[derive(Debug, Default)]
struct Refused {
    set: BTreeSet<ChangeHash>,
    order: VecDeque<ChangeHash>,
}

impl Refused {
    fn remember(&mut self, change: ChangeHash) {
        if !self.set.insert(change) {
            return;
        }
        self.order.push_back(change);
        if self.order.len() > REFUSED_REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.set.remove(&oldest);
        }
    }
}
