//! The TUN/TAP character device.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl, open};

use crate::port::vnet;

const TUNSETIFF: u64 = 0x4004_54ca;
const TUNSETOFFLOAD: u64 = 0x4004_54d0;
const TUNGETIFF: u64 = 0x8004_54d2;
const TUNSETVNETHDRSZ: u64 = 0x4004_54d8;

const IFF_TAP: i16 = 0x0002;
const IFF_MULTI_QUEUE: i16 = 0x0100;
const IFF_NO_PI: i16 = 0x1000;
const IFF_VNET_HDR: i16 = 0x4000;

const TUN_F_CSUM: u32 = 0x01;
const TUN_F_TSO4: u32 = 0x02;
const TUN_F_TSO6: u32 = 0x04;
const TUN_F_TSO_ECN: u32 = 0x08;

/// An attached TAP queue, non-blocking, and its interface's name.
#[derive(Debug)]
pub(in crate::port) struct Device {
    pub(in crate::port) fd: OwnedFd,
    pub(in crate::port) name: String,
}

impl Device {
    pub(in crate::port) fn open(name: &str, multi_queue: bool) -> io::Result<Self> {
        Self::attach(Self::clone_device()?, name, multi_queue)
    }

    /// An unattached queue.
    pub(in crate::port) fn clone_device() -> io::Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        open("/dev/net/tun", flags, Mode::empty()).map_err(|error| {
            let error = io::Error::from(error);
            let hint = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "root can `chmod 666` it: a TAP still opens to its owner only"
                }
                _ => "`modprobe tun` makes it",
            };
            io::Error::new(
                error.kind(),
                format!("opening /dev/net/tun: {error}: {hint}"),
            )
        })
    }

    pub(in crate::port) fn attach(fd: OwnedFd, name: &str, multi_queue: bool) -> io::Result<Self> {
        if name.len() >= libc::IFNAMSIZ || name.contains('\0') {
            let text = format!("{name:?} is no interface name: at most 15 bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let mut request = empty_request();
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        let queues = if multi_queue { IFF_MULTI_QUEUE } else { 0 };
        request.ifr_ifru.ifru_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | queues;
        interface(&fd, TUNSETIFF, &mut request).map_err(|error| explain(error, name))?;
        Self::finish(fd, &request)
    }

    pub(in crate::port) fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let mut request = empty_request();
        interface(&fd, TUNGETIFF, &mut request).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("the descriptor is no attached TAP: {error}"),
            )
        })?;
        // SAFETY: TUNGETIFF fills the flags, a plain integer.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        let wanted = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
        if flags & wanted != wanted {
            let text = format!(
                "the descriptor was attached with flags {flags:#06x}: IFF_TAP, IFF_NO_PI and IFF_VNET_HDR are needed"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        fcntl_setfl(&fd, fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
        Self::finish(fd, &request)
    }

    fn finish(fd: OwnedFd, request: &libc::ifreq) -> io::Result<Self> {
        let len = vnet::LEN as libc::c_int;
        // SAFETY: TUNSETVNETHDRSZ reads an int through the pointer, which lives across the call.
        check(unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETVNETHDRSZ as _, &raw const len) })?;
        let offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        check(unsafe {
            libc::ioctl(
                fd.as_raw_fd(),
                TUNSETOFFLOAD as _,
                libc::c_ulong::from(offloads),
            )
        })?;
        let name = request.ifr_name.iter().take_while(|byte| **byte != 0);
        let name: Vec<u8> = name.map(|byte| byte.cast_unsigned()).collect();
        Ok(Self {
            fd,
            name: String::from_utf8_lossy(&name).into_owned(),
        })
    }
}

fn empty_request() -> libc::ifreq {
    // SAFETY: `ifreq` is a C struct of integers, pointers and arrays, for which zero is valid.
    unsafe { std::mem::zeroed() }
}

fn interface(fd: &OwnedFd, code: u64, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: both codes used here read and write an `ifreq`.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), code as _, std::ptr::from_mut(request)) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn explain(error: io::Error, name: &str) -> io::Error {
    let hint = match error.raw_os_error() {
        Some(libc::EPERM) => format!(
            "needs CAP_NET_ADMIN, or a TAP that is yours: root runs `ip tuntap add {name} mode tap user $USER vnet_hdr`"
        ),
        Some(libc::EBUSY) => "another process has it".to_owned(),
        Some(libc::EINVAL) => format!(
            "{name} exists and is no TAP, or differs in multi_queue: `ip -d link show {name}` tells"
        ),
        _ => "see `ip -d link show`".to_owned(),
    };
    io::Error::new(
        error.kind(),
        format!("attaching to TAP {name}: {error}: {hint}"),
    )
}
