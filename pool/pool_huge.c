/* SPDX-License-Identifier: BSD-3-Clause */
/* pool_huge.c -- which core serves a huge block, and blocks with a given alignment. */
#include "base/error.h"
#include "pool/pool.h"
#include "pool/pool_call.h"
#include "pool/pool_watch.h"

/* --- huge blocks ---------------------------------------------------------------------------------------------------------- */

/* The slow part, making the file, holds no core. */
int pool_allocate_huge(pa_pool *pool, pa_pptr *dst, size_t size, size_t alignment)
{
    struct segment *s = NULL;
    int code = huge_prepare(&pool->manager, size, alignment, &s);
    if (code == PA_ENOSPC) { /* segments without a block are space that nobody uses */
        uint64_t released;
        code = pool_release_segments(pool, UINT64_MAX, &released);
        if (code == 0)
            code = huge_prepare(&pool->manager, size, alignment, &s);
    }
    if (code != 0)
        return code;
    unsigned core = pool_lock_core(pool);
    huge_alloc(&pool->manager, &pool->cores[core], s, dst);
    lock_release(&pool->cores[core].lock);
    return pool_watch_allocated(pool, dst, size, 0);
}

/* Lock the core that a huge block belongs to; NULL, unlocked, if s is no huge block's by then. */
static struct core *lock_block(pa_pool *pool, struct segment *s)
{
    unsigned owner = atomic_load_explicit(&s->owner, memory_order_relaxed);
    struct core *core = &pool->cores[owner % pool->core_count];
    lock_acquire(&core->lock);
    if (atomic_load_explicit(&s->kind, memory_order_relaxed) == SEGMENT_KIND_HUGE &&
        atomic_load_explicit(&s->owner, memory_order_relaxed) == owner)
        return core;
    lock_release(&core->lock);
    return NULL;
}

int pool_free_huge(pa_pool *pool, struct segment *s, pa_pptr *dst, const struct owner_staging *staging, bool *ret_done)
{
    struct core *core = lock_block(pool, s);
    *ret_done = core != NULL;
    if (core == NULL)
        return 0;
    int code = huge_free(&pool->manager, core, s, dst, staging);
    lock_release(&core->lock);
    if (code == 0)
        huge_discard(&pool->manager, s); /* without the lock: the kernel may take long to free the pages */
    return code;
}

/* The block is marked busy rather than its core locked, because the file system may take long. */
int pool_resize_huge(pa_pool *pool, struct segment *s, pa_off off, size_t size, bool *ret_done)
{
    struct core *core = lock_block(pool, s);
    *ret_done = false;
    if (core == NULL)
        return error_set(PA_EINVAL, "the block was freed meanwhile");
    int code = huge_begin_resize(&pool->manager, s, off);
    lock_release(&core->lock);
    if (code != 0)
        return code;
    code = huge_resize(&pool->manager, s, size, ret_done);
    lock_acquire(&core->lock);
    huge_end_resize(s);
    lock_release(&core->lock);
    return code;
}

/* --- alignment ------------------------------------------------------------------------------------------------------------ */

/* The smallest class for size whose blocks are all aligned: slabs begin at multiples of 64 KiB, blocks lie side by side. */
static unsigned aligned_class(size_t size, size_t alignment)
{
    if (size > SMALL_SIZE_MAX)
        return SMALL_USER_CLASSES;
    unsigned class_index = small_class_of(size);
    while (class_index < SMALL_USER_CLASSES && small_class_bytes(class_index) % alignment != 0)
        class_index++;
    return class_index;
}

/* Is there an aligned place for the block in an empty segment? */
static bool fits_into_segment(const pa_pool *pool, size_t size, size_t alignment)
{
    uint64_t segment_size = pool->manager.geometry.segment_size;
    if (size > big_size_max(segment_size) || alignment >= segment_size)
        return false;
    uint64_t last = (segment_size - round_up(size, BIG_PAGE_BYTES)) & ~(alignment - 1);
    return last >= big_first_of(segment_size);
}

static int allocate_aligned(pa_pool *pool, pa_pptr *dst, size_t size, size_t alignment)
{
    unsigned class_index = aligned_class(size, alignment);
    if (class_index < SMALL_USER_CLASSES)
        return pool_allocate(pool, dst, small_class_bytes(class_index));
    if (fits_into_segment(pool, size, alignment))
        return pool_allocate_big(pool, dst, size, alignment);
    return pool_allocate_huge(pool, dst, size, alignment);
}

int pa_allocate_aligned(pa_pool *pool, pa_pptr *dst, size_t size, size_t alignment)
{
    POOL_CALL(pool);
    if (!pool_owner_is_possible(pool, dst))
        return pool_refuse_owner(pool, dst);
    if (!pa_is_null(*dst))
        return error_set(PA_EINVAL, "the owner pointer at %p is not null; free what it names first", (void *)dst);
    if (!is_power_of_two(alignment) || alignment > DIR_BASE_ALIGNMENT)
        return error_set(PA_EINVAL, "an alignment of %zu bytes is not a power of two up to 2 MiB", alignment);
    if (size == 0 || size >= pool->dir.reserved_bytes)
        return error_set(PA_EINVAL,
                         "a block of %zu bytes was asked for; 1 byte is the least, the pool's address range the most",
                         size);
    return allocate_aligned(pool, dst, size, alignment);
}
