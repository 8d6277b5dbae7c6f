//! What a host holds at a moment: all of it is gone once its connections are over.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flextcp_nic::steer::Steering;

use super::Lab;

/// What a [`Lab`] holds. [`is_zero`](Self::is_zero) once every socket is closed and TIME_WAIT is over: anything else is
/// a leak.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Counts {
    /// Sockets that the application did not close.
    pub sockets: usize,
    /// Streams that the core knows, with or without an application.
    pub streams: usize,
    /// Handshakes that the application waits for.
    pub connecting: usize,
    /// Listeners.
    pub listeners: usize,
    /// Connections of the engine, on the NIC or not, in any state but those below.
    pub connections: usize,
    /// Of these, connections without an application.
    pub orphans: usize,
    /// Connections whose SYN-ACK was not acknowledged.
    pub half_open: usize,
    /// Connections in TIME_WAIT.
    pub time_wait: usize,
    /// Address pairs that the engine knows.
    pub tuples: usize,
    /// Deadlines that the engine waits for, those in TIME_WAIT not among them.
    pub timers: usize,
    /// Flows on the NIC.
    pub flows: u64,
    /// Addresses whose frames the NIC was told to take.
    pub owned: usize,
    /// Local ports in use by sockets and outgoing connections.
    pub ports: usize,
    /// Bytes of rings.
    pub memory: u64,
    /// Frames that wait on either side of the port.
    pub frames: usize,
}

impl Counts {
    /// Whether nothing is left.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

impl Lab {
    /// What the host holds now. Visits every connection.
    pub fn counts(&self) -> Counts {
        let (nic, _) = self.core.counters();
        let mut counts = self.core.holdings();
        counts.sockets = self.sockets.len();
        counts.flows = nic.installed - nic.punted - nic.claimed;
        counts.owned = lock(&self.owned.addresses).len();
        counts.ports = self.ports.len();
        counts.memory = self.pool.used();
        counts.frames = self.wire.waiting();
        counts
    }
}

/// Takes every frame, as [`SteerAll`](flextcp_nic::steer::SteerAll), and remembers what was asked of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Owned {
    /// By how often.
    addresses: Arc<Mutex<Owners>>,
}

type Owners = HashMap<SocketAddr, usize>;

fn lock(addresses: &Mutex<Owners>) -> MutexGuard<'_, Owners> {
    addresses.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Steering for Owned {
    fn own(&mut self, local: SocketAddr) -> io::Result<()> {
        *lock(&self.addresses).entry(local).or_insert(0) += 1;
        Ok(())
    }

    fn disown(&mut self, local: SocketAddr) -> io::Result<()> {
        let mut addresses = lock(&self.addresses);
        if let Some(count) = addresses.get_mut(&local) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&local);
            }
        }
        Ok(())
    }

    fn serves(&self, _: IpAddr) -> bool {
        true
    }
}
