//! What people and scripts ask, and how it is answered.

use std::time::Duration;

use crate::engine::command::{Command, CommandError, ControlCommand, InputSource, Reply};
use crate::engine::context::Context;
use crate::engine::control::{Action, Person, SenderInput};
use crate::engine::documents::{DocumentName, Draft};
use crate::engine::effect::StopReason;
use crate::engine::error::Code;
use crate::engine::event::RequestId;
use crate::engine::ids::{MemberId, MessageId, TerminalId};
use crate::engine::limits::CHAT_TEXT_BYTES_MAX;
use crate::engine::member::{Member, Promise};
use crate::engine::replica::Taken;
use crate::engine::statement::StatementBody;
use crate::engine::view::What;
use crate::engine::{Engine, Phase};

/// How long a command that needs another node waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

impl Engine {
    /// Does what is asked, or refuses, or promises an answer.
    pub(in crate::engine) fn command(
        &mut self,
        request: RequestId,
        command: Command,
        context: &mut Context<'_>,
    ) {
        let may = self.may_keep(&command);
        match may.and_then(|()| self.execute(request, command, context)) {
            Ok(Some(reply)) => context.reply(request, Ok(reply)),
            Ok(None) => {}
            Err(error) => context.reply(request, Err(error)),
        }
    }

    /// While nothing can be saved, nothing that has to be kept is done.
    fn may_keep(&self, command: &Command) -> Result<(), CommandError> {
        let frozen = self.replica().and_then(|replica| replica.frozen());
        match frozen.filter(|_| writes(command)) {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    fn execute(
        &mut self,
        request: RequestId,
        command: Command,
        context: &mut Context<'_>,
    ) -> Result<Option<Reply>, CommandError> {
        if let (Phase::Joining(_), Command::GoOffline | Command::Leave) = (&self.phase, &command) {
            self.stop(StopReason::Offline, context);
            return Ok(Some(Reply::Done));
        }
        let Phase::Member(member) = &mut self.phase else {
            return Err(CommandError::new(
                Code::Failure,
                "this node is no member yet",
            ));
        };
        member.may_do(&command)?;
        match command {
            Command::PatchSession(patch) => member.patch(patch, context).map(Some),
            Command::PostMessage {
                text,
                reply,
                mentions,
                anchor,
            } => {
                let draft = Draft {
                    text,
                    mentions,
                    reply: reply_of(reply)?,
                    anchor,
                };
                self.post(&draft, context).map(Some)
            }
            Command::Messages(wanted) => member.list(&wanted, context.now.wall).map(Some),
            Command::SetPresence(update) => {
                member.board.update(update, context.now);
                context.changed = true;
                Ok(Some(Reply::Done))
            }
            Command::Control { terminal, command } => {
                self.control(request, terminal, command, context)
            }
            Command::Input {
                terminal,
                bytes,
                source,
                timeout,
            } => self.input(request, terminal, bytes, (source, timeout), context),
            Command::Approve { approval } => self.decided(&approval, true, context),
            Command::Deny { approval } => self.decided(&approval, false, context),
            Command::CreateInvite {
                role,
                expires_in,
                ask,
                addresses,
            } => {
                let id = member.invite(role, expires_in, ask, addresses, context)?;
                Ok(Some(Reply::Invite { id }))
            }
            Command::OpenTerminal { spec } => self.open_terminal(spec, context).map(Some),
            Command::ResizeTerminal {
                terminal,
                cols,
                rows,
            } => self
                .resize_terminal(terminal, (cols, rows), context)
                .map(Some),
            Command::Leave => self.leave(context).map(Some),
            Command::StopSession => self.stop_session(context).map(Some),
            Command::GoOffline => {
                self.go_offline(context);
                Ok(Some(Reply::Done))
            }
        }
    }

    fn decided(
        &mut self,
        approval: &str,
        approve: bool,
        context: &mut Context<'_>,
    ) -> Result<Option<Reply>, CommandError> {
        self.decide(approval, approve, context)
            .map(|()| Some(Reply::Done))
    }

    fn post(&mut self, draft: &Draft, context: &mut Context<'_>) -> Result<Reply, CommandError> {
        let Phase::Member(member) = &mut self.phase else {
            return Err(CommandError::new(
                Code::Failure,
                "this node is no member yet",
            ));
        };
        if draft.text.trim().is_empty() {
            return Err(CommandError::new(Code::Usage, "there is nothing to say"));
        }
        if draft.text.len() > CHAT_TEXT_BYTES_MAX {
            let (got, max) = (draft.text.len(), CHAT_TEXT_BYTES_MAX);
            let message = format!("a message has at most {max} bytes, this has {got}");
            return Err(CommandError::new(Code::LimitExceeded, message));
        }
        let now = context.now.wall;
        let name = DocumentName::Chat {
            owner: member.me(),
            index: 0,
        };
        let mut taken = Taken::default();
        let message = member.replica.write(
            name,
            context.entropy,
            (&mut taken, &mut context.out.persist),
            |documents, writer| {
                let (change, message) = documents.post(writer, now, draft)?;
                Ok((Some(change), message))
            },
        )?;
        member.board.acted(context.now);
        taken.news.push(crate::engine::replica::News::Messages(vec![
            message.clone(),
        ]));
        member.absorb(taken, context);
        Ok(Reply::Message {
            id: message.id.to_string(),
        })
    }

    fn input(
        &mut self,
        request: RequestId,
        terminal: TerminalId,
        bytes: Vec<u8>,
        (source, timeout): (InputSource, Option<Duration>),
        context: &mut Context<'_>,
    ) -> Result<Option<Reply>, CommandError> {
        let Phase::Member(member) = &mut self.phase else {
            return Ok(None);
        };
        if bytes.is_empty() {
            return Ok(Some(Reply::Typed { bytes: 0 }));
        }
        member.board.acted(context.now);
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let verb = match source {
            InputSource::Key => None,
            InputSource::Verb => {
                member.verbs += 1;
                let until = context.now.mono + timeout.unwrap_or(PATIENCE);
                let promise = Promise {
                    request,
                    until,
                    bytes: length,
                };
                member.typing.insert(member.verbs, promise);
                Some(member.verbs)
            }
        };
        let result = if member.terminals.hosted.contains_key(&terminal) {
            self.person(terminal, Person::Key { verb, bytes }, context)
        } else if member
            .terminals
            .viewed
            .get(&terminal)
            .is_some_and(|viewed| viewed.open)
        {
            self.sender(terminal, SenderInput::Type { verb, bytes }, context);
            Ok(())
        } else {
            Err(CommandError::new(
                Code::NoTerminalShared,
                "no such terminal is open",
            ))
        };
        if let (Err(_), Some(verb), Some(member)) = (&result, verb, self.member_mut()) {
            member.typing.remove(&verb);
        }
        result.map(|()| verb.is_none().then_some(Reply::Typed { bytes: length }))
    }

    fn control(
        &mut self,
        request: RequestId,
        terminal: TerminalId,
        command: ControlCommand,
        context: &mut Context<'_>,
    ) -> Result<Option<Reply>, CommandError> {
        let Phase::Member(member) = &mut self.phase else {
            return Ok(None);
        };
        member.board.acted(context.now);
        if member.terminals.hosted.contains_key(&terminal) {
            return self.control_here(terminal, command, context).map(Some);
        }
        let Some(viewed) = member
            .terminals
            .viewed
            .get(&terminal)
            .filter(|viewed| viewed.open)
        else {
            return Err(CommandError::new(
                Code::NoTerminalShared,
                "no such terminal is open",
            ));
        };
        if self.links.active(&viewed.host).is_none() {
            let message = "the terminal's host is not connected";
            return Err(CommandError::new(Code::PeerUnreachable, message));
        }
        let until = context.now.mono + PATIENCE;
        let promise = Promise {
            request,
            until,
            bytes: 0,
        };
        match command {
            ControlCommand::Request => {
                member
                    .asking
                    .entry(terminal)
                    .or_default()
                    .push_back(promise);
                self.sender(terminal, SenderInput::Request { duration_s: None }, context);
                Ok(None)
            }
            ControlCommand::Release => {
                self.sender(terminal, SenderInput::Release, context);
                Ok(Some(Reply::Done))
            }
            ControlCommand::Deny { .. } => {
                let message = "only the terminal's host answers requests";
                Err(CommandError::new(Code::NotPermitted, message))
            }
            order @ (ControlCommand::Grant { .. }
            | ControlCommand::Revoke
            | ControlCommand::Take
            | ControlCommand::Lock
            | ControlCommand::Unlock) => {
                let action = order_of(order);
                let me = member.me();
                let may = crate::engine::capability::Action::OrderControl;
                if !member.replica.membership().may(&me, &may) {
                    let message = "this role may not decide who has control";
                    return Err(CommandError::new(Code::NotPermitted, message));
                }
                member
                    .ordering
                    .entry(terminal)
                    .or_default()
                    .push_back(promise);
                self.sender(terminal, SenderInput::Order(action), context);
                Ok(None)
            }
        }
    }

    /// At the terminal's own host the person decides.
    fn control_here(
        &mut self,
        terminal: TerminalId,
        command: ControlCommand,
        context: &mut Context<'_>,
    ) -> Result<Reply, CommandError> {
        let act = match command {
            ControlCommand::Request | ControlCommand::Release => {
                let message = "the terminal runs here: its keyboard needs no control";
                return Err(CommandError::new(Code::Usage, message));
            }
            ControlCommand::Grant { to, duration } => {
                let duration_s = duration.map(seconds);
                return self.grant_here(terminal, to, duration_s, context);
            }
            ControlCommand::Deny { to } => Person::Deny { who: to },
            ControlCommand::Revoke => Person::Revoke,
            ControlCommand::Take => Person::Take,
            ControlCommand::Lock => Person::Lock,
            ControlCommand::Unlock => Person::Unlock,
        };
        self.person(terminal, act, context).map(|()| Reply::Done)
    }

    /// Grants what was asked for, or agrees to a waiting order of that member that gives it the lease.
    fn grant_here(
        &mut self,
        terminal: TerminalId,
        to: MemberId,
        duration_s: Option<u32>,
        context: &mut Context<'_>,
    ) -> Result<Reply, CommandError> {
        let ordered = self.hosted(terminal).is_some_and(|hosted| {
            hosted.prompts.iter().any(|prompt| {
                let ordered = matches!(prompt.asked, crate::engine::control::Asked::Order(_));
                ordered && prompt.who == to && prompt.is_for_asker()
            })
        });
        let act = if ordered {
            Person::Agree {
                who: to,
                always: false,
            }
        } else {
            Person::Grant { to, duration_s }
        };
        self.person(terminal, act, context).map(|()| Reply::Done)
    }

    fn leave(&mut self, context: &mut Context<'_>) -> Result<Reply, CommandError> {
        let Phase::Member(member) = &mut self.phase else {
            return Ok(Reply::Done);
        };
        let mut taken = Taken::default();
        let now = context.now.wall;
        let batch = &mut context.out.persist;
        member
            .replica
            .state(StatementBody::Leave, now, &mut taken, batch)?;
        member.leaving = true;
        member.absorb(taken, context);
        self.hang_up(context);
        self.end(StopReason::Left, context);
        Ok(Reply::Done)
    }

    fn stop_session(&mut self, context: &mut Context<'_>) -> Result<Reply, CommandError> {
        let Phase::Member(member) = &mut self.phase else {
            return Ok(Reply::Done);
        };
        let me = member.me();
        let may = crate::engine::capability::Action::EndSession;
        if !member.replica.membership().may(&me, &may) {
            let message = "only the owner ends the session; `leave` ends this membership";
            return Err(CommandError::new(Code::NotPermitted, message));
        }
        if let Some(why) = member.cannot_write() {
            // Nobody would be told of an end. The shell is taken from them at once all the same.
            let message = format!(
                "the session has not ended for others: {}; this node goes offline, and `resume`, then `stop` end it",
                why.message
            );
            self.go_offline(context);
            return Err(CommandError::new(why.code, message));
        }
        self.hang_up(context);
        self.close_session("the owner has ended it", None, context);
        Ok(Reply::Done)
    }

    fn go_offline(&mut self, context: &mut Context<'_>) {
        self.hang_up(context);
        self.end(StopReason::Offline, context);
    }

    /// Terminals that run here end with this node; others are told.
    fn hang_up(&mut self, context: &mut Context<'_>) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let open: Vec<TerminalId> = member
            .terminals
            .hosted
            .iter()
            .filter(|(_, hosted)| hosted.open)
            .map(|(id, _)| *id)
            .collect();
        for terminal in open {
            context.pty(terminal, crate::engine::effect::PtyEffect::Hangup);
            if let Some(hosted) = self.hosted(terminal) {
                hosted.open = false;
            }
            self.lease(terminal, crate::engine::control::HostInput::Closed, context);
            let Phase::Member(member) = &mut self.phase else {
                return;
            };
            let closed = member.announce(context, |documents, writer, now| {
                documents.close_terminal(writer, now, terminal, None)
            });
            if let Err(error) = closed {
                tracing::warn!(%error, "the end of the terminal could not be announced");
            }
            context.emit(
                None,
                What::TerminalClosed {
                    terminal,
                    status: None,
                },
            );
        }
    }

    /// Commands that waited long enough are answered.
    pub(in crate::engine) fn requests_due(&mut self, context: &mut Context<'_>) {
        let now = context.now.mono;
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let mut late: Vec<(RequestId, &str)> = Vec::new();
        member.typing.retain(|_, promise| {
            let over = promise.until <= now;
            if over {
                late.push((
                    promise.request,
                    "the host has not confirmed the keys in time",
                ));
            }
            !over
        });
        for promises in member
            .asking
            .values_mut()
            .chain(member.ordering.values_mut())
        {
            promises.retain(|promise| {
                let over = promise.until <= now;
                if over {
                    late.push((
                        promise.request,
                        "the terminal's host has not answered in time",
                    ));
                }
                !over
            });
        }
        for (request, message) in late {
            context.reply(request, Err(CommandError::new(Code::TimedOut, message)));
        }
    }
}

impl Member {
    /// Refuses what would write something that lasts while this node writes nothing.
    fn may_do(&self, command: &Command) -> Result<(), CommandError> {
        let refusal = self.cannot_write().filter(|_| writes(command));
        refusal.map_or(Ok(()), Err)
    }
}

fn writes(command: &Command) -> bool {
    match command {
        Command::PatchSession(_)
        | Command::PostMessage { .. }
        | Command::Approve { .. }
        | Command::CreateInvite { .. }
        | Command::OpenTerminal { .. }
        | Command::Leave => true,
        Command::Messages(_)
        | Command::SetPresence(_)
        | Command::Control { .. }
        | Command::Input { .. }
        | Command::Deny { .. }
        | Command::ResizeTerminal { .. }
        | Command::StopSession
        | Command::GoOffline => false,
    }
}

fn order_of(command: ControlCommand) -> Action {
    match command {
        ControlCommand::Grant { to, duration } => Action::Grant {
            to,
            duration_s: duration.map(seconds),
        },
        ControlCommand::Take => Action::Take { duration_s: None },
        ControlCommand::Lock => Action::Lock,
        ControlCommand::Unlock => Action::Unlock,
        ControlCommand::Revoke
        | ControlCommand::Request
        | ControlCommand::Release
        | ControlCommand::Deny { .. } => Action::Revoke,
    }
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

fn reply_of(reply: Option<String>) -> Result<Option<MessageId>, CommandError> {
    reply.as_deref().map(message_id).transpose()
}

/// Reads a message's id.
pub(in crate::engine) fn message_id(text: &str) -> Result<MessageId, CommandError> {
    text.parse()
        .map_err(|_| CommandError::new(Code::Usage, format!("`{text}` is no message's id")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::capability::Role;
    use crate::engine::command::{MessagesSince, MessagesWanted};
    use crate::engine::limits::LISTED_MESSAGES_MAX;
    use crate::engine::stage::Stage;
    use crate::engine::view::{MessageView, Phase};

    const OWNER: usize = 0;

    fn listed(stage: &mut Stage, wanted: MessagesWanted) -> Vec<MessageView> {
        let reply = stage.command(OWNER, Command::Messages(wanted)).unwrap();
        let Reply::Messages(listed) = reply else {
            panic!("{reply:?}");
        };
        listed
    }

    #[test]
    fn whoever_goes_backwards_reads_all_that_was_ever_said() {
        const SAID: usize = 2 * LISTED_MESSAGES_MAX + 7;
        let mut stage = Stage::with(&[]);
        for number in 0..SAID {
            stage.run(Duration::from_millis(100));
            let said = Command::PostMessage {
                text: format!("number {number}"),
                reply: None,
                mentions: Vec::new(),
                anchor: None,
            };
            stage.command(OWNER, said).unwrap();
        }

        let mut all: Vec<MessageView> = Vec::new();
        loop {
            let wanted = MessagesWanted {
                before: all.first().map(|message| message.id.clone()),
                most: usize::MAX,
                since: None,
            };
            let page = listed(&mut stage, wanted);
            assert!(page.len() <= LISTED_MESSAGES_MAX);
            if page.is_empty() {
                break;
            }
            all.splice(0..0, page);
        }
        let texts: Vec<String> = all.iter().map(|message| message.text.clone()).collect();
        let said: Vec<String> = (0..SAID).map(|number| format!("number {number}")).collect();
        assert_eq!(texts, said);

        let after = |since| MessagesWanted {
            since: Some(since),
            before: None,
            most: 500,
        };
        let of_id = after(MessagesSince::Message(all[SAID - 3].id.clone()));
        assert_eq!(listed(&mut stage, of_id).len(), 2);
        let of_time = after(MessagesSince::Time(all[SAID - 3].time));
        assert_eq!(listed(&mut stage, of_time).len(), 2);
        let backwards = MessagesWanted {
            since: Some(MessagesSince::Message(all[9].id.clone())),
            before: Some(all[9].id.clone()),
            most: 5,
        };
        assert_eq!(listed(&mut stage, backwards), []);
    }

    #[test]
    fn a_stop_that_cannot_be_told_takes_the_owner_offline_and_is_made_up_for_later() {
        let mut stage = Stage::with(&[Role::Viewer]);
        let guest = 1;
        stage.run(Duration::from_secs(2));
        let full = CommandError::new(Code::DiskFull, "the disk is full");
        stage.member(OWNER).replica.freeze(full);

        let refused = stage.command(OWNER, Command::StopSession).unwrap_err();

        assert_eq!(refused.code, Code::DiskFull);
        assert!(refused.message.contains("resume"), "{}", refused.message);
        stage.run(Duration::from_secs(5));
        assert_eq!(stage.view(OWNER).phase, Phase::Ended);
        stage.kill(OWNER);
        let folder = stage.folder(OWNER);
        stage.resume(OWNER, folder);
        stage.run(Duration::from_secs(5));
        assert!(matches!(stage.view(guest).phase, Phase::Member { .. }));
        assert_eq!(
            stage.command(OWNER, Command::StopSession),
            Ok(Reply::Done),
            "with room it ends for everybody"
        );
    }

    #[test]
    fn a_place_that_is_no_messages_is_refused() {
        let mut stage = Stage::with(&[]);
        for id in ["", "x", &"0".repeat(32)] {
            let wanted = MessagesWanted {
                before: Some(id.to_owned()),
                most: 1,
                since: None,
            };
            let error = stage.command(OWNER, Command::Messages(wanted)).unwrap_err();
            assert_eq!(error.code, Code::Usage, "{id}");
        }
    }
}
