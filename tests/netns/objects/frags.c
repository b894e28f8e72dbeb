// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Programs that take packets of several buffers, and one that does not: a chain takes them only if
 * every member does. `f_length` answers DROP to a packet of several buffers, which shows that one
 * arrived.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("xdp.frags")
int f_frags(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("xdp.frags")
int f_length(struct xdp_md *ctx)
{
	__u64 first = ctx->data_end - ctx->data;

	return bpf_xdp_get_buff_len(ctx) > first ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int f_plain(struct xdp_md *ctx)
{
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
