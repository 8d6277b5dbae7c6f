/* What all of the firmware shares: words, sequence space, bytes of headers held in words. */
#ifndef FLEXTCP_FX_H
#define FLEXTCP_FX_H

#include "flextcp_abi.h"

#if defined(__NFP_LANG_MICROC)
#include "hal_nfp_types.h"
#else
typedef unsigned int fx_u32;
typedef int fx_i32;
/* Pointers to words in local memory, and to words in the card's memories. A host has one memory; clang with FX_LINT sees two,
 * and refuses to mix them up. */
#define FX_LOCAL
#if defined(FX_LINT)
#define FX_MEM __attribute__((address_space(1)))
#else
#define FX_MEM
#endif
#endif

/* A fault planted on purpose: the differential test must notice each of them. */
#if !defined(FX_FAULT)
#define FX_FAULT 0
#endif

/* Sequence space (RFC 9293, section 3.4): the sign of the distance. */
#define fx_before(a, b) ((fx_i32)((a) - (b)) < 0)
#define fx_after(a, b) fx_before(b, a)
/* Distance from `earlier` to `a`, zero when `a` is before it. */
#define fx_since(a, earlier) (fx_before(a, earlier) ? 0u : (a) - (earlier))

#define fx_min(a, b) ((a) < (b) ? (a) : (b))
#define fx_max(a, b) ((a) > (b) ? (a) : (b))

/* Reads from header bytes that are held as words in network order; `offset` is in bytes and even. */
#define fx_half(words, offset) \
    (((words)[(offset) >> 2] >> (((offset) & 2u) ? 0u : 16u)) & 0xffffu)
#define fx_word(words, offset) \
    (((offset) & 2u) ? ((words)[(offset) >> 2] << 16) | ((words)[((offset) >> 2) + 1u] >> 16) : (words)[(offset) >> 2])
/* Any byte. */
#define fx_byte(words, offset) (((words)[(offset) >> 2] >> (24u - (((offset) & 3u) << 3))) & 0xffu)

#endif
