//! The NIC's own packet filter: what XDP takes never meets netfilter, so this stands in for it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::flow::FlowTuple;

/// Addresses that share their first bits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Prefix {
    address: IpAddr,
    len: u8,
}

impl Prefix {
    /// The prefix of `len` bits of `address`; a longer one than the family has is the address itself.
    pub fn new(address: IpAddr, len: u8) -> Self {
        let max = if address.is_ipv4() { 32 } else { 128 };
        Self {
            address,
            len: len.min(max),
        }
    }

    /// An address that starts with these bits.
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// How many bits they are.
    pub const fn bits(&self) -> u8 {
        self.len
    }

    /// Whether `address` starts with these bits.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differs = own.to_bits() ^ other.to_bits();
                differs.leading_zeros() >= u32::from(self.len)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differs = own.to_bits() ^ other.to_bits();
                differs.leading_zeros() >= u32::from(self.len)
            }
            _ => false,
        }
    }

    /// Every IPv4 address.
    pub const ANY_V4: Self = Self {
        address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        len: 0,
    };
    /// Every IPv6 address.
    pub const ANY_V6: Self = Self {
        address: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        len: 0,
    };
}

/// The text is no prefix.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InvalidPrefix;

impl fmt::Display for InvalidPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an address prefix: write it as in 10.0.0.0/8 or fd00::/8")
    }
}

impl std::error::Error for InvalidPrefix {}

impl FromStr for Prefix {
    type Err = InvalidPrefix;

    fn from_str(text: &str) -> Result<Self, InvalidPrefix> {
        let (address, len) = text
            .split_once('/')
            .map_or((text, None), |(a, len)| (a, Some(len)));
        let address: IpAddr = address.parse().map_err(|_| InvalidPrefix)?;
        let max = if address.is_ipv4() { 32 } else { 128 };
        let len = len.map_or(Ok(max), |len| len.parse().map_err(|_| InvalidPrefix))?;
        if len <= max {
            Ok(Self { address, len })
        } else {
            Err(InvalidPrefix)
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

/// What a matching rule says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Take the frame.
    Allow,
    /// Drop and count it.
    Deny,
}

/// One rule. As text: `allow` or `deny`, then `any` or a prefix of the peer's addresses, then perhaps our port, as in
/// `allow 10.0.0.0/8 port 443`; the prefix may be left out before a port.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rule {
    /// What to do.
    pub verdict: Verdict,
    /// The peer's addresses; `None` for all.
    pub remote: Option<Prefix>,
    /// Our port; `None` for all.
    pub local_port: Option<u16>,
}

/// The text is no rule.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InvalidRule;

impl fmt::Display for InvalidRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not a filter rule: write it as in `allow 10.0.0.0/8 port 443`, `deny port 22` or `deny any`",
        )
    }
}

impl std::error::Error for InvalidRule {}

impl FromStr for Rule {
    type Err = InvalidRule;

    fn from_str(text: &str) -> Result<Self, InvalidRule> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let (verdict, from, port) = match words[..] {
            [verdict, "port", port] => (verdict, "any", Some(port)),
            [verdict, from] => (verdict, from, None),
            [verdict, from, "port", port] => (verdict, from, Some(port)),
            _ => return Err(InvalidRule),
        };
        let verdict = match verdict {
            "allow" => Verdict::Allow,
            "deny" => Verdict::Deny,
            _ => return Err(InvalidRule),
        };
        let remote = match from {
            "any" => None,
            prefix => Some(prefix.parse().map_err(|_| InvalidRule)?),
        };
        let local_port = match port.map(str::parse) {
            None => None,
            Some(Ok(0) | Err(_)) => return Err(InvalidRule),
            Some(Ok(port)) => Some(port),
        };
        Ok(Self {
            verdict,
            remote,
            local_port,
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.verdict {
            Verdict::Allow => "allow ",
            Verdict::Deny => "deny ",
        })?;
        match self.remote {
            Some(prefix) => write!(f, "{prefix}")?,
            None => f.write_str("any")?,
        }
        self.local_port
            .map_or(Ok(()), |port| write!(f, " port {port}"))
    }
}

/// Whose segments reach what we listen on: rules in order; the first that matches decides, and none means allow.
/// They are asked for segments of no installed flow: an installed one was let in by them. What comes back to a port
/// that only connects is not asked about; a rule never cuts off what this host itself began.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Filter {
    rules: Vec<Rule>,
}

impl Filter {
    /// A filter of these rules.
    pub const fn new(rules: Vec<Rule>) -> Self {
        Self { rules }
    }

    /// Its rules.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether a segment received on `tuple` is let in.
    pub fn allows(&self, tuple: &FlowTuple) -> bool {
        let matches = |rule: &&Rule| {
            rule.remote
                .is_none_or(|prefix| prefix.contains(tuple.remote.0))
                && rule.local_port.is_none_or(|port| port == tuple.local.1)
        };
        self.rules
            .iter()
            .find(matches)
            .is_none_or(|rule| rule.verdict == Verdict::Allow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_match_decides() {
        let rule = |verdict, remote: Option<&str>, local_port| Rule {
            verdict,
            remote: remote.map(|prefix| prefix.parse().unwrap()),
            local_port,
        };
        let filter = Filter::new(vec![
            rule(Verdict::Allow, Some("10.1.0.0/16"), Some(80)),
            rule(Verdict::Deny, Some("10.0.0.0/8"), None),
            rule(Verdict::Deny, Some("fd00::/8"), Some(22)),
        ]);
        let allows = |local: &str, remote: &str| {
            filter.allows(&FlowTuple::new(
                local.parse().unwrap(),
                remote.parse().unwrap(),
            ))
        };
        assert!(allows("192.0.2.1:80", "10.1.2.3:5"));
        assert!(!allows("192.0.2.1:81", "10.1.2.3:5"));
        assert!(!allows("192.0.2.1:80", "10.2.2.3:5"));
        assert!(allows("192.0.2.1:80", "11.2.2.3:5"));
        assert!(!allows("[::1]:22", "[fd12::1]:5"));
        assert!(allows("[::1]:23", "[fd12::1]:5"));
    }

    #[test]
    fn rules_parse_and_print() {
        for text in [
            "allow 10.0.0.0/8 port 443",
            "deny fd00::/8",
            "deny any",
            "allow any port 1",
        ] {
            assert_eq!(text.parse::<Rule>().unwrap().to_string(), text);
        }
        let short: Rule = " deny  port 22 ".parse().unwrap();
        assert_eq!(short.to_string(), "deny any port 22");
        let host: Rule = "allow 192.0.2.1".parse().unwrap();
        assert_eq!(host.to_string(), "allow 192.0.2.1/32");
        for bad in [
            "",
            "deny",
            "any",
            "drop any",
            "deny any port",
            "deny any port 0",
            "deny any port 65536",
            "deny 10.0.0.0/8 80",
            "deny 10.0.0.0/33",
            "allow any port 80 please",
        ] {
            assert_eq!(bad.parse::<Rule>(), Err(InvalidRule), "{bad}");
        }
    }

    #[test]
    fn prefixes_parse() {
        assert_eq!("0.0.0.0/0".parse(), Ok(Prefix::ANY_V4));
        assert_eq!("::/0".parse(), Ok(Prefix::ANY_V6));
        assert!(
            "::1"
                .parse::<Prefix>()
                .unwrap()
                .contains("::1".parse().unwrap())
        );
        for bad in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "1.2.3.4/",
            "1.2.3.4/x",
        ] {
            assert_eq!(bad.parse::<Prefix>(), Err(InvalidPrefix), "{bad}");
        }
    }
}
