/* The card, emulated on a host: what hal.h needs of hardware, given by the emulator through fx_host_ops.
 *
 * A card is one struct fx_nic and is driven by one thread: the emulator hands it frames, lets its engines take steps in any
 * order it likes, carries out the DMA that they ask for when it likes and in the order it likes, and says so.
 */
#ifndef FLEXTCP_HAL_HOST_H
#define FLEXTCP_HAL_HOST_H

#include "fx.h"

struct fx_nic;

/* One DMA. The bytes at `local` are the card's: source or target, valid until fx_host_dma_done. */
struct fx_host_dma {
    fx_u32 id;
    fx_u32 to_host;      /* 1: local to host memory, in ascending order of addresses; 0: host memory to local */
    fx_u32 address_low;
    fx_u32 address_high;
    unsigned char *local;
    fx_u32 length;
};

/* What the emulator does for the card. */
struct fx_host_ops {
    void *context;
    /* Starts a DMA. Nonzero: not now, the card asks again. It is carried out before fx_host_dma_done, never after. */
    int (*dma)(void *context, const struct fx_host_dma *dma);
    /* Sends a frame: headers of `header` bytes and payload. With `partial` the TCP checksum field holds the pseudo-header's
     * sum. `mss` is what the wire port cuts the payload into, 0 for not at all. Nonzero: the wire is full, later. */
    int (*transmit)(void *context, const unsigned char *frame, fx_u32 length, fx_u32 header, fx_u32 partial, fx_u32 mss);
    /* Raises a queue's interrupt. */
    void (*interrupt)(void *context, fx_u32 queue);
    /* A frame that is not ours. */
    void (*netdev)(void *context, const unsigned char *frame, fx_u32 length);
};

/* What a card is built with. All but the last two are shown in registers. */
struct fx_host_config {
    fx_u32 queues;
    fx_u32 flows_per_queue; /* a power of two */
    fx_u32 groups;        /* a power of two */
    fx_u32 mtu;
    fx_u32 mac_high;
    fx_u32 mac_low;
    fx_u32 packets;       /* packet buffers */
    fx_u32 packet_bytes;  /* bytes of each: the longest frame */
};

/* A packet's checksum, as far as the wire knows. */
#define FX_HOST_SUM_TRUSTED 0u
#define FX_HOST_SUM_MAYBE_PARTIAL 1u
#define FX_HOST_SUM_UNVERIFIED 2u

/* Words that the BAR must have for such a card. */
fx_u32 fx_host_bar_words(const struct fx_host_config *config);
/* A card whose BAR is `bar`, zeroed memory that outlives it. It starts as after power-on: not ready before a reset. 0: no
 * memory, or an impossible configuration. */
struct fx_nic *fx_host_new(volatile fx_u32 *bar, const struct fx_host_config *config, const struct fx_host_ops *ops);
void fx_host_free(struct fx_nic *nic);
/* What the card's clock reads from now on, before CLOCK_SET's offset. */
void fx_host_clock(struct fx_nic *nic, fx_u32 ms, fx_u32 ns);
/* A frame from the wire. Nonzero: no packet buffer, the frame is lost unless it comes again. */
int fx_host_receive(struct fx_nic *nic, const unsigned char *frame, fx_u32 length, fx_u32 checksum);
/* Engines, and one step of one of them: nonzero when it did something. When none did, the card waits for a DMA, a frame, a
 * doorbell or its timer. */
fx_u32 fx_host_engines(const struct fx_nic *nic);
int fx_host_step(struct fx_nic *nic, fx_u32 engine);
/* Brings REG_TIMER_* up to date: nonzero when there is a timer. For when no engine has work. */
int fx_host_timer(struct fx_nic *nic);
/* A DMA was carried out; nonzero `failed`: it was not, the address is no memory. */
void fx_host_dma_done(struct fx_nic *nic, fx_u32 id, fx_u32 failed);

#endif
