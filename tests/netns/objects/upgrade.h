/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One program in two versions (STEP is 1 or 1000, which each packet adds everywhere), with a map of
 * every kind that an upgrade treats in its own way. `struct limit`, `slots` and `flagged` differ.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct flow {
	__u32 address;
	__u16 port;
	__u8 protocol;
	__u8 pad;
};

struct sum {
	__u64 packets;
	__u64 bytes;
};

/* Kept: filled by whoever likes. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, struct flow);
	__type(value, struct sum);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, struct sum);
} recent SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} packets SEC(".maps");

/* Lost: the same size, and other members (upgrade_1.c, upgrade_2.c). */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, struct limit);
} limits SEC(".maps");

/* Lost: another number of entries. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, __u32);
} slots SEC(".maps");

/* Lost: other flags. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__uint(map_flags, FLAGS);
	__type(key, __u32);
	__type(value, __u32);
} flagged SEC(".maps");

struct inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
};

/* Kept, with the maps that somebody put there. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u32);
	__array(values, struct inner);
} tables SEC(".maps");

/* Made anew, and filled with the map that is kept. */
struct inner only SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
	__array(values, struct inner);
} outer SEC(".maps") = {
	.values = { &only },
};

/* Made anew, and filled with the version's own program. */
int target(struct xdp_md *ctx);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__array(values, int(struct xdp_md *));
} targets SEC(".maps") = {
	.values = { &target },
};

/* Kept: without types, and none are needed. */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 4);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

/* Kept in the same object alone. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u64));
} untyped SEC(".maps");

__u64 seen;
__u64 limit = 10;
const volatile __u32 verdict = XDP_PASS;

static __always_inline int count(void)
{
	__u32 zero = 0;
	__u64 *sum = bpf_map_lookup_elem(&packets, &zero);
	void *inner = bpf_map_lookup_elem(&outer, &zero);
	__u64 *inside;

	if (!sum || !inner)
		return XDP_ABORTED;
	inside = bpf_map_lookup_elem(inner, &zero);
	if (!inside)
		return XDP_ABORTED;
	*sum += STEP;
	__sync_fetch_and_add(inside, STEP);
	__sync_fetch_and_add(&seen, STEP);
	inner = bpf_map_lookup_elem(&tables, &zero);
	inside = inner ? bpf_map_lookup_elem(inner, &zero) : NULL;
	if (inside)
		__sync_fetch_and_add(inside, STEP);
	return verdict;
}

SEC("xdp")
int counts(struct xdp_md *ctx)
{
	return count();
}

SEC("xdp")
int counts_too(struct xdp_md *ctx)
{
	return count();
}

SEC("xdp")
int target(struct xdp_md *ctx)
{
	__u32 zero = 0;
	__u64 *sum = bpf_map_lookup_elem(&packets, &zero);

	if (sum)
		*sum += STEP;
	return XDP_PASS;
}

SEC("xdp")
int jumps(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &targets, 0);
	return XDP_DROP;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
