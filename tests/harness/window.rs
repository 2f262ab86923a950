//! A program in a terminal window: a real PTY, and an emulator beside it that shows what a person would see.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Child;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pty_process::Size;
use pty_process::blocking::{self, Pty};

use super::{SOON, User, code, eventually, program};

/// A window with a program in it.
pub(crate) struct Window {
    child: Child,
    pty: Arc<Pty>,
    seen: Arc<Mutex<Seen>>,
}

struct Seen {
    emulator: vt100::Parser,
    raw: Vec<u8>,
}

impl Window {
    /// Runs the program with these arguments in a window of this user's.
    pub(crate) fn open(user: &User, args: &[&str], (cols, rows): (u16, u16)) -> Self {
        Self::run(user, program().to_str().unwrap(), args, (cols, rows))
    }

    /// Runs any program.
    pub(crate) fn run(user: &User, what: &str, args: &[&str], (cols, rows): (u16, u16)) -> Self {
        let (pty, pts) = blocking::open().unwrap();
        pty.resize(Size::new(rows, cols)).unwrap();
        let child = blocking::Command::new(what)
            .args(args)
            .env_clear()
            .envs(user.env())
            .current_dir(user.home())
            .spawn(pts)
            .unwrap();
        let pty = Arc::new(pty);
        let seen = Arc::new(Mutex::new(Seen {
            emulator: vt100::Parser::new(cells(rows), cells(cols), 0),
            raw: Vec::new(),
        }));
        let (from, into) = (Arc::clone(&pty), Arc::clone(&seen));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // A PTY whose program has ended answers with an error.
            while let Ok(count @ 1..) = (&*from).read(&mut bytes) {
                let mut seen = into.lock().unwrap_or_else(PoisonError::into_inner);
                seen.raw.extend_from_slice(&bytes[..count]);
                let (rows, cols) = seen.emulator.screen().size();
                let emulator = &mut seen.emulator;
                let read = catch_unwind(AssertUnwindSafe(|| emulator.process(&bytes[..count])));
                // In a window of very few columns the witness may fail where terminals do not.
                if read.is_err() {
                    seen.emulator = vt100::Parser::new(rows, cols, 0);
                }
            }
        });
        Self { child, pty, seen }
    }

    /// Presses keys.
    pub(crate) fn types(&self, keys: &str) {
        (&*self.pty).write_all(keys.as_bytes()).unwrap();
    }

    /// Drags the window to another size.
    pub(crate) fn becomes(&self, (cols, rows): (u16, u16)) {
        // Nothing is read between the two: what is painted for the new size meets a window of that size.
        let mut seen = self.seen();
        let screen = seen.emulator.screen_mut();
        screen.set_size(cells(rows), cells(cols));
        self.pty.resize(Size::new(rows, cols)).unwrap();
    }

    /// The rows that the window shows.
    pub(crate) fn rows(&self) -> Vec<String> {
        let seen = self.seen();
        let screen = seen.emulator.screen();
        let (_, cols) = screen.size();
        screen
            .rows(0, cols.get())
            .map(|row| row.trim_end().to_owned())
            .collect()
    }

    /// Everything that was ever written into the window.
    pub(crate) fn written(&self) -> String {
        String::from_utf8_lossy(&self.seen().raw).into_owned()
    }

    /// Whether the alternate screen is shown, and whether the cursor is hidden.
    pub(crate) fn state(&self) -> (bool, bool) {
        let seen = self.seen();
        let screen = seen.emulator.screen();
        (screen.alternate_screen(), screen.hide_cursor())
    }

    /// What the window is left with that a shell does not expect: modes that the program has set and not taken back,
    /// as its sequences and the emulator tell.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let seen = self.seen();
        let mut left = private_modes(&seen.raw);
        // Wrapping and a visible cursor are what a shell expects.
        for (mode, usual) in [("7", true), ("25", true)] {
            left.insert(
                mode.to_owned(),
                left.get(mode).is_some_and(|on| *on != usual),
            );
        }
        let mut left: Vec<String> = left
            .into_iter()
            .filter_map(|(mode, on)| on.then(|| format!("mode {mode}")))
            .collect();
        let screen = seen.emulator.screen();
        for (what, is) in [
            ("the alternate screen", screen.alternate_screen()),
            ("a hidden cursor", screen.hide_cursor()),
            ("marked pastes", screen.bracketed_paste()),
            ("application arrows", screen.application_cursor()),
            ("an application keypad", screen.application_keypad()),
            ("inversion", screen.inverse()),
            ("weight", screen.bold() || screen.dim()),
            ("underlines", screen.underline()),
            ("a colour", screen.fgcolor() != vt100::Color::Default),
            ("a ground", screen.bgcolor() != vt100::Color::Default),
            (
                "the mouse",
                screen.mouse_protocol_mode() != vt100::MouseProtocolMode::None,
            ),
        ] {
            if is {
                left.push(what.to_owned());
            }
        }
        left
    }

    /// Waits until the window shows this.
    #[track_caller]
    pub(crate) fn shows(&self, text: &str) {
        self.shows_within(text, SOON);
    }

    /// Waits until the window shows this, for so long.
    #[track_caller]
    pub(crate) fn shows_within(&self, text: &str, within: Duration) {
        eventually(&format!("the window shows {text:?}"), within, || {
            let rows = self.rows().join("\n");
            rows.contains(text).then_some(()).ok_or(rows)
        });
    }

    /// Waits until the window shows this no longer.
    #[track_caller]
    pub(crate) fn hides(&self, text: &str) {
        eventually(
            &format!("the window shows {text:?} no longer"),
            SOON,
            || {
                let rows = self.rows().join("\n");
                (!rows.contains(text)).then_some(()).ok_or(rows)
            },
        );
    }

    /// Sends a signal to the program.
    pub(crate) fn gets(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, signal).unwrap();
    }

    /// Waits for the program's end; its exit code.
    #[track_caller]
    pub(crate) fn ends(&mut self) -> i32 {
        eventually("the program in the window ends", SOON, || {
            let status = self.child.try_wait().unwrap();
            status.map(code).ok_or_else(|| self.rows().join("\n"))
        })
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Each private mode that was ever set or reset, and whether it is set in the end.
fn private_modes(raw: &[u8]) -> BTreeMap<String, bool> {
    let text = String::from_utf8_lossy(raw);
    let mut modes = BTreeMap::new();
    for after in text.split("\x1b[?").skip(1) {
        let end = after.find(|char: char| !char.is_ascii_digit() && char != ';');
        if let Some((numbers, rest)) = end.map(|end| after.split_at(end)) {
            let on = rest.starts_with('h');
            if on || rest.starts_with('l') {
                let each = numbers.split(';').map(|number| (number.to_owned(), on));
                modes.extend(each);
            }
        }
    }
    modes
}

fn cells(count: u16) -> NonZeroU16 {
    // A window that is not mapped has no cells, and one that says to be huge has not.
    NonZeroU16::new(count.min(500)).unwrap_or(NonZeroU16::MIN)
}

impl Drop for Window {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
