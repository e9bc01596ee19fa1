/* SPDX-License-Identifier: BSD-3-Clause */
/* thread.h -- threads of the library's own. */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include <pthread.h>
#include <stdbool.h>

/** Start a thread that blocks all signals, so that the application's handlers do not run on it; false if there can be none. */
bool thread_start(pthread_t *ret, void *(*function)(void *arg), void *arg);

#endif
