//! Super-frames of the engine: where the port cuts segments, several that follow each other leave as one frame, in recovery
//! above all. Each is a segment of its own to everything else: scoreboard, windows, pacing.

use std::num::NonZeroU16;

use flextcp_nic::seq::SeqNum;
use flextcp_nic::time::Instant;
use flextcp_nic::wire::TcpFlags;

use super::conn::Conn;
use super::send::{Kind, Plan};

impl Conn {
    /// The next segment as [`poll_transmit`](Self::poll_transmit), and as many of its size behind it as fit `most` bytes; the
    /// last may be shorter.
    pub(super) fn poll_train(&mut self, now: Instant, most: u32) -> Option<Plan> {
        let mut train = self.poll_transmit(now)?;
        let cut = train.len;
        while train.len.is_multiple_of(cut.max(1))
            && train.len + cut <= most
            && self.may_follow(train.kind, train.flags, train.seq + train.len, cut)
        {
            let Some(next) = self.poll_follower(now, train.kind) else {
                break;
            };
            self.counters.segs_out += 1;
            // The push of the last segment; the port copies the header to each.
            train.flags = next.flags;
            train.len += next.len;
        }
        if train.len > cut {
            train.cut = u16::try_from(cut).ok().and_then(NonZeroU16::new);
        }
        Some(train)
    }

    /// Whether the segment that is sent next starts at `end`, is no larger than `cut`, and differs from the one before it, which
    /// has `flags`, in nothing that the port would not give it.
    fn may_follow(&self, kind: Kind, flags: TcpFlags, end: SeqNum, cut: u32) -> bool {
        let alike = cut > 0
            && !flags.contains(TcpFlags::FIN)
            && self.rcv.reassembly.is_empty()
            && self.rcv.dsack.is_none()
            && !self.recovery.probe_due
            && !self.recovery.send_new
            && self.path_mtu.limit().is_none();
        alike
            && match kind {
                Kind::Syn | Kind::Ack => false,
                Kind::New => {
                    let room = (self.snd.una + self.snd.wnd).since(self.snd.nxt);
                    let unsent = self.unsent();
                    // The headers of the first say that the window was reduced.
                    let tells = self.negotiated.ecn && self.congestion.cwr_due;
                    end == self.snd.nxt
                        && !tells
                        && cut == self.payload_limit()
                        && self.board.lost_bytes() == 0
                        && room >= unsent.min(cut)
                        && (unsent > cut || unsent > 0 && !self.fin_due())
                }
                Kind::Again => self.board.has_lost(end, cut, self.snd.end),
            }
    }

    fn poll_follower(&mut self, now: Instant, kind: Kind) -> Option<Plan> {
        let rate = self.congestion.pacing_rate;
        if self.pace.blocked(now, rate).is_some() {
            return None;
        }
        let next = match kind {
            Kind::Again => self.poll_retransmission(now),
            _ => self.poll_data(now),
        }?;
        self.pace.sent(now, rate, next.len);
        Some(next)
    }
}
