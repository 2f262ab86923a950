//! Who and what a text means: an id, of which any unique beginning of at least six digits is enough, or a name,
//! whatever its case (INTERFACES §2). Ids come first: everybody chooses their own name, and it never stands in for
//! somebody else's id.

use crate::engine::command::CommandError;
use crate::engine::error::Code;
use crate::engine::ids::MemberId;
use crate::engine::view::{ApprovalView, InviteView, TerminalView, View};

/// Fewest digits of an id that name it.
const PREFIX_MIN: usize = 6;
/// In place of a terminal's id: the only open one.
pub(super) const DEFAULT: &str = "default";

/// The participant that `who` names.
pub(super) fn participant(view: &View, who: &str) -> Result<MemberId, CommandError> {
    let found = meant(
        view.participants.iter(),
        |one| begins(&one.id.to_string(), who),
        |one| is_called(&one.name, who),
    );
    match found.as_slice() {
        [one] => Ok(one.id),
        [] => Err(none(Code::NoParticipant, "participant", who)),
        several => {
            let ids = several.iter().map(|one| one.id.to_string());
            Err(which(Code::WhichParticipant, "participants", who, ids))
        }
    }
}

/// The terminal that `which` names, or the only open one.
pub(super) fn terminal<'v>(
    view: &'v View,
    name: Option<&str>,
) -> Result<&'v TerminalView, CommandError> {
    let all = view.terminals.iter();
    let found: Vec<_> = match name {
        None | Some(DEFAULT) => all.filter(|terminal| terminal.open).collect(),
        Some(name) => meant(
            all,
            |one| begins(&one.id.to_string(), name),
            |one| is_called(&one.title, name),
        ),
    };
    match found.as_slice() {
        [one] => Ok(one),
        [] => Err(none(
            Code::NoTerminalShared,
            "open terminal",
            name.filter(|name| *name != DEFAULT).unwrap_or_default(),
        )),
        several => {
            let ids = several.iter().map(|one| one.id.to_string());
            Err(which(
                Code::WhichTerminal,
                "terminals",
                name.unwrap_or_default(),
                ids,
            ))
        }
    }
}

/// The question that is about `who`. What looks like an id is never a name here: a newcomer's name is free, and
/// who was to be let in may be gone.
pub(super) fn approval<'v>(view: &'v View, who: &str) -> Result<&'v ApprovalView, CommandError> {
    let found = meant(
        view.approvals.iter(),
        |one| one.id == who || begins(&one.member.to_string(), who),
        |one| !looks_like_id(who) && is_called(&one.name, who),
    );
    match found.as_slice() {
        [one] => Ok(one),
        [] => {
            let who: String = who.chars().take(80).collect();
            let message = format!("nobody called {who:?} waits");
            Err(CommandError::new(Code::NoApproval, message))
        }
        several => {
            let ids = several.iter().map(|one| one.member.to_string());
            Err(which(Code::WhichParticipant, "newcomers", who, ids))
        }
    }
}

/// The invitation with this id.
pub(super) fn invite<'v>(view: &'v View, id: &str) -> Result<&'v InviteView, CommandError> {
    let found: Vec<_> = view
        .invites
        .iter()
        .filter(|invite| begins(&invite.id.to_string(), id))
        .collect();
    match found.as_slice() {
        [one] => Ok(one),
        [] | [..] => Err(none(Code::NoInvite, "invitation", id)),
    }
}

/// What an id means, or, only where no id fits, a name.
fn meant<'v, T>(
    all: impl Iterator<Item = &'v T> + Clone,
    by_id: impl Fn(&T) -> bool,
    by_name: impl Fn(&T) -> bool,
) -> Vec<&'v T> {
    let found: Vec<_> = all.clone().filter(|one| by_id(one)).collect();
    if found.is_empty() {
        return all.filter(|one| by_name(one)).collect();
    }
    found
}

/// Whether `text` is enough of an id, and its beginning.
fn begins(id: &str, text: &str) -> bool {
    text.len() >= PREFIX_MIN && id.starts_with(&text.to_ascii_lowercase())
}

fn is_called(name: &str, text: &str) -> bool {
    name.to_lowercase() == text.to_lowercase()
}

fn looks_like_id(text: &str) -> bool {
    text.len() >= PREFIX_MIN && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn none(code: Code, what: &str, text: &str) -> CommandError {
    let text: String = text.chars().take(80).collect();
    let named = if text.is_empty() {
        String::new()
    } else {
        format!(" that {text:?} names")
    };
    CommandError::new(code, format!("there is no {what}{named}"))
}

fn which(code: Code, what: &str, text: &str, ids: impl Iterator<Item = String>) -> CommandError {
    let text: String = text.chars().take(80).collect();
    let ids: Vec<String> = ids.collect();
    let named = if text.is_empty() || text == DEFAULT {
        "are open".to_owned()
    } else {
        format!("are named {text:?}")
    };
    CommandError::new(code, format!("several {what} {named}: {}", ids.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::view::ParticipantView;
    use crate::gateway::routes::tests::a_view;

    #[test]
    fn a_name_in_any_case_or_six_digits_of_an_id_name_a_participant() {
        let view = a_view();
        let ada = view.participants[0].id;

        assert_eq!(participant(&view, "ADA").unwrap(), ada);
        assert_eq!(participant(&view, &ada.to_string()[..6]).unwrap(), ada);
        assert_eq!(participant(&view, &ada.to_string()).unwrap(), ada);
        let short = participant(&view, &ada.to_string()[..5]).unwrap_err();
        assert_eq!(short.code, Code::NoParticipant);
    }

    #[test]
    fn two_of_the_same_name_are_told_apart_by_id_only() {
        let mut view = a_view();
        view.participants[1].name = "ada".to_owned();

        let error = participant(&view, "ada").unwrap_err();

        assert_eq!(error.code, Code::WhichParticipant);
        let named = |one: &ParticipantView| error.message.contains(&one.id.to_string());
        assert_eq!(
            view.participants.iter().map(named).collect::<Vec<_>>(),
            [true, true, false]
        );
    }

    #[test]
    fn a_name_that_looks_like_an_id_never_shadows_the_id() {
        let mut view = a_view();
        let ada = view.participants[0].id;
        view.participants[1].name = ada.to_string()[..10].to_owned();
        let open = view.terminals[0].id;
        let mut second = view.terminals[0].clone();
        second.id.0[0] ^= 1;
        second.title = open.to_string()[..10].to_owned();
        view.terminals.push(second);

        let who = participant(&view, &ada.to_string()[..10]).unwrap();
        let which = terminal(&view, Some(&open.to_string()[..10])).unwrap();

        assert_eq!((who, which.id), (ada, open));
    }

    #[test]
    fn a_participant_whose_name_looks_like_an_id_is_named_while_no_id_begins_so() {
        let mut view = a_view();
        view.participants[1].name = "DeadBeef".to_owned();

        let found = participant(&view, "deadbeef").unwrap();

        assert_eq!(found, view.participants[1].id);
    }

    #[test]
    fn a_newcomer_is_never_taken_for_the_one_whose_id_it_bears_as_a_name() {
        let mut view = a_view();
        let alice = view.approvals[0].clone();
        let key = alice.member.to_string()[..10].to_owned();
        let mut mallory = alice.clone();
        mallory.member.0[0] ^= 0xff;
        mallory.id = "q2".to_owned();
        mallory.name = key.clone();
        view.approvals.push(mallory.clone());

        // Beside Alice, and after she has gone.
        assert_eq!(approval(&view, &key).unwrap().member, alice.member);
        view.approvals.remove(0);
        for text in [key.clone(), key.to_uppercase(), key[..6].to_owned()] {
            view.approvals[0].name.clone_from(&text);
            assert_eq!(approval(&view, &text).unwrap_err().code, Code::NoApproval);
        }

        view.approvals[0].name = "Mallory".to_owned();
        assert_eq!(approval(&view, "mallory").unwrap().member, mallory.member);
    }

    #[test]
    fn without_a_name_the_only_open_terminal_is_meant() {
        let mut view = a_view();
        let open = view.terminals[0].id;
        assert_eq!(terminal(&view, None).unwrap().id, open);

        let mut second = view.terminals[0].clone();
        second.id.0[0] ^= 1;
        view.terminals.push(second);
        assert_eq!(terminal(&view, None).unwrap_err().code, Code::WhichTerminal);
        assert_eq!(terminal(&view, Some(&open.to_string())).unwrap().id, open);

        view.terminals
            .iter_mut()
            .for_each(|terminal| terminal.open = false);
        for nothing in [None, Some(DEFAULT)] {
            let error = terminal(&view, nothing).unwrap_err();
            assert_eq!(error.code, Code::NoTerminalShared);
            assert_eq!(error.message, "there is no open terminal");
        }
    }
}
