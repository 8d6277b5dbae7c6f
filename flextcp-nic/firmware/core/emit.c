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
    /* At 50 or 70 bytes: in the low half of its word. */
    fx_u32 at = (ETHERNET + network_header_len(header) + CHECKSUM) >> 2;
    header[at] = (header[at] & 0xffff0000u) | (~fx_fold(total) & 0xffffu);
}

/* Appends a word. Ethernet's 14 bytes put everything behind them across two words of the frame. */
#define push(word) \
    do { \
        header[at] |= (word) >> 16; \
        at += 1u; \
        header[at] = (word) << 16; \
    } while (0)

/* Writes the headers of a segment with `payload` bytes to `header` (FX_HEADER_WORDS words) and returns their bytes. The TCP
 * checksum is a partial one, the pseudo-header's sum. `mac` is ours: the first four bytes, the other two in the high half. */
fx_u32 fx_emit(
    FX_LOCAL const fx_u32 *f, fx_u32 seq, fx_u32 ack, fx_u32 flags, fx_u32 window, fx_u32 ecn, fx_u32 now_ms, fx_u32 payload,
    FX_LOCAL const fx_u32 *mac, FX_LOCAL fx_u32 *header)
{
    fx_u32 ttl = (f[FX_FS_REMOTE_MAC_LOW_TTL_TOS] >> 8) & 0xffu;
    fx_u32 tos = (f[FX_FS_REMOTE_MAC_LOW_TTL_TOS] & 0xfcu) | ecn;
    fx_u32 tcp_len = (f[FX_FS_FLAGS] & FX_FLOW_TIMESTAMPS) != 0u ? TCP + TIMESTAMPS : TCP;
    fx_u32 segment = tcp_len + payload;
    fx_u32 at = 3u;
    fx_u32 sum;
    fx_u32 first;
    fx_u32 third;
    fx_u32 i;

    header[0] = f[FX_FS_REMOTE_MAC_HIGH];
    header[1] = (f[FX_FS_REMOTE_MAC_LOW_TTL_TOS] & 0xffff0000u) | (mac[0] >> 16);
    header[2] = (mac[0] << 16) | (mac[1] >> 16);
    /* Packets longer than their length field tells exist only as input to segmentation, where the port goes by the frame. */
    if ((f[FX_FS_FLAGS] & FX_FLOW_IPV6) != 0u) {
        header[3] = 0x86dd0000u;
        push(0x60000000u | (tos << 20));
        push((fx_min(segment, 0xffffu) << 16) | (PROTOCOL_TCP << 8) | ttl);
        sum = 0u;
        for (i = FX_FS_LOCAL_IP; i < FX_FS_REMOTE_IP + 4u; i++) {
            push(f[i]);
            sum = fx_sum_add(sum, f[i]);
        }
    } else {
        header[3] = 0x08000000u;
        first = IPV4 + segment;
        first = 0x45000000u | (tos << 16) | fx_min(first, 0xffffu);
        third = (ttl << 24) | (PROTOCOL_TCP << 16);
        sum = fx_sum_add(f[FX_FS_LOCAL_IP], f[FX_FS_REMOTE_IP]);
        push(first);
        /* DF is always set, so that the identification may be zero (RFC 6864, section 4.1). */
#if FX_FAULT == 4
        push(0x00000000u);
#else
        push(0x00004000u);
#endif
        first = fx_sum_add(fx_sum_add(fx_sum_add(sum, first), 0x00004000u), third);
        push(third | (~fx_fold(first) & 0xffffu));
        push(f[FX_FS_LOCAL_IP]);
        push(f[FX_FS_REMOTE_IP]);
    }
    sum = fx_sum_add(fx_sum_add(sum, PROTOCOL_TCP), segment);
    push(f[FX_FS_PORTS]);
    push(seq);
    push(ack);
    push((tcp_len << 26) | (flags << 16) | window);
    push(fx_fold(sum) << 16);
    if (tcp_len != TCP) {
        push(0x0101080au);
        /* TSval: the millisecond clock, offset per connection (RFC 7323, section 5.4). */
        push(now_ms + f[FX_FS_TS_OFFSET]);
        push(f[FX_FS_TS_RECENT]);
    }
    return (at << 2) + 2u;
}
