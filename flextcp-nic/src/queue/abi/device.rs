//! The card as a whole: registers of the BAR, queues, counters.

use super::table::tables;

tables! {
    /// Sizes and versions.
    constant "" {
        /// First word of the BAR: "FXTC".
        MAGIC = 0x4658_5443;
        /// Major version in the high half: a driver refuses another one. Minor version in the low half: only additions.
        ABI_VERSION = 0x0001_0001;
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
        /// Filter rules that a card holds.
        FILTER_MAX = 512;
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
        /// Host: filter rules there are, at most `FILTER_MAX`; written after the rules, before the first `LISTEN`.
        FILTER = 42;
        /// First of the region registers.
        REGIONS = 0x100;
        /// First of the queue registers.
        QUEUE_BASE = 0x400;
        /// First of the counters.
        COUNTERS = 0x1000;
        /// First of the filter's rules.
        FILTER_RULES = 0x2000;
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

    /// A rule of the filter: `REG_FILTER_RULES + i * 8 + word`. Of those that match a segment of no flow the first decides
    /// whether it is let in; none lets it in. Host writes.
    filter_rule "RULE_" {
        /// The peer's addresses: first of four words, as in the flow state.
        REMOTE_IP = 0;
        /// The prefix's bits in the low byte, our port in the high half, `RULEFLAG_*` between them.
        MATCH = 4;
        /// Words of a rule.
        STRIDE = 8;
    }

    /// Bits of `RULE_MATCH`.
    rule_flag "RULEFLAG_" {
        /// What matches is dropped and counted.
        DENY = 1 << 8;
        /// Matches IPv4.
        IPV4 = 1 << 9;
        /// Matches IPv6.
        IPV6 = 1 << 10;
        /// Matches one port of ours.
        PORT = 1 << 11;
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
        /// Applies filter rules.
        FILTER = 1 << 9;
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
}
