/* Headers out: Ethernet, IPv4 or IPv6, TCP with timestamps; and the Internet checksum (RFC 1071) over words. */
#include "core.h"

#define ETHERNET 14u
#define IPV4 20u
#define IPV6 40u
#define TCP 20u
#define TIMESTAMPS 12u
#define PROTOCOL_TCP 6u
/* Of the field in the TCP header. */
#define CHECKSUM 16u

static void put_half(FX_LOCAL fx_u32 *words, fx_u32 offset, fx_u32 value)
{
    if ((offset & 2u) != 0u) {
        words[offset >> 2] = (words[offset >> 2] & 0xffff0000u) | value;
    } else {
        words[offset >> 2] = (words[offset >> 2] & 0x0000ffffu) | (value << 16);
    }
}

static void put_word(FX_LOCAL fx_u32 *words, fx_u32 offset, fx_u32 value)
{
    if ((offset & 2u) != 0u) {
        put_half(words, offset, value >> 16);
        put_half(words, offset + 2u, value & 0xffffu);
    } else {
        words[offset >> 2] = value;
    }
}

/* Adds a word to a sum, the carry around. */
fx_u32 fx_sum_add(fx_u32 sum, fx_u32 word)
{
    sum += word;
    return sum < word ? sum + 1u : sum;
}

fx_u32 fx_fold(fx_u32 sum)
{
    sum = (sum >> 16) + (sum & 0xffffu);
    return (sum >> 16) + (sum & 0xffffu);
}

static fx_u32 network_header_len(FX_LOCAL const fx_u32 *header)
{
    return fx_half(header, 12u) == 0x0800u ? IPV4 : IPV6;
}

/* The sum of the TCP header, its checksum field included, at the end of headers of `length` bytes. */
fx_u32 fx_header_sum(FX_LOCAL const fx_u32 *header, fx_u32 length)
{
    fx_u32 offset = ETHERNET + network_header_len(header);
    fx_u32 sum = 0u;
    while (offset < length) {
        sum = fx_sum_add(sum, fx_word(header, offset));
        offset += 4u;
    }
    return sum;
}

/* Makes a partial checksum a complete one, `sum` being that of the payload. */
void fx_finish_checksum(FX_LOCAL fx_u32 *header, fx_u32 length, fx_u32 sum)
{
    fx_u32 total = fx_sum_add(sum, fx_header_sum(header, length));
    put_half(header, ETHERNET + network_header_len(header) + CHECKSUM, ~fx_fold(total) & 0xffffu);
}

static fx_u32 ipv4_header(FX_LOCAL const fx_u32 *f, fx_u32 tos, fx_u32 segment, FX_LOCAL fx_u32 *h)
{
    fx_u32 ttl = (f[FX_FS_REMOTE_MAC_LOW_TTL_TOS] >> 8) & 0xffu;
    fx_u32 total = IPV4 + segment;
    fx_u32 first;
    fx_u32 sum;
    /* Longer only as input to segmentation, where the port goes by the frame's length. */
    total = fx_min(total, 0xffffu);
    first = 0x45000000u | (tos << 16) | total;
    put_half(h, 12u, 0x0800u);
    put_word(h, ETHERNET, first);
    /* DF is always set, so that the identification may be zero (RFC 6864, section 4.1). */
#if FX_FAULT == 4
    put_word(h, ETHERNET + 4u, 0x00000000u);
#else
    put_word(h, ETHERNET + 4u, 0x00004000u);
#endif
    put_word(h, ETHERNET + 8u, (ttl << 24) | (PROTOCOL_TCP << 16));
    put_word(h, ETHERNET + 12u, f[FX_FS_LOCAL_IP]);
    put_word(h, ETHERNET + 16u, f[FX_FS_REMOTE_IP]);
    sum = fx_sum_add(f[FX_FS_LOCAL_IP], f[FX_FS_REMOTE_IP]);
    total = fx_sum_add(fx_sum_add(sum, first), 0x00004000u);
    total = fx_sum_add(total, (ttl << 24) | (PROTOCOL_TCP << 16));
    put_half(h, ETHERNET + 10u, ~fx_fold(total) & 0xffffu);
    return sum;
}

static fx_u32 ipv6_header(FX_LOCAL const fx_u32 *f, fx_u32 tos, fx_u32 segment, FX_LOCAL fx_u32 *h)
{
    fx_u32 hops = (f[FX_FS_REMOTE_MAC_LOW_TTL_TOS] >> 8) & 0xffu;
    fx_u32 sum = 0u;
    fx_u32 i;
    segment = fx_min(segment, 0xffffu);
    put_half(h, 12u, 0x86ddu);
    put_word(h, ETHERNET, 0x60000000u | (tos << 20));
    put_word(h, ETHERNET + 4u, (segment << 16) | (PROTOCOL_TCP << 8) | hops);
    for (i = 0u; i < 4u; i++) {
        put_word(h, ETHERNET + 8u + (i << 2), f[FX_FS_LOCAL_IP + i]);
        put_word(h, ETHERNET + 24u + (i << 2), f[FX_FS_REMOTE_IP + i]);
        sum = fx_sum_add(sum, f[FX_FS_LOCAL_IP + i]);
        sum = fx_sum_add(sum, f[FX_FS_REMOTE_IP + i]);
    }
    return sum;
}

/* Writes the headers of a segment with `payload` bytes to `header` (FX_HEADER_WORDS words) and returns their bytes. The TCP
 * checksum is a partial one, the pseudo-header's sum. `mac` is ours: the first four bytes, the other two in the high half. */
fx_u32 fx_emit(
    FX_LOCAL const fx_u32 *f, fx_u32 seq, fx_u32 ack, fx_u32 flags, fx_u32 window, fx_u32 ecn, fx_u32 now_ms, fx_u32 payload,
    FX_LOCAL const fx_u32 *mac, FX_LOCAL fx_u32 *header)
{
    fx_u32 tos = (f[FX_FS_REMOTE_MAC_LOW_TTL_TOS] & 0xfcu) | ecn;
    fx_u32 tcp_len = (f[FX_FS_FLAGS] & FX_FLOW_TIMESTAMPS) != 0u ? TCP + TIMESTAMPS : TCP;
    fx_u32 at;
    fx_u32 sum;

    for (at = 3u; at < FX_HEADER_WORDS; at++) {
        header[at] = 0u;
    }
    header[0] = f[FX_FS_REMOTE_MAC_HIGH];
    header[1] = (f[FX_FS_REMOTE_MAC_LOW_TTL_TOS] & 0xffff0000u) | (mac[0] >> 16);
    header[2] = (mac[0] << 16) | (mac[1] >> 16);
    if ((f[FX_FS_FLAGS] & FX_FLOW_IPV6) != 0u) {
        sum = ipv6_header(f, tos, tcp_len + payload, header);
        at = ETHERNET + IPV6;
    } else {
        sum = ipv4_header(f, tos, tcp_len + payload, header);
        at = ETHERNET + IPV4;
    }
    sum = fx_sum_add(fx_sum_add(sum, PROTOCOL_TCP), tcp_len + payload);
    put_word(header, at, f[FX_FS_PORTS]);
    put_word(header, at + 4u, seq);
    put_word(header, at + 8u, ack);
    put_word(header, at + 12u, (tcp_len << 26) | (flags << 16) | window);
    put_word(header, at + CHECKSUM, fx_fold(sum) << 16);
    if (tcp_len != TCP) {
        put_word(header, at + 20u, 0x0101080au);
        /* TSval: the millisecond clock, offset per connection (RFC 7323, section 5.4). */
        put_word(header, at + 24u, now_ms + f[FX_FS_TS_OFFSET]);
        put_word(header, at + 28u, f[FX_FS_TS_RECENT]);
    }
    return at + tcp_len;
}
