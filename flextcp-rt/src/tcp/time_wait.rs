//! TIME_WAIT as a table of small entries: a connection that waits out old duplicates keeps no buffers.

use std::collections::BTreeSet;

use flextcp_nic::flow::FlowTuple;
use flextcp_nic::seq::{SeqNum, WindowScale};
use flextcp_nic::time::Instant;
use flextcp_nic::wire::{TcpFlags, TcpPacket, Timestamps};
use slab::Slab;

use super::Link;

/// What is left of a connection in TIME_WAIT.
#[derive(Clone, Debug)]
pub(super) struct TimeWait {
    pub(super) tuple: FlowTuple,
    pub(super) link: Link,
    pub(super) snd_nxt: SeqNum,
    pub(super) rcv_nxt: SeqNum,
    pub(super) rcv_wnd: u32,
    pub(super) rcv_wscale: WindowScale,
    /// TS.Recent, when timestamps were negotiated.
    pub(super) ts_recent: Option<u32>,
    pub(super) ts_offset: u32,
    pub(super) ttl: u8,
    pub(super) tos: u8,
    pub(super) expires: Instant,
    /// When it was entered, for active reuse.
    pub(super) since: Instant,
    pub(super) last_ack_sent: Option<Instant>,
}

/// What a segment does to an entry (RFC 9293, section 3.10.7.4; RFC 6191; RFC 1337).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// Nothing.
    Drop,
    /// It is over.
    End,
    /// Acknowledge again; a FIN also restarts the wait.
    Ack { restart: bool },
    /// A new incarnation begins: its ISN must be beyond the old one's space.
    Reuse { isn: SeqNum },
}

impl TimeWait {
    pub(super) fn on_segment(&self, packet: &TcpPacket) -> Verdict {
        let tcp = &packet.tcp;
        let paws_failed = match (self.ts_recent, tcp.options.timestamps) {
            (Some(recent), Some(ts)) => SeqNum(ts.val).before(SeqNum(recent)),
            _ => false,
        };
        // RFC 1337 would ignore it; Linux does not unless told to (`tcp_rfc1337`), and believes the exact number only.
        if tcp.flags.contains(TcpFlags::RST) {
            return match tcp.seq == self.rcv_nxt && !paws_failed {
                true => Verdict::End,
                false => Verdict::Drop,
            };
        }
        if tcp.flags.contains(TcpFlags::SYN) && !tcp.flags.contains(TcpFlags::ACK) {
            let newer = match (self.ts_recent, tcp.options.timestamps) {
                (Some(recent), Some(ts)) => SeqNum(ts.val).after(SeqNum(recent)),
                _ => false,
            };
            // RFC 6191, section 2, as Linux: a larger sequence number does as well as a larger timestamp.
            if !paws_failed && (newer || tcp.seq.after(self.rcv_nxt)) {
                return Verdict::Reuse {
                    isn: self.snd_nxt + 65_537,
                };
            }
        }
        let duplicate = packet.segment_len() == 0 && tcp.seq == self.rcv_nxt;
        if duplicate && !paws_failed {
            return Verdict::Drop;
        }
        Verdict::Ack {
            restart: tcp.flags.contains(TcpFlags::FIN) && !paws_failed,
        }
    }

    pub(super) fn timestamps(&self, now: Instant) -> Option<Timestamps> {
        self.ts_recent.map(|ecr| Timestamps {
            val: (now.as_millis() as u32).wrapping_add(self.ts_offset),
            ecr,
        })
    }
}

/// All entries of an engine, ordered by expiry.
#[derive(Debug, Default)]
pub(super) struct TimeWaitTable {
    entries: Slab<TimeWait>,
    order: BTreeSet<(Instant, u32)>,
}

impl TimeWaitTable {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn insert(&mut self, entry: TimeWait) -> u32 {
        let expires = entry.expires;
        let index = self.entries.insert(entry) as u32;
        self.order.insert((expires, index));
        index
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut TimeWait> {
        self.entries.get_mut(index as usize)
    }

    /// Starts the wait anew.
    pub(super) fn restart(&mut self, index: u32, expires: Instant) {
        if let Some(entry) = self.entries.get_mut(index as usize) {
            self.order.remove(&(entry.expires, index));
            entry.expires = expires;
            self.order.insert((expires, index));
        }
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<TimeWait> {
        let entry = self.entries.try_remove(index as usize)?;
        self.order.remove(&(entry.expires, index));
        Some(entry)
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.order.first().map(|&(at, _)| at)
    }

    /// Removes one entry whose time is over.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<TimeWait> {
        let &(at, index) = self.order.first()?;
        if at > now { None } else { self.remove(index) }
    }

    /// Removes the oldest entry: the table is full.
    pub(super) fn pop_oldest(&mut self) -> Option<TimeWait> {
        let &(_, index) = self.order.first()?;
        self.remove(index)
    }
}
