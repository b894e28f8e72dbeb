// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A value guarded by a spin lock, which the verifier knows by the map's BTF: per receive queue, the
 * packets and bytes, which always change together.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct total {
	struct bpf_spin_lock lock;
	__u64 packets;
	__u64 bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, struct total);
} totals SEC(".maps");

SEC("xdp")
int locked(struct xdp_md *ctx)
{
	__u64 bytes = ctx->data_end - ctx->data;
	__u32 queue = ctx->rx_queue_index;
	struct total *total = bpf_map_lookup_elem(&totals, &queue);

	if (!total) {
		struct total zero = {};

		bpf_map_update_elem(&totals, &queue, &zero, BPF_NOEXIST);
		total = bpf_map_lookup_elem(&totals, &queue);
		if (!total)
			return XDP_ABORTED;
	}
	bpf_spin_lock(&total->lock);
	total->packets++;
	total->bytes += bytes;
	bpf_spin_unlock(&total->lock);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
