//! What a node holds of its session: logs, membership, secrets and documents, and the one way in for entries.
//!
//! An entry is put in its log, kept, and then judged: statements by membership, envelopes, in the order of
//! their author's log, by standing, epoch and gate. An envelope that cannot be judged yet (its membership
//! heads, its epoch's secret or its body are missing) holds up its author's later ones, so that every replica
//! judges in the same order; it is kept and passed on meanwhile.

pub mod restored;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::engine::capability::{Action, Role, Standing};
use crate::engine::command::{CommandError, TerminalSpec};
use crate::engine::documents::schema::actor_of;
use crate::engine::documents::{
    ActorNonce, ChatMessage, Document, DocumentKind, DocumentName, Documents, Fault, Incoming,
    LocalChange, Verdict, WriteError, Writer,
};
use crate::engine::entropy::Entropy;
use crate::engine::envelope::{EnvelopeBody, SealedEnvelope};
use crate::engine::epoch::{EpochId, EpochSecret, Keyring};
use crate::engine::error::Code;
use crate::engine::identity::{AgreementKey, MemberKey, Verified, keyed_hash};
use crate::engine::ids::{Hash, InviteId, MemberId, SessionId, TopicId};
use crate::engine::limits::{HEARD_FROZEN_MAX, LOG_QUOTA_BYTES, MEMBERSHIP_HEADS_MAX};
use crate::engine::log::{Entry, Inserted, LogWriter, Logs, NewEnvelope};
use crate::engine::membership::{Inserted as Kept, Member, Membership};
use crate::engine::message::Reached;
use crate::engine::persist::{Batch, Key, Table};
use crate::engine::statement::{Frontier, SignedStatement, Statement, StatementBody};
use crate::engine::time::Wall;

/// Who this node is in the session, and what it alone knows.
pub struct Secrets {
    /// The member's key.
    pub key: MemberKey,
    /// The key that epoch secrets are wrapped to.
    pub prekey: AgreementKey,
    /// The key under which the session is found.
    pub discovery: [u8; 32],
    /// The session's root key, at its owner.
    pub root: Option<MemberKey>,
}

/// Facts that a node keeps about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// The session.
    pub session: SessionId,
    /// The name chosen here.
    pub name: String,
    /// The terminal to be opened at each start, at a host.
    pub terminal: Option<TerminalSpec>,
}

/// An invitation made here, so that its ticket can be shown again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnInvite {
    /// The seed of its key.
    pub seed: [u8; 32],
    /// Whether its ticket carries addresses.
    pub addresses: bool,
    /// When it was made.
    pub created: Wall,
}

/// What changed by an entry.
#[derive(Debug, Clone)]
pub enum News {
    /// Statements came that may change who is a member or may do what.
    Membership,
    /// The session's facts changed.
    Session,
    /// Messages were said.
    Messages(Vec<Arc<ChatMessage>>),
    /// What a member says of itself changed.
    Member(MemberId),
    /// A document is frozen by a fault of this program.
    Fault(Fault),
}

/// What came of taking entries.
#[derive(Debug, Default)]
pub struct Taken {
    /// What changed, in order.
    pub news: Vec<News>,
    /// Entries that are new here, encoded, for neighbours.
    pub fresh: Vec<Vec<u8>>,
    /// Whether anything was new.
    pub changed: bool,
    /// Logs in which entries before the one that came are missing.
    pub gaps: BTreeSet<MemberId>,
    /// Authors that signed two histories.
    pub forks: BTreeSet<MemberId>,
    /// Whether a peer sent what no honest node sends.
    pub invalid: Option<String>,
}

/// A node's part of its session.
#[derive(Debug)]
pub struct Replica {
    secrets: Secrets,
    profile: Profile,
    writer: LogWriter,
    root_log: Option<LogWriter>,
    logs: Logs,
    membership: Membership,
    keyring: Keyring,
    documents: Documents,
    /// Up to where each log is judged.
    judged: BTreeMap<MemberId, u64>,
    /// Envelopes whose change is no part of its document, with the reason.
    refused: BTreeMap<Hash, String>,
    /// Changes for which their document had no room when they came.
    let_go: BTreeMap<(DocumentName, MemberId), BTreeSet<u64>>,
    /// Epochs whose secret some envelope waits for.
    locked: BTreeSet<EpochId>,
    actor: ActorNonce,
    invites: BTreeMap<InviteId, OwnInvite>,
    /// Why nothing can be saved, if so: what is not saved is neither written nor taken.
    frozen: Option<CommandError>,
    /// Statements heard since then.
    heard_frozen: usize,
    /// Up to where the own log may be known to others.
    shown: u64,
    /// Nothing of the own log behind that is given to anybody now.
    held: bool,
    /// What made way for entries of the own log that others had, and is to be written again behind them.
    unsaid: Vec<restored::Unsaid>,
    planted: Planted,
}

/// Rules that a simulated node breaks on purpose, to see the checkers find it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Planted {
    /// Takes entries whose signature is not their author's.
    pub accept_unsigned: bool,
    /// Keeps nothing on disk.
    pub skip_persist: bool,
}

impl Replica {
    /// A replica of which nothing but the membership is known yet: after creating a session, or after joining.
    pub fn new(
        secrets: Secrets,
        profile: Profile,
        membership: Membership,
        statements: Vec<Verified<Statement>>,
        keyring: Keyring,
        entropy: &mut Entropy,
        batch: &mut Batch,
    ) -> Self {
        let session = membership.session();
        let mut logs = Logs::new(session);
        for statement in statements {
            keep_statement(&statement, batch);
            if let Inserted::Appended(entries) = logs.insert(Entry::Statement(Box::new(statement)))
            {
                entries.iter().for_each(|entry| keep_entry(entry, batch));
            }
        }
        keep_secrets(&secrets, batch);
        batch.put(Key::new(Table::Meta, *b"profile"), encode(&profile));
        for epoch in keyring.epochs() {
            keep_epoch(&keyring, epoch, batch);
        }
        Self::assemble(secrets, profile, logs, membership, keyring, entropy)
    }

    fn assemble(
        secrets: Secrets,
        profile: Profile,
        logs: Logs,
        membership: Membership,
        keyring: Keyring,
        entropy: &mut Entropy,
    ) -> Self {
        let writer = LogWriter::behind(secrets.key.clone(), &logs);
        let root_log = secrets
            .root
            .as_ref()
            .map(|root| LogWriter::behind(root.clone(), &logs));
        Self {
            documents: Documents::new(membership.session()),
            actor: ActorNonce::draw(entropy),
            secrets,
            profile,
            writer,
            root_log,
            logs,
            membership,
            keyring,
            judged: BTreeMap::new(),
            refused: BTreeMap::new(),
            let_go: BTreeMap::new(),
            locked: BTreeSet::new(),
            invites: BTreeMap::new(),
            frozen: None,
            heard_frozen: 0,
            shown: 0,
            held: false,
            unsaid: Vec::new(),
            planted: Planted::default(),
        }
    }

    /// Puts a replica together from what the store holds.
    ///
    /// # Errors
    /// Something without which there is no member is missing or damaged.
    pub fn load(records: &Records, entropy: &mut Entropy) -> Result<(Self, Taken), LoadError> {
        let secrets = records.secrets()?;
        let profile: Profile = records.decoded(Table::Meta, b"profile")?;
        let membership = records.membership(&profile.session)?;
        let keyring = records.keyring();
        let mut logs = Logs::new(profile.session);
        for entry in records.entries() {
            logs.insert(entry);
        }
        let mut replica = Self::assemble(secrets, profile, logs, membership, keyring, entropy);
        replica.invites = records.invites();
        replica.remember_own(records);
        let mut taken = Taken::default();
        replica.judge_all(&mut taken, &mut Batch::new());
        Ok((replica, taken))
    }

    /// Breaks rules on purpose.
    pub fn plant(&mut self, planted: Planted) {
        self.planted = planted;
    }

    /// From now on nothing can be saved, for this reason: nothing is written and nothing is taken from peers.
    pub fn freeze(&mut self, why: CommandError) {
        self.frozen = Some(why);
    }

    /// Everything here is saved and more can be.
    pub fn thaw(&mut self) {
        self.frozen = None;
        self.heard_frozen = 0;
    }

    /// Why nothing can be saved, if so.
    pub fn frozen(&self) -> Option<&CommandError> {
        self.frozen.as_ref()
    }

    fn may_grow(&self) -> Result<(), CommandError> {
        self.frozen.clone().map_or(Ok(()), Err)
    }

    /// This member.
    pub fn me(&self) -> MemberId {
        self.writer.member()
    }

    /// This member's key.
    pub fn key(&self) -> &MemberKey {
        &self.secrets.key
    }

    /// The session.
    pub fn session(&self) -> SessionId {
        self.profile.session
    }

    /// The key under which the session is found.
    pub fn discovery(&self) -> &[u8; 32] {
        &self.secrets.discovery
    }

    /// Whether this node holds the session's root.
    pub fn is_owner(&self) -> bool {
        self.secrets.root.is_some()
    }

    /// What this node keeps about itself.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Keeps the terminal to be opened at each start.
    pub fn keep_terminal(&mut self, spec: &TerminalSpec, batch: &mut Batch) {
        self.profile.terminal = Some(spec.clone());
        batch.put(Key::new(Table::Meta, *b"profile"), encode(&self.profile));
    }

    /// The membership.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The secrets of epochs.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// The documents.
    pub fn documents(&self) -> &Documents {
        &self.documents
    }

    /// The logs.
    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    /// A member who is one now.
    pub fn member(&self, id: &MemberId) -> Option<Member> {
        self.membership
            .member(id)
            .filter(|member| member.standing.is_some())
    }

    /// What a member may do now, if it is one.
    pub fn standing(&self, id: &MemberId) -> Option<Standing> {
        self.membership.standing(id)
    }

    /// The invitations made here.
    pub fn invites(&self) -> &BTreeMap<InviteId, OwnInvite> {
        &self.invites
    }

    /// The topic on which news about the logs is spread.
    pub fn log_topic(&self) -> TopicId {
        topic(&self.secrets.discovery, &self.profile.session, b"log")
    }

    /// The topic on which presence is spread.
    pub fn presence_topic(&self) -> TopicId {
        topic(&self.secrets.discovery, &self.profile.session, b"presence")
    }

    /// How far each log is given to others, in the order of the members' ids.
    pub fn vector(&self) -> Vec<(MemberId, Reached)> {
        let all = self.logs.vector().into_keys();
        let reached = all.map(|member| {
            let Frontier { seq, hash } = self.offered(&member);
            (member, Reached { seq, hash })
        });
        reached.filter(|(_, reached)| reached.seq > 0).collect()
    }

    /// Epochs whose secret is missing here.
    pub fn missing_epochs(&self) -> BTreeSet<EpochId> {
        let known = self
            .membership
            .epochs()
            .into_iter()
            .map(|fact| fact.epoch.id);
        known
            .chain(self.locked.iter().copied())
            .filter(|id| !self.keyring.knows(id))
            .collect()
    }

    /// Takes an entry from a peer: it is checked, chained and kept. What it says counts from the next
    /// [`Self::judge`] on, which costs little more for many entries than for one.
    pub fn take(&mut self, bytes: &[u8], taken: &mut Taken, batch: &mut Batch) {
        match self.decode(bytes) {
            Ok(entry) if entry.member() == self.me() => self.take_own(entry, taken, batch),
            Ok(entry) => self.place(entry, taken, batch),
            Err(reason) => taken.invalid = Some(reason),
        }
    }

    /// Judges, in each log, what was not judged so far.
    pub fn judge(&mut self, taken: &mut Taken, batch: &mut Batch) {
        self.judge_all(taken, batch);
    }

    fn decode(&self, bytes: &[u8]) -> Result<Entry, String> {
        if self.planted.accept_unsigned {
            return Entry::decode_stored(bytes).map_err(|error| error.to_string());
        }
        Entry::decode(bytes).map_err(|error| error.to_string())
    }

    /// Whether entries of this author are kept: the root's, and those of whoever is or was a member. A newcomer
    /// whose admission is not known here yet is asked for again once it is.
    pub fn may_keep(&self, author: &MemberId) -> bool {
        *author == self.membership.root() || self.membership.member(author).is_some()
    }

    /// Takes an entry whose signature is good, and judges it.
    pub fn insert(&mut self, entry: Entry, taken: &mut Taken, batch: &mut Batch) {
        self.place(entry, taken, batch);
        self.judge_all(taken, batch);
    }

    fn place(&mut self, entry: Entry, taken: &mut Taken, batch: &mut Batch) {
        let author = entry.member();
        if let Entry::Statement(statement) = &entry {
            self.learn(statement.as_ref(), taken, batch);
        }
        if self.frozen.is_some() {
            return;
        }
        if !self.may_keep(&author) {
            taken.gaps.insert(author);
            return;
        }
        match self.logs.insert(entry) {
            Inserted::Appended(entries) => {
                taken.changed = true;
                for entry in &entries {
                    self.keep(entry, batch);
                    taken.fresh.push(entry.encode());
                }
                self.follow_own_log(author);
            }
            Inserted::Completed(entry) => {
                taken.changed = true;
                self.keep(&entry, batch);
            }
            Inserted::Duplicate => {}
            Inserted::Gap { .. } => {
                taken.gaps.insert(author);
            }
            Inserted::Fork { ours, .. } => self.parted(author, ours.seq(), taken),
            Inserted::NotChained { have } => self.parted(author, have.seq, taken),
            Inserted::Invalid(reason) => taken.invalid = Some(reason.to_owned()),
        }
    }

    /// Own entries may come from others after a backup was restored: writing goes on behind them.
    fn follow_own_log(&mut self, author: MemberId) {
        if author == self.me() && self.logs.frontier(&author).seq > self.writer.frontier().seq {
            self.writer = LogWriter::behind(self.secrets.key.clone(), &self.logs);
        }
    }

    fn keep(&self, entry: &Entry, batch: &mut Batch) {
        if !self.planted.skip_persist {
            keep_entry(entry, batch);
        }
    }

    /// Gives a statement to membership, whether or not its place in its log can be filled yet.
    ///
    /// While nothing can be saved, only what ends rights is heard, from those who may end them: who was removed is
    /// served no longer. Nothing of it is passed on, and others tell it again if it never comes to disk.
    pub fn learn(&mut self, statement: &Verified<Statement>, taken: &mut Taken, batch: &mut Batch) {
        if self.frozen.is_some() && !self.is_heard_frozen(statement) {
            return;
        }
        let Kept::New(kept) = self.membership.insert(statement.clone()) else {
            return;
        };
        for hash in kept {
            if let Some(statement) = self.membership.get(&hash)
                && !self.planted.skip_persist
            {
                keep_statement(statement, batch);
            }
        }
        taken.changed = true;
        taken.news.push(News::Membership);
        let learned = self.keyring.open_wraps(
            &self.profile.session,
            &self.secrets.key.id(),
            &self.secrets.prekey,
            self.membership.wraps(),
        );
        self.learned_epochs(&learned, batch);
        self.judge_all(taken, batch);
    }

    fn is_heard_frozen(&mut self, statement: &Statement) -> bool {
        let author = &statement.member;
        let ends = match &statement.body {
            StatementBody::Revoke(_) => {
                let rank = Role::Agent.rank();
                self.membership.may(author, &Action::Remove { rank })
                    || *author == self.membership.root()
            }
            StatementBody::Leave | StatementBody::Close { .. } => {
                self.membership.standing(author).is_some() || *author == self.membership.root()
            }
            StatementBody::Genesis(_)
            | StatementBody::Grant(_)
            | StatementBody::Admit(_)
            | StatementBody::Epoch(_)
            | StatementBody::Prekey { .. }
            | StatementBody::Fork(_)
            | StatementBody::Seal(_)
            | StatementBody::Role(_)
            | StatementBody::Quota { .. } => false,
        };
        let heard = ends && *author != self.me() && self.heard_frozen < HEARD_FROZEN_MAX;
        self.heard_frozen = self.heard_frozen.saturating_add(usize::from(heard));
        heard
    }

    /// Takes the secret of an epoch from a peer; it is believed if it is what the epoch commits to.
    pub fn learn_epoch(
        &mut self,
        epoch: EpochId,
        secret: [u8; 32],
        taken: &mut Taken,
        batch: &mut Batch,
    ) {
        let secret = EpochSecret::from_bytes(secret);
        if self.frozen.is_some() || secret.id() != epoch || !self.missing_epochs().contains(&epoch)
        {
            return;
        }
        self.keyring.insert(secret);
        self.learned_epochs(&[epoch], batch);
        self.judge_all(taken, batch);
    }

    fn learned_epochs(&mut self, learned: &[EpochId], batch: &mut Batch) {
        let session = self.profile.session;
        let previous = self.membership.previous_wraps();
        let earlier = self.keyring.open_previous(&session, &previous);
        for epoch in learned.iter().chain(&earlier) {
            self.locked.remove(epoch);
            keep_epoch(&self.keyring, epoch, batch);
        }
    }

    /// Attaches the body of an envelope of which only the header is here; it counts as what was taken does.
    pub fn take_body(
        &mut self,
        envelope: &Hash,
        body: Vec<u8>,
        taken: &mut Taken,
        batch: &mut Batch,
    ) {
        let Some(Entry::Envelope(mut envelope)) = self.logs.entry(envelope) else {
            return;
        };
        if envelope.body().is_none() && envelope.attach_body(body).is_ok() {
            self.place(Entry::Envelope(envelope), taken, batch);
        }
    }

    /// Judges, in each log, what could not be judged so far.
    fn judge_all(&mut self, taken: &mut Taken, batch: &mut Batch) {
        let behind: Vec<MemberId> = self
            .logs
            .vector()
            .into_iter()
            .filter(|(member, end)| self.judged.get(member).is_none_or(|seq| *seq < end.seq))
            .map(|(member, _)| member)
            .collect();
        for member in behind {
            self.judge_log(member, taken, batch);
        }
    }

    fn judge_log(&mut self, member: MemberId, taken: &mut Taken, batch: &mut Batch) {
        let mut ready: BTreeMap<DocumentName, Vec<Incoming>> = BTreeMap::new();
        let mut seq = self.judged.get(&member).copied().unwrap_or(0);
        loop {
            let next = seq.saturating_add(1);
            let Some(hash) = self.logs.hash_at(&member, next) else {
                break;
            };
            match self.logs.entry(&hash) {
                Some(Entry::Envelope(envelope)) => match self.open(&envelope, ready.len()) {
                    Opened::Change(name, incoming) => {
                        ready.entry(name).or_default().push(incoming);
                    }
                    Opened::Refused(reason) => {
                        self.refused.insert(hash, reason);
                    }
                    Opened::Waits => break,
                },
                Some(Entry::Statement(statement)) => {
                    let known = self.membership.get(&statement.hash()).is_some();
                    if !known {
                        self.learn_quietly(&statement, taken, batch);
                    }
                }
                None => break,
            }
            seq = next;
        }
        self.judged.insert(member, seq);
        for (name, changes) in ready {
            self.give(name, changes, taken);
        }
        self.give_again(taken);
    }

    /// A statement in a log that membership does not have (it had been pushed out of the waiting room).
    fn learn_quietly(
        &mut self,
        statement: &Verified<Statement>,
        taken: &mut Taken,
        batch: &mut Batch,
    ) {
        if let Kept::New(_) = self.membership.insert(statement.clone()) {
            keep_statement(statement, batch);
            taken.news.push(News::Membership);
        }
    }

    /// Whether an envelope's author was allowed to write it, and what it holds. So many documents of this author
    /// may have begun in the batch at hand.
    fn open(&mut self, envelope: &SealedEnvelope, begun: usize) -> Opened {
        let header = envelope.header();
        if header.total > LOG_QUOTA_BYTES {
            return Opened::Refused("the author's log is over its quota".to_owned());
        }
        if !self.membership.missing(&header.heads).is_empty() || envelope.body().is_none() {
            return Opened::Waits;
        }
        let name = self.name_of(&header.member, header.kind, &header.document, begun);
        let Some(name) = name else {
            return Opened::Refused("the document is none that this author may write".to_owned());
        };
        let action = action_of(name.kind());
        if !self
            .membership
            .may_in_past(&header.member, &header.heads, &action)
        {
            return Opened::Refused(format!("the author may not do this: {action:?}"));
        }
        let Ok(key) = self.keyring.document_key(&header.epoch, &header.document) else {
            self.locked.insert(header.epoch);
            return Opened::Waits;
        };
        match envelope.open(&key) {
            Ok(EnvelopeBody {
                actor_nonce,
                change,
                ..
            }) => {
                let nonce = ActorNonce(actor_nonce);
                let (author, position) = (header.member, header.seq);
                Opened::Change(
                    name,
                    Incoming {
                        author,
                        position,
                        nonce,
                        change,
                    },
                )
            }
            Err(error) => Opened::Refused(error.to_string()),
        }
    }

    /// Which document an id names: of the few that this author may write, the one with this id.
    fn name_of(
        &self,
        owner: &MemberId,
        kind: u8,
        id: &crate::engine::ids::DocumentId,
        begun: usize,
    ) -> Option<DocumentName> {
        let owner = *owner;
        let session = self.profile.session;
        let fits = |name: &DocumentName| {
            name.kind() as u8 == kind && name.owner() == Some(owner) && name.id(&session) == *id
        };
        let member = DocumentName::Member { owner };
        if DocumentName::Session.id(&session) == *id && DocumentKind::Session as u8 == kind {
            return Some(DocumentName::Session);
        }
        if fits(&member) {
            return Some(member);
        }
        let chats = self.chats_of(owner) + u32::try_from(begun).unwrap_or(u32::MAX);
        (0..=chats)
            .map(|index| DocumentName::Chat { owner, index })
            .find(fits)
    }

    /// How many chat documents of a member there are.
    fn chats_of(&self, owner: MemberId) -> u32 {
        let mut index = 0;
        while self
            .documents
            .document(&DocumentName::Chat { owner, index })
            .is_some()
        {
            index += 1;
        }
        index
    }

    /// Gives changes to their document and notes what came of it.
    fn give(&mut self, name: DocumentName, changes: Vec<Incoming>, taken: &mut Taken) {
        let before = self.messages_from(&name).count();
        let settled = match self.documents.receive(&name, changes) {
            Ok(settled) => settled,
            Err(fault) => {
                taken.news.push(News::Fault(fault));
                return;
            }
        };
        let mut accepted = false;
        for settled in settled {
            let (author, position) = (settled.author, settled.position);
            match settled.verdict {
                Verdict::Accepted => accepted = true,
                Verdict::Refused(reason) => {
                    if let Some(hash) = self.logs.hash_at(&author, position) {
                        self.refused.insert(hash, reason.to_string());
                    }
                }
                Verdict::LetGo => {
                    self.let_go
                        .entry((name, author))
                        .or_default()
                        .insert(position);
                }
                Verdict::Known | Verdict::Held { .. } | Verdict::Stale => {}
            }
        }
        if accepted {
            self.announce(name, before, taken);
        }
    }

    /// Changes for which there was no room are given again once their document has grown.
    fn give_again(&mut self, taken: &mut Taken) {
        for (name, author) in self.documents.wanted() {
            let positions = self.let_go.remove(&(name, author)).unwrap_or_default();
            let mut changes = Vec::new();
            for position in positions {
                let hash = self.logs.hash_at(&author, position);
                if let Some(Entry::Envelope(envelope)) =
                    hash.and_then(|hash| self.logs.entry(&hash))
                    && let Opened::Change(_, incoming) = self.open(&envelope, 0)
                {
                    changes.push(incoming);
                }
            }
            self.give(name, changes, taken);
        }
    }

    /// The messages of a chat document and of the one after it, which may begin when this one is full; none of
    /// other documents.
    fn messages_from(&self, name: &DocumentName) -> impl Iterator<Item = &Arc<ChatMessage>> {
        let names = match *name {
            DocumentName::Chat { owner, index } => {
                let index = index.saturating_add(1);
                Some([*name, DocumentName::Chat { owner, index }])
            }
            DocumentName::Session | DocumentName::Member { .. } | DocumentName::Presence { .. } => {
                None
            }
        };
        let documents = names.into_iter().flatten();
        documents
            .filter_map(|name| self.documents.document(&name))
            .flat_map(Document::messages)
    }

    fn announce(&self, name: DocumentName, messages_before: usize, taken: &mut Taken) {
        match name {
            DocumentName::Session => taken.news.push(News::Session),
            DocumentName::Member { owner } => taken.news.push(News::Member(owner)),
            DocumentName::Chat { .. } => {
                let new = self.messages_from(&name).skip(messages_before);
                let new = new.cloned().collect();
                taken.news.push(News::Messages(new));
            }
            DocumentName::Presence { .. } => {}
        }
    }

    /// What a machine of admission needs of this replica.
    pub fn session_context<'a>(
        &'a mut self,
        limits: &'a mut crate::engine::admission::SponsorLimits,
        hints: &'a [crate::engine::admission::SponsorHint],
        may_write: bool,
    ) -> crate::engine::admission::SessionContext<'a> {
        crate::engine::admission::SessionContext {
            membership: &self.membership,
            discovery_key: &self.secrets.discovery,
            keyring: &self.keyring,
            writer: may_write.then_some(&mut self.writer),
            limits,
            hints,
        }
    }

    /// Signs a statement of this member, keeps it and gives it to membership.
    ///
    /// # Errors
    /// It would have no effect, or breaks a bound.
    pub fn state(
        &mut self,
        body: StatementBody,
        now: Wall,
        taken: &mut Taken,
        batch: &mut Batch,
    ) -> Result<Verified<Statement>, CommandError> {
        self.may_grow()?;
        let key = self.secrets.key.clone();
        let after = self.writer.frontier();
        let statement = self
            .membership
            .make(&key, after, now, body)
            .map_err(|error| CommandError::new(Code::NotPermitted, error.to_string()))?;
        self.adopt(statement.clone(), taken, batch);
        Ok(statement)
    }

    /// Takes a statement that was signed here as the next entry of the own log.
    pub fn adopt(&mut self, statement: Verified<Statement>, taken: &mut Taken, batch: &mut Batch) {
        self.insert(Entry::Statement(Box::new(statement)), taken, batch);
        self.writer = LogWriter::behind(self.secrets.key.clone(), &self.logs);
        if let Some(root) = &self.secrets.root {
            self.root_log = Some(LogWriter::behind(root.clone(), &self.logs));
        }
    }

    /// Where the own log ends.
    pub fn frontier(&self) -> Frontier {
        self.writer.frontier()
    }

    /// Changes a document and signs the change.
    ///
    /// # Errors
    /// The role does not allow it, the gate would refuse it, or no epoch's secret is known yet.
    pub fn write<T>(
        &mut self,
        name: DocumentName,
        entropy: &mut Entropy,
        (taken, batch): (&mut Taken, &mut Batch),
        change: impl FnOnce(&mut Documents, &Writer) -> Result<(Option<LocalChange>, T), WriteError>,
    ) -> Result<T, CommandError> {
        let me = self.me();
        let epoch = self.writable(name.kind())?;
        let writer = Writer {
            member: me,
            nonce: self.actor,
        };
        let (local, result) =
            change(&mut self.documents, &writer).map_err(|error| failed(&error))?;
        let Some(local) = local else {
            return Ok(result);
        };
        let entry = self.seal(&local, epoch, entropy)?;
        // The change is in its document already, so its entry is judged as soon as it is there.
        self.judged.insert(me, entry.seq());
        self.keep(&entry, batch);
        taken.fresh.push(entry.encode());
        taken.changed = true;
        self.logs.insert(entry);
        match local.document {
            DocumentName::Session => taken.news.push(News::Session),
            DocumentName::Member { owner } => taken.news.push(News::Member(owner)),
            DocumentName::Chat { .. } | DocumentName::Presence { .. } => {}
        }
        Ok(result)
    }

    /// The epoch under which this member writes a document of this kind, if it may.
    fn writable(&self, kind: DocumentKind) -> Result<EpochId, CommandError> {
        self.may_grow()?;
        let action = action_of(kind);
        if !self.membership.may(&self.me(), &action) {
            let message = format!("the role here does not allow it: {action:?}");
            return Err(CommandError::new(Code::NotPermitted, message));
        }
        self.epoch_to_write().ok_or_else(|| {
            CommandError::new(Code::Failure, "the session's secret has not come yet")
        })
    }

    /// The documents, for presence, which is in no log, and the writer's name there.
    pub fn presence_writer(&mut self) -> (&mut Documents, Writer) {
        let writer = Writer {
            member: self.me(),
            nonce: self.actor,
        };
        (&mut self.documents, writer)
    }

    fn seal(
        &mut self,
        local: &LocalChange,
        epoch: EpochId,
        entropy: &mut Entropy,
    ) -> Result<Entry, CommandError> {
        let id = local.document.id(&self.profile.session);
        let key = self
            .keyring
            .document_key(&epoch, &id)
            .map_err(|error| failed(&error))?;
        let mut heads = self.membership.heads_for(&self.me());
        heads.truncate(MEMBERSHIP_HEADS_MAX);
        let new = NewEnvelope {
            document: id,
            kind: local.document.kind() as u8,
            epoch,
            key: &key,
            heads,
        };
        let body = EnvelopeBody {
            actor: actor_bytes(&self.me(), &id, &local.nonce),
            actor_nonce: local.nonce.0,
            change: local.change.clone(),
        };
        self.writer
            .append_envelope(new, &body, entropy)
            .map_err(|error| failed(&error))
    }

    /// The epoch to write under: the current one, or the newest whose secret is known.
    pub fn epoch_to_write(&self) -> Option<EpochId> {
        let current = self.membership.current_epoch().map(|fact| fact.epoch.id);
        let newest = || {
            let mut epochs = self
                .membership
                .epochs()
                .into_iter()
                .map(|fact| fact.epoch.id);
            epochs.rfind(|id| self.keyring.knows(id))
        };
        current.filter(|id| self.keyring.knows(id)).or_else(newest)
    }

    /// Notes an invitation made here.
    pub fn keep_invite(&mut self, id: InviteId, invite: OwnInvite, batch: &mut Batch) {
        let mut key = b"invite".to_vec();
        key.extend_from_slice(&id.0);
        batch.put(Key::new(Table::Keys, key), encode(&invite));
        self.invites.insert(id, invite);
    }
}

/// What opening an envelope led to.
enum Opened {
    Change(DocumentName, Incoming),
    Refused(String),
    Waits,
}

/// The right that writing a document of this kind takes.
fn action_of(kind: DocumentKind) -> Action {
    match kind {
        DocumentKind::Session => Action::SetSession,
        DocumentKind::Chat => Action::PostChat,
        DocumentKind::Member => Action::WriteOwnDocument,
        DocumentKind::Presence => Action::PublishPresence,
    }
}

/// A topic that says nothing to those who never held a ticket.
pub fn topic(discovery: &[u8; 32], session: &SessionId, what: &[u8]) -> TopicId {
    TopicId(keyed_hash(discovery, &[b"collab-p2p v1 topic", &session.0, what]).0)
}

fn failed(error: &dyn std::fmt::Display) -> CommandError {
    CommandError::new(Code::Failure, error.to_string())
}

fn actor_bytes(
    member: &MemberId,
    document: &crate::engine::ids::DocumentId,
    nonce: &ActorNonce,
) -> [u8; 16] {
    actor_of(member, document, nonce)
        .to_bytes()
        .try_into()
        .unwrap_or_default()
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).unwrap_or_default()
}

fn keep_entry(entry: &Entry, batch: &mut Batch) {
    let mut key = entry.member().0.to_vec();
    key.extend_from_slice(&entry.seq().to_be_bytes());
    batch.put(Key::new(Table::Log, key), entry.encode());
}

fn keep_statement(statement: &Verified<Statement>, batch: &mut Batch) {
    batch.put(
        Key::new(Table::Membership, statement.hash().0),
        statement.bytes().to_vec(),
    );
}

fn keep_epoch(keyring: &Keyring, epoch: &EpochId, batch: &mut Batch) {
    if let Some(secret) = keyring.get(epoch) {
        batch.put(Key::new(Table::Epochs, epoch.0), secret.to_bytes().to_vec());
    }
}

fn keep_secrets(secrets: &Secrets, batch: &mut Batch) {
    let mut put = |name: &[u8], secret: &[u8; 32]| {
        batch.put(Key::new(Table::Keys, name), secret.to_vec());
    };
    put(b"member", &secrets.key.to_bytes());
    put(b"prekey", &secrets.prekey.to_bytes());
    put(b"discovery", &secrets.discovery);
    if let Some(root) = &secrets.root {
        put(b"root", &root.to_bytes());
    }
}

/// Why a membership cannot be resumed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// A record without which there is no member.
    #[error("the record {0} is missing or damaged")]
    Missing(String),
    /// The statements do not begin with the session's Genesis.
    #[error("the session's first statement is missing or damaged")]
    NoGenesis,
}

/// What a store holds, read once at the start.
#[derive(Debug, Clone, Default)]
pub struct Records {
    records: BTreeMap<Key, Vec<u8>>,
}

impl Records {
    /// From all tables of a store.
    pub fn new(records: impl IntoIterator<Item = (Key, Vec<u8>)>) -> Self {
        Self {
            records: records.into_iter().collect(),
        }
    }

    /// One record.
    pub fn get(&self, table: Table, key: &[u8]) -> Option<&[u8]> {
        self.records.get(&Key::new(table, key)).map(Vec::as_slice)
    }

    /// The values of a table, in the order of their places.
    pub fn values(&self, table: Table) -> impl Iterator<Item = &[u8]> {
        self.table(table).map(|(_, value)| value)
    }

    fn table(&self, table: Table) -> impl Iterator<Item = (&[u8], &[u8])> {
        let records = self
            .records
            .iter()
            .filter(move |(key, _)| key.table == table);
        records.map(|(key, value)| (key.key.as_slice(), value.as_slice()))
    }

    fn decoded<T: serde::de::DeserializeOwned>(
        &self,
        table: Table,
        key: &[u8],
    ) -> Result<T, LoadError> {
        let value = self
            .get(table, key)
            .and_then(|bytes| postcard::from_bytes(bytes).ok());
        value.ok_or_else(|| LoadError::Missing(Key::new(table, key).to_string()))
    }

    fn secret(&self, name: &[u8]) -> Option<[u8; 32]> {
        self.get(Table::Keys, name)?.try_into().ok()
    }

    fn secrets(&self) -> Result<Secrets, LoadError> {
        let needed = |name: &[u8]| {
            let missing = || LoadError::Missing(Key::new(Table::Keys, name).to_string());
            self.secret(name).ok_or_else(missing)
        };
        Ok(Secrets {
            key: MemberKey::from_bytes(&needed(b"member")?),
            prekey: AgreementKey::from_bytes(&needed(b"prekey")?),
            discovery: needed(b"discovery")?,
            root: self
                .secret(b"root")
                .map(|secret| MemberKey::from_bytes(&secret)),
        })
    }

    fn membership(&self, session: &SessionId) -> Result<Membership, LoadError> {
        let genesis = self
            .get(Table::Membership, &session.0)
            .ok_or(LoadError::NoGenesis)?;
        let genesis = SignedStatement::decode(genesis).map_err(|_| LoadError::NoGenesis)?;
        let mut membership = Membership::new(genesis).map_err(|_| LoadError::NoGenesis)?;
        for (_, bytes) in self.table(Table::Membership) {
            if let Ok(statement) = SignedStatement::decode(bytes) {
                membership.insert(statement);
            }
        }
        Ok(membership)
    }

    fn keyring(&self) -> Keyring {
        let mut keyring = Keyring::default();
        for (_, bytes) in self.table(Table::Epochs) {
            if let Ok(secret) = bytes.try_into() {
                keyring.insert(EpochSecret::from_bytes(secret));
            }
        }
        keyring
    }

    /// Entries in the order of logs and numbers.
    fn entries(&self) -> impl Iterator<Item = Entry> {
        self.table(Table::Log)
            .filter_map(|(_, bytes)| Entry::decode_stored(bytes).ok())
    }

    fn invites(&self) -> BTreeMap<InviteId, OwnInvite> {
        self.table(Table::Keys)
            .filter_map(|(key, bytes)| {
                let id = key.strip_prefix(b"invite")?.try_into().ok()?;
                Some((InviteId(id), postcard::from_bytes(bytes).ok()?))
            })
            .collect()
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({})", self.key.id().short())
    }
}

impl std::fmt::Debug for OwnInvite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OwnInvite(created {})", self.created.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::capability::Role;
    use crate::engine::effect::Verdict as Judged;
    use crate::engine::message::{PeerMessage, pack};
    use crate::engine::stage::Stage;

    const HERE: usize = 0;
    const LIAR: usize = 1;

    /// Entries under a key that nobody admitted: the first of its log, and a later one.
    fn strangers(session: SessionId, number: u8) -> [Vec<u8>; 2] {
        let key = MemberKey::from_bytes(&[number; 32]);
        let starts = [
            Frontier::start(&session),
            Frontier {
                seq: 4,
                hash: Hash([4; 32]),
            },
        ];
        starts.map(|start| {
            let mut writer = LogWriter::new(key.clone(), session, start, 0);
            let new = NewEnvelope {
                document: DocumentName::Session.id(&session),
                kind: DocumentKind::Session as u8,
                epoch: EpochId([1; 32]),
                key: &[2; 32],
                heads: vec![Hash(session.0)],
            };
            let body = EnvelopeBody {
                actor: [1; 16],
                actor_nonce: [2; 16],
                change: vec![3; 1_000],
            };
            let mut entropy = Entropy::new([number; 32]);
            let entry = writer.append_envelope(new, &body, &mut entropy);
            entry.unwrap().encode()
        })
    }

    #[test]
    fn entries_of_strangers_fill_neither_the_logs_nor_what_waits_for_them() {
        let mut stage = Stage::with(&[Role::Editor]);
        let session = stage.member(HERE).replica.session();
        let before = stage.member(HERE).replica.vector();
        let bytes = stage.member(HERE).replica.logs().bytes();
        let entries: Vec<Vec<u8>> = (50..100).flat_map(|key| strangers(session, key)).collect();
        stage.sent.clear();

        let packed = pack(&entries);
        stage.say(LIAR, HERE, &PeerMessage::Entries { packed, done: true });
        let topic = stage.member(HERE).replica.log_topic();
        let from = stage.id(LIAR);
        for entry in &entries {
            let verdict = stage.act(HERE, |engine, context| {
                engine.gossip(from, topic, entry, context)
            });
            assert_eq!(verdict, Judged::Ignore, "nobody passes it on");
        }

        let replica = &stage.member(HERE).replica;
        assert_eq!(replica.vector(), before);
        assert_eq!(replica.logs().bytes(), bytes);
        assert_eq!(replica.logs().pooled_bytes(), 0);
        let asked = |message: &PeerMessage| matches!(message, PeerMessage::Want(_));
        assert!(!stage.said(HERE, LIAR).iter().any(asked));
    }
}
