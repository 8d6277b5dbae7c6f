//! The options that every example server has.

use std::net::SocketAddr;
use std::time::Duration;

use crate::listener::Transport;

/// Options common to the three servers.
#[derive(Debug, Clone, clap::Args)]
pub struct ServerArgs {
    /// Serve on kernel sockets (tokio::net) instead of FlexTCP
    #[arg(long)]
    pub kernel: bool,

    /// Worker threads: 0 for one per core, 1 for a single-threaded runtime
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = thread_count)]
    pub threads: usize,

    /// A thread, a single-threaded runtime, a NIC queue and a listener for each core (for each of --threads, if given);
    /// a connection stays on one core from the wire to its handler
    #[arg(long, conflicts_with = "kernel")]
    pub per_core: bool,

    /// How long a graceful stop (SIGINT, SIGTERM) waits for open connections
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub drain: u64,
}

impl ServerArgs {
    /// Which sockets to serve on.
    #[must_use]
    pub fn transport(&self) -> Transport {
        if self.kernel {
            Transport::Kernel
        } else {
            Transport::FlexTcp
        }
    }

    /// How long a graceful stop waits for open connections.
    #[must_use]
    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.drain)
    }
}

/// Parses the value of `--listen`.
///
/// # Errors
///
/// A text that says what the value has to look like.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "expected ADDRESS:PORT with a numeric address, like 127.0.0.1:8080 or [::1]:8080 \
         (port 0 takes a free one)"
            .to_owned()
    })
}

fn thread_count(text: &str) -> Result<usize, String> {
    const LIMIT: usize = 1024;
    match text.parse() {
        Ok(n) if n <= LIMIT => Ok(n),
        _ => Err(format!("expected a number from 0 to {LIMIT}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_parse() {
        assert_eq!(
            listen_address("127.0.0.1:80"),
            Ok(([127, 0, 0, 1], 80).into())
        );
        assert_eq!(
            listen_address("[::1]:0").map(|address| address.port()),
            Ok(0)
        );
    }

    #[test]
    fn a_wrong_address_is_explained() {
        for wrong in ["", "8080", "localhost:80", "127.0.0.1", "127.0.0.1:99999"] {
            let error = listen_address(wrong).unwrap_err();
            assert!(error.contains("ADDRESS:PORT"), "{wrong}: {error}");
        }
    }

    #[test]
    fn thread_counts_are_bounded() {
        assert_eq!(thread_count("0"), Ok(0));
        assert_eq!(thread_count("64"), Ok(64));
        assert!(thread_count("-1").is_err());
        assert!(thread_count("99999999").is_err());
    }
}
