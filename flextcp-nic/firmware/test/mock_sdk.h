/* Declarations in place of the SDK's headers, so that hal_nfp.c can be parsed and its types checked without them. Names and
 * shapes as public code uses them; they prove nothing about the SDK. */
#ifndef FLEXTCP_MOCK_SDK_H
#define FLEXTCP_MOCK_SDK_H

#define __export
#define __import
#define __emem
#define __ctm
#define __shared
#define __xread
#define __xwrite
#define __xrw
#define __gpr
#define __MEID 0u
#define __ISLAND 32u
#define SIGNAL int
#define MEM_RING_INIT(name, size) static const unsigned int name = size
#define MEM_RING_GET_NUM(name) name
#define MEM_RING_GET_MEMADDR(name) name
#define PORT_TO_CHANNEL(port) port
#define PKT_NBI_OFFSET 128u
#define MAC_PREPEND_BYTES 8u
#define CTM_ALLOC_ERR 0xffffffffu
#define NFP_PCIE_DMA_CMD_CPP_TOKEN(x) ((x) << 20)
#define NFP_PCIE_DMA_CMD_CPP_ADDR_HI(x) (x)
#define NFP_PCIE_DMA_CMD_LENGTH(x) ((x) << 20)
#define NFP_PCIE_DMA_CMD_PCIE_ADDR_HI(x) (x)
#define NFP_PCIE_DMA_FROMPCI_MED 1u
#define NFP_PCIE_DMA_TOPCI_MED 2u
#define NFP_PCIE_DMA_FROMPCI_LO 3u
#define NFP_PCIE_DMA_TOPCI_LO 4u
#define PKT_CTM_SIZE_2048 3u

enum { local_csr_timestamp_low, local_csr_timestamp_high };
enum sync { sig_done };
struct nfp_pcie_dma_cmd { unsigned int __raw[4]; };
struct pkt_ms_info { unsigned int words; };
struct ctm_pkt_credits { unsigned int pkts; unsigned int bufs; };
struct nbi_meta_catamaran { struct { unsigned int isl; unsigned int pnum; unsigned int len; } pkt_info; };

void mem_read_atomic(void *to, const void *from, unsigned int size);
void mem_write_atomic(void *from, void *to, unsigned int size);
void mem_read32(void *to, const void *from, unsigned int size);
void mem_write32(void *from, void *to, unsigned int size);
void mem_test_set(void *data, void *at, unsigned int size);
void mem_incr32(void *at);
void mem_decr32(void *at);
int mem_ring_put(unsigned int ring, unsigned int address, void *data, unsigned int size);
int mem_ring_get(unsigned int ring, unsigned int address, void *data, unsigned int size);
unsigned int local_csr_read(int csr);
int ctx(void);
void ctx_swap(void);
int signal_test(SIGNAL *signal);
int __signal_number(SIGNAL *signal);
void wait_for_all(SIGNAL *a, SIGNAL *b);
void pcie_dma_set_sig(struct nfp_pcie_dma_cmd *command, unsigned int meid, int context, int signal);
void __pcie_dma_enq(int island, struct nfp_pcie_dma_cmd *command, unsigned int queue, enum sync sync, SIGNAL *signal);
void *pkt_ctm_ptr40(unsigned int island, unsigned int pnum, unsigned int offset);
void __pkt_nbi_recv(struct nbi_meta_catamaran *meta, unsigned int size, enum sync sync, SIGNAL *signal);
unsigned int pkt_ctm_alloc(
    struct ctm_pkt_credits *credits, unsigned int island, unsigned int size, int a, int b);
void pkt_ctm_free(unsigned int island, unsigned int pnum);
void pkt_mac_egress_cmd_write(void *buffer, unsigned int offset, int l3, int l4);
struct pkt_ms_info pkt_msd_write(void *buffer, unsigned int offset);
void pkt_nbi_send(
    unsigned int island, unsigned int pnum, struct pkt_ms_info *info, unsigned int length, int nbi, int channel, int a, int b,
    unsigned int size);
void msix_pf_send(int island, int bar, unsigned int entry, int mask);

#endif
