// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The port filter of instances, which nobody configures: its verdicts are fixed, and its ports lie
 * where the program reads them without a lookup. That makes it a third shorter than the built-in
 * filter for a datagram that goes to a socket, and 64 KiB what is 512 there.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <stdbool.h>

#define PORTS_ARE_DEFINED
#define VERDICTS_ARE_FIXED
/* "Drop" for a listed port, on which the chain goes on to the AF_XDP redirect. */
#define LISTED XDP_DROP
#define UNLISTED XDP_PASS

/*
 * By port number as packets have it, in network order: 1 is listed, 0 is not. The one value of an
 * array map that is named after the section. What is read from a packet needs no check that it is
 * in bounds; for a number with its bytes swapped the verifier of Linux 6.1 wants one.
 */
__u8 ports[65536] SEC(".data.ports");

static __always_inline bool is_listed(__be16 number)
{
	return ports[number];
}

#include "udp_port_filter.c"
