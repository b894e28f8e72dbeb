// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* COUNT programs, each of which tail-calls the next when it wants the chain to go on. */
#include "work.h"

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 64);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} next SEC(".maps");

/* Loaded COUNT times, each with its own place. */
const volatile __u32 place = 0;

SEC("xdp")
int step(struct xdp_md *ctx)
{
	int verdict = WORK(ctx, place);

	if (verdict != XDP_PASS)
		return verdict;
	if (place + 1 < COUNT)
		bpf_tail_call(ctx, &next, place + 1);
	return XDP_PASS;
}
