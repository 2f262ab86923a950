//! A node's own log when others know more of it than its folder: after an old copy of the folder was put back.
//!
//! The folder says up to which number the own log may be known to others (*shown*); that mark is on disk before
//! anything beyond it goes out. Where others hold another entry behind the mark, under this node's own signature,
//! what was written here makes way for it: it was shown to nobody, so no number is used twice before anybody's
//! eyes. What made way is kept and written again behind the log's true end, with new numbers and nonces:
//! messages are said again, facts of the session travel as the same change, statements are made again. What a
//! member says of itself follows from its present state and is not kept. A difference at or before the mark is a
//! fork: two histories were written under one key.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{News, Records, Replica, Taken, encode};
use crate::engine::command::{Anchor, CommandError};
use crate::engine::documents::chat::Draft;
use crate::engine::documents::{
    ActorNonce, ChatMessage, Document, DocumentKind, DocumentName, LocalChange,
};
use crate::engine::entropy::Entropy;
use crate::engine::identity::Verified;
use crate::engine::ids::{DocumentId, Hash, MemberId, MessageId};
use crate::engine::log::{Entry, LogWriter};
use crate::engine::membership::Membership;
use crate::engine::persist::{Batch, Key, Table};
use crate::engine::statement::{Frontier, Statement, StatementBody};
use crate::engine::time::Wall;

const SHOWN: &[u8] = b"shown";
const UNSAID: &[u8] = b"unsaid";

/// What made way and is to be written again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unsaid {
    /// A message, by the id that it had.
    Message {
        /// Its id then; another one is given to it now.
        id: MessageId,
        /// When it was said.
        at: Wall,
        /// The text, raw.
        text: String,
        /// Members that it names.
        mentions: Vec<MemberId>,
        /// What it answers.
        reply: Option<MessageId>,
        /// What it points at.
        anchor: Option<Anchor>,
    },
    /// A change of the session's facts.
    Session {
        /// Of its actor.
        nonce: ActorNonce,
        /// Its bytes.
        change: Vec<u8>,
    },
    /// A fact about membership.
    Statement(Box<StatementBody>),
}

/// What became of what had made way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SaidAgain {
    /// So much is written again.
    pub done: usize,
    /// So much could not be.
    pub lost: usize,
}

impl Replica {
    /// Up to where a log is given to others.
    pub fn offered(&self, member: &MemberId) -> Frontier {
        if *member != self.me() || !self.is_held() {
            return self.logs.frontier(member);
        }
        let seq = self.shown;
        match self.logs.hash_at(member, seq) {
            Some(hash) => Frontier { seq, hash },
            None => Frontier::start(&self.profile.session),
        }
    }

    /// Up to where the own log may be known to others.
    pub fn shown(&self) -> u64 {
        self.shown
    }

    /// The own log may be known to others up to `seq` as soon as this batch is on disk.
    pub fn show(&mut self, seq: u64, batch: &mut Batch) {
        if seq > self.shown {
            self.shown = seq;
            batch.put(Key::new(Table::Meta, SHOWN), seq.to_be_bytes().to_vec());
        }
    }

    /// Whether nothing of the own log beyond what may be known already is given to anybody.
    pub fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// Whether it is held back. Nothing that is not saved is given to anybody either.
    pub fn is_held(&self) -> bool {
        self.held || self.frozen.is_some()
    }

    /// Whether something is to be written again.
    pub fn has_unsaid(&self) -> bool {
        !self.unsaid.is_empty()
    }

    /// Own entries behind the mark, encoded.
    pub fn unshown(&self) -> Vec<Vec<u8>> {
        let from = self.shown.saturating_add(1);
        let range = self.logs.range(&self.me(), from, usize::MAX);
        range.into_iter().map(<[u8]>::to_vec).collect()
    }

    /// Reads the mark and what is still to be written again. A store without the mark has shown all.
    pub(super) fn remember_own(&mut self, records: &Records) {
        let mark = records.get(Table::Meta, SHOWN);
        let mark = mark.and_then(|bytes| bytes.try_into().ok());
        self.shown = mark.map_or_else(|| self.writer.frontier().seq, u64::from_be_bytes);
        let unsaid = records.get(Table::Meta, UNSAID);
        let unsaid = unsaid.and_then(|bytes| postcard::from_bytes(bytes).ok());
        self.unsaid = unsaid.unwrap_or_default();
    }

    /// Takes an entry of the own log from somebody else, who has it from this key. It is judged with what comes beside it.
    pub(super) fn take_own(&mut self, entry: Entry, taken: &mut Taken, batch: &mut Batch) {
        if self.frozen.is_some() {
            return;
        }
        let (seq, hash) = (entry.seq(), entry.hash());
        if seq > self.shown && self.logs.parts_with(&entry) {
            self.make_way(seq, taken, batch);
        }
        self.place(entry, taken, batch);
        if self.logs.hash_at(&self.me(), seq) == Some(hash) {
            self.show(seq, batch);
        }
    }

    /// An author's histories part at or before `seq`. Own ones that part where nobody has seen them only lack
    /// what comes before.
    pub(super) fn parted(&self, author: MemberId, seq: u64, taken: &mut Taken) {
        if author == self.me() && seq > self.shown {
            taken.gaps.insert(author);
        } else {
            taken.forks.insert(author);
        }
    }

    /// Takes what was written here from number `from` on out of the log and of all that follows from it.
    fn make_way(&mut self, from: u64, taken: &mut Taken, batch: &mut Batch) {
        let me = self.me();
        let cut = self.logs.cut_back(&me, from);
        let unsaid = self.unsaid_of(&cut);
        self.unsaid.extend(unsaid);
        batch.put(Key::new(Table::Meta, UNSAID), encode(&self.unsaid));
        let mut withdrawn = Vec::new();
        for entry in &cut {
            let mut key = me.0.to_vec();
            key.extend_from_slice(&entry.seq().to_be_bytes());
            batch.delete(Key::new(Table::Log, key));
            if let Entry::Statement(statement) = entry {
                batch.delete(Key::new(Table::Membership, statement.hash().0));
                withdrawn.push(statement.hash());
            }
        }
        if !withdrawn.is_empty() {
            self.withdraw(&withdrawn);
            taken.news.push(News::Membership);
        }
        self.documents.forget_stored();
        self.judged.clear();
        self.refused.clear();
        self.let_go.clear();
        // What is judged again is no news to anybody.
        self.judge_all(&mut Taken::default(), batch);
        self.writer = LogWriter::behind(self.secrets.key.clone(), &self.logs);
        taken.changed = true;
        taken.news.push(News::Session);
    }

    /// The membership without these statements.
    fn withdraw(&mut self, withdrawn: &[Hash]) {
        let stays = |statement: &&&Verified<Statement>| !withdrawn.contains(&statement.hash());
        let all = self.membership.all();
        let mut all = all.iter().filter(stays).map(|one| (*one).clone());
        let Some(Ok(mut membership)) = all.next().map(Membership::new) else {
            return;
        };
        for statement in all {
            membership.insert(statement);
        }
        self.membership = membership;
    }

    /// What is to be written again of entries that were taken out of the log just now.
    fn unsaid_of(&self, cut: &[Entry]) -> Vec<Unsaid> {
        let mut messages = self.newest_messages(cut);
        let session = DocumentName::Session.id(&self.profile.session);
        let mut unsaid = Vec::new();
        for entry in cut {
            match entry {
                Entry::Statement(statement) => {
                    unsaid.push(Unsaid::Statement(Box::new(statement.body.clone())));
                }
                Entry::Envelope(envelope) => {
                    let header = envelope.header();
                    if let Some(mine) = messages.get_mut(&header.document) {
                        unsaid.extend(mine.next().map(|message| unsaid_message(&message)));
                    } else if header.document == session
                        && let Ok(key) = self.keyring.document_key(&header.epoch, &session)
                        && let Ok(body) = envelope.open(&key)
                    {
                        let nonce = ActorNonce(body.actor_nonce);
                        let change = body.change;
                        unsaid.push(Unsaid::Session { nonce, change });
                    }
                }
            }
        }
        unsaid
    }

    /// The messages that the entries brought, by chat document: each entry one, and they are its newest.
    fn newest_messages(
        &self,
        cut: &[Entry],
    ) -> BTreeMap<DocumentId, std::vec::IntoIter<std::sync::Arc<ChatMessage>>> {
        let owner = self.me();
        let mut counts: BTreeMap<DocumentId, usize> = BTreeMap::new();
        for entry in cut {
            if let Entry::Envelope(envelope) = entry
                && envelope.header().kind == DocumentKind::Chat as u8
            {
                *counts.entry(envelope.header().document).or_default() += 1;
            }
        }
        let mut newest = BTreeMap::new();
        for index in 0..=self.chats_of(owner) {
            let name = DocumentName::Chat { owner, index };
            let id = name.id(&self.profile.session);
            let document = self.documents.document(&name);
            let all = document.map_or(&[][..], Document::messages);
            if let Some(count) = counts.get(&id) {
                let from = all.len().saturating_sub(*count);
                newest.insert(
                    id,
                    all.iter()
                        .skip(from)
                        .cloned()
                        .collect::<Vec<_>>()
                        .into_iter(),
                );
            }
        }
        newest
    }

    /// Writes again what made way, behind what is known of the own log now.
    pub fn say_again(
        &mut self,
        now: Wall,
        entropy: &mut Entropy,
        (taken, batch): (&mut Taken, &mut Batch),
    ) -> SaidAgain {
        let mut said = SaidAgain::default();
        self.actor = ActorNonce::draw(entropy);
        let mut ids = BTreeMap::new();
        for unsaid in std::mem::take(&mut self.unsaid) {
            let again = self.say_one_again(&unsaid, &mut ids, now, entropy, (taken, batch));
            match again {
                Ok(()) => said.done += 1,
                Err(error) => {
                    tracing::warn!(%error, "something could not be written again");
                    said.lost += 1;
                }
            }
        }
        batch.delete(Key::new(Table::Meta, UNSAID));
        said
    }

    fn say_one_again(
        &mut self,
        unsaid: &Unsaid,
        ids: &mut BTreeMap<MessageId, MessageId>,
        now: Wall,
        entropy: &mut Entropy,
        (taken, batch): (&mut Taken, &mut Batch),
    ) -> Result<(), CommandError> {
        match unsaid {
            Unsaid::Message {
                id,
                at,
                text,
                mentions,
                reply,
                anchor,
            } => {
                let draft = Draft {
                    text: text.clone(),
                    mentions: mentions.clone(),
                    reply: reply.map(|reply| ids.get(&reply).copied().unwrap_or(reply)),
                    anchor: anchor.clone(),
                };
                let owner = self.me();
                let name = DocumentName::Chat { owner, index: 0 };
                let message = self.write(name, entropy, (taken, batch), |documents, writer| {
                    let (change, message) = documents.post(writer, *at, &draft)?;
                    Ok((Some(change), message))
                })?;
                ids.insert(*id, message.id);
                taken.news.push(News::Messages(vec![message]));
                Ok(())
            }
            Unsaid::Session { nonce, change } => {
                self.seal_again(*nonce, change, entropy, (taken, batch))
            }
            Unsaid::Statement(body) => self.state((**body).clone(), now, taken, batch).map(|_| ()),
        }
    }

    /// The same change of the session's facts in a new envelope.
    fn seal_again(
        &mut self,
        nonce: ActorNonce,
        change: &[u8],
        entropy: &mut Entropy,
        (taken, batch): (&mut Taken, &mut Batch),
    ) -> Result<(), CommandError> {
        let epoch = self.writable(DocumentKind::Session)?;
        let local = LocalChange {
            document: DocumentName::Session,
            hash: Hash([0; 32]),
            nonce,
            change: change.to_vec(),
        };
        let entry = self.seal(&local, epoch, entropy)?;
        self.insert(entry, taken, batch);
        Ok(())
    }
}

fn unsaid_message(message: &ChatMessage) -> Unsaid {
    Unsaid::Message {
        id: message.id,
        at: message.stamp.wall,
        text: message.text.clone(),
        mentions: message.mentions.clone(),
        reply: message.reply,
        anchor: message.anchor.clone(),
    }
}
