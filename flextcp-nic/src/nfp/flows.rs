//! Who is installed, and what the card or the host is still to be told of it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::buffer::Memory;
use crate::fast::rx::Tuning;
use crate::flow::{FlowId, FlowState, FlowTuple, Token};
use crate::nic::{FlowBuffers, Limits, Notification, Reason, Returned};
use crate::port::RxChecksum;
use crate::seq::SeqNum;
use crate::time::Instant;

/// A frame of a flow that the card passed on before it had the flow.
#[derive(Debug)]
pub(super) struct LateFrame {
    pub(super) bytes: Vec<u8>,
    pub(super) reason: Reason,
    pub(super) checksum: RxChecksum,
}

/// An installed flow.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) tuple: FlowTuple,
    pub(super) token: Token,
    /// As installed, RCV.NXT and SND.UNA moved on by the events: what is certain without the card.
    pub(super) state: FlowState,
    pub(super) buffers: FlowBuffers,
    /// Sequence of the last bump.
    pub(super) bumps: u32,
    /// Not yet in a bump.
    pub(super) written: u32,
    pub(super) freed: u32,
    /// The card waits for a bump to acknowledge what the host was told of.
    pub(super) told: bool,
    pub(super) limits: Option<Limits>,
    pub(super) tell_queued: bool,
    pub(super) claimed: bool,
    /// What the next notification says.
    pub(super) delta: Notification,
    pub(super) notify_queued: bool,
    pub(super) late: Vec<LateFrame>,
    /// The receive ring that the card was told to change to.
    pub(super) next_recv: Option<Memory>,
    /// Send rings that the card may still read, in order of the requests that replace them.
    pub(super) old_send: VecDeque<Option<Arc<Memory>>>,
    pub(super) tuning: Tuning,
    /// When its rings were last used.
    pub(super) active: Instant,
    /// It waits for its turn to be looked at.
    pub(super) watched: bool,
    /// The card was asked to let go of the receive ring.
    pub(super) detaching: bool,
}

impl Flow {
    pub(super) fn new(token: Token, state: FlowState, buffers: FlowBuffers, now: Instant) -> Self {
        Self {
            tuple: state.tuple(),
            token,
            state,
            buffers,
            bumps: 0,
            written: 0,
            freed: 0,
            told: false,
            limits: None,
            tell_queued: false,
            claimed: false,
            delta: Notification::default(),
            notify_queued: false,
            late: Vec::new(),
            next_recv: None,
            old_send: VecDeque::new(),
            tuning: Tuning::new(now),
            active: now,
            watched: false,
            detaching: false,
        }
    }

    /// The notification, and a fresh start for the next one.
    pub(super) fn take_notification(&mut self) -> Notification {
        self.notify_queued = false;
        let mut notification = std::mem::take(&mut self.delta);
        notification.token = self.token;
        notification.app_limited = notification.in_flight >= self.buffers.send.len();
        notification
    }

    /// The connection, for the host: `state` is the card's.
    pub(super) fn into_returned(
        mut self,
        state: FlowState,
        outstanding_since: Option<Instant>,
    ) -> Returned {
        let mut state = state;
        self.buffers.send.take_written();
        let end = state.snd_una() + self.buffers.send.len();
        state.set_snd_end(end);
        self.buffers.recv.take_freed();
        if self.buffers.recv.capacity() > 0 {
            state.rcv_free = self.buffers.recv.free();
        }
        Returned {
            token: self.token,
            state,
            buffers: self.buffers,
            outstanding_since,
        }
    }

    /// The state after the card lost it: what the events told is certain. All that doorbells announced may have been
    /// sent, and the peer may have been offered all of the ring.
    pub(super) fn state_after_loss(&self) -> FlowState {
        let mut state = self.state;
        let announced = SeqNum(state.snd_end) - self.written;
        state.set_snd_nxt(announced.latest(state.snd_una()));
        let edge = state.rcv_nxt() + self.buffers.recv.free();
        if edge.after(state.rcv_adv()) {
            state.set_rcv_adv(edge);
        }
        // An ACK may be owed.
        let owed = u32::from(state.rcv_nxt() != state.last_ack_sent());
        state.set_last_ack_sent(state.rcv_nxt() - owed);
        state
    }
}

/// One index of the card's flow table.
#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    /// Removals that the card has not completed.
    removing: u32,
    /// In use for a connection of the kernel.
    kernel: bool,
    flow: Option<Box<Flow>>,
}

/// All flows of the queue.
#[derive(Debug)]
pub(super) struct Flows {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_tuple: HashMap<FlowTuple, u32>,
    /// Tuples whose removal is under way, and their index: it is the one to install them under again, so that the card
    /// does the one after the other.
    removing: HashMap<FlowTuple, u32>,
    /// Flows with something to tell the card.
    pub(super) to_tell: VecDeque<u32>,
    /// Flows with a notification to deliver.
    pub(super) to_notify: Vec<u32>,
}

impl Flows {
    pub(super) fn new(count: u32) -> Self {
        Self {
            slots: (0..count).map(|_| Slot::default()).collect(),
            free: (0..count).rev().collect(),
            by_tuple: HashMap::new(),
            removing: HashMap::new(),
            to_tell: VecDeque::new(),
            to_notify: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_tuple.len()
    }

    pub(super) fn find(&self, tuple: &FlowTuple) -> Option<FlowId> {
        let index = *self.by_tuple.get(tuple)?;
        Some(FlowId {
            index,
            generation: self.slots[index as usize].generation,
        })
    }

    pub(super) fn get(&self, id: FlowId) -> Option<&Flow> {
        let slot = self.slots.get(id.index as usize)?;
        (slot.generation == id.generation)
            .then_some(slot.flow.as_deref())
            .flatten()
    }

    pub(super) fn get_mut(&mut self, id: FlowId) -> Option<&mut Flow> {
        let slot = self.slots.get_mut(id.index as usize)?;
        (slot.generation == id.generation)
            .then_some(slot.flow.as_deref_mut())
            .flatten()
    }

    pub(super) fn at(&mut self, index: u32) -> Option<(FlowId, &mut Flow)> {
        let slot = self.slots.get_mut(index as usize)?;
        let id = FlowId {
            index,
            generation: slot.generation,
        };
        slot.flow.as_deref_mut().map(|flow| (id, flow))
    }

    /// An index for `tuple`, with its next generation; `None` when all are in use.
    pub(super) fn reserve(&mut self, tuple: &FlowTuple) -> Option<FlowId> {
        let index = self.removing.remove(tuple).or_else(|| self.free.pop())?;
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        Some(FlowId {
            index,
            generation: slot.generation,
        })
    }

    pub(super) fn insert(&mut self, id: FlowId, flow: Flow) {
        self.by_tuple.insert(flow.tuple, id.index);
        self.slots[id.index as usize].flow = Some(Box::new(flow));
    }

    pub(super) fn set_kernel(&mut self, index: u32) {
        self.slots[index as usize].kernel = true;
    }

    /// Takes a flow out. Its index is in use until [`removed`](Self::removed), which `removing` says will come.
    pub(super) fn remove(&mut self, id: FlowId, removing: bool) -> Option<Flow> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let flow = slot.flow.take()?;
        self.by_tuple.remove(&flow.tuple);
        if removing {
            self.start_removal(id.index, flow.tuple);
        } else if slot.removing == 0 {
            self.free.push(id.index);
        }
        Some(*flow)
    }

    /// The kernel's connection is not excluded any more; returns its id.
    pub(super) fn remove_kernel(&mut self, index: u32, tuple: FlowTuple) -> FlowId {
        let slot = &mut self.slots[index as usize];
        slot.kernel = false;
        let generation = slot.generation;
        self.start_removal(index, tuple);
        FlowId { index, generation }
    }

    fn start_removal(&mut self, index: u32, tuple: FlowTuple) {
        self.slots[index as usize].removing += 1;
        self.removing.insert(tuple, index);
    }

    /// The card completed a removal.
    pub(super) fn removed(&mut self, index: u32) {
        let Some(slot) = self.slots.get_mut(index as usize) else {
            return;
        };
        slot.removing = slot.removing.saturating_sub(1);
        if slot.removing == 0 && slot.flow.is_none() && !slot.kernel {
            self.removing.retain(|_, of| *of != index);
            self.free.push(index);
        }
    }

    /// Remembers that the card is to be told something of a flow.
    pub(super) fn want_to_tell(&mut self, index: u32) {
        if let Some((_, flow)) = self.at(index)
            && !flow.tell_queued
        {
            flow.tell_queued = true;
            self.to_tell.push_back(index);
        }
    }

    /// Everything in it, for a card that lost it.
    pub(super) fn drain(&mut self) -> Vec<Flow> {
        let count = self.slots.len() as u32;
        let generations: Vec<u32> = self.slots.iter().map(|slot| slot.generation).collect();
        let old = std::mem::replace(self, Self::new(count));
        for (slot, generation) in self.slots.iter_mut().zip(generations) {
            slot.generation = generation;
        }
        old.slots
            .into_iter()
            .filter_map(|slot| slot.flow.map(|flow| *flow))
            .collect()
    }
}
