//! Large frames on their way out: AF_XDP has no segmentation offload, a packet socket has.
//!
//! `PACKET_VNET_HDR` hands the kernel a super-frame straight out of the app buffer. The device, or the kernel in its
//! place, cuts it and completes the checksums. It passes the queueing discipline, unlike frames of the AF_XDP
//! socket: `PACKET_QDISC_BYPASS` drops what a device without TSO would need cut.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SendAncillaryBuffer, SendFlags, SocketFlags, SocketType};
use rustix::net::{sendmsg, socket_with};

use crate::port::{TxFrame, vnet};

/// What may be in the kernel before it refuses more: a few dozen super-frames with their overhead.
const SEND_BUFFER: libc::c_int = 8 << 20;

/// A packet socket that only sends, on one interface.
#[derive(Debug)]
pub(super) struct PacketSocket {
    fd: OwnedFd,
}

/// Why a frame was not sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Refused {
    /// The kernel holds enough for now.
    Full,
    /// The interface does not take it, or is down: lost, as on a wire.
    Lost,
}

impl PacketSocket {
    /// # Errors
    /// No CAP_NET_RAW, or a kernel without packet sockets.
    pub(super) fn open(ifindex: u32) -> io::Result<Self> {
        // Protocol 0: it receives nothing.
        let fd = socket_with(
            AddressFamily::PACKET,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        set(&fd, libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1)?;
        if set(&fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, SEND_BUFFER).is_err() {
            set(&fd, libc::SOL_SOCKET, libc::SO_SNDBUF, SEND_BUFFER)?;
        }
        // SAFETY: all fields of `sockaddr_ll` are integers, for which zero is a value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as libc::c_ushort;
        address.sll_ifindex = libc::c_int::try_from(ifindex).map_err(io::Error::other)?;
        // SAFETY: the address lives across the call and its size is passed along.
        let result = unsafe {
            libc::bind(
                fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { fd })
    }

    /// Sends `frame` at once, in one system call.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn send(&self, frame: &TxFrame<'_>) -> Result<(), Refused> {
        let header = vnet::header(frame).ok_or(Refused::Lost)?;
        let parts = [
            IoSlice::new(&header),
            IoSlice::new(frame.header),
            IoSlice::new(frame.payload[0]),
            IoSlice::new(frame.payload[1]),
        ];
        let mut ancillary = SendAncillaryBuffer::default();
        loop {
            return match sendmsg(self.fd.as_fd(), &parts, &mut ancillary, SendFlags::DONTWAIT) {
                Ok(_) => Ok(()),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => Err(Refused::Full),
                Err(_) => Err(Refused::Lost),
            };
        }
    }
}

fn set(fd: &OwnedFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the value is a C int that lives across the call, and its size is passed along.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
