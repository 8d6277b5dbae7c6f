/* Generated from the tables in flextcp-nic/src/queue/abi: change these, then run
 *   FLEXTCP_WRITE_ABI=1 cargo test -p flextcp-nic --lib queue::generate
 */
#ifndef FLEXTCP_ABI_H
#define FLEXTCP_ABI_H

/* Sizes and versions. */
#define FX_MAGIC 0x46585443u /* First word of the BAR: "FXTC". */
#define FX_ABI_VERSION 0x00010001u /* Major version in the high half: a driver refuses another one. Minor version in the low half: only additions. */
#define FX_DESCRIPTOR_WORDS 8u /* Words of a descriptor. */
#define FX_EVENT_WORDS 16u /* Words of an event. */
#define FX_FLOW_BLOCK_WORDS 64u /* Words of a flow block in host memory. */
#define FX_FLOW_ENTRY_WORDS 96u /* Words of an entry of the NIC's flow table. */
#define FX_CONTROL_WORDS 32u /* Words of a queue's control block. */
#define FX_QUEUES_MAX 64u /* Most queues a card has. */
#define FX_REGIONS_MAX 64u /* Most regions of host memory. */
#define FX_RING_SHIFT_MIN 6u /* Smallest receive or send ring, as a power of two. */
#define FX_RING_SHIFT_MAX 30u /* Largest, as a power of two. */
#define FX_ENTRIES_SHIFT_MIN 3u /* Smallest and largest descriptor and event ring, in entries, as powers of two. */
#define FX_ENTRIES_SHIFT_MAX 16u /* See `ENTRIES_SHIFT_MIN`. */
#define FX_ALIGNMENT 64u /* Alignment of everything in host memory, in bytes. */
#define FX_LISTENERS_MAX 0x00001000u /* Owned addresses and ports that a card remembers. */
#define FX_FILTER_MAX 0x00000200u /* Filter rules that a card holds. */
#define FX_DELAYED_ACK_MICROS 40000u /* Microseconds that a delayed ACK waits for company, as Linux's 40 ms, unless the register says otherwise. */
#define FX_QUANTUM 0x00010000u /* Bytes a flow may send before the next one has its turn. */

/* The card: word offsets in the BAR. */
#define FX_REG_MAGIC 0u /* NIC: `MAGIC`, or anything else while the firmware is not running. */
#define FX_REG_ABI_VERSION 1u /* NIC: `ABI_VERSION`. */
#define FX_REG_FIRMWARE_VERSION 2u /* NIC: version of the firmware, major, minor and patch in 8, 8 and 16 bits. */
#define FX_REG_CAPABILITIES 3u /* NIC: `CAP_*`. */
#define FX_REG_STATUS 4u /* NIC: `STATUS_*`. */
#define FX_REG_FAILURE 5u /* NIC: `FAILURE_*`, when the status is FAILED. */
#define FX_REG_FAILURE_DETAIL 6u /* NIC: what the failure is about (queue, address, ...). */
#define FX_REG_RESET 7u /* Host: a value other than `RESET_DONE` asks for a reset. */
#define FX_REG_RESET_DONE 8u /* NIC: the last reset that was done. */
#define FX_REG_EPOCH 9u /* NIC: counts up with every start and every reset. */
#define FX_REG_HEARTBEAT 10u /* NIC: counts up while the firmware runs. */
#define FX_REG_QUEUES 11u /* NIC: queues it has. */
#define FX_REG_FLOWS_PER_QUEUE 12u /* NIC: flow indices of each queue. */
#define FX_REG_GROUPS 13u /* NIC: flow groups, a power of two; flow `index` belongs to group `index % groups`, and each group to one engine. */
#define FX_REG_MTU 14u /* NIC: bytes of an IP packet on the wire. */
#define FX_REG_MAC_HIGH 15u /* NIC: own hardware address, first four bytes, the first one highest. */
#define FX_REG_MAC_LOW 16u /* NIC: last two bytes, in the high half. */
#define FX_REG_CONFIG 17u /* Host: `CONFIG_*`. */
#define FX_REG_HASH_KEY_LOW 18u /* Host: secret key of the flow table's hash, random, before the first install. */
#define FX_REG_HASH_KEY_HIGH 19u /* Host: its other half. */
#define FX_REG_CLOCK_MS 20u /* Host: milliseconds of the clock to set. */
#define FX_REG_CLOCK_NS 21u /* Host: nanoseconds within the millisecond. */
#define FX_REG_CLOCK_SET 22u /* Host: 1 sets the clock. NIC: 0 when it is set. */
#define FX_REG_DELAYED_ACK 23u /* Host: microseconds that an ACK may wait for company; 0 is the default. */
#define FX_REG_FLOW_TABLE 24u /* NIC: word offset of the flow table in the BAR, or 0 when the BAR does not show it. */
#define FX_REG_TIMER_VALID 25u /* NIC: 1 when `TIMER_MS` and `TIMER_NS` are valid, which only a NIC in virtual time keeps. */
#define FX_REG_TIMER_MS 26u /* NIC: when it next has work by the clock, in milliseconds. */
#define FX_REG_TIMER_NS 27u /* NIC: nanoseconds within the millisecond. */
#define FX_REG_SUPER_FRAME 28u /* Host: largest payload of one segment that the wire port cuts itself (TSO), 0 for none. Only an emulated NIC's. */
#define FX_REG_RSS_MASK 29u /* Host: mask of the receive-side scaling: which queue an exception without a flow goes to is `hash & mask`. */
#define FX_REG_CLOCK_OFFSET_MS 30u /* NIC: what the host's clock is ahead of the card's own, milliseconds. */
#define FX_REG_CLOCK_OFFSET_NS 31u /* NIC: nanoseconds within the millisecond. */
#define FX_REG_RSS_KEY 32u /* Where the host-written RSS (Toeplitz) key of ten words starts. */
#define FX_REG_FILTER 42u /* Host: filter rules there are, at most `FILTER_MAX`; written after the rules, before the first `LISTEN`. */
#define FX_REG_REGIONS 0x00000100u /* First of the region registers. */
#define FX_REG_QUEUE_BASE 0x00000400u /* First of the queue registers. */
#define FX_REG_COUNTERS 0x00001000u /* First of the counters. */
#define FX_REG_FILTER_RULES 0x00002000u /* First of the filter's rules. */
#define FX_REG_END 12288u /* Words of all this: the flow table may follow from here. */

/* A region of host memory that the NIC may touch: `REG_REGIONS + i * 4 + word`. A length of 0 is no region. Host writes. */
#define FX_REGION_ADDRESS_LOW 0u /* Bus address, low word. */
#define FX_REGION_ADDRESS_HIGH 1u /* Bus address, high word. */
#define FX_REGION_LENGTH 2u /* Length in bytes. */
#define FX_REGION_STRIDE 4u /* Words of a region. */

/* A rule of the filter: `REG_FILTER_RULES + i * 8 + word`. Of those that match a segment of no flow the first decides whether it is let in; none lets it in. Host writes. */
#define FX_RULE_REMOTE_IP 0u /* The peer's addresses: first of four words, as in the flow state. */
#define FX_RULE_MATCH 4u /* The prefix's bits in the low byte, our port in the high half, `RULEFLAG_*` between them. */
#define FX_RULE_STRIDE 8u /* Words of a rule. */

/* Bits of `RULE_MATCH`. */
#define FX_RULEFLAG_DENY 0x00000100u /* What matches is dropped and counted. */
#define FX_RULEFLAG_IPV4 0x00000200u /* Matches IPv4. */
#define FX_RULEFLAG_IPV6 0x00000400u /* Matches IPv6. */
#define FX_RULEFLAG_PORT 0x00000800u /* Matches one port of ours. */

/* A queue: `REG_QUEUE_BASE + queue * 32 + word`. */
#define FX_QUEUE_ENABLE 0u /* Host: 1 starts the queue, 0 stops it. */
#define FX_QUEUE_STATUS 1u /* NIC: `QSTATUS_*`. */
#define FX_QUEUE_DESCRIPTORS_LOW 2u /* Host: bus address of the descriptor ring, low word. */
#define FX_QUEUE_DESCRIPTORS_HIGH 3u /* Its high word. */
#define FX_QUEUE_DESCRIPTORS_SHIFT 4u /* Host: descriptors in the ring, as a power of two. */
#define FX_QUEUE_EVENTS_LOW 5u /* Host: bus address of the event ring, low word. */
#define FX_QUEUE_EVENTS_HIGH 6u /* Its high word. */
#define FX_QUEUE_EVENTS_SHIFT 7u /* Host: events in the ring, as a power of two. */
#define FX_QUEUE_CONTROL_LOW 8u /* Host: bus address of the control block, low word. */
#define FX_QUEUE_CONTROL_HIGH 9u /* Its high word. */
#define FX_QUEUE_BLOCKS_LOW 10u /* Host: bus address of the flow blocks, low word; block i is `i * FLOW_BLOCK_WORDS` words further. */
#define FX_QUEUE_BLOCKS_HIGH 11u /* Its high word. */
#define FX_QUEUE_BLOCKS 12u /* Host: flow blocks there are, at most `FLOWS_PER_QUEUE`. */
#define FX_QUEUE_FRAMES_LOW 13u /* Host: bus address of the frame slots, low word: one for each event, at `(position modulo events) * FRAME_SIZE`. */
#define FX_QUEUE_FRAMES_HIGH 14u /* Its high word. */
#define FX_QUEUE_FRAME_SIZE 15u /* Host: bytes of a frame slot, a multiple of 64. Longer exception frames are dropped. */
#define FX_QUEUE_DESCRIPTOR_TAIL 16u /* Host, doorbell: descriptors written, free-running. */
#define FX_QUEUE_EVENT_HEAD 17u /* Host, doorbell: events consumed, free-running. Frame slots are given back with their events. */
#define FX_QUEUE_ARM 18u /* Host, doorbell: events consumed when it went to sleep. */
#define FX_QUEUE_ARM_COUNT 19u /* Host, doorbell: counts up after `ARM` was written; this arms the interrupt. */
#define FX_QUEUE_INTERRUPTS 20u /* NIC: interrupts raised. */
#define FX_QUEUE_STRIDE 32u /* Words of a queue. */

/* The control block of a queue, in host memory. NIC writes. */
#define FX_CONTROL_DESCRIPTORS_TAKEN 0u /* Descriptors taken, free-running. */
#define FX_CONTROL_FRAMES_SENT 1u /* Raw frames (`SEND_FRAME`) that were read, free-running: their memory is the host's again. */
#define FX_CONTROL_NEED_WAKEUP 16u /* 1: the NIC sleeps, kick it after a doorbell. */

/* Counters of a queue: `REG_COUNTERS + queue * 64 + counter * 2`, low word first. NIC writes, they only grow. */
#define FX_COUNT_FAST_FRAMES_IN 0u /* Frames the fast path took in. */
#define FX_COUNT_FAST_FRAMES_OUT 1u /* Frames it sent. */
#define FX_COUNT_FAST_BYTES_IN 2u /* Payload bytes it took in. */
#define FX_COUNT_FAST_BYTES_OUT 3u /* Payload bytes it sent. */
#define FX_COUNT_FAST_ACKS_OUT 4u /* Pure ACKs it sent. */
#define FX_COUNT_SLOW_FRAMES_OUT 5u /* Raw frames sent for the host. */
#define FX_COUNT_SLOW_FRAMES_IN 6u /* Exceptions. */
#define FX_COUNT_MALFORMED 7u /* Frames dropped: malformed headers. */
#define FX_COUNT_BAD_CHECKSUM 8u /* Frames dropped: wrong checksum. */
#define FX_COUNT_FILTERED 9u /* Frames dropped: refused by a filter, or ICMP errors about what is not in flight. */
#define FX_COUNT_NO_SLOT 10u /* Exception frames dropped: no event free, or longer than a frame slot. */
#define FX_COUNT_INSTALLED 11u /* Flows installed. */
#define FX_COUNT_PUNTED 12u /* Flows returned without being asked for. */
#define FX_COUNT_CLAIMED 13u /* Flows claimed. */
#define FX_COUNT_BAD_DESCRIPTORS 14u /* Descriptors refused, in whole or as duplicates. */
#define FX_COUNT_BAD_ADDRESSES 15u /* DMA refused: outside of every region. */
#define FX_COUNT_EVENTS 16u /* Events posted. */
#define FX_COUNT_NETDEV 17u /* Frames passed to the netdev. */
#define FX_COUNT_STRIDE 64u /* Words per queue. */

/* Bits of `REG_CAPABILITIES`. */
#define FX_CAP_IPV4 1u /* IPv4 flows. */
#define FX_CAP_IPV6 2u /* IPv6 flows. */
#define FX_CAP_TIMESTAMPS 4u /* Flows with timestamps. */
#define FX_CAP_ECN 8u /* Flows with ECN, DCTCP's too. */
#define FX_CAP_PACING 16u /* Pacing. */
#define FX_CAP_RX_CHECKSUM 32u /* Verifies TCP checksums of received frames. */
#define FX_CAP_TX_CHECKSUM 64u /* Completes TCP checksums of raw frames (`FRAME_CHECKSUM`). */
#define FX_CAP_TIMER 128u /* Virtual time: the timer registers are kept. */
#define FX_CAP_EMULATED 0x00000100u /* The firmware runs in an emulator. */
#define FX_CAP_FILTER 0x00000200u /* Applies filter rules. */

/* Bits of `REG_CONFIG`. */
#define FX_CONFIG_OWN_ALL 1u /* Frames for every address and port that no flow has are exceptions, not the netdev's: the wire is ours alone. */
#define FX_CONFIG_PARTIAL_CHECKSUM 2u /* Take a partial checksum (the pseudo-header's sum) of a received frame for a right one. */
#define FX_CONFIG_TX_CHECKSUM 4u /* Let the wire port complete TCP checksums. */
#define FX_CONFIG_HOLD_ACKS 8u /* The ACK of received payload waits for the host's next bump of the flow, so that a reply can carry it, but no longer than a delayed one. The host bumps every flow of which it was notified, if only by nothing. */

/* `REG_STATUS`. */
#define FX_STATUS_RESETTING 1u /* Being reset. */
#define FX_STATUS_READY 2u /* Running. */
#define FX_STATUS_FAILED 3u /* Stopped: see `REG_FAILURE`; a reset starts it again. */

/* `REG_FAILURE`. */
#define FX_FAILURE_NONE 0u /* None. */
#define FX_FAILURE_DMA 1u /* A DMA failed on the bus. */
#define FX_FAILURE_INTERNAL 2u /* An engine found its own state impossible. */

/* `QUEUE_STATUS`. */
#define FX_QSTATUS_STOPPED 0u /* Not enabled. */
#define FX_QSTATUS_RUNNING 1u /* Running. */
#define FX_QSTATUS_BAD_SIZE 2u /* A ring's size is out of range. */
#define FX_QSTATUS_BAD_ADDRESS 3u /* A ring, a block or a frame slot is misaligned or outside of every region. */
#define FX_QSTATUS_BAD_SEQUENCE 4u /* A descriptor's sequence was not the expected one, or a doorbell ran beyond the ring. */

/* A descriptor, host to NIC. Words 3 to 6 depend on the operation. */
#define FX_DESC_OPERATION 0u /* `OP_*` in the low byte; flags of the operation above. */
#define FX_DESC_FLOW 1u /* Flow index. */
#define FX_DESC_GENERATION 2u /* Its generation. */
#define FX_DESC_BUMP_SEQUENCE 3u /* BUMP: the flow's bump sequence. */
#define FX_DESC_BUMP_SENT 4u /* BUMP: bytes written into the send ring. */
#define FX_DESC_BUMP_FREED 5u /* BUMP: bytes freed in the receive ring. */
#define FX_DESC_INSTALL_FLAGS 3u /* INSTALL: `INSTALL_*`. */
#define FX_DESC_LIMITS_CWND 3u /* LIMITS: congestion window in bytes. */
#define FX_DESC_LIMITS_PACING_RATE 4u /* LIMITS: pacing rate in bytes per millisecond, 0 for none. */
#define FX_DESC_RING_LOW 3u /* RECV_RING, SEND_RING: bus address, low word. */
#define FX_DESC_RING_HIGH 4u /* Its high word. */
#define FX_DESC_RING_SHIFT 5u /* RECV_RING, SEND_RING: size in bytes, as a power of two, or 0 to detach. */
#define FX_DESC_TAG 6u /* All that complete: echoed in the completion. LIMITS and BUMP have none. */
#define FX_DESC_FRAME_LENGTH 1u /* SEND_FRAME: bytes of the frame; flags are `FRAME_*`, above the operation. */
#define FX_DESC_FRAME_LOW 3u /* SEND_FRAME: bus address, low word. */
#define FX_DESC_FRAME_HIGH 4u /* Its high word. */
#define FX_DESC_LISTEN_PORT 1u /* LISTEN, UNLISTEN: port in the low half, `LISTEN_*` above it. */
#define FX_DESC_LISTEN_ADDRESS 2u /* LISTEN, UNLISTEN: first of four words of the address, as in the flow state; all zero is any. */
#define FX_DESC_SEQUENCE 7u /* Sequence: position + 1. */

/* What a descriptor asks for. */
#define FX_OP_NOP 0u /* Nothing; keeps its place in the ring. */
#define FX_OP_BUMP 1u /* The application wrote or read. */
#define FX_OP_INSTALL 2u /* The flow block of that index is filled: take the flow. Completes. */
#define FX_OP_CLAIM 3u /* Give the flow back: a RETURNED event, or a completion that says why not. */
#define FX_OP_REMOVE 4u /* Forget the flow. Completes. */
#define FX_OP_LIMITS 5u /* What the slow path sets and the fast path enforces. */
#define FX_OP_RECV_RING 6u /* Use another receive ring. Completes. */
#define FX_OP_SEND_RING 7u /* Use another send ring. Completes. */
#define FX_OP_LISTEN 8u /* Frames for this address and port are ours; once more, with other flags. Completes, `TAG` being word 6. */
#define FX_OP_UNLISTEN 9u /* They are the netdev's again. Completes. */
#define FX_OP_SEND_FRAME 10u /* Send a frame of the slow path; `CONTROL_FRAMES_SENT` tells when it was read. */
#define FX_OP_SNAPSHOT 11u /* Read the flow's state into its block without taking it. Completes when it is there. */

/* Bits of `DESC_LISTEN_PORT`. */
#define FX_LISTEN_IPV6 0x00010000u /* An IPv6 address. */
#define FX_LISTEN_CONNECTS 0x00020000u /* LISTEN: connections have it and nobody listens there, so that the filter keeps nobody out. */

/* `DESC_INSTALL_FLAGS`. */
#define FX_INSTALL_KERNEL 1u /* Frames of the tuple go to the netdev; the block needs only tuple and flags. */

/* Flags of a SEND_FRAME, in bits 8 and up of word 0. */
#define FX_FRAME_CHECKSUM 0x00000100u /* The TCP checksum field holds the pseudo-header's sum: complete it. */

/* An event, NIC to host. Words 3 to 14 depend on the kind. */
#define FX_EVENT_KIND 0u /* `KIND_*` in the low byte; `EVFLAG_*` above. */
#define FX_EVENT_FLOW 1u /* Flow index, `NO_FLOW` when there is none. */
#define FX_EVENT_GENERATION 2u /* Its generation. */
#define FX_EVENT_RECEIVED 3u /* NOTIFICATION: bytes that arrived in order, since the last one. */
#define FX_EVENT_ACKED 4u /* NOTIFICATION: bytes acknowledged, since the last one. */
#define FX_EVENT_ACKED_ECE 5u /* NOTIFICATION: of these, bytes acknowledged with ECE. */
#define FX_EVENT_SND_WND 6u /* NOTIFICATION: the send window that the peer grants now, in bytes. */
#define FX_EVENT_IN_FLIGHT 7u /* NOTIFICATION: bytes in flight. */
#define FX_EVENT_RTT_MICROS 8u /* NOTIFICATION: a round-trip sample in microseconds, 0 for none. */
#define FX_EVENT_OUTSTANDING_MS 9u /* NOTIFICATION: where the retransmission timer runs from, milliseconds (valid with `EVFLAG_OUTSTANDING`). */
#define FX_EVENT_OUTSTANDING_NS 10u /* Nanoseconds within the millisecond. */
#define FX_EVENT_BUMPS 11u /* NOTIFICATION, RETURNED and EXCEPTION with `EVFLAG_RETURNED`: bumps applied so far. */
#define FX_EVENT_REASON 3u /* EXCEPTION: `REASON_*`. RETURNED: `CAUSE_*`. */
#define FX_EVENT_FRAME_LENGTH 4u /* EXCEPTION: bytes of the frame, in the slot of this event. */
#define FX_EVENT_TAG 3u /* COMPLETION: the descriptor's tag. */
#define FX_EVENT_RESULT 4u /* COMPLETION: `DONE_*`. */
#define FX_EVENT_OPERATION 5u /* COMPLETION: the descriptor's operation. */
#define FX_EVENT_POSITION 6u /* COMPLETION of RECV_RING: from this position on, low word, bytes are in the new memory. */
#define FX_EVENT_SEQUENCE 15u /* Sequence: position + 1. */
#define FX_EVENT_NO_FLOW 0xffffffffu /* Flow index of an event without a flow. */

/* What an event reports. */
#define FX_KIND_NOTIFICATION 1u /* Deltas of a flow. */
#define FX_KIND_EXCEPTION 2u /* A frame for the slow path. */
#define FX_KIND_RETURNED 3u /* A flow comes back without a frame. */
#define FX_KIND_COMPLETION 4u /* A descriptor was carried out, or why not. */

/* Flags of events, in bits 8 and up of word 0. */
#define FX_EVFLAG_RETURNED 0x00000100u /* EXCEPTION: the flow comes back with this frame; its block holds the state. */
#define FX_EVFLAG_CONGESTION_EXPERIENCED 0x00000200u /* NOTIFICATION: a data segment carried CE. */
#define FX_EVFLAG_CWND_LIMITED 0x00000400u /* NOTIFICATION: sending was limited by cwnd. */
#define FX_EVFLAG_OUTSTANDING 0x00000800u /* NOTIFICATION: something is outstanding. */

/* `EVENT_RESULT`. */
#define FX_DONE_OK 0u /* Carried out. */
#define FX_DONE_STALE 1u /* No such flow: the generation is over, or the flow is the host's already. */
#define FX_DONE_NOT_YOURS 2u /* The flow index is not the queue's. */
#define FX_DONE_IN_USE 3u /* The index is in use, or the ring that is to go. */
#define FX_DONE_TABLE_FULL 4u /* The flow table is full where this flow would go. */
#define FX_DONE_DUPLICATE 5u /* The tuple is installed already. */
#define FX_DONE_UNSUPPORTED 6u /* The NIC cannot carry such a flow: unknown flags. */
#define FX_DONE_BAD_RING 7u /* A ring is misaligned, of an impossible size, too small for what is in it, or outside of every region. */
#define FX_DONE_BAD_STATE 8u /* The state contradicts itself: SND.UNA, SND.NXT, what was written, windows. */
#define FX_DONE_BAD_OPERATION 9u /* No such operation. */
#define FX_DONE_BAD_FRAME 10u /* A frame's length or address is impossible. */

/* Why a flow came back without a frame: `EVENT_REASON` of RETURNED. */
#define FX_CAUSE_CLAIMED 0u /* The host claimed it. */
#define FX_CAUSE_STALLED 1u /* The peer's window is shut and nothing in flight can open it. */
#define FX_CAUSE_BAD_BUMP 2u /* A bump came out of sequence, or ran beyond a ring. */
#define FX_CAUSE_BAD_ADDRESS 3u /* Payload could not be moved: the address was refused. */
#define FX_CAUSE_FRAME_DROPPED 4u /* It was punted by a frame that was too long for a slot, or for which no event was free. */

/* Why a frame is an exception: `Reason`, by index. */
#define FX_REASON_NO_FLOW 0u /* No such flow. */
#define FX_REASON_FLAGS 1u /* SYN, FIN, RST or URG, or no ACK. */
#define FX_REASON_OUT_OF_ORDER 2u /* Does not start at RCV.NXT. */
#define FX_REASON_DUPLICATE_ACK 3u /* Duplicate ACK with data outstanding. */
#define FX_REASON_SACK 4u /* Carries SACK blocks. */
#define FX_REASON_PAWS 5u /* Timestamp older than TS.Recent, or missing. */
#define FX_REASON_ACK_OUT_OF_WINDOW 6u /* Acknowledges what was not sent, or is older than SND.UNA. */
#define FX_REASON_OUT_OF_WINDOW 7u /* Payload beyond the window. */
#define FX_REASON_OPTIONS 8u /* Other TCP options than timestamps. */
#define FX_REASON_ZERO_WINDOW 9u /* The peer closed its window with data waiting. */
#define FX_REASON_NO_BUFFER 10u /* No receive buffer is attached. */
#define FX_REASON_ICMP 11u /* An ICMP error about a flow of ours. */
#define FX_REASON_IP_OPTIONS 12u /* IP options or extension headers. */
#define FX_REASON_HOST_OWNED 13u /* The flow is the host's. */

/* `FlowState`, word by word: the start of flow blocks and of flow entries. */
#define FX_FS_LOCAL_IP 0u /* Local address, four words. */
#define FX_FS_REMOTE_IP 4u /* Remote address, four words. */
#define FX_FS_PORTS 8u /* Local port, remote port. */
#define FX_FS_REMOTE_MAC_HIGH 9u /* Peer's MAC, first four bytes. */
#define FX_FS_REMOTE_MAC_LOW_TTL_TOS 10u /* Its last two bytes, TTL, type of service. */
#define FX_FS_FLAGS 11u /* `FLOW_*`. */
#define FX_FS_MSS_SCALES 12u /* MSS in the high half, our window scale in bits 8 to 11, the peer's in bits 0 to 3. */
#define FX_FS_RCV_NXT 13u /* RCV.NXT. */
#define FX_FS_RCV_ADV 14u /* Right edge of the window last advertised. */
#define FX_FS_RCV_FREE 15u /* Free space in the receive ring beyond RCV.NXT. */
#define FX_FS_LAST_ACK_SENT 16u /* RCV.NXT as last acknowledged. */
#define FX_FS_TS_RECENT 17u /* TS.Recent. */
#define FX_FS_TS_OFFSET 18u /* What is added to the millisecond clock. */
#define FX_FS_SND_UNA 19u /* SND.UNA. */
#define FX_FS_SND_NXT 20u /* SND.NXT. */
#define FX_FS_SND_END 21u /* End of what the application wrote. */
#define FX_FS_SND_WND 22u /* SND.WND in bytes. */
#define FX_FS_CWND 23u /* Congestion window in bytes. */
#define FX_FS_PACING_RATE 24u /* Pacing rate in bytes per millisecond. */
#define FX_FS_ACKED_BYTES 25u /* Counter: bytes acknowledged. */
#define FX_FS_ECE_BYTES 26u /* Counter: of these with ECE. */
#define FX_FS_SEGMENTS_SENT 27u /* Counter: data segments sent. */
#define FX_FS_SEGMENTS_RECEIVED 28u /* Counter: data segments received. */
#define FX_FS_RTT_MICROS 29u /* Latest round-trip sample in microseconds. */
#define FX_FS_MAX_SND_WND 30u /* Largest window the peer ever offered. */
#define FX_FS_SND_SML 31u /* End of the last segment sent that was not full. */
#define FX_FS_WORDS 32u /* Words. */

/* Bits of `FS_FLAGS`. */
#define FX_FLOW_IPV6 1u /* Addresses are IPv6. */
#define FX_FLOW_TIMESTAMPS 2u /* Timestamps were negotiated. */
#define FX_FLOW_ECN 4u /* ECN was negotiated. */
#define FX_FLOW_DCTCP 8u /* Congestion is echoed mark by mark. */
#define FX_FLOW_ECE 16u /* ECE is being echoed. */
#define FX_FLOW_CWR 32u /* The next data segment carries CWR. */
#define FX_FLOW_QUICK_ACK 64u /* Acknowledge at once. */
#define FX_FLOW_NO_DELAY 128u /* Nagle's algorithm is off. */
#define FX_FLOW_CONVERSATION 0x00000100u /* Replies carry the ACKs: what is pushed may wait for one. */
#define FX_FLOW_ALL 511u /* All of them. */

/* A flow block, in host memory: what INSTALL hands over and a return brings back. */
#define FX_BLOCK_STATE 0u /* The flow's state, `FS_*`. */
#define FX_BLOCK_RECV_LOW 32u /* Receive ring: bus address, low word. */
#define FX_BLOCK_RECV_HIGH 33u /* Its high word. */
#define FX_BLOCK_RECV_SHIFT 34u /* Its size as a power of two, 0 when detached. */
#define FX_BLOCK_RECV_POSITION 35u /* Ring position of RCV.NXT, low 32 bits of the free-running one. */
#define FX_BLOCK_RECV_USED 36u /* Bytes before it that the application has not freed. */
#define FX_BLOCK_SEND_LOW 37u /* Send ring: bus address, low word. */
#define FX_BLOCK_SEND_HIGH 38u /* Its high word. */
#define FX_BLOCK_SEND_SHIFT 39u /* Its size as a power of two, 0 when detached. */
#define FX_BLOCK_SEND_POSITION 40u /* Ring position of SND.UNA. */
#define FX_BLOCK_GENERATION 41u /* Return: the flow's generation. */
#define FX_BLOCK_BUMPS 42u /* Return: bumps applied. */
#define FX_BLOCK_OUTSTANDING 43u /* Return: 1 when something is outstanding. */
#define FX_BLOCK_OUTSTANDING_MS 44u /* Return: where the retransmission timer runs from, milliseconds. */
#define FX_BLOCK_OUTSTANDING_NS 45u /* Nanoseconds within the millisecond. */

/* What the NIC keeps of a flow besides its state, as the software NIC's `fast::Local`: words of a flow entry. */
#define FX_FL_FLAGS 32u /* `LOCAL_*` and, in bits 8 to 15, ACKs left in quick ACK mode. */
#define FX_FL_RCV_MSS 35u /* The peer's segment size as far as seen. */
#define FX_FL_TIMED_END 36u /* End of the segment timed for a round-trip sample. */
#define FX_FL_TIMED_MS 37u /* When it was sent, milliseconds. */
#define FX_FL_TIMED_NS 38u /* Nanoseconds within the millisecond. */
#define FX_FL_OUTSTANDING_MS 39u /* Where the retransmission timer runs from, milliseconds. */
#define FX_FL_OUTSTANDING_NS 40u /* Nanoseconds within the millisecond. */
#define FX_FL_PACE_MS 41u /* When the next paced segment may go, milliseconds. */
#define FX_FL_PACE_NS 42u /* Nanoseconds within the millisecond. */

/* Bits of `FL_FLAGS`. */
#define FX_LOCAL_TIMED 1u /* A segment is being timed. */
#define FX_LOCAL_OUTSTANDING 2u /* Something is outstanding. */
#define FX_LOCAL_ACK_NOW 4u /* An ACK must not wait. */
#define FX_LOCAL_ECE_SEEN 8u /* The peer reported congestion since the last CWR. */
#define FX_LOCAL_PACED 16u /* Sending is paced, from `FL_PACE_MS` on. */
#define FX_LOCAL_HEARD 32u /* Data arrived since data was last sent. */

/* An entry of the NIC's flow table: the state (from 0), `FL_*` (32 to 42), and these. */
#define FX_FE_VERSION 43u /* Counts up before and after every change: the entry is consistent between two reads of one even value. */
#define FX_FE_STATUS 44u /* `FLOW_STATUS_*` in the low byte. */
#define FX_FE_GENERATION 45u /* Generation. */
#define FX_FE_BUMPS 46u /* Bumps applied. */
#define FX_FE_RECV_LOW 47u /* Receive ring, low word of the address. */
#define FX_FE_RECV_HIGH 48u /* High word. */
#define FX_FE_RECV_SIZE 49u /* Size of it in bytes, 0 when detached. */
#define FX_FE_RECV_POSITION 50u /* Position of RCV.NXT. */
#define FX_FE_RECV_USED 51u /* Bytes before it that are not freed. */
#define FX_FE_SEND_LOW 52u /* Send ring, low word of the address. */
#define FX_FE_SEND_HIGH 53u /* High word. */
#define FX_FE_SEND_SIZE 54u /* Size of it in bytes, 0 when detached. */
#define FX_FE_SEND_POSITION 55u /* Position of SND.UNA. */
#define FX_FE_DELTA_RECEIVED 56u /* Not reported yet: bytes received. */
#define FX_FE_DELTA_ACKED 57u /* Not reported yet: bytes acknowledged. */
#define FX_FE_DELTA_ACKED_ECE 58u /* Not reported yet: of these with ECE. */
#define FX_FE_DELTA_RTT 59u /* Not reported yet: a round-trip sample. */
#define FX_FE_DELTA_FLAGS 60u /* Not reported yet: `EVFLAG_*`. */
#define FX_FE_PRIVATE 64u /* From here on the firmware's own. */

/* Low byte of `FE_STATUS`. */
#define FX_FLOW_STATUS_FREE 0u /* The index is free. */
#define FX_FLOW_STATUS_NIC_OWNED 1u /* The NIC carries it. */
#define FX_FLOW_STATUS_HOST_OWNED 2u /* The host carries it, frames are exceptions. */
#define FX_FLOW_STATUS_KERNEL 3u /* The kernel carries it, frames go to the netdev. */

/* A parsed segment, as P4 or the classifier hands it to the fast path. */
#define FX_PKT_SEQ 0u /* SEG.SEQ. */
#define FX_PKT_ACK 1u /* SEG.ACK. */
#define FX_PKT_FLAGS_WINDOW 2u /* Control bits in the low byte, SEG.WND in the high half. */
#define FX_PKT_FLAGS 3u /* `PKTFLAG_*`. */
#define FX_PKT_TS_VAL 4u /* TSval. */
#define FX_PKT_TS_ECR 5u /* TSecr. */
#define FX_PKT_TTL_TOS 6u /* Type of service or traffic class in the low byte, TTL or hop limit above it. */
#define FX_PKT_PAYLOAD_LEN 7u /* Bytes of payload. */
#define FX_PKT_PAYLOAD_OFFSET 8u /* Where it starts in the frame. */
#define FX_PKT_LOCAL_IP 9u /* Our address, four words: the destination. */
#define FX_PKT_REMOTE_IP 13u /* The peer's, four words. */
#define FX_PKT_PORTS 17u /* Our port, the peer's port. */
#define FX_PKT_WORDS 18u /* Words. */

/* Bits of `PKT_FLAGS`. */
#define FX_PKTFLAG_IPV6 1u /* Addresses are IPv6. */
#define FX_PKTFLAG_IP_OPTIONS 2u /* IP options or extension headers. */
#define FX_PKTFLAG_TIMESTAMPS 4u /* Timestamps. */
#define FX_PKTFLAG_SACK 8u /* SACK blocks. */
#define FX_PKTFLAG_OPTIONS 16u /* Other TCP options. */
#define FX_PKTFLAG_ICMP 32u /* An ICMP error that quotes a segment of ours: `PKT_SEQ` and the tuple are the quoted ones. */

/* What the classifier says of a frame. */
#define FX_VERDICT_SEGMENT 0u /* A TCP segment, or an ICMP error about one. */
#define FX_VERDICT_NOT_TCP 1u /* Neither: the netdev's. */
#define FX_VERDICT_TRUNCATED 2u /* Shorter than its headers say. */
#define FX_VERDICT_BAD_CHECKSUM 3u /* IP, TCP or ICMP checksum. */
#define FX_VERDICT_FRAGMENT 4u /* A fragment. */
#define FX_VERDICT_IP_HEADER 5u /* IP version, header length or packet length contradict each other. */
#define FX_VERDICT_EXTENSION 6u /* An IPv6 extension header that is not for us, or too many of them. */
#define FX_VERDICT_DATA_OFFSET 7u /* TCP data offset out of range. */
#define FX_VERDICT_NOT_UNICAST 8u /* Not from one unicast address to another. */
#define FX_VERDICT_VLAN 9u /* Tagged for a VLAN: the netdev's. */

/* What the fast path says of a segment. */
#define FX_RX_EXCEPTION 0u /* 0: it was taken; else an exception, reason + 1. */
#define FX_RX_PAYLOAD 1u /* New bytes in the receive ring. */
#define FX_RX_ACKED 2u /* Bytes of ours acknowledged. */
#define FX_RX_FLAGS 3u /* `RXFLAG_*`. */
#define FX_RX_RTT_MICROS 4u /* A round-trip sample in microseconds, 0 for none. */
#define FX_RX_EARLY_ACK 5u /* SEG.ACK of the early ACK. */
#define FX_RX_EARLY_WINDOW 6u /* Its window field. */
#define FX_RX_WORDS 7u /* Words. */

/* Bits of `RX_FLAGS`. */
#define FX_RXFLAG_ECE 1u /* The segment carried ECE. */
#define FX_RXFLAG_CE 2u /* It carried CE and data. */
#define FX_RXFLAG_WINDOW_CHANGED 4u /* The send window changed. */
#define FX_RXFLAG_EARLY_ACK 8u /* An ACK is to be sent before any other of this flow (RFC 8257). */
#define FX_RXFLAG_EARLY_ECE 16u /* It carries ECE. */

/* What the fast path says of sending. */
#define FX_TX_WAIT 0u /* `WAIT_*`, 0 for a segment to send. */
#define FX_TX_OFFSET 1u /* Where its payload starts in the send ring, from SND.UNA. */
#define FX_TX_LENGTH 2u /* Bytes of payload. */
#define FX_TX_MSS 3u /* What it is cut into when it is longer. */
#define FX_TX_PUSH 4u /* 1: it ends what the application wrote. */
#define FX_TX_WORDS 5u /* Words. */

/* Why nothing is sent. */
#define FX_WAIT_NONE 0u /* Something is. */
#define FX_WAIT_IDLE 1u /* Nothing to send. */
#define FX_WAIT_NAGLE 2u /* Nagle's algorithm holds a small segment. */
#define FX_WAIT_CWND 3u /* The congestion window is full. */
#define FX_WAIT_WINDOW 4u /* The peer's window is full. */
#define FX_WAIT_STALLED 5u /* It is full and nothing is in flight whose ACK could open it. */

/* When to acknowledge. */
#define FX_DUE_NOTHING 0u /* Nothing to acknowledge. */
#define FX_DUE_DELAYED 1u /* The ACK may wait for the delayed-ACK timer. */
#define FX_DUE_NOW 2u /* It may not. */

#endif
