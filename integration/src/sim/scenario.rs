//! From a seed to a world: hosts, links, what happens to them, and connections.

mod connections;
mod events;
mod hosts;

use std::net::IpAddr;
use std::time::Duration;

use flextcp_nic::port::impair::Impairment;
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
    /// An orphan may be given up: an outage stretches its timeout, and a silent router has it time out several times more,
    /// before it looks for the size that fits. It is reset when the timeout reaches its ceiling, as on Linux.
    pub may_lose_orphans: bool,
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
    /// Largest IP packet of the way behind it, if it is less.
    pub path_mtu: u32,
    /// Its routers drop what is too large without a word (RFC 2923, section 2.1).
    pub silent: bool,
    /// The host hands super-frames of up to this size to its link, which cuts them unless the other end takes them too.
    pub segmentation: Option<u32>,
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
    /// The way takes only packets of this size from now on; the router tells unless it is silent.
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
    /// Both ends connect, and their SYNs cross (RFC 9293, section 3.5).
    pub simultaneous: bool,
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
        let mut hosts = hosts::hosts(&mut rng.fork());
        let mut connections = connections::connections(&mut rng.fork(), hosts.len());
        let span = connections
            .iter()
            .map(|plan| plan.at)
            .max()
            .unwrap_or_default();
        let mut rng = rng.fork();
        let least_mtu = if connections.iter().any(|plan| plan.v6) {
            1_280
        } else {
            576
        };
        hosts::narrow(&mut rng, &mut hosts, least_mtu);
        let events = events::events(&mut rng, &hosts, least_mtu, span + Duration::from_secs(2));
        let deadly = events.iter().any(|(_, event)| match event {
            NetEvent::Die { .. } => true,
            NetEvent::Outage { length, .. } => *length > Duration::from_secs(8),
            _ => false,
        });
        let may_time_out = deadly || hosts.iter().any(|host| host.class.may_kill());
        let stretched = events.iter().any(|(_, event)| match event {
            NetEvent::Outage { length, .. } => *length > Duration::from_secs(1),
            _ => false,
        });
        let may_lose_orphans = stretched && hosts.iter().any(|host| host.silent);
        for connection in &mut connections {
            connections::settle(connection);
        }
        Self {
            seed,
            hosts,
            events,
            connections,
            may_time_out,
            may_lose_orphans,
            limit: Duration::from_secs(6 * 3_600),
        }
    }
}

/// Both directions of a link. A frame is damaged once on its way at most, towards the host: two bits may cancel out in
/// the checksum.
fn link(class: LinkClass, rng: &mut Rng) -> (Impairment, Impairment) {
    let (mut up, down) = (class.line(rng), class.line(rng));
    up.corrupt = 0.0;
    (up, down)
}
