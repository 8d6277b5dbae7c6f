//! The atomics and locks of the rings; loom's in models (`cfg(flextcp_loom)`: `cfg(loom)` would change other crates too).

#[cfg(not(all(flextcp_loom, test)))]
mod imp {
    pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
    pub(crate) use std::sync::{Mutex, MutexGuard};
}

#[cfg(all(flextcp_loom, test))]
mod imp {
    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
    pub(crate) use loom::sync::{Mutex, MutexGuard};
}

pub(crate) use imp::*;

/// Locks `mutex`. No code that can panic runs under these locks, and what they guard is valid at every
/// step, so a poisoned lock is taken as it is.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
