// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The XSKMAP redirect in a slot of its own, where libxdp's AF_XDP sockets look for one: they know
 * the program, its maps and its version by these names and no others. A socket that finds it
 * counts itself in `refcnt` and puts itself into `xsks_map`.
 *
 * Whoever can write a map of sockets can put one into any place of it. So an application that
 * holds a queue gets a map of its own, and `owners` says which map is asked for a queue: nothing
 * that others do to theirs changes where its packets go. A queue that nobody holds is fed from
 * `xsks_map`, which all share that find the program as libxdp does.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* Room for the queues of the largest NICs. */
#define QUEUES 1024

/*
 * By receive queue. The kernel takes only maps of equal size into `owners`, and a client of MTL's
 * puts its sockets under the number of the queue, so each has room for all.
 */
struct sockets {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, QUEUES);
	__type(key, __u32);
	__type(value, __u32);
};

struct sockets xsks_map SEC(".maps");

/* By receive queue: the sockets of whoever holds it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, QUEUES);
	__type(key, __u32);
	__type(value, __u32);
	__array(values, struct sockets);
} owners SEC(".maps");

/*
 * Sockets that use the program, and one for the operator: the last socket to close takes the
 * program away when it counts down to zero, and so it never does.
 */
volatile int refcnt SEC(".data") = 1;

SEC("xdp.frags")
int xsk_def_prog(struct xdp_md *ctx)
{
	__u32 queue = ctx->rx_queue_index;
	void *own;
	long verdict;

	/* The flags are the answer for a queue without a socket, or beyond the map. */
	own = bpf_map_lookup_elem(&owners, &queue);
	if (likely(own)) {
		verdict = bpf_redirect_map(own, queue, XDP_PASS);
		/*
		 * Keeps the compiler from making one call of the two: where the map is not known, the
		 * kernel calls through a pointer (do_misc_fixups in kernel/bpf/verifier.c), which
		 * retpolines make a tenth of a packet's whole cost.
		 */
		asm volatile("" : "+r"(verdict));
		return verdict;
	}
	/* The variable's map belongs to the program only if it is referred to. */
	if (!refcnt)
		return XDP_PASS;
	return bpf_redirect_map(&xsks_map, queue, XDP_PASS);
}

/* The version of these conventions. */
int (*xsk_prog_version)[1] SEC("xdp_metadata");

char LICENSE[] SEC("license") = "Dual BSD/GPL";
