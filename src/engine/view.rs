//! The read-only picture for the faces: plain, serialisable data, made anew after events that change it.
//! Texts of other people (titles, names, chat) are raw here; a face makes them inert before it shows them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::engine::capability::Role;
use crate::engine::command::{
    Active, Anchor, Ask, CommandError, ControlMode, Pointer, Selection, Typing,
};
use crate::engine::control::{Account, EndReason};
use crate::engine::error::Code;
use crate::engine::event::{ExitStatus, Path};
use crate::engine::ids::{InviteId, MemberId, SessionId, TerminalId};
use crate::engine::time::Wall;

/// Everything a face shows, but for the cells of screens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// Grows with every change.
    pub version: u64,
    /// Whose view this is.
    pub me: MemberId,
    /// Where this node stands.
    pub phase: Phase,
    /// The session's facts.
    pub session: SessionView,
    /// Everybody, present or absent, never the removed; ordered by name, then id.
    pub participants: Vec<ParticipantView>,
    /// Shared terminals, oldest first; the closed ones stay until the session ends.
    pub terminals: Vec<TerminalView>,
    /// The newest 200 messages in their order.
    pub messages: Vec<MessageView>,
    /// How many messages there are.
    pub messages_total: u64,
    /// Newcomers who wait for a person's decision here.
    pub approvals: Vec<ApprovalView>,
    /// Invitations that this node made or can show.
    pub invites: Vec<InviteView>,
    /// Connected peers.
    pub peers: Vec<PeerView>,
    /// How this node is connected, in one line.
    pub connection: ConnectionView,
    /// Addresses at which this node listens, as text.
    pub listen: Vec<String>,
    /// Why nothing can be saved at present, if so.
    pub unsaved: Option<CommandError>,
    /// What the person should know, newest last, at most 16.
    pub notices: Vec<Notice>,
}

/// Where a node stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum Phase {
    /// Looking for somebody who lets us in.
    Joining {
        /// What it waits for.
        waits_for: String,
    },
    /// A member.
    Member {
        /// Whether catch-up with at least one other has completed since the start, or nobody else is known.
        synced: bool,
    },
    /// The session is closed for all.
    Closed,
    /// This membership is over.
    Ended,
}

/// A session's facts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionView {
    /// Its id.
    pub id: SessionId,
    /// Its title.
    pub title: String,
    /// When it was made.
    pub created: Wall,
    /// When its facts last changed.
    pub updated: Wall,
    /// When it is meant to end.
    pub expires: Option<Wall>,
    /// Whether it is listed to others nearby.
    pub public: bool,
    /// Who is asked about.
    pub ask: Ask,
    /// How control is given.
    pub control: ControlMode,
    /// My role.
    pub role: Role,
    /// Whether this node holds the session's root.
    pub owner: bool,
    /// Whether nothing is masked: true until redaction exists.
    pub unredacted: bool,
}

/// What a participant is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A person.
    Human,
    /// A program acting for one.
    Agent,
}

/// Whether somebody is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// There.
    Online,
    /// There, nothing done for 2 minutes.
    Idle,
    /// Nothing done for 10 minutes, or detached.
    Away,
    /// Not heard of.
    Gone,
}

/// A participant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ParticipantView {
    /// Its key.
    pub id: MemberId,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// What it may do.
    pub role: Role,
    /// Whether this is me.
    pub me: bool,
    /// Whether it is there.
    pub status: Status,
    /// When it joined.
    pub joined: Wall,
    /// When it last did something, as it says.
    pub last_active: Option<Wall>,
    /// Its pointer.
    pub pointer: Option<Pointer>,
    /// Its selection.
    pub selection: Option<Selection>,
    /// What it looks at.
    pub active: Option<Active>,
    /// Where it types.
    pub typing: Option<Typing>,
    /// How it is reached, if directly connected.
    pub path: Option<Path>,
    /// Round trip.
    pub rtt: Option<Duration>,
    /// A number for its colour, the same at everybody.
    pub colour: u8,
}

/// A shared terminal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TerminalView {
    /// Its id.
    pub id: TerminalId,
    /// Whose machine runs it.
    pub host: MemberId,
    /// Whether it runs here.
    pub mine: bool,
    /// Its title.
    pub title: String,
    /// Columns.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
    /// Whether it runs.
    pub open: bool,
    /// How it ended.
    pub status: Option<ExitStatus>,
    /// When it was opened.
    pub opened: Wall,
    /// Who may type.
    pub control: ControlView,
    /// How fresh the picture is.
    pub picture: Picture,
}

/// How fresh a picture is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Picture {
    /// None yet.
    None,
    /// The host's newest, as far as is known.
    Live,
    /// More than 2 s behind the host.
    Stale,
}

/// Who may type into a terminal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ControlView {
    /// Who holds the lease.
    pub holder: Option<MemberId>,
    /// Whether that is me, acknowledged.
    pub mine: bool,
    /// Its fencing number.
    pub number: u64,
    /// When it ends, as far as this node's clock tells.
    pub ends: Option<Wall>,
    /// Whether no lease is given.
    pub locked: bool,
    /// Bytes that I have typed and that the host has not confirmed yet.
    pub unconfirmed: u64,
    /// Whether I have asked and wait.
    pub requested: bool,
    /// Who asks (at the host).
    pub requests: Vec<MemberId>,
}

/// How a lease ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseEnding {
    /// Why.
    pub reason: EndReason,
    /// What became of the keys; known to the lease's holder.
    pub account: Option<Account>,
}

/// A chat message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageView {
    /// Its id.
    pub id: String,
    /// Whose.
    pub from: MemberId,
    /// The name at that time, as far as known.
    pub name: String,
    /// When, by the author's clock.
    pub time: Wall,
    /// The text.
    pub text: String,
    /// What it answers.
    pub reply: Option<String>,
    /// Whom it names.
    pub mentions: Vec<MemberId>,
    /// What it points at.
    pub anchor: Option<Anchor>,
    /// Whether its stamp lies more than 10 minutes ahead of our clock.
    pub from_the_future: bool,
}

/// A newcomer who waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApprovalView {
    /// Names the question.
    pub id: String,
    /// The newcomer's key.
    pub member: MemberId,
    /// The name it gives itself.
    pub name: String,
    /// What it would become.
    pub role: Role,
    /// When it asked.
    pub asked: Wall,
    /// When the question ends by itself.
    pub ends: Wall,
}

/// An invitation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InviteView {
    /// Its id.
    pub id: InviteId,
    /// What its bearer becomes.
    pub role: Role,
    /// When joining by it ends.
    pub expires: Option<Wall>,
    /// Who is asked about.
    pub ask: Ask,
    /// How many came by it.
    pub used: u32,
    /// Whether it can be used now.
    pub open: bool,
    /// When it was made.
    pub created: Wall,
    /// The ticket, where this node knows it. Faces show it only on request.
    pub ticket: Option<String>,
}

/// A connected peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerView {
    /// Its key.
    pub id: MemberId,
    /// How it is reached.
    pub path: Path,
    /// Round trip.
    pub rtt: Option<Duration>,
    /// Entries of ours that it lacks, as far as known.
    pub lacks: u64,
    /// Entries that we lack, as far as known.
    pub we_lack: u64,
}

/// The state of the connection, for the status bar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum ConnectionView {
    /// Connected and current.
    Live,
    /// Connected, fetching.
    CatchingUp {
        /// Entries still to come.
        waiting: u64,
    },
    /// Nobody is connected.
    Offline {
        /// Own entries that nobody else has seen.
        waiting: u64,
        /// What the program waits for.
        waits_for: String,
    },
}

/// Something the person should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Grows.
    pub number: u64,
    /// When.
    pub time: Wall,
    /// In one sentence.
    pub text: String,
}

/// Who did something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Its key.
    pub id: MemberId,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
}

/// Something that happened, for event streams.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionEvent {
    /// When, by this node's clock.
    pub time: Wall,
    /// Who did it, if anybody.
    pub actor: Option<Actor>,
    /// What.
    pub what: What,
}

/// Types of events; INTERFACES §5 names them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
#[expect(missing_docs, reason = "the serialised names are the documentation")]
pub enum What {
    #[serde(rename = "session.updated")]
    SessionUpdated { session: SessionView },
    #[serde(rename = "session.closed")]
    SessionClosed { status: Option<ExitStatus> },
    #[serde(rename = "participant.joined")]
    ParticipantJoined {
        participant: MemberId,
        name: String,
        role: Role,
    },
    #[serde(rename = "participant.left")]
    ParticipantLeft { participant: MemberId, name: String },
    #[serde(rename = "message.posted")]
    MessagePosted { message: MessageView },
    #[serde(rename = "presence.updated")]
    PresenceUpdated {
        participant: MemberId,
        status: Status,
        typing: Option<Typing>,
    },
    #[serde(rename = "cursor.moved")]
    CursorMoved {
        participant: MemberId,
        pointer: Option<Pointer>,
    },
    #[serde(rename = "selection.changed")]
    SelectionChanged {
        participant: MemberId,
        selection: Option<Selection>,
    },
    #[serde(rename = "control.requested")]
    ControlRequested {
        terminal: TerminalId,
        participant: MemberId,
        name: String,
    },
    #[serde(rename = "control.granted")]
    ControlGranted {
        terminal: TerminalId,
        participant: MemberId,
        number: u64,
        ends: Wall,
    },
    #[serde(rename = "control.denied")]
    ControlDenied {
        terminal: TerminalId,
        participant: MemberId,
    },
    #[serde(rename = "control.released")]
    ControlReleased {
        terminal: TerminalId,
        participant: MemberId,
        number: u64,
        ending: LeaseEnding,
    },
    #[serde(rename = "control.revoked")]
    ControlRevoked {
        terminal: TerminalId,
        participant: MemberId,
        number: u64,
        ending: LeaseEnding,
    },
    #[serde(rename = "control.taken")]
    ControlTaken {
        terminal: TerminalId,
        from: MemberId,
        number: u64,
        ending: LeaseEnding,
    },
    #[serde(rename = "control.expired")]
    ControlExpired {
        terminal: TerminalId,
        participant: MemberId,
        number: u64,
        ending: LeaseEnding,
    },
    #[serde(rename = "control.refused")]
    ControlRefused {
        terminal: TerminalId,
        code: Code,
        message: String,
    },
    #[serde(rename = "terminal.opened")]
    TerminalOpened {
        terminal: TerminalId,
        host: MemberId,
        title: String,
        cols: u16,
        rows: u16,
    },
    #[serde(rename = "terminal.resized")]
    TerminalResized {
        terminal: TerminalId,
        cols: u16,
        rows: u16,
    },
    #[serde(rename = "terminal.closed")]
    TerminalClosed {
        terminal: TerminalId,
        status: Option<ExitStatus>,
    },
    #[serde(rename = "invite.created")]
    InviteCreated { invite: InviteId, role: Role },
    #[serde(rename = "invite.used")]
    InviteUsed {
        invite: InviteId,
        participant: MemberId,
    },
    #[serde(rename = "invite.refused")]
    InviteRefused {
        invite: InviteId,
        error: CommandError,
    },
    #[serde(rename = "peer.connected")]
    PeerConnected { peer: MemberId, path: Path },
    #[serde(rename = "peer.disconnected")]
    PeerDisconnected { peer: MemberId },
    #[serde(rename = "sync.progress")]
    SyncProgress { waiting: u64 },
    #[serde(rename = "sync.completed")]
    SyncCompleted { peer: MemberId },
    #[serde(rename = "approval.requested")]
    ApprovalRequested { approval: ApprovalView },
    #[serde(rename = "approval.decided")]
    ApprovalDecided { approval: String, approved: bool },
    #[serde(rename = "notice")]
    Notice { notice: Notice },
}

impl What {
    /// Whether the event may be dropped first and carries no durable number.
    pub fn ephemeral(&self) -> bool {
        matches!(
            self,
            Self::PresenceUpdated { .. }
                | Self::CursorMoved { .. }
                | Self::SelectionChanged { .. }
                | Self::SyncProgress { .. }
        )
    }
}
