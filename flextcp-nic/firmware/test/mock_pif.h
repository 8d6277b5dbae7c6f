/* Declarations in place of what the vendor's P4 tools generate for fx_main.p4, so that fx_glue_nfp.c can be parsed and its types
 * checked without them. Names and shapes as public code uses them; they prove nothing about the tools. */
#ifndef FLEXTCP_MOCK_PIF_H
#define FLEXTCP_MOCK_PIF_H

typedef unsigned int EXTRACTED_HEADERS_T;
typedef unsigned int MATCH_DATA_T;

enum { PIF_PLUGIN_RETURN_FORWARD, PIF_PLUGIN_RETURN_DROP, PIF_PLUGIN_RETURN_EXIT };

extern struct { unsigned int pkt_len; unsigned int pkt_num; } pif_pkt_info_global;

#define word(field) \
    unsigned int pif_plugin_meta_get__scalars__metadata__##field(EXTRACTED_HEADERS_T *headers); \
    void pif_plugin_meta_set__scalars__metadata__##field(EXTRACTED_HEADERS_T *headers, unsigned int value);

word(kind)
word(verdict)
word(queue)
word(flow)
word(generation)
word(hints)
word(malformed)
word(l3_offset)
word(l4_offset)
word(l4_length)
word(payload_offset)
word(payload_length)
word(bad_checksum)
word(family)
word(local0)
word(local1)
word(local2)
word(local3)
word(remote0)
word(remote1)
word(remote2)
word(remote3)
word(ports)
#undef word

void pif_plugin_init(void);
void pif_plugin_init_master(void);
int pif_plugin_fx_checksum(EXTRACTED_HEADERS_T *headers, MATCH_DATA_T *match);
int pif_plugin_fx_rss(EXTRACTED_HEADERS_T *headers, MATCH_DATA_T *match);
int pif_plugin_fx_rx(EXTRACTED_HEADERS_T *headers, MATCH_DATA_T *match);

#endif
