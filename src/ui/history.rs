//! The chat beyond the newest messages that a view holds: older ones are asked for page by page as the person goes
//! back, and kept while the pane shows them.

use crate::engine::command::{Command, MessagesWanted};
use crate::engine::limits::LISTED_MESSAGES_MAX;
use crate::engine::view::{MessageView, View};

/// Messages that are kept at most; who looks for older ones lists them with `chat --since`.
const KNOWN_MAX: usize = 5_000;

/// Bytes of text that are kept at most: messages may be long.
const KNOWN_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What is known of the chat.
#[derive(Debug, Default)]
pub(super) struct History {
    /// All known messages, oldest first; empty as long as the view's own suffice.
    known: Vec<MessageView>,
    /// Older ones are wanted.
    wanted: bool,
    /// Those before this message were asked for.
    asked: Option<String>,
    /// Nothing older is to be had.
    whole: bool,
}

impl History {
    /// The messages, oldest first.
    pub(super) fn messages<'a>(&'a self, view: &'a View) -> &'a [MessageView] {
        if self.known.is_empty() {
            &view.messages
        } else {
            &self.known
        }
    }

    /// Whether older messages can be had.
    pub(super) fn has_more(&self, view: &View) -> bool {
        let known = self.messages(view);
        let bytes = || self.known.iter().map(|one| one.text.len()).sum::<usize>();
        let all = u64::try_from(known.len()).is_ok_and(|known| known >= view.messages_total);
        let room = self.known.len() < KNOWN_MAX && bytes() < KNOWN_BYTES_MAX;
        !self.whole && !all && !known.is_empty() && room
    }

    /// Whether older messages are on their way.
    pub(super) fn is_asking(&self) -> bool {
        self.wanted || self.asked.is_some()
    }

    /// Older messages are needed.
    pub(super) fn want(&mut self, view: &View) {
        self.wanted |= self.asked.is_none() && self.has_more(view);
    }

    /// Whether something is to be asked for now.
    pub(super) fn is_wanting(&self) -> bool {
        self.wanted
    }

    /// The request for older messages, once for each page.
    pub(super) fn ask(&mut self, view: &View) -> Option<Command> {
        if !std::mem::take(&mut self.wanted) {
            return None;
        }
        if self.known.is_empty() {
            self.known.clone_from(&view.messages);
        }
        let before = self.known.first()?.id.clone();
        self.asked = Some(before.clone());
        Some(Command::Messages(MessagesWanted {
            since: None,
            before: Some(before),
            most: LISTED_MESSAGES_MAX,
        }))
    }

    /// Takes a page; one that does not end where the known ones begin is of no use any more.
    pub(super) fn take(&mut self, page: Vec<MessageView>) {
        let Some(asked) = self.asked.take() else {
            return;
        };
        if self.known.first().is_some_and(|first| first.id == asked) {
            self.whole |= page.is_empty();
            self.known.splice(0..0, page);
        }
    }

    /// The page did not come.
    pub(super) fn fail(&mut self) {
        self.asked = None;
        self.whole = true;
    }

    /// Follows the view: what is new is appended, what the view drops stays.
    pub(super) fn follow(&mut self, view: &View) {
        if self.known.is_empty() {
            return;
        }
        let first = view.messages.first().map(|first| &first.id);
        let joint = self.known.iter().position(|one| Some(&one.id) == first);
        match joint {
            Some(joint) => {
                self.known.truncate(joint);
                self.known.extend_from_slice(&view.messages);
            }
            // So much came at once that there is a gap: begin anew with what the view has.
            None => self.forget(),
        }
    }

    /// Lets everything go but what the view has.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::sample;

    fn messages(numbers: std::ops::Range<u64>) -> Vec<MessageView> {
        numbers
            .map(|n| sample::message(2, "bob", &format!("number {n}")))
            .collect()
    }

    fn view(numbers: std::ops::Range<u64>) -> View {
        let mut view = sample::view();
        view.messages_total = numbers.end;
        view.messages = messages(numbers);
        view
    }

    fn texts(history: &History, view: &View) -> Vec<String> {
        let shown = history.messages(view).iter();
        shown.map(|one| one.text.clone()).collect()
    }

    fn said(numbers: std::ops::Range<u64>) -> Vec<String> {
        messages(numbers).into_iter().map(|one| one.text).collect()
    }

    #[test]
    fn older_messages_come_page_by_page_until_there_are_none() {
        let view = view(4..6);
        let mut history = History::default();
        assert_eq!(history.ask(&view), None, "nobody has gone back");

        history.want(&view);
        let asked = history.ask(&view).unwrap();
        assert!(
            matches!(&asked, Command::Messages(wanted) if wanted.before.as_deref() == Some("2-number 4")),
            "{asked:?}"
        );
        history.want(&view);
        assert_eq!(history.ask(&view), None, "a page is on its way");
        history.take(messages(2..4));
        assert!(history.has_more(&view));
        history.want(&view);
        assert!(history.ask(&view).is_some());
        history.take(messages(0..2));

        assert_eq!(texts(&history, &view), said(0..6));
        assert!(!history.has_more(&view));
    }

    #[test]
    fn messages_that_come_meanwhile_are_appended_and_none_is_lost() {
        let before = view(4..6);
        let mut history = History::default();
        history.want(&before);
        history.ask(&before);

        let after = view(5..8);
        history.follow(&after);
        history.take(messages(2..4));

        assert_eq!(texts(&history, &after), said(2..8));
    }

    #[test]
    fn a_page_after_a_gap_is_thrown_away() {
        let before = view(4..6);
        let mut history = History::default();
        history.want(&before);
        history.ask(&before);

        let after = view(90..92);
        history.follow(&after);
        history.take(messages(2..4));

        assert_eq!(texts(&history, &after), ["number 90", "number 91"]);
        assert!(history.has_more(&after));
    }

    #[test]
    fn a_page_for_a_pane_that_was_closed_meanwhile_says_nothing() {
        let view = view(4..6);
        let mut history = History::default();
        history.want(&view);
        history.ask(&view);
        history.forget();
        history.take(Vec::new());
        assert!(history.has_more(&view));
    }

    #[test]
    fn a_page_that_does_not_come_is_not_asked_for_for_ever() {
        let view = view(4..6);
        let mut history = History::default();
        history.want(&view);
        history.ask(&view);
        history.fail();
        assert!(!history.has_more(&view) && !history.is_asking());
    }
}
