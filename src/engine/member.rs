//! A node that is a member: its replica, its neighbours, who is there, its terminals, its questions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::engine::address::{Addr, Reach};
use crate::engine::admission::{Joined, Presenter, Question, Sponsor, SponsorLimits};
use crate::engine::capability::{Action, Role};
use crate::engine::command::{
    Ask, CommandError, ControlMode, Pointer, Reply, Selection, SessionPatch, Typing,
};
use crate::engine::context::Context;
use crate::engine::control::Place;
use crate::engine::documents::{DocumentName, SessionFact, Setting, TerminalState};
use crate::engine::effect::{NetEffect, StopReason};
use crate::engine::epoch::Keyring;
use crate::engine::error::Code;
use crate::engine::event::{ConnId, RequestId, StreamId};
use crate::engine::identity::{AgreementKey, InviteKey, MemberKey, keyed_hash};
use crate::engine::ids::{Hash, InviteId, MemberId, TerminalId};
use crate::engine::joining::Joining;
use crate::engine::limits::{ADDRS_PER_PEER_MAX, GOSSIP_WHOLE_BYTES_MAX, VIEW_NOTICES_MAX};
use crate::engine::membership::NewSession as NewMembership;
use crate::engine::message::{SignedAddresses, SignedInstance};
use crate::engine::own::Own;
use crate::engine::persist::{Key, Table};
use crate::engine::presence::Board;
use crate::engine::queues::EngineGauges;
use crate::engine::replica::{
    LoadError, News, OwnInvite, Planted, Profile, Records, Replica, Secrets, Taken,
};
use crate::engine::statement::{Genesis, Grant, Grantee, Sponsors, StatementBody};
use crate::engine::sync::Sync;
use crate::engine::terminals::Terminals;
use crate::engine::time::{Mono, Now, Wall};
use crate::engine::timers::{Timer, Timers};
use crate::engine::view::{Actor, Kind, Notice, Status, What};
use crate::engine::{Engine, Phase, Setup};

/// How a session begins.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// The owner's name.
    pub name: String,
    /// The session's title.
    pub title: String,
    /// Who is asked about.
    pub ask: Ask,
    /// How control is given.
    pub control: ControlMode,
}

/// Rules that a simulated node breaks on purpose, to see the checkers find it. The product breaks none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bugs {
    /// Keys that come twice are written twice.
    pub drop_dedup: bool,
    /// Whoever sends keys is obeyed, whatever lease they name.
    pub ignore_lease_number: bool,
    /// A new lease does not end the one before.
    pub two_controllers: bool,
    /// What should be on disk first never gets there.
    pub skip_persist: bool,
    /// Entries are taken whoever signed them.
    pub accept_unsigned: bool,
    /// Neighbours never compare what they have: gossip alone must do.
    pub no_catch_up: bool,
    /// News is never spread by gossip: catch-up alone must do.
    pub no_gossip: bool,
}

/// A person's question with the stream that waits for its answer.
#[derive(Debug)]
pub(in crate::engine) struct Waiting {
    pub(in crate::engine) stream: StreamId,
    pub(in crate::engine) question: Question,
    pub(in crate::engine) asked: Wall,
}

/// An admission on a member's side.
#[derive(Debug)]
pub(in crate::engine) struct Door {
    pub(in crate::engine) conn: ConnId,
    pub(in crate::engine) machine: DoorKind,
    /// Whether it has failed.
    pub(in crate::engine) refused: bool,
}

#[derive(Debug)]
pub(in crate::engine) enum DoorKind {
    Sponsor(Box<Sponsor>),
    Presenter(Box<Presenter>),
}

/// A command that is answered later.
#[derive(Debug)]
pub(in crate::engine) struct Promise {
    pub(in crate::engine) request: RequestId,
    pub(in crate::engine) until: Mono,
    /// Bytes of a verb `type`.
    pub(in crate::engine) bytes: u64,
}

/// Why a member's node ends once its last words are out.
#[derive(Debug)]
pub(in crate::engine) struct Ending {
    pub(in crate::engine) reason: StopReason,
    pub(in crate::engine) at: Mono,
}

/// A member of a session.
pub(in crate::engine) struct Member {
    pub(in crate::engine) replica: Replica,
    pub(in crate::engine) own: Own,
    pub(in crate::engine) sync: Sync,
    pub(in crate::engine) board: Board,
    pub(in crate::engine) terminals: Terminals,
    pub(in crate::engine) doors: BTreeMap<StreamId, Door>,
    pub(in crate::engine) limits: SponsorLimits,
    pub(in crate::engine) waiting: BTreeMap<String, Waiting>,
    pub(in crate::engine) addresses: BTreeMap<MemberId, SignedAddresses>,
    pub(in crate::engine) instances: BTreeMap<MemberId, SignedInstance>,
    pub(in crate::engine) instance: u64,
    pub(in crate::engine) address_counter: u64,
    /// When each member's addresses changed in the last minute.
    pub(in crate::engine) address_changes: BTreeMap<MemberId, VecDeque<Mono>>,
    /// The newest addresses of members that have changed theirs too often, and who told: taken later.
    pub(in crate::engine) late_addresses: BTreeMap<MemberId, (MemberId, SignedAddresses)>,
    /// When connected peers were last told presences that they lacked.
    pub(in crate::engine) presences_told: BTreeMap<MemberId, Mono>,
    pub(in crate::engine) members: BTreeSet<MemberId>,
    /// The last moment of the membership that ends next.
    pub(in crate::engine) next_end: Option<Wall>,
    /// What the wall clock said when it was last asked whose time is over.
    pub(in crate::engine) judged_at: Wall,
    /// Members of whom faces were told.
    pub(in crate::engine) announced: BTreeSet<MemberId>,
    /// Terminals of others as faces were told: open, columns, rows.
    pub(in crate::engine) told: BTreeMap<TerminalId, (bool, u16, u16)>,
    /// This member has said that it leaves.
    pub(in crate::engine) leaving: bool,
    /// Verbs `type` that wait for the host, by their number.
    pub(in crate::engine) typing: BTreeMap<u64, Promise>,
    /// Requests for control that wait to be recorded, and orders that wait for their outcome.
    pub(in crate::engine) asking: BTreeMap<TerminalId, VecDeque<Promise>>,
    pub(in crate::engine) ordering: BTreeMap<TerminalId, VecDeque<Promise>>,
    pub(in crate::engine) verbs: u64,
    pub(in crate::engine) notices: VecDeque<Notice>,
    pub(in crate::engine) notice_number: u64,
    pub(in crate::engine) alone: bool,
    pub(in crate::engine) synced: bool,
    pub(in crate::engine) ending: Option<Ending>,
    pub(in crate::engine) pings: BTreeMap<u64, (ConnId, Mono)>,
    pub(in crate::engine) ping_number: u64,
    pub(in crate::engine) presence_told: Mono,
    /// When what gossip brought was last judged.
    pub(in crate::engine) judged: Mono,
    /// What was last told of each member's presence.
    pub(in crate::engine) shown: BTreeMap<MemberId, Shown>,
    pub(in crate::engine) bugs: Bugs,
}

/// Status, typing, pointer and selection of a member, as faces were told.
pub(in crate::engine) type Shown = (Status, Option<Typing>, Option<Pointer>, Option<Selection>);

/// How long last words may take to go out.
pub(in crate::engine) const LINGER: Duration = Duration::from_millis(400);

impl Member {
    /// The owner's first node of a new session.
    pub(in crate::engine) fn create(
        setup: &Setup,
        new: NewSession,
        context: &mut Context<'_>,
    ) -> Result<Self, CommandError> {
        let root = MemberKey::generate(context.entropy);
        let key = MemberKey::generate(context.entropy);
        let prekey = AgreementKey::generate(context.entropy);
        let discovery: [u8; 32] = context.entropy.bytes();
        let begun = NewMembership {
            root: &root,
            owner: &key,
            prekey: prekey.public(),
            name: new.name.clone(),
            discovery_key: &discovery,
            at: context.now.wall,
        };
        let created = Genesis::create(&begun, context.entropy).map_err(|error| {
            CommandError::new(Code::Usage, format!("the session cannot begin: {error}"))
        })?;
        let mut keyring = Keyring::default();
        keyring.insert(created.secret);
        let session = created.membership.session();
        let secrets = Secrets {
            key,
            prekey,
            discovery,
            root: Some(root),
        };
        let profile = Profile {
            session,
            name: new.name.clone(),
            terminal: None,
        };
        let replica = Replica::new(
            secrets,
            profile,
            created.membership,
            created.statements,
            keyring,
            context.entropy,
            &mut context.out.persist,
        );
        let mut member = Self::assemble(setup, replica, 1, context);
        member.alone = true;
        member.first_words(&new, context)?;
        Ok(member)
    }

    /// Session facts and the owner's own document.
    fn first_words(
        &mut self,
        new: &NewSession,
        context: &mut Context<'_>,
    ) -> Result<(), CommandError> {
        let now = context.now.wall;
        let facts = [
            SessionFact::Title(new.title.clone()),
            SessionFact::Created(now),
            SessionFact::Public(false),
            SessionFact::Setting(Setting::Ask(new.ask)),
            SessionFact::Setting(Setting::Control(new.control)),
        ];
        let mut taken = Taken::default();
        self.replica.write(
            DocumentName::Session,
            context.entropy,
            (&mut taken, &mut context.out.persist),
            |documents, writer| {
                documents
                    .write_session(writer, now, &facts)
                    .map(|change| (change, ()))
            },
        )?;
        self.introduce(&mut taken, context)?;
        self.absorb(taken, context);
        Ok(())
    }

    /// What a member says of itself first.
    pub(in crate::engine) fn introduce(
        &mut self,
        taken: &mut Taken,
        context: &mut Context<'_>,
    ) -> Result<(), CommandError> {
        let now = context.now.wall;
        let owner = self.me();
        let name = self.replica.profile().name.clone();
        self.replica.write(
            DocumentName::Member { owner },
            context.entropy,
            (taken, &mut context.out.persist),
            |documents, writer| {
                let change = documents.write_profile(writer, now, &name, Kind::Human);
                change.map(|change| (change, ()))
            },
        )
    }

    /// A newcomer's node right after it was let in.
    pub(in crate::engine) fn joined(
        joining: &Joining,
        joined: Joined,
        setup: &Setup,
        context: &mut Context<'_>,
    ) -> Self {
        let secrets = Secrets {
            key: joining.key().clone(),
            prekey: joining.prekey().clone(),
            discovery: joining.ticket.discovery_key,
            root: None,
        };
        let session = joining.ticket.session;
        let profile = Profile {
            session,
            name: joining.name.clone(),
            terminal: None,
        };
        let replica = Replica::new(
            secrets,
            profile,
            joined.membership,
            joined.statements,
            joined.keyring,
            context.entropy,
            &mut context.out.persist,
        );
        Self::assemble(setup, replica, 1, context)
    }

    /// A member's node started again.
    pub(in crate::engine) fn load(
        setup: &Setup,
        records: &Records,
        context: &mut Context<'_>,
    ) -> Result<Self, LoadError> {
        let (replica, _) = Replica::load(records, context.entropy)?;
        let last = records
            .get(Table::Meta, b"instance")
            .and_then(|bytes| bytes.try_into().ok());
        let instance = u64::from_be_bytes(last.unwrap_or_default()).saturating_add(1);
        let mut member = Self::assemble(setup, replica, instance, context);
        for bytes in records.values(Table::Addresses) {
            if let Ok(signed) = postcard::from_bytes::<SignedAddresses>(bytes) {
                member.addresses.insert(signed.member, signed);
            }
        }
        member.alone = member.members.len() < 2;
        Ok(member)
    }

    fn assemble(
        setup: &Setup,
        mut replica: Replica,
        instance: u64,
        context: &mut Context<'_>,
    ) -> Self {
        let bugs = setup.bugs;
        let planted = Planted {
            accept_unsigned: bugs.accept_unsigned,
            skip_persist: bugs.skip_persist,
        };
        replica.plant(planted);
        let key = Key::new(Table::Meta, *b"instance");
        context
            .out
            .persist
            .put(key, instance.to_be_bytes().to_vec());
        let mut sync = Sync::new(replica.frontier().seq);
        if bugs.no_catch_up {
            sync.switch_off();
        }
        let members = effective(&replica, context.now.wall);
        let run = u64::from_be_bytes(context.entropy.bytes());
        Self {
            own: Own::new(run),
            sync,
            board: Board::new(instance, context.now),
            terminals: Terminals::default(),
            replica,
            doors: BTreeMap::new(),
            limits: SponsorLimits::default(),
            waiting: BTreeMap::new(),
            addresses: BTreeMap::new(),
            instances: BTreeMap::new(),
            instance,
            address_counter: 0,
            address_changes: BTreeMap::new(),
            late_addresses: BTreeMap::new(),
            presences_told: BTreeMap::new(),
            announced: members.clone(),
            told: BTreeMap::new(),
            leaving: false,
            members,
            next_end: None,
            judged_at: context.now.wall,
            typing: BTreeMap::new(),
            asking: BTreeMap::new(),
            ordering: BTreeMap::new(),
            verbs: 0,
            notices: VecDeque::new(),
            notice_number: 0,
            alone: false,
            synced: false,
            ending: None,
            pings: BTreeMap::new(),
            ping_number: 0,
            judged: Mono(0),
            presence_told: Mono(0),
            shown: BTreeMap::new(),
            bugs,
        }
    }

    pub(in crate::engine) fn me(&self) -> MemberId {
        self.replica.me()
    }

    /// Who a member is, for events.
    pub(in crate::engine) fn actor(&self, id: &MemberId) -> Actor {
        let member = self.replica.membership().member(id);
        let kind = member
            .as_ref()
            .map_or(Kind::Human, |member| kind_of(member.kind));
        Actor {
            id: *id,
            name: self.name(id),
            kind,
        }
    }

    /// The name of a member: what it says of itself, else what it joined with, else the short form of its key.
    pub(in crate::engine) fn name(&self, id: &MemberId) -> String {
        let said = self
            .replica
            .documents()
            .member(id)
            .and_then(|state| state.name.clone());
        let joined = || {
            self.replica
                .membership()
                .member(id)
                .map(|member| member.name)
        };
        said.or_else(joined).unwrap_or_else(|| id.short())
    }

    /// Tells the person something.
    pub(in crate::engine) fn notice(&mut self, text: String, context: &mut Context<'_>) {
        self.notice_number += 1;
        let notice = Notice {
            number: self.notice_number,
            time: context.now.wall,
            text,
        };
        self.notices.push_back(notice.clone());
        while self.notices.len() > VIEW_NOTICES_MAX {
            self.notices.pop_front();
        }
        context.emit(None, What::Notice { notice });
    }

    /// What was written here: tells neighbours, and leaves the news to the engine.
    pub(in crate::engine) fn absorb(&mut self, taken: Taken, context: &mut Context<'_>) {
        self.publish(&taken.fresh, context);
        self.absorb_received(taken, context);
    }

    /// Spreads entries of the own log by gossip, if they may be shown and anybody listens; else they go by
    /// catch-up.
    pub(in crate::engine) fn publish(&mut self, entries: &[Vec<u8>], context: &mut Context<'_>) {
        if self.bugs.no_gossip || self.replica.is_held() || !self.sync.has_neighbours() {
            return;
        }
        let small = |entry: &&Vec<u8>| entry.len() <= GOSSIP_WHOLE_BYTES_MAX;
        for entry in entries.iter().filter(small) {
            let (topic, data) = (self.replica.log_topic(), entry.clone());
            context.net(NetEffect::Publish { topic, data });
        }
        let end = self.replica.frontier().seq;
        self.replica.show(end, &mut context.out.persist);
    }

    /// What came from a peer: leaves the news to the engine.
    pub(in crate::engine) fn absorb_received(&mut self, taken: Taken, context: &mut Context<'_>) {
        if taken.changed {
            self.sync.changed(context.now.mono);
            context.changed = true;
        }
        context.news.extend(taken.news);
    }

    /// The place of a terminal for its lease.
    pub(in crate::engine) fn place(&self, terminal: TerminalId, host: MemberId) -> Place {
        Place {
            session: self.replica.session(),
            terminal,
            host,
        }
    }

    /// This node's addresses under its signature.
    pub(in crate::engine) fn own_addresses(
        &self,
        setup: &Setup,
        listen: &[Addr],
    ) -> SignedAddresses {
        let mut addrs: Vec<Addr> = listen
            .iter()
            .filter(|addr| addr.ip.reach() != Reach::Never)
            .copied()
            .collect();
        // Public and private ones first: where eight are not enough, loopback is served by the run folder.
        addrs.sort_by_key(|addr| (addr.ip.reach() == Reach::Loopback, *addr));
        addrs.truncate(ADDRS_PER_PEER_MAX);
        let at = (self.instance, self.address_counter);
        let session = self.replica.session();
        SignedAddresses::sign(
            self.replica.key(),
            &session,
            at,
            addrs,
            mark(setup, &self.me()),
        )
    }

    /// Makes an invitation.
    pub(in crate::engine) fn invite(
        &mut self,
        role: Role,
        expires_in: Option<Duration>,
        ask: Ask,
        addresses: bool,
        context: &mut Context<'_>,
    ) -> Result<InviteId, CommandError> {
        let seed: [u8; 32] = context.entropy.bytes();
        let id = InviteKey::from_seed(&seed).id();
        let mut grant = Grant::preset(Grantee::Invite(id), role);
        grant.not_after = expires_in.map(|expires| context.now.wall + expires);
        let more_than_viewing = role.rank() < Role::Viewer.rank();
        grant.ask = match ask {
            Ask::Auto => more_than_viewing,
            Ask::Always => true,
            Ask::Never => false,
        };
        // Who would get more than viewing, or is asked about, is let in by owner's devices and admins only.
        let named = grant.ask || (more_than_viewing && ask != Ask::Never);
        grant.sponsors = if named {
            Sponsors::UpTo(Role::Admin.rank())
        } else {
            Sponsors::Any
        };
        self.may_invite(&grant)?;
        let mut taken = Taken::default();
        let now = context.now.wall;
        let body = StatementBody::Grant(grant);
        self.replica
            .state(body, now, &mut taken, &mut context.out.persist)?;
        let invite = OwnInvite {
            seed,
            addresses,
            created: now,
        };
        self.replica
            .keep_invite(id, invite, &mut context.out.persist);
        self.absorb(taken, context);
        let actor = self.actor(&self.me());
        context.emit(Some(actor), What::InviteCreated { invite: id, role });
        Ok(id)
    }

    /// Refuses a ticket that this member cannot make, in words for people.
    fn may_invite(&self, grant: &Grant) -> Result<(), CommandError> {
        let action = Action::CreateInvite {
            rank: grant.rank,
            capabilities: grant.capabilities,
        };
        let me = self.me();
        if self.replica.membership().may(&me, &action) {
            return Ok(());
        }
        let mine = self.replica.standing(&me);
        let mine = mine.map_or(Role::Viewer, |standing| standing.role);
        let message = match mine {
            Role::Viewer => "a viewer cannot make tickets".to_owned(),
            Role::Owner | Role::Admin | Role::Editor | Role::Agent => {
                let (mine, other) = (mine.name(), grant.role.name());
                format!("the role {mine} cannot make tickets for the role {other}")
            }
        };
        Err(CommandError::new(Code::NotPermitted, message))
    }

    /// Changes facts of the session.
    pub(in crate::engine) fn patch(
        &mut self,
        patch: SessionPatch,
        context: &mut Context<'_>,
    ) -> Result<Reply, CommandError> {
        let now = context.now.wall;
        let facts: Vec<SessionFact> = [
            patch.title.map(SessionFact::Title),
            patch.public.map(SessionFact::Public),
            patch.expires.map(SessionFact::Expires),
            patch.ask.map(|ask| SessionFact::Setting(Setting::Ask(ask))),
            patch
                .control
                .map(|mode| SessionFact::Setting(Setting::Control(mode))),
        ]
        .into_iter()
        .flatten()
        .collect();
        let mut taken = Taken::default();
        self.replica.write(
            DocumentName::Session,
            context.entropy,
            (&mut taken, &mut context.out.persist),
            |documents, writer| {
                documents
                    .write_session(writer, now, &facts)
                    .map(|change| (change, ()))
            },
        )?;
        self.absorb(taken, context);
        Ok(Reply::Done)
    }

    /// The terminals that members announce, by id: of those who may host terminals, each terminal once. Of two
    /// who claim one terminal the more senior has it, and among equals the one in whose hands it is already.
    pub(in crate::engine) fn announced_terminals(
        &self,
    ) -> Vec<(MemberId, TerminalId, TerminalState)> {
        let may = Action::AnnounceTerminal;
        let mut hosts: Vec<_> = self
            .replica
            .documents()
            .members()
            .filter(|(host, _)| self.replica.membership().may(host, &may))
            .filter_map(|(host, state)| Some((self.replica.standing(&host)?.rank, host, state)))
            .collect();
        hosts.sort_by_key(|(rank, host, _)| (*rank, *host));
        let mut all = BTreeMap::new();
        for (rank, host, state) in hosts {
            for (id, terminal) in &state.terminals {
                let first = all.entry(*id).or_insert((rank, host, terminal));
                if first.0 == rank && self.host_of(id) == Some(host) {
                    *first = (rank, host, terminal);
                }
            }
        }
        let known =
            |(id, (_, host, terminal)): (_, (_, _, &TerminalState))| (host, id, terminal.clone());
        all.into_iter().map(known).collect()
    }

    /// In whose hands a terminal is, as far as this node has it.
    fn host_of(&self, terminal: &TerminalId) -> Option<MemberId> {
        let viewed = || Some(self.terminals.viewed.get(terminal)?.host);
        let hosted = self.terminals.hosted.contains_key(terminal);
        hosted.then(|| self.me()).or_else(viewed)
    }

    /// Arms the deadlines of a member's parts.
    pub(in crate::engine) fn arm(&self, timers: &mut Timers, connected: bool, now: Now) {
        let doors = self.doors.values().filter_map(|door| match &door.machine {
            DoorKind::Sponsor(machine) => machine.deadline(),
            DoorKind::Presenter(machine) => machine.deadline(),
        });
        timers.arm(Timer::Admission, doors.map(|(at, _)| at).min());
        let speaks = connected && self.replica.epoch_to_write().is_some();
        timers.arm(
            Timer::Presence,
            speaks.then(|| self.board.deadline(self.members.len())),
        );
        timers.arm(Timer::PresenceEnds, self.board.next_end(now.mono));
        timers.arm(Timer::Fetch, self.sync.deadline());
        timers.arm(Timer::Own, self.own.deadline());
        let over = |end: Wall| now.mono + end.since(now.wall) + Duration::from_millis(1);
        // A clock that was set back may have ended what is not over.
        let set_back = now.wall < self.judged_at;
        let ends = set_back.then_some(now.mono);
        timers.arm(
            Timer::MembershipEnds,
            ends.or_else(|| self.next_end.map(over)),
        );
        let promises = self.typing.values().chain(self.asking.values().flatten());
        let promises = promises.chain(self.ordering.values().flatten());
        timers.arm(Timer::Request, promises.map(|promise| promise.until).min());
        timers.arm(Timer::Stop, self.ending.as_ref().map(|ending| ending.at));
        self.terminals.arm(timers);
    }

    /// Tells how full this member's bounded queues are.
    pub(in crate::engine) fn gauge(&self, gauges: &EngineGauges) {
        self.terminals.gauge(gauges);
        gauges.log_pools.set(self.replica.logs().pooled_bytes());
        gauges.held.set(self.replica.documents().held_bytes());
        gauges.statements.set(self.replica.membership().pending());
        gauges.approvals.set(self.waiting.len());
    }
}

/// The mark of a member's machine: who knows the run folder's secret can compute it.
pub(in crate::engine) fn mark(setup: &Setup, member: &MemberId) -> Hash {
    keyed_hash(&setup.machine, &[b"collab-p2p v1 machine mark", &member.0])
}

/// Everybody who is a member now: whose time is over is none for others. A node does not end itself by its own
/// clock.
pub(in crate::engine) fn effective(replica: &Replica, now: Wall) -> BTreeSet<MemberId> {
    let membership = replica.membership();
    membership
        .members()
        .filter(|member| member.standing.is_some())
        .map(|member| member.id)
        .filter(|id| *id == replica.me() || membership.is_present(id, now))
        .collect()
}

/// The view's word for what sits at a node.
pub(in crate::engine) fn kind_of(kind: crate::engine::capability::Kind) -> Kind {
    match kind {
        crate::engine::capability::Kind::Human => Kind::Human,
        crate::engine::capability::Kind::Agent => Kind::Agent,
    }
}

impl Engine {
    /// The member's state, if this node is one.
    pub(in crate::engine) fn member_mut(&mut self) -> Option<&mut Member> {
        match &mut self.phase {
            Phase::Member(member) => Some(member),
            Phase::Joining(_) | Phase::Over => None,
        }
    }

    /// News that the faces and other parts have to hear of.
    pub(in crate::engine) fn hear_news(&mut self, news: Vec<News>, context: &mut Context<'_>) {
        for news in news {
            match news {
                News::Membership => self.membership_changed(context),
                News::Session => self.session_changed(context),
                News::Messages(messages) => self.messages_came(&messages, context),
                News::Member(member) => self.member_changed(member, context),
                News::Fault(fault) => {
                    tracing::error!(%fault, "a document is frozen");
                    if let Some(member) = self.member_mut() {
                        member.notice(fault.to_string(), context);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::command::{Command, ControlCommand};
    use crate::engine::event::Event;
    use crate::engine::message::PeerMessage;
    use crate::engine::stage::Stage;

    const OWNER: usize = 0;

    /// Somebody joins whose membership ends.
    fn guest_until(stage: &mut Stage, role: Role, until: Wall) -> usize {
        stage.act(OWNER, |engine, context| {
            let member = engine.member_mut().unwrap();
            let seed: [u8; 32] = context.entropy.bytes();
            let id = InviteKey::from_seed(&seed).id();
            let mut grant = Grant::preset(Grantee::Invite(id), role);
            grant.membership_until = Some(until);
            let mut taken = Taken::default();
            let now = context.now.wall;
            let batch = &mut context.out.persist;
            let body = StatementBody::Grant(grant);
            member.replica.state(body, now, &mut taken, batch).unwrap();
            let invite = OwnInvite {
                seed,
                addresses: true,
                created: now,
            };
            member.replica.keep_invite(id, invite, batch);
            member.absorb(taken, context);
        });
        stage.join_by_newest()
    }

    fn is_connected(stage: &mut Stage, node: usize, to: usize) -> bool {
        let to = stage.id(to);
        stage.engine(node).links.active(&to).is_some()
    }

    #[test]
    fn a_member_whose_time_is_over_is_no_longer_talked_to() {
        let mut stage = Stage::with(&[Role::Viewer]);
        let until = stage.now().wall + Duration::from_secs(60);
        let guest = guest_until(&mut stage, Role::Editor, until);
        stage.run(Duration::from_secs(3));
        let terminal = stage.open_terminal(OWNER);
        let to = stage.id(guest);
        let grant = ControlCommand::Grant { to, duration: None };
        let granted = Command::Control {
            terminal,
            command: grant,
        };
        stage.command(OWNER, granted).unwrap();
        stage.run(until.since(stage.now().wall));
        assert!(is_connected(&mut stage, OWNER, guest) && is_connected(&mut stage, 1, guest));
        let holder = |stage: &mut Stage| stage.view(OWNER).terminals[0].control.holder;
        assert_eq!(holder(&mut stage), Some(to));
        drop(stage.take_events(OWNER));

        stage.run(Duration::from_millis(1));

        assert_eq!(
            holder(&mut stage),
            None,
            "it types no more from this moment"
        );
        let left = |event: &What| matches!(event, What::ParticipantLeft { participant, .. } if *participant == to);
        assert!(stage.take_events(OWNER).iter().any(left));
        for _ in 0..60 {
            stage.run(Duration::from_secs(1));
            assert!(!is_connected(&mut stage, OWNER, guest) && !is_connected(&mut stage, 1, guest));
        }
        assert!(is_connected(&mut stage, OWNER, 1), "others stay");
    }

    #[test]
    fn who_was_over_by_a_wrong_clock_is_talked_to_again_once_it_is_right() {
        let mut stage = Stage::with(&[Role::Viewer]);
        let until = stage.now().wall + Duration::from_secs(3600);
        let guest = guest_until(&mut stage, Role::Viewer, until);
        stage.run(Duration::from_secs(3));
        assert!(is_connected(&mut stage, OWNER, guest));

        stage.ahead_ms = 24 * 3_600_000;
        stage.run(Duration::from_secs(5));
        assert!(!is_connected(&mut stage, OWNER, guest));
        stage.ahead_ms = 0;
        stage.run(Duration::from_secs(60));

        assert!(is_connected(&mut stage, OWNER, guest));
        assert!(is_connected(&mut stage, OWNER, 1));
    }

    #[test]
    fn who_cannot_save_tells_nothing_takes_nothing_and_is_reached_all_the_same() {
        let mut stage = Stage::with(&[Role::Viewer, Role::Viewer]);
        let owner = stage.id(OWNER);
        let say = |text: &str| Command::PostMessage {
            text: text.to_owned(),
            reply: None,
            mentions: Vec::new(),
            anchor: None,
        };
        let error = CommandError::new(Code::StoreFailed, "fsync failed");
        stage.happen(OWNER, Event::CommitFailed { error });
        stage.sent.clear();

        stage.command(1, say("meanwhile")).unwrap();
        stage.say(1, OWNER, &PeerMessage::Want(vec![(owner, 0)]));
        stage.cut(OWNER, 1);
        stage.run(Duration::from_secs(10));

        assert!(is_connected(&mut stage, OWNER, 1));
        let refused = stage.command(OWNER, say("unsaved")).unwrap_err();
        assert_eq!(refused.code, Code::StoreFailed);
        assert!(stage.view(OWNER).messages.is_empty());
        assert_eq!(stage.view(OWNER).unsaved.unwrap().code, Code::StoreFailed);
        let said = stage.said(OWNER, 1);
        assert!(said.len() > 8, "it goes on beating");
        for message in said {
            match message {
                PeerMessage::Ping { vector, .. } => assert_eq!(vector, Hash([0; 32])),
                PeerMessage::Vector(_)
                | PeerMessage::Want(_)
                | PeerMessage::Entries { .. }
                | PeerMessage::WantBodies(_)
                | PeerMessage::Bodies(_)
                | PeerMessage::WantEpochs(_)
                | PeerMessage::Epochs(_) => panic!("{message:?}"),
                PeerMessage::Hello(_)
                | PeerMessage::Pong { .. }
                | PeerMessage::PresenceHave(_)
                | PeerMessage::Presences(_)
                | PeerMessage::Addresses(_)
                | PeerMessage::Lease(_)
                | PeerMessage::Challenge(_)
                | PeerMessage::Alive(_)
                | PeerMessage::Bye => {}
            }
        }
        stage.happen(OWNER, Event::CommittedAgain);
        stage.run(Duration::from_secs(5));
        assert_eq!(stage.view(OWNER).messages.len(), 1);
        assert_eq!(stage.view(OWNER).unsaved, None);
    }
}
