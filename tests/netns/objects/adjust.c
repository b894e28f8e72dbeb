// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Programs that move the packet's ends, which ends the life of all pointers into it: members behind
 * them must read them anew. All pass, or abort if the kernel refuses. `a_meta_read` drops what
 * `a_meta` marked.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define MARK 0xfeedc0de

/* Puts four bytes of 0xaa before the packet. */
SEC("xdp")
int a_head(struct xdp_md *ctx)
{
	__u32 *head;

	if (bpf_xdp_adjust_head(ctx, -(int)sizeof(*head)))
		return XDP_ABORTED;
	head = (__u32 *)(long)ctx->data;
	if ((void *)(head + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	*head = 0xaaaaaaaa;
	return XDP_PASS;
}

/* Takes them off again, or four bytes of any packet. */
SEC("xdp")
int a_head_back(struct xdp_md *ctx)
{
	return bpf_xdp_adjust_head(ctx, sizeof(__u32)) ? XDP_ABORTED : XDP_PASS;
}

/* Takes the last four bytes off. */
SEC("xdp")
int a_tail(struct xdp_md *ctx)
{
	return bpf_xdp_adjust_tail(ctx, -4) ? XDP_ABORTED : XDP_PASS;
}

/* Marks the packet in its metadata, which lies before it and stays with it. */
SEC("xdp")
int a_meta(struct xdp_md *ctx)
{
	__u32 *meta;

	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(*meta)))
		return XDP_ABORTED;
	meta = (__u32 *)(long)ctx->data_meta;
	if ((void *)(meta + 1) > (void *)(long)ctx->data)
		return XDP_ABORTED;
	*meta = MARK;
	return XDP_PASS;
}

SEC("xdp")
int a_meta_read(struct xdp_md *ctx)
{
	const __u32 *meta = (const __u32 *)(long)ctx->data_meta;

	if ((const void *)(meta + 1) > (const void *)(long)ctx->data)
		return XDP_PASS;
	return *meta == MARK ? XDP_DROP : XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
