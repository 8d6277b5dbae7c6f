//! The addresses whose frames are ours.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Who wants the frames of an address.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Owners {
    pub(crate) listeners: u32,
    pub(crate) connections: u32,
    /// Connections that want no other frames of it.
    pub(crate) flows: u32,
}

impl Owners {
    const fn want_all(self) -> bool {
        self.listeners > 0 || self.connections > 0
    }
}

/// The owners of every address.
#[derive(Debug, Default)]
pub(crate) struct Owned(HashMap<SocketAddr, Owners>);

impl Owned {
    /// Counts an owner of every frame; `begin` is asked to have them sent here when it is the first.
    pub(crate) fn take(
        &mut self,
        local: SocketAddr,
        of: fn(&mut Owners) -> &mut u32,
        begin: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        if !self.0.get(&local).is_some_and(|owners| owners.want_all()) {
            begin()?;
        }
        *of(self.0.entry(local).or_default()) += 1;
        Ok(())
    }

    /// Ends [`take`](Self::take); `end` follows the last.
    pub(crate) fn give_back(
        &mut self,
        local: SocketAddr,
        of: fn(&mut Owners) -> &mut u32,
        end: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let Some(owners) = self.0.get_mut(&local) else {
            return Ok(());
        };
        let before = owners.want_all();
        let count = of(owners);
        *count = count.saturating_sub(1);
        let after = owners.want_all();
        self.forget_unowned(local);
        if before && !after { end() } else { Ok(()) }
    }

    /// Counts a connection that has its frames sent here itself.
    pub(crate) fn take_flow(&mut self, local: SocketAddr) {
        self.0.entry(local).or_default().flows += 1;
    }

    /// Ends [`take_flow`](Self::take_flow).
    pub(crate) fn give_flow_back(&mut self, local: SocketAddr) {
        if let Some(owners) = self.0.get_mut(&local) {
            owners.flows = owners.flows.saturating_sub(1);
            self.forget_unowned(local);
        }
    }

    fn forget_unowned(&mut self, local: SocketAddr) {
        if self.0.get(&local) == Some(&Owners::default()) {
            self.0.remove(&local);
        }
    }

    /// Every address.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.0.keys().copied()
    }

    /// Whether somebody listens at the address; `None`: it is not ours.
    pub(crate) fn has_listener(&self, local: SocketAddr) -> Option<bool> {
        self.0.get(&local).map(|owners| owners.listeners > 0)
    }

    /// Whether connections own the address and nobody listens there.
    pub(crate) fn only_connects(&self, local: SocketAddr) -> bool {
        let any: IpAddr = match local.ip() {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let listens = |address| self.0.get(&address).is_some_and(|o| o.listeners > 0);
        self.0.contains_key(&local)
            && !listens(local)
            && !listens(SocketAddr::new(any, local.port()))
    }
}
