// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Which queues have an owner, a byte of the packet for each.
 *
 * User space could ask for one queue after the other. Until Linux 6.8 each such answer waits until
 * no program runs that was running before (maybe_wait_bpf_programs in kernel/bpf/syscall.c, gone
 * from bpf_map_copy_value since), which for all queues takes tens of seconds. A program waits for
 * nobody.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* As in xsk_def_prog.c, whose map of this name takes the place of this one. */
#define QUEUES 1024

struct sockets {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, QUEUES);
	__type(key, __u32);
	__type(value, __u32);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, QUEUES);
	__type(key, __u32);
	__type(value, __u32);
	__array(values, struct sockets);
} owners SEC(".maps");

SEC("xdp")
int owners_look(struct xdp_md *ctx)
{
	__u8 *held = (void *)(long)ctx->data;

	if ((void *)(held + QUEUES) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	for (__u32 queue = 0; queue < QUEUES; queue++) {
		__u32 key = queue;

		held[queue] = bpf_map_lookup_elem(&owners, &key) != NULL;
	}
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
