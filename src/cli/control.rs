//! `control`, `approve` and `deny`.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::error::CliError;
use crate::cli::nodes::{self, Found, items, text};
use crate::cli::output::shown;
use crate::cli::session::done;
use crate::cli::{Context, values};
use crate::engine::error::Code;
use crate::gateway::json::Time;

/// Ask for, give or take control of a terminal.
#[derive(Debug, Args)]
pub(crate) struct ControlArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Ask the host for control
    Request {
        /// Wait for the decision
        #[arg(long)]
        wait: bool,
        /// How long to wait
        #[arg(long, value_parser = values::duration, default_value = "120s", value_name = "DURATION")]
        timeout: Duration,
    },
    /// Give control to a participant
    Grant {
        /// Name, or id (6 characters suffice)
        who: String,
        /// For how long
        #[arg(long = "for", value_parser = values::duration, value_name = "DURATION")]
        duration: Option<Duration>,
    },
    /// Give control back
    Release,
    /// End whoever's control
    Revoke,
    /// Take control
    Take,
    /// End control and give none until unlocked
    Lock,
    /// Allow control again
    Unlock,
    /// Show who has control
    Status,
}

/// Whom a decision is about.
#[derive(Debug, Args)]
pub(crate) struct WhoArgs {
    /// Name, or id (6 characters suffice), of who waits
    who: String,
}

/// Runs one of the verbs.
pub(crate) async fn run(context: &Context, args: &ControlArgs) -> Result<i32, CliError> {
    let found = nodes::one(context).await?;
    let terminal = nodes::terminal(context, &found).await?;
    match &args.verb {
        Verb::Request { wait, timeout } => {
            request(context, &found, &terminal, *wait, *timeout).await
        }
        Verb::Grant { who, duration } => {
            let who = nodes::who(&found, who).await?;
            let seconds = duration.map(|duration| duration.as_secs());
            let body = json!({"terminal": terminal, "participant": who, "for": seconds});
            let answer = found.client.post("/api/v1/control/grant", &body).await;
            let answer = match answer {
                Ok(answer) => answer,
                Err(error) => return Err(unlockable(&found, &terminal, error.into()).await),
            };
            let control = state(&found, &terminal).await?;
            let given = text(&control, "holder") == who;
            let sentence = given.then(|| holder_line(&control));
            done(
                context,
                &answer,
                sentence.as_deref().unwrap_or("control is granted"),
            );
            Ok(0)
        }
        Verb::Release => {
            let control = state(&found, &terminal).await?;
            let sentence = if is(&control, "mine") {
                "control is given back"
            } else if is(&control, "requested") {
                "the request for control is withdrawn"
            } else {
                "you do not have control: there is nothing to give back"
            };
            simple(context, &found, &terminal, "release", sentence).await
        }
        Verb::Revoke => simple(context, &found, &terminal, "revoke", "control is revoked").await,
        Verb::Take => simple(context, &found, &terminal, "take", "control is taken").await,
        Verb::Lock => simple(context, &found, &terminal, "lock", "input is locked").await,
        Verb::Unlock => simple(context, &found, &terminal, "unlock", "input is unlocked").await,
        Verb::Status => status(context, &found, &terminal).await,
    }
}

async fn simple(
    context: &Context,
    found: &Found,
    terminal: &str,
    verb: &str,
    sentence: &str,
) -> Result<i32, CliError> {
    let path = format!("/api/v1/control/{verb}");
    let answer = found
        .client
        .post(&path, &json!({"terminal": terminal}))
        .await?;
    done(context, &answer, sentence);
    Ok(0)
}

async fn request(
    context: &Context,
    found: &Found,
    terminal: &str,
    wait: bool,
    timeout: Duration,
) -> Result<i32, CliError> {
    if is(&state(found, terminal).await?, "mine") {
        let answer = if wait {
            json!({"granted": true})
        } else {
            json!({})
        };
        done(context, &answer, "you have control already");
        return Ok(0);
    }
    let mut events = if wait {
        Some(found.client.events().await?)
    } else {
        None
    };
    let answer = found
        .client
        .post("/api/v1/control/request", &json!({"terminal": terminal}))
        .await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return Err(unlockable(found, terminal, error.into()).await),
    };
    let Some(events) = &mut events else {
        done(context, &answer, "the host is asked");
        return Ok(0);
    };
    context.output.say("waiting for the host's decision");
    let decided = async {
        loop {
            // The decision may have come before the stream was read: look at the state, then at the news.
            if let Some(decision) = decision_in_state(found, terminal).await? {
                return Ok(decision);
            }
            let Some(event) = events.next().await else {
                return Err(CliError::new(Code::PeerUnreachable, "the node has stopped"));
            };
            if let Some(granted) = decision(&event, terminal, &me(found)) {
                return Ok(granted);
            }
        }
    };
    match tokio::time::timeout(timeout, decided).await {
        Ok(Ok(true)) => {
            done(context, &json!({"granted": true}), "control is yours");
            Ok(0)
        }
        Ok(Ok(false)) => Err(CliError::new(Code::Denied, "the host refused control")),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            let message = format!("the host did not decide within {} s", timeout.as_secs());
            Err(CliError::new(Code::TimedOut, message))
        }
    }
}

async fn decision_in_state(found: &Found, terminal: &str) -> Result<Option<bool>, CliError> {
    let control = state(found, terminal).await?;
    Ok(is(&control, "mine").then_some(true))
}

/// Who has control of a terminal, who asks, and whether input is locked.
async fn state(found: &Found, terminal: &str) -> Result<Value, CliError> {
    let path = format!("/api/v1/control?terminal={terminal}");
    Ok(found.client.get(&path).await?)
}

fn is(value: &Value, key: &str) -> bool {
    value.get(key) == Some(&Value::Bool(true))
}

/// A refusal for want of control; where input is locked, with who can end that and how.
pub(crate) async fn unlockable(found: &Found, terminal: &str, error: CliError) -> CliError {
    let locked = error.code == Code::LeaseNotHeld
        && state(found, terminal)
            .await
            .is_ok_and(|control| is(&control, "locked"));
    if locked {
        error.with_help(
            "the terminal's host ends that: `collab-p2p control unlock`; `collab-p2p chat TEXT` asks for it",
        )
    } else {
        error
    }
}

/// Who has control, and for how long.
fn holder_line(control: &Value) -> String {
    let holder = control.get("holder_name").map(shown).unwrap_or_default();
    if holder.is_empty() {
        return "nobody has control".to_owned();
    }
    let ends = control.get("ends_at").and_then(Value::as_str);
    let left = ends.and_then(Time::parse).map(|Time(end)| {
        let left = end.0.saturating_sub(crate::node::clock::wall().0);
        values::span(Duration::from_millis(left))
    });
    match left {
        Some(left) => format!("{holder} has control, for another {left}"),
        None => format!("{holder} has control"),
    }
}

/// Who has control, for how long, and whether input is locked.
pub(crate) fn control_line(control: &Value) -> String {
    let line = holder_line(control);
    if is(control, "locked") {
        format!("{line}; input is locked")
    } else {
        line
    }
}

fn decision(event: &Value, terminal: &str, me: &str) -> Option<bool> {
    let data = event.get("data")?;
    if text(data, "terminal") != terminal || text(data, "participant") != me {
        return None;
    }
    match event.get("type")?.as_str()? {
        "control.granted" => Some(true),
        "control.denied" => Some(false),
        _ => None,
    }
}

fn me(found: &Found) -> String {
    found
        .session
        .get("me")
        .map(|me| text(me, "id"))
        .unwrap_or_default()
}

async fn status(context: &Context, found: &Found, terminal: &str) -> Result<i32, CliError> {
    let control = state(found, terminal).await?;
    if context.output.json {
        context.output.value(&control);
        return Ok(0);
    }
    context.output.line(&control_line(&control));
    for request in control.get("requests").map(items).unwrap_or_default() {
        let name = request.get("name").map(shown).unwrap_or_default();
        let key: String = text(request, "id").chars().take(10).collect();
        context
            .output
            .line(&format!("{name} (key {key}) asks for control"));
        context.output.line(&format!(
            "  `collab-p2p control grant {key}` gives it, `deny {key}` refuses"
        ));
    }
    Ok(0)
}

/// Refuses whoever asks for control.
async fn deny_request(context: &Context, found: &Found, who: &str) -> Result<Value, CliError> {
    let terminal = nodes::terminal(context, found).await?;
    let control = state(found, &terminal).await?;
    let requests = control.get("requests").map(items).unwrap_or_default();
    let one = nodes::pick(requests, "name", who, NOBODY_WAITS)?;
    let body = json!({"terminal": terminal, "participant": text(one, "id")});
    Ok(found.client.post("/api/v1/control/deny", &body).await?)
}

const NOBODY_WAITS: (Code, Code, &str) = (
    Code::NoApproval,
    Code::WhichParticipant,
    "nobody called `{}` waits",
);

/// Lets a newcomer in, or refuses a newcomer or who asks for control.
pub(crate) async fn approve(
    context: &Context,
    args: &WhoArgs,
    approve: bool,
) -> Result<i32, CliError> {
    let found = nodes::one(context).await?;
    let waiting = found.client.get("/api/v1/approvals").await?;
    let by_member = |approval: &Value| {
        let mut value = approval.clone();
        let member = text(approval, "member");
        if let Some(value) = value.as_object_mut() {
            value.insert("approval".to_owned(), json!(text(approval, "id")));
            value.insert("id".to_owned(), json!(member));
        }
        value
    };
    let waiting: Vec<Value> = items(&waiting).iter().map(by_member).collect();
    let one = match nodes::pick_newcomer(&waiting, &args.who, NOBODY_WAITS) {
        Err(error) if error.code == Code::NoApproval && !approve => {
            // Of both errors the one about newcomers says more.
            let answer = deny_request(context, &found, &args.who).await;
            let nobody = [Code::NoApproval, Code::NoTerminalShared];
            let answer = match answer {
                Err(other) if nobody.contains(&other.code) => return Err(error),
                answer => answer?,
            };
            done(context, &answer, "refused control");
            return Ok(0);
        }
        one => one?,
    };
    let verb = if approve { "approve" } else { "deny" };
    let path = format!("/api/v1/approvals/{}/{verb}", text(one, "approval"));
    let answer = found.client.post(&path, &json!({})).await?;
    done(context, &answer, if approve { "let in" } else { "refused" });
    Ok(0)
}
