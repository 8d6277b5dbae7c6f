/* What the host is told of a flow: notifications, frames that it is to see, and the flow itself when it goes back. */
#include "flow.h"

/* The flow becomes the host's, with a frame or without. */
void fx_give_back(FX_LOCAL fx_u32 *f, FX_MEM fx_u32 *e, fx_u32 item, fx_u32 reason)
{
    f[FX_FE_STATUS] = FX_FLOW_STATUS_HOST_OWNED;
    e[FEP_PUNT_ITEM] = item;
    e[FEP_PUNT_REASON] = reason;
    e[FEP_WANT] |= WANT_RETURN;
}

void fx_punt(
    struct fx_nic *nic, fx_u32 flow, FX_LOCAL fx_u32 *f, FX_MEM fx_u32 *e, fx_u32 item, fx_u32 reason)
{
    fx_add(nic, fx_queue_of(nic, flow), PUNTED, 1u);
    fx_give_back(f, e, item, reason);
}

/* A frame that the host is to see and that brings nothing back. Without room for it, it is lost as on a wire. */
void fx_forward(
    struct fx_nic *nic, fx_u32 engine, fx_u32 queue, fx_u32 item, fx_u32 flow, fx_u32 generation, fx_u32 reason)
{
    if (fx_event_frame(nic, item, queue, flow, generation, reason, 0u)) {
        fx_event_start(nic, engine, item);
    } else {
        fx_add(nic, queue, NO_SLOT, 1u);
        fx_item_free(nic, item);
    }
}

void fx_tail_words(FX_LOCAL const fx_u32 *f, FX_MEM fx_u32 *words)
{
    fx_u32 outstanding = (f[FX_FL_FLAGS] & FX_LOCAL_OUTSTANDING) != 0u ? 1u : 0u;
    words[ITEM_TAIL] = f[FX_FE_GENERATION];
    words[ITEM_TAIL + 1u] = f[FX_FE_BUMPS];
    words[ITEM_TAIL + 2u] = outstanding;
    words[ITEM_TAIL + 3u] = f[FX_FL_OUTSTANDING_MS];
    words[ITEM_TAIL + 4u] = f[FX_FL_OUTSTANDING_NS];
}

/* Starts the notification: 0 when it has no place yet. */
int fx_notify(struct fx_nic *nic, fx_u32 group, fx_u32 flow, FX_LOCAL fx_u32 *f, FX_MEM fx_u32 *e)
{
    FX_MEM fx_u32 *words;
    fx_u32 queue = fx_queue_of(nic, flow);
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
int fx_hand_back(struct fx_nic *nic, fx_u32 group, fx_u32 flow, FX_LOCAL fx_u32 *f, FX_MEM fx_u32 *e)
{
    FX_MEM fx_u32 *words;
    fx_u32 queue = fx_queue_of(nic, flow);
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
    fx_tail_words(f, words);
    words[ITEM_STATE] |= ITEM_RETURNS;
    e[FEP_WANT] &= ~(WANT_RETURN | WANT_SEND | WANT_ACK | WANT_EARLY | WANT_DEADLINE | WANT_HELD);
    e[FEP_PUNT_ITEM] = 0u;
    fx_timer_clear(nic, group, flow);
    hal_store(e, f, FX_FE_PRIVATE);
    fx_event_start(nic, FX_ENGINE_FLOW + group, item);
    return 1;
}
