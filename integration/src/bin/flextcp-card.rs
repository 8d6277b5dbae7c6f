//! The emulated Netronome card as a process of its own: `FLEXTCP_NIC=nfp-emu:<socket>` in another program uses it.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser};
use flextcp_nic::nfp::emulator::{EmulatorConfig, Schedule};
use flextcp_nic::nfp::process::card::CardServer;
use flextcp_nic::port::Port;
use flextcp_nic::port::unix::UnixPort;
use flextcp_nic::port::xdp::{Steering, XdpConfig, XdpInterface};
use flextcp_nic::wire::MacAddr;
use tracing_subscriber::EnvFilter;

const EXAMPLES: &str = "\
Examples:
  flextcp-card --socket /run/card.sock --interface eth0
  FLEXTCP_NIC=nfp-emu:/run/card.sock FLEXTCP_INTERFACES=eth0 your-program

The card serves one program at a time and is reset when that one goes. It works until it is killed; who used it then gets an
error, and its peers are reset by the kernel. RUST_LOG sets what is logged to standard error, like RUST_LOG=debug.";

/// The emulated Netronome card, for programs that set FLEXTCP_NIC=nfp-emu:SOCKET.
#[derive(Debug, Parser)]
#[command(name = "flextcp-card", version, after_help = EXAMPLES)]
struct Cli {
    /// Socket to make, to which the host connects; only this user may
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,

    #[command(flatten)]
    wire: Wire,

    /// Flows, a power of two
    #[arg(long, default_value_t = EmulatorConfig::default().flows)]
    flows: u32,

    /// Flow engines, a power of two
    #[arg(long, default_value_t = EmulatorConfig::default().groups)]
    groups: u32,

    /// Seed of the engines' order
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Carry DMA out late and in any order
    #[arg(long)]
    hostile: bool,

    /// Microseconds to look for work before sleeping
    #[arg(long, value_name = "N", default_value_t = 20)]
    spin: u64,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Wire {
    /// Interface with one queue, over AF_XDP
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,

    /// Socket of another process, which passes Ethernet frames of up to 1500 bytes of IP, one a message
    #[arg(long, value_name = "PATH")]
    wire: Option<PathBuf>,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flextcp-card: {error}");
            ExitCode::FAILURE
        }
    }
}

type Opened = (Box<dyn Port>, Option<Steering>, Option<XdpInterface>);

fn open(wire: &Wire) -> Result<Opened, Box<dyn Error>> {
    if let Some(path) = &wire.wire {
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        return Ok((Box::new(UnixPort::connect(path, mac, 1500)?), None, None));
    }
    let name = wire.interface.as_deref().unwrap_or_default();
    let interface = XdpInterface::attach(name, XdpConfig::default())?;
    if interface.queues() != 1 {
        return Err(format!(
            "{name} has {} queues, and the card one; set one: ethtool -L {name} combined 1",
            interface.queues()
        )
        .into());
    }
    let port = interface.queue(0)?;
    let steering = interface.steering();
    Ok((Box::new(port), Some(steering), Some(interface)))
}

fn run(cli: &Cli) -> Result<(), Box<dyn Error>> {
    // The interface keeps its program attached.
    let (port, steering, _interface) = open(&cli.wire)?;
    let mut config = EmulatorConfig {
        seed: cli.seed,
        flows: cli.flows,
        groups: cli.groups,
        ..EmulatorConfig::default()
    };
    if cli.hostile {
        config.schedule = Schedule::Hostile;
    }
    let name = port.info().name.clone();
    let spin = Duration::from_micros(cli.spin);
    let mut server = CardServer::new(&cli.socket, port, steering, config, spin)?;
    println!("flextcp-card: serving {name} at {}", cli.socket.display());
    loop {
        server.serve()?;
        println!("flextcp-card: the host is gone, the card is reset");
    }
}
