/* A flow's pace: a virtual clock that runs ahead of the real one by what was sent. */
#include "core.h"

/* Whether the next segment must wait until FL_PACE_MS, FL_PACE_NS. */
int fx_paced(FX_LOCAL const fx_u32 *f, fx_u32 now_ms, fx_u32 now_ns)
{
    return f[FX_FS_PACING_RATE] != 0u && (f[FX_FL_FLAGS] & FX_LOCAL_PACED) != 0u &&
        fx_time_after(f[FX_FL_PACE_MS], f[FX_FL_PACE_NS], now_ms, now_ns);
}

/* Most bytes to send in one go: a millisecond's worth. */
fx_u32 fx_burst(fx_u32 rate)
{
    return rate == 0u ? 0xffffffffu : rate;
}

/* Accounts for bytes sent, fewer than 2^17. Time that passed idle gives credit for a millisecond. */
void fx_pace_sent(FX_LOCAL fx_u32 *f, fx_u32 now_ms, fx_u32 now_ns, fx_u32 bytes)
{
    fx_u32 rate = f[FX_FS_PACING_RATE];
    fx_u32 whole;
    fx_u32 nanos;
    fx_u32 low;
    fx_u32 high;
    if (rate == 0u) {
        return;
    }
    if ((f[FX_FL_FLAGS] & FX_LOCAL_PACED) == 0u ||
        !fx_time_after(f[FX_FL_PACE_MS], f[FX_FL_PACE_NS], now_ms - 1u, now_ns)) {
        f[FX_FL_FLAGS] |= FX_LOCAL_PACED;
        /* A wake-up that was late by up to a millisecond is made up for. */
        f[FX_FL_PACE_MS] = now_ms - 1u;
        f[FX_FL_PACE_NS] = now_ns;
    }
    /* Milliseconds first, so that the rest times a million fits two words. */
    whole = 0u;
    if (bytes >= rate) {
        whole = fx_divide(0u, bytes, rate, &high);
        bytes -= whole * rate;
    }
    /* bytes * 1000000 in two words: 1000000 = 15 * 65536 + 16960. */
    low = (bytes & 0xffffu) * 16960u;
    nanos = (bytes & 0xffffu) * 15u + (bytes >> 16) * 16960u;
    high = (nanos >> 16) + (bytes >> 16) * 15u;
    nanos <<= 16;
    low += nanos;
    if (low < nanos) {
        high += 1u;
    }
    nanos = fx_divide(high, low, rate, &high);
    f[FX_FL_PACE_MS] += whole;
    f[FX_FL_PACE_NS] += nanos;
    if (f[FX_FL_PACE_NS] >= 1000000u) {
        f[FX_FL_PACE_NS] -= 1000000u;
        f[FX_FL_PACE_MS] += 1u;
    }
}
