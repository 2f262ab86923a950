//! Everything that can happen to a session: plain facts, reported by the adapters and the faces.

use crate::engine::address::{Addr, Network};
use crate::engine::command::{Command, CommandError};
use crate::engine::ids::{MemberId, TerminalId, TopicId};

/// A connection to a peer, numbered by the net adapter, never reused in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// A stream on a connection. Even numbers are opened here (numbered by the engine), odd ones by the peer
/// (numbered by the net adapter); never reused in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

impl StreamId {
    /// Whether this side has opened it.
    pub fn is_opened_here(self) -> bool {
        self.0.is_multiple_of(2)
    }
}

/// A request of a face, to be answered by one [`crate::engine::effect::Effect::Reply`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A gossip message awaiting a verdict, numbered by the net adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GossipId(pub u64);

/// What a stream carries. Each is a protocol of its own on the wire, so that a connection offers only what its
/// peer has proven itself for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// The steps from ticket to member. The only lane open to strangers.
    Admission,
    /// Hello, heartbeat, vectors, membership, catch-up, control of terminals.
    Control,
    /// Keys for a terminal and their acknowledgements.
    Input,
    /// Screen updates of one terminal from parent to child.
    Screen,
}

/// How a peer is reached.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Path {
    /// The same machine.
    Loopback,
    /// A network of our own interfaces.
    Lan,
    /// A direct connection beyond the local network.
    Direct,
    /// Through a relay.
    Relayed,
}

/// How a peer's addresses became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Multicast DNS.
    Mdns,
    /// The run folder of this user on this machine.
    Folder,
    /// The ticket, or a flag of the person.
    Ticket,
    /// A member's signed addresses.
    Member,
}

/// Why a stream or connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// In order.
    Finished,
    /// The peer does not speak this lane with us.
    Unsupported,
    /// A message broke a limit of the lane.
    TooLarge,
    /// The network or the peer failed.
    Failed(String),
}

/// How a child of a terminal ended: its exit code, or 128 + signal.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct ExitStatus(pub i32);

/// A fact.
#[derive(Debug)]
pub enum Event {
    /// Time has passed; deadlines may be due.
    Tick,
    /// A face asks for something.
    Command {
        /// Names the reply.
        request: RequestId,
        /// What is asked.
        command: Command,
    },
    /// A network fact.
    Net(NetEvent),
    /// A fact of a local terminal.
    Pty {
        /// Which.
        terminal: TerminalId,
        /// What happened.
        event: PtyEvent,
    },
    /// A commit failed. Nothing of it was told to anybody; log and documents neither grow nor are passed on until
    /// [`Event::CommittedAgain`] or the next start.
    CommitFailed {
        /// Why, for the person. After [`Code::DiskFull`] it is tried again.
        ///
        /// [`Code::DiskFull`]: crate::engine::error::Code::DiskFull
        error: CommandError,
    },
    /// What could not be committed is on disk now.
    CommittedAgain,
}

/// A fact of the network.
#[derive(Debug)]
pub enum NetEvent {
    /// The addresses at which we are reached now (concrete, loopback included).
    Listening(Vec<Addr>),
    /// The networks of our interfaces. Comes before the first `Listening` and after each change.
    Networks(Vec<Network>),
    /// An address of ours went away: connections over it are dead.
    AddressExpired,
    /// A peer may be reachable.
    Discovered {
        /// Who, if the source says so.
        peer: MemberId,
        /// Where.
        addrs: Vec<Addr>,
        /// Who says so.
        source: Source,
    },
    /// A connection stands: transport handshake done, peer's key proven.
    Connected {
        /// Its number.
        conn: ConnId,
        /// The key that the peer proved.
        peer: MemberId,
        /// Whether we dialled.
        outbound: bool,
        /// How it goes.
        path: Path,
        /// Whether it has a member's lanes (else admission only); decided when it was made.
        member: bool,
    },
    /// A connection is gone, with all its streams.
    Disconnected {
        /// Which.
        conn: ConnId,
        /// Why.
        ended: Ended,
    },
    /// None of the addresses of a dial led to the peer.
    DialFailed {
        /// Who was meant.
        peer: MemberId,
        /// For the person and the log.
        reason: String,
    },
    /// The peer opened a stream.
    StreamOpened {
        /// On which connection.
        conn: ConnId,
        /// Its number (odd).
        stream: StreamId,
        /// What it carries.
        lane: Lane,
    },
    /// A whole message came in.
    StreamReceived {
        /// On which stream.
        stream: StreamId,
        /// The message, within the lane's size limit.
        message: Vec<u8>,
    },
    /// All that was given to the stream is handed to the transport, and it takes more. Also reported once when
    /// a stream that we opened is agreed upon.
    StreamReady {
        /// Which stream.
        stream: StreamId,
    },
    /// A stream is gone.
    StreamClosed {
        /// Which.
        stream: StreamId,
        /// Why.
        ended: Ended,
    },
    /// A gossip message came in and awaits a verdict.
    Gossip {
        /// Names the verdict.
        id: GossipId,
        /// Which neighbour passed it on.
        from: MemberId,
        /// The topic.
        topic: TopicId,
        /// The message.
        data: Vec<u8>,
    },
}

/// A fact of a local terminal.
#[derive(Debug)]
pub enum PtyEvent {
    /// Bytes that the child wrote.
    Output(Vec<u8>),
    /// The PTY has taken this many bytes of input since it was opened.
    Written(u64),
    /// Input that the PTY had not taken was thrown away; it had taken this many bytes since it was opened.
    Withdrawn(u64),
    /// The child ended and its output is drained.
    Exited(ExitStatus),
    /// The child could not be started.
    Failed(String),
}
