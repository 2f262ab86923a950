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
}

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

    /// Comes before each text that is printed again and again: on a terminal it replaces the one before, elsewhere a
    /// line with the time tells them apart. False if nobody reads any more.
    pub(crate) fn again(&self) -> bool {
        if self.redraws {
            // To the top left corner, and nothing anywhere.
            write(&mut std::io::stdout().lock(), "\x1b[H\x1b[2J")
        } else {
            let now = time(crate::node::clock::wall());
            self.line(&format!("-- {now}"))
        }
    }

    /// A table with a head; columns as wide as their widest cell.
    pub(crate) fn table(&self, head: &[&str], rows: &[Vec<String>]) {
        let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(unicode_width::UnicodeWidthStr::width(cell.as_str()));
            }
        }
        let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
        let styled = padded(&head, &widths);
        self.line(&if self.colour {
            format!("\x1b[1m{styled}\x1b[0m")
        } else {
            styled
        });
        for row in rows {
            self.line(&padded(row, &widths));
        }
    }
}

fn padded(row: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (cell, width) in row.iter().zip(widths) {
        line.push_str(cell);
        let used = unicode_width::UnicodeWidthStr::width(cell.as_str());
        line.extend(std::iter::repeat_n(' ', width.saturating_sub(used) + 2));
    }
    line.trim_end().to_owned()
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
