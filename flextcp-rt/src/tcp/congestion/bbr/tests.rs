//! BBR over a model of a path.

use super::*;

/// A path of 10 MB/s and 20 ms with a queue; a fluid model, a step a millisecond.
struct Path {
    now: u64,
    queue: f64,
    bandwidth: f64,
    loss: f64,
    delivered: u64,
}

impl Path {
    fn new() -> Self {
        Self {
            now: 0,
            queue: 0.0,
            bandwidth: 10_000.0,
            loss: 0.0,
            delivered: 0,
        }
    }

    /// Runs for `millis`; returns bytes delivered.
    fn run(&mut self, bbr: &mut Bbr, window: &mut Window, millis: u64) -> f64 {
        let mut total = 0.0;
        for _ in 0..millis {
            self.now += 1;
            let rtt = 20.0 + self.queue / self.bandwidth;
            let rate = (bbr.pacing_rate as f64 / 1000.0)
                .min(f64::from(window.cwnd) / rtt)
                .max(1.0);
            let arrived = rate * (1.0 - self.loss);
            let delivered = (arrived + self.queue).min(self.bandwidth);
            self.queue += arrived - delivered;
            total += delivered;
            self.delivered += delivered as u64;
            let una = SeqNum(self.delivered as u32);
            let in_flight = (rate * rtt) as u32;
            let sample = AckSample {
                now: Instant::from_millis(self.now),
                acked: delivered as u32,
                delivered: delivered as u32,
                lost: (rate * self.loss) as u32,
                rtt: Some(Duration::from_micros((rtt * 1000.0) as u64)),
                srtt: Some(Duration::from_millis(20)),
                in_flight,
                rate: Some(RateSample {
                    rate: (delivered * 1000.0) as u64,
                    app_limited: false,
                    prior: self.delivered.saturating_sub(in_flight.into()),
                    delivered: in_flight,
                    lost: (rate * rtt * self.loss) as u32,
                    in_flight,
                }),
                una,
                nxt: una + in_flight,
                ..AckSample::default()
            };
            bbr.observe(window, &sample);
        }
        total
    }
}

fn start() -> (Bbr, Window, Path) {
    let window = Window {
        cwnd: 14_480,
        ssthresh: u32::MAX / 2,
        mss: 1448,
    };
    (Bbr::new(1), window, Path::new())
}

#[test]
fn finds_the_bandwidth_and_keeps_the_queue_short() {
    let (mut bbr, mut window, mut path) = start();
    path.run(&mut bbr, &mut window, 2000);
    assert!(bbr.filled);
    let delivered = path.run(&mut bbr, &mut window, 4000);
    assert!(
        delivered > 0.95 * 4000.0 * path.bandwidth,
        "{delivered} {bbr:?}"
    );
    assert!(path.queue < 200_000.0, "{} {bbr:?}", path.queue);
    assert_eq!(bbr.min_rtt.unwrap().as_millis(), 20);
}

#[test]
fn one_per_cent_of_loss_does_not_slow_it_down() {
    let (mut bbr, mut window, mut path) = start();
    path.loss = 0.01;
    path.run(&mut bbr, &mut window, 2000);
    let delivered = path.run(&mut bbr, &mut window, 10_000);
    assert!(
        delivered > 0.9 * 10_000.0 * path.bandwidth,
        "{delivered} {bbr:?}"
    );
}

#[test]
fn much_loss_bounds_what_is_in_flight() {
    let (mut bbr, mut window, mut path) = start();
    path.run(&mut bbr, &mut window, 2000);
    path.loss = 0.2;
    path.run(&mut bbr, &mut window, 3000);
    assert!(
        bbr.inflight_hi != UNBOUNDED || bbr.inflight_lo != UNBOUNDED,
        "{bbr:?}"
    );
    path.loss = 0.0;
    path.run(&mut bbr, &mut window, 6000);
    let delivered = path.run(&mut bbr, &mut window, 4000);
    assert!(
        delivered > 0.9 * 4000.0 * path.bandwidth,
        "{delivered} {bbr:?}"
    );
}

#[test]
fn follows_a_path_that_gets_slower() {
    let (mut bbr, mut window, mut path) = start();
    path.run(&mut bbr, &mut window, 2000);
    path.bandwidth = 2_000.0;
    path.run(&mut bbr, &mut window, 15_000);
    assert!(bbr.bw() < 3_000_000, "{bbr:?}");
}

#[test]
fn finds_in_round_trips_that_a_path_gives_more() {
    let (mut bbr, mut window, mut path) = start();
    path.bandwidth = 500.0;
    path.run(&mut bbr, &mut window, 3000);
    assert!(bbr.filled && bbr.bw() < 600_000, "{bbr:?}");
    path.bandwidth = 10_000.0;
    path.run(&mut bbr, &mut window, 6000);
    assert!(bbr.bw() > 9_000_000, "{bbr:?}");
}

/// Draft, section 5.3.3.6: bandwidth that the bound holds down does not say that the path is full.
#[test]
fn a_bound_that_is_too_low_is_found_out_by_one_probe() {
    let (mut bbr, mut window, mut path) = start();
    path.run(&mut bbr, &mut window, 2000);
    // As after a start that lost much by accident: a tenth of what the path holds.
    bbr.inflight_hi = 20_000;
    bbr.max_bw = [1_000_000; 2];
    path.run(&mut bbr, &mut window, 3500);
    let delivered = path.run(&mut bbr, &mut window, 1000);
    assert!(
        delivered > 0.9 * 1000.0 * path.bandwidth,
        "{delivered} {bbr:?}"
    );
}

/// Draft, section 5.5.10.2: losses of a probe lower the bound, once, and end the probe.
#[test]
fn a_probe_that_loses_too_much_sets_the_bound_to_what_was_in_flight() {
    let (mut bbr, mut window, mut path) = start();
    path.run(&mut bbr, &mut window, 2000);
    while bbr.state != State::Up {
        path.run(&mut bbr, &mut window, 1);
    }
    path.loss = 0.1;
    path.run(&mut bbr, &mut window, 2);
    let flight = path.bandwidth * 20.0;
    assert!(matches!(bbr.state, State::Down | State::Cruise), "{bbr:?}");
    assert!(!bbr.probe_samples);
    let bound = f64::from(bbr.inflight_hi);
    assert!((0.7 * flight..1.6 * flight).contains(&bound), "{bbr:?}");
}

/// Draft, section 5.5.1: SND.UNA stands still while a loss is repaired, round trips pass.
#[test]
fn round_trips_are_counted_by_what_is_delivered() {
    let (mut bbr, mut window, _) = start();
    let mut ends = Vec::new();
    for ack in 0..40 {
        let sample = AckSample {
            delivered: 1000,
            rate: Some(RateSample {
                prior: 1000 * ack,
                delivered: 10_000,
                ..RateSample::default()
            }),
            nxt: SeqNum(20_000),
            ..AckSample::default()
        };
        if bbr.ends_round(&sample) {
            ends.push(ack);
        }
    }
    assert_eq!(ends, [0, 10, 20, 30]);
    // Without a sample it is for SND.UNA to say.
    let mut sample = AckSample {
        nxt: SeqNum(90_000),
        una: SeqNum(19_000),
        ..AckSample::default()
    };
    assert!(!bbr.ends_round(&sample));
    sample.una = SeqNum(20_000);
    assert!(bbr.ends_round(&sample));
    bbr.observe(&mut window, &sample);
    assert_eq!(bbr.round_end, Some(SeqNum(90_000)));
}

/// Draft, section 5.3.1.3: six losses, above the threshold, in a round trip of recovery.
#[test]
fn startup_ends_by_losses_of_a_round_trip_of_recovery_only() {
    for (losses, ends) in [(5, false), (12, true)] {
        let (mut bbr, mut window, _) = start();
        for ack in 0..400_u64 {
            // Twice as much every round trip, so that nothing but losses says that the path is full.
            let round = ack / 100;
            let sample = AckSample {
                now: Instant::from_millis(ack),
                delivered: 1448,
                lost: if (150..150 + losses).contains(&ack) {
                    1448
                } else {
                    0
                },
                rtt: Some(Duration::from_millis(100)),
                rate: Some(RateSample {
                    rate: 1_000_000 << round,
                    prior: 1448 * ack,
                    delivered: 144_800,
                    in_flight: 144_800,
                    ..RateSample::default()
                }),
                nxt: SeqNum(u32::MAX / 2),
                ..AckSample::default()
            };
            bbr.observe(&mut window, &sample);
            // Not with the last of them: the round trip that began with the first has to be over.
            assert!(!bbr.filled || ends && ack >= 250, "{ack} {bbr:?}");
        }
        assert_eq!(bbr.filled, ends);
    }
}

/// Draft, section 5.6.4.4.
#[test]
fn the_window_of_before_a_timeout_comes_back_when_all_is_repaired() {
    let (mut bbr, mut window, mut path) = start();
    path.run(&mut bbr, &mut window, 2000);
    let before = window.cwnd;
    bbr.ssthresh(&window, Instant::from_millis(2000));
    let mut sample = AckSample {
        now: Instant::from_millis(2001),
        delivered: 1448,
        nxt: SeqNum(u32::MAX / 2),
        ..AckSample::default()
    };
    window.cwnd = 1448;
    bbr.observe(&mut window, &sample);
    assert_eq!(window.cwnd, 4 * 1448);
    sample.open = true;
    bbr.observe(&mut window, &sample);
    assert_eq!(window.cwnd, before);
}

#[test]
fn rounds_without_a_measurement_do_not_end_startup() {
    let (mut bbr, mut window, _) = start();
    for round in 0..10 {
        let rate = (round == 0).then_some(RateSample {
            rate: 100_000,
            app_limited: false,
            prior: 0,
            delivered: 1448,
            lost: 0,
            in_flight: 1448,
        });
        let sample = AckSample {
            now: Instant::from_millis(100 * (round + 1)),
            acked: 1448,
            delivered: 1448,
            rtt: Some(Duration::from_millis(100)),
            rate,
            ..AckSample::default()
        };
        bbr.observe(&mut window, &sample);
    }
    assert_eq!(bbr.state, State::Startup);
    // And what a first small sample says does not hold the first window back.
    assert_eq!(window.cwnd, 14_480 + 10 * 1448);
}
