// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The XSKMAP redirect in a slot of its own, where libxdp's AF_XDP sockets look for one: they know
 * the program, its maps and its version by these names and no others. A socket that finds it
 * counts itself in `refcnt` and puts itself into `xsks_map`.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u32);
} xsks_map SEC(".maps");

/*
 * Sockets that use the program, and one for the operator: the last socket to close takes the
 * program away when it counts down to zero, and so it never does.
 */
volatile int refcnt SEC(".data") = 1;

SEC("xdp.frags")
int xsk_def_prog(struct xdp_md *ctx)
{
	/* The variable's map belongs to the program only if it is referred to. */
	if (!refcnt)
		return XDP_PASS;
	/* The flags are the answer for a queue without a socket, or beyond the map. */
	return bpf_redirect_map(&xsks_map, ctx->rx_queue_index, XDP_PASS);
}

/* The version of these conventions. */
int (*xsk_prog_version)[1] SEC("xdp_metadata");

char LICENSE[] SEC("license") = "Dual BSD/GPL";
