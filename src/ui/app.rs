//! The state of the full-screen UI without a terminal and without a clock: bytes, views and time in, actions and
//! pictures out.

use std::time::Duration;

use crate::engine::command::{
    Active, Command, CommandError, ControlCommand, InputSource, PresenceUpdate, Reply, Typing,
};
use crate::engine::effect::StopReason;
use crate::engine::error::Code;
use crate::engine::ids::{MemberId, TerminalId};
use crate::engine::terminal::input::encode_paste;
use crate::engine::terminal::screen::{Modes, Screen};
use crate::engine::time::{Mono, Now};
use crate::engine::view::{ConnectionView, Phase, SessionEvent, TerminalView, View, What};
use crate::ui::bell::Bell;
use crate::ui::chat::{Chat, Said};
use crate::ui::help::{Help, Reader};
use crate::ui::keys::Key;
use crate::ui::layout::Size;
use crate::ui::people::{Choice, People};
use crate::ui::prefix::{Focus, Intake, Prefix, Typed};
use crate::ui::theme::Theme;
use crate::ui::viewport::Crop;
use crate::ui::words::Standing;
use crate::ui::{UiEnd, UiOptions, news, text, viewport, words};

/// How long something said stays in the status row.
const SAID_FOR: Duration = Duration::from_secs(5);

/// After the last key the person is shown as typing for so long.
const TYPING_FOR: Duration = Duration::from_secs(3);

/// A window that is being dragged settles for so long before the shell is resized.
const RESIZE_AFTER: Duration = Duration::from_millis(50);

/// What may be the front of a longer key is held for so long.
const HELD_FOR: Duration = Duration::from_millis(25);

/// A node that does not stop is left alone after so long.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// A card that names somebody whom it did not name before is answered only after this time: it must be read.
const UNSETTLED: Duration = Duration::from_millis(700);

/// So long a newcomer who has what was said before may still be told of it, event by event.
const SETTLES_IN: Duration = Duration::from_secs(1);

/// What the world should do.
#[derive(Debug, PartialEq)]
pub(super) enum Action {
    /// Ask the node; the purpose comes back with the answer.
    Ask(Command, Purpose),
    /// Put a text into the person's clipboard.
    Copy(String),
    /// End the UI.
    End(UiEnd),
}

/// Why a command was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Keys for a shell.
    Keys,
    /// Something that is said to be done when it is.
    Done(String),
    /// A chat message; given back if it cannot be saved.
    Message(String),
    /// Older messages for the chat.
    Older,
    /// Something the person did not ask for.
    Quiet,
    /// The end of the membership or the session.
    Leave,
}

/// The panes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pane {
    Chat,
    People,
    Help,
}

/// Something said in the status row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Toast {
    pub(super) text: String,
    pub(super) alarm: bool,
    until: Mono,
}

/// The UI's state.
#[derive(Debug)]
pub(super) struct App {
    host: Option<TerminalId>,
    fixed_size: bool,
    pub(super) prefix: Prefix,
    pub(super) share_block: Vec<String>,
    /// The block is on the screen: nobody has joined yet, and it was not put away.
    pub(super) block_shown: bool,
    pub(super) theme: Theme,
    pub(super) window: Size,
    pub(super) crop: Crop,
    /// The keys choose which part of the screen is shown.
    pub(super) panning: bool,
    pub(super) chat: Chat,
    pub(super) people: People,
    pub(super) help: Help,
    pub(super) pane: Option<Pane>,
    /// The pane is open, but the keys go to the shell.
    aside: bool,
    intake: Intake,
    bell: Bell,
    toast: Option<Toast>,
    messages_seen: u64,
    notice_seen: u64,
    standing: Option<Standing>,
    /// The person was told that the keys reach nobody.
    told: bool,
    watched: Option<TerminalId>,
    typing: Option<(Typing, Mono)>,
    resize_due: Option<Mono>,
    held_until: Option<Mono>,
    leaving: Option<(UiEnd, Mono)>,
    /// To whom the card offers to give control.
    offered: Option<MemberId>,
    /// A newcomer gets what was said before; until it has all of that, no message is new.
    is_new_here: bool,
    /// When it was first seen to have that.
    had_all: Option<Mono>,
    /// Until then the card has just begun to speak of whom it names.
    unsettled_until: Mono,
}

impl App {
    pub(super) fn new(options: UiOptions, window: Size, view: &View) -> Self {
        let alone = view.participants.iter().all(|one| one.me);
        let share_block = options.share_block.unwrap_or_default();
        Self {
            host: options.host,
            fixed_size: options.fixed_size,
            prefix: options.prefix,
            block_shown: alone && !share_block.is_empty(),
            share_block,
            theme: Theme::of(options.colour, options.caps.colors),
            window,
            crop: Crop::default(),
            panning: false,
            chat: Chat::default(),
            people: People::default(),
            help: Help::default(),
            pane: None,
            aside: false,
            intake: Intake::new(options.prefix),
            bell: Bell::default(),
            toast: None,
            messages_seen: view.messages_total,
            notice_seen: 0,
            standing: None,
            told: false,
            watched: None,
            typing: None,
            resize_due: None,
            held_until: None,
            leaving: None,
            offered: None,
            is_new_here: options.newcomer || matches!(view.phase, Phase::Joining { .. }),
            had_all: None,
            unsettled_until: Mono::default(),
        }
    }

    /// The terminal that is shown: the hosted one, else the first open one, else the last there was.
    pub(super) fn terminal<'a>(&self, view: &'a View) -> Option<&'a TerminalView> {
        let hosted = self
            .host
            .and_then(|id| view.terminals.iter().find(|one| one.id == id));
        hosted
            .or_else(|| view.terminals.iter().find(|one| one.open))
            .or_else(|| view.terminals.last())
    }

    /// Who reads the help and the menu.
    pub(super) fn reader(&self, view: &View) -> Reader {
        Reader {
            hosts: self.terminal(view).is_some_and(|terminal| terminal.mine),
            owns: view.session.owner,
        }
    }

    /// Where the keys go.
    pub(super) fn focus(&self) -> Focus {
        if self.panning || (self.pane.is_some() && !self.aside) {
            Focus::Pane
        } else {
            Focus::Terminal
        }
    }

    /// Whether a pane is open without having the keys.
    pub(super) fn aside(&self) -> bool {
        self.aside || self.panning
    }

    /// Whether the next key is a command.
    pub(super) fn prefixed(&self) -> bool {
        self.intake.prefixed()
    }

    pub(super) fn toast(&self) -> Option<&Toast> {
        self.toast.as_ref()
    }

    /// Messages that came while the chat was closed.
    pub(super) fn unread(&self, view: &View) -> u64 {
        view.messages_total.saturating_sub(self.messages_seen)
    }

    /// The first actions: the person is there, the shell gets the window's size.
    pub(super) fn started(&mut self, view: &View, now: Now) -> Vec<Action> {
        let attached = PresenceUpdate {
            attached: Some(true),
            ..PresenceUpdate::default()
        };
        let mut actions = vec![presence(attached)];
        actions.extend(self.resize(view));
        actions.extend(self.viewed(view, now));
        actions
    }

    /// Takes a new view.
    pub(super) fn viewed(&mut self, view: &View, now: Now) -> Vec<Action> {
        if view.participants.iter().any(|one| !one.me) {
            self.block_shown = false;
        }
        self.settles_in(view, now);
        if self.pane == Some(Pane::Chat) || self.is_new_here {
            self.messages_seen = view.messages_total;
        }
        self.chat.follow(view);
        if let Some(notice) = view
            .notices
            .last()
            .filter(|notice| notice.number > self.notice_seen)
        {
            self.notice_seen = notice.number;
            self.say(text::shown(&notice.text), false, now);
        }
        let terminal = self.terminal(view);
        let standing = terminal.map(Standing::of);
        if standing != self.standing {
            self.standing = standing;
            self.told = false;
        }
        let shown = terminal.map(|terminal| terminal.id);
        if shown == self.watched {
            return Vec::new();
        }
        self.watched = shown;
        let active = Some(shown.map(Active::Terminal));
        vec![presence(PresenceUpdate {
            active,
            ..PresenceUpdate::default()
        })]
    }

    /// Whether the local terminal rings with the picture of the terminal's screen that it is given now.
    pub(super) fn rings(&mut self, view: &View, screen: Option<&Screen>, now: Now) -> bool {
        let shown = self.terminal(view).map(|terminal| terminal.id);
        let rung = shown.zip(screen.map(|screen| screen.bells));
        self.bell.rings(rung, now.mono)
    }

    /// A newcomer is one until it has what was said before; the events of that may be behind the view.
    fn settles_in(&mut self, view: &View, now: Now) {
        if self.had_all.is_some_and(|at| now.mono >= at + SETTLES_IN) {
            self.is_new_here = false;
        }
        let has_all = matches!(view.phase, Phase::Member { synced: true });
        if has_all && view.connection == ConnectionView::Live {
            self.had_all.get_or_insert(now.mono);
        }
    }

    /// Takes an event: what of it a person wants to know is said in the status row.
    pub(super) fn happened(&mut self, event: &SessionEvent, view: &View, now: Now) {
        if let What::ControlRefused { code, message, .. } = &event.what {
            let error = CommandError::new(*code, message.as_str());
            return self.keys_refused(&error, view, now);
        }
        self.settles_in(view, now);
        if matches!(&event.what, What::MessagePosted { message } if message.from == view.me) {
            // Said in another window.
            let seen = self.messages_seen.saturating_add(1);
            self.messages_seen = seen.min(view.messages_total);
        }
        let chat_read = self.pane == Some(Pane::Chat) || self.is_new_here;
        if let Some(news) = news::of(event, view, chat_read) {
            self.say(news.text, news.alarm, now);
        }
    }

    /// Takes a new size of the window.
    pub(super) fn resized(&mut self, window: Size, now: Now) {
        self.window = window;
        if self.host.is_some() && !self.fixed_size {
            self.resize_due = Some(now.mono + RESIZE_AFTER);
        }
    }

    /// Takes what the person typed.
    pub(super) fn typed(
        &mut self,
        bytes: &[u8],
        view: &View,
        screen: Option<&Screen>,
        now: Now,
    ) -> Vec<Action> {
        self.intake.push(bytes);
        let mut actions = Vec::new();
        while let Some(typed) = self.intake.next(self.focus()) {
            actions.extend(self.sorted(typed, view, screen, now));
        }
        self.held_until = self.intake.holds().then(|| now.mono + HELD_FOR);
        actions
    }

    /// When something is due by itself.
    pub(super) fn deadline(&self, view: &View, now: Now) -> Option<Mono> {
        let toast = self.toast.as_ref().map(|toast| toast.until);
        let typing = self.typing.map(|(_, until)| until);
        let leaving = self.leaving.as_ref().map(|(_, until)| *until);
        [
            toast,
            typing,
            self.resize_due,
            self.held_until,
            leaving,
            self.bell.deadline(),
            self.chat.is_wanting().then_some(now.mono),
            self.clock_due(view, now),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Ages and remaining times on the screen go on.
    fn clock_due(&self, view: &View, now: Now) -> Option<Mono> {
        let ends = self
            .terminal(view)
            .and_then(|terminal| terminal.control.ends);
        let soon = ends.is_some_and(|ends| ends.since(now.wall) <= Duration::from_secs(61));
        let ages = matches!(self.pane, Some(Pane::Chat | Pane::People));
        match (soon, ages || ends.is_some()) {
            (true, _) => Some(now.mono + Duration::from_secs(1)),
            (false, true) => Some(now.mono + Duration::from_secs(20)),
            (false, false) => None,
        }
    }

    /// Does what is due.
    pub(super) fn due(&mut self, view: &View, screen: Option<&Screen>, now: Now) -> Vec<Action> {
        let mut actions = Vec::new();
        let is_over = |due: Option<Mono>| due.is_some_and(|due| due <= now.mono);
        if is_over(self.held_until) {
            self.held_until = None;
            while let Some(typed) = self.intake.next_held(self.focus()) {
                actions.extend(self.sorted(typed, view, screen, now));
            }
        }
        if is_over(self.toast.as_ref().map(|toast| toast.until)) {
            self.toast = None;
        }
        if is_over(self.typing.map(|(_, until)| until)) {
            actions.extend(self.types_no_more());
        }
        if is_over(self.resize_due) {
            self.resize_due = None;
            actions.extend(self.resize(view));
        }
        self.bell.due(now.mono);
        let older = self.chat.ask(view);
        actions.extend(older.map(|command| Action::Ask(command, Purpose::Older)));
        if let Some((end, _)) = self
            .leaving
            .as_ref()
            .filter(|(_, until)| is_over(Some(*until)))
        {
            actions.push(Action::End(end.clone()));
        }
        actions
    }

    /// Takes the answer to a command.
    pub(super) fn answered(
        &mut self,
        purpose: Purpose,
        answer: Result<Reply, CommandError>,
        view: &View,
        now: Now,
    ) {
        match (purpose, answer) {
            (Purpose::Done(done), Ok(_)) => self.say(done, false, now),
            (Purpose::Older, Ok(Reply::Messages(page))) => self.chat.older(Some(page), view),
            (Purpose::Older, Ok(_)) => self.chat.older(None, view),
            (Purpose::Older, Err(error)) => {
                self.chat.older(None, view);
                self.refuse(&error, now);
            }
            (Purpose::Keys | Purpose::Message(_) | Purpose::Quiet | Purpose::Leave, Ok(_))
            | (Purpose::Quiet, Err(_)) => {}
            (Purpose::Keys, Err(error)) => self.keys_refused(&error, view, now),
            (Purpose::Done(_), Err(error)) => self.refuse(&error, now),
            (Purpose::Message(text), Err(error)) => {
                self.chat.restore(&text);
                self.refuse(&error, now);
            }
            (Purpose::Leave, Err(error)) => {
                self.leaving = None;
                self.refuse(&error, now);
            }
        }
    }

    fn sorted(
        &mut self,
        typed: Typed,
        view: &View,
        screen: Option<&Screen>,
        now: Now,
    ) -> Vec<Action> {
        match typed {
            Typed::Bytes(bytes) => self.keys_for_shell(bytes, view, now),
            Typed::Key(key) if self.panning => self.key_that_pans(key, screen, now),
            Typed::Key(key) => self.key_for_pane(key, view, now),
            Typed::Command(key) => self.command(key, view, screen, now),
            Typed::Paste(bytes) if self.focus() == Focus::Pane => {
                if self.panning {
                    self.say("scrolled: nothing was pasted; q ends that", true, now);
                } else if self.pane == Some(Pane::Chat) {
                    self.chat.paste(&bytes, view);
                }
                Vec::new()
            }
            Typed::Paste(bytes) => {
                let modes = screen.map_or_else(Modes::default, |screen| screen.modes);
                let bytes = encode_paste(&String::from_utf8_lossy(&bytes), modes);
                self.keys_for_shell(bytes, view, now)
            }
            Typed::PasteTooLarge => {
                self.say("that is too much to paste; use a file", true, now);
                Vec::new()
            }
        }
    }

    fn keys_for_shell(&mut self, bytes: Vec<u8>, view: &View, now: Now) -> Vec<Action> {
        let Some(terminal) = self.terminal(view).filter(|terminal| terminal.open) else {
            self.say("there is no terminal to type into", true, now);
            return Vec::new();
        };
        let (terminal, standing) = (terminal.id, Standing::of(terminal));
        let input = Command::Input {
            terminal,
            bytes,
            source: InputSource::Key,
            timeout: None,
        };
        let mut actions = vec![Action::Ask(input, Purpose::Keys)];
        match standing {
            Standing::Host | Standing::HostWatches | Standing::Controls => {
                actions.extend(self.types(Typing::Terminal(terminal), now));
            }
            Standing::Asked | Standing::Locked | Standing::ReadOnly => {}
        }
        actions
    }

    fn key_for_pane(&mut self, key: Key, view: &View, now: Now) -> Vec<Action> {
        let Some(pane) = self.pane else {
            return Vec::new();
        };
        if key == Key::Tab {
            self.aside = true;
            return Vec::new();
        }
        match pane {
            Pane::Help => {
                if !self.help.key(key) {
                    self.close();
                }
                Vec::new()
            }
            Pane::People => {
                let terminal = self.terminal(view);
                match self.people.key(key, view, terminal) {
                    Choice::Stay => {}
                    Choice::Close => self.close(),
                    Choice::Refused(why) => self.say(why, false, now),
                    Choice::Command(command, done) => {
                        return vec![Action::Ask(command, Purpose::Done(done))];
                    }
                }
                Vec::new()
            }
            Pane::Chat => self.key_for_chat(key, view, now),
        }
    }

    fn key_for_chat(&mut self, key: Key, view: &View, now: Now) -> Vec<Action> {
        match self.chat.key(key, view) {
            Said::Stay => Vec::new(),
            Said::Writes => self.types(Typing::Chat, now),
            Said::Close => {
                self.close();
                self.types_no_more()
            }
            Said::Message { text, mentions } => {
                let mut actions = self.types_no_more();
                let purpose = Purpose::Message(text.clone());
                let command = Command::PostMessage {
                    text,
                    reply: None,
                    mentions,
                    anchor: None,
                };
                actions.push(Action::Ask(command, purpose));
                actions
            }
        }
    }

    /// A key after the prefix.
    fn command(&mut self, key: Key, view: &View, screen: Option<&Screen>, now: Now) -> Vec<Action> {
        self.panning = false;
        let reader = self.reader(view);
        match key {
            Key::Char('c') => self.toggle(Pane::Chat, view),
            Key::Char('p') => self.toggle(Pane::People, view),
            Key::Char('?') => self.toggle(Pane::Help, view),
            Key::Char('d') if !reader.hosts => return vec![Action::End(UiEnd::Detached)],
            Key::Char('x') => return self.leave(view, now),
            Key::Char('y') => return self.copy_ticket(view, now),
            Key::Char('r') => return self.request_or_release(view, now),
            Key::Char('g') => return self.grant(view, now),
            Key::Char('t') => return self.control(ControlCommand::Take, "you have control", view),
            Key::Char('l') => return self.lock(view),
            Key::Char('[') => self.scroll(screen, now),
            Key::Char('/') => self.search(view),
            Key::Escape => {}
            Key::Char(_)
            | Key::Ctrl(_)
            | Key::Alt(_)
            | Key::Enter
            | Key::Tab
            | Key::BackTab
            | Key::Backspace
            | Key::Delete
            | Key::Up
            | Key::Down
            | Key::Left
            | Key::Right
            | Key::Home
            | Key::End
            | Key::PageUp
            | Key::PageDown
            | Key::Unknown => {
                self.say(
                    format!("no such key; {} ? shows them", self.prefix),
                    false,
                    now,
                );
            }
        }
        Vec::new()
    }

    /// Opens a pane, returns to it, or closes it.
    fn toggle(&mut self, pane: Pane, view: &View) {
        if self.pane == Some(pane) && !self.aside {
            self.close();
            return;
        }
        if self.pane == Some(Pane::Chat) && pane != Pane::Chat {
            self.chat.rest();
        }
        if pane == Pane::People && self.pane != Some(pane) {
            self.people = People::open(view, self.terminal(view));
        }
        self.pane = Some(pane);
        self.aside = false;
        match pane {
            Pane::Chat => {
                self.messages_seen = view.messages_total;
                // What was said there stands in the pane now.
                self.toast = None;
            }
            Pane::Help => {
                self.block_shown = false;
                self.help = Help::default();
            }
            Pane::People => {}
        }
    }

    fn close(&mut self) {
        self.pane = None;
        self.aside = false;
        self.chat.rest();
    }

    /// The keys scroll: the open chat, else the part of the screen that is shown.
    fn scroll(&mut self, screen: Option<&Screen>, now: Now) {
        match self.pane {
            Some(Pane::Chat) => {
                self.aside = false;
                return self.chat.read();
            }
            // It hides the middle of the screen.
            Some(Pane::Help) => self.close(),
            Some(Pane::People) => self.aside = true,
            None => {}
        }
        let room = self.room_beside_the_pane();
        match screen.filter(|screen| viewport::is_cropped(screen, room)) {
            Some(_) => self.panning = true,
            None => self.say("all of the screen is in sight", false, now),
        }
    }

    /// The keys look for something in the chat.
    fn search(&mut self, view: &View) {
        let alone = self.pane != Some(Pane::Chat);
        if alone || self.aside {
            self.toggle(Pane::Chat, view);
        }
        self.chat.search(alone);
    }

    /// A key while a part of the screen is chosen.
    fn key_that_pans(&mut self, key: Key, screen: Option<&Screen>, now: Now) -> Vec<Action> {
        let room = self.room_beside_the_pane();
        let moved = screen.and_then(|screen| self.crop.moved(key, screen, room));
        match (moved, key) {
            (Some(moved), _) => self.crop = moved,
            (None, Key::Escape | Key::Enter | Key::Char('q')) => self.panning = false,
            (None, _) => self.say("q ends; arrows, PgUp, PgDn, Home, End scroll", false, now),
        }
        Vec::new()
    }

    fn leave(&mut self, view: &View, now: Now) -> Vec<Action> {
        let (command, said, end) = if view.session.owner {
            let closed = UiEnd::Stopped(StopReason::Closed(None));
            (Command::StopSession, "stopping the session…", closed)
        } else {
            (Command::Leave, "leaving…", UiEnd::Left)
        };
        self.leaving = Some((end, now.mono + LEAVE_WITHIN));
        self.say(said, false, now);
        vec![Action::Ask(command, Purpose::Leave)]
    }

    /// Copies the ticket that the block shows, as long as it is good; else the newest. Which one is said: they may
    /// let in with different roles.
    fn copy_ticket(&mut self, view: &View, now: Now) -> Vec<Action> {
        let usable = || {
            let open = view.invites.iter().filter(|invite| invite.open);
            open.filter_map(|invite| Some((invite, invite.ticket.as_deref()?)))
        };
        let words = || self.share_block.iter().flat_map(|line| line.split(' '));
        let is_shown = |ticket: &str| words().any(|word| word == ticket);
        let shown = usable().find(|(_, ticket)| is_shown(ticket));
        match shown.or_else(|| usable().max_by_key(|(invite, _)| invite.created)) {
            Some((invite, ticket)) => {
                let (role, ticket) = (invite.role, ticket.to_owned());
                self.say(
                    format!("the {role} ticket is in the clipboard, if your terminal allows it"),
                    false,
                    now,
                );
                vec![Action::Copy(ticket)]
            }
            None => {
                self.say("there is no ticket here to copy", true, now);
                Vec::new()
            }
        }
    }

    fn request_or_release(&mut self, view: &View, now: Now) -> Vec<Action> {
        match self
            .terminal(view)
            .map(|terminal| (Standing::of(terminal), terminal.host))
        {
            None => self.say("there is no terminal to control", true, now),
            Some((Standing::Host | Standing::HostWatches, _)) => {
                self.say("this terminal is yours: just type", false, now);
            }
            Some((Standing::Asked, _)) => {
                return self.control(
                    ControlCommand::Release,
                    "you ask for control no longer",
                    view,
                );
            }
            Some((Standing::Controls, _)) => {
                return self.control(ControlCommand::Release, "you gave control back", view);
            }
            Some((Standing::Locked | Standing::ReadOnly, host)) => {
                let said = format!("asked {} for control", words::name_of(view, &host));
                return self.control(ControlCommand::Request, &said, view);
            }
        }
        Vec::new()
    }

    /// Notes whom the card that is painted now names first.
    pub(super) fn offers(&mut self, view: &View, now: Now) {
        let first = self.asks_first(view);
        if first != self.offered {
            self.unsettled_until = now.mono + UNSETTLED;
            self.offered = first;
        }
    }

    fn asks_first(&self, view: &View) -> Option<MemberId> {
        let terminal = self.terminal(view)?;
        terminal.control.requests.first().copied()
    }

    /// Gives control to who asked first, if the person has read so; with nobody asking, the person chooses.
    fn grant(&mut self, view: &View, now: Now) -> Vec<Action> {
        let reader = self.reader(view);
        if !reader.hosts && !reader.owns {
            self.say("the terminal's host gives control", false, now);
            return Vec::new();
        }
        let first = self.asks_first(view);
        if first.is_some() && (first != self.offered || now.mono < self.unsettled_until) {
            self.say("the question has just changed: read it again", true, now);
            return Vec::new();
        }
        let Some(to) = first else {
            if self.pane != Some(Pane::People) {
                self.toggle(Pane::People, view);
            }
            self.aside = false;
            self.say("nobody asks: choose who gets control, then g", false, now);
            return Vec::new();
        };
        let said = format!("{} has control", words::name_of(view, &to));
        self.control(ControlCommand::Grant { to, duration: None }, &said, view)
    }

    fn lock(&self, view: &View) -> Vec<Action> {
        let locked = self
            .terminal(view)
            .is_some_and(|terminal| terminal.control.locked);
        if locked {
            self.control(ControlCommand::Unlock, "others may get control again", view)
        } else {
            self.control(
                ControlCommand::Lock,
                "locked: nobody else gets control",
                view,
            )
        }
    }

    fn control(&self, command: ControlCommand, done: &str, view: &View) -> Vec<Action> {
        let Some(terminal) = self.terminal(view) else {
            return Vec::new();
        };
        let command = Command::Control {
            terminal: terminal.id,
            command,
        };
        vec![Action::Ask(command, Purpose::Done(done.to_owned()))]
    }

    /// Says once what keys without control lead to; again only after the standing has changed.
    fn keys_refused(&mut self, error: &CommandError, view: &View, now: Now) {
        if error.code != Code::LeaseNotHeld && error.code != Code::NotPermitted {
            self.refuse(error, now);
        } else if !self.told {
            self.told = true;
            let said = match self.terminal(view).map(Standing::of) {
                Some(Standing::Asked) => "read-only: you have asked for control".to_owned(),
                Some(Standing::Locked) => "read-only: the host has locked all input".to_owned(),
                Some(
                    Standing::Host
                    | Standing::HostWatches
                    | Standing::Controls
                    | Standing::ReadOnly,
                )
                | None => format!("read-only: {} r asks for control", self.prefix),
            };
            self.say(said, true, now);
        }
    }

    fn refuse(&mut self, error: &CommandError, now: Now) {
        self.say(text::shown(&error.message), true, now);
    }

    fn say(&mut self, text: impl Into<String>, alarm: bool, now: Now) {
        self.toast = Some(Toast {
            text: text.into(),
            alarm,
            until: now.mono + SAID_FOR,
        });
    }

    fn types(&mut self, typing: Typing, now: Now) -> Vec<Action> {
        let known = self.typing.is_some_and(|(before, _)| before == typing);
        self.typing = Some((typing, now.mono + TYPING_FOR));
        let update = PresenceUpdate {
            typing: Some(Some(typing)),
            ..PresenceUpdate::default()
        };
        if known {
            Vec::new()
        } else {
            vec![presence(update)]
        }
    }

    fn types_no_more(&mut self) -> Vec<Action> {
        let update = PresenceUpdate {
            typing: Some(None),
            ..PresenceUpdate::default()
        };
        if self.typing.take().is_some() {
            vec![presence(update)]
        } else {
            Vec::new()
        }
    }

    /// Brings the hosted shell to the window's size, unless its size is fixed.
    fn resize(&self, view: &View) -> Option<Action> {
        let terminal = self
            .terminal(view)
            .filter(|one| Some(one.id) == self.host && one.open)?;
        let Size { cols, rows } = self.window.of_shell();
        let fits = self.fixed_size || (terminal.cols, terminal.rows) == (cols, rows);
        let command = Command::ResizeTerminal {
            terminal: terminal.id,
            cols,
            rows,
        };
        (!fits).then_some(Action::Ask(command, Purpose::Quiet))
    }
}

fn presence(update: PresenceUpdate) -> Action {
    Action::Ask(Command::SetPresence(update), Purpose::Quiet)
}

#[cfg(test)]
mod tests;
