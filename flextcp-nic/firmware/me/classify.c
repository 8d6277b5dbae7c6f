/* Frames from the wire: what they are and whose. */
#include "nic.h"

/* A frame that no queue of ours wants. */
static void not_ours(struct fx_nic *nic, fx_u32 packet, fx_u32 length)
{
    fx_add(nic, 0u, NETDEV, 1u);
    hal_packet_netdev(nic, packet, length);
}

/* A frame that is no sound segment: ours to drop if it is for us, or about a segment of ours, and not of a connection that the
 * kernel has. */
static void refuse(
    struct fx_nic *nic, fx_u32 packet, fx_u32 length, fx_u32 verdict, FX_LOCAL const fx_u32 *w, FX_LOCAL fx_u32 *p)
{
    fx_u32 flow;
    if ((hal_register(nic, FX_REG_CONFIG) & FX_CONFIG_OWN_ALL) == 0u) {
        if (!fx_whose(w, fx_min(length, FX_PEEK_BYTES), p) || fx_owned(nic, p) == 0u) {
            not_ours(nic, packet, length);
            return;
        }
        flow = fx_table_find(nic, p + FX_PKT_LOCAL_IP, p[FX_PKT_FLAGS] & FX_PKTFLAG_IPV6);
        if (flow != 0u && (fx_entry(nic, flow - 1u)[FX_FE_STATUS] & 0xffu) == FX_FLOW_STATUS_KERNEL) {
            not_ours(nic, packet, length);
            return;
        }
    }
    if (verdict == FX_VERDICT_BAD_CHECKSUM) {
        fx_add(nic, 0u, BAD_CHECKSUM, 1u);
    } else {
        fx_add(nic, 0u, MALFORMED, 1u);
    }
    hal_packet_free(nic, packet);
}

/* Whether a sound frame is of a kind that steering leaves to the kernel: ICMP errors that TCP does not act on, long chains of
 * extension headers. */
static int left_alone(struct fx_nic *nic, fx_u32 length, FX_LOCAL const fx_u32 *w, FX_LOCAL const fx_u32 *p)
{
    fx_u32 ends[FX_PKT_WORDS];
    return (p[FX_PKT_FLAGS] & (FX_PKTFLAG_ICMP | FX_PKTFLAG_IP_OPTIONS)) != 0u &&
        (hal_register(nic, FX_REG_CONFIG) & FX_CONFIG_OWN_ALL) == 0u &&
        !fx_whose(w, fx_min(length, FX_PEEK_BYTES), ends);
}

/* A segment that belongs to no flow: an exception of the queue that receive-side scaling says, if the address is ours. */
static void unknown(struct fx_nic *nic, fx_u32 item, FX_LOCAL const fx_u32 *p)
{
    FX_MEM fx_u32 *words = fx_item(nic, item);
    fx_u32 icmp = p[FX_PKT_FLAGS] & FX_PKTFLAG_ICMP;
    fx_u32 owned = fx_owned(nic, p);
    fx_u32 mask = hal_register(nic, FX_REG_RSS_MASK);
    fx_u32 queue = 0u;
    fx_u32 key[10];
    fx_u32 i;
    if (owned == 0u) {
        not_ours(nic, words[ITEM_PACKET] - 1u, words[ITEM_LENGTH]);
        words[ITEM_PACKET] = 0u;
        fx_item_free(nic, item);
        return;
    }
    if (mask != 0u) {
        for (i = 0u; i < 10u; i++) {
            key[i] = hal_register(nic, FX_REG_RSS_KEY + i);
        }
        queue = fx_toeplitz(p, key) & mask;
        if (queue >= nic->queues || fx_queue(nic, queue)[QS_ENABLED] == 0u) {
            queue = 0u;
        }
    }
    if (icmp == 0u && owned == LISTENER_LISTENS && !fx_admits(nic, p)) {
        fx_add(nic, queue, FILTERED, 1u);
        fx_item_free(nic, item);
        return;
    }
    if (fx_event_frame(
            nic, item, queue, FX_EVENT_NO_FLOW, 0u, icmp != 0u ? FX_REASON_ICMP : FX_REASON_NO_FLOW, 0u)) {
        fx_event_start(nic, FX_ENGINE_CLASSIFY, item);
    } else {
        fx_add(nic, queue, NO_SLOT, 1u);
        fx_item_free(nic, item);
    }
}

static void classify(struct fx_nic *nic, fx_u32 item, fx_u32 packet, fx_u32 length, fx_u32 sum)
{
    FX_MEM fx_u32 *words = fx_item(nic, item);
    fx_u32 w[FX_PEEK_WORDS + 1u];
    fx_u32 p[FX_PKT_WORDS];
    fx_u32 sums[5];
    fx_u32 verdict;
    fx_u32 flow;
    fx_u32 i;

    hal_packet_read(nic, packet, w, FX_PEEK_WORDS);
    w[FX_PEEK_WORDS] = 0u;
    sums[4] = sum;
    verdict = fx_parse(w, fx_min(length, FX_PEEK_BYTES), length, p, sums);
    if (sums[3] != 0u &&
        fx_fold(fx_sum_add(sums[1], hal_packet_sum(nic, packet, sums[2], sums[3]))) != 0xffffu) {
        verdict = FX_VERDICT_BAD_CHECKSUM;
    }
    words[ITEM_PACKET] = packet + 1u;
    words[ITEM_LENGTH] = length;
    if (verdict != FX_VERDICT_SEGMENT) {
        words[ITEM_PACKET] = 0u;
        refuse(nic, packet, length, verdict, w, p);
        fx_item_free(nic, item);
        return;
    }
    if (left_alone(nic, length, w, p)) {
        words[ITEM_PACKET] = 0u;
        not_ours(nic, packet, length);
        fx_item_free(nic, item);
        return;
    }
    flow = fx_table_find(nic, p + FX_PKT_LOCAL_IP, p[FX_PKT_FLAGS] & FX_PKTFLAG_IPV6);
    if (flow == 0u) {
        unknown(nic, item, p);
        return;
    }
    flow -= 1u;
    for (i = 0u; i < FX_PKT_WORDS; i++) {
        words[ITEM_BODY + i] = p[i];
    }
    words[ITEM_FLOW] = flow;
    hal_ring_put(nic, FX_RING_WORK + (flow & (nic->groups - 1u)), item);
}

int fx_classify_step(struct fx_nic *nic)
{
    fx_u32 packet;
    fx_u32 length;
    fx_u32 sum;
    fx_u32 item;
    fx_u32 tag;
    fx_u32 failed;
    int did = 0;
    if (!fx_running(nic)) {
        return 0;
    }
    if (hal_dma_done(nic, FX_ENGINE_CLASSIFY, &tag, &failed)) {
        if (failed != 0u) {
            fx_fail(nic, FX_FAILURE_DMA, FX_ENGINE_CLASSIFY);
            return 1;
        }
        (void)fx_event_done(nic, FX_ENGINE_CLASSIFY, tag & ~TAG_KIND);
        did = 1;
    }
    did |= fx_event_retry(nic, FX_ENGINE_CLASSIFY);
    item = fx_item_new(nic, ITEM_SEGMENT);
    if (item == 0u) {
        return did;
    }
    if (!hal_packet_receive(nic, &packet, &length, &sum)) {
        fx_item_free(nic, item);
        return did;
    }
    classify(nic, item, packet, length, sum);
    return 1;
}
