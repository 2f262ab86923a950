//! What control did or refused, in words for people: members by name and the front of their key, which nobody chooses.

use crate::engine::control::{Denial, EndReason, Refusal};
use crate::engine::documents::text::inert;
use crate::engine::ids::MemberId;
use crate::engine::member::Member;

impl Member {
    /// Why a lease ended.
    pub(in crate::engine) fn ending_in_words(&self, reason: &EndReason) -> String {
        reason.in_words(|id| self.called(id))
    }

    /// Why a message had no effect.
    pub(in crate::engine) fn refusal_in_words(&self, refusal: &Refusal) -> String {
        match refusal {
            Refusal::Unfit { who } => format!("{} cannot be given control", self.called(who)),
            Refusal::Locked { by } => format!("input is locked by {}", self.called(by)),
            Refusal::Denied(denial) => {
                format!("control was not granted: {}", self.denial_in_words(denial))
            }
            Refusal::NotHeld
            | Refusal::Detached
            | Refusal::Stale { .. }
            | Refusal::Invalid
            | Refusal::NotPermitted
            | Refusal::NoLease
            | Refusal::Disagreed
            | Refusal::Busy
            | Refusal::Closed
            | Refusal::Unreachable
            | Refusal::Full => refusal.to_string(),
        }
    }

    /// Why a request for control was denied.
    pub(in crate::engine) fn denial_in_words(&self, denial: &Denial) -> String {
        match denial {
            Denial::Held { by } => format!("{} has control", self.called(by)),
            Denial::Locked { by } => format!("input is locked by {}", self.called(by)),
            Denial::Person
            | Denial::Unanswered
            | Denial::NotPermitted
            | Denial::AskFirst
            | Denial::Paused
            | Denial::Busy
            | Denial::Closed => denial.to_string(),
        }
    }

    /// A member by name and key.
    pub(in crate::engine) fn called(&self, id: &MemberId) -> String {
        if *id == self.me() {
            return "you".to_owned();
        }
        format!("{} (key {})", inert(&self.name(id)), id.short())
    }
}
