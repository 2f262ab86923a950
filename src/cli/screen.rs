//! `screen`.

use clap::Args;

use crate::cli::Context;
use crate::cli::error::CliError;
use crate::cli::nodes::{self, items};

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

/// Prints one picture.
pub(crate) async fn run(context: &Context, args: &ScreenArgs) -> Result<i32, CliError> {
    let found = nodes::one(context).await?;
    let wanted = args.which.as_ref().or(context.global.terminal.as_ref());
    let wanted = wanted.map_or("default", String::as_str);
    let form = if args.ansi { "ansi" } else { "plain" };
    let text = if context.output.json {
        String::new()
    } else {
        format!("&text={form}")
    };
    let wanted = encoded(wanted);
    // The node waits for the terminal's announcement and its first picture, right after joining.
    let path = format!("/api/v1/terminals/{wanted}/screen?wait=5s{text}");
    let picture = found.client.get(&path).await?;
    if context.output.json {
        context.output.value(&picture);
        return Ok(0);
    }
    for line in picture.get("text").map(items).unwrap_or_default() {
        context.output.line(line.as_str().unwrap_or_default());
    }
    Ok(0)
}

/// A name as one part of a path.
fn encoded(name: &str) -> String {
    name.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}
