//! The control socket: what goes on in a process, for people and monitors, over a Unix socket of the user's choice.
//!
//! It speaks just enough HTTP that curl is a client:
//! `curl --unix-socket /run/app.flextcp http://flextcp/connections`.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use super::Host;

/// A client that says nothing, or takes nothing, holds up the next one no longer than this.
const PATIENCE: Duration = Duration::from_secs(2);

/// A request's first line and headers are shorter, or not for us.
const REQUEST_MAX: u64 = 8 << 10;

const PATHS: &str = "/stats (JSON), /metrics (Prometheus), /connections, /connections.json\n";

/// Serves at `path` from a thread of its own, for as long as the process lives.
pub(super) fn start(host: &Arc<Host>, path: &Path) -> io::Result<()> {
    let listener = bind(path)?;
    let host = Arc::downgrade(host);
    std::thread::Builder::new()
        .name("flextcp-control".into())
        .spawn(move || {
            for client in listener.incoming() {
                let Some(host) = host.upgrade() else {
                    return;
                };
                if let Err(error) = client.and_then(|client| answer(&host, &client)) {
                    tracing::debug!(%error, "a client of the control socket left early");
                }
            }
        })?;
    Ok(())
}

/// Takes over the path of a process that is gone, and no other's.
fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Ok(data) = fs::symlink_metadata(path)
        && data.file_type().is_socket()
        && UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    {
        fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Before anybody can connect: it tells who talks to whom.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    socket.listen(16)?;
    Ok(socket.into())
}

fn answer(host: &Host, client: &UnixStream) -> io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(client.take(REQUEST_MAX));
    let mut request = String::new();
    lines.read_line(&mut request)?;
    let mut header = String::from("x");
    while !header.trim_end().is_empty() {
        header.clear();
        lines.read_line(&mut header)?;
    }
    let path = request
        .strip_prefix("GET ")
        .and_then(|rest| rest.split(' ').next());
    let (status, kind, body) = match path {
        Some("/stats") => ("200 OK", "application/json", json(&host.stats())),
        Some("/metrics") => (
            "200 OK",
            "text/plain; version=0.0.4",
            host.stats().to_prometheus(),
        ),
        Some("/connections") => ("200 OK", "text/plain", host.connections().to_string()),
        Some("/connections.json") => ("200 OK", "application/json", json(&host.connections())),
        _ => ("404 Not Found", "text/plain", format!("there are: {PATHS}")),
    };
    let mut client = client;
    write!(
        client,
        "HTTP/1.0 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn json(value: &impl serde::Serialize) -> String {
    let text = serde_json::to_string_pretty(value);
    text.map_or_else(|error| format!("{error}\n"), |text| text + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, NicChoice};

    fn host() -> Arc<Host> {
        Host::start(Config::builder().nic(NicChoice::Off).build().unwrap())
    }

    fn ask(path: &Path, request: &str) -> String {
        let mut client = UnixStream::connect(path).unwrap();
        client.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        answer
    }

    fn scratch(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("flextcp-{}-{name}", std::process::id()))
    }

    #[test]
    fn every_path_is_answered_and_any_other_explained() {
        let (host, path) = (host(), scratch("answers"));
        start(&host, &path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        for (request, expected) in [
            ("GET /stats HTTP/1.1\r\nHost: x\r\n\r\n", "\"fast_path\""),
            ("GET /metrics HTTP/1.0\r\n\r\n", "flextcp_nic_info"),
            ("GET /connections HTTP/1.0\r\n\r\n", "STATE"),
            ("GET /connections.json HTTP/1.0\r\n\r\n", "\"connections\""),
            ("GET /else HTTP/1.0\r\n\r\n", "404"),
            ("nonsense\n\n", "404"),
        ] {
            let answer = ask(&path, request);
            assert!(answer.contains(expected), "{request}: {answer}");
        }
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn the_path_of_a_process_that_is_gone_is_taken_over_and_no_other() {
        let path = scratch("stale");
        drop(bind(&path).unwrap());
        let held = bind(&path).expect("nobody listens there");
        let error = bind(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(held);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "a file").unwrap();
        assert!(bind(&path).is_err(), "a file is not ours to remove");
        fs::remove_file(&path).unwrap();
    }
}
