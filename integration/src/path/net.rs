//! Two namespaces joined by an emulated path.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use flextcp_nic::port::packet::PacketPort;

use super::{Emulator, Shape};
use crate::netns::{Namespace, VethOptions, VethPair, ip};
use crate::process::wait_until;

/// The devices' other ends, in the namespace between.
const INNER: [&str; 2] = ["to-a", "to-b"];

/// A path to be made.
#[derive(Debug, Clone, Default)]
pub struct PathConfig {
    /// From the first end to the second.
    pub to_b: Shape,
    /// From the second end to the first.
    pub to_a: Shape,
    /// Seed of every random decision.
    pub seed: u64,
    /// MTU of the devices, bytes; 0 is 1500.
    pub mtu: u32,
}

impl PathConfig {
    /// The same both ways.
    pub fn symmetric(shape: &Shape, seed: u64) -> Self {
        Self {
            to_b: shape.clone(),
            to_a: shape.clone(),
            seed,
            mtu: 0,
        }
    }
}

/// Two ends with a device `veth0` each, addressed as in [`VethPair`], and the path between.
#[derive(Debug)]
pub struct Path {
    emulator: Emulator,
    /// The first end: 10.77.0.1, fd77::1.
    pub a: Namespace,
    /// The second end: 10.77.0.2, fd77::2.
    pub b: Namespace,
    // Goes last, and takes the devices with it.
    _middle: Namespace,
}

impl Path {
    /// Name of the device at both ends.
    pub const DEVICE: &str = VethPair::DEVICE;

    /// Makes two namespaces and joins them.
    ///
    /// # Errors
    /// When iproute2 or ethtool is missing or refuses, or the devices stay down.
    pub fn new(tag: &str, config: &PathConfig) -> io::Result<Self> {
        let a = Namespace::new(&format!("{tag}-a"))?;
        let b = Namespace::new(&format!("{tag}-b"))?;
        Self::join(a, b, config)
    }

    /// Joins two namespaces that have no device called `veth0` yet.
    ///
    /// # Errors
    /// As [`Path::new`].
    pub fn join(a: Namespace, b: Namespace, config: &PathConfig) -> io::Result<Self> {
        let middle = Namespace::new("path")?;
        // No router advertisement, no duplicate address detection: nothing but the ends' own frames.
        for when in ["all", "default"] {
            middle.sysctl(&format!("net/ipv6/conf/{when}/disable_ipv6"), "1")?;
        }
        let options = VethOptions {
            mtu: if config.mtu == 0 { 1500 } else { config.mtu },
            // The path has to see what a wire would carry: packets of the MTU with complete checksums.
            segmentation: false,
            checksum: false,
        };
        let (v4, v6) = (
            [VethPair::A_V4, VethPair::B_V4],
            [VethPair::A_V6, VethPair::B_V6],
        );
        for (index, (end, inner)) in [(&a, INNER[0]), (&b, INNER[1])].into_iter().enumerate() {
            ip([
                "link",
                "add",
                "name",
                Self::DEVICE,
                "netns",
                end.name(),
                "type",
                "veth",
                "peer",
                "name",
                inner,
                "netns",
                middle.name(),
            ])?;
            middle.offload(inner, &["gro"], false)?;
            middle.ip([
                "link",
                "set",
                "dev",
                inner,
                "mtu",
                &options.mtu.to_string(),
                "up",
            ])?;
            end.set_up(Self::DEVICE, v4[index], v6[index], options)?;
        }
        for end in [&a, &b] {
            wait_until(Duration::from_secs(10), "the veth link to come up", || {
                end.is_up(Self::DEVICE)
            })?;
        }
        let ports =
            middle.within(|| Ok((PacketPort::open(INNER[0])?, PacketPort::open(INNER[1])?)))?;
        let (port_a, port_b) = ports.map_err(|error: io::Error| {
            io::Error::new(
                error.kind(),
                format!("cannot open the path's middle: {error}"),
            )
        })?;
        let (to_b, to_a) = (config.to_b.clone(), config.to_a.clone());
        Ok(Self {
            emulator: Emulator::start(port_a, port_b, to_b, to_a, config.seed)?,
            a,
            b,
            _middle: middle,
        })
    }

    /// What runs in the middle.
    pub fn emulator(&self) -> &Emulator {
        &self.emulator
    }

    /// The address of the second end.
    pub fn server_ip(&self, v6: bool) -> IpAddr {
        if v6 { VethPair::B_V6 } else { VethPair::B_V4 }
    }
}
