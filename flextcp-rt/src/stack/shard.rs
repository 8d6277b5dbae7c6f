//! A thread's share of the queues, where a program runs one runtime per core.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;

use super::Host;
use crate::reactor::core::Core;

thread_local! {
    static CURRENT: Cell<Option<Shard>> = const { Cell::new(None) };
}

/// One of several equal parts of the work of a process: of an interface's queues it has every `of`-th one, beginning
/// with the `index`-th, and where there are fewer queues than parts it shares one with others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Shard {
    index: usize,
    of: usize,
}

/// The calling thread is in a shard until this is dropped.
#[derive(Debug)]
pub struct Entered {
    before: Option<Shard>,
    /// Belongs to the thread.
    _thread: PhantomData<*const ()>,
}

impl Shard {
    /// Part `index` of `of`, counted from 0; `None` when there is no such part.
    pub const fn new(index: usize, of: usize) -> Option<Self> {
        if index < of {
            Some(Self { index, of })
        } else {
            None
        }
    }

    /// Its number, counted from 0.
    pub const fn index(self) -> usize {
        self.index
    }

    /// Number of all parts.
    pub const fn of(self) -> usize {
        self.of
    }

    /// Makes it the calling thread's: what listens and connects on this thread from now on uses the shard's queues
    /// alone. For threads that each run a runtime of their own.
    #[must_use = "the thread leaves the shard when the value is dropped"]
    pub fn enter(self) -> Entered {
        Entered {
            before: CURRENT.replace(Some(self)),
            _thread: PhantomData,
        }
    }

    fn part_of<T: Clone>(self, all: &[T]) -> Vec<T> {
        let own: Vec<T> = all
            .iter()
            .skip(self.index)
            .step_by(self.of)
            .cloned()
            .collect();
        if own.is_empty() && !all.is_empty() {
            return vec![all[self.index % all.len()].clone()];
        }
        own
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.before);
    }
}

/// Those of an interface's cores that are the calling thread's: all, outside of a shard.
pub(super) fn mine(cores: Vec<Arc<Core>>) -> Vec<Arc<Core>> {
    match CURRENT.get() {
        Some(shard) if cores.len() > 1 => shard.part_of(&cores),
        _ => cores,
    }
}

impl Host {
    /// How many queues the interface with the most has, of those over which peers reach `local`: as many threads can
    /// have one of their own. 0 where nothing is accelerated. Attaches the interfaces.
    ///
    /// # Errors
    /// They cannot be attached, and falling back is denied.
    pub fn queues_at(&self, local: std::net::SocketAddr) -> std::io::Result<usize> {
        if !self.uses_nic() {
            return Ok(0);
        }
        let mut most = 0;
        for ifindex in self.interfaces_of(local.ip()) {
            most = most.max(self.interface_cores(ifindex)?.len());
        }
        Ok(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_all_queues() {
        for queues in 1..=9_usize {
            let all: Vec<usize> = (0..queues).collect();
            for of in 1..=9 {
                let parts = (0..of).map(|index| Shard::new(index, of).unwrap().part_of(&all));
                let mut taken: Vec<usize> = parts
                    .inspect(|part| assert!(!part.is_empty()))
                    .flatten()
                    .collect();
                taken.sort_unstable();
                if of <= queues {
                    assert_eq!(taken, all, "{of} shards: each queue is one shard's");
                } else {
                    assert_eq!(taken.len(), of, "{of} shards of {queues}: one queue each");
                    taken.dedup();
                    assert_eq!(taken, all);
                }
            }
        }
        assert_eq!(Shard::new(2, 2), None);
        assert!(Shard::new(0, 2).unwrap().part_of::<u8>(&[]).is_empty());
    }

    #[test]
    fn a_thread_leaves_its_shard() {
        let outer = Shard::new(0, 2).unwrap().enter();
        drop(Shard::new(1, 2).unwrap().enter());
        assert_eq!(CURRENT.get(), Shard::new(0, 2));
        drop(outer);
        assert_eq!(CURRENT.get(), None);
    }
}
