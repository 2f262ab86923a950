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
        }
    }

    /// A line of data.
    pub(crate) fn line(&self, text: &str) {
        write(&mut std::io::stdout().lock(), text);
    }

    /// A JSON value on one line.
    pub(crate) fn value(&self, value: &Value) {
        self.line(&value.to_string());
    }

    /// A message for the person, on stderr; nothing when quiet.
    pub(crate) fn say(&self, text: &str) {
        if !self.quiet {
            write(&mut std::io::stderr().lock(), text);
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

fn write(to: &mut dyn Write, text: &str) {
    // A reader that has gone away is no reason to fail; what counts was done before it was printed.
    drop(
        to.write_all(text.as_bytes())
            .and_then(|()| to.write_all(b"\n"))
            .and_then(|()| to.flush()),
    );
}
