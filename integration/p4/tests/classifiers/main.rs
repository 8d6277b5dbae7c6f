//! One classifier in four languages, held against one another on the same frames: the P4 program in the interpreter, the
//! software NIC in Rust, the XDP program in the kernel, and the twin of the card's BPF program in the kernel.
//!
//! | frame | software NIC | P4 program | `steer.c` | `steer_hw.c` |
//! |---|---|---|---|---|
//! | not for an owned address and port, nor about a segment from there | (not shown to it) | kernel | pass | leave |
//! | of an excluded connection | silence | kernel | excluded | leave |
//! | ours, malformed or filtered | drop | drop | redirect | a queue |
//! | ours, of no installed flow | exception | exception, at the queue of its Toeplitz hash | redirect | the queue of its folded hash |
//! | of an installed flow | fast path, or an exception that gives it back | Micro-C, at the flow's queue | redirect | the flow's queue |
//!
//! Where they differ on purpose:
//!
//! - the BPF programs look at addresses and ports alone: what is malformed is found above them;
//! - the card's two programs follow 64 bytes of IPv6 extension headers; a frame with more is the kernel's there;
//! - the card's MAC knows no ICMP checksum: the host verifies it, when it gets the exception.

#[cfg(feature = "firmware")]
mod card;
mod frames;
#[cfg(feature = "firmware")]
mod micro_c;
mod model;
mod soft;
mod whose;

use std::io::{self, Write as _};
use std::path::Path;

use flextcp_nic::nic::Reason;
use flextcp_nic::port::xdp::trial::{HARDWARE_BUCKETS, HardwareTrial, Steered, Trial};
use flextcp_nic::port::{RxChecksum, RxFrame};
use flextcp_nic::steer::{MICROSOFT_KEY, spread, toeplitz};
use flextcp_nic::wire::{Packet as Parsed, TcpFlags, parse};
use flextcp_p4::{Machine, Outcome, Packet, Program, Tables};

use model::{Model, Owner, Rng, queue_of};
use soft::{Soft, Verdict};
use whose::{Whose, whose};

const KERNEL_PORT: u16 = 0x300;
const CORE0_PORT: u16 = 0x301;

// metadata.verdict and metadata.hints of fx_headers.p4.
const FX_KERNEL: u64 = 0;
const FX_DROP: u64 = 1;
const FX_EXCEPTION: u64 = 2;
const FX_FLOW: u64 = 3;
const FX_HINT_IP_OPTIONS: u64 = 1;
const FX_HINT_FLAGS: u64 = 2;
const FX_HINT_TIMESTAMPS: u64 = 4;
const FX_HINT_TCP_OPTIONS: u64 = 8;
const FX_HINT_ICMP: u64 = 16;

fn firmware() -> Program {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../flextcp-nic/firmware/p4/fx_main.p4");
    Program::from_file(&path).unwrap_or_else(|refusal| panic!("{refusal}"))
}

/// What stands for the card's MAC and for Micro-C: `fx_rx` leaves the verdict as it is.
fn externs(mask: u32) -> impl FnMut(&str, &mut Packet<'_>) {
    move |name: &str, packet: &mut Packet<'_>| match name {
        "fx_checksum" => {
            let bad = checksum_is_bad(packet);
            packet.set("bad_checksum", bad.into());
        }
        "fx_rss" => {
            let hash = toeplitz(&MICROSOFT_KEY, &tuple_of(packet));
            packet.set("queue", u64::from(hash & mask));
        }
        _ => assert_eq!(name, "fx_rx"),
    }
}

fn tuple_of(packet: &Packet<'_>) -> flextcp_nic::flow::FlowTuple {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    let word = |name: &str| packet.get(name) as u32;
    let address = |end: &str| -> IpAddr {
        if word("family") == 4 {
            return Ipv4Addr::from_bits(word(&format!("{end}0"))).into();
        }
        let bits = (0..4).fold(0u128, |bits, index| {
            bits << 32 | u128::from(word(&format!("{end}{index}")))
        });
        Ipv6Addr::from_bits(bits).into()
    };
    let ports = word("ports");
    flextcp_nic::flow::FlowTuple {
        local: (address("local"), (ports >> 16) as u16),
        remote: (address("remote"), ports as u16),
    }
}

/// The checksums of the IPv4 header and of TCP, as the card's MAC verifies them.
fn checksum_is_bad(packet: &Packet<'_>) -> bool {
    let frame = packet.frame;
    let at = |name: &str| packet.get(name) as usize;
    let (l3, l4, len) = (at("l3_offset"), at("l4_offset"), at("l4_length"));
    let transport = &frame[l4..l4 + len];
    let length = (len as u32).to_be_bytes();
    let pseudo = if packet.is_valid("hdr.ipv4") {
        if frames::sum(&[&frame[l3..l4]]) != 0xffff {
            return true;
        }
        [&frame[l3 + 12..l3 + 20], &[0, frames::TCP], &length[2..]].concat()
    } else {
        let addresses = &frame[l3 + 8..l3 + 40];
        [addresses, &length, &[0, 0, 0, frames::TCP]].concat()
    };
    packet.is_valid("hdr.tcp") && frames::sum(&[&pseudo, transport]) != 0xffff
}

/// What the P4 program says, in the software NIC's words.
fn p4_verdict(machine: &Machine<'_>) -> Verdict {
    let word = |name: &str| machine.metadata(name).expect("the firmware has this word");
    match word("verdict") {
        FX_KERNEL => Verdict::Kernel,
        FX_DROP => Verdict::Drop,
        FX_EXCEPTION => Verdict::Exception,
        FX_FLOW => Verdict::Flow(word("flow") as usize, None),
        other => panic!("the program gave the verdict {other}"),
    }
}

/// The verdict on the card for a frame that the software NIC gives `verdict`.
fn on_the_card(verdict: Verdict, of: Option<Whose>) -> Verdict {
    match verdict {
        _ if of.is_some_and(|of| of.too_deep) => Verdict::Kernel,
        Verdict::Flow(index, _) => Verdict::Flow(index, None),
        other => other,
    }
}

/// The frame with a sound ICMP checksum, if it is an ICMP error that has a wrong one.
fn with_icmp_checksum(frame: &[u8], of: Option<Whose>) -> Option<Vec<u8>> {
    if !of.is_some_and(|of| of.icmp) {
        return None;
    }
    let mut repaired = frame.to_vec();
    frames::repair(&mut repaired);
    // The IPv4 header's checksum is the MAC's business: it stays as it was.
    let network = if frame[12..14] == [0x81, 0x00] {
        18
    } else {
        14
    };
    let ipv4 = frame[network - 2..network] == [0x08, 0x00];
    if ipv4 {
        repaired[network + 10..network + 12].copy_from_slice(&frame[network + 10..network + 12]);
    }
    (repaired != frame).then_some(repaired)
}

#[derive(Debug, Default)]
struct Tally {
    kernel: u32,
    dropped: u32,
    exceptions: u32,
    flows: u32,
    icmp: u32,
    too_deep: u32,
    truncated: u32,
    fast: u32,
}

impl Tally {
    fn add(&mut self, verdict: Verdict, of: Option<Whose>, outcome: &Outcome) {
        match verdict {
            Verdict::Kernel => self.kernel += 1,
            Verdict::Drop => self.dropped += 1,
            Verdict::Exception => self.exceptions += 1,
            Verdict::Flow(_, reason) => {
                self.flows += 1;
                self.fast += u32::from(reason.is_none());
            }
        }
        if verdict != Verdict::Kernel {
            self.icmp += u32::from(of.is_some_and(|of| of.icmp));
        }
        self.too_deep += u32::from(of.is_some_and(|of| of.too_deep));
        self.truncated += u32::from(outcome.truncated);
    }

    /// A comparison of frames that are all alike would prove little.
    fn assert_mixed(&self, frames: u32) {
        let Self {
            kernel,
            dropped,
            exceptions,
            flows,
            icmp,
            too_deep,
            truncated,
            fast,
        } = *self;
        for (what, count, per_10k) in [
            ("the kernel's", kernel, 1000),
            ("dropped", dropped, 500),
            ("exceptions", exceptions, 300),
            ("of flows", flows, 500),
            ("fast path", fast, 50),
            ("ICMP errors", icmp, 50),
            ("too deep", too_deep, 5),
            ("truncated", truncated, 200),
        ] {
            assert!(count >= frames / 10_000 * per_10k, "{what}: {self:?}");
        }
    }
}

fn count() -> u32 {
    if std::env::var_os("FLEXTCP_FULL").is_some_and(|value| value == "1") {
        2_000_000
    } else {
        100_000
    }
}

/// One for all tests: all classifiers see the same frames.
fn seed() -> u64 {
    static SEED: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    *SEED.get_or_init(new_seed)
}

fn new_seed() -> u64 {
    let seed = std::env::var("FLEXTCP_TEST_SEED").ok();
    let seed = seed.map(|text| text.parse().expect("FLEXTCP_TEST_SEED is a number"));
    let seed = seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now();
        let since = now.duration_since(std::time::UNIX_EPOCH);
        u64::from(since.map_or(1, |since| since.subsec_nanos()))
    });
    println!("FLEXTCP_TEST_SEED={seed}");
    seed
}

fn hex(frame: &[u8]) -> String {
    frame.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_p4_program_classifies_as_the_software_nic_does() {
    let model = Model::new();
    let program = firmware();
    let tables = Tables::from_json(&program, &model.p4_rules()).unwrap();
    let mut machine = Machine::new(&program, &tables);
    let mut externs = externs(model.queue_mask);
    let mut soft = Soft::new(&model);
    let mut rng = Rng::new(seed());
    let mut tally = Tally::default();
    for number in 0..count() {
        let frame = frames::frame(&mut rng, &model);
        let of = whose(&frame);
        let verdict = soft.classify(&frame);
        let outcome = machine.process(&frame, 0, &mut externs);
        let label = || format!("frame {number}: {}", hex(&frame));
        tally.add(verdict, of, &outcome);

        let expected = match with_icmp_checksum(&frame, of) {
            Some(repaired) => soft.classify(&repaired),
            None => verdict,
        };
        let expected = on_the_card(expected, of);
        let malformed = machine.metadata("malformed");
        assert_eq!(
            p4_verdict(&machine),
            expected,
            "malformed {malformed:?}, {}",
            label()
        );
        assert_eq!(outcome.undefined_reads, 0, "{}", label());
        check_outcome(&machine, &outcome, &frame, expected, of, &model)
            .unwrap_or_else(|what| panic!("{what}, {}", label()));
        check_hints(&machine, &frame, verdict).unwrap_or_else(|what| panic!("{what}, {}", label()));
    }
    tally.assert_mixed(count());
    println!("{tally:?}");
}

/// The port a frame leaves by, and that it leaves as it came.
fn check_outcome(
    machine: &Machine<'_>,
    outcome: &Outcome,
    frame: &[u8],
    verdict: Verdict,
    of: Option<Whose>,
    model: &Model,
) -> Result<(), String> {
    let queue = machine.metadata("queue").unwrap_or_default();
    let egress = match (verdict, of) {
        (Verdict::Kernel, _) => Some(KERNEL_PORT),
        (Verdict::Exception, Some(of)) => {
            let hash = toeplitz(&MICROSOFT_KEY, &of.tuple) & model.queue_mask;
            Some(CORE0_PORT + hash as u16)
        }
        (Verdict::Flow(index, _), _) if queue != u64::from(queue_of(index)) => {
            return Err(format!("queue {queue}"));
        }
        _ => None,
    };
    if outcome.egress != egress {
        return Err(format!("leaves by {:?}, not {egress:?}", outcome.egress));
    }
    if outcome.egress.is_some() && outcome.frame != frame {
        return Err("the frame changed on its way".to_owned());
    }
    Ok(())
}

/// What Micro-C need not find out again.
fn check_hints(machine: &Machine<'_>, frame: &[u8], verdict: Verdict) -> Result<(), String> {
    if p4_verdict(machine) == Verdict::Kernel || p4_verdict(machine) == Verdict::Drop {
        return Ok(());
    }
    let word = |name: &str| machine.metadata(name).unwrap_or_default();
    let hints = word("hints");
    let parsed = parse(&RxFrame::contiguous(frame, RxChecksum::Unverified));
    let Ok(Parsed::Tcp(tcp)) = parsed else {
        return if hints & FX_HINT_ICMP == 0 {
            Err("no hint that this is no segment".to_owned())
        } else {
            Ok(())
        };
    };
    let common = TcpFlags::ACK | TcpFlags::PSH | TcpFlags::ECE | TcpFlags::CWR;
    let flags = tcp.tcp.flags;
    let uncommon = !flags.contains(TcpFlags::ACK) || !flags.without(common).is_empty();
    let mut expected = 0;
    expected |= if tcp.ip_options {
        FX_HINT_IP_OPTIONS
    } else {
        0
    };
    expected |= if uncommon { FX_HINT_FLAGS } else { 0 };
    let options = &frame[word("l4_offset") as usize + 20..tcp.payload_offset];
    expected |= match options {
        [] => 0,
        [1, 1, 8, 10, _, _, _, _, _, _, _, _] => FX_HINT_TIMESTAMPS,
        _ => FX_HINT_TCP_OPTIONS,
    };
    if hints != expected {
        return Err(format!("hints {hints:#x}, not {expected:#x}"));
    }
    let payload = (
        word("payload_offset") as usize,
        word("payload_length") as usize,
    );
    if payload != (tcp.payload_offset, tcp.payload_len) {
        return Err(format!("payload at {payload:?}"));
    }
    // The two reasons that need no state are the fast path's first.
    if let Verdict::Flow(_, reason) = verdict {
        let is = |of: Reason| reason == Some(of);
        let options = hints & FX_HINT_IP_OPTIONS != 0;
        if is(Reason::IpOptions) != options
            || (!options && is(Reason::Flags) != (hints & FX_HINT_FLAGS != 0))
        {
            return Err(format!("hints {hints:#x}, but {reason:?}"));
        }
    }
    Ok(())
}

/// Runs `test` with what needs privileges, or says loudly that it is skipped.
fn privileged<T>(made: io::Result<T>) -> Option<T> {
    match made {
        Ok(made) => Some(made),
        Err(error)
            if error.raw_os_error() == Some(1)
                || error.kind() == io::ErrorKind::PermissionDenied =>
        {
            let required = std::env::var_os("FLEXTCP_REQUIRE_PRIVILEGED").is_some_and(|v| v == "1");
            assert!(
                !required,
                "loading BPF programs needs CAP_BPF and CAP_NET_ADMIN"
            );
            // Past libtest's capture; a closed stderr must not fail a skipped test.
            let why = "SKIPPED: loading BPF programs needs CAP_BPF and CAP_NET_ADMIN";
            let _ = writeln!(io::stderr(), "{why}");
            None
        }
        Err(error) => panic!("loading a BPF program: {error}"),
    }
}

/// The shortest frame that the kernel runs a program on.
const SHORTEST: usize = 14;

#[test]
fn the_xdp_program_classifies_as_the_software_nic_does() {
    let model = Model::new();
    let Some(mut xdp) = privileged(Trial::new()) else {
        return;
    };
    for (address, _) in &model.owned {
        xdp.steering().own(*address).unwrap();
    }
    for flow in &model.excluded {
        xdp.steering().exclude(*flow).unwrap();
    }
    let mut soft = Soft::new(&model);
    let mut rng = Rng::new(seed());
    let mut seen = [0; 3];
    for number in 0..count() {
        let frame = frames::frame(&mut rng, &model);
        let verdict = soft.classify(&frame);
        if frame.len() < SHORTEST {
            assert_eq!(verdict, Verdict::Kernel);
            continue;
        }
        let excluded = whose(&frame)
            .is_some_and(|of| model.is_owned(of.tuple.local) && model.excluded.contains(&of.tuple));
        let expected = match verdict {
            Verdict::Kernel if excluded => Steered::Excluded,
            Verdict::Kernel => Steered::Passed,
            Verdict::Drop | Verdict::Exception | Verdict::Flow(..) => Steered::Redirected,
        };
        seen[expected as usize] += 1;
        let steered = xdp.run(&frame).unwrap();
        assert_eq!(steered, expected, "frame {number}: {}", hex(&frame));
    }
    assert!(seen.iter().all(|seen| *seen > count() / 100), "{seen:?}");
}

/// Ethernet with a tag, IPv6 with 64 bytes of extensions, ICMP, and the ports that it quotes.
const FURTHEST: usize = 18 + 40 + 64 + 8 + 40 + 4;

#[test]
fn the_cards_bpf_program_steers_as_the_tables_say() {
    let model = Model::new();
    let Some(mut card) = privileged(HardwareTrial::new()) else {
        return;
    };
    let queue_of_bucket = |bucket: u32| (bucket * 5 % 11) as u8;
    for bucket in 0..HARDWARE_BUCKETS {
        card.set_queue(bucket, queue_of_bucket(bucket)).unwrap();
    }
    for (address, _) in &model.owned {
        card.own(*address).unwrap();
    }
    for (index, flow) in model.flows.iter().enumerate() {
        card.steer(flow, Some(queue_of(index))).unwrap();
    }
    for flow in &model.excluded {
        card.steer(flow, None).unwrap();
    }
    let mut rng = Rng::new(seed());
    let mut seen = [0; 3];
    for number in 0..count() {
        let frame = frames::frame(&mut rng, &model);
        if frame.len() < SHORTEST {
            continue;
        }
        let expected = match whose(&frame) {
            Some(of) if of.too_deep || !model.is_owned(of.tuple.local) => None,
            Some(of) if model.excluded.contains(&of.tuple) => {
                seen[0] += 1;
                None
            }
            Some(of) => {
                let flow = model.flows.iter().position(|flow| *flow == of.tuple);
                seen[1 + usize::from(flow.is_some())] += 1;
                let bucket = spread(&of.tuple) % HARDWARE_BUCKETS;
                Some(flow.map_or_else(|| queue_of_bucket(bucket), queue_of))
            }
            None => None,
        };
        let queue = card.run(&frame).unwrap();
        assert_eq!(queue, expected, "frame {number}: {}", hex(&frame));
        // The driver refuses a program that may look beyond the part of a frame that the card keeps close.
        let start = &frame[..frame.len().min(FURTHEST)];
        assert_eq!(
            card.run(start).unwrap(),
            queue,
            "frame {number}: {}",
            hex(&frame)
        );
    }
    assert!(seen.iter().all(|seen| *seen > count() / 100), "{seen:?}");
}

#[test]
fn what_the_host_sends_leaves_by_the_wire_with_a_command_for_the_mac() {
    let model = Model::new();
    let program = firmware();
    let tables = Tables::from_json(&program, &model.p4_rules()).unwrap();
    let mut machine = Machine::new(&program, &tables);
    let mut rng = Rng::new(seed());
    for _ in 0..1000 {
        let frame = frames::frame(&mut rng, &model);
        let outcome = machine.process(&frame, CORE0_PORT, &mut externs(0));
        assert_eq!(outcome.egress, Some(0));
        // The second bit: the MAC fills in the TCP checksum.
        let sent = [&[0x40, 0, 0, 0], &frame[..]].concat();
        assert_eq!(outcome.frame, sent);
        // A function that nobody made a rule for gets nothing out.
        let outcome = machine.process(&frame, 0x3ff, &mut externs(0));
        assert_eq!(outcome.egress, None);
    }
}

/// The comparison notices a wrong table: a test of the test.
#[test]
fn a_planted_fault_is_noticed() {
    let model = Model::new();
    let program = firmware();
    let mut rules = model.p4_rules();
    let listeners = &mut rules["tables"]["ingress::listeners_any"]["rules"];
    listeners.as_array_mut().unwrap().remove(0);
    let tables = Tables::from_json(&program, &rules).unwrap();
    let mut machine = Machine::new(&program, &tables);
    let mut soft = Soft::new(&model);
    let mut rng = Rng::new(seed());
    let noticed = (0..10_000).any(|_| {
        let frame = frames::frame(&mut rng, &model);
        let of = whose(&frame);
        machine.process(&frame, 0, &mut externs(model.queue_mask));
        on_the_card(soft.classify(&frame), of) == Verdict::Exception
            && p4_verdict(&machine) == Verdict::Kernel
    });
    assert!(noticed);
    assert!(
        model
            .owned
            .iter()
            .any(|(_, owner)| *owner == Owner::Connection)
    );
}
