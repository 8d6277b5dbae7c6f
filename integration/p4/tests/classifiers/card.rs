//! The firmware that owns all engines, on the emulated card: whose a frame is, and that a malformed one for the kernel's
//! address and port is the kernel's to refuse.

use std::sync::{Arc, Mutex};

use flextcp_nic::buffer::DmaRegion;
use flextcp_nic::nfp::emulator::{Emulator, EmulatorConfig};
use flextcp_nic::nfp::{NfpConfig, NfpNic};
use flextcp_nic::nic::Nic as _;
use flextcp_nic::port::{RxChecksum, RxFrame};
use flextcp_nic::queue::abi::{counter, register};
use flextcp_nic::steer::SteerAll;
use flextcp_nic::time::Instant;
use flextcp_nic::wire::parse;
use flextcp_p4::{Machine, Tables};

use super::model::{Model, Rng};
use super::soft::{OneFrame, Seen, Soft, Verdict};
use super::whose::whose;
use super::{count, externs, firmware, frames, hex, p4_verdict, seed};

/// What the card, without a flow, did with a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    Netdev,
    Dropped,
    Exception,
}

struct Card {
    nic: NfpNic,
    frame: Arc<Mutex<Vec<u8>>>,
    now: Instant,
}

impl Card {
    fn new(model: &Model) -> Self {
        let frame = Arc::new(Mutex::new(Vec::new()));
        let config = EmulatorConfig {
            seed: seed(),
            flows: 64,
            packets: 64,
            packet_bytes: 4096,
            ..EmulatorConfig::default()
        };
        let bus = Emulator::new(Box::new(OneFrame::new(&frame)), config).unwrap();
        let config = NfpConfig {
            own_all: false,
            filter: model.filter(),
            frame_size: 4096,
            ..NfpConfig::new("nfp-emu", [3; 16])
        };
        let buffers = DmaRegion::private(1 << 20).unwrap();
        let steering = Box::new(SteerAll::new());
        let mut nic = NfpNic::new(Box::new(bus), steering, &buffers, config).unwrap();
        model.enter(&mut nic);
        let mut this = Self {
            nic,
            frame,
            now: Instant::from_millis(1),
        };
        // Nothing of an owner's yet, while the card is told who they are.
        for _ in 0..10 {
            this.turn(&mut Seen::default());
        }
        this
    }

    fn turn(&mut self, seen: &mut Seen) {
        self.nic.flush(self.now).expect("the card is there");
        self.nic
            .poll(self.now, 64, seen)
            .expect("the card is there");
    }

    /// One of the card's own counters.
    fn counter(&self, which: u32) -> u64 {
        let at = register::COUNTERS + which * 2;
        u64::from(self.nic.bus().read(at))
    }

    fn netdev(&self) -> u64 {
        self.counter(counter::NETDEV)
    }

    fn dropped(&self) -> u64 {
        let counters = self.nic.counters();
        counters.malformed + counters.bad_checksum + counters.filtered
    }

    fn classify(&mut self, frame: &[u8]) -> Fate {
        frame.clone_into(&mut self.frame.lock().unwrap());
        let before = (self.netdev(), self.dropped());
        let mut seen = Seen::default();
        self.turn(&mut seen);
        let after = (self.netdev(), self.dropped());
        match (after.0 - before.0, after.1 - before.1, seen.exception) {
            (1, 0, None) => Fate::Netdev,
            (0, 1, None) => Fate::Dropped,
            (0, 0, Some(_)) => Fate::Exception,
            other => panic!("one of three, not {other:?}: {}", hex(frame)),
        }
    }
}

#[test]
fn the_firmware_classifies_as_the_software_nic_does() {
    let model = Model::new();
    let mut soft = Soft::new(&model);
    let mut card = Card::new(&model);
    let mut rng = Rng::new(seed());
    let mut seen = [0; 3];
    for number in 0..count() {
        let frame = frames::frame(&mut rng, &model);
        let fate = card.classify(&frame);
        seen[fate as usize] += 1;
        let fits = match soft.classify(&frame) {
            Verdict::Kernel => fate == Fate::Netdev,
            Verdict::Drop => fate == Fate::Dropped,
            Verdict::Exception => fate == Fate::Exception,
            // Not installed on the card: the filter may refuse it.
            Verdict::Flow(..) => fate != Fate::Netdev,
        };
        assert!(
            // Beyond what the card looks at: dropped, if it still saw the ports.
            fits || (fate != Fate::Exception && whose(&frame).is_some_and(|of| of.too_deep)),
            "frame {number}: {fate:?}, {:?} {:?}: {}",
            soft.classify(&frame),
            whose(&frame),
            hex(&frame)
        );
    }
    let enough = count() / 20;
    assert!(seen.iter().all(|seen| *seen > enough), "{seen:?}");
    println!("netdev, dropped, exceptions: {seen:?}");
}

/// Rule lists that nobody thought of, each on three classifiers; what is refused is counted on the card itself.
#[test]
fn filters_decide_alike_on_the_card_in_p4_and_in_software() {
    const LISTS: u32 = 40;
    let program = firmware();
    let mut rng = Rng::new(seed());
    let (mut refused, mut let_in) = (0, 0);
    for list in 0..LISTS {
        let model = Model {
            filter: (0..rng.below(8))
                .map(|_| Model::any_rule(&mut rng))
                .collect(),
            ..Model::new()
        };
        let tables = Tables::from_json(&program, &model.p4_rules()).unwrap();
        let mut machine = Machine::new(&program, &tables);
        let mut externs = externs(model.queue_mask);
        let mut soft = Soft::new(&model);
        let mut card = Card::new(&model);
        let mut filtered = 0;
        for number in 0..count() / LISTS / 4 {
            let frame = frames::frame(&mut rng, &model);
            let verdict = soft.classify(&frame);
            let fate = card.classify(&frame);
            machine.process(&frame, 0, &mut externs);
            let of = whose(&frame);
            let common = of.is_some_and(|of| !of.icmp && !of.too_deep);
            if !common || matches!(verdict, Verdict::Flow(..)) {
                // Told about in the other tests. Of a flow that the card does not have the filter is asked.
                filtered = card.counter(counter::FILTERED);
                continue;
            }
            let expected = match fate {
                Fate::Netdev => Verdict::Kernel,
                Fate::Dropped => Verdict::Drop,
                Fate::Exception => Verdict::Exception,
            };
            let label = || {
                format!(
                    "list {list} {:?}, frame {number}: {}",
                    model.filter,
                    hex(&frame)
                )
            };
            assert_eq!(verdict, expected, "software and card, {}", label());
            assert_eq!(p4_verdict(&machine), expected, "P4 and card, {}", label());
            let sound = parse(&RxFrame::contiguous(&frame, RxChecksum::Unverified)).is_ok();
            let by_filter = sound && verdict == Verdict::Drop;
            filtered += u64::from(by_filter);
            assert_eq!(card.counter(counter::FILTERED), filtered, "{}", label());
            refused += u32::from(by_filter);
            let_in += u32::from(verdict == Verdict::Exception);
        }
    }
    assert!(
        refused > count() / 400 && let_in > count() / 400,
        "{refused} refused, {let_in} let in"
    );
}
