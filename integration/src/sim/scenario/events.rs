//! What happens to hosts and their links.

use std::time::Duration;

use super::{HostPlan, LinkClass, NetEvent, Rng, link};

pub(super) fn events(
    rng: &mut Rng,
    hosts: &[HostPlan],
    least_mtu: u64,
    span: Duration,
) -> Vec<(Duration, NetEvent)> {
    let count = rng.pick(&[0, 0, 0, 1, 1, 2, 4]);
    let mut deaths = 0;
    let mut events: Vec<_> = (0..count)
        .flat_map(|_| {
            let at = rng.time(Duration::from_micros(100)..=span);
            let host = rng.below(hosts.len() as u64) as usize;
            let event = match rng.below(10) {
                0 | 1 => another_link(rng, hosts, host),
                2 => NetEvent::Gateway { host },
                3 if deaths == 0 => {
                    deaths += 1;
                    NetEvent::Die {
                        host,
                        back: rng
                            .chance(0.5)
                            .then(|| rng.time(Duration::from_millis(1)..=Duration::from_secs(60))),
                    }
                }
                4 => another_mtu(rng, hosts, host, least_mtu),
                // Another way altogether: other delays, another next hop, another MTU. What is under way on the old
                // one arrives before or among what takes the new one.
                5 | 6 => {
                    return vec![
                        (at, another_link(rng, hosts, host)),
                        (at, NetEvent::Gateway { host }),
                        (at, another_mtu(rng, hosts, host, least_mtu)),
                    ];
                }
                _ => NetEvent::Outage {
                    host,
                    length: rng.time(Duration::from_millis(1)..=Duration::from_secs(12)),
                },
            };
            vec![(at, event)]
        })
        .collect();
    events.sort_by_key(|(at, _)| *at);
    events
}

fn another_link(rng: &mut Rng, hosts: &[HostPlan], host: usize) -> NetEvent {
    let class = rng.pick(&[
        hosts[host].class,
        LinkClass::Lan,
        LinkClass::Wan,
        LinkClass::Marking,
        LinkClass::Mixed,
    ]);
    let (up, down) = link(class, rng);
    NetEvent::Link {
        host,
        up: Box::new(up),
        down: Box::new(down),
    }
}

fn another_mtu(rng: &mut Rng, hosts: &[HostPlan], host: usize, least: u64) -> NetEvent {
    NetEvent::Mtu {
        host,
        mtu: rng.range(least..=u64::from(hosts[host].mtu.min(1_500))) as u32,
    }
}
