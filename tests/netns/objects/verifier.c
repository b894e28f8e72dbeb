// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What the verifier refuses, in an object whose other program is fine: the refusal must name the
 * guilty one and show its log with the source lines below.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("xdp")
int fine(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("xdp")
int unchecked(struct xdp_md *ctx)
{
	const __u8 *packet = (const __u8 *)(long)ctx->data;
	__u8 protocol = packet[23]; /* never compared with data_end */

	return protocol == 17 ? XDP_DROP : XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
