// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Where a packet comes into a chain of tail calls. */
#include "chain.h"

SEC("xdp")
int enter(struct xdp_md *ctx)
{
	__u32 only = 0;
	struct chain_state *state = bpf_map_lookup_elem(&chain_state, &only);

	return state ? chain_go(ctx, state, 0) : XDP_ABORTED;
}

char LICENSE[] SEC("license") = "GPL";
