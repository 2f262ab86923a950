//! What a member does at the moment. Each message is a generation, a document of its own whose one change holds
//! the whole state, so a lost message costs at most the time to the next one, and nothing grows. (The format has
//! room for further changes within a generation; the engine sends none.) Nobody but the member writes it, and it is
//! never stored.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{Automerge, ROOT, ReadDoc, ScalarValue};
use serde::{Deserialize, Serialize};

use crate::engine::command::{Active, Pointer, Selection, Typing};
use crate::engine::documents::document::{Document, LocalChange, WriteError};
use crate::engine::documents::schema::{
    DocumentKind, Field, Shape, Writer, bytes_of, count_of, members_of, moment, scalar,
    terminal_key, terminal_of, text_of, wall_of,
};
use crate::engine::event::Path;
use crate::engine::ids::{MemberId, TerminalId};
use crate::engine::limits::{DOCUMENT_PATH_BYTES_MAX, PRESENCE_ROUTE_MEMBERS_MAX};
use crate::engine::time::Wall;
use crate::engine::view::Status;

/// A terminal's id, or nothing.
const TERMINAL: &[Shape] = &[Shape::Ids(16, 1), Shape::Nothing];
/// A row or column, or nothing.
const CELL: &[Shape] = &[Shape::Count(u16::MAX as u64), Shape::Nothing];

/// Keys of the root that always have the same name.
const FIELDS: &[Field] = &[
    (
        "status",
        &[Shape::OneOf(&["online", "idle", "away", "offline"])],
    ),
    ("last_active", &[Shape::Moment]),
    ("pointer.terminal", TERMINAL),
    ("pointer.row", CELL),
    ("pointer.column", CELL),
    ("selection.terminal", TERMINAL),
    ("selection.from.row", CELL),
    ("selection.from.column", CELL),
    ("selection.to.row", CELL),
    ("selection.to.column", CELL),
    // A path of the shared folder, or a terminal's id.
    (
        "active",
        &[
            Shape::Text(DOCUMENT_PATH_BYTES_MAX),
            Shape::Ids(16, 1),
            Shape::Nothing,
        ],
    ),
    // The word "chat", or a terminal's id.
    (
        "typing",
        &[Shape::OneOf(&["chat"]), Shape::Ids(16, 1), Shape::Nothing],
    ),
    (
        "path",
        &[
            Shape::OneOf(&["loopback", "lan", "direct", "relayed"]),
            Shape::Nothing,
        ],
    ),
];

/// A version or epoch of a screen, or nothing: `screen.<terminal>.version`.
const SCREEN: &[Shape] = &[Shape::Count(u64::MAX), Shape::Nothing];
/// Members between a terminal's host and this one, or nothing: `route.<terminal>`.
const ROUTE: &[Shape] = &[Shape::Ids(32, PRESENCE_ROUTE_MEMBERS_MAX), Shape::Nothing];

/// Every generation begins with these; the rest is absent where there is nothing to say.
pub(crate) const REQUIRED: &[&str] = &["status", "last_active"];

/// The shapes of the value under a key of the root.
pub(crate) fn shapes(key: &str) -> Option<&'static [Shape]> {
    if let Some((_, shapes)) = FIELDS.iter().find(|(name, _)| *name == key) {
        return Some(shapes);
    }
    if let Some(terminal) = key.strip_prefix("route.") {
        return terminal_key(terminal).map(|_| ROUTE);
    }
    let (terminal, part) = key.strip_prefix("screen.")?.split_once('.')?;
    let known = matches!(part, "epoch" | "version") && terminal_key(terminal).is_some();
    known.then_some(SCREEN)
}

/// What a member does at the moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceState {
    /// Whether it is there; `Gone` is the word of one who leaves in order.
    pub status: Status,
    /// When it last did something, by its clock.
    pub last_active: Wall,
    /// Its pointer.
    pub pointer: Option<Pointer>,
    /// Its selection.
    pub selection: Option<Selection>,
    /// What it looks at.
    pub active: Option<Active>,
    /// Where it types.
    pub typing: Option<Typing>,
    /// How it is connected to the session's host.
    pub path: Option<Path>,
    /// The newest version of each screen that it hosts.
    pub screens: BTreeMap<TerminalId, ScreenMark>,
    /// For each terminal whose screen it serves on: the members from the host's child down to itself.
    pub routes: BTreeMap<TerminalId, Vec<MemberId>>,
}

/// Names a version of a screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct ScreenMark {
    /// The screen's epoch.
    pub epoch: u64,
    /// The version within it.
    pub version: u64,
}

impl PresenceState {
    /// Somebody who is there and does nothing in particular.
    pub fn online(now: Wall) -> Self {
        Self {
            status: Status::Online,
            last_active: now,
            pointer: None,
            selection: None,
            active: None,
            typing: None,
            path: None,
            screens: BTreeMap::new(),
            routes: BTreeMap::new(),
        }
    }

    /// Reads the document; `None` before its first change.
    pub(crate) fn read(document: &Automerge) -> Option<Self> {
        let values: Values = document
            .keys(ROOT)
            .filter_map(|key| scalar(document, &ROOT, &key).map(|value| (key, value)))
            .collect();
        let terminals: BTreeSet<TerminalId> = values
            .keys()
            .filter_map(|key| terminal_key(key.split('.').nth(1)?))
            .collect();
        let screens = terminals
            .iter()
            .filter_map(|id| Some((*id, screen_of(&values, *id)?)));
        let routes = terminals.iter().filter_map(|id| {
            let route = values.get(&format!("route.{id}"))?;
            Some((*id, members_of(bytes_of(route)?)))
        });
        Some(Self {
            status: status_of(&text_of(values.get("status")?)?),
            last_active: wall_of(values.get("last_active")?)?,
            pointer: pointer_of(&values),
            selection: selection_of(&values),
            active: values.get("active").and_then(active_of),
            typing: values.get("typing").and_then(typing_of),
            path: values
                .get("path")
                .and_then(|value| path_of(&text_of(value)?)),
            screens: screens.collect(),
            routes: routes.collect(),
        })
    }

    /// The state as values under the root's keys; what it lacks is not there.
    fn values(&self) -> Values {
        let mut values = Values::new();
        let mut put = |key: String, value: ScalarValue| drop(values.insert(key, value));
        put("status".into(), status_word(self.status).into());
        put("last_active".into(), moment(self.last_active));
        if let Some(pointer) = self.pointer {
            put("pointer.terminal".into(), id_value(pointer.terminal));
            put("pointer.row".into(), u64::from(pointer.row).into());
            put("pointer.column".into(), u64::from(pointer.column).into());
        }
        if let Some(selection) = self.selection {
            put("selection.terminal".into(), id_value(selection.terminal));
            put(
                "selection.from.row".into(),
                u64::from(selection.from.0).into(),
            );
            put(
                "selection.from.column".into(),
                u64::from(selection.from.1).into(),
            );
            put("selection.to.row".into(), u64::from(selection.to.0).into());
            put(
                "selection.to.column".into(),
                u64::from(selection.to.1).into(),
            );
        }
        match &self.active {
            Some(Active::Terminal(terminal)) => put("active".into(), id_value(*terminal)),
            Some(Active::File(path)) => put("active".into(), path.as_str().into()),
            None => {}
        }
        match self.typing {
            Some(Typing::Terminal(terminal)) => put("typing".into(), id_value(terminal)),
            Some(Typing::Chat) => put("typing".into(), "chat".into()),
            None => {}
        }
        if let Some(path) = self.path {
            put("path".into(), path_word(path).into());
        }
        for (terminal, mark) in &self.screens {
            put(format!("screen.{terminal}.epoch"), mark.epoch.into());
            put(format!("screen.{terminal}.version"), mark.version.into());
        }
        for (terminal, route) in &self.routes {
            let bytes = route.iter().flat_map(|member| member.0).collect();
            put(format!("route.{terminal}"), ScalarValue::Bytes(bytes));
        }
        values
    }
}

impl Document {
    /// Writes the state into this generation: all of it into a fresh one, else what differs. Yields no change
    /// where nothing does.
    ///
    /// # Errors
    /// What [`WriteError`] names.
    pub fn write_presence(
        &mut self,
        writer: &Writer,
        now: Wall,
        state: &PresenceState,
    ) -> Result<Option<LocalChange>, WriteError> {
        self.expect_kind(DocumentKind::Presence)?;
        let old = self
            .presence()
            .map(PresenceState::values)
            .unwrap_or_default();
        let new = state.values();
        let gone = old.keys().filter(|key| !new.contains_key(*key));
        let gone: Vec<_> = gone
            .map(|key| (ROOT, key.as_str(), ScalarValue::Null))
            .collect();
        let fresh = new
            .iter()
            .filter(|(key, value)| old.get(*key) != Some(*value))
            .map(|(key, value)| (ROOT, key.as_str(), value.clone()));
        self.write_values(writer, now, gone.into_iter().chain(fresh).collect())
    }
}

type Values = BTreeMap<String, ScalarValue>;

fn pointer_of(values: &Values) -> Option<Pointer> {
    Some(Pointer {
        terminal: terminal_of(bytes_of(values.get("pointer.terminal")?)?)?,
        row: cell_of(values.get("pointer.row")?)?,
        column: cell_of(values.get("pointer.column")?)?,
    })
}

fn selection_of(values: &Values) -> Option<Selection> {
    let cell = |key: &str| cell_of(values.get(key)?);
    Some(Selection {
        terminal: terminal_of(bytes_of(values.get("selection.terminal")?)?)?,
        from: (cell("selection.from.row")?, cell("selection.from.column")?),
        to: (cell("selection.to.row")?, cell("selection.to.column")?),
    })
}

fn screen_of(values: &Values, terminal: TerminalId) -> Option<ScreenMark> {
    let part = |part: &str| count_of(values.get(&format!("screen.{terminal}.{part}"))?);
    Some(ScreenMark {
        epoch: part("epoch")?,
        version: part("version")?,
    })
}

fn active_of(value: &ScalarValue) -> Option<Active> {
    let file = || text_of(value).map(Active::File);
    bytes_of(value)
        .and_then(terminal_of)
        .map(Active::Terminal)
        .or_else(file)
}

fn typing_of(value: &ScalarValue) -> Option<Typing> {
    let chat = || text_of(value).map(|_| Typing::Chat);
    bytes_of(value)
        .and_then(terminal_of)
        .map(Typing::Terminal)
        .or_else(chat)
}

fn cell_of(value: &ScalarValue) -> Option<u16> {
    u16::try_from(count_of(value)?).ok()
}

fn id_value(terminal: TerminalId) -> ScalarValue {
    ScalarValue::Bytes(terminal.0.to_vec())
}

fn status_word(status: Status) -> &'static str {
    match status {
        Status::Online => "online",
        Status::Idle => "idle",
        Status::Away => "away",
        Status::Gone => "offline",
    }
}

fn status_of(word: &str) -> Status {
    match word {
        "online" => Status::Online,
        "idle" => Status::Idle,
        "away" => Status::Away,
        _ => Status::Gone,
    }
}

fn path_word(path: Path) -> &'static str {
    match path {
        Path::Loopback => "loopback",
        Path::Lan => "lan",
        Path::Direct => "direct",
        Path::Relayed => "relayed",
    }
}

fn path_of(word: &str) -> Option<Path> {
    match word {
        "loopback" => Some(Path::Loopback),
        "lan" => Some(Path::Lan),
        "direct" => Some(Path::Direct),
        "relayed" => Some(Path::Relayed),
        _ => None,
    }
}
