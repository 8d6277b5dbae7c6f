//! Receive-side scaling: the Toeplitz hash by which a multi-queue interface picks the queue of a flow.

use std::net::IpAddr;

use crate::flow::FlowTuple;

/// The key of Microsoft's verification suite, which many drivers use as theirs.
pub const MICROSOFT_KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// The hash of the packets that we *receive* on `tuple` (source is the remote end), under a key of 40 bytes
/// or more; shorter keys are continued with zeros.
pub fn toeplitz(key: &[u8], tuple: &FlowTuple) -> u32 {
    let mut hash = Toeplitz::new(key);
    for address in [tuple.remote.0, tuple.local.0] {
        match address {
            IpAddr::V4(v4) => hash.add(&v4.octets()),
            IpAddr::V6(v6) => hash.add(&v6.octets()),
        }
    }
    hash.add(&tuple.remote.1.to_be_bytes());
    hash.add(&tuple.local.1.to_be_bytes());
    hash.result
}

/// The hash of the packets that we receive on `tuple` by which `bpf/steer_hw.c` spreads connections over queues: the
/// card's BPF neither loops nor multiplies, so it is an exclusive or, folded. Its low six bits pick a bucket.
pub fn spread(tuple: &FlowTuple) -> u32 {
    let ports = u32::from(tuple.local.1) << 16 | u32::from(tuple.remote.1);
    let addresses = [tuple.local.0, tuple.remote.0];
    let words = addresses.map(|address| match address {
        IpAddr::V4(v4) => v4.to_bits(),
        IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            let halves = (bits >> 64) as u64 ^ bits as u64;
            (halves >> 32) as u32 ^ halves as u32
        }
    });
    let hash = words[0] ^ words[1] ^ ports;
    let hash = hash ^ hash >> 16;
    hash ^ hash >> 8
}

struct Toeplitz<'a> {
    /// The 32 bits of the key at the current input bit, with the following ones below.
    window: u64,
    key: std::slice::Iter<'a, u8>,
    result: u32,
}

impl<'a> Toeplitz<'a> {
    fn new(key: &'a [u8]) -> Self {
        let mut key = key.iter();
        let window = (0..4).fold(0, |window, _| window << 8 | next(&mut key));
        Self {
            window,
            key,
            result: 0,
        }
    }

    fn add(&mut self, input: &[u8]) {
        for &byte in input {
            self.window = self.window << 8 | next(&mut self.key);
            for bit in 0..8 {
                if byte & (0x80 >> bit) != 0 {
                    self.result ^= (self.window >> (8 - bit)) as u32;
                }
            }
        }
    }
}

fn next(key: &mut std::slice::Iter<'_, u8>) -> u64 {
    key.next().copied().map_or(0, u64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_ports_spread() {
        let buckets: std::collections::HashSet<u32> = (40_000..40_064)
            .map(|port| {
                let remote = std::net::SocketAddr::from(([10, 0, 0, 2], port));
                spread(&FlowTuple::new(([10, 0, 0, 1], 80).into(), remote)) & 63
            })
            .collect();
        assert_eq!(buckets.len(), 64);
    }

    /// "Verifying the RSS Hash Calculation", Windows driver documentation: destination is the local end.
    #[test]
    fn microsoft_vectors() {
        let vectors = [
            ("161.142.100.80:1766", "66.9.149.187:2794", 0x51cc_c178),
            ("65.69.140.83:4739", "199.92.111.2:14230", 0xc626_b0ea),
            ("12.22.207.184:38024", "24.19.198.95:12898", 0x5c2b_394a),
            ("209.142.163.6:2217", "38.27.205.30:48228", 0xafc7_327f),
            ("202.188.127.2:1303", "153.39.163.191:44251", 0x10e8_28a2),
            (
                "[3ffe:2501:200:3::1]:1766",
                "[3ffe:2501:200:1fff::7]:2794",
                0x4020_7d3d,
            ),
            (
                "[ff02::1]:4739",
                "[3ffe:501:8::260:97ff:fe40:efab]:14230",
                0xdde5_1bbf,
            ),
            (
                "[fe80::200:f8ff:fe21:67cf]:38024",
                "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251",
                0x02d1_feef,
            ),
        ];
        for (destination, source, hash) in vectors {
            let tuple = |local: &str, remote: &str| {
                FlowTuple::new(local.parse().unwrap(), remote.parse().unwrap())
            };
            assert_eq!(
                toeplitz(&MICROSOFT_KEY, &tuple(destination, source)),
                hash,
                "{source} > {destination}"
            );
        }
    }
}
