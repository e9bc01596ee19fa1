/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_fragmentation.c -- what pa_defragment gives back, seen from the file system (st_blocks), and what it leaves alone.
 *
 * The scene is that of the paper's experiment: 2,000 blocks of 32 KiB to 1 MiB, 70 % of them freed at random.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "pool/pool.h"
#include "tests/support/owners.h"
#include "tests/support/random.h"
#include "tests/support/run.h"
#include "tests/support/temp.h"

#define KIB        1024ull
#define MIB        (1024 * KIB)
#define BLOCKS_MAX 4000u
#define FREED      70u /* percent */

struct scene {
    struct temp_path dir;
    struct owners o;
    struct random random;
    unsigned blocks;
    size_t sizes[BLOCKS_MAX]; /* 0 = freed */
    uint64_t live;            /* bytes of the blocks that are left, by usable size */
    uint64_t segment_size;
    struct file_hooks hooks;
    atomic_bool no_punching;
};

/* As a file system that has no holes answers. */
static int refuse_to_punch(void *context, enum file_op op, const char *name, const char *site)
{
    const struct scene *s = context;
    (void)name;
    (void)site;
    return op == FILE_OP_PUNCH && atomic_load(&s->no_punching) ? EOPNOTSUPP : 0;
}

static void scene_open(struct scene *s, bool create)
{
    struct pool_params params = {.hooks = &s->hooks};
    pa_options options;
    pa_options_init(&options);
    options.segment_size = create ? s->segment_size : 0;
    options.cores = 1; /* what is freed is what is allocated from, wherever the thread runs */
    pa_pool *pool = NULL;
    CK_OK((create ? pool_create_ex : pool_open_ex)(s->dir.text, &options, &params, &pool));
    CK_OK(owners_open(&s->o, pool, BLOCKS_MAX));
}

static void put(struct scene *s, size_t i)
{
    size_t size = (size_t)random_log(&s->random, 32 * KIB, MIB);
    pa_pptr *dst = owners_at(&s->o, i);
    CK_OK(pa_allocate(s->o.pool, dst, size));
    block_fill(pa_direct(s->o.pool, *dst), size, i);
    s->sizes[i] = size;
    s->live += pa_usable_size(s->o.pool, *dst);
}

static uint64_t drop(struct scene *s, size_t i)
{
    pa_pptr *dst = owners_at(&s->o, i);
    size_t usable = pa_usable_size(s->o.pool, *dst);
    CK_OK(pa_deallocate(s->o.pool, dst));
    s->sizes[i] = 0;
    s->live -= usable;
    return usable;
}

/* Free blocks at random; the bytes. */
static uint64_t thin_out(struct scene *s)
{
    uint64_t freed = 0;
    for (size_t i = 0; i < s->blocks; i++)
        if (s->sizes[i] != 0 && random_below(&s->random, 100) < FREED)
            freed += drop(s, i);
    return freed;
}

static struct scene *scene_make(uint64_t segment_size, unsigned blocks)
{
    static struct scene s;
    memset(&s, 0, sizeof s);
    s.dir = temp_new();
    s.random.state = run_seed();
    s.segment_size = segment_size;
    s.hooks = (struct file_hooks){.context = &s, .before = refuse_to_punch};
    scene_open(&s, true);
    struct statvfs fs;
    ck_assert_int_eq(statvfs(s.dir.text, &fs), 0);
    uint64_t room = (uint64_t)fs.f_bavail * fs.f_frsize / (700 * KIB);
    s.blocks = room < blocks ? (unsigned)room : blocks;
    if (s.blocks < blocks)
        fprintf(stderr, "fragmentation: the file system has room for %u blocks of %u\n", s.blocks, blocks);
    for (size_t i = 0; i < s.blocks; i++)
        put(&s, i);
    return &s;
}

/* What the file system has given to the directory's files: the test's own sum. */
static uint64_t resident(const struct scene *s)
{
    static char names[2048][64];
    uint64_t bytes = 0;
    size_t n = temp_list(s->dir.text, "", names, 2048);
    for (size_t i = 0; i < n; i++) {
        struct temp_path p = temp_join(s->dir.text, names[i]);
        struct stat st;
        ck_assert_int_eq(stat(p.text, &st), 0);
        bytes += (uint64_t)st.st_blocks * 512;
    }
    return bytes;
}

static void verify(const struct scene *s)
{
    owners_verify(&s->o);
    for (size_t i = 0; i < s->blocks; i++) {
        pa_pptr p = *owners_at(&s->o, i);
        ck_assert(pa_is_null(p) == (s->sizes[i] == 0));
        EXPECT(s->sizes[i] == 0 || block_is(pa_direct(s->o.pool, p), s->sizes[i], i), "contents of block %zu", i);
    }
    pa_stats stats;
    CK_OK(pa_get_stats(s->o.pool, &stats));
    EXPECT(stats.resident_bytes == resident(s), "pa_get_stats says %llu bytes are resident, stat %llu",
           (unsigned long long)stats.resident_bytes, (unsigned long long)resident(s));
}

static void reopen(struct scene *s)
{
    pool_finish(s->o.pool, s->dir.text);
    scene_open(s, false);
}

static void finish(struct scene *s)
{
    verify(s);
    reopen(s);
    verify(s);
    pool_finish(s->o.pool, s->dir.text);
    temp_remove(s->dir.text);
}

static uint64_t hole_bytes(const struct scene *s)
{
    pa_stats stats;
    CK_OK(pa_get_stats(s->o.pool, &stats));
    return stats.hole_bytes;
}

static void gives_back(uint64_t segment_size, unsigned blocks)
{
    struct scene *s = scene_make(segment_size, blocks);
    uint64_t freed = thin_out(s), before = resident(s), released = 0;
    CK_OK(pa_defragment(s->o.pool, UINT64_MAX, &released));
    uint64_t after = resident(s), live = s->live;
    fprintf(stderr,
            "fragmentation: %u blocks, segments of %llu MiB: %llu MiB freed, %.1f %% of them given back; resident "
            "%.3f of live\n",
            s->blocks, (unsigned long long)(segment_size / MIB), (unsigned long long)(freed / MIB),
            100.0 * (double)(before - after) / (double)freed, (double)after / (double)live);
    ck_assert_uint_eq(released, before - after);
    EXPECT(before - after >= freed / 100 * 95, "%llu bytes freed, %llu given back", (unsigned long long)freed,
           (unsigned long long)(before - after));
    EXPECT(after <= live / 100 * 110, "%llu bytes live, %llu resident", (unsigned long long)live,
           (unsigned long long)after);
    verify(s);
    CK_OK(pa_defragment(s->o.pool, UINT64_MAX, &released));
    ck_assert_uint_eq(released, 0); /* nothing is given back twice */
    reopen(s);
    verify(s);
    EXPECT(resident(s) <= after + MIB, "opening took %llu bytes", (unsigned long long)(resident(s) - after));
    uint64_t holes = hole_bytes(s);
    for (size_t i = 0; i < s->blocks; i++) /* about as much again: into the holes where they are large enough */
        if (s->sizes[i] == 0)
            put(s, i);
    EXPECT(hole_bytes(s) <= holes / 2, "%llu bytes of holes, %llu after as much was allocated as was freed",
           (unsigned long long)holes, (unsigned long long)hole_bytes(s));
    EXPECT(resident(s) <= s->live / 100 * 110 + 4 * segment_size, "%llu bytes live, %llu resident",
           (unsigned long long)s->live, (unsigned long long)resident(s));
    finish(s);
}

START_TEST(nearly_all_that_is_freed_goes_back_and_survivors_stay)
{
    gives_back(64 * MIB, (unsigned)run_option("blocks", 2000));
}
END_TEST

START_TEST(nearly_all_that_is_freed_goes_back_from_little_segments)
{
    gives_back(4 * MIB, (unsigned)run_option("blocks", 2000));
}
END_TEST

START_TEST(a_target_is_reached_and_not_overshot_by_more_than_a_segment)
{
    struct scene *s = scene_make(16 * MIB, 1000);
    uint64_t freed = thin_out(s), total = 0;
    for (uint64_t target = freed / 64; target < freed / 4; target *= 2) {
        uint64_t before = resident(s), released = 0;
        CK_OK(pa_defragment(s->o.pool, target, &released));
        ck_assert_uint_eq(released, before - resident(s));
        EXPECT(released >= target && released <= target + s->segment_size, "%llu bytes were the target, %llu went back",
               (unsigned long long)target, (unsigned long long)released);
        total += released;
    }
    uint64_t before = resident(s), released = 0;
    CK_OK(pa_defragment(s->o.pool, 0, &released));
    ck_assert(released == 0 && resident(s) == before);
    CK_OK(pa_defragment(s->o.pool, UINT64_MAX, &released));
    ck_assert_uint_ge(total + released, freed / 100 * 95);
    finish(s);
}
END_TEST

START_TEST(a_file_system_without_holes_still_gets_whole_segments)
{
    struct scene *s = scene_make(4 * MIB, 400);
    atomic_store(&s->no_punching, true);
    for (size_t i = 0; i < s->blocks / 2; i++) /* whole segments, since blocks lie in order */
        drop(s, i);
    thin_out(s); /* and holes */
    uint64_t before = resident(s), released = 0;
    CK_OK(pa_defragment(s->o.pool, 8 * MIB, &released)); /* no more than whole segments */
    ck_assert(released >= 8 * MIB && released == before - resident(s));
    sentence_forget();
    released = 0;
    before = resident(s);
    int r = pa_defragment(s->o.pool, UINT64_MAX, &released);
    EXPECT(r == PA_ENOTSUP && sentence_is_good(s->dir.text), "%s: %s", pa_strerror(r), pa_errormsg());
    ck_assert(released >= 4 * MIB && released == before - resident(s));
    verify(s);
    for (size_t i = 0; i < s->blocks; i += 2) /* what was to become a hole serves again */
        if (s->sizes[i] == 0)
            put(s, i);
    verify(s);
    reopen(s);
    atomic_store(&s->no_punching, false);
    CK_OK(pa_defragment(s->o.pool, UINT64_MAX, &released));
    EXPECT(resident(s) <= s->live / 100 * 110, "%llu bytes live, %llu resident", (unsigned long long)s->live,
           (unsigned long long)resident(s));
    finish(s);
}
END_TEST

/* Nothing of it is on the list of free slabs, only on that of holes. */
START_TEST(a_small_segment_of_holes_alone_is_deleted)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_options options;
    pa_options_init(&options);
    options.segment_size = MIB;
    options.cores = 1;
    options.flags = PA_NO_BACKGROUND;
    pa_pool *pool = NULL;
    CK_OK(pa_create(dir.text, &options, &pool));
    CK_OK(owners_open(&o, pool, 200));
    for (size_t i = 0; i < 80; i++)
        CK_OK(pa_allocate(pool, owners_at(&o, i), 16384));
    uint64_t second = owners_at(&o, 79)->segment;
    for (size_t i = 0; i < 80; i++)
        if (owners_at(&o, i)->segment == second)
            CK_OK(pa_deallocate(pool, owners_at(&o, i)));
    CK_OK(pa_close(pool)); /* no slab is the one that a class allocates from, then */
    CK_OK(pa_open(dir.text, &options, &pool));
    CK_OK(owners_open(&o, pool, 200));
    pa_stats stats;
    CK_OK(pa_get_stats(pool, &stats));
    ck_assert_uint_eq(stats.segment_files, 2);
    uint64_t bytes;
    for (bool any = true; any;) {
        lock_acquire(&pool->cores[0].lock);
        CK_OK(small_punch(&pool->smalls[0], &bytes, &any));
        lock_release(&pool->cores[0].lock);
    }
    CK_OK(pa_defragment(pool, UINT64_MAX, NULL));
    CK_OK(pa_get_stats(pool, &stats));
    ck_assert_uint_eq(stats.segment_files, 1);
    owners_verify(&o);
    pool_finish(pool, dir.text);
}
END_TEST

/* --- beside allocating threads --------------------------------------------------------------------------------------------- */

#define THREADS 3u

struct beside {
    struct scene *s;
    atomic_bool stop;
    atomic_uint next;
    unsigned steps;
    uint64_t released;
};

static void *allocate_and_free(void *arg)
{
    struct beside *b = arg;
    struct scene *s = b->s;
    unsigned number = atomic_fetch_add(&b->next, 1), own = s->blocks / THREADS;
    struct random r = {run_seed() + number};
    for (unsigned step = 0; step < b->steps; step++) {
        size_t i = number * own + random_below(&r, own);
        pa_pptr *dst = owners_at(&s->o, i);
        if (s->sizes[i] != 0) {
            EXPECT(block_is(pa_direct(s->o.pool, *dst), s->sizes[i], i), "contents of block %zu", i);
            CK_OK(pa_deallocate(s->o.pool, dst));
            s->sizes[i] = 0;
            continue;
        }
        size_t size = (size_t)random_log(&r, KIB, MIB);
        CK_OK(pa_allocate(s->o.pool, dst, size));
        block_fill(pa_direct(s->o.pool, *dst), size, i);
        s->sizes[i] = size;
    }
    return NULL;
}

static void *defragment(void *arg)
{
    struct beside *b = arg;
    struct random r = {run_seed() + 99};
    while (!atomic_load(&b->stop)) {
        uint64_t released = 0;
        CK_OK(pa_defragment(b->s->o.pool, random_log(&r, 1, 64 * MIB), &released));
        b->released += released;
    }
    return NULL;
}

START_TEST(it_runs_beside_threads_that_allocate)
{
    static struct beside b;
    b = (struct beside){.s = scene_make(4 * MIB, 300), .steps = (unsigned)run_option("steps", 3000)};
    pthread_t threads[THREADS], defragmenter;
    for (unsigned t = 0; t < THREADS; t++)
        ck_assert_int_eq(pthread_create(&threads[t], NULL, allocate_and_free, &b), 0);
    ck_assert_int_eq(pthread_create(&defragmenter, NULL, defragment, &b), 0);
    for (unsigned t = 0; t < THREADS; t++)
        pthread_join(threads[t], NULL);
    atomic_store(&b.stop, true);
    pthread_join(defragmenter, NULL);
    ck_assert_uint_gt(b.released, 0);
    uint64_t live = 0;
    for (size_t i = 0; i < b.s->blocks; i++)
        live += pa_usable_size(b.s->o.pool, *owners_at(&b.s->o, i));
    CK_OK(pa_defragment(b.s->o.pool, UINT64_MAX, NULL));
    verify(b.s);
    EXPECT(resident(b.s) <= live / 100 * 110 + 2 * MIB, "%llu bytes live, %llu resident", (unsigned long long)live,
           (unsigned long long)resident(b.s));
    finish(b.s);
}
END_TEST

static void pass_over(void *context, enum media_event event, const void *address, size_t size, const char *site)
{
    (void)context, (void)event, (void)address, (void)size, (void)site;
}

static unsigned segment_syncs;

static void count_syncs(void *context, const struct dir *d, enum file_op op, const char *name, uint64_t offset,
                        uint64_t size, void *address, const char *site)
{
    (void)context, (void)d, (void)offset, (void)size, (void)address, (void)site;
    segment_syncs += op == FILE_OP_SYNC && strncmp(name, "segment-", 8) == 0;
}

/* A process that is killed while it fills a hole leaves space that a power failure may still take away. */
START_TEST(space_that_a_segment_is_found_with_is_made_durable_before_it_counts)
{
    static const struct media_recorder recorder = {.event = pass_over};
    static const struct file_hooks hooks = {.after = count_syncs};
    struct pool_params params = {.lanes = 1, .recorder = &recorder, .hooks = &hooks};
    struct temp_path dir = temp_new();
    pa_options options;
    pa_options_init(&options);
    options.segment_size = MIB;
    options.cores = 1;
    pa_pool *pool = NULL;
    pa_pptr root;
    CK_OK(pool_create_ex(dir.text, &options, &params, &pool));
    CK_OK(pa_root(pool, sizeof(pa_pptr), &root));
    CK_OK(pa_allocate(pool, pa_direct(pool, root), 100000));
    CK_OK(pa_deallocate(pool, pa_direct(pool, root))); /* the segment of big blocks is whole: no pair tells of holes */
    CK_OK(pa_close(pool));
    CK_OK(pool_open_ex(dir.text, &options, &params, &pool));
    segment_syncs = 0;
    CK_OK(pa_allocate(pool, pa_direct(pool, root), 100000));
    ck_assert_uint_eq(segment_syncs, 1);
    CK_OK(pa_close(pool));
}
END_TEST

static void add(Suite *s)
{
    ADD(s, space_that_a_segment_is_found_with_is_made_durable_before_it_counts, 10);
    ADD(s, nearly_all_that_is_freed_goes_back_and_survivors_stay, 100);
    ADD(s, nearly_all_that_is_freed_goes_back_from_little_segments, 60);
    ADD(s, a_target_is_reached_and_not_overshot_by_more_than_a_segment, 60);
    ADD(s, a_file_system_without_holes_still_gets_whole_segments, 60);
    ADD(s, a_small_segment_of_holes_alone_is_deleted, 30);
    ADD(s, it_runs_beside_threads_that_allocate, 60);
}

int main(int argc, char **argv)
{
    return run_main(argc, argv, "fragmentation", add);
}
