//! What a member says of itself, written by nobody else: its name, what it is, and the terminals that run on
//! its machine. What it may do is not here but in the membership log.

use std::collections::BTreeMap;

use automerge::transaction::Transactable;
use automerge::{Automerge, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, Value};
use serde::{Deserialize, Serialize};

use crate::engine::documents::document::{Document, LocalChange, WriteError};
use crate::engine::documents::schema::{
    DocumentKind, Field, Shape, Writer, count, moment, scalar, terminal_key, text, wall,
};
use crate::engine::event::ExitStatus;
use crate::engine::ids::TerminalId;
use crate::engine::limits::{
    DOCUMENT_NAME_BYTES_MAX, DOCUMENT_TERMINAL_COLS_MAX, DOCUMENT_TERMINAL_ROWS_MAX,
    DOCUMENT_TITLE_BYTES_MAX, MEMBER_TERMINALS_CLOSED_KEPT,
};
use crate::engine::time::Wall;
use crate::engine::view::Kind;

/// Keys of the root.
pub(crate) const FIELDS: &[Field] = &[
    ("name", &[Shape::Words(DOCUMENT_NAME_BYTES_MAX)]),
    ("kind", &[Shape::OneOf(&["human", "agent"])]),
];

/// Keys of a terminal.
pub(crate) const TERMINAL_FIELDS: &[Field] = &[
    ("title", &[Shape::Text(DOCUMENT_TITLE_BYTES_MAX)]),
    ("cols", &[Shape::Size(DOCUMENT_TERMINAL_COLS_MAX)]),
    ("rows", &[Shape::Size(DOCUMENT_TERMINAL_ROWS_MAX)]),
    ("state", &[Shape::OneOf(&["open", "closed"])]),
    ("status", &[Shape::Exit, Shape::Nothing]),
    ("opened", &[Shape::Moment]),
    ("closed", &[Shape::Moment]),
];

/// A terminal is announced whole.
pub(crate) const TERMINAL_REQUIRED: &[&str] = &["title", "cols", "rows", "state", "opened"];

/// What a member's own document says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MemberState {
    /// The name, raw.
    pub name: Option<String>,
    /// What the member says it is.
    pub kind: Option<Kind>,
    /// The terminals that it hosts or hosted.
    pub terminals: BTreeMap<TerminalId, TerminalState>,
}

/// A terminal as its host announces it; the host is the document's owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalState {
    /// The title, raw.
    pub title: String,
    /// Columns.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
    /// Whether the shell runs.
    pub state: Running,
    /// When it was opened.
    pub opened: Wall,
}

/// Whether a shell runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Running {
    /// It runs.
    Open,
    /// It ended.
    Closed {
        /// How; unknown when the host's program ended first.
        status: Option<ExitStatus>,
        /// When the host wrote so.
        at: Wall,
    },
}

impl MemberState {
    /// Reads the document.
    pub(crate) fn read(document: &Automerge, terminals: &ObjId) -> Self {
        let kind = match text(document, &ROOT, "kind").as_deref() {
            Some("agent") => Some(Kind::Agent),
            Some(_) => Some(Kind::Human),
            None => None,
        };
        let terminals = document
            .keys(terminals)
            .filter_map(|key| {
                let id = terminal_key(&key)?;
                Some((
                    id,
                    TerminalState::read(document, &object(document, terminals, id)?)?,
                ))
            })
            .collect();
        Self {
            name: text(document, &ROOT, "name"),
            kind,
            terminals,
        }
    }
}

impl TerminalState {
    fn read(document: &Automerge, terminal: &ObjId) -> Option<Self> {
        let size = |key| count(document, terminal, key).and_then(|size| u16::try_from(size).ok());
        let state = if text(document, terminal, "state")? == "open" {
            Running::Open
        } else {
            let status = scalar(document, terminal, "status").and_then(|status| match status {
                ScalarValue::Int(status) => i32::try_from(status).ok().map(ExitStatus),
                ScalarValue::Null
                | ScalarValue::Bytes(_)
                | ScalarValue::Str(_)
                | ScalarValue::Uint(_)
                | ScalarValue::F64(_)
                | ScalarValue::Counter(_)
                | ScalarValue::Timestamp(_)
                | ScalarValue::Boolean(_)
                | ScalarValue::Unknown { .. } => None,
            });
            Running::Closed {
                status,
                at: wall(document, terminal, "closed").unwrap_or_default(),
            }
        };
        Some(Self {
            title: text(document, terminal, "title")?,
            cols: size("cols")?,
            rows: size("rows")?,
            state,
            opened: wall(document, terminal, "opened")?,
        })
    }
}

impl Document {
    /// Writes the member's name and what it is.
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
        self.expect_kind(DocumentKind::Member)?;
        let kind = match kind {
            Kind::Human => "human",
            Kind::Agent => "agent",
        };
        let puts = vec![(ROOT, "name", name.into()), (ROOT, "kind", kind.into())];
        self.write_values(writer, now, self.changed(puts))
    }

    /// Announces a terminal that was opened here; the oldest of many closed ones are taken off the list.
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
        self.expect_kind(DocumentKind::Member)?;
        let terminals = self.container().clone();
        let forgotten = self.long_closed();
        let title = title.to_owned();
        self.write(writer, now, move |transaction| {
            for old in &forgotten {
                transaction.delete(&terminals, old.to_string())?;
            }
            let terminal = transaction.put_object(&terminals, id.to_string(), ObjType::Map)?;
            transaction.put(&terminal, "title", title)?;
            transaction.put(&terminal, "cols", u64::from(size.0))?;
            transaction.put(&terminal, "rows", u64::from(size.1))?;
            transaction.put(&terminal, "state", "open")?;
            transaction.put(&terminal, "opened", moment(now))
        })
    }

    /// Writes a terminal's new size in columns and rows.
    ///
    /// # Errors
    /// What [`WriteError`] names.
    pub fn resize_terminal(
        &mut self,
        writer: &Writer,
        now: Wall,
        id: TerminalId,
        (cols, rows): (u16, u16),
    ) -> Result<Option<LocalChange>, WriteError> {
        let terminal = self.terminal(id)?;
        let cols = (terminal.clone(), "cols", u64::from(cols).into());
        let rows = (terminal, "rows", u64::from(rows).into());
        self.write_values(writer, now, self.changed(vec![cols, rows]))
    }

    /// Writes a terminal's new title.
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
        let puts = vec![(self.terminal(id)?, "title", title.into())];
        self.write_values(writer, now, self.changed(puts))
    }

    /// Writes that a terminal's shell ended, and how.
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
        let terminal = self.terminal(id)?;
        if text(self.automerge(), &terminal, "state").as_deref() == Some("closed") {
            return Ok(None);
        }
        let status = status.map_or(ScalarValue::Null, |ExitStatus(code)| i64::from(code).into());
        let puts = vec![
            (terminal.clone(), "state", "closed".into()),
            (terminal.clone(), "status", status),
            (terminal, "closed", moment(now)),
        ];
        self.write_values(writer, now, puts)
    }

    fn terminal(&self, id: TerminalId) -> Result<ObjId, WriteError> {
        self.expect_kind(DocumentKind::Member)?;
        object(self.automerge(), self.container(), id).ok_or(WriteError::NoSuchTerminal(id))
    }

    /// The closed terminals that make room for a new one, oldest first.
    fn long_closed(&self) -> Vec<TerminalId> {
        let mut closed: Vec<_> = self
            .member()
            .into_iter()
            .flat_map(|state| &state.terminals)
            .filter_map(|(id, terminal)| match terminal.state {
                Running::Open => None,
                Running::Closed { at, .. } => Some((at, *id)),
            })
            .collect();
        closed.sort_unstable();
        closed.truncate(closed.len().saturating_sub(MEMBER_TERMINALS_CLOSED_KEPT));
        closed.into_iter().map(|(_, id)| id).collect()
    }
}

/// The map of a terminal, if it is announced.
fn object(document: &Automerge, terminals: &ObjId, id: TerminalId) -> Option<ObjId> {
    match document.get(terminals, id.to_string()) {
        Ok(Some((Value::Object(ObjType::Map), object))) => Some(object),
        Ok(_) | Err(_) => None,
    }
}
