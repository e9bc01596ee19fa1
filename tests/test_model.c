/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_model.c -- random operations of several threads against plain arrays, with reopens.
 *
 * Any thread works on any owner, so blocks are freed by others than allocated them. A slot of the model is guarded by its
 * stripe's mutex; everything the model says is compared with the pool at every step and after each reopen.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/owners.h"
#include "tests/support/random.h"
#include "tests/support/run.h"
#include "tests/support/temp.h"

#define SLOTS       4096u
#define STRIPES     64u
#define THREADS_MAX 64u

struct slot {
    uint64_t tag; /* 0 = no block */
    size_t size;
    pa_pptr block;
};

struct model {
    pa_pool *pool;
    struct owners o;
    struct slot slots[SLOTS];
    pthread_mutex_t stripes[STRIPES];
    size_t operations, max_size; /* per thread and round; of a block */
    uint64_t seed;
};

struct worker {
    struct model *model;
    struct random random;
    uint64_t tag;
    uint64_t refused; /* PA_ENOSPC */
    pthread_t thread;
};

static bool slot_agrees(const struct model *m, size_t i)
{
    const struct slot *s = &m->slots[i];
    pa_pptr owner = *owners_at(&m->o, i);
    if (s->tag == 0)
        return pa_is_null(owner);
    return memcmp(&owner, &s->block, sizeof owner) == 0 && pa_usable_size(m->pool, owner) >= s->size &&
           block_is(pa_direct(m->pool, owner), s->size, s->tag);
}

static void slot_allocate(struct worker *w, size_t i)
{
    struct model *m = w->model;
    struct slot *s = &m->slots[i];
    /* Mostly little, now and then anything. */
    bool any = random_below(&w->random, 32) == 0;
    size_t size = any ? 1 + random_below(&w->random, m->max_size) : random_size(&w->random, m->max_size);
    int r = pa_allocate(m->pool, owners_at(&m->o, i), size);
    if (r == PA_ENOSPC) {
        w->refused++;
        EXPECT(pa_is_null(*owners_at(&m->o, i)), "owner %zu after PA_ENOSPC", i);
        return;
    }
    CK_OK(r);
    *s = (struct slot){++w->tag, size, *owners_at(&m->o, i)};
    block_fill(pa_direct(m->pool, s->block), size, s->tag);
    pa_flush(m->pool, pa_direct(m->pool, s->block), size);
    pa_drain(m->pool);
}

static void slot_step(struct worker *w, size_t i, unsigned bias)
{
    struct model *m = w->model;
    pthread_mutex_t *stripe = &m->stripes[i % STRIPES];
    pthread_mutex_lock(stripe);
    EXPECT(slot_agrees(m, i), "owner %zu", i);
    if (m->slots[i].tag == 0) {
        if (random_below(&w->random, 100) < bias)
            slot_allocate(w, i);
    } else if (random_below(&w->random, 100) >= bias) {
        CK_OK(pa_deallocate(m->pool, owners_at(&m->o, i)));
        EXPECT(pa_is_null(*owners_at(&m->o, i)), "owner %zu after a free", i);
        m->slots[i].tag = 0;
    }
    pthread_mutex_unlock(stripe);
}

static void *work(void *arg)
{
    struct worker *w = arg;
    size_t n = w->model->operations;
    for (size_t k = 0; k < n; k++) {
        /* Phases of growth and of shrinking, so that slabs and segments fill up and come back. */
        unsigned bias = (k / 2048) % 2 == 0 ? 75 : 25;
        slot_step(w, random_below(&w->random, SLOTS), bias);
    }
    return NULL;
}

static uint64_t run_threads(struct model *m, size_t threads, uint64_t round)
{
    static struct worker workers[THREADS_MAX];
    for (size_t t = 0; t < threads; t++) {
        workers[t] = (struct worker){.model = m,
                                     .random = {m->seed + round * 1000 + t},
                                     .tag = (round << 56) + ((uint64_t)t << 40)};
        ck_assert_int_eq(pthread_create(&workers[t].thread, NULL, work, &workers[t]), 0);
    }
    uint64_t refused = 0;
    for (size_t t = 0; t < threads; t++) {
        pthread_join(workers[t].thread, NULL);
        refused += workers[t].refused;
    }
    return refused;
}

static void compare_all(const struct model *m)
{
    owners_verify(&m->o);
    for (size_t i = 0; i < SLOTS; i++)
        EXPECT(slot_agrees(m, i), "owner %zu", i);
}

static void reopen(struct model *m, const char *dir, unsigned cores)
{
    CK_OK(pa_close(m->pool));
    pool_check_sound(dir);
    pa_options options;
    pa_options_init(&options);
    options.cores = cores;
    CK_OK(pa_open(dir, &options, &m->pool));
    CK_OK(owners_open(&m->o, m->pool, SLOTS));
}

static uint64_t run_model(size_t threads, size_t max_size, uint64_t pool_max, size_t operations)
{
    static struct model m;
    struct temp_path dir = temp_new();
    memset(&m, 0, sizeof m);
    m.seed = run_seed();
    m.operations = operations;
    m.max_size = max_size;
    for (size_t i = 0; i < STRIPES; i++)
        pthread_mutex_init(&m.stripes[i], NULL);
    pa_options options;
    pa_options_init(&options);
    options.segment_size = 1u << 20;
    options.max_size = pool_max;
    CK_OK(pa_create(dir.text, &options, &m.pool));
    CK_OK(owners_open(&m.o, m.pool, SLOTS));
    uint64_t refused = 0;
    static const unsigned cores[] = {0, 1, 4, 2};
    for (uint64_t round = 1; round <= 4; round++) {
        refused += run_threads(&m, threads, round);
        compare_all(&m);
        reopen(&m, dir.text, cores[round % 4]);
        compare_all(&m);
    }
    CK_OK(owners_free_all(&m.o));
    owners_verify(&m.o);
    pool_finish(m.pool, dir.text);
    return refused;
}

START_TEST(one_thread_agrees_with_the_model)
{
    run_model(1, 1024, 0, run_option("operations", 200000));
}
END_TEST

START_TEST(four_threads_agree_with_the_model)
{
    run_model(4, 2048, 0, run_option("operations", 200000));
}
END_TEST

START_TEST(more_threads_than_cores_agree_with_the_model)
{
    run_model(16, 256, 0, run_option("operations", 200000) / 4);
}
END_TEST

START_TEST(large_blocks_agree_with_the_model)
{
    run_model(4, 500000, 0, run_option("operations", 200000) / 20);
}
END_TEST

START_TEST(large_blocks_in_a_pool_at_its_limit_agree_with_the_model)
{
    uint64_t refused = run_model(3, 300000, 24u << 20, run_option("operations", 200000) / 10);
    ck_assert_uint_gt(refused, 0);
}
END_TEST

START_TEST(a_pool_at_its_limit_agrees_with_the_model)
{
    uint64_t refused = run_model(4, 16384, 4u << 20, run_option("operations", 200000) / 2);
    ck_assert_uint_gt(refused, 0);
}
END_TEST

START_TEST(cache_line_media_agree_with_the_model)
{
    run_pretend("CACHE_LINE");
    run_model(4, 2048, 0, run_option("operations", 200000) / 2);
}
END_TEST

START_TEST(byte_media_agree_with_the_model)
{
    run_pretend("BYTE");
    run_model(2, 2048, 0, run_option("operations", 200000) / 4);
}
END_TEST

START_TEST(page_media_agree_with_the_model)
{
    run_pretend("PAGE");
    run_model(2, 1024, 0, run_option("operations", 200000) / 12);
}
END_TEST

static void add(Suite *s)
{
    ADD(s, one_thread_agrees_with_the_model, 60);
    ADD(s, four_threads_agree_with_the_model, 60);
    ADD(s, more_threads_than_cores_agree_with_the_model, 60);
    ADD(s, large_blocks_agree_with_the_model, 60);
    ADD(s, large_blocks_in_a_pool_at_its_limit_agree_with_the_model, 60);
    ADD(s, a_pool_at_its_limit_agrees_with_the_model, 60);
    ADD(s, cache_line_media_agree_with_the_model, 60);
    ADD(s, byte_media_agree_with_the_model, 60);
    ADD(s, page_media_agree_with_the_model, 60);
}

int main(int argc, char **argv)
{
    return run_main(argc, argv, "model", add);
}
