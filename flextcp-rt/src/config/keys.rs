//! The table of keys: one row for a variable and its TOML twin.

use super::{Config, Setting, parse};

/// What every variable of ours starts with.
pub(super) const PREFIX: &str = "FLEXTCP_";
/// Names the TOML file; not itself a key of that file.
pub(super) const FILE: &str = "FLEXTCP_CONFIG";
const FILE_VALUES: &str = "path of a TOML file with the keys below";

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    /// In the TOML file; the variable is the same in capitals after [`PREFIX`].
    pub(super) name: &'static str,
    /// Parses a value into its field; the error says what to write instead.
    pub(super) set: fn(&mut Config, &str) -> Result<(), String>,
    /// What it takes, in Markdown.
    values: &'static str,
    /// What holds without it, in Markdown.
    default: &'static str,
}

/// Assigns the parsed value to its field.
macro_rules! key {
    ($field:ident, $parse:expr, $values:expr, $default:expr) => {
        Key {
            name: stringify!($field),
            values: $values,
            default: $default,
            set: |config, value| {
                config.$field = $parse(value)?;
                Ok(())
            },
        }
    };
}

const KEYS: &[Key] = &[
    key!(
        nic,
        parse::nic,
        "`auto` (best that works here), `off` (kernel sockets), `soft` (software NIC over AF_XDP), `tap:<name>`, `nfp:<pci address>`, `nfp-emu`, `nfp-emu:<socket of flextcp-card>`",
        "`auto`"
    ),
    key!(
        interfaces,
        parse::interfaces,
        "`auto`, or interface names separated by commas; see [`Interfaces`]",
        "`auto`"
    ),
    key!(
        fallback,
        parse::fallback,
        "`allow` (kernel sockets where the NIC cannot serve, with one warning), `deny` (an error instead)",
        "`allow`"
    ),
    key!(
        hairpin,
        parse::switch,
        "`on` (connections within the process stay in it), `off` (they go over the port)",
        "`on`"
    ),
    key!(
        xdp_mode,
        parse::xdp_mode,
        "`auto`, `native`, `generic`",
        "`auto`"
    ),
    key!(
        offload,
        parse::offload,
        "`auto`, `never`, `always`, `random:<seed>`; see [`Offload`]",
        "`auto`"
    ),
    key!(
        congestion,
        parse::congestion,
        "`cubic`, `reno`, `dctcp`, `bbr`",
        "`cubic`"
    ),
    key!(
        ecn,
        parse::ecn,
        "explicit congestion notification: `off`, `accept` (when the peer asks), `request` (ask as well); DCTCP asks unless it is off",
        "`accept`"
    ),
    key!(
        memory,
        parse::size,
        "bytes for all app buffers together: `512M`, `2GiB`",
        "`1GiB`"
    ),
    key!(
        recv_buffer_max,
        parse::buffer_max,
        "bytes a receive buffer may grow to, `4KiB` to `1GiB`, rounded up to a power of two",
        "`8MiB`"
    ),
    key!(
        send_buffer_max,
        parse::buffer_max,
        "the same of a send buffer, which grows with the congestion window",
        "`16MiB`"
    ),
    key!(
        spin,
        parse::spin,
        "how long an idle core polls before it sleeps, at most: `50us`, `1ms`, up to `1s`; a number alone is microseconds",
        "`50us`"
    ),
    key!(
        tap_addr,
        parse::interface_addrs,
        "our addresses on the TAP device, with prefix length, separated by commas: `10.0.0.2/24`",
        "none"
    ),
    key!(
        filter,
        parse::filter,
        "who may connect to what we listen on: rules separated by commas, of which the first that matches decides, as in `allow 10.0.0.0/8 port 443, deny any port 443`; see [`Filter`]",
        "all"
    ),
    key!(
        impair,
        parse::optional_text,
        "impairment of the port, for tests (`flextcp_nic::port::impair` parses it)",
        "none"
    ),
    key!(
        capture,
        parse::optional_path,
        "path of a pcapng file of what passes the port",
        "none"
    ),
    key!(
        control,
        parse::optional_path,
        "path of a Unix socket that answers `flextcp ss PATH` and `curl --unix-socket PATH http://flextcp/stats` (or `/metrics`, `/connections`)",
        "none"
    ),
];

/// All keys, for tables of them.
pub(super) fn settings() -> impl Iterator<Item = Setting> {
    let file = Setting {
        variable: FILE.to_owned(),
        key: None,
        values: FILE_VALUES,
        default: "none",
    };
    let keys = KEYS.iter().map(|key| Setting {
        variable: format!("{PREFIX}{}", key.name.to_ascii_uppercase()),
        key: Some(key.name),
        values: key.values,
        default: key.default,
    });
    std::iter::once(file).chain(keys)
}

/// The key that the variable `name` sets.
pub(super) fn by_env(name: &str) -> Option<&'static Key> {
    let name = name.strip_prefix(PREFIX)?;
    KEYS.iter()
        .find(|key| key.name.to_ascii_uppercase() == name)
}

/// The key that is called `name` in TOML.
pub(super) fn by_toml(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Variables that are not configuration: test suites read them, and the exit handler.
pub(super) fn is_for_tests(name: &str) -> bool {
    matches!(
        name,
        "FLEXTCP_FULL" | "FLEXTCP_REQUIRE_PRIVILEGED" | "FLEXTCP_STATS_FILE"
    ) || name.starts_with("FLEXTCP_TEST_")
}

/// All variables, for error messages.
pub(super) fn env_names() -> String {
    settings()
        .map(|setting| setting.variable)
        .collect::<Vec<_>>()
        .join(", ")
}

/// All TOML keys, for error messages.
pub(super) fn toml_names() -> String {
    KEYS.iter()
        .map(|key| key.name)
        .collect::<Vec<_>>()
        .join(", ")
}
