//! The tokio runtime that a socket belongs to: when it goes, waiting operations fail as tokio's do.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use slab::Slab;
use tokio::runtime::{Handle, Id};

use super::readiness::Wakers;

/// What an operation fails with when the runtime of its socket is shut down:
/// `tokio::runtime::is_rt_shutdown_err` knows it by this text.
pub(crate) fn gone() -> io::Error {
    io::Error::other("A Tokio 1.x context was found, but it is being shutdown.")
}

/// Something that waits on behalf of tasks of a runtime.
pub(crate) trait Dependent: Send + Sync {
    /// The runtime is gone.
    fn runtime_gone(&self, wakers: &mut Wakers);
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    gone: bool,
    dependents: Slab<Weak<dyn Dependent>>,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shutdown(&self) {
        let mut state = self.lock();
        state.gone = true;
        let dependents = std::mem::take(&mut state.dependents);
        drop(state);
        let mut wakers = Wakers::new();
        for (_, dependent) in dependents {
            if let Some(dependent) = dependent.upgrade() {
                dependent.runtime_gone(&mut wakers);
            }
        }
    }
}

/// A tokio runtime, as its sockets know it.
#[derive(Clone)]
pub struct RuntimeHandle(Arc<Inner>);

impl RuntimeHandle {
    /// A runtime that lives until [`shutdown`](Self::shutdown) is called.
    pub fn new() -> Self {
        Self(Arc::default())
    }

    /// The runtime of the calling task or of the entered context, `None` outside of any. The first call in a
    /// runtime spawns a task there that never runs; the runtime drops it when it shuts down.
    pub fn try_current() -> Option<Self> {
        let handle = Handle::try_current().ok()?;
        Some(Self::of(&handle))
    }

    /// The runtime of `handle`.
    pub fn of(handle: &Handle) -> Self {
        thread_local! {
            static LAST: RefCell<Option<(Id, RuntimeHandle)>> = const { RefCell::new(None) };
        }
        let id = handle.id();
        let cached = LAST.with_borrow(|last| {
            last.as_ref()
                .filter(|(last, _)| *last == id)
                .map(|(_, runtime)| runtime.clone())
        });
        cached.unwrap_or_else(|| {
            let runtime = Self::find(handle, id);
            LAST.set(Some((id, runtime.clone())));
            runtime
        })
    }

    fn find(handle: &Handle, id: Id) -> Self {
        let mut runtimes = runtimes();
        if let Some(inner) = runtimes.get(&id) {
            return Self(Arc::clone(inner));
        }
        let runtime = Self::new();
        runtimes.insert(id, Arc::clone(&runtime.0));
        drop(runtimes);
        let sentinel = Sentinel {
            id,
            inner: Arc::clone(&runtime.0),
        };
        // Of a runtime that is already shut down, spawn drops the future at once: the sentinel fires here.
        drop(handle.spawn(async move {
            let _sentinel = sentinel;
            std::future::pending::<()>().await;
        }));
        runtime
    }

    /// Fails what waits now, and everything that will wait.
    pub fn shutdown(&self) {
        self.0.shutdown();
    }

    /// Whether the runtime is gone.
    pub fn is_shutdown(&self) -> bool {
        self.0.lock().gone
    }

    /// Makes `dependent` learn of the shutdown, at once if it was. Keep the result: dropping it ends that.
    pub(crate) fn register(&self, dependent: Weak<dyn Dependent>) -> Registration {
        let mut state = self.0.lock();
        if state.gone {
            drop(state);
            if let Some(dependent) = dependent.upgrade() {
                dependent.runtime_gone(&mut Wakers::new());
            }
            return Registration {
                inner: Weak::new(),
                key: 0,
            };
        }
        let key = state.dependents.insert(dependent);
        Registration {
            inner: Arc::downgrade(&self.0),
            key,
        }
    }
}

impl Default for RuntimeHandle {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for RuntimeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.lock();
        f.debug_struct("RuntimeHandle")
            .field("is_shutdown", &state.gone)
            .field("sockets", &state.dependents.len())
            .finish()
    }
}

fn runtimes() -> MutexGuard<'static, HashMap<Id, Arc<Inner>>> {
    static RUNTIMES: OnceLock<Mutex<HashMap<Id, Arc<Inner>>>> = OnceLock::new();
    RUNTIMES
        .get_or_init(Mutex::default)
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

/// Lives in a task of the runtime.
struct Sentinel {
    id: Id,
    inner: Arc<Inner>,
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        runtimes().remove(&self.id);
        self.inner.shutdown();
    }
}

/// Membership of a runtime, until dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    inner: Weak<Inner>,
    key: usize,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").finish_non_exhaustive()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.upgrade() {
            // After a shutdown the table was taken away whole.
            let removed = inner.lock().dependents.try_remove(self.key);
            drop(removed);
        }
    }
}
