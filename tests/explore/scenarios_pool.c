/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * scenarios_pool.c -- histories of the pool and of the small allocator. Small numbers everywhere: 1 MiB segments of fifteen or
 * so slabs, rings of 16 or 64 entries, so that a few dozen operations meet every protocol.
 */
#include <string.h>

#include "tests/explore/poolside.h"

static int run_create(struct history *h)
{
    struct poolside *p = poolside_new(h, 2, 16, 8, 1);
    p->may_not_exist = true;
    history_from_here(h);
    TRY(poolside_create(h, 0));
    return poolside_close(h);
}

static int run_root(struct history *h)
{
    poolside_new(h, 2, 16, 8, 1);
    TRY(poolside_create(h, 0));
    history_from_here(h);
    TRY(poolside_root(h, 40));
    TRY(poolside_alloc(h, poolside_owner(0), 100));
    TRY(poolside_free(h, poolside_owner(0)));
    return poolside_close(h);
}

/* The root block lands where something else was, as when pa_repair gave up a root. */
static int run_root_dirty(struct history *h)
{
    poolside_new(h, 2, 16, 8, 1);
    TRY(poolside_create(h, 0));
    TRY(poolside_dirty_root(h, 40));
    history_from_here(h);
    TRY(poolside_root(h, 40));
    TRY(poolside_alloc(h, poolside_owner(0), 100));
    return poolside_close(h);
}

/* A process died between storing and writing back the root line; the next one works with the root. */
static int run_root_killed(struct history *h)
{
    poolside_new(h, 2, 16, 8, 1);
    TRY(poolside_create(h, 0));
    TRY(poolside_root_in_cache(h, 40));
    history_from_here(h);
    TRY(poolside_open(h, 1));
    TRY(poolside_root(h, 40));
    for (unsigned i = 0; i < 4; i++)
        TRY(poolside_alloc(h, poolside_owner(i), 100));
    return poolside_close(h);
}

/* One random step on the owners: fills those that are null, frees the others. */
static int random_step(struct history *h, unsigned owners, const size_t *sizes, unsigned sizes_count)
{
    uint32_t cell = poolside_owner((unsigned)history_random(h, owners));
    if (pa_is_null(poolside_read(h, cell)))
        return poolside_alloc(h, cell, sizes[history_random(h, sizes_count)]);
    return poolside_free(h, cell);
}

static int random_steps(struct history *h, unsigned steps, unsigned owners, const size_t *sizes, unsigned sizes_count)
{
    for (unsigned i = 0; i < steps; i++)
        TRY(random_step(h, owners, sizes, sizes_count));
    return 0;
}

static int run_mixed(struct history *h)
{
    static const size_t sizes[] = {1, 16, 40, 64, 64, 100, 256, 1000, 4096, 5000, 16384};
    poolside_new(h, 2, 64, 8, 1);
    TRY(poolside_create(h, 25));
    history_from_here(h);
    TRY(random_steps(h, 80, 24, sizes, sizeof sizes / sizeof *sizes));
    return poolside_close(h);
}

static int run_wrap(struct history *h)
{
    static const size_t sizes[] = {64, 64, 64, 3000};
    poolside_new(h, 1, 16, 8, 1);
    TRY(poolside_create(h, 13));
    history_from_here(h);
    TRY(random_steps(h, 70, 12, sizes, sizeof sizes / sizeof *sizes));
    return poolside_close(h);
}

static uint32_t next_entry(const struct history *h)
{
    return poolside_of(h)->pool->cores[0].lane.next % 16;
}

/* Cut where the DONE entry of recovery takes the place of an entry whose line only recovery has brought up to date: the oldest one,
 * the first of a quarter, fifteen entries before the newest. An allocation takes two entries, a free one. */
static int wrap_redo(struct history *h, size_t size)
{
    unsigned n = 1;
    poolside_new(h, 1, 16, 8, 1);
    TRY(poolside_create(h, 13));
    TRY(poolside_alloc(h, poolside_owner(0), size)); /* whatever is made once for its kind */
    for (unsigned i = 1; i < 10; i++)
        TRY(poolside_alloc(h, poolside_owner(i), 64));
    while (next_entry(h) % 4 != 0)
        TRY(poolside_free(h, poolside_owner(n++)));
    uint32_t first = next_entry(h);
    TRY(poolside_alloc(h, poolside_owner(10), size));
    for (uint32_t left; (left = (first + 15 - next_entry(h)) % 16) > 0;) {
        if (left < 3) {
            TRY(poolside_free(h, poolside_owner(n++)));
            continue;
        }
        TRY(poolside_alloc(h, poolside_owner(11), 64));
        TRY(poolside_free(h, poolside_owner(11)));
    }
    history_from_here(h);
    TRY(poolside_free(h, poolside_owner(n)));
    return poolside_close(h);
}

static int run_wrap_redo(struct history *h)
{
    return wrap_redo(h, 3000);
}

static int run_wrap_redo_big(struct history *h)
{
    return wrap_redo(h, 20000);
}

/* Slabs of four or five blocks: filled, emptied, taken by another class. */
static int run_reformat(struct history *h)
{
    static const size_t sizes[] = {16384, 12288, 16384, 13000, 64};
    poolside_new(h, 1, 16, 8, 1);
    TRY(poolside_create(h, 13));
    history_from_here(h);
    for (unsigned round = 0; round < 5; round++) {
        for (unsigned i = 0; i < 8; i++)
            TRY(poolside_alloc(h, poolside_owner(i), sizes[round]));
        for (unsigned i = 0; i < 8; i++)
            TRY(poolside_free(h, poolside_owner((i * 3 + round) % 8)));
    }
    return poolside_close(h);
}

/* The first segment is almost full; cut where the second one is made, filled, and given back. */
static int run_segment(struct history *h)
{
    poolside_new(h, 2, 16, 8, 1);
    TRY(poolside_create(h, OWNERS_MAX + 8));
    for (unsigned i = 0; i < 54; i++)
        TRY(poolside_alloc(h, poolside_owner(i), 16384));
    history_from_here(h);
    for (unsigned i = 54; i < 66; i++)
        TRY(poolside_alloc(h, poolside_owner(i), 16384));
    for (unsigned i = 66; i-- > 50;)
        TRY(poolside_free(h, poolside_owner(i)));
    for (unsigned i = 50; i < 58; i++)
        TRY(poolside_alloc(h, poolside_owner(i), 9000));
    return poolside_close(h);
}

/* A process died between storing and writing back the word that gives a segment away; the next one fills that segment. */
static int run_segment_killed(struct history *h)
{
    poolside_new(h, 2, 16, 8, 1);
    TRY(poolside_create(h, OWNERS_MAX + 8));
    for (unsigned i = 0; i < 54; i++)
        TRY(poolside_alloc(h, poolside_owner(i), 16384));
    TRY(poolside_spare(h));
    TRY(poolside_segment_in_cache(h));
    history_from_here(h);
    TRY(poolside_open(h, 1));
    for (unsigned i = 54; i < 64; i++)
        TRY(poolside_alloc(h, poolside_owner(i), 16384));
    return poolside_close(h);
}

/* Core 0 fills two segments and empties them; core 1 takes over what was given back. */
static int run_handover(struct history *h)
{
    poolside_new(h, 2, 16, 8, 2);
    TRY(poolside_create(h, OWNERS_MAX + 64));
    for (unsigned i = 0; i < 118; i++)
        TRY(poolside_alloc(h, poolside_owner(i), 16384));
    for (unsigned i = 0; i < 112; i++)
        TRY(poolside_free(h, poolside_owner(i)));
    history_from_here(h);
    for (unsigned i = 112; i < 118; i++)
        TRY(poolside_free(h, poolside_owner(i)));
    history_pin(1);
    for (unsigned i = 0; i < 10; i++)
        TRY(poolside_alloc(h, poolside_owner(i), 16384));
    history_pin(0);
    for (unsigned i = 10; i < 14; i++)
        TRY(poolside_alloc(h, poolside_owner(i), 500));
    for (unsigned i = 0; i < 14; i++)
        TRY(poolside_free(h, poolside_owner(i)));
    return poolside_close(h);
}

/* Blocks of one core freed by a thread on the other. */
static int run_remote_free(struct history *h)
{
    static const size_t sizes[] = {48, 64, 2048};
    poolside_new(h, 2, 16, 8, 2);
    TRY(poolside_create(h, 13));
    TRY(poolside_alloc(h, poolside_owner(0), 64));
    history_pin(1);
    TRY(poolside_alloc(h, poolside_owner(1), 64));
    history_from_here(h);
    for (unsigned i = 0; i < 50; i++) {
        history_pin(i / 2 % 2);
        TRY(random_step(h, 12, sizes, 3));
    }
    history_pin(0);
    return poolside_close(h);
}

/* Closed or killed, and opened with fewer or more cores: lanes and segments change hands. */
static int run_takeover(struct history *h)
{
    static const size_t sizes[] = {64, 700, 16384};
    static const unsigned cores[] = {2, 1, 2, 1};
    poolside_new(h, 2, 16, 8, 2);
    TRY(poolside_create(h, 13));
    history_from_here(h);
    for (unsigned round = 0; round < 4; round++) {
        for (unsigned i = 0; i < 14; i++) {
            history_pin(i % 2);
            TRY(random_step(h, 12, sizes, 3));
        }
        history_pin(0);
        TRY(round % 2 == 0 ? poolside_kill(h) : poolside_close(h));
        TRY(poolside_open(h, cores[(round + 1) % 4]));
    }
    return poolside_close(h);
}

/* Killed again and again in the middle of a full ring: recovery itself is cut, with everything before it only in the cache. */
static int run_recovery(struct history *h)
{
    static const size_t sizes[] = {64, 64, 1500};
    poolside_new(h, 1, 16, 8, 1);
    TRY(poolside_create(h, 13));
    history_from_here(h);
    for (unsigned round = 0; round < 6; round++) {
        TRY(random_steps(h, 5 + 4 * round, 12, sizes, 3));
        TRY(poolside_kill(h));
        TRY(poolside_open(h, 1));
    }
    return poolside_close(h);
}

/* Owner pointers in blocks that are freed and given to others, who write their own data there. */
static int run_chain_on(struct history *h, unsigned cores)
{
    poolside_new(h, cores, 16, 8, cores);
    TRY(poolside_create(h, 5));
    history_from_here(h);
    for (unsigned round = 0; round < 5; round++) {
        uint32_t inner, word;
        uint64_t offset = 16 * history_random(h, 4);
        history_pin(round);
        TRY(poolside_alloc(h, poolside_owner(0), 64));
        TRY(poolside_cell_in(h, CELL_OWNER, poolside_owner(0), offset, &inner));
        history_pin((unsigned)history_random(h, 2));
        TRY(poolside_alloc(h, inner, round % 2 == 0 ? 64 : 200));
        if (round % 2 == 0)
            TRY(poolside_alloc(h, poolside_owner(1), 32));
        TRY(poolside_free(h, inner));
        TRY(poolside_free_with(h, poolside_owner(0), &inner, 1));
        history_pin(round);
        /* The same block again, in all likelihood, for data where the owner was. */
        TRY(poolside_alloc(h, poolside_owner(2), 64));
        TRY(poolside_cell_in(h, CELL_WORD, poolside_owner(2), offset, &word));
        TRY(poolside_set(h, word, 0x1111 * (round + 1)));
        if (round == 2) {
            TRY(poolside_kill(h));
            TRY(poolside_open(h, cores));
        }
        TRY(poolside_set(h, word, 0x7777 * (round + 1)));
        TRY(poolside_free_with(h, poolside_owner(2), &word, 1));
        if (round % 2 == 0)
            TRY(poolside_free(h, poolside_owner(1)));
    }
    return poolside_close(h);
}

static int run_chain(struct history *h)
{
    return run_chain_on(h, 1);
}

static int run_chain_two(struct history *h)
{
    return run_chain_on(h, 2);
}

/* The application moves a pointer by itself, as it may once pa_allocate has returned. */
static int run_move(struct history *h)
{
    struct poolside *p = poolside_new(h, 1, 16, 8, 1);
    TRY(poolside_create(h, 9));
    history_from_here(h);
    for (unsigned i = 0; i < 8; i++) {
        uint32_t from = poolside_owner(i % 4), to = poolside_owner(4 + i % 4);
        if (!pa_is_null(poolside_read(h, to)))
            TRY(poolside_free(h, to));
        TRY(poolside_alloc(h, from, 64));
        TRY(poolside_move(h, from, to));
    }
    (void)p;
    return poolside_close(h);
}

/* Closed with the ring at each position of a quarter, also where closing itself overwrites old entries. */
static int run_close(struct history *h)
{
    static const size_t sizes[] = {64, 300, 900, 2000};
    poolside_new(h, 1, 16, 8, 1);
    TRY(poolside_create(h, 13));
    TRY(random_steps(h, 16, 12, sizes, 4));
    history_from_here(h);
    for (unsigned round = 0; round < 10; round++) {
        TRY(random_steps(h, 3, 12, sizes, 4));
        TRY(poolside_close(h));
        TRY(poolside_open(h, 1));
    }
    return poolside_close(h);
}

/* Every operation in a class of its own, so that no line is written back for another operation's sake; then the ring, full, is
 * closed at each position. */
static int run_close_lines(struct history *h)
{
    static const size_t sizes[] = {16,  32,  48,  64,  80,  96,   112,  128,  160,  192,  224, 256,
                                   320, 384, 448, 512, 640, 1024, 1280, 1792, 2560, 3584, 5120};
    unsigned classes = sizeof sizes / sizeof *sizes;
    poolside_new(h, 1, 16, 8, 1);
    TRY(poolside_create(h, 33));
    for (unsigned i = 0; i < 4; i++)
        TRY(poolside_alloc(h, poolside_owner(28 + i), sizes[19 + i]));
    history_from_here(h);
    for (unsigned round = 0; round < 4; round++) {
        if (round > 0)
            TRY(poolside_free(h, poolside_owner(28 + round - 1)));
        for (unsigned i = 0; i < 12; i++)
            TRY(poolside_alloc(h, poolside_owner(i), sizes[(round * 5 + i) % (classes - 4)]));
        TRY(poolside_close(h));
        TRY(poolside_open(h, 1));
        for (unsigned i = 0; i < 12; i++)
            TRY(poolside_free(h, poolside_owner(i)));
        if (round % 2 != 0) {
            TRY(poolside_close(h));
            TRY(poolside_open(h, 1));
        }
    }
    return poolside_close(h);
}

static int run_big(struct history *h)
{
    static const size_t sizes[] = {16385, 20000, 40000, 70000, 131072, 300000};
    poolside_new(h, 1, 16, 8, 1);
    TRY(poolside_create(h, 13));
    TRY(poolside_alloc(h, poolside_owner(0), 17000));
    history_from_here(h);
    TRY(random_steps(h, 70, 12, sizes, sizeof sizes / sizeof *sizes));
    return poolside_close(h);
}

/* More blocks than an index leaf has entries, then fewer again. */
static int run_big_index(struct history *h)
{
    poolside_new(h, 1, 64, 8, 1);
    TRY(poolside_create(h, 70));
    for (unsigned i = 0; i < 34; i++)
        TRY(poolside_alloc(h, poolside_owner(i), 16500 + 100 * (i % 5)));
    history_from_here(h);
    for (unsigned i = 34; i < 50; i++)
        TRY(poolside_alloc(h, poolside_owner(i), 16500));
    for (unsigned i = 0; i < 50; i += 2)
        TRY(poolside_free(h, poolside_owner(i)));
    for (unsigned i = 0; i < 10; i += 2)
        TRY(poolside_alloc(h, poolside_owner(i), 18000));
    for (unsigned i = 1; i < 50; i += 2)
        TRY(poolside_free(h, poolside_owner(i)));
    return poolside_close(h);
}

/* As big_index, but what the library takes for its index was full of the program's bytes before. */
static int run_big_dirty(struct history *h)
{
    poolside_new(h, 1, 16, 8, 1);
    TRY(poolside_create(h, 70));
    for (unsigned i = 0; i < 12; i++) {
        TRY(poolside_alloc(h, poolside_owner(i), 16384));
        TRY(poolside_dirty(h, poolside_owner(i)));
    }
    for (unsigned i = 0; i < 12; i++)
        TRY(poolside_free(h, poolside_owner(i)));
    history_from_here(h);
    for (unsigned i = 0; i < 3; i++)
        TRY(poolside_alloc(h, poolside_owner(i), 20000));
    TRY(poolside_free(h, poolside_owner(1)));
    return poolside_close(h);
}

/* Big and small, on two cores, killed and opened with another number of cores. */
static int run_big_takeover(struct history *h)
{
    static const size_t sizes[] = {64, 16384, 50000, 200000};
    static const unsigned cores[] = {2, 1, 2, 1};
    poolside_new(h, 2, 16, 10, 2);
    TRY(poolside_create(h, 13));
    history_from_here(h);
    for (unsigned round = 0; round < 4; round++) {
        for (unsigned i = 0; i < 14; i++) {
            history_pin(i % 2);
            TRY(random_step(h, 12, sizes, 4));
        }
        history_pin(0);
        TRY(round % 2 == 0 ? poolside_kill(h) : poolside_close(h));
        TRY(poolside_open(h, cores[(round + 1) % 4]));
    }
    return poolside_close(h);
}

/* Segments are deleted and holes punched, then filled again. */
static int run_defragment(struct history *h)
{
    static const size_t sizes[] = {64, 16384, 20000, 90000};
    poolside_new(h, 1, 16, 8, 1);
    TRY(poolside_create(h, 41));
    for (unsigned i = 0; i < 40; i++)
        TRY(poolside_alloc(h, poolside_owner(i), sizes[i % 4]));
    for (unsigned i = 0; i < 40; i++)
        if (i % 8 != 3)
            TRY(poolside_free(h, poolside_owner(i)));
    history_from_here(h);
    for (unsigned round = 0; round < 3; round++) {
        TRY(poolside_defragment(h, UINT64_MAX, round == 0));
        TRY(random_steps(h, 8, 40, sizes, 4));
        if (round == 1) {
            TRY(poolside_kill(h));
            TRY(poolside_open(h, 1));
        }
    }
    return poolside_close(h);
}

POOL_SCENARIO(create, "a pool is created", 4);
POOL_SCENARIO(root, "the root block is made", 8);
POOL_SCENARIO(root_dirty, "the root block is made where something else was", 8);
POOL_SCENARIO(segment_killed, "a segment whose owner a killed process left in the cache", 16);
POOL_SCENARIO(root_killed, "a root that a killed process left in the cache", 8);
POOL_SCENARIO(mixed, "allocations and frees of several classes", 0);
POOL_SCENARIO(wrap, "a ring of 16 entries goes round several times", 0);
POOL_SCENARIO(wrap_redo, "what recovery has redone loses its entry to recovery's own", 1);
POOL_SCENARIO(wrap_redo_big, "the same with a big block", 1);
POOL_SCENARIO(reformat, "slabs are emptied and taken by other classes", 0);
POOL_SCENARIO(segment, "a segment is created, filled and given back", 0);
POOL_SCENARIO(handover, "empty segments go to the other core", 0);
POOL_SCENARIO(remote_free, "one core's blocks are freed on the other", 0);
POOL_SCENARIO(takeover, "closed or killed, opened with other numbers of cores", 0);
POOL_SCENARIO(recovery, "killed and recovered, again and again", 4);
POOL_SCENARIO(chain, "owner pointers in blocks that are used again", 0);
POOL_SCENARIO(chain_two, "the same on two cores", 0);
POOL_SCENARIO(move, "the application moves an owner pointer", 0);
POOL_SCENARIO(big, "big blocks are split and merged", 0);
POOL_SCENARIO(big_index, "the index of big blocks grows and shrinks", 0);
POOL_SCENARIO(big_dirty, "the index of big blocks is made where the program had written", 16);
POOL_SCENARIO(big_takeover, "big blocks, killed and opened with other numbers of cores", 0);
POOL_SCENARIO(defragment, "segments are deleted, holes punched and filled", 0);
POOL_SCENARIO(close, "the pool is closed and opened", 8);
POOL_SCENARIO(close_lines, "closed with a full ring, every entry's line still dirty", 0);
