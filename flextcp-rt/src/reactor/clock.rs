//! The one clock a host reads.

#[cfg(feature = "lab")]
use std::sync::Arc;
#[cfg(feature = "lab")]
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flextcp_nic::time::Instant;

/// Maps the monotonic clock to the host's own epoch.
///
/// It is the real clock also where tokio's is paused: a paused test talks to real peers and to other
/// threads, as it does with kernel sockets. Virtual time is the lab's, not the reactor's.
#[derive(Clone, Debug)]
pub(crate) struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    Monotonic {
        epoch: std::time::Instant,
    },
    /// Nanoseconds, set by whoever drives the host.
    #[cfg(feature = "lab")]
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// A clock that starts one second after zero, so that "never" and "at zero" stay apart.
    pub(crate) fn start() -> Self {
        let now = std::time::Instant::now();
        Self(Source::Monotonic {
            epoch: now.checked_sub(Duration::from_secs(1)).unwrap_or(now),
        })
    }

    /// A clock that shows what `nanos` says.
    #[cfg(feature = "lab")]
    pub(crate) const fn manual(nanos: Arc<AtomicU64>) -> Self {
        Self(Source::Manual(nanos))
    }

    /// Now.
    pub(crate) fn now(&self) -> Instant {
        Instant::from_nanos(match &self.0 {
            Source::Monotonic { epoch } => {
                u64::try_from(epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
            }
            #[cfg(feature = "lab")]
            Source::Manual(nanos) => nanos.load(Ordering::Relaxed),
        })
    }
}
