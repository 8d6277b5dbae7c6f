/* The card's shared state, all of it words, and the engines that work on it.
 *
 * | engine | work |
 * |---|---|
 * | manage | reset, clock, queues, arming |
 * | context | descriptors of all queues, raw frames |
 * | classify | frames from the wire: parse, find the flow, hand it on |
 * | flow, one for each group | everything of a flow, in order |
 *
 * A flow belongs to group `index % groups`, so that one engine alone changes its entry. Engines pass each other items.
 */
#ifndef FLEXTCP_NIC_H
#define FLEXTCP_NIC_H

#include "core.h"
#include "hal.h"

/* Engines. */
#define FX_ENGINE_MANAGE 0u
#define FX_ENGINE_CONTEXT 1u
#define FX_ENGINE_CLASSIFY 2u
#define FX_ENGINE_FLOW 3u

/* Rings between engines: free items, then the work of each group. */
#define FX_RING_FREE 0u
#define FX_RING_WORK 1u
#define FX_GROUPS_MAX 16u
/* Locks: the flow table's index, then each queue's events. */
#define FX_LOCK_TABLE 0u
#define FX_LOCK_QUEUE 1u

/* An item: something under way. A frame, a descriptor, an event to be told, a packet to be sent. Lists are linked by
 * ITEM_NEXT, where 0 ends them: item 0 is not used. */
#define ITEM_NEXT 0u
#define ITEM_KIND 1u
#define ITEM_FLOW 2u
#define ITEM_STATE 3u   /* DMA outstanding in the low byte; ITEM_* flags */
#define ITEM_PACKET 4u  /* packet + 1, 0 for none */
#define ITEM_LENGTH 5u  /* of the packet */
#define ITEM_HEADER 6u  /* of that, headers */
#define ITEM_QUEUE 7u
#define ITEM_POSITION 8u /* of the event */
#define ITEM_MSS 9u
#define ITEM_BODY 12u   /* parsed segment, descriptor, or event */
#define ITEM_TAIL 32u   /* the last words of a flow block: BLOCK_GENERATION .. BLOCK_OUTSTANDING_NS */
#define ITEM_WORDS 40u

#define ITEM_SEGMENT 1u
#define ITEM_DESCRIPTOR 2u
#define ITEM_EVENT 3u
#define ITEM_SEND 4u

/* In ITEM_STATE. */
#define ITEM_TELLING 0x100u  /* the event itself is under way */
#define ITEM_WAITED 0x200u   /* the flow waits for it */
#define ITEM_RETURNS 0x400u  /* the flow's block goes first */
#define ITEM_READ 0x800u     /* a raw frame was read */

/* A flow entry's private words. */
#define FEP_PHASE 64u
#define FEP_PENDING 65u  /* DMA outstanding */
#define FEP_WANT 66u
#define FEP_WAIT_HEAD 67u /* items that wait for the flow */
#define FEP_WAIT_TAIL 68u
#define FEP_HELD_HEAD 69u /* items whose payload is on its way */
#define FEP_OUT_HEAD 70u  /* packets to send, in order */
#define FEP_OUT_TAIL 71u
#define FEP_READY_NEXT 72u
#define FEP_PUNT_ITEM 73u /* the frame that the flow goes back with */
#define FEP_PUNT_REASON 74u
#define FEP_ACK_MS 75u    /* deadline of the delayed ACK */
#define FEP_ACK_NS 76u
#define FEP_WHEEL_NEXT 77u
#define FEP_WHEEL_PREV 78u
#define FEP_WHEEL_MS 79u
#define FEP_WHEEL_NS 80u
#define FEP_WHEEL_SLOT 81u
#define FEP_EARLY 82u /* what fx_receive said of it: RX_FLAGS, RX_EARLY_ACK, RX_EARLY_WINDOW */
#define FEP_WORDS 85u

/* Phases. */
#define PHASE_IDLE 0u
#define PHASE_LAND 1u  /* payload is on its way to the receive ring */
#define PHASE_TELL 2u  /* a notification is on its way */
#define PHASE_READ 3u  /* payload is on its way from the send ring */
#define PHASE_FETCH 4u /* the flow block of an install is on its way */
#define PHASE_RETURN 5u /* all is sent that there was, the flow may go */

/* FEP_WANT. */
#define WANT_SEND 0x001u
#define WANT_ACK 0x002u
#define WANT_TELL 0x004u    /* there is something to notify */
#define WANT_RETURN 0x008u  /* the flow goes back to the host */
#define WANT_READY 0x010u   /* it is on the ready list */
#define WANT_TIMER 0x020u   /* it is on the wheel */
#define WANT_DEADLINE 0x040u /* a delayed ACK has its deadline */
#define WANT_EARLY 0x080u   /* an early ACK is to be sent */
#define WANT_FAILED 0x100u  /* a DMA failed */
#define WANT_HELD 0x200u    /* its ACK waits for the host's next bump */

/* A queue's words beside its registers. */
#define QS_ENABLED 0u
#define QS_TAKEN 1u        /* descriptors taken */
#define QS_FETCHED 2u      /* descriptors in QS_FETCH */
#define QS_USED 3u         /* of them carried out */
#define QS_FETCHING 4u
#define QS_EVENT_TAIL 5u   /* events whose place is given out */
#define QS_EVENT_TOLD 6u   /* one more than the highest that is in host memory */
#define QS_ARMED 7u
#define QS_ARM_SEEN 8u
#define QS_SEND_HEAD 9u    /* raw frames, in order */
#define QS_SEND_TAIL 10u
#define QS_SENT 11u        /* raw frames sent */
#define QS_CONTROL_BUSY 12u
#define QS_CONTROL 13u     /* what is being written to the control block: 2 words */
#define QS_FETCH 16u
#define QS_FETCH_MAX 8u
#define QS_WORDS (QS_FETCH + QS_FETCH_MAX * FX_DESCRIPTOR_WORDS)

/* A group's words. */
#define GS_READY_HEAD 0u
#define GS_READY_TAIL 1u
#define GS_STARVED 2u      /* flows that wait for an event, an item, a packet: list by FEP_READY_NEXT */
#define GS_FETCHING 3u     /* flow + 1 whose block is in GS_BLOCK */
#define GS_STARVED_TAIL 4u
#define GS_TICK 5u         /* the wheel's hand */
#define GS_BLOCK 8u
#define GS_OCCUPIED 72u    /* one bit for each slot */
#define GS_SLOTS 136u
#define GS_SLOT_COUNT 2048u
#define GS_WORDS (GS_SLOTS + GS_SLOT_COUNT)

/* The index of the flow table: buckets of eight flows + 1; a flow is in one of two. */
#define FX_BUCKET 8u

/* An owned address and port: how, port and family, four words of address. */
#define LISTENER_WORDS 6u
#define LISTENER_LISTENS 1u
#define LISTENER_CONNECTS 2u /* only connections have it: what comes there is not filtered */

/* Tags of DMA: whom it is for. */
#define TAG_FLOW 0x10000000u
#define TAG_ITEM 0x20000000u
#define TAG_FETCH 0x30000000u   /* a queue's descriptors */
#define TAG_CONTROL 0x40000000u /* a queue's control block */
#define TAG_KIND 0xf0000000u

/* What an engine knows of the card. All that changes and that engines share is in the memories and registers. */
struct fx_nic {
    FX_MEM fx_u32 *entries;
    FX_MEM fx_u32 *buckets;
    FX_MEM fx_u32 *items;
    FX_MEM fx_u32 *queue_state;
    FX_MEM fx_u32 *group_state;
    FX_MEM fx_u32 *listeners;
    FX_MEM fx_u32 *retry;  /* for each engine, the items that wait for room for a DMA */
    fx_u32 queues;
    fx_u32 flows_per_queue; /* a power of two, and which */
    fx_u32 flows_shift;
    fx_u32 groups;
    fx_u32 item_count;
    fx_u32 bucket_mask;
    fx_u32 listening;      /* owned addresses and ports; the context engine's */
    void *hal;
};

#define fx_entry(nic, flow) ((nic)->entries + (flow) * FX_FLOW_ENTRY_WORDS)
#define fx_item(nic, item) ((nic)->items + (item) * ITEM_WORDS)
#define fx_queue(nic, queue) ((nic)->queue_state + (queue) * QS_WORDS)
#define fx_group(nic, group) ((nic)->group_state + (group) * GS_WORDS)
#define fx_queue_register(queue, word) (FX_REG_QUEUE_BASE + (queue) * FX_QUEUE_STRIDE + (word))
#define fx_counter(queue, counter) (FX_REG_COUNTERS + (queue) * FX_COUNT_STRIDE + ((counter) << 1))
#define fx_add(nic, queue, counter, n) hal_count(nic, fx_counter(queue, FX_COUNT_##counter), n)

/* me/manage.c */
void fx_boot(struct fx_nic *nic, fx_u32 mtu, fx_u32 mac_high, fx_u32 mac_low, fx_u32 flow_table, fx_u32 capabilities);
int fx_manage_step(struct fx_nic *nic);
int fx_running(struct fx_nic *nic);
void fx_fail(struct fx_nic *nic, fx_u32 failure, fx_u32 detail);
int fx_region_has(struct fx_nic *nic, fx_u32 low, fx_u32 high, fx_u32 length);
void fx_now(struct fx_nic *nic, FX_LOCAL fx_u32 *ms, FX_LOCAL fx_u32 *ns);

/* me/event.c */
/* Frames and descriptors leave the last items to what empties the card. */
#define ITEMS_FOR_DESCRIPTORS 3u
#define ITEMS_FOR_FRAMES 2u
fx_u32 fx_item_new(struct fx_nic *nic, fx_u32 kind);
void fx_item_free(struct fx_nic *nic, fx_u32 item);
int fx_event_reserve(struct fx_nic *nic, fx_u32 queue, FX_LOCAL fx_u32 *position);
void fx_event_begin(
    struct fx_nic *nic, fx_u32 item, fx_u32 queue, fx_u32 position, fx_u32 kind, fx_u32 flow, fx_u32 generation);
int fx_event_frame(
    struct fx_nic *nic, fx_u32 item, fx_u32 queue, fx_u32 flow, fx_u32 generation, fx_u32 reason, fx_u32 flags);
void fx_event_start(struct fx_nic *nic, fx_u32 engine, fx_u32 item);
fx_u32 fx_event_done(struct fx_nic *nic, fx_u32 engine, fx_u32 item);
int fx_event_retry(struct fx_nic *nic, fx_u32 engine);
void fx_complete(
    struct fx_nic *nic, fx_u32 engine, fx_u32 item, fx_u32 queue, fx_u32 position, fx_u32 result, fx_u32 ring_position,
    fx_u32 state);

/* me/table.c */
fx_u32 fx_table_find(struct fx_nic *nic, FX_LOCAL const fx_u32 *tuple, fx_u32 ipv6);
fx_u32 fx_table_insert(struct fx_nic *nic, FX_LOCAL const fx_u32 *tuple, fx_u32 ipv6, fx_u32 flow);
void fx_table_remove(struct fx_nic *nic, FX_LOCAL const fx_u32 *tuple, fx_u32 ipv6, fx_u32 flow);
fx_u32 fx_owned(struct fx_nic *nic, FX_LOCAL const fx_u32 *packet);
fx_u32 fx_listen(struct fx_nic *nic, FX_LOCAL const fx_u32 *address, fx_u32 port, fx_u32 as);

/* me/filter.c */
int fx_admits(struct fx_nic *nic, FX_LOCAL const fx_u32 *packet);

/* me/context.c, me/classify.c */
int fx_context_step(struct fx_nic *nic);
int fx_classify_step(struct fx_nic *nic);

/* me/flow.c and its parts (flow.h): `f` is the public part of the flow's entry in local memory, `e` the entry itself. */
int fx_flow_step(struct fx_nic *nic, fx_u32 group);
void fx_list_put(struct fx_nic *nic, FX_MEM fx_u32 *e, fx_u32 head, fx_u32 tail, fx_u32 item);
fx_u32 fx_list_take(struct fx_nic *nic, FX_MEM fx_u32 *e, fx_u32 head, fx_u32 tail);

/* me/send.c */
#define FX_SEND_DONE 0u
#define FX_SEND_MORE 1u
#define FX_SEND_STARVED 2u
#define FX_SEND_STALLED 3u
fx_u32 fx_flow_transmit(struct fx_nic *nic, fx_u32 group, fx_u32 flow, FX_LOCAL fx_u32 *f, FX_MEM fx_u32 *e);
int fx_flow_flush(struct fx_nic *nic, fx_u32 flow, FX_MEM fx_u32 *e);

/* me/wheel.c */
void fx_timer_set(struct fx_nic *nic, fx_u32 group, fx_u32 flow, fx_u32 ms, fx_u32 ns);
void fx_timer_clear(struct fx_nic *nic, fx_u32 group, fx_u32 flow);
fx_u32 fx_timer_due(struct fx_nic *nic, fx_u32 group, fx_u32 now_ms, fx_u32 now_ns);
int fx_timer_next(struct fx_nic *nic, FX_LOCAL fx_u32 *ms, FX_LOCAL fx_u32 *ns);

#endif
