//! The bus that is PCIe. **Never run on hardware**; over an emulated card it passes the conformance suite.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use super::Card;
use super::bar::BarWindow;
use super::vfio::Function;
use crate::buffer::DmaRegion;
use crate::nfp::bus::Bus;
use crate::nfp::regions::Regions;
use crate::port::wake::Wake;
use crate::port::{PortCounters, PortInfo};
use crate::queue::abi::{constant, register};
use crate::time::Instant;
use crate::wire::MacAddr;

/// Bus address of the first region: beyond what an IOMMU keeps for interrupts and old devices, within the 39 bits that
/// every one translates and the 40 that the card's DMA addresses have.
const FIRST: u64 = 1 << 32;
/// How often the card is asked whether it is there: that takes a round trip over the bus.
const LOOK_AFTER: Duration = Duration::from_millis(10);

/// The way to a card over PCIe.
#[derive(Debug)]
pub struct PcieBus {
    name: String,
    window: BarWindow,
    /// Closed before the regions go: the card reaches nothing then.
    function: Box<dyn Function>,
    regions: Regions,
    /// Readable at an interrupt; without, the card is polled.
    wake: Option<Wake>,
    info: PortInfo,
    looked: Instant,
}

impl PcieBus {
    /// Opens the card. Its wire is that of the kernel's interface `interface`, which the host's addresses and routes are on:
    /// name and index.
    ///
    /// # Errors
    /// What keeps the card from being driven, and what to do.
    pub fn open(card: &Card, interface: (&str, u32)) -> io::Result<Self> {
        let (device, window) = card.ready(0)?;
        Self::over(card.to_string(), Box::new(device), window, interface)
    }

    fn over(
        name: String,
        function: Box<dyn Function>,
        window: BarWindow,
        (port, ifindex): (&str, u32),
    ) -> io::Result<Self> {
        let wake = Wake::new()?;
        let interrupts = wake
            .fd()
            .map_or(Ok(false), |eventfd| function.interrupt(eventfd))
            .unwrap_or_else(|error| {
                tracing::warn!(%error, "{name} gives no interrupts");
                false
            });
        if !interrupts {
            tracing::warn!("{name} is polled, which keeps a CPU busy");
        }
        let [a, b, c, d] = window.read(register::MAC_HIGH).to_be_bytes();
        let [e, f, ..] = window.read(register::MAC_LOW).to_be_bytes();
        let info = PortInfo {
            name: port.to_owned(),
            ifindex,
            mac: MacAddr([a, b, c, d, e, f]),
            mtu: window.read(register::MTU),
            // The MAC completes them when a segment leaves.
            tx_checksum: true,
            tx_segment_max: None,
        };
        Ok(Self {
            name,
            window,
            function,
            regions: Regions::new(FIRST),
            wake: interrupts.then_some(wake),
            info,
            looked: Instant::ZERO,
        })
    }
}

impl Bus for PcieBus {
    fn port(&self) -> &PortInfo {
        &self.info
    }

    fn read(&self, at: u32) -> u32 {
        self.window.read(at)
    }

    fn write(&mut self, at: u32, value: u32) {
        self.window.write(at, value);
    }

    fn map(&mut self, region: &Arc<DmaRegion>) -> io::Result<u64> {
        let address = self.regions.map(region);
        self.function.map(region, address)?;
        Ok(address)
    }

    fn run(&mut self, now: Instant, _: usize) -> io::Result<usize> {
        if now.saturating_since(self.looked) < LOOK_AFTER && now >= self.looked {
            return Ok(0);
        }
        self.looked = now;
        if self.window.read(register::MAGIC) == constant::MAGIC {
            return Ok(0);
        }
        Err(io::Error::new(
            io::ErrorKind::NetworkDown,
            format!(
                "{} does not answer any more; see `dmesg`, and load its firmware again",
                self.name
            ),
        ))
    }

    fn is_asynchronous(&self) -> bool {
        true
    }

    fn arm(&mut self) -> io::Result<bool> {
        // An interrupt that is cleared here was raised for events that are in memory, which the caller looks for next.
        match &self.wake {
            Some(wake) => wake.clear().map(|()| true),
            None => Ok(false),
        }
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        self.wake.as_ref().and_then(Wake::fd)
    }

    fn poll_at(&self) -> Option<Instant> {
        None
    }

    fn counters(&self) -> PortCounters {
        // The wire's are the MAC's, which the kernel's interface shows.
        PortCounters::default()
    }
}

#[cfg(all(test, feature = "firmware"))]
mod tests;
