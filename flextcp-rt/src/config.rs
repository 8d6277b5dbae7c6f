//! Configuration: sensible with none.
//!
//! Later wins: defaults, then the TOML file that `FLEXTCP_CONFIG` names, then `FLEXTCP_*` variables, then the
//! [builder](ConfigBuilder). The TOML keys are the names of the table at the top level of the file, with a
//! string, number, boolean or list of strings as value.
//!
//! | variable | TOML key | values | default |
//! |---|---|---|---|
//! | `FLEXTCP_CONFIG` | | path of a TOML file with the keys below | none |
//! | `FLEXTCP_NIC` | `nic` | `auto` (best that works here), `off` (kernel sockets), `soft` (software NIC over AF_XDP), `tap:<name>`, `nfp:<pci address>`, `nfp-emu`, `nfp-emu:<socket of flextcp-card>` | `auto` |
//! | `FLEXTCP_INTERFACES` | `interfaces` | `auto`, or interface names separated by commas; see [`Interfaces`] | `auto` |
//! | `FLEXTCP_FALLBACK` | `fallback` | `allow` (kernel sockets where the NIC cannot serve, with one warning), `deny` (an error instead) | `allow` |
//! | `FLEXTCP_HAIRPIN` | `hairpin` | `on` (connections within the process stay in it), `off` (they go over the port) | `on` |
//! | `FLEXTCP_XDP_MODE` | `xdp_mode` | `auto`, `native`, `generic` | `auto` |
//! | `FLEXTCP_OFFLOAD` | `offload` | `auto`, `never`, `always`, `random:<seed>`; see [`Offload`] | `auto` |
//! | `FLEXTCP_CONGESTION` | `congestion` | `cubic`, `reno`, `dctcp`, `bbr` | `cubic` |
//! | `FLEXTCP_ECN` | `ecn` | explicit congestion notification: `off`, `accept` (when the peer asks), `request` (ask as well); DCTCP asks unless it is off | `accept` |
//! | `FLEXTCP_MEMORY` | `memory` | bytes for all app buffers together: `512M`, `2GiB` | `1GiB` |
//! | `FLEXTCP_RECV_BUFFER_MAX` | `recv_buffer_max` | bytes a receive buffer may grow to, `4KiB` to `1GiB`, rounded up to a power of two | `8MiB` |
//! | `FLEXTCP_SEND_BUFFER_MAX` | `send_buffer_max` | the same of a send buffer, which grows with the congestion window | `16MiB` |
//! | `FLEXTCP_SPIN` | `spin` | how long an idle core polls before it sleeps, at most: `50us`, `1ms`, up to `1s`; a number alone is microseconds | `50us` |
//! | `FLEXTCP_TAP_ADDR` | `tap_addr` | our addresses on the TAP device, with prefix length, separated by commas: `10.0.0.2/24` | none |
//! | `FLEXTCP_FILTER` | `filter` | who may connect to what we listen on: rules separated by commas, of which the first that matches decides, as in `allow 10.0.0.0/8 port 443, deny any port 443`; see [`Filter`] | all |
//! | `FLEXTCP_IMPAIR` | `impair` | impairment of the port, for tests (`flextcp_nic::port::impair` parses it) | none |
//! | `FLEXTCP_CAPTURE` | `capture` | path of a pcapng file of what passes the port | none |
//! | `FLEXTCP_CONTROL` | `control` | path of a Unix socket that answers `flextcp ss PATH` and `curl --unix-socket PATH http://flextcp/stats` (or `/metrics`, `/connections`) | none |
//!
//! A key that is not in the table, or a value its key does not take, is a [`ConfigError`].

mod keys;
mod parse;

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use flextcp_nic::soft::filter::{Filter, Prefix, Rule, Verdict};

use crate::offload::OffloadPolicy;
pub use crate::tcp::Ecn;
use crate::tcp::EngineConfig;

/// Which NIC serves.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum NicChoice {
    /// The best that works here: the software NIC over AF_XDP, else what [`Fallback`] says.
    #[default]
    Auto,
    /// None: kernel sockets only.
    Off,
    /// The software NIC over AF_XDP.
    Soft,
    /// The software NIC over the TAP device of this name.
    Tap(String),
    /// A Netronome card at this PCI address.
    Nfp(String),
    /// The Netronome firmware, compiled for the host.
    NfpEmulated,
    /// The same in another process (`flextcp-card`), which listens at this path.
    NfpProcess(PathBuf),
}

/// Which interfaces are accelerated.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Interfaces {
    /// Every interface that owns an address we listen on, or that a connection leaves through, *except* the
    /// interface of the default route. That one is taken only when it is named: nobody should lose a machine
    /// by importing a crate.
    #[default]
    Auto,
    /// These, by name.
    List(Vec<String>),
}

impl Interfaces {
    /// Whether the interface `name` may be accelerated; `default_route` tells that the default route leaves
    /// through it.
    pub fn permits(&self, name: &str, default_route: bool) -> bool {
        match self {
            Self::Auto => !default_route,
            Self::List(names) => names.iter().any(|listed| listed == name),
        }
    }
}

/// What happens where the NIC cannot serve: no privilege, no XDP, queue busy.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Fallback {
    /// Kernel sockets, with one warning that says why.
    #[default]
    Allow,
    /// An error.
    Deny,
}

/// How the XDP program is attached.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum XdpMode {
    /// In the driver where it can, else in the kernel's generic hook.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the generic hook.
    Generic,
}

/// When an established connection is installed on the NIC. The bytes that the peers exchange are the same
/// whatever is chosen; all but [`Offload::Auto`] are for tests.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Offload {
    /// As the engine has it by default.
    #[default]
    Auto,
    /// Never: the engine carries every connection.
    Never,
    /// Whenever it is possible.
    Always,
    /// Installed and claimed at random, from this seed.
    Random(u64),
}

/// Congestion control.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Congestion {
    /// CUBIC (RFC 9438), Linux's default.
    #[default]
    Cubic,
    /// Reno (RFC 5681).
    Reno,
    /// DCTCP (RFC 8257), for networks that mark congestion.
    Dctcp,
    /// BBR, which goes by a model of the path.
    Bbr,
}

impl Congestion {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Cubic, Self::Reno, Self::Dctcp, Self::Bbr];

    /// Name, as in the configuration and in `TCP_CONGESTION`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cubic => "cubic",
            Self::Reno => "reno",
            Self::Dctcp => "dctcp",
            Self::Bbr => "bbr",
        }
    }
}

/// An own address with the length of its network's prefix.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InterfaceAddr {
    /// The address.
    pub addr: IpAddr,
    /// Bits of the prefix, at most 32 or 128.
    pub prefix_len: u8,
}

impl fmt::Display for InterfaceAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix_len)
    }
}

/// A variable and its TOML twin, as documentation shows them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Setting {
    /// Environment variable.
    pub variable: String,
    /// Key of the TOML file, where there is one.
    pub key: Option<&'static str>,
    /// What it takes, in Markdown.
    pub values: &'static str,
    /// What holds without it, in Markdown.
    pub default: &'static str,
}

impl fmt::Display for Setting {
    /// A row of a Markdown table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key.map_or_else(String::new, |key| format!("`{key}` "));
        write!(
            f,
            "| `{}` | {key}| {} | {} |",
            self.variable, self.values, self.default
        )
    }
}

/// Every setting there is.
pub fn settings() -> impl Iterator<Item = Setting> {
    keys::settings()
}

/// All of the configuration. See the [module](self) for what each field takes.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Which NIC serves.
    pub nic: NicChoice,
    /// Which interfaces are accelerated.
    pub interfaces: Interfaces,
    /// What happens where the NIC cannot serve.
    pub fallback: Fallback,
    /// Whether connections within the process stay in it.
    pub hairpin: bool,
    /// How the XDP program is attached.
    pub xdp_mode: XdpMode,
    /// When connections are installed on the NIC.
    pub offload: Offload,
    /// Congestion control of new connections.
    pub congestion: Congestion,
    /// When explicit congestion notification is negotiated.
    pub ecn: Ecn,
    /// Bytes for all app buffers together.
    pub memory: u64,
    /// Bytes a receive buffer may grow to; a power of two.
    pub recv_buffer_max: u32,
    /// Bytes a send buffer may grow to; a power of two.
    pub send_buffer_max: u32,
    /// How long an idle core polls before it sleeps, at most.
    pub spin: Duration,
    /// Our addresses on the TAP device.
    pub tap_addr: Vec<InterfaceAddr>,
    /// Who may connect over the NIC to what we listen on. Kernel sockets, and connections within the process, are
    /// not asked about.
    pub filter: Filter,
    /// Impairment of the port.
    pub impair: Option<String>,
    /// Where to write what passes the port.
    pub capture: Option<PathBuf>,
    /// Path of the control socket.
    pub control: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            nic: NicChoice::default(),
            interfaces: Interfaces::default(),
            fallback: Fallback::default(),
            hairpin: true,
            xdp_mode: XdpMode::default(),
            offload: Offload::default(),
            congestion: Congestion::default(),
            ecn: Ecn::default(),
            memory: 1 << 30,
            // The powers of two next to Linux's default tcp_rmem[2] and tcp_wmem[2].
            recv_buffer_max: 8 << 20,
            send_buffer_max: 16 << 20,
            spin: Duration::from_micros(50),
            tap_addr: Vec::new(),
            filter: Filter::default(),
            impair: None,
            capture: None,
            control: None,
        }
    }
}

impl Config {
    /// The configuration of this process's environment: the file that `FLEXTCP_CONFIG` names, then the
    /// `FLEXTCP_*` variables.
    ///
    /// # Errors
    /// [`ConfigError`], for the first key or value that is wrong.
    pub fn from_env() -> Result<Self, ConfigError> {
        let vars = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            name.starts_with(keys::PREFIX)
                .then(|| (name, value.to_string_lossy().into_owned()))
        });
        Self::from_vars(vars, |path| std::fs::read_to_string(path))
    }

    /// As [`from_env`](Self::from_env), with the variables and the file system passed in.
    fn from_vars(
        vars: impl Iterator<Item = (String, String)>,
        read: impl Fn(&Path) -> std::io::Result<String>,
    ) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        let vars: Vec<_> = vars.collect();
        if let Some((name, path)) = vars.iter().find(|(name, _)| name == keys::FILE) {
            let text = read(Path::new(path)).map_err(|error| {
                ConfigError::new(
                    name,
                    path,
                    format!("cannot be read ({error}); name a readable TOML file"),
                )
            })?;
            config
                .apply_toml(&text)
                .map_err(|error| error.within(path))?;
        }
        for (name, value) in &vars {
            if name != keys::FILE && !keys::is_for_tests(name) {
                let key = keys::by_env(name).ok_or_else(|| {
                    ConfigError::new(
                        name,
                        value,
                        format!("no such variable; the variables are {}", keys::env_names()),
                    )
                })?;
                (key.set)(&mut config, value).map_err(|fix| ConfigError::new(name, value, fix))?;
            }
        }
        config.validated()
    }

    /// The configuration that a TOML text describes, over the defaults.
    ///
    /// # Errors
    /// [`ConfigError`], for the first key or value that is wrong.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        config.apply_toml(text)?;
        config.validated()
    }

    fn apply_toml(&mut self, text: &str) -> Result<(), ConfigError> {
        let table: toml::Table = text
            .parse()
            .map_err(|error| ConfigError::new("TOML", "", format!("not valid: {error}")))?;
        for (name, value) in &table {
            let Some(value) = parse::toml_value(value) else {
                return Err(ConfigError::new(
                    name,
                    &value.to_string(),
                    "use a string, a number, a boolean or a list of strings",
                ));
            };
            let key = keys::by_toml(name).ok_or_else(|| {
                ConfigError::new(
                    name,
                    &value,
                    format!("no such key; the keys are {}", keys::toml_names()),
                )
            })?;
            (key.set)(self, &value).map_err(|fix| ConfigError::new(name, &value, fix))?;
        }
        Ok(())
    }

    /// A builder that starts from the defaults.
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder::default()
    }

    /// What of it is the engine's.
    pub fn engine(&self) -> EngineConfig {
        let defaults = EngineConfig::default();
        EngineConfig {
            offload: match (&self.nic, self.offload) {
                (NicChoice::Off, _) | (_, Offload::Never) => OffloadPolicy::Never,
                (_, Offload::Auto) => defaults.offload,
                (_, Offload::Always) => OffloadPolicy::Always,
                (_, Offload::Random(seed)) => OffloadPolicy::Random(seed),
            },
            recv_buffer_initial: defaults.recv_buffer_initial.min(self.recv_buffer_max),
            recv_buffer_max: self.recv_buffer_max,
            send_buffer_max: self.send_buffer_max,
            congestion: self.congestion.name(),
            ecn: self.ecn,
            ..defaults
        }
    }

    /// Rules between keys, which no single value can break.
    fn validated(self) -> Result<Self, ConfigError> {
        let largest = u64::from(self.recv_buffer_max);
        if self.memory < largest {
            return Err(ConfigError::new(
                "memory",
                &self.memory.to_string(),
                format!(
                    "less than one receive buffer may grow to; raise it to {largest} at least, or lower recv_buffer_max"
                ),
            ));
        }
        match (&self.nic, self.tap_addr.as_slice()) {
            (NicChoice::Tap(name), []) => Err(ConfigError::new(
                "nic",
                &format!("tap:{name}"),
                "a TAP needs our own address on it: set tap_addr (FLEXTCP_TAP_ADDR), such as 10.0.0.2/24",
            )),
            (NicChoice::Tap(_), _) | (_, []) => Ok(self),
            (_, [first, ..]) => Err(ConfigError::new(
                "tap_addr",
                &first.to_string(),
                "has no meaning without a TAP; set nic (FLEXTCP_NIC) to tap:<name>, or remove it",
            )),
        }
    }
}

/// Builds a [`Config`] in code, over the defaults or over what [`Config::from_env`] gave (`ConfigBuilder::from`).
#[derive(Clone, Debug, Default)]
pub struct ConfigBuilder {
    config: Config,
}

impl From<Config> for ConfigBuilder {
    fn from(config: Config) -> Self {
        Self { config }
    }
}

/// One setter per field: named, documented and typed as the field.
macro_rules! setters {
    ($($field:ident: $type:ty),+ $(,)?) => {
        $(
            #[doc = concat!("Sets [`Config::", stringify!($field), "`].")]
            #[must_use]
            pub fn $field(mut self, $field: $type) -> Self {
                self.config.$field = $field;
                self
            }
        )+
    };
}

impl ConfigBuilder {
    setters! {
        nic: NicChoice,
        interfaces: Interfaces,
        fallback: Fallback,
        hairpin: bool,
        xdp_mode: XdpMode,
        offload: Offload,
        congestion: Congestion,
        ecn: Ecn,
        memory: u64,
        spin: Duration,
        tap_addr: Vec<InterfaceAddr>,
        filter: Filter,
        impair: Option<String>,
        capture: Option<PathBuf>,
        control: Option<PathBuf>,
    }

    /// Sets [`Config::recv_buffer_max`], clamped to 4 KiB..=1 GiB and rounded up to a power of two.
    #[must_use]
    pub fn recv_buffer_max(mut self, bytes: u32) -> Self {
        self.config.recv_buffer_max = parse::round_buffer(bytes);
        self
    }

    /// Sets [`Config::send_buffer_max`], clamped to 4 KiB..=1 GiB and rounded up to a power of two.
    #[must_use]
    pub fn send_buffer_max(mut self, bytes: u32) -> Self {
        self.config.send_buffer_max = parse::round_buffer(bytes);
        self
    }

    /// The configuration.
    ///
    /// # Errors
    /// [`ConfigError`] when fields contradict each other.
    pub fn build(self) -> Result<Config, ConfigError> {
        self.config.validated()
    }
}

/// A key or value that the configuration does not take. The text names the key, the value and the fix.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigError {
    key: String,
    value: String,
    fix: String,
    file: Option<String>,
}

impl ConfigError {
    fn new(key: &str, value: &str, fix: impl Into<String>) -> Self {
        Self {
            key: key.to_owned(),
            value: value.to_owned(),
            fix: fix.into(),
            file: None,
        }
    }

    fn within(mut self, file: &str) -> Self {
        self.file = Some(file.to_owned());
        self
    }

    /// The variable or TOML key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Its value.
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}: ")?;
        }
        write!(f, "{} = {:?}: {}", self.key, self.value, self.fix)
    }
}

impl std::error::Error for ConfigError {}

impl From<ConfigError> for std::io::Error {
    fn from(error: ConfigError) -> Self {
        Self::new(std::io::ErrorKind::InvalidInput, error)
    }
}

#[cfg(test)]
mod tests;
