//! What a view says, in words: who hosts, who types, who is there, how it is connected.

use crate::engine::command::Typing;
use crate::engine::error::Code;
use crate::engine::event::Path;
use crate::engine::ids::MemberId;
use crate::engine::time::Now;
use crate::engine::view::{ConnectionView, ParticipantView, Phase, Status, TerminalView, View};
use crate::ui::text;

/// Columns that a name gets where several stand together.
const NAME_COLS: usize = 16;

/// What the person may do with the keys now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// The shell runs here and takes the person's keys.
    Host,
    /// The shell runs here and somebody else has control.
    HostWatches,
    /// The person has control of somebody's shell.
    Controls,
    /// The person has asked for control.
    Asked,
    /// Nobody gets control.
    Locked,
    /// The person looks on.
    ReadOnly,
}

impl Standing {
    pub(super) fn of(terminal: &TerminalView) -> Self {
        let control = &terminal.control;
        if terminal.mine {
            let other = control.holder.filter(|holder| *holder != terminal.host);
            if other.is_some() {
                Self::HostWatches
            } else {
                Self::Host
            }
        } else if control.mine {
            Self::Controls
        } else if control.requested {
            Self::Asked
        } else if control.locked {
            Self::Locked
        } else {
            Self::ReadOnly
        }
    }
}

/// The participant with a key.
pub(super) fn participant<'a>(view: &'a View, id: &MemberId) -> Option<&'a ParticipantView> {
    view.participants
        .iter()
        .find(|participant| participant.id == *id)
}

/// A member's name; with the front of its key where another has the same; that alone where the name is not known.
pub(super) fn name_of(view: &View, id: &MemberId) -> String {
    let named = |one: &ParticipantView| text::name(&one.name, NAME_COLS);
    let Some(name) = participant(view, id)
        .map(named)
        .filter(|name| !name.trim().is_empty())
    else {
        return id.short();
    };
    let mut others = view.participants.iter().filter(|one| one.id != *id);
    if others.any(|one| named(one).to_lowercase() == name.to_lowercase()) {
        format!("{name} ({})", id.short())
    } else {
        name
    }
}

/// Who is there: in words, the person first, and how many.
pub(super) fn who_is_here(view: &View) -> (usize, String) {
    let mut here: Vec<&ParticipantView> = view
        .participants
        .iter()
        .filter(|one| one.me || one.status != Status::Gone)
        .collect();
    here.sort_by_key(|one| !one.me);
    let names: Vec<String> = here.iter().map(|one| with_mark(view, one)).collect();
    (here.len(), names.join(", "))
}

fn with_mark(view: &View, one: &ParticipantView) -> String {
    let name = if one.me {
        "you".to_owned()
    } else {
        name_of(view, &one.id)
    };
    match (one.typing, one.status) {
        (Some(Typing::Chat), _) if !one.me => format!("{name} (writing)"),
        (Some(Typing::Terminal(_)), _) if !one.me => format!("{name} (typing)"),
        (_, Status::Idle) => format!("{name} (idle)"),
        (_, Status::Away) => format!("{name} (away)"),
        (Some(_) | None, Status::Online | Status::Gone) => name,
    }
}

/// Who hosts and who has control, from long to short.
pub(super) fn presenter(view: &View, terminal: &TerminalView) -> Vec<String> {
    let host = if terminal.mine {
        "you host".to_owned()
    } else if is_away(view, terminal) {
        // The mark of the old picture says so.
        return vec![String::new()];
    } else {
        format!("{} hosts", name_of(view, &terminal.host))
    };
    // At the host the row begins with who types.
    let told = terminal.control.mine || terminal.mine;
    let holder = terminal.control.holder.filter(|_| !told);
    match holder.filter(|holder| *holder != terminal.host) {
        Some(holder) => {
            let types = format!("{} has control", name_of(view, &holder));
            vec![format!("{host}, {types}"), types, String::new()]
        }
        None => vec![host, String::new()],
    }
}

/// Whether nobody hears the terminal's host any more, so that its picture stands still. A host to whom a connection
/// has just come up, and who has never been heard, is not away.
pub(super) fn is_away(view: &View, terminal: &TerminalView) -> bool {
    let comes = |one: &ParticipantView| one.path.is_some() && one.last_active.is_none();
    let gone = |one: &ParticipantView| one.status == Status::Gone && !comes(one);
    !terminal.mine && terminal.open && participant(view, &terminal.host).is_some_and(gone)
}

/// Why nothing is saved, from long to short; nothing while everything is.
pub(super) fn unsaved(view: &View) -> Option<Vec<String>> {
    let error = view.unsaved.as_ref()?;
    Some(if error.code == Code::DiskFull {
        vec![
            " disk full: nothing is saved, said or heard ".to_owned(),
            " disk full: nothing is saved ".to_owned(),
            " disk full ".to_owned(),
        ]
    } else {
        vec![
            " nothing is saved, said or heard until restart ".to_owned(),
            " nothing is saved until restart ".to_owned(),
            " not saved ".to_owned(),
        ]
    })
}

/// Whether the session has no other member, so that nothing waits for anybody.
fn is_alone(view: &View) -> bool {
    matches!(view.phase, Phase::Member { .. }) && view.participants.iter().all(|one| one.me)
}

/// How it is connected, from long to short.
pub(super) fn connection(view: &View) -> Vec<String> {
    match &view.connection {
        ConnectionView::Offline { .. } if is_alone(view) => {
            vec!["nobody has joined yet".to_owned(), "alone".to_owned()]
        }
        ConnectionView::Live => vec!["live".to_owned()],
        ConnectionView::CatchingUp { waiting } => {
            vec![
                format!("catching up, {waiting} to come"),
                "catching up".to_owned(),
            ]
        }
        ConnectionView::Offline { waiting: 0, .. } => vec!["offline".to_owned()],
        ConnectionView::Offline { waiting, .. } => {
            vec![format!("offline, {waiting} waiting"), "offline".to_owned()]
        }
    }
}

/// What the program waits for while it is offline, from long to short.
pub(super) fn waits_for(view: &View) -> Vec<String> {
    match &view.connection {
        ConnectionView::Offline { waits_for, .. } if !waits_for.is_empty() && !is_alone(view) => {
            let waits_for = text::shown(waits_for);
            vec![
                format!(": {waits_for}"),
                format!(": {}", text::cut(&waits_for, 24)),
                String::new(),
            ]
        }
        ConnectionView::Offline { .. }
        | ConnectionView::Live
        | ConnectionView::CatchingUp { .. } => Vec::new(),
    }
}

/// How a participant is reached, if directly.
pub(super) fn reached(one: &ParticipantView) -> Option<String> {
    let path = path_name(one.path?);
    Some(match one.rtt {
        Some(rtt) => format!("{path} {}", text::round_trip(rtt)),
        None => path.to_owned(),
    })
}

pub(super) fn path_name(path: Path) -> &'static str {
    match path {
        Path::Loopback => "this machine",
        Path::Lan => "lan",
        Path::Direct => "direct",
        Path::Relayed => "relayed",
    }
}

/// How long the person's control lasts.
pub(super) fn time_left(terminal: &TerminalView, now: Now) -> Option<String> {
    let ends = terminal.control.ends?;
    Some(format!("{} left", text::span(ends.since(now.wall))))
}

/// Whether somebody is there, and for how long not.
pub(super) fn status(one: &ParticipantView, now: Now) -> String {
    let word = match one.status {
        Status::Online => return "online".to_owned(),
        Status::Idle => "idle",
        Status::Away => "away",
        Status::Gone => "gone",
    };
    match one.last_active {
        Some(last) => format!("{word} {}", text::span(now.wall.since(last))),
        None => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::time::{Mono, Wall};
    use crate::ui::sample;

    #[test]
    fn who_is_alone_waits_for_nothing() {
        let mut view = sample::host_view();
        view.connection = ConnectionView::Offline {
            waiting: 4,
            waits_for: "for somebody to join".to_owned(),
        };
        assert_eq!(connection(&view)[0], "offline, 4 waiting");
        view.participants.retain(|one| one.me);
        assert_eq!(connection(&view)[0], "nobody has joined yet");
        assert_eq!(waits_for(&view), Vec::<String>::new());
    }

    #[test]
    fn who_has_the_name_of_another_is_told_by_the_key() {
        let mut view = sample::view();
        let (bob, eve) = (view.participants[1].id, view.participants[2].id);
        assert_eq!(name_of(&view, &eve), "eve");
        view.participants[2].name = "Bob".to_owned();
        assert_eq!(name_of(&view, &eve), format!("Bob ({})", eve.short()));
        assert_eq!(name_of(&view, &bob), format!("bob ({})", bob.short()));
    }

    #[test]
    fn the_standing_follows_the_lease() {
        let (anna, bob) = (sample::member(1), sample::member(2));
        let mut terminal = sample::terminal(anna, false);
        assert_eq!(Standing::of(&terminal), Standing::ReadOnly);
        terminal.control.locked = true;
        assert_eq!(Standing::of(&terminal), Standing::Locked);
        terminal.control.requested = true;
        assert_eq!(Standing::of(&terminal), Standing::Asked);
        terminal.control.mine = true;
        assert_eq!(Standing::of(&terminal), Standing::Controls);

        let mut terminal = sample::terminal(anna, true);
        assert_eq!(Standing::of(&terminal), Standing::Host);
        terminal.control.holder = Some(bob);
        assert_eq!(Standing::of(&terminal), Standing::HostWatches);
    }

    #[test]
    fn those_who_are_there_are_named_with_what_they_do() {
        let mut view = sample::view();
        view.participants[1].status = Status::Idle;
        view.participants[2].typing = Some(Typing::Chat);
        assert_eq!(
            who_is_here(&view),
            (3, "you, bob (idle), eve (writing)".into())
        );

        view.participants[1].status = Status::Gone;
        assert_eq!(who_is_here(&view).0, 2);
    }

    #[test]
    fn the_presenter_is_who_hosts_and_who_has_control() {
        let view = sample::view();
        let mut terminal = sample::terminal(sample::member(2), false);
        assert_eq!(presenter(&view, &terminal)[0], "bob hosts");
        terminal.control.holder = Some(sample::member(3));
        assert_eq!(presenter(&view, &terminal)[0], "bob hosts, eve has control");
    }

    #[test]
    fn an_offline_node_says_what_it_waits_for() {
        let mut view = sample::view();
        view.connection = ConnectionView::Offline {
            waiting: 3,
            waits_for: "looking for \x1b[31mbob".into(),
        };
        assert_eq!(connection(&view), ["offline, 3 waiting", "offline"]);
        assert_eq!(waits_for(&view)[0], ": looking for \\u{1b}[31mbob");
        view.connection = ConnectionView::CatchingUp { waiting: 12 };
        assert_eq!(connection(&view)[0], "catching up, 12 to come");
    }

    #[test]
    fn times_are_counted_from_now() {
        let now = Now {
            mono: Mono(0),
            wall: Wall(1_000_000),
        };
        let mut terminal = sample::terminal(sample::member(1), false);
        terminal.control.ends = Some(now.wall + Duration::from_secs(125));
        assert_eq!(time_left(&terminal, now).unwrap(), "2 min left");

        let mut view = sample::view();
        view.participants[1].status = Status::Away;
        view.participants[1].last_active = Some(Wall(1_000_000 - 720_000));
        assert_eq!(status(&view.participants[1], now), "away 12 min");
    }
}
