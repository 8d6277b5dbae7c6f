/* Receive: an in-order segment of an established flow, taken whole or refused with a reason. */
#include "core.h"

#define FIN 0x01u
#define PSH 0x08u
#define ACK 0x10u
#define ECE 0x40u
#define CWR 0x80u

#define exception(reason) (FX_REASON_##reason + 1u)

#define fx_mss(f) fx_max((f)[FX_FS_MSS_SCALES] >> 16, 48u)
#define fx_snd_scale(f) fx_min((f)[FX_FS_MSS_SCALES] & 0xfu, 14u)
#define fx_rcv_scale(f) fx_min(((f)[FX_FS_MSS_SCALES] >> 8) & 0xfu, 14u)

/* What `classify` says of a common segment. */
#define KIND_IN_ORDER 0u
#define KIND_PROBE 0x80u

/* Whether the segment is common case; looks at nothing but the two. Returns the kind, or an exception. */
static fx_u32 classify(FX_LOCAL const fx_u32 *f, FX_LOCAL const fx_u32 *p)
{
    fx_u32 flags = p[FX_PKT_FLAGS_WINDOW] & 0xffu;
    fx_u32 window = (p[FX_PKT_FLAGS_WINDOW] >> 16) << fx_snd_scale(f);
    fx_u32 len = p[FX_PKT_PAYLOAD_LEN];
    fx_u32 seq = p[FX_PKT_SEQ];
    fx_u32 ack = p[FX_PKT_ACK];

    if ((p[FX_PKT_FLAGS] & FX_PKTFLAG_IP_OPTIONS) != 0u) {
        return exception(IP_OPTIONS);
    }
    if ((flags & ACK) == 0u || (flags & ~(ACK | PSH | ECE | CWR)) != 0u) {
        return exception(FLAGS);
    }
    if ((p[FX_PKT_FLAGS] & FX_PKTFLAG_SACK) != 0u) {
        return exception(SACK);
    }
    if ((p[FX_PKT_FLAGS] & FX_PKTFLAG_OPTIONS) != 0u) {
        return exception(OPTIONS);
    }
    /* RFC 7323, section 3.2: once negotiated, every segment carries timestamps; otherwise they are ignored. */
    if ((f[FX_FS_FLAGS] & FX_FLOW_TIMESTAMPS) != 0u) {
        if ((p[FX_PKT_FLAGS] & FX_PKTFLAG_TIMESTAMPS) == 0u || fx_before(p[FX_PKT_TS_VAL], f[FX_FS_TS_RECENT])) {
            return exception(PAWS);
        }
    }
    if (seq != f[FX_FS_RCV_NXT]) {
        /* One byte before: a keep-alive or zero-window probe (RFC 9293, section 3.8.4). */
        if (seq + 1u != f[FX_FS_RCV_NXT] || len > 1u) {
            return exception(OUT_OF_ORDER);
        }
        if (fx_before(ack, f[FX_FS_SND_UNA]) || fx_after(ack, f[FX_FS_SND_NXT])) {
            return exception(ACK_OUT_OF_WINDOW);
        }
        return KIND_PROBE;
    }
    if (len > fx_since(f[FX_FS_RCV_ADV], f[FX_FS_RCV_NXT])) {
        return exception(OUT_OF_WINDOW);
    }
    if (fx_before(ack, f[FX_FS_SND_UNA]) || fx_after(ack, f[FX_FS_SND_NXT])) {
        return exception(ACK_OUT_OF_WINDOW);
    }
    /* RFC 5681, section 2: no data, the same window, the same ACK, and something outstanding. */
    if (ack == f[FX_FS_SND_UNA] && window == f[FX_FS_SND_WND] && len == 0u &&
        fx_since(f[FX_FS_SND_NXT], f[FX_FS_SND_UNA]) > 0u) {
        return exception(DUPLICATE_ACK);
    }
    if (window == 0u && fx_after(f[FX_FS_SND_END], ack)) {
        return exception(ZERO_WINDOW);
    }
    return KIND_IN_ORDER;
}

/* CE and CWR on a data segment: what our ACKs echo. */
static void congestion_mark(FX_LOCAL fx_u32 *f, FX_LOCAL const fx_u32 *p, FX_LOCAL fx_u32 *out)
{
    fx_u32 flags = f[FX_FS_FLAGS];
    fx_u32 ce = (p[FX_PKT_TTL_TOS] & 3u) == 3u;
    fx_u32 echo = (flags & FX_FLOW_ECE) != 0u;
    fx_u32 window;

    if ((flags & FX_FLOW_ECN) == 0u) {
        return;
    }
    if (ce) {
        out[FX_RX_FLAGS] |= FX_RXFLAG_CE;
    }
    if ((flags & FX_FLOW_DCTCP) == 0u) {
        /* RFC 3168, section 6.1.3: from the first CE on, until the sender says that it slowed down. */
        if (ce || (echo && (p[FX_PKT_FLAGS_WINDOW] & CWR) == 0u)) {
            flags |= FX_FLOW_ECE;
        } else {
            flags &= ~FX_FLOW_ECE;
        }
        f[FX_FS_FLAGS] = flags;
        /* As Linux, a newly marked segment is acknowledged at once. */
        if (ce && !echo) {
            f[FX_FL_FLAGS] |= FX_LOCAL_ACK_NOW;
        }
        return;
    }
    if (ce == echo) {
        return;
    }
    /* RFC 8257, section 3.2: on a change, what was received before it is acknowledged with the old state. */
    if (f[FX_FS_RCV_NXT] != f[FX_FS_LAST_ACK_SENT]) {
        window = fx_since(f[FX_FS_RCV_ADV], f[FX_FS_RCV_NXT]) >> fx_rcv_scale(f);
        out[FX_RX_FLAGS] |= FX_RXFLAG_EARLY_ACK | (echo ? FX_RXFLAG_EARLY_ECE : 0u);
        out[FX_RX_EARLY_ACK] = f[FX_FS_RCV_NXT];
        out[FX_RX_EARLY_WINDOW] = fx_min(window, 0xffffu);
        f[FX_FS_LAST_ACK_SENT] = f[FX_FS_RCV_NXT];
    }
    f[FX_FS_FLAGS] = flags ^ FX_FLOW_ECE;
    f[FX_FL_FLAGS] |= FX_LOCAL_ACK_NOW;
}

/* Segments that `len` bytes stand for. The wire delivers single ones; only an emulated NIC sees several in one. */
static fx_u32 segments(fx_u32 len, fx_u32 mss)
{
    fx_u32 high;
    if (len <= mss) {
        return 1u;
    }
    return fx_divide(0u, len + mss - 1u, mss, &high);
}

static void note_data(FX_LOCAL fx_u32 *f, fx_u32 len)
{
    fx_u32 mss = fx_mss(f);
    f[FX_FS_RCV_NXT] += len;
    f[FX_FE_RECV_POSITION] += len;
    f[FX_FE_RECV_USED] += len;
    f[FX_FS_RCV_FREE] = f[FX_FE_RECV_SIZE] - f[FX_FE_RECV_USED];
    f[FX_FS_SEGMENTS_RECEIVED] += segments(len, mss);
    len = fx_min(len, mss);
    f[FX_FL_RCV_MSS] = fx_max(f[FX_FL_RCV_MSS], len);
}

/* Takes an acceptable ACK in. */
static void acknowledge(FX_LOCAL fx_u32 *f, fx_u32 ack, fx_u32 now_ms, fx_u32 now_ns, FX_LOCAL fx_u32 *out)
{
    fx_u32 acked = fx_since(ack, f[FX_FS_SND_UNA]);
    fx_u32 ece = (out[FX_RX_FLAGS] & FX_RXFLAG_ECE) != 0u;
    fx_u32 micros;

    if (ece && (f[FX_FS_FLAGS] & FX_FLOW_ECN) != 0u) {
        f[FX_FL_FLAGS] |= FX_LOCAL_ECE_SEEN;
    }
    if (acked == 0u) {
        return;
    }
    out[FX_RX_ACKED] = acked;
    f[FX_FE_SEND_POSITION] += acked;
    f[FX_FS_SND_UNA] = ack;
    f[FX_FS_ACKED_BYTES] += acked;
    if (ece) {
        f[FX_FS_ECE_BYTES] += acked;
    }
    /* RFC 6298, rules 5.2 and 5.3. */
    if (fx_since(f[FX_FS_SND_NXT], ack) > 0u) {
        f[FX_FL_FLAGS] |= FX_LOCAL_OUTSTANDING;
        f[FX_FL_OUTSTANDING_MS] = now_ms;
        f[FX_FL_OUTSTANDING_NS] = now_ns;
    } else {
        f[FX_FL_FLAGS] &= ~FX_LOCAL_OUTSTANDING;
    }
    if ((f[FX_FL_FLAGS] & FX_LOCAL_TIMED) != 0u && !fx_before(ack, f[FX_FL_TIMED_END])) {
        f[FX_FL_FLAGS] &= ~FX_LOCAL_TIMED;
        micros = fx_micros_between(f[FX_FL_TIMED_MS], f[FX_FL_TIMED_NS], now_ms, now_ns);
        micros = fx_max(micros, 1u);
        f[FX_FS_RTT_MICROS] = micros;
        out[FX_RX_RTT_MICROS] = micros;
    }
}

/* Handles a segment, or changes nothing and names the exception. The caller moves FX_RX_PAYLOAD bytes to the receive ring,
 * where they end at FX_FE_RECV_POSITION. */
void fx_receive(FX_LOCAL fx_u32 *f, FX_LOCAL const fx_u32 *p, fx_u32 now_ms, fx_u32 now_ns, FX_LOCAL fx_u32 *out)
{
    fx_u32 len = p[FX_PKT_PAYLOAD_LEN];
    fx_u32 kind = classify(f, p);
    fx_u32 window;
    fx_u32 i;

    for (i = 0u; i < FX_RX_WORDS; i++) {
        out[i] = 0u;
    }
    if (kind == KIND_IN_ORDER && len > 0u &&
        (f[FX_FE_RECV_SIZE] < f[FX_FE_RECV_USED] || f[FX_FE_RECV_SIZE] - f[FX_FE_RECV_USED] < len)) {
        kind = exception(NO_BUFFER);
    }
    if (kind != KIND_IN_ORDER && kind != KIND_PROBE) {
        out[FX_RX_EXCEPTION] = kind;
        return;
    }
    if ((p[FX_PKT_FLAGS_WINDOW] & ECE) != 0u) {
        out[FX_RX_FLAGS] = FX_RXFLAG_ECE;
    }
    if (kind == KIND_PROBE) {
        f[FX_FL_FLAGS] |= FX_LOCAL_ACK_NOW;
        /* RFC 9293, section 3.10.7.4, first: what is not acceptable is answered and says nothing. */
        if (fx_before(p[FX_PKT_SEQ] + len, f[FX_FS_LAST_ACK_SENT])) {
            return;
        }
    } else if (len > 0u) {
        congestion_mark(f, p, out);
        out[FX_RX_PAYLOAD] = len;
        note_data(f, len);
        fx_ack_heard(f, p[FX_PKT_FLAGS_WINDOW] & PSH);
    }
    /* RFC 7323, section 4.3, with the segment's own SEG.SEQ, before this segment is acknowledged. */
#if FX_FAULT == 1
    if ((f[FX_FS_FLAGS] & FX_FLOW_TIMESTAMPS) != 0u && fx_before(p[FX_PKT_SEQ], f[FX_FS_LAST_ACK_SENT])) {
#else
    if ((f[FX_FS_FLAGS] & FX_FLOW_TIMESTAMPS) != 0u && !fx_after(p[FX_PKT_SEQ], f[FX_FS_LAST_ACK_SENT])) {
#endif
        f[FX_FS_TS_RECENT] = p[FX_PKT_TS_VAL];
    }
    acknowledge(f, p[FX_PKT_ACK], now_ms, now_ns, out);
    if (kind == KIND_IN_ORDER) {
        /* RFC 9293, section 3.10.7.4: what starts at RCV.NXT with an acceptable ACK is never older than SND.WL1, SND.WL2. */
        window = (p[FX_PKT_FLAGS_WINDOW] >> 16) << fx_snd_scale(f);
        if (window != f[FX_FS_SND_WND]) {
            out[FX_RX_FLAGS] |= FX_RXFLAG_WINDOW_CHANGED;
        }
        f[FX_FS_SND_WND] = window;
        f[FX_FS_MAX_SND_WND] = fx_max(f[FX_FS_MAX_SND_WND], window);
    }
}
