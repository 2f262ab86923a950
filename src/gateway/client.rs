//! The verbs' way to running nodes: finds the one that is meant (INTERFACES §2) and speaks the local API to it.
//! A refusal of the node comes back as the same [`CommandError`] that the engine gave.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::engine::command::CommandError;
use crate::engine::error::Code;
use crate::engine::ids::SessionId;
use crate::node::folder::{Folders, MemberInfo, MemberKind, NodeRecord};

use super::json::{Envelope, Membership, Problem, Session, Time};
use super::resolve::is;

/// How long a node may take to answer, beyond what a request asks it to wait.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// How long a node may take to say who it is.
const NAME_WAIT: Duration = Duration::from_secs(1);
/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// Longest line of an event stream.
const LINE_BYTES_MAX: usize = 1 << 20;

/// What was said about which node is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Which {
    /// `-s`: title or id of a session.
    pub session: Option<String>,
    /// `$COLLAB_P2P_SESSION`.
    pub environment: Option<String>,
    /// `--member`: name or id of a member of ours.
    pub member: Option<String>,
}

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
    ended: bool,
}

impl Client {
    /// The node at this socket.
    pub fn at(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), wait: ANSWER_WAIT }
    }

    /// The running node that is meant.
    ///
    /// # Errors
    /// `no-session` if none runs that fits, `which-session` with the list if several do.
    pub async fn find(folders: &Folders, which: &Which) -> Result<Self, CommandError> {
        let running = running(folders).await;
        choose(&running, which).map(|found| Self::at(&found.node.socket))
    }

    /// The same node, given `wait` longer to answer.
    #[must_use]
    pub fn waiting(mut self, wait: Duration) -> Self {
        self.wait = ANSWER_WAIT.saturating_add(wait);
        self
    }

    /// The node's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Reads what is at `path` (with its query).
    ///
    /// # Errors
    /// What the node refuses; `peer-unreachable` if it does not answer, as for all that follow.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CommandError> {
        self.ask(Method::GET, path, None::<&()>).await
    }

    /// Reads plain text.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn get_text(&self, path: &str) -> Result<String, CommandError> {
        let body = self.bytes(Method::GET, path, None::<&()>).await?;
        String::from_utf8(body).map_err(|_| nonsense("its answer is not text"))
    }

    /// Sends `body` and reads the answer.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn post<T: DeserializeOwned>(
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
    pub async fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, CommandError> {
        self.ask(Method::PATCH, path, Some(body)).await
    }

    /// Replaces what is at `path`.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, CommandError> {
        self.ask(Method::PUT, path, Some(body)).await
    }

    /// Ends what is at `path`.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, CommandError> {
        self.ask(Method::DELETE, path, None::<&()>).await
    }

    /// Follows the events after `since`, or those from now on.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn events(&self, since: Option<u64>) -> Result<Events, CommandError> {
        let query = since.map(|since| format!("?since={since}")).unwrap_or_default();
        let path = format!("/api/v1/events{query}");
        let response = self.within(self.send(Method::GET, &path, None::<&()>)).await?;
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        Ok(Events { body: response.into_body(), buffer: Vec::new(), ended: false })
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
        let stream = UnixStream::connect(&self.socket).await.map_err(|_| self.silent())?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|_| self.silent())?;
        // Ends by itself with the response's body.
        tokio::spawn(connection);
        let request = request(method, path, body)?;
        sender.send_request(request).await.map_err(|_| self.silent())
    }

    async fn within<T>(
        &self,
        asking: impl Future<Output = Result<T, CommandError>>,
    ) -> Result<T, CommandError> {
        tokio::time::timeout(self.wait, asking).await.unwrap_or_else(|_| Err(self.silent()))
    }

    fn silent(&self) -> CommandError {
        let message = format!("the node at {} does not answer", self.socket.display());
        CommandError::new(Code::PeerUnreachable, message)
    }
}

impl Events {
    /// The next event, or `None` once the node has stopped.
    ///
    /// # Errors
    /// `failure` if the node says something that is no event, `interrupted` if it died.
    pub async fn next(&mut self) -> Option<Result<Envelope, CommandError>> {
        loop {
            if let Some(line) = self.line() {
                let event = serde_json::from_slice(&line);
                return Some(event.map_err(|error| nonsense(&error.to_string())));
            }
            if self.ended {
                return None;
            }
            if let Err(error) = self.fill().await {
                self.ended = true;
                return Some(Err(error));
            }
        }
    }

    fn line(&mut self) -> Option<Vec<u8>> {
        let end = self.buffer.iter().position(|byte| *byte == b'\n')?;
        let rest = self.buffer.split_off(end.saturating_add(1));
        Some(std::mem::replace(&mut self.buffer, rest))
    }

    async fn fill(&mut self) -> Result<(), CommandError> {
        match self.body.frame().await {
            None => self.ended = true,
            Some(Ok(frame)) => {
                self.buffer.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            }
            Some(Err(_)) => {
                return Err(CommandError::new(Code::Interrupted, "the node has gone"));
            }
        }
        if self.buffer.len() > LINE_BYTES_MAX {
            return Err(nonsense("its event is too long"));
        }
        Ok(())
    }
}

/// All memberships of this user in this state folder, running ones with what their nodes tell, the most
/// recently used first.
pub async fn memberships(folders: &Folders) -> Vec<Membership> {
    let running = running(folders).await;
    let all = folders.list().into_iter().map(|member| {
        let found = running.iter().find(|found| found.node.member == member.member);
        membership(member, found)
    });
    all.collect()
}

fn membership(member: MemberInfo, running: Option<&Running>) -> Membership {
    let told = running.and_then(|found| found.session.as_ref());
    Membership {
        id: member.session,
        member: member.member,
        kind: member.kind,
        running: member.running,
        title: told.map(|session| session.facts.title.clone()),
        name: told.map(|session| session.me.name.clone()),
        role: told.map(|session| session.facts.role),
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
        let client = Client { socket: node.socket.clone(), wait: NAME_WAIT };
        let session = client.get("/api/v1/session").await.ok();
        Running { node, session }
    });
    futures::future::join_all(asked).await
}

fn choose<'r>(running: &'r [Running], which: &Which) -> Result<&'r Running, CommandError> {
    let named = which.session.as_deref().or(which.environment.as_deref());
    let of_session = running.iter().filter(|found| named.is_none_or(|name| found.is_session(name)));
    let found: Vec<&Running> = of_session
        .filter(|found| which.member.as_deref().is_none_or(|name| found.is_member(name)))
        .collect();
    let Some(first) = found.first() else {
        return Err(nobody(named, which.member.as_deref()));
    };
    if found.iter().any(|other| other.node.session != first.node.session) {
        return Err(several("several sessions run here", &found));
    }
    let hosts: Vec<&&Running> =
        found.iter().filter(|found| found.node.kind == MemberKind::Host).collect();
    match (found.as_slice(), hosts.as_slice()) {
        ([one], _) => Ok(one),
        (_, [host]) => Ok(host),
        (_, _) => Err(several("several members of the session run here; --member names one", &found)),
    }
}

impl Running {
    fn is_session(&self, name: &str) -> bool {
        let title = self.session.as_ref().map(|session| session.facts.title.as_str());
        is(name, &self.node.session.to_string(), title)
    }

    fn is_member(&self, name: &str) -> bool {
        let own = self.session.as_ref().map(|session| session.me.name.as_str());
        is(name, &self.node.member.to_string(), own)
    }
}

fn nobody(session: Option<&str>, member: Option<&str>) -> CommandError {
    let message = match (session, member) {
        (None, None) => "no session runs here".to_owned(),
        (Some(session), None) => format!("no session that {session:?} names runs here"),
        (_, Some(member)) => format!("no member that {member:?} names runs here"),
    };
    CommandError::new(Code::NoSession, message)
}

fn several(why: &str, found: &[&Running]) -> CommandError {
    let listed: Vec<String> = found.iter().map(|found| described(found)).collect();
    CommandError::new(Code::WhichSession, format!("{why}: {}", listed.join(", ")))
}

/// Ids and nothing of others' texts: the line goes to a terminal.
fn described(found: &Running) -> String {
    let SessionId(_) = found.node.session;
    let (session, member) = (found.node.session.short(), found.node.member.short());
    match found.node.kind {
        MemberKind::Host => format!("{session} (host {member})"),
        MemberKind::Guest => format!("{session} (guest {member})"),
    }
}

fn request(
    method: Method,
    path: &str,
    body: Option<&impl Serialize>,
) -> Result<Request<Full<Bytes>>, CommandError> {
    let body = body.map(serde_json::to_vec).transpose();
    let body = body.map_err(|error| nonsense(&error.to_string()))?.unwrap_or_default();
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
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
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
