/* Arithmetic that engines have no instruction for. */
#include "core.h"

/* high:low / by, bit by bit; the quotient's high word in *high_out. `by` is not zero. */
fx_u32 fx_divide(fx_u32 high, fx_u32 low, fx_u32 by, FX_LOCAL fx_u32 *high_out)
{
    fx_u32 rest = 0u;
    fx_u32 bit = 0u;
    fx_u32 carry;
    /* Leading zeros give none but zeros. */
    while (bit < 56u && high >> 24 == 0u) {
        high = (high << 8) | (low >> 24);
        low <<= 8;
        bit += 8u;
    }
    for (; bit < 64u; bit++) {
        carry = rest >> 31;
        rest = (rest << 1) | (high >> 31);
        high = (high << 1) | (low >> 31);
        low <<= 1;
        if (carry != 0u || rest >= by) {
            rest -= by;
            low |= 1u;
        }
    }
    *high_out = high;
    return low;
}

/* Whether a is after b. Milliseconds wrap after 49 days: times compared lie within half of that. */
int fx_time_after(fx_u32 a_ms, fx_u32 a_ns, fx_u32 b_ms, fx_u32 b_ns)
{
    if (a_ms == b_ms) {
        return a_ns > b_ns;
    }
    return fx_after(a_ms, b_ms);
}

/* Whole microseconds from one time to another, 0 if it is earlier, all ones if they are more than fit. */
fx_u32 fx_micros_between(fx_u32 from_ms, fx_u32 from_ns, fx_u32 to_ms, fx_u32 to_ns)
{
    fx_u32 ms;
    if (!fx_time_after(to_ms, to_ns, from_ms, from_ns)) {
        return 0u;
    }
    ms = to_ms - from_ms;
    if (to_ns < from_ns) {
        ms -= 1u;
        to_ns += 1000000u;
    }
    if (ms > 4294966u) {
        /* 4294967.295 ms are the most that fit. */
        return (ms > 4294967u || to_ns - from_ns >= 295000u) ? 0xffffffffu : ms * 1000u + (to_ns - from_ns) / 1000u;
    }
    return ms * 1000u + (to_ns - from_ns) / 1000u;
}

/* Adds less than 4294 seconds. */
void fx_time_add(FX_LOCAL fx_u32 *ms, FX_LOCAL fx_u32 *ns, fx_u32 micros)
{
    fx_u32 whole = micros / 1000u;
    *ms += whole;
    *ns += (micros - whole * 1000u) * 1000u;
    if (*ns >= 1000000u) {
        *ns -= 1000000u;
        *ms += 1u;
    }
}
