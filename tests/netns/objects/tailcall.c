// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The tail-call trap. `member` ends in `target`, so its verdict is PASS; the DROP behind the tail
 * call is only for a slot that is empty. A verifier that takes the tail call to fall through, as
 * Linux 6.1 does for static functions, takes DROP for the only verdict and deletes what the chain
 * has for PASS.
 *
 * `member_empty` really falls through. `member_in_sub` tail-calls from a static function with a
 * frame of 64 bytes: there `target` returns to the member, which hands its verdict on. The constant
 * is one to the verifier, as above: on Linux 6.1 a branch on its answer is deleted, so it is no
 * more fit to be inlined into a chain than `member` is.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

int target(struct xdp_md *ctx);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__array(values, int(struct xdp_md *));
} targets SEC(".maps") = {
	.values = { [0] = &target },
};

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} nothing SEC(".maps");

SEC("xdp")
int target(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("xdp")
int member(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &targets, 0);
	return XDP_DROP;
}

SEC("xdp")
int member_empty(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &nothing, 0);
	return XDP_DROP;
}

/* In assembly: a compiler would keep less of the stack, and fold the constant into the caller. */
static __noinline int jump(struct xdp_md *ctx)
{
	int fallen_through;

	asm volatile("*(u64 *)(r10 - 64) = %0" : : "r"(ctx) : "memory");
	bpf_tail_call(ctx, &targets, 0);
	asm volatile("%0 = %1" : "=r"(fallen_through) : "i"(XDP_DROP));
	return fallen_through;
}

SEC("xdp")
int member_in_sub(struct xdp_md *ctx)
{
	return jump(ctx);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
