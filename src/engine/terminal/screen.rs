//! The canonical screen: an ordered list of rows, each with an identity and stamped with the version at which
//! it last changed. So the difference since any version can be computed from the screen alone, without
//! history, by anybody who holds it. A [`ScreenHost`] makes the versions: it finds out which rows of the
//! emulator's next picture are rows of the last one, moved or edited, and which are new.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::engine::ids::Hash;
use crate::engine::limits::{
    BELL_INTERVAL, SCREEN_COLS_MAX, SCREEN_COLS_MIN, SCREEN_ROWS_MAX, SCREEN_ROWS_MIN,
    SCREEN_TITLE_BYTES_MAX,
};
use crate::engine::terminal::cell::{Cell, Line, clean_cells, inert_text};
use crate::engine::terminal::emulator::{RawRow, RawScreen};
use crate::engine::terminal::redaction::Redacted;
use crate::engine::time::Mono;

/// A row of one terminal: never used again within an epoch.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct RowId(pub u64);

/// The form of the cursor.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub enum CursorShape {
    /// The whole cell.
    #[default]
    Block,
    /// A line beneath the cell.
    Underline,
    /// A line left of the cell.
    Bar,
}

/// Where the next character goes, and how that is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Cursor {
    /// Column, 0 at the left.
    pub x: u16,
    /// Row, 0 at the top.
    pub y: u16,
    /// Its form.
    pub shape: CursorShape,
    /// Whether it blinks.
    pub blinking: bool,
    /// Whether it is shown.
    pub visible: bool,
}

/// What the program asked of its terminal, as far as input or its rendering depends on it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Modes(u16);

impl Modes {
    /// The alternate screen (`?1049`).
    pub const ALT_SCREEN: Self = Self(1);
    /// Pasted text is framed (`?2004`).
    pub const BRACKETED_PASTE: Self = Self(1 << 1);
    /// Arrow keys send SS3 (`?1`).
    pub const APP_CURSOR: Self = Self(1 << 2);
    /// The keypad sends functions (`DECKPAM`).
    pub const APP_KEYPAD: Self = Self(1 << 3);
    /// Mouse buttons are reported (`?1000`).
    pub const MOUSE_CLICK: Self = Self(1 << 4);
    /// Motion with a button is reported (`?1002`).
    pub const MOUSE_DRAG: Self = Self(1 << 5);
    /// All motion is reported (`?1003`).
    pub const MOUSE_MOTION: Self = Self(1 << 6);
    /// The mouse is reported in decimal (`?1006`).
    pub const MOUSE_SGR: Self = Self(1 << 7);
    /// The mouse is reported in UTF-8 (`?1005`).
    pub const MOUSE_UTF8: Self = Self(1 << 8);
    /// Gain and loss of focus are reported (`?1004`).
    pub const FOCUS: Self = Self(1 << 9);
    /// The wheel sends arrow keys on the alternate screen (`?1007`).
    pub const ALTERNATE_SCROLL: Self = Self(1 << 10);
    /// Enter sends CR and LF (`LNM`).
    pub const NEWLINE: Self = Self(1 << 11);

    const ALL: u16 = (1 << 12) - 1;

    const NAMES: [(Self, &'static str); 12] = [
        (Self::ALT_SCREEN, "alt-screen"),
        (Self::BRACKETED_PASTE, "bracketed-paste"),
        (Self::APP_CURSOR, "app-cursor"),
        (Self::APP_KEYPAD, "app-keypad"),
        (Self::MOUSE_CLICK, "mouse-click"),
        (Self::MOUSE_DRAG, "mouse-drag"),
        (Self::MOUSE_MOTION, "mouse-motion"),
        (Self::MOUSE_SGR, "mouse-sgr"),
        (Self::MOUSE_UTF8, "mouse-utf8"),
        (Self::FOCUS, "focus"),
        (Self::ALTERNATE_SCROLL, "alternate-scroll"),
        (Self::NEWLINE, "newline"),
    ];

    /// Whether all of `other` are on.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// With those of `other` too, if `on`.
    #[must_use]
    pub const fn with(self, other: Self, on: bool) -> Self {
        if on { Self(self.0 | other.0) } else { self }
    }

    /// The names of those that are on, as `screen --json` has them.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES
            .into_iter()
            .filter(move |(one, _)| self.contains(*one))
            .map(|(_, name)| name)
    }

    /// Whether no bit is set that this version does not know.
    pub(super) const fn is_known(self) -> bool {
        self.0 & !Self::ALL == 0
    }
}

/// One row of a screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Stays while the row scrolls or is edited.
    pub id: RowId,
    /// The version at which it entered or its content last changed.
    pub stamp: u64,
    /// What it says.
    pub line: Arc<Line>,
}

/// The versions at which parts other than rows last changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamps {
    /// The order of rows.
    pub order: u64,
    /// The modes.
    pub modes: u64,
    /// The title.
    pub title: u64,
}

/// A terminal's visible state, in one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Screen {
    /// Grows with every resize and reset; rows of different epochs are unrelated.
    pub epoch: u32,
    /// Grows by one with every change, also from epoch to epoch. The first is 1.
    pub version: u64,
    /// Width in columns.
    pub cols: u16,
    /// From top to bottom.
    pub rows: Vec<Row>,
    /// Where the next character goes.
    pub cursor: Cursor,
    /// What the program asked of its terminal.
    pub modes: Modes,
    /// The window title, inert, or nothing.
    pub title: String,
    /// Grows by one, and around, with each bell of the shell that is to be heard. Who sees it change rings.
    pub bells: u32,
    /// When what last changed.
    pub stamps: Stamps,
}

impl Screen {
    /// Height in rows.
    pub fn height(&self) -> u16 {
        u16::try_from(self.rows.len()).unwrap_or(u16::MAX)
    }

    /// The hash of the whole screen, order, identities and stamps included: what the host signs.
    pub fn digest(&self) -> Hash {
        let mut hasher = blake3::Hasher::new_derive_key("collab-p2p screen v1");
        hasher.update(&self.epoch.to_le_bytes());
        hasher.update(&self.version.to_le_bytes());
        hasher.update(&self.cols.to_le_bytes());
        hasher.update(&self.height().to_le_bytes());
        hasher.update(&cursor_bytes(self.cursor));
        hasher.update(&self.modes.0.to_le_bytes());
        hasher.update(&self.bells.to_le_bytes());
        for stamp in [self.stamps.order, self.stamps.modes, self.stamps.title] {
            hasher.update(&stamp.to_le_bytes());
        }
        hasher.update(
            &u64::try_from(self.title.len())
                .unwrap_or(u64::MAX)
                .to_le_bytes(),
        );
        hasher.update(self.title.as_bytes());
        for row in &self.rows {
            hasher.update(&row.id.0.to_le_bytes());
            hasher.update(&row.stamp.to_le_bytes());
            hasher.update(row.line.hash().as_bytes());
        }
        Hash(*hasher.finalize().as_bytes())
    }
}

fn cursor_bytes(cursor: Cursor) -> [u8; 7] {
    let [x0, x1] = cursor.x.to_le_bytes();
    let [y0, y1] = cursor.y.to_le_bytes();
    let shape = match cursor.shape {
        CursorShape::Block => 0,
        CursorShape::Underline => 1,
        CursorShape::Bar => 2,
    };
    [
        x0,
        x1,
        y0,
        y1,
        shape,
        u8::from(cursor.blinking),
        u8::from(cursor.visible),
    ]
}

/// A size within what a shared screen may have.
pub fn clamp_size(cols: u16, rows: u16) -> (u16, u16) {
    (
        cols.clamp(SCREEN_COLS_MIN, SCREEN_COLS_MAX),
        rows.clamp(SCREEN_ROWS_MIN, SCREEN_ROWS_MAX),
    )
}

/// Makes canonical versions of the pictures that the emulator of a hosted terminal shows.
#[derive(Debug, Default)]
pub struct ScreenHost {
    current: Option<Redacted<Screen>>,
    previous: Option<Redacted<Screen>>,
    generation: u32,
    next_row: u64,
    bells: u32,
    rung: Option<Mono>,
}

impl ScreenHost {
    /// Before the first picture.
    pub fn new() -> Self {
        Self::default()
    }

    /// The newest version.
    pub fn current(&self) -> Option<&Redacted<Screen>> {
        self.current.as_ref()
    }

    /// The version before it, for differences of single cells.
    pub fn previous(&self) -> Option<&Redacted<Screen>> {
        self.previous.as_ref()
    }

    /// The shell has rung, once or often: the next version says so, if no bell was counted within [`BELL_INTERVAL`].
    /// A bell within that time is never heard: somebody who listens has been called a moment ago.
    pub fn ring(&mut self, now: Mono) {
        if self.rung.is_none_or(|rung| rung + BELL_INTERVAL <= now) {
            self.rung = Some(now);
            self.bells = self.bells.wrapping_add(1);
        }
    }

    /// Takes the next picture and says whether it makes a new version.
    pub fn advance(&mut self, raw: Redacted<RawScreen>) -> bool {
        let next = match self.current.as_deref() {
            Some(last) if self.generation == raw.generation && same_size(last, &raw) => {
                next_version(last, raw, self.bells, &mut self.next_row)
            }
            last => {
                self.generation = raw.generation;
                Some(new_epoch(last, raw, self.bells, &mut self.next_row))
            }
        };
        let Some(next) = next else { return false };
        self.previous = self.current.replace(next);
        true
    }
}

fn same_size(last: &Screen, raw: &RawScreen) -> bool {
    size_of_raw(raw) == (last.cols, last.height())
}

fn size_of_raw(raw: &RawScreen) -> (u16, u16) {
    clamp_size(raw.cols, u16::try_from(raw.rows.len()).unwrap_or(u16::MAX))
}

fn new_epoch(
    last: Option<&Screen>,
    raw: Redacted<RawScreen>,
    bells: u32,
    next_row: &mut u64,
) -> Redacted<Screen> {
    let epoch = last.map_or(1, |last| last.epoch.saturating_add(1));
    let version = last.map_or(1, |last| last.version.saturating_add(1));
    raw.map(|raw| {
        let (cols, height) = size_of_raw(&raw);
        let lines = (0..height).zip(
            raw.rows
                .into_iter()
                .chain(std::iter::repeat(RawRow::default())),
        );
        let rows = lines
            .map(|(_, row)| Row {
                id: take_id(next_row),
                stamp: version,
                line: Arc::new(Line::cleaned(row.cells, row.wrapped, cols)),
            })
            .collect();
        Screen {
            epoch,
            version,
            cols,
            rows,
            cursor: clamp_cursor(raw.cursor, cols, height),
            modes: raw.modes,
            title: inert_text(&raw.title, SCREEN_TITLE_BYTES_MAX),
            bells,
            stamps: Stamps {
                order: version,
                modes: version,
                title: version,
            },
        }
    })
}

/// The version after `last` in the same epoch, or nothing if nothing changed.
fn next_version(
    last: &Screen,
    raw: Redacted<RawScreen>,
    bells: u32,
    next_row: &mut u64,
) -> Option<Redacted<Screen>> {
    let cursor = clamp_cursor(raw.cursor, last.cols, last.height());
    let modes = raw.modes;
    let title = inert_text(&raw.title, SCREEN_TITLE_BYTES_MAX);
    let lines = raw.map(|raw| new_lines(last, raw.rows));
    let same_lines = last
        .rows
        .iter()
        .zip(lines.iter())
        .all(|(row, line)| Arc::ptr_eq(&row.line, line));
    let same_look = cursor == last.cursor && modes == last.modes && title == last.title;
    if same_lines && same_look && bells == last.bells {
        return None;
    }

    let version = last.version.saturating_add(1);
    let other_buffer = modes.contains(Modes::ALT_SCREEN) != last.modes.contains(Modes::ALT_SCREEN);
    Some(lines.map(|lines| {
        let rows = if same_lines && !other_buffer {
            last.rows.clone()
        } else {
            let origins = if other_buffer {
                vec![None; lines.len()]
            } else {
                origins(last, &lines)
            };
            place_rows(last, lines, origins, version, next_row)
        };
        let same_order = last
            .rows
            .iter()
            .map(|row| row.id)
            .eq(rows.iter().map(|row| row.id));
        let stamp = |same: bool, old: u64| if same { old } else { version };
        let stamps = Stamps {
            order: stamp(same_order, last.stamps.order),
            modes: stamp(modes == last.modes, last.stamps.modes),
            title: stamp(title == last.title, last.stamps.title),
        };
        Screen {
            epoch: last.epoch,
            version,
            cols: last.cols,
            rows,
            cursor,
            modes,
            title,
            bells,
            stamps,
        }
    }))
}

/// The lines of the new picture; one that says what the last picture said in its place is shared with it.
fn new_lines(last: &Screen, rows: Vec<RawRow>) -> Vec<Arc<Line>> {
    let rows = rows.into_iter().chain(std::iter::repeat(RawRow::default()));
    last.rows
        .iter()
        .zip(rows)
        .map(|(old, RawRow { mut cells, wrapped })| {
            clean_cells(&mut cells, last.cols);
            if old.line.says(&cells, wrapped) {
                Arc::clone(&old.line)
            } else {
                Arc::new(Line::cleaned(cells, wrapped, last.cols))
            }
        })
        .collect()
}

fn place_rows(
    last: &Screen,
    lines: Vec<Arc<Line>>,
    origins: Vec<Option<usize>>,
    version: u64,
    next_row: &mut u64,
) -> Vec<Row> {
    lines
        .into_iter()
        .zip(origins)
        .map(
            |(line, origin)| match origin.and_then(|index| last.rows.get(index)) {
                Some(old) if old.line.hash() == line.hash() => old.clone(),
                Some(old) => Row {
                    id: old.id,
                    stamp: version,
                    line,
                },
                None => Row {
                    id: take_id(next_row),
                    stamp: version,
                    line,
                },
            },
        )
        .collect()
}

fn take_id(next_row: &mut u64) -> RowId {
    *next_row = next_row.saturating_add(1);
    RowId(*next_row)
}

fn clamp_cursor(cursor: Cursor, cols: u16, rows: u16) -> Cursor {
    Cursor {
        x: cursor.x.min(cols.saturating_sub(1)),
        y: cursor.y.min(rows.saturating_sub(1)),
        ..cursor
    }
}

/// For each new line the index of the row that it was in the last picture, if any. Rows whose content is
/// unique vote for how far the picture moved; then lines are claimed from the surest to the vaguest reason.
fn origins(last: &Screen, lines: &[Arc<Line>]) -> Vec<Option<usize>> {
    let mut claims = Claims::new(last, lines);
    let shift = claims.vote();
    claims.by(|index, _| shifted(index, shift), same_content);
    claims.by(|index, _| Some(index), same_content);
    let unique = unique_rows(last.rows.iter().map(|row| &row.line));
    claims.by(
        |_, line| unique.get(&line.hash()).copied().flatten(),
        same_content,
    );
    claims.by_likeness(shift);
    claims.origins
}

fn shifted(index: usize, shift: isize) -> Option<usize> {
    index.checked_add_signed(shift)
}

/// Which new line claims which old row. An old row is claimed once.
struct Claims<'a> {
    last: &'a Screen,
    lines: &'a [Arc<Line>],
    origins: Vec<Option<usize>>,
    taken: Vec<bool>,
}

impl<'a> Claims<'a> {
    fn new(last: &'a Screen, lines: &'a [Arc<Line>]) -> Self {
        Self {
            last,
            lines,
            origins: vec![None; lines.len()],
            taken: vec![false; last.rows.len()],
        }
    }

    /// The distance that most rows with unique content moved: old index minus new index.
    fn vote(&self) -> isize {
        let old = unique_rows(self.last.rows.iter().map(|row| &row.line));
        let mut votes: BTreeMap<isize, usize> = BTreeMap::new();
        for (hash, index) in unique_rows(self.lines.iter()) {
            if let (Some(new), Some(old)) = (index, old.get(&hash).copied().flatten()) {
                let distance = old.cast_signed().saturating_sub(new.cast_signed());
                *votes.entry(distance).or_default() += 1;
            }
        }
        let nearest_first = |distance: isize| std::cmp::Reverse(distance.unsigned_abs());
        votes
            .into_iter()
            .max_by_key(|(distance, count)| (*count, nearest_first(*distance)))
            .map_or(0, |(distance, _)| distance)
    }

    /// Lets every line without an origin claim the candidate that the rule names, if it is free and fits.
    fn by(
        &mut self,
        candidate: impl Fn(usize, &Line) -> Option<usize>,
        fits: impl Fn(&Line, &Line) -> bool,
    ) {
        for (index, (line, origin)) in self.lines.iter().zip(&mut self.origins).enumerate() {
            if origin.is_some() {
                continue;
            }
            let Some(old) = candidate(index, line) else {
                continue;
            };
            let Some(row) = self.last.rows.get(old) else {
                continue;
            };
            let Some(taken) = self.taken.get_mut(old) else {
                continue;
            };
            if !*taken && fits(&row.line, line) {
                *taken = true;
                *origin = Some(old);
            }
        }
    }

    /// Lets edited lines claim the row that they were, where they stand or where they moved from, the most
    /// alike first: so a status row that changes with each scroll stays itself.
    fn by_likeness(&mut self, shift: isize) {
        let mut pairs = Vec::new();
        let open = self.lines.iter().zip(&self.origins).enumerate();
        for (index, (line, _)) in open.filter(|(_, (_, origin))| origin.is_none()) {
            for old in [shifted(index, shift), Some(index)].into_iter().flatten() {
                let row = self
                    .last
                    .rows
                    .get(old)
                    .filter(|_| self.taken.get(old) == Some(&false));
                let likeness = row.and_then(|row| likeness(&row.line, line));
                pairs.extend(likeness.map(|likeness| (likeness, index, old)));
            }
        }
        pairs.sort_by_key(|(likeness, index, _)| (std::cmp::Reverse(*likeness), *index));
        for (_, index, old) in pairs {
            let origin = self
                .origins
                .get_mut(index)
                .filter(|origin| origin.is_none());
            if let (Some(origin), Some(taken @ false)) = (origin, self.taken.get_mut(old)) {
                *taken = true;
                *origin = Some(old);
            }
        }
    }
}

/// Where content stands that stands once only; `None` for what stands more often.
fn unique_rows<'a>(lines: impl Iterator<Item = &'a Arc<Line>>) -> BTreeMap<Hash, Option<usize>> {
    let mut rows = BTreeMap::new();
    for (index, line) in lines.enumerate().filter(|(_, line)| !line.is_blank()) {
        rows.entry(line.hash())
            .and_modify(|place| *place = None)
            .or_insert(Some(index));
    }
    rows
}

fn same_content(old: &Line, new: &Line) -> bool {
    old.hash() == new.hash()
}

/// How many visible cells stayed in their place, if that is at least half of the shorter content: then the row
/// was edited rather than replaced.
fn likeness(old: &Line, new: &Line) -> Option<usize> {
    let visible = |line: &Line| line.cells().iter().filter(|cell| !cell.is_space()).count();
    let shorter = visible(old).min(visible(new));
    let stays = |(old, new): &(&Cell, &Cell)| !old.is_space() && old.glyph == new.glyph;
    let kept = old.cells().iter().zip(new.cells()).filter(stays).count();
    (kept.saturating_mul(2) >= shorter).then_some(kept)
}

#[cfg(test)]
pub(in crate::engine) mod tests {
    use super::*;
    use crate::engine::terminal::cell::Style;
    use crate::engine::terminal::redaction::Redactor;

    /// A picture of plain lines, 20 columns wide.
    pub(in crate::engine) fn picture(lines: &[&str]) -> RawScreen {
        let rows = lines.iter().map(|line| raw_row(line)).collect();
        let cursor = Cursor {
            visible: true,
            ..Cursor::default()
        };
        RawScreen {
            cols: 20,
            rows,
            cursor,
            ..RawScreen::default()
        }
    }

    pub(in crate::engine) fn raw_row(text: &str) -> RawRow {
        let cells = text
            .chars()
            .map(|char| Cell::new(char, &[], false, Style::default()))
            .collect();
        RawRow {
            cells,
            wrapped: false,
        }
    }

    pub(in crate::engine::terminal) fn show(host: &mut ScreenHost, raw: RawScreen) -> Screen {
        host.advance(Redactor::none().redact(raw));
        host.current().unwrap().clone().into_inner()
    }

    fn ids(screen: &Screen) -> Vec<u64> {
        screen.rows.iter().map(|row| row.id.0).collect()
    }

    fn stamps(screen: &Screen) -> Vec<u64> {
        screen.rows.iter().map(|row| row.stamp).collect()
    }

    #[test]
    fn an_equal_picture_makes_no_version() {
        let mut host = ScreenHost::new();

        assert!(host.advance(Redactor::none().redact(picture(&["a", "b"]))));
        assert!(!host.advance(Redactor::none().redact(picture(&["a", "b"]))));
        assert_eq!(host.current().unwrap().version, 1);
    }

    #[test]
    fn an_edited_row_keeps_its_identity_and_gets_a_stamp() {
        let mut host = ScreenHost::new();
        show(&mut host, picture(&["$ l", "", ""]));

        let screen = show(&mut host, picture(&["$ ls", "", ""]));

        assert_eq!(ids(&screen), [1, 2, 3]);
        assert_eq!(stamps(&screen), [2, 1, 1]);
        assert_eq!(
            screen.stamps,
            Stamps {
                order: 1,
                modes: 1,
                title: 1
            }
        );
    }

    #[test]
    fn rows_that_scroll_keep_identity_and_stamp_and_entering_ones_are_new() {
        let mut host = ScreenHost::new();
        show(&mut host, picture(&["1", "2", "3", "4", "$"]));

        let screen = show(&mut host, picture(&["3", "4", "$ seq", "6", "7"]));

        assert_eq!(ids(&screen), [3, 4, 5, 6, 7]);
        assert_eq!(stamps(&screen), [1, 1, 2, 2, 2]);
        assert_eq!(screen.stamps.order, 2);
    }

    #[test]
    fn a_region_that_scrolls_leaves_the_status_row_alone() {
        let mut host = ScreenHost::new();
        let text = |from: usize, status: &str| -> Vec<String> {
            (from..from + 9)
                .map(|n| format!("line {n}"))
                .chain([status.into()])
                .collect()
        };
        let lines =
            |lines: &[String]| picture(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        show(&mut host, lines(&text(1, "file 1,1 Top")));

        let down = show(&mut host, lines(&text(3, "file 3,1 Top")));
        let up = show(&mut host, lines(&text(2, "file 2,1 Top")));

        assert_eq!(ids(&down), [3, 4, 5, 6, 7, 8, 9, 11, 12, 10]);
        assert_eq!(stamps(&down), [1, 1, 1, 1, 1, 1, 1, 2, 2, 2]);
        assert_eq!(
            ids(&up),
            [13, 3, 4, 5, 6, 7, 8, 9, 11, 10],
            "row 2 comes back as a new one"
        );
        assert_eq!(stamps(&up), [3, 1, 1, 1, 1, 1, 1, 1, 2, 3]);
    }

    #[test]
    fn blank_and_repeated_rows_move_with_their_neighbours() {
        let mut host = ScreenHost::new();
        show(
            &mut host,
            picture(&["fn a() {", "}", "", "fn b() {", "}", "", "fn c() {", "}"]),
        );

        let screen = show(
            &mut host,
            picture(&["", "fn b() {", "}", "", "fn c() {", "}", "", "fn d() {"]),
        );

        assert_eq!(ids(&screen), [3, 4, 5, 6, 7, 8, 9, 10]);
        assert_eq!(&stamps(&screen)[..6], [1; 6]);
    }

    #[test]
    fn what_replaces_a_screen_is_new() {
        let mut host = ScreenHost::new();
        show(&mut host, picture(&["alpha", "beta", "gamma"]));

        let screen = show(&mut host, picture(&["12345", "6789", "00000"]));

        assert_eq!(ids(&screen), [4, 5, 6]);
    }

    #[test]
    fn rows_of_the_other_buffer_are_new_even_if_they_look_the_same() {
        let mut host = ScreenHost::new();
        let main = picture(&["a", "b"]);
        let alt = RawScreen {
            modes: Modes::ALT_SCREEN,
            ..main.clone()
        };
        show(&mut host, main.clone());

        assert_eq!(ids(&show(&mut host, alt)), [3, 4]);
        assert_eq!(ids(&show(&mut host, main)), [5, 6]);
        assert_eq!(host.current().unwrap().epoch, 1);
    }

    #[test]
    fn a_resize_or_a_new_generation_starts_an_epoch_and_versions_go_on() {
        let mut host = ScreenHost::new();
        show(&mut host, picture(&["a", "b"]));

        let taller = show(&mut host, picture(&["a", "b", "c"]));
        let reset = RawScreen {
            generation: 1,
            ..picture(&["a", "b", "c"])
        };
        let reset = show(&mut host, reset);

        assert_eq!((taller.epoch, taller.version), (2, 2));
        assert_eq!((reset.epoch, reset.version), (3, 3));
        assert_eq!(ids(&reset), [6, 7, 8]);
    }

    #[test]
    fn sizes_titles_and_cursors_are_brought_within_bounds() {
        let mut host = ScreenHost::new();
        let raw = RawScreen {
            cols: 1,
            rows: vec![raw_row("a\x1bb")],
            cursor: Cursor {
                x: 900,
                y: 900,
                ..Cursor::default()
            },
            title: "x\x1b\x07y".repeat(200),
            ..RawScreen::default()
        };

        let screen = show(&mut host, raw);

        assert_eq!((screen.cols, screen.height()), (10, 2));
        assert_eq!((screen.cursor.x, screen.cursor.y), (9, 1));
        assert!(screen.title.len() <= SCREEN_TITLE_BYTES_MAX && screen.title.starts_with("x  yx"));
        assert_eq!(screen.rows[0].line.text(), "a b");
    }

    #[test]
    fn a_bell_alone_makes_a_version_and_no_bell_makes_none() {
        let mut host = ScreenHost::new();
        let same = picture(&["a", "b"]);
        let before = show(&mut host, same.clone());

        host.ring(Mono(1));
        let rung = show(&mut host, same.clone());
        let after = show(&mut host, same);

        assert_eq!((before.version, before.bells), (1, 0));
        assert_eq!((rung.version, rung.bells), (2, 1));
        assert_eq!(rung.rows, before.rows);
        assert_eq!(after, rung);
    }

    #[test]
    fn bells_soon_after_one_that_was_counted_are_dropped() {
        let mut host = ScreenHost::new();
        let first = Mono(7);
        let (soon, later) = (Mono((first + BELL_INTERVAL).0 - 1), first + BELL_INTERVAL);
        let bells = |host: &mut ScreenHost, at: Mono| {
            host.ring(at);
            show(host, picture(&["a", "b"])).bells
        };

        assert_eq!(bells(&mut host, first), 1);
        assert_eq!(bells(&mut host, soon), 1);
        assert_eq!(
            bells(&mut host, later),
            2,
            "counted from the one that was heard"
        );
    }

    #[test]
    fn bells_are_counted_on_from_epoch_to_epoch_and_around() {
        let mut host = ScreenHost {
            bells: u32::MAX,
            ..ScreenHost::new()
        };
        assert_eq!(show(&mut host, picture(&["a", "b"])).bells, u32::MAX);

        host.ring(Mono(0));
        assert_eq!(show(&mut host, picture(&["a", "b"])).bells, 0);

        host.ring(Mono(0) + BELL_INTERVAL);
        let taller = show(&mut host, picture(&["a", "b", "c"]));
        assert_eq!((taller.epoch, taller.bells), (2, 1));
    }

    #[test]
    fn the_digest_changes_with_every_field() {
        let mut host = ScreenHost::new();
        let screen = show(&mut host, picture(&["a", "b"]));
        let changed = |change: &dyn Fn(&mut Screen)| {
            let mut screen = screen.clone();
            change(&mut screen);
            screen.digest()
        };

        let digests: std::collections::BTreeSet<Hash> = [
            changed(&|_| {}),
            changed(&|screen| screen.epoch += 1),
            changed(&|screen| screen.version += 1),
            changed(&|screen| screen.cols += 1),
            changed(&|screen| screen.cursor.x += 1),
            changed(&|screen| screen.cursor.y += 1),
            changed(&|screen| screen.cursor.shape = CursorShape::Bar),
            changed(&|screen| screen.cursor.blinking = true),
            changed(&|screen| screen.cursor.visible = false),
            changed(&|screen| screen.modes = Modes::FOCUS),
            changed(&|screen| screen.title = "t".into()),
            changed(&|screen| screen.bells += 1),
            changed(&|screen| screen.stamps.order += 1),
            changed(&|screen| screen.stamps.modes += 1),
            changed(&|screen| screen.stamps.title += 1),
            changed(&|screen| screen.rows.swap(0, 1)),
            changed(&|screen| drop(screen.rows.pop())),
            changed(&|screen| screen.rows[1].id.0 += 1),
            changed(&|screen| screen.rows[1].stamp += 1),
            changed(&|screen| {
                let cells = screen.rows[1].line.cells().to_vec();
                screen.rows[1].line = Arc::new(Line::cleaned(cells, true, 20));
            }),
            changed(&|screen| {
                screen.rows[1].line = Arc::new(Line::cleaned(raw_row("c").cells, false, 20));
            }),
        ]
        .into();

        assert_eq!(digests.len(), 21);
    }
}
