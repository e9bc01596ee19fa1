/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pool_big.c -- where block indexes get their leaves: from the small allocator of the same core, in classes of its own. So the
 * leaves share lane, lock and recovery with everything else, and no segment is set aside for them.
 */
#include "base/error.h"
#include "pool/pool.h"

/* The core is locked by the big allocator's caller. */
static int leaf_allocate(void *context, pa_pptr *owner, size_t bytes)
{
    (void)bytes;
    return small_alloc(context, SMALL_CLASS_LEAF, owner, SMALL_GROW);
}

static int header_allocate(void *context, pa_pptr *owner)
{
    return small_alloc(context, SMALL_CLASS_INDEX, owner, SMALL_GROW);
}

/* With another number of cores than when it was allocated, a leaf may lie in another core's segment, whose lock cannot be taken
 * here. It then stays a spare of its index and serves the next split. */
static int leaf_deallocate(void *context, pa_pptr *owner)
{
    struct small *o = context;
    struct segment *s = manager_segment(o->manager, owner->segment);
    if (!segment_is_present(s) || atomic_load(&s->kind) != SEGMENT_KIND_SMALL)
        return error_set(PA_ECORRUPT, "a block index names a leaf in segment %llu, which holds none",
                         (unsigned long long)owner->segment);
    if (atomic_load(&s->owner) != o->core->index)
        return error_set(PA_ELOCKED, "a leaf lies in another core's segment");
    return small_free(o, s, owner, SMALL_OWNER_LIBRARY, NULL);
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

static bool leaf_is_valid(void *context, pa_off off, size_t bytes)
{
    const struct small *o = context;
    return holds(o->manager, off, bytes == TREE_HEADER_BYTES ? SMALL_CLASS_INDEX : SMALL_CLASS_LEAF);
}

static pa_pptr leaf_pptr(void *context, pa_off off)
{
    const struct small *o = context;
    return manager_pptr(o->manager, off);
}

static pa_off leaf_off(void *context, pa_pptr owner)
{
    const struct small *o = context;
    return manager_off(o->manager, owner);
}

static void leaf_count(void *context, const struct media_tally *t)
{
    struct small *o = context;
    o->core->tally.fences += t->fences;
    o->core->tally.lines += t->lines;
}

struct big_space pool_big_space(pa_pool *pool, unsigned core)
{
    return (struct big_space){.leaves = {.context = &pool->smalls[core],
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
