/* Events: their places in the rings, and how they get there. What an event reports is in host memory before it. */
#include "nic.h"

fx_u32 fx_item_new(struct fx_nic *nic, fx_u32 kind)
{
    fx_u32 item;
    fx_u32 i;
    if ((kind == ITEM_SEGMENT && hal_ring_count(nic, FX_RING_FREE) <= nic->item_count >> ITEMS_FOR_FRAMES) ||
        (kind == ITEM_DESCRIPTOR && hal_ring_count(nic, FX_RING_FREE) <= nic->item_count >> ITEMS_FOR_DESCRIPTORS) ||
        !hal_ring_get(nic, FX_RING_FREE, &item)) {
        return 0u;
    }
    for (i = 0u; i < ITEM_WORDS; i++) {
        fx_item(nic, item)[i] = 0u;
    }
    fx_item(nic, item)[ITEM_KIND] = kind;
    return item;
}

void fx_item_free(struct fx_nic *nic, fx_u32 item)
{
    fx_u32 packet = fx_item(nic, item)[ITEM_PACKET];
    if (packet != 0u) {
        hal_packet_free(nic, packet - 1u);
    }
    fx_item(nic, item)[ITEM_KIND] = 0u;
    hal_ring_put(nic, FX_RING_FREE, item);
}

/* Gives out the next place of a queue's event ring; 0 when the host has not made room. */
int fx_event_reserve(struct fx_nic *nic, fx_u32 queue, FX_LOCAL fx_u32 *position)
{
    FX_MEM fx_u32 *state = fx_queue(nic, queue);
    fx_u32 entries = 1u << hal_register(nic, fx_queue_register(queue, FX_QUEUE_EVENTS_SHIFT));
    fx_u32 used;
    int reserved = 0;
    if (state[QS_ENABLED] == 0u) {
        return 0;
    }
    hal_lock(nic, FX_LOCK_QUEUE + queue);
    used = state[QS_EVENT_TAIL] - hal_register(nic, fx_queue_register(queue, FX_QUEUE_EVENT_HEAD));
    if (used > entries) {
        /* The host gave back what it never got. */
        state[QS_ENABLED] = 0u;
        hal_set_register(nic, fx_queue_register(queue, FX_QUEUE_STATUS), FX_QSTATUS_BAD_SEQUENCE);
    } else if (used < entries) {
        *position = state[QS_EVENT_TAIL];
        state[QS_EVENT_TAIL] += 1u;
        reserved = 1;
    }
    hal_unlock(nic, FX_LOCK_QUEUE + queue);
    return reserved;
}

/* Makes an item an event; its further words are 0. */
void fx_event_begin(
    struct fx_nic *nic, fx_u32 item, fx_u32 queue, fx_u32 position, fx_u32 kind, fx_u32 flow, fx_u32 generation)
{
    FX_MEM fx_u32 *words = fx_item(nic, item);
    fx_u32 i;
    words[ITEM_KIND] = ITEM_EVENT;
    words[ITEM_STATE] = 0u;
    words[ITEM_QUEUE] = queue;
    words[ITEM_POSITION] = position;
    words[ITEM_FLOW] = flow;
    for (i = 0u; i < FX_EVENT_WORDS; i++) {
        words[ITEM_BODY + i] = 0u;
    }
    words[ITEM_BODY + FX_EVENT_KIND] = kind;
    words[ITEM_BODY + FX_EVENT_FLOW] = flow;
    words[ITEM_BODY + FX_EVENT_GENERATION] = generation;
    words[ITEM_BODY + FX_EVENT_SEQUENCE] = position + 1u;
}

/* Makes an item with a frame an exception; 0, and the item is as it was, when there is no place or the frame is too long. */
int fx_event_frame(
    struct fx_nic *nic, fx_u32 item, fx_u32 queue, fx_u32 flow, fx_u32 generation, fx_u32 reason, fx_u32 flags)
{
    FX_MEM fx_u32 *words = fx_item(nic, item);
    fx_u32 length = words[ITEM_LENGTH];
    fx_u32 position;
    if (length > hal_register(nic, fx_queue_register(queue, FX_QUEUE_FRAME_SIZE)) ||
        !fx_event_reserve(nic, queue, &position)) {
        return 0;
    }
    fx_event_begin(nic, item, queue, position, FX_KIND_EXCEPTION | flags, flow, generation);
    words[ITEM_BODY + FX_EVENT_REASON] = reason;
    words[ITEM_BODY + FX_EVENT_FRAME_LENGTH] = length;
    fx_add(nic, queue, SLOW_FRAMES_IN, 1u);
    return 1;
}

static void address(struct fx_nic *nic, fx_u32 at, fx_u32 offset, FX_LOCAL fx_u32 *low, FX_LOCAL fx_u32 *high)
{
    *low = hal_register(nic, at) + offset;
    *high = hal_register(nic, at + 1u) + (*low < offset ? 1u : 0u);
}

static void retry_later(struct fx_nic *nic, fx_u32 engine, fx_u32 item)
{
    /* In order: the list is short, a DMA at most waits for the one before it. */
    fx_u32 last = nic->retry[engine];
    fx_item(nic, item)[ITEM_NEXT] = 0u;
    if (last == 0u) {
        nic->retry[engine] = item;
        return;
    }
    while (fx_item(nic, last)[ITEM_NEXT] != 0u) {
        last = fx_item(nic, last)[ITEM_NEXT];
    }
    fx_item(nic, last)[ITEM_NEXT] = item;
}

static void tell(struct fx_nic *nic, fx_u32 engine, fx_u32 item)
{
    FX_MEM fx_u32 *words = fx_item(nic, item);
    fx_u32 queue = words[ITEM_QUEUE];
    fx_u32 entries = 1u << hal_register(nic, fx_queue_register(queue, FX_QUEUE_EVENTS_SHIFT));
    fx_u32 low;
    fx_u32 high;
    words[ITEM_STATE] = (words[ITEM_STATE] & ~0xffu) | ITEM_TELLING | 1u;
    address(
        nic, fx_queue_register(queue, FX_QUEUE_EVENTS_LOW), (words[ITEM_POSITION] & (entries - 1u)) << 6, &low, &high);
    hal_dma_put_words(nic, engine, TAG_ITEM | item, low, high, words + ITEM_BODY, FX_EVENT_WORDS);
}

/* Starts what an event is made of: the flow's block, the frame, and when they are there the event. */
void fx_event_start(struct fx_nic *nic, fx_u32 engine, fx_u32 item)
{
    FX_MEM fx_u32 *words = fx_item(nic, item);
    fx_u32 queue = words[ITEM_QUEUE];
    fx_u32 entries;
    fx_u32 pending = 0u;
    fx_u32 slot;
    fx_u32 low;
    fx_u32 high;
    if (hal_dma_room(nic) < 3u) {
        retry_later(nic, engine, item);
        return;
    }
    if ((words[ITEM_STATE] & ITEM_RETURNS) != 0u) {
        slot = (words[ITEM_FLOW] - queue * nic->flows_per_queue) * (FX_FLOW_BLOCK_WORDS << 2);
        address(nic, fx_queue_register(queue, FX_QUEUE_BLOCKS_LOW), slot, &low, &high);
        hal_dma_put_words(nic, engine, TAG_ITEM | item, low, high, fx_entry(nic, words[ITEM_FLOW]), FX_FS_WORDS);
        address(
            nic, fx_queue_register(queue, FX_QUEUE_BLOCKS_LOW), slot + (FX_BLOCK_GENERATION << 2), &low, &high);
        hal_dma_put_words(nic, engine, TAG_ITEM | item, low, high, words + ITEM_TAIL, 5u);
        pending = 2u;
    }
    if (words[ITEM_PACKET] != 0u) {
        entries = 1u << hal_register(nic, fx_queue_register(queue, FX_QUEUE_EVENTS_SHIFT));
        slot = (words[ITEM_POSITION] & (entries - 1u)) *
            hal_register(nic, fx_queue_register(queue, FX_QUEUE_FRAME_SIZE));
        address(nic, fx_queue_register(queue, FX_QUEUE_FRAMES_LOW), slot, &low, &high);
        hal_dma_from_packet(
            nic, engine, TAG_ITEM | item, low, high, words[ITEM_PACKET] - 1u, 0u, words[ITEM_LENGTH]);
        pending += 1u;
    }
    words[ITEM_STATE] = (words[ITEM_STATE] & ~0xffu) | pending;
    if (pending == 0u) {
        tell(nic, engine, item);
    }
}

/* A DMA of an event is done: starts the next; returns flow + 1 when the event is told and its flow waits for that. */
fx_u32 fx_event_done(struct fx_nic *nic, fx_u32 engine, fx_u32 item)
{
    FX_MEM fx_u32 *words = fx_item(nic, item);
    fx_u32 queue = words[ITEM_QUEUE];
    FX_MEM fx_u32 *state = fx_queue(nic, queue);
    fx_u32 after = words[ITEM_POSITION] + 1u;
    fx_u32 waited;
    words[ITEM_STATE] -= 1u;
    if ((words[ITEM_STATE] & 0xffu) != 0u) {
        return 0u;
    }
    if ((words[ITEM_STATE] & ITEM_TELLING) == 0u) {
        if (hal_dma_room(nic) == 0u) {
            words[ITEM_STATE] |= ITEM_TELLING;
            retry_later(nic, engine, item);
        } else {
            tell(nic, engine, item);
        }
        return 0u;
    }
    fx_add(nic, queue, EVENTS, 1u);
    if (fx_before(state[QS_EVENT_TOLD], after)) {
        state[QS_EVENT_TOLD] = after;
    }
    if (state[QS_ARMED] != 0u &&
        fx_before(hal_register(nic, fx_queue_register(queue, FX_QUEUE_ARM)), after)) {
        state[QS_ARMED] = 0u;
        hal_interrupt(nic, queue);
    }
    waited = (words[ITEM_STATE] & ITEM_WAITED) != 0u ? words[ITEM_FLOW] + 1u : 0u;
    fx_item_free(nic, item);
    return waited;
}

/* Starts DMA that had to wait for room; 0 when there is none or none waits. */
int fx_event_retry(struct fx_nic *nic, fx_u32 engine)
{
    fx_u32 item = nic->retry[engine];
    if (item == 0u || hal_dma_room(nic) < 3u) {
        return 0;
    }
    nic->retry[engine] = fx_item(nic, item)[ITEM_NEXT];
    if ((fx_item(nic, item)[ITEM_STATE] & ITEM_TELLING) != 0u) {
        tell(nic, engine, item);
    } else {
        fx_event_start(nic, engine, item);
    }
    return 1;
}

/* Makes a descriptor's item its completion, at a place reserved before; `state` is what else there is to it (ITEM_*). */
void fx_complete(
    struct fx_nic *nic, fx_u32 engine, fx_u32 item, fx_u32 queue, fx_u32 position, fx_u32 result, fx_u32 ring_position,
    fx_u32 state)
{
    FX_MEM fx_u32 *words = fx_item(nic, item);
    fx_u32 operation = words[ITEM_BODY + FX_DESC_OPERATION] & 0xffu;
    fx_u32 flow = words[ITEM_BODY + FX_DESC_FLOW];
    fx_u32 generation = words[ITEM_BODY + FX_DESC_GENERATION];
    fx_u32 tag = words[ITEM_BODY + FX_DESC_TAG];
    if (operation >= FX_OP_LISTEN && operation <= FX_OP_SEND_FRAME) {
        flow = FX_EVENT_NO_FLOW;
        generation = 0u;
    }
    fx_event_begin(nic, item, queue, position, FX_KIND_COMPLETION, flow, generation);
    words[ITEM_BODY + FX_EVENT_TAG] = tag;
    words[ITEM_BODY + FX_EVENT_RESULT] = result;
    words[ITEM_BODY + FX_EVENT_OPERATION] = operation;
    words[ITEM_BODY + FX_EVENT_POSITION] = ring_position;
    words[ITEM_STATE] |= state;
    fx_event_start(nic, engine, item);
}
