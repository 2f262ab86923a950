//! The session document: title, settings and times. Whoever may moderate writes it, so changes can be
//! concurrent; of values written concurrently all replicas show the same one, and the next writer settles it.

use automerge::{Automerge, ObjId, ROOT, ReadDoc, ScalarValue};
use serde::{Deserialize, Serialize};

use crate::engine::command::{Ask, ControlMode};
use crate::engine::documents::document::{Document, LocalChange, WriteError};
use crate::engine::documents::schema::{
    DocumentKind, Field, Shape, Writer, count_of, moment, scalar, text, text_of, wall, wall_of,
};
use crate::engine::limits::{DOCUMENT_SCROLLBACK_LINES_MAX, DOCUMENT_TITLE_BYTES_MAX};
use crate::engine::time::Wall;

/// Keys of the root.
pub(crate) const FIELDS: &[Field] = &[
    ("title", &[Shape::Text(DOCUMENT_TITLE_BYTES_MAX)]),
    ("public", &[Shape::Flag]),
    ("created", &[Shape::Moment]),
    ("updated", &[Shape::Moment]),
    ("expires", &[Shape::Moment, Shape::Nothing]),
];

/// Keys of the settings.
pub(crate) const SETTINGS: &[Field] = &[
    ("ask", &[Shape::OneOf(&["auto", "always", "never"])]),
    ("control", &[Shape::OneOf(&["ask", "auto"])]),
    (
        "late_joiner",
        &[
            Shape::OneOf(&["none", "screen", "all"]),
            Shape::Count(DOCUMENT_SCROLLBACK_LINES_MAX),
        ],
    ),
];

/// How much of a terminal's past a late joiner may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LateJoiner {
    /// Nothing from before it came.
    None,
    /// The screen as it is.
    #[default]
    Screen,
    /// The screen and so many lines before it.
    Lines(u32),
    /// Everything that is kept.
    All,
}

/// What the session document says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SessionState {
    /// The title, raw.
    pub title: String,
    /// Whether the session is listed to others nearby.
    pub public: bool,
    /// When it was made; `None` until the founder's change is here.
    pub created: Option<Wall>,
    /// When its facts last changed.
    pub updated: Option<Wall>,
    /// When it is meant to end.
    pub expires: Option<Wall>,
    /// Who is asked about.
    pub ask: Ask,
    /// How control is given.
    pub control: ControlMode,
    /// What late joiners see.
    pub late_joiner: LateJoiner,
}

/// A fact to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionFact {
    /// The title.
    Title(String),
    /// Whether the session is listed.
    Public(bool),
    /// When it was made; written once, by the founder.
    Created(Wall),
    /// When it is meant to end.
    Expires(Option<Wall>),
    /// A setting.
    Setting(Setting),
}

/// A setting to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// Who is asked about.
    Ask(Ask),
    /// How control is given.
    Control(ControlMode),
    /// What late joiners see.
    LateJoiner(LateJoiner),
}

impl SessionState {
    /// Reads the document.
    pub(crate) fn read(document: &Automerge, settings: &ObjId) -> Self {
        Self {
            title: text(document, &ROOT, "title").unwrap_or_default(),
            public: scalar(document, &ROOT, "public") == Some(ScalarValue::Boolean(true)),
            created: wall(document, &ROOT, "created"),
            updated: newest(document, "updated"),
            expires: wall(document, &ROOT, "expires"),
            ask: text(document, settings, "ask").map_or_else(Ask::default, |word| ask_of(&word)),
            control: text(document, settings, "control")
                .map_or_else(ControlMode::default, |word| control_of(&word)),
            late_joiner: scalar(document, settings, "late_joiner")
                .map_or_else(LateJoiner::default, |value| late_joiner_of(&value)),
        }
    }
}

impl Document {
    /// Writes facts of the session, one change for all, and when they changed. Yields no change where all of
    /// them stand already.
    ///
    /// # Errors
    /// What [`WriteError`] names.
    pub fn write_session(
        &mut self,
        writer: &Writer,
        now: Wall,
        facts: &[SessionFact],
    ) -> Result<Option<LocalChange>, WriteError> {
        self.expect_kind(DocumentKind::Session)?;
        let settings = self.container().clone();
        let mut puts: Vec<(ObjId, &str, ScalarValue)> = Vec::new();
        for fact in facts {
            let (object, key, value) = place(fact, &settings);
            // The last word on a fact counts, and a key is written once.
            puts.retain(|(at, name, _)| !(*at == object && *name == key));
            puts.push((object, key, value));
        }
        puts.retain(|(object, key, value)| {
            self.has_conflict(object, key)
                || scalar(self.automerge(), object, key).as_ref() != Some(value)
        });
        if puts.is_empty() {
            return Ok(None);
        }
        puts.push((ROOT, "updated", moment(now)));
        self.settle_conflicts(&settings, &mut puts);
        self.write_values(writer, now, puts)
    }

    /// Adds the winner of every other fact that was written concurrently: a change then never has to replace
    /// more values than there were writers since the last one.
    fn settle_conflicts(&self, settings: &ObjId, puts: &mut Vec<(ObjId, &str, ScalarValue)>) {
        let root = FIELDS.iter().map(|(key, _)| (ROOT, *key));
        for (object, key) in root.chain(SETTINGS.iter().map(|(key, _)| (settings.clone(), *key))) {
            let written = puts
                .iter()
                .any(|(at, name, _)| *at == object && *name == key);
            if written || !self.has_conflict(&object, key) {
                continue;
            }
            if let Some(winner) = scalar(self.automerge(), &object, key) {
                puts.push((object, key, winner));
            }
        }
    }

    fn has_conflict(&self, object: &ObjId, key: &str) -> bool {
        self.automerge()
            .get_all(object, key)
            .is_ok_and(|values| values.len() > 1)
    }
}

/// Where a fact is written, and how.
fn place(fact: &SessionFact, settings: &ObjId) -> (ObjId, &'static str, ScalarValue) {
    match fact {
        SessionFact::Title(title) => (ROOT, "title", title.as_str().into()),
        SessionFact::Public(public) => (ROOT, "public", (*public).into()),
        SessionFact::Created(at) => (ROOT, "created", moment(*at)),
        SessionFact::Expires(at) => (ROOT, "expires", at.map_or(ScalarValue::Null, moment)),
        SessionFact::Setting(setting) => {
            let (key, value) = match setting {
                Setting::Ask(ask) => ("ask", ask_word(*ask).into()),
                Setting::Control(mode) => ("control", control_word(*mode).into()),
                Setting::LateJoiner(late) => ("late_joiner", late_joiner_value(*late)),
            };
            (settings.clone(), key, value)
        }
    }
}

/// The latest of all moments that stand under a key.
fn newest(document: &Automerge, key: &str) -> Option<Wall> {
    let all = document.get_all(ROOT, key).ok()?;
    all.into_iter()
        .filter_map(|(value, _)| wall_of(&value.into_scalar().ok()?))
        .max()
}

fn ask_word(ask: Ask) -> &'static str {
    match ask {
        Ask::Auto => "auto",
        Ask::Always => "always",
        Ask::Never => "never",
    }
}

fn ask_of(word: &str) -> Ask {
    match word {
        "always" => Ask::Always,
        "never" => Ask::Never,
        _ => Ask::Auto,
    }
}

fn control_word(mode: ControlMode) -> &'static str {
    match mode {
        ControlMode::Ask => "ask",
        ControlMode::Auto => "auto",
    }
}

fn control_of(word: &str) -> ControlMode {
    if word == "auto" {
        ControlMode::Auto
    } else {
        ControlMode::Ask
    }
}

fn late_joiner_value(late: LateJoiner) -> ScalarValue {
    match late {
        LateJoiner::None => "none".into(),
        LateJoiner::Screen => "screen".into(),
        LateJoiner::All => "all".into(),
        LateJoiner::Lines(lines) => ScalarValue::Uint(u64::from(lines)),
    }
}

fn late_joiner_of(value: &ScalarValue) -> LateJoiner {
    if let Some(lines) = count_of(value) {
        return LateJoiner::Lines(u32::try_from(lines).unwrap_or(u32::MAX));
    }
    match text_of(value).as_deref() {
        Some("none") => LateJoiner::None,
        Some("all") => LateJoiner::All,
        _ => LateJoiner::Screen,
    }
}
