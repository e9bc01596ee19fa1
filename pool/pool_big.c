/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pool_big.c -- where block indexes get their leaves: from the small allocator of the same core, in classes of its own. So the
 * leaves share lane, lock and recovery with everything else, and no segment is set aside for them.
 */
#include <stdlib.h>

#include "base/error.h"
#include "pool/pool.h"
#include "pool/pool_watch.h"

/*
 * A space's functions are called with its core locked, by the big allocator's operations; or, with locks set, by the pool's own
 * thread, which reads an index that nobody uses yet: then they take the locks that they need.
 */
static void enter(const struct leaf_space *space)
{
    if (space->locks)
        lock_acquire(&space->small->core->lock);
}

static void leave(const struct leaf_space *space)
{
    if (space->locks)
        lock_release(&space->small->core->lock);
}

/* A block that the application had may be a leaf now. */
static int watch_leaf(const struct leaf_space *space, const pa_pptr *owner, size_t bytes, int code)
{
    if (pool_is_watched(space->pool) && code == 0)
        valgrind_mark_filled(pa_direct(space->pool, *owner), bytes);
    return code;
}

static int leaf_allocate(void *context, pa_pptr *owner, size_t bytes)
{
    const struct leaf_space *space = context;
    enter(space);
    int code = small_alloc(space->small, SMALL_CLASS_LEAF, owner, SMALL_GROW);
    leave(space);
    return watch_leaf(space, owner, bytes, code);
}

static int header_allocate(void *context, pa_pptr *owner)
{
    const struct leaf_space *space = context;
    if (pool_is_watched(space->pool))
        valgrind_reports_off(); /* the block is emptied while it is still free */
    enter(space);
    int code = small_alloc(space->small, SMALL_CLASS_INDEX, owner, SMALL_GROW);
    leave(space);
    if (pool_is_watched(space->pool))
        valgrind_reports_on();
    return watch_leaf(space, owner, TREE_HEADER_BYTES, code);
}

/* With another number of cores than when it was allocated, a leaf may lie in another core's segment, whose lock cannot be taken
 * here. It then stays a spare of its index and serves the next split. */
static int leaf_deallocate(void *context, pa_pptr *owner)
{
    const struct leaf_space *space = context;
    struct small *o = space->small;
    struct segment *s = manager_segment(o->manager, owner->segment);
    if (!segment_is_present(s) || atomic_load(&s->kind) != SEGMENT_KIND_SMALL)
        return error_set(PA_ECORRUPT, "a block index names a leaf in segment %llu, which holds none",
                         (unsigned long long)owner->segment);
    enter(space);
    int code;
    if (!small_holds(o->manager, s, owner->offset, SMALL_CLASS_LEAF))
        code = error_set(PA_ECORRUPT, "a block index names a leaf at segment %llu offset %llu, which is none",
                         (unsigned long long)owner->segment, (unsigned long long)owner->offset);
    else if (atomic_load(&s->owner) != o->core->index)
        code = error_set(PA_ELOCKED, "a leaf lies in another core's segment");
    else
        code = small_free(o, s, owner, SMALL_OWNER_LIBRARY, NULL);
    leave(space);
    return code;
}

static bool holds(const struct manager *m, pa_off off, unsigned class_index)
{
    pa_pptr p = manager_pptr(m, off);
    struct segment *s = manager_segment(m, p.segment);
    return segment_is_present(s) && atomic_load(&s->kind) == SEGMENT_KIND_SMALL &&
           small_holds(m, s, p.offset, class_index);
}

bool pool_is_leaf(const struct manager *m, pa_off off)
{
    pa_off head = offsetof(struct pm_tree_header, head);
    return holds(m, off, SMALL_CLASS_LEAF) || (off > head && holds(m, off - head, SMALL_CLASS_INDEX));
}

/* What tells is in the slab's lines, which the segment's own core changes. */
static bool leaf_is_valid(void *context, pa_off off, size_t bytes)
{
    const struct leaf_space *space = context;
    const struct manager *m = &space->pool->manager;
    unsigned class_index = bytes == TREE_HEADER_BYTES ? SMALL_CLASS_INDEX : SMALL_CLASS_LEAF;
    struct segment *s = manager_segment(m, off >> m->shift);
    if (!space->locks || s == NULL)
        return holds(m, off, class_index);
    struct lock *lock = &space->pool->cores[atomic_load(&s->owner) % space->pool->core_count].lock;
    lock_acquire(lock);
    bool valid = holds(m, off, class_index);
    lock_release(lock);
    return valid;
}

static pa_pptr leaf_pptr(void *context, pa_off off)
{
    const struct leaf_space *space = context;
    return manager_pptr(&space->pool->manager, off);
}

static pa_off leaf_off(void *context, pa_pptr owner)
{
    const struct leaf_space *space = context;
    return manager_off(&space->pool->manager, owner);
}

static void leaf_count(void *context, const struct media_tally *t)
{
    const struct leaf_space *space = context;
    enter(space);
    media_tally_add(&space->small->core->tally, t);
    leave(space);
}

static struct big_space space_with(pa_pool *pool, struct leaf_space *context)
{
    return (struct big_space){.leaves = {.context = context,
                                         .base = pool->manager.base,
                                         .media = &pool->media,
                                         .allocate = leaf_allocate,
                                         .deallocate = leaf_deallocate,
                                         .is_valid = leaf_is_valid,
                                         .pptr_of = leaf_pptr,
                                         .off_of = leaf_off,
                                         .count = leaf_count},
                              .allocate_header = header_allocate};
}

struct big_space pool_big_space(pa_pool *pool, unsigned core)
{
    pool->leaf_spaces[core] = (struct leaf_space){pool, &pool->smalls[core], false};
    return space_with(pool, &pool->leaf_spaces[core]);
}

/* --- reading in the background ---------------------------------------------------------------------------------------------- */

/* An index whose allocator has more segments than this is read by the pool's thread rather than by whoever needs it first. */
#define SEGMENTS_READ_AT_ONCE 2u

int pool_find_large_indexes(pa_pool *pool)
{
    const struct manager *m = &pool->manager;
    uint32_t *segments = calloc(pool->big_count, sizeof *segments);
    if (segments == NULL)
        return error_set(PA_ENOMEM, "no memory to count the segments of %u allocators", pool->big_count);
    for (uint32_t slot = 0; slot < atomic_load(&m->slots_end); slot++) {
        const struct segment *s = manager_segment(m, slot);
        if (segment_is_present(s) && atomic_load(&s->kind) == SEGMENT_KIND_BIG &&
            ++segments[atomic_load(&s->owner)] == SEGMENTS_READ_AT_ONCE + 1)
            background_add_index(pool, atomic_load(&s->owner));
    }
    free(segments);
    return 0;
}

bool pool_is_pending(const pa_pool *pool, pa_pptr block)
{
    const struct segment *s = manager_segment(&pool->manager, block.segment);
    if (!segment_is_present(s) || atomic_load(&s->kind) != SEGMENT_KIND_BIG)
        return false;
    uint32_t number = atomic_load(&s->owner);
    return number < pool->big_count && background_is_pending(&pool->background, number);
}

int pool_read_index(pa_pool *pool, uint32_t number)
{
    struct big *o = &pool->bigs[number];
    struct leaf_space context = {pool, &pool->smalls[o->core->index], true};
    struct big_space space = space_with(pool, &context);
    space.leaves.newest_lsn = pool->manager.open_lsn; /* nobody has used the index since */
    struct big read;
    big_init(&read, o->core, o->manager, &space, o->number);
    int code = big_load(&read);
    if (code == 0) {
        lock_acquire(&o->core->lock);
        big_adopt(o, &read, &pool->leaf_spaces[o->core->index]);
        lock_release(&o->core->lock);
    }
    big_fini(&read);
    return code;
}

struct big *pool_lock_big(pa_pool *pool, const struct segment *s)
{
    for (;;) {
        uint32_t number = atomic_load_explicit(&s->owner, memory_order_relaxed);
        struct big *o = &pool->bigs[number < pool->big_count ? number : 0];
        background_wait_index(pool, o->number);
        lock_acquire(&o->core->lock);
        if (atomic_load_explicit(&s->kind, memory_order_relaxed) != SEGMENT_KIND_BIG) {
            lock_release(&o->core->lock);
            return NULL;
        }
        if (atomic_load_explicit(&s->owner, memory_order_relaxed) == number)
            return o;
        lock_release(&o->core->lock);
    }
}
