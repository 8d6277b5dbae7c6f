//! Frames that arrived on another queue than their connection's: put into the inbox of its core, whose port delivers
//! them as if they had arrived there.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use flextcp_nic::port::{Port, PortCounters, PortFull, PortInfo, RxChecksum, RxFrame, TxFrame};
use flextcp_nic::time::Instant;

/// Frames that wait at most: as many as a receive ring holds. More are lost as on a full ring.
const CAPACITY: usize = 4096;

/// The inbox of one core.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    frames: Mutex<VecDeque<(Vec<u8>, RxChecksum)>>,
    len: AtomicUsize,
    dropped: AtomicUsize,
}

impl Inbox {
    /// Adds a copy of `frame`; whether the inbox was empty, so that its core has to be told.
    pub(crate) fn push(&self, frame: &RxFrame<'_>) -> bool {
        let copy = (frame.to_vec(), frame.checksum);
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        if frames.len() == CAPACITY {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        frames.push_back(copy);
        self.len.store(frames.len(), Ordering::Release);
        frames.len() == 1
    }

    fn is_empty(&self) -> bool {
        self.len.load(Ordering::Acquire) == 0
    }

    fn pop(&self) -> Option<(Vec<u8>, RxChecksum)> {
        if self.is_empty() {
            return None;
        }
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        let frame = frames.pop_front();
        self.len.store(frames.len(), Ordering::Release);
        frame
    }
}

/// A port that delivers the frames of an inbox besides its own.
#[derive(Debug)]
pub(crate) struct InboxPort {
    inner: Box<dyn Port>,
    inbox: Arc<Inbox>,
}

impl InboxPort {
    pub(crate) fn new(inner: Box<dyn Port>, inbox: Arc<Inbox>) -> Self {
        Self { inner, inbox }
    }
}

impl Port for InboxPort {
    fn info(&self) -> &PortInfo {
        self.inner.info()
    }

    fn receive(
        &mut self,
        now: Instant,
        budget: usize,
        sink: &mut dyn FnMut(RxFrame<'_>),
    ) -> io::Result<usize> {
        let mut taken = 0;
        while taken < budget
            && let Some((bytes, checksum)) = self.inbox.pop()
        {
            sink(RxFrame::contiguous(&bytes, checksum));
            taken += 1;
        }
        Ok(taken + self.inner.receive(now, budget, sink)?)
    }

    fn transmit(&mut self, now: Instant, frame: TxFrame<'_>) -> Result<(), PortFull> {
        self.inner.transmit(now, frame)
    }

    fn flush(&mut self, now: Instant) -> io::Result<()> {
        self.inner.flush(now)
    }

    fn arm(&mut self) -> io::Result<bool> {
        // What is pushed after this look comes with a wake-up of its own.
        Ok(self.inner.arm()? && self.inbox.is_empty())
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.wake_fd()
    }

    fn poll_at(&self) -> Option<Instant> {
        self.inner.poll_at()
    }

    fn counters(&self) -> PortCounters {
        let mut counters = self.inner.counters();
        counters.rx_dropped += self.inbox.dropped.load(Ordering::Relaxed) as u64;
        counters
    }
}

#[cfg(test)]
mod tests {
    use flextcp_nic::port::memory::LoopbackPort;

    use super::*;

    #[test]
    fn frames_of_both_are_delivered_and_the_first_asks_for_a_turn() {
        let inbox = Arc::new(Inbox::default());
        let mut port = InboxPort::new(Box::new(LoopbackPort::new()), inbox.clone());
        assert!(port.arm().unwrap(), "nothing waits");
        let head = [7; 60];
        let tail: [&[u8]; 1] = [&[8; 10]];
        let frame = RxFrame {
            head: &head,
            tail: &tail,
            checksum: RxChecksum::MaybePartial,
        };
        assert!(inbox.push(&frame));
        assert!(!inbox.push(&frame), "its core is told already");
        assert!(!port.arm().unwrap(), "frames wait");
        let own = TxFrame {
            header: &[9; 70],
            payload: [&[], &[]],
            offload: Default::default(),
        };
        port.transmit(Instant::ZERO, own).unwrap();
        port.flush(Instant::ZERO).unwrap();
        let mut seen = Vec::new();
        let mut receive = |port: &mut InboxPort, budget| {
            port.receive(Instant::ZERO, budget, &mut |frame| {
                seen.push((frame.to_vec(), frame.checksum));
            })
            .unwrap()
        };
        assert_eq!(
            receive(&mut port, 1),
            2,
            "an inbox does not starve the port"
        );
        assert_eq!(receive(&mut port, 8), 1);
        assert_eq!(receive(&mut port, 8), 0);
        let handed = (frame.to_vec(), RxChecksum::MaybePartial);
        assert_eq!(seen[0], handed);
        assert_eq!(seen[1].0, [9; 70]);
        assert_eq!(seen[2], handed);
        assert!(inbox.push(&frame), "it ran empty");
    }

    #[test]
    fn a_full_inbox_drops_and_counts() {
        let inbox = Arc::new(Inbox::default());
        let port = InboxPort::new(Box::new(LoopbackPort::new()), inbox.clone());
        for _ in 0..CAPACITY + 3 {
            inbox.push(&RxFrame::contiguous(&[1; 60], RxChecksum::Trusted));
        }
        assert_eq!(port.counters().rx_dropped, 3);
    }
}
