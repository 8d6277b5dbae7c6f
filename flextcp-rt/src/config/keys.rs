//! The table of keys: one row for a variable and its TOML twin.

use super::{Config, parse};

/// What every variable of ours starts with.
pub(super) const PREFIX: &str = "FLEXTCP_";
/// Names the TOML file; not itself a key of that file.
pub(super) const FILE: &str = "FLEXTCP_CONFIG";

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    /// In the TOML file; the variable is the same in capitals after [`PREFIX`].
    pub(super) name: &'static str,
    /// Parses a value into its field; the error says what to write instead.
    pub(super) set: fn(&mut Config, &str) -> Result<(), String>,
}

/// Assigns the parsed value to its field.
macro_rules! key {
    ($field:ident, $parse:expr) => {
        Key {
            name: stringify!($field),
            set: |config, value| {
                config.$field = $parse(value)?;
                Ok(())
            },
        }
    };
}

const KEYS: &[Key] = &[
    key!(nic, parse::nic),
    key!(interfaces, parse::interfaces),
    key!(fallback, parse::fallback),
    key!(hairpin, parse::switch),
    key!(xdp_mode, parse::xdp_mode),
    key!(offload, parse::offload),
    key!(congestion, parse::congestion),
    key!(ecn, parse::ecn),
    key!(memory, parse::size),
    key!(recv_buffer_max, parse::buffer_max),
    key!(send_buffer_max, parse::buffer_max),
    key!(spin, parse::spin),
    key!(tap_addr, parse::interface_addrs),
    key!(filter, parse::filter),
    key!(impair, parse::optional_text),
    key!(capture, parse::optional_path),
];

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
    let keys = KEYS
        .iter()
        .map(|key| format!("{PREFIX}{}", key.name.to_ascii_uppercase()));
    std::iter::once(FILE.to_owned())
        .chain(keys)
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
