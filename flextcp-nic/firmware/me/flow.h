/* Between the parts of the flow engine: `f` is the public part of the flow's entry in local memory, `e` the entry itself. */
#ifndef FLEXTCP_FLOW_H
#define FLEXTCP_FLOW_H

#include "nic.h"

/* What became of an item. */
#define FX_TAKEN 0u
#define FX_LATER 1u   /* it needs something that is not there now */
#define FX_BARRIER 2u /* taken, and nothing may be taken after it in this round */
#define FX_WAIT 3u    /* what is under way must be done before it */

#define fx_queue_of(nic, flow) ((flow) >> (nic)->flows_shift)

/* me/segment.c */
fx_u32 fx_take_segment(
    struct fx_nic *nic, fx_u32 engine, fx_u32 flow, FX_LOCAL fx_u32 *f, FX_MEM fx_u32 *e, fx_u32 item);
void fx_landed(struct fx_nic *nic, fx_u32 flow, FX_LOCAL fx_u32 *f, FX_MEM fx_u32 *e);

/* me/request.c */
int fx_finish_install(struct fx_nic *nic, fx_u32 group, fx_u32 flow, FX_LOCAL fx_u32 *f, FX_MEM fx_u32 *e);
fx_u32 fx_take_descriptor(
    struct fx_nic *nic, fx_u32 group, fx_u32 flow, FX_LOCAL fx_u32 *f, FX_MEM fx_u32 *e, fx_u32 item);

/* me/tell.c */
void fx_give_back(FX_LOCAL fx_u32 *f, FX_MEM fx_u32 *e, fx_u32 item, fx_u32 reason);
void fx_punt(
    struct fx_nic *nic, fx_u32 flow, FX_LOCAL fx_u32 *f, FX_MEM fx_u32 *e, fx_u32 item, fx_u32 reason);
void fx_forward(
    struct fx_nic *nic, fx_u32 engine, fx_u32 queue, fx_u32 item, fx_u32 flow, fx_u32 generation, fx_u32 reason);
void fx_tail_words(FX_LOCAL const fx_u32 *f, FX_MEM fx_u32 *words);
int fx_notify(struct fx_nic *nic, fx_u32 group, fx_u32 flow, FX_LOCAL fx_u32 *f, FX_MEM fx_u32 *e);
int fx_hand_back(struct fx_nic *nic, fx_u32 group, fx_u32 flow, FX_LOCAL fx_u32 *f, FX_MEM fx_u32 *e);

#endif
