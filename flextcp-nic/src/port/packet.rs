//! `AF_PACKET`: the frames of an interface, beside the kernel's own stack.
//!
//! For taps and link emulators. The kernel sees every frame as well, so that a NIC over this port would answer twice
//! on an interface with addresses; `port::xdp` is for that. An interface that hands over super-frames or leaves
//! checksums to hardware does so here too: turn segmentation and checksum offload off at the other end of a veth.

use std::io;
use std::mem::{self, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::netdev::NetDevice;
use super::{Port, PortCounters, PortFull, PortInfo, RxChecksum, RxFrame, TxFrame};
use crate::time::Instant;

/// Largest frame: 64 KiB of IP packet, Ethernet header, one tag.
const MAX_FRAME: usize = 65535 + 18;

/// Bytes of frames that wait in the kernel, as it counts them.
const RECEIVE_BUFFER: libc::c_int = 16 << 20;

const TP_STATUS_CSUMNOTREADY: u32 = 1 << 3;

/// All frames that an interface receives, and a way to send on it.
#[derive(Debug)]
pub struct PacketPort {
    socket: OwnedFd,
    frame: Box<[u8]>,
    info: PortInfo,
    counters: PortCounters,
}

impl PacketPort {
    /// Opens the interface called `name` of the calling thread's network namespace.
    ///
    /// # Errors
    /// No such interface, or no CAP_NET_RAW.
    pub fn open(name: &str) -> io::Result<Self> {
        let device = NetDevice::by_name(name)?;
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // Protocol zero receives nothing before it is bound to the one interface.
        // SAFETY: no memory is passed.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if fd < 0 {
            let error = io::Error::last_os_error();
            let text = format!("cannot open a packet socket for {name} (CAP_NET_RAW): {error}");
            return Err(io::Error::new(error.kind(), text));
        }
        // SAFETY: the descriptor is new and nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        set(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
        set(&socket, libc::SOL_PACKET, libc::PACKET_AUXDATA, 1)?;
        set(&socket, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1)?;
        // Beyond rmem_max needs CAP_NET_ADMIN; without it the kernel's limit has to do.
        if set(
            &socket,
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            RECEIVE_BUFFER,
        )
        .is_err()
        {
            set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, RECEIVE_BUFFER)?;
        }
        // SAFETY: `sockaddr_ll` is a C struct of integers, for which zero is valid.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = device.ifindex.cast_signed();
        // SAFETY: the address is a live `sockaddr_ll` of the length given.
        let bound = unsafe {
            libc::bind(
                socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        if bound != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            socket,
            frame: vec![0; MAX_FRAME].into(),
            info: PortInfo {
                name: format!("packet:{name}"),
                ifindex: device.ifindex,
                mac: device.mac,
                mtu: device.mtu,
                tx_checksum: false,
                tx_segment_max: None,
            },
            counters: PortCounters::default(),
        })
    }

    /// The next frame's length and what is known of its checksum; `None` when none waits.
    fn receive_one(&mut self) -> io::Result<Option<(usize, RxChecksum)>> {
        let mut piece = libc::iovec {
            iov_base: self.frame.as_mut_ptr().cast(),
            iov_len: self.frame.len(),
        };
        let mut control = Control([0; 64]);
        // SAFETY: `msghdr` is a C struct of integers and pointers, for which zero is valid.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_iov = &raw mut piece;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = control.0.len() as _;
        // SAFETY: all pointers of `message` go to live, writable memory of the lengths given.
        let len = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, 0) };
        let Ok(len) = usize::try_from(len) else {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EINTR) => Ok(None),
                // The interface was down for a moment.
                Some(libc::ENETDOWN) => Ok(None),
                _ => Err(error),
            };
        };
        let mut checksum = RxChecksum::Unverified;
        // SAFETY: the kernel filled `message`; its control pointer and length describe `control`.
        let mut next = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
        while !next.is_null() {
            // SAFETY: `next` points to a whole header inside `control`.
            let header = unsafe { &*next };
            if header.cmsg_level == libc::SOL_PACKET && header.cmsg_type == libc::PACKET_AUXDATA {
                // SAFETY: the kernel puts a `tpacket_auxdata` behind such a header, maybe unaligned.
                let data = unsafe {
                    libc::CMSG_DATA(next)
                        .cast::<libc::tpacket_auxdata>()
                        .read_unaligned()
                };
                if data.tp_status & TP_STATUS_CSUMNOTREADY != 0 {
                    checksum = RxChecksum::MaybePartial;
                }
            }
            // SAFETY: `next` came from these functions for this message.
            next = unsafe { libc::CMSG_NXTHDR(&raw const message, next) };
        }
        Ok(Some((len, checksum)))
    }
}

/// Room for the control messages, aligned as their headers have to be.
#[repr(align(8))]
struct Control([u8; 64]);

fn set(
    socket: &OwnedFd,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the value is a live `c_int` of the length given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as u32,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

impl Port for PacketPort {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn receive(
        &mut self,
        _now: Instant,
        budget: usize,
        sink: &mut dyn FnMut(RxFrame<'_>),
    ) -> io::Result<usize> {
        for count in 0..budget {
            let Some((len, checksum)) = self.receive_one()? else {
                return Ok(count);
            };
            self.counters.rx_frames += 1;
            self.counters.rx_bytes += len as u64;
            sink(RxFrame::contiguous(&self.frame[..len], checksum));
        }
        Ok(budget)
    }

    /// Sends at once. A frame that the interface refuses (too long, interface down) is dropped.
    fn transmit(&mut self, _now: Instant, frame: TxFrame<'_>) -> Result<(), PortFull> {
        let pieces = [frame.header, frame.payload[0], frame.payload[1]];
        let pieces = pieces.map(io::IoSlice::new);
        self.counters.kicks += 1;
        match rustix::io::writev(&self.socket, &pieces) {
            Ok(len) => {
                self.counters.tx_frames += 1;
                self.counters.tx_bytes += len as u64;
                Ok(())
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::NOBUFS) => {
                self.counters.tx_full += 1;
                Err(PortFull)
            }
            Err(_) => Ok(()),
        }
    }

    fn flush(&mut self, _now: Instant) -> io::Result<()> {
        Ok(())
    }

    fn arm(&mut self) -> io::Result<bool> {
        // Its descriptor is readable while a frame waits.
        Ok(true)
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    fn counters(&self) -> PortCounters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::TxOffload;
    use crate::port::testing::{in_namespace, veth};
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    /// Waits for frames and returns them.
    fn drain(port: &mut PacketPort) -> Vec<Vec<u8>> {
        let limit = Timespec {
            tv_sec: 5,
            tv_nsec: 0,
        };
        poll(
            &mut [PollFd::new(&port.socket, PollFlags::IN)],
            Some(&limit),
        )
        .unwrap();
        let mut frames = Vec::new();
        port.receive(Instant::ZERO, 16, &mut |frame| frames.push(frame.to_vec()))
            .unwrap();
        frames
    }

    fn send(port: &mut PacketPort, header: &[u8], payload: &[u8]) {
        let frame = TxFrame {
            header,
            payload: [payload, &[]],
            offload: TxOffload::default(),
        };
        port.transmit(Instant::ZERO, frame).unwrap();
    }

    #[test]
    fn frames_cross_a_link_whole_and_the_sender_does_not_see_its_own() {
        in_namespace(|| {
            veth("left", "right");
            let mut left = PacketPort::open("left").unwrap();
            let mut right = PacketPort::open("right").unwrap();
            // An experimental EtherType (IEEE 802), so that the kernel minds its own business.
            let mut header = [0; 14];
            header[..6].copy_from_slice(&right.info().mac.0);
            header[12..].copy_from_slice(&[0x88, 0xb5]);
            let payload = [7; 1486];
            send(&mut left, &header, &payload);
            let frames = drain(&mut right);
            assert_eq!(frames, [[&header[..], &payload].concat()]);
            send(&mut right, &header, b"back");
            assert_eq!(drain(&mut left), [[&header[..], b"back"].concat()]);
            assert_eq!(left.counters().tx_frames, 1);
        });
    }

    #[test]
    fn a_frame_beyond_the_mtu_is_dropped_and_not_an_error() {
        in_namespace(|| {
            veth("left", "right");
            let mut left = PacketPort::open("left").unwrap();
            send(&mut left, &[0xff; 14], &[0; 4000]);
            assert_eq!(left.counters().tx_frames, 0);
        });
    }

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        let error = PacketPort::open("nosuch0").unwrap_err();
        assert!(error.to_string().contains("nosuch0"), "{error}");
    }
}
