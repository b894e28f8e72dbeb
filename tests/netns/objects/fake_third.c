// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Its types say version 3, and its configuration has the size of version 2. */
#define SIZE 124
#define SAYS_VERSION 3
#include "fake.h"
