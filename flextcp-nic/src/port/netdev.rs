//! What the kernel says about an interface: MTU, hardware address, driver, queues.

use std::ffi::{CStr, CString};
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::wire::MacAddr;

const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// `struct ethtool_channels`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Channels {
    cmd: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx_count: u32,
    tx_count: u32,
    other_count: u32,
    combined_count: u32,
}

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    cmd: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

/// A kernel network interface, as it was when looked up.
#[derive(Clone, Debug)]
pub(crate) struct NetDevice {
    pub(crate) name: String,
    pub(crate) ifindex: u32,
    pub(crate) mtu: u32,
    pub(crate) mac: MacAddr,
    /// `veth`, `ixgbe`, `lo`; empty when the driver does not say.
    pub(crate) driver: String,
    pub(crate) loopback: bool,
    pub(crate) queues: u32,
}

impl NetDevice {
    /// # Errors
    /// No such interface, or it is no Ethernet or loopback device.
    pub(crate) fn by_name(name: &str) -> io::Result<Self> {
        let missing = || {
            let text = format!("no network interface {name:?}; `ip link` lists them");
            io::Error::new(io::ErrorKind::NotFound, text)
        };
        let c_name = CString::new(name).map_err(|_| missing())?;
        // SAFETY: `c_name` is a NUL-terminated string that lives across the call.
        let ifindex = unsafe { libc::if_nametoindex(c_name.as_ptr()) };
        if ifindex == 0 || name.len() >= libc::IFNAMSIZ {
            return Err(missing());
        }
        Query::new(name)?.device(ifindex)
    }

    /// # Errors
    /// As [`by_name`](Self::by_name).
    pub(crate) fn by_index(ifindex: u32) -> io::Result<Self> {
        let mut name = [0; libc::IFNAMSIZ];
        // SAFETY: the buffer has the IFNAMSIZ bytes that the call may write.
        if unsafe { libc::if_indextoname(ifindex, name.as_mut_ptr()) }.is_null() {
            let text = format!("no network interface with index {ifindex}");
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        }
        // SAFETY: `if_indextoname` wrote a NUL-terminated string.
        let name = unsafe { CStr::from_ptr(name.as_ptr()) }
            .to_string_lossy()
            .into_owned();
        Query::new(&name)?.device(ifindex)
    }
}

/// `ioctl` on an interface by its name.
struct Query {
    socket: OwnedFd,
    name: String,
}

impl Query {
    fn new(name: &str) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        Ok(Self {
            socket,
            name: name.to_owned(),
        })
    }

    fn device(&self, ifindex: u32) -> io::Result<NetDevice> {
        let mtu = self.ifreq(libc::SIOCGIFMTU)?;
        let hardware = self.ifreq(libc::SIOCGIFHWADDR)?;
        // SAFETY: SIOCGIFMTU fills the MTU and SIOCGIFHWADDR the address; both are plain integers.
        let (mtu, address) = unsafe { (mtu.ifr_ifru.ifru_mtu, hardware.ifr_ifru.ifru_hwaddr) };
        let loopback = address.sa_family == libc::ARPHRD_LOOPBACK;
        if !loopback && address.sa_family != libc::ARPHRD_ETHER {
            let text = format!("interface {} carries no Ethernet frames", self.name);
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        let mut mac = [0; 6];
        for (byte, raw) in mac.iter_mut().zip(address.sa_data) {
            *byte = raw.cast_unsigned();
        }
        Ok(NetDevice {
            name: self.name.clone(),
            ifindex,
            mtu: mtu.cast_unsigned(),
            mac: MacAddr(mac),
            driver: if loopback {
                "lo".to_owned()
            } else {
                self.driver()
            },
            loopback,
            queues: self.queues(),
        })
    }

    /// Receive queues in use. Drivers without `ethtool -l` show them in sysfs; those that do neither have one.
    fn queues(&self) -> u32 {
        let mut channels = Channels {
            cmd: ETHTOOL_GCHANNELS,
            ..Channels::default()
        };
        let count = match self.ethtool(&mut channels) {
            Ok(()) => channels.rx_count + channels.combined_count,
            Err(_) => std::fs::read_dir(format!("/sys/class/net/{}/queues", self.name))
                .into_iter()
                .flatten()
                .filter(|entry| {
                    entry
                        .as_ref()
                        .is_ok_and(|entry| entry.file_name().as_encoded_bytes().starts_with(b"rx-"))
                })
                .count() as u32,
        };
        count.max(1)
    }

    fn driver(&self) -> String {
        let mut info = DriverInfo {
            cmd: ETHTOOL_GDRVINFO,
            driver: [0; 32],
            rest: [0; 160],
        };
        if self.ethtool(&mut info).is_err() {
            return String::new();
        }
        let name = info
            .driver
            .split(|byte| *byte == 0)
            .next()
            .unwrap_or_default();
        String::from_utf8_lossy(name).into_owned()
    }

    fn request(&self) -> libc::ifreq {
        // SAFETY: `ifreq` is a C struct of integers, pointers and arrays, for which zero is valid.
        let mut request: libc::ifreq = unsafe { mem::zeroed() };
        for (to, from) in request
            .ifr_name
            .iter_mut()
            .zip(self.name.bytes().take(libc::IFNAMSIZ - 1))
        {
            *to = from.cast_signed();
        }
        request
    }

    fn ioctl(&self, code: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: the codes used here take a pointer to an `ifreq`, whose pointer member, where there is one,
        // goes to a live struct of the command's type.
        match unsafe { libc::ioctl(self.socket.as_raw_fd(), code as _, request) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn ifreq(&self, code: libc::c_ulong) -> io::Result<libc::ifreq> {
        let mut request = self.request();
        self.ioctl(code, &mut request)?;
        Ok(request)
    }

    fn ethtool<T>(&self, command: &mut T) -> io::Result<()> {
        let mut request = self.request();
        request.ifr_ifru.ifru_data = std::ptr::from_mut(command).cast();
        self.ioctl(libc::SIOCETHTOOL, &mut request)
    }
}

/// Sets the length of an interface's queue, in frames, and brings it up. Returns its index.
///
/// # Errors
/// No such interface, or no CAP_NET_ADMIN.
pub(crate) fn bring_up(name: &str, queue: u32) -> io::Result<u32> {
    let query = Query::new(name)?;
    let mut request = query.request();
    // SIOCSIFTXQLEN takes the length where others have a metric.
    request.ifr_ifru.ifru_metric = queue.cast_signed();
    query.ioctl(libc::SIOCSIFTXQLEN, &mut request)?;
    let mut request = query.ifreq(libc::SIOCGIFFLAGS)?;
    // SAFETY: SIOCGIFFLAGS filled the flags, a plain integer.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
    query.ioctl(libc::SIOCSIFFLAGS, &mut request)?;
    Ok(NetDevice::by_name(name)?.ifindex)
}

/// The addresses of this host, on all interfaces: Linux takes a packet for any of them on each.
///
/// # Errors
/// The system call failed.
pub(crate) fn local_addresses() -> io::Result<Vec<IpAddr>> {
    let mut list = std::ptr::null_mut();
    // SAFETY: `list` is a valid place for the result.
    if unsafe { libc::getifaddrs(&mut list) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut addresses = Vec::new();
    let mut next = list;
    while !next.is_null() {
        // SAFETY: `next` is an element of the list, which is freed only below.
        let entry = unsafe { &*next };
        next = entry.ifa_next;
        if entry.ifa_addr.is_null() {
            continue;
        }
        // SAFETY: a non-null address has at least its family.
        match i32::from(unsafe { (*entry.ifa_addr).sa_family }) {
            libc::AF_INET => {
                // SAFETY: the family says that it is a `sockaddr_in`.
                let address = unsafe { *entry.ifa_addr.cast::<libc::sockaddr_in>() };
                addresses.push(Ipv4Addr::from(address.sin_addr.s_addr.to_ne_bytes()).into());
            }
            libc::AF_INET6 => {
                // SAFETY: the family says that it is a `sockaddr_in6`.
                let address = unsafe { *entry.ifa_addr.cast::<libc::sockaddr_in6>() };
                addresses.push(Ipv6Addr::from(address.sin6_addr.s6_addr).into());
            }
            _ => {}
        }
    }
    // SAFETY: `list` came from `getifaddrs` and is freed once.
    unsafe { libc::freeifaddrs(list) };
    Ok(addresses)
}
