/* Segments of a flow: through the fast path, payload on its way to the receive ring. */
#include "flow.h"

static int same_tuple(FX_LOCAL const fx_u32 *f, FX_MEM const fx_u32 *p)
{
    fx_u32 i;
    fx_u32 ipv6 = (p[FX_PKT_FLAGS] & FX_PKTFLAG_IPV6) != 0u;
    if (((f[FX_FS_FLAGS] & FX_FLOW_IPV6) != 0u) != ipv6) {
        return 0;
    }
    for (i = 0u; i < 9u; i++) {
        if (f[FX_FS_LOCAL_IP + i] != p[FX_PKT_LOCAL_IP + i]) {
            return 0;
        }
    }
    return 1;
}

/* Starts moving payload to its place, which ends at the receive position. */
static void place(
    struct fx_nic *nic, fx_u32 engine, fx_u32 flow, FX_LOCAL const fx_u32 *f, FX_MEM fx_u32 *e, fx_u32 item,
    FX_LOCAL const fx_u32 *p)
{
    fx_u32 packet = fx_item(nic, item)[ITEM_PACKET] - 1u;
    fx_u32 len = p[FX_PKT_PAYLOAD_LEN];
    fx_u32 size = f[FX_FE_RECV_SIZE];
    fx_u32 at = (f[FX_FE_RECV_POSITION] - len) & (size - 1u);
    fx_u32 first = size - at;
    fx_u32 low = f[FX_FE_RECV_LOW] + at;
    fx_u32 high = f[FX_FE_RECV_HIGH] + (low < at ? 1u : 0u);
    first = fx_min(first, len);
    hal_dma_from_packet(nic, engine, TAG_FLOW | flow, low, high, packet, p[FX_PKT_PAYLOAD_OFFSET], first);
    e[FEP_PENDING] += 1u;
    if (first < len) {
        hal_dma_from_packet(
            nic, engine, TAG_FLOW | flow, f[FX_FE_RECV_LOW], f[FX_FE_RECV_HIGH], packet,
            p[FX_PKT_PAYLOAD_OFFSET] + first, len - first);
        e[FEP_PENDING] += 1u;
    }
}

/* Adds a segment's results to what the host is to be told. */
static void note(FX_LOCAL fx_u32 *f, FX_MEM fx_u32 *e, FX_LOCAL const fx_u32 *r)
{
    f[FX_FE_DELTA_RECEIVED] += r[FX_RX_PAYLOAD];
    f[FX_FE_DELTA_ACKED] += r[FX_RX_ACKED];
    if ((r[FX_RX_FLAGS] & FX_RXFLAG_ECE) != 0u && (f[FX_FS_FLAGS] & FX_FLOW_ECN) != 0u) {
        f[FX_FE_DELTA_ACKED_ECE] += r[FX_RX_ACKED];
    }
    if ((r[FX_RX_FLAGS] & FX_RXFLAG_CE) != 0u) {
        f[FX_FE_DELTA_FLAGS] |= FX_EVFLAG_CONGESTION_EXPERIENCED;
    }
    if (r[FX_RX_RTT_MICROS] != 0u) {
        f[FX_FE_DELTA_RTT] = r[FX_RX_RTT_MICROS];
    }
    if (r[FX_RX_PAYLOAD] != 0u || r[FX_RX_ACKED] != 0u ||
        (r[FX_RX_FLAGS] & (FX_RXFLAG_WINDOW_CHANGED | FX_RXFLAG_CE)) != 0u) {
        e[FEP_WANT] |= WANT_TELL;
    }
    if (r[FX_RX_PAYLOAD] != 0u || (f[FX_FL_FLAGS] & FX_LOCAL_ACK_NOW) != 0u) {
        e[FEP_WANT] |= WANT_ACK;
    }
    if (r[FX_RX_ACKED] != 0u || (r[FX_RX_FLAGS] & FX_RXFLAG_WINDOW_CHANGED) != 0u) {
        e[FEP_WANT] |= WANT_SEND;
    }
}

/* An ICMP error is the slow path's, with the flow if it is about what is in flight. About anything else it is late or
 * forged (RFC 5927, section 4.1). */
static fx_u32 take_icmp(
    struct fx_nic *nic, fx_u32 engine, fx_u32 flow, FX_LOCAL fx_u32 *f, FX_MEM fx_u32 *e, fx_u32 item, fx_u32 seq)
{
    fx_u32 queue = fx_queue_of(nic, flow);
    if (f[FX_FE_STATUS] == FX_FLOW_STATUS_HOST_OWNED) {
        fx_forward(nic, engine, queue, item, flow, f[FX_FE_GENERATION], FX_REASON_ICMP);
        return FX_TAKEN;
    }
    if (fx_before(seq, f[FX_FS_SND_UNA]) || !fx_before(seq, f[FX_FS_SND_NXT])) {
        fx_add(nic, queue, FILTERED, 1u);
        fx_item_free(nic, item);
        return FX_TAKEN;
    }
    fx_punt(nic, flow, f, e, item, FX_REASON_ICMP);
    return FX_BARRIER;
}

fx_u32 fx_take_segment(
    struct fx_nic *nic, fx_u32 engine, fx_u32 flow, FX_LOCAL fx_u32 *f, FX_MEM fx_u32 *e, fx_u32 item)
{
    FX_MEM fx_u32 *words = fx_item(nic, item);
    fx_u32 queue = fx_queue_of(nic, flow);
    fx_u32 p[FX_PKT_WORDS];
    fx_u32 r[FX_RX_WORDS];
    fx_u32 now_ms;
    fx_u32 now_ns;
    if (f[FX_FE_STATUS] == FX_FLOW_STATUS_FREE || !same_tuple(f, words + ITEM_BODY)) {
        /* It was removed after the classifier looked. */
        fx_forward(nic, engine, queue, item, FX_EVENT_NO_FLOW, 0u, FX_REASON_NO_FLOW);
        return FX_TAKEN;
    }
    if (f[FX_FE_STATUS] == FX_FLOW_STATUS_KERNEL) {
        hal_packet_netdev(nic, words[ITEM_PACKET] - 1u, words[ITEM_LENGTH]);
        words[ITEM_PACKET] = 0u;
        fx_add(nic, queue, NETDEV, 1u);
        fx_item_free(nic, item);
        return FX_TAKEN;
    }
    hal_load(p, words + ITEM_BODY, FX_PKT_WORDS);
    if ((p[FX_PKT_FLAGS] & FX_PKTFLAG_ICMP) != 0u) {
        return take_icmp(nic, engine, flow, f, e, item, p[FX_PKT_SEQ]);
    }
    if (f[FX_FE_STATUS] == FX_FLOW_STATUS_HOST_OWNED) {
        fx_forward(nic, engine, queue, item, flow, f[FX_FE_GENERATION], FX_REASON_HOST_OWNED);
        return FX_TAKEN;
    }
    if (hal_dma_room(nic) < 2u) {
        return FX_LATER;
    }
    fx_now(nic, &now_ms, &now_ns);
    fx_receive(f, p, now_ms, now_ns, r);
    if (r[FX_RX_EXCEPTION] != 0u) {
        fx_punt(nic, flow, f, e, item, r[FX_RX_EXCEPTION] - 1u);
        return FX_BARRIER;
    }
    fx_add(nic, queue, FAST_FRAMES_IN, 1u);
    fx_add(nic, queue, FAST_BYTES_IN, r[FX_RX_PAYLOAD]);
    note(f, e, r);
    if (r[FX_RX_PAYLOAD] == 0u) {
        fx_item_free(nic, item);
    } else {
        place(nic, engine, flow, f, e, item, p);
        words[ITEM_NEXT] = e[FEP_HELD_HEAD];
        e[FEP_HELD_HEAD] = item;
    }
    if ((r[FX_RX_FLAGS] & FX_RXFLAG_EARLY_ACK) != 0u) {
        e[FEP_EARLY] = r[FX_RX_FLAGS];
        e[FEP_EARLY + 1u] = r[FX_RX_EARLY_ACK];
        e[FEP_EARLY + 2u] = r[FX_RX_EARLY_WINDOW];
        e[FEP_WANT] |= WANT_EARLY;
        return FX_BARRIER;
    }
    return FX_TAKEN;
}

/* Frees the frames whose payload has landed. */
void fx_landed(struct fx_nic *nic, fx_u32 flow, FX_LOCAL fx_u32 *f, FX_MEM fx_u32 *e)
{
    fx_u32 item;
    while (e[FEP_HELD_HEAD] != 0u) {
        item = e[FEP_HELD_HEAD];
        e[FEP_HELD_HEAD] = fx_item(nic, item)[ITEM_NEXT];
        fx_item_free(nic, item);
    }
    if ((e[FEP_WANT] & WANT_FAILED) != 0u) {
        e[FEP_WANT] &= ~WANT_FAILED;
        fx_add(nic, fx_queue_of(nic, flow), BAD_ADDRESSES, 1u);
        fx_fail(nic, FX_FAILURE_DMA, flow);
    }
    (void)f;
}
