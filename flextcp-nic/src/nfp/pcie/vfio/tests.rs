use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::process::Command;
use std::sync::Mutex;

use super::*;
use crate::queue::abi::constant;

/// What was asked of the kernel: a request and its bytes, or its number.
type Calls = Arc<Mutex<Vec<(u32, Vec<u8>)>>>;

/// A kernel with one card, whose BAR 0 and configuration space are pages of a file.
#[derive(Debug)]
struct Fake {
    calls: Calls,
    device: File,
    /// What goes wrong: a request, and what comes of it.
    refuses: HashMap<u32, i32>,
    viable: bool,
    vectors: u32,
}

const BAR: u64 = 4096;
const CONFIG: u64 = 8192;

impl Fake {
    fn new() -> Self {
        let mut device = tempfile::tempfile().unwrap();
        device.set_len(CONFIG + 256).unwrap();
        device.write_all(&[0; BAR as usize]).unwrap();
        device.write_all(&constant::MAGIC.to_le_bytes()).unwrap();
        Self {
            calls: Calls::default(),
            device,
            refuses: HashMap::new(),
            viable: true,
            vectors: 8,
        }
    }

    fn refusing(request: u32, code: i32) -> Self {
        let mut fake = Self::new();
        fake.refuses.insert(request, code);
        fake
    }

    fn open(self) -> io::Result<Device> {
        Device::open_by(Box::new(self), 17, "0000:03:00.0")
    }
}

impl Kernel for Fake {
    fn open(&self, path: &Path) -> io::Result<OwnedFd> {
        assert!(["/dev/vfio/vfio", "/dev/vfio/17"].contains(&path.to_str().unwrap()));
        Ok(self.device.try_clone()?.into())
    }

    fn ioctl(&self, _: BorrowedFd<'_>, request: u32, argument: Argument<'_>) -> io::Result<i32> {
        let mut number = [0; 8];
        let bytes = match argument {
            Argument::Value(value) => {
                number.copy_from_slice(&value.to_ne_bytes());
                &mut number[..]
            }
            Argument::Bytes(bytes) => bytes,
        };
        self.calls.lock().unwrap().push((request, bytes.to_vec()));
        if let Some(code) = self.refuses.get(&request) {
            return Err(io::Error::from_raw_os_error(*code));
        }
        match request {
            CHECK_EXTENSION => return Ok(1),
            GROUP_GET_STATUS => {
                GroupStatus::mut_from_bytes(bytes).unwrap().flags = u32::from(self.viable);
            }
            GROUP_GET_DEVICE_FD => {
                let fd: OwnedFd = self.device.try_clone()?.into();
                return Ok(std::os::fd::IntoRawFd::into_raw_fd(fd));
            }
            DEVICE_GET_REGION_INFO => {
                let info = RegionInfo::mut_from_bytes(bytes).unwrap();
                (info.flags, info.size, info.offset) = match info.index {
                    0 => (REGION_MMAP, 4096, BAR),
                    CONFIG_REGION => (0, 256, CONFIG),
                    _ => (0, 0, 0),
                };
            }
            DEVICE_GET_IRQ_INFO => {
                let info = IrqInfo::mut_from_bytes(bytes).unwrap();
                (info.flags, info.count) = (IRQ_EVENTFD, self.vectors);
            }
            _ => {}
        }
        Ok(0)
    }
}

fn words(bytes: &[u8]) -> Vec<u32> {
    let words = bytes.chunks_exact(4);
    words
        .map(|word| u32::from_ne_bytes(word.try_into().unwrap()))
        .collect()
}

/// Numbers, layouts and flags against the kernel's own header.
#[test]
fn the_interface_is_that_of_the_kernels_header() {
    use std::fmt::Write as _;
    let mut program = "#include <stddef.h>\n#include <linux/vfio.h>\n".to_owned();
    let mut same = |name: &str, value: u64| {
        let _ = writeln!(program, "_Static_assert({name} == {value}, \"{name}\");");
    };
    for (name, value) in [
        ("VFIO_GET_API_VERSION", GET_API_VERSION),
        ("VFIO_CHECK_EXTENSION", CHECK_EXTENSION),
        ("VFIO_SET_IOMMU", SET_IOMMU),
        ("VFIO_GROUP_GET_STATUS", GROUP_GET_STATUS),
        ("VFIO_GROUP_SET_CONTAINER", GROUP_SET_CONTAINER),
        ("VFIO_GROUP_GET_DEVICE_FD", GROUP_GET_DEVICE_FD),
        ("VFIO_DEVICE_GET_REGION_INFO", DEVICE_GET_REGION_INFO),
        ("VFIO_DEVICE_GET_IRQ_INFO", DEVICE_GET_IRQ_INFO),
        ("VFIO_DEVICE_SET_IRQS", DEVICE_SET_IRQS),
        ("VFIO_IOMMU_MAP_DMA", IOMMU_MAP_DMA),
        ("VFIO_TYPE1v2_IOMMU", TYPE1V2_IOMMU as u32),
        ("VFIO_GROUP_FLAGS_VIABLE", GROUP_VIABLE),
        ("VFIO_REGION_INFO_FLAG_MMAP", REGION_MMAP),
        ("VFIO_PCI_CONFIG_REGION_INDEX", CONFIG_REGION),
        ("VFIO_PCI_MSIX_IRQ_INDEX", MSIX),
        ("VFIO_IRQ_INFO_EVENTFD", IRQ_EVENTFD),
        ("VFIO_IRQ_SET_DATA_EVENTFD", SET_DATA_EVENTFD),
        ("VFIO_IRQ_SET_ACTION_TRIGGER", SET_ACTION_TRIGGER),
        ("VFIO_DMA_MAP_FLAG_READ", MAP_READ),
        ("VFIO_DMA_MAP_FLAG_WRITE", MAP_WRITE),
        ("sizeof(struct vfio_group_status)", size::<GroupStatus>()),
        ("sizeof(struct vfio_region_info)", size::<RegionInfo>()),
        ("sizeof(struct vfio_irq_info)", size::<IrqInfo>()),
        // The data follow: one descriptor.
        ("sizeof(struct vfio_irq_set) + 4", size::<IrqSet>()),
        ("sizeof(struct vfio_iommu_type1_dma_map)", size::<DmaMap>()),
    ] {
        same(name, value.into());
    }
    macro_rules! fields {
        ($ours:ident, $theirs:literal, $($field:ident)*) => {
            $(same(
                concat!("offsetof(struct ", $theirs, ", ", stringify!($field), ")"),
                std::mem::offset_of!($ours, $field) as u64,
            );)*
        };
    }
    fields!(GroupStatus, "vfio_group_status", argsz flags);
    fields!(RegionInfo, "vfio_region_info", argsz flags index size offset);
    fields!(IrqInfo, "vfio_irq_info", argsz flags index count);
    fields!(IrqSet, "vfio_irq_set", argsz flags index start count);
    fields!(DmaMap, "vfio_iommu_type1_dma_map", argsz flags vaddr iova size);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vfio.c");
    std::fs::write(&file, program).unwrap();
    let output = match Command::new("gcc").arg("-fsyntax-only").arg(&file).output() {
        Ok(output) => output,
        Err(error) => {
            let required = std::env::var_os("FLEXTCP_REQUIRE_PRIVILEGED").is_some();
            assert!(!required, "gcc: {error}");
            let _ = writeln!(io::stderr(), "SKIPPED: gcc is not here: {error}");
            return;
        }
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
}

#[test]
fn a_device_is_taken_over_step_by_step() {
    let fake = Fake::new();
    let calls = Arc::clone(&fake.calls);
    let file = fake.device.try_clone().unwrap();
    let device = fake.open().unwrap();
    let asked: Vec<u32> = calls.lock().unwrap().iter().map(|call| call.0).collect();
    assert_eq!(
        asked,
        [
            GET_API_VERSION,
            CHECK_EXTENSION,
            GROUP_GET_STATUS,
            GROUP_SET_CONTAINER,
            SET_IOMMU,
            GROUP_GET_DEVICE_FD,
        ]
    );
    assert_eq!(calls.lock().unwrap()[5].1, b"0000:03:00.0\0");

    device.enable().unwrap();
    let mut command = [0; 2];
    pread(&file, &mut command, CONFIG + 4).unwrap();
    assert_eq!(command, [6, 0], "memory and bus mastering, nothing else");
    assert_eq!(device.window(0).unwrap().read(0), constant::MAGIC);
    let error = device.window(2).unwrap_err().to_string();
    assert!(error.contains("BAR 2"), "{error}");
}

#[test]
fn memory_is_mapped_with_its_addresses_and_stays_in_place() {
    let fake = Fake::new();
    let calls = Arc::clone(&fake.calls);
    let device = fake.open().unwrap();
    let region = DmaRegion::private(1 << 20).unwrap();
    device.map(&region, 0x1_0020_0000).unwrap();
    let (request, bytes) = calls.lock().unwrap().last().cloned().unwrap();
    let base = region.base().as_ptr() as u64;
    assert_eq!(request, IOMMU_MAP_DMA);
    assert_eq!(
        words(&bytes),
        [
            32,
            3,
            base as u32,
            (base >> 32) as u32,
            0x20_0000,
            1,
            1 << 20,
            0
        ]
    );
}

#[test]
fn a_freed_block_of_a_mapped_region_keeps_its_pages() {
    let device = Fake::new().open().unwrap();
    let region = DmaRegion::private(1 << 20).unwrap();
    let pool = crate::buffer::Pool::in_region(Arc::clone(&region), 1 << 20);
    let touch = |mark: u8| {
        let block = pool.take(1 << 19).unwrap();
        // SAFETY: the block's first byte, which nobody else uses.
        unsafe {
            let before = block.base().read();
            block.base().write(mark);
            before
        }
    };
    assert_eq!((touch(1), touch(2)), (0, 0), "given back, they are zero");
    device.map(&region, 1 << 32).unwrap();
    assert_eq!((touch(3), touch(4)), (0, 3), "the card's pages are these");
}

#[test]
fn interrupts_are_the_first_vectors_or_none() {
    let fake = Fake::new();
    let calls = Arc::clone(&fake.calls);
    let device = fake.open().unwrap();
    let eventfd = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    assert!(device.interrupt(eventfd.as_fd()).unwrap());
    let (request, bytes) = calls.lock().unwrap().last().cloned().unwrap();
    assert_eq!(request, DEVICE_SET_IRQS);
    let fd = eventfd.as_raw_fd().cast_unsigned();
    assert_eq!(words(&bytes), [24, 0x24, 2, 0, 1, fd]);

    let mut fake = Fake::new();
    fake.vectors = 0;
    assert!(!fake.open().unwrap().interrupt(eventfd.as_fd()).unwrap());
}

/// Every refusal names its cause and what to do.
#[test]
fn refusals_say_what_to_do() {
    let text = |fake: Fake| fake.open().unwrap_err().to_string();
    let mut shared = Fake::new();
    shared.viable = false;
    assert!(text(shared).contains("bind all of /sys/kernel/iommu_groups/17/devices"));
    let busy = text(Fake::refusing(SET_IOMMU, libc::ENODEV));
    assert!(
        busy.contains("No such device") && busy.contains("intel_iommu=on"),
        "{busy}"
    );
    let unbound = text(Fake::refusing(GROUP_GET_DEVICE_FD, libc::ENODEV));
    assert!(
        unbound.contains("0000:03:00.0") && unbound.contains("vfio-pci"),
        "{unbound}"
    );
    let device = Fake::refusing(IOMMU_MAP_DMA, libc::ENOMEM).open().unwrap();
    let region = DmaRegion::private(1 << 20).unwrap();
    let locked = device.map(&region, 1 << 32).unwrap_err().to_string();
    assert!(
        locked.contains("1 MiB") && locked.contains("ulimit -l"),
        "{locked}"
    );
}
