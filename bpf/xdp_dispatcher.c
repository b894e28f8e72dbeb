// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Runs up to ten programs one after another, each put in place of a stub by freplace: libxdp's
 * dispatcher protocol, whose names, layout and numbers are fixed. Programs of libxdp and of
 * Pointsman run side by side in it, and either may rebuild it with its own copy.
 *
 * Built once for each VERSION of the protocol (2: libxdp 1.3 to 1.5, 3: 1.6 and later), with
 * CHANGES_PACKETS for kernels that let only such functions be replaced by programs that change
 * packets (Linux 6.13, commit 81f6d0530ba0 "bpf: check changes_pkt_data property for extension
 * programs").
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define PROGRAMS 10
/* What a slot answers that nobody fills. Its bit is set in everybody's actions. */
#define CONTINUE 31

/* Read by whoever looks at the interface: nothing may be added, and no second map. */
struct config {
	__u8 magic;
	__u8 dispatcher_version;
	__u8 num_progs_enabled;
	__u8 is_xdp_frags;
	__u32 chain_call_actions[PROGRAMS];
	__u32 run_prios[PROGRAMS];
	__u32 program_flags[PROGRAMS];
#if VERSION >= 3
	__u8 is_xdp_devbound;
#endif
};

/* Frozen before loading, so that the verifier knows the values and deletes unused slots. */
static const volatile struct config conf = {};

static __always_inline int unfilled(struct xdp_md *ctx)
{
	int answer = CONTINUE;

#ifdef CHANGES_PACKETS
	/* Moves nothing; the verifier sees that it could. */
	bpf_xdp_adjust_tail(ctx, 0);
#endif
	/* Hides the value: a compiler that knew it would make it the caller's as well. */
	asm volatile("" : "+r"(answer) : "r"(ctx));
	return answer;
}

/* Global functions of this type are what a program can be put in place of. */
#define SLOT(n)                                         \
	__attribute__((noinline)) int prog##n(struct xdp_md *ctx) \
	{                                               \
		return ctx ? unfilled(ctx) : XDP_ABORTED; \
	}

SLOT(0)
SLOT(1)
SLOT(2)
SLOT(3)
SLOT(4)
SLOT(5)
SLOT(6)
SLOT(7)
SLOT(8)
SLOT(9)

/* A verdict of no action is final: a shift by more than 31 would take it for another one. */
#define RUN(n)                                                     \
	do {                                                       \
		if (programs <= n)                                 \
			return XDP_PASS;                           \
		__u32 answer = prog##n(ctx);                       \
		if (answer > CONTINUE ||                           \
		    !((1U << answer) & conf.chain_call_actions[n])) \
			return answer;                             \
	} while (0)

SEC("xdp")
int xdp_dispatcher(struct xdp_md *ctx)
{
	/* Once: the verifier removes the comparisons, and would leave ten loads. */
	__u8 programs = conf.num_progs_enabled;

	RUN(0);
	RUN(1);
	RUN(2);
	RUN(3);
	RUN(4);
	RUN(5);
	RUN(6);
	RUN(7);
	RUN(8);
	RUN(9);
	return XDP_PASS;
}

/* The version once more, where older readers look: in the type of a variable. */
int (*dispatcher_version)[VERSION] SEC("xdp_metadata");

char LICENSE[] SEC("license") = "Dual BSD/GPL";
