//! The atomics and locks of sockets; loom's in models (`cfg(flextcp_loom)`).

#[cfg(not(all(flextcp_loom, test)))]
mod imp {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
    pub(crate) use std::sync::{Mutex, MutexGuard};
}

#[cfg(all(flextcp_loom, test))]
mod imp {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
    pub(crate) use loom::sync::{Mutex, MutexGuard};
}

pub(crate) use imp::*;
