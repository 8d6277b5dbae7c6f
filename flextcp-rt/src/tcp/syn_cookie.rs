//! SYN cookies: a listener whose SYN queue is full answers without remembering that it did (RFC 4987, section 3.6).
//!
//! Our initial sequence number is the memory: the peer's, keyed hashes of it and of the minute, with an index into a short
//! table of MSS values hidden in it. Window scale, SACK and ECN find no room there; they travel in the low bits of
//! the timestamp that the peer echoes, and are given up for a peer without timestamps. All as Linux does.

use std::time::Duration;

use flextcp_nic::flow::FlowTuple;
use flextcp_nic::seq::{Mss, SeqNum, WindowScale};
use flextcp_nic::time::Instant;

use super::conn::Negotiated;
use super::isn::Secret;

/// What a cookie's age is counted in.
const SLOT: Duration = Duration::from_secs(60);
/// A cookie of this many slots ago is void (Linux's `MAX_SYNCOOKIE_AGE`).
const MAX_AGE: u32 = 2;
/// How long after the last cookie sent they are believed.
pub(super) const VALID: Duration = Duration::from_secs(2 * 60);

/// The low bits of a cookie that a forger has to guess.
const CHECK_BITS: u32 = 24;
const CHECK_MASK: u32 = (1 << CHECK_BITS) - 1;

/// Common MSS values; the peer's is rounded down to one of them.
const MSS_V4: [u16; 4] = [536, 1300, 1440, 1460];
const MSS_V6: [u16; 4] = [1220, 1420, 1440, 8940];

const STAMP_BITS: u32 = 6;
const STAMP_MASK: u32 = (1 << STAMP_BITS) - 1;
const STAMP_SCALE: u32 = 0xf;
const STAMP_SACK: u32 = 1 << 4;
const STAMP_ECN: u32 = 1 << 5;

/// Purposes of the keyed hash.
const WHOLE: u8 = 3;
const CHECK: u8 = 4;

const fn table(tuple: &FlowTuple) -> [u16; 4] {
    if tuple.local.0.is_ipv4() {
        MSS_V4
    } else {
        MSS_V6
    }
}

fn slot(now: Instant) -> u32 {
    (now.as_nanos() / SLOT.as_nanos() as u64) as u32
}

impl Secret {
    /// The initial sequence number that answers a SYN of `irs`, and the MSS that it remembers.
    pub(super) fn cookie(
        &self,
        tuple: &FlowTuple,
        irs: SeqNum,
        mss: Mss,
        now: Instant,
    ) -> (SeqNum, Mss) {
        let table = table(tuple);
        let index = table.iter().rposition(|&m| m <= mss.get()).unwrap_or(0);
        let slot = slot(now);
        let check = self.salted(tuple, CHECK, slot).wrapping_add(index as u32) & CHECK_MASK;
        let cookie = irs + self.salted(tuple, WHOLE, irs.0) + (slot << CHECK_BITS) + check;
        (cookie, Mss::new(table[index]))
    }

    /// The MSS that `cookie` remembers; `None` when it is too old or not ours.
    pub(super) fn check_cookie(
        &self,
        tuple: &FlowTuple,
        irs: SeqNum,
        cookie: SeqNum,
        now: Instant,
    ) -> Option<Mss> {
        // A number, not a distance: it takes all of the 32 bits.
        let SeqNum(value) = cookie - (irs + self.salted(tuple, WHOLE, irs.0)).0;
        let slot = slot(now);
        let age = slot.wrapping_sub(value >> CHECK_BITS) & (u32::MAX >> CHECK_BITS);
        if age >= MAX_AGE {
            return None;
        }
        let check = self.salted(tuple, CHECK, slot.wrapping_sub(age));
        let index = value.wrapping_sub(check) & CHECK_MASK;
        let mss = *table(tuple).get(index as usize)?;
        Some(Mss::new(mss))
    }
}

/// What is agreed without room for more than the MSS: options travel in the timestamp, or not at all.
pub(super) const fn restrict(negotiated: Negotiated) -> Negotiated {
    if negotiated.timestamps {
        return negotiated;
    }
    Negotiated {
        sack: false,
        ecn: false,
        window_scaling: false,
        snd_wscale: WindowScale::ZERO,
        rcv_wscale: WindowScale::ZERO,
        ..negotiated
    }
}

/// `clock` as TSval of a cookie's SYN-ACK: never later than the clock, so that TSval does not run backwards after.
pub(super) const fn stamp(clock: u32, negotiated: &Negotiated, ecn: bool) -> u32 {
    // Scales end at 14, so all ones stand for none.
    let mut carried = if negotiated.window_scaling {
        negotiated.snd_wscale.get() as u32
    } else {
        STAMP_SCALE
    };
    if negotiated.sack {
        carried |= STAMP_SACK;
    }
    if ecn {
        carried |= STAMP_ECN;
    }
    let stamped = (clock & !STAMP_MASK) | carried;
    if carried > clock & STAMP_MASK {
        stamped.wrapping_sub(1 << STAMP_BITS)
    } else {
        stamped
    }
}

/// What [`stamp`] carried.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Stamp {
    /// The peer's window scale, when it offered one.
    pub(super) window_scale: Option<WindowScale>,
    pub(super) sack: bool,
    pub(super) ecn: bool,
}

/// Reads an echoed stamp, its offset subtracted.
pub(super) const fn read_stamp(stamp: u32) -> Stamp {
    let scale = stamp & STAMP_SCALE;
    Stamp {
        window_scale: if scale == STAMP_SCALE {
            None
        } else {
            Some(WindowScale::new(scale as u8))
        },
        sack: stamp & STAMP_SACK != 0,
        ecn: stamp & STAMP_ECN != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tuple(port: u16, v6: bool) -> FlowTuple {
        if v6 {
            FlowTuple {
                local: ([0xfd00, 0, 0, 0, 0, 0, 0, 1].into(), 80),
                remote: ([0xfd00, 0, 0, 0, 0, 0, 0, 2].into(), port),
            }
        } else {
            FlowTuple {
                local: ([10, 0, 0, 1].into(), 80),
                remote: ([10, 0, 0, 2].into(), port),
            }
        }
    }

    proptest! {
        #[test]
        fn a_cookie_gives_back_the_mss_it_took(
            port in any::<u16>(), v6 in any::<bool>(), irs in any::<u32>(), mss in any::<u16>(), minute in 0u64..1 << 28,
        ) {
            let secret = Secret::new([7; 16]);
            let (tuple, irs) = (tuple(port, v6), SeqNum(irs));
            let now = Instant::from_millis(minute * 60_000);
            let (cookie, kept) = secret.cookie(&tuple, irs, Mss::new(mss), now);
            prop_assert!(kept.get() <= mss || kept.get() == table(&tuple)[0]);
            for later in [0, 59, 60, 119] {
                let at = now + Duration::from_secs(later);
                prop_assert_eq!(secret.check_cookie(&tuple, irs, cookie, at), Some(kept));
            }
            prop_assert_eq!(secret.check_cookie(&tuple, irs, cookie, now + 2 * SLOT), None);
        }

        /// A keep-alive probe of a client whose ACK was dropped comes one byte before it. Linux takes it, with the next
        /// MSS of the table, and the connection is out of step.
        #[test]
        fn a_cookie_is_for_one_sequence_number(irs in any::<u32>(), off in 1u32..100, before in any::<bool>()) {
            let secret = Secret::new([7; 16]);
            let (tuple, irs, now) = (tuple(4_000, true), SeqNum(irs), Instant::from_millis(90_000));
            let (cookie, _) = secret.cookie(&tuple, irs, Mss::new(1_220), now);
            let other = if before { irs - off } else { irs + off };
            prop_assert_eq!(secret.check_cookie(&tuple, other, cookie, now), None);
        }

        #[test]
        fn another_cookie_is_refused(port in any::<u16>(), irs in any::<u32>(), off in 4u32..1 << 24) {
            let secret = Secret::new([7; 16]);
            let (tuple, irs, now) = (tuple(port, false), SeqNum(irs), Instant::from_millis(90_000));
            let (cookie, _) = secret.cookie(&tuple, irs, Mss::new(536), now);
            // The index of 536 is zero, so the next three are cookies of other sizes and no more.
            prop_assert_eq!(secret.check_cookie(&tuple, irs, cookie + off, now), None);
            prop_assert_eq!(Secret::new([8; 16]).check_cookie(&tuple, irs, cookie, now), None);
        }

        #[test]
        fn a_stamp_carries_options_and_is_never_ahead_of_the_clock(
            clock in any::<u32>(), scale in 0u8..15, scaled in any::<bool>(), sack in any::<bool>(), ecn in any::<bool>(),
        ) {
            let negotiated = Negotiated {
                sack,
                window_scaling: scaled,
                snd_wscale: WindowScale::new(scale),
                ..agreed()
            };
            let value = stamp(clock, &negotiated, ecn);
            let behind = SeqNum(clock).offset_from(SeqNum(value));
            prop_assert!((0..128).contains(&behind), "{}", behind);
            let window_scale = scaled.then_some(WindowScale::new(scale));
            prop_assert_eq!(read_stamp(value), Stamp { window_scale, sack, ecn });
        }
    }

    fn agreed() -> Negotiated {
        super::super::handshake::offer(
            &tuple(1, false),
            &Default::default(),
            &super::super::EngineConfig::default(),
        )
    }

    #[test]
    fn without_timestamps_only_the_mss_is_agreed() {
        let plain = restrict(Negotiated {
            timestamps: false,
            snd_wscale: WindowScale::new(7),
            ..agreed()
        });
        assert!(!plain.sack);
        assert_eq!(
            (plain.snd_wscale, plain.rcv_wscale),
            (WindowScale::ZERO, WindowScale::ZERO)
        );
        assert!(restrict(agreed()).sack);
    }
}
