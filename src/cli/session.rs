//! `leave` and `stop`.

use serde_json::Value;

use crate::cli::error::CliError;
use crate::cli::nodes::Found;
use crate::cli::{Context, nodes};

/// Ends this membership.
pub(crate) async fn leave(context: &Context) -> Result<i32, CliError> {
    let found = nodes::one(context).await?;
    let others = others(&found).await?;
    let answer = found
        .client
        .post("/api/v1/session/leave", &serde_json::json!({}))
        .await?;
    let owner = found.session.get("owner") == Some(&Value::Bool(true));
    let left = match (owner, others) {
        (true, 1..) => format!(
            "left the session, which goes on for the others ({others}); `stop` would have ended it for everybody"
        ),
        (true, 0) | (false, _) => "left the session".to_owned(),
    };
    done(context, &answer, &left);
    Ok(0)
}

/// How many others are there now.
async fn others(found: &Found) -> Result<usize, CliError> {
    let participants = found.client.get("/api/v1/participants").await?;
    let here = |one: &&Value| {
        one.get("me") != Some(&Value::Bool(true)) && nodes::text(one, "status") != "gone"
    };
    Ok(nodes::items(&participants).iter().filter(here).count())
}

/// Ends the session for everybody.
pub(crate) async fn stop(context: &Context) -> Result<i32, CliError> {
    let found = nodes::one(context).await?;
    let answer = found.client.delete("/api/v1/session").await?;
    done(context, &answer, "the session is closed for everybody");
    Ok(0)
}

/// Prints the answer as JSON, or a sentence on stderr.
pub(crate) fn done(context: &Context, answer: &Value, sentence: &str) {
    if context.output.json {
        context.output.value(answer);
    } else {
        context.output.say(sentence);
    }
}
