//! A card on PCIe, as sysfs shows it. **Never run on hardware**: only that a card is not there, or is another one, has been
//! seen here.
//!
//! The firmware's BAR lies somewhere in the card's own: it begins with [`MAGIC`](constant::MAGIC), on a page.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::queue::abi::{constant, register};

/// Netronome's vendor id.
const VENDOR: &str = "0x19ee";
const PAGE: usize = 4096;
const DEVICES: &str = "/sys/bus/pci/devices";

/// A Netronome card.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Card {
    address: String,
    device: String,
    directory: PathBuf,
}

impl Card {
    /// The card at a PCI address, such as `0000:03:00.0`.
    ///
    /// # Errors
    /// There is no such device (`NotFound`), or it is another vendor's.
    pub fn find(address: &str) -> io::Result<Self> {
        Self::find_in(Path::new(DEVICES), address)
    }

    /// All cards of this machine.
    ///
    /// # Errors
    /// sysfs cannot be read.
    pub fn all() -> io::Result<Vec<Self>> {
        let mut cards = Vec::new();
        for entry in fs::read_dir(DEVICES)? {
            let name = entry?.file_name();
            if let Some(name) = name.to_str()
                && let Ok(card) = Self::find(name)
            {
                cards.push(card);
            }
        }
        cards.sort_by(|a, b| a.address.cmp(&b.address));
        Ok(cards)
    }

    fn find_in(devices: &Path, address: &str) -> io::Result<Self> {
        let directory = devices.join(address);
        let read = |name: &str| {
            fs::read_to_string(directory.join(name)).map(|text| text.trim().to_owned())
        };
        let vendor = read("vendor").map_err(|error| {
            io::Error::new(
                error.kind(),
                format!(
                    "there is no PCI device {address} ({error}); `lspci -d 19ee:` lists the Netronome cards"
                ),
            )
        })?;
        if vendor != VENDOR {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "the PCI device {address} is vendor {vendor}'s, not Netronome's ({VENDOR}); `lspci -d 19ee:` lists theirs"
                ),
            ));
        }
        Ok(Self {
            address: address.to_owned(),
            device: read("device")?,
            directory,
        })
    }

    /// The driver that has the card, as sysfs shows it.
    pub fn driver(&self) -> Option<String> {
        let driver = fs::read_link(self.directory.join("driver")).ok()?;
        Some(driver.file_name()?.to_str()?.to_owned())
    }

    /// Maps the card's BAR as [`map`](Self::map) does, of a card that no driver of the kernel uses, if its firmware is one
    /// that this driver knows.
    ///
    /// # Errors
    /// What is missing: the card is not bound to vfio-pci, no FlexTCP firmware runs, or one of another version.
    pub fn ready(&self, resource: u32) -> io::Result<BarWindow> {
        let driver = self.driver();
        if driver.as_deref() != Some("vfio-pci") {
            let address = &self.address;
            let bound =
                driver.map_or_else(|| "to no driver".to_owned(), |name| format!("to {name}"));
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                format!(
                    "{self} is bound {bound}: `driverctl set-override {address} vfio-pci` binds it to vfio-pci"
                ),
            ));
        }
        let window = self.map(resource)?;
        let (version, ours) = (window.abi_version(), constant::ABI_VERSION);
        if version >> 16 != ours >> 16 {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!(
                    "the firmware of {self} speaks version {}.{} of the interface and this driver {}.{}; load the firmware of this release",
                    version >> 16,
                    version & 0xffff,
                    ours >> 16,
                    ours & 0xffff
                ),
            ));
        }
        Ok(window)
    }

    /// Maps the card's BAR `resource` and finds the firmware's words in it.
    ///
    /// # Errors
    /// It cannot be mapped, or no FlexTCP firmware runs.
    pub fn map(&self, resource: u32) -> io::Result<BarWindow> {
        let path = self.directory.join(format!("resource{resource}"));
        BarWindow::open(&path).map_err(|error| {
            io::Error::new(error.kind(), format!("{self}, {}: {error}", path.display()))
        })
    }
}

impl fmt::Display for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the card {} (device {})", self.address, self.device)
    }
}

/// The firmware's words, within a mapped BAR.
#[derive(Debug)]
pub struct BarWindow {
    base: *mut u32,
    len: usize,
    /// Where the firmware's first word is.
    first: usize,
}

// SAFETY: the mapping is this window's alone; device memory is bound to no thread.
unsafe impl Send for BarWindow {}

impl BarWindow {
    fn open(path: &Path) -> io::Result<Self> {
        let len = usize::try_from(fs::metadata(path)?.len()).unwrap_or(0);
        if len < PAGE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "is no memory"));
        }
        let file = open(
            path,
            OFlags::RDWR | OFlags::SYNC | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        // SAFETY: a new mapping at an address that the kernel chooses touches no other memory.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &file,
                0,
            )
        }?;
        let mut window = Self {
            base: base.cast(),
            len,
            first: 0,
        };
        let first = (0..len / PAGE)
            .map(|page| page * PAGE / 4)
            .find(|&at| window.word(at) == constant::MAGIC);
        window.first = first.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                "no FlexTCP firmware runs there: load flextcp.nffw (docs/netronome.md)",
            )
        })?;
        Ok(window)
    }

    fn word(&self, at: usize) -> u32 {
        assert!(at < self.len / 4, "within the BAR");
        // SAFETY: within the mapping, and aligned.
        u32::from_le(unsafe { self.base.add(at).read_volatile() })
    }

    /// Words from the firmware's first one on.
    pub const fn words(&self) -> usize {
        self.len / 4 - self.first
    }

    /// Reads the word `at` ([`register`]); all ones outside, as from a card that is gone.
    pub fn read(&self, at: u32) -> u32 {
        let at = self.first + at as usize;
        if at < self.len / 4 {
            self.word(at)
        } else {
            u32::MAX
        }
    }

    /// Writes it; outside, nothing.
    pub fn write(&mut self, at: u32, value: u32) {
        let at = self.first + at as usize;
        if at < self.len / 4 {
            // SAFETY: as in `word`.
            unsafe { self.base.add(at).write_volatile(value.to_le()) };
        }
    }

    /// The version of the interface that the firmware speaks.
    pub fn abi_version(&self) -> u32 {
        self.read(register::ABI_VERSION)
    }
}

impl Drop for BarWindow {
    fn drop(&mut self) {
        // SAFETY: the mapping is this window's alone.
        let result = unsafe { munmap(self.base.cast(), self.len) };
        debug_assert!(result.is_ok(), "a whole mapping can be unmapped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(vendor: &str, bar: &[u32]) -> (tempfile::TempDir, io::Result<Card>) {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("0000:03:00.0");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("vendor"), format!("{vendor}\n")).unwrap();
        fs::write(directory.join("device"), "0x4000\n").unwrap();
        let bytes: Vec<u8> = bar.iter().flat_map(|word| word.to_le_bytes()).collect();
        fs::write(directory.join("resource0"), bytes).unwrap();
        let card = Card::find_in(root.path(), "0000:03:00.0");
        (root, card)
    }

    #[test]
    fn only_a_netronome_card_is_one() {
        assert!(device("0x19ee", &[]).1.is_ok());
        let error = device("0x8086", &[]).1.unwrap_err().to_string();
        assert!(error.contains("0x8086"), "{error}");
        let error = Card::find("0000:ff:1f.7").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_firmware_is_found_by_its_first_word() {
        let mut bar = vec![0_u32; 4096];
        let (_root, card) = device("0x19ee", &bar);
        let error = card.unwrap().map(0).unwrap_err().to_string();
        assert!(error.contains("load flextcp.nffw"), "{error}");
        bar[1024] = constant::MAGIC;
        bar[1025] = constant::ABI_VERSION;
        let (_root, card) = device("0x19ee", &bar);
        let mut window = card.unwrap().map(0).unwrap();
        assert_eq!(
            (window.words(), window.abi_version()),
            (3072, constant::ABI_VERSION)
        );
        window.write(register::RESET, 7);
        assert_eq!(window.read(register::RESET), 7);
        assert_eq!(window.read(4096), u32::MAX);
    }

    #[test]
    fn a_card_that_is_not_ready_says_what_is_missing() {
        let mut bar = vec![0_u32; 1024];
        bar[0] = constant::MAGIC;
        bar[1] = constant::ABI_VERSION + (1 << 16);
        let (root, card) = device("0x19ee", &bar);
        let card = card.unwrap();
        let text = || card.ready(0).unwrap_err().to_string();
        assert!(text().contains("to no driver"), "{}", text());
        let link = root.path().join("0000:03:00.0/driver");
        std::os::unix::fs::symlink("../../bus/pci/drivers/nfp", &link).unwrap();
        assert!(text().contains("bound to nfp"), "{}", text());
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink("../../bus/pci/drivers/vfio-pci", &link).unwrap();
        assert!(
            text().contains("the firmware of this release"),
            "{}",
            text()
        );
        bar[1] = constant::ABI_VERSION;
        let bytes: Vec<u8> = bar.iter().flat_map(|word| word.to_le_bytes()).collect();
        fs::write(root.path().join("0000:03:00.0/resource0"), bytes).unwrap();
        assert_eq!(card.ready(0).unwrap().abi_version(), constant::ABI_VERSION);
        assert!(card.ready(2).is_err(), "a BAR that is not there");
    }
}
