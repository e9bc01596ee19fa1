/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_threads_race.c -- every operation of the interface at once, threads that come and go, and more threads than processors under
 * scheduling policies that starve some of them. Made for ThreadSanitizer.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <fptree.h>

#include "tests/support/owners.h"
#include "tests/support/random.h"
#include "tests/support/run.h"
#include "tests/support/temp.h"

#define MIB         (1ull << 20)
#define THREADS_MAX 16u
#define OWN         48u
#define KEYS        400u

/* One pool, one tree; each worker has owners and keys of its own. */
struct world {
    struct temp_path dir;
    struct owners o;
    fptree *tree;
    unsigned workers;
    uint64_t steps; /* per worker */
    atomic_bool stop;
    size_t sizes[THREADS_MAX][OWN];
    uint64_t values[THREADS_MAX][KEYS]; /* 0 = no such key */
    atomic_uint_fast64_t operations, watched;
};

struct worker {
    struct world *w;
    unsigned number;
    int policy; /* -1 = as it is */
    pthread_t thread;
};

static pa_pptr *anchor_of(const struct world *w)
{
    return owners_at(&w->o, THREADS_MAX * OWN);
}

static void world_make(struct world *w, unsigned workers, uint64_t steps)
{
    memset(w, 0, sizeof *w);
    w->dir = temp_new();
    w->workers = workers;
    w->steps = steps;
    pa_options options;
    pa_options_init(&options);
    options.segment_size = MIB;
    options.cores = 3;
    pa_pool *pool = NULL;
    CK_OK(pa_create(w->dir.text, &options, &pool));
    CK_OK(owners_open(&w->o, pool, THREADS_MAX * OWN + 1));
    CK_OK(fptree_open(pool, anchor_of(w), &w->tree));
}

static uint64_t key_of(unsigned worker, unsigned k)
{
    return (uint64_t)k * THREADS_MAX + worker; /* neighbours belong to different threads */
}

/* Small mostly, some big, few huge ones. */
static size_t any_size(struct random *r)
{
    uint64_t kind = random_below(r, 100);
    if (kind < 2)
        return MIB + (size_t)random_below(r, 2 * MIB);
    return kind < 20 ? 16384 + (size_t)random_below(r, 400000) : random_size(r, 16384);
}

static size_t shown(size_t size)
{
    return size < 256 ? size / 8 * 8 : 256;
}

static void step_block(struct worker *me, struct random *r)
{
    struct world *w = me->w;
    unsigned i = (unsigned)random_below(r, OWN);
    pa_pptr *dst = owners_at(&w->o, me->number * OWN + i);
    size_t *old = &w->sizes[me->number][i], size = any_size(r);
    uint64_t tag = me->number * OWN + i;
    if (*old != 0)
        EXPECT(block_is(pa_direct(w->o.pool, *dst), shown(*old), tag) && pa_usable_size(w->o.pool, *dst) >= *old,
               "worker %u block %u", me->number, i);
    if (*old != 0 && random_below(r, 3) != 0) {
        CK_OK(pa_deallocate(w->o.pool, dst));
        *old = 0;
        return;
    }
    if (*old != 0) {
        CK_OK(pa_reallocate(w->o.pool, dst, size));
        size_t kept = size < *old ? size : *old;
        EXPECT(kept < 256 || block_is(pa_direct(w->o.pool, *dst), 256, tag), "worker %u block %u after a move",
               me->number, i);
    } else if (random_below(r, 8) == 0) {
        size_t alignment = (size_t)16 << random_below(r, 15);
        CK_OK(pa_allocate_aligned(w->o.pool, dst, size, alignment));
        ck_assert_uint_eq((uintptr_t)pa_direct(w->o.pool, *dst) % alignment, 0);
    } else {
        CK_OK(pa_allocate(w->o.pool, dst, size));
    }
    block_fill(pa_direct(w->o.pool, *dst), shown(size), tag);
    *old = size;
}

static void step_tree(struct worker *me, struct random *r)
{
    struct world *w = me->w;
    unsigned k = (unsigned)random_below(r, KEYS);
    uint64_t *value = &w->values[me->number][k], found = 0, key = key_of(me->number, k);
    int code = fptree_find(w->tree, key, &found);
    EXPECT(*value == 0 ? code == PA_ENOENT : code == 0 && found == *value, "key %llu: %s", (unsigned long long)key,
           pa_strerror(code));
    uint64_t next = random_next(r) | 1;
    if (*value != 0 && next % 3 == 0) {
        CK_OK(fptree_remove(w->tree, key));
        *value = 0;
        return;
    }
    CK_OK(*value == 0 ? fptree_insert(w->tree, key, next) : fptree_upsert(w->tree, key, next));
    *value = next;
}

static void steps(struct worker *me, uint64_t n, uint64_t seed)
{
    struct random r = {seed};
    for (uint64_t i = 0; i < n; i++) {
        if (random_below(&r, 3) == 0)
            step_tree(me, &r);
        else
            step_block(me, &r);
        atomic_fetch_add_explicit(&me->w->operations, 1, memory_order_relaxed);
    }
}

static void *work(void *arg)
{
    struct worker *me = arg;
    if (me->policy >= 0) { /* a policy that is not permitted here changes nothing */
        struct sched_param p = {.sched_priority = me->policy == SCHED_FIFO ? 1 : 0};
        (void)pthread_setschedparam(pthread_self(), me->policy, &p);
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(me->number % 2 == 0 ? 0 : (unsigned)sysconf(_SC_NPROCESSORS_ONLN) - 1, &set);
        (void)sched_setaffinity(0, sizeof set, &set);
    }
    steps(me, me->w->steps, run_seed() + me->number);
    return NULL;
}

/* --- those who look -------------------------------------------------------------------------------------------------------- */

static int look(pa_pptr block, size_t usable_size, void *arg)
{
    (void)arg;
    return usable_size == 0 || pa_is_null(block) ? 1 : 0;
}

static int look_at_key(uint64_t key, uint64_t value, void *arg)
{
    uint64_t *last = arg; /* one more than the key before */
    if (value == 0 || key + 1 <= *last)
        return 1;
    *last = key + 1;
    return 0;
}

static void *watch(void *arg)
{
    struct world *w = arg;
    while (!atomic_load(&w->stop)) {
        pa_stats stats;
        pa_pptr root;
        uint64_t last = 0;
        CK_OK(pa_get_stats(w->o.pool, &stats));
        CK_OK(pa_foreach(w->o.pool, look, NULL));
        CK_OK(fptree_scan(w->tree, 0, look_at_key, &last));
        CK_OK(pa_root(w->o.pool, 64, &root));
        atomic_fetch_add(&w->watched, 1);
        usleep(500);
    }
    return NULL;
}

static void *defragment(void *arg)
{
    struct world *w = arg;
    struct random r = {run_seed() + 1000};
    while (!atomic_load(&w->stop)) {
        CK_OK(pa_defragment(w->o.pool, random_log(&r, 1, 16 * MIB), NULL));
        usleep(1000);
    }
    return NULL;
}

static void watch_start(struct world *w, pthread_t threads[2])
{
    ck_assert_int_eq(pthread_create(&threads[0], NULL, watch, w), 0);
    ck_assert_int_eq(pthread_create(&threads[1], NULL, defragment, w), 0);
}

static void watch_stop(struct world *w, pthread_t threads[2])
{
    atomic_store(&w->stop, true);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
}

/* Each worker's blocks and keys as it left them; emptied, nothing remains. */
static void world_finish(struct world *w)
{
    run_count(atomic_load(&w->operations));
    for (unsigned t = 0; t < w->workers; t++) {
        for (unsigned i = 0; i < OWN; i++) {
            pa_pptr p = *owners_at(&w->o, t * OWN + i);
            ck_assert(pa_is_null(p) == (w->sizes[t][i] == 0));
            if (!pa_is_null(p))
                ck_assert(block_is(pa_direct(w->o.pool, p), shown(w->sizes[t][i]), t * OWN + i));
        }
        for (unsigned k = 0; k < KEYS; k++) {
            uint64_t found = 0;
            int code = fptree_find(w->tree, key_of(t, k), &found);
            ck_assert(w->values[t][k] == 0 ? code == PA_ENOENT : code == 0 && found == w->values[t][k]);
            if (code == 0)
                CK_OK(fptree_remove(w->tree, key_of(t, k)));
        }
    }
    CK_OK(fptree_close(w->tree));
    owners_verify(&w->o);          /* an empty tree keeps nothing but its header */
    CK_OK(owners_free_all(&w->o)); /* the tree's header block is the last owner's */
    pool_finish(w->o.pool, w->dir.text);
}

static void everything_at_once(unsigned workers, bool policies, uint64_t operations)
{
    static const int policy[] = {SCHED_OTHER, SCHED_BATCH, SCHED_IDLE, SCHED_FIFO};
    static struct world w;
    struct worker crew[THREADS_MAX];
    pthread_t watchers[2];
    world_make(&w, workers, operations / workers);
    watch_start(&w, watchers);
    for (unsigned t = 0; t < workers; t++) {
        crew[t] = (struct worker){.w = &w, .number = t, .policy = policies ? policy[t % 4] : -1};
        ck_assert_int_eq(pthread_create(&crew[t].thread, NULL, work, &crew[t]), 0);
    }
    for (unsigned t = 0; t < workers; t++)
        pthread_join(crew[t].thread, NULL);
    watch_stop(&w, watchers);
    ck_assert_uint_gt(atomic_load(&w.watched), 0);
    world_finish(&w);
}

START_TEST(every_operation_at_once)
{
    everything_at_once(6, false, run_option("operations", 20000));
}
END_TEST

/* A SCHED_FIFO thread that waits by spinning for one that gets no processor would hang here. */
START_TEST(more_threads_than_processors_under_mixed_policies)
{
    everything_at_once(12, true, run_option("operations", 20000));
}
END_TEST

static void *short_life(void *arg)
{
    struct worker *me = arg;
    steps(me, 20, run_seed() + atomic_load(&me->w->operations));
    return NULL;
}

START_TEST(a_thousand_threads_come_and_go)
{
    static struct world w;
    struct worker crew[8];
    pthread_t watchers[2];
    world_make(&w, 8, 0);
    watch_start(&w, watchers);
    unsigned rounds = (unsigned)run_option("threads", 1000) / 8;
    for (unsigned round = 0; round < rounds; round++) {
        for (unsigned t = 0; t < 8; t++) {
            crew[t] = (struct worker){.w = &w, .number = t, .policy = -1};
            ck_assert_int_eq(pthread_create(&crew[t].thread, NULL, short_life, &crew[t]), 0);
        }
        for (unsigned t = 0; t < 8; t++)
            pthread_join(crew[t].thread, NULL);
    }
    watch_stop(&w, watchers);
    world_finish(&w);
}
END_TEST

static void add(Suite *s)
{
    ADD(s, every_operation_at_once, 90);
    ADD(s, more_threads_than_processors_under_mixed_policies, 90);
    ADD(s, a_thousand_threads_come_and_go, 90);
}

int main(int argc, char **argv)
{
    return run_main(argc, argv, "threads", add);
}
