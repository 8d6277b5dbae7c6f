//! Kernel connections that become ours.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;

use flextcp_nic::flow::FlowTuple;
use rustix::fs::{OFlags, fcntl_getfl, fstat};

use super::connect::{Path, PathLink};
use super::{Connection, Host};
use crate::host::repair;
use crate::options::SocketOptions;
use crate::reactor::core::ImportRequest;
use crate::socket::Stream;

/// Descriptors that are looked at for another one of the same socket.
const MAX_DESCRIPTORS: usize = 1024;

impl Host {
    /// Takes a connected kernel socket in non-blocking mode over (`TCP_REPAIR`), with its unread bytes and those on
    /// their way, where the way to its peer leads over an accelerated interface; else it stays a kernel socket. So does
    /// one that is not ESTABLISHED, one of which this process has another descriptor (or more than 1,024 descriptors,
    /// which would take long to compare), one whose peer's hardware address is not known, and any without CAP_NET_ADMIN.
    ///
    /// A descriptor of the socket in another process is not noticed, and is dead afterwards.
    ///
    /// # Errors
    /// A kernel socket could not be registered with the runtime.
    ///
    /// # Panics
    /// Outside of a runtime with IO.
    #[track_caller]
    pub fn from_std(
        self: &Arc<Self>,
        stream: TcpStream,
        options: SocketOptions,
    ) -> io::Result<Connection> {
        // In a runtime without IO this panics, and names the caller as tokio's own `from_std` does.
        let probe = std::os::unix::net::UnixDatagram::unbound()?;
        probe.set_nonblocking(true)?;
        drop(tokio::net::UnixDatagram::from_std(probe)?);
        match self.take_over(stream, options) {
            Ok(stream) => Ok(Connection::Flex(stream)),
            Err((stream, reason)) => {
                tracing::debug!(%reason, "a connection stays a kernel socket");
                let stream = tokio::net::TcpStream::from_std(stream)?;
                self.count_kernel_socket();
                Ok(Connection::Kernel(stream))
            }
        }
    }

    fn take_over(
        self: &Arc<Self>,
        stream: TcpStream,
        options: SocketOptions,
    ) -> Result<Stream, (TcpStream, String)> {
        let (tuple, path) = match self.way_of(&stream) {
            Ok(way) => way,
            Err(reason) => return Err((stream, reason)),
        };
        let PathLink::Ready(link) = path.link else {
            return Err((stream, "the next hop's address is not known".into()));
        };
        let driver = match path.core.driver(self.config().spin) {
            Ok(driver) => driver,
            Err(error) => return Err((stream, error.to_string())),
        };
        let request = ImportRequest {
            stream,
            link,
            options,
            driver,
        };
        let ours = path
            .core
            .import(request)
            .map_err(|refused| (refused.stream, refused.error.to_string()))?;
        self.forget_spared(&tuple);
        // It may have been another core's that left for the kernel.
        for core in self.cores() {
            if let Err(error) = core.include(tuple) {
                tracing::warn!(core = core.name(), %error, "frames of a connection that was taken over go to the kernel");
            }
        }
        Ok(ours)
    }

    /// Its ends and the way to its peer, or why it stays.
    fn way_of(&self, stream: &TcpStream) -> Result<(FlowTuple, Path), String> {
        let text = |error: io::Error| error.to_string();
        if !self.uses_nic() {
            return Err("there is no NIC".into());
        }
        let flags = fcntl_getfl(stream).map_err(|error| text(error.into()))?;
        if !flags.contains(OFlags::NONBLOCK) {
            return Err("it is in blocking mode".into());
        }
        let (local, peer) = (
            stream.local_addr().map_err(text)?,
            stream.peer_addr().map_err(text)?,
        );
        let canonical = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
        let tuple = FlowTuple::new(canonical(local), canonical(peer));
        let path = self.path_over_interface(tuple.remote_addr(), Some(tuple.local.0));
        let path = path
            .map_err(text)?
            .ok_or("the way to its peer is not accelerated")?;
        if !repair::is_permitted() {
            return Err("it needs CAP_NET_ADMIN".into());
        }
        if has_duplicates(stream).map_err(text)? {
            return Err("there are other descriptors of it, or too many to tell".into());
        }
        Ok((tuple, path))
    }
}

/// Whether another descriptor of this process is the same socket.
fn has_duplicates(stream: &TcpStream) -> io::Result<bool> {
    let own = format!("socket:[{}]", fstat(stream.as_fd())?.st_ino);
    let mut same = 0;
    for (count, entry) in fs::read_dir("/proc/self/fd")?.enumerate() {
        if count == MAX_DESCRIPTORS {
            return Ok(true);
        }
        // A descriptor that is gone by now is no other.
        if let Ok(target) = fs::read_link(entry?.path()) {
            same += usize::from(target.as_os_str() == own.as_str());
        }
    }
    Ok(same > 1)
}

#[cfg(test)]
mod tests;
