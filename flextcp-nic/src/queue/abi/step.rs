//! What the parts of the fast path tell each other: the packet, the verdict, what to send and to acknowledge.

use super::table::tables;

tables! {
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
        /// A fragment.
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
