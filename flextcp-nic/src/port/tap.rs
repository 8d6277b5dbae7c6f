//! TAP: a link whose one end is the kernel's and whose other end is ours, for processes without privilege.
//!
//! Root makes the device and gives it away once (`ip tuntap add flex0 mode tap user alice vnet_hdr`), or hands over
//! an open descriptor. The kernel's end has addresses and routes as any interface; ours has those of
//! [`TapConfig::addresses`], and since no kernel stands behind it, the port itself answers ARP and neighbour
//! discovery for them.
//!
//! Frames carry virtio-net headers both ways: checksums stay partial and segments uncut, up to 64 KiB.

mod batch;
pub(super) mod device;
mod neighbor;
mod port;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

pub use neighbor::Neighbors;
pub use port::TapPort;

use crate::wire::MacAddr;

/// What our end of a TAP is.
#[derive(Clone, Debug, Default)]
pub struct TapConfig {
    /// Our addresses: ARP and neighbour discovery are answered for them.
    pub addresses: Vec<IpAddr>,
    /// Our hardware address; by default made of the device's own, locally administered.
    pub mac: Option<MacAddr>,
    /// Open one queue of several; open once for each.
    pub multi_queue: bool,
}
