// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * One program per verdict, constant, opaque to the verifier, or set from outside: for the tests of
 * order, chain-call actions, observe mode and counters. Only `v_port` reads the packet.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* Fixed at load: the verifier sees a constant. */
const volatile int verdict = XDP_PASS;
/* In .data: may change while the program runs, and the verifier cannot know it. */
int live_verdict = XDP_PASS;
/* For `v_port`: datagrams to `port` get `port_verdict`, all else passes. */
const volatile __u16 port = 20000;
const volatile int port_verdict = XDP_DROP;

SEC("xdp")
int v_aborted(struct xdp_md *ctx)
{
	return XDP_ABORTED;
}

SEC("xdp")
int v_drop(struct xdp_md *ctx)
{
	return XDP_DROP;
}

SEC("xdp")
int v_pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("xdp")
int v_tx(struct xdp_md *ctx)
{
	return XDP_TX;
}

/* Without a redirect helper before it: what counts is the code. */
SEC("xdp")
int v_redirect(struct xdp_md *ctx)
{
	return XDP_REDIRECT;
}

/* No XDP action at all. The kernel warns once and treats it as aborted. */
SEC("xdp")
int v_invalid(struct xdp_md *ctx)
{
	return 7;
}

/* Nor this: beyond the 32 bits of an action set, and negative. */
SEC("xdp")
int v_negative(struct xdp_md *ctx)
{
	return -1;
}

/* Pass on queue 0; no branch on it can be proven away. */
SEC("xdp")
int v_opaque(struct xdp_md *ctx)
{
	return ctx->rx_queue_index + XDP_PASS;
}

SEC("xdp")
int v_global(struct xdp_md *ctx)
{
	return verdict;
}

SEC("xdp")
int v_live(struct xdp_md *ctx)
{
	return live_verdict;
}

/* IPv4 without options or tags only. */
SEC("xdp")
int v_port(struct xdp_md *ctx)
{
	const void *data = (const void *)(long)ctx->data;
	const void *end = (const void *)(long)ctx->data_end;
	const struct ethhdr *eth = data;
	const struct iphdr *ip = data + sizeof(*eth);
	const struct udphdr *udp = data + sizeof(*eth) + sizeof(*ip);

	if ((const void *)(udp + 1) > end)
		return XDP_PASS;
	if (eth->h_proto != bpf_htons(ETH_P_IP) || ip->ihl != 5 || ip->protocol != IPPROTO_UDP)
		return XDP_PASS;
	return bpf_ntohs(udp->dest) == port ? port_verdict : XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
