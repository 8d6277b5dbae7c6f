/* What words and pointers are on the card. NEVER COMPILED by the vendor's tools: written from public descriptions of Micro-C.
 *
 * Entries are worked on in local memory, which can be indexed at run time, unlike transfer registers; everything that engines
 * share lies in external memory, reached through 40-bit pointers.
 */
#ifndef FLEXTCP_HAL_NFP_TYPES_H
#define FLEXTCP_HAL_NFP_TYPES_H

#if !defined(__NFP_LANG_MICROC)
#error "for the card's compiler only"
#endif

typedef unsigned int fx_u32;
typedef int fx_i32;
#define FX_LOCAL __lmem
#define FX_MEM __mem40

#endif
