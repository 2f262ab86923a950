//! What of the things that happen is said to the person, in one sentence.

use crate::engine::control::{Account, EndReason};
use crate::engine::ids::MemberId;
use crate::engine::view::{LeaseEnding, SessionEvent, View, What};
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
        What::ControlDenied { participant, .. } if mine(participant) => {
            bad("the host refused control".to_owned())
        }
        What::ControlDenied { .. } => None,
        What::ControlReleased { participant, ending, .. }
        | What::ControlRevoked { participant, ending, .. }
        | What::ControlTaken { from: participant, ending, .. }
        | What::ControlExpired { participant, ending, .. } => lease_ended(view, participant, ending),
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

/// That somebody's control is over: a loss for its holder, who learns what became of the keys; news for the others.
fn lease_ended(view: &View, who: &MemberId, ending: &LeaseEnding) -> Option<News> {
    let mine = *who == view.me;
    let called = |id: &MemberId| match *id == view.me {
        true => "you".to_owned(),
        false => words::name_of(view, id),
    };
    let why = ending.reason.in_words(called);
    let said = match (&ending.reason, mine) {
        (EndReason::Released, true) => "you gave control back".to_owned(),
        (EndReason::Released, false) => format!("{} gave control back", words::name_of(view, who)),
        (_, true) => format!("control ended: {why}"),
        (_, false) => format!("{} has control no longer: {why}", words::name_of(view, who)),
    };
    match ending.account.filter(Account::is_short) {
        Some(account) => bad(format!("{said}; {}", in_short(&account))),
        None if mine && ending.reason != EndReason::Released => bad(said),
        None => good(said),
    }
}

/// What the person must look at, short enough for the status row; the notice has all numbers.
fn in_short(account: &Account) -> String {
    match (account.not_written, account.unknown) {
        (lost, 0) => format!("{lost} bytes not written"),
        (0, perhaps) => format!("{perhaps} bytes perhaps written"),
        (lost, perhaps) => format!("{lost} bytes not written, {perhaps} perhaps"),
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
            ending: LeaseEnding {
                reason: EndReason::Taken {
                    by: sample::member(2),
                },
                account: None,
            },
        };
        assert_eq!(news(taken).unwrap(), "control ended: taken over by bob");
        let died = What::ControlReleased {
            terminal,
            participant,
            number: 2,
            ending: LeaseEnding {
                reason: EndReason::Forgotten,
                account: Some(Account {
                    written: 7,
                    not_written: 0,
                    unknown: 4,
                }),
            },
        };
        assert_eq!(
            news(died).unwrap(),
            "control ended: the host no longer knows it; 4 bytes perhaps written"
        );
        let expired = What::ControlExpired {
            terminal,
            participant: sample::member(3),
            number: 2,
            ending: LeaseEnding {
                reason: EndReason::Expired,
                account: None,
            },
        };
        assert_eq!(
            news(expired).unwrap(),
            "eve has control no longer: its time is over"
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
