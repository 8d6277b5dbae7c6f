//! Loading and attaching `bpf/steer.c`.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::Ordering;

use aya::maps::{HashMap, MapData, MapError, PerCpuArray, XskMap};
use aya::programs::{ProgramError, SchedClassifier, Xdp};
use aya::{BtfError, Ebpf, EbpfError, EbpfLoader};

use super::mapping::Mapping;
use super::single::Singles;
use super::steering::{Maps, OwnedKey, SteeringCounters, TupleKey};

static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../bpf/steer.o");

const CONNECTIONS_FULL: &str = "more connections outlive their listeners than the steering table holds (131,072): until \
    there are fewer, whoever listens there next gets no new ones";

const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_XDP: u32 = 37;
const BPF_TCX_EGRESS: u32 = 47;
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// The loaded program, its socket map and its steering tables.
pub(super) struct Program {
    pub(super) ebpf: Ebpf,
    pub(super) sockets: XskMap<MapData>,
    pub(super) maps: KernelMaps,
    /// Maps that are only mapped: a program that is still to be loaded names their descriptors.
    _mapped: [aya::maps::Map; 2],
}

/// Loads the program.
///
/// # Errors
/// The kernel refused: `EPERM` without CAP_BPF and CAP_NET_ADMIN, `EACCES` without CAP_PERFMON.
pub(super) fn load() -> io::Result<Program> {
    let mut ebpf = EbpfLoader::new().load(OBJECT).map_err(from_ebpf)?;
    let mut map = |name: &str| {
        ebpf.take_map(name)
            .ok_or_else(|| io::Error::other("steer.o lacks a map"))
    };
    let sockets = XskMap::try_from(map("SOCKETS")?).map_err(from_map)?;
    let (singles, ports) = (map("SINGLE")?, map("PORTS")?);
    let maps = KernelMaps {
        owned: HashMap::try_from(map("OWNED")?).map_err(from_map)?,
        hashed: HashSet::new(),
        singles: Singles::new(mapped::<[u64; 3]>(&singles, 65536)?),
        ports: mapped::<u64>(&ports, 1024)?,
        excluded: HashMap::try_from(map("EXCLUDED")?).map_err(from_map)?,
        connections: HashMap::try_from(map("CONNECTIONS")?).map_err(from_map)?,
        counts: PerCpuArray::try_from(map("COUNTS")?).map_err(from_map)?,
    };
    let program: &mut Xdp = ebpf
        .program_mut("steer")
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| io::Error::other("steer.o lacks its XDP program"))?;
    program.load().map_err(from_program)?;
    Ok(Program {
        ebpf,
        sockets,
        maps,
        _mapped: [singles, ports],
    })
}

/// An array map's values as memory.
fn mapped<T>(map: &aya::maps::Map, entries: usize) -> io::Result<Mapping> {
    let aya::maps::Map::Array(data) = map else {
        return Err(io::Error::other("steer.o: a map to be mapped is no array"));
    };
    Mapping::shared(data.fd().as_fd(), 0, entries * size_of::<T>())
}

impl Program {
    /// Attaches to an interface by a link, which the kernel detaches when its last descriptor is closed: also
    /// when the process is killed.
    ///
    /// # Errors
    /// `EBUSY` or `EEXIST`: the interface has a program; others: the mode is not supported.
    pub(super) fn attach(&mut self, ifindex: u32, generic: bool) -> io::Result<OwnedFd> {
        let program: &mut Xdp = self
            .ebpf
            .program_mut("steer")
            .and_then(|program| program.try_into().ok())
            .ok_or_else(|| io::Error::other("steer.o lacks its XDP program"))?;
        let fd = program.fd().map_err(from_program)?;
        let flags = if generic {
            XDP_FLAGS_SKB_MODE
        } else {
            XDP_FLAGS_DRV_MODE
        };
        link(fd.as_fd(), ifindex, BPF_XDP, flags)
    }

    /// Loads `bypass` and attaches it, closed, to what leaves an interface, by such a link too. Returns the map that opens
    /// it, and the link.
    ///
    /// # Errors
    /// `EINVAL` before Linux 6.6, which has no such links; the verifier's, where the kernel does not tell its types
    /// (`CONFIG_DEBUG_INFO_BTF`).
    pub(super) fn attach_bypass(&mut self, ifindex: u32) -> io::Result<(Mapping, OwnedFd)> {
        let map = self
            .ebpf
            .map("BULK")
            .ok_or_else(|| io::Error::other("steer.o lacks a map"))?;
        let map = mapped::<[u64; 2]>(map, 1)?;
        let program: &mut SchedClassifier = self
            .ebpf
            .program_mut("bypass")
            .and_then(|program| program.try_into().ok())
            .ok_or_else(|| io::Error::other("steer.o lacks its program for bulk"))?;
        program.load().map_err(from_program)?;
        let fd = program.fd().map_err(from_program)?;
        Ok((map, link(fd.as_fd(), ifindex, BPF_TCX_EGRESS, 0)?))
    }
}

/// aya's own attach falls back to netlink, which leaves the program behind when the process is killed.
fn link(
    program: BorrowedFd<'_>,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    /// `union bpf_attr`, its `link_create` part and zeroes.
    #[repr(C)]
    struct LinkCreate {
        prog_fd: u32,
        target_ifindex: u32,
        attach_type: u32,
        flags: u32,
        rest: [u64; 6],
    }
    let mut attr = LinkCreate {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        target_ifindex: ifindex,
        attach_type,
        flags,
        rest: [0; 6],
    };
    // SAFETY: the attribute is a zero-extended `link_create` and lives across the call; its size is passed along.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_LINK_CREATE,
            &raw mut attr,
            size_of::<LinkCreate>(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The tables in the kernel.
pub(super) struct KernelMaps {
    owned: HashMap<MapData, OwnedKey, u32>,
    /// The keys of `owned`; all others are in `singles`.
    hashed: HashSet<OwnedKey>,
    singles: Singles,
    ports: Mapping,
    excluded: HashMap<MapData, TupleKey, u32>,
    connections: HashMap<MapData, TupleKey, u32>,
    counts: PerCpuArray<MapData, u64>,
}

impl Maps for KernelMaps {
    fn set_owned(&mut self, key: OwnedKey, flags: u32) -> io::Result<()> {
        if flags == 0 && !self.hashed.contains(&key) && self.singles.set(&key) {
            return Ok(());
        }
        self.owned.insert(key, flags, 0).map_err(from_map)?;
        self.hashed.insert(key);
        self.singles.clear(&key);
        Ok(())
    }

    fn remove_owned(&mut self, key: OwnedKey) -> io::Result<()> {
        if self.singles.clear(&key) {
            return Ok(());
        }
        self.hashed.remove(&key);
        self.owned.remove(&key).map_err(from_map)
    }

    fn set_ports(&mut self, word: u32, bits: u64) -> io::Result<()> {
        let word = self
            .ports
            .word(word as usize)
            .ok_or(io::ErrorKind::InvalidInput)?;
        word.store(bits, Ordering::Release);
        Ok(())
    }

    fn set_excluded(&mut self, key: TupleKey) -> io::Result<()> {
        self.excluded.insert(key, 0, 0).map_err(from_map)
    }

    fn remove_excluded(&mut self, key: TupleKey) -> io::Result<()> {
        self.excluded.remove(&key).map_err(from_map)
    }

    fn set_connection(&mut self, key: TupleKey) -> io::Result<()> {
        let entered = self.connections.insert(key, 0, 0).map_err(from_map);
        entered.map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull => io::Error::new(error.kind(), CONNECTIONS_FULL),
            _ => error,
        })
    }

    fn remove_connection(&mut self, key: TupleKey) -> io::Result<()> {
        self.connections.remove(&key).map_err(from_map)
    }

    fn counts(&self) -> io::Result<SteeringCounters> {
        let sum = |index: u32| -> io::Result<u64> {
            let values = self.counts.get(&index, 0).map_err(from_map)?;
            Ok(values.iter().sum())
        };
        Ok(SteeringCounters {
            redirected: sum(0)?,
            passed: sum(1)?,
            excluded: sum(2)?,
        })
    }
}

/// The operating system's error inside of aya's, when there is one: its kind is what callers decide by.
pub(super) fn from_map(error: MapError) -> io::Error {
    let io_error = match &error {
        MapError::SyscallError(call) => &call.io_error,
        MapError::CreateError { io_error, .. } | MapError::IoError(io_error) => io_error,
        _ => return io::Error::other(error),
    };
    if io_error.raw_os_error() == Some(libc::E2BIG) {
        let text = "the steering table is full (65,536 entries)";
        return io::Error::new(io::ErrorKind::StorageFull, text);
    }
    match io_error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::other(error),
    }
}

pub(super) fn from_program(error: ProgramError) -> io::Error {
    let code = match &error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            tracing::debug!(%error, "the kernel's verifier refuses the program");
            let text = match verdict(&verifier_log.to_string()) {
                Some(verdict) => format!("{io_error}: {verdict}"),
                None => io_error.to_string(),
            };
            return io::Error::new(io_error.kind(), text);
        }
        ProgramError::SyscallError(call) => call.io_error.raw_os_error(),
        _ => None,
    };
    code.map_or_else(|| io::Error::other(error), io::Error::from_raw_os_error)
}

/// What the verifier objects to: its last line, but for its statistics, of what may be thousands.
fn verdict(log: &str) -> Option<&str> {
    const STATISTICS: [&str; 3] = ["processed ", "stack depth ", "verification time "];
    let mut lines = log.lines().rev().map(str::trim);
    lines.find(|line| !line.is_empty() && !STATISTICS.iter().any(|of| line.starts_with(of)))
}

pub(super) fn from_ebpf(error: EbpfError) -> io::Error {
    match error {
        EbpfError::MapError(error) => from_map(error),
        EbpfError::ProgramError(error) => from_program(error),
        EbpfError::BtfError(BtfError::LoadError { io_error, .. }) => io_error,
        error => io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_of_a_long_log_is_told() {
        let log = "0: R1=ctx()\n46: (0f) r2 += r3\nR2 is not allowed\nverification time 9 usec\nstack depth 64\n\
                   processed 47 insns\n";
        assert_eq!(verdict(log), Some("R2 is not allowed"));
        assert_eq!(verdict("processed 1 insns\n"), None);
    }
}
