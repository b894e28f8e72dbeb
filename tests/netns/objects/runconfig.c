// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A program whose author suggests a place in the chain by libxdp's XDP_RUN_CONFIG: `suggests` has
 * priority 10 and goes on on DROP alone, `silent` has no suggestion. What counts is the operator's
 * word: the tests show that a suggestion is shown and never applied.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/*
 * libxdp reads a number from the length of an array behind a pointer, which is what __uint makes.
 * The variable is named after the function, with an underscore before.
 */
struct {
	__uint(priority, 10);
	__uint(XDP_PASS, 0);
	__uint(XDP_DROP, 1);
} _suggests SEC(".xdp_run_config");

SEC("xdp")
int suggests(struct xdp_md *ctx)
{
	return XDP_DROP;
}

SEC("xdp")
int silent(struct xdp_md *ctx)
{
	return XDP_DROP;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
