//! Listeners with Linux's two queues: half-open connections, and those that wait to be accepted.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use flextcp_nic::flow::FlowTuple;
use flextcp_nic::seq::SeqNum;
use flextcp_nic::time::Instant;
use flextcp_nic::wire::{SegmentRepr, TcpFlags, TcpPacket, Timestamps};
use slab::Slab;

use super::conn::Negotiated;
use super::handshake::{advertised_mss, initial_buffer, syn_options, syn_window};
use super::isn::Secret;
use super::{CommandError, ConnId, EngineConfig, Link, ListenerId, syn_cookie};
use crate::options::SocketOptions;

/// A passive connection whose SYN-ACK is not acknowledged: what Linux calls a request socket.
#[derive(Debug)]
pub(super) struct HalfOpen {
    pub(super) tuple: FlowTuple,
    pub(super) link: Link,
    pub(super) listener: ListenerId,
    pub(super) serial: u64,
    pub(super) iss: SeqNum,
    pub(super) irs: SeqNum,
    pub(super) negotiated: Negotiated,
    pub(super) ts_offset: u32,
    pub(super) ts_recent: u32,
    pub(super) mss: u16,
    pub(super) window: u16,
    pub(super) ttl: u8,
    pub(super) tos: u8,
    /// When the SYN-ACK was first sent; a cookie does not remember.
    pub(super) sent_at: Option<Instant>,
    pub(super) retries: u8,
    /// When a repeated SYN or an unacceptable segment was last answered.
    pub(super) last_answer: Option<Instant>,
    pub(super) deadline: Instant,
    pub(super) queued: Option<Instant>,
}

impl HalfOpen {
    /// Whether one more answer is due: peers that repeat themselves get one in a while.
    pub(super) fn answers(&mut self, now: Instant, config: &EngineConfig) -> bool {
        let due = self
            .last_answer
            .is_none_or(|at| at + config.challenge_interval <= now);
        if due {
            self.last_answer = Some(now);
        }
        due
    }

    pub(super) fn syn_ack(&self, now: Instant) -> SegmentRepr {
        let timestamps = self.negotiated.timestamps.then(|| Timestamps {
            val: (now.as_millis() as u32).wrapping_add(self.ts_offset),
            ecr: self.ts_recent,
        });
        let scale = self.negotiated.window_scaling;
        SegmentRepr {
            src_mac: self.link.local_mac,
            dst_mac: self.link.remote_mac,
            tuple: self.tuple,
            tos: self.tos & !3,
            ttl: self.ttl,
            seq: self.iss,
            ack: self.irs + 1,
            flags: TcpFlags::SYN | TcpFlags::ACK | super::ecn::answer(&self.negotiated),
            window: self.window,
            urgent: 0,
            options: syn_options(self.mss, &self.negotiated, scale, timestamps),
        }
    }

    /// The SYN-ACK of a cookie, after which all of this may be forgotten.
    pub(super) fn cookie(&mut self, secret: &Secret, now: Instant) -> SegmentRepr {
        self.negotiated = syn_cookie::restrict(self.negotiated);
        let peer_mss = self.negotiated.peer_mss;
        (self.iss, _) = secret.cookie(&self.tuple, self.irs, peer_mss, now);
        let mut answer = self.syn_ack(now);
        if let Some(timestamps) = &mut answer.options.timestamps {
            let clock = timestamps.val.wrapping_sub(self.ts_offset);
            let stamp = syn_cookie::stamp(clock, &self.negotiated, self.negotiated.ecn);
            timestamps.val = stamp.wrapping_add(self.ts_offset);
        }
        answer
    }

    /// An ACK that repeats the SYN-ACK's numbers: what answers an unacceptable segment.
    pub(super) fn ack(&self, now: Instant) -> SegmentRepr {
        let mut segment = self.syn_ack(now);
        segment.flags = TcpFlags::ACK;
        segment.seq = self.iss + 1;
        let timestamps = segment.options.timestamps;
        segment.options = flextcp_nic::wire::TcpOptions {
            timestamps,
            ..Default::default()
        };
        segment
    }
}

/// What a SYN asks of a listener.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) packet: &'a TcpPacket,
    pub(super) negotiated: Negotiated,
    pub(super) iss: SeqNum,
    pub(super) ts_offset: u32,
}

/// A socket in LISTEN.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) local: SocketAddr,
    pub(super) backlog: u32,
    pub(super) mtu: u32,
    pub(super) options: SocketOptions,
    /// Established and not accepted, oldest first.
    pub(super) accept_queue: VecDeque<ConnId>,
    /// Half-open ones by age: (serial, index).
    pub(super) syn_queue: BTreeSet<(u64, u32)>,
    /// Of these, those whose SYN-ACK was sent once.
    pub(super) young: usize,
    /// When the last cookie was sent: others are not believed for long after.
    pub(super) cookies_since: Option<Instant>,
}

impl Listener {
    /// As Linux's `sk_acceptq_is_full`: one more than the backlog fits.
    pub(super) fn is_full(&self) -> bool {
        self.accept_queue.len() > self.backlog as usize
    }

    /// Whether no further half-open connection is remembered.
    pub(super) fn syn_queue_is_full(&self, config: &EngineConfig) -> bool {
        self.syn_queue.len() >= self.backlog.max(8).min(config.max_syn_backlog) as usize
    }

    /// Whether a cookie was sent so lately that the ACK of one may arrive.
    pub(super) fn expects_cookies(&self, now: Instant) -> bool {
        self.cookies_since
            .is_some_and(|at| at + syn_cookie::VALID > now)
    }

    /// SYN-ACK retransmissions that a half-open connection gets: fewer while old ones fill more than half of the
    /// queue, so that it keeps room for the young (Linux's `reqsk_timer_handler`).
    pub(super) fn synack_retries(&self, config: &EngineConfig) -> u8 {
        let held = self.syn_queue.len();
        let mut retries = config.synack_retries;
        if held * 2 > self.backlog.max(8) as usize {
            let mut young = self.young * 2;
            while retries > 2 && held >= young {
                retries -= 1;
                young *= 2;
            }
        }
        retries
    }

    /// The half-open connection that a SYN begins.
    pub(super) fn half_open(
        &self,
        id: ListenerId,
        now: Instant,
        config: &EngineConfig,
        request: Request<'_>,
    ) -> HalfOpen {
        let Request {
            packet,
            negotiated,
            iss,
            ts_offset,
        } = request;
        HalfOpen {
            tuple: packet.tuple,
            link: Link {
                local_mac: packet.dst_mac,
                remote_mac: packet.src_mac,
                mtu: self.mtu,
            },
            listener: id,
            serial: 0,
            iss,
            irs: packet.tcp.seq,
            negotiated,
            ts_offset,
            ts_recent: packet.tcp.options.timestamps.map_or(0, |ts| ts.val),
            mss: advertised_mss(&packet.tuple, self.mtu, &self.options),
            window: syn_window(initial_buffer(&self.options, config)),
            ttl: self.options.ttl.unwrap_or(config.ttl),
            tos: self.options.tos,
            sent_at: Some(now),
            retries: 0,
            last_answer: None,
            deadline: now + config.rto_initial,
            queued: None,
        }
    }
}

/// All listeners, by address.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    slab: Slab<Listener>,
    by_address: HashMap<(IpAddr, u16), Vec<ListenerId>>,
}

impl Listeners {
    pub(super) fn insert(&mut self, listener: Listener) -> Result<ListenerId, CommandError> {
        let key = (listener.local.ip(), listener.local.port());
        let sharing = self.by_address.entry(key).or_default();
        let shareable = |id: &ListenerId| self.slab[id.0 as usize].options.reuse_port;
        let shared = listener.options.reuse_port && sharing.iter().all(shareable);
        if !(sharing.is_empty() || shared) {
            return Err(CommandError::InUse);
        }
        let id = ListenerId(self.slab.insert(listener) as u32);
        sharing.push(id);
        Ok(id)
    }

    pub(super) fn get(&self, id: ListenerId) -> Option<&Listener> {
        self.slab.get(id.0 as usize)
    }

    pub(super) fn get_mut(&mut self, id: ListenerId) -> Option<&mut Listener> {
        self.slab.get_mut(id.0 as usize)
    }

    pub(super) fn remove(&mut self, id: ListenerId) -> Option<Listener> {
        let listener = self.slab.try_remove(id.0 as usize)?;
        let key = (listener.local.ip(), listener.local.port());
        if let Some(sharing) = self.by_address.get_mut(&key) {
            sharing.retain(|&other| other != id);
            if sharing.is_empty() {
                self.by_address.remove(&key);
            }
        }
        Some(listener)
    }

    /// The listener for a SYN: the address itself, then every address of its family, then `[::]` for IPv4 too.
    /// `hash` of the tuple picks among those that share an address.
    pub(super) fn find(&self, tuple: &FlowTuple, hash: u64) -> Option<ListenerId> {
        let (ip, port) = tuple.local;
        let pick = |ip: IpAddr| {
            let sharing = self.by_address.get(&(ip, port))?;
            Some(sharing[(hash % sharing.len() as u64) as usize])
        };
        pick(ip).or_else(|| match ip {
            IpAddr::V4(v4) => pick(Ipv4Addr::UNSPECIFIED.into()).or_else(|| {
                pick(v4.to_ipv6_mapped().into())
                    .or_else(|| pick(Ipv6Addr::UNSPECIFIED.into()))
                    .filter(|id| !self.slab[id.0 as usize].options.v6only)
            }),
            IpAddr::V6(_) => pick(Ipv6Addr::UNSPECIFIED.into()),
        })
    }
}
