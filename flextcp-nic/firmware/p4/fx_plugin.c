/* What the externs of fx_main.p4 do. P4 has parsed and validated the frame, and found its flow. */
#include "fx_plugin.h"

#define PROTOCOL_TCP 6u
#define exception(reason) (FX_REASON_##reason + 1u)

/* The tuple and the network header's words of a parsed segment. */
static void network(FX_LOCAL const fx_u32 *m, FX_LOCAL const fx_u32 *w, FX_LOCAL fx_u32 *p)
{
    fx_u32 at = m[FX_META_l3_offset];
    fx_u32 i;
    for (i = 0u; i < 4u; i++) {
        p[FX_PKT_LOCAL_IP + i] = m[FX_META_local0 + i];
        p[FX_PKT_REMOTE_IP + i] = m[FX_META_remote0 + i];
    }
    p[FX_PKT_PORTS] = m[FX_META_ports];
    p[FX_PKT_FLAGS] = 0u;
    if (m[FX_META_family] == 4u) {
        p[FX_PKT_TTL_TOS] = (fx_byte(w, at + 8u) << 8) | fx_byte(w, at + 1u);
    } else {
        p[FX_PKT_FLAGS] = FX_PKTFLAG_IPV6;
        p[FX_PKT_TTL_TOS] = (fx_byte(w, at + 7u) << 8) | ((fx_half(w, at) >> 4) & 0xffu);
    }
}

/* A segment as the hints say that it is: no options, or timestamps where every segment has them. */
static void common_segment(FX_LOCAL const fx_u32 *m, FX_LOCAL const fx_u32 *w, FX_LOCAL fx_u32 *p)
{
    fx_u32 at = m[FX_META_l4_offset];
    fx_u32 hints = m[FX_META_hints];
    network(m, w, p);
    p[FX_PKT_SEQ] = fx_word(w, at + 4u);
    p[FX_PKT_ACK] = fx_word(w, at + 8u);
    p[FX_PKT_FLAGS_WINDOW] = (fx_half(w, at + 14u) << 16) | fx_byte(w, at + 13u);
    p[FX_PKT_PAYLOAD_OFFSET] = m[FX_META_payload_offset];
    p[FX_PKT_PAYLOAD_LEN] = m[FX_META_payload_length];
    p[FX_PKT_TS_VAL] = 0u;
    p[FX_PKT_TS_ECR] = 0u;
    if ((hints & FX_HINT_IP_OPTIONS) != 0u) {
        p[FX_PKT_FLAGS] |= FX_PKTFLAG_IP_OPTIONS;
    }
    if ((hints & FX_HINT_TIMESTAMPS) != 0u) {
        p[FX_PKT_FLAGS] |= FX_PKTFLAG_TIMESTAMPS;
        p[FX_PKT_TS_VAL] = fx_word(w, at + 24u);
        p[FX_PKT_TS_ECR] = fx_word(w, at + 28u);
    }
}

int fx_action_segment(
    FX_LOCAL const fx_u32 *m, FX_LOCAL const fx_u32 *w, fx_u32 peek, fx_u32 length, FX_LOCAL fx_u32 *p)
{
    fx_u32 sums[5];
    if ((m[FX_META_hints] & (FX_HINT_ICMP | FX_HINT_TCP_OPTIONS)) == 0u) {
        common_segment(m, w, p);
        return 1;
    }
    /* P4 validated it; only the quoted segment and the other options are still unknown. */
    sums[4] = 0u;
    return fx_parse(w, peek, length, p, sums) == FX_VERDICT_SEGMENT;
}

fx_u32 fx_action_checksum(FX_LOCAL const fx_u32 *m, FX_LOCAL const fx_u32 *w, fx_u32 sum)
{
    fx_u32 at = m[FX_META_l3_offset];
    fx_u32 header = 0u;
    fx_u32 i;
    if (fx_byte(w, at) >> 4 == 4u) {
        for (; at < m[FX_META_l4_offset]; at += 2u) {
            header += fx_half(w, at);
        }
        if (fx_fold(header) != 0xffffu) {
            return 1u;
        }
    }
    if (m[FX_META_kind] != FX_SEGMENT) {
        return 0u;
    }
    sum = fx_sum_add(sum, m[FX_META_l4_length] + PROTOCOL_TCP);
    for (i = 0u; i < 4u; i++) {
        sum = fx_sum_add(sum, m[FX_META_local0 + i]);
        sum = fx_sum_add(sum, m[FX_META_remote0 + i]);
    }
    return fx_fold(sum) != 0xffffu ? 1u : 0u;
}

/* An ICMP error concerns what is in flight; any other is late or forged (RFC 5927, section 4.1). */
static fx_u32 icmp(FX_LOCAL const fx_u32 *f, FX_LOCAL const fx_u32 *p)
{
    fx_u32 seq = p[FX_PKT_SEQ];
    if (fx_before(seq, f[FX_FS_SND_UNA]) || !fx_before(seq, f[FX_FS_SND_NXT])) {
        return 0u;
    }
    return exception(ICMP);
}

void fx_action(
    FX_LOCAL fx_u32 *f, FX_LOCAL fx_u32 *m, FX_LOCAL const fx_u32 *w, fx_u32 peek, fx_u32 length, fx_u32 now_ms,
    fx_u32 now_ns, FX_LOCAL fx_u32 *out)
{
    fx_u32 p[FX_PKT_WORDS];
    fx_u32 hints = m[FX_META_hints];
    fx_u32 i;
    for (i = 0u; i < FX_RX_WORDS; i++) {
        out[i] = 0u;
    }
    if ((f[FX_FE_STATUS] & 0xffu) != FX_FLOW_STATUS_NIC_OWNED || f[FX_FE_GENERATION] != m[FX_META_generation]) {
        out[FX_RX_EXCEPTION] = exception(HOST_OWNED);
        m[FX_META_verdict] = FX_EXCEPTION;
        return;
    }
    if (!fx_action_segment(m, w, peek, length, p)) {
        out[FX_RX_EXCEPTION] = (hints & FX_HINT_ICMP) != 0u ? exception(ICMP) : exception(OPTIONS);
    } else if ((hints & FX_HINT_ICMP) != 0u) {
        out[FX_RX_EXCEPTION] = icmp(f, p);
    } else {
        fx_receive(f, p, now_ms, now_ns, out);
    }
    if (out[FX_RX_EXCEPTION] == 0u) {
        m[FX_META_verdict] = FX_CONSUMED;
        return;
    }
    /* Host-owned before the frame is forwarded, so that later ones follow it. */
    f[FX_FE_STATUS] = (f[FX_FE_STATUS] & ~0xffu) | FX_FLOW_STATUS_HOST_OWNED;
    m[FX_META_verdict] = FX_EXCEPTION;
}

fx_u32 fx_action_hash(FX_LOCAL const fx_u32 *m, FX_LOCAL const fx_u32 *key)
{
    fx_u32 p[FX_PKT_WORDS];
    fx_u32 i;
    for (i = 0u; i < FX_PKT_WORDS; i++) {
        p[i] = 0u;
    }
    for (i = 0u; i < 4u; i++) {
        p[FX_PKT_LOCAL_IP + i] = m[FX_META_local0 + i];
        p[FX_PKT_REMOTE_IP + i] = m[FX_META_remote0 + i];
    }
    p[FX_PKT_PORTS] = m[FX_META_ports];
    p[FX_PKT_FLAGS] = m[FX_META_family] == 4u ? 0u : FX_PKTFLAG_IPV6;
    return fx_toeplitz(p, key);
}
