/* A flow's life on the card: what an install must satisfy, and what the host tells it. */
#include "core.h"

#define fx_mss(f) fx_max((f)[FX_FS_MSS_SCALES] >> 16, 48u)

/* As the software NIC's fast::Local::new. */
void fx_flow_start(FX_LOCAL fx_u32 *f, fx_u32 now_ms, fx_u32 now_ns)
{
    fx_u32 i;
    fx_u32 mss = fx_mss(f);
    for (i = FX_FL_FLAGS; i <= FX_FL_PACE_NS; i++) {
        f[i] = 0u;
    }
    /* As Linux's TCP_MAX_QUICKACKS. */
    f[FX_FL_FLAGS] = 16u << 8;
    /* What the host did not say, or said against sense. */
    f[FX_FS_MAX_SND_WND] = fx_max(f[FX_FS_MAX_SND_WND], f[FX_FS_SND_WND]);
    if (fx_before(f[FX_FS_SND_SML], f[FX_FS_SND_UNA]) || fx_after(f[FX_FS_SND_SML], f[FX_FS_SND_NXT])) {
        f[FX_FS_SND_SML] = f[FX_FS_SND_UNA];
    }
    /* Until segments were seen, as Linux's tcp_initialize_rcv_mss. */
    f[FX_FL_RCV_MSS] = fx_min(mss, 536u);
    if (fx_since(f[FX_FS_SND_NXT], f[FX_FS_SND_UNA]) > 0u) {
        f[FX_FL_FLAGS] |= FX_LOCAL_OUTSTANDING;
        f[FX_FL_OUTSTANDING_MS] = now_ms;
        f[FX_FL_OUTSTANDING_NS] = now_ns;
    }
}

static int bad_ring(fx_u32 low, fx_u32 shift, fx_u32 used)
{
    if (shift == 0u) {
        return used != 0u;
    }
    return shift < FX_RING_SHIFT_MIN || shift > FX_RING_SHIFT_MAX || (low & (FX_ALIGNMENT - 1u)) != 0u ||
        used > 1u << shift;
}

/* Whether a flow block can be taken: FX_DONE_*. Regions are the caller's to check. */
fx_u32 fx_flow_check(FX_LOCAL const fx_u32 *block)
{
    fx_u32 held = block[FX_FS_SND_END] - block[FX_FS_SND_UNA];
    fx_u32 in_flight = block[FX_FS_SND_NXT] - block[FX_FS_SND_UNA];
    fx_u32 offered = block[FX_FS_RCV_ADV] - block[FX_FS_RCV_NXT];
    fx_u32 used = block[FX_BLOCK_RECV_USED];
    if ((block[FX_FS_FLAGS] & ~FX_FLOW_ALL) != 0u) {
        return FX_DONE_UNSUPPORTED;
    }
    if (bad_ring(block[FX_BLOCK_RECV_LOW], block[FX_BLOCK_RECV_SHIFT], used) ||
        bad_ring(block[FX_BLOCK_SEND_LOW], block[FX_BLOCK_SEND_SHIFT], held)) {
        return FX_DONE_BAD_RING;
    }
    if (in_flight > held || offered > 1u << FX_RING_SHIFT_MAX) {
        return FX_DONE_BAD_STATE;
    }
    /* The peer may use what it was offered. */
    if (block[FX_BLOCK_RECV_SHIFT] != 0u && offered > (1u << block[FX_BLOCK_RECV_SHIFT]) - used) {
        return FX_DONE_BAD_RING;
    }
    return FX_DONE_OK;
}

/* Makes an entry of a block: 0 and the entry is ready, or FX_DONE_* and it is as it was. */
fx_u32 fx_flow_install(
    FX_LOCAL fx_u32 *f, FX_LOCAL const fx_u32 *block, fx_u32 generation, fx_u32 now_ms, fx_u32 now_ns)
{
    fx_u32 result = fx_flow_check(block);
    fx_u32 offered;
    fx_u32 i;
    if (result != FX_DONE_OK) {
        return result;
    }
    for (i = 0u; i < FX_FE_PRIVATE; i++) {
        if (i != FX_FE_VERSION) {
            f[i] = i < FX_FS_WORDS ? block[i] : 0u;
        }
    }
    f[FX_FE_STATUS] = FX_FLOW_STATUS_NIC_OWNED;
    f[FX_FE_GENERATION] = generation;
    f[FX_FE_RECV_LOW] = block[FX_BLOCK_RECV_LOW];
    f[FX_FE_RECV_HIGH] = block[FX_BLOCK_RECV_HIGH];
    f[FX_FE_RECV_POSITION] = block[FX_BLOCK_RECV_POSITION];
    f[FX_FE_RECV_USED] = block[FX_BLOCK_RECV_USED];
    f[FX_FE_SEND_LOW] = block[FX_BLOCK_SEND_LOW];
    f[FX_FE_SEND_HIGH] = block[FX_BLOCK_SEND_HIGH];
    f[FX_FE_SEND_POSITION] = block[FX_BLOCK_SEND_POSITION];
    if (block[FX_BLOCK_SEND_SHIFT] != 0u) {
        f[FX_FE_SEND_SIZE] = 1u << block[FX_BLOCK_SEND_SHIFT];
    }
    if (block[FX_BLOCK_RECV_SHIFT] != 0u) {
        f[FX_FE_RECV_SIZE] = 1u << block[FX_BLOCK_RECV_SHIFT];
        f[FX_FS_RCV_FREE] = f[FX_FE_RECV_SIZE] - f[FX_FE_RECV_USED];
    }
    offered = fx_since(f[FX_FS_RCV_ADV], f[FX_FS_RCV_NXT]);
    f[FX_FS_RCV_FREE] = fx_max(f[FX_FS_RCV_FREE], offered);
    fx_flow_start(f, now_ms, now_ns);
    return FX_DONE_OK;
}

void fx_flow_limits(FX_LOCAL fx_u32 *f, fx_u32 cwnd, fx_u32 pacing_rate)
{
    /* RFC 3168, section 6.1.2: the first new segment after the window was reduced because of ECE says so. */
    if ((f[FX_FL_FLAGS] & FX_LOCAL_ECE_SEEN) != 0u && cwnd < f[FX_FS_CWND]) {
        f[FX_FL_FLAGS] &= ~FX_LOCAL_ECE_SEEN;
        f[FX_FS_FLAGS] |= FX_FLOW_CWR;
    }
    f[FX_FS_CWND] = cwnd;
    f[FX_FS_PACING_RATE] = pacing_rate;
}

/* Takes a bump in: 0 when it was applied, 1 for a duplicate, 2 when it is out of sequence or beyond a ring. */
int fx_flow_bump(FX_LOCAL fx_u32 *f, fx_u32 sequence, fx_u32 sent, fx_u32 freed)
{
    fx_u32 held = f[FX_FS_SND_END] - f[FX_FS_SND_UNA];
    fx_u32 expected = f[FX_FE_BUMPS] + 1u;
    if (sequence != expected) {
        return fx_before(sequence, expected) ? 1 : 2;
    }
    if (held > f[FX_FE_SEND_SIZE] || sent > f[FX_FE_SEND_SIZE] - held || freed > f[FX_FE_RECV_USED]) {
        return 2;
    }
    f[FX_FE_BUMPS] = expected;
    f[FX_FS_SND_END] += sent;
    f[FX_FE_RECV_USED] -= freed;
    if (f[FX_FE_RECV_SIZE] != 0u) {
        f[FX_FS_RCV_FREE] = f[FX_FE_RECV_SIZE] - f[FX_FE_RECV_USED];
    }
    return 0;
}
