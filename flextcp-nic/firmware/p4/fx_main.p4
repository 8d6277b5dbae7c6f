// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The FlexTCP pipeline of a Netronome Agilio card, in P4-16 for the card's v1model variant. Never compiled by the
// vendor's tools and never run on a card: the project's own checker and interpreter (integration/p4) take this file.
//
// A frame from the wire is
//   the kernel's, unless its address and port, or those of the segment that its ICMP error quotes, are owned;
//   dropped, when it is ours and malformed, or a filter refuses it;
//   handed to Micro-C (fx_rx), when it belongs to an installed flow;
//   an exception, when it is ours otherwise: to the slow path of the core that its connection hashes to.
// A frame from the host goes to the wire.

#include <core.p4>
#include <v1model.p4>

// What differs between the card's v1model and p4c's.
#ifdef FX_TARGET_P4C
#define FX_PORT_T bit<9>
#define FX_MARK_TO_DROP mark_to_drop(standard_metadata)
#define FX_PORT_VF0 0x100
#else
#define FX_PORT_T bit<16>
#define FX_MARK_TO_DROP mark_to_drop()
#define FX_PORT_VF0 0x300
#endif

// Virtual functions: 0 is the kernel's, 1 + q is core q's.
#define FX_PORT_CORE0 (FX_PORT_VF0 + 1)
#define FX_MAX_QUEUE 0x3f

#include "fx_headers.p4"
#include "fx_parser.p4"

// Micro-C. The card hands an extern the headers and the metadata, no arguments.
extern void fx_checksum(); // reads l3_offset, l4_offset, l4_length; sets bad_checksum
extern void fx_rss();      // reads the connection; sets queue to that of its Toeplitz hash
extern void fx_rx();       // reads everything; sets verdict to FX_CONSUMED or FX_EXCEPTION

control FxVerifyChecksum(inout headers hdr, inout metadata meta) {
    apply { }
}

control FxIngress(inout headers hdr, inout metadata meta, inout standard_metadata_t standard_metadata) {
    action to_port(FX_PORT_T port) {
        standard_metadata.egress_spec = port;
    }

    action drop() {
        FX_MARK_TO_DROP;
    }

    // Where the kernel's frames go, by the port they came in on.
    table kernel_ports {
        key = { standard_metadata.ingress_port: exact; }
        actions = { to_port; drop; }
        default_action = drop();
        size = 8;
    }

    // Where the host's frames go, by the virtual function they came from.
    table uplinks {
        key = { standard_metadata.ingress_port: exact; }
        actions = { to_port; drop; }
        default_action = drop();
        size = 64;
    }

    action flow(bit<32> queue, bit<32> index, bit<32> generation) {
        meta.verdict = FX_FLOW;
        meta.queue = queue;
        meta.flow = index;
        meta.generation = generation;
    }

    // A connection that was handed over to the kernel although its port is ours.
    action leave() {
        meta.verdict = FX_KERNEL;
    }

    table flows_ipv4 {
        key = {
            meta.local0: exact;
            meta.remote0: exact;
            meta.ports: exact;
        }
        actions = { flow; leave; NoAction; }
        default_action = NoAction();
        size = 1048576;
    }

    table flows_ipv6 {
        key = {
            meta.local0: exact;
            meta.local1: exact;
            meta.local2: exact;
            meta.local3: exact;
            meta.remote0: exact;
            meta.remote1: exact;
            meta.remote2: exact;
            meta.remote3: exact;
            meta.ports: exact;
        }
        actions = { flow; leave; NoAction; }
        default_action = NoAction();
        size = 1048576;
    }

    // `filtered` is 0 where nobody listens: what comes back to a port that only connects is let in.
    action own(bit<32> filtered) {
        meta.verdict = FX_EXCEPTION;
        meta.filtered = filtered;
    }

    table listeners_ipv4 {
        key = {
            meta.local0: exact;
            meta.local_port: exact;
        }
        actions = { own; NoAction; }
        default_action = NoAction();
        size = 65536;
    }

    table listeners_ipv6 {
        key = {
            meta.local0: exact;
            meta.local1: exact;
            meta.local2: exact;
            meta.local3: exact;
            meta.local_port: exact;
        }
        actions = { own; NoAction; }
        default_action = NoAction();
        size = 65536;
    }

    // Every address of a family.
    table listeners_any {
        key = {
            meta.family: exact;
            meta.local_port: exact;
        }
        actions = { own; NoAction; }
        default_action = NoAction();
        size = 65536;
    }

    action allow() { }

    action deny() {
        meta.verdict = FX_DROP;
    }

    // Whose segments are let in when they belong to no flow; the first rule that matches decides.
    table filter_ipv4 {
        key = {
            meta.remote0: ternary;
            meta.local_port: ternary;
        }
        actions = { allow; deny; }
        default_action = allow();
        size = 1024;
    }

    table filter_ipv6 {
        key = {
            meta.remote0: ternary;
            meta.remote1: ternary;
            meta.remote2: ternary;
            meta.remote3: ternary;
            meta.local_port: ternary;
        }
        actions = { allow; deny; }
        default_action = allow();
        size = 1024;
    }

    action initialize() {
        meta.verdict = FX_KERNEL;
        meta.queue = 0;
        meta.flow = 0;
        meta.generation = 0;
        meta.hints = 0;
        meta.malformed = 0;
        meta.l3_offset = 14;
        meta.l4_offset = 0;
        meta.l4_length = 0;
        meta.payload_offset = 0;
        meta.payload_length = 0;
        meta.bad_checksum = 0;
        meta.family = 0;
        meta.local0 = 0;
        meta.local1 = 0;
        meta.local2 = 0;
        meta.local3 = 0;
        meta.remote0 = 0;
        meta.remote1 = 0;
        meta.remote2 = 0;
        meta.remote3 = 0;
        meta.ports = 0;
        meta.local_port = 0;
        meta.filtered = 0;
    }

    action received_ipv4() {
        meta.family = 4;
        meta.local0 = hdr.ipv4.destination;
        meta.remote0 = hdr.ipv4.source;
    }

    action received_ipv6() {
        meta.family = 6;
        meta.local0 = hdr.ipv6.destination0;
        meta.local1 = hdr.ipv6.destination1;
        meta.local2 = hdr.ipv6.destination2;
        meta.local3 = hdr.ipv6.destination3;
        meta.remote0 = hdr.ipv6.source0;
        meta.remote1 = hdr.ipv6.source1;
        meta.remote2 = hdr.ipv6.source2;
        meta.remote3 = hdr.ipv6.source3;
    }

    // We sent what is quoted: its source is our end.
    action quoted_ipv4() {
        meta.family = 4;
        meta.local0 = hdr.quoted_ipv4.source;
        meta.remote0 = hdr.quoted_ipv4.destination;
    }

    action quoted_ipv6() {
        meta.family = 6;
        meta.local0 = hdr.quoted_ipv6.source0;
        meta.local1 = hdr.quoted_ipv6.source1;
        meta.local2 = hdr.quoted_ipv6.source2;
        meta.local3 = hdr.quoted_ipv6.source3;
        meta.remote0 = hdr.quoted_ipv6.destination0;
        meta.remote1 = hdr.quoted_ipv6.destination1;
        meta.remote2 = hdr.quoted_ipv6.destination2;
        meta.remote3 = hdr.quoted_ipv6.destination3;
    }

    action bad_length() {
        meta.malformed = meta.malformed | FX_BAD_LENGTH;
    }

    action bad_fragment() {
        meta.malformed = meta.malformed | FX_BAD_FRAGMENT;
    }

    action bad_address() {
        meta.malformed = meta.malformed | FX_BAD_ADDRESS;
    }

    action bad_extension() {
        meta.malformed = meta.malformed | FX_BAD_EXTENSION;
    }

    action bad_tcp() {
        meta.malformed = meta.malformed | FX_BAD_TCP;
    }

    action bad_icmp() {
        meta.malformed = meta.malformed | FX_BAD_ICMP;
    }

    action hint(bit<32> bits) {
        meta.hints = meta.hints | bits;
    }

    // Masked, as a cast that cuts bits off has no defined result on the card.
    action to_core() {
        standard_metadata.egress_spec = FX_PORT_CORE0 + (FX_PORT_T)(meta.queue & FX_MAX_QUEUE);
    }

    apply {
        if (standard_metadata.ingress_port >= FX_PORT_VF0) {
            uplinks.apply();
        } else {
            initialize();

            // Whose is it?
            if (hdr.vlan.isValid()) {
                meta.l3_offset = 18;
            }
            if (meta.kind == FX_SEGMENT) {
                meta.local_port = (bit<32>)hdr.ports.destination;
                meta.ports = (bit<32>)hdr.ports.destination << 16 | (bit<32>)hdr.ports.source;
                if (hdr.ipv4.isValid()) {
                    received_ipv4();
                } else {
                    received_ipv6();
                }
            } else if (meta.kind == FX_ICMP) {
                meta.local_port = (bit<32>)hdr.quoted_ports.source;
                meta.ports = (bit<32>)hdr.quoted_ports.source << 16 | (bit<32>)hdr.quoted_ports.destination;
                if (hdr.quoted_ipv4.isValid()) {
                    quoted_ipv4();
                } else {
                    quoted_ipv6();
                }
            }
            if (meta.kind != FX_OTHER && hdr.ethernet.destination[40:40] == 0) {
                if (meta.family == 4) {
                    if (!flows_ipv4.apply().hit) {
                        if (!listeners_ipv4.apply().hit) {
                            listeners_any.apply();
                        }
                    }
                } else {
                    if (!flows_ipv6.apply().hit) {
                        if (!listeners_ipv6.apply().hit) {
                            listeners_any.apply();
                        }
                    }
                }
            }

            // Ours: is it sound?
            if (meta.verdict != FX_KERNEL) {
                if (hdr.ipv4.isValid()) {
                    bit<32> header = (bit<32>)hdr.ipv4.ihl << 2;
                    bit<32> total = (bit<32>)hdr.ipv4.total_length;
                    if (total < header || meta.l3_offset + total > standard_metadata.packet_length) {
                        bad_length();
                    } else {
                        meta.l4_offset = meta.l3_offset + header;
                        meta.l4_length = total - header;
                    }
                    if (hdr.ipv4.flags[0:0] == 1) {
                        bad_fragment();
                    }
                    if (hdr.ipv4.source[31:28] == 0xe || hdr.ipv4.source == 0xffffffff || hdr.ipv4.source == 0) {
                        bad_address();
                    }
                    if (hdr.ipv4.destination[31:28] == 0xe || hdr.ipv4.destination == 0xffffffff
                        || hdr.ipv4.destination == 0) {
                        bad_address();
                    }
                    if (hdr.ipv4.ihl > 5) {
                        hint(FX_HINT_IP_OPTIONS);
                    }
                } else {
                    bit<32> extensions = meta.extension_units << 3;
                    bit<32> payload = (bit<32>)hdr.ipv6.payload_length;
                    if (payload < extensions || meta.l3_offset + 40 + payload > standard_metadata.packet_length) {
                        bad_length();
                    } else {
                        meta.l4_offset = meta.l3_offset + 40 + extensions;
                        meta.l4_length = payload - extensions;
                    }
                    if (meta.more_fragments != 0) {
                        bad_fragment();
                    }
                    // Segments left: the packet is on its way to somebody else.
                    if (meta.segments_left != 0) {
                        bad_extension();
                    }
                    if (hdr.ipv6.source0[31:24] == 0xff || hdr.ipv6.destination0[31:24] == 0xff) {
                        bad_address();
                    }
                    if ((hdr.ipv6.source0 | hdr.ipv6.source1 | hdr.ipv6.source2 | hdr.ipv6.source3) == 0) {
                        bad_address();
                    }
                    if ((hdr.ipv6.destination0 | hdr.ipv6.destination1 | hdr.ipv6.destination2
                         | hdr.ipv6.destination3) == 0) {
                        bad_address();
                    }
                    if (meta.extensions != 0) {
                        hint(FX_HINT_IP_OPTIONS);
                    }
                }
                if (meta.kind == FX_ICMP) {
                    hint(FX_HINT_ICMP);
                    bit<32> needed = 56;
                    if (hdr.quoted_ipv4.isValid()) {
                        needed = 16 + ((bit<32>)hdr.quoted_ipv4.ihl << 2);
                        if (hdr.icmp.kind == 3 && hdr.icmp.code > 15) {
                            bad_icmp();
                        }
                    } else if (hdr.icmp.kind == 1 && hdr.icmp.code > 6) {
                        bad_icmp();
                    }
                    if (meta.l4_length < needed) {
                        bad_icmp();
                    }
                } else if (hdr.tcp.isValid()) {
                    bit<32> header = (bit<32>)hdr.tcp.data_offset << 2;
                    if (header < 20 || header > meta.l4_length) {
                        bad_tcp();
                    } else {
                        meta.payload_offset = meta.l4_offset + header;
                        meta.payload_length = meta.l4_length - header;
                    }
                    // ACK, and of the others only PSH, ECE and CWR.
                    if ((hdr.tcp.flags & 0x37) != 0x10) {
                        hint(FX_HINT_FLAGS);
                    }
                    if (hdr.tcp.data_offset > 5) {
                        if (hdr.timestamps.isValid()) {
                            if (hdr.timestamps.prefix == 0x0101080a) {
                                hint(FX_HINT_TIMESTAMPS);
                            } else {
                                hint(FX_HINT_TCP_OPTIONS);
                            }
                        } else {
                            hint(FX_HINT_TCP_OPTIONS);
                        }
                    }
                } else {
                    bad_tcp();
                }
                if (meta.malformed == 0) {
                    fx_checksum();
                    if (meta.bad_checksum != 0) {
                        meta.malformed = FX_BAD_CHECKSUM;
                    }
                }
                if (meta.malformed != 0) {
                    meta.verdict = FX_DROP;
                }
            }

            // Of no flow: is it welcome, and who serves it?
            if (meta.verdict == FX_EXCEPTION) {
                // An ICMP error is not the peer's: the sequence number it quotes decides, in the slow path.
                if (meta.kind == FX_SEGMENT && meta.filtered != 0) {
                    if (meta.family == 4) {
                        filter_ipv4.apply();
                    } else {
                        filter_ipv6.apply();
                    }
                }
                fx_rss();
            }

            if (meta.verdict == FX_FLOW) {
                fx_rx();
            }
            if (meta.verdict == FX_KERNEL) {
                kernel_ports.apply();
            } else if (meta.verdict == FX_EXCEPTION) {
                to_core();
            } else {
                drop();
            }
        }
    }
}

control FxEgress(inout headers hdr, inout metadata meta, inout standard_metadata_t standard_metadata) {
    // The MAC fills in the TCP checksum of what leaves through it.
    action add_mac_command() {
        hdr.nfp_mac_eg_cmd.setValid();
        hdr.nfp_mac_eg_cmd = { 0, 1, 0, 0 };
    }

    table mac_commands {
        key = { standard_metadata.egress_port: exact; }
        actions = { add_mac_command; NoAction; }
        default_action = NoAction();
        size = 8;
    }

    apply {
        mac_commands.apply();
    }
}

control FxComputeChecksum(inout headers hdr, inout metadata meta) {
    apply { }
}

control FxDeparser(packet_out packet, in headers hdr) {
    apply {
        packet.emit(hdr);
    }
}

V1Switch(FxParser(), FxVerifyChecksum(), FxIngress(), FxEgress(), FxComputeChecksum(), FxDeparser()) main;
