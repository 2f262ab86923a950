//! What the engine refuses, with the stable codes that faces show.

use serde::{Deserialize, Serialize};

/// Stable kebab-case codes; `docs/ERRORS.md` explains each, `cli/error.rs` gives exit code and help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// A bug of ours, or a condition nobody foresaw.
    Failure,
    /// Arguments that make no sense.
    Usage,
    /// Verbs that need a terminal have none.
    NoTerminal,
    /// No ticket was given at all.
    TicketMissing,
    /// An empty ticket.
    TicketEmpty,
    /// A text that is no ticket of ours.
    TicketForeign,
    /// A ticket that was cut.
    TicketTruncated,
    /// A mistyped ticket.
    TicketMalformed,
    /// A text over 8 KiB.
    TicketTooLong,
    /// The time for joining by this ticket is over.
    TicketExpired,
    /// The invitation was revoked.
    TicketRevoked,
    /// The invitation's uses are spent.
    TicketUsedUp,
    /// The ticket's password does not fit.
    PasswordWrong,
    /// A sponsor or a person refused.
    AdmissionRefused,
    /// Nobody decided in time.
    ApprovalTimeout,
    /// No peer could be reached.
    PeerUnreachable,
    /// Something did not happen in time.
    TimedOut,
    /// The role does not allow it.
    NotPermitted,
    /// Typing needs a lease.
    LeaseNotHeld,
    /// The host's person refused.
    Denied,
    /// A bound was reached.
    LimitExceeded,
    /// No such session.
    NoSession,
    /// Several sessions fit.
    WhichSession,
    /// No such participant.
    NoParticipant,
    /// Several participants fit.
    WhichParticipant,
    /// No such terminal.
    NoTerminalShared,
    /// Several terminals fit.
    WhichTerminal,
    /// No such invitation.
    NoInvite,
    /// No such question.
    NoApproval,
    /// Deleting needs `--yes`.
    NeedsYes,
    /// This membership was ended by somebody else.
    Removed,
    /// The session is closed.
    SessionClosed,
    /// Stored state cannot be read.
    StoreCorrupt,
    /// The state folder cannot be written.
    StateUnwritable,
    /// Another process uses this state.
    StateLocked,
    /// The disk is full.
    DiskFull,
    /// The store failed; nothing more is saved until restart.
    StoreFailed,
    /// Another program runs with the same key.
    SecondInstance,
    /// Two histories were written under this key: it is used no more.
    KeyForked,
    /// The configuration cannot be used.
    ConfigBroken,
    /// The other side speaks another version of the protocol.
    VersionMismatch,
    /// Sharing from inside a shared shell.
    Nested,
    /// A file is there already.
    FileExists,
    /// The command could not be started.
    CommandFailed,
    /// The addresses to listen at cannot be used.
    ListenFailed,
    /// The connection was lost in the middle; state is kept.
    Interrupted,
}

impl Code {
    /// The code as text, as in `error[ticket-expired]`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failure => "failure",
            Self::Usage => "usage",
            Self::NoTerminal => "no-terminal",
            Self::TicketMissing => "ticket-missing",
            Self::TicketEmpty => "ticket-empty",
            Self::TicketForeign => "ticket-foreign",
            Self::TicketTruncated => "ticket-truncated",
            Self::TicketMalformed => "ticket-malformed",
            Self::TicketTooLong => "ticket-too-long",
            Self::TicketExpired => "ticket-expired",
            Self::TicketRevoked => "ticket-revoked",
            Self::TicketUsedUp => "ticket-used-up",
            Self::PasswordWrong => "password-wrong",
            Self::AdmissionRefused => "admission-refused",
            Self::ApprovalTimeout => "approval-timeout",
            Self::PeerUnreachable => "peer-unreachable",
            Self::TimedOut => "timed-out",
            Self::NotPermitted => "not-permitted",
            Self::LeaseNotHeld => "lease-not-held",
            Self::Denied => "denied",
            Self::LimitExceeded => "limit-exceeded",
            Self::NoSession => "no-session",
            Self::WhichSession => "which-session",
            Self::NoParticipant => "no-participant",
            Self::WhichParticipant => "which-participant",
            Self::NoTerminalShared => "no-terminal-shared",
            Self::WhichTerminal => "which-terminal",
            Self::NoInvite => "no-invite",
            Self::NoApproval => "no-approval",
            Self::NeedsYes => "needs-yes",
            Self::Removed => "removed",
            Self::SessionClosed => "session-closed",
            Self::StoreCorrupt => "store-corrupt",
            Self::StateUnwritable => "state-unwritable",
            Self::StateLocked => "state-locked",
            Self::DiskFull => "disk-full",
            Self::StoreFailed => "store-failed",
            Self::SecondInstance => "second-instance",
            Self::KeyForked => "key-forked",
            Self::ConfigBroken => "config-broken",
            Self::VersionMismatch => "version-mismatch",
            Self::Nested => "nested",
            Self::FileExists => "file-exists",
            Self::CommandFailed => "command-failed",
            Self::ListenFailed => "listen-failed",
            Self::Interrupted => "interrupted",
        }
    }
}
