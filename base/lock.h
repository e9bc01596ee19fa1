/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lock.h -- a mutex with a rank. A thread takes locks in ascending rank only; debug builds verify it, so no order of calls
 * can deadlock. The ranks are the lock order of the whole library (docs/LOCKS.md tells what each guards).
 */
#ifndef BASE_LOCK_H
#define BASE_LOCK_H

#include <pthread.h>
#include <stdbool.h>

#include "base/bits.h"

enum lock_rank {
    LOCK_RANK_NONE,
    LOCK_RANK_ROOT,       /* pa_pool.root_lock: making the root block */
    LOCK_RANK_TREE,       /* struct tree of an application: splits and micro-logs */
    LOCK_RANK_STAGING,    /* core.staging: the staging owner of the core's line */
    LOCK_RANK_CORE,       /* struct core: one allocator object and its lane; never two at once */
    LOCK_RANK_INDEX,      /* struct tree of a block index (rule LOG), used under its core's lock */
    LOCK_RANK_MANAGER,    /* struct manager: segment table and free list */
    LOCK_RANK_BACKGROUND, /* struct background: what the pool's own thread is to do */
    LOCK_RANK_COUNT
};

struct lock {
    pthread_mutex_t mutex;
    enum lock_rank rank;
};

#ifndef NDEBUG
extern _Thread_local unsigned lock_ranks_held; /* bit r: a lock of rank r is held */
static inline void lock_note_(struct lock *l)
{
    pa_assert((lock_ranks_held >> l->rank) == 0);
    lock_ranks_held |= 1u << l->rank;
}
static inline void lock_forget_(struct lock *l)
{
    pa_assert(lock_ranks_held & (1u << l->rank));
    lock_ranks_held &= ~(1u << l->rank);
}
#else
static inline void lock_note_(struct lock *l)
{
    (void)l;
}
static inline void lock_forget_(struct lock *l)
{
    (void)l;
}
#endif

static inline void lock_init(struct lock *l, enum lock_rank rank)
{
    pthread_mutex_init(&l->mutex, NULL);
    l->rank = rank;
}

static inline void lock_fini(struct lock *l)
{
    pthread_mutex_destroy(&l->mutex);
}

static inline void lock_acquire(struct lock *l)
{
    pthread_mutex_lock(&l->mutex);
    lock_note_(l);
}

static inline bool lock_try(struct lock *l)
{
    if (pthread_mutex_trylock(&l->mutex) != 0)
        return false;
    lock_note_(l);
    return true;
}

/** Wait for a condition whose state the held lock guards. */
static inline void lock_wait(struct lock *l, pthread_cond_t *condition)
{
    lock_forget_(l);
    pthread_cond_wait(condition, &l->mutex);
    lock_note_(l);
}

static inline void lock_release(struct lock *l)
{
    lock_forget_(l);
    pthread_mutex_unlock(&l->mutex);
}

#endif
