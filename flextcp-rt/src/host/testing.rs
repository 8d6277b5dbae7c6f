//! What tests of this module need: a network namespace of their own, and privileges to make one.

use std::io::Write as _;
use std::process::Command;

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Runs `test` on a thread in a new network namespace with `lo` up. Without the privilege the test is
/// skipped with a note, or fails when `FLEXTCP_REQUIRE_PRIVILEGED=1`.
pub(crate) fn in_namespace(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            // SAFETY: only this thread changes its network namespace; descriptors stay shared.
            if let Err(errno) = unsafe { unshare_unsafe(UnshareFlags::NEWNET) } {
                let required =
                    std::env::var_os("FLEXTCP_REQUIRE_PRIVILEGED").is_some_and(|v| v == "1");
                assert!(
                    !required,
                    "cannot make a network namespace: {errno}; run as root"
                );
                // Past the test harness, which keeps the output of passing tests to itself.
                let note = "SKIPPED: cannot make a network namespace";
                writeln!(std::io::stderr(), "{note} ({errno}); run as root")
                    .expect("stderr is open");
                return;
            }
            ip("link set lo up");
            test();
        });
        if let Err(panic) = run.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Runs `ip` of iproute2 in the calling thread's namespace.
pub(crate) fn ip(arguments: &str) {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .expect("iproute2 is needed by privileged tests: apt-get install iproute2");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {error}");
}
