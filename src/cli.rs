//! The command line: what INTERFACES §1–2 name, one file per command. Parses, runs, prints, and ends with the
//! right exit code. Verbs are clients of the local API through one module.

pub mod ask;
pub mod config;
pub mod error;

mod chat;
mod control;
mod extras;
mod foreground;
mod invite;
mod join;
mod logging;
mod nodes;
mod output;
mod peers;
mod resume;
mod screen;
mod session;
mod share;
mod typing;
mod values;

use std::io::Write as _;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::cli::config::Config;
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::engine::error::Code;

/// Share a live terminal peer to peer: no server, read-only by default, end-to-end encrypted.
#[derive(Debug, Parser)]
#[command(
    name = "collab-p2p",
    bin_name = "collab-p2p",
    version,
    about,
    max_term_width = 100,
    disable_help_subcommand = true
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// The heading of flags that every command takes.
const GLOBAL: &str = "Global options";

/// Flags that every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// The session meant: its title, or its id (6 characters suffice)
    #[arg(
        help_heading = GLOBAL,
        short = 's',
        long,
        global = true,
        value_name = "NAME|ID",
        env = "COLLAB_P2P_SESSION"
    )]
    session: Option<String>,
    /// The terminal meant, by id (6 characters suffice) or title
    #[arg(help_heading = GLOBAL, short = 't', long = "term", global = true, value_name = "TERM")]
    terminal: Option<String>,
    /// The member meant, where one folder runs several of a session
    #[arg(help_heading = GLOBAL, long, global = true, value_name = "NAME|ID")]
    member: Option<String>,
    /// Print JSON: one value, or one value a line when following
    #[arg(help_heading = GLOBAL, long, global = true)]
    json: bool,
    /// Say less on stderr
    #[arg(help_heading = GLOBAL, short = 'q', long, global = true)]
    quiet: bool,
    /// Log more (-vv, -vvv: even more)
    #[arg(help_heading = GLOBAL, short = 'v', long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Colours
    #[arg(help_heading = GLOBAL, long, global = true, value_enum, default_value_t = ColourWhen::Auto, value_name = "WHEN")]
    color: ColourWhen,
    /// Never ask anything
    #[arg(help_heading = GLOBAL, long, global = true, env = "COLLAB_P2P_NO_INPUT", value_parser = clap::builder::FalseyValueParser::new())]
    no_input: bool,
    /// Answer yes where deleting asks
    #[arg(help_heading = GLOBAL, long, global = true)]
    yes: bool,
    /// The configuration file
    #[arg(help_heading = GLOBAL, long, global = true, value_name = "FILE", env = "COLLAB_P2P_CONFIG")]
    config: Option<PathBuf>,
    /// Keep state, sockets and logs here
    #[arg(help_heading = GLOBAL, long, global = true, value_name = "DIR", env = "COLLAB_P2P_STATE_DIR")]
    state_dir: Option<PathBuf>,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColourWhen {
    /// On a terminal that has them
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Open a session around a live terminal and print a ticket
    Share(share::ShareArgs),
    /// Join a session by its ticket
    Join(join::JoinArgs),
    /// Go on with a membership that is not running
    Resume(resume::ResumeArgs),
    /// End this membership
    Leave,
    /// End the session for everybody
    Stop,
    /// Show the session, its connections and what waits
    Status(peers::WatchArgs),
    /// List the sessions of this state folder
    List(peers::WatchArgs),
    /// List participants, present and absent
    Who(peers::WatchArgs),
    /// Print the visible rows of a terminal
    Screen(screen::ScreenArgs),
    /// Send bytes to a terminal
    Type(typing::TypeArgs),
    /// Say something, or list what was said
    Chat(chat::ChatArgs),
    /// Ask for, give or take control of a terminal
    Control(control::ControlArgs),
    /// Let a waiting newcomer in
    Approve(control::WhoArgs),
    /// Refuse a waiting newcomer, or who asks for control
    Deny(control::WhoArgs),
    /// Make and show invitations
    Invite(invite::InviteArgs),
    /// Show and check the configuration
    Config(extras::ConfigArgs),
    /// Print completions for a shell
    Completions(extras::CompletionsArgs),
    /// Write manual pages into a folder
    Man(extras::ManArgs),
}

/// Parses the command line, runs it and returns the exit code.
pub fn main() -> i32 {
    let json = std::env::args_os().any(|arg| arg == "--json");
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error, json),
    };
    let json = cli.global.json;
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            error.print(json);
            error.exit_code()
        }
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "kinds of the library, told apart only where we act on them"
)]
fn usage(error: &clap::Error, json: bool) -> i32 {
    if !error.use_stderr() {
        // Help and version go to stdout as clap writes them.
        drop(error.print());
        return 0;
    }
    let text = error.render().to_string();
    let told = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            if !json {
                let commands = commands_of(&help_of(error).unwrap_or(text));
                // With stderr closed nobody can be told.
                drop(std::io::stderr().write_all(commands.as_bytes()));
            }
            CliError::new(Code::Usage, "no command was given")
                .with_help("`collab-p2p COMMAND --help` tells what a command does and takes")
        }
        _ => {
            let message = text
                .trim_start_matches("error: ")
                .split("\n\n")
                .next()
                .unwrap_or_default();
            let message = message.lines().map(str::trim).collect::<Vec<_>>().join(" ");
            let told = CliError::new(Code::Usage, message);
            match hint(error, &text) {
                Some(hint) => told.with_help(hint),
                None => told,
            }
        }
    };
    told.print(json);
    told.exit_code()
}

/// The help of the command that lacks another one.
fn help_of(error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(words)) = error.get(ContextKind::InvalidSubcommand) else {
        return None;
    };
    let mut command = Cli::command();
    command.build();
    for word in words.split_whitespace().skip(1) {
        command = command.find_subcommand(word)?.clone();
    }
    Some(command.render_help().to_string())
}

/// Of a help text, how it is used and which commands there are.
fn commands_of(help: &str) -> String {
    let wanted = |part: &&str| part.starts_with("Usage:") || part.starts_with("Commands:");
    let parts: Vec<&str> = help.split("\n\n").filter(wanted).collect();
    format!("{}\n\n", parts.join("\n\n"))
}

/// What was probably meant.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "kinds of the library, told apart only where we act on them"
)]
fn hint(error: &clap::Error, text: &str) -> Option<String> {
    let kinds = [
        ContextKind::SuggestedSubcommand,
        ContextKind::SuggestedArg,
        ContextKind::SuggestedValue,
    ];
    let first = |value: &ContextValue| match value {
        ContextValue::String(one) => Some(one.clone()),
        // The library puts the nearest last.
        ContextValue::Strings(several) => several.last().cloned(),
        _ => None,
    };
    let near = kinds
        .iter()
        .find_map(|kind| error.get(*kind).and_then(first));
    if let Some(near) = near {
        return Some(format!(
            "did you mean `{near}`? `collab-p2p --help` lists commands and flags"
        ));
    }
    let share =
        text.contains("Usage: collab-p2p share") && error.kind() == ErrorKind::UnknownArgument;
    share.then(|| "a command to share comes after `--`: `collab-p2p share -- CMD`".to_owned())
}

fn run(cli: Cli) -> Result<i32, CliError> {
    let env = config::Environment::read();
    let config = Config::load(&cli.global, &env)?;
    let output = Output::new(&cli.global, &env);
    let context = Context {
        global: cli.global,
        env,
        config,
        output,
    };
    match cli.command {
        Command::Completions(args) => return extras::completions(&args),
        Command::Man(args) => return extras::man(&args),
        Command::Config(args) => return extras::config(&context, &args),
        Command::Share(_)
        | Command::Join(_)
        | Command::Resume(_)
        | Command::Leave
        | Command::Stop
        | Command::Status(_)
        | Command::List(_)
        | Command::Who(_)
        | Command::Screen(_)
        | Command::Type(_)
        | Command::Chat(_)
        | Command::Control(_)
        | Command::Approve(_)
        | Command::Deny(_)
        | Command::Invite(_) => {}
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| CliError::new(Code::Failure, error.to_string()))?;
    let code = runtime.block_on(dispatch(&context, cli.command));
    let code = code.map_err(|error| logging::pointed_at(&context, error));
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    code
}

/// What every command is given.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) global: Global,
    pub(crate) env: config::Environment,
    pub(crate) config: Config,
    pub(crate) output: Output,
}

async fn dispatch(context: &Context, command: Command) -> Result<i32, CliError> {
    foreground::bear_full_files();
    match command {
        Command::Share(args) => share::run(context, args).await,
        Command::Join(args) => join::run(context, args).await,
        Command::Resume(args) => resume::run(context, args).await,
        Command::Leave => session::leave(context).await,
        Command::Stop => session::stop(context).await,
        Command::Status(args) => peers::status(context, &args).await,
        Command::List(args) => peers::list(context, &args).await,
        Command::Who(args) => peers::who(context, &args).await,
        Command::Screen(args) => screen::run(context, &args).await,
        Command::Type(args) => typing::run(context, &args).await,
        Command::Chat(args) => chat::run(context, &args).await,
        Command::Control(args) => control::run(context, &args).await,
        Command::Approve(args) => control::approve(context, &args, true).await,
        Command::Deny(args) => control::approve(context, &args, false).await,
        Command::Invite(args) => invite::run(context, &args).await,
        Command::Config(_) | Command::Completions(_) | Command::Man(_) => Ok(0),
    }
}
