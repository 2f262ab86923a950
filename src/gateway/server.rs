//! Serves the local API on the node's Unix socket: to processes of this user alone, a bounded number at a time,
//! until the node stops.

use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Wake, Poll};
use std::time::Duration;

use axum::serve::Listener;
use nix::unistd::geteuid;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::node::Handle;
use crate::node::folder::Folders;

use super::events::Hub;
use super::json::Time;
use super::routes::{Context, router};

/// Connections at a time; later ones wait until one ends.
const CONNECTIONS_MAX: usize = 64;
/// Pause after the system refuses to accept, so that a shortage of files is no busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long answers and event streams may take to end after the node has stopped.
const FAREWELL: Duration = Duration::from_secs(1);

/// Serves until the node behind `handle` stops and the last answers are out. `listener` does not block
/// ([`crate::node::folder::Socket::listener`]); `started` is the time of this process's start.
///
/// # Errors
/// If the runtime cannot take the listener.
pub async fn serve(
    listener: StdListener,
    handle: Handle,
    folders: Folders,
    started: Time,
) -> io::Result<()> {
    let listener = Guarded {
        listener: UnixListener::from_std(listener)?,
        slots: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
    };
    let hub = Arc::new(Hub::new(started, handle.view().session.id));
    let events = handle.events();
    let context = Context {
        handle: handle.clone(),
        hub: Arc::clone(&hub),
        folders,
    };
    let collecting = hub.collect(handle.clone(), events);
    let stopping = handle.clone();
    let serving = axum::serve(listener, router(Arc::new(context)))
        .with_graceful_shutdown(async move { drop(stopping.stopped().await) });
    let farewell = async {
        drop(handle.stopped().await);
        tokio::time::sleep(FAREWELL).await;
    };
    let served = async { tokio::join!(collecting, serving.into_future()).1 };
    tokio::select! {
        result = served => result,
        () = farewell => Ok(()),
    }
}

/// A listener that lets in this user's processes only, and only so many at a time.
#[derive(Debug)]
struct Guarded {
    listener: UnixListener,
    slots: Arc<Semaphore>,
}

/// A connection that holds its slot.
#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    _slot: Option<OwnedSemaphorePermit>,
}

impl Listener for Guarded {
    type Io = Connection;
    type Addr = ();

    async fn accept(&mut self) -> (Connection, ()) {
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok();
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) if is_ours(&stream) => {
                    return (
                        Connection {
                            stream,
                            _slot: slot,
                        },
                        (),
                    );
                }
                Ok(_) => tracing::warn!("a process of another user is turned away from the socket"),
                Err(error) => {
                    tracing::warn!(%error, "the socket does not accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Folder and file permissions say the same; this holds where they were loosened.
fn is_ours(stream: &UnixStream) -> bool {
    stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == geteuid().as_raw())
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        wake: &mut Wake<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(wake, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        wake: &mut Wake<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(wake, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, wake: &mut Wake<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(wake)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, wake: &mut Wake<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(wake)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};
    use tempfile::TempDir;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::{Mutex, broadcast, mpsc, watch};

    use super::*;
    use crate::engine::capability::Role;
    use crate::engine::command::{Command, CommandError, Reply};
    use crate::engine::effect::StopReason;
    use crate::engine::error::Code;
    use crate::engine::ids::{MemberId, SessionId, TerminalId, TopicId};
    use crate::engine::time::Wall;
    use crate::engine::view::{SessionEvent, View, What};
    use crate::gateway::client::{Client, memberships};
    use crate::gateway::json::Envelope;
    use crate::gateway::routes::tests::a_view;
    use crate::node::folder::{EnvPaths, Label, MemberKind, NodeRecord, Registration, Socket};
    use crate::node::handle::NumberedEvent;

    /// A node without an engine, served on a real socket: it shows one view and answers as it is told.
    pub(in crate::gateway) struct Served {
        pub(in crate::gateway) client: Client,
        commands: Mutex<mpsc::UnboundedReceiver<Command>>,
        events: broadcast::Sender<NumberedEvent>,
        stopped: watch::Sender<Option<StopReason>>,
        serving: tokio::task::JoinHandle<io::Result<()>>,
        _kept: (
            watch::Sender<Arc<View>>,
            watch::Sender<crate::node::Screens>,
        ),
        _home: Option<TempDir>,
        _socket: Socket,
        _registration: Registration,
    }

    impl Served {
        pub(in crate::gateway) fn start(
            view: View,
            answer: impl Fn(&Command) -> Result<Reply, CommandError> + Send + 'static,
        ) -> Self {
            let home = tempfile::tempdir().unwrap();
            let folders = folders(&home);
            let served = Self::start_in(&folders, view, MemberKind::Host, answer);
            Self {
                _home: Some(home),
                ..served
            }
        }

        fn start_in(
            folders: &Folders,
            view: View,
            kind: MemberKind,
            answer: impl Fn(&Command) -> Result<Reply, CommandError> + Send + 'static,
        ) -> Self {
            let (member, session) = (view.me, view.session.id);
            let socket = folders.bind_socket(member).unwrap();
            let registration = folders.register(record(folders, session, member, kind, &socket));
            let (handle, mut source) = Handle::new(view, Arc::default(), None);
            let (told, commands) = mpsc::unbounded_channel();
            tokio::spawn(async move {
                while let Some(asked) = source.asked.recv().await {
                    let reply = answer(&asked.command);
                    told.send(asked.command).unwrap();
                    drop(asked.answer.send(reply));
                }
            });
            let listener = socket.listener().unwrap();
            let serving = serve(listener, handle, folders.clone(), Time(Wall(1)));
            Self {
                client: Client::new(socket.path()),
                commands: Mutex::new(commands),
                events: source.events,
                stopped: source.stopped,
                serving: tokio::spawn(serving),
                _kept: (source.view, source.screens),
                _home: None,
                _socket: socket,
                _registration: registration.unwrap(),
            }
        }

        pub(in crate::gateway) async fn json(&self, path: &str) -> Value {
            self.client.get(path).await.unwrap()
        }

        pub(in crate::gateway) async fn refused(&self, path: &str) -> CommandError {
            self.client.get(path).await.unwrap_err()
        }

        pub(in crate::gateway) async fn asked(&self) -> Command {
            self.commands.lock().await.recv().await.unwrap()
        }

        /// The status of a raw request.
        pub(in crate::gateway) async fn status(
            &self,
            method: &str,
            path: &str,
            body: &[u8],
        ) -> u16 {
            let mut stream = UnixStream::connect(self.client.socket()).await.unwrap();
            let length = body.len();
            let head = format!(
                "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            // A body that is refused for its length is not read to its end.
            drop(stream.write_all(body).await);
            let mut answer = Vec::new();
            drop(stream.read_to_end(&mut answer).await);
            let answer = String::from_utf8_lossy(&answer);
            answer.split(' ').nth(1).unwrap().parse().unwrap()
        }

        /// A durable event with this number happens.
        pub(in crate::gateway) fn emit(&self, seq: u64) {
            let what = What::TerminalResized {
                terminal: TerminalId([4; 16]),
                cols: 80,
                rows: 24,
            };
            let event = SessionEvent {
                time: Wall(0),
                actor: None,
                what,
            };
            drop(self.events.send(NumberedEvent { seq, event }));
        }
    }

    fn folders(home: &TempDir) -> Folders {
        let env = EnvPaths {
            temp: home.path().join("t"),
            ..EnvPaths::default()
        };
        Folders::resolve(Some(home.path().to_owned()), &env).unwrap()
    }

    fn record(
        folders: &Folders,
        session: SessionId,
        member: MemberId,
        kind: MemberKind,
        socket: &Socket,
    ) -> NodeRecord {
        NodeRecord {
            session,
            topic: TopicId([0; 32]),
            member,
            kind,
            pid: std::process::id(),
            listen: vec![],
            socket: socket.path().to_owned(),
            state: folders.state().to_owned(),
        }
    }

    fn view_of(session: u8, title: &str, member: u8, name: &str) -> View {
        let mut view = a_view();
        view.session.id = SessionId([session; 32]);
        view.session.title = title.to_owned();
        view.me = MemberId([member; 32]);
        view.participants[0].id = view.me;
        view.participants[0].name = name.to_owned();
        view
    }

    #[tokio::test]
    async fn memberships_tell_what_their_nodes_say_and_stopped_ones_what_theirs_last_said() {
        let home = tempfile::tempdir().unwrap();
        let folders = folders(&home);
        let view = view_of(0xa1, "Work", 0x11, "ada");
        let (running, stopped) = (SessionId([0xa1; 32]), SessionId([0xb1; 32]));
        let lock = folders
            .create_member(running, view.me, MemberKind::Host, Wall(2))
            .unwrap();
        let over = SessionId([0xc1; 32]);
        for (session, title) in [(stopped, "Home"), (over, "Past")] {
            let made = folders.create_member(session, view.me, MemberKind::Guest, Wall(1));
            let mut made = made.unwrap();
            let label = Label {
                title: title.to_owned(),
                name: "ada".to_owned(),
                role: Role::Editor,
            };
            made.set_label(&label).unwrap();
            if session == over {
                made.touch(Wall(3)).unwrap();
                made.set_ended().unwrap();
            }
        }
        let node = Served::start_in(&folders, view, MemberKind::Host, |_| Ok(Reply::Done));

        let mut all = memberships(&folders).await;

        assert_eq!(all.len(), 3);
        let last = all.pop().unwrap();
        assert_eq!((last.session, last.ended), (over, true));
        let (second, first) = (all.pop().unwrap(), all.pop().unwrap());
        assert_eq!(
            (first.session, first.title.as_deref()),
            (running, Some("Work"))
        );
        assert_eq!(
            (second.session, second.title.as_deref(), second.running),
            (stopped, Some("Home"), false)
        );
        assert_eq!(second.name.as_deref(), Some("ada"));
        assert_eq!(second.role, Some(Role::Editor));
        assert_eq!(
            node.json("/api/v1/sessions").await["items"][0]["name"],
            "ada"
        );
        drop(lock);
    }

    #[tokio::test]
    async fn events_are_followed_and_replayed_over_the_socket() {
        let node = Served::start(a_view(), |_| Ok(Reply::Done));
        let mut live = node.client.events().await.unwrap();
        (1..=3).for_each(|seq| node.emit(seq));

        assert_eq!(live.next().await.unwrap()["seq"], 1);
        assert_eq!(live.next().await.unwrap()["type"], "terminal.resized");
        let mut later = node.client.events_since(2).await.unwrap();
        let event: Envelope = serde_json::from_value(later.next().await.unwrap()).unwrap();
        assert_eq!((event.seq, event.session), (Some(3), SessionId([9; 32])));
        assert_eq!(event.data["terminal"], json!(TerminalId([4; 16])));
    }

    #[tokio::test]
    async fn streams_and_server_end_with_the_node_after_the_last_event() {
        let node = Served::start(a_view(), |_| Ok(Reply::Done));
        let mut events = node.client.events().await.unwrap();
        node.emit(1);
        node.stopped.send_replace(Some(StopReason::Offline));

        assert_eq!(events.next().await.unwrap()["seq"], 1);
        assert!(events.next().await.is_none());
        let served = tokio::time::timeout(FAREWELL * 3, node.serving).await;
        assert!(served.unwrap().unwrap().is_ok());
    }

    #[tokio::test]
    async fn a_node_that_does_not_answer_is_unreachable() {
        let error = Client::new("/nowhere.sock")
            .get("/health")
            .await
            .unwrap_err();

        assert_eq!(error.code, Code::PeerUnreachable);
    }

    #[tokio::test]
    async fn silent_connections_beyond_the_limit_wait_and_hurt_nobody_who_is_in() {
        let node = Served::start(a_view(), |_| Ok(Reply::Done));
        let mut idle = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            idle.push(UnixStream::connect(node.client.socket()).await.unwrap());
        }
        let asking = tokio::spawn({
            let client = node.client.clone();
            async move { client.get("/health").await }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!asking.is_finished());

        idle.pop();

        assert_eq!(asking.await.unwrap().unwrap()["status"], "ok");
    }
}
