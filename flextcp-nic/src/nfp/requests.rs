//! What the host asks of the card: descriptors, in order, and the doorbell.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::NfpNic;
use super::flows::Flow;
use crate::buffer::Memory;
use crate::flow::fields::ip_words;
use crate::flow::{FlowId, FlowState, FlowTuple, Token, flags};
use crate::nic::{FlowBuffers, FlowProgress, InstallError, InstallErrorKind, StaleFlow};
use crate::port::{PortFull, TxFrame};
use crate::queue::abi::{
    constant, control, descriptor, flow_block, flow_entry, flow_local, flow_status, frame_flag,
    install_flag, listen_flag, local_flag, operation, queue_register,
};
use crate::queue::ring::Descriptor;
use crate::soft::owners::Owners;
use crate::time::Instant;

/// Looks at a flow's entry while the card writes it.
const PROGRESS_TRIES: u32 = 100_000;

const fn low(address: u64) -> u32 {
    address as u32
}

const fn high(address: u64) -> u32 {
    (address >> 32) as u32
}

/// A descriptor about a flow.
fn about(operation: u32, id: FlowId) -> Descriptor {
    Descriptor::new(operation)
        .with(descriptor::FLOW, id.index)
        .with(descriptor::GENERATION, id.generation)
}

/// Whether two handles are of one block, or both of none.
fn same(a: Option<&Arc<Memory>>, b: Option<&Arc<Memory>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

/// Descriptors and the doorbell.
impl NfpNic {
    /// Puts a descriptor behind all before it.
    pub(super) fn push(&mut self, descriptor: Descriptor) {
        self.backlog.push_back(descriptor);
    }

    /// Moves the backlog into the ring, as far as it has room, and rings the doorbell; returns whether it did.
    pub(super) fn submit(&mut self) -> bool {
        let taken = self.read_control(control::DESCRIPTORS_TAKEN);
        while let Some(descriptor) = self.backlog.front() {
            if self.descriptors.push(taken, descriptor).is_err() {
                break;
            }
            self.backlog.pop_front();
        }
        let tail = self.descriptors.tail();
        let rings = tail != self.doorbell;
        if rings {
            self.doorbell = tail;
            self.write_queue(queue_register::DESCRIPTOR_TAIL, tail);
        }
        rings
    }

    /// Whether there is something that the card was not told.
    pub(super) fn has_to_tell(&self) -> bool {
        !self.backlog.is_empty() || !self.flows.to_tell.is_empty()
    }

    /// Tells the card what the applications did: limits and bumps, merged per flow.
    pub(super) fn tell_flows(&mut self) {
        self.submit();
        while self.backlog.is_empty() {
            let Some(index) = self.flows.to_tell.pop_front() else {
                return;
            };
            let Some((id, flow)) = self.flows.at(index) else {
                continue;
            };
            flow.tell_queued = false;
            let limits = flow.limits.take();
            let bump = flow.written > 0 || flow.freed > 0 || flow.told;
            let mut descriptors = [None, None];
            if let Some(limits) = limits {
                descriptors[0] = Some(
                    about(operation::LIMITS, id)
                        .with(descriptor::LIMITS_CWND, limits.cwnd)
                        .with(descriptor::LIMITS_PACING_RATE, limits.pacing_rate),
                );
            }
            if bump && !flow.claimed {
                flow.bumps = flow.bumps.wrapping_add(1);
                flow.told = false;
                descriptors[1] = Some(
                    about(operation::BUMP, id)
                        .with(descriptor::BUMP_SEQUENCE, flow.bumps)
                        .with(descriptor::BUMP_SENT, std::mem::take(&mut flow.written))
                        .with(descriptor::BUMP_FREED, std::mem::take(&mut flow.freed)),
                );
            }
            self.backlog.extend(descriptors.into_iter().flatten());
            self.submit();
        }
    }

    /// After a reset: what the card forgot of listeners and of the kernel's connections.
    pub(super) fn ask_again(&mut self) {
        for local in self.owned.addresses().collect::<Vec<_>>() {
            self.tell_owner(local);
        }
        for tuple in std::mem::take(&mut self.excluded).into_keys() {
            if let Err(error) = self.install_kernel(tuple) {
                tracing::warn!(?tuple, %error, "the kernel's connection is not excluded any more");
            }
        }
    }
}

/// Flows.
impl NfpNic {
    pub(super) fn request_install(
        &mut self,
        now: Instant,
        token: Token,
        mut state: FlowState,
        mut buffers: FlowBuffers,
    ) -> Result<FlowId, InstallError> {
        let refuse = |kind, buffers| Err(InstallError { kind, buffers });
        let tuple = state.tuple();
        if self.flows.find(&tuple).is_some() || self.excluded.contains_key(&tuple) {
            return refuse(InstallErrorKind::Duplicate, buffers);
        }
        buffers.send.take_written();
        if state.flags & !flags::ALL != 0 || state.in_flight() > buffers.send.len() {
            return refuse(InstallErrorKind::Unsupported, buffers);
        }
        state.set_snd_end(state.snd_una() + buffers.send.len());
        // The peer may use what it was offered.
        buffers.recv.take_freed();
        let needed = buffers.recv.held().saturating_add(state.rcv_wnd());
        if buffers.recv.capacity() < needed || buffers.recv.capacity() == 0 {
            let wanted = needed.max(self.config.recv_sizes.first.min(buffers.recv.limit()));
            if buffers.recv.resize(wanted, 0).is_err() || buffers.recv.capacity() < needed {
                return refuse(InstallErrorKind::TableFull, buffers);
            }
            // Chunks of the memory before pin nothing any more.
            buffers.recv.take_freed();
        }
        let rings = [buffers.recv.memory(), buffers.send.memory()].map(|memory| match memory {
            Some(memory) => {
                let capacity = memory.capacity();
                let address = self.address(memory.base(), capacity as usize)?;
                Some((address, capacity.trailing_zeros()))
            }
            None => Some((0, 0)),
        });
        let [Some(recv), Some(send)] = rings else {
            return refuse(InstallErrorKind::Unsupported, buffers);
        };
        let Some(id) = self.flows.reserve(&tuple) else {
            return refuse(InstallErrorKind::TableFull, buffers);
        };
        let rest = [
            (flow_block::RECV_LOW, low(recv.0)),
            (flow_block::RECV_HIGH, high(recv.0)),
            (flow_block::RECV_SHIFT, recv.1),
            (flow_block::RECV_POSITION, buffers.recv.position() as u32),
            (flow_block::RECV_USED, buffers.recv.held()),
            (flow_block::SEND_LOW, low(send.0)),
            (flow_block::SEND_HIGH, high(send.0)),
            (flow_block::SEND_SHIFT, send.1),
            (flow_block::SEND_POSITION, buffers.send.position() as u32),
        ];
        self.memory.write_block(id.index, &state.to_words(), &rest);
        self.push(about(operation::INSTALL, id));
        self.flows.insert(id, Flow::new(token, state, buffers, now));
        self.touch(id);
        self.counters.installed += 1;
        Ok(id)
    }

    pub(super) fn request_claim(&mut self, id: FlowId) -> Result<(), StaleFlow> {
        let flow = self.flows.get_mut(id).ok_or(StaleFlow)?;
        if !flow.claimed {
            flow.claimed = true;
            self.push(about(operation::CLAIM, id));
        }
        Ok(())
    }

    /// Has the card forget a flow that came back.
    pub(super) fn push_remove(&mut self, id: FlowId) {
        self.push(about(operation::REMOVE, id));
    }

    /// Takes over what the application did since the last time.
    pub(super) fn ring(&mut self, id: FlowId) -> Result<(), StaleFlow> {
        let now = self.now;
        let sizes = self.config.recv_sizes;
        let flow = self.flows.get_mut(id).ok_or(StaleFlow)?;
        let freed = flow.buffers.recv.take_freed();
        flow.freed += freed;
        let before = flow.buffers.send.memory().cloned();
        let written = flow.buffers.send.take_written();
        flow.written += written;
        flow.state.set_snd_end(flow.state.snd_end() + written);
        let moved = !same(before.as_ref(), flow.buffers.send.memory());
        let send = flow.buffers.send.memory().cloned();
        let capacity = flow.buffers.recv.capacity();
        let doubled = capacity.saturating_mul(2);
        let grows = freed > 0
            && flow.tuning.passed(freed, capacity, now)
            && flow.next_recv.is_none()
            && !flow.detaching
            && !flow.claimed
            && doubled <= sizes.max.min(flow.buffers.recv.limit())
            && doubled
                <= flow
                    .state
                    .rcv_scale()
                    .scale_up(u16::MAX)
                    .next_power_of_two()
            && !flow.buffers.recv.pool().under_pressure();
        // Without memory the ring stays as it is.
        let larger = grows
            .then(|| flow.buffers.recv.pool().take(doubled).ok())
            .flatten();
        if moved {
            flow.old_send.push_back(before);
            self.push_ring(operation::SEND_RING, id, send.as_deref());
        }
        if let Some(larger) = larger {
            self.push_ring(operation::RECV_RING, id, Some(&larger));
            if let Some(flow) = self.flows.get_mut(id) {
                flow.next_recv = Some(larger);
            }
        }
        self.flows.want_to_tell(id.index);
        if written > 0 || freed > 0 {
            self.touch(id);
        }
        Ok(())
    }

    pub(super) fn push_ring(&mut self, operation: u32, id: FlowId, memory: Option<&Memory>) {
        let (address, shift) = memory.map_or((0, 0), |memory| {
            let address = self.address(memory.base(), memory.capacity() as usize);
            // Out of reach: the card refuses it, and gives the flow back when bytes are to come from there.
            (address.unwrap_or(0), memory.capacity().trailing_zeros())
        });
        self.push(
            about(operation, id)
                .with(descriptor::RING_LOW, low(address))
                .with(descriptor::RING_HIGH, high(address))
                .with(descriptor::RING_SHIFT, shift),
        );
    }

    pub(super) fn read_progress(&self, id: FlowId) -> Result<FlowProgress, StaleFlow> {
        let flow = self.flows.get(id).ok_or(StaleFlow)?;
        let first = self.card.flow_table + id.index * constant::FLOW_ENTRY_WORDS;
        let read = |word: u32| self.bus.read(first + word);
        for _ in 0..PROGRESS_TRIES {
            let version = read(flow_entry::VERSION);
            let status = read(flow_entry::STATUS) & 0xff;
            let current =
                read(flow_entry::GENERATION) == id.generation && status == flow_status::NIC_OWNED;
            let words = std::array::from_fn(|word| read(word as u32));
            let outstanding = read(flow_local::FLAGS) & local_flag::OUTSTANDING != 0;
            let since = (
                read(flow_local::OUTSTANDING_MS),
                read(flow_local::OUTSTANDING_NS),
            );
            if !version.is_multiple_of(2) || read(flow_entry::VERSION) != version {
                std::hint::spin_loop();
                continue;
            }
            if !current {
                // Not yet, or not any more: what is certain.
                return Ok(FlowProgress {
                    state: flow.state,
                    outstanding_since: None,
                });
            }
            return Ok(FlowProgress {
                state: FlowState::from_words(words),
                outstanding_since: outstanding.then(|| self.instant(since.0, since.1)),
            });
        }
        // The card died while it wrote: what is certain, and the next poll says so.
        Ok(FlowProgress {
            state: flow.state,
            outstanding_since: None,
        })
    }
}

/// Frames, addresses and the kernel's connections.
impl NfpNic {
    pub(super) fn send_raw(&mut self, frame: TxFrame<'_>) -> Result<(), PortFull> {
        let mut sent = self.read_control(control::FRAMES_SENT);
        if self.memory.raw_is_full(sent) {
            self.submit();
            // A card that works when asked to makes room.
            if self.bus.run(self.now, 0).is_err() {
                return Err(PortFull);
            }
            sent = self.read_control(control::FRAMES_SENT);
        }
        let pieces = [frame.header, frame.payload[0], frame.payload[1]];
        let at = self.memory.put_raw(sent, pieces).ok_or(PortFull)?;
        let address = self.mapped[0].address + at as u64;
        let flags = if frame.offload.checksum {
            frame_flag::CHECKSUM
        } else {
            0
        };
        // A frame that fits its slot fits a word.
        let len = frame.len() as u32;
        self.push(
            Descriptor::new(operation::SEND_FRAME | flags)
                .with(descriptor::FRAME_LENGTH, len)
                .with(descriptor::FRAME_LOW, low(address))
                .with(descriptor::FRAME_HIGH, high(address)),
        );
        let slow = &mut self.counters.slow;
        slow.frames_out += 1;
        slow.bytes_out += (frame.payload[0].len() + frame.payload[1].len()) as u64;
        Ok(())
    }

    pub(super) fn take(
        &mut self,
        local: SocketAddr,
        of: fn(&mut Owners) -> &mut u32,
    ) -> io::Result<()> {
        let full = self.tells_owned()
            && self.owned.addresses().count() + 1 >= constant::LISTENERS_MAX as usize;
        let listened = self.owned.has_listener(local);
        let Self {
            owned, steering, ..
        } = self;
        owned.take(local, of, || {
            if full {
                return Err(io::Error::new(
                    io::ErrorKind::QuotaExceeded,
                    format!(
                        "the card remembers {} addresses and ports, and all are in use; close listeners or connections",
                        constant::LISTENERS_MAX - 1
                    ),
                ));
            }
            steering.own(local)
        })?;
        self.tell_change(local, listened);
        Ok(())
    }

    pub(super) fn give_back(
        &mut self,
        local: SocketAddr,
        of: fn(&mut Owners) -> &mut u32,
    ) -> io::Result<()> {
        let listened = self.owned.has_listener(local);
        let Self {
            owned, steering, ..
        } = self;
        let result = owned.give_back(local, of, || steering.disown(local));
        self.tell_change(local, listened);
        result
    }

    /// Tells the card what became of an address: before, somebody listened there, nobody did, or it was not ours (`None`).
    fn tell_change(&mut self, local: SocketAddr, before: Option<bool>) {
        if self.owned.has_listener(local) != before {
            self.tell_owner(local);
        }
    }

    fn tell_owner(&mut self, local: SocketAddr) {
        if !self.tells_owned() {
            return;
        }
        let (operation, flags) = match self.owned.has_listener(local) {
            Some(true) => (operation::LISTEN, 0),
            Some(false) => (operation::LISTEN, listen_flag::CONNECTS),
            None => (operation::UNLISTEN, 0),
        };
        self.push(listen_descriptor(operation, flags, local));
    }

    pub(super) fn request_exclude(&mut self, tuple: FlowTuple) -> io::Result<()> {
        if self.excluded.contains_key(&tuple) {
            return Ok(());
        }
        self.steering.exclude(tuple)?;
        self.install_kernel(tuple)
    }

    pub(super) fn install_kernel(&mut self, tuple: FlowTuple) -> io::Result<()> {
        let id = self.flows.reserve(&tuple).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::QuotaExceeded,
                "the card's flow table is full; close connections",
            )
        })?;
        let mut state = FlowState::default();
        state.set_tuple(&tuple);
        self.memory.write_block(id.index, &state.to_words(), &[]);
        self.push(
            about(operation::INSTALL, id).with(descriptor::INSTALL_FLAGS, install_flag::KERNEL),
        );
        self.flows.set_kernel(id.index);
        self.excluded.insert(tuple, id.index);
        Ok(())
    }

    pub(super) fn request_include(&mut self, tuple: FlowTuple) -> io::Result<()> {
        if let Some(index) = self.excluded.remove(&tuple) {
            let id = self.flows.remove_kernel(index, tuple);
            self.push_remove(id);
            self.steering.include(tuple)?;
        }
        Ok(())
    }

    /// The doorbell again, in case the card missed it.
    pub(super) fn repeat_doorbell(&mut self) {
        let behind = self.read_control(control::DESCRIPTORS_TAKEN) != self.doorbell;
        if behind {
            self.write_queue(queue_register::DESCRIPTOR_TAIL, self.doorbell);
        }
    }
}

fn listen_descriptor(operation: u32, flags: u32, local: SocketAddr) -> Descriptor {
    let mut port = u32::from(local.port()) | flags;
    if matches!(local.ip(), IpAddr::V6(_)) {
        port |= listen_flag::IPV6;
    }
    let mut descriptor = Descriptor::new(operation).with(descriptor::LISTEN_PORT, port);
    for (word, value) in (descriptor::LISTEN_ADDRESS..).zip(ip_words(local.ip())) {
        descriptor = descriptor.with(word, value);
    }
    descriptor
}
