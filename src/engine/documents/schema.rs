//! What the documents are: their kinds, names and ids, their first change (the same bytes everywhere), the
//! actor a member writes under, and the words each kind may hold. The words are tables of key and admitted
//! shapes; each kind's own file holds its table and its typed view.

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, Automerge, AutomergeError, ObjId, ObjType, ROOT, ReadDoc, ScalarValue};
use serde::{Deserialize, Serialize};

use crate::engine::documents::{chat, member, presence, scan, session};
use crate::engine::entropy::Entropy;
use crate::engine::ids::{DocumentId, MemberId, SessionId, TerminalId};
use crate::engine::limits::{CHANGE_TIME_S_END, DOCUMENT_MOMENT_MS_END};
use crate::engine::time::Wall;

/// What a document is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DocumentKind {
    /// Facts of the session; whoever may moderate writes.
    Session,
    /// Messages of one member.
    Chat,
    /// What one member says of itself, its terminals included.
    Member,
    /// What one member does at the moment; never stored.
    Presence,
}

/// Names one document of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DocumentName {
    /// The one session document.
    Session,
    /// A member's messages from number `index · 4,096` on.
    Chat {
        /// Whose.
        owner: MemberId,
        /// From 0, without gaps.
        index: u32,
    },
    /// What a member says of itself.
    Member {
        /// Whose.
        owner: MemberId,
    },
    /// One generation of a member's presence.
    Presence {
        /// Whose.
        owner: MemberId,
        /// The process of the member, by its instance number.
        instance: u64,
        /// Grows with every heartbeat of that process.
        generation: u64,
    },
}

impl DocumentName {
    /// What the document is about.
    pub fn kind(&self) -> DocumentKind {
        match self {
            Self::Session => DocumentKind::Session,
            Self::Chat { .. } => DocumentKind::Chat,
            Self::Member { .. } => DocumentKind::Member,
            Self::Presence { .. } => DocumentKind::Presence,
        }
    }

    /// The only member who writes it; `None` where several may.
    pub fn owner(&self) -> Option<MemberId> {
        match self {
            Self::Session => None,
            Self::Chat { owner, .. } | Self::Member { owner } | Self::Presence { owner, .. } => {
                Some(*owner)
            }
        }
    }

    /// Whether the document lives in logs and on disk. Presence does not: it travels beside them, may lose
    /// changes, and its changes may arrive in any order.
    pub fn stored(&self) -> bool {
        match self {
            Self::Session | Self::Chat { .. } | Self::Member { .. } => true,
            Self::Presence { .. } => false,
        }
    }

    /// The document's id within this session.
    pub fn id(&self, session: &SessionId) -> DocumentId {
        let (kind, first, second) = match self {
            Self::Session => (0_u8, 0, 0),
            Self::Chat { index, .. } => (1, u64::from(*index), 0),
            Self::Member { .. } => (2, 0, 0),
            Self::Presence {
                instance,
                generation,
                ..
            } => (3, *instance, *generation),
        };
        let owner = self.owner().map_or([0; 32], |owner| owner.0);
        let mut hasher = blake3::Hasher::new_derive_key("collab-p2p v1 document id");
        hasher
            .update(session.as_bytes())
            .update(&[kind])
            .update(&owner);
        hasher
            .update(&first.to_le_bytes())
            .update(&second.to_le_bytes());
        DocumentId(*hasher.finalize().as_bytes())
    }
}

/// Drawn once per process start and document writer, so that an Automerge actor is never used twice: a reused
/// actor would give one operation number to two operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ActorNonce(pub [u8; 16]);

impl ActorNonce {
    /// A fresh one.
    pub fn draw(entropy: &mut Entropy) -> Self {
        Self(entropy.bytes())
    }
}

/// Who writes here: this node's member and its nonce of this process start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writer {
    /// The member.
    pub member: MemberId,
    /// Goes into the body of every envelope that carries a change.
    pub nonce: ActorNonce,
}

/// The actor under which a member's process writes a document. Only the member can have made it, as only it
/// signs envelopes, and no two documents share one.
pub(crate) fn actor_of(member: &MemberId, document: &DocumentId, nonce: &ActorNonce) -> ActorId {
    let mut hasher = blake3::Hasher::new_derive_key("collab-p2p v1 actor");
    hasher
        .update(member.as_bytes())
        .update(document.as_bytes())
        .update(&nonce.0);
    cut(&hasher)
}

fn cut(hasher: &blake3::Hasher) -> ActorId {
    let mut actor = [0; scan::ACTOR_BYTES];
    hasher.finalize_xof().fill(&mut actor);
    ActorId::from(actor.as_slice())
}

/// The one rule for commit times: whole seconds of the writer's wall clock, within the gate's range.
pub(crate) fn commit_time(now: Wall) -> i64 {
    i64::try_from(now.0 / 1000)
        .unwrap_or(i64::MAX)
        .min(CHANGE_TIME_S_END - 1)
}

/// A moment as a document holds it.
pub(crate) fn moment(wall: Wall) -> ScalarValue {
    let millis = i64::try_from(wall.0).unwrap_or(i64::MAX);
    ScalarValue::Timestamp(millis.min(DOCUMENT_MOMENT_MS_END - 1))
}

/// The empty document of this name: its first change only, the same bytes on every replica, and the object
/// that its kind fills (the root where it fills that).
///
/// # Errors
/// None is known; Automerge's interface admits them.
pub(crate) fn genesis(
    name: &DocumentName,
    id: &DocumentId,
) -> Result<(Automerge, ObjId), AutomergeError> {
    let mut hasher = blake3::Hasher::new_derive_key("collab-p2p v1 genesis actor");
    hasher.update(id.as_bytes());
    let mut document = Automerge::new().with_actor(cut(&hasher));
    let made = document.transact_with(
        |_| CommitOptions::default().with_time(0),
        |transaction| {
            transaction.put(ROOT, "document", ScalarValue::Bytes(id.0.to_vec()))?;
            match name.kind() {
                DocumentKind::Session => transaction.put_object(ROOT, "settings", ObjType::Map),
                DocumentKind::Chat => transaction.put_object(ROOT, "messages", ObjType::List),
                DocumentKind::Member => transaction.put_object(ROOT, "terminals", ObjType::Map),
                DocumentKind::Presence => Ok(ROOT),
            }
        },
    );
    match made {
        Ok(made) => Ok((document, made.result)),
        Err(failure) => Err(failure.error),
    }
}

/// What an object of a document is for; decides what may be written into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The root of the session document.
    Session,
    /// The session's settings.
    Settings,
    /// The root of a chat document: nothing is written there.
    Chat,
    /// The list of messages.
    Messages,
    /// One message.
    Message,
    /// The root of a member's document.
    Member,
    /// Its terminals by id.
    Terminals,
    /// One terminal.
    Terminal,
    /// The root of a presence document.
    Presence,
}

impl Role {
    /// The role of the root, and of the object that the first change makes.
    pub(crate) fn of(kind: DocumentKind) -> (Self, Option<Self>) {
        match kind {
            DocumentKind::Session => (Self::Session, Some(Self::Settings)),
            DocumentKind::Chat => (Self::Chat, Some(Self::Messages)),
            DocumentKind::Member => (Self::Member, Some(Self::Terminals)),
            DocumentKind::Presence => (Self::Presence, None),
        }
    }

    /// Whether values may be written concurrently. Writing the value once more that is shown is then, in
    /// Automerge, a deletion of all others.
    pub(crate) fn settles(self) -> bool {
        match self {
            Self::Session | Self::Settings => true,
            Self::Chat
            | Self::Messages
            | Self::Message
            | Self::Member
            | Self::Terminals
            | Self::Terminal
            | Self::Presence => false,
        }
    }

    /// The shapes that a value under this key may have; `None` where no value may stand.
    pub(crate) fn shapes(self, key: &str) -> Option<&'static [Shape]> {
        let table: &[Field] = match self {
            Self::Session => session::FIELDS,
            Self::Settings => session::SETTINGS,
            Self::Message => chat::FIELDS,
            Self::Member => member::FIELDS,
            Self::Terminal => member::TERMINAL_FIELDS,
            Self::Presence => return presence::shapes(key),
            Self::Chat | Self::Messages | Self::Terminals => &[],
        };
        table
            .iter()
            .find(|(name, _)| *name == key)
            .map(|(_, shapes)| *shapes)
    }

    /// Keys that the change which makes such an object must fill.
    pub(crate) fn required(self) -> &'static [&'static str] {
        match self {
            Self::Message => chat::REQUIRED,
            Self::Terminal => member::TERMINAL_REQUIRED,
            Self::Presence => presence::REQUIRED,
            Self::Session
            | Self::Settings
            | Self::Chat
            | Self::Messages
            | Self::Member
            | Self::Terminals => &[],
        }
    }
}

/// A key and the shapes its value may have.
pub(crate) type Field = (&'static str, &'static [Shape]);

/// A form that a value may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A string of at most so many bytes.
    Text(usize),
    /// A string that is not empty, of at most so many bytes.
    Words(usize),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// An unsigned number up to this.
    Count(u64),
    /// An unsigned number from 1 up to this.
    Size(u64),
    /// Milliseconds since 1970.
    Moment,
    /// Yes or no.
    Flag,
    /// The exit status of a process.
    Exit,
    /// Ids of this many bytes, one after the other, from one up to this many.
    Ids(usize, usize),
    /// Nothing.
    Nothing,
}

impl Shape {
    /// Whether the value has this form.
    pub(crate) fn admits(self, value: &ScalarValue) -> bool {
        match (self, value) {
            (Self::Text(max), ScalarValue::Str(text)) => text.len() <= max,
            (Self::Words(max), ScalarValue::Str(text)) => !text.is_empty() && text.len() <= max,
            (Self::OneOf(words), ScalarValue::Str(text)) => words.contains(&text.as_str()),
            (Self::Count(max), ScalarValue::Uint(count)) => *count <= max,
            (Self::Size(max), ScalarValue::Uint(count)) => (1..=max).contains(count),
            (Self::Moment, ScalarValue::Timestamp(at)) => (0..DOCUMENT_MOMENT_MS_END).contains(at),
            (Self::Flag, ScalarValue::Boolean(_)) | (Self::Nothing, ScalarValue::Null) => true,
            (Self::Exit, ScalarValue::Int(status)) => i32::try_from(*status).is_ok(),
            (Self::Ids(each, max), ScalarValue::Bytes(bytes)) => {
                bytes.len().checked_rem(each) == Some(0)
                    && (each..=each * max).contains(&bytes.len())
            }
            (
                Self::Text(_)
                | Self::Words(_)
                | Self::OneOf(_)
                | Self::Count(_)
                | Self::Size(_)
                | Self::Moment
                | Self::Flag
                | Self::Exit
                | Self::Ids(..)
                | Self::Nothing,
                _,
            ) => false,
        }
    }
}

/// Whether a key of the terminals map is a terminal's id in its one text form.
pub(crate) fn terminal_key(key: &str) -> Option<TerminalId> {
    key.parse()
        .ok()
        .filter(|id: &TerminalId| id.to_string() == key)
}

/// The value under a key, if it is a plain one.
pub(crate) fn scalar(document: &impl ReadDoc, object: &ObjId, key: &str) -> Option<ScalarValue> {
    let (value, _) = document.get(object, key).ok()??;
    value.into_scalar().ok()
}

/// The string under a key.
pub(crate) fn text(document: &impl ReadDoc, object: &ObjId, key: &str) -> Option<String> {
    text_of(&scalar(document, object, key)?)
}

/// The unsigned number under a key.
pub(crate) fn count(document: &impl ReadDoc, object: &ObjId, key: &str) -> Option<u64> {
    count_of(&scalar(document, object, key)?)
}

/// The moment under a key.
pub(crate) fn wall(document: &impl ReadDoc, object: &ObjId, key: &str) -> Option<Wall> {
    wall_of(&scalar(document, object, key)?)
}

/// The bytes under a key.
pub(crate) fn bytes(document: &impl ReadDoc, object: &ObjId, key: &str) -> Option<Vec<u8>> {
    bytes_of(&scalar(document, object, key)?).map(<[u8]>::to_vec)
}

/// A string's text.
pub(crate) fn text_of(value: &ScalarValue) -> Option<String> {
    if let ScalarValue::Str(text) = value {
        Some(text.to_string())
    } else {
        None
    }
}

/// A number.
pub(crate) fn count_of(value: &ScalarValue) -> Option<u64> {
    if let ScalarValue::Uint(count) = value {
        Some(*count)
    } else {
        None
    }
}

/// A moment.
pub(crate) fn wall_of(value: &ScalarValue) -> Option<Wall> {
    if let ScalarValue::Timestamp(at) = value {
        u64::try_from(*at).ok().map(Wall)
    } else {
        None
    }
}

/// Bytes.
pub(crate) fn bytes_of(value: &ScalarValue) -> Option<&[u8]> {
    if let ScalarValue::Bytes(bytes) = value {
        Some(bytes)
    } else {
        None
    }
}

/// Ids that stand one after the other.
pub(crate) fn members_of(bytes: &[u8]) -> Vec<MemberId> {
    bytes.as_chunks().0.iter().copied().map(MemberId).collect()
}

/// A terminal's id.
pub(crate) fn terminal_of(bytes: &[u8]) -> Option<TerminalId> {
    bytes.try_into().ok().map(TerminalId)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: SessionId = SessionId([1; 32]);
    const OWNER: MemberId = MemberId([2; 32]);

    fn names() -> Vec<DocumentName> {
        vec![
            DocumentName::Session,
            DocumentName::Chat {
                owner: OWNER,
                index: 0,
            },
            DocumentName::Chat {
                owner: OWNER,
                index: 1,
            },
            DocumentName::Chat {
                owner: MemberId([3; 32]),
                index: 0,
            },
            DocumentName::Member { owner: OWNER },
            DocumentName::Presence {
                owner: OWNER,
                instance: 1,
                generation: 2,
            },
            DocumentName::Presence {
                owner: OWNER,
                instance: 2,
                generation: 1,
            },
        ]
    }

    #[test]
    fn every_document_of_every_session_has_its_own_id() {
        let ids: std::collections::BTreeSet<_> = names()
            .iter()
            .flat_map(|name| [name.id(&SESSION), name.id(&SessionId([9; 32]))])
            .collect();

        assert_eq!(ids.len(), names().len() * 2);
    }

    #[test]
    fn the_first_change_is_the_same_bytes_each_time_and_differs_between_documents() {
        let mut heads = std::collections::BTreeSet::new();
        for name in names() {
            let id = name.id(&SESSION);
            let (one, _) = genesis(&name, &id).unwrap();
            let (two, _) = genesis(&name, &id).unwrap();
            assert_eq!(one.save(), two.save());
            heads.insert(one.get_heads());
        }
        assert_eq!(heads.len(), names().len());
    }

    #[test]
    fn ids_and_first_changes_are_those_of_protocol_version_one() {
        let name = DocumentName::Chat {
            owner: OWNER,
            index: 0,
        };
        let id = name.id(&SESSION);
        let (document, _) = genesis(&name, &id).unwrap();

        assert_eq!(id.short(), "cbe3d22ff4");
        assert_eq!(
            document.get_heads()[0].to_string(),
            "6459e786c8108812ba286303923f8ef5673347dff37ef2c38f768d9f0891560f"
        );
        let actor = actor_of(&OWNER, &id, &ActorNonce([4; 16]));
        assert_eq!(actor.to_hex_string(), "0d962af1da3d8527fee623c5b8b0b664");
    }

    #[test]
    fn the_actor_depends_on_member_document_and_nonce() {
        let id = DocumentName::Session.id(&SESSION);
        let actor = actor_of(&OWNER, &id, &ActorNonce([4; 16]));

        assert_ne!(
            actor,
            actor_of(&MemberId([3; 32]), &id, &ActorNonce([4; 16]))
        );
        assert_ne!(
            actor,
            actor_of(&OWNER, &DocumentId([0; 32]), &ActorNonce([4; 16]))
        );
        assert_ne!(actor, actor_of(&OWNER, &id, &ActorNonce([5; 16])));
        assert_eq!(actor.to_bytes().len(), 16);
    }

    #[test]
    fn a_shape_admits_nothing_beyond_its_bounds() {
        assert!(Shape::Words(3).admits(&"abc".into()));
        assert!(!Shape::Words(3).admits(&"".into()));
        assert!(!Shape::Text(3).admits(&"äö".into()));
        assert!(Shape::Ids(16, 2).admits(&ScalarValue::Bytes(vec![0; 32])));
        for length in [0, 15, 17, 48] {
            assert!(!Shape::Ids(16, 2).admits(&ScalarValue::Bytes(vec![0; length])));
        }
        assert!(!Shape::Moment.admits(&ScalarValue::Timestamp(-1)));
        assert!(!Shape::Size(5).admits(&ScalarValue::Uint(0)));
        assert!(!Shape::Count(5).admits(&ScalarValue::Int(3)));
        assert!(!Shape::Flag.admits(&ScalarValue::Null));
    }

    #[test]
    fn a_terminal_is_named_by_its_id_in_lower_case_only() {
        let id = TerminalId([0xab; 16]);

        assert_eq!(terminal_key(&id.to_string()), Some(id));
        assert_eq!(terminal_key(&id.to_string().to_uppercase()), None);
        assert_eq!(terminal_key("title"), None);
    }
}
