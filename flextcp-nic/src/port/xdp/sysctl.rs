//! The two settings without which IPv4 on `lo` drops frames that did not come from its own sockets.

use std::fs;
use std::io;

const SETTINGS: [&str; 2] = [
    "/proc/sys/net/ipv4/conf/lo/route_localnet",
    "/proc/sys/net/ipv4/conf/lo/accept_local",
];

/// Puts back on drop what it changed.
#[derive(Debug, Default)]
pub(super) struct LoopbackSettings {
    changed: Vec<(&'static str, String)>,
}

impl LoopbackSettings {
    /// Allows IPv4 frames from and to 127.0.0.0/8 that arrive on `lo` from outside of the IP stack.
    ///
    /// # Errors
    /// A setting could not be changed; those changed before are put back.
    pub(super) fn apply() -> io::Result<Self> {
        let mut settings = Self::default();
        for path in SETTINGS {
            let name = path.trim_start_matches("/proc/sys/").replace('/', ".");
            let explain = |error: io::Error| {
                let text = format!(
                    "IPv4 on lo needs {name}=1 and it could not be set: {error}; run `sysctl -w {name}=1` as root"
                );
                io::Error::new(error.kind(), text)
            };
            let before = fs::read_to_string(path).map_err(explain)?;
            if before.trim() == "1" {
                continue;
            }
            fs::write(path, "1").map_err(explain)?;
            settings.changed.push((path, before));
        }
        if !settings.changed.is_empty() {
            tracing::info!(
                "set net.ipv4.conf.lo.route_localnet=1 and accept_local=1 for IPv4; put back at the end"
            );
        }
        Ok(settings)
    }
}

impl Drop for LoopbackSettings {
    fn drop(&mut self) {
        for (path, before) in self.changed.drain(..) {
            if let Err(error) = fs::write(path, &before) {
                tracing::warn!("could not put {path} back to {}: {error}", before.trim());
            }
        }
    }
}
