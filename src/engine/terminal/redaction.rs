//! Secrets leave a screen before a version of it exists for anyone else. The types say so: a [`ScreenHost`]
//! takes only `Redacted<RawScreen>`, a [`Frame`] is made only of `Redacted<Screen>`, and a redacted value comes
//! only from a [`Redactor`] or, on a viewer, from a frame that the host made of one.
//!
//! [`ScreenHost`]: crate::engine::terminal::screen::ScreenHost
//! [`Frame`]: crate::engine::terminal::frame::Frame

use std::ops::Deref;

use crate::engine::terminal::emulator::RawScreen;

/// Something that went through the host's redaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redacted<T>(T);

impl<T> Redacted<T> {
    /// Takes the value out, for faces that only show it.
    pub fn into_inner(self) -> T {
        self.0
    }

    /// What is made of nothing but a redacted value is redacted too.
    pub(super) fn map<U>(self, make: impl FnOnce(T) -> U) -> Redacted<U> {
        Redacted(make(self.0))
    }

    /// What came out of a host's frame was redacted by that host.
    pub(super) fn received(value: T) -> Self {
        Self(value)
    }
}

impl<T> Deref for Redacted<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Masks secrets on the rows of a screen.
#[derive(Debug)]
pub struct Redactor {
    rules: Rules,
}

#[derive(Debug)]
enum Rules {
    None,
}

impl Redactor {
    /// Masks nothing. Faces tell people so.
    pub fn none() -> Self {
        Self { rules: Rules::None }
    }

    /// Whether anything can be masked at all.
    pub fn is_active(&self) -> bool {
        match self.rules {
            Rules::None => false,
        }
    }

    /// Masks what the rules find, cell by cell with the same widths.
    pub fn redact(&mut self, screen: RawScreen) -> Redacted<RawScreen> {
        match self.rules {
            Rules::None => Redacted(screen),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_rules_the_screen_passes_unchanged_and_the_redactor_says_so() {
        let raw = RawScreen {
            cols: 10,
            title: "sh".into(),
            ..RawScreen::default()
        };

        let mut redactor = Redactor::none();

        assert!(!redactor.is_active());
        assert_eq!(redactor.redact(raw.clone()).into_inner(), raw);
    }
}
