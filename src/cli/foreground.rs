//! What `share`, `join` and `resume` have in common: settings, the local API, the user interface or none, and
//! the end.

use std::io::IsTerminal;
use std::sync::Arc;
use std::task::Poll;

use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use crate::cli::error::CliError;
use crate::cli::nodes::folders;
use crate::cli::{ColourWhen, Context};
use crate::engine::address::Addr;
use crate::engine::command::{Ask, Command};
use crate::engine::effect::StopReason;
use crate::engine::error::Code;
use crate::engine::ids::{SessionId, TerminalId};
use crate::engine::terminal::painter::{Caps, ColorDepth};
use crate::gateway::events::Hub;
use crate::gateway::json::Time;
use crate::node::folder::Socket;
use crate::node::{Handle, Running, Settings};
use crate::ui::{self, UiEnd, UiOptions};

/// How the foreground ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Attached {
    /// By a signal.
    Signal(i32),
    /// The person detached, or left.
    Gone,
    /// The node stopped by itself.
    Stopped(StopReason),
}

/// What the user interface shows besides the session.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    /// The terminal that runs here.
    pub(crate) host: Option<TerminalId>,
    /// Whether its size is fixed.
    pub(crate) fixed: bool,
    /// Whether the person has joined just now.
    pub(crate) newcomer: bool,
    /// How others join.
    pub(crate) block: Option<Vec<String>>,
}

/// The local API while the node runs.
#[derive(Debug)]
pub(crate) struct Serving {
    _socket: Socket,
    task: JoinHandle<std::io::Result<()>>,
}

/// The settings of a node from flags and configuration.
pub(crate) fn settings(
    context: &Context,
    (listen, no_mdns, lan_only): (Vec<Addr>, bool, bool),
) -> Result<Settings, CliError> {
    #[cfg(feature = "lab")]
    crate::node::panic_on(context.env.panic_on.clone());
    let network = &context.config.file.network;
    let configured = network
        .listen
        .iter()
        .filter_map(|addr| addr.parse().ok())
        .collect();
    Ok(Settings {
        folders: folders(context)?,
        listen: if listen.is_empty() {
            configured
        } else {
            listen
        },
        mdns: network.mdns && !no_mdns,
        lan_only: network.lan_only || lan_only,
    })
}

/// The name to be known by: flag, environment, configuration, user.
pub(crate) fn name(context: &Context, flag: Option<&String>) -> Result<String, CliError> {
    let configured = Some(context.config.file.identity.name.clone()).filter(|n| !n.is_empty());
    let name = flag
        .cloned()
        .or_else(|| context.env.name.clone())
        .or(configured)
        .or_else(|| context.env.user.clone())
        .unwrap_or_else(|| "somebody".to_owned());
    let long = name.chars().count() > crate::engine::limits::NAME_CHARS_MAX;
    if name.trim().is_empty() || long || name.chars().any(char::is_control) {
        let message = "a name has 1 to 64 characters, none of them a control character";
        return Err(CliError::new(Code::Usage, message));
    }
    Ok(name)
}

/// The configuration's word for who is asked about.
pub(crate) fn ask_of(word: &str) -> Ask {
    match word {
        "always" => Ask::Always,
        "never" => Ask::Never,
        _ => Ask::Auto,
    }
}

/// Serves the local API on the node's socket.
pub(crate) fn serve(context: &Context, running: &Running) -> Result<Serving, CliError> {
    let folders = folders(context)?;
    let socket = folders
        .bind_socket(running.member)
        .map_err(|error| CliError::new(error.code(), error.to_string()))?;
    let listener = socket.listener().map_err(|error| {
        CliError::new(
            Code::StateUnwritable,
            format!("the socket cannot be used: {error}"),
        )
    })?;
    let started = Time(crate::node::clock::wall());
    let serving = crate::gateway::server::serve(listener, running.handle.clone(), folders, started);
    Ok(Serving {
        _socket: socket,
        task: tokio::spawn(serving),
    })
}

/// From now on a file that reaches its largest allowed size is an error like a full disk, not the end of the process.
/// What a shell is started with is reset on its way.
pub(crate) fn bear_full_files() {
    let too_large = SignalKind::from_raw(nix::sys::signal::Signal::SIGXFSZ as i32);
    // Where it cannot be had, the system's own way stands.
    drop(signal(too_large));
}

/// Signals that take a node offline. Who starts it with hang-ups ignored, as `nohup` does, means it to outlive the
/// window. A command listens once, before it begins: what comes while nobody asks is kept, but a second listener would
/// not hear it.
pub(crate) struct Signals(Vec<(i32, Signal)>);

impl Signals {
    pub(crate) fn new() -> Result<Self, CliError> {
        Self::listen().map_err(|error| CliError::new(Code::Failure, format!("no signals: {error}")))
    }

    fn listen() -> std::io::Result<Self> {
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::quit(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ];
        let signals = kinds
            .into_iter()
            .filter(|kind| *kind != SignalKind::hangup() || !is_ignored(*kind))
            .map(|kind| Ok((kind.as_raw_value(), signal(kind)?)));
        Ok(Self(signals.collect::<std::io::Result<_>>()?))
    }

    pub(crate) async fn next(&mut self) -> i32 {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut std::task::Context<'_>) -> Poll<i32> {
        for (number, signal) in &mut self.0 {
            if signal.poll_recv(context).is_ready() {
                return Poll::Ready(*number);
            }
        }
        Poll::Pending
    }

    /// One after the other, for the user interface.
    fn stream(mut self) -> BoxStream<'static, i32> {
        futures::stream::poll_fn(move |context| self.poll_next(context).map(Some)).boxed()
    }
}

/// Whether this process was started with a signal ignored.
#[expect(unsafe_code, reason = "asking for a disposition has no safe form")]
fn is_ignored(signal: SignalKind) -> bool {
    let mut now = std::mem::MaybeUninit::<nix::libc::sigaction>::zeroed();
    // SAFETY: without a new action the call only writes the present one, for which there is room.
    let asked =
        unsafe { nix::libc::sigaction(signal.as_raw_value(), std::ptr::null(), now.as_mut_ptr()) };
    // SAFETY: zeros are a valid value of it, and the call has at most replaced them by another.
    asked == 0 && unsafe { now.assume_init() }.sa_sigaction == nix::libc::SIG_IGN
}

/// Refuses a full screen inside the shell of the very session that it would show: a picture of itself without end.
pub(crate) fn not_a_mirror(context: &Context, session: SessionId) -> Result<(), CliError> {
    let mine = context.env.inside && context.env.session == Some(session.to_string());
    if !mine {
        return Ok(());
    }
    let message =
        "this shell is the shared terminal of that session, and would show itself without end";
    Err(CliError::new(Code::Nested, message)
        .with_help("watch it from another window; --headless and the verbs work inside it too"))
}

/// Serves without a user interface until a signal comes or the node stops. With `--json` events are printed.
pub(crate) async fn headless(
    context: &Context,
    handle: &Handle,
    signals: &mut Signals,
) -> Attached {
    // Nobody is attached here: the person is away until a verb acts.
    if !context.output.json {
        return tokio::select! {
            signal = signals.next() => Attached::Signal(signal),
            reason = handle.stopped() => Attached::Stopped(reason),
        };
    }
    tokio::select! {
        signal = signals.next() => Attached::Signal(signal),
        // Ends with the node, when its last words are printed.
        () = print_events(context, handle) => Attached::Stopped(handle.stopped().await),
    }
}

async fn print_events(context: &Context, handle: &Handle) {
    let session = handle.view().session.id;
    let hub = Arc::new(Hub::new(Time(crate::node::clock::wall()), session));
    let mut reader = hub.read(None);
    let collecting = hub.collect(handle.clone(), handle.events());
    let printing = async {
        while let Some(envelope) = reader.next().await {
            context
                .output
                .value(&serde_json::to_value(&*envelope).unwrap_or_default());
        }
    };
    tokio::join!(collecting, printing);
}

/// Checks that there is a terminal for a full screen, before anything is made or printed.
pub(crate) fn full_screen(context: &Context) -> Result<(), CliError> {
    let refused = |why: &str| {
        let message = format!("a full screen needs a terminal: {why}");
        Err(CliError::new(Code::NoTerminal, message))
    };
    if !std::io::stdout().is_terminal() {
        return refused("standard output is no terminal");
    }
    if context.env.term.as_deref() == Some("dumb") {
        return refused("TERM is \"dumb\"");
    }
    let keys = std::io::stdin().is_terminal() || std::fs::File::open("/dev/tty").is_ok();
    if keys {
        return Ok(());
    }
    refused("there is none to read keys from")
}

/// What the local terminal can show. `NO_COLOR` is about colours that programs add, so the shared screen keeps those
/// of the host; `--color never` takes them away as well.
fn caps(context: &Context) -> Caps {
    match context.global.color {
        ColourWhen::Never => Caps {
            colors: ColorDepth::Mono,
            underlines: false,
        },
        ColourWhen::Auto | ColourWhen::Always => ui::caps(
            context.env.term.as_deref(),
            context.env.colorterm.as_deref(),
        ),
    }
}

/// Shows the session full screen until the person or the node ends it.
pub(crate) async fn attached(
    context: &Context,
    handle: Handle,
    shown: Shown,
    signals: Signals,
) -> Result<Attached, CliError> {
    let prefix =
        context
            .config
            .file
            .terminal
            .prefix
            .parse()
            .map_err(|error: ui::PrefixError| {
                CliError::new(Code::ConfigBroken, format!("terminal.prefix: {error}"))
            })?;
    let options = UiOptions {
        host: shown.host,
        fixed_size: shown.fixed,
        newcomer: shown.newcomer,
        prefix,
        share_block: shown.block,
        colour: context.output.colour,
        caps: caps(context),
        term: context.env.term.clone(),
        #[cfg(feature = "lab")]
        panic_on: context.env.panic_on.clone(),
    };
    // A command that ended before there was anything to show.
    if let Some(reason) = handle.stopped().now_or_never() {
        return Ok(Attached::Stopped(reason));
    }
    match ui::run(handle, options, signals.stream()).await {
        Ok(UiEnd::Detached | UiEnd::Left) => Ok(Attached::Gone),
        Ok(UiEnd::Stopped(reason)) => Ok(Attached::Stopped(reason)),
        Ok(UiEnd::Signal(signal)) => Ok(Attached::Signal(signal)),
        Err(error) => Err(CliError::new(error.code(), error.to_string())),
    }
}

/// Takes the node offline if it still runs, and waits until its last words are out, or until the person asks again:
/// a disk or network that hangs must not hold the window.
pub(crate) async fn finish(
    running: Running,
    serving: Serving,
    attached: &Result<Attached, CliError>,
) -> StopReason {
    let runs = !matches!(attached, Ok(Attached::Stopped(_)));
    let again = async {
        match Signals::new() {
            Ok(mut signals) => signals.next().await,
            Err(_) => std::future::pending().await,
        }
    };
    let reason = unless_asked_again(wound_up(running, serving, runs), again).await;
    reason.unwrap_or(StopReason::Offline)
}

async fn wound_up(running: Running, serving: Serving, runs: bool) -> StopReason {
    if runs {
        // A node that has just stopped by itself needs no telling.
        drop(running.handle.command(Command::GoOffline).await);
    }
    let reason = running.stopped().await;
    let served = tokio::time::timeout(std::time::Duration::from_millis(1_500), serving.task).await;
    drop(served);
    reason
}

/// What the work comes to, or nothing if a signal comes before.
async fn unless_asked_again<T>(
    work: impl Future<Output = T>,
    again: impl Future<Output = i32>,
) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        signal = again => {
            tracing::warn!(signal, "the node was cut off while it went offline");
            None
        }
    }
}

/// The exit code for a node's end, and a sentence for the person.
pub(crate) fn exit_code(context: &Context, reason: &StopReason) -> Result<i32, CliError> {
    match reason {
        StopReason::Closed(status) => {
            let status = status
                .map(|status| format!(" with status {}", status.0))
                .unwrap_or_default();
            context
                .output
                .say(&format!("the session has ended{status}"));
            Ok(0)
        }
        StopReason::Left => {
            context.output.say("you have left the session");
            Ok(0)
        }
        StopReason::Offline => {
            context.output.say("offline; `collab-p2p resume` goes on");
            Ok(0)
        }
        StopReason::Removed => Err(CliError::new(
            Code::Removed,
            "this membership was ended by somebody else",
        )),
        StopReason::JoinFailed(error) => Err(error.clone().into()),
        StopReason::NetworkFailed => Err(CliError::new(
            Code::Failure,
            "the network of this node has failed",
        )),
        StopReason::Broken => Err(CliError::new(
            Code::Failure,
            "this node has failed by a fault of the program, which its log describes",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn a_second_signal_ends_a_farewell_that_hangs() {
        assert_eq!(unless_asked_again(pending::<()>(), ready(2)).await, None);
        assert_eq!(
            unless_asked_again(ready("said"), pending()).await,
            Some("said")
        );
        // What is done already is not cut off.
        assert_eq!(
            unless_asked_again(ready("said"), ready(2)).await,
            Some("said")
        );
    }
}
