/* Transmit: what to send next, and its headers. */
#include "core.h"

#define PSH 0x08u
#define ACK 0x10u
#define ECE 0x40u
#define CWR 0x80u
/* ECT(0) (RFC 3168, section 5). */
#define ECT_0 2u

#define fx_mss(f) fx_max((f)[FX_FS_MSS_SCALES] >> 16, 48u)

/* The segment size in use: half of the largest window at most (Linux's tcp_bound_to_half_wnd). */
static fx_u32 effective_mss(FX_LOCAL const fx_u32 *f)
{
    fx_u32 window = f[FX_FS_MAX_SND_WND];
    fx_u32 mss = fx_mss(f);
    if (window > 536u) {
        window >>= 1;
    }
    window = fx_max(window, 48u);
    return fx_min(mss, window);
}

static fx_u32 remainder_of(fx_u32 len, fx_u32 mss)
{
    fx_u32 high;
    if (len <= mss) {
        return len == mss ? 0u : len;
    }
    return len - fx_divide(0u, len, mss, &high) * mss;
}

/* What to send next; at most `super_frame` bytes, or one segment if that is more. */
void fx_send_next(FX_LOCAL const fx_u32 *f, fx_u32 super_frame, FX_LOCAL fx_u32 *out)
{
    fx_u32 unsent = fx_since(f[FX_FS_SND_END], f[FX_FS_SND_NXT]);
    fx_u32 in_flight = fx_since(f[FX_FS_SND_NXT], f[FX_FS_SND_UNA]);
    fx_u32 edge = f[FX_FS_SND_UNA] + f[FX_FS_SND_WND];
    fx_u32 usable = fx_since(edge, f[FX_FS_SND_NXT]);
    fx_u32 room = f[FX_FS_CWND] > in_flight ? f[FX_FS_CWND] - in_flight : 0u;
    fx_u32 mss = effective_mss(f);
    fx_u32 one = fx_min(mss, unsent);
    /* One of 2 GiB ago is not in flight. */
    fx_u32 small_in_flight =
        fx_after(f[FX_FS_SND_SML], f[FX_FS_SND_UNA]) && !fx_after(f[FX_FS_SND_SML], f[FX_FS_SND_NXT]);
    fx_u32 hold_small = (f[FX_FS_FLAGS] & FX_FLOW_NO_DELAY) == 0u && small_in_flight;
    fx_u32 burst = fx_burst(f[FX_FS_PACING_RATE]);
    fx_u32 len;
    fx_u32 small;

    out[FX_TX_OFFSET] = 0u;
    out[FX_TX_LENGTH] = 0u;
    out[FX_TX_MSS] = 0u;
    out[FX_TX_PUSH] = 0u;
    out[FX_TX_WAIT] = FX_WAIT_IDLE;
    if (unsent == 0u) {
        return;
    }
    /* Sender's silly window avoidance: a window that does not hold the segment is not used (as Linux). */
    if (one > usable) {
        out[FX_TX_WAIT] = in_flight == 0u ? FX_WAIT_STALLED : FX_WAIT_WINDOW;
        return;
    }
    if (one > room && in_flight > 0u) {
        out[FX_TX_WAIT] = FX_WAIT_CWND;
        return;
    }
    /* Minshall's variant of Nagle's algorithm (RFC 9293, section 3.7.4), as Linux: a small segment waits only while an
     * earlier small one is unacknowledged. */
#if FX_FAULT == 3
    if (one <= mss && hold_small) {
#else
    if (one < mss && hold_small) {
#endif
        out[FX_TX_WAIT] = FX_WAIT_NAGLE;
        return;
    }
    burst = fx_max(burst, mss * 2u);
    super_frame = fx_max(super_frame, mss);
    room = fx_max(room, one);
    len = fx_min(unsent, usable);
    len = fx_min(len, room);
    len = fx_min(len, super_frame);
    len = fx_min(len, burst);
    small = remainder_of(len, mss);
    if (len > mss && small > 0u && (len < unsent || hold_small)) {
        len -= small;
    }
    out[FX_TX_OFFSET] = in_flight;
    out[FX_TX_LENGTH] = len;
    out[FX_TX_MSS] = mss;
    out[FX_TX_PUSH] = len == unsent;
    out[FX_TX_WAIT] = FX_WAIT_NONE;
}

/* Accounts for a data segment that went out. */
void fx_sent(FX_LOCAL fx_u32 *f, FX_LOCAL const fx_u32 *segment, fx_u32 now_ms, fx_u32 now_ns)
{
    fx_u32 len = segment[FX_TX_LENGTH];
    fx_u32 mss = segment[FX_TX_MSS];
    fx_u32 end = f[FX_FS_SND_NXT] + len;
    fx_u32 count = 1u;
    fx_u32 high;

    if (fx_since(f[FX_FS_SND_NXT], f[FX_FS_SND_UNA]) == 0u) {
        f[FX_FL_FLAGS] |= FX_LOCAL_OUTSTANDING;
        f[FX_FL_OUTSTANDING_MS] = now_ms;
        f[FX_FL_OUTSTANDING_NS] = now_ns;
    }
    f[FX_FS_SND_NXT] = end;
    if (remainder_of(len, mss) != 0u) {
        f[FX_FS_SND_SML] = end;
    }
    if ((f[FX_FL_FLAGS] & FX_LOCAL_TIMED) == 0u) {
        f[FX_FL_FLAGS] |= FX_LOCAL_TIMED;
        f[FX_FL_TIMED_END] = end;
        f[FX_FL_TIMED_MS] = now_ms;
        f[FX_FL_TIMED_NS] = now_ns;
    }
    if (len > mss) {
        count = fx_divide(0u, len + mss - 1u, mss, &high);
    }
    f[FX_FS_SEGMENTS_SENT] += count;
    f[FX_FS_FLAGS] &= ~FX_FLOW_CWR;
    fx_pace_sent(f, now_ms, now_ns, len);
    fx_ack_sent(f, 1u);
}

/* Writes the headers of the next data segment, the window offered and the pending CWR in them; returns their bytes. */
fx_u32 fx_data_header(
    FX_LOCAL fx_u32 *f, FX_LOCAL const fx_u32 *segment, fx_u32 capacity, fx_u32 now_ms, FX_LOCAL const fx_u32 *mac,
    FX_LOCAL fx_u32 *header)
{
    fx_u32 flags = ACK;
    fx_u32 window = fx_advertise(f, capacity);
    fx_u32 ecn = 0u;
    if (segment[FX_TX_PUSH] != 0u) {
        flags |= PSH;
    }
    if ((f[FX_FS_FLAGS] & FX_FLOW_ECE) != 0u) {
        flags |= ECE;
    }
    if ((f[FX_FS_FLAGS] & FX_FLOW_ECN) != 0u) {
        ecn = ECT_0;
        if ((f[FX_FS_FLAGS] & FX_FLOW_CWR) != 0u) {
            flags |= CWR;
        }
    }
    return fx_emit(
        f, f[FX_FS_SND_NXT], f[FX_FS_RCV_NXT], flags, window, ecn, now_ms, segment[FX_TX_LENGTH], mac, header);
}

/* Writes the headers of a pure ACK, the window offered in them; returns their bytes. */
fx_u32 fx_ack_header(
    FX_LOCAL fx_u32 *f, fx_u32 capacity, fx_u32 now_ms, FX_LOCAL const fx_u32 *mac, FX_LOCAL fx_u32 *header)
{
    fx_u32 window = fx_advertise(f, capacity);
    fx_u32 flags = ACK;
    if ((f[FX_FS_FLAGS] & FX_FLOW_ECE) != 0u) {
        flags |= ECE;
    }
    return fx_emit(f, f[FX_FS_SND_NXT], f[FX_FS_RCV_NXT], flags, window, 0u, now_ms, 0u, mac, header);
}

/* Writes the headers of the early ACK that fx_receive asked for, `early` being what it said; returns their bytes. */
fx_u32 fx_early_ack_header(
    FX_LOCAL const fx_u32 *f, FX_LOCAL const fx_u32 *early, fx_u32 now_ms, FX_LOCAL const fx_u32 *mac,
    FX_LOCAL fx_u32 *header)
{
    fx_u32 flags = ACK;
    if ((early[FX_RX_FLAGS] & FX_RXFLAG_EARLY_ECE) != 0u) {
        flags |= ECE;
    }
    return fx_emit(
        f, f[FX_FS_SND_NXT], early[FX_RX_EARLY_ACK], flags, early[FX_RX_EARLY_WINDOW], 0u, now_ms, 0u, mac, header);
}
