// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Programs in sections of all names that are in use: libbpf knows some of them, older loaders and
 * libxdp know others. An entry is asked for by its function; the section's name only tells whether
 * it takes packets of several buffers, and it must not keep others of the object from loading.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

SEC("xdp/named")
int in_xdp_named(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("xdp_prog")
int in_xdp_prog(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("prog")
int in_prog(struct xdp_md *ctx)
{
	return XDP_PASS;
}

/* libbpf: known, and not loaded unless asked for. */
SEC("?xdp")
int in_optional_xdp(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("xdp")
int in_xdp(struct xdp_md *ctx)
{
	return XDP_PASS;
}

/* Two programs of one section: the function's name alone tells them apart. */
SEC("xdp")
int in_xdp_too(struct xdp_md *ctx)
{
	return XDP_DROP;
}

/* For another hook. */
SEC("classifier")
int in_classifier(struct __sk_buff *skb)
{
	return TC_ACT_OK;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
