// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Decides UDP datagrams, IPv4 and IPv6, by their destination port: ports that are listed go on,
 * the others do not. Everything that is not UDP passes.
 *
 * What cannot be read as UDP for certain is decided like this:
 *  - A packet that ends inside a header, or whose header contradicts itself, passes: it is no
 *    datagram of any port, and the stack drops it and counts it in its own statistics.
 *  - The first fragment of a datagram carries the port and is decided by it. Later fragments carry
 *    none and get `later_fragments`: what lies where a UDP header would be is payload.
 *  - UDP inside something else (IP in IP, ESP, AH) is not looked for.
 */
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <stdbool.h>

#include "parse.h"

/*
 * IPv6 extension headers that are looked behind. RFC 8200 has use for five before UDP. A chain that
 * is longer gets the verdict for ports that are not listed: passing it would be a way around the
 * filter, because the stack would go on to the UDP header.
 */
#define MAX_EXTENSIONS 8

#define IPV4_FRAGMENT_OFFSET 0x1fff
#define IPV6_FRAGMENT_OFFSET 0xfff8

/* As in RFC 8200, 4.5; the kernel's headers for user space have no name for it. */
struct fragment_header {
	__u8 next;
	__u8 reserved;
	__be16 offset;
	__be32 identification;
};

/*
 * mtl.xdp.c and instance_filter.c have their ports elsewhere, and mean the verdicts the other way
 * round.
 */
#ifndef PORTS_ARE_DEFINED

#define LISTED XDP_PASS
#define UNLISTED XDP_DROP

/*
 * By port number, in host order: 1 is listed, 0 is not. An array, so that a lookup is one load
 * however many ports are listed; it takes 512 KiB.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, __u8);
} ports SEC(".maps");

static __always_inline bool is_listed(__be16 number)
{
	__u32 port = bpf_ntohs(number);
	const __u8 *value = bpf_map_lookup_elem(&ports, &port);

	return value && *value;
}

#endif

/*
 * The three verdicts. The defaults are a filter in front of the stack or of a socket. MTL's chain
 * means it the other way round: "drop" for a listed port, on which the chain goes on to the
 * AF_XDP redirect, and "pass" to the stack for the others.
 */
#ifdef VERDICTS_ARE_FIXED
enum { listed = LISTED, unlisted = UNLISTED, later_fragments = XDP_PASS };
#else
const volatile enum xdp_action listed = LISTED;
const volatile enum xdp_action unlisted = UNLISTED;
const volatile enum xdp_action later_fragments = XDP_PASS;
#endif

static __always_inline int by_port(struct xdp_md *ctx, __u32 offset)
{
	struct udphdr copy;
	const struct udphdr *udp = header(ctx, offset, sizeof(*udp), &copy);

	if (!udp)
		return XDP_PASS;
	return is_listed(udp->dest) ? listed : unlisted;
}

static __always_inline int filter_ipv4(struct xdp_md *ctx, __u32 offset)
{
	struct iphdr copy;
	const struct iphdr *ip = header(ctx, offset, sizeof(*ip), &copy);

	if (!ip || ip->version != 4 || ip->ihl < 5 || ip->protocol != IPPROTO_UDP)
		return XDP_PASS;
	if (ip->frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET))
		return later_fragments;
	return by_port(ctx, offset + ip->ihl * 4);
}

/* Headers that start with a next header and a length in units of 8 bytes beyond the first. */
static __always_inline bool is_extension(__u8 next)
{
	return next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_DSTOPTS;
}

/*
 * A later fragment names only the header that its datagram's fragmented part starts with. Behind
 * an extension header there may be UDP or anything else.
 */
static __always_inline bool may_be_udp(__u8 next)
{
	return next == IPPROTO_UDP || next == IPPROTO_FRAGMENT || is_extension(next);
}

static __always_inline int filter_ipv6(struct xdp_md *ctx, __u32 offset)
{
	union {
		struct ipv6hdr ip;
		struct ipv6_opt_hdr extension;
		struct fragment_header fragment;
	} copy;
	const struct ipv6hdr *ip = header(ctx, offset, sizeof(*ip), &copy);
	__u8 next;

	if (!ip || ip->version != 6)
		return XDP_PASS;
	next = ip->nexthdr;
	offset += sizeof(*ip);

	for (int extensions = 0; extensions < MAX_EXTENSIONS; extensions++) {
		if (next == IPPROTO_FRAGMENT) {
			const struct fragment_header *fragment =
				header(ctx, offset, sizeof(*fragment), &copy);

			if (!fragment)
				return XDP_PASS;
			next = fragment->next;
			if (fragment->offset & bpf_htons(IPV6_FRAGMENT_OFFSET))
				return may_be_udp(next) ? later_fragments : XDP_PASS;
			offset += sizeof(*fragment);
		} else if (is_extension(next)) {
			const struct ipv6_opt_hdr *extension =
				header(ctx, offset, sizeof(*extension), &copy);

			if (!extension)
				return XDP_PASS;
			next = extension->nexthdr;
			offset += (extension->hdrlen + 1) * 8;
		} else {
			break;
		}
	}
	if (next == IPPROTO_UDP)
		return by_port(ctx, offset);
	return may_be_udp(next) ? unlisted : XDP_PASS;
}

/*
 * What nearly every datagram is: untagged, IPv4 without options, with its port. That is seen by one
 * look at the length and two at four bytes each. It decides as the long way does and only saves
 * instructions, which is most of what a small packet's way through a chain costs. All members lie
 * at multiples of their sizes, so that the compiler reads each at once; the packet itself may begin
 * anywhere, which is no matter on x86-64 and arm64.
 */
struct plain_frame {
	__u8 macs[12];
	__be32 type_version; /* EtherType, version and length of the header, type of service */
	__u8 length_and_id[4];
	__be32 fragment_protocol; /* flags and fragment offset, time to live, protocol */
	__u8 checksum_and_addresses[10];
	struct udphdr udp;
};

_Static_assert(__builtin_offsetof(struct plain_frame, udp) ==
		       sizeof(struct ethhdr) + sizeof(struct iphdr),
	       "UDP follows a header of five words");

#define TYPE_VERSION bpf_htonl((ETH_P_IP << 16) | 0x4500)
#define TYPE_VERSION_MASK bpf_htonl(0xffffff00)
#define FRAGMENT_PROTOCOL bpf_htonl(IPPROTO_UDP)
#define FRAGMENT_PROTOCOL_MASK bpf_htonl((IPV4_FRAGMENT_OFFSET << 16) | 0xff)

/*
 * All other frames. A function of its own: a program saves and restores each register that any of
 * its code needs, for every packet.
 */
static __noinline int any_frame(struct xdp_md *ctx)
{
	__u32 offset;
	__be16 protocol = network_layer(ctx, &offset);

	if (protocol == bpf_htons(ETH_P_IP))
		return filter_ipv4(ctx, offset);
	if (protocol == bpf_htons(ETH_P_IPV6))
		return filter_ipv6(ctx, offset);
	return XDP_PASS;
}

/* Named as MTL's filter is, which tools that list a chain look for. */
SEC("xdp.frags")
int mtl_dp_filter(struct xdp_md *ctx)
{
	const struct plain_frame *plain = (const void *)(long)ctx->data;

	if (likely((const void *)(&plain->udp + 1) <= (const void *)(long)ctx->data_end) &&
	    likely((plain->type_version & TYPE_VERSION_MASK) == TYPE_VERSION) &&
	    likely((plain->fragment_protocol & FRAGMENT_PROTOCOL_MASK) == FRAGMENT_PROTOCOL)) {
		if (likely(is_listed(plain->udp.dest)))
			return listed;
		return unlisted;
	}
	return any_frame(ctx);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
