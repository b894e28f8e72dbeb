// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * An arena, which whoever loads it is asked to have at this address. By number, because headers of
 * older kernels have no name for it.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, 33); /* BPF_MAP_TYPE_ARENA */
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__ulong(map_extra, 0x1ull << 44);
} arena SEC(".maps");

SEC("xdp")
int shares(struct xdp_md *ctx)
{
	asm volatile("%[arena] = %[arena]" : : [arena] "r"(&arena));
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
