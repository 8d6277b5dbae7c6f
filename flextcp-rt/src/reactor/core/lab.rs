//! What only a lab asks of a core.

use super::Core;
use crate::lab::Counts;

impl Core {
    /// What the core and its engine hold.
    pub(crate) fn holdings(&self) -> Counts {
        let inner = self.lock();
        let mut counts = Counts {
            streams: inner.streams.len(),
            connecting: inner.connecting.len(),
            listeners: inner.listeners.len(),
            ..Counts::default()
        };
        inner.engine.add_holdings(&mut counts);
        counts
    }

    /// Forgets every connection and listener, so that nothing keeps the core alive.
    pub(crate) fn dismantle(&self) {
        let mut inner = self.lock();
        let streams = std::mem::take(&mut inner.streams);
        let connecting = std::mem::take(&mut inner.connecting);
        let listeners = std::mem::take(&mut inner.listeners);
        drop(inner);
        drop((streams, connecting, listeners));
        while self.requests.pop().is_some() {}
    }
}
