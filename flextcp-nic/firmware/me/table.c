/* The flow table's index, and the addresses and ports that are the host's. */
#include "nic.h"

static int same_tuple(FX_MEM const fx_u32 *e, FX_LOCAL const fx_u32 *tuple, fx_u32 ipv6)
{
    fx_u32 i;
    if (e[FX_FS_PORTS] != tuple[8] || ((e[FX_FS_FLAGS] & FX_FLOW_IPV6) != 0u) != (ipv6 != 0u)) {
        return 0;
    }
    for (i = 0u; i < 8u; i++) {
        if (e[FX_FS_LOCAL_IP + i] != tuple[i]) {
            return 0;
        }
    }
    return 1;
}

/* The two buckets of a tuple. */
static void buckets_of(struct fx_nic *nic, FX_LOCAL const fx_u32 *tuple, fx_u32 ipv6, FX_LOCAL fx_u32 *at)
{
    fx_u32 hash = fx_flow_hash(
        tuple, ipv6, hal_register(nic, FX_REG_HASH_KEY_LOW), hal_register(nic, FX_REG_HASH_KEY_HIGH));
    at[0] = (hash & nic->bucket_mask) * FX_BUCKET;
    at[1] = (((hash << 13) | (hash >> 19)) & nic->bucket_mask) * FX_BUCKET;
}

/* The flow of a tuple (nine words: local, remote, ports), plus 1; 0 for none. */
fx_u32 fx_table_find(struct fx_nic *nic, FX_LOCAL const fx_u32 *tuple, fx_u32 ipv6)
{
    fx_u32 at[2];
    fx_u32 side;
    fx_u32 i;
    fx_u32 flow;
    buckets_of(nic, tuple, ipv6, at);
    for (side = 0u; side < 2u; side++) {
        for (i = 0u; i < FX_BUCKET; i++) {
            flow = nic->buckets[at[side] + i];
            if (flow != 0u && same_tuple(fx_entry(nic, flow - 1u), tuple, ipv6)) {
                return flow;
            }
        }
    }
    return 0u;
}

/* Enters a flow whose entry holds the tuple already: FX_DONE_*. */
fx_u32 fx_table_insert(struct fx_nic *nic, FX_LOCAL const fx_u32 *tuple, fx_u32 ipv6, fx_u32 flow)
{
    fx_u32 at[2];
    fx_u32 room[2];
    fx_u32 used[2];
    fx_u32 side;
    fx_u32 i;
    fx_u32 result = FX_DONE_OK;
    hal_lock(nic, FX_LOCK_TABLE);
    if (fx_table_find(nic, tuple, ipv6) != 0u) {
        result = FX_DONE_DUPLICATE;
    } else {
        buckets_of(nic, tuple, ipv6, at);
        for (side = 0u; side < 2u; side++) {
            used[side] = 0u;
            room[side] = 0u;
            for (i = 0u; i < FX_BUCKET; i++) {
                if (nic->buckets[at[side] + i] != 0u) {
                    used[side] += 1u;
                } else {
                    room[side] = at[side] + i;
                }
            }
        }
        side = used[1] < used[0] ? 1u : 0u;
        if (used[side] == FX_BUCKET) {
            result = FX_DONE_TABLE_FULL;
        } else {
            nic->buckets[room[side]] = flow + 1u;
        }
    }
    hal_unlock(nic, FX_LOCK_TABLE);
    return result;
}

void fx_table_remove(struct fx_nic *nic, FX_LOCAL const fx_u32 *tuple, fx_u32 ipv6, fx_u32 flow)
{
    fx_u32 at[2];
    fx_u32 side;
    fx_u32 i;
    buckets_of(nic, tuple, ipv6, at);
    hal_lock(nic, FX_LOCK_TABLE);
    for (side = 0u; side < 2u; side++) {
        for (i = 0u; i < FX_BUCKET; i++) {
            if (nic->buckets[at[side] + i] == flow + 1u) {
                nic->buckets[at[side] + i] = 0u;
            }
        }
    }
    hal_unlock(nic, FX_LOCK_TABLE);
}

/* Where an address and port are, or would be: a linear-probing table that closes its gaps. */
static fx_u32 home_of(struct fx_nic *nic, FX_LOCAL const fx_u32 *address, fx_u32 port)
{
    fx_u32 tuple[9];
    fx_u32 i;
    for (i = 0u; i < 4u; i++) {
        tuple[i] = address[i];
        tuple[i + 4u] = 0u;
    }
    tuple[8] = port;
    return fx_flow_hash(tuple, 1u, hal_register(nic, FX_REG_HASH_KEY_LOW), hal_register(nic, FX_REG_HASH_KEY_HIGH)) &
        (FX_LISTENERS_MAX - 1u);
}

static fx_u32 find_listener(struct fx_nic *nic, FX_LOCAL const fx_u32 *address, fx_u32 port)
{
    fx_u32 at = home_of(nic, address, port);
    FX_MEM const fx_u32 *words;
    for (;;) {
        words = nic->listeners + at * LISTENER_WORDS;
        if (words[0] == 0u ||
            (words[1] == port && words[2] == address[0] && words[3] == address[1] && words[4] == address[2] &&
             words[5] == address[3])) {
            return at;
        }
        at = (at + 1u) & (FX_LISTENERS_MAX - 1u);
    }
}

static void close_gap(struct fx_nic *nic, fx_u32 gap)
{
    fx_u32 mask = FX_LISTENERS_MAX - 1u;
    fx_u32 at = gap;
    fx_u32 address[4];
    fx_u32 home;
    fx_u32 i;
    FX_MEM fx_u32 *words;
    for (;;) {
        at = (at + 1u) & mask;
        words = nic->listeners + at * LISTENER_WORDS;
        if (words[0] == 0u) {
            break;
        }
        for (i = 0u; i < 4u; i++) {
            address[i] = words[2u + i];
        }
        home = home_of(nic, address, words[1]);
        if (((at - home) & mask) >= ((at - gap) & mask)) {
            for (i = 0u; i < LISTENER_WORDS; i++) {
                nic->listeners[gap * LISTENER_WORDS + i] = words[i];
            }
            gap = at;
        }
    }
    nic->listeners[gap * LISTENER_WORDS] = 0u;
}

/* Makes an address and port the host's (LISTENER_*), or the netdev's again (0): FX_DONE_*. `port` has the family in bit 16. */
fx_u32 fx_listen(struct fx_nic *nic, FX_LOCAL const fx_u32 *address, fx_u32 port, fx_u32 as)
{
    fx_u32 at = find_listener(nic, address, port);
    FX_MEM fx_u32 *words = nic->listeners + at * LISTENER_WORDS;
    fx_u32 i;
    if (as == 0u) {
        if (words[0] != 0u) {
            close_gap(nic, at);
            nic->listening -= 1u;
        }
        return FX_DONE_OK;
    }
    if (words[0] != 0u) {
        words[0] = as;
        return FX_DONE_OK;
    }
    /* One stays empty: searches end there. */
    if (nic->listening + 1u >= FX_LISTENERS_MAX) {
        return FX_DONE_TABLE_FULL;
    }
    nic->listening += 1u;
    words[1] = port;
    for (i = 0u; i < 4u; i++) {
        words[2u + i] = address[i];
    }
    words[0] = as;
    return FX_DONE_OK;
}

/* Whose a segment's destination is: 0 is the netdev's, else how the host has it, LISTENER_*. */
fx_u32 fx_owned(struct fx_nic *nic, FX_LOCAL const fx_u32 *packet)
{
    fx_u32 any[4];
    fx_u32 port = packet[FX_PKT_PORTS] >> 16;
    fx_u32 own;
    fx_u32 wild;
    if ((packet[FX_PKT_FLAGS] & FX_PKTFLAG_IPV6) != 0u) {
        port |= FX_LISTEN_IPV6;
    }
    any[0] = 0u;
    any[1] = 0u;
    any[2] = 0u;
    any[3] = 0u;
    own = nic->listeners[find_listener(nic, packet + FX_PKT_LOCAL_IP, port) * LISTENER_WORDS];
    wild = nic->listeners[find_listener(nic, any, port) * LISTENER_WORDS];
    if (own == LISTENER_CONNECTS && wild != LISTENER_LISTENS) {
        return LISTENER_CONNECTS;
    }
    return own != 0u || wild != 0u || (hal_register(nic, FX_REG_CONFIG) & FX_CONFIG_OWN_ALL) != 0u ? LISTENER_LISTENS : 0u;
}
