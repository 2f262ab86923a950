//! Where a node keeps things: one folder per (session, member) under the state folder, sockets and the
//! registry of running nodes under the run folder (INTERFACES §4).
//!
//! ```text
//! <state>/sessions/<16 hex of session>-<8 hex of member>/   lock  member  store.key  store.redb
//! <state>/log/
//! <run>/<8 hex>.sock      <run>/nodes/<8 hex>.json      <run>/machine.key
//! ```
//!
//! Every folder is 0700 and every file 0600; a folder of another user is refused. Nothing here holds a name,
//! a title or a word of chat in clear: memberships are found by name through keyed marks, and listed by a label that
//! is sealed under the folder's store key.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER};
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::{Pid, geteuid};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use crate::engine::address::Addr;
use crate::engine::capability::Role;
use crate::engine::error::Code;
use crate::engine::ids::{MemberId, SessionId, TopicId};
use crate::engine::persist::{Key, Table};
use crate::engine::time::Wall;
use crate::store::disk::{
    Disk, STORE_FILE, draw_entropy, load_or_create_key, read_capped, read_key, write_atomically,
};
use crate::store::{Store, StoreError};

/// Longest socket path in bytes; the kernel's own limit is 104 to 108.
const SOCKET_PATH_BYTES_MAX: usize = 100;
/// Longest info or registry file.
const INFO_BYTES_MAX: usize = 16 << 10;
/// Running nodes that the registry is read for.
const NODES_MAX: usize = 256;
/// How often a lock is tried: whoever lists memberships holds it for an instant.
const LOCK_TRIES: u32 = 10;
/// Pause between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// How often a store is tried that its node has just let go of.
const RELEASE_TRIES: u32 = 100;

/// A folder that does not say yet whose it is may be in the making for so long.
const UNFINISHED_MS: u64 = 3_600_000;

const INFO_FILE: &str = "member";
const LOCK_FILE: &str = "lock";
const MACHINE_FILE: &str = "machine.key";

/// What the environment says about places. The command line reads it; nothing here does.
#[derive(Debug, Clone, Default)]
pub struct EnvPaths {
    /// `$XDG_STATE_HOME`; a relative one does not count.
    pub state_home: Option<PathBuf>,
    /// `$XDG_RUNTIME_DIR`; a relative one does not count.
    pub runtime_dir: Option<PathBuf>,
    /// The user's home.
    pub home: Option<PathBuf>,
    /// The system's folder for temporary files.
    pub temp: PathBuf,
}

/// The folders of this user. They are made when they are first needed.
#[derive(Debug, Clone)]
pub struct Folders {
    state: PathBuf,
    run: PathBuf,
    temp: PathBuf,
    /// Whether the state folder is ours by name, so that its permissions may be tightened; a folder that the
    /// person chose keeps its own.
    ours: bool,
}

/// Whose machine a membership's terminal runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberKind {
    /// The member opened the session here; `resume` alone reopens it.
    Host,
    /// The member joined by ticket.
    Guest,
}

/// Ports that a node had, so that it listens there again and old tickets keep working.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ports {
    /// TCP.
    pub tcp: Option<u16>,
    /// UDP, for QUIC.
    pub udp: Option<u16>,
}

/// A membership as its folder tells it without being opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberInfo {
    /// The session.
    pub session: SessionId,
    /// The member.
    pub member: MemberId,
    /// Host or guest.
    pub kind: MemberKind,
    /// When it was made.
    pub created: Wall,
    /// When a node last used it.
    pub last_used: Wall,
    /// Ports it had.
    pub ports: Ports,
    /// Whether the membership is over; it is then never resumed.
    pub ended: bool,
    /// Whether a process runs it.
    pub running: bool,
    /// Its folder.
    pub path: PathBuf,
    marks: Marks,
    sealed: Option<String>,
}

/// What a membership is called, as its node last knew it. At rest it is sealed under the folder's store key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// The session's title.
    pub title: String,
    /// The member's name.
    pub name: String,
    /// The member's role.
    pub role: Role,
}

/// A membership's folder, locked for this process until dropped.
#[derive(Debug)]
pub struct MemberFolder {
    path: PathBuf,
    info: InfoFile,
    /// Held, never read: the lock lives as long as the file is open.
    _lock: File,
}

/// A running node, as it tells other processes of this user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// The session.
    pub session: SessionId,
    /// The session's topic for discovery: what holders of an old ticket look for.
    pub topic: TopicId,
    /// The member.
    pub member: MemberId,
    /// Host or guest.
    pub kind: MemberKind,
    /// The process.
    pub pid: u32,
    /// Where it listens.
    #[serde(with = "as_text")]
    pub listen: Vec<Addr>,
    /// Its local API.
    pub socket: PathBuf,
    /// The state folder that its membership lives in.
    pub state: PathBuf,
}

/// A running node's entry in the registry; it goes when this is dropped.
#[derive(Debug)]
pub struct Registration {
    path: PathBuf,
    record: NodeRecord,
}

/// The socket of a running node's local API; the file goes when this is dropped.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    listener: UnixListener,
}

/// The secret by which nodes of one user on one machine know each other's loopback addresses.
#[derive(Clone)]
pub struct MachineMark(Zeroizing<[u8; 32]>);

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// There is nowhere to keep state.
    #[error("neither HOME nor XDG_STATE_HOME names a folder to keep state in")]
    NoHome,
    /// Permissions or a read-only mount.
    #[error("{} cannot be written: {reason}", path.display())]
    Unwritable {
        /// What.
        path: PathBuf,
        /// As the system says.
        reason: String,
    },
    /// It belongs to somebody else, who could read or change what we keep there.
    #[error("{} belongs to the user with number {owner}, not to you", path.display())]
    ForeignOwner {
        /// What.
        path: PathBuf,
        /// Whose.
        owner: u32,
    },
    /// Something that is no folder stands in the way.
    #[error("{} is not a folder", path.display())]
    NoFolder {
        /// What.
        path: PathBuf,
    },
    /// Another process runs this membership.
    #[error("another process uses {}", path.display())]
    Locked {
        /// What.
        path: PathBuf,
    },
    /// There is no such membership here.
    #[error("there is no membership in {}", path.display())]
    Missing {
        /// Where.
        path: PathBuf,
    },
    /// A file does not hold what it must.
    #[error("{} is damaged: {reason}", path.display())]
    Broken {
        /// What.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The disk is full.
    #[error("the disk is full: {} could not be written", path.display())]
    DiskFull {
        /// What.
        path: PathBuf,
    },
    /// Anything else the system says.
    #[error("{} cannot be used: {reason}", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// As the system says.
        reason: String,
    },
}

impl FolderError {
    /// The stable code that people and scripts see.
    pub fn code(&self) -> Code {
        match self {
            Self::NoHome
            | Self::Unwritable { .. }
            | Self::ForeignOwner { .. }
            | Self::NoFolder { .. }
            | Self::Io { .. } => Code::StateUnwritable,
            Self::Locked { .. } => Code::StateLocked,
            Self::Missing { .. } => Code::NoSession,
            Self::Broken { .. } => Code::StoreCorrupt,
            Self::DiskFull { .. } => Code::DiskFull,
        }
    }
}

impl Folders {
    /// Decides where things go. `--state-dir` moves state, sockets and logs, whatever the environment says.
    ///
    /// # Errors
    /// [`FolderError::NoHome`] if there is nowhere to go.
    pub fn resolve(state_dir: Option<PathBuf>, env: &EnvPaths) -> Result<Self, FolderError> {
        let temp = env.temp.clone();
        if let Some(state) = state_dir {
            let state = std::path::absolute(&state).map_err(|error| failed(&state, &error))?;
            return Ok(Self {
                run: state.join("run"),
                state,
                temp,
                ours: false,
            });
        }
        let absolute = |path: &Option<PathBuf>| path.clone().filter(|path| path.is_absolute());
        let home = || absolute(&env.home).map(|home| home.join(".local/state"));
        let base = absolute(&env.state_home)
            .or_else(home)
            .ok_or(FolderError::NoHome)?;
        let state = base.join("collab-p2p");
        let run = absolute(&env.runtime_dir)
            .map_or_else(|| state.join("run"), |base| base.join("collab-p2p"));
        Ok(Self {
            state,
            run,
            temp,
            ours: true,
        })
    }

    /// The state folder.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The folder of sockets and of the registry.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// The folder for logs, made where it is missing.
    ///
    /// # Errors
    /// If it cannot be made or is not ours.
    pub fn log(&self) -> Result<PathBuf, FolderError> {
        self.state_folder("log")
    }

    /// Makes the folder of a new membership and locks it.
    ///
    /// # Errors
    /// [`FolderError::Locked`] if it is there and in use, [`FolderError::Broken`] if another membership has
    /// its name, and what the file system says.
    pub fn create_member(
        &self,
        session: SessionId,
        member: MemberId,
        kind: MemberKind,
        now: Wall,
    ) -> Result<MemberFolder, FolderError> {
        let sessions = self.state_folder("sessions")?;
        self.remove_leftovers(now);
        let path = sessions.join(folder_name(session, member));
        private_folder(&path)?;
        let lock = lock(&path)?;
        let info = match read_info(&path) {
            Err(FolderError::Missing { .. }) => InfoFile::new(session, member, kind, now),
            other => other?.of(&path, session, member)?,
        };
        drop(load_or_create_key(&path).map_err(|error| stored(&path, error))?);
        let mut folder = MemberFolder {
            path,
            info,
            _lock: lock,
        };
        folder.touch(now)?;
        Ok(folder)
    }

    /// Opens the folder of a membership that is here and locks it.
    ///
    /// # Errors
    /// [`FolderError::Missing`] if there is none, [`FolderError::Locked`] if another process runs it, and
    /// what the file system says.
    pub fn open_member(
        &self,
        session: SessionId,
        member: MemberId,
        now: Wall,
    ) -> Result<MemberFolder, FolderError> {
        let path = self.sessions().join(folder_name(session, member));
        if !path.join(INFO_FILE).exists() {
            return Err(FolderError::Missing { path });
        }
        private_folder(&path)?;
        let lock = lock(&path)?;
        let info = read_info(&path)?.of(&path, session, member)?;
        let mut folder = MemberFolder {
            path,
            info,
            _lock: lock,
        };
        folder.touch(now)?;
        Ok(folder)
    }

    /// Removes what joins left that were killed before anybody let them in: nobody can go on with it. What a process
    /// holds, and what is too young to tell, stays; and so does what a person keeps beside it: a state folder may be
    /// any folder.
    fn remove_leftovers(&self, now: Wall) {
        for path in entries(&self.sessions()).filter(|path| has_our_shape(path)) {
            let left = match read_info(&path) {
                Ok(_) => member_info(path.clone()).is_ok_and(|member| member.never_was()),
                Err(FolderError::Missing { .. }) => is_unfinished(&path, now),
                Err(_) => false,
            };
            if left && let Err(error) = remove_unused(&path, MemberKind::Guest) {
                tracing::debug!(%error, "a folder that nobody used stays");
            }
        }
    }

    /// All memberships here, the most recently used first. A folder that cannot be read is passed over with
    /// a warning, and so is what a join leaves that was killed before anybody let it in.
    pub fn list(&self) -> Vec<MemberInfo> {
        let mut members: Vec<MemberInfo> = entries(&self.sessions())
            .filter(|path| path.join(INFO_FILE).exists())
            .filter_map(|path| member_info(path).inspect_err(warn).ok())
            .filter(|member| !member.never_was())
            .collect();
        members.sort_by(|a, b| {
            b.last_used
                .cmp(&a.last_used)
                .then_with(|| a.path.cmp(&b.path))
        });
        members
    }

    /// The membership that `resume` means when it is given none.
    pub fn most_recent_not_running(&self) -> Option<MemberInfo> {
        self.list()
            .into_iter()
            .find(|member| !member.running && !member.ended)
    }

    /// The guest's membership that `join` resumes: one that is not running and has the given name, or the
    /// only one where no name is given.
    pub fn resumable_guest(&self, session: SessionId, name: Option<&str>) -> Option<MemberInfo> {
        let mut guests = self.list().into_iter().filter(|member| {
            let fits = member.session == session && member.kind == MemberKind::Guest;
            fits && !member.running && !member.ended
        });
        match name {
            Some(name) => guests.find(|member| member.is_named(name)),
            None => guests.next().filter(|_| guests.next().is_none()),
        }
    }

    /// Where the socket of a member's node goes: in the run folder, or, where that path would be too long,
    /// in a folder of this user under the system's temporary folder. The folder is made and checked.
    ///
    /// # Errors
    /// If the folder cannot be made or is not ours.
    pub fn socket_path(&self, member: MemberId) -> Result<PathBuf, FolderError> {
        let direct = self.run.join(format!("{}.sock", first_hex(&member.0, 4)));
        if direct.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
            self.run_folder()?;
            return Ok(direct);
        }
        let folder = self.temp.join(format!("collab-p2p-{}", geteuid()));
        private_folder(&folder)?;
        // Run folders that are too long share this one, so their names go into the socket's.
        let mut hasher = blake3::Hasher::new();
        hasher
            .update(&member.0)
            .update(self.run.as_os_str().as_encoded_bytes());
        Ok(folder.join(format!(
            "{}.sock",
            first_hex(hasher.finalize().as_bytes(), 4)
        )))
    }

    /// Binds the socket of a member's node, 0600, replacing one whose process is dead.
    ///
    /// # Errors
    /// [`FolderError::Locked`] if a live process answers there, and what the file system says.
    pub fn bind_socket(&self, member: MemberId) -> Result<Socket, FolderError> {
        let path = self.socket_path(member)?;
        if answers(&path) {
            return Err(FolderError::Locked { path });
        }
        remove_if_there(&path)?;
        let listener = UnixListener::bind(&path).map_err(|error| failed(&path, &error))?;
        let socket = Socket { path, listener };
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(&socket.path, private).map_err(|error| failed(&socket.path, &error))?;
        Ok(socket)
    }

    /// Tells other processes of this user that a node runs. Its socket must be bound already.
    ///
    /// # Errors
    /// What the file system says.
    pub fn register(&self, record: NodeRecord) -> Result<Registration, FolderError> {
        let folder = self.nodes_folder()?;
        let path = folder.join(format!("{}.json", first_hex(&record.member.0, 4)));
        write_json(&path, &record)?;
        Ok(Registration { path, record })
    }

    /// Running nodes of this user that share this run folder, ordered by file name. Entries of dead
    /// processes are removed on the way.
    pub fn nodes(&self) -> Vec<NodeRecord> {
        let files = entries(&self.run.join("nodes")).take(NODES_MAX);
        files.filter_map(|path| live_node(&path)).collect()
    }

    /// Running nodes whose memberships live in this state folder: those that a verb may speak to.
    pub fn own_nodes(&self) -> Vec<NodeRecord> {
        let mut nodes = self.nodes();
        nodes.retain(|node| node.state == self.state);
        nodes
    }

    /// Nodes of the session that run on this machine for this user, by its topic.
    pub fn nearby(&self, topic: TopicId) -> Vec<NodeRecord> {
        let mut nodes = self.nodes();
        nodes.retain(|node| node.topic == topic);
        nodes
    }

    /// The secret of this user's nodes on this machine, drawn when first asked for.
    ///
    /// # Errors
    /// What the file system says.
    pub fn machine_mark(&self) -> Result<MachineMark, FolderError> {
        let path = self.run_folder()?.join(MACHINE_FILE);
        if !path.exists() {
            draw_machine_mark(&path).map_err(|error| failed(&path, &error))?;
        }
        let bytes = Zeroizing::new(read_capped(&path, 32).map_err(|error| failed(&path, &error))?);
        let secret = <[u8; 32]>::try_from(bytes.as_slice());
        secret
            .map(|secret| MachineMark(Zeroizing::new(secret)))
            .map_err(|_| FolderError::Broken {
                path,
                reason: "it is not 32 bytes long".to_owned(),
            })
    }

    fn sessions(&self) -> PathBuf {
        self.state.join("sessions")
    }

    fn state_folder(&self, name: &str) -> Result<PathBuf, FolderError> {
        self.state_root()?;
        let path = self.state.join(name);
        private_folder(&path).map(|()| path)
    }

    fn state_root(&self) -> Result<(), FolderError> {
        if self.ours {
            private_folder(&self.state)
        } else {
            chosen_folder(&self.state)
        }
    }

    fn run_folder(&self) -> Result<&Path, FolderError> {
        if self.run.starts_with(&self.state) {
            self.state_root()?;
        }
        private_folder(&self.run).map(|()| self.run.as_path())
    }

    fn nodes_folder(&self) -> Result<PathBuf, FolderError> {
        let path = self.run_folder()?.join("nodes");
        private_folder(&path).map(|()| path)
    }
}

impl MemberInfo {
    /// Whether the member last ran under this name.
    pub fn is_named(&self, name: &str) -> bool {
        self.marks.name.is_some() && self.marks.name == self.mark(name)
    }

    /// Whether the session last had this title.
    pub fn is_titled(&self, title: &str) -> bool {
        self.marks.title.is_some() && self.marks.title == self.mark(title)
    }

    /// What the membership is called, if its node ever said so and the folder's key is sound.
    pub fn label(&self) -> Option<Label> {
        let sealed = BASE64.decode(self.sealed.as_ref()?.as_bytes()).ok()?;
        let opened = read_key(&self.path).ok()?.open(&label_place(), &sealed)?;
        serde_json::from_slice(&opened).ok()
    }

    /// Whether nobody ever let this guest in. Its folder is locked while it is looked into, so that no node begins
    /// there meanwhile.
    fn never_was(&self) -> bool {
        let suspect = self.kind == MemberKind::Guest && self.marks.name.is_none();
        suspect
            && !self.running
            && !self.ended
            && lock(&self.path).is_ok_and(|_held| holds_nothing(&self.path))
    }

    fn mark(&self, text: &str) -> Option<String> {
        read_key(&self.path).ok().map(|key| mark_of(&key, text))
    }
}

impl MemberFolder {
    /// The folder: `store.redb` and `store.key` go here.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The session.
    pub fn session(&self) -> SessionId {
        self.info.session
    }

    /// The member.
    pub fn member(&self) -> MemberId {
        self.info.member
    }

    /// Host or guest.
    pub fn kind(&self) -> MemberKind {
        self.info.kind
    }

    /// Ports the node had.
    pub fn ports(&self) -> Ports {
        self.info.ports
    }

    /// Notes that the membership is used now, so that `resume` finds the newest.
    ///
    /// # Errors
    /// What the file system says, as with all that follow.
    pub fn touch(&mut self, now: Wall) -> Result<(), FolderError> {
        self.change(|info| info.last_used = info.last_used.max(now))
    }

    /// Notes the ports that the node listens at.
    ///
    /// # Errors
    /// What the file system says.
    pub fn set_ports(&mut self, ports: Ports) -> Result<(), FolderError> {
        self.change(|info| info.ports = ports)
    }

    /// Notes what the membership is called, sealed, and marks of name and title, by which the folder is found again.
    ///
    /// # Errors
    /// What the file system says, or a damaged key.
    pub fn set_label(&mut self, label: &Label) -> Result<(), FolderError> {
        let failed = |error| stored(&self.path, error);
        let key = read_key(&self.path).map_err(failed)?;
        let nonce = draw_entropy().map_err(failed)?.bytes();
        let (name, title) = (mark_of(&key, &label.name), mark_of(&key, &label.title));
        let text = serde_json::to_vec(label).map_err(|error| FolderError::Broken {
            path: self.path.clone(),
            reason: error.to_string(),
        })?;
        let sealed = BASE64.encode(&key.seal(&label_place(), &text, nonce));
        self.change(|info| {
            info.marks = Marks {
                name: Some(name),
                title: Some(title),
            };
            info.label = Some(sealed);
        })
    }

    /// Notes that the membership is over.
    ///
    /// # Errors
    /// What the file system says.
    pub fn set_ended(&mut self) -> Result<(), FolderError> {
        self.change(|info| info.ended = true)
    }

    fn change(&mut self, change: impl FnOnce(&mut InfoFile)) -> Result<(), FolderError> {
        let mut info = self.info.clone();
        change(&mut info);
        write_json(&self.path.join(INFO_FILE), &info)?;
        self.info = info;
        Ok(())
    }
}

impl Registration {
    /// Replaces the addresses that other nodes find here.
    ///
    /// # Errors
    /// What the file system says.
    pub fn set_listen(&mut self, listen: Vec<Addr>) -> Result<(), FolderError> {
        self.record.listen = listen;
        write_json(&self.path, &self.record)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let _gone_or_stale = fs::remove_file(&self.path);
    }
}

impl Socket {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A handle on the listening socket that does not block, for the runtime.
    ///
    /// # Errors
    /// What the system says.
    pub fn listener(&self) -> io::Result<UnixListener> {
        let listener = self.listener.try_clone()?;
        listener.set_nonblocking(true).map(|()| listener)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _gone_or_stale = fs::remove_file(&self.path);
    }
}

impl MachineMark {
    /// The secret itself, for the engine, which computes marks of members by it.
    pub fn secret(&self) -> [u8; 32] {
        *self.0
    }
}

impl fmt::Debug for MachineMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MachineMark(..)")
    }
}

/// Keyed hashes under the folder's own store key.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Marks {
    name: Option<String>,
    title: Option<String>,
}

/// The file `member`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct InfoFile {
    v: u8,
    session: SessionId,
    member: MemberId,
    kind: MemberKind,
    created: Wall,
    last_used: Wall,
    ports: Ports,
    ended: bool,
    marks: Marks,
    /// A sealed [`Label`] in base64.
    #[serde(default)]
    label: Option<String>,
}

impl InfoFile {
    fn new(session: SessionId, member: MemberId, kind: MemberKind, now: Wall) -> Self {
        let (ports, marks) = (Ports::default(), Marks::default());
        Self {
            v: 1,
            session,
            member,
            kind,
            created: now,
            last_used: now,
            ports,
            ended: false,
            marks,
            label: None,
        }
    }

    /// Itself, if it is about this membership: names of folders hold only the beginnings of ids.
    fn of(self, path: &Path, session: SessionId, member: MemberId) -> Result<Self, FolderError> {
        if (self.session, self.member) == (session, member) {
            return Ok(self);
        }
        let reason = "it is another membership's folder".to_owned();
        Err(FolderError::Broken {
            path: path.to_owned(),
            reason,
        })
    }
}

/// Addresses as text in JSON.
mod as_text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use super::Addr;

    pub(super) fn serialize<S: Serializer>(addrs: &[Addr], out: S) -> Result<S::Ok, S::Error> {
        addrs
            .iter()
            .map(Addr::to_string)
            .collect::<Vec<_>>()
            .serialize(out)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Addr>, D::Error> {
        let texts = Vec::<String>::deserialize(from)?;
        texts
            .iter()
            .map(|text| text.parse().map_err(D::Error::custom))
            .collect()
    }
}

fn folder_name(session: SessionId, member: MemberId) -> String {
    format!("{}-{}", first_hex(&session.0, 8), first_hex(&member.0, 4))
}

fn first_hex(bytes: &[u8], count: usize) -> String {
    HEXLOWER.encode(bytes.get(..count).unwrap_or(bytes))
}

/// Where a sealed label belongs: it opens nowhere else.
fn label_place() -> Key {
    Key::new(Table::Meta, "label of the folder")
}

fn mark_of(key: &crate::store::seal::StoreKey, text: &str) -> String {
    HEXLOWER.encode(&key.mark(text))
}

fn member_info(path: PathBuf) -> Result<MemberInfo, FolderError> {
    let info = read_info(&path)?;
    Ok(MemberInfo {
        session: info.session,
        member: info.member,
        kind: info.kind,
        created: info.created,
        last_used: info.last_used,
        ports: info.ports,
        ended: info.ended,
        running: is_locked(&path),
        marks: info.marks,
        sealed: info.label,
        path,
    })
}

fn read_info(folder: &Path) -> Result<InfoFile, FolderError> {
    let path = folder.join(INFO_FILE);
    let info: InfoFile = read_json(&path)?;
    if info.v == 1 {
        return Ok(info);
    }
    Err(FolderError::Broken {
        path,
        reason: "it was written by another version".to_owned(),
    })
}

/// The node that a registry file tells of, if its socket answers. The file of a dead process is removed; that of
/// one whose socket does not answer yet stays.
fn live_node(path: &Path) -> Option<NodeRecord> {
    if path.extension().is_none_or(|extension| extension != "json") {
        return None;
    }
    let record = read_json::<NodeRecord>(path).inspect_err(warn).ok();
    let runs = record.as_ref().is_some_and(|record| runs(record.pid));
    let live = record.filter(|record| answers(&record.socket));
    if live.is_none() && !runs {
        let _gone_already = fs::remove_file(path);
    }
    live
}

/// Whether there is such a process, whosever it is.
fn runs(pid: u32) -> bool {
    let pid = i32::try_from(pid).map(Pid::from_raw);
    pid.is_ok_and(|pid| kill(pid, None) != Err(Errno::ESRCH))
}

/// Whether a process listens there. A full backlog is an answer too.
fn answers(socket: &Path) -> bool {
    match UnixStream::connect(socket) {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

/// Removes the folder of a host whose ticket nobody has seen, or of a guest that was never let in. It is locked from
/// the look into it until it is gone, so that no node begins there meanwhile.
///
/// # Errors
/// [`FolderError::Locked`] if another process uses it, and what the file system says; the folder then stays.
pub(super) fn remove_unused(folder: &Path, kind: MemberKind) -> Result<(), FolderError> {
    let _held = lock(folder)?;
    match kind {
        MemberKind::Guest if !holds_nothing(folder) => Ok(()),
        MemberKind::Host | MemberKind::Guest => {
            remove(folder).map_err(|error| failed(folder, &error))
        }
    }
}

/// Whether this can be a membership's folder: it has such a name, and holds files alone.
fn has_our_shape(path: &Path) -> bool {
    let name = path.file_name().and_then(std::ffi::OsStr::to_str);
    let named = name
        .and_then(|name| name.split_once('-'))
        .is_some_and(|(session, member)| is_hex(session, 8) && is_hex(member, 4));
    let is_folder = || fs::symlink_metadata(path).is_ok_and(|facts| facts.is_dir());
    let is_file = |entry: PathBuf| fs::symlink_metadata(entry).is_ok_and(|facts| facts.is_file());
    named && is_folder() && entries(path).all(is_file)
}

fn is_hex(text: &str, bytes: usize) -> bool {
    HEXLOWER
        .decode(text.as_bytes())
        .is_ok_and(|decoded| decoded.len() == bytes)
}

/// Whether a folder was begun and never got as far as to say whose it is. A process that is at it just now is done
/// within moments.
fn is_unfinished(folder: &Path, now: Wall) -> bool {
    let Ok(facts) = fs::symlink_metadata(folder) else {
        return false;
    };
    let changed =
        u64::try_from(facts.mtime()).map_or(u64::MAX, |seconds| seconds.saturating_mul(1_000));
    facts.is_dir() && changed.saturating_add(UNFINISHED_MS) < now.0
}

/// Whether a membership's folder holds no record at all: nobody was ever let in by it. What cannot be read counts as
/// holding something. Nobody else uses the folder meanwhile.
fn holds_nothing(folder: &Path) -> bool {
    match folder.join(STORE_FILE).try_exists() {
        Ok(false) => return true,
        Ok(true) => {}
        Err(_) => return false,
    }
    let Some(store) = opened(folder) else {
        return false;
    };
    Table::ALL.into_iter().all(|table| {
        let scan = store.scan(table);
        scan.is_ok_and(|scan| scan.records.is_empty() && scan.damaged.is_empty())
    })
}

/// The store, which a node that has just ended may hold for a moment.
fn opened(folder: &Path) -> Option<Disk> {
    for _ in 0..RELEASE_TRIES {
        match Disk::open(folder) {
            Err(StoreError::Locked) => std::thread::sleep(LOCK_PAUSE),
            other => return other.ok(),
        }
    }
    None
}

/// Removes a membership's folder with all that it holds.
fn remove(folder: &Path) -> io::Result<()> {
    let mut removed = fs::remove_dir_all(folder);
    // A store that is just being made may put a file into a folder that is being emptied.
    for _ in 0..RELEASE_TRIES {
        match &removed {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {
                std::thread::sleep(LOCK_PAUSE);
                removed = fs::remove_dir_all(folder);
            }
            Ok(()) | Err(_) => break,
        }
    }
    removed
}

/// Takes the lock of a folder for as long as the file stays open; the kernel frees it when the process ends.
fn lock(folder: &Path) -> Result<File, FolderError> {
    let path = folder.join(LOCK_FILE);
    let file = private_file(&path).map_err(|error| failed(&path, &error))?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(failed(&path, &error)),
        }
    }
    Err(FolderError::Locked {
        path: folder.to_owned(),
    })
}

fn is_locked(folder: &Path) -> bool {
    let Ok(file) = File::open(folder.join(LOCK_FILE)) else {
        return false;
    };
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// Draws the secret once, also when several processes start together: the first link wins.
fn draw_machine_mark(path: &Path) -> io::Result<()> {
    let secret = Zeroizing::new(draw_entropy().map_err(io::Error::other)?.bytes::<32>());
    let temporary = path.with_extension(std::process::id().to_string());
    let mut file = OpenOptions::new();
    let mut file = file
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(secret.as_slice())?;
    let linked = fs::hard_link(&temporary, path);
    fs::remove_file(&temporary)?;
    match linked {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Makes a folder 0700, with what leads to it, or tightens the one that is there if it is this user's.
fn private_folder(path: &Path) -> Result<(), FolderError> {
    make_folder(path)?;
    let found = fs::symlink_metadata(path).map_err(|error| failed(path, &error))?;
    check_owner(path, &found)?;
    if found.mode() & 0o077 != 0 {
        let private = fs::Permissions::from_mode(0o700);
        fs::set_permissions(path, private).map_err(|error| failed(path, &error))?;
    }
    Ok(())
}

/// A folder that the person chose: made 0700 where it is missing, else left as it is.
fn chosen_folder(path: &Path) -> Result<(), FolderError> {
    make_folder(path)?;
    let found = fs::metadata(path).map_err(|error| failed(path, &error))?;
    check_owner(path, &found)
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "foreign kinds, told apart only where we act on them"
)]
fn make_folder(path: &Path) -> Result<(), FolderError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists | ErrorKind::NotADirectory => FolderError::NoFolder {
            path: path.to_owned(),
        },
        _ => failed(path, &error),
    })
}

fn check_owner(path: &Path, found: &fs::Metadata) -> Result<(), FolderError> {
    if !found.is_dir() {
        return Err(FolderError::NoFolder {
            path: path.to_owned(),
        });
    }
    if found.uid() != geteuid().as_raw() {
        return Err(FolderError::ForeignOwner {
            path: path.to_owned(),
            owner: found.uid(),
        });
    }
    Ok(())
}

/// What a folder holds, ordered by name; nothing if it is not there.
fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths.into_iter()
}

fn remove_if_there(path: &Path) -> Result<(), FolderError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(path, &error)),
        _ => Ok(()),
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, FolderError> {
    let bytes = match read_capped(path, INFO_BYTES_MAX) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(FolderError::Missing {
                path: path.to_owned(),
            });
        }
        read => read.map_err(|error| failed(path, &error))?,
    };
    serde_json::from_slice(&bytes).map_err(|error| FolderError::Broken {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), FolderError> {
    let mut json = serde_json::to_vec(value).map_err(|error| failed(path, &error.into()))?;
    json.push(b'\n');
    write_atomically(path, &json).map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &io::Error) -> FolderError {
    stored(path, crate::store::disk::from_io(error))
}

fn stored(path: &Path, error: StoreError) -> FolderError {
    let path = path.to_owned();
    match error {
        StoreError::Unwritable(reason) => FolderError::Unwritable { path, reason },
        StoreError::DiskFull => FolderError::DiskFull { path },
        StoreError::Locked => FolderError::Locked { path },
        StoreError::Damaged(reason) => FolderError::Broken { path, reason },
        StoreError::Corrupt { .. } | StoreError::Poisoned => FolderError::Broken {
            path,
            reason: error.to_string(),
        },
        StoreError::Io(reason) => FolderError::Io { path, reason },
    }
}

fn warn(error: &FolderError) {
    tracing::warn!(%error, "a file of a membership or node is passed over");
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const SESSION: SessionId = SessionId([0x5e; 32]);

    fn member(n: u8) -> MemberId {
        MemberId([n; 32])
    }

    fn label(name: &str, title: &str) -> Label {
        Label {
            title: title.to_owned(),
            name: name.to_owned(),
            role: Role::Viewer,
        }
    }

    fn folders(home: &TempDir) -> Folders {
        let env = EnvPaths {
            state_home: Some(home.path().join("state")),
            runtime_dir: Some(home.path().join("r")),
            home: None,
            temp: home.path().join("t"),
        };
        Folders::resolve(None, &env).unwrap()
    }

    fn record(folders: &Folders, n: u8, socket: &Socket) -> NodeRecord {
        NodeRecord {
            session: SESSION,
            topic: TopicId([1; 32]),
            member: member(n),
            kind: MemberKind::Guest,
            pid: std::process::id(),
            listen: vec!["/ip4/127.0.0.1/tcp/4000".parse().unwrap()],
            socket: socket.path().to_owned(),
            state: folders.state().to_owned(),
        }
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn state_dir_moves_everything_and_overrides_the_runtime_folder() {
        let env = EnvPaths {
            state_home: Some("/s".into()),
            runtime_dir: Some("/r".into()),
            home: Some("/h".into()),
            temp: "/tmp".into(),
        };

        let moved = Folders::resolve(Some("/elsewhere".into()), &env).unwrap();
        assert_eq!(moved.state(), Path::new("/elsewhere"));
        assert_eq!(moved.run(), Path::new("/elsewhere/run"));

        let usual = Folders::resolve(None, &env).unwrap();
        assert_eq!(usual.state(), Path::new("/s/collab-p2p"));
        assert_eq!(usual.run(), Path::new("/r/collab-p2p"));
    }

    #[test]
    fn a_relative_xdg_folder_does_not_count() {
        let env = EnvPaths {
            state_home: Some("s".into()),
            runtime_dir: Some("r".into()),
            home: Some("/h".into()),
            temp: "/tmp".into(),
        };

        let folders = Folders::resolve(None, &env).unwrap();

        assert_eq!(folders.state(), Path::new("/h/.local/state/collab-p2p"));
        assert_eq!(folders.run(), Path::new("/h/.local/state/collab-p2p/run"));
        let nowhere = EnvPaths { home: None, ..env };
        assert!(matches!(
            Folders::resolve(None, &nowhere),
            Err(FolderError::NoHome)
        ));
    }

    #[test]
    fn a_membership_is_locked_by_one_process_and_listed_as_running() {
        let home = tempfile::tempdir().unwrap();
        let folders = folders(&home);
        let open = folders
            .create_member(SESSION, member(1), MemberKind::Host, Wall(5))
            .unwrap();

        let second = folders
            .open_member(SESSION, member(1), Wall(6))
            .unwrap_err();
        assert_eq!(second.code(), Code::StateLocked);
        assert!(folders.list()[0].running);
        assert_eq!(folders.most_recent_not_running(), None);

        drop(open);
        assert!(!folders.list()[0].running);
        let again = folders.open_member(SESSION, member(1), Wall(7)).unwrap();
        assert_eq!(again.kind(), MemberKind::Host);
        assert_eq!(folders.list()[0].last_used, Wall(7));
        assert_eq!(folders.list()[0].created, Wall(5));
    }

    #[test]
    fn a_missing_membership_is_no_session() {
        let home = tempfile::tempdir().unwrap();

        let error = folders(&home)
            .open_member(SESSION, member(1), Wall(0))
            .unwrap_err();

        assert_eq!(error.code(), Code::NoSession);
        assert!(folders(&home).list().is_empty());
    }

    #[test]
    fn the_most_recently_used_membership_comes_first_and_an_ended_one_never() {
        let home = tempfile::tempdir().unwrap();
        let folders = folders(&home);
        for (n, time) in [(1, 10), (2, 30), (3, 20)] {
            let made = folders.create_member(SESSION, member(n), MemberKind::Guest, Wall(time));
            let mut made = made.unwrap();
            made.set_label(&label("bob", "a title")).unwrap();
            if n == 2 {
                made.set_ended().unwrap();
            }
        }

        let order: Vec<MemberId> = folders.list().iter().map(|info| info.member).collect();
        assert_eq!(order, [member(2), member(3), member(1)]);
        assert_eq!(folders.most_recent_not_running().unwrap().member, member(3));
    }

    #[test]
    fn a_join_that_was_killed_before_it_was_let_in_left_no_membership() {
        let home = tempfile::tempdir().unwrap();
        let folders = folders(&home);
        let make = |n| {
            let made = folders.create_member(SESSION, member(n), MemberKind::Guest, Wall(1));
            made.unwrap().path().to_owned()
        };
        make(1);
        drop(Disk::open(&make(2)).unwrap());
        let mut admitted = Disk::open(&make(3)).unwrap();
        let mut batch = crate::store::Batch::new();
        batch.put(Key::new(Table::Keys, "k"), vec![1]);
        admitted
            .commit(batch, crate::store::Durability::Immediate)
            .unwrap();
        drop(admitted);

        let listed: Vec<MemberId> = folders.list().iter().map(|info| info.member).collect();

        assert_eq!(listed, [member(3)]);
        assert_eq!(folders.most_recent_not_running().unwrap().member, member(3));
    }

    #[test]
    fn what_killed_joins_left_goes_with_the_next_start_unless_it_is_held() {
        let home = tempfile::tempdir().unwrap();
        let folders = folders(&home);
        let make = |n, kind| {
            let made = folders.create_member(SESSION, member(n), kind, Wall(1));
            made.unwrap()
        };
        let mut kept = vec![make(1, MemberKind::Host).path().to_owned()];
        let mut named = make(2, MemberKind::Guest);
        named.set_label(&label("bob", "a title")).unwrap();
        kept.push(named.path().to_owned());
        let held = make(3, MemberKind::Guest);
        kept.push(held.path().to_owned());
        let young = folders.sessions().join(folder_name(SESSION, member(9)));
        fs::create_dir(&young).unwrap();
        kept.push(young);
        let killed = make(4, MemberKind::Guest).path().to_owned();
        drop(Disk::open(&killed).unwrap());

        folders.remove_leftovers(Wall(2));

        assert!(!killed.exists());
        assert!(kept.iter().all(|path| path.exists()), "{kept:?}");
        let later = crate::node::clock::wall().0 + UNFINISHED_MS + 2_000;
        drop(held);
        kept.truncate(2);
        kept.push(make_at(&folders, 5, Wall(later)));
        let mut left: Vec<PathBuf> = entries(&folders.sessions()).collect();
        left.sort();
        kept.sort();
        assert_eq!(left, kept);
    }

    #[test]
    fn what_a_person_keeps_in_a_state_folder_is_never_taken_for_a_leftover() {
        let home = tempfile::tempdir().unwrap();
        let folders = folders(&home);
        let sessions = folders.state_folder("sessions").unwrap();
        let elsewhere = home.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("thesis"), "years of work").unwrap();
        fs::create_dir(sessions.join("2024")).unwrap();
        fs::write(sessions.join("2024").join("notes"), "mine").unwrap();
        let ours = |n| sessions.join(folder_name(SESSION, member(n)));
        std::os::unix::fs::symlink(&elsewhere, ours(1)).unwrap();
        fs::create_dir_all(ours(2).join("saved")).unwrap();
        let empty = ours(3);
        fs::create_dir(&empty).unwrap();

        let later = crate::node::clock::wall().0 + UNFINISHED_MS + 2_000;
        folders.remove_leftovers(Wall(later));

        assert!(!empty.exists());
        let kept = [
            elsewhere.join("thesis"),
            sessions.join("2024/notes"),
            ours(1),
            ours(2).join("saved"),
        ];
        assert!(kept.iter().all(|path| path.exists()), "{kept:?}");
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 1);
    }

    fn make_at(folders: &Folders, n: u8, now: Wall) -> PathBuf {
        let made = folders.create_member(SESSION, member(n), MemberKind::Guest, now);
        made.unwrap().path().to_owned()
    }

    #[test]
    fn a_store_that_cannot_even_be_looked_at_counts_as_holding_something() {
        let home = tempfile::tempdir().unwrap();
        let folders = folders(&home);
        let made = folders.create_member(SESSION, member(1), MemberKind::Guest, Wall(1));
        let path = made.unwrap().path().to_owned();
        assert!(holds_nothing(&path));

        // A link to itself cannot be followed, by no user.
        std::os::unix::fs::symlink(STORE_FILE, path.join(STORE_FILE)).unwrap();

        assert!(!holds_nothing(&path));
        remove_unused(&path, MemberKind::Guest).unwrap();
        assert!(path.exists());
    }

    #[test]
    fn an_unused_folder_is_removed_unless_somebody_uses_it() {
        let home = tempfile::tempdir().unwrap();
        let folders = folders(&home);
        for (n, kind) in [(1, MemberKind::Host), (2, MemberKind::Guest)] {
            let used = folders.create_member(SESSION, member(n), kind, Wall(1));
            let used = used.unwrap();
            let path = used.path().to_owned();

            let refused = remove_unused(&path, kind).unwrap_err();
            assert!(matches!(refused, FolderError::Locked { .. }), "{refused:?}");
            assert!(path.join(INFO_FILE).exists());

            drop(used);
            remove_unused(&path, kind).unwrap();
            assert!(!path.exists());
        }
    }

    #[test]
    fn join_resumes_the_guest_of_that_name_or_the_only_one() {
        let home = tempfile::tempdir().unwrap();
        let folders = folders(&home);
        let make = |n, kind, name: &str| {
            let mut made = folders
                .create_member(SESSION, member(n), kind, Wall(1))
                .unwrap();
            made.set_label(&label(name, "a title")).unwrap();
        };
        let found = |name| {
            folders
                .resumable_guest(SESSION, name)
                .map(|info| info.member)
        };
        make(1, MemberKind::Host, "ada");
        assert_eq!(found(None), None);
        assert_eq!(found(Some("ada")), None);

        make(2, MemberKind::Guest, "ada");
        assert_eq!(found(None), Some(member(2)));

        make(3, MemberKind::Guest, "bob");
        assert_eq!(found(None), None);
        assert_eq!(found(Some("ada")), Some(member(2)));
        assert_eq!(found(Some("bob")), Some(member(3)));
        assert_eq!(found(Some("eve")), None);
        assert!(folders.list().iter().all(|info| info.is_titled("a title")));
        assert_eq!(
            folders.resumable_guest(SessionId([0; 32]), Some("bob")),
            None
        );
    }

    #[test]
    fn no_name_or_title_is_readable_and_everything_is_private() {
        let home = tempfile::tempdir().unwrap();
        let folders = folders(&home);
        let made = folders.create_member(SESSION, member(1), MemberKind::Guest, Wall(1));
        let mut made = made.unwrap();
        made.set_label(&label("canary-name", "canary-title"))
            .unwrap();

        let readable = |bytes: &[u8]| bytes.windows(6).any(|window| window == b"canary");
        assert_eq!(mode(folders.state()), 0o700);
        assert_eq!(mode(made.path()), 0o700);
        for path in entries(made.path()) {
            assert!(!readable(&fs::read(&path).unwrap()), "{}", path.display());
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
        assert!(!readable(&sealed_label(made.path())));
    }

    /// The label as the member file holds it, without its base64.
    fn sealed_label(folder: &Path) -> Vec<u8> {
        let sealed = read_info(folder).unwrap().label.unwrap();
        BASE64.decode(sealed.as_bytes()).unwrap()
    }

    #[test]
    fn a_label_is_sealed_anew_each_time_and_opens_in_its_own_folder_only() {
        let home = tempfile::tempdir().unwrap();
        let folders = folders(&home);
        let make = |n| {
            let made = folders.create_member(SESSION, member(n), MemberKind::Guest, Wall(1));
            made.unwrap()
        };
        let (mut mine, other) = (make(1), make(2));
        let named = label("canary-name", "canary-title");
        let labels = [(); 2].map(|()| {
            mine.set_label(&named).unwrap();
            sealed_label(mine.path())
        });
        assert_ne!(labels[0], labels[1]);

        let theirs = other.path().join(INFO_FILE);
        fs::copy(mine.path().join(INFO_FILE), theirs).unwrap();

        let opened = |folder: &MemberFolder| member_info(folder.path().to_owned()).unwrap().label();
        assert_eq!(opened(&mine), Some(named));
        assert_eq!(opened(&other), None);
    }

    #[test]
    fn ports_are_remembered() {
        let home = tempfile::tempdir().unwrap();
        let folders = folders(&home);
        let ports = Ports {
            tcp: Some(4000),
            udp: Some(4001),
        };
        let made = folders.create_member(SESSION, member(1), MemberKind::Host, Wall(1));
        made.unwrap().set_ports(ports).unwrap();

        let opened = folders.open_member(SESSION, member(1), Wall(2)).unwrap();

        assert_eq!(opened.ports(), ports);
    }

    #[test]
    fn folders_that_cannot_be_written_are_state_unwritable() {
        // Not even root may make folders here.
        let env = EnvPaths {
            temp: "/tmp".into(),
            ..EnvPaths::default()
        };
        let folders = Folders::resolve(Some("/sys/collab".into()), &env).unwrap();

        let error = folders
            .create_member(SESSION, member(1), MemberKind::Host, Wall(1))
            .unwrap_err();

        assert_eq!(error.code(), Code::StateUnwritable);
        assert!(matches!(error, FolderError::Unwritable { .. }), "{error:?}");
    }

    #[test]
    fn a_file_or_a_link_in_the_place_of_a_folder_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let folders = folders(&home);
        private_folder(folders.state()).unwrap();
        let sessions = folders.sessions();
        let make = || folders.create_member(SESSION, member(1), MemberKind::Host, Wall(1));

        fs::write(&sessions, b"").unwrap();
        assert!(matches!(make(), Err(FolderError::NoFolder { .. })));
        fs::remove_file(&sessions).unwrap();
        std::os::unix::fs::symlink(home.path(), &sessions).unwrap();
        assert!(matches!(make(), Err(FolderError::NoFolder { .. })));
    }

    #[test]
    fn a_folder_of_another_user_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let owned = home.path().metadata().unwrap();
        let foreign = Path::new("/proc/sys");
        let owner = foreign.metadata().unwrap().uid();

        assert!(check_owner(home.path(), &owned).is_ok());
        if owner != geteuid().as_raw() {
            assert!(matches!(
                private_folder(foreign),
                Err(FolderError::ForeignOwner { .. })
            ));
        } else {
            let theirs = home.path().join("theirs");
            fs::create_dir(&theirs).unwrap();
            std::os::unix::fs::chown(&theirs, Some(65_534), None).unwrap();
            assert!(matches!(
                private_folder(&theirs),
                Err(FolderError::ForeignOwner { owner: 65_534, .. })
            ));
        }
    }

    #[test]
    fn loose_permissions_of_our_own_folders_are_tightened_and_chosen_ones_kept() {
        let home = tempfile::tempdir().unwrap();
        let folders = folders(&home);
        fs::create_dir_all(folders.state()).unwrap();
        fs::set_permissions(folders.state(), fs::Permissions::from_mode(0o755)).unwrap();
        drop(folders.log().unwrap());
        assert_eq!(mode(folders.state()), 0o700);

        let chosen = home.path().join("chosen");
        fs::create_dir(&chosen).unwrap();
        fs::set_permissions(&chosen, fs::Permissions::from_mode(0o755)).unwrap();
        let env = EnvPaths::default();
        let log = Folders::resolve(Some(chosen.clone()), &env)
            .unwrap()
            .log()
            .unwrap();
        assert_eq!(mode(&chosen), 0o755);
        assert_eq!(mode(&log), 0o700);
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let home = tempfile::tempdir().unwrap();
        let folders = folders(&home);
        let path = folders.socket_path(member(1)).unwrap();
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());

        let socket = folders.bind_socket(member(1)).unwrap();

        assert_eq!(socket.path(), path);
        assert_eq!(mode(&path), 0o600);
        assert_eq!(
            folders.bind_socket(member(1)).unwrap_err().code(),
            Code::StateLocked
        );
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_path_that_would_be_too_long_goes_to_the_temporary_folder() {
        let home = tempfile::tempdir().unwrap();
        let long = home.path().join("d".repeat(90));
        let temp = home.path().join("t");
        let env = EnvPaths {
            temp: temp.clone(),
            ..EnvPaths::default()
        };
        let one = Folders::resolve(Some(long.join("1")), &env).unwrap();
        let two = Folders::resolve(Some(long.join("2")), &env).unwrap();

        let socket = one.bind_socket(member(1)).unwrap();

        let folder = socket.path().parent().unwrap();
        assert_eq!(folder.parent(), Some(temp.as_path()));
        assert_eq!(mode(folder), 0o700);
        assert!(socket.path().as_os_str().len() <= SOCKET_PATH_BYTES_MAX);
        assert_ne!(two.socket_path(member(1)).unwrap(), socket.path());
    }

    #[test]
    fn running_nodes_are_found_by_topic_and_dead_ones_are_removed() {
        let home = tempfile::tempdir().unwrap();
        let folders = folders(&home);
        let (one, two) = (
            folders.bind_socket(member(1)).unwrap(),
            folders.bind_socket(member(2)).unwrap(),
        );
        let mut first = folders.register(record(&folders, 1, &one)).unwrap();
        let dead = NodeRecord {
            pid: i32::MAX.unsigned_abs(),
            ..record(&folders, 2, &two)
        };
        let second = folders.register(dead).unwrap();
        let (entry, remains) = (second.path.clone(), fs::read(&second.path).unwrap());
        assert_eq!(mode(&entry), 0o600);

        let listen: Vec<Addr> = vec!["/ip4/10.0.0.1/udp/7/quic-v1".parse().unwrap()];
        first.set_listen(listen.clone()).unwrap();
        assert_eq!(folders.nearby(TopicId([1; 32])).len(), 2);
        assert_eq!(folders.nearby(TopicId([2; 32])), []);

        // A killed process takes neither its socket nor its entry away.
        drop((second, two));
        fs::write(&entry, remains).unwrap();
        fs::write(folders.run().join("nodes/broken.json"), b"{").unwrap();
        let live = folders.own_nodes();
        assert_eq!(live.len(), 1);
        assert_eq!((live[0].member, &live[0].listen), (member(1), &listen));
        assert!(!entry.exists() && !folders.run().join("nodes/broken.json").exists());
    }

    #[test]
    fn a_node_that_does_not_answer_yet_keeps_its_entry() {
        let home = tempfile::tempdir().unwrap();
        let folders = folders(&home);
        let socket = folders.bind_socket(member(1)).unwrap();
        let starting = record(&folders, 1, &socket);
        drop(socket);
        let _registered = folders.register(starting).unwrap();

        assert_eq!(folders.own_nodes(), []);
        let _socket = folders.bind_socket(member(1)).unwrap();

        assert_eq!(folders.own_nodes().len(), 1);
    }

    #[test]
    fn a_verb_sees_only_nodes_of_its_own_state_folder() {
        let home = tempfile::tempdir().unwrap();
        let folders = folders(&home);
        let socket = folders.bind_socket(member(1)).unwrap();
        let elsewhere = NodeRecord {
            state: "/else".into(),
            ..record(&folders, 1, &socket)
        };
        let _registered = folders.register(elsewhere).unwrap();

        assert!(folders.own_nodes().is_empty());
        assert_eq!(folders.nodes().len(), 1);
    }

    #[test]
    fn nodes_that_share_a_run_folder_share_the_machine_mark() {
        let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mark = folders(&home).machine_mark().unwrap();

        assert_eq!(
            folders(&home).machine_mark().unwrap().secret(),
            mark.secret()
        );
        assert_ne!(
            folders(&other).machine_mark().unwrap().secret(),
            mark.secret()
        );
        let path = folders(&home).run().join(MACHINE_FILE);
        assert_eq!(mode(&path), 0o600);
        assert_eq!(entries(folders(&home).run()).count(), 1);
    }
}
