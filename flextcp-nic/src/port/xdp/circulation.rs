//! How many receive chunks are in use: few while few frames wait, so that they stay in the caches; all under load.
//!
//! The fill ring is first in, first out: with thousands of chunks in it every frame lands in one that no cache
//! remembers.

use super::ring::Producer;

/// Chunks in use at least: a burst of so many frames is taken while nobody looks.
const LEAST: u32 = 512;

/// Looks with frames after which a level that was not needed is halved.
const PERIOD: u32 = 1 << 16;

/// The receive chunks that are neither in a ring nor with us.
#[derive(Debug)]
pub(super) struct Circulation {
    /// A stack: those used last are warm.
    spare: Vec<u64>,
    chunks: u32,
    /// Chunks that should circulate.
    level: u32,
    least: u32,
    /// Most descriptors that waited at one look in this period.
    peak: u32,
    looks: u32,
}

impl Circulation {
    /// All of `chunks` are spare; with `all` as many as there are circulate always, as drivers want it that
    /// fill rings of hardware with them.
    pub(super) fn new(chunks: impl Iterator<Item = u64>, all: bool) -> Self {
        let spare: Vec<u64> = chunks.collect();
        let chunks = spare.len() as u32;
        let least = if all { chunks } else { LEAST.min(chunks) };
        Self {
            spare,
            chunks,
            level: least,
            least,
            peak: 0,
            looks: 0,
        }
    }

    /// Notes that `waiting` chunks had been filled when somebody looked.
    pub(super) fn saw(&mut self, waiting: u32) {
        if waiting == 0 {
            return;
        }
        self.peak = self.peak.max(waiting);
        self.looks += 1;
        let wanted = waiting.saturating_mul(4).min(self.chunks);
        if wanted > self.level {
            self.level = wanted.next_power_of_two().min(self.chunks);
        }
        if self.looks >= PERIOD {
            if self.peak < self.level / 16 {
                self.level = (self.level / 2).max(self.least);
            }
            self.looks = 0;
            self.peak = 0;
        }
    }

    /// Puts chunks into the fill ring until as many circulate as should; returns how many.
    pub(super) fn top_up(&mut self, fill: &mut Producer<u64>) -> u32 {
        let mut added = 0;
        while self.circulating() < self.level
            && let Some(&address) = self.spare.last()
            && fill.push(address)
        {
            self.spare.pop();
            added += 1;
        }
        added
    }

    /// Takes a received chunk back, into the fill ring or to the spare ones. The kernel shows a frame before it
    /// gives the place free that its chunk came from (`xsk_flush`), so that the ring may be full for a moment.
    pub(super) fn give_back(&mut self, address: u64, fill: &mut Producer<u64>) {
        if self.circulating() > self.level || !fill.push(address) {
            self.spare.push(address);
        }
    }

    fn circulating(&self) -> u32 {
        self.chunks - self.spare.len() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circulation(chunks: u64) -> Circulation {
        Circulation::new((0..chunks).map(|index| index * 4096), false)
    }

    #[test]
    fn a_burst_raises_the_level_and_calm_lowers_it() {
        let mut circulation = circulation(4096);
        assert_eq!(circulation.level, LEAST);
        circulation.saw(LEAST / 4);
        assert_eq!(circulation.level, LEAST);
        circulation.saw(LEAST / 4 + 1);
        assert_eq!(circulation.level, 1024);
        circulation.saw(3000);
        assert_eq!(circulation.level, 4096);
        for _ in 0..5 * PERIOD {
            circulation.saw(3);
        }
        assert_eq!(circulation.level, LEAST);
        for _ in 0..2 * PERIOD {
            circulation.saw(0);
        }
        assert_eq!(circulation.looks, circulation.looks % PERIOD);
    }

    #[test]
    fn small_rings_and_drivers_have_all_chunks_in_use() {
        assert_eq!(circulation(64).level, 64);
        let all = Circulation::new(0..4096, true);
        assert_eq!(all.level, 4096);
    }
}
