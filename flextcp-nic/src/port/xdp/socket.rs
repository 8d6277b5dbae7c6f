//! One AF_XDP socket: its descriptor, its four rings and its UMEM, bound to a queue.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::net::xdp::{
    SocketAddrXdp, SocketAddrXdpFlags, XDP_PGOFF_RX_RING, XDP_PGOFF_TX_RING,
    XDP_UMEM_PGOFF_COMPLETION_RING, XDP_UMEM_PGOFF_FILL_RING, XdpDesc, XdpOptionsFlags,
    XdpRingOffset, XdpStatistics, XdpUmemReg, XdpUmemRegFlags,
};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, bind, socket_with};

use super::XdpConfig;
use super::circulation::Circulation;
use super::mapping::Mapping;
use super::ring::{Consumer, Producer};
use super::umem::{CHUNK, METADATA, Umem};

/// Since Linux 6.17: descriptors that one system call may send in copy mode; 32 before.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// The UMEM has transmit metadata, in kernels that name it with a flag (Linux 6.11).
const XDP_UMEM_TX_METADATA_LEN: u32 = 1 << 2;

/// After a socket is closed, the kernel releases its queue from a work item.
const RELEASE_RETRIES: u32 = 50;
const RELEASE_PAUSE: Duration = Duration::from_millis(2);

/// A bound socket.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) rx: Consumer<XdpDesc>,
    pub(super) tx: Producer<XdpDesc>,
    pub(super) fill: Producer<u64>,
    pub(super) chunks: Circulation,
    pub(super) completion: Consumer<u64>,
    pub(super) zero_copy: bool,
    pub(super) multi_buffer: bool,
    /// The kernel completes checksums that a frame's metadata asks for.
    pub(super) tx_checksum: bool,
    // Closed before the memory goes.
    fd: OwnedFd,
    pub(super) umem: Umem,
}

/// What a kernel may not have yet.
#[derive(Clone, Copy)]
struct Features {
    multi_buffer: bool,
    metadata: bool,
}

/// What a kick did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kick {
    /// The kernel took what it could.
    Done,
    /// It wants to be called again: more descriptors, or no memory for the moment.
    Again,
    /// The interface is down, not gone: frames wait, as on an unplugged cable.
    Down,
}

impl Socket {
    /// # Errors
    /// `EBUSY`: another socket has the queue. Others name the call that failed.
    pub(super) fn bind(
        ifindex: u32,
        queue: u32,
        config: &XdpConfig,
        generic: bool,
    ) -> io::Result<Self> {
        // Before Linux 6.11 there is no such metadata, before 6.6 no multi-buffer.
        let newest = Features {
            multi_buffer: true,
            metadata: true,
        };
        let older = Features {
            metadata: false,
            ..newest
        };
        let oldest = Features {
            multi_buffer: false,
            ..older
        };
        let mut result = Err(Errno::INVAL.into());
        for features in [newest, older, oldest] {
            result = Self::bind_patiently(ifindex, queue, config, generic, features);
            match &result {
                Err(error) if is(error, Errno::INVAL) => {}
                _ => break,
            }
        }
        result
    }

    fn bind_patiently(
        ifindex: u32,
        queue: u32,
        config: &XdpConfig,
        generic: bool,
        features: Features,
    ) -> io::Result<Self> {
        for _ in 0..RELEASE_RETRIES {
            match Self::bind_once(ifindex, queue, config, generic, features) {
                Err(error) if is(&error, Errno::BUSY) => thread::sleep(RELEASE_PAUSE),
                result => return result,
            }
        }
        Err(Errno::BUSY.into())
    }

    fn bind_once(
        ifindex: u32,
        queue: u32,
        config: &XdpConfig,
        generic: bool,
        features: Features,
    ) -> io::Result<Self> {
        let Features {
            multi_buffer,
            metadata,
        } = features;
        let rx_size = config.rx_ring;
        let tx_size = config.tx_ring;
        let fd = socket_with(
            AddressFamily::XDP,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let umem = Umem::new(rx_size, tx_size, config.huge_pages)?;
        let (addr, len) = umem.region();
        let registration = XdpUmemReg {
            addr,
            len,
            chunk_size: CHUNK,
            headroom: 0,
            flags: XdpUmemRegFlags::from_bits_retain(if metadata {
                XDP_UMEM_TX_METADATA_LEN
            } else {
                0
            }),
            tx_metadata_len: if metadata { METADATA } else { 0 },
        };
        sockopt::set_xdp_umem_reg(&fd, registration)?;
        sockopt::set_xdp_umem_fill_ring_size(&fd, rx_size)?;
        sockopt::set_xdp_umem_completion_ring_size(&fd, tx_size)?;
        sockopt::set_xdp_rx_ring_size(&fd, rx_size)?;
        sockopt::set_xdp_tx_ring_size(&fd, tx_size)?;

        let offsets = sockopt::xdp_mmap_offsets(&fd)?;
        let rx = map::<XdpDesc>(&fd, XDP_PGOFF_RX_RING, &offsets.rx, rx_size)?;
        let tx = map::<XdpDesc>(&fd, XDP_PGOFF_TX_RING, &offsets.tx, tx_size)?;
        let fill = map::<u64>(&fd, XDP_UMEM_PGOFF_FILL_RING, &offsets.fr, rx_size)?;
        let completion = map::<u64>(&fd, XDP_UMEM_PGOFF_COMPLETION_RING, &offsets.cr, tx_size)?;

        let mut fill = Producer::new(fill, &offsets.fr, rx_size)?;

        // With neither XDP_COPY nor XDP_ZEROCOPY the kernel takes zero-copy where the driver has it.
        let mut flags = SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP;
        flags.set(SocketAddrXdpFlags::XDP_USE_SG, multi_buffer);
        flags.set(SocketAddrXdpFlags::XDP_COPY, generic || !config.zero_copy);
        bind(&fd, &SocketAddrXdp::new(flags, ifindex, queue))?;
        let options = sockopt::xdp_options(&fd)?;
        widen_transmit(&fd, tx_size);

        let zero_copy = options.contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY);
        let mut chunks = Circulation::new(umem.rx_chunks(), zero_copy);
        chunks.top_up(&mut fill);
        fill.submit();
        Ok(Self {
            rx: Consumer::new(rx, &offsets.rx, rx_size)?,
            tx: Producer::new(tx, &offsets.tx, tx_size)?,
            fill,
            chunks,
            completion: Consumer::new(completion, &offsets.cr, tx_size)?,
            zero_copy,
            multi_buffer,
            // In zero-copy mode it depends on the driver.
            tx_checksum: metadata && !zero_copy,
            fd,
            umem,
        })
    }

    /// Asks the kernel to look at the transmit ring.
    ///
    /// # Errors
    /// The interface is gone.
    pub(super) fn kick_transmit(&self) -> io::Result<Kick> {
        match rustix::net::send(&self.fd, &[], SendFlags::DONTWAIT) {
            Ok(_) => Ok(Kick::Done),
            Err(Errno::AGAIN | Errno::BUSY | Errno::NOBUFS | Errno::INTR) => Ok(Kick::Again),
            Err(Errno::NETDOWN) => Ok(Kick::Down),
            Err(error) => Err(error.into()),
        }
    }

    /// Asks the driver to look at the fill ring (zero-copy only).
    ///
    /// # Errors
    /// The interface is gone.
    pub(super) fn kick_receive(&self) -> io::Result<()> {
        let flags = rustix::net::RecvFlags::DONTWAIT;
        let mut nothing = [0u8; 0];
        match rustix::net::recv(&self.fd, &mut nothing, flags) {
            Ok(_)
            | Err(Errno::AGAIN | Errno::BUSY | Errno::NOBUFS | Errno::INTR | Errno::NETDOWN) => {
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// # Errors
    /// The pending error of the socket: its interface was unregistered.
    pub(super) fn check(&self) -> io::Result<()> {
        sockopt::socket_error(&self.fd)?.map_err(Into::into)
    }

    /// The kernel's counters of this socket.
    pub(super) fn statistics(&self) -> Option<XdpStatistics> {
        sockopt::xdp_statistics(&self.fd).ok()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

fn map<T>(fd: &OwnedFd, page: u64, offsets: &XdpRingOffset, size: u32) -> io::Result<Mapping> {
    let entries = u64::from(size) * size_of::<T>() as u64;
    let len = usize::try_from(offsets.desc + entries)
        .map_err(|_| io::Error::other("the kernel describes a ring beyond the address space"))?;
    Mapping::shared(fd.as_fd(), page, len)
}

/// Lets one system call send the whole transmit ring. Neither setting is needed for correctness: a kernel
/// that refuses them is called more often.
fn widen_transmit(fd: &OwnedFd, tx_size: u32) {
    let set = |level, name, value: libc::c_int| {
        // SAFETY: the value is a C int that lives across the call, and its size is passed along.
        unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                level,
                name,
                (&raw const value).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        }
    };
    let buffer = (u64::from(tx_size) * u64::from(CHUNK)).min(1 << 29) as libc::c_int;
    if set(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, buffer) != 0 {
        set(libc::SOL_SOCKET, libc::SO_SNDBUF, buffer);
    }
    set(libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, tx_size as libc::c_int);
}
