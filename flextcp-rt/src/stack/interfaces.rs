//! Which interfaces have cores. An interface is attached when the first listener or connection needs it; what
//! cannot be attached falls back to the kernel, with one warning that says why.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use flextcp_nic::nfp::bus::Bus;
use flextcp_nic::nic::Nic;
use flextcp_nic::port::Port;
use flextcp_nic::port::capture::{Capture, CaptureConfig};
use flextcp_nic::port::impair::Impair;
use flextcp_nic::port::memory::LoopbackPort;
use flextcp_nic::port::xdp::{XdpConfig, XdpInterface, XdpMode};
use flextcp_nic::soft::{SoftConfig, SoftNic};
use flextcp_nic::steer::{SteerAll, Steering};

use super::connect::Device;
use super::follower::{self, Follower};
use super::tap::TapLink;
use super::{Host, shard};
use crate::config::{self, Config, Filter, NicChoice};
use crate::reactor::core::Core;
use crate::reactor::inbox::{Inbox, InboxPort};
use crate::reactor::siblings::Siblings;
use crate::tcp::Engine;

/// Everything that has been attached, or was tried.
#[derive(Debug, Default)]
pub(super) struct Interfaces {
    hairpin: Option<Arc<Core>>,
    pub(super) tap: Option<Result<TapLink, Refused>>,
    attached: HashMap<u32, Result<Attached, Refused>>,
    pub(super) follower: Option<Follower>,
    warned: bool,
}

/// An interface with its cores, one per queue.
#[derive(Debug)]
struct Attached {
    /// Keeps the XDP program attached; a card of its own has none.
    interface: Option<XdpInterface>,
    steering: follower::Steering,
    cores: Vec<Arc<Core>>,
}

/// Why an interface has no cores, kept so that it is tried and reported once.
#[derive(Debug)]
pub(super) struct Refused {
    kind: io::ErrorKind,
    reason: String,
}

impl Refused {
    pub(super) fn new(what: &str, error: &io::Error) -> Self {
        Self {
            kind: error.kind(),
            reason: format!("{what} is not accelerated: {error}"),
        }
    }

    pub(super) fn error(&self) -> io::Error {
        io::Error::new(self.kind, self.reason.clone())
    }
}

impl Interfaces {
    pub(super) fn cores(&self) -> Vec<Arc<Core>> {
        let attached = self
            .attached
            .values()
            .flatten()
            .flat_map(|attached| &attached.cores);
        let tap = self.tap.iter().flatten().map(|tap| &tap.core);
        attached.chain(tap).chain(&self.hairpin).cloned().collect()
    }

    /// Puts back the settings of the system that the interfaces needed.
    pub(super) fn restore_settings(&self) {
        let attached = self.attached.values().flatten();
        for interface in attached.filter_map(|attached| attached.interface.as_ref()) {
            interface.restore_settings();
        }
    }

    /// Why interfaces that were tried have no cores.
    pub(super) fn refusals(&self) -> Vec<String> {
        let attached = self
            .attached
            .values()
            .filter_map(|tried| tried.as_ref().err());
        let tap = self.tap.iter().filter_map(|tried| tried.as_ref().err());
        let mut reasons: Vec<_> = attached
            .chain(tap)
            .map(|refused| refused.reason.clone())
            .collect();
        reasons.sort();
        reasons
    }

    /// The core of connections within the process, if one was needed so far.
    pub(super) fn hairpin(&self) -> Option<Arc<Core>> {
        self.hairpin.clone()
    }
}

impl Host {
    /// The core of connections within the process, started on first use; `None` where it is switched off.
    pub(super) fn hairpin_core(&self) -> io::Result<Option<Arc<Core>>> {
        if !self.config.hairpin || !self.uses_nic() {
            return Ok(None);
        }
        let mut interfaces = self.interfaces();
        if interfaces.hairpin.is_none() {
            let core = self.build_core(
                wrap_port(&self.config, Box::new(LoopbackPort::new()))?,
                Box::new(SteerAll::new()),
                Filter::default(),
            )?;
            interfaces.hairpin = Some(core);
        }
        Ok(interfaces.hairpin.clone())
    }

    /// The cores of an interface, attached on first use; empty where it is not accelerated.
    ///
    /// # Errors
    /// It cannot be, and falling back is denied.
    pub(super) fn interface_cores(&self, ifindex: u32) -> io::Result<Vec<Arc<Core>>> {
        if !self.accelerates_interfaces() {
            return Ok(Vec::new());
        }
        let link = {
            let kernel = self.kernel();
            let Some(view) = kernel.as_ref() else {
                return Ok(Vec::new());
            };
            let Some(link) = view.link(ifindex).cloned() else {
                return Ok(Vec::new());
            };
            let is_default = view.carries_default_route(ifindex);
            let usable = link.up && (link.loopback || link.ethernet);
            // A port of a bridge or bond carries its controller's frames, perhaps those of the default route, and an
            // interface without an address has none for us. Who names it wants it all the same.
            let own = link.controller.is_none() && !view.addresses_of(ifindex).is_empty();
            if !usable
                || !(own || self.config.interfaces != config::Interfaces::Auto)
                || !self.config.interfaces.permits(&link.name, is_default)
            {
                return Ok(Vec::new());
            }
            link
        };
        let mut interfaces = self.interfaces();
        let Interfaces {
            attached, follower, ..
        } = &mut *interfaces;
        attached.entry(ifindex).or_insert_with(|| {
            self.attach(ifindex, &link.name)
                .inspect(|attached| follow(follower, ifindex, attached))
                .map_err(|error| Refused::new(&format!("interface {}", link.name), &error))
        });
        match interfaces.attached.get(&ifindex) {
            Some(Ok(attached)) => Ok(attached
                .cores
                .iter()
                .filter(|core| !core.has_failed())
                .cloned()
                .collect()),
            Some(Err(refused)) => {
                let error = refused.error();
                self.warn_once(&mut interfaces, &error);
                drop(interfaces);
                self.fall_back(error).map(|()| Vec::new())
            }
            None => Ok(Vec::new()),
        }
    }

    /// The cores on which a listener at `local` has to listen; with `device` on that one alone.
    pub(super) fn listen_cores(
        &self,
        local: SocketAddr,
        device: Option<&Device>,
    ) -> io::Result<Vec<Arc<Core>>> {
        if let Some(device) = device {
            return self.device_cores(device);
        }
        let mut cores: Vec<_> = self.hairpin_core()?.into_iter().collect();
        if (local.ip().is_unspecified() || self.is_tap_address(local.ip()))
            && let Some(tap) = self.tap_link()?
        {
            cores.push(tap.core);
        }
        let interfaces = self.interfaces_of(local.ip());
        for error in self.missing_interfaces() {
            self.fall_back(error)?;
        }
        for ifindex in interfaces {
            cores.extend(shard::mine(self.interface_cores(ifindex)?));
        }
        Ok(cores)
    }

    /// The cores of a device, and for the loopback device that of the connections within the process.
    fn device_cores(&self, device: &Device) -> io::Result<Vec<Arc<Core>>> {
        let link = {
            let mut kernel = self.kernel();
            let Some(view) = kernel.as_mut() else {
                return Ok(Vec::new());
            };
            if let Err(error) = view.refresh() {
                tracing::warn!(%error, "the kernel's links could not be refreshed");
            }
            match device {
                Device::Index(index) => view.link(*index).cloned(),
                Device::Name(name) => view.link_by_name(name).cloned(),
            }
        };
        let Some(link) = link else {
            return Ok(Vec::new());
        };
        let mut cores = Vec::new();
        if link.loopback {
            cores.extend(self.hairpin_core()?);
        }
        cores.extend(shard::mine(self.interface_cores(link.index)?));
        Ok(cores)
    }

    /// The interfaces over which packets to our address `local` can arrive: its own, and the loopback interface
    /// for peers on this machine.
    pub(super) fn interfaces_of(&self, local: IpAddr) -> Vec<u32> {
        let mut kernel = self.kernel();
        let Some(view) = kernel.as_mut() else {
            return Vec::new();
        };
        if let Err(error) = view.refresh() {
            tracing::warn!(%error, "the kernel's routes could not be refreshed");
        }
        if local.is_unspecified() {
            return view
                .links()
                .filter(|link| link.up)
                .map(|link| link.index)
                .collect();
        }
        let loopback = view.loopback().map(|link| link.index);
        let mut found: Vec<u32> = view.owner_of(local).into_iter().collect();
        if let Some(loopback) = loopback
            && !found.contains(&loopback)
        {
            found.push(loopback);
        }
        found
    }

    /// Warns of a name that is misspelt, perhaps: without the interface, connections use kernel sockets.
    pub(super) fn look_for_named_interfaces(&self) {
        for error in self.missing_interfaces() {
            tracing::warn!("{error}");
        }
    }

    fn missing_interfaces(&self) -> Vec<io::Error> {
        let config::Interfaces::List(names) = &self.config.interfaces else {
            return Vec::new();
        };
        let kernel = self.kernel();
        let (true, Some(view)) = (self.accelerates_interfaces(), kernel.as_ref()) else {
            return Vec::new();
        };
        let missing = names
            .iter()
            .filter(|name| view.link_by_name(name).is_none());
        let error = |name| {
            let there: Vec<_> = view.links().map(|link| link.name.as_str()).collect();
            let text = format!(
                "there is no interface {name}, which interfaces (FLEXTCP_INTERFACES) names: it is not accelerated; here are {}",
                there.join(", ")
            );
            io::Error::new(io::ErrorKind::NotFound, text)
        };
        missing.map(error).collect()
    }

    const fn accelerates_interfaces(&self) -> bool {
        !matches!(self.config.nic, NicChoice::Off | NicChoice::Tap(_))
    }

    fn attach(&self, ifindex: u32, name: &str) -> io::Result<Attached> {
        super::nfp::check(&self.config)?;
        match &self.config.nic {
            NicChoice::NfpProcess(path) => return self.attach_process(path, ifindex, name),
            NicChoice::Nfp(address) => return self.attach_card(address, ifindex, name),
            _ => {}
        }
        let mode = match self.config.xdp_mode {
            config::XdpMode::Auto => XdpMode::Auto,
            config::XdpMode::Native => XdpMode::Native,
            config::XdpMode::Generic => XdpMode::Generic,
        };
        let config = XdpConfig {
            mode,
            ..XdpConfig::default()
        };
        let interface = XdpInterface::attach(name, config)?;
        let steering = interface.steering();
        steering.set_addresses(self.own_addresses())?;
        let queues = (0..interface.queues())
            .map(|queue| {
                let inbox = Arc::new(Inbox::default());
                let port = wrap_port(&self.config, Box::new(interface.queue(queue)?))?;
                let core = self.build_core(
                    Box::new(InboxPort::new(port, inbox.clone())),
                    Box::new(interface.steering_of(queue)),
                    self.config.filter.clone(),
                )?;
                Ok((core, inbox))
            })
            .collect::<io::Result<Vec<_>>>()?;
        Siblings::introduce(&queues);
        let cores = queues.into_iter().map(|(core, _)| core).collect();
        Ok(Attached {
            interface: Some(interface),
            steering: follower::Steering::Xdp(steering),
            cores,
        })
    }

    /// The card in another process, which has the interface.
    fn attach_process(&self, path: &Path, ifindex: u32, name: &str) -> io::Result<Attached> {
        let bus = super::nfp::connect(path, ifindex, name, &self.config)?;
        let steering = bus.steering();
        steering.set_addresses(self.own_addresses())?;
        self.drive(
            Box::new(bus),
            "nfp-emu",
            Box::new(steering.clone()),
            follower::Steering::Card(steering),
        )
    }

    /// The card on PCIe, which the interface's addresses are to be behind.
    fn attach_card(&self, address: &str, ifindex: u32, name: &str) -> io::Result<Attached> {
        let bus = super::nfp::open(address, (name, ifindex), &self.config)?;
        let served = super::nfp::Served::default();
        served.set_addresses(self.own_addresses());
        self.drive(
            Box::new(bus),
            "nfp",
            Box::new(served.clone()),
            follower::Steering::Served(served),
        )
    }

    fn drive(
        &self,
        bus: Box<dyn Bus>,
        kind: &'static str,
        steering: Box<dyn Steering>,
        followed: follower::Steering,
    ) -> io::Result<Attached> {
        let port = bus.port().name.clone();
        let nic = super::nfp::driver(
            bus,
            kind,
            steering,
            self.config.filter.clone(),
            &self.config,
            &self.pool,
            random_secret()?,
        )?;
        Ok(Attached {
            interface: None,
            steering: followed,
            cores: vec![self.start_core(port, nic)?],
        })
    }

    /// Every address of this host: what a wildcard stands for.
    fn own_addresses(&self) -> Vec<IpAddr> {
        let kernel = self.kernel();
        let Some(view) = kernel.as_ref() else {
            return Vec::new();
        };
        super::follower::addresses(view).collect()
    }

    pub(super) fn build_core(
        &self,
        port: Box<dyn Port>,
        steering: Box<dyn Steering>,
        filter: Filter,
    ) -> io::Result<Arc<Core>> {
        let name = port.info().name.clone();
        // Connections within the process never see a card.
        let nic: Box<dyn Nic> = if super::nfp::is_chosen(&self.config) && port.info().ifindex != 0 {
            super::nfp::nic(
                port,
                steering,
                filter,
                &self.config,
                &self.pool,
                random_secret()?,
            )?
        } else {
            let mut nic_config = SoftConfig::new(random_secret()?);
            nic_config.recv_sizes.max = self.config.recv_buffer_max;
            nic_config.filter = filter;
            Box::new(SoftNic::new(port, steering, nic_config))
        };
        self.start_core(name, nic)
    }

    fn start_core(&self, name: String, nic: Box<dyn Nic>) -> io::Result<Arc<Core>> {
        let engine = Engine::new(self.config.engine(), random_secret()?, self.pool.clone());
        let core = Core::new(name, self.clock.clone(), self.guard.clone(), nic, engine);
        self.guard.add(&core)?;
        super::exit::register();
        if core.is_hairpin() {
            tracing::debug!("connections within this process stay in it");
        } else {
            tracing::info!(core = core.name(), "serving over the NIC");
        }
        Ok(core)
    }

    pub(super) fn warn_once(&self, interfaces: &mut Interfaces, error: &io::Error) {
        if !std::mem::replace(&mut interfaces.warned, true) {
            tracing::warn!(
                "{error}; its connections use kernel sockets (FLEXTCP_NIC=off silences this, FLEXTCP_FALLBACK=deny makes it an error)"
            );
        }
    }
}

/// Has changes around an interface followed. Without, its connections go on as things are now.
fn follow(follower: &mut Option<Follower>, ifindex: u32, attached: &Attached) {
    if follower.is_none() {
        *follower = Follower::start()
            .inspect_err(|error| {
                tracing::warn!(%error, "changes of addresses and neighbours are not followed");
            })
            .ok();
    }
    if let Some(follower) = follower {
        follower.follow(ifindex, attached.steering.clone(), &attached.cores);
    }
}

/// The wrappers that the configuration asks for.
pub(super) fn wrap_port(config: &Config, port: Box<dyn Port>) -> io::Result<Box<dyn Port>> {
    let mut port = port;
    if let Some(impair) = &config.impair {
        let impair = impair
            .parse()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        port = Box::new(Impair::new(port, impair));
    }
    if let Some(path) = &config.capture {
        let name = port.info().name.replace(['/', ' '], "-");
        let path = path.with_extension(format!("{name}.pcapng"));
        let file = std::fs::File::create(&path).map_err(|error| {
            let path = path.display();
            let text = format!(
                "cannot write {path}: {error}; capture (FLEXTCP_CAPTURE) names it: choose a path in a directory that is there"
            );
            io::Error::new(error.kind(), text)
        })?;
        port = Box::new(Capture::new(
            port,
            io::BufWriter::new(file),
            CaptureConfig::default(),
        )?);
    }
    Ok(port)
}

/// Keys initial sequence numbers and timestamp offsets (RFC 6528): unpredictable, per core.
fn random_secret() -> io::Result<[u8; 16]> {
    let mut secret = [0; 16];
    let mut filled = 0;
    while filled < secret.len() {
        filled +=
            rustix::rand::getrandom(&mut secret[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(secret)
}
