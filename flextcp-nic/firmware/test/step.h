/* One step of the differential test: the core's functions as they follow each other in an engine. */
#ifndef FLEXTCP_STEP_H
#define FLEXTCP_STEP_H

#include "core.h"

/* Operations, and their arguments; a time is ms, ns. */
#define STEP_INSTALL 1u /* block (64 words), generation, time */
#define STEP_RECEIVE 2u /* parsed segment, time */
#define STEP_SEND 3u    /* largest payload of a super-frame, sum of the payload, 1: complete checksum, time */
#define STEP_ACK 4u     /* 1: even if none is due, time */
#define STEP_BUMP 5u    /* sequence, sent, freed */
#define STEP_LIMITS 6u  /* cwnd, pacing rate */
#define STEP_PARSE 7u   /* length, bytes in words, checksum knowledge, then the words */

#define STEP_ARGUMENTS 72u
/* Results: what the functions returned, then headers. */
#define STEP_RESULTS 40u
#define STEP_HEADER 12u

/* Takes the step and fills all of `out`. `args` has STEP_ARGUMENTS words, those not given 0. */
void fx_step(fx_u32 *f, fx_u32 operation, const fx_u32 *args, fx_u32 *out);
/* Clears the words of an entry that mean nothing now. */
void fx_normalize(fx_u32 *f);

#endif
