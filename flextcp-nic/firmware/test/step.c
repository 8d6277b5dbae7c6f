#include "step.h"

static const fx_u32 own_mac[2] = {0x02000000u, 0x00010000u};

static fx_u32 capacity(const fx_u32 *f)
{
    return fx_max(f[FX_FE_RECV_SIZE], f[FX_FS_RCV_FREE]);
}

static void receive(fx_u32 *f, const fx_u32 *args, fx_u32 *out)
{
    fx_u32 now_ms = args[FX_PKT_WORDS];
    fx_receive(f, args, now_ms, args[FX_PKT_WORDS + 1u], out);
    if (out[FX_RX_EXCEPTION] == 0u && (out[FX_RX_FLAGS] & FX_RXFLAG_EARLY_ACK) != 0u) {
        out[STEP_HEADER - 1u] = fx_early_ack_header(f, out, now_ms, own_mac, out + STEP_HEADER);
    }
}

static void send(fx_u32 *f, const fx_u32 *args, fx_u32 *out)
{
    fx_u32 len;
    fx_send_next(f, args[0], out);
    if (out[FX_TX_WAIT] != FX_WAIT_NONE) {
        return;
    }
    if (fx_paced(f, args[3], args[4])) {
        out[FX_TX_WORDS] = 1u;
        return;
    }
    len = fx_data_header(f, out, capacity(f), args[3], own_mac, out + STEP_HEADER);
    if (args[2] != 0u) {
        fx_finish_checksum(out + STEP_HEADER, len, args[1]);
    }
    out[STEP_HEADER - 1u] = len;
    fx_sent(f, out, args[3], args[4]);
}

static void acknowledge(fx_u32 *f, const fx_u32 *args, fx_u32 *out)
{
    out[0] = fx_ack_due(f);
    out[1] = fx_window_update_due(f, capacity(f)) ? 1u : 0u;
    if (out[0] == FX_DUE_NOW || out[1] != 0u || args[0] != 0u) {
        out[STEP_HEADER - 1u] = fx_ack_header(f, capacity(f), args[1], own_mac, out + STEP_HEADER);
        fx_ack_sent(f, 0u);
    }
}

/* The sum of a frame's bytes, as the hardware layer takes it. */
static fx_u32 sum_bytes(const fx_u32 *w, fx_u32 offset, fx_u32 length)
{
    fx_u32 sum = 0u;
    fx_u32 i;
    for (i = 0u; i < length; i++) {
        sum = fx_sum_add(sum, fx_byte(w, offset + i) << ((i & 1u) != 0u ? 0u : 8u));
    }
    return sum;
}

/* What is nobody's business is cleared: the words of a frame that is no segment, options in a SYN. */
static void parse(const fx_u32 *args, fx_u32 *out)
{
    const fx_u32 *w = args + 3;
    fx_u32 sums[5];
    fx_u32 verdict;
    fx_u32 i;
    sums[4] = args[2];
    verdict = fx_parse(w, fx_min(args[0], FX_PEEK_BYTES), args[0], out, sums);
    if (sums[3] != 0u && fx_fold(fx_sum_add(sums[1], sum_bytes(w, sums[2], sums[3]))) != 0xffffu) {
        verdict = FX_VERDICT_BAD_CHECKSUM;
    }
    if (verdict != FX_VERDICT_SEGMENT) {
        for (i = 0u; i < FX_PKT_WORDS; i++) {
            out[i] = 0u;
        }
    } else if ((out[FX_PKT_FLAGS] & FX_PKTFLAG_ICMP) != 0u) {
        out[FX_PKT_TTL_TOS] = 0u;
    } else if ((out[FX_PKT_FLAGS_WINDOW] & 2u) != 0u) {
        out[FX_PKT_FLAGS] &= ~FX_PKTFLAG_OPTIONS;
    }
    out[FX_PKT_WORDS] = verdict;
}

void fx_step(fx_u32 *f, fx_u32 operation, const fx_u32 *args, fx_u32 *out)
{
    fx_u32 i;
    for (i = 0u; i < STEP_RESULTS; i++) {
        out[i] = 0u;
    }
    switch (operation) {
    case STEP_INSTALL:
        out[0] = fx_flow_install(f, args, args[64], args[65], args[66]);
        break;
    case STEP_RECEIVE:
        receive(f, args, out);
        break;
    case STEP_SEND:
        send(f, args, out);
        break;
    case STEP_ACK:
        acknowledge(f, args, out);
        break;
    case STEP_BUMP:
        out[0] = (fx_u32)fx_flow_bump(f, args[0], args[1], args[2]);
        break;
    case STEP_LIMITS:
        fx_flow_limits(f, args[0], args[1]);
        break;
    case STEP_PARSE:
        parse(args, out);
        break;
    default:
        break;
    }
    fx_normalize(f);
}

void fx_normalize(fx_u32 *f)
{
    if ((f[FX_FL_FLAGS] & FX_LOCAL_TIMED) == 0u) {
        f[FX_FL_TIMED_END] = 0u;
        f[FX_FL_TIMED_MS] = 0u;
        f[FX_FL_TIMED_NS] = 0u;
    }
    if ((f[FX_FL_FLAGS] & FX_LOCAL_OUTSTANDING) == 0u) {
        f[FX_FL_OUTSTANDING_MS] = 0u;
        f[FX_FL_OUTSTANDING_NS] = 0u;
    }
}
