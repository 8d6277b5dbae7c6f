//! Network namespaces for tests: one thread each, gone with it.

use std::process::Command;
use std::thread;

use rustix::io::Errno;
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Runs `test` in a thread with a network namespace of its own, `lo` up. Without the privilege the test is
/// skipped loudly, or fails when `FLEXTCP_REQUIRE_PRIVILEGED=1`.
pub(crate) fn in_namespace(test: impl FnOnce() + Send) {
    let entered = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: only the network namespace is unshared, no memory or descriptor table.
            match unsafe { unshare_unsafe(UnshareFlags::NEWNET) } {
                Ok(()) => {}
                Err(Errno::PERM) => return false,
                Err(error) => panic!("unshare: {error}"),
            }
            ip("link set lo up");
            test();
            true
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    if !entered {
        let required = std::env::var("FLEXTCP_REQUIRE_PRIVILEGED").is_ok_and(|value| value == "1");
        assert!(
            !required,
            "needs CAP_SYS_ADMIN and CAP_NET_ADMIN to make a network namespace"
        );
        eprintln!("SKIPPED: needs CAP_SYS_ADMIN and CAP_NET_ADMIN to make a network namespace");
    }
}

/// Runs `ip` with `arguments` in this thread's namespace.
pub(crate) fn ip(arguments: &str) {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .expect("iproute2 is installed");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {error}");
}

/// Two ends of a veth link, up, without addresses and without the kernel's IPv6 chatter.
pub(crate) fn veth(left: &str, right: &str) {
    ip(&format!("link add {left} type veth peer name {right}"));
    for end in [left, right] {
        let path = format!("/proc/sys/net/ipv6/conf/{end}/disable_ipv6");
        std::fs::write(path, "1").expect("the namespace is ours");
        ip(&format!("link set {end} up"));
    }
}
