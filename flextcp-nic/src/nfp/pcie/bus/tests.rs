//! The conformance suite over this bus, with an emulated card where the slot would be: it reads the BAR and host memory that
//! the bus maps for it, at the addresses that the bus gives out, and raises the bus's interrupt.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard};

use super::*;
use crate::buffer::Pool;
use crate::nfp::emulator::{Emulator, EmulatorConfig, Schedule};
use crate::nfp::{NfpConfig, NfpNic};
use crate::nic::Nic as _;
use crate::nic::conformance::{Bench, run};
use crate::port::memory::{MemoryConfig, MemoryPort};
use crate::steer::SteerAll;

/// The card in the slot.
#[derive(Clone, Debug)]
struct Slot(Arc<Mutex<Inserted>>);

#[derive(Debug)]
struct Inserted {
    card: Emulator,
    interrupt: Option<OwnedFd>,
    raised: u64,
    vectors: bool,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Inserted> {
        self.0.lock().unwrap()
    }
}

impl Function for Slot {
    fn map(&self, region: &Arc<DmaRegion>, iova: u64) -> io::Result<()> {
        assert!(iova >= FIRST && iova + (region.len() as u64) < 1 << 39);
        self.lock().card.map_at(iova, region);
        Ok(())
    }

    fn interrupt(&self, eventfd: BorrowedFd<'_>) -> io::Result<bool> {
        let mut slot = self.lock();
        slot.interrupt = Some(eventfd.try_clone_to_owned()?);
        Ok(slot.vectors)
    }
}

/// The bus, and turns for the card, which has its own time in a real slot.
#[derive(Debug)]
struct InTurns {
    bus: PcieBus,
    slot: Slot,
}

impl Bus for InTurns {
    fn port(&self) -> &PortInfo {
        self.bus.port()
    }

    fn read(&self, at: u32) -> u32 {
        self.bus.read(at)
    }

    fn write(&mut self, at: u32, value: u32) {
        self.bus.write(at, value);
    }

    fn map(&mut self, region: &Arc<DmaRegion>) -> io::Result<u64> {
        self.bus.map(region)
    }

    fn run(&mut self, now: Instant, frames: usize) -> io::Result<usize> {
        self.bus.run(now, frames)?;
        let mut slot = self.slot.lock();
        let frames = slot.card.run(now, frames)?;
        let interrupts = slot.card.interrupts();
        if std::mem::replace(&mut slot.raised, interrupts) != interrupts
            && let Some(interrupt) = &slot.interrupt
        {
            rustix::io::write(interrupt, &1_u64.to_ne_bytes())?;
        }
        Ok(frames)
    }

    fn is_asynchronous(&self) -> bool {
        false
    }

    fn arm(&mut self) -> io::Result<bool> {
        Ok(self.bus.arm()? && self.slot.lock().card.arm()?)
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        self.bus.wake_fd()
    }

    fn poll_at(&self) -> Option<Instant> {
        self.slot.lock().card.poll_at()
    }

    fn counters(&self) -> PortCounters {
        self.slot.lock().card.counters()
    }
}

/// The bus of a machine with a card in it, and the far end of the card's wire.
fn machine(seed: u64, vectors: bool) -> (InTurns, MemoryPort) {
    let (near, far) = MemoryPort::pair(MemoryConfig::default(), MemoryConfig::default()).unwrap();
    let config = EmulatorConfig::small(seed, Schedule::Hostile);
    let card = Emulator::new(Box::new(near), config).unwrap();
    let bar = Arc::clone(card.bar());
    let slot = Slot(Arc::new(Mutex::new(Inserted {
        card,
        interrupt: None,
        raised: 0,
        vectors,
    })));
    let window = BarWindow::map(bar.fd().unwrap(), 0, bar.len()).unwrap();
    let name = "the card in the slot".to_owned();
    let bus = PcieBus::over(name, Box::new(slot.clone()), window, ("eth0", 7)).unwrap();
    (InTurns { bus, slot }, far)
}

fn bench(seed: u64) -> Bench {
    let (bus, far) = machine(seed, true);
    let region = DmaRegion::private(64 << 20).unwrap();
    let config = NfpConfig {
        frame_size: 2048,
        ..NfpConfig::new("nfp", [1; 16])
    };
    let steering = Box::new(SteerAll::new());
    Bench {
        nic: Box::new(NfpNic::new(Box::new(bus), steering, &region, config).unwrap()),
        wire: Box::new(far),
        pool: Pool::in_region(region, 16 << 20),
    }
}

#[test]
fn conforms() {
    let mut seed = 0;
    run(|| {
        seed += 1;
        bench(seed)
    });
}

#[test]
fn the_card_says_who_it_is() {
    let (bus, _far) = machine(1, true);
    let (info, emulated) = (bus.port(), bus.slot.lock().card.port().clone());
    assert_eq!((info.name.as_str(), info.ifindex), ("eth0", 7));
    assert_eq!((info.mac, info.mtu), (emulated.mac, emulated.mtu));
}

#[test]
fn without_interrupts_the_card_is_polled() {
    let (mut bus, _far) = machine(1, false);
    assert!(bus.wake_fd().is_none());
    assert!(!bus.arm().unwrap(), "there may always be something");
}

#[test]
fn a_card_that_is_gone_is_an_error_that_names_it() {
    let (bus, _far) = machine(1, true);
    let slot = bus.slot.clone();
    let region = DmaRegion::private(1 << 20).unwrap();
    let config = NfpConfig::new("nfp", [1; 16]);
    let steering = Box::new(SteerAll::new());
    let mut nic = NfpNic::new(Box::new(bus), steering, &region, config).unwrap();
    // A read of what is not there is all ones.
    slot.lock().card.write(register::MAGIC, u32::MAX);
    let error = nic.flush(Instant::from_millis(50)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NetworkDown);
    assert!(
        error.to_string().contains("the card in the slot"),
        "{error}"
    );
}
