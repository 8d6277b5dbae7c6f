//! Hosts, their links and their engines.

use std::time::Duration;

use flextcp_rt::offload::OffloadPolicy;
use flextcp_rt::tcp::{Ecn, EngineConfig};

use super::{HostPlan, LinkClass, Rng, link};

/// Congestion control of engines and sockets.
pub(super) const CONGESTION: [&str; 5] = ["cubic", "cubic", "reno", "dctcp", "bbr"];
/// Largest packet of a segmentation offload, as on veth and `lo`.
const SUPER_FRAME: u32 = 65_535;

pub(super) fn hosts(rng: &mut Rng) -> Vec<HostPlan> {
    let count = rng.pick(&[2, 2, 2, 2, 3, 3, 4]);
    (0..count)
        .map(|host| {
            // The server's link is a good one most of the time, so that each client sees its own.
            let class = match host {
                0 if rng.chance(0.6) => LinkClass::Wire,
                _ => rng.pick(&LinkClass::ALL),
            };
            let (up, down) = link(class, rng);
            let mtu = match rng.below(20) {
                0 => 9_000,
                1 => 1_280,
                2 => rng.range(1_280..=1_500) as u32,
                _ => 1_500,
            };
            HostPlan {
                class,
                up,
                down,
                mtu,
                path_mtu: mtu,
                silent: rng.chance(0.15),
                segmentation: rng.chance(0.3).then_some(SUPER_FRAME),
                tick: Duration::from_nanos(
                    rng.pick(&[1, 1, 1, 1, 1_000, 1_000_000, 4_000_000, 10_000_000]),
                ),
                epoch: rng.time(Duration::from_secs(1)..=Duration::from_secs(100_000_000)),
                engine: engine(rng, class),
                memory: match rng.below(20) {
                    0 => 1 << 20,
                    1 => 256 << 10,
                    _ => 1 << 30,
                },
                backlog: rng.pick(&[1, 4, 128, 128, 1_024]),
                accept_pause: match rng.below(10) {
                    0 => rng.time(Duration::from_millis(1)..=Duration::from_millis(800)),
                    _ => Duration::ZERO,
                },
            }
        })
        .collect()
}

/// Some ways are narrower than their first link, down to `least`.
pub(super) fn narrow(rng: &mut Rng, hosts: &mut [HostPlan], least: u64) {
    for host in hosts {
        if rng.chance(0.12) {
            host.path_mtu = rng.range(least..=u64::from(host.mtu)) as u32;
        }
    }
}

fn engine(rng: &mut Rng, class: LinkClass) -> EngineConfig {
    let offload = match rng.below(4) {
        0 => OffloadPolicy::Never,
        1 => OffloadPolicy::Random(rng.next()),
        _ => OffloadPolicy::Always,
    };
    let recv_buffer_initial = match rng.below(4) {
        0 => rng.magnitude(4_096..=64 << 10) as u32,
        _ => 64 << 10,
    };
    EngineConfig {
        offload,
        window_scaling: rng.chance(0.93),
        timestamps: rng.chance(0.85),
        sack: rng.chance(0.9),
        recv_buffer_initial,
        recv_buffer_max: rng
            .pick(&[6 << 20, 6 << 20, 1 << 20, 256 << 10])
            .max(recv_buffer_initial),
        send_buffer_initial: rng.magnitude(4 << 10..=256 << 10) as u32,
        send_buffer_max: rng.magnitude(16 << 10..=16 << 20) as u32,
        congestion: match class {
            // What a switch marks for.
            LinkClass::Marking if rng.chance(0.4) => "dctcp",
            _ => rng.pick(&CONGESTION),
        },
        ecn: match class {
            LinkClass::Marking => rng.pick(&[Ecn::Accept, Ecn::Request, Ecn::Request]),
            _ => rng.pick(&[Ecn::Off, Ecn::Accept, Ecn::Accept, Ecn::Request]),
        },
        initial_window: rng.pick(&[10, 10, 10, 1, 4, 64]),
        delayed_ack: Duration::from_millis(rng.pick(&[40, 40, 40, 5, 200])),
        buffer_idle: Duration::from_millis(rng.pick(&[10_000, 10_000, 50])),
        ..EngineConfig::default()
    }
}
