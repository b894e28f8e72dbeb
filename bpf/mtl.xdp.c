// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The port filter for those who load it with libxdp, in the place of the MTL Manager's: found as
 * `mtl.xdp.o` in libxdp's search path, it has what that one's users look for. That is the program
 * `mtl_dp_filter`, its suggestion for the chain, and the map `udp4_dp_filter` with keys and values
 * of the same size. Pointsman itself does not load it.
 */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <stdbool.h>

#define PORTS_ARE_DEFINED
/* "Drop" for a listed port, on which the chain goes on to the AF_XDP redirect. */
#define LISTED XDP_DROP
#define UNLISTED XDP_PASS

/*
 * By port number, in host order: anything but 0 is listed. Users set entries to 0 and never delete
 * them, so there is room for every port; memory is taken per entry.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u16);
	__type(value, __u8);
} udp4_dp_filter SEC(".maps");

/*
 * What libxdp takes where its caller says nothing, each number the length of an array behind a
 * pointer: after MTL's filter the chain goes on for what it drops.
 */
struct {
	__uint(priority, 19);
	__uint(XDP_PASS, 0);
	__uint(XDP_DROP, 1);
} _mtl_dp_filter SEC(".xdp_run_config");

static __always_inline bool is_listed(__be16 number)
{
	__u16 port = bpf_ntohs(number);
	const __u8 *value = bpf_map_lookup_elem(&udp4_dp_filter, &port);

	return value && *value;
}

#include "udp_port_filter.c"
