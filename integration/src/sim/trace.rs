//! What a run leaves behind: a hash of every frame, and on request what plots are made from.

use std::time::Duration;

use flextcp_nic::time::Instant;
use flextcp_nic::wire::{Packet, TcpFlags};
use flextcp_rt::lab::parse;
use flextcp_rt::tcp::TcpInfo;

/// Headers, and where they differ the first bytes of the payload.
const HASHED: usize = 96;
/// Samples kept at most, of each kind.
const MAX_SAMPLES: usize = 2_000_000;

/// A fingerprint of a run.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Trace {
    /// Of every frame that a host sent, with its time.
    pub hash: u64,
    /// Frames sent by hosts.
    pub frames: u64,
}

impl Trace {
    fn word(&mut self, word: u64) {
        self.hash = (self.hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    pub(super) fn frame(&mut self, now: Instant, host: usize, frame: &[u8]) {
        self.frames += 1;
        self.word(now.as_nanos());
        self.word((frame.len() as u64) << 8 | host as u64);
        for chunk in frame[..frame.len().min(HASHED)].chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
    }
}

/// A data segment, an ACK or a signal, as a host sent it.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// When.
    pub at: Duration,
    /// The connection.
    pub connection: usize,
    /// The server sent it.
    pub by_server: bool,
    /// Sequence number.
    pub seq: u32,
    /// Payload bytes.
    pub len: usize,
    /// Acknowledgment number.
    pub ack: u32,
    /// SYN, FIN, RST and so on.
    pub flags: TcpFlags,
}

/// One end of a connection at a moment.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When.
    pub at: Duration,
    /// The connection.
    pub connection: usize,
    /// The server's end.
    pub server: bool,
    /// What the engine says.
    pub info: TcpInfo,
}

/// What plots are made from.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// Segments, in order of time.
    pub segments: Vec<Segment>,
    /// Samples of connections.
    pub samples: Vec<Sample>,
    /// Frames that wait for a link: time, host, towards the host, how many.
    pub queues: Vec<(Duration, usize, bool, usize)>,
}

impl Recording {
    pub(super) fn segment(
        &mut self,
        now: Instant,
        frame: &[u8],
        connection: impl FnOnce(&Packet) -> Option<(usize, bool)>,
    ) {
        let Some(packet) = parse(frame) else { return };
        let Some((connection, by_server)) = connection(&packet) else {
            return;
        };
        if let Packet::Tcp(packet) = packet
            && self.segments.len() < MAX_SAMPLES
        {
            self.segments.push(Segment {
                at: now - Instant::ZERO,
                connection,
                by_server,
                seq: packet.tcp.seq.0,
                len: packet.payload_len,
                ack: packet.tcp.ack.0,
                flags: packet.tcp.flags,
            });
        }
    }

    pub(super) fn sample(&mut self, sample: Sample) {
        if self.samples.len() < MAX_SAMPLES {
            self.samples.push(sample);
        }
    }

    pub(super) fn queue(&mut self, now: Instant, host: usize, down: bool, len: usize) {
        if self.queues.len() < MAX_SAMPLES {
            self.queues.push((now - Instant::ZERO, host, down, len));
        }
    }
}
