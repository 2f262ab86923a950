//! From state to what faces see: the view, and the events that follow from news.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::capability::Role;
use crate::engine::command::{
    Ask, CommandError, ControlMode, MessagesSince, MessagesWanted, Reply,
};
use crate::engine::commands::message_id;
use crate::engine::context::Context;
use crate::engine::documents::chat::{Timeline, place_of};
use crate::engine::documents::{ChatMessage, Running};
use crate::engine::effect::StopReason;
use crate::engine::error::Code;
use crate::engine::event::ExitStatus;
use crate::engine::ids::{MemberId, TerminalId};
use crate::engine::limits::{LISTED_MESSAGES_MAX, MEMBERS_MAX, PICTURE_STALE, VIEW_MESSAGES_MAX};
use crate::engine::member::{Member, effective, kind_of};
use crate::engine::replica::OwnInvite;
use crate::engine::statement::Grantee;
use crate::engine::ticket::{Ticket, TicketSecret};
use crate::engine::time::{Now, Wall};
use crate::engine::view::{
    ApprovalView, ConnectionView, ControlView, InviteView, MessageView, ParticipantView, PeerView,
    Phase as PhaseView, Picture, SessionView, Status, TerminalView, View, What,
};
use crate::engine::{Engine, Phase};

impl Engine {
    /// The picture at this moment.
    pub fn view(&self, now: Now) -> View {
        match &self.phase {
            Phase::Member(member) => self.member_view(member, now),
            Phase::Joining(joining) => {
                let waits_for = if joining.waits_for_person {
                    "for a person to let you in".to_owned()
                } else {
                    self.links.waits_for(now.mono)
                };
                let phase = PhaseView::Joining {
                    waits_for: waits_for.clone(),
                };
                let mut view = self.empty_view(phase);
                view.session.id = joining.ticket.session;
                view.connection = ConnectionView::Offline {
                    waiting: 0,
                    waits_for,
                };
                view
            }
            Phase::Over => self.empty_view(PhaseView::Ended),
        }
    }

    fn empty_view(&self, phase: PhaseView) -> View {
        View {
            version: self.version,
            me: self.me,
            phase,
            session: empty_session(),
            participants: Vec::new(),
            terminals: Vec::new(),
            messages: Vec::new(),
            messages_total: 0,
            approvals: Vec::new(),
            invites: Vec::new(),
            peers: Vec::new(),
            connection: ConnectionView::Offline {
                waiting: 0,
                waits_for: String::new(),
            },
            listen: self.listen.iter().map(ToString::to_string).collect(),
            unsaved: None,
            notices: Vec::new(),
        }
    }

    fn member_view(&self, member: &Member, now: Now) -> View {
        let timeline = member.replica.documents().timeline();
        let newest = timeline.newest(VIEW_MESSAGES_MAX);
        let closed = member.replica.membership().closed().is_some();
        let phase = match closed {
            true => PhaseView::Closed,
            false => PhaseView::Member {
                synced: member.synced || member.alone,
            },
        };
        View {
            version: self.version,
            me: self.me,
            phase,
            session: member.session_view(),
            participants: self.participants(member, now),
            terminals: self.terminal_views(member, now),
            messages: newest
                .iter()
                .map(|message| member.message_view(message, now.wall))
                .collect(),
            messages_total: u64::try_from(timeline.len()).unwrap_or(u64::MAX),
            approvals: self.approvals(member, now),
            invites: self.invites(member, now.wall),
            peers: self.peer_views(member),
            connection: self.connection(member, now),
            listen: self.listen.iter().map(ToString::to_string).collect(),
            unsaved: member.replica.frozen().cloned(),
            notices: member.notices.iter().cloned().collect(),
        }
    }

    fn participants(&self, member: &Member, now: Now) -> Vec<ParticipantView> {
        let mut all: Vec<ParticipantView> = member
            .replica
            .membership()
            .members()
            .filter_map(|known| {
                let standing = known.standing.as_ref()?;
                let mut view = ParticipantView {
                    id: known.id,
                    name: member.name(&known.id),
                    kind: kind_of(known.kind),
                    role: standing.role,
                    me: known.id == self.me,
                    status: Status::Gone,
                    joined: known.admitted_at,
                    last_active: None,
                    pointer: None,
                    selection: None,
                    active: None,
                    typing: None,
                    path: None,
                    rtt: None,
                    colour: known.id.0.first().copied().unwrap_or(0),
                };
                self.add_presence(member, &mut view, now);
                Some(view)
            })
            .take(MEMBERS_MAX)
            .collect();
        all.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        all
    }

    fn add_presence(&self, member: &Member, view: &mut ParticipantView, now: Now) {
        let (status, state) = if view.me {
            (member.board.mine().status, Some(member.board.mine()))
        } else {
            member.board.of(&view.id, &member.replica, now.mono)
        };
        view.status = status;
        if let Some(state) = state {
            view.last_active = Some(state.last_active);
            if status != Status::Gone {
                view.pointer = state.pointer;
                view.selection = state.selection;
                view.active.clone_from(&state.active);
                view.typing = state.typing;
            }
        }
        if let Some((_, link)) = self.links.active(&view.id) {
            view.path = Some(link.path);
            view.rtt = link.rtt_micros.map(Duration::from_micros);
        }
    }

    fn terminal_views(&self, member: &Member, now: Now) -> Vec<TerminalView> {
        let mut all: Vec<TerminalView> = Vec::new();
        for (host, id, terminal) in member.announced_terminals() {
            let (open, status) = match terminal.state {
                Running::Open => (true, None),
                Running::Closed { status, .. } => (false, status),
            };
            let mut view = TerminalView {
                id,
                host,
                mine: host == self.me,
                title: terminal.title.clone(),
                cols: terminal.cols,
                rows: terminal.rows,
                open,
                status,
                opened: terminal.opened,
                control: nobody(),
                picture: Picture::None,
            };
            member.add_terminal_state(&mut view, now);
            all.push(view);
        }
        // Seniors' terminals first, whatever times others claim; among one's own the oldest first.
        all.sort_by_key(|terminal| {
            let rank = member
                .replica
                .standing(&terminal.host)
                .map(|standing| standing.rank);
            (rank, terminal.host, terminal.opened, terminal.id)
        });
        all
    }

    fn approvals(&self, member: &Member, now: Now) -> Vec<ApprovalView> {
        let mut all: Vec<ApprovalView> = member
            .waiting
            .keys()
            .filter_map(|id| member.approval_view(id, now))
            .collect();
        all.sort_by_key(|approval| approval.asked);
        all
    }

    fn invites(&self, member: &Member, now: Wall) -> Vec<InviteView> {
        let membership = member.replica.membership();
        let mut all: Vec<InviteView> = membership
            .grants()
            .filter_map(|fact| {
                let Grantee::Invite(id) = fact.grant.to else {
                    return None;
                };
                let used = u32::try_from(membership.uses(&fact.hash).len()).unwrap_or(u32::MAX);
                let own = member.replica.invites().get(&id);
                let expires = fact.grant.not_after;
                let over = expires.is_some_and(|end| now > end)
                    || fact.grant.max_uses.is_some_and(|most| used >= most);
                Some(InviteView {
                    id,
                    role: fact.grant.role,
                    expires,
                    ask: if fact.grant.ask {
                        Ask::Always
                    } else {
                        Ask::Never
                    },
                    used,
                    open: !over,
                    created: fact.issued_at,
                    ticket: own.map(|own| self.ticket(member, own, expires)),
                })
            })
            .collect();
        all.sort_by_key(|invite| (invite.created, invite.id));
        all
    }

    /// The ticket of an invitation made here, with the addresses of the moment.
    fn ticket(&self, member: &Member, own: &OwnInvite, expires: Option<Wall>) -> String {
        let signed = member.own_addresses(&self.setup, &self.listen);
        let mut addresses: Vec<_> = signed.addrs;
        // Both transports of a few networks keep the line short enough to be pasted.
        addresses.truncate(TICKET_ADDRESSES);
        let ticket = Ticket {
            session: member.replica.session(),
            secret: TicketSecret::Open(own.seed),
            discovery_key: *member.replica.discovery(),
            host: self.me,
            addresses: if own.addresses {
                addresses.iter().map(ToString::to_string).collect()
            } else {
                Vec::new()
            },
            chain: Vec::new(),
            expires,
        };
        ticket.to_text().to_string()
    }

    fn peer_views(&self, member: &Member) -> Vec<PeerView> {
        self.links
            .up()
            .map(|(peer, _, link)| {
                let (lacks, we_lack) = member.sync.difference(&peer, &member.replica);
                let rtt = link.rtt_micros.map(Duration::from_micros);
                PeerView {
                    id: peer,
                    path: link.path,
                    rtt,
                    lacks,
                    we_lack,
                }
            })
            .collect()
    }

    fn connection(&self, member: &Member, now: Now) -> ConnectionView {
        if self.links.up().next().is_none() {
            let waiting = member.sync.unseen(&member.replica);
            let mut others = member.replica.membership().members();
            let waits_for = if others.all(|known| known.id == self.me) {
                "nobody has joined yet".to_owned()
            } else {
                self.links.waits_for(now.mono)
            };
            return ConnectionView::Offline { waiting, waits_for };
        }
        match member.sync.waiting(&member.replica) {
            0 => ConnectionView::Live,
            waiting => ConnectionView::CatchingUp { waiting },
        }
    }

    /// Statements came: who is a member, and whether the session goes on.
    pub(in crate::engine) fn membership_changed(&mut self, context: &mut Context<'_>) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let members = effective(&member.replica, context.now.wall);
        let came: Vec<MemberId> = members.difference(&member.announced).copied().collect();
        let went: Vec<MemberId> = member.announced.difference(&members).copied().collect();
        member.announced.clone_from(&members);
        for id in came {
            member.emit_joined(&id, context);
        }
        for id in went {
            let what = What::ParticipantLeft {
                participant: id,
                name: member.name(&id),
            };
            context.emit(Some(member.actor(&id)), what);
        }
        let me = member.me();
        let closed = member.replica.membership().closed().is_some();
        let removed = !members.contains(&me) && !member.leaving;
        self.tell_members(context);
        self.rights_changed(context);
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        if closed {
            let status = member.last_status();
            if member.ending.is_none() {
                context.emit(None, What::SessionClosed { status });
            }
            self.end(StopReason::Closed(status), context);
        } else if removed {
            self.end(StopReason::Removed, context);
        }
    }

    pub(in crate::engine) fn session_changed(&mut self, context: &mut Context<'_>) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let session = member.session_view();
        context.emit(None, What::SessionUpdated { session });
        self.control_mode_changed(context);
    }

    pub(in crate::engine) fn messages_came(
        &mut self,
        messages: &[Arc<ChatMessage>],
        context: &mut Context<'_>,
    ) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        for message in messages {
            let view = member.message_view(message, context.now.wall);
            let actor = member.actor(&message.author);
            context.emit(Some(actor), What::MessagePosted { message: view });
        }
    }

    /// What a member says of itself changed: its terminals perhaps.
    pub(in crate::engine) fn member_changed(&mut self, id: MemberId, context: &mut Context<'_>) {
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        let me = member.me();
        if id != me {
            member.emit_terminals(&id, context);
        }
        context.changed = true;
        self.watch_terminals(context);
        // The owner's closing may have come before the status of its terminal.
        let Phase::Member(member) = &mut self.phase else {
            return;
        };
        if member.replica.membership().closed().is_some() {
            let status = member.last_status();
            if let Some(ending) = &mut member.ending
                && ending.reason == StopReason::Closed(None)
            {
                ending.reason = StopReason::Closed(status);
            }
        }
    }
}

impl Member {
    fn session_view(&self) -> SessionView {
        let state = self.replica.documents().session();
        let me = self.me();
        let created = state.created.unwrap_or_default();
        SessionView {
            id: self.replica.session(),
            title: state.title.clone(),
            created,
            updated: state.updated.unwrap_or(created),
            expires: state.expires,
            public: state.public,
            ask: state.ask,
            control: state.control,
            role: self
                .replica
                .standing(&me)
                .map_or(Role::Viewer, |standing| standing.role),
            owner: self.replica.is_owner(),
            unredacted: true,
        }
    }

    /// The newest messages of a stretch of the chat, oldest first.
    pub(in crate::engine) fn list(
        &self,
        wanted: &MessagesWanted,
        now: Wall,
    ) -> Result<Reply, CommandError> {
        let timeline = self.replica.documents().timeline();
        let place = |id: &str| {
            let found = timeline
                .get(&message_id(id)?)
                .map(|message| place_of(message));
            found.ok_or_else(|| {
                CommandError::new(Code::Usage, format!("no message here has the id `{id}`"))
            })
        };
        let before = wanted.before.as_deref().map(place).transpose()?;
        let first = match &wanted.since {
            None => None,
            Some(MessagesSince::Time(time)) => Some(Timeline::end_of(*time)),
            Some(MessagesSince::Message(id)) => Some(place(id)?),
        };
        let most = wanted.most.min(LISTED_MESSAGES_MAX);
        let mut newest: Vec<MessageView> = timeline
            .between(first, before)
            .rev()
            .take(most)
            .map(|message| self.message_view(message, now))
            .collect();
        newest.reverse();
        Ok(Reply::Messages(newest))
    }

    fn message_view(&self, message: &ChatMessage, now: Wall) -> MessageView {
        MessageView {
            id: message.id.to_string(),
            from: message.author,
            name: self.name(&message.author),
            time: message.stamp.wall,
            text: message.text.clone(),
            reply: message.reply.map(|reply| reply.to_string()),
            mentions: message.mentions.clone(),
            anchor: message.anchor.clone(),
            from_the_future: message.stamp.is_ahead(now),
        }
    }

    fn add_terminal_state(&self, view: &mut TerminalView, now: Now) {
        let ends = |left: Duration| Some(now.wall + left);
        if let Some(hosted) = self.terminals.hosted.get(&view.id) {
            let lease = hosted.lease.view(now.mono);
            view.picture = Picture::Live;
            (view.cols, view.rows) = hosted.size;
            view.control = ControlView {
                holder: lease.holder,
                mine: false,
                number: lease.number,
                ends: lease.holder.and_then(|_| ends(lease.remaining)),
                locked: lease.locked.is_some(),
                unconfirmed: 0,
                requested: false,
                requests: hosted
                    .prompts
                    .iter()
                    .filter(|prompt| prompt.is_for_asker())
                    .map(|prompt| prompt.who)
                    .collect(),
            };
        } else if let Some(viewed) = self.terminals.viewed.get(&view.id) {
            let held = viewed.sender.held(now.mono);
            let status = viewed.sender.status();
            let stale = viewed.fresh + PICTURE_STALE <= now.mono;
            view.picture = match (&viewed.pictures.newest, stale && view.open) {
                (None, _) => Picture::None,
                (Some(_), true) => Picture::Stale,
                (Some(_), false) => Picture::Live,
            };
            let others = status.and_then(|status| status.holder());
            view.control = ControlView {
                holder: held.map(|_| self.me()).or(others),
                mine: held.is_some(),
                number: held
                    .map_or_else(|| status.map_or(0, |status| status.number), |held| held.0),
                ends: held.and_then(|(_, left)| ends(left)),
                locked: status.is_some_and(|status| status.locked.is_some()),
                unconfirmed: viewed.sender.unconfirmed(),
                requested: viewed.sender.is_asking(),
                requests: Vec::new(),
            };
        }
        let title = self.screen_title(&view.id);
        if let Some(title) = title.filter(|title| !title.is_empty()) {
            view.title = title;
        }
    }

    /// The title that the program has set.
    fn screen_title(&self, id: &TerminalId) -> Option<String> {
        let hosted = self.terminals.hosted.get(id).map(|hosted| &hosted.pictures);
        let pictures = hosted.or_else(|| self.terminals.viewed.get(id).map(|v| &v.pictures))?;
        pictures.newest.as_ref().map(|screen| screen.title.clone())
    }

    fn emit_joined(&self, id: &MemberId, context: &mut Context<'_>) {
        let membership = self.replica.membership();
        let Some(known) = membership.member(id) else {
            return;
        };
        let role = known
            .standing
            .as_ref()
            .map_or(Role::Viewer, |standing| standing.role);
        let name = self.name(id);
        let what = What::ParticipantJoined {
            participant: *id,
            name,
            role,
        };
        context.emit(Some(self.actor(id)), what);
        if let Some(fact) = membership.grant_by_hash(&known.grant)
            && let Grantee::Invite(invite) = fact.grant.to
        {
            context.emit(
                Some(self.actor(id)),
                What::InviteUsed {
                    invite,
                    participant: *id,
                },
            );
        }
    }

    /// Tells of terminals of a member that were opened, resized or closed since it was told last.
    fn emit_terminals(&mut self, host: &MemberId, context: &mut Context<'_>) {
        let announced = self.announced_terminals();
        let theirs = announced.iter().filter(|(by, ..)| by == host);
        let actor = self.actor(host);
        for (_, id, terminal) in theirs {
            let (open, status) = match terminal.state {
                Running::Open => (true, None),
                Running::Closed { status, .. } => (false, status),
            };
            let told = self.told.insert(*id, (open, terminal.cols, terminal.rows));
            let (cols, rows) = (terminal.cols, terminal.rows);
            let what = match (told, open) {
                (None, true) => What::TerminalOpened {
                    terminal: *id,
                    host: *host,
                    title: terminal.title.clone(),
                    cols,
                    rows,
                },
                (Some((true, ..)) | None, false) => What::TerminalClosed {
                    terminal: *id,
                    status,
                },
                (Some((_, before_cols, before_rows)), true)
                    if (before_cols, before_rows) != (cols, rows) =>
                {
                    What::TerminalResized {
                        terminal: *id,
                        cols,
                        rows,
                    }
                }
                (Some(_), _) => continue,
            };
            context.emit(Some(actor.clone()), what);
        }
    }

    /// How the session's newest terminal ended.
    fn last_status(&self) -> Option<ExitStatus> {
        let documents = self.replica.documents();
        let all = documents
            .members()
            .flat_map(|(_, state)| state.terminals.values());
        let last = all.max_by_key(|terminal| terminal.opened)?;
        match last.state {
            Running::Open => None,
            Running::Closed { status, .. } => status,
        }
    }
}

/// Addresses in a ticket: more make the line too long to be pasted.
const TICKET_ADDRESSES: usize = 4;

fn nobody() -> ControlView {
    ControlView {
        holder: None,
        mine: false,
        number: 0,
        ends: None,
        locked: false,
        unconfirmed: 0,
        requested: false,
        requests: Vec::new(),
    }
}

fn empty_session() -> SessionView {
    SessionView {
        id: crate::engine::ids::SessionId([0; 32]),
        title: String::new(),
        created: Wall(0),
        updated: Wall(0),
        expires: None,
        public: false,
        ask: Ask::default(),
        control: ControlMode::default(),
        role: Role::Viewer,
        owner: false,
        unredacted: true,
    }
}
