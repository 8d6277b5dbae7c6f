//! The P4 program with the card's Micro-C as its externs, against the software NIC: not only whose a frame is, but what
//! becomes of it, for the same reason.

use std::path::Path;

use flextcp_nic::nic::Reason;
use flextcp_nic::queue::action::{self, CardFlow, METADATA_WORDS};
use flextcp_nic::steer::{MICROSOFT_KEY, toeplitz};
use flextcp_p4::{Externs, Machine, Packet, Tables};

use super::model::{Model, Rng, queue_of};
use super::soft::{Soft, Verdict};
use super::whose::whose;
use super::{
    CORE0_PORT, FX_EXCEPTION, checksum_is_bad, count, firmware, frames, hex, on_the_card, seed,
    with_icmp_checksum,
};

const FX_CONSUMED: u64 = 4;
const GENERATION: u32 = 1;

/// The card's C, with its flow table.
struct MicroC<'a> {
    words: &'a [String],
    flows: Vec<CardFlow>,
    mask: u32,
    /// Index of the flow of the last frame, and why it was an exception.
    acted: Option<(usize, Option<Reason>)>,
}

impl MicroC<'_> {
    fn load(&self, packet: &Packet<'_>) -> [u32; METADATA_WORDS] {
        let mut metadata = [0; METADATA_WORDS];
        for (word, name) in metadata.iter_mut().zip(self.words) {
            *word = packet.get(name) as u32;
        }
        metadata
    }
}

impl Externs for MicroC<'_> {
    fn call(&mut self, name: &str, packet: &mut Packet<'_>) {
        let mut metadata = self.load(packet);
        match name {
            "fx_checksum" => {
                let bad = action::checksum_is_bad(&metadata, packet.frame);
                assert_eq!(bad, checksum_is_bad(packet), "{}", hex(packet.frame));
                packet.set("bad_checksum", bad.into());
            }
            "fx_rss" => {
                let hash = action::hash(&metadata, &MICROSOFT_KEY);
                packet.set("queue", u64::from(hash & self.mask));
            }
            "fx_rx" => {
                let index = packet.get("flow") as usize;
                let reason = self.flows[index].action(&mut metadata, packet.frame);
                for (name, word) in self.words.iter().zip(metadata) {
                    packet.set(name, word.into());
                }
                self.acted = Some((index, reason));
            }
            other => panic!("the program has no extern {other}"),
        }
    }
}

#[test]
fn p4_with_micro_c_does_what_the_software_nic_does() {
    let model = Model::new();
    let program = firmware();
    let words: Vec<String> = program.metadata().map(str::to_owned).collect();
    assert_eq!(words.len(), METADATA_WORDS);
    let tables = Tables::from_json(&program, &model.p4_rules()).unwrap();
    let mut machine = Machine::new(&program, &tables);
    let mut soft = Soft::new(&model);
    let install = |soft: &Soft<'_>, index| {
        CardFlow::install(&soft.state(index), GENERATION).expect("the state is sound")
    };
    let mut micro_c = MicroC {
        words: &words,
        flows: (0..model.flows.len())
            .map(|index| install(&soft, index))
            .collect(),
        mask: model.queue_mask,
        acted: None,
    };
    let mut rng = Rng::new(seed());
    let mut taken = 0;
    let mut reasons = [0; Reason::ALL.len()];
    for number in 0..count() {
        let frame = frames::frame(&mut rng, &model);
        let of = whose(&frame);
        // What the card's MAC does not look at is made good before both see it.
        let frame = with_icmp_checksum(&frame, of).unwrap_or(frame);
        let expected = soft.classify(&frame);
        micro_c.acted = None;
        let outcome = machine.process(&frame, 0, &mut micro_c);
        let label = || format!("frame {number}: {}", hex(&frame));

        let Verdict::Flow(index, reason) = expected else {
            if on_the_card(expected, of) == Verdict::Exception {
                let of = of.expect("an exception is somebody's");
                let queue = toeplitz(&MICROSOFT_KEY, &of.tuple) & model.queue_mask;
                assert_eq!(
                    outcome.egress,
                    Some(CORE0_PORT + queue as u16),
                    "{}",
                    label()
                );
            }
            assert_eq!(micro_c.acted, None, "{}", label());
            continue;
        };
        if on_the_card(expected, of) == Verdict::Kernel {
            // Too deep for the card. The software NIC's side may have moved on: start both anew.
            assert_eq!(micro_c.acted, None, "{}", label());
            soft.reinstall(index);
            micro_c.flows[index] = install(&soft, index);
            continue;
        }
        assert_eq!(micro_c.acted, Some((index, reason)), "{}", label());
        let verdict = machine.metadata("verdict").unwrap_or_default();
        match reason {
            None => {
                taken += 1;
                assert_eq!(
                    (verdict, outcome.egress),
                    (FX_CONSUMED, None),
                    "{}",
                    label()
                );
                assert!(micro_c.flows[index].is_nic_owned());
            }
            Some(reason) => {
                reasons[reason.index()] += 1;
                let port = CORE0_PORT + u16::from(queue_of(index));
                assert_eq!(
                    (verdict, outcome.egress),
                    (FX_EXCEPTION, Some(port)),
                    "{}",
                    label()
                );
                assert_eq!(outcome.frame, frame, "{}", label());
                // The next frame of it would be the host's.
                assert!(!micro_c.flows[index].is_nic_owned());
                machine.process(&frame, 0, &mut micro_c);
                let host_owned = Some(Reason::HostOwned);
                assert_eq!(micro_c.acted, Some((index, host_owned)), "{}", label());
                micro_c.flows[index] = install(&soft, index);
            }
        }
    }
    println!("taken {taken}, exceptions {reasons:?}");
    assert!(taken > count() / 100, "{taken}");
    for reason in [
        Reason::Flags,
        Reason::OutOfOrder,
        Reason::DuplicateAck,
        Reason::ZeroWindow,
        Reason::Icmp,
        Reason::Sack,
        Reason::Paws,
        Reason::AckOutOfWindow,
        Reason::Options,
        Reason::IpOptions,
    ] {
        assert!(reasons[reason.index()] > 0, "no {}", reason.name());
    }
}

/// The indices and values that the C header repeats are those of the P4 files.
#[test]
fn the_c_header_has_the_p4_files_words_and_values() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../flextcp-nic/firmware/p4");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let defines = |text: &str| -> Vec<(String, u32)> {
        text.lines()
            .filter_map(|line| {
                let mut words = line.strip_prefix("#define FX_")?.split_whitespace();
                let name = words.next()?.to_owned();
                let value = words.next()?.trim_end_matches('u').parse().ok()?;
                Some((name, value))
            })
            .collect()
    };
    let p4 = defines(&read("fx_headers.p4"));
    let words: Vec<String> = firmware().metadata().map(str::to_owned).collect();
    let header = defines(&read("fx_plugin.h"));
    assert!(header.len() > 20);
    for (name, value) in header {
        match name.strip_prefix("META_") {
            Some("WORDS") => assert_eq!(value as usize, words.len()),
            Some(word) => assert_eq!(words.get(value as usize).map(String::as_str), Some(word)),
            None => assert!(p4.contains(&(name.clone(), value)), "FX_{name}"),
        }
    }
}
