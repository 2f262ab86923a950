//! The only place in the node that draws randomness: 32 fresh bytes for each event.
#![expect(
    clippy::disallowed_methods,
    reason = "entropy comes in with the event, and here it comes from"
)]

use crate::engine::entropy::Entropy;

/// Fresh entropy from the operating system.
///
/// # Errors
/// The operating system has none to give.
pub(crate) fn fresh() -> std::io::Result<Entropy> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(std::io::Error::other)?;
    Ok(Entropy::new(seed))
}
