//! Network namespaces and veth links of the test's own.
//!
//! Everything goes through iproute2, so that a test can be repeated by hand. A namespace carries the process id in its
//! name and disappears with its [`Namespace`]; what a killed test left behind is swept up by the next one.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::wait_until;

const PREFIX: &str = "flextcp";
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;

/// Whether tests that need privileges or tools must run rather than be skipped: `FLEXTCP_REQUIRE_PRIVILEGED=1`.
pub fn privileges_required() -> bool {
    std::env::var_os("FLEXTCP_REQUIRE_PRIVILEGED").is_some_and(|value| value == "1")
}

/// Whether this process may make namespaces and links.
pub fn is_privileged() -> bool {
    let wanted = 1u64 << CAP_NET_ADMIN | 1u64 << CAP_SYS_ADMIN;
    fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("CapEff:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        })
        .is_some_and(|effective| effective & wanted == wanted)
}

/// True when `test` may go on. Without privileges it says on the real stderr that the test is skipped.
///
/// # Panics
/// Where [`privileges_required`] and there are none.
pub fn require_privileges(test: &str) -> bool {
    if is_privileged() {
        return true;
    }
    skip(
        test,
        "it needs CAP_NET_ADMIN and CAP_SYS_ADMIN (run as root)",
    )
}

/// Skips `test` loudly; libtest's capture does not see it.
///
/// # Panics
/// Where [`privileges_required`]: CI must not skip.
pub fn skip(test: &str, why: &str) -> bool {
    assert!(
        !privileges_required(),
        "{test} cannot run: {why}, and FLEXTCP_REQUIRE_PRIVILEGED=1 forbids skipping"
    );
    // A closed stderr must not fail a skipped test.
    let _ = writeln!(io::stderr(), "SKIPPED {test}: {why}");
    false
}

/// A network namespace with `lo` up.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    owned: bool,
}

impl Namespace {
    /// Makes a namespace whose name ends in `tag`.
    ///
    /// # Errors
    /// When iproute2 is missing or refuses.
    pub fn new(tag: &str) -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static SWEEP: Once = Once::new();
        SWEEP.call_once(sweep);

        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}-{}-{serial}-{tag}", std::process::id());
        ip(["netns", "add", &name])?;
        let namespace = Self { name, owned: true };
        namespace.ip(["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Uses a namespace of somebody else's, which stays when this goes.
    ///
    /// # Errors
    /// `NotFound` when `ip netns` does not know it.
    pub fn existing(name: &str) -> io::Result<Self> {
        if !fs::exists(format!("/run/netns/{name}"))? {
            let text = format!("no network namespace {name:?}; `ip netns` lists them");
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        }
        Ok(Self {
            name: name.to_owned(),
            owned: false,
        })
    }

    /// Its name, for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run inside.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs `ip` inside.
    ///
    /// # Errors
    /// With what `ip` printed.
    pub fn ip<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> io::Result<String> {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name]).args(args);
        output(command)
    }

    /// Runs a program inside to its end and returns its standard output.
    ///
    /// # Errors
    /// With what the program printed, when it fails.
    pub fn run<'a>(
        &self,
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = &'a str>,
    ) -> io::Result<String> {
        let mut command = self.command(program);
        command.args(args);
        output(command)
    }

    /// Sets a sysctl inside, by its path below `/proc/sys`.
    ///
    /// # Errors
    /// When the kernel refuses the value.
    pub fn sysctl(&self, path: &str, value: &str) -> io::Result<()> {
        let file = format!("/proc/sys/{path}");
        let value = value.to_owned();
        self.within(move || fs::write(file, value))?
    }

    /// Runs `f` on a thread of its own inside, and waits for it. Sockets made there stay there.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    ///
    /// # Panics
    /// When `f` does.
    pub fn within<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        let namespace = File::open(format!("/run/netns/{}", self.name))?;
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(f())
            });
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Turns offloads of a device on or off, as `ethtool -K` names them.
    ///
    /// # Errors
    /// When ethtool is missing or refuses.
    pub fn offload(&self, device: &str, features: &[&str], on: bool) -> io::Result<()> {
        let state = if on { "on" } else { "off" };
        let mut args = vec!["-K", device];
        for feature in features {
            args.extend([*feature, state]);
        }
        self.run("ethtool", args).map(drop)
    }

    /// Gives a veth end its addresses and options, and sets it up.
    ///
    /// # Errors
    /// When iproute2 or ethtool is missing or refuses.
    pub fn set_up(
        &self,
        device: &str,
        v4: IpAddr,
        v6: IpAddr,
        options: VethOptions,
    ) -> io::Result<()> {
        self.ip(["addr", "add", &format!("{v4}/24"), "dev", device])?;
        self.ip(["addr", "add", &format!("{v6}/64"), "dev", device, "nodad"])?;
        self.ip(["link", "set", device, "mtu", &options.mtu.to_string(), "up"])?;
        if !options.segmentation {
            self.offload(device, &["tso", "gso", "gro"], false)?;
        }
        if !options.checksum {
            self.offload(device, &["tx"], false)?;
        }
        Ok(())
    }

    /// Whether `device` carries packets.
    pub fn is_up(&self, device: &str) -> bool {
        self.ip(["link", "show", "dev", device])
            .is_ok_and(|link| link.contains("state UP"))
    }

    /// Frames that `device` has sent; `None` when there is no such device.
    pub fn frames_sent(&self, device: &str) -> Option<u64> {
        let link = self.ip(["-s", "-j", "link", "show", "dev", device]).ok()?;
        let link: serde_json::Value = serde_json::from_str(&link).ok()?;
        link[0]["stats64"]["tx"]["packets"].as_u64()
    }

    /// Whether an XDP program is attached to `device`.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn has_xdp(&self, device: &str) -> io::Result<bool> {
        Ok(self
            .ip(["-d", "link", "show", "dev", device])?
            .contains("prog/xdp"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.owned {
            let _ = ip(["netns", "del", &self.name]);
        }
    }
}

/// What can be chosen about a veth link.
#[derive(Debug, Clone, Copy)]
pub struct VethOptions {
    /// MTU of both ends, bytes.
    pub mtu: u32,
    /// Whether the ends pass segmentation-offload super-frames (TSO, GSO, GRO) to each other.
    pub segmentation: bool,
    /// Whether the ends leave checksums to the "hardware", as veth does by default.
    pub checksum: bool,
    /// Transmit and receive queues of each end.
    pub queues: u32,
}

impl Default for VethOptions {
    fn default() -> Self {
        Self {
            mtu: 1500,
            segmentation: true,
            checksum: true,
            queues: 1,
        }
    }
}

/// Two namespaces joined by a veth link; the device is `veth0` in both.
#[derive(Debug)]
pub struct VethPair {
    /// The first end: 10.77.0.1, fd77::1.
    pub a: Namespace,
    /// The second end: 10.77.0.2, fd77::2.
    pub b: Namespace,
}

impl VethPair {
    /// Name of the device at both ends.
    pub const DEVICE: &str = "veth0";
    /// IPv4 address of the first end.
    pub const A_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
    /// IPv4 address of the second end.
    pub const B_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));
    /// IPv6 address of the first end.
    pub const A_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1));
    /// IPv6 address of the second end.
    pub const B_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2));

    /// Makes both namespaces and the link, and waits until it carries packets.
    ///
    /// # Errors
    /// When iproute2 or ethtool is missing or refuses, or the link stays down.
    pub fn new(tag: &str, options: VethOptions) -> io::Result<Self> {
        let a = Namespace::new(&format!("{tag}-a"))?;
        let b = Namespace::new(&format!("{tag}-b"))?;
        let queues = options.queues.to_string();
        let queues = ["numtxqueues", &queues, "numrxqueues", &queues];
        let mut add = vec!["link", "add", "name", Self::DEVICE, "netns", &a.name];
        add.extend(queues);
        add.extend(["type", "veth", "peer", "name", Self::DEVICE]);
        add.extend(["netns", &b.name]);
        add.extend(queues);
        ip(add)?;
        for (end, v4, v6) in [(&a, Self::A_V4, Self::A_V6), (&b, Self::B_V4, Self::B_V6)] {
            end.set_up(Self::DEVICE, v4, v6, options)?;
        }
        let pair = Self { a, b };
        for end in [&pair.a, &pair.b] {
            wait_until(Duration::from_secs(10), "the veth link to come up", || {
                end.is_up(Self::DEVICE)
            })?;
        }
        Ok(pair)
    }
}

/// Deletes the namespaces of test processes that are gone: a killed one cannot clean up.
fn sweep() {
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| {
            rest.strip_prefix('-')?
                .split('-')
                .next()?
                .parse::<u32>()
                .ok()
        });
        if owner.is_some_and(|pid| !fs::exists(format!("/proc/{pid}")).unwrap_or(true)) {
            let _ = ip(["netns", "del", &name]);
        }
    }
}

pub(crate) fn ip<'a>(args: impl IntoIterator<Item = &'a str>) -> io::Result<String> {
    let mut command = Command::new("ip");
    command.args(args);
    output(command)
}

fn output(mut command: Command) -> io::Result<String> {
    let output = command.output().map_err(|error| {
        io::Error::new(error.kind(), format!("cannot run {command:?}: {error}"))
    })?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        return Ok(stdout.into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!(
        "{command:?} failed with {}: {}{stdout}",
        output.status, stderr
    )))
}
