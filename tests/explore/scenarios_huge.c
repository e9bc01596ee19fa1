/* SPDX-License-Identifier: BSD-3-Clause */
/* scenarios_huge.c -- histories of huge blocks, of reallocation and of alignment. A huge block is one that no segment of 1 MiB holds. */
#include "tests/explore/poolside.h"

#define HUGE_BYTES      1000000u /* one slot */
#define HUGE_BYTES_MORE 1040000u /* still one */
#define HUGE_BYTES_TWO  1500000u /* two */

static struct poolside *huge_pool(struct history *h, unsigned lanes, unsigned cores)
{
    struct poolside *p = poolside_new(h, lanes, 16, 10, cores);
    p->fill_huge = true;
    return p;
}

/* Made, freed, and made again in the same slots, beside blocks that stay. */
static int run_huge(struct history *h)
{
    huge_pool(h, 1, 1);
    TRY(poolside_create(h, 6));
    TRY(poolside_alloc(h, poolside_owner(0), 100));
    TRY(poolside_stamp(h, poolside_owner(0)));
    history_from_here(h);
    TRY(poolside_alloc(h, poolside_owner(1), HUGE_BYTES));
    TRY(poolside_stamp(h, poolside_owner(1)));
    TRY(poolside_alloc(h, poolside_owner(2), HUGE_BYTES_TWO));
    TRY(poolside_free(h, poolside_owner(1)));
    TRY(poolside_alloc(h, poolside_owner(1), HUGE_BYTES_MORE));
    TRY(poolside_free(h, poolside_owner(2)));
    TRY(poolside_alloc(h, poolside_owner(3), 20000)); /* a segment where the huge file was */
    TRY(poolside_free(h, poolside_owner(1)));
    TRY(poolside_free(h, poolside_owner(0)));
    return poolside_close(h);
}

/* Killed between and opened with other numbers of cores. */
static int run_huge_takeover(struct history *h)
{
    static const unsigned cores[] = {1, 2, 1, 2};
    huge_pool(h, 2, 2);
    TRY(poolside_create(h, 6));
    history_from_here(h);
    for (unsigned round = 0; round < 4; round++) {
        history_pin(round + 1);
        TRY(poolside_alloc(h, poolside_owner(round % 2), HUGE_BYTES));
        history_pin(round);
        TRY(poolside_alloc(h, poolside_owner(2), 64));
        if (round > 0)
            TRY(poolside_free(h, poolside_owner((round + 1) % 2)));
        TRY(poolside_free(h, poolside_owner(2)));
        TRY(round % 2 == 0 ? poolside_kill(h) : poolside_close(h));
        TRY(poolside_open(h, cores[round]));
    }
    history_pin(0);
    return poolside_close(h);
}

/* Grown in its slot, into the next one, after an open, and again; made smaller in place; then moved out. */
static int grow_in_place(struct history *h)
{
    TRY(poolside_create(h, 6));
    TRY(poolside_alloc(h, poolside_owner(0), HUGE_BYTES));
    TRY(poolside_stamp(h, poolside_owner(0)));
    history_from_here(h);
    TRY(poolside_reallocate(h, poolside_owner(0), HUGE_BYTES_MORE, STAYS));
    TRY(poolside_stamp(h, poolside_owner(0)));
    TRY(poolside_reallocate(h, poolside_owner(0), HUGE_BYTES_TWO, STAYS));
    TRY(poolside_stamp(h, poolside_owner(0)));
    TRY(poolside_kill(h));
    TRY(poolside_open(h, 1));
    TRY(poolside_reallocate(h, poolside_owner(0), HUGE_BYTES, STAYS)); /* more than half: no smaller file */
    TRY(poolside_reallocate(h, poolside_owner(0), 2 * HUGE_BYTES_MORE, STAYS));
    TRY(poolside_stamp(h, poolside_owner(0)));
    TRY(poolside_reallocate(h, poolside_owner(0), 20000, MOVES));
    TRY(poolside_free(h, poolside_owner(0)));
    return poolside_close(h);
}

static int run_huge_grow(struct history *h)
{
    huge_pool(h, 1, 1);
    return grow_in_place(h);
}

static int run_huge_sparse(struct history *h)
{
    huge_pool(h, 1, 1)->options.flags |= PA_SPARSE;
    return grow_in_place(h);
}

/* The slot behind it is taken: it moves, whole. */
static int run_huge_move(struct history *h)
{
    huge_pool(h, 1, 1);
    TRY(poolside_create(h, 6));
    TRY(poolside_alloc(h, poolside_owner(0), HUGE_BYTES));
    TRY(poolside_stamp(h, poolside_owner(0)));
    TRY(poolside_alloc(h, poolside_owner(1), HUGE_BYTES));
    history_from_here(h);
    TRY(poolside_reallocate(h, poolside_owner(0), HUGE_BYTES_TWO, MOVES));
    TRY(poolside_free(h, poolside_owner(1)));
    TRY(poolside_free(h, poolside_owner(0)));
    return poolside_close(h);
}

/* Within its class, to other classes, to the big allocator and back, while a neighbour stays. */
static int run_reallocate_small(struct history *h)
{
    static const struct {
        size_t size;
        enum poolside_move moves;
    } steps[] = {{45, STAYS},    {200, MOVES},   {190, MOVES}, {192, STAYS},   {3000, MOVES},
                 {16384, MOVES}, {20000, MOVES}, {64, MOVES},  {17000, MOVES}, {1, MOVES}};
    poolside_new(h, 1, 16, 8, 1);
    TRY(poolside_create(h, 6));
    for (unsigned i = 0; i < 3; i++) {
        TRY(poolside_alloc(h, poolside_owner(i), 40));
        TRY(poolside_stamp(h, poolside_owner(i)));
    }
    history_from_here(h);
    for (unsigned i = 0; i < sizeof steps / sizeof *steps; i++) {
        TRY(poolside_reallocate(h, poolside_owner(1), steps[i].size, steps[i].moves));
        if (i % 3 == 0)
            TRY(poolside_stamp(h, poolside_owner(1)));
    }
    TRY(poolside_free(h, poolside_owner(1)));
    return poolside_close(h);
}

/* Blocks are cut from the end of the free space, so each new one lies before the one before it. */
static int run_reallocate_big(struct history *h)
{
    poolside_new(h, 1, 16, 8, 1);
    TRY(poolside_create(h, 8));
    for (unsigned i = 0; i < 4; i++) {
        TRY(poolside_alloc(h, poolside_owner(i), 100000)); /* 25 pages */
        TRY(poolside_stamp(h, poolside_owner(i)));
    }
    TRY(poolside_free(h, poolside_owner(0)));
    history_from_here(h);
    TRY(poolside_reallocate(h, poolside_owner(1), 150000, STAYS)); /* takes a part of its neighbour */
    TRY(poolside_reallocate(h, poolside_owner(1), 204800, STAYS)); /* all of it */
    TRY(poolside_stamp(h, poolside_owner(1)));
    TRY(poolside_reallocate(h, poolside_owner(1), 60000, STAYS)); /* cut off, no free neighbour */
    TRY(poolside_reallocate(h, poolside_owner(1), 30000, STAYS)); /* cut off, beside a free one */
    TRY(poolside_reallocate(h, poolside_owner(2), 160000, MOVES));
    TRY(poolside_reallocate(h, poolside_owner(3), 16000, MOVES)); /* to the small allocator */
    TRY(poolside_free(h, poolside_owner(2)));
    TRY(poolside_kill(h));
    TRY(poolside_open(h, 1));
    TRY(poolside_reallocate(h, poolside_owner(1), 70000, STAYS));
    TRY(poolside_free(h, poolside_owner(1)));
    TRY(poolside_free(h, poolside_owner(3)));
    return poolside_close(h);
}

/* Between the big and the huge allocator, both ways; killed between. */
static int run_reallocate_huge(struct history *h)
{
    huge_pool(h, 1, 1);
    TRY(poolside_create(h, 6));
    TRY(poolside_alloc(h, poolside_owner(0), 20000));
    TRY(poolside_alloc(h, poolside_owner(1), 30000));
    TRY(poolside_stamp(h, poolside_owner(0)));
    TRY(poolside_stamp(h, poolside_owner(1)));
    history_from_here(h);
    TRY(poolside_reallocate(h, poolside_owner(0), HUGE_BYTES, MOVES));
    TRY(poolside_reallocate(h, poolside_owner(0), 25000, MOVES));
    TRY(poolside_kill(h));
    TRY(poolside_open(h, 1));
    TRY(poolside_reallocate(h, poolside_owner(0), HUGE_BYTES_TWO, MOVES));
    TRY(poolside_reallocate(h, poolside_owner(0), 100, MOVES));
    TRY(poolside_reallocate(h, poolside_owner(0), HUGE_BYTES, MOVES)); /* small to huge */
    TRY(poolside_free(h, poolside_owner(0)));
    TRY(poolside_free(h, poolside_owner(1)));
    return poolside_close(h);
}

static int run_aligned(struct history *h)
{
    static const struct {
        size_t size, alignment;
    } blocks[] = {{100, 128}, {5000, 4096}, {20000, 65536}, {30000, 262144}, {20000, 4096}, {20000, 2u << 20}};
    const unsigned count = sizeof blocks / sizeof *blocks;
    huge_pool(h, 1, 1);
    TRY(poolside_create(h, 10));
    TRY(poolside_alloc(h, poolside_owner(8), 20000));
    TRY(poolside_stamp(h, poolside_owner(8)));
    history_from_here(h);
    for (unsigned i = 0; i < count; i++) {
        TRY(poolside_alloc_aligned(h, poolside_owner(i), blocks[i].size, blocks[i].alignment));
        if (i % 2 != 0)
            TRY(poolside_stamp(h, poolside_owner(i)));
    }
    for (unsigned i = 0; i < count; i++)
        TRY(poolside_free(h, poolside_owner((i * 5 + 2) % count)));
    return poolside_close(h);
}

#define MIX_OWNERS 16u

/* One random operation of any kind on an owner. */
static int mixed_step(struct history *h, unsigned tree, unsigned step)
{
    static const size_t sizes[] = {1, 64, 700, 5000, 16384, 20000, 70000, 300000, HUGE_BYTES, HUGE_BYTES_TWO};
    uint32_t cell = poolside_owner((unsigned)history_random(h, MIX_OWNERS));
    size_t size = sizes[history_random(h, sizeof sizes / sizeof *sizes)];
    uint64_t what = history_random(h, 8), key = history_random(h, 60);
    bool there;
    if (what < 2) {
        TRY(poolside_tree_has(h, tree, key, &there));
        return poolside_tree_op(h, tree, there ? (what == 0 ? 'r' : 'u') : 'i', key, step);
    }
    if (pa_is_null(poolside_read(h, cell)))
        return what == 7 ? poolside_alloc_aligned(h, cell, size, 1u << (4 + key % 16)) : poolside_alloc(h, cell, size);
    if (what == 2)
        return poolside_stamp(h, cell);
    return what < 5 ? poolside_reallocate(h, cell, size, EITHER) : poolside_free(h, cell);
}

/* Every kind of operation, two cores, killed, closed and defragmented in between. */
static int run_everything(struct history *h)
{
    unsigned tree;
    poolside_new(h, 2, 16, 40, 2);
    TRY(poolside_create(h, MIX_OWNERS + 2));
    TRY(poolside_tree_open(h, poolside_owner(MIX_OWNERS), &tree));
    history_from_here(h);
    for (unsigned round = 0; round < 4; round++) {
        for (unsigned i = 0; i < 25; i++) {
            history_pin((unsigned)history_random(h, 2));
            TRY(mixed_step(h, tree, 100 * round + i));
        }
        history_pin(0);
        TRY(poolside_defragment(h, UINT64_MAX, false));
        TRY(round % 2 == 0 ? poolside_tree_abandon(h, tree) : poolside_tree_close(h, tree));
        TRY(round % 2 == 0 ? poolside_kill(h) : poolside_close(h));
        TRY(poolside_open(h, 1 + round % 2));
        TRY(poolside_tree_open(h, poolside_owner(MIX_OWNERS), &tree));
    }
    TRY(poolside_tree_close(h, tree));
    return poolside_close(h);
}

POOL_SCENARIO(huge, "huge blocks are made and freed, their slots used again", 16);
POOL_SCENARIO(huge_takeover, "huge blocks, killed and opened with other numbers of cores", 16);
POOL_SCENARIO(huge_grow, "a huge block grows in place, its owner stays", 16);
POOL_SCENARIO(huge_sparse, "the same in a pool without reserved space", 16);
POOL_SCENARIO(huge_move, "a huge block has no room to grow and moves", 0);
POOL_SCENARIO(reallocate_small, "small blocks are reallocated, also to big ones and back", 16);
POOL_SCENARIO(reallocate_big, "big blocks are reallocated in place and moved", 16);
POOL_SCENARIO(reallocate_huge, "blocks are reallocated between the big and the huge allocator", 16);
POOL_SCENARIO(aligned, "aligned blocks of each allocator", 0);
POOL_SCENARIO(everything, "every kind of operation in a random mix", 0);
