/* SPDX-License-Identifier: BSD-3-Clause */
/* scenarios.c -- see scenarios.h. */
#include "tests/fault/scenarios.h"

#include <stdlib.h>
#include <string.h>

#include "pool/pool.h"
#include "tests/fault/fault.h"
#include "small/small_class.h"
#include "tests/support/run.h"

static void nothing(struct world *w)
{
    (void)w;
}

/* --- pools ---------------------------------------------------------------------------------------------------------------- */

static int create(struct world *w)
{
    return world_create(w);
}

/* A range of another size than any before, so that the kept ones do not serve; each costs address space for ever. */
static int create_in_new_addresses(struct world *w)
{
    static uint32_t more;
    w->slots = 65 + more++;
    return world_create(w);
}

static int open_pool(struct world *w)
{
    return world_open(w);
}

static int check(struct world *w)
{
    char *report = NULL;
    int r = pa_check(w->dir, &report);
    free(report);
    return r;
}

static int repair(struct world *w)
{
    char *report = NULL;
    int r = pool_repair_ex(w->dir, world_aside(w).text, fault_hooks(), &report);
    free(report);
    return r;
}

/* Spare leaves, full lanes. */
static void prepare_close(struct world *w)
{
    for (size_t i = 0; i < 60; i++)
        CK_OK(world_deallocate(w, WORLD_SMALL + i));
    for (size_t i = 0; i < 6; i++)
        CK_OK(world_deallocate(w, WORLD_BIG + i));
}

static int close_pool(struct world *w)
{
    int r = pa_close(w->pool);
    EXPECT(r == 0, "%s: close: %s", world_context, pa_errormsg());
    w->pool = NULL;
    return r;
}

static int root_of(struct world *w, size_t size)
{
    static const pa_pptr untouched = {7, 7};
    pa_pptr root = untouched;
    int r = pa_root(w->pool, size, &root);
    EXPECT(r == 0 || memcmp(&root, &untouched, sizeof root) == 0, "%s: a failed pa_root gave a root", world_context);
    if (r == 0) {
        w->root = root;
        w->m.root = size;
    }
    return r;
}

static int root_small(struct world *w)
{
    return root_of(w, 1000);
}

static int root_big(struct world *w)
{
    return root_of(w, WORLD_BIG_BYTES);
}

static int root_huge(struct world *w)
{
    return root_of(w, WORLD_HUGE_BYTES);
}

/* --- allocation ------------------------------------------------------------------------------------------------------------ */

/* Owners [first, first + n) get blocks, those that have none. */
static int allocate_all(struct world *w, size_t first, size_t n, size_t size, size_t alignment)
{
    int r = 0;
    for (size_t i = first; r == 0 && i < first + n; i++)
        if (pa_is_null(w->m.at[i]))
            r = world_allocate(w, i, size, alignment);
    return r;
}

static int deallocate_all(struct world *w, size_t first, size_t n)
{
    int r = 0;
    for (size_t i = first; r == 0 && i < first + n; i++)
        r = world_deallocate(w, i);
    return r;
}

static void owners_first(struct world *w)
{
    w->m.owners = true;
    world_find(w);
}

static int allocate_one(struct world *w)
{
    return allocate_all(w, WORLD_NEW, 1, 7000, 0);
}

static int allocate_many(struct world *w)
{
    return allocate_all(w, WORLD_NEW, 150, 7000, 0);
}

static int allocate_big(struct world *w)
{
    return allocate_all(w, WORLD_NEW, 1, WORLD_BIG_BYTES, 0);
}

/* Many pairs: the block index splits its leaves. */
static int allocate_many_big(struct world *w)
{
    return allocate_all(w, WORLD_NEW, 80, 20000, 0);
}

static int allocate_huge(struct world *w)
{
    return allocate_all(w, WORLD_NEW, 1, WORLD_HUGE_BYTES, 0);
}

static int allocate_aligned(struct world *w)
{
    static const size_t cases[][2] = {{3000, 4096}, {20000, 65536}, {40000, 1 << 20}, {100, 2 << 20}};
    int r = 0;
    for (size_t i = 0; r == 0 && i < 4; i++)
        r = allocate_all(w, WORLD_NEW + i, 1, cases[i][0], cases[i][1]);
    return r;
}

/* Every free slab and every free big block is a hole, and there is no room for another segment. */
static void prepare_holes(struct world *w)
{
    CK_OK(deallocate_all(w, WORLD_SMALL, 30));
    CK_OK(deallocate_all(w, WORLD_BIG, 2));
    CK_OK(pa_defragment(w->pool, UINT64_MAX, NULL));
}

static int allocate_in_holes(struct world *w)
{
    int r = allocate_all(w, WORLD_NEW, 20, 7000, 0);
    return r == 0 ? allocate_all(w, WORLD_NEW + 20, 2, WORLD_BIG_BYTES, 0) : r;
}

/* Two cores, all full; then some blocks of each come free. */
static void prepare_full(struct world *w)
{
    size_t n = 0;
    while (n < 380 && world_allocate(w, WORLD_NEW + n, 7000, 0) == 0)
        n++;
    for (size_t i = 0; i < n; i += 7)
        CK_OK(world_deallocate(w, WORLD_NEW + i));
}

static int allocate_the_last(struct world *w)
{
    return allocate_all(w, WORLD_NEW, 20, 7000, 0);
}

/* Free segments take the space that a huge block needs. */
static void prepare_free_segments(struct world *w)
{
    CK_OK(allocate_all(w, WORLD_NEW, 300, 7000, 0));
    CK_OK(deallocate_all(w, WORLD_NEW, 300));
}

static int allocate_instead(struct world *w)
{
    return allocate_all(w, WORLD_NEW, 1, 3 << 20, 0);
}

/* --- reallocation ---------------------------------------------------------------------------------------------------------- */

static int reallocate_null(struct world *w)
{
    return world_reallocate(w, WORLD_NEW, 7000);
}

static int reallocate_small(struct world *w)
{
    return world_reallocate(w, WORLD_SMALL + 1, 15000);
}

static int reallocate_small_to_big(struct world *w)
{
    return world_reallocate(w, WORLD_SMALL + 1, 50000);
}

static int reallocate_small_to_huge(struct world *w)
{
    return world_reallocate(w, WORLD_SMALL + 1, WORLD_HUGE_BYTES);
}

/* The block before the free one. */
static int reallocate_big_in_place(struct world *w)
{
    return world_reallocate(w, WORLD_BIG + 2, 150 << 10);
}

static int reallocate_big_by_moving(struct world *w)
{
    return world_reallocate(w, WORLD_BIG + 1, 150 << 10);
}

static int reallocate_big_smaller(struct world *w)
{
    return world_reallocate(w, WORLD_BIG + 1, 30 << 10);
}

static void prepare_many_big(struct world *w)
{
    CK_OK(allocate_all(w, WORLD_NEW, 40, 60000, 0));
}

/* Each gives its tail away: one pair more, so the index has to split leaves. */
static int reallocate_many_smaller(struct world *w)
{
    int r = 0;
    for (size_t i = WORLD_NEW; r == 0 && i < WORLD_NEW + 40; i++)
        if (w->m.usable[i] > 40000)
            r = world_reallocate(w, i, 30000);
    return r;
}

static int reallocate_big_to_huge(struct world *w)
{
    return world_reallocate(w, WORLD_BIG + 1, WORLD_HUGE_BYTES);
}

static int reallocate_huge_in_place(struct world *w)
{
    return world_reallocate(w, WORLD_HUGE, WORLD_HUGE_BYTES + (900 << 10));
}

/* A neighbour is in the way. */
static void prepare_neighbour(struct world *w)
{
    CK_OK(world_allocate(w, WORLD_NEW, WORLD_HUGE_BYTES, 0));
}

static int reallocate_huge_to_big(struct world *w)
{
    return world_reallocate(w, WORLD_HUGE, WORLD_BIG_BYTES);
}

static int reallocate_huge_to_small(struct world *w)
{
    return world_reallocate(w, WORLD_HUGE, 1000);
}

/* --- freeing --------------------------------------------------------------------------------------------------------------- */

static void prepare_two_segments(struct world *w)
{
    CK_OK(allocate_all(w, WORLD_NEW, 300, 7000, 0));
}

static int deallocate_small(struct world *w)
{
    return deallocate_all(w, WORLD_NEW, 300);
}

static void prepare_two_big_segments(struct world *w)
{
    CK_OK(allocate_all(w, WORLD_NEW, 20, 150 << 10, 0));
}

static int deallocate_big(struct world *w)
{
    int r = deallocate_all(w, WORLD_BIG, 6);
    return r == 0 ? deallocate_all(w, WORLD_NEW, 20) : r;
}

/* Segments with holes are removed rather than kept. */
static void prepare_segments_with_holes(struct world *w)
{
    prepare_two_big_segments(w);
    CK_OK(deallocate_all(w, WORLD_NEW + 5, 12));
    CK_OK(pa_defragment(w->pool, UINT64_MAX, NULL));
}

static int deallocate_huge(struct world *w)
{
    return deallocate_all(w, WORLD_HUGE, 1);
}

static void prepare_defragment(struct world *w)
{
    prepare_free_segments(w);
    CK_OK(deallocate_all(w, WORLD_SMALL, 30));
    CK_OK(deallocate_all(w, WORLD_BIG, 2));
}

static int defragment(struct world *w)
{
    return pa_defragment(w->pool, UINT64_MAX, NULL);
}

/* --- looking --------------------------------------------------------------------------------------------------------------- */

static int get_stats(struct world *w)
{
    pa_stats stats = {.allocated_blocks = 77}, before = stats;
    int r = pa_get_stats(w->pool, &stats);
    EXPECT(r == 0 || memcmp(&stats, &before, sizeof stats) == 0, "%s: statistics changed by a failed call",
           world_context);
    return r;
}

static int visit(pa_pptr block, size_t usable_size, void *arg)
{
    (void)block;
    (void)usable_size;
    (void)arg;
    return 0;
}

static int foreach (struct world *w)
{
    return pa_foreach(w->pool, visit, NULL);
}

/* --- trees ----------------------------------------------------------------------------------------------------------------- */

/* A second tree, so that a failed opening must leave its anchor null. */
static int tree_create(struct world *w)
{
    fptree *t = NULL;
    pa_pptr *anchor = owners_at(&w->o, WORLD_NEW);
    int r = fptree_open(w->pool, anchor, &t);
    EXPECT((r == 0) == (t != NULL) && (r == 0) == !pa_is_null(*anchor), "%s: fptree_open's outputs", world_context);
    if (r != 0)
        return r;
    CK_OK(fptree_close(t));
    CK_OK(pa_deallocate(w->pool, anchor));
    return 0;
}

static int tree_open_again(struct world *w)
{
    fptree *t = NULL;
    int r = fptree_open(w->pool, owners_at(&w->o, WORLD_ANCHOR), &t);
    EXPECT((r == 0) == (t != NULL), "%s: fptree_open's output", world_context);
    return r == 0 ? fptree_close(t) : r;
}

static void prepare_tree(struct world *w)
{
    CK_OK(fptree_open(w->pool, owners_at(&w->o, WORLD_ANCHOR), &w->tree));
}

static uint64_t segment_files(struct world *w)
{
    pa_stats stats;
    CK_OK(pa_get_stats(w->pool, &stats));
    return stats.segment_files;
}

/* No slab is free, so a leaf may need a new segment. */
static void prepare_tree_in_full_segments(struct world *w)
{
    uint32_t whole = small_slabs_of(1u << 20) * small_class_blocks(small_class_of(7000));
    uint64_t before = segment_files(w);
    size_t i = WORLD_NEW;
    while (segment_files(w) == before)
        CK_OK(world_allocate(w, i++, 7000, 0));
    CK_OK(allocate_all(w, i, whole - 1, 7000, 0));
    prepare_tree(w);
}

static int tree_insert_many(struct world *w)
{
    int r = 0;
    while (r == 0 && w->m.keys < 5000) {
        uint64_t key = w->m.keys + 1;
        r = key % 2 == 0 ? fptree_insert(w->tree, key, key * 7) : fptree_upsert(w->tree, key, key * 7);
        w->m.keys += r == 0;
    }
    return r;
}

static void prepare_large_tree(struct world *w)
{
    prepare_tree(w);
    CK_OK(tree_insert_many(w));
}

static int tree_remove_many(struct world *w)
{
    int r = 0;
    while (r == 0 && w->m.keys > 10) {
        r = fptree_remove(w->tree, w->m.keys);
        w->m.keys -= r == 0;
    }
    return r;
}

static int tree_close_handle(struct world *w)
{
    int r = fptree_close(w->tree);
    w->tree = NULL;
    return r;
}

#define MIB (1ull << 20)

const struct scenario scenarios[] = {
    {"create", IMAGE_NONE, NULL, create, 0, 0, 0, false},
    {"create_sparse", IMAGE_NONE, NULL, create, 0, PA_SPARSE, 0, false},
    {"create_after_a_crash_in_creation", IMAGE_LEFTOVER, NULL, create, 0, 0, 0, false},
    {"create_in_new_addresses", IMAGE_NONE, NULL, create_in_new_addresses, 0, 0, 0, false},
    {"open", IMAGE_CLOSED, NULL, open_pool, 0, 0, 0, false},
    {"open_empty", IMAGE_EMPTY, NULL, open_pool, 0, 0, 0, false},
    {"open_after_a_crash", IMAGE_KILLED, NULL, open_pool, 2, 0, 0, false},
    {"open_read_only", IMAGE_CLOSED, NULL, open_pool, 0, PA_READ_ONLY, 0, false},
    {"open_read_only_after_a_crash", IMAGE_KILLED, NULL, open_pool, 0, PA_READ_ONLY, 0, false},
    {"check", IMAGE_CLOSED, NULL, check, 0, 0, 0, false},
    {"check_after_a_crash", IMAGE_KILLED, NULL, check, 0, 0, 0, false},
    {"repair", IMAGE_UNSOUND, NULL, repair, 0, 0, 0, false},
    {"repair_nothing", IMAGE_CLOSED, NULL, repair, 0, 0, 0, false},
    {"close", IMAGE_CLOSED, prepare_close, close_pool, 0, 0, 0, false},
    {"root_small", IMAGE_EMPTY, nothing, root_small, 0, 0, 0, false},
    {"root_big", IMAGE_EMPTY, nothing, root_big, 0, 0, 0, false},
    {"root_huge", IMAGE_EMPTY, nothing, root_huge, 0, 0, 0, false},
    {"allocate", IMAGE_CLOSED, nothing, allocate_one, 0, 0, 0, false},
    {"allocate_after_a_crash", IMAGE_KILLED, nothing, allocate_one, 2, 0, 0, false},
    {"allocate_many", IMAGE_CLOSED, nothing, allocate_many, 0, 0, 0, false},
    {"allocate_beside_the_own_thread", IMAGE_CLOSED, nothing, allocate_many, 0, 0, 0, true},
    {"allocate_sparse", IMAGE_CLOSED, nothing, allocate_many, 0, PA_SPARSE, 0, false},
    {"allocate_first_big", IMAGE_EMPTY, owners_first, allocate_big, 0, 0, 0, false},
    {"allocate_big", IMAGE_CLOSED, nothing, allocate_big, 0, 0, 0, false},
    {"allocate_many_big", IMAGE_CLOSED, nothing, allocate_many_big, 0, 0, 0, false},
    {"allocate_huge", IMAGE_CLOSED, nothing, allocate_huge, 0, 0, 0, false},
    {"allocate_aligned", IMAGE_CLOSED, nothing, allocate_aligned, 0, 0, 0, false},
    {"allocate_in_holes", IMAGE_CLOSED, prepare_holes, allocate_in_holes, 0, 0, 0, false},
    {"allocate_the_last", IMAGE_CLOSED, prepare_full, allocate_the_last, 2, 0, 6 * MIB, false},
    {"allocate_in_place_of_segments", IMAGE_CLOSED, prepare_free_segments, allocate_instead, 0, 0, 8 * MIB, false},
    {"reallocate_null", IMAGE_CLOSED, nothing, reallocate_null, 0, 0, 0, false},
    {"reallocate_small", IMAGE_CLOSED, nothing, reallocate_small, 0, 0, 0, false},
    {"reallocate_small_to_big", IMAGE_CLOSED, nothing, reallocate_small_to_big, 0, 0, 0, false},
    {"reallocate_small_to_huge", IMAGE_CLOSED, nothing, reallocate_small_to_huge, 0, 0, 0, false},
    {"reallocate_big_in_place", IMAGE_CLOSED, nothing, reallocate_big_in_place, 0, 0, 0, false},
    {"reallocate_big_into_a_hole", IMAGE_CLOSED, prepare_holes, reallocate_big_in_place, 0, 0, 0, false},
    {"reallocate_big_by_moving", IMAGE_CLOSED, nothing, reallocate_big_by_moving, 0, 0, 0, false},
    {"reallocate_big_smaller", IMAGE_CLOSED, nothing, reallocate_big_smaller, 0, 0, 0, false},
    {"reallocate_many_big_smaller", IMAGE_CLOSED, prepare_many_big, reallocate_many_smaller, 0, 0, 0, false},
    {"reallocate_big_to_huge", IMAGE_CLOSED, nothing, reallocate_big_to_huge, 0, 0, 0, false},
    {"reallocate_huge_in_place", IMAGE_CLOSED, nothing, reallocate_huge_in_place, 0, 0, 0, false},
    {"reallocate_huge_in_place_sparse", IMAGE_CLOSED, nothing, reallocate_huge_in_place, 0, PA_SPARSE, 0, false},
    {"reallocate_huge_by_moving", IMAGE_CLOSED, prepare_neighbour, reallocate_huge_in_place, 0, 0, 0, false},
    {"reallocate_huge_to_big", IMAGE_CLOSED, nothing, reallocate_huge_to_big, 0, 0, 0, false},
    {"reallocate_huge_to_small", IMAGE_CLOSED, nothing, reallocate_huge_to_small, 0, 0, 0, false},
    {"deallocate_small", IMAGE_CLOSED, prepare_two_segments, deallocate_small, 0, 0, 0, false},
    {"deallocate_big", IMAGE_CLOSED, prepare_two_big_segments, deallocate_big, 0, 0, 0, false},
    {"deallocate_big_after_open", IMAGE_CLOSED, nothing, deallocate_big, 0, 0, 0, false},
    {"deallocate_big_with_holes", IMAGE_CLOSED, prepare_segments_with_holes, deallocate_big, 0, 0, 0, false},
    {"deallocate_huge", IMAGE_CLOSED, nothing, deallocate_huge, 0, 0, 0, false},
    {"defragment", IMAGE_CLOSED, prepare_defragment, defragment, 0, 0, 0, false},
    {"defragment_after_a_crash", IMAGE_KILLED, nothing, defragment, 2, 0, 0, false},
    {"get_stats", IMAGE_CLOSED, nothing, get_stats, 0, 0, 0, false},
    {"get_stats_after_a_crash", IMAGE_KILLED, nothing, get_stats, 0, 0, 0, false},
    {"foreach", IMAGE_CLOSED, nothing, foreach, 0, 0, 0, false},
    {"tree_create", IMAGE_CLOSED, nothing, tree_create, 0, 0, 0, false},
    {"tree_open", IMAGE_CLOSED, nothing, tree_open_again, 0, 0, 0, false},
    {"tree_open_after_a_crash", IMAGE_KILLED, nothing, tree_open_again, 0, 0, 0, false},
    {"tree_insert", IMAGE_CLOSED, prepare_tree_in_full_segments, tree_insert_many, 0, 0, 0, false},
    {"tree_remove", IMAGE_CLOSED, prepare_large_tree, tree_remove_many, 0, 0, 0, false},
    {"tree_close", IMAGE_CLOSED, prepare_large_tree, tree_close_handle, 0, 0, 0, false},
};
const size_t scenario_count = sizeof scenarios / sizeof *scenarios;
