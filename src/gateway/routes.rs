//! Which path means which command, or which part of the view. Handlers decide nothing: what a member may do,
//! the engine says; who is meant by a name, [`resolve`] says.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Path, Query, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use data_encoding::BASE64;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use crate::engine::capability::Role;
use crate::engine::command::{
    Command, CommandError, ControlCommand, InputSource, MessagesSince, MessagesWanted,
    PresenceUpdate, Reply, SessionPatch,
};
use crate::engine::error::Code;
use crate::engine::ids::{InviteId, TerminalId};
use crate::engine::limits::LISTED_MESSAGES_MAX;
use crate::engine::terminal::input::Key;
use crate::engine::ticket::Ticket;
use crate::engine::view::{ParticipantView, Phase, View};
use crate::node::Handle;
use crate::node::folder::Folders;

use super::events::Hub;
use super::json::{
    Approval, Control, ControlOrder, Done, Health, Input, Invite, Message, Network, NewInvite,
    NewMessage, Participant, Peer, Presence, PresenceChange, Problem, Queue, Session,
    SessionChange, Span, Terminal, TicketFacts, TicketText, Time, Typed,
};
use super::{client, openapi, resolve, screen, stream};

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
        .route("/openapi.json", get(async || Json(openapi::document())))
        .nest("/api/v1", api())
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(context)
}

fn api() -> Router<Arc<Context>> {
    Router::new()
        .route(
            "/session",
            get(session).patch(patch_session).delete(stop_session),
        )
        .route("/session/leave", post(leave))
        .route("/sessions", get(sessions))
        .route("/participants", get(participants))
        .route("/participants/{who}", get(participant))
        .route("/invites", get(invites).post(create_invite))
        .route("/invites/{id}", get(invite))
        .route("/tickets/inspect", post(inspect_ticket))
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
        .route("/queues", get(queues))
        .route("/events", get(stream::events))
}

// --- the node ---

async fn health(State(context): Shared) -> Json<Health> {
    Json((&*context.handle.view()).into())
}

async fn ready(State(context): Shared) -> Response {
    let ready = matches!(context.handle.view().phase, Phase::Member { .. });
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(json!({"ready": ready}))).into_response()
}

async fn peers(State(context): Shared) -> Response {
    let view = context.handle.view();
    list(view.peers.iter().map(|peer| Peer::of(&view, peer)))
}

async fn network(State(context): Shared) -> Json<Network> {
    Json((&*context.handle.view()).into())
}

async fn queues(State(context): Shared) -> Response {
    let own = context.hub.queues();
    list(
        context
            .handle
            .queues()
            .into_iter()
            .chain(own)
            .map(Queue::from),
    )
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
    list(client::memberships(&context.folders).await)
}

// --- people ---

async fn participants(State(context): Shared) -> Response {
    let view = context.handle.view();
    list(
        view.participants
            .iter()
            .map(|one| Participant::of(&view, one)),
    )
}

async fn participant(State(context): Shared, Path(who): Path<String>) -> Answer {
    let view = context.handle.view();
    let id = resolve::participant(&view, &who)?;
    let found = view
        .participants
        .iter()
        .find(|participant| participant.id == id);
    let found: &ParticipantView = found.ok_or_else(|| missing(Code::NoParticipant))?;
    Ok(Json(Participant::of(&view, found)).into_response())
}

async fn presence(State(context): Shared) -> Response {
    let view = context.handle.view();
    list(view.participants.iter().map(Presence::from))
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
    list(context.handle.view().invites.iter().map(Invite::listed))
}

async fn invite(State(context): Shared, Path(id): Path<String>) -> Answer {
    let view = context.handle.view();
    Ok(Json(Invite::shown(resolve::invite(&view, &id)?)).into_response())
}

async fn create_invite(State(context): Shared, Body(new): Body<NewInvite>) -> Answer {
    let command = Command::CreateInvite {
        role: new.role.unwrap_or(Role::Viewer),
        expires_in: match new.expires_in {
            Some(span) => span.and_then(|span| span.0),
            None => Some(INVITE_LIFE),
        },
        ask: new.ask,
        addresses: new.addresses.unwrap_or(true),
    };
    let reply = context.handle.command(command).await?;
    let Reply::Invite { id } = reply else {
        return Err(unexpected(&reply));
    };
    let invite = made_invite(&context, id).await?;
    Ok((StatusCode::CREATED, Json(invite)).into_response())
}

/// The invitation as soon as the view shows it: the answer may overtake the view.
async fn made_invite(context: &Context, id: InviteId) -> Result<Invite, Problem> {
    let mut views = context.handle.watch_view();
    let known = |view: &Arc<View>| view.invites.iter().any(|invite| invite.id == id);
    let view = tokio::time::timeout(VIEW_WAIT, views.wait_for(known)).await;
    let view = view.ok().and_then(Result::ok).map(|view| Arc::clone(&view));
    let view = view.ok_or_else(|| missing(Code::NoInvite))?;
    let invite = view
        .invites
        .iter()
        .find(|invite| invite.id == id)
        .map(Invite::shown);
    invite.ok_or_else(|| missing(Code::NoInvite))
}

/// Says what a ticket holds, without its secrets and without using it.
async fn inspect_ticket(Body(TicketText { ticket }): Body<TicketText>) -> Answer {
    let ticket = Ticket::parse(&Zeroizing::new(ticket));
    let ticket = ticket
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.code(), error.to_string()))?;
    Ok(Json(TicketFacts::from(&ticket)).into_response())
}

async fn approvals(State(context): Shared) -> Response {
    list(context.handle.view().approvals.iter().map(Approval::from))
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

/// `since` is a time or the id of a message, `before` the id of one: of those in between the newest are listed, at
/// most `limit`, so a reader of everything goes backwards.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct MessagesQuery {
    since: Option<String>,
    before: Option<String>,
    limit: Option<usize>,
}

async fn messages(State(context): Shared, Params(query): Params<MessagesQuery>) -> Answer {
    let since = query.since.map(|since| match Time::parse(&since) {
        Some(Time(since)) => MessagesSince::Time(since),
        None => MessagesSince::Message(since),
    });
    let wanted = MessagesWanted {
        since,
        before: query.before,
        most: query.limit.unwrap_or(LISTED_MESSAGES_MAX),
    };
    let reply = context.handle.command(Command::Messages(wanted)).await?;
    let Reply::Messages(listed) = &reply else {
        return Err(unexpected(&reply));
    };
    let messages: Vec<Message> = listed.iter().map(Message::from).collect();
    let total = context.handle.view().messages_total;
    Ok(Json(json!({"items": messages, "total": total})).into_response())
}

async fn post_message(State(context): Shared, Body(new): Body<NewMessage>) -> Answer {
    let view = context.handle.view();
    let mentions = new
        .mentions
        .iter()
        .map(|who| resolve::participant(&view, who));
    let command = Command::PostMessage {
        text: new.text,
        reply: new.reply,
        mentions: mentions.collect::<Result<_, _>>()?,
        anchor: new.anchor,
    };
    let reply = context.handle.command(command).await?;
    let Reply::Message { id } = &reply else {
        return Err(unexpected(&reply));
    };
    Ok((StatusCode::CREATED, Json(json!({"id": id}))).into_response())
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
        let who = order.participant.as_deref();
        let who = who.ok_or_else(|| Problem::usage("participant names nobody"))?;
        resolve::participant(view, who).map_err(Problem::from)
    };
    Ok(match verb {
        "request" => ControlCommand::Request,
        "grant" => ControlCommand::Grant {
            to: to()?,
            duration: order.duration.and_then(|span| span.0),
        },
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
    list(
        view.terminals
            .iter()
            .map(|terminal| Terminal::of(&view, terminal)),
    )
}

async fn terminal(State(context): Shared, Path(name): Path<String>) -> Answer {
    let view = context.handle.view();
    let terminal = resolve::terminal(&view, Some(&name))?;
    Ok(Json(Terminal::of(&view, terminal)).into_response())
}

/// `text` adds the rows as lines of text, plain or with colours; `wait` says how long to wait for terminal and
/// picture.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PictureQuery {
    text: Option<screen::TextForm>,
    wait: Option<String>,
}

async fn picture(
    State(context): Shared,
    Path(name): Path<String>,
    Params(query): Params<PictureQuery>,
) -> Answer {
    let wait = span_of(query.wait.as_deref())?.unwrap_or_default();
    let (terminal, shown) = screen::await_picture(&context.handle, &name, wait).await?;
    let mut picture = screen::Picture::of(terminal, &shown);
    picture.text = query.text.map(|form| screen::text(&shown, form));
    Ok(Json(picture).into_response())
}

async fn input(
    State(context): Shared,
    Path(name): Path<String>,
    Body(input): Body<Input>,
) -> Answer {
    let terminal = resolve::terminal(&context.handle.view(), Some(&name))?.id;
    let timeout = input
        .timeout_ms
        .map_or(INPUT_WAIT, Duration::from_millis)
        .min(WAIT_MAX);
    let bytes = bytes_of(&context.handle, terminal, &input)?;
    let (source, timeout) = (InputSource::Verb, Some(timeout));
    let command = Command::Input {
        terminal,
        bytes,
        source,
        timeout,
    };
    let reply = context.handle.command(command).await?;
    let Reply::Typed { bytes } = reply else {
        return Err(unexpected(&reply));
    };
    Ok(Json(Typed { bytes }).into_response())
}

/// The bytes that a body of input names; keys depend on the modes of the terminal's newest picture.
pub(super) fn bytes_of(
    handle: &Handle,
    terminal: TerminalId,
    input: &Input,
) -> Result<Vec<u8>, Problem> {
    let mut bytes = match (&input.text, &input.bytes) {
        (Some(text), None) => text.clone().into_bytes(),
        (None, Some(base64)) => BASE64
            .decode(base64.as_bytes())
            .map_err(|error| Problem::usage(format!("bytes is not base64: {error}")))?,
        (None, None) => Vec::new(),
        (Some(_), Some(_)) => return Err(Problem::usage("input is either text or bytes")),
    };
    let modes = handle
        .screen(&terminal)
        .map(|screen| screen.modes)
        .unwrap_or_default();
    for name in &input.keys {
        let key = Key::parse(name).map_err(|error| Problem::usage(error.to_string()))?;
        bytes.extend(key.encode(modes));
    }
    if input.enter {
        bytes.push(b'\r');
    }
    if bytes.is_empty() {
        return Err(Problem::usage("input names no byte and no key"));
    }
    Ok(bytes)
}

// --- shared by all ---

/// A JSON body; an empty one counts as `{}`.
struct Body<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let body = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| {
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
        query
            .map(|Query(query)| Self(query))
            .map_err(|error| Problem::usage(error.body_text()))
    }
}

async fn done(context: &Context, command: Command) -> Answer {
    context.handle.command(command).await?;
    Ok(Json(Done {}).into_response())
}

/// A list inside an object: JSON of ours never begins with an array.
fn list<T: Serialize>(items: impl IntoIterator<Item = T>) -> Response {
    let items: Vec<T> = items.into_iter().collect();
    Json(json!({"items": items})).into_response()
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
    Problem::new(
        StatusCode::NOT_FOUND,
        "no-such-path",
        "there is nothing at this path",
    )
}

async fn no_such_path() -> Problem {
    not_found()
}

async fn no_such_method() -> Problem {
    let status = StatusCode::METHOD_NOT_ALLOWED;
    Problem::new(
        status,
        "no-such-method",
        "this path does not take this method",
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::engine::command::{Ask, ControlMode};
    use crate::engine::event::Path;
    use crate::engine::ids::{MemberId, SessionId};
    use crate::engine::ticket::TicketSecret;
    use crate::engine::time::Wall;
    use crate::engine::view::{
        ApprovalView, ConnectionView, ControlView, InviteView, Kind, MessageView, PeerView,
        Picture, SessionView, Status, TerminalView,
    };
    use crate::gateway::server::tests::Served;

    const NOON: Wall = Wall(1_777_800_600_000);

    fn participant_view(n: u8, name: &str, role: Role) -> ParticipantView {
        ParticipantView {
            id: MemberId([n; 32]),
            name: name.to_owned(),
            kind: Kind::Human,
            role,
            me: n == 1,
            status: if n == 3 { Status::Gone } else { Status::Online },
            joined: NOON,
            last_active: Some(NOON),
            pointer: None,
            selection: None,
            active: None,
            typing: None,
            path: None,
            rtt: Some(Duration::from_micros(1_500)),
            colour: n,
        }
    }

    /// A host's view of a session with three participants, a terminal, a message, an invitation and a
    /// newcomer who waits.
    #[expect(
        clippy::too_many_lines,
        reason = "a table of cases reads best in one piece"
    )]
    pub(in crate::gateway) fn a_view() -> View {
        View {
            version: 1,
            me: MemberId([1; 32]),
            phase: Phase::Member { synced: true },
            session: SessionView {
                id: SessionId([9; 32]),
                title: "Demo".to_owned(),
                created: NOON,
                updated: NOON,
                expires: None,
                public: false,
                ask: Ask::Auto,
                control: ControlMode::Ask,
                role: Role::Owner,
                owner: true,
                unredacted: true,
            },
            participants: vec![
                participant_view(1, "Ada", Role::Owner),
                participant_view(2, "Bob", Role::Viewer),
                participant_view(3, "Cleo", Role::Viewer),
            ],
            terminals: vec![TerminalView {
                id: TerminalId([4; 16]),
                host: MemberId([1; 32]),
                mine: true,
                title: "zsh".to_owned(),
                cols: 80,
                rows: 23,
                open: true,
                status: None,
                opened: NOON,
                control: ControlView {
                    holder: Some(MemberId([2; 32])),
                    mine: false,
                    number: 7,
                    ends: Some(NOON),
                    locked: false,
                    unconfirmed: 0,
                    requested: false,
                    requests: vec![],
                },
                picture: Picture::Live,
            }],
            messages: (0..5).map(message_view).collect(),
            messages_total: 5,
            approvals: vec![ApprovalView {
                id: "q1".to_owned(),
                member: MemberId([5; 32]),
                name: "Dora".to_owned(),
                role: Role::Editor,
                asked: NOON,
                ends: NOON,
            }],
            invites: vec![InviteView {
                id: InviteId([6; 32]),
                role: Role::Viewer,
                expires: None,
                ask: Ask::Auto,
                used: 1,
                open: true,
                created: NOON,
                ticket: Some("cp2p1secret".to_owned()),
            }],
            peers: vec![PeerView {
                id: MemberId([2; 32]),
                path: Path::Lan,
                rtt: None,
                lacks: 3,
                we_lack: 0,
            }],
            connection: ConnectionView::Live,
            listen: vec!["/ip4/127.0.0.1/tcp/4000".to_owned()],
            unsaved: None,
            notices: vec![],
        }
    }

    fn message_view(n: u64) -> MessageView {
        MessageView {
            id: format!("m{n}"),
            from: MemberId([2; 32]),
            name: "Bob".to_owned(),
            time: Wall(NOON.0 + n * 1_000),
            text: format!("text {n}"),
            reply: None,
            mentions: vec![],
            anchor: None,
            from_the_future: false,
        }
    }

    #[tokio::test]
    async fn the_view_is_shown_in_the_promised_shapes() {
        let node = Served::start(a_view(), |_| Ok(Reply::Done));

        let session = node.json("/api/v1/session").await;
        assert_eq!(session["title"], "Demo");
        assert_eq!(session["state"], "member");
        assert_eq!(session["created_at"], "2026-05-03T09:30:00Z");
        assert_eq!(session["me"]["name"], "Ada");
        let people = node.json("/api/v1/participants").await;
        assert_eq!(people["items"][1]["name"], "Bob");
        assert_eq!(people["items"][1]["rtt"], 1.5);
        let terminals = node.json("/api/v1/terminals").await;
        assert_eq!(terminals["items"][0]["open"], true);
        let control = node.json("/api/v1/control").await;
        assert_eq!(control["holder_name"], "Bob");
        assert_eq!(node.json("/api/v1/peers").await["items"][0]["lacks"], 3);
        assert_eq!(node.json("/api/v1/network").await["state"], "live");
        assert_eq!(node.json("/health").await["active_participants"], 2);
        assert_eq!(node.json("/ready").await["ready"], true);
    }

    #[tokio::test]
    async fn a_ticket_is_shown_only_to_who_asks_for_that_invitation() {
        let node = Served::start(a_view(), |_| Ok(Reply::Done));
        let id = InviteId([6; 32]).to_string();

        let all = node.json("/api/v1/invites").await;
        let one = node.json(&format!("/api/v1/invites/{id}")).await;

        assert!(!all.to_string().contains("cp2p1secret"));
        assert_eq!(one["join_command"], "collab-p2p join cp2p1secret");
        assert_eq!(one["uri"], "collab-p2p:cp2p1secret");
    }

    #[tokio::test]
    async fn a_new_invitation_is_answered_with_its_ticket() {
        let node = Served::start(a_view(), |_| {
            Ok(Reply::Invite {
                id: InviteId([6; 32]),
            })
        });

        let body = json!({"role": "editor", "expires_in": "10m"});
        let made: Invite = node.client.post_as("/api/v1/invites", &body).await.unwrap();

        assert_eq!(made.ticket.as_deref(), Some("cp2p1secret"));
        let command = node.asked().await;
        let Command::CreateInvite {
            role,
            expires_in,
            addresses,
            ..
        } = command
        else {
            panic!("{command:?}")
        };
        assert_eq!((role, addresses), (Role::Editor, true));
        assert_eq!(expires_in, Some(Duration::from_secs(600)));
        for (body, expected) in [
            (json!({}), Some(INVITE_LIFE)),
            (json!({"expires_in": null}), None),
        ] {
            let _made: Invite = node.client.post_as("/api/v1/invites", &body).await.unwrap();
            let command = node.asked().await;
            let Command::CreateInvite { expires_in, .. } = command else {
                panic!("{command:?}")
            };
            assert_eq!(expires_in, expected);
        }
    }

    #[tokio::test]
    async fn a_ticket_is_inspected_without_telling_its_secrets() {
        let node = Served::start(a_view(), |_| Ok(Reply::Done));
        let ticket = Ticket {
            session: SessionId([9; 32]),
            secret: TicketSecret::Open([0xaa; 32]),
            discovery_key: [0xbb; 32],
            host: MemberId([1; 32]),
            addresses: vec!["/ip4/10.0.0.1/tcp/4000".to_owned()],
            chain: vec![],
            expires: Some(NOON),
        };
        let text = ticket.to_text();
        let path = "/api/v1/tickets/inspect";

        let facts = node
            .client
            .post(path, &json!({"ticket": text.as_str()}))
            .await
            .unwrap();

        assert_eq!(facts["session"], json!(SessionId([9; 32])));
        assert_eq!(facts["expires_at"], "2026-05-03T09:30:00Z");
        assert_eq!(facts["password"], false);
        let told = facts.to_string();
        assert!(!told.contains(&"aa".repeat(32)) && !told.contains(&"bb".repeat(32)));
        let cut = &text[..text.len() - 9];
        let refused = node
            .client
            .post(path, &json!({"ticket": cut}))
            .await
            .unwrap_err();
        assert_eq!(refused.code, Code::TicketTruncated);
    }

    #[tokio::test]
    async fn messages_are_asked_of_the_node_by_place_and_number() {
        let node = Served::start(a_view(), |command| {
            let Command::Messages(wanted) = command else {
                return Ok(Reply::Done);
            };
            if wanted.before.as_deref() == Some("m9") {
                let message = "no message here has the id `m9`";
                return Err(CommandError::new(Code::Usage, message));
            }
            let place = match wanted.since {
                Some(MessagesSince::Time(_)) => 1_u64,
                Some(MessagesSince::Message(_)) => 2,
                None => 0,
            };
            Ok(Reply::Messages(vec![
                message_view(place),
                message_view(wanted.most as u64),
            ]))
        });
        let ids = async |query: &str| {
            let json = node.json(&format!("/api/v1/messages{query}")).await;
            assert_eq!(json["total"], 5);
            let all = json["items"].as_array().unwrap().clone();
            all.iter()
                .map(|one| one["id"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };

        assert_eq!(ids("").await, ["m0", "m200"]);
        assert_eq!(ids("?limit=2").await, ["m0", "m2"]);
        assert_eq!(ids("?since=m2&limit=7").await, ["m2", "m7"]);
        assert_eq!(ids("?since=2026-05-03T09:30:03Z").await, ["m1", "m200"]);
        let error = node.refused("/api/v1/messages?before=m9").await;
        assert_eq!(error.code, Code::Usage);
    }

    #[tokio::test]
    async fn a_message_names_members_by_name() {
        let node = Served::start(a_view(), |_| {
            Ok(Reply::Message {
                id: "m9".to_owned(),
            })
        });

        let body = json!({"text": "hi", "mentions": ["bob"]});
        let answer = node.client.post("/api/v1/messages", &body).await.unwrap();

        assert_eq!(answer["id"], "m9");
        let command = node.asked().await;
        let Command::PostMessage { text, mentions, .. } = command else {
            panic!("{command:?}")
        };
        assert_eq!(
            (text.as_str(), mentions.as_slice()),
            ("hi", &[MemberId([2; 32])][..])
        );
    }

    #[tokio::test]
    async fn control_verbs_become_orders_for_the_only_open_terminal() {
        let node = Served::start(a_view(), |_| Ok(Reply::Done));
        let body = json!({"participant": "bob", "for": 600});

        let _done = node
            .client
            .post("/api/v1/control/grant", &body)
            .await
            .unwrap();

        let to = MemberId([2; 32]);
        let command = ControlCommand::Grant {
            to,
            duration: Some(Duration::from_secs(600)),
        };
        assert_eq!(
            node.asked().await,
            Command::Control {
                terminal: TerminalId([4; 16]),
                command
            }
        );
        for verb in ["request", "release", "revoke", "take", "lock", "unlock"] {
            let path = format!("/api/v1/control/{verb}");
            let _done = node.client.post(&path, &json!({})).await.unwrap();
        }
        let wrong = node.client.post("/api/v1/control/steal", &json!({})).await;
        assert!(wrong.is_err());
        let nobody = node.client.post("/api/v1/control/grant", &json!({})).await;
        assert_eq!(nobody.unwrap_err().code, Code::Usage);
    }

    #[tokio::test]
    async fn a_refusal_of_the_engine_reaches_the_client_as_it_is() {
        let refusal = || CommandError::new(Code::LeaseNotHeld, "Bob has control");
        let node = Served::start(a_view(), move |_| Err(refusal()));

        let body = json!({"text": "ls"});
        let answer = node
            .client
            .post("/api/v1/terminals/default/input", &body)
            .await;

        assert_eq!(answer.unwrap_err(), refusal());
    }

    #[tokio::test]
    async fn input_is_exactly_the_given_bytes() {
        let node = Served::start(a_view(), |_| Ok(Reply::Typed { bytes: 3 }));
        let path = "/api/v1/terminals/default/input";

        let typed: Typed = node
            .client
            .post_as(
                path,
                &json!({"bytes": "AAH/", "keys": ["C-c", "Up"], "enter": true}),
            )
            .await
            .unwrap();

        assert_eq!(typed, Typed { bytes: 3 });
        let command = node.asked().await;
        let Command::Input {
            bytes,
            source,
            timeout,
            ..
        } = command
        else {
            panic!("{command:?}")
        };
        assert_eq!(
            (bytes.as_slice(), source),
            (
                &[0, 1, 255, 3, 27, b'[', b'A', b'\r'][..],
                InputSource::Verb
            )
        );
        assert_eq!(timeout, Some(INPUT_WAIT));
        for wrong in [
            json!({}),
            json!({"text": "a", "bytes": "YQ=="}),
            json!({"bytes": "!"}),
            json!({"keys": ["Foo"]}),
        ] {
            let refused = node.client.post(path, &wrong).await.unwrap_err();
            assert_eq!(refused.code, Code::Usage, "{wrong}");
        }
    }

    #[tokio::test]
    async fn approvals_are_decided_by_name_or_id_of_who_waits() {
        let node = Served::start(a_view(), |_| Ok(Reply::Done));

        let _done = node
            .client
            .post("/api/v1/approvals/dora/approve", &json!({}))
            .await
            .unwrap();
        assert_eq!(
            node.asked().await,
            Command::Approve {
                approval: "q1".to_owned()
            }
        );

        let id = MemberId([5; 32]).to_string();
        let path = format!("/api/v1/approvals/{id}/deny");
        let _done = node.client.post(&path, &json!({})).await.unwrap();
        assert_eq!(
            node.asked().await,
            Command::Deny {
                approval: "q1".to_owned()
            }
        );

        let nobody = node
            .client
            .post("/api/v1/approvals/eve/deny", &json!({}))
            .await;
        assert_eq!(nobody.unwrap_err().code, Code::NoApproval);
    }

    #[tokio::test]
    async fn the_session_is_patched_left_and_stopped() {
        let node = Served::start(a_view(), |_| Ok(Reply::Done));
        let change = json!({"title": "New", "expires_at": null});

        let _done = node.client.patch("/api/v1/session", &change).await.unwrap();
        let expires = Some(None);
        let patch = SessionPatch {
            title: Some("New".to_owned()),
            expires,
            ..SessionPatch::default()
        };
        assert_eq!(node.asked().await, Command::PatchSession(patch));

        let _done = node
            .client
            .post("/api/v1/session/leave", &json!({}))
            .await
            .unwrap();
        assert_eq!(node.asked().await, Command::Leave);
        let _done = node.client.delete("/api/v1/session").await.unwrap();
        assert_eq!(node.asked().await, Command::StopSession);
    }

    #[tokio::test]
    async fn presence_is_set_field_by_field() {
        let node = Served::start(a_view(), |_| Ok(Reply::Done));
        let terminal = TerminalId([4; 16]);
        let change =
            json!({"cursor": {"terminal": terminal, "row": 1, "column": 2}, "typing": null});

        let _done = node.client.put("/api/v1/presence", &change).await.unwrap();

        let command = node.asked().await;
        let Command::SetPresence(update) = command else {
            panic!("{command:?}")
        };
        assert_eq!(
            update.pointer.flatten().map(|pointer| pointer.column),
            Some(2)
        );
        assert_eq!(update.typing, Some(None));
        assert_eq!((update.attached, update.selection), (None, None));
        let shown = node.json("/api/v1/presence").await;
        assert_eq!(shown["items"][2]["status"], "gone");
    }

    #[tokio::test]
    async fn what_is_not_understood_is_a_problem_and_never_a_panic() {
        let node = Served::start(a_view(), |_| Ok(Reply::Done));

        assert_eq!(node.status("GET", "/api/v1/nothing", b"").await, 404);
        assert_eq!(node.status("POST", "/api/v1/session", b"").await, 405);
        assert_eq!(
            node.status("PATCH", "/api/v1/session", b"{\"tilte\":1}")
                .await,
            400
        );
        assert_eq!(node.status("PATCH", "/api/v1/session", b"\xff").await, 400);
        assert_eq!(
            node.status("GET", "/api/v1/messages?limit=x", b"").await,
            400
        );
        assert_eq!(
            node.status("GET", "/api/v1/terminals/zsh/screen?wait=soon", b"")
                .await,
            400
        );
        assert_eq!(
            node.status("POST", "/api/v1/messages", &vec![b' '; 2 << 20])
                .await,
            413
        );
    }

    #[tokio::test]
    async fn a_picture_that_does_not_come_in_time_is_timed_out() {
        let node = Served::start(a_view(), |_| Ok(Reply::Done));

        let error = node
            .refused("/api/v1/terminals/default/screen?wait=20ms")
            .await;

        assert_eq!(error.code, Code::TimedOut);
    }
}
