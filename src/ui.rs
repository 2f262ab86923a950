//! The full-screen terminal UI of hosts and viewers: the shared screen, one status row, and panes over it.
//!
//! It talks to the node through its [`Handle`] alone: commands in, views, screens and events out. Keys go from the
//! local terminal to the shell byte by byte; only the prefix is intercepted. Whatever others wrote (names, titles,
//! chat, cells) is inert before it is shown, and the local terminal is put back as it was on every way out.

mod app;
mod bell;
mod chat;
mod edit;
mod find;
mod help;
mod history;
mod keys;
mod layout;
mod news;
mod paint;
mod people;
mod prefix;
mod prompt;
mod run;
#[cfg(test)]
mod sample;
mod scene;
mod statusbar;
mod text;
mod theme;
mod tty;
mod viewport;
mod words;

use std::io;

use futures::stream::BoxStream;

pub use crate::ui::layout::Size;
pub use crate::ui::prefix::{Prefix, PrefixError};
pub use crate::ui::theme::caps;

use crate::engine::effect::StopReason;
use crate::engine::error::Code;
use crate::engine::ids::TerminalId;
use crate::engine::terminal::painter::{Caps, ColorDepth};
use crate::node::Handle;

/// How the UI behaves. The environment is the command line's to read.
#[derive(Debug, Clone)]
pub struct UiOptions {
    /// The terminal that runs here, if one does: it gets the window's size, and its person is the host.
    pub host: Option<TerminalId>,
    /// The hosted terminal keeps its size whatever the window has.
    pub fixed_size: bool,
    /// The person has joined just now: what was said before is no news.
    pub newcomer: bool,
    /// The key before a command of the program itself.
    pub prefix: Prefix,
    /// Lines that tell how others join: shown until the first one comes, then in the help.
    pub share_block: Option<Vec<String>>,
    /// Whether the frame around the screen has colours; the shared screen has its own in any case.
    pub colour: bool,
    /// What the local terminal can show, as [`caps`] finds it.
    pub caps: Caps,
    /// `TERM` of the local terminal.
    pub term: Option<String>,
    /// Typed text at which the UI panics, to see in the lab that the terminal is put back.
    #[cfg(feature = "lab")]
    pub panic_on: Option<String>,
}

impl Default for UiOptions {
    /// A viewer with the usual prefix, colours and palette.
    fn default() -> Self {
        Self {
            host: None,
            fixed_size: false,
            newcomer: false,
            prefix: Prefix::default(),
            share_block: None,
            colour: true,
            caps: Caps {
                colors: ColorDepth::Palette256,
                underlines: false,
            },
            term: None,
            #[cfg(feature = "lab")]
            panic_on: None,
        }
    }
}

/// How the UI ended. The local terminal is as it was before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UiEnd {
    /// The person detached: the node may go offline, its membership stays.
    Detached,
    /// The person ended the membership.
    Left,
    /// The node stopped by itself.
    Stopped(StopReason),
    /// A signal with this number asked the process to end, or the terminal is gone (SIGHUP).
    Signal(i32),
}

/// Why there is no UI.
#[derive(Debug, thiserror::Error)]
pub enum UiError {
    /// There is no terminal that can show a full screen.
    #[error("a full screen needs a terminal: {0}")]
    NoTerminal(String),
    /// The terminal failed.
    #[error("the terminal cannot be used: {0}")]
    Io(#[source] io::Error),
}

impl UiError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::NoTerminal(_) => Code::NoTerminal,
            Self::Io(_) => Code::Failure,
        }
    }
}

/// The size of the window of standard output, if it is a terminal; [`Size::of_shell`] is what a shell gets of it.
pub fn window() -> Option<Size> {
    tty::window()
}

/// Shows the session until the person or the node ends it, or a signal whose number comes by `ends`.
///
/// # Errors
/// [`UiError`] if there is no terminal for it, before anything is changed.
pub async fn run(
    handle: Handle,
    options: UiOptions,
    ends: BoxStream<'static, i32>,
) -> Result<UiEnd, UiError> {
    if options.term.as_deref() == Some("dumb") {
        return Err(UiError::NoTerminal("TERM is \"dumb\"".to_owned()));
    }
    tty::as_ui(run::run(handle, options, ends)).await
}
