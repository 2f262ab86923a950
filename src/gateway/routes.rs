//! Which path means which command, or which part of the view. Handlers decide nothing: what a member may do,
//! the engine says; who is meant by a name, [`resolve`] says.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Path, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use data_encoding::BASE64;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::engine::capability::Role;
use crate::engine::command::{
    Command, CommandError, ControlCommand, InputSource, PresenceUpdate, Reply, SessionPatch,
};
use crate::engine::error::Code;
use crate::engine::ids::InviteId;
use crate::engine::view::{MessageView, ParticipantView, Phase, View};
use crate::node::Handle;
use crate::node::folder::Folders;

use super::events::Hub;
use super::json::{
    Approval, Control, ControlOrder, Done, Health, Input, Invite, Message, Network, NewInvite,
    NewMessage, Participant, Peer, Presence, PresenceChange, Problem, Session, SessionChange, Span,
    Terminal, Time, Typed,
};
use super::{client, resolve, screen, stream};

/// Longest body of a request.
const BODY_BYTES_MAX: usize = 1 << 20;
/// How long one may join by an invitation for which nothing was said.
const INVITE_LIFE: Duration = Duration::from_secs(24 * 3_600);
/// How long input waits for the host's acknowledgement where nothing was said.
const INPUT_WAIT: Duration = Duration::from_secs(10);
/// Longest that a request may ask to wait.
const WAIT_MAX: Duration = Duration::from_secs(600);
/// How long an answer waits for the view that shows what it is about.
const VIEW_WAIT: Duration = Duration::from_secs(2);
/// Most messages that one answer holds.
const MESSAGES_MAX: usize = 200;

/// What the handlers work with.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) handle: Handle,
    pub(super) hub: Arc<Hub>,
    pub(super) folders: Folders,
}

type Shared = State<Arc<Context>>;
type Answer = Result<Response, Problem>;

/// All routes.
pub(super) fn router(context: Arc<Context>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .nest("/api/v1", api())
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(context)
}

fn api() -> Router<Arc<Context>> {
    Router::new()
        .route("/session", get(session).patch(patch_session).delete(stop_session))
        .route("/session/leave", post(leave))
        .route("/sessions", get(sessions))
        .route("/participants", get(participants))
        .route("/participants/{who}", get(participant))
        .route("/invites", get(invites).post(create_invite))
        .route("/invites/{id}", get(invite))
        .route("/approvals", get(approvals))
        .route("/approvals/{who}/approve", post(approve))
        .route("/approvals/{who}/deny", post(deny))
        .route("/messages", get(messages).post(post_message))
        .route("/presence", get(presence).put(put_presence))
        .route("/control", get(control))
        .route("/control/{verb}", post(order))
        .route("/terminals", get(terminals))
        .route("/terminals/{terminal}", get(terminal))
        .route("/terminals/{terminal}/screen", get(picture))
        .route("/terminals/{terminal}/input", post(input))
        .route("/peers", get(peers))
        .route("/network", get(network))
        .route("/events", get(stream::events))
}

// --- the node ---

async fn health(State(context): Shared) -> Json<Health> {
    Json((&*context.handle.view()).into())
}

async fn ready(State(context): Shared) -> Response {
    let ready = matches!(context.handle.view().phase, Phase::Member { .. });
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({"ready": ready}))).into_response()
}

async fn peers(State(context): Shared) -> Response {
    let view = context.handle.view();
    list("peers", view.peers.iter().map(|peer| Peer::of(&view, peer)))
}

async fn network(State(context): Shared) -> Json<Network> {
    Json((&*context.handle.view()).into())
}

// --- the session ---

async fn session(State(context): Shared) -> Json<Session> {
    Json((&*context.handle.view()).into())
}

async fn patch_session(State(context): Shared, Body(change): Body<SessionChange>) -> Answer {
    let patch = SessionPatch {
        title: change.title,
        public: change.public,
        expires: change.expires_at.map(|time| time.map(|Time(wall)| wall)),
        ask: change.ask,
        control: change.control,
    };
    done(&context, Command::PatchSession(patch)).await
}

async fn stop_session(State(context): Shared) -> Answer {
    done(&context, Command::StopSession).await
}

async fn leave(State(context): Shared) -> Answer {
    done(&context, Command::Leave).await
}

async fn sessions(State(context): Shared) -> Response {
    list("sessions", client::memberships(&context.folders).await)
}

// --- people ---

async fn participants(State(context): Shared) -> Response {
    let view = context.handle.view();
    list("participants", view.participants.iter().map(Participant::from))
}

async fn participant(State(context): Shared, Path(who): Path<String>) -> Answer {
    let view = context.handle.view();
    let id = resolve::participant(&view, &who)?;
    let found = view.participants.iter().find(|participant| participant.id == id);
    let found: &ParticipantView = found.ok_or_else(|| missing(Code::NoParticipant))?;
    Ok(Json(Participant::from(found)).into_response())
}

async fn presence(State(context): Shared) -> Response {
    let view = context.handle.view();
    list("presence", view.participants.iter().map(Presence::from))
}

async fn put_presence(State(context): Shared, Body(change): Body<PresenceChange>) -> Answer {
    let update = PresenceUpdate {
        attached: change.attached,
        pointer: change.cursor,
        selection: change.selection,
        active: change.active,
        typing: change.typing,
    };
    done(&context, Command::SetPresence(update)).await
}

// --- letting in ---

async fn invites(State(context): Shared) -> Response {
    list("invites", context.handle.view().invites.iter().map(Invite::listed))
}

async fn invite(State(context): Shared, Path(id): Path<String>) -> Answer {
    let view = context.handle.view();
    Ok(Json(Invite::shown(resolve::invite(&view, &id)?)).into_response())
}

async fn create_invite(State(context): Shared, Body(new): Body<NewInvite>) -> Answer {
    let command = Command::CreateInvite {
        role: new.role.unwrap_or(Role::Viewer),
        expires_in: new.expires_in.unwrap_or(Span(Some(INVITE_LIFE))).0,
        ask: new.ask,
        addresses: !new.no_addrs,
    };
    match context.handle.command(command).await? {
        Reply::Invite { id } => {
            let invite = made_invite(&context, id).await?;
            Ok((StatusCode::CREATED, Json(invite)).into_response())
        }
        other => Err(unexpected(&other)),
    }
}

/// The invitation as soon as the view shows it: the answer may overtake the view.
async fn made_invite(context: &Context, id: InviteId) -> Result<Invite, Problem> {
    let mut views = context.handle.watch_view();
    let known = |view: &Arc<View>| view.invites.iter().any(|invite| invite.id == id);
    let view = tokio::time::timeout(VIEW_WAIT, views.wait_for(known)).await;
    let view = view.ok().and_then(Result::ok).map(|view| Arc::clone(&view));
    let view = view.ok_or_else(|| missing(Code::NoInvite))?;
    let invite = view.invites.iter().find(|invite| invite.id == id).map(Invite::shown);
    invite.ok_or_else(|| missing(Code::NoInvite))
}

async fn approvals(State(context): Shared) -> Response {
    list("approvals", context.handle.view().approvals.iter().map(Approval::from))
}

async fn approve(State(context): Shared, Path(who): Path<String>) -> Answer {
    let approval = resolve::approval(&context.handle.view(), &who)?.id.clone();
    done(&context, Command::Approve { approval }).await
}

async fn deny(State(context): Shared, Path(who): Path<String>) -> Answer {
    let approval = resolve::approval(&context.handle.view(), &who)?.id.clone();
    done(&context, Command::Deny { approval }).await
}

// --- chat ---

/// `since` is a time or the id of a message; later ones are listed, at most `limit`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct MessagesQuery {
    since: Option<String>,
    limit: Option<usize>,
}

async fn messages(State(context): Shared, Params(query): Params<MessagesQuery>) -> Answer {
    let view = context.handle.view();
    let later = later_than(&view.messages, query.since.as_deref())?;
    let limit = query.limit.unwrap_or(MESSAGES_MAX).min(MESSAGES_MAX);
    let newest = later.get(later.len().saturating_sub(limit)..).unwrap_or_default();
    let messages: Vec<Message> = newest.iter().map(Message::from).collect();
    Ok(Json(json!({"messages": messages, "total": view.messages_total})).into_response())
}

fn later_than<'m>(
    messages: &'m [MessageView],
    since: Option<&str>,
) -> Result<&'m [MessageView], Problem> {
    let Some(since) = since else {
        return Ok(messages);
    };
    let first = match Time::parse(since) {
        Some(Time(since)) => messages.iter().position(|message| message.time > since),
        None => {
            let known = messages.iter().position(|message| message.id == since);
            let known = known.ok_or_else(|| {
                Problem::usage("since is neither a time nor the id of a message that is here")
            })?;
            Some(known.saturating_add(1))
        }
    };
    Ok(messages.get(first.unwrap_or(messages.len())..).unwrap_or_default())
}

async fn post_message(State(context): Shared, Body(new): Body<NewMessage>) -> Answer {
    let view = context.handle.view();
    let mentions = new.mentions.iter().map(|who| resolve::participant(&view, who));
    let command = Command::PostMessage {
        text: new.text,
        reply: new.reply,
        mentions: mentions.collect::<Result<_, _>>()?,
        anchor: new.anchor,
    };
    match context.handle.command(command).await? {
        Reply::Message { id } => {
            Ok((StatusCode::CREATED, Json(json!({"id": id}))).into_response())
        }
        other => Err(unexpected(&other)),
    }
}

// --- control ---

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ControlQuery {
    terminal: Option<String>,
}

async fn control(State(context): Shared, Params(query): Params<ControlQuery>) -> Answer {
    let view = context.handle.view();
    let terminal = resolve::terminal(&view, query.terminal.as_deref())?;
    Ok(Json(Control::of(&view, terminal.id, &terminal.control)).into_response())
}

async fn order(
    State(context): Shared,
    Path(verb): Path<String>,
    Body(order): Body<ControlOrder>,
) -> Answer {
    let view = context.handle.view();
    let terminal = resolve::terminal(&view, order.terminal.as_deref())?.id;
    let command = control_command(&view, &verb, &order)?;
    done(&context, Command::Control { terminal, command }).await
}

fn control_command(
    view: &View,
    verb: &str,
    order: &ControlOrder,
) -> Result<ControlCommand, Problem> {
    let to = || {
        let who = order.to.as_deref().ok_or_else(|| Problem::usage("to names nobody"))?;
        resolve::participant(view, who).map_err(Problem::from)
    };
    Ok(match verb {
        "request" => ControlCommand::Request,
        "grant" => ControlCommand::Grant { to: to()?, duration: order.duration.and_then(|span| span.0) },
        "deny" => ControlCommand::Deny { to: to()? },
        "release" => ControlCommand::Release,
        "revoke" => ControlCommand::Revoke,
        "take" => ControlCommand::Take,
        "lock" => ControlCommand::Lock,
        "unlock" => ControlCommand::Unlock,
        _ => return Err(not_found()),
    })
}

// --- terminals ---

async fn terminals(State(context): Shared) -> Response {
    let view = context.handle.view();
    list("terminals", view.terminals.iter().map(|terminal| Terminal::of(&view, terminal)))
}

async fn terminal(State(context): Shared, Path(name): Path<String>) -> Answer {
    let view = context.handle.view();
    let terminal = resolve::terminal(&view, Some(&name))?;
    Ok(Json(Terminal::of(&view, terminal)).into_response())
}

/// `format` is `json` (default), `text` or `ansi`; `wait` says how long to wait for terminal and picture.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PictureQuery {
    #[serde(default)]
    format: PictureFormat,
    wait: Option<String>,
}

#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PictureFormat {
    #[default]
    Json,
    Text,
    Ansi,
}

async fn picture(
    State(context): Shared,
    Path(name): Path<String>,
    Params(query): Params<PictureQuery>,
) -> Answer {
    let wait = span_of(query.wait.as_deref())?.unwrap_or_default();
    let (terminal, shown) = screen::await_picture(&context.handle, &name, wait).await?;
    let plain = |text| ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response();
    Ok(match query.format {
        PictureFormat::Json => Json(screen::Picture::of(terminal, &shown)).into_response(),
        PictureFormat::Text => plain(screen::text(&shown)),
        PictureFormat::Ansi => plain(screen::ansi(&shown)),
    })
}

async fn input(
    State(context): Shared,
    Path(name): Path<String>,
    Body(input): Body<Input>,
) -> Answer {
    let terminal = resolve::terminal(&context.handle.view(), Some(&name))?.id;
    let timeout = input.timeout.map_or(Some(INPUT_WAIT), |span| span.0);
    let bytes = bytes_of(input)?;
    let command = Command::Input { terminal, bytes, source: InputSource::Verb, timeout };
    match context.handle.command(command).await? {
        Reply::Typed { bytes } => Ok(Json(Typed { bytes }).into_response()),
        other => Err(unexpected(&other)),
    }
}

/// The bytes that input names in one of its two ways.
pub(super) fn bytes_of(input: Input) -> Result<Vec<u8>, Problem> {
    match (input.text, input.base64) {
        (Some(text), None) => Ok(text.into_bytes()),
        (None, Some(base64)) => BASE64
            .decode(base64.as_bytes())
            .map_err(|error| Problem::usage(format!("base64 is not base64: {error}"))),
        (Some(_), Some(_)) | (None, None) => {
            Err(Problem::usage("input is either text or base64"))
        }
    }
}

// --- shared by all ---

/// A JSON body; an empty one counts as `{}`.
struct Body<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let body = Bytes::from_request(request, state).await.map_err(|rejection| {
            Problem::new(rejection.status(), "body-refused", rejection.body_text())
        })?;
        let json: &[u8] = if body.is_empty() { b"{}" } else { &body };
        serde_json::from_slice(json)
            .map(Self)
            .map_err(|error| Problem::usage(format!("the body is not as it should be: {error}")))
    }
}

/// The part of the address behind `?`.
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query.map(|Query(query)| Self(query)).map_err(|error| Problem::usage(error.body_text()))
    }
}

async fn done(context: &Context, command: Command) -> Answer {
    context.handle.command(command).await?;
    Ok(Json(Done {}).into_response())
}

/// An object with one list in it: JSON of ours never begins with an array.
fn list<T: Serialize>(name: &str, items: impl IntoIterator<Item = T>) -> Response {
    let items: Vec<T> = items.into_iter().collect();
    Json(json!({ name: items })).into_response()
}

fn span_of(text: Option<&str>) -> Result<Option<Duration>, Problem> {
    let Some(text) = text else {
        return Ok(None);
    };
    let span = Span::parse(text).ok_or_else(|| Problem::usage("wait is a span like 5s"))?;
    Ok(Some(span.0.unwrap_or(WAIT_MAX).min(WAIT_MAX)))
}

fn missing(code: Code) -> Problem {
    CommandError::new(code, "it is no longer there").into()
}

fn unexpected(reply: &Reply) -> Problem {
    tracing::error!(?reply, "the engine answered something else than was asked");
    CommandError::new(Code::Failure, "the answer makes no sense").into()
}

fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no-such-path", "there is nothing at this path")
}

async fn no_such_path() -> Problem {
    not_found()
}

async fn no_such_method() -> Problem {
    let status = StatusCode::METHOD_NOT_ALLOWED;
    Problem::new(status, "no-such-method", "this path does not take this method")
}
