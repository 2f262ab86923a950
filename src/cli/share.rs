//! `share`.

use std::io::{ErrorKind, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::cli::config::Config;
use crate::cli::error::CliError;
use crate::cli::foreground::{self, Attached, Serving, Shown, settings};
use crate::cli::invite::TicketRole;
use crate::cli::values::{self, Expiry, Size};
use crate::cli::{Context, ask, output};
use crate::engine::NewSession;
use crate::engine::address::Addr;
use crate::engine::capability::Role;
use crate::engine::command::{Ask, ControlMode, TerminalSpec};
use crate::engine::effect::StopReason;
use crate::engine::error::Code;
use crate::node::{self, Running, ShareWith};

/// Open a session around a live terminal and print a ticket.
#[derive(Debug, Args)]
pub(crate) struct ShareArgs {
    /// Where the terminal starts; here if not given
    path: Option<PathBuf>,
    /// The command to run; your shell if not given
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
    /// The session's title; the command's first word if not given
    #[arg(long)]
    title: Option<String>,
    /// Your name; $USER if not given
    #[arg(long)]
    name: Option<String>,
    /// What the ticket makes of its bearer [default: viewer]
    #[arg(long, value_enum)]
    role: Option<TicketRole>,
    #[command(flatten)]
    ask: ask::AskArgs,
    /// How control of the terminal is given: each time by you, or to an editor on the first key
    #[arg(long, value_enum)]
    control: Option<ControlWord>,
    /// How long one may join by the ticket, or never [default: 24h]
    #[arg(long, value_parser = values::expiry, value_name = "DURATION|never")]
    expires: Option<Expiry>,
    /// Never reach beyond the networks of this machine
    #[arg(long)]
    lan_only: bool,
    /// Neither announce this node nor look for others by multicast DNS
    #[arg(long)]
    no_mdns: bool,
    /// A ticket without addresses: it is found by multicast DNS alone
    #[arg(long)]
    no_addrs: bool,
    /// Listen here, like /ip4/0.0.0.0/tcp/4000 (repeatable)
    #[arg(long, value_name = "ADDR")]
    listen: Vec<Addr>,
    /// The terminal's size, fixed
    #[arg(long, value_parser = values::size, value_name = "COLSxROWS")]
    size: Option<Size>,
    /// No user interface: serve in the foreground
    #[arg(long)]
    headless: bool,
    /// Also write the ticket into this file (0600)
    #[arg(long, value_name = "FILE")]
    ticket_file: Option<PathBuf>,
    /// Put the join command into the clipboard, by way of the terminal
    #[arg(long)]
    copy: bool,
    /// End with the command's own exit status
    #[arg(long = "return")]
    return_status: bool,
    /// Share from inside a shared shell all the same
    #[arg(long)]
    nested: bool,
}

/// How control is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ControlWord {
    /// You are asked
    Ask,
    /// A free terminal goes to an editor on the first key
    Auto,
}

/// Names that are tried for a temporary file: killed processes may have left some.
const TEMPORARY_TRIES: u32 = 100;

/// Shares until the command ends, the person stops it, or a signal comes.
pub(crate) async fn run(context: &Context, args: ShareArgs) -> Result<i32, CliError> {
    if context.env.inside && !args.nested {
        let message = "this shell is shared already: viewers would see a picture in a picture";
        return Err(CliError::new(Code::Nested, message));
    }
    let headless = args.headless || !std::io::stdout().is_terminal() || context.output.json;
    crate::cli::logging::start(context);
    context
        .config
        .warnings
        .iter()
        .for_each(|warning| context.output.say(warning));
    let with = with(context, &args, headless)?;
    if !headless {
        foreground::full_screen(context)?;
    }
    let title = with.new.title.clone();
    let network = (args.listen.clone(), args.no_mdns, args.lan_only);
    let settings = settings(context, network)?;
    // Before anything is made: a session that nobody can join is of no use.
    let file = args.ticket_file.as_deref();
    file.map(check_ticket_file).transpose()?;
    let mut signals = foreground::Signals::new()?;
    let running = node::share(settings, with).await?;
    let (ticket, serving) = match prepared(context, &running, file) {
        Ok(prepared) => prepared,
        Err(error) => {
            running.discard().await;
            return Err(error);
        }
    };
    let command = format!("collab-p2p join {ticket}");
    let attached = if headless {
        announce(context, &running, &ticket);
        Ok(foreground::headless(context, &running.handle, &mut signals).await)
    } else {
        let block = block(context, &running, (&args, &title), &command);
        for line in &block {
            context.output.line(line);
        }
        if args.copy {
            copy(context, &command);
        }
        let shown = Shown {
            newcomer: false,
            host: running.terminal,
            fixed: args.size.is_some(),
            block: Some(block.clone()),
        };
        let attached = foreground::attached(context, running.handle.clone(), shown, signals).await;
        let over = matches!(attached, Ok(Attached::Stopped(StopReason::Closed(_))));
        if !over && attached.is_ok() {
            for line in &block {
                context.output.line(line);
            }
        }
        attached
    };
    let reason = foreground::finish(running, serving, &attached).await;
    ended(context, attached?, &reason, args.return_status)
}

/// The ticket, written where it is wanted, and the local API.
fn prepared(
    context: &Context,
    running: &Running,
    file: Option<&Path>,
) -> Result<(String, Serving), CliError> {
    let ticket = ticket(running)?;
    let serving = foreground::serve(context, running)?;
    if let Some(file) = file {
        write_ticket_file(file, &ticket)?;
    }
    Ok((ticket, serving))
}

/// The exit code, and what the person reads after the screen is given back.
fn ended(
    context: &Context,
    attached: Attached,
    reason: &StopReason,
    return_status: bool,
) -> Result<i32, CliError> {
    match (attached, reason) {
        (Attached::Signal(signal), _) => Ok(128 + signal),
        (_, StopReason::Closed(Some(status))) if return_status => Ok(status.0),
        (_, StopReason::Closed(status)) => {
            let status = status
                .map(|status| format!(" (status {})", status.0))
                .unwrap_or_default();
            context
                .output
                .say(&format!("the session has ended{status}"));
            Ok(0)
        }
        (_, reason) => foreground::exit_code(context, reason),
    }
}

fn with(context: &Context, args: &ShareArgs, headless: bool) -> Result<ShareWith, CliError> {
    let file = &context.config.file;
    let argv = argv(context, args);
    let first = argv.first().cloned().unwrap_or_default();
    let word = first.rsplit('/').next().unwrap_or_default().to_owned();
    let cwd = match &args.path {
        Some(path) => Some(folder(context, path)?),
        None => std::env::current_dir().ok(),
    };
    runnable(context, &argv, cwd.as_deref())?;
    let title = args.title.clone().unwrap_or_else(|| word.clone());
    let size = size(args, headless);
    let role = match (args.role, file.share.role.as_str()) {
        (Some(TicketRole::Editor), _) | (None, "editor") => Role::Editor,
        (Some(TicketRole::Viewer) | None, _) => Role::Viewer,
    };
    let control = match (args.control, file.share.control.as_str()) {
        (Some(ControlWord::Auto), _) | (None, "auto") => ControlMode::Auto,
        (Some(ControlWord::Ask) | None, _) => ControlMode::Ask,
    };
    let expires = args.expires.unwrap_or(default_expiry(&context.config)?);
    let new = NewSession {
        name: foreground::name(context, args.name.as_ref())?,
        title: title.clone(),
        ask: args
            .ask
            .given()
            .unwrap_or_else(|| foreground::ask_of(&file.share.ask)),
        control,
    };
    let terminal = TerminalSpec {
        argv,
        cwd,
        env: Vec::new(),
        title,
        cols: size.cols,
        rows: size.rows,
    };
    Ok(ShareWith {
        new,
        terminal,
        role,
        expires_in: expires.0,
        addresses: !args.no_addrs,
    })
}

fn default_expiry(config: &Config) -> Result<Expiry, CliError> {
    values::expiry(&config.file.share.expires)
        .map_err(|error| CliError::new(Code::ConfigBroken, error))
}

fn argv(context: &Context, args: &ShareArgs) -> Vec<String> {
    if !args.command.is_empty() {
        return args.command.clone();
    }
    let configured = Some(context.config.file.terminal.shell.clone()).filter(|s| !s.is_empty());
    let shell = configured.or_else(|| context.env.shell.clone());
    vec![shell.unwrap_or_else(|| "/bin/sh".to_owned())]
}

/// Refuses a command that cannot be found, before a session is made around it.
fn runnable(context: &Context, argv: &[String], cwd: Option<&Path>) -> Result<(), CliError> {
    let program = argv.first().map(String::as_str).unwrap_or_default();
    if is_runnable(context, program, cwd) {
        return Ok(());
    }
    let message = format!("`{program}` is no program that can be run here");
    Err(CliError::new(Code::CommandFailed, message))
}

fn is_runnable(context: &Context, program: &str, cwd: Option<&Path>) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let is_program = |path: PathBuf| {
        let facts = std::fs::metadata(path);
        facts.is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        is_program(cwd.unwrap_or_else(|| Path::new("")).join(program))
    } else {
        let path = context.env.path.as_deref().unwrap_or("/usr/bin:/bin");
        path.split(':')
            .any(|folder| is_program(PathBuf::from(folder).join(program)))
    }
}

fn folder(context: &Context, path: &Path) -> Result<PathBuf, CliError> {
    let message = match std::fs::canonicalize(path) {
        Ok(absolute) if absolute.is_dir() => return Ok(absolute),
        Ok(_) => format!("{} is no folder", path.display()),
        Err(error) => format!("{} is no folder: {error}", path.display()),
    };
    let error = CliError::new(Code::Usage, message);
    let program = path.to_str().unwrap_or_default();
    Err(if is_runnable(context, program, None) {
        error.with_help(format!(
            "a command to share comes after `--`: `collab-p2p share -- {program}`"
        ))
    } else {
        error.with_help(
            "PATH is the folder in which the terminal starts; a command comes after `--`",
        )
    })
}

fn size(args: &ShareArgs, headless: bool) -> Size {
    let window = || {
        let window = crate::ui::window().filter(|_| !headless)?;
        let shell = window.of_shell();
        Some(Size {
            cols: shell.cols,
            rows: shell.rows,
        })
    };
    args.size
        .or_else(window)
        .unwrap_or(Size { cols: 80, rows: 24 })
}

/// The ticket of the invitation that was made for this share.
fn ticket(running: &Running) -> Result<String, CliError> {
    let ticket = running
        .invite
        .as_ref()
        .and_then(|invite| invite.ticket.clone());
    ticket.ok_or_else(|| CliError::new(Code::Failure, "the invitation has no ticket"))
}

/// Whether the ticket will find a place: nothing is there yet, and its folder takes files. Leaves nothing behind.
fn check_ticket_file(path: &Path) -> Result<(), CliError> {
    let refused = |error: &std::io::Error| unwritable(path, error);
    match std::fs::symlink_metadata(path) {
        Ok(_) => return Err(refused(&ErrorKind::AlreadyExists.into())),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(refused(&error)),
    }
    if nameless(path).is_some() {
        return Ok(());
    }
    let (beside, _) = temporary(path).map_err(|error| refused(&error))?;
    std::fs::remove_file(beside).map_err(|error| refused(&error))
}

/// Writes the ticket into a file that appears with all its content, 0600, where nothing has been before.
fn write_ticket_file(path: &Path, ticket: &str) -> Result<(), CliError> {
    let content = format!("{ticket}\n");
    let written = match nameless(path) {
        Some(mut file) => file
            .write_all(content.as_bytes())
            .and_then(|()| placed(named(&file, path), path, &content)),
        None => written_beside(path, &content),
    };
    written.map_err(|error| unwritable(path, &error))
}

/// The same by way of a file under another name, which a process that is killed just then leaves behind.
fn written_beside(path: &Path, content: &str) -> std::io::Result<()> {
    let (beside, mut file) = temporary(path)?;
    let linked = file
        .write_all(content.as_bytes())
        .and_then(|()| placed(std::fs::hard_link(&beside, path), path, content));
    // The ticket has its place by now, or none.
    drop(std::fs::remove_file(&beside));
    linked
}

/// A new file in the folder of `path` that has no name yet and goes with the process: where the system knows such.
#[cfg(target_os = "linux")]
fn nameless(path: &Path) -> Option<std::fs::File> {
    use rustix::fs::{Mode, OFlags};
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let made = rustix::fs::open(
        folder.unwrap_or_else(|| Path::new(".")),
        flags,
        Mode::RUSR | Mode::WUSR,
    );
    made.ok().map(std::fs::File::from)
}

#[cfg(not(target_os = "linux"))]
fn nameless(_path: &Path) -> Option<std::fs::File> {
    None
}

/// Gives a file without a name this one, unless another has it.
#[cfg(target_os = "linux")]
fn named(file: &std::fs::File, path: &Path) -> std::io::Result<()> {
    use rustix::fs::{AtFlags, CWD, linkat};
    use std::os::fd::AsRawFd as _;
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(linkat(CWD, open, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
}

#[cfg(not(target_os = "linux"))]
fn named(_file: &std::fs::File, _path: &Path) -> std::io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// What came of giving a file its name. Where names could not be given at all, it is written in its place.
fn placed(linked: std::io::Result<()>, path: &Path, content: &str) -> std::io::Result<()> {
    match linked {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            // Not every file system knows links; whatever else is wrong, this meets too.
            let mut file = new_file(path)?;
            let written = file.write_all(content.as_bytes());
            if written.is_err() {
                drop(std::fs::remove_file(path));
            }
            written
        }
        linked => linked,
    }
}

/// A new file in the folder of `path`, under a name that nothing has.
fn temporary(path: &Path) -> std::io::Result<(PathBuf, std::fs::File)> {
    let process = std::process::id();
    let mut last = ErrorKind::AlreadyExists.into();
    for number in 0..TEMPORARY_TRIES {
        let beside = path.with_file_name(format!(".collab-p2p-{process}-{number}"));
        match new_file(&beside) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => last = error,
            made => return made.map(|file| (beside, file)),
        }
    }
    Err(last)
}

fn new_file(path: &Path) -> std::io::Result<std::fs::File> {
    let mut open = std::fs::OpenOptions::new();
    open.write(true).create_new(true).mode(0o600).open(path)
}

fn unwritable(file: &Path, error: &std::io::Error) -> CliError {
    let code = if error.kind() == ErrorKind::AlreadyExists {
        Code::FileExists
    } else {
        Code::Failure
    };
    let message = format!("{} cannot be written: {error}", file.display());
    CliError::new(code, message)
}

/// What a script reads: only the ticket, or the ready line.
fn announce(context: &Context, running: &Running, ticket: &str) {
    if !context.output.json {
        context.output.line(ticket);
        return;
    }
    context.output.value(&json!({
        "event": "ready",
        "session": running.session.to_string(),
        "ticket": ticket,
        "member": running.member.to_string(),
        "terminal": running.terminal.map(|terminal| terminal.to_string()),
        "listen": running.handle.view().listen,
        "socket": running.socket,
        "viewer": null,
    }));
}

/// The lines before the screen is taken: what is shared, how others join, which keys there are.
fn block(
    context: &Context,
    running: &Running,
    (args, title): (&ShareArgs, &str),
    command: &str,
) -> Vec<String> {
    let invite = running.invite.as_ref();
    let role = invite.map_or(Role::Viewer, |invite| invite.role);
    let ask = invite.map(|invite| invite.ask).unwrap_or_default();
    let until = match invite.and_then(|invite| invite.expires) {
        Some(until) => format!("until {}", output::minute(&output::time(until))),
        None => "without end".to_owned(),
    };
    let title = crate::engine::documents::text::inert(title);
    let prefix = context.config.file.terminal.prefix.parse();
    let prefix: crate::ui::Prefix = prefix.unwrap_or_default();
    let mut lines = vec![
        format!("Sharing \"{title}\"."),
        who_joins(ask, role, &until),
        String::new(),
        command.to_owned(),
        String::new(),
        format!("Keys after {prefix}: ? help, c chat, p people, t take control back, x stop"),
        "Nothing is masked: participants see all that this terminal shows.".to_owned(),
    ];
    if args.no_addrs {
        lines.push("The ticket carries no addresses: it works on this network only.".to_owned());
    }
    lines
}

/// What the line is good for.
fn who_joins(ask: Ask, role: Role, until: &str) -> String {
    let is_asked = match ask {
        Ask::Auto => role != Role::Viewer,
        Ask::Always => true,
        Ask::Never => false,
    };
    let but = if is_asked { " once let in" } else { "" };
    format!("Whoever has this line joins as {role}{but}, {until}:")
}

/// Puts a text into the clipboard by the terminal's own means (OSC 52).
pub(crate) fn copy(context: &Context, text: &str) {
    let encoded = data_encoding::BASE64.encode(text.as_bytes());
    let sequence = format!("\x1b]52;c;{encoded}\x07");
    let tty = std::fs::OpenOptions::new().write(true).open("/dev/tty");
    let copied = tty.and_then(|mut tty| tty.write_all(sequence.as_bytes()));
    match copied {
        Ok(()) => context
            .output
            .say("the join command was handed to the terminal's clipboard"),
        Err(error) => context
            .output
            .say(&format!("the clipboard was not reached: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_block_says_whether_somebody_must_let_newcomers_in() {
        let said = |ask, role| who_joins(ask, role, "until noon");
        assert_eq!(
            said(Ask::Auto, Role::Viewer),
            "Whoever has this line joins as viewer, until noon:"
        );
        assert_eq!(
            said(Ask::Auto, Role::Editor),
            "Whoever has this line joins as editor once let in, until noon:"
        );
        assert!(said(Ask::Always, Role::Viewer).contains("once let in"));
        assert!(!said(Ask::Never, Role::Editor).contains("once let in"));
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<String> = entries
            .map(|entry| name(entry).into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_ticket_file_is_not_there_until_it_holds_the_ticket() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("t");

        check_ticket_file(&path).unwrap();
        assert!(names(home.path()).is_empty());
        write_ticket_file(&path, "cp2p1x").unwrap();

        assert_eq!(names(home.path()), ["t"]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "cp2p1x\n");
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_stands_where_the_ticket_should_go_stays_as_it_is() {
        let home = tempfile::tempdir().unwrap();
        let (path, dangling) = (home.path().join("t"), home.path().join("u"));
        std::fs::write(&path, "mine").unwrap();
        std::os::unix::fs::symlink("nowhere", &dangling).unwrap();

        for path in [&path, &dangling] {
            let checked = check_ticket_file(path).unwrap_err();
            assert_eq!(checked.code, Code::FileExists);
            // It may have come after the check.
            let written = write_ticket_file(path, "cp2p1x").unwrap_err();
            assert_eq!(written.code, Code::FileExists);
        }

        assert_eq!(names(home.path()), ["t", "u"]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn a_ticket_file_that_could_never_be_written_is_refused_at_once() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("file"), "").unwrap();

        for place in ["none/t", "file/t"] {
            let refused = check_ticket_file(&home.path().join(place)).unwrap_err();
            assert_eq!(refused.code, Code::Failure, "{place}");
        }
        // Not even root may make files here.
        let refused = check_ticket_file(Path::new("/proc/t")).unwrap_err();
        assert_eq!(refused.code, Code::Failure);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_share_that_is_killed_leaves_no_part_of_a_ticket_file() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("t");

        let mut file = nameless(&path).unwrap();
        file.write_all(b"cp2p1x").unwrap();
        // Here the process may be killed: the kernel closes the file, and with it all is gone.
        assert!(names(home.path()).is_empty());

        named(&file, &path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "cp2p1x");
        let again = named(&file, &path).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    }

    #[test]
    fn a_ticket_file_is_whole_where_files_without_names_are_unknown() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("t");

        written_beside(&path, "cp2p1x\n").unwrap();
        let again = written_beside(&path, "other").unwrap_err();

        assert_eq!(again.kind(), ErrorKind::AlreadyExists);
        assert_eq!(names(home.path()), ["t"]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "cp2p1x\n");
    }

    #[test]
    fn what_a_killed_share_left_is_not_in_the_way() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("t");
        let (left, _) = temporary(&path).unwrap();

        check_ticket_file(&path).unwrap();
        write_ticket_file(&path, "cp2p1x").unwrap();

        assert!(left.exists());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "cp2p1x\n");
    }
}
