// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * An operator's own program, as the demo deploys it: drops packets that are larger than allowed.
 * It knows nothing of Pointsman, and needs no header but the kernel's.
 */
#include <linux/bpf.h>

#define SEC(name) __attribute__((section(name), used))

/* In bytes, from the Ethernet header on. Set by the node document's "globals". */
const volatile __u32 largest = 1514;

SEC("xdp")
int size_guard(struct xdp_md *ctx)
{
	return ctx->data_end - ctx->data > largest ? XDP_DROP : XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
