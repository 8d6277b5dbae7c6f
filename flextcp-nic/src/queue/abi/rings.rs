//! What goes through the rings: descriptors down, events up.

use crate::nic::Reason;

use super::table::tables;

tables! {
    /// A descriptor, host to NIC. Words 3 to 6 depend on the operation.
    descriptor "DESC_" {
        /// `OP_*` in the low byte; flags of the operation above.
        OPERATION = 0;
        /// Flow index.
        FLOW = 1;
        /// Its generation.
        GENERATION = 2;
        /// BUMP: the flow's bump sequence.
        BUMP_SEQUENCE = 3;
        /// BUMP: bytes written into the send ring.
        BUMP_SENT = 4;
        /// BUMP: bytes freed in the receive ring.
        BUMP_FREED = 5;
        /// INSTALL: `INSTALL_*`.
        INSTALL_FLAGS = 3;
        /// LIMITS: congestion window in bytes.
        LIMITS_CWND = 3;
        /// LIMITS: pacing rate in bytes per millisecond, 0 for none.
        LIMITS_PACING_RATE = 4;
        /// RECV_RING, SEND_RING: bus address, low word.
        RING_LOW = 3;
        /// Its high word.
        RING_HIGH = 4;
        /// RECV_RING, SEND_RING: size in bytes, as a power of two, or 0 to detach.
        RING_SHIFT = 5;
        /// All that complete: echoed in the completion. LIMITS and BUMP have none.
        TAG = 6;
        /// SEND_FRAME: bytes of the frame; flags are `FRAME_*`, above the operation.
        FRAME_LENGTH = 1;
        /// SEND_FRAME: bus address, low word.
        FRAME_LOW = 3;
        /// Its high word.
        FRAME_HIGH = 4;
        /// LISTEN, UNLISTEN: port in the low half, `LISTEN_*` above it.
        LISTEN_PORT = 1;
        /// LISTEN, UNLISTEN: first of four words of the address, as in the flow state; all zero is any.
        LISTEN_ADDRESS = 2;
        /// Sequence: position + 1.
        SEQUENCE = 7;
    }

    /// What a descriptor asks for.
    operation "OP_" {
        /// Nothing; keeps its place in the ring.
        NOP = 0;
        /// The application wrote or read.
        BUMP = 1;
        /// The flow block of that index is filled: take the flow. Completes.
        INSTALL = 2;
        /// Give the flow back: a RETURNED event, or a completion that says why not.
        CLAIM = 3;
        /// Forget the flow. Completes.
        REMOVE = 4;
        /// What the slow path sets and the fast path enforces.
        LIMITS = 5;
        /// Use another receive ring. Completes.
        RECV_RING = 6;
        /// Use another send ring. Completes.
        SEND_RING = 7;
        /// Frames for this address and port are ours; once more, with other flags. Completes, `TAG` being word 6.
        LISTEN = 8;
        /// They are the netdev's again. Completes.
        UNLISTEN = 9;
        /// Send a frame of the slow path; `CONTROL_FRAMES_SENT` tells when it was read.
        SEND_FRAME = 10;
        /// Read the flow's state into its block without taking it. Completes when it is there.
        SNAPSHOT = 11;
    }

    /// Bits of `DESC_LISTEN_PORT`.
    listen_flag "LISTEN_" {
        /// An IPv6 address.
        IPV6 = 1 << 16;
        /// LISTEN: connections have it and nobody listens there, so that the filter keeps nobody out.
        CONNECTS = 1 << 17;
    }

    /// `DESC_INSTALL_FLAGS`.
    install_flag "INSTALL_" {
        /// Frames of the tuple go to the netdev; the block needs only tuple and flags.
        KERNEL = 1 << 0;
    }

    /// Flags of a SEND_FRAME, in bits 8 and up of word 0.
    frame_flag "FRAME_" {
        /// The TCP checksum field holds the pseudo-header's sum: complete it.
        CHECKSUM = 1 << 8;
    }

    /// An event, NIC to host. Words 3 to 14 depend on the kind.
    event "EVENT_" {
        /// `KIND_*` in the low byte; `EVFLAG_*` above.
        KIND = 0;
        /// Flow index, `NO_FLOW` when there is none.
        FLOW = 1;
        /// Its generation.
        GENERATION = 2;
        /// NOTIFICATION: bytes that arrived in order, since the last one.
        RECEIVED = 3;
        /// NOTIFICATION: bytes acknowledged, since the last one.
        ACKED = 4;
        /// NOTIFICATION: of these, bytes acknowledged with ECE.
        ACKED_ECE = 5;
        /// NOTIFICATION: the send window that the peer grants now, in bytes.
        SND_WND = 6;
        /// NOTIFICATION: bytes in flight.
        IN_FLIGHT = 7;
        /// NOTIFICATION: a round-trip sample in microseconds, 0 for none.
        RTT_MICROS = 8;
        /// NOTIFICATION: where the retransmission timer runs from, milliseconds (valid with `EVFLAG_OUTSTANDING`).
        OUTSTANDING_MS = 9;
        /// Nanoseconds within the millisecond.
        OUTSTANDING_NS = 10;
        /// NOTIFICATION, RETURNED and EXCEPTION with `EVFLAG_RETURNED`: bumps applied so far.
        BUMPS = 11;
        /// EXCEPTION: `REASON_*`. RETURNED: `CAUSE_*`.
        REASON = 3;
        /// EXCEPTION: bytes of the frame, in the slot of this event.
        FRAME_LENGTH = 4;
        /// COMPLETION: the descriptor's tag.
        TAG = 3;
        /// COMPLETION: `DONE_*`.
        RESULT = 4;
        /// COMPLETION: the descriptor's operation.
        OPERATION = 5;
        /// COMPLETION of RECV_RING: from this position on, low word, bytes are in the new memory.
        POSITION = 6;
        /// Sequence: position + 1.
        SEQUENCE = 15;
        /// Flow index of an event without a flow.
        NO_FLOW = u32::MAX;
    }

    /// What an event reports.
    event_kind "KIND_" {
        /// Deltas of a flow.
        NOTIFICATION = 1;
        /// A frame for the slow path.
        EXCEPTION = 2;
        /// A flow comes back without a frame.
        RETURNED = 3;
        /// A descriptor was carried out, or why not.
        COMPLETION = 4;
    }

    /// Flags of events, in bits 8 and up of word 0.
    event_flag "EVFLAG_" {
        /// EXCEPTION: the flow comes back with this frame; its block holds the state.
        RETURNED = 1 << 8;
        /// NOTIFICATION: a data segment carried CE.
        CONGESTION_EXPERIENCED = 1 << 9;
        /// NOTIFICATION: sending was limited by cwnd.
        CWND_LIMITED = 1 << 10;
        /// NOTIFICATION: something is outstanding.
        OUTSTANDING = 1 << 11;
    }

    /// `EVENT_RESULT`.
    completion "DONE_" {
        /// Carried out.
        OK = 0;
        /// No such flow: the generation is over, or the flow is the host's already.
        STALE = 1;
        /// The flow index is not the queue's.
        NOT_YOURS = 2;
        /// The index is in use, or the ring that is to go.
        IN_USE = 3;
        /// The flow table is full where this flow would go.
        TABLE_FULL = 4;
        /// The tuple is installed already.
        DUPLICATE = 5;
        /// The NIC cannot carry such a flow: unknown flags.
        UNSUPPORTED = 6;
        /// A ring is misaligned, of an impossible size, too small for what is in it, or outside of every region.
        BAD_RING = 7;
        /// The state contradicts itself: SND.UNA, SND.NXT, what was written, windows.
        BAD_STATE = 8;
        /// No such operation.
        BAD_OPERATION = 9;
        /// A frame's length or address is impossible.
        BAD_FRAME = 10;
    }

    /// Why a flow came back without a frame: `EVENT_REASON` of RETURNED.
    cause "CAUSE_" {
        /// The host claimed it.
        CLAIMED = 0;
        /// The peer's window is shut and nothing in flight can open it.
        STALLED = 1;
        /// A bump came out of sequence, or ran beyond a ring.
        BAD_BUMP = 2;
        /// Payload could not be moved: the address was refused.
        BAD_ADDRESS = 3;
        /// It was punted by a frame that was too long for a slot, or for which no event was free.
        FRAME_DROPPED = 4;
    }

    /// Why a frame is an exception: [`Reason`], by index.
    reason "REASON_" {
        /// No such flow.
        NO_FLOW = Reason::NoFlow.index() as u32;
        /// SYN, FIN, RST or URG, or no ACK.
        FLAGS = Reason::Flags.index() as u32;
        /// Does not start at RCV.NXT.
        OUT_OF_ORDER = Reason::OutOfOrder.index() as u32;
        /// Duplicate ACK with data outstanding.
        DUPLICATE_ACK = Reason::DuplicateAck.index() as u32;
        /// Carries SACK blocks.
        SACK = Reason::Sack.index() as u32;
        /// Timestamp older than TS.Recent, or missing.
        PAWS = Reason::Paws.index() as u32;
        /// Acknowledges what was not sent, or is older than SND.UNA.
        ACK_OUT_OF_WINDOW = Reason::AckOutOfWindow.index() as u32;
        /// Payload beyond the window.
        OUT_OF_WINDOW = Reason::OutOfWindow.index() as u32;
        /// Other TCP options than timestamps.
        OPTIONS = Reason::Options.index() as u32;
        /// The peer closed its window with data waiting.
        ZERO_WINDOW = Reason::ZeroWindow.index() as u32;
        /// No receive buffer is attached.
        NO_BUFFER = Reason::NoBuffer.index() as u32;
        /// An ICMP error about a flow of ours.
        ICMP = Reason::Icmp.index() as u32;
        /// IP options or extension headers.
        IP_OPTIONS = Reason::IpOptions.index() as u32;
        /// The flow is the host's.
        HOST_OWNED = Reason::HostOwned.index() as u32;
    }
}
