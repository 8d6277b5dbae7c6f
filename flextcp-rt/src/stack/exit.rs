//! What happens when the process ends in an orderly way: as the kernel does for its sockets, what was written is
//! still delivered and connections are closed, not forgotten.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::{CURRENT, Host};

/// How long the end of the process waits for peers to take the last bytes.
const DRAIN: Duration = Duration::from_secs(2);
/// Names a file to which every process appends its statistics, one line of JSON, when it ends.
const STATS_FILE: &str = "FLEXTCP_STATS_FILE";

/// Arranges for the orderly end. Called with the first core.
pub(super) fn register() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        OWNER.store(std::process::id(), Ordering::Relaxed);
        // SAFETY: `at_exit` is a plain function without unwinding out of it, and registering has no precondition.
        let refused = unsafe { libc::atexit(at_exit) };
        if refused != 0 {
            tracing::warn!("no exit handler could be registered: bytes written just before the end of the process may be lost");
        }
    });
}

/// The process that has the connections. One that it forks inherits the handler, and memory in which they seem its own.
static OWNER: AtomicU32 = AtomicU32::new(0);

extern "C" fn at_exit() {
    if OWNER.load(Ordering::Relaxed) != std::process::id() {
        return;
    }
    let Some(Ok(host)) = CURRENT.get() else {
        return;
    };
    apart(|| host.drain(DRAIN));
    apart(|| host.interfaces().restore_settings());
    apart(|| write_stats(host));
}

/// Does one duty of the end, whatever becomes of the others: a log that nobody reads any more can end one by a panic.
/// Unwinding must not cross into C, and there is nobody left to tell.
fn apart(duty: impl FnOnce()) {
    drop(catch_unwind(AssertUnwindSafe(duty)));
}

fn write_stats(host: &Host) {
    if let Some(path) = std::env::var_os(STATS_FILE)
        && let Ok(line) = serde_json::to_string(&host.stats())
        && let Ok(mut file) = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
    {
        drop(writeln!(file, "{line}"));
    }
}

impl Host {
    /// Closes every connection and turns the cores until the peers have taken everything, or `limit` is over; what is
    /// left then is the kernel's, where it may be given it.
    fn drain(&self, limit: Duration) {
        let cores = self.cores();
        let until = Instant::now() + limit;
        for core in &cores {
            core.close_all();
        }
        while Instant::now() < until {
            let mut pending = false;
            let mut work = 0;
            for core in &cores {
                if let Ok(turn) = core.turn(core.now()) {
                    work += turn.work;
                    pending |= core.has_unfinished();
                }
            }
            if !pending {
                return;
            }
            if work == 0 {
                std::thread::sleep(Duration::from_micros(50));
            }
        }
        let (mut taken, mut lost) = (0, 0);
        for core in &cores {
            let (by_kernel, by_nobody) = core.bequeath();
            taken += by_kernel;
            lost += by_nobody;
        }
        if taken > 0 {
            tracing::debug!(
                connections = taken,
                "the kernel delivers what peers have not taken yet"
            );
        }
        if lost > 0 {
            tracing::warn!(
                connections = lost,
                "peers had not taken everything at the end of the process, and the kernel could not be given the rest (that needs CAP_NET_ADMIN)"
            );
        }
    }
}
