// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The XDP program of a FlexTCP interface: frames for an address and TCP port that the process owns, and ICMP
// errors about segments it sent from there, go to the AF_XDP socket of the queue they arrived on. Everything
// else, and everything when no socket is bound to that queue, stays with the kernel.
//
// Unrelated traffic pays for reading its headers and one bit of an array, no hash look-up.

#include "segment.h"

#define MAX_QUEUES 256
#define MAX_OWNED 65536
#define MAX_EXCLUDED 65536

// Shared with src/port/xdp/steering.rs, which asserts the sizes.
enum owned_flags { OWNED_HAS_EXCLUSIONS = 1 };
enum counter { COUNT_REDIRECTED, COUNT_PASSED, COUNT_EXCLUDED, COUNTERS };

struct owned_key {
	__u8 addr[16]; // IPv4 in the first four bytes; all zero: every address
	__be16 port;
	__u16 family;
};

// The one address that owns a port; family 0: none, or OWNED has the port's entries.
struct single {
	__u8 addr[16];
	__u16 family;
	__u8 unused[6];
};

struct tuple_key {
	__u8 local[16];
	__u8 remote[16];
	__be16 local_port;
	__be16 remote_port;
	__u32 family;
};

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, MAX_QUEUES);
	__type(key, __u32);
	__type(value, __u32);
} SOCKETS SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_OWNED);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct owned_key);
	__type(value, __u32);
} OWNED SEC(".maps");

// Most ports are owned by one address, those of outgoing connections above all: such an entry is written through a
// mapping, without a system call.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct single);
} SINGLE SEC(".maps");

// Bit (port & 63) of word (port >> 6): some entry of SINGLE or OWNED has this port.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 65536 / 64);
	__type(key, __u32);
	__type(value, __u64);
} PORTS SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_EXCLUDED);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct tuple_key);
	__type(value, __u32);
} EXCLUDED SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} COUNTS SEC(".maps");

static __always_inline void count(__u32 which)
{
	__u64 *value = bpf_map_lookup_elem(&COUNTS, &which);

	if (value)
		*value += 1;
}

static __always_inline bool port_owned(__be16 port)
{
	__u32 host_port = bpf_ntohs(port);
	__u32 index = host_port >> 6;
	__u64 *word = bpf_map_lookup_elem(&PORTS, &index);

	return word && (*word >> (host_port & 63)) & 1;
}

static __always_inline bool single_owner(const struct segment *segment)
{
	__u32 host_port = bpf_ntohs(segment->local_port);
	const struct single *single = bpf_map_lookup_elem(&SINGLE, &host_port);
	const __u32 *owner, *local = segment->local;

	if (!single || single->family != segment->family)
		return false;
	owner = (const __u32 *)single->addr;
	if (owner[0] != local[0])
		return false;
	return segment->family == FAMILY_IPV4 || (owner[1] == local[1] && owner[2] == local[2] && owner[3] == local[3]);
}

static __always_inline bool excluded(const struct segment *segment)
{
	struct tuple_key key = {
		.local_port = segment->local_port,
		.remote_port = segment->remote_port,
		.family = segment->family,
	};

	copy_address(key.local, segment->local, segment->family);
	copy_address(key.remote, segment->remote, segment->family);
	return bpf_map_lookup_elem(&EXCLUDED, &key);
}

SEC("xdp.frags")
int steer(struct xdp_md *ctx)
{
	struct segment segment;
	struct owned_key key = {};
	__u32 *flags;

	if (!find_segment(ctx, &segment) || !port_owned(segment.local_port))
		goto pass;

	// Ports with exclusions are never here.
	if (single_owner(&segment))
		goto redirect;
	key.port = segment.local_port;
	key.family = segment.family;
	copy_address(key.addr, segment.local, segment.family);
	flags = bpf_map_lookup_elem(&OWNED, &key);
	if (!flags) {
		__builtin_memset(key.addr, 0, sizeof(key.addr));
		flags = bpf_map_lookup_elem(&OWNED, &key);
		if (!flags)
			goto pass;
	}
	if (*flags & OWNED_HAS_EXCLUSIONS && excluded(&segment)) {
		count(COUNT_EXCLUDED);
		return XDP_PASS;
	}
redirect:
	count(COUNT_REDIRECTED);
	return bpf_redirect_map(&SOCKETS, ctx->rx_queue_index, XDP_PASS);

pass:
	count(COUNT_PASSED);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "MIT";
