// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What the AF_XDP sockets of a process are bound to, a record for each.
 *
 * A socket tells nobody: it has no name (getsockname is EOPNOTSUPP), and sock_diag knows it only
 * where the kernel was built with CONFIG_XDP_SOCKETS_DIAG, which Debian's are not. So the kernel's
 * own structures are read, by an iterator over the files of one process; their offsets come from
 * the kernel's BTF when this is loaded.
 */
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

/* linux/socket.h */
#define AF_XDP 44

struct seq_file;
struct task_struct;
struct file;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common {
	unsigned int inum;
};

struct net {
	struct ns_common ns;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct net_device {
	int ifindex;
	possible_net_t nd_net;
};

struct sock_common {
	unsigned short skc_family;
};

struct sock {
	struct sock_common __sk_common;
};

struct socket {
	struct sock *sk;
};

/* net/xdp_sock.h */
struct xdp_sock {
	struct net_device *dev;
	__u16 queue_id;
	enum { READY, BOUND, UNBOUND } state;
};

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	__u32 fd;
	struct file *file;
};

#pragma clang attribute pop

/* As sockets/look.rs reads it. */
struct record {
	__u32 fd;
	__u32 state;
	__u32 index; /* 0: no interface */
	__u32 queue;
	__u32 netns; /* of the interface: the inode of its namespace */
};

SEC("iter/task_file")
int xsk_look(struct bpf_iter__task_file *ctx)
{
	struct record record = {};
	struct file *file = ctx->file;
	struct net_device *dev;
	struct socket *socket;
	struct xdp_sock *xs;
	struct sock *sk;

	/* The iterator's last call has none. */
	if (!file)
		return 0;
	socket = bpf_sock_from_file(file);
	if (!socket)
		return 0;
	sk = socket->sk;
	if (!sk || sk->__sk_common.skc_family != AF_XDP)
		return 0;
	/* The sock is the structure's first member. */
	xs = (struct xdp_sock *)sk;
	record.fd = ctx->fd;
	record.state = BPF_CORE_READ(xs, state);
	record.queue = BPF_CORE_READ(xs, queue_id);
	dev = BPF_CORE_READ(xs, dev);
	if (dev) {
		record.index = BPF_CORE_READ(dev, ifindex);
		record.netns = BPF_CORE_READ(dev, nd_net.net, ns.inum);
	}
	bpf_seq_write(ctx->meta->seq, &record, sizeof(record));
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
