// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * An object whose only program is for another hook: it has no entry for an XDP chain.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

SEC("tc")
int for_tc(struct __sk_buff *skb)
{
	return TC_ACT_OK;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
