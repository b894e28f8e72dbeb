// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The first version of the program in upgrade.h. */
#include <linux/types.h>

#define STEP 1
#define SLOTS 4
#define FLAGS 0

struct limit {
	__u32 rate;
	__u32 burst;
};

#include "upgrade.h"
