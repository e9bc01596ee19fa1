/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * background.h -- the pool's own thread: it reads block indexes that are too large for anybody to wait for at open, and keeps one
 * segment in reserve, so that an allocation does not wait for a file to be made.
 *
 * The thread begins with the pool's first need of it and ends in pa_close. It blocks all signals. A child process after fork has
 * no such thread: there, pa_close only gives memory back.
 */
#ifndef POOL_BACKGROUND_H
#define POOL_BACKGROUND_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/lock.h"

struct pa_pool;

/** What is left to read of a block index since open. */
enum background_index {
    BACKGROUND_INDEX_READY,   /* whoever needs it reads it, or has read it */
    BACKGROUND_INDEX_PENDING, /* the thread is going to read it */
    BACKGROUND_INDEX_READING
};

struct background {
    struct lock lock; /* LOCK_RANK_BACKGROUND */
    pthread_cond_t work, done;
    pthread_t thread;
    bool allowed; /* constant after open: else whoever needs something does it himself */
    /* under lock: */
    bool running, stop, spare_wanted;
    bool finishing;         /* all indexes are read; what a reallocation had staged in them is being freed */
    uint32_t wanted;        /* number of the index that somebody waits for, plus one */
    uint32_t pending;       /* indexes that are not READY */
    uint32_t indexes;       /* constant */
    _Atomic uint8_t *index; /* [indexes] enum background_index; may be read without the lock */
};

/** Set up without starting anything. indexes: how many block indexes there can be. PA_ENOMEM. */
int background_init(struct pa_pool *pool, bool allowed, uint32_t indexes);
/** After all is set up: begin with what is pending. */
void background_start(struct pa_pool *pool);
/** Stop the thread after what it is at, and wait for it. */
void background_stop(struct pa_pool *pool);
void background_fini(struct pa_pool *pool);

/** Index number is to be read by the thread. Before background_start. */
void background_add_index(struct pa_pool *pool, uint32_t number);
static inline bool background_is_pending(const struct background *b, uint32_t number)
{
    return atomic_load_explicit(&b->index[number], memory_order_acquire) != BACKGROUND_INDEX_READY;
}
/** Wait until the thread has read an index, or failed to; no core locked. */
void background_wait_index(struct pa_pool *pool, uint32_t number);
/** Wait for all of them; false if there was nothing to wait for. */
bool background_wait_all(struct pa_pool *pool);

#endif
