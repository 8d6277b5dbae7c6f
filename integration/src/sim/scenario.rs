//! From a seed to a world: hosts, links, what happens to them, and connections.

use std::net::IpAddr;
use std::time::Duration;

use flextcp_nic::port::impair::Impairment;
use flextcp_rt::offload::OffloadPolicy;
use flextcp_rt::options::{KeepAlive, SocketOptions};
use flextcp_rt::tcp::EngineConfig;

use super::app::{AppPlan, Ending, Mode};
use super::class::LinkClass;
use super::rng::Rng;

/// Everything that is decided before a run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Where it came from.
    pub seed: u64,
    /// Hosts, each on a link of its own to one router. The first is the server of most connections.
    pub hosts: Vec<HostPlan>,
    /// What happens, by time since the start, in order.
    pub events: Vec<(Duration, NetEvent)>,
    /// Connections.
    pub connections: Vec<ConnectionPlan>,
    /// Connections may time out although their applications live: a host dies, or the way is too bad or too long
    /// away.
    pub may_time_out: bool,
    /// Virtual time after which a run that is not over hangs.
    pub limit: Duration,
}

/// A host and its link.
#[derive(Clone, Debug)]
pub struct HostPlan {
    /// Kind of its link.
    pub class: LinkClass,
    /// From the host to the router.
    pub up: Impairment,
    /// From the router to the host.
    pub down: Impairment,
    /// Largest IP packet of the link.
    pub mtu: u32,
    /// Steps of its clock.
    pub tick: Duration,
    /// What its clock shows at the start.
    pub epoch: Duration,
    /// Its engine.
    pub engine: EngineConfig,
    /// Memory for rings.
    pub memory: u64,
    /// Backlog of its listener.
    pub backlog: u32,
    /// How long a connection may wait to be accepted.
    pub accept_pause: Duration,
}

/// What happens to a network.
#[derive(Clone, Debug)]
pub enum NetEvent {
    /// The host's link becomes another one.
    Link {
        /// Whose.
        host: usize,
        /// From the host.
        up: Box<Impairment>,
        /// To the host.
        down: Box<Impairment>,
    },
    /// The link takes only packets of this size from now on, and the router tells.
    Mtu {
        /// Whose.
        host: usize,
        /// Largest IP packet.
        mtu: u32,
    },
    /// Nothing passes the link for a while.
    Outage {
        /// Whose.
        host: usize,
        /// How long.
        length: Duration,
    },
    /// The next hop has another hardware address.
    Gateway {
        /// Whose.
        host: usize,
    },
    /// The host is switched off; after the time, if any, it comes back and remembers nothing.
    Die {
        /// Which.
        host: usize,
        /// For how long.
        back: Option<Duration>,
    },
}

/// A connection.
#[derive(Clone, Debug)]
pub struct ConnectionPlan {
    /// When the client connects.
    pub at: Duration,
    /// The host that connects.
    pub client: usize,
    /// The host that listens.
    pub server: usize,
    /// IPv6.
    pub v6: bool,
    /// What the client does.
    pub client_app: AppPlan,
    /// What the server does.
    pub server_app: AppPlan,
}

/// Address of a host.
pub(super) fn address(host: usize, v6: bool) -> IpAddr {
    let number = host as u8 + 1;
    match v6 {
        true => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, number.into()]),
        false => IpAddr::from([10, 0, 0, number]),
    }
}

impl Scenario {
    /// The scenario of a seed.
    pub fn random(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let hosts = hosts(&mut rng.fork());
        let mut connections = connections(&mut rng.fork(), hosts.len());
        let span = connections
            .iter()
            .map(|plan| plan.at)
            .max()
            .unwrap_or_default();
        let mut rng = rng.fork();
        let events = events(&mut rng, &hosts, span + Duration::from_secs(2));
        let deadly = events.iter().any(|(_, event)| match event {
            NetEvent::Die { .. } => true,
            NetEvent::Outage { length, .. } => *length > Duration::from_secs(8),
            _ => false,
        });
        let may_time_out = deadly || hosts.iter().any(|host| host.class.may_kill());
        for connection in &mut connections {
            settle(connection);
        }
        Self {
            seed,
            hosts,
            events,
            connections,
            may_time_out,
            limit: Duration::from_secs(6 * 3_600),
        }
    }
}

fn hosts(rng: &mut Rng) -> Vec<HostPlan> {
    let count = rng.pick(&[2, 2, 2, 2, 3, 3, 4]);
    (0..count)
        .map(|host| {
            // The server's link is a good one most of the time, so that each client sees its own.
            let class = match host {
                0 if rng.chance(0.6) => LinkClass::Wire,
                _ => rng.pick(&LinkClass::ALL),
            };
            let (up, down) = (class.line(rng), class.line(rng));
            HostPlan {
                class,
                up,
                down,
                mtu: match rng.below(20) {
                    0 => 9_000,
                    1 => 1_280,
                    2 => rng.range(1_280..=1_500) as u32,
                    _ => 1_500,
                },
                tick: Duration::from_nanos(
                    rng.pick(&[1, 1, 1, 1, 1_000, 1_000_000, 4_000_000, 10_000_000]),
                ),
                epoch: rng.time(Duration::from_secs(1)..=Duration::from_secs(100_000_000)),
                engine: engine(rng),
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

fn engine(rng: &mut Rng) -> EngineConfig {
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
        send_buffer: rng.magnitude(16 << 10..=4 << 20) as u32,
        congestion: rng.pick(&["cubic", "cubic", "reno"]),
        ..EngineConfig::default()
    }
}

fn connections(rng: &mut Rng, hosts: usize) -> Vec<ConnectionPlan> {
    let count = match rng.below(20) {
        0 => rng.range(20..=50),
        1..=3 => rng.range(6..=16),
        _ => rng.range(1..=5),
    };
    let v6 = rng.chance(0.3);
    // What all connections of a scenario write together decides how long it takes to play.
    let budget = rng.magnitude(20_000..=3_000_000);
    let spread = rng.pick(&[0, 10_000, 1_000_000, 5_000_000]);
    // Many SYNs at one moment, and their retransmissions, meet a full queue each time.
    let spread = if count > 5 {
        spread.max(500 * count)
    } else {
        spread
    };
    (0..count)
        .map(|_| {
            let client = rng.range(1..=hosts as u64 - 1) as usize;
            let (client, server) = match rng.below(8) {
                0 => (0, client),
                _ => (client, 0),
            };
            let share = budget / count;
            let (client_app, server_app) = apps(rng, share);
            ConnectionPlan {
                at: Duration::from_micros(rng.range(0..=spread)),
                client,
                server,
                v6: v6 != rng.chance(0.1),
                client_app,
                server_app,
            }
        })
        .collect()
}

/// Both applications of a connection that moves about `bytes`.
fn apps(rng: &mut Rng, bytes: u64) -> (AppPlan, AppPlan) {
    let mut client = app(rng, bytes);
    let mut server = app(rng, bytes);
    match rng.below(6) {
        // A request and its answer, again and again.
        0 => {
            client.mode = Mode::Ask;
            client.send = client.send.min(200_000);
            client.write = 1..=rng.magnitude(1..=4_000);
            let rounds = 300;
            client.send = client.send.min(rounds * (*client.write.end() / 2).max(1));
            server.mode = Mode::Answer;
            server.send = client.send;
            server.ending = Ending::Last;
        }
        1 => {
            server.mode = Mode::Answer;
            server.send = client.send;
        }
        2 => client.send = rng.below(1_000),
        3 => server.send = 0,
        4 => client.send = 0,
        _ => {}
    }
    (client, server)
}

fn app(rng: &mut Rng, bytes: u64) -> AppPlan {
    let send = rng.magnitude(1..=bytes.max(2));
    let write = match rng.below(4) {
        // Small writes, but not too many.
        0 => {
            let least = (send / 1_000).max(1);
            least..=least + rng.magnitude(1..=2_000)
        }
        1 => 1_448..=1_448,
        2 => 1..=65_536,
        _ => 65_536..=65_536,
    };
    let think = match rng.below(8) {
        0 => {
            let writes = (send / write.end()).max(1);
            let most = Duration::from_secs(20) / u32::try_from(writes).unwrap_or(u32::MAX);
            rng.time(Duration::from_micros(1)..=most.max(Duration::from_micros(1)))
        }
        _ => Duration::ZERO,
    };
    let stalls = match rng.below(6) {
        0 => vec![(
            rng.below(bytes),
            rng.time(Duration::from_millis(1)..=Duration::from_secs(90)),
        )],
        _ => Vec::new(),
    };
    AppPlan {
        mode: Mode::Stream,
        send,
        write,
        think,
        read: rng
            .pick(&[1_u64..=65_536, 65_536..=65_536, 100..=3_000].each_ref())
            .clone(),
        stalls,
        ending: match rng.below(12) {
            0 => Ending::Reset(rng.range(0..=send)),
            1 => Ending::Close,
            2 => Ending::CloseAt(rng.range(0..=bytes)),
            3..=5 => Ending::Last,
            _ => Ending::Shutdown,
        },
        options: options(rng),
    }
}

fn options(rng: &mut Rng) -> SocketOptions {
    SocketOptions {
        nodelay: rng.chance(0.3),
        // Every connection learns in the end that its peer is gone.
        keepalive: Some(KeepAlive {
            time: rng.time(Duration::from_secs(5)..=Duration::from_secs(60)),
            interval: rng.time(Duration::from_secs(2)..=Duration::from_secs(10)),
            count: 9,
        }),
        recv_buffer: rng
            .chance(0.1)
            .then(|| rng.magnitude(2_048..=1 << 20) as u32),
        send_buffer: rng
            .chance(0.1)
            .then(|| rng.magnitude(4_096..=1 << 20) as u32),
        maxseg: rng.chance(0.05).then(|| rng.range(88..=1_460) as u16),
        congestion: rng.chance(0.2).then(|| rng.pick(&["cubic", "reno"])),
        ..SocketOptions::default()
    }
}

/// Sees to it that the two applications do not wait for each other for ever, and come to where they are to end.
fn settle(connection: &mut ConnectionPlan) {
    let (client, server) = (&mut connection.client_app, &mut connection.server_app);
    if client.ending == Ending::Last && server.ending == Ending::Last {
        client.ending = Ending::Shutdown;
    }
    for app in [&mut *client, &mut *server] {
        if app.mode != Mode::Stream {
            // A pause in each of hundreds of rounds is a long time.
            app.think = app.think.min(Duration::from_millis(50));
        }
    }
    // Who answers can only be done when the other is.
    if server.mode == Mode::Answer {
        server.ending = Ending::Last;
        if client.ending == Ending::Last {
            client.ending = Ending::Shutdown;
        }
    }
}

fn events(rng: &mut Rng, hosts: &[HostPlan], span: Duration) -> Vec<(Duration, NetEvent)> {
    let count = rng.pick(&[0, 0, 0, 1, 1, 2, 4]);
    let mut deaths = 0;
    let mut events: Vec<_> = (0..count)
        .map(|_| {
            let at = rng.time(Duration::from_micros(100)..=span);
            let host = rng.below(hosts.len() as u64) as usize;
            let event = match rng.below(8) {
                0 | 1 => {
                    let class = rng.pick(&[hosts[host].class, LinkClass::Wan, LinkClass::Mixed]);
                    NetEvent::Link {
                        host,
                        up: Box::new(class.line(rng)),
                        down: Box::new(class.line(rng)),
                    }
                }
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
                4 => NetEvent::Mtu {
                    host,
                    mtu: rng.range(1_280..=1_500) as u32,
                },
                _ => NetEvent::Outage {
                    host,
                    length: rng.time(Duration::from_millis(1)..=Duration::from_secs(12)),
                },
            };
            (at, event)
        })
        .collect();
    events.sort_by_key(|(at, _)| *at);
    events
}
