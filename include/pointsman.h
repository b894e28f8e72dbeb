/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Queues, ports and the map that AF_XDP sockets enter, from whoever manages a host's interfaces:
 * Pointsman's daemon, or an MTL Manager. All of it is here, there is no library: include it.
 *
 *	struct pointsman manager;
 *	int error = pointsman_connect(&manager, NULL, POINTSMAN_PATIENCE);
 *	if (!error)
 *		error = pointsman_register(&manager, &ifindex, 1);
 *	int queue = pointsman_take_queue(&manager, ifindex);
 *	... a socket, bound to the queue ...
 *	int map = pointsman_map_fd(&manager, ifindex);
 *	... bpf(BPF_MAP_UPDATE_ELEM) of the map: queue -> socket ...
 *	pointsman_add_port(&manager, ifindex, 20000);
 *
 * What was given is taken back by pointsman_close(), or when the process ends. Every function
 * returns a negative errno where something is wrong; pointsman_error() has words for it. One thread
 * at a time may use a connection. Interfaces are named by the kernel's numbers in the network
 * namespace of the thread that connects.
 *
 * The protocol is that of docs/imtl.md, dialect 1.1. It has reasons for refusals, and a manager of
 * 1.0 does not look at what tells the two apart; that one says -EPERM to everything.
 */
#ifndef POINTSMAN_H
#define POINTSMAN_H

#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <unistd.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Where managers listen, unless the variable MTL_MANAGER_SOCK_PATH says otherwise. */
#define POINTSMAN_SOCKET "/var/run/imtl/mtl_manager.sock"
/* How long an answer may take, in milliseconds. */
#define POINTSMAN_PATIENCE 10000
/* Interfaces that one client can register with. */
#define POINTSMAN_INTERFACES 8

#define POINTSMAN_RECORD 118

/* A connection. Only `fd` is of use outside: it is readable when the manager has gone. */
struct pointsman {
	int fd;
	uint32_t sequence;
	/* Answers do not say what they answer: after one that did not come, none can be told. */
	int lost;
};

/* Says what a negative value of these functions means. */
static inline const char *pointsman_error(int error)
{
	switch (error < 0 ? -error : error) {
	case ENOENT:
		return "no manager runs there";
	case ENODATA:
		return "the manager has none for this client";
	case ECONNREFUSED:
		return "the manager ended without removing its socket";
	case EPERM:
		return "not registered or not allowed; or the manager gives no reasons";
	case EIO:
		return "the manager could not do it, its log says why";
	case EBUSY:
		return "somebody else has it";
	case ENODEV:
		return "there is no such interface in this network namespace";
	case EINVAL:
		return "there is no such thing, or this client does not have it";
	case ENOSPC:
		return "none is left, or this client has as many as it may";
	case EOPNOTSUPP:
		return "the manager cannot do that here";
	case ETIMEDOUT:
		return "the manager does not answer";
	case ECONNRESET:
		return "the manager ended the connection";
	case EPROTO:
		return "what came is no answer: is that a manager?";
	case ENOTCONN:
		return "the connection was lost before";
	default:
		return strerror(error < 0 ? -error : error);
	}
}

static inline void pointsman_put16(uint8_t *record, unsigned offset, uint16_t value)
{
	value = htons(value);
	memcpy(record + offset, &value, sizeof(value));
}

static inline void pointsman_put32(uint8_t *record, unsigned offset, uint32_t value)
{
	value = htonl(value);
	memcpy(record + offset, &value, sizeof(value));
}

static inline uint32_t pointsman_get32(const uint8_t *record, unsigned offset)
{
	uint32_t value;

	memcpy(&value, record + offset, sizeof(value));
	return ntohl(value);
}

/* The errno of a call that failed, as these functions return it. */
static inline int pointsman_failed(void)
{
	switch (errno) {
	case EAGAIN:
		return -ETIMEDOUT;
	case EPIPE:
		return -ECONNRESET;
	default:
		return -errno;
	}
}

/* Connects to `path`, or where managers listen if that is NULL. 0 or a negative errno. */
static inline int pointsman_connect(struct pointsman *manager, const char *path, int milliseconds)
{
	struct timeval patience;
	struct sockaddr_un address;
	int error;

	patience.tv_sec = milliseconds / 1000;
	patience.tv_usec = milliseconds % 1000 * 1000;
	memset(&address, 0, sizeof(address));
	manager->sequence = 0;
	manager->lost = 0;
	manager->fd = -1;
	if (!path)
		path = getenv("MTL_MANAGER_SOCK_PATH");
	if (!path || !*path)
		path = POINTSMAN_SOCKET;
	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	/* The kernel takes zero for "for ever". */
	if (milliseconds <= 0)
		return -EINVAL;
	address.sun_family = AF_UNIX;
	strcpy(address.sun_path, path);
	manager->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (manager->fd < 0)
		return -errno;
	if (setsockopt(manager->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) ||
	    setsockopt(manager->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) ||
	    connect(manager->fd, (const struct sockaddr *)&address, sizeof(address))) {
		error = pointsman_failed();
		close(manager->fd);
		manager->fd = -1;
		return error;
	}
	return 0;
}

/* Ends the connection: all that was given is taken back. */
static inline void pointsman_close(struct pointsman *manager)
{
	if (manager->fd >= 0)
		close(manager->fd);
	manager->fd = -1;
}

static inline void pointsman_request(uint8_t *record, uint32_t type, uint32_t length)
{
	memset(record, 0, POINTSMAN_RECORD);
	memcpy(record, "IMTL", 4);
	pointsman_put32(record, 4, type);
	pointsman_put32(record, 8, length);
}

static inline int pointsman_send(struct pointsman *manager, const uint8_t *record)
{
	size_t sent = 0;

	if (manager->fd < 0 || manager->lost)
		return -ENOTCONN;
	while (sent < POINTSMAN_RECORD) {
		/* A manager that is gone is an error, not a signal that ends the application. */
		ssize_t count = send(manager->fd, record + sent, POINTSMAN_RECORD - sent,
				     MSG_NOSIGNAL);

		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0) {
			manager->lost = 1;
			return pointsman_failed();
		}
		sent += (size_t)count;
	}
	return 0;
}

/*
 * Takes what comes next: the number of bytes, which is 1 or a whole record. `*descriptor` is what
 * came beside it, or -1.
 */
static inline int pointsman_receive(struct pointsman *manager, uint8_t *record, int *descriptor)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec into;
	struct msghdr message;
	struct cmsghdr *found;
	size_t have = 1;
	ssize_t count;

	memset(&message, 0, sizeof(message));
	memset(&control, 0, sizeof(control));
	*descriptor = -1;
	into.iov_base = record;
	into.iov_len = 1;
	message.msg_iov = &into;
	message.msg_iovlen = 1;
	do {
		message.msg_control = control.bytes;
		message.msg_controllen = sizeof(control.bytes);
		count = recvmsg(manager->fd, &message, MSG_CMSG_CLOEXEC);
	} while (count < 0 && errno == EINTR);
	if (count < 0)
		return pointsman_failed();
	if (count == 0)
		return -ECONNRESET;
	found = CMSG_FIRSTHDR(&message);
	if (found && found->cmsg_level == SOL_SOCKET && found->cmsg_type == SCM_RIGHTS) {
		size_t came = (found->cmsg_len - CMSG_LEN(0)) / sizeof(int), at;

		/* The last of several, which is what nobody sends; none of them stays open. */
		for (at = 0; at < came; at++) {
			if (*descriptor >= 0)
				close(*descriptor);
			memcpy(descriptor, CMSG_DATA(found) + at * sizeof(int), sizeof(int));
		}
	}
	if (record[0] != 'I')
		return 1;
	while (have < POINTSMAN_RECORD) {
		count = recv(manager->fd, record + have, POINTSMAN_RECORD - have, 0);
		if (count < 0 && errno == EINTR)
			continue;
		/* Not silence: a part of it came. */
		if (count <= 0)
			return count == 0 ? -ECONNRESET : -EPROTO;
		have += (size_t)count;
	}
	return memcmp(record, "IMTL", 4) ? -EPROTO : POINTSMAN_RECORD;
}

/* Takes an answer of this type: its number, or a negative errno. */
static inline int pointsman_answer(struct pointsman *manager, uint32_t type, int32_t *number)
{
	uint8_t record[POINTSMAN_RECORD];
	int descriptor, got;

	for (;;) {
		got = pointsman_receive(manager, record, &descriptor);
		if (descriptor >= 0)
			close(descriptor);
		if (got != POINTSMAN_RECORD) {
			manager->lost = 1;
			return got < 0 ? got : -EPROTO;
		}
		/* A heartbeat's, which came too late. */
		if (pointsman_get32(record, 4) != 204)
			break;
	}
	if (pointsman_get32(record, 4) != type) {
		manager->lost = 1;
		return -EPROTO;
	}
	*number = (int32_t)pointsman_get32(record, 12);
	return 0;
}

/* Sends a request and takes the answer's number. */
static inline int pointsman_ask(struct pointsman *manager, const uint8_t *record, uint32_t type)
{
	int32_t number = 0;
	int error = pointsman_send(manager, record);

	if (!error)
		error = pointsman_answer(manager, type, &number);
	return error ? error : number;
}

/* The same, for what is done or not. */
static inline int pointsman_do(struct pointsman *manager, const uint8_t *record)
{
	int answer = pointsman_ask(manager, record, 201);

	if (answer > 0) {
		manager->lost = 1;
		return -EPROTO;
	}
	return answer;
}

/* The same, for numbers: 0 is none. */
static inline int pointsman_number(struct pointsman *manager, const uint8_t *record, uint32_t type)
{
	int answer = pointsman_ask(manager, record, type);

	if (answer == 0) {
		manager->lost = 1;
		return -EPROTO;
	}
	return answer;
}

/* Says who asks, and for which interfaces: before anything but a heartbeat. */
static inline int pointsman_register(struct pointsman *manager, const unsigned int *interfaces,
				     unsigned int count)
{
	uint8_t record[POINTSMAN_RECORD];
	struct utsname host;
	size_t length;
	unsigned int at;

	if (count > POINTSMAN_INTERFACES)
		return -EINVAL;
	pointsman_request(record, 101, 106);
	pointsman_put32(record, 12, (uint32_t)getpid());
	pointsman_put32(record, 16, (uint32_t)getuid());
	if (!uname(&host)) {
		length = strlen(host.nodename);
		memcpy(record + 20, host.nodename, length < 63 ? length : 63);
	}
	pointsman_put16(record, 84, (uint16_t)count);
	for (at = 0; at < count; at++)
		pointsman_put32(record, 86 + 4 * at, interfaces[at]);
	return pointsman_do(manager, record);
}

/*
 * Whether the manager answers. One of dialect 1.0 never does: -ETIMEDOUT, and the connection is as
 * good as it was.
 */
static inline int pointsman_heartbeat(struct pointsman *manager)
{
	uint8_t record[POINTSMAN_RECORD];
	int descriptor, error, got;

	pointsman_request(record, 102, 4);
	pointsman_put32(record, 12, ++manager->sequence);
	error = pointsman_send(manager, record);
	if (error)
		return error;
	for (;;) {
		got = pointsman_receive(manager, record, &descriptor);
		if (descriptor >= 0)
			close(descriptor);
		if (got == -ETIMEDOUT)
			return got;
		if (got != POINTSMAN_RECORD)
			break;
		if (pointsman_get32(record, 4) != 204)
			break;
		if (pointsman_get32(record, 12) == manager->sequence)
			return 0;
	}
	manager->lost = 1;
	return got < 0 ? got : -EPROTO;
}

/* A record about an interface. */
static inline void pointsman_about(uint8_t *record, uint32_t type, unsigned int ifindex)
{
	pointsman_request(record, type, 26);
	pointsman_put32(record, 12, ifindex);
}

/* Any free queue of an interface: its number, above 0. */
static inline int pointsman_take_queue(struct pointsman *manager, unsigned int ifindex)
{
	uint8_t record[POINTSMAN_RECORD];

	pointsman_about(record, 108, ifindex);
	return pointsman_number(manager, record, 202);
}

static inline int pointsman_give_queue(struct pointsman *manager, unsigned int ifindex,
				       uint16_t queue)
{
	uint8_t record[POINTSMAN_RECORD];

	pointsman_about(record, 109, ifindex);
	pointsman_put16(record, 16, queue);
	return pointsman_do(manager, record);
}

/*
 * Whether a descriptor is that of an XSKMAP (type 17): managers of dialect 1.0 give one of something
 * else where there is none. Without /proc, entering it will tell.
 */
static inline int pointsman_is_xskmap(int descriptor)
{
	char path[64], text[1024];
	const char *type;
	FILE *info;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", descriptor);
	info = fopen(path, "re");
	if (!info)
		return 1;
	text[fread(text, 1, sizeof(text) - 1, info)] = 0;
	fclose(info);
	type = strstr(text, "map_type:");
	return type && atoi(type + strlen("map_type:")) == 17;
}

/* The map that sockets on an interface enter: a descriptor, which is the caller's; -ENODATA: none. */
static inline int pointsman_map_fd(struct pointsman *manager, unsigned int ifindex)
{
	uint8_t record[POINTSMAN_RECORD];
	int descriptor = -1, got;

	pointsman_about(record, 107, ifindex);
	got = pointsman_send(manager, record);
	if (got)
		return got;
	do {
		if (descriptor >= 0)
			close(descriptor);
		got = pointsman_receive(manager, record, &descriptor);
		/* A heartbeat's answer may come too late. */
	} while (got == POINTSMAN_RECORD && pointsman_get32(record, 4) == 204);
	if (got == 1 && record[0] == ' ' && descriptor >= 0) {
		if (pointsman_is_xskmap(descriptor))
			return descriptor;
		close(descriptor);
		return -ENODATA;
	}
	if (got == 1 && record[0] == 'E' && descriptor < 0)
		return -ENODATA;
	if (descriptor >= 0)
		close(descriptor);
	manager->lost = 1;
	return got < 0 ? got : -EPROTO;
}

/* Lets UDP datagrams to a port go on to sockets, or no longer. */
static inline int pointsman_port(struct pointsman *manager, uint32_t type, unsigned int ifindex,
				 uint16_t port)
{
	uint8_t record[POINTSMAN_RECORD];

	pointsman_request(record, type, 6);
	pointsman_put32(record, 12, ifindex);
	pointsman_put16(record, 16, port);
	return pointsman_do(manager, record);
}

static inline int pointsman_add_port(struct pointsman *manager, unsigned int ifindex, uint16_t port)
{
	return pointsman_port(manager, 105, ifindex, port);
}

static inline int pointsman_delete_port(struct pointsman *manager, unsigned int ifindex,
					uint16_t port)
{
	return pointsman_port(manager, 106, ifindex, port);
}

/*
 * Makes the card lead UDP datagrams over IPv4 to a port to a queue: the location of the rule, above
 * 0. Addresses are never sent: the two dialects mean different ones by the same bytes.
 */
static inline int pointsman_steer(struct pointsman *manager, unsigned int ifindex, uint16_t port,
				  uint16_t queue)
{
	uint8_t record[POINTSMAN_RECORD];

	pointsman_about(record, 110, ifindex);
	pointsman_put16(record, 16, queue);
	/* UDP_V4_FLOW of <linux/ethtool.h> */
	pointsman_put32(record, 22, 2);
	pointsman_put16(record, 36, port);
	return pointsman_number(manager, record, 203);
}

static inline int pointsman_unsteer(struct pointsman *manager, unsigned int ifindex,
				    uint32_t location)
{
	uint8_t record[POINTSMAN_RECORD];

	pointsman_about(record, 111, ifindex);
	pointsman_put32(record, 18, location);
	return pointsman_do(manager, record);
}

#ifdef __cplusplus
}
#endif

#endif
