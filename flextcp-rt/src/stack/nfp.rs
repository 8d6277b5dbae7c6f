//! The Netronome card: the emulated one over an interface's queue or in another process, one on PCIe, and what is wrong
//! where there is none.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use flextcp_nic::buffer::{DmaRegion, Pool};
use flextcp_nic::nfp::bus::Bus;
use flextcp_nic::nfp::pcie::{self, PcieBus};
use flextcp_nic::nfp::process::{CardProcess, Clock};
use flextcp_nic::nfp::{NfpConfig, NfpNic};
use flextcp_nic::nic::Nic;
use flextcp_nic::port::Port;
use flextcp_nic::steer::Steering;

use crate::config::{Config, Filter, Interfaces, NicChoice};

/// Whether a card serves the interfaces.
pub(super) const fn is_chosen(config: &Config) -> bool {
    matches!(
        config.nic,
        NicChoice::NfpEmulated | NicChoice::NfpProcess(_) | NicChoice::Nfp(_)
    )
}

/// App buffers where a card reaches them; `None` where no card is chosen, or there is no address space for them, which
/// [`nic`] then says.
pub(super) fn pool(config: &Config) -> Option<Arc<Pool>> {
    /// What one region's length register holds.
    const REGION_MAX: u64 = 1 << 31;
    if !is_chosen(config) {
        return None;
    }
    let len = config.memory.saturating_mul(2).min(REGION_MAX);
    let len = usize::try_from(len).ok()?;
    let region = if matches!(config.nic, NicChoice::NfpProcess(_)) {
        DmaRegion::shared("flextcp-buffers", len).ok()?
    } else {
        DmaRegion::private(len).ok()?
    };
    Some(Pool::in_region(region, config.memory))
}

/// Whether the card that is chosen can serve at all.
///
/// # Errors
/// It cannot; the text says what to do.
pub(super) fn check(config: &Config) -> io::Result<()> {
    match &config.nic {
        NicChoice::NfpEmulated if cfg!(not(feature = "nfp-emu")) => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this program was built without the emulated Netronome card: build it with the feature nfp-emu of \
             flextcp-net, or set nic (FLEXTCP_NIC) to soft",
        )),
        NicChoice::Nfp(address) => {
            let card = pcie::Card::find(address)?;
            match &config.interfaces {
                Interfaces::List(names) if names.len() == 1 => Ok(()),
                _ => Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!(
                        "{card} has no interface of the kernel's: set interfaces (FLEXTCP_INTERFACES) to the one \
                         whose addresses, routes and neighbours are to be the card's"
                    ),
                )),
            }
        }
        _ => Ok(()),
    }
}

/// The card on PCIe at `address`, with the addresses of the interface. **Never run on hardware.**
///
/// # Errors
/// What keeps it from serving, and what to do.
pub(super) fn open(address: &str, interface: (&str, u32), config: &Config) -> io::Result<PcieBus> {
    no_wrappers(&format!("the card {address}"), config)?;
    PcieBus::open(&pcie::Card::find(address)?, interface)
}

/// Refuses what only a port of this process can do.
fn no_wrappers(card: &str, config: &Config) -> io::Result<()> {
    if config.impair.is_none() && config.capture.is_none() {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!(
            "frames of {card} do not come through this process: unset impair and capture (FLEXTCP_IMPAIR, \
             FLEXTCP_CAPTURE), or set nic (FLEXTCP_NIC) to nfp-emu"
        ),
    ))
}

/// The addresses behind a card that is told itself which frames are ours.
#[derive(Clone, Debug, Default)]
pub(super) struct Served(Arc<RwLock<HashSet<IpAddr>>>);

impl Served {
    pub(super) fn set_addresses(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = addresses.into_iter().collect();
    }
}

impl Steering for Served {
    fn serves(&self, address: IpAddr) -> bool {
        let served = self.0.read().unwrap_or_else(PoisonError::into_inner);
        served.contains(&address)
    }
}

/// The way to the card that listens at `path` and is to have the interface.
///
/// # Errors
/// It is not there, or has another interface.
pub(super) fn connect(
    path: &Path,
    ifindex: u32,
    name: &str,
    config: &Config,
) -> io::Result<CardProcess> {
    let path_text = path.display();
    no_wrappers(&format!("the card at {path_text}"), config)?;
    let bus = CardProcess::connect(path, Clock::Card)?;
    if bus.port().ifindex != ifindex {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "the card at {path_text} has {}, not {name}: start one with --interface {name}, or set interfaces \
                 (FLEXTCP_INTERFACES) to its own",
                bus.port().name
            ),
        ));
    }
    Ok(bus)
}

/// The driver of the card behind `bus`.
pub(super) fn driver(
    bus: Box<dyn Bus>,
    kind: &'static str,
    steering: Box<dyn Steering>,
    filter: Filter,
    config: &Config,
    pool: &Arc<Pool>,
    secret: [u8; 16],
) -> io::Result<Box<dyn Nic>> {
    let region = pool.region().ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::OutOfMemory,
            "there is no address space for app buffers that the card reaches; lower memory (FLEXTCP_MEMORY)",
        )
    })?;
    let mut nic_config = NfpConfig::new(kind, secret);
    nic_config.recv_sizes.max = config.recv_buffer_max;
    nic_config.filter = filter;
    // Before the others sits what takes only our frames off the wire.
    nic_config.own_all = !matches!(config.nic, NicChoice::Nfp(_));
    let nic = NfpNic::new(bus, steering, region, nic_config)?;
    Ok(Box::new(nic))
}

/// The emulated card over `port`.
#[cfg(feature = "nfp-emu")]
pub(super) fn nic(
    port: Box<dyn Port>,
    steering: Box<dyn Steering>,
    filter: Filter,
    config: &Config,
    pool: &Arc<Pool>,
    secret: [u8; 16],
) -> io::Result<Box<dyn Nic>> {
    use flextcp_nic::nfp::emulator::{Emulator, EmulatorConfig};

    check(config)?;
    let seed = u64::from_le_bytes(secret[..8].try_into().expect("eight of sixteen bytes"));
    tracing::debug!(seed, "the emulated card's engines take turns by this seed");
    let bus = Emulator::new(
        port,
        EmulatorConfig {
            seed,
            ..EmulatorConfig::default()
        },
    )?;
    driver(
        Box::new(bus),
        "nfp-emu",
        steering,
        filter,
        config,
        pool,
        secret,
    )
}

/// No card.
#[cfg(not(feature = "nfp-emu"))]
pub(super) fn nic(
    _port: Box<dyn Port>,
    _steering: Box<dyn Steering>,
    _filter: Filter,
    config: &Config,
    _pool: &Arc<Pool>,
    _secret: [u8; 16],
) -> io::Result<Box<dyn Nic>> {
    check(config)?;
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(nic: NicChoice) -> Config {
        Config::builder().nic(nic).build().unwrap()
    }

    #[test]
    fn a_card_that_is_not_there_is_an_error_that_names_the_fix() {
        let error = check(&config(NicChoice::Nfp("0000:ff:1f.7".into()))).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let text = error.to_string();
        assert!(
            text.contains("0000:ff:1f.7") && text.contains("lspci -d 19ee:"),
            "{text}"
        );
    }

    #[test]
    fn a_card_serves_the_addresses_that_it_was_told() {
        let served = Served::default();
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        assert!(!served.serves(address));
        served.clone().set_addresses([address]);
        assert!(served.serves(address));
    }

    #[test]
    fn frames_of_a_card_cannot_be_captured_here() {
        let mut config = config(NicChoice::Nfp("0000:ff:1f.7".into()));
        config.capture = Some("/tmp/frames".into());
        let error = open("0000:ff:1f.7", ("eth0", 2), &config).unwrap_err();
        assert!(error.to_string().contains("FLEXTCP_CAPTURE"), "{error}");
    }

    #[test]
    fn the_emulated_card_needs_its_feature() {
        let built = cfg!(feature = "nfp-emu");
        let result = check(&config(NicChoice::NfpEmulated));
        assert_eq!(result.is_ok(), built);
        if let Err(error) = result {
            assert!(error.to_string().contains("feature nfp-emu"), "{error}");
        }
    }

    #[test]
    fn only_a_card_needs_buffers_that_it_reaches() {
        assert!(pool(&config(NicChoice::Soft)).is_none());
        let pool = pool(&config(NicChoice::NfpEmulated)).expect("there is address space");
        assert!(pool.region().is_some());
        assert_eq!(pool.limit(), Config::default().memory);
    }
}
