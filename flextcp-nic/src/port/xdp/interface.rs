//! An accelerated interface: the program attached to it, its queues and its steering.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use super::bulk::Bulk;
use super::hardware::WithCard;
use super::packet::PacketSocket;
use super::program::{self, Program, from_map};
use super::queue::XdpPort;
use super::socket::Socket;
use super::steering::Steering;
use super::sysctl::LoopbackSettings;
use super::{XdpConfig, XdpMode};
use crate::port::netdev::{NetDevice, local_addresses};
use crate::port::{PortInfo, RxChecksum};
use crate::wire::MacAddr;

/// A network interface with the steering program attached. The program goes when this value and all ports
/// made from it are dropped, or the process ends in whatever way.
#[derive(Debug)]
pub struct XdpInterface {
    attached: Arc<Attached>,
    config: XdpConfig,
    steering: Steering,
}

/// What the queues of an interface share.
pub(super) struct Attached {
    sockets: Mutex<aya::maps::XskMap<aya::maps::MapData>>,
    device: NetDevice,
    generic: bool,
    /// The way of large frames on `lo`, when no queue has it.
    bulk: Mutex<Option<Bulk>>,
    // Dropped in this order: first the program goes, then the settings it needed.
    _link: OwnedFd,
    settings: Mutex<LoopbackSettings>,
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached")
            .field("device", &self.device)
            .field("generic", &self.generic)
            .finish_non_exhaustive()
    }
}

impl Attached {
    fn bind(&self, queue: u32, socket: &Socket) -> io::Result<()> {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets
            .set(queue, socket.as_fd().as_raw_fd(), 0)
            .map_err(from_map)
    }

    pub(super) fn unbind(&self, queue: u32) {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        // The kernel removes a closed socket by itself; this only does it sooner.
        let _ = sockets.unset(queue);
    }

    pub(super) fn take_bulk(&self) -> Option<Bulk> {
        let mut bulk = self.bulk.lock().unwrap_or_else(PoisonError::into_inner);
        bulk.take()
    }

    pub(super) fn put_bulk_back(&self, bulk: Bulk) {
        *self.bulk.lock().unwrap_or_else(PoisonError::into_inner) = Some(bulk);
    }
}

impl XdpInterface {
    /// Attaches to the interface called `name`.
    ///
    /// On `lo` this sets `net.ipv4.conf.lo.route_localnet` and `accept_local` to 1, and back on drop: without
    /// them the kernel takes no IPv4 frame of ours there.
    ///
    /// # Errors
    /// The text says what is missing and what to do: no such interface, no privilege (CAP_BPF, CAP_NET_ADMIN,
    /// CAP_NET_RAW), another program attached ([`ResourceBusy`](io::ErrorKind::ResourceBusy)), no XDP in the
    /// wanted mode.
    pub fn attach(name: &str, config: XdpConfig) -> io::Result<Self> {
        Self::attach_to(NetDevice::by_name(name)?, config)
    }

    /// [`attach`](Self::attach) by interface index.
    ///
    /// # Errors
    /// As there.
    pub fn attach_index(ifindex: u32, config: XdpConfig) -> io::Result<Self> {
        Self::attach_to(NetDevice::by_index(ifindex)?, config)
    }

    fn attach_to(device: NetDevice, config: XdpConfig) -> io::Result<Self> {
        config.validate()?;
        let mut program =
            program::load().map_err(|error| explain(error, "loading the XDP program", &device))?;
        let (link, generic) = match config.mode {
            XdpMode::Native => (program.attach(device.ifindex, false), false),
            XdpMode::Generic => (program.attach(device.ifindex, true), true),
            // In the driver a veth takes segments one by one, and its peer has to cut them; in generic mode it does not
            // tell its queues apart.
            XdpMode::Auto if device.driver == "veth" && device.queues == 1 => {
                (program.attach(device.ifindex, true), true)
            }
            XdpMode::Auto => match program.attach(device.ifindex, false) {
                Ok(link) => (Ok(link), false),
                Err(error) if is_taken(&error) => (Err(error), false),
                Err(native) => {
                    tracing::debug!(interface = device.name, %native, "no native XDP, trying generic");
                    (program.attach(device.ifindex, true), true)
                }
            },
        };
        let link = link.map_err(|error| explain(error, "attaching the XDP program", &device))?;
        let settings = if device.loopback {
            LoopbackSettings::apply()?
        } else {
            LoopbackSettings::default()
        };
        let addresses = if device.loopback {
            None
        } else {
            Some(local_addresses()?.into_iter().collect())
        };
        let bulk = if device.loopback {
            bulk_way(&mut program, &device)
        } else {
            None
        };
        let maps = WithCard::if_pinned(Box::new(program.maps), &device.name, device.queues);
        let steering = Steering::new(maps, addresses);
        let attached = Attached {
            sockets: Mutex::new(program.sockets),
            device,
            generic,
            bulk: Mutex::new(bulk),
            _link: link,
            settings: Mutex::new(settings),
        };
        Ok(Self {
            attached: Arc::new(attached),
            config,
            steering,
        })
    }

    /// Puts the system's settings back at once, ports in use or not: for the end of a process, which drops nothing
    /// that is static.
    pub fn restore_settings(&self) {
        let settings = &self.attached.settings;
        drop(std::mem::take(
            &mut *settings.lock().unwrap_or_else(PoisonError::into_inner),
        ));
    }

    /// Opens queue `queue`; it receives from the moment of the return.
    ///
    /// # Errors
    /// The text says what is missing and what to do: no such queue, another socket has it
    /// ([`ResourceBusy`](io::ErrorKind::ResourceBusy)), CAP_NET_RAW, locked memory.
    pub fn queue(&self, queue: u32) -> io::Result<XdpPort> {
        let device = &self.attached.device;
        if queue >= device.queues {
            let text = format!(
                "{} has {} queues, no queue {queue}",
                device.name, device.queues
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let doing = "opening an AF_XDP socket";
        let socket = Socket::bind(device.ifindex, queue, &self.config, self.attached.generic)
            .map_err(|error| explain(error, doing, device))?;
        self.attached
            .bind(queue, &socket)
            .map_err(|error| explain(error, doing, device))?;
        let mode = if self.attached.generic {
            "generic"
        } else {
            "native"
        };
        let copy = if socket.zero_copy {
            "zero-copy"
        } else {
            "copy"
        };
        // Large frames are a matter of speed: without them the stack cuts its segments itself. With several queues the
        // kernel would send them through another than the small ones, and they would overtake each other.
        let packet = PacketSocket::open(device.ifindex)
            .inspect_err(
                |error| tracing::debug!(interface = device.name, %error, "no segmentation offload"),
            )
            .ok()
            .filter(|_| socket.tx_checksum && device.queues == 1);
        let info = PortInfo {
            name: format!("xdp:{}/{queue} ({mode}, {copy})", device.name),
            ifindex: device.ifindex,
            mac: device.mac,
            mtu: device.mtu,
            tx_checksum: socket.tx_checksum,
            tx_segment_max: packet
                .as_ref()
                .filter(|_| self.config.segmentation)
                .map(|_| u32::from(u16::MAX)),
        };
        let checksum = self
            .config
            .checksum
            .unwrap_or(match device.driver.as_str() {
                "lo" | "veth" => RxChecksum::MaybePartial,
                _ => RxChecksum::Unverified,
            });
        XdpPort::new(
            socket,
            packet,
            info,
            checksum,
            Arc::clone(&self.attached),
            queue,
        )
    }

    /// [`steering`](Self::steering) for the owner of `queue`.
    pub fn steering_of(&self, queue: u32) -> Steering {
        self.steering.of_queue(queue)
    }

    /// The handle that decides which frames are ours.
    pub fn steering(&self) -> Steering {
        self.steering.clone()
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.attached.device.name
    }

    /// The interface's index.
    pub fn ifindex(&self) -> u32 {
        self.attached.device.ifindex
    }

    /// The interface's hardware address, all zero on `lo`.
    pub fn mac(&self) -> MacAddr {
        self.attached.device.mac
    }

    /// The interface's MTU when it was attached.
    pub fn mtu(&self) -> u32 {
        self.attached.device.mtu
    }

    /// Receive queues of the interface.
    pub fn queues(&self) -> u32 {
        self.attached.device.queues
    }

    /// Whether it is a loopback interface.
    pub fn is_loopback(&self) -> bool {
        self.attached.device.loopback
    }

    /// Whether the program runs in generic mode, not in the driver.
    pub fn is_generic(&self) -> bool {
        self.attached.generic
    }
}

/// A matter of speed: without it large frames go the way of all others.
fn bulk_way(program: &mut Program, device: &NetDevice) -> Option<Bulk> {
    program
        .attach_bypass(device.ifindex)
        .and_then(|(map, link)| Bulk::new(map, link))
        .inspect_err(|error| {
            tracing::info!(
                interface = device.name,
                %error,
                "bulk from kernel sockets takes the slower of two ways, through AF_XDP (the faster needs Linux 6.6, its BTF and TAPs)"
            );
        })
        .ok()
}

/// Another program, in this mode (`EBUSY`) or the other (`EEXIST`), is attached.
fn is_taken(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST))
}

/// The verifier lets a program add to a packet's address with CAP_PERFMON only.
const NEEDS: &str = ": needs CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and CAP_NET_RAW (run as root, or \
     `setcap cap_bpf,cap_perfmon,cap_net_admin,cap_net_raw+ep` on the program)";

fn explain(error: io::Error, doing: &str, device: &NetDevice) -> io::Error {
    let NetDevice { name, driver, .. } = device;
    let hint = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => NEEDS.to_owned(),
        Some(libc::EBUSY | libc::EEXIST) => format!(
            ": another process has {name} or this queue of it (`ip link show {name}` and `bpftool net` say which \
             program); an interface takes one"
        ),
        Some(libc::ENOBUFS) => {
            ": over the limit of locked memory (raise `ulimit -l` or LimitMEMLOCK=, grant \
             CAP_IPC_LOCK, or make the rings smaller)"
                .to_owned()
        }
        Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ERANGE) => format!(
            ": driver {driver:?} does not support it with these settings; generic mode works on any interface"
        ),
        Some(libc::EAFNOSUPPORT) => ": this kernel has no AF_XDP (CONFIG_XDP_SOCKETS)".to_owned(),
        Some(libc::ENOSYS) => ": this kernel has no BPF".to_owned(),
        _ if error.kind() == io::ErrorKind::PermissionDenied => NEEDS.to_owned(),
        _ => String::new(),
    };
    let kind = if is_taken(&error) {
        io::ErrorKind::ResourceBusy
    } else {
        error.kind()
    };
    io::Error::new(kind, format!("{doing} on {name}: {error}{hint}"))
}
