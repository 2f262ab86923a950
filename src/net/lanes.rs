//! The streams of one connection: a protocol per lane, opened and served by the connection's own task.
//!
//! A connection whose peer is no member offers the admission lane and nothing else; whoever asks for another
//! is told by the protocol negotiation itself that it is not spoken. Reading stops while the engine is behind,
//! and goes on when it has taken something.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::iter::Map;
use std::pin::Pin;
use std::slice::Iter;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{Ready, ready};
use futures::{AsyncRead, AsyncWrite};
use libp2p::Stream;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol,
};
use tokio::time::Sleep;

use crate::engine::event::{Ended, Lane, NetEvent, StreamId};
use crate::engine::limits;
use crate::net::convert::protocol_of;
use crate::net::inbox::InFlight;
use crate::net::streams::{
    Connection, Deframer, Next, Opening, Outbox, Shared, TooLarge, limits_of,
};

/// How long the agreement on a stream may take.
const NEGOTIATION_TIMEOUT: Duration = Duration::from_secs(5);
/// How long what was sent may take to arrive after a stream or connection is asked to close.
const FAREWELL_TIMEOUT: Duration = Duration::from_millis(700);
/// Bytes read from a stream at a time.
const READ_BYTES: usize = 16 * 1024;
/// Bytes gathered before they are given to the transport.
const WRITE_BYTES: usize = 32 * 1024;
/// Reads from one stream before the others of the connection have their turn.
const READS_PER_TURN: usize = 16;

const MEMBER_LANES: &[Lane] = &[Lane::Admission, Lane::Control, Lane::Input, Lane::Screen];
const STRANGER_LANES: &[Lane] = &[Lane::Admission];

/// What a connection's streams tell the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LaneReport {
    /// The engine wants the connection closed, and what was sent has arrived or had its time.
    Farewell,
    /// A peer that is no member said more than it may.
    Flood,
}

/// Serves the streams of one connection.
pub(crate) struct LaneHandler {
    connection: Arc<Connection>,
    shared: Arc<Shared>,
    streams: BTreeMap<StreamId, LaneStream>,
    /// Streams asked of the peer and not yet agreed upon.
    opening: usize,
    buffer: Box<[u8]>,
    /// Bytes that a peer without a member's lanes may still say.
    allowance: Option<usize>,
    farewell: Option<Pin<Box<Sleep>>>,
    reports: VecDeque<LaneReport>,
    reported: bool,
    span: tracing::Span,
}

impl LaneHandler {
    /// Serves `connection`; whether as a member's is fixed in it.
    pub(crate) fn new(connection: Arc<Connection>, shared: Arc<Shared>) -> Self {
        let span = tracing::info_span!(
            "peer", peer = %connection.peer.short(), conn = connection.id.0, member = connection.member
        );
        let allowance = match (connection.member, connection.outbound) {
            (true, _) => None,
            (false, true) => Some(limits::UNPROVEN_OUTBOUND_BYTES_MAX),
            (false, false) => Some(limits::UNPROVEN_INBOUND_BYTES_MAX),
        };
        Self {
            connection,
            shared,
            streams: BTreeMap::new(),
            opening: 0,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            allowance,
            farewell: None,
            reports: VecDeque::new(),
            reported: false,
            span,
        }
    }

    fn lanes(&self) -> &'static [Lane] {
        if self.connection.member {
            MEMBER_LANES
        } else {
            STRANGER_LANES
        }
    }

    fn report(&self, event: NetEvent) {
        self.shared.inbox.put(self.connection.line(), event, None);
    }

    fn is_leaving(&self) -> bool {
        self.farewell.is_some()
    }

    fn accept(&mut self, (lane, io): (Lane, Stream)) {
        let of_lane = self
            .streams
            .iter()
            .filter(|(id, of)| id.0 % 2 == 1 && of.lane == lane);
        let full = of_lane.count() >= limits_of(lane).streams;
        let unseen = self.connection.unseen.messages() >= limits::UNSEEN_STREAMS_MAX;
        if full || unseen || self.is_leaving() {
            if unseen {
                self.shared.gauges.unseen.drop_one();
            }
            return; // dropping it resets it
        }
        let (stream, outbox) = self.shared.accept(&self.connection, lane);
        let event = NetEvent::StreamOpened {
            conn: self.connection.id,
            stream,
            lane,
        };
        let credit = self.connection.unseen.take(0);
        let unseen = self.connection.unseen.messages();
        self.shared.gauges.unseen.reach(unseen);
        self.shared
            .inbox
            .put(self.connection.line(), event, Some(credit));
        self.add(stream, lane, io, outbox);
    }

    fn agreed(&mut self, opening: Opening, io: Stream) {
        self.opening = self.opening.saturating_sub(1);
        let Opening {
            stream,
            lane,
            outbox,
        } = opening;
        let credit = outbox.ready.take(0);
        let event = NetEvent::StreamReady { stream };
        self.shared
            .inbox
            .put(self.connection.line(), event, Some(credit));
        self.add(stream, lane, io, outbox);
    }

    fn refused(&mut self, opening: &Opening, error: StreamUpgradeError<Infallible>) {
        self.opening = self.opening.saturating_sub(1);
        let ended = match error {
            StreamUpgradeError::NegotiationFailed => Ended::Unsupported,
            StreamUpgradeError::Timeout => Ended::Failed("no answer in time".to_owned()),
            StreamUpgradeError::Io(error) => Ended::Failed(error.to_string()),
            StreamUpgradeError::Apply(never) => match never {},
        };
        self.gone(opening.stream, ended);
    }

    fn gone(&self, stream: StreamId, ended: Ended) {
        self.shared.forget(stream);
        if !self.is_leaving() {
            tracing::debug!(stream = stream.0, ?ended, "a stream ended");
            self.report(NetEvent::StreamClosed { stream, ended });
        }
    }

    /// Lets every stream write and read what it can.
    fn drive(&mut self, cx: &mut Context<'_>) {
        let mut over = Vec::new();
        for (id, stream) in &mut self.streams {
            let mut link = Link {
                id: *id,
                connection: &self.connection,
                shared: &self.shared,
                buffer: &mut self.buffer,
                allowance: &mut self.allowance,
            };
            if let Poll::Ready(ended) = stream.poll(&mut link, cx) {
                over.push((*id, ended));
            }
        }
        for (id, ended) in over {
            self.streams.remove(&id);
            self.gone(id, ended);
        }
        if self.allowance == Some(0) && !self.reported {
            self.reported = true;
            self.reports.push_back(LaneReport::Flood);
        }
    }

    /// Ends every stream once the engine wants the connection closed.
    fn begin_farewell(&mut self) {
        if self.farewell.is_none() && self.connection.is_closing() {
            self.farewell = Some(Box::pin(tokio::time::sleep(FAREWELL_TIMEOUT)));
            for stream in self.streams.values_mut() {
                stream.leaving = true;
            }
        }
    }

    /// Reports once everything has arrived, or its time is over.
    fn end_farewell(&mut self, cx: &mut Context<'_>) {
        let Some(deadline) = &mut self.farewell else {
            return;
        };
        let done = self.streams.is_empty() && self.opening == 0;
        if (deadline.as_mut().poll(cx).is_ready() || done) && !self.reported {
            self.reported = true;
            self.reports.push_back(LaneReport::Farewell);
        }
    }

    fn add(&mut self, stream: StreamId, lane: Lane, io: Stream, outbox: Arc<Outbox>) {
        let mut added = LaneStream::new(lane, io, outbox);
        added.longest = longest_from_peer(lane, stream);
        added.leaving = self.is_leaving();
        self.streams.insert(stream, added);
    }
}

impl fmt::Debug for LaneHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneHandler")
            .field("conn", &self.connection.id)
            .finish_non_exhaustive()
    }
}

impl Drop for LaneHandler {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let ended = Ended::Failed("an internal fault ended its task".to_owned());
            self.shared.disconnect(&self.connection, ended);
        }
    }
}

impl ConnectionHandler for LaneHandler {
    type FromBehaviour = Infallible;
    type ToBehaviour = LaneReport;
    type InboundProtocol = LaneProtocols;
    type OutboundProtocol = LaneProtocols;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Opening;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(LaneProtocols(self.lanes()), ()).with_timeout(NEGOTIATION_TIMEOUT)
    }

    fn connection_keep_alive(&self) -> bool {
        true // the engine decides what is closed
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<LaneProtocols, Opening, LaneReport>> {
        let span = self.span.clone();
        let _entered = span.enter();
        self.connection.wake.register(cx.waker());
        if let Some(opening) = self.connection.next_opening() {
            self.opening += 1;
            let protocol = SubstreamProtocol::new(LaneProtocols::only(opening.lane), opening)
                .with_timeout(NEGOTIATION_TIMEOUT);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        self.begin_farewell();
        self.drive(cx);
        self.end_farewell(cx);
        match self.reports.pop_front() {
            Some(report) => Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(report)),
            None => Poll::Pending,
        }
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, LaneProtocols, LaneProtocols, (), Opening>,
    ) {
        let span = self.span.clone();
        let _entered = span.enter();
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol, ..
            }) => self.accept(protocol),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (_, io),
                info,
            }) => self.agreed(info, io),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                self.refused(&info, error);
            }
            ConnectionEvent::AddressChange(_)
            | ConnectionEvent::ListenUpgradeError(_)
            | ConnectionEvent::LocalProtocolsChange(_)
            | ConnectionEvent::RemoteProtocolsChange(_)
            | _ => {}
        }
    }
}

/// What a stream needs of its connection.
struct Link<'a> {
    id: StreamId,
    connection: &'a Arc<Connection>,
    shared: &'a Shared,
    buffer: &'a mut [u8],
    allowance: &'a mut Option<usize>,
}

/// Bytes of the longest message that the peer may send on a stream of a lane. Pictures come from the side that
/// was asked for them; whoever opened the stream only asks and acknowledges.
fn longest_from_peer(lane: Lane, stream: StreamId) -> usize {
    if lane == Lane::Screen && !stream.is_opened_here() {
        limits::SCREEN_ASK_BYTES_MAX
    } else {
        limits_of(lane).message
    }
}

/// One stream.
struct LaneStream {
    lane: Lane,
    /// Bytes of the longest message that the peer may send.
    longest: usize,
    io: Stream,
    outbox: Arc<Outbox>,
    out: Vec<u8>,
    written: usize,
    flushing: bool,
    backlog: Arc<InFlight>,
    deframer: Deframer,
    /// Bytes that were read before the engine had no room for more.
    rest: Vec<u8>,
    /// The connection is being closed: end as if the engine had closed the stream.
    leaving: bool,
    ending: Ending,
}

/// How far the end of a stream is, when it is ended from here.
enum Ending {
    No,
    /// What was sent is flushed; our half is being closed.
    Closing(Pin<Box<Sleep>>),
    /// Our half is closed; the peer closes its own once it has read all.
    Closed(Pin<Box<Sleep>>),
}

impl LaneStream {
    fn new(lane: Lane, io: Stream, outbox: Arc<Outbox>) -> Self {
        Self {
            lane,
            longest: limits_of(lane).message,
            io,
            backlog: Arc::clone(&outbox.backlog),
            outbox,
            out: Vec::new(),
            written: 0,
            flushing: false,
            deframer: Deframer::default(),
            rest: Vec::new(),
            leaving: false,
            ending: Ending::No,
        }
    }

    /// Ready with the reason when the stream is over.
    fn poll(&mut self, link: &mut Link<'_>, cx: &mut Context<'_>) -> Poll<Ended> {
        let outcome = match self.ending {
            Ending::No => self.serve(link, cx),
            Ending::Closing(_) | Ending::Closed(_) => Ok(()),
        };
        if let Err(ended) = outcome {
            return Poll::Ready(ended);
        }
        self.finish(link, cx)
    }

    fn serve(&mut self, link: &mut Link<'_>, cx: &mut Context<'_>) -> Result<(), Ended> {
        self.write(link, cx)?;
        if matches!(self.ending, Ending::No) {
            self.read(link, cx)
        } else {
            Ok(())
        }
    }

    fn write(&mut self, link: &Link<'_>, cx: &mut Context<'_>) -> Result<(), Ended> {
        loop {
            if self.written == self.out.len() {
                self.out.clear();
                self.written = 0;
                match self.outbox.fill(&mut self.out, WRITE_BYTES) {
                    Next::Bytes => self.flushing = true,
                    Next::Break(ended) => return Err(ended),
                    Next::Nothing if !self.leaving => return self.flush(link, cx),
                    Next::Nothing | Next::End => {
                        let deadline = Box::pin(tokio::time::sleep(FAREWELL_TIMEOUT));
                        self.ending = Ending::Closing(deadline);
                        return Ok(());
                    }
                }
            }
            let waiting = self.out.get(self.written..).unwrap_or_default();
            match Pin::new(&mut self.io).poll_write(cx, waiting) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) => return Err(Ended::Failed("the peer takes no more".into())),
                Poll::Ready(Ok(written)) => self.written += written,
                Poll::Ready(Err(error)) => return Err(Ended::Failed(error.to_string())),
            }
        }
    }

    fn flush(&mut self, link: &Link<'_>, cx: &mut Context<'_>) -> Result<(), Ended> {
        if !self.flushing {
            return Ok(());
        }
        match Pin::new(&mut self.io).poll_flush(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(Err(error)) => Err(Ended::Failed(error.to_string())),
            Poll::Ready(Ok(())) => {
                self.flushing = false;
                self.out.shrink_to(WRITE_BYTES);
                if self.outbox.ready.messages() == 0 {
                    let credit = self.outbox.ready.take(0);
                    let event = NetEvent::StreamReady { stream: link.id };
                    link.shared
                        .inbox
                        .put(link.connection.line(), event, Some(credit));
                }
                Ok(())
            }
        }
    }

    fn read(&mut self, link: &mut Link<'_>, cx: &mut Context<'_>) -> Result<(), Ended> {
        let rest = std::mem::take(&mut self.rest);
        self.deliver(link, &rest)?;
        for _ in 0..READS_PER_TURN {
            if !self.rest.is_empty() || !self.backlog.has_room() {
                return Ok(());
            }
            let buffer = std::mem::take(&mut link.buffer);
            let outcome = Pin::new(&mut self.io).poll_read(cx, buffer);
            let delivered = match outcome {
                Poll::Pending => Ok(false),
                Poll::Ready(Ok(0)) => Err(self.end_of_input()),
                Poll::Ready(Err(error)) => Err(Ended::Failed(error.to_string())),
                Poll::Ready(Ok(count)) => {
                    if let Some(allowance) = link.allowance {
                        *allowance = allowance.saturating_sub(count);
                    }
                    self.deliver(link, buffer.get(..count).unwrap_or_default())
                        .map(|()| true)
                }
            };
            link.buffer = buffer;
            if !delivered? {
                return Ok(());
            }
        }
        cx.waker().wake_by_ref(); // there may be more; others first
        Ok(())
    }

    fn end_of_input(&self) -> Ended {
        if self.deframer.is_inside() {
            Ended::Failed("it ended inside a message".to_owned())
        } else {
            Ended::Finished
        }
    }

    /// Hands whole messages to the engine as long as it has room, and keeps the rest.
    fn deliver(&mut self, link: &mut Link<'_>, mut input: &[u8]) -> Result<(), Ended> {
        while !input.is_empty() {
            if !self.backlog.has_room() {
                self.rest = input.to_vec();
                return Ok(());
            }
            let message = self
                .deframer
                .feed(&mut input, self.longest)
                .map_err(|TooLarge| Ended::TooLarge)?;
            if let Some(message) = message {
                let credit = self.backlog.take(message.len());
                let gauges = &link.shared.gauges;
                gauges.backlog.reach(self.backlog.messages());
                gauges.backlog_bytes.reach(self.backlog.bytes());
                let event = NetEvent::StreamReceived {
                    stream: link.id,
                    message,
                };
                link.shared
                    .inbox
                    .put(link.connection.line(), event, Some(credit));
            }
        }
        Ok(())
    }

    /// Closes our half, then waits for the peer to close its own, which shows that it has read everything. Only
    /// after that may a QUIC connection be closed without losing what was sent.
    fn finish(&mut self, link: &mut Link<'_>, cx: &mut Context<'_>) -> Poll<Ended> {
        loop {
            match &mut self.ending {
                Ending::No => return Poll::Pending,
                Ending::Closing(deadline) => {
                    let timed_out = deadline.as_mut().poll(cx).is_ready();
                    match Pin::new(&mut self.io).poll_close(cx) {
                        Poll::Pending if !timed_out => return Poll::Pending,
                        Poll::Ready(Ok(())) if !timed_out => {
                            let deadline = Box::pin(tokio::time::sleep(FAREWELL_TIMEOUT));
                            self.ending = Ending::Closed(deadline);
                        }
                        Poll::Pending | Poll::Ready(_) => return Poll::Ready(Ended::Finished),
                    }
                }
                Ending::Closed(deadline) => {
                    if deadline.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(Ended::Finished);
                    }
                    match Pin::new(&mut self.io).poll_read(cx, link.buffer) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Ended::Finished),
                        Poll::Ready(Ok(_)) => {} // not for anybody any more
                    }
                }
            }
        }
    }
}

/// The protocols of lanes on the wire: those that the peer may open, or the one that we open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LaneProtocols(&'static [Lane]);

/// A lane's name in the negotiation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LaneName(Lane);

impl LaneProtocols {
    fn only(lane: Lane) -> Self {
        match lane {
            Lane::Admission => Self(&[Lane::Admission]),
            Lane::Control => Self(&[Lane::Control]),
            Lane::Input => Self(&[Lane::Input]),
            Lane::Screen => Self(&[Lane::Screen]),
        }
    }
}

impl AsRef<str> for LaneName {
    fn as_ref(&self) -> &str {
        protocol_of(self.0)
    }
}

impl UpgradeInfo for LaneProtocols {
    type Info = LaneName;
    type InfoIter = Map<Iter<'static, Lane>, fn(&Lane) -> LaneName>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.iter().map(|lane| LaneName(*lane))
    }
}

impl InboundUpgrade<Stream> for LaneProtocols {
    type Output = (Lane, Stream);
    type Error = Infallible;
    type Future = Ready<Result<(Lane, Stream), Infallible>>;

    fn upgrade_inbound(self, io: Stream, LaneName(lane): LaneName) -> Self::Future {
        ready(Ok((lane, io)))
    }
}

impl OutboundUpgrade<Stream> for LaneProtocols {
    type Output = (Lane, Stream);
    type Error = Infallible;
    type Future = Ready<Result<(Lane, Stream), Infallible>>;

    fn upgrade_outbound(self, io: Stream, LaneName(lane): LaneName) -> Self::Future {
        ready(Ok((lane, io)))
    }
}
