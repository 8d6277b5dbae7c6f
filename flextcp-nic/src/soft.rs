//! The software NIC: steering, fast path and pacing over a [`Port`], run inline by the owner of the queue.
//!
//! | module | concern |
//! |---|---|
//! | `flow` | a slot of the flow table, and what of it the host has still to be told |
//! | `receive` | frames in: the fast path, or an exception |
//! | `transmit` | data and ACKs out, when [`Nic::flush`] comes |
//! | `owners` | the addresses whose frames are ours, and for what |
//! | [`filter`] | whose frames are refused |

pub mod filter;
mod flow;
pub(crate) mod owners;
mod receive;
#[cfg(test)]
mod tests;
mod transmit;

use core::time::Duration;
use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;

use self::filter::Filter;
use self::flow::Flow;
use self::owners::Owned;
use self::transmit::Queues;
use crate::fast::rx::{self, RecvSizes};
use crate::flow::{FlowId, FlowState, FlowTuple, Token, flags};
use crate::nic::{
    Armed, Capabilities, Claim, FlowBuffers, FlowProgress, InstallError, InstallErrorKind, Limits,
    Nic, NicCounters, Returned, Sink, StaleFlow,
};
use crate::port::{Port, PortFull, PortInfo, TxFrame};
use crate::steer::{FlowKey, FlowTable, Steering};
use crate::time::{Instant, earlier};

/// What a software NIC is set up with.
#[derive(Clone, Debug)]
pub struct SoftConfig {
    /// Key of the flow table's hash: random, and nobody else's.
    pub secret: [u8; 16],
    /// Largest number of installed flows.
    pub max_flows: u32,
    /// How long an ACK may wait for company. Linux: 40 ms.
    pub delayed_ack: Duration,
    /// Sizes of receive rings.
    pub recv_sizes: RecvSizes,
    /// Bytes that one flow may send before the next one has its turn.
    pub quantum: u32,
    /// Bytes that one flush may send before it looks at what arrived: a burst of a whole window would find its own
    /// acknowledgments late, and the receiver's queue full.
    pub flush_budget: u32,
    /// How long empty rings keep their memory.
    pub idle_release: Duration,
    /// Whose frames are refused.
    pub filter: Filter,
}

impl SoftConfig {
    /// The defaults, with a secret.
    pub fn new(secret: [u8; 16]) -> Self {
        Self {
            secret,
            max_flows: 1 << 22,
            delayed_ack: Duration::from_millis(40),
            recv_sizes: RecvSizes {
                first: 64 << 10,
                max: 4 << 20,
            },
            quantum: 64 << 10,
            flush_budget: 256 << 10,
            idle_release: Duration::from_secs(1),
            filter: Filter::default(),
        }
    }
}

/// The software NIC of one queue.
pub struct SoftNic {
    port: Box<dyn Port>,
    core: Core,
}

/// Everything but the port, so that frames can be handled while the port is lent out.
struct Core {
    capabilities: Capabilities,
    steering: Box<dyn Steering>,
    table: FlowTable<Flow>,
    queues: Queues,
    /// Flows with a notification to deliver.
    dirty: Vec<FlowId>,
    /// Flows that go back to the host without a frame.
    returns: Vec<FlowId>,
    /// Flows punted in the poll that runs: their further frames are known to be the host's.
    punted: Vec<FlowKey>,
    /// Rings that may be idle, by the time to look.
    idle: VecDeque<(Instant, FlowId)>,
    owned: Owned,
    excluded: HashSet<FlowTuple>,
    counters: NicCounters,
    config: SoftConfig,
}

impl SoftNic {
    /// A software NIC over `port`; `steering` decides which frames reach it.
    pub fn new(port: Box<dyn Port>, steering: Box<dyn Steering>, config: SoftConfig) -> Self {
        let capabilities = Capabilities {
            kind: "software",
            port: port.info().clone(),
            max_flows: config.max_flows,
        };
        let core = Core {
            capabilities,
            steering,
            table: FlowTable::new(config.secret, config.max_flows),
            queues: Queues::default(),
            dirty: Vec::new(),
            returns: Vec::new(),
            punted: Vec::new(),
            idle: VecDeque::new(),
            owned: Owned::default(),
            excluded: HashSet::new(),
            counters: NicCounters::default(),
            config,
        };
        Self { port, core }
    }

    /// The port below.
    pub fn port(&self) -> &dyn Port {
        &*self.port
    }

    /// Replaces the filter. Flows that are installed are not asked again.
    pub fn set_filter(&mut self, filter: Filter) {
        self.core.config.filter = filter;
    }
}

impl Core {
    fn port_info(&self) -> &PortInfo {
        &self.capabilities.port
    }

    /// Whether a filter keeps a segment of no installed flow out.
    fn refuses(&self, tuple: &FlowTuple) -> bool {
        !self.config.filter.allows(tuple) && !self.owned.only_connects(tuple.local_addr())
    }

    /// Takes a flow out of the table, for the host.
    fn release(&mut self, id: FlowId) -> Option<Returned> {
        let flow = self.table.remove(id)?;
        self.steering.removed(&flow.state.tuple());
        Some(flow.into_returned())
    }

    /// Sees to it that the flow's rings are looked at once they may be idle.
    fn touch(&mut self, id: FlowId, now: Instant) {
        if let Some(flow) = self.table.get_mut(id) {
            flow.active = now;
            if !flow.watched {
                flow.watched = true;
                self.idle.push_back((now + self.config.idle_release, id));
            }
        }
    }

    /// Gives the memory of idle rings back.
    fn release_idle(&mut self, now: Instant) {
        while let Some(&(at, id)) = self.idle.front().filter(|(at, _)| *at <= now) {
            self.idle.pop_front();
            let Some(flow) = self.table.get_mut(id) else {
                continue;
            };
            let due = flow.active + self.config.idle_release;
            let idle = due <= at && {
                let recv = flow.buffers.recv.release_if_empty();
                flow.buffers.send.release_if_empty() && recv
            };
            flow.watched = !idle;
            if !idle {
                let next = due.max(now + self.config.idle_release);
                self.idle.push_back((next, id));
            }
        }
    }
}

impl Nic for SoftNic {
    fn capabilities(&self) -> &Capabilities {
        &self.core.capabilities
    }

    fn poll(&mut self, now: Instant, budget: usize, sink: &mut dyn Sink) -> io::Result<usize> {
        let Self { port, core } = self;
        core.punted.clear();
        core.deliver_returns(sink);
        let result = port.receive(now, budget, &mut |frame| core.frame(now, frame, sink));
        core.notify_all(sink);
        result
    }

    fn doorbell(&mut self, now: Instant, id: FlowId) -> Result<(), StaleFlow> {
        let core = &mut self.core;
        let Some(flow) = core.table.get_mut(id) else {
            core.counters.bad_doorbells += 1;
            return Err(StaleFlow);
        };
        let sizes = core.config.recv_sizes;
        if rx::freed(
            &mut flow.state,
            &mut flow.local,
            &mut flow.buffers.recv,
            now,
            sizes,
        ) {
            core.queues.want_ack(id, flow);
        }
        if flow.take_written() > 0 {
            core.queues.want_send(id, flow);
        }
        core.touch(id, now);
        Ok(())
    }

    fn transmit(&mut self, now: Instant, frame: TxFrame<'_>) -> Result<(), PortFull> {
        self.port.transmit(now, frame)?;
        let slow = &mut self.core.counters.slow;
        slow.frames_out += 1;
        slow.bytes_out += (frame.payload[0].len() + frame.payload[1].len()) as u64;
        Ok(())
    }

    fn flush(&mut self, now: Instant) -> io::Result<()> {
        let Self { port, core } = self;
        core.transmit_all(&mut **port, now)?;
        core.release_idle(now);
        port.flush(now)
    }

    fn resume(&mut self, now: Instant) -> io::Result<()> {
        let Self { port, core } = self;
        core.transmit_opened(&mut **port, now)?;
        port.flush(now)
    }

    fn poll_at(&self) -> Option<Instant> {
        let core = &self.core;
        let returns = (!core.returns.is_empty()).then_some(Instant::ZERO);
        let idle = core.idle.front().map(|&(at, _)| at);
        let own = earlier(earlier(returns, idle), core.next_transmit());
        earlier(own, self.port.poll_at())
    }

    fn install(
        &mut self,
        now: Instant,
        token: Token,
        state: FlowState,
        buffers: FlowBuffers,
    ) -> Result<FlowId, InstallError> {
        let core = &mut self.core;
        let key = FlowKey::of(&state);
        let tuple = state.tuple();
        let kind = if core.table.find(&key).is_some() {
            Some(InstallErrorKind::Duplicate)
        } else if core.table.is_full() {
            Some(InstallErrorKind::TableFull)
        } else if state.flags & !flags::ALL != 0 || state.in_flight() > buffers.send.len() {
            Some(InstallErrorKind::Unsupported)
        } else {
            None
        };
        if let Some(kind) = kind {
            return Err(InstallError { kind, buffers });
        }
        let id = match core
            .table
            .insert(key, Flow::new(token, state, buffers, now))
        {
            Ok(id) => id,
            Err(flow) => {
                let buffers = flow.buffers;
                return Err(InstallError {
                    kind: InstallErrorKind::TableFull,
                    buffers,
                });
            }
        };
        core.counters.installed += 1;
        core.steering.installed(&tuple);
        if let Some(flow) = core.table.get_mut(id) {
            flow.take_written();
            core.queues.want_send(id, flow);
            core.queues.want_ack(id, flow);
        }
        core.touch(id, now);
        Ok(id)
    }

    fn claim(&mut self, _now: Instant, flow: FlowId) -> Result<Claim, StaleFlow> {
        let returned = self.core.release(flow).ok_or(StaleFlow)?;
        self.core.counters.claimed += 1;
        Ok(Claim::Done(returned))
    }

    fn set_limits(&mut self, id: FlowId, limits: Limits) -> Result<(), StaleFlow> {
        let core = &mut self.core;
        let flow = core.table.get_mut(id).ok_or(StaleFlow)?;
        // RFC 3168, section 6.1.2: the first new segment after the window was reduced because of ECE says so.
        if flow.local.ece_seen && limits.cwnd < flow.state.cwnd {
            flow.local.ece_seen = false;
            flow.state.set(flags::CWR, true);
        }
        flow.state.cwnd = limits.cwnd;
        flow.state.pacing_rate = limits.pacing_rate;
        core.queues.want_send(id, flow);
        Ok(())
    }

    fn progress(&self, flow: FlowId) -> Result<FlowProgress, StaleFlow> {
        let flow = self.core.table.get(flow).ok_or(StaleFlow)?;
        Ok(FlowProgress {
            state: flow.state,
            outstanding_since: flow.local.outstanding_since,
        })
    }

    fn listen(&mut self, local: SocketAddr) -> io::Result<()> {
        let Core {
            owned, steering, ..
        } = &mut self.core;
        owned.take(local, |o| &mut o.listeners, || steering.own(local))
    }

    fn unlisten(&mut self, local: SocketAddr) -> io::Result<()> {
        let Core {
            owned, steering, ..
        } = &mut self.core;
        owned.give_back(local, |o| &mut o.listeners, || steering.disown(local))
    }

    fn own(&mut self, local: SocketAddr) -> io::Result<()> {
        let Core {
            owned, steering, ..
        } = &mut self.core;
        owned.take(local, |o| &mut o.connections, || steering.own(local))
    }

    fn disown(&mut self, local: SocketAddr) -> io::Result<()> {
        let Core {
            owned, steering, ..
        } = &mut self.core;
        owned.give_back(local, |o| &mut o.connections, || steering.disown(local))
    }

    fn own_flow(&mut self, tuple: FlowTuple) -> io::Result<()> {
        self.core.steering.own_flow(tuple)?;
        self.core.owned.take_flow(tuple.local_addr());
        Ok(())
    }

    fn disown_flow(&mut self, tuple: FlowTuple) -> io::Result<()> {
        self.core.owned.give_flow_back(tuple.local_addr());
        self.core.steering.disown_flow(tuple)
    }

    fn exclude(&mut self, tuple: FlowTuple) -> io::Result<()> {
        if !self.core.excluded.contains(&tuple) {
            self.core.steering.exclude(tuple)?;
            self.core.excluded.insert(tuple);
        }
        Ok(())
    }

    fn include(&mut self, tuple: FlowTuple) -> io::Result<()> {
        if self.core.excluded.remove(&tuple) {
            self.core.steering.include(tuple)?;
        }
        Ok(())
    }

    fn serves(&self, address: IpAddr) -> bool {
        self.core.steering.serves(address)
    }

    fn arm(&mut self) -> io::Result<Armed> {
        if !self.core.returns.is_empty() {
            return Ok(Armed::Pending);
        }
        Ok(if self.port.arm()? {
            Armed::Armed
        } else {
            Armed::Pending
        })
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        self.port.wake_fd()
    }

    fn counters(&self) -> NicCounters {
        NicCounters {
            port: self.port.counters(),
            ..self.core.counters
        }
    }
}

impl fmt::Debug for SoftNic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SoftNic")
            .field("port", &self.port)
            .field("flows", &self.core.table.len())
            .finish_non_exhaustive()
    }
}
