/* `cost OPERATION COUNT` does one thing of the fast path COUNT times, for counting the instructions it takes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "core.h"

static fx_u32 f[FX_FLOW_ENTRY_WORDS];
static fx_u32 frame[FX_PEEK_WORDS + 1u];
static fx_u32 header[FX_HEADER_WORDS];
static fx_u32 p[FX_PKT_WORDS];
static fx_u32 r[FX_RX_WORDS];
static fx_u32 s[FX_TX_WORDS];
static const fx_u32 mac[2] = {0x02000000u, 0x00010000u};
static const fx_u32 key[10] = {0x6d5a56dau, 0x255b0ec2u, 0x4167253du, 0x43a38fb0u, 0xd0ca2bcbu,
                               0xae7b30b4u, 0x77cb2da3u, 0x8030f20cu, 0x6a42b73bu, 0xbeac01fau};

static void flow(fx_u32 flags)
{
    fx_u32 block[FX_FLOW_BLOCK_WORDS];
    memset(block, 0, sizeof block);
    block[FX_FS_LOCAL_IP] = 0x0a000001u;
    block[FX_FS_REMOTE_IP] = 0x0a000002u;
    block[FX_FS_PORTS] = (80u << 16) | 1000u;
    block[FX_FS_REMOTE_MAC_HIGH] = 0x02000000u;
    block[FX_FS_REMOTE_MAC_LOW_TTL_TOS] = 0x00024000u;
    block[FX_FS_FLAGS] = flags;
    block[FX_FS_MSS_SCALES] = (1448u << 16) | 0x0707u;
    block[FX_FS_RCV_ADV] = 1u << 20;
    block[FX_FS_SND_END] = 1u << 19;
    block[FX_FS_SND_NXT] = 14480u;
    block[FX_FS_SND_WND] = 1u << 20;
    block[FX_FS_CWND] = 1u << 20;
    block[FX_BLOCK_RECV_SHIFT] = 20u;
    block[FX_BLOCK_SEND_SHIFT] = 20u;
    if (fx_flow_install(f, block, 1u, 1000u, 0u) != FX_DONE_OK) {
        abort();
    }
}

static void segment(fx_u32 ack, fx_u32 len, fx_u32 tos)
{
    memset(p, 0, sizeof p);
    p[FX_PKT_SEQ] = f[FX_FS_RCV_NXT];
    p[FX_PKT_ACK] = ack;
    p[FX_PKT_FLAGS_WINDOW] = (8192u << 16) | 0x10u;
    p[FX_PKT_FLAGS] = FX_PKTFLAG_TIMESTAMPS;
    p[FX_PKT_TTL_TOS] = tos;
    p[FX_PKT_PAYLOAD_LEN] = len;
}

/* One turn; what prepares it is the same for all turns of an operation, and is counted by its name with "-" in front. */
static void turn(const char *operation, int prepare_only)
{
    fx_u32 sums[5];
    if (strcmp(operation, "parse") == 0) {
        flow(FX_FLOW_TIMESTAMPS);
        (void)fx_emit(f, 1u, 1u, 0x10u, 100u, 0u, 5u, 100u, mac, frame);
        sums[4] = 0u;
        if (!prepare_only && fx_parse(frame, 166u, 166u, p, sums) != FX_VERDICT_SEGMENT) {
            abort();
        }
    } else if (strcmp(operation, "hash") == 0) {
        flow(0u);
        if (!prepare_only) {
            r[0] = fx_flow_hash(f, 0u, 1u, 2u);
        }
    } else if (strcmp(operation, "hash6") == 0) {
        flow(0u);
        if (!prepare_only) {
            r[0] = fx_flow_hash(f, 1u, 1u, 2u);
        }
    } else if (strcmp(operation, "toeplitz") == 0) {
        segment(0u, 0u, 0u);
        if (!prepare_only) {
            r[0] = fx_toeplitz(p, key);
        }
    } else if (strcmp(operation, "data") == 0) {
        flow(FX_FLOW_TIMESTAMPS);
        segment(0u, 1448u, 0u);
        if (!prepare_only) {
            fx_receive(f, p, 1001u, 5u, r);
        }
    } else if (strcmp(operation, "ack") == 0) {
        flow(FX_FLOW_TIMESTAMPS);
        segment(1448u, 0u, 0u);
        if (!prepare_only) {
            fx_receive(f, p, 1001u, 5u, r);
        }
    } else if (strcmp(operation, "mark") == 0) {
        flow(FX_FLOW_TIMESTAMPS | FX_FLOW_ECN | FX_FLOW_DCTCP);
        segment(0u, 1448u, 3u);
        f[FX_FS_LAST_ACK_SENT] = f[FX_FS_RCV_NXT] - 100u;
        if (!prepare_only) {
            fx_receive(f, p, 1001u, 5u, r);
        }
    } else if (strcmp(operation, "exception") == 0) {
        flow(FX_FLOW_TIMESTAMPS);
        segment(0u, 1448u, 0u);
        p[FX_PKT_SEQ] += 1448u;
        if (!prepare_only) {
            fx_receive(f, p, 1001u, 5u, r);
        }
    } else if (strcmp(operation, "send") == 0 || strcmp(operation, "send-paced") == 0) {
        flow(FX_FLOW_TIMESTAMPS);
        f[FX_FS_PACING_RATE] = operation[4] == '-' ? 12500u : 0u;
        if (!prepare_only) {
            fx_send_next(f, 0u, s);
            (void)fx_data_header(f, s, 1u << 20, 1001u, mac, header);
            fx_sent(f, s, 1001u, 5u);
        }
    } else if (strcmp(operation, "send-ack") == 0) {
        flow(FX_FLOW_TIMESTAMPS);
        f[FX_FS_RCV_NXT] += 2896u;
        if (!prepare_only && fx_ack_due(f) == FX_DUE_NOW) {
            (void)fx_ack_header(f, 1u << 20, 1001u, mac, header);
            fx_ack_sent(f, 0u);
        }
    } else if (strcmp(operation, "checksum") == 0) {
        flow(FX_FLOW_TIMESTAMPS);
        (void)fx_emit(f, 1u, 1u, 0x10u, 100u, 0u, 5u, 100u, mac, header);
        if (!prepare_only) {
            fx_finish_checksum(header, 66u, 12345u);
        }
    } else if (strcmp(operation, "bump") == 0) {
        flow(FX_FLOW_TIMESTAMPS);
        if (!prepare_only && fx_flow_bump(f, 1u, 1448u, 0u) != 0) {
            abort();
        }
    } else {
        fprintf(stderr, "no such operation: %s\n", operation);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    int count;
    int prepare_only;
    if (argc != 3) {
        fprintf(stderr, "cost OPERATION COUNT\n");
        return 2;
    }
    prepare_only = argv[2][0] == '-';
    count = abs(atoi(argv[2]));
    while (count-- > 0) {
        turn(argv[1], prepare_only);
    }
    return 0;
}
