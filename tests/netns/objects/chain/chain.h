/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A chain of separately loaded programs joined by tail calls: the reference that is compared with
 * fused chains. The maps are shared by all its programs, and are filled anew for each chain: which
 * program is at which place, and by what rule the chain goes on behind it.
 */
#ifndef POINTSMAN_CHAIN_H
#define POINTSMAN_CHAIN_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define CHAIN_PLACES 64
/* One per action, and one for all other verdicts. */
#define CHAIN_VERDICTS 6

/* Programs by place. The first empty slot is the end of the chain. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, CHAIN_PLACES);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} chain_next SEC(".maps");

struct chain_rule {
	__u32 actions; /* bit n: go on after verdict n */
	__u32 enforce;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CHAIN_PLACES);
	__type(key, __u32);
	__type(value, struct chain_rule);
} chain_rules SEC(".maps");

struct chain_exits {
	__u64 verdicts[CHAIN_VERDICTS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CHAIN_PLACES);
	__type(key, __u32);
	__type(value, struct chain_exits);
} chain_exits SEC(".maps");

/* Of the one packet that is on its way. */
struct chain_state {
	__u32 place;
	__u32 verdict;
	__u64 end; /* packets that came to the end */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct chain_state);
} chain_state SEC(".maps");

/* Goes to the program at `place`. Comes back only where there is none. */
static __always_inline int chain_go(struct xdp_md *ctx, struct chain_state *state, __u32 place)
{
	state->place = place;
	bpf_tail_call(ctx, &chain_next, place);
	state->end++;
	return XDP_PASS;
}

#endif
