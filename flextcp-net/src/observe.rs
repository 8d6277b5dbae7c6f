//! What goes on below: counters and connections of this process, as text. Typed, they are `flextcp_rt::Host`'s `stats` and
//! `connections`.
//!
//! Without a line of code the same is at the socket that `FLEXTCP_CONTROL` names: `flextcp ss PATH`, or
//! `curl --unix-socket PATH http://flextcp/metrics`. With the feature `kernel`, and on systems other than Linux, there is
//! nothing to tell: the texts are empty.
//!
//! ```no_run
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! use flextcp_net::{TcpListener, observe};
//!
//! let listener = TcpListener::bind("127.0.0.1:0").await?;
//! print!("{}", observe::prometheus());
//! print!("{}", observe::connections());
//! # drop(listener);
//! # Ok(())
//! # }
//! ```

/// The counters of this process as JSON, as the `http` example's `/stats` shows them: `nic.kind`,
/// `fast_path.bytes_in`, `connections.offloaded` and more.
pub fn stats_json() -> String {
    backend::stats_json()
}

/// The same in Prometheus's text exposition format, to be served as `text/plain; version=0.0.4`.
pub fn prometheus() -> String {
    backend::prometheus()
}

/// A table of what FlexTCP listens at and carries, a line each, like `ss -tin` of kernel sockets (which are not in it). All cores are
/// held up while it is made: about a millisecond for 10,000 connections.
pub fn connections() -> String {
    backend::connections()
}

#[cfg(all(target_os = "linux", not(feature = "kernel")))]
mod backend {
    use std::sync::Arc;

    use flextcp_rt::Host;

    pub(super) fn stats_json() -> String {
        host(|host| host.stats().to_json())
    }

    pub(super) fn prometheus() -> String {
        host(|host| host.stats().to_prometheus())
    }

    pub(super) fn connections() -> String {
        host(|host| host.connections().to_string())
    }

    /// A bad configuration is an error of the first socket, not of who looks on.
    fn host(tell: impl FnOnce(Arc<Host>) -> String) -> String {
        Host::current().map_or_else(|_| String::new(), tell)
    }
}

#[cfg(any(not(target_os = "linux"), feature = "kernel"))]
mod backend {
    pub(super) const fn stats_json() -> String {
        String::new()
    }

    pub(super) const fn prometheus() -> String {
        String::new()
    }

    pub(super) const fn connections() -> String {
        String::new()
    }
}
