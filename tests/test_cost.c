/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_cost.c -- what an operation and a pool may cost: fences, repeated write-backs, metadata, memory, fragmentation.
 *
 * Counted, never timed. The media are made to look like cache-line media (ADR), where every write-back and fence is real.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pool/pool.h"
#include "tests/support/owners.h"
#include "tests/support/random.h"
#include "tests/support/run.h"
#include "tests/support/temp.h"

#define SMALL_MAX 16384u

static void force_cache_line(void)
{
    run_pretend("CACHE_LINE");
}

static uint64_t fences(pa_pool *pool)
{
    pa_stats stats;
    CK_OK(pa_get_stats(pool, &stats));
    return stats.fences;
}

/* Fence counts of single operations, and their sum. */
struct fence_count {
    uint64_t operations, fences, over;
};

static void count(struct fence_count *c, pa_pool *pool, uint64_t before, uint64_t limit)
{
    uint64_t used = fences(pool) - before;
    c->operations++;
    c->fences += used;
    c->over += used > limit;
}

/* The mean stays within 5 % of the limit, and single operations over it are rare (the ring wraps each few hundred). */
static void judge(const struct fence_count *c, uint64_t limit, const char *what)
{
    EXPECT(c->fences * 100 <= c->operations * limit * 105, "%s: %" PRIu64 " fences in %" PRIu64 " operations", what,
           c->fences, c->operations);
    EXPECT(c->over * 20 <= c->operations, "%s: %" PRIu64 " of %" PRIu64 " operations need more than %" PRIu64 " fences",
           what, c->over, c->operations, limit);
}

static size_t fixed_64(struct random *r)
{
    (void)r;
    return 64;
}

static size_t fixed_1024(struct random *r)
{
    (void)r;
    return 1024;
}

static size_t mixed(struct random *r)
{
    return random_size(r, 2048);
}

/* Allocates a batch into owners on distinct lines, then frees it; several times, the first round to warm up. */
static void count_batches(size_t (*size)(struct random *), size_t batch, int rounds)
{
    force_cache_line();
    struct temp_path dir = temp_new();
    pa_options options;
    pa_options_init(&options);
    options.flags = PA_NO_BACKGROUND;
    options.segment_size = 16u << 20;
    options.cores = 1;
    pa_pool *pool = NULL;
    CK_OK(pa_create(dir.text, &options, &pool));
    struct owners o;
    CK_OK(owners_open(&o, pool, batch * 4));
    struct random r = {3};
    struct fence_count allocated = {0}, freed = {0};
    for (int round = 0; round < rounds; round++) {
        for (size_t i = 0; i < batch; i++) {
            size_t bytes = size(&r);
            uint64_t before = fences(pool);
            CK_OK(pa_allocate(pool, owners_at_line(&o, i), bytes));
            if (round > 0)
                count(&allocated, pool, before, 3);
        }
        for (size_t i = 0; i < batch; i++) {
            uint64_t before = fences(pool);
            CK_OK(pa_deallocate(pool, owners_at_line(&o, i)));
            if (round > 0)
                count(&freed, pool, before, 2);
        }
    }
    EXPECT(allocated.fences > 0, "cache-line media were asked for, but no fence was counted");
    judge(&allocated, 3, "allocate");
    judge(&freed, 2, "deallocate");
    pool_finish(pool, dir.text);
}

START_TEST(allocate_takes_three_fences_and_deallocate_two_in_pairs)
{
    count_batches(fixed_64, 1, 8000);
}
END_TEST

START_TEST(allocate_takes_three_fences_and_deallocate_two_in_batches)
{
    count_batches(fixed_64, 4000, 3);
    count_batches(fixed_1024, 2000, 4);
}
END_TEST

START_TEST(allocate_takes_three_fences_and_deallocate_two_for_mixed_sizes)
{
    count_batches(mixed, 3000, 4);
}
END_TEST

START_TEST(process_durability_needs_no_fence_at_all)
{
    run_pretend(NULL);
    struct temp_path dir = temp_new();
    pa_options options;
    pa_options_init(&options);
    options.flags = PA_NO_BACKGROUND;
    options.segment_size = 1u << 20;
    options.durability = PA_DURABILITY_PROCESS;
    pa_pool *pool = NULL;
    CK_OK(pa_create(dir.text, &options, &pool));
    struct owners o;
    CK_OK(owners_open(&o, pool, 1000));
    pa_stats before, after;
    CK_OK(pa_get_stats(pool, &before));
    for (size_t i = 0; i < 1000; i++)
        CK_OK(pa_allocate(pool, owners_at(&o, i), 64));
    CK_OK(owners_free_all(&o));
    CK_OK(pa_get_stats(pool, &after));
    ck_assert_uint_eq(after.fences, before.fences);
    ck_assert_uint_eq(after.flushed_lines, before.flushed_lines);
    pool_finish(pool, dir.text);
}
END_TEST

/* --- write-backs that repeat a line --------------------------------------------------------------------------------------- */

#define WINDOW 4

/* The last write-backs, newest first, and the repeats among them. */
struct write_backs {
    uintptr_t last[WINDOW];
    const char *last_site[WINDOW];
    uint64_t lines, repeats;
    char first_repeat[160];
    bool on;
};

static void write_back(struct write_backs *w, uintptr_t line, const char *site)
{
    for (size_t i = 0; i < WINDOW; i++)
        if (w->last[i] == line && w->repeats++ == 0)
            snprintf(w->first_repeat, sizeof w->first_repeat, "%s, %zu write-backs after %s", site, i + 1,
                     w->last_site[i]);
    memmove(w->last + 1, w->last, (WINDOW - 1) * sizeof *w->last);
    memmove(w->last_site + 1, w->last_site, (WINDOW - 1) * sizeof *w->last_site);
    w->last[0] = line;
    w->last_site[0] = site;
    w->lines++;
}

static void see(void *context, enum media_event event, const void *address, size_t size, const char *site)
{
    struct write_backs *w = context;
    if (!w->on || size == 0 || (event != MEDIA_EVENT_FLUSH && event != MEDIA_EVENT_STORE_NT))
        return;
    uintptr_t line = (uintptr_t)address / MEDIA_LINE_BYTES;
    for (; line <= ((uintptr_t)address + size - 1) / MEDIA_LINE_BYTES; line++)
        write_back(w, line, site);
}

START_TEST(no_line_is_written_back_again_within_four_write_backs)
{
    struct write_backs w = {0};
    struct media_recorder recorder = {.context = &w, .event = see};
    struct pool_params params = {.recorder = &recorder};
    struct temp_path dir = temp_new();
    pa_options options;
    pa_options_init(&options);
    options.flags = PA_NO_BACKGROUND;
    options.segment_size = 1u << 20;
    options.cores = 1;
    pa_pool *pool = NULL;
    CK_OK(pool_create_ex(dir.text, &options, &params, &pool));
    struct owners o;
    size_t n = 3000;
    CK_OK(owners_open(&o, pool, n * 4));
    struct random r = {5};
    for (int round = 0; round < 4; round++) {
        w.on = round > 0; /* the first round creates the segments */
        for (size_t i = 0; i < n; i++)
            CK_OK(pa_allocate(pool, owners_at_line(&o, i), mixed(&r)));
        for (size_t i = 0; i < n; i++)
            CK_OK(pa_deallocate(pool, owners_at_line(&o, (i * 7) % n)));
    }
    w.on = false;
    ck_assert_uint_gt(w.lines, 3 * n * 3);
    EXPECT(w.repeats == 0, "%" PRIu64 " of %" PRIu64 " write-backs repeat one of the four before; the first: %s",
           w.repeats, w.lines, w.first_repeat);
    pool_finish(pool, dir.text);
}
END_TEST

/* --- space ---------------------------------------------------------------------------------------------------------------- */

/* Takes a block that nobody owns from here on: *dst is nulled as a program may. */
static pa_pptr take(pa_pool *pool, pa_pptr *dst, size_t size)
{
    CK_OK(pa_allocate(pool, dst, size));
    pa_pptr p = *dst;
    *dst = PA_NULL;
    return p;
}

START_TEST(metadata_take_at_most_a_fortieth_of_a_full_segment_and_dram_a_hundredth_of_the_pool)
{
    struct temp_path dir = temp_new();
    pa_options options;
    pa_options_init(&options);
    options.cores = 1;
    options.flags = PA_SPARSE | PA_NO_BACKGROUND;
    pa_pool *pool = NULL;
    CK_OK(pa_create(dir.text, &options, &pool));
    struct owners o;
    CK_OK(owners_open(&o, pool, 4));
    const uint64_t segment_size = 128u << 20;
    uint64_t full = 0, in_segment = 0, segment = UINT64_MAX, distinct = 0;
    size_t capacity = 3 * (segment_size / 64), n = 0;
    pa_pptr *blocks = malloc(capacity * sizeof *blocks);
    while (distinct < 3) {
        ck_assert_uint_lt(n, capacity);
        pa_pptr p = take(pool, owners_at(&o, 0), 64);
        blocks[n++] = p;
        if (p.segment != segment) {
            distinct++;
            segment = p.segment;
            in_segment = 0;
        }
        in_segment++;
        if (in_segment > full)
            full = in_segment;
    }
    EXPECT(full * 64 * 1000 >= segment_size * 975, "a segment of %" PRIu64 " bytes holds %" PRIu64 " blocks of 64",
           segment_size, full);
    pa_stats stats;
    CK_OK(pa_get_stats(pool, &stats));
    EXPECT(stats.dram_bytes * 100 <= stats.file_bytes, "full: %" PRIu64 " bytes of DRAM for a pool of %" PRIu64,
           stats.dram_bytes, stats.file_bytes);
    for (size_t i = 0; i < n; i += 2) {
        *owners_at(&o, 0) = blocks[i];
        CK_OK(pa_deallocate(pool, owners_at(&o, 0)));
    }
    CK_OK(pa_get_stats(pool, &stats));
    EXPECT(stats.dram_bytes * 100 <= stats.file_bytes, "half free: %" PRIu64 " bytes of DRAM for a pool of %" PRIu64,
           stats.dram_bytes, stats.file_bytes);
    free(blocks);
    pool_finish(pool, dir.text);
    pool = pool_reopen(dir.text);
    CK_OK(pa_get_stats(pool, &stats));
    EXPECT(stats.dram_bytes * 100 <= stats.file_bytes, "reopened: %" PRIu64 " bytes of DRAM for a pool of %" PRIu64,
           stats.dram_bytes, stats.file_bytes);
    CK_OK(pa_close(pool));
}
END_TEST

static int order(const void *a, const void *b)
{
    uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;
    return x < y ? -1 : x > y;
}

START_TEST(blocks_carry_no_header)
{
    struct temp_path dir = temp_new();
    pa_options options;
    pa_options_init(&options);
    options.flags = PA_NO_BACKGROUND;
    options.cores = 1;
    options.segment_size = 1u << 20;
    pa_pool *pool = NULL;
    CK_OK(pa_create(dir.text, &options, &pool));
    struct owners o;
    CK_OK(owners_open(&o, pool, 4));
    static const size_t sizes[] = {16, 32, 64, 128, 1024};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        enum { N = 2000 };
        static uintptr_t at[N];
        for (size_t i = 0; i < N; i++) {
            pa_pptr p = take(pool, owners_at(&o, 0), sizes[k]);
            ck_assert_uint_eq(pa_usable_size(pool, p), sizes[k]);
            at[i] = (uintptr_t)pa_direct(pool, p);
        }
        qsort(at, N, sizeof *at, order);
        size_t side_by_side = 0;
        for (size_t i = 1; i < N; i++) {
            ck_assert_uint_ge(at[i] - at[i - 1], sizes[k]);
            side_by_side += at[i] - at[i - 1] == sizes[k];
        }
        EXPECT(side_by_side * 100 >= N * 94, "%zu of %d blocks of %zu bytes lie side by side", side_by_side, N,
               sizes[k]);
    }
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(blocks_are_aligned_and_waste_at_most_a_fifth)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_pool *pool = owners_make(&o, dir.text, 4);
    pa_pptr *dst = owners_at(&o, 0);
    for (size_t size = 1; size <= SMALL_MAX; size++) {
        CK_OK(pa_allocate(pool, dst, size));
        uintptr_t address = (uintptr_t)pa_direct(pool, *dst);
        size_t usable = pa_usable_size(pool, *dst);
        ck_assert_uint_ge(usable, size);
        EXPECT(address % 16 == 0, "%zu bytes at %#" PRIxPTR, size, address);
        if (size % 64 == 0)
            EXPECT(address % 64 == 0, "%zu bytes at %#" PRIxPTR, size, address);
        if ((size & (size - 1)) == 0)
            EXPECT(address % (size < 4096 ? size : 4096) == 0, "%zu bytes at %#" PRIxPTR, size, address);
        if (size >= 64)
            EXPECT((usable - size) * 5 <= usable, "%zu bytes take %zu", size, usable);
        else
            ck_assert_uint_eq(usable, size <= 16 ? 16 : size <= 32 ? 32 : size <= 48 ? 48 : 64);
        CK_OK(pa_deallocate(pool, dst));
    }
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(a_small_pool_needs_little_memory)
{
    struct temp_path dir = temp_new();
    pa_pool *pool = NULL;
    CK_OK(pa_create(dir.text, NULL, &pool));
    struct owners o;
    CK_OK(owners_open(&o, pool, 1024));
    struct random r = {9};
    for (size_t i = 0; i < 1024; i++)
        CK_OK(pa_allocate(pool, owners_at(&o, i), random_size(&r, SMALL_MAX)));
    pa_stats stats;
    CK_OK(pa_get_stats(pool, &stats));
    EXPECT(stats.dram_bytes * 100 <= stats.file_bytes, "%" PRIu64 " bytes of DRAM for a pool of %" PRIu64,
           stats.dram_bytes, stats.file_bytes);
    pool_finish(pool, dir.text);
}
END_TEST

static void add(Suite *s)
{
    ADD(s, allocate_takes_three_fences_and_deallocate_two_in_pairs, 60);
    ADD(s, allocate_takes_three_fences_and_deallocate_two_in_batches, 60);
    ADD(s, allocate_takes_three_fences_and_deallocate_two_for_mixed_sizes, 60);
    ADD(s, process_durability_needs_no_fence_at_all, 20);
    ADD(s, no_line_is_written_back_again_within_four_write_backs, 60);
    ADD(s, metadata_take_at_most_a_fortieth_of_a_full_segment_and_dram_a_hundredth_of_the_pool, 120);
    ADD(s, blocks_carry_no_header, 20);
    ADD(s, blocks_are_aligned_and_waste_at_most_a_fifth, 60);
    ADD(s, a_small_pool_needs_little_memory, 20);
}

int main(int argc, char **argv)
{
    return run_main(argc, argv, "cost", add);
}
