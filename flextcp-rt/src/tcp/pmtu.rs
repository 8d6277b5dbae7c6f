//! The path's MTU: what routers say (RFC 1191, RFC 8201), and what is found out when they keep silent (RFC 4821,
//! RFC 8899; Linux's `tcp_mtu_probing=1`).
//!
//! Sizes here are those of the MSS option: payload and TCP options together.

use std::time::Duration;

use flextcp_nic::seq::SeqNum;
use flextcp_nic::time::Instant;

use super::conn::{Conn, link_mss};
use super::recovery::Phase;

/// Segments fall to this when larger ones vanish (`tcp_base_mss`), then by half.
const BASE_MSS: u16 = 1024;
/// A search ends when it knows the size to within this.
const THRESHOLD: u16 = 32;
/// The search begins anew after this (`tcp_probe_interval`): paths change.
const INTERVAL: Duration = Duration::from_secs(600);
/// Timeouts in a row after which a path is suspected to swallow large packets (`tcp_retries1`).
pub(super) const SUSPICION: u32 = 3;

/// A data segment larger than is known to get through.
#[derive(Clone, Copy, Debug)]
struct Probe {
    start: SeqNum,
    end: SeqNum,
    mss: u16,
}

/// The search for the largest segment that gets through, on a path that swallows larger ones without a word.
#[derive(Debug, Default)]
pub(super) struct PathMtu {
    /// Gets through, as far as is known; `None` while nothing is suspected.
    limit: Option<u16>,
    /// Does not, or is not known to.
    ceiling: u16,
    probe: Option<Probe>,
    /// Where the data of the last probe that was lost lies, until it is acknowledged.
    failed: Option<(SeqNum, SeqNum)>,
    not_before: Instant,
}

impl PathMtu {
    /// The largest segment to send.
    pub(super) const fn limit(&self) -> Option<u16> {
        self.limit
    }

    /// Whether the next data should try a larger segment: that is the engine's work.
    pub(super) fn is_searching(&self) -> bool {
        self.limit
            .is_some_and(|limit| self.ceiling.saturating_sub(limit) >= THRESHOLD)
    }
}

impl Conn {
    /// RFC 1191, RFC 8201: smaller segments from now on, and again what was too large.
    pub(super) fn on_packet_too_big(&mut self, mtu: u32) {
        let least = if self.tuple.local.0.is_ipv4() {
            552
        } else {
            1280
        };
        // An old router does not tell its MTU: fall to the least that is safe. One that tells less is not believed
        // (Linux's `min_pmtu`; RFC 8201, section 4).
        let mtu = if mtu == 0 { least } else { mtu.max(least) };
        if mtu >= self.link.mtu {
            return;
        }
        self.link.mtu = mtu;
        self.update_mss();
        if self.on_host() {
            self.board.mark_oversized_lost(self.snd.mss.bytes());
        } else {
            self.wanted.claim = true;
        }
    }

    /// The MSS that the link, the peer and the application allow.
    fn natural_mss(&self) -> u16 {
        let mss = link_mss(&self.tuple, self.link.mtu).min(self.negotiated.peer_mss.get());
        self.options.maxseg.map_or(mss, |max| mss.min(max))
    }

    /// Several timeouts in a row: perhaps the path swallows large packets and its routers' ICMP is filtered
    /// (RFC 2923, section 2.1).
    pub(super) fn suspect_black_hole(&mut self, now: Instant) {
        let natural = self.natural_mss();
        // What every path that carries TCP carries, whatever befell it lately (RFC 9293, section 3.7.1).
        let floor = if self.tuple.local.0.is_ipv4() {
            536
        } else {
            1220
        };
        // Where a router has told of a path narrower than that, the next one may be narrower still, and silent.
        let limit = match self.path_mtu.limit {
            None if BASE_MSS < natural => BASE_MSS,
            None => natural / 2,
            Some(limit) => limit / 2,
        };
        let limit = limit.max(floor);
        if limit >= self.path_mtu.limit.unwrap_or(natural) {
            return;
        }
        self.path_mtu.ceiling = natural;
        self.path_mtu.limit = Some(limit);
        self.path_mtu.probe = None;
        self.path_mtu.not_before = now;
        self.update_mss();
    }

    /// Payload of a segment that tries a larger size now, when there is enough to send and nothing else is wrong.
    pub(super) fn mtu_probe_len(&mut self, now: Instant) -> Option<u32> {
        let limit = self.path_mtu.limit?;
        if now < self.path_mtu.not_before || self.path_mtu.probe.is_some() {
            return None;
        }
        let natural = self.natural_mss();
        if !self.path_mtu.is_searching() {
            // The last search is long ago.
            self.path_mtu.ceiling = natural;
        }
        let ceiling = self.path_mtu.ceiling.min(natural);
        // All of it first: the path may have been down, not narrow.
        let mss = if ceiling == natural {
            natural
        } else {
            limit.midpoint(ceiling)
        };
        let options = if self.negotiated.timestamps { 12 } else { 0 };
        let len = u32::from(mss.saturating_sub(options));
        let usable = (self.snd.una + self.snd.wnd).since(self.snd.nxt);
        let room = self.congestion.window.cwnd.saturating_sub(self.in_flight());
        // Enough behind the probe that its loss is noticed without a timeout (RFC 4821, section 7.4).
        let enough = len + 3 * self.snd.mss.bytes();
        let fits = self.recovery.phase == Phase::Open
            && self.rcv.reassembly.is_empty()
            && mss > limit
            && usable >= enough
            && room >= enough
            && self.unsent() >= enough;
        fits.then(|| {
            let start = self.snd.nxt;
            self.path_mtu.probe = Some(Probe {
                start,
                end: start + len,
                mss,
            });
            len
        })
    }

    /// Whether nothing is lost but a probe, which says that it was too large and nothing of congestion
    /// (RFC 4821, section 7.6.2; Linux's `tcp_mtup_probe_failed`).
    pub(super) fn lost_a_probe_only(&self) -> bool {
        let probe = self.path_mtu.probe.map(|probe| (probe.start, probe.end));
        self.negotiated.sack
            && probe
                .or(self.path_mtu.failed)
                .is_some_and(|(start, end)| self.board.lost_once_within(start, end))
    }

    /// Data from `start` on goes out again: if it was a probe's, the size is too large.
    pub(super) fn on_mtu_probe_lost(&mut self, now: Instant, start: SeqNum) {
        let state = &mut self.path_mtu;
        if let Some(probe) = state.probe
            && probe.start.at_or_before(start)
            && start.before(probe.end)
        {
            state.probe = None;
            state.failed = Some((probe.start, probe.end));
            state.ceiling = probe.mss - 1;
            if !state.is_searching() {
                state.not_before = now + INTERVAL;
            }
        }
    }

    /// Data was acknowledged: if it was a probe's, segments of its size get through.
    pub(super) fn on_mtu_probe_acked(&mut self) {
        let una = self.snd.una;
        self.path_mtu.failed = self.path_mtu.failed.filter(|(_, end)| una.before(*end));
        let Some(probe) = self.path_mtu.probe else {
            return;
        };
        if self.snd.una.before(probe.end) {
            return;
        }
        self.path_mtu.probe = None;
        if probe.mss >= self.natural_mss() {
            self.path_mtu = PathMtu::default();
        } else {
            self.path_mtu.limit = Some(probe.mss);
        }
        self.update_mss();
    }
}
