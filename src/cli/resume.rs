//! `resume`.

use clap::Args;

use crate::cli::error::CliError;
use crate::cli::foreground::{self, Attached, Shown, settings};
use crate::cli::{Context, join, nodes};
use crate::engine::address::Addr;
use crate::engine::documents::text::inert;
use crate::engine::error::Code;
use crate::node;
use crate::node::folder::{MemberInfo, MemberKind};

/// Go on with a membership that is not running.
#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    /// The session, by title or id (6 characters suffice); the most recently used if not given
    #[arg(value_name = "SESSION")]
    which: Option<String>,
    /// No user interface: serve in the foreground, for the verbs
    #[arg(long)]
    headless: bool,
    /// Neither announce this node nor look for others by multicast DNS
    #[arg(long)]
    no_mdns: bool,
    /// Listen here, like /ip4/0.0.0.0/tcp/4000 (repeatable)
    #[arg(long, value_name = "ADDR")]
    listen: Vec<Addr>,
}

/// Goes on, offline if need be; a host's terminal is opened again.
pub(crate) async fn run(context: &Context, args: ResumeArgs) -> Result<i32, CliError> {
    let headless = args.headless || context.output.json;
    if !headless {
        foreground::full_screen(context)?;
    }
    crate::cli::logging::start(context);
    context
        .config
        .warnings
        .iter()
        .for_each(|warning| context.output.say(warning));
    let info = membership(
        context,
        args.which.as_ref().or(context.global.session.as_ref()),
    )?;
    if !headless {
        foreground::not_a_mirror(context, info.session)?;
    }
    let settings = settings(context, (args.listen, args.no_mdns, false))?;
    let signals = foreground::Signals::new()?;
    let running = node::resume(settings, &info)?;
    if headless || info.kind == MemberKind::Guest {
        return join::stay(context, running, headless, true, signals).await;
    }
    let view = running.handle.view();
    let mine = view
        .terminals
        .iter()
        .find(|terminal| terminal.mine && terminal.open);
    let shown = Shown {
        host: mine.map(|terminal| terminal.id),
        ..Shown::default()
    };
    let serving = foreground::serve(context, &running)?;
    let attached = foreground::attached(context, running.handle.clone(), shown, signals).await;
    let reason = foreground::finish(running, serving, &attached).await;
    match attached? {
        Attached::Signal(signal) => Ok(128 + signal),
        Attached::Gone | Attached::Stopped(_) => foreground::exit_code(context, &reason),
    }
}

/// The membership meant: by names or ids among those that are not running; without a session the most recently used.
fn membership(context: &Context, which: Option<&String>) -> Result<MemberInfo, CliError> {
    let member = context.global.member.as_ref();
    let mut fits = nodes::folders(context)?.list();
    if let Some(which) = which {
        nodes::keep_session(&mut fits, which);
    }
    if let Some(member) = member {
        nodes::keep_member(&mut fits, member);
    }
    let only_ended = !fits.is_empty() && fits.iter().all(|info| info.ended);
    fits.retain(|info| !info.ended);
    let named = wanted(which, member);
    let running = !fits.is_empty() && fits.iter().all(|info| info.running);
    fits.retain(|info| !info.running);
    if let (Some(named), true) = (&named, running) {
        return Err(CliError::new(
            Code::StateLocked,
            format!("{named} runs already"),
        ));
    }
    let is_host = |info: &MemberInfo| info.kind == MemberKind::Host;
    if which.is_some() && member.is_none() && fits.iter().any(is_host) {
        fits.retain(is_host);
    }
    if which.is_some() && fits.len() > 1 {
        return Err(several(&fits));
    }
    let named = named
        .map(|named| format!(" as {named}"))
        .unwrap_or_default();
    fits.into_iter().next().ok_or_else(|| {
        let why = if only_ended { ": it has ended" } else { "" };
        let message = format!("no membership here could be resumed{named}{why}");
        CliError::new(Code::NoSession, message)
    })
}

/// What was asked for, in words.
fn wanted(session: Option<&String>, member: Option<&String>) -> Option<String> {
    match (session, member) {
        (Some(session), Some(member)) => Some(format!("`{member}` of `{session}`")),
        (Some(one), None) | (None, Some(one)) => Some(format!("`{one}`")),
        (None, None) => None,
    }
}

/// Several memberships fit: of one session, or of several with one title.
fn several(fits: &[MemberInfo]) -> CliError {
    let described: Vec<String> = fits
        .iter()
        .map(|info| {
            let name = info.label().map(|label| inert(&label.name));
            let name = name.map(|name| format!(" ({name})")).unwrap_or_default();
            format!("{}{name} of {}", info.member.short(), info.session.short())
        })
        .collect();
    let message = format!("several memberships fit: {}", described.join(", "));
    let one_session = fits.windows(2).all(|pair| match pair {
        [a, b] => a.session == b.session,
        _ => true,
    });
    CliError::new(Code::WhichSession, message).with_help(if one_session {
        "name one with --member: its name or its id"
    } else {
        "name the session by its id instead of its title"
    })
}
