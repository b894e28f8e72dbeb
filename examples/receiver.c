/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Counts the UDP datagrams to a port that one queue of an interface receives, with nothing but
 * <pointsman.h> and the kernel's own interface to AF_XDP (Documentation/networking/af_xdp.rst).
 *
 *	cc -O2 -Iinclude -o receiver examples/receiver.c
 *	receiver eth0 20000
 */
#define _GNU_SOURCE
#include <pointsman.h>

#include <inttypes.h>
#include <linux/bpf.h>
#include <linux/if_xdp.h>
#include <net/if.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#ifndef AF_XDP
#define AF_XDP 44
#endif
#ifndef SOL_XDP
#define SOL_XDP 283
#endif

#define FRAMES 4096u
#define FRAME_BYTES 4096u
#define RING 2048u

/* One of the kernel's rings: it writes one of the counters, we the other. */
struct ring {
	uint32_t *producer;
	uint32_t *consumer;
	void *entries;
};

static void die(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fputs("receiver: ", stderr);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	va_end(arguments);
	exit(1);
}

static struct ring map_ring(int socket, off_t page, size_t entry, struct xdp_ring_offset at)
{
	char *area = mmap(NULL, at.desc + RING * entry, PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_POPULATE, socket, page);

	if (area == MAP_FAILED)
		die("cannot map a ring: %s", strerror(errno));
	return (struct ring){
		.producer = (uint32_t *)(area + at.producer),
		.consumer = (uint32_t *)(area + at.consumer),
		.entries = area + at.desc,
	};
}

static void set(int socket, int option, const void *value, socklen_t length, const char *what)
{
	if (setsockopt(socket, SOL_XDP, option, value, length))
		die("cannot %s: %s", what, strerror(errno));
}

static const char *why_not_bound(void)
{
	switch (errno) {
	case EBUSY:
		return "the queue has a socket already";
	case EINVAL:
		return "there is no such queue";
	case ENETDOWN:
		return "the interface is down";
	default:
		return strerror(errno);
	}
}

/* Opens a socket on a queue, all frames given to the kernel. */
static int open_socket(unsigned int ifindex, unsigned int queue, char **frames, struct ring *fill,
		       struct ring *receive)
{
	struct xdp_umem_reg memory = { .len = (uint64_t)FRAMES * FRAME_BYTES,
				       .chunk_size = FRAME_BYTES };
	struct sockaddr_xdp address = { .sxdp_family = AF_XDP,
					.sxdp_ifindex = ifindex,
					.sxdp_queue_id = queue,
					.sxdp_flags = XDP_USE_NEED_WAKEUP };
	struct xdp_mmap_offsets offsets;
	socklen_t length = sizeof(offsets);
	uint32_t size = RING;
	int xsk = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);

	if (xsk < 0)
		die("cannot open an AF_XDP socket: %s%s", strerror(errno),
		    errno == EPERM ? ": this takes CAP_NET_RAW" : "");
	*frames = mmap(NULL, memory.len, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (*frames == MAP_FAILED)
		die("no memory for packets: %s", strerror(errno));
	memory.addr = (uint64_t)(uintptr_t)*frames;
	set(xsk, XDP_UMEM_REG, &memory, sizeof(memory), "register packet memory");
	set(xsk, XDP_UMEM_FILL_RING, &size, sizeof(size), "set up the fill ring");
	set(xsk, XDP_UMEM_COMPLETION_RING, &size, sizeof(size), "set up the completion ring");
	set(xsk, XDP_RX_RING, &size, sizeof(size), "set up the receive ring");
	if (getsockopt(xsk, SOL_XDP, XDP_MMAP_OFFSETS, &offsets, &length))
		die("cannot ask where the rings are: %s", strerror(errno));
	*receive = map_ring(xsk, XDP_PGOFF_RX_RING, sizeof(struct xdp_desc), offsets.rx);
	*fill = map_ring(xsk, (off_t)XDP_UMEM_PGOFF_FILL_RING, sizeof(uint64_t), offsets.fr);
	for (uint32_t at = 0; at < RING; at++)
		((uint64_t *)fill->entries)[at] = (uint64_t)at * FRAME_BYTES;
	__atomic_store_n(fill->producer, RING, __ATOMIC_RELEASE);
	/*
	 * The kernel frees a queue some time after its last socket was closed, and tells nobody
	 * (xp_put_pool in net/xdp/xsk_buff_pool.c).
	 */
	for (int tries = 0; bind(xsk, (const struct sockaddr *)&address, sizeof(address)); tries++) {
		if (errno != EBUSY || tries == 100)
			die("cannot bind to queue %u: %s", queue, why_not_bound());
		poll(NULL, 0, 10);
	}
	return xsk;
}

/* Makes the socket the one that a queue's packets go to. */
static void enter_map(int map, uint32_t queue, uint32_t xsk)
{
	union bpf_attr element;

	memset(&element, 0, sizeof(element));
	element.map_fd = (uint32_t)map;
	element.key = (uint64_t)(uintptr_t)&queue;
	element.value = (uint64_t)(uintptr_t)&xsk;
	if (syscall(SYS_bpf, BPF_MAP_UPDATE_ELEM, &element, sizeof(element)))
		die("cannot put the socket into the XSKMAP: %s", strerror(errno));
}

/* Takes what has come, and gives the frames back; how many packets, and their bytes. */
static uint32_t take(struct ring *receive, struct ring *fill, uint64_t *bytes)
{
	uint32_t from = *receive->consumer, given = *fill->producer;
	uint32_t to = __atomic_load_n(receive->producer, __ATOMIC_ACQUIRE);
	uint32_t count = to - from;

	for (; from != to; from++, given++) {
		struct xdp_desc *packet = (struct xdp_desc *)receive->entries + from % RING;

		/* Here an application would read packet->len bytes at frames + packet->addr. */
		*bytes += packet->len;
		((uint64_t *)fill->entries)[given % RING] = packet->addr / FRAME_BYTES * FRAME_BYTES;
	}
	__atomic_store_n(receive->consumer, from, __ATOMIC_RELEASE);
	__atomic_store_n(fill->producer, given, __ATOMIC_RELEASE);
	return count;
}

static uint64_t number(const char *text, uint64_t most, const char *what)
{
	char *end;
	unsigned long long value;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno || *end || *text < '0' || *text > '9' || value == 0 || value > most)
		die("%s is no %s", text, what);
	return value;
}

static void usage(FILE *to)
{
	fputs("usage: receiver INTERFACE PORT [COUNT]\n"
	      "Counts the UDP datagrams to PORT that come on a queue of INTERFACE, which the manager\n"
	      "gives; ends after COUNT. MTL_MANAGER_SOCK_PATH says where the manager listens if not\n"
	      "at " POINTSMAN_SOCKET ".\n", to);
}

int main(int count, char **arguments)
{
	struct pointsman manager;
	struct ring fill, receive;
	uint64_t packets = 0, bytes = 0, most = UINT64_MAX;
	unsigned int ifindex;
	uint16_t port;
	char *frames;
	int error, map, queue, xsk;

	if (count == 2 && !strcmp(arguments[1], "--help")) {
		usage(stdout);
		return 0;
	}
	if (count < 3 || count > 4) {
		usage(stderr);
		return 2;
	}
	port = (uint16_t)number(arguments[2], 65535, "UDP port");
	if (count == 4)
		most = number(arguments[3], UINT64_MAX, "number of packets");
	ifindex = if_nametoindex(arguments[1]);
	if (!ifindex)
		die("there is no interface %s here", arguments[1]);

	error = pointsman_connect(&manager, NULL, POINTSMAN_PATIENCE);
	if (error)
		die("cannot connect to the manager: %s", pointsman_error(error));
	error = pointsman_register(&manager, &ifindex, 1);
	if (error)
		die("cannot use %s: %s", arguments[1], pointsman_error(error));
	queue = pointsman_take_queue(&manager, ifindex);
	if (queue < 0)
		die("no queue of %s: %s", arguments[1], pointsman_error(queue));
	xsk = open_socket(ifindex, (unsigned int)queue, &frames, &fill, &receive);
	map = pointsman_map_fd(&manager, ifindex);
	if (map < 0)
		die("no XSKMAP of %s: %s", arguments[1], pointsman_error(map));
	enter_map(map, (uint32_t)queue, (uint32_t)xsk);
	error = pointsman_steer(&manager, ifindex, port, (uint16_t)queue);
	/* A card without such rules spreads datagrams: on other queues they go to the stack. */
	if (error < 0 && error != -EOPNOTSUPP && error != -EPERM)
		die("cannot lead port %u to queue %d: %s", port, queue, pointsman_error(error));
	error = pointsman_add_port(&manager, ifindex, port);
	if (error)
		die("cannot have port %u: %s", port, pointsman_error(error));
	printf("queue %d of %s: receiving\n", queue, arguments[1]);
	fflush(stdout);

	while (packets < most) {
		struct pollfd wait[] = { { .fd = xsk, .events = POLLIN },
					 { .fd = manager.fd, .events = POLLIN } };

		if (poll(wait, 2, -1) < 0 && errno != EINTR)
			die("cannot wait: %s", strerror(errno));
		if (wait[0].revents & (POLLERR | POLLNVAL))
			die("%s is down or gone", arguments[1]);
		packets += take(&receive, &fill, &bytes);
		if (wait[1].revents)
			die("the manager ended, and what it gave is gone; %" PRIu64 " packets", packets);
	}
	printf("%" PRIu64 " packets, %" PRIu64 " bytes\n", packets, bytes);
	pointsman_close(&manager);
	return 0;
}
