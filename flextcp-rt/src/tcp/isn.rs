//! Initial sequence numbers and timestamp offsets, keyed per process (RFC 6528; RFC 7323, section 5.4).

use std::hash::{Hash, Hasher};

use flextcp_nic::flow::FlowTuple;
use flextcp_nic::seq::SeqNum;
use flextcp_nic::time::Instant;
use siphasher::sip::SipHasher24;

/// The keyed function of RFC 6528: same tuple, same offset; nobody else can tell it.
#[derive(Clone, Copy)]
pub(super) struct Secret([u8; 16]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    pub(super) const fn new(key: [u8; 16]) -> Self {
        Self(key)
    }

    /// A number of this engine's that nobody else can tell.
    pub(super) fn seed(&self) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write_u8(u8::MAX);
        hasher.finish()
    }

    /// A keyed hash of the tuple; `purpose` separates uses.
    pub(super) fn hash(&self, tuple: &FlowTuple, purpose: u8) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        tuple.hash(&mut hasher);
        hasher.write_u8(purpose);
        hasher.finish()
    }

    /// Another keyed hash of the tuple, one for each `salt`.
    pub(super) fn salted(&self, tuple: &FlowTuple, purpose: u8, salt: u32) -> u32 {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        tuple.hash(&mut hasher);
        hasher.write_u8(purpose);
        hasher.write_u32(salt);
        hasher.finish() as u32
    }

    /// ISN = M + F(tuple, secret), M ticking every 4 µs (RFC 6528, section 3).
    pub(super) fn initial_sequence(&self, tuple: &FlowTuple, now: Instant) -> SeqNum {
        SeqNum(self.hash(tuple, 0) as u32) + (now.as_nanos() / 4_000) as u32
    }

    /// What is added to the millisecond clock for TSval. The same for each incarnation of a tuple, so that
    /// TSval grows across them, as TIME_WAIT reuse needs (RFC 6191, section 2).
    pub(super) fn timestamp_offset(&self, tuple: &FlowTuple) -> u32 {
        self.hash(tuple, 1) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(port: u16) -> FlowTuple {
        FlowTuple {
            local: ([10, 0, 0, 1].into(), 80),
            remote: ([10, 0, 0, 2].into(), port),
        }
    }

    #[test]
    fn grows_with_time_and_differs_by_tuple_and_key() {
        let secret = Secret::new([7; 16]);
        let early = secret.initial_sequence(&tuple(1), Instant::from_millis(1));
        let late = secret.initial_sequence(&tuple(1), Instant::from_millis(5));
        assert_eq!(late.since(early), 1_000);
        assert_ne!(
            early,
            secret.initial_sequence(&tuple(2), Instant::from_millis(1))
        );
        assert_ne!(
            early,
            Secret::new([8; 16]).initial_sequence(&tuple(1), Instant::from_millis(1))
        );
        assert_ne!(
            secret.timestamp_offset(&tuple(1)),
            secret.timestamp_offset(&tuple(2))
        );
    }
}
