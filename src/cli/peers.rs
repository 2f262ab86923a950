//! `status`, `list` and `who`.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::Context;
use crate::cli::error::{CliError, help};
use crate::cli::nodes::{self, Found, items, text};
use crate::cli::output::{self, shown};
use crate::engine::documents::text::inert;
use crate::gateway::client::memberships;
use crate::gateway::json::Membership;
use crate::node::folder::MemberKind;

/// Print once, or again and again.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// Print again every second
    #[arg(long)]
    watch: bool,
}

const WATCH_EVERY: Duration = Duration::from_secs(1);

/// The session, its connections and what waits.
pub(crate) async fn status(context: &Context, args: &WatchArgs) -> Result<i32, CliError> {
    loop {
        let found = nodes::one(context).await?;
        let status = gather(&found).await?;
        if args.watch && !context.output.json && !context.output.again() {
            return Ok(0);
        }
        if context.output.json {
            if !context.output.value(&status) {
                return Ok(0);
            }
        } else {
            print_status(context, &status);
        }
        if !args.watch {
            return Ok(0);
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

async fn gather(found: &Found) -> Result<Value, CliError> {
    let session = found.client.get("/api/v1/session").await?;
    let peers = found.client.get("/api/v1/peers").await?;
    let participants = found.client.get("/api/v1/participants").await?;
    let terminals = found.client.get("/api/v1/terminals").await?;
    let approvals = found.client.get("/api/v1/approvals").await?;
    let network = found.client.get("/api/v1/network").await?;
    let queues = found.client.get("/api/v1/queues").await?;
    Ok(json!({
        "session": session,
        "network": network,
        "peers": items(&peers),
        "participants": items(&participants),
        "terminals": items(&terminals),
        "approvals": items(&approvals),
        "queues": items(&queues),
    }))
}

fn print_status(context: &Context, status: &Value) {
    let session = status.get("session").cloned().unwrap_or(Value::Null);
    let field = |key: &str| session.get(key).map(shown).unwrap_or_default();
    let output = &context.output;
    output.line(&format!("session   {} ({})", field("title"), field("id")));
    output.line(&format!("role      {}", field("role")));
    let network = status.get("network").cloned().unwrap_or(Value::Null);
    let people = status.get("participants").map(items).unwrap_or_default();
    output.line(&format!(
        "network   {}",
        network_line(&network, people.len() > 1)
    ));
    if let Some(unsaved) = session.get("unsaved").filter(|one| !one.is_null()) {
        output.line(&format!("saving    {}", unsaved_line(unsaved)));
    }
    for terminal in status.get("terminals").map(items).unwrap_or_default() {
        output.line(&format!("terminal  {}", terminal_line(terminal)));
    }
    for approval in status.get("approvals").map(items).unwrap_or_default() {
        let field = |key: &str| approval.get(key).map(shown).unwrap_or_default();
        // The name is the newcomer's own choice; a command that a person may paste holds the front of the key.
        let key: String = field("member").chars().take(10).collect();
        output.line(&format!(
            "waiting   {} wants in as {}: `collab-p2p approve {key}` or `deny {key}`",
            field("name"),
            field("role"),
        ));
    }
    let rows: Vec<Vec<String>> = people.iter().map(participant_row).collect();
    output.table(&PARTICIPANT_HEAD, &rows);
}

/// Why nothing is saved, and what to do: the code's own help.
fn unsaved_line(unsaved: &Value) -> String {
    let code = serde_json::from_value(unsaved["code"].clone());
    let help = code.map_or("", |code| help(code));
    format!(
        "nothing is saved: {}; {help}",
        inert(&text(unsaved, "message"))
    )
}

fn network_line(network: &Value, others: bool) -> String {
    match text(network, "state").as_str() {
        "live" => "live".to_owned(),
        "catching-up" => format!("catching up, {} to come", shown(&network["waiting"])),
        "offline" => {
            let waits = text(network, "waits_for");
            if !others {
                // Nothing waits for anybody.
                return waits;
            }
            format!(
                "offline, {} of ours waiting; {waits}",
                shown(&network["waiting"])
            )
        }
        other => other.to_owned(),
    }
}

fn terminal_line(terminal: &Value) -> String {
    let field = |key: &str| terminal.get(key).map(shown).unwrap_or_default();
    let id: String = field("id").chars().take(10).collect();
    let open = terminal.get("open") == Some(&Value::Bool(true));
    let state = if open {
        "open".to_owned()
    } else {
        match field("status").as_str() {
            "" => "closed".to_owned(),
            status => format!("closed, status {status}"),
        }
    };
    format!(
        "{id} {} {}x{} {state}",
        field("title"),
        field("cols"),
        field("rows")
    )
}

const PARTICIPANT_HEAD: [&str; 7] = ["ID", "NAME", "ROLE", "STATUS", "PATH", "RTT", "LACKS"];

fn participant_row(participant: &Value) -> Vec<String> {
    let field = |key: &str| participant.get(key).map(shown).unwrap_or_default();
    let me = participant.get("me") == Some(&Value::Bool(true));
    let name = if me {
        format!("{} (me)", field("name"))
    } else {
        field("name")
    };
    let rtt = participant.get("rtt").and_then(Value::as_f64);
    vec![
        field("id").chars().take(10).collect(),
        name,
        field("role"),
        field("status"),
        field("path"),
        rtt.map(|rtt| format!("{rtt:.1} ms")).unwrap_or_default(),
        field("lacks"),
    ]
}

/// Participants, present and absent.
pub(crate) async fn who(context: &Context, args: &WatchArgs) -> Result<i32, CliError> {
    loop {
        let found = nodes::one(context).await?;
        let participants = found.client.get("/api/v1/participants").await?;
        if args.watch && !context.output.json && !context.output.again() {
            return Ok(0);
        }
        if context.output.json {
            if !context.output.value(&participants) {
                return Ok(0);
            }
        } else {
            let rows: Vec<Vec<String>> = items(&participants).iter().map(participant_row).collect();
            context.output.table(&PARTICIPANT_HEAD, &rows);
        }
        if !args.watch {
            return Ok(0);
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

/// Sessions of this state folder, running or not; those that are over come last.
pub(crate) async fn list(context: &Context, args: &WatchArgs) -> Result<i32, CliError> {
    loop {
        let sessions = memberships(&nodes::folders(context)?).await;
        if args.watch && !context.output.json && !context.output.again() {
            return Ok(0);
        }
        if context.output.json {
            if !context.output.value(&json!({"items": sessions})) {
                return Ok(0);
            }
        } else {
            let rows: Vec<Vec<String>> = sessions.iter().map(session_row).collect();
            context.output.table(&SESSION_HEAD, &rows);
        }
        if !args.watch {
            return Ok(0);
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

const SESSION_HEAD: [&str; 7] = [
    "SESSION",
    "TITLE",
    "MEMBER",
    "NAME",
    "ROLE",
    "STATE",
    "LAST USED",
];

fn session_row(session: &Membership) -> Vec<String> {
    let state = match (session.running, session.ended) {
        (true, _) => "running",
        (false, true) => "ended",
        (false, false) => "stopped",
    };
    let text = |text: &Option<String>| text.as_deref().map(inert).unwrap_or_default();
    let kind = match session.kind {
        MemberKind::Host => "host",
        MemberKind::Guest => "guest",
    };
    vec![
        session.session.short(),
        text(&session.title),
        session.member.short(),
        text(&session.name),
        session.role.map_or(kind, |role| role.name()).to_owned(),
        state.to_owned(),
        output::time(session.last_used.0),
    ]
}
