//! Follows the kernel's changes: a neighbour with another hardware address, another route to a peer, addresses
//! that come and go. A thread that sleeps until netlink tells of one; there is none before an interface is attached.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use flextcp_nic::nfp::process::CardSteering;
use flextcp_nic::port::xdp;
use flextcp_nic::wire::MacAddr;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use super::connect::is_link_local;
use super::nfp::Served;
use crate::host::netlink::KernelView;
use crate::reactor::core::Core;

/// Neighbours that are remembered at least, although the kernel has forgotten them.
const FORGOTTEN_MAX: usize = 1024;

/// The thread, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Follower {
    followed: Arc<Mutex<Vec<Followed>>>,
    /// The thread waits for its closing.
    _stop: OwnedFd,
}

/// What wants to know the addresses of this host.
#[derive(Clone, Debug)]
pub(super) enum Steering {
    Xdp(xdp::Steering),
    Card(CardSteering),
    Served(Served),
}

impl Steering {
    /// # Errors
    /// Some addresses stay with the kernel.
    pub(super) fn set_addresses(
        &self,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> io::Result<()> {
        match self {
            Self::Xdp(steering) => steering.set_addresses(addresses),
            Self::Card(steering) => steering.set_addresses(addresses),
            Self::Served(served) => {
                served.set_addresses(addresses);
                Ok(())
            }
        }
    }
}

/// An attached interface.
#[derive(Debug)]
struct Followed {
    ifindex: u32,
    steering: Steering,
    cores: Vec<Weak<Core>>,
}

/// What was told to the interfaces last.
#[derive(Debug, Default)]
struct Told {
    addresses: BTreeSet<IpAddr>,
    macs: HashMap<(u32, IpAddr), MacAddr>,
}

impl Follower {
    /// Starts the thread, which follows the network namespace of the caller.
    pub(super) fn start() -> io::Result<Self> {
        let mut view = KernelView::open()?;
        let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC)?;
        let followed = Arc::new(Mutex::new(Vec::new()));
        let shared = followed.clone();
        let mut told = Told::new(&view);
        std::thread::Builder::new()
            .name("flextcp-netlink".into())
            .spawn(move || {
                while let Ok(true) = wait(&view, &stopped) {
                    if let Err(error) = view.refresh() {
                        tracing::warn!(%error, "changes of addresses and neighbours are not followed any more");
                        return;
                    }
                    told.tell(&view, &lock(&shared));
                }
            })?;
        Ok(Self {
            followed,
            _stop: stop,
        })
    }

    /// Tells the cores of an interface from now on.
    pub(super) fn follow(&self, ifindex: u32, steering: Steering, cores: &[Arc<Core>]) {
        lock(&self.followed).push(Followed {
            ifindex,
            steering,
            cores: cores.iter().map(Arc::downgrade).collect(),
        });
    }
}

fn lock(followed: &Mutex<Vec<Followed>>) -> MutexGuard<'_, Vec<Followed>> {
    followed.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sleeps until something changed (`true`), or the host is gone.
fn wait(view: &KernelView, stopped: &OwnedFd) -> io::Result<bool> {
    let (fd, stopped) = (view.fd(), stopped.as_fd());
    let mut fds = [
        PollFd::new(&fd, PollFlags::IN),
        PollFd::new(&stopped, PollFlags::IN),
    ];
    loop {
        match poll(&mut fds, None) {
            Ok(_) => return Ok(fds[1].revents().is_empty()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

impl Told {
    fn new(view: &KernelView) -> Self {
        Self {
            addresses: addresses(view).collect(),
            macs: view.neighbor_macs().collect(),
        }
    }

    fn tell(&mut self, view: &KernelView, followed: &[Followed]) {
        let addresses = addresses(view).collect();
        if addresses != self.addresses {
            self.addresses = addresses;
            for interface in followed {
                let addresses = self.addresses.iter().copied();
                if let Err(error) = interface.steering.set_addresses(addresses) {
                    tracing::warn!(%error, "some addresses stay with the kernel");
                }
            }
        }
        // A neighbour that does not answer for a while keeps its address here.
        let mut moved = false;
        for (neighbor, mac) in view.neighbor_macs() {
            moved |= self.macs.insert(neighbor, mac) != Some(mac);
        }
        // Those that the kernel has forgotten, once they are many.
        let known = view.neighbor_macs().count();
        if self.macs.len() > 2 * known + FORGOTTEN_MAX {
            self.macs = view.neighbor_macs().collect();
        }
        if moved {
            for interface in followed {
                for core in interface.cores.iter().filter_map(Weak::upgrade) {
                    core.relink(|remote| next_hop_mac(view, interface.ifindex, remote));
                }
            }
        }
    }
}

/// The next hop's hardware address, when the way to `remote` leads over the interface and it is known.
fn next_hop_mac(view: &KernelView, ifindex: u32, remote: IpAddr) -> Option<MacAddr> {
    if is_link_local(remote) {
        return view.neighbor(ifindex, remote).mac();
    }
    let route = view
        .route(remote)
        .filter(|route| route.ifindex == ifindex)?;
    view.neighbor(ifindex, route.next_hop(remote)).mac()
}

/// Every address of this host: what a wildcard stands for.
pub(super) fn addresses(view: &KernelView) -> impl Iterator<Item = IpAddr> {
    view.links()
        .flat_map(|link| view.addresses_of(link.index))
        .map(|own| own.addr)
}

#[cfg(test)]
mod tests;
