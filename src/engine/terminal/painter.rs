//! From a screen to something to look at: escape sequences for a terminal that shows it ([`Painter`]), plain
//! lines, styled lines, and the JSON of `screen --json`. Only these sequences are ever made: SGR, CUP, CHA, ECH,
//! the cursor's shape and visibility, synchronized update, and autowrap off while painting. Text of cells is
//! inert by construction ([`Line`]), so nothing that a host's program printed reaches a viewer's terminal as a
//! command. After whatever is not ASCII the column is named, so no width table but the host's matters.

use std::fmt::Write as _;
use std::sync::Arc;

use serde::Serialize;

use crate::engine::ids::TerminalId;
use crate::engine::terminal::cell::{Attrs, Cell, Color, Glyph, Line, Style, Underline};
use crate::engine::terminal::screen::{Cursor, CursorShape, Screen};

/// How many colours a terminal shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ColorDepth {
    /// None (`NO_COLOR`): attributes only.
    Mono,
    /// The sixteen of its theme.
    Ansi16,
    /// The palette of xterm.
    Palette256,
    /// 24 bits.
    TrueColor,
}

/// What the terminal to paint on can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Its colours; richer ones become the nearest it has.
    pub colors: ColorDepth,
    /// Whether it knows shapes and colours of underlines (`4:3`, `58`); others get a straight line.
    pub underlines: bool,
}

/// Which part of a screen is painted where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Viewport {
    /// Column of the terminal, from 0, where painting begins.
    pub x: u16,
    /// Row of the terminal, from 0.
    pub y: u16,
    /// Columns to paint; those beyond the screen become blank.
    pub cols: u16,
    /// Rows to paint.
    pub rows: u16,
    /// The screen's first painted column.
    pub left: u16,
    /// The screen's first painted row.
    pub top: u16,
}

impl Viewport {
    /// A viewport at the terminal's corner that shows the screen from its own corner.
    pub fn new(cols: u16, rows: u16) -> Self {
        Self {
            x: 0,
            y: 0,
            cols,
            rows,
            left: 0,
            top: 0,
        }
    }

    /// Moves as little as shows the cursor and no more blank than needed.
    #[must_use]
    pub fn following(self, screen: &Screen) -> Self {
        let Cursor { x, y, .. } = screen.cursor;
        Self {
            left: follow(self.left, self.cols, screen.cols, x),
            top: follow(self.top, self.rows, screen.height(), y),
            ..self
        }
    }

    /// Whether a part of the screen is outside.
    pub fn crops(&self, screen: &Screen) -> bool {
        self.cols < screen.cols || self.rows < screen.height()
    }
}

/// The start nearest to `start` from which `shown` of `length` places include `place`.
fn follow(start: u16, shown: u16, length: u16, place: u16) -> u16 {
    let last_start = length.saturating_sub(shown);
    let lowest = place.saturating_add(1).saturating_sub(shown);
    start.min(place).max(lowest).min(last_start)
}

/// Paints screens on one terminal and remembers what stands there.
#[derive(Debug, Default)]
pub struct Painter {
    painted: Option<Painted>,
}

#[derive(Debug)]
struct Painted {
    viewport: Viewport,
    caps: Caps,
    /// Nothing where the row is not known.
    rows: Vec<Option<Arc<Line>>>,
    cursor: Option<Cursor>,
}

impl Painter {
    /// Before the first paint: nothing is known of the terminal.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets what stands on the terminal, after something else wrote there or its size changed.
    pub fn forget(&mut self) {
        self.painted = None;
    }

    /// The bytes that bring the terminal's part within `viewport` from what was painted last to the screen;
    /// none if nothing differs. The cursor ends where the screen has it, hidden if it is outside.
    pub fn paint(&mut self, screen: &Screen, viewport: Viewport, caps: Caps) -> Vec<u8> {
        let known = self
            .painted
            .take()
            .filter(|last| (last.viewport, last.caps) == (viewport, caps));
        let (known, last_cursor) =
            known.map_or((Vec::new(), None), |last| (last.rows, last.cursor));
        let rows = rows_in(screen, viewport);
        let mut pen = Pen::new(viewport, caps);
        let known = known
            .iter()
            .map(Option::as_ref)
            .chain(std::iter::repeat(None));
        for (y, (line, known)) in (0..).zip(rows.iter().zip(known)) {
            if !known.is_some_and(|known| Arc::ptr_eq(known, line) || known == line) {
                pen.row(y, line, known.map(Arc::as_ref));
            }
        }
        let body = pen.out;
        let cursor = cursor_in(screen.cursor, viewport);
        let bytes = framed(&body, cursor, last_cursor, viewport);
        let rows = rows.into_iter().map(Some).collect();
        self.painted = Some(Painted {
            viewport,
            caps,
            rows,
            cursor: Some(cursor),
        });
        bytes.into_bytes()
    }
}

/// The screen's lines within the viewport, blank ones where the screen has ended.
fn rows_in(screen: &Screen, viewport: Viewport) -> Vec<Arc<Line>> {
    let blank = Arc::new(Line::cleaned(Vec::new(), false, screen.cols));
    screen
        .rows
        .iter()
        .skip(usize::from(viewport.top))
        .map(|row| Arc::clone(&row.line))
        .chain(std::iter::repeat(blank))
        .take(usize::from(viewport.rows))
        .collect()
}

/// The cursor in the viewport's own columns and rows, hidden if it is outside.
fn cursor_in(cursor: Cursor, viewport: Viewport) -> Cursor {
    let x = cursor
        .x
        .checked_sub(viewport.left)
        .filter(|x| *x < viewport.cols);
    let y = cursor
        .y
        .checked_sub(viewport.top)
        .filter(|y| *y < viewport.rows);
    match (x, y) {
        (Some(x), Some(y)) => Cursor { x, y, ..cursor },
        (Some(_) | None, Some(_) | None) => Cursor {
            x: 0,
            y: 0,
            visible: false,
            ..cursor
        },
    }
}

/// Puts what changes the cells between the begin and end of a synchronized update, and the cursor after it.
fn framed(body: &str, cursor: Cursor, last: Option<Cursor>, viewport: Viewport) -> String {
    if body.is_empty() && last == Some(cursor) {
        return String::new();
    }
    let mut out = String::with_capacity(body.len() + 64);
    out.push_str("\x1b[?2026h");
    if !body.is_empty() {
        out.push_str("\x1b[?25l\x1b[?7l");
        out.push_str(body);
        out.push_str("\x1b[0m\x1b[?7h");
    }
    let look = |cursor: Cursor| (cursor.shape, cursor.blinking);
    if last.map(look) != Some(look(cursor)) {
        push(&mut out, format_args!("\x1b[{} q", shape_number(cursor)));
    }
    move_to(&mut out, viewport, cursor.x, cursor.y);
    out.push_str(if cursor.visible {
        "\x1b[?25h"
    } else {
        "\x1b[?25l"
    });
    out.push_str("\x1b[?2026l");
    out
}

/// The number of DECSCUSR.
fn shape_number(cursor: Cursor) -> u8 {
    let steady = match cursor.shape {
        CursorShape::Block => 2,
        CursorShape::Underline => 4,
        CursorShape::Bar => 6,
    };
    steady - u8::from(cursor.blinking)
}

fn move_to(out: &mut String, viewport: Viewport, x: u16, y: u16) {
    let row = u32::from(viewport.y) + u32::from(y) + 1;
    let column = u32::from(viewport.x) + u32::from(x) + 1;
    push(out, format_args!("\x1b[{row};{column}H"));
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    out.write_fmt(text).unwrap_or_default();
}

/// Between two changed spans, equal cells up to this number are painted again: a jump costs about as much.
const GAP_MAX: usize = 6;

/// The selector of emoji form. Where the host counts one column it is left out: some terminals count two after it, and
/// whatever stood in the next column would wipe the character out.
const EMOJI_FORM: char = '\u{fe0f}';

/// Writes the changes of rows.
struct Pen {
    out: String,
    viewport: Viewport,
    caps: Caps,
    style: Option<Style>,
}

impl Pen {
    fn new(viewport: Viewport, caps: Caps) -> Self {
        Self {
            out: String::new(),
            viewport,
            caps,
            style: None,
        }
    }

    fn row(&mut self, y: u16, line: &Line, known: Option<&Line>) {
        let cells = cropped(line, self.viewport);
        let Some(known) = known.map(|known| cropped(known, self.viewport)) else {
            return self.span(y, 0, &cells);
        };
        let mut column = 0;
        while let Some((first, end)) = next_change(&cells, &known, column) {
            self.span(y, first, cells.get(first..end).unwrap_or_default());
            column = end;
        }
    }

    /// Paints cells from a column on. What is not ASCII is painted onto erased ground.
    fn span(&mut self, y: u16, first: usize, cells: &[Cell]) {
        let plain_end = cells
            .iter()
            .rposition(|cell| *cell != Cell::BLANK)
            .map_or(0, |last| last + 1);
        let blank_tail = cells.len().saturating_sub(plain_end);
        let x = u16::try_from(first).unwrap_or(u16::MAX);
        move_to(&mut self.out, self.viewport, x, y);
        let ascii = cells
            .iter()
            .all(|cell| matches!(cell.glyph, Glyph::Narrow(' '..='~')));
        if !ascii {
            self.erase(cells.len());
        }
        for (column, cell) in (first..).zip(cells.iter().take(plain_end)) {
            self.cell(column, cell);
        }
        if ascii && blank_tail > 0 {
            self.erase(blank_tail);
        }
    }

    fn erase(&mut self, count: usize) {
        self.set_style(Style::default());
        push(&mut self.out, format_args!("\x1b[{count}X"));
    }

    fn cell(&mut self, column: usize, cell: &Cell) {
        if cell.is_spacer() {
            return;
        }
        self.set_style(cell.style);
        match &cell.glyph {
            Glyph::Cluster(cluster) if !cluster.wide => {
                let painted = cluster.text.chars().filter(|mark| *mark != EMOJI_FORM);
                self.out.extend(painted);
            }
            Glyph::Cluster(_) | Glyph::Narrow(_) | Glyph::Wide(_) | Glyph::Spacer => {
                cell.push_text(&mut self.out);
            }
        }
        if !matches!(cell.glyph, Glyph::Narrow(' '..='~')) {
            let next = usize::from(self.viewport.x) + column + 2 + usize::from(cell.is_wide());
            push(&mut self.out, format_args!("\x1b[{next}G"));
        }
    }

    fn set_style(&mut self, style: Style) {
        if self.style != Some(style) {
            self.style = Some(style);
            push_sgr(&mut self.out, style, self.caps);
        }
    }
}

/// The viewport's columns of a line; halves of wide characters at its edges become blank.
fn cropped(line: &Line, viewport: Viewport) -> Vec<Cell> {
    let start = usize::from(viewport.left);
    let end = start + usize::from(viewport.cols);
    let mut cells: Vec<Cell> = (start..end)
        .map(|column| line.cell(column).clone())
        .collect();
    let blank = |cell: &mut Cell| *cell = Cell::space(cell.style);
    cells.first_mut().filter(|cell| cell.is_spacer()).map(blank);
    cells.last_mut().filter(|cell| cell.is_wide()).map(blank);
    cells
}

/// The next span of columns from `from` on in which the new cells differ, wide characters whole. Equal cells
/// after a change are included while another change is near, and one cell after what is not ASCII, since a
/// terminal may have drawn it wider than it is.
fn next_change(new: &[Cell], known: &[Cell], from: usize) -> Option<(usize, usize)> {
    let differs = |column: usize| new.get(column) != known.get(column);
    let half = |column: usize| {
        [new, known]
            .iter()
            .any(|cells| cells.get(column).is_some_and(Cell::is_spacer))
    };
    let odd = |column: usize| {
        let plain = |cell: &Cell| matches!(cell.glyph, Glyph::Narrow(' '..='~'));
        [new, known]
            .iter()
            .any(|cells| cells.get(column).is_some_and(|cell| !plain(cell)))
    };
    let mut first = (from..new.len()).find(|column| differs(*column))?;
    while first > from && (half(first) || odd(first.saturating_sub(1))) {
        first = first.saturating_sub(1);
    }
    let mut end = first + 1;
    let mut column = end;
    while column < new.len() && column <= end + GAP_MAX {
        if differs(column) || (column == end && (half(column) || odd(column.saturating_sub(1)))) {
            end = column + 1;
        }
        column += 1;
    }
    Some((first, end.min(new.len())))
}

/// A reset and what the style adds to it.
fn push_sgr(out: &mut String, style: Style, caps: Caps) {
    out.push_str("\x1b[0");
    let attrs = [
        (Attrs::BOLD, ";1"),
        (Attrs::DIM, ";2"),
        (Attrs::ITALIC, ";3"),
        (Attrs::INVERSE, ";7"),
        (Attrs::HIDDEN, ";8"),
        (Attrs::STRIKE, ";9"),
    ];
    let set = attrs
        .into_iter()
        .filter(|(attr, _)| style.attrs.contains(*attr));
    set.for_each(|(_, code)| out.push_str(code));
    push_underline(out, style, caps);
    push_color(out, style.fg, caps.colors, Ground::Front);
    push_color(out, style.bg, caps.colors, Ground::Back);
    out.push('m');
}

fn push_underline(out: &mut String, style: Style, caps: Caps) {
    let shape = match style.underline {
        Underline::None => return,
        Underline::Single => ";4",
        Underline::Double if caps.underlines => ";4:2",
        Underline::Curly if caps.underlines => ";4:3",
        Underline::Dotted if caps.underlines => ";4:4",
        Underline::Dashed if caps.underlines => ";4:5",
        Underline::Double | Underline::Curly | Underline::Dotted | Underline::Dashed => ";4",
    };
    out.push_str(shape);
    if caps.underlines && caps.colors >= ColorDepth::Palette256 {
        push_color(out, style.underline_color, caps.colors, Ground::Underline);
    }
}

#[derive(Clone, Copy)]
enum Ground {
    Front,
    Back,
    Underline,
}

fn push_color(out: &mut String, color: Color, depth: ColorDepth, ground: Ground) {
    let base = match ground {
        Ground::Front => 30,
        Ground::Back => 40,
        Ground::Underline => 50,
    };
    match (reduced(color, depth), ground) {
        (Color::Default, _) => {}
        (Color::Palette(index @ 0..=7), Ground::Front | Ground::Back) => {
            push(out, format_args!(";{}", base + index));
        }
        (Color::Palette(index @ 8..=15), Ground::Front | Ground::Back) => {
            push(out, format_args!(";{}", base + 52 + index));
        }
        (Color::Palette(index), _) => push(out, format_args!(";{};5;{index}", base + 8)),
        (Color::Rgb(red, green, blue), _) => {
            push(out, format_args!(";{};2;{red};{green};{blue}", base + 8));
        }
    }
}

/// The nearest colour that a terminal of that depth has.
pub fn reduced(color: Color, depth: ColorDepth) -> Color {
    match (color, depth) {
        (Color::Default, _) | (Color::Palette(_) | Color::Rgb(..), ColorDepth::Mono) => {
            Color::Default
        }
        (Color::Palette(16..), ColorDepth::Ansi16) | (Color::Rgb(..), ColorDepth::Ansi16) => {
            nearest(color, 0, 15)
        }
        (Color::Rgb(..), ColorDepth::Palette256) => nearest(color, 16, 255),
        (Color::Palette(_), _) | (Color::Rgb(..), ColorDepth::TrueColor) => color,
    }
}

fn nearest(color: Color, first: u8, last: u8) -> Color {
    let wanted = match color {
        Color::Default => return color,
        Color::Palette(index) => palette_rgb(index),
        Color::Rgb(red, green, blue) => (red, green, blue),
    };
    let best = (first..=last).min_by_key(|index| distance(palette_rgb(*index), wanted));
    best.map_or(Color::Default, Color::Palette)
}

fn distance(one: (u8, u8, u8), other: (u8, u8, u8)) -> u32 {
    let square = |a: u8, b: u8| u32::from(a.abs_diff(b)).pow(2);
    // Weights of the eye: green counts most, blue least.
    2 * square(one.0, other.0) + 4 * square(one.1, other.1) + square(one.2, other.2)
}

/// Red, green and blue of the palette of xterm: sixteen base colours, a cube of six levels, 24 greys.
pub fn palette_rgb(index: u8) -> (u8, u8, u8) {
    const DIM: u8 = 0x7f;
    const HALF: u8 = 0xcd;
    let level = |step: u8| if step == 0 { 0 } else { 55 + 40 * step };
    match index {
        7 => (0xe5, 0xe5, 0xe5),
        8 => (DIM, DIM, DIM),
        4 => (0, 0, 0xee),
        12 => (0x5c, 0x5c, 0xff),
        0..=15 => {
            let on = if index < 8 { HALF } else { 0xff };
            let bit = |mask: u8| if index & mask == 0 { 0 } else { on };
            (bit(1), bit(2), bit(4))
        }
        16..=231 => {
            let index = index - 16;
            (level(index / 36), level(index / 6 % 6), level(index % 6))
        }
        232..=255 => {
            let grey = 8 + 10 * (index - 232);
            (grey, grey, grey)
        }
    }
}

/// The visible rows as text: right-trimmed, second columns of wide characters left out, wrapped rows not joined.
pub fn plain_lines(screen: &Screen) -> Vec<String> {
    screen.rows.iter().map(|row| row.line.text()).collect()
}

/// The visible rows as text with SGR, each complete in itself: what `screen --ansi` prints.
pub fn ansi_lines(screen: &Screen, caps: Caps) -> Vec<String> {
    screen
        .rows
        .iter()
        .map(|row| ansi_line(&row.line, caps))
        .collect()
}

fn ansi_line(line: &Line, caps: Caps) -> String {
    let mut out = String::new();
    let mut style = Style::default();
    for cell in line.cells().iter().filter(|cell| !cell.is_spacer()) {
        if cell.style != style {
            style = cell.style;
            push_sgr(&mut out, style, caps);
        }
        cell.push_text(&mut out);
    }
    if style != Style::default() {
        out.push_str("\x1b[0m");
    }
    out
}

/// A screen as `screen --json` and the local API show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ScreenJson {
    /// The terminal's id in hexadecimal.
    pub terminal: TerminalId,
    /// [`Screen::epoch`].
    pub epoch: u32,
    /// [`Screen::version`].
    pub version: u64,
    /// Width in columns.
    pub cols: u16,
    /// Height in rows.
    pub rows: u16,
    /// The window title, or an empty text.
    pub title: String,
    /// The cursor.
    pub cursor: CursorJson,
    /// Names of the modes that are on.
    pub modes: Vec<&'static str>,
    /// For each row the pieces of one style, blank ends left out.
    pub lines: Vec<Vec<PieceJson>>,
}

/// The cursor of a [`ScreenJson`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CursorJson {
    /// Column, from 0.
    pub x: u16,
    /// Row, from 0.
    pub y: u16,
    /// `block`, `underline` or `bar`.
    pub shape: &'static str,
    /// Whether it is shown.
    pub visible: bool,
    /// Whether it blinks.
    pub blinking: bool,
}

/// Cells of one style in a row of a [`ScreenJson`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PieceJson {
    /// The first column, from 0.
    pub x: u16,
    /// Columns taken, which may be more than characters.
    pub w: u16,
    /// The text.
    pub text: String,
    /// Colour of the text.
    pub fg: ColorJson,
    /// Colour behind it.
    pub bg: ColorJson,
    /// Names of attributes and of the underline's shape.
    pub attrs: Vec<&'static str>,
    /// Colour of the underline, if it is not that of the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub underline: Option<ColorJson>,
}

/// A colour: null for the default, a number of the palette, or `#rrggbb`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ColorJson {
    /// The viewer's own.
    Default(()),
    /// An entry of the palette.
    Palette(u8),
    /// As `#rrggbb`.
    Rgb(String),
}

impl From<Color> for ColorJson {
    fn from(color: Color) -> Self {
        match color {
            Color::Default => Self::Default(()),
            Color::Palette(index) => Self::Palette(index),
            Color::Rgb(red, green, blue) => Self::Rgb(format!("#{red:02x}{green:02x}{blue:02x}")),
        }
    }
}

/// The screen of a terminal for scripts.
pub fn json(terminal: TerminalId, screen: &Screen) -> ScreenJson {
    let Cursor {
        x,
        y,
        shape,
        blinking,
        visible,
    } = screen.cursor;
    let shape = match shape {
        CursorShape::Block => "block",
        CursorShape::Underline => "underline",
        CursorShape::Bar => "bar",
    };
    ScreenJson {
        terminal,
        epoch: screen.epoch,
        version: screen.version,
        cols: screen.cols,
        rows: screen.height(),
        title: screen.title.clone(),
        cursor: CursorJson {
            x,
            y,
            shape,
            visible,
            blinking,
        },
        modes: screen.modes.names().collect(),
        lines: screen.rows.iter().map(|row| pieces(&row.line)).collect(),
    }
}

fn pieces(line: &Line) -> Vec<PieceJson> {
    let mut pieces = Vec::new();
    let mut x: u16 = 0;
    for cells in line
        .cells()
        .chunk_by(|left, right| left.style == right.style)
    {
        let w = u16::try_from(cells.len()).unwrap_or(u16::MAX);
        let style = cells.first().map_or_else(Style::default, |cell| cell.style);
        pieces.push(piece(x, w, cells, style));
        x = x.saturating_add(w);
    }
    pieces
}

fn piece(x: u16, w: u16, cells: &[Cell], style: Style) -> PieceJson {
    let mut text = String::new();
    cells.iter().for_each(|cell| cell.push_text(&mut text));
    let underline = match style.underline {
        Underline::None => None,
        Underline::Single => Some("underline"),
        Underline::Double => Some("double-underline"),
        Underline::Curly => Some("curly-underline"),
        Underline::Dotted => Some("dotted-underline"),
        Underline::Dashed => Some("dashed-underline"),
    };
    PieceJson {
        x,
        w,
        text,
        fg: style.fg.into(),
        bg: style.bg.into(),
        attrs: style.attrs.names().chain(underline).collect(),
        underline: (style.underline_color != Color::Default).then(|| style.underline_color.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use proptest::prelude::*;

    use super::*;
    use crate::engine::terminal::emulator::{RawRow, RawScreen};
    use crate::engine::terminal::screen::tests::{picture, show};
    use crate::engine::terminal::screen::{Modes, ScreenHost};

    const FULL: Caps = Caps {
        colors: ColorDepth::TrueColor,
        underlines: false,
    };

    fn screen(lines: &[&str]) -> Screen {
        show(
            &mut ScreenHost::new(),
            RawScreen {
                rows: rows(lines),
                ..picture(lines)
            },
        )
    }

    /// Rows of text in which `漢` and `字` are wide.
    fn rows(lines: &[&str]) -> Vec<RawRow> {
        let row = |line: &&str| RawRow {
            cells: cells(line, Style::default()),
            wrapped: false,
        };
        lines.iter().map(row).collect()
    }

    fn cells(text: &str, style: Style) -> Vec<Cell> {
        text.chars()
            .flat_map(|char| {
                let wide = "漢字".contains(char);
                let head = Cell::new(char, &[], wide, style);
                std::iter::once(head).chain(wide.then_some(Cell {
                    glyph: Glyph::Spacer,
                    style,
                }))
            })
            .collect()
    }

    fn witness(cols: u16, rows: u16) -> vt100::Parser {
        vt100::Parser::new(
            NonZeroU16::new(rows).unwrap(),
            NonZeroU16::new(cols).unwrap(),
            0,
        )
    }

    /// What the witness shows, row by row.
    fn shown(witness: &vt100::Parser, cols: u16) -> Vec<String> {
        let lines = witness.screen().rows(0, cols);
        lines.map(|line| line.trim_end().to_owned()).collect()
    }

    /// Whether the bytes are text and sequences of the allow-list only.
    fn is_within_the_allow_list(bytes: &[u8]) -> bool {
        let text = std::str::from_utf8(bytes).unwrap();
        let mut parts = text.split('\x1b');
        let inert = |text: &str| !text.chars().any(char::is_control);
        inert(parts.next().unwrap_or_default())
            && parts.all(|part| {
                let Some(sequence) = part.strip_prefix('[') else {
                    return false;
                };
                let end = sequence.find(|char: char| !"0123456789;:? ".contains(char));
                let Some(end) = end else { return false };
                let (parameters, rest) = sequence.split_at(end);
                let numbers = |marks: &str| {
                    parameters
                        .chars()
                        .all(|char| char.is_ascii_digit() || marks.contains(char))
                };
                let allowed = match rest.chars().next().unwrap() {
                    'm' => numbers(";:"),
                    'H' => numbers(";"),
                    'G' | 'X' => numbers(""),
                    'q' => parameters.ends_with(' ') && numbers(" "),
                    'h' => matches!(parameters, "?2026" | "?25" | "?7"),
                    'l' => matches!(parameters, "?2026" | "?25" | "?7"),
                    _ => false,
                };
                allowed && inert(rest)
            })
    }

    #[test]
    fn the_painted_terminal_shows_the_screen() {
        let screen = screen(&["hello", "", "a漢字b é", "漢字漢字漢字漢字漢字"]);
        let mut witness = witness(20, 4);

        let bytes = Painter::new().paint(&screen, Viewport::new(20, 4), FULL);
        witness.process(&bytes);

        assert!(is_within_the_allow_list(&bytes));
        assert_eq!(shown(&witness, 20), plain_lines(&screen));
    }

    #[test]
    fn only_differences_are_painted_and_none_if_there_are_none() {
        let mut host = ScreenHost::new();
        let mut painter = Painter::new();
        let first = show(
            &mut host,
            picture(&["first row", "second row", "third row"]),
        );
        painter.paint(&first, Viewport::new(20, 3), FULL);
        let second = show(
            &mut host,
            picture(&["first row", "second cow", "third row"]),
        );

        let bytes = painter.paint(&second, Viewport::new(20, 3), FULL);
        let text = String::from_utf8(bytes).unwrap();

        assert!(text.contains("\x1b[2;8H\x1b[0mc\x1b[0m"), "{text:?}");
        assert!(!text.contains("row"));
        assert_eq!(painter.paint(&second, Viewport::new(20, 3), FULL), b"");
        painter.forget();
        assert!(painter.paint(&second, Viewport::new(20, 3), FULL).len() > text.len());
    }

    #[test]
    fn the_cursor_alone_moves_without_painting_cells() {
        let mut host = ScreenHost::new();
        let mut painter = Painter::new();
        painter.paint(
            &show(&mut host, picture(&["a", "b"])),
            Viewport::new(20, 2),
            FULL,
        );
        let cursor = Cursor {
            x: 3,
            y: 1,
            shape: CursorShape::Bar,
            blinking: true,
            visible: true,
        };

        let raw = RawScreen {
            cursor,
            ..picture(&["a", "b"])
        };
        let bytes = painter.paint(&show(&mut host, raw), Viewport::new(20, 2), FULL);

        assert_eq!(bytes, b"\x1b[?2026h\x1b[5 q\x1b[2;4H\x1b[?25h\x1b[?2026l");
    }

    #[test]
    fn text_of_cells_never_becomes_a_command() {
        let hostile = "\x1b]0;x\x07\x1b[2J\u{9b}31m\u{90}q\u{202e}\x08\r\n\x7f\u{85}a\x0e";
        let screen = screen(&[hostile, hostile]);

        let bytes = Painter::new().paint(&screen, Viewport::new(20, 2), FULL);

        assert!(is_within_the_allow_list(&bytes));
        assert!(
            ansi_lines(&screen, FULL)
                .iter()
                .all(|line| !line.chars().any(char::is_control))
        );
    }

    #[test]
    fn the_emoji_form_of_a_character_of_one_column_is_not_painted() {
        let plain = Style::default();
        let cells = vec![
            Cell::new('⚠', &['\u{fe0f}', '\u{301}'], false, plain),
            Cell::new('x', &[], false, plain),
        ];
        let rows = vec![
            RawRow {
                cells,
                wrapped: false,
            },
            RawRow::default(),
        ];
        let raw = RawScreen {
            rows,
            ..picture(&["", ""])
        };
        let screen = show(&mut ScreenHost::new(), raw);

        let bytes = Painter::new().paint(&screen, Viewport::new(20, 2), FULL);

        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains("⚠\u{301}\x1b[2Gx"), "{text:?}");
    }

    #[test]
    fn after_whatever_is_not_ascii_the_column_is_named() {
        let screen = screen(&["ab漢é字c", ""]);
        let viewport = Viewport {
            x: 3,
            ..Viewport::new(20, 2)
        };

        let bytes = Painter::new().paint(&screen, viewport, FULL);

        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains("ab漢\x1b[8Gé\x1b[9G字\x1b[11Gc"), "{text:?}");
    }

    #[test]
    fn a_smaller_viewport_follows_the_cursor() {
        let lines: Vec<String> = (0..10).map(|n| format!("{n}123456789abcdefghij")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let cursor = Cursor {
            x: 15,
            y: 9,
            visible: true,
            ..Cursor::default()
        };
        let screen = show(
            &mut ScreenHost::new(),
            RawScreen {
                cursor,
                ..picture(&lines)
            },
        );
        let viewport = Viewport::new(8, 3).following(&screen);
        let mut witness = witness(8, 3);

        witness.process(&Painter::new().paint(&screen, viewport, FULL));

        assert_eq!((viewport.left, viewport.top), (8, 7));
        assert!(viewport.crops(&screen));
        assert_eq!(shown(&witness, 8), ["89abcdef", "89abcdef", "89abcdef"]);
        assert_eq!(witness.screen().cursor_position(), (2, 7));
        let stays = Viewport {
            left: 10,
            top: 7,
            ..viewport
        }
        .following(&screen);
        assert_eq!(
            (stays.left, stays.top),
            (10, 7),
            "no move while the cursor is inside"
        );
    }

    #[test]
    fn a_larger_viewport_is_blank_around_the_screen_and_its_place_is_kept() {
        let screen = screen(&["ab", "cd"]);
        let mut witness = witness(30, 6);
        witness.process("#".repeat(180).as_bytes());
        let viewport = Viewport {
            x: 3,
            y: 2,
            ..Viewport::new(22, 3)
        };

        witness.process(&Painter::new().paint(&screen, viewport, FULL));

        let shown = shown(&witness, 30);
        assert_eq!(shown[1], "#".repeat(30));
        assert_eq!(shown[2], format!("###ab{}#####", " ".repeat(20)));
        assert_eq!(shown[4], format!("###{}#####", " ".repeat(22)));
        assert_eq!(shown[5], "#".repeat(30));
    }

    #[test]
    fn wide_characters_cut_by_the_edge_are_blank() {
        let screen = screen(&["a漢b", "a漢b"]);
        let mut witness = witness(2, 2);

        let right = Painter::new().paint(&screen, Viewport::new(2, 2), FULL);
        let left = Viewport {
            left: 2,
            ..Viewport::new(2, 2)
        };
        witness.process(&right);
        assert_eq!(shown(&witness, 2), ["a", "a"]);
        witness.process(&Painter::new().paint(&screen, left, FULL));
        assert_eq!(shown(&witness, 2), [" b", " b"]);
    }

    #[test]
    fn styles_become_what_the_terminal_knows() {
        let style = Style {
            fg: Color::Rgb(255, 0, 10),
            bg: Color::Palette(9),
            attrs: Attrs::BOLD.with(Attrs::STRIKE, true),
            underline: Underline::Curly,
            underline_color: Color::Palette(200),
        };
        let raw = RawScreen {
            rows: vec![
                RawRow {
                    cells: cells("x", style),
                    wrapped: false,
                },
                RawRow::default(),
            ],
            ..picture(&["", ""])
        };
        let screen = show(&mut ScreenHost::new(), raw);
        let line = |colors, underlines| ansi_lines(&screen, Caps { colors, underlines })[0].clone();

        assert_eq!(
            line(ColorDepth::TrueColor, true),
            "\x1b[0;1;9;4:3;58;5;200;38;2;255;0;10;101mx\x1b[0m"
        );
        assert_eq!(
            line(ColorDepth::Palette256, false),
            "\x1b[0;1;9;4;38;5;196;101mx\x1b[0m"
        );
        assert_eq!(
            line(ColorDepth::Ansi16, false),
            "\x1b[0;1;9;4;91;101mx\x1b[0m"
        );
        assert_eq!(line(ColorDepth::Mono, false), "\x1b[0;1;9;4mx\x1b[0m");
    }

    #[test]
    fn the_palette_is_that_of_xterm() {
        assert_eq!(palette_rgb(1), (0xcd, 0, 0));
        assert_eq!(palette_rgb(11), (0xff, 0xff, 0));
        assert_eq!(palette_rgb(16), (0, 0, 0));
        assert_eq!(palette_rgb(231), (255, 255, 255));
        assert_eq!(palette_rgb(110), (135, 175, 215));
        assert_eq!(palette_rgb(255), (238, 238, 238));
        assert_eq!(
            reduced(Color::Rgb(135, 175, 215), ColorDepth::Palette256),
            Color::Palette(110)
        );
    }

    #[test]
    fn the_json_names_columns_and_styles() {
        let red = Style {
            fg: Color::Palette(1),
            underline: Underline::Single,
            ..Style::default()
        };
        let back = Style {
            bg: Color::Rgb(1, 2, 255),
            ..Style::default()
        };
        let all = [
            cells("a漢", Style::default()),
            cells("b", red),
            cells("  ", back),
        ]
        .concat();
        let raw = RawScreen {
            rows: vec![
                RawRow {
                    cells: all,
                    wrapped: false,
                },
                RawRow::default(),
            ],
            modes: Modes::ALT_SCREEN.with(Modes::FOCUS, true),
            title: "vim".into(),
            ..picture(&["", ""])
        };
        let screen = show(&mut ScreenHost::new(), raw);

        let json = serde_json::to_value(json(TerminalId([0xab; 16]), &screen)).unwrap();

        assert_eq!(
            json,
            serde_json::json!({
                "terminal": "ab".repeat(16), "epoch": 1, "version": 1, "cols": 20, "rows": 2,
                "title": "vim",
                "cursor": {"x": 0, "y": 0, "shape": "block", "visible": true, "blinking": false},
                "modes": ["alt-screen", "focus"],
                "lines": [[
                    {"x": 0, "w": 3, "text": "a漢", "fg": null, "bg": null, "attrs": []},
                    {"x": 3, "w": 1, "text": "b", "fg": 1, "bg": null, "attrs": ["underline"]},
                    {"x": 4, "w": 2, "text": "  ", "fg": null, "bg": "#0102ff", "attrs": []},
                ], []],
            })
        );
    }

    fn any_lines() -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec("[ab 漢字é]{0,14}", 5)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn painting_one_screen_over_another_shows_it_as_painting_anew_does(
            texts in prop::collection::vec(any_lines(), 2..5),
            (cols, height) in (4_u16..26, 2_u16..7),
            left in 0_u16..6)
        {
            let mut host = ScreenHost::new();
            let mut painter = Painter::new();
            let mut witness = witness(cols, height);
            let viewport = Viewport { left, ..Viewport::new(cols, height) };
            for lines in texts {
                let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
                let screen = show(&mut host, RawScreen { rows: rows(&lines), ..picture(&lines) });

                let bytes = painter.paint(&screen, viewport, FULL);
                witness.process(&bytes);
                let mut fresh = self::witness(cols, height);
                fresh.process(&Painter::new().paint(&screen, viewport, FULL));

                prop_assert!(is_within_the_allow_list(&bytes));
                prop_assert_eq!(shown(&witness, cols), shown(&fresh, cols));
                for (y, row) in (0..height).zip(&screen.rows) {
                    for (x, cell) in (0..cols).zip(cropped(&row.line, viewport)) {
                        let there = witness.screen().cell(y, x).unwrap();
                        let mut text = String::new();
                        cell.push_text(&mut text);
                        prop_assert_eq!(there.contents().trim(), text.trim());
                        prop_assert_eq!(there.is_wide_continuation(), cell.is_spacer());
                    }
                }
            }
        }
    }
}
