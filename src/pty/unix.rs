//! A shell on a pseudo-terminal. Two tasks serve it: one reads output and watches the shell, one writes input as
//! fast as the terminal takes it. Neither ever waits for the other, so a shell that does not read its input can
//! still be heard and interrupted. Only the receiver of the events slows reading down.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::FutureExt;
use nix::sys::signal::{self, SigHandler, SigSet, Signal, killpg};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::{Pid, tcgetpgrp};
use pty_process::{Command, OwnedReadPty, OwnedWritePty, Size};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::process::Child;
use tokio::sync::Notify;
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep, timeout};

use crate::engine::limits::{
    PTY_DRAIN_MS, PTY_DRAIN_READS_MAX, PTY_HANGUP_GRACE_MS, PTY_INPUT_BYTES_MAX,
    PTY_OUTPUT_BYTES_MAX, PTY_OUTPUT_EVENTS_MAX,
};
use crate::engine::terminal::screen::clamp_size;

/// Why a shell did not start, or takes nothing.
#[derive(Debug, thiserror::Error)]
pub enum PtyError {
    /// An empty list of words.
    #[error("no command to run was given")]
    NoCommand,
    /// The system gave no pseudo-terminal.
    #[error("no pseudo-terminal could be opened: {0}")]
    Open(#[source] io::Error),
    /// The command could not be started.
    #[error("{program:?} could not be started: {source}")]
    Start {
        /// Its first word.
        program: OsString,
        /// What the system said.
        source: io::Error,
    },
    /// The terminal could not be given its size.
    #[error("the terminal's size could not be set: {0}")]
    Resize(#[source] io::Error),
    /// The shell reads nothing and what waits for it is at its limit.
    #[error("{PTY_INPUT_BYTES_MAX} bytes of input wait for the shell already")]
    InputFull,
    /// The shell has ended.
    #[error("the shell has ended")]
    Ended,
}

/// What to run, where.
#[derive(Debug, Clone, Default)]
pub struct PtySpec {
    /// The command and its arguments.
    pub argv: Vec<OsString>,
    /// The working directory; none for that of this process.
    pub cwd: Option<PathBuf>,
    /// Variables to set, or with none to remove, beside those that every shared shell gets and loses.
    pub env: Vec<(OsString, Option<OsString>)>,
    /// Columns of the terminal, clamped to the limits of a shared screen.
    pub cols: u16,
    /// Rows of the terminal, likewise.
    pub rows: u16,
}

/// What a shell does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PtyEvent {
    /// It printed this. Pieces follow one another without gap.
    Output(Vec<u8>),
    /// The terminal has taken this many bytes of input since the start.
    Written(u64),
    /// It ended, after its last output: with its code, or with 128 and the number of the signal that killed it.
    Exited {
        /// As a shell's `$?`.
        status: i32,
    },
}

/// What was dropped of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Discarded {
    /// Bytes that the terminal has taken since the start; exact, since nothing is under way.
    pub taken: u64,
    /// Bytes that it will never get.
    pub dropped: usize,
}

/// Starts shells.
#[derive(Debug)]
pub struct Pty;

impl Pty {
    /// Starts a command on a pseudo-terminal of its own, as a session leader with signals as after log-in. Needs
    /// a running tokio runtime. The last event is [`PtyEvent::Exited`]; dropping the receiver hangs up.
    ///
    /// # Errors
    /// [`PtyError`] if there is no command, no pseudo-terminal, or the command cannot be started.
    pub fn spawn(spec: PtySpec) -> Result<(PtyHandle, mpsc::Receiver<PtyEvent>), PtyError> {
        let (pty, pts) = pty_process::open().map_err(|error| PtyError::Open(io_error(error)))?;
        pty.resize(size(spec.cols, spec.rows))
            .map_err(|error| PtyError::Resize(io_error(error)))?;
        let master = pty.as_fd().try_clone_to_owned().map_err(PtyError::Open)?;
        let program = spec.argv.first().cloned().ok_or(PtyError::NoCommand)?;
        let child = command(spec)?.spawn(pts).map_err(|error| PtyError::Start {
            program,
            source: io_error(error),
        })?;

        let (reader, writer) = pty.into_split();
        let input = Input {
            pty: Some(writer),
            queue: VecDeque::new(),
            taken: 0,
            waker: None,
        };
        let shared = Arc::new(Shared {
            input: Mutex::new(input),
            master,
            hangup: Notify::new(),
            failed: AtomicBool::new(false),
        });
        let (events, receiver) = mpsc::channel(PTY_OUTPUT_EVENTS_MAX);
        let watch = Watch {
            output: Output {
                pty: reader,
                buffer: vec![0; PTY_OUTPUT_BYTES_MAX],
            },
            child,
            shared: Arc::clone(&shared),
            events: events.clone(),
            kill: None,
        };
        tokio::spawn(write(Arc::clone(&shared), events));
        tokio::spawn(watch.run());
        Ok((PtyHandle { shared }, receiver))
    }
}

/// A running shell's owner. Dropping it hangs up.
pub struct PtyHandle {
    shared: Arc<Shared>,
}

impl PtyHandle {
    /// Hands over input, and tells how many bytes wait with it. What the terminal has taken of it is told by
    /// [`PtyEvent::Written`].
    ///
    /// # Errors
    /// [`PtyError::InputFull`] if nothing of it was accepted; [`PtyError::Ended`].
    pub fn write(&self, bytes: &[u8]) -> Result<usize, PtyError> {
        let mut input = self.shared.input();
        if input.pty.is_none() {
            return Err(PtyError::Ended);
        }
        if input.queue.len().saturating_add(bytes.len()) > PTY_INPUT_BYTES_MAX {
            return Err(PtyError::InputFull);
        }
        input.queue.extend(bytes);
        input.waker.take().into_iter().for_each(Waker::wake);
        Ok(input.queue.len())
    }

    /// Bytes of input that the terminal has not taken.
    pub fn waiting(&self) -> usize {
        self.shared.input().queue.len()
    }

    /// Whether the task that watches the shell failed by a panic. One that was cut off with the whole runtime did not:
    /// its shell's end is nobody's doing, and no news.
    pub fn has_failed(&self) -> bool {
        self.shared.failed.load(Ordering::Acquire)
    }

    /// As if the task that watches the shell had panicked.
    #[cfg(test)]
    pub(crate) fn fail(&self) {
        self.shared.failed.store(true, Ordering::Release);
    }

    /// Drops the input that the terminal has not taken yet.
    pub fn discard(&self) -> Discarded {
        let mut input = self.shared.input();
        let dropped = input.queue.len();
        input.queue.clear();
        Discarded {
            taken: input.taken,
            dropped,
        }
    }

    /// Changes the terminal's size, clamped to the limits of a shared screen.
    ///
    /// # Errors
    /// [`PtyError::Resize`], [`PtyError::Ended`].
    pub fn resize(&self, cols: u16, rows: u16) -> Result<(), PtyError> {
        let input = self.shared.input();
        let pty = input.pty.as_ref().ok_or(PtyError::Ended)?;
        pty.resize(size(cols, rows))
            .map_err(|error| PtyError::Resize(io_error(error)))
    }

    /// Whether a program reads a line without showing it, as for a password: echo is off while the line
    /// discipline is canonical. Editors and shells with line editing leave canonical mode and are not meant.
    pub fn echo_off(&self) -> bool {
        tcgetattr(&self.shared.master).is_ok_and(|terminal| {
            terminal.local_flags.contains(LocalFlags::ICANON)
                && !terminal.local_flags.contains(LocalFlags::ECHO)
        })
    }

    /// Ends the shell as a closed window does: a hang-up, and after a grace period a kill.
    pub fn hangup(&self) {
        self.shared.hangup.notify_one();
    }
}

impl Drop for PtyHandle {
    fn drop(&mut self) {
        self.hangup();
    }
}

impl fmt::Debug for PtyHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let input = self.shared.input();
        write!(
            f,
            "PtyHandle({} bytes taken, {} wait)",
            input.taken,
            input.queue.len()
        )
    }
}

/// Variables that tell programs of a terminal other than ours, or that hold our secrets.
const REMOVED: [&str; 14] = [
    "TMUX",
    "TMUX_PANE",
    "STY",
    "COLUMNS",
    "LINES",
    "TERM_PROGRAM",
    "TERM_PROGRAM_VERSION",
    "VTE_VERSION",
    "KITTY_WINDOW_ID",
    "WEZTERM_PANE",
    "WT_SESSION",
    "TERMCAP",
    "COLLAB_P2P_TICKET",
    "COLLAB_P2P_PASSWORD",
];

fn command(spec: PtySpec) -> Result<Command, PtyError> {
    let (program, args) = spec.argv.split_first().ok_or(PtyError::NoCommand)?;
    let mut command = Command::new(program).args(args);
    if let Some(cwd) = spec.cwd {
        command = command.current_dir(cwd);
    }
    for (name, value) in spec.env {
        command = match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command = REMOVED.into_iter().fold(command, Command::env_remove);
    Ok(as_after_log_in(
        command
            .env("TERM", "xterm-256color")
            .env("COLORTERM", "truecolor"),
    ))
}

#[expect(
    unsafe_code,
    reason = "signals and files can be set right between fork and exec only, which has no safe form"
)]
fn as_after_log_in(command: Command) -> Command {
    // SAFETY: between fork and exec only async-signal-safe calls are sound. These make sigaction, sigprocmask,
    // close_range and fcntl calls only; they take no lock and no memory.
    unsafe {
        command.pre_exec(|| {
            only_the_terminal();
            default_signals()
        })
    }
}

/// Files that this process was started with and never knew of go no further than the terminal's three: a shell must
/// not find a pipe or a secret of whoever started us, nor hold them open. They are closed by the exec, since what
/// tells of its failure is among them.
#[expect(
    unsafe_code,
    reason = "files that nobody here owns are known by their numbers only"
)]
fn only_the_terminal() {
    /// Where the system cannot close a range, so many numbers are looked at.
    const NUMBERS: std::ffi::c_int = 4_096;
    #[cfg(target_os = "linux")]
    {
        // SAFETY: the call marks files of this process, which is about to be another program, and touches no memory.
        let marked = unsafe {
            nix::libc::syscall(
                nix::libc::SYS_close_range,
                3_u32,
                u32::MAX,
                nix::libc::CLOSE_RANGE_CLOEXEC,
            )
        };
        if marked == 0 {
            return;
        }
    }
    for number in 3..NUMBERS {
        // SAFETY: as above; a number without a file is answered with an error that changes nothing.
        unsafe { nix::libc::fcntl(number, nix::libc::F_SETFD, nix::libc::FD_CLOEXEC) };
    }
}

/// Signals without names, on systems that have them.
const REAL_TIME: std::ops::RangeInclusive<std::ffi::c_int> = 32..=64;

/// Undoes what this process, or whoever started it, ignored or blocked: otherwise `^C` would be dead in a shell
/// that was shared from a script or with `nohup`.
#[expect(
    unsafe_code,
    reason = "setting a disposition is unsafe for the handlers it may install"
)]
fn default_signals() -> io::Result<()> {
    for signal in Signal::iterator() {
        if !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP) {
            // SAFETY: the default disposition installs no handler.
            unsafe { signal::signal(signal, SigHandler::SigDfl) }?;
        }
    }
    for number in REAL_TIME {
        // SAFETY: as above; the few that belong to the C library are refused and stay as they are.
        unsafe { nix::libc::signal(number, nix::libc::SIG_DFL) };
    }
    Ok(SigSet::empty().thread_set_mask()?)
}

fn size(cols: u16, rows: u16) -> Size {
    let (cols, rows) = clamp_size(cols, rows);
    Size::new(rows, cols)
}

fn io_error(error: pty_process::Error) -> io::Error {
    match error {
        pty_process::Error::Io(error) => error,
        pty_process::Error::Rustix(error) => error.into(),
        other @ (pty_process::Error::TokioAsyncFd(_) | pty_process::Error::Unsplit(..)) => {
            io::Error::other(other.to_string())
        }
    }
}

/// What the handle and the tasks share.
struct Shared {
    input: Mutex<Input>,
    /// The terminal's master side, to ask it things.
    master: OwnedFd,
    hangup: Notify,
    /// The task that watches the shell has panicked.
    failed: AtomicBool,
}

impl Shared {
    fn input(&self) -> MutexGuard<'_, Input> {
        self.input.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the writing task; what waits is lost.
    fn close_input(&self) {
        let mut input = self.input();
        input.pty = None;
        input.queue.clear();
        input.waker.take().into_iter().for_each(Waker::wake);
    }
}

/// Input on its way. Bytes leave the queue in the same step in which the terminal takes them, so that what is
/// known to be dropped was never taken.
struct Input {
    pty: Option<OwnedWritePty>,
    queue: VecDeque<u8>,
    taken: u64,
    waker: Option<Waker>,
}

impl Input {
    /// Writes what the terminal takes now: ready with the new total, or with nothing once all is over.
    fn poll_taken(&mut self, context: &mut Context<'_>) -> Poll<Option<u64>> {
        let Some(pty) = &mut self.pty else {
            return Poll::Ready(None);
        };
        let (front, _) = self.queue.as_slices();
        if front.is_empty() {
            self.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        match Pin::new(pty).poll_write(context, front) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(count @ 1..)) => {
                self.queue.drain(..count.min(self.queue.len()));
                self.taken = self
                    .taken
                    .saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
                Poll::Ready(Some(self.taken))
            }
            Poll::Ready(Ok(0) | Err(_)) => {
                self.pty = None;
                self.queue.clear();
                Poll::Ready(None)
            }
        }
    }
}

async fn write(shared: Arc<Shared>, events: mpsc::Sender<PtyEvent>) {
    while let Some(total) = poll_fn(|context| shared.input().poll_taken(context)).await {
        if events.send(PtyEvent::Written(total)).await.is_err() {
            return;
        }
    }
}

/// The reading side.
struct Output {
    pty: OwnedReadPty,
    buffer: Vec<u8>,
}

impl Output {
    /// Waits for output, then takes what is there without waiting again. Nothing at the end. Cancelling it loses
    /// nothing, since it waits only before it has read.
    async fn piece(&mut self) -> Option<Vec<u8>> {
        let mut filled = self
            .pty
            .read(&mut self.buffer)
            .await
            .ok()
            .filter(|count| *count > 0)?;
        while let Some(rest) = self
            .buffer
            .get_mut(filled..)
            .filter(|rest| !rest.is_empty())
        {
            match self.pty.read(rest).now_or_never() {
                Some(Ok(count @ 1..)) => filled += count,
                Some(Ok(0) | Err(_)) | None => break,
            }
        }
        self.buffer.get(..filled).map(<[u8]>::to_vec)
    }
}

/// The task that reads output and watches the shell.
struct Watch {
    output: Output,
    child: Child,
    shared: Arc<Shared>,
    events: mpsc::Sender<PtyEvent>,
    /// Runs from the hang-up to the kill.
    kill: Option<Pin<Box<Sleep>>>,
}

impl Drop for Watch {
    /// A task that is cut off, by a fault or the end of the program, leaves no shell without an owner behind it.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.failed.store(true, Ordering::Release);
        }
        self.shared.close_input();
        if self.child.id().is_some() {
            self.signal(&[Signal::SIGHUP, Signal::SIGCONT]);
        }
    }
}

enum Happening {
    Printed(Vec<u8>),
    OutputOver,
    Handed,
    ReceiverGone,
    Hangup,
    GraceOver,
    Ended(i32),
}

impl Watch {
    async fn run(mut self) {
        let status = self.until_end().await;
        let taken = self.shared.input().taken;
        self.shared.close_input();
        self.drain().await;
        // The writing task may not have told yet what the terminal took last; after the end nobody asks.
        if taken > 0 {
            drop(self.events.send(PtyEvent::Written(taken)).await);
        }
        if self.events.send(PtyEvent::Exited { status }).await.is_err() {
            tracing::debug!(status, "a shell ended that nobody watched");
        }
    }

    /// Serves the shell until it ends. A piece that nobody takes stops reading, nothing else.
    async fn until_end(&mut self) -> i32 {
        let (mut waiting, mut over, mut gone) = (None, false, false);
        loop {
            let reading = waiting.is_none() && !over;
            match self.next(&mut waiting, reading, gone).await {
                Happening::Printed(bytes) if !gone => waiting = Some(bytes),
                Happening::Printed(_) | Happening::Handed => {}
                Happening::OutputOver => over = true,
                Happening::ReceiverGone => {
                    gone = true;
                    waiting = None;
                    self.shared.hangup.notify_one();
                }
                Happening::Hangup if self.kill.is_none() => {
                    self.signal(&[Signal::SIGHUP, Signal::SIGCONT]);
                    self.kill = Some(Box::pin(sleep(Duration::from_millis(PTY_HANGUP_GRACE_MS))));
                }
                Happening::Hangup => {}
                Happening::GraceOver => {
                    self.signal(&[Signal::SIGKILL]);
                    self.kill = Some(Box::pin(sleep(Duration::from_millis(PTY_HANGUP_GRACE_MS))));
                }
                Happening::Ended(status) => {
                    self.hand_over(waiting).await;
                    return status;
                }
            }
        }
    }

    async fn next(
        &mut self,
        waiting: &mut Option<Vec<u8>>,
        reading: bool,
        gone: bool,
    ) -> Happening {
        let Self {
            output,
            child,
            shared,
            events,
            kill,
        } = self;
        let grace = async {
            match kill {
                Some(kill) => kill.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            permit = events.reserve(), if waiting.is_some() => match permit {
                Ok(permit) => {
                    if let Some(bytes) = waiting.take() {
                        permit.send(PtyEvent::Output(bytes));
                    }
                    Happening::Handed
                }
                Err(_) => Happening::ReceiverGone,
            },
            piece = output.piece(), if reading => piece.map_or(Happening::OutputOver, Happening::Printed),
            () = events.closed(), if !gone => Happening::ReceiverGone,
            () = shared.hangup.notified() => Happening::Hangup,
            () = grace => Happening::GraceOver,
            ended = child.wait() => Happening::Ended(status(ended)),
        }
    }

    async fn hand_over(&self, piece: Option<Vec<u8>>) {
        if let Some(bytes) = piece
            && self.events.send(PtyEvent::Output(bytes)).await.is_err()
        {
            tracing::debug!("nobody takes the last output of a shell");
        }
    }

    /// Takes what the shell left in the terminal. Another process may hold the terminal open and go on printing,
    /// so waiting and reading are both bounded.
    async fn drain(&mut self) {
        const WAITS: u32 = 5;
        let mut waits = 0;
        for _ in 0..PTY_DRAIN_READS_MAX {
            match timeout(
                Duration::from_millis(PTY_DRAIN_MS) / WAITS,
                self.output.piece(),
            )
            .await
            {
                Ok(Some(bytes)) => self.hand_over(Some(bytes)).await,
                Ok(None) => return,
                Err(_) => waits += 1,
            }
            if waits == WAITS {
                return;
            }
        }
    }

    /// Signals the shell's own process group and the one in the terminal's foreground.
    fn signal(&self, signals: &[Signal]) {
        let shell = self
            .child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .map(Pid::from_raw);
        let front = tcgetpgrp(&self.shared.master)
            .ok()
            .filter(|front| Some(*front) != shell);
        for group in shell
            .into_iter()
            .chain(front)
            .filter(|group| group.as_raw() > 1)
        {
            for signal in signals {
                if let Err(error) = killpg(group, *signal) {
                    tracing::debug!(%error, %signal, "a process group was gone already");
                }
            }
        }
    }
}

/// As a shell's `$?`.
fn status(ended: io::Result<ExitStatus>) -> i32 {
    const UNKNOWN: i32 = 1;
    ended.map_or(UNKNOWN, |status| {
        status
            .code()
            .or_else(|| status.signal().map(|signal| 128 + signal))
            .unwrap_or(UNKNOWN)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    /// A shell under test with all it said so far.
    struct Shell {
        handle: PtyHandle,
        events: mpsc::Receiver<PtyEvent>,
        output: String,
        written: u64,
    }

    impl Shell {
        fn run(script: &str) -> Self {
            Self::start(PtySpec {
                argv: ["sh", "-c", script].map(OsString::from).into(),
                cols: 80,
                rows: 24,
                ..PtySpec::default()
            })
        }

        fn start(spec: PtySpec) -> Self {
            let (handle, events) = Pty::spawn(spec).unwrap();
            Self {
                handle,
                events,
                output: String::new(),
                written: 0,
            }
        }

        /// Takes one event; the status once the shell has ended.
        async fn step(&mut self) -> Option<i32> {
            match timeout(SOON, self.events.recv())
                .await
                .expect("in time")
                .expect("an event")
            {
                PtyEvent::Output(bytes) => self.output.push_str(&String::from_utf8_lossy(&bytes)),
                PtyEvent::Written(total) => self.written = total,
                PtyEvent::Exited { status } => return Some(status),
            }
            None
        }

        async fn until(&mut self, text: &str) {
            while !self.output.contains(text) {
                assert_eq!(self.step().await, None, "ended with {:?}", self.output);
            }
        }

        async fn end(&mut self) -> i32 {
            loop {
                if let Some(status) = self.step().await {
                    return status;
                }
            }
        }
    }

    #[tokio::test]
    async fn the_exit_status_comes_after_the_last_output() {
        let mut shell = Shell::run("printf hello; exit 7");

        assert_eq!(shell.end().await, 7);
        assert_eq!(shell.output, "hello");
        assert_eq!(shell.events.recv().await, None);
        assert!(matches!(shell.handle.write(b"x"), Err(PtyError::Ended)));
    }

    #[tokio::test]
    async fn death_by_a_signal_is_128_and_its_number() {
        assert_eq!(Shell::run("kill -TERM $$; sleep 20").end().await, 143);
    }

    #[tokio::test]
    async fn input_reaches_the_shell_and_is_acknowledged() {
        let mut shell = Shell::run("read line; echo \"got $line\"");

        shell.handle.write(b"some").unwrap();
        shell.handle.write(b"thing\n").unwrap();

        assert_eq!(shell.end().await, 0);
        assert_eq!(shell.output, "something\r\ngot something\r\n");
        assert_eq!(shell.written, 10);
    }

    #[tokio::test]
    #[expect(
        unsafe_code,
        reason = "the test ignores a signal to see that the shell does not"
    )]
    async fn ctrl_c_works_though_this_process_ignores_interrupts() {
        // SAFETY: ignoring installs no handler; no other test depends on this signal.
        unsafe { signal::signal(Signal::SIGINT, SigHandler::SigIgn) }.unwrap();
        let mut shell = Shell::run("echo ready; exec sleep 20");
        shell.until("ready").await;

        // A shell may lose one that comes just while it starts a program, so the key is pressed again.
        let mut status = None;
        for _ in 0..10 {
            shell.handle.write(b"\x03").unwrap();
            status = timeout(Duration::from_millis(500), shell.end()).await.ok();
            if status.is_some() {
                break;
            }
        }

        assert_eq!(status, Some(130));
    }

    #[tokio::test]
    async fn a_grandchild_that_keeps_the_terminal_open_holds_nothing_up() {
        let mut shell = Shell::run("trap '' HUP; setsid sleep 30 & echo $!; printf bye; exit 3");

        let ended = shell.end().await;

        assert_eq!((ended, shell.output.ends_with("bye")), (3, true));
        // Each step is waited for less long than the grandchild lives.
        let pid = shell.output.lines().next().unwrap().parse().unwrap();
        // It is ours to end; it may be gone.
        let _gone = signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
    }

    #[test]
    fn a_shell_whose_tasks_are_cut_off_is_hung_up() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (handle, pid) = runtime.block_on(async {
            let mut shell = Shell::run("echo $$; exec sleep 30");
            shell.until("\n").await;
            let pid: i32 = shell.output.trim().parse().unwrap();
            // The terminal stays open, as while the program goes on.
            (shell.handle, Pid::from_raw(pid))
        });

        drop(runtime);

        let ended = (0..400).any(|_| {
            std::thread::sleep(Duration::from_millis(25));
            let ended = nix::sys::wait::waitpid(pid, Some(nix::sys::wait::WaitPidFlag::WNOHANG));
            ended != Ok(nix::sys::wait::WaitStatus::StillAlive)
        });
        assert!(ended);
        drop(handle);
    }

    #[tokio::test]
    async fn the_shell_sees_its_size_and_a_resize() {
        let mut shell = Shell::run("stty size; read line; stty size");
        shell.until("24 80").await;

        shell.handle.resize(101, 33).unwrap();
        shell.handle.write(b"\n").unwrap();

        shell.end().await;
        assert!(shell.output.contains("33 101"), "{:?}", shell.output);
    }

    #[tokio::test]
    async fn output_before_the_end_arrives_whole_at_a_slow_receiver() {
        let mut shell = Shell::run("head -c 131072 /dev/zero | tr '\\0' x");
        sleep(Duration::from_millis(700)).await;

        assert_eq!(shell.end().await, 0);
        assert_eq!(shell.output.len(), 131_072);
    }

    #[tokio::test]
    async fn a_password_prompt_is_told_from_other_reading() {
        let mut prompt = Shell::run("stty -echo; echo ready; read line");
        prompt.until("ready").await;
        assert!(prompt.handle.echo_off());

        let mut editor = Shell::run("stty -echo -icanon; echo ready; read line");
        editor.until("ready").await;
        assert!(!editor.handle.echo_off());

        let mut plain = Shell::run("echo ready; read line");
        plain.until("ready").await;
        assert!(!plain.handle.echo_off());
    }

    #[tokio::test]
    async fn discarded_input_never_reaches_the_shell_and_is_counted() {
        let mut shell = Shell::run("stty raw -echo; echo ready; sleep 1; cat | tr -dc a | wc -c");
        shell.until("ready").await;
        shell.handle.write(&vec![b'a'; 200_000]).unwrap();
        sleep(Duration::from_millis(300)).await;

        let Discarded { taken, dropped } = shell.handle.discard();
        assert_eq!(taken + dropped as u64, 200_000);
        assert!(dropped > 0 && taken > 0);
        assert!(matches!(
            shell.handle.write(&vec![b'a'; PTY_INPUT_BYTES_MAX + 1]),
            Err(PtyError::InputFull)
        ));

        shell.handle.hangup();
        shell.end().await;
        assert_eq!(shell.written, taken);
    }

    #[tokio::test]
    async fn a_shell_that_ignores_the_hangup_is_killed() {
        let mut shell = Shell::run("trap '' HUP; echo ready; while :; do sleep 1; done");
        shell.until("ready").await;

        shell.handle.hangup();

        assert_eq!(shell.end().await, 128 + 9);
    }

    #[tokio::test]
    async fn a_hangup_is_heard_though_nobody_takes_the_output() {
        let mut shell = Shell::run("exec yes");
        shell.until("y").await;
        sleep(Duration::from_millis(200)).await;

        shell.handle.hangup();

        assert_eq!(shell.end().await, 128 + 1);
    }

    #[tokio::test]
    async fn the_environment_is_that_of_a_terminal_of_our_own() {
        let set = |name: &str, value: &str| (name.into(), Some(value.into()));
        let mut shell = Shell::start(PtySpec {
            argv: [
                "sh",
                "-c",
                "echo $TERM $COLORTERM [$TMUX$STY$COLLAB_P2P_TICKET] $MINE; pwd",
            ]
            .map(OsString::from)
            .into(),
            cwd: Some("/".into()),
            env: vec![
                set("TMUX", "a"),
                set("STY", "b"),
                set("COLLAB_P2P_TICKET", "secret"),
                set("TERM", "dumb"),
                set("MINE", "kept"),
            ],
            ..PtySpec::default()
        });

        shell.end().await;

        assert_eq!(shell.output, "xterm-256color truecolor [] kept\r\n/\r\n");
    }

    #[tokio::test]
    async fn what_cannot_start_says_why() {
        let spec = |argv: &[&str]| PtySpec {
            argv: argv.iter().map(OsString::from).collect(),
            ..PtySpec::default()
        };

        assert!(matches!(Pty::spawn(spec(&[])), Err(PtyError::NoCommand)));
        let error = Pty::spawn(spec(&["/no/such/shell"]))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("/no/such/shell") && error.contains("No such file"),
            "{error}"
        );
    }
}
