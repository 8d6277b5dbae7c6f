//! Frames out: what doorbells asked for, round robin over the flows, and the ACKs that no data carried.

use std::collections::VecDeque;
use std::io;
use std::num::NonZeroU16;

use super::{Core, Flow, Instant};
use crate::fast::ack::{self, Due, EarlyAck};
use crate::fast::tx::{self, Wait};
use crate::flow::{FlowId, FlowState};
use crate::pace::Wheel;
use crate::port::{Port, PortInfo, TxFrame, TxOffload};
use crate::time::earlier;
use crate::wire::{MAX_HEADER_LEN, SegmentRepr};

/// On a path this short a part of a super-frame costs more than the time until it is whole.
const SHORT_PATH_MICROS: u32 = 1000;

/// Flows that wait for something to be sent. A stale id in a queue is skipped when its turn comes.
#[derive(Debug, Default)]
pub(super) struct Queues {
    /// With data that may be sendable.
    ready: VecDeque<FlowId>,
    /// With an ACK or a window update to consider.
    acks: Vec<FlowId>,
    /// With a delayed ACK, in order of deadline as the delay is the same for all.
    delayed: VecDeque<(Instant, FlowId)>,
    /// Held back by their pacing rate.
    paced: Wheel<FlowId>,
    pub(super) early_acks: Vec<(FlowId, EarlyAck)>,
}

impl Queues {
    pub(super) fn want_send(&mut self, id: FlowId, flow: &mut Flow) {
        if !flow.send_queued && flow.state.unsent() > 0 {
            flow.send_queued = true;
            self.ready.push_back(id);
        }
    }

    pub(super) fn want_ack(&mut self, id: FlowId, flow: &mut Flow) {
        if !flow.ack_queued {
            flow.ack_queued = true;
            self.acks.push(id);
        }
    }
}

/// How far a flow came in its turn.
enum Turn {
    /// Nothing more to send now.
    Done,
    /// The quantum is used up.
    More,
    /// It may go on at that time.
    Paced(Instant),
    /// The peer's window is shut and nothing will open it: the slow path must probe.
    Stalled,
    /// What it may send is no full segment.
    Short,
    /// The port takes no more.
    PortFull,
}

/// What is worth sending.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Least {
    Anything,
    FullSegment,
}

impl Core {
    /// Sends what may be sent. What the port does not take, or the budget does not cover, stays queued.
    pub(super) fn transmit_all(&mut self, port: &mut dyn Port, now: Instant) -> io::Result<()> {
        let Self { queues, .. } = self;
        let ready = &mut queues.ready;
        queues.paced.expire(now, |id| ready.push_back(id));
        self.send_early_acks(port, now)?;
        self.send_data(port, now, Least::Anything)?;
        self.send_acks(port, now)
    }

    /// Sends the full segments of flows whose window was opened, and ACKs of so much that a reply which carried one would save
    /// little. What is shorter may grow before the next flush.
    pub(super) fn transmit_opened(&mut self, port: &mut dyn Port, now: Instant) -> io::Result<()> {
        if self.queues.ready.is_empty() && self.queues.acks.is_empty() {
            return Ok(());
        }
        self.send_early_acks(port, now)?;
        self.send_data(port, now, Least::FullSegment)?;
        self.send_due_acks(port, now, |flow| {
            let owed = flow.state.rcv_nxt().since(flow.state.last_ack_sent());
            owed >= ack::BULK && ack::due(&flow.state, &flow.local) == Due::Now
        })
    }

    fn send_data(&mut self, port: &mut dyn Port, now: Instant, least: Least) -> io::Result<()> {
        let budget = u64::from(self.config.flush_budget);
        let end = self.counters.fast.bytes_out + budget;
        let mut held = 0;
        while self.counters.fast.bytes_out < end
            && self.queues.ready.len() > held
            && let Some(id) = self.queues.ready.pop_front()
        {
            match self.turn(port, now, id, least)? {
                Turn::Done => {}
                Turn::More => self.queues.ready.push_back(id),
                Turn::Paced(at) => self.queues.paced.insert(at, id),
                Turn::Stalled => self.returns.push(id),
                Turn::Short => {
                    self.queues.ready.push_back(id);
                    held += 1;
                }
                Turn::PortFull => {
                    self.queues.ready.push_front(id);
                    break;
                }
            }
        }
        Ok(())
    }

    /// When [`transmit_all`](Self::transmit_all) next has work.
    pub(super) fn next_transmit(&self) -> Option<Instant> {
        let queues = &self.queues;
        if !queues.ready.is_empty() || !queues.acks.is_empty() {
            return Some(Instant::ZERO);
        }
        let current = |&&(at, id): &&(Instant, FlowId)| {
            self.table
                .get(id)
                .is_some_and(|flow| flow.ack_deadline == Some(at))
        };
        let delayed = queues.delayed.iter().find(current).map(|&(at, _)| at);
        earlier(delayed, queues.paced.next_at())
    }

    /// Lets one flow send up to its quantum.
    fn turn(
        &mut self,
        port: &mut dyn Port,
        now: Instant,
        id: FlowId,
        least: Least,
    ) -> io::Result<Turn> {
        let quantum = self.config.quantum;
        let info = &self.capabilities.port;
        let Some(flow) = self.table.get_mut(id) else {
            return Ok(Turn::Done);
        };
        flow.send_queued = false;
        let super_frame = super_frame_payload(info, flow);
        let capacity = flow.recv_capacity();
        let mut sent = 0;
        loop {
            let segment = match tx::next(&flow.state, super_frame) {
                Ok(segment) if defers(&flow.state, &segment, super_frame) => {
                    flow.note_cwnd_limited();
                    return Ok(Turn::Done);
                }
                Ok(segment) => segment,
                Err(wait) => {
                    if wait == Wait::Cwnd {
                        flow.note_cwnd_limited();
                    }
                    return Ok(if wait == Wait::Stalled {
                        Turn::Stalled
                    } else {
                        Turn::Done
                    });
                }
            };
            if least == Least::FullSegment && segment.len < segment.mss {
                flow.send_queued = true;
                return Ok(Turn::Short);
            }
            if let Some(at) = flow.local.pace.blocked(now, flow.state.pacing_rate) {
                flow.send_queued = true;
                return Ok(Turn::Paced(at));
            }
            if sent >= quantum {
                flow.send_queued = true;
                return Ok(Turn::More);
            }
            let payload = flow.buffers.send.slices(segment.offset, segment.len);
            if flow.buffers.recv.capacity() > 0 {
                flow.state.rcv_free = flow.buffers.recv.offerable();
            }
            let before = flow.state.rcv_adv();
            let header = tx::data_header(&mut flow.state, &segment, info.mac, now, capacity);
            let cut = (segment.len > segment.mss)
                .then(|| NonZeroU16::new(u16::try_from(segment.mss).unwrap_or(u16::MAX)))
                .flatten();
            if !emit(port, now, &header, payload, info.tx_checksum, cut)? {
                flow.state.set_rcv_adv(before);
                flow.send_queued = true;
                return Ok(Turn::PortFull);
            }
            tx::sent(&mut flow.state, &mut flow.local, &segment, now);
            flow.ack_deadline = None;
            sent += segment.len;
            self.counters.fast.frames_out += 1;
            self.counters.fast.bytes_out += u64::from(segment.len);
        }
    }

    fn send_early_acks(&mut self, port: &mut dyn Port, now: Instant) -> io::Result<()> {
        let mac = self.port_info().mac;
        let mut early_acks = std::mem::take(&mut self.queues.early_acks);
        for (id, early) in early_acks.drain(..) {
            let Some(flow) = self.table.get(id) else {
                continue;
            };
            let header = tx::early_ack_header(&flow.state, &early, mac, now);
            // Lost like one on the wire if the port is full: the next ACK covers it.
            if emit(
                port,
                now,
                &header,
                [&[], &[]],
                self.capabilities.port.tx_checksum,
                None,
            )? {
                self.counters.fast.frames_out += 1;
                self.counters.fast_acks_out += 1;
            }
        }
        self.queues.early_acks = early_acks;
        Ok(())
    }

    /// Sends the ACKs that no data carried, or starts their timers.
    fn send_acks(&mut self, port: &mut dyn Port, now: Instant) -> io::Result<()> {
        while let Some(&(at, id)) = self.queues.delayed.front() {
            let flow = self
                .table
                .get_mut(id)
                .filter(|flow| flow.ack_deadline == Some(at));
            if flow.is_some() && at > now {
                break;
            }
            self.queues.delayed.pop_front();
            if let Some(flow) = flow {
                flow.ack_deadline = None;
                ack::overdue(&mut flow.state, &mut flow.local);
                self.queues.want_ack(id, flow);
            }
        }
        self.send_due_acks(port, now, |_| true)
    }

    /// Considers the ACKs that are queued, of flows that are `wanted`.
    fn send_due_acks(
        &mut self,
        port: &mut dyn Port,
        now: Instant,
        wanted: impl Fn(&Flow) -> bool,
    ) -> io::Result<()> {
        let mut acks = std::mem::take(&mut self.queues.acks);
        let mut kept = 0;
        for at in 0..acks.len() {
            let waits = self.table.get(acks[at]).is_some_and(|flow| !wanted(flow));
            if waits || !self.consider_ack(port, now, acks[at])? {
                acks.swap(kept, at);
                kept += 1;
            }
        }
        acks.truncate(kept);
        self.queues.acks = acks;
        Ok(())
    }

    /// Sends an ACK if one is due; returns `false` when the port is full.
    fn consider_ack(&mut self, port: &mut dyn Port, now: Instant, id: FlowId) -> io::Result<bool> {
        let info = &self.capabilities.port;
        let Some(flow) = self.table.get_mut(id) else {
            return Ok(true);
        };
        flow.ack_queued = false;
        if flow.buffers.recv.capacity() > 0 {
            flow.state.rcv_free = flow.buffers.recv.offerable();
        }
        let capacity = flow.recv_capacity();
        let due = ack::due(&flow.state, &flow.local);
        let update = ack::window_update_due(&flow.state, capacity);
        if due != Due::Now && !update {
            if due == Due::Delayed && flow.ack_deadline.is_none() {
                let at = now + self.config.delayed_ack;
                flow.ack_deadline = Some(at);
                self.queues.delayed.push_back((at, id));
            }
            return Ok(true);
        }
        let before = flow.state.rcv_adv();
        let header = tx::ack_header(&mut flow.state, info.mac, now, capacity);
        if !emit(port, now, &header, [&[], &[]], info.tx_checksum, None)? {
            flow.state.set_rcv_adv(before);
            flow.ack_queued = true;
            return Ok(false);
        }
        ack::sent(&mut flow.state, &mut flow.local, false);
        flow.ack_deadline = None;
        self.counters.fast.frames_out += 1;
        self.counters.fast_acks_out += 1;
        Ok(true)
    }
}

/// Whether what the congestion window has room for waits until it has room for a third of itself, or a super-frame (as Linux's
/// `tcp_tso_should_defer`). What goes out in parts is acknowledged in parts, and so it goes on: a window of a few super-frames would
/// become one of many crumbs. The two thirds in flight bring the acknowledgments that end the wait.
fn defers(state: &FlowState, segment: &tx::Segment, super_frame: u32) -> bool {
    let enough = super_frame.min(state.cwnd / 3);
    segment.len < enough
        && segment.len < state.unsent()
        && state.cwnd.saturating_sub(segment.offset) < enough
        && (1..SHORT_PATH_MICROS).contains(&state.rtt_micros)
}

/// Bytes of payload that fit one super-frame; 0 without segmentation offload.
fn super_frame_payload(info: &PortInfo, flow: &Flow) -> u32 {
    let headers = if flow.state.has(crate::flow::flags::IPV6) {
        40
    } else {
        20
    } + 20
        + 12;
    match info.tx_segment_max {
        // The port completes the checksums of what it cuts.
        Some(max) if info.tx_checksum => max.min(u32::from(u16::MAX)).saturating_sub(headers),
        _ => 0,
    }
}

/// Passes a segment to the port, which is flushed once if it is full. Returns whether it was taken.
fn emit(
    port: &mut dyn Port,
    now: Instant,
    header: &SegmentRepr,
    payload: [&[u8]; 2],
    partial_checksum: bool,
    segment: Option<NonZeroU16>,
) -> io::Result<bool> {
    let mut bytes = [0; MAX_HEADER_LEN];
    let len = header.emit(payload, partial_checksum, &mut bytes);
    let offload = TxOffload {
        checksum: partial_checksum,
        segment,
    };
    let frame = TxFrame {
        header: &bytes[..len],
        payload,
        offload,
    };
    if port.transmit(now, frame).is_ok() {
        return Ok(true);
    }
    port.flush(now)?;
    Ok(port.transmit(now, frame).is_ok())
}
