//! BBR: a model of the path, its bandwidth and its least round trip, sets rate and window
//! (draft-ietf-ccwg-bbr). The structure is version 1's; the response to loss, `inflight_hi` and the lower
//! bounds, is version 3's.
//!
//! One thing is our own: bounds follow only loss above [`LOSS_THRESH`] that is no accident of a small number, so that
//! random loss below it does not wear the rate down between two probes. In a flight of 166 segments (100 Mbit/s, 20 ms) that
//! loses 1 %, more than 2 % are lost in every eleventh round.

use std::time::Duration;

use flextcp_nic::seq::SeqNum;
use flextcp_nic::time::Instant;

use super::{AckSample, Algorithm, Window};
use crate::tcp::delivery::RateSample;

/// Startup and drain (draft, section 5.3).
const STARTUP_GAIN: f64 = 2.77;
const DRAIN_GAIN: f64 = 0.5;
const CWND_GAIN: f64 = 2.0;
/// Pacing below the estimate keeps queues empty in the long run.
const MARGIN: f64 = 0.99;
/// Loss above this fraction says that too much is in flight, in per mille.
const LOSS_THRESH: u64 = 20;
/// What is left after too much loss (draft, section 2.7).
const BETA: f64 = 0.7;
/// Room left to others below `inflight_hi`.
const HEADROOM: f64 = 0.85;
const FULL_BW_GROWTH: f64 = 1.25;
const FULL_BW_ROUNDS: u32 = 3;
/// The same while probing, which sends a quarter more.
const UP_GROWTH: f64 = 1.1;
/// Loss rounds that end startup.
const STARTUP_LOSSES: u32 = 6;
const PROBE_RTT_INTERVAL: Duration = Duration::from_secs(5);
const PROBE_RTT_TIME: Duration = Duration::from_millis(200);
const MIN_RTT_WINDOW: Duration = Duration::from_secs(10);
/// Round trips between probes at most, to coexist with Reno.
const MAX_ROUNDS_BETWEEN_PROBES: u32 = 63;
const UNBOUNDED: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Startup,
    Drain,
    /// ProbeBW: below the estimate, until the queue is gone.
    Down,
    /// At the estimate.
    Cruise,
    /// At the estimate without lower bounds, for a round trip.
    Refill,
    /// Above it.
    Up,
    ProbeRtt,
}

/// See the [module](self).
#[derive(Debug)]
pub(in crate::tcp) struct Bbr {
    state: State,
    /// Bandwidth in bytes per second: the largest of this and the last probing cycle.
    max_bw: [u64; 2],
    /// Bound that loss set, until the next probe.
    bw_lo: u64,
    inflight_hi: u32,
    inflight_lo: u32,
    /// The largest of this round.
    bw_latest: u64,
    inflight_latest: u32,
    min_rtt: Option<Duration>,
    min_rtt_at: Instant,
    probe_rtt_min: Duration,
    probe_rtt_at: Instant,
    probe_rtt_until: Option<Instant>,
    /// The pipe was found full; the bandwidth when it last grew, and rounds since.
    filled: bool,
    full_bw: u64,
    full_bw_rounds: u32,
    /// Bytes in all, and of this round.
    delivered_in_all: u64,
    delivered: u64,
    lost: u64,
    marked: u32,
    loss_events: u32,
    cycle_at: Instant,
    rounds: u32,
    wait: Duration,
    up_rounds: u32,
    /// Samples tell of what a probe sent, and none was answered yet.
    probe_samples: bool,
    /// What is found lost was sent by a probe that is over: that is for the upper bound to answer, and for it alone. The draft lets
    /// the lower bounds answer it too, which costs the rate a third until the next probe.
    after_probe: bool,
    /// What ends the round trip that runs: the acknowledgment of what is sent now, or a sample that began after this much was
    /// delivered.
    round_end: Option<SeqNum>,
    round_delivered: Option<u64>,
    /// The round trip that runs began with a loss, or after one that lost something.
    loss_round: bool,
    /// The window before losses or ProbeRtt, and whether it is to be had again once nothing is left to repair.
    prior_cwnd: u32,
    gives_back: bool,
    /// The window that the connection began with.
    first_window: u64,
    pacing_rate: u64,
    /// Varies the time between probes from flow to flow.
    random: u64,
}

impl Bbr {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            state: State::Startup,
            max_bw: [0; 2],
            bw_lo: u64::MAX,
            inflight_hi: UNBOUNDED,
            inflight_lo: UNBOUNDED,
            bw_latest: 0,
            inflight_latest: 0,
            min_rtt: None,
            min_rtt_at: Instant::ZERO,
            probe_rtt_min: Duration::MAX,
            probe_rtt_at: Instant::ZERO,
            probe_rtt_until: None,
            filled: false,
            full_bw: 0,
            full_bw_rounds: 0,
            delivered_in_all: 0,
            delivered: 0,
            lost: 0,
            marked: 0,
            loss_events: 0,
            cycle_at: Instant::ZERO,
            rounds: 0,
            wait: Duration::from_secs(2),
            up_rounds: 0,
            probe_samples: false,
            after_probe: false,
            round_end: None,
            round_delivered: None,
            loss_round: false,
            prior_cwnd: 0,
            gives_back: false,
            first_window: 0,
            pacing_rate: 0,
            random: seed,
        }
    }

    fn max_bw(&self) -> u64 {
        self.max_bw[0].max(self.max_bw[1])
    }

    fn bw(&self) -> u64 {
        self.max_bw().min(self.bw_lo)
    }

    /// Bandwidth-delay product times `gain`.
    fn bdp(&self, bw: u64, gain: f64) -> u32 {
        match self.min_rtt {
            Some(rtt) if bw > 0 => (bw as f64 * rtt.as_secs_f64() * gain) as u32,
            _ => UNBOUNDED,
        }
    }

    const fn probing(&self) -> bool {
        matches!(self.state, State::Startup | State::Refill | State::Up)
    }

    fn gains(&self) -> (f64, f64) {
        match self.state {
            State::Startup => (STARTUP_GAIN, CWND_GAIN),
            State::Drain => (DRAIN_GAIN, CWND_GAIN),
            State::Down => (0.9, CWND_GAIN),
            State::Cruise | State::Refill => (1.0, CWND_GAIN),
            State::Up => (1.25, 2.25),
            State::ProbeRtt => (1.0, 0.5),
        }
    }

    /// Whether more than [`LOSS_THRESH`] is lost, and not by chance: a flight in which half of that is lost on average often
    /// loses twice as much.
    fn too_much_lost(window: &Window, lost: u64, of: u64) -> bool {
        let mss = f64::from(window.mss.max(1));
        let (lost, of) = (lost as f64 / mss, of as f64 / mss);
        let expected = of * LOSS_THRESH as f64 / 1000.0;
        lost > expected + 2.0 * expected.sqrt() && lost > 2.0
    }

    fn update_bandwidth(&mut self, sample: &AckSample) {
        let Some(rate) = sample.rate else { return };
        self.bw_latest = self.bw_latest.max(rate.rate);
        self.inflight_latest = self.inflight_latest.max(rate.delivered);
        if !rate.app_limited || rate.rate >= self.max_bw() {
            self.max_bw[1] = self.max_bw[1].max(rate.rate);
        }
    }

    fn update_min_rtt(&mut self, window: &Window, sample: &AckSample) {
        let now = sample.now;
        let expired = self.probe_rtt_at + PROBE_RTT_INTERVAL < now;
        if let Some(rtt) = sample.rtt {
            if rtt <= self.probe_rtt_min || expired {
                self.probe_rtt_min = rtt;
                self.probe_rtt_at = now;
            }
            if self.min_rtt.is_none_or(|min| self.probe_rtt_min <= min)
                || self.min_rtt_at + MIN_RTT_WINDOW < now
            {
                self.min_rtt = Some(self.probe_rtt_min);
                self.min_rtt_at = self.probe_rtt_at;
            }
        }
        if self.state == State::ProbeRtt {
            self.stay_in_probe_rtt(window, sample);
        } else if expired && self.filled && self.min_rtt.is_some() {
            self.save_window(window);
            self.probe_rtt_until = None;
            self.state = State::ProbeRtt;
        }
    }

    fn stay_in_probe_rtt(&mut self, window: &Window, sample: &AckSample) {
        let small = self.bdp(self.bw(), 0.5).max(4 * window.mss);
        match self.probe_rtt_until {
            None if sample.in_flight <= small => {
                let time = PROBE_RTT_TIME.max(self.min_rtt.unwrap_or_default());
                self.probe_rtt_until = Some(sample.now + time);
            }
            Some(until) if until <= sample.now => {
                self.probe_rtt_at = sample.now;
                self.reset_lower_bounds();
                self.start_down(sample);
                self.state = State::Cruise;
                self.gives_back = true;
            }
            _ => {}
        }
    }

    /// Whether a round trip is over (draft, section 5.5.1). It is timed by what is delivered: SND.UNA, by which it goes when there
    /// is no sample, stands still while a loss is repaired.
    fn ends_round(&mut self, sample: &AckSample) -> bool {
        let timed = sample.rate.zip(self.round_delivered);
        let over = timed.is_some_and(|(rate, delivered)| rate.prior >= delivered)
            || self.round_end.is_none_or(|end| sample.una.at_or_after(end));
        if over {
            self.start_round(sample);
        } else if self.round_delivered.is_none() {
            self.round_delivered = delivered_in_all(sample);
        }
        over
    }

    /// The first loss begins a round trip, over which the rate of losses is taken.
    fn start_loss_round(&mut self, sample: &AckSample) {
        if self.state == State::Startup && sample.lost > 0 && !self.loss_round {
            self.loss_round = true;
            self.start_round(sample);
            self.delivered = sample.delivered.into();
            self.lost = sample.lost.into();
            self.loss_events = 1;
        }
    }

    fn start_round(&mut self, sample: &AckSample) {
        self.round_end = Some(sample.nxt);
        self.round_delivered = delivered_in_all(sample);
    }

    const fn reset_lower_bounds(&mut self) {
        self.bw_lo = u64::MAX;
        self.inflight_lo = UNBOUNDED;
    }

    /// Between probes the rate follows loss down (draft, section 5.5.10).
    fn adapt_lower_bounds(&mut self, window: &Window) {
        let congested = Self::too_much_lost(window, self.lost, self.delivered + self.lost)
            || u64::from(self.marked) * 2 > self.delivered && self.marked > 0;
        if !congested || self.probing() || self.after_probe {
            return;
        }
        if self.bw_lo == u64::MAX {
            self.bw_lo = self.max_bw();
        }
        if self.inflight_lo == UNBOUNDED {
            self.inflight_lo = window.cwnd;
        }
        self.bw_lo = self.bw_latest.max((self.bw_lo as f64 * BETA) as u64);
        let cut = (f64::from(self.inflight_lo) * BETA) as u32;
        self.inflight_lo = self.inflight_latest.max(cut);
    }

    fn on_round(&mut self, window: &Window, sample: &AckSample) {
        self.rounds += 1;
        self.adapt_lower_bounds(window);
        self.after_probe &= self.state == State::Drain;
        if self.state == State::Startup {
            self.check_startup(window, sample);
        }
        if self.state == State::Up {
            self.up_rounds += 1;
            self.note_growth(UP_GROWTH);
            // As long as the path gives more it is not full: one that was taken for slow is found out in round trips, not in
            // a quarter more each cycle. Or nothing but the application keeps it from filling.
            let full = sample.in_flight >= self.bdp(self.max_bw(), 1.25);
            let most = if full { 2 } else { FULL_BW_ROUNDS };
            if self.full_bw_rounds >= most || self.up_rounds >= 30 {
                self.start_down(sample);
            }
        } else if self.state != State::Drain {
            // What the probe sent has been answered.
            self.probe_samples = false;
        }
        self.loss_round = self.lost > 0;
        self.reset_signals();
    }

    const fn reset_signals(&mut self) {
        self.bw_latest = 0;
        self.inflight_latest = 0;
        self.delivered = 0;
        self.lost = 0;
        self.marked = 0;
        self.loss_events = 0;
    }

    /// Counts rounds in which the bandwidth did not grow by `factor`.
    fn note_growth(&mut self, factor: f64) {
        if self.max_bw() as f64 >= self.full_bw as f64 * factor {
            self.full_bw = self.max_bw();
            self.full_bw_rounds = 0;
        } else {
            self.full_bw_rounds += 1;
        }
    }

    /// The upper bound is what limits the flight: the bandwidth could not grow, and does not say that the path is full (draft,
    /// section 5.3.3.6, `BBRIsTimeToGoDown`).
    fn is_bounded(&self, window: &Window, sample: &AckSample) -> bool {
        let before = sample.in_flight.saturating_add(sample.delivered);
        window.cwnd >= self.inflight_hi && before.saturating_add(2 * window.mss) >= self.inflight_hi
    }

    fn check_startup(&mut self, window: &Window, sample: &AckSample) {
        let limited = sample.rate.is_some_and(|rate| rate.app_limited);
        // A round without a measurement, as while a loss is repaired, says nothing.
        if !limited && self.bw_latest > 0 {
            self.note_growth(FULL_BW_GROWTH);
        }
        // In recovery for a round trip (draft, section 5.3.1.3).
        let lossy = self.loss_round
            && self.loss_events >= STARTUP_LOSSES
            && Self::too_much_lost(window, self.lost, self.delivered + self.lost);
        if lossy {
            let bdp = self.bdp(self.max_bw(), 1.0);
            self.inflight_hi = bdp.max(self.inflight_latest);
        }
        if lossy || self.full_bw_rounds >= FULL_BW_ROUNDS {
            self.filled = true;
            self.probe_samples = !lossy;
            self.after_probe = true;
            self.state = State::Drain;
        }
    }

    /// Moves the upper bound (draft, sections 5.3.3.6, `BBRAdaptLongTermModel`, and 5.5.10.2).
    fn adapt_upper_bound(&mut self, window: &Window, sample: &AckSample) {
        let Some(rate) = sample.rate else { return };
        if Self::too_much_lost(window, rate.lost.into(), rate.in_flight.into()) {
            if self.probe_samples && sample.lost > 0 {
                self.answer_too_much(window, rate, sample);
            }
            return;
        }
        if self.inflight_hi == UNBOUNDED {
            return;
        }
        // What went well once is no bound.
        self.inflight_hi = self.inflight_hi.max(rate.in_flight);
        if self.state == State::Up && self.is_bounded(window, sample) {
            // Faster and faster while nothing contradicts it: one segment in the first round trip, then twice as many in each.
            let growth = u64::from(window.mss) << self.up_rounds.min(30);
            let grown = growth * u64::from(sample.delivered) / u64::from(window.cwnd.max(1));
            let grown = u32::try_from(grown).unwrap_or(UNBOUNDED);
            self.inflight_hi = self.inflight_hi.saturating_add(grown.min(sample.delivered));
            self.full_bw = self.max_bw();
            self.full_bw_rounds = 0;
        }
    }

    /// A probe put too much in flight: once for each.
    fn answer_too_much(&mut self, window: &Window, rate: RateSample, sample: &AckSample) {
        self.probe_samples = false;
        if !rate.app_limited {
            let target = self.bdp(self.bw(), 1.0).min(window.cwnd);
            let least = (f64::from(target) * BETA) as u32;
            self.inflight_hi = rate.in_flight.max(least);
        }
        if self.state == State::Up {
            self.start_down(sample);
        }
    }

    fn start_down(&mut self, sample: &AckSample) {
        self.state = State::Down;
        self.cycle_at = sample.now;
        self.rounds = 0;
        self.start_round(sample);
        self.reset_signals();
        self.after_probe = true;
        // A cycle without a measurement says nothing.
        if self.max_bw[1] > 0 {
            self.max_bw[0] = self.max_bw[1].max(self.max_bw[0] / 2);
        }
        // SplitMix64's constant walks through all values; the top bits are enough here.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.wait = Duration::from_millis(2000 + (self.random >> 54));
    }

    fn time_to_probe(&self, window: &Window, now: Instant) -> bool {
        let reno = self.bdp(self.bw(), 1.0) / window.mss.max(1);
        self.cycle_at + self.wait <= now || self.rounds >= reno.clamp(1, MAX_ROUNDS_BETWEEN_PROBES)
    }

    fn advance(&mut self, window: &Window, sample: &AckSample) {
        let bdp = self.bdp(self.bw(), 1.0);
        match self.state {
            State::Drain if sample.in_flight <= bdp => self.start_down(sample),
            State::Down | State::Cruise if self.time_to_probe(window, sample.now) => {
                self.reset_lower_bounds();
                self.state = State::Refill;
                self.rounds = 0;
                self.start_round(sample);
            }
            State::Down => {
                let room = (f64::from(self.inflight_hi) * HEADROOM) as u32;
                if sample.in_flight <= room.min(bdp) {
                    self.state = State::Cruise;
                }
            }
            State::Refill if self.rounds > 0 => {
                // What this probe measures replaces the older half of the filter.
                self.max_bw = [self.max_bw(), 0];
                self.state = State::Up;
                self.start_round(sample);
                self.probe_samples = true;
                self.up_rounds = 0;
                self.full_bw = self.max_bw();
                self.full_bw_rounds = 0;
                self.cycle_at = sample.now;
            }
            _ => {}
        }
    }

    fn set_rate(&mut self, window: &Window, sample: &AckSample) {
        let (gain, _) = self.gains();
        // The first rate is that of the initial window (draft, section 5.6.2): the handshake and a first small request
        // are no measure of the path.
        let rate = if self.bw() > 0 && self.pacing_rate > 0 {
            (self.bw() as f64 * gain * MARGIN) as u64
        } else {
            let rtt = sample.srtt.unwrap_or(Duration::from_millis(1));
            (f64::from(window.cwnd) * gain / rtt.as_secs_f64().max(1e-6)) as u64
        };
        // The least window in a round trip, whatever was measured.
        let srtt = sample
            .srtt
            .unwrap_or(Duration::from_millis(1))
            .as_secs_f64();
        let least = (f64::from(4 * window.mss) / srtt.max(1e-6)) as u64;
        let rate = rate.max(least);
        if self.filled || rate > self.pacing_rate {
            self.pacing_rate = rate;
        }
    }

    /// The last good window (draft, section 5.6.4.4): what a timeout and ProbeRtt take, they give back.
    fn save_window(&mut self, window: &Window) {
        let before = match self.state {
            State::ProbeRtt => self.prior_cwnd,
            _ if self.gives_back => self.prior_cwnd,
            _ => 0,
        };
        self.prior_cwnd = before.max(window.cwnd);
    }

    fn restore_window(&mut self, window: &mut Window, sample: &AckSample) {
        if self.gives_back && sample.open && self.state != State::ProbeRtt {
            self.gives_back = false;
            window.cwnd = window.cwnd.max(self.prior_cwnd);
        }
    }

    fn set_window(&self, window: &mut Window, sample: &AckSample) {
        let (_, gain) = self.gains();
        let least = 4 * window.mss;
        // Acknowledgments come in bunches, and segments leave in bursts of a millisecond.
        let burst = u32::try_from(self.pacing_rate / 1000).unwrap_or(UNBOUNDED);
        let target = self
            .bdp(self.bw(), gain)
            .saturating_add(burst.max(2 * window.mss).saturating_mul(3));
        let grown = window.cwnd.saturating_add(sample.delivered);
        let mut cwnd = if self.filled {
            grown.min(target)
        } else if window.cwnd < target || self.delivered_in_all <= self.first_window {
            // The first acknowledgments are of a few segments: no measure of the path (draft, section 5.6.4.6).
            grown
        } else {
            window.cwnd
        };
        let bound = match self.state {
            State::Cruise | State::Down => (f64::from(self.inflight_hi) * HEADROOM) as u32,
            State::ProbeRtt => self.bdp(self.bw(), 0.5),
            State::Startup => UNBOUNDED,
            _ => self.inflight_hi,
        };
        cwnd = cwnd.min(bound).min(self.inflight_lo);
        window.cwnd = cwnd.clamp(least, 1 << 30);
    }
}

/// What was delivered when a sample was taken.
fn delivered_in_all(sample: &AckSample) -> Option<u64> {
    sample
        .rate
        .map(|rate| rate.prior + u64::from(rate.delivered))
}

impl Algorithm for Bbr {
    fn name(&self) -> &'static str {
        "bbr"
    }

    fn observe(&mut self, window: &mut Window, sample: &AckSample) {
        if self.delivered_in_all == 0 {
            self.first_window = window.cwnd.into();
        }
        self.delivered_in_all += u64::from(sample.delivered);
        self.delivered += u64::from(sample.delivered);
        self.lost += u64::from(sample.lost);
        self.marked = self.marked.saturating_add(sample.ece);
        self.loss_events += u32::from(sample.lost > 0);
        self.update_bandwidth(sample);
        if self.ends_round(sample) {
            self.on_round(window, sample);
        }
        self.start_loss_round(sample);
        if self.filled {
            self.adapt_upper_bound(window, sample);
        }
        self.advance(window, sample);
        self.update_min_rtt(window, sample);
        self.set_rate(window, sample);
        self.restore_window(window, sample);
        self.set_window(window, sample);
    }

    fn on_ack(&mut self, _window: &mut Window, _sample: &AckSample) {}

    /// The model answers loss, not a threshold.
    fn ssthresh(&mut self, window: &Window, _now: Instant) -> u32 {
        self.save_window(window);
        self.gives_back = true;
        u32::MAX / 2
    }

    fn owns_window(&self) -> bool {
        true
    }

    fn pacing_rate(&self) -> Option<u64> {
        Some(self.pacing_rate)
    }
}

#[cfg(test)]
mod tests;
