// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Its types say a version that nobody knows yet. */
#define SIZE 124
#define SAYS_VERSION 7
#include "fake.h"
