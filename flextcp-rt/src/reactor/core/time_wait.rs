//! What outlives a connection for the time of its TIME_WAIT: the frames of its address still come here, where a FIN that
//! the peer sends again is acknowledged; the kernel would answer it with RST.

use std::collections::{BTreeMap, HashMap};

use flextcp_nic::flow::FlowTuple;

use super::{Core, Inner, Owned, PortHold};
use crate::tcp::ConnId;

/// Local ports of outgoing connections that are held so long. Each is a descriptor, and while it is held its socket
/// cannot serve another connection: with 4,096 of them churn was a seventh slower.
const MOST_PORTS: usize = 512;

/// Connections in TIME_WAIT whose address is ours, each with the hold of its port if it is an outgoing one.
pub(super) struct TimeWaits {
    held: HashMap<FlowTuple, Held>,
    /// Those with a port, oldest first.
    ports: BTreeMap<u64, FlowTuple>,
    entered: u64,
    most_ports: usize,
}

struct Held {
    owned: Owned,
    port: Option<PortHold>,
    /// Of an accepted one, as [`StreamEntry::inherited`](super::StreamEntry).
    inherited: Option<PortHold>,
    /// Its place in `ports`: ends that are used again enter TIME_WAIT again.
    place: u64,
}

impl TimeWaits {
    /// Holds at most a quarter of the descriptors that the process may have.
    pub(super) fn new() -> Self {
        let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let quarter = descriptors.map_or(MOST_PORTS, |most| {
            usize::try_from(most / 4).unwrap_or(MOST_PORTS)
        });
        Self::with_ports(quarter.min(MOST_PORTS))
    }

    fn with_ports(most_ports: usize) -> Self {
        Self {
            held: HashMap::new(),
            ports: BTreeMap::new(),
            entered: 0,
            most_ports,
        }
    }

    /// Takes ends in; says whose hold has to end for that.
    fn enter(
        &mut self,
        tuple: FlowTuple,
        owned: Owned,
        port: Option<PortHold>,
        inherited: Option<PortHold>,
    ) -> Option<FlowTuple> {
        let place = self.entered;
        self.entered += 1;
        if port.is_some() {
            self.ports.insert(place, tuple);
        }
        let held = Held {
            owned,
            port,
            inherited,
            place,
        };
        self.held.insert(tuple, held);
        let (_, oldest) = self.ports.first_key_value()?;
        (self.ports.len() > self.most_ports).then_some(*oldest)
    }

    /// What was owned for these ends until now, if they were held.
    fn leave(&mut self, tuple: &FlowTuple) -> Option<Owned> {
        let held = self.held.remove(tuple)?;
        if held.port.is_some() {
            self.ports.remove(&held.place);
        }
        Some(held.owned)
    }
}

impl Core {
    /// Has the connections at `port`, whose listener is gone, hold it, and what is left of them in TIME_WAIT. `hold` is asked if
    /// there are any.
    pub(crate) fn inherit_port(&self, port: u16, hold: &mut dyn FnMut() -> Option<PortHold>) {
        let mut inner = self.lock();
        let Inner {
            streams,
            time_waits,
            ..
        } = &mut *inner;
        let open = streams
            .values_mut()
            .filter(|entry| entry.owned.is_some_and(|it| it.local().port() == port))
            .map(|entry| (&entry.reservation, &mut entry.inherited));
        let waiting = time_waits
            .held
            .iter_mut()
            .filter(|(tuple, _)| tuple.local_addr().port() == port)
            .map(|(_, held)| (&held.port, &mut held.inherited));
        for (reservation, inherited) in open.chain(waiting) {
            if reservation.is_none() {
                *inherited = hold();
            }
        }
    }
}

impl Inner {
    /// The connection leaves its address, and its port, to its TIME_WAIT.
    pub(super) fn enter_time_wait(&mut self, conn: ConnId, tuple: FlowTuple) {
        let Some(entry) = self.streams.get_mut(&conn.into()) else {
            return;
        };
        let Some(owned) = entry.owned.take() else {
            return;
        };
        let (port, inherited) = (entry.reservation.take(), entry.inherited.take());
        self.leave_time_wait(&tuple);
        if let Some(oldest) = self.time_waits.enter(tuple, owned, port, inherited) {
            self.leave_time_wait(&oldest);
        }
    }

    /// The TIME_WAIT of these ends is over, or others need the port more.
    pub(super) fn leave_time_wait(&mut self, tuple: &FlowTuple) {
        if let Some(owned) = self.time_waits.leave(tuple) {
            self.give_up(owned);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn tuple(port: u16) -> FlowTuple {
        FlowTuple::new(
            SocketAddr::from(([10, 0, 0, 1], port)),
            SocketAddr::from(([10, 0, 0, 2], 80)),
        )
    }

    const OWNED: Owned = Owned::Port(SocketAddr::new(
        std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        1,
    ));

    fn hold() -> Option<PortHold> {
        Some(PortHold::of_any(()))
    }

    #[test]
    fn the_oldest_port_goes_when_there_are_too_many() {
        let mut waits = TimeWaits::with_ports(2);
        assert_eq!(waits.enter(tuple(1), OWNED, hold(), None), None);
        assert_eq!(
            waits.enter(tuple(2), OWNED, None, None),
            None,
            "accepted: no port"
        );
        assert_eq!(waits.enter(tuple(3), OWNED, hold(), None), None);
        assert_eq!(waits.enter(tuple(4), OWNED, hold(), None), Some(tuple(1)));
        assert!(waits.leave(&tuple(1)).is_some());
        assert!(waits.leave(&tuple(1)).is_none());
        assert_eq!((waits.held.len(), waits.ports.len()), (3, 2));
    }

    #[test]
    fn ends_that_were_used_again_are_as_new_as_their_last_use() {
        let mut waits = TimeWaits::with_ports(2);
        waits.enter(tuple(1), OWNED, hold(), None);
        waits.enter(tuple(2), OWNED, hold(), None);
        // A new connection between the same ends, and its TIME_WAIT.
        assert!(waits.leave(&tuple(1)).is_some());
        assert_eq!(waits.enter(tuple(1), OWNED, hold(), None), None);
        assert_eq!(waits.enter(tuple(3), OWNED, hold(), None), Some(tuple(2)));
        assert!(waits.leave(&tuple(2)).is_some());
        assert_eq!(waits.enter(tuple(4), OWNED, hold(), None), Some(tuple(1)));
    }
}
