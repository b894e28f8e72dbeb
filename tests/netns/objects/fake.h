/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What passes for a dispatcher, or nearly: its name, and a configuration of SIZE bytes that a test
 * fills with what it likes. It passes every packet.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

static const volatile struct {
	__u8 bytes[SIZE];
} conf = {};

#ifdef SECOND_MAP
int more;
#endif

SEC("xdp")
int xdp_dispatcher(struct xdp_md *ctx)
{
#ifdef SECOND_MAP
	more++;
#endif
	return conf.bytes[SIZE - 1] == 255 ? XDP_DROP : XDP_PASS;
}

#ifdef SAYS_VERSION
int (*dispatcher_version)[SAYS_VERSION] SEC("xdp_metadata");
#endif

char LICENSE[] SEC("license") = "GPL";
