//! Bulk throughput under steady loss, between two hosts on a wire without delay: what recovery costs the processor.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant as Wall};

use flextcp_nic::time::Instant;
use flextcp_nic::wire::MacAddr;
use flextcp_rt::lab::{Lab, LabConfig, SocketId, Status};
use flextcp_rt::metrics::Stats;
use flextcp_rt::tcp::EngineConfig;

const CHUNK: usize = 256 << 10;

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn chance(&mut self, per_mille: u64) -> bool {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % 1000 < per_mille
    }
}

/// Two hosts and the wire between them; time is the machine's.
struct Pair {
    hosts: [Lab; 2],
    ends: [SocketId; 2],
    loss: u64,
    rng: Rng,
    start: Wall,
}

/// What a transfer took.
struct Run {
    time: Duration,
    sender: Stats,
    receiver: Stats,
}

impl Pair {
    fn new(congestion: &'static str, seed: u64) -> Self {
        let host = |last: u8| {
            Lab::new(LabConfig {
                seed: seed + u64::from(last),
                addresses: vec![IpAddr::from([10, 0, 0, last])],
                mac: MacAddr([2, 0, 0, 0, 0, last]),
                gateway: MacAddr([2, 0, 0, 0, 0, 3 - last]),
                engine: EngineConfig {
                    congestion,
                    ..EngineConfig::default()
                },
                ..LabConfig::default()
            })
        };
        let mut hosts = [host(1), host(2)];
        let local = SocketAddr::from(([10, 0, 0, 2], 80));
        let listener = hosts[1].socket();
        hosts[1].bind(listener, local).unwrap();
        hosts[1].listen(listener, 4).unwrap();
        let client = hosts[0].socket();
        hosts[0].connect(client, local).unwrap();
        let mut pair = Self {
            hosts,
            ends: [client; 2],
            loss: 0,
            rng: Rng(seed),
            start: Wall::now(),
        };
        while pair.hosts[0].status(client) != Status::Connected {
            pair.turn();
        }
        pair.ends[1] = loop {
            pair.turn();
            if let Ok((socket, _)) = pair.hosts[1].accept(listener) {
                break socket;
            }
        };
        pair
    }

    fn now(&self) -> Instant {
        // Never zero: the hosts' epoch is long over.
        Instant::from_nanos(1_000_000_000 + self.start.elapsed().as_nanos() as u64)
    }

    /// A turn of each host; what they send is lost or at the other's door.
    fn turn(&mut self) {
        for from in 0..2 {
            let now = self.now();
            self.hosts[from].poll(now);
            while let Some(frame) = self.hosts[from].take_frame() {
                if !self.rng.chance(self.loss) {
                    self.hosts[1 - from].inject_owned(frame);
                }
            }
        }
    }

    fn transfer(&mut self, len: usize) -> Duration {
        let began = Wall::now();
        let data = vec![5; CHUNK];
        let mut buf = vec![0; CHUNK];
        let (mut sent, mut got) = (0, 0);
        let [client, server] = self.ends;
        while got < len {
            if sent < len {
                let n = CHUNK.min(len - sent);
                sent += self.hosts[0].write(client, &data[..n]).unwrap_or(0);
            }
            self.turn();
            got += self.hosts[1].read(server, &mut buf).unwrap_or(0);
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "{got} of {len} in a minute"
            );
        }
        began.elapsed()
    }
}

fn run(congestion: &'static str, loss: u64, len: usize, seed: u64) -> Run {
    let mut pair = Pair::new(congestion, seed);
    pair.transfer(1 << 20);
    pair.loss = loss;
    let time = pair.transfer(len);
    Run {
        time,
        sender: pair.hosts[0].stats(),
        receiver: pair.hosts[1].stats(),
    }
}

fn median<T: PartialOrd>(mut values: Vec<T>) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).expect("no time is not a number"));
    values.swap_remove(values.len() / 2)
}

/// Rounds with and without loss alternate, and pairs are compared. What is to be caught is a sender that sits out
/// timeouts, or a flow that stays off the NIC: that left 3 %. `FLEXTCP_FULL=1` measures longer.
#[test]
fn one_per_cent_of_loss_costs_little_throughput() {
    let full = std::env::var_os("FLEXTCP_FULL").is_some();
    let (len, rounds) = if full { (256 << 20, 7) } else { (32 << 20, 5) };
    for congestion in ["cubic", "bbr"] {
        let (mut ratios, mut timeouts) = (Vec::new(), Vec::new());
        let (mut fast, mut frames) = (0, 0);
        for seed in 0..rounds {
            let clean = run(congestion, 0, len, seed).time;
            let lossy = run(congestion, 10, len, seed);
            ratios.push(clean.as_secs_f64() / lossy.time.as_secs_f64());
            timeouts.push(lossy.sender.recovery.timeouts);
            for stats in [&lossy.sender, &lossy.receiver] {
                let on_nic = stats.fast_path.frames_in + stats.fast_path.frames_out;
                fast += on_nic;
                frames += on_nic + stats.slow_path.frames_in + stats.slow_path.frames_out;
            }
        }
        println!(
            "{congestion}: {ratios:.2?} of what passes without loss, {timeouts:?} timeouts, {:.0} % of frames on the NIC",
            fast as f64 / frames as f64 * 100.0,
        );
        let typical = median(ratios);
        assert!(typical >= 0.15, "{congestion}: {typical:.2}");
        assert!(median(timeouts) <= 1, "{congestion} sits out timeouts");
        // BBR's window holds several losses at a time: it is nearly always repairing one.
        let on_nic = fast * 2 > frames || congestion == "bbr";
        assert!(on_nic, "{congestion}: {fast} of {frames} frames on the NIC");
    }
}
