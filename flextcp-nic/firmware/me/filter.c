/* The filter: what the card takes never meets the host's firewall, so this stands in for it. */
#include "nic.h"

/* Whether the first `bits` bits of an address are those of the rule at `rule`. */
static int in_prefix(struct fx_nic *nic, fx_u32 rule, FX_LOCAL const fx_u32 *address, fx_u32 bits)
{
    fx_u32 differ;
    fx_u32 i;
    for (i = 0u; i < 4u && bits != 0u; i++) {
        differ = hal_register(nic, rule + FX_RULE_REMOTE_IP + i) ^ address[i];
        if (bits < 32u) {
            return differ >> (32u - bits) == 0u;
        }
        if (differ != 0u) {
            return 0;
        }
        bits -= 32u;
    }
    return 1;
}

/* Whether a segment of no flow is let in: the first rule that matches decides, and none lets it in. */
int fx_admits(struct fx_nic *nic, FX_LOCAL const fx_u32 *packet)
{
    fx_u32 count = fx_min(hal_register(nic, FX_REG_FILTER), FX_FILTER_MAX);
    fx_u32 family = (packet[FX_PKT_FLAGS] & FX_PKTFLAG_IPV6) != 0u ? FX_RULEFLAG_IPV6 : FX_RULEFLAG_IPV4;
    fx_u32 rule = FX_REG_FILTER_RULES;
    fx_u32 match;
    fx_u32 i;
    for (i = 0u; i < count; i++) {
        match = hal_register(nic, rule + FX_RULE_MATCH);
        if ((match & family) != 0u &&
            ((match & FX_RULEFLAG_PORT) == 0u || match >> 16 == packet[FX_PKT_PORTS] >> 16) &&
            in_prefix(nic, rule, packet + FX_PKT_REMOTE_IP, match & 0xffu)) {
            return (match & FX_RULEFLAG_DENY) == 0u;
        }
        rule += FX_RULE_STRIDE;
    }
    return 1;
}
