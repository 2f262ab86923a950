//! What happened, for readers who may come back: the newest durable events are kept, so that `since` replays
//! what a reader missed. Ephemeral ones are never kept. A reader that is too slow, or returns too late, is told
//! which numbers it lost (`stream.lagged`) and goes on; it never holds anybody up.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::broadcast::{self, error::RecvError, error::TryRecvError};

use crate::engine::ids::{MemberId, SessionId, TerminalId};
use crate::engine::queues::{Gauge, Queue};
use crate::engine::view::{LeaseEnding, View, What};
use crate::node::Handle;
use crate::node::handle::NumberedEvent;

use super::json::{Approval, Envelope, Message, NoticeJson, SessionFacts, Time, Who, told};

/// Durable events kept for readers that come back.
const KEPT_MAX: usize = 512;
/// Bytes of the kept events, as JSON.
const KEPT_BYTES_MAX: usize = 256 << 10;
/// Events that a reader may be behind before it reads from the kept ones again.
const BEHIND_MAX: usize = 256;
const _: () = assert!(
    BEHIND_MAX < KEPT_MAX,
    "who falls behind is told what it missed"
);

/// The kept events and the readers.
#[derive(Debug)]
pub struct Hub {
    ring: Mutex<Ring>,
    /// Begins every event's id, so that ids of two processes differ.
    prefix: String,
    kept: Gauge,
    behind: Gauge,
}

#[derive(Debug)]
struct Ring {
    kept: VecDeque<Kept>,
    kept_bytes: usize,
    /// Number of the newest durable event.
    newest: u64,
    /// Events so far, ephemeral ones too.
    count: u64,
    /// The session, which a node that has left it no longer tells.
    session: SessionId,
    /// Nothing once the node has stopped, so that readers end.
    live: Option<broadcast::Sender<Arc<Envelope>>>,
}

/// A durable event as JSON, which takes a quarter of the memory; few readers come back.
#[derive(Debug)]
struct Kept {
    seq: u64,
    json: Box<str>,
}

/// One reader of the events.
#[derive(Debug)]
pub struct Reader {
    hub: Arc<Hub>,
    waiting: VecDeque<Arc<Envelope>>,
    live: Option<broadcast::Receiver<Arc<Envelope>>>,
    /// Number of the newest durable event read; nothing for a reader that begins before this hub heard any.
    last: Option<u64>,
}

impl Hub {
    /// An empty hub for a session; `started` tells this process's events from those of earlier ones.
    pub fn new(started: Time, session: SessionId) -> Self {
        let (live, _) = broadcast::channel(BEHIND_MAX);
        let ring = Ring {
            kept: VecDeque::new(),
            kept_bytes: 0,
            newest: 0,
            count: 0,
            session,
            live: Some(live),
        };
        Self {
            ring: Mutex::new(ring),
            prefix: format!("{:x}", started.0.0),
            kept: Gauge::items("api_events_kept", KEPT_MAX),
            behind: Gauge::items("api_events", BEHIND_MAX),
        }
    }

    /// How full the queues of the events are: what is kept for readers that come back, and how far the slowest
    /// reader is behind.
    pub fn queues(&self) -> [Queue; 2] {
        [self.kept.read(), self.behind.read()]
    }

    /// Takes in what the node tells until it stops.
    pub async fn collect(&self, handle: Handle, mut events: broadcast::Receiver<NumberedEvent>) {
        let stopped = handle.stopped();
        tokio::pin!(stopped);
        loop {
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    Ok(event) => self.add(&handle.view(), &event),
                    // The numbers that are missing show every reader what was lost.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => break,
                },
                _ = &mut stopped => break,
            }
        }
        self.drain(&handle, &mut events);
        self.ring().live = None;
    }

    /// A reader of everything after `since`, or of what happens from now on.
    pub fn read(self: &Arc<Self>, since: Option<u64>) -> Reader {
        let ring = self.ring();
        // A number from the future belongs to an earlier process: nothing of this one is skipped. Who names none
        // has lost nothing that came before.
        let last = match since {
            Some(since) if since > ring.newest => Some(0),
            Some(since) => Some(since),
            None => Some(ring.newest).filter(|newest| *newest > 0),
        };
        let live = ring.live.as_ref().map(broadcast::Sender::subscribe);
        let waiting = ring.after(last.unwrap_or_default());
        drop(ring);
        Reader {
            hub: Arc::clone(self),
            waiting,
            live,
            last,
        }
    }

    /// What was told but not taken in when the node stopped.
    fn drain(&self, handle: &Handle, events: &mut broadcast::Receiver<NumberedEvent>) {
        loop {
            match events.try_recv() {
                Ok(event) => self.add(&handle.view(), &event),
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    fn add(&self, view: &View, event: &NumberedEvent) {
        let mut ring = self.ring();
        ring.count = ring.count.saturating_add(1);
        let id = format!("{}-{}", self.prefix, ring.count);
        let envelope = Arc::new(envelope(id, (ring.session, view), event));
        if let Some(seq) = envelope.seq {
            ring.newest = seq;
            ring.keep(seq, &envelope);
            self.kept.set(ring.kept.len());
        }
        if let Some(live) = &ring.live {
            let _nobody_listens = live.send(envelope);
            self.behind.set(live.len());
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    /// What cannot be kept is missing for readers that come back, and they are told so.
    fn keep(&mut self, seq: u64, envelope: &Envelope) {
        let Ok(json) = serde_json::to_string(envelope) else {
            return;
        };
        self.kept_bytes += json.len();
        let json = json.into_boxed_str();
        self.kept.push_back(Kept { seq, json });
        while self.kept.len() > KEPT_MAX || self.kept_bytes > KEPT_BYTES_MAX {
            let Some(oldest) = self.kept.pop_front() else {
                return;
            };
            self.kept_bytes -= oldest.json.len();
        }
    }

    fn after(&self, last: u64) -> VecDeque<Arc<Envelope>> {
        let later = self.kept.iter().filter(|kept| kept.seq > last);
        let read = |kept: &Kept| serde_json::from_str(&kept.json).ok().map(Arc::new);
        later.filter_map(read).collect()
    }
}

impl Reader {
    /// The next event, or `None` once the node has stopped and everything was read.
    pub async fn next(&mut self) -> Option<Arc<Envelope>> {
        loop {
            if let Some(next) = self.waiting.pop_front() {
                if let Some(event) = self.in_order(next) {
                    return Some(event);
                }
                continue;
            }
            match self.live.as_mut()?.recv().await {
                Ok(event) => self.waiting.push_back(event),
                Err(RecvError::Lagged(_)) => self.catch_up(),
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// Drops what was read already, and says what is missing before `event`.
    fn in_order(&mut self, event: Arc<Envelope>) -> Option<Arc<Envelope>> {
        let Some(seq) = event.seq else {
            return Some(event);
        };
        let expected = self.last.map_or(seq, |last| last.saturating_add(1));
        if seq < expected {
            return None;
        }
        if seq > expected {
            let lagged = lagged(&event, expected, seq.saturating_sub(1));
            self.last = Some(seq.saturating_sub(1));
            self.waiting.push_front(event);
            return Some(Arc::new(lagged));
        }
        self.last = Some(seq);
        Some(event)
    }

    /// Reads the kept events again from the last one seen.
    fn catch_up(&mut self) {
        let fresh = self.hub.read(Some(self.last.unwrap_or_default()));
        self.waiting = fresh.waiting;
        self.live = fresh.live;
    }
}

fn envelope(id: String, (session, view): (SessionId, &View), event: &NumberedEvent) -> Envelope {
    let what = &event.event.what;
    let (kind, data) = shown(view, what);
    Envelope {
        v: 1,
        id,
        seq: Some(event.seq).filter(|seq| *seq > 0 && !what.ephemeral()),
        time: Time(event.event.time),
        session,
        actor: event.event.actor.clone(),
        kind: kind.to_owned(),
        data,
    }
}

fn lagged(next: &Envelope, from: u64, to: u64) -> Envelope {
    Envelope {
        id: format!("{}-lost", next.id),
        seq: None,
        actor: None,
        kind: "stream.lagged".to_owned(),
        data: json!({"from": from, "to": to}),
        ..next.clone()
    }
}

/// Type and data of an event.
#[expect(clippy::too_many_lines, reason = "one arm per type of INTERFACES §5")]
fn shown(view: &View, what: &What) -> (&'static str, Value) {
    let name = |id: &MemberId| Who::of(view, *id).name;
    match what {
        What::SessionUpdated { session } => (
            "session.updated",
            json!({"session": SessionFacts::from(session)}),
        ),
        What::SessionClosed { status } => ("session.closed", json!({"status": status})),
        What::ParticipantJoined {
            participant,
            name,
            role,
        } => (
            "participant.joined",
            json!({"id": participant, "name": name, "role": role}),
        ),
        What::ParticipantLeft { participant, name } => {
            ("participant.left", json!({"id": participant, "name": name}))
        }
        What::MessagePosted { message } => {
            ("message.posted", json!({"message": Message::from(message)}))
        }
        What::PresenceUpdated {
            participant,
            status,
            typing,
        } => (
            "presence.updated",
            json!({"participant": participant, "name": name(participant), "status": status,
                "typing": typing}),
        ),
        What::CursorMoved {
            participant,
            pointer,
        } => {
            let name = name(participant);
            (
                "cursor.moved",
                json!({"participant": participant, "name": name, "cursor": pointer}),
            )
        }
        What::SelectionChanged {
            participant,
            selection,
        } => (
            "selection.changed",
            json!({"participant": participant, "name": name(participant), "selection": selection}),
        ),
        What::ControlRequested {
            terminal,
            participant,
            name,
        } => (
            "control.requested",
            json!({"terminal": terminal, "participant": participant, "name": name}),
        ),
        What::ControlGranted {
            terminal,
            participant,
            number,
            ends,
        } => {
            let data = json!({"terminal": terminal, "participant": participant,
                "name": name(participant), "number": number, "ends_at": Time(*ends)});
            ("control.granted", data)
        }
        What::ControlDenied {
            terminal,
            participant,
        } => (
            "control.denied",
            json!({"terminal": terminal, "participant": participant, "name": name(participant)}),
        ),
        What::ControlReleased {
            terminal,
            participant,
            number,
            ending,
        } => (
            "control.released",
            lease(view, *terminal, *participant, *number, ending),
        ),
        What::ControlRevoked {
            terminal,
            participant,
            number,
            ending,
        } => (
            "control.revoked",
            lease(view, *terminal, *participant, *number, ending),
        ),
        What::ControlTaken {
            terminal,
            from,
            number,
            ending,
        } => (
            "control.taken",
            lease(view, *terminal, *from, *number, ending),
        ),
        What::ControlExpired {
            terminal,
            participant,
            number,
            ending,
        } => (
            "control.expired",
            lease(view, *terminal, *participant, *number, ending),
        ),
        What::ControlRefused {
            terminal,
            code,
            message,
        } => (
            "control.refused",
            json!({"terminal": terminal, "code": code, "message": message}),
        ),
        What::TerminalOpened {
            terminal,
            host,
            title,
            cols,
            rows,
        } => {
            let data = json!({"terminal": terminal, "host": host, "title": title, "cols": cols,
                "rows": rows});
            ("terminal.opened", data)
        }
        What::TerminalResized {
            terminal,
            cols,
            rows,
        } => (
            "terminal.resized",
            json!({"terminal": terminal, "cols": cols, "rows": rows}),
        ),
        What::TerminalClosed { terminal, status } => (
            "terminal.closed",
            json!({"terminal": terminal, "status": status}),
        ),
        What::InviteCreated { invite, role } => {
            ("invite.created", json!({"invite": invite, "role": role}))
        }
        What::InviteUsed {
            invite,
            participant,
        } => {
            let name = name(participant);
            (
                "invite.used",
                json!({"invite": invite, "participant": participant, "name": name}),
            )
        }
        What::InviteRefused { invite, error } => (
            "invite.refused",
            json!({"invite": invite, "code": error.code, "message": error.message}),
        ),
        What::PeerConnected { peer, path } => (
            "peer.connected",
            json!({"peer": peer, "name": name(peer), "path": told(*path)}),
        ),
        What::PeerDisconnected { peer } => (
            "peer.disconnected",
            json!({"peer": peer, "name": name(peer)}),
        ),
        What::SyncProgress { waiting } => ("sync.progress", json!({"waiting": waiting})),
        What::SyncCompleted { peer } => {
            ("sync.completed", json!({"peer": peer, "name": name(peer)}))
        }
        What::ApprovalRequested { approval } => (
            "approval.requested",
            json!({"approval": Approval::from(approval)}),
        ),
        What::ApprovalDecided { approval, approved } => (
            "approval.decided",
            json!({"approval": approval, "approved": approved}),
        ),
        What::Notice { notice } => ("notice", json!(NoticeJson::from(notice))),
    }
}

/// Whose lease it was: `participant` is who held it.
fn lease(
    view: &View,
    terminal: TerminalId,
    participant: MemberId,
    number: u64,
    ending: &LeaseEnding,
) -> Value {
    let Who { id, name } = Who::of(view, participant);
    json!({"terminal": terminal, "participant": id, "name": name, "number": number,
        "reason": ending.reason.to_string(), "account": ending.account})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::time::Wall;
    use crate::engine::view::SessionEvent;
    use crate::gateway::routes::tests::a_view;

    fn durable(seq: u64) -> NumberedEvent {
        let what = What::TerminalResized {
            terminal: TerminalId([1; 16]),
            cols: 80,
            rows: 24,
        };
        NumberedEvent {
            seq,
            event: SessionEvent {
                time: Wall(seq),
                actor: None,
                what,
            },
        }
    }

    fn ephemeral() -> NumberedEvent {
        let what = What::SyncProgress { waiting: 3 };
        NumberedEvent {
            seq: 0,
            event: SessionEvent {
                time: Wall(0),
                actor: None,
                what,
            },
        }
    }

    const SESSION: SessionId = SessionId([0x5e; 32]);

    fn hub() -> Arc<Hub> {
        Arc::new(Hub::new(Time(Wall(1)), SESSION))
    }

    async fn seqs(reader: &mut Reader, count: usize) -> Vec<Option<u64>> {
        let mut seqs = Vec::new();
        for _ in 0..count {
            seqs.push(reader.next().await.unwrap().seq);
        }
        seqs
    }

    #[tokio::test]
    async fn since_replays_what_was_missed_and_goes_on_live_without_gap_or_repetition() {
        let hub = hub();
        (1..=3).for_each(|seq| hub.add(&a_view(), &durable(seq)));
        let mut reader = hub.read(Some(1));
        hub.add(&a_view(), &durable(4));

        assert_eq!(seqs(&mut reader, 3).await, [Some(2), Some(3), Some(4)]);
    }

    #[tokio::test]
    async fn without_since_only_what_happens_from_now_on_is_told() {
        let hub = hub();
        hub.add(&a_view(), &durable(1));
        let mut reader = hub.read(None);
        hub.add(&a_view(), &ephemeral());
        hub.add(&a_view(), &durable(2));

        assert_eq!(seqs(&mut reader, 2).await, [None, Some(2)]);
    }

    #[tokio::test]
    async fn a_fresh_reader_of_a_hub_that_began_late_has_lost_nothing() {
        let hub = hub();
        let mut reader = hub.read(None);
        hub.add(&a_view(), &durable(7));
        hub.add(&a_view(), &durable(9));

        assert_eq!(reader.next().await.unwrap().seq, Some(7));
        let lost = reader.next().await.unwrap();
        assert_eq!(lost.kind, "stream.lagged");
        assert_eq!(lost.data, json!({"from": 8, "to": 8}));
    }

    #[tokio::test]
    async fn an_event_names_its_session_also_when_the_node_has_left_it() {
        let hub = hub();
        let mut reader = hub.read(None);
        let mut view = a_view();
        view.session.id = SessionId([0; 32]);
        hub.add(&view, &durable(1));

        assert_eq!(reader.next().await.unwrap().session, SESSION);
    }

    #[tokio::test]
    async fn a_reader_that_returns_too_late_is_told_what_it_lost() {
        let hub = hub();
        let total = KEPT_MAX as u64 + 5;
        (1..=total).for_each(|seq| hub.add(&a_view(), &durable(seq)));
        let mut reader = hub.read(Some(2));

        let first = reader.next().await.unwrap();

        assert_eq!(first.kind, "stream.lagged");
        assert_eq!(first.data, json!({"from": 3, "to": 5}));
        assert_eq!(seqs(&mut reader, 1).await, [Some(6)]);
    }

    #[tokio::test]
    async fn an_event_is_told_later_as_it_was_told_at_once() {
        let hub = hub();
        let mut live = hub.read(None);
        hub.add(&a_view(), &wordy(1, 40));

        let told = live.next().await.unwrap();

        assert_eq!(hub.read(Some(0)).next().await.unwrap(), told);
    }

    #[tokio::test]
    async fn wordy_events_are_kept_up_to_their_bytes() {
        let hub = hub();
        (1..=100).for_each(|seq| hub.add(&a_view(), &wordy(seq, 16 << 10)));

        let ring = hub.ring();
        let bytes: usize = ring.kept.iter().map(|kept| kept.json.len()).sum();
        assert_eq!(bytes, ring.kept_bytes);
        assert!(bytes <= KEPT_BYTES_MAX && ring.kept.len() > 10);
        assert_eq!(ring.kept.back().unwrap().seq, 100);
    }

    fn wordy(seq: u64, bytes: usize) -> NumberedEvent {
        let mut event = durable(seq);
        event.event.what = What::ParticipantLeft {
            participant: MemberId([7; 32]),
            name: "\u{1f600}".repeat(bytes / 4),
        };
        event
    }

    #[tokio::test]
    async fn a_slow_reader_catches_up_from_the_kept_events() {
        let hub = hub();
        let mut reader = hub.read(None);
        let total = KEPT_MAX as u64;
        (1..=total).for_each(|seq| hub.add(&a_view(), &durable(seq)));

        let read = seqs(&mut reader, KEPT_MAX).await;

        assert!(read.into_iter().eq((1..=total).map(Some)));
    }

    #[tokio::test]
    async fn readers_end_when_the_node_stops_after_the_last_event() {
        let hub = hub();
        let mut reader = hub.read(None);
        hub.add(&a_view(), &durable(1));
        hub.ring().live = None;

        assert_eq!(reader.next().await.unwrap().seq, Some(1));
        assert_eq!(reader.next().await, None);
        assert_eq!(hub.read(Some(0)).next().await.unwrap().seq, Some(1));
    }

    #[tokio::test]
    async fn a_number_of_an_earlier_process_skips_nothing() {
        let hub = hub();
        hub.add(&a_view(), &durable(1));

        assert_eq!(hub.read(Some(900)).next().await.unwrap().seq, Some(1));
    }
}
