/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The work of one member, the same in every form. `trivial` gives a verdict that the verifier cannot
 * know: of a constant it would delete what follows, and a benchmark would time nothing. `parsing`
 * reads Ethernet, IPv4 and UDP and counts per CPU.
 */
#ifndef POINTSMAN_BENCH_WORK_H
#define POINTSMAN_BENCH_WORK_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u64);
} seen SEC(".maps");

static __always_inline int trivial(struct xdp_md *ctx, __u32 slot)
{
	__u32 queue;

	/* Read anew each time, as separate programs do, and always with the context's own offset. */
	asm volatile("%0 = *(u32 *)(%1 + %2)"
		     : "=r"(queue)
		     : "r"(ctx), "i"(__builtin_offsetof(struct xdp_md, rx_queue_index)));
	return queue + XDP_PASS;
}

static __always_inline int parsing(struct xdp_md *ctx, __u32 slot)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = data + sizeof(*eth);
	struct udphdr *udp = data + sizeof(*eth) + sizeof(*ip);
	__u64 *count;

	if ((void *)(udp + 1) > end)
		return XDP_PASS;
	if (eth->h_proto != bpf_htons(ETH_P_IP) || ip->protocol != IPPROTO_UDP)
		return XDP_PASS;
	if (udp->dest == bpf_htons(9))
		return XDP_DROP;
	count = bpf_map_lookup_elem(&seen, &slot);
	if (count)
		*count += 1;
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#endif
