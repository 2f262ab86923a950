//! From cells to bytes for the local terminal: the screen and what stands over it become one picture of the
//! window's size, which the engine's painter turns into bytes. Beside what that painter makes only the modes of
//! arrow keys and keypad are written.

use std::sync::Arc;

use ratatui::buffer::{Buffer, Cell as DrawnCell};
use ratatui::style::{Color as DrawnColour, Modifier};
use unicode_width::UnicodeWidthStr;

use crate::engine::terminal::cell::{Attrs, Cell, Color, Glyph, Line, Style, Underline};
use crate::engine::terminal::painter::{Caps, Painter, Viewport};
use crate::engine::terminal::screen::{Cursor, CursorShape, Modes, Row, RowId, Screen, Stamps};
use crate::ui::layout::Size;

/// A window full of cells.
#[derive(Debug, Clone)]
pub(super) struct Canvas {
    size: Size,
    rows: Vec<CanvasRow>,
}

/// A row of the window: a whole line of the screen as it came, so that the painter knows it again, or cells.
#[derive(Debug, Clone)]
enum CanvasRow {
    Line(Arc<Line>),
    Cells(Vec<Cell>),
}

/// The cursor of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Caret {
    pub(super) x: u16,
    pub(super) y: u16,
    pub(super) shape: CursorShape,
    pub(super) blinking: bool,
}

/// All that the local terminal should show.
#[derive(Debug, Clone)]
pub(super) struct Picture {
    pub(super) canvas: Canvas,
    pub(super) caret: Option<Caret>,
    /// What the program asked of its terminal, as far as keys depend on it.
    pub(super) modes: Modes,
}

impl Canvas {
    pub(super) fn new(size: Size) -> Self {
        let blank = Arc::new(Line::cleaned(Vec::new(), false, size.cols));
        let rows = (0..size.rows).map(|_| CanvasRow::Line(Arc::clone(&blank)));
        Self {
            size,
            rows: rows.collect(),
        }
    }

    pub(super) fn size(&self) -> Size {
        self.size
    }

    /// Sets a whole row to a line that is no wider than the window.
    pub(super) fn put_line(&mut self, y: u16, line: &Arc<Line>) {
        if let Some(row) = self.rows.get_mut(usize::from(y)) {
            *row = CanvasRow::Line(Arc::clone(line));
        }
    }

    /// Sets a cell. Halves of wide characters that this cuts become blanks.
    pub(super) fn put(&mut self, x: u16, y: u16, cell: Cell) {
        if !cell.is_spacer() && self.cell(x, y).is_spacer() {
            self.blank(x.wrapping_sub(1), y);
        }
        if self.cell(x, y).is_wide() && !cell.is_wide() {
            self.blank(x.saturating_add(1), y);
        }
        let cut = cell.is_wide() && x.saturating_add(1) >= self.size.cols;
        let style = cell.style;
        self.set(x, y, if cut { Cell::space(style) } else { cell });
    }

    /// Sets cells as a pane has drawn them.
    pub(super) fn overlay(&mut self, drawn: &Buffer) {
        let area = *drawn.area();
        for y in area.top()..area.bottom() {
            let mut x = area.left();
            while let Some(cell) = drawn.cell((x, y)).filter(|_| x < area.right()) {
                let cell = of_drawn(cell);
                let (wide, style) = (cell.is_wide(), cell.style);
                self.put(x, y, cell);
                x = x.saturating_add(1);
                if wide {
                    self.put(
                        x,
                        y,
                        Cell {
                            glyph: Glyph::Spacer,
                            style,
                        },
                    );
                    x = x.saturating_add(1);
                }
            }
        }
    }

    /// What stands in a place.
    pub(super) fn cell(&self, x: u16, y: u16) -> &Cell {
        static BLANK: Cell = Cell::BLANK;
        let row = self.rows.get(usize::from(y)).filter(|_| x < self.size.cols);
        match row {
            Some(CanvasRow::Line(line)) => line.cell(usize::from(x)),
            Some(CanvasRow::Cells(cells)) => cells.get(usize::from(x)).unwrap_or(&BLANK),
            None => &BLANK,
        }
    }

    fn blank(&mut self, x: u16, y: u16) {
        let style = self.cell(x, y).style;
        self.set(x, y, Cell::space(style));
    }

    fn set(&mut self, x: u16, y: u16, cell: Cell) {
        let cols = usize::from(self.size.cols);
        let Some(row) = self.rows.get_mut(usize::from(y)) else {
            return;
        };
        if let CanvasRow::Line(line) = row {
            *row = CanvasRow::Cells((0..cols).map(|x| line.cell(x).clone()).collect());
        }
        if let CanvasRow::Cells(cells) = row
            && let Some(place) = cells.get_mut(usize::from(x))
        {
            *place = cell;
        }
    }

    /// The window as a screen of its own, for the painter.
    fn into_screen(self, caret: Option<Caret>, modes: Modes) -> Screen {
        let cols = self.size.cols;
        let line = |row| match row {
            CanvasRow::Line(line) => line,
            CanvasRow::Cells(cells) => Arc::new(Line::cleaned(cells, false, cols)),
        };
        let rows = (0..).zip(self.rows);
        Screen {
            epoch: 0,
            version: 0,
            cols,
            rows: rows
                .map(|(y, row)| Row {
                    id: RowId(y),
                    stamp: 0,
                    line: line(row),
                })
                .collect(),
            cursor: caret.map_or_else(Cursor::default, |caret| Cursor {
                x: caret.x,
                y: caret.y,
                shape: caret.shape,
                blinking: caret.blinking,
                visible: true,
            }),
            modes,
            title: String::new(),
            bells: 0,
            stamps: Stamps::default(),
        }
    }
}

fn of_drawn(drawn: &DrawnCell) -> Cell {
    let style = style_of_drawn(drawn);
    let mut characters = drawn.symbol().chars();
    let base = characters.next().unwrap_or(' ');
    let marks: Vec<char> = characters.collect();
    Cell::new(base, &marks, drawn.symbol().width() > 1, style)
}

fn style_of_drawn(drawn: &DrawnCell) -> Style {
    let on = |modifier| drawn.modifier.contains(modifier);
    let attrs = Attrs::default()
        .with(Attrs::BOLD, on(Modifier::BOLD))
        .with(Attrs::DIM, on(Modifier::DIM))
        .with(Attrs::ITALIC, on(Modifier::ITALIC))
        .with(Attrs::INVERSE, on(Modifier::REVERSED));
    let underline = if on(Modifier::UNDERLINED) {
        Underline::Single
    } else {
        Underline::None
    };
    let (fg, bg) = (of_drawn_colour(drawn.fg), of_drawn_colour(drawn.bg));
    Style {
        fg,
        bg,
        attrs,
        underline,
        underline_color: Color::Default,
    }
}

fn of_drawn_colour(colour: DrawnColour) -> Color {
    match colour {
        DrawnColour::Reset => Color::Default,
        DrawnColour::Black => Color::Palette(0),
        DrawnColour::Red => Color::Palette(1),
        DrawnColour::Green => Color::Palette(2),
        DrawnColour::Yellow => Color::Palette(3),
        DrawnColour::Blue => Color::Palette(4),
        DrawnColour::Magenta => Color::Palette(5),
        DrawnColour::Cyan => Color::Palette(6),
        DrawnColour::Gray => Color::Palette(7),
        DrawnColour::DarkGray => Color::Palette(8),
        DrawnColour::LightRed => Color::Palette(9),
        DrawnColour::LightGreen => Color::Palette(10),
        DrawnColour::LightYellow => Color::Palette(11),
        DrawnColour::LightBlue => Color::Palette(12),
        DrawnColour::LightMagenta => Color::Palette(13),
        DrawnColour::LightCyan => Color::Palette(14),
        DrawnColour::White => Color::Palette(15),
        DrawnColour::Indexed(index) => Color::Palette(index),
        DrawnColour::Rgb(red, green, blue) => Color::Rgb(red, green, blue),
    }
}

/// Paints pictures on the local terminal, from the one that stands there to the next.
#[derive(Debug)]
pub(super) struct Brush {
    painter: Painter,
    caps: Caps,
    modes: Option<Modes>,
}

impl Brush {
    pub(super) fn new(caps: Caps) -> Self {
        Self {
            painter: Painter::new(),
            caps,
            modes: None,
        }
    }

    /// The local terminal may show anything: the next picture is painted whole.
    pub(super) fn forget(&mut self) {
        self.painter.forget();
        self.modes = None;
    }

    /// The bytes that turn what is shown into `next`; none if it is shown already.
    pub(super) fn paint(&mut self, next: Picture) -> Vec<u8> {
        let Size { cols, rows } = next.canvas.size;
        let mut bytes = self.set_keys(next.modes);
        let screen = next.canvas.into_screen(next.caret, next.modes);
        bytes.extend(
            self.painter
                .paint(&screen, Viewport::new(cols, rows), self.caps),
        );
        bytes
    }

    /// The modes of arrow keys (`?1`) and keypad (`DECKPAM`, `DECKPNM`), where they change.
    fn set_keys(&mut self, next: Modes) -> Vec<u8> {
        let before = self.modes.replace(next);
        let mut bytes = Vec::new();
        for (mode, on, off) in [
            (Modes::APP_CURSOR, "\x1b[?1h", "\x1b[?1l"),
            (Modes::APP_KEYPAD, "\x1b=", "\x1b>"),
        ] {
            let wanted = next.contains(mode);
            if before.map(|before| before.contains(mode)) != Some(wanted) {
                bytes.extend_from_slice(if wanted { on } else { off }.as_bytes());
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use ratatui::layout::Rect;
    use ratatui::style::Style as DrawnStyle;

    use super::*;
    use crate::engine::terminal::painter::ColorDepth;

    const CAPS: Caps = Caps {
        colors: ColorDepth::TrueColor,
        underlines: true,
    };
    const SIZE: Size = Size { cols: 20, rows: 3 };

    fn canvas(rows: &[&str]) -> Canvas {
        let mut canvas = Canvas::new(SIZE);
        for (y, text) in (0_u16..).zip(rows) {
            let mut drawn = Buffer::empty(Rect::new(0, y, SIZE.cols, 1));
            drawn.set_string(0, y, text, DrawnStyle::new());
            canvas.overlay(&drawn);
        }
        canvas
    }

    fn picture(rows: &[&str]) -> Picture {
        Picture {
            canvas: canvas(rows),
            caret: None,
            modes: Modes::default(),
        }
    }

    fn text(canvas: &Canvas, y: u16) -> String {
        let mut text = String::new();
        (0..SIZE.cols).for_each(|x| canvas.cell(x, y).push_text(&mut text));
        text.trim_end().to_owned()
    }

    /// A second terminal as witness: what it shows after the bytes.
    fn witness(painted: &[Vec<u8>]) -> Vec<String> {
        let side = |length| std::num::NonZero::new(length).unwrap();
        let mut parser = vt100::Parser::new(side(SIZE.rows), side(SIZE.cols), 0);
        painted.iter().for_each(|bytes| parser.process(bytes));
        parser
            .screen()
            .rows(0, SIZE.cols)
            .map(|row| row.trim_end().to_owned())
            .collect()
    }

    #[test]
    fn a_terminal_shows_what_was_painted_whole_and_in_parts() {
        let mut brush = Brush::new(CAPS);
        let pictures = [
            ["one two three", "漢字 und text", "end"],
            ["one 2 three", "漢字 und mehr", ""],
            ["", "x漢y字z", "ééé"],
            ["a", "xx漢y", "é漢é"],
        ];

        let mut painted = Vec::new();
        for rows in pictures {
            painted.push(brush.paint(picture(&rows)));
            assert_eq!(witness(&painted), rows);
        }
    }

    #[test]
    fn what_is_shown_already_costs_nothing_and_a_letter_costs_little() {
        let mut brush = Brush::new(CAPS);
        assert!(!brush.paint(picture(&["hello"])).is_empty());

        assert_eq!(brush.paint(picture(&["hello"])), b"");

        let bytes = brush.paint(picture(&["hellos"]));
        assert!(bytes.len() < 60, "{:?}", String::from_utf8(bytes));
    }

    #[test]
    fn a_forgotten_picture_is_painted_whole() {
        let mut brush = Brush::new(CAPS);
        let first = brush.paint(picture(&["hello"]));
        brush.forget();
        assert_eq!(brush.paint(picture(&["hello"])), first);
    }

    #[test]
    fn half_a_wide_character_becomes_a_blank() {
        let mut canvas = canvas(&["漢字漢"]);
        canvas.put(1, 0, Cell::new('x', &[], false, Style::default()));
        canvas.put(2, 0, Cell::new('y', &[], false, Style::default()));
        assert_eq!(text(&canvas, 0), " xy 漢");

        canvas.put(
            SIZE.cols - 1,
            1,
            Cell::new('漢', &[], true, Style::default()),
        );
        assert_eq!(text(&canvas, 1), "");
    }

    #[test]
    fn arrow_keys_follow_the_program_on_the_shared_screen() {
        let mut brush = Brush::new(CAPS);
        brush.paint(picture(&["a"]));
        let vim = Picture {
            modes: Modes::APP_CURSOR,
            ..picture(&["a"])
        };

        let on = String::from_utf8(brush.paint(vim)).unwrap();
        let off = String::from_utf8(brush.paint(picture(&["a"]))).unwrap();

        assert!(on.contains("\x1b[?1h") && off.contains("\x1b[?1l"));
    }
}
