// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Programs that sign the packet, to prove which ran and in which order: the byte at `offset` counts
 * the signatures, and each program writes its `id` behind those before it. By default that is the
 * payload of a UDP datagram over IPv4. A packet that is too short for one more is left alone.
 *
 * Three entries of different names but one body, for ties of priority.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

const volatile __u8 id = 1;
/* 14 of Ethernet, 20 of IPv4, 8 of UDP. */
const volatile __u8 offset = 42;
const volatile int verdict = XDP_PASS;

static __always_inline int sign(struct xdp_md *ctx)
{
	__u8 *count = (__u8 *)(long)ctx->data + offset;
	void *end = (void *)(long)ctx->data_end;
	__u8 *place;

	if ((void *)(count + 1) > end)
		return verdict;
	place = count + 1 + *count;
	if ((void *)(place + 1) > end)
		return verdict;
	*place = id;
	*count += 1;
	return verdict;
}

SEC("xdp")
int mark(struct xdp_md *ctx)
{
	return sign(ctx);
}

SEC("xdp")
int mark_a(struct xdp_md *ctx)
{
	return sign(ctx);
}

SEC("xdp")
int mark_b(struct xdp_md *ctx)
{
	return sign(ctx);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
