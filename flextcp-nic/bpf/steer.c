// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The XDP program of a FlexTCP interface: frames for an address and TCP port that the process owns, or for single
// connections of it there, and ICMP errors about segments it sent from there, go to the AF_XDP socket of the queue they arrived on. Everything
// else, and everything when no socket is bound to that queue, stays with the kernel.
//
// Unrelated traffic pays for reading its headers and one bit of an array, no hash look-up.
//
// On lo a second program looks at frames before they are sent, and takes bulk around XDP: see bypass().

#include "segment.h"

#define MAX_QUEUES 256
#define MAX_OWNED 65536
#define MAX_EXCLUDED 65536
// As many in TIME_WAIT as an engine keeps, and as many that are open.
#define MAX_CONNECTIONS 131072

// On lo, frames of a socket that sent one of so many bytes no more than so many ticks ago are bulk.
#define LARGE_FRAME 8192
#define BULK_TICKS 2
#define BULK_SOCKETS 4096

// TCX_NEXT of <linux/bpf.h> since Linux 6.6: leaves the frame to what comes after.
enum { NEXT = -1 };

// Shared with src/port/xdp/steering.rs, which asserts the sizes.
enum owned_flags { OWNED_HAS_EXCLUSIONS = 1, OWNED_CONNECTIONS_ONLY = 2 };
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

// The connections that are ours at an address and port of which nothing else is: those that outlive their listener. A new
// one there is the kernel's, or another process's.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_CONNECTIONS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct tuple_key);
	__type(value, __u32);
} CONNECTIONS SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} COUNTS SEC(".maps");

// Written through a mapping by src/port/xdp/bulk.rs, read there as words.
struct bulk {
	__u64 ifindex; // of the TAP; 0: no bulk
	__u64 sent;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct bulk);
} BULK SEC(".maps");

// When a socket sent a large frame last, in jiffies, by the low bits of its cookie: two that share an entry at worst take
// the way that fits the other.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, BULK_SOCKETS);
	__type(key, __u32);
	__type(value, __u64);
} LARGE SEC(".maps");

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

static __always_inline bool holds(void *connections, const struct segment *segment)
{
	struct tuple_key key = {
		.local_port = segment->local_port,
		.remote_port = segment->remote_port,
		.family = segment->family,
	};

	copy_address(key.local, segment->local, segment->family);
	copy_address(key.remote, segment->remote, segment->family);
	return bpf_map_lookup_elem(connections, &key);
}

// What is to become of a frame, as what it counts.
static __always_inline enum counter verdict(const void *data, const void *end)
{
	struct segment segment;
	struct owned_key key = {};
	__u32 *flags;

	if (!find_in(data, end, &segment) || !port_owned(segment.local_port))
		return COUNT_PASSED;

	// Ports with flags are never here.
	if (single_owner(&segment))
		return COUNT_REDIRECTED;
	key.port = segment.local_port;
	key.family = segment.family;
	copy_address(key.addr, segment.local, segment.family);
	flags = bpf_map_lookup_elem(&OWNED, &key);
	if (!flags) {
		__builtin_memset(key.addr, 0, sizeof(key.addr));
		flags = bpf_map_lookup_elem(&OWNED, &key);
		if (!flags)
			return COUNT_PASSED;
	}
	if (*flags & OWNED_HAS_EXCLUSIONS && holds(&EXCLUDED, &segment))
		return COUNT_EXCLUDED;
	if (*flags & OWNED_CONNECTIONS_ONLY && !holds(&CONNECTIONS, &segment))
		return COUNT_PASSED;
	return COUNT_REDIRECTED;
}

SEC("xdp.frags")
int steer(struct xdp_md *ctx)
{
	enum counter what = verdict((const void *)(long)ctx->data, (const void *)(long)ctx->data_end);

	count(what);
	if (what != COUNT_REDIRECTED)
		return XDP_PASS;
	return bpf_redirect_map(&SOCKETS, ctx->rx_queue_index, XDP_PASS);
}

// Whether the kernel holds the socket's frames back by a timer, as it does for BBR. Such a sender is the slower the faster
// a frame is sent: every one then waits for a timer, which costs more than the copies. What it needs of the kernel's
// struct sock; its place is found at load time.
#define SK_PACING_NEEDED 1

struct sock {
	__u32 sk_pacing_status;
} __attribute__((preserve_access_index));

static __always_inline bool paced(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct sock *tcp;

	if (!sk)
		return true;
	tcp = (struct sock *)bpf_skc_to_tcp_sock(sk);
	return !tcp || tcp->sk_pacing_status == SK_PACING_NEEDED;
}

// On its way out of lo, before XDP. The kernel runs XDP there on a copy of the frame, and the AF_XDP socket copies it again,
// both on the sender's processor: large frames go uncopied into the queue of a TAP instead, from which our side reads
// them. A socket's small frames among large ones go the same way, so that none overtakes another.
SEC("classifier")
int bypass(struct __sk_buff *skb)
{
	__u32 first = 0, slot;
	struct bulk *bulk = bpf_map_lookup_elem(&BULK, &first);
	__u64 *last, now;

	if (!bulk || !bulk->ifindex)
		return NEXT;
	slot = bpf_get_socket_cookie(skb) & (BULK_SOCKETS - 1);
	last = bpf_map_lookup_elem(&LARGE, &slot);
	if (!last)
		return NEXT;
	now = bpf_jiffies64();
	if (skb->len < LARGE_FRAME && now - *last > BULK_TICKS)
		return NEXT;
	if (paced(skb) ||
	    verdict((const void *)(long)skb->data, (const void *)(long)skb->data_end) != COUNT_REDIRECTED)
		return NEXT;
	if (skb->len >= LARGE_FRAME)
		*last = now;
	count(COUNT_REDIRECTED);
	__sync_fetch_and_add(&bulk->sent, 1);
	return bpf_redirect(bulk->ifindex, 0);
}

// The kernel shows its structures to programs under the GPL only; the MIT licence allows that, too.
char LICENSE[] SEC("license") = "Dual MIT/GPL";
