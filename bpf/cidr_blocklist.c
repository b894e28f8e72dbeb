// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Drops IPv4 and IPv6 packets from listed networks, whatever they carry. The source address stands
 * in the fixed header, so fragments, options and extension headers make no difference. A packet
 * that ends before that passes: the stack drops it.
 */
#include <linux/ip.h>
#include <linux/ipv6.h>

#include "parse.h"

/*
 * The longest prefix that holds an address decides. Its value is a number of the operator's
 * choice, such as that of a ticket, to find the entry's reason by. 0 exempts: it takes a network
 * out of a larger one that is listed.
 */
struct key_v4 {
	__u32 prefixlen;
	__u8 addr[4];
};

struct key_v6 {
	__u32 prefixlen;
	__u8 addr[16];
};

/* A prefix trie takes memory for its entries only, never in advance; the sizes are mere limits. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1 << 20);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct key_v4);
	__type(value, __u32);
} blocklist_v4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1 << 20);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct key_v6);
	__type(value, __u32);
} blocklist_v6 SEC(".maps");

static __always_inline int verdict(const __u32 *number)
{
	return number && *number ? XDP_DROP : XDP_PASS;
}

static __always_inline int from_ipv4(struct xdp_md *ctx, __u32 offset)
{
	struct key_v4 key = { .prefixlen = 32 };
	struct iphdr copy;
	const struct iphdr *ip = header(ctx, offset, sizeof(*ip), &copy);

	if (!ip)
		return XDP_PASS;
	__builtin_memcpy(key.addr, &ip->saddr, sizeof(key.addr));
	return verdict(bpf_map_lookup_elem(&blocklist_v4, &key));
}

static __always_inline int from_ipv6(struct xdp_md *ctx, __u32 offset)
{
	struct key_v6 key = { .prefixlen = 128 };
	struct ipv6hdr copy;
	const struct ipv6hdr *ip = header(ctx, offset, sizeof(*ip), &copy);

	if (!ip)
		return XDP_PASS;
	__builtin_memcpy(key.addr, &ip->saddr, sizeof(key.addr));
	return verdict(bpf_map_lookup_elem(&blocklist_v6, &key));
}

SEC("xdp.frags")
int cidr_blocklist(struct xdp_md *ctx)
{
	__u32 offset;
	__be16 protocol = network_layer(ctx, &offset);

	if (protocol == bpf_htons(ETH_P_IP))
		return from_ipv4(ctx, offset);
	if (protocol == bpf_htons(ETH_P_IPV6))
		return from_ipv6(ctx, offset);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
