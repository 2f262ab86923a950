//! What a person, a script or an agent may ask of a session, and the answers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::engine::capability::Role;
use crate::engine::error::Code;
use crate::engine::ids::{InviteId, MemberId, TerminalId};
use crate::engine::time::Wall;
use crate::engine::view::MessageView;

/// A refusal: what failed and why, in one sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct CommandError {
    /// The stable code.
    pub code: Code,
    /// What failed and why.
    pub message: String,
}

impl CommandError {
    /// A refusal with this code and sentence.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// Whether a newcomer's admission asks a person first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ask {
    /// Whoever would get more than viewing is asked about.
    #[default]
    Auto,
    /// Everybody is asked about.
    Always,
    /// Nobody is asked about.
    Never,
}

/// How control of a terminal is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ControlMode {
    /// The host's person is asked.
    #[default]
    Ask,
    /// A free lease goes to an editor on the first key.
    Auto,
}

/// Where bytes for a terminal come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InputSource {
    /// A key of the attached person: answered at once, shown as refused if no lease is held.
    Key,
    /// The verb `type`: answered when the host has taken the last byte.
    Verb,
}

/// What a person does at the moment, as far as it asks to be seen. `None` leaves a field as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PresenceUpdate {
    /// Whether anybody is attached to this node; a detached member is away.
    pub attached: Option<bool>,
    /// The pointer; `Some(None)` takes it away.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "double_option"
    )]
    pub pointer: Option<Option<Pointer>>,
    /// The selection; `Some(None)` takes it away.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "double_option"
    )]
    pub selection: Option<Option<Selection>>,
    /// What the person looks at.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "double_option"
    )]
    pub active: Option<Option<Active>>,
    /// Where the person types.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "double_option"
    )]
    pub typing: Option<Option<Typing>>,
}

/// A named pointer on a terminal's screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    /// On which terminal.
    pub terminal: TerminalId,
    /// Row, from 0.
    pub row: u16,
    /// Column, from 0.
    pub column: u16,
}

/// A selected stretch of a terminal's screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// On which terminal.
    pub terminal: TerminalId,
    /// First row and column.
    pub from: (u16, u16),
    /// Last row and column.
    pub to: (u16, u16),
}

/// What a person looks at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Active {
    /// A terminal.
    Terminal(TerminalId),
    /// A file of the shared folder, by path.
    File(String),
}

/// Where a person types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Typing {
    /// In the chat.
    Chat,
    /// In a terminal.
    Terminal(TerminalId),
}

/// What a chat message points at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Anchor {
    /// A row of a terminal's screen.
    Terminal {
        /// Which.
        terminal: TerminalId,
        /// Row, from 0.
        row: u16,
    },
    /// A line of a file.
    File {
        /// Path in the shared folder.
        path: String,
        /// Line, from 1.
        line: u32,
    },
}

/// A changeable fact of the session.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SessionPatch {
    /// A new title.
    pub title: Option<String>,
    /// Whether the session is listed to others nearby.
    pub public: Option<bool>,
    /// When the session is meant to end; `Some(None)`: never.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "double_option"
    )]
    pub expires: Option<Option<Wall>>,
    /// Who is asked about.
    pub ask: Option<Ask>,
    /// How control is given.
    pub control: Option<ControlMode>,
}

/// What is asked about the lease of a terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ControlCommand {
    /// Ask for control.
    Request,
    /// Give control to a member for a time (`None`: the default of 30 minutes).
    Grant {
        /// To whom.
        to: MemberId,
        /// For how long.
        #[serde(rename = "for")]
        duration: Option<Duration>,
    },
    /// Refuse a request.
    Deny {
        /// Whose.
        to: MemberId,
    },
    /// Give control back.
    Release,
    /// End whoever's lease.
    Revoke,
    /// Take control for oneself.
    Take,
    /// End the lease and give none until unlocked.
    Lock,
    /// Allow leases again.
    Unlock,
}

/// A wish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Change facts of the session.
    PatchSession(SessionPatch),
    /// Say something.
    PostMessage {
        /// The text.
        text: String,
        /// The message it answers.
        reply: Option<String>,
        /// Members it names.
        mentions: Vec<MemberId>,
        /// What it points at.
        anchor: Option<Anchor>,
    },
    /// List messages, also those that a view no longer holds.
    Messages(MessagesWanted),
    /// Say what one does.
    SetPresence(PresenceUpdate),
    /// Something about the lease of a terminal.
    Control {
        /// Which terminal.
        terminal: TerminalId,
        /// What.
        command: ControlCommand,
    },
    /// Bytes for a terminal.
    Input {
        /// Which terminal.
        terminal: TerminalId,
        /// Exactly these.
        bytes: Vec<u8>,
        /// From where.
        source: InputSource,
        /// How long the verb waits for the host's acknowledgement.
        timeout: Option<Duration>,
    },
    /// Let a waiting newcomer in.
    Approve {
        /// Of which question.
        approval: String,
    },
    /// Refuse a waiting newcomer.
    Deny {
        /// Of which question.
        approval: String,
    },
    /// Make an invitation.
    CreateInvite {
        /// What its bearer becomes.
        role: Role,
        /// How long one may join by it (`None`: for ever).
        expires_in: Option<Duration>,
        /// Who is asked about.
        ask: Ask,
        /// Whether the ticket carries addresses.
        addresses: bool,
    },
    /// Start a terminal here.
    OpenTerminal {
        /// How the child is started.
        spec: TerminalSpec,
    },
    /// Change the size of a terminal that runs here.
    ResizeTerminal {
        /// Which.
        terminal: TerminalId,
        /// Columns.
        cols: u16,
        /// Rows.
        rows: u16,
    },
    /// End this membership.
    Leave,
    /// End the session for all.
    StopSession,
    /// Go offline; membership and state stay.
    GoOffline,
}

/// A terminal to be opened here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSpec {
    /// Program and arguments; never shared.
    pub argv: Vec<String>,
    /// Working directory.
    pub cwd: Option<std::path::PathBuf>,
    /// Variables to set.
    pub env: Vec<(String, String)>,
    /// Title until the program sets one.
    pub title: String,
    /// Columns.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
}

/// A stretch of the chat: the newest of those after one place and before another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessagesWanted {
    /// Later than this.
    pub since: Option<MessagesSince>,
    /// Before the message with this id.
    pub before: Option<String>,
    /// At most so many, clamped to [`crate::engine::limits::LISTED_MESSAGES_MAX`].
    pub most: usize,
}

/// Where a list of messages begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MessagesSince {
    /// After this moment.
    Time(Wall),
    /// After the message with this id.
    Message(String),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Done.
    Done,
    /// A message is saved.
    Message {
        /// Its id.
        id: String,
    },
    /// The messages that were asked for, oldest first.
    Messages(Vec<MessageView>),
    /// An invitation stands.
    Invite {
        /// Its id.
        id: InviteId,
    },
    /// A terminal is being started.
    Terminal {
        /// Its id.
        id: TerminalId,
    },
    /// The request for control is with the host.
    Requested,
    /// Input was taken.
    Typed {
        /// How many bytes the host has written.
        bytes: u64,
    },
}

/// `Option<Option<T>>` where an absent field is `None` and a JSON null is `Some(None)`.
mod double_option {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize, S: Serializer>(
        value: &Option<Option<T>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value
            .as_ref()
            .and_then(Option::as_ref)
            .serialize(serializer)
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Option<T>>, D::Error> {
        Option::<T>::deserialize(deserializer).map(Some)
    }
}
