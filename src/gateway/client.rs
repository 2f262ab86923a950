//! The verbs' way to running nodes: speaks the local API to one of them, and tells all that are here. A refusal of the node comes back as the same [`CommandError`] that the engine gave.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::engine::command::CommandError;
use crate::engine::error::Code;
use crate::node::folder::{Folders, Label, MemberInfo, NodeRecord};

use super::json::{Membership, Problem, Session, Time};

/// How long a node may take to answer, beyond what a request asks it to wait.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// How long a node may take over what costs it nothing; a busy machine is no reason to give it up.
const BRISK_WAIT: Duration = Duration::from_secs(5);
/// How long a node may take to say who it is.
const NAME_WAIT: Duration = Duration::from_secs(1);
/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// Most bytes of an event stream that wait for the end of a line.
const LINES_BYTES_MAX: usize = 1 << 20;

/// A way to one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    socket: PathBuf,
    wait: Duration,
}

/// Events of one node, one after the other.
#[derive(Debug)]
pub struct Events {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Client {
    /// The node at this socket.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            wait: ANSWER_WAIT,
        }
    }

    /// The same way for a question that the node may take so much longer to answer.
    #[must_use]
    pub fn patient(&self, more: Duration) -> Self {
        Self {
            socket: self.socket.clone(),
            wait: self.wait.saturating_add(more),
        }
    }

    /// The same way for a question that a node answers at once unless it answers nothing.
    #[must_use]
    pub fn brisk(&self) -> Self {
        Self {
            socket: self.socket.clone(),
            wait: BRISK_WAIT,
        }
    }

    /// The node's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Reads what is at `path` (with its query).
    ///
    /// # Errors
    /// What the node refuses; `peer-unreachable` if it does not answer, as for all that follow.
    pub async fn get(&self, path: &str) -> Result<Value, CommandError> {
        self.ask(Method::GET, path, None::<&()>).await
    }

    /// Reads what is at `path` as one of the shapes of [`super::json`].
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn get_as<T: DeserializeOwned>(&self, path: &str) -> Result<T, CommandError> {
        self.ask(Method::GET, path, None::<&()>).await
    }

    /// Sends `body` and reads the answer.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn post(&self, path: &str, body: &impl Serialize) -> Result<Value, CommandError> {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// Sends `body` and reads the answer as one of the shapes of [`super::json`].
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn post_as<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, CommandError> {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// Changes what is at `path`.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn patch(&self, path: &str, body: &impl Serialize) -> Result<Value, CommandError> {
        self.ask(Method::PATCH, path, Some(body)).await
    }

    /// Replaces what is at `path`.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn put(&self, path: &str, body: &impl Serialize) -> Result<Value, CommandError> {
        self.ask(Method::PUT, path, Some(body)).await
    }

    /// Ends what is at `path`.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn delete(&self, path: &str) -> Result<Value, CommandError> {
        self.ask(Method::DELETE, path, None::<&()>).await
    }

    /// Follows the events from now on.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn events(&self) -> Result<Events, CommandError> {
        self.follow("/api/v1/events").await
    }

    /// Follows the events after `since`.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn events_since(&self, since: u64) -> Result<Events, CommandError> {
        self.follow(&format!("/api/v1/events?since={since}")).await
    }

    async fn follow(&self, path: &str) -> Result<Events, CommandError> {
        let response = self
            .within(self.send(Method::GET, path, None::<&()>))
            .await?;
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        Ok(Events {
            body: response.into_body(),
            buffer: Vec::new(),
        })
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, CommandError> {
        let bytes = self.bytes(method, path, body).await?;
        serde_json::from_slice(&bytes).map_err(|error| nonsense(&error.to_string()))
    }

    async fn bytes(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Vec<u8>, CommandError> {
        self.within(async {
            let response = self.send(method, path, body).await?;
            if !response.status().is_success() {
                return Err(refusal(response).await);
            }
            collect(response).await
        })
        .await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Response<Incoming>, CommandError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|_| self.silent())?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|_| self.silent())?;
        // Ends by itself with the response's body.
        tokio::spawn(connection);
        let request = request(method, path, body)?;
        sender
            .send_request(request)
            .await
            .map_err(|_| self.silent())
    }

    async fn within<T>(
        &self,
        asking: impl Future<Output = Result<T, CommandError>>,
    ) -> Result<T, CommandError> {
        tokio::time::timeout(self.wait, asking)
            .await
            .unwrap_or_else(|_| Err(self.silent()))
    }

    fn silent(&self) -> CommandError {
        let message = format!("the node at {} does not answer", self.socket.display());
        CommandError::new(Code::PeerUnreachable, message)
    }
}

impl Events {
    /// The next event (the shape of [`super::json::Envelope`]), or `None` once the node has stopped or died.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(line) = self.line() {
                return serde_json::from_slice(&line).ok();
            }
            let frame = self.body.frame().await?.ok()?;
            self.buffer
                .extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            if self.buffer.len() > LINES_BYTES_MAX {
                return None;
            }
        }
    }

    fn line(&mut self) -> Option<Vec<u8>> {
        let end = self.buffer.iter().position(|byte| *byte == b'\n')?;
        let rest = self.buffer.split_off(end.saturating_add(1));
        Some(std::mem::replace(&mut self.buffer, rest))
    }
}

/// All memberships of this user in this state folder, running ones with what their nodes tell, the others with
/// what theirs last told; the most recently used first, those that are over last.
pub async fn memberships(folders: &Folders) -> Vec<Membership> {
    let running = running(folders).await;
    let mut all = folders.list();
    all.sort_by_key(|member| member.ended);
    let all = all.into_iter().map(|member| {
        let key = (member.session, member.member);
        let found = running
            .iter()
            .find(|found| (found.node.session, found.node.member) == key);
        membership(&member, found)
    });
    all.collect()
}

fn membership(member: &MemberInfo, running: Option<&Running>) -> Membership {
    let told = running.and_then(|found| found.session.as_ref());
    let told = told.map(|session| Label {
        title: session.facts.title.clone(),
        name: session.me.name.clone(),
        role: session.facts.role,
    });
    let label = told.or_else(|| member.label());
    Membership {
        session: member.session,
        member: member.member,
        kind: member.kind,
        running: member.running,
        title: label.as_ref().map(|label| label.title.clone()),
        name: label.as_ref().map(|label| label.name.clone()),
        role: label.as_ref().map(|label| label.role),
        socket: running.map(|found| found.node.socket.clone()),
        last_used: Time(member.last_used),
        ended: member.ended,
    }
}

/// A running node and what it says of itself.
#[derive(Debug)]
struct Running {
    node: NodeRecord,
    session: Option<Session>,
}

async fn running(folders: &Folders) -> Vec<Running> {
    let asked = folders.own_nodes().into_iter().map(|node| async {
        let client = Client {
            socket: node.socket.clone(),
            wait: NAME_WAIT,
        };
        let session = client.get_as("/api/v1/session").await.ok();
        Running { node, session }
    });
    futures::future::join_all(asked).await
}

fn request(
    method: Method,
    path: &str,
    body: Option<&impl Serialize>,
) -> Result<Request<Full<Bytes>>, CommandError> {
    let body = body.map(serde_json::to_vec).transpose();
    let body = body
        .map_err(|error| nonsense(&error.to_string()))?
        .unwrap_or_default();
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json, application/x-ndjson")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| CommandError::new(Code::Usage, error.to_string()))
}

async fn collect(response: Response<Incoming>) -> Result<Vec<u8>, CommandError> {
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await;
    let body = body.map_err(|_| nonsense("its answer broke off or is too long"))?;
    Ok(body.to_bytes().to_vec())
}

/// The engine's refusal inside a problem; anything else is a failure.
async fn refusal(response: Response<Incoming>) -> CommandError {
    let status: StatusCode = response.status();
    let body = collect(response).await.unwrap_or_default();
    let Ok(problem) = serde_json::from_slice::<Problem>(&body) else {
        return nonsense(&format!("it answered {status}"));
    };
    let code = serde_json::from_value(problem.code.into()).unwrap_or(Code::Failure);
    CommandError::new(code, problem.detail)
}

fn nonsense(why: &str) -> CommandError {
    CommandError::new(Code::Failure, format!("the node is not understood: {why}"))
}
