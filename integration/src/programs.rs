//! The example servers and third-party clients.

use std::ffi::OsStr;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::netns::{self, Namespace};
use crate::process::{self, Finished, Process};

const START: Duration = Duration::from_secs(20);

/// The executable of a binary of this workspace, built with the profile of the caller.
///
/// # Errors
/// When it does not build.
pub fn workspace_binary(name: &str) -> io::Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let directory = BUILT.get_or_init(|| build().map_err(|error| error.to_string()));
    match directory {
        Ok(directory) => Ok(directory.join(name)),
        Err(error) => Err(io::Error::other(error.clone())),
    }
}

fn build() -> io::Result<PathBuf> {
    // A test runs in target/PROFILE/deps, a binary in target/PROFILE.
    let mut directory = std::env::current_exe()?;
    directory.pop();
    if directory.file_name() == Some(OsStr::new("deps")) {
        directory.pop();
    }
    let profile = match directory.file_name().and_then(OsStr::to_str) {
        None | Some("debug") => "dev",
        Some(other) => other,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--quiet", "--profile", profile, "--bins"])
        .args(["--package", "flextcp-examples", "--package", "integration"])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    if let Some(target) = directory.parent() {
        command.arg("--target-dir").arg(target);
    }
    let built = process::run(command, Duration::from_secs(900))?;
    if !built.status.success() {
        return Err(io::Error::other(format!(
            "the examples do not build: {}",
            built.stderr
        )));
    }
    Ok(directory)
}

/// True when all `tools` are installed; otherwise says that `test` is skipped.
///
/// # Panics
/// Where privileges and tools are required.
pub fn require_tools(test: &str, tools: &[&str]) -> bool {
    tools.iter().all(|tool| {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&paths).any(|directory| directory.join(tool).is_file())
            || netns::skip(test, &format!("{tool} is not installed"))
    })
}

/// A running example server.
#[derive(Debug)]
pub struct Server {
    /// Its process.
    pub process: Process,
    /// Its address.
    pub address: SocketAddr,
    /// Whether it speaks TLS.
    pub tls: bool,
}

/// How an example server is started.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// `http`, `memcached` or `echo`.
    pub name: &'static str,
    /// Address to listen on.
    pub listen: IpAddr,
    /// Port to listen on; 0: any.
    pub port: u16,
    /// The device to accelerate.
    pub device: &'static str,
    /// More arguments.
    pub args: Vec<&'static str>,
    /// More variables.
    pub env: Vec<(&'static str, String)>,
}

impl ServerOptions {
    /// `name` on `listen`, accelerating `device`, with no more arguments.
    pub fn new(name: &'static str, listen: IpAddr, device: &'static str) -> Self {
        Self {
            name,
            listen,
            port: 0,
            device,
            args: Vec::new(),
            env: Vec::new(),
        }
    }
}

impl Server {
    /// Starts an example inside `namespace` and waits until it listens.
    ///
    /// # Errors
    /// When it cannot be built or started.
    pub fn start(namespace: &Namespace, options: &ServerOptions) -> io::Result<Self> {
        let program = workspace_binary(options.name)?;
        Self::start_command(namespace.command(program), options)
    }

    /// Starts `command`, to which the example's arguments are added.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_command(mut command: Command, options: &ServerOptions) -> io::Result<Self> {
        let listen = SocketAddr::new(options.listen, options.port);
        command
            .args(["--listen", &listen.to_string()])
            .args(&options.args)
            .env("FLEXTCP_INTERFACES", options.device)
            .envs(options.env.iter().map(|(key, value)| (key, value)));
        let mut process = Process::spawn(command)?;
        let address = process.wait_listening(START)?;
        Ok(Self {
            process,
            address,
            tls: options.args.contains(&"--tls"),
        })
    }

    /// A URL of the server.
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.address)
    }
}

/// Runs a third-party client inside `namespace` to a successful end.
///
/// # Errors
/// With all it printed, when it fails or takes longer than `limit`.
pub fn client<'a>(
    namespace: &Namespace,
    program: impl AsRef<Path>,
    args: impl IntoIterator<Item = &'a str>,
    limit: Duration,
) -> io::Result<Finished> {
    let mut command = namespace.command(program.as_ref());
    command.args(args);
    let text = format!("{command:?}");
    let finished = process::run(command, limit)
        .map_err(|error| io::Error::new(error.kind(), format!("{text}: {error}")))?;
    if finished.status.success() {
        return Ok(finished);
    }
    let Finished {
        status,
        stdout,
        stderr,
    } = finished;
    Err(io::Error::other(format!(
        "{text}: {status}\n{stdout}{stderr}"
    )))
}
