//! `status`, `list` and `who`.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::control::control_line;
use crate::cli::error::{CliError, help};
use crate::cli::nodes::{self, Found, items, text};
use crate::cli::output::{Column, shown};
use crate::cli::{Context, values};
use crate::engine::documents::text::inert;
use crate::engine::time::Wall;
use crate::gateway::client::memberships;
use crate::gateway::json::{Membership, Time};
use crate::node::clock::wall;
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
        let read = if context.output.json {
            context.output.value(&status)
        } else {
            let page = status_page(context, &status, wall());
            context.output.page(&page, args.watch)
        };
        if !args.watch || !read {
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

fn status_page(context: &Context, status: &Value, now: Wall) -> Vec<String> {
    let session = status.get("session").unwrap_or(&Value::Null);
    let field = |key: &str| session.get(key).map(shown).unwrap_or_default();
    let me = session.get("me").and_then(|me| me.get("name"));
    let me = me.map(shown).unwrap_or_default();
    let network = status.get("network").unwrap_or(&Value::Null);
    let people = status.get("participants").map(items).unwrap_or_default();
    let alone = people.len() <= 1;
    let mut page = vec![
        format!("session   {} ({})", field("title"), front(&field("id"))),
        format!("you       {me}, {}", field("role")),
        format!("network   {}", network_line(network, !alone)),
    ];
    if let Some(unsaved) = session.get("unsaved").filter(|one| !one.is_null()) {
        page.push(format!("saving    {}", unsaved_line(unsaved)));
    }
    if alone {
        page.push("next      `collab-p2p invite show` prints the ticket for others".to_owned());
    }
    for terminal in status.get("terminals").map(items).unwrap_or_default() {
        page.push(format!("terminal  {}", terminal_line(terminal)));
    }
    for approval in status.get("approvals").map(items).unwrap_or_default() {
        let field = |key: &str| approval.get(key).map(shown).unwrap_or_default();
        // The name is the newcomer's own choice; a command that a person may paste holds the front of the key.
        let key = front(&field("member"));
        page.push(format!(
            "waiting   {} wants in as {}: `collab-p2p approve {key}` or `deny {key}`",
            field("name"),
            field("role"),
        ));
    }
    page.push(String::new());
    page.extend(participants_table(context, people, now));
    page
}

/// The front of an id or a key, long enough to name it.
fn front(id: &str) -> String {
    id.chars().take(10).collect()
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
    let open = terminal.get("open") == Some(&Value::Bool(true));
    let state = if open {
        let control = terminal.get("control").unwrap_or(&Value::Null);
        let held = control.get("holder").is_some_and(Value::is_string);
        let locked = control.get("locked") == Some(&Value::Bool(true));
        if held || locked {
            format!("open, {}", control_line(control))
        } else {
            "open".to_owned()
        }
    } else {
        match field("status").as_str() {
            "" => "closed".to_owned(),
            status => format!("closed, status {status}"),
        }
    };
    format!(
        "{} {} {}x{} {state}",
        front(&field("id")),
        field("title"),
        field("cols"),
        field("rows")
    )
}

const PARTICIPANT_HEAD: [Column; 7] = [
    Column::whole("ID"),
    Column::chosen("NAME"),
    Column::whole("ROLE"),
    Column::whole("STATUS"),
    Column::whole("PATH"),
    Column::whole("RTT"),
    Column::whole("LACKS"),
];

fn participants_table(context: &Context, people: &[Value], now: Wall) -> Vec<String> {
    let row = |participant| participant_row(participant, now);
    let rows: Vec<Vec<String>> = people.iter().map(row).collect();
    context.output.table(&PARTICIPANT_HEAD, &rows)
}

fn participant_row(participant: &Value, now: Wall) -> Vec<String> {
    let field = |key: &str| participant.get(key).map(shown).unwrap_or_default();
    let me = participant.get("me") == Some(&Value::Bool(true));
    let name = if me {
        format!("{} (me)", field("name"))
    } else {
        field("name")
    };
    let rtt = participant.get("rtt").and_then(Value::as_f64);
    let last = participant.get("last_active").and_then(Value::as_str);
    let status = match (field("status"), last.and_then(Time::parse)) {
        (status, Some(Time(last))) if status != "online" => {
            format!("{status} {}", values::short(now.since(last)))
        }
        (status, Some(_) | None) => status,
    };
    vec![
        front(&field("id")),
        name,
        field("role"),
        status,
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
        let read = if context.output.json {
            context.output.value(&participants)
        } else {
            let page = participants_table(context, items(&participants), wall());
            context.output.page(&page, args.watch)
        };
        if !args.watch || !read {
            return Ok(0);
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

/// Sessions of this state folder, running or not; those that are over come last.
pub(crate) async fn list(context: &Context, args: &WatchArgs) -> Result<i32, CliError> {
    loop {
        let sessions = memberships(&nodes::folders(context)?).await;
        let read = if context.output.json {
            context.output.value(&json!({"items": sessions}))
        } else if sessions.is_empty() && !args.watch {
            context.output.say(NO_SESSIONS);
            true
        } else {
            let rows: Vec<Vec<String>> = sessions
                .iter()
                .map(|session| session_row(session, wall()))
                .collect();
            let mut page = context.output.table(&SESSION_HEAD, &rows);
            if sessions.is_empty() {
                page.push(NO_SESSIONS.to_owned());
            }
            context.output.page(&page, args.watch)
        };
        if !args.watch || !read {
            return Ok(0);
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

/// What to do where there is nothing yet.
const NO_SESSIONS: &str =
    "no sessions yet: `collab-p2p share` begins one, `join TICKET` enters one";

const SESSION_HEAD: [Column; 7] = [
    Column::whole("SESSION"),
    Column::chosen("TITLE"),
    Column::whole("MEMBER"),
    Column::chosen("NAME"),
    Column::whole("ROLE"),
    Column::whole("STATE"),
    Column::whole("LAST USED"),
];

fn session_row(session: &Membership, now: Wall) -> Vec<String> {
    let state = match (session.running, session.ended) {
        (true, _) => "running",
        (false, true) => "ended",
        (false, false) => "stopped",
    };
    let used = if session.running {
        "now".to_owned()
    } else {
        format!("{} ago", values::short(now.since(session.last_used.0)))
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
        used,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Wall = Wall(1_700_000_000_000);

    fn at(ago: u64) -> Value {
        json!(crate::cli::output::time(Wall(NOW.0 - ago * 1_000)))
    }

    #[test]
    fn who_is_not_there_is_listed_with_the_time_since() {
        let person = |status: &str, ago| {
            let person = json!({"id": "a1b2c3d4e5f6", "name": "bob", "role": "viewer", "me": false,
                "status": status, "last_active": at(ago), "rtt": 2.34, "path": "lan", "lacks": 0});
            participant_row(&person, NOW)
        };
        assert_eq!(
            person("idle", 130),
            [
                "a1b2c3d4e5",
                "bob",
                "viewer",
                "idle 2 min",
                "lan",
                "2.3 ms",
                "0"
            ]
        );
        assert_eq!(person("online", 130)[3], "online");
    }

    #[test]
    fn a_terminal_is_listed_with_who_has_control_of_it() {
        let mut terminal = json!({"id": "79998e9c0623", "title": "demo", "cols": 80, "rows": 23,
            "open": true, "status": null, "control": {"holder": "4c43", "holder_name": "ben", "locked": false}});
        assert_eq!(
            terminal_line(&terminal),
            "79998e9c06 demo 80x23 open, ben has control"
        );
        terminal["control"] = json!({"holder": null, "holder_name": null, "locked": false});
        assert_eq!(terminal_line(&terminal), "79998e9c06 demo 80x23 open");
        terminal["control"] = json!({"holder": null, "holder_name": null, "locked": true});
        assert_eq!(
            terminal_line(&terminal),
            "79998e9c06 demo 80x23 open, nobody has control; input is locked"
        );
        terminal["open"] = json!(false);
        terminal["status"] = json!(3);
        assert_eq!(
            terminal_line(&terminal),
            "79998e9c06 demo 80x23 closed, status 3"
        );
    }
}
