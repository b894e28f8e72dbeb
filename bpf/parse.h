/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Reading headers, for the programs that look into packets.
 */
#ifndef POINTSMAN_PARSE_H
#define POINTSMAN_PARSE_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/*
 * Tags that are looked behind: one (802.1Q), or two (802.1ad, and pairs of 802.1Q). A frame with
 * more is none of IP to these programs; the stack does not take it for IP either, unless somebody
 * stacked that many VLAN devices. Tags that the NIC strips are not in the frame at all.
 */
#define MAX_VLAN_TAGS 2

struct vlan_tag {
	__be16 tci;
	__be16 protocol; /* of what follows the tag */
};

/*
 * Gives `length` bytes of the packet at `offset`, or NULL if the packet ends before.
 *
 * The bytes are read where they lie if they lie in the first buffer. A program in "xdp.frags"
 * cannot count on that: most drivers put all headers there, some (mlx5 with striding receive
 * queues) leave it empty. Taking a short first buffer for a short packet would let every such
 * packet slip past a filter, so the rest is copied to `copy`. Packets of one buffer never pay for
 * it, except truncated ones.
 */
static __always_inline const void *header(struct xdp_md *ctx, __u32 offset, __u32 length,
					  void *copy)
{
	const void *end = (const void *)(long)ctx->data_end;
	const void *at = (const void *)(long)ctx->data + offset;

	if (at + length <= end)
		return at;
	if (bpf_xdp_load_bytes(ctx, offset, copy, length))
		return NULL;
	return copy;
}

/*
 * Gives the EtherType behind all VLAN tags, in network order, and where its header starts.
 * 0, which no frame can have there, stands for a frame that ends before.
 */
static __always_inline __be16 network_layer(struct xdp_md *ctx, __u32 *offset)
{
	union {
		struct ethhdr eth;
		struct vlan_tag tag;
	} copy;
	const struct ethhdr *eth = header(ctx, 0, sizeof(*eth), &copy);
	__be16 protocol;

	if (!eth)
		return 0;
	protocol = eth->h_proto;
	*offset = sizeof(*eth);

#pragma unroll
	for (int tags = 0; tags < MAX_VLAN_TAGS; tags++) {
		const struct vlan_tag *tag;

		if (protocol != bpf_htons(ETH_P_8021Q) && protocol != bpf_htons(ETH_P_8021AD))
			break;
		tag = header(ctx, *offset, sizeof(*tag), &copy);
		if (!tag)
			return 0;
		protocol = tag->protocol;
		*offset += sizeof(*tag);
	}
	return protocol;
}

#endif
