//! How the program speaks: data on stdout, messages on stderr, colours only where they are wanted.

use std::io::{IsTerminal, Write};

use serde_json::Value;

use crate::cli::config::Environment;
use crate::cli::{ColourWhen, Global};
use crate::engine::documents::text::inert;

/// How the program speaks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// JSON instead of text.
    pub(crate) json: bool,
    /// Colours on stdout.
    pub(crate) colour: bool,
    quiet: bool,
    /// Stdout is a terminal that can be drawn upon.
    redraws: bool,
    /// Columns and rows of the terminal that stdout is. Elsewhere nothing is cut.
    window: Option<(usize, usize)>,
}

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    head: &'static str,
    /// Holds what people chose: gives way where the window is narrow.
    chosen: bool,
}

impl Column {
    /// A column that is shown whole.
    pub(crate) const fn whole(head: &'static str) -> Self {
        Self {
            head,
            chosen: false,
        }
    }

    /// A column of names or titles, which may be long.
    pub(crate) const fn chosen(head: &'static str) -> Self {
        Self { head, chosen: true }
    }
}

/// Narrower than this no name or title gets.
const CHOSEN_COLS_MIN: usize = 8;

impl Output {
    /// From flags, environment and what stdout is.
    pub(crate) fn new(global: &Global, env: &Environment) -> Self {
        let dumb = env.term.as_deref() == Some("dumb");
        let colour = match global.color {
            ColourWhen::Always => true,
            ColourWhen::Never => false,
            ColourWhen::Auto => !env.no_color && !dumb && std::io::stdout().is_terminal(),
        };
        Self {
            json: global.json,
            colour: colour && !global.json,
            quiet: global.quiet,
            redraws: !dumb && std::io::stdout().is_terminal(),
            window: crate::ui::window().map(|size| (size.cols.into(), size.rows.into())),
        }
    }

    /// A line of data. False if nobody reads any more, for those who would print for ever.
    pub(crate) fn line(&self, text: &str) -> bool {
        write(&mut std::io::stdout().lock(), &format!("{text}\n"))
    }

    /// A JSON value on one line. False if nobody reads any more.
    pub(crate) fn value(&self, value: &Value) -> bool {
        self.line(&value.to_string())
    }

    /// A message for the person, on stderr; nothing when quiet.
    pub(crate) fn say(&self, text: &str) {
        if !self.quiet {
            write(&mut std::io::stderr().lock(), &format!("{text}\n"));
        }
    }

    /// The columns of the window in which a person reads stdout, if one does.
    pub(crate) fn window_cols(&self) -> Option<usize> {
        self.window.map(|(cols, _)| cols)
    }

    /// Lines that are printed once, or again and again: on a terminal they replace the ones before, elsewhere a line
    /// with the time tells them apart. False if nobody reads any more.
    pub(crate) fn page(&self, lines: &[String], watched: bool) -> bool {
        if !watched {
            return lines.iter().all(|line| self.line(line));
        }
        let window = self.window.filter(|_| self.redraws);
        let Some((cols, rows)) = window else {
            let now = time(crate::node::clock::wall());
            let printed = self.line(&format!("-- {now}"));
            return printed && lines.iter().all(|line| self.line(line));
        };
        write(&mut std::io::stdout().lock(), &redrawn(lines, cols, rows))
    }

    /// The lines of a table with a head; columns as wide as their widest cell, as far as the window has room.
    pub(crate) fn table(&self, columns: &[Column], rows: &[Vec<String>]) -> Vec<String> {
        let mut widths: Vec<usize> = columns.iter().map(|column| width(column.head)).collect();
        for row in rows {
            for (most, cell) in widths.iter_mut().zip(row) {
                *most = (*most).max(width(cell));
            }
        }
        if let Some((room, _)) = self.window {
            narrow(&mut widths, columns, room);
        }
        let head: Vec<String> = columns.iter().map(|one| one.head.to_owned()).collect();
        let head = padded(&head, &widths);
        let head = if self.colour {
            format!("\x1b[1m{head}\x1b[0m")
        } else {
            head
        };
        let rows = rows.iter().map(|row| padded(row, &widths));
        std::iter::once(head).chain(rows).collect()
    }
}

/// What replaces the page that stands in the window, line by line, so that nothing flickers; lines below the window
/// are counted.
fn redrawn(lines: &[String], cols: usize, rows: usize) -> String {
    let room = rows.saturating_sub(1).max(1);
    let more = lines.len().saturating_sub(room);
    let shown = if more > 0 {
        room.saturating_sub(1)
    } else {
        room
    };
    let mut text = String::from("\x1b[H");
    for line in lines.iter().take(shown) {
        // A line with a style is a table's head, which fits.
        let line = if line.contains('\x1b') {
            line.clone()
        } else {
            cut(line, cols)
        };
        text.push_str(&line);
        text.push_str("\x1b[K\n");
    }
    if more > 0 {
        text.push_str(&cut(
            &format!("… {} more lines", more.saturating_add(1)),
            cols,
        ));
        text.push_str("\x1b[K\n");
    }
    text.push_str("\x1b[J");
    text
}

/// Makes columns of names and titles narrower, the widest first, until the table fits or they are as narrow as they
/// get.
fn narrow(widths: &mut [usize], columns: &[Column], room: usize) {
    let gaps = widths.len().saturating_sub(1).saturating_mul(GAP);
    while widths.iter().sum::<usize>().saturating_add(gaps) > room {
        let chosen = widths.iter_mut().zip(columns);
        let chosen = chosen.filter(|(width, column)| column.chosen && **width > CHOSEN_COLS_MIN);
        match chosen.max_by_key(|(width, _)| **width) {
            Some((width, _)) => *width = width.saturating_sub(1),
            None => return,
        }
    }
}

/// Columns between two cells.
const GAP: usize = 2;

fn padded(row: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (cell, room) in row.iter().zip(widths) {
        let cell = cut(cell, *room);
        let gap = room.saturating_sub(width(&cell)).saturating_add(GAP);
        line.push_str(&cell);
        line.extend(std::iter::repeat_n(' ', gap));
    }
    line.trim_end().to_owned()
}

fn width(text: &str) -> usize {
    unicode_width::UnicodeWidthStr::width(text)
}

/// A text that fits into so many columns, with `…` where it was cut.
fn cut(text: &str, room: usize) -> String {
    if width(text) <= room {
        return text.to_owned();
    }
    let mut kept = String::new();
    for c in text.chars() {
        kept.push(c);
        if width(&kept) >= room {
            kept.pop();
            break;
        }
    }
    kept.push('…');
    kept
}

/// A text of somebody else, made inert for a terminal.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => inert(text),
        Value::Null => String::new(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            inert(&value.to_string())
        }
    }
}

/// A moment in RFC 3339.
pub(crate) fn time(at: crate::engine::time::Wall) -> String {
    let time = serde_json::to_value(crate::gateway::json::Time(at));
    time.ok()
        .as_ref()
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

/// A moment of the API to the minute: `2026-11-21 10:33 UTC`.
pub(crate) fn minute(time: &str) -> String {
    let (date, time) = time.split_once('T').unwrap_or((time, ""));
    format!("{date} {} UTC", time.chars().take(5).collect::<String>())
}

fn write(to: &mut dyn Write, text: &str) -> bool {
    // A reader that has gone away is no reason to fail; what counts was done before it was printed.
    to.write_all(text.as_bytes())
        .and_then(|()| to.flush())
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [
        Column::whole("ID"),
        Column::chosen("TITLE"),
        Column::whole("STATE"),
    ];

    fn output(window: Option<(usize, usize)>) -> Output {
        Output {
            json: false,
            colour: false,
            quiet: false,
            redraws: window.is_some(),
            window,
        }
    }

    fn table(window: Option<(usize, usize)>, titles: &[&str]) -> Vec<String> {
        let row = |title: &&str| ["a1b2", title, "open"].map(str::to_owned).to_vec();
        let rows: Vec<Vec<String>> = titles.iter().map(row).collect();
        output(window).table(&COLUMNS, &rows)
    }

    #[test]
    fn columns_align_with_wide_names_and_no_line_ends_in_a_space() {
        assert_eq!(
            table(None, &["demo", "漢字"]),
            [
                "ID    TITLE  STATE",
                "a1b2  demo   open",
                "a1b2  漢字   open"
            ]
        );
        let row = |state: &str| vec!["a".to_owned(), "b".to_owned(), state.to_owned()];
        let lines = output(None).table(&COLUMNS, &[row("")]);
        assert_eq!(lines, ["ID  TITLE  STATE", "a   b"]);
    }

    #[test]
    fn a_long_title_is_cut_to_the_window_and_whole_in_a_pipe() {
        let long = "漢".repeat(40);
        let lines = table(Some((40, 24)), &[&long]);
        for line in &lines {
            assert!(width(line) <= 40, "{line}");
        }
        assert!(lines[1].contains("漢…") && lines[1].ends_with("  open"));
        assert!(table(None, &[&long])[1].contains(&long));
        // A window that is too narrow for all: names stay readable.
        assert!(table(Some((5, 24)), &["a title that is long"])[1].contains("a title…"));
    }

    #[test]
    fn a_watched_page_stays_in_its_window() {
        let lines: Vec<String> = (0..10).map(|n| format!("line {n} is long")).collect();
        assert_eq!(
            redrawn(&lines, 8, 4),
            "\x1b[Hline 0 …\x1b[K\nline 1 …\x1b[K\n… 8 mor…\x1b[K\n\x1b[J"
        );
        assert_eq!(
            redrawn(&lines[..2], 80, 4),
            "\x1b[Hline 0 is long\x1b[K\nline 1 is long\x1b[K\n\x1b[J"
        );
    }
}
