//! The host-NIC interface of hardware: descriptor rings in shared memory, doorbell registers, the flow table.
//!
//! The [software NIC](crate::soft) is called, a card is told: the operations of the [contract](crate::nic) become words
//! in memory that both sides see. [`abi`] describes every one of these words once; the firmware's C header and
//! `docs/abi.md` are generated from it. [`ring`] holds the producers and consumers of the two rings.
//!
//! # What is shared
//!
//! | where | what | host | NIC |
//! |---|---|---|---|
//! | BAR | [`register`](abi::register): identity, reset, clock, interface | reads, writes what says so | the rest |
//! | BAR | [`region`](abi::region): host memory that the NIC may touch | writes before READY | checks every DMA |
//! | BAR | [`queue_register`](abi::queue_register): where a queue's rings are, doorbells | writes | status, timer |
//! | BAR | [`counter`](abi::counter): 64 bits each, low word first | reads | writes |
//! | BAR | [`flow_entry`](abi::flow_entry): the flow table | reads (between equal even versions) | writes |
//! | host memory | descriptor ring, 8 words each | writes | reads by DMA |
//! | host memory | event ring, 16 words each | reads | writes by DMA |
//! | host memory | [`control`](abi::control) block of a queue | reads | writes by DMA |
//! | host memory | [`flow_block`](abi::flow_block) of each flow | whoever does *not* own the flow is silent | |
//! | host memory | frame slots for exceptions | reads | writes by DMA |
//! | host memory | app buffers: receive rings, send rings | as in [`buffer`](crate::buffer) | payload, by DMA |
//!
//! All of it is little-endian `u32` words, except frames and payload, which are bytes. Bus addresses are two words,
//! low and high; everything that a queue register or a descriptor names is aligned to 64 bytes, receive and send rings are
//! powers of two and aligned to 64 bytes, and every byte the NIC touches lies in a registered region.
//!
//! # Bringing a card up
//!
//! 1. Check [`MAGIC`](abi::register::MAGIC) and the major half of [`ABI_VERSION`](abi::register::ABI_VERSION); read the capabilities.
//! 2. Write a nonzero value that differs from [`RESET_DONE`](abi::register::RESET_DONE) to [`RESET`](abi::register::RESET). The NIC stops all
//!    engines, waits for every DMA under way, clears flow table, regions, queues and counters, counts
//!    [`EPOCH`](abi::register::EPOCH) up, stores the value to `RESET_DONE`, and [`STATUS`](abi::register::STATUS) becomes
//!    [`READY`](abi::status::READY).
//!    Until then what was under way may still land in host memory: the host clears its rings after it.
//! 3. Write regions, then [`CONFIG`](abi::register::CONFIG), the hash key, the MAC and MTU if they are the host's to set.
//! 4. Set the clock: [`CLOCK_MS`](abi::register::CLOCK_MS), [`CLOCK_NS`](abi::register::CLOCK_NS), then 1 to
//!    [`CLOCK_SET`](abi::register::CLOCK_SET), which reads 0 once it is taken. TSval continues the host's.
//! 5. For each queue write its registers, then 1 to [`ENABLE`](abi::queue_register::ENABLE);
//!    [`STATUS`](abi::queue_register::STATUS) becomes [`RUNNING`](abi::queue_status::RUNNING) or an error.
//!
//! A card whose `EPOCH` changed without a reset by the host has lost its flows. What it acknowledged to peers is not lost: **no
//! ACK covers a byte before the event that reports the byte is in host memory.** RCV.NXT and SND.UNA are the installed ones plus
//! the sums of the events; SND.NXT may be anything up to SND.NXT's limit, the end of what the doorbells announced, so the
//! engine retransmits from SND.UNA.
//!
//! # Memory ordering
//!
//! *Descriptors*: the host writes words 0 to 6, then word 7, the sequence (position + 1, free-running), with release; then a
//! store fence; then the doorbell [`DESCRIPTOR_TAIL`](abi::queue_register::DESCRIPTOR_TAIL), the free-running number of descriptors
//! written. The doorbell is a position: a lost one is made good by the next or by writing it again. The NIC reads descriptors
//! in order and takes none whose sequence is not the expected one: that is a broken host, and the queue stops with
//! [`BAD_SEQUENCE`](abi::queue_status::BAD_SEQUENCE). It stores how many it has *taken* to
//! [`DESCRIPTORS_TAKEN`](abi::control::DESCRIPTORS_TAKEN); a slot is free again from then on.
//!
//! *Events*: one DMA writes the 16 words in ascending order, word 15 (sequence, position + 1) last; the host reads word 15
//! with acquire, and the others only if it is the expected one. Whatever an event reports (payload in the receive ring, a flow block,
//! a frame) was complete in host memory before. The host gives slots back by writing the free-running number of events
//! it consumed to [`EVENT_HEAD`](abi::queue_register::EVENT_HEAD), at latest when half of the ring is consumed. Each event has a
//! frame slot of its own, which an exception's frame fills; it goes back with the event. A full event ring loses nothing: deltas gather
//! in the flow table, ACKs wait, and only *frames* are dropped, as on a wire.
//!
//! *Sleep of the host*: it writes the position up to which it consumed to [`ARM`](abi::queue_register::ARM), then
//! counts [`ARM_COUNT`](abi::queue_register::ARM_COUNT) up. The NIC raises the queue's interrupt once as soon as an event beyond that
//! position is in host memory, at once if one is already. So nothing is missed and no fence is needed.
//!
//! *Sleep of the NIC* (only an emulated one sleeps): it stores 1 to [`NEED_WAKEUP`](abi::control::NEED_WAKEUP), fences, looks at
//! all doorbells once more, and sleeps. The host, after a doorbell, fences (sequentially consistent) and reads the flag; when
//! it is set, it kicks the device by whatever means the bus has.
//!
//! # Life of a flow
//!
//! A flow is named by index and generation. Indices `queue * FLOWS_PER_QUEUE ..` belong to the queue; the host gives them out,
//! and a generation is never used twice in a row. States as in [`flow_status`](abi::flow_status):
//!
//! ```text
//!            INSTALL accepted                punt, or CLAIM
//!    FREE ---------------------> NIC_OWNED -----------------> HOST_OWNED
//!     ^                              |  REMOVE                     |  REMOVE
//!     +------------------------------+-----------------------------+
//! ```
//!
//! - **Install.** The host fills the flow block (state, rings, buffer positions) and pushes
//!   [`INSTALL`](abi::operation::INSTALL). The NIC reads the block by DMA, checks it and answers with
//!   [`COMPLETION`](abi::event_kind::COMPLETION). Bumps may follow at once; if the install is refused they are ignored as stale. The block
//!   belongs to the NIC from the descriptor to the removal's (or the refusal's) completion.
//! - **Punt.** At an exception the NIC marks the flow host-owned, waits for DMA of the flow, writes the state back to the
//!   block, and posts the frame's [`EXCEPTION`](abi::event_kind::EXCEPTION) with
//!   [`RETURNED`](abi::event_flag::RETURNED): from that event on the block's state is the host's. Deltas not reported
//!   before are reported first. Later frames of the tuple follow as exceptions, in order, with reason
//!   [`HOST_OWNED`](abi::reason::HOST_OWNED). Without a frame (stalled window, bad bump) it is a
//!   [`RETURNED`](abi::event_kind::RETURNED) event with the cause.
//! - **Claim.** As a punt without a frame. A claim of a flow that is host-owned already completes with
//!   [`STALE`](abi::completion::STALE); the return came or comes on its own.
//! - **Remove.** After it came back. From its completion on the index is free, its generation dead, its rings and
//!   its block untouched. Frames of the tuple then are exceptions with reason [`NO_FLOW`](abi::reason::NO_FLOW). A removed flow that was
//!   NIC-owned returns nothing.
//! - **Kernel's own.** An entry installed with [`KERNEL`](abi::install_flag::KERNEL) needs no rings: frames of its tuple go to the
//!   netdev although the address and port are ours (`Nic::exclude`).
//!
//! # Bumps
//!
//! [`BUMP`](abi::operation::BUMP) carries deltas: bytes written into the send ring, bytes freed in the receive ring. They count from the
//! positions in the flow block. Each carries the flow's bump sequence, 1 for the first after an install. The NIC applies the
//! expected sequence only. An older one is a duplicate and ignored; a newer one, or one that would run beyond a ring, returns the
//! flow with cause [`BAD_BUMP`](abi::cause::BAD_BUMP): the app buffers' own positions are then what counts. All of it is counted in
//! [`BAD_DESCRIPTORS`](abi::counter::BAD_DESCRIPTORS).
//!
//! # Changing a ring
//!
//! The host allocates, pushes [`RECV_RING`](abi::operation::RECV_RING) or [`SEND_RING`](abi::operation::SEND_RING), and keeps both
//! memories until the completion. Positions run on: byte position `p` is at `p & (size - 1)` in either. *Send*: the host copies
//! everything unacknowledged before the descriptor; bytes written after it need be only in the new one. *Receive*: the completion carries
//! the position from which on bytes are in the new memory; the host copies the unread ones before it. A size of 0 detaches a ring: an
//! idle flow owns none, and its next payload is an exception with reason [`NO_BUFFER`](abi::reason::NO_BUFFER).

pub mod abi;
#[cfg(feature = "firmware")]
pub mod action;
#[cfg(all(test, feature = "firmware"))]
mod differential;
#[cfg(all(test, feature = "firmware"))]
mod engines;
#[cfg(test)]
mod generate;
#[cfg(all(test, feature = "firmware"))]
mod portability;
pub mod ring;
