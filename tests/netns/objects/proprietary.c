// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A program whose author declares a licence that is not GPL-compatible. The fused program it is
 * part of must not declare one that is.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("xdp")
int proprietary(struct xdp_md *ctx)
{
	return ctx->rx_queue_index + XDP_PASS;
}

char LICENSE[] SEC("license") = "Proprietary";
