//! The steering programs run on single frames, without an interface (`BPF_PROG_TEST_RUN`).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

use aya::maps::{Array, HashMap, Map};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader};

use super::program::{self, Program, from_map, from_program};
use super::steering::{Steering, SteeringCounters};
use crate::flow::FlowTuple;

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
const QUEUE_OF_KERNEL: u32 = u32::MAX;
const FAMILY_IPV4: u16 = 4;
const FAMILY_IPV6: u16 = 6;

/// Buckets of the hash by which the card's program spreads connections over queues.
pub const HARDWARE_BUCKETS: u32 = 64;

/// `struct ipv4_flow` of `bpf/steer_hw.c`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Ipv4Flow {
    local: [u8; 4],
    remote: [u8; 4],
    local_port: [u8; 2],
    remote_port: [u8; 2],
}

/// `struct ipv6_flow`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Ipv6Flow {
    local: [u8; 16],
    remote: [u8; 16],
    local_port: [u8; 2],
    remote_port: [u8; 2],
}

/// `struct owned_key`.
#[derive(Clone, Copy)]
#[repr(C)]
struct OwnedKey {
    address: [u8; 16],
    port: [u8; 2],
    family: u16,
}

const _: () = assert!(
    size_of::<Ipv4Flow>() == 12 && size_of::<Ipv6Flow>() == 36 && size_of::<OwnedKey>() == 20
);

// SAFETY: all fields are integers, the layout is C's and has no padding (asserted above).
unsafe impl aya::Pod for Ipv4Flow {}
// SAFETY: as above.
unsafe impl aya::Pod for Ipv6Flow {}
// SAFETY: as above.
unsafe impl aya::Pod for OwnedKey {}

/// The twin of `bpf/steer_hw.c`: the program for the card's stock firmware, but for the one store that the kernel allows
/// on a card only, the queue's, which it returns instead.
#[derive(Debug)]
pub struct HardwareTrial {
    ebpf: Ebpf,
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
        Ok(Self { ebpf })
    }

    fn map(&mut self, name: &str) -> io::Result<&mut Map> {
        self.ebpf
            .map_mut(name)
            .ok_or_else(|| io::Error::other(format!("steer_hw_twin.o lacks the map {name}")))
    }

    /// Frames of this connection go to `queue`; `None` leaves them to the kernel.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn steer(&mut self, tuple: &FlowTuple, queue: Option<u8>) -> io::Result<()> {
        let queue = queue.map_or(QUEUE_OF_KERNEL, u32::from);
        let (local_port, remote_port) = (tuple.local.1.to_be_bytes(), tuple.remote.1.to_be_bytes());
        match (tuple.local.0, tuple.remote.0) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                let key = Ipv4Flow {
                    local: local.octets(),
                    remote: remote.octets(),
                    local_port,
                    remote_port,
                };
                let map = self.map("FLOWS_IPV4")?;
                let mut map = HashMap::<_, Ipv4Flow, u32>::try_from(map).map_err(from_map)?;
                map.insert(key, queue, 0).map_err(from_map)
            }
            (IpAddr::V6(local), IpAddr::V6(remote)) => {
                let key = Ipv6Flow {
                    local: local.octets(),
                    remote: remote.octets(),
                    local_port,
                    remote_port,
                };
                let map = self.map("FLOWS_IPV6")?;
                let mut map = HashMap::<_, Ipv6Flow, u32>::try_from(map).map_err(from_map)?;
                map.insert(key, queue, 0).map_err(from_map)
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Frames for `local` are ours; an unspecified address means every one of its family.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn own(&mut self, local: SocketAddr) -> io::Result<()> {
        let mut address = [0; 16];
        let family = match local.ip() {
            IpAddr::V4(ip) => {
                address[..4].copy_from_slice(&ip.octets());
                FAMILY_IPV4
            }
            IpAddr::V6(ip) => {
                address = ip.octets();
                FAMILY_IPV6
            }
        };
        let key = OwnedKey {
            address,
            port: local.port().to_be_bytes(),
            family,
        };
        let mut map =
            HashMap::<_, OwnedKey, u32>::try_from(self.map("OWNED")?).map_err(from_map)?;
        map.insert(key, 0, 0).map_err(from_map)
    }

    /// The queue of a bucket of connections.
    ///
    /// # Errors
    /// No such bucket: there are [`HARDWARE_BUCKETS`].
    pub fn set_queue(&mut self, bucket: u32, queue: u8) -> io::Result<()> {
        let mut map = Array::<_, u32>::try_from(self.map("QUEUES")?).map_err(from_map)?;
        map.set(bucket, u32::from(queue), 0).map_err(from_map)
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
