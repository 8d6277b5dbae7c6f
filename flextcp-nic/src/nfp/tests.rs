mod faults;

use super::emulator::{Emulator, EmulatorConfig, Schedule};
use super::{NfpConfig, NfpNic};
use crate::buffer::{DmaRegion, Pool};
use crate::nic::conformance::{Bench, run};
use crate::port::memory::{MemoryConfig, MemoryPort};
use crate::steer::SteerAll;

fn bench(seed: u64, schedule: Schedule) -> Bench {
    let (near, far) = MemoryPort::pair(MemoryConfig::default(), MemoryConfig::default()).unwrap();
    let config = EmulatorConfig {
        seed,
        schedule,
        flows: 64,
        packets: 256,
        packet_bytes: 2048,
        ..EmulatorConfig::default()
    };
    let bus = Emulator::new(Box::new(near), config).unwrap();
    let region = DmaRegion::private(64 << 20).unwrap();
    let nic = NfpNic::new(
        Box::new(bus),
        Box::new(SteerAll::new()),
        &region,
        NfpConfig {
            frame_size: 2048,
            ..NfpConfig::new("nfp-emu", [1; 16])
        },
    )
    .unwrap();
    Bench {
        nic: Box::new(nic),
        wire: Box::new(far),
        pool: Pool::in_region(region, 16 << 20),
    }
}

#[test]
fn conforms() {
    let mut seed = 0;
    run(|| {
        seed += 1;
        bench(seed, Schedule::Prompt)
    });
}

#[test]
fn conforms_when_dma_is_late_and_out_of_order() {
    for first in 0..8 {
        let mut seed = first * 1000;
        run(|| {
            seed += 1;
            bench(seed, Schedule::Hostile)
        });
    }
}
