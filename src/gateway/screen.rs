//! A picture for scripts: `screen --json`, plain text, or text with colours. The JSON depends on nothing but
//! the screen, so two nodes that show the same version say the same bytes.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::engine::command::CommandError;
use crate::engine::error::Code;
use crate::engine::ids::TerminalId;
use crate::engine::terminal::cell::{Cell, Color, Line, Style, Underline};
use crate::engine::terminal::redaction::Redacted;
use crate::engine::terminal::screen::{CursorShape, Screen};
use crate::node::Handle;

use super::resolve;

/// `GET /api/v1/terminals/{tid}/screen`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picture {
    /// Which terminal.
    pub terminal: TerminalId,
    /// Grows with every resize and reset.
    pub epoch: u32,
    /// Grows with every change.
    pub version: u64,
    /// Columns.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
    /// The window title.
    pub title: String,
    /// The cursor.
    pub cursor: CursorJson,
    /// Names of the modes that are on.
    pub modes: Vec<String>,
    /// Rows from the top, each a list of runs from the left; blank ends are left out.
    pub lines: Vec<Vec<Run>>,
    /// The rows as text, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub text: Option<Vec<String>>,
}

/// How rows become text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextForm {
    /// Characters alone.
    Plain,
    /// With colours and attributes as SGR sequences, and nothing else that a terminal obeys.
    Ansi,
}

/// Where the next character goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CursorJson {
    /// Column, from 0.
    pub x: u16,
    /// Row, from 0.
    pub y: u16,
    /// `block`, `underline` or `bar`.
    pub shape: String,
    /// Whether it is shown.
    pub visible: bool,
    /// Whether it blinks.
    pub blinking: bool,
}

/// Neighbouring cells of one style. A character that is not exactly one column wide, or has marks upon it, is a
/// run of its own, so that columns never depend on anybody's width table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// First column.
    pub x: u16,
    /// Columns.
    pub w: u16,
    /// The text.
    pub text: String,
    /// Colour of the text: nothing for the viewer's own, a palette number, or `#rrggbb`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fg: Option<ColorJson>,
    /// Colour behind it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bg: Option<ColorJson>,
    /// `bold`, `dim`, `italic`, `inverse`, `hidden`, `strike`; `underline` and its shape.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub attrs: Vec<String>,
    /// Colour of the underline.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub underline: Option<ColorJson>,
}

/// A colour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ColorJson {
    /// An entry of the 256-colour palette.
    Palette(u8),
    /// `#rrggbb`.
    Rgb(String),
}

impl Picture {
    /// The picture of a terminal.
    pub fn of(terminal: TerminalId, screen: &Screen) -> Self {
        let cursor = &screen.cursor;
        Self {
            terminal,
            epoch: screen.epoch,
            version: screen.version,
            cols: screen.cols,
            rows: screen.height(),
            title: screen.title.clone(),
            cursor: CursorJson {
                x: cursor.x,
                y: cursor.y,
                shape: shape_name(cursor.shape).to_owned(),
                visible: cursor.visible,
                blinking: cursor.blinking,
            },
            modes: screen.modes.names().map(str::to_owned).collect(),
            lines: screen.rows.iter().map(|row| runs(&row.line)).collect(),
            text: None,
        }
    }
}

/// The visible rows, right-trimmed, wide spacers dropped, soft wraps not joined.
pub fn text(screen: &Screen, form: TextForm) -> Vec<String> {
    let rows = screen.rows.iter().map(|row| match form {
        TextForm::Plain => row.line.text(),
        TextForm::Ansi => ansi(&row.line),
    });
    rows.collect()
}

/// The terminal that `name` means and its picture, waiting for both together at most `wait`.
pub(super) async fn await_picture(
    handle: &Handle,
    name: &str,
    wait: Duration,
) -> Result<(TerminalId, Arc<Redacted<Screen>>), CommandError> {
    tokio::time::timeout(wait, seen(handle, name))
        .await
        .unwrap_or_else(|_| {
            // Nothing came in time: the newest view says why, or there is just no picture yet.
            let terminal = resolve::terminal(&handle.view(), Some(name))?.id;
            let shown = handle.screen(&terminal).map(|shown| (terminal, shown));
            shown
                .ok_or_else(|| CommandError::new(Code::TimedOut, "no picture of the terminal came"))
        })
}

/// Waits until there is a picture of what `name` means.
async fn seen(
    handle: &Handle,
    name: &str,
) -> Result<(TerminalId, Arc<Redacted<Screen>>), CommandError> {
    let (mut views, mut screens) = (handle.watch_view(), handle.watch_screens());
    loop {
        match resolve::terminal(&views.borrow_and_update(), Some(name)) {
            Ok(terminal) => {
                if let Some(shown) = screens.borrow_and_update().get(&terminal.id) {
                    return Ok((terminal.id, Arc::clone(shown)));
                }
            }
            Err(error) if error.code == Code::NoTerminalShared => {}
            Err(error) => return Err(error),
        }
        let ended = tokio::select! {
            changed = views.changed() => changed.is_err(),
            changed = screens.changed() => changed.is_err(),
        };
        if ended {
            return Err(CommandError::new(Code::Failure, "the node has stopped"));
        }
    }
}

fn ansi(line: &Line) -> String {
    let mut text = String::new();
    let mut style = Style::default();
    for cell in line.cells() {
        if cell.style != style {
            style = cell.style;
            push_sgr(&mut text, &style);
        }
        cell.push_text(&mut text);
    }
    if style != Style::default() {
        text.push_str("\x1b[0m");
    }
    text
}

fn runs(line: &Line) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut last: Option<&Cell> = None;
    for (column, cell) in line.cells().iter().enumerate() {
        match runs.last_mut() {
            Some(run) if cell.is_spacer() => run.w = run.w.saturating_add(1),
            Some(run) if last.is_some_and(|last| joins(last, cell)) => {
                run.w = run.w.saturating_add(1);
                cell.push_text(&mut run.text);
            }
            Some(_) | None => runs.push(run_of(u16::try_from(column).unwrap_or(u16::MAX), cell)),
        }
        last = Some(cell);
    }
    runs
}

fn run_of(x: u16, cell: &Cell) -> Run {
    let mut text = String::new();
    cell.push_text(&mut text);
    let style = &cell.style;
    let mut attrs: Vec<String> = style.attrs.names().map(str::to_owned).collect();
    attrs.extend(underline_name(style.underline).map(str::to_owned));
    Run {
        x,
        w: 1,
        text,
        fg: color(style.fg),
        bg: color(style.bg),
        attrs,
        underline: color(style.underline_color),
    }
}

/// Whether two neighbours are plain one-column characters of the same style.
fn joins(left: &Cell, right: &Cell) -> bool {
    left.style == right.style && is_narrow(left) && is_narrow(right)
}

fn is_narrow(cell: &Cell) -> bool {
    use crate::engine::terminal::cell::Glyph;
    matches!(cell.glyph, Glyph::Narrow(_))
}

fn color(color: Color) -> Option<ColorJson> {
    match color {
        Color::Default => None,
        Color::Palette(number) => Some(ColorJson::Palette(number)),
        Color::Rgb(r, g, b) => Some(ColorJson::Rgb(format!("#{r:02x}{g:02x}{b:02x}"))),
    }
}

fn shape_name(shape: CursorShape) -> &'static str {
    match shape {
        CursorShape::Block => "block",
        CursorShape::Underline => "underline",
        CursorShape::Bar => "bar",
    }
}

fn underline_name(underline: Underline) -> Option<&'static str> {
    match underline {
        Underline::None => None,
        Underline::Single => Some("underline"),
        Underline::Double => Some("underline-double"),
        Underline::Curly => Some("underline-curly"),
        Underline::Dotted => Some("underline-dotted"),
        Underline::Dashed => Some("underline-dashed"),
    }
}

/// Sets exactly this style, whatever was set before.
fn push_sgr(text: &mut String, style: &Style) {
    let mut codes = String::from("0");
    for name in style.attrs.names() {
        codes.push_str(match name {
            "bold" => ";1",
            "dim" => ";2",
            "italic" => ";3",
            "inverse" => ";7",
            "hidden" => ";8",
            "strike" => ";9",
            _ => "",
        });
    }
    codes.push_str(match style.underline {
        Underline::None => "",
        Underline::Single => ";4",
        Underline::Double => ";4:2",
        Underline::Curly => ";4:3",
        Underline::Dotted => ";4:4",
        Underline::Dashed => ";4:5",
    });
    push_color(&mut codes, 38, style.fg);
    push_color(&mut codes, 48, style.bg);
    push_color(&mut codes, 58, style.underline_color);
    let _never_fails = write!(text, "\x1b[{codes}m");
}

fn push_color(codes: &mut String, layer: u8, color: Color) {
    let _never_fails = match color {
        Color::Default => Ok(()),
        Color::Palette(number) => write!(codes, ";{layer};5;{number}"),
        Color::Rgb(r, g, b) => write!(codes, ";{layer};2;{r};{g};{b}"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::terminal::cell::Attrs;
    use crate::engine::terminal::screen::{Cursor, Modes, Row, RowId, Stamps};

    fn screen(cells: Vec<Cell>) -> Screen {
        let line = Arc::new(Line::cleaned(cells, false, 20));
        let row = Row {
            id: RowId(1),
            stamp: 1,
            line,
        };
        Screen {
            epoch: 1,
            version: 1,
            cols: 20,
            rows: vec![row],
            cursor: Cursor::default(),
            modes: Modes::default(),
            title: String::new(),
            bells: 0,
            stamps: Stamps::default(),
        }
    }

    fn cells(text: &str, style: Style) -> Vec<Cell> {
        text.chars()
            .map(|char| Cell::new(char, &[], false, style))
            .collect()
    }

    fn red() -> Style {
        let attrs = Attrs::default().with(Attrs::BOLD, true);
        Style {
            fg: Color::Palette(1),
            bg: Color::Rgb(1, 2, 255),
            attrs,
            ..Style::default()
        }
    }

    #[test]
    fn runs_name_their_columns_and_wide_characters_stand_alone() {
        let mut row = cells("ab ", Style::default());
        row.push(Cell::new('世', &[], true, Style::default()));
        row.push(Cell {
            glyph: crate::engine::terminal::cell::Glyph::Spacer,
            style: Style::default(),
        });
        row.extend(cells("cd", Style::default()));
        row.extend(cells("x", red()));

        let picture = Picture::of(TerminalId([1; 16]), &screen(row));

        let shape: Vec<_> = picture.lines[0]
            .iter()
            .map(|run| (run.x, run.w, run.text.as_str()))
            .collect();
        assert_eq!(
            shape,
            [(0, 3, "ab "), (3, 2, "世"), (5, 2, "cd"), (7, 1, "x")]
        );
        let json = serde_json::to_value(&picture.lines[0][3]).unwrap();
        assert_eq!(json["fg"], 1);
        assert_eq!(json["bg"], "#0102ff");
        assert_eq!(json["attrs"], serde_json::json!(["bold"]));
        let plain = serde_json::to_string(&picture.lines[0][0]).unwrap();
        assert_eq!(plain, r#"{"x":0,"w":3,"text":"ab "}"#);
    }

    #[test]
    fn text_drops_spacers_and_trailing_blanks_and_colours_end_with_the_row() {
        let mut row = cells("ok ", Style::default());
        row.extend(cells("no", red()));
        row.extend(cells("   ", Style::default()));
        let shown = screen(row);

        assert_eq!(text(&shown, TextForm::Plain), ["ok no"]);
        let coloured = text(&shown, TextForm::Ansi);
        assert_eq!(coloured, ["ok \x1b[0;1;38;5;1;48;2;1;2;255mno\x1b[0m"]);
    }
}
