/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pool_call.h -- how many calls are in progress, so that pa_close can say that it came too early. In builds with assertions only:
 * a counter that every call changes has no place on the fast path.
 */
#ifndef POOL_POOL_CALL_H
#define POOL_POOL_CALL_H

#include "base/cpu.h"
#include "pool/pool.h"

#ifndef NDEBUG
static inline struct pool_tally *pool_call_begin_(const pa_pool *pool)
{
    /* As pool_count: the counters are the only part of a pool that a const call changes. */
    struct pool_tally *t = (struct pool_tally *)&pool->tallies[cpu_current() % POOL_TALLIES];
    atomic_fetch_add_explicit(&t->calls, 1, memory_order_relaxed);
    return t;
}
static inline void pool_call_end_(struct pool_tally **t)
{
    atomic_fetch_sub_explicit(&(*t)->calls, 1, memory_order_release);
}
/** Count the call from here to the end of the block. */
#define POOL_CALL(pool)                                                                                                \
    struct pool_tally *pool_call_ __attribute__((cleanup(pool_call_end_))) = pool_call_begin_(pool);                   \
    (void)pool_call_
#else
#define POOL_CALL(pool) (void)sizeof(pool)
#endif

#endif
