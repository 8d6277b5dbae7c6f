use std::io;

use super::*;

fn set(name: &str, value: &str) -> Result<Config, ConfigError> {
    let vars = [(name.to_owned(), value.to_owned())];
    Config::from_vars(vars.into_iter(), |_| Err(io::ErrorKind::NotFound.into()))
}

fn changed(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::default();
    change(&mut config);
    config
}

fn filter() -> Filter {
    Filter::new(vec![
        Rule {
            verdict: Verdict::Allow,
            remote: Some(Prefix::new([10, 0, 0, 0].into(), 8)),
            local_port: Some(443),
        },
        Rule {
            verdict: Verdict::Deny,
            remote: None,
            local_port: Some(443),
        },
    ])
}

#[test]
fn the_documentation_has_a_row_for_every_setting_and_no_other() {
    let documented: Vec<&str> = include_str!("../config.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//! "))
        .filter(|line| line.starts_with("| `FLEXTCP_"))
        .collect();
    let settings: Vec<String> = settings().map(|setting| setting.to_string()).collect();
    assert_eq!(documented, settings);
}

#[test]
fn every_documented_value_is_taken() {
    let list = |names: &[&str]| Interfaces::List(names.iter().map(|s| (*s).to_owned()).collect());
    let table: Vec<(&str, &str, Config)> = vec![
        ("NIC", "auto", Config::default()),
        ("NIC", "off", changed(|c| c.nic = NicChoice::Off)),
        ("NIC", "soft", changed(|c| c.nic = NicChoice::Soft)),
        (
            "NIC",
            "nfp-emu",
            changed(|c| c.nic = NicChoice::NfpEmulated),
        ),
        (
            "NIC",
            "nfp-emu:/run/card.sock",
            changed(|c| c.nic = NicChoice::NfpProcess("/run/card.sock".into())),
        ),
        (
            "NIC",
            "nfp:0000:03:00.0",
            changed(|c| c.nic = NicChoice::Nfp("0000:03:00.0".into())),
        ),
        ("INTERFACES", "auto", Config::default()),
        (
            "INTERFACES",
            "lo, eth1",
            changed(|c| c.interfaces = list(&["lo", "eth1"])),
        ),
        ("FALLBACK", "deny", changed(|c| c.fallback = Fallback::Deny)),
        ("HAIRPIN", "off", changed(|c| c.hairpin = false)),
        (
            "XDP_MODE",
            "generic",
            changed(|c| c.xdp_mode = XdpMode::Generic),
        ),
        ("OFFLOAD", "never", changed(|c| c.offload = Offload::Never)),
        (
            "OFFLOAD",
            "random:7",
            changed(|c| c.offload = Offload::Random(7)),
        ),
        (
            "CONGESTION",
            "reno",
            changed(|c| c.congestion = Congestion::Reno),
        ),
        (
            "CONGESTION",
            "dctcp",
            changed(|c| c.congestion = Congestion::Dctcp),
        ),
        (
            "CONGESTION",
            "bbr",
            changed(|c| c.congestion = Congestion::Bbr),
        ),
        ("ECN", "request", changed(|c| c.ecn = Ecn::Request)),
        ("MEMORY", "512M", changed(|c| c.memory = 512 << 20)),
        ("MEMORY", "2GiB", changed(|c| c.memory = 2 << 30)),
        ("MEMORY", "16777216", changed(|c| c.memory = 16 << 20)),
        (
            "RECV_BUFFER_MAX",
            "1000000",
            changed(|c| c.recv_buffer_max = 1 << 20),
        ),
        (
            "SEND_BUFFER_MAX",
            "64k",
            changed(|c| c.send_buffer_max = 64 << 10),
        ),
        ("SPIN", "0", changed(|c| c.spin = Duration::ZERO)),
        (
            "SPIN",
            "20",
            changed(|c| c.spin = Duration::from_micros(20)),
        ),
        (
            "SPIN",
            "1.5ms",
            changed(|c| c.spin = Duration::from_micros(1_500)),
        ),
        ("SPIN", "1s", changed(|c| c.spin = Duration::from_secs(1))),
        (
            "FILTER",
            "allow 10.0.0.0/8 port 443, deny any port 443",
            changed(|c| c.filter = filter()),
        ),
        ("FILTER", "", Config::default()),
        (
            "IMPAIR",
            "loss=1%",
            changed(|c| c.impair = Some("loss=1%".into())),
        ),
        (
            "CAPTURE",
            "/tmp/a.pcapng",
            changed(|c| c.capture = Some("/tmp/a.pcapng".into())),
        ),
        ("CAPTURE", "", Config::default()),
        ("REQUIRE_PRIVILEGED", "1", Config::default()),
        ("TEST_ANYTHING", "x", Config::default()),
    ];
    for (key, value, expected) in table {
        let variable = format!("FLEXTCP_{key}");
        assert_eq!(
            set(&variable, value).as_ref(),
            Ok(&expected),
            "{variable}={value}"
        );
    }
}

#[test]
fn a_wrong_value_is_named_with_its_key_and_a_fix() {
    let table = [
        ("NIC", "fast", "use one of: auto"),
        ("NIC", "tap:", "cannot name an interface"),
        ("NIC", "tap:has/slash", "cannot name an interface"),
        ("NIC", "nfp:03:00.0", "0000:03:00.0"),
        ("NIC", "nfp:0000:03:00.9", "0000:03:00.0"),
        ("NIC", "nfp-emu:card.sock", "absolute path"),
        ("NIC", "tap:flex0", "set tap_addr"),
        ("INTERFACES", "", "cannot name an interface"),
        ("INTERFACES", "lo,,eth0", "cannot name an interface"),
        ("INTERFACES", "sixteencharacter", "of 1 to 15"),
        ("FALLBACK", "yes", "allow, deny"),
        ("HAIRPIN", "1", "on, off"),
        ("XDP_MODE", "offload", "native"),
        ("OFFLOAD", "random:", "random:1"),
        ("OFFLOAD", "sometimes", "random:<seed>"),
        ("CONGESTION", "vegas", "reno"),
        ("MEMORY", "lots", "512M"),
        ("MEMORY", "-1", "512M"),
        ("MEMORY", "99999999999999T", "512M"),
        ("MEMORY", "1M", "raise it"),
        ("RECV_BUFFER_MAX", "1K", "between 4KiB and 1GiB"),
        ("SEND_BUFFER_MAX", "8G", "between 4KiB and 1GiB"),
        ("SPIN", "soon", "50us"),
        ("SPIN", "1000001", "microseconds"),
        ("SPIN", "2s", "a second at most"),
        ("TAP_ADDR", "10.0.0.2", "prefix length"),
        ("TAP_ADDR", "10.0.0.2/33", "prefix length"),
        ("TAP_ADDR", "0.0.0.0/0", "unicast"),
        ("TAP_ADDR", "10.0.0.2/24", "set nic"),
        ("FILTER", "deny", "deny port 22"),
        ("FILTER", "deny any,", "deny port 22"),
        (
            "FILTER",
            "deny any, allow 10.0.0.0/40",
            "\"allow 10.0.0.0/40\" is not",
        ),
        ("FILTER", "deny any port http", "deny port 22"),
        ("CONFIG", "/nowhere", "cannot be read"),
        ("NICS", "auto", "FLEXTCP_NIC"),
    ];
    for (key, value, fix) in table {
        let variable = format!("FLEXTCP_{key}");
        let text = set(&variable, value).expect_err(&variable).to_string();
        let stated = text.contains(&variable) || text.contains(&key.to_ascii_lowercase());
        assert!(stated, "{text:?} does not name {variable}");
        assert!(text.contains(fix), "{text:?} lacks {fix:?}");
    }
}

#[test]
fn a_variable_wins_over_the_file() {
    let file = "nic = 'tap:flex0'\ntap_addr = ['10.0.0.2/24', 'fd00::2/64']\nhairpin = false\nspin = 10\n\
         filter = ['allow 10.0.0.0/8 port 443', 'deny port 443']\n";
    let vars = [("FLEXTCP_CONFIG", "flextcp.toml"), ("FLEXTCP_SPIN", "20us")];
    let vars = vars
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = Config::from_vars(vars, |path| {
        assert_eq!(path, Path::new("flextcp.toml"));
        Ok(file.to_owned())
    })
    .unwrap();
    assert_eq!(config.nic, NicChoice::Tap("flex0".into()));
    assert_eq!(config.tap_addr.len(), 2);
    assert_eq!(config.tap_addr[1].to_string(), "fd00::2/64");
    assert!(!config.hairpin);
    assert_eq!(config.filter, filter());
    assert_eq!(config.spin, Duration::from_micros(20));
}

#[test]
fn a_wrong_file_is_refused() {
    for (text, names) in [
        ("nic = ", "TOML"),
        ("colour = 'red'", "colour"),
        ("nic = {a = 1}", "use a string"),
        ("interfaces = [1, 2]", "use a string"),
        ("memory = -5", "memory"),
        ("filter = ['deny all']", "deny any"),
    ] {
        let error = Config::from_toml(text).expect_err(text).to_string();
        assert!(error.contains(names), "{text:?} gave {error:?}");
    }
}

#[test]
fn an_error_in_the_file_names_the_file() {
    let vars = [("FLEXTCP_CONFIG".to_owned(), "flextcp.toml".to_owned())];
    let error = Config::from_vars(vars.into_iter(), |_| Ok("nic = 'x'".to_owned())).unwrap_err();
    assert!(
        error.to_string().starts_with("flextcp.toml: nic = \"x\""),
        "{error}"
    );
    assert_eq!((error.key(), error.value()), ("nic", "x"));
}

#[test]
fn the_builder_starts_from_anything() {
    let config = Config::builder()
        .hairpin(false)
        .recv_buffer_max(100_000)
        .build()
        .unwrap();
    assert_eq!(config.recv_buffer_max, 128 << 10);
    let config = ConfigBuilder::from(config)
        .nic(NicChoice::Off)
        .build()
        .unwrap();
    assert!(!config.hairpin);
    assert_eq!(config.nic, NicChoice::Off);
    assert!(ConfigBuilder::from(config).memory(1).build().is_err());
}

#[test]
fn the_default_route_is_taken_only_by_name() {
    assert!(!Interfaces::Auto.permits("eth0", true));
    assert!(Interfaces::Auto.permits("veth0", false));
    let named = Interfaces::List(vec!["eth0".into()]);
    assert!(named.permits("eth0", true));
    assert!(!named.permits("veth0", false));
}

#[test]
fn the_documented_table_lists_every_key() {
    let docs = include_str!("../config.rs");
    for name in keys::toml_names().split(", ") {
        assert!(
            docs.contains(&format!("| `{name}` |")),
            "{name} is not in the module's table"
        );
    }
}

#[test]
fn the_engine_gets_its_part() {
    let config = Config::builder()
        .recv_buffer_max(16 << 10)
        .offload(Offload::Random(3))
        .build()
        .unwrap();
    let engine = config.engine();
    assert_eq!(engine.offload, OffloadPolicy::Random(3));
    assert_eq!(
        (engine.recv_buffer_initial, engine.recv_buffer_max),
        (16 << 10, 16 << 10)
    );
    assert_eq!(engine.congestion, "cubic");
    let off = Config::builder().nic(NicChoice::Off).build().unwrap();
    assert_eq!(off.engine().offload, OffloadPolicy::Never);
}
