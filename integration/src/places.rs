//! Where a test's client and server meet: `lo` of one namespace, or a veth link between two.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::netns::{Namespace, VethOptions, VethPair};

/// IP version of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Client and server side of a test.
#[derive(Debug)]
pub enum Place {
    /// Both on `lo`.
    Loopback(Namespace),
    /// Client at the first end, server at the second.
    Veth(VethPair),
}

impl Place {
    /// A namespace with `lo`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn loopback(tag: &str) -> io::Result<Self> {
        Namespace::new(tag).map(Self::Loopback)
    }

    /// Two namespaces and a veth link.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn veth(tag: &str) -> io::Result<Self> {
        VethPair::new(tag, VethOptions::default()).map(Self::Veth)
    }

    /// The namespace of clients.
    pub fn client(&self) -> &Namespace {
        match self {
            Self::Loopback(only) => only,
            Self::Veth(pair) => &pair.a,
        }
    }

    /// The namespace of servers.
    pub fn server(&self) -> &Namespace {
        match self {
            Self::Loopback(only) => only,
            Self::Veth(pair) => &pair.b,
        }
    }

    /// The server's address.
    pub fn server_ip(&self, family: Family) -> IpAddr {
        match (self, family) {
            (Self::Loopback(_), Family::V4) => Ipv4Addr::LOCALHOST.into(),
            (Self::Loopback(_), Family::V6) => Ipv6Addr::LOCALHOST.into(),
            (Self::Veth(_), Family::V4) => VethPair::B_V4,
            (Self::Veth(_), Family::V6) => VethPair::B_V6,
        }
    }

    /// The device between client and server.
    pub fn device(&self) -> &'static str {
        match self {
            Self::Loopback(_) => "lo",
            Self::Veth(_) => VethPair::DEVICE,
        }
    }
}
