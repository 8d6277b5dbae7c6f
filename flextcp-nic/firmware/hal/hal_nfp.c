/* The hardware of the card itself. NEVER COMPILED BY THE VENDOR'S TOOLS AND NEVER RUN: written from public descriptions of
 * the intrinsics; `FX_MOCK_SDK` replaces the SDK's headers by declarations, so that the types are checked at least.
 *
 * A first version: one context of an engine works, and each DMA is waited for where it is started, so that the engines'
 * phases follow each other without overlapping. Signals for several at once come after that was seen to work.
 * Packets are whole in CTM buffers of 2048 bytes. A reset does not wait for the steps that other engines are in: until that
 * is built, a card is reset by loading the firmware anew.
 */
#include "nic.h"

#if defined(FX_MOCK_SDK)
#include "mock_sdk.h"
#else
#include <nfp.h>
#include <nfp/me.h>
#include <nfp/mem_atomic.h>
#include <nfp/mem_bulk.h>
#include <nfp/mem_ring.h>
#include <nfp/pcie.h>
#include <pkt/pkt.h>
#endif

#define QUEUES 8u
#define FLOWS_SHIFT 13u
#define GROUPS 4u
#define ITEMS 4096u
#define PACKETS 512u
#define DONE 64u
/* Of a frame in its buffer: where the wire puts it, the MAC's words before it. */
#define FRAME_OFFSET (PKT_NBI_OFFSET + MAC_PREPEND_BYTES)
#define FLOWS (QUEUES << FLOWS_SHIFT)
#define BUCKETS (FLOWS >> 2)

/* In the vendor's P4 framework the engines' memories are another list file's. */
#if defined(FX_PLUGIN)
#define SHARED __import
#else
#define SHARED __export
#endif

/* What the BAR shows, the flow table behind the registers. */
SHARED __emem fx_u32 fx_bar[FX_REG_END + FLOWS * FX_FLOW_ENTRY_WORDS];
SHARED __emem fx_u32 fx_buckets[BUCKETS * FX_BUCKET];
SHARED __emem fx_u32 fx_items[ITEMS * ITEM_WORDS];
SHARED __emem fx_u32 fx_queues[QUEUES * QS_WORDS];
SHARED __emem fx_u32 fx_groups[GROUPS * GS_WORDS];
SHARED __emem fx_u32 fx_listeners[FX_LISTENERS_MAX * LISTENER_WORDS];
SHARED __emem fx_u32 fx_retry[FX_ENGINE_FLOW + GROUPS];
SHARED __emem fx_u32 fx_locks[FX_LOCK_QUEUE + QUEUES];
/* Packet buffers: where each lies (address of the CTM buffer), its number, its length. */
SHARED __emem fx_u32 fx_packets[PACKETS * 4u];

MEM_RING_INIT(fx_free_items, 16384);
MEM_RING_INIT(fx_work_0, 16384);
MEM_RING_INIT(fx_work_1, 16384);
MEM_RING_INIT(fx_work_2, 16384);
MEM_RING_INIT(fx_work_3, 16384);
MEM_RING_INIT(fx_free_packets, 2048);

__export __ctm __shared struct ctm_pkt_credits fx_ctm_credits = {64, 64};

/* This engine's: tags of DMA that are done. */
static fx_u32 done_tags[DONE];
static fx_u32 done_head;
static fx_u32 done_count;

fx_u32 hal_register(struct fx_nic *nic, fx_u32 at)
{
    __xread fx_u32 value;
    (void)nic;
    mem_read_atomic(&value, &fx_bar[at], sizeof value);
    return value;
}

void hal_set_register(struct fx_nic *nic, fx_u32 at, fx_u32 value)
{
    __xwrite fx_u32 out = value;
    (void)nic;
    mem_write_atomic(&out, &fx_bar[at], sizeof out);
}

void hal_count(struct fx_nic *nic, fx_u32 at, fx_u32 n)
{
    /* Engines that share a queue's counters may lose one another's addition: statistics, nothing hangs on them. */
    fx_u32 low = hal_register(nic, at) + n;
    if (low < n) {
        hal_set_register(nic, at + 1u, hal_register(nic, at + 1u) + 1u);
    }
    hal_set_register(nic, at, low);
}

void hal_load(FX_LOCAL fx_u32 *to, FX_MEM const fx_u32 *from, fx_u32 words)
{
    __xread fx_u32 part[8];
    fx_u32 i;
    for (i = 0u; i < words; i++) {
        if ((i & 7u) == 0u) {
            mem_read32(part, from + i, sizeof part);
        }
        to[i] = part[i & 7u];
    }
}

void hal_store(FX_MEM fx_u32 *to, FX_LOCAL const fx_u32 *from, fx_u32 words)
{
    __xwrite fx_u32 part;
    fx_u32 i;
    for (i = 0u; i < words; i++) {
        part = from[i];
        mem_write32(&part, to + i, sizeof part);
    }
}

/* The timestamp counter ticks every 16 cycles: 20 ns at 800 MHz. */
void hal_clock(struct fx_nic *nic, FX_LOCAL fx_u32 *ms, FX_LOCAL fx_u32 *ns)
{
    fx_u32 low = local_csr_read(local_csr_timestamp_low);
    fx_u32 high = local_csr_read(local_csr_timestamp_high);
    fx_u32 quotient_high;
    (void)nic;
    *ms = fx_divide(high, low, 50000u, &quotient_high);
    *ns = (low - *ms * 50000u) * 20u;
}

fx_u32 hal_dma_room(struct fx_nic *nic)
{
    (void)nic;
    return DONE - done_count;
}

fx_u32 hal_dma_pending(struct fx_nic *nic)
{
    (void)nic;
    return done_count;
}

/* Moves bytes and waits. Token 2 leaves bytes as they are, token 0 turns the bytes of words. */
static void dma(
    fx_u32 tag, fx_u32 queue, fx_u32 token, fx_u32 low, fx_u32 high, fx_u32 card_high, fx_u32 card_low, fx_u32 length)
{
    __gpr struct nfp_pcie_dma_cmd command;
    __xwrite struct nfp_pcie_dma_cmd out;
    SIGNAL complete;
    SIGNAL enqueued;
    command.__raw[0] = card_low;
    command.__raw[1] = NFP_PCIE_DMA_CMD_CPP_TOKEN(token) | NFP_PCIE_DMA_CMD_CPP_ADDR_HI(card_high);
    command.__raw[2] = low;
    command.__raw[3] = NFP_PCIE_DMA_CMD_LENGTH(length - 1u) | NFP_PCIE_DMA_CMD_PCIE_ADDR_HI(high);
    pcie_dma_set_sig(&command, __MEID, ctx(), __signal_number(&complete));
    out = command;
    __pcie_dma_enq(0, &out, queue, sig_done, &enqueued);
    wait_for_all(&complete, &enqueued);
    done_tags[(done_head + done_count) & (DONE - 1u)] = tag;
    done_count += 1u;
}

#define card_high(pointer) ((fx_u32)((unsigned long long)(pointer) >> 32))
#define card_low(pointer) ((fx_u32)(unsigned long long)(pointer))

void hal_dma_get_words(
    struct fx_nic *nic, fx_u32 engine, fx_u32 tag, fx_u32 low, fx_u32 high, FX_MEM fx_u32 *to, fx_u32 words)
{
    (void)nic;
    (void)engine;
    dma(tag, NFP_PCIE_DMA_FROMPCI_MED, 0u, low, high, card_high(to), card_low(to), words << 2);
}

void hal_dma_put_words(
    struct fx_nic *nic, fx_u32 engine, fx_u32 tag, fx_u32 low, fx_u32 high, FX_MEM const fx_u32 *from, fx_u32 words)
{
    (void)nic;
    (void)engine;
    dma(tag, NFP_PCIE_DMA_TOPCI_MED, 0u, low, high, card_high(from), card_low(from), words << 2);
}

/* A packet's frame in CTM. */
static FX_MEM unsigned char *frame_of(fx_u32 packet)
{
    return (FX_MEM unsigned char *)pkt_ctm_ptr40(fx_packets[packet * 4u], fx_packets[packet * 4u + 1u], FRAME_OFFSET);
}

void hal_dma_to_packet(
    struct fx_nic *nic, fx_u32 engine, fx_u32 tag, fx_u32 low, fx_u32 high, fx_u32 packet, fx_u32 offset, fx_u32 length)
{
    FX_MEM unsigned char *at = frame_of(packet) + offset;
    (void)nic;
    (void)engine;
    dma(tag, NFP_PCIE_DMA_FROMPCI_LO, 2u, low, high, card_high(at), card_low(at), length);
}

void hal_dma_from_packet(
    struct fx_nic *nic, fx_u32 engine, fx_u32 tag, fx_u32 low, fx_u32 high, fx_u32 packet, fx_u32 offset, fx_u32 length)
{
    FX_MEM unsigned char *at = frame_of(packet) + offset;
    (void)nic;
    (void)engine;
    dma(tag, NFP_PCIE_DMA_TOPCI_LO, 2u, low, high, card_high(at), card_low(at), length);
}

int hal_dma_done(struct fx_nic *nic, fx_u32 engine, FX_LOCAL fx_u32 *tag, FX_LOCAL fx_u32 *failed)
{
    (void)nic;
    (void)engine;
    if (done_count == 0u) {
        return 0;
    }
    *tag = done_tags[done_head];
    *failed = 0u;
    done_head = (done_head + 1u) & (DONE - 1u);
    done_count -= 1u;
    return 1;
}

void hal_lock(struct fx_nic *nic, fx_u32 lock)
{
    __xrw fx_u32 value;
    (void)nic;
    do {
        value = 1u;
        mem_test_set(&value, &fx_locks[lock], sizeof value);
    } while (value != 0u);
}

void hal_unlock(struct fx_nic *nic, fx_u32 lock)
{
    __xwrite fx_u32 free = 0u;
    (void)nic;
    mem_write_atomic(&free, &fx_locks[lock], sizeof free);
}

/* Counts of the rings, which the hardware does not tell. */
SHARED __emem fx_u32 fx_ring_counts[FX_RING_WORK + GROUPS];

void hal_ring_put(struct fx_nic *nic, fx_u32 ring, fx_u32 value)
{
    __xrw fx_u32 data = value;
    (void)nic;
    switch (ring) {
    case FX_RING_FREE:
        mem_ring_put(MEM_RING_GET_NUM(fx_free_items), MEM_RING_GET_MEMADDR(fx_free_items), &data, sizeof data);
        break;
    case FX_RING_WORK:
        mem_ring_put(MEM_RING_GET_NUM(fx_work_0), MEM_RING_GET_MEMADDR(fx_work_0), &data, sizeof data);
        break;
    case FX_RING_WORK + 1u:
        mem_ring_put(MEM_RING_GET_NUM(fx_work_1), MEM_RING_GET_MEMADDR(fx_work_1), &data, sizeof data);
        break;
    case FX_RING_WORK + 2u:
        mem_ring_put(MEM_RING_GET_NUM(fx_work_2), MEM_RING_GET_MEMADDR(fx_work_2), &data, sizeof data);
        break;
    default:
        mem_ring_put(MEM_RING_GET_NUM(fx_work_3), MEM_RING_GET_MEMADDR(fx_work_3), &data, sizeof data);
        break;
    }
    mem_incr32(&fx_ring_counts[ring]);
}

int hal_ring_get(struct fx_nic *nic, fx_u32 ring, FX_LOCAL fx_u32 *value)
{
    __xread fx_u32 data;
    int status;
    (void)nic;
    switch (ring) {
    case FX_RING_FREE:
        status = mem_ring_get(
            MEM_RING_GET_NUM(fx_free_items), MEM_RING_GET_MEMADDR(fx_free_items), &data, sizeof data);
        break;
    case FX_RING_WORK:
        status = mem_ring_get(MEM_RING_GET_NUM(fx_work_0), MEM_RING_GET_MEMADDR(fx_work_0), &data, sizeof data);
        break;
    case FX_RING_WORK + 1u:
        status = mem_ring_get(MEM_RING_GET_NUM(fx_work_1), MEM_RING_GET_MEMADDR(fx_work_1), &data, sizeof data);
        break;
    case FX_RING_WORK + 2u:
        status = mem_ring_get(MEM_RING_GET_NUM(fx_work_2), MEM_RING_GET_MEMADDR(fx_work_2), &data, sizeof data);
        break;
    default:
        status = mem_ring_get(MEM_RING_GET_NUM(fx_work_3), MEM_RING_GET_MEMADDR(fx_work_3), &data, sizeof data);
        break;
    }
    if (status < 0) {
        return 0;
    }
    mem_decr32(&fx_ring_counts[ring]);
    *value = data;
    return 1;
}

fx_u32 hal_ring_count(struct fx_nic *nic, fx_u32 ring)
{
    __xread fx_u32 count;
    (void)nic;
    mem_read_atomic(&count, &fx_ring_counts[ring], sizeof count);
    return count;
}

/* A number for a CTM packet; 0 when there is none. */
static int number_packet(fx_u32 island, fx_u32 pnum, fx_u32 length, FX_LOCAL fx_u32 *packet)
{
    __xread fx_u32 number;
    if (mem_ring_get(
            MEM_RING_GET_NUM(fx_free_packets), MEM_RING_GET_MEMADDR(fx_free_packets), &number, sizeof number) < 0) {
        return 0;
    }
    *packet = number;
    fx_packets[number * 4u] = island;
    fx_packets[number * 4u + 1u] = pnum;
    fx_packets[number * 4u + 2u] = length;
    return 1;
}

static void forget_packet(fx_u32 packet)
{
    __xrw fx_u32 number = packet;
    mem_ring_put(
        MEM_RING_GET_NUM(fx_free_packets), MEM_RING_GET_MEMADDR(fx_free_packets), &number, sizeof number);
}

/* The wire gives a packet to a context that waits for one. */
static __xread struct nbi_meta_catamaran wire_meta;
static SIGNAL wire_signal;
static fx_u32 wire_waits;

int hal_packet_receive(struct fx_nic *nic, FX_LOCAL fx_u32 *packet, FX_LOCAL fx_u32 *length, FX_LOCAL fx_u32 *sum)
{
    (void)nic;
    if (wire_waits == 0u) {
        __pkt_nbi_recv(&wire_meta, sizeof wire_meta, sig_done, &wire_signal);
        wire_waits = 1u;
    }
    if (!signal_test(&wire_signal)) {
        return 0;
    }
    wire_waits = 0u;
    /* The MAC's prepended words are not part of the frame. What it found of checksums is in them; until that was seen to
     * be right, the firmware sums itself. */
    *length = wire_meta.pkt_info.len - MAC_PREPEND_BYTES;
    *sum = 1u;
    if (!number_packet(wire_meta.pkt_info.isl, wire_meta.pkt_info.pnum, *length, packet)) {
        pkt_ctm_free(wire_meta.pkt_info.isl, wire_meta.pkt_info.pnum);
        return 0;
    }
    return 1;
}

int hal_packet_alloc(struct fx_nic *nic, FX_LOCAL fx_u32 *packet)
{
    fx_u32 pnum = pkt_ctm_alloc(&fx_ctm_credits, __ISLAND, PKT_CTM_SIZE_2048, 1, 0);
    (void)nic;
    if (pnum == CTM_ALLOC_ERR) {
        return 0;
    }
    if (!number_packet(__ISLAND, pnum, 0u, packet)) {
        pkt_ctm_free(__ISLAND, pnum);
        return 0;
    }
    return 1;
}

void hal_packet_free(struct fx_nic *nic, fx_u32 packet)
{
    (void)nic;
    pkt_ctm_free(fx_packets[packet * 4u], fx_packets[packet * 4u + 1u]);
    forget_packet(packet);
}

fx_u32 hal_packet_size(struct fx_nic *nic)
{
    (void)nic;
    return 2048u - FRAME_OFFSET;
}

void hal_packet_read(struct fx_nic *nic, fx_u32 packet, FX_LOCAL fx_u32 *to, fx_u32 words)
{
    hal_load(to, (FX_MEM const fx_u32 *)frame_of(packet), words);
    (void)nic;
}

/* Bytes beyond a multiple of four are followed by payload, which is not to be touched. */
void hal_packet_write(struct fx_nic *nic, fx_u32 packet, FX_LOCAL const fx_u32 *from, fx_u32 bytes)
{
    FX_MEM unsigned char *to = frame_of(packet);
    fx_u32 i;
    hal_store((FX_MEM fx_u32 *)to, from, bytes >> 2);
    for (i = bytes & ~3u; i < bytes; i++) {
        to[i] = (unsigned char)(from[i >> 2] >> (24u - ((i & 3u) << 3)));
    }
    (void)nic;
}

static fx_u32 sum_bytes(FX_MEM const unsigned char *from, fx_u32 length)
{
    fx_u32 sum = 0u;
    fx_u32 i;
    for (i = 0u; i < length; i++) {
        sum = fx_sum_add(sum, (fx_u32)from[i] << (24u - ((i & 3u) << 3)));
    }
    return sum;
}

fx_u32 hal_packet_sum(struct fx_nic *nic, fx_u32 packet, fx_u32 offset, fx_u32 length)
{
    (void)nic;
    return sum_bytes(frame_of(packet) + offset, length);
}

/* The NBI frees the CTM buffer when the frame has left. */
int hal_packet_send(struct fx_nic *nic, fx_u32 packet, fx_u32 length, fx_u32 header, fx_u32 partial, fx_u32 mss)
{
    fx_u32 island = fx_packets[packet * 4u];
    fx_u32 pnum = fx_packets[packet * 4u + 1u];
    FX_MEM char *buffer = (FX_MEM char *)pkt_ctm_ptr40(island, pnum, 0);
    __gpr struct pkt_ms_info info;
    (void)nic;
    (void)header;
    (void)mss;
    pkt_mac_egress_cmd_write(buffer, FRAME_OFFSET, 0, (int)partial);
    info = pkt_msd_write(buffer, FRAME_OFFSET - 4u);
    pkt_nbi_send(island, pnum, &info, length, 0, PORT_TO_CHANNEL(0), 0, 0, PKT_CTM_SIZE_2048);
    forget_packet(packet);
    return 0;
}

/* Firmware that owns all engines has no netdev beside it: what is not ours is dropped. */
void hal_packet_netdev(struct fx_nic *nic, fx_u32 packet, fx_u32 length)
{
    (void)length;
    hal_packet_free(nic, packet);
}

void hal_interrupt(struct fx_nic *nic, fx_u32 queue)
{
    fx_u32 at = fx_queue_register(queue, FX_QUEUE_INTERRUPTS);
    hal_set_register(nic, at, hal_register(nic, at) + 1u);
    msix_pf_send(0, 0, queue, 1);
}

/* The loop around this engine's step: FX_ENGINE_KIND is one of these, FX_ENGINE_GROUP the group of a flow engine. */
#define FX_KIND_OF_MANAGE FX_ENGINE_MANAGE
#define FX_KIND_OF_CONTEXT FX_ENGINE_CONTEXT
#define FX_KIND_OF_CLASSIFY FX_ENGINE_CLASSIFY
#define FX_KIND_OF_FLOW FX_ENGINE_FLOW
#if !defined(FX_ENGINE_GROUP)
#define FX_ENGINE_GROUP 0u
#endif

/* The card's hardware address, from the Makefile: where the card keeps its own is the vendor's to tell. */
#if !defined(FX_MAC_HIGH)
#define FX_MAC_HIGH 0x02000000u
#define FX_MAC_LOW 0x00010000u
#endif

static struct fx_nic card;

static void know_card(void)
{
    card.entries = fx_bar + FX_REG_END;
    card.buckets = fx_buckets;
    card.items = fx_items;
    card.queue_state = fx_queues;
    card.group_state = fx_groups;
    card.listeners = fx_listeners;
    card.retry = fx_retry;
    card.queues = QUEUES;
    card.flows_per_queue = 1u << FLOWS_SHIFT;
    card.flows_shift = FLOWS_SHIFT;
    card.groups = GROUPS;
    card.item_count = ITEMS;
    card.bucket_mask = BUCKETS - 1u;
}

/* In the vendor's P4 framework (p4/fx_glue_nfp.c) the loop is its own. */
#if !defined(FX_PLUGIN)
int main(void)
{
    fx_u32 i;
    if (ctx() != 0) {
        return 0;
    }
    know_card();
    if (FX_ENGINE_KIND == FX_ENGINE_MANAGE) {
        for (i = 0u; i < PACKETS; i++) {
            forget_packet(i);
        }
        fx_boot(&card, 1500u, FX_MAC_HIGH, FX_MAC_LOW, FX_REG_END, 0u);
    }
    for (;;) {
        switch (FX_ENGINE_KIND) {
        case FX_ENGINE_MANAGE:
            (void)fx_manage_step(&card);
            break;
        case FX_ENGINE_CONTEXT:
            (void)fx_context_step(&card);
            break;
        case FX_ENGINE_CLASSIFY:
            (void)fx_classify_step(&card);
            break;
        default:
            (void)fx_flow_step(&card, FX_ENGINE_GROUP);
            break;
        }
        ctx_swap();
    }
}
#endif
