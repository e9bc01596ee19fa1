/* SPDX-License-Identifier: BSD-3-Clause */
/* pool.c -- allocation, free and addresses: which object serves a call. */
#include "pool/pool.h"

#include "base/cpu.h"
#include "base/error.h"

/* --- owner pointers ------------------------------------------------------------------------------------------------------- */

static int bad_owner(const pa_pool *pool, const pa_pptr *dst)
{
    if (dst == NULL)
        return error_set(PA_EINVAL, "no owner pointer given");
    if ((uintptr_t)dst % sizeof *dst != 0)
        return error_set(PA_EINVAL, "the owner pointer at %p is not aligned to 16 bytes", (const void *)dst);
    if (pool->read_only)
        return error_set(PA_EACCES, "the pool in %s is open read-only", pool->dir.path);
    return error_set(PA_EINVAL, "the owner pointer at %p does not lie in a block of the pool in %s; owners must be in the pool",
                     (const void *)dst, pool->dir.path);
}

/* May *dst be an owner pointer: in the blocks of a segment, and aligned so that it does not straddle a line? */
static inline bool owner_is_possible(const pa_pool *pool, const pa_pptr *dst)
{
    const struct manager *m = &pool->manager;
    uint64_t off = (uint64_t)((const char *)dst - m->base);
    const struct segment *s = manager_segment(m, off >> m->shift);
    if (s == NULL || (off & (sizeof *dst - 1)) != 0 || pool->read_only)
        return false;
    uint64_t within = off & (m->geometry.segment_size - 1);
    return atomic_load_explicit(&s->kind, memory_order_relaxed) == SEGMENT_KIND_SMALL &&
           within >= small_first_slab_of(m->geometry.segment_size);
}

/* --- allocation ----------------------------------------------------------------------------------------------------------- */

/* The caller's own core if it is free, else a neighbour that is: a preempted holder must not stop the others. Locked. */
static unsigned lock_some_core(pa_pool *pool)
{
    unsigned own = cpu_current() % pool->core_count;
    for (unsigned i = 0; i < pool->core_count; i++) {
        unsigned core = own + i < pool->core_count ? own + i : own + i - pool->core_count;
        if (lock_try(&pool->cores[core].lock))
            return core;
    }
    lock_acquire(&pool->cores[own].lock);
    return own;
}

/* The pool cannot grow: any core's free block will do. */
static int allocate_anywhere(pa_pool *pool, pa_pptr *dst, unsigned class_index)
{
    int code = PA_ENOSPC;
    for (unsigned i = 0; code == PA_ENOSPC && i < pool->core_count; i++) {
        lock_acquire(&pool->cores[i].lock);
        code = small_alloc(&pool->smalls[i], class_index, dst, SMALL_NO_GROW);
        lock_release(&pool->cores[i].lock);
    }
    if (code == PA_ENOSPC)
        return error_set(PA_ENOSPC, "the pool in %s has no free block of %u bytes and cannot grow; free blocks, or raise max_size "
                                    "or the file system's space",
                         pool->dir.path, small_class_bytes(class_index));
    return code;
}

static int refuse_size(const pa_pool *pool, size_t size)
{
    if (size == 0)
        return error_set(PA_EINVAL, "a block of 0 bytes was asked for");
    if (size >= pool->dir.reserved_bytes)
        return error_set(PA_EINVAL, "a block of %zu bytes is larger than the pool's address range", size);
    return error_set(PA_ENOTSUP, "blocks over %u bytes are not available in this version (%zu asked for)", SMALL_SIZE_MAX, size);
}

int pool_allocate(pa_pool *pool, pa_pptr *dst, size_t size)
{
    if (__builtin_expect(size - 1 >= SMALL_SIZE_MAX, 0))
        return refuse_size(pool, size);
    unsigned class_index = small_class_of(size);
    unsigned core = lock_some_core(pool);
    int code = small_alloc(&pool->smalls[core], class_index, dst, SMALL_GROW);
    lock_release(&pool->cores[core].lock);
    if (__builtin_expect(code == PA_ENOSPC, 0))
        code = allocate_anywhere(pool, dst, class_index);
    return code;
}

int pa_allocate(pa_pool *pool, pa_pptr *dst, size_t size)
{
    if (__builtin_expect(!owner_is_possible(pool, dst), 0))
        return bad_owner(pool, dst);
    if (__builtin_expect(!pa_is_null(*dst), 0))
        return error_set(PA_EINVAL, "the owner pointer at %p is not null; free what it names first", (void *)dst);
    return pool_allocate(pool, dst, size);
}

/* --- free ----------------------------------------------------------------------------------------------------------------- */

int pa_deallocate(pa_pool *pool, pa_pptr *dst)
{
    if (__builtin_expect(!owner_is_possible(pool, dst), 0))
        return bad_owner(pool, dst);
    pa_pptr p = *dst;
    if (pa_is_null(p))
        return 0;
    struct segment *s = manager_segment(&pool->manager, p.segment);
    while (s != NULL && atomic_load_explicit(&s->kind, memory_order_acquire) == SEGMENT_KIND_SMALL) {
        unsigned owner = atomic_load_explicit(&s->owner, memory_order_relaxed);
        struct core *core = &pool->cores[owner];
        lock_acquire(&core->lock);
        if (__builtin_expect(atomic_load_explicit(&s->owner, memory_order_relaxed) == owner &&
                                 atomic_load_explicit(&s->kind, memory_order_relaxed) == SEGMENT_KIND_SMALL,
                             1)) {
            int code = small_free(&pool->smalls[owner], s, dst);
            lock_release(&core->lock);
            return code;
        }
        lock_release(&core->lock); /* it changed hands meanwhile */
    }
    return error_set(PA_EINVAL, "segment %llu offset %llu is not the start of an allocated block; the pointer is wrong",
                     (unsigned long long)p.segment, (unsigned long long)p.offset);
}

/* --- addresses ------------------------------------------------------------------------------------------------------------ */

size_t pool_usable_size(const pa_pool *pool, pa_pptr p)
{
    const struct segment *s = manager_segment(&pool->manager, p.segment);
    if (!segment_is_present(s) || atomic_load(&s->kind) != SEGMENT_KIND_SMALL)
        return 0;
    return small_usable_size(&pool->manager, s, p.offset);
}

size_t pa_usable_size(const pa_pool *pool, pa_pptr p)
{
    return pool_usable_size(pool, p);
}

void *pa_direct(const pa_pool *pool, pa_pptr p)
{
    const struct manager *m = &pool->manager;
    if (pa_is_null(p) || p.segment >= m->slots || p.offset >> m->shift != 0)
        return NULL;
    return m->base + (p.segment << m->shift) + p.offset;
}

pa_pptr pa_pptr_of(const pa_pool *pool, const void *address)
{
    const struct manager *m = &pool->manager;
    uint64_t off = (uint64_t)((const char *)address - m->base);
    if (off >= (uint64_t)m->slots << m->shift)
        return PA_NULL;
    return manager_pptr(m, off);
}

pa_off pa_off_of(const pa_pool *pool, pa_pptr p)
{
    return manager_off(&pool->manager, p);
}

pa_pptr pa_off_pptr(const pa_pool *pool, pa_off off)
{
    return manager_pptr(&pool->manager, off);
}

void *pa_off_direct(const pa_pool *pool, pa_off off)
{
    const struct manager *m = &pool->manager;
    return off == 0 || off >= (uint64_t)m->slots << m->shift ? NULL : m->base + off;
}

/* --- persistence for the application --------------------------------------------------------------------------------------- */

void pool_count(const pa_pool *pool, const struct media_tally *t)
{
    /* The counters are the only part of a pool that a const call changes. */
    struct pool_tally *to = (struct pool_tally *)&pool->tallies[cpu_current() % POOL_TALLIES];
    if (t->lines != 0)
        atomic_fetch_add_explicit(&to->lines, t->lines, memory_order_relaxed);
    if (t->fences != 0)
        atomic_fetch_add_explicit(&to->fences, t->fences, memory_order_relaxed);
}

void pa_flush(const pa_pool *pool, const void *address, size_t size)
{
    struct media_tally t = {0};
    media_flush(&pool->media, &t, address, size);
    pool_count(pool, &t);
}

void pa_drain(const pa_pool *pool)
{
    struct media_tally t = {0};
    media_drain(&pool->media, &t);
    pool_count(pool, &t);
}

void pa_persist(const pa_pool *pool, const void *address, size_t size)
{
    struct media_tally t = {0};
    media_persist(&pool->media, &t, address, size);
    pool_count(pool, &t);
}

void *pa_memcpy_persist(const pa_pool *pool, void *dst, const void *src, size_t size)
{
    struct media_tally t = {0};
    media_write(&pool->media, dst, src, size);
    media_persist(&pool->media, &t, dst, size);
    pool_count(pool, &t);
    return dst;
}
