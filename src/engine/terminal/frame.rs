//! The difference between two versions of a screen, as bytes. A [`Frame`] holds the order of rows as a few
//! runs of identities, the rows stamped after the base, and what else changed; without a base it is a keyframe
//! and holds all. It is computed from the screen alone, so whoever holds a screen can serve it. [`Frame::step`]
//! compares two held screens and sends only the changed columns.
//!
//! Decoding trusts nothing: each length is checked against the limits of a screen before memory is taken, and
//! the bytes must be the ones that encoding would make. Applying builds a new screen or changes nothing. That
//! the result is the host's screen is known only by its digest ([`ScreenStamp`]).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::engine::bounded;
use crate::engine::compression;
use crate::engine::ids::{Hash, SessionId, TerminalId};
use crate::engine::limits::{
    FRAME_BYTES_MAX, FRAME_COMPRESS_BYTES_MIN, SCREEN_CELLS_MAX, SCREEN_COLS_MAX, SCREEN_ROWS_MAX,
    SCREEN_TITLE_BYTES_MAX,
};
use crate::engine::terminal::cell::{
    Cell, Cluster, Glyph, Line, LineError, Style, check_cells, inert_text,
};
use crate::engine::terminal::redaction::Redacted;
use crate::engine::terminal::screen::{Cursor, Modes, Row, RowId, Screen, Stamps, clamp_size};

/// Why bytes are no frame, or a frame does not apply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than any frame may be, before or after decompression.
    #[error("a frame may have {FRAME_BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
    /// Bytes that do not decompress to the length they name.
    #[error("the frame does not decompress")]
    Compression,
    /// Cut short, or lengths beyond the limits of a screen.
    #[error("the frame cannot be read")]
    Malformed,
    /// Bytes that encoding would not have made.
    #[error("the frame is not in canonical form")]
    NotCanonical,
    /// Cells that make no line.
    #[error("a row of the frame is refused: {0}")]
    Line(#[from] LineError),
    /// Contents that contradict each other.
    #[error("the frame contradicts itself: {0}")]
    Contradiction(&'static str),
    /// Made for another version than the one held.
    #[error("the frame needs version {needs:?} of epoch {epoch}, held is {held:?}")]
    WrongBase {
        /// The epoch that the frame belongs to.
        epoch: u32,
        /// The version that the frame builds on, or none for a keyframe.
        needs: Option<u64>,
        /// Epoch and version of the held screen.
        held: Option<(u32, u64)>,
    },
}

/// The difference since a version, or a whole screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    epoch: u32,
    version: u64,
    base: Option<u64>,
    size: Option<(u16, u16)>,
    order: Option<Order>,
    rows: Vec<RowPatch>,
    cursor: Cursor,
    modes: Option<(u64, Modes)>,
    title: Option<(u64, String)>,
    bells: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Order {
    stamp: u64,
    runs: Vec<OrderRun>,
}

/// `count` rows with identities from `first` upwards, from top to bottom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct OrderRun {
    first: u64,
    count: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct RowPatch {
    position: u16,
    stamp: u64,
    patch: Patch,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Patch {
    Whole(Arc<Line>),
    Span(Span),
}

/// Cells that replace those from `column` on; with `erase` everything right of them becomes blank.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Span {
    column: u16,
    cells: Vec<Cell>,
    erase: bool,
    wrapped: bool,
}

impl Frame {
    /// The difference since `base` (epoch and version) of a screen, or a keyframe if the base is none or of
    /// another epoch. Nothing if the base is not older.
    pub fn between(base: Option<(u32, u64)>, screen: &Redacted<Screen>) -> Option<Self> {
        match base {
            Some((_, version)) if version >= screen.version => None,
            Some((epoch, version @ 1..)) if epoch == screen.epoch => {
                Some(Self::since(version, screen, |row| {
                    Patch::Whole(Arc::clone(&row.line))
                }))
            }
            Some(_) | None => Some(Self::keyframe(screen)),
        }
    }

    /// The difference between two held screens, with changed columns only where that is shorter. Nothing if
    /// `previous` is not older.
    pub fn step(previous: &Redacted<Screen>, screen: &Redacted<Screen>) -> Option<Self> {
        if previous.epoch != screen.epoch || previous.version >= screen.version {
            return Self::between(Some((previous.epoch, previous.version)), screen);
        }
        let old: BTreeMap<RowId, &Line> = previous
            .rows
            .iter()
            .map(|row| (row.id, row.line.as_ref()))
            .collect();
        Some(Self::since(previous.version, screen, |row| {
            old.get(&row.id)
                .and_then(|line| Span::between(line, &row.line, screen.cols))
                .map_or_else(|| Patch::Whole(Arc::clone(&row.line)), Patch::Span)
        }))
    }

    fn keyframe(screen: &Screen) -> Self {
        Self {
            base: None,
            size: Some((screen.cols, screen.height())),
            ..Self::since(0, screen, |row| Patch::Whole(Arc::clone(&row.line)))
        }
    }

    fn since(base: u64, screen: &Screen, patch: impl Fn(&Row) -> Patch) -> Self {
        let rows = (0_u16..)
            .zip(&screen.rows)
            .filter(|(_, row)| row.stamp > base)
            .map(|(position, row)| RowPatch {
                position,
                stamp: row.stamp,
                patch: patch(row),
            })
            .collect();
        let Stamps {
            order,
            modes,
            title,
        } = screen.stamps;
        Self {
            epoch: screen.epoch,
            version: screen.version,
            base: Some(base),
            size: None,
            order: (order > base).then(|| Order {
                stamp: order,
                runs: order_runs(&screen.rows),
            }),
            rows,
            cursor: screen.cursor,
            modes: (modes > base).then_some((modes, screen.modes)),
            title: (title > base).then(|| (title, screen.title.clone())),
            bells: screen.bells,
        }
    }

    /// The epoch of the screen that it makes.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The version of the screen that it makes.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The version that it builds on; none for a keyframe.
    pub fn base(&self) -> Option<u64> {
        self.base
    }

    /// The canonical bytes, compressed where that is shorter. At most [`FRAME_BYTES_MAX`] and one.
    pub fn encode(&self) -> Vec<u8> {
        let plain = self.plain_bytes();
        compressed(&plain).unwrap_or_else(|| [&[PLAIN], plain.as_slice()].concat())
    }

    /// Reads what [`Frame::encode`] made.
    ///
    /// # Errors
    /// Any of [`FrameError`] but [`FrameError::WrongBase`]; no more memory is taken than the largest screen needs.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let plain = decompressed(bytes)?;
        let (wire, rest) =
            postcard::take_from_bytes::<Wire>(&plain).map_err(|_| FrameError::Malformed)?;
        if !rest.is_empty() {
            return Err(FrameError::NotCanonical);
        }
        let frame = wire.into_frame()?;
        if frame.plain_bytes() == *plain {
            Ok(frame)
        } else {
            Err(FrameError::NotCanonical)
        }
    }

    fn plain_bytes(&self) -> Vec<u8> {
        // A wire frame holds nothing that postcard refuses, so there is no error to report.
        postcard::to_stdvec(&Wire::of(self)).unwrap_or_default()
    }

    /// Makes the screen that `held` becomes by this frame. On an error `held` stays as it is.
    ///
    /// # Errors
    /// [`FrameError::WrongBase`] if it builds on another screen, others if it is hostile.
    pub fn apply(&self, held: &mut Option<Redacted<Screen>>) -> Result<(), FrameError> {
        let next = match self.base {
            None => self.whole_screen(held.as_deref())?,
            Some(base) => {
                let fits = |held: &&Screen| (held.epoch, held.version) == (self.epoch, base);
                let last = held.as_deref().filter(fits);
                self.changed_screen(last.ok_or_else(|| self.wrong_base(held.as_deref()))?)?
            }
        };
        *held = Some(Redacted::received(next));
        Ok(())
    }

    fn wrong_base(&self, held: Option<&Screen>) -> FrameError {
        let held = held.map(|held| (held.epoch, held.version));
        FrameError::WrongBase {
            epoch: self.epoch,
            needs: self.base,
            held,
        }
    }

    fn whole_screen(&self, held: Option<&Screen>) -> Result<Screen, FrameError> {
        let (
            Some((cols, height)),
            Some(order),
            Some((modes_stamp, modes)),
            Some((title_stamp, title)),
        ) = (self.size, &self.order, self.modes, &self.title)
        else {
            return Err(FrameError::Contradiction("a keyframe lacks a part"));
        };
        if held.is_some_and(|held| held.version >= self.version || held.epoch > self.epoch) {
            return Err(self.wrong_base(held));
        }
        let stamps = Stamps {
            order: order.stamp,
            modes: modes_stamp,
            title: *title_stamp,
        };
        let rows = self.place(order_ids(&order.runs), cols, &BTreeMap::new())?;
        if rows.len() != usize::from(height) {
            return Err(FrameError::Contradiction(
                "the order has another number of rows",
            ));
        }
        self.screen(cols, rows, modes, title.clone(), stamps)
    }

    fn changed_screen(&self, last: &Screen) -> Result<Screen, FrameError> {
        let old: BTreeMap<RowId, &Row> = last.rows.iter().map(|row| (row.id, row)).collect();
        let ids = match &self.order {
            Some(order) => order_ids(&order.runs),
            None => last.rows.iter().map(|row| row.id).collect(),
        };
        let rows = self.place(ids, last.cols, &old)?;
        if rows.len() != last.rows.len() {
            return Err(FrameError::Contradiction(
                "the order has another number of rows",
            ));
        }
        let (modes_stamp, modes) = self.modes.unwrap_or((last.stamps.modes, last.modes));
        let (title_stamp, title) = self
            .title
            .clone()
            .unwrap_or_else(|| (last.stamps.title, last.title.clone()));
        let order = self
            .order
            .as_ref()
            .map_or(last.stamps.order, |order| order.stamp);
        let stamps = Stamps {
            order,
            modes: modes_stamp,
            title: title_stamp,
        };
        self.screen(last.cols, rows, modes, title, stamps)
    }

    fn screen(
        &self,
        cols: u16,
        rows: Vec<Row>,
        modes: Modes,
        title: String,
        stamps: Stamps,
    ) -> Result<Screen, FrameError> {
        let Self {
            epoch,
            version,
            cursor,
            bells,
            ..
        } = *self;
        if cursor.x >= cols || usize::from(cursor.y) >= rows.len() {
            return Err(FrameError::Contradiction(
                "the cursor is outside the screen",
            ));
        }
        Ok(Screen {
            epoch,
            version,
            cols,
            rows,
            cursor,
            modes,
            title,
            bells,
            stamps,
        })
    }

    /// Puts the rows in order, each patched or as it was.
    fn place(
        &self,
        ids: Vec<RowId>,
        cols: u16,
        old: &BTreeMap<RowId, &Row>,
    ) -> Result<Vec<Row>, FrameError> {
        let mut patches = self.rows.iter().peekable();
        let mut placed = std::collections::BTreeSet::new();
        let mut rows = Vec::with_capacity(ids.len());
        for (position, id) in (0_u16..).zip(ids) {
            if !placed.insert(id) {
                return Err(FrameError::Contradiction("a row stands twice"));
            }
            let old = old.get(&id).copied();
            rows.push(match patches.next_if(|patch| patch.position == position) {
                Some(patch) => Row {
                    id,
                    stamp: patch.stamp,
                    line: patch.line(old, cols)?,
                },
                None => old
                    .cloned()
                    .ok_or(FrameError::Contradiction("a row has no content"))?,
            });
        }
        match patches.next() {
            Some(_) => Err(FrameError::Contradiction("a patch is for no row")),
            None => Ok(rows),
        }
    }
}

impl RowPatch {
    fn line(&self, old: Option<&Row>, cols: u16) -> Result<Arc<Line>, FrameError> {
        match &self.patch {
            Patch::Whole(line) if line.cells().len() <= usize::from(cols) => Ok(Arc::clone(line)),
            Patch::Whole(_) => Err(LineError::TooWide.into()),
            Patch::Span(span) => {
                let old = old.ok_or(FrameError::Contradiction("columns of an unknown row"))?;
                Ok(Arc::new(span.apply(&old.line, cols)?))
            }
        }
    }
}

impl Span {
    /// The changed columns of a line, if they are less than most of it.
    fn between(old: &Line, new: &Line, cols: u16) -> Option<Self> {
        let width = old.cells().len().max(new.cells().len());
        let differs = |column: &usize| old.cell(*column) != new.cell(*column);
        let halves = |column: usize| old.cell(column).is_spacer() || new.cell(column).is_spacer();
        let mut first = (0..width).find(differs).unwrap_or(0);
        while first > 0 && halves(first) {
            first = first.saturating_sub(1);
        }
        let mut end = (first..width)
            .rev()
            .find(differs)
            .map_or(first, |column| column + 1);
        while end < width && halves(end) {
            end += 1;
        }
        let erase = new.cells().len() <= end && end < usize::from(cols);
        let end = if erase {
            new.cells().len().max(first)
        } else {
            end
        };
        let cells: Vec<Cell> = (first..end)
            .map(|column| new.cell(column).clone())
            .collect();
        let short = cells.len().saturating_mul(4) < new.cells().len().saturating_mul(3);
        let column = u16::try_from(first).ok()?;
        short.then_some(Self {
            column,
            cells,
            erase,
            wrapped: new.wrapped(),
        })
    }

    fn apply(&self, old: &Line, cols: u16) -> Result<Line, FrameError> {
        let start = usize::from(self.column);
        let end = start.saturating_add(self.cells.len());
        if end > usize::from(cols) {
            return Err(LineError::TooWide.into());
        }
        let mut cells: Vec<Cell> = (0..start).map(|column| old.cell(column).clone()).collect();
        cells.extend_from_slice(&self.cells);
        if !self.erase {
            cells.extend_from_slice(old.cells().get(end..).unwrap_or_default());
        }
        while cells.last() == Some(&Cell::BLANK) {
            cells.pop();
        }
        Ok(Line::checked(cells, self.wrapped, cols)?)
    }
}

fn order_runs(rows: &[Row]) -> Vec<OrderRun> {
    let mut runs: Vec<OrderRun> = Vec::new();
    for RowId(id) in rows.iter().map(|row| row.id) {
        match runs.last_mut() {
            Some(run) if run.first.checked_add(u64::from(run.count)) == Some(id) => run.count += 1,
            Some(_) | None => runs.push(OrderRun {
                first: id,
                count: 1,
            }),
        }
    }
    runs
}

fn order_ids(runs: &[OrderRun]) -> Vec<RowId> {
    let ids = |run: &OrderRun| {
        let first = run.first;
        (0..u64::from(run.count)).map(move |offset| RowId(first.saturating_add(offset)))
    };
    runs.iter().flat_map(ids).collect()
}

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;
/// The tag and the plain length before compressed bytes.
const ZSTD_HEAD_BYTES: usize = 5;

/// Tag, plain length, compressed bytes; nothing if that is not shorter.
fn compressed(plain: &[u8]) -> Option<Vec<u8>> {
    if plain.len() < FRAME_COMPRESS_BYTES_MIN {
        return None;
    }
    let length = u32::try_from(plain.len()).ok()?;
    let body = compression::packed(plain)?;
    let shrinks = body.len().saturating_add(ZSTD_HEAD_BYTES) <= plain.len();
    shrinks.then(|| [&[ZSTD], length.to_le_bytes().as_slice(), &body].concat())
}

fn decompressed(bytes: &[u8]) -> Result<Cow<'_, [u8]>, FrameError> {
    if bytes.len() > FRAME_BYTES_MAX.saturating_add(1) {
        return Err(FrameError::TooLong(bytes.len()));
    }
    match bytes {
        [PLAIN, plain @ ..] => Ok(plain.into()),
        [ZSTD, a, b, c, d, body @ ..] => {
            let length = usize::try_from(u32::from_le_bytes([*a, *b, *c, *d]))
                .map_err(|_| FrameError::Malformed)?;
            if length > FRAME_BYTES_MAX {
                return Err(FrameError::TooLong(length));
            }
            if compression::plain_size(body, FRAME_BYTES_MAX) != Some(length) {
                return Err(FrameError::Compression);
            }
            compression::unpacked(body, FRAME_BYTES_MAX)
                .map(Cow::from)
                .ok_or(FrameError::Compression)
        }
        _ => Err(FrameError::Malformed),
    }
}

/// A frame as it is encoded: versions as ages before its own, cells as runs, styles in a table of its own.
#[derive(Serialize, Deserialize)]
struct Wire {
    epoch: u32,
    version: u64,
    base_age: Option<u64>,
    size: Option<(u16, u16)>,
    order: Option<(u64, Bounded<OrderRun, ROWS_MAX>)>,
    /// The styles that runs name from 1 on, in the order of their first use. Style 0 is the default.
    styles: Bounded<Style, SCREEN_CELLS_MAX>,
    rows: Bounded<WireRow, ROWS_MAX>,
    cursor: Cursor,
    modes: Option<(u64, Modes)>,
    title: Option<(u64, String)>,
    bells: u32,
}

#[derive(Serialize, Deserialize)]
struct WireRow {
    position: u16,
    age: u64,
    wrapped: bool,
    patch: WirePatch,
}

#[derive(Serialize, Deserialize)]
enum WirePatch {
    Whole(Runs),
    Span {
        column: u16,
        erase: bool,
        runs: Runs,
    },
}

/// Cells of one style, with their width said and not guessed.
#[derive(Serialize, Deserialize)]
enum Run {
    /// Characters one column wide.
    Narrow { style: u32, text: String },
    /// One narrow character many times.
    Repeat { style: u32, count: u16, char: char },
    /// Characters two columns wide.
    Wide { style: u32, text: String },
    /// Several characters in one place.
    Cluster {
        style: u32,
        wide: bool,
        text: String,
    },
}

const ROWS_MAX: usize = SCREEN_ROWS_MAX as usize;
const COLS_MAX: usize = SCREEN_COLS_MAX as usize;
/// Fewer equal characters stay in their run of narrow ones.
const REPEAT_MIN: usize = 8;

type Runs = Bounded<Run, COLS_MAX>;

/// The styles of a frame while it is encoded.
#[derive(Default)]
struct StyleTable {
    styles: Vec<Style>,
    ids: BTreeMap<Style, u32>,
}

impl StyleTable {
    fn id(&mut self, style: Style) -> u32 {
        if style == Style::default() {
            return 0;
        }
        let Self { styles, ids } = self;
        *ids.entry(style).or_insert_with(|| {
            styles.push(style);
            u32::try_from(styles.len()).unwrap_or(u32::MAX)
        })
    }
}

impl Wire {
    fn of(frame: &Frame) -> Self {
        let mut styles = StyleTable::default();
        let age = |stamp: u64| frame.version.saturating_sub(stamp);
        let rows = frame
            .rows
            .iter()
            .map(|row| WireRow::of(row, age(row.stamp), &mut styles))
            .collect();
        Self {
            epoch: frame.epoch,
            version: frame.version,
            base_age: frame.base.map(age),
            size: frame.size,
            order: frame
                .order
                .as_ref()
                .map(|order| (age(order.stamp), order.runs.clone().into())),
            rows: Bounded(rows),
            styles: Bounded(styles.styles),
            cursor: frame.cursor,
            modes: frame.modes.map(|(stamp, modes)| (age(stamp), modes)),
            title: frame
                .title
                .as_ref()
                .map(|(stamp, title)| (age(*stamp), title.clone())),
            bells: frame.bells,
        }
    }

    fn into_frame(self) -> Result<Frame, FrameError> {
        let version = self.version;
        let base = self.base_age.map(|age| older(version, age)).transpose()?;
        let stamp = |age: u64| match older(version, age) {
            Ok(stamp) if stamp > base.unwrap_or(0) => Ok(stamp),
            Ok(_) | Err(_) => Err(FrameError::Contradiction(
                "a part is not newer than the base",
            )),
        };
        if base == Some(version) || version == 0 || base == Some(0) {
            return Err(FrameError::Contradiction("the base is not older"));
        }
        check_size(base, self.size)?;
        let styles = checked_styles(self.styles.0)?;
        let order = self
            .order
            .map(|(age, runs)| read_order(stamp(age)?, runs.0))
            .transpose()?;
        let rows: Result<Vec<_>, _> = self
            .rows
            .0
            .into_iter()
            .map(|row| row.into_patch(&styles, stamp))
            .collect();
        Ok(Frame {
            epoch: self.epoch,
            version,
            base,
            size: self.size,
            order,
            rows: rows?,
            cursor: self.cursor,
            modes: self
                .modes
                .map(|(age, modes)| read_modes(stamp(age)?, modes))
                .transpose()?,
            title: self
                .title
                .map(|(age, title)| read_title(stamp(age)?, title))
                .transpose()?,
            bells: self.bells,
        })
    }
}

fn older(version: u64, age: u64) -> Result<u64, FrameError> {
    version
        .checked_sub(age)
        .ok_or(FrameError::Contradiction("a version before the first"))
}

fn check_size(base: Option<u64>, size: Option<(u16, u16)>) -> Result<(), FrameError> {
    match (base, size) {
        (Some(_), None) => Ok(()),
        (None, Some((cols, rows))) if clamp_size(cols, rows) == (cols, rows) => Ok(()),
        (None, Some(_)) => Err(FrameError::Contradiction("a size that no screen has")),
        (Some(_), Some(_)) | (None, None) => Err(FrameError::Contradiction(
            "a keyframe has a size, and only a keyframe",
        )),
    }
}

fn checked_styles(styles: Vec<Style>) -> Result<Vec<Style>, FrameError> {
    let known = styles.iter().all(|style| style.attrs.is_known());
    if known {
        Ok(styles)
    } else {
        Err(FrameError::Contradiction("an unknown attribute"))
    }
}

fn read_order(stamp: u64, runs: Vec<OrderRun>) -> Result<Order, FrameError> {
    let count: usize = runs.iter().map(|run| usize::from(run.count)).sum();
    let overflows = runs
        .iter()
        .any(|run| run.first.checked_add(u64::from(run.count)).is_none());
    if count > ROWS_MAX || overflows {
        return Err(FrameError::Contradiction("more rows than a screen has"));
    }
    Ok(Order { stamp, runs })
}

fn read_modes(stamp: u64, modes: Modes) -> Result<(u64, Modes), FrameError> {
    if modes.is_known() {
        Ok((stamp, modes))
    } else {
        Err(FrameError::Contradiction("an unknown mode"))
    }
}

fn read_title(stamp: u64, title: String) -> Result<(u64, String), FrameError> {
    if inert_text(&title, SCREEN_TITLE_BYTES_MAX) == title {
        Ok((stamp, title))
    } else {
        Err(FrameError::Contradiction(
            "a title that is long or not inert",
        ))
    }
}

impl WireRow {
    fn of(row: &RowPatch, age: u64, styles: &mut StyleTable) -> Self {
        let (wrapped, patch) = match &row.patch {
            Patch::Whole(line) => (
                line.wrapped(),
                WirePatch::Whole(runs_of(line.cells(), styles)),
            ),
            Patch::Span(Span {
                column,
                cells,
                erase,
                wrapped,
            }) => {
                let runs = runs_of(cells, styles);
                (
                    *wrapped,
                    WirePatch::Span {
                        column: *column,
                        erase: *erase,
                        runs,
                    },
                )
            }
        };
        Self {
            position: row.position,
            age,
            wrapped,
            patch,
        }
    }

    fn into_patch(
        self,
        styles: &[Style],
        stamp: impl Fn(u64) -> Result<u64, FrameError>,
    ) -> Result<RowPatch, FrameError> {
        let wrapped = self.wrapped;
        let patch = match self.patch {
            WirePatch::Whole(runs) => {
                let cells = cells_of(runs, styles)?;
                Patch::Whole(Arc::new(Line::checked(cells, wrapped, SCREEN_COLS_MAX)?))
            }
            WirePatch::Span {
                column,
                erase,
                runs,
            } => {
                let cells = cells_of(runs, styles)?;
                check_cells(&cells)?;
                Patch::Span(Span {
                    column,
                    cells,
                    erase,
                    wrapped,
                })
            }
        };
        Ok(RowPatch {
            position: self.position,
            stamp: stamp(self.age)?,
            patch,
        })
    }
}

/// The one division of cells into runs that is canonical.
fn runs_of(cells: &[Cell], styles: &mut StyleTable) -> Runs {
    let mut runs: Vec<Run> = Vec::new();
    let mut rest = cells;
    while let Some((cell, after)) = rest.split_first() {
        let style = styles.id(cell.style);
        let same = rest.iter().take_while(|other| *other == cell).count();
        rest = after;
        match (&cell.glyph, runs.last_mut()) {
            (Glyph::Spacer, _) => {}
            (Glyph::Cluster(cluster), _) => {
                let Cluster { wide, text } = cluster.as_ref();
                runs.push(Run::Cluster {
                    style,
                    wide: *wide,
                    text: text.to_string(),
                });
            }
            (Glyph::Narrow(char), _) if same >= REPEAT_MIN => {
                let count = u16::try_from(same).unwrap_or(u16::MAX);
                runs.push(Run::Repeat {
                    style,
                    count,
                    char: *char,
                });
                rest = after.get(same.saturating_sub(1)..).unwrap_or_default();
            }
            (Glyph::Narrow(char), Some(Run::Narrow { style: last, text })) if *last == style => {
                text.push(*char);
            }
            (Glyph::Wide(char), Some(Run::Wide { style: last, text })) if *last == style => {
                text.push(*char);
            }
            (Glyph::Narrow(char), _) => runs.push(Run::Narrow {
                style,
                text: char.to_string(),
            }),
            (Glyph::Wide(char), _) => runs.push(Run::Wide {
                style,
                text: char.to_string(),
            }),
        }
    }
    Bounded(runs)
}

/// The cells of runs, no more than the widest row has.
fn cells_of(runs: Runs, styles: &[Style]) -> Result<Vec<Cell>, FrameError> {
    let mut cells = Vec::new();
    for run in runs.0 {
        let (Run::Narrow { style, .. }
        | Run::Repeat { style, .. }
        | Run::Wide { style, .. }
        | Run::Cluster { style, .. }) = &run;
        let style = read_style(*style, styles)?;
        let columns = match &run {
            Run::Narrow { text, .. } => text.chars().count(),
            Run::Repeat { count, .. } => usize::from(*count),
            Run::Wide { text, .. } => text.chars().count().saturating_mul(2),
            Run::Cluster { wide, .. } => 1 + usize::from(*wide),
        };
        if cells.len().saturating_add(columns) > COLS_MAX {
            return Err(LineError::TooWide.into());
        }
        push_run(&mut cells, run, style);
    }
    Ok(cells)
}

fn read_style(id: u32, styles: &[Style]) -> Result<Style, FrameError> {
    match id.checked_sub(1) {
        None => Ok(Style::default()),
        Some(index) => usize::try_from(index)
            .ok()
            .and_then(|index| styles.get(index).copied())
            .ok_or(FrameError::Contradiction(
                "a style that is not in the table",
            )),
    }
}

fn push_run(cells: &mut Vec<Cell>, run: Run, style: Style) {
    let spacer = Cell {
        glyph: Glyph::Spacer,
        style,
    };
    let narrow = |char| Cell {
        glyph: Glyph::Narrow(char),
        style,
    };
    match run {
        Run::Narrow { text, .. } => cells.extend(text.chars().map(narrow)),
        Run::Repeat { count, char, .. } => {
            cells.extend(std::iter::repeat_n(narrow(char), usize::from(count)));
        }
        Run::Wide { text, .. } => {
            let head = |char| Cell {
                glyph: Glyph::Wide(char),
                style,
            };
            cells.extend(text.chars().flat_map(|char| [head(char), spacer.clone()]));
        }
        Run::Cluster { wide, text, .. } => {
            let glyph = Glyph::Cluster(Arc::new(Cluster {
                wide,
                text: text.into(),
            }));
            cells.push(Cell { glyph, style });
            cells.extend(wide.then_some(spacer));
        }
    }
}

/// A list that is refused, while it is read, as soon as it is longer than `MAX`.
#[derive(Debug)]
struct Bounded<T, const MAX: usize>(Vec<T>);

impl<T, const MAX: usize> From<Vec<T>> for Bounded<T, MAX> {
    fn from(list: Vec<T>) -> Self {
        Self(list)
    }
}

impl<T: Serialize, const MAX: usize> Serialize for Bounded<T, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Bounded<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        bounded::list::<_, _, MAX>(deserializer).map(Self)
    }
}

/// What the host of a terminal signs for every version that it emits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScreenStamp {
    /// The session in which the terminal is shared.
    pub session: SessionId,
    /// The terminal.
    pub terminal: TerminalId,
    /// The epoch whose readers may see the screen.
    pub membership_epoch: Hash,
    /// [`Screen::epoch`].
    pub screen_epoch: u32,
    /// [`Screen::version`].
    pub version: u64,
    /// [`Screen::digest`].
    pub digest: Hash,
}

impl ScreenStamp {
    /// The stamp of a screen.
    pub fn of(
        session: SessionId,
        terminal: TerminalId,
        membership_epoch: Hash,
        screen: &Redacted<Screen>,
    ) -> Self {
        Self {
            session,
            terminal,
            membership_epoch,
            screen_epoch: screen.epoch,
            version: screen.version,
            digest: screen.digest(),
        }
    }

    /// Whether it is about this very screen.
    pub fn is_of(&self, screen: &Screen) -> bool {
        (self.screen_epoch, self.version) == (screen.epoch, screen.version)
            && self.digest == screen.digest()
    }

    /// The bytes under the signature: the domain, then each field at its fixed length, numbers little-endian.
    pub fn signing_bytes(&self) -> Vec<u8> {
        [
            b"collab-p2p screen stamp v1\0".as_slice(),
            self.session.as_bytes(),
            self.terminal.as_bytes(),
            self.membership_epoch.as_bytes(),
            &self.screen_epoch.to_le_bytes(),
            &self.version.to_le_bytes(),
            self.digest.as_bytes(),
        ]
        .concat()
    }
}

/// A frame on its way, with the host's word for what it makes.
#[derive(Clone, PartialEq, Eq)]
pub struct ScreenUpdate {
    /// What the frame makes.
    pub stamp: ScreenStamp,
    /// The host's ed25519 signature over [`ScreenStamp::signing_bytes`].
    pub signature: [u8; 64],
    /// An encoded [`Frame`].
    pub frame: Vec<u8>,
}

impl ScreenUpdate {
    /// The bytes on the wire: stamp, signature, and the frame up to the end.
    pub fn encode(&self) -> Vec<u8> {
        // A stamp holds nothing that postcard refuses, so there is no error to report.
        let stamp = postcard::to_stdvec(&self.stamp).unwrap_or_default();
        [stamp.as_slice(), &self.signature, &self.frame].concat()
    }

    /// Reads what [`ScreenUpdate::encode`] made. The signature is not checked, nor is the frame decoded.
    ///
    /// # Errors
    /// [`FrameError`] if it is cut short, too long or not canonical.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let (stamp, rest) =
            postcard::take_from_bytes::<ScreenStamp>(bytes).map_err(|_| FrameError::Malformed)?;
        let (signature, frame) = rest
            .split_first_chunk::<64>()
            .ok_or(FrameError::Malformed)?;
        if frame.len() > FRAME_BYTES_MAX.saturating_add(1) {
            return Err(FrameError::TooLong(frame.len()));
        }
        let update = Self {
            stamp,
            signature: *signature,
            frame: frame.to_vec(),
        };
        if update.encode() == bytes {
            Ok(update)
        } else {
            Err(FrameError::NotCanonical)
        }
    }
}

impl fmt::Debug for ScreenUpdate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ScreenUpdate({:?}, {} bytes)",
            self.stamp,
            self.frame.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::limits::BELL_INTERVAL;
    use crate::engine::terminal::cell::{Attrs, Color, Underline};
    use crate::engine::terminal::emulator::{RawRow, RawScreen};
    use crate::engine::terminal::redaction::Redactor;
    use crate::engine::terminal::screen::tests::{picture, raw_row};
    use crate::engine::terminal::screen::{CursorShape, ScreenHost};
    use crate::engine::time::Mono;

    type Version = Redacted<Screen>;

    fn version(host: &mut ScreenHost, raw: RawScreen) -> Version {
        host.advance(Redactor::none().redact(raw));
        host.current().unwrap().clone()
    }

    fn delivered(frame: &Frame, held: Option<&Version>) -> Version {
        let frame = Frame::decode(&frame.encode()).unwrap();
        let mut held = held.cloned();
        frame.apply(&mut held).unwrap();
        held.unwrap()
    }

    fn since(base: &Version, screen: &Version) -> Frame {
        Frame::between(Some((base.epoch, base.version)), screen).unwrap()
    }

    #[test]
    fn a_keyframe_makes_the_whole_screen_and_its_digest() {
        let screen = version(&mut ScreenHost::new(), picture(&["hello", "", "world"]));

        let got = delivered(&Frame::between(None, &screen).unwrap(), None);

        assert_eq!(got, screen);
        assert_eq!(got.digest(), screen.digest());
    }

    #[test]
    fn there_is_no_frame_for_who_has_the_newest_version() {
        let screen = version(&mut ScreenHost::new(), picture(&["a", "b"]));

        assert_eq!(
            Frame::between(Some((screen.epoch, screen.version)), &screen),
            None
        );
        assert_eq!(Frame::step(&screen, &screen), None);
    }

    #[test]
    fn a_typed_character_takes_few_bytes() {
        let mut host = ScreenHost::new();
        let text = "x".repeat(18);
        let before = version(&mut host, picture(&["$", &text, ""]));
        let after = version(&mut host, picture(&["$", &format!("{text}y"), ""]));

        let frame = Frame::step(&before, &after).unwrap();

        assert!(frame.encode().len() <= 30, "{} bytes", frame.encode().len());
        assert_eq!(delivered(&frame, Some(&before)), after);
    }

    #[test]
    fn a_bell_alone_takes_few_bytes_and_arrives_by_every_kind_of_frame() {
        let mut host = ScreenHost::new();
        let before = version(&mut host, picture(&["$ make", ""]));
        host.ring(Mono(0));
        let after = version(&mut host, picture(&["$ make", ""]));

        let step = Frame::step(&before, &after).unwrap();

        assert!(step.encode().len() <= 20, "{} bytes", step.encode().len());
        let whole = Frame::between(None, &after).unwrap();
        for (frame, held) in [
            (step, Some(&before)),
            (since(&before, &after), Some(&before)),
            (whole, None),
        ] {
            let got = delivered(&frame, held);
            assert_eq!((got.bells, got.digest()), (1, after.digest()));
        }
    }

    #[test]
    fn a_bell_that_the_host_did_not_ring_does_not_bear_its_word() {
        let screen = version(&mut ScreenHost::new(), picture(&["a", "b"]));
        let (session, terminal) = (SessionId([1; 32]), TerminalId([2; 16]));
        let stamp = ScreenStamp::of(session, terminal, Hash([3; 32]), &screen);
        let mut forged = Frame::between(None, &screen).unwrap();
        forged.bells = 1;

        let got = delivered(&forged, None);

        assert!(stamp.is_of(&screen) && !stamp.is_of(&got));
    }

    #[test]
    fn scrolling_sends_only_the_rows_that_enter() {
        let mut host = ScreenHost::new();
        let text = |from: usize| -> Vec<String> {
            (from..from + 40)
                .map(|n| format!("{n} {}", "lorem ipsum"[n % 9..].repeat(2)))
                .collect()
        };
        let show =
            |lines: Vec<String>| picture(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        let before = version(&mut host, show(text(0)));
        let after = version(&mut host, show(text(1)));

        let frame = since(&before, &after);

        assert_eq!(frame.rows.len(), 1);
        assert!(frame.encode().len() < 70, "{} bytes", frame.encode().len());
        assert_eq!(delivered(&frame, Some(&before)), after);
    }

    #[test]
    fn a_frame_is_refused_by_who_holds_another_version_and_changes_nothing() {
        let mut host = ScreenHost::new();
        let one = version(&mut host, picture(&["a", "b"]));
        let two = version(&mut host, picture(&["a", "c"]));
        let three = version(&mut host, picture(&["a", "d"]));
        let frame = since(&two, &three);

        for held in [None, Some(one), Some(three)] {
            let mut now = held.clone();
            assert!(matches!(
                frame.apply(&mut now),
                Err(FrameError::WrongBase { .. })
            ));
            assert_eq!(now, held);
        }
        let mut newer = Some(two);
        let old = Frame::between(None, host.previous().unwrap()).unwrap();
        assert!(
            matches!(old.apply(&mut newer), Err(FrameError::WrongBase { .. })),
            "never back"
        );
    }

    /// One random change of a picture.
    #[derive(Debug, Clone)]
    enum Edit {
        Type {
            row: usize,
            column: usize,
            cells: Vec<Cell>,
        },
        Scroll {
            top: usize,
            bottom: usize,
            by: usize,
            down: bool,
        },
        Clear {
            row: usize,
        },
        Resize {
            cols: u16,
            rows: usize,
        },
        Look {
            cursor: Cursor,
            modes: Modes,
            title: String,
        },
        Ring,
        Reset,
    }

    impl Edit {
        fn make(self, raw: &mut RawScreen) {
            let height = raw.rows.len();
            match self {
                Self::Type { row, column, cells } => {
                    let row = &mut raw.rows[row % height].cells;
                    let column = column % usize::from(raw.cols);
                    row.resize(row.len().max(column + cells.len()), Cell::BLANK);
                    row.splice(column..column + cells.len(), cells);
                    row.truncate(usize::from(raw.cols));
                }
                Self::Scroll {
                    top,
                    bottom,
                    by,
                    down,
                } => {
                    let (top, bottom) = (top % height, bottom % height);
                    let region = &mut raw.rows[top.min(bottom)..=top.max(bottom)];
                    let by = by % (region.len() + 1);
                    if down {
                        region.rotate_right(by);
                    } else {
                        region.rotate_left(by);
                    }
                    let length = region.len();
                    let entering = if down {
                        &mut region[..by]
                    } else {
                        &mut region[length - by..]
                    };
                    entering.fill(raw_row("entered"));
                }
                Self::Clear { row } => raw.rows[row % height] = RawRow::default(),
                Self::Resize { cols, rows } => {
                    raw.cols = cols;
                    raw.rows.resize(
                        rows,
                        RawRow {
                            cells: vec![],
                            wrapped: true,
                        },
                    );
                }
                Self::Look {
                    cursor,
                    modes,
                    title,
                } => {
                    (raw.cursor, raw.modes, raw.title) = (cursor, modes, title);
                }
                Self::Ring => {}
                Self::Reset => raw.generation += 1,
            }
        }
    }

    fn any_style() -> impl Strategy<Value = Style> {
        let color = || {
            prop_oneof![
                Just(Color::Default),
                any::<u8>().prop_map(Color::Palette),
                any::<(u8, u8, u8)>().prop_map(|(r, g, b)| Color::Rgb(r, g, b)),
            ]
        };
        let plain = Just(Style::default());
        let any =
            (color(), color(), any::<(bool, bool)>()).prop_map(|(fg, bg, (bold, wavy))| Style {
                fg,
                bg,
                attrs: Attrs::default().with(Attrs::BOLD, bold),
                underline: if wavy {
                    Underline::Curly
                } else {
                    Underline::None
                },
                underline_color: bg,
            });
        prop_oneof![3 => plain, 1 => any]
    }

    fn any_cells() -> impl Strategy<Value = Vec<Cell>> {
        let cell = (
            prop::sample::select(&["a", "b", " ", "é", "e\u{301}", "漢", "👩\u{200d}"][..]),
            any_style(),
        );
        let cells = prop::collection::vec(cell, 0..12).prop_map(|glyphs| {
            let cells = glyphs.into_iter().flat_map(|(text, style)| {
                let mut chars = text.chars();
                let base = chars.next().unwrap();
                let wide = "漢👩".contains(base);
                let head = Cell::new(base, &chars.collect::<Vec<_>>(), wide, style);
                std::iter::once(head).chain(wide.then_some(Cell {
                    glyph: Glyph::Spacer,
                    style,
                }))
            });
            cells.collect()
        });
        let repeated =
            (any_style(), 0_usize..30).prop_map(|(style, n)| vec![Cell::space(style); n]);
        prop_oneof![3 => cells, 1 => repeated]
    }

    fn any_edit() -> impl Strategy<Value = Edit> {
        let shape = prop::sample::select(&[CursorShape::Block, CursorShape::Bar][..]);
        let cursor = (0_u16..40, 0_u16..30, shape, any::<(bool, bool)>()).prop_map(
            |(x, y, shape, (blinking, visible))| Cursor {
                x,
                y,
                shape,
                blinking,
                visible,
            },
        );
        let modes = prop::sample::select(vec![Modes::default(), Modes::ALT_SCREEN, Modes::FOCUS]);
        prop_oneof![
            6 => (0_usize..30, 0_usize..40, any_cells())
                .prop_map(|(row, column, cells)| Edit::Type { row, column, cells }),
            4 => (0_usize..30, 0_usize..30, 0_usize..30, any::<bool>())
                .prop_map(|(top, bottom, by, down)| Edit::Scroll { top, bottom, by, down }),
            1 => (0_usize..30).prop_map(|row| Edit::Clear { row }),
            1 => (10_u16..40, 2_usize..30).prop_map(|(cols, rows)| Edit::Resize { cols, rows }),
            1 => (cursor, modes, "[a-z\u{1b}é]{0,12}")
                .prop_map(|(cursor, modes, title)| Edit::Look { cursor, modes, title }),
            2 => Just(Edit::Ring),
            1 => Just(Edit::Reset),
        ]
    }

    fn versions(edits: Vec<Edit>) -> Vec<Version> {
        let mut raw = picture(&["one", "two", "three", "four", "five", "six"]);
        let mut host = ScreenHost::new();
        let mut versions = vec![version(&mut host, raw.clone())];
        for (edit, second) in edits.into_iter().zip(1_u32..) {
            if matches!(edit, Edit::Ring) {
                host.ring(Mono(0) + BELL_INTERVAL * second);
            }
            edit.make(&mut raw);
            if host.advance(Redactor::none().redact(raw.clone())) {
                versions.push(host.current().unwrap().clone());
            }
        }
        versions
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn from_any_older_version_the_difference_makes_the_newer_one(
            edits in prop::collection::vec(any_edit(), 1..14))
        {
            let versions = versions(edits);
            let newest = versions.last().unwrap();

            prop_assert_eq!(&delivered(&Frame::between(None, newest).unwrap(), None), newest);
            for (older, newer) in versions.iter().zip(&versions[1..]) {
                for frame in [Frame::step(older, newer), Frame::step(older, newest)] {
                    let frame = frame.unwrap();
                    let target = if frame.version() == newer.version { newer } else { newest };
                    prop_assert_eq!(&delivered(&frame, Some(older)), target);
                }
                let got = delivered(&since(older, newest), Some(older));
                prop_assert_eq!(&got, newest);
                prop_assert_eq!(got.digest(), newest.digest());
            }
        }

        #[test]
        fn identities_are_unique_and_stamps_within_the_version(
            edits in prop::collection::vec(any_edit(), 1..14))
        {
            for screen in versions(edits) {
                let ids: std::collections::BTreeSet<_> = screen.rows.iter().map(|row| row.id).collect();
                prop_assert_eq!(ids.len(), screen.rows.len());
                prop_assert!(screen.rows.iter().all(|row| (1..=screen.version).contains(&row.stamp)));
            }
        }

        #[test]
        fn a_mutated_frame_is_refused_or_makes_another_digest(
            edits in prop::collection::vec(any_edit(), 1..6),
            place in any::<prop::sample::Index>(),
            byte in any::<u8>())
        {
            let versions = versions(edits);
            let newest = versions.last().unwrap();
            for base in [None, versions.first()] {
                let base_id = base.map(|base| (base.epoch, base.version));
                let Some(frame) = Frame::between(base_id, newest) else { continue };
                let mut bytes = [&[PLAIN], frame.plain_bytes().as_slice()].concat();
                let place = place.index(bytes.len());
                let same = bytes[place] == byte;
                bytes[place] = byte;

                let mut held = base.cloned();
                let outcome = Frame::decode(&bytes).and_then(|frame| frame.apply(&mut held));

                if outcome.is_ok() && !same {
                    prop_assert_ne!(held.unwrap().digest(), newest.digest());
                }
            }
        }

        #[test]
        fn noise_is_refused(tag in 0_u8..3, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes = [&[tag], bytes.as_slice()].concat();
            if let Ok(frame) = Frame::decode(&bytes) {
                let outcome = frame.apply(&mut None);
                prop_assert!(outcome.is_err() || frame.encode() == bytes);
            }
        }
    }

    #[test]
    fn every_truncated_frame_is_refused() {
        let screen = version(&mut ScreenHost::new(), picture(&["hello", "漢", "world"]));
        let big: Vec<String> = (0..30).map(|n| format!("line {n} of many")).collect();
        let big = picture(&big.iter().map(String::as_str).collect::<Vec<_>>());
        let big = version(&mut ScreenHost::new(), big);
        for screen in [screen, big] {
            let frame = Frame {
                bells: u32::MAX,
                ..Frame::between(None, &screen).unwrap()
            };
            let bytes = frame.encode();

            for length in 0..bytes.len() {
                assert!(
                    Frame::decode(&bytes[..length]).is_err(),
                    "{length} of {}",
                    bytes.len()
                );
            }
            assert!(
                Frame::decode(&[bytes.as_slice(), b"\0"].concat()).is_err(),
                "bytes after the end"
            );
        }
    }

    #[test]
    fn large_frames_are_compressed_and_small_ones_are_not() {
        let lines = vec!["the same text in each"; 100];
        let large = version(&mut ScreenHost::new(), picture(&lines));
        let small = version(&mut ScreenHost::new(), picture(&["a", "b"]));

        let large = Frame::between(None, &large).unwrap();

        assert_eq!(large.encode()[0], ZSTD);
        assert!(large.encode().len() * 4 < large.plain_bytes().len());
        assert_eq!(Frame::between(None, &small).unwrap().encode()[0], PLAIN);
    }

    #[test]
    fn the_largest_and_most_colourful_screen_fits_into_a_frame() {
        let marks: Vec<char> = "\u{301}".repeat(15).chars().collect();
        let cell = |number: usize| {
            let [_, red, green, blue] = u32::try_from(number).unwrap().to_be_bytes();
            let color = Color::Rgb(red, green, blue);
            let style = Style {
                fg: color,
                bg: color,
                underline_color: color,
                ..Style::default()
            };
            Cell::new('\u{1f468}', &marks, false, style)
        };
        let (cols, rows) = (usize::from(SCREEN_COLS_MAX), usize::from(SCREEN_ROWS_MAX));
        let row = |row| RawRow {
            cells: (0..cols).map(|col| cell(row * cols + col)).collect(),
            wrapped: true,
        };
        let raw = RawScreen {
            cols: SCREEN_COLS_MAX,
            rows: (0..rows).map(row).collect(),
            ..RawScreen::default()
        };
        let screen = version(&mut ScreenHost::new(), raw);

        let frame = Frame::between(None, &screen).unwrap();

        assert!(frame.plain_bytes().len() <= FRAME_BYTES_MAX);
        assert_eq!(delivered(&frame, None), screen);
    }

    #[test]
    fn a_bomb_is_refused_by_the_length_it_names() {
        let zeros = vec![0; FRAME_BYTES_MAX * 4];
        let body = zstd::bulk::compress(&zeros, 1).unwrap();
        let bomb = |length: usize| {
            let length = u32::try_from(length).unwrap().to_le_bytes();
            Frame::decode(&[&[ZSTD], length.as_slice(), &body].concat())
        };

        assert_eq!(bomb(zeros.len()), Err(FrameError::TooLong(zeros.len())));
        assert_eq!(bomb(1000), Err(FrameError::Compression));
        assert_eq!(
            Frame::decode(&vec![0; FRAME_BYTES_MAX + 2]),
            Err(FrameError::TooLong(FRAME_BYTES_MAX + 2))
        );
    }

    #[test]
    fn contradictions_are_refused() {
        let screen = version(&mut ScreenHost::new(), picture(&["a", "b", "c"]));
        let good = Frame::between(None, &screen).unwrap();
        let bad = |change: &dyn Fn(&mut Frame)| {
            let mut frame = good.clone();
            change(&mut frame);
            let frame = Frame::decode(&frame.encode())?;
            frame.apply(&mut None)
        };
        let order = |runs: Vec<(u64, u16)>| {
            move |frame: &mut Frame| {
                let runs = runs.iter().map(|(first, count)| OrderRun {
                    first: *first,
                    count: *count,
                });
                frame.order = Some(Order {
                    stamp: 1,
                    runs: runs.collect(),
                });
            }
        };

        assert_eq!(bad(&|_| {}), Ok(()));
        assert!(bad(&order(vec![(1, 2), (1, 1)])).is_err(), "a row twice");
        assert!(bad(&order(vec![(1, 2)])).is_err(), "too few rows");
        assert!(bad(&order(vec![(1, 4)])).is_err(), "too many rows");
        assert!(bad(&order(vec![(1, u16::MAX)])).is_err(), "a huge run");
        assert!(
            bad(&order(vec![(u64::MAX, 3)])).is_err(),
            "identities beyond the last"
        );
        assert!(
            bad(&|frame| frame.size = Some((u16::MAX, 3))).is_err(),
            "a huge size"
        );
        assert!(
            bad(&|frame| frame.size = Some((10, 3))).is_ok(),
            "lines still fit"
        );
        assert!(bad(&|frame| frame.size = None).is_err(), "no size");
        assert!(
            bad(&|frame| frame.cursor.x = 20).is_err(),
            "a cursor outside"
        );
        assert!(
            bad(&|frame| frame.rows[0].position = 9).is_err(),
            "a patch for no row"
        );
        assert!(
            bad(&|frame| frame.rows.swap(0, 1)).is_err(),
            "patches out of order"
        );
        assert!(
            bad(&|frame| drop(frame.rows.pop())).is_err(),
            "a row without content"
        );
        assert!(
            bad(&|frame| frame.rows[0].stamp = 0).is_err(),
            "a stamp before the first"
        );
        assert!(
            bad(&|frame| frame.title = Some((1, "\x1b".into()))).is_err(),
            "a title that is obeyed"
        );
        assert!(
            bad(&|frame| frame.title = Some((1, "a".repeat(257)))).is_err(),
            "a long title"
        );
        assert!(bad(&|frame| frame.version = 0).is_err(), "no version");
    }

    #[test]
    #[expect(
        clippy::too_many_lines,
        reason = "a table of cases reads best in one piece"
    )]
    fn text_that_a_terminal_obeys_is_refused_in_a_frame() {
        let wire = |run: Run| {
            let screen = version(&mut ScreenHost::new(), picture(&["a", "b"]));
            let mut wire = Wire::of(&Frame::between(None, &screen).unwrap());
            wire.rows.0[0].patch = WirePatch::Whole(Bounded(vec![run]));
            Frame::decode(&[&[PLAIN], postcard::to_stdvec(&wire).unwrap().as_slice()].concat())
        };
        let narrow = |text: &str| {
            wire(Run::Narrow {
                style: 0,
                text: text.into(),
            })
        };

        assert!(narrow("fine").is_ok());
        for hostile in [
            "\x1b[2J",
            "\u{9b}2J",
            "a\rb",
            "\u{202e}x",
            "\x7f",
            "\n",
            "\u{200b}",
        ] {
            assert_eq!(
                narrow(hostile),
                Err(FrameError::Line(LineError::Text)),
                "{hostile:?}"
            );
            let wide = wire(Run::Wide {
                style: 0,
                text: hostile.into(),
            });
            assert_eq!(wide, Err(FrameError::Line(LineError::Text)));
            let text = format!("a{hostile}");
            let cluster = wire(Run::Cluster {
                style: 0,
                wide: false,
                text: text.clone(),
            });
            assert!(
                cluster.is_err() || !text.chars().any(char::is_control),
                "{hostile:?}"
            );
        }
        assert_eq!(narrow(""), Err(FrameError::NotCanonical));
        assert_eq!(
            narrow(&"x".repeat(501)),
            Err(FrameError::Line(LineError::TooWide))
        );
        let repeat = |count| {
            wire(Run::Repeat {
                style: 0,
                count,
                char: 'x',
            })
        };
        assert!(repeat(8).is_ok());
        assert_eq!(
            repeat(2),
            Err(FrameError::NotCanonical),
            "short repeats are narrow runs"
        );
        assert_eq!(repeat(u16::MAX), Err(FrameError::Line(LineError::TooWide)));
        let foreign = wire(Run::Narrow {
            style: 1,
            text: "x".into(),
        });
        assert!(matches!(foreign, Err(FrameError::Contradiction(_))));
        let long = wire(Run::Cluster {
            style: 0,
            wide: false,
            text: "e".repeat(40),
        });
        assert_eq!(long, Err(FrameError::Line(LineError::Text)));
    }

    fn update() -> ScreenUpdate {
        let screen = version(&mut ScreenHost::new(), picture(&["a", "b"]));
        let stamp = ScreenStamp::of(
            SessionId([1; 32]),
            TerminalId([2; 16]),
            Hash([3; 32]),
            &screen,
        );
        let frame = Frame::between(None, &screen).unwrap().encode();
        ScreenUpdate {
            stamp,
            signature: [4; 64],
            frame,
        }
    }

    #[test]
    fn an_update_survives_the_wire_and_a_cut_one_is_refused() {
        let update = update();
        let bytes = update.encode();

        assert_eq!(ScreenUpdate::decode(&bytes), Ok(update.clone()));
        for length in 0..bytes.len() - update.frame.len() {
            assert!(ScreenUpdate::decode(&bytes[..length]).is_err());
        }
        let padded = [&bytes[..80], &[0x81, 0x00], &bytes[81..]].concat();
        assert_ne!(ScreenUpdate::decode(&padded), Ok(update));
    }

    #[test]
    fn each_field_of_a_stamp_is_under_the_signature() {
        let stamp = update().stamp;
        let signed: std::collections::BTreeSet<Vec<u8>> = [
            stamp,
            ScreenStamp {
                session: SessionId([9; 32]),
                ..stamp
            },
            ScreenStamp {
                terminal: TerminalId([9; 16]),
                ..stamp
            },
            ScreenStamp {
                membership_epoch: Hash([9; 32]),
                ..stamp
            },
            ScreenStamp {
                screen_epoch: 9,
                ..stamp
            },
            ScreenStamp {
                version: 9,
                ..stamp
            },
            ScreenStamp {
                digest: Hash([9; 32]),
                ..stamp
            },
        ]
        .iter()
        .map(ScreenStamp::signing_bytes)
        .collect();

        assert_eq!(signed.len(), 7);
        assert!(stamp.is_of(&version(&mut ScreenHost::new(), picture(&["a", "b"]))));
        assert!(!stamp.is_of(&version(&mut ScreenHost::new(), picture(&["a", "c"]))));
    }
}
