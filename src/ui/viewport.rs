//! The part of the shared screen that fits the window, with the pointers of others on it.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use unicode_width::UnicodeWidthChar;

use crate::engine::terminal::cell::{Cell, Glyph};
use crate::engine::terminal::screen::Screen;
use crate::ui::keys::Key;
use crate::ui::layout::Size;
use crate::ui::paint::{Canvas, Caret};
use crate::ui::text;
use crate::ui::theme::Theme;

/// The upper left cell of the screen that is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Crop {
    pub(super) x: u16,
    pub(super) y: u16,
}

/// Somebody's pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamedPointer {
    /// Inert already.
    pub(super) name: String,
    pub(super) colour: u8,
    pub(super) row: u16,
    pub(super) column: u16,
}

impl Crop {
    /// Moves as little as needed to keep the cursor in sight. Columns return to the left edge as soon as the
    /// cursor allows it, because lines begin there.
    pub(super) fn follow(self, screen: &Screen, window: Size) -> Self {
        let room = window.screen();
        let last = Self::last(screen, window);
        let clamped = self.within(screen, window);
        if !screen.cursor.visible {
            return clamped;
        }
        let near = if screen.cursor.x < room.width {
            0
        } else {
            clamped.x
        };
        Self {
            x: towards(near, screen.cursor.x, room.width).min(last.x),
            y: towards(clamped.y, screen.cursor.y, room.height).min(last.y),
        }
    }

    /// The same part, or the nearest one that the screen still has.
    pub(super) fn within(self, screen: &Screen, window: Size) -> Self {
        let last = Self::last(screen, window);
        Self {
            x: self.x.min(last.x),
            y: self.y.min(last.y),
        }
    }

    /// The part at the lower right corner.
    fn last(screen: &Screen, window: Size) -> Self {
        let room = window.screen();
        Self {
            x: screen.cols.saturating_sub(room.width),
            y: screen.height().saturating_sub(room.height),
        }
    }

    /// The part to which a key moves, if it is a key that moves.
    pub(super) fn moved(self, key: Key, screen: &Screen, window: Size) -> Option<Self> {
        let last = Self::last(screen, window);
        let Self { x, y } = self.within(screen, window);
        // A row stays in sight, for the eye.
        let page = window.screen().height.saturating_sub(1).max(1);
        let moved = match key {
            Key::Left | Key::Char('h') => (x.saturating_sub(STEP_COLS), y),
            Key::Right | Key::Char('l') => (x.saturating_add(STEP_COLS), y),
            Key::Up | Key::Char('k') => (x, y.saturating_sub(1)),
            Key::Down | Key::Char('j') => (x, y.saturating_add(1)),
            Key::PageUp => (x, y.saturating_sub(page)),
            Key::PageDown => (x, y.saturating_add(page)),
            Key::Home => (0, 0),
            Key::End => (last.x, last.y),
            Key::Char(_)
            | Key::Ctrl(_)
            | Key::Alt(_)
            | Key::Enter
            | Key::Tab
            | Key::BackTab
            | Key::Escape
            | Key::Backspace
            | Key::Delete
            | Key::Unknown => return None,
        };
        let (x, y) = moved;
        Some(Self { x, y }.within(screen, window))
    }
}

/// Columns that a key moves: a line is read in fewer strokes, and no word jumps out of sight.
const STEP_COLS: u16 = 4;

fn towards(first: u16, cursor: u16, room: u16) -> u16 {
    if cursor < first {
        cursor
    } else {
        first.max(cursor.saturating_add(1).saturating_sub(room))
    }
}

/// Whether a part of the screen does not fit.
pub(super) fn is_cropped(screen: &Screen, window: Size) -> bool {
    let room = window.screen();
    screen.cols > room.width || screen.height() > room.height
}

/// Draws the screen from its upper left corner on; what lies beyond it has a ground of its own.
pub(super) fn draw(canvas: &mut Canvas, screen: &Screen, crop: Crop, theme: Theme) {
    let room = canvas.size().screen();
    let cols = screen.cols.saturating_sub(crop.x).min(room.width);
    let height = screen.height().saturating_sub(crop.y).min(room.height);
    let whole_lines = crop.x == 0 && cols == screen.cols;
    for (y, row) in (0..height).zip(screen.rows.iter().skip(usize::from(crop.y))) {
        if whole_lines && row.line.cells().iter().all(keeps_to_itself) {
            canvas.put_line(y, &row.line);
            continue;
        }
        for x in 0..cols {
            let cell = row.line.cell(usize::from(crop.x.saturating_add(x)));
            let cell = whole(cell, x, x.saturating_add(1) == cols);
            canvas.put(x, y, kept_to_itself(cell));
        }
    }
    let beside = Rect::new(cols, 0, room.width.saturating_sub(cols), height);
    let below = Rect::new(0, height, room.width, room.height.saturating_sub(height));
    for ground in [beside, below] {
        let mut drawn = Buffer::empty(ground);
        drawn.set_style(ground, theme.beyond());
        canvas.overlay(&drawn);
    }
}

/// A cell at the edge of what is shown: half a wide character is a blank there.
fn whole(cell: &Cell, x: u16, last: bool) -> Cell {
    let half = (x == 0 && cell.is_spacer()) || (last && cell.is_wide());
    if half {
        Cell {
            glyph: Glyph::Narrow(' '),
            style: cell.style,
        }
    } else {
        cell.clone()
    }
}

/// Whether a cell's text stays within its columns. A cell has a base and marks that take no room; a host that
/// says otherwise would write over its neighbours, which may be a card or a pane of ours.
fn keeps_to_itself(cell: &Cell) -> bool {
    let takes_room = |char: char| char.width().unwrap_or(0) > 0;
    match &cell.glyph {
        Glyph::Narrow(' '..='~') | Glyph::Spacer => true,
        Glyph::Narrow(char) | Glyph::Wide(char) => takes_room(*char),
        Glyph::Cluster(cluster) => {
            let mut chars = cluster.text.chars();
            chars.next().is_some_and(takes_room) && !chars.any(takes_room)
        }
    }
}

fn kept_to_itself(cell: Cell) -> Cell {
    if keeps_to_itself(&cell) {
        return cell;
    }
    // A wide one keeps both its columns.
    let glyph = if cell.is_wide() {
        Glyph::Wide('\u{ff1f}')
    } else {
        Glyph::Narrow('?')
    };
    Cell { glyph, ..cell }
}

/// Draws others' pointers: the cell in their colour, the name beside it.
pub(super) fn draw_pointers(
    canvas: &mut Canvas,
    crop: Crop,
    pointers: &[NamedPointer],
    theme: Theme,
) {
    let room = canvas.size().screen();
    for pointer in pointers {
        let place = pointer
            .column
            .checked_sub(crop.x)
            .zip(pointer.row.checked_sub(crop.y));
        let Some((x, y)) = place.filter(|(x, y)| *x < room.width && *y < room.height) else {
            continue;
        };
        let label = format!(" {} ", text::cut(&pointer.name, 16));
        let width = u16::try_from(text::width(&label)).unwrap_or(room.width);
        let right = x.saturating_add(1);
        let fits = right.saturating_add(width) <= room.width;
        let left = if fits { right } else { x.saturating_sub(width) };
        let mut mark = Buffer::empty(Rect::new(x, y, 1, 1));
        mark.set_string(x, y, "▸", theme.pointer(pointer.colour));
        canvas.overlay(&mark);
        let label_room = width.min(room.width.saturating_sub(left));
        let mut drawn = Buffer::empty(Rect::new(left, y, label_room, 1));
        drawn.set_stringn(
            left,
            y,
            label,
            usize::from(label_room),
            theme.pointer(pointer.colour),
        );
        canvas.overlay(&drawn);
    }
}

/// Where the shared cursor is in the window, if it is to be seen.
pub(super) fn caret(screen: &Screen, crop: Crop, window: Size) -> Option<Caret> {
    let room = window.screen();
    let cursor = screen.cursor;
    let x = cursor.x.checked_sub(crop.x).filter(|x| *x < room.width)?;
    let y = cursor.y.checked_sub(crop.y).filter(|y| *y < room.height)?;
    cursor.visible.then_some(Caret {
        x,
        y,
        shape: cursor.shape,
        blinking: cursor.blinking,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::engine::terminal::cell::{Line, Style};
    use crate::engine::terminal::screen::{Cursor, Modes, Row, RowId, Stamps};

    /// A screen that shows these rows, the cursor at a place in it.
    pub(in crate::ui) fn screen(cols: u16, rows: &[&str], cursor: (u16, u16)) -> Screen {
        let line = |text: &str| {
            let mut cells = Vec::new();
            for c in text.chars() {
                let wide = text::width(&c.to_string()) > 1;
                cells.push(Cell::new(c, &[], wide, Style::default()));
                if wide {
                    cells.push(Cell {
                        glyph: Glyph::Spacer,
                        style: Style::default(),
                    });
                }
            }
            Arc::new(Line::cleaned(cells, false, cols))
        };
        Screen {
            epoch: 1,
            version: 1,
            cols,
            rows: (0..)
                .zip(rows)
                .map(|(id, text)| Row {
                    id: RowId(id),
                    stamp: 1,
                    line: line(text),
                })
                .collect(),
            cursor: Cursor {
                x: cursor.0,
                y: cursor.1,
                visible: true,
                ..Cursor::default()
            },
            modes: Modes::default(),
            title: String::new(),
            bells: 0,
            stamps: Stamps::default(),
        }
    }

    pub(in crate::ui) fn rows(canvas: &Canvas) -> Vec<String> {
        (0..canvas.size().rows)
            .map(|y| {
                let mut text = String::new();
                (0..canvas.size().cols).for_each(|x| canvas.cell(x, y).push_text(&mut text));
                text.trim_end().to_owned()
            })
            .collect()
    }

    fn drawn(screen: &Screen, window: Size, crop: Crop) -> Vec<String> {
        let mut canvas = Canvas::new(window);
        draw(&mut canvas, screen, crop, Theme::new(true));
        rows(&canvas)
    }

    #[test]
    fn no_cell_of_a_host_reaches_beyond_its_columns() {
        let style = Style::default();
        let forged: Vec<char> = "│ forged".chars().collect();
        let cells = vec![
            Cell::new('a', &['\u{301}'], false, style),
            Cell::new('b', &forged, false, style),
            Cell::new('\u{301}', &[], false, style),
            Cell::new('漢', &['x'], true, style),
            Cell {
                glyph: Glyph::Spacer,
                style,
            },
            Cell::new('c', &[], false, style),
        ];
        let mut screen = screen(6, &[""], (0, 0));
        screen.rows[0].line = Arc::new(Line::checked(cells, false, 6).unwrap());
        for window in [Size { cols: 6, rows: 2 }, Size { cols: 5, rows: 2 }] {
            let row = drawn(&screen, window, Crop::default()).remove(0);
            assert_eq!(row.trim_end_matches('c'), "a\u{301}??\u{ff1f}");
        }
    }

    #[test]
    fn a_screen_that_fits_is_shown_row_by_row() {
        let screen = screen(10, &["one", "漢字", "three"], (0, 0));
        for window in [Size { cols: 10, rows: 4 }, Size { cols: 30, rows: 6 }] {
            let crop = Crop::default().follow(&screen, window);
            assert_eq!(drawn(&screen, window, crop)[..3], ["one", "漢字", "three"]);
            assert!(!is_cropped(&screen, window));
        }
    }

    #[test]
    fn a_smaller_window_shows_the_part_around_the_cursor() {
        let window = Size { cols: 5, rows: 3 };
        let mut screen = screen(10, &["0123456789", "abcdefghij", "ABCDEFGHIJ"], (9, 2));
        assert!(is_cropped(&screen, window));

        let crop = Crop::default().follow(&screen, window);
        assert_eq!(drawn(&screen, window, crop)[..2], ["fghij", "FGHIJ"]);
        assert_eq!(
            caret(&screen, crop, window).map(|caret| (caret.x, caret.y)),
            Some((4, 1))
        );

        screen.cursor.x = 1;
        let crop = crop.follow(&screen, window);
        assert_eq!(crop, Crop { x: 0, y: 1 });
    }

    #[test]
    fn a_hidden_cursor_moves_nothing() {
        let window = Size { cols: 5, rows: 3 };
        let mut screen = screen(10, &["0", "1", "2", "3"], (9, 3));
        screen.cursor.visible = false;

        let crop = Crop { x: 1, y: 1 }.follow(&screen, window);

        assert_eq!(crop, Crop { x: 1, y: 1 });
        assert_eq!(caret(&screen, crop, window), None);
    }

    #[test]
    fn wide_characters_cut_by_the_edge_become_blanks() {
        let screen = screen(10, &["漢字漢字漢"], (0, 0));
        assert_eq!(
            drawn(&screen, Size { cols: 5, rows: 2 }, Crop { x: 1, y: 0 })[0],
            " 字漢"
        );
        assert_eq!(
            drawn(&screen, Size { cols: 5, rows: 2 }, Crop { x: 0, y: 0 })[0],
            "漢字"
        );
    }

    #[test]
    fn pointers_are_named_where_they_point() {
        let screen = screen(30, &["some text here", ""], (0, 0));
        let mut canvas = Canvas::new(Size { cols: 30, rows: 3 });
        draw(&mut canvas, &screen, Crop::default(), Theme::new(true));
        let pointer = |name: &str, row, column| NamedPointer {
            name: name.into(),
            colour: 1,
            row,
            column,
        };

        let pointers = [
            pointer("anna", 0, 5),
            pointer("bob", 1, 29),
            pointer("gone", 9, 9),
        ];
        draw_pointers(&mut canvas, Crop::default(), &pointers, Theme::new(true));

        assert_eq!(rows(&canvas)[0], "some ▸ anna re");
        assert_eq!(rows(&canvas)[1], format!("{}bob ▸", " ".repeat(25)));
    }
}
