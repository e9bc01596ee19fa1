/* SPDX-License-Identifier: BSD-3-Clause */
/* background.c -- see background.h. */
#include "pool/background.h"

#include <stdlib.h>

#include "base/error.h"
#include "base/thread.h"
#include "pool/pool.h"

int background_init(pa_pool *pool, bool allowed, uint32_t indexes)
{
    struct background *b = &pool->background;
    b->index = calloc(indexes, sizeof *b->index);
    if (b->index == NULL)
        return error_set(PA_ENOMEM, "no memory to note %u block indexes", indexes);
    b->indexes = indexes;
    b->allowed = allowed;
    lock_init(&b->lock, LOCK_RANK_BACKGROUND);
    pthread_cond_init(&b->work, NULL);
    pthread_cond_init(&b->done, NULL);
    return 0;
}

void background_fini(pa_pool *pool)
{
    struct background *b = &pool->background;
    if (b->index == NULL)
        return;
    pthread_cond_destroy(&b->done);
    pthread_cond_destroy(&b->work);
    lock_fini(&b->lock);
    free(b->index);
    b->index = NULL;
}

/* --- the thread ----------------------------------------------------------------------------------------------------------- */

/* Under lock: the index to read next, one that is waited for first; or indexes. */
static uint32_t next_index(const struct background *b)
{
    if (b->wanted != 0 && atomic_load(&b->index[b->wanted - 1]) == BACKGROUND_INDEX_PENDING)
        return b->wanted - 1;
    uint32_t number = 0;
    while (b->pending != 0 && number < b->indexes && atomic_load(&b->index[number]) != BACKGROUND_INDEX_PENDING)
        number++;
    return b->pending != 0 ? number : b->indexes;
}

/* Under lock, which is released meanwhile. Whoever needs an index that could not be read tries himself, and gets the error. */
static void read_index(pa_pool *pool, uint32_t number)
{
    struct background *b = &pool->background;
    atomic_store(&b->index[number], BACKGROUND_INDEX_READING);
    lock_release(&b->lock);
    (void)pool_read_index(pool, number);
    lock_acquire(&b->lock);
    atomic_store_explicit(&b->index[number], BACKGROUND_INDEX_READY, memory_order_release);
    b->pending--;
    b->finishing = b->pending == 0;
    pthread_cond_broadcast(&b->done);
}

/* Under lock. What open left because its index was pending. */
static void free_staged(pa_pool *pool)
{
    struct background *b = &pool->background;
    lock_release(&b->lock);
    (void)pool_free_staged(pool); /* else the next reallocation by that core, or the next open, does it */
    lock_acquire(&b->lock);
    b->finishing = false;
    pthread_cond_broadcast(&b->done);
}

static void make_spare(pa_pool *pool)
{
    struct background *b = &pool->background;
    b->spare_wanted = false;
    lock_release(&b->lock);
    (void)manager_make_spare(&pool->manager); /* without one, whoever needs a segment makes it, or gets the error */
    lock_acquire(&b->lock);
}

static void *run(void *arg)
{
    pa_pool *pool = arg;
    struct background *b = &pool->background;
    lock_acquire(&b->lock);
    while (!b->stop) {
        uint32_t number = next_index(b);
        if (b->spare_wanted)
            make_spare(pool);
        else if (b->finishing)
            free_staged(pool);
        else if (number < b->indexes)
            read_index(pool, number);
        else
            lock_wait(&b->lock, &b->work);
    }
    lock_release(&b->lock);
    return NULL;
}

/* Under lock. Without a thread, nothing is pending and nobody waits. */
static void give_up(struct background *b)
{
    b->allowed = false;
    for (uint32_t i = 0; i < b->indexes; i++)
        atomic_store(&b->index[i], BACKGROUND_INDEX_READY);
    b->pending = 0;
    pthread_cond_broadcast(&b->done);
}

/* Under lock. */
static void ensure_running(pa_pool *pool)
{
    struct background *b = &pool->background;
    if (b->running || !b->allowed || b->stop)
        return;
    b->running = thread_start(&b->thread, run, pool);
    if (!b->running)
        give_up(b);
}

/* --- what is asked of it ---------------------------------------------------------------------------------------------------- */

static void want_spare(void *context)
{
    pa_pool *pool = context;
    struct background *b = &pool->background;
    lock_acquire(&b->lock);
    b->spare_wanted = true;
    ensure_running(pool);
    pthread_cond_signal(&b->work);
    lock_release(&b->lock);
}

void background_start(pa_pool *pool)
{
    struct background *b = &pool->background;
    if (!b->allowed)
        return;
    pool->manager.spare_context = pool;
    pool->manager.spare_wanted = want_spare;
    lock_acquire(&b->lock);
    if (b->pending != 0)
        ensure_running(pool);
    lock_release(&b->lock);
}

void background_stop(pa_pool *pool)
{
    struct background *b = &pool->background;
    if (b->index == NULL)
        return;
    lock_acquire(&b->lock);
    bool running = b->running;
    b->stop = true;
    b->running = false;
    pthread_cond_signal(&b->work);
    lock_release(&b->lock);
    if (running)
        pthread_join(b->thread, NULL);
}

void background_add_index(pa_pool *pool, uint32_t number)
{
    struct background *b = &pool->background;
    if (!b->allowed)
        return;
    atomic_store(&b->index[number], BACKGROUND_INDEX_PENDING);
    b->pending++;
}

void background_wait_index(pa_pool *pool, uint32_t number)
{
    struct background *b = &pool->background;
    if (!background_is_pending(b, number))
        return;
    lock_acquire(&b->lock);
    while (background_is_pending(b, number)) {
        b->wanted = number + 1;
        lock_wait(&b->lock, &b->done);
    }
    lock_release(&b->lock);
}

bool background_wait_all(pa_pool *pool)
{
    bool waited = false;
    for (uint32_t number = 0; number < pool->background.indexes; number++) {
        waited = waited || background_is_pending(&pool->background, number);
        background_wait_index(pool, number);
    }
    lock_acquire(&pool->background.lock);
    while (pool->background.finishing)
        lock_wait(&pool->background.lock, &pool->background.done);
    lock_release(&pool->background.lock);
    return waited;
}
