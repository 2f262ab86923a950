//! What connections, streams and the engine's side share: queues of messages to write, the registry that finds
//! them by number, and the framing on the wire.
//!
//! The engine's side only ever appends to a bounded queue and wakes the connection's task, which does all
//! reading and writing itself ([`crate::net::lanes`]); no other task stands between.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::task::AtomicWaker;

use crate::engine::address::Network;
use crate::engine::event::{ConnId, Ended, Lane, NetEvent, StreamId};
use crate::engine::ids::{MemberId, TopicId};
use crate::engine::limits;
use crate::net::gauges::{Fullest, Gauges};
use crate::net::inbox::{InFlight, Inbox, Line};

/// Takes a lock whatever happened to its last holder: no holder leaves a value half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What all parts of one node's network know.
#[derive(Default)]
pub(crate) struct Shared {
    /// The way to the engine.
    pub(crate) inbox: Arc<Inbox>,
    /// Keys that get a member's lanes.
    pub(crate) members: Mutex<Arc<BTreeSet<MemberId>>>,
    /// Topics that we take part in.
    pub(crate) topics: Mutex<BTreeSet<TopicId>>,
    /// Networks of our interfaces.
    pub(crate) networks: Mutex<Vec<Network>>,
    /// How full the queues are.
    pub(crate) gauges: Arc<Gauges>,
    connections: Mutex<BTreeMap<ConnId, Arc<Connection>>>,
    streams: Mutex<BTreeMap<StreamId, Writer>>,
    last_connection: AtomicU64,
    last_stream: AtomicU64,
}

/// Where a stream is written: its connection, to be woken, and its queue.
type Writer = (Arc<Connection>, Arc<Outbox>);

/// Bounds of a lane, in bytes and streams.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LaneLimits {
    /// Largest message.
    pub(crate) message: usize,
    /// Most that waits to be written.
    pub(crate) queue: usize,
    /// Streams that the peer may have open on a connection.
    pub(crate) streams: usize,
}

/// The bounds of a lane.
pub(crate) fn limits_of(lane: Lane) -> LaneLimits {
    let (message, queue) = match lane {
        Lane::Admission => (
            limits::ADMISSION_MESSAGE_BYTES_MAX,
            limits::ADMISSION_QUEUE_BYTES_MAX,
        ),
        Lane::Control => (
            limits::CONTROL_MESSAGE_BYTES_MAX,
            limits::CONTROL_QUEUE_BYTES_MAX,
        ),
        Lane::Input => (
            limits::INPUT_MESSAGE_BYTES_MAX,
            limits::INPUT_QUEUE_BYTES_MAX,
        ),
        Lane::Screen => (
            limits::SCREEN_MESSAGE_BYTES_MAX,
            limits::SCREEN_QUEUE_BYTES_MAX,
        ),
    };
    let streams = match lane {
        Lane::Admission => limits::INBOUND_ADMISSION_STREAMS_MAX,
        Lane::Control | Lane::Input | Lane::Screen => limits::INBOUND_STREAMS_PER_LANE_MAX,
    };
    LaneLimits {
        message,
        queue,
        streams,
    }
}

/// A connection, as both its task and the engine's side see it.
pub(crate) struct Connection {
    /// Its number.
    pub(crate) id: ConnId,
    /// The key that the peer proved.
    pub(crate) peer: MemberId,
    /// Whether it has a member's lanes.
    pub(crate) member: bool,
    /// Whether we dialled.
    pub(crate) outbound: bool,
    /// Wakes its task.
    pub(crate) wake: Arc<AtomicWaker>,
    /// Streams that the peer opened and the engine has not heard of.
    pub(crate) unseen: Arc<InFlight>,
    /// Whether its end was reported.
    ended: AtomicBool,
    asked: Mutex<Asked>,
}

#[derive(Default)]
struct Asked {
    opens: VecDeque<Opening>,
    close: bool,
}

/// A stream that the engine wants.
pub(crate) struct Opening {
    /// Its number.
    pub(crate) stream: StreamId,
    /// What it carries.
    pub(crate) lane: Lane,
    /// What is to be written on it.
    pub(crate) outbox: Arc<Outbox>,
}

impl Connection {
    /// The next stream to open.
    pub(crate) fn next_opening(&self) -> Option<Opening> {
        lock(&self.asked).opens.pop_front()
    }

    /// Whether the engine wants it closed.
    pub(crate) fn is_closing(&self) -> bool {
        lock(&self.asked).close
    }

    /// Closes it once what was sent is flushed.
    pub(crate) fn close(&self) {
        lock(&self.asked).close = true;
        self.wake.wake();
    }

    /// Where its facts go.
    pub(crate) fn line(&self) -> Line {
        Line::Connection(self.id)
    }
}

/// What the engine wants written on a stream.
pub(crate) struct Outbox {
    lane: Lane,
    queue: Mutex<Queue>,
    /// Whether a report of readiness waits for the engine.
    pub(crate) ready: Arc<InFlight>,
    /// What the peer said on the stream and waits for the engine.
    pub(crate) backlog: Arc<InFlight>,
    gauges: Arc<Gauges>,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<Vec<u8>>,
    bytes: usize,
    end: Option<End>,
}

/// How the engine's side ends a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// After what is queued.
    Close,
    /// At once: a bound is broken.
    Break(Ended),
}

/// What a stream's writer finds.
pub(crate) enum Next {
    /// Framed messages were appended to the buffer.
    Bytes,
    /// Nothing to write now.
    Nothing,
    /// Everything is written and the stream is to end.
    End,
    /// The stream is to end at once.
    Break(Ended),
}

impl Outbox {
    fn new(lane: Lane, wake: &Arc<AtomicWaker>, gauges: &Arc<Gauges>) -> Arc<Self> {
        Arc::new(Self {
            lane,
            queue: Mutex::default(),
            ready: InFlight::new(wake),
            backlog: InFlight::new(wake),
            gauges: Arc::clone(gauges),
        })
    }

    fn push(&self, message: Vec<u8>) {
        let bounds = limits_of(self.lane);
        let mut queue = lock(&self.queue);
        if queue.end.is_some() {
        } else if message.len() > bounds.message {
            queue.end = Some(End::Break(Ended::TooLarge));
        } else if queue.bytes + message.len() > bounds.queue {
            let reason = format!("the peer is {} bytes behind", queue.bytes);
            queue.end = Some(End::Break(Ended::Failed(reason)));
            self.gauges.out(self.lane).drop_one();
        } else {
            queue.bytes += message.len();
            queue.messages.push_back(message);
            self.gauges.out(self.lane).reach(queue.bytes);
        }
    }

    fn close(&self) {
        lock(&self.queue).end.get_or_insert(End::Close);
    }

    #[cfg(test)]
    pub(crate) fn push_unchecked(&self, message: Vec<u8>) {
        lock(&self.queue).messages.push_back(message);
    }

    /// Moves waiting messages, framed, into `out` until it holds about `enough` bytes.
    pub(crate) fn fill(&self, out: &mut Vec<u8>, enough: usize) -> Next {
        let mut queue = lock(&self.queue);
        if let Some(End::Break(ended)) = &queue.end {
            return Next::Break(ended.clone());
        }
        while out.len() < enough
            && let Some(message) = queue.messages.pop_front()
        {
            queue.bytes = queue.bytes.saturating_sub(message.len());
            frame(&message, out);
        }
        match (out.is_empty(), &queue.end) {
            (false, _) => Next::Bytes,
            (true, None) => Next::Nothing,
            (true, Some(_)) => Next::End,
        }
    }
}

impl Shared {
    /// Registers a connection and reports nothing yet.
    pub(crate) fn connect(&self, peer: MemberId, member: bool, outbound: bool) -> Arc<Connection> {
        let id = ConnId(self.last_connection.fetch_add(1, Ordering::Relaxed) + 1);
        let wake = Arc::new(AtomicWaker::new());
        let connection = Arc::new(Connection {
            id,
            peer,
            member,
            outbound,
            unseen: InFlight::new(&wake),
            wake,
            ended: AtomicBool::new(false),
            asked: Mutex::default(),
        });
        lock(&self.connections).insert(id, Arc::clone(&connection));
        connection
    }

    /// Forgets a connection and its streams, and reports its end the first time.
    pub(crate) fn disconnect(&self, connection: &Connection, ended: Ended) {
        lock(&self.connections).remove(&connection.id);
        lock(&self.streams).retain(|_, (of, _)| of.id != connection.id);
        if !connection.ended.swap(true, Ordering::AcqRel) {
            let event = NetEvent::Disconnected {
                conn: connection.id,
                ended,
            };
            self.inbox.put(connection.line(), event, None);
        }
    }

    /// How a connection ended that was not closed from here: in order if the peer had ended all its streams.
    pub(crate) fn end_of(&self, connection: &Connection, cause: Option<String>) -> Ended {
        let open = lock(&self.streams)
            .values()
            .any(|(of, _)| of.id == connection.id);
        match cause {
            Some(cause) if open => Ended::Failed(cause),
            Some(_) | None => Ended::Finished,
        }
    }

    /// How many connections there are.
    pub(crate) fn connected(&self) -> usize {
        lock(&self.connections).len()
    }

    /// Closes every connection, as [`Self::close`] does.
    pub(crate) fn close_all(&self) {
        for connection in lock(&self.connections).values() {
            connection.close();
        }
    }

    /// Closes a connection once what was sent on it is flushed.
    pub(crate) fn close(&self, conn: ConnId) {
        if let Some(connection) = lock(&self.connections).get(&conn) {
            connection.close();
        }
    }

    /// Asks a connection's task for a stream.
    pub(crate) fn open(&self, conn: ConnId, stream: StreamId, lane: Lane) {
        let Some(connection) = lock(&self.connections).get(&conn).cloned() else {
            let ended = Ended::Failed("the connection is gone".to_owned());
            let event = NetEvent::StreamClosed { stream, ended };
            return self.inbox.put(Line::Connection(conn), event, None);
        };
        let outbox = self.register(&connection, stream, lane);
        lock(&connection.asked).opens.push_back(Opening {
            stream,
            lane,
            outbox,
        });
        connection.wake.wake();
    }

    /// Numbers and registers a stream that the peer opened.
    pub(crate) fn accept(
        &self,
        connection: &Arc<Connection>,
        lane: Lane,
    ) -> (StreamId, Arc<Outbox>) {
        let stream = StreamId(self.last_stream.fetch_add(2, Ordering::Relaxed) + 1);
        (stream, self.register(connection, stream, lane))
    }

    fn register(&self, connection: &Arc<Connection>, stream: StreamId, lane: Lane) -> Arc<Outbox> {
        let outbox = Outbox::new(lane, &connection.wake, &self.gauges);
        let entry = (Arc::clone(connection), Arc::clone(&outbox));
        lock(&self.streams).insert(stream, entry);
        outbox
    }

    /// What the fullest stream of each lane, and the fullest connection, hold now.
    pub(crate) fn fullest(&self) -> Fullest {
        let count = |of: usize| u64::try_from(of).unwrap_or(u64::MAX);
        let mut found = Fullest::default();
        let outboxes: Vec<Arc<Outbox>> = lock(&self.streams)
            .values()
            .map(|(_, outbox)| Arc::clone(outbox))
            .collect();
        for outbox in outboxes {
            let [admission, control, input, screen] = &mut found.out;
            let out = match outbox.lane {
                Lane::Admission => admission,
                Lane::Control => control,
                Lane::Input => input,
                Lane::Screen => screen,
            };
            *out = count(lock(&outbox.queue).bytes).max(*out);
            found.backlog = count(outbox.backlog.messages()).max(found.backlog);
            found.backlog_bytes = count(outbox.backlog.bytes()).max(found.backlog_bytes);
        }
        for connection in lock(&self.connections).values() {
            found.unseen = count(connection.unseen.messages()).max(found.unseen);
        }
        found
    }

    /// Forgets a stream.
    pub(crate) fn forget(&self, stream: StreamId) {
        lock(&self.streams).remove(&stream);
    }

    /// Queues a message. On a stream that is gone it is dropped: its end is on its way to the engine.
    pub(crate) fn send(&self, stream: StreamId, message: Vec<u8>) {
        let Some((connection, outbox)) = lock(&self.streams).get(&stream).cloned() else {
            return;
        };
        outbox.push(message);
        connection.wake.wake();
    }

    /// Queues a message past every bound, as a hostile peer would.
    #[cfg(test)]
    pub(crate) fn send_unchecked(&self, stream: StreamId, message: Vec<u8>) {
        let (connection, outbox) = lock(&self.streams).get(&stream).cloned().unwrap();
        outbox.push_unchecked(message);
        connection.wake.wake();
    }

    /// Closes a stream after what was sent.
    pub(crate) fn close_stream(&self, stream: StreamId) {
        let Some((connection, outbox)) = lock(&self.streams).get(&stream).cloned() else {
            return;
        };
        outbox.close();
        connection.wake.wake();
    }
}

/// Appends a message as it travels: its length (four bytes, little-endian), then itself.
fn frame(message: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX); // the lane's limit came first
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(message);
}

/// A message longer than its lane allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLarge;

/// Cuts a stream of bytes into messages. Memory grows with what has come in, not with what is announced.
#[derive(Debug, Default)]
pub(crate) struct Deframer {
    head: [u8; 4],
    head_len: usize,
    body: Vec<u8>,
}

impl Deframer {
    /// Takes bytes off `input` up to the end of one message, which is returned once it is whole.
    ///
    /// # Errors
    /// [`TooLarge`] as soon as the length is known to be above `max`; the stream is of no use after that.
    pub(crate) fn feed(
        &mut self,
        input: &mut &[u8],
        max: usize,
    ) -> Result<Option<Vec<u8>>, TooLarge> {
        while let Some(slot) = self.head.get_mut(self.head_len) {
            let Some((byte, rest)) = input.split_first() else {
                return Ok(None);
            };
            *slot = *byte;
            self.head_len += 1;
            *input = rest;
        }
        let length = usize::try_from(u32::from_le_bytes(self.head)).map_err(|_| TooLarge)?;
        if length > max {
            return Err(TooLarge);
        }
        let missing = length - self.body.len();
        let (taken, rest) = input.split_at(missing.min(input.len()));
        self.body.extend_from_slice(taken);
        *input = rest;
        if self.body.len() < length {
            return Ok(None);
        }
        self.head_len = 0;
        Ok(Some(std::mem::take(&mut self.body)))
    }

    /// Whether a message has begun and not ended.
    pub(crate) fn is_inside(&self) -> bool {
        self.head_len > 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_announced_length_above_the_limit_is_refused_before_any_memory_is_taken() {
        let mut deframer = Deframer::default();
        let mut input = &[0x01, 0x00, 0x01, 0x00, 9, 9][..]; // 64 KiB and one

        assert_eq!(deframer.feed(&mut input, 64 * 1024), Err(TooLarge));
        assert_eq!(deframer.body.capacity(), 0);
    }

    #[test]
    fn an_announced_length_within_the_limit_takes_only_what_has_come() {
        let mut deframer = Deframer::default();
        let mut input = &[0x00, 0x00, 0x10, 0x00, 9, 9][..]; // 1 MiB

        assert_eq!(deframer.feed(&mut input, 1024 * 1024), Ok(None));
        assert!(deframer.body.capacity() < 1024);
        assert!(deframer.is_inside());
    }

    #[test]
    fn a_queue_past_its_bound_breaks_the_stream() {
        let shared = Shared::default();
        let connection = shared.connect(MemberId([1; 32]), true, true);
        let (stream, outbox) = shared.accept(&connection, Lane::Input);
        let message = vec![0; limits::INPUT_MESSAGE_BYTES_MAX];

        for _ in 0..=limits::INPUT_QUEUE_BYTES_MAX / limits::INPUT_MESSAGE_BYTES_MAX {
            shared.send(stream, message.clone());
        }
        let next = outbox.fill(&mut Vec::new(), 1);
        assert!(matches!(next, Next::Break(Ended::Failed(_))));
    }

    #[test]
    fn a_message_above_the_lanes_limit_is_never_sent() {
        let shared = Shared::default();
        let connection = shared.connect(MemberId([1; 32]), true, true);
        let (stream, outbox) = shared.accept(&connection, Lane::Input);

        shared.send(stream, vec![0; limits::INPUT_MESSAGE_BYTES_MAX + 1]);
        let next = outbox.fill(&mut Vec::new(), 1);
        assert!(matches!(next, Next::Break(Ended::TooLarge)));
    }

    proptest! {
        #[test]
        fn messages_survive_framing_however_the_bytes_are_cut(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..10),
            cut in 1..20_usize,
        ) {
            let mut wire = Vec::new();
            for message in &messages {
                frame(message, &mut wire);
            }
            let mut deframer = Deframer::default();
            let mut seen = Vec::new();
            for mut piece in wire.chunks(cut) {
                while let Some(message) = deframer.feed(&mut piece, 50).unwrap() {
                    seen.push(message);
                }
                prop_assert!(piece.is_empty());
            }
            prop_assert_eq!(seen, messages);
            prop_assert!(!deframer.is_inside());
        }
    }
}
