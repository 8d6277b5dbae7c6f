/* The externs of fx_main.p4 as the vendor's P4 framework calls them. NEVER COMPILED BY THE VENDOR'S TOOLS AND NEVER RUN: the names
 * are those that its generated headers give to a program like this one, as far as public code shows; FX_MOCK_SDK replaces
 * the headers by declarations, so that types and calls are checked at least.
 *
 * P4 classifies; a frame of an installed flow becomes an item of the engine that has the flow's group, as me/classify.c makes
 * it, and everything from there on is theirs. That P4 workers and engines of one's own share a card is a conjecture: public
 * tools leave engines free for it (--application-me-count), and nobody has shown it.
 */
#define FX_PLUGIN
#include "hal_nfp.c"
#include "fx_plugin.h"

#if defined(FX_MOCK_SDK)
#include "mock_pif.h"
#else
#include <pif_common.h>
#include <pif_plugin.h>
#include <pif_plugin_metadata.h>
#include <pif_pkt.h>
#endif

#define get(field) pif_plugin_meta_get__scalars__metadata__##field(headers)
#define load(field) m[FX_META_##field] = get(field)

static void load_metadata(EXTRACTED_HEADERS_T *headers, FX_LOCAL fx_u32 *m)
{
    load(kind);
    load(verdict);
    load(queue);
    load(flow);
    load(generation);
    load(hints);
    load(malformed);
    load(l3_offset);
    load(l4_offset);
    load(l4_length);
    load(payload_offset);
    load(payload_length);
    load(bad_checksum);
    load(family);
    load(local0);
    m[FX_META_local0 + 1u] = get(local1);
    m[FX_META_local0 + 2u] = get(local2);
    m[FX_META_local0 + 3u] = get(local3);
    load(remote0);
    m[FX_META_remote0 + 1u] = get(remote1);
    m[FX_META_remote0 + 2u] = get(remote2);
    m[FX_META_remote0 + 3u] = get(remote3);
    load(ports);
}

/* The frame's first words. The framework has the packet in a CTM buffer, as the wire left it. */
static void read_frame(FX_LOCAL fx_u32 *w)
{
    FX_MEM const unsigned char *frame = (FX_MEM const unsigned char *)pkt_ctm_ptr40(
        __ISLAND, pif_pkt_info_global.pkt_num, FRAME_OFFSET);
    hal_load(w, (FX_MEM const fx_u32 *)frame, FX_PEEK_WORDS);
    w[FX_PEEK_WORDS] = 0u;
}

/* Once for each thread of a worker: what an engine knows of the card. */
void pif_plugin_init(void)
{
    know_card();
}

/* Once for all: that is the manage engine's. */
void pif_plugin_init_master(void)
{
}

int pif_plugin_fx_checksum(EXTRACTED_HEADERS_T *headers, MATCH_DATA_T *match)
{
    FX_MEM const unsigned char *frame = (FX_MEM const unsigned char *)pkt_ctm_ptr40(
        __ISLAND, pif_pkt_info_global.pkt_num, FRAME_OFFSET);
    fx_u32 m[FX_META_WORDS];
    fx_u32 w[FX_PEEK_WORDS + 1u];
    fx_u32 sum;
    (void)match;
    load_metadata(headers, m);
    read_frame(w);
    sum = sum_bytes(frame + m[FX_META_l4_offset], m[FX_META_l4_length]);
    pif_plugin_meta_set__scalars__metadata__bad_checksum(headers, fx_action_checksum(m, w, sum));
    return PIF_PLUGIN_RETURN_FORWARD;
}

int pif_plugin_fx_rss(EXTRACTED_HEADERS_T *headers, MATCH_DATA_T *match)
{
    fx_u32 m[FX_META_WORDS];
    fx_u32 key[10];
    fx_u32 i;
    (void)match;
    load_metadata(headers, m);
    for (i = 0u; i < 10u; i++) {
        key[i] = hal_register(&card, FX_REG_RSS_KEY + i);
    }
    pif_plugin_meta_set__scalars__metadata__queue(
        headers, fx_action_hash(m, key) & hal_register(&card, FX_REG_RSS_MASK));
    return PIF_PLUGIN_RETURN_FORWARD;
}

/* Without an item or a number for the packet it is lost, as on a full wire. */
int pif_plugin_fx_rx(EXTRACTED_HEADERS_T *headers, MATCH_DATA_T *match)
{
    FX_MEM fx_u32 *words;
    fx_u32 m[FX_META_WORDS];
    fx_u32 w[FX_PEEK_WORDS + 1u];
    fx_u32 p[FX_PKT_WORDS];
    fx_u32 length = pif_pkt_info_global.pkt_len;
    fx_u32 packet;
    fx_u32 item;
    fx_u32 i;
    (void)match;
    load_metadata(headers, m);
    read_frame(w);
    if (!fx_action_segment(m, w, fx_min(length, FX_PEEK_BYTES), length, p)) {
        return PIF_PLUGIN_RETURN_DROP;
    }
    item = fx_item_new(&card, ITEM_SEGMENT);
    if (item == 0u) {
        return PIF_PLUGIN_RETURN_DROP;
    }
    if (!number_packet(__ISLAND, pif_pkt_info_global.pkt_num, length, &packet)) {
        fx_item_free(&card, item);
        return PIF_PLUGIN_RETURN_DROP;
    }
    words = fx_item(&card, item);
    words[ITEM_PACKET] = packet + 1u;
    words[ITEM_LENGTH] = length;
    words[ITEM_FLOW] = m[FX_META_flow];
    for (i = 0u; i < FX_PKT_WORDS; i++) {
        words[ITEM_BODY + i] = p[i];
    }
    hal_ring_put(&card, FX_RING_WORK + (m[FX_META_flow] & (card.groups - 1u)), item);
    pif_plugin_meta_set__scalars__metadata__verdict(headers, FX_CONSUMED);
    /* The packet is the engine's; that the framework leaves its buffer alone after this is not known. */
    return PIF_PLUGIN_RETURN_EXIT;
}
