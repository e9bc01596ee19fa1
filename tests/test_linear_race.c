/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_linear_race.c -- the tree is linearizable: every call of several threads, on the same keys, is written down and judged
 * (linear/linear.h). Keys are dense, so that the neighbours of the hot ones fill and empty leaves, which split and merge under them.
 *
 * First the judge is judged: histories made by hand, and a map that loses updates, must be found out.
 */
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "pool/pool_fptree.h"
#include "tests/fptree/fake_space.h"
#include "tests/linear/maps.h"
#include "tests/support/owners.h"
#include "tests/support/run.h"
#include "tests/support/temp.h"

_Static_assert(HISTORY_LEAF == TREE_LEAF_SLOTS, "what a scan sees at one instant");

#define KEYS    400u
#define HOT     8u
#define THREADS 6u

/* --- the judge ------------------------------------------------------------------------------------------------------------ */

#define CALL(operation, from, to, by, v, worked)                                                                       \
    {                                                                                                                  \
        .op = (operation), .invoked = (from), .returned = (to), .thread = (by), .value = {v}, .done = (worked)         \
    }

struct by_hand {
    const char *what;
    bool linearizable;
    size_t n;
    struct linear_call call[6];
};

static const struct by_hand by_hand[] = {
    {"nothing", true, 0, {CALL(LINEAR_FIND, 0, 0, 0, 0, false)}},
    {"one after the other",
     true,
     5,
     {CALL(LINEAR_INSERT, 1, 2, 0, 11, true), CALL(LINEAR_FIND, 3, 4, 1, 11, true),
      CALL(LINEAR_UPSERT, 5, 6, 1, 12, true), CALL(LINEAR_REMOVE, 7, 8, 0, 0, true),
      CALL(LINEAR_FIND, 9, 10, 0, 0, false)}},
    {"a lookup beside an upsert sees either value",
     true,
     4,
     {CALL(LINEAR_UPSERT, 1, 2, 0, 11, true), CALL(LINEAR_UPSERT, 3, 9, 0, 12, true),
      CALL(LINEAR_FIND, 4, 6, 1, 12, true), CALL(LINEAR_FIND, 5, 7, 2, 11, true)}},
    {"an insertion takes effect between a removal and another",
     true,
     4,
     {CALL(LINEAR_INSERT, 1, 2, 0, 11, true), CALL(LINEAR_REMOVE, 3, 8, 0, 0, true),
      CALL(LINEAR_INSERT, 4, 10, 1, 12, true), CALL(LINEAR_REMOVE, 5, 9, 2, 0, true)}},
    {"a stale read", /* after a lookup that saw the new value */
     false,
     4,
     {CALL(LINEAR_UPSERT, 1, 2, 0, 11, true), CALL(LINEAR_UPSERT, 3, 9, 0, 12, true),
      CALL(LINEAR_FIND, 4, 5, 1, 12, true), CALL(LINEAR_FIND, 6, 7, 2, 11, true)}},
    {"a read of what comes later",
     false,
     2,
     {CALL(LINEAR_FIND, 1, 2, 1, 11, true), CALL(LINEAR_INSERT, 3, 4, 0, 11, true)}},
    {"a lost update", /* two upserts, one after the other; the first one's value is there at last */
     false,
     3,
     {CALL(LINEAR_UPSERT, 1, 2, 0, 11, true), CALL(LINEAR_UPSERT, 3, 4, 1, 12, true),
      CALL(LINEAR_FIND, 5, 6, 0, 11, true)}},
    {"a lost insertion", false, 2, {CALL(LINEAR_INSERT, 1, 2, 0, 11, true), CALL(LINEAR_FIND, 3, 4, 0, 0, false)}},
    {"two insertions that both succeed",
     false,
     2,
     {CALL(LINEAR_INSERT, 1, 3, 0, 11, true), CALL(LINEAR_INSERT, 2, 4, 1, 12, true)}},
    {"an insertion that finds what is not there",
     false,
     2,
     {CALL(LINEAR_INSERT, 1, 2, 0, 11, false), CALL(LINEAR_FIND, 3, 4, 1, 0, false)}},
    {"a removal of an absent key",
     false,
     2,
     {CALL(LINEAR_FIND, 1, 2, 1, 0, false), CALL(LINEAR_REMOVE, 3, 4, 0, 0, true)}},
    {"two removals of one key",
     false,
     3,
     {CALL(LINEAR_INSERT, 1, 2, 0, 11, true), CALL(LINEAR_REMOVE, 3, 5, 0, 0, true),
      CALL(LINEAR_REMOVE, 4, 6, 1, 0, true)}},
    {"a value of two writers", /* nobody wrote it */
     false,
     3,
     {CALL(LINEAR_UPSERT, 1, 4, 0, 11, true), CALL(LINEAR_UPSERT, 2, 5, 1, 12, true),
      CALL(LINEAR_FIND, 3, 6, 2, 15, true)}},
};

START_TEST(the_judge_finds_what_cannot_be)
{
    for (size_t i = 0; i < sizeof by_hand / sizeof by_hand[0]; i++) {
        struct by_hand b = by_hand[i];
        bool linearizable = linear_check(b.call, b.n, NULL) == NULL;
        EXPECT(linearizable == b.linearizable, "%s: judged %slinearizable", b.what, linearizable ? "" : "not ");
    }
}
END_TEST

/* Two keys, written one after the other; a scan that shows the second and not the first saw no one instant. */
START_TEST(the_judge_finds_a_torn_scan)
{
    struct linear_call calls[] = {CALL(LINEAR_INSERT, 1, 2, 0, 11, true), CALL(LINEAR_INSERT, 3, 4, 0, 12, true),
                                  CALL(LINEAR_SCAN, 0, 5, 1, 0, false)};
    calls[1].key = 1;
    for (unsigned shown = 0; shown < 4; shown++) {
        struct linear_call copy[3];
        memcpy(copy, calls, sizeof copy);
        copy[2].value[0] = (shown & 1) != 0 ? 11 : 0;
        copy[2].value[1] = (shown & 2) != 0 ? 12 : 0;
        ck_assert((linear_check(copy, 3, NULL) == NULL) == (shown != 2));
    }
}
END_TEST

/* --- a map that is wrong, for the whole way from a call to the judgement ----------------------------------------------------- */

static void *contend(void *arg)
{
    struct history_thread *t = arg;
    for (unsigned i = 0; i < 4000; i++)
        history_call(t, (enum linear_op)random_below(&t->random, LINEAR_SCAN), random_below(&t->random, 2));
    return NULL;
}

START_TEST(a_map_that_looks_before_it_changes_is_found_out)
{
    static struct history h;
    struct history_map map = map_that_is_wrong();
    history_init(&h, &map, 2, false, run_seed());
    history_run(&h, THREADS, contend);
    ck_assert_uint_lt(history_first_wrong(&h, false), 2);
    history_fini(&h);
}
END_TEST

static void *contend_under_scans(void *arg)
{
    struct history_thread *t = arg;
    for (unsigned i = 0; i < 2000; i++) {
        if (random_below(&t->random, 4) == 0)
            history_scan(t, 0, LINEAR_KEYS + 1);
        else
            history_call(t, LINEAR_UPSERT, random_below(&t->random, LINEAR_KEYS));
    }
    return NULL;
}

/* Each key by itself is right; a scan that takes its time is no instant of the whole. */
START_TEST(a_scan_that_takes_its_time_is_found_out)
{
    static struct history h;
    struct history_map map = map_that_is_wrong();
    history_init(&h, &map, LINEAR_KEYS, true, run_seed());
    history_run(&h, THREADS, contend_under_scans);
    ck_assert_uint_eq(history_first_wrong(&h, false), 0);
    history_fini(&h);
}
END_TEST

/* --- the tree ------------------------------------------------------------------------------------------------------------- */

static _Thread_local struct random lots;

/* Some stores, flushes and fences take so long that the others come by: in the middle of a change, under its locks. */
static void tarry(void *context, enum media_event event, const void *address, size_t size, const char *site)
{
    (void)context, (void)event, (void)address, (void)size, (void)site;
    if (random_below(&lots, 64) == 0)
        sched_yield();
}

#ifdef STEPS
#define CALLS_OF_EACH 3000u /* over a library that goes slowly: linear/step_hooks.c */
#else
#define CALLS_OF_EACH 12000u
#endif

/* Fill or empty the neighbours of a hot key. */
static void stretch(struct history_thread *t, uint64_t first)
{
    enum linear_op op = random_below(&t->random, 2) == 0 ? LINEAR_REMOVE : LINEAR_INSERT;
    uint64_t length = 20 + random_below(&t->random, 60);
    for (uint64_t key = first; key < first + length && key < KEYS; key++)
        history_call(t, op, key);
}

static void *use_tree(void *arg)
{
    struct history_thread *t = arg;
    lots.state = random_next(&t->random);
    for (unsigned i = 0; i < CALLS_OF_EACH; i++) {
        uint64_t lot = random_below(&t->random, 100), hot = random_below(&t->random, HOT) * (KEYS / HOT);
        if (lot < 3)
            stretch(t, hot);
        else if (lot < 5)
            history_scan(t, hot, 1 + (unsigned)random_below(&t->random, KEYS));
        else
            history_call(t, (enum linear_op)(lot % LINEAR_SCAN), hot);
    }
    return NULL;
}

#define ROUNDS                                                                                                         \
    3u /* the tree is opened anew between them, so its leaves are locked for the first time again and again */

static void judge_tree(enum media_mode mode, uint64_t seed)
{
    static struct history h;
    const struct media_recorder recorder = {.event = tarry};
    struct fake *fake = fake_new(FAKE_BLOCKS);
    struct tree *tree;
    fake->scribble = true;
    fake->media.recorder = &recorder;
    fake->media.mode = mode;
    for (unsigned round = 0; round < ROUNDS; round++) {
        CK_OK(tree_open(&fake->space, FAKE_HEADER, TREE_RULE_SELF, &tree));
        struct history_map map = map_of_tree(tree);
        if (round == 0)
            history_init(&h, &map, KEYS, false, seed);
        h.map = map;
        history_run(&h, THREADS, use_tree);
        CK_OK(tree_check(tree, NULL));
        EXPECT(fake_leaks(fake, tree) == NULL, "%s", fake_leaks(fake, tree));
        tree_close(tree);
    }
    EXPECT(fake->allocations > 20 * ROUNDS && fake->frees > 20 * ROUNDS, "only %u leaves came and %u went",
           fake->allocations, fake->frees);
    history_verify(&h);
    run_count(history_calls(&h));
    history_fini(&h);
    fake_delete(fake);
}

/* A history has a bounded length, as it is kept as a whole; more of them is what a long run means. */
static uint64_t histories(void)
{
    return run_option("histories", 1);
}

START_TEST(calls_on_a_tree_are_linearizable)
{
    for (uint64_t i = 0; i < histories(); i++)
        judge_tree(MEDIA_BYTE, run_seed() + i);
}
END_TEST

START_TEST(calls_on_a_tree_are_linearizable_when_writers_lose_the_processor)
{
    for (uint64_t i = 0; i < histories(); i++)
        judge_tree(MEDIA_RECORD, run_seed() + i);
}
END_TEST

static void *use_one_leaf(void *arg)
{
    struct history_thread *t = arg;
    lots.state = random_next(&t->random);
    for (unsigned i = 0; i < CALLS_OF_EACH; i++) {
        uint64_t key = random_below(&t->random, LINEAR_KEYS);
        if (random_below(&t->random, 3) == 0)
            history_scan(t, 0, LINEAR_KEYS + 1);
        else
            history_call(t, (enum linear_op)random_below(&t->random, LINEAR_SCAN), key);
    }
    return NULL;
}

static void judge_leaf(uint64_t seed)
{
    static struct history h;
    const struct media_recorder recorder = {.event = tarry};
    struct fake *fake = fake_new(FAKE_BLOCKS);
    struct tree *tree;
    fake->media.recorder = &recorder;
    fake->media.mode = MEDIA_RECORD;
    CK_OK(tree_open(&fake->space, FAKE_HEADER, TREE_RULE_SELF, &tree));
    struct history_map map = map_of_tree(tree);
    history_init(&h, &map, LINEAR_KEYS, true, seed);
    history_run(&h, THREADS, use_one_leaf);
    CK_OK(tree_check(tree, NULL));
    tree_close(tree);
    history_verify(&h);
    run_count(history_calls(&h));
    history_fini(&h);
    fake_delete(fake);
}

START_TEST(a_scan_of_one_leaf_is_one_instant)
{
    for (uint64_t i = 0; i < histories(); i++)
        judge_leaf(run_seed() + i);
}
END_TEST

/* By the public interface, with leaves from the allocator. */
static void judge_fptree(uint64_t seed)
{
    static struct history h;
    struct temp_path dir = temp_new();
    pa_pool *pool = pool_make(dir.text);
    pa_pptr root;
    fptree *tree;
    CK_OK(pa_root(pool, sizeof(pa_pptr), &root));
    for (unsigned round = 0; round < ROUNDS; round++) {
        CK_OK(fptree_open(pool, pa_direct(pool, root), &tree));
        struct history_map map = map_of_fptree(tree);
        if (round == 0)
            history_init(&h, &map, KEYS, false, seed);
        h.map = map;
        history_run(&h, THREADS, use_tree);
        CK_OK(fptree_check(tree, NULL));
        CK_OK(fptree_close(tree));
        CK_OK(pa_close(pool));
        pool = pool_reopen(dir.text);
    }
    history_verify(&h);
    run_count(history_calls(&h));
    history_fini(&h);
    pool_finish(pool, dir.text);
}

START_TEST(calls_on_a_tree_in_a_pool_are_linearizable)
{
    for (uint64_t i = 0; i < histories(); i++)
        judge_fptree(run_seed() + i);
}
END_TEST

static void add(Suite *s)
{
    ADD(s, the_judge_finds_what_cannot_be, 30);
    ADD(s, the_judge_finds_a_torn_scan, 30);
    ADD(s, a_map_that_looks_before_it_changes_is_found_out, 60);
    ADD(s, a_scan_that_takes_its_time_is_found_out, 60);
    ADD(s, calls_on_a_tree_are_linearizable, 120);
    ADD(s, calls_on_a_tree_are_linearizable_when_writers_lose_the_processor, 120);
    ADD(s, a_scan_of_one_leaf_is_one_instant, 120);
    ADD(s, calls_on_a_tree_in_a_pool_are_linearizable, 120);
}

int main(int argc, char **argv)
{
    return run_main(argc, argv, "linear", add);
}
