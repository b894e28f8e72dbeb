// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#define SIZE 84
#include "fake.h"
