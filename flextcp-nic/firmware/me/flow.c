/* Everything of a flow, in order: segments, bumps, requests, timers.
 *
 * A flow works in rounds. It takes what waits for it, payload on its way to the receive ring (PHASE_LAND); when all of that
 * has landed, it tells the host (PHASE_TELL); when that is in host memory, it acknowledges and sends (PHASE_READ); then the
 * next round. So no ACK covers a byte of which the host does not know, and the rounds grow with the load.
 */
#include "nic.h"

/* Items taken in one round. */
#define ROUND 32u

/* What became of an item. */
#define TAKEN 0u
#define LATER 1u   /* it needs something that is not there now */
#define BARRIER 2u /* taken, and nothing may be taken after it in this round */
#define WAIT 3u    /* what is under way must be done before it */

static fx_u32 queue_of(struct fx_nic *nic, fx_u32 flow)
{
    return flow >> nic->flows_shift;
}

/* Appends to a list whose head and tail are words of `e`. */
void fx_list_put(struct fx_nic *nic, FX_MEM fx_u32 *e, fx_u32 head, fx_u32 tail, fx_u32 item)
{
    fx_item(nic, item)[ITEM_NEXT] = 0u;
    if (e[head] == 0u) {
        e[head] = item;
    } else {
        fx_item(nic, e[tail])[ITEM_NEXT] = item;
    }
    e[tail] = item;
}

fx_u32 fx_list_take(struct fx_nic *nic, FX_MEM fx_u32 *e, fx_u32 head, fx_u32 tail)
{
    fx_u32 item = e[head];
    if (item != 0u) {
        e[head] = fx_item(nic, item)[ITEM_NEXT];
        if (e[head] == 0u) {
            e[tail] = 0u;
        }
    }
    return item;
}

static void put_flow(struct fx_nic *nic, FX_MEM fx_u32 *g, fx_u32 head, fx_u32 tail, fx_u32 flow)
{
    fx_entry(nic, flow)[FEP_READY_NEXT] = 0u;
    if (g[head] == 0u) {
        g[head] = flow + 1u;
    } else {
        fx_entry(nic, g[tail] - 1u)[FEP_READY_NEXT] = flow + 1u;
    }
    g[tail] = flow + 1u;
    fx_entry(nic, flow)[FEP_WANT] |= WANT_READY;
}

static fx_u32 take_flow(struct fx_nic *nic, FX_MEM fx_u32 *g, fx_u32 head, fx_u32 tail)
{
    fx_u32 flow = g[head];
    if (flow != 0u) {
        g[head] = fx_entry(nic, flow - 1u)[FEP_READY_NEXT];
        if (g[head] == 0u) {
            g[tail] = 0u;
        }
        fx_entry(nic, flow - 1u)[FEP_WANT] &= ~WANT_READY;
    }
    return flow;
}

/* Puts a flow on the ready list, unless DMA is under way for it or it is on a list already. */
static void ready(struct fx_nic *nic, fx_u32 group, fx_u32 flow)
{
    FX_MEM fx_u32 *e = fx_entry(nic, flow);
    if (e[FEP_PENDING] == 0u && (e[FEP_WANT] & WANT_READY) == 0u) {
        put_flow(nic, fx_group(nic, group), GS_READY_HEAD, GS_READY_TAIL, flow);
    }
}

/* The flow becomes the host's, with a frame or without. */
static void give_back(FX_LOCAL fx_u32 *f, FX_MEM fx_u32 *e, fx_u32 item, fx_u32 reason)
{
    f[FX_FE_STATUS] = FX_FLOW_STATUS_HOST_OWNED;
    e[FEP_PUNT_ITEM] = item;
    e[FEP_PUNT_REASON] = reason;
    e[FEP_WANT] |= WANT_RETURN;
}

static void punt(
    struct fx_nic *nic, fx_u32 flow, FX_LOCAL fx_u32 *f, FX_MEM fx_u32 *e, fx_u32 item, fx_u32 reason)
{
    fx_add(nic, queue_of(nic, flow), PUNTED, 1u);
    give_back(f, e, item, reason);
}

/* A frame that the host is to see and that brings nothing back. Without room for it, it is lost as on a wire. */
static void forward(
    struct fx_nic *nic, fx_u32 engine, fx_u32 queue, fx_u32 item, fx_u32 flow, fx_u32 generation, fx_u32 reason)
{
    if (fx_event_frame(nic, item, queue, flow, generation, reason, 0u)) {
        fx_event_start(nic, engine, item);
    } else {
        fx_add(nic, queue, NO_SLOT, 1u);
        fx_item_free(nic, item);
    }
}

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
    fx_u32 queue = queue_of(nic, flow);
    if (f[FX_FE_STATUS] == FX_FLOW_STATUS_HOST_OWNED) {
        forward(nic, engine, queue, item, flow, f[FX_FE_GENERATION], FX_REASON_ICMP);
        return TAKEN;
    }
    if (fx_before(seq, f[FX_FS_SND_UNA]) || !fx_before(seq, f[FX_FS_SND_NXT])) {
        fx_add(nic, queue, FILTERED, 1u);
        fx_item_free(nic, item);
        return TAKEN;
    }
    punt(nic, flow, f, e, item, FX_REASON_ICMP);
    return BARRIER;
}

static fx_u32 take_segment(
    struct fx_nic *nic, fx_u32 engine, fx_u32 flow, FX_LOCAL fx_u32 *f, FX_MEM fx_u32 *e, fx_u32 item)
{
    FX_MEM fx_u32 *words = fx_item(nic, item);
    fx_u32 queue = queue_of(nic, flow);
    fx_u32 p[FX_PKT_WORDS];
    fx_u32 r[FX_RX_WORDS];
    fx_u32 now_ms;
    fx_u32 now_ns;
    if (f[FX_FE_STATUS] == FX_FLOW_STATUS_FREE || !same_tuple(f, words + ITEM_BODY)) {
        /* It was removed after the classifier looked. */
        forward(nic, engine, queue, item, FX_EVENT_NO_FLOW, 0u, FX_REASON_NO_FLOW);
        return TAKEN;
    }
    if (f[FX_FE_STATUS] == FX_FLOW_STATUS_KERNEL) {
        hal_packet_netdev(nic, words[ITEM_PACKET] - 1u, words[ITEM_LENGTH]);
        words[ITEM_PACKET] = 0u;
        fx_add(nic, queue, NETDEV, 1u);
        fx_item_free(nic, item);
        return TAKEN;
    }
    hal_load(p, words + ITEM_BODY, FX_PKT_WORDS);
    if ((p[FX_PKT_FLAGS] & FX_PKTFLAG_ICMP) != 0u) {
        return take_icmp(nic, engine, flow, f, e, item, p[FX_PKT_SEQ]);
    }
    if (f[FX_FE_STATUS] == FX_FLOW_STATUS_HOST_OWNED) {
        forward(nic, engine, queue, item, flow, f[FX_FE_GENERATION], FX_REASON_HOST_OWNED);
        return TAKEN;
    }
    if (hal_dma_room(nic) < 2u) {
        return LATER;
    }
    fx_now(nic, &now_ms, &now_ns);
    fx_receive(f, p, now_ms, now_ns, r);
    if (r[FX_RX_EXCEPTION] != 0u) {
        punt(nic, flow, f, e, item, r[FX_RX_EXCEPTION] - 1u);
        return BARRIER;
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
        return BARRIER;
    }
    return TAKEN;
}

/* Starts reading the block of an install. */
static fx_u32 start_install(struct fx_nic *nic, fx_u32 group, fx_u32 flow, FX_MEM fx_u32 *e)
{
    FX_MEM fx_u32 *g = fx_group(nic, group);
    fx_u32 queue = queue_of(nic, flow);
    fx_u32 offset = (flow - queue * nic->flows_per_queue) * (FX_FLOW_BLOCK_WORDS << 2);
    fx_u32 low = hal_register(nic, fx_queue_register(queue, FX_QUEUE_BLOCKS_LOW)) + offset;
    fx_u32 high = hal_register(nic, fx_queue_register(queue, FX_QUEUE_BLOCKS_HIGH)) + (low < offset ? 1u : 0u);
    if (g[GS_FETCHING] != 0u || hal_dma_room(nic) == 0u) {
        return LATER;
    }
    g[GS_FETCHING] = flow + 1u;
    e[FEP_PHASE] = PHASE_FETCH;
    e[FEP_PENDING] = 1u;
    hal_dma_get_words(nic, FX_ENGINE_FLOW + group, TAG_FLOW | flow, low, high, g + GS_BLOCK, FX_FLOW_BLOCK_WORDS);
    return WAIT;
}

/* Whether a ring of the block may be used: FX_DONE_*. */
static fx_u32 ring_allowed(struct fx_nic *nic, fx_u32 low, fx_u32 high, fx_u32 shift)
{
    return shift == 0u || fx_region_has(nic, low, high, 1u << shift) ? FX_DONE_OK : FX_DONE_BAD_RING;
}

static fx_u32 install(struct fx_nic *nic, fx_u32 flow, FX_LOCAL fx_u32 *f, FX_LOCAL const fx_u32 *block, fx_u32 generation,
    fx_u32 flags)
{
    fx_u32 now_ms;
    fx_u32 now_ns;
    fx_u32 result;
    fx_u32 i;
    if ((flags & FX_INSTALL_KERNEL) != 0u) {
        for (i = 0u; i < FX_FS_WORDS; i++) {
            f[i] = block[i];
        }
        f[FX_FE_STATUS] = FX_FLOW_STATUS_KERNEL;
        f[FX_FE_GENERATION] = generation;
    } else {
        fx_now(nic, &now_ms, &now_ns);
        result = fx_flow_install(f, block, generation, now_ms, now_ns);
        if (result != FX_DONE_OK) {
            return result;
        }
        if (ring_allowed(
                nic, block[FX_BLOCK_RECV_LOW], block[FX_BLOCK_RECV_HIGH], block[FX_BLOCK_RECV_SHIFT]) != FX_DONE_OK ||
            ring_allowed(
                nic, block[FX_BLOCK_SEND_LOW], block[FX_BLOCK_SEND_HIGH], block[FX_BLOCK_SEND_SHIFT]) != FX_DONE_OK) {
            f[FX_FE_STATUS] = FX_FLOW_STATUS_FREE;
            return FX_DONE_BAD_RING;
        }
    }
    hal_store(fx_entry(nic, flow), f, FX_FE_PRIVATE);
    result = fx_table_insert(nic, f + FX_FS_LOCAL_IP, f[FX_FS_FLAGS] & FX_FLOW_IPV6, flow);
    if (result != FX_DONE_OK) {
        f[FX_FE_STATUS] = FX_FLOW_STATUS_FREE;
    }
    return result;
}

/* The block of an install is here. 0 when the completion has no place yet. */
static int finish_install(struct fx_nic *nic, fx_u32 group, fx_u32 flow, FX_LOCAL fx_u32 *f, FX_MEM fx_u32 *e)
{
    FX_MEM fx_u32 *g = fx_group(nic, group);
    fx_u32 queue = queue_of(nic, flow);
    fx_u32 block[FX_FLOW_BLOCK_WORDS];
    fx_u32 item = e[FEP_WAIT_HEAD];
    fx_u32 position;
    fx_u32 result;
    if (!fx_event_reserve(nic, queue, &position)) {
        return 0;
    }
    hal_load(block, g + GS_BLOCK, FX_FLOW_BLOCK_WORDS);
    g[GS_FETCHING] = 0u;
    (void)fx_list_take(nic, e, FEP_WAIT_HEAD, FEP_WAIT_TAIL);
    result = install(
        nic, flow, f, block, fx_item(nic, item)[ITEM_BODY + FX_DESC_GENERATION],
        fx_item(nic, item)[ITEM_BODY + FX_DESC_INSTALL_FLAGS]);
    if (result != FX_DONE_OK) {
        fx_add(nic, queue, BAD_DESCRIPTORS, 1u);
    } else if (f[FX_FE_STATUS] == FX_FLOW_STATUS_NIC_OWNED) {
        fx_add(nic, queue, INSTALLED, 1u);
        e[FEP_WANT] |= WANT_SEND | WANT_ACK;
    }
    fx_complete(nic, FX_ENGINE_FLOW + group, item, queue, position, result, 0u, 0u);
    return 1;
}

/* Forgets a flow: its timer, what it was about to tell. */
static void forget(struct fx_nic *nic, fx_u32 group, fx_u32 flow, FX_LOCAL fx_u32 *f, FX_MEM fx_u32 *e)
{
    fx_table_remove(nic, f + FX_FS_LOCAL_IP, f[FX_FS_FLAGS] & FX_FLOW_IPV6, flow);
    fx_timer_clear(nic, group, flow);
    f[FX_FE_STATUS] = FX_FLOW_STATUS_FREE;
    e[FEP_WANT] &= WANT_READY;
}

static void tail_words(FX_LOCAL const fx_u32 *f, FX_MEM fx_u32 *words)
{
    fx_u32 outstanding = (f[FX_FL_FLAGS] & FX_LOCAL_OUTSTANDING) != 0u ? 1u : 0u;
    words[ITEM_TAIL] = f[FX_FE_GENERATION];
    words[ITEM_TAIL + 1u] = f[FX_FE_BUMPS];
    words[ITEM_TAIL + 2u] = outstanding;
    words[ITEM_TAIL + 3u] = f[FX_FL_OUTSTANDING_MS];
    words[ITEM_TAIL + 4u] = f[FX_FL_OUTSTANDING_NS];
}

/* Another ring takes the place of the old one, of which no byte is under way. */
static fx_u32 change_ring(struct fx_nic *nic, FX_LOCAL fx_u32 *f, FX_MEM const fx_u32 *d, fx_u32 receive)
{
    fx_u32 low = d[FX_DESC_RING_LOW];
    fx_u32 high = d[FX_DESC_RING_HIGH];
    fx_u32 shift = d[FX_DESC_RING_SHIFT];
    fx_u32 held = receive != 0u ? f[FX_FE_RECV_USED] + fx_since(f[FX_FS_RCV_ADV], f[FX_FS_RCV_NXT])
                                : f[FX_FS_SND_END] - f[FX_FS_SND_UNA];
    fx_u32 size = shift == 0u ? 0u : 1u << (shift & 31u);
    fx_u32 used = receive != 0u ? f[FX_FE_RECV_USED] : held;
    if ((shift != 0u && (shift < FX_RING_SHIFT_MIN || shift > FX_RING_SHIFT_MAX)) ||
        (low & (FX_ALIGNMENT - 1u)) != 0u || ring_allowed(nic, low, high, shift) != FX_DONE_OK) {
        return FX_DONE_BAD_RING;
    }
    /* What was offered must fit, unless the ring goes. */
    if (shift == 0u ? used != 0u : held > size) {
        return FX_DONE_BAD_RING;
    }
    if (receive != 0u) {
        f[FX_FE_RECV_LOW] = low;
        f[FX_FE_RECV_HIGH] = high;
        f[FX_FE_RECV_SIZE] = size;
        if (shift != 0u) {
            f[FX_FS_RCV_FREE] = size - f[FX_FE_RECV_USED];
        }
    } else {
        f[FX_FE_SEND_LOW] = low;
        f[FX_FE_SEND_HIGH] = high;
        f[FX_FE_SEND_SIZE] = size;
    }
    return FX_DONE_OK;
}

/* A request that completes, for a flow with nothing under way. */
static fx_u32 take_request(
    struct fx_nic *nic, fx_u32 group, fx_u32 flow, FX_LOCAL fx_u32 *f, FX_MEM fx_u32 *e, fx_u32 item, fx_u32 current)
{
    FX_MEM fx_u32 *words = fx_item(nic, item);
    FX_MEM const fx_u32 *d = words + ITEM_BODY;
    fx_u32 operation = d[FX_DESC_OPERATION] & 0xffu;
    fx_u32 queue = queue_of(nic, flow);
    fx_u32 owned = current != 0u && f[FX_FE_STATUS] == FX_FLOW_STATUS_NIC_OWNED;
    fx_u32 result = FX_DONE_OK;
    fx_u32 position;
    if (e[FEP_PENDING] != 0u) {
        return WAIT;
    }
    if (operation == FX_OP_CLAIM && owned) {
        fx_add(nic, queue, CLAIMED, 1u);
        give_back(f, e, 0u, FX_CAUSE_CLAIMED);
        fx_item_free(nic, item);
        return BARRIER;
    }
    if (operation == FX_OP_INSTALL && f[FX_FE_STATUS] == FX_FLOW_STATUS_FREE) {
        return start_install(nic, group, flow, e);
    }
    if (!fx_event_reserve(nic, queue, &position)) {
        return LATER;
    }
    switch (operation) {
    case FX_OP_INSTALL:
        result = FX_DONE_IN_USE;
        break;
    case FX_OP_REMOVE:
        if (current == 0u) {
            result = FX_DONE_STALE;
        } else {
            forget(nic, group, flow, f, e);
        }
        break;
    case FX_OP_RECV_RING:
    case FX_OP_SEND_RING:
        result = owned ? change_ring(nic, f, d, operation == FX_OP_RECV_RING) : FX_DONE_STALE;
        break;
    case FX_OP_SNAPSHOT:
        if (owned) {
            hal_store(e, f, FX_FE_PRIVATE);
            tail_words(f, words);
        } else {
            result = FX_DONE_STALE;
        }
        break;
    default:
        result = FX_DONE_STALE;
        break;
    }
    if (result != FX_DONE_OK && result != FX_DONE_STALE) {
        fx_add(nic, queue, BAD_DESCRIPTORS, 1u);
    }
    if (operation == FX_OP_SNAPSHOT && result == FX_DONE_OK) {
        /* The flow waits, so that its entry stays as it is while it is copied. */
        e[FEP_PENDING] = 1u;
        fx_complete(
            nic, FX_ENGINE_FLOW + group, item, queue, position, FX_DONE_OK, f[FX_FE_RECV_POSITION],
            ITEM_RETURNS | ITEM_WAITED);
        return BARRIER;
    }
    fx_complete(nic, FX_ENGINE_FLOW + group, item, queue, position, result, f[FX_FE_RECV_POSITION], 0u);
    return TAKEN;
}

static fx_u32 take_descriptor(
    struct fx_nic *nic, fx_u32 group, fx_u32 flow, FX_LOCAL fx_u32 *f, FX_MEM fx_u32 *e, fx_u32 item)
{
    FX_MEM const fx_u32 *d = fx_item(nic, item) + ITEM_BODY;
    fx_u32 operation = d[FX_DESC_OPERATION] & 0xffu;
    fx_u32 current = f[FX_FE_STATUS] != FX_FLOW_STATUS_FREE && f[FX_FE_GENERATION] == d[FX_DESC_GENERATION];
    fx_u32 owned = current && f[FX_FE_STATUS] == FX_FLOW_STATUS_NIC_OWNED;
    int bumped;
    if (operation != FX_OP_BUMP && operation != FX_OP_LIMITS) {
        return take_request(nic, group, flow, f, e, item, current);
    }
    if (!current) {
        fx_add(nic, queue_of(nic, flow), BAD_DESCRIPTORS, 1u);
    }
    if (owned && operation == FX_OP_LIMITS) {
        fx_flow_limits(f, d[FX_DESC_LIMITS_CWND], d[FX_DESC_LIMITS_PACING_RATE]);
        e[FEP_WANT] |= WANT_SEND;
    } else if (owned) {
        bumped = fx_flow_bump(f, d[FX_DESC_BUMP_SEQUENCE], d[FX_DESC_BUMP_SENT], d[FX_DESC_BUMP_FREED]);
        if (bumped != 0) {
            fx_add(nic, queue_of(nic, flow), BAD_DESCRIPTORS, 1u);
        }
        if (bumped == 2) {
            punt(nic, flow, f, e, 0u, FX_CAUSE_BAD_BUMP);
            fx_item_free(nic, item);
            return BARRIER;
        }
        if (bumped == 0) {
            e[FEP_WANT] |= (d[FX_DESC_BUMP_SENT] != 0u ? WANT_SEND : 0u) |
                (d[FX_DESC_BUMP_FREED] != 0u || (e[FEP_WANT] & WANT_HELD) != 0u ? WANT_ACK : 0u);
            e[FEP_WANT] &= ~WANT_HELD;
        }
    }
    fx_item_free(nic, item);
    return TAKEN;
}

/* Takes what waits for the flow. Returns the number of items taken; *blocked says whether one could not be. */
static fx_u32 take(
    struct fx_nic *nic, fx_u32 group, fx_u32 flow, FX_LOCAL fx_u32 *f, FX_MEM fx_u32 *e, FX_LOCAL fx_u32 *blocked)
{
    fx_u32 taken = 0u;
    fx_u32 item;
    fx_u32 next;
    fx_u32 result;
    while (taken < ROUND && e[FEP_WAIT_HEAD] != 0u) {
        item = e[FEP_WAIT_HEAD];
        next = fx_item(nic, item)[ITEM_NEXT];
        result = fx_item(nic, item)[ITEM_KIND] == ITEM_SEGMENT
            ? take_segment(nic, FX_ENGINE_FLOW + group, flow, f, e, item)
            : take_descriptor(nic, group, flow, f, e, item);
        if (result == LATER || result == WAIT) {
            *blocked = result == LATER ? 1u : 0u;
            break;
        }
        e[FEP_WAIT_HEAD] = next;
        if (next == 0u) {
            e[FEP_WAIT_TAIL] = 0u;
        }
        taken += 1u;
        if (result == BARRIER) {
            break;
        }
    }
    return taken;
}

/* Frees the frames whose payload has landed. */
static void landed(struct fx_nic *nic, fx_u32 flow, FX_LOCAL fx_u32 *f, FX_MEM fx_u32 *e)
{
    fx_u32 item;
    while (e[FEP_HELD_HEAD] != 0u) {
        item = e[FEP_HELD_HEAD];
        e[FEP_HELD_HEAD] = fx_item(nic, item)[ITEM_NEXT];
        fx_item_free(nic, item);
    }
    if ((e[FEP_WANT] & WANT_FAILED) != 0u) {
        e[FEP_WANT] &= ~WANT_FAILED;
        fx_add(nic, queue_of(nic, flow), BAD_ADDRESSES, 1u);
        fx_fail(nic, FX_FAILURE_DMA, flow);
    }
    (void)f;
}

/* Starts the notification: 0 when it has no place yet. */
static int notify(struct fx_nic *nic, fx_u32 group, fx_u32 flow, FX_LOCAL fx_u32 *f, FX_MEM fx_u32 *e)
{
    FX_MEM fx_u32 *words;
    fx_u32 queue = queue_of(nic, flow);
    fx_u32 outstanding = f[FX_FL_FLAGS] & FX_LOCAL_OUTSTANDING;
    fx_u32 item = fx_item_new(nic, ITEM_EVENT);
    fx_u32 position;
    fx_u32 i;
    if (item == 0u) {
        return 0;
    }
    if (!fx_event_reserve(nic, queue, &position)) {
        fx_item_free(nic, item);
        return 0;
    }
    fx_event_begin(
        nic, item, queue, position,
        FX_KIND_NOTIFICATION | f[FX_FE_DELTA_FLAGS] | (outstanding != 0u ? FX_EVFLAG_OUTSTANDING : 0u), flow,
        f[FX_FE_GENERATION]);
    words = fx_item(nic, item) + ITEM_BODY;
    words[FX_EVENT_RECEIVED] = f[FX_FE_DELTA_RECEIVED];
    words[FX_EVENT_ACKED] = f[FX_FE_DELTA_ACKED];
    words[FX_EVENT_ACKED_ECE] = f[FX_FE_DELTA_ACKED_ECE];
    words[FX_EVENT_SND_WND] = f[FX_FS_SND_WND];
    words[FX_EVENT_IN_FLIGHT] = fx_since(f[FX_FS_SND_NXT], f[FX_FS_SND_UNA]);
    words[FX_EVENT_RTT_MICROS] = f[FX_FE_DELTA_RTT];
    words[FX_EVENT_OUTSTANDING_MS] = f[FX_FL_OUTSTANDING_MS];
    words[FX_EVENT_OUTSTANDING_NS] = f[FX_FL_OUTSTANDING_NS];
    words[FX_EVENT_BUMPS] = f[FX_FE_BUMPS];
    if (f[FX_FE_DELTA_RECEIVED] != 0u && (hal_register(nic, FX_REG_CONFIG) & FX_CONFIG_HOLD_ACKS) != 0u) {
        e[FEP_WANT] |= WANT_HELD;
    }
    for (i = FX_FE_DELTA_RECEIVED; i <= FX_FE_DELTA_FLAGS; i++) {
        f[i] = 0u;
    }
    e[FEP_WANT] &= ~WANT_TELL;
    e[FEP_PENDING] = 1u;
    fx_item(nic, item)[ITEM_STATE] |= ITEM_WAITED;
    fx_event_start(nic, FX_ENGINE_FLOW + group, item);
    return 1;
}

/* Starts the event with which the flow goes back: 0 when it has no place yet. */
static int hand_back(struct fx_nic *nic, fx_u32 group, fx_u32 flow, FX_LOCAL fx_u32 *f, FX_MEM fx_u32 *e)
{
    FX_MEM fx_u32 *words;
    fx_u32 queue = queue_of(nic, flow);
    fx_u32 outstanding = (f[FX_FL_FLAGS] & FX_LOCAL_OUTSTANDING) != 0u ? FX_EVFLAG_OUTSTANDING : 0u;
    fx_u32 item = e[FEP_PUNT_ITEM];
    fx_u32 reason = e[FEP_PUNT_REASON];
    fx_u32 position;
    if (item != 0u &&
        fx_item(nic, item)[ITEM_LENGTH] > hal_register(nic, fx_queue_register(queue, FX_QUEUE_FRAME_SIZE))) {
        fx_add(nic, queue, NO_SLOT, 1u);
        fx_item_free(nic, item);
        e[FEP_PUNT_ITEM] = 0u;
        e[FEP_PUNT_REASON] = FX_CAUSE_FRAME_DROPPED;
        item = 0u;
        reason = FX_CAUSE_FRAME_DROPPED;
    }
    if (item != 0u) {
        if (!fx_event_frame(
                nic, item, queue, flow, f[FX_FE_GENERATION], reason, FX_EVFLAG_RETURNED | outstanding)) {
            return 0;
        }
    } else {
        item = fx_item_new(nic, ITEM_EVENT);
        if (item == 0u) {
            return 0;
        }
        if (!fx_event_reserve(nic, queue, &position)) {
            fx_item_free(nic, item);
            return 0;
        }
        fx_event_begin(nic, item, queue, position, FX_KIND_RETURNED | outstanding, flow, f[FX_FE_GENERATION]);
        fx_item(nic, item)[ITEM_BODY + FX_EVENT_REASON] = reason;
    }
    words = fx_item(nic, item);
    words[ITEM_BODY + FX_EVENT_OUTSTANDING_MS] = f[FX_FL_OUTSTANDING_MS];
    words[ITEM_BODY + FX_EVENT_OUTSTANDING_NS] = f[FX_FL_OUTSTANDING_NS];
    words[ITEM_BODY + FX_EVENT_BUMPS] = f[FX_FE_BUMPS];
    tail_words(f, words);
    words[ITEM_STATE] |= ITEM_RETURNS;
    e[FEP_WANT] &= ~(WANT_RETURN | WANT_SEND | WANT_ACK | WANT_EARLY | WANT_DEADLINE | WANT_HELD);
    e[FEP_PUNT_ITEM] = 0u;
    fx_timer_clear(nic, group, flow);
    hal_store(e, f, FX_FE_PRIVATE);
    fx_event_start(nic, FX_ENGINE_FLOW + group, item);
    return 1;
}

/* A flow goes on where it stands; no DMA is under way for it. Returns whether it came any further; *starved when it has to be
 * tried again without anything of its own happening. */
static int advance(
    struct fx_nic *nic, fx_u32 group, fx_u32 flow, FX_LOCAL fx_u32 *f, FX_MEM fx_u32 *e, FX_LOCAL fx_u32 *starved)
{
    fx_u32 progress = 0u;
    fx_u32 sent;
    if (e[FEP_PHASE] == PHASE_FETCH) {
        if (!finish_install(nic, group, flow, f, e)) {
            *starved = 1u;
            return 0;
        }
        e[FEP_PHASE] = PHASE_IDLE;
        progress = 1u;
    }
    if (e[FEP_PHASE] == PHASE_IDLE) {
        progress |= take(nic, group, flow, f, e, starved);
        if (e[FEP_PHASE] == PHASE_FETCH) {
            return 1;
        }
        e[FEP_PHASE] = PHASE_LAND;
        if (e[FEP_PENDING] != 0u) {
            return 1;
        }
    }
    if (e[FEP_PHASE] == PHASE_LAND) {
        landed(nic, flow, f, e);
        if ((e[FEP_WANT] & WANT_TELL) != 0u) {
            if (!notify(nic, group, flow, f, e)) {
                *starved = 1u;
                return progress != 0u;
            }
            e[FEP_PHASE] = PHASE_TELL;
            return 1;
        }
        e[FEP_PHASE] = PHASE_TELL;
    }
    if (e[FEP_PHASE] == PHASE_TELL) {
        if (f[FX_FE_STATUS] == FX_FLOW_STATUS_NIC_OWNED) {
            sent = fx_flow_transmit(nic, group, flow, f, e);
            *starved |= sent == FX_SEND_STARVED ? 1u : 0u;
            if (sent == FX_SEND_STALLED) {
                punt(nic, flow, f, e, 0u, FX_CAUSE_STALLED);
            }
            progress |= sent == FX_SEND_MORE ? 1u : 0u;
        }
        e[FEP_PHASE] = PHASE_READ;
        if (e[FEP_PENDING] != 0u) {
            return 1;
        }
    }
    if (e[FEP_PHASE] == PHASE_READ) {
        progress |= e[FEP_OUT_HEAD];
        if (!fx_flow_flush(nic, flow, e)) {
            *starved = 1u;
            return 0;
        }
        e[FEP_PHASE] = PHASE_RETURN;
    }
    if ((e[FEP_WANT] & WANT_RETURN) != 0u) {
        if (!hand_back(nic, group, flow, f, e)) {
            *starved = 1u;
            return progress != 0u;
        }
        progress = 1u;
    }
    e[FEP_PHASE] = PHASE_IDLE;
    return progress != 0u;
}

static int run(struct fx_nic *nic, fx_u32 group, fx_u32 flow)
{
    FX_MEM fx_u32 *e = fx_entry(nic, flow);
    FX_MEM fx_u32 *g = fx_group(nic, group);
    fx_u32 f[FX_FE_PRIVATE];
    fx_u32 starved = 0u;
    int progress;
    hal_load(f, e, FX_FE_PRIVATE);
    f[FX_FE_VERSION] += 1u;
    hal_store(e + FX_FE_VERSION, f + FX_FE_VERSION, 1u);
    progress = advance(nic, group, flow, f, e, &starved);
    hal_store(e, f, FX_FE_PRIVATE);
    f[FX_FE_VERSION] += 1u;
    hal_store(e + FX_FE_VERSION, f + FX_FE_VERSION, 1u);
    if (e[FEP_PENDING] != 0u || (e[FEP_WANT] & WANT_READY) != 0u) {
        return progress;
    }
    if (starved != 0u) {
        put_flow(nic, g, GS_STARVED, GS_STARVED_TAIL, flow);
    } else if (e[FEP_WAIT_HEAD] != 0u || (e[FEP_WANT] & (WANT_SEND | WANT_TELL | WANT_RETURN | WANT_ACK)) != 0u) {
        put_flow(nic, g, GS_READY_HEAD, GS_READY_TAIL, flow);
    }
    return progress;
}

/* A DMA of a flow is done, or the event for which it waits. */
static void flow_done(struct fx_nic *nic, fx_u32 group, fx_u32 flow, fx_u32 failed)
{
    FX_MEM fx_u32 *e = fx_entry(nic, flow);
    e[FEP_PENDING] -= 1u;
    if (failed != 0u) {
        e[FEP_WANT] |= WANT_FAILED;
        fx_fail(nic, FX_FAILURE_DMA, flow);
    }
    ready(nic, group, flow);
}

static void done(struct fx_nic *nic, fx_u32 group, fx_u32 tag, fx_u32 failed)
{
    fx_u32 flow;
    if ((tag & TAG_KIND) == TAG_FLOW) {
        flow_done(nic, group, tag & ~TAG_KIND, failed);
        return;
    }
    if (failed != 0u) {
        fx_fail(nic, FX_FAILURE_DMA, FX_ENGINE_FLOW + group);
        return;
    }
    flow = fx_event_done(nic, FX_ENGINE_FLOW + group, tag & ~TAG_KIND);
    if (flow != 0u) {
        flow_done(nic, group, flow - 1u, 0u);
    }
}

/* A flow's timer went off: the delayed ACK, or its pace. */
static void timer(struct fx_nic *nic, fx_u32 group, fx_u32 flow, fx_u32 now_ms, fx_u32 now_ns)
{
    FX_MEM fx_u32 *e = fx_entry(nic, flow);
    if ((e[FEP_WANT] & WANT_DEADLINE) != 0u) {
        if (fx_time_after(e[FEP_ACK_MS], e[FEP_ACK_NS], now_ms, now_ns)) {
            fx_timer_set(nic, group, flow, e[FEP_ACK_MS], e[FEP_ACK_NS]);
        } else {
            e[FEP_WANT] = (e[FEP_WANT] & ~(WANT_DEADLINE | WANT_HELD)) | WANT_ACK;
            e[FX_FL_FLAGS] |= FX_LOCAL_ACK_NOW;
        }
    }
    e[FEP_WANT] |= WANT_SEND;
    ready(nic, group, flow);
}

int fx_flow_step(struct fx_nic *nic, fx_u32 group)
{
    FX_MEM fx_u32 *g = fx_group(nic, group);
    fx_u32 tag;
    fx_u32 failed;
    fx_u32 item;
    fx_u32 flow;
    fx_u32 now_ms;
    fx_u32 now_ns;
    int did = 0;
    if (!fx_running(nic)) {
        return 0;
    }
    if (hal_dma_done(nic, FX_ENGINE_FLOW + group, &tag, &failed)) {
        done(nic, group, tag, failed);
        did = 1;
    }
    did |= fx_event_retry(nic, FX_ENGINE_FLOW + group);
    if (hal_ring_get(nic, FX_RING_WORK + group, &item)) {
        flow = fx_item(nic, item)[ITEM_FLOW];
        fx_list_put(nic, fx_entry(nic, flow), FEP_WAIT_HEAD, FEP_WAIT_TAIL, item);
        ready(nic, group, flow);
        did = 1;
    }
    fx_now(nic, &now_ms, &now_ns);
    flow = fx_timer_due(nic, group, now_ms, now_ns);
    if (flow != 0u) {
        timer(nic, group, flow - 1u, now_ms, now_ns);
        did = 1;
    }
    flow = take_flow(nic, g, GS_READY_HEAD, GS_READY_TAIL);
    if (flow != 0u) {
        (void)run(nic, group, flow - 1u);
        did = 1;
    }
    flow = take_flow(nic, g, GS_STARVED, GS_STARVED_TAIL);
    if (flow != 0u) {
        did |= run(nic, group, flow - 1u);
    }
    return did;
}
