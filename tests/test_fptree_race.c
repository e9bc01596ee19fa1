/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_fptree_race.c -- many threads on one tree; run under the race detector too.
 *
 * Linearizability is judged per key. A key has one writer, which numbers its changes: before change n it publishes
 * started = n, after it done = n. Odd n: the key is there with value n; even n: it is not. Any thread that looks the key up must
 * find a state between the `done` that it read before and the `started` that it read after.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "pool/pool_fptree.h"
#include "tests/fptree/fake_space.h"
#include "tests/support/owners.h"
#include "tests/support/random.h"
#include "tests/support/run.h"
#include "tests/support/temp.h"

#define THREADS_MAX 16u

struct key_state {
    uint64_t started, done;
};

struct world {
    struct fake *fake;
    struct tree *tree;
    struct key_state *keys;
    unsigned key_count, threads;
    uint64_t steps;             /* per thread */
    uint64_t spread;            /* key = index * spread */
    uint64_t inserted, removed; /* of contended keys */
};

struct worker {
    struct world *world;
    unsigned number;
    uint64_t seed, checks;
    pthread_t thread;
};

static struct world *world_new(unsigned key_count, unsigned threads, uint64_t spread)
{
    struct world *w = calloc(1, sizeof *w);
    w->fake = fake_new(FAKE_BLOCKS);
    w->fake->scribble = true;
    CK_OK(tree_open(&w->fake->space, FAKE_HEADER, TREE_RULE_SELF, &w->tree));
    w->keys = calloc(key_count, sizeof *w->keys);
    w->key_count = key_count;
    w->threads = threads;
    w->spread = spread;
    w->steps = run_option("changes", 300000);
    return w;
}

static struct tree_counts world_check(struct world *w)
{
    struct tree_counts c;
    CK_OK(tree_check(w->tree, &c));
    const char *leak = fake_leaks(w->fake, w->tree);
    EXPECT(leak == NULL, "%s", leak);
    return c;
}

static void world_delete(struct world *w)
{
    tree_close(w->tree);
    fake_delete(w->fake);
    free(w->keys);
    free(w);
}

/* Each step is at least one operation. */
static void run_threads(struct world *w, void *(*body)(void *))
{
    struct worker workers[THREADS_MAX];
    for (unsigned i = 0; i < w->threads; i++) {
        workers[i] = (struct worker){.world = w, .number = i, .seed = run_seed() + i};
        ck_assert_int_eq(pthread_create(&workers[i].thread, NULL, body, &workers[i]), 0);
    }
    for (unsigned i = 0; i < w->threads; i++)
        pthread_join(workers[i].thread, NULL);
    run_count(w->threads * w->steps);
}

static void change(struct worker *me, unsigned i)
{
    struct world *w = me->world;
    struct key_state *k = &w->keys[i];
    uint64_t n = k->started + 1, key = i * w->spread;
    bool update = n % 2 == 0 && n % 6 == 0;
    if (update)
        n++; /* from one odd number to the next */
    __atomic_store_n(&k->started, n, __ATOMIC_SEQ_CST);
    int code = update       ? tree_upsert(w->tree, key, n)
               : n % 2 == 1 ? tree_insert(w->tree, key, n)
                            : tree_remove(w->tree, key);
    EXPECT(code == 0, "change %llu of key %u: %s", (unsigned long long)n, i, pa_errormsg());
    __atomic_store_n(&k->done, n, __ATOMIC_SEQ_CST);
}

static void look(struct worker *me, unsigned i)
{
    const struct world *w = me->world;
    const struct key_state *k = &w->keys[i];
    uint64_t value = 0, done = __atomic_load_n(&k->done, __ATOMIC_SEQ_CST);
    int code = tree_find(w->tree, i * w->spread, &value);
    uint64_t started = __atomic_load_n(&k->started, __ATOMIC_SEQ_CST);
    if (code == 0)
        EXPECT(value >= done && value <= started && value % 2 == 1, "key %u: value %llu, between %llu and %llu", i,
               (unsigned long long)value, (unsigned long long)done, (unsigned long long)started);
    else
        EXPECT(done % 2 == 0 || started > done, "key %u is gone at %llu", i, (unsigned long long)done);
    me->checks++;
}

/* Changes its own keys, looks at everybody's. */
static void *change_and_look(void *arg)
{
    struct worker *me = arg;
    struct world *w = me->world;
    struct random r = {me->seed};
    for (uint64_t n = 0; n < w->steps; n++) {
        unsigned i = (unsigned)random_below(&r, w->key_count);
        if (random_below(&r, 2) == 0)
            change(me, i - i % w->threads + me->number);
        else
            look(me, i);
    }
    return NULL;
}

static void compare_all(struct world *w)
{
    for (unsigned i = 0; i < w->key_count; i++) {
        struct worker me = {.world = w};
        look(&me, i);
    }
}

START_TEST(race__finds_are_linearizable_on_few_keys)
{
    struct world *w = world_new(48, 4, 1);
    run_threads(w, change_and_look);
    compare_all(w);
    world_check(w);
    world_delete(w);
}
END_TEST

START_TEST(race__finds_are_linearizable_while_leaves_split_and_merge)
{
    struct world *w = world_new(4000, 8, UINT64_MAX / 4000);
    run_threads(w, change_and_look);
    compare_all(w);
    world_check(w);
    world_delete(w);
}
END_TEST

/* Threads fill and empty neighbouring stretches, so that leaves come and go all the time. */
static void *fill_and_empty(void *arg)
{
    struct worker *me = arg;
    struct world *w = me->world;
    struct random r = {me->seed};
    for (uint64_t n = 0; n < w->steps;) {
        unsigned first = (unsigned)random_below(&r, w->key_count / 2);
        for (unsigned phase = 0; phase < 2; phase++)
            for (unsigned i = 0; i < w->key_count / 4; i++, n++) {
                unsigned k = (first + i) / w->threads * w->threads + me->number;
                if (w->keys[k].started % 2 == phase)
                    change(me, k);
                look(me, (unsigned)random_below(&r, w->key_count));
            }
    }
    return NULL;
}

START_TEST(race__leaves_come_and_go)
{
    struct world *w = world_new(2000, 4, 1);
    run_threads(w, fill_and_empty);
    compare_all(w);
    world_check(w);
    for (unsigned i = 0; i < w->key_count; i++)
        if (w->keys[i].done % 2 == 1)
            CK_OK(tree_remove(w->tree, i));
    ck_assert_uint_eq(world_check(w).leaves, 1);
    ck_assert_uint_eq(w->fake->allocated, 0);
    world_delete(w);
}
END_TEST

/* All threads insert and remove the same keys: each insertion that succeeds is followed by one removal that does. */
static void *contend(void *arg)
{
    struct worker *me = arg;
    struct world *w = me->world;
    struct random r = {me->seed};
    uint64_t inserted = 0, removed = 0;
    for (uint64_t n = 0; n < w->steps; n++) {
        uint64_t key = random_below(&r, w->key_count) * w->spread;
        bool in = random_below(&r, 2) == 0;
        int code = in ? tree_insert(w->tree, key, key) : tree_remove(w->tree, key);
        EXPECT(code == 0 || code == (in ? PA_EEXIST : PA_ENOENT), "%s", pa_errormsg());
        inserted += in && code == 0;
        removed += !in && code == 0;
    }
    __atomic_fetch_add(&w->inserted, inserted, __ATOMIC_RELAXED);
    __atomic_fetch_add(&w->removed, removed, __ATOMIC_RELAXED);
    return NULL;
}

START_TEST(race__contended_keys_go_in_and_out_once)
{
    struct world *w = world_new(300, 4, 3);
    run_threads(w, contend);
    ck_assert_uint_eq(world_check(w).entries, w->inserted - w->removed);
    world_delete(w);
}
END_TEST

/* The same on a pool, where leaves come from the allocator and go back to it, beside allocations of others. */
START_TEST(race__leaves_come_and_go_in_a_pool)
{
    struct temp_path dir = temp_new();
    pa_pool *pool = pool_make(dir.text);
    pa_pptr root;
    fptree *tree;
    struct world w = {.keys = calloc(6000, sizeof(struct key_state)), .key_count = 6000, .threads = 4, .spread = 5};
    w.steps = run_option("changes", 200000);
    CK_OK(pa_root(pool, sizeof(pa_pptr), &root));
    CK_OK(fptree_open(pool, pa_direct(pool, root), &tree));
    w.tree = fptree_tree(tree);
    run_threads(&w, fill_and_empty);
    compare_all(&w);
    CK_OK(fptree_check(tree, NULL));
    CK_OK(fptree_close(tree));
    pool_finish(pool, dir.text);
    pool = pool_reopen(dir.text);
    CK_OK(fptree_open(pool, pa_direct(pool, root), &tree));
    w.tree = fptree_tree(tree);
    compare_all(&w);
    for (unsigned i = 0; i < w.key_count; i++)
        if (w.keys[i].done % 2 == 1)
            CK_OK(fptree_remove(tree, i * w.spread));
    pa_stats stats;
    CK_OK(pa_get_stats(pool, &stats));
    ck_assert_uint_eq(stats.allocated_blocks, 2); /* the root and the tree's header */
    CK_OK(fptree_close(tree));
    pool_finish(pool, dir.text);
    free(w.keys);
}
END_TEST

struct sweep {
    uint64_t last, fixed;
    bool any;
};

static int see(uint64_t key, uint64_t value, void *arg)
{
    struct sweep *s = arg;
    EXPECT(!s->any || key > s->last, "the scan is out of order");
    if (key % 10 == 0) {
        EXPECT(value == key + 1, "key %llu", (unsigned long long)key);
        s->fixed++;
    }
    s->any = true;
    s->last = key;
    return 0;
}

/* Keys that are multiples of 10 stay; a scan must see each of them once, whatever happens between. */
static void *scan_or_change(void *arg)
{
    struct worker *me = arg;
    struct world *w = me->world;
    struct random r = {me->seed};
    for (uint64_t n = 0; n < w->steps; n++) {
        if (me->number == 0) {
            struct sweep s = {0};
            CK_OK(tree_scan(w->tree, 0, see, &s));
            EXPECT(s.fixed == w->key_count / 10, "the scan saw %llu of the keys that stay",
                   (unsigned long long)s.fixed);
            n += w->key_count / 10;
            continue;
        }
        uint64_t key = random_below(&r, w->key_count);
        if (key % 10 != 0 && random_below(&r, 2) == 0)
            tree_insert(w->tree, key, 0);
        else if (key % 10 != 0)
            tree_remove(w->tree, key);
    }
    return NULL;
}

START_TEST(race__scans_see_all_that_stays)
{
    struct world *w = world_new(5000, 4, 1);
    for (uint64_t key = 0; key < w->key_count; key += 10)
        CK_OK(tree_insert(w->tree, key, key + 1));
    run_threads(w, scan_or_change);
    world_check(w);
    world_delete(w);
}
END_TEST

static void add(Suite *s)
{
    ADD(s, race__finds_are_linearizable_on_few_keys, 120);
    ADD(s, race__finds_are_linearizable_while_leaves_split_and_merge, 120);
    ADD(s, race__leaves_come_and_go, 120);
    ADD(s, race__leaves_come_and_go_in_a_pool, 120);
    ADD(s, race__contended_keys_go_in_and_out_once, 120);
    ADD(s, race__scans_see_all_that_stays, 120);
}

int main(int argc, char **argv)
{
    return run_main(argc, argv, "fptree_race", add);
}
