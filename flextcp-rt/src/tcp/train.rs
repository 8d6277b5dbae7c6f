//! Super-frames of the engine: where the port cuts segments, several that follow each other leave as one frame, in recovery
//! above all. Each is a segment of its own to everything else: scoreboard, windows, pacing.

use std::num::NonZeroU16;

use flextcp_nic::seq::SeqNum;
use flextcp_nic::time::Instant;
use flextcp_nic::wire::{SegmentRepr, TcpFlags};

use super::EngineConfig;
use super::conn::Conn;
use super::send::Plan;

/// What the segments of a train are.
#[derive(Clone, Copy, Debug)]
enum Load {
    New,
    Again,
}

impl Conn {
    /// The next segment as [`poll_transmit`](Self::poll_transmit), and as many of its size behind it as fit `most` bytes; the
    /// last may be shorter.
    pub(super) fn poll_train(
        &mut self,
        now: Instant,
        config: &EngineConfig,
        most: u32,
    ) -> Option<Plan> {
        let sent_before = self.snd.nxt;
        let mut train = self.poll_transmit(now, config)?;
        let cut = train.len;
        let load = if self.snd.nxt == sent_before {
            Load::Again
        } else {
            Load::New
        };
        while train.len.is_multiple_of(cut.max(1))
            && train.len + cut <= most
            && self.may_follow(load, &train.segment, train.segment.seq + train.len, cut)
        {
            let Some(next) = self.poll_follower(now, load) else {
                break;
            };
            self.counters.segs_out += 1;
            // The newest window and the push of the last segment; the port copies the header to each.
            train.segment = SegmentRepr {
                seq: train.segment.seq,
                ..next.segment
            };
            train.len += next.len;
        }
        if train.len > cut {
            train.cut = u16::try_from(cut).ok().and_then(NonZeroU16::new);
        }
        Some(train)
    }

    /// Whether the segment that is sent next starts at `end`, is no larger than `cut`, and differs from the one before it, which
    /// has `header`, in nothing that the port would not give it.
    fn may_follow(&self, load: Load, header: &SegmentRepr, end: SeqNum, cut: u32) -> bool {
        let marks = TcpFlags::FIN | TcpFlags::SYN | TcpFlags::RST | TcpFlags::CWR;
        let alike = cut > 0
            && !header.flags.intersects(marks)
            && self.rcv.reassembly.is_empty()
            && self.rcv.dsack.is_none()
            && !self.recovery.probe_due
            && !self.recovery.send_new
            && self.path_mtu.limit().is_none();
        alike
            && match load {
                Load::New => {
                    let room = (self.snd.una + self.snd.wnd).since(self.snd.nxt);
                    let unsent = self.unsent();
                    end == self.snd.nxt
                        && cut == self.payload_limit()
                        && self.board.lost_bytes() == 0
                        && room >= unsent.min(cut)
                        && (unsent > cut || unsent > 0 && !self.fin_due())
                }
                Load::Again => self.board.has_lost(end, cut, self.snd.end),
            }
    }

    fn poll_follower(&mut self, now: Instant, load: Load) -> Option<Plan> {
        let rate = self.congestion.pacing_rate;
        if self.pace.blocked(now, rate).is_some() {
            return None;
        }
        let next = match load {
            Load::New => self.poll_data(now),
            Load::Again => self.poll_retransmission(now),
        }?;
        self.pace.sent(now, rate, next.len);
        Some(next)
    }
}
