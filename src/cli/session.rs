//! `leave` and `stop`.

use crate::cli::error::CliError;
use crate::cli::{Context, nodes};

/// Ends this membership.
pub(crate) async fn leave(context: &Context) -> Result<i32, CliError> {
    let found = nodes::one(context).await?;
    let answer = found
        .client
        .post("/api/v1/session/leave", &serde_json::json!({}))
        .await?;
    done(context, &answer, "left the session");
    Ok(0)
}

/// Ends the session for everybody.
pub(crate) async fn stop(context: &Context) -> Result<i32, CliError> {
    let found = nodes::one(context).await?;
    let answer = found.client.delete("/api/v1/session").await?;
    done(context, &answer, "the session is closed for everybody");
    Ok(0)
}

/// Prints the answer as JSON, or a sentence on stderr.
pub(crate) fn done(context: &Context, answer: &serde_json::Value, sentence: &str) {
    if context.output.json {
        context.output.value(answer);
    } else {
        context.output.say(sentence);
    }
}
