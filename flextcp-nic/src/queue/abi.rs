//! Every word that host and NIC share, described once.
//!
//! `flextcp-nic/firmware/include/flextcp_abi.h` and `docs/abi.md` are generated from these tables; a test fails when they
//! differ and says how to write them anew.

use core::mem::offset_of;

use crate::flow::{FlowState, flags};
use crate::nic::Reason;

/// One constant of a [`Table`].
#[derive(Clone, Copy, Debug)]
pub struct Item {
    /// Rust name, and with the table's prefix the C name.
    pub name: &'static str,
    /// Value: for layouts, the index of a word.
    pub value: u32,
    /// What it is.
    pub doc: &'static str,
}

/// Constants that belong together.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Name of the Rust module.
    pub name: &'static str,
    /// What C names start with, after `FX_`.
    pub prefix: &'static str,
    /// What they are.
    pub doc: &'static str,
    /// The constants.
    pub items: &'static [Item],
}

macro_rules! tables {
    ($(
        $(#[doc = $doc:literal])*
        $module:ident $prefix:literal {
            $($(#[doc = $item_doc:literal])* $name:ident = $value:expr;)*
        }
    )*) => {
        $(
            $(#[doc = $doc])*
            pub mod $module {
                #[allow(unused_imports)]
                use super::*;
                $($(#[doc = $item_doc])* pub const $name: u32 = $value;)*
                /// This table.
                pub const TABLE: Table = Table {
                    name: stringify!($module),
                    prefix: $prefix,
                    doc: concat!($($doc, "\n",)*),
                    items: &[$(Item { name: stringify!($name), value: $name, doc: concat!($($item_doc, "\n",)*) },)*],
                };
            }
        )*
        /// All tables.
        pub const TABLES: &[Table] = &[$($module::TABLE,)*];
    };
}

/// Index of a field of [`FlowState`].
macro_rules! state_word {
    ($field:ident) => {
        (offset_of!(FlowState, $field) / 4) as u32
    };
}

tables! {
    /// Sizes and versions.
    constant "" {
        /// First word of the BAR: "FXTC".
        MAGIC = 0x4658_5443;
        /// Major version in the high half: a driver refuses another one. Minor version in the low half: only additions.
        ABI_VERSION = 0x0001_0000;
        /// Words of a descriptor.
        DESCRIPTOR_WORDS = 8;
        /// Words of an event.
        EVENT_WORDS = 16;
        /// Words of a flow block in host memory.
        FLOW_BLOCK_WORDS = 64;
        /// Words of an entry of the NIC's flow table.
        FLOW_ENTRY_WORDS = 96;
        /// Words of a queue's control block.
        CONTROL_WORDS = 32;
        /// Most queues a card has.
        QUEUES_MAX = 64;
        /// Most regions of host memory.
        REGIONS_MAX = 64;
        /// Smallest receive or send ring, as a power of two.
        RING_SHIFT_MIN = 6;
        /// Largest, as a power of two.
        RING_SHIFT_MAX = 30;
        /// Smallest and largest descriptor and event ring, in entries, as powers of two.
        ENTRIES_SHIFT_MIN = 3;
        /// See `ENTRIES_SHIFT_MIN`.
        ENTRIES_SHIFT_MAX = 16;
        /// Alignment of everything in host memory, in bytes.
        ALIGNMENT = 64;
        /// Owned addresses and ports that a card remembers.
        LISTENERS_MAX = 4096;
        /// Microseconds that a delayed ACK waits for company, as Linux's 40 ms, unless the register says otherwise.
        DELAYED_ACK_MICROS = 40_000;
        /// Bytes a flow may send before the next one has its turn.
        QUANTUM = 65_536;
    }

    /// The card: word offsets in the BAR.
    register "REG_" {
        /// NIC: `MAGIC`, or anything else while the firmware is not running.
        MAGIC = 0;
        /// NIC: `ABI_VERSION`.
        ABI_VERSION = 1;
        /// NIC: version of the firmware, major, minor and patch in 8, 8 and 16 bits.
        FIRMWARE_VERSION = 2;
        /// NIC: `CAP_*`.
        CAPABILITIES = 3;
        /// NIC: `STATUS_*`.
        STATUS = 4;
        /// NIC: `FAILURE_*`, when the status is FAILED.
        FAILURE = 5;
        /// NIC: what the failure is about (queue, address, ...).
        FAILURE_DETAIL = 6;
        /// Host: a value other than `RESET_DONE` asks for a reset.
        RESET = 7;
        /// NIC: the last reset that was done.
        RESET_DONE = 8;
        /// NIC: counts up with every start and every reset.
        EPOCH = 9;
        /// NIC: counts up while the firmware runs.
        HEARTBEAT = 10;
        /// NIC: queues it has.
        QUEUES = 11;
        /// NIC: flow indices of each queue.
        FLOWS_PER_QUEUE = 12;
        /// NIC: flow groups, a power of two; flow `index` belongs to group `index % groups`, and each group to one engine.
        GROUPS = 13;
        /// NIC: bytes of an IP packet on the wire.
        MTU = 14;
        /// NIC: own hardware address, first four bytes, the first one highest.
        MAC_HIGH = 15;
        /// NIC: last two bytes, in the high half.
        MAC_LOW = 16;
        /// Host: `CONFIG_*`.
        CONFIG = 17;
        /// Host: secret key of the flow table's hash, random, before the first install.
        HASH_KEY_LOW = 18;
        /// Host: its other half.
        HASH_KEY_HIGH = 19;
        /// Host: milliseconds of the clock to set.
        CLOCK_MS = 20;
        /// Host: nanoseconds within the millisecond.
        CLOCK_NS = 21;
        /// Host: 1 sets the clock. NIC: 0 when it is set.
        CLOCK_SET = 22;
        /// Host: microseconds that an ACK may wait for company; 0 is the default.
        DELAYED_ACK = 23;
        /// NIC: word offset of the flow table in the BAR, or 0 when the BAR does not show it.
        FLOW_TABLE = 24;
        /// NIC: 1 when `TIMER_MS` and `TIMER_NS` are valid, which only a NIC in virtual time keeps.
        TIMER_VALID = 25;
        /// NIC: when it next has work by the clock, in milliseconds.
        TIMER_MS = 26;
        /// NIC: nanoseconds within the millisecond.
        TIMER_NS = 27;
        /// Host: largest payload of one segment that the wire port cuts itself (TSO), 0 for none. Only an emulated NIC's.
        SUPER_FRAME = 28;
        /// Host: mask of the receive-side scaling: which queue an exception without a flow goes to is `hash & mask`.
        RSS_MASK = 29;
        /// NIC: what the host's clock is ahead of the card's own, milliseconds.
        CLOCK_OFFSET_MS = 30;
        /// NIC: nanoseconds within the millisecond.
        CLOCK_OFFSET_NS = 31;
        /// Where the host-written RSS (Toeplitz) key of ten words starts.
        RSS_KEY = 32;
        /// First of the region registers.
        REGIONS = 0x100;
        /// First of the queue registers.
        QUEUE_BASE = 0x400;
        /// First of the counters.
        COUNTERS = 0x1000;
        /// Words of all this: the flow table may follow from here.
        END = 0x3000;
    }

    /// A region of host memory that the NIC may touch: `REG_REGIONS + i * 4 + word`. A length of 0 is no region. Host writes.
    region "REGION_" {
        /// Bus address, low word.
        ADDRESS_LOW = 0;
        /// Bus address, high word.
        ADDRESS_HIGH = 1;
        /// Length in bytes.
        LENGTH = 2;
        /// Words of a region.
        STRIDE = 4;
    }

    /// A queue: `REG_QUEUE_BASE + queue * 32 + word`.
    queue_register "QUEUE_" {
        /// Host: 1 starts the queue, 0 stops it.
        ENABLE = 0;
        /// NIC: `QSTATUS_*`.
        STATUS = 1;
        /// Host: bus address of the descriptor ring, low word.
        DESCRIPTORS_LOW = 2;
        /// Its high word.
        DESCRIPTORS_HIGH = 3;
        /// Host: descriptors in the ring, as a power of two.
        DESCRIPTORS_SHIFT = 4;
        /// Host: bus address of the event ring, low word.
        EVENTS_LOW = 5;
        /// Its high word.
        EVENTS_HIGH = 6;
        /// Host: events in the ring, as a power of two.
        EVENTS_SHIFT = 7;
        /// Host: bus address of the control block, low word.
        CONTROL_LOW = 8;
        /// Its high word.
        CONTROL_HIGH = 9;
        /// Host: bus address of the flow blocks, low word; block i is `i * FLOW_BLOCK_WORDS` words further.
        BLOCKS_LOW = 10;
        /// Its high word.
        BLOCKS_HIGH = 11;
        /// Host: flow blocks there are, at most `FLOWS_PER_QUEUE`.
        BLOCKS = 12;
        /// Host: bus address of the frame slots, low word: one for each event, at `(position modulo events) * FRAME_SIZE`.
        FRAMES_LOW = 13;
        /// Its high word.
        FRAMES_HIGH = 14;
        /// Host: bytes of a frame slot, a multiple of 64. Longer exception frames are dropped.
        FRAME_SIZE = 15;
        /// Host, doorbell: descriptors written, free-running.
        DESCRIPTOR_TAIL = 16;
        /// Host, doorbell: events consumed, free-running. Frame slots are given back with their events.
        EVENT_HEAD = 17;
        /// Host, doorbell: events consumed when it went to sleep.
        ARM = 18;
        /// Host, doorbell: counts up after `ARM` was written; this arms the interrupt.
        ARM_COUNT = 19;
        /// NIC: interrupts raised.
        INTERRUPTS = 20;
        /// Words of a queue.
        STRIDE = 32;
    }

    /// The control block of a queue, in host memory. NIC writes.
    control "CONTROL_" {
        /// Descriptors taken, free-running.
        DESCRIPTORS_TAKEN = 0;
        /// Raw frames (`SEND_FRAME`) that were read, free-running: their memory is the host's again.
        FRAMES_SENT = 1;
        /// 1: the NIC sleeps, kick it after a doorbell.
        NEED_WAKEUP = 16;
    }

    /// Counters of a queue: `REG_COUNTERS + queue * 64 + counter * 2`, low word first. NIC writes, they only grow.
    counter "COUNT_" {
        /// Frames the fast path took in.
        FAST_FRAMES_IN = 0;
        /// Frames it sent.
        FAST_FRAMES_OUT = 1;
        /// Payload bytes it took in.
        FAST_BYTES_IN = 2;
        /// Payload bytes it sent.
        FAST_BYTES_OUT = 3;
        /// Pure ACKs it sent.
        FAST_ACKS_OUT = 4;
        /// Raw frames sent for the host.
        SLOW_FRAMES_OUT = 5;
        /// Exceptions.
        SLOW_FRAMES_IN = 6;
        /// Frames dropped: malformed headers.
        MALFORMED = 7;
        /// Frames dropped: wrong checksum.
        BAD_CHECKSUM = 8;
        /// Frames dropped: refused by a filter, or ICMP errors about what is not in flight.
        FILTERED = 9;
        /// Exception frames dropped: no event free, or longer than a frame slot.
        NO_SLOT = 10;
        /// Flows installed.
        INSTALLED = 11;
        /// Flows returned without being asked for.
        PUNTED = 12;
        /// Flows claimed.
        CLAIMED = 13;
        /// Descriptors refused, in whole or as duplicates.
        BAD_DESCRIPTORS = 14;
        /// DMA refused: outside of every region.
        BAD_ADDRESSES = 15;
        /// Events posted.
        EVENTS = 16;
        /// Frames passed to the netdev.
        NETDEV = 17;
        /// Words per queue.
        STRIDE = 64;
    }

    /// Bits of `REG_CAPABILITIES`.
    capability "CAP_" {
        /// IPv4 flows.
        IPV4 = 1 << 0;
        /// IPv6 flows.
        IPV6 = 1 << 1;
        /// Flows with timestamps.
        TIMESTAMPS = 1 << 2;
        /// Flows with ECN, DCTCP's too.
        ECN = 1 << 3;
        /// Pacing.
        PACING = 1 << 4;
        /// Verifies TCP checksums of received frames.
        RX_CHECKSUM = 1 << 5;
        /// Completes TCP checksums of raw frames (`FRAME_CHECKSUM`).
        TX_CHECKSUM = 1 << 6;
        /// Virtual time: the timer registers are kept.
        TIMER = 1 << 7;
        /// The firmware runs in an emulator.
        EMULATED = 1 << 8;
    }

    /// Bits of `REG_CONFIG`.
    config "CONFIG_" {
        /// Frames for every address and port that no flow has are exceptions, not the netdev's: the wire is ours alone.
        OWN_ALL = 1 << 0;
        /// Take a partial checksum (the pseudo-header's sum) of a received frame for a right one.
        PARTIAL_CHECKSUM = 1 << 1;
        /// Let the wire port complete TCP checksums.
        TX_CHECKSUM = 1 << 2;
        /// The ACK of received payload waits for the host's next bump of the flow, so that a reply can carry it, but no longer
        /// than a delayed one. The host bumps every flow of which it was notified, if only by nothing.
        HOLD_ACKS = 1 << 3;
    }

    /// `REG_STATUS`.
    status "STATUS_" {
        /// Being reset.
        RESETTING = 1;
        /// Running.
        READY = 2;
        /// Stopped: see `REG_FAILURE`; a reset starts it again.
        FAILED = 3;
    }

    /// `REG_FAILURE`.
    failure "FAILURE_" {
        /// None.
        NONE = 0;
        /// A DMA failed on the bus.
        DMA = 1;
        /// An engine found its own state impossible.
        INTERNAL = 2;
    }

    /// `QUEUE_STATUS`.
    queue_status "QSTATUS_" {
        /// Not enabled.
        STOPPED = 0;
        /// Running.
        RUNNING = 1;
        /// A ring's size is out of range.
        BAD_SIZE = 2;
        /// A ring, a block or a frame slot is misaligned or outside of every region.
        BAD_ADDRESS = 3;
        /// A descriptor's sequence was not the expected one, or a doorbell ran beyond the ring.
        BAD_SEQUENCE = 4;
    }

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
        /// LISTEN, UNLISTEN: port in the low half; bit 16: IPv6.
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
        /// Frames for this address and port are ours. Completes, `TAG` being word 6.
        LISTEN = 8;
        /// They are the netdev's again. Completes.
        UNLISTEN = 9;
        /// Send a frame of the slow path; `CONTROL_FRAMES_SENT` tells when it was read.
        SEND_FRAME = 10;
        /// Read the flow's state into its block without taking it. Completes when it is there.
        SNAPSHOT = 11;
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
        /// The index is in use.
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

    /// [`FlowState`], word by word: the start of flow blocks and of flow entries.
    flow_state "FS_" {
        /// Local address, four words.
        LOCAL_IP = state_word!(local_ip);
        /// Remote address, four words.
        REMOTE_IP = state_word!(remote_ip);
        /// Local port, remote port.
        PORTS = state_word!(ports);
        /// Peer's MAC, first four bytes.
        REMOTE_MAC_HIGH = state_word!(remote_mac_high);
        /// Its last two bytes, TTL, type of service.
        REMOTE_MAC_LOW_TTL_TOS = state_word!(remote_mac_low_ttl_tos);
        /// `FLOW_*`.
        FLAGS = state_word!(flags);
        /// MSS in the high half, our window scale in bits 8 to 11, the peer's in bits 0 to 3.
        MSS_SCALES = state_word!(mss_scales);
        /// RCV.NXT.
        RCV_NXT = state_word!(rcv_nxt);
        /// Right edge of the window last advertised.
        RCV_ADV = state_word!(rcv_adv);
        /// Free space in the receive ring beyond RCV.NXT.
        RCV_FREE = state_word!(rcv_free);
        /// RCV.NXT as last acknowledged.
        LAST_ACK_SENT = state_word!(last_ack_sent);
        /// TS.Recent.
        TS_RECENT = state_word!(ts_recent);
        /// What is added to the millisecond clock.
        TS_OFFSET = state_word!(ts_offset);
        /// SND.UNA.
        SND_UNA = state_word!(snd_una);
        /// SND.NXT.
        SND_NXT = state_word!(snd_nxt);
        /// End of what the application wrote.
        SND_END = state_word!(snd_end);
        /// SND.WND in bytes.
        SND_WND = state_word!(snd_wnd);
        /// Congestion window in bytes.
        CWND = state_word!(cwnd);
        /// Pacing rate in bytes per millisecond.
        PACING_RATE = state_word!(pacing_rate);
        /// Counter: bytes acknowledged.
        ACKED_BYTES = state_word!(acked_bytes);
        /// Counter: of these with ECE.
        ECE_BYTES = state_word!(ece_bytes);
        /// Counter: data segments sent.
        SEGMENTS_SENT = state_word!(segments_sent);
        /// Counter: data segments received.
        SEGMENTS_RECEIVED = state_word!(segments_received);
        /// Latest round-trip sample in microseconds.
        RTT_MICROS = state_word!(rtt_micros);
        /// Words.
        WORDS = (size_of::<FlowState>() / 4) as u32;
    }

    /// Bits of `FS_FLAGS`.
    flow_flag "FLOW_" {
        /// Addresses are IPv6.
        IPV6 = flags::IPV6;
        /// Timestamps were negotiated.
        TIMESTAMPS = flags::TIMESTAMPS;
        /// ECN was negotiated.
        ECN = flags::ECN;
        /// Congestion is echoed mark by mark.
        DCTCP = flags::DCTCP;
        /// ECE is being echoed.
        ECE = flags::ECE;
        /// The next data segment carries CWR.
        CWR = flags::CWR;
        /// Acknowledge at once.
        QUICK_ACK = flags::QUICK_ACK;
        /// Nagle's algorithm is off.
        NO_DELAY = flags::NO_DELAY;
        /// All of them.
        ALL = flags::ALL;
    }

    /// A flow block, in host memory: what INSTALL hands over and a return brings back.
    flow_block "BLOCK_" {
        /// The flow's state, `FS_*`.
        STATE = 0;
        /// Receive ring: bus address, low word.
        RECV_LOW = 32;
        /// Its high word.
        RECV_HIGH = 33;
        /// Its size as a power of two, 0 when detached.
        RECV_SHIFT = 34;
        /// Ring position of RCV.NXT, low 32 bits of the free-running one.
        RECV_POSITION = 35;
        /// Bytes before it that the application has not freed.
        RECV_USED = 36;
        /// Send ring: bus address, low word.
        SEND_LOW = 37;
        /// Its high word.
        SEND_HIGH = 38;
        /// Its size as a power of two, 0 when detached.
        SEND_SHIFT = 39;
        /// Ring position of SND.UNA.
        SEND_POSITION = 40;
        /// Return: the flow's generation.
        GENERATION = 41;
        /// Return: bumps applied.
        BUMPS = 42;
        /// Return: 1 when something is outstanding.
        OUTSTANDING = 43;
        /// Return: where the retransmission timer runs from, milliseconds.
        OUTSTANDING_MS = 44;
        /// Nanoseconds within the millisecond.
        OUTSTANDING_NS = 45;
    }

    /// What the NIC keeps of a flow besides its state, as the software NIC's `fast::Local`: words of a flow entry.
    flow_local "FL_" {
        /// `LOCAL_*` and, in bits 8 to 15, ACKs left in quick ACK mode.
        FLAGS = 32;
        /// Largest window the peer ever offered.
        MAX_SND_WND = 33;
        /// End of the last segment sent that was not full.
        SND_SML = 34;
        /// The peer's segment size as far as seen.
        RCV_MSS = 35;
        /// End of the segment timed for a round-trip sample.
        TIMED_END = 36;
        /// When it was sent, milliseconds.
        TIMED_MS = 37;
        /// Nanoseconds within the millisecond.
        TIMED_NS = 38;
        /// Where the retransmission timer runs from, milliseconds.
        OUTSTANDING_MS = 39;
        /// Nanoseconds within the millisecond.
        OUTSTANDING_NS = 40;
        /// When the next paced segment may go, milliseconds.
        PACE_MS = 41;
        /// Nanoseconds within the millisecond.
        PACE_NS = 42;
    }

    /// Bits of `FL_FLAGS`.
    local_flag "LOCAL_" {
        /// A segment is being timed.
        TIMED = 1 << 0;
        /// Something is outstanding.
        OUTSTANDING = 1 << 1;
        /// An ACK must not wait.
        ACK_NOW = 1 << 2;
        /// The peer reported congestion since the last CWR.
        ECE_SEEN = 1 << 3;
        /// Sending is paced, from `FL_PACE_MS` on.
        PACED = 1 << 4;
    }

    /// An entry of the NIC's flow table: the state (from 0), `FL_*` (32 to 42), and these.
    flow_entry "FE_" {
        /// Counts up before and after every change: the entry is consistent between two reads of one even value.
        VERSION = 43;
        /// `FLOW_STATUS_*` in the low byte.
        STATUS = 44;
        /// Generation.
        GENERATION = 45;
        /// Bumps applied.
        BUMPS = 46;
        /// Receive ring, low word of the address.
        RECV_LOW = 47;
        /// High word.
        RECV_HIGH = 48;
        /// Size of it in bytes, 0 when detached.
        RECV_SIZE = 49;
        /// Position of RCV.NXT.
        RECV_POSITION = 50;
        /// Bytes before it that are not freed.
        RECV_USED = 51;
        /// Send ring, low word of the address.
        SEND_LOW = 52;
        /// High word.
        SEND_HIGH = 53;
        /// Size of it in bytes, 0 when detached.
        SEND_SIZE = 54;
        /// Position of SND.UNA.
        SEND_POSITION = 55;
        /// Not reported yet: bytes received.
        DELTA_RECEIVED = 56;
        /// Not reported yet: bytes acknowledged.
        DELTA_ACKED = 57;
        /// Not reported yet: of these with ECE.
        DELTA_ACKED_ECE = 58;
        /// Not reported yet: a round-trip sample.
        DELTA_RTT = 59;
        /// Not reported yet: `EVFLAG_*`.
        DELTA_FLAGS = 60;
        /// From here on the firmware's own.
        PRIVATE = 64;
    }

    /// Low byte of `FE_STATUS`.
    flow_status "FLOW_STATUS_" {
        /// The index is free.
        FREE = 0;
        /// The NIC carries it.
        NIC_OWNED = 1;
        /// The host carries it, frames are exceptions.
        HOST_OWNED = 2;
        /// The kernel carries it, frames go to the netdev.
        KERNEL = 3;
    }

    /// A parsed segment, as P4 or the classifier hands it to the fast path.
    packet "PKT_" {
        /// SEG.SEQ.
        SEQ = 0;
        /// SEG.ACK.
        ACK = 1;
        /// Control bits in the low byte, SEG.WND in the high half.
        FLAGS_WINDOW = 2;
        /// `PKTFLAG_*`.
        FLAGS = 3;
        /// TSval.
        TS_VAL = 4;
        /// TSecr.
        TS_ECR = 5;
        /// Type of service or traffic class in the low byte, TTL or hop limit above it.
        TTL_TOS = 6;
        /// Bytes of payload.
        PAYLOAD_LEN = 7;
        /// Where it starts in the frame.
        PAYLOAD_OFFSET = 8;
        /// Our address, four words: the destination.
        LOCAL_IP = 9;
        /// The peer's, four words.
        REMOTE_IP = 13;
        /// Our port, the peer's port.
        PORTS = 17;
        /// Words.
        WORDS = 18;
    }

    /// Bits of `PKT_FLAGS`.
    packet_flag "PKTFLAG_" {
        /// Addresses are IPv6.
        IPV6 = 1 << 0;
        /// IP options or extension headers.
        IP_OPTIONS = 1 << 1;
        /// Timestamps.
        TIMESTAMPS = 1 << 2;
        /// SACK blocks.
        SACK = 1 << 3;
        /// Other TCP options.
        OPTIONS = 1 << 4;
        /// An ICMP error that quotes a segment of ours: `PKT_SEQ` and the tuple are the quoted ones.
        ICMP = 1 << 5;
    }

    /// What the classifier says of a frame.
    verdict "VERDICT_" {
        /// A TCP segment, or an ICMP error about one.
        SEGMENT = 0;
        /// Neither: the netdev's.
        NOT_TCP = 1;
        /// Shorter than its headers say.
        TRUNCATED = 2;
        /// IP, TCP or ICMP checksum.
        BAD_CHECKSUM = 3;
        /// A fragment: the netdev's.
        FRAGMENT = 4;
        /// IP version, header length or packet length contradict each other.
        IP_HEADER = 5;
        /// An IPv6 extension header that is not for us, or too many of them.
        EXTENSION = 6;
        /// TCP data offset out of range.
        DATA_OFFSET = 7;
        /// Not from one unicast address to another.
        NOT_UNICAST = 8;
        /// Tagged for a VLAN: the netdev's.
        VLAN = 9;
    }

    /// What the fast path says of a segment.
    received "RX_" {
        /// 0: it was taken; else an exception, reason + 1.
        EXCEPTION = 0;
        /// New bytes in the receive ring.
        PAYLOAD = 1;
        /// Bytes of ours acknowledged.
        ACKED = 2;
        /// `RXFLAG_*`.
        FLAGS = 3;
        /// A round-trip sample in microseconds, 0 for none.
        RTT_MICROS = 4;
        /// SEG.ACK of the early ACK.
        EARLY_ACK = 5;
        /// Its window field.
        EARLY_WINDOW = 6;
        /// Words.
        WORDS = 7;
    }

    /// Bits of `RX_FLAGS`.
    received_flag "RXFLAG_" {
        /// The segment carried ECE.
        ECE = 1 << 0;
        /// It carried CE and data.
        CE = 1 << 1;
        /// The send window changed.
        WINDOW_CHANGED = 1 << 2;
        /// An ACK is to be sent before any other of this flow (RFC 8257).
        EARLY_ACK = 1 << 3;
        /// It carries ECE.
        EARLY_ECE = 1 << 4;
    }

    /// What the fast path says of sending.
    send "TX_" {
        /// `WAIT_*`, 0 for a segment to send.
        WAIT = 0;
        /// Where its payload starts in the send ring, from SND.UNA.
        OFFSET = 1;
        /// Bytes of payload.
        LENGTH = 2;
        /// What it is cut into when it is longer.
        MSS = 3;
        /// 1: it ends what the application wrote.
        PUSH = 4;
        /// Words.
        WORDS = 5;
    }

    /// Why nothing is sent.
    wait "WAIT_" {
        /// Something is.
        NONE = 0;
        /// Nothing to send.
        IDLE = 1;
        /// Nagle's algorithm holds a small segment.
        NAGLE = 2;
        /// The congestion window is full.
        CWND = 3;
        /// The peer's window is full.
        WINDOW = 4;
        /// It is full and nothing is in flight whose ACK could open it.
        STALLED = 5;
    }

    /// When to acknowledge.
    ack_due "DUE_" {
        /// Nothing to acknowledge.
        NOTHING = 0;
        /// The ACK may wait for the delayed-ACK timer.
        DELAYED = 1;
        /// It may not.
        NOW = 2;
    }
}

const _: () = assert!(
    flow_state::WORDS <= flow_local::FLAGS,
    "what follows the state has its place"
);
const _: () = assert!(size_of::<FlowState>().is_multiple_of(4));
