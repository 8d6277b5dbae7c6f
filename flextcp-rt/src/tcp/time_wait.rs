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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use flextcp_nic::wire::{MacAddr, TcpHeader, TcpOptions};

    use super::*;

    const NEXT: SeqNum = SeqNum(1_000);
    const RECENT: u32 = 500;
    const REUSE: Verdict = Verdict::Reuse {
        isn: SeqNum(9_000 + 65_537),
    };

    /// What a segment that starts `seq` bytes from RCV.NXT with TSval `ts` from TS.Recent does.
    fn verdict(flags: TcpFlags, seq: i32, ts: Option<i32>, payload_len: usize) -> Verdict {
        let address = Ipv4Addr::LOCALHOST.into();
        let tuple = FlowTuple {
            local: (address, 1),
            remote: (address, 2),
        };
        let link = Link {
            local_mac: MacAddr::ZERO,
            remote_mac: MacAddr::ZERO,
            mtu: 1500,
        };
        let entry = TimeWait {
            tuple,
            link,
            snd_nxt: SeqNum(9_000),
            rcv_nxt: NEXT,
            rcv_wnd: 100,
            rcv_wscale: WindowScale::ZERO,
            ts_recent: Some(RECENT),
            ts_offset: 0,
            ttl: 64,
            tos: 0,
            expires: Instant::ZERO,
            since: Instant::ZERO,
            last_ack_sent: None,
        };
        let options = ts.map_or_else(TcpOptions::default, |ts| {
            TcpOptions::with_timestamps(RECENT.wrapping_add_signed(ts), 0)
        });
        entry.on_segment(&TcpPacket {
            src_mac: MacAddr::ZERO,
            dst_mac: MacAddr::ZERO,
            tuple,
            tos: 0,
            ttl: 64,
            ip_options: false,
            tcp: TcpHeader {
                src_port: 2,
                dst_port: 1,
                seq: NEXT + seq as u32,
                ack: SeqNum(9_000),
                flags,
                window: 100,
                urgent: 0,
                options,
            },
            payload_offset: 0,
            payload_len,
        })
    }

    const AGAIN: Verdict = Verdict::Ack { restart: false };

    /// RFC 6191, section 2, as Linux's `tcp_timewait_state_process`: one of the two has to be larger, and the timestamp not
    /// smaller.
    #[test]
    fn a_syn_begins_anew_with_a_larger_number_or_a_later_timestamp() {
        let syn = |seq, ts| verdict(TcpFlags::SYN, seq, ts, 0);
        for (seq, ts) in [
            (1, None),
            (1, Some(0)),
            (1, Some(1)),
            (0, Some(1)),
            (-500, Some(1)),
        ] {
            assert_eq!(syn(seq, ts), REUSE, "{seq} {ts:?}");
        }
        for (seq, ts) in [
            (0, None),
            (-500, None),
            (0, Some(0)),
            (-500, Some(0)),
            (1, Some(-1)),
        ] {
            assert_eq!(syn(seq, ts), AGAIN, "{seq} {ts:?}");
        }
        assert_eq!(verdict(TcpFlags::SYN | TcpFlags::ACK, 1, Some(1), 0), AGAIN);
    }

    /// RFC 9293, section 3.10.7.4, and PAWS: what is old restarts nothing and ends nothing, but hears where we are.
    #[test]
    fn old_segments_neither_end_nor_restart_the_wait() {
        let rst = |seq, ts| verdict(TcpFlags::RST, seq, ts, 0);
        assert_eq!(
            (rst(0, None), rst(0, Some(0))),
            (Verdict::End, Verdict::End)
        );
        for (seq, ts) in [(-1, None), (1, None), (0, Some(-1))] {
            assert_eq!(rst(seq, ts), Verdict::Drop, "{seq} {ts:?}");
        }
        let fin = |ts| verdict(TcpFlags::FIN | TcpFlags::ACK, -1, ts, 0);
        for ts in [None, Some(0), Some(1)] {
            assert_eq!(fin(ts), Verdict::Ack { restart: true });
        }
        assert_eq!(fin(Some(-1)), AGAIN);
        let ack = |seq, ts, len| verdict(TcpFlags::ACK, seq, ts, len);
        assert_eq!(
            ack(0, Some(0), 0),
            Verdict::Drop,
            "two that wait would go on for ever"
        );
        assert_eq!(ack(0, Some(-1), 0), AGAIN);
        assert_eq!((ack(-1, None, 0), ack(0, None, 1)), (AGAIN, AGAIN));
    }
}
