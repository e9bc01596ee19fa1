/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_bad_input.c -- whatever a program or a damaged directory hands to the library gets its own error and a sentence,
 * nothing is lost, and the pool goes on working.
 */
#define XXH_INLINE_ALL
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "segment/segment_layout.h"
#include "segment/superblock.h"
#include "small/small_layout.h"
#include "tests/support/owners.h"
#include "tests/support/random.h"
#include "tests/support/run.h"
#include "tests/support/temp.h"

#define SEGMENT_SIZE (1u << 20)
#define OWNERS       600u

/* A pool with blocks of several sizes in several segments, every other one freed again. */
struct fixture {
    struct temp_path dir;
    pa_pool *pool;
    struct owners o;
};

static void fixture_make(struct fixture *f)
{
    f->dir = temp_new();
    f->pool = pool_make(f->dir.text);
    CK_OK(owners_open(&f->o, f->pool, OWNERS));
    struct random r = {21};
    for (size_t i = 0; i < OWNERS; i++) {
        size_t size = 16 + random_size(&r, 16000);
        CK_OK(pa_allocate(f->pool, owners_at(&f->o, i), size));
        void *address = pa_direct(f->pool, *owners_at(&f->o, i));
        memset(address, 0, 16);
        block_fill((char *)address + 16, size - 16, i);
        pa_persist(f->pool, address, size);
    }
    for (size_t i = 0; i < OWNERS; i += 2)
        CK_OK(pa_deallocate(f->pool, owners_at(&f->o, i)));
}

static bool contents_are_whole(const struct owners *o)
{
    struct random r = {21};
    for (size_t i = 0; i < OWNERS; i++) {
        size_t size = 16 + random_size(&r, 16000);
        const char *address = pa_direct(o->pool, *owners_at(o, i));
        if (address != NULL && i % 2 == 1 && !block_is(address + 16, size - 16, i))
            return false;
    }
    return true;
}

/* Nothing lost, and the pool works on. */
static void fixture_verify(struct fixture *f)
{
    owners_verify(&f->o);
    ck_assert(contents_are_whole(&f->o));
    for (size_t i = 0; i < 100; i += 2)
        CK_OK(pa_allocate(f->pool, owners_at(&f->o, i), 1 + i * 11));
    owners_verify(&f->o);
    for (size_t i = 0; i < 100; i += 2)
        CK_OK(pa_deallocate(f->pool, owners_at(&f->o, i)));
    owners_verify(&f->o);
}

static void fixture_close(struct fixture *f)
{
    CK_OK(pa_close(f->pool));
    f->pool = NULL;
}

static void fixture_reopen(struct fixture *f)
{
    f->pool = pool_reopen(f->dir.text);
    CK_OK(owners_open(&f->o, f->pool, OWNERS));
    fixture_verify(f);
}

static void fixture_finish(struct fixture *f)
{
    fixture_verify(f);
    fixture_close(f);
    pool_check_sound(f->dir.text);
    fixture_reopen(f);
    pool_finish(f->pool, f->dir.text);
}

/* --- owners and sizes ------------------------------------------------------------------------------------------------------ */

START_TEST(dst_outside_the_pool_is_refused)
{
    struct fixture f;
    fixture_make(&f);
    pa_pptr on_stack = PA_NULL, *on_heap = aligned_alloc(16, 64);
    *on_heap = PA_NULL;
    CK_FAILS(pa_allocate(f.pool, &on_stack, 64), PA_EINVAL, NULL);
    CK_FAILS(pa_allocate(f.pool, on_heap, 64), PA_EINVAL, NULL);
    CK_FAILS(pa_allocate(f.pool, NULL, 64), PA_EINVAL, NULL);
    CK_FAILS(pa_allocate(f.pool, (pa_pptr *)(uintptr_t)-16, 64), PA_EINVAL, NULL);
    ck_assert(pa_is_null(on_stack) && pa_is_null(*on_heap));
    on_stack = *owners_at(&f.o, 1);
    CK_FAILS(pa_deallocate(f.pool, &on_stack), PA_EINVAL, NULL);
    CK_FAILS(pa_deallocate(f.pool, NULL), PA_EINVAL, NULL);
    ck_assert_mem_eq(&on_stack, owners_at(&f.o, 1), sizeof on_stack);
    free(on_heap);
    fixture_finish(&f);
}
END_TEST

START_TEST(dst_in_the_pools_own_metadata_is_refused)
{
    struct fixture f;
    fixture_make(&f);
    uint64_t first_segment = owners_at(&f.o, 1)->segment, first_slab = small_first_slab_of(SEGMENT_SIZE);
    for (uint64_t segment = 0; segment < 4; segment++)
        for (uint64_t offset = segment == 0 ? 16 : 0; offset < first_slab; offset += 16) {
            pa_pptr *dst = pa_direct(f.pool, (pa_pptr){segment, offset});
            int r = dst == NULL ? PA_EINVAL : pa_allocate(f.pool, dst, 64);
            EXPECT(r == PA_EINVAL, "owner in segment %d offset %d (first segment %d): %s", (int)segment, (int)offset,
                   (int)first_segment, pa_strerror(r));
            r = dst == NULL ? PA_EINVAL : pa_deallocate(f.pool, dst);
            EXPECT(r == PA_EINVAL, "owner in segment %d offset %d: %s", (int)segment, (int)offset, pa_strerror(r));
        }
    fixture_finish(&f);
}
END_TEST

START_TEST(dst_in_the_address_range_but_in_no_file_is_refused)
{
    struct fixture f;
    fixture_make(&f);
    uint64_t far[] = {40, 1000, 100000, 1u << 20, 16u << 20};
    for (size_t i = 0; i < sizeof far / sizeof *far; i++) {
        pa_pptr *dst = pa_direct(f.pool, (pa_pptr){far[i], 64});
        if (dst == NULL)
            continue;
        CK_FAILS(pa_allocate(f.pool, dst, 64), PA_EINVAL, NULL);
        CK_FAILS(pa_deallocate(f.pool, dst), PA_EINVAL, NULL);
    }
    fixture_finish(&f);
}
END_TEST

START_TEST(an_unaligned_dst_is_refused)
{
    struct fixture f;
    fixture_make(&f);
    char *owner = (char *)owners_at(&f.o, 0);
    for (int shift = 1; shift < 16; shift++) {
        CK_FAILS(pa_allocate(f.pool, (pa_pptr *)(void *)(owner + shift), 64), PA_EINVAL, NULL);
        CK_FAILS(pa_deallocate(f.pool, (pa_pptr *)(void *)(owner + shift)), PA_EINVAL, NULL);
    }
    fixture_finish(&f);
}
END_TEST

START_TEST(a_dst_that_is_not_null_is_refused)
{
    struct fixture f;
    fixture_make(&f);
    pa_pptr before = *owners_at(&f.o, 1);
    CK_FAILS(pa_allocate(f.pool, owners_at(&f.o, 1), 64), PA_EINVAL, NULL);
    ck_assert_mem_eq(&before, owners_at(&f.o, 1), sizeof before);
    *owners_at(&f.o, 0) = (pa_pptr){0, 5};
    CK_FAILS(pa_allocate(f.pool, owners_at(&f.o, 0), 64), PA_EINVAL, NULL);
    *owners_at(&f.o, 0) = PA_NULL;
    fixture_finish(&f);
}
END_TEST

START_TEST(impossible_sizes_are_refused)
{
    struct fixture f;
    fixture_make(&f);
    pa_pptr *dst = owners_at(&f.o, 0);
    CK_FAILS(pa_allocate(f.pool, dst, 0), PA_EINVAL, NULL);
    static const size_t sizes[] = {SIZE_MAX,     SIZE_MAX - 1,    SIZE_MAX - 63,
                                   SIZE_MAX / 2, (size_t)1 << 60, (size_t)1 << 48};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        sentence_forget();
        int r = pa_allocate(f.pool, dst, sizes[i]);
        EXPECT(r == PA_EINVAL || r == PA_ENOSPC || r == PA_ENOTSUP, "%zu bytes: %s", sizes[i], pa_strerror(r));
        ck_assert(sentence_is_good(NULL));
        ck_assert(pa_is_null(*dst));
    }
    pa_pptr root = {7, 7};
    int r = pa_root(f.pool, SIZE_MAX, &root);
    ck_assert_int_eq(r, PA_EINVAL);
    ck_assert_uint_eq(root.segment, 7);
    fixture_finish(&f);
}
END_TEST

/* --- pointers that name no block --------------------------------------------------------------------------------------------- */

/* Frees the made-up pointer through a null owner of the pool; refused, and the owner keeps it. */
static void refuse_free(struct fixture *f, pa_pptr made_up, const char *what)
{
    pa_pptr *dst = owners_at(&f->o, 0);
    *dst = made_up;
    sentence_forget();
    int r = pa_deallocate(f->pool, dst);
    EXPECT(r == PA_EINVAL, "%s {%#llx, %#llx}: %s", what, (unsigned long long)made_up.segment,
           (unsigned long long)made_up.offset, pa_strerror(r));
    ck_assert(sentence_is_good(NULL));
    ck_assert_mem_eq(dst, &made_up, sizeof made_up);
    ck_assert_uint_eq(pa_usable_size(f->pool, made_up), 0);
    *dst = PA_NULL;
}

START_TEST(freeing_twice_is_refused)
{
    struct fixture f;
    fixture_make(&f);
    for (size_t i = 1; i < 40; i += 2) {
        pa_pptr stale = *owners_at(&f.o, i);
        CK_OK(pa_deallocate(f.pool, owners_at(&f.o, i)));
        refuse_free(&f, stale, "freed");
        fixture_close(&f);
        f.pool = pool_reopen(f.dir.text);
        CK_OK(owners_open(&f.o, f.pool, OWNERS));
        refuse_free(&f, stale, "freed before the reopen");
    }
    fixture_finish(&f);
}
END_TEST

START_TEST(pointers_into_a_blocks_middle_are_refused)
{
    struct fixture f;
    fixture_make(&f);
    for (size_t i = 1; i < OWNERS; i += 2) {
        pa_pptr p = *owners_at(&f.o, i);
        size_t size = pa_usable_size(f.pool, p);
        for (size_t shift = 1; shift < size; shift = shift < 16 ? shift + 1 : shift * 2)
            refuse_free(&f, (pa_pptr){p.segment, p.offset + shift}, "middle");
        refuse_free(&f, (pa_pptr){p.segment, p.offset + size - 1}, "last byte");
    }
    fixture_finish(&f);
}
END_TEST

START_TEST(made_up_pointers_are_refused)
{
    struct fixture f;
    fixture_make(&f);
    static const uint64_t segments[] =
        {0,      1,        2,          3,          5,          63,         64,         1000,           131071,
         131072, 1u << 24, UINT32_MAX, 1ull << 32, 1ull << 44, 1ull << 63, UINT64_MAX, UINT64_MAX - 1, 1ull << 52};
    static const uint64_t offsets[] = {0,
                                       1,
                                       8,
                                       15,
                                       16,
                                       64,
                                       4096,
                                       4160,
                                       8192,
                                       65535,
                                       65536,
                                       131072,
                                       1044480,
                                       1048560,
                                       SEGMENT_SIZE,
                                       1ull << 20,
                                       2ull << 20,
                                       1ull << 32,
                                       1ull << 44,
                                       1ull << 63,
                                       UINT64_MAX,
                                       UINT64_MAX - 15,
                                       (uint64_t)-4096};
    struct blocks all = {0};
    CK_OK(blocks_collect(&all, f.pool));
    for (size_t s = 0; s < sizeof segments / sizeof *segments; s++)
        for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
            pa_pptr p = {segments[s], offsets[i]};
            bool real = pa_is_null(p);
            for (size_t k = 0; k < all.n && !real; k++) {
                pa_pptr block = pa_off_pptr(f.pool, all.at[k].off);
                real = memcmp(&block, &p, sizeof p) == 0;
            }
            if (!real)
                refuse_free(&f, p, "made up");
        }
    struct random r = {31};
    for (int i = 0; i < 20000; i++) {
        pa_pptr p = {random_below(&r, 8), random_below(&r, SEGMENT_SIZE)};
        bool real = pa_is_null(p);
        for (size_t k = 0; k < all.n && !real; k++)
            real = all.at[k].off == pa_off_of(f.pool, p);
        if (!real)
            refuse_free(&f, p, "random");
    }
    blocks_free(&all);
    fixture_finish(&f);
}
END_TEST

START_TEST(the_root_block_cannot_be_freed)
{
    struct fixture f;
    fixture_make(&f);
    pa_pptr root;
    CK_OK(pa_root(f.pool, 1, &root));
    *owners_at(&f.o, 0) = root;
    CK_FAILS(pa_deallocate(f.pool, owners_at(&f.o, 0)), PA_EINVAL, NULL);
    *owners_at(&f.o, 0) = PA_NULL;
    fixture_finish(&f);
}
END_TEST

START_TEST(translations_of_made_up_pointers_do_not_crash)
{
    struct fixture f;
    fixture_make(&f);
    struct random r = {41};
    for (int i = 0; i < 100000; i++) {
        pa_pptr p = {random_next(&r) >> random_below(&r, 64), random_next(&r) >> random_below(&r, 64)};
        (void)pa_direct(f.pool, p);
        (void)pa_off_of(f.pool, p);
        (void)pa_off_pptr(f.pool, p.offset);
        (void)pa_off_direct(f.pool, p.offset);
        (void)pa_pptr_of(f.pool, (void *)(uintptr_t)p.offset);
        (void)pa_usable_size(f.pool, p);
    }
    ck_assert_ptr_null(pa_direct(f.pool, (pa_pptr){UINT64_MAX, UINT64_MAX}));
    ck_assert_ptr_null(pa_direct(f.pool, (pa_pptr){1ull << 40, 0}));
    ck_assert_ptr_null(pa_direct(f.pool, (pa_pptr){0, UINT64_MAX}));
    ck_assert_ptr_null(pa_off_direct(f.pool, UINT64_MAX));
    fixture_finish(&f);
}
END_TEST

/* --- options --------------------------------------------------------------------------------------------------------------- */

static int create_with(const char *dir, void (*change)(pa_options *))
{
    pa_options o;
    pa_options_init(&o);
    o.segment_size = SEGMENT_SIZE;
    change(&o);
    pa_pool *pool = (pa_pool *)(uintptr_t)77;
    int r = pa_create(dir, &o, &pool);
    if (r == 0)
        CK_OK(pa_close(pool));
    else
        ck_assert_ptr_eq(pool, (pa_pool *)(uintptr_t)77);
    return r;
}

static void odd_segment(pa_options *o)
{
    o->segment_size = 3u << 20;
}
static void tiny_segment(pa_options *o)
{
    o->segment_size = 1u << 19;
}
static void giant_segment(pa_options *o)
{
    o->segment_size = 32ull << 30;
}
static void bounded(pa_options *o)
{
    o->guarantee = PA_GUARANTEE_BOUNDED;
}
static void collected(pa_options *o)
{
    o->guarantee = PA_GUARANTEE_GC;
}
static void unknown_guarantee(pa_options *o)
{
    o->guarantee = (enum pa_guarantee)99;
}
static void unknown_durability(pa_options *o)
{
    o->durability = (enum pa_durability)99;
}
static void unknown_flag(pa_options *o)
{
    o->flags = 1u << 20;
}
static void read_only(pa_options *o)
{
    o->flags = PA_READ_ONLY;
}
static void little_max(pa_options *o)
{
    o->max_size = 4096;
}
static void long_layout(pa_options *o)
{
    o->layout = "0123456789012345678901234567890123456789012345678901234567890123";
}
static void longest_layout(pa_options *o)
{
    o->layout = "012345678901234567890123456789012345678901234567890123456789012";
}

START_TEST(impossible_options_are_refused)
{
    struct temp_path dir = temp_new();
    CK_FAILS(create_with(dir.text, odd_segment), PA_EINVAL, NULL);
    CK_FAILS(create_with(dir.text, tiny_segment), PA_EINVAL, NULL);
    CK_FAILS(create_with(dir.text, giant_segment), PA_EINVAL, NULL);
    CK_FAILS(create_with(dir.text, unknown_guarantee), PA_EINVAL, NULL);
    CK_FAILS(create_with(dir.text, unknown_durability), PA_EINVAL, NULL);
    CK_FAILS(create_with(dir.text, unknown_flag), PA_EINVAL, NULL);
    CK_FAILS(create_with(dir.text, read_only), PA_EINVAL, NULL);
    CK_FAILS(create_with(dir.text, little_max), PA_EINVAL, NULL);
    CK_FAILS(create_with(dir.text, long_layout), PA_EINVAL, NULL);
    CK_FAILS(create_with(dir.text, bounded), PA_ENOTSUP, NULL);
    CK_FAILS(create_with(dir.text, collected), PA_ENOTSUP, NULL);
    CK_OK(create_with(dir.text, longest_layout));
    pool_check_sound(dir.text);
}
END_TEST

static void power(pa_options *o)
{
    o->durability = PA_DURABILITY_POWER;
}

START_TEST(power_failure_durability_is_refused_on_tmpfs)
{
    run_pretend(NULL);
    struct temp_path dir = temp_new();
    if (!temp_is_volatile()) {
        fprintf(stderr, "power_failure_durability_is_refused_on_tmpfs: skipped, the directory is not on tmpfs\n");
        return;
    }
    CK_FAILS(create_with(dir.text, power), PA_ENOTSUP, dir.text);
    pa_pool *pool = pool_make(dir.text);
    CK_OK(pa_close(pool));
    pa_options o;
    pa_options_init(&o);
    o.durability = PA_DURABILITY_POWER;
    CK_FAILS(pa_open(dir.text, &o, &pool), PA_ENOTSUP, dir.text);
    pool = pool_reopen(dir.text);
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(missing_arguments_are_refused)
{
    struct temp_path dir = temp_new();
    pa_pool *pool = NULL;
    CK_FAILS(pa_create(NULL, NULL, &pool), PA_EINVAL, NULL);
    CK_FAILS(pa_create(dir.text, NULL, NULL), PA_EINVAL, NULL);
    CK_FAILS(pa_open(NULL, NULL, &pool), PA_EINVAL, NULL);
    CK_FAILS(pa_open(dir.text, NULL, NULL), PA_EINVAL, NULL);
    CK_FAILS(pa_check(NULL, NULL), PA_EINVAL, NULL);
}
END_TEST

START_TEST(another_layout_is_refused)
{
    struct fixture f;
    f.dir = temp_new();
    pa_options o;
    pa_options_init(&o);
    o.layout = "accounts";
    o.segment_size = SEGMENT_SIZE;
    CK_OK(pa_create(f.dir.text, &o, &f.pool));
    fixture_close(&f);
    pa_pool *pool = (pa_pool *)&f;
    o.layout = "invoices";
    CK_FAILS(pa_open(f.dir.text, &o, &pool), PA_ELAYOUT, f.dir.text);
    ck_assert_ptr_nonnull(strstr(pa_errormsg(), "accounts"));
    o.layout = "account";
    CK_FAILS(pa_open(f.dir.text, &o, &pool), PA_ELAYOUT, f.dir.text);
    o.layout = "";
    CK_FAILS(pa_open(f.dir.text, &o, &pool), PA_ELAYOUT, f.dir.text);
    ck_assert_ptr_eq(pool, (pa_pool *)&f);
    o.layout = "accounts";
    CK_OK(pa_open(f.dir.text, &o, &pool));
    CK_OK(pa_close(pool));
    o.layout = NULL;
    CK_OK(pa_open(f.dir.text, &o, &pool));
    pool_finish(pool, f.dir.text);
}
END_TEST

/* --- damaged directories ------------------------------------------------------------------------------------------------------- */

/* The directory as it was, kept aside while files are damaged. */
struct damage {
    struct fixture f;
    struct temp_path copy;
    char segments[64][64];
    size_t n;
};

static void damage_begin(struct damage *d)
{
    fixture_make(&d->f);
    fixture_close(&d->f);
    d->copy = temp_new();
    temp_copy_dir(d->f.dir.text, d->copy.text);
    d->n = temp_list(d->f.dir.text, "segment-", d->segments, 64);
    ck_assert_uint_ge(d->n, 2);
}

static struct temp_path damage_file(const struct damage *d, const char *name)
{
    return temp_join(d->f.dir.text, name);
}

static struct temp_path good_file(const struct damage *d, const char *name)
{
    return temp_join(d->copy.text, name);
}

/* Both pa_open and pa_check refuse the damaged directory, naming the file, and change nothing in it. */
static void damage_is_seen(const struct damage *d, int code, const char *name)
{
    uint64_t before = temp_hash_dir(d->f.dir.text);
    unsigned descriptors = process_descriptors();
    pa_pool *pool = (pa_pool *)(uintptr_t)77;
    CK_FAILS(pa_open(d->f.dir.text, NULL, &pool), code, name);
    ck_assert_ptr_eq(pool, (pa_pool *)(uintptr_t)77);
    pa_options o;
    pa_options_init(&o);
    o.flags = PA_READ_ONLY;
    CK_FAILS(pa_open(d->f.dir.text, &o, &pool), code, name);
    char *report = NULL;
    int r = pa_check(d->f.dir.text, &report);
    EXPECT(r == code, "pa_check: %s, expected %s: %s", pa_strerror(r), pa_strerror(code), report);
    EXPECT(report != NULL && strstr(report, name) != NULL, "pa_check's report does not name %s: %s", name,
           report == NULL ? "(none)" : report);
    free(report);
    ck_assert_uint_eq(process_descriptors(), descriptors);
    EXPECT(temp_hash_dir(d->f.dir.text) == before, "a refused open changed the directory (%s)", name);
}

/* With the good files back everything is as before. */
static void damage_end(struct damage *d)
{
    temp_remove(d->f.dir.text);
    temp_copy_dir(d->copy.text, d->f.dir.text);
    pool_check_sound(d->f.dir.text);
    fixture_reopen(&d->f);
    fixture_close(&d->f);
}

START_TEST(an_empty_directory_holds_no_pool)
{
    struct temp_path dir = temp_new();
    temp_make_dir(dir.text);
    pa_pool *pool;
    CK_FAILS(pa_open(dir.text, NULL, &pool), PA_ENOENT, dir.text);
    CK_FAILS(pa_check(dir.text, NULL), PA_ENOENT, dir.text);
    struct temp_path missing = temp_join(dir.text, "missing");
    CK_FAILS(pa_open(missing.text, NULL, &pool), PA_ENOENT, missing.text);
    CK_FAILS(pa_check(missing.text, NULL), PA_ENOENT, missing.text);
    struct temp_path deep = temp_join(missing.text, "deeper");
    CK_FAILS(pa_create(deep.text, NULL, &pool), PA_ENOENT, deep.text);
    char names[4][64];
    ck_assert_uint_eq(temp_list(dir.text, "", names, 4), 0);
}
END_TEST

START_TEST(a_file_in_the_directorys_place_is_refused)
{
    struct temp_path path = temp_new();
    temp_write_file(path.text, "hello", 5);
    pa_pool *pool;
    sentence_forget();
    ck_assert_int_ne(pa_create(path.text, NULL, &pool), 0);
    ck_assert(sentence_is_good(path.text));
    CK_FAILS(pa_open(path.text, NULL, &pool), PA_ENOENT, path.text);
    CK_FAILS(pa_check(path.text, NULL), PA_ENOENT, path.text);
    ck_assert_uint_eq(temp_file_size(path.text), 5);
}
END_TEST

START_TEST(a_missing_pool_file_is_told_and_create_does_not_run_over_the_rest)
{
    struct damage d;
    damage_begin(&d);
    struct temp_path file = damage_file(&d, "pool.pa");
    temp_remove(file.text);
    damage_is_seen(&d, PA_ENOENT, "pool.pa");
    pa_pool *pool;
    CK_FAILS(pa_create(d.f.dir.text, NULL, &pool), PA_EEXIST, d.f.dir.text);
    char names[64][64];
    ck_assert_uint_eq(temp_list(d.f.dir.text, "segment-", names, 64), d.n);
    damage_end(&d);
}
END_TEST

START_TEST(a_missing_segment_file_is_told)
{
    struct damage d;
    damage_begin(&d);
    for (size_t i = 0; i < d.n; i++) {
        struct temp_path file = damage_file(&d, d.segments[i]), good = good_file(&d, d.segments[i]);
        temp_remove(file.text);
        damage_is_seen(&d, PA_ECORRUPT, d.segments[i]);
        temp_copy_file(good.text, file.text);
    }
    damage_end(&d);
}
END_TEST

static void sizes_are_seen(struct damage *d, const char *name)
{
    struct temp_path file = damage_file(d, name), good = good_file(d, name);
    size_t size;
    char *data = temp_read_file(good.text, &size);
    data = realloc(data, size + 4096);
    memset(data + size, 0, 4096);
    const size_t wrong[] = {0, 1, 64, 151, 4096, size / 2, size - 4096, size - 1, size + 1, size + 4096};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        temp_write_file(file.text, data, wrong[i]);
        damage_is_seen(d, PA_ECORRUPT, name);
    }
    temp_write_file(file.text, data, size);
    free(data);
}

START_TEST(truncated_and_grown_files_are_told)
{
    struct damage d;
    damage_begin(&d);
    sizes_are_seen(&d, "pool.pa");
    for (size_t i = 0; i < d.n; i++)
        sizes_are_seen(&d, d.segments[i]);
    damage_end(&d);
}
END_TEST

START_TEST(files_of_another_pool_are_told)
{
    struct damage d, other;
    damage_begin(&d);
    damage_begin(&other);
    for (size_t i = 0; i < d.n && i < other.n; i++) { /* how many there are depends on the cores that served */
        struct temp_path file = damage_file(&d, d.segments[i]), good = good_file(&d, d.segments[i]);
        struct temp_path foreign = good_file(&other, other.segments[i]);
        temp_copy_file(foreign.text, file.text);
        damage_is_seen(&d, PA_ECORRUPT, d.segments[i]);
        temp_copy_file(good.text, file.text);
    }
    struct temp_path file = damage_file(&d, "pool.pa"), foreign = good_file(&other, "pool.pa");
    temp_copy_file(foreign.text, file.text);
    damage_is_seen(&d, PA_ECORRUPT, "segment-");
    damage_end(&d);
    damage_end(&other);
}
END_TEST

START_TEST(files_of_the_pool_that_changed_places_are_told)
{
    struct damage d;
    damage_begin(&d);
    struct temp_path a = damage_file(&d, d.segments[0]), b = damage_file(&d, d.segments[1]);
    struct temp_path good_a = good_file(&d, d.segments[0]), good_b = good_file(&d, d.segments[1]);
    temp_copy_file(good_a.text, b.text);
    temp_copy_file(good_b.text, a.text);
    damage_is_seen(&d, PA_ECORRUPT, "segment-");
    damage_end(&d);
}
END_TEST

START_TEST(things_that_are_no_files_are_told)
{
    struct damage d;
    damage_begin(&d);
    static const char *const pool_file = "pool.pa";
    const char *names[] = {pool_file, d.segments[0], d.segments[d.n - 1]};
    for (size_t i = 0; i < 3; i++) {
        struct temp_path file = damage_file(&d, names[i]), good = good_file(&d, names[i]);
        temp_remove(file.text);
        temp_make_dir(file.text);
        pa_pool *pool;
        CK_FAILS(pa_open(d.f.dir.text, NULL, &pool), PA_ECORRUPT, names[i]);
        ck_assert_int_eq(pa_check(d.f.dir.text, NULL), PA_ECORRUPT);
        temp_remove(file.text);
        ck_assert_int_eq(symlink(good.text, file.text), 0);
        CK_FAILS(pa_open(d.f.dir.text, NULL, &pool), PA_ECORRUPT, names[i]);
        ck_assert_int_eq(pa_check(d.f.dir.text, NULL), PA_ECORRUPT);
        temp_remove(file.text);
        ck_assert_int_eq(mkfifo(file.text, 0600), 0);
        CK_FAILS(pa_open(d.f.dir.text, NULL, &pool), PA_ECORRUPT, names[i]);
        ck_assert_int_eq(pa_check(d.f.dir.text, NULL), PA_ECORRUPT);
        temp_remove(file.text);
        temp_copy_file(good.text, file.text);
    }
    damage_end(&d);
}
END_TEST

START_TEST(files_full_of_nonsense_are_told)
{
    struct damage d;
    damage_begin(&d);
    const char *names[] = {"pool.pa", d.segments[0], d.segments[d.n - 1]};
    struct random r = {51};
    for (size_t i = 0; i < 3; i++)
        for (int kind = 0; kind < 3; kind++) {
            struct temp_path file = damage_file(&d, names[i]), good = good_file(&d, names[i]);
            size_t size = temp_file_size(good.text);
            uint64_t *data = calloc(1, size);
            for (size_t k = 0; k < size / 8 && kind > 0; k++)
                data[k] = kind == 1 ? UINT64_MAX : random_next(&r);
            temp_write_file(file.text, data, size);
            damage_is_seen(&d, PA_ECORRUPT, names[i]);
            free(data);
            temp_copy_file(good.text, file.text);
        }
    damage_end(&d);
}
END_TEST

START_TEST(strange_files_beside_the_pool_are_left_alone)
{
    struct fixture f;
    fixture_make(&f);
    fixture_close(&f);
    struct temp_path note = temp_join(f.dir.text, "notes.txt"), hidden = temp_join(f.dir.text, ".hidden");
    temp_write_file(note.text, "mine", 4);
    temp_write_file(hidden.text, "mine", 4);
    fixture_reopen(&f);
    fixture_finish(&f);
    ck_assert_uint_eq(temp_file_size(note.text), 4);
    ck_assert_uint_eq(temp_file_size(hidden.text), 4);
}
END_TEST

/* Changes the superblock and puts its checksum right. */
static void superblock_change(const char *path, void (*change)(struct pm_superblock *))
{
    size_t size;
    char *data = temp_read_file(path, &size);
    struct pm_superblock s;
    memcpy(&s, data, sizeof s);
    change(&s);
    s.checksum = XXH3_64bits(&s, offsetof(struct pm_superblock, checksum));
    temp_write_at(path, 0, &s, sizeof s);
    free(data);
}

static void newer(struct pm_superblock *s)
{
    s->version++;
}
static void older(struct pm_superblock *s)
{
    s->version = 0;
}
static void slots_without_end(struct pm_superblock *s)
{
    s->slots = UINT32_MAX;
}
static void no_lanes(struct pm_superblock *s)
{
    s->lanes = 0;
}
static void giant_lanes(struct pm_superblock *s)
{
    s->lane_entries = 1u << 31;
}
static void other_segment_size(struct pm_superblock *s)
{
    s->segment_size *= 2;
}
static void zero_segment_size(struct pm_superblock *s)
{
    s->segment_size = 0;
}
static void far_table(struct pm_superblock *s)
{
    s->table_offset = UINT64_MAX - 4095;
}
static void open_layout(struct pm_superblock *s)
{
    memset(s->layout, 'x', sizeof s->layout);
}

START_TEST(a_pool_of_another_version_is_told)
{
    struct damage d;
    damage_begin(&d);
    struct temp_path file = damage_file(&d, "pool.pa"), good = good_file(&d, "pool.pa");
    superblock_change(file.text, newer);
    damage_is_seen(&d, PA_EVERSION, "pool.pa");
    temp_copy_file(good.text, file.text);
    superblock_change(file.text, older);
    damage_is_seen(&d, PA_EVERSION, "pool.pa");
    damage_end(&d);
}
END_TEST

START_TEST(a_forged_superblock_is_told)
{
    struct damage d;
    damage_begin(&d);
    void (*const changes[])(struct pm_superblock *) = {slots_without_end, no_lanes,  giant_lanes, other_segment_size,
                                                       zero_segment_size, far_table, open_layout};
    struct temp_path file = damage_file(&d, "pool.pa"), good = good_file(&d, "pool.pa");
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        superblock_change(file.text, changes[i]);
        damage_is_seen(&d, PA_ECORRUPT, ".pa"); /* or what contradicts it */
        temp_copy_file(good.text, file.text);
    }
    damage_end(&d);
}
END_TEST

/* --- permission, locks, space -------------------------------------------------------------------------------------------------- */

#define NOBODY 65534

/* Runs act as nobody in a child; the value it returns comes back. */
static int as_nobody(int (*act)(const char *dir), const char *dir)
{
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        if (setgid(NOBODY) != 0 || setuid(NOBODY) != 0)
            _exit(99);
        sentence_forget();
        int r = act(dir);
        if (r != 0 && !sentence_is_good(dir))
            fprintf(stderr, "sentence: %s\n", pa_errormsg());
        _exit(r != 0 && !sentence_is_good(dir) ? 98 : -r);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    EXPECT(WIFEXITED(status), "the child died of signal %d", WTERMSIG(status));
    EXPECT(WEXITSTATUS(status) != 98, "no sentence that names the directory");
    return -WEXITSTATUS(status);
}

static int act_create(const char *dir)
{
    pa_pool *pool;
    int r = pa_create(dir, NULL, &pool);
    return r != 0 ? r : pa_close(pool);
}

static int act_open(const char *dir)
{
    pa_pool *pool;
    int r = pa_open(dir, NULL, &pool);
    return r != 0 ? r : pa_close(pool);
}

static int act_open_read_only(const char *dir)
{
    pa_pool *pool;
    pa_options o;
    pa_options_init(&o);
    o.flags = PA_READ_ONLY;
    int r = pa_open(dir, &o, &pool);
    return r != 0 ? r : pa_close(pool);
}

static int act_check(const char *dir)
{
    return pa_check(dir, NULL);
}

static void chmod_all(const char *dir, mode_t mode)
{
    char names[64][64];
    size_t n = temp_list(dir, "", names, 64);
    for (size_t i = 0; i < n; i++) {
        struct temp_path p = temp_join(dir, names[i]);
        ck_assert_int_eq(chmod(p.text, mode), 0);
    }
}

START_TEST(missing_permission_is_told)
{
    if (getuid() != 0)
        return;
    struct fixture f;
    fixture_make(&f);
    fixture_close(&f);
    ck_assert_int_eq(chmod(f.dir.text, 0700), 0);
    ck_assert_int_eq(as_nobody(act_open, f.dir.text), PA_EACCES);
    ck_assert_int_eq(as_nobody(act_check, f.dir.text), PA_EACCES);
    ck_assert_int_eq(as_nobody(act_create, f.dir.text), PA_EACCES);
    ck_assert_int_eq(chmod(f.dir.text, 0755), 0);
    chmod_all(f.dir.text, 0600);
    ck_assert_int_eq(as_nobody(act_open, f.dir.text), PA_EACCES);
    ck_assert_int_eq(as_nobody(act_open_read_only, f.dir.text), PA_EACCES);
    ck_assert_int_eq(as_nobody(act_check, f.dir.text), PA_EACCES);
    chmod_all(f.dir.text, 0644);
    ck_assert_int_eq(as_nobody(act_open, f.dir.text), PA_EACCES);
    ck_assert_int_eq(as_nobody(act_open_read_only, f.dir.text), 0);
    ck_assert_int_eq(as_nobody(act_check, f.dir.text), 0);
    struct temp_path inside = temp_new(), below;
    temp_make_dir(inside.text);
    ck_assert_int_eq(chmod(inside.text, 0555), 0);
    ck_assert_int_eq(as_nobody(act_create, inside.text), PA_EACCES);
    below = temp_join(inside.text, "new");
    ck_assert_int_eq(as_nobody(act_create, below.text), PA_EACCES);
    fixture_reopen(&f);
    fixture_finish(&f);
}
END_TEST

START_TEST(a_read_only_directory_cannot_grow_but_loses_nothing)
{
    if (getuid() != 0)
        return;
    struct temp_path dir = temp_new();
    temp_make_dir(dir.text);
    ck_assert_int_eq(chown(dir.text, NOBODY, NOBODY), 0);
    pid_t child = fork();
    if (child == 0) {
        if (setgid(NOBODY) != 0 || setuid(NOBODY) != 0)
            _exit(99);
        struct owners o;
        pa_pool *pool = owners_make(&o, dir.text, 2000);
        ck_assert_int_eq(chmod(dir.text, 0555), 0);
        int r = 0;
        size_t n = 0;
        for (; n < 2000 && r == 0; n++)
            r = pa_allocate(pool, owners_at(&o, n), 16384);
        EXPECT(r == PA_EACCES, "%s: %s", pa_strerror(r), pa_errormsg());
        ck_assert(sentence_is_good(dir.text));
        owners_verify(&o);
        CK_OK(owners_free_all(&o));
        ck_assert_int_eq(chmod(dir.text, 0755), 0);
        for (size_t i = 0; i < 200; i++)
            CK_OK(pa_allocate(pool, owners_at(&o, i), 16384));
        owners_verify(&o);
        pool_finish(pool, dir.text);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %#x", (unsigned)status);
}
END_TEST

START_TEST(a_second_handle_in_the_process_is_refused)
{
    struct fixture f;
    fixture_make(&f);
    pa_pool *second = (pa_pool *)&f;
    CK_FAILS(pa_open(f.dir.text, NULL, &second), PA_ELOCKED, f.dir.text);
    CK_FAILS(pa_create(f.dir.text, NULL, &second), PA_EEXIST, f.dir.text);
    pa_options o;
    pa_options_init(&o);
    o.flags = PA_READ_ONLY;
    CK_FAILS(pa_open(f.dir.text, &o, &second), PA_ELOCKED, f.dir.text);
    CK_FAILS(pa_check(f.dir.text, NULL), PA_ELOCKED, f.dir.text);
    ck_assert_ptr_eq(second, (pa_pool *)&f);
    fixture_finish(&f);
}
END_TEST

/* Starts a child that opens the pool, tells by a byte, and closes it after milliseconds (0 = never). */
static pid_t hold(const char *dir, unsigned flags, long milliseconds)
{
    int fds[2];
    ck_assert_int_eq(pipe(fds), 0);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        pa_options o;
        pa_options_init(&o);
        o.flags = flags;
        pa_pool *pool;
        if (pa_open(dir, &o, &pool) != 0 || write(fds[1], "", 1) != 1)
            _exit(1);
        if (milliseconds == 0)
            for (;;)
                pause();
        struct timespec t = {milliseconds / 1000, milliseconds % 1000 * 1000000};
        nanosleep(&t, NULL);
        _exit(pa_close(pool) == 0 ? 0 : 1);
    }
    close(fds[1]);
    char byte;
    EXPECT(read(fds[0], &byte, 1) == 1, "the child could not open the pool");
    close(fds[0]);
    return child;
}

START_TEST(another_process_is_refused_until_the_first_ends)
{
    struct fixture f;
    fixture_make(&f);
    fixture_close(&f);
    pid_t child = hold(f.dir.text, 0, 0);
    pa_pool *pool;
    CK_FAILS(pa_open(f.dir.text, NULL, &pool), PA_ELOCKED, f.dir.text);
    CK_FAILS(pa_check(f.dir.text, NULL), PA_ELOCKED, f.dir.text);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    fixture_reopen(&f);
    fixture_finish(&f);
}
END_TEST

START_TEST(of_many_processes_that_create_one_pool_one_wins)
{
    for (int round = 0; round < 20; round++) {
        struct temp_path dir = temp_new();
        enum { CHILDREN = 6 };
        pid_t children[CHILDREN];
        for (int i = 0; i < CHILDREN; i++) {
            children[i] = fork();
            if (children[i] != 0)
                continue;
            pa_pool *pool;
            pa_options o;
            pa_options_init(&o);
            o.segment_size = SEGMENT_SIZE;
            int r = pa_create(dir.text, &o, &pool);
            if (r == 0) {
                pa_pptr root;
                r = pa_root(pool, 64, &root);
                _exit(r == 0 && pa_close(pool) == 0 ? 0 : 100);
            }
            _exit(-r);
        }
        int winners = 0;
        for (int i = 0; i < CHILDREN; i++) {
            int status;
            waitpid(children[i], &status, 0);
            EXPECT(WIFEXITED(status), "status %#x", (unsigned)status);
            int r = -WEXITSTATUS(status);
            winners += r == 0;
            EXPECT(r == 0 || r == PA_EEXIST || r == PA_ELOCKED, "%s (%d)", pa_strerror(r), r);
        }
        ck_assert_int_eq(winners, 1);
        pool_check_sound(dir.text);
    }
}
END_TEST

START_TEST(wait_lock_waits_for_the_other_process)
{
    struct fixture f;
    fixture_make(&f);
    fixture_close(&f);
    pid_t child = hold(f.dir.text, 0, 300);
    pa_options o;
    pa_options_init(&o);
    o.flags = PA_WAIT_LOCK;
    struct timespec before, after;
    clock_gettime(CLOCK_MONOTONIC, &before);
    CK_OK(pa_open(f.dir.text, &o, &f.pool));
    clock_gettime(CLOCK_MONOTONIC, &after);
    int64_t waited = (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000;
    ck_assert_int_ge(waited, 100);
    int status;
    waitpid(child, &status, 0);
    ck_assert_int_eq(status, 0);
    CK_OK(owners_open(&f.o, f.pool, OWNERS));
    fixture_finish(&f);
}
END_TEST

START_TEST(readers_share_a_pool_and_shut_writers_out)
{
    struct fixture f;
    fixture_make(&f);
    fixture_close(&f);
    pid_t child = hold(f.dir.text, PA_READ_ONLY, 0);
    pa_options o;
    pa_options_init(&o);
    o.flags = PA_READ_ONLY;
    pa_pool *a, *b, *writer;
    CK_OK(pa_open(f.dir.text, &o, &a));
    CK_OK(pa_open(f.dir.text, &o, &b));
    CK_FAILS(pa_open(f.dir.text, NULL, &writer), PA_ELOCKED, f.dir.text);
    CK_OK(pa_close(a));
    CK_OK(pa_close(b));
    CK_OK(pa_check(f.dir.text, NULL));
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    fixture_reopen(&f);
    fixture_finish(&f);
}
END_TEST

static void read_only_sees_all_and_changes_nothing(struct fixture *f)
{
    uint64_t before = temp_hash_dir(f->dir.text);
    pa_options options;
    pa_options_init(&options);
    options.flags = PA_READ_ONLY;
    pa_pool *pool;
    struct owners o;
    CK_OK(pa_open(f->dir.text, &options, &pool));
    CK_OK(owners_open(&o, pool, OWNERS));
    owners_verify(&o);
    ck_assert(contents_are_whole(&o));
    CK_FAILS(pa_allocate(pool, owners_at(&o, 0), 64), PA_EACCES, NULL);
    CK_FAILS(pa_deallocate(pool, owners_at(&o, 1)), PA_EACCES, NULL);
    ck_assert(pa_is_null(*owners_at(&o, 0)) && !pa_is_null(*owners_at(&o, 1)));
    *owners_at(&o, 1) = PA_NULL; /* a private snapshot: even this stays here */
    CK_OK(pa_close(pool));
    ck_assert_uint_eq(temp_hash_dir(f->dir.text), before);
}

START_TEST(a_read_only_pool_is_a_snapshot)
{
    struct fixture f;
    fixture_make(&f);
    /* A copy made while the pool is open is what a killed process leaves. */
    struct fixture killed = {.dir = temp_new()};
    temp_copy_dir(f.dir.text, killed.dir.text);
    fixture_close(&f);
    read_only_sees_all_and_changes_nothing(&f);
    read_only_sees_all_and_changes_nothing(&killed);
    fixture_reopen(&f);
    fixture_finish(&f);
    fixture_reopen(&killed);
    fixture_finish(&killed);
}
END_TEST

START_TEST(a_read_only_pool_without_a_root_has_none)
{
    struct temp_path dir = temp_new();
    pa_pool *pool = pool_make(dir.text);
    CK_OK(pa_close(pool));
    pa_options o;
    pa_options_init(&o);
    o.flags = PA_READ_ONLY;
    CK_OK(pa_open(dir.text, &o, &pool));
    pa_pptr root = {7, 7};
    CK_FAILS(pa_root(pool, 64, &root), PA_EACCES, NULL);
    ck_assert_uint_eq(root.segment, 7);
    CK_OK(pa_close(pool));
}
END_TEST

/* A file system of its own, of 8 MiB; false if this process may not mount. */
static bool mount_small(const char *path)
{
    temp_make_dir(path);
    return mount("none", path, "tmpfs", 0, "size=8m") == 0;
}

START_TEST(a_full_file_system_is_told_and_loses_nothing)
{
    struct temp_path mounted = temp_new();
    if (!mount_small(mounted.text)) {
        fprintf(stderr, "not allowed to mount: a_full_file_system is skipped\n");
        return;
    }
    struct temp_path dir = temp_join(mounted.text, "pool");
    pa_options options;
    pa_options_init(&options);
    pa_pool *pool = NULL;
    options.segment_size = 64u << 20;
    int r = pa_create(dir.text, &options, &pool);
    if (r == 0) { /* the segment comes later: then that is refused */
        pa_pptr root;
        CK_FAILS(pa_root(pool, 64, &root), PA_ENOSPC, dir.text);
        CK_OK(pa_close(pool));
        temp_remove(dir.text);
    } else {
        ck_assert_int_eq(r, PA_ENOSPC);
        ck_assert(sentence_is_good(dir.text));
    }
    pool = pool_make(dir.text);
    struct owners o;
    CK_OK(owners_open(&o, pool, 60000));
    size_t n = 0;
    while ((r = pa_allocate(pool, owners_at(&o, n), 400)) == 0) {
        block_fill(pa_direct(pool, *owners_at(&o, n)), 400, n);
        n++;
    }
    EXPECT(r == PA_ENOSPC, "%s: %s", pa_strerror(r), pa_errormsg());
    ck_assert(sentence_is_good(dir.text));
    ck_assert_uint_gt(n, 8000);
    owners_verify(&o);
    for (size_t i = 0; i < n; i++)
        ck_assert(block_is(pa_direct(pool, *owners_at(&o, i)), 400, i));
    CK_OK(pa_deallocate(pool, owners_at(&o, 10)));
    CK_OK(pa_allocate(pool, owners_at(&o, 10), 400));
    pool = owners_reopen(&o, dir.text);
    CK_OK(owners_free_all(&o));
    CK_OK(pa_allocate(pool, owners_at(&o, 0), 400));
    owners_verify(&o);
    pool_finish(pool, dir.text);
    umount(mounted.text);
}
END_TEST

START_TEST(running_out_of_file_descriptors_is_told)
{
    struct fixture f;
    fixture_make(&f);
    fixture_close(&f);
    struct rlimit old, limit;
    getrlimit(RLIMIT_NOFILE, &old);
    bool opened = false;
    for (rlim_t n = 3; n < 40 && !opened; n++) {
        limit = (struct rlimit){n, old.rlim_max};
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
        sentence_forget();
        int r = pa_open(f.dir.text, NULL, &f.pool);
        bool good = sentence_is_good(NULL);
        setrlimit(RLIMIT_NOFILE, &old);
        opened = r == 0;
        if (!opened)
            EXPECT(good && (r == PA_EIO || r == PA_ENOMEM), "%s: %s", pa_strerror(r), pa_errormsg());
    }
    EXPECT(opened, "an open pool needs more than 40 descriptors");
    CK_OK(owners_open(&f.o, f.pool, OWNERS));
    fixture_finish(&f);
}
END_TEST

START_TEST(a_limited_address_space_is_told_or_enough)
{
#if defined(__SANITIZE_ADDRESS__)
    return; /* it needs more than that itself */
#endif
    struct fixture f;
    fixture_make(&f);
    fixture_close(&f);
    pid_t child = fork();
    if (child == 0) {
        struct rlimit limit = {64u << 20, 64u << 20};
        setrlimit(RLIMIT_AS, &limit);
        sentence_forget();
        pa_pool *pool;
        int r = pa_open(f.dir.text, NULL, &pool);
        if (r == 0)
            _exit(pa_close(pool) == 0 ? 0 : 3);
        _exit(r == PA_ENOMEM && sentence_is_good(f.dir.text) ? 0 : 4);
    }
    int status;
    waitpid(child, &status, 0);
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %#x", (unsigned)status);
    fixture_reopen(&f);
    fixture_finish(&f);
}
END_TEST

/* --- integers at their extremes, with right checksums ------------------------------------------------------------------------- */

static const uint64_t extremes[] = {0,          1,         2,          INT32_MAX,      1ull << 31, UINT32_MAX - 1,
                                    UINT32_MAX, INT64_MAX, 1ull << 63, UINT64_MAX - 1, UINT64_MAX};
#define EXTREMES (sizeof extremes / sizeof *extremes)

/* One integer of a struct. */
struct integer {
    size_t offset, bytes;
};
#define INTEGER(type, field)                                                                                           \
    {                                                                                                                  \
        offsetof(struct type, field), sizeof(((struct type *)NULL)->field)                                             \
    }

static void used_without_a_crash(const char *dir)
{
    pa_pool *pool = NULL;
    pa_stats stats;
    struct owners o;
    uint64_t released;
    if (pa_open(dir, NULL, &pool) != 0)
        return;
    (void)pa_get_stats(pool, &stats);
    if (owners_open(&o, pool, OWNERS) == 0) {
        (void)pa_allocate(pool, owners_at(&o, 0), 64);
        (void)pa_allocate(pool, owners_at(&o, 2), 100000);
        (void)pa_deallocate(pool, owners_at(&o, 1));
    }
    (void)pa_defragment(pool, UINT64_MAX, &released);
    CK_OK(pa_close(pool));
}

/* Checked, opened, used: an error that fits, or none; never a crash. Then the pool is as it was again. */
static void stands_it(struct damage *d)
{
    sentence_forget();
    int code = pa_check(d->f.dir.text, NULL);
    EXPECT(code == 0 || code == PA_ECORRUPT || code == PA_EVERSION || code == PA_ENOMEM || code == PA_ENOTSUP, "%s: %s",
           pa_strerror(code), pa_errormsg());
    used_without_a_crash(d->f.dir.text);
    temp_remove(d->f.dir.text);
    temp_copy_dir(d->copy.text, d->f.dir.text);
}

static void seal_superblock(void *data)
{
    struct pm_superblock *s = data;
    s->checksum = XXH3_64bits(s, offsetof(struct pm_superblock, checksum));
}

static void seal_header(void *data)
{
    struct pm_segment_header *h = data;
    h->checksum = XXH3_64bits(h, offsetof(struct pm_segment_header, checksum));
}

static void seal_entry(void *data)
{
    struct pm_lane_entry *e = data;
    e->checksum = XXH3_64bits(e, offsetof(struct pm_lane_entry, checksum));
}

static void seal_root(void *data)
{
    struct pm_root *root = data;
    root->check = superblock_root_check(root);
}

static void extremes_at(struct damage *d, const char *name, uint64_t offset, const struct integer *integers, size_t n,
                        void (*seal)(void *data))
{
    struct temp_path file = damage_file(d, name), good = good_file(d, name);
    size_t size;
    char *data = temp_read_file(good.text, &size);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < EXTREMES; k++) {
            _Alignas(64) char unit[192];
            memcpy(unit, data + offset, sizeof unit);
            memcpy(unit + integers[i].offset, &extremes[k], integers[i].bytes);
            seal(unit);
            temp_write_at(file.text, offset, unit, sizeof unit);
            stands_it(d);
        }
    free(data);
}

START_TEST(integers_at_their_extremes_do_not_crash)
{
    static const struct integer superblock[] =
        {INTEGER(pm_superblock, version),    INTEGER(pm_superblock, guarantee),    INTEGER(pm_superblock, segment_size),
         INTEGER(pm_superblock, file_bytes), INTEGER(pm_superblock, table_offset), INTEGER(pm_superblock, slots),
         INTEGER(pm_superblock, lanes),      INTEGER(pm_superblock, lane_entries), INTEGER(pm_superblock, flags),
         INTEGER(pm_superblock, max_size)};
    static const struct integer header[] = {INTEGER(pm_segment_header, version), INTEGER(pm_segment_header, slot),
                                            INTEGER(pm_segment_header, segment_size),
                                            INTEGER(pm_segment_header, file_bytes), INTEGER(pm_segment_header, born)};
    static const struct integer entry[] = {INTEGER(pm_lane_entry, lsn),         INTEGER(pm_lane_entry, op),
                                           INTEGER(pm_lane_entry, class_index), INTEGER(pm_lane_entry, flags),
                                           INTEGER(pm_lane_entry, changes),     INTEGER(pm_lane_entry, staging),
                                           INTEGER(pm_lane_entry, zero),        INTEGER(pm_lane_entry, block),
                                           INTEGER(pm_lane_entry, dst)};
    static const struct integer root[] = {INTEGER(pm_root, root.segment), INTEGER(pm_root, root.offset),
                                          INTEGER(pm_root, size)};
    struct damage d;
    damage_begin(&d);
    extremes_at(&d, "pool.pa", 0, superblock, sizeof superblock / sizeof *superblock, seal_superblock);
    extremes_at(&d, "pool.pa", POOL_ROOT_OFFSET, root, sizeof root / sizeof *root, seal_root);
    extremes_at(&d, "pool.pa", POOL_LANES_OFFSET, entry, sizeof entry / sizeof *entry, seal_entry);
    extremes_at(&d, d.segments[0], 0, header, sizeof header / sizeof *header, seal_header);
    damage_end(&d);
}
END_TEST

/* --- a running pool whose files go away ------------------------------------------------------------------------------------------ */

START_TEST(files_that_are_unlinked_under_a_running_pool_cost_an_error_at_most)
{
    struct fixture f;
    fixture_make(&f);
    char names[64][64];
    size_t n = temp_list(f.dir.text, "", names, 64);
    temp_remove(f.dir.text); /* the files and the directory */
    ck_assert_uint_gt(n, 1);
    int code = 0;
    for (size_t i = 0; i < OWNERS; i += 2) {
        sentence_forget();
        code = pa_allocate(f.pool, owners_at(&f.o, i), 16384);
        EXPECT(code == 0 || ((code == PA_ENOENT || code == PA_EIO) && sentence_is_good(f.dir.text)), "%s: %s",
               pa_strerror(code), pa_errormsg());
    }
    EXPECT(code != 0, "a new segment was made in a directory that is gone");
    CK_FAILS(pa_allocate(f.pool, owners_at(&f.o, 598), 40u << 20), code, f.dir.text);
    for (size_t i = 0; i < OWNERS; i++)
        CK_OK(pa_deallocate(f.pool, owners_at(&f.o, i)));
    pa_stats stats;
    uint64_t released;
    CK_FAILS(pa_get_stats(f.pool, &stats), PA_ENOENT, f.dir.text);
    code = pa_defragment(f.pool, UINT64_MAX, &released);
    EXPECT(code == 0 || code == PA_ENOENT, "%s: %s", pa_strerror(code), pa_errormsg());
    CK_OK(pa_close(f.pool));
    ck_assert_int_eq(pa_check(f.dir.text, NULL), PA_ENOENT);
}
END_TEST

/* --- directories ------------------------------------------------------------------------------------------------------------------- */

START_TEST(the_directory_may_be_named_in_many_ways)
{
    struct fixture f;
    fixture_make(&f);
    fixture_close(&f);
    char path[8192], link[TEMP_PATH_MAX];
    snprintf(path, sizeof path, "%s///", f.dir.text);
    CK_OK(pa_check(path, NULL));
    snprintf(path, sizeof path, "%s/./../%s", f.dir.text, strrchr(f.dir.text, '/') + 1);
    CK_OK(pa_check(path, NULL));
    struct temp_path via = temp_new();
    ck_assert_int_eq(symlink(f.dir.text, via.text), 0);
    CK_OK(pa_check(via.text, NULL));
    snprintf(link, sizeof link, "%s", via.text);
    ck_assert_int_eq(unlink(link), 0);
    char *before = getcwd(NULL, 0);
    ck_assert_int_eq(chdir(f.dir.text), 0);
    CK_OK(pa_check(".", NULL));
    ck_assert_int_eq(chdir(before), 0);
    free(before);
    pa_pool *pool;
    CK_FAILS(pa_open("", NULL, &pool), PA_EINVAL, NULL);
    memset(path, 'x', sizeof path);
    path[sizeof path - 1] = '\0';
    sentence_forget();
    int code = pa_open(path, NULL, &pool);
    EXPECT(code != 0 && sentence_is_good(NULL), "a path of 8191 bytes: %s", pa_strerror(code));
    struct temp_path base = temp_new();
    temp_make_dir(base.text);
    memset(path, 'n', sizeof path);
    snprintf(path, sizeof path, "%s/", base.text);
    size_t length = strlen(path);
    memset(path + length, 'n', 255);
    path[length + 255] = '\0';
    pa_options o;
    pa_options_init(&o);
    o.segment_size = SEGMENT_SIZE;
    CK_OK(pa_create(path, &o, &pool));
    CK_OK(pa_close(pool));
    CK_OK(pa_check(path, NULL));
    fixture_reopen(&f);
    fixture_finish(&f);
}
END_TEST

START_TEST(devices_sockets_and_hard_links_are_told_or_harmless)
{
    struct damage d;
    damage_begin(&d);
    const char *names[] = {"pool.pa", d.segments[0]};
    for (size_t i = 0; i < 2; i++) {
        struct temp_path file = damage_file(&d, names[i]), good = good_file(&d, names[i]);
        pa_pool *pool;
        temp_remove(file.text);
        if (mknod(file.text, S_IFCHR | 0600, (1u << 8) | 3) == 0) { /* the null device, if we may */
            CK_FAILS(pa_open(d.f.dir.text, NULL, &pool), pa_check(d.f.dir.text, NULL), names[i]);
            temp_remove(file.text);
        }
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        ck_assert_uint_lt(strlen(file.text), sizeof address.sun_path);
        memcpy(address.sun_path, file.text, strlen(file.text));
        ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
        CK_FAILS(pa_open(d.f.dir.text, NULL, &pool), PA_ECORRUPT, names[i]);
        close(fd);
        temp_remove(file.text);
        temp_copy_file(good.text, file.text);
        struct temp_path other = temp_new();
        ck_assert_int_eq(link(file.text, other.text), 0); /* a second name is nobody's business */
        CK_OK(pa_check(d.f.dir.text, NULL));
        temp_remove(other.text);
    }
    damage_end(&d);
}
END_TEST

static void add(Suite *s)
{
    ADD(s, dst_outside_the_pool_is_refused, 20);
    ADD(s, dst_in_the_pools_own_metadata_is_refused, 20);
    ADD(s, dst_in_the_address_range_but_in_no_file_is_refused, 20);
    ADD(s, an_unaligned_dst_is_refused, 20);
    ADD(s, a_dst_that_is_not_null_is_refused, 20);
    ADD(s, impossible_sizes_are_refused, 20);
    ADD(s, freeing_twice_is_refused, 20);
    ADD(s, pointers_into_a_blocks_middle_are_refused, 30);
    ADD(s, made_up_pointers_are_refused, 30);
    ADD(s, the_root_block_cannot_be_freed, 20);
    ADD(s, translations_of_made_up_pointers_do_not_crash, 20);
    ADD(s, impossible_options_are_refused, 20);
    ADD(s, power_failure_durability_is_refused_on_tmpfs, 20);
    ADD(s, missing_arguments_are_refused, 20);
    ADD(s, another_layout_is_refused, 20);
    ADD(s, an_empty_directory_holds_no_pool, 20);
    ADD(s, a_file_in_the_directorys_place_is_refused, 20);
    ADD(s, a_missing_pool_file_is_told_and_create_does_not_run_over_the_rest, 20);
    ADD(s, a_missing_segment_file_is_told, 20);
    ADD(s, truncated_and_grown_files_are_told, 30);
    ADD(s, files_of_another_pool_are_told, 20);
    ADD(s, files_of_the_pool_that_changed_places_are_told, 20);
    ADD(s, things_that_are_no_files_are_told, 20);
    ADD(s, files_full_of_nonsense_are_told, 30);
    ADD(s, strange_files_beside_the_pool_are_left_alone, 20);
    ADD(s, a_pool_of_another_version_is_told, 20);
    ADD(s, a_forged_superblock_is_told, 20);
    ADD(s, integers_at_their_extremes_do_not_crash, 60);
    ADD(s, files_that_are_unlinked_under_a_running_pool_cost_an_error_at_most, 20);
    ADD(s, the_directory_may_be_named_in_many_ways, 20);
    ADD(s, devices_sockets_and_hard_links_are_told_or_harmless, 20);
    ADD(s, missing_permission_is_told, 20);
    ADD(s, a_read_only_directory_cannot_grow_but_loses_nothing, 20);
    ADD(s, a_second_handle_in_the_process_is_refused, 20);
    ADD(s, another_process_is_refused_until_the_first_ends, 20);
    ADD(s, of_many_processes_that_create_one_pool_one_wins, 30);
    ADD(s, wait_lock_waits_for_the_other_process, 20);
    ADD(s, readers_share_a_pool_and_shut_writers_out, 20);
    ADD(s, a_read_only_pool_is_a_snapshot, 20);
    ADD(s, a_read_only_pool_without_a_root_has_none, 20);
    ADD(s, a_full_file_system_is_told_and_loses_nothing, 30);
    ADD(s, running_out_of_file_descriptors_is_told, 20);
    ADD(s, a_limited_address_space_is_told_or_enough, 20);
}

int main(int argc, char **argv)
{
    return run_main(argc, argv, "bad_input", add);
}
