mod faults;

use std::sync::Arc;

use super::bus::Bus as _;
use super::emulator::{Emulator, EmulatorConfig, Schedule};
use super::{NfpConfig, NfpNic};
use crate::buffer::{DmaRegion, Pool};
use crate::nic::Nic as _;
use crate::nic::conformance::{Bench, run};
use crate::port::memory::{MemoryConfig, MemoryPort};
use crate::steer::SteerAll;

fn nic(bus: Emulator, region: &Arc<DmaRegion>) -> NfpNic {
    let config = NfpConfig {
        frame_size: 2048,
        ..NfpConfig::new("nfp-emu", [1; 16])
    };
    NfpNic::new(Box::new(bus), Box::new(SteerAll::new()), region, config).unwrap()
}

fn bench(seed: u64, schedule: Schedule) -> Bench {
    let (near, far) = MemoryPort::pair(MemoryConfig::default(), MemoryConfig::default()).unwrap();
    let config = EmulatorConfig::small(seed, schedule);
    let bus = Emulator::new(Box::new(near), config).unwrap();
    let region = DmaRegion::private(64 << 20).unwrap();
    Bench {
        nic: Box::new(nic(bus, &region)),
        wire: Box::new(far),
        pool: Pool::in_region(region, 16 << 20),
    }
}

/// Nobody would cut a frame of the host's own: what the port can do is for what the card sends by itself.
#[test]
fn the_host_is_offered_no_segmentation() {
    let cuts = MemoryConfig {
        tx_segment_max: Some(65_535),
        ..MemoryConfig::default()
    };
    let (near, _far) = MemoryPort::pair(cuts, MemoryConfig::default()).unwrap();
    let bus = Emulator::new(Box::new(near), EmulatorConfig::small(1, Schedule::Prompt)).unwrap();
    assert_eq!(bus.port().tx_segment_max, Some(65_535));
    let region = DmaRegion::private(16 << 20).unwrap();
    let nic = nic(bus, &region);
    assert_eq!(nic.capabilities().port.tx_segment_max, None);
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

/// The table of faults in docs/netronome.md names tests that there are.
#[test]
fn every_fault_has_its_test() {
    let documentation = include_str!("../../../docs/netronome.md");
    let (_, rest) = documentation
        .split_once("### Faults")
        .expect("the table is there");
    let (section, _) = rest.split_once("\nMissing:").expect("it ends");
    let files = [
        ("engines", include_str!("../queue/engines.rs")),
        ("faults", include_str!("tests/faults.rs")),
        ("card", include_str!("../../../integration/tests/card.rs")),
        ("nfp::tests", include_str!("tests.rs")),
        ("nfp::emulator::dma::tests", include_str!("emulator/dma.rs")),
    ];
    let mut count = 0;
    for row in section
        .lines()
        .filter(|line| line.starts_with("| "))
        .skip(1)
    {
        let (_, tests) = row
            .trim_end_matches(" |")
            .rsplit_once(" | ")
            .expect("cells");
        for test in tests.split(", ") {
            let name = test.trim_matches('`');
            let (module, name) = name.rsplit_once("::").expect("module::test");
            let file = files.iter().find(|(of, _)| *of == module);
            let (_, text) = file.unwrap_or_else(|| panic!("{test}: of which file?"));
            assert!(
                text.contains(&format!("fn {name}()")),
                "{test} is not there"
            );
            count += 1;
        }
    }
    assert!(count >= 12, "{count}");
}
