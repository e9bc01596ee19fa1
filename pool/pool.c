/* SPDX-License-Identifier: BSD-3-Clause */
/* pool.c -- allocation, free and addresses: which object serves a call. */
#include "pool/pool.h"
#include "pool/pool_call.h"
#include "pool/pool_watch.h"

#include "base/cpu.h"
#include "base/error.h"

/* --- owner pointers ------------------------------------------------------------------------------------------------------- */

int pool_refuse_owner(const pa_pool *pool, const pa_pptr *dst)
{
    if (dst == NULL)
        return error_set(PA_EINVAL, "no owner pointer given");
    if ((uintptr_t)dst % sizeof *dst != 0)
        return error_set(PA_EINVAL, "the owner pointer at %p is not aligned to 16 bytes", (const void *)dst);
    if (pool->read_only)
        return error_set(PA_EACCES, "the pool in %s is open read-only; open it without PA_READ_ONLY", pool->dir.path);
    return error_set(PA_EINVAL,
                     "the owner pointer at %p does not lie in a block of the pool in %s; owners must be in the pool",
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
    enum segment_kind kind = atomic_load_explicit(&s->kind, memory_order_relaxed);
    if (kind == SEGMENT_KIND_SMALL || kind == SEGMENT_KIND_BIG)
        return within >= segment_data_of(m->geometry.segment_size);
    return kind == SEGMENT_KIND_HUGE && off >= atomic_load_explicit(&s->block, memory_order_relaxed) &&
           off + sizeof *dst <= atomic_load_explicit(&s->end, memory_order_relaxed);
}

bool pool_owner_is_possible(const pa_pool *pool, const pa_pptr *dst)
{
    return owner_is_possible(pool, dst);
}

/* --- allocation ----------------------------------------------------------------------------------------------------------- */

/* The caller's own core if it is free, else a neighbour that is: a preempted holder must not stop the others. Locked. */
static inline unsigned lock_some_core(pa_pool *pool)
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

unsigned pool_lock_core(pa_pool *pool)
{
    return lock_some_core(pool);
}

/* The pool cannot grow: any core's free block will do. */
static int allocate_anywhere(pa_pool *pool, pa_pptr *dst, unsigned class_index, bool blank)
{
    int code = PA_ENOSPC;
    for (unsigned i = 0; code == PA_ENOSPC && i < pool->core_count; i++) {
        lock_acquire(&pool->cores[i].lock);
        code = (blank ? small_alloc_blank : small_alloc)(&pool->smalls[i], class_index, dst, SMALL_NO_GROW);
        lock_release(&pool->cores[i].lock);
    }
    if (code == PA_ENOSPC)
        return error_set(PA_ENOSPC,
                         "the pool in %s has no free block of %u bytes and cannot grow; free blocks, or raise max_size "
                         "or the file system's space",
                         pool->dir.path, small_class_bytes(class_index));
    return code;
}

static int refuse_size(size_t size)
{
    if (size == 0)
        return error_set(PA_EINVAL, "a block of 0 bytes was asked for");
    return error_set(PA_EINVAL, "a block of %zu bytes is larger than the pool's address range", size);
}

/* From a free block of any allocator that the core serves, except one; the core is locked. */
static int allocate_big_others(pa_pool *pool, unsigned core, uint32_t except, pa_pptr *dst, size_t size,
                               size_t alignment)
{
    int code = PA_ENOSPC;
    for (uint32_t i = 0; code == PA_ENOSPC && i < pool->big_count; i++) {
        bool other = i != except && pool_core_of_big(pool, i) == core;
        if (other && !background_is_pending(&pool->background, i) && !pa_is_null(*big_index_owner(&pool->manager, i)))
            code = big_alloc(&pool->bigs[i], size, alignment, dst, BIG_NO_GROW);
    }
    return code;
}

/* The core is locked. Its own allocator first; while that is being read, the young one grows. *ret_unread: both are being read. */
static int allocate_big_on(pa_pool *pool, unsigned core, pa_pptr *dst, size_t size, size_t alignment, bool *ret_unread)
{
    uint32_t number = core;
    if (__builtin_expect(pool->young || background_is_pending(&pool->background, number), 0))
        number += pool->big_count / 2;
    struct big *o = &pool->bigs[number];
    *ret_unread = background_is_pending(&pool->background, number);
    if (*ret_unread)
        return PA_ENOSPC;
    int code = big_alloc(o, size, alignment, dst, BIG_NO_GROW);
    if (code == PA_ENOSPC)
        code = allocate_big_others(pool, core, number, dst, size, alignment);
    return code == PA_ENOSPC ? big_alloc(o, size, alignment, dst, BIG_GROW) : code;
}

static int allocate_big_anywhere(pa_pool *pool, pa_pptr *dst, size_t size, size_t alignment)
{
    int code = PA_ENOSPC;
    for (unsigned i = 0; code == PA_ENOSPC && i < pool->core_count; i++) {
        lock_acquire(&pool->cores[i].lock);
        code = allocate_big_others(pool, i, UINT32_MAX, dst, size, alignment);
        lock_release(&pool->cores[i].lock);
    }
    return code;
}

/* On some core, else from a free block of any. *ret_unread: no allocator could grow, as none was read yet. */
static int try_allocate_big(pa_pool *pool, pa_pptr *dst, size_t size, size_t alignment, bool *ret_unread)
{
    unsigned core = lock_some_core(pool);
    int code = allocate_big_on(pool, core, dst, size, alignment, ret_unread);
    lock_release(&pool->cores[core].lock);
    return code == PA_ENOSPC ? allocate_big_anywhere(pool, dst, size, alignment) : code;
}

int pool_allocate_big(pa_pool *pool, pa_pptr *dst, size_t size, size_t alignment)
{
    bool unread;
    int code = try_allocate_big(pool, dst, size, alignment, &unread);
    if (code == PA_ENOSPC && (background_wait_all(pool) || unread))
        code = try_allocate_big(pool, dst, size, alignment, &unread);
    if (code == PA_ENOSPC)
        return error_set(
            PA_ENOSPC,
            "the pool in %s has no free block of %zu bytes and cannot grow; free blocks, or raise max_size "
            "or the file system's space",
            pool->dir.path, size);
    return pool_watch_allocated(pool, dst, size, code);
}

int pool_allocate(pa_pool *pool, pa_pptr *dst, size_t size)
{
    if (__builtin_expect(size - 1 >= SMALL_SIZE_MAX, 0)) {
        if (size == 0 || size >= pool->dir.reserved_bytes)
            return refuse_size(size);
        if (size > big_size_max(pool->manager.geometry.segment_size))
            return pool_allocate_huge(pool, dst, size, BIG_PAGE_BYTES);
        return pool_allocate_big(pool, dst, size, BIG_PAGE_BYTES);
    }
    unsigned class_index = small_class_of(size);
    unsigned core = lock_some_core(pool);
    int code = small_alloc(&pool->smalls[core], class_index, dst, SMALL_GROW);
    lock_release(&pool->cores[core].lock);
    if (__builtin_expect(code == PA_ENOSPC, 0))
        code = allocate_anywhere(pool, dst, class_index, false);
    return pool_watch_allocated(pool, dst, size, code);
}

static int check_owner(const pa_pool *pool, const pa_pptr *dst)
{
    if (__builtin_expect(!owner_is_possible(pool, dst), 0))
        return pool_refuse_owner(pool, dst);
    if (__builtin_expect(!pa_is_null(*dst), 0))
        return error_set(PA_EINVAL, "the owner pointer at %p is not null; free what it names first", (const void *)dst);
    return 0;
}

int pool_allocate_blank(pa_pool *pool, pa_pptr *dst, size_t size)
{
    int code = check_owner(pool, dst);
    if (code != 0)
        return code;
    unsigned class_index = small_class_of(size);
    if (pool_is_watched(pool))
        valgrind_reports_off(); /* the block is emptied while it is still free */
    unsigned core = lock_some_core(pool);
    code = small_alloc_blank(&pool->smalls[core], class_index, dst, SMALL_GROW);
    lock_release(&pool->cores[core].lock);
    if (code == PA_ENOSPC)
        code = allocate_anywhere(pool, dst, class_index, true);
    if (pool_is_watched(pool))
        valgrind_reports_on();
    return pool_watch_filled(pool, dst, code);
}

int pa_allocate(pa_pool *pool, pa_pptr *dst, size_t size)
{
    POOL_CALL(pool);
    int code = check_owner(pool, dst);
    return code != 0 ? code : pool_allocate(pool, dst, size);
}

/* --- free ----------------------------------------------------------------------------------------------------------------- */

/* Free in the segment's allocator, whoever that is once its core is locked. *ret_done false: the segment changed hands. */
static int free_small(pa_pool *pool, struct segment *s, pa_pptr *dst, const struct owner_staging *staging,
                      bool *ret_done)
{
    unsigned owner = atomic_load_explicit(&s->owner, memory_order_relaxed) % pool->core_count;
    struct core *core = &pool->cores[owner];
    int code = 0;
    lock_acquire(&core->lock);
    *ret_done = atomic_load_explicit(&s->owner, memory_order_relaxed) == owner &&
                atomic_load_explicit(&s->kind, memory_order_relaxed) == SEGMENT_KIND_SMALL;
    if (*ret_done)
        code = small_free(&pool->smalls[owner], s, dst, SMALL_OWNER_USER, staging);
    lock_release(&core->lock);
    return code;
}

static int free_big(pa_pool *pool, struct segment *s, pa_pptr *dst, const struct owner_staging *staging, bool *ret_done)
{
    struct big *o = pool_lock_big(pool, s);
    *ret_done = o != NULL;
    if (o == NULL)
        return 0;
    int code = big_free_block(o, dst, staging);
    lock_release(&o->core->lock);
    return code;
}

static inline int free_block(pa_pool *pool, pa_pptr *dst, const struct owner_staging *staging)
{
    pa_pptr p = *dst;
    struct segment *s = manager_segment(&pool->manager, p.segment);
    while (s != NULL) {
        enum segment_kind kind = atomic_load_explicit(&s->kind, memory_order_acquire);
        if (kind == SEGMENT_KIND_NONE || p.offset >> pool->manager.shift != 0)
            break;
        bool done;
        int code = kind == SEGMENT_KIND_SMALL ? free_small(pool, s, dst, staging, &done)
                   : kind == SEGMENT_KIND_BIG ? free_big(pool, s, dst, staging, &done)
                                              : pool_free_huge(pool, s, dst, staging, &done);
        if (done)
            return code;
    }
    return error_set(PA_EINVAL, "segment %llu offset %llu is not the start of an allocated block; the pointer is wrong",
                     (unsigned long long)p.segment, (unsigned long long)p.offset);
}

int pool_free(pa_pool *pool, pa_pptr *dst, const struct owner_staging *staging)
{
    if (!pool_is_watched(pool))
        return free_block(pool, dst, staging);
    pa_pptr block = *dst;
    size_t usable = pool_watch_freeing(pool, dst);
    int code = free_block(pool, dst, staging);
    if (code != 0)
        pool_watch_kept(pool, block, usable);
    return code;
}

int pa_deallocate(pa_pool *pool, pa_pptr *dst)
{
    POOL_CALL(pool);
    if (__builtin_expect(!owner_is_possible(pool, dst), 0))
        return pool_refuse_owner(pool, dst);
    if (pa_is_null(*dst))
        return 0;
    if (__builtin_expect(pool_is_root(pool, *dst), 0))
        return error_set(PA_EINVAL, "the root block of the pool in %s cannot be freed", pool->dir.path);
    return pool_free(pool, dst, NULL);
}

/* --- addresses ------------------------------------------------------------------------------------------------------------ */

int pool_find_size(const pa_pool *pool, pa_pptr p, size_t *ret_bytes)
{
    const struct segment *s = manager_segment(&pool->manager, p.segment);
    *ret_bytes = 0;
    if (s == NULL || p.offset >> pool->manager.shift != 0)
        return 0;
    enum segment_kind kind = atomic_load(&s->kind);
    if (kind == SEGMENT_KIND_HUGE)
        *ret_bytes = huge_usable_size(s, manager_off(&pool->manager, p));
    if (kind == SEGMENT_KIND_SMALL && segment_is_present(s))
        *ret_bytes = small_usable_size(&pool->manager, s, p.offset);
    if (kind != SEGMENT_KIND_BIG || !segment_is_present(s))
        return 0;
    struct big *o = pool_lock_big((pa_pool *)pool, s); /* a lock is all that changes */
    if (o == NULL)
        return 0;
    int code = big_usable_size(o, manager_off(&pool->manager, p), ret_bytes);
    lock_release(&o->core->lock);
    return code;
}

size_t pool_usable_size(const pa_pool *pool, pa_pptr p)
{
    size_t bytes;
    (void)pool_find_size(pool, p, &bytes);
    return bytes;
}

size_t pa_usable_size(const pa_pool *pool, pa_pptr p)
{
    POOL_CALL(pool);
    if (pool_is_watched(pool))
        pool_watch_open(pool, p);
    return pool_usable_size(pool, p);
}

void *pa_direct(const pa_pool *pool, pa_pptr p)
{
    const struct manager *m = &pool->manager;
    if (pa_is_null(p) || p.segment >= m->slots || p.offset >= (m->slots - p.segment) << m->shift)
        return NULL;
    return m->base + (p.segment << m->shift) + p.offset;
}

/* What lies in a huge block is counted from the segment that the block's own pointer names, however far inside it is. */
static pa_pptr pptr_in_file(const struct manager *m, pa_off off)
{
    const struct segment *s = manager_segment(m, off >> m->shift);
    if (s != NULL && atomic_load(&s->kind) == SEGMENT_KIND_HUGE) {
        pa_off block = atomic_load(&s->block);
        if (off >= block && off < atomic_load(&s->end)) {
            pa_off file = block & ~(m->geometry.segment_size - 1);
            return (pa_pptr){file >> m->shift, off - file};
        }
    }
    return manager_pptr(m, off);
}

pa_pptr pa_pptr_of(const pa_pool *pool, const void *address)
{
    const struct manager *m = &pool->manager;
    uint64_t off = (uint64_t)((const char *)address - m->base);
    if (off >= (uint64_t)m->slots << m->shift)
        return PA_NULL;
    return pptr_in_file(m, off);
}

pa_off pa_off_of(const pa_pool *pool, pa_pptr p)
{
    return manager_off(&pool->manager, p);
}

pa_pptr pa_off_pptr(const pa_pool *pool, pa_off off)
{
    return pptr_in_file(&pool->manager, off);
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
    POOL_CALL(pool);
    struct media_tally t = {0};
    media_flush(&pool->media, &t, address, size);
    pool_count(pool, &t);
}

void pa_drain(const pa_pool *pool)
{
    POOL_CALL(pool);
    struct media_tally t = {0};
    media_drain(&pool->media, &t);
    pool_count(pool, &t);
}

void pa_persist(const pa_pool *pool, const void *address, size_t size)
{
    POOL_CALL(pool);
    struct media_tally t = {0};
    media_persist(&pool->media, &t, address, size);
    pool_count(pool, &t);
}

void *pa_memcpy_persist(const pa_pool *pool, void *dst, const void *src, size_t size)
{
    POOL_CALL(pool);
    struct media_tally t = {0};
    media_write(&pool->media, dst, src, size);
    media_persist(&pool->media, &t, dst, size);
    pool_count(pool, &t);
    return dst;
}
