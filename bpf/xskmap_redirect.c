// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Hands the packets of each receive queue to the AF_XDP socket that is registered for it. A queue
 * without a socket passes its packets to the next program or the stack.
 *
 * In "xdp.frags", so that it does not keep a chain from interfaces with a large MTU. A packet of
 * several buffers reaches a socket from Linux 6.6 on, if that was bound with XDP_USE_SG; otherwise
 * the kernel drops it after the verdict and counts it as a redirect error (the tracepoint
 * xdp:xdp_redirect_err).
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* By receive queue. Eight bytes each, so room for the largest NICs costs next to nothing. */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u32);
} xsks_map SEC(".maps");

SEC("xdp.frags")
int xsk_redirect(struct xdp_md *ctx)
{
	/* The flags are the answer for a queue without a socket, or beyond the map. */
	return bpf_redirect_map(&xsks_map, ctx->rx_queue_index, XDP_PASS);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
