/* When to acknowledge, and what window to offer. */
#include "core.h"

#define fx_mss(f) fx_max((f)[FX_FS_MSS_SCALES] >> 16, 48u)
#define fx_rcv_scale(f) fx_min(((f)[FX_FS_MSS_SCALES] >> 8) & 0xfu, 14u)

static fx_u32 scale_down(fx_u32 scale, fx_u32 window)
{
    fx_u32 field = window >> scale;
    return fx_min(field, 0xffffu);
}

/* The least by which an offer should grow (RFC 9293, section 3.8.6.2.2): a segment, or half of the buffer. */
static fx_u32 worth(FX_LOCAL const fx_u32 *f, fx_u32 capacity)
{
    fx_u32 half = capacity >> 1;
    fx_u32 mss = fx_mss(f);
    mss = fx_min(mss, half);
    return fx_max(mss, 1u);
}

/* Whether an ACK is due (RFC 9293, section 3.8.6.3; RFC 5681, section 4.2), as Linux: at once when more than one segment of
 * the peer's size waits. */
fx_u32 fx_ack_due(FX_LOCAL const fx_u32 *f)
{
    fx_u32 owed = fx_since(f[FX_FS_RCV_NXT], f[FX_FS_LAST_ACK_SENT]);
    if ((f[FX_FL_FLAGS] & FX_LOCAL_ACK_NOW) != 0u || owed > f[FX_FL_RCV_MSS]) {
        return FX_DUE_NOW;
    }
    if (owed == 0u) {
        return FX_DUE_NOTHING;
    }
    return (f[FX_FS_FLAGS] & FX_FLOW_QUICK_ACK) != 0u ? FX_DUE_NOW : FX_DUE_DELAYED;
}

/* Whether the application freed so much that the peer should hear of it: at most half of the buffer is on offer, and the
 * offer would at least double (Linux's tcp_cleanup_rbuf). */
int fx_window_update_due(FX_LOCAL const fx_u32 *f, fx_u32 capacity)
{
    fx_u32 offered = fx_since(f[FX_FS_RCV_ADV], f[FX_FS_RCV_NXT]);
    fx_u32 scale = fx_rcv_scale(f);
    fx_u32 possible = scale_down(scale, f[FX_FS_RCV_FREE]) << scale;
    fx_u32 twice = offered > 0x7fffffffu ? 0xffffffffu : offered << 1;
    return offered <= capacity >> 1 && possible >= twice && possible - fx_min(offered, possible) >= worth(f, capacity);
}

/* The window field to send now. Moves the right edge, only ever to the right. */
fx_u32 fx_advertise(FX_LOCAL fx_u32 *f, fx_u32 capacity)
{
    fx_u32 scale = fx_rcv_scale(f);
    fx_u32 space = f[FX_FS_RCV_FREE];
    fx_u32 offered = fx_since(f[FX_FS_RCV_ADV], f[FX_FS_RCV_NXT]);
    fx_u32 possible = scale_down(scale, space) << scale;
    fx_u32 wanted = offered + worth(f, capacity);
    fx_u32 field;
    fx_u32 up;
    fx_u32 unit;
    fx_u32 edge;
    if (wanted < offered) {
        wanted = 0xffffffffu;
    }
#if FX_FAULT == 2
    if (possible > wanted) {
#else
    if (possible >= wanted) {
#endif
        field = scale_down(scale, possible);
    } else {
        /* The edge stays. When the offer is no multiple of the scale: round up if there is room for it (RFC 7323, section
         * 2.4 allows less). `offered` is below 2^31 and the unit at most 2^14: no overflow. */
        unit = 1u << scale;
        up = (offered + unit - 1u) >> scale << scale;
        field = scale_down(scale, up <= space ? up : offered);
    }
    edge = f[FX_FS_RCV_NXT] + (field << scale);
    if (fx_after(edge, f[FX_FS_RCV_ADV])) {
        f[FX_FS_RCV_ADV] = edge;
    }
    return field;
}

/* Accounts for data that arrived. What the peer pushes may be the end of what its window lets it send: it waits only where a
 * reply is to be expected (Linux's tcp_cleanup_rbuf with ICSK_ACK_PUSHED). */
void fx_ack_heard(FX_LOCAL fx_u32 *f, fx_u32 pushed)
{
    f[FX_FL_FLAGS] |= FX_LOCAL_HEARD;
    if (pushed != 0u && (f[FX_FS_FLAGS] & FX_FLOW_CONVERSATION) == 0u) {
        f[FX_FL_FLAGS] |= FX_LOCAL_ACK_NOW;
    }
}

/* Accounts for a segment with an ACK that goes out. */
void fx_ack_sent(FX_LOCAL fx_u32 *f, fx_u32 with_data)
{
    fx_u32 acknowledged = f[FX_FS_RCV_NXT] != f[FX_FS_LAST_ACK_SENT];
    fx_u32 quick;
    f[FX_FS_LAST_ACK_SENT] = f[FX_FS_RCV_NXT];
    f[FX_FL_FLAGS] &= ~FX_LOCAL_ACK_NOW;
    if (with_data != 0u && (f[FX_FL_FLAGS] & FX_LOCAL_HEARD) != 0u) {
        f[FX_FL_FLAGS] &= ~FX_LOCAL_HEARD;
        f[FX_FS_FLAGS] |= FX_FLOW_CONVERSATION;
    }
    if ((f[FX_FS_FLAGS] & FX_FLOW_QUICK_ACK) != 0u && acknowledged) {
        quick = (f[FX_FL_FLAGS] >> 8) & 0xffu;
        if (quick != 0u) {
            quick -= 1u;
            f[FX_FL_FLAGS] -= 0x100u;
        }
        /* A reply that carries the ACK makes this a conversation, where delaying pays (Linux's pingpong mode). */
        if (with_data != 0u || quick == 0u) {
            f[FX_FS_FLAGS] &= ~FX_FLOW_QUICK_ACK;
        }
    }
}
