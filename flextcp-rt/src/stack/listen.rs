//! Hybrid listeners: the kernel's socket, which holds the port and accepts what comes over interfaces without a
//! core, and a listener in every core's engine, all behind one answer.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use socket2::Socket;

use super::Host;
use super::connect::device_of;
use crate::host::ports::{BindOptions, Reservation};
use crate::options::SocketOptions;
use crate::reactor::core::{Core, PortHold};
use crate::socket::{AcceptQueue, FlexListener, RuntimeHandle};
use crate::tcp::ListenerId;

/// Both halves of a listener. Accept from whichever has a connection first.
#[derive(Debug)]
pub struct Listener {
    /// The kernel's half.
    pub kernel: tokio::net::TcpListener,
    /// The accelerated half, where there is one.
    pub flex: Option<FlexListener>,
}

/// What the host remembers of a listener: connections from within the process find it.
#[derive(Debug)]
pub(super) struct Listening {
    local: SocketAddr,
    v6only: bool,
    /// Connections within the process reach it.
    within: bool,
    parts: Mutex<Vec<(Arc<Core>, ListenerId)>>,
}

impl Listening {
    #[cfg(test)]
    pub(super) fn cores(&self) -> Vec<Arc<Core>> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.iter().map(|(core, _)| core.clone()).collect()
    }

    /// Whether a connection to `remote`, one of our addresses, is for this listener.
    fn answers(&self, remote: SocketAddr) -> bool {
        let ip = self.local.ip();
        self.within
            && self.local.port() == remote.port()
            && (ip == remote.ip()
                || (ip.is_unspecified()
                    && (ip.is_ipv4() == remote.is_ipv4() || (ip.is_ipv6() && !self.v6only))))
    }
}

impl Host {
    /// Makes a bound kernel socket a listener, accelerated where its address can be.
    ///
    /// # Errors
    /// As `listen(2)`; or the NIC cannot serve and falling back is denied.
    ///
    /// # Panics
    /// Outside of a runtime with IO, as tokio's listener.
    #[track_caller]
    pub fn listen(
        self: &Arc<Self>,
        socket: Socket,
        backlog: u32,
        options: SocketOptions,
    ) -> io::Result<Listener> {
        let device = match socket.local_addr()?.as_socket() {
            Some(local) => device_of(local, Some(&socket))?,
            None => None,
        };
        socket.set_nonblocking(true)?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        let kernel = tokio::net::TcpListener::from_std(socket.into())?;
        let local = kernel.local_addr()?;
        if !self.uses_nic() {
            return Ok(Listener { kernel, flex: None });
        }
        let cores = self.listen_cores(local, device.as_ref())?;
        let queue = AcceptQueue::new();
        let mut parts = Vec::with_capacity(cores.len());
        self.spare(local.port(), &cores);
        for core in cores.iter().cloned() {
            let driver = core.driver(self.config.spin)?;
            match core.listen(local, backlog, &options, &queue, &driver) {
                Ok(id) => parts.push((core, id)),
                Err(error) => {
                    tracing::warn!(core = core.name(), %local, %error, "this queue cannot listen; the kernel serves it");
                    if let Err(error) = self.fall_back(error) {
                        end(&parts);
                        return Err(error);
                    }
                }
            }
        }
        if parts.is_empty() {
            return Ok(Listener { kernel, flex: None });
        }
        self.spare(local.port(), &cores);
        let listening = Arc::new(Listening {
            local,
            v6only: options.v6only,
            within: parts.iter().any(|(core, _)| core.is_hairpin()),
            parts: Mutex::new(parts),
        });
        self.listening().push(listening.clone());
        let host = Arc::downgrade(self);
        let runtime = RuntimeHandle::of(&tokio::runtime::Handle::current());
        let flex = FlexListener::new(queue, runtime, move || {
            if let Some(host) = host.upgrade() {
                host.listening()
                    .retain(|other| !Arc::ptr_eq(other, &listening));
            }
            end(&std::mem::take(
                &mut *listening
                    .parts
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner),
            ));
            if let Some(host) = host.upgrade() {
                host.leave_port_to_connections(local);
            }
        });
        Ok(Listener {
            kernel,
            flex: Some(flex),
        })
    }

    /// The connections of a listener that is gone hold its port, as on Linux: somebody whom the kernel gave it would have his own
    /// connections refused here.
    fn leave_port_to_connections(&self, local: SocketAddr) {
        let options = BindOptions {
            reuse_address: true,
            ..BindOptions::default()
        };
        let mut held = None;
        let mut hold = || {
            let hold = held.get_or_insert_with(|| {
                // In use: another listener has it, or the kernel's half of this one, which lives on.
                Reservation::bind(local, &options)
                    .ok()
                    .map(PortHold::of_its_own)
            });
            hold.clone()
        };
        for core in self.cores() {
            core.inherit_port(local.port(), &mut hold);
        }
    }

    /// Whether a listener of this process answers at `remote`.
    pub(super) fn listens_at(&self, remote: SocketAddr) -> bool {
        let answers = self
            .listening()
            .iter()
            .any(|listening| listening.answers(remote));
        answers && self.is_ours(remote.ip())
    }

    /// What a NIC listens at.
    pub(super) fn listening_at(&self) -> Vec<SocketAddr> {
        self.listening()
            .iter()
            .map(|listening| listening.local)
            .collect()
    }

    fn is_ours(&self, ip: IpAddr) -> bool {
        ip.is_loopback()
            || self.is_tap_address(ip)
            || self
                .kernel()
                .as_ref()
                .is_some_and(|view| view.owner_of(ip).is_some())
    }

    pub(super) fn listening(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Listening>>> {
        self.listening
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn end(parts: &[(Arc<Core>, ListenerId)]) {
    for (core, id) in parts {
        core.unlisten(*id);
    }
}
