// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A timer that each packet sets, and whose callback counts. A timer is cancelled when the last file
 * or pin of its map goes: it shows whether the maps of a live chain are held.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define CLOCK_MONOTONIC 1

struct clock {
	struct bpf_timer timer;
	__u64 armed; /* by packets */
	__u64 fired;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct clock);
} clocks SEC(".maps");

const volatile __u64 delay_ns = 1000000;
/* Non-zero: the callback sets the timer again, so it runs without packets. */
const volatile __u8 again = 0;

static int fire(void *map, __u32 *key, struct clock *clock)
{
	__sync_fetch_and_add(&clock->fired, 1);
	if (again)
		bpf_timer_start(&clock->timer, delay_ns, 0);
	return 0;
}

SEC("xdp")
int arm(struct xdp_md *ctx)
{
	__u32 only = 0;
	struct clock *clock = bpf_map_lookup_elem(&clocks, &only);

	if (!clock)
		return XDP_ABORTED;
	/* Says EBUSY from the second packet on. */
	bpf_timer_init(&clock->timer, &clocks, CLOCK_MONOTONIC);
	if (bpf_timer_set_callback(&clock->timer, fire))
		return XDP_ABORTED;
	if (bpf_timer_start(&clock->timer, delay_ns, 0))
		return XDP_ABORTED;
	__sync_fetch_and_add(&clock->armed, 1);
	return XDP_PASS;
}

/* Timers are for GPL programs. */
char LICENSE[] SEC("license") = "GPL";
