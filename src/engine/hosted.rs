//! Terminals that run on this machine: output becomes versions of a screen, input passes the lease.

use crate::engine::capability::Rank;
use crate::engine::command::{CommandError, ControlMode, Reply, TerminalSpec};
use crate::engine::context::Context;
use crate::engine::control::{
    At, ControlMessage, EndReason, HostEvent, HostInput, HostOutput, HostSettings, InputMessage,
    LeaseHost, Person, Prompt,
};
use crate::engine::documents::{DocumentName, Documents, LocalChange, Running, WriteError, Writer};
use crate::engine::effect::{PtyEffect, PtySpec, StopReason};
use crate::engine::error::Code;
use crate::engine::event::{ExitStatus, PtyEvent, StreamId};
use crate::engine::identity::Domain;
use crate::engine::ids::{Hash, MemberId, TerminalId};
use crate::engine::limits::{FRAME_INTERVAL, FRAME_INTERVAL_BEHIND};
use crate::engine::member::Member;
use crate::engine::message::PeerMessage;
use crate::engine::replica::Taken;
use crate::engine::statement::StatementBody;
use crate::engine::terminal::emulator::Emulator;
use crate::engine::terminal::frame::ScreenStamp;
use crate::engine::terminal::redaction::Redactor;
use crate::engine::terminal::screen::{ScreenHost, clamp_size};
use crate::engine::terminal::tree::Server;
use crate::engine::terminals::{Pictures, Rights};
use crate::engine::time::Mono;
use crate::engine::view::{LeaseEnding, What};
use crate::engine::{Engine, Phase, Use};

/// A terminal whose shell runs here.
pub(in crate::engine) struct Hosted {
    pub(in crate::engine) emulator: Box<dyn Emulator>,
    pub(in crate::engine) lease: LeaseHost,
    pub(in crate::engine) server: Server,
    pub(in crate::engine) pictures: Pictures,
    /// When the next version is due, if output waits for it.
    pub(in crate::engine) frame_at: Option<Mono>,
    pub(in crate::engine) prompts: Vec<Prompt>,
    pub(in crate::engine) open: bool,
    pub(in crate::engine) size: (u16, u16),
    screen: ScreenHost,
    redactor: Redactor,
    framed: Mono,
}

impl Engine {
    /// Starts a terminal and announces it.
    pub(in crate::engine) fn open_terminal(
        &mut self,
        spec: TerminalSpec,
        context: &mut Context<'_>,
    ) -> Result<Reply, CommandError> {
        let Phase::Member(member) = &mut self.phase else {
            return Err(no_member());
        };
        let me = member.me();
        let may = crate::engine::capability::Action::HostTerminal;
        if !member.replica.membership().may(&me, &may) {
            let message = "this role may not share terminals";
            return Err(CommandError::new(Code::NotPermitted, message));
        }
        let id = TerminalId(context.entropy.bytes());
        let size = clamp_size(spec.cols, spec.rows);
        member.announce(context, |documents, writer, now| {
            documents.announce_terminal(writer, now, id, &spec.title, size)
        })?;
        member
            .replica
            .keep_terminal(&spec, &mut context.out.persist);
        let hosted = Hosted::new(member, id, size, (self.setup.emulators)(size.0, size.1));
        member.terminals.hosted.insert(id, hosted);
        let actor = member.actor(&me);
        context.pty(id, PtyEffect::Spawn(member.pty_spec(&spec, size)));
        let what = What::TerminalOpened {
            terminal: id,
            host: me,
            title: spec.title,
            cols: size.0,
            rows: size.1,
        };
        context.emit(Some(actor), what);
        self.frame(id, context);
        Ok(Reply::Terminal { id })
    }

    /// A host's node starts again: its former terminals are over, and a new one runs the same command.
    pub(in crate::engine) fn reopen_terminals(&mut self, context: &mut Context<'_>) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let me = member.me();
        let orphans: Vec<TerminalId> = member
            .replica
            .documents()
            .member(&me)
            .into_iter()
            .flat_map(|state| &state.terminals)
            .filter(|(_, terminal)| terminal.state == Running::Open)
            .map(|(id, _)| *id)
            .collect();
        for id in orphans {
            let closed = member.announce(context, |documents, writer, now| {
                documents.close_terminal(writer, now, id, None)
            });
            if let Err(error) = closed {
                tracing::warn!(%error, "a former terminal could not be marked as closed");
            }
        }
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        if let Some(spec) = member.replica.profile().terminal.clone()
            && let Err(error) = self.open_terminal(spec, context)
        {
            tracing::warn!(%error, "the terminal could not be opened again");
        }
    }

    /// Something happened at a local terminal.
    pub(in crate::engine) fn pty(
        &mut self,
        terminal: TerminalId,
        event: PtyEvent,
        context: &mut Context<'_>,
    ) {
        let span = tracing::debug_span!("terminal", id = %terminal.short());
        let _entered = span.enter();
        match event {
            PtyEvent::Output(bytes) => self.output(terminal, bytes, context),
            PtyEvent::Written(total) => {
                self.lease(terminal, HostInput::PtyWritten(total), context);
            }
            PtyEvent::Withdrawn(total) => {
                self.lease(terminal, HostInput::PtyWithdrawn(total), context);
            }
            PtyEvent::Exited(status) => self.exited(terminal, Some(status), context),
            PtyEvent::Failed(reason) => {
                if let Some(member) = self.member_mut() {
                    member.notice(format!("the command could not be run: {reason}"), context);
                }
                self.exited(terminal, Some(ExitStatus(127)), context);
            }
        }
    }

    fn output(&mut self, terminal: TerminalId, mut bytes: Vec<u8>, context: &mut Context<'_>) {
        let now = context.now.mono;
        let Some(hosted) = self.hosted(terminal) else {
            return;
        };
        let taken = hosted.emulator.feed(&bytes, now);
        let rest = bytes.split_off(taken.min(bytes.len()));
        if !rest.is_empty() {
            context.pty(terminal, PtyEffect::Return(rest));
        }
        let Some(hosted) = self.hosted(terminal) else {
            return;
        };
        let replies = hosted.emulator.take_replies();
        let pause = if hosted.server.is_behind() {
            FRAME_INTERVAL_BEHIND
        } else {
            FRAME_INTERVAL
        };
        let due = hosted.framed + pause;
        let at_once = due <= now;
        if !at_once {
            let stands = hosted.frame_at.unwrap_or(due);
            hosted.frame_at = Some(stands.min(due));
        }
        if !replies.is_empty() {
            self.lease(terminal, HostInput::Answer(replies), context);
        }
        if at_once {
            self.frame(terminal, context);
        }
    }

    /// A frame that waited is due.
    pub(in crate::engine) fn frame_due(&mut self, terminal: TerminalId, context: &mut Context<'_>) {
        self.frame(terminal, context);
    }

    /// The emulator's own deadline: the end of a synchronized update.
    pub(in crate::engine) fn emulator_due(
        &mut self,
        terminal: TerminalId,
        context: &mut Context<'_>,
    ) {
        let now = context.now.mono;
        if let Some(hosted) = self.hosted(terminal) {
            hosted.emulator.tick(now);
            self.frame(terminal, context);
        }
    }

    /// Makes a new version of the screen, if it has changed, and serves it.
    fn frame(&mut self, terminal: TerminalId, context: &mut Context<'_>) {
        let now = context.now.mono;
        let Some(hosted) = self.hosted(terminal) else {
            return;
        };
        hosted.frame_at = None;
        hosted.framed = now;
        if hosted.emulator.panicked() {
            tracing::warn!(terminal = %terminal.short(), "the emulator failed and was rebuilt");
        }
        if hosted.emulator.take_bells() > 0 {
            hosted.screen.ring(now);
        }
        let raw = hosted.redactor.redact(hosted.emulator.snapshot());
        if !hosted.screen.advance(raw) {
            return;
        }
        hosted.pictures.newest = hosted.screen.current().cloned();
        hosted.pictures.previous = hosted.screen.previous().cloned();
        hosted.pictures.word = None;
        if let Some(member) = self.member_mut() {
            member.terminals.changed = true;
        }
        self.serve_due(terminal, context);
    }

    /// Signs the newest version if somebody is to be served and it is not signed yet.
    pub(in crate::engine) fn sign_newest(&mut self, terminal: TerminalId) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let epoch = member
            .replica
            .epoch_to_write()
            .map_or(Hash([0; 32]), |epoch| Hash(epoch.0));
        let session = member.replica.session();
        let key = member.replica.key().clone();
        let Some(hosted) = member.terminals.hosted.get_mut(&terminal) else {
            return;
        };
        let served = hosted.server.members().next().is_some();
        if let (Some(newest), None, true) = (&hosted.pictures.newest, &hosted.pictures.word, served)
        {
            let stamp = ScreenStamp::of(session, terminal, epoch, newest);
            let signature = key.sign(Domain::Screen, &stamp.signing_bytes());
            hosted.pictures.word = Some((stamp, signature.0));
        }
    }

    /// Changes the size of a terminal that runs here.
    pub(in crate::engine) fn resize_terminal(
        &mut self,
        terminal: TerminalId,
        size: (u16, u16),
        context: &mut Context<'_>,
    ) -> Result<Reply, CommandError> {
        let size = clamp_size(size.0, size.1);
        let Phase::Member(member) = &mut self.phase else {
            return Err(no_member());
        };
        let Some(hosted) = member.terminals.hosted.get_mut(&terminal) else {
            let message = "only the terminal's own host decides its size";
            return Err(CommandError::new(Code::NotPermitted, message));
        };
        if hosted.size == size || !hosted.open {
            return Ok(Reply::Done);
        }
        hosted.size = size;
        hosted.emulator.resize(size.0, size.1);
        context.pty(
            terminal,
            PtyEffect::Resize {
                cols: size.0,
                rows: size.1,
            },
        );
        let announced = if member.cannot_write().is_some() {
            // The size is told once it can be kept; the pictures have it now.
            Ok(())
        } else {
            member.announce(context, |documents, writer, now| {
                documents.resize_terminal(writer, now, terminal, size)
            })
        };
        let what = What::TerminalResized {
            terminal,
            cols: size.0,
            rows: size.1,
        };
        context.emit(None, what);
        self.frame(terminal, context);
        announced.map(|()| Reply::Done)
    }

    /// What could not be announced of terminals that run here is announced now.
    pub(in crate::engine) fn announce_again(&mut self, context: &mut Context<'_>) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let hosted = member.terminals.hosted.iter();
        let states: Vec<(TerminalId, bool, (u16, u16))> = hosted
            .map(|(id, hosted)| (*id, hosted.open, hosted.size))
            .collect();
        for (id, open, size) in states {
            let announced = member.announce(context, |documents, writer, now| {
                if open {
                    documents.resize_terminal(writer, now, id, size)
                } else {
                    documents.close_terminal(writer, now, id, None)
                }
            });
            if let Err(error) = announced {
                tracing::warn!(%error, "a terminal's state could not be announced");
            }
        }
    }

    /// The shell has ended: viewers see the last screen and the status; the owner's session is over with it.
    fn exited(
        &mut self,
        terminal: TerminalId,
        status: Option<ExitStatus>,
        context: &mut Context<'_>,
    ) {
        self.frame(terminal, context);
        self.lease(terminal, HostInput::Closed, context);
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let Some(hosted) = member.terminals.hosted.get_mut(&terminal) else {
            return;
        };
        if !std::mem::replace(&mut hosted.open, false) {
            return;
        }
        let announced = member.announce(context, |documents, writer, now| {
            documents.close_terminal(writer, now, terminal, status)
        });
        if let Err(error) = announced {
            tracing::warn!(%error, "the end of the terminal could not be announced");
        }
        context.emit(None, What::TerminalClosed { terminal, status });
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let last = member.terminals.hosted.values().all(|hosted| !hosted.open);
        if last && member.is_own_device() {
            self.close_session("the terminal has ended", status, context);
        }
    }

    /// Ends the session for all.
    pub(in crate::engine) fn close_session(
        &mut self,
        reason: &str,
        status: Option<ExitStatus>,
        context: &mut Context<'_>,
    ) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let mut taken = Taken::default();
        let body = StatementBody::Close {
            reason: reason.to_owned(),
        };
        let batch = &mut context.out.persist;
        match member
            .replica
            .state(body, context.now.wall, &mut taken, batch)
        {
            Ok(_) => member.absorb(taken, context),
            Err(error) => tracing::warn!(%error, "the session could not be closed"),
        }
        context.emit(None, What::SessionClosed { status });
        self.end(StopReason::Closed(status), context);
    }

    /// Gives a fact to the lease of a local terminal and does what it asks.
    pub(in crate::engine) fn lease(
        &mut self,
        terminal: TerminalId,
        input: HostInput,
        context: &mut Context<'_>,
    ) {
        let mut out = Vec::new();
        self.with_lease(terminal, context, |lease, at| {
            lease.handle(input, at, &mut out);
        });
        self.leased(terminal, out, context);
    }

    /// What the person at the host wants of the lease.
    pub(in crate::engine) fn person(
        &mut self,
        terminal: TerminalId,
        act: Person,
        context: &mut Context<'_>,
    ) -> Result<(), CommandError> {
        let mut out = Vec::new();
        let result = self.with_lease(terminal, context, |lease, at| {
            lease.person(act, at, &mut out)
        });
        self.leased(terminal, out, context);
        match result {
            Some(Ok(())) => Ok(()),
            Some(Err(refusal)) => {
                let message = self.member_mut().map_or_else(
                    || refusal.to_string(),
                    |member| member.refusal_in_words(&refusal),
                );
                let code = crate::engine::viewed::code_of(&refusal);
                Err(CommandError::new(code, message))
            }
            None => Err(CommandError::new(
                Code::NoTerminalShared,
                "no such terminal runs here",
            )),
        }
    }

    fn with_lease<T>(
        &mut self,
        terminal: TerminalId,
        context: &mut Context<'_>,
        act: impl FnOnce(&mut LeaseHost, &mut At<'_>) -> T,
    ) -> Option<T> {
        let Phase::Member(member) = &mut self.phase else {
            return None;
        };
        let hosted = member.terminals.hosted.get_mut(&terminal)?;
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
        Some(act(&mut hosted.lease, &mut at))
    }

    fn leased(
        &mut self,
        terminal: TerminalId,
        outputs: Vec<HostOutput>,
        context: &mut Context<'_>,
    ) {
        for output in outputs {
            match output {
                HostOutput::Send { to, body } => {
                    let message = ControlMessage { terminal, body }.encode();
                    match self.input_stream_of(&to) {
                        Some(stream) => context.send_live(stream, message),
                        None => self.tell(to, &PeerMessage::Lease(message), context),
                    }
                }
                HostOutput::Announce(status) => {
                    let body = crate::engine::control::FromHost::Status(status);
                    let message = ControlMessage { terminal, body }.encode();
                    let peers: Vec<MemberId> = self.links.up().map(|(peer, ..)| peer).collect();
                    for peer in peers {
                        self.tell(peer, &PeerMessage::Lease(message.clone()), context);
                    }
                    context.changed = true;
                }
                HostOutput::WritePty(input) => context.pty(terminal, PtyEffect::Write(input)),
                HostOutput::DropPtyQueue => context.pty(terminal, PtyEffect::DropInput),
                HostOutput::Prompt(prompt) => self.prompt(terminal, prompt, context),
                HostOutput::PromptGone(prompt) => self.prompt(terminal, prompt, context),
                HostOutput::Event(event) => self.lease_event(terminal, event, context),
            }
        }
    }

    fn prompt(&mut self, terminal: TerminalId, prompt: Prompt, context: &mut Context<'_>) {
        let now = context.now.mono;
        if let Some(hosted) = self.hosted(terminal) {
            tracing::debug!(?prompt, "the person is asked");
            hosted.prompts = hosted.lease.view(now).prompts;
        }
        context.changed = true;
    }

    fn lease_event(&mut self, terminal: TerminalId, event: HostEvent, context: &mut Context<'_>) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        match event {
            HostEvent::Requested { who } => {
                let name = member.name(&who);
                let what = What::ControlRequested {
                    terminal,
                    participant: who,
                    name,
                };
                context.emit(Some(member.actor(&who)), what);
            }
            HostEvent::Granted {
                to,
                by,
                number,
                duration_s,
            } => {
                let ends = context.now.wall + std::time::Duration::from_secs(u64::from(duration_s));
                let what = What::ControlGranted {
                    terminal,
                    participant: to,
                    number,
                    ends,
                };
                context.emit(Some(member.actor(&by)), what);
            }
            HostEvent::Ended {
                holder,
                number,
                reason,
            } => {
                let ending = LeaseEnding {
                    reason,
                    account: None,
                };
                let what = ended(terminal, holder, number, ending);
                context.emit(Some(member.actor(&holder)), what);
            }
            HostEvent::Typed { verb, taken } => self.own_typed(verb, taken, context),
            HostEvent::Settled { .. } | HostEvent::Locked { .. } | HostEvent::Unlocked { .. } => {
                context.changed = true;
            }
        }
    }

    /// The session's settings may have changed how control is given.
    pub(in crate::engine) fn control_mode_changed(&mut self, context: &mut Context<'_>) {
        let Phase::Member(member) = &self.phase else {
            return;
        };
        let auto = member.replica.documents().session().control == ControlMode::Auto;
        for terminal in self.hosted_ids() {
            self.lease(terminal, HostInput::Auto(auto), context);
        }
    }

    /// Who has just connected learns who controls the terminals that run here.
    pub(in crate::engine) fn tell_control(&mut self, peer: MemberId, context: &mut Context<'_>) {
        let now = context.now.mono;
        for terminal in self.hosted_ids() {
            let Some(hosted) = self.hosted(terminal).filter(|hosted| hosted.open) else {
                continue;
            };
            let body = crate::engine::control::FromHost::Status(hosted.lease.status(now));
            let message = ControlMessage { terminal, body }.encode();
            self.tell(peer, &PeerMessage::Lease(message), context);
        }
    }

    /// A holder's or asker's last connection is gone.
    pub(in crate::engine) fn holder_down(&mut self, peer: MemberId, context: &mut Context<'_>) {
        for terminal in self.hosted_ids() {
            self.lease(terminal, HostInput::Disconnected(peer), context);
        }
    }

    /// Rights may have changed.
    pub(in crate::engine) fn rights_changed(&mut self, context: &mut Context<'_>) {
        for terminal in self.hosted_ids() {
            self.lease(terminal, HostInput::MembersChanged, context);
        }
    }

    /// Keys, requests or orders of a member on its input stream.
    pub(in crate::engine) fn input_received(
        &mut self,
        stream: StreamId,
        peer: MemberId,
        bytes: &[u8],
        context: &mut Context<'_>,
    ) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        if let Some(terminal) = member.terminals.input_of(stream) {
            return self.input_answered(terminal, bytes, context);
        }
        match InputMessage::decode(bytes) {
            Ok(message) => {
                let input = HostInput::Message {
                    from: peer,
                    body: message.body,
                };
                self.lease(message.terminal, input, context);
            }
            Err(error) => {
                tracing::warn!(peer = %peer.short(), %error, "a peer sent no input message");
                context.live(crate::engine::effect::NetEffect::CloseStream { stream });
            }
        }
    }

    /// The newest input stream that a member has opened to us.
    fn input_stream_of(&self, peer: &MemberId) -> Option<StreamId> {
        let theirs = |(stream, (_, used)): (&StreamId, &(crate::engine::event::ConnId, Use))| {
            (*used == Use::Input(*peer) && stream.0 % 2 == 1).then_some(*stream)
        };
        self.streams.iter().rev().find_map(theirs)
    }

    pub(in crate::engine) fn hosted(&mut self, terminal: TerminalId) -> Option<&mut Hosted> {
        self.member_mut()?.terminals.hosted.get_mut(&terminal)
    }

    fn hosted_ids(&self) -> Vec<TerminalId> {
        match &self.phase {
            Phase::Member(member) => member.terminals.hosted.keys().copied().collect(),
            Phase::Joining(_) | Phase::Over => Vec::new(),
        }
    }
}

impl Hosted {
    fn new(member: &Member, id: TerminalId, size: (u16, u16), emulator: Box<dyn Emulator>) -> Self {
        let auto = member.replica.documents().session().control == ControlMode::Auto;
        let settings = HostSettings {
            auto,
            own: member.is_own_device(),
            #[cfg(feature = "sim")]
            planted: crate::engine::control::PlantedBugs {
                ignore_lease_number: member.bugs.ignore_lease_number,
                drop_dedup: member.bugs.drop_dedup,
                two_controllers: member.bugs.two_controllers,
            },
        };
        Self {
            emulator,
            lease: LeaseHost::new(member.place(id, member.me()), settings),
            server: Server::default(),
            pictures: Pictures::default(),
            frame_at: None,
            prompts: Vec::new(),
            open: true,
            size,
            screen: ScreenHost::new(),
            redactor: Redactor::none(),
            framed: Mono(0),
        }
    }
}

impl Member {
    /// Whether this member is one of the owner's devices.
    pub(in crate::engine) fn is_own_device(&self) -> bool {
        self.replica
            .standing(&self.me())
            .is_some_and(|standing| standing.rank == Rank::OWNER)
    }

    /// What the shell is started with: the person's own variables, and the mark of a shared shell.
    fn pty_spec(&self, spec: &TerminalSpec, (cols, rows): (u16, u16)) -> PtySpec {
        let mut env = spec.env.clone();
        env.push(("COLLAB_P2P".to_owned(), "1".to_owned()));
        env.push((
            "COLLAB_P2P_SESSION".to_owned(),
            self.replica.session().to_string(),
        ));
        PtySpec {
            argv: spec.argv.clone(),
            cwd: spec.cwd.clone(),
            env,
            cols,
            rows,
        }
    }

    /// Changes what this member says of itself.
    pub(in crate::engine) fn announce(
        &mut self,
        context: &mut Context<'_>,
        change: impl FnOnce(
            &mut Documents,
            &Writer,
            crate::engine::time::Wall,
        ) -> Result<Option<LocalChange>, WriteError>,
    ) -> Result<(), CommandError> {
        if let Some(error) = self.cannot_write() {
            return Err(error);
        }
        let now = context.now.wall;
        let owner = self.me();
        let mut taken = Taken::default();
        self.replica.write(
            DocumentName::Member { owner },
            context.entropy,
            (&mut taken, &mut context.out.persist),
            |documents, writer| change(documents, writer, now).map(|change| (change, ())),
        )?;
        self.absorb(taken, context);
        Ok(())
    }
}

/// The event for the end of a lease.
pub(in crate::engine) fn ended(
    terminal: TerminalId,
    holder: MemberId,
    number: u64,
    ending: LeaseEnding,
) -> What {
    match ending.reason {
        EndReason::Released | EndReason::Gone | EndReason::Closed | EndReason::Forgotten => {
            What::ControlReleased {
                terminal,
                participant: holder,
                number,
                ending,
            }
        }
        EndReason::Expired => What::ControlExpired {
            terminal,
            participant: holder,
            number,
            ending,
        },
        EndReason::Taken { .. } => What::ControlTaken {
            terminal,
            from: holder,
            number,
            ending,
        },
        EndReason::Revoked { .. }
        | EndReason::Given { .. }
        | EndReason::Locked { .. }
        | EndReason::Removed => What::ControlRevoked {
            terminal,
            participant: holder,
            number,
            ending,
        },
    }
}

fn no_member() -> CommandError {
    CommandError::new(Code::Failure, "this node is no member yet")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::engine::capability::Role;
    use crate::engine::control::{FromHost, ToHost};
    use crate::engine::event::{Event, Lane};
    use crate::engine::limits::{CONTROL_PROMPT_S, CONTROL_QUESTIONS_PER_MINUTE_MAX};
    use crate::engine::stage::Stage;
    use crate::pty::echo::Glass;

    const HOST: usize = 0;
    const GUEST: usize = 1;

    /// A guest's conversation with the terminal, beside the one of its own engine.
    struct Voice {
        terminal: TerminalId,
        stream: StreamId,
        attachment: u64,
    }

    impl Voice {
        fn new(stage: &mut Stage) -> Self {
            let terminal = stage.open_terminal(HOST);
            stage.run(Duration::from_secs(1));
            let stream = stage.open(GUEST, HOST, Lane::Input);
            let attach = |engine: &mut Engine, context: &mut Context<'_>| {
                let mut out = Vec::new();
                let from = engine.links.up().next().unwrap().0;
                let (nonce, unsettled) = (7, None);
                let body = ToHost::Attach { nonce, unsettled };
                engine.with_lease(terminal, context, |lease, at| {
                    lease.handle(HostInput::Message { from, body }, at, &mut out);
                });
                out.into_iter().find_map(|output| {
                    let HostOutput::Send { body, .. } = output else {
                        return None;
                    };
                    let FromHost::Attached { attachment, .. } = body else {
                        return None;
                    };
                    Some(attachment)
                })
            };
            let attachment = stage.act(HOST, attach).unwrap();
            drop(stage.take_events(HOST));
            Self {
                terminal,
                stream,
                attachment,
            }
        }

        fn say(&self, stage: &mut Stage, body: ToHost) {
            let terminal = self.terminal;
            stage.say_on(HOST, self.stream, InputMessage { terminal, body }.encode());
        }

        fn ask(&self, stage: &mut Stage, request: u64) {
            let body = ToHost::Request {
                attachment: self.attachment,
                request,
                first_key: false,
                duration_s: Some(600),
            };
            self.say(stage, body);
        }

        fn withdraw(&self, stage: &mut Stage, request: u64) {
            let attachment = self.attachment;
            let body = ToHost::Withdraw {
                attachment,
                request,
            };
            self.say(stage, body);
        }

        fn prompts(&self, stage: &mut Stage) -> usize {
            stage.member(HOST).terminals.hosted[&self.terminal]
                .prompts
                .len()
        }
    }

    fn requests(events: &[What]) -> usize {
        let requested = |event: &&What| matches!(event, What::ControlRequested { .. });
        events.iter().filter(requested).count()
    }

    #[test]
    fn who_asks_for_control_again_and_again_is_one_question_that_ends_in_time() {
        let mut stage = Stage::with(&[Role::Viewer]);
        let voice = Voice::new(&mut stage);

        voice.ask(&mut stage, 1);
        for request in 2..100 {
            stage.run(Duration::from_secs(1));
            voice.ask(&mut stage, request);
        }

        assert_eq!(voice.prompts(&mut stage), 1, "the person sees one card");
        assert_eq!(requests(&stage.take_events(HOST)), 1, "and is told once");
        stage.run(Duration::from_secs(CONTROL_PROMPT_S - 98));
        assert_eq!(
            voice.prompts(&mut stage),
            0,
            "the first asking began the time"
        );
    }

    #[test]
    fn who_takes_its_question_back_and_asks_anew_does_so_only_a_few_times_a_minute() {
        let mut stage = Stage::with(&[Role::Viewer]);
        let voice = Voice::new(&mut stage);

        for request in 1..100 {
            voice.ask(&mut stage, request);
            voice.withdraw(&mut stage, request);
        }
        let told = requests(&stage.take_events(HOST));
        assert_eq!(told, CONTROL_QUESTIONS_PER_MINUTE_MAX);
        assert_eq!(voice.prompts(&mut stage), 0);
        stage.run(Duration::from_secs(60));
        voice.ask(&mut stage, 100);

        assert_eq!(requests(&stage.take_events(HOST)), 1);
        assert_eq!(voice.prompts(&mut stage), 1);
    }

    fn rung(stage: &mut Stage, node: usize, terminal: TerminalId) -> (u64, u32) {
        let screen = stage.screen(node, terminal).unwrap();
        (screen.version, screen.bells)
    }

    #[test]
    fn of_a_flood_of_bells_one_a_second_reaches_the_viewers_and_makes_a_version() {
        let glass = |cols, rows| Box::new(Glass::new(cols, rows)) as Box<dyn Emulator>;
        let mut stage = Stage::with_emulators(&[Role::Viewer], Arc::new(glass));
        let terminal = stage.open_terminal(HOST);
        stage.run(Duration::from_secs(2));
        let (version, bells) = rung(&mut stage, GUEST, terminal);
        assert_eq!(bells, 0);

        for _ in 0..1_000 {
            let event = PtyEvent::Output(b"\x07".to_vec());
            stage.happen(HOST, Event::Pty { terminal, event });
            stage.run(Duration::from_millis(3));
        }
        let heard = rung(&mut stage, GUEST, terminal);
        stage.run(Duration::from_secs(5));

        let at_0_1_2_and_3_s = (version + 4, 4);
        assert_eq!(heard, at_0_1_2_and_3_s);
        assert_eq!(
            rung(&mut stage, GUEST, terminal),
            heard,
            "nothing comes late"
        );
        let event = PtyEvent::Output(b"\x07".to_vec());
        stage.happen(HOST, Event::Pty { terminal, event });
        stage.run(Duration::from_millis(100));
        assert_eq!(rung(&mut stage, GUEST, terminal), (version + 5, 5));
    }

    mod turns {
        use std::sync::Arc;

        use super::super::*;
        use crate::engine::command::{Ask, Command};
        use crate::engine::effect::{Effect, Outcome};
        use crate::engine::entropy::Entropy;
        use crate::engine::event::{Event, RequestId};
        use crate::engine::terminal::emulator::RawScreen;
        use crate::engine::terminal::painter::plain_lines;
        use crate::engine::time::{Now, Wall};
        use crate::engine::{Bugs, NewSession, Setup};
        use crate::pty::echo::Glass;

        /// Takes four bytes in a turn.
        struct Slow(Glass);

        impl Emulator for Slow {
            fn feed(&mut self, bytes: &[u8], now: Mono) -> usize {
                self.0.feed(&bytes[..bytes.len().min(4)], now)
            }

            fn resize(&mut self, cols: u16, rows: u16) {
                self.0.resize(cols, rows);
            }

            fn snapshot(&self) -> RawScreen {
                self.0.snapshot()
            }

            fn take_replies(&mut self) -> Vec<u8> {
                self.0.take_replies()
            }

            fn take_bells(&mut self) -> u32 {
                self.0.take_bells()
            }

            fn deadline(&self) -> Option<Mono> {
                self.0.deadline()
            }

            fn tick(&mut self, now: Mono) {
                self.0.tick(now);
            }
        }

        fn of_pty(effect: Effect) -> Option<(TerminalId, PtyEffect)> {
            if let Effect::Pty { terminal, effect } = effect {
                Some((terminal, effect))
            } else {
                None
            }
        }

        struct Host {
            engine: Engine,
            now: u64,
        }

        impl Host {
            fn new() -> Self {
                let setup = Setup {
                    emulators: Arc::new(|cols, rows| Box::new(Slow(Glass::new(cols, rows)))),
                    machine: [0; 32],
                    lan_only: false,
                    bugs: Bugs::default(),
                };
                let new = NewSession {
                    name: "ada".to_owned(),
                    title: "slow".to_owned(),
                    ask: Ask::Never,
                    control: ControlMode::Ask,
                };
                let (engine, _) =
                    Engine::create(setup, new, Now::default(), Entropy::new([1; 32])).unwrap();
                Self { engine, now: 0 }
            }

            fn handle(&mut self, event: Event) -> Outcome {
                self.now += 1_000_000;
                let now = Now {
                    mono: Mono(self.now),
                    wall: Wall(self.now / 1000),
                };
                self.engine.handle(event, now, &mut Entropy::new([2; 32]))
            }

            fn opened(&mut self) -> TerminalId {
                let spec = TerminalSpec {
                    argv: vec!["sh".to_owned()],
                    cwd: None,
                    env: Vec::new(),
                    title: "slow".to_owned(),
                    cols: 20,
                    rows: 2,
                };
                let opened = self.handle(Event::Command {
                    request: RequestId(1),
                    command: Command::OpenTerminal { spec },
                });
                let spawned = opened.live.into_iter().find_map(of_pty);
                spawned.unwrap().0
            }

            /// Output goes in; what there was no time for comes out.
            fn output(&mut self, terminal: TerminalId, bytes: &[u8]) -> Option<Vec<u8>> {
                let event = PtyEvent::Output(bytes.to_vec());
                let outcome = self.handle(Event::Pty { terminal, event });
                let mut effects = outcome.live.into_iter().filter_map(of_pty);
                effects.find_map(|(_, effect)| {
                    if let PtyEffect::Return(rest) = effect {
                        Some(rest)
                    } else {
                        None
                    }
                })
            }

            fn line(&mut self, terminal: TerminalId) -> String {
                let screens = self.engine.screens_if_changed().unwrap();
                plain_lines(&screens[&terminal]).remove(0)
            }
        }

        #[test]
        fn output_that_a_turn_has_no_time_for_is_given_back() {
            let mut host = Host::new();
            let terminal = host.opened();

            let rest = host.output(terminal, b"long output");
            assert_eq!(rest.as_deref(), Some(&b" output"[..]));
            assert_eq!(host.line(terminal), "long");

            assert_eq!(host.output(terminal, b" out").as_deref(), None);
            assert_eq!(host.line(terminal), "long out");
        }
    }
}
