//! Values from text: pure functions whose error says what to write instead.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use flextcp_nic::time::parse_duration;

use super::{
    Congestion, Ecn, Fallback, Filter, InterfaceAddr, Interfaces, NicChoice, Offload, XdpMode,
};

type Parsed<T> = Result<T, String>;

/// Least and largest maximum of a ring: a page, and what a window scale of 14 can advertise.
const BUFFER_MIN: u32 = 4 << 10;
const BUFFER_LARGEST: u32 = 1 << 30;

/// Longer than this nobody polls in vain.
const SPIN_LONGEST: Duration = Duration::from_secs(1);

/// `IFNAMSIZ` without its terminator.
const INTERFACE_NAME_MAX: usize = 15;

fn one_of<T: Copy>(value: &str, choices: &[(&str, T)]) -> Parsed<T> {
    choices
        .iter()
        .find(|(name, _)| *name == value)
        .map(|(_, choice)| *choice)
        .ok_or_else(|| {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            format!("use one of: {}", names.join(", "))
        })
}

pub(super) fn nic(value: &str) -> Parsed<NicChoice> {
    const FIX: &str = "use one of: auto, off, soft, tap:<name>, nfp:<pci address as 0000:03:00.0>, nfp-emu, \
                       nfp-emu:<absolute path of flextcp-card's socket>";
    match value.split_once(':') {
        None => match value {
            "auto" => Ok(NicChoice::Auto),
            "off" => Ok(NicChoice::Off),
            "soft" => Ok(NicChoice::Soft),
            "nfp-emu" => Ok(NicChoice::NfpEmulated),
            _ => Err(FIX.to_owned()),
        },
        Some(("tap", name)) => interface_name(name).map(NicChoice::Tap),
        Some(("nfp", pci)) if is_pci_address(pci) => Ok(NicChoice::Nfp(pci.to_owned())),
        Some(("nfp-emu", path)) if path.starts_with('/') => Ok(NicChoice::NfpProcess(path.into())),
        Some(_) => Err(FIX.to_owned()),
    }
}

/// `domain:bus:device.function` in hexadecimal, as `lspci -D` prints it.
fn is_pci_address(text: &str) -> bool {
    let hex = |part: &str, digits: usize| {
        part.len() == digits && part.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let Some((path, function)) = text.split_once('.') else {
        return false;
    };
    let parts: Vec<_> = path.split(':').collect();
    matches!(parts[..], [domain, bus, device] if hex(domain, 4) && hex(bus, 2) && hex(device, 2))
        && matches!(function.as_bytes(), [b'0'..=b'7'])
}

fn interface_name(name: &str) -> Parsed<String> {
    let valid = !name.is_empty()
        && name.len() <= INTERFACE_NAME_MAX
        && !matches!(name, "." | "..")
        && name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':');
    if valid {
        Ok(name.to_owned())
    } else {
        Err(format!(
            "{name:?} cannot name an interface; use a name that `ip link` shows, of 1 to {INTERFACE_NAME_MAX} characters"
        ))
    }
}

pub(super) fn interfaces(value: &str) -> Parsed<Interfaces> {
    if value == "auto" {
        return Ok(Interfaces::Auto);
    }
    value
        .split(',')
        .map(|name| interface_name(name.trim()))
        .collect::<Parsed<_>>()
        .map(Interfaces::List)
}

pub(super) fn fallback(value: &str) -> Parsed<Fallback> {
    one_of(
        value,
        &[("allow", Fallback::Allow), ("deny", Fallback::Deny)],
    )
}

pub(super) fn switch(value: &str) -> Parsed<bool> {
    one_of(
        value,
        &[
            ("on", true),
            ("off", false),
            ("true", true),
            ("false", false),
        ],
    )
}

pub(super) fn xdp_mode(value: &str) -> Parsed<XdpMode> {
    one_of(
        value,
        &[
            ("auto", XdpMode::Auto),
            ("native", XdpMode::Native),
            ("generic", XdpMode::Generic),
        ],
    )
}

pub(super) fn offload(value: &str) -> Parsed<Offload> {
    if let Some(seed) = value.strip_prefix("random:") {
        return seed
            .parse()
            .map(Offload::Random)
            .map_err(|_| "the seed is a number of at most 64 bits: random:1".to_owned());
    }
    one_of(
        value,
        &[
            ("auto", Offload::Auto),
            ("never", Offload::Never),
            ("always", Offload::Always),
        ],
    )
    .map_err(|fix| fix + ", random:<seed>")
}

pub(super) fn congestion(value: &str) -> Parsed<Congestion> {
    one_of(
        value,
        &Congestion::ALL.map(|choice| (choice.name(), choice)),
    )
}

pub(super) fn ecn(value: &str) -> Parsed<Ecn> {
    let choices = [
        ("off", Ecn::Off),
        ("accept", Ecn::Accept),
        ("request", Ecn::Request),
    ];
    one_of(value, &choices)
}

/// Bytes with an optional binary unit: `65536`, `64k`, `512M`, `2GiB`.
pub(super) fn size(value: &str) -> Parsed<u64> {
    const FIX: &str = "use a number of bytes, or one with a unit: 65536, 64K, 512M, 2GiB";
    let digits = value.len() - value.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = value.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(FIX.to_owned()),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| FIX.to_owned())
}

/// A ring's maximum: within bounds, a power of two.
pub(super) fn round_buffer(bytes: u32) -> u32 {
    bytes.clamp(BUFFER_MIN, BUFFER_LARGEST).next_power_of_two()
}

pub(super) fn buffer_max(value: &str) -> Parsed<u32> {
    match u32::try_from(size(value)?) {
        Ok(bytes) if (BUFFER_MIN..=BUFFER_LARGEST).contains(&bytes) => Ok(round_buffer(bytes)),
        _ => Err("a buffer's maximum lies between 4KiB and 1GiB".to_owned()),
    }
}

pub(super) fn spin(value: &str) -> Parsed<Duration> {
    parse_duration(value, Some(Duration::from_micros(1)))
        .filter(|time| *time <= SPIN_LONGEST)
        .ok_or_else(|| {
            "use a time of a second at most: 50us, 1ms, 0s, or a number of microseconds".to_owned()
        })
}

fn interface_addr(text: &str) -> Parsed<InterfaceAddr> {
    let parsed = text.split_once('/').and_then(|(addr, prefix_len)| {
        let addr: IpAddr = addr.parse().ok()?;
        let prefix_len: u8 = prefix_len.parse().ok()?;
        let most = if addr.is_ipv4() { 32 } else { 128 };
        let usable = !addr.is_unspecified() && !addr.is_multicast();
        (prefix_len <= most && usable).then_some(InterfaceAddr { addr, prefix_len })
    });
    parsed.ok_or_else(|| {
        format!("{text:?} is no unicast address with a prefix length; use such as 10.0.0.2/24 or fd00::2/64")
    })
}

pub(super) fn interface_addrs(value: &str) -> Parsed<Vec<InterfaceAddr>> {
    value
        .split(',')
        .map(|text| interface_addr(text.trim()))
        .collect()
}

pub(super) fn filter(value: &str) -> Parsed<Filter> {
    if value.is_empty() {
        return Ok(Filter::default());
    }
    value
        .split(',')
        .map(|rule| {
            rule.parse()
                .map_err(|error| format!("{:?} is {error}", rule.trim()))
        })
        .collect::<Parsed<_>>()
        .map(Filter::new)
}

#[expect(clippy::unnecessary_wraps, reason = "same shape as the other parsers")]
pub(super) fn optional_text(value: &str) -> Parsed<Option<String>> {
    Ok((!value.is_empty()).then(|| value.to_owned()))
}

#[expect(clippy::unnecessary_wraps, reason = "same shape as the other parsers")]
pub(super) fn optional_path(value: &str) -> Parsed<Option<PathBuf>> {
    Ok((!value.is_empty()).then(|| PathBuf::from(value)))
}

/// A TOML value as the text a variable would hold; `None` for tables, dates and nested lists.
pub(super) fn toml_value(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(switch) => Some(switch.to_string()),
        toml::Value::Array(items) => items
            .iter()
            .map(toml::Value::as_str)
            .collect::<Option<Vec<_>>>()
            .map(|items| items.join(",")),
        _ => None,
    }
}
