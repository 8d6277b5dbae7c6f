//! A device in the hands of this process, by the kernel's VFIO: its BARs, DMA through the IOMMU, interrupts as event
//! descriptors. The calls and their structures are those of `linux/vfio.h`.
//!
//! **Never run on hardware**, nor against a kernel with VFIO: what is tested is which calls are made with which bytes, and
//! what becomes of each refusal.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{pread, pwrite};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::bar::BarWindow;
use crate::buffer::DmaRegion;

const CONTAINER: &str = "/dev/vfio/vfio";

/// `_IO(VFIO_TYPE, VFIO_BASE + number)`.
const fn request(number: u32) -> u32 {
    (b';' as u32) << 8 | (100 + number)
}

const GET_API_VERSION: u32 = request(0);
const CHECK_EXTENSION: u32 = request(1);
const SET_IOMMU: u32 = request(2);
const GROUP_GET_STATUS: u32 = request(3);
const GROUP_SET_CONTAINER: u32 = request(4);
const GROUP_GET_DEVICE_FD: u32 = request(6);
const DEVICE_GET_REGION_INFO: u32 = request(8);
const DEVICE_GET_IRQ_INFO: u32 = request(9);
const DEVICE_SET_IRQS: u32 = request(10);
const IOMMU_MAP_DMA: u32 = request(13);

const API_VERSION: i32 = 0;
const TYPE1V2_IOMMU: usize = 3;
const GROUP_VIABLE: u32 = 1 << 0;
const REGION_MMAP: u32 = 1 << 2;
const CONFIG_REGION: u32 = 7;
const MSIX: u32 = 2;
const IRQ_EVENTFD: u32 = 1 << 0;
const SET_DATA_EVENTFD: u32 = 1 << 2;
const SET_ACTION_TRIGGER: u32 = 1 << 5;
const MAP_READ: u32 = 1 << 0;
const MAP_WRITE: u32 = 1 << 1;

/// PCI's command register, and what has to be on: memory decoding and bus mastering.
const COMMAND: u64 = 4;
const COMMAND_ON: u16 = 1 << 1 | 1 << 2;

#[derive(Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
struct GroupStatus {
    argsz: u32,
    flags: u32,
}

#[derive(Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
struct RegionInfo {
    argsz: u32,
    flags: u32,
    index: u32,
    cap_offset: u32,
    size: u64,
    offset: u64,
}

#[derive(Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
struct IrqInfo {
    argsz: u32,
    flags: u32,
    index: u32,
    count: u32,
}

/// With one event descriptor as its data.
#[derive(Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
struct IrqSet {
    argsz: u32,
    flags: u32,
    index: u32,
    start: u32,
    count: u32,
    eventfd: i32,
}

#[derive(Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
struct DmaMap {
    argsz: u32,
    flags: u32,
    vaddr: u64,
    iova: u64,
    size: u64,
}

/// Size of a structure, for its `argsz`.
const fn size<T>() -> u32 {
    size_of::<T>() as u32
}

/// What goes along with a request.
enum Argument<'a> {
    Value(usize),
    Bytes(&'a mut [u8]),
}

/// The system calls: Linux's, or a test's.
trait Kernel: Send + fmt::Debug {
    fn open(&self, path: &Path) -> io::Result<OwnedFd>;

    fn ioctl(
        &self,
        fd: BorrowedFd<'_>,
        request: u32,
        argument: Argument<'_>,
    ) -> io::Result<libc::c_int>;
}

#[derive(Debug)]
struct Linux;

impl Kernel for Linux {
    fn open(&self, path: &Path) -> io::Result<OwnedFd> {
        Ok(open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
    }

    fn ioctl(
        &self,
        fd: BorrowedFd<'_>,
        request: u32,
        argument: Argument<'_>,
    ) -> io::Result<libc::c_int> {
        let argument = match argument {
            Argument::Value(value) => value as *mut libc::c_void,
            Argument::Bytes(bytes) => bytes.as_mut_ptr().cast(),
        };
        // SAFETY: the requests of this module take a number; or bytes that live across the call, which are a word, a string
        // with its end, or a structure that begins with its own size, beyond which the kernel touches nothing.
        let result = unsafe { libc::ioctl(fd.as_raw_fd(), request.into(), argument) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(result)
    }
}

/// An error with what was tried before it and what to do behind it.
fn because(what: &str, error: &io::Error, fix: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}; {fix}"))
}

fn refused(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, text.into())
}

/// A device.
#[derive(Debug)]
pub(super) struct Device {
    kernel: Box<dyn Kernel>,
    device: OwnedFd,
    /// What was mapped is, as long as these are open.
    container: OwnedFd,
    _group: OwnedFd,
}

impl Device {
    /// Takes the device at a PCI address, of an IOMMU group whose devices all are bound to vfio-pci.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub(super) fn open(group: u32, address: &str) -> io::Result<Self> {
        Self::open_by(Box::new(Linux), group, address)
    }

    fn open_by(kernel: Box<dyn Kernel>, group: u32, address: &str) -> io::Result<Self> {
        let container = kernel
            .open(Path::new(CONTAINER))
            .map_err(|error| because(CONTAINER, &error, "`modprobe vfio-pci` provides it"))?;
        let value = |fd: &OwnedFd, request, value| {
            kernel.ioctl(fd.as_fd(), request, Argument::Value(value))
        };
        let bytes = |fd: &OwnedFd, request, bytes: &mut [u8]| {
            kernel.ioctl(fd.as_fd(), request, Argument::Bytes(bytes))
        };
        if value(&container, GET_API_VERSION, 0)? != API_VERSION
            || value(&container, CHECK_EXTENSION, TYPE1V2_IOMMU)? != 1
        {
            return Err(refused(
                "this kernel's VFIO has no type 1 IOMMU, version 2; a kernel with CONFIG_VFIO_IOMMU_TYPE1 has",
            ));
        }
        let path = PathBuf::from(format!("/dev/vfio/{group}"));
        let group_fd = kernel.open(&path).map_err(|error| {
            because(
                &path.display().to_string(),
                &error,
                "give this user the file, or end the process that has it (`fuser -v` names it)",
            )
        })?;
        let mut status = GroupStatus {
            argsz: size::<GroupStatus>(),
            ..GroupStatus::default()
        };
        bytes(&group_fd, GROUP_GET_STATUS, status.as_mut_bytes())?;
        if status.flags & GROUP_VIABLE == 0 {
            return Err(refused(format!(
                "IOMMU group {group} has other devices that drivers of the kernel use: bind all of \
                 /sys/kernel/iommu_groups/{group}/devices to vfio-pci"
            )));
        }
        let mut number = container.as_raw_fd();
        bytes(&group_fd, GROUP_SET_CONTAINER, number.as_mut_bytes())?;
        value(&container, SET_IOMMU, TYPE1V2_IOMMU).map_err(|error| {
            because(
                "VFIO cannot use the IOMMU",
                &error,
                "boot with intel_iommu=on or amd_iommu=on, and see `dmesg` for interrupt remapping",
            )
        })?;
        let mut name = [address.as_bytes(), &[0]].concat();
        let device = bytes(&group_fd, GROUP_GET_DEVICE_FD, &mut name)
            .map_err(|error| because(address, &error, "is it still bound to vfio-pci?"))?;
        // SAFETY: the call returned a new descriptor that nobody else owns.
        let device = unsafe { OwnedFd::from_raw_fd(device) };
        Ok(Self {
            kernel,
            device,
            container,
            _group: group_fd,
        })
    }

    fn call<T: IntoBytes + FromBytes>(
        &self,
        fd: &OwnedFd,
        request: u32,
        argument: &mut T,
    ) -> io::Result<()> {
        let argument = Argument::Bytes(argument.as_mut_bytes());
        self.kernel.ioctl(fd.as_fd(), request, argument).map(drop)
    }

    fn region(&self, index: u32) -> io::Result<RegionInfo> {
        let mut info = RegionInfo {
            argsz: size::<RegionInfo>(),
            index,
            ..RegionInfo::default()
        };
        self.call(&self.device, DEVICE_GET_REGION_INFO, &mut info)?;
        Ok(info)
    }

    /// Lets the device answer at its BARs and do DMA.
    pub(super) fn enable(&self) -> io::Result<()> {
        let at = self.region(CONFIG_REGION)?.offset + COMMAND;
        let mut command = [0; 2];
        if pread(&self.device, &mut command, at)? != command.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let on = u16::from_le_bytes(command) | COMMAND_ON;
        pwrite(&self.device, &on.to_le_bytes(), at)?;
        Ok(())
    }

    /// The firmware's words in a BAR.
    pub(super) fn window(&self, bar: u32) -> io::Result<BarWindow> {
        let info = self.region(bar)?;
        if info.flags & REGION_MMAP == 0 {
            return Err(refused(format!(
                "BAR {bar} cannot be mapped; is it the card's?"
            )));
        }
        let len = usize::try_from(info.size).map_err(|_| io::ErrorKind::OutOfMemory)?;
        BarWindow::map(self.device.as_fd(), info.offset, len)
    }
}

/// What a bus needs of a device besides its BAR.
pub(super) trait Function: Send + fmt::Debug {
    /// Has the device find a region at the bus address `iova`. Its pages stay where they are from now on.
    fn map(&self, region: &Arc<DmaRegion>, iova: u64) -> io::Result<()>;

    /// Has the device's first interrupt signal `eventfd`; `false`: it has none.
    fn interrupt(&self, eventfd: BorrowedFd<'_>) -> io::Result<bool>;
}

impl Function for Device {
    fn map(&self, region: &Arc<DmaRegion>, iova: u64) -> io::Result<()> {
        region.pin();
        let mut map = DmaMap {
            argsz: size::<DmaMap>(),
            flags: MAP_READ | MAP_WRITE,
            vaddr: region.base().as_ptr() as u64,
            iova,
            size: region.len() as u64,
        };
        self.call(&self.container, IOMMU_MAP_DMA, &mut map)
            .map_err(|error| {
                because(
                    &format!("the card cannot reach {} MiB of memory", region.len() >> 20),
                    &error,
                    "raise the limit of locked memory (`ulimit -l`), or lower memory (FLEXTCP_MEMORY)",
                )
            })
    }

    fn interrupt(&self, eventfd: BorrowedFd<'_>) -> io::Result<bool> {
        let mut info = IrqInfo {
            argsz: size::<IrqInfo>(),
            index: MSIX,
            ..IrqInfo::default()
        };
        self.call(&self.device, DEVICE_GET_IRQ_INFO, &mut info)?;
        if info.count == 0 || info.flags & IRQ_EVENTFD == 0 {
            return Ok(false);
        }
        let mut set = IrqSet {
            argsz: size::<IrqSet>(),
            flags: SET_DATA_EVENTFD | SET_ACTION_TRIGGER,
            index: MSIX,
            start: 0,
            count: 1,
            eventfd: eventfd.as_raw_fd(),
        };
        self.call(&self.device, DEVICE_SET_IRQS, &mut set)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
