//! Answers to segments that prove nothing, at limited rates: challenge ACKs (RFC 5961) and the ACKs that answer
//! unacceptable segments (RFC 9293, section 3.10.7.4), which two confused peers could exchange for ever.

use std::time::Duration;

use flextcp_nic::time::Instant;

use super::conn::{Conn, Context};

/// All connections' challenge ACKs (RFC 5961, section 7).
#[derive(Debug)]
pub(super) struct Challenges {
    coin: u64,
    since: Option<Instant>,
    left: u32,
    pub(super) sent: u64,
    pub(super) held_back: u64,
}

impl Challenges {
    pub(super) const fn new(seed: u64) -> Self {
        Self {
            coin: seed,
            since: None,
            left: 0,
            sent: 0,
            held_back: 0,
        }
    }

    /// Whether one more may go out, of `limit` in a second. How many a second has varies by chance: a fixed
    /// number, counted from outside, tells whether a connection exists (CVE-2016-5696).
    fn take(&mut self, now: Instant, limit: u32) -> bool {
        if limit == u32::MAX {
            return true;
        }
        if self
            .since
            .is_none_or(|at| at + Duration::from_secs(1) <= now)
        {
            // A multiplicative generator is good enough: the seed is secret, and only sums are seen.
            self.coin = self
                .coin
                .wrapping_mul(0x5851_f42d_4c95_7f2d)
                .wrapping_add(0x1405_7b7e_f767_814f);
            let chance = (self.coin >> 32) as u32 % limit.max(1);
            self.since = Some(now);
            self.left = limit.div_ceil(2).saturating_add(chance);
        }
        let more = self.left > 0;
        self.left = self.left.saturating_sub(1);
        more
    }
}

impl Conn {
    /// A challenge ACK.
    pub(super) fn challenge(&mut self, cx: &mut Context<'_>) {
        if !self.answers(cx) {
            return;
        }
        if cx.challenges.take(cx.now, cx.config.challenge_limit) {
            cx.challenges.sent += 1;
            self.rcv.ack.now = self.rcv.ack.now.max(1);
        } else {
            cx.challenges.held_back += 1;
        }
    }

    /// An ACK for an unacceptable segment without data.
    pub(super) fn answer_unacceptable(&mut self, cx: &mut Context<'_>) {
        if self.answers(cx) {
            self.rcv.ack.now = self.rcv.ack.now.max(1);
        }
    }

    /// Both share one limit for each connection, as in Linux.
    fn answers(&mut self, cx: &mut Context<'_>) -> bool {
        let due = self
            .last_challenge
            .is_none_or(|at| at + cx.config.challenge_interval <= cx.now);
        if due {
            self.last_challenge = Some(cx.now);
        } else {
            cx.challenges.held_back += 1;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_half_to_one_and_a_half_times_the_limit() {
        let mut challenges = Challenges::new(7);
        let mut seen = std::collections::BTreeSet::new();
        for second in 0..50 {
            let now = Instant::from_millis(1000 * second);
            let granted = (0..400).filter(|_| challenges.take(now, 100)).count();
            assert!((50..150).contains(&granted), "{granted}");
            seen.insert(granted);
        }
        assert!(
            seen.len() > 20,
            "the number must not be told in advance: {seen:?}"
        );
    }

    #[test]
    fn no_limit_is_the_default_and_zero_is_none() {
        let mut challenges = Challenges::new(7);
        assert!((0..10_000).all(|_| challenges.take(Instant::ZERO, u32::MAX)));
        assert!((0..10).all(|_| !challenges.take(Instant::from_millis(5000), 0)));
    }
}
