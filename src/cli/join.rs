//! `join`.

use std::io::BufRead;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::cli::error::CliError;
use crate::cli::foreground::{self, Attached, Shown, settings};
use crate::cli::{Context, nodes, values};
use crate::engine::address::Addr;
use crate::engine::effect::StopReason;
use crate::engine::error::Code;
use crate::engine::limits::TICKET_BYTES_MAX;
use crate::engine::ticket::{Ticket, TicketError};
use crate::engine::view::Phase;
use crate::node::folder::MemberInfo;
use crate::node::{self, JoinWith, Running};

/// Join a session by its ticket.
#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// The ticket, or the whole line that `share` printed; `-` reads it from stdin. Other users of this
    /// machine can see arguments: stdin, or the variable COLLAB_P2P_TICKET, keep it to yourself
    #[arg(value_name = "TICKET|-", num_args = 0..)]
    ticket: Vec<String>,
    /// Your name; $USER if not given
    #[arg(long)]
    name: Option<String>,
    /// No user interface: serve in the foreground, for the verbs
    #[arg(long)]
    headless: bool,
    /// How long to look for somebody who lets you in
    #[arg(long, value_parser = values::duration, default_value = "60s", value_name = "DURATION")]
    timeout: Duration,
    /// Neither announce this node nor look for others by multicast DNS
    #[arg(long)]
    no_mdns: bool,
    /// Dial here too, like /ip4/192.0.2.7/tcp/4000 (repeatable)
    #[arg(long = "addr", value_name = "ADDR")]
    addrs: Vec<Addr>,
}

/// A byte more than a ticket may have tells that there was more.
const LINE_BYTES_MAX: usize = TICKET_BYTES_MAX + 2;

/// Longest time that a join which came to nothing takes to leave.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// Joins, and stays until the person or the session ends it.
pub(crate) async fn run(context: &Context, args: JoinArgs) -> Result<i32, CliError> {
    let headless = args.headless || context.output.json;
    // First, so that a script learns what is wrong with its ticket before it has arranged a terminal.
    let ticket = ticket(context, &args)?;
    if !headless {
        foreground::full_screen(context)?;
        foreground::not_a_mirror(context, ticket.session)?;
    }
    crate::cli::logging::start(context);
    context
        .config
        .warnings
        .iter()
        .for_each(|warning| context.output.say(warning));
    let network = (Vec::new(), args.no_mdns, false);
    let settings = settings(context, network)?;
    let mut signals = foreground::Signals::new()?;
    if let Some(here) = here(context, &args, &ticket)? {
        let running = node::resume(settings, &here)?;
        return stay(context, running, headless, true, signals).await;
    }
    let name = foreground::name(context, args.name.as_ref())?;
    let timeout = args.timeout;
    let with = JoinWith {
        ticket,
        name,
        addrs: args.addrs,
        timeout,
    };
    let running = node::join(settings, with)?;
    match admitted(context, &running, &mut signals).await {
        Ok(None) => stay(context, running, headless, false, signals).await,
        not_in => {
            unless_hurried(running.discard(), signals.next()).await;
            not_in.map(|signal| 128 + signal.unwrap_or_default())
        }
    }
}

/// A guest's membership of that session that is here, not running, and has the given name, or is the only one.
fn here(
    context: &Context,
    args: &JoinArgs,
    ticket: &Ticket,
) -> Result<Option<MemberInfo>, CliError> {
    Ok(nodes::folders(context)?.resumable_guest(ticket.session, args.name.as_deref()))
}

fn ticket(context: &Context, args: &JoinArgs) -> Result<Ticket, CliError> {
    let text = match args.ticket.as_slice() {
        [] => context
            .env
            .ticket
            .clone()
            .ok_or_else(|| CliError::new(Code::TicketMissing, "no ticket was given"))?,
        [dash] if dash == "-" => first_line()?,
        words => words.join(" "),
    };
    let ticket = Ticket::parse(&text).map_err(|error| refused(&error))?;
    if ticket.needs_password() {
        let message = "this ticket needs a password, which this version cannot ask for";
        return Err(CliError::new(Code::PasswordWrong, message));
    }
    if ticket.is_expired(node::clock::wall()) {
        let end = ticket
            .expires
            .map(crate::cli::output::time)
            .unwrap_or_default();
        return Err(CliError::new(
            Code::TicketExpired,
            format!("this ticket ended at {end}"),
        ));
    }
    Ok(ticket)
}

fn refused(error: &TicketError) -> CliError {
    let code = match error {
        TicketError::Empty => Code::TicketEmpty,
        TicketError::Foreign => Code::TicketForeign,
        TicketError::Truncated { .. } => Code::TicketTruncated,
        TicketError::Malformed => Code::TicketMalformed,
        TicketError::TooLong(_) => Code::TicketTooLong,
        TicketError::Version { .. } => Code::VersionMismatch,
    };
    CliError::new(code, error.to_string())
}

fn first_line() -> Result<String, CliError> {
    use std::io::Read;
    let mut line = Vec::new();
    let read = std::io::stdin()
        .lock()
        .take(LINE_BYTES_MAX as u64)
        .read_until(b'\n', &mut line);
    read.map_err(|error| CliError::new(Code::Usage, format!("stdin cannot be read: {error}")))?;
    String::from_utf8(line)
        .map_err(|_| CliError::new(Code::TicketForeign, "what stdin holds is no text"))
}

/// Waits until this node is a member, or for a signal, which it returns; every second it says what it waits for.
async fn admitted(
    context: &Context,
    running: &Running,
    signals: &mut foreground::Signals,
) -> Result<Option<i32>, CliError> {
    let mut views = running.handle.watch_view();
    let mut told = String::new();
    let mut pause = tokio::time::interval(Duration::from_secs(1));
    pause.tick().await;
    loop {
        let waits = match &views.borrow_and_update().phase {
            Phase::Joining { waits_for } => waits_for.clone(),
            Phase::Member { .. } | Phase::Closed => return Ok(None),
            Phase::Ended => String::new(),
        };
        tokio::select! {
            changed = views.changed() => if changed.is_err() {
                return Err(failed(running.handle.stopped().await));
            },
            reason = running.handle.stopped() => return Err(failed(reason)),
            signal = signals.next() => return Ok(Some(signal)),
            _ = pause.tick() => if waits != told && !waits.is_empty() {
                context.output.say(&format!("waiting: {waits}"));
                told = waits;
            },
        }
    }
}

/// Waits for the work of leaving, but not for ever, and no longer once the person asks again. What it leaves behind
/// is passed over by whoever lists memberships.
async fn unless_hurried(leaving: impl Future<Output = ()>, again: impl Future<Output = i32>) {
    let hurried = async {
        tokio::select! {
            _signal = again => {}
            () = tokio::time::sleep(LEAVE_WITHIN) => {}
        }
    };
    tokio::select! {
        biased;
        () = leaving => {}
        () = hurried => tracing::warn!("a join that was never let in was cut off while it left"),
    }
}

fn failed(reason: StopReason) -> CliError {
    match reason {
        StopReason::JoinFailed(error) => error.into(),
        StopReason::Closed(_)
        | StopReason::Left
        | StopReason::Removed
        | StopReason::Offline
        | StopReason::NetworkFailed
        | StopReason::Broken => {
            CliError::new(Code::Failure, "the node stopped before it was let in")
        }
    }
}

/// A member from here on: with or without a user interface, until the end.
pub(crate) async fn stay(
    context: &Context,
    running: Running,
    headless: bool,
    resumed: bool,
    mut signals: foreground::Signals,
) -> Result<i32, CliError> {
    let serving = foreground::serve(context, &running)?;
    let attached = if headless {
        let is_in = async {
            if !resumed {
                synced(&running).await;
            }
            running.entered().await;
        };
        let asked = tokio::select! {
            signal = signals.next() => Some(signal),
            () = is_in => None,
        };
        Ok(match asked {
            Some(signal) => Attached::Signal(signal),
            None => {
                ready(context, &running);
                foreground::headless(context, &running.handle, &mut signals).await
            }
        })
    } else {
        let shown = Shown {
            newcomer: !resumed,
            ..Shown::default()
        };
        foreground::attached(context, running.handle.clone(), shown, signals).await
    };
    let reason = foreground::finish(running, serving, &attached).await;
    match attached? {
        Attached::Signal(signal) => Ok(128 + signal),
        Attached::Gone | Attached::Stopped(_) => foreground::exit_code(context, &reason),
    }
}

/// Catch-up with somebody has completed, or a few seconds have passed.
async fn synced(running: &Running) {
    let mut views = running.handle.watch_view();
    let done = views.wait_for(|view| !matches!(view.phase, Phase::Member { synced: false }));
    drop(tokio::time::timeout(Duration::from_secs(10), done).await);
}

fn ready(context: &Context, running: &Running) {
    let view = running.handle.view();
    let synced = matches!(view.phase, Phase::Member { synced: true });
    if !context.output.json {
        context.output.line(&running.session.to_string());
        return;
    }
    context.output.value(&json!({
        "event": "ready",
        "session": running.session.to_string(),
        "member": running.member.to_string(),
        "role": view.session.role.name(),
        "title": view.session.title,
        "listen": view.listen,
        "socket": running.socket,
        "synced": synced,
    }));
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    /// More than any of it should take.
    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn leaving_ends_with_the_next_signal() {
        let leaving = unless_hurried(pending(), ready(2));

        assert!(
            tokio::time::timeout(LEAVE_WITHIN / 2, leaving)
                .await
                .is_ok()
        );
    }

    #[tokio::test]
    async fn leaving_that_hangs_ends_by_itself() {
        let leaving = unless_hurried(pending(), pending());

        assert!(tokio::time::timeout(LONG, leaving).await.is_ok());
    }

    #[tokio::test]
    async fn leaving_is_waited_for_while_nobody_hurries() {
        let (left, leaves) = tokio::sync::oneshot::channel();
        let leaving = async {
            tokio::task::yield_now().await;
            left.send(()).unwrap();
        };

        unless_hurried(leaving, pending()).await;

        assert!(leaves.await.is_ok());
    }
}
