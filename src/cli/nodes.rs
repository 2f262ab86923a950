//! Which running node a verb speaks to (INTERFACES §2), and who WHO is.

use serde_json::Value;

use crate::cli::Context;
use crate::cli::error::CliError;
use crate::engine::documents::text::inert;
use crate::engine::error::Code;
use crate::gateway::client::Client;
use crate::node::folder::{Folders, MemberInfo, MemberKind, NodeRecord};

/// The folders that flags and environment name.
pub(crate) fn folders(context: &Context) -> Result<Folders, CliError> {
    Folders::resolve(context.global.state_dir.clone(), &context.env.paths())
        .map_err(|error| CliError::new(error.code(), error.to_string()))
}

/// A running node and its session as it describes it.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) client: Client,
    pub(crate) record: NodeRecord,
    pub(crate) session: Value,
}

/// Every running node of the state folder that answers.
pub(crate) async fn all(context: &Context) -> Result<Vec<Found>, CliError> {
    let mut found = Vec::new();
    for record in folders(context)?.own_nodes() {
        let client = Client::new(record.socket.clone());
        if let Ok(session) = client.get("/api/v1/session").await {
            found.push(Found {
                client,
                record,
                session,
            });
        }
    }
    Ok(found)
}

/// The node meant by the flags.
pub(crate) async fn one(context: &Context) -> Result<Found, CliError> {
    let mut found = all(context).await?;
    if let Some(session) = &context.global.session {
        let id_or_title = |found: &Found| names(&found.session, "title", session);
        found.retain(id_or_title);
    }
    if let Some(member) = &context.global.member {
        found.retain(|found| {
            let me = found.session.get("me").cloned().unwrap_or(Value::Null);
            names(&me, "name", member)
        });
    } else if same_session(&found) && found.iter().any(is_host) {
        found.retain(is_host);
    }
    let count = found.len();
    match (found.pop(), count) {
        (Some(found), 1) => Ok(found),
        (None, _) => Err(none(context)),
        (Some(last), _) => {
            found.push(last);
            Err(several(&found))
        }
    }
}

/// Nothing runs that a verb could speak to; what is stopped can be resumed.
fn none(context: &Context) -> CliError {
    let global = &context.global;
    let mut stopped = folders(context)
        .map(|folders| folders.list())
        .unwrap_or_default();
    stopped.retain(|info| !info.running && !info.ended);
    if let Some(session) = &global.session {
        stopped.retain(|info| is_session(info, session));
    }
    if let Some(member) = &global.member {
        stopped.retain(|info| is_member(info, member));
    }
    let error = CliError::new(Code::NoSession, "no such session runs here");
    match stopped.first() {
        Some(info) => {
            let id: String = info.session.to_string().chars().take(10).collect();
            let title = info.label().map(|label| inert(&label.title));
            let title = title.map(|title| format!(" ({title})")).unwrap_or_default();
            error.with_help(format!(
                "{id}{title} is stopped here: `collab-p2p resume {id}` goes on with it"
            ))
        }
        None => error,
    }
}

/// Several nodes run: of several sessions, or of one.
fn several(found: &[Found]) -> CliError {
    let names: Vec<String> = found.iter().map(describe).collect();
    let names = names.join(", ");
    if same_session(found) {
        let message = format!("several members of one session run here: {names}");
        return CliError::new(Code::WhichSession, message).with_help(
            "name one with --member: its name, or its id as `collab-p2p list` shows it",
        );
    }
    let message = format!("several sessions run here: {names}");
    CliError::new(Code::WhichSession, message)
}

/// Whether a text names the session of a membership: its title, or the beginning of its id.
pub(crate) fn is_session(info: &MemberInfo, text: &str) -> bool {
    let id = info.session.to_string();
    begins(&id, text) || info.is_titled(text)
}

/// Whether a text names the member: its name, or the beginning of its id.
pub(crate) fn is_member(info: &MemberInfo, text: &str) -> bool {
    let id = info.member.to_string();
    begins(&id, text) || info.is_named(text)
}

fn begins(id: &str, text: &str) -> bool {
    text.len() >= 6 && id.starts_with(&text.to_lowercase())
}

fn is_host(found: &Found) -> bool {
    found.record.kind == MemberKind::Host
}

fn same_session(found: &[Found]) -> bool {
    found.windows(2).all(|pair| match pair {
        [a, b] => a.record.session == b.record.session,
        _ => true,
    })
}

fn describe(found: &Found) -> String {
    let text = |key: &str| {
        found
            .session
            .get(key)
            .map(crate::cli::output::shown)
            .unwrap_or_default()
    };
    let me = found.session.get("me").and_then(|me| me.get("name"));
    let me = me.map(crate::cli::output::shown).unwrap_or_default();
    let front = |id: String| id.chars().take(10).collect::<String>();
    let (id, member) = (front(text("id")), front(found.record.member.to_string()));
    format!("{id} ({}, as {me}, member {member})", text("title"))
}

/// Whether `wanted` names `value`: its name without regard to case, or at least 6 characters of its id.
pub(crate) fn names(value: &Value, name_key: &str, wanted: &str) -> bool {
    let name = value
        .get(name_key)
        .and_then(Value::as_str)
        .unwrap_or_default();
    let id = value.get("id").and_then(Value::as_str).unwrap_or_default();
    name.to_lowercase() == wanted.to_lowercase()
        || (wanted.len() >= 6 && id.starts_with(&wanted.to_lowercase()))
}

/// The one thing of a list that is meant.
pub(crate) fn pick<'a>(
    list: &'a [Value],
    name_key: &str,
    wanted: &str,
    (none, several, what): (Code, Code, &str),
) -> Result<&'a Value, CliError> {
    let fits: Vec<&Value> = list
        .iter()
        .filter(|value| names(value, name_key, wanted))
        .collect();
    match fits.as_slice() {
        [one] => Ok(*one),
        [] => Err(CliError::new(none, what.replace("{}", &inert(wanted)))),
        many => {
            let ids: Vec<&str> = many
                .iter()
                .filter_map(|value| value.get("id"))
                .filter_map(Value::as_str)
                .collect();
            let message = format!("several are called `{wanted}`: {}", ids.join(", "));
            Err(CliError::new(several, message))
        }
    }
}

/// The items of a list that the API returned.
pub(crate) fn items(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) => items,
        Value::Object(object) => object
            .get("items")
            .and_then(Value::as_array)
            .map_or(&[], Vec::as_slice),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => &[],
    }
}

/// The id of a participant.
pub(crate) async fn who(found: &Found, wanted: &str) -> Result<String, CliError> {
    let participants = found.client.get("/api/v1/participants").await?;
    let codes = (
        Code::NoParticipant,
        Code::WhichParticipant,
        "nobody here is called `{}`",
    );
    Ok(text(
        pick(items(&participants), "name", wanted, codes)?,
        "id",
    ))
}

/// The id of the terminal meant: by `-t`, else the only open one.
pub(crate) async fn terminal(context: &Context, found: &Found) -> Result<String, CliError> {
    let terminals = found.client.get("/api/v1/terminals").await?;
    let terminals = items(&terminals);
    let codes = (
        Code::NoTerminalShared,
        Code::WhichTerminal,
        "no terminal here is called `{}`",
    );
    if let Some(wanted) = &context.global.terminal {
        return Ok(text(pick(terminals, "title", wanted, codes)?, "id"));
    }
    let open = |terminal: &&Value| terminal.get("open") == Some(&Value::Bool(true));
    let open: Vec<&Value> = terminals.iter().filter(open).collect();
    match open.as_slice() {
        [one] => Ok(text(one, "id")),
        [] => Err(CliError::new(
            codes.0,
            "no terminal is open in this session",
        )),
        many => {
            let ids: Vec<String> = many.iter().map(|terminal| text(terminal, "id")).collect();
            let message = format!("several terminals are open: {}", ids.join(", "));
            Err(CliError::new(codes.1, message))
        }
    }
}

/// A text field, empty if absent.
pub(crate) fn text(value: &Value, key: &str) -> String {
    value
        .get(key)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}
