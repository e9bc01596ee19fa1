/* SPDX-License-Identifier: BSD-3-Clause */
/* test_background_race.c -- the pool's own thread: the spare segment, and block indexes that are read after open. */
#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "pool/pool.h"
#include "tests/support/owners.h"
#include "tests/support/random.h"
#include "tests/support/run.h"
#include "tests/support/temp.h"

#define MIB (1u << 20)

static pa_pool *create(const char *dir, unsigned flags, uint64_t max_size)
{
    pa_options o;
    pa_options_init(&o);
    o.segment_size = MIB;
    o.max_size = max_size;
    o.cores = 2;
    o.flags = flags;
    pa_pool *pool = NULL;
    CK_OK(pa_create(dir, &o, &pool));
    return pool;
}

static pa_pool *reopen(const char *dir, unsigned flags, bool young)
{
    pa_options o;
    pa_options_init(&o);
    o.cores = 2;
    o.flags = flags;
    struct pool_params params = {.young = young};
    pa_pool *pool = NULL;
    CK_OK(pool_open_ex(dir, &o, &params, &pool));
    return pool;
}

/* Threads that carry the library's name. */
static unsigned threads(void)
{
    unsigned n = 0;
    DIR *d = opendir("/proc/self/task");
    ck_assert_ptr_nonnull(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char path[300], name[32] = "";
        snprintf(path, sizeof path, "/proc/self/task/%s/comm", e->d_name);
        FILE *f = fopen(path, "r");
        n += f != NULL && fgets(name, sizeof name, f) != NULL && strcmp(name, "pallocator\n") == 0;
        if (f != NULL)
            fclose(f);
    }
    closedir(d);
    return n;
}

static void nap(void)
{
    struct timespec t = {0, 1000000};
    nanosleep(&t, NULL);
}

/* Wait until the free list has a segment; false after ten seconds. */
static bool spare_comes(pa_pool *pool)
{
    for (unsigned i = 0; i < 10000 && manager_free_count(&pool->manager) == 0; i++)
        nap();
    return manager_free_count(&pool->manager) == 1;
}

START_TEST(a_spare_segment_is_made_ahead_and_used)
{
    struct temp_path dir = temp_new();
    pa_pool *pool = create(dir.text, 0, 0);
    struct owners o;
    CK_OK(owners_open(&o, pool, 1000));
    ck_assert(spare_comes(pool));
    pa_stats before, after;
    CK_OK(pa_get_stats(pool, &before));
    CK_OK(pa_allocate(pool, owners_at(&o, 0), 100000)); /* of another kind: takes the spare, and a new one comes */
    CK_OK(pa_get_stats(pool, &after));
    ck_assert_uint_le(after.segment_files, before.segment_files + 1);
    ck_assert(spare_comes(pool));
    for (unsigned i = 1; i < 200; i++)
        CK_OK(pa_allocate(pool, owners_at(&o, i), 50000));
    owners_verify(&o);
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(without_background_there_is_no_thread_and_no_spare)
{
    struct temp_path dir = temp_new();
    pa_pool *pool = create(dir.text, PA_NO_BACKGROUND, 0);
    struct owners o;
    CK_OK(owners_open(&o, pool, 1000));
    ck_assert_uint_eq(manager_free_count(&pool->manager), 0);
    ck_assert_uint_eq(threads(), 0);
    pool_finish(pool, dir.text);
    pool = reopen(dir.text, 0, false);
    CK_OK(owners_open(&o, pool, 1000));
    CK_OK(pa_allocate(pool, owners_at(&o, 0), 100000));
    ck_assert_uint_eq(threads(), 1);
    pool_finish(pool, dir.text);
    for (unsigned i = 0; i < 10000 && threads() != 0;
         i++) /* pa_close has waited for it; the kernel may show it for a moment more */
        nap();
    ck_assert_uint_eq(threads(), 0);
}
END_TEST

START_TEST(a_spare_does_not_keep_the_last_space_from_anybody)
{
    struct temp_path dir = temp_new();
    pa_pool *pool = create(dir.text, 0, 8u * MIB);
    struct owners o;
    CK_OK(owners_open(&o, pool, 1000));
    CK_OK(pa_allocate(pool, owners_at(&o, 0), 3 * MIB)); /* huge */
    unsigned n = 1;
    while (pa_allocate(pool, owners_at(&o, n), 200000) == 0)
        n++;
    pa_stats s;
    CK_OK(pa_get_stats(pool, &s));
    ck_assert_uint_eq(manager_free_count(&pool->manager), 0);
    ck_assert_uint_gt(s.file_bytes + MIB, 8u * MIB);
    CK_OK(owners_free_all(&o));
    ck_assert(spare_comes(pool) || manager_free_count(&pool->manager) > 1);
    CK_OK(pa_allocate(pool, owners_at(&o, 0), 5 * MIB)); /* the free segments make room for it */
    owners_verify(&o);
    pool_finish(pool, dir.text);
}
END_TEST

/* Making a segment's file takes its time. */
static int be_slow(void *context, enum file_op op, const char *name, const char *site)
{
    (void)context, (void)site;
    for (unsigned i = 0; i < 100 && op == FILE_OP_SYNC && strncmp(name, "segment-", 8) == 0; i++)
        nap();
    return 0;
}

static void *make_spare(void *arg)
{
    pa_pool *pool = arg;
    CK_OK(manager_make_spare(&pool->manager));
    return NULL;
}

static bool is_making(pa_pool *pool)
{
    lock_acquire(&pool->manager.lock);
    bool making = pool->manager.making != 0;
    lock_release(&pool->manager.lock);
    return making;
}

START_TEST(a_spare_in_the_making_does_not_keep_the_last_space_either)
{
    struct temp_path dir = temp_new();
    pa_pool *pool = create(dir.text, PA_NO_BACKGROUND, 0);
    struct owners o;
    pa_stats stats;
    CK_OK(owners_open(&o, pool, 100));
    CK_OK(pa_get_stats(pool, &stats));
    CK_OK(pa_close(pool));
    pa_options options;
    pa_options_init(&options);
    options.cores = 2;
    options.max_size = stats.file_bytes + 5 * MIB / 2;
    struct file_hooks hooks = {.before = be_slow};
    struct pool_params params = {.hooks = &hooks};
    CK_OK(pool_open_ex(dir.text, &options, &params, &pool));
    CK_OK(owners_open(&o, pool, 100));
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, make_spare, pool), 0);
    while (!is_making(pool) && manager_free_count(&pool->manager) == 0)
        nap();
    int code = pa_allocate(pool, owners_at(&o, 0), 2 * MIB); /* huge */
    pthread_join(thread, NULL);
    CK_OK(code);
    owners_verify(&o);
    pool_finish(pool, dir.text);
}
END_TEST

#define BLOCKS 4000u

/* Blocks of many segments, owned and filled. */
static void fill(const struct owners *o, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++) {
        size_t size = 17000 + i * 13 % 9000;
        CK_OK(pa_allocate(o->pool, owners_at(o, i), size));
        block_fill(pa_direct(o->pool, *owners_at(o, i)), size, i);
    }
}

static void verify(const struct owners *o, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++)
        ck_assert(block_is(pa_direct(o->pool, *owners_at(o, i)), 17000 + i * 13 % 9000, i));
    owners_verify(o);
}

static bool any_pending(const pa_pool *pool)
{
    bool any = false;
    for (uint32_t i = 0; i < pool->big_count; i++)
        any = any || background_is_pending(&pool->background, i);
    return any;
}

START_TEST(large_indexes_are_read_after_open_and_nothing_waits_for_them_but_what_must)
{
    struct temp_path dir = temp_new();
    pa_pool *pool = create(dir.text, 0, 0);
    struct owners o;
    CK_OK(owners_open(&o, pool, 2 * BLOCKS));
    fill(&o, 0, BLOCKS);
    for (unsigned round = 0; round < 6; round++) {
        if (round % 2 == 0)
            pool_abandon(pool);
        else
            CK_OK(pa_close(pool));
        pool = reopen(dir.text, 0, false);
        CK_OK(owners_open(&o, pool, 2 * BLOCKS));
        fill(&o, BLOCKS, BLOCKS + 50);
        for (unsigned i = 0; i < 50; i++)
            CK_OK(pa_deallocate(pool, owners_at(&o, round * 50 + i))); /* of the index that is being read */
        fill(&o, round * 50, round * 50 + 50);
        for (unsigned i = BLOCKS; i < BLOCKS + 50; i++)
            CK_OK(pa_deallocate(pool, owners_at(&o, i)));
        verify(&o, 0, BLOCKS);
        ck_assert(!any_pending(pool)); /* pa_get_stats has waited */
    }
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(young_indexes_keep_what_they_got)
{
    struct temp_path dir = temp_new();
    pa_pool *pool = create(dir.text, PA_NO_BACKGROUND, 0);
    struct owners o;
    CK_OK(owners_open(&o, pool, 2 * BLOCKS));
    fill(&o, 0, 500);
    CK_OK(pa_close(pool));
    pool = reopen(dir.text, PA_NO_BACKGROUND, true);
    CK_OK(owners_open(&o, pool, 2 * BLOCKS));
    fill(&o, 500, 1500);
    bool named = false;
    for (uint32_t i = pool->big_count / 2; i < pool->big_count; i++)
        named = named || !pa_is_null(*big_index_owner(&pool->manager, i));
    ck_assert(named);
    verify(&o, 0, 1500);
    pool_abandon(pool);
    for (unsigned round = 0; round < 4; round++) {
        pool = reopen(dir.text, round % 2 == 0 ? 0 : PA_NO_BACKGROUND, round >= 2);
        CK_OK(owners_open(&o, pool, 2 * BLOCKS));
        verify(&o, 0, 1500);
        for (unsigned i = round; i < 1500; i += 7)
            CK_OK(pa_deallocate(pool, owners_at(&o, i)));
        for (unsigned i = round; i < 1500; i += 7)
            fill(&o, i, i + 1);
        CK_OK(pa_close(pool));
    }
    pool = reopen(dir.text, 0, false);
    CK_OK(owners_open(&o, pool, 2 * BLOCKS));
    CK_OK(owners_free_all(&o));
    uint64_t released;
    CK_OK(pa_defragment(pool, UINT64_MAX, &released));
    owners_verify(&o);
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(the_head_of_a_new_index_is_newer_than_all_entries)
{
    struct temp_path dir = temp_new();
    pa_pool *pool = create(dir.text, PA_NO_BACKGROUND, 0);
    struct owners o;
    CK_OK(owners_open(&o, pool, 100));
    for (unsigned i = 0; i < 50; i++)
        CK_OK(pa_allocate(pool, owners_at(&o, i), 20000));
    uint32_t young = pool->big_count / 2;
    struct big *big = &pool->bigs[young];
    lock_acquire(&big->core->lock);
    ck_assert_int_eq(big_alloc(big, 20000, BIG_PAGE_BYTES, owners_at(&o, 50), BIG_NO_GROW), PA_ENOSPC);
    const struct manager *m = &pool->manager;
    const struct pm_tree_header *h =
        (const struct pm_tree_header *)(m->base + manager_off(m, *big_index_owner(m, young)));
    ck_assert_uint_eq(h->head.lsn, big->core->lane.lsn); /* a leaf may have stood there, which they change */
    lock_release(&big->core->lock);
    owners_verify(&o);
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(close_does_not_wait_for_indexes_that_nobody_needs)
{
    struct temp_path dir = temp_new();
    pa_pool *pool = create(dir.text, 0, 0);
    struct owners o;
    CK_OK(owners_open(&o, pool, BLOCKS));
    fill(&o, 0, BLOCKS);
    pool_finish(pool, dir.text);
    for (unsigned i = 0; i < 50; i++) {
        pool = reopen(dir.text, 0, false);
        CK_OK(pa_close(pool));
    }
    pool = reopen(dir.text, 0, false);
    CK_OK(owners_open(&o, pool, BLOCKS));
    verify(&o, 0, BLOCKS);
    pool_finish(pool, dir.text);
}
END_TEST

struct worker {
    struct owners *o;
    unsigned first;
    uint64_t seed;
};

/* Allocates, resizes and frees its own part, old blocks and new ones alike. */
static void *work(void *arg)
{
    struct worker *w = arg;
    struct random r = {w->seed};
    for (unsigned i = 0; i < 1500; i++) {
        pa_pptr *owner = owners_at(w->o, w->first + random_below(&r, 1000));
        int code = 0;
        if (pa_is_null(*owner))
            code = pa_allocate(w->o->pool, owner, 1 + random_below(&r, 60000));
        else if (random_below(&r, 4) == 0)
            code = pa_reallocate(w->o->pool, owner, 1 + random_below(&r, 60000));
        else if (random_below(&r, 8) == 0)
            code = pa_usable_size(w->o->pool, *owner) == 0 ? PA_EINVAL : 0;
        else
            code = pa_deallocate(w->o->pool, owner);
        CK_OK(code);
    }
    return NULL;
}

START_TEST(threads_work_while_indexes_are_read_and_spares_are_made)
{
    struct temp_path dir = temp_new();
    pa_pool *pool = create(dir.text, 0, 0);
    struct owners o;
    CK_OK(owners_open(&o, pool, 4000));
    fill(&o, 0, 3000);
    for (unsigned round = 0; round < 4; round++) {
        pool_abandon(pool);
        pool = reopen(dir.text, 0, false);
        CK_OK(owners_open(&o, pool, 4000));
        pthread_t thread[4];
        struct worker w[4];
        for (unsigned i = 0; i < 4; i++) {
            w[i] = (struct worker){&o, i * 1000, round * 4 + i + 1};
            ck_assert_int_eq(pthread_create(&thread[i], NULL, work, &w[i]), 0);
        }
        if (round % 2 == 1)
            CK_OK(pa_defragment(pool, 4u * MIB, NULL));
        for (unsigned i = 0; i < 4; i++)
            pthread_join(thread[i], NULL);
        run_count(4 * 1500);
        owners_verify(&o);
    }
    pool_finish(pool, dir.text);
}
END_TEST

/* Plays the pool's thread: both of core 0's indexes have been read after a while. */
static void *read_later(void *arg)
{
    pa_pool *pool = arg;
    struct background *b = &pool->background;
    for (unsigned i = 0; i < 50; i++)
        nap();
    lock_acquire(&b->lock);
    atomic_store(&b->index[0], BACKGROUND_INDEX_READY);
    atomic_store(&b->index[pool->big_count / 2], BACKGROUND_INDEX_READY);
    pthread_cond_broadcast(&b->done);
    lock_release(&b->lock);
    return NULL;
}

START_TEST(while_both_indexes_of_a_core_are_read_the_pool_is_not_full)
{
    struct temp_path dir = temp_new();
    pa_options options;
    pa_options_init(&options);
    options.segment_size = MIB;
    options.cores = 1;
    options.flags = PA_NO_BACKGROUND;
    pa_pool *pool = NULL;
    CK_OK(pa_create(dir.text, &options, &pool));
    struct owners o;
    CK_OK(owners_open(&o, pool, 100));
    atomic_store(&pool->background.index[0], BACKGROUND_INDEX_PENDING);
    atomic_store(&pool->background.index[pool->big_count / 2], BACKGROUND_INDEX_PENDING);
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, read_later, pool), 0);
    int code = pa_allocate(pool, owners_at(&o, 0), 100000);
    pthread_join(thread, NULL);
    CK_OK(code);
    owners_verify(&o);
    pool_finish(pool, dir.text);
}
END_TEST

struct changing {
    struct owners o;
    uint64_t first;
    bool done;
};

/* Under the walk, the small segment that it is at becomes a young allocator's. */
static int change_hands(pa_pptr block, size_t usable, void *arg)
{
    struct changing *c = arg;
    pa_pool *pool = c->o.pool;
    (void)usable;
    if (c->first == 0)
        c->first = block.segment;
    if (c->done || block.segment == c->first)
        return 0;
    c->done = true;
    CK_OK(owners_free_all(&c->o));
    lock_acquire(&pool->cores[0].lock);
    small_release_free(&pool->smalls[0]);
    lock_release(&pool->cores[0].lock);
    ck_assert_uint_ne(manager_free_count(&pool->manager), 0);
    for (unsigned i = 0; manager_free_count(&pool->manager) != 0; i++)
        CK_OK(pa_allocate(pool, owners_at(&c->o, i), 300000));
    const struct segment *s = manager_segment(&pool->manager, block.segment);
    ck_assert_uint_eq(atomic_load(&s->kind), SEGMENT_KIND_BIG);
    ck_assert_uint_ge(atomic_load(&s->owner), pool->core_count);
    return 0;
}

/* Many lanes and one core: the number of the young allocator leads far behind the cores. */
START_TEST(a_walk_goes_on_when_its_segment_becomes_a_young_allocators)
{
    struct temp_path dir = temp_new();
    pa_options options;
    pa_options_init(&options);
    options.segment_size = MIB;
    options.cores = 1;
    options.flags = PA_NO_BACKGROUND;
    struct pool_params params = {.young = true, .lanes = POOL_LANES_MAX, .lane_entries = LANE_ENTRIES_MIN};
    pa_pool *pool = NULL;
    CK_OK(pool_create_ex(dir.text, &options, &params, &pool));
    struct changing c = {.first = 0};
    CK_OK(owners_open(&c.o, pool, 400));
    for (unsigned i = 0; i < 400; i++)
        CK_OK(pa_allocate(pool, owners_at(&c.o, i), 16000));
    CK_OK(pa_foreach(pool, change_hands, &c));
    ck_assert(c.done);
    owners_verify(&c.o);
    pool_finish(pool, dir.text);
}
END_TEST

static void add(Suite *s)
{
    ADD(s, a_spare_segment_is_made_ahead_and_used, 30);
    ADD(s, without_background_there_is_no_thread_and_no_spare, 30);
    ADD(s, a_spare_does_not_keep_the_last_space_from_anybody, 30);
    ADD(s, a_spare_in_the_making_does_not_keep_the_last_space_either, 30);
    ADD(s, large_indexes_are_read_after_open_and_nothing_waits_for_them_but_what_must, 60);
    ADD(s, young_indexes_keep_what_they_got, 60);
    ADD(s, the_head_of_a_new_index_is_newer_than_all_entries, 30);
    ADD(s, close_does_not_wait_for_indexes_that_nobody_needs, 60);
    ADD(s, while_both_indexes_of_a_core_are_read_the_pool_is_not_full, 30);
    ADD(s, a_walk_goes_on_when_its_segment_becomes_a_young_allocators, 30);
    ADD(s, threads_work_while_indexes_are_read_and_spares_are_made, 90);
}

int main(int argc, char **argv)
{
    return run_main(argc, argv, "background", add);
}
