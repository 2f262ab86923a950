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
    let hub = Arc::new(Hub::new(started));
    let events = handle.events();
    let context = Context { handle: handle.clone(), hub: Arc::clone(&hub), folders };
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
                    return (Connection { stream, _slot: slot }, ());
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
    stream.peer_cred().is_ok_and(|peer| peer.uid() == geteuid().as_raw())
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
