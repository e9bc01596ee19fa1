/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_reallocate.c -- pa_reallocate over all allocators, and what a crash inside it or inside a huge allocation or free leaves.
 *
 * The crash tests copy the pool's directory after every event that changes it, in program order: each copy is the state of a
 * process that was killed there. (What a power failure may reorder is the crash explorer's part.)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pool/pool.h"
#include "tests/support/owners.h"
#include "tests/support/random.h"
#include "tests/support/run.h"
#include "tests/support/temp.h"

#define MIB (1u << 20)

START_TEST(contents_survive_every_change_of_size)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_pool *pool = owners_make(&o, dir.text, 16);
    static const size_t sizes[] = {1,     16,     17,     1000,    1024,    16384,  16385,
                                   50000, 400000, 700000, 1048576, 3000000, 5000000};
    size_t n = sizeof sizes / sizeof *sizes;
    for (size_t from = 0; from < n; from++)
        for (size_t to = 0; to < n; to++) {
            pa_pptr *dst = owners_at(&o, 3);
            CK_OK(pa_reallocate(pool, dst, sizes[from]));
            block_fill(pa_direct(pool, *dst), sizes[from], from);
            CK_OK(pa_reallocate(pool, dst, sizes[to]));
            size_t kept = (sizes[from] < sizes[to] ? sizes[from] : sizes[to]) & ~(size_t)7;
            EXPECT(block_is(pa_direct(pool, *dst), kept, from), "contents from %zu to %zu", sizes[from], sizes[to]);
            EXPECT(pa_usable_size(pool, *dst) >= sizes[to], "size from %zu to %zu", sizes[from], sizes[to]);
            CK_OK(pa_deallocate(pool, dst));
        }
    owners_verify(&o);
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(a_null_pointer_is_allocated_and_size_zero_refused)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_pool *pool = owners_make(&o, dir.text, 16);
    pa_pptr *dst = owners_at(&o, 0);
    CK_FAILS(pa_reallocate(pool, dst, 0), PA_EINVAL, NULL);
    CK_OK(pa_reallocate(pool, dst, 100));
    ck_assert(!pa_is_null(*dst));
    pa_pptr p = *dst;
    CK_FAILS(pa_reallocate(pool, dst, 0), PA_EINVAL, NULL);
    CK_FAILS(pa_reallocate(pool, NULL, 100), PA_EINVAL, NULL);
    CK_FAILS(pa_reallocate(pool, (pa_pptr *)&p, 100), PA_EINVAL, NULL);
    ck_assert_mem_eq(dst, &p, sizeof p);
    owners_verify(&o);
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(an_owner_inside_its_own_block_is_refused)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_pool *pool = owners_make(&o, dir.text, 16);
    static const size_t sizes[] = {1000, 100000, 3000000};
    for (size_t i = 0; i < 3; i++) {
        pa_pptr *dst = owners_at(&o, i);
        CK_OK(pa_allocate(pool, dst, sizes[i]));
        pa_pptr *inside = pa_direct(pool, *dst);
        media_write(pool_media(pool), inside, dst, sizeof *dst);
        CK_FAILS(pa_reallocate(pool, inside, 2 * sizes[i]), PA_EINVAL, "lies in the block");
    }
    owners_verify(&o);
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(the_root_block_is_refused_through_a_copy_of_its_pointer)
{
    struct temp_path dir = temp_new();
    pa_pool *pool = pool_make(dir.text);
    struct owners o;
    pa_pptr root;
    CK_OK(owners_open(&o, pool, 16));
    CK_OK(pa_root(pool, 16, &root));
    pa_pptr *copy = owners_at(&o, 0);
    media_write(pool_media(pool), copy, &root, sizeof root);
    CK_FAILS(pa_reallocate(pool, copy, 100000), PA_EINVAL, "root block");
    CK_FAILS(pa_reallocate(pool, copy, 16), PA_EINVAL, "root block");
    CK_FAILS(pa_deallocate(pool, copy), PA_EINVAL, "root block");
    ck_assert_mem_eq(copy, &root, sizeof root);
    static const pa_pptr null;
    media_write(pool_media(pool), copy, &null, sizeof null);
    owners_verify(&o);
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(a_read_only_open_does_not_count_what_is_staged)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_pool *pool = owners_make(&o, dir.text, 16);
    static const size_t sizes[] = {1000, 100000, 3000000};
    for (size_t i = 0; i < 3; i++) {
        CK_OK(pa_allocate(pool, owners_at(&o, i), sizes[i]));
        CK_OK(pool_allocate(pool, &manager_core_line(&pool->manager, (uint32_t)i)->staging, sizes[i]));
    }
    struct temp_path killed = temp_new();
    temp_copy_dir(dir.text, killed.text);
    uint64_t hash = temp_hash_dir(killed.text);
    pool_check_sound(killed.text);
    pa_options options;
    pa_options_init(&options);
    options.flags = PA_READ_ONLY;
    struct owners seen;
    pa_pool *snapshot;
    CK_OK(pa_open(killed.text, &options, &snapshot));
    CK_OK(owners_open(&seen, snapshot, 16));
    owners_verify(&seen);
    CK_OK(pa_close(snapshot));
    ck_assert_uint_eq(temp_hash_dir(killed.text), hash);
    snapshot = pool_reopen(killed.text);
    CK_OK(owners_open(&seen, snapshot, 16));
    owners_verify(&seen);
    pool_finish(snapshot, killed.text);
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(a_size_of_the_same_class_changes_nothing)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_pool *pool = owners_make(&o, dir.text, 16);
    pa_pptr *dst = owners_at(&o, 0);
    CK_OK(pa_allocate(pool, dst, 1000));
    pa_pptr before = *dst;
    CK_OK(pa_reallocate(pool, dst, pa_usable_size(pool, *dst)));
    ck_assert_mem_eq(dst, &before, sizeof before);
    CK_OK(pa_reallocate(pool, dst, 1001));
    ck_assert_mem_eq(dst, &before, sizeof before);
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(a_huge_block_grows_in_place_while_the_addresses_after_it_are_free)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_pool *pool = owners_make(&o, dir.text, 16);
    pa_pptr *a = owners_at(&o, 0), *b = owners_at(&o, 1);
    CK_OK(pa_allocate(pool, a, 1500000));
    pa_pptr before = *a;
    size_t size = pa_usable_size(pool, *a);
    block_fill(pa_direct(pool, *a), size, 9);
    for (size_t to = 1600000; to < 9000000; to += 777777) {
        CK_OK(pa_reallocate(pool, a, to));
        ck_assert_mem_eq(a, &before, sizeof before);
        ck_assert_uint_ge(pa_usable_size(pool, *a), to);
        ck_assert(block_is(pa_direct(pool, *a), size, 9));
        size = pa_usable_size(pool, *a);
        block_fill(pa_direct(pool, *a), size, 9);
        pa_persist(pool, pa_direct(pool, *a), size);
        owners_verify(&o);
    }
    pool = owners_reopen(&o, dir.text);
    a = owners_at(&o, 0), b = owners_at(&o, 1);
    ck_assert_uint_eq(pa_usable_size(pool, *a), size);
    ck_assert(block_is(pa_direct(pool, *a), size, 9));
    CK_OK(pa_allocate(pool, b, 2 * MIB)); /* in the way */
    CK_OK(pa_reallocate(pool, a, size + 3 * MIB));
    ck_assert(memcmp(a, &before, sizeof before) != 0);
    ck_assert(block_is(pa_direct(pool, *a), size, 9));
    owners_verify(&o);
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(a_block_that_cannot_move_stays_as_it_is)
{
    struct temp_path dir = temp_new();
    pa_pool *pool = pool_make_limited(dir.text, 10 * MIB);
    struct owners o;
    CK_OK(owners_open(&o, pool, 16));
    static const size_t sizes[] = {4000, 400000, 3000000};
    for (size_t i = 0; i < 3; i++) {
        CK_OK(pa_allocate(pool, owners_at(&o, i), sizes[i]));
        block_fill(pa_direct(pool, *owners_at(&o, i)), sizes[i], i);
    }
    for (size_t i = 0; i < 3; i++) {
        pa_pptr before = *owners_at(&o, i);
        CK_FAILS(pa_reallocate(pool, owners_at(&o, i), 9 * MIB), PA_ENOSPC, NULL);
        ck_assert_mem_eq(owners_at(&o, i), &before, sizeof before);
        ck_assert(block_is(pa_direct(pool, before), sizes[i], i));
        owners_verify(&o);
    }
    pool_finish(pool, dir.text);
}
END_TEST

/* --- crashes -------------------------------------------------------------------------------------------------------------- */

struct victim {
    struct temp_path dir, copy;
    pa_pool *pool;
    struct media_recorder recorder;
    struct file_hooks hooks;
    bool armed;
    unsigned states;
    size_t old_size, new_size; /* of owner 0 before and after the operation; 0 = null */
};

/* The state is judged in the middle of an operation: locks that the thread holds are another pool's. */
static unsigned ranks_set(unsigned ranks)
{
#ifndef NDEBUG
    unsigned before = lock_ranks_held;
    lock_ranks_held = ranks;
    return before;
#else
    return ranks;
#endif
}

/* One state: sound, whole, and owner 0 as before or as after. */
static void judge(struct victim *v, const char *site)
{
    if (!v->armed)
        return;
    v->armed = false;
    v->states++;
    unsigned ranks = ranks_set(0);
    temp_copy_dir(v->dir.text, v->copy.text);
    char *report = NULL;
    int code = pa_check(v->copy.text, &report);
    EXPECT(code == 0, "state %u after %s: pa_check: %s", v->states, site, report);
    free(report);
    for (unsigned again = 0; again < 2; again++) {
        pa_pool *pool = NULL;
        struct owners o;
        char message[256];
        code = pa_open(v->copy.text, NULL, &pool);
        EXPECT(code == 0, "state %u after %s: pa_open: %s", v->states, site, pa_errormsg());
        CK_OK(owners_open(&o, pool, 16));
        EXPECT(owners_are_whole(&o, message, sizeof message), "state %u after %s: %s", v->states, site, message);
        pa_pptr p = *owners_at(&o, 0);
        size_t usable = pa_usable_size(pool, p);
        EXPECT(pa_is_null(p)
                   ? v->old_size == 0 || v->new_size == 0
                   : (v->old_size != 0 && usable >= v->old_size) || (v->new_size != 0 && usable >= v->new_size),
               "state %u after %s: owner has %zu bytes", v->states, site, usable);
        size_t kept = v->old_size < v->new_size ? v->old_size : v->new_size;
        EXPECT(pa_is_null(p) || block_is(pa_direct(pool, p), kept & ~(size_t)7, 5), "state %u after %s: contents",
               v->states, site);
        pa_stats s;
        char names[64][64];
        CK_OK(pa_get_stats(pool, &s));
        EXPECT(temp_list(v->copy.text, "huge-", names, 64) == s.huge_files, "state %u after %s: stray file", v->states,
               site);
        if (again == 0) /* what the crash left of the slots serves again */
            CK_OK(pa_allocate(pool, owners_at(&o, 5), 2 * MIB));
        else
            CK_OK(owners_free_all(&o));
        CK_OK(pa_close(pool));
        pool_check_sound(v->copy.text);
    }
    temp_remove(v->copy.text);
    ranks_set(ranks);
    v->armed = true;
}

static void on_event(void *context, enum media_event event, const void *address, size_t size, const char *site)
{
    (void)address, (void)size;
    if (event == MEDIA_EVENT_STORE || event == MEDIA_EVENT_STORE_NT)
        judge(context, site);
}

static void on_file(void *context, const struct dir *d, enum file_op op, const char *name, uint64_t offset,
                    uint64_t size, void *address, const char *site)
{
    (void)d, (void)name, (void)offset, (void)size, (void)address;
    if (op == FILE_OP_CREATE || op == FILE_OP_ALLOCATE || op == FILE_OP_PUNCH || op == FILE_OP_UNLINK)
        judge(context, site);
}

/* Owner 0 goes from a block of one size to one of another, 0 = none, with something of blocking bytes after it. */
static unsigned crash_everywhere(size_t from, size_t blocking, size_t to)
{
    struct victim v = {.dir = temp_new(), .old_size = from, .new_size = to};
    v.copy = temp_new();
    v.recorder = (struct media_recorder){.context = &v, .event = on_event};
    v.hooks = (struct file_hooks){.context = &v, .after = on_file};
    struct pool_params params = {.lanes = 2, .lane_entries = 16, .recorder = &v.recorder, .hooks = &v.hooks};
    pa_options options;
    pa_options_init(&options);
    options.flags = PA_NO_BACKGROUND;
    options.segment_size = MIB;
    options.cores = 1;
    struct owners o;
    CK_OK(pool_create_ex(v.dir.text, &options, &params, &v.pool));
    CK_OK(owners_open(&o, v.pool, 16));
    pa_pptr *dst = owners_at(&o, 0);
    if (from != 0) {
        CK_OK(pa_allocate(v.pool, dst, from));
        block_fill(pa_direct(v.pool, *dst), from, 5);
    }
    if (blocking != 0)
        CK_OK(pa_allocate(v.pool, owners_at(&o, 1), blocking));
    v.armed = true;
    CK_OK(to == 0     ? pa_deallocate(v.pool, dst)
          : from == 0 ? pa_allocate(v.pool, dst, to)
                      : pa_reallocate(v.pool, dst, to));
    v.armed = false;
    owners_verify(&o);
    pool_finish(v.pool, v.dir.text);
    temp_remove(v.dir.text);
    return v.states;
}

START_TEST(a_crash_in_a_huge_allocation_or_free_is_all_or_nothing)
{
    ck_assert_uint_gt(crash_everywhere(0, 0, 2 * MIB), 8);
    ck_assert_uint_gt(crash_everywhere(0, 3 * MIB, 600000), 8);
    ck_assert_uint_gt(crash_everywhere(2 * MIB, 0, 0), 6);
    ck_assert_uint_gt(crash_everywhere(2 * MIB, 3 * MIB, 0), 6);
}
END_TEST

START_TEST(a_crash_in_a_reallocation_keeps_the_old_or_the_new)
{
    static const size_t cases[][3] = {
        {2 * MIB, 0, 5 * MIB},                /* huge, in place, more slots */
        {2 * MIB, 0, 2 * MIB + 99999},        /* in place, same slots */
        {2 * MIB, 2 * MIB, 3 * MIB + 100000}, /* moves */
        {3 * MIB, 0, 100000},                 /* to big */
        {3 * MIB, 0, 1000},                   /* to small */
        {1000, 0, 3 * MIB},
        {200000, 0, 2 * MIB},
        {200000, 0, 1000},
        {1000, 0, 200000},
        {1000, 0, 3000},
        {200000, 0, 300000},
        {200000, 100000, 400000},
        {300000, 0, 100000},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        EXPECT(crash_everywhere(cases[i][0], cases[i][1], cases[i][2]) > 0, "case %zu", i);
}
END_TEST

static void add(Suite *s)
{
    ADD(s, contents_survive_every_change_of_size, 60);
    ADD(s, a_null_pointer_is_allocated_and_size_zero_refused, 60);
    ADD(s, an_owner_inside_its_own_block_is_refused, 60);
    ADD(s, the_root_block_is_refused_through_a_copy_of_its_pointer, 60);
    ADD(s, a_read_only_open_does_not_count_what_is_staged, 60);
    ADD(s, a_size_of_the_same_class_changes_nothing, 60);
    ADD(s, a_huge_block_grows_in_place_while_the_addresses_after_it_are_free, 60);
    ADD(s, a_block_that_cannot_move_stays_as_it_is, 60);
    ADD(s, a_crash_in_a_huge_allocation_or_free_is_all_or_nothing, 120);
    ADD(s, a_crash_in_a_reallocation_keeps_the_old_or_the_new, 300);
}

int main(int argc, char **argv)
{
    return run_main(argc, argv, "reallocate", add);
}
