//! The event stream in its three forms: server-sent events, one JSON value a line (`Accept:
//! application/x-ndjson`, as the verbs read it), and a WebSocket, on which a client may also speak:
//! `{id, op, data}` is answered by `{id, ok, result}` or `{id, ok, problem}`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message as Frame, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, Stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::engine::command::{Command, InputSource, PresenceUpdate, Reply};

use super::events::Reader;
use super::json::{Input, NewMessage, PresenceChange, Problem};
use super::resolve;
use super::routes::{Context, Params, bytes_of};

/// Longest message of a WebSocket client.
const MESSAGE_BYTES_MAX: usize = 256 << 10;
/// Pause between signs of life on a silent stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a client may take to accept a frame before it is let go.
const SEND_WAIT: Duration = Duration::from_secs(10);
const NDJSON: &str = "application/x-ndjson";

/// Where to begin: after `since`, else with what happens from now on.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    since: Option<u64>,
}

/// `GET /api/v1/events`.
pub(super) async fn events(
    State(context): State<Arc<Context>>,
    Params(query): Params<EventsQuery>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let since = query.since.or_else(|| last_event_id(&headers));
    let reader = context.hub.read(since);
    if let Ok(upgrade) = upgrade {
        let upgrade = upgrade
            .max_message_size(MESSAGE_BYTES_MAX)
            .max_frame_size(MESSAGE_BYTES_MAX);
        return upgrade.on_upgrade(|socket| converse(socket, context, reader));
    }
    let accepted = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    if accepted.is_some_and(|accept| accept.contains(NDJSON)) {
        let body = Body::from_stream(lines(reader));
        return ([(header::CONTENT_TYPE, NDJSON)], body).into_response();
    }
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Sse::new(server_sent(reader))
        .keep_alive(keep_alive)
        .into_response()
}

/// What a browser's `EventSource` sends when it comes back.
fn last_event_id(headers: &HeaderMap) -> Option<u64> {
    headers.get("last-event-id")?.to_str().ok()?.parse().ok()
}

fn lines(reader: Reader) -> impl Stream<Item = Result<Bytes, serde_json::Error>> {
    stream::unfold(reader, |mut reader| async {
        let event = reader.next().await?;
        let line = serde_json::to_vec(&*event).map(|mut line| {
            line.push(b'\n');
            line.into()
        });
        Some((line, reader))
    })
}

fn server_sent(reader: Reader) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(reader, |mut reader| async {
        let event = reader.next().await?;
        let data = serde_json::to_string(&*event).unwrap_or_default();
        let sent = Event::default().event(&event.kind).data(data);
        let sent = match event.seq {
            Some(seq) => sent.id(seq.to_string()),
            None => sent,
        };
        Some((Ok(sent), reader))
    })
}

/// A client's wish on the WebSocket.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    id: Value,
    op: String,
    #[serde(default)]
    data: Value,
}

/// Its answer.
#[derive(Debug, Serialize)]
struct Granted {
    id: Value,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Problem>,
}

async fn converse(mut socket: WebSocket, context: Arc<Context>, mut reader: Reader) {
    loop {
        let text = tokio::select! {
            event = reader.next() => match event {
                Some(event) => serde_json::to_string(&*event),
                None => break,
            },
            message = socket.recv() => match message {
                Some(Ok(Frame::Text(text))) => {
                    serde_json::to_string(&answer(&context, &mut reader, &text).await)
                }
                Some(Ok(Frame::Binary(_) | Frame::Ping(_) | Frame::Pong(_))) => continue,
                Some(Ok(Frame::Close(_)) | Err(_)) | None => return,
            },
        };
        let frame = Frame::Text(text.unwrap_or_default().into());
        match tokio::time::timeout(SEND_WAIT, socket.send(frame)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
    let _gone_already = socket.send(Frame::Close(None)).await;
}

async fn answer(context: &Arc<Context>, reader: &mut Reader, text: &str) -> Granted {
    let wish: Wish = match serde_json::from_str(text) {
        Ok(wish) => wish,
        Err(error) => {
            let problem = Problem::usage(format!("expected {{id, op, data}}: {error}"));
            return Granted {
                id: Value::Null,
                ok: false,
                result: None,
                problem: Some(problem),
            };
        }
    };
    match grant(context, reader, &wish.op, wish.data).await {
        Ok(result) => Granted {
            id: wish.id,
            ok: true,
            result: Some(result),
            problem: None,
        },
        Err(problem) => Granted {
            id: wish.id,
            ok: false,
            result: None,
            problem: Some(problem),
        },
    }
}

/// `{since}` of `subscribe`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subscribe {
    since: u64,
}

/// `{terminal, text}` of `input.send`, or `{terminal, bytes}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    terminal: Option<String>,
    text: Option<String>,
    bytes: Option<String>,
}

async fn grant(
    context: &Arc<Context>,
    reader: &mut Reader,
    op: &str,
    data: Value,
) -> Result<Value, Problem> {
    let command = match op {
        "subscribe" => {
            let Subscribe { since } = read(data)?;
            *reader = context.hub.read(Some(since));
            return Ok(json!({}));
        }
        "message.post" => message(context, read(data)?)?,
        "cursor.set" => cursor(read(data)?),
        "input.send" => keys(context, read(data)?)?,
        _ => return Err(Problem::usage("there is no such op")),
    };
    Ok(match context.handle.command(command).await? {
        Reply::Message { id } => json!({"id": id}),
        Reply::Typed { bytes } => json!({"bytes": bytes}),
        Reply::Done
        | Reply::Requested
        | Reply::Messages(_)
        | Reply::Invite { .. }
        | Reply::Terminal { .. } => json!({}),
    })
}

fn message(context: &Context, new: NewMessage) -> Result<Command, Problem> {
    let view = context.handle.view();
    let mentions = new
        .mentions
        .iter()
        .map(|who| resolve::participant(&view, who));
    let mentions = mentions.collect::<Result<_, _>>()?;
    Ok(Command::PostMessage {
        text: new.text,
        reply: new.reply,
        mentions,
        anchor: new.anchor,
    })
}

fn cursor(change: PresenceChange) -> Command {
    Command::SetPresence(PresenceUpdate {
        pointer: change.cursor,
        ..PresenceUpdate::default()
    })
}

fn keys(context: &Context, keys: Keys) -> Result<Command, Problem> {
    let terminal = resolve::terminal(&context.handle.view(), keys.terminal.as_deref())?.id;
    let input = Input {
        text: keys.text,
        bytes: keys.bytes,
        ..Input::default()
    };
    let bytes = bytes_of(&context.handle, terminal, &input)?;
    Ok(Command::Input {
        terminal,
        bytes,
        source: InputSource::Key,
        timeout: None,
    })
}

fn read<T: serde::de::DeserializeOwned>(data: Value) -> Result<T, Problem> {
    let data = if data.is_null() { json!({}) } else { data };
    serde_json::from_value(data)
        .map_err(|error| Problem::usage(format!("data is not as it should be: {error}")))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;
    use crate::gateway::routes::tests::a_view;
    use crate::gateway::server::tests::Served;

    async fn connect(node: &Served, headers: &str) -> UnixStream {
        let mut stream = UnixStream::connect(node.client.socket()).await.unwrap();
        let head = format!("GET /api/v1/events?since=0 HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }

    /// Reads until the text has come.
    async fn read_until(stream: &mut UnixStream, wanted: &str) -> String {
        let mut seen = Vec::new();
        let reading = async {
            while !String::from_utf8_lossy(&seen).contains(wanted) {
                assert!(stream.read_buf(&mut seen).await.unwrap() > 0);
            }
        };
        tokio::time::timeout(Duration::from_secs(5), reading)
            .await
            .unwrap();
        String::from_utf8_lossy(&seen).into_owned()
    }

    /// A short text frame as clients send it: final, masked with zeros.
    fn frame(text: &str) -> Vec<u8> {
        let length = u16::try_from(text.len()).unwrap();
        let [high, low] = length.to_be_bytes();
        [&[0x81, 0xfe, high, low, 0, 0, 0, 0], text.as_bytes()].concat()
    }

    #[tokio::test]
    async fn server_sent_events_carry_type_number_and_the_whole_event() {
        let node = Served::start(a_view(), |_| Ok(Reply::Done));
        let mut stream = connect(&node, "accept: text/event-stream\r\n").await;
        read_until(&mut stream, "\r\n\r\n").await;

        node.emit(1);

        let seen = read_until(&mut stream, "id: 1").await;
        assert!(seen.contains("event: terminal.resized"), "{seen}");
        assert!(seen.contains(r#""type":"terminal.resized""#), "{seen}");
    }

    #[tokio::test]
    async fn on_a_websocket_events_come_and_wishes_are_answered() {
        let node = Served::start(a_view(), |_| {
            Ok(Reply::Message {
                id: "m9".to_owned(),
            })
        });
        let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let mut stream = connect(&node, upgrade).await;
        let head = read_until(&mut stream, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");

        node.emit(1);
        read_until(&mut stream, "terminal.resized").await;
        let wish = r#"{"id":7,"op":"message.post","data":{"text":"hi"}}"#;
        stream.write_all(&frame(wish)).await.unwrap();
        read_until(&mut stream, r#"{"id":7,"ok":true,"result":{"id":"m9"}}"#).await;
        let command = node.asked().await;
        assert!(matches!(command, Command::PostMessage { text, .. } if text == "hi"));

        for nonsense in [
            r#"{"id":8,"op":"steal"}"#,
            "[]",
            r#"{"id":8,"op":"subscribe"}"#,
        ] {
            stream.write_all(&frame(nonsense)).await.unwrap();
            read_until(&mut stream, r#""ok":false,"problem""#).await;
        }
        stream
            .write_all(&frame(r#"{"id":9,"op":"subscribe","data":{"since":0}}"#))
            .await
            .unwrap();
        read_until(&mut stream, r#""seq":1"#).await;
    }
}
