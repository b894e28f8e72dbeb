// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * All maps of the kernel, a line each. Opening them one by one by their ids would disturb them: a
 * program array that is opened and closed while the kernel clears it, its last user being gone, is
 * cleared twice, and the second time keeps a reference for ever (prog_array_map_clear in
 * kernel/bpf/arraymap.c: it takes one for work that may be queued already).
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#define KERNELS __attribute__((preserve_access_index))

struct seq_file;

struct bpf_map {
	__u32 id;
	char name[16];
} KERNELS;

struct bpf_iter_meta {
	struct seq_file *seq;
} KERNELS;

struct bpf_iter__bpf_map {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
} KERNELS;

SEC("iter/bpf_map")
int maps(struct bpf_iter__bpf_map *ctx)
{
	struct bpf_map *map = ctx->map;

	if (map)
		BPF_SEQ_PRINTF(ctx->meta->seq, "%u %s\n", map->id, map->name);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
