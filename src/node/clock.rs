//! The only place that reads clocks.
#![expect(
    clippy::disallowed_methods,
    reason = "time comes in with the event, and here it comes from"
)]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::engine::time::{Mono, Now, Wall};

/// Both clocks of the node, the monotonic one counted from the start of the process.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts counting.
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    /// The present moment.
    pub fn now(&self) -> Now {
        let mono = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        Now {
            mono: Mono(mono),
            wall: wall(),
        }
    }

    /// The moment on the runtime's clock at which `at` is reached.
    pub fn instant(&self, at: Mono) -> tokio::time::Instant {
        (self.start + Duration::from_micros(at.0)).into()
    }
}

/// The wall clock alone, for those who have no node yet.
pub fn wall() -> Wall {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Wall(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
