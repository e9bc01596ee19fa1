/* SPDX-License-Identifier: BSD-3-Clause */
/* lock.c -- see lock.h. */
#include "base/lock.h"

#ifndef NDEBUG
_Thread_local unsigned lock_ranks_held;
#endif
