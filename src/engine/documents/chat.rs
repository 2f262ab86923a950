//! Chat: append-only lists of one member's messages, 4,096 to a document, merged in the view by hybrid clock,
//! member and number. Each change appends exactly one message; the gate knows no way to alter or remove one.
//! No reader's clock enters the order; a stamp far ahead of it is marked, and moves nobody's clock.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use automerge::transaction::Transactable;
use automerge::{Automerge, ObjId, ObjType, ReadDoc, ScalarValue, Value};
use serde::{Deserialize, Serialize};

use crate::engine::command::Anchor;
use crate::engine::documents::document::{Document, LocalChange, WriteError};
use crate::engine::documents::schema::{
    DocumentKind, Field, Shape, Writer, bytes, count, members_of, moment, terminal_of, text, wall,
};
use crate::engine::ids::{DocumentId, MemberId, MessageId};
use crate::engine::limits::{
    CHAT_AHEAD_MS_MAX, CHAT_DOCUMENT_MESSAGES_MAX, CHAT_MENTIONS_MAX, CHAT_TEXT_BYTES_MAX,
    DOCUMENT_PATH_BYTES_MAX,
};
use crate::engine::time::Wall;

/// Keys of a message.
pub(crate) const FIELDS: &[Field] = &[
    ("at", &[Shape::Moment]),
    ("tick", &[Shape::Count(u32::MAX as u64)]),
    ("text", &[Shape::Words(CHAT_TEXT_BYTES_MAX)]),
    ("mentions", &[Shape::Ids(32, CHAT_MENTIONS_MAX)]),
    ("reply", &[Shape::Ids(16, 1)]),
    ("anchor.terminal", &[Shape::Ids(16, 1)]),
    ("anchor.row", &[Shape::Count(u16::MAX as u64)]),
    ("anchor.file", &[Shape::Words(DOCUMENT_PATH_BYTES_MAX)]),
    ("anchor.line", &[Shape::Count(u32::MAX as u64)]),
];

/// What no message lacks.
pub(crate) const REQUIRED: &[&str] = &["at", "tick", "text"];

/// A reading of a hybrid clock: the wall time, or that of what was read before writing if that is later, and a
/// counter that tells apart what has the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Stamp {
    /// Milliseconds.
    pub wall: Wall,
    /// Among stamps of the same millisecond.
    pub tick: u32,
}

impl Stamp {
    /// Whether the stamp lies so far ahead of `now` that it is marked and followed by nobody.
    pub fn is_ahead(&self, now: Wall) -> bool {
        self.wall.0.saturating_sub(now.0) > CHAT_AHEAD_MS_MAX
    }

    /// The stamp of something written now by one who has read up to `read`.
    pub fn after(read: Self, now: Wall) -> Self {
        if read.wall < now || read.is_ahead(now) {
            return Self { wall: now, tick: 0 };
        }
        match read.tick.checked_add(1) {
            Some(tick) => Self {
                wall: read.wall,
                tick,
            },
            None => Self {
                wall: Wall(read.wall.0.saturating_add(1)),
                tick: 0,
            },
        }
    }
}

/// A message as its author said it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// Follows from document and place, so that it can be neither chosen nor used twice.
    pub id: MessageId,
    /// Who said it.
    pub author: MemberId,
    /// Its number among its author's messages, from 0.
    pub seq: u64,
    /// When.
    pub stamp: Stamp,
    /// The text, raw.
    pub text: String,
    /// Members that it names.
    pub mentions: Vec<MemberId>,
    /// The message that it answers.
    pub reply: Option<MessageId>,
    /// What it points at.
    pub anchor: Option<Anchor>,
}

/// A message to be said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Draft {
    /// The text.
    pub text: String,
    /// Members that it names.
    pub mentions: Vec<MemberId>,
    /// The message that it answers.
    pub reply: Option<MessageId>,
    /// What it points at.
    pub anchor: Option<Anchor>,
}

/// The id of the message at this place of a chat document.
pub fn message_id(document: &DocumentId, place: usize) -> MessageId {
    let mut hasher = blake3::Hasher::new_derive_key("collab-p2p v1 message id");
    hasher
        .update(document.as_bytes())
        .update(&(place as u64).to_le_bytes());
    let mut id = [0; 16];
    hasher.finalize_xof().fill(&mut id);
    MessageId(id)
}

impl ChatMessage {
    /// Reads the message at a place of the list.
    pub(crate) fn read(
        document: &Automerge,
        list: &ObjId,
        (id, author, index): (&DocumentId, MemberId, u32),
        place: usize,
    ) -> Option<Self> {
        let (Value::Object(ObjType::Map), message) = document.get(list, place).ok()?? else {
            return None;
        };
        let first = u64::from(index) * CHAT_DOCUMENT_MESSAGES_MAX as u64;
        let tick = count(document, &message, "tick")?;
        Some(Self {
            id: message_id(id, place),
            author,
            seq: first + place as u64,
            stamp: Stamp {
                wall: wall(document, &message, "at")?,
                tick: u32::try_from(tick).ok()?,
            },
            text: text(document, &message, "text")?,
            mentions: bytes(document, &message, "mentions")
                .map(|ids| members_of(&ids))
                .unwrap_or_default(),
            reply: bytes(document, &message, "reply")
                .and_then(|id| id.try_into().ok())
                .map(MessageId),
            anchor: anchor(document, &message),
        })
    }
}

impl Document {
    /// Appends a message.
    ///
    /// # Errors
    /// What [`WriteError`] names.
    pub fn append_message(
        &mut self,
        writer: &Writer,
        now: Wall,
        stamp: Stamp,
        draft: &Draft,
    ) -> Result<Option<LocalChange>, WriteError> {
        self.expect_kind(DocumentKind::Chat)?;
        let place = self.messages().len();
        let list = self.container().clone();
        let values = values(stamp, draft);
        self.write(writer, now, move |transaction| {
            let message = transaction.insert_object(&list, place, ObjType::Map)?;
            for (key, value) in values {
                transaction.put(&message, key, value)?;
            }
            Ok(())
        })
    }
}

/// What the message's map holds.
fn values(stamp: Stamp, draft: &Draft) -> Vec<(&'static str, ScalarValue)> {
    let mut values = vec![
        ("at", moment(stamp.wall)),
        ("tick", u64::from(stamp.tick).into()),
        ("text", draft.text.as_str().into()),
    ];
    if !draft.mentions.is_empty() {
        let ids = draft.mentions.iter().flat_map(|member| member.0).collect();
        values.push(("mentions", ScalarValue::Bytes(ids)));
    }
    if let Some(MessageId(id)) = draft.reply {
        values.push(("reply", ScalarValue::Bytes(id.to_vec())));
    }
    match &draft.anchor {
        Some(Anchor::Terminal { terminal, row }) => {
            values.push(("anchor.terminal", ScalarValue::Bytes(terminal.0.to_vec())));
            values.push(("anchor.row", u64::from(*row).into()));
        }
        Some(Anchor::File { path, line }) => {
            values.push(("anchor.file", path.as_str().into()));
            values.push(("anchor.line", u64::from(*line).into()));
        }
        None => {}
    }
    values
}

fn anchor(document: &Automerge, message: &ObjId) -> Option<Anchor> {
    if let Some(terminal) = bytes(document, message, "anchor.terminal") {
        let row = count(document, message, "anchor.row")?;
        return Some(Anchor::Terminal {
            terminal: terminal_of(&terminal)?,
            row: u16::try_from(row).ok()?,
        });
    }
    let line = count(document, message, "anchor.line")?;
    Some(Anchor::File {
        path: text(document, message, "anchor.file")?,
        line: u32::try_from(line).ok()?,
    })
}

/// Where a message stands in the merged chat.
pub type Place = (Stamp, MemberId, u64);

/// The chat of all members in one order: by hybrid clock, then member, then number. It is kept up message by
/// message, so neither reading nor one message more costs the length of the chat.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Timeline {
    by_place: BTreeMap<Place, Arc<ChatMessage>>,
    by_id: BTreeMap<MessageId, Place>,
}

impl Timeline {
    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.by_place.len()
    }

    /// Whether nobody has said anything.
    pub fn is_empty(&self) -> bool {
        self.by_place.is_empty()
    }

    /// All messages in their order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<ChatMessage>> {
        self.by_place.values()
    }

    /// The newest `count` messages, oldest first.
    pub fn newest(&self, count: usize) -> Vec<Arc<ChatMessage>> {
        let mut newest: Vec<_> = self.by_place.values().rev().take(count).cloned().collect();
        newest.reverse();
        newest
    }

    /// Messages that stand after this place, oldest first.
    pub fn after(&self, place: Place) -> impl DoubleEndedIterator<Item = &Arc<ChatMessage>> {
        self.by_place
            .range((Bound::Excluded(place), Bound::Unbounded))
            .map(|(_, message)| message)
    }

    /// Messages that stand after the one place and before the other, oldest first.
    pub fn between(
        &self,
        after: Option<Place>,
        before: Option<Place>,
    ) -> impl DoubleEndedIterator<Item = &Arc<ChatMessage>> {
        let nothing = matches!((after, before), (Some(after), Some(before)) if after >= before);
        let first = after.map_or(Bound::Unbounded, Bound::Excluded);
        let last = before.map_or(Bound::Unbounded, Bound::Excluded);
        let range = (!nothing).then(|| self.by_place.range((first, last)));
        range.into_iter().flatten().map(|(_, message)| message)
    }

    /// The place after everything stamped at this time.
    pub fn end_of(wall: Wall) -> Place {
        let tick = u32::MAX;
        (Stamp { wall, tick }, MemberId([u8::MAX; 32]), u64::MAX)
    }

    /// Messages stamped at this time or later, oldest first.
    pub fn since(&self, wall: Wall) -> impl DoubleEndedIterator<Item = &Arc<ChatMessage>> {
        let first = (Stamp { wall, tick: 0 }, MemberId([0; 32]), 0);
        self.by_place.range(first..).map(|(_, message)| message)
    }

    /// The message with this id.
    pub fn get(&self, id: &MessageId) -> Option<&Arc<ChatMessage>> {
        self.by_place.get(self.by_id.get(id)?)
    }

    /// The newest stamp that one may follow at this time.
    pub fn newest_stamp(&self, now: Wall) -> Stamp {
        let end = Stamp {
            wall: Wall(now.0.saturating_add(CHAT_AHEAD_MS_MAX)),
            tick: u32::MAX,
        };
        let last = (end, MemberId([u8::MAX; 32]), u64::MAX);
        self.by_place
            .range(..=last)
            .next_back()
            .map_or_else(Stamp::default, |((stamp, ..), _)| *stamp)
    }

    pub(crate) fn add(&mut self, message: &Arc<ChatMessage>) {
        let place = place_of(message);
        self.by_id.insert(message.id, place);
        self.by_place.insert(place, Arc::clone(message));
    }

    pub(crate) fn remove(&mut self, message: &ChatMessage) {
        self.by_id.remove(&message.id);
        self.by_place.remove(&place_of(message));
    }
}

/// Where a message stands in the merged chat.
pub fn place_of(message: &ChatMessage) -> Place {
    (message.stamp, message.author, message.seq)
}
