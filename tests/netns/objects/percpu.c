// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Maps with one value per CPU, as array and as hash (keyed by interface and queue), whose entries a
 * document may fill and a test adds up.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct place {
	__u32 ifindex;
	__u32 queue;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} array SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 64);
	__type(key, struct place);
	__type(value, __u64);
} hash SEC(".maps");

SEC("xdp")
int percpu(struct xdp_md *ctx)
{
	struct place place = { ctx->ingress_ifindex, ctx->rx_queue_index };
	__u32 second = 1;
	__u64 first = 1;
	__u64 *count = bpf_map_lookup_elem(&array, &second);

	if (count)
		*count += 1;
	count = bpf_map_lookup_elem(&hash, &place);
	if (count)
		*count += 1;
	else
		bpf_map_update_elem(&hash, &place, &first, BPF_NOEXIST);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
