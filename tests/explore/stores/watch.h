/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * watch.h -- sees every store of the library into a pool, whether it came through pmem/media.h or not.
 *
 * The library is compiled with -fsanitize=thread, which puts a call before each load and store, and is linked with the
 * functions of watch.c and watch_hooks.c instead of the race detector's. A store into a pool must be announced to the recorder by the
 * same thread before it flushes or drains anything; what is not, by-passed the helpers.
 */
#ifndef TESTS_EXPLORE_STORES_WATCH_H
#define TESTS_EXPLORE_STORES_WATCH_H

#include <stddef.h>
#include <stdint.h>

#include "pmem/media.h"

/** Addresses that belong to pools, from now on. */
void watch_range(const void *address, uint64_t size);
/** A store is about to be made, or was made, at address by the code at `caller`. */
void watch_store(const void *address, size_t size, const void *caller);
/** The recorder was told of an event by this thread. */
void watch_event(enum media_event event, const void *address, size_t size);
/** This thread is between operations: nothing may be unannounced. */
void watch_check(void);

/** Since the last reset. */
struct watch_counts {
    uint64_t stores;   /* into pools */
    uint64_t bypasses; /* of these, not announced */
};
struct watch_counts watch_counts(void);
/** Start counting anew. quiet: the by-passes are not printed. */
void watch_reset(int quiet);

#endif
