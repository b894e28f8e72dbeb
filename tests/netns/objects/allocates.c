// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A program that allocates an object of its own type (Linux 6.2 and later). The type goes to the
 * kernel as a number, its id in the BTF of this object: in the BTF of a chain that is another type.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

struct node {
	__u64 data;
};

extern void *bpf_obj_new_impl(__u64 local_type_id, void *meta) __ksym;
extern void bpf_obj_drop_impl(void *object, void *meta) __ksym;

SEC("xdp")
int allocates(struct xdp_md *ctx)
{
	struct node *node = bpf_obj_new_impl(bpf_core_type_id_local(struct node), 0);

	if (!node)
		return XDP_ABORTED;
	node->data = ctx->rx_queue_index;
	bpf_obj_drop_impl(node, 0);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
