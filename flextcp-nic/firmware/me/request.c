/* What the host asks of a flow: bumps, limits, requests that complete. */
#include "flow.h"

/* Starts reading the block of an install. */
static fx_u32 start_install(struct fx_nic *nic, fx_u32 group, fx_u32 flow, FX_MEM fx_u32 *e)
{
    FX_MEM fx_u32 *g = fx_group(nic, group);
    fx_u32 queue = fx_queue_of(nic, flow);
    fx_u32 offset = (flow - queue * nic->flows_per_queue) * (FX_FLOW_BLOCK_WORDS << 2);
    fx_u32 low = hal_register(nic, fx_queue_register(queue, FX_QUEUE_BLOCKS_LOW)) + offset;
    fx_u32 high = hal_register(nic, fx_queue_register(queue, FX_QUEUE_BLOCKS_HIGH)) + (low < offset ? 1u : 0u);
    if (g[GS_FETCHING] != 0u || hal_dma_room(nic) == 0u) {
        return FX_LATER;
    }
    g[GS_FETCHING] = flow + 1u;
    e[FEP_PHASE] = PHASE_FETCH;
    e[FEP_PENDING] = 1u;
    hal_dma_get_words(nic, FX_ENGINE_FLOW + group, TAG_FLOW | flow, low, high, g + GS_BLOCK, FX_FLOW_BLOCK_WORDS);
    return FX_WAIT;
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
int fx_finish_install(struct fx_nic *nic, fx_u32 group, fx_u32 flow, FX_LOCAL fx_u32 *f, FX_MEM fx_u32 *e)
{
    FX_MEM fx_u32 *g = fx_group(nic, group);
    fx_u32 queue = fx_queue_of(nic, flow);
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
    /* What was offered must fit, unless the ring goes: then it must be empty. */
    if (shift == 0u && used != 0u) {
        return FX_DONE_IN_USE;
    }
    if (shift != 0u && held > size) {
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
    fx_u32 queue = fx_queue_of(nic, flow);
    fx_u32 owned = current != 0u && f[FX_FE_STATUS] == FX_FLOW_STATUS_NIC_OWNED;
    fx_u32 result = FX_DONE_OK;
    fx_u32 position;
    if (e[FEP_PENDING] != 0u) {
        return FX_WAIT;
    }
    if (operation == FX_OP_CLAIM && owned) {
        fx_add(nic, queue, CLAIMED, 1u);
        fx_give_back(f, e, 0u, FX_CAUSE_CLAIMED);
        fx_item_free(nic, item);
        return FX_BARRIER;
    }
    if (operation == FX_OP_INSTALL && f[FX_FE_STATUS] == FX_FLOW_STATUS_FREE) {
        return start_install(nic, group, flow, e);
    }
    if (!fx_event_reserve(nic, queue, &position)) {
        return FX_LATER;
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
            fx_tail_words(f, words);
        } else {
            result = FX_DONE_STALE;
        }
        break;
    default:
        result = FX_DONE_STALE;
        break;
    }
    /* That a ring is in use again is nobody's mistake. */
    if (result != FX_DONE_OK && result != FX_DONE_STALE &&
        (result != FX_DONE_IN_USE || operation == FX_OP_INSTALL)) {
        fx_add(nic, queue, BAD_DESCRIPTORS, 1u);
    }
    if (operation == FX_OP_SNAPSHOT && result == FX_DONE_OK) {
        /* The flow waits, so that its entry stays as it is while it is copied. */
        e[FEP_PENDING] = 1u;
        fx_complete(
            nic, FX_ENGINE_FLOW + group, item, queue, position, FX_DONE_OK, f[FX_FE_RECV_POSITION],
            ITEM_RETURNS | ITEM_WAITED);
        return FX_BARRIER;
    }
    fx_complete(nic, FX_ENGINE_FLOW + group, item, queue, position, result, f[FX_FE_RECV_POSITION], 0u);
    return FX_TAKEN;
}

fx_u32 fx_take_descriptor(
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
        fx_add(nic, fx_queue_of(nic, flow), BAD_DESCRIPTORS, 1u);
    }
    if (owned && operation == FX_OP_LIMITS) {
        fx_flow_limits(f, d[FX_DESC_LIMITS_CWND], d[FX_DESC_LIMITS_PACING_RATE]);
        e[FEP_WANT] |= WANT_SEND;
    } else if (owned) {
        bumped = fx_flow_bump(f, d[FX_DESC_BUMP_SEQUENCE], d[FX_DESC_BUMP_SENT], d[FX_DESC_BUMP_FREED]);
        if (bumped != 0) {
            fx_add(nic, fx_queue_of(nic, flow), BAD_DESCRIPTORS, 1u);
        }
        if (bumped == 2) {
            fx_punt(nic, flow, f, e, 0u, FX_CAUSE_BAD_BUMP);
            fx_item_free(nic, item);
            return FX_BARRIER;
        }
        if (bumped == 0) {
            e[FEP_WANT] |= (d[FX_DESC_BUMP_SENT] != 0u ? WANT_SEND : 0u) |
                (d[FX_DESC_BUMP_FREED] != 0u || (e[FEP_WANT] & WANT_HELD) != 0u ? WANT_ACK : 0u);
            e[FEP_WANT] &= ~WANT_HELD;
        }
    }
    fx_item_free(nic, item);
    return FX_TAKEN;
}
