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

    /// How long a graceful stop (SIGINT, SIGTERM) waits for open connections: 1s, 500ms, 2min, or seconds
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub drain: Duration,
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
}

/// Longest time that an option takes.
const YEAR: Duration = Duration::from_secs(366 * 24 * 3_600);

/// Parses a time: a number with `us`, `ms`, `s`, `min` or `h`, or a number of seconds.
///
/// # Errors
///
/// A text that says what the value has to look like.
pub fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(unit_at.unwrap_or(text.len()));
    let seconds = match unit.trim() {
        "us" => Some(1e-6),
        "ms" => Some(1e-3),
        "" | "s" => Some(1.0),
        "min" => Some(60.0),
        "h" => Some(3_600.0),
        _ => None,
    };
    number
        .parse::<f64>()
        .ok()
        .zip(seconds)
        .and_then(|(number, seconds)| Duration::try_from_secs_f64(number * seconds).ok())
        .filter(|time| *time <= YEAR)
        .ok_or_else(|| {
            "expected a time of a year at most: 1s, 500ms, 250us, 2min, 1.5h, or a number of seconds"
                .to_owned()
        })
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
    fn times_are_numbers_with_a_unit_or_seconds() {
        for (text, millis) in [
            ("1s", 1_000),
            ("500ms", 500),
            ("1500us", 1),
            ("2min", 120_000),
            ("1.5h", 5_400_000),
            ("10", 10_000),
            ("0", 0),
            (" 3 s ", 3_000),
        ] {
            let time = duration(text).map(|time| time.as_millis());
            assert_eq!(time, Ok(millis), "{text:?}");
        }
    }

    #[test]
    fn a_wrong_time_is_explained() {
        for wrong in [
            "",
            "s",
            "-1s",
            "1 year",
            "1d",
            "1s2",
            "1e9",
            "nan",
            "inf",
            "..",
            "9999h",
            "99999999999999999999",
        ] {
            let error = duration(wrong).unwrap_err();
            for form in ["1s", "500ms", "a number of seconds"] {
                assert!(error.contains(form), "{wrong:?}: {error}");
            }
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
