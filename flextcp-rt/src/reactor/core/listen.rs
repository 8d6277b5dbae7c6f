//! Listening on a core.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::{Core, Inner};
use crate::options::SocketOptions;
use crate::reactor::driver::DriverShared;
use crate::socket::AcceptQueue;
use crate::tcp::{CommandError, ListenerId};

pub(super) struct ListenerEntry {
    pub(super) queue: Arc<AcceptQueue>,
    pub(super) driver: Arc<DriverShared>,
    pub(super) local: SocketAddr,
    pub(super) options: SocketOptions,
}

impl Core {
    /// Listens on this core; connections are pushed to `queue`.
    pub(crate) fn listen(
        &self,
        local: SocketAddr,
        backlog: u32,
        options: &SocketOptions,
        queue: &Arc<AcceptQueue>,
        driver: &Arc<DriverShared>,
    ) -> io::Result<ListenerId> {
        let mut inner = self.lock();
        let mtu = inner.nic.capabilities().port.mtu;
        let id = inner
            .engine
            .listen(local, backlog, mtu, options.clone())
            .map_err(listen_error)?;
        for (taken, address) in addresses(local, options).enumerate() {
            if let Err(error) = inner.nic.listen(address) {
                let now = self.now();
                inner.engine.close_listener(now, id);
                for address in addresses(local, options).take(taken) {
                    inner.unlisten(address);
                }
                return Err(error);
            }
        }
        inner.listeners.insert(
            id,
            ListenerEntry {
                queue: queue.clone(),
                driver: driver.clone(),
                local,
                options: options.clone(),
            },
        );
        Ok(id)
    }

    /// Ends [`listen`](Self::listen): connections not yet accepted are reset, as Linux does.
    pub(crate) fn unlisten(&self, id: ListenerId) {
        let mut inner = self.lock();
        let now = self.now();
        // What was accepted just now is not to be reset.
        self.take_requests(&mut inner, now);
        inner.engine.close_listener(now, id);
        if let Some(entry) = inner.listeners.remove(&id) {
            for address in addresses(entry.local, &entry.options) {
                inner.unlisten(address);
            }
        }
        drop(inner);
        self.guard.watch();
    }
}

impl Inner {
    fn unlisten(&mut self, local: SocketAddr) {
        if let Err(error) = self.nic.unlisten(local) {
            tracing::warn!(%local, %error, "could not give the address back to the kernel");
        }
    }
}

/// The addresses a listener takes: `[::]` takes IPv4 too, unless it is IPv6 only.
fn addresses(
    local: SocketAddr,
    options: &SocketOptions,
) -> impl Iterator<Item = SocketAddr> + use<> {
    let dual = local.is_ipv6() && local.ip().is_unspecified() && !options.v6only;
    let v4 = dual.then(|| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), local.port()));
    std::iter::once(local).chain(v4)
}

/// `bind(2)`'s errno.
fn listen_error(error: CommandError) -> io::Error {
    match error {
        CommandError::NoBuffers => io::Error::from_raw_os_error(libc::ENOBUFS),
        _ => io::Error::from_raw_os_error(libc::EADDRINUSE),
    }
}
