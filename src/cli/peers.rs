//! `status`, `list` and `who`.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::Context;
use crate::cli::error::CliError;
use crate::cli::nodes::{self, Found, items, text};
use crate::cli::output::shown;

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
        if context.output.json {
            context.output.value(&status);
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
    Ok(json!({
        "session": session,
        "network": network,
        "peers": items(&peers),
        "participants": items(&participants),
        "terminals": items(&terminals),
        "approvals": items(&approvals),
    }))
}

fn print_status(context: &Context, status: &Value) {
    let session = status.get("session").cloned().unwrap_or(Value::Null);
    let field = |key: &str| session.get(key).map(shown).unwrap_or_default();
    let output = &context.output;
    output.line(&format!("session   {} ({})", field("title"), field("id")));
    output.line(&format!("role      {}", field("role")));
    let network = status.get("network").cloned().unwrap_or(Value::Null);
    output.line(&format!("network   {}", network_line(&network)));
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
    let rows: Vec<Vec<String>> = status
        .get("participants")
        .map(items)
        .unwrap_or_default()
        .iter()
        .map(participant_row)
        .collect();
    output.table(&PARTICIPANT_HEAD, &rows);
}

fn network_line(network: &Value) -> String {
    match text(network, "state").as_str() {
        "live" => "live".to_owned(),
        "catching-up" => format!("catching up, {} to come", shown(&network["waiting"])),
        "offline" => {
            let waits = text(network, "waits_for");
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
        format!("closed, status {}", field("status"))
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
        if context.output.json {
            context.output.value(&participants);
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

/// Sessions of this state folder, running or not.
pub(crate) async fn list(context: &Context, args: &WatchArgs) -> Result<i32, CliError> {
    loop {
        let sessions = sessions(context).await?;
        if context.output.json {
            context.output.value(&Value::Array(sessions));
        } else {
            let rows: Vec<Vec<String>> = sessions.iter().map(session_row).collect();
            context.output.table(
                &["SESSION", "TITLE", "NAME", "ROLE", "STATE", "LAST USED"],
                &rows,
            );
        }
        if !args.watch {
            return Ok(0);
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

async fn sessions(context: &Context) -> Result<Vec<Value>, CliError> {
    let running = nodes::all(context).await?;
    let mut sessions = Vec::new();
    for info in nodes::folders(context)?.list() {
        let found = running
            .iter()
            .find(|found| found.record.member == info.member);
        let known = found.map_or(Value::Null, |found| found.session.clone());
        let me = known.get("me").map(|me| text(me, "name"));
        sessions.push(json!({
            "session": info.session.to_string(),
            "member": info.member.to_string(),
            "kind": info.kind,
            "running": found.is_some(),
            "ended": info.ended,
            "title": known.get("title"),
            "name": me,
            "role": known.get("role"),
            "last_used": crate::cli::output::time(info.last_used),
        }));
    }
    Ok(sessions)
}

fn session_row(session: &Value) -> Vec<String> {
    let field = |key: &str| session.get(key).map(shown).unwrap_or_default();
    let flag = |key: &str| session.get(key) == Some(&Value::Bool(true));
    let state = match (flag("running"), flag("ended")) {
        (true, _) => "running",
        (false, true) => "ended",
        (false, false) => "stopped",
    };
    vec![
        field("session").chars().take(10).collect(),
        field("title"),
        field("name"),
        if field("role").is_empty() {
            field("kind")
        } else {
            field("role")
        },
        state.to_owned(),
        field("last_used"),
    ]
}
