//! People in panes of tmux, each with a shell of their own: keys in, the pane as text out.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Machine, Ran, SOON, User, eventually, finish, program};

/// A tmux server for one person, with one pane.
pub(crate) struct Pane {
    pub(crate) user: User,
    socket: String,
    server: Option<Pid>,
}

impl Pane {
    /// A shell in a pane of this size, prompt `$ `.
    pub(crate) fn new(machine: &Machine, name: &str, (cols, rows): (u16, u16)) -> Self {
        let user = machine.user(name);
        let socket = user.home().join("tmux").display().to_string();
        let settings = user.home().join("tmux.conf");
        let text = "set -g status off\nset -g escape-time 0\n\
                    set -g default-terminal tmux-256color\n";
        std::fs::write(&settings, text).unwrap();
        let mut pane = Self {
            user,
            socket,
            server: None,
        };
        let size = [cols.to_string(), rows.to_string()];
        let config = settings.display().to_string();
        pane.tmux(&[
            "-f",
            &config,
            "new-session",
            "-d",
            "-s",
            "pane",
            "-x",
            &size[0],
            "-y",
            &size[1],
            "sh",
        ]);
        let pid = pane.tmux(&["display-message", "-p", "#{pid}"]);
        pane.server = Some(Pid::from_raw(pid.trim().parse().unwrap()));
        pane.shows("$");
        pane
    }

    /// What someone types, letter by letter.
    pub(crate) fn types(&self, keys: &str) {
        self.tmux(&["send-keys", "-t", "pane", "-l", keys]);
    }

    /// Keys by their names in tmux.
    pub(crate) fn presses(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys", "-t", "pane"], keys].concat());
    }

    /// The prefix, then a key.
    pub(crate) fn commands(&self, key: &str) {
        self.presses(&["C-]"]);
        self.types(key);
    }

    /// Runs the program in the pane's shell.
    pub(crate) fn starts(&self, words: &str) {
        self.types(&format!("{} {words}\r", program().display()));
    }

    /// A line for the pane's shell.
    pub(crate) fn runs(&self, line: &str) {
        self.types(&format!("{line}\r"));
    }

    /// Another size of the window.
    pub(crate) fn becomes(&self, (cols, rows): (u16, u16)) {
        let size = [cols.to_string(), rows.to_string()];
        self.tmux(&[
            "resize-window",
            "-t",
            "pane",
            "-x",
            &size[0],
            "-y",
            &size[1],
        ]);
    }

    /// The pane's rows.
    pub(crate) fn rows(&self) -> Vec<String> {
        let text = self.tmux(&["capture-pane", "-t", "pane", "-p"]);
        text.lines().map(|row| row.trim_end().to_owned()).collect()
    }

    /// Whether the alternate screen is on and the cursor is shown.
    pub(crate) fn state(&self) -> (bool, bool) {
        let text = self.tmux(&[
            "display-message",
            "-t",
            "pane",
            "-p",
            "#{alternate_on}#{cursor_flag}",
        ]);
        (text.starts_with('1'), text.trim_end().ends_with('1'))
    }

    #[track_caller]
    pub(crate) fn shows(&self, text: &str) {
        self.shows_within(text, SOON);
    }

    #[track_caller]
    pub(crate) fn shows_within(&self, text: &str, within: Duration) {
        eventually(
            &format!("{}'s pane shows {text:?}", self.user.name),
            within,
            || {
                let rows = self.rows().join("\n");
                rows.contains(text).then_some(()).ok_or(rows)
            },
        );
    }

    #[track_caller]
    pub(crate) fn hides(&self, text: &str) {
        eventually(
            &format!("{}'s pane hides {text:?}", self.user.name),
            SOON,
            || {
                let rows = self.rows().join("\n");
                (!rows.contains(text)).then_some(()).ok_or(rows)
            },
        );
    }

    /// Waits until the pane without its status row is row by row what `screen` says.
    #[track_caller]
    pub(crate) fn equals_its_screen(&self) {
        let what = format!("{}'s pane equals its screen", self.user.name);
        eventually(&what, SOON, || {
            let screen = self.user.screen();
            let screen: Vec<&str> = screen.lines().collect();
            let rows = self.rows();
            let shown = rows.get(..screen.len()).unwrap_or_default();
            let differs = screen.iter().zip(shown).find(|(a, b)| *a != b);
            match differs {
                None if shown.len() == screen.len() => Ok(()),
                other => Err(format!(
                    "{other:?} of {} and {} rows",
                    screen.len(),
                    rows.len()
                )),
            }
        });
    }

    /// Asks its server something.
    pub(crate) fn tmux(&self, args: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command
            .args(["-u", "-S", &self.socket])
            .args(args)
            .env_clear()
            .envs(self.user.env())
            .current_dir(self.user.home());
        let Ran { code, out, err } = finish(command, b"");
        assert_eq!(code, 0, "tmux {args:?}: {out}{err}");
        out
    }
}

impl Drop for Pane {
    fn drop(&mut self) {
        // By its number: the socket may be gone already. Everything in the pane gets SIGHUP.
        let Some(server) = self.server else { return };
        let _ended_already = kill(server, Signal::SIGTERM);
        for _ in 0..100 {
            if kill(server, None).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ended_already = kill(server, Signal::SIGKILL);
    }
}

/// The ticket that a host wrote into its folder.
#[track_caller]
pub(crate) fn ticket_of(host: &Pane) -> String {
    let file = host.user.home().join("ticket");
    eventually("the ticket is there", SOON, || {
        let ticket = std::fs::read_to_string(&file).unwrap_or_default();
        let whole = ticket.ends_with('\n');
        whole
            .then(|| ticket.trim_end().to_owned())
            .ok_or_else(|| host.rows().join("\n"))
    })
}
