// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Whose segment a frame is, or is about: what steer.c and steer_hw.c decide by.
//
// With STEER_MAX_EXTENSION_BYTES, IPv6 extension headers are followed no further than that many bytes: the card refuses a
// program that may look beyond the first part of a packet.

#pragma once

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define VLAN_ID_MASK 0x0fff
#define IPV4_FRAGMENT_OFFSET 0x1fff
#define IPV6_FRAGMENT_OFFSET 0xfff8
#define IPV6_MAX_EXTENSIONS 4

enum { ICMP_UNREACHABLE = 3, ICMP_TIME_EXCEEDED = 11 };
enum { ICMPV6_UNREACHABLE = 1, ICMPV6_PACKET_TOO_BIG = 2, ICMPV6_TIME_EXCEEDED = 3 };

enum family { FAMILY_IPV4 = 4, FAMILY_IPV6 = 6 };

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
#ifdef STEER_MAX_EXTENSION_BYTES
		if (offset > sizeof(*ip) + STEER_MAX_EXTENSION_BYTES)
			return false;
#endif
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

static __always_inline bool find_in(const void *data, const void *end, struct segment *segment)
{
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

static __always_inline bool find_segment(struct xdp_md *ctx, struct segment *segment)
{
	return find_in((const void *)(long)ctx->data, (const void *)(long)ctx->data_end, segment);
}

static __always_inline void copy_address(__u8 *to, const void *from, __u16 family)
{
	__builtin_memcpy(to, from, 4);
	if (family == FAMILY_IPV6)
		__builtin_memcpy(to + 4, from + 4, 12);
}
