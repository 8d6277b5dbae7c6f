/* Frames in: Ethernet to TCP, or to the ICMP error about a segment of ours; what flextcp_nic::wire::parse says of them.
 *
 * Only the first FX_PEEK_BYTES of a frame are looked at. A frame whose headers run beyond (extension headers in tens) is
 * FX_VERDICT_EXTENSION here.
 */
#include "core.h"

#define ETHERNET 14u
#define PROTOCOL_ICMP 1u
#define PROTOCOL_TCP 6u
#define PROTOCOL_ICMPV6 58u
#define SYN 2u

/* IPv6 extension headers. */
#define HOP_BY_HOP 0u
#define ROUTING 43u
#define FRAGMENT 44u
#define DESTINATION_OPTIONS 60u
/* More than any legitimate packet has; bounds the walk. */
#define MAX_EXTENSIONS 8u

/* Where a walk along a frame stands. */
struct cursor {
    fx_u32 offset;   /* of the upper layer */
    fx_u32 end;      /* of the packet */
    fx_u32 protocol;
    fx_u32 options;  /* extension headers were skipped */
};

/* Walks the extension headers from c->offset, `present` being the end of the bytes there are. */
static fx_u32 skip_extensions(FX_LOCAL const fx_u32 *w, fx_u32 peek, fx_u32 present, struct cursor *c)
{
    fx_u32 n;
    fx_u32 fragment;
    fx_u32 next;
    fx_u32 length;
    c->options = 0u;
    for (n = 0u; n <= MAX_EXTENSIONS; n++) {
        if (c->protocol != HOP_BY_HOP && c->protocol != ROUTING && c->protocol != FRAGMENT &&
            c->protocol != DESTINATION_OPTIONS) {
            return FX_VERDICT_SEGMENT;
        }
        if (c->offset + 8u > present) {
            return FX_VERDICT_TRUNCATED;
        }
        if (c->offset + 8u > peek) {
            return FX_VERDICT_EXTENSION;
        }
        next = fx_byte(w, c->offset);
        length = (fx_byte(w, c->offset + 1u) + 1u) << 3;
        fragment = fx_half(w, c->offset + 2u);
        if (c->protocol == FRAGMENT) {
            /* Accepted only when it fragments nothing (RFC 6946). */
#if FX_FAULT == 5
            if ((fragment & 0xfff8u) != 0u) {
#else
            if ((fragment & 0xfff9u) != 0u) {
#endif
                return FX_VERDICT_FRAGMENT;
            }
            length = 8u;
        } else if (c->protocol == ROUTING && (fragment & 0xffu) != 0u) {
            /* Segments left: for somebody else. */
            return FX_VERDICT_EXTENSION;
        }
        c->offset += length;
        c->protocol = next;
        c->options = 1u;
    }
    return FX_VERDICT_EXTENSION;
}

static int not_unicast_v4(fx_u32 address)
{
    return address == 0u || address >> 28 == 0xeu || address == 0xffffffffu;
}

/* The network layer: addresses to `p`, the upper layer to `c`. */
static fx_u32 parse_ipv4(
    FX_LOCAL const fx_u32 *w, fx_u32 length, fx_u32 at, FX_LOCAL fx_u32 *p, FX_LOCAL fx_u32 *sums, struct cursor *c)
{
    fx_u32 header_len;
    fx_u32 total;
    fx_u32 sum = 0u;
    fx_u32 i;
    if (at + 20u > length) {
        return FX_VERDICT_TRUNCATED;
    }
    header_len = (fx_byte(w, at) & 0xfu) << 2;
    total = fx_half(w, at + 2u);
    if (fx_byte(w, at) >> 4 != 4u || header_len < 20u || total < header_len) {
        return FX_VERDICT_IP_HEADER;
    }
    if (at + header_len > length || at + total > length) {
        return FX_VERDICT_TRUNCATED;
    }
    for (i = 0u; i < header_len; i += 4u) {
        sum = fx_sum_add(sum, fx_word(w, at + i));
    }
    sums[0] = fx_fold(sum) != 0xffffu;
    if (sums[0] != 0u && sums[4] != 0u) {
        return FX_VERDICT_BAD_CHECKSUM;
    }
    if ((fx_half(w, at + 6u) & 0x3fffu) != 0u) {
        return FX_VERDICT_FRAGMENT;
    }
    p[FX_PKT_REMOTE_IP] = fx_word(w, at + 12u);
    p[FX_PKT_LOCAL_IP] = fx_word(w, at + 16u);
    if (not_unicast_v4(p[FX_PKT_REMOTE_IP]) || not_unicast_v4(p[FX_PKT_LOCAL_IP])) {
        return FX_VERDICT_NOT_UNICAST;
    }
    p[FX_PKT_TTL_TOS] = (fx_byte(w, at + 8u) << 8) | fx_byte(w, at + 1u);
    c->protocol = fx_byte(w, at + 9u);
    c->offset = at + header_len;
    c->end = at + total;
    c->options = header_len > 20u;
    sums[1] = fx_sum_add(p[FX_PKT_REMOTE_IP], p[FX_PKT_LOCAL_IP]);
    return FX_VERDICT_SEGMENT;
}

static fx_u32 parse_ipv6(
    FX_LOCAL const fx_u32 *w, fx_u32 peek, fx_u32 length, fx_u32 at, FX_LOCAL fx_u32 *p, FX_LOCAL fx_u32 *sums,
    struct cursor *c)
{
    fx_u32 sum = 0u;
    fx_u32 verdict;
    fx_u32 i;
    if (at + 40u > length) {
        return FX_VERDICT_TRUNCATED;
    }
    if (fx_byte(w, at) >> 4 != 6u) {
        return FX_VERDICT_IP_HEADER;
    }
    c->end = at + 40u + fx_half(w, at + 4u);
    if (c->end > length) {
        return FX_VERDICT_TRUNCATED;
    }
    c->protocol = fx_byte(w, at + 6u);
    c->offset = at + 40u;
    verdict = skip_extensions(w, peek, c->end, c);
    if (verdict != FX_VERDICT_SEGMENT) {
        return verdict;
    }
    p[FX_PKT_FLAGS] = FX_PKTFLAG_IPV6;
    for (i = 0u; i < 4u; i++) {
        p[FX_PKT_REMOTE_IP + i] = fx_word(w, at + 8u + (i << 2));
        p[FX_PKT_LOCAL_IP + i] = fx_word(w, at + 24u + (i << 2));
        sum = fx_sum_add(sum, p[FX_PKT_REMOTE_IP + i]);
        sum = fx_sum_add(sum, p[FX_PKT_LOCAL_IP + i]);
    }
    if (p[FX_PKT_REMOTE_IP] >> 24 == 0xffu || p[FX_PKT_LOCAL_IP] >> 24 == 0xffu ||
        (p[FX_PKT_REMOTE_IP] | p[FX_PKT_REMOTE_IP + 1u] | p[FX_PKT_REMOTE_IP + 2u] | p[FX_PKT_REMOTE_IP + 3u]) == 0u ||
        (p[FX_PKT_LOCAL_IP] | p[FX_PKT_LOCAL_IP + 1u] | p[FX_PKT_LOCAL_IP + 2u] | p[FX_PKT_LOCAL_IP + 3u]) == 0u) {
        return FX_VERDICT_NOT_UNICAST;
    }
    p[FX_PKT_TTL_TOS] = (fx_byte(w, at + 7u) << 8) | ((fx_word(w, at) >> 20) & 0xffu);
    sums[1] = sum;
    return c->offset > c->end ? FX_VERDICT_TRUNCATED : FX_VERDICT_SEGMENT;
}

/* TCP options, as leniently as Linux: a length below two or beyond the header ends the list, a known option with a wrong
 * length is skipped, of a repeated option the last counts. */
static void parse_options(FX_LOCAL const fx_u32 *w, fx_u32 at, fx_u32 end, FX_LOCAL fx_u32 *p)
{
    fx_u32 kind;
    fx_u32 length;
    while (at < end) {
        kind = fx_byte(w, at);
        if (kind == 0u) {
            return;
        }
        if (kind == 1u) {
            at += 1u;
            continue;
        }
        if (at + 1u >= end) {
            p[FX_PKT_FLAGS] |= FX_PKTFLAG_OPTIONS;
            return;
        }
        length = fx_byte(w, at + 1u);
        if (length < 2u || length > end - at) {
            p[FX_PKT_FLAGS] |= FX_PKTFLAG_OPTIONS;
            return;
        }
        if (kind == 8u && length == 10u) {
            p[FX_PKT_FLAGS] |= FX_PKTFLAG_TIMESTAMPS;
            p[FX_PKT_TS_VAL] = (fx_byte(w, at + 2u) << 24) | (fx_byte(w, at + 3u) << 16) | (fx_byte(w, at + 4u) << 8) |
                fx_byte(w, at + 5u);
            p[FX_PKT_TS_ECR] = (fx_byte(w, at + 6u) << 24) | (fx_byte(w, at + 7u) << 16) | (fx_byte(w, at + 8u) << 8) |
                fx_byte(w, at + 9u);
        } else if (kind == 5u && length > 2u && ((length - 2u) & 7u) == 0u) {
            p[FX_PKT_FLAGS] |= FX_PKTFLAG_SACK;
        } else {
            p[FX_PKT_FLAGS] |= FX_PKTFLAG_OPTIONS;
        }
        at += length;
    }
}

static fx_u32 parse_tcp(
    FX_LOCAL const fx_u32 *w, fx_u32 peek, const struct cursor *c, FX_LOCAL fx_u32 *p, FX_LOCAL fx_u32 *sums)
{
    fx_u32 at = c->offset;
    fx_u32 header_len;
    if (at + 20u > c->end) {
        return FX_VERDICT_TRUNCATED;
    }
    if (at + 20u > peek) {
        return FX_VERDICT_EXTENSION;
    }
    header_len = (fx_byte(w, at + 12u) >> 4) << 2;
    if (header_len < 20u || header_len > c->end - at) {
        return FX_VERDICT_DATA_OFFSET;
    }
    if (at + header_len > peek) {
        return FX_VERDICT_EXTENSION;
    }
    sums[1] = fx_sum_add(fx_sum_add(sums[1], PROTOCOL_TCP), c->end - at);
    sums[2] = at;
    sums[3] = c->end - at;
    if (sums[4] == 2u && fx_half(w, at + 16u) == fx_fold(sums[1])) {
        sums[3] = 0u;
    }
    p[FX_PKT_PORTS] = (fx_half(w, at + 2u) << 16) | fx_half(w, at);
    p[FX_PKT_SEQ] = fx_word(w, at + 4u);
    p[FX_PKT_ACK] = fx_word(w, at + 8u);
    p[FX_PKT_FLAGS_WINDOW] = (fx_half(w, at + 14u) << 16) | fx_byte(w, at + 13u);
    p[FX_PKT_PAYLOAD_OFFSET] = at + header_len;
    p[FX_PKT_PAYLOAD_LEN] = c->end - at - header_len;
    if (c->options != 0u) {
        p[FX_PKT_FLAGS] |= FX_PKTFLAG_IP_OPTIONS;
    }
    if (header_len == 32u && fx_word(w, at + 20u) == 0x0101080au) {
        /* How every segment of a connection with timestamps looks. */
        p[FX_PKT_FLAGS] |= FX_PKTFLAG_TIMESTAMPS;
        p[FX_PKT_TS_VAL] = fx_word(w, at + 24u);
        p[FX_PKT_TS_ECR] = fx_word(w, at + 28u);
    } else {
        parse_options(w, at + 20u, at + header_len, p);
    }
    return FX_VERDICT_SEGMENT;
}

/* Whether the type and code are those of an error that concerns TCP. */
static int icmp_error(fx_u32 ipv6, fx_u32 type, fx_u32 code)
{
    if (ipv6 != 0u) {
        return type == 2u || type == 3u || type == 4u || (type == 1u && code <= 6u);
    }
    return type == 11u || type == 12u || (type == 3u && code <= 15u);
}

/* An ICMP error: the segment of ours that it quotes. */
static fx_u32 parse_icmp(
    FX_LOCAL const fx_u32 *w, fx_u32 peek, const struct cursor *outer, FX_LOCAL fx_u32 *p, FX_LOCAL fx_u32 *sums)
{
    struct cursor c;
    fx_u32 ipv6 = p[FX_PKT_FLAGS] & FX_PKTFLAG_IPV6;
    fx_u32 at = outer->offset;
    fx_u32 verdict;
    fx_u32 i;
    sums[1] = ipv6 != 0u ? fx_sum_add(fx_sum_add(sums[1], PROTOCOL_ICMPV6), outer->end - at) : 0u;
    sums[2] = at;
    sums[3] = outer->end - at;
    if (sums[3] == 0u && sums[4] != 0u && fx_fold(sums[1]) != 0xffffu) {
        /* No byte for the caller to sum, so it would not look: a message without its checksum. */
        return FX_VERDICT_BAD_CHECKSUM;
    }
    if (at + 8u > outer->end) {
        return FX_VERDICT_TRUNCATED;
    }
    if (at + 8u > peek) {
        return FX_VERDICT_EXTENSION;
    }
    if (!icmp_error(ipv6, fx_byte(w, at), fx_byte(w, at + 1u))) {
        return FX_VERDICT_NOT_TCP;
    }
    at += 8u;
    c.options = 0u;
    c.end = outer->end;
    if (at + (ipv6 != 0u ? 40u : 20u) > c.end) {
        return FX_VERDICT_TRUNCATED;
    }
    if (at + (ipv6 != 0u ? 40u : 20u) > peek) {
        return FX_VERDICT_EXTENSION;
    }
    if (ipv6 != 0u) {
        if (fx_byte(w, at) >> 4 != 6u) {
            return FX_VERDICT_IP_HEADER;
        }
        c.protocol = fx_byte(w, at + 6u);
        c.offset = at + 40u;
        verdict = skip_extensions(w, peek, c.end, &c);
        if (verdict != FX_VERDICT_SEGMENT) {
            return verdict;
        }
        for (i = 0u; i < 4u; i++) {
            p[FX_PKT_LOCAL_IP + i] = fx_word(w, at + 8u + (i << 2));
            p[FX_PKT_REMOTE_IP + i] = fx_word(w, at + 24u + (i << 2));
        }
        if (c.protocol != PROTOCOL_TCP) {
            return FX_VERDICT_NOT_TCP;
        }
    } else {
        if (fx_byte(w, at) >> 4 != 4u || (fx_byte(w, at) & 0xfu) < 5u) {
            return FX_VERDICT_IP_HEADER;
        }
        if (fx_byte(w, at + 9u) != PROTOCOL_TCP) {
            return FX_VERDICT_NOT_TCP;
        }
        if ((fx_half(w, at + 6u) & 0x1fffu) != 0u) {
            return FX_VERDICT_FRAGMENT;
        }
        p[FX_PKT_LOCAL_IP] = fx_word(w, at + 12u);
        p[FX_PKT_REMOTE_IP] = fx_word(w, at + 16u);
        c.offset = at + ((fx_byte(w, at) & 0xfu) << 2);
    }
    /* RFC 792 promises the first eight bytes of the quoted segment. */
    if (c.offset + 8u > c.end) {
        return FX_VERDICT_TRUNCATED;
    }
    if (c.offset + 8u > peek) {
        return FX_VERDICT_EXTENSION;
    }
    p[FX_PKT_PORTS] = fx_word(w, c.offset);
    p[FX_PKT_SEQ] = fx_word(w, c.offset + 4u);
    p[FX_PKT_FLAGS] |= FX_PKTFLAG_ICMP;
    return FX_VERDICT_SEGMENT;
}

/* Parses a frame of `length` bytes of which the first `peek` are in `w`; FX_VERDICT_*.
 *
 * Checksums of the transport are the caller's to verify, as they need the payload: when sums[3] is not 0, the sum of the
 * sums[3] bytes from offset sums[2] on, added to sums[1], must fold to all ones, or the frame is FX_VERDICT_BAD_CHECKSUM
 * whatever this function says. On entry sums[4] is 0 for a frame whose checksums are trusted, 2 for one that may hold a
 * partial checksum, else 1.
 */
fx_u32 fx_parse(FX_LOCAL const fx_u32 *w, fx_u32 peek, fx_u32 length, FX_LOCAL fx_u32 *p, FX_LOCAL fx_u32 *sums)
{
    struct cursor c;
    fx_u32 at = ETHERNET;
    fx_u32 type;
    fx_u32 verdict;
    fx_u32 i;
    for (i = 0u; i < FX_PKT_WORDS; i++) {
        p[i] = 0u;
    }
    for (i = 0u; i < 4u; i++) {
        sums[i] = 0u;
    }
    if (length < ETHERNET) {
        return FX_VERDICT_TRUNCATED;
    }
    type = fx_half(w, 12u);
    if (type == 0x8100u) {
        if (length < ETHERNET + 4u) {
            return FX_VERDICT_TRUNCATED;
        }
        /* Only priority tags belong to the interface itself. */
        if ((fx_half(w, 14u) & 0x0fffu) != 0u) {
            return FX_VERDICT_VLAN;
        }
        type = fx_half(w, 16u);
        at += 4u;
    }
    if ((fx_byte(w, 0u) & 1u) != 0u) {
        return FX_VERDICT_NOT_UNICAST;
    }
    if (type == 0x0800u) {
        verdict = parse_ipv4(w, length, at, p, sums, &c);
    } else if (type == 0x86ddu) {
        verdict = parse_ipv6(w, peek, length, at, p, sums, &c);
    } else {
        return FX_VERDICT_NOT_TCP;
    }
    if (verdict != FX_VERDICT_SEGMENT) {
        return verdict;
    }
    if (c.protocol == PROTOCOL_TCP) {
        verdict = parse_tcp(w, peek, &c, p, sums);
    } else if (c.protocol == (type == 0x0800u ? PROTOCOL_ICMP : PROTOCOL_ICMPV6)) {
        verdict = parse_icmp(w, peek, &c, p, sums);
    } else {
        verdict = FX_VERDICT_NOT_TCP;
    }
    if (sums[4] == 0u) {
        sums[3] = 0u;
    }
    return verdict;
}
