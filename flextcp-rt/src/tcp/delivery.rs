//! How fast bytes are delivered: a sample per acknowledgment, after draft-cheng-iccrg-delivery-rate-estimation.

use std::collections::VecDeque;
use std::time::Duration;

use flextcp_nic::time::Instant;

/// What a segment remembers of the moment it was sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stamp {
    /// Bytes delivered by then, and since when that is known.
    delivered: u64,
    delivered_at: Instant,
    /// When the flight that it belongs to began.
    first_sent: Instant,
    /// Bytes lost by then.
    lost: u64,
    /// Bytes in flight, its own among them.
    in_flight: u32,
    app_limited: bool,
}

/// Delivery over one flight.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct RateSample {
    /// Bytes per second.
    pub(super) rate: u64,
    /// The application had nothing to send for part of the flight: the path may do more.
    pub(super) app_limited: bool,
    /// Bytes delivered in all when it began.
    pub(super) prior: u64,
    /// Bytes delivered and lost over the flight, and in flight when it was sent.
    pub(super) delivered: u32,
    pub(super) lost: u32,
    pub(super) in_flight: u32,
}

/// What is known when a flight of unknown sending times is over.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Flight {
    /// How long that took: at most the round trip of its newest byte.
    pub(super) took: Option<Duration>,
    pub(super) rate: Option<RateSample>,
}

/// The sender's counters.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    delivered: u64,
    delivered_at: Instant,
    first_sent: Instant,
    lost: u64,
    /// Samples of what was sent before this much was delivered are limited by the application.
    app_limited: Option<u64>,
    /// Flights, with what was delivered when each is over: what is known of those that the NIC sends, and of those that were
    /// in flight when the connection changed hands. The oldest is first.
    flights: VecDeque<(Stamp, u64)>,
    /// The newest that is over, while nothing that was sent after it began is delivered.
    waiting: Option<(Stamp, u64)>,
}

/// Flights that begin in a least round trip, and those that are under way at most.
const FLIGHTS: u32 = 16;
const MOST_FLIGHTS: usize = 64;

impl Delivery {
    /// The stamp of a segment sent now; `idle` when nothing was in flight.
    pub(super) fn stamp(&mut self, now: Instant, idle: bool, in_flight: u32) -> Stamp {
        if idle {
            self.first_sent = now;
            self.delivered_at = now;
        }
        Stamp {
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent: self.first_sent,
            lost: self.lost,
            in_flight,
            app_limited: self.app_limited.is_some(),
        }
    }

    /// Nothing is left to send while the window has room.
    pub(super) fn note_app_limited(&mut self, in_flight: u32) {
        self.app_limited = Some(self.delivered + u64::from(in_flight.max(1)));
    }

    pub(super) fn note_lost(&mut self, bytes: u32) {
        self.lost += u64::from(bytes);
    }

    /// Takes the delivery of `bytes`, `newest` the latest sent of their segments and when that was.
    pub(super) fn delivered(
        &mut self,
        now: Instant,
        bytes: u32,
        newest: Option<(Stamp, Instant)>,
        min_rtt: Option<Duration>,
    ) -> Option<RateSample> {
        self.add(now, bytes);
        let (stamp, sent) = newest?;
        self.first_sent = sent;
        let send = sent.saturating_since(stamp.first_sent);
        self.sample(now, stamp, send, min_rtt)
    }

    fn add(&mut self, now: Instant, bytes: u32) {
        self.delivered += u64::from(bytes);
        self.delivered_at = now;
        if self.app_limited.is_some_and(|until| self.delivered > until) {
            self.app_limited = None;
        }
    }

    fn sample(
        &self,
        now: Instant,
        stamp: Stamp,
        send: Duration,
        min_rtt: Option<Duration>,
    ) -> Option<RateSample> {
        // The slower of the rates at which it was sent and acknowledged: neither bursts nor ACKs in bunches count.
        let interval = now.saturating_since(stamp.delivered_at).max(send);
        if interval.is_zero() || min_rtt.is_some_and(|min| interval < min) {
            return None;
        }
        let delivered = self.delivered - stamp.delivered;
        let rate = u128::from(delivered) * 1_000_000_000 / interval.as_nanos();
        let short = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
        Some(RateSample {
            rate: u64::try_from(rate).unwrap_or(u64::MAX),
            app_limited: stamp.app_limited,
            prior: stamp.delivered,
            delivered: short(delivered),
            lost: short(self.lost - stamp.lost),
            in_flight: stamp.in_flight,
        })
    }

    /// Takes what the NIC says was acknowledged.
    pub(super) fn delivered_on_nic(&mut self, now: Instant, bytes: u32) {
        self.add(now, bytes);
    }

    /// With `in_flight` bytes still to be acknowledged, after some were: what the flights tell that are over, those of which
    /// all is delivered that was in flight at an earlier call. Flights overlap, or what grows would be seen every other round
    /// trip.
    pub(super) fn flight(
        &mut self,
        now: Instant,
        in_flight: u32,
        min_rtt: Option<Duration>,
    ) -> Flight {
        let delivered = self.delivered;
        let mut took = None;
        let mut measured = self.waiting.take_if(|(_, until)| *until < delivered);
        while let Some((stamp, until)) = self.flights.pop_front_if(|(_, until)| *until <= delivered)
        {
            took = Some(now.saturating_since(stamp.delivered_at));
            // A rate is measured from a transmission to its acknowledgment. What was in flight already took less than a round
            // trip, so that a sender that waits for its pace would never give a sample.
            if until < delivered || in_flight == 0 {
                measured = Some((stamp, until));
            } else {
                self.waiting = Some((stamp, until));
            }
        }
        if in_flight == 0 {
            self.waiting = None;
        }
        let apart = min_rtt.unwrap_or_default() / FLIGHTS;
        let due = match self.flights.back() {
            Some((last, _)) => last.delivered_at + apart <= now,
            None => true,
        };
        // From nothing in flight to the next acknowledgment is the application's time, or the peer's window's.
        if due && in_flight > 0 && self.flights.len() < MOST_FLIGHTS {
            let stamp = self.stamp(now, false, in_flight);
            let until = self.delivered + u64::from(in_flight);
            self.flights.push_back((stamp, until));
        }
        let rate = measured.and_then(|(stamp, _)| self.sample(now, stamp, Duration::ZERO, min_rtt));
        Flight { took, rate }
    }

    /// Something was lost: what is delivered when it was sent again took no round trip.
    pub(super) fn end_flights(&mut self) {
        self.flights.clear();
        self.waiting = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn rate_is_what_was_delivered_over_a_flight() {
        let mut delivery = Delivery::default();
        let stamps: Vec<_> = (0..10)
            .map(|i| (delivery.stamp(at(i), i == 0, 1000), at(i)))
            .collect();
        let mut last = None;
        for (i, stamp) in stamps.into_iter().enumerate() {
            last = delivery.delivered(at(100 + i as u64), 1000, Some(stamp), None);
        }
        // 10,000 bytes between the first transmission and the last acknowledgment.
        assert_eq!(last.unwrap().rate, 10_000 * 1000 / 109);
        let stamp = delivery.stamp(at(110), false, 1000);
        let sample = delivery
            .delivered(at(210), 1000, Some((stamp, at(110))), None)
            .unwrap();
        assert_eq!((sample.rate, sample.delivered), (1000 * 1000 / 101, 1000));
    }

    #[test]
    fn acks_in_a_bunch_do_not_look_fast() {
        let mut delivery = Delivery::default();
        let slow = (delivery.stamp(at(0), true, 1000), at(0));
        delivery.delivered(at(10), 1000, Some(slow), None);
        let stamp = (delivery.stamp(at(10), false, 1000), at(10));
        // Sent ten milliseconds after the one before, acknowledged one after it.
        let sample = delivery.delivered(at(11), 1000, Some(stamp), None);
        assert_eq!(sample.unwrap().rate, 100_000);
        let stamp = (delivery.stamp(at(11), true, 1000), at(11));
        let min_rtt = Some(Duration::from_millis(10));
        assert_eq!(delivery.delivered(at(12), 1000, Some(stamp), min_rtt), None);
    }

    #[test]
    fn application_limits_are_told_until_what_was_in_flight_is_delivered() {
        let mut delivery = Delivery::default();
        delivery.note_app_limited(1500);
        let stamp = delivery.stamp(at(0), true, 1000);
        assert!(
            delivery
                .delivered(at(9), 1000, Some((stamp, at(0))), None)
                .unwrap()
                .app_limited
        );
        delivery.delivered(at(10), 1000, None, None);
        let stamp = delivery.stamp(at(10), true, 1000);
        let sample = delivery.delivered(at(20), 1000, Some((stamp, at(10))), None);
        assert!(!sample.unwrap().app_limited);
    }

    #[test]
    fn the_nic_gives_a_sample_when_a_flight_is_over() {
        let mut delivery = Delivery::default();
        let min_rtt = Some(Duration::from_millis(10));
        let mut rates = Vec::new();
        // Twice as much each round trip: a sample is of what was in flight one before.
        let steps = [
            (0, 1000, 3000),
            (5, 1000, 4000),
            (10, 2000, 6000),
            (15, 2000, 8000),
            (20, 4000, 9000),
        ];
        for (millis, acked, in_flight) in steps {
            delivery.delivered_on_nic(at(millis), acked);
            let flight = delivery.flight(at(millis), in_flight, min_rtt);
            rates.push((
                flight.took.map(|took| took.as_millis()),
                flight.rate.map(|sample| sample.rate),
            ));
        }
        // What was in flight is delivered, and a moment later something that was sent after it.
        let took = [None, None, Some(10), Some(10), Some(10)];
        assert_eq!(rates.iter().map(|rate| rate.0).collect::<Vec<_>>(), took);
        let samples = [
            None,
            None,
            None,
            Some(5000 * 1000 / 15),
            Some(8000 * 1000 / 15),
        ];
        assert_eq!(rates.iter().map(|rate| rate.1).collect::<Vec<_>>(), samples);
    }

    #[test]
    fn a_sender_that_waits_for_its_pace_gives_samples_of_a_round_trip() {
        let mut delivery = Delivery::default();
        let min_rtt = Some(Duration::from_millis(100));
        // A segment every 8 ms, acknowledged 100 ms later: the newest in flight when an acknowledgment comes was sent some
        // milliseconds before.
        let mut rates = Vec::new();
        for segment in 0..40 {
            delivery.delivered_on_nic(at(100 + 8 * segment), 1000);
            let flight = delivery.flight(at(100 + 8 * segment), 12_000, min_rtt);
            assert!(flight.took <= min_rtt);
            rates.extend(flight.rate.map(|sample| sample.rate));
        }
        assert_eq!(rates[..], [125_000; 27]);
    }

    #[test]
    fn what_an_application_thinks_between_two_flights_is_no_flight() {
        let mut delivery = Delivery::default();
        let min_rtt = Some(Duration::from_millis(1));
        for millis in [0, 1_000, 3_000] {
            delivery.delivered_on_nic(at(millis), 1000);
            assert_eq!(delivery.flight(at(millis), 0, min_rtt), Flight::default());
        }
    }
}
