//! The benchmark: ours beside kernel sockets, interleaved in one run.
//!
//! Every sample starts fresh namespaces, a server process and a client process, so that no sample inherits ports in
//! TIME_WAIT, cached routes or warmed buffers from another. Server and client each stay on a core of their own.

pub mod path;
pub mod plot;
pub mod report;
pub mod sample;

use std::fmt;

use serde::Serialize;

use crate::netns::VethOptions;
use crate::peer::{Outcome, Work};
use crate::stack::StackKind;

/// What is measured: the benchmark's first argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Suite {
    /// Round trips and requests per second of 64-byte messages
    Rpc,
    /// Throughput of one connection
    Bulk,
    /// Connections opened, used once and closed per second
    Churn,
    /// What our program on an interface costs kernel sockets that have nothing to do with us
    Bystander,
}

impl Suite {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rpc => "rpc",
            Self::Bulk => "bulk",
            Self::Churn => "churn",
            Self::Bystander => "bystander",
        }
    }
}

/// Where the two ends are.
#[derive(Debug, Clone, Copy)]
pub enum Place {
    /// Both in one namespace, over `lo`.
    Loopback,
    /// A namespace each, over veth.
    Veth(VethOptions),
}

/// The stacks of the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The connecting side.
    pub client: StackKind,
    /// The listening side.
    pub server: StackKind,
}

impl Ends {
    const OURS: Self = Self {
        client: StackKind::Flex,
        server: StackKind::Flex,
    };
    const OUR_SERVER: Self = Self {
        client: StackKind::Kernel,
        server: StackKind::Flex,
    };
    const OUR_CLIENT: Self = Self {
        client: StackKind::Flex,
        server: StackKind::Kernel,
    };
    const KERNEL: Self = Self {
        client: StackKind::Kernel,
        server: StackKind::Kernel,
    };
}

/// The number a case compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Median time of a round trip, µs; less is better.
    RoundTrip,
    /// Requests per second.
    Requests,
    /// Gbit/s of payload.
    Throughput,
    /// Connections per second.
    Connections,
}

impl Metric {
    /// The number, out of what a load saw.
    pub fn of(self, outcome: &Outcome) -> f64 {
        let seconds = outcome.seconds.max(f64::MIN_POSITIVE);
        match self {
            Self::RoundTrip => outcome.p50,
            Self::Requests | Self::Connections => outcome.requests as f64 / seconds,
            Self::Throughput => outcome.bytes as f64 * 8.0 / seconds / 1e9,
        }
    }

    /// Its unit.
    pub fn unit(self) -> &'static str {
        match self {
            Self::RoundTrip => "µs",
            Self::Requests => "req/s",
            Self::Throughput => "Gbit/s",
            Self::Connections => "conn/s",
        }
    }

    /// Whether a smaller number is better.
    pub fn less_is_better(self) -> bool {
        self == Self::RoundTrip
    }
}

/// What the ratio of ours to the kernel's has to be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

impl Target {
    /// Whether `ratio` meets it.
    pub fn met(self, ratio: f64) -> bool {
        match self {
            Self::AtMost(limit) => ratio <= limit,
            Self::AtLeast(limit) => ratio >= limit,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(limit) => write!(f, "≤ {limit:.2}×"),
            Self::AtLeast(limit) => write!(f, "≥ {limit:.2}×"),
        }
    }
}

/// One comparison: ours, the kernel's, and what their ratio should be.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// What it is called in the table.
    pub name: &'static str,
    /// The load.
    pub work: Work,
    /// Connections at once.
    pub connections: usize,
    /// The number compared.
    pub metric: Metric,
    /// Where ours runs.
    pub place: Place,
    /// Which ends are ours.
    pub ours: Ends,
    /// Congestion control of the kernel's sockets; the system's default without.
    pub congestion: Option<&'static str>,
    /// On our side an idle server of ours has the interface too.
    pub beside_ours: bool,
    /// Where the kernel runs.
    pub kernel_place: Place,
    /// The acceptance target; `None` where there is none.
    pub target: Option<Target>,
}

const VETH: Place = Place::Veth(VethOptions {
    mtu: 1500,
    segmentation: true,
    checksum: true,
    queues: 1,
});
const VETH_NO_SEGMENTATION: Place = Place::Veth(VethOptions {
    mtu: 1500,
    segmentation: false,
    checksum: true,
    queues: 1,
});

/// The cases of a suite.
pub fn cases(suite: Suite) -> Vec<Case> {
    match suite {
        Suite::Rpc => {
            let case = |name, connections, metric, place, ours, target| Case {
                name,
                work: Work::Rpc,
                connections,
                metric,
                place,
                ours,
                congestion: None,
                beside_ours: false,
                kernel_place: place,
                target: Some(target),
            };
            use Metric::{Requests, RoundTrip};
            use Target::{AtLeast, AtMost};
            let (lo, both, server) = (Place::Loopback, Ends::OURS, Ends::OUR_SERVER);
            vec![
                case(
                    "veth, ours at both ends, 1 connection",
                    1,
                    RoundTrip,
                    VETH,
                    both,
                    AtMost(0.35),
                ),
                case(
                    "veth, ours at both ends, 64 connections",
                    64,
                    Requests,
                    VETH,
                    both,
                    AtLeast(2.2),
                ),
                case(
                    "lo, kernel client, our server, 1 connection",
                    1,
                    RoundTrip,
                    lo,
                    server,
                    AtMost(0.6),
                ),
                case(
                    "lo, kernel client, our server, 64 connections",
                    64,
                    Requests,
                    lo,
                    server,
                    AtLeast(1.3),
                ),
            ]
        }
        Suite::Bulk => {
            let case = |name, work, place, ours, kernel_place, target| Case {
                name,
                work,
                connections: 1,
                metric: Metric::Throughput,
                place,
                ours,
                congestion: None,
                beside_ours: false,
                kernel_place,
                target: Some(Target::AtLeast(target)),
            };
            use Work::{Download, Upload};
            let (lo, both, server) = (Place::Loopback, Ends::OURS, Ends::OUR_SERVER);
            // Ours makes its own segments; its link is the same with segmentation offload and without.
            let (plain, offload) = (VETH_NO_SEGMENTATION, VETH);
            // Linux's own default, which is not every system's.
            let cubic = |case| Case {
                congestion: Some("cubic"),
                ..case
            };
            vec![
                cubic(case(
                    "lo, kernel client (CUBIC) to our server",
                    Upload,
                    lo,
                    server,
                    lo,
                    1.0,
                )),
                cubic(case(
                    "lo, kernel server (CUBIC) to our client",
                    Download,
                    lo,
                    Ends::OUR_CLIENT,
                    lo,
                    1.0,
                )),
                case(
                    "lo, kernel client to our server",
                    Upload,
                    lo,
                    server,
                    lo,
                    1.0,
                ),
                case(
                    "lo, our server to kernel client",
                    Download,
                    lo,
                    server,
                    lo,
                    1.0,
                ),
                case(
                    "lo, kernel server to our client",
                    Download,
                    lo,
                    Ends::OUR_CLIENT,
                    lo,
                    1.0,
                ),
                case(
                    "veth MTU 1500, ours at both ends, kernel without TSO/GSO/GRO",
                    Upload,
                    plain,
                    both,
                    plain,
                    1.3,
                ),
                case(
                    "veth MTU 1500, ours at both ends, kernel with TSO/GSO/GRO",
                    Upload,
                    offload,
                    both,
                    offload,
                    0.7,
                ),
            ]
        }
        Suite::Bystander => {
            let case = |name, work, connections, metric| Case {
                name,
                work,
                connections,
                metric,
                place: Place::Loopback,
                ours: Ends::KERNEL,
                congestion: None,
                beside_ours: true,
                kernel_place: Place::Loopback,
                target: None,
            };
            vec![
                case(
                    "lo, kernel sockets beside us, 64 connections",
                    Work::Rpc,
                    64,
                    Metric::Requests,
                ),
                case(
                    "lo, kernel sockets beside us, bulk",
                    Work::Upload,
                    1,
                    Metric::Throughput,
                ),
            ]
        }
        Suite::Churn => {
            let case = |name, place, ours| Case {
                name,
                work: Work::Churn,
                connections: 16,
                metric: Metric::Connections,
                place,
                ours,
                congestion: None,
                beside_ours: false,
                kernel_place: place,
                target: Some(Target::AtLeast(1.3)),
            };
            vec![
                case("veth, ours at both ends", VETH, Ends::OURS),
                case(
                    "lo, kernel client, our server",
                    Place::Loopback,
                    Ends::OUR_SERVER,
                ),
            ]
        }
    }
}

impl Case {
    /// The stacks and the place of one of its two sides.
    pub fn side(&self, side: StackKind) -> (Ends, Place) {
        match side {
            StackKind::Flex => (self.ours, self.place),
            StackKind::Kernel => (Ends::KERNEL, self.kernel_place),
        }
    }
}
