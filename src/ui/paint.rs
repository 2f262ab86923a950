//! From cells to bytes for the local terminal. Only what is on this list is ever written: text of clean cells,
//! places, SGR, erasing to the end of a row, the cursor's form and visibility, synchronized update, and the modes
//! of arrow keys and keypad. Every cell beyond ASCII is followed by an explicit column, so no width table of the
//! local terminal matters.

use std::fmt::Write as _;

use ratatui::buffer::{Buffer, Cell as DrawnCell};
use ratatui::style::{Color as DrawnColour, Modifier};
use unicode_width::UnicodeWidthStr;

use crate::engine::terminal::cell::{Attrs, Cell, Color, Glyph, Style, Underline};
use crate::engine::terminal::screen::{CursorShape, Modes};
use crate::ui::layout::Size;
use crate::ui::theme::Depth;

/// A window full of cells.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Canvas {
    size: Size,
    cells: Vec<Cell>,
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
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Picture {
    pub(super) canvas: Canvas,
    pub(super) caret: Option<Caret>,
    /// What the program asked of its terminal, as far as keys depend on it.
    pub(super) modes: Modes,
}

impl Canvas {
    pub(super) fn new(size: Size) -> Self {
        let count = usize::from(size.cols).saturating_mul(usize::from(size.rows));
        Self {
            size,
            cells: vec![Cell::BLANK; count],
        }
    }

    pub(super) fn size(&self) -> Size {
        self.size
    }

    /// Sets a cell. Halves of wide characters that this cuts become blanks.
    pub(super) fn put(&mut self, x: u16, y: u16, cell: Cell) {
        if x >= self.size.cols || y >= self.size.rows {
            return;
        }
        if !cell.is_spacer() && self.at(x, y).is_spacer() {
            self.blank(x.wrapping_sub(1), y);
        }
        if self.at(x, y).is_wide() && !cell.is_wide() {
            self.blank(x.saturating_add(1), y);
        }
        let wide_at_the_edge = cell.is_wide() && x.saturating_add(1) >= self.size.cols;
        let style = cell.style;
        self.set(
            x,
            y,
            if wide_at_the_edge {
                Cell::space(style)
            } else {
                cell
            },
        );
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

    /// What stands in a row, for tests and comparisons.
    pub(super) fn row(&self, y: u16) -> &[Cell] {
        let cols = usize::from(self.size.cols);
        let start = cols.saturating_mul(usize::from(y));
        self.cells
            .get(start..start.saturating_add(cols))
            .unwrap_or_default()
    }

    fn at(&self, x: u16, y: u16) -> &Cell {
        static BLANK: Cell = Cell::BLANK;
        self.row(y).get(usize::from(x)).unwrap_or(&BLANK)
    }

    fn blank(&mut self, x: u16, y: u16) {
        let style = self.at(x, y).style;
        self.set(x, y, Cell::space(style));
    }

    fn set(&mut self, x: u16, y: u16, cell: Cell) {
        let cols = usize::from(self.size.cols);
        let index = cols
            .saturating_mul(usize::from(y))
            .saturating_add(usize::from(x));
        if let Some(place) = self.cells.get_mut(index).filter(|_| x < self.size.cols) {
            *place = cell;
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

/// Knows what the local terminal shows and writes what turns it into the next picture.
#[derive(Debug)]
pub(super) struct Painter {
    depth: Depth,
    shown: Option<Picture>,
}

/// After a cell beyond ASCII so many further cells are written again: a local terminal that holds the character
/// for wider than it is has covered them.
const REPAIRED_CELLS: u16 = 2;

/// Blanks at the end of a row that are worth an erase.
const ERASED_CELLS_MIN: usize = 5;

impl Painter {
    pub(super) fn new(depth: Depth) -> Self {
        Self { depth, shown: None }
    }

    /// The local terminal may show anything: the next picture is painted whole.
    pub(super) fn forget(&mut self) {
        self.shown = None;
    }

    /// The bytes that turn what is shown into `next`; none if it is shown already.
    pub(super) fn paint(&mut self, next: Picture) -> Vec<u8> {
        if self.shown.as_ref() == Some(&next) {
            return Vec::new();
        }
        let before = self
            .shown
            .take()
            .filter(|shown| shown.canvas.size == next.canvas.size);
        let mut pen = Pen::new(self.depth);
        if before.is_none() {
            pen.text.push_str("\x1b[?7l\x1b[0m\x1b[2J");
        }
        for y in 0..next.canvas.size.rows {
            let known = before.as_ref().map(|shown| shown.canvas.row(y));
            pen.row(y, known, next.canvas.row(y));
        }
        pen.modes(before.as_ref().map(|shown| shown.modes), next.modes);
        pen.finish(before.as_ref().map(|shown| shown.caret), next.caret);
        self.shown = Some(next);
        pen.text.into_bytes()
    }
}

/// Where the writing stands.
#[derive(Debug)]
struct Pen {
    depth: Depth,
    text: String,
    /// Row and column where the local cursor surely is.
    place: Option<(u16, u16)>,
    style: Option<Style>,
}

impl Pen {
    fn new(depth: Depth) -> Self {
        Self {
            depth,
            text: "\x1b[?2026h\x1b[?25l".to_owned(),
            place: None,
            style: None,
        }
    }

    fn row(&mut self, y: u16, known: Option<&[Cell]>, row: &[Cell]) {
        let same = |x: usize| match known {
            Some(known) => known.get(x) == row.get(x),
            None => row.get(x) == Some(&Cell::BLANK),
        };
        let text_ends = row
            .iter()
            .rposition(|cell| *cell != Cell::BLANK)
            .map_or(0, |x| x.saturating_add(1));
        let mut repair = 0_u16;
        for (x, cell) in row.iter().enumerate() {
            let spacer_changed = cell.is_wide() && !same(x.saturating_add(1));
            if repair == 0 && same(x) && !spacer_changed {
                continue;
            }
            if x >= text_ends && row.len().saturating_sub(x) >= ERASED_CELLS_MIN {
                self.erase_rest(y, x);
                return;
            }
            repair = repair.saturating_sub(1);
            if !cell.is_spacer() {
                let ascii = self.cell(y, u16::try_from(x).unwrap_or(u16::MAX), cell);
                repair = if ascii {
                    repair
                } else {
                    REPAIRED_CELLS + u16::from(cell.is_wide())
                };
            }
        }
    }

    /// Writes a cell; whether it is ASCII.
    fn cell(&mut self, y: u16, x: u16, cell: &Cell) -> bool {
        self.go(y, x);
        self.set_style(cell.style);
        cell.push_text(&mut self.text);
        let ascii = matches!(cell.glyph, Glyph::Narrow(' '..='~'));
        self.place = ascii.then_some((y, x.saturating_add(1)));
        ascii
    }

    fn erase_rest(&mut self, y: u16, x: usize) {
        self.go(y, u16::try_from(x).unwrap_or(u16::MAX));
        self.set_style(Style::default());
        self.text.push_str("\x1b[K");
    }

    fn go(&mut self, y: u16, x: u16) {
        if self.place != Some((y, x)) {
            self.sequence(format_args!(
                "{};{}H",
                y.saturating_add(1),
                x.saturating_add(1)
            ));
            self.place = Some((y, x));
        }
    }

    fn sequence(&mut self, rest: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _never = write!(self.text, "\x1b[{rest}");
    }

    fn modes(&mut self, before: Option<Modes>, next: Modes) {
        for (mode, on, off) in [
            (Modes::APP_CURSOR, "\x1b[?1h", "\x1b[?1l"),
            (Modes::APP_KEYPAD, "\x1b=", "\x1b>"),
        ] {
            let wanted = next.contains(mode);
            if before.map(|before| before.contains(mode)) != Some(wanted) {
                self.text.push_str(if wanted { on } else { off });
            }
        }
    }

    fn finish(&mut self, before: Option<Option<Caret>>, caret: Option<Caret>) {
        self.set_style(Style::default());
        if let Some(caret) = caret {
            let form = |caret: Caret| (caret.shape, caret.blinking);
            if before.flatten().map(form) != Some(form(caret)) {
                self.sequence(format_args!("{} q", shape_number(caret)));
            }
            self.place = None;
            self.go(caret.y, caret.x);
            self.text.push_str("\x1b[?25h");
        }
        self.text.push_str("\x1b[?2026l");
    }

    fn set_style(&mut self, style: Style) {
        if self.style == Some(style) {
            return;
        }
        self.style = Some(style);
        self.text.push_str("\x1b[0");
        for (attr, number) in [
            (Attrs::BOLD, "1"),
            (Attrs::DIM, "2"),
            (Attrs::ITALIC, "3"),
            (Attrs::INVERSE, "7"),
            (Attrs::HIDDEN, "8"),
            (Attrs::STRIKE, "9"),
        ] {
            if style.attrs.contains(attr) {
                self.text.push(';');
                self.text.push_str(number);
            }
        }
        self.underline(style);
        self.colour(style.fg, 30);
        self.colour(style.bg, 40);
        self.text.push('m');
    }

    /// Forms and colours of underlines are written with colons, which only newer terminals read; those are the
    /// ones that show any colour.
    fn underline(&mut self, style: Style) {
        let form = match style.underline {
            Underline::None => return,
            Underline::Single => ";4",
            Underline::Double | Underline::Curly | Underline::Dotted | Underline::Dashed
                if self.depth != Depth::True =>
            {
                ";4"
            }
            Underline::Double => ";4:2",
            Underline::Curly => ";4:3",
            Underline::Dotted => ";4:4",
            Underline::Dashed => ";4:5",
        };
        self.text.push_str(form);
        let colour = match style.underline_color {
            Color::Palette(index) if self.depth == Depth::True => format!(";58:5:{index}"),
            Color::Rgb(r, g, b) if self.depth == Depth::True => format!(";58:2::{r}:{g}:{b}"),
            Color::Default | Color::Palette(_) | Color::Rgb(..) => return,
        };
        self.text.push_str(&colour);
    }

    /// `base` is 30 for the text, 40 for the ground.
    fn colour(&mut self, colour: Color, base: u8) {
        let extended = base.saturating_add(8);
        let written = match reduced(colour, self.depth) {
            Color::Default => return,
            Color::Palette(index @ 0..8) => format!(";{}", base.saturating_add(index)),
            Color::Palette(index @ 8..16) => {
                format!(";{}", base.saturating_add(52).saturating_add(index))
            }
            Color::Palette(index) => format!(";{extended};5;{index}"),
            Color::Rgb(r, g, b) => format!(";{extended};2;{r};{g};{b}"),
        };
        self.text.push_str(&written);
    }
}

fn shape_number(caret: Caret) -> u8 {
    let steady = match caret.shape {
        CursorShape::Block => 2,
        CursorShape::Underline => 4,
        CursorShape::Bar => 6,
    };
    if caret.blinking { steady - 1 } else { steady }
}

/// The nearest colour that the terminal has.
fn reduced(colour: Color, depth: Depth) -> Color {
    match (colour, depth) {
        (Color::Default | Color::Palette(0..16), _) | (_, Depth::True) => colour,
        (Color::Palette(_), Depth::Palette) => colour,
        (Color::Rgb(r, g, b), Depth::Palette) => Color::Palette(nearest_of_256((r, g, b))),
        (Color::Rgb(r, g, b), Depth::Sixteen) => Color::Palette(nearest_of_16((r, g, b))),
        (Color::Palette(index), Depth::Sixteen) => Color::Palette(nearest_of_16(rgb_of(index))),
    }
}

/// The six steps of the colour cube of xterm.
const CUBE: [u8; 6] = [0, 95, 135, 175, 215, 255];

fn rgb_of(index: u8) -> (u8, u8, u8) {
    let step = |number: u8| CUBE.get(usize::from(number % 6)).copied().unwrap_or(0);
    match index {
        0..16 => SIXTEEN.get(usize::from(index)).copied().unwrap_or_default(),
        16..232 => {
            let number = index - 16;
            (step(number / 36), step(number / 6), step(number))
        }
        232.. => {
            let grey = 8 + (index - 232) * 10;
            (grey, grey, grey)
        }
    }
}

fn nearest_of_256(rgb: (u8, u8, u8)) -> u8 {
    (16..=255)
        .min_by_key(|index| distance(rgb_of(*index), rgb))
        .unwrap_or(15)
}

/// The sixteen as xterm has them; themes differ, but keep their hue.
const SIXTEEN: [(u8, u8, u8); 16] = [
    (0, 0, 0),
    (205, 0, 0),
    (0, 205, 0),
    (205, 205, 0),
    (0, 0, 238),
    (205, 0, 205),
    (0, 205, 205),
    (229, 229, 229),
    (127, 127, 127),
    (255, 0, 0),
    (0, 255, 0),
    (255, 255, 0),
    (92, 92, 255),
    (255, 0, 255),
    (0, 255, 255),
    (255, 255, 255),
];

fn nearest_of_16(rgb: (u8, u8, u8)) -> u8 {
    (0..16)
        .min_by_key(|index| distance(rgb_of(*index), rgb))
        .unwrap_or(7)
}

fn distance(a: (u8, u8, u8), b: (u8, u8, u8)) -> u32 {
    let square = |a: u8, b: u8| u32::from(a.abs_diff(b)).pow(2);
    square(a.0, b.0) * 2 + square(a.1, b.1) * 4 + square(a.2, b.2) * 3
}

#[cfg(test)]
mod tests {
    use ratatui::layout::Rect;
    use ratatui::style::Style as DrawnStyle;

    use super::*;

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
        canvas
            .row(y)
            .iter()
            .for_each(|cell| cell.push_text(&mut text));
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
        let mut painter = Painter::new(Depth::True);
        let pictures = [
            ["one two three", "漢字 und text", "end"],
            ["one 2 three", "漢字 und mehr", ""],
            ["", "x漢y字z", "ééé"],
            ["a", "xx漢y", "é漢é"],
        ];

        let mut painted = Vec::new();
        for rows in pictures {
            painted.push(painter.paint(picture(&rows)));
            assert_eq!(witness(&painted), rows);
        }
    }

    #[test]
    fn what_is_shown_already_costs_nothing_and_a_letter_costs_little() {
        let mut painter = Painter::new(Depth::True);
        assert!(!painter.paint(picture(&["hello"])).is_empty());

        assert_eq!(painter.paint(picture(&["hello"])), b"");

        let bytes = painter.paint(picture(&["hellos"]));
        assert_eq!(bytes, b"\x1b[?2026h\x1b[?25l\x1b[1;6H\x1b[0ms\x1b[?2026l");
    }

    #[test]
    fn a_forgotten_picture_is_painted_whole() {
        let mut painter = Painter::new(Depth::True);
        let first = painter.paint(picture(&["hello"]));
        painter.forget();
        assert_eq!(painter.paint(picture(&["hello"])), first);
    }

    #[test]
    fn cells_beyond_ascii_are_followed_by_an_explicit_column() {
        let mut painter = Painter::new(Depth::True);

        let bytes = painter.paint(picture(&["é漢x"]));

        let bytes = String::from_utf8(bytes).unwrap();
        assert!(bytes.contains("é\x1b[1;2H漢\x1b[1;4Hx"), "{bytes:?}");
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
    fn the_cursor_has_its_place_and_form_or_is_hidden() {
        let mut painter = Painter::new(Depth::True);
        let caret = Caret {
            x: 4,
            y: 1,
            shape: CursorShape::Bar,
            blinking: true,
        };
        let shown = Picture {
            caret: Some(caret),
            ..picture(&["a"])
        };

        let bytes = String::from_utf8(painter.paint(shown)).unwrap();
        assert!(
            bytes.ends_with("\x1b[5 q\x1b[2;5H\x1b[?25h\x1b[?2026l"),
            "{bytes:?}"
        );
        let bytes = String::from_utf8(painter.paint(picture(&["a"]))).unwrap();
        assert!(!bytes.contains("?25h"), "{bytes:?}");
    }

    #[test]
    fn arrow_keys_follow_the_program_on_the_shared_screen() {
        let mut painter = Painter::new(Depth::True);
        painter.paint(picture(&["a"]));
        let vim = Picture {
            modes: Modes::APP_CURSOR,
            ..picture(&["a"])
        };

        let on = String::from_utf8(painter.paint(vim)).unwrap();
        let off = String::from_utf8(painter.paint(picture(&["a"]))).unwrap();

        assert!(on.contains("\x1b[?1h") && off.contains("\x1b[?1l"));
    }

    #[test]
    fn colours_are_reduced_to_those_that_the_terminal_has() {
        let orange = Color::Rgb(255, 135, 0);
        assert_eq!(reduced(orange, Depth::True), orange);
        assert_eq!(reduced(orange, Depth::Palette), Color::Palette(208));
        assert_eq!(
            reduced(Color::Palette(196), Depth::Sixteen),
            Color::Palette(9)
        );
        assert_eq!(
            reduced(Color::Palette(3), Depth::Sixteen),
            Color::Palette(3)
        );
        for index in 16..=255 {
            let (r, g, b) = rgb_of(index);
            let Color::Palette(near) = reduced(Color::Rgb(r, g, b), Depth::Palette) else {
                panic!()
            };
            assert_eq!(rgb_of(near), (r, g, b));
        }
    }

    #[test]
    fn styles_are_written_for_the_depth() {
        let style = Style {
            fg: Color::Rgb(1, 2, 3),
            bg: Color::Palette(9),
            attrs: Attrs::BOLD.with(Attrs::INVERSE, true),
            underline: Underline::Curly,
            underline_color: Color::Palette(1),
        };
        let written = |depth| {
            let mut pen = Pen::new(depth);
            pen.text.clear();
            pen.set_style(style);
            pen.text
        };

        assert_eq!(
            written(Depth::True),
            "\x1b[0;1;7;4:3;58:5:1;38;2;1;2;3;101m"
        );
        assert_eq!(written(Depth::Sixteen), "\x1b[0;1;7;4;30;101m");
    }
}
