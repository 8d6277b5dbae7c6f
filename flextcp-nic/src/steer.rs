//! Steering: which frames are ours, and which flow a frame belongs to.

mod rss;
mod table;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::flow::FlowTuple;

pub use rss::{MICROSOFT_KEY, spread, toeplitz};
pub use table::{FlowKey, FlowTable};

/// What sits before a port and decides which frames reach it: the maps of the XDP program, or nothing. The provided methods
/// are for the latter: every frame arrives, so there is nothing to ask for.
pub trait Steering: Send + fmt::Debug {
    /// Frames to `local` come here from now on; an unspecified address means every address of its family.
    ///
    /// # Errors
    /// The table is full, or the device refused.
    fn own(&mut self, _local: SocketAddr) -> io::Result<()> {
        Ok(())
    }

    /// Ends [`own`](Self::own).
    ///
    /// # Errors
    /// The device refused.
    fn disown(&mut self, _local: SocketAddr) -> io::Result<()> {
        Ok(())
    }

    /// Frames of this connection come here, also while nothing else of its local port is ours: a new listener at the port,
    /// of whatever process, gets all others.
    ///
    /// # Errors
    /// As [`own`](Self::own).
    fn own_flow(&mut self, tuple: FlowTuple) -> io::Result<()> {
        self.own(tuple.local_addr())
    }

    /// Ends [`own_flow`](Self::own_flow).
    ///
    /// # Errors
    /// As [`disown`](Self::disown).
    fn disown_flow(&mut self, tuple: FlowTuple) -> io::Result<()> {
        self.disown(tuple.local_addr())
    }

    /// Frames of this connection go to the kernel although its port is ours.
    ///
    /// # Errors
    /// As [`own`](Self::own).
    fn exclude(&mut self, _tuple: FlowTuple) -> io::Result<()> {
        Ok(())
    }

    /// Ends [`exclude`](Self::exclude).
    ///
    /// # Errors
    /// As [`disown`](Self::disown).
    fn include(&mut self, _tuple: FlowTuple) -> io::Result<()> {
        Ok(())
    }

    /// A connection was installed here, so that its frames are best received here; an interface that can choose does so.
    fn installed(&mut self, _tuple: &FlowTuple) {}

    /// It is not installed any more.
    fn removed(&mut self, _tuple: &FlowTuple) {}

    /// Whether traffic for `address` can reach this port.
    fn serves(&self, address: IpAddr) -> bool;
}

/// No steering: the port is ours alone, and every frame on it (memory wire, TAP).
#[derive(Clone, Debug, Default)]
pub struct SteerAll {
    addresses: Vec<IpAddr>,
}

impl SteerAll {
    /// All frames, of every address.
    pub const fn new() -> Self {
        Self {
            addresses: Vec::new(),
        }
    }

    /// All frames of a port that only these addresses are behind.
    pub const fn serving(addresses: Vec<IpAddr>) -> Self {
        Self { addresses }
    }
}

impl Steering for SteerAll {
    fn serves(&self, address: IpAddr) -> bool {
        self.addresses.is_empty() || self.addresses.contains(&address)
    }
}
