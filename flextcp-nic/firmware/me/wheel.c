/* Timers of flows: a wheel for each group, in ticks of 8 microseconds; what is farther away than a turn stays for another. */
#include "nic.h"

#define tick_of(ms, ns) ((ms) * 125u + (ns) / 8000u)

static void unlink_flow(struct fx_nic *nic, FX_MEM fx_u32 *g, fx_u32 flow)
{
    FX_MEM fx_u32 *e = fx_entry(nic, flow);
    fx_u32 slot = e[FEP_WHEEL_SLOT];
    fx_u32 next = e[FEP_WHEEL_NEXT];
    fx_u32 prev = e[FEP_WHEEL_PREV];
    if (prev != 0u) {
        fx_entry(nic, prev - 1u)[FEP_WHEEL_NEXT] = next;
    } else {
        g[GS_SLOTS + slot] = next;
        if (next == 0u) {
            g[GS_OCCUPIED + (slot >> 5)] &= ~(1u << (slot & 31u));
        }
    }
    if (next != 0u) {
        fx_entry(nic, next - 1u)[FEP_WHEEL_PREV] = prev;
    }
    e[FEP_WANT] &= ~WANT_TIMER;
}

/* The flow's timer goes off at that time, or earlier if it is set already. */
void fx_timer_set(struct fx_nic *nic, fx_u32 group, fx_u32 flow, fx_u32 ms, fx_u32 ns)
{
    FX_MEM fx_u32 *g = fx_group(nic, group);
    FX_MEM fx_u32 *e = fx_entry(nic, flow);
    fx_u32 tick = tick_of(ms, ns);
    fx_u32 slot;
    fx_u32 next;
    if ((e[FEP_WANT] & WANT_TIMER) != 0u) {
        if (!fx_time_after(e[FEP_WHEEL_MS], e[FEP_WHEEL_NS], ms, ns)) {
            return;
        }
        unlink_flow(nic, g, flow);
    }
    if (fx_before(tick, g[GS_TICK])) {
        tick = g[GS_TICK];
    }
    slot = tick & (GS_SLOT_COUNT - 1u);
    next = g[GS_SLOTS + slot];
    e[FEP_WHEEL_MS] = ms;
    e[FEP_WHEEL_NS] = ns;
    e[FEP_WHEEL_SLOT] = slot;
    e[FEP_WHEEL_NEXT] = next;
    e[FEP_WHEEL_PREV] = 0u;
    e[FEP_WANT] |= WANT_TIMER;
    if (next != 0u) {
        fx_entry(nic, next - 1u)[FEP_WHEEL_PREV] = flow + 1u;
    }
    g[GS_SLOTS + slot] = flow + 1u;
    g[GS_OCCUPIED + (slot >> 5)] |= 1u << (slot & 31u);
}

void fx_timer_clear(struct fx_nic *nic, fx_u32 group, fx_u32 flow)
{
    if ((fx_entry(nic, flow)[FEP_WANT] & WANT_TIMER) != 0u) {
        unlink_flow(nic, fx_group(nic, group), flow);
    }
}

/* A flow whose time has come, off the wheel, plus 1; 0 for none. */
fx_u32 fx_timer_due(struct fx_nic *nic, fx_u32 group, fx_u32 now_ms, fx_u32 now_ns)
{
    FX_MEM fx_u32 *g = fx_group(nic, group);
    FX_MEM fx_u32 *e;
    fx_u32 now = tick_of(now_ms, now_ns);
    fx_u32 slot;
    fx_u32 flow;
    if (fx_before(now, g[GS_TICK])) {
        /* The host set the clock back. */
        g[GS_TICK] = now;
    }
    if (now - g[GS_TICK] >= GS_SLOT_COUNT) {
        g[GS_TICK] = now - (GS_SLOT_COUNT - 1u);
    }
    for (;;) {
        slot = g[GS_TICK] & (GS_SLOT_COUNT - 1u);
        if (g[GS_OCCUPIED + (slot >> 5)] == 0u) {
            /* Nothing up to the end of the word of bits. */
            if (now - g[GS_TICK] <= 31u - (slot & 31u)) {
                g[GS_TICK] = now;
                return 0u;
            }
            g[GS_TICK] += 32u - (slot & 31u);
            continue;
        }
        flow = g[GS_SLOTS + slot];
        while (flow != 0u) {
            e = fx_entry(nic, flow - 1u);
            if (!fx_time_after(e[FEP_WHEEL_MS], e[FEP_WHEEL_NS], now_ms, now_ns)) {
                unlink_flow(nic, g, flow - 1u);
                return flow;
            }
            flow = e[FEP_WHEEL_NEXT];
        }
        if (g[GS_TICK] == now) {
            return 0u;
        }
        g[GS_TICK] += 1u;
    }
}

/* The earliest timer of all groups: 0 for none. For a card in virtual time. */
int fx_timer_next(struct fx_nic *nic, FX_LOCAL fx_u32 *ms, FX_LOCAL fx_u32 *ns)
{
    FX_MEM fx_u32 *e;
    fx_u32 group;
    fx_u32 slot;
    fx_u32 flow;
    int found = 0;
    for (group = 0u; group < nic->groups; group++) {
        for (slot = 0u; slot < GS_SLOT_COUNT; slot++) {
            if (fx_group(nic, group)[GS_OCCUPIED + (slot >> 5)] == 0u) {
                slot |= 31u;
                continue;
            }
            flow = fx_group(nic, group)[GS_SLOTS + slot];
            while (flow != 0u) {
                e = fx_entry(nic, flow - 1u);
                if (!found || fx_time_after(*ms, *ns, e[FEP_WHEEL_MS], e[FEP_WHEEL_NS])) {
                    found = 1;
                    *ms = e[FEP_WHEEL_MS];
                    *ns = e[FEP_WHEEL_NS];
                }
                flow = e[FEP_WHEEL_NEXT];
            }
        }
    }
    return found;
}
