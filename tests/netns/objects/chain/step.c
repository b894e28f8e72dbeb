// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The programs of SOURCE as steps of a chain of tail calls: each STEP(entry) is a program that does
 * what the entry does, then applies the rule of its place and tail-calls the next. Compiled from
 * the same source, so that nothing is shared with what fuses the compiled programs.
 */
#include SOURCE
#include "chain.h"

/* The chain's rule, behind the member's verdict. */
static __always_inline int chain_on(struct xdp_md *ctx, int answer)
{
	__u32 only = 0;
	struct chain_state *state = bpf_map_lookup_elem(&chain_state, &only);
	struct chain_exits *exits;
	struct chain_rule *rule;
	__u32 verdict, place;
	int goes_on;

	if (!state)
		return XDP_ABORTED;
	/*
	 * By way of a map, of whose values the verifier knows nothing: Linux 6.1 takes the constant
	 * behind a tail call in a static function for its result, and deletes branches on others.
	 */
	*(volatile __u32 *)&state->verdict = answer;
	verdict = *(volatile __u32 *)&state->verdict;
	place = state->place;
	rule = bpf_map_lookup_elem(&chain_rules, &place);
	exits = bpf_map_lookup_elem(&chain_exits, &place);
	if (!rule || !exits)
		return XDP_ABORTED;

	goes_on = verdict < CHAIN_VERDICTS - 1 && rule->actions >> verdict & 1;
	/* A packet is counted where it leaves; on the way only where that cannot be told apart. */
	if (!rule->enforce || !goes_on || rule->actions & (rule->actions - 1)) {
		__u32 kind = verdict < CHAIN_VERDICTS - 1 ? verdict : CHAIN_VERDICTS - 1;

		exits->verdicts[kind]++;
	}
	if (rule->enforce && !goes_on)
		return verdict;
	return chain_go(ctx, state, place + 1);
}

/* Flattened: libbpf joins no program of a section to another by a call. */
#define STEP(entry)                                                            \
	SEC("xdp") __attribute__((flatten)) int step_##entry(struct xdp_md *c) \
	{                                                                      \
		return chain_on(c, entry(c));                                  \
	}

STEPS
