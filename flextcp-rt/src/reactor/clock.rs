//! The one clock a host reads.

use std::time::Duration;

use flextcp_nic::time::Instant;

/// Maps the monotonic clock to the host's own epoch.
///
/// It is the real clock also where tokio's is paused: a paused test talks to real peers and to other
/// threads, as it does with kernel sockets. Virtual time is the lab's, not the reactor's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    epoch: std::time::Instant,
}

impl Clock {
    /// A clock that starts one second after zero, so that "never" and "at zero" stay apart.
    pub(crate) fn start() -> Self {
        let now = std::time::Instant::now();
        Self {
            epoch: now.checked_sub(Duration::from_secs(1)).unwrap_or(now),
        }
    }

    /// Now.
    pub(crate) fn now(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}
