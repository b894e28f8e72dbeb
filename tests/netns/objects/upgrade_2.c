// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The second version of the program in upgrade.h: as large, and with other limits. */
#include <linux/types.h>

#define STEP 1000
#define SLOTS 8
#define FLAGS 1 /* BPF_F_NO_PREALLOC */

struct limit {
	__u32 burst;
	__u32 rate;
};

#include "upgrade.h"
