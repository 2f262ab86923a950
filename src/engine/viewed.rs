//! Terminals that run elsewhere: pictures are fetched, checked and passed on; keys go to the host under a lease.

use crate::engine::command::{CommandError, Reply};
use crate::engine::context::Context;
use crate::engine::control::{
    At, ControlMessage, Denial, FromHost, InputMessage, InputSender, OrderOutcome, Place, Refusal,
    SenderEvent, SenderInput, SenderOutput, TypeResult,
};
use crate::engine::documents::ScreenMark;
use crate::engine::effect::NetEffect;
use crate::engine::epoch::EpochId;
use crate::engine::error::Code;
use crate::engine::event::{Lane, StreamId};
use crate::engine::hosted::ended;
use crate::engine::identity::{Domain, Signature, verify};
use crate::engine::ids::{MemberId, TerminalId};
use crate::engine::limits::EARLY_STATUSES_MAX;
use crate::engine::member::Promise;
use crate::engine::terminal::frame::{Frame, ScreenUpdate};
use crate::engine::terminal::redaction::Redacted;
use crate::engine::terminal::screen::Screen;
use crate::engine::terminal::tree::{Attach, PATH_MAX, Server, ToChild, ToParent, Version, Viewer};
use crate::engine::terminals::{Pictures, Rights, Terminals, decode, encode};
use crate::engine::time::Mono;
use crate::engine::view::{LeaseEnding, What};
use crate::engine::{Engine, Phase, Use};

/// A terminal whose shell runs at another member.
pub(in crate::engine) struct Viewed {
    pub(in crate::engine) host: MemberId,
    pub(in crate::engine) pictures: Pictures,
    pub(in crate::engine) viewer: Viewer,
    pub(in crate::engine) server: Server,
    pub(in crate::engine) sender: InputSender,
    /// From the host to our parent.
    pub(in crate::engine) path: Vec<MemberId>,
    pub(in crate::engine) open: bool,
    /// When the picture was last known to be the host's newest.
    pub(in crate::engine) fresh: Mono,
    input: Option<StreamId>,
}

impl Viewed {
    pub(in crate::engine) fn new(place: Place, me: MemberId) -> Self {
        Self {
            host: place.host,
            pictures: Pictures::default(),
            viewer: Viewer::new(me, place.host),
            server: Server::default(),
            sender: InputSender::new(place, me),
            path: Vec::new(),
            open: true,
            fresh: Mono(0),
            input: None,
        }
    }
}

impl Terminals {
    /// The terminal to whose host this input stream leads.
    pub(in crate::engine) fn input_of(&self, stream: StreamId) -> Option<TerminalId> {
        let leads = |(_, viewed): &(&TerminalId, &Viewed)| viewed.input == Some(stream);
        self.viewed.iter().find(leads).map(|(id, _)| *id)
    }
}

impl Engine {
    /// Looks at every picture whether its parent still serves.
    pub(in crate::engine) fn check_pictures(&mut self, context: &mut Context<'_>) {
        for terminal in self.viewed_ids() {
            self.check_picture(terminal, context);
        }
    }

    /// A viewer's own deadline.
    pub(in crate::engine) fn attach_due(
        &mut self,
        terminal: TerminalId,
        context: &mut Context<'_>,
    ) {
        self.check_picture(terminal, context);
    }

    /// Attaches to the host, or elsewhere, if that is called for.
    pub(in crate::engine) fn check_picture(
        &mut self,
        terminal: TerminalId,
        context: &mut Context<'_>,
    ) {
        let now = context.now.mono;
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let newest = member.newest_of(terminal);
        let Some(viewed) = member.terminals.viewed.get_mut(&terminal) else {
            return;
        };
        let have = viewed.pictures.version();
        if newest.is_none_or(|newest| Some(newest) <= have) {
            viewed.fresh = now;
        }
        if !viewed.open {
            return;
        }
        let links = &self.links;
        let reachable = |peer: &MemberId| links.active(peer).is_some();
        let mut out = Vec::new();
        viewed.viewer.check(now, have, newest, &reachable, &mut out);
        self.attach(terminal, out, context);
    }

    fn attach(&mut self, terminal: TerminalId, outputs: Vec<Attach>, context: &mut Context<'_>) {
        for output in outputs {
            match output {
                Attach::Leave(stream) => {
                    self.streams.remove(&stream);
                    context.live(NetEffect::CloseStream { stream });
                }
                Attach::Ask {
                    parent,
                    failed,
                    whole,
                } => {
                    let Some((conn, _)) = self.links.active(&parent) else {
                        continue;
                    };
                    let used = Use::Parent(terminal, parent);
                    let stream = self.open(conn, Lane::Screen, used, context);
                    let Phase::Member(member) = &mut self.phase else {
                        return;
                    };
                    let Some(viewed) = member.terminals.viewed.get_mut(&terminal) else {
                        return;
                    };
                    viewed.viewer.asked(stream);
                    viewed.path.clear();
                    let have = if whole {
                        None
                    } else {
                        viewed.pictures.version()
                    };
                    let ask = ToParent::Attach {
                        terminal,
                        have,
                        failed,
                    };
                    context.send_live(stream, encode(&ask));
                }
            }
        }
    }

    /// The parent said something on the screen stream.
    pub(in crate::engine) fn parent_said(
        &mut self,
        stream: StreamId,
        terminal: TerminalId,
        bytes: &[u8],
        context: &mut Context<'_>,
    ) {
        let now = context.now.mono;
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let Some(viewed) = member.terminals.viewed.get_mut(&terminal) else {
            return;
        };
        if !viewed.viewer.is_parent(stream) {
            return;
        }
        let links = &self.links;
        let reachable = |peer: &MemberId| links.active(peer).is_some();
        let mut out = Vec::new();
        match decode::<ToChild>(bytes) {
            Some(ToChild::Serving { path }) => {
                viewed.viewer.serving(stream, &path, now, &mut out);
                viewed.path = path.into_iter().take(PATH_MAX).collect();
            }
            Some(ToChild::Update(update)) => {
                return self.updated(stream, terminal, &update, context);
            }
            Some(ToChild::Refer(others)) => {
                viewed
                    .viewer
                    .referred(stream, &others, now, &reachable, &mut out);
            }
            Some(ToChild::NotHere) | None => viewed.viewer.closed(stream, now, &mut out),
        }
        self.attach(terminal, out, context);
    }

    /// An update: checked against the host's signature and digest before it is shown or served.
    fn updated(
        &mut self,
        stream: StreamId,
        terminal: TerminalId,
        bytes: &[u8],
        context: &mut Context<'_>,
    ) {
        let now = context.now.mono;
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let session = member.replica.session();
        let newest = member.newest_of(terminal);
        let Some(viewed) = member.terminals.viewed.get_mut(&terminal) else {
            return;
        };
        let held = viewed.pictures.newest.as_ref();
        let checked = check(bytes, (session, terminal, viewed.host), held);
        let (screen, update) = match checked {
            Ok(checked) => checked,
            Err(reason) => {
                tracing::warn!(terminal = %terminal.short(), reason, "a picture was refused");
                let mut out = Vec::new();
                viewed.viewer.mismatch(stream, now, &mut out);
                return self.attach(terminal, out, context);
            }
        };
        let version = Version {
            epoch: screen.epoch,
            number: screen.version,
        };
        viewed.pictures.previous = viewed.pictures.newest.replace(screen);
        viewed.pictures.word = Some((update.stamp, update.signature));
        viewed.viewer.updated(stream, now);
        if newest.is_none_or(|newest| newest <= version) {
            viewed.fresh = now;
        }
        member.terminals.changed = true;
        context.send_live(stream, encode(&ToParent::Ack(version)));
        // Who lacks the epoch that a version names may lack a removal too, and serves nobody with it.
        let epoch = EpochId(update.stamp.membership_epoch.0);
        if member.replica.membership().epoch(&epoch).is_some() {
            self.serve_due(terminal, context);
        }
    }

    /// The stream to the parent is gone.
    pub(in crate::engine) fn parent_gone(
        &mut self,
        stream: StreamId,
        terminal: TerminalId,
        context: &mut Context<'_>,
    ) {
        let now = context.now.mono;
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let Some(viewed) = member.terminals.viewed.get_mut(&terminal) else {
            return;
        };
        let mut out = Vec::new();
        viewed.viewer.closed(stream, now, &mut out);
        // The stream is gone already: there is nothing to leave.
        out.retain(|output| *output != Attach::Leave(stream));
        self.attach(terminal, out, context);
    }

    /// A terminal elsewhere is over.
    pub(in crate::engine) fn viewed_closed(
        &mut self,
        terminal: TerminalId,
        host: MemberId,
        context: &mut Context<'_>,
    ) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let Some(viewed) = member.terminals.viewed.get_mut(&terminal) else {
            return;
        };
        if viewed.host != host || !std::mem::replace(&mut viewed.open, false) {
            return;
        }
        self.sender(terminal, SenderInput::Gone, context);
    }

    /// A peer is connected: it can be typed to, if it hosts a terminal.
    pub(in crate::engine) fn senders_up(&mut self, peer: MemberId, context: &mut Context<'_>) {
        for terminal in self.viewed_at(peer) {
            self.sender_up(terminal, context);
        }
    }

    pub(in crate::engine) fn sender_up(&mut self, terminal: TerminalId, context: &mut Context<'_>) {
        self.sender(terminal, SenderInput::Up, context);
    }

    /// A peer is gone.
    pub(in crate::engine) fn senders_down(&mut self, peer: MemberId, context: &mut Context<'_>) {
        for terminal in self.viewed_at(peer) {
            self.sender(terminal, SenderInput::Down, context);
        }
    }

    /// An input stream is gone; a new one is opened at once if the host is still connected.
    pub(in crate::engine) fn input_closed(
        &mut self,
        stream: StreamId,
        peer: MemberId,
        context: &mut Context<'_>,
    ) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let Some(terminal) = member.terminals.input_of(stream) else {
            return;
        };
        if let Some(viewed) = member.terminals.viewed.get_mut(&terminal) {
            viewed.input = None;
        }
        self.sender(terminal, SenderInput::Down, context);
        if self.links.active(&peer).is_some() {
            self.sender_up(terminal, context);
        }
    }

    /// The host answered on our input stream.
    pub(in crate::engine) fn input_answered(
        &mut self,
        terminal: TerminalId,
        bytes: &[u8],
        context: &mut Context<'_>,
    ) {
        if let Ok(message) = ControlMessage::decode(bytes)
            && message.terminal == terminal
        {
            self.sender(terminal, SenderInput::Message(message.body), context);
        }
    }

    /// A terminal's host said something about control on the control stream.
    pub(in crate::engine) fn host_said(
        &mut self,
        peer: MemberId,
        bytes: &[u8],
        context: &mut Context<'_>,
    ) {
        let Ok(message) = ControlMessage::decode(bytes) else {
            return;
        };
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        match member.terminals.viewed.get(&message.terminal) {
            Some(viewed) if viewed.host == peer => {
                self.sender(
                    message.terminal,
                    SenderInput::Message(message.body),
                    context,
                );
            }
            Some(_) => {}
            None if matches!(message.body, FromHost::Status(_)) => {
                let early = &mut member.terminals.early;
                let key = (peer, message.terminal);
                let kept = early.keys().filter(|(who, _)| *who == peer).count();
                if kept < EARLY_STATUSES_MAX || early.contains_key(&key) {
                    early.insert(key, bytes.to_vec());
                }
            }
            None => {}
        }
    }

    /// A terminal is watched from now on: what its host said of it before counts.
    pub(in crate::engine) fn heard_early(
        &mut self,
        terminal: TerminalId,
        host: MemberId,
        context: &mut Context<'_>,
    ) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let early = member.terminals.early.remove(&(host, terminal));
        member.terminals.early.retain(|(_, id), _| *id != terminal);
        if let Some(bytes) = early {
            self.host_said(host, &bytes, context);
        }
    }

    /// What a peer said early ends with its last connection: it says it again to who connects.
    pub(in crate::engine) fn forget_early(&mut self, peer: MemberId) {
        if let Phase::Member(member) = &mut self.phase {
            member.terminals.early.retain(|(who, _), _| *who != peer);
        }
    }

    /// Gives a fact or a wish to the sender of a terminal and does what it asks.
    pub(in crate::engine) fn sender(
        &mut self,
        terminal: TerminalId,
        input: SenderInput,
        context: &mut Context<'_>,
    ) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let Some(viewed) = member.terminals.viewed.get_mut(&terminal) else {
            return;
        };
        let rights = Rights {
            replica: &member.replica,
            present: &member.members,
            links: &self.links,
        };
        let key = member.replica.key();
        let now = context.now.mono;
        let mut at = At {
            now,
            entropy: context.entropy,
            key,
            members: &rights,
        };
        let mut outputs = Vec::new();
        viewed.sender.handle(input, &mut at, &mut outputs);
        for output in outputs {
            match output {
                SenderOutput::Send(body) => {
                    let message = InputMessage { terminal, body }.encode();
                    if let Some(stream) = self.input_stream(terminal, context) {
                        context.send_live(stream, message);
                    }
                }
                SenderOutput::Event(event) => self.sender_event(terminal, event, context),
            }
        }
    }

    /// The input stream to a terminal's host, opened if there is none.
    fn input_stream(
        &mut self,
        terminal: TerminalId,
        context: &mut Context<'_>,
    ) -> Option<StreamId> {
        let Phase::Member(member) = &self.phase else {
            return None;
        };
        let viewed = member.terminals.viewed.get(&terminal)?;
        if viewed.input.is_some() {
            return viewed.input;
        }
        let host = viewed.host;
        let (conn, _) = self.links.active(&host)?;
        let stream = self.open(conn, Lane::Input, Use::Input(host), context);
        let Phase::Member(member) = &mut self.phase else {
            return None;
        };
        member.terminals.viewed.get_mut(&terminal)?.input = Some(stream);
        Some(stream)
    }

    fn sender_event(
        &mut self,
        terminal: TerminalId,
        event: SenderEvent,
        context: &mut Context<'_>,
    ) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let me = member.me();
        context.changed = true;
        match event {
            SenderEvent::Changed => {}
            SenderEvent::Recorded => self.asked(terminal, Ok(Reply::Requested), context),
            SenderEvent::Granted { number, remaining } => {
                let ends = context.now.wall + remaining;
                let what = What::ControlGranted {
                    terminal,
                    participant: me,
                    number,
                    ends,
                };
                context.emit(Some(member.actor(&me)), what);
                self.asked(terminal, Ok(Reply::Requested), context);
            }
            SenderEvent::Denied(denial) => {
                context.emit(
                    None,
                    What::ControlDenied {
                        terminal,
                        participant: me,
                    },
                );
                let message = member.denial_in_words(&denial);
                let error = CommandError::new(denial_code(&denial), message);
                self.asked(terminal, Err(error), context);
            }
            SenderEvent::Ended {
                number,
                reason,
                account,
            } => {
                if account.is_short() {
                    member.notice(format!("control ended: {account}"), context);
                }
                let ending = LeaseEnding {
                    reason,
                    account: Some(account),
                };
                let what = ended(terminal, me, number, ending);
                context.emit(Some(member.actor(&me)), what);
            }
            SenderEvent::Refused(refusal) => {
                let (code, message) = (code_of(&refusal), member.refusal_in_words(&refusal));
                context.emit(
                    None,
                    What::ControlRefused {
                        terminal,
                        code,
                        message,
                    },
                );
            }
            SenderEvent::Ordered(outcome) => self.ordered(terminal, outcome, context),
            SenderEvent::Typed { verb, result } => self.typed(verb, result, context),
        }
    }

    /// A request for control has come to the host, or was refused.
    fn asked(
        &mut self,
        terminal: TerminalId,
        result: Result<Reply, CommandError>,
        context: &mut Context<'_>,
    ) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let promises = member.asking.remove(&terminal).unwrap_or_default();
        for Promise { request, .. } in promises {
            context.reply(request, result.clone());
        }
    }

    /// An order has reached the host.
    fn ordered(&mut self, terminal: TerminalId, outcome: OrderOutcome, context: &mut Context<'_>) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let result = match outcome {
            OrderOutcome::Done => Ok(Reply::Done),
            OrderOutcome::Waiting => Ok(Reply::Requested),
            OrderOutcome::Refused(refusal) => {
                let message = member.refusal_in_words(&refusal);
                Err(CommandError::new(code_of(&refusal), message))
            }
        };
        let promise = member
            .ordering
            .get_mut(&terminal)
            .and_then(std::collections::VecDeque::pop_front);
        if let Some(Promise { request, .. }) = promise {
            context.reply(request, result);
        }
    }

    /// What became of the bytes of a verb.
    fn typed(&mut self, verb: u64, result: TypeResult, context: &mut Context<'_>) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let Some(Promise { request, bytes, .. }) = member.typing.remove(&verb) else {
            return;
        };
        let result = match result {
            TypeResult::Taken => Ok(Reply::Typed { bytes }),
            TypeResult::Refused(refusal) => {
                let message = member.refusal_in_words(&refusal);
                Err(CommandError::new(code_of(&refusal), message))
            }
            TypeResult::Cut { account, reason } => {
                let reason = member.ending_in_words(&reason);
                let message = format!(
                    "control ended ({reason}): {} of {bytes} bytes were written, {} were not, {} may have been",
                    account.written, account.not_written, account.unknown
                );
                Err(CommandError::new(Code::LeaseNotHeld, message))
            }
        };
        context.reply(request, result);
    }

    /// What became of a verb's bytes at the terminal's own host.
    pub(in crate::engine) fn own_typed(
        &mut self,
        verb: u64,
        taken: bool,
        context: &mut Context<'_>,
    ) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let Some(Promise { request, bytes, .. }) = member.typing.remove(&verb) else {
            return;
        };
        let result = if taken {
            Ok(Reply::Typed { bytes })
        } else {
            Err(CommandError::new(
                Code::TimedOut,
                "the terminal did not take all bytes",
            ))
        };
        context.reply(request, result);
    }

    /// Something of a lease is due, here or elsewhere.
    pub(in crate::engine) fn lease_due(&mut self, terminal: TerminalId, context: &mut Context<'_>) {
        if self.hosted(terminal).is_some() {
            self.lease(terminal, crate::engine::control::HostInput::Tick, context);
        } else {
            self.sender(terminal, SenderInput::Tick, context);
        }
    }

    fn viewed_ids(&self) -> Vec<TerminalId> {
        match &self.phase {
            Phase::Member(member) => member.terminals.viewed.keys().copied().collect(),
            Phase::Joining(_) | Phase::Over => Vec::new(),
        }
    }

    fn viewed_at(&self, host: MemberId) -> Vec<TerminalId> {
        let Phase::Member(member) = &self.phase else {
            return Vec::new();
        };
        let at = |(_, viewed): &(&TerminalId, &Viewed)| viewed.host == host;
        member
            .terminals
            .viewed
            .iter()
            .filter(at)
            .map(|(id, _)| *id)
            .collect()
    }
}

impl crate::engine::member::Member {
    /// The newest version of a terminal's screen, as its host's presence says.
    fn newest_of(&self, terminal: TerminalId) -> Option<Version> {
        let host = self.terminals.viewed.get(&terminal)?.host;
        let ScreenMark { epoch, version } = *self
            .replica
            .documents()
            .presence(&host)?
            .screens
            .get(&terminal)?;
        Some(Version {
            epoch: u32::try_from(epoch).ok()?,
            number: version,
        })
    }
}

/// Checks an update and yields the screen it makes.
pub(in crate::engine) fn check(
    bytes: &[u8],
    (session, terminal, host): (crate::engine::ids::SessionId, TerminalId, MemberId),
    held: Option<&Redacted<Screen>>,
) -> Result<(Redacted<Screen>, ScreenUpdate), String> {
    let update = ScreenUpdate::decode(bytes).map_err(|error| error.to_string())?;
    let stamp = update.stamp;
    if stamp.session != session || stamp.terminal != terminal {
        return Err("it is of another terminal".to_owned());
    }
    let signature = Signature(update.signature);
    verify(&host, Domain::Screen, &stamp.signing_bytes(), &signature)
        .map_err(|error| error.to_string())?;
    if held.is_some_and(|held| stamp.version <= held.version) {
        return Err("it is not newer".to_owned());
    }
    let frame = Frame::decode(&update.frame).map_err(|error| error.to_string())?;
    let mut screen = held.cloned();
    frame
        .apply(&mut screen)
        .map_err(|error| error.to_string())?;
    let screen = screen.ok_or("it makes no screen")?;
    if !stamp.is_of(&screen) {
        return Err("it does not make the screen that the host has signed".to_owned());
    }
    Ok((screen, update))
}

/// The stable code for a refusal.
pub(in crate::engine) fn code_of(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::NotHeld
        | Refusal::Detached
        | Refusal::Stale { .. }
        | Refusal::NoLease
        | Refusal::Locked { .. } => Code::LeaseNotHeld,
        Refusal::Invalid | Refusal::Closed => Code::Failure,
        Refusal::NotPermitted | Refusal::Unfit { .. } => Code::NotPermitted,
        Refusal::Disagreed => Code::Denied,
        Refusal::Busy | Refusal::Full => Code::LimitExceeded,
        Refusal::Unreachable => Code::PeerUnreachable,
        // A key that asked for a free lease in vain was typed without one.
        Refusal::Denied(_) => Code::LeaseNotHeld,
    }
}

fn denial_code(denial: &Denial) -> Code {
    match denial {
        Denial::Person => Code::Denied,
        Denial::Unanswered => Code::TimedOut,
        Denial::NotPermitted => Code::NotPermitted,
        Denial::Held { .. } | Denial::Locked { .. } | Denial::AskFirst | Denial::Paused => {
            Code::LeaseNotHeld
        }
        Denial::Busy => Code::LimitExceeded,
        Denial::Closed => Code::NoTerminalShared,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::capability::Role;
    use crate::engine::control::LeaseStatus;
    use crate::engine::event::{Event, PtyEvent};
    use crate::engine::message::PeerMessage;
    use crate::engine::stage::Stage;

    const VIEWER: usize = 0;
    const HOST: usize = 1;
    const OTHER: usize = 2;

    /// What a host says of control: the number tells one status from another.
    fn status(terminal: TerminalId, number: u64) -> PeerMessage {
        let status = LeaseStatus {
            version: number,
            number,
            lease: None,
            remaining_ms: 0,
            locked: None,
            auto: false,
        };
        let body = FromHost::Status(status);
        PeerMessage::Lease(ControlMessage { terminal, body }.encode())
    }

    fn announce(stage: &mut Stage, host: usize, terminal: TerminalId) {
        stage.act(host, |engine, context| {
            let member = engine.member_mut().unwrap();
            let announced = member.announce(context, |documents, writer, now| {
                documents.announce_terminal(writer, now, terminal, "shell", (40, 6))
            });
            announced.unwrap();
        });
        stage.run(Duration::from_secs(2));
    }

    /// The newest number that a node has heard of for a terminal.
    fn heard(stage: &mut Stage, terminal: TerminalId) -> Option<u64> {
        let viewed = stage.member(VIEWER).terminals.viewed.get(&terminal)?;
        viewed.sender.status().map(|status| status.number)
    }

    fn terminal(number: u8) -> TerminalId {
        TerminalId([number; 16])
    }

    #[test]
    fn what_a_host_says_of_control_before_its_announcement_counts_once_it_is_announced() {
        let mut stage = Stage::with(&[Role::Editor]);

        stage.say(HOST, VIEWER, &status(terminal(1), 41));
        stage.say(HOST, VIEWER, &status(terminal(1), 42));
        assert_eq!(heard(&mut stage, terminal(1)), None);
        announce(&mut stage, HOST, terminal(1));

        assert_eq!(heard(&mut stage, terminal(1)), Some(42));
        assert!(stage.member(VIEWER).terminals.early.is_empty());
    }

    #[test]
    fn what_another_member_says_early_of_a_hosts_terminal_never_counts() {
        let mut stage = Stage::with(&[Role::Editor, Role::Editor]);

        stage.say(OTHER, VIEWER, &status(terminal(1), 42));
        announce(&mut stage, HOST, terminal(1));
        assert_eq!(heard(&mut stage, terminal(1)), None);
        stage.say(OTHER, VIEWER, &status(terminal(1), 43));

        assert_eq!(heard(&mut stage, terminal(1)), None);
        assert!(stage.member(VIEWER).terminals.early.is_empty());
    }

    #[test]
    fn a_member_that_speaks_of_many_unannounced_terminals_fills_its_own_places_only() {
        let mut stage = Stage::with(&[Role::Editor, Role::Editor]);

        for number in 10..200 {
            stage.say(OTHER, VIEWER, &status(terminal(number), 1));
        }
        stage.say(HOST, VIEWER, &status(terminal(1), 42));

        let other = stage.id(OTHER);
        let early = &stage.member(VIEWER).terminals.early;
        let of_other = early.keys().filter(|(who, _)| *who == other).count();
        assert_eq!(of_other, EARLY_STATUSES_MAX);
        announce(&mut stage, HOST, terminal(1));
        assert_eq!(heard(&mut stage, terminal(1)), Some(42));
    }

    #[test]
    fn what_was_said_early_is_forgotten_when_its_speaker_is_disconnected() {
        let mut stage = Stage::with(&[Role::Editor]);

        stage.say(HOST, VIEWER, &status(terminal(1), 42));
        assert_eq!(stage.member(VIEWER).terminals.early.len(), 1);
        stage.cut(HOST, VIEWER);
        assert!(stage.member(VIEWER).terminals.early.is_empty());
        stage.run(Duration::from_secs(5));
        announce(&mut stage, HOST, terminal(1));

        assert_eq!(heard(&mut stage, terminal(1)), None);
    }

    /// The terminal's host, its viewers, and what the shell prints: screens are 40 columns wide.
    const ADA: usize = 0;
    const NEAR: usize = 1;
    const FAR: usize = 2;

    fn prints(stage: &mut Stage, terminal: TerminalId, text: &str) {
        let event = PtyEvent::Output(text.as_bytes().to_vec());
        stage.happen(ADA, Event::Pty { terminal, event });
        stage.run(Duration::from_millis(50));
    }

    /// From which versions to which the screens lead that one node sent to another.
    fn steps(stage: &Stage, from: usize, to: usize) -> Vec<(Option<u64>, u64)> {
        let frame = |update: ScreenUpdate| Frame::decode(&update.frame).unwrap();
        let frames = stage.screens_sent(from, to).into_iter().map(frame);
        frames
            .map(|frame| (frame.base(), frame.version()))
            .collect()
    }

    #[test]
    fn two_children_get_different_differences_and_reach_the_same_screen() {
        let mut stage = Stage::with(&[Role::Viewer, Role::Viewer]);
        let terminal = stage.open_terminal(ADA);
        stage.run(Duration::from_secs(2));
        let first = stage.screen(ADA, terminal).unwrap().version;
        stage.stall(ADA, FAR);
        stage.forget_sent();

        for text in ["one ", "two ", "three ", "four "] {
            prints(&mut stage, terminal, text);
        }
        let next = |step: u64| (Some(first + step), first + step + 1);
        assert_eq!(steps(&stage, ADA, NEAR), [0, 1, 2, 3].map(next));
        assert_eq!(
            steps(&stage, ADA, FAR),
            [next(0)],
            "one is under way, none is queued"
        );
        assert_eq!(stage.screen(FAR, terminal).unwrap().version, first);
        stage.forget_sent();
        stage.release(ADA, FAR, false);

        let skipped = (Some(first + 1), first + 4);
        assert_eq!(
            steps(&stage, ADA, FAR),
            [skipped],
            "one difference over three versions"
        );
        assert_eq!(steps(&stage, ADA, NEAR), []);
        let screen = stage.screen(ADA, terminal);
        assert!(screen.is_some());
        assert_eq!(stage.screen(NEAR, terminal), screen);
        assert_eq!(stage.screen(FAR, terminal), screen);
    }

    /// A viewer that has nothing yet, since the host's link to it is stalled, is referred to another viewer.
    fn referred() -> (Stage, TerminalId) {
        let mut stage = Stage::with(&[Role::Viewer, Role::Viewer]);
        stage.stall(ADA, FAR);
        let terminal = stage.open_terminal(ADA);
        stage.run(Duration::from_secs(1));
        prints(&mut stage, terminal, "shown");
        assert_eq!(stage.screen(FAR, terminal), None);
        stage.forget_sent();
        (stage, terminal)
    }

    #[test]
    fn a_viewer_gets_the_whole_screen_from_another_viewer() {
        let (mut stage, terminal) = referred();

        stage.refer(FAR, terminal, NEAR);

        let screen = stage.screen(ADA, terminal).unwrap();
        assert_eq!(steps(&stage, NEAR, FAR), [(None, screen.version)]);
        assert_eq!(stage.screens_sent(ADA, FAR), []);
        assert_eq!(stage.screen(FAR, terminal), Some(screen));
        assert_eq!(stage.parent(FAR, terminal), Some(stage.id(NEAR)));
    }

    #[test]
    fn a_whole_screen_of_another_viewer_counts_only_if_the_host_signed_it() {
        let (mut stage, terminal) = referred();
        prints(&mut stage, terminal, " more");
        let word = stage.screens_sent(ADA, NEAR).pop().unwrap();
        stage.gag(NEAR);
        stage.refer(FAR, terminal, NEAR);
        assert_eq!(stage.parent(FAR, terminal), Some(stage.id(NEAR)));
        // Other text under the host's true word for its newest version.
        let mut elsewhere = Stage::with(&[]);
        let other = elsewhere.open_terminal(ADA);
        let other = elsewhere.screen(ADA, other).unwrap();
        let forged = ScreenUpdate {
            frame: Frame::between(None, &other).unwrap().encode(),
            ..word
        };

        stage.say_as_parent(FAR, terminal, &ToChild::Update(forged.encode()));

        assert_eq!(stage.screen(FAR, terminal), None);
        assert_eq!(stage.parent(FAR, terminal), None, "who lies is left");
        stage.release(ADA, FAR, false);
        stage.run(Duration::from_secs(5));
        assert_eq!(stage.screen(FAR, terminal), stage.screen(ADA, terminal));
    }
}
