//! Two namespaces joined by an emulated path.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use flextcp_nic::port::impair::ImpairConfig;
use flextcp_nic::port::packet::PacketPort;

use super::{Emulator, Watch};
use crate::netns::{Namespace, VethOptions, VethPair, ip};
use crate::process::wait_until;

/// The devices' other ends, in the namespace between.
const INNER: [&str; 2] = ["to-a", "to-b"];

/// Two ends with a device `veth0` each, addressed as in [`VethPair`], and the path between.
#[derive(Debug)]
pub struct Path {
    emulator: Emulator,
    /// The first end: 10.77.0.1, fd77::1.
    pub a: Namespace,
    /// The second end: 10.77.0.2, fd77::2.
    pub b: Namespace,
    // Goes last, and takes the devices with it.
    middle: Namespace,
}

impl Path {
    /// Name of the device at both ends.
    pub const DEVICE: &str = VethPair::DEVICE;

    /// Makes two namespaces and joins them with devices of this MTU: `config.tx` is the way to the second one,
    /// `config.rx` the way back.
    ///
    /// # Errors
    /// When iproute2 or ethtool is missing or refuses, or the devices stay down.
    pub fn new(tag: &str, config: &ImpairConfig, mtu: u32) -> io::Result<Self> {
        let a = Namespace::new(&format!("{tag}-a"))?;
        let b = Namespace::new(&format!("{tag}-b"))?;
        Self::join(a, b, config, mtu)
    }

    /// The same, with what passes told to `watch`.
    ///
    /// # Errors
    /// As [`Path::new`].
    pub fn watched(tag: &str, config: &ImpairConfig, mtu: u32, watch: &Watch) -> io::Result<Self> {
        let a = Namespace::new(&format!("{tag}-a"))?;
        let b = Namespace::new(&format!("{tag}-b"))?;
        Self::joined(a, b, config, mtu, Some(watch))
    }

    /// Joins two namespaces that have no device called `veth0` yet.
    ///
    /// # Errors
    /// As [`Path::new`].
    pub fn join(a: Namespace, b: Namespace, config: &ImpairConfig, mtu: u32) -> io::Result<Self> {
        Self::joined(a, b, config, mtu, None)
    }

    fn joined(
        a: Namespace,
        b: Namespace,
        config: &ImpairConfig,
        mtu: u32,
        watch: Option<&Watch>,
    ) -> io::Result<Self> {
        let middle = Namespace::new("path")?;
        // No router advertisement, no duplicate address detection: nothing but the ends' own frames.
        for when in ["all", "default"] {
            middle.sysctl(&format!("net/ipv6/conf/{when}/disable_ipv6"), "1")?;
        }
        let options = VethOptions {
            mtu,
            // The path has to see what a wire would carry: packets of the MTU with complete checksums.
            segmentation: false,
            checksum: false,
            queues: 1,
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
        let emulator = match watch {
            None => Emulator::start(port_a, port_b, config),
            Some(watch) => Emulator::start(watch.tap(port_a, 0), watch.tap(port_b, 1), config),
        }?;
        Ok(Self {
            emulator,
            a,
            b,
            middle,
        })
    }

    /// The namespace between, and in it the device towards the second end: a place to inject frames from.
    pub fn towards_b(&self) -> (&Namespace, &'static str) {
        (&self.middle, INNER[1])
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
