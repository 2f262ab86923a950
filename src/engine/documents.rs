//! The Automerge documents of a session: its facts, everybody's chat, what members say of themselves, and what
//! they do at the moment.
//!
//! Two ways lead in, and both pass the [`gate`]: [`Documents::receive`] for changes from verified envelopes,
//! and the writers for one's own. The caller has checked signature, log and capability, and gives the changes
//! of each author in the order of its log. Who may write the session document is a question of capability;
//! all others are written by their owner only, which the gate checks again.
//!
//! A caller stores and sends a [`LocalChange`] as it is; [`Documents::receive`] takes it back at the next start.
//! The states shown are typed and plain; their texts are raw, and [`text::inert`] is for showing them.

pub mod chat;
pub mod document;
pub mod gate;
pub mod member;
mod past;
mod pool;
pub mod presence;
mod scan;
pub mod schema;
pub mod session;
pub mod text;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use chat::{ChatMessage, Draft, Stamp, Timeline};
pub use document::{Document, Incoming, LocalChange, Settled, Verdict, WriteError};
pub use gate::{Fault, Refusal};
pub use member::{MemberState, Running, TerminalState};
pub use presence::{PresenceState, ScreenMark};
pub use schema::{ActorNonce, DocumentKind, DocumentName, Writer};
pub use session::{LateJoiner, SessionFact, SessionState, Setting};

use crate::engine::documents::pool::{Held, Pool, Queues};
use crate::engine::event::ExitStatus;
use crate::engine::ids::{Hash, MemberId, SessionId, TerminalId};
use crate::engine::time::Wall;
use crate::engine::view::Kind;

/// All documents of a session.
#[derive(Debug)]
pub struct Documents {
    session: SessionId,
    stored: BTreeMap<DocumentName, Document>,
    /// The newest generation of each member.
    presence: BTreeMap<MemberId, Document>,
    pool: Pool,
    timeline: Timeline,
    nobody: SessionState,
}

impl Documents {
    /// The documents of a session of which nothing is known yet.
    pub fn new(session: SessionId) -> Self {
        Self {
            session,
            stored: BTreeMap::new(),
            presence: BTreeMap::new(),
            pool: Pool::default(),
            timeline: Timeline::default(),
            nobody: SessionState::default(),
        }
    }

    /// Forgets everything that logs hold, to be given anew; presence, which no log holds, stays.
    pub fn forget_stored(&mut self) {
        self.stored.clear();
        self.pool = Pool::default();
        self.timeline = Timeline::default();
    }

    /// Takes changes of one document from verified envelopes, in each author's order; a batch costs little
    /// more than a single change. Tells what became of them, and of earlier ones that waited.
    ///
    /// # Errors
    /// If the document is or becomes frozen; nothing of the batch is then part of it.
    pub fn receive(
        &mut self,
        name: &DocumentName,
        batch: Vec<Incoming>,
    ) -> Result<Vec<Settled>, Fault> {
        if self.is_over(name) {
            return Ok(batch.into_iter().map(stale).collect());
        }
        let mut queues = self.pool.take(name);
        let mut settled = enqueue(&mut queues, batch);
        if self.may_begin(name) {
            settled.extend(self.settle(name, &mut queues)?);
        }
        settled.extend(Held::report(&mut queues));
        settled.extend(self.pool.put_back(*name, queues));
        if settled.iter().any(|one| one.verdict == Verdict::Accepted) {
            self.pool.grown(name);
            settled.extend(self.continue_chat(name)?);
        }
        Ok(settled)
    }

    /// Makes a document anew of its accepted changes, when a removal or a fork takes some away. Nothing waits
    /// for it any more; what is not among `accepted` is to be given again if it shall wait.
    ///
    /// # Errors
    /// If Automerge fails; the old document then stays.
    pub fn rebuild(
        &mut self,
        name: &DocumentName,
        accepted: Vec<Incoming>,
    ) -> Result<Vec<Settled>, Fault> {
        let old = self.stored.remove(name);
        let blank = match &old {
            Some(old) => old.rebuild(accepted),
            None => Document::new(self.session, *name).and_then(|blank| blank.rebuild(accepted)),
        };
        let (fresh, settled) = match blank {
            Ok(rebuilt) => rebuilt,
            Err(fault) => {
                self.stored.extend(old.map(|old| (*name, old)));
                return Err(fault);
            }
        };
        for message in old.iter().flat_map(Document::messages) {
            self.timeline.remove(message);
        }
        for message in fresh.messages() {
            self.timeline.add(message);
        }
        drop(self.pool.take(name));
        self.stored.insert(*name, fresh);
        Ok(settled)
    }

    /// Whose changes to which document were let go for want of room and should be given again, as the document
    /// has grown since; told once.
    pub fn wanted(&mut self) -> BTreeSet<(DocumentName, MemberId)> {
        self.pool.wanted()
    }

    /// Bytes of all changes that wait for what they build on.
    pub fn held_bytes(&self) -> usize {
        self.pool.bytes()
    }

    /// The session's facts.
    pub fn session(&self) -> &SessionState {
        self.stored
            .get(&DocumentName::Session)
            .and_then(Document::session)
            .unwrap_or(&self.nobody)
    }

    /// What a member says of itself, if it has said anything.
    pub fn member(&self, owner: &MemberId) -> Option<&MemberState> {
        self.stored
            .get(&DocumentName::Member { owner: *owner })
            .and_then(Document::member)
    }

    /// What all members say of themselves.
    pub fn members(&self) -> impl Iterator<Item = (MemberId, &MemberState)> {
        self.stored
            .iter()
            .filter_map(|(name, document)| Some((name.owner()?, document.member()?)))
    }

    /// What a member does at the moment, as far as it has been heard. Whether it is still so, its messages'
    /// time-to-live tells.
    pub fn presence(&self, owner: &MemberId) -> Option<&PresenceState> {
        self.presence.get(owner).and_then(Document::presence)
    }

    /// The instance and generation of a member's newest presence.
    pub fn presence_generation(&self, owner: &MemberId) -> Option<(u64, u64)> {
        generation(self.presence.get(owner)?.name())
    }

    /// The chat of all.
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// One document, if it has begun.
    pub fn document(&self, name: &DocumentName) -> Option<&Document> {
        match name {
            DocumentName::Presence { owner, .. } => self
                .presence
                .get(owner)
                .filter(|document| document.name() == name),
            DocumentName::Session | DocumentName::Chat { .. } | DocumentName::Member { .. } => {
                self.stored.get(name)
            }
        }
    }

    /// The heads of every stored document: equal on two replicas iff they have the same.
    pub fn heads(&self) -> BTreeMap<DocumentName, Vec<Hash>> {
        let begun = self
            .stored
            .iter()
            .filter(|(_, document)| document.changes() > 0);
        begun
            .map(|(name, document)| (*name, document.heads()))
            .collect()
    }

    /// Documents that are frozen, and why.
    pub fn faults(&self) -> impl Iterator<Item = &Fault> {
        self.stored
            .values()
            .chain(self.presence.values())
            .filter_map(Document::fault)
    }

    /// Writes facts of the session, one change for all; none if all of them stand already.
    ///
    /// # Errors
    /// What [`WriteError`] names.
    pub fn write_session(
        &mut self,
        writer: &Writer,
        now: Wall,
        facts: &[SessionFact],
    ) -> Result<Option<LocalChange>, WriteError> {
        self.write(DocumentName::Session, |document| {
            document.write_session(writer, now, facts)
        })
    }

    /// Writes one's name and what one is.
    ///
    /// # Errors
    /// What [`WriteError`] names.
    pub fn write_profile(
        &mut self,
        writer: &Writer,
        now: Wall,
        name: &str,
        kind: Kind,
    ) -> Result<Option<LocalChange>, WriteError> {
        self.write(own(writer), |document| {
            document.write_profile(writer, now, name, kind)
        })
    }

    /// Announces a terminal that was opened here, with its columns and rows.
    ///
    /// # Errors
    /// What [`WriteError`] names.
    pub fn announce_terminal(
        &mut self,
        writer: &Writer,
        now: Wall,
        id: TerminalId,
        title: &str,
        size: (u16, u16),
    ) -> Result<Option<LocalChange>, WriteError> {
        self.write(own(writer), |document| {
            document.announce_terminal(writer, now, id, title, size)
        })
    }

    /// Writes the new columns and rows of a terminal of this node.
    ///
    /// # Errors
    /// What [`WriteError`] names.
    pub fn resize_terminal(
        &mut self,
        writer: &Writer,
        now: Wall,
        id: TerminalId,
        size: (u16, u16),
    ) -> Result<Option<LocalChange>, WriteError> {
        self.write(own(writer), |document| {
            document.resize_terminal(writer, now, id, size)
        })
    }

    /// Writes the new title of a terminal of this node.
    ///
    /// # Errors
    /// What [`WriteError`] names.
    pub fn retitle_terminal(
        &mut self,
        writer: &Writer,
        now: Wall,
        id: TerminalId,
        title: &str,
    ) -> Result<Option<LocalChange>, WriteError> {
        self.write(own(writer), |document| {
            document.retitle_terminal(writer, now, id, title)
        })
    }

    /// Writes that the shell of a terminal of this node ended.
    ///
    /// # Errors
    /// What [`WriteError`] names.
    pub fn close_terminal(
        &mut self,
        writer: &Writer,
        now: Wall,
        id: TerminalId,
        status: Option<ExitStatus>,
    ) -> Result<Option<LocalChange>, WriteError> {
        self.write(own(writer), |document| {
            document.close_terminal(writer, now, id, status)
        })
    }

    /// Says something. The message is stamped after what has been read here, and goes into the next document
    /// when the newest is full.
    ///
    /// # Errors
    /// What [`WriteError`] names.
    pub fn post(
        &mut self,
        writer: &Writer,
        now: Wall,
        draft: &Draft,
    ) -> Result<(LocalChange, Arc<ChatMessage>), WriteError> {
        let stamp = Stamp::after(self.timeline.newest_stamp(now), now);
        let owner = writer.member;
        let index = match self.last_chat(owner) {
            Some((index, document)) if document.is_full() => index.saturating_add(1),
            Some((index, _)) => index,
            None => 0,
        };
        let (written, message) = self.write(DocumentName::Chat { owner, index }, |document| {
            let written = document.append_message(writer, now, stamp, draft)?;
            let message = document.messages().last().cloned();
            written
                .zip(message)
                .ok_or(WriteError::Refused(Refusal::NoOperations))
        })?;
        self.timeline.add(&message);
        Ok((written, message))
    }

    /// Begins a generation of one's presence (with every heartbeat): its one change holds the whole state.
    ///
    /// # Errors
    /// What [`WriteError`] names.
    pub fn begin_presence(
        &mut self,
        writer: &Writer,
        now: Wall,
        (instance, generation): (u64, u64),
        state: &PresenceState,
    ) -> Result<LocalChange, WriteError> {
        let owner = writer.member;
        let name = DocumentName::Presence {
            owner,
            instance,
            generation,
        };
        let mut document = Document::new(self.session, name)?;
        let written = document.write_presence(writer, now, state)?;
        self.replace_presence(owner, document);
        written.ok_or(WriteError::Refused(Refusal::NoOperations))
    }

    /// Writes what has changed into the current generation of one's presence; no change if nothing has, or if
    /// no generation has begun.
    ///
    /// # Errors
    /// What [`WriteError`] names; a full generation is refused until the next heartbeat.
    pub fn update_presence(
        &mut self,
        writer: &Writer,
        now: Wall,
        state: &PresenceState,
    ) -> Result<Option<LocalChange>, WriteError> {
        match self.presence.get_mut(&writer.member) {
            Some(document) => document.write_presence(writer, now, state),
            None => Ok(None),
        }
    }

    /// Forgets the presence of a member who is gone.
    pub fn forget_presence(&mut self, owner: &MemberId) {
        self.presence.remove(owner);
        self.pool
            .forget(presence_name(*owner, (0, 0))..presence_name(*owner, (u64::MAX, u64::MAX)));
    }

    /// Whether a newer generation of this presence has begun.
    fn is_over(&self, name: &DocumentName) -> bool {
        match (name.owner(), generation(name)) {
            (Some(owner), Some(this)) => self
                .presence_generation(&owner)
                .is_some_and(|newest| newest > this),
            (None | Some(_), _) => false,
        }
    }

    /// A chat document begins when the one before it is full, so that nobody fills the memory with documents
    /// of one message. Whether it is depends on its author's log alone.
    fn may_begin(&self, name: &DocumentName) -> bool {
        match name {
            DocumentName::Chat { owner, index } => index.checked_sub(1).is_none_or(|index| {
                self.stored
                    .get(&DocumentName::Chat {
                        owner: *owner,
                        index,
                    })
                    .is_some_and(Document::is_full)
            }),
            DocumentName::Session | DocumentName::Member { .. } | DocumentName::Presence { .. } => {
                true
            }
        }
    }

    /// Judges what waits for a document. A document of which nothing is accepted is not kept: a generation of
    /// presence replaces the one before with its first change only.
    fn settle(&mut self, name: &DocumentName, queues: &mut Queues) -> Result<Vec<Settled>, Fault> {
        let mut document = match self.remove(name) {
            Some(document) => document,
            None => Document::new(self.session, *name)?,
        };
        let shown = document.messages().len();
        let settled = document.settle(queues);
        for message in document.messages().iter().skip(shown) {
            self.timeline.add(message);
        }
        if document.changes() > 0 || document.fault().is_some() {
            match name {
                DocumentName::Presence { owner, .. } => self.replace_presence(*owner, document),
                DocumentName::Session | DocumentName::Chat { .. } | DocumentName::Member { .. } => {
                    self.stored.insert(*name, document);
                }
            }
        }
        settled
    }

    fn remove(&mut self, name: &DocumentName) -> Option<Document> {
        match name {
            DocumentName::Presence { owner, .. } => {
                let same = self
                    .presence
                    .get(owner)
                    .is_some_and(|document| document.name() == name);
                if same {
                    self.presence.remove(owner)
                } else {
                    None
                }
            }
            DocumentName::Session | DocumentName::Chat { .. } | DocumentName::Member { .. } => {
                self.stored.remove(name)
            }
        }
    }

    fn replace_presence(&mut self, owner: MemberId, document: Document) {
        if let Some(newest) = generation(document.name()) {
            self.pool
                .forget(presence_name(owner, (0, 0))..presence_name(owner, newest));
        }
        self.presence.insert(owner, document);
    }

    /// Judges what waits for the chat document after one that has just become full.
    fn continue_chat(&mut self, name: &DocumentName) -> Result<Vec<Settled>, Fault> {
        let DocumentName::Chat { owner, index } = name else {
            return Ok(Vec::new());
        };
        let next = DocumentName::Chat {
            owner: *owner,
            index: index.saturating_add(1),
        };
        if !self.may_begin(&next) {
            return Ok(Vec::new());
        }
        self.pool.grown(&next);
        if self.pool.has(&next) {
            self.receive(&next, Vec::new())
        } else {
            Ok(Vec::new())
        }
    }

    fn last_chat(&self, owner: MemberId) -> Option<(u32, &Document)> {
        let first = DocumentName::Chat { owner, index: 0 };
        let last = DocumentName::Chat {
            owner,
            index: u32::MAX,
        };
        let (name, document) = self.stored.range(first..=last).next_back()?;
        match name {
            DocumentName::Chat { index, .. } => Some((*index, document)),
            DocumentName::Session | DocumentName::Member { .. } | DocumentName::Presence { .. } => {
                None
            }
        }
    }

    /// Writes into a stored document, begun if need be; one into which nothing is written is not kept.
    fn write<T>(
        &mut self,
        name: DocumentName,
        write: impl FnOnce(&mut Document) -> Result<T, WriteError>,
    ) -> Result<T, WriteError> {
        let mut document = match self.stored.remove(&name) {
            Some(document) => document,
            None => Document::new(self.session, name)?,
        };
        let written = write(&mut document);
        if document.changes() > 0 || document.fault().is_some() {
            self.stored.insert(name, document);
        }
        written
    }
}

fn own(writer: &Writer) -> DocumentName {
    DocumentName::Member {
        owner: writer.member,
    }
}

/// Adds a batch to what waits. Of two with one place in a log the first counts: a log has only one there, and
/// a fork of it is a matter of membership.
fn enqueue(queues: &mut Queues, batch: Vec<Incoming>) -> Vec<Settled> {
    use std::collections::btree_map::Entry;
    let mut repeated = Vec::new();
    for Incoming {
        author,
        position,
        nonce,
        change,
    } in batch
    {
        match queues.entry(author).or_default().entry(position) {
            Entry::Vacant(entry) => {
                entry.insert(Held::new(nonce, change));
            }
            Entry::Occupied(entry) => {
                let missing = entry.get().missing.iter().map(gate::hash_of).collect();
                let verdict = Verdict::Held { missing };
                repeated.push(Settled {
                    author,
                    position,
                    change: None,
                    verdict,
                });
            }
        }
    }
    repeated
}

fn stale(incoming: Incoming) -> Settled {
    let Incoming {
        author, position, ..
    } = incoming;
    Settled {
        author,
        position,
        change: None,
        verdict: Verdict::Stale,
    }
}

fn generation(name: &DocumentName) -> Option<(u64, u64)> {
    match name {
        DocumentName::Presence {
            instance,
            generation,
            ..
        } => Some((*instance, *generation)),
        DocumentName::Session | DocumentName::Chat { .. } | DocumentName::Member { .. } => None,
    }
}

fn presence_name(owner: MemberId, (instance, generation): (u64, u64)) -> DocumentName {
    DocumentName::Presence {
        owner,
        instance,
        generation,
    }
}
