// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A global of every kind in every section that has globals. The program copies them to the map
 * `out`, where a test reads what the program saw.
 */
#include <linux/bpf.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>

enum colour { RED, GREEN = 5, BLUE = -3 };

struct point {
	__s16 x;
	__s16 y;
};

struct shape {
	enum colour colour;
	struct point corners[2];
	struct {
		__u8 r;
		__u8 g;
	} inner;
	bool filled;
};

union either {
	__u32 number;
	__u8 bytes[4];
};

/* .rodata: frozen at load. */
const volatile __u8 ro_u8 = 1;
const volatile __u16 ro_u16 = 2;
const volatile __u32 ro_u32 = 3;
const volatile __u64 ro_u64 = 4;
const volatile __s8 ro_s8 = -1;
const volatile __s16 ro_s16 = -2;
const volatile __s32 ro_s32 = -3;
const volatile __s64 ro_s64 = -4;
const volatile bool ro_bool = true;
const volatile enum colour ro_colour = GREEN;
const volatile char ro_name[16] = "default";
const volatile __u32 ro_list[4] = { 1, 2, 3, 4 };
const volatile struct shape ro_shape = {
	.colour = BLUE,
	.corners = { { 1, -1 }, { 2, -2 } },
	.inner = { 7, 8 },
	.filled = true,
};
const volatile union either ro_either = { .number = 0x01020304 };
/* Static, so it has a symbol of its own file only. */
static const volatile __u32 ro_static = 9;

/* .data: initialised, may change. */
__u32 data_u32 = 30;
__s64 data_s64 = -40;
char data_name[8] = "data";
/* .bss: starts as zero. */
__u32 bss_u32;
struct point bss_point;
/* Sections of the author's own. */
__u64 custom_u64 SEC(".data.custom") = 500;
const volatile __u16 custom_ro_u16 SEC(".rodata.custom") = 600;

struct seen {
	__u8 ro_u8;
	__u16 ro_u16;
	__u32 ro_u32;
	__u64 ro_u64;
	__s8 ro_s8;
	__s16 ro_s16;
	__s32 ro_s32;
	__s64 ro_s64;
	bool ro_bool;
	enum colour ro_colour;
	char ro_name[16];
	__u32 ro_list[4];
	struct shape ro_shape;
	union either ro_either;
	__u32 ro_static;
	__u32 data_u32;
	__s64 data_s64;
	char data_name[8];
	__u32 bss_u32;
	struct point bss_point;
	__u64 custom_u64;
	__u16 custom_ro_u16;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct seen);
} out SEC(".maps");

#define COPY(name) __builtin_memcpy(&seen->name, (const void *)&name, sizeof(seen->name))

SEC("xdp")
int globals(struct xdp_md *ctx)
{
	__u32 only = 0;
	struct seen *seen = bpf_map_lookup_elem(&out, &only);

	if (!seen)
		return XDP_ABORTED;
	seen->ro_u8 = ro_u8;
	seen->ro_u16 = ro_u16;
	seen->ro_u32 = ro_u32;
	seen->ro_u64 = ro_u64;
	seen->ro_s8 = ro_s8;
	seen->ro_s16 = ro_s16;
	seen->ro_s32 = ro_s32;
	seen->ro_s64 = ro_s64;
	seen->ro_bool = ro_bool;
	seen->ro_colour = ro_colour;
	for (int i = 0; i < 16; i++)
		seen->ro_name[i] = ro_name[i];
	for (int i = 0; i < 4; i++)
		seen->ro_list[i] = ro_list[i];
	seen->ro_shape.colour = ro_shape.colour;
	for (int i = 0; i < 2; i++) {
		seen->ro_shape.corners[i].x = ro_shape.corners[i].x;
		seen->ro_shape.corners[i].y = ro_shape.corners[i].y;
	}
	seen->ro_shape.inner.r = ro_shape.inner.r;
	seen->ro_shape.inner.g = ro_shape.inner.g;
	seen->ro_shape.filled = ro_shape.filled;
	seen->ro_either.number = ro_either.number;
	seen->ro_static = ro_static;
	seen->data_u32 = data_u32;
	seen->data_s64 = data_s64;
	COPY(data_name);
	seen->bss_u32 = bss_u32;
	COPY(bss_point);
	seen->custom_u64 = custom_u64;
	seen->custom_ro_u16 = custom_ro_u16;
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
