//! One property, one checker, one sentence.

mod acknowledged_survives_crashes;
mod documents_converge;
mod everybody_is_present;
mod nobody_speaks_for_another;
mod numbers_are_used_once;
mod one_controller_at_a_time;
mod pictures_agree;
mod pty_bytes_are_what_leases_allowed;
mod received_survives_old_folders;

pub(crate) use pty_bytes_are_what_leases_allowed::token;

use collab_p2p::sim::{Fact, World};

use crate::reference::Reference;

/// Looks at a world while it runs and once it is quiet.
pub(crate) trait Check {
    /// Something happened.
    fn see(&mut self, _: &World, _: &Reference, _: &Fact) -> Result<(), String> {
        Ok(())
    }

    /// All faults are over, and time has passed.
    fn at_rest(&mut self, _: &mut World, _: &Reference) -> Result<(), String> {
        Ok(())
    }
}

/// The checker of this name.
pub(crate) fn by_name(name: &str) -> Option<Box<dyn Check>> {
    Some(match name {
        "acknowledged_survives_crashes" => {
            Box::<acknowledged_survives_crashes::AcknowledgedSurvivesCrashes>::default()
        }
        "documents_converge" => Box::<documents_converge::DocumentsConverge>::default(),
        "everybody_is_present" => Box::<everybody_is_present::EverybodyIsPresent>::default(),
        "nobody_speaks_for_another" => {
            Box::<nobody_speaks_for_another::NobodySpeaksForAnother>::default()
        }
        "numbers_are_used_once" => Box::<numbers_are_used_once::NumbersAreUsedOnce>::default(),
        "one_controller_at_a_time" => {
            Box::<one_controller_at_a_time::OneControllerAtATime>::default()
        }
        "pictures_agree" => Box::<pictures_agree::PicturesAgree>::default(),
        "pty_bytes_are_what_leases_allowed" => {
            Box::<pty_bytes_are_what_leases_allowed::PtyBytesAreWhatLeasesAllowed>::default()
        }
        "received_survives_old_folders" => {
            Box::<received_survives_old_folders::ReceivedSurvivesOldFolders>::default()
        }
        _ => return None,
    })
}
