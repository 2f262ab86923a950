//! `screen`.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use crate::cli::error::CliError;
use crate::cli::nodes::{self, Found, items, text};
use crate::cli::Context;
use crate::engine::error::Code;

/// Print the visible rows of a terminal.
#[derive(Debug, Args)]
pub(crate) struct ScreenArgs {
    /// The terminal, by id (6 characters suffice) or title
    #[arg(value_name = "TERM")]
    which: Option<String>,
    /// With colours and attributes
    #[arg(long)]
    ansi: bool,
}

/// How long the first picture may take after joining.
const FIRST_PICTURE: Duration = Duration::from_secs(5);
/// Pause between looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Prints one picture.
pub(crate) async fn run(context: &Context, args: &ScreenArgs) -> Result<i32, CliError> {
    let found = nodes::one(context).await?;
    let wanted = args.which.as_ref().or(context.global.terminal.as_ref());
    let picture = tokio::time::timeout(FIRST_PICTURE, picture(&found, wanted, args.ansi)).await;
    let picture = picture.map_err(|_| {
        let message = format!("no picture of the terminal came within {} s", FIRST_PICTURE.as_secs());
        CliError::new(Code::TimedOut, message)
    })??;
    if context.output.json {
        context.output.value(&picture);
        return Ok(0);
    }
    for line in picture.get("text").map(items).unwrap_or_default() {
        context.output.line(line.as_str().unwrap_or_default());
    }
    Ok(0)
}

/// Waits for the terminal's announcement and its first picture.
async fn picture(found: &Found, wanted: Option<&String>, ansi: bool) -> Result<Value, CliError> {
    loop {
        let terminals = found.client.get("/api/v1/terminals").await?;
        let terminals = items(&terminals);
        let id = match wanted {
            Some(wanted) if !terminals.is_empty() => {
                let codes = (Code::NoTerminalShared, Code::WhichTerminal);
                Some(text(nodes::pick(terminals, "title", wanted, codes)?, "id"))
            }
            Some(_) => None,
            None => only_open(terminals)?,
        };
        if let Some(id) = id {
            let format = if ansi { "ansi" } else { "plain" };
            let path = format!("/api/v1/terminals/{id}/screen?text={format}");
            match found.client.get(&path).await {
                Ok(picture) => return Ok(picture),
                Err(error) if error.code == Code::TimedOut => {}
                Err(error) => return Err(error.into()),
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn only_open(terminals: &[Value]) -> Result<Option<String>, CliError> {
    let is_open = |terminal: &&Value| terminal.get("open") == Some(&Value::Bool(true));
    let open: Vec<&Value> = terminals.iter().filter(is_open).collect();
    match open.as_slice() {
        [] => Ok(terminals.last().map(|terminal| text(terminal, "id"))),
        [one] => Ok(Some(text(one, "id"))),
        many => {
            let ids: Vec<String> = many.iter().map(|terminal| text(terminal, "id")).collect();
            let message = format!("several terminals are open: {}", ids.join(", "));
            Err(CliError::new(Code::WhichTerminal, message))
        }
    }
}
