/* SPDX-License-Identifier: BSD-3-Clause */
/* test_huge.c -- blocks with files of their own, and blocks with a given alignment. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "pool/pool.h"
#include "tests/support/owners.h"
#include "tests/support/random.h"
#include "tests/support/run.h"
#include "tests/support/temp.h"

#define MIB (1u << 20)

static pa_stats stats_of(pa_pool *pool)
{
    pa_stats s;
    CK_OK(pa_get_stats(pool, &s));
    return s;
}

static size_t files(const char *dir, const char *prefix)
{
    char names[64][64];
    return temp_list(dir, prefix, names, 64);
}

START_TEST(a_huge_block_has_a_file_of_its_own_and_keeps_its_contents)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_pool *pool = owners_make(&o, dir.text, 10);
    pa_stats before = stats_of(pool);
    size_t size = 3 * MIB + 12345;
    CK_OK(pa_allocate(pool, owners_at(&o, 0), size));
    pa_pptr p = *owners_at(&o, 0);
    size_t usable = pa_usable_size(pool, p);
    ck_assert_uint_ge(usable, size);
    ck_assert_uint_lt(usable, size + 4096);
    block_fill(pa_direct(pool, p), usable, 1);
    pa_persist(pool, pa_direct(pool, p), usable);
    pa_stats s = stats_of(pool);
    ck_assert_uint_eq(s.huge_files, 1);
    ck_assert_uint_eq(s.segment_files, before.segment_files);
    ck_assert_uint_eq(s.allocated_bytes - before.allocated_bytes, usable);
    ck_assert_uint_eq(s.file_bytes - before.file_bytes, usable + 4096);
    ck_assert_uint_ge(s.resident_bytes - before.resident_bytes, usable);
    ck_assert_uint_eq(files(dir.text, "huge-"), 1);
    owners_verify(&o);
    pool_finish(pool, dir.text);

    pool = pool_reopen(dir.text);
    CK_OK(owners_open(&o, pool, 10));
    ck_assert_uint_eq(pa_usable_size(pool, p), usable);
    ck_assert(block_is(pa_direct(pool, *owners_at(&o, 0)), usable, 1));
    owners_verify(&o);
    CK_OK(pa_deallocate(pool, owners_at(&o, 0)));
    ck_assert(pa_is_null(*owners_at(&o, 0)));
    ck_assert_uint_eq(files(dir.text, "huge-"), 0);
    s = stats_of(pool);
    ck_assert_uint_eq(s.huge_files, 0);
    ck_assert_uint_eq(s.file_bytes, before.file_bytes);
    owners_verify(&o);
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(owner_pointers_lie_anywhere_in_a_huge_block)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_pool *pool = owners_make(&o, dir.text, 10);
    CK_OK(pa_allocate(pool, owners_at(&o, 0), 3 * MIB));
    char *block = pa_direct(pool, *owners_at(&o, 0));
    size_t usable = pa_usable_size(pool, *owners_at(&o, 0));
    memset(block, 0, usable);
    size_t places[] = {0, MIB - 4096 - 16, MIB - 4096, 2 * MIB, usable - 16};
    size_t sizes[] = {64, 100000, 2 * MIB, 16, 5000};
    for (size_t i = 0; i < 5; i++)
        CK_OK(pa_allocate(pool, (pa_pptr *)(void *)(block + places[i]), sizes[i]));
    CK_FAILS(pa_allocate(pool, (pa_pptr *)(void *)(block + usable), 64), PA_EINVAL, NULL);
    CK_FAILS(pa_allocate(pool, (pa_pptr *)(void *)(block - 16), 64), PA_EINVAL, NULL);
    CK_FAILS(pa_allocate(pool, (pa_pptr *)(void *)(block + 8), 64), PA_EINVAL, NULL);
    for (size_t i = 0; i < 5; i++) {
        pa_pptr *dst = (pa_pptr *)(void *)(block + places[i]);
        ck_assert_uint_ge(pa_usable_size(pool, *dst), sizes[i]);
        CK_OK(pa_reallocate(pool, dst, 70000));
        CK_OK(pa_deallocate(pool, dst));
        ck_assert(pa_is_null(*dst));
    }
    owners_verify(&o);
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(addresses_in_a_huge_block_translate_both_ways)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_pool *pool = owners_make(&o, dir.text, 10);
    CK_OK(pa_allocate(pool, owners_at(&o, 0), 3 * MIB));
    pa_pptr p = *owners_at(&o, 0);
    char *block = pa_direct(pool, p);
    for (size_t at = 0; at < 3 * MIB; at += 4096 * 17 + 16) {
        ck_assert_ptr_eq(pa_direct(pool, (pa_pptr){p.segment, p.offset + at}), block + at);
        ck_assert_ptr_eq(pa_direct(pool, pa_pptr_of(pool, block + at)), block + at);
        if (at != 0)
            ck_assert_uint_eq(pa_usable_size(pool, pa_pptr_of(pool, block + at)), 0);
    }
    ck_assert_ptr_null(pa_direct(pool, (pa_pptr){p.segment, 1ull << 60}));
    ck_assert_ptr_null(pa_direct(pool, (pa_pptr){1ull << 60, 4096}));
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(a_stale_or_wrong_pointer_to_a_huge_block_is_refused)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_pool *pool = owners_make(&o, dir.text, 10);
    const struct media *m = pool_media(pool);
    pa_pptr *a = owners_at(&o, 0), *b = owners_at(&o, 1);
    CK_OK(pa_allocate(pool, a, 3 * MIB));
    pa_pptr p = *a;
    pa_pptr wrong[] = {{p.segment, p.offset + 4096},
                       {p.segment + 1, p.offset},
                       {p.segment, 0},
                       {p.segment - 1, p.offset + MIB}};
    for (size_t i = 0; i < 4; i++) {
        media_write(m, b, &wrong[i], sizeof *b);
        CK_FAILS(pa_deallocate(pool, b), PA_EINVAL, NULL);
        CK_FAILS(pa_reallocate(pool, b, 4 * MIB), PA_EINVAL, NULL);
        ck_assert_uint_eq(pa_usable_size(pool, *b), 0);
    }
    media_write(m, b, &p, sizeof *b);
    CK_OK(pa_deallocate(pool, a));
    CK_FAILS(pa_deallocate(pool, b), PA_EINVAL, NULL);
    CK_OK(pa_allocate(pool, a, 100));
    CK_FAILS(pa_deallocate(pool, b), PA_EINVAL, NULL);
    ck_assert_uint_eq(pa_usable_size(pool, p), 0);
    media_set(m, b, 0, sizeof *b);
    owners_verify(&o);
    pool_finish(pool, dir.text);
}
END_TEST

#define MODEL_OWNERS 24u

static size_t model_size(struct random *r)
{
    switch (random_below(r, 4)) {
    case 0:
        return 1 + (size_t)random_below(r, 16384);
    case 1:
        return 20000 + (size_t)random_below(r, 400000);
    default:
        return MIB / 2 + (size_t)random_below(r, 4 * MIB);
    }
}

START_TEST(huge_blocks_and_segments_share_the_slots)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_pool *pool = owners_make(&o, dir.text, MODEL_OWNERS);
    struct random r = {run_seed()};
    size_t sizes[MODEL_OWNERS] = {0};
    for (unsigned step = 0; step < 600; step++) {
        size_t i = (size_t)random_below(&r, MODEL_OWNERS);
        pa_pptr *dst = owners_at(&o, i);
        if (sizes[i] != 0) {
            EXPECT(block_is(pa_direct(pool, *dst), sizes[i], i), "contents of block %zu at step %u", i, step);
            CK_OK(pa_deallocate(pool, dst));
            sizes[i] = 0;
        } else {
            sizes[i] = model_size(&r);
            CK_OK(pa_allocate(pool, dst, sizes[i]));
            block_fill(pa_direct(pool, *dst), sizes[i], i);
        }
        if (step % 50 == 49)
            owners_verify(&o);
        if (step % 100 == 99) {
            pool = owners_reopen(&o, dir.text);
        }
    }
    CK_OK(owners_free_all(&o));
    owners_verify(&o);
    ck_assert_uint_eq(files(dir.text, "huge-"), 0);
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(the_limit_counts_huge_files_to_the_byte)
{
    struct temp_path dir = temp_new();
    pa_pool *pool = pool_make_limited(dir.text, 12 * MIB);
    struct owners o;
    CK_OK(owners_open(&o, pool, 10));
    uint64_t left = 12 * MIB - stats_of(pool).file_bytes;
    CK_FAILS(pa_allocate(pool, owners_at(&o, 0), left), PA_ENOSPC, NULL);
    ck_assert(pa_is_null(*owners_at(&o, 0)));
    ck_assert_uint_eq(files(dir.text, "huge-"), 0);
    size_t most = (left - 4096) & ~4095ull;
    CK_OK(pa_allocate(pool, owners_at(&o, 0), most));
    CK_FAILS(pa_allocate(pool, owners_at(&o, 1), 2 * MIB), PA_ENOSPC, NULL);
    CK_FAILS(pa_reallocate(pool, owners_at(&o, 0), most + MIB), PA_ENOSPC, NULL);
    owners_verify(&o);
    CK_OK(pa_deallocate(pool, owners_at(&o, 0)));
    CK_OK(pa_allocate(pool, owners_at(&o, 1), 2 * MIB));
    owners_verify(&o);
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(free_segments_make_room_for_a_huge_block)
{
    struct temp_path dir = temp_new();
    pa_pool *pool = pool_make_limited(dir.text, 12 * MIB);
    struct owners o;
    CK_OK(owners_open(&o, pool, 400));
    size_t n = 0;
    while (n < 400 && pa_allocate(pool, owners_at(&o, n), 300000) == 0)
        n++;
    ck_assert_uint_gt(n, 10);
    CK_OK(owners_free_all(&o));
    CK_OK(pa_allocate(pool, owners_at(&o, 0), 5 * MIB));
    block_fill(pa_direct(pool, *owners_at(&o, 0)), 5 * MIB, 1);
    CK_OK(pa_deallocate(pool, owners_at(&o, 0)));
    for (size_t i = 0; i < n / 2; i++)
        CK_OK(pa_allocate(pool, owners_at(&o, i), 16000));
    owners_verify(&o);
    pool = owners_reopen(&o, dir.text);
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(a_size_beyond_the_address_range_is_refused)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_pool *pool = owners_make(&o, dir.text, 10);
    CK_FAILS(pa_allocate(pool, owners_at(&o, 0), SIZE_MAX), PA_EINVAL, NULL);
    CK_FAILS(pa_allocate(pool, owners_at(&o, 0), SIZE_MAX / 2), PA_EINVAL, NULL);
    CK_FAILS(pa_allocate_aligned(pool, owners_at(&o, 0), SIZE_MAX - 100, 64), PA_EINVAL, NULL);
    CK_OK(pa_allocate(pool, owners_at(&o, 0), 100));
    CK_FAILS(pa_reallocate(pool, owners_at(&o, 0), SIZE_MAX), PA_EINVAL, NULL);
    owners_verify(&o);
    pool_finish(pool, dir.text);
}
END_TEST

/* The extent word of a huge file counts 2^32 pages at the most; the address range of large segments is longer. */
START_TEST(a_block_larger_than_a_huge_file_can_be_is_refused)
{
    struct temp_path dir = temp_new();
    pa_options options;
    pa_options_init(&options);
    options.segment_size = 16ull << 30;
    options.flags = PA_SPARSE | PA_NO_BACKGROUND;
    pa_pool *pool = NULL;
    struct owners o;
    CK_OK(pa_create(dir.text, &options, &pool));
    CK_OK(owners_open(&o, pool, 10));
    CK_FAILS(pa_allocate(pool, owners_at(&o, 0), 17ull << 40), PA_EINVAL, "larger than a huge file can be");
    CK_FAILS(pa_allocate(pool, owners_at(&o, 0), HUGE_SIZE_MAX + 1), PA_EINVAL, "larger than a huge file can be");
    if (pool->dir.reserved_bytes < 18ull << 40) { /* what a sanitizer leaves of the address space */
        pool_finish(pool, dir.text);
        return;
    }
    CK_OK(pa_allocate_aligned(pool, owners_at(&o, 0), HUGE_SIZE_MAX, 2 * MIB));
    CK_FAILS(pa_reallocate(pool, owners_at(&o, 0), HUGE_SIZE_MAX + 1), PA_EINVAL, "larger than a huge file can be");
    owners_verify(&o);
    pool = owners_reopen(&o, dir.text);
    ck_assert_uint_ge(pa_usable_size(pool, *owners_at(&o, 0)), HUGE_SIZE_MAX);
    CK_OK(pa_deallocate(pool, owners_at(&o, 0)));
    pool_finish(pool, dir.text);
}
END_TEST

/* --- alignment ------------------------------------------------------------------------------------------------------------ */

static void align_everything(uint64_t segment_size)
{
    struct temp_path dir = temp_new();
    pa_options options;
    pa_options_init(&options);
    options.segment_size = segment_size;
    options.flags = PA_SPARSE | PA_NO_BACKGROUND;
    pa_pool *pool = NULL;
    CK_OK(pa_create(dir.text, &options, &pool));
    struct owners o;
    CK_OK(owners_open(&o, pool, 256));
    static const size_t sizes[] = {1, 48, 100, 4096, 5000, 16384, 20000, 300000, 900000, 5000000};
    size_t n = 0;
    size_t alignment_of[256];
    for (size_t alignment = 1; alignment <= 2 * MIB; alignment *= 2)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++, n++) {
            CK_OK(pa_allocate_aligned(pool, owners_at(&o, n), sizes[i], alignment));
            EXPECT(pa_usable_size(pool, *owners_at(&o, n)) >= sizes[i], "size");
            alignment_of[n] = alignment;
        }
    owners_verify(&o);
    pool = owners_reopen(&o, dir.text);
    for (size_t i = 0; i < n; i++)
        EXPECT((uintptr_t)pa_direct(pool, *owners_at(&o, i)) % alignment_of[i] == 0, "block %zu is not aligned to %zu",
               i, alignment_of[i]);
    CK_OK(owners_free_all(&o));
    owners_verify(&o);
    pool_finish(pool, dir.text);
}

START_TEST(aligned_blocks_are_aligned_wherever_the_pool_is_mapped)
{
    align_everything(MIB);
    align_everything(2 * MIB);
    align_everything(16 * MIB);
}
END_TEST

START_TEST(alignments_that_cannot_be_are_refused)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_pool *pool = owners_make(&o, dir.text, 10);
    pa_pptr *dst = owners_at(&o, 0);
    CK_FAILS(pa_allocate_aligned(pool, dst, 100, 0), PA_EINVAL, "power of two");
    CK_FAILS(pa_allocate_aligned(pool, dst, 100, 48), PA_EINVAL, "power of two");
    CK_FAILS(pa_allocate_aligned(pool, dst, 100, 4 * MIB), PA_EINVAL, "power of two");
    CK_FAILS(pa_allocate_aligned(pool, dst, 0, 64), PA_EINVAL, NULL);
    CK_FAILS(pa_allocate_aligned(pool, NULL, 100, 64), PA_EINVAL, NULL);
    CK_OK(pa_allocate_aligned(pool, dst, 100, 64));
    CK_FAILS(pa_allocate_aligned(pool, dst, 100, 64), PA_EINVAL, "not null");
    pool_finish(pool, dir.text);
}
END_TEST

/* --- damage --------------------------------------------------------------------------------------------------------------- */

/* A pool with two huge blocks, closed; the name of the first one's file. */
static struct temp_path make_damaged(struct temp_path *ret_file)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_pool *pool = owners_make(&o, dir.text, 10);
    CK_OK(pa_allocate(pool, owners_at(&o, 0), 2 * MIB));
    CK_OK(pa_allocate(pool, owners_at(&o, 1), 2 * MIB));
    CK_OK(pa_close(pool));
    char names[8][64];
    ck_assert_uint_eq(temp_list(dir.text, "huge-", names, 8), 2);
    *ret_file = temp_join(dir.text, names[0]);
    return dir;
}

static void expect_corrupt(const char *dir)
{
    pa_pool *pool = NULL;
    CK_FAILS(pa_open(dir, NULL, &pool), PA_ECORRUPT, NULL);
    char *report = NULL;
    ck_assert_int_eq(pa_check(dir, &report), PA_ECORRUPT);
    free(report);
}

START_TEST(a_huge_file_that_is_missing_short_or_foreign_is_corrupt)
{
    struct temp_path file, dir = make_damaged(&file);
    size_t size;
    char *good = temp_read_file(file.text, &size);
    temp_remove(file.text);
    expect_corrupt(dir.text);
    size_t lengths[] = {0, 100, 4096, 8192, size / 2, size - 4096, size - 1};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        temp_remove(file.text);
        temp_write_file(file.text, good, lengths[i]);
        expect_corrupt(dir.text);
    }
    for (size_t word = 0; word < 64; word += 8) {
        temp_remove(file.text);
        temp_write_file(file.text, good, size);
        uint64_t damaged = ~*(uint64_t *)(void *)(good + word);
        temp_write_at(file.text, word, &damaged, 8);
        expect_corrupt(dir.text);
    }
    temp_remove(file.text);
    temp_write_file(file.text, good, size);
    pool_check_sound(dir.text);
    struct temp_path other_file, other = make_damaged(&other_file);
    temp_copy_file(other_file.text, file.text);
    expect_corrupt(dir.text);
    pool_check_sound(other.text);
    free(good);
}
END_TEST

START_TEST(table_words_inside_a_huge_run_are_corrupt)
{
    struct temp_path file, dir = make_damaged(&file);
    unsigned slot = 0;
    ck_assert_int_eq(sscanf(strrchr(file.text, '/'), "/huge-%8x.pa", &slot), 1);
    struct temp_path pool_file = temp_join(dir.text, "pool.pa");
    size_t size;
    char *bytes = temp_read_file(pool_file.text, &size);
    const struct pm_superblock *s = (const void *)bytes;
    uint64_t word = segment_word(SEGMENT_STATE_CREATING, SEGMENT_KIND_NONE, 0, slot + 1);
    temp_write_at(pool_file.text, s->table_offset + 8 * (slot + 1), &word, 8);
    expect_corrupt(dir.text);
    word = 0;
    temp_write_at(pool_file.text, s->table_offset + 8 * (slot + 1), &word, 8);
    pool_check_sound(dir.text);
    free(bytes);
}
END_TEST

START_TEST(check_notes_a_stray_huge_file)
{
    struct temp_path file, dir = make_damaged(&file);
    struct temp_path stray = temp_join(dir.text, "huge-00000123.pa");
    temp_copy_file(file.text, stray.text);
    char *report = NULL;
    CK_OK(pa_check(dir.text, &report));
    ck_assert_ptr_nonnull(strstr(report, "huge-00000123.pa"));
    free(report);
}
END_TEST

/* --- file operations that fail --------------------------------------------------------------------------------------------- */

struct fault {
    unsigned seen, at;
    int error_number;
};

static int fail_at(void *context, enum file_op op, const char *name, const char *site)
{
    struct fault *f = context;
    (void)op, (void)name, (void)site;
    return ++f->seen == f->at ? f->error_number : 0;
}

START_TEST(a_file_operation_that_fails_leaves_nothing_behind)
{
    static const int errors[] = {ENOSPC, EMFILE, EIO};
    for (unsigned e = 0; e < 3; e++) {
        bool fired = true;
        for (unsigned at = 1; fired; at++) {
            struct temp_path dir = temp_new();
            struct fault f = {0};
            struct file_hooks hooks = {.context = &f, .before = fail_at};
            struct pool_params params = {.hooks = &hooks};
            pa_options options;
            pa_options_init(&options);
            options.flags = PA_NO_BACKGROUND;
            options.segment_size = MIB;
            pa_pool *pool = NULL;
            struct owners o;
            CK_OK(pool_create_ex(dir.text, &options, &params, &pool));
            CK_OK(owners_open(&o, pool, 10));
            pa_pptr *a = owners_at(&o, 0), *b = owners_at(&o, 1);
            CK_OK(pa_allocate(pool, a, 2 * MIB));
            block_fill(pa_direct(pool, *a), 2 * MIB, 7);
            f = (struct fault){0, at, errors[e]};
            int grown = pa_reallocate(pool, a, 4 * MIB);
            int made = pa_allocate(pool, b, 2 * MIB);
            int moved = pa_reallocate(pool, a, 9 * MIB);
            int freed = made == 0 ? pa_deallocate(pool, b) : 0;
            fired = f.seen >= at;
            f.at = 0;
            CK_OK(freed);
            EXPECT((grown == 0) + (made == 0) + (moved == 0) >= 2, "operation %u fails more than one call", at);
            ck_assert(pa_is_null(*b));
            EXPECT(block_is(pa_direct(pool, *a), 2 * MIB, 7), "contents, operation %u", at);
            EXPECT(pa_usable_size(pool, *a) >= (moved == 0 ? 9u * MIB : grown == 0 ? 4u * MIB : 2u * MIB), "size");
            owners_verify(&o);
            pool = owners_reopen(&o, dir.text);
            EXPECT(block_is(pa_direct(pool, *owners_at(&o, 0)), 2 * MIB, 7), "contents, operation %u", at);
            EXPECT(files(dir.text, "huge-") == 1, "stray file, operation %u", at);
            pa_stats s = stats_of(pool);
            uint64_t bytes = temp_file_size(temp_join(dir.text, "pool.pa").text) + s.segment_files * MIB;
            char names[4][64];
            temp_list(dir.text, "huge-", names, 4);
            EXPECT(s.file_bytes == bytes + temp_file_size(temp_join(dir.text, names[0]).text),
                   "file_bytes, operation %u", at);
            CK_OK(owners_free_all(&o));
            pool_finish(pool, dir.text);
            temp_remove(dir.text);
        }
    }
}
END_TEST

/* --- threads -------------------------------------------------------------------------------------------------------------- */

struct worker {
    struct owners *o;
    unsigned number;
    uint64_t seed;
    pthread_t thread;
};

#define WORKER_OWNERS 6u

static void *work(void *arg)
{
    struct worker *w = arg;
    struct random r = {w->seed + w->number};
    size_t sizes[WORKER_OWNERS] = {0};
    for (unsigned step = 0; step < 150; step++) {
        size_t i = (size_t)random_below(&r, WORKER_OWNERS);
        pa_pptr *dst = owners_at_line(w->o, w->number * WORKER_OWNERS + i);
        size_t size = model_size(&r) / 2 + 1;
        if (sizes[i] != 0)
            EXPECT(block_is(pa_direct(w->o->pool, *dst), sizes[i] & ~7ull, i), "contents");
        if (sizes[i] != 0 && random_below(&r, 2) == 0) {
            CK_OK(pa_deallocate(w->o->pool, dst));
            sizes[i] = 0;
            continue;
        }
        size_t keep = sizes[i] < size ? sizes[i] : size;
        CK_OK(pa_reallocate(w->o->pool, dst, size));
        EXPECT(block_is(pa_direct(w->o->pool, *dst), keep & ~7ull, i), "contents after reallocation");
        sizes[i] = size;
        block_fill(pa_direct(w->o->pool, *dst), size, i);
        pa_stats s;
        if (step % 16 == 0)
            CK_OK(pa_get_stats(w->o->pool, &s));
    }
    return NULL;
}

START_TEST(threads_share_the_slots)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_pool *pool = owners_make(&o, dir.text, 4 * 4 * WORKER_OWNERS);
    struct worker w[4];
    for (unsigned i = 0; i < 4; i++) {
        w[i] = (struct worker){&o, i, run_seed(), 0};
        ck_assert_int_eq(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++)
        pthread_join(w[i].thread, NULL);
    owners_verify(&o);
    pool = owners_reopen(&o, dir.text);
    CK_OK(owners_free_all(&o));
    ck_assert_uint_eq(files(dir.text, "huge-"), 0);
    pool_finish(pool, dir.text);
}
END_TEST

static void add(Suite *s)
{
    ADD(s, a_huge_block_has_a_file_of_its_own_and_keeps_its_contents, 60);
    ADD(s, owner_pointers_lie_anywhere_in_a_huge_block, 60);
    ADD(s, addresses_in_a_huge_block_translate_both_ways, 60);
    ADD(s, a_stale_or_wrong_pointer_to_a_huge_block_is_refused, 60);
    ADD(s, huge_blocks_and_segments_share_the_slots, 120);
    ADD(s, the_limit_counts_huge_files_to_the_byte, 60);
    ADD(s, free_segments_make_room_for_a_huge_block, 60);
    ADD(s, a_size_beyond_the_address_range_is_refused, 60);
    ADD(s, a_block_larger_than_a_huge_file_can_be_is_refused, 60);
    ADD(s, aligned_blocks_are_aligned_wherever_the_pool_is_mapped, 60);
    ADD(s, alignments_that_cannot_be_are_refused, 60);
    ADD(s, a_huge_file_that_is_missing_short_or_foreign_is_corrupt, 60);
    ADD(s, table_words_inside_a_huge_run_are_corrupt, 60);
    ADD(s, check_notes_a_stray_huge_file, 60);
    ADD(s, a_file_operation_that_fails_leaves_nothing_behind, 120);
    ADD(s, threads_share_the_slots, 120);
}

int main(int argc, char **argv)
{
    return run_main(argc, argv, "huge", add);
}
