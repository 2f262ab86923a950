//! The person's own terminal: bytes in, bytes out, and everything put back at the end.
//!
//! The terminal is opened anew by its name, so that its file can be made non-blocking without changing the one
//! that the parent shell uses. Only what [`Tty::enter`] set is put back, by whichever comes first: [`Tty::leave`],
//! the drop of the [`Tty`], or the panic hook; termios last.

use std::cell::Cell;
use std::fs::File;
use std::future::{Future, poll_fn};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::termios::{
    OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, ttyname,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::engine::limits::{SCREEN_COLS_MAX, SCREEN_ROWS_MAX};
use crate::ui::UiError;
use crate::ui::layout::Size;

/// Alternate screen, no cursor until the first picture, pastes marked.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l\x1b[?2004h\x1b[0m\x1b[2J";

/// The same for a terminal whose alternate screen was never left.
const RESUME: &[u8] = b"\x1b\\\x1b[?25l\x1b[?2004h\x1b[0m\x1b[2J";

/// Ends a string or sequence that may have been cut, then takes back each mode that this program sets while it
/// paints: synchronized update, application keys, pastes, wrapping, cursor, colours; last the alternate screen.
const LEAVE: &[u8] =
    b"\x1b\\\x1b[?2026l\x1b[?1l\x1b>\x1b[?2004l\x1b[?7h\x1b[0 q\x1b[?25h\x1b[0m\x1b[?1049l";

/// A terminal that takes nothing is given up after so long when it is to be put back.
const LEAVE_PATIENCE: Duration = Duration::from_millis(500);

/// More of a window is left as it is: twice as much as a shared screen can have.
const COLS_MAX: u16 = 2 * SCREEN_COLS_MAX;

/// The same for its rows.
const ROWS_MAX: u16 = 2 * SCREEN_ROWS_MAX;

/// Bytes taken from the terminal at once.
const READ_BYTES: usize = 4 * 1024;

/// What must be put back.
#[derive(Debug)]
struct Entered {
    input: OwnedFd,
    output: OwnedFd,
    before: Termios,
}

/// The one entered terminal of this process: the panic hook must find it.
static ENTERED: Mutex<Option<Entered>> = Mutex::new(None);

thread_local! {
    /// Whether this thread runs the UI just now.
    static IN_UI: Cell<bool> = const { Cell::new(false) };
}

/// The local terminal.
#[derive(Debug)]
pub(super) struct Tty {
    input: AsyncFd<File>,
    output: AsyncFd<File>,
    queued: Vec<u8>,
    written: usize,
}

impl Tty {
    /// Opens the terminal of standard output for pictures, and for keys that of standard input or, where that is
    /// none, the controlling one.
    pub(super) fn open() -> Result<Self, UiError> {
        let stdout = io::stdout();
        if !isatty(&stdout) {
            return Err(UiError::NoTerminal(
                "standard output is no terminal".to_owned(),
            ));
        }
        let stdin = io::stdin();
        let keys = if isatty(&stdin) {
            name_of(&stdin)
        } else {
            controlling()
        };
        Ok(Self {
            input: watched(open(&keys)?, Interest::READABLE)?,
            output: watched(open(&name_of(&stdout))?, Interest::WRITABLE)?,
            queued: Vec::new(),
            written: 0,
        })
    }

    /// The size of the window.
    pub(super) fn size(&self) -> Option<Size> {
        size_of(self.output.get_ref())
    }

    /// Takes the terminal over.
    pub(super) fn enter(&mut self) -> io::Result<()> {
        self.queued.clear();
        self.written = 0;
        let input = self.input.get_ref();
        let before = tcgetattr(input)?;
        let mut raw = before.clone();
        raw.make_raw();
        let entered = Entered {
            input: input.as_fd().try_clone_to_owned()?,
            output: self.output.get_ref().as_fd().try_clone_to_owned()?,
            before,
        };
        // Set first: should anything fail from here on, it is put back.
        *ENTERED.lock().unwrap_or_else(PoisonError::into_inner) = Some(entered);
        restore_on_panic();
        tcsetattr(input, OptionalActions::Now, &raw)?;
        self.queue(ENTER);
        Ok(())
    }

    /// Takes the terminal over again after the process was stopped from outside: the shell may have changed it.
    pub(super) fn resume(&mut self) -> io::Result<()> {
        let before = {
            let entered = ENTERED.lock().unwrap_or_else(PoisonError::into_inner);
            entered.as_ref().map(|entered| entered.before.clone())
        };
        let Some(mut raw) = before else {
            return self.enter();
        };
        raw.make_raw();
        tcsetattr(self.input.get_ref(), OptionalActions::Now, &raw)?;
        self.queued.clear();
        self.written = 0;
        self.queue(RESUME);
        Ok(())
    }

    /// Gives the terminal back as it was.
    pub(super) fn leave(&mut self) {
        self.queued.clear();
        self.written = 0;
        restore();
    }

    /// Waits for keys. No bytes: the terminal is gone.
    pub(super) async fn read(&self) -> Vec<u8> {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let reads = self
                .input
                .async_io(Interest::READABLE, |mut file| file.read(&mut buffer));
            match reads.await {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => {
                    buffer.truncate(read.unwrap_or(0));
                    return buffer;
                }
            }
        }
    }

    /// Appends to what is to be written.
    pub(super) fn queue(&mut self, bytes: &[u8]) {
        self.queued.extend_from_slice(bytes);
    }

    /// Whether everything is written: only then is it worth to make a new picture.
    pub(super) fn is_idle(&self) -> bool {
        self.queued.is_empty()
    }

    /// Writes what the terminal takes now, without waiting.
    pub(super) fn write_now(&mut self) {
        while let Some(rest) = self
            .queued
            .get(self.written..)
            .filter(|rest| !rest.is_empty())
        {
            match self
                .output
                .try_io(Interest::WRITABLE, |mut file| file.write(rest))
            {
                Ok(count) => self.written = self.written.saturating_add(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // A terminal that is gone is noticed where its keys are read.
                Err(_) => break,
            }
        }
        self.queued.clear();
        self.written = 0;
    }

    /// Waits until the terminal takes more.
    pub(super) async fn writable(&self) {
        if let Ok(mut guard) = self.output.writable().await {
            guard.retain_ready();
        }
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        restore();
    }
}

/// The size of the window of standard output.
pub(super) fn window() -> Option<Size> {
    size_of(&io::stdout())
}

fn size_of(fd: &impl AsFd) -> Option<Size> {
    let size = tcgetwinsize(fd).ok()?;
    painted(size.ws_col, size.ws_row)
}

/// What is painted of a window that has so many columns and rows as it says: nothing says so of a window that is not
/// mapped, and the other end of a line may say anything.
fn painted(cols: u16, rows: u16) -> Option<Size> {
    (cols > 0 && rows > 0).then_some(Size {
        cols: cols.min(COLS_MAX),
        rows: rows.min(ROWS_MAX),
    })
}

fn controlling() -> PathBuf {
    PathBuf::from("/dev/tty")
}

fn name_of(fd: &impl AsFd) -> PathBuf {
    match ttyname(fd, Vec::new()).map(|name| name.into_string()) {
        Ok(Ok(name)) => PathBuf::from(name),
        Ok(Err(_)) | Err(_) => controlling(),
    }
}

fn open(path: &PathBuf) -> Result<File, UiError> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .or_else(|_| rustix::fs::open(controlling(), flags, Mode::empty()))
        .map(File::from)
        .map_err(|error| UiError::NoTerminal(format!("cannot open {}: {error}", path.display())))
}

#[expect(
    unsafe_code,
    reason = "tokio cannot know that a file keeps its descriptor"
)]
fn watched(file: File, interest: Interest) -> Result<AsyncFd<File>, UiError> {
    // SAFETY: a `File` owns its descriptor, always names the same one, and keeps it open until it is dropped; the
    // `AsyncFd` owns the file and is never taken apart.
    let watched = unsafe { AsyncFd::register_with_interest(file, interest) };
    watched.map_err(|error| UiError::Io(error.into()))
}

/// Puts the terminal back if it is taken over; once, whoever comes first.
fn restore() {
    let entered = ENTERED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    if let Some(entered) = entered {
        write_patiently(&entered.output, LEAVE);
        // Nothing is left to be done where even this fails: the terminal is gone.
        let _gone = tcsetattr(&entered.input, OptionalActions::Now, &entered.before);
    }
}

fn write_patiently(fd: &OwnedFd, mut bytes: &[u8]) {
    let patience = Timespec {
        tv_sec: 0,
        tv_nsec: LEAVE_PATIENCE.subsec_nanos().into(),
    };
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(rustix::io::Errno::AGAIN) => {
                let mut fds = [PollFd::new(fd, PollFlags::OUT)];
                if !matches!(poll(&mut fds, Some(&patience)), Ok(1..)) {
                    return;
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// From now on a panic of the UI puts the terminal back before it is reported, and a panic elsewhere, which its
/// owner may contain, is only logged while the terminal is taken over: it must not write across the picture.
fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let entered = ENTERED
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_some();
            if entered && !IN_UI.get() {
                tracing::error!("{panic}");
                return;
            }
            restore();
            report(panic);
        }));
    });
}

/// Runs a future as the UI: a panic in it puts the terminal back.
pub(super) async fn as_ui<T>(ui: impl Future<Output = T>) -> T {
    let mut ui = std::pin::pin!(ui);
    poll_fn(|context| {
        let _mark = InUi::mark();
        ui.as_mut().poll(context)
    })
    .await
}

#[derive(Debug)]
struct InUi;

impl InUi {
    fn mark() -> Self {
        IN_UI.set(true);
        Self
    }
}

impl Drop for InUi {
    fn drop(&mut self) {
        IN_UI.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_window_that_says_to_be_huge_a_part_is_painted() {
        let size = |cols, rows| Some(Size { cols, rows });

        assert_eq!(painted(80, 24), size(80, 24));
        assert_eq!(painted(1, 1), size(1, 1));
        assert_eq!(painted(u16::MAX, u16::MAX), size(1_000, 600));
        assert_eq!(painted(0, 24), None);
        assert_eq!(painted(80, 0), None);
    }
}
