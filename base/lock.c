/* SPDX-License-Identifier: BSD-3-Clause */
/* lock.c -- see lock.h. */
#include "base/lock.h"

/* In every build: a user of lock.h may be built with assertions where the library is not. */
_Thread_local unsigned lock_ranks_held;
