//! A flow: its state, its block in host memory, its entry on the card.

use core::mem::offset_of;

use crate::flow::{FlowState, flags};

use super::table::tables;

/// Index of a field of [`FlowState`].
macro_rules! state_word {
    ($field:ident) => {
        (offset_of!(FlowState, $field) / 4) as u32
    };
}

tables! {
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
        /// Largest window the peer ever offered.
        MAX_SND_WND = state_word!(max_snd_wnd);
        /// End of the last segment sent that was not full.
        SND_SML = state_word!(snd_sml);
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
        /// Replies carry the ACKs: what is pushed may wait for one.
        CONVERSATION = flags::CONVERSATION;
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
        /// Data arrived since data was last sent.
        HEARD = 1 << 5;
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
}

const _: () = assert!(
    flow_state::WORDS <= flow_local::FLAGS,
    "what follows the state has its place"
);
const _: () = assert!(size_of::<FlowState>().is_multiple_of(4));
