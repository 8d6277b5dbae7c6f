/* The action of fx_main.p4's flow tables: what the extern fx_rx does.
 *
 * P4 and C share `struct metadata` of fx_headers.p4, words only. Here they are an array in the struct's order; a test holds
 * these indices, and the values below, against the P4 file.
 */
#ifndef FLEXTCP_PLUGIN_H
#define FLEXTCP_PLUGIN_H

#include "core.h"

#define FX_META_kind 0u
#define FX_META_verdict 1u
#define FX_META_queue 2u
#define FX_META_flow 3u
#define FX_META_generation 4u
#define FX_META_hints 5u
#define FX_META_malformed 6u
#define FX_META_l3_offset 7u
#define FX_META_l4_offset 8u
#define FX_META_l4_length 9u
#define FX_META_payload_offset 10u
#define FX_META_payload_length 11u
#define FX_META_bad_checksum 12u
#define FX_META_family 13u
#define FX_META_local0 14u
#define FX_META_remote0 18u
#define FX_META_ports 22u
#define FX_META_WORDS 31u

#define FX_SEGMENT 1u
#define FX_EXCEPTION 2u
#define FX_CONSUMED 4u

#define FX_HINT_IP_OPTIONS 1u
#define FX_HINT_FLAGS 2u
#define FX_HINT_TIMESTAMPS 4u
#define FX_HINT_TCP_OPTIONS 8u
#define FX_HINT_ICMP 16u

/* Takes a frame of the flow with the entry `f`: `m` are the words of metadata, `w` the frame's first `peek` bytes as words
 * in network order. Sets the verdict: consumed, with what it brought in `out` (FX_RX_*), or an exception, before which the
 * flow became the host's. */
void fx_action(
    FX_LOCAL fx_u32 *f, FX_LOCAL fx_u32 *m, FX_LOCAL const fx_u32 *w, fx_u32 peek, fx_u32 length, fx_u32 now_ms,
    fx_u32 now_ns, FX_LOCAL fx_u32 *out);

/* The segment that P4 found, or that its ICMP error quotes, as the engines have it: `p` (FX_PKT_*). 0 when it is none. */
int fx_action_segment(
    FX_LOCAL const fx_u32 *m, FX_LOCAL const fx_u32 *w, fx_u32 peek, fx_u32 length, FX_LOCAL fx_u32 *p);

/* What the extern fx_checksum sets: 1 when the IPv4 header's checksum or TCP's is wrong. `sum` is that of the bytes from
 * l4_offset on, l4_length of them. */
fx_u32 fx_action_checksum(FX_LOCAL const fx_u32 *m, FX_LOCAL const fx_u32 *w, fx_u32 sum);

/* The Toeplitz hash of the metadata's connection, under a key of ten words: what the extern fx_rss masks. */
fx_u32 fx_action_hash(FX_LOCAL const fx_u32 *m, FX_LOCAL const fx_u32 *key);

#endif
