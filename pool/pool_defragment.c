/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pool_defragment.c -- giving space back to the file system (PAllocator, VLDB 2017, section 4.6): whole segments first, then
 * holes in the largest free blocks, then in free slabs. Each step holds one core's lock for one block, so allocations go on.
 */
#include "base/error.h"
#include "pool/pool.h"
#include "pool/pool_call.h"

int pool_release_segments(pa_pool *pool, uint64_t target, uint64_t *ret_released)
{
    int code = 0;
    (void)background_wait_all(pool);
    for (unsigned i = 0; code == 0 && i < pool->big_count; i++) { /* first these: their leaves lie in small segments */
        struct big *o = &pool->bigs[i];
        lock_acquire(&o->core->lock);
        code = big_load(o);
        if (code == 0)
            big_release_whole(o);
        lock_release(&o->core->lock);
    }
    for (unsigned i = 0; code == 0 && i < pool->core_count; i++) {
        lock_acquire(&pool->cores[i].lock);
        code = small_read_all(&pool->smalls[i]);
        if (code == 0)
            small_release_free(&pool->smalls[i]);
        lock_release(&pool->cores[i].lock);
    }
    if (code != 0)
        return code;
    return manager_trim(&pool->manager, target, ret_released);
}

/* One hole of one allocator; false in *any: nothing to punch is left. */
typedef int (*punch_fn)(pa_pool *pool, unsigned index, uint64_t *ret_released, bool *any);

static int punch_big(pa_pool *pool, unsigned index, uint64_t *ret_released, bool *any)
{
    struct core *core = pool->bigs[index].core;
    lock_acquire(&core->lock);
    int code = big_punch(&pool->bigs[index], ret_released, any);
    lock_release(&core->lock);
    return code;
}

static int punch_small(pa_pool *pool, unsigned index, uint64_t *ret_released, bool *any)
{
    lock_acquire(&pool->cores[index].lock);
    int code = small_punch(&pool->smalls[index], ret_released, any);
    lock_release(&pool->cores[index].lock);
    return code;
}

static int punch_until(pa_pool *pool, unsigned count, punch_fn punch, uint64_t target, uint64_t *released)
{
    for (unsigned i = 0; i < count; i++)
        for (bool any = true; any && *released < target;) {
            uint64_t bytes = 0;
            int code = punch(pool, i, &bytes, &any);
            *released += bytes;
            if (code != 0)
                return code;
        }
    return 0;
}

int pa_defragment(pa_pool *pool, uint64_t target_bytes, uint64_t *ret_released)
{
    POOL_CALL(pool);
    uint64_t released = 0;
    struct error_text before;
    error_save(&before);
    if (pool->read_only)
        return error_set(PA_EACCES, "the pool in %s is open read-only; open it without PA_READ_ONLY", pool->dir.path);
    int code = pool_release_segments(pool, target_bytes, &released);
    if (code == 0)
        code = punch_until(pool, pool->big_count, punch_big, target_bytes, &released);
    if (code == 0)
        code = punch_until(pool, pool->core_count, punch_small, target_bytes, &released);
    if (ret_released != NULL)
        *ret_released = released;
    return error_end(code, &before);
}
