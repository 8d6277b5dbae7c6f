/* What the engines need of the hardware: memories, DMA, packets, rings between engines, a clock. Two implementations:
 * hal_host.c (an emulated card) and hal_nfp.c (the card; never compiled by the vendor's tools).
 *
 * DMA is split-phase: an engine starts one with a tag, and is told the tag when it is done. No call waits.
 */
#ifndef FLEXTCP_HAL_H
#define FLEXTCP_HAL_H

#include "fx.h"

struct fx_nic;

/* Registers of the BAR. A read sees what the host stored before it stored what the read returns. */
fx_u32 hal_register(struct fx_nic *nic, fx_u32 at);
void hal_set_register(struct fx_nic *nic, fx_u32 at, fx_u32 value);
/* Adds to a 64-bit counter, low word at `at`. */
void hal_count(struct fx_nic *nic, fx_u32 at, fx_u32 n);

/* Moves words between a memory and local memory. */
void hal_load(FX_LOCAL fx_u32 *to, FX_MEM const fx_u32 *from, fx_u32 words);
void hal_store(FX_MEM fx_u32 *to, FX_LOCAL const fx_u32 *from, fx_u32 words);

/* The card's clock, before the host's offset. */
void hal_clock(struct fx_nic *nic, FX_LOCAL fx_u32 *ms, FX_LOCAL fx_u32 *ns);

/* DMA that may be started now, and that is under way. */
fx_u32 hal_dma_room(struct fx_nic *nic);
fx_u32 hal_dma_pending(struct fx_nic *nic);
/* Start a DMA; the caller saw that there is room. Words are little-endian in host memory and numbers in the card's: the DMA
 * turns them. Bytes of packets are bytes. */
void hal_dma_get_words(
    struct fx_nic *nic, fx_u32 engine, fx_u32 tag, fx_u32 low, fx_u32 high, FX_MEM fx_u32 *to, fx_u32 words);
void hal_dma_put_words(
    struct fx_nic *nic, fx_u32 engine, fx_u32 tag, fx_u32 low, fx_u32 high, FX_MEM const fx_u32 *from, fx_u32 words);
void hal_dma_to_packet(
    struct fx_nic *nic, fx_u32 engine, fx_u32 tag, fx_u32 low, fx_u32 high, fx_u32 packet, fx_u32 offset, fx_u32 length);
void hal_dma_from_packet(
    struct fx_nic *nic, fx_u32 engine, fx_u32 tag, fx_u32 low, fx_u32 high, fx_u32 packet, fx_u32 offset, fx_u32 length);
/* The next DMA of this engine that is done: 0 when there is none. */
int hal_dma_done(struct fx_nic *nic, fx_u32 engine, FX_LOCAL fx_u32 *tag, FX_LOCAL fx_u32 *failed);

/* Packets. `sum` is what the wire knows of the checksums, as fx_parse takes it. */
int hal_packet_receive(struct fx_nic *nic, FX_LOCAL fx_u32 *packet, FX_LOCAL fx_u32 *length, FX_LOCAL fx_u32 *sum);
int hal_packet_alloc(struct fx_nic *nic, FX_LOCAL fx_u32 *packet);
void hal_packet_free(struct fx_nic *nic, fx_u32 packet);
/* Bytes of a packet's memory. */
fx_u32 hal_packet_size(struct fx_nic *nic);
/* Header words in network order, from the start of the packet. Words beyond its end read as anything. */
void hal_packet_read(struct fx_nic *nic, fx_u32 packet, FX_LOCAL fx_u32 *to, fx_u32 words);
void hal_packet_write(struct fx_nic *nic, fx_u32 packet, FX_LOCAL const fx_u32 *from, fx_u32 bytes);
/* The checksum's sum of bytes of a packet; `offset` is even. */
fx_u32 hal_packet_sum(struct fx_nic *nic, fx_u32 packet, fx_u32 offset, fx_u32 length);
/* Sends a packet and frees it; nonzero when the wire is full, the packet as it was. */
int hal_packet_send(struct fx_nic *nic, fx_u32 packet, fx_u32 length, fx_u32 header, fx_u32 partial, fx_u32 mss);
/* Gives a packet to the host's netdev. */
void hal_packet_netdev(struct fx_nic *nic, fx_u32 packet, fx_u32 length);

/* Rings of words between engines. `put` always finds room: rings hold as many as there are items. */
void hal_ring_put(struct fx_nic *nic, fx_u32 ring, fx_u32 value);
int hal_ring_get(struct fx_nic *nic, fx_u32 ring, FX_LOCAL fx_u32 *value);
fx_u32 hal_ring_count(struct fx_nic *nic, fx_u32 ring);

/* Exclusion between engines. */
void hal_lock(struct fx_nic *nic, fx_u32 lock);
void hal_unlock(struct fx_nic *nic, fx_u32 lock);

void hal_interrupt(struct fx_nic *nic, fx_u32 queue);

#endif
