// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The same answer by every kind of subprogram: DROP if the first 32 bytes of the packet add up to
 * an odd number, PASS otherwise and for shorter packets. Each way uses its own stack.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define BYTES 32

struct bytes {
	__u8 at[BYTES];
	__u32 sum;
};

/* Copies the bytes; 0 if the packet has fewer. */
static __always_inline int take(struct xdp_md *ctx, struct bytes *bytes)
{
	const void *data = (const void *)(long)ctx->data;

	if (data + BYTES > (const void *)(long)ctx->data_end)
		return 0;
	__builtin_memcpy(bytes->at, data, BYTES);
	bytes->sum = 0;
	return 1;
}

static __always_inline int answer(__u32 sum)
{
	return sum & 1 ? XDP_DROP : XDP_PASS;
}

static __noinline __u32 add_static(const struct bytes *bytes)
{
	__u32 sum = 0;

	for (int i = 0; i < BYTES; i++)
		sum += bytes->at[i];
	return sum;
}

SEC("xdp")
int s_static(struct xdp_md *ctx)
{
	struct bytes bytes;

	return take(ctx, &bytes) ? answer(add_static(&bytes)) : XDP_PASS;
}

/* Verified by itself, with any context. */
__noinline int add_global(struct xdp_md *ctx)
{
	struct bytes bytes;

	return take(ctx, &bytes) ? (int)add_static(&bytes) : 0;
}

SEC("xdp")
int s_global(struct xdp_md *ctx)
{
	return answer(add_global(ctx));
}

static long add_one(__u32 index, void *context)
{
	struct bytes *bytes = context;

	bytes->sum += bytes->at[index & (BYTES - 1)];
	return 0;
}

/* The callback's address is part of the program: an instruction that has to be re-based. */
SEC("xdp")
int s_callback(struct xdp_md *ctx)
{
	struct bytes bytes;

	if (!take(ctx, &bytes))
		return XDP_PASS;
	bpf_loop(BYTES, add_one, &bytes, 0);
	return answer(bytes.sum);
}

/* A loop that the verifier has to walk, with a bound it learns from the packet. */
SEC("xdp")
int s_bounded(struct xdp_md *ctx)
{
	const __u8 *data = (const __u8 *)(long)ctx->data;
	const __u8 *end = (const __u8 *)(long)ctx->data_end;
	__u32 sum = 0;

	if (data + BYTES > end)
		return XDP_PASS;
#pragma clang loop unroll(disable)
	for (int i = 0; i < BYTES && data + i + 1 <= end; i++)
		sum += data[i];
	return answer(sum);
}

/* All of them; ABORTED if they disagree. */
SEC("xdp")
int s_mixed(struct xdp_md *ctx)
{
	int bounded = s_bounded(ctx);
	struct bytes bytes;

	if (!take(ctx, &bytes))
		return XDP_PASS;
	bpf_loop(BYTES, add_one, &bytes, 0);
	if (bytes.sum != add_static(&bytes) || bytes.sum != (__u32)add_global(ctx))
		return XDP_ABORTED;
	return bounded == answer(bytes.sum) ? bounded : XDP_ABORTED;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
