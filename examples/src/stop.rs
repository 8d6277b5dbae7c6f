//! The graceful stop: one flag that every connection watches, and a count of those still open.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Poll, Waker};

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// A handle on the stop of one server. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    stopping: AtomicBool,
    stop: Arc<Notify>,
    open: AtomicUsize,
    on_kernel: AtomicUsize,
    all_closed: Notify,
}

impl Stop {
    /// A stop that nobody has asked for yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for the stop and wakes all that wait for it.
    pub fn request(&self) {
        self.0.stopping.store(true, Ordering::Release);
        self.0.stop.notify_waiters();
    }

    /// True once the stop was asked for.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.0.stopping.load(Ordering::Acquire)
    }

    /// Waits until the stop is asked for. Cancel safe.
    pub async fn requested(&self) {
        let mut notified = pin!(self.0.stop.notified());
        // Registered before the flag is read: a request in between is not missed.
        notified.as_mut().enable();
        if !self.is_requested() {
            notified.await;
        }
    }

    /// Counts a connection as open until the guard is dropped; `on_kernel` if it is a kernel socket.
    #[must_use]
    pub fn connection(&self, on_kernel: bool) -> OpenConnection {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        self.0
            .on_kernel
            .fetch_add(usize::from(on_kernel), Ordering::Relaxed);
        OpenConnection {
            stop: self.clone(),
            on_kernel,
        }
    }

    /// How many kernel sockets are among the open connections.
    #[must_use]
    pub fn open_on_kernel(&self) -> usize {
        self.0.on_kernel.load(Ordering::Relaxed)
    }

    /// How many connections are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.0.open.load(Ordering::Acquire)
    }

    /// Waits until no connection is open. Cancel safe.
    pub async fn all_closed(&self) {
        loop {
            let mut notified = pin!(self.0.all_closed.notified());
            notified.as_mut().enable();
            if self.open() == 0 {
                return;
            }
            notified.await;
        }
    }

    /// A watch for [`StopWatch::race`], one for each connection.
    #[must_use]
    pub fn watch(&self) -> StopWatch {
        StopWatch {
            stop: self.clone(),
            registered: None,
        }
    }
}

/// An open connection, for [`Stop::open`] and [`Stop::all_closed`].
#[derive(Debug)]
pub struct OpenConnection {
    stop: Stop,
    on_kernel: bool,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let shared = &self.stop.0;
        shared
            .on_kernel
            .fetch_sub(usize::from(self.on_kernel), Ordering::Relaxed);
        if shared.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            shared.all_closed.notify_waiters();
        }
    }
}

/// Interrupts a connection's work when the stop is asked for.
///
/// It registers its waker once and then only looks at a flag, where `select!` over a shared
/// notification would take that one's lock at every wake-up of every connection.
#[derive(Debug)]
pub struct StopWatch {
    stop: Stop,
    registered: Option<(Waker, Pin<Box<OwnedNotified>>)>,
}

impl StopWatch {
    /// Runs `work` to its end, or until the stop is asked for: then `None`, and `work` can go on.
    pub async fn race<F: Future + Unpin>(&mut self, work: &mut F) -> Option<F::Output> {
        poll_fn(|cx| {
            if let Poll::Ready(output) = Pin::new(&mut *work).poll(cx) {
                return Poll::Ready(Some(output));
            }
            let known = matches!(&self.registered, Some((waker, _)) if waker.will_wake(cx.waker()));
            if !known {
                let mut notified = Box::pin(Arc::clone(&self.stop.0.stop).notified_owned());
                let _ = notified.as_mut().poll(cx);
                self.registered = Some((cx.waker().clone(), notified));
            }
            if self.stop.is_requested() {
                return Poll::Ready(None);
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    #[tokio::test]
    async fn a_race_ends_by_the_work_or_by_the_stop() {
        let stop = Stop::new();
        let mut watch = stop.watch();
        assert_eq!(watch.race(&mut ready(7)).await, Some(7));

        let racing = tokio::spawn(async move { watch.race(&mut pending::<()>()).await });
        tokio::task::yield_now().await;
        stop.request();
        assert_eq!(racing.await.unwrap(), None);
        // A stop asked for earlier ends a later race at once.
        assert_eq!(stop.watch().race(&mut pending::<()>()).await, None);
        stop.requested().await;
    }

    #[tokio::test]
    async fn waits_for_the_last_connection() {
        let stop = Stop::new();
        stop.all_closed().await;
        let first = stop.connection(true);
        let second = stop.connection(false);
        assert_eq!((stop.open(), stop.open_on_kernel()), (2, 1));
        let waiting = tokio::spawn({
            let stop = stop.clone();
            async move { stop.all_closed().await }
        });
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(second);
        waiting.await.unwrap();
    }
}
