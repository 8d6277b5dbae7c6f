/* Descriptors of all queues, in order, and the raw frames of the slow path. */
#include "nic.h"

/* What became of a descriptor. */
#define TAKEN 1
#define LATER 0

static void stop(struct fx_nic *nic, fx_u32 queue, fx_u32 status)
{
    fx_queue(nic, queue)[QS_ENABLED] = 0u;
    hal_set_register(nic, fx_queue_register(queue, FX_QUEUE_STATUS), status);
}

/* Starts reading descriptors that the doorbell announced. */
static int fetch(struct fx_nic *nic, fx_u32 queue)
{
    FX_MEM fx_u32 *state = fx_queue(nic, queue);
    fx_u32 shift = hal_register(nic, fx_queue_register(queue, FX_QUEUE_DESCRIPTORS_SHIFT));
    fx_u32 entries = 1u << shift;
    fx_u32 taken = state[QS_TAKEN];
    fx_u32 count = hal_register(nic, fx_queue_register(queue, FX_QUEUE_DESCRIPTOR_TAIL)) - taken;
    fx_u32 low = hal_register(nic, fx_queue_register(queue, FX_QUEUE_DESCRIPTORS_LOW));
    fx_u32 high = hal_register(nic, fx_queue_register(queue, FX_QUEUE_DESCRIPTORS_HIGH));
    fx_u32 offset;
    if (count == 0u || hal_dma_room(nic) == 0u) {
        return 0;
    }
    if (count > entries) {
        stop(nic, queue, FX_QSTATUS_BAD_SEQUENCE);
        return 1;
    }
    /* Not across the end of the ring. */
    count = fx_min(count, entries - (taken & (entries - 1u)));
    count = fx_min(count, QS_FETCH_MAX);
    offset = (taken & (entries - 1u)) * (FX_DESCRIPTOR_WORDS << 2);
    low += offset;
    high += low < offset ? 1u : 0u;
    state[QS_FETCHED] = count;
    state[QS_USED] = 0u;
    state[QS_FETCHING] = 1u;
    hal_dma_get_words(
        nic, FX_ENGINE_CONTEXT, TAG_FETCH | queue, low, high, state + QS_FETCH, count * FX_DESCRIPTOR_WORDS);
    return 1;
}

/* Starts telling the host how far its descriptors and frames were taken, one write after the other. */
static int tell(struct fx_nic *nic, fx_u32 queue)
{
    FX_MEM fx_u32 *state = fx_queue(nic, queue);
    if (state[QS_CONTROL_BUSY] != 0u || hal_dma_room(nic) == 0u ||
        (state[QS_CONTROL] == state[QS_TAKEN] && state[QS_CONTROL + 1u] == state[QS_SENT])) {
        return 0;
    }
    state[QS_CONTROL_BUSY] = 1u;
    state[QS_CONTROL] = state[QS_TAKEN];
    state[QS_CONTROL + 1u] = state[QS_SENT];
    hal_dma_put_words(
        nic, FX_ENGINE_CONTEXT, TAG_CONTROL | queue, hal_register(nic, fx_queue_register(queue, FX_QUEUE_CONTROL_LOW)),
        hal_register(nic, fx_queue_register(queue, FX_QUEUE_CONTROL_HIGH)), state + QS_CONTROL, 2u);
    return 1;
}

static fx_u32 new_item(struct fx_nic *nic, fx_u32 queue, FX_MEM const fx_u32 *d)
{
    fx_u32 item = fx_item_new(nic, ITEM_DESCRIPTOR);
    fx_u32 i;
    if (item != 0u) {
        for (i = 0u; i < FX_DESCRIPTOR_WORDS; i++) {
            fx_item(nic, item)[ITEM_BODY + i] = d[i];
        }
        fx_item(nic, item)[ITEM_QUEUE] = queue;
        fx_item(nic, item)[ITEM_FLOW] = d[FX_DESC_FLOW];
    }
    return item;
}

/* Completes a descriptor here and now. */
static int complete(struct fx_nic *nic, fx_u32 queue, FX_MEM const fx_u32 *d, fx_u32 result)
{
    fx_u32 position;
    fx_u32 item = new_item(nic, queue, d);
    if (item == 0u) {
        return LATER;
    }
    if (!fx_event_reserve(nic, queue, &position)) {
        fx_item_free(nic, item);
        return LATER;
    }
    if (result != FX_DONE_OK) {
        fx_add(nic, queue, BAD_DESCRIPTORS, 1u);
    }
    fx_complete(nic, FX_ENGINE_CONTEXT, item, queue, position, result, 0u, 0u);
    return TAKEN;
}

static int listen(struct fx_nic *nic, fx_u32 queue, FX_MEM const fx_u32 *d, fx_u32 on)
{
    fx_u32 address[4];
    fx_u32 port = d[FX_DESC_LISTEN_PORT] & (0xffffu | FX_LISTEN_IPV6);
    fx_u32 connects = d[FX_DESC_LISTEN_PORT] & FX_LISTEN_CONNECTS;
    fx_u32 as = on == 0u ? 0u : connects != 0u ? LISTENER_CONNECTS : LISTENER_LISTENS;
    fx_u32 item;
    fx_u32 position;
    fx_u32 i;
    if (d[FX_DESC_LISTEN_PORT] != (port | connects)) {
        return complete(nic, queue, d, FX_DONE_UNSUPPORTED);
    }
    item = new_item(nic, queue, d);
    if (item == 0u) {
        return LATER;
    }
    if (!fx_event_reserve(nic, queue, &position)) {
        fx_item_free(nic, item);
        return LATER;
    }
    for (i = 0u; i < 4u; i++) {
        address[i] = d[FX_DESC_LISTEN_ADDRESS + i];
    }
    fx_complete(nic, FX_ENGINE_CONTEXT, item, queue, position, fx_listen(nic, address, port, as), 0u, 0u);
    return TAKEN;
}

/* Starts reading a raw frame. */
static int send_frame(struct fx_nic *nic, fx_u32 queue, FX_MEM const fx_u32 *d)
{
    FX_MEM fx_u32 *state = fx_queue(nic, queue);
    FX_MEM fx_u32 *words;
    fx_u32 length = d[FX_DESC_FRAME_LENGTH];
    fx_u32 item;
    fx_u32 packet;
    if (length < 14u || length > hal_packet_size(nic)) {
        return complete(nic, queue, d, FX_DONE_BAD_FRAME);
    }
    if (!fx_region_has(nic, d[FX_DESC_FRAME_LOW], d[FX_DESC_FRAME_HIGH], length)) {
        fx_add(nic, queue, BAD_ADDRESSES, 1u);
        return complete(nic, queue, d, FX_DONE_BAD_FRAME);
    }
    if (hal_dma_room(nic) == 0u) {
        return LATER;
    }
    item = new_item(nic, queue, d);
    if (item == 0u) {
        return LATER;
    }
    if (!hal_packet_alloc(nic, &packet)) {
        fx_item_free(nic, item);
        return LATER;
    }
    words = fx_item(nic, item);
    words[ITEM_KIND] = ITEM_SEND;
    words[ITEM_PACKET] = packet + 1u;
    words[ITEM_LENGTH] = length;
    words[ITEM_NEXT] = 0u;
    if (state[QS_SEND_HEAD] == 0u) {
        state[QS_SEND_HEAD] = item;
    } else {
        fx_item(nic, state[QS_SEND_TAIL])[ITEM_NEXT] = item;
    }
    state[QS_SEND_TAIL] = item;
    hal_dma_to_packet(
        nic, FX_ENGINE_CONTEXT, TAG_ITEM | item, d[FX_DESC_FRAME_LOW], d[FX_DESC_FRAME_HIGH], packet, 0u, length);
    return TAKEN;
}

/* Completes the checksum of a raw frame whose field holds the pseudo-header's sum. */
static void finish_frame(struct fx_nic *nic, fx_u32 packet, fx_u32 length)
{
    fx_u32 w[FX_PEEK_WORDS + 1u];
    fx_u32 p[FX_PKT_WORDS];
    fx_u32 sums[5];
    fx_u32 at;
    fx_u32 sum;
    hal_packet_read(nic, packet, w, FX_PEEK_WORDS);
    w[FX_PEEK_WORDS] = 0u;
    sums[4] = 1u;
    if (fx_parse(w, fx_min(length, FX_PEEK_BYTES), length, p, sums) != FX_VERDICT_SEGMENT ||
        (p[FX_PKT_FLAGS] & FX_PKTFLAG_ICMP) != 0u) {
        return;
    }
    sum = ~fx_fold(hal_packet_sum(nic, packet, sums[2], sums[3])) & 0xffffu;
    at = sums[2] + 16u;
    if ((at & 2u) != 0u) {
        w[at >> 2] = (w[at >> 2] & 0xffff0000u) | sum;
    } else {
        w[at >> 2] = (w[at >> 2] & 0x0000ffffu) | (sum << 16);
    }
    hal_packet_write(nic, packet, w, fx_min(length, FX_PEEK_BYTES));
}

/* Sends the raw frames that were read, in order. */
static int flush(struct fx_nic *nic, fx_u32 queue)
{
    FX_MEM fx_u32 *state = fx_queue(nic, queue);
    FX_MEM fx_u32 *words;
    fx_u32 item = state[QS_SEND_HEAD];
    fx_u32 length;
    fx_u32 partial;
    if (item == 0u) {
        return 0;
    }
    words = fx_item(nic, item);
    if ((words[ITEM_STATE] & ITEM_READ) == 0u) {
        return 0;
    }
    length = words[ITEM_LENGTH];
    partial = words[ITEM_BODY + FX_DESC_OPERATION] & FX_FRAME_CHECKSUM;
    if (partial != 0u && (hal_register(nic, FX_REG_CONFIG) & FX_CONFIG_TX_CHECKSUM) == 0u) {
        finish_frame(nic, words[ITEM_PACKET] - 1u, length);
        words[ITEM_BODY + FX_DESC_OPERATION] &= ~FX_FRAME_CHECKSUM;
        partial = 0u;
    }
    if (hal_packet_send(nic, words[ITEM_PACKET] - 1u, length, length, partial != 0u ? 1u : 0u, 0u)) {
        return 0;
    }
    fx_add(nic, queue, SLOW_FRAMES_OUT, 1u);
    state[QS_SENT] += 1u;
    words[ITEM_PACKET] = 0u;
    state[QS_SEND_HEAD] = words[ITEM_NEXT];
    fx_item_free(nic, item);
    return 1;
}

/* Carries out one descriptor: TAKEN, or LATER when something that it needs is not there now. */
static int carry_out(struct fx_nic *nic, fx_u32 queue, FX_MEM const fx_u32 *d)
{
    fx_u32 operation = d[FX_DESC_OPERATION] & 0xffu;
    fx_u32 flow = d[FX_DESC_FLOW];
    fx_u32 first = queue * nic->flows_per_queue;
    fx_u32 item;
    switch (operation) {
    case FX_OP_NOP:
        return TAKEN;
    case FX_OP_LISTEN:
        return listen(nic, queue, d, 1u);
    case FX_OP_UNLISTEN:
        return listen(nic, queue, d, 0u);
    case FX_OP_SEND_FRAME:
        return send_frame(nic, queue, d);
    default:
        break;
    }
    if (operation > FX_OP_SNAPSHOT) {
        return complete(nic, queue, d, FX_DONE_BAD_OPERATION);
    }
    if (flow < first || flow - first >= hal_register(nic, fx_queue_register(queue, FX_QUEUE_BLOCKS))) {
        if (operation == FX_OP_BUMP || operation == FX_OP_LIMITS) {
            fx_add(nic, queue, BAD_DESCRIPTORS, 1u);
            return TAKEN;
        }
        return complete(nic, queue, d, FX_DONE_NOT_YOURS);
    }
    item = new_item(nic, queue, d);
    if (item == 0u) {
        return LATER;
    }
    hal_ring_put(nic, FX_RING_WORK + (flow & (nic->groups - 1u)), item);
    return TAKEN;
}

static int queue_step(struct fx_nic *nic, fx_u32 queue)
{
    FX_MEM fx_u32 *state = fx_queue(nic, queue);
    FX_MEM fx_u32 *d;
    int did = flush(nic, queue);
    if (state[QS_ENABLED] == 0u) {
        return did;
    }
    did |= tell(nic, queue);
    if (state[QS_FETCHING] != 0u) {
        return did;
    }
    if (state[QS_USED] == state[QS_FETCHED]) {
        return did | fetch(nic, queue);
    }
    d = state + QS_FETCH + state[QS_USED] * FX_DESCRIPTOR_WORDS;
    if (d[FX_DESC_SEQUENCE] != state[QS_TAKEN] + 1u) {
        stop(nic, queue, FX_QSTATUS_BAD_SEQUENCE);
        return 1;
    }
    if (carry_out(nic, queue, d) == LATER) {
        return did;
    }
    state[QS_USED] += 1u;
    state[QS_TAKEN] += 1u;
    return 1;
}

/* A DMA of this engine is done. */
static void done(struct fx_nic *nic, fx_u32 tag)
{
    fx_u32 which = tag & ~TAG_KIND;
    FX_MEM fx_u32 *words;
    switch (tag & TAG_KIND) {
    case TAG_FETCH:
        fx_queue(nic, which)[QS_FETCHING] = 0u;
        break;
    case TAG_CONTROL:
        fx_queue(nic, which)[QS_CONTROL_BUSY] = 0u;
        break;
    default:
        words = fx_item(nic, which);
        if (words[ITEM_KIND] == ITEM_SEND) {
            words[ITEM_STATE] |= ITEM_READ;
        } else {
            (void)fx_event_done(nic, FX_ENGINE_CONTEXT, which);
        }
        break;
    }
}

int fx_context_step(struct fx_nic *nic)
{
    fx_u32 tag;
    fx_u32 failed;
    fx_u32 queue;
    int did = 0;
    if (!fx_running(nic)) {
        return 0;
    }
    if (hal_dma_done(nic, FX_ENGINE_CONTEXT, &tag, &failed)) {
        if (failed != 0u) {
            fx_fail(nic, FX_FAILURE_DMA, FX_ENGINE_CONTEXT);
            return 1;
        }
        done(nic, tag);
        did = 1;
    }
    did |= fx_event_retry(nic, FX_ENGINE_CONTEXT);
    for (queue = 0u; queue < nic->queues; queue++) {
        did |= queue_step(nic, queue);
    }
    return did;
}
