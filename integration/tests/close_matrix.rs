//! The close matrix: every order of write, read, shutdown, drop and reset at either end gives what Linux gives.
//!
//! Each case is a sequence of operations of the two ends, one after the other, followed by a look at what is left.
//! All cases of a round run side by side, on a connection each: first between two Linux kernels, then with ours
//! at one end, at the other, and at both. Every result that an application sees, and which end sent FIN and RST, has
//! to be the same.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use flextcp_nic::port::impair::ImpairConfig;
use integration::netns::{Namespace, require_privileges};
use integration::path::{Path, Watch};
use integration::peer::script::Op;
use integration::process::{Process, serial, wait_until};
use integration::stack::StackKind;
use integration::stats::{STATS_FILE, Stats};

const LIMIT: Duration = Duration::from_secs(30);
/// Connections at once: below the usual limit of descriptors.
const BATCH: usize = 400;
const OPS: [Op; 5] = [Op::Write, Op::Read, Op::Shutdown, Op::Drop, Op::Reset];

/// Operations, each by the end that does it.
type Case = Vec<(usize, Op)>;

/// All sensible sequences of `length` operations.
fn cases(length: usize) -> Vec<Case> {
    let mut all = vec![Case::new()];
    for _ in 0..length {
        let longer = |case: &Case| {
            let mut longer = Vec::new();
            for end in 0..2 {
                for op in OPS {
                    if is_sensible(case, end, op) {
                        longer.push([case.as_slice(), &[(end, op)]].concat());
                    }
                }
            }
            longer
        };
        all = all.iter().flat_map(longer).collect();
    }
    all
}

/// Nothing follows a drop at the same end, nothing is shut down twice, and what changes nothing is left out.
fn is_sensible(case: &Case, end: usize, op: Op) -> bool {
    let done = |wanted: Op| case.contains(&(end, wanted));
    if done(Op::Drop) || done(Op::Reset) {
        return false;
    }
    match op {
        Op::Shutdown => !done(Op::Shutdown),
        Op::Read => case
            .last()
            .is_some_and(|&(last, op)| last != end && op != Op::Read),
        _ => true,
    }
}

fn notation(case: &Case) -> String {
    let names = [['A', 'a'], ['B', 'b']];
    case.iter()
        .map(|&(end, op)| format!("{}{} ", names[end][0], op.letter()))
        .collect()
}

/// A scripted peer at one end.
struct Peer {
    process: Process,
    stats: tempfile::NamedTempFile,
    answers: usize,
}

impl Peer {
    fn start(namespace: &Namespace, stack: StackKind, offload: &str) -> Self {
        let stats = tempfile::NamedTempFile::new().unwrap();
        let mut command = namespace.command(env!("CARGO_BIN_EXE_bench"));
        command.args(["peer", "script", "--stack", stack.name()]);
        command
            .env("FLEXTCP_INTERFACES", Path::DEVICE)
            .env("FLEXTCP_FALLBACK", "deny")
            .env("FLEXTCP_OFFLOAD", offload)
            .env(STATS_FILE, stats.path());
        Self {
            process: Process::spawn(command).unwrap(),
            stats,
            answers: 0,
        }
    }

    fn ask(&mut self, command: &str) -> Vec<String> {
        self.process.send_line(command).unwrap();
        self.answers += 1;
        let line = self.process.wait_nth_line(LIMIT, self.answers - 1).unwrap();
        line.split_whitespace().skip(1).map(str::to_owned).collect()
    }
}

/// What became of each case: every result in order, and who sent FIN and RST.
fn observe(
    path: &Path,
    watch: &Watch,
    stacks: [StackKind; 2],
    offload: &str,
    cases: &[Case],
    quiet: Duration,
) -> Vec<String> {
    let mut peers = [
        Peer::start(&path.a, stacks[0], offload),
        Peer::start(&path.b, stacks[1], offload),
    ];
    let any = SocketAddr::new(path.server_ip(false), 0);
    let address = peers[1].ask(&format!("listen {any}"))[1].clone();
    let mut seen = Vec::new();
    for batch in cases.chunks(BATCH) {
        watch.clear();
        let ports = peers[0].ask(&format!("connect {address} {}", batch.len()));
        peers[1].ask(&format!("accept {}", ports.join(" ")));
        let ports: Vec<u16> = ports.iter().map(|port| port.parse().unwrap()).collect();
        // What was done is on the wire when a peer has answered, but its frames may wait for a busy machine; and what has
        // not been acknowledged brings more of them.
        let settle = || {
            let since = Instant::now();
            wait_until(LIMIT, "the wire to be quiet", || {
                watch.quiet_for().min(since.elapsed()) >= quiet && watch.is_settled(ports.clone())
            })
            .unwrap();
        };
        settle();
        let mut results = vec![String::new(); batch.len()];
        let steps = batch.iter().map(Vec::len).max().unwrap_or(0);
        for step in 0..steps {
            for (end, peer) in peers.iter_mut().enumerate() {
                let acting =
                    batch
                        .iter()
                        .enumerate()
                        .filter_map(|(index, case)| match case.get(step) {
                            Some(&(by, op)) if by == end => Some((index, op)),
                            _ => None,
                        });
                let acting: Vec<_> = acting.collect();
                perform(peer, end, &acting, &mut results);
            }
            settle();
        }
        // What is left: twice, since an error is told once, and a write finds out about the peer.
        for ops in [
            &[Op::Read, Op::Read, Op::Write][..],
            &[Op::Write, Op::Read, Op::Error, Op::Read],
            &[Op::Drop],
        ] {
            for (end, peer) in peers.iter_mut().enumerate() {
                for &op in ops {
                    let all: Vec<_> = (0..batch.len()).map(|index| (index, op)).collect();
                    perform(peer, end, &all, &mut results);
                }
                settle();
            }
        }
        for (index, result) in results.iter_mut().enumerate() {
            let sent = watch.of(ports[index]);
            for (end, sent) in sent.iter().enumerate() {
                let end = ['A', 'B'][end];
                *result += &format!("| {end} fin {} rst {} ", sent.fin > 0, sent.rst > 0);
            }
        }
        seen.append(&mut results);
        for peer in &mut peers {
            peer.ask("forget");
        }
        settle();
    }
    for (peer, stack) in peers.into_iter().zip(stacks) {
        let stats = peer.stats.path().to_owned();
        peer.process.finish(LIMIT).unwrap();
        if stack == StackKind::Flex {
            let stats = Stats::read_lines(&stats).unwrap().remove(0);
            let ours = stats.count("connections.accepted") + stats.count("connections.connected");
            assert_eq!(ours, cases.len() as u64, "kernel sockets in place of ours");
        }
    }
    seen
}

fn perform(peer: &mut Peer, end: usize, acting: &[(usize, Op)], results: &mut [String]) {
    if acting.is_empty() {
        return;
    }
    let words = acting
        .iter()
        .map(|(index, op)| format!(" {index}:{}", op.letter()));
    let answers = peer.ask(&format!("step{}", words.collect::<String>()));
    assert_eq!(answers.len(), acting.len());
    for ((index, op), answer) in acting.iter().zip(answers) {
        results[*index] += &format!("{}{}={answer} ", ['A', 'B'][end], op.letter());
    }
}

/// What ends otherwise with ours than between two kernels, and how.
fn differences(
    cases: &[Case],
    expected: &[String],
    (stacks, offload): ([StackKind; 2], &str),
    observe: impl FnOnce() -> Vec<String>,
) -> Vec<(Case, String)> {
    let ours = observe();
    let stacks = stacks.map(StackKind::name).join(" to ");
    let seen = cases.iter().zip(expected).zip(&ours);
    seen.filter(|((_, expected), ours)| expected != ours)
        .map(|((case, expected), ours)| {
            let text = format!(
                "{}({stacks}, offload {offload})\n  linux {expected}\n  ours  {ours}",
                notation(case)
            );
            (case.clone(), text)
        })
        .collect()
}

/// Runs `cases` between kernels and with ours, and tells where they differ.
fn compare(name: &str, cases: &[Case], lose_fins: bool, variants: &[([StackKind; 2], &str)]) {
    use StackKind::Kernel;
    let watch = Watch::default();
    let path = Path::watched("close", &ImpairConfig::default(), 1500, &watch).unwrap();
    watch.swallow_repeats();
    if lose_fins {
        watch.lose_first_fins();
    }
    // A lost FIN comes again after an RTO, of 200 ms at least.
    let quiet = Duration::from_millis(if lose_fins { 700 } else { 60 });
    let look =
        |stacks, offload, cases: &[Case]| observe(&path, &watch, stacks, offload, cases, quiet);
    let expected = look([Kernel, Kernel], "auto", cases);
    let mut differ = Vec::new();
    for &variant in variants {
        let (stacks, offload) = variant;
        let found = differences(cases, &expected, variant, || look(stacks, offload, cases));
        differ.extend(found);
    }
    println!("{name}: {} cases", cases.len());
    differ.sort_by_key(|(case, _)| case.len());
    let shown: Vec<_> = differ.iter().take(40).map(|(_, text)| &**text).collect();
    assert!(
        differ.is_empty(),
        "{} of {} differ:\n{}",
        differ.len(),
        cases.len() * variants.len(),
        shown.join("\n")
    );
}

const EVERY: [([StackKind; 2], &str); 4] = [
    ([StackKind::Kernel, StackKind::Flex], "auto"),
    ([StackKind::Flex, StackKind::Kernel], "auto"),
    ([StackKind::Kernel, StackKind::Flex], "never"),
    ([StackKind::Flex, StackKind::Flex], "auto"),
];

#[test]
fn every_order_of_up_to_three_operations_ends_as_on_linux() {
    let test = "every_order_of_up_to_three_operations_ends_as_on_linux";
    if !require_privileges(test) {
        return;
    }
    let _serial = serial();
    let all: Vec<_> = (1..=3).flat_map(cases).collect();
    compare(test, &all, false, &EVERY);
}

#[test]
fn every_order_of_four_operations_ends_as_on_linux() {
    let test = "every_order_of_four_operations_ends_as_on_linux";
    if !require_privileges(test) {
        return;
    }
    let _serial = serial();
    compare(test, &cases(4), false, &EVERY[..2]);
}

#[test]
fn a_lost_fin_ends_as_on_linux() {
    let test = "a_lost_fin_ends_as_on_linux";
    if !require_privileges(test) {
        return;
    }
    let _serial = serial();
    let closing = |case: &Case| {
        case.iter()
            .any(|(_, op)| matches!(op, Op::Shutdown | Op::Drop))
    };
    let some = (1..=3).flat_map(cases).filter(closing).step_by(3);
    compare(test, &some.collect::<Vec<_>>(), true, &EVERY[..2]);
}
