//! Bytes that anyone can compute: the content of `/bytes/{n}` and of `echo --mode source`.
//!
//! Byte `i` is `pattern[i % PERIOD]`. The period is a prime, so that a block that is lost,
//! doubled or moved by any power of two changes the content.

use std::sync::LazyLock;

use bytes::Bytes;

/// After how many bytes the content repeats: the largest prime below 2^20.
pub const PERIOD: u64 = 1_048_573;

static PATTERN: LazyLock<Bytes> = LazyLock::new(|| {
    // Any fixed, well-mixed sequence will do; this is SplitMix64.
    let mut state = 0_u64;
    let mut bytes = Vec::with_capacity(PERIOD as usize + 8);
    while (bytes.len() as u64) < PERIOD {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    bytes.truncate(PERIOD as usize);
    Bytes::from(bytes)
});

/// Up to `limit` bytes of the content from `offset` on, without copying; empty only if `limit`
/// is 0.
#[must_use]
pub fn chunk(offset: u64, limit: u64) -> Bytes {
    let start = offset % PERIOD;
    let end = PERIOD.min(start.saturating_add(limit));
    PATTERN.slice(start as usize..end as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_join_to_the_same_content_however_they_are_cut() {
        let join = |step: u64| {
            let total = 3 * PERIOD + 17;
            let mut joined = Vec::new();
            while (joined.len() as u64) < total {
                let offset = joined.len() as u64;
                joined.extend_from_slice(&chunk(offset, step.min(total - offset)));
            }
            joined
        };
        let whole = join(u64::MAX);
        assert_eq!(whole.len() as u64, 3 * PERIOD + 17);
        assert!(whole == join(64 * 1024) && whole == join(4_093));
        assert!(whole[..PERIOD as usize] == whole[PERIOD as usize..2 * PERIOD as usize]);
    }

    #[test]
    fn a_shift_by_a_power_of_two_changes_the_content() {
        for bits in 0..30 {
            assert_ne!(chunk(0, 64), chunk(1 << bits, 64), "2^{bits}");
        }
    }

    #[test]
    fn the_end_of_the_address_space_is_no_problem() {
        assert_eq!(
            chunk(u64::MAX, u64::MAX).len() as u64,
            PERIOD - u64::MAX % PERIOD
        );
        assert!(chunk(5, 0).is_empty());
    }
}
