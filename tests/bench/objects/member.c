// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* One member of a chain, and the bare program that a chain is compared with. */
#include "work.h"

SEC("xdp")
int member(struct xdp_md *ctx)
{
	return WORK(ctx, 0);
}
