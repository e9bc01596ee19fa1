/* SPDX-License-Identifier: BSD-3-Clause */
/* pool_stats.c -- statistics and the walk over all blocks. */
#include "base/error.h"
#include "pool/pool.h"
#include "pool/pool_call.h"
#include "pool/pool_watch.h"

/* The core is locked. */
static int add_big(struct big *o, pa_stats *stats)
{
    int code = big_load(o);
    if (code != 0)
        return code;
    stats->allocated_bytes += o->allocated_bytes;
    stats->allocated_blocks += o->allocated_blocks;
    stats->hole_bytes += o->free.hole_pages << BIG_PAGE_SHIFT;
    stats->dram_bytes += sizeof *o + o->free.count * sizeof(struct big_block);
    uint64_t largest = big_largest_free(o);
    uint64_t most = big_size_max(o->manager->geometry.segment_size);
    largest = largest > most ? most : largest;
    if (stats->largest_free_block < largest)
        stats->largest_free_block = largest;
    return 0;
}

static int add_core(pa_pool *pool, unsigned index, pa_stats *stats)
{
    struct core *core = &pool->cores[index];
    struct small *o = &pool->smalls[index];
    lock_acquire(&core->lock);
    int code = small_read_all(o);
    stats->allocated_bytes += o->allocated_bytes;
    stats->allocated_blocks += o->allocated_blocks;
    stats->fences += core->tally.fences;
    stats->flushed_lines += core->tally.lines;
    stats->hole_bytes += (uint64_t)o->hole_slabs * SLAB_BYTES;
    stats->dram_bytes += o->dram_bytes + sizeof *core + sizeof *o;
    for (unsigned q = 0; q < LANE_QUARTERS; q++)
        stats->dram_bytes += core->lane.touched[q].capacity * sizeof(void *);
    size_t largest = small_largest_free(o);
    if (stats->largest_free_block < largest)
        stats->largest_free_block = largest;
    for (unsigned i = 0; code == 0 && i < pool->big_count; i++)
        if (pool_core_of_big(pool, i) == index)
            code = add_big(&pool->bigs[i], stats);
    lock_release(&core->lock);
    return code;
}

static int add_files(pa_pool *pool, pa_stats *stats)
{
    struct manager *m = &pool->manager;
    uint64_t bytes = 0;
    int code = file_resident_bytes(&pool->dir, &pool->file, &bytes);
    stats->resident_bytes += bytes;
    for (uint32_t slot = 0; code == 0 && slot < atomic_load(&m->slots_end); slot++) {
        const struct segment *s = manager_segment(m, slot);
        if (!segment_is_present(s) || s->slot != slot)
            continue;
        code = file_resident_bytes(&pool->dir, &s->file, &bytes);
        stats->resident_bytes += bytes;
        stats->dram_bytes += sizeof *s;
    }
    return code;
}

static void add_huge(pa_pool *pool, pa_stats *stats)
{
    const struct manager *m = &pool->manager;
    for (uint32_t slot = 0; slot < atomic_load(&m->slots_end); slot++) {
        const struct segment *s = manager_segment(m, slot);
        if (s == NULL || s->slot != slot || atomic_load(&s->kind) != SEGMENT_KIND_HUGE)
            continue;
        stats->allocated_bytes += atomic_load(&s->end) - atomic_load(&s->block);
        stats->allocated_blocks++;
    }
}

int pa_get_stats(pa_pool *pool, pa_stats *ret)
{
    POOL_CALL(pool);
    pa_stats stats = {0};
    struct manager *m = &pool->manager;
    (void)background_wait_all(pool);
    for (unsigned i = 0; i < pool->core_count; i++) {
        int code = add_core(pool, i, &stats);
        if (code != 0)
            return code;
    }
    for (unsigned i = 0; i < POOL_TALLIES; i++) {
        stats.fences += atomic_load(&pool->tallies[i].fences);
        stats.flushed_lines += atomic_load(&pool->tallies[i].lines);
    }
    if (manager_free_count(m) != 0)
        stats.largest_free_block = big_size_max(m->geometry.segment_size);
    lock_acquire(&m->lock);
    add_huge(pool, &stats);
    stats.segment_files = m->segment_files;
    stats.huge_files = m->huge_files;
    stats.file_bytes = m->file_bytes;
    stats.fences += m->tally.fences + pool->open_tally.fences;
    stats.flushed_lines += m->tally.lines + pool->open_tally.lines;
    stats.dram_bytes += sizeof *pool + atomic_load(&m->slots_end) * sizeof *m->segments;
    int code = add_files(pool, &stats); /* under the lock: no file goes away meanwhile */
    lock_release(&m->lock);
    if (code == 0)
        *ret = stats;
    return code;
}

/* One slab's allocated blocks, as of one moment; the visits come after the lock is released. */
struct snapshot {
    uint64_t bits[SLAB_LINES * SLAB_LINE_WORDS];
    unsigned class_index;
};

static bool take_snapshot(pa_pool *pool, struct segment *s, uint32_t slab, struct snapshot *ret)
{
    bool any = false;
    unsigned owner = atomic_load(&s->owner);
    if (owner >= pool->core_count) /* of another kind by now */
        return false;
    lock_acquire(&pool->cores[owner].lock);
    if (atomic_load(&s->kind) == SEGMENT_KIND_SMALL && atomic_load(&s->owner) == owner)
        any = small_snapshot(&pool->manager, s, slab, ret->bits, &ret->class_index);
    lock_release(&pool->cores[owner].lock);
    return any;
}

/* slot: the segment's. Under the visits its twin may become that of a huge block elsewhere. */
static int visit_slab(pa_pool *pool, struct segment *s, uint32_t slot, uint32_t slab, pa_visit_fn visit, void *arg)
{
    struct snapshot snapshot;
    if (!take_snapshot(pool, s, slab, &snapshot))
        return 0;
    uint32_t bytes = small_class_bytes(snapshot.class_index);
    uint64_t offset = small_first_slab_of(pool->manager.geometry.segment_size) + (uint64_t)slab * SLAB_BYTES;
    uint32_t words = small_class_lines(snapshot.class_index) * SLAB_LINE_WORDS;
    for (uint32_t w = 0; w < words; w++)
        for (uint64_t bits = snapshot.bits[w]; bits != 0; bits &= bits - 1) {
            uint32_t block = w * 64 + (uint32_t)__builtin_ctzll(bits);
            int result = visit((pa_pptr){slot, offset + (uint64_t)block * bytes}, bytes, arg);
            if (result != 0)
                return result;
        }
    return 0;
}

static int visit_small_segments(pa_pool *pool, pa_visit_fn visit, void *arg)
{
    struct manager *m = &pool->manager;
    uint32_t slabs = small_slabs_of(m->geometry.segment_size);
    for (uint32_t slot = 0; slot < atomic_load(&m->slots_end); slot++) {
        struct segment *s = manager_segment(m, slot);
        if (s == NULL || atomic_load(&s->kind) != SEGMENT_KIND_SMALL)
            continue;
        for (uint32_t slab = 0; slab < slabs; slab++) {
            int result = visit_slab(pool, s, slot, slab, visit, arg);
            if (result != 0)
                return result;
        }
    }
    return 0;
}

#define VISITED_AT_ONCE 256u

/* Some blocks under the lock, then their visits without it. */
static int visit_big(pa_pool *pool, struct big *o, pa_visit_fn visit, void *arg)
{
    struct big_visited blocks[VISITED_AT_ONCE];
    pa_off from = 0;
    do {
        size_t count = 0;
        lock_acquire(&o->core->lock);
        int code = big_list(o, &from, blocks, VISITED_AT_ONCE, &count);
        lock_release(&o->core->lock);
        for (size_t i = 0; code == 0 && i < count; i++)
            code = visit(manager_pptr(&pool->manager, blocks[i].off), blocks[i].bytes, arg);
        if (code != 0)
            return code;
    } while (from != 0);
    return 0;
}

/* Under the manager's lock, as a twin may just become another block's. */
static size_t huge_block_at(struct manager *m, uint32_t slot, pa_off *ret_block)
{
    size_t usable = 0;
    lock_acquire(&m->lock);
    const struct segment *s = manager_segment(m, slot);
    if (s != NULL && s->slot == slot) {
        *ret_block = atomic_load(&s->block);
        usable = huge_usable_size(s, *ret_block);
    }
    lock_release(&m->lock);
    return usable;
}

static int visit_huge(pa_pool *pool, pa_visit_fn visit, void *arg)
{
    struct manager *m = &pool->manager;
    int result = 0;
    for (uint32_t slot = 0; result == 0 && slot < atomic_load(&m->slots_end); slot++) {
        pa_off block = 0;
        size_t usable = huge_block_at(m, slot, &block);
        if (usable != 0)
            result = visit(manager_pptr(m, block), usable, arg);
    }
    return result;
}

static int visit_all(pa_pool *pool, pa_visit_fn visit, void *arg)
{
    int result = visit_small_segments(pool, visit, arg);
    (void)background_wait_all(pool);
    for (unsigned i = 0; result == 0 && i < pool->big_count; i++)
        result = visit_big(pool, &pool->bigs[i], visit, arg);
    return result == 0 ? visit_huge(pool, visit, arg) : result;
}

struct watched_visit {
    const pa_pool *pool;
    pa_visit_fn visit;
    void *arg;
};

/* The visitor is told the usable size, so it may use that. */
static int visit_watched(pa_pptr block, size_t usable_size, void *arg)
{
    const struct watched_visit *w = arg;
    pool_watch_open(w->pool, block);
    return w->visit(block, usable_size, w->arg);
}

int pa_foreach(pa_pool *pool, pa_visit_fn visit, void *arg)
{
    POOL_CALL(pool);
    struct watched_visit watched = {pool, visit, arg};
    return pool_is_watched(pool) ? visit_all(pool, visit_watched, &watched) : visit_all(pool, visit, arg);
}
