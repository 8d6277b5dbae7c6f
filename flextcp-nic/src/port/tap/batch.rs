//! Batches of reads and writes in one system call through io_uring; one by one where it is not allowed.
//!
//! The device is non-blocking and copies synchronously, so every operation has completed when a call
//! returns, and the buffers are plain memory in between.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::{IoUring, opcode, squeue, types};
use rustix::io::Errno;

/// Operations in one call at most.
pub(super) const MAX_BATCH: usize = 128;

/// Index of the only registered buffer.
const REGISTERED: u16 = 0;

/// One buffer that operations read from and write into, and how they are issued.
pub(super) struct Batch {
    // Before the memory it uses, so dropped first.
    ring: Option<Ring>,
    memory: Vec<u8>,
}

struct Ring {
    uring: IoUring,
    /// The memory is registered: no page is looked up per operation. It counts as locked memory, so it may be refused.
    registered: bool,
    /// `RWF_NOWAIT`: io_uring would wait for a frame even on a non-blocking descriptor, unless the driver is too old
    /// to know the flag, and then it does not.
    rw_flags: i32,
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let registered = self.ring.as_ref().map(|ring| ring.registered);
        f.debug_struct("Batch")
            .field("registered", &registered)
            .finish_non_exhaustive()
    }
}

/// A piece of the memory: where, and how long.
pub(super) type Piece = (usize, usize);

#[derive(Clone, Copy)]
enum Direction {
    Read,
    Write,
}

impl Batch {
    pub(super) fn new(len: usize, allow_ring: bool) -> Self {
        let memory = vec![0; len];
        let ring = allow_ring.then(|| IoUring::new(MAX_BATCH as u32)).and_then(|result| {
            let refused = |error| tracing::debug!(%error, "no io_uring: the TAP is read and written frame by frame");
            result.map_err(refused).ok()
        });
        let ring = ring.map(|uring| {
            let whole = libc::iovec {
                iov_base: memory.as_ptr().cast_mut().cast(),
                iov_len: len,
            };
            // SAFETY: the memory never moves nor shrinks, and is dropped after the ring.
            let registered = unsafe { uring.submitter().register_buffers(&[whole]) }.is_ok();
            Ring {
                uring,
                registered,
                rw_flags: libc::RWF_NOWAIT,
            }
        });
        Self { ring, memory }
    }

    pub(super) fn memory(&self) -> &[u8] {
        &self.memory
    }

    pub(super) fn memory_mut(&mut self) -> &mut [u8] {
        &mut self.memory
    }

    /// Reads one frame into each piece, in order; `results[i]` is its length or the error. Returns system calls made.
    ///
    /// # Errors
    /// The ring failed: the batch is of no more use.
    ///
    /// # Panics
    /// A piece lies outside of the memory.
    pub(super) fn read(
        &mut self,
        fd: &OwnedFd,
        pieces: &[Piece],
        results: &mut Vec<Result<usize, Errno>>,
    ) -> io::Result<u64> {
        self.run(Direction::Read, fd, pieces, results)
    }

    /// Writes each piece as one frame, in order. Otherwise as [`read`](Self::read).
    pub(super) fn write(
        &mut self,
        fd: &OwnedFd,
        pieces: &[Piece],
        results: &mut Vec<Result<usize, Errno>>,
    ) -> io::Result<u64> {
        self.run(Direction::Write, fd, pieces, results)
    }

    fn run(
        &mut self,
        direction: Direction,
        fd: &OwnedFd,
        pieces: &[Piece],
        results: &mut Vec<Result<usize, Errno>>,
    ) -> io::Result<u64> {
        results.clear();
        if self.memory.is_empty() {
            return Err(io::Error::other("an earlier batch failed"));
        }
        let Some(ring) = &mut self.ring else {
            return Ok(one_by_one(&mut self.memory, direction, fd, pieces, results));
        };
        let mut calls = 0;
        for pieces in pieces.chunks(MAX_BATCH) {
            let first = results.len();
            let mut issued = ring.issue(&mut self.memory, direction, fd, pieces, results);
            if ring.rw_flags != 0 && results[first..].contains(&Err(Errno::OPNOTSUPP)) {
                ring.rw_flags = 0;
                results.truncate(first);
                issued = ring.issue(&mut self.memory, direction, fd, pieces, results);
            }
            match issued {
                Ok(entered) => calls += entered,
                Err(error) => {
                    // Operations may still be under way: neither they nor their memory are ever touched again.
                    std::mem::forget((self.ring.take(), std::mem::take(&mut self.memory)));
                    return Err(error);
                }
            }
        }
        Ok(calls)
    }
}

fn one_by_one(
    memory: &mut [u8],
    direction: Direction,
    fd: &OwnedFd,
    pieces: &[Piece],
    results: &mut Vec<Result<usize, Errno>>,
) -> u64 {
    for &(start, len) in pieces {
        let piece = &mut memory[start..start + len];
        let result = match direction {
            Direction::Read => rustix::io::read(fd, piece),
            Direction::Write => rustix::io::write(fd, piece),
        };
        results.push(result);
        // The rest of a batch of reads would find nothing either.
        if matches!((direction, result), (Direction::Read, Err(_))) {
            break;
        }
    }
    results.len() as u64
}

impl Ring {
    fn issue(
        &mut self,
        memory: &mut [u8],
        direction: Direction,
        fd: &OwnedFd,
        pieces: &[Piece],
        results: &mut Vec<Result<usize, Errno>>,
    ) -> io::Result<u64> {
        let first = results.len();
        results.resize(first + pieces.len(), Err(Errno::CANCELED));
        for (index, &(start, len)) in pieces.iter().enumerate() {
            let entry = self.entry(direction, fd, &mut memory[start..start + len]);
            // SAFETY: the memory outlives the operation: either it completes before this function returns, or the caller
            // forgets the memory.
            unsafe { self.uring.submission().push(&entry.user_data(index as u64)) }.map_err(
                |_| io::Error::other("the submission queue is full although each batch empties it"),
            )?;
        }
        let (mut completed, mut calls) = (0, 0);
        while completed < pieces.len() {
            calls += 1;
            match self.uring.submit_and_wait(pieces.len() - completed) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            for completion in self.uring.completion() {
                completed += 1;
                let place = usize::try_from(completion.user_data())
                    .ok()
                    .map(|index| first + index);
                if let Some(result) = place.and_then(|place| results.get_mut(place)) {
                    let value = completion.result();
                    *result = usize::try_from(value).map_err(|_| Errno::from_raw_os_error(-value));
                }
            }
        }
        Ok(calls)
    }

    fn entry(&self, direction: Direction, fd: &OwnedFd, piece: &mut [u8]) -> squeue::Entry {
        let fd = types::Fd(fd.as_raw_fd());
        let (start, len, flags) = (piece.as_mut_ptr(), piece.len() as u32, self.rw_flags);
        match (direction, self.registered) {
            (Direction::Read, true) => opcode::ReadFixed::new(fd, start, len, REGISTERED)
                .rw_flags(flags)
                .build(),
            (Direction::Read, false) => opcode::Read::new(fd, start, len).rw_flags(flags).build(),
            (Direction::Write, true) => opcode::WriteFixed::new(fd, start, len, REGISTERED)
                .rw_flags(flags)
                .build(),
            (Direction::Write, false) => opcode::Write::new(fd, start, len).rw_flags(flags).build(),
        }
    }
}
