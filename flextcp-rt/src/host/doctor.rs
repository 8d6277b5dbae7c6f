//! What keeps the NIC from serving here, and the exact fix.

use std::fmt;
use std::io;

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use super::netlink::KernelView;
use crate::config::{Config, NicChoice};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// As it should be.
    Good,
    /// Works, but less well or less far than it could.
    Limit,
    /// Keeps the NIC from serving: connections fall back to kernel sockets.
    Problem,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What was found.
    pub text: String,
    /// What to do about it, where something can be done.
    pub fix: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.severity {
            Severity::Good => "ok",
            Severity::Limit => "limit",
            Severity::Problem => "problem",
        };
        write!(f, "{mark}: {}", self.text)?;
        match &self.fix {
            Some(fix) => write!(f, "; fix: {fix}"),
            None => Ok(()),
        }
    }
}

/// Memory that the frames of a queue lock, without CAP_IPC_LOCK, at most.
const MEMLOCK_WANTED: u64 = 64 << 20;

/// What [`judge`] judges: gathered by [`probe`], written down by tests.
#[derive(Clone, Debug)]
struct Probe {
    capabilities: CapabilitySet,
    /// Soft RLIMIT_MEMLOCK; `None` for unlimited.
    memlock: Option<u64>,
    /// Errno of opening an AF_XDP socket.
    af_xdp: Result<(), i32>,
    interfaces: Vec<Interface>,
    /// `route_localnet` and `accept_local` of `lo`: on, or ours to turn on.
    lo_localnet: bool,
    lo_accept_local: bool,
    policy_rules: bool,
}

#[derive(Clone, Debug)]
struct Interface {
    name: String,
    up: bool,
    ethernet: bool,
    loopback: bool,
    default_route: bool,
    port_of_bridge: bool,
    addresses: usize,
    rx_queues: u32,
}

/// Looks at capabilities, limits, AF_XDP, interfaces and sysctls of the calling thread's network namespace,
/// and says what `config` would get. Changes nothing and sends nothing.
///
/// # Errors
/// The kernel could not be asked at all.
pub fn diagnose(config: &Config) -> io::Result<Vec<Finding>> {
    Ok(judge(config, &probe()?))
}

fn probe() -> io::Result<Probe> {
    let view = KernelView::open()?;
    let interfaces = view
        .links()
        .map(|link| Interface {
            name: link.name.clone(),
            up: link.up,
            ethernet: link.ethernet,
            loopback: link.loopback,
            default_route: view.carries_default_route(link.index),
            port_of_bridge: link.controller.is_some(),
            addresses: view.addresses_of(link.index).len(),
            rx_queues: link.rx_queues,
        })
        .collect();
    let af_xdp = socket_with(
        AddressFamily::XDP,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    );
    Ok(Probe {
        capabilities: capabilities(None)?.effective,
        memlock: getrlimit(Resource::Memlock).current,
        af_xdp: af_xdp.map(drop).map_err(|errno| errno.raw_os_error()),
        interfaces,
        lo_localnet: sysctl("route_localnet"),
        lo_accept_local: sysctl("accept_local"),
        policy_rules: view.policy_rules(),
    })
}

/// Whether an IPv4 switch is on for `lo`, or the AF_XDP port can turn it on, as it does while it is open.
fn sysctl(name: &str) -> bool {
    let path = |interface| format!("/proc/sys/net/ipv4/conf/{interface}/{name}");
    let on = |interface| std::fs::read_to_string(path(interface)).is_ok_and(|v| v.trim() != "0");
    on("lo") || on("all") || writable(&path("lo"))
}

/// Whether this process may write the file: by its effective ids and capabilities, of which CAP_NET_ADMIN opens these.
fn writable(path: &str) -> bool {
    accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

const GRANT: &str = "setcap cap_net_admin,cap_net_raw,cap_bpf,cap_perfmon,cap_ipc_lock+ep <program>, or run as root";

fn finding(severity: Severity, text: impl Into<String>, fix: Option<&str>) -> Finding {
    Finding {
        severity,
        text: text.into(),
        fix: fix.map(str::to_owned),
    }
}

fn judge(config: &Config, probe: &Probe) -> Vec<Finding> {
    use Severity::{Good, Limit};
    if config.nic == NicChoice::Off {
        return vec![finding(
            Limit,
            "the configuration turns the NIC off: kernel sockets serve",
            Some("unset FLEXTCP_NIC"),
        )];
    }
    let mut findings = Vec::new();
    if matches!(config.nic, NicChoice::Auto | NicChoice::Soft) {
        findings.extend(judge_af_xdp(probe));
        findings.extend(
            probe
                .interfaces
                .iter()
                .filter_map(|it| judge_interface(config, it)),
        );
        let lo = probe
            .interfaces
            .iter()
            .any(|it| it.loopback && permitted(config, it));
        if lo && !(probe.lo_localnet && probe.lo_accept_local) {
            findings.push(finding(
                Limit,
                "the kernel would drop what we send from 127.0.0.0/8 as martian, and its switches cannot be set from \
                 here: IPv4 on lo is not accelerated, ::1 is",
                Some("sysctl -w net.ipv4.conf.lo.route_localnet=1 net.ipv4.conf.lo.accept_local=1"),
            ));
        }
    }
    if !probe.capabilities.contains(CapabilitySet::NET_ADMIN) {
        findings.push(finding(
            Limit,
            "without CAP_NET_ADMIN, live connections cannot move to kernel sockets (into_std, graceful stop), \
             nor can the kernel be asked to resolve neighbours",
            Some(GRANT),
        ));
    }
    if probe.policy_rules {
        findings.push(finding(
            Good,
            "the namespace has policy routing rules: the kernel is asked for each connection's route",
            None,
        ));
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

fn judge_af_xdp(probe: &Probe) -> Vec<Finding> {
    use Severity::{Good, Limit, Problem};
    let mut findings = Vec::new();
    match probe.af_xdp {
        Ok(()) => findings.push(finding(Good, "AF_XDP sockets can be opened", None)),
        Err(libc::EPERM | libc::EACCES) => findings.push(finding(
            Problem,
            "AF_XDP sockets need CAP_NET_RAW",
            Some(GRANT),
        )),
        Err(libc::EAFNOSUPPORT) => findings.push(finding(
            Problem,
            "this kernel has no AF_XDP",
            Some("use a kernel with CONFIG_XDP_SOCKETS=y, or a TAP: FLEXTCP_NIC=tap:<name>"),
        )),
        Err(errno) => {
            let error = io::Error::from_raw_os_error(errno);
            findings.push(finding(
                Problem,
                format!("AF_XDP sockets cannot be opened: {error}"),
                None,
            ));
        }
    }
    // Before Linux 5.8 CAP_SYS_ADMIN stood for them.
    let bpf = CapabilitySet::BPF | CapabilitySet::PERFMON | CapabilitySet::NET_ADMIN;
    let held = probe.capabilities;
    if !held.contains(bpf) && !held.contains(CapabilitySet::SYS_ADMIN) {
        findings.push(finding(
            Problem,
            "loading and attaching the XDP program needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN",
            Some(GRANT),
        ));
    }
    let limited = probe.memlock.filter(|memlock| *memlock < MEMLOCK_WANTED);
    if let (Some(memlock), false) = (limited, held.contains(CapabilitySet::IPC_LOCK)) {
        findings.push(finding(
            Limit,
            format!("RLIMIT_MEMLOCK is {memlock} bytes, and the NIC's frames are locked memory"),
            Some("ulimit -l 65536, LimitMEMLOCK=64M in the systemd unit, or cap_ipc_lock"),
        ));
    }
    findings
}

fn permitted(config: &Config, interface: &Interface) -> bool {
    config
        .interfaces
        .permits(&interface.name, interface.default_route)
}

fn judge_interface(config: &Config, interface: &Interface) -> Option<Finding> {
    use Severity::{Good, Limit};
    let name = &interface.name;
    if !interface.up || interface.addresses == 0 && !interface.port_of_bridge {
        return None;
    }
    let found = if !interface.ethernet {
        finding(
            Limit,
            format!("{name}: carries no Ethernet frames, so it is not accelerated"),
            None,
        )
    } else if interface.port_of_bridge {
        finding(
            Limit,
            format!(
                "{name}: is a port of a bridge or bond; XDP would take frames before the bridge sees them"
            ),
            Some("accelerate the interface that owns the address"),
        )
    } else if !permitted(config, interface) && interface.default_route {
        let fix = format!("FLEXTCP_INTERFACES={name}");
        finding(
            Limit,
            format!("{name}: carries the default route, so it is accelerated only when named"),
            Some(&fix),
        )
    } else if !permitted(config, interface) {
        finding(Limit, format!("{name}: not in FLEXTCP_INTERFACES"), None)
    } else {
        let queues = interface.rx_queues;
        finding(
            Good,
            format!("{name}: can be accelerated, on {queues} queue(s)"),
            None,
        )
    };
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::{in_namespace, ip};

    fn interface(name: &str) -> Interface {
        Interface {
            name: name.to_owned(),
            up: true,
            ethernet: true,
            loopback: name == "lo",
            default_route: false,
            port_of_bridge: false,
            addresses: 1,
            rx_queues: 2,
        }
    }

    fn ideal() -> Probe {
        Probe {
            capabilities: CapabilitySet::all(),
            memlock: None,
            af_xdp: Ok(()),
            interfaces: vec![interface("lo"), interface("veth0")],
            lo_localnet: true,
            lo_accept_local: true,
            policy_rules: false,
        }
    }

    #[test]
    fn an_ideal_host_has_no_complaint() {
        let findings = judge(&Config::default(), &ideal());
        assert_eq!(findings.len(), 3, "{findings:?}");
        assert!(
            findings
                .iter()
                .all(|finding| finding.severity == Severity::Good),
            "{findings:?}"
        );
    }

    #[test]
    fn each_obstacle_is_found_with_its_fix() {
        type Change = fn(&mut Probe);
        let table: [(Change, Severity, &str, &str); 8] = [
            (
                |p| p.af_xdp = Err(libc::EPERM),
                Severity::Problem,
                "CAP_NET_RAW",
                "setcap",
            ),
            (
                |p| p.af_xdp = Err(libc::EAFNOSUPPORT),
                Severity::Problem,
                "no AF_XDP",
                "CONFIG_XDP",
            ),
            (
                |p| {
                    let both = CapabilitySet::PERFMON | CapabilitySet::SYS_ADMIN;
                    p.capabilities.remove(both);
                },
                Severity::Problem,
                "CAP_BPF",
                "setcap",
            ),
            (
                |p| {
                    p.memlock = Some(8 << 20);
                    p.capabilities.remove(CapabilitySet::IPC_LOCK);
                },
                Severity::Limit,
                "RLIMIT_MEMLOCK",
                "ulimit -l",
            ),
            (
                |p| p.lo_accept_local = false,
                Severity::Limit,
                "martian",
                "sysctl -w",
            ),
            (
                |p| p.interfaces[1].default_route = true,
                Severity::Limit,
                "default route",
                "FLEXTCP_INTERFACES=veth0",
            ),
            (
                |p| p.interfaces[1].port_of_bridge = true,
                Severity::Limit,
                "bridge",
                "owns",
            ),
            (
                |p| p.capabilities = CapabilitySet::BPF,
                Severity::Limit,
                "into_std",
                "setcap",
            ),
        ];
        for (change, severity, text, fix) in table {
            let mut probe = ideal();
            change(&mut probe);
            let findings = judge(&Config::default(), &probe);
            let found = findings.iter().find(|finding| finding.text.contains(text));
            let found = found.unwrap_or_else(|| panic!("{text:?} not in {findings:?}"));
            assert_eq!(found.severity, severity, "{found}");
            assert!(
                found
                    .to_string()
                    .contains(&format!("fix: {}", found.fix.as_ref().unwrap()))
            );
            assert!(found.fix.as_ref().unwrap().contains(fix), "{found}");
            assert!(findings.is_sorted_by_key(|finding| std::cmp::Reverse(finding.severity)));
        }
    }

    #[test]
    fn a_real_namespace_is_diagnosed() {
        in_namespace(|| {
            ip("link add v0 type veth peer name v1");
            ip("addr add 10.9.0.1/24 dev v0");
            ip("link set v0 up");
            let findings = diagnose(&Config::default()).unwrap();
            let about = |text: &str| findings.iter().any(|finding| finding.text.contains(text));
            assert!(about("v0: can be accelerated"), "{findings:?}");
            assert!(
                !about("martian"),
                "root can turn the switches on: {findings:?}"
            );
            assert!(!about("v1"), "it is down: {findings:?}");
        });
    }
}
