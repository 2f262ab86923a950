//! The way from the network to the engine: one queue per connection, served in turn.
//!
//! What a connection reports stays in order. Each stream may have only so much waiting here; past that its
//! reader stops until the engine has taken something, so the peer's own transport slows it down and nobody
//! else.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::task::AtomicWaker;

use crate::engine::event::{ConnId, NetEvent};
use crate::engine::limits;

/// The facts of the network, in turn from all connections.
pub struct NetEvents {
    inbox: Arc<Inbox>,
}

impl NetEvents {
    pub(crate) fn of(inbox: &Arc<Inbox>) -> Self {
        Self {
            inbox: Arc::clone(inbox),
        }
    }

    /// The next fact; none once the network has ended and everything is taken. Dropping the future loses
    /// nothing.
    pub async fn recv(&mut self) -> Option<NetEvent> {
        poll_fn(|cx| self.inbox.poll_take(cx)).await
    }

    /// The next fact, if one is waiting.
    pub fn try_recv(&mut self) -> Option<NetEvent> {
        self.inbox.take()
    }
}

impl fmt::Debug for NetEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetEvents").finish_non_exhaustive()
    }
}

impl Drop for NetEvents {
    fn drop(&mut self) {
        self.inbox.abandon();
    }
}

/// Who reports a fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Line {
    /// The node itself: addresses, discovery, dials.
    Node,
    /// Gossip.
    Gossip,
    /// A connection.
    Connection(ConnId),
}

/// The queues.
#[derive(Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lines: BTreeMap<Line, VecDeque<Entry>>,
    /// Lines with something waiting, next one first.
    turns: VecDeque<Line>,
    waker: Option<Waker>,
    ended: bool,
    abandoned: bool,
}

struct Entry {
    event: NetEvent,
    credit: Option<Credit>,
}

impl Inbox {
    /// Appends a fact to a line. What is held by `credit` is given back when the engine takes the fact.
    pub(crate) fn put(&self, line: Line, event: NetEvent, credit: Option<Credit>) {
        let waker = {
            let mut state = self.lock();
            if state.abandoned || state.ended {
                return;
            }
            let queue = state.lines.entry(line).or_default();
            let first = queue.is_empty();
            queue.push_back(Entry { event, credit });
            if first {
                state.turns.push_back(line);
            }
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// How much of a line is waiting.
    pub(crate) fn waiting(&self, line: Line) -> usize {
        self.lock().lines.get(&line).map_or(0, VecDeque::len)
    }

    /// Takes nothing more in; what is here can still be taken.
    pub(crate) fn end(&self) {
        let waker = {
            let mut state = self.lock();
            state.ended = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn abandon(&self) {
        let forgotten = {
            let mut state = self.lock();
            state.abandoned = true;
            state.turns.clear();
            std::mem::take(&mut state.lines)
        };
        drop(forgotten); // outside of the lock: credits wake connections
    }

    fn take(&self) -> Option<NetEvent> {
        let entry = self.lock().next()?;
        drop(entry.credit);
        Some(entry.event)
    }

    fn poll_take(&self, cx: &Context<'_>) -> Poll<Option<NetEvent>> {
        let entry = {
            let mut state = self.lock();
            let Some(entry) = state.next() else {
                if state.ended {
                    return Poll::Ready(None);
                }
                state.waker = Some(cx.waker().clone());
                return Poll::Pending;
            };
            entry
        };
        drop(entry.credit);
        Poll::Ready(Some(entry.event))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next(&mut self) -> Option<Entry> {
        let line = self.turns.pop_front()?;
        let queue = self.lines.get_mut(&line)?;
        let entry = queue.pop_front();
        if queue.is_empty() {
            self.lines.remove(&line);
        } else {
            self.turns.push_back(line);
        }
        entry
    }
}

/// What one producer has waiting in the inbox.
pub(crate) struct InFlight {
    messages: AtomicUsize,
    bytes: AtomicUsize,
    stalled: AtomicBool,
    wake: Arc<AtomicWaker>,
}

/// A share of an [`InFlight`], given back when dropped.
pub(crate) struct Credit {
    of: Arc<InFlight>,
    bytes: usize,
}

impl InFlight {
    /// Nothing waiting; `wake` is woken when a stalled producer may go on.
    pub(crate) fn new(wake: &Arc<AtomicWaker>) -> Arc<Self> {
        Arc::new(Self {
            messages: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            stalled: AtomicBool::new(false),
            wake: Arc::clone(wake),
        })
    }

    /// Accounts for one message.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Credit {
        self.messages.fetch_add(1, Ordering::AcqRel);
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        Credit {
            of: Arc::clone(self),
            bytes,
        }
    }

    /// Messages waiting.
    pub(crate) fn messages(&self) -> usize {
        self.messages.load(Ordering::Acquire)
    }

    /// Their bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Acquire)
    }

    /// Whether a stream may add a message. If not, its connection is woken once it may.
    pub(crate) fn has_room(&self) -> bool {
        if self.below_limit() {
            return true;
        }
        self.stalled.store(true, Ordering::SeqCst);
        self.below_limit() // taken meanwhile: no wake-up would come
    }

    fn below_limit(&self) -> bool {
        self.messages.load(Ordering::SeqCst) < limits::STREAM_BACKLOG_MESSAGES_MAX
            && self.bytes.load(Ordering::SeqCst) < limits::STREAM_BACKLOG_BYTES_MAX
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        self.of.messages.fetch_sub(1, Ordering::SeqCst);
        self.of.bytes.fetch_sub(self.bytes, Ordering::SeqCst);
        if self.of.stalled.load(Ordering::SeqCst)
            && self.of.below_limit()
            && self.of.stalled.swap(false, Ordering::SeqCst)
        {
            self.of.wake.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::event::StreamId;

    #[test]
    fn connections_are_served_in_turn_and_each_in_order() {
        let inbox = Arc::new(Inbox::default());
        let mut events = NetEvents::of(&inbox);
        for stream in [1, 3, 5] {
            inbox.put(Line::Connection(ConnId(1)), ready(stream), None);
        }
        inbox.put(Line::Connection(ConnId(2)), ready(7), None);

        let mut seen = Vec::new();
        while let Some(NetEvent::StreamReady { stream }) = events.try_recv() {
            seen.push(stream.0);
        }
        assert_eq!(seen, [1, 7, 3, 5]);
    }

    #[test]
    fn a_stream_has_room_again_once_the_engine_has_taken_something() {
        let wake = Arc::new(AtomicWaker::new());
        let in_flight = InFlight::new(&wake);
        let inbox = Arc::new(Inbox::default());
        let mut events = NetEvents::of(&inbox);
        let mut put = 0;
        while in_flight.has_room() {
            inbox.put(Line::Gossip, ready(1), Some(in_flight.take(10)));
            put += 1;
        }
        assert_eq!(put, limits::STREAM_BACKLOG_MESSAGES_MAX);

        assert!(events.try_recv().is_some());
        assert!(in_flight.has_room());
    }

    #[test]
    fn what_was_reported_before_the_end_is_still_taken() {
        let inbox = Arc::new(Inbox::default());
        let mut events = NetEvents::of(&inbox);
        inbox.put(Line::Node, ready(1), None);
        inbox.end();
        inbox.put(Line::Node, ready(3), None);

        futures::executor::block_on(async {
            assert!(events.recv().await.is_some());
            assert!(events.recv().await.is_none());
        });
    }

    fn ready(stream: u64) -> NetEvent {
        NetEvent::StreamReady {
            stream: StreamId(stream),
        }
    }
}
