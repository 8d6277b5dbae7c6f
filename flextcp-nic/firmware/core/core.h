/* The common case of TCP, receive and transmit, as the Rust modules flextcp_nic::fast and flextcp_nic::wire have it, word for
 * word: pure functions over words, no I/O, no globals. A time is two words, milliseconds and nanoseconds within them.
 *
 * `f` is a flow entry (FX_FS_*, FX_FL_*, FX_FE_*), `p` a parsed segment (FX_PKT_*), both in local memory.
 */
#ifndef FLEXTCP_CORE_H
#define FLEXTCP_CORE_H

#include "fx.h"

/* Words of the longest headers that the card sends, in network order. */
#define FX_HEADER_WORDS 24u
/* Words of a received frame that the classifier looks at. */
#define FX_PEEK_WORDS 48u
#define FX_PEEK_BYTES (FX_PEEK_WORDS * 4u)

/* core/time.c */
fx_u32 fx_divide(fx_u32 high, fx_u32 low, fx_u32 by, FX_LOCAL fx_u32 *high_out);
int fx_time_after(fx_u32 a_ms, fx_u32 a_ns, fx_u32 b_ms, fx_u32 b_ns);
fx_u32 fx_micros_between(fx_u32 from_ms, fx_u32 from_ns, fx_u32 to_ms, fx_u32 to_ns);
void fx_time_add(FX_LOCAL fx_u32 *ms, FX_LOCAL fx_u32 *ns, fx_u32 micros);

/* core/flow.c */
void fx_flow_start(FX_LOCAL fx_u32 *f, fx_u32 now_ms, fx_u32 now_ns);
fx_u32 fx_flow_check(FX_LOCAL const fx_u32 *block);
fx_u32 fx_flow_install(
    FX_LOCAL fx_u32 *f, FX_LOCAL const fx_u32 *block, fx_u32 generation, fx_u32 now_ms, fx_u32 now_ns);
void fx_flow_limits(FX_LOCAL fx_u32 *f, fx_u32 cwnd, fx_u32 pacing_rate);
int fx_flow_bump(FX_LOCAL fx_u32 *f, fx_u32 sequence, fx_u32 sent, fx_u32 freed);

/* core/rx.c */
void fx_receive(FX_LOCAL fx_u32 *f, FX_LOCAL const fx_u32 *p, fx_u32 now_ms, fx_u32 now_ns, FX_LOCAL fx_u32 *out);

/* core/tx.c */
void fx_send_next(FX_LOCAL const fx_u32 *f, fx_u32 super_frame, FX_LOCAL fx_u32 *out);
void fx_sent(FX_LOCAL fx_u32 *f, FX_LOCAL const fx_u32 *segment, fx_u32 now_ms, fx_u32 now_ns);
fx_u32 fx_data_header(
    FX_LOCAL fx_u32 *f, FX_LOCAL const fx_u32 *segment, fx_u32 capacity, fx_u32 now_ms, FX_LOCAL const fx_u32 *mac,
    FX_LOCAL fx_u32 *header);
fx_u32 fx_ack_header(
    FX_LOCAL fx_u32 *f, fx_u32 capacity, fx_u32 now_ms, FX_LOCAL const fx_u32 *mac, FX_LOCAL fx_u32 *header);
fx_u32 fx_early_ack_header(
    FX_LOCAL const fx_u32 *f, FX_LOCAL const fx_u32 *early, fx_u32 now_ms, FX_LOCAL const fx_u32 *mac,
    FX_LOCAL fx_u32 *header);

/* core/ack.c */
fx_u32 fx_ack_due(FX_LOCAL const fx_u32 *f);
int fx_window_update_due(FX_LOCAL const fx_u32 *f, fx_u32 capacity);
fx_u32 fx_advertise(FX_LOCAL fx_u32 *f, fx_u32 capacity);
void fx_ack_heard(FX_LOCAL fx_u32 *f, fx_u32 pushed);
void fx_ack_sent(FX_LOCAL fx_u32 *f, fx_u32 with_data);

/* core/pace.c */
int fx_paced(FX_LOCAL const fx_u32 *f, fx_u32 now_ms, fx_u32 now_ns);
fx_u32 fx_burst(fx_u32 rate);
void fx_pace_sent(FX_LOCAL fx_u32 *f, fx_u32 now_ms, fx_u32 now_ns, fx_u32 bytes);

/* core/emit.c */
fx_u32 fx_emit(
    FX_LOCAL const fx_u32 *f, fx_u32 seq, fx_u32 ack, fx_u32 flags, fx_u32 window, fx_u32 ecn, fx_u32 now_ms, fx_u32 payload,
    FX_LOCAL const fx_u32 *mac, FX_LOCAL fx_u32 *header);
fx_u32 fx_fold(fx_u32 sum);
fx_u32 fx_sum_add(fx_u32 sum, fx_u32 word);
fx_u32 fx_header_sum(FX_LOCAL const fx_u32 *header, fx_u32 length);
void fx_finish_checksum(FX_LOCAL fx_u32 *header, fx_u32 length, fx_u32 sum);

/* core/parse.c */
fx_u32 fx_parse(FX_LOCAL const fx_u32 *w, fx_u32 peek, fx_u32 length, FX_LOCAL fx_u32 *p, FX_LOCAL fx_u32 *sums);

/* core/whose.c */
int fx_whose(FX_LOCAL const fx_u32 *w, fx_u32 present, FX_LOCAL fx_u32 *p);

/* core/hash.c */
fx_u32 fx_flow_hash(FX_LOCAL const fx_u32 *tuple, fx_u32 ipv6, fx_u32 key_low, fx_u32 key_high);
fx_u32 fx_toeplitz(FX_LOCAL const fx_u32 *p, FX_LOCAL const fx_u32 *key);

#endif
