//! A card on PCIe: found in sysfs, taken over by VFIO, driven through its BAR. **Never run on hardware**; what is tested without
//! a card is said in each module.
//!
//! | module | concern |
//! |---|---|
//! | `bar` | the firmware's words in a mapped BAR |
//! | `vfio` | BARs, DMA and interrupts of a device in the hands of this process |
//! | `bus` | the [`Bus`](super::bus::Bus) over both |
//!
//! The firmware's words must lie in the card's first BAR, on a page: pointing one of the card's expansion BARs at them is left to
//! whatever loads the firmware, as the registers for that are the vendor's.

mod bar;
mod bus;
mod vfio;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use self::bar::BarWindow;
use self::vfio::Device;

pub use self::bus::PcieBus;

/// Netronome's vendor id.
const VENDOR: &str = "0x19ee";
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

    /// The card's IOMMU group, if it is bound to vfio-pci.
    fn group(&self) -> io::Result<u32> {
        let address = &self.address;
        let driver = self.driver();
        if driver.as_deref() != Some("vfio-pci") {
            let bound =
                driver.map_or_else(|| "to no driver".to_owned(), |name| format!("to {name}"));
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                format!(
                    "{self} is bound {bound}: `driverctl set-override {address} vfio-pci` binds it to vfio-pci"
                ),
            ));
        }
        let group = fs::read_link(self.directory.join("iommu_group")).ok();
        let number = group.and_then(|path| path.file_name()?.to_str()?.parse().ok());
        number.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::Unsupported,
                format!(
                    "{self} is behind no IOMMU, so that its DMA cannot be confined: boot with intel_iommu=on or amd_iommu=on"
                ),
            )
        })
    }

    /// Takes the card over: its function, and the firmware's words in BAR `bar`.
    fn ready(&self, bar: u32) -> io::Result<(Device, BarWindow)> {
        if cfg!(not(target_arch = "x86_64")) {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "a card's BAR is driven on x86-64 only: set nic (FLEXTCP_NIC) to soft",
            ));
        }
        let group = self.group()?;
        let about = |error: io::Error| io::Error::new(error.kind(), format!("{self}: {error}"));
        let device = Device::open(group, &self.address).map_err(about)?;
        device.enable().map_err(about)?;
        let window = device.window(bar).map_err(about)?;
        Ok((device, window))
    }
}

impl fmt::Display for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the card {} (device {})", self.address, self.device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn device(vendor: &str) -> (tempfile::TempDir, io::Result<Card>) {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("0000:03:00.0");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("vendor"), format!("{vendor}\n")).unwrap();
        fs::write(directory.join("device"), "0x4000\n").unwrap();
        let card = Card::find_in(root.path(), "0000:03:00.0");
        (root, card)
    }

    #[test]
    fn only_a_netronome_card_is_one() {
        assert!(device("0x19ee").1.is_ok());
        let error = device("0x8086").1.unwrap_err().to_string();
        assert!(error.contains("0x8086"), "{error}");
        let error = Card::find("0000:ff:1f.7").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_card_that_is_not_ready_says_what_is_missing() {
        let (root, card) = device("0x19ee");
        let card = card.unwrap();
        let file = |name: &str| root.path().join("0000:03:00.0").join(name);
        let text = || card.group().unwrap_err().to_string();
        assert!(text().contains("to no driver"), "{}", text());
        symlink("../../bus/pci/drivers/nfp", file("driver")).unwrap();
        assert!(text().contains("bound to nfp"), "{}", text());
        fs::remove_file(file("driver")).unwrap();
        symlink("../../bus/pci/drivers/vfio-pci", file("driver")).unwrap();
        assert!(text().contains("intel_iommu=on"), "{}", text());
        symlink("../../kernel/iommu_groups/17", file("iommu_group")).unwrap();
        assert_eq!(card.group().unwrap(), 17);
    }

    /// This machine may have VFIO, but no such group.
    #[test]
    fn a_card_that_cannot_be_taken_over_says_so() {
        let (root, card) = device("0x19ee");
        let file = |name: &str| root.path().join("0000:03:00.0").join(name);
        symlink("../../bus/pci/drivers/vfio-pci", file("driver")).unwrap();
        symlink("../../kernel/iommu_groups/999999", file("iommu_group")).unwrap();
        let error = card.unwrap().ready(0).unwrap_err().to_string();
        assert!(
            error.contains("0000:03:00.0 (device 0x4000): /dev/vfio/"),
            "{error}"
        );
    }
}
