//! What a viewer may see of an `alacritty_terminal`: its grid as cells, its modes and cursor as the engine names them.

use alacritty_terminal::Term;
use alacritty_terminal::grid::Dimensions;
use alacritty_terminal::index::Line;
use alacritty_terminal::term::TermMode;
use alacritty_terminal::term::cell::{Cell as GridCell, Flags};
use alacritty_terminal::vte::ansi::{self, Color as AnsiColor, NamedColor, Rgb};

use crate::engine::limits::CELL_CLUSTER_BYTES_MAX;
use crate::engine::terminal::cell::{Attrs, Cell, Color, Glyph, Style, Underline};
use crate::engine::terminal::emulator::{RawRow, RawScreen};
use crate::engine::terminal::screen::{Cursor, CursorShape, Modes};

/// The visible screen of `term`, under the title that its program set.
pub(super) fn picture<L>(term: &Term<L>, title: &str) -> RawScreen {
    let grid = term.grid();
    let row = |line| {
        let row = &grid[Line(line)];
        let cells: Vec<Cell> = row.into_iter().map(cell).collect();
        let wrapped = row
            .into_iter()
            .last()
            .is_some_and(|cell| cell.flags.contains(Flags::WRAPLINE));
        RawRow { cells, wrapped }
    };
    RawScreen {
        cols: u16::try_from(grid.columns()).unwrap_or(u16::MAX),
        rows: (0_i32..).take(grid.screen_lines()).map(row).collect(),
        cursor: cursor(term),
        modes: modes(*term.mode()),
        title: title.to_owned(),
        generation: 0,
    }
}

fn cursor<L>(term: &Term<L>) -> Cursor {
    let point = term.grid().cursor.point;
    let style = term.cursor_style();
    let (shape, drawn) = match style.shape {
        ansi::CursorShape::Block | ansi::CursorShape::HollowBlock => (CursorShape::Block, true),
        ansi::CursorShape::Underline => (CursorShape::Underline, true),
        ansi::CursorShape::Beam => (CursorShape::Bar, true),
        ansi::CursorShape::Hidden => (CursorShape::Block, false),
    };
    Cursor {
        x: u16::try_from(point.column.0).unwrap_or(u16::MAX),
        y: u16::try_from(point.line.0).unwrap_or(0),
        shape,
        blinking: style.blinking,
        visible: drawn && term.mode().contains(TermMode::SHOW_CURSOR),
    }
}

fn cell(cell: &GridCell) -> Cell {
    let style = style(cell);
    if cell.flags.contains(Flags::WIDE_CHAR_SPACER) {
        return Cell {
            glyph: Glyph::Spacer,
            style,
        };
    }
    let wide = cell.flags.contains(Flags::WIDE_CHAR);
    let marks = cell.zerowidth().unwrap_or_default();
    Cell::new(
        cell.c,
        marks.get(..CELL_CLUSTER_BYTES_MAX).unwrap_or(marks),
        wide,
        style,
    )
}

fn style(cell: &GridCell) -> Style {
    let flags = cell.flags;
    let attrs = [
        (Flags::BOLD, Attrs::BOLD),
        (Flags::DIM, Attrs::DIM),
        (Flags::ITALIC, Attrs::ITALIC),
        (Flags::INVERSE, Attrs::INVERSE),
        (Flags::HIDDEN, Attrs::HIDDEN),
        (Flags::STRIKEOUT, Attrs::STRIKE),
    ];
    let underlines = [
        (Flags::UNDERCURL, Underline::Curly),
        (Flags::DOUBLE_UNDERLINE, Underline::Double),
        (Flags::DOTTED_UNDERLINE, Underline::Dotted),
        (Flags::DASHED_UNDERLINE, Underline::Dashed),
        (Flags::UNDERLINE, Underline::Single),
    ];
    let set = |(flag, attr): (Flags, Attrs)| (attr, flags.contains(flag));
    let underline = underlines
        .into_iter()
        .find(|(flag, _)| flags.contains(*flag));
    Style {
        fg: color(cell.fg),
        bg: color(cell.bg),
        attrs: attrs
            .map(set)
            .into_iter()
            .fold(Attrs::default(), |all, (attr, on)| all.with(attr, on)),
        underline: underline.map_or(Underline::None, |(_, shape)| shape),
        underline_color: cell.underline_color().map_or(Color::Default, color),
    }
}

fn color(color: AnsiColor) -> Color {
    match color {
        AnsiColor::Indexed(index) => Color::Palette(index),
        AnsiColor::Spec(Rgb { r, g, b }) => Color::Rgb(r, g, b),
        AnsiColor::Named(name) => named_color(name),
    }
}

fn named_color(name: NamedColor) -> Color {
    let dim = NamedColor::DimBlack as usize..=NamedColor::DimWhite as usize;
    match name as usize {
        index @ 0..=15 => Color::Palette(u8::try_from(index).unwrap_or_default()),
        index if dim.contains(&index) => {
            Color::Palette(u8::try_from(index - dim.start()).unwrap_or_default())
        }
        _ => Color::Default,
    }
}

fn modes(mode: TermMode) -> Modes {
    [
        (TermMode::ALT_SCREEN, Modes::ALT_SCREEN),
        (TermMode::BRACKETED_PASTE, Modes::BRACKETED_PASTE),
        (TermMode::APP_CURSOR, Modes::APP_CURSOR),
        (TermMode::APP_KEYPAD, Modes::APP_KEYPAD),
        (TermMode::MOUSE_REPORT_CLICK, Modes::MOUSE_CLICK),
        (TermMode::MOUSE_DRAG, Modes::MOUSE_DRAG),
        (TermMode::MOUSE_MOTION, Modes::MOUSE_MOTION),
        (TermMode::SGR_MOUSE, Modes::MOUSE_SGR),
        (TermMode::UTF8_MOUSE, Modes::MOUSE_UTF8),
        (TermMode::FOCUS_IN_OUT, Modes::FOCUS),
        (TermMode::ALTERNATE_SCROLL, Modes::ALTERNATE_SCROLL),
        (TermMode::LINE_FEED_NEW_LINE, Modes::NEWLINE),
    ]
    .into_iter()
    .fold(Modes::default(), |all, (theirs, ours)| {
        all.with(ours, mode.contains(theirs))
    })
}
