//! The steering programs run on single frames, without an interface (`BPF_PROG_TEST_RUN`).

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
#[cfg(test)]
use std::path::Path;

use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader};

use super::hardware::CardMaps;
use super::program::{self, Program, from_program};
use super::steering::{OwnedKey, Steering, SteeringCounters};

use crate::flow::FlowTuple;

/// Buckets of the hash by which the card spreads connections over queues.
pub const HARDWARE_BUCKETS: u32 = super::hardware::HARDWARE_BUCKETS;

const BPF_PROG_TEST_RUN: libc::c_long = 10;

/// What `bpf/steer.c` did with a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Steered {
    /// Ours: to the socket of its queue.
    Redirected,
    /// The kernel's.
    Passed,
    /// For an address and port of ours, of a connection that the kernel has.
    Excluded,
}

/// `bpf/steer.c`, loaded but attached to nothing.
#[derive(Debug)]
pub struct Trial {
    ebpf: Ebpf,
    steering: Steering,
    before: SteeringCounters,
}

impl Trial {
    /// Loads the program.
    ///
    /// # Errors
    /// `EPERM` without CAP_BPF and CAP_NET_ADMIN.
    pub fn new() -> io::Result<Self> {
        let Program { ebpf, maps, .. } = program::load()?;
        Ok(Self {
            ebpf,
            steering: Steering::new(Box::new(maps), None),
            before: SteeringCounters::default(),
        })
    }

    /// Its tables; a wildcard stands for itself.
    pub const fn steering(&self) -> &Steering {
        &self.steering
    }

    /// Runs it on a frame.
    ///
    /// # Errors
    /// `EINVAL` for a frame shorter than an Ethernet header, which the kernel does not run programs on.
    pub fn run(&mut self, frame: &[u8]) -> io::Result<Steered> {
        let verdict = run(program_of(&mut self.ebpf, "steer")?, frame)?;
        let now = self.steering.counters()?;
        let before = std::mem::replace(&mut self.before, now);
        let steered = if now.redirected > before.redirected {
            Steered::Redirected
        } else if now.excluded > before.excluded {
            Steered::Excluded
        } else {
            Steered::Passed
        };
        // No socket is bound, so that a redirection falls back to passing, too.
        if verdict == XDP_PASS {
            Ok(steered)
        } else {
            Err(io::Error::other(format!("steer.o returned {verdict}")))
        }
    }
}

const XDP_PASS: u32 = 2;

fn program_of<'a>(ebpf: &'a mut Ebpf, name: &str) -> io::Result<BorrowedFd<'a>> {
    let program: &mut Xdp = ebpf
        .program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| io::Error::other(format!("the object lacks its XDP program {name}")))?;
    let fd = program.fd().map_err(from_program)?;
    Ok(fd.as_fd())
}

/// What the program returns for a frame.
fn run(program: BorrowedFd<'_>, frame: &[u8]) -> io::Result<u32> {
    /// `union bpf_attr`, its `test` part.
    #[repr(C)]
    #[derive(Default)]
    struct Test {
        prog_fd: u32,
        retval: u32,
        data_size_in: u32,
        data_size_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
        ctx_size_in: u32,
        ctx_size_out: u32,
        ctx_in: u64,
        ctx_out: u64,
        flags: u32,
        cpu: u32,
        batch_size: u32,
        padding: u32,
    }
    let size = u32::try_from(frame.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut attr = Test {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        data_size_in: size,
        data_in: frame.as_ptr() as u64,
        ..Test::default()
    };
    // SAFETY: the attribute is a zero-extended `test` part and lives across the call, as does the frame, of which the
    // kernel reads `data_size_in` bytes; it writes to the attribute alone, as there is no output buffer.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_TEST_RUN,
            &raw mut attr,
            size_of::<Test>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(attr.retval)
}

static TWIN: &[u8] = aya::include_bytes_aligned!("../../../bpf/steer_hw_twin.o");

/// `STEERED` of `bpf/steer_hw.c`.
const STEERED: u32 = 0x10000;
/// The twin of `bpf/steer_hw.c`: the program for the card's stock firmware, but for the one store that the kernel allows
/// on a card only, the queue's, which it returns instead.
#[derive(Debug)]
pub struct HardwareTrial {
    ebpf: Ebpf,
    maps: Option<CardMaps>,
}

impl HardwareTrial {
    /// Loads the twin.
    ///
    /// # Errors
    /// As [`Trial::new`].
    pub fn new() -> io::Result<Self> {
        let mut ebpf = EbpfLoader::new().load(TWIN).map_err(program::from_ebpf)?;
        let program: &mut Xdp = ebpf
            .program_mut("steer_hw")
            .and_then(|program| program.try_into().ok())
            .ok_or_else(|| io::Error::other("steer_hw_twin.o lacks its XDP program"))?;
        program.load().map_err(from_program)?;
        Ok(Self { ebpf, maps: None })
    }

    /// Its tables, which are filled through this only.
    pub(super) fn take_maps(&mut self) -> io::Result<CardMaps> {
        CardMaps::new(|name| {
            self.ebpf
                .take_map(name)
                .ok_or_else(|| io::Error::other(format!("steer_hw_twin.o lacks the map {name}")))
        })
    }

    fn maps(&mut self) -> io::Result<&mut CardMaps> {
        if self.maps.is_none() {
            self.maps = Some(self.take_maps()?);
        }
        Ok(self.maps.as_mut().expect("they were just taken"))
    }

    /// Pins the tables in a folder of a bpf file system, as `bpftool prog load ... pinmaps` does. Before they are filled.
    #[cfg(test)]
    pub(super) fn pin_maps(&self, folder: &Path) -> io::Result<()> {
        for (name, map) in self.ebpf.maps() {
            map.pin(folder.join(name)).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Frames of this connection go to `queue`; `None` leaves them to the kernel.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn steer(&mut self, tuple: &FlowTuple, queue: Option<u8>) -> io::Result<()> {
        self.maps()?.steer(tuple, queue)
    }

    /// Frames for `local` are ours; an unspecified address means every one of its family.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn own(&mut self, local: SocketAddr) -> io::Result<()> {
        self.maps()?.own(OwnedKey::new(local.ip(), local.port()))
    }

    /// The queue of a bucket of connections.
    ///
    /// # Errors
    /// No such bucket: there are [`HARDWARE_BUCKETS`].
    pub fn set_queue(&mut self, bucket: u32, queue: u8) -> io::Result<()> {
        self.maps()?.set_queue(bucket, queue)
    }

    /// The queue that a frame is sent to; `None` leaves it where it is.
    ///
    /// # Errors
    /// As [`Trial::run`].
    pub fn run(&mut self, frame: &[u8]) -> io::Result<Option<u8>> {
        match run(program_of(&mut self.ebpf, "steer_hw")?, frame)? {
            XDP_PASS => Ok(None),
            steered if steered & !0xff == STEERED => Ok(Some(steered as u8)),
            other => Err(io::Error::other(format!(
                "steer_hw_twin.o returned {other}"
            ))),
        }
    }
}
