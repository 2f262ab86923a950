//! Shapes of the local API. They are promises to scripts, so they are written here in full and made from views,
//! and a change of the engine does not change them by accident. Times are RFC 3339 in UTC, spans on the way
//! out are milliseconds (`rtt`), on the way in texts as on the command line (`10m`); ids are opaque.

use std::fmt;
use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::engine::capability::Role;
use crate::engine::command::{
    Active, Anchor, Ask, CommandError, ControlMode, Pointer, Selection, Typing,
};
use crate::engine::error::Code;
use crate::engine::event::{ExitStatus, Path};
use crate::engine::ids::{InviteId, MemberId, SessionId, TerminalId};
use crate::engine::queues::{self, Unit};
use crate::engine::ticket::Ticket;
use crate::engine::time::Wall;
use crate::engine::view::{
    Actor, ApprovalView, ConnectionView, ControlView, InviteView, Kind, MessageView, Notice,
    ParticipantView, PeerView, Phase, Picture, SessionView, Status, TerminalView, View,
};

/// A moment, as RFC 3339 in UTC with milliseconds where there are any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Wall);

/// A span as people write it: `90s`, `10m`, `24h`, `7d`, or a number of seconds; `never` is no span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Option<Duration>);

/// Who is meant, with the name to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// The member's key.
    pub id: MemberId,
    /// Its name, empty where it is not known. Text of others: to be made inert before it is shown.
    pub name: String,
}

/// Facts of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionFacts {
    /// Its id.
    pub id: SessionId,
    /// Its title.
    pub title: String,
    /// My role.
    pub role: Role,
    /// Whether this node holds the session's root.
    pub owner: bool,
    /// When it was made.
    pub created_at: Time,
    /// When its facts last changed.
    pub updated_at: Time,
    /// When it is meant to end.
    pub expires_at: Option<Time>,
    /// Whether it is listed to others nearby.
    pub public: bool,
    /// Who is asked about.
    pub ask: Ask,
    /// How control is given.
    pub control: ControlMode,
    /// Whether nothing is masked.
    pub unredacted: bool,
}

/// `GET /api/v1/session`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Its facts.
    #[serde(flatten)]
    pub facts: SessionFacts,
    /// Where this node stands.
    #[serde(flatten)]
    pub phase: PhaseJson,
    /// Whose node this is.
    pub me: Who,
    /// How it is connected.
    pub connection: Connection,
    /// Participants, present or absent.
    pub participants: usize,
    /// Of these, how many are there now.
    pub present: usize,
    /// Open terminals.
    pub terminals: usize,
    /// Messages so far.
    pub messages: u64,
    /// Newcomers who wait for a decision here.
    pub approvals: usize,
    /// Why nothing can be saved at present; null if all is saved.
    pub unsaved: Option<CommandError>,
    /// What the person should know, newest last.
    pub notices: Vec<NoticeJson>,
}

/// Where a node stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum PhaseJson {
    /// Not admitted yet.
    Joining {
        /// What it waits for.
        waits_for: String,
    },
    /// A member.
    Member {
        /// Whether it has caught up with somebody since its start.
        synced: bool,
    },
    /// The session is closed for all.
    Closed,
    /// This membership is over.
    Ended,
}

/// Something the person should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoticeJson {
    /// When.
    pub time: Time,
    /// In one sentence.
    pub text: String,
}

/// One of this user's memberships (`GET /api/v1/sessions`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Membership {
    /// The session.
    pub session: SessionId,
    /// The member.
    pub member: MemberId,
    /// Whether it hosts or joined.
    pub kind: crate::node::folder::MemberKind,
    /// Whether a node runs it.
    pub running: bool,
    /// Its title, as its node tells it or last told it.
    pub title: Option<String>,
    /// My name there, likewise.
    pub name: Option<String>,
    /// My role there, likewise.
    pub role: Option<Role>,
    /// The socket of the running node.
    pub socket: Option<std::path::PathBuf>,
    /// When it was last used.
    pub last_used: Time,
    /// Whether the membership is over.
    pub ended: bool,
}

/// A participant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Participant {
    /// Its key.
    pub id: MemberId,
    /// Its name.
    pub name: String,
    /// Human or agent.
    pub kind: Kind,
    /// What it may do.
    pub role: Role,
    /// Whether this is the node asked.
    pub me: bool,
    /// Whether it is there.
    pub status: Status,
    /// When it joined.
    pub joined_at: Time,
    /// When it last did something, as it says.
    pub last_active: Option<Time>,
    /// Its pointer.
    pub cursor: Option<Pointer>,
    /// Its selection.
    pub selection: Option<Selection>,
    /// The file that it looks at.
    pub active_file: Option<String>,
    /// The terminal that it looks at.
    pub active_terminal: Option<TerminalId>,
    /// Where it types.
    pub typing: Option<Typing>,
    /// How it is reached, if directly connected.
    pub path: Option<Path>,
    /// Round trip in milliseconds.
    pub rtt: Option<f64>,
    /// Entries of ours that it lacks, if directly connected.
    pub lacks: Option<u64>,
    /// A number for its colour, the same at everybody.
    pub colour: u8,
}

/// What a participant does at the moment (`GET /api/v1/presence`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Presence {
    /// Who.
    #[serde(flatten)]
    pub who: Who,
    /// Whether it is there.
    pub status: Status,
    /// When it last did something, as it says.
    pub last_active: Option<Time>,
    /// Its pointer.
    pub cursor: Option<Pointer>,
    /// Its selection.
    pub selection: Option<Selection>,
    /// What it looks at.
    pub active: Option<Active>,
    /// Where it types.
    pub typing: Option<Typing>,
}

/// A shared terminal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Terminal {
    /// Its id.
    pub id: TerminalId,
    /// Whose machine runs it.
    pub host: Who,
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
    /// How it ended: the exit code, or 128 and the signal.
    pub status: Option<ExitStatus>,
    /// When it was opened.
    pub opened_at: Time,
    /// How fresh the picture here is.
    pub picture: Picture,
    /// Who may type.
    pub control: Control,
}

/// Who may type into a terminal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Control {
    /// Which terminal.
    pub terminal: TerminalId,
    /// Who holds the lease.
    pub holder: Option<MemberId>,
    /// That member's name.
    pub holder_name: Option<String>,
    /// Whether that is the node asked, acknowledged by the host.
    pub mine: bool,
    /// The lease's number.
    pub number: u64,
    /// When it ends, as far as this node's clock tells.
    pub ends_at: Option<Time>,
    /// Whether no lease is given.
    pub locked: bool,
    /// Whether the node asked waits for a decision.
    pub requested: bool,
    /// Who asks; known at the host.
    pub requests: Vec<Who>,
}

/// An invitation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Invite {
    /// Its id.
    pub id: InviteId,
    /// What its bearer becomes.
    pub role: Role,
    /// Who is asked about.
    pub ask: Ask,
    /// When it was made.
    pub created_at: Time,
    /// When joining by it ends.
    pub expires_at: Option<Time>,
    /// How many came by it.
    pub used: u32,
    /// Whether it can be used now.
    pub open: bool,
    /// The ticket, where this node knows it and one invitation was asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ticket: Option<String>,
    /// The ticket as a link.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub uri: Option<String>,
    /// The line to paste into a shell.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub join_command: Option<String>,
}

/// A newcomer who waits for a decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Approval {
    /// Names the question.
    pub id: String,
    /// Who waits.
    pub member: MemberId,
    /// The name that it gives itself.
    pub name: String,
    /// What it would become.
    pub role: Role,
    /// When it asked.
    pub asked_at: Time,
    /// When the question ends by itself.
    pub ends_at: Time,
}

/// A chat message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Its id.
    pub id: String,
    /// Whose.
    pub from: MemberId,
    /// The author's name at that time.
    pub name: String,
    /// When, by the author's clock.
    pub time: Time,
    /// The text.
    pub text: String,
    /// The message that it answers.
    pub reply: Option<String>,
    /// Whom it names.
    pub mentions: Vec<MemberId>,
    /// What it points at.
    pub anchor: Option<Anchor>,
    /// Whether its stamp lies ahead of our clock by more than 10 minutes.
    pub from_the_future: bool,
}

/// A connected peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Who.
    #[serde(flatten)]
    pub who: Who,
    /// Its role, if it is known.
    pub role: Option<Role>,
    /// How it is reached.
    pub path: Path,
    /// Round trip in milliseconds.
    pub rtt: Option<f64>,
    /// Entries of ours that it lacks.
    pub lacks: u64,
    /// Entries of its that we lack.
    pub we_lack: u64,
}

/// How a node is connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Connection {
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

/// `GET /api/v1/network`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// How the node is connected.
    #[serde(flatten)]
    pub connection: Connection,
    /// Addresses at which it listens.
    pub listen: Vec<String>,
    /// Connected peers.
    pub peers: usize,
}

/// One bounded queue of the node (`GET /api/v1/queues`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Its name, stable.
    pub name: String,
    /// What the numbers count.
    pub unit: Unit,
    /// What waits now; of queues that exist several times, in the fullest.
    pub now: u64,
    /// The most that has waited since the node's start.
    pub peak: u64,
    /// The most that may wait.
    pub limit: u64,
    /// How often something found no room.
    pub dropped: u64,
}

/// `GET /health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `ok`.
    pub status: String,
    /// Of the program.
    pub version: String,
    /// Sessions that this node serves.
    pub active_sessions: usize,
    /// Participants who are there.
    pub active_participants: usize,
}

/// Something that happened (INTERFACES §5).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// Version of this shape: 1.
    pub v: u8,
    /// Unique for this node.
    pub id: String,
    /// Grows by one with each durable event of this process; ephemeral ones have none.
    pub seq: Option<u64>,
    /// When, by this node's clock.
    pub time: Time,
    /// In which session.
    pub session: SessionId,
    /// Who did it, if anybody.
    pub actor: Option<Actor>,
    /// What kind of thing.
    #[serde(rename = "type")]
    pub kind: String,
    /// The rest, by kind.
    pub data: serde_json::Value,
}

/// A refusal (RFC 9457, `application/problem+json`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `urn:collab-p2p:problem:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// The HTTP status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What failed and why.
    pub detail: String,
    /// Our stable code.
    pub code: String,
}

/// Body of `POST /api/v1/invites`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewInvite {
    /// What its bearer becomes; a viewer by default.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub role: Option<Role>,
    /// How long one may join by it: 24 hours by default, for ever if `null`.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "present")]
    pub expires_in: Option<Option<Span>>,
    /// Who is asked about.
    #[serde(default)]
    pub ask: Ask,
    /// Whether the ticket carries addresses; it does by default.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub addresses: Option<bool>,
}

/// Body of `POST /api/v1/messages`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewMessage {
    /// The text.
    pub text: String,
    /// The message that it answers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reply: Option<String>,
    /// Names or ids of members.
    #[serde(default)]
    pub mentions: Vec<String>,
    /// What it points at.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub anchor: Option<Anchor>,
}

/// Body of `PATCH /api/v1/session`: what is absent stays, `null` takes away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionChange {
    /// A new title.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub title: Option<String>,
    /// Whether it is listed to others nearby.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub public: Option<bool>,
    /// When it is meant to end.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "present")]
    pub expires_at: Option<Option<Time>>,
    /// Who is asked about.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ask: Option<Ask>,
    /// How control is given.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub control: Option<ControlMode>,
}

/// Body of `PUT /api/v1/presence`: what is absent stays, `null` takes away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresenceChange {
    /// Whether a person is attached to this node.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub attached: Option<bool>,
    /// The pointer.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "present")]
    pub cursor: Option<Option<Pointer>>,
    /// The selection.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "present")]
    pub selection: Option<Option<Selection>>,
    /// What the person looks at.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "present")]
    pub active: Option<Option<Active>>,
    /// Where the person types.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "present")]
    pub typing: Option<Option<Typing>>,
}

/// Body of `POST /api/v1/control/{verb}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlOrder {
    /// Which terminal; may be left out if one is open.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub terminal: Option<String>,
    /// Name or id of the member, for `grant` and `deny`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub participant: Option<String>,
    /// For how long, for `grant`.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none", default)]
    pub duration: Option<Span>,
}

/// Body of `POST /api/v1/terminals/{tid}/input`: `text` or `bytes`, then `keys`, then Return, sent as one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Input {
    /// The bytes, where they are UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The bytes in base64, whatever they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<String>,
    /// Names of keys, like `C-c` and `Up`, sent as the terminal's modes ask for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// Whether Return (CR) ends it.
    pub enter: bool,
    /// How long to wait for the host's acknowledgement of the last byte; 10 seconds by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// Body of `POST /api/v1/tickets/inspect`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TicketText {
    /// The ticket as a person pasted it. A secret.
    pub ticket: String,
}

/// What a ticket says, without its secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketFacts {
    /// The session that it invites to.
    pub session: SessionId,
    /// The member whom its addresses reach.
    pub host: MemberId,
    /// Addresses that it carries.
    pub addresses: Vec<String>,
    /// When joining ends, as a hint.
    pub expires_at: Option<Time>,
    /// Whether a password is needed.
    pub password: bool,
}

/// Answer to input: how many bytes the host has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Typed {
    /// Bytes.
    pub bytes: u64,
}

/// Answer where there is nothing to tell but success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Done {}

impl Time {
    /// The moment that a text names: RFC 3339, or milliseconds since 1970.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(millis) = text.parse() {
            return Some(Self(Wall(millis)));
        }
        let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        let millis = moment.unix_timestamp_nanos().checked_div(1_000_000)?;
        u64::try_from(millis).ok().map(|millis| Self(Wall(millis)))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = i128::from(self.0.0).saturating_mul(1_000_000);
        let moment = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok();
        // A stamp beyond the year 9999 can only be a lie; it is shown as the last moment there is.
        let text = moment.and_then(|moment| moment.format(&Rfc3339).ok());
        f.write_str(text.as_deref().unwrap_or("9999-12-31T23:59:59.999Z"))
    }
}

/// A moment as RFC 3339 in UTC.
pub fn rfc3339(moment: Wall) -> String {
    Time(moment).to_string()
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let refuse = || serde::de::Error::custom("expected a time like 2026-05-03T09:30:00Z");
        Self::parse(&text).ok_or_else(refuse)
    }
}

impl Span {
    /// The span that a text names: a whole number and `ms`, `s`, `m`, `h` or `d`, a number of seconds, or
    /// `never`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text == "never" {
            return Some(Self(None));
        }
        let end = text
            .find(|char: char| !char.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at_checked(end)?;
        let unit_ms: u64 = match unit {
            "ms" => 1,
            "" | "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        let millis = number.parse::<u64>().ok()?.checked_mul(unit_ms)?;
        Some(Self(Some(Duration::from_millis(millis))))
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(span) => out.collect_str(&format_args!("{}ms", span.as_millis())),
            None => out.serialize_str("never"),
        }
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Seconds(u64),
            Text(String),
        }
        let span = match Form::deserialize(from)? {
            Form::Seconds(seconds) => Some(Self(Some(Duration::from_secs(seconds)))),
            Form::Text(text) => Self::parse(&text),
        };
        span.ok_or_else(|| serde::de::Error::custom("expected a span like 90s, 10m, 24h or never"))
    }
}

impl Who {
    /// A member with the name that the view knows.
    pub fn of(view: &View, id: MemberId) -> Self {
        let found = view
            .participants
            .iter()
            .find(|participant| participant.id == id);
        Self {
            id,
            name: found.map(|found| found.name.clone()).unwrap_or_default(),
        }
    }
}

impl From<&SessionView> for SessionFacts {
    fn from(session: &SessionView) -> Self {
        Self {
            id: session.id,
            title: session.title.clone(),
            role: session.role,
            owner: session.owner,
            created_at: Time(session.created),
            updated_at: Time(session.updated),
            expires_at: session.expires.map(Time),
            public: session.public,
            ask: session.ask,
            control: session.control,
            unredacted: session.unredacted,
        }
    }
}

impl From<&View> for Session {
    fn from(view: &View) -> Self {
        Self {
            facts: (&view.session).into(),
            phase: (&view.phase).into(),
            me: Who::of(view, view.me),
            connection: (&view.connection).into(),
            participants: view.participants.len(),
            present: present(view),
            terminals: view
                .terminals
                .iter()
                .filter(|terminal| terminal.open)
                .count(),
            messages: view.messages_total,
            approvals: view.approvals.len(),
            unsaved: view.unsaved.clone(),
            notices: view.notices.iter().map(NoticeJson::from).collect(),
        }
    }
}

impl From<&Phase> for PhaseJson {
    fn from(phase: &Phase) -> Self {
        match phase {
            Phase::Joining { waits_for } => Self::Joining {
                waits_for: waits_for.clone(),
            },
            Phase::Member { synced } => Self::Member { synced: *synced },
            Phase::Closed => Self::Closed,
            Phase::Ended => Self::Ended,
        }
    }
}

impl From<&Notice> for NoticeJson {
    fn from(notice: &Notice) -> Self {
        Self {
            time: Time(notice.time),
            text: notice.text.clone(),
        }
    }
}

impl From<&ConnectionView> for Connection {
    fn from(connection: &ConnectionView) -> Self {
        match connection {
            ConnectionView::Live => Self::Live,
            ConnectionView::CatchingUp { waiting } => Self::CatchingUp { waiting: *waiting },
            ConnectionView::Offline { waiting, waits_for } => Self::Offline {
                waiting: *waiting,
                waits_for: waits_for.clone(),
            },
        }
    }
}

impl Participant {
    /// A participant of the view.
    pub fn of(view: &View, participant: &ParticipantView) -> Self {
        let peer = view.peers.iter().find(|peer| peer.id == participant.id);
        let (active_file, active_terminal) = match &participant.active {
            Some(Active::File(path)) => (Some(path.clone()), None),
            Some(Active::Terminal(terminal)) => (None, Some(*terminal)),
            None => (None, None),
        };
        Self {
            id: participant.id,
            name: participant.name.clone(),
            kind: participant.kind,
            role: participant.role,
            me: participant.me,
            status: participant.status,
            joined_at: Time(participant.joined),
            last_active: participant.last_active.map(Time),
            cursor: participant.pointer,
            selection: participant.selection,
            active_file,
            active_terminal,
            typing: participant.typing,
            path: participant.path.map(told),
            rtt: participant.rtt.map(millis),
            lacks: peer.map(|peer| peer.lacks),
            colour: participant.colour,
        }
    }
}

impl From<&ParticipantView> for Presence {
    fn from(participant: &ParticipantView) -> Self {
        Self {
            who: Who {
                id: participant.id,
                name: participant.name.clone(),
            },
            status: participant.status,
            last_active: participant.last_active.map(Time),
            cursor: participant.pointer,
            selection: participant.selection,
            active: participant.active.clone(),
            typing: participant.typing,
        }
    }
}

impl Terminal {
    /// A terminal of the view.
    pub fn of(view: &View, terminal: &TerminalView) -> Self {
        Self {
            id: terminal.id,
            host: Who::of(view, terminal.host),
            mine: terminal.mine,
            title: terminal.title.clone(),
            cols: terminal.cols,
            rows: terminal.rows,
            open: terminal.open,
            status: terminal.status,
            opened_at: Time(terminal.opened),
            picture: terminal.picture,
            control: Control::of(view, terminal.id, &terminal.control),
        }
    }
}

impl Control {
    /// The lease of a terminal of the view.
    pub fn of(view: &View, terminal: TerminalId, control: &ControlView) -> Self {
        Self {
            terminal,
            holder: control.holder,
            holder_name: control.holder.map(|holder| Who::of(view, holder).name),
            mine: control.mine,
            number: control.number,
            ends_at: control.ends.map(Time),
            locked: control.locked,
            requested: control.requested,
            requests: control
                .requests
                .iter()
                .map(|asker| Who::of(view, *asker))
                .collect(),
        }
    }
}

impl Invite {
    /// The invitation with its ticket, for who asks for this one.
    pub fn shown(invite: &InviteView) -> Self {
        let ticket = invite.ticket.clone();
        Self {
            uri: ticket.as_ref().map(|ticket| format!("collab-p2p:{ticket}")),
            join_command: ticket
                .as_ref()
                .map(|ticket| format!("collab-p2p join {ticket}")),
            ticket,
            ..Self::listed(invite)
        }
    }

    /// The invitation without its ticket, for lists.
    pub fn listed(invite: &InviteView) -> Self {
        Self {
            id: invite.id,
            role: invite.role,
            ask: invite.ask,
            created_at: Time(invite.created),
            expires_at: invite.expires.map(Time),
            used: invite.used,
            open: invite.open
                && invite
                    .expires
                    .is_none_or(|end| end >= crate::node::clock::wall()),
            ticket: None,
            uri: None,
            join_command: None,
        }
    }
}

impl From<&ApprovalView> for Approval {
    fn from(approval: &ApprovalView) -> Self {
        Self {
            id: approval.id.clone(),
            member: approval.member,
            name: approval.name.clone(),
            role: approval.role,
            asked_at: Time(approval.asked),
            ends_at: Time(approval.ends),
        }
    }
}

impl From<&MessageView> for Message {
    fn from(message: &MessageView) -> Self {
        Self {
            id: message.id.clone(),
            from: message.from,
            name: message.name.clone(),
            time: Time(message.time),
            text: message.text.clone(),
            reply: message.reply.clone(),
            mentions: message.mentions.clone(),
            anchor: message.anchor.clone(),
            from_the_future: message.from_the_future,
        }
    }
}

impl Peer {
    /// A peer of the view.
    pub fn of(view: &View, peer: &PeerView) -> Self {
        let participant = view
            .participants
            .iter()
            .find(|participant| participant.id == peer.id);
        Self {
            who: Who::of(view, peer.id),
            role: participant.map(|participant| participant.role),
            path: told(peer.path),
            rtt: peer.rtt.map(millis),
            lacks: peer.lacks,
            we_lack: peer.we_lack,
        }
    }
}

impl From<queues::Queue> for Queue {
    fn from(queue: queues::Queue) -> Self {
        Self {
            name: queue.name.to_owned(),
            unit: queue.unit,
            now: queue.now,
            peak: queue.peak,
            limit: queue.limit,
            dropped: queue.dropped,
        }
    }
}

impl From<&View> for Network {
    fn from(view: &View) -> Self {
        Self {
            connection: (&view.connection).into(),
            listen: view.listen.clone(),
            peers: view.peers.len(),
        }
    }
}

impl From<&View> for Health {
    fn from(view: &View) -> Self {
        Self {
            status: "ok".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            active_sessions: usize::from(matches!(view.phase, Phase::Member { .. })),
            active_participants: present(view),
        }
    }
}

impl fmt::Debug for TicketText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketText(..)")
    }
}

impl From<&Ticket> for TicketFacts {
    fn from(ticket: &Ticket) -> Self {
        Self {
            session: ticket.session,
            host: ticket.host,
            addresses: ticket.addresses.clone(),
            expires_at: ticket.expires.map(Time),
            password: ticket.needs_password(),
        }
    }
}

impl Problem {
    /// A refusal with a code that is none of the engine's.
    pub fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:collab-p2p:problem:{code}"),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            code: code.to_owned(),
        }
    }

    /// A request that makes no sense.
    pub fn usage(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Code::Usage.as_str(), detail)
    }
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        Self::new(status_of(error.code), error.code.as_str(), error.message)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_string(&self).unwrap_or_default();
        (
            status,
            [(header::CONTENT_TYPE, "application/problem+json")],
            body,
        )
            .into_response()
    }
}

fn status_of(code: Code) -> StatusCode {
    match code {
        Code::Usage
        | Code::NoTerminal
        | Code::TicketMissing
        | Code::TicketEmpty
        | Code::TicketForeign
        | Code::TicketTruncated
        | Code::TicketMalformed
        | Code::TicketTooLong => StatusCode::BAD_REQUEST,
        Code::PasswordWrong
        | Code::AdmissionRefused
        | Code::NotPermitted
        | Code::Denied
        | Code::Nested => StatusCode::FORBIDDEN,
        Code::NoSession
        | Code::NoParticipant
        | Code::NoTerminalShared
        | Code::NoInvite
        | Code::NoApproval => StatusCode::NOT_FOUND,
        Code::LeaseNotHeld
        | Code::WhichSession
        | Code::WhichParticipant
        | Code::WhichTerminal
        | Code::NeedsYes
        | Code::StateLocked
        | Code::FileExists => StatusCode::CONFLICT,
        Code::TicketExpired
        | Code::TicketRevoked
        | Code::TicketUsedUp
        | Code::Removed
        | Code::SessionClosed => StatusCode::GONE,
        Code::LimitExceeded => StatusCode::TOO_MANY_REQUESTS,
        Code::PeerUnreachable | Code::Interrupted | Code::VersionMismatch => {
            StatusCode::BAD_GATEWAY
        }
        Code::TimedOut | Code::ApprovalTimeout => StatusCode::GATEWAY_TIMEOUT,
        Code::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
        Code::Failure
        | Code::StoreCorrupt
        | Code::StateUnwritable
        | Code::StoreFailed
        | Code::SecondInstance
        | Code::KeyForked
        | Code::ConfigBroken
        | Code::CommandFailed
        | Code::ListenFailed => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn present(view: &View) -> usize {
    view.participants
        .iter()
        .filter(|participant| participant.status != Status::Gone)
        .count()
}

/// Milliseconds with microseconds behind the point.
fn millis(span: Duration) -> f64 {
    let micros = u32::try_from(span.as_micros()).unwrap_or(u32::MAX);
    f64::from(micros) / 1_000.0
}

/// `Option<Option<T>>` where an absent field is `None` and `null` is `Some(None)`.
mod present {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize, S: Serializer>(
        value: &Option<Option<T>>,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().and_then(Option::as_ref).serialize(out)
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Option<T>>, D::Error> {
        Option::<T>::deserialize(from).map(Some)
    }
}

/// The paths promised to scripts are lan, direct and relayed: one within this machine is direct.
pub(super) fn told(path: Path) -> Path {
    match path {
        Path::Loopback | Path::Direct => Path::Direct,
        Path::Lan => Path::Lan,
        Path::Relayed => Path::Relayed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_both_ways() {
        let time = Time(Wall(1_777_800_600_123));

        assert_eq!(time.to_string(), "2026-05-03T09:30:00.123Z");
        assert_eq!(Time::parse("2026-05-03T11:30:00.123+02:00"), Some(time));
        assert_eq!(Time(Wall(0)).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(Time::parse("1777800600123"), Some(time));
        assert_eq!(Time::parse("yesterday"), None);
        assert_eq!(Time::parse("1969-12-31T23:59:59Z"), None);
    }

    #[test]
    fn a_stamp_beyond_all_calendars_is_shown_as_the_last_moment() {
        assert_eq!(Time(Wall(u64::MAX)).to_string(), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn spans_are_read_as_people_write_them() {
        let seconds = |count| Some(Span(Some(Duration::from_secs(count))));

        assert_eq!(Span::parse("90s"), seconds(90));
        assert_eq!(Span::parse("10m"), seconds(600));
        assert_eq!(Span::parse("24h"), seconds(86_400));
        assert_eq!(Span::parse("7d"), seconds(604_800));
        assert_eq!(Span::parse("15"), seconds(15));
        assert_eq!(Span::parse("never"), Some(Span(None)));
        for wrong in [
            "",
            "h",
            "1w",
            "-1s",
            "1.5h",
            "99999999999999999999d",
            "1 h",
            "é",
        ] {
            assert_eq!(Span::parse(wrong), None, "{wrong}");
        }
        let json = serde_json::to_string(&Span::parse("10m")).unwrap();
        assert_eq!(serde_json::from_str::<Span>(&json).ok(), seconds(600));
        assert_eq!(serde_json::from_str::<Span>("600").ok(), seconds(600));
    }

    #[test]
    fn an_absent_field_stays_and_null_takes_away() {
        let absent: PresenceChange = serde_json::from_str("{}").unwrap();
        let null: PresenceChange = serde_json::from_str(r#"{"cursor":null}"#).unwrap();

        assert_eq!(absent.cursor, None);
        assert_eq!(null.cursor, Some(None));
        assert_eq!(serde_json::to_string(&absent).unwrap(), "{}");
        assert_eq!(serde_json::to_string(&null).unwrap(), r#"{"cursor":null}"#);
    }

    #[test]
    fn unknown_fields_are_refused_rather_than_ignored() {
        assert!(serde_json::from_str::<NewInvite>(r#"{"max_uses":3}"#).is_err());
        assert!(serde_json::from_str::<NewInvite>("{}").is_ok());
    }

    #[test]
    fn a_problem_has_the_members_of_rfc_9457_and_our_code() {
        let problem = Problem::from(CommandError::new(Code::TicketExpired, "too late"));

        let json = serde_json::to_value(&problem).unwrap();

        assert_eq!(json["type"], "urn:collab-p2p:problem:ticket-expired");
        assert_eq!(json["title"], "Gone");
        assert_eq!(json["status"], 410);
        assert_eq!(json["detail"], "too late");
        assert_eq!(json["code"], "ticket-expired");
    }
}
