//! `flextcp`: what keeps the NIC from serving on this machine, and what goes on in a process that it serves.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    tool::run(&args).unwrap_or_else(|error| {
        eprintln!("flextcp: {error}");
        ExitCode::FAILURE
    })
}

#[cfg(all(target_os = "linux", not(feature = "kernel")))]
mod tool {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;
    use std::process::ExitCode;

    use flextcp_rt::config::{self, Config};
    use flextcp_rt::host::doctor::{self, Severity};

    const HELP: &str = "\
What keeps the NIC from serving here, and what goes on in a process that it serves.

Usage:
  flextcp doctor             look at privileges, limits, AF_XDP and interfaces; say what is wrong and how to
                             mend it; exit code 1 if the NIC cannot serve. Changes nothing, sends nothing
  flextcp settings           every FLEXTCP_* variable, its TOML key, its values and its default
  flextcp ss [SOCKET]        listeners and connections of the process that was started with
                             FLEXTCP_CONTROL=SOCKET, and whether the NIC carries them
  flextcp stats [SOCKET]     its counters, as JSON
  flextcp metrics [SOCKET]   its counters, as Prometheus reads them
  flextcp help

Without SOCKET, FLEXTCP_CONTROL names it.

Examples:
  sudo flextcp doctor
  FLEXTCP_CONTROL=/run/http.flextcp http &
  flextcp ss /run/http.flextcp
";

    type Error = Box<dyn std::error::Error>;

    pub(super) fn run(args: &[&str]) -> Result<ExitCode, Error> {
        match args {
            ["doctor"] => return doctor(),
            ["settings"] => settings(),
            ["ss", socket @ ..] => ask(socket, "/connections")?,
            ["stats", socket @ ..] => ask(socket, "/stats")?,
            ["metrics", socket @ ..] => ask(socket, "/metrics")?,
            ["help" | "--help" | "-h"] => print(HELP),
            ["--version" | "-V"] => print(concat!("flextcp ", env!("CARGO_PKG_VERSION"), "\n")),
            [] => {
                eprint!("{HELP}");
                return Ok(ExitCode::FAILURE);
            }
            [other, ..] => return Err(format!("there is no {other:?}; see `flextcp help`").into()),
        }
        Ok(ExitCode::SUCCESS)
    }

    fn doctor() -> Result<ExitCode, Error> {
        let findings = doctor::diagnose(&Config::from_env()?)?;
        let mut healthy = true;
        for finding in &findings {
            print(&format!("{finding}\n"));
            healthy &= finding.severity != Severity::Problem;
        }
        if healthy {
            print("The NIC can serve here.\n");
            return Ok(ExitCode::SUCCESS);
        }
        print("The NIC cannot serve here: connections will be kernel sockets.\n");
        Ok(ExitCode::FAILURE)
    }

    fn settings() {
        print("| variable | TOML key | values | default |\n|---|---|---|---|\n");
        for setting in config::settings() {
            print(&format!("{setting}\n"));
        }
    }

    fn ask(socket: &[&str], path: &str) -> Result<(), Error> {
        let named = std::env::var("FLEXTCP_CONTROL").ok();
        let socket = match (socket, &named) {
            ([socket], _) => socket,
            ([], Some(socket)) => socket.as_str(),
            ([], None) => {
                return Err(
                    "which process? Name its control socket, here or in FLEXTCP_CONTROL".into(),
                );
            }
            _ => return Err("one control socket at a time".into()),
        };
        let mut stream = UnixStream::connect(socket).map_err(|error| {
            format!(
                "{socket}: {error}; is a program running that was started with FLEXTCP_CONTROL={socket}?"
            )
        })?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        if !head.starts_with("HTTP/1.0 200 ") {
            return Err(format!("{socket}: {head}").into());
        }
        print(body);
        Ok(())
    }

    /// To a reader that may have left, as `head` does.
    fn print(text: &str) {
        let _ = std::io::stdout().write_all(text.as_bytes());
    }
}

#[cfg(any(not(target_os = "linux"), feature = "kernel"))]
mod tool {
    use std::process::ExitCode;

    pub(super) fn run(_args: &[&str]) -> Result<ExitCode, String> {
        Err(
            "there is no NIC in this build: it is for another system than Linux, or has the feature `kernel`"
                .to_owned(),
        )
    }
}
