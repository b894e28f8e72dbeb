// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Its types say version 2; what its data says is up to the test. */
#define SIZE 124
#define SAYS_VERSION 2
#include "fake.h"
