//! `chat`.

use std::collections::BTreeSet;
use std::io::Read;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::error::CliError;
use crate::cli::nodes::{self, Found, items, text};
use crate::cli::output::shown;
use crate::cli::{Context, values};
use crate::engine::documents::text::inert;
use crate::engine::error::Code;

/// Say something, or list what was said.
#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    /// What to say, in quotes; `-` reads it from stdin; without it the newest 200 messages are listed
    #[arg(value_name = "TEXT", num_args = 0..)]
    text: Vec<String>,
    /// Go on listing as messages come
    #[arg(long)]
    follow: bool,
    /// List all messages not older than this, like 10m
    #[arg(long, value_parser = values::duration, value_name = "DURATION")]
    since: Option<std::time::Duration>,
}

/// The longest message in bytes, and a byte more to know that there was more.
const STDIN_BYTES_MAX: u64 = 16 * 1024 + 1;

/// Sends or lists.
pub(crate) async fn run(context: &Context, args: &ChatArgs) -> Result<i32, CliError> {
    if args.text.len() > 1 {
        let message = "what to say is one argument, and several were given";
        return Err(CliError::new(Code::Usage, message)
            .with_help("put it in quotes: `collab-p2p chat 'hi there'`"));
    }
    let found = nodes::one(context).await?;
    if let Some(said) = args.text.first() {
        let said = if said == "-" { stdin()? } else { said.clone() };
        let answer = found
            .client
            .post("/api/v1/messages", &json!({"text": said}))
            .await?;
        if context.output.json {
            context.output.value(&answer);
        }
        return Ok(0);
    }
    let mut events = if args.follow {
        Some(found.client.events().await?)
    } else {
        None
    };
    let messages = list(&found, args.since).await?;
    let mut day = String::new();
    if context.output.json && !args.follow {
        context.output.value(&messages);
    } else {
        if items(&messages).is_empty() && !context.output.json {
            context
                .output
                .say("nothing said yet: `collab-p2p chat 'hello'` says something");
        }
        for message in items(&messages) {
            print(context, message, &mut day);
        }
    }
    // The stream was opened before the list was read: what both hold is printed once.
    let listed: BTreeSet<String> = items(&messages).iter().map(|one| text(one, "id")).collect();
    while let Some(event) = match &mut events {
        Some(events) => events.next().await,
        None => None,
    } {
        if event.get("type").and_then(Value::as_str) == Some("message.posted")
            && let Some(message) = event.get("data").and_then(|data| data.get("message"))
            && !listed.contains(&text(message, "id"))
            && !print(context, message, &mut day)
        {
            break;
        }
    }
    Ok(0)
}

/// The newest messages; with `since` all that are not older, page by page from the newest backwards.
async fn list(found: &Found, since: Option<std::time::Duration>) -> Result<Value, CliError> {
    let Some(since) = since else {
        return Ok(found.client.get("/api/v1/messages").await?);
    };
    let path = format!("/api/v1/messages?since={}", ago(since));
    let mut newest = found.client.get(&path).await?;
    let mut all = items(&newest).to_vec();
    while let Some(first) = all.first() {
        let page = format!("{path}&before={}", text(first, "id"));
        let earlier = items(&found.client.get(&page).await?).to_vec();
        if earlier.is_empty() {
            break;
        }
        all.splice(0..0, earlier);
    }
    if let Some(listed) = newest.get_mut("items") {
        *listed = Value::Array(all);
    }
    Ok(newest)
}

/// Prints a message. In a window each day has a heading and a message keeps its lines; elsewhere it is one line.
/// False if nobody reads any more.
fn print(context: &Context, message: &Value, day: &mut String) -> bool {
    if context.output.json {
        return context.output.value(message);
    }
    let Some(cols) = context.output.window_cols() else {
        return context.output.line(&one_line(message));
    };
    let of = text(message, "time").chars().take(10).collect();
    let new_day = *day != of;
    *day = of;
    (!new_day || context.output.line(&format!("-- {day} UTC")))
        && several_lines(message, cols)
            .iter()
            .all(|line| context.output.line(line))
}

fn time_and_name(message: &Value) -> (String, String) {
    let time = text(message, "time").chars().skip(11).take(8).collect();
    (time, message.get("name").map(shown).unwrap_or_default())
}

fn one_line(message: &Value) -> String {
    let (time, name) = time_and_name(message);
    let said = message.get("text").map(shown).unwrap_or_default();
    format!("{time} {name}: {said}")
}

/// Where all but the first row of a message begin.
const INDENT: &str = "         ";

/// The rows of a message in a window of so many columns; all but the first are indented, so that none passes for
/// another message. What does not fit is folded here: a terminal would go on in its first column.
fn several_lines(message: &Value, cols: usize) -> Vec<String> {
    let (time, name) = time_and_name(message);
    let said = text(message, "text");
    let mut lines = said.lines().map(inert);
    let first = lines.next().unwrap_or_default();
    let first = format!("{time} {name}: {first}");
    let room = cols.saturating_sub(INDENT.len()).max(2);
    let rows = std::iter::once(first).chain(lines);
    let mut rows = rows.flat_map(|line| folded(&line, room));
    let first = rows.next().unwrap_or_default();
    let rest = rows.map(|row| format!("{INDENT}{row}"));
    std::iter::once(first).chain(rest).collect()
}

/// A line in pieces of at most so many columns; an empty one is one piece.
fn folded(line: &str, room: usize) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut used = 0_usize;
    for c in line.chars() {
        let width = unicode_width::UnicodeWidthChar::width(c).unwrap_or(0);
        if used.saturating_add(width) > room {
            pieces.push(String::new());
            used = 0;
        }
        used = used.saturating_add(width);
        if let Some(piece) = pieces.last_mut() {
            piece.push(c);
        }
    }
    pieces
}

fn stdin() -> Result<String, CliError> {
    let mut said = String::new();
    let read = std::io::stdin()
        .lock()
        .take(STDIN_BYTES_MAX)
        .read_to_string(&mut said);
    read.map_err(|error| CliError::new(Code::Usage, format!("stdin is no text: {error}")))?;
    Ok(said.trim_end_matches('\n').to_owned())
}

/// The moment so long ago, as the API reads it.
fn ago(since: std::time::Duration) -> String {
    let since = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let at = crate::engine::time::Wall(crate::node::clock::wall().0.saturating_sub(since));
    crate::cli::output::time(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_several_lines_passes_for_no_other() {
        let message = json!({"time": "2026-11-20T15:52:45.000Z", "name": "mallory",
            "text": "hi\n15:52:46 ana: yes\x1b[2J"});
        assert_eq!(
            one_line(&message),
            "15:52:45 mallory: hi\\n15:52:46 ana: yes\\u{1b}[2J"
        );
        assert_eq!(
            several_lines(&message, 80),
            [
                "15:52:45 mallory: hi",
                "         15:52:46 ana: yes\\u{1b}[2J"
            ]
        );

        let padded = format!("hi{}15:52:46 ana: yes 漢字", " ".repeat(60));
        let message =
            json!({"time": "2026-11-20T15:52:45.000Z", "name": "mallory", "text": padded});
        for cols in [4, 10, 40, 80, 81, 82, 100] {
            let rows = several_lines(&message, cols);
            for (number, row) in rows.iter().enumerate() {
                let fits = unicode_width::UnicodeWidthStr::width(row.as_str()) <= cols.max(11);
                assert!(fits, "{cols}: {row}");
                assert!(number == 0 || row.starts_with(INDENT), "{cols}: {row}");
            }
        }
    }
}
