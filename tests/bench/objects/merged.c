// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What somebody would write by hand who merges COUNT programs into one. */
#include "work.h"

SEC("xdp")
int merged(struct xdp_md *ctx)
{
	int verdict;

#pragma unroll
	for (__u32 slot = 0; slot < COUNT; slot++) {
		verdict = WORK(ctx, slot);
		if (verdict != XDP_PASS)
			return verdict;
	}
	return XDP_PASS;
}
