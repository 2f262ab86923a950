//! Everything a session can ask of the world: *handle → persist → perform*.
//!
//! The driver commits an outcome's batch before it performs its effects, and keeps their order also across
//! outcomes. What is live (screens, input, presence, terminals) persists nothing and does not wait.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::engine::address::Addr;
use crate::engine::command::{CommandError, Reply};
use crate::engine::event::{ConnId, GossipId, Lane, RequestId, StreamId};
use crate::engine::ids::{MemberId, TerminalId, TopicId};
use crate::engine::persist::Batch;
use crate::engine::view::SessionEvent;

/// What one event leads to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// To be committed first.
    pub persist: Batch,
    /// To be performed once this batch and those before it are on disk, in order.
    pub effects: Vec<Effect>,
    /// To be performed at once, in order: streams of screens and input, presence, local terminals.
    pub live: Vec<Effect>,
}

/// A verdict on a gossip message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// New and good: pass it on.
    Accept,
    /// Known already, or not checkable here: do not pass it on, blame nobody.
    Ignore,
    /// Refused by the gate: do not pass it on.
    Reject,
}

/// How a child process of a terminal is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PtySpec {
    /// Program and arguments; never shared.
    pub argv: Vec<String>,
    /// Working directory.
    pub cwd: Option<PathBuf>,
    /// Variables to set (name, value).
    pub env: Vec<(String, String)>,
    /// Columns.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
}

/// Why the node should end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// The session is closed for all; the host's child ended with this status, if it is known.
    Closed(Option<crate::engine::event::ExitStatus>),
    /// This membership ended by its own wish.
    Left,
    /// This membership was ended by somebody else.
    Removed,
    /// Joining failed for good.
    JoinFailed(CommandError),
    /// The person asked to go offline.
    Offline,
    /// The network adapter, or the operating system beneath it, failed.
    NetworkFailed,
    /// The node itself failed, by a fault of this program.
    Broken,
}

/// A request to the world.
#[derive(Debug)]
pub enum Effect {
    /// To the network.
    Net(NetEffect),
    /// To a local terminal.
    Pty {
        /// Which.
        terminal: TerminalId,
        /// What.
        effect: PtyEffect,
    },
    /// The answer to a command.
    Reply {
        /// Which command.
        request: RequestId,
        /// The answer.
        result: Result<Reply, CommandError>,
    },
    /// Something faces may want to tell the person.
    Emit(SessionEvent),
    /// The node should end after what precedes is performed.
    Stop(StopReason),
}

/// A request to the network.
#[derive(Debug)]
pub enum NetEffect {
    /// The keys that get a member's lanes on connections made from now on.
    SetMembers(BTreeSet<MemberId>),
    /// Connect to `peer` at any of these addresses; one connection at most comes of it.
    Dial {
        /// Whose key must be proven.
        peer: MemberId,
        /// At most eight.
        addrs: Vec<Addr>,
    },
    /// Close a connection once what was sent on it is flushed, within a second.
    Close {
        /// Which.
        conn: ConnId,
    },
    /// Open a stream.
    OpenStream {
        /// On which connection.
        conn: ConnId,
        /// Its number (even).
        stream: StreamId,
        /// What it carries.
        lane: Lane,
    },
    /// Send a message on a stream.
    Send {
        /// Which.
        stream: StreamId,
        /// The message.
        message: Vec<u8>,
    },
    /// Close a stream after what was sent.
    CloseStream {
        /// Which.
        stream: StreamId,
    },
    /// Take part in a topic.
    Subscribe(TopicId),
    /// Tell all neighbours, best effort.
    Publish {
        /// The topic.
        topic: TopicId,
        /// The message.
        data: Vec<u8>,
    },
    /// The verdict on a gossip message.
    Judge {
        /// Which.
        id: GossipId,
        /// The verdict.
        verdict: Verdict,
    },
}

/// A request to a local terminal.
#[derive(Debug)]
pub enum PtyEffect {
    /// Start the child.
    Spawn(PtySpec),
    /// Give it input. Only what the lease allowed can be written.
    Write(crate::engine::control::Authorized<Vec<u8>>),
    /// Output that this turn had no time for: report it once more, before anything else of this terminal.
    Return(Vec<u8>),
    /// Throw away input that the PTY has not taken, and report [`crate::engine::event::PtyEvent::Withdrawn`].
    DropInput,
    /// Change the window size.
    Resize {
        /// Columns.
        cols: u16,
        /// Rows.
        rows: u16,
    },
    /// End the child: SIGHUP, grace, SIGKILL.
    Hangup,
}

/// Of the effects of a batch that was not kept: what is performed all the same, and what faces are told once it is
/// kept. Questioners get a refusal, peers are told nothing, and connections, streams and terminals go on.
pub fn unkept(effects: Vec<Effect>, refusal: &CommandError) -> (Vec<Effect>, Vec<Effect>) {
    let (mut now, mut later) = (Vec::new(), Vec::new());
    for effect in effects {
        match effect {
            Effect::Reply { request, result: _ } => {
                let message = format!("this is not saved, and nobody is told: {refusal}");
                let result = Err(CommandError::new(refusal.code, message));
                now.push(Effect::Reply { request, result });
            }
            Effect::Net(NetEffect::Send { .. } | NetEffect::Publish { .. }) => {}
            Effect::Net(NetEffect::Judge { id, .. }) => {
                let verdict = Verdict::Ignore;
                now.push(Effect::Net(NetEffect::Judge { id, verdict }));
            }
            Effect::Net(
                NetEffect::SetMembers(_)
                | NetEffect::Dial { .. }
                | NetEffect::Close { .. }
                | NetEffect::OpenStream { .. }
                | NetEffect::CloseStream { .. }
                | NetEffect::Subscribe(_),
            )
            | Effect::Pty { .. }
            | Effect::Stop(_) => now.push(effect),
            Effect::Emit(_) => later.push(effect),
        }
    }
    (now, later)
}
