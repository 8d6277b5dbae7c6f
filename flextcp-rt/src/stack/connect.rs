//! Outgoing connections: which core carries one, from which address and port, to which hardware address.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use flextcp_nic::flow::FlowTuple;
use flextcp_nic::port::tap::Neighbors;
use flextcp_nic::wire::MacAddr;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use socket2::{Domain, Socket};
use tokio::io::unix::AsyncFd;

use super::{Connection, Host, shard};
use crate::host::neighbors::Neighbor;
use crate::host::netlink::KernelView;
use crate::host::ports::Reservation;
use crate::host::routes::Route;
use crate::options::SocketOptions;
use crate::reactor::core::{ConnectRequest, Core, PortHold};
use crate::reactor::driver::{DriverShared, watch};
use crate::socket::Stream;
use crate::tcp::Link;

/// How long an unknown neighbour may take to answer, as the kernel's own three probes.
const NEIGHBOR_TIMEOUT: Duration = Duration::from_secs(3);

/// How often a waiting connect looks for the kernel's answer.
const NEIGHBOR_POLL: Duration = Duration::from_millis(1);

/// Ports in TIME_WAIT that a connect passes over before it gives up.
const PORT_TRIES: usize = 256;

/// How many of them the kernel is asked for.
const PORTS_ASKED_FOR: usize = 4;

/// How often a port that others have is looked for, where other connects do so too.
const SHARE_TRIES: usize = 16;

/// The way to a peer over a core of ours.
pub(super) struct Path {
    pub(super) core: Arc<Core>,
    source: IpAddr,
    /// The link, where the addresses are link-local.
    scope: u32,
    pub(super) link: PathLink,
}

pub(super) enum PathLink {
    /// Hardware address known.
    Ready(Link),
    /// To be resolved on this interface first.
    Resolve {
        ifindex: u32,
        next_hop: IpAddr,
        local_mac: MacAddr,
        mtu: u32,
    },
    /// To be asked for on the TAP device first: there is no kernel behind our end of it.
    Ask {
        neighbors: Neighbors,
        local_mac: MacAddr,
        mtu: u32,
    },
}

impl Host {
    /// Connects to `remote`: over the NIC where the way there is accelerated, else with a kernel socket.
    ///
    /// `socket` is the program's own kernel socket, perhaps bound, perhaps with options set; it becomes the
    /// connection, or holds its port.
    ///
    /// # Errors
    /// As `connect(2)`.
    ///
    /// # Cancel safety
    /// Dropping the future aborts the handshake.
    pub async fn connect(
        self: &Arc<Self>,
        remote: SocketAddr,
        socket: Option<Socket>,
        options: SocketOptions,
    ) -> io::Result<Connection> {
        let remote = reachable(remote);
        let bound = match &socket {
            Some(socket) => socket
                .local_addr()?
                .as_socket()
                .filter(|addr| addr.port() != 0 || !addr.ip().is_unspecified()),
            None => None,
        };
        let device = device_of(remote, socket.as_ref())?;
        let source = bound.map(|addr| addr.ip());
        // Of another family than the socket: the kernel's `connect` says what is wrong with that. A mark is for its rules.
        let ours = match &socket {
            Some(socket) => socket.domain()? == Domain::for_address(remote) && socket.mark()? == 0,
            None => true,
        };
        let path = match ours {
            true => self.path(remote, source, device.as_ref())?,
            false => None,
        };
        let mut socket = socket;
        if let Some(path) = path {
            let connected = self
                .connect_over(path, remote, &mut socket, bound, options)
                .await;
            match connected {
                // No port can be held, but the kernel knows pairs of ends that are free: behind its own TIME_WAITs,
                // and at ports of its own connections.
                Err(error)
                    if error.kind() == io::ErrorKind::AddrNotAvailable
                        && bound.is_none()
                        && self.tap_source(remote.ip()).is_none() =>
                {
                    self.fall_back(error)?;
                }
                connected => return connected.map(Connection::Flex),
            }
        }
        let stream = match socket {
            Some(socket) => {
                socket.set_nonblocking(true)?;
                tokio::net::TcpSocket::from_std_stream(socket.into())
                    .connect(remote)
                    .await?
            }
            None => tokio::net::TcpStream::connect(remote).await?,
        };
        self.count_kernel_socket();
        Ok(Connection::Kernel(stream))
    }

    async fn connect_over(
        self: &Arc<Self>,
        path: Path,
        remote: SocketAddr,
        socket: &mut Option<Socket>,
        bound: Option<SocketAddr>,
        options: SocketOptions,
    ) -> io::Result<Stream> {
        let driver = path.core.driver(self.config.spin)?;
        let source = bound
            .map(|addr| addr.ip())
            .filter(|ip| !ip.is_unspecified())
            .unwrap_or(path.source);
        let link = match path.link {
            PathLink::Ready(link) => link,
            PathLink::Resolve {
                ifindex,
                next_hop,
                local_mac,
                mtu,
            } => {
                let remote_mac = self.resolve(ifindex, next_hop).await?;
                Link {
                    local_mac,
                    remote_mac,
                    mtu,
                }
            }
            PathLink::Ask {
                neighbors,
                local_mac,
                mtu,
            } => {
                let remote_mac = ask(neighbors, remote.ip(), driver.clone()).await?;
                Link {
                    local_mac,
                    remote_mac,
                    mtu,
                }
            }
        };
        let start = |port: u16, reservation: PortHold| {
            let local = SocketAddr::new(source, port);
            path.core.connect(ConnectRequest {
                tuple: FlowTuple::new(local, remote),
                scope: path.scope,
                link,
                options: options.clone(),
                reservation,
                driver: driver.clone(),
            })
        };
        if let Some(bound) = bound
            && bound.port() != 0
            && let Some(socket) = socket.take()
        {
            let shared = socket.reuse_address()? || socket.reuse_port()?;
            let reservation = Reservation::from_bound(socket)?;
            let port = reservation.port();
            if shared {
                self.spare(port, std::slice::from_ref(&path.core));
            }
            let started = start(port, PortHold::of_its_own(reservation));
            return started.map_err(|(error, _)| error)?.await;
        }
        // The kernel does not know which ports wait out TIME_WAIT to this peer here, and chooses from one half of
        // them until that is full: a few are asked of it, the rest of the other half.
        let any_port = any_port_at(source, path.scope);
        let mut refused = Vec::new();
        let mut last = 0;
        for asked in 0..PORT_TRIES {
            let reserved = if asked < PORTS_ASKED_FOR {
                self.reserve(any_port)
            } else {
                let foreign = self.is_tap_address(source);
                match self.spare_sockets.from_other_half(any_port, last, foreign) {
                    Ok(port) => Ok((port.port(), PortHold::of_any(port))),
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => continue,
                    Err(error) => Err(error),
                }
            };
            let (port, reservation) = match reserved {
                // All are held, or the address is not ours.
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => break,
                reserved => reserved?,
            };
            match start(port, reservation) {
                Ok(started) => return started.await,
                // Kept, so that the search goes on.
                Err((error, reservation)) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                    if asked < PORTS_ASKED_FOR {
                        last = port;
                    }
                    refused.push(reservation);
                }
                Err((error, _)) => return Err(error),
            }
        }
        drop(refused);
        // What the kernel does for its own: a port that connects to others connects to this peer too.
        for _ in 0..SHARE_TRIES {
            let cores = self.cores();
            let Some((port, hold)) =
                (cores.iter()).find_map(|core| core.port_to_share(source, remote))
            else {
                break;
            };
            match start(port, hold) {
                Ok(started) => return started.await,
                // Somebody else was faster.
                Err((error, _)) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
                Err((error, _)) => return Err(error),
            }
        }
        Err(io::Error::from_raw_os_error(libc::EADDRNOTAVAIL))
    }

    /// A port of the kernel's choice at `source`.
    fn reserve(&self, source: SocketAddr) -> io::Result<(u16, PortHold)> {
        if self.is_tap_address(source.ip()) {
            let reservation = Reservation::ephemeral(source, true)?;
            return Ok((reservation.port(), PortHold::of_any(reservation)));
        }
        let port = self.spare_sockets.ephemeral(source)?;
        Ok((port.port(), PortHold::of_any(port)))
    }

    /// The way to `remote` over a core, `None` where a kernel socket has to go.
    /// `source` and `device` are what the socket is bound to.
    fn path(
        &self,
        remote: SocketAddr,
        source: Option<IpAddr>,
        device: Option<&Device>,
    ) -> io::Result<Option<Path>> {
        if !self.uses_nic() {
            return Ok(None);
        }
        let hairpin = self.interfaces().hairpin();
        if let Some(core) = hairpin
            && device.is_none()
            && !is_link_local(remote.ip())
            && self.listens_at(remote)
        {
            let capabilities = core.capabilities();
            let link = Link {
                local_mac: capabilities.port.mac,
                remote_mac: capabilities.port.mac,
                mtu: capabilities.port.mtu,
            };
            return Ok(Some(Path {
                core,
                source: source_of_own(remote.ip()),
                scope: 0,
                link: PathLink::Ready(link),
            }));
        }
        if let Some(on_link) = self.tap_source(remote.ip())
            && let Some(tap) = self.tap_link()?
        {
            let port = tap.core.capabilities().port;
            return Ok(Some(Path {
                core: tap.core,
                source: source.filter(|ip| !ip.is_unspecified()).unwrap_or(on_link),
                scope: 0,
                link: PathLink::Ask {
                    neighbors: tap.neighbors,
                    local_mac: port.mac,
                    mtu: port.mtu,
                },
            }));
        }
        self.interface_path(remote, source, device)
    }

    /// The way to the peer of a connection from `source`, over an interface.
    pub(super) fn path_over_interface(
        &self,
        remote: SocketAddr,
        source: Option<IpAddr>,
    ) -> io::Result<Option<Path>> {
        self.interface_path(remote, source, None)
    }

    fn interface_path(
        &self,
        remote: SocketAddr,
        source: Option<IpAddr>,
        device: Option<&Device>,
    ) -> io::Result<Option<Path>> {
        let (route, next_hop) = {
            let mut kernel = self.kernel();
            let Some(view) = kernel.as_mut() else {
                return Ok(None);
            };
            view.refresh()?;
            let Some(route) = route(view, remote.ip(), source, device) else {
                return Ok(None);
            };
            let next_hop = route.next_hop(remote.ip());
            (route, next_hop)
        };
        let cores = self.interface_cores(route.ifindex)?;
        let Some(core) = self.own_core(shard::mine(cores)) else {
            return Ok(None);
        };
        let port = core.capabilities().port;
        let mtu = port.mtu.min(route.mtu);
        let loopback = port.mac == MacAddr::default();
        if loopback && is_link_local(remote.ip()) {
            // To an own address, of another link than the one that its frames would name.
            return Ok(None);
        }
        let link = if loopback {
            PathLink::Ready(Link {
                local_mac: port.mac,
                remote_mac: port.mac,
                mtu,
            })
        } else {
            let known = self
                .kernel()
                .as_ref()
                .and_then(|view| view.neighbor(route.ifindex, next_hop).mac());
            match known {
                Some(remote_mac) => PathLink::Ready(Link {
                    local_mac: port.mac,
                    remote_mac,
                    mtu,
                }),
                None => PathLink::Resolve {
                    ifindex: route.ifindex,
                    next_hop,
                    local_mac: port.mac,
                    mtu,
                },
            }
        };
        let source = source
            .filter(|ip| !ip.is_unspecified())
            .unwrap_or(route.source);
        Ok(Some(Path {
            core,
            source,
            scope: route.ifindex,
            link,
        }))
    }

    /// One of the cores, which take turns.
    fn own_core(&self, mut cores: Vec<Arc<Core>>) -> Option<Arc<Core>> {
        if cores.is_empty() {
            return None;
        }
        let turn = self.connects.fetch_add(1, Ordering::Relaxed);
        Some(cores.swap_remove(turn % cores.len()))
    }

    /// Has the kernel resolve a neighbour (ARP and ND stay its business) and waits for the answer.
    async fn resolve(&self, ifindex: u32, next_hop: IpAddr) -> io::Result<MacAddr> {
        let mut looks = Looks::new();
        let mut asked = false;
        while looks.next().await? {
            let mut kernel = self.kernel();
            let view = kernel.as_mut().ok_or(io::ErrorKind::NetworkUnreachable)?;
            view.refresh()?;
            if !std::mem::replace(&mut asked, true) {
                view.resolve(ifindex, next_hop)?;
            }
            let neighbor = view.neighbor(ifindex, next_hop);
            match (neighbor.mac(), neighbor) {
                (Some(mac), _) => return Ok(mac),
                (None, Neighbor::Failed) => break,
                _ => {}
            }
        }
        Err(io::Error::from_raw_os_error(libc::EHOSTUNREACH))
    }
}

/// Resolves a neighbour on the TAP device; the port asks, at every turn that is due.
async fn ask(
    neighbors: Neighbors,
    remote: IpAddr,
    driver: Arc<DriverShared>,
) -> io::Result<MacAddr> {
    let mut looks = Looks::new();
    while looks.next().await? {
        if let Some(mac) = neighbors.resolve(remote) {
            return Ok(mac);
        }
        driver.wake();
    }
    neighbors.forget(remote);
    Err(io::Error::from_raw_os_error(libc::EHOSTUNREACH))
}

/// The moments at which a waiting connect looks for a neighbour's answer. By a descriptor of its own: the runtime may
/// have no timers, its clock may stand still, and a thread that waits would hold up the runtime's end.
struct Looks {
    timer: Option<AsyncFd<OwnedFd>>,
    until: Instant,
}

impl Looks {
    fn new() -> Self {
        Self {
            timer: None,
            until: Instant::now() + NEIGHBOR_TIMEOUT,
        }
    }

    /// Waits for the next one, but the first; `false` when there has been time enough.
    async fn next(&mut self) -> io::Result<bool> {
        let Some(timer) = &self.timer else {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            let period = Timespec {
                tv_sec: 0,
                tv_nsec: i64::try_from(NEIGHBOR_POLL.as_nanos()).unwrap_or(i64::MAX),
            };
            let times = Itimerspec {
                it_interval: period,
                it_value: period,
            };
            timerfd_settime(&timer, TimerfdTimerFlags::empty(), &times)?;
            self.timer = Some(watch(timer)?);
            return Ok(true);
        };
        let mut ready = timer.readable().await?;
        // How often it expired is of no interest; nothing to read is a false alarm, and as good a moment.
        let _ = rustix::io::read(timer.get_ref(), &mut [0; 8]);
        ready.clear_ready();
        Ok(Instant::now() < self.until)
    }
}

/// The device that a socket has to use.
#[derive(Clone, Debug)]
pub(super) enum Device {
    Index(u32),
    Name(String),
}

/// `SO_BINDTODEVICE`, or the scope of a link-local address: of the peer, or of a listener.
pub(super) fn device_of(addr: SocketAddr, socket: Option<&Socket>) -> io::Result<Option<Device>> {
    if let Some(name) = socket.map(Socket::device).transpose()?.flatten() {
        let name = String::from_utf8_lossy(&name).into_owned();
        return Ok(Some(Device::Name(name)));
    }
    Ok(match addr {
        SocketAddr::V6(addr) if addr.scope_id() != 0 => Some(Device::Index(addr.scope_id())),
        _ => None,
    })
}

/// Where the kernel sends a packet to `remote`. What only the kernel can tell, by rules of policy or for a socket that
/// is bound, it is asked. `None` where there is no way: the kernel's own `connect` says why.
fn route(
    view: &mut KernelView,
    remote: IpAddr,
    source: Option<IpAddr>,
    device: Option<&Device>,
) -> Option<Route> {
    let source = source.filter(|source| !source.is_unspecified());
    if source.is_none() && device.is_none() && !view.policy_rules() {
        return view.route(remote);
    }
    let oif = match device {
        Some(Device::Index(index)) => Some(*index),
        Some(Device::Name(name)) => Some(view.link_by_name(name)?.index),
        None => None,
    };
    view.route_exact(remote, source, oif)
        .inspect_err(|error| tracing::debug!(%remote, %error, "the kernel knows no way"))
        .ok()
}

/// Whether an address says nothing without its link.
pub(super) fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// Any port of `ip`, which is on the link `scope` if it is link-local.
fn any_port_at(ip: IpAddr, scope: u32) -> SocketAddr {
    match ip {
        IpAddr::V6(v6) if is_link_local(ip) => SocketAddrV6::new(v6, 0, 0, scope).into(),
        _ => SocketAddr::new(ip, 0),
    }
}

/// Where the kernel connects from to an own address: there, but to all of 127.0.0.0/8 from 127.0.0.1.
fn source_of_own(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) if v4.is_loopback() => Ipv4Addr::LOCALHOST.into(),
        _ => ip,
    }
}

/// Linux connects to the loopback address when asked for the unspecified one.
fn reachable(remote: SocketAddr) -> SocketAddr {
    match remote.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => {
            SocketAddr::new(Ipv4Addr::LOCALHOST.into(), remote.port())
        }
        IpAddr::V6(ip) if ip.is_unspecified() => {
            SocketAddr::new(Ipv6Addr::LOCALHOST.into(), remote.port())
        }
        _ => remote,
    }
}
