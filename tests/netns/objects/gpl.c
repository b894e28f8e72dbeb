// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A program that calls what the kernel gives to GPL-compatible programs only. It cannot share a
 * fused program with `proprietary`.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* Not const, so that the verifier cannot prove the call away; 0 keeps the trace buffer empty. */
__u8 enabled = 0;

SEC("xdp")
int gpl(struct xdp_md *ctx)
{
	if (enabled)
		bpf_printk("%u bytes", ctx->data_end - ctx->data);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
