/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pool_reallocate.c -- pa_reallocate: in place where the allocator can, else by way of a staging owner.
 *
 * Each core line has one staging owner on media, guarded by core->staging. Between two reallocations it is null.
 */
#include "base/cpu.h"
#include "base/error.h"
#include "pool/pool.h"
#include "pool/pool_call.h"
#include "pool/pool_watch.h"

/* --- in place ------------------------------------------------------------------------------------------------------------- */

static int resize_big(pa_pool *pool, struct segment *s, pa_pptr block, size_t size, bool *ret_done)
{
    struct big *o = pool_lock_big(pool, s);
    if (o == NULL)
        return error_set(PA_EINVAL, "the block was freed meanwhile");
    int code = big_resize(o, block, size, ret_done);
    lock_release(&o->core->lock);
    return code;
}

/* usable: the block's present size. *ret_done false: it has to move. */
static int resize_in_place(pa_pool *pool, pa_pptr block, size_t usable, size_t size, bool *ret_done)
{
    const struct manager *m = &pool->manager;
    struct segment *s = manager_segment(m, block.segment);
    *ret_done = false;
    if (s == NULL)
        return 0;
    switch (atomic_load(&s->kind)) {
    case SEGMENT_KIND_SMALL:
        *ret_done = size <= SMALL_SIZE_MAX && small_class_bytes(small_class_of(size)) == usable;
        return 0;
    case SEGMENT_KIND_BIG:
        if (size <= SMALL_SIZE_MAX || size > big_size_max(m->geometry.segment_size))
            return 0;
        return resize_big(pool, s, block, size, ret_done);
    case SEGMENT_KIND_HUGE:
        return pool_resize_huge(pool, s, manager_off(m, block), size, ret_done);
    default:
        return 0;
    }
}

/* --- moving --------------------------------------------------------------------------------------------------------------- */

#define COPY_BYTES 65536u

/* The contents, durable; in parts that stay in the cache until they are written back. */
static void copy_block(pa_pool *pool, pa_pptr to, pa_pptr from, size_t size)
{
    struct media_tally t = {0};
    char *target = pa_direct(pool, to);
    const char *source = pa_direct(pool, from);
    for (size_t done = 0; done < size; done += COPY_BYTES) {
        size_t part = size - done < COPY_BYTES ? size - done : COPY_BYTES;
        media_write(&pool->media, target + done, source + done, part);
        media_flush(&pool->media, &t, target + done, part);
    }
    media_drain(&pool->media, &t); /* before the entry that makes *dst name the copy */
    pool_count(pool, &t);
}

/* A staging owner that nobody uses; locked. */
static struct core *lock_some_staging(pa_pool *pool)
{
    unsigned own = cpu_current() % pool->core_count;
    for (unsigned i = 0; i < pool->core_count; i++) {
        struct core *core = &pool->cores[(own + i) % pool->core_count];
        if (lock_try(&core->staging))
            return core;
    }
    lock_acquire(&pool->cores[own].staging);
    return &pool->cores[own];
}

/*
 * Reallocation by moving.
 *
 * step                                        | durable after it     | a crash here recovers by
 * --------------------------------------------+----------------------+-----------------------------------------------------
 * 1 allocation into the staging owner         | the new block        | its own table; then open frees what is staged
 * 2 contents copied, fence                    | the copy             | open frees what is staged
 * 3 entry {free old, dst, REPLACE}, fence     | the decision         | torn: as 2; else redo 4 and 5
 * 4 dst = new block, fence; staging = null    | either               | redo
 * 5 old block's metadata, fence, DONE, fence  | the end              | nothing to do
 *
 * So at each instant exactly one of old and new is named by *dst, and the other by the staging owner, by a lane entry or by
 * nothing because it is free.
 */
static int move_staged(pa_pool *pool, const struct owner_staging *staging, pa_pptr *dst, size_t usable, size_t size)
{
    int code = 0;
    if (!pa_is_null(*staging->owner)) /* left by a reallocation that failed and could not clean up either */
        code = pool_free(pool, staging->owner, NULL);
    if (code == 0)
        code = pool_allocate(pool, staging->owner, size);
    if (code != 0)
        return code;
    if (pool_is_watched(pool)) /* what lies behind size is copied too */
        pool_watch_open(pool, *staging->owner);
    size_t room;
    code = pool_find_size(pool, *staging->owner, &room); /* fails if its block index just lacks DRAM */
    if (code == 0) {
        copy_block(pool, *staging->owner, *dst, room < usable ? room : usable);
        code = pool_free(pool, dst, staging);
    }
    if (code != 0) {
        struct error_text first;
        error_save(&first);
        (void)pool_free(pool, staging->owner, NULL); /* else the next one with this staging owner, or open, does it */
        error_restore(&first);
    }
    return code;
}

static int move(pa_pool *pool, pa_pptr *dst, size_t usable, size_t size)
{
    struct core *core = lock_some_staging(pool);
    struct owner_staging staging = {&manager_core_line(&pool->manager, core->index)->staging, (uint16_t)core->index};
    int code = move_staged(pool, &staging, dst, usable, size);
    lock_release(&core->staging);
    return code;
}

/* *dst names a block of usable bytes. */
static int resize(pa_pool *pool, pa_pptr *dst, size_t usable, size_t size)
{
    bool done;
    if (pool_is_watched(pool)) {
        pool_watch_open(pool, *dst);
        pool_watch_resizing(pool, *dst, usable, size);
    }
    int code = resize_in_place(pool, *dst, usable, size, &done);
    if (pool_is_watched(pool))
        pool_watch_resized(pool, *dst, usable, size);
    if (code != 0 || done)
        return code;
    code = move(pool, dst, usable, size);
    bool full = code == PA_ENOSPC || code == PA_ENOMEM;
    return full && size <= usable ? 0 : code; /* large enough as it is */
}

static int reallocate(pa_pool *pool, pa_pptr *dst, size_t usable, size_t size)
{
    int code = resize(pool, dst, usable, size);
    if (pool_is_watched(pool) && code == 0)
        pool_watch_sized(pool, *dst, size);
    return code;
}

int pa_reallocate(pa_pool *pool, pa_pptr *dst, size_t size)
{
    POOL_CALL(pool);
    if (!pool_owner_is_possible(pool, dst))
        return pool_refuse_owner(pool, dst);
    if (size == 0)
        return error_set(PA_EINVAL, "a block of 0 bytes was asked for; free it with pa_deallocate");
    if (pa_is_null(*dst))
        return pool_allocate(pool, dst, size);
    if (pool_is_root(pool, *dst))
        return error_set(PA_EINVAL, "the root block of the pool in %s cannot be reallocated", pool->dir.path);
    size_t usable;
    int code = pool_find_size(pool, *dst, &usable);
    if (code != 0)
        return code;
    if (usable == 0)
        return error_set(PA_EINVAL,
                         "segment %llu offset %llu is not the start of an allocated block; the pointer is wrong",
                         (unsigned long long)dst->segment, (unsigned long long)dst->offset);
    if ((uint64_t)((const char *)dst - (const char *)pa_direct(pool, *dst)) < usable)
        return error_set(PA_EINVAL, "the owner pointer at %p lies in the block that it names, which may move",
                         (void *)dst);
    return reallocate(pool, dst, usable, size);
}

/* --- open ----------------------------------------------------------------------------------------------------------------- */

static int free_staged(pa_pool *pool, uint32_t line)
{
    pa_pptr *staged = &manager_core_line(&pool->manager, line)->staging;
    if (pa_is_null(*staged) || pool_is_pending(pool, *staged))
        return 0;
    const pa_pptr *root = &pool_root_line(pool)->root;
    bool is_root = staged->segment == root->segment && staged->offset == root->offset;
    int code = is_root ? PA_EINVAL : pool_free(pool, staged, NULL);
    if (code == PA_EINVAL)
        code = error_set(PA_ECORRUPT,
                         "%s/" POOL_FILE_NAME ": the staging owner of core line %u is damaged; restore the file "
                         "from a backup",
                         pool->dir.path, line);
    return code;
}

int pool_free_staged(pa_pool *pool)
{
    int code = 0;
    for (uint32_t i = 0; code == 0 && i < pool->manager.geometry.lanes; i++) {
        struct lock *lock = i < pool->core_count ? &pool->cores[i].staging : NULL; /* else nobody uses the line */
        if (lock != NULL && !lock_try(lock)) /* a reallocation is at it, which frees first what it finds */
            continue;
        code = free_staged(pool, i);
        if (lock != NULL)
            lock_release(lock);
    }
    return code;
}
