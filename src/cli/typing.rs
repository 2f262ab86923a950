//! `type`.

use std::io::Read;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::cli::error::CliError;
use crate::cli::nodes::Found;
use crate::cli::{Context, control, nodes, values};
use crate::engine::error::Code;

/// Send bytes to a terminal.
#[derive(Debug, Args)]
pub(crate) struct TypeArgs {
    /// Exactly these bytes; `-` reads them from stdin; no newline is added
    #[arg(required_unless_present_any = ["key", "enter"], allow_hyphen_values = true)]
    text: Option<String>,
    /// Add a carriage return
    #[arg(long)]
    enter: bool,
    /// Named keys after the text, separated by commas: C-c, Up, F5, Enter
    #[arg(long, value_delimiter = ',', value_name = "KEYS")]
    key: Vec<String>,
    /// How long to wait for the host's acknowledgement
    #[arg(long, value_parser = values::duration, default_value = "10s", value_name = "DURATION")]
    timeout: Duration,
}

/// Bytes read from stdin at most.
const STDIN_BYTES_MAX: u64 = 1024 * 1024;

/// Types.
pub(crate) async fn run(context: &Context, args: &TypeArgs) -> Result<i32, CliError> {
    let bytes = match args.text.as_deref() {
        Some("-") => stdin()?,
        Some(text) => text.as_bytes().to_vec(),
        None => Vec::new(),
    };
    let found = nodes::one(context).await?;
    let terminal = nodes::terminal(context, &found).await?;
    let body = json!({
        "bytes": data_encoding::BASE64.encode(&bytes),
        "enter": args.enter,
        "keys": args.key,
        "timeout_ms": u64::try_from(args.timeout.as_millis()).unwrap_or(u64::MAX),
    });
    let path = format!("/api/v1/terminals/{terminal}/input");
    let answer = found.client.patient(args.timeout).post(&path, &body).await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return Err(refused(&found, &terminal, error.into()).await),
    };
    if context.output.json {
        context.output.value(&answer);
    }
    Ok(0)
}

/// The refusal with what to do about it: keys that may have been written are not to be typed again blindly.
async fn refused(found: &Found, terminal: &str, error: CliError) -> CliError {
    if error.code == Code::TimedOut {
        return error.with_help(
            "the keys may have been written: look at `collab-p2p screen` before you type them again; \
             --timeout waits longer",
        );
    }
    control::unlockable(found, terminal, error).await
}

fn stdin() -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    let read = std::io::stdin()
        .lock()
        .take(STDIN_BYTES_MAX + 1)
        .read_to_end(&mut bytes);
    read.map_err(|error| CliError::new(Code::Failure, format!("stdin cannot be read: {error}")))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > STDIN_BYTES_MAX {
        return Err(CliError::new(
            Code::LimitExceeded,
            "at most 1 MiB can be typed at once",
        ));
    }
    Ok(bytes)
}
