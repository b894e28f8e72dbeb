// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * An AF_XDP socket on the first queue of an interface, opened with the packaged libxdp's own
 * functions: they find or load the program that feeds it. Prints how many packets came for each
 * line on standard input, and closes the socket at its end.
 *
 * The library is opened at run time, so that building takes no headers of it: what is declared
 * here is its interface (<xdp/xsk.h>), with NULL for every configuration.
 */
#include <dlfcn.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FRAMES 64
#define FRAME_SIZE 4096

/* struct xsk_ring_prod and xsk_ring_cons are the same. */
struct ring {
	uint32_t cached_prod, cached_cons, mask, size;
	uint32_t *producer, *consumer;
	void *ring;
	uint32_t *flags;
};

/* struct xdp_desc of <linux/if_xdp.h> */
struct descriptor {
	uint64_t addr;
	uint32_t len, options;
};

typedef int (*umem_create)(void **umem, void *area, uint64_t size, struct ring *fill,
			   struct ring *completion, const void *config);
typedef int (*socket_create)(void **socket, const char *interface, uint32_t queue, void *umem,
			     struct ring *rx, struct ring *tx, const void *config);
typedef int (*socket_fd)(const void *socket);
typedef void (*socket_delete)(void *socket);

static void *function(void *library, const char *name)
{
	void *found = dlsym(library, name);

	if (!found) {
		fprintf(stderr, "%s\n", dlerror());
		exit(1);
	}
	return found;
}

static void give(struct ring *fill, uint64_t frame)
{
	uint32_t at = *fill->producer;

	((uint64_t *)fill->ring)[at & fill->mask] = frame;
	__atomic_store_n(fill->producer, at + 1, __ATOMIC_RELEASE);
}

/* Takes what has come, and gives the frames back. */
static unsigned int take(struct ring *rx, struct ring *fill)
{
	uint32_t end = __atomic_load_n(rx->producer, __ATOMIC_ACQUIRE);
	uint32_t at = *rx->consumer;
	unsigned int count = 0;

	for (; at != end; at++, count++) {
		struct descriptor *got = (struct descriptor *)rx->ring + (at & rx->mask);

		give(fill, got->addr - got->addr % FRAME_SIZE);
	}
	__atomic_store_n(rx->consumer, at, __ATOMIC_RELEASE);
	return count;
}

int main(int argc, char **argv)
{
	struct ring fill = {}, completion = {}, rx = {}, tx = {};
	void *library = dlopen("libxdp.so.1", RTLD_NOW);
	void *umem, *socket, *area;
	unsigned int count = 0;
	int error;

	if (argc != 2 || !library) {
		fprintf(stderr, "usage: xsk_socket INTERFACE, with libxdp: %s\n", dlerror());
		return 1;
	}
	area = mmap(NULL, FRAMES * FRAME_SIZE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	error = ((umem_create)function(library, "xsk_umem__create"))(
		&umem, area, FRAMES * FRAME_SIZE, &fill, &completion, NULL);
	if (!error)
		error = ((socket_create)function(library, "xsk_socket__create"))(
			&socket, argv[1], 0, umem, &rx, &tx, NULL);
	if (error) {
		fprintf(stderr, "cannot open the socket: %s\n", strerror(-error));
		return 1;
	}
	for (uint64_t frame = 0; frame < FRAMES; frame++)
		give(&fill, frame * FRAME_SIZE);
	printf("open\n");
	fflush(stdout);
	for (;;) {
		struct pollfd wait[] = {
			{ .fd = STDIN_FILENO, .events = POLLIN },
			{ .fd = ((socket_fd)function(library, "xsk_socket__fd"))(socket),
			  .events = POLLIN },
		};
		char line[64];
		ssize_t got;

		poll(wait, 2, -1);
		count += take(&rx, &fill);
		if (!wait[0].revents)
			continue;
		got = read(STDIN_FILENO, line, sizeof(line));
		if (got <= 0)
			break;
		printf("%u\n", count);
		fflush(stdout);
	}
	((socket_delete)function(library, "xsk_socket__delete"))(socket);
	return 0;
}
