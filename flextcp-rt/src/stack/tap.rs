//! The TAP device: a link whose one end is the kernel's and whose other end is ours, with addresses that the
//! kernel does not have.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use flextcp_nic::port::Port as _;
use flextcp_nic::port::tap::{Neighbors, TapConfig, TapPort};
use flextcp_nic::steer::SteerAll;
use socket2::Socket;

use super::Host;
use super::interfaces::{Refused, wrap_port};
use crate::config::{InterfaceAddr, NicChoice};
use crate::reactor::core::Core;

/// The TAP device in use.
#[derive(Clone, Debug)]
pub(super) struct TapLink {
    pub(super) core: Arc<Core>,
    pub(super) neighbors: Neighbors,
}

impl Host {
    /// Lets `socket` bind to `local` when that is an address of ours on the TAP device: the kernel does not have
    /// it, and holds the port all the same.
    ///
    /// # Errors
    /// The option could not be set.
    pub fn prepare_bind(&self, socket: &Socket, local: SocketAddr) -> io::Result<()> {
        match (self.is_tap_address(local.ip()), local) {
            (false, _) => Ok(()),
            (true, SocketAddr::V4(_)) => socket.set_freebind_v4(true),
            (true, SocketAddr::V6(_)) => socket.set_freebind_v6(true),
        }
    }

    /// Whether `ip` is our address on the TAP device.
    pub(super) fn is_tap_address(&self, ip: IpAddr) -> bool {
        self.config.tap_addr.iter().any(|own| own.addr == ip)
    }

    /// Our address on the TAP device from which `remote` is a neighbour.
    pub(super) fn tap_source(&self, remote: IpAddr) -> Option<IpAddr> {
        let mut on_link = self.config.tap_addr.iter();
        on_link
            .find(|own| contains(own, remote))
            .map(|own| own.addr)
    }

    /// The TAP device, opened on first use; `None` without one.
    ///
    /// # Errors
    /// It cannot be opened, and falling back is denied.
    pub(super) fn tap_link(&self) -> io::Result<Option<TapLink>> {
        let NicChoice::Tap(name) = &self.config.nic else {
            return Ok(None);
        };
        let mut interfaces = self.interfaces();
        if interfaces.tap.is_none() {
            let opened = self.open_tap(name);
            let opened =
                opened.map_err(|error| Refused::new(&format!("TAP device {name}"), &error));
            interfaces.tap = Some(opened);
        }
        match &interfaces.tap {
            Some(Ok(tap)) => Ok(Some(tap.clone())),
            Some(Err(refused)) => {
                let error = refused.error();
                self.warn_once(&mut interfaces, &error);
                drop(interfaces);
                self.fall_back(error).map(|()| None)
            }
            None => Ok(None),
        }
    }

    fn open_tap(&self, name: &str) -> io::Result<TapLink> {
        let addresses: Vec<IpAddr> = self.config.tap_addr.iter().map(|own| own.addr).collect();
        let config = TapConfig {
            addresses: addresses.clone(),
            ..TapConfig::default()
        };
        let port = TapPort::open(name, config)?;
        let neighbors = port.neighbors();
        tracing::debug!(port = port.info().name, "opened");
        let steering = Box::new(SteerAll::serving(addresses));
        let core = self.build_core(
            wrap_port(&self.config, Box::new(port))?,
            steering,
            self.config.filter.clone(),
        )?;
        Ok(TapLink { core, neighbors })
    }
}

/// Whether `ip` is in the network of `own`.
fn contains(own: &InterfaceAddr, ip: IpAddr) -> bool {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => (u128::from(ip.to_bits()) << 96, 32),
        IpAddr::V6(ip) => (ip.to_bits(), 128),
    };
    let ((ours, width), (theirs, other_width)) = (bits(own.addr), bits(ip));
    let prefix = u32::from(own.prefix_len).min(128);
    let differ = (ours ^ theirs).leading_zeros();
    width == other_width && differ >= prefix
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(addr: &str, prefix_len: u8) -> InterfaceAddr {
        InterfaceAddr {
            addr: addr.parse().unwrap(),
            prefix_len,
        }
    }

    #[test]
    fn a_neighbour_shares_the_prefix_and_the_family() {
        let v4 = own("10.0.1.2", 24);
        for (ip, neighbour) in [
            ("10.0.1.2", true),
            ("10.0.1.255", true),
            ("10.0.2.2", false),
            ("::ffff:10.0.1.1", false),
        ] {
            assert_eq!(contains(&v4, ip.parse().unwrap()), neighbour, "{ip}");
        }
        let v6 = own("fd00::2", 64);
        assert!(contains(&v6, "fd00::9:9".parse().unwrap()));
        assert!(!contains(&v6, "fd00:0:0:1::1".parse().unwrap()));
        assert!(contains(&own("1.2.3.4", 0), "9.9.9.9".parse().unwrap()));
        assert!(!contains(&own("1.2.3.4", 32), "1.2.3.5".parse().unwrap()));
    }
}
