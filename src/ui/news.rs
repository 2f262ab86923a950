//! What of the things that happen is said to the person, in one sentence.

use crate::engine::ids::MemberId;
use crate::engine::view::{SessionEvent, View, What};
use crate::ui::{text, words};

/// Something to be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct News {
    pub(super) text: String,
    /// Whether it takes something from the person.
    pub(super) alarm: bool,
}

fn good(text: String) -> Option<News> {
    Some(News { text, alarm: false })
}

fn bad(text: String) -> Option<News> {
    Some(News { text, alarm: true })
}

/// The news of an event; none of what the screen shows anyway.
pub(super) fn of(event: &SessionEvent, view: &View, chat_open: bool) -> Option<News> {
    let mine = |id: &MemberId| *id == view.me;
    match &event.what {
        What::ParticipantJoined { participant, name, role } if !mine(participant) => {
            good(format!("{} joined as {role}", text::name(name, 24)))
        }
        What::ParticipantLeft { participant, name } if !mine(participant) => {
            good(format!("{} left", text::name(name, 24)))
        }
        What::MessagePosted { message } if !mine(&message.from) && !chat_open => {
            let said = text::shown(message.text.lines().next().unwrap_or_default());
            good(format!("{}: {said}", text::name(&message.name, 24)))
        }
        What::InviteRefused { error, .. } => {
            good(format!("somebody could not join: {}", text::shown(&error.message)))
        }
        What::ControlGranted { participant, .. } if mine(participant) => {
            good("you have control: type".to_owned())
        }
        What::ControlGranted { participant, .. } => {
            good(format!("{} has control", words::name_of(view, participant)))
        }
        What::ControlDenied { participant, .. } => {
            ended(view, participant, "the host refused control", None)
        }
        What::ControlReleased { participant, .. } => {
            ended(view, participant, "you gave control back", Some("gave control back"))
        }
        What::ControlRevoked { participant, .. } => {
            ended(view, participant, "your control was ended", Some("has control no longer"))
        }
        What::ControlTaken { from, .. } => {
            ended(view, from, "the host took control back", Some("has control no longer"))
        }
        What::ControlExpired { participant, .. } => {
            let theirs = Some("has control no longer: the time is over");
            ended(view, participant, "your control has ended: its time is over", theirs)
        }
        What::ControlRefused { message, .. } => bad(text::shown(message)),
        // A request is asked about by a card.
        What::ControlRequested { .. }
        | What::SessionUpdated { .. }
        | What::SessionClosed { .. }
        | What::ParticipantJoined { .. }
        | What::ParticipantLeft { .. }
        | What::MessagePosted { .. }
        | What::PresenceUpdated { .. }
        | What::CursorMoved { .. }
        | What::SelectionChanged { .. }
        | What::TerminalOpened { .. }
        | What::TerminalResized { .. }
        | What::TerminalClosed { .. }
        | What::InviteCreated { .. }
        | What::InviteUsed { .. }
        | What::PeerConnected { .. }
        | What::PeerDisconnected { .. }
        | What::SyncProgress { .. }
        | What::SyncCompleted { .. }
        | What::ApprovalRequested { .. }
        | What::ApprovalDecided { .. }
        // The view keeps notices, so none is lost.
        | What::Notice { .. } => None,
    }
}

/// That somebody's control is over: a loss for its holder, news for the others.
fn ended(view: &View, who: &MemberId, of_mine: &str, of_others: Option<&str>) -> Option<News> {
    if *who == view.me {
        bad(of_mine.to_owned())
    } else {
        good(format!("{} {}", words::name_of(view, who), of_others?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::capability::Role;
    use crate::ui::sample::{self, NOW, TERMINAL};

    fn news(what: What) -> Option<String> {
        let event = SessionEvent {
            time: NOW.wall,
            actor: None,
            what,
        };
        of(&event, &sample::view(), false).map(|news| news.text)
    }

    #[test]
    fn who_comes_and_goes_is_said_but_not_of_oneself() {
        let joined = |number, name: &str| What::ParticipantJoined {
            participant: sample::member(number),
            name: name.into(),
            role: Role::Viewer,
        };
        assert_eq!(
            news(joined(4, "carl\x1b[2J")).unwrap(),
            "carl\\u{1b}[2J joined as viewer"
        );
        assert_eq!(news(joined(1, "anna")), None);
    }

    #[test]
    fn the_holder_learns_how_control_came_and_went() {
        let (terminal, participant) = (TERMINAL, sample::member(1));
        let granted = What::ControlGranted {
            terminal,
            participant,
            number: 1,
            ends: NOW.wall,
        };
        assert_eq!(news(granted).unwrap(), "you have control: type");
        let taken = What::ControlTaken {
            terminal,
            from: participant,
            number: 2,
        };
        assert_eq!(news(taken).unwrap(), "the host took control back");
        let expired = What::ControlExpired {
            terminal,
            participant: sample::member(3),
            number: 2,
        };
        assert_eq!(
            news(expired).unwrap(),
            "eve has control no longer: the time is over"
        );
    }

    #[test]
    fn messages_are_said_while_the_chat_is_closed() {
        let message = sample::message(2, "bob", "hi\x07\nthere");
        let event = SessionEvent {
            time: NOW.wall,
            actor: None,
            what: What::MessagePosted { message },
        };
        assert_eq!(
            of(&event, &sample::view(), false).unwrap().text,
            "bob: hi\\u{7}"
        );
        assert_eq!(of(&event, &sample::view(), true), None);
    }
}
