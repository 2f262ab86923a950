//! What a person reads when something fails: `error[code]: what failed and why`, `help: what to do next`, and
//! the exit code of INTERFACES §1.

use std::io::Write;

use crate::engine::command::CommandError;
use crate::engine::documents::text::inert;
use crate::engine::error::Code;

/// A failure on its way to the person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CliError {
    /// The stable code.
    pub code: Code,
    /// What failed and why.
    pub message: String,
    /// What to do next; the code's own text unless something better is known.
    pub help: Option<String>,
}

impl CliError {
    /// A failure with the code's own help.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            help: None,
        }
    }

    /// The same failure with better help.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The exit code.
    pub fn exit_code(&self) -> i32 {
        exit_code(self.code)
    }

    /// Prints the failure on stderr, as text or as one line of JSON.
    pub fn print(&self, json: bool) {
        let help = self.help.as_deref().unwrap_or_else(|| help(self.code));
        let code = self.code.as_str();
        let text = if json {
            let error = serde_json::json!({
                "error": {"code": code, "message": self.message, "help": help}
            });
            format!("{error}\n")
        } else {
            // What was given is named in some messages; a terminal must not obey it.
            let (message, help) = (shown(&self.message), shown(help));
            format!("error[{code}]: {message}\nhelp: {help}\n")
        };
        // With stderr closed nobody can be told.
        drop(std::io::stderr().write_all(text.as_bytes()));
    }
}

/// Each line as inert text.
fn shown(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(inert).collect();
    lines.join("\n")
}

impl From<CommandError> for CliError {
    fn from(error: CommandError) -> Self {
        Self::new(error.code, error.message)
    }
}

/// The exit code of each error code.
pub fn exit_code(code: Code) -> i32 {
    match code {
        Code::Failure | Code::FileExists | Code::CommandFailed | Code::ListenFailed => 1,
        Code::Usage | Code::NoTerminal | Code::TicketMissing | Code::Nested => 2,
        Code::NoSession
        | Code::NoParticipant
        | Code::NoTerminalShared
        | Code::NoInvite
        | Code::NoApproval => 3,
        Code::TicketEmpty
        | Code::TicketForeign
        | Code::TicketTruncated
        | Code::TicketMalformed
        | Code::TicketTooLong
        | Code::TicketExpired
        | Code::TicketRevoked
        | Code::TicketUsedUp
        | Code::PasswordWrong
        | Code::AdmissionRefused
        | Code::NotPermitted
        | Code::LeaseNotHeld
        | Code::Denied
        | Code::LimitExceeded
        | Code::Removed
        | Code::SessionClosed => 4,
        Code::ApprovalTimeout | Code::PeerUnreachable | Code::TimedOut => 5,
        Code::WhichSession | Code::WhichParticipant | Code::WhichTerminal | Code::NeedsYes => 6,
        Code::Interrupted => 7,
        Code::StoreCorrupt
        | Code::StateUnwritable
        | Code::StateLocked
        | Code::DiskFull
        | Code::StoreFailed
        | Code::SecondInstance
        | Code::KeyForked
        | Code::ConfigBroken => 8,
        Code::VersionMismatch => 9,
    }
}

/// What to do next, where nothing better is known.
pub fn help(code: Code) -> &'static str {
    match code {
        Code::Failure => {
            "run the command again with -v and read log/collab-p2p.log in the state folder"
        }
        Code::Usage => "`collab-p2p --help` lists commands and flags",
        Code::NoTerminal => {
            "run it in a terminal, or with --headless and the verbs `screen` and `type`"
        }
        Code::TicketMissing => {
            "give the ticket that `collab-p2p share` printed, or `-` to read it from stdin"
        }
        Code::TicketEmpty => "copy the whole line that `collab-p2p share` printed",
        Code::TicketForeign => {
            "a ticket begins with cp2p1; copy the line that `collab-p2p share` printed"
        }
        Code::TicketTruncated => "the end is missing; copy the whole line, it has no line break",
        Code::TicketMalformed => "some character is wrong; copy the line instead of typing it",
        Code::TicketTooLong => "a ticket is one line of at most 8 KiB",
        Code::TicketExpired | Code::TicketRevoked | Code::TicketUsedUp => {
            "ask the host for a new one: `collab-p2p invite create`"
        }
        Code::PasswordWrong => "ask the host for the password",
        Code::AdmissionRefused => "ask the host; `collab-p2p invite create` makes another ticket",
        Code::ApprovalTimeout => {
            "ask the host to be ready for `collab-p2p approve`, then join again"
        }
        Code::PeerUnreachable => {
            "check that the host still shares and is on this network; --addr names an address"
        }
        Code::TimedOut => "try again, or wait longer with --timeout",
        Code::NotPermitted => "ask somebody with that right; `collab-p2p who` shows roles",
        Code::LeaseNotHeld => "ask for control: `collab-p2p control request --wait`, or Ctrl-] r",
        Code::Denied => "talk to the host: `collab-p2p chat TEXT`",
        Code::LimitExceeded => "wait a moment, or send less at once",
        Code::NoSession => "`collab-p2p list` shows sessions; `share` or `join` begins one",
        Code::WhichSession => "name one with -s",
        Code::NoParticipant => "`collab-p2p who` lists participants",
        Code::WhichParticipant => "use an id from `collab-p2p who`",
        Code::NoTerminalShared => "`collab-p2p status` lists the session's terminals",
        Code::WhichTerminal => "name one with -t",
        Code::NoInvite => "`collab-p2p invite list` shows invitations",
        Code::NoApproval => "`collab-p2p status` shows who waits",
        Code::NeedsYes => "add --yes if you are sure",
        Code::Removed => "ask the host for a new ticket",
        Code::SessionClosed => "the session is over; its host can share again",
        Code::StoreCorrupt => "join again with a ticket; members still have what was said",
        Code::StateUnwritable => "make the folder writable, or choose another with --state-dir",
        Code::StateLocked => "another process uses this membership; `collab-p2p list` shows it",
        Code::DiskFull => {
            "free some space; a node that runs goes on by itself, its terminal meanwhile"
        }
        Code::StoreFailed => "check the disk, then start again; nothing unsaved was sent",
        Code::SecondInstance => {
            "end one of the two programs that use copies of this folder; the other goes on by itself"
        }
        Code::KeyForked => {
            "join as a new member: `collab-p2p join --name NAME TICKET`, with a name not used here before"
        }
        Code::ConfigBroken => {
            "correct the file (`collab-p2p config path` names it), then try `collab-p2p config check`"
        }
        Code::VersionMismatch => "use the same version of collab-p2p on both sides",
        Code::Nested => "add --nested if you really want to share from inside a shared shell",
        Code::FileExists => "choose another name, or remove the file",
        Code::CommandFailed => "check the command and its path",
        Code::ListenFailed => "choose another address or port with --listen",
        Code::Interrupted => "run `collab-p2p resume`; nothing that was saved is lost",
    }
}
