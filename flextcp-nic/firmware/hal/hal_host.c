/* The hardware of an emulated card: memories from the heap, DMA and wire by the emulator, one thread. */
#include <stdlib.h>
#include <string.h>

#include "hal_host.h"
#include "nic.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "words reach host memory as they are: an emulated card needs a little-endian host"
#endif

#define DMA_SLOTS 256u
#define ENGINES_MAX (FX_ENGINE_FLOW + FX_GROUPS_MAX)

/* A DMA: its own id is its index. */
struct slot {
    struct fx_host_dma dma;
    fx_u32 engine;
    fx_u32 tag;
    fx_u32 used;
    fx_u32 accepted; /* the emulator has it */
    fx_u32 failed;
};

/* A ring of words: first in, first out. */
struct ring {
    fx_u32 *words;
    fx_u32 size;
    fx_u32 head;
    fx_u32 count;
};

struct host {
    volatile fx_u32 *bar;
    struct fx_host_ops ops;
    struct fx_host_config config;
    fx_u32 clock_ms;
    fx_u32 clock_ns;
    unsigned char *packets;
    fx_u32 *lengths;          /* of received packets, and what is known of their checksums */
    fx_u32 *sums;
    struct ring free_packets;
    struct ring received;
    struct ring rings[FX_RING_WORK + FX_GROUPS_MAX];
    struct ring done[ENGINES_MAX]; /* ids */
    struct slot slots[DMA_SLOTS];
    struct ring order;        /* of DMA that the emulator has not taken */
    fx_u32 pending;
};

static struct host *host_of(const struct fx_nic *nic)
{
    return (struct host *)nic->hal;
}

static int ring_new(struct ring *ring, fx_u32 size)
{
    ring->words = (fx_u32 *)calloc(size, sizeof(fx_u32));
    ring->size = size;
    ring->head = 0u;
    ring->count = 0u;
    return ring->words != 0;
}

static void ring_put(struct ring *ring, fx_u32 value)
{
    fx_u32 at = ring->head + ring->count;
    ring->words[at >= ring->size ? at - ring->size : at] = value;
    ring->count++;
}

static int ring_get(struct ring *ring, fx_u32 *value)
{
    if (ring->count == 0u) {
        return 0;
    }
    *value = ring->words[ring->head];
    ring->head = ring->head + 1u == ring->size ? 0u : ring->head + 1u;
    ring->count--;
    return 1;
}

fx_u32 hal_register(struct fx_nic *nic, fx_u32 at)
{
    return __atomic_load_n(&host_of(nic)->bar[at], __ATOMIC_ACQUIRE);
}

void hal_set_register(struct fx_nic *nic, fx_u32 at, fx_u32 value)
{
    __atomic_store_n(&host_of(nic)->bar[at], value, __ATOMIC_RELEASE);
}

void hal_count(struct fx_nic *nic, fx_u32 at, fx_u32 n)
{
    fx_u32 low = hal_register(nic, at) + n;
    /* The high word first: who reads high, low and high again sees a carry. */
    if (low < n) {
        hal_set_register(nic, at + 1u, hal_register(nic, at + 1u) + 1u);
    }
    hal_set_register(nic, at, low);
}

void hal_load(fx_u32 *to, const fx_u32 *from, fx_u32 words)
{
    memcpy(to, from, words * sizeof(fx_u32));
}

void hal_store(fx_u32 *to, const fx_u32 *from, fx_u32 words)
{
    fx_u32 i;
    __atomic_thread_fence(__ATOMIC_RELEASE);
    for (i = 0u; i < words; i++) {
        __atomic_store_n(&to[i], from[i], __ATOMIC_RELAXED);
    }
    __atomic_thread_fence(__ATOMIC_RELEASE);
}

void hal_clock(struct fx_nic *nic, fx_u32 *ms, fx_u32 *ns)
{
    *ms = host_of(nic)->clock_ms;
    *ns = host_of(nic)->clock_ns;
}

fx_u32 hal_dma_room(struct fx_nic *nic)
{
    return DMA_SLOTS - host_of(nic)->pending;
}

fx_u32 hal_dma_pending(struct fx_nic *nic)
{
    return host_of(nic)->pending;
}

/* Offers the emulator what it has not taken yet, in order. */
static int offer(struct host *host)
{
    struct slot *slot;
    fx_u32 id;
    int did = 0;
    while (host->order.count != 0u) {
        slot = &host->slots[host->order.words[host->order.head]];
        slot->accepted = 1u;
        if (host->ops.dma(host->ops.context, &slot->dma)) {
            slot->accepted = 0u;
            return did;
        }
        (void)ring_get(&host->order, &id);
        did = 1;
    }
    return did;
}

static void start(
    struct host *host, fx_u32 engine, fx_u32 tag, fx_u32 low, fx_u32 high, unsigned char *local, fx_u32 length,
    fx_u32 to_host)
{
    struct slot *slot = host->slots;
    while (slot->used != 0u) {
        slot++;
    }
    slot->used = 1u;
    slot->accepted = 0u;
    slot->engine = engine;
    slot->tag = tag;
    slot->dma.id = (fx_u32)(slot - host->slots);
    slot->dma.to_host = to_host;
    slot->dma.address_low = low;
    slot->dma.address_high = high;
    slot->dma.local = local;
    slot->dma.length = length;
    host->pending++;
    ring_put(&host->order, slot->dma.id);
}

static unsigned char *packet_at(struct host *host, fx_u32 packet, fx_u32 offset)
{
    return host->packets + (size_t)packet * host->config.packet_bytes + offset;
}

void hal_dma_get_words(
    struct fx_nic *nic, fx_u32 engine, fx_u32 tag, fx_u32 low, fx_u32 high, fx_u32 *to, fx_u32 words)
{
    start(host_of(nic), engine, tag, low, high, (unsigned char *)to, words << 2, 0u);
}

void hal_dma_put_words(
    struct fx_nic *nic, fx_u32 engine, fx_u32 tag, fx_u32 low, fx_u32 high, const fx_u32 *from, fx_u32 words)
{
    union {
        const fx_u32 *from;
        unsigned char *local;
    } memory;
    memory.from = from;
    start(host_of(nic), engine, tag, low, high, memory.local, words << 2, 1u);
}

void hal_dma_to_packet(
    struct fx_nic *nic, fx_u32 engine, fx_u32 tag, fx_u32 low, fx_u32 high, fx_u32 packet, fx_u32 offset, fx_u32 length)
{
    start(host_of(nic), engine, tag, low, high, packet_at(host_of(nic), packet, offset), length, 0u);
}

void hal_dma_from_packet(
    struct fx_nic *nic, fx_u32 engine, fx_u32 tag, fx_u32 low, fx_u32 high, fx_u32 packet, fx_u32 offset, fx_u32 length)
{
    start(host_of(nic), engine, tag, low, high, packet_at(host_of(nic), packet, offset), length, 1u);
}

int hal_dma_done(struct fx_nic *nic, fx_u32 engine, fx_u32 *tag, fx_u32 *failed)
{
    struct host *host = host_of(nic);
    fx_u32 id;
    if (!ring_get(&host->done[engine], &id)) {
        return 0;
    }
    *tag = host->slots[id].tag;
    *failed = host->slots[id].failed;
    host->slots[id].used = 0u;
    host->pending--;
    return 1;
}

int hal_packet_receive(struct fx_nic *nic, fx_u32 *packet, fx_u32 *length, fx_u32 *sum)
{
    struct host *host = host_of(nic);
    if (!ring_get(&host->received, packet)) {
        return 0;
    }
    *length = host->lengths[*packet];
    *sum = host->sums[*packet];
    return 1;
}

int hal_packet_alloc(struct fx_nic *nic, fx_u32 *packet)
{
    return ring_get(&host_of(nic)->free_packets, packet);
}

void hal_packet_free(struct fx_nic *nic, fx_u32 packet)
{
    ring_put(&host_of(nic)->free_packets, packet);
}

fx_u32 hal_packet_size(struct fx_nic *nic)
{
    return host_of(nic)->config.packet_bytes;
}

void hal_packet_read(struct fx_nic *nic, fx_u32 packet, fx_u32 *to, fx_u32 words)
{
    const unsigned char *from = packet_at(host_of(nic), packet, 0u);
    fx_u32 i;
    for (i = 0u; i < words; i++) {
        to[i] = ((fx_u32)from[0] << 24) | ((fx_u32)from[1] << 16) | ((fx_u32)from[2] << 8) | from[3];
        from += 4;
    }
}

void hal_packet_write(struct fx_nic *nic, fx_u32 packet, const fx_u32 *from, fx_u32 bytes)
{
    unsigned char *to = packet_at(host_of(nic), packet, 0u);
    fx_u32 i;
    for (i = 0u; i < bytes; i++) {
        to[i] = (unsigned char)(from[i >> 2] >> (24u - ((i & 3u) << 3)));
    }
}

fx_u32 hal_packet_sum(struct fx_nic *nic, fx_u32 packet, fx_u32 offset, fx_u32 length)
{
    const unsigned char *from = packet_at(host_of(nic), packet, offset);
    fx_u32 sum = 0u;
    fx_u32 i;
    for (i = 0u; i + 4u <= length; i += 4u) {
        sum = fx_sum_add(
            sum, ((fx_u32)from[0] << 24) | ((fx_u32)from[1] << 16) | ((fx_u32)from[2] << 8) | from[3]);
        from += 4;
    }
    for (; i < length; i++) {
        sum = fx_sum_add(sum, (fx_u32)*from << (24u - ((i & 3u) << 3)));
        from++;
    }
    return sum;
}

int hal_packet_send(struct fx_nic *nic, fx_u32 packet, fx_u32 length, fx_u32 header, fx_u32 partial, fx_u32 mss)
{
    struct host *host = host_of(nic);
    if (host->ops.transmit(host->ops.context, packet_at(host, packet, 0u), length, header, partial, mss)) {
        return 1;
    }
    hal_packet_free(nic, packet);
    return 0;
}

void hal_packet_netdev(struct fx_nic *nic, fx_u32 packet, fx_u32 length)
{
    struct host *host = host_of(nic);
    host->ops.netdev(host->ops.context, packet_at(host, packet, 0u), length);
    hal_packet_free(nic, packet);
}

void hal_ring_put(struct fx_nic *nic, fx_u32 ring, fx_u32 value)
{
    ring_put(&host_of(nic)->rings[ring], value);
}

int hal_ring_get(struct fx_nic *nic, fx_u32 ring, fx_u32 *value)
{
    return ring_get(&host_of(nic)->rings[ring], value);
}

fx_u32 hal_ring_count(struct fx_nic *nic, fx_u32 ring)
{
    return host_of(nic)->rings[ring].count;
}

void hal_lock(struct fx_nic *nic, fx_u32 lock)
{
    (void)nic;
    (void)lock;
}

void hal_unlock(struct fx_nic *nic, fx_u32 lock)
{
    (void)nic;
    (void)lock;
}

void hal_interrupt(struct fx_nic *nic, fx_u32 queue)
{
    struct host *host = host_of(nic);
    fx_u32 at = fx_queue_register(queue, FX_QUEUE_INTERRUPTS);
    hal_set_register(nic, at, hal_register(nic, at) + 1u);
    host->ops.interrupt(host->ops.context, queue);
}

static int power_of_two(fx_u32 n)
{
    return n != 0u && (n & (n - 1u)) == 0u;
}

static int possible(const struct fx_host_config *config)
{
    return config->queues != 0u && config->queues <= FX_QUEUES_MAX && power_of_two(config->flows_per_queue) &&
        config->flows_per_queue <= 1u << 20 && power_of_two(config->groups) && config->groups <= FX_GROUPS_MAX &&
        config->packets >= 16u && config->packets <= 1u << 16 && config->packet_bytes >= 256u &&
        config->packet_bytes <= 1u << 17;
}

fx_u32 fx_host_bar_words(const struct fx_host_config *config)
{
    return FX_REG_END + config->queues * config->flows_per_queue * FX_FLOW_ENTRY_WORDS;
}

static fx_u32 *words(fx_u32 count)
{
    return (fx_u32 *)calloc(count, sizeof(fx_u32));
}

static int build(struct fx_nic *nic, struct host *host)
{
    const struct fx_host_config *config = &host->config;
    fx_u32 flows = config->queues * config->flows_per_queue;
    fx_u32 buckets = 1u;
    fx_u32 i;
    int ok;
    union {
        volatile fx_u32 *bar;
        fx_u32 *words;
    } memory;
    while (buckets * FX_BUCKET < flows * 2u) {
        buckets <<= 1;
    }
    memory.bar = host->bar + FX_REG_END;
    nic->entries = memory.words;
    nic->queues = config->queues;
    nic->flows_per_queue = config->flows_per_queue;
    while (1u << nic->flows_shift != config->flows_per_queue) {
        nic->flows_shift++;
    }
    nic->groups = config->groups;
    nic->item_count = config->packets * 2u + 256u;
    nic->bucket_mask = buckets - 1u;
    nic->buckets = words(buckets * FX_BUCKET);
    nic->items = words(nic->item_count * ITEM_WORDS);
    nic->queue_state = words(config->queues * QS_WORDS);
    nic->group_state = words(config->groups * GS_WORDS);
    nic->listeners = words(FX_LISTENERS_MAX * LISTENER_WORDS);
    nic->retry = words(ENGINES_MAX);
    host->packets = (unsigned char *)calloc(config->packets, config->packet_bytes);
    host->lengths = words(config->packets);
    host->sums = words(config->packets);
    ok = nic->buckets && nic->items && nic->queue_state && nic->group_state && nic->listeners && nic->retry &&
        host->packets && host->lengths && host->sums && ring_new(&host->free_packets, config->packets) &&
        ring_new(&host->received, config->packets) && ring_new(&host->order, DMA_SLOTS);
    for (i = 0u; i < FX_RING_WORK + config->groups; i++) {
        ok = ok && ring_new(&host->rings[i], nic->item_count);
    }
    for (i = 0u; i < ENGINES_MAX; i++) {
        ok = ok && ring_new(&host->done[i], DMA_SLOTS);
    }
    return ok;
}

struct fx_nic *fx_host_new(
    volatile fx_u32 *bar, const struct fx_host_config *config, const struct fx_host_ops *ops)
{
    struct fx_nic *nic;
    struct host *host;
    fx_u32 i;
    if (!possible(config)) {
        return 0;
    }
    nic = (struct fx_nic *)calloc(1, sizeof *nic);
    host = (struct host *)calloc(1, sizeof *host);
    if (nic == 0 || host == 0) {
        free(nic);
        free(host);
        return 0;
    }
    nic->hal = host;
    host->bar = bar;
    host->config = *config;
    host->ops = *ops;
    if (!build(nic, host)) {
        fx_host_free(nic);
        return 0;
    }
    for (i = 0u; i < config->packets; i++) {
        ring_put(&host->free_packets, i);
    }
    fx_boot(nic, config->mtu, config->mac_high, config->mac_low, FX_REG_END, FX_CAP_TIMER | FX_CAP_EMULATED);
    return nic;
}

void fx_host_free(struct fx_nic *nic)
{
    struct host *host = host_of(nic);
    fx_u32 i;
    for (i = 0u; i < FX_RING_WORK + FX_GROUPS_MAX; i++) {
        free(host->rings[i].words);
    }
    for (i = 0u; i < ENGINES_MAX; i++) {
        free(host->done[i].words);
    }
    free(host->order.words);
    free(host->received.words);
    free(host->free_packets.words);
    free(host->packets);
    free(host->lengths);
    free(host->sums);
    free(host);
    free(nic->buckets);
    free(nic->items);
    free(nic->queue_state);
    free(nic->group_state);
    free(nic->listeners);
    free(nic->retry);
    free(nic);
}

void fx_host_clock(struct fx_nic *nic, fx_u32 ms, fx_u32 ns)
{
    host_of(nic)->clock_ms = ms;
    host_of(nic)->clock_ns = ns;
}

int fx_host_receive(struct fx_nic *nic, const unsigned char *frame, fx_u32 length, fx_u32 checksum)
{
    struct host *host = host_of(nic);
    fx_u32 packet;
    /* Some are left for what the card has to send. */
    if (length > host->config.packet_bytes || host->free_packets.count <= host->config.packets >> 2 ||
        !ring_get(&host->free_packets, &packet)) {
        return 1;
    }
    memcpy(packet_at(host, packet, 0u), frame, length);
    host->lengths[packet] = length;
    /* As fx_parse takes it. */
    host->sums[packet] = checksum == FX_HOST_SUM_TRUSTED ? 0u : (checksum == FX_HOST_SUM_MAYBE_PARTIAL ? 2u : 1u);
    ring_put(&host->received, packet);
    return 0;
}

fx_u32 fx_host_engines(const struct fx_nic *nic)
{
    return FX_ENGINE_FLOW + nic->groups;
}

int fx_host_step(struct fx_nic *nic, fx_u32 engine)
{
    int did;
    switch (engine) {
    case FX_ENGINE_MANAGE:
        did = fx_manage_step(nic);
        break;
    case FX_ENGINE_CONTEXT:
        did = fx_context_step(nic);
        break;
    case FX_ENGINE_CLASSIFY:
        did = fx_classify_step(nic);
        break;
    default:
        did = engine - FX_ENGINE_FLOW < nic->groups ? fx_flow_step(nic, engine - FX_ENGINE_FLOW) : 0;
        break;
    }
    did |= offer(host_of(nic));
    return did;
}

int fx_host_timer(struct fx_nic *nic)
{
    fx_u32 ms = 0u;
    fx_u32 ns = 0u;
    int valid = fx_timer_next(nic, &ms, &ns);
    hal_set_register(nic, FX_REG_TIMER_MS, ms);
    hal_set_register(nic, FX_REG_TIMER_NS, ns);
    hal_set_register(nic, FX_REG_TIMER_VALID, valid ? 1u : 0u);
    return valid;
}

void fx_host_dma_done(struct fx_nic *nic, fx_u32 id, fx_u32 failed)
{
    struct host *host = host_of(nic);
    struct slot *slot;
    if (id >= DMA_SLOTS || host->slots[id].used == 0u || host->slots[id].accepted == 0u) {
        return;
    }
    slot = &host->slots[id];
    slot->accepted = 0u;
    slot->failed = failed;
    ring_put(&host->done[slot->engine], id);
}
