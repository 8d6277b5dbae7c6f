// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Ethernet to TCP, or to the segment that an ICMP error quotes. A frame that ends early leaves `kind` as it is: what
// was not reached is not ours. Nothing is judged here but what decides whose the frame is; the ingress validates.

parser FxParser(packet_in packet, out headers hdr, inout metadata meta, inout standard_metadata_t standard_metadata) {
    state start {
        meta.kind = FX_OTHER;
        meta.next_header = 0;
        meta.units_left = 0;
        meta.extensions = 0;
        meta.extension_units = 0;
        meta.more_fragments = 0;
        meta.segments_left = 0;
        packet.extract(hdr.ethernet);
        transition select(hdr.ethernet.ethertype) {
            ETHERTYPE_VLAN: parse_vlan;
            ETHERTYPE_IPV4: parse_ipv4;
            ETHERTYPE_IPV6: parse_ipv6;
            default: accept;
        }
    }

    // A priority tag (VLAN 0) changes nothing; any other VLAN is another interface of the kernel's.
    state parse_vlan {
        packet.extract(hdr.vlan);
        transition select(hdr.vlan.id, hdr.vlan.ethertype) {
            (0, ETHERTYPE_IPV4): parse_ipv4;
            (0, ETHERTYPE_IPV6): parse_ipv6;
            default: accept;
        }
    }

    // Later fragments carry no ports: the kernel has them, and drops them when the first never comes.
    state parse_ipv4 {
        packet.extract(hdr.ipv4);
        transition select(hdr.ipv4.version, hdr.ipv4.ihl, hdr.ipv4.fragment_offset) {
            (4, 5, 0): parse_ipv4_transport;
            (4, 0 &&& 0xc, default): accept;
            (4, 4, default): accept;
            (4, default, 0): parse_ipv4_options;
            default: accept;
        }
    }

    state parse_ipv4_options {
        meta.units_left = (bit<32>)hdr.ipv4.ihl - 5;
        transition parse_ipv4_option;
    }

    state parse_ipv4_option {
        packet.extract(hdr.ipv4_options.next);
        meta.units_left = meta.units_left - 1;
        transition select(meta.units_left) {
            0: parse_ipv4_transport;
            default: parse_ipv4_option;
        }
    }

    state parse_ipv4_transport {
        transition select(hdr.ipv4.protocol) {
            PROTOCOL_TCP: parse_ports;
            PROTOCOL_ICMP: parse_icmp;
            default: accept;
        }
    }

    state parse_ipv6 {
        packet.extract(hdr.ipv6);
        meta.next_header = (bit<32>)hdr.ipv6.next_header;
        transition select(hdr.ipv6.version) {
            6: parse_ipv6_next;
            default: accept;
        }
    }

    state parse_ipv6_next {
        transition select(meta.next_header, meta.extensions, meta.extension_units) {
            (PROTOCOL_TCP, default, default): parse_ports;
            (PROTOCOL_ICMPV6, default, default): parse_icmpv6;
            (default, IPV6_MAX_EXTENSIONS, default): accept;
            (default, default, IPV6_MAX_EXTENSION_UNITS): accept;
            (IPV6_HOP_BY_HOP, default, default): parse_options_extension;
            (IPV6_DESTINATION_OPTIONS, default, default): parse_options_extension;
            (IPV6_ROUTING, default, default): parse_routing_extension;
            (IPV6_FRAGMENT, default, default): parse_fragment_extension;
            default: accept;
        }
    }

    state parse_options_extension {
        packet.extract(hdr.ipv6_extensions.next);
        meta.next_header = (bit<32>)hdr.ipv6_extensions.last.next_header;
        meta.units_left = (bit<32>)hdr.ipv6_extensions.last.length;
        transition parse_extension_length;
    }

    state parse_routing_extension {
        packet.extract(hdr.ipv6_extensions.next);
        meta.next_header = (bit<32>)hdr.ipv6_extensions.last.next_header;
        meta.units_left = (bit<32>)hdr.ipv6_extensions.last.length;
        meta.segments_left = meta.segments_left | (bit<32>)hdr.ipv6_extensions.last.fourth;
        transition parse_extension_length;
    }

    // Eight bytes, whatever stands where others have their length.
    state parse_fragment_extension {
        packet.extract(hdr.ipv6_extensions.next);
        meta.next_header = (bit<32>)hdr.ipv6_extensions.last.next_header;
        meta.units_left = 0;
        meta.more_fragments = meta.more_fragments | (bit<32>)hdr.ipv6_extensions.last.fourth[0:0];
        transition select(hdr.ipv6_extensions.last.third, hdr.ipv6_extensions.last.fourth) {
            (0, 0 &&& 0xf8): parse_extension_length;
            default: accept;
        }
    }

    state parse_extension_length {
        meta.extensions = meta.extensions + 1;
        meta.extension_units = meta.extension_units + 1 + meta.units_left;
        transition select(meta.extension_units) {
            0 &&& 0xfffffff8: parse_extension_rest;
            IPV6_MAX_EXTENSION_UNITS: parse_extension_rest;
            default: accept;
        }
    }

    state parse_extension_rest {
        transition select(meta.units_left) {
            0: parse_ipv6_next;
            default: parse_extension_unit;
        }
    }

    state parse_extension_unit {
        packet.extract(hdr.ipv6_extensions.next);
        meta.units_left = meta.units_left - 1;
        transition parse_extension_rest;
    }

    state parse_ports {
        packet.extract(hdr.ports);
        meta.kind = FX_SEGMENT;
        packet.extract(hdr.tcp);
        transition select(hdr.tcp.data_offset) {
            8: parse_timestamps;
            default: accept;
        }
    }

    state parse_timestamps {
        packet.extract(hdr.timestamps);
        transition accept;
    }

    // Destination unreachable and time exceeded.
    state parse_icmp {
        packet.extract(hdr.icmp);
        transition select(hdr.icmp.kind) {
            3: parse_quoted_ipv4;
            11: parse_quoted_ipv4;
            default: accept;
        }
    }

    state parse_quoted_ipv4 {
        packet.extract(hdr.quoted_ipv4);
        transition select(hdr.quoted_ipv4.version, hdr.quoted_ipv4.ihl, hdr.quoted_ipv4.protocol,
                          hdr.quoted_ipv4.fragment_offset) {
            (4, 5, PROTOCOL_TCP, 0): parse_quoted_ports;
            (4, 0 &&& 0xc, default, default): accept;
            (4, 4, default, default): accept;
            (4, default, PROTOCOL_TCP, 0): parse_quoted_ipv4_options;
            default: accept;
        }
    }

    state parse_quoted_ipv4_options {
        meta.units_left = (bit<32>)hdr.quoted_ipv4.ihl - 5;
        transition parse_quoted_ipv4_option;
    }

    state parse_quoted_ipv4_option {
        packet.extract(hdr.quoted_ipv4_options.next);
        meta.units_left = meta.units_left - 1;
        transition select(meta.units_left) {
            0: parse_quoted_ports;
            default: parse_quoted_ipv4_option;
        }
    }

    // Destination unreachable, packet too big and time exceeded.
    state parse_icmpv6 {
        packet.extract(hdr.icmp);
        transition select(hdr.icmp.kind) {
            1: parse_quoted_ipv6;
            2: parse_quoted_ipv6;
            3: parse_quoted_ipv6;
            default: accept;
        }
    }

    state parse_quoted_ipv6 {
        packet.extract(hdr.quoted_ipv6);
        transition select(hdr.quoted_ipv6.version, hdr.quoted_ipv6.next_header) {
            (6, PROTOCOL_TCP): parse_quoted_ports;
            default: accept;
        }
    }

    state parse_quoted_ports {
        packet.extract(hdr.quoted_ports);
        meta.kind = FX_ICMP;
        packet.extract(hdr.quoted_sequence);
        transition accept;
    }
}
