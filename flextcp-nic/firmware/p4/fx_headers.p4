// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Headers and metadata of the FlexTCP pipeline. Fields have at most 64 bits and IPv6 addresses are four words each,
// as everything that P4 and Micro-C share is words.

#ifndef FX_HEADERS_P4
#define FX_HEADERS_P4

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_VLAN 0x8100
#define ETHERTYPE_IPV6 0x86dd

#define PROTOCOL_ICMP 1
#define PROTOCOL_TCP 6
#define PROTOCOL_ICMPV6 58

#define IPV6_HOP_BY_HOP 0
#define IPV6_ROUTING 43
#define IPV6_FRAGMENT 44
#define IPV6_DESTINATION_OPTIONS 60

// The card's command to its MAC: four bytes before every frame that leaves through a physical port.
header nfp_mac_eg_cmd_t {
    bit l3Sum;
    bit l4Sum;
    bit tsMark;
    bit<29> ignore;
}

header ethernet_t {
    bit<48> destination;
    bit<48> source;
    bit<16> ethertype;
}

header vlan_t {
    bit<3> priority;
    bit<1> drop_eligible;
    bit<12> id;
    bit<16> ethertype;
}

header ipv4_t {
    bit<4> version;
    bit<4> ihl;
    bit<8> tos;
    bit<16> total_length;
    bit<16> identification;
    bit<3> flags;
    bit<13> fragment_offset;
    bit<8> ttl;
    bit<8> protocol;
    bit<16> checksum;
    bit<32> source;
    bit<32> destination;
}

header ipv4_option_t {
    bit<32> word;
}

header ipv6_t {
    bit<4> version;
    bit<8> traffic_class;
    bit<20> flow_label;
    bit<16> payload_length;
    bit<8> next_header;
    bit<8> hop_limit;
    bit<32> source0;
    bit<32> source1;
    bit<32> source2;
    bit<32> source3;
    bit<32> destination0;
    bit<32> destination1;
    bit<32> destination2;
    bit<32> destination3;
}

// Eight bytes of an extension header: its start, or what follows in a longer one.
header ipv6_extension_t {
    bit<8> next_header;
    bit<8> length;
    bit<8> third;
    bit<8> fourth;
    bit<32> rest;
}

// The ports stand apart from the rest of TCP's header: they alone decide whose a truncated segment is.
header ports_t {
    bit<16> source;
    bit<16> destination;
}

header tcp_t {
    bit<32> sequence;
    bit<32> acknowledgment;
    bit<4> data_offset;
    bit<4> reserved;
    bit<8> flags;
    bit<16> window;
    bit<16> checksum;
    bit<16> urgent;
}

// The only options of the common case: nop, nop, timestamps. Micro-C reads any others out of the frame.
header tcp_timestamps_t {
    bit<32> prefix;
    bit<32> value;
    bit<32> echo;
}

header icmp_t {
    bit<8> kind;
    bit<8> code;
    bit<16> checksum;
    bit<32> rest;
}

header sequence_t {
    bit<32> sequence;
}

#define IPV4_MAX_OPTION_WORDS 10
// Extension headers are followed this far, in units of eight bytes; a frame with more of them is the kernel's.
#define IPV6_MAX_EXTENSION_UNITS 8
#define IPV6_MAX_EXTENSIONS 4

struct headers {
    nfp_mac_eg_cmd_t nfp_mac_eg_cmd; // must be the first
    ethernet_t ethernet;
    vlan_t vlan;
    ipv4_t ipv4;
    ipv4_option_t[IPV4_MAX_OPTION_WORDS] ipv4_options;
    ipv6_t ipv6;
    ipv6_extension_t[IPV6_MAX_EXTENSION_UNITS] ipv6_extensions;
    ports_t ports;
    tcp_t tcp;
    tcp_timestamps_t timestamps;
    icmp_t icmp;
    // What an ICMP error quotes: the start of a segment that we sent.
    ipv4_t quoted_ipv4;
    ipv4_option_t[IPV4_MAX_OPTION_WORDS] quoted_ipv4_options;
    ipv6_t quoted_ipv6;
    ports_t quoted_ports;
    sequence_t quoted_sequence;
}

// metadata.kind
#define FX_OTHER 0   // neither a TCP segment nor an ICMP error about one
#define FX_SEGMENT 1 // a TCP segment, as far as its ports
#define FX_ICMP 2    // an ICMP error that quotes a TCP segment

// metadata.verdict
#define FX_KERNEL 0    // not ours: to the kernel's queue
#define FX_DROP 1      // ours and malformed, or refused by a filter
#define FX_EXCEPTION 2 // ours, for the slow path of core `queue`
#define FX_FLOW 3      // of installed flow `flow`: fx_rx() decides
#define FX_CONSUMED 4  // answer of fx_rx(): done with

// metadata.hints: what fx_rx() need not find out again
#define FX_HINT_IP_OPTIONS 1  // IPv4 options or IPv6 extension headers
#define FX_HINT_FLAGS 2       // TCP flags beyond ACK, PSH, ECE and CWR, or no ACK
#define FX_HINT_TIMESTAMPS 4  // hdr.timestamps is the only option
#define FX_HINT_TCP_OPTIONS 8 // other options are in the frame
#define FX_HINT_ICMP 16       // an ICMP error about the flow

// metadata.malformed
#define FX_BAD_LENGTH 1
#define FX_BAD_FRAGMENT 2
#define FX_BAD_ADDRESS 4
#define FX_BAD_EXTENSION 8
#define FX_BAD_TCP 16
#define FX_BAD_ICMP 32
#define FX_BAD_CHECKSUM 64

// What P4 and Micro-C say to one another: words only, since the card's compiler stores all of it in words and C
// reads field X as pif_plugin_meta_get__scalars__metadata__X(). None of it is zero before the parser writes it.
struct metadata {
    bit<32> kind;
    bit<32> verdict;
    bit<32> queue;
    bit<32> flow;
    bit<32> generation;
    bit<32> hints;
    bit<32> malformed;
    // Offsets and lengths in bytes, from the frame's first.
    bit<32> l3_offset;
    bit<32> l4_offset;
    bit<32> l4_length;
    bit<32> payload_offset;
    bit<32> payload_length;
    // Set by fx_checksum(): not zero when the IPv4 header's or TCP's checksum is wrong.
    bit<32> bad_checksum;
    // The connection, seen from here.
    bit<32> family;
    bit<32> local0;
    bit<32> local1;
    bit<32> local2;
    bit<32> local3;
    bit<32> remote0;
    bit<32> remote1;
    bit<32> remote2;
    bit<32> remote3;
    bit<32> ports; // local << 16 | remote
    bit<32> local_port;
    bit<32> filtered;
    // The parser's own.
    bit<32> next_header;
    bit<32> units_left;
    bit<32> extensions;
    bit<32> extension_units;
    bit<32> more_fragments;
    bit<32> segments_left;
}

#endif
