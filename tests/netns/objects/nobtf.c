// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * To be compiled without -g: an object without BTF, as older toolchains make them. It has no maps
 * and no globals, which libbpf reads from BTF.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

static __noinline int answer(struct xdp_md *ctx)
{
	return ctx->rx_queue_index + XDP_PASS;
}

SEC("xdp")
int nobtf(struct xdp_md *ctx)
{
	return answer(ctx);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
