//! `resume`.

use clap::Args;

use crate::cli::error::CliError;
use crate::cli::foreground::{self, Attached, Shown, settings};
use crate::cli::{Context, join, nodes};
use crate::engine::address::Addr;
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
    let settings = settings(context, (args.listen, args.no_mdns, false))?;
    let running = node::resume(settings, &info)?;
    if headless || info.kind == MemberKind::Guest {
        return join::stay(context, running, headless, true).await;
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
    let attached = foreground::attached(context, running.handle.clone(), shown).await;
    let reason = foreground::finish(running, serving, &attached).await;
    match attached? {
        Attached::Signal(signal) => Ok(128 + signal),
        Attached::Gone | Attached::Stopped(_) => foreground::exit_code(context, &reason),
    }
}

/// The membership meant: by name or id among those that are not running, or the most recently used.
fn membership(context: &Context, which: Option<&String>) -> Result<MemberInfo, CliError> {
    let folders = nodes::folders(context)?;
    let none = |message: &str| CliError::new(Code::NoSession, message.to_owned());
    let Some(which) = which else {
        let recent = folders.most_recent_not_running();
        return recent.ok_or_else(|| none("no membership here could be resumed"));
    };
    let wanted = which.to_lowercase();
    let mut fits: Vec<MemberInfo> = folders
        .list()
        .into_iter()
        .filter(|info| {
            let by_id = wanted.len() >= 6 && info.session.to_string().starts_with(&wanted);
            by_id || info.is_titled(which)
        })
        .collect();
    if let Some(member) = &context.global.member {
        let wanted = member.to_lowercase();
        fits.retain(|info| {
            let by_id = wanted.len() >= 6 && info.member.to_string().starts_with(&wanted);
            by_id || info.is_named(member)
        });
    }
    if fits.iter().all(|info| info.running) && !fits.is_empty() {
        return Err(CliError::new(
            Code::StateLocked,
            format!("`{which}` runs already"),
        ));
    }
    fits.retain(|info| !info.running && !info.ended);
    if fits.iter().any(|info| info.kind == MemberKind::Host) && context.global.member.is_none() {
        fits.retain(|info| info.kind == MemberKind::Host);
    }
    match fits.len() {
        1 => fits.pop().ok_or_else(|| none("no such session")),
        0 => Err(none(&format!("no session `{which}` could be resumed here"))),
        _ => {
            let ids: Vec<String> = fits.iter().map(|info| info.member.short()).collect();
            let message = format!(
                "several memberships fit: {}; name one with --member",
                ids.join(", ")
            );
            Err(CliError::new(Code::WhichSession, message))
        }
    }
}
