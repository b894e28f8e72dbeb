// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A map of maps that the object fills itself. libbpf does that only in a full load; the program
 * drops if it finds a slot empty, counts in the inner map of its queue's parity otherwise.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
};

struct inner even SEC(".maps");
struct inner odd SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
	__array(values, struct inner);
} outer SEC(".maps") = {
	.values = { &even, &odd },
};

SEC("xdp")
int nested(struct xdp_md *ctx)
{
	__u32 parity = ctx->rx_queue_index & 1;
	__u32 only = 0;
	void *inner = bpf_map_lookup_elem(&outer, &parity);
	__u64 *count;

	if (!inner)
		return XDP_DROP;
	count = bpf_map_lookup_elem(inner, &only);
	if (!count)
		return XDP_DROP;
	__sync_fetch_and_add(count, 1);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
