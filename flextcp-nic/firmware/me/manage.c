/* Start, reset, clock, queues: what the host asks for in registers. */
#include "nic.h"

#define FIRMWARE_VERSION 0x00010001u

int fx_running(struct fx_nic *nic)
{
    return hal_register(nic, FX_REG_STATUS) == FX_STATUS_READY;
}

/* Stops the card until a reset. */
void fx_fail(struct fx_nic *nic, fx_u32 failure, fx_u32 detail)
{
    hal_set_register(nic, FX_REG_FAILURE, failure);
    hal_set_register(nic, FX_REG_FAILURE_DETAIL, detail);
    hal_set_register(nic, FX_REG_STATUS, FX_STATUS_FAILED);
}

/* The card's clock as the host set it. */
void fx_now(struct fx_nic *nic, FX_LOCAL fx_u32 *ms, FX_LOCAL fx_u32 *ns)
{
    hal_clock(nic, ms, ns);
    *ms += hal_register(nic, FX_REG_CLOCK_OFFSET_MS);
    *ns += hal_register(nic, FX_REG_CLOCK_OFFSET_NS);
    if (*ns >= 1000000u) {
        *ns -= 1000000u;
        *ms += 1u;
    }
}

static void set_clock(struct fx_nic *nic)
{
    fx_u32 ms;
    fx_u32 ns;
    fx_u32 wanted_ms = hal_register(nic, FX_REG_CLOCK_MS);
    fx_u32 wanted_ns = hal_register(nic, FX_REG_CLOCK_NS);
    wanted_ns = fx_min(wanted_ns, 999999u);
    hal_clock(nic, &ms, &ns);
    wanted_ms -= ms;
    if (wanted_ns < ns) {
        wanted_ns += 1000000u;
        wanted_ms -= 1u;
    }
    hal_set_register(nic, FX_REG_CLOCK_OFFSET_MS, wanted_ms);
    hal_set_register(nic, FX_REG_CLOCK_OFFSET_NS, wanted_ns - ns);
    hal_set_register(nic, FX_REG_CLOCK_SET, 0u);
}

/* Whether all of a range of host memory lies in one region. */
int fx_region_has(struct fx_nic *nic, fx_u32 low, fx_u32 high, fx_u32 length)
{
    fx_u32 i;
    fx_u32 at;
    fx_u32 base_low;
    fx_u32 base_high;
    fx_u32 size;
    for (i = 0u; i < FX_REGIONS_MAX; i++) {
        at = FX_REG_REGIONS + i * FX_REGION_STRIDE;
        size = hal_register(nic, at + FX_REGION_LENGTH);
        base_low = hal_register(nic, at + FX_REGION_ADDRESS_LOW);
        base_high = hal_register(nic, at + FX_REGION_ADDRESS_HIGH);
        /* The distance from the base, which must fit the region, and then the length what is left of it. */
        if (size != 0u && high - base_high == (low < base_low ? 1u : 0u) && low - base_low <= size &&
            length <= size - (low - base_low)) {
            return 1;
        }
    }
    return 0;
}

static int in_region(struct fx_nic *nic, fx_u32 at, fx_u32 shift, fx_u32 unit)
{
    fx_u32 low = hal_register(nic, at);
    return (low & (FX_ALIGNMENT - 1u)) == 0u && fx_region_has(nic, low, hal_register(nic, at + 1u), unit << shift);
}

static fx_u32 queue_status(struct fx_nic *nic, fx_u32 queue)
{
    fx_u32 descriptors = hal_register(nic, fx_queue_register(queue, FX_QUEUE_DESCRIPTORS_SHIFT));
    fx_u32 events = hal_register(nic, fx_queue_register(queue, FX_QUEUE_EVENTS_SHIFT));
    fx_u32 frame = hal_register(nic, fx_queue_register(queue, FX_QUEUE_FRAME_SIZE));
    fx_u32 blocks = hal_register(nic, fx_queue_register(queue, FX_QUEUE_BLOCKS));
    if (descriptors < FX_ENTRIES_SHIFT_MIN || descriptors > FX_ENTRIES_SHIFT_MAX || events < FX_ENTRIES_SHIFT_MIN ||
        events > FX_ENTRIES_SHIFT_MAX || (frame & (FX_ALIGNMENT - 1u)) != 0u || frame == 0u || frame > 0x20000u ||
        frame >> (31u - events) != 0u || blocks > nic->flows_per_queue) {
        return FX_QSTATUS_BAD_SIZE;
    }
    if (!in_region(nic, fx_queue_register(queue, FX_QUEUE_DESCRIPTORS_LOW), descriptors, FX_DESCRIPTOR_WORDS << 2) ||
        !in_region(nic, fx_queue_register(queue, FX_QUEUE_EVENTS_LOW), events, FX_EVENT_WORDS << 2) ||
        !in_region(nic, fx_queue_register(queue, FX_QUEUE_CONTROL_LOW), 0u, FX_CONTROL_WORDS << 2) ||
        !in_region(nic, fx_queue_register(queue, FX_QUEUE_BLOCKS_LOW), 0u, blocks * (FX_FLOW_BLOCK_WORDS << 2)) ||
        !in_region(nic, fx_queue_register(queue, FX_QUEUE_FRAMES_LOW), events, frame)) {
        return FX_QSTATUS_BAD_ADDRESS;
    }
    return FX_QSTATUS_RUNNING;
}

/* Starts, stops and arms a queue. */
static int manage_queue(struct fx_nic *nic, fx_u32 queue)
{
    FX_MEM fx_u32 *state = fx_queue(nic, queue);
    fx_u32 status = hal_register(nic, fx_queue_register(queue, FX_QUEUE_STATUS));
    fx_u32 enable = hal_register(nic, fx_queue_register(queue, FX_QUEUE_ENABLE));
    fx_u32 armed;
    if (enable != 0u && status == FX_QSTATUS_STOPPED) {
        status = queue_status(nic, queue);
        state[QS_ENABLED] = status == FX_QSTATUS_RUNNING ? 1u : 0u;
        hal_set_register(nic, fx_queue_register(queue, FX_QUEUE_STATUS), status);
        return 1;
    }
    if (enable == 0u && status != FX_QSTATUS_STOPPED) {
        state[QS_ENABLED] = 0u;
        hal_set_register(nic, fx_queue_register(queue, FX_QUEUE_STATUS), FX_QSTATUS_STOPPED);
        return 1;
    }
    armed = hal_register(nic, fx_queue_register(queue, FX_QUEUE_ARM_COUNT));
    if (state[QS_ENABLED] == 0u || armed == state[QS_ARM_SEEN]) {
        return 0;
    }
    state[QS_ARM_SEEN] = armed;
    state[QS_ARMED] = 1u;
    if (fx_before(hal_register(nic, fx_queue_register(queue, FX_QUEUE_ARM)), state[QS_EVENT_TOLD])) {
        state[QS_ARMED] = 0u;
        hal_interrupt(nic, queue);
    }
    return 1;
}

static void clear(FX_MEM fx_u32 *words, fx_u32 count)
{
    fx_u32 i;
    for (i = 0u; i < count; i++) {
        words[i] = 0u;
    }
}

/* Everything as after power-on; no DMA is under way, and no other engine runs. */
static void clear_all(struct fx_nic *nic)
{
    fx_u32 item;
    fx_u32 length;
    fx_u32 sum;
    fx_u32 i;
    while (hal_packet_receive(nic, &item, &length, &sum)) {
        hal_packet_free(nic, item);
    }
    while (hal_ring_get(nic, FX_RING_FREE, &item)) {
    }
    for (i = 0u; i < nic->groups; i++) {
        while (hal_ring_get(nic, FX_RING_WORK + i, &item)) {
        }
    }
    for (item = 1u; item < nic->item_count; item++) {
        if (fx_item(nic, item)[ITEM_KIND] != 0u && fx_item(nic, item)[ITEM_PACKET] != 0u) {
            hal_packet_free(nic, fx_item(nic, item)[ITEM_PACKET] - 1u);
        }
        fx_item(nic, item)[ITEM_KIND] = 0u;
        hal_ring_put(nic, FX_RING_FREE, item);
    }
    clear(nic->entries, nic->queues * nic->flows_per_queue * FX_FLOW_ENTRY_WORDS);
    clear(nic->buckets, (nic->bucket_mask + 1u) * FX_BUCKET);
    clear(nic->queue_state, nic->queues * QS_WORDS);
    clear(nic->group_state, nic->groups * GS_WORDS);
    clear(nic->listeners, FX_LISTENERS_MAX * LISTENER_WORDS);
    clear(nic->retry, FX_ENGINE_FLOW + nic->groups);
    nic->listening = 0u;
    for (i = FX_REG_REGIONS; i < FX_REG_END; i++) {
        hal_set_register(nic, i, 0u);
    }
    hal_set_register(nic, FX_REG_CONFIG, 0u);
    hal_set_register(nic, FX_REG_FILTER, 0u);
    hal_set_register(nic, FX_REG_DELAYED_ACK, 0u);
    hal_set_register(nic, FX_REG_SUPER_FRAME, 0u);
    hal_set_register(nic, FX_REG_RSS_MASK, 0u);
    hal_set_register(nic, FX_REG_FAILURE, FX_FAILURE_NONE);
    hal_set_register(nic, FX_REG_FAILURE_DETAIL, 0u);
}

/* What the card is, before the first reset. */
void fx_boot(struct fx_nic *nic, fx_u32 mtu, fx_u32 mac_high, fx_u32 mac_low, fx_u32 flow_table, fx_u32 capabilities)
{
    hal_set_register(nic, FX_REG_ABI_VERSION, FX_ABI_VERSION);
    hal_set_register(nic, FX_REG_FIRMWARE_VERSION, FIRMWARE_VERSION);
    hal_set_register(
        nic, FX_REG_CAPABILITIES,
        capabilities | FX_CAP_IPV4 | FX_CAP_IPV6 | FX_CAP_TIMESTAMPS | FX_CAP_ECN | FX_CAP_PACING | FX_CAP_RX_CHECKSUM |
            FX_CAP_TX_CHECKSUM | FX_CAP_FILTER);
    hal_set_register(nic, FX_REG_EPOCH, hal_register(nic, FX_REG_EPOCH) + 1u);
    hal_set_register(nic, FX_REG_QUEUES, nic->queues);
    hal_set_register(nic, FX_REG_FLOWS_PER_QUEUE, nic->flows_per_queue);
    hal_set_register(nic, FX_REG_GROUPS, nic->groups);
    hal_set_register(nic, FX_REG_MTU, mtu);
    hal_set_register(nic, FX_REG_MAC_HIGH, mac_high);
    hal_set_register(nic, FX_REG_MAC_LOW, mac_low);
    hal_set_register(nic, FX_REG_FLOW_TABLE, flow_table);
    hal_set_register(nic, FX_REG_MAGIC, FX_MAGIC);
}

static int reset(struct fx_nic *nic)
{
    fx_u32 wanted = hal_register(nic, FX_REG_RESET);
    fx_u32 engine;
    fx_u32 tag;
    fx_u32 failed;
    int did = 0;
    if (hal_register(nic, FX_REG_STATUS) != FX_STATUS_RESETTING) {
        hal_set_register(nic, FX_REG_STATUS, FX_STATUS_RESETTING);
        did = 1;
    }
    /* Nobody else takes what is done any more. */
    for (engine = 0u; engine < FX_ENGINE_FLOW + nic->groups; engine++) {
        while (hal_dma_done(nic, engine, &tag, &failed)) {
            did = 1;
        }
    }
    if (hal_dma_pending(nic) != 0u) {
        return did;
    }
    clear_all(nic);
    hal_set_register(nic, FX_REG_EPOCH, hal_register(nic, FX_REG_EPOCH) + 1u);
    hal_set_register(nic, FX_REG_RESET_DONE, wanted);
    hal_set_register(nic, FX_REG_STATUS, FX_STATUS_READY);
    return 1;
}

int fx_manage_step(struct fx_nic *nic)
{
    fx_u32 queue;
    int did = 0;
    hal_set_register(nic, FX_REG_HEARTBEAT, hal_register(nic, FX_REG_HEARTBEAT) + 1u);
    if (hal_register(nic, FX_REG_RESET) != hal_register(nic, FX_REG_RESET_DONE)) {
        return reset(nic);
    }
    if (hal_register(nic, FX_REG_CLOCK_SET) != 0u) {
        set_clock(nic);
        did = 1;
    }
    for (queue = 0u; fx_running(nic) && queue < nic->queues; queue++) {
        did |= manage_queue(nic, queue);
    }
    return did;
}
