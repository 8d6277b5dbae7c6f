//! The world of the comparison: what is owned, installed, excluded and filtered, from which the tables of all
//! classifiers are filled.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use flextcp_nic::flow::FlowTuple;
use flextcp_nic::nic::Nic;
use flextcp_nic::soft::filter::{Filter, Rule, Verdict};
use serde_json::{Value, json};

/// xorshift64*: a seed gives the same frames everywhere.
#[derive(Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next() as u8
    }

    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// Who owns an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Owner {
    Listener,
    Connection,
}

#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) owned: Vec<(SocketAddr, Owner)>,
    /// Installed connections, by index.
    pub(crate) flows: Vec<FlowTuple>,
    pub(crate) excluded: Vec<FlowTuple>,
    pub(crate) filter: Vec<Rule>,
    pub(crate) queue_mask: u32,
}

fn v4(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, last).into()
}

fn v6(last: u8) -> IpAddr {
    Ipv6Addr::new(0xfd00, 1, 2, 3, 4, 5, 6, last.into()).into()
}

fn tuple(local: (IpAddr, u16), remote: (IpAddr, u16)) -> FlowTuple {
    FlowTuple { local, remote }
}

/// Of the flow's own index, so that queues differ.
pub(crate) const fn queue_of(flow: usize) -> u8 {
    (flow % 7) as u8
}

impl Model {
    pub(crate) fn new() -> Self {
        let any4 = IpAddr::from(Ipv4Addr::UNSPECIFIED);
        let any6 = IpAddr::from(Ipv6Addr::UNSPECIFIED);
        let owned = [
            ((v4(1), 80), Owner::Listener),
            ((any4, 443), Owner::Listener),
            ((v6(1), 80), Owner::Listener),
            ((any6, 443), Owner::Listener),
            ((v4(1), 40_000), Owner::Connection),
            ((v6(1), 40_000), Owner::Connection),
            // Owned by a connection, and by a listener on every address.
            ((v4(1), 443), Owner::Connection),
        ];
        let mut flows = Vec::new();
        let mut excluded = Vec::new();
        for (at, address) in [v4 as fn(u8) -> IpAddr, v6].into_iter().enumerate() {
            for (local, port) in [(1, 80), (1, 443), (1, 40_000), (9, 443)] {
                for remote_port in [1000, 1001] {
                    let local = (address(local), port);
                    flows.push(tuple(local, (address(2), remote_port)));
                    flows.push(tuple(local, (address(66), remote_port)));
                    excluded.push(tuple(local, (address(2), remote_port + 500 + at as u16)));
                }
            }
        }
        let rule = |text: &str| text.parse::<Rule>().expect("the rule is well-formed");
        Self {
            owned: owned
                .into_iter()
                .map(|((ip, port), owner)| (SocketAddr::new(ip, port), owner))
                .collect(),
            flows,
            excluded,
            filter: vec![
                rule("allow 10.0.0.66 port 80"),
                rule("deny 10.0.0.64/28"),
                rule("deny fd00:1:2:3:4:5:6:40/122 port 443"),
                rule("allow any port 80"),
                rule("deny 10.0.0.128/25"),
            ],
            queue_mask: 7,
        }
    }

    /// Tells a NIC whose frames are ours.
    pub(crate) fn enter(&self, nic: &mut dyn Nic) {
        for (address, owner) in &self.owned {
            match owner {
                Owner::Listener => nic.listen(*address),
                Owner::Connection => nic.own(*address),
            }
            .unwrap();
        }
        for flow in &self.excluded {
            nic.exclude(*flow).unwrap();
        }
    }

    pub(crate) fn filter(&self) -> Filter {
        Filter::new(self.filter.clone())
    }

    /// A filter rule about this world's addresses and ports.
    #[cfg(feature = "firmware")]
    pub(crate) fn any_rule(rng: &mut Rng) -> Rule {
        let verdict = rng.pick(&["allow", "deny"]);
        let last = *rng.pick(&[2, 66, 70, 130]);
        let remote = match rng.below(5) {
            0 => "any".to_owned(),
            1 => format!("{}/{}", v4(last), rng.below(33)),
            2 => format!("{}/{}", v4(last), 24 + rng.below(9)),
            3 => format!("{}/{}", v6(last), rng.below(129)),
            _ => format!("{}/{}", v6(last), 120 + rng.below(9)),
        };
        let port = rng.pick(&["", " port 80", " port 443", " port 40000"]);
        let text = format!("{verdict} {remote}{port}");
        text.parse().expect("the rule is well-formed")
    }

    /// A frame's ends: local, then remote.
    pub(crate) fn ends(&self, rng: &mut Rng) -> ((IpAddr, u16), (IpAddr, u16)) {
        match rng.below(10) {
            0..=3 => {
                let flow = rng.pick(&self.flows);
                return (flow.local, flow.remote);
            }
            4 => {
                let flow = rng.pick(&self.excluded);
                return (flow.local, flow.remote);
            }
            _ => {}
        }
        let address = *rng.pick(&[v4 as fn(u8) -> IpAddr, v6]);
        let four = address(1).is_ipv4();
        let special = |rng: &mut Rng| -> IpAddr {
            if four {
                let odd = [
                    [224, 0, 0, 1],
                    [255; 4],
                    [0; 4],
                    [240, 0, 0, 1],
                    [127, 0, 0, 1],
                ];
                IpAddr::from(*rng.pick(&odd))
            } else {
                let mut group = [0; 16];
                group[0] = 0xff;
                IpAddr::from(*rng.pick(&[group, [0; 16]]))
            }
        };
        let mut local = address(*rng.pick(&[1, 1, 1, 9]));
        let mut remote = address(*rng.pick(&[2, 2, 66, 70, 130]));
        if rng.one_in(15) {
            local = special(rng);
        }
        if rng.one_in(15) {
            remote = special(rng);
        }
        let port = *rng.pick(&[80, 80, 443, 443, 40_000, 22]);
        (
            (local, port),
            (remote, *rng.pick(&[1000, 1001, 1500, 5000])),
        )
    }

    /// RCV.NXT of a connection that is being installed.
    pub(crate) const fn next_sequence(&self) -> u32 {
        1_000_000
    }

    /// Bytes in flight of a connection that is being installed: some have none.
    pub(crate) const fn in_flight(&self, index: usize) -> u32 {
        if index.is_multiple_of(2) { 0 } else { 1000 }
    }

    /// SND.UNA of such a connection.
    pub(crate) const fn acknowledged(&self) -> u32 {
        2_000
    }

    pub(crate) fn is_owned(&self, local: (IpAddr, u16)) -> bool {
        self.owned.iter().any(|(address, _)| {
            let ip = address.ip();
            let covers =
                ip == local.0 || (ip.is_unspecified() && ip.is_ipv4() == local.0.is_ipv4());
            covers && address.port() == local.1
        })
    }

    /// The rules file of the P4 program.
    pub(crate) fn p4_rules(&self) -> Value {
        let mut tables = serde_json::Map::new();
        let mut add = |table: &str, rule: Value| {
            let rules = tables
                .entry(table)
                .or_insert_with(|| json!({ "rules": [] }));
            rules["rules"].as_array_mut().expect("a list").push(rule);
        };
        let value = |value: u32| json!({ "value": format!("{value:#x}") });
        for port in 0..1 + self.queue_mask {
            let (name, port) = (
                format!("v0.{port}"),
                json!({ "value": format!("v0.{port}") }),
            );
            let to = json!({ "type": "ingress::to_port", "data": { "port": { "value": "p0" } } });
            add(
                "ingress::uplinks",
                json!({ "name": name, "match": { "standard_metadata.ingress_port": port }, "action": to }),
            );
        }
        let to = json!({ "type": "ingress::to_port", "data": { "port": { "value": "v0.0" } } });
        add(
            "ingress::kernel_ports",
            json!({ "name": "p0", "match": { "standard_metadata.ingress_port": { "value": "p0" } }, "action": to }),
        );
        add(
            "egress::mac_commands",
            json!({ "name": "p0", "match": { "standard_metadata.egress_port": { "value": "p0" } },
                    "action": { "type": "egress::add_mac_command" } }),
        );
        for (index, flow) in self.flows.iter().enumerate() {
            let data = json!({ "queue": value(queue_of(index).into()), "index": value(index as u32),
                               "generation": value(1) });
            let action = json!({ "type": "ingress::flow", "data": data });
            add(
                table("flows", flow.local.0),
                json!({ "name": index.to_string(), "match": flow_match(flow), "action": action }),
            );
        }
        for flow in &self.excluded {
            let action = json!({ "type": "ingress::leave" });
            add(
                table("flows", flow.local.0),
                json!({ "name": "excluded", "match": flow_match(flow), "action": action }),
            );
        }
        for (address, _) in &self.owned {
            let ip = address.ip();
            let listens = |at: IpAddr| {
                let at = SocketAddr::new(at, address.port());
                self.owned.contains(&(at, Owner::Listener))
            };
            let any: IpAddr = if ip.is_ipv4() {
                Ipv4Addr::UNSPECIFIED.into()
            } else {
                Ipv6Addr::UNSPECIFIED.into()
            };
            let filtered = listens(ip) || listens(any);
            let action =
                json!({ "type": "ingress::own", "data": { "filtered": value(filtered.into()) } });
            let (name, mut of) = if ip.is_unspecified() {
                let family = if ip.is_ipv4() { 4 } else { 6 };
                (
                    "ingress::listeners_any",
                    json!({ "scalars.metadata@family": value(family) }),
                )
            } else {
                (table("listeners", ip), address_match("local", ip))
            };
            of["scalars.metadata@local_port"] = value(address.port().into());
            add(
                name,
                json!({ "name": address.to_string(), "match": of, "action": action }),
            );
        }
        for rule in &self.filter {
            let action = match rule.verdict {
                Verdict::Allow => json!({ "type": "ingress::allow" }),
                Verdict::Deny => json!({ "type": "ingress::deny" }),
            };
            let port = rule.local_port.map(u32::from);
            let text = rule.to_string();
            let prefix = text.split_whitespace().nth(1).unwrap_or("any");
            let families = match prefix.contains(':') {
                _ if prefix == "any" => vec![true, false],
                six => vec![!six],
            };
            for four in families {
                let mut of = prefix_match(prefix);
                if let Some(port) = port {
                    of["scalars.metadata@local_port"] = value(port);
                }
                let name = if four {
                    "ingress::filter_ipv4"
                } else {
                    "ingress::filter_ipv6"
                };
                add(name, json!({ "name": text, "match": of, "action": action }));
            }
        }
        json!({ "tables": tables })
    }
}

fn table(name: &str, of: IpAddr) -> &'static str {
    match (name, of.is_ipv4()) {
        ("flows", true) => "ingress::flows_ipv4",
        ("flows", false) => "ingress::flows_ipv6",
        (_, true) => "ingress::listeners_ipv4",
        (_, false) => "ingress::listeners_ipv6",
    }
}

fn words(ip: IpAddr) -> Vec<u32> {
    match ip {
        IpAddr::V4(ip) => vec![ip.to_bits()],
        IpAddr::V6(ip) => (0..4)
            .map(|index| (ip.to_bits() >> (96 - 32 * index)) as u32)
            .collect(),
    }
}

fn address_match(end: &str, ip: IpAddr) -> Value {
    let mut of = json!({});
    for (index, word) in words(ip).into_iter().enumerate() {
        of[format!("scalars.metadata@{end}{index}")] = json!({ "value": format!("{word:#x}") });
    }
    of
}

fn flow_match(flow: &FlowTuple) -> Value {
    let mut of = address_match("local", flow.local.0);
    let remote = address_match("remote", flow.remote.0);
    if let (Some(of), Value::Object(remote)) = (of.as_object_mut(), remote) {
        of.extend(remote);
    }
    let ports = u32::from(flow.local.1) << 16 | u32::from(flow.remote.1);
    of["scalars.metadata@ports"] = json!({ "value": format!("{ports:#x}") });
    of
}

/// A prefix as values and masks of words.
fn prefix_match(prefix: &str) -> Value {
    let mut of = json!({});
    let Some((address, len)) = prefix.split_once('/') else {
        return of;
    };
    let mut left: u32 = len.parse().expect("a length");
    for (index, word) in words(address.parse().expect("an address"))
        .into_iter()
        .enumerate()
    {
        let bits = left.min(32);
        left -= bits;
        let mask = if bits == 0 {
            0
        } else {
            u32::MAX << (32 - bits)
        };
        of[format!("scalars.metadata@remote{index}")] =
            json!({ "value": format!("{:#x}", word & mask), "mask": format!("{mask:#x}") });
    }
    of
}
