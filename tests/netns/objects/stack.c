// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Programs by the stack that they use, in bytes: their names say how much. All pass on queue 0.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/*
 * Writes eight bytes at the far end of a frame and reads them back. In assembly, because a compiler
 * keeps only what it needs of an array; it has its own few spills at the near end.
 */
#define USE(bytes, value)                                        \
	({                                                       \
		__u64 kept = value;                              \
		asm volatile("*(u64 *)(r10 - " #bytes ") = %0\n" \
			     "%0 = *(u64 *)(r10 - " #bytes ")"   \
			     : "+r"(kept)                        \
			     :                                   \
			     : "memory");                        \
		kept;                                            \
	})

#define PROGRAM(bytes)                                             \
	SEC("xdp")                                                 \
	int stack_##bytes(struct xdp_md *ctx)                      \
	{                                                          \
		return USE(bytes, ctx->rx_queue_index) + XDP_PASS; \
	}

PROGRAM(8)
PROGRAM(64)
PROGRAM(256)
PROGRAM(400)
PROGRAM(480)
PROGRAM(504)
PROGRAM(512)

static __noinline __u32 sub_64(__u32 value)
{
	return USE(64, value);
}

static __noinline __u32 sub_256(__u32 value)
{
	return USE(256, value);
}

/* 400 in the main function, and 64 below. */
SEC("xdp")
int stack_400_sub_64(struct xdp_md *ctx)
{
	return USE(400, sub_64(ctx->rx_queue_index)) + XDP_PASS;
}

/* Two paths, of which the deeper one counts. */
SEC("xdp")
int stack_104_sub_256(struct xdp_md *ctx)
{
	__u32 queue = ctx->rx_queue_index;

	return USE(104, queue ? sub_64(queue) : sub_256(queue)) + XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
