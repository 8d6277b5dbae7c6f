//! AF_XDP: frames of any Linux interface, beside the kernel, without a kernel module.
//!
//! [`XdpInterface::attach`] puts `bpf/steer.c` on an interface; [`XdpInterface::queue`] opens one AF_XDP socket on one
//! of its queues, a [`Port`](crate::port::Port); [`Steering`] says which addresses and ports are ours. `docs/af-xdp.md`
//! tells modes, capabilities and limits.

mod bulk;
mod circulation;
mod hardware;
mod interface;
mod mapping;
mod packet;
mod program;
mod queue;
mod ring;
mod single;
mod socket;
mod steering;
mod sysctl;
mod umem;
mod wake;

#[cfg(test)]
mod tests;
#[cfg(any(test, feature = "conformance"))]
pub mod trial;

use std::io;

pub use interface::XdpInterface;
pub use queue::XdpPort;
pub use steering::{Steering, SteeringCounters};

use super::RxChecksum;

/// Where in the kernel the program runs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum XdpMode {
    /// In the driver where it can, else generic; generic on a veth with one queue, whose driver would have the
    /// peer cut its super-frames.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the kernel's receive path, on any interface. Segmentation-offload super-frames arrive whole.
    Generic,
}

/// How an interface is attached and its queues are opened.
#[derive(Clone, Debug)]
pub struct XdpConfig {
    /// Where the program runs.
    pub mode: XdpMode,
    /// Frames the kernel can put down before we look, in chunks of 4 KiB: size of the receive and fill rings, a
    /// power of two. A 64 KiB super-frame takes 18.
    pub rx_ring: u32,
    /// As `rx_ring`, for frames on their way out.
    pub tx_ring: u32,
    /// Ask the driver for zero-copy where it has it.
    pub zero_copy: bool,
    /// Put frames into huge pages when the system has some reserved (`vm.nr_hugepages`).
    pub huge_pages: bool,
    /// Send super-frames for device or kernel to cut, where either does.
    pub segmentation: bool,
    /// What to believe about received checksums; by default [`MaybePartial`](RxChecksum::MaybePartial) on `lo` and
    /// veth, [`Unverified`](RxChecksum::Unverified) elsewhere.
    pub checksum: Option<RxChecksum>,
}

impl Default for XdpConfig {
    /// 4,096 chunks in, more than the largest receive window of 1,448-byte segments, and 2,048 out: 24 MiB a queue.
    fn default() -> Self {
        Self {
            mode: XdpMode::Auto,
            rx_ring: 4096,
            tx_ring: 2048,
            zero_copy: true,
            huge_pages: false,
            segmentation: true,
            checksum: None,
        }
    }
}

impl XdpConfig {
    fn validate(&self) -> io::Result<()> {
        for (name, size) in [("rx_ring", self.rx_ring), ("tx_ring", self.tx_ring)] {
            if !size.is_power_of_two() || !(64..=65536).contains(&size) {
                let text = format!("{name} = {size}: must be a power of two from 64 to 65536");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
        }
        Ok(())
    }
}
