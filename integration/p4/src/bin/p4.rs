//! Checks and runs the firmware's P4.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use flextcp_p4::{Machine, Packet, Program, Tables, pcap};

/// Checks and runs P4-16 programs of the subset that FlexTCP's Netronome firmware uses.
///
/// Programs that pass have not been seen by the vendor's compiler, which nobody can have here.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Checks a program against the subset and the card's rules; prints what it consists of.
    Check {
        /// The program, as flextcp-nic/firmware/p4/fx_main.p4.
        program: PathBuf,
        /// Rules to check against the program's tables.
        #[arg(long)]
        rules: Option<PathBuf>,
    },
    /// Sends the frames of a capture through a program; prints what becomes of each. Externs do nothing: a frame of an
    /// installed flow shows as dropped, with its metadata.
    Run {
        /// The program.
        program: PathBuf,
        /// Rules to load.
        #[arg(long)]
        rules: Option<PathBuf>,
        /// Frames: a pcap file of an Ethernet link.
        #[arg(long)]
        pcap: PathBuf,
        /// The port that frames come in on: 0 is p0, 0x300 the first virtual function.
        #[arg(long, default_value = "0", value_parser = port)]
        port: u16,
        /// Words of metadata to print for each frame, with commas between them.
        #[arg(
            long,
            value_delimiter = ',',
            default_value = "verdict,queue,flow,malformed"
        )]
        show: Vec<String>,
    },
}

fn port(text: &str) -> Result<u16, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u16::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|error| format!("write a number as 0 or 0x300: {error}"))
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), String> {
    match command {
        Command::Check { program, rules } => {
            let checked = Program::from_file(&program).map_err(|refusal| refusal.to_string())?;
            load(&checked, rules.as_deref())?;
            println!("{}: accepted", program.display());
            println!("  {} parser states", checked.states());
            println!("  tables: {}", list(checked.tables()));
            println!("  externs: {}", list(checked.externs()));
            Ok(())
        }
        Command::Run {
            program,
            rules,
            pcap,
            port,
            show,
        } => {
            let program = Program::from_file(&program).map_err(|refusal| refusal.to_string())?;
            for name in &show {
                if !program.metadata().any(|known| known == name) {
                    let known = list(program.metadata());
                    return Err(format!("--show: no word {name}; there are {known}"));
                }
            }
            let tables = load(&program, rules.as_deref())?;
            let file = read(&pcap)?;
            let frames = pcap::frames(&file).map_err(|e| format!("{}: {e}", pcap.display()))?;
            let mut machine = Machine::new(&program, &tables);
            for (number, frame) in frames.iter().enumerate() {
                let outcome = machine.process(frame, port, &mut |_: &str, _: &mut Packet<'_>| {});
                let to = outcome
                    .egress
                    .map_or_else(|| "dropped".to_owned(), |port| format!("to {port:#x}"));
                print!("{}: {} bytes, {to}", number + 1, frame.len());
                for name in &show {
                    print!(", {name} {}", machine.metadata(name).unwrap_or_default());
                }
                println!("{}", if outcome.truncated { ", cut short" } else { "" });
            }
            Ok(())
        }
    }
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

fn load(program: &Program, rules: Option<&Path>) -> Result<Tables, String> {
    let Some(path) = rules else {
        return Ok(Tables::new(program));
    };
    let text = read(path)?;
    let text = String::from_utf8(text).map_err(|error| format!("{}: {error}", path.display()))?;
    Tables::load(program, &text).map_err(|error| format!("{}: {error}", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}
