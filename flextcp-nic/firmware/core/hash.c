/* The flow table's hash, and that of receive-side scaling. */
#include "core.h"

#define rotate(x, n) (((x) << (n)) | ((x) >> (32u - (n))))

/* HalfSipHash-1-3: keyed, so that no peer can choose addresses and ports that collide; of 32-bit additions, rotations and
 * exclusive ors alone. `tuple` is the flow's nine words: local address, remote address, ports. */
fx_u32 fx_flow_hash(FX_LOCAL const fx_u32 *tuple, fx_u32 ipv6, fx_u32 key_low, fx_u32 key_high)
{
    fx_u32 v0 = key_low;
    fx_u32 v1 = key_high;
    fx_u32 v2 = 0x6c796765u ^ key_low;
    fx_u32 v3 = 0x74656462u ^ key_high;
    fx_u32 rounds = ipv6 != 0u ? 13u : 7u;
    fx_u32 words = rounds - 4u;
    fx_u32 i;
    fx_u32 m;
    for (i = 0u; i < rounds; i++) {
        m = 0u;
        if (i < words) {
            m = ipv6 != 0u ? tuple[i] : (i == 2u ? tuple[8] : tuple[i << 2]);
        } else if (i == words) {
            m = words << 26;
        }
        if (i == words + 1u) {
            v2 ^= 0xffu;
        }
        v3 ^= m;
        v0 += v1;
        v1 = rotate(v1, 5u) ^ v0;
        v0 = rotate(v0, 16u);
        v2 += v3;
        v3 = rotate(v3, 8u) ^ v2;
        v0 += v3;
        v3 = rotate(v3, 7u) ^ v0;
        v2 += v1;
        v1 = rotate(v1, 13u) ^ v2;
        v2 = rotate(v2, 16u);
        v0 ^= m;
    }
    return v1 ^ v3;
}

static fx_u32 toeplitz_word(FX_LOCAL const fx_u32 *key, fx_u32 at, fx_u32 input)
{
    fx_u32 hash = 0u;
    fx_u32 window = key[at];
    fx_u32 next = at < 9u ? key[at + 1u] : 0u;
    fx_u32 bit;
    for (bit = 0u; bit < 32u; bit++) {
        if ((input >> (31u - bit)) != 0u && ((input >> (31u - bit)) & 1u) != 0u) {
            hash ^= window;
        }
        window = (window << 1) | (next >> 31);
        next <<= 1;
    }
    return hash;
}

/* The Toeplitz hash of a received segment under a key of ten words. */
fx_u32 fx_toeplitz(FX_LOCAL const fx_u32 *p, FX_LOCAL const fx_u32 *key)
{
    fx_u32 words = (p[FX_PKT_FLAGS] & FX_PKTFLAG_IPV6) != 0u ? 4u : 1u;
    fx_u32 hash = 0u;
    fx_u32 i;
    for (i = 0u; i < words; i++) {
        hash ^= toeplitz_word(key, i, p[FX_PKT_REMOTE_IP + i]);
        hash ^= toeplitz_word(key, words + i, p[FX_PKT_LOCAL_IP + i]);
    }
    return hash ^ toeplitz_word(key, words << 1, (p[FX_PKT_PORTS] << 16) | (p[FX_PKT_PORTS] >> 16));
}
