//! The host's port space: who holds which local port.

use std::collections::BTreeSet;
use std::io;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The local ports of a host.
#[derive(Debug)]
pub(super) struct Ports {
    held: Arc<Mutex<BTreeSet<u16>>>,
    ephemeral: RangeInclusive<u16>,
    /// Where the search for a free port goes on.
    next: u16,
}

/// A local port, given back when dropped.
#[derive(Debug)]
pub(super) struct PortHold {
    held: Arc<Mutex<BTreeSet<u16>>>,
    port: u16,
}

fn lock(held: &Mutex<BTreeSet<u16>>) -> MutexGuard<'_, BTreeSet<u16>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ports {
    pub(super) fn new(ephemeral: RangeInclusive<u16>, seed: u64) -> Self {
        let count = u64::from(ephemeral.end().saturating_sub(*ephemeral.start())) + 1;
        let next = ephemeral.start().saturating_add((seed % count) as u16);
        Self {
            held: Arc::default(),
            ephemeral,
            next,
        }
    }

    pub(super) fn len(&self) -> usize {
        lock(&self.held).len()
    }

    /// Takes a port, `None` when it is taken.
    pub(super) fn take(&self, port: u16) -> Option<PortHold> {
        lock(&self.held).insert(port).then(|| PortHold {
            held: Arc::clone(&self.held),
            port,
        })
    }

    /// Takes the next free ephemeral port.
    ///
    /// # Errors
    /// `AddrNotAvailable`: there is none.
    pub(super) fn take_any(&mut self) -> io::Result<PortHold> {
        for _ in self.ephemeral.clone() {
            let port = self.next;
            self.next = match port {
                port if port >= *self.ephemeral.end() => *self.ephemeral.start(),
                port => port + 1,
            };
            if let Some(hold) = self.take(port) {
                return Ok(hold);
            }
        }
        Err(io::Error::from_raw_os_error(libc::EADDRNOTAVAIL))
    }
}

impl PortHold {
    pub(super) const fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for PortHold {
    fn drop(&mut self) {
        lock(&self.held).remove(&self.port);
    }
}
