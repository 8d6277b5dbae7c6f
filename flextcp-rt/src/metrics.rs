//! Statistics of the whole process: what `/stats` of an example prints.
//!
//! Each queue's owner adds its counters to one [`Stats`]; the sum is a snapshot, not a live view. All counters
//! only grow.

mod connections;
mod prometheus;

use std::collections::BTreeMap;

use flextcp_nic::nic::{Capabilities, NicCounters, PathCounters, Reason};
use flextcp_nic::port::PortCounters;
use serde::Serialize;

pub use connections::{ConnectionReport, ConnectionTable};

/// A snapshot. Serialises to JSON with the field names as keys: `nic.kind`, `fast_path.bytes_in`, ...
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Stats {
    /// What serves.
    pub nic: NicStats,
    /// What the NIC's fast path carried.
    pub fast_path: PathStats,
    /// What the engine carried.
    pub slow_path: PathStats,
    /// Frames the fast path passed to the engine, by reason.
    pub exceptions: BTreeMap<&'static str, u64>,
    /// Connections.
    pub connections: ConnectionStats,
    /// Moves of connections between engine and NIC.
    pub offload: OffloadStats,
    /// Loss, as the engine saw and repaired it.
    pub recovery: RecoveryStats,
    /// Frames that went no further.
    pub drops: DropStats,
    /// What forged and flooding peers were answered with.
    pub defence: DefenceStats,
    /// The ports below the NICs.
    pub port: PortStats,
    /// The reactors.
    pub reactor: ReactorCounters,
    /// App buffers.
    pub memory: MemoryStats,
}

/// What serves the process.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct NicStats {
    /// `software`, `nfp`, `nfp-emu`; `kernel` without a NIC, when at most connections within the process are ours.
    pub kind: String,
    /// Open queues.
    pub queues: u32,
    /// Names of the ports, in order, each once.
    pub interfaces: Vec<String>,
    /// Frames that each open queue received.
    pub queue_frames_in: Vec<u64>,
    /// Why there is no NIC, or why an interface is not accelerated.
    pub fallback: Vec<String>,
}

impl Default for NicStats {
    fn default() -> Self {
        Self {
            kind: "kernel".to_owned(),
            queues: 0,
            interfaces: Vec::new(),
            queue_frames_in: Vec::new(),
            fallback: Vec::new(),
        }
    }
}

/// One side of the split.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct PathStats {
    /// Frames in.
    pub frames_in: u64,
    /// Frames out.
    pub frames_out: u64,
    /// TCP payload bytes in.
    pub bytes_in: u64,
    /// TCP payload bytes out.
    pub bytes_out: u64,
    /// Of `frames_out`, pure ACKs; the fast path's only.
    pub acks_out: u64,
}

impl PathStats {
    fn add(&mut self, counters: &PathCounters) {
        self.frames_in += counters.frames_in;
        self.frames_out += counters.frames_out;
        self.bytes_in += counters.bytes_in;
        self.bytes_out += counters.bytes_out;
    }
}

/// Connections: gauges of now, then counters.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct ConnectionStats {
    /// Now owned by a NIC.
    pub offloaded: u64,
    /// Now owned by the engine, in any state but TIME_WAIT.
    pub host: u64,
    /// Now in TIME_WAIT.
    pub time_wait: u64,
    /// Now kernel sockets behind our types.
    pub kernel: u64,
    /// Accepted since the start, over a NIC.
    pub accepted: u64,
    /// Connected since the start, over a NIC.
    pub connected: u64,
    /// Of these two, the connections that a NIC's fast path carried at some time; each counts once.
    pub ever_offloaded: u64,
    /// Accepted or connected since the start, as kernel sockets.
    pub kernel_opened: u64,
    /// Failed after they were established, by reset or time-out.
    pub failed: u64,
}

/// Moves between engine and NIC.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct OffloadStats {
    /// Installed on the NIC.
    pub installed: u64,
    /// Came back with an exception.
    pub punted: u64,
    /// Taken back by the engine.
    pub claimed: u64,
}

/// Loss and its repair.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct RecoveryStats {
    /// Segments sent again.
    pub retransmitted: u64,
    /// Retransmission time-outs.
    pub timeouts: u64,
    /// Recoveries entered by duplicate ACKs.
    pub fast_recoveries: u64,
    /// Tail loss probes (RFC 8985, section 7).
    pub tail_probes: u64,
    /// Reductions of the window that were taken back, as nothing was lost.
    pub undone: u64,
    /// Segments that arrived out of order and were kept.
    pub out_of_order: u64,
    /// Probes of a window that is shut, and segments cut to one that is too small.
    pub window_probes: u64,
}

/// Frames that went no further.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct DropStats {
    /// Malformed headers.
    pub malformed: u64,
    /// Wrong checksums.
    pub bad_checksum: u64,
    /// Refused by a filter.
    pub filtered: u64,
    /// SYNs and handshakes that found a full queue.
    pub listen_overflow: u64,
    /// Segments the engine discarded: outside the window, or old (PAWS).
    pub unacceptable: u64,
    /// Data for which there was no memory.
    pub out_of_memory: u64,
    /// Dropped by a port or the kernel below it.
    pub port: u64,
    /// Doorbells a NIC refused.
    pub bad_doorbells: u64,
}

/// What forged and flooding peers were answered with.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct DefenceStats {
    /// SYN-ACKs sent as cookies, because the SYN queue was full.
    pub syn_cookies_sent: u64,
    /// Connections made from the ACK of a cookie.
    pub syn_cookies_accepted: u64,
    /// ACKs at a listener that were no cookie of ours.
    pub syn_cookies_failed: u64,
    /// Challenge ACKs sent (RFC 5961).
    pub challenge_acks: u64,
    /// Challenge ACKs and ACKs of unacceptable segments that a rate limit held back.
    pub acks_held_back: u64,
}

/// The ports below the NICs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct PortStats {
    /// Frames received.
    pub frames_in: u64,
    /// Frames sent.
    pub frames_out: u64,
    /// Bytes received, headers included.
    pub bytes_in: u64,
    /// Bytes sent, headers included.
    pub bytes_out: u64,
    /// Transmit ring found full.
    pub tx_full: u64,
    /// Wake-up system calls.
    pub kicks: u64,
}

/// App buffers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct MemoryStats {
    /// Bytes in rings.
    pub used: u64,
    /// Bytes allowed.
    pub limit: u64,
}

/// Counters of one engine; they only grow, but for the gauges.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct EngineCounters {
    /// Gauge: connections the engine owns, TIME_WAIT not among them.
    pub host_owned: u64,
    /// Gauge: connections on the NIC.
    pub offloaded: u64,
    /// Gauge: connections in TIME_WAIT.
    pub time_wait: u64,
    /// Handshakes completed as the passive side.
    pub accepted: u64,
    /// Handshakes completed as the active side.
    pub connected: u64,
    /// Connections that were on the NIC at least once.
    pub ever_offloaded: u64,
    /// Established connections that ended in a reset or a time-out.
    pub failed: u64,
    /// Loss and its repair.
    pub recovery: RecoveryStats,
    /// SYNs and handshakes that found a full queue.
    pub listen_overflow: u64,
    /// Segments discarded: outside the window, or old (PAWS).
    pub unacceptable: u64,
    /// Data for which there was no memory.
    pub out_of_memory: u64,
    /// What forged and flooding peers were answered with.
    pub defence: DefenceStats,
}

/// Counters of reactors; they only grow.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct ReactorCounters {
    /// Turns that found work.
    pub busy_turns: u64,
    /// Turns that found none.
    pub idle_turns: u64,
    /// Sleeps on the port's descriptor.
    pub sleeps: u64,
    /// Turns that the guard thread ran because a runtime did not.
    pub guard_turns: u64,
    /// Frames given to the core of another queue, where their connection lives.
    pub handed_over: u64,
}

impl Stats {
    /// Statistics with every reason of an exception present, at zero.
    pub fn new() -> Self {
        let exceptions = Reason::ALL
            .iter()
            .map(|reason| (reason.name(), 0))
            .collect();
        Self {
            exceptions,
            ..Self::default()
        }
    }

    /// The counters as JSON.
    pub fn to_json(&self) -> String {
        // Maps with text for keys, and numbers: nothing that JSON does not have.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Adds one NIC queue; `hairpin`: it reaches nothing outside of the process.
    pub fn add_queue(
        &mut self,
        capabilities: &Capabilities,
        counters: &NicCounters,
        hairpin: bool,
    ) {
        if !hairpin {
            capabilities.kind.clone_into(&mut self.nic.kind);
        }
        self.nic.queues += 1;
        self.nic.queue_frames_in.push(counters.port.rx_frames);
        if !self.nic.interfaces.contains(&capabilities.port.name) {
            self.nic.interfaces.push(capabilities.port.name.clone());
        }
        self.fast_path.add(&counters.fast);
        self.fast_path.acks_out += counters.fast_acks_out;
        self.slow_path.add(&counters.slow);
        for (reason, count) in Reason::ALL.iter().zip(&counters.exceptions) {
            *self.exceptions.entry(reason.name()).or_default() += count;
        }
        self.offload.installed += counters.installed;
        self.offload.punted += counters.punted;
        self.offload.claimed += counters.claimed;
        self.drops.malformed += counters.malformed;
        self.drops.bad_checksum += counters.bad_checksum;
        self.drops.filtered += counters.filtered;
        self.drops.bad_doorbells += counters.bad_doorbells;
        self.add_port(&counters.port);
    }

    fn add_port(&mut self, counters: &PortCounters) {
        self.port.frames_in += counters.rx_frames;
        self.port.frames_out += counters.tx_frames;
        self.port.bytes_in += counters.rx_bytes;
        self.port.bytes_out += counters.tx_bytes;
        self.port.tx_full += counters.tx_full;
        self.port.kicks += counters.kicks;
        self.drops.port += counters.rx_dropped;
    }

    /// Adds one engine.
    pub fn add_engine(&mut self, counters: &EngineCounters) {
        self.connections.offloaded += counters.offloaded;
        self.connections.host += counters.host_owned;
        self.connections.time_wait += counters.time_wait;
        self.connections.accepted += counters.accepted;
        self.connections.connected += counters.connected;
        self.connections.ever_offloaded += counters.ever_offloaded;
        self.connections.failed += counters.failed;
        self.recovery.retransmitted += counters.recovery.retransmitted;
        self.recovery.timeouts += counters.recovery.timeouts;
        self.recovery.fast_recoveries += counters.recovery.fast_recoveries;
        self.recovery.tail_probes += counters.recovery.tail_probes;
        self.recovery.undone += counters.recovery.undone;
        self.recovery.out_of_order += counters.recovery.out_of_order;
        self.recovery.window_probes += counters.recovery.window_probes;
        self.drops.listen_overflow += counters.listen_overflow;
        self.drops.unacceptable += counters.unacceptable;
        self.drops.out_of_memory += counters.out_of_memory;
        let defence = &counters.defence;
        self.defence.syn_cookies_sent += defence.syn_cookies_sent;
        self.defence.syn_cookies_accepted += defence.syn_cookies_accepted;
        self.defence.syn_cookies_failed += defence.syn_cookies_failed;
        self.defence.challenge_acks += defence.challenge_acks;
        self.defence.acks_held_back += defence.acks_held_back;
    }

    /// Adds one reactor.
    pub fn add_reactor(&mut self, counters: &ReactorCounters) {
        self.reactor.busy_turns += counters.busy_turns;
        self.reactor.idle_turns += counters.idle_turns;
        self.reactor.sleeps += counters.sleeps;
        self.reactor.guard_turns += counters.guard_turns;
        self.reactor.handed_over += counters.handed_over;
    }

    /// Adds a pool of app buffers.
    pub fn add_memory(&mut self, used: u64, limit: u64) {
        self.memory.used += used;
        self.memory.limit += limit;
    }
}

#[cfg(test)]
mod tests {
    use flextcp_nic::port::PortInfo;
    use flextcp_nic::wire::MacAddr;

    use super::*;

    fn queue(name: &str) -> Capabilities {
        let port = PortInfo {
            name: name.to_owned(),
            ifindex: 1,
            mac: MacAddr::default(),
            mtu: 1500,
            tx_checksum: false,
            tx_segment_max: None,
        };
        Capabilities {
            kind: "software",
            port,
            max_flows: 16,
        }
    }

    fn path(n: u64) -> PathCounters {
        PathCounters {
            frames_in: n,
            frames_out: n + 1,
            bytes_in: n * 10,
            bytes_out: n * 20,
        }
    }

    #[test]
    fn queues_and_engines_sum() {
        let mut counters = NicCounters {
            fast: path(5),
            slow: path(7),
            fast_acks_out: 3,
            bad_checksum: 2,
            ..NicCounters::default()
        };
        counters.exceptions[1] = 9;
        let mut stats = Stats::new();
        stats.add_queue(&queue("xdp:lo/0"), &counters, true);
        assert_eq!(stats.nic.kind, "kernel");
        stats.add_queue(&queue("xdp:lo/0"), &counters, false);
        assert_eq!(stats.nic.kind, "software");
        stats.add_engine(&EngineCounters {
            accepted: 4,
            offloaded: 1,
            ever_offloaded: 3,
            ..EngineCounters::default()
        });
        stats.add_memory(10, 100);

        assert_eq!(stats.nic.queues, 2);
        assert_eq!(stats.nic.interfaces, ["xdp:lo/0"]);
        assert_eq!(
            (stats.fast_path.bytes_in, stats.fast_path.acks_out),
            (100, 6)
        );
        assert_eq!(
            (stats.slow_path.frames_out, stats.slow_path.bytes_out),
            (16, 280)
        );
        assert_eq!(stats.exceptions[Reason::ALL[1].name()], 18);
        assert_eq!(stats.exceptions.len(), Reason::ALL.len());
        assert_eq!(
            (stats.connections.accepted, stats.connections.offloaded),
            (4, 1)
        );
        assert_eq!(stats.connections.ever_offloaded, 3);
        assert_eq!(stats.drops.bad_checksum, 4);
    }

    #[test]
    fn json_has_the_promised_keys() {
        let json = serde_json::to_value(Stats::new()).unwrap();
        assert_eq!(json["nic"]["kind"], "kernel");
        for path in ["fast_path", "slow_path"] {
            for key in ["frames_in", "frames_out", "bytes_in", "bytes_out"] {
                assert_eq!(json[path][key], 0, "{path}.{key}");
            }
        }
        assert_eq!(json["exceptions"]["no_flow"], 0);
        assert_eq!(json["connections"]["offloaded"], 0);
    }
}
