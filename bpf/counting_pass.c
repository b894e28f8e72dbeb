// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Counts packets and bytes, and passes them. The chain's own counters have verdicts only: this one
 * is for bytes, and for a count at one place of the chain that survives changes around it.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct count {
	__u64 packets;
	__u64 bytes; /* from the Ethernet header on, without the frame check sequence */
};

/* Per CPU: a reader adds them up, and packets never wait for each other. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct count);
} counts SEC(".maps");

SEC("xdp.frags")
int counting_pass(struct xdp_md *ctx)
{
	__u32 only = 0;
	struct count *count = bpf_map_lookup_elem(&counts, &only);

	if (count) {
		count->packets++;
		/* Not data_end - data: that is the first buffer only. */
		count->bytes += bpf_xdp_get_buff_len(ctx);
	}
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
