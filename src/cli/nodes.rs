//! Which running node a verb speaks to (INTERFACES §2), and who WHO is.

use std::time::Duration;

use serde_json::Value;
use tokio::task::{JoinError, JoinHandle};

use crate::cli::Context;
use crate::cli::error::CliError;
use crate::engine::documents::text::inert;
use crate::engine::error::Code;
use crate::gateway::client::Client;
use crate::node::folder::{Folders, MemberInfo, MemberKind, NodeRecord};

/// A wait that takes longer is told.
const SAY_AFTER: Duration = Duration::from_secs(1);

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

/// Nodes of the state folder that run: those that describe their session, and those whose process listens but says
/// nothing, because it is stopped or overwhelmed.
#[derive(Debug, Default)]
struct Running {
    found: Vec<Found>,
    silent: Vec<NodeRecord>,
}

/// Asks every node at once, so that silent ones cost their wait only once.
async fn running(context: &Context) -> Result<Running, CliError> {
    let mut asked = Vec::new();
    for record in folders(context)?.own_nodes() {
        let client = Client::new(record.socket.clone());
        let session = tokio::spawn({
            let client = client.brisk();
            async move { client.get("/api/v1/session").await }
        });
        asked.push((client, record, session));
    }
    let mut running = Running::default();
    for (client, record, session) in asked {
        match patiently(context, &record, session).await {
            Ok(Ok(session)) => running.found.push(Found {
                client,
                record,
                session,
            }),
            Ok(Err(_)) | Err(_) => running.silent.push(record),
        }
    }
    Ok(running)
}

/// Awaits what a node answers, and says so if that takes long.
async fn patiently<T>(
    context: &Context,
    node: &NodeRecord,
    mut answer: JoinHandle<T>,
) -> Result<T, JoinError> {
    if let Ok(answer) = tokio::time::timeout(SAY_AFTER, &mut answer).await {
        return answer;
    }
    let pid = node.pid;
    context
        .output
        .say(&format!("waiting for process {pid} to answer"));
    answer.await
}

/// The node meant by the flags.
pub(crate) async fn one(context: &Context) -> Result<Found, CliError> {
    let Running { mut found, silent } = running(context).await?;
    if let Some(session) = &context.global.session {
        keep_meant(
            &mut found,
            |found| has_id(&found.session, session),
            |found| is_called(&found.session, "title", session),
        );
    }
    if let Some(member) = &context.global.member {
        let me = |found: &Found| found.session.get("me").cloned().unwrap_or(Value::Null);
        keep_meant(
            &mut found,
            |found| has_id(&me(found), member),
            |found| is_called(&me(found), "name", member),
        );
    } else if same_session(&found) && found.iter().any(is_host) {
        found.retain(is_host);
    }
    let count = found.len();
    match (found.pop(), count) {
        (Some(found), 1) => match meant_before(context, &found, &silent) {
            Some(silent) => Err(silent),
            None => Ok(found),
        },
        (None, _) => Err(silence(context, &silent).unwrap_or_else(|| none(context))),
        (Some(last), _) => {
            found.push(last);
            Err(several(&found))
        }
    }
}

/// Who is silent may be the one that is meant: the host of the session, or, where no session is named, another's node.
/// No other node answers in its place.
fn meant_before(context: &Context, found: &Found, silent: &[NodeRecord]) -> Option<CliError> {
    let global = &context.global;
    let meant = |node: &&NodeRecord| match node.session == found.record.session {
        true => global.member.is_none() && node.kind == MemberKind::Host,
        false => global.session.is_none() && global.member.is_none(),
    };
    let meant: Vec<NodeRecord> = silent.iter().filter(meant).cloned().collect();
    silence(context, &meant)
}

/// The node meant is one that runs and says nothing.
fn silence(context: &Context, silent: &[NodeRecord]) -> Option<CliError> {
    let global = &context.global;
    let mut here = folders(context).ok()?.list();
    here.retain(|info| silent.iter().any(|node| node.member == info.member));
    if let Some(session) = &global.session {
        keep_session(&mut here, session);
    }
    if let Some(member) = &global.member {
        keep_member(&mut here, member);
    }
    let info = here.first()?;
    let node = silent.iter().find(|node| node.member == info.member)?;
    let id: String = info.session.to_string().chars().take(10).collect();
    let pid = node.pid;
    let message = format!("the node of session {id} runs as process {pid} but does not answer");
    let help = format!(
        "if it was stopped, `kill -CONT {pid}` lets it go on; else end it with `kill {pid}`, and `collab-p2p resume {id}`"
    );
    Some(CliError::new(Code::PeerUnreachable, message).with_help(help))
}

/// Nothing runs that a verb could speak to; what is stopped can be resumed.
fn none(context: &Context) -> CliError {
    let global = &context.global;
    let mut stopped = folders(context)
        .map(|folders| folders.list())
        .unwrap_or_default();
    stopped.retain(|info| !info.running && !info.ended);
    if let Some(session) = &global.session {
        keep_session(&mut stopped, session);
    }
    if let Some(member) = &global.member {
        keep_member(&mut stopped, member);
    }
    let named = global.session.is_some() || global.member.is_some();
    let such = if named { "such " } else { "" };
    let error = CliError::new(Code::NoSession, format!("no {such}session runs here"));
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

/// Keeps the memberships whose session a text names: by the beginning of its id, or else by its title.
pub(crate) fn keep_session(members: &mut Vec<MemberInfo>, text: &str) {
    keep_meant(
        members,
        |info| begins(&info.session.to_string(), text),
        |info| info.is_titled(text),
    );
}

/// Keeps the memberships whose member a text names: by the beginning of its id, or else by its name.
pub(crate) fn keep_member(members: &mut Vec<MemberInfo>, text: &str) {
    keep_meant(
        members,
        |info| begins(&info.member.to_string(), text),
        |info| info.is_named(text),
    );
}

/// Keeps what fits by its id, or, only where no id fits, by its name: everybody chooses their own name, and it never
/// stands in for somebody else's id.
fn keep_meant<T>(list: &mut Vec<T>, by_id: impl Fn(&T) -> bool, by_name: impl Fn(&T) -> bool) {
    if list.iter().any(&by_id) {
        list.retain(by_id);
    } else {
        list.retain(by_name);
    }
}

/// Fewest digits of an id that name it.
const PREFIX_MIN: usize = 6;

/// Whether `text` is enough of an id, and its beginning.
fn begins(id: &str, text: &str) -> bool {
    text.len() >= PREFIX_MIN && id.starts_with(&text.to_lowercase())
}

fn looks_like_id(text: &str) -> bool {
    text.len() >= PREFIX_MIN && text.bytes().all(|byte| byte.is_ascii_hexdigit())
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

fn has_id(value: &Value, wanted: &str) -> bool {
    begins(&text(value, "id"), wanted)
}

/// Whether a value has this name, whatever the case.
fn is_called(value: &Value, name_key: &str, wanted: &str) -> bool {
    text(value, name_key).to_lowercase() == wanted.to_lowercase()
}

/// The one thing of a list that is meant: by the beginning of its id, or else by its name.
pub(crate) fn pick<'a>(
    list: &'a [Value],
    name_key: &str,
    wanted: &str,
    codes: (Code, Code, &str),
) -> Result<&'a Value, CliError> {
    let mut fits: Vec<&Value> = list.iter().collect();
    keep_meant(
        &mut fits,
        |value| has_id(value, wanted),
        |value| is_called(value, name_key, wanted),
    );
    only(&fits, wanted, codes)
}

/// The newcomer that is meant. What looks like an id is never a name here: a newcomer's name is free, and who was to
/// be let in may be gone.
pub(crate) fn pick_newcomer<'a>(
    list: &'a [Value],
    wanted: &str,
    codes: (Code, Code, &str),
) -> Result<&'a Value, CliError> {
    if looks_like_id(wanted) {
        let by_id = list.iter().filter(|value| has_id(value, wanted));
        return only(&by_id.collect::<Vec<_>>(), wanted, codes);
    }
    pick(list, "name", wanted, codes)
}

fn only<'a>(
    fits: &[&'a Value],
    wanted: &str,
    (none, several, what): (Code, Code, &str),
) -> Result<&'a Value, CliError> {
    match fits {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CODES: (Code, Code, &str) = (Code::NoApproval, Code::WhichParticipant, "not `{}`");
    const ALICE: &str = "a1b2c3d4e5f60718";
    const MALLORY: &str = "0123456789abcdef";

    fn person(id: &str, name: &str) -> Value {
        json!({"id": id, "name": name})
    }

    fn id(picked: Result<&Value, CliError>) -> Result<String, Code> {
        picked
            .map(|value| text(value, "id"))
            .map_err(|error| error.code)
    }

    #[test]
    fn a_name_that_looks_like_an_id_never_shadows_the_id() {
        let list = [person(MALLORY, &ALICE[..10]), person(ALICE, "alice")];

        let picked = pick(&list, "name", &ALICE[..10], CODES);

        assert_eq!(id(picked).unwrap(), ALICE);
    }

    #[test]
    fn a_name_that_looks_like_an_id_is_a_name_while_no_id_begins_so() {
        let list = [person(MALLORY, "deadbeef"), person(ALICE, "alice")];

        assert_eq!(id(pick(&list, "name", "DeadBeef", CODES)).unwrap(), MALLORY);
    }

    #[test]
    fn a_newcomer_is_never_taken_for_the_one_whose_id_it_bears_as_a_name() {
        let list = [person(MALLORY, &ALICE[..10]), person(ALICE, "alice")];

        for wanted in [&ALICE[..10], &ALICE[..10].to_uppercase(), "ALICE"] {
            assert_eq!(id(pick_newcomer(&list, wanted, CODES)).unwrap(), ALICE);
        }
        let gone = pick_newcomer(&list[..1], &ALICE[..10], CODES);
        assert_eq!(id(gone).unwrap_err(), Code::NoApproval);
        let name = [person(MALLORY, "abcde"), person(ALICE, "facade")];
        assert_eq!(id(pick_newcomer(&name, "abcde", CODES)).unwrap(), MALLORY);
        let shaped = pick_newcomer(&name, "facade", CODES);
        assert_eq!(id(shaped).unwrap_err(), Code::NoApproval);
    }
}
