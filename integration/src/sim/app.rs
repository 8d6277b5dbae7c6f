//! One end of a connection: what its application does, and what it saw.

use std::io;
use std::ops::RangeInclusive;
use std::sync::LazyLock;
use std::time::Duration;

use flextcp_nic::time::Instant;
use flextcp_rt::lab::{Lab, SocketId, Status};
use flextcp_rt::options::{SocketOption, SocketOptions};

use super::rng::Rng;

/// Period of the bytes that applications send: prime, so that bytes out of place show.
const PERIOD: usize = 65_521;
/// The most that an application reads or writes at once.
const MAX_CHUNK: usize = 65_536;

/// Two periods of noise: any chunk of any stream is a slice of it.
static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut rng = Rng::new(0x5eed);
    let period: Vec<u8> = (0..PERIOD).map(|_| rng.next() as u8).collect();
    let mut noise = period.repeat(3);
    noise.truncate(PERIOD + MAX_CHUNK);
    noise
});

/// Bytes `offset..` of the stream `key`.
fn stream_bytes(key: u64, offset: u64, len: usize) -> &'static [u8] {
    let start = ((key.wrapping_add(offset)) % PERIOD as u64) as usize;
    &NOISE[start..][..len.min(MAX_CHUNK)]
}

/// How an application uses its connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// It writes as fast as it may, and reads besides.
    Stream,
    /// It writes, and waits for as many bytes before it writes again.
    Ask,
    /// It writes back as many bytes as it read.
    Answer,
}

/// How an application ends its connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ending {
    /// It shuts its direction down after the last byte, reads to the end and closes.
    Shutdown,
    /// It reads to the end first, and closes when it has written everything.
    Last,
    /// It closes when it has written everything, whatever comes.
    Close,
    /// It closes after it has read so many bytes, perhaps with others unread.
    CloseAt(u64),
    /// It resets the connection after it has written so many bytes.
    Reset(u64),
}

impl Ending {
    /// Whether it may leave before the peer's end of the stream.
    pub const fn is_early(self) -> bool {
        matches!(self, Self::Close | Self::CloseAt(_) | Self::Reset(_))
    }
}

/// What an application does.
#[derive(Clone, Debug)]
pub struct AppPlan {
    /// How it uses the connection.
    pub mode: Mode,
    /// Bytes it writes; of [`Mode::Answer`], the most.
    pub send: u64,
    /// Sizes of its writes.
    pub write: RangeInclusive<u64>,
    /// Pause after a write.
    pub think: Duration,
    /// Sizes of its reads.
    pub read: RangeInclusive<u64>,
    /// Stops reading for so long once it has read so many bytes.
    pub stalls: Vec<(u64, Duration)>,
    /// How it ends.
    pub ending: Ending,
    /// Options of its socket.
    pub options: SocketOptions,
}

impl AppPlan {
    /// Writes `send` bytes as fast as it may, and reads as fast as it can.
    pub fn bulk(send: u64, ending: Ending) -> Self {
        let most = MAX_CHUNK as u64;
        Self {
            mode: Mode::Stream,
            send,
            write: most..=most,
            think: Duration::ZERO,
            read: most..=most,
            stalls: Vec::new(),
            ending,
            options: SocketOptions::default(),
        }
    }
}

/// What a server has to set on an accepted socket to have these options.
pub(super) fn changes(options: &SocketOptions) -> Vec<SocketOption> {
    let mut changes = vec![
        SocketOption::NoDelay(options.nodelay),
        SocketOption::KeepAlive(options.keepalive),
    ];
    changes.extend(options.recv_buffer.map(SocketOption::RecvBuffer));
    changes.extend(options.send_buffer.map(SocketOption::SendBuffer));
    changes.extend(options.maxseg.map(SocketOption::MaxSegment));
    changes.extend(options.congestion.map(SocketOption::Congestion));
    changes
}

/// How far an application is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Phase {
    /// Not connected or accepted yet.
    Absent,
    Connecting,
    Open,
    /// It closed its socket.
    Done,
}

/// One end of a connection.
#[derive(Clone, Debug)]
pub(super) struct App {
    plan: AppPlan,
    rng: Rng,
    /// Names the stream it writes, and the one it reads.
    keys: (u64, u64),
    pub(super) socket: Option<SocketId>,
    pub(super) phase: Phase,
    pub(super) written: u64,
    pub(super) read: u64,
    /// It read the end of the stream.
    pub(super) eof: bool,
    /// It ended its direction in an orderly way.
    pub(super) fin: bool,
    /// It left before the end of the stream.
    pub(super) early: bool,
    /// Its host died.
    pub(super) died: bool,
    pub(super) error: Option<io::ErrorKind>,
    /// A byte that was not the one that was sent.
    pub(super) wrong: Option<u64>,
    pub(super) done_at: Option<Instant>,
    write_at: Instant,
    read_at: Instant,
    next_write: u64,
}

impl App {
    pub(super) fn new(plan: AppPlan, rng: Rng, keys: (u64, u64)) -> Self {
        Self {
            plan,
            rng,
            keys,
            socket: None,
            phase: Phase::Absent,
            written: 0,
            read: 0,
            eof: false,
            fin: false,
            early: false,
            died: false,
            error: None,
            wrong: None,
            done_at: None,
            write_at: Instant::ZERO,
            read_at: Instant::ZERO,
            next_write: 0,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    pub(super) const fn plan(&self) -> &AppPlan {
        &self.plan
    }

    /// When it goes on by itself.
    pub(super) fn wakes_at(&self, now: Instant) -> Option<Instant> {
        if self.phase != Phase::Open {
            return None;
        }
        [self.write_at, self.read_at]
            .into_iter()
            .filter(|&at| at > now)
            .min()
    }

    /// Its host died.
    pub(super) fn die(&mut self) {
        if self.phase != Phase::Done {
            self.phase = Phase::Done;
            self.died = true;
        }
    }

    /// Does what it can; says whether that was anything.
    pub(super) fn step(&mut self, lab: &mut Lab, now: Instant, buf: &mut [u8]) -> bool {
        let Some(socket) = self.socket else {
            return false;
        };
        let mut any = false;
        if self.phase == Phase::Connecting {
            match lab.status(socket) {
                Status::Connecting => return false,
                Status::Connected => self.phase = Phase::Open,
                _ => {
                    let error = lab.take_error(socket);
                    self.fail(
                        lab,
                        socket,
                        now,
                        error.map_or(io::ErrorKind::Other, |e| e.kind()),
                    );
                }
            }
            any = true;
        }
        while self.phase == Phase::Open {
            let progress = self.read_some(lab, socket, now, buf)
                | self.write_some(lab, socket, now)
                | self.end(lab, socket, now);
            if !progress {
                break;
            }
            any = true;
        }
        any
    }

    fn read_some(&mut self, lab: &mut Lab, socket: SocketId, now: Instant, buf: &mut [u8]) -> bool {
        if self.phase != Phase::Open || self.eof || self.read_at > now {
            return false;
        }
        let most = self.rng.clone().range(self.plan.read.clone()) as usize;
        let mut most = most.clamp(1, MAX_CHUNK.min(buf.len()));
        // Not beyond where it stops.
        if let Some(&(at, _)) = self.plan.stalls.first() {
            most = most.min(at.saturating_sub(self.read).max(1) as usize);
        }
        if let Ending::CloseAt(at) = self.plan.ending {
            most = most.min(at.saturating_sub(self.read).max(1) as usize);
        }
        match lab.read(socket, &mut buf[..most]) {
            Ok(0) => self.eof = true,
            Ok(n) => {
                self.rng.next();
                if buf[..n] != *stream_bytes(self.keys.1, self.read, n) {
                    self.wrong.get_or_insert(self.read);
                }
                self.read += n as u64;
                while let Some(&(at, pause)) = self.plan.stalls.first()
                    && at <= self.read
                {
                    self.plan.stalls.remove(0);
                    self.read_at = now + pause;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(error) => self.fail(lab, socket, now, error.kind()),
        }
        true
    }

    /// How far it may write now.
    fn write_goal(&self) -> u64 {
        match self.plan.mode {
            Mode::Stream => self.plan.send,
            Mode::Ask if self.read < self.written => self.written,
            Mode::Ask => self.plan.send,
            Mode::Answer => self.read.min(self.plan.send),
        }
    }

    fn write_some(&mut self, lab: &mut Lab, socket: SocketId, now: Instant) -> bool {
        if self.phase != Phase::Open || self.fin || self.write_at > now {
            return false;
        }
        let mut goal = self.write_goal();
        if let Ending::Reset(at) = self.plan.ending {
            goal = goal.min(at);
        }
        if self.written >= goal {
            return false;
        }
        if self.next_write == 0 {
            self.next_write = self.rng.range(self.plan.write.clone()).max(1);
        }
        let len = self
            .next_write
            .min(goal - self.written)
            .min(MAX_CHUNK as u64) as usize;
        match lab.write(socket, stream_bytes(self.keys.0, self.written, len)) {
            Ok(n) => {
                self.written += n as u64;
                self.next_write = self.next_write.saturating_sub(n as u64);
                if self.next_write == 0 || self.written == goal {
                    self.next_write = 0;
                    self.write_at = now + self.plan.think;
                }
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => {
                self.fail(lab, socket, now, error.kind());
                true
            }
        }
    }

    fn wrote_everything(&self) -> bool {
        match self.plan.mode {
            Mode::Stream | Mode::Ask => self.written == self.plan.send,
            Mode::Answer => self.eof && self.written == self.read.min(self.plan.send),
        }
    }

    fn end(&mut self, lab: &mut Lab, socket: SocketId, now: Instant) -> bool {
        if self.phase != Phase::Open {
            return false;
        }
        match self.plan.ending {
            Ending::Reset(at) if self.written >= at => {
                self.early = true;
                self.leave(now);
                // The socket is ours, so it is open.
                lab.abort(socket).is_ok()
            }
            Ending::CloseAt(at) if self.read >= at && !self.eof => {
                self.close(lab, socket, now);
                true
            }
            Ending::Close if self.wrote_everything() && !self.eof => {
                self.close(lab, socket, now);
                true
            }
            _ if self.eof && self.wrote_everything() => {
                self.close(lab, socket, now);
                true
            }
            Ending::Shutdown if self.wrote_everything() && !self.fin => {
                self.fin = true;
                lab.shutdown(socket).is_ok()
            }
            // Who would wait for an end of the stream that comes only after its own has to give way.
            Ending::CloseAt(_) | Ending::Reset(_) if self.wrote_everything() && !self.fin => {
                self.fin = true;
                lab.shutdown(socket).is_ok()
            }
            _ => false,
        }
    }

    fn close(&mut self, lab: &mut Lab, socket: SocketId, now: Instant) {
        let unread = lab.queue_sizes(socket).is_ok_and(|sizes| sizes.recv > 0);
        self.early |= !self.eof;
        self.fin |= !unread;
        self.leave(now);
        // The socket is ours, so it is open.
        drop(lab.close(socket));
    }

    fn fail(&mut self, lab: &mut Lab, socket: SocketId, now: Instant, kind: io::ErrorKind) {
        self.error = Some(kind);
        self.leave(now);
        drop(lab.close(socket));
    }

    fn leave(&mut self, now: Instant) {
        self.phase = Phase::Done;
        self.done_at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_their_own_and_repeat_only_after_a_period() {
        let chunk = |key, offset| stream_bytes(key, offset, 1_000);
        assert_eq!(chunk(7, 100)[1..], stream_bytes(7, 101, 999)[..]);
        assert_ne!(chunk(7, 100), chunk(8, 100));
        assert_ne!(chunk(7, 0), chunk(7, 65_536));
        assert_eq!(
            stream_bytes(7, PERIOD as u64 - 1, MAX_CHUNK).len(),
            MAX_CHUNK
        );
    }
}
