//! The addresses whose frames are ours.

use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Core;
use crate::flow::FlowTuple;

/// Who wants the frames of an address.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Owners {
    pub(super) listeners: u32,
    pub(super) connections: u32,
}

impl Core {
    pub(super) fn take(
        &mut self,
        local: SocketAddr,
        of: fn(&mut Owners) -> &mut u32,
    ) -> io::Result<()> {
        match self.owned.entry(local) {
            Entry::Occupied(mut owners) => *of(owners.get_mut()) += 1,
            Entry::Vacant(vacant) => {
                self.steering.own(local)?;
                *of(vacant.insert(Owners::default())) += 1;
            }
        }
        Ok(())
    }

    pub(super) fn give_back(
        &mut self,
        local: SocketAddr,
        of: fn(&mut Owners) -> &mut u32,
    ) -> io::Result<()> {
        let Some(owners) = self.owned.get_mut(&local) else {
            return Ok(());
        };
        let count = of(owners);
        *count = count.saturating_sub(1);
        if *owners == Owners::default() {
            self.owned.remove(&local);
            self.steering.disown(local)?;
        }
        Ok(())
    }

    /// Whether a filter keeps a segment of no installed flow out.
    pub(super) fn refuses(&self, tuple: &FlowTuple) -> bool {
        !self.config.filter.allows(tuple) && !self.only_connects(tuple.local_addr())
    }

    /// Whether connections own the address and nobody listens there.
    fn only_connects(&self, local: SocketAddr) -> bool {
        let any: IpAddr = match local.ip() {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let listens = |address| self.owned.get(&address).is_some_and(|o| o.listeners > 0);
        self.owned.contains_key(&local)
            && !listens(local)
            && !listens(SocketAddr::new(any, local.port()))
    }
}
