//! Two lines between two ports, in real time.
//!
//! One thread takes frames in as they come and lets them out when they are due. It sleeps in between, to the nanosecond
//! as far as the kernel's timers go, with real-time priority where it may have it: [`Lateness`] tells what that gave.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use flextcp_nic::port::impair::{ImpairConfig, Impairment, Line};
use flextcp_nic::port::{Port, TxFrame, TxOffload};
use flextcp_nic::time::Instant;
use hdrhistogram::Histogram;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::record::{Counters, Lateness, QueueLength, Record, Records};

/// Frames taken from a port before those that are due go out.
const BUDGET: usize = 64;
/// Not worth going to sleep for.
const SOON: Duration = Duration::from_micros(3);
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// One a millisecond; an hour's worth.
const MAX_SAMPLES: usize = 3_600_000;
const SAMPLE_EVERY: Duration = Duration::from_millis(1);
/// Ethernet header and one tag.
const LINK_HEADER: usize = 18;

/// The way frames go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the first port to the second.
    ToB = 0,
    /// From the second port to the first.
    ToA = 1,
}

#[derive(Debug)]
struct Lane {
    line: Line,
    delivered: u64,
    delivered_bytes: u64,
    oversized: u64,
    late: Histogram<u64>,
    queue: Vec<u32>,
}

impl Lane {
    fn counters(&self) -> Counters {
        let counters = self.line.counters();
        Counters {
            frames: counters.frames,
            lost: counters.lost,
            overflowed: counters.overflowed,
            marked: counters.marked,
            reordered: counters.reordered,
            duplicated: counters.duplicated,
            corrupted: counters.corrupted,
            delivered: self.delivered,
            delivered_bytes: self.delivered_bytes,
            oversized: self.oversized,
        }
    }
}

#[derive(Debug)]
struct Shared {
    lanes: Mutex<[Lane; 2]>,
    started: std::time::Instant,
    stop: AtomicBool,
    realtime: AtomicBool,
    wake: OwnedFd,
}

impl Shared {
    fn lanes(&self) -> MutexGuard<'_, [Lane; 2]> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

/// A running path; it ends when dropped.
pub struct Emulator {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emulator")
            .field("started", &self.shared.started)
            .finish_non_exhaustive()
    }
}

impl Emulator {
    /// Joins two ports: frames from `a` go to `b` as `config.tx` says, and back as `config.rx` says.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        a: impl Port + 'static,
        b: impl Port + 'static,
        config: &ImpairConfig,
    ) -> io::Result<Self> {
        let lane = |impairment: &Impairment, seed| {
            Ok::<_, io::Error>(Lane {
                line: Line::new(impairment.clone(), seed),
                delivered: 0,
                delivered_bytes: 0,
                oversized: 0,
                late: Histogram::new_with_bounds(1, 60_000_000_000, 2).map_err(io::Error::other)?,
                queue: Vec::new(),
            })
        };
        let shared = Arc::new(Shared {
            // Far apart, so that the directions have no losses in common.
            lanes: Mutex::new([
                lane(&config.tx, config.seed)?,
                lane(&config.rx, config.seed ^ 0x5851_f42d_4c95_7f2d)?,
            ]),
            started: std::time::Instant::now(),
            stop: AtomicBool::new(false),
            realtime: AtomicBool::new(false),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        });
        let ports: [Box<dyn Port>; 2] = [Box::new(a), Box::new(b)];
        let thread = thread::Builder::new().name("path".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || {
                shared.realtime.store(be_realtime(), Ordering::Relaxed);
                carry(&shared, ports)
            }
        })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Changes a direction for frames that come from now on.
    pub fn set(&self, direction: Direction, impairment: Impairment) {
        self.shared.lanes()[direction as usize].line.set(impairment);
    }

    /// Frames that waited for the link, every millisecond from the start; empty without a rate.
    pub fn queue(&self, direction: Direction) -> Vec<u32> {
        self.shared.lanes()[direction as usize].queue.clone()
    }

    /// What happened so far.
    pub fn records(&self) -> Records {
        let lanes = self.shared.lanes();
        let record = |lane: &Lane| Record {
            counters: lane.counters(),
            queue: QueueLength::of(lane.queue.clone()),
            late: Lateness {
                p50: lane.late.value_at_quantile(0.5) as f64 / 1e3,
                p99: lane.late.value_at_quantile(0.99) as f64 / 1e3,
                max: lane.late.max() as f64 / 1e3,
            },
        };
        Records {
            to_b: record(&lanes[0]),
            to_a: record(&lanes[1]),
            seconds: self.shared.started.elapsed().as_secs_f64(),
            realtime: self.shared.realtime.load(Ordering::Relaxed),
        }
    }

    /// Ends the path; frames under way are lost.
    ///
    /// # Errors
    /// What a port gave while it ran.
    pub fn stop(mut self) -> io::Result<Records> {
        self.end()?;
        Ok(self.records())
    }

    fn end(&mut self) -> io::Result<()> {
        self.shared.stop.store(true, Ordering::Release);
        let one = 1u64.to_ne_bytes();
        rustix::io::write(&self.shared.wake, &one)?;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("the path's thread panicked")),
            None => Ok(()),
        }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // Whoever wants the error calls stop.
        let _ = self.end();
    }
}

/// Real-time priority for this thread, so that a busy machine does not bend the path. Through util-linux: setting a
/// policy is a system call that no safe interface has.
fn be_realtime() -> bool {
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    Command::new("chrt")
        .args(["--fifo", "--pid", "10", &thread])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn carry(shared: &Shared, mut ports: [Box<dyn Port>; 2]) -> io::Result<()> {
    let mut sample_at = Instant::ZERO;
    let limits = [1, 0].map(|to: usize| ports[to].info().mtu as usize + LINK_HEADER);
    while !shared.stop.load(Ordering::Acquire) {
        let mut lanes = shared.lanes();
        let now = shared.now();
        while sample_at <= now {
            for lane in &mut *lanes {
                if lane.line.config().rate.is_some() && lane.queue.len() < MAX_SAMPLES {
                    let queued = lane.line.queued(sample_at);
                    lane.queue.push(u32::try_from(queued).unwrap_or(u32::MAX));
                }
            }
            sample_at += SAMPLE_EVERY;
        }
        let mut more = false;
        for (from, lane) in lanes.iter_mut().enumerate() {
            let count = ports[from].receive(now, BUDGET, &mut |frame| {
                if frame.len() > limits[from] {
                    lane.oversized += 1;
                } else {
                    lane.line
                        .enter(now, frame.slices(0, usize::MAX), frame.checksum);
                }
            })?;
            more |= count == BUDGET;
        }
        let mut next = now + LONGEST_SLEEP;
        for (from, lane) in lanes.iter_mut().enumerate() {
            let now = shared.now();
            let port = &mut ports[1 - from];
            while let Some(due) = lane.line.next_due()
                && let Some(frame) = lane.line.take(now)
            {
                lane.delivered += 1;
                lane.delivered_bytes += frame.bytes.len() as u64;
                let late = now.saturating_since(due).as_nanos();
                lane.late
                    .saturating_record(u64::try_from(late).unwrap_or(u64::MAX));
                let out = TxFrame {
                    header: &frame.bytes,
                    payload: [&[], &[]],
                    offload: TxOffload::default(),
                };
                // The veth's peer has no room: the frame is lost, as on any link whose receiver is overrun.
                let _ = port.transmit(now, out);
                lane.line.give_back(frame.bytes);
            }
            port.flush(now)?;
            if let Some(due) = lane.line.next_due() {
                next = next.min(due);
            }
        }
        drop(lanes);
        let wait = next.saturating_since(shared.now());
        if !more && wait > SOON {
            sleep(shared, &mut ports, wait)?;
        }
    }
    Ok(())
}

/// Sleeps until a frame comes, somebody calls, or `wait` is over.
fn sleep(shared: &Shared, ports: &mut [Box<dyn Port>; 2], wait: Duration) -> io::Result<()> {
    for port in &mut *ports {
        if !port.arm()? {
            return Ok(());
        }
    }
    let mut waits = vec![PollFd::new(&shared.wake, PollFlags::IN)];
    for port in &*ports {
        if let Some(fd) = port.wake_fd() {
            waits.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        }
    }
    let wait = wait.min(LONGEST_SLEEP);
    let limit = Timespec {
        tv_sec: wait.as_secs().cast_signed(),
        tv_nsec: wait.subsec_nanos().into(),
    };
    match poll(&mut waits, Some(&limit)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
