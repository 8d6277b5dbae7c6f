//! What outlives a connection for the time of its TIME_WAIT: the frames of its address still come here, where a FIN that
//! the peer sends again is acknowledged; the kernel would answer it with RST.

use std::collections::{HashMap, VecDeque};

use flextcp_nic::flow::FlowTuple;

use super::{Inner, PortHold};
use crate::tcp::ConnId;

/// Local ports of outgoing connections that are held so long. Each is a descriptor, and while it is held its socket
/// cannot serve another connection: with 4,096 of them churn was a seventh slower.
const MOST_PORTS: usize = 512;

/// Connections in TIME_WAIT whose address is ours, each with the hold of its port if it is an outgoing one.
pub(super) struct TimeWaits {
    held: HashMap<FlowTuple, Option<PortHold>>,
    /// Those with a port, oldest first; some may be over.
    ports: VecDeque<FlowTuple>,
    most_ports: usize,
}

impl TimeWaits {
    /// Holds at most a quarter of the descriptors that the process may have.
    pub(super) fn new() -> Self {
        let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let quarter = descriptors.map_or(MOST_PORTS, |most| {
            usize::try_from(most / 4).unwrap_or(MOST_PORTS)
        });
        Self {
            held: HashMap::new(),
            ports: VecDeque::new(),
            most_ports: quarter.min(MOST_PORTS),
        }
    }
}

impl Inner {
    /// The connection leaves its address, and its port, to its TIME_WAIT.
    pub(super) fn enter_time_wait(&mut self, conn: ConnId, tuple: FlowTuple) {
        let Some(entry) = self.streams.get_mut(&conn.into()) else {
            return;
        };
        if entry.owned.take().is_none() {
            return;
        }
        let port = entry.reservation.take();
        let has_port = port.is_some();
        self.time_waits.held.insert(tuple, port);
        if has_port {
            self.time_waits.ports.push_back(tuple);
            while self.time_waits.ports.len() > self.time_waits.most_ports
                && let Some(oldest) = self.time_waits.ports.pop_front()
            {
                self.leave_time_wait(&oldest);
            }
        }
    }

    /// The TIME_WAIT of these ends is over, or others need the port more.
    pub(super) fn leave_time_wait(&mut self, tuple: &FlowTuple) {
        if self.time_waits.held.remove(tuple).is_some() {
            self.disown(tuple.local_addr());
        }
    }
}
