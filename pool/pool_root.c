/* SPDX-License-Identifier: BSD-3-Clause */
/* pool_root.c -- the root block. */
#include "base/error.h"
#include "pool/pool.h"
#include "pool/pool_call.h"
#include "pool/pool_watch.h"

/* Zero the block of usable bytes and say that it is ready. */
static void root_finish(pa_pool *pool, struct pm_root *line, size_t size, size_t usable)
{
    struct media_tally t = {0};
    const struct media *m = &pool->media;
    void *block = pa_direct(pool, line->root);
    if (pool_is_watched(pool))
        pool_watch_open(pool, line->root);
    media_set(m, block, 0, usable);
    media_persist(m, &t, block, usable); /* before check: which says that the block is zero */
    media_store64(m, &line->size, size);
    media_store64(m, &line->check,
                  superblock_root_check(line)); /* after size, in its line: a prefix never has it alone */
    media_persist(m, &t, line, sizeof *line);
    pool_count(pool, &t);
}

static int root_corrupt(const pa_pool *pool)
{
    return error_set(PA_ECORRUPT,
                     "%s/" POOL_FILE_NAME ": the root line at offset %u is damaged; restore the file from a backup",
                     pool->dir.path, POOL_ROOT_OFFSET);
}

/*
 * step                              | durable after it  | a crash here
 * ----------------------------------+-------------------+------------------------------------------------------------------
 * 1 check = ROOT_MAKING, fence      | the announcement  | pa_root begins again
 * 2 pool_allocate(&line->root)      | root              | pa_root goes on with 3 (size fits), or frees and begins again
 * 3 block zeroed, fence             | the zeros         | as 2
 * 4 size, then check, fence         | the root          | nothing to do
 */
static int root_make(pa_pool *pool, struct pm_root *line, size_t size)
{
    struct media_tally t = {0};
    media_store64(&pool->media, &line->check, ROOT_MAKING); /* again, if a killed process left it in the cache only */
    media_persist(&pool->media, &t, &line->check,
                  sizeof line->check); /* before the allocation: check zero means root null */
    pool_count(pool, &t);
    size_t usable = 0;
    int code = pool_find_size(pool, line->root, &usable);
    if (code == 0 && !pa_is_null(line->root) && usable < size) {
        /* An earlier process asked for less and died before it got it: that block was never anybody's. */
        struct segment *s = manager_segment(&pool->manager, line->root.segment);
        if (!segment_is_present(s) || usable == 0)
            return root_corrupt(pool);
        code = pool_free(pool, &line->root, NULL);
    }
    if (code == 0 && pa_is_null(line->root))
        code = pool_allocate(pool, &line->root, size);
    if (code == 0)
        code = pool_find_size(pool, line->root, &usable);
    if (code == 0)
        root_finish(pool, line, size, usable);
    return code;
}

static int root_locked(pa_pool *pool, size_t size, pa_pptr *ret_root)
{
    struct pm_root *line = pool_root_line(pool);
    if (line->check == 0 && !pa_is_null(line->root))
        return root_corrupt(pool);
    if (line->check == 0 || line->check == ROOT_MAKING) {
        if (pool->read_only)
            return error_set(PA_EACCES,
                             "the pool in %s has no root yet and is open read-only; open it without PA_READ_ONLY",
                             pool->dir.path);
        int code = root_make(pool, line, size);
        if (code != 0)
            return code;
    }
    bool fits = line->check == superblock_root_check(line);
    if (fits && size <= line->size && pool_is_pending(pool, line->root)) { /* the check vouches for it: do not wait */
        *ret_root = line->root;
        return 0;
    }
    size_t usable = 0;
    int code = pool_find_size(pool, line->root, &usable);
    if (code != 0)
        return code;
    if (!fits || usable == 0)
        return root_corrupt(pool);
    if (size > usable)
        return error_set(PA_EINVAL,
                         "the root block has %zu bytes, %zu were asked for; the size is fixed by the first pa_root",
                         usable, size);
    *ret_root = line->root;
    return 0;
}

int pa_root(pa_pool *pool, size_t size, pa_pptr *ret_root)
{
    POOL_CALL(pool);
    if (size == 0)
        return error_set(PA_EINVAL, "a root of 0 bytes was asked for");
    lock_acquire(&pool->root_lock);
    int code = root_locked(pool, size, ret_root);
    lock_release(&pool->root_lock);
    return code;
}
