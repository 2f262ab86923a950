//! Runs the UI: waits for whatever comes first, hands it to the [`App`], performs what it asks, paints.
//!
//! There is no tick: a picture is made when something changed and the terminal has taken the one before, so a slow
//! terminal skips to the newest. Keys go first.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, FuturesUnordered, StreamExt as _};
use nix::sys::signal::{Signal as SystemSignal, raise};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};

use crate::engine::command::{Command, CommandError, PresenceUpdate, Reply};
use crate::engine::effect::StopReason;
use crate::engine::ids::TerminalId;
use crate::engine::terminal::redaction::Redacted;
use crate::engine::terminal::screen::Screen;
use crate::engine::view::{SessionEvent, View};
use crate::node::Handle;
use crate::node::clock::Clock;
use crate::node::handle::NumberedEvent;
use crate::ui::app::{Action, App, Purpose};
use crate::ui::layout::Size;
use crate::ui::paint::Brush;
use crate::ui::tty::Tty;
use crate::ui::{UiEnd, UiError, UiOptions};

type Answer = (Purpose, Result<Reply, CommandError>);
type Answers = FuturesUnordered<BoxFuture<'static, Answer>>;

/// Keys are not read while so many commands wait for their answer: a stuck node fills no memory.
const ASKED_MAX: usize = 128;

/// The node gets so long to hear that the person is no longer attached.
const FAREWELL: Duration = Duration::from_millis(200);

/// Makes a terminal ring.
const BEL: u8 = 0x07;

/// A window whose size cannot be read.
const USUAL_WINDOW: Size = Size { cols: 80, rows: 24 };

/// The signals that a full-screen program must answer.
struct Signals {
    ends: BoxStream<'static, i32>,
    stop: Signal,
    goes_on: Signal,
    window: Signal,
}

/// What a signal asks for.
#[derive(Debug)]
enum Asked {
    End(i32),
    Stop,
    GoOn,
    Window,
}

impl Signals {
    fn new(ends: BoxStream<'static, i32>) -> Result<Self, UiError> {
        let on = |kind| signal(kind).map_err(UiError::Io);
        Ok(Self {
            ends,
            stop: on(SignalKind::from_raw(nix::libc::SIGTSTP))?,
            goes_on: on(SignalKind::from_raw(nix::libc::SIGCONT))?,
            window: on(SignalKind::window_change())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            Some(signal) = self.ends.next() => Asked::End(signal),
            _ = self.stop.recv() => Asked::Stop,
            _ = self.goes_on.recv() => Asked::GoOn,
            _ = self.window.recv() => Asked::Window,
        }
    }
}

/// The UI with its terminal.
#[derive(Debug)]
struct Running {
    handle: Handle,
    app: App,
    tty: Tty,
    brush: Brush,
    clock: Clock,
    answers: Answers,
    view: Arc<View>,
    /// Whose picture `screen` is.
    shown: Option<TerminalId>,
    screen: Option<Arc<Redacted<Screen>>>,
    #[cfg(feature = "lab")]
    panic_on: Option<String>,
}

/// Shows the session until it ends for this person.
pub(super) async fn run(
    handle: Handle,
    options: UiOptions,
    ends: BoxStream<'static, i32>,
) -> Result<UiEnd, UiError> {
    let mut signals = Signals::new(ends)?;
    let mut tty = Tty::open()?;
    let window = tty.size().unwrap_or(USUAL_WINDOW);
    let view = handle.view();
    #[cfg(feature = "lab")]
    let panic_on = options.panic_on.clone();
    let mut running = Running {
        #[cfg(feature = "lab")]
        panic_on,
        brush: Brush::new(options.caps),
        app: App::new(options, window, &view),
        clock: Clock::start(),
        answers: Answers::new(),
        shown: None,
        screen: None,
        handle: handle.clone(),
        view,
        tty: {
            tty.enter().map_err(UiError::Io)?;
            tty
        },
    };
    let end = running.until_the_end(&mut signals).await;
    running.tty.leave();
    say_farewell(&handle, &end).await;
    Ok(end)
}

impl Running {
    async fn until_the_end(&mut self, signals: &mut Signals) -> UiEnd {
        let mut views = self.handle.watch_view();
        let mut screens = self.handle.watch_screens();
        let mut events = self.handle.events();
        let handle = self.handle.clone();
        let mut stopped = std::pin::pin!(handle.stopped());
        self.refresh();
        let first = self.app.started(&self.view, self.clock.now());
        let mut end = self.perform(first);
        while end.is_none() {
            self.paint();
            let due = self.until_due();
            let reads = self.answers.len() < ASKED_MAX;
            end = tokio::select! {
                biased;
                asked = signals.next() => self.signalled(asked),
                bytes = self.tty.read(), if reads => self.typed(&bytes),
                Some(answer) = self.answers.next() => self.answered(answer),
                reason = &mut stopped => Some(end_of(reason)),
                Ok(()) = screens.changed() => self.refresh(),
                Ok(()) = views.changed() => self.viewed(&mut views),
                event = next_event(&mut events) => self.happened(&event),
                () = self.tty.writable(), if !self.tty.is_idle() => None,
                () = tokio::time::sleep(due.unwrap_or_default()), if due.is_some() => self.due(),
            };
        }
        end.unwrap_or(UiEnd::Detached)
    }

    /// Time until something is due by itself.
    fn until_due(&self) -> Option<Duration> {
        let now = self.clock.now();
        self.app
            .deadline(&self.view, now)
            .map(|due| due.since(now.mono))
    }

    /// Paints the newest picture, unless the terminal has not taken the last one yet.
    fn paint(&mut self) {
        self.tty.write_now();
        if self.tty.is_idle() {
            let screen = self.screen.clone();
            let (screen, now) = (cells(screen.as_ref()), self.clock.now());
            let picture = self.app.picture(&self.view, screen, now);
            let mut bytes = self.brush.paint(picture);
            if self.app.rings(&self.view, screen, now) {
                bytes.push(BEL);
            }
            self.tty.queue(&bytes);
            self.tty.write_now();
        }
    }

    /// Takes the newest picture of the terminal that is shown. Its last one stays when there is none any more.
    fn refresh(&mut self) -> Option<UiEnd> {
        let shown = self.app.terminal(&self.view).map(|terminal| terminal.id);
        if shown != self.shown {
            self.shown = shown;
            self.screen = None;
        }
        if let Some(screen) = shown.and_then(|id| self.handle.screen(&id)) {
            self.screen = Some(screen);
        }
        None
    }

    fn viewed(&mut self, views: &mut watch::Receiver<Arc<View>>) -> Option<UiEnd> {
        self.view = views.borrow_and_update().clone();
        self.refresh();
        let actions = self.app.viewed(&self.view, self.clock.now());
        self.perform(actions)
    }

    fn happened(&mut self, event: &SessionEvent) -> Option<UiEnd> {
        self.app.happened(event, &self.view, self.clock.now());
        None
    }

    fn answered(&mut self, (purpose, answer): Answer) -> Option<UiEnd> {
        self.app
            .answered(purpose, answer, &self.view, self.clock.now());
        None
    }

    fn typed(&mut self, bytes: &[u8]) -> Option<UiEnd> {
        if bytes.is_empty() {
            return Some(UiEnd::Signal(SignalKind::hangup().as_raw_value()));
        }
        #[cfg(feature = "lab")]
        self.panic_if_asked(bytes);
        let screen = self.screen.clone();
        let actions = self
            .app
            .typed(bytes, &self.view, cells(screen.as_ref()), self.clock.now());
        self.perform(actions)
    }

    #[cfg(feature = "lab")]
    #[expect(clippy::panic, reason = "the lab looks at what a panic leaves behind")]
    fn panic_if_asked(&self, bytes: &[u8]) {
        if self
            .panic_on
            .as_deref()
            .is_some_and(|text| bytes == text.as_bytes())
        {
            panic!("the lab has asked for this");
        }
    }

    fn due(&mut self) -> Option<UiEnd> {
        let screen = self.screen.clone();
        let actions = self
            .app
            .due(&self.view, cells(screen.as_ref()), self.clock.now());
        self.perform(actions)
    }

    fn perform(&mut self, actions: Vec<Action>) -> Option<UiEnd> {
        for action in actions {
            match action {
                Action::Ask(command, purpose) => self.ask(command, purpose),
                Action::Copy(text) => {
                    let request = format!("\x1b]52;c;{}\x07", BASE64.encode(text.as_bytes()));
                    self.tty.queue(request.as_bytes());
                }
                Action::End(end) => return Some(end),
            }
        }
        None
    }

    /// Sends the command now, and keeps what waits for the answer. The first poll puts it into the node's queue, so
    /// commands arrive in the order in which they are asked.
    fn ask(&mut self, command: Command, purpose: Purpose) {
        let handle = self.handle.clone();
        let mut answer = async move { (purpose, handle.command(command).await) }.boxed();
        match (&mut answer).now_or_never() {
            Some(answer) => {
                self.answered(answer);
            }
            None => self.answers.push(answer),
        }
    }

    fn signalled(&mut self, asked: Asked) -> Option<UiEnd> {
        let hung_up = UiEnd::Signal(SignalKind::hangup().as_raw_value());
        let taken = match asked {
            Asked::End(signal) => return Some(UiEnd::Signal(signal)),
            Asked::Stop => {
                self.tty.leave();
                // Stops this process here; goes on when it is continued.
                let _never = raise(SystemSignal::SIGSTOP);
                self.tty.enter()
            }
            Asked::GoOn => self.tty.resume(),
            Asked::Window => Ok(()),
        };
        if taken.is_err() {
            return Some(hung_up);
        }
        self.brush.forget();
        if let Some(window) = self.tty.size() {
            self.app.resized(window, self.clock.now());
        }
        None
    }
}

fn cells(screen: Option<&Arc<Redacted<Screen>>>) -> Option<&Screen> {
    screen.map(|screen| &***screen)
}

fn end_of(reason: StopReason) -> UiEnd {
    if reason == StopReason::Left {
        UiEnd::Left
    } else {
        UiEnd::Stopped(reason)
    }
}

/// The next event; what a slow reader lost is lost, and after the last one nothing comes.
async fn next_event(events: &mut broadcast::Receiver<NumberedEvent>) -> SessionEvent {
    loop {
        match events.recv().await {
            Ok(numbered) => return numbered.event,
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Tells the node that nobody is attached any more, where a node is left to be told.
async fn say_farewell(handle: &Handle, end: &UiEnd) {
    match end {
        UiEnd::Left | UiEnd::Stopped(_) => {}
        UiEnd::Detached | UiEnd::Signal(_) => {
            let update = PresenceUpdate {
                attached: Some(false),
                active: Some(None),
                typing: Some(None),
                ..PresenceUpdate::default()
            };
            // A node that does not answer in time is told by its own end.
            let _late =
                tokio::time::timeout(FAREWELL, handle.command(Command::SetPresence(update))).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::sample;

    #[tokio::test]
    async fn a_node_that_ends_without_a_word_has_failed() {
        let (handle, source) = Handle::new(sample::view(), Arc::default(), None);
        let waiting = handle.clone();
        let waits = tokio::spawn(async move { end_of(waiting.stopped().await) });

        drop(source);

        let failed = UiEnd::Stopped(StopReason::Broken);
        assert_eq!(waits.await.unwrap(), failed);
        assert_eq!(end_of(handle.stopped().await), failed);
    }
}
