// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Passes everything, at the end of a dispatcher's chain. A chain of one runs in place of the
 * dispatcher itself, where its chain-call actions mean nothing; a second program keeps it a chain.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("xdp.frags")
int pointsman_pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
