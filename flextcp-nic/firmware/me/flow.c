/* Everything of a flow, in order: segments, bumps, requests, timers.
 *
 * A flow works in rounds. It takes what waits for it, payload on its way to the receive ring (PHASE_LAND); when all of that
 * has landed, it tells the host (PHASE_TELL); when that is in host memory, it acknowledges and sends (PHASE_READ); then the
 * next round. So no ACK covers a byte of which the host does not know, and the rounds grow with the load.
 */
#include "flow.h"

/* Items taken in one round. */
#define ROUND 32u

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
            ? fx_take_segment(nic, FX_ENGINE_FLOW + group, flow, f, e, item)
            : fx_take_descriptor(nic, group, flow, f, e, item);
        if (result == FX_LATER || result == FX_WAIT) {
            *blocked = result == FX_LATER ? 1u : 0u;
            break;
        }
        e[FEP_WAIT_HEAD] = next;
        if (next == 0u) {
            e[FEP_WAIT_TAIL] = 0u;
        }
        taken += 1u;
        if (result == FX_BARRIER) {
            break;
        }
    }
    return taken;
}

/* A flow goes on where it stands; no DMA is under way for it. Returns whether it came any further; *starved when it has to be
 * tried again without anything of its own happening. */
static int advance(
    struct fx_nic *nic, fx_u32 group, fx_u32 flow, FX_LOCAL fx_u32 *f, FX_MEM fx_u32 *e, FX_LOCAL fx_u32 *starved)
{
    fx_u32 progress = 0u;
    fx_u32 sent;
    if (e[FEP_PHASE] == PHASE_FETCH) {
        if (!fx_finish_install(nic, group, flow, f, e)) {
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
        fx_landed(nic, flow, f, e);
        if ((e[FEP_WANT] & WANT_TELL) != 0u) {
            if (!fx_notify(nic, group, flow, f, e)) {
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
                fx_punt(nic, flow, f, e, 0u, FX_CAUSE_STALLED);
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
        if (!fx_hand_back(nic, group, flow, f, e)) {
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
            /* No reply came in time to carry the ACK. */
            e[FX_FL_FLAGS] |= FX_LOCAL_ACK_NOW;
            e[FX_FS_FLAGS] &= ~FX_FLOW_CONVERSATION;
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
