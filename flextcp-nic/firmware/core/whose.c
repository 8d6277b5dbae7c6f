/* Whose segment a frame is, or is about, by addresses and ports alone: the rule of bpf/segment.h and of the P4 tables.
 *
 * For frames that fx_parse refuses: a malformed one for an address and port of the kernel's is the kernel's to refuse.
 */
#include "core.h"

#define PROTOCOL_ICMP 1u
#define PROTOCOL_TCP 6u
#define PROTOCOL_ICMPV6 58u
#define HOP_BY_HOP 0u
#define ROUTING 43u
#define FRAGMENT 44u
#define DESTINATION_OPTIONS 60u
/* As many as the BPF program follows. */
#define MAX_EXTENSIONS 4u

/* What follows the IPv4 header at `at`; 0: nothing that has ports. */
static fx_u32 after_ipv4(FX_LOCAL const fx_u32 *w, fx_u32 at, fx_u32 present)
{
    if (at + 20u > present || fx_byte(w, at) >> 4 != 4u || (fx_byte(w, at) & 0xfu) < 5u ||
        (fx_half(w, at + 6u) & 0x1fffu) != 0u) {
        return 0u;
    }
    return at + ((fx_byte(w, at) & 0xfu) << 2);
}

static int ipv4(FX_LOCAL const fx_u32 *w, fx_u32 at, fx_u32 present, FX_LOCAL fx_u32 *p)
{
    fx_u32 protocol = fx_byte(w, at + 9u);
    fx_u32 next = after_ipv4(w, at, present);
    if (next == 0u) {
        return 0;
    }
    if (protocol == PROTOCOL_TCP) {
        if (next + 4u > present) {
            return 0;
        }
        p[FX_PKT_REMOTE_IP] = fx_word(w, at + 12u);
        p[FX_PKT_LOCAL_IP] = fx_word(w, at + 16u);
        p[FX_PKT_PORTS] = (fx_half(w, next + 2u) << 16) | fx_half(w, next);
        return 1;
    }
    if (protocol != PROTOCOL_ICMP || next + 8u > present || (fx_byte(w, next) != 3u && fx_byte(w, next) != 11u)) {
        return 0;
    }
    /* We sent what is quoted: its source is our end. */
    at = next + 8u;
    next = after_ipv4(w, at, present);
    if (next == 0u || fx_byte(w, at + 9u) != PROTOCOL_TCP || next + 4u > present) {
        return 0;
    }
    p[FX_PKT_LOCAL_IP] = fx_word(w, at + 12u);
    p[FX_PKT_REMOTE_IP] = fx_word(w, at + 16u);
    p[FX_PKT_PORTS] = fx_word(w, next);
    p[FX_PKT_FLAGS] |= FX_PKTFLAG_ICMP;
    return 1;
}

static void copy_address(FX_LOCAL const fx_u32 *w, fx_u32 at, FX_LOCAL fx_u32 *to)
{
    fx_u32 i;
    for (i = 0u; i < 4u; i++) {
        to[i] = fx_word(w, at + (i << 2));
    }
}

static int ipv6(FX_LOCAL const fx_u32 *w, fx_u32 at, fx_u32 present, FX_LOCAL fx_u32 *p)
{
    fx_u32 next = at + 40u;
    fx_u32 protocol;
    fx_u32 extension;
    fx_u32 type;
    fx_u32 n;
    if (next > present || fx_byte(w, at) >> 4 != 6u) {
        return 0;
    }
    p[FX_PKT_FLAGS] = FX_PKTFLAG_IPV6;
    protocol = fx_byte(w, at + 6u);
    for (n = 0u; n < MAX_EXTENSIONS && protocol != PROTOCOL_TCP && protocol != PROTOCOL_ICMPV6; n++) {
        extension = next;
        if (extension + 8u > present) {
            return 0;
        }
        if (protocol == HOP_BY_HOP || protocol == ROUTING || protocol == DESTINATION_OPTIONS) {
            next += (fx_byte(w, extension + 1u) + 1u) << 3;
        } else if (protocol == FRAGMENT && (fx_half(w, extension + 2u) & 0xfff8u) == 0u) {
            next += 8u;
        } else {
            return 0;
        }
        protocol = fx_byte(w, extension);
    }
    if (protocol == PROTOCOL_TCP) {
        if (next + 4u > present) {
            return 0;
        }
        copy_address(w, at + 8u, p + FX_PKT_REMOTE_IP);
        copy_address(w, at + 24u, p + FX_PKT_LOCAL_IP);
        p[FX_PKT_PORTS] = (fx_half(w, next + 2u) << 16) | fx_half(w, next);
        return 1;
    }
    if (protocol != PROTOCOL_ICMPV6 || next + 8u + 44u > present) {
        return 0;
    }
    type = fx_byte(w, next);
    at = next + 8u;
    if (type < 1u || type > 3u || fx_byte(w, at) >> 4 != 6u || fx_byte(w, at + 6u) != PROTOCOL_TCP) {
        return 0;
    }
    copy_address(w, at + 8u, p + FX_PKT_LOCAL_IP);
    copy_address(w, at + 24u, p + FX_PKT_REMOTE_IP);
    p[FX_PKT_PORTS] = fx_word(w, at + 40u);
    p[FX_PKT_FLAGS] |= FX_PKTFLAG_ICMP;
    return 1;
}

/* Whether the first `present` bytes of a frame, in `w`, tell whose it is: addresses, ports and flags to `p`. */
int fx_whose(FX_LOCAL const fx_u32 *w, fx_u32 present, FX_LOCAL fx_u32 *p)
{
    fx_u32 at = 14u;
    fx_u32 type;
    fx_u32 i;
    for (i = 0u; i < FX_PKT_WORDS; i++) {
        p[i] = 0u;
    }
    if (present < 14u || (fx_byte(w, 0u) & 1u) != 0u) {
        return 0;
    }
    type = fx_half(w, 12u);
    if (type == 0x8100u) {
        if (present < 18u || (fx_half(w, 14u) & 0x0fffu) != 0u) {
            return 0;
        }
        type = fx_half(w, 16u);
        at = 18u;
    }
    if (type == 0x0800u) {
        return ipv4(w, at, present, p);
    }
    return type == 0x86ddu ? ipv6(w, at, present, p) : 0;
}
