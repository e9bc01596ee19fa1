/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_race.c -- the thread-safe part of the interface, everything at once; made for ThreadSanitizer.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/owners.h"
#include "tests/support/random.h"
#include "tests/support/run.h"
#include "tests/support/temp.h"

#define QUEUE_SLOTS 256u

/* A bounded queue of owner numbers. */
struct queue {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    size_t at[QUEUE_SLOTS];
    size_t head, tail; /* taken, put */
};

static void queue_init(struct queue *q)
{
    memset(q, 0, sizeof *q);
    pthread_mutex_init(&q->mutex, NULL);
    pthread_cond_init(&q->changed, NULL);
}

static void queue_put(struct queue *q, size_t value)
{
    pthread_mutex_lock(&q->mutex);
    while (q->tail - q->head == QUEUE_SLOTS)
        pthread_cond_wait(&q->changed, &q->mutex);
    q->at[q->tail++ % QUEUE_SLOTS] = value;
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&q->mutex);
}

static size_t queue_take(struct queue *q)
{
    pthread_mutex_lock(&q->mutex);
    while (q->tail == q->head)
        pthread_cond_wait(&q->changed, &q->mutex);
    size_t value = q->at[q->head++ % QUEUE_SLOTS];
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&q->mutex);
    return value;
}

struct shared {
    pa_pool *pool;
    struct owners o;
    struct queue full, empty; /* owners with and without a block */
    size_t operations;
    atomic_bool stop;
    atomic_uint_fast64_t next_seed, observed;
};

static size_t size_of(size_t i)
{
    return 16 + (i * 2654435761u) % 3000;
}

static void *produce(void *arg)
{
    struct shared *s = arg;
    for (size_t k = 0; k < s->operations; k++) {
        size_t i = queue_take(&s->empty);
        CK_OK(pa_allocate(s->pool, owners_at(&s->o, i), size_of(i)));
        block_fill(pa_direct(s->pool, *owners_at(&s->o, i)), 16, i);
        queue_put(&s->full, i);
    }
    return NULL;
}

static void *consume(void *arg)
{
    struct shared *s = arg;
    for (size_t k = 0; k < s->operations; k++) {
        size_t i = queue_take(&s->full);
        ck_assert(block_is(pa_direct(s->pool, *owners_at(&s->o, i)), 16, i));
        ck_assert_uint_ge(pa_usable_size(s->pool, *owners_at(&s->o, i)), size_of(i));
        CK_OK(pa_deallocate(s->pool, owners_at(&s->o, i)));
        queue_put(&s->empty, i);
    }
    return NULL;
}

static int look(pa_pptr block, size_t usable_size, void *arg)
{
    struct shared *s = arg;
    if (pa_direct(s->pool, block) == NULL || usable_size == 0)
        return 1;
    (void)pa_usable_size(s->pool, block);
    return 0;
}

static void *watch(void *arg)
{
    struct shared *s = arg;
    while (!atomic_load(&s->stop)) {
        pa_stats stats;
        CK_OK(pa_get_stats(s->pool, &stats));
        CK_OK(pa_foreach(s->pool, look, s));
        pa_pptr root;
        CK_OK(pa_root(s->pool, 64, &root));
        atomic_fetch_add(&s->observed, 1);
        sched_yield();
    }
    return NULL;
}

static void shared_open(struct shared *s, const char *dir, unsigned cores, size_t owners)
{
    memset(s, 0, sizeof *s);
    pa_options options;
    pa_options_init(&options);
    options.segment_size = 1u << 20;
    options.cores = cores;
    CK_OK(pa_create(dir, &options, &s->pool));
    CK_OK(owners_open(&s->o, s->pool, owners));
    queue_init(&s->full);
    queue_init(&s->empty);
}

static void start(pthread_t *threads, size_t n, void *(*run)(void *), struct shared *s)
{
    for (size_t t = 0; t < n; t++)
        ck_assert_int_eq(pthread_create(&threads[t], NULL, run, s), 0);
}

static void join(pthread_t *threads, size_t n)
{
    for (size_t t = 0; t < n; t++)
        pthread_join(threads[t], NULL);
}

static void producers_and_consumers(unsigned cores, size_t pairs)
{
    struct temp_path dir = temp_new();
    static struct shared s;
    shared_open(&s, dir.text, cores, QUEUE_SLOTS);
    s.operations = run_option("operations", 150000) / pairs;
    for (size_t i = 0; i < QUEUE_SLOTS; i++)
        queue_put(&s.empty, i);
    pthread_t producers[16], consumers[16], watcher;
    start(producers, pairs, produce, &s);
    start(consumers, pairs, consume, &s);
    start(&watcher, 1, watch, &s);
    join(producers, pairs);
    join(consumers, pairs);
    atomic_store(&s.stop, true);
    join(&watcher, 1);
    ck_assert_uint_gt(atomic_load(&s.observed), 0);
    run_count(2 * pairs * s.operations);
    owners_verify(&s.o);
    pool_finish(s.pool, dir.text);
}

START_TEST(a_pair_passes_blocks_along)
{
    producers_and_consumers(2, 1);
}
END_TEST

START_TEST(many_pairs_pass_blocks_along_on_one_core_object)
{
    producers_and_consumers(1, 4);
}
END_TEST

START_TEST(many_pairs_pass_blocks_along_on_many_core_objects)
{
    producers_and_consumers(8, 4);
}
END_TEST

/* Each thread fills and empties its own owners, so slabs and segments come and go all the time. */
static void *breathe(void *arg)
{
    struct shared *s = arg;
    uint64_t number = atomic_fetch_add(&s->next_seed, 1);
    size_t own = 200, first = number * own;
    for (size_t round = 0; round < s->operations; round++) {
        for (size_t i = 0; i < own; i++)
            CK_OK(pa_allocate(s->pool, owners_at(&s->o, first + i), round % 2 == 0 ? 8000 : 100 + round));
        for (size_t i = 0; i < own; i++)
            CK_OK(pa_deallocate(s->pool, owners_at(&s->o, first + i)));
    }
    return NULL;
}

START_TEST(slabs_and_segments_come_and_go_under_watch)
{
    struct temp_path dir = temp_new();
    static struct shared s;
    shared_open(&s, dir.text, 3, 6 * 200);
    s.operations = run_option("operations", 150000) / 4000;
    pthread_t threads[6], watcher;
    start(threads, 6, breathe, &s);
    start(&watcher, 1, watch, &s);
    join(threads, 6);
    atomic_store(&s.stop, true);
    join(&watcher, 1);
    run_count(2 * 6 * 200 * s.operations);
    owners_verify(&s.o);
    pool_finish(s.pool, dir.text);
}
END_TEST

static void *first_root(void *arg)
{
    struct shared *s = arg;
    pa_pptr *ret = aligned_alloc(16, sizeof *ret);
    CK_OK(pa_root(s->pool, 256, ret));
    return ret;
}

START_TEST(all_threads_get_the_same_first_root)
{
    for (int round = 0; round < 20; round++) {
        struct temp_path dir = temp_new();
        struct shared s = {.pool = pool_make(dir.text)};
        pthread_t threads[6];
        pa_pptr *roots[6];
        start(threads, 6, first_root, &s);
        for (size_t t = 0; t < 6; t++)
            pthread_join(threads[t], (void **)&roots[t]);
        for (size_t t = 1; t < 6; t++)
            ck_assert_mem_eq(roots[t], roots[0], sizeof *roots[t]);
        for (size_t t = 0; t < 6; t++)
            free(roots[t]);
        pool_finish(s.pool, dir.text);
    }
}
END_TEST

/* The first operations after an open read metadata lazily: several threads need the same segments first. */
static void *watch_once(void *arg)
{
    struct shared *s = arg;
    pa_stats stats;
    CK_OK(pa_get_stats(s->pool, &stats));
    CK_OK(pa_foreach(s->pool, look, s));
    return NULL;
}

static void *free_every_fourth(void *arg)
{
    struct shared *s = arg;
    uint64_t number = atomic_fetch_add(&s->next_seed, 1);
    for (size_t i = number; i < s->o.count; i += 4) {
        CK_OK(pa_deallocate(s->pool, owners_at(&s->o, i)));
        CK_OK(pa_allocate(s->pool, owners_at(&s->o, i), 100));
    }
    return NULL;
}

START_TEST(the_first_operations_after_open_race)
{
    struct temp_path dir = temp_new();
    static struct shared s;
    shared_open(&s, dir.text, 4, 4000);
    for (size_t i = 0; i < 4000; i++)
        CK_OK(pa_allocate(s.pool, owners_at(&s.o, i), size_of(i)));
    for (int round = 0; round < 10; round++) {
        CK_OK(pa_close(s.pool));
        s.pool = pool_reopen(dir.text);
        CK_OK(owners_open(&s.o, s.pool, 4000));
        atomic_store(&s.next_seed, 0);
        pthread_t freeing[4], looking[2];
        start(freeing, 4, free_every_fourth, &s);
        start(looking, 2, watch_once, &s);
        join(freeing, 4);
        join(looking, 2);
        owners_verify(&s.o);
    }
    run_count(10 * 2 * 4000);
    pool_finish(s.pool, dir.text);
}
END_TEST

static void *own_pool(void *arg)
{
    const struct temp_path *dir = arg;
    for (int round = 0; round < 5; round++) {
        pa_pool *pool = round == 0 ? pool_make(dir->text) : pool_reopen(dir->text);
        struct owners o;
        CK_OK(owners_open(&o, pool, 100));
        for (size_t i = 0; i < 100; i++)
            CK_OK(pa_allocate(pool, owners_at(&o, i), 64));
        CK_OK(owners_free_all(&o));
        pool_finish(pool, dir->text);
    }
    return NULL;
}

START_TEST(threads_create_and_open_pools_of_their_own)
{
    pthread_t threads[6];
    struct temp_path dirs[6];
    for (size_t t = 0; t < 6; t++) {
        dirs[t] = temp_new();
        ck_assert_int_eq(pthread_create(&threads[t], NULL, own_pool, &dirs[t]), 0);
    }
    join(threads, 6);
}
END_TEST

static void add(Suite *s)
{
    ADD(s, a_pair_passes_blocks_along, 60);
    ADD(s, many_pairs_pass_blocks_along_on_one_core_object, 60);
    ADD(s, many_pairs_pass_blocks_along_on_many_core_objects, 60);
    ADD(s, slabs_and_segments_come_and_go_under_watch, 60);
    ADD(s, all_threads_get_the_same_first_root, 60);
    ADD(s, the_first_operations_after_open_race, 60);
    ADD(s, threads_create_and_open_pools_of_their_own, 60);
}

int main(int argc, char **argv)
{
    return run_main(argc, argv, "race", add);
}
