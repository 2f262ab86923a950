//! Who and what a text means: a name, whatever its case, or an id, of which any unique beginning of at least
//! six digits is enough (INTERFACES §2).

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
    let named = |id: &MemberId, name: &str| is(who, &id.to_string(), Some(name));
    let found: Vec<_> = view
        .participants
        .iter()
        .filter(|candidate| named(&candidate.id, &candidate.name))
        .collect();
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
    let fits = |terminal: &&TerminalView| match name {
        None | Some(DEFAULT) => terminal.open,
        Some(name) => is(name, &terminal.id.to_string(), Some(&terminal.title)),
    };
    let found: Vec<_> = view.terminals.iter().filter(fits).collect();
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

/// The question that is about `who`.
pub(super) fn approval<'v>(view: &'v View, who: &str) -> Result<&'v ApprovalView, CommandError> {
    let named = |approval: &&ApprovalView| {
        let about = is(who, &approval.member.to_string(), Some(&approval.name));
        approval.id == who || about
    };
    let found: Vec<_> = view.approvals.iter().filter(named).collect();
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
        .filter(|invite| is(id, &invite.id.to_string(), None))
        .collect();
    match found.as_slice() {
        [one] => Ok(one),
        [] | [..] => Err(none(Code::NoInvite, "invitation", id)),
    }
}

/// Whether `text` means the thing with this id and name.
pub(super) fn is(text: &str, id: &str, name: Option<&str>) -> bool {
    let begins = text.len() >= PREFIX_MIN && id.starts_with(&text.to_ascii_lowercase());
    begins || name.is_some_and(|name| name.to_lowercase() == text.to_lowercase())
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
