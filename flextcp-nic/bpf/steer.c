// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The XDP program of a FlexTCP interface: frames for an address and TCP port that the process owns, and ICMP
// errors about segments it sent from there, go to the AF_XDP socket of the queue they arrived on. Everything
// else, and everything when no socket is bound to that queue, stays with the kernel.
//
// Unrelated traffic pays for reading its headers and one bit of an array, no hash look-up.

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MAX_QUEUES 256
#define MAX_OWNED 65536
#define MAX_EXCLUDED 65536

#define VLAN_ID_MASK 0x0fff
#define IPV4_FRAGMENT_OFFSET 0x1fff
#define IPV6_FRAGMENT_OFFSET 0xfff8
#define IPV6_MAX_EXTENSIONS 4

enum { ICMP_UNREACHABLE = 3, ICMP_TIME_EXCEEDED = 11 };
enum { ICMPV6_UNREACHABLE = 1, ICMPV6_PACKET_TOO_BIG = 2, ICMPV6_TIME_EXCEEDED = 3 };

// Shared with src/port/xdp/steering.rs, which asserts the sizes.
enum family { FAMILY_IPV4 = 4, FAMILY_IPV6 = 6 };
enum owned_flags { OWNED_HAS_EXCLUSIONS = 1 };
enum counter { COUNT_REDIRECTED, COUNT_PASSED, COUNT_EXCLUDED, COUNTERS };

struct owned_key {
	__u8 addr[16]; // IPv4 in the first four bytes; all zero: every address
	__be16 port;
	__u16 family;
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

// Bit (port & 63) of word (port >> 6): some entry of OWNED has this port.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
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

struct ports {
	__be16 source;
	__be16 dest;
};

// Whose segment the frame is, or is about: pointers into the frame.
struct segment {
	const void *local;
	const void *remote;
	__be16 local_port;
	__be16 remote_port;
	__u16 family;
};

static __always_inline void count(__u32 which)
{
	__u64 *value = bpf_map_lookup_elem(&COUNTS, &which);

	if (value)
		*value += 1;
}

// The segment sent by us that an ICMP error quotes: its source is our end.
static __always_inline bool quoted_ipv4(const void *quote, const void *end, struct segment *segment)
{
	const struct iphdr *ip = quote;
	const struct ports *ports;

	if ((const void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5 || ip->protocol != IPPROTO_TCP ||
	    ip->frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET))
		return false;
	ports = quote + ip->ihl * 4;
	if ((const void *)(ports + 1) > end)
		return false;
	segment->local = &ip->saddr;
	segment->remote = &ip->daddr;
	segment->local_port = ports->source;
	segment->remote_port = ports->dest;
	return true;
}

static __always_inline bool quoted_ipv6(const void *quote, const void *end, struct segment *segment)
{
	const struct ipv6hdr *ip = quote;
	const struct ports *ports = quote + sizeof(*ip);

	if ((const void *)(ports + 1) > end || ip->version != 6 || ip->nexthdr != IPPROTO_TCP)
		return false;
	segment->local = &ip->saddr;
	segment->remote = &ip->daddr;
	segment->local_port = ports->source;
	segment->remote_port = ports->dest;
	return true;
}

static __always_inline bool received(const struct ports *ports, const void *end, struct segment *segment)
{
	if ((const void *)(ports + 1) > end)
		return false;
	segment->local_port = ports->dest;
	segment->remote_port = ports->source;
	return true;
}

static __always_inline bool find_ipv4(const void *packet, const void *end, struct segment *segment)
{
	const struct iphdr *ip = packet;
	const void *payload;

	// Later fragments carry no ports: the kernel has them, and drops them when the first never comes.
	if ((const void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5 ||
	    ip->frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET))
		return false;
	segment->family = FAMILY_IPV4;
	segment->local = &ip->daddr;
	segment->remote = &ip->saddr;
	payload = packet + ip->ihl * 4;
	if (ip->protocol == IPPROTO_TCP)
		return received(payload, end, segment);
	if (ip->protocol == IPPROTO_ICMP) {
		const __u8 *icmp = payload;

		if ((const void *)(icmp + 8) > end || (icmp[0] != ICMP_UNREACHABLE && icmp[0] != ICMP_TIME_EXCEEDED))
			return false;
		return quoted_ipv4(icmp + 8, end, segment);
	}
	return false;
}

static __always_inline bool find_ipv6(const void *packet, const void *end, struct segment *segment)
{
	const struct ipv6hdr *ip = packet;
	__u32 offset = sizeof(*ip);
	__u8 next;

	if ((const void *)(ip + 1) > end || ip->version != 6)
		return false;
	segment->family = FAMILY_IPV6;
	segment->local = &ip->daddr;
	segment->remote = &ip->saddr;
	next = ip->nexthdr;
#pragma unroll
	for (int i = 0; i < IPV6_MAX_EXTENSIONS; i++) {
		const __u8 *extension = packet + offset;

		if (next == IPPROTO_TCP || next == IPPROTO_ICMPV6)
			break;
		if ((const void *)(extension + 8) > end)
			return false;
		if (next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_DSTOPTS) {
			offset += (extension[1] + 1) * 8;
		} else if (next == IPPROTO_FRAGMENT) {
			if (*(const __be16 *)(extension + 2) & bpf_htons(IPV6_FRAGMENT_OFFSET))
				return false;
			offset += 8;
		} else {
			return false;
		}
		next = extension[0];
	}
	if (next == IPPROTO_TCP)
		return received(packet + offset, end, segment);
	if (next == IPPROTO_ICMPV6) {
		const __u8 *icmp = packet + offset;

		if ((const void *)(icmp + 8) > end ||
		    (icmp[0] != ICMPV6_UNREACHABLE && icmp[0] != ICMPV6_PACKET_TOO_BIG && icmp[0] != ICMPV6_TIME_EXCEEDED))
			return false;
		return quoted_ipv6(icmp + 8, end, segment);
	}
	return false;
}

static __always_inline bool find_segment(struct xdp_md *ctx, struct segment *segment)
{
	const void *data = (const void *)(long)ctx->data;
	const void *end = (const void *)(long)ctx->data_end;
	const struct ethhdr *ethernet = data;
	const void *packet = ethernet + 1;
	__be16 protocol;

	if (packet > end || ethernet->h_dest[0] & 1)
		return false;
	protocol = ethernet->h_proto;
	if (protocol == bpf_htons(ETH_P_8021Q)) {
		const __be16 *tag = packet;

		if ((const void *)(tag + 2) > end)
			return false;
		// A priority tag (VLAN 0) changes nothing; any other VLAN is another interface of the kernel's.
		if (tag[0] & bpf_htons(VLAN_ID_MASK))
			return false;
		protocol = tag[1];
		packet = tag + 2;
	}
	if (protocol == bpf_htons(ETH_P_IP))
		return find_ipv4(packet, end, segment);
	if (protocol == bpf_htons(ETH_P_IPV6))
		return find_ipv6(packet, end, segment);
	return false;
}

static __always_inline bool port_owned(__be16 port)
{
	__u32 host_port = bpf_ntohs(port);
	__u32 index = host_port >> 6;
	__u64 *word = bpf_map_lookup_elem(&PORTS, &index);

	return word && (*word >> (host_port & 63)) & 1;
}

static __always_inline void copy_address(__u8 *to, const void *from, __u16 family)
{
	__builtin_memcpy(to, from, 4);
	if (family == FAMILY_IPV6)
		__builtin_memcpy(to + 4, from + 4, 12);
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
	count(COUNT_REDIRECTED);
	return bpf_redirect_map(&SOCKETS, ctx->rx_queue_index, XDP_PASS);

pass:
	count(COUNT_PASSED);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "MIT";
