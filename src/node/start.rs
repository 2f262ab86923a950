//! Opens a session, joins one, or goes on with a membership: folder, lock, network, engine, driver.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::engine::address::Addr;
use crate::engine::capability::Role;
use crate::engine::command::{Command, CommandError, Reply, TerminalSpec};
use crate::engine::effect::{Outcome, StopReason};
use crate::engine::error::Code;
use crate::engine::event::{NetEvent, Source};
use crate::engine::ids::{InviteId, MemberId, SessionId, TerminalId, TopicId};
use crate::engine::persist::{Durability, Table};
use crate::engine::replica::{Records, topic};
use crate::engine::ticket::Ticket;
use crate::engine::time::Now;
use crate::engine::view::{ConnectionView, InviteView, Phase, View};
use crate::engine::{Engine, JoinWith as EngineJoin, NewSession, Setup};
use crate::net::{Net, NetConfig, NetError, Scope};
use crate::node::clock::Clock;
use crate::node::committer::{OpenStore, refusal};
use crate::node::driver::Driver;
use crate::node::entropy;
use crate::node::folder::{
    self, FolderError, Folders, Label, MemberFolder, MemberInfo, MemberKind, NodeRecord, Ports,
};
use crate::node::handle::Handle;
use crate::store::disk::Disk;
use crate::store::{Store, StoreError};

/// What every node is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where state and sockets go.
    pub folders: Folders,
    /// Where to listen; nothing: everywhere, on the ports that the membership had before.
    pub listen: Vec<Addr>,
    /// Whether to announce and look for peers by multicast DNS.
    pub mdns: bool,
    /// Never reach beyond the networks of our interfaces.
    pub lan_only: bool,
}

/// How to share.
#[derive(Debug, Clone)]
pub struct ShareWith {
    /// The session's facts.
    pub new: NewSession,
    /// The terminal to open.
    pub terminal: TerminalSpec,
    /// What the bearer of the ticket becomes.
    pub role: Role,
    /// How long one may join by it.
    pub expires_in: Option<Duration>,
    /// Whether it carries addresses.
    pub addresses: bool,
}

/// How to join.
#[derive(Debug)]
pub struct JoinWith {
    /// The ticket.
    pub ticket: Ticket,
    /// The name to be known by.
    pub name: String,
    /// Addresses to try besides the ticket's.
    pub addrs: Vec<Addr>,
    /// How long to look for somebody who proves the session.
    pub timeout: Duration,
}

/// A node at work.
#[derive(Debug)]
pub struct Running {
    /// The faces' way to it.
    pub handle: Handle,
    /// The session.
    pub session: SessionId,
    /// This member.
    pub member: MemberId,
    /// Host or guest.
    pub kind: MemberKind,
    /// The terminal that runs here.
    pub terminal: Option<TerminalId>,
    /// The invitation made for this share, with its ticket, as it stood before the terminal began: a short
    /// command ends the node before anybody has looked.
    pub invite: Option<InviteView>,
    /// Where the local API is to be served.
    pub socket: PathBuf,
    folder: PathBuf,
    task: JoinHandle<StopReason>,
    looking: JoinHandle<()>,
    registered: JoinHandle<()>,
    entered: watch::Receiver<bool>,
}

impl Running {
    /// Waits until other processes of this user find the node in the run folder, at most two seconds: the folder
    /// may refuse.
    pub async fn entered(&self) {
        let mut entered = self.entered.clone();
        let found = entered.wait_for(|entered| *entered);
        drop(tokio::time::timeout(Duration::from_secs(2), found).await);
    }

    /// Waits until the node has stopped and its folder says so.
    pub async fn stopped(self) -> StopReason {
        let reason = self.task.await.unwrap_or(StopReason::Broken);
        self.looking.abort();
        // It ends by itself with the node; what it has to write is little.
        drop(tokio::time::timeout(Duration::from_secs(1), self.registered).await);
        reason
    }

    /// Ends a node of which nothing came, and removes its folder: a share whose ticket nobody has seen, or a join
    /// that was never let in. A guest's folder that holds anything at all stays.
    pub async fn discard(self) {
        let (folder, kind) = (self.folder.clone(), self.kind);
        // It may have stopped by itself.
        drop(self.handle.command(Command::GoOffline).await);
        self.stopped().await;
        let removed =
            tokio::task::spawn_blocking(move || folder::remove_unused(&folder, kind)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(%error, "the folder of a membership that never was stays");
        }
    }
}

/// Opens a session around a terminal. Returns when the ticket stands and the terminal is being started, in this
/// order: a command that ends at once ends a session that was there. If it fails, nothing of it is left.
///
/// # Errors
/// The state folder, the network or the command cannot be used.
pub async fn share(settings: Settings, with: ShareWith) -> Result<Running, CommandError> {
    let parts = Parts::new(&settings)?;
    let (engine, outcome) = Engine::create(
        parts.setup.clone(),
        with.new.clone(),
        parts.now(),
        parts.entropy()?,
    )?;
    let session = engine
        .replica()
        .map_or(SessionId([0; 32]), |replica| replica.session());
    let discovery = engine
        .replica()
        .map(|replica| *replica.discovery())
        .unwrap_or_default();
    let folder = settings
        .folders
        .create_member(session, engine.me(), MemberKind::Host, parts.now().wall)
        .map_err(|error| folder_failed(&error))?;
    let found = topic(&discovery, &session, NEARBY);
    let mut running = parts.run_new(settings, engine, outcome, folder, found)?;
    match running.begin(with).await {
        Ok(()) => Ok(running),
        Err(error) => {
            running.discard().await;
            Err(error)
        }
    }
}

/// Begins to join. Returns at once; the view's phase tells when it has succeeded.
///
/// # Errors
/// The state folder or the network cannot be used.
pub fn join(settings: Settings, with: JoinWith) -> Result<Running, CommandError> {
    let parts = Parts::new(&settings)?;
    let session = with.ticket.session;
    let found = topic(&with.ticket.discovery_key, &session, NEARBY);
    let with = EngineJoin {
        ticket: with.ticket,
        name: with.name,
        addrs: with.addrs,
        timeout: with.timeout,
    };
    let (engine, outcome) = Engine::join(parts.setup.clone(), with, parts.now(), parts.entropy()?);
    let folder = settings
        .folders
        .create_member(session, engine.me(), MemberKind::Guest, parts.now().wall)
        .map_err(|error| folder_failed(&error))?;
    parts.run_new(settings, engine, outcome, folder, found)
}

/// Goes on with a membership that is not running.
///
/// # Errors
/// It runs already, or its state cannot be read.
pub fn resume(settings: Settings, info: &MemberInfo) -> Result<Running, CommandError> {
    let parts = Parts::new(&settings)?;
    let folder = settings
        .folders
        .open_member(info.session, info.member, parts.now().wall)
        .map_err(|error| folder_failed(&error))?;
    let mut store = Disk::open(folder.path()).map_err(|error| refusal(&error))?;
    let records = read_all(&store)?;
    let (engine, mut outcome) =
        Engine::resume(parts.setup.clone(), &records, parts.now(), parts.entropy()?)
            .map_err(|error| CommandError::new(Code::StoreCorrupt, error.to_string()))?;
    let discovery = engine
        .replica()
        .map(|replica| *replica.discovery())
        .unwrap_or_default();
    let found = topic(&discovery, &info.session, NEARBY);
    // A node whose number is not saved would have the same one at its next start: it does not begin.
    store
        .commit(std::mem::take(&mut outcome.persist), Durability::Immediate)
        .map_err(|error| refusal(&error))?;
    let mut store = Some(store);
    let open: OpenStore = Box::new(move || {
        let store = store.take().ok_or(StoreError::Poisoned)?;
        Ok(Box::new(store) as Box<dyn Store>)
    });
    parts.run_with(settings, engine, outcome, folder, (found, open))
}

fn read_all(store: &Disk) -> Result<Records, CommandError> {
    let mut records = Vec::new();
    for table in Table::ALL {
        let scan = store.scan(table).map_err(|error| refusal(&error))?;
        for damaged in &scan.damaged {
            tracing::warn!(%damaged, "a record is damaged; members have it and are asked");
        }
        records.extend(scan.records);
    }
    Ok(Records::new(records))
}

/// What separates the topic of the run folder from those of gossip.
const NEARBY: &[u8] = b"nearby";
/// Pause between looks into the run folder while nobody is connected.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The first look comes at once; then this many quick ones.
const FOUND_QUEUED_MAX: usize = 64;

/// What a node is made of before it runs.
struct Parts {
    setup: Setup,
    clock: Clock,
}

impl Parts {
    fn new(settings: &Settings) -> Result<Self, CommandError> {
        let mark = settings
            .folders
            .machine_mark()
            .map_err(|error| folder_failed(&error))?;
        let setup = Setup {
            emulators: Arc::new(|cols, rows| Box::new(crate::pty::emulator::contained(cols, rows))),
            machine: mark.secret(),
            lan_only: settings.lan_only,
            bugs: crate::engine::Bugs::default(),
        };
        Ok(Self {
            setup,
            clock: Clock::start(),
        })
    }

    fn now(&self) -> Now {
        self.clock.now()
    }

    fn entropy(&self) -> Result<crate::engine::entropy::Entropy, CommandError> {
        entropy::fresh().map_err(|error| {
            CommandError::new(
                Code::Failure,
                format!("the system gives no randomness: {error}"),
            )
        })
    }

    /// Runs a node whose folder is new; if it cannot be started, the folder goes again.
    fn run_new(
        self,
        settings: Settings,
        engine: Engine,
        outcome: Outcome,
        folder: MemberFolder,
        found: TopicId,
    ) -> Result<Running, CommandError> {
        let path = folder.path().to_owned();
        let kind = folder.kind();
        let store = path.clone();
        let open: OpenStore = Box::new(move || {
            let store = Disk::open(&store)?;
            Ok(Box::new(store) as Box<dyn Store>)
        });
        let running = self.run_with(settings, engine, outcome, folder, (found, open));
        if running.is_err()
            && let Err(error) = folder::remove_unused(&path, kind)
        {
            tracing::warn!(%error, "the folder of a membership that never was stays");
        }
        running
    }

    fn run_with(
        self,
        settings: Settings,
        mut engine: Engine,
        outcome: Outcome,
        folder: MemberFolder,
        (found, open): (TopicId, OpenStore),
    ) -> Result<Running, CommandError> {
        let (session, member) = (folder.session(), folder.member());
        let (kind, path) = (folder.kind(), folder.path().to_owned());
        let network = Net::start(net_config(&settings, &engine, folder.ports()))
            .map_err(|error| net_failed(&error))?;
        let socket = settings
            .folders
            .socket_path(member)
            .map_err(|error| folder_failed(&error))?;
        let view = engine
            .view_if_changed(self.now())
            .unwrap_or_else(|| engine.view(self.now()));
        let queues = network.0.queues();
        let (handle, source) = Handle::new(view, engine.gauges(), Some(queues));
        let (discovered, finds) = mpsc::channel(FOUND_QUEUED_MAX);
        let driver = Driver::new(engine, self.clock, network, finds, open, source);
        let look = look_around(
            settings.folders.clone(),
            found,
            (member, handle.clone()),
            discovered,
        );
        let place = Place {
            folders: settings.folders,
            folder,
            topic: found,
            socket: socket.clone(),
        };
        let (enter, entered) = watch::channel(false);
        let registered = keep_registered(place, handle.clone(), enter);
        let span = tracing::info_span!("session", session = %session.short(), me = %member.short());
        let task = tokio::spawn(tracing::Instrument::instrument(driver.run(outcome), span));
        Ok(Running {
            handle,
            session,
            member,
            kind,
            terminal: None,
            invite: None,
            socket,
            folder: path,
            task,
            looking: tokio::spawn(look),
            registered: tokio::spawn(registered),
            entered,
        })
    }
}

impl Running {
    /// The ticket first, then the terminal.
    async fn begin(&mut self, with: ShareWith) -> Result<(), CommandError> {
        let invite = Command::CreateInvite {
            role: with.role,
            expires_in: with.expires_in,
            ask: with.new.ask,
            addresses: with.addresses,
        };
        let invited = self.handle.command(invite).await?;
        self.listening().await;
        if let Reply::Invite { id } = invited {
            self.invite = self.invitation(id).await;
        }
        let spec = with.terminal;
        let opened = self.handle.command(Command::OpenTerminal { spec }).await?;
        if let Reply::Terminal { id } = opened {
            self.terminal = Some(id);
        }
        self.entered().await;
        // By now more addresses may be known.
        let view = self.handle.view();
        let mine = |newer: &&InviteView| self.invite.as_ref().is_some_and(|own| own.id == newer.id);
        if let Some(newer) = view.invites.iter().find(mine) {
            self.invite = Some(newer.clone());
        }
        Ok(())
    }

    /// The invitation as soon as the view shows it: the answer may overtake the view.
    async fn invitation(&self, id: InviteId) -> Option<InviteView> {
        let find = |view: &View| view.invites.iter().find(|invite| invite.id == id).cloned();
        let mut views = self.handle.watch_view();
        let known = views.wait_for(|view| find(view).is_some());
        let view = tokio::time::timeout(Duration::from_secs(2), known).await;
        view.ok().and_then(Result::ok).and_then(|view| find(&view))
    }

    /// Waits until the addresses are known, which takes the network a moment.
    async fn listening(&self) {
        let mut view = self.handle.watch_view();
        let known = view.wait_for(|view| !view.listen.is_empty());
        // Without any address the ticket is still good on a LAN with multicast DNS.
        drop(tokio::time::timeout(Duration::from_secs(2), known).await);
    }
}

fn net_config(settings: &Settings, engine: &Engine, ports: Ports) -> NetConfig {
    let mut config = NetConfig::new(engine.network_secret());
    config.mdns = settings.mdns;
    if settings.lan_only {
        config.scope = Scope::Lan;
    }
    if settings.listen.is_empty() {
        for addr in &mut config.listen {
            let port = match addr.transport {
                crate::engine::address::Transport::Tcp => ports.tcp,
                crate::engine::address::Transport::Quic => ports.udp,
            };
            addr.port = port.unwrap_or(0);
        }
    } else {
        config.listen.clone_from(&settings.listen);
        config.ports_may_move = false;
    }
    config
}

/// While nobody is connected, other nodes of this user on this machine are looked for in the run folder.
async fn look_around(
    folders: Folders,
    topic: TopicId,
    (me, handle): (MemberId, Handle),
    discovered: mpsc::Sender<NetEvent>,
) {
    let mut pause = tokio::time::interval(LOOK_EVERY);
    pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        pause.tick().await;
        let lonely = matches!(handle.view().connection, ConnectionView::Offline { .. });
        if !lonely {
            continue;
        }
        let folders = folders.clone();
        let Ok(records) = tokio::task::spawn_blocking(move || folders.nearby(topic)).await else {
            return;
        };
        for record in records.into_iter().filter(|record| record.member != me) {
            let (peer, addrs) = (record.member, record.listen);
            let event = NetEvent::Discovered {
                peer,
                addrs,
                source: Source::Folder,
            };
            if discovered.send(event).await.is_err() {
                return;
            }
        }
    }
}

/// A node's place among the folders.
struct Place {
    folders: Folders,
    folder: MemberFolder,
    topic: TopicId,
    socket: PathBuf,
}

/// Keeps the node's entry in the run folder, its ports and its folder's marks up to date. Holds the folder's
/// lock as long as the node runs.
async fn keep_registered(mut place: Place, handle: Handle, entered: watch::Sender<bool>) {
    let mut views = handle.watch_view();
    let mut registration = None;
    let mut known = None;
    loop {
        let view = views.borrow_and_update().clone();
        let listen: Vec<Addr> = view
            .listen
            .iter()
            .filter_map(|addr| addr.parse().ok())
            .collect();
        let me = view.participants.iter().find(|participant| participant.me);
        let name = me.map(|me| me.name.clone()).unwrap_or_default();
        let label = Label {
            title: view.session.title.clone(),
            name,
            role: view.session.role,
        };
        // Who has left is no participant any more; what the membership was called stays.
        let label = match &known {
            Some((_, before)) if label.name.is_empty() => Label::clone(before),
            Some(_) | None => label,
        };
        let now = Some((listen, label));
        let member = matches!(view.phase, Phase::Member { .. } | Phase::Closed);
        if member && now != known {
            if let Some(now) = &now
                && let Err(error) = place.update(&mut registration, now)
            {
                tracing::warn!(%error, "the run folder could not be updated");
            }
            known = now;
            entered.send_replace(true);
        }
        tokio::select! {
            biased;
            reason = handle.stopped() => {
                place.stopped(&reason);
                return;
            }
            changed = views.changed() => if changed.is_err() {
                place.stopped(&handle.stopped().await);
                return;
            },
        }
    }
}

impl Place {
    /// A membership that is over is not resumed.
    fn stopped(&mut self, reason: &StopReason) {
        let over = match reason {
            StopReason::Closed(_) | StopReason::Left | StopReason::Removed => true,
            StopReason::JoinFailed(_)
            | StopReason::Offline
            | StopReason::NetworkFailed
            | StopReason::Broken => false,
        };
        if over && let Err(error) = self.folder.set_ended() {
            tracing::warn!(%error, "the folder could not be marked as ended");
        }
    }

    fn update(
        &mut self,
        registration: &mut Option<folder::Registration>,
        (listen, label): &(Vec<Addr>, Label),
    ) -> Result<(), FolderError> {
        self.folder.set_ports(ports_of(listen))?;
        self.folder.set_label(label)?;
        if let Some(registration) = registration {
            return registration.set_listen(listen.clone());
        }
        let record = NodeRecord {
            session: self.folder.session(),
            topic: self.topic,
            member: self.folder.member(),
            kind: self.folder.kind(),
            pid: std::process::id(),
            listen: listen.clone(),
            socket: self.socket.clone(),
            state: self.folders.state().to_owned(),
        };
        *registration = Some(self.folders.register(record)?);
        Ok(())
    }
}

fn ports_of(listen: &[Addr]) -> Ports {
    use crate::engine::address::Transport;
    let port = |transport| {
        listen
            .iter()
            .find(|addr| addr.transport == transport)
            .map(|addr| addr.port)
    };
    Ports {
        tcp: port(Transport::Tcp),
        udp: port(Transport::Quic),
    }
}

fn folder_failed(error: &FolderError) -> CommandError {
    CommandError::new(error.code(), error.to_string())
}

fn net_failed(error: &NetError) -> CommandError {
    CommandError::new(Code::ListenFailed, error.to_string())
}
