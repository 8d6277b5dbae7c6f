/* What a flow has to send: data, at its window, its congestion window and its pace, and the ACKs that no data carried. */
#include "nic.h"

static fx_u32 capacity(FX_LOCAL const fx_u32 *f)
{
    return fx_max(f[FX_FE_RECV_SIZE], f[FX_FS_RCV_FREE]);
}

static void own_mac(struct fx_nic *nic, FX_LOCAL fx_u32 *mac)
{
    mac[0] = hal_register(nic, FX_REG_MAC_HIGH);
    mac[1] = hal_register(nic, FX_REG_MAC_LOW);
}

static fx_u32 queue_of(struct fx_nic *nic, fx_u32 flow)
{
    return flow >> nic->flows_shift;
}

/* An item with a packet for the flow's output, 0 when one of them is not to be had. */
static fx_u32 new_packet(struct fx_nic *nic, fx_u32 flow)
{
    fx_u32 item = fx_item_new(nic, ITEM_SEND);
    fx_u32 packet;
    if (item == 0u) {
        return 0u;
    }
    if (!hal_packet_alloc(nic, &packet)) {
        fx_item_free(nic, item);
        return 0u;
    }
    fx_item(nic, item)[ITEM_PACKET] = packet + 1u;
    fx_item(nic, item)[ITEM_FLOW] = flow;
    return item;
}

static void put_out(struct fx_nic *nic, FX_MEM fx_u32 *e, fx_u32 item, FX_LOCAL fx_u32 *header, fx_u32 len, fx_u32 payload)
{
    FX_MEM fx_u32 *words = fx_item(nic, item);
    words[ITEM_HEADER] = len;
    words[ITEM_LENGTH] = len + payload;
    hal_packet_write(nic, words[ITEM_PACKET] - 1u, header, len);
    fx_list_put(nic, e, FEP_OUT_HEAD, FEP_OUT_TAIL, item);
}

/* Starts the reads of a segment's payload, in two parts when it wraps around the ring. */
static void read_payload(
    struct fx_nic *nic, fx_u32 engine, fx_u32 flow, FX_LOCAL const fx_u32 *f, FX_MEM fx_u32 *e, FX_LOCAL const fx_u32 *segment,
    fx_u32 item, fx_u32 header)
{
    fx_u32 packet = fx_item(nic, item)[ITEM_PACKET] - 1u;
    fx_u32 size = f[FX_FE_SEND_SIZE];
    fx_u32 at = (f[FX_FE_SEND_POSITION] + segment[FX_TX_OFFSET]) & (size - 1u);
    fx_u32 first = size - at;
    fx_u32 low = f[FX_FE_SEND_LOW] + at;
    fx_u32 high = f[FX_FE_SEND_HIGH] + (low < at ? 1u : 0u);
    first = fx_min(first, segment[FX_TX_LENGTH]);
    hal_dma_to_packet(nic, engine, TAG_FLOW | flow, low, high, packet, header, first);
    e[FEP_PENDING] += 1u;
    if (first < segment[FX_TX_LENGTH]) {
        hal_dma_to_packet(
            nic, engine, TAG_FLOW | flow, f[FX_FE_SEND_LOW], f[FX_FE_SEND_HIGH], packet, header + first,
            segment[FX_TX_LENGTH] - first);
        e[FEP_PENDING] += 1u;
    }
}

static void send_early_ack(
    struct fx_nic *nic, fx_u32 flow, FX_LOCAL const fx_u32 *f, FX_MEM fx_u32 *e, FX_LOCAL const fx_u32 *mac, fx_u32 now_ms)
{
    fx_u32 header[FX_HEADER_WORDS];
    fx_u32 early[FX_RX_WORDS];
    fx_u32 item = new_packet(nic, flow);
    e[FEP_WANT] &= ~WANT_EARLY;
    /* Lost like one on the wire when there is no packet: the next ACK covers it. */
    if (item != 0u) {
        early[FX_RX_FLAGS] = e[FEP_EARLY];
        early[FX_RX_EARLY_ACK] = e[FEP_EARLY + 1u];
        early[FX_RX_EARLY_WINDOW] = e[FEP_EARLY + 2u];
        put_out(nic, e, item, header, fx_early_ack_header(f, early, now_ms, mac, header), 0u);
        fx_add(nic, queue_of(nic, flow), FAST_ACKS_OUT, 1u);
    }
}

static void deadline_over(FX_MEM fx_u32 *e)
{
    e[FEP_WANT] &= ~WANT_DEADLINE;
}

static void start_deadline(
    struct fx_nic *nic, fx_u32 group, fx_u32 flow, FX_MEM fx_u32 *e, fx_u32 now_ms, fx_u32 now_ns)
{
    fx_u32 delay = hal_register(nic, FX_REG_DELAYED_ACK);
    if ((e[FEP_WANT] & WANT_DEADLINE) == 0u) {
        fx_time_add(&now_ms, &now_ns, delay != 0u ? delay : FX_DELAYED_ACK_MICROS);
        e[FEP_ACK_MS] = now_ms;
        e[FEP_ACK_NS] = now_ns;
        e[FEP_WANT] |= WANT_DEADLINE;
        fx_timer_set(nic, group, flow, now_ms, now_ns);
    }
}

/* Sends the ACK that is due, or starts its timer. */
static fx_u32 acknowledge(
    struct fx_nic *nic, fx_u32 group, fx_u32 flow, FX_LOCAL fx_u32 *f, FX_MEM fx_u32 *e, FX_LOCAL const fx_u32 *mac,
    fx_u32 now_ms, fx_u32 now_ns)
{
    fx_u32 header[FX_HEADER_WORDS];
    fx_u32 due = fx_ack_due(f);
    fx_u32 item;
    if (due != FX_DUE_NOW && !fx_window_update_due(f, capacity(f))) {
        if (due == FX_DUE_DELAYED) {
            start_deadline(nic, group, flow, e, now_ms, now_ns);
        }
        e[FEP_WANT] &= ~WANT_ACK;
        return FX_SEND_DONE;
    }
    item = new_packet(nic, flow);
    if (item == 0u) {
        return FX_SEND_STARVED;
    }
    put_out(nic, e, item, header, fx_ack_header(f, capacity(f), now_ms, mac, header), 0u);
    fx_ack_sent(f, 0u);
    deadline_over(e);
    e[FEP_WANT] &= ~WANT_ACK;
    fx_add(nic, queue_of(nic, flow), FAST_ACKS_OUT, 1u);
    return FX_SEND_DONE;
}

/* One segment: FX_SEND_MORE when it is under way, else nothing (more) can be sent now. */
static fx_u32 send_segment(
    struct fx_nic *nic, fx_u32 group, fx_u32 flow, FX_LOCAL fx_u32 *f, FX_MEM fx_u32 *e, FX_LOCAL const fx_u32 *mac,
    FX_LOCAL fx_u32 *segment)
{
    fx_u32 header[FX_HEADER_WORDS];
    fx_u32 super_frame = hal_register(nic, FX_REG_SUPER_FRAME);
    fx_u32 room = hal_packet_size(nic) - FX_HEADER_WORDS * 4u;
    fx_u32 now_ms;
    fx_u32 now_ns;
    fx_u32 item;
    fx_u32 len;
    if ((hal_register(nic, FX_REG_CONFIG) & FX_CONFIG_TX_CHECKSUM) == 0u) {
        /* Who cuts segments completes their checksums too. */
        super_frame = 0u;
    }
    super_frame = fx_min(super_frame, room);
    fx_now(nic, &now_ms, &now_ns);
    fx_send_next(f, super_frame, segment);
    if (segment[FX_TX_WAIT] != FX_WAIT_NONE) {
        if (segment[FX_TX_WAIT] == FX_WAIT_CWND) {
            f[FX_FE_DELTA_FLAGS] |= FX_EVFLAG_CWND_LIMITED;
        }
        e[FEP_WANT] &= ~WANT_SEND;
        return segment[FX_TX_WAIT] == FX_WAIT_STALLED ? FX_SEND_STALLED : FX_SEND_DONE;
    }
    if (fx_paced(f, now_ms, now_ns)) {
        fx_timer_set(nic, group, flow, f[FX_FL_PACE_MS], f[FX_FL_PACE_NS]);
        e[FEP_WANT] &= ~WANT_SEND;
        return FX_SEND_DONE;
    }
    if (hal_dma_room(nic) < 2u || segment[FX_TX_LENGTH] > room) {
        return FX_SEND_STARVED;
    }
    item = new_packet(nic, flow);
    if (item == 0u) {
        return FX_SEND_STARVED;
    }
    len = fx_data_header(f, segment, capacity(f), now_ms, mac, header);
    put_out(nic, e, item, header, len, segment[FX_TX_LENGTH]);
    if (segment[FX_TX_LENGTH] > segment[FX_TX_MSS]) {
        fx_item(nic, item)[ITEM_MSS] = segment[FX_TX_MSS];
    }
    read_payload(nic, FX_ENGINE_FLOW + group, flow, f, e, segment, item, len);
    fx_sent(f, segment, now_ms, now_ns);
    deadline_over(e);
    fx_add(nic, queue_of(nic, flow), FAST_BYTES_OUT, segment[FX_TX_LENGTH]);
    return FX_SEND_MORE;
}

/* Builds what the flow wants to send and may: FX_SEND_*. Its packets are sent by fx_flow_flush, when their payload is there.
 * A flow that is stalled goes back to the host, which probes. */
fx_u32 fx_flow_transmit(struct fx_nic *nic, fx_u32 group, fx_u32 flow, FX_LOCAL fx_u32 *f, FX_MEM fx_u32 *e)
{
    fx_u32 segment[FX_TX_WORDS];
    fx_u32 mac[2];
    fx_u32 now_ms;
    fx_u32 now_ns;
    fx_u32 sent = 0u;
    fx_u32 result = FX_SEND_DONE;
    own_mac(nic, mac);
    fx_now(nic, &now_ms, &now_ns);
    if ((e[FEP_WANT] & WANT_EARLY) != 0u) {
        send_early_ack(nic, flow, f, e, mac, now_ms);
    }
    while ((e[FEP_WANT] & WANT_SEND) != 0u) {
        if (sent >= FX_QUANTUM) {
            result = FX_SEND_MORE;
            break;
        }
        result = send_segment(nic, group, flow, f, e, mac, segment);
        if (result != FX_SEND_MORE) {
            break;
        }
        sent += segment[FX_TX_LENGTH];
    }
    if ((e[FEP_WANT] & (WANT_ACK | WANT_HELD)) == (WANT_ACK | WANT_HELD)) {
        /* The host's answer may carry it. A host that never bumps gets it sent like a delayed one. */
        fx_now(nic, &now_ms, &now_ns);
        start_deadline(nic, group, flow, e, now_ms, now_ns);
        e[FEP_WANT] &= ~WANT_ACK;
    }
    if (result != FX_SEND_STARVED && result != FX_SEND_STALLED && (e[FEP_WANT] & WANT_ACK) != 0u) {
        fx_now(nic, &now_ms, &now_ns);
        if (acknowledge(nic, group, flow, f, e, mac, now_ms, now_ns) == FX_SEND_STARVED) {
            result = FX_SEND_STARVED;
        }
    }
    return result;
}

/* Makes a packet's checksum complete, unless the wire does. */
static void finish(struct fx_nic *nic, FX_MEM const fx_u32 *words)
{
    fx_u32 header[FX_HEADER_WORDS];
    fx_u32 packet = words[ITEM_PACKET] - 1u;
    fx_u32 len = words[ITEM_HEADER];
    fx_u32 sum = 0u;
    if (words[ITEM_LENGTH] > len) {
        sum = hal_packet_sum(nic, packet, len, words[ITEM_LENGTH] - len);
    }
    hal_packet_read(nic, packet, header, FX_HEADER_WORDS);
    fx_finish_checksum(header, len, sum);
    hal_packet_write(nic, packet, header, len);
}

/* Sends the packets whose payload is there: all of them, as none is read any more. 0 when the wire takes no more now. */
int fx_flow_flush(struct fx_nic *nic, fx_u32 flow, FX_MEM fx_u32 *e)
{
    FX_MEM fx_u32 *words;
    fx_u32 partial = (hal_register(nic, FX_REG_CONFIG) & FX_CONFIG_TX_CHECKSUM) != 0u ? 1u : 0u;
    fx_u32 item;
    while (e[FEP_OUT_HEAD] != 0u) {
        item = e[FEP_OUT_HEAD];
        words = fx_item(nic, item);
        if (partial == 0u && (words[ITEM_STATE] & ITEM_READ) == 0u) {
            finish(nic, words);
            words[ITEM_STATE] |= ITEM_READ;
        }
        if (hal_packet_send(
                nic, words[ITEM_PACKET] - 1u, words[ITEM_LENGTH], words[ITEM_HEADER], partial, words[ITEM_MSS])) {
            return 0;
        }
        words[ITEM_PACKET] = 0u;
        (void)fx_list_take(nic, e, FEP_OUT_HEAD, FEP_OUT_TAIL);
        fx_item_free(nic, item);
        fx_add(nic, queue_of(nic, flow), FAST_FRAMES_OUT, 1u);
    }
    return 1;
}
