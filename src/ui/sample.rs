//! A session for tests: anna (me), bob and eve; bob's or anna's terminal.

use std::time::Duration;

use crate::engine::capability::Role;
use crate::engine::command::{Ask, ControlMode};
use crate::engine::event::Path;
use crate::engine::ids::{MemberId, SessionId, TerminalId};
use crate::engine::time::{Mono, Now, Wall};
use crate::engine::view::{
    ApprovalView, ConnectionView, ControlView, Kind, MessageView, ParticipantView, Phase, Picture,
    SessionView, Status, TerminalView, View,
};

/// The moment of the tests.
pub(super) const NOW: Now = Now {
    mono: Mono(5_000_000),
    wall: Wall(1_700_000_000_000),
};

/// The terminal of the tests.
pub(super) const TERMINAL: TerminalId = TerminalId([7; 16]);

pub(super) fn member(number: u8) -> MemberId {
    MemberId([number; 32])
}

pub(super) fn participant(number: u8, name: &str, role: Role) -> ParticipantView {
    ParticipantView {
        id: member(number),
        name: name.to_owned(),
        kind: Kind::Human,
        role,
        me: number == 1,
        status: Status::Online,
        joined: NOW.wall,
        last_active: Some(NOW.wall),
        pointer: None,
        selection: None,
        active: None,
        typing: None,
        path: (number != 1).then_some(Path::Lan),
        rtt: (number != 1).then_some(Duration::from_micros(2_340)),
        colour: number,
    }
}

/// A terminal of `host`, which is `mine` or not.
pub(super) fn terminal(host: MemberId, mine: bool) -> TerminalView {
    TerminalView {
        id: TERMINAL,
        host,
        mine,
        title: "demo".to_owned(),
        cols: 80,
        rows: 24,
        open: true,
        status: None,
        opened: NOW.wall,
        control: ControlView {
            holder: None,
            mine: false,
            number: 0,
            ends: None,
            locked: false,
            unconfirmed: 0,
            requested: false,
            requests: Vec::new(),
        },
        picture: Picture::Live,
    }
}

pub(super) fn message(number: u8, name: &str, text: &str) -> MessageView {
    MessageView {
        id: format!("{number}-{text}"),
        from: member(number),
        name: name.to_owned(),
        time: NOW.wall,
        text: text.to_owned(),
        reply: None,
        mentions: Vec::new(),
        anchor: None,
        from_the_future: false,
    }
}

pub(super) fn approval(name: &str) -> ApprovalView {
    ApprovalView {
        id: format!("approval-{name}"),
        member: member(9),
        name: name.to_owned(),
        role: Role::Editor,
        asked: NOW.wall,
        ends: NOW.wall + Duration::from_secs(120),
    }
}

/// Anna is a viewer of bob's terminal.
pub(super) fn view() -> View {
    View {
        version: 1,
        me: member(1),
        phase: Phase::Member { synced: true },
        session: SessionView {
            id: SessionId([5; 32]),
            title: "demo".to_owned(),
            created: NOW.wall,
            updated: NOW.wall,
            expires: None,
            public: false,
            ask: Ask::Auto,
            control: ControlMode::Ask,
            role: Role::Viewer,
            owner: false,
            unredacted: true,
        },
        participants: vec![
            participant(1, "anna", Role::Viewer),
            participant(2, "bob", Role::Owner),
            participant(3, "eve", Role::Viewer),
        ],
        terminals: vec![terminal(member(2), false)],
        messages: Vec::new(),
        messages_total: 0,
        approvals: Vec::new(),
        invites: Vec::new(),
        peers: Vec::new(),
        connection: ConnectionView::Live,
        listen: Vec::new(),
        unsaved: None,
        notices: Vec::new(),
    }
}

/// Anna is the owner and hosts the terminal.
pub(super) fn host_view() -> View {
    let mut view = view();
    view.session.role = Role::Owner;
    view.session.owner = true;
    view.participants = vec![
        participant(1, "anna", Role::Owner),
        participant(2, "bob", Role::Viewer),
        participant(3, "eve", Role::Viewer),
    ];
    view.terminals = vec![terminal(member(1), true)];
    view
}
