// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Steering on a Netronome card with its stock BPF firmware: the queue that a frame of ours arrives on. steer.c runs in the
// driver above it and gives the frames of a queue to the AF_XDP socket there, so the card only chooses queues:
// an installed connection's frames go to its core's, a listener's to one that the connection hashes to. What is not ours
// stays where the card's own RSS puts it.
//
// Within the card's limits: maps are HASH or ARRAY, written by the host only; look-ups are the one helper; the receive
// queue is the one word of the context that may be stored to; no loops, no calls, no stack beyond 512 bytes.
//
// Off the card the kernel refuses the store. -DTWIN returns the queue instead, so that all the rest can be run.

#define STEER_MAX_EXTENSION_BYTES 64
#include "segment.h"

#define MAX_FLOWS 1000000
#define MAX_OWNED 16384
#define MAX_BUCKETS 64

// A connection that the kernel has although its port is ours.
#define QUEUE_OF_KERNEL 0xffffffff
// What the twin returns for queue q: STEERED | q.
#define STEERED 0x10000

// Shared with src/port/xdp/trial.rs, which asserts the sizes. Key and value, each rounded up to 8 bytes, are at most 64.
struct ipv4_flow {
	__be32 local;
	__be32 remote;
	__be16 local_port;
	__be16 remote_port;
};

struct ipv6_flow {
	__be32 local[4];
	__be32 remote[4];
	__be16 local_port;
	__be16 remote_port;
};

struct owned_key {
	__be32 addr[4]; // IPv4 in the first; all zero: every address
	__be16 port;
	__u16 family;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_FLOWS);
	__type(key, struct ipv4_flow);
	__type(value, __u32);
} FLOWS_IPV4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_FLOWS);
	__type(key, struct ipv6_flow);
	__type(value, __u32);
} FLOWS_IPV6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_OWNED);
	__type(key, struct owned_key);
	__type(value, __u32);
} OWNED SEC(".maps");

// The queue of each bucket of the connections' hash; at most 255, since the card replaces larger ones.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_BUCKETS);
	__type(key, __u32);
	__type(value, __u32);
} QUEUES SEC(".maps");

static __always_inline int steer_to(struct xdp_md *ctx, __u32 queue)
{
#ifdef TWIN
	(void)ctx;
	return STEERED | (queue & 0xff);
#else
	ctx->rx_queue_index = queue;
	return XDP_PASS;
#endif
}

// Without multiplication by variables and without loops: `steer::spread` in Rust.
static __always_inline __u32 bucket(__u32 words, const struct segment *segment)
{
	__u32 hash = bpf_ntohl(words) ^ ((__u32)bpf_ntohs(segment->local_port) << 16 | bpf_ntohs(segment->remote_port));

	hash ^= hash >> 16;
	hash ^= hash >> 8;
	return hash & (MAX_BUCKETS - 1);
}

static __always_inline __u32 *owner(struct owned_key *key)
{
	__u32 *owned = bpf_map_lookup_elem(&OWNED, key);

	if (owned)
		return owned;
	__builtin_memset(key->addr, 0, sizeof(key->addr));
	return bpf_map_lookup_elem(&OWNED, key);
}

SEC("xdp")
int steer_hw(struct xdp_md *ctx)
{
	struct segment segment;
	struct owned_key key = {};
	__u32 *queue;
	__u32 words;
	__u32 index;

	if (!find_segment(ctx, &segment))
		return XDP_PASS;
	key.port = segment.local_port;
	key.family = segment.family;
	if (segment.family == FAMILY_IPV4) {
		struct ipv4_flow flow = {
			.local_port = segment.local_port,
			.remote_port = segment.remote_port,
		};

		__builtin_memcpy(&flow.local, segment.local, 4);
		__builtin_memcpy(&flow.remote, segment.remote, 4);
		queue = bpf_map_lookup_elem(&FLOWS_IPV4, &flow);
		words = flow.local ^ flow.remote;
		key.addr[0] = flow.local;
	} else {
		struct ipv6_flow flow = {
			.local_port = segment.local_port,
			.remote_port = segment.remote_port,
		};

		__builtin_memcpy(flow.local, segment.local, 16);
		__builtin_memcpy(flow.remote, segment.remote, 16);
		queue = bpf_map_lookup_elem(&FLOWS_IPV6, &flow);
		words = flow.local[0] ^ flow.local[1] ^ flow.local[2] ^ flow.local[3] ^ flow.remote[0] ^ flow.remote[1] ^
			flow.remote[2] ^ flow.remote[3];
		__builtin_memcpy(key.addr, flow.local, 16);
	}
	if (!queue) {
		if (!owner(&key))
			return XDP_PASS;
		index = bucket(words, &segment);
		queue = bpf_map_lookup_elem(&QUEUES, &index);
		if (!queue)
			return XDP_PASS;
	}
	if (*queue == QUEUE_OF_KERNEL)
		return XDP_PASS;
	return steer_to(ctx, *queue);
}

char LICENSE[] SEC("license") = "MIT";
