//! Trains of the engine: several segments that follow each other leave it at once, in recovery above all, for the port or the reactor
//! to cut. Each is a segment of its own to everything else: scoreboard, windows, pacing.

use std::num::NonZeroU16;

use flextcp_nic::fast::ack;
use flextcp_nic::seq::SeqNum;
use flextcp_nic::time::Instant;
use flextcp_nic::wire::TcpFlags;

use super::conn::Conn;
use super::send::{Kind, Plan};

impl Conn {
    /// The next segment as [`poll_transmit`](Self::poll_transmit), and as many of its size behind it as fit `most` bytes; the
    /// last may be shorter.
    pub(super) fn poll_train(&mut self, now: Instant, most: u32) -> Option<Plan> {
        let first = self.poll_transmit(now)?;
        Some(self.couple(now, first, most))
    }

    /// The same of what waits for nobody: full segments and what is sent again, as an acknowledgment makes room for them, and
    /// acknowledgments of holes, or of so much that a reply which carried one would save little.
    pub(super) fn poll_opened(&mut self, now: Instant, most: u32) -> Option<Plan> {
        if !self.on_host() || !self.state.is_synchronized() {
            return None;
        }
        let full = self.unsent() >= self.payload_limit();
        let data = full || self.board.lost_bytes() > 0;
        let owed = self.rcv.nxt.since(self.rcv.last_ack_sent);
        let acks = owed >= ack::BULK || !self.rcv.reassembly.is_empty();
        let plan = if data { self.poll_paced(now) } else { None };
        let first = plan.or_else(|| if acks { self.poll_ack() } else { None })?;
        self.counters.segs_out += 1;
        Some(self.couple(now, first, most))
    }

    fn couple(&mut self, now: Instant, mut train: Plan, most: u32) -> Plan {
        let cut = train.len;
        let mut full = true;
        while full
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
            full = next.len == cut;
        }
        if train.len > cut {
            train.cut = u16::try_from(cut).ok().and_then(NonZeroU16::new);
        }
        train
    }

    /// Whether the segment that is sent next starts at `end`, is no larger than `cut`, and differs from the one before it, which
    /// has `flags`, in nothing that the port would not give it.
    fn may_follow(&mut self, kind: Kind, flags: TcpFlags, end: SeqNum, cut: u32) -> bool {
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
