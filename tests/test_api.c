/* SPDX-License-Identifier: BSD-3-Clause */
/* test_api.c -- what include/pallocator.h promises, call by call. */
#include <pthread.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/support/owners.h"
#include "tests/support/random.h"
#include "tests/support/run.h"
#include "tests/support/temp.h"

#define SMALL_MAX 16384u

START_TEST(options_init_sets_every_default)
{
    pa_options o;
    memset(&o, 0xff, sizeof o);
    pa_options_init(&o);
    ck_assert_ptr_null(o.layout);
    ck_assert_uint_eq(o.segment_size, 0);
    ck_assert_uint_eq(o.max_size, 0);
    ck_assert_int_eq(o.durability, PA_DURABILITY_AUTO);
    ck_assert_int_eq(o.guarantee, PA_GUARANTEE_STRICT);
    ck_assert_uint_eq(o.cores, 0);
    ck_assert_uint_eq(o.flags, 0);
}
END_TEST

START_TEST(every_error_has_a_text_of_its_own)
{
    for (int e = 0; e >= PA_EIO; e--) {
        ck_assert_uint_gt(strlen(pa_strerror(e)), 3);
        for (int f = e + 1; f <= 0; f++)
            ck_assert_str_ne(pa_strerror(e), pa_strerror(f));
    }
    ck_assert_ptr_nonnull(pa_strerror(1));
    ck_assert_ptr_nonnull(pa_strerror(-1000));
}
END_TEST

static void *other_thread(void *arg)
{
    char *ret = arg;
    strcpy(ret, pa_errormsg());
    return NULL;
}

START_TEST(the_sentence_belongs_to_the_thread)
{
    struct temp_path dir = temp_new();
    pa_pool *pool = NULL;
    CK_FAILS(pa_open(dir.text, NULL, &pool), PA_ENOENT, dir.text);
    char other[512] = "untouched";
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, other_thread, other), 0);
    pthread_join(thread, NULL);
    ck_assert_str_eq(other, "");
    ck_assert(sentence_is_good(dir.text));
}
END_TEST

/* expr succeeds, and the sentence of an earlier failure stays. */
#define CK_OK_SILENT(expr)                                                                                             \
    do {                                                                                                               \
        CK_OK(expr);                                                                                                   \
        EXPECT(strcmp(pa_errormsg(), sentence) == 0, "%s succeeds and leaves the sentence \"%s\"", #expr,              \
               pa_errormsg());                                                                                         \
    } while (0)

START_TEST(calls_that_succeed_leave_the_sentence)
{
    const size_t sizes[] = {16, 64, 1000, 16384, 20000, 300000, 900000, 3u << 20};
    enum { N = sizeof sizes / sizeof *sizes };
    struct temp_path dir = temp_new(), none = temp_new();
    pa_options options;
    pa_options_init(&options);
    options.segment_size = 1u << 20;
    options.max_size = 24u << 20;
    pa_pool *pool = NULL;
    char sentence[512], *report;
    CK_FAILS(pa_open(none.text, NULL, &pool), PA_ENOENT, none.text);
    strcpy(sentence, pa_errormsg());
    CK_OK_SILENT(pa_create(dir.text, &options, &pool));
    for (unsigned round = 0; round < 3; round++) {
        pa_pptr root;
        CK_OK_SILENT(pa_root(pool, 65536, &root));
        pa_pptr *owners = pa_direct(pool, root);
        for (unsigned i = 0; i < 10 * N; i++) {
            if (pa_is_null(owners[i % 97]) && pa_allocate(pool, &owners[i % 97], sizes[i % N]) == 0)
                ck_assert_str_eq(pa_errormsg(), sentence);
            strcpy(sentence, pa_errormsg()); /* the pool may be full */
            if (!pa_is_null(owners[i * 7 % 97]) && pa_reallocate(pool, &owners[i * 7 % 97], sizes[i / N % N]) == 0)
                ck_assert_str_eq(pa_errormsg(), sentence);
            strcpy(sentence, pa_errormsg());
            CK_OK_SILENT(pa_deallocate(pool, &owners[i * 5 % 97]));
        }
        pa_stats stats;
        pa_info info;
        CK_OK_SILENT(pa_get_stats(pool, &stats));
        CK_OK_SILENT(pa_get_info(pool, &info));
        CK_OK_SILENT(pa_defragment(pool, UINT64_MAX, NULL));
        CK_OK_SILENT(pa_close(pool));
        CK_OK_SILENT(pa_check(dir.text, &report));
        free(report);
        CK_OK_SILENT(pa_read_info(dir.text, &info));
        CK_OK_SILENT(pa_open(dir.text, NULL, &pool));
    }
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(closing_null_does_nothing_and_null_pointers_are_null)
{
    CK_OK(pa_close(NULL));
    ck_assert(pa_is_null(PA_NULL));
    ck_assert(!pa_is_null((pa_pptr){0, 64}));
    ck_assert(!pa_is_null((pa_pptr){1, 0}));
    ck_assert_uint_eq(sizeof(pa_pptr), 16);
    ck_assert_uint_eq(alignof(pa_pptr), 16);
}
END_TEST

START_TEST(create_makes_the_directory_and_open_finds_the_pool)
{
    struct temp_path dir = temp_new();
    pa_pool *pool = NULL;
    CK_OK(pa_create(dir.text, NULL, &pool));
    CK_OK(pa_close(pool));
    pool_check_sound(dir.text);
    pool = pool_reopen(dir.text);
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(create_takes_an_empty_directory_and_refuses_one_with_a_pool)
{
    struct temp_path dir = temp_new();
    temp_make_dir(dir.text);
    pa_pool *pool = pool_make(dir.text), *second = (pa_pool *)&dir;
    CK_OK(pa_close(pool));
    uint64_t before = temp_hash_dir(dir.text);
    CK_FAILS(pa_create(dir.text, NULL, &second), PA_EEXIST, dir.text);
    ck_assert_ptr_eq(second, &dir);
    ck_assert_uint_eq(temp_hash_dir(dir.text), before);
    pool_check_sound(dir.text);
}
END_TEST

START_TEST(root_is_zeroed_at_first_and_then_the_same_block)
{
    struct temp_path dir = temp_new();
    pa_pool *pool = pool_make(dir.text);
    pa_pptr root, again;
    CK_OK(pa_root(pool, 1000, &root));
    unsigned char *bytes = pa_direct(pool, root);
    for (size_t i = 0; i < 1000; i++)
        ck_assert_uint_eq(bytes[i], 0);
    ck_assert_uint_ge(pa_usable_size(pool, root), 1000);
    bytes[999] = 77;
    pa_persist(pool, bytes, 1000);
    CK_OK(pa_root(pool, 1000, &again));
    ck_assert_mem_eq(&root, &again, sizeof root);
    CK_OK(pa_root(pool, 1, &again));
    ck_assert_mem_eq(&root, &again, sizeof root);
    CK_OK(pa_close(pool));
    pool = pool_reopen(dir.text);
    CK_OK(pa_root(pool, 1000, &again));
    ck_assert_mem_eq(&root, &again, sizeof root);
    ck_assert_uint_eq(((unsigned char *)pa_direct(pool, again))[999], 77);
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(root_refuses_to_grow)
{
    struct temp_path dir = temp_new();
    pa_pool *pool = pool_make(dir.text);
    pa_pptr root, untouched = {7, 7};
    CK_FAILS(pa_root(pool, 0, &untouched), PA_EINVAL, NULL);
    CK_OK(pa_root(pool, 100, &root));
    CK_FAILS(pa_root(pool, 5000, &untouched), PA_EINVAL, NULL);
    ck_assert_uint_eq(untouched.segment, 7);
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(allocate_names_the_block_in_dst_and_deallocate_nulls_it)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_pool *pool = owners_make(&o, dir.text, 16);
    pa_pptr *dst = owners_at(&o, 3);
    CK_OK(pa_allocate(pool, dst, 100));
    ck_assert(!pa_is_null(*dst));
    ck_assert_uint_ge(pa_usable_size(pool, *dst), 100);
    block_fill(pa_direct(pool, *dst), 100, 1);
    owners_verify(&o);
    CK_OK(pa_deallocate(pool, dst));
    ck_assert(pa_is_null(*dst));
    owners_verify(&o);
    CK_OK(pa_deallocate(pool, dst));
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(blocks_of_every_size_live_side_by_side_and_survive_a_reopen)
{
    struct temp_path dir = temp_new();
    size_t n = 2200;
    struct owners o;
    pa_pool *pool = owners_make(&o, dir.text, n);
    for (size_t i = 0; i < n; i++) {
        size_t size = i < 2048 ? i + 1 : SMALL_MAX - (i - 2048) * 71;
        CK_OK(pa_allocate(pool, owners_at(&o, i), size));
        void *address = pa_direct(pool, *owners_at(&o, i));
        block_fill(address, size, i);
        pa_persist(pool, address, size);
    }
    owners_verify(&o);
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < n; i++) {
            size_t size = i < 2048 ? i + 1 : SMALL_MAX - (i - 2048) * 71;
            EXPECT(block_is(pa_direct(pool, *owners_at(&o, i)), size, i), "contents of block %zu", i);
        }
        pool = owners_reopen(&o, dir.text);
    }
    CK_OK(owners_free_all(&o));
    owners_verify(&o);
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(sizes_beyond_the_small_allocator_work_or_are_told)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_pool *pool = owners_make(&o, dir.text, 4);
    CK_OK(pa_allocate(pool, owners_at(&o, 0), SMALL_MAX));
    static const size_t sizes[] = {SMALL_MAX + 1, 100000, 700000, 3u << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        pa_pptr *dst = owners_at(&o, 1);
        sentence_forget();
        int r = pa_allocate(pool, dst, sizes[i]);
        if (r != 0) {
            ck_assert_int_eq(r, PA_ENOTSUP);
            ck_assert(sentence_is_good(NULL));
            ck_assert(pa_is_null(*dst));
            continue;
        }
        ck_assert_uint_ge(pa_usable_size(pool, *dst), sizes[i]);
        block_fill(pa_direct(pool, *dst), sizes[i], i);
        owners_verify(&o);
        ck_assert(block_is(pa_direct(pool, *dst), sizes[i], i));
        CK_OK(pa_deallocate(pool, dst));
    }
    owners_verify(&o);
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(a_block_can_own_the_next_block)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_pool *pool = owners_make(&o, dir.text, 1);
    pa_pptr *dst = owners_at(&o, 0);
    for (int i = 0; i < 1000; i++) {
        CK_OK(pa_allocate(pool, dst, 48));
        dst = pa_direct(pool, *dst);
        *dst = PA_NULL;
        pa_persist(pool, dst, sizeof *dst);
    }
    CK_OK(pa_close(pool));
    pool = pool_reopen(dir.text);
    CK_OK(owners_open(&o, pool, 1));
    struct blocks expected = {0};
    owners_add_blocks(&o, &expected);
    size_t length = 0;
    for (pa_pptr p = *owners_at(&o, 0); !pa_is_null(p); p = *(pa_pptr *)pa_direct(pool, p))
        if (length++ > 0)
            blocks_add(&expected, pa_off_of(pool, p), 48);
    ck_assert_uint_eq(length, 1000);
    char message[256];
    EXPECT(blocks_are_all(pool, &expected, message, sizeof message), "%s", message);
    blocks_free(&expected);
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(an_owner_may_be_moved_by_the_program)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_pool *pool = owners_make(&o, dir.text, 8);
    CK_OK(pa_allocate(pool, owners_at(&o, 0), 64));
    *owners_at(&o, 5) = *owners_at(&o, 0);
    *owners_at(&o, 0) = PA_NULL;
    pa_persist(pool, owners_at(&o, 0), 8 * sizeof(pa_pptr));
    CK_OK(pa_close(pool));
    pool = pool_reopen(dir.text);
    CK_OK(owners_open(&o, pool, 8));
    ck_assert(pa_is_null(*owners_at(&o, 0)));
    owners_verify(&o);
    CK_OK(pa_deallocate(pool, owners_at(&o, 5)));
    owners_verify(&o);
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(addresses_and_pointers_are_inverse)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_pool *pool = owners_make(&o, dir.text, 1024);
    for (size_t i = 0; i < 1024; i++) {
        CK_OK(pa_allocate(pool, owners_at(&o, i), 4000));
        pa_pptr p = *owners_at(&o, i);
        char *address = pa_direct(pool, p);
        ck_assert_ptr_nonnull(address);
        pa_pptr back = pa_pptr_of(pool, address);
        ck_assert_mem_eq(&back, &p, sizeof p);
        back = pa_pptr_of(pool, address + 17);
        ck_assert_uint_eq(back.segment, p.segment);
        ck_assert_uint_eq(back.offset, p.offset + 17);
        pa_off off = pa_off_of(pool, p);
        ck_assert_uint_ne(off, 0);
        back = pa_off_pptr(pool, off);
        ck_assert_mem_eq(&back, &p, sizeof p);
        ck_assert_ptr_eq(pa_off_direct(pool, off), address);
    }
    ck_assert_ptr_null(pa_direct(pool, PA_NULL));
    ck_assert_ptr_null(pa_off_direct(pool, 0));
    ck_assert_uint_eq(pa_off_of(pool, PA_NULL), 0);
    ck_assert(pa_is_null(pa_off_pptr(pool, 0)));
    ck_assert(pa_is_null(pa_pptr_of(pool, &dir)));
    ck_assert(pa_is_null(pa_pptr_of(pool, NULL)));
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(an_address_in_a_huge_block_is_counted_from_the_block)
{
    struct temp_path dir = temp_new();
    pa_pool *pool = pool_make(dir.text);
    struct owners o;
    CK_OK(owners_open(&o, pool, 8));
    for (unsigned i = 0; i < 4; i++) { /* segments of 1 MiB: the block begins in its file's first slot, or its third */
        const size_t size = (5u << 20) + i * 1000;
        CK_OK(pa_allocate_aligned(pool, owners_at(&o, i), size, i % 2 != 0 ? 2u << 20 : 16));
        pa_pptr block = *owners_at(&o, i);
        for (size_t at = 0; at < size; at += 4096) {
            pa_pptr inside = {block.segment, block.offset + at};
            pa_pptr back = pa_pptr_of(pool, (char *)pa_direct(pool, block) + at);
            ck_assert_mem_eq(&back, &inside, sizeof back);
            back = pa_off_pptr(pool, pa_off_of(pool, inside));
            ck_assert_mem_eq(&back, &inside, sizeof back);
            ck_assert_ptr_eq(pa_direct(pool, inside), (char *)pa_direct(pool, block) + at);
        }
    }
    owners_verify(&o);
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(memcpy_persist_copies_and_returns_dst)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_pool *pool = owners_make(&o, dir.text, 1);
    CK_OK(pa_allocate(pool, owners_at(&o, 0), 10000));
    char *block = pa_direct(pool, *owners_at(&o, 0)), *source = malloc(10000);
    block_fill(source, 10000, 5);
    ck_assert_ptr_eq(pa_memcpy_persist(pool, block, source, 10000), block);
    ck_assert(block_is(block, 10000, 5));
    memset(block, 0, 100);
    ck_assert_ptr_eq(pa_memcpy_persist(pool, block + 3, source + 3, 90), block + 3);
    ck_assert_mem_eq(block + 3, source + 3, 90);
    pa_memcpy_persist(pool, block, source, 0);
    pa_flush(pool, block, 0);
    pa_flush(pool, block + 1, 9000);
    pa_drain(pool);
    free(source);
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(stats_follow_what_callers_hold)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_pool *pool = owners_make(&o, dir.text, 1000);
    pa_stats before, full, after;
    CK_OK(pa_get_stats(pool, &before));
    uint64_t bytes = 0;
    for (size_t i = 0; i < 1000; i++) {
        CK_OK(pa_allocate(pool, owners_at(&o, i), 10 + i * 3));
        bytes += pa_usable_size(pool, *owners_at(&o, i));
    }
    CK_OK(pa_get_stats(pool, &full));
    ck_assert_uint_eq(full.allocated_blocks, before.allocated_blocks + 1000);
    ck_assert_uint_eq(full.allocated_bytes, before.allocated_bytes + bytes);
    ck_assert_uint_ge(full.segment_files, 2);
    ck_assert_uint_eq(full.huge_files, 0);
    char names[64][64];
    size_t files = temp_list(dir.text, "segment-", names, 64);
    ck_assert_uint_eq(full.segment_files, files);
    ck_assert_uint_ge(full.file_bytes, files << 20);
    ck_assert_uint_ge(full.resident_bytes, full.allocated_bytes);
    ck_assert_uint_le(full.largest_free_block, full.file_bytes);
    ck_assert_uint_gt(full.dram_bytes, 0);
    CK_OK(owners_free_all(&o));
    CK_OK(pa_get_stats(pool, &after));
    ck_assert_uint_eq(after.allocated_blocks, before.allocated_blocks);
    ck_assert_uint_eq(after.allocated_bytes, before.allocated_bytes);
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(the_largest_free_block_can_be_allocated_without_a_new_file)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_pool *pool = owners_make(&o, dir.text, 1);
    pa_stats before, after;
    CK_OK(pa_get_stats(pool, &before));
    size_t size = before.largest_free_block > SMALL_MAX ? SMALL_MAX : before.largest_free_block;
    ck_assert_uint_ge(size, 1);
    CK_OK(pa_allocate(pool, owners_at(&o, 0), size));
    CK_OK(pa_get_stats(pool, &after));
    ck_assert_uint_eq(after.segment_files, before.segment_files);
    pool_finish(pool, dir.text);
}
END_TEST

struct order {
    pa_pptr last;
    size_t steps;
};

static int visit_in_order(pa_pptr block, size_t usable_size, void *arg)
{
    struct order *o = arg;
    (void)usable_size;
    if (o->steps++ > 0 && block.segment == o->last.segment && block.offset <= o->last.offset)
        return 1;
    o->last = block;
    return 0;
}

START_TEST(foreach_goes_in_address_order_within_a_segment)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_pool *pool = owners_make(&o, dir.text, 3000);
    struct random r = {13};
    for (size_t i = 0; i < 3000; i++)
        CK_OK(pa_allocate(pool, owners_at(&o, i), random_size(&r, 4000)));
    struct order order = {{0, 0}, 0};
    ck_assert_int_eq(pa_foreach(pool, visit_in_order, &order), 0);
    ck_assert_uint_gt(order.steps, 3000);
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(closing_gives_everything_back)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_pool *pool = owners_make(&o, dir.text, 400);
    for (size_t i = 0; i < 400; i++)
        CK_OK(pa_allocate(pool, owners_at(&o, i), 10000));
    CK_OK(pa_close(pool));
    unsigned descriptors = process_descriptors();
    uint64_t space = process_address_space();
    for (int round = 0; round < 100; round++) {
        pool = pool_reopen(dir.text);
        CK_OK(owners_open(&o, pool, 400));
        CK_OK(pa_deallocate(pool, owners_at(&o, round)));
        CK_OK(pa_close(pool));
        pool_check_sound(dir.text);
    }
    ck_assert_uint_eq(process_descriptors(), descriptors);
    /* In MiB. libpmem2 1.12 keeps up to 4 MiB of padding, without memory, per range that it has reserved and released. */
    ck_assert_uint_lt(process_address_space(), space + 64 + 200 * 4);
}
END_TEST

struct visitor {
    pa_pool *pool;
    struct owners *owners;
    size_t seen, stop_after;
};

static int visit_and_stop(pa_pptr block, size_t usable_size, void *arg)
{
    struct visitor *v = arg;
    ck_assert(!pa_is_null(block));
    ck_assert_uint_gt(usable_size, 0);
    return ++v->seen == v->stop_after ? 42 : 0;
}

START_TEST(foreach_stops_with_the_visitors_value)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_pool *pool = owners_make(&o, dir.text, 100);
    for (size_t i = 0; i < 100; i++)
        CK_OK(pa_allocate(pool, owners_at(&o, i), 64));
    struct visitor v = {pool, &o, 0, 50};
    ck_assert_int_eq(pa_foreach(pool, visit_and_stop, &v), 42);
    ck_assert_uint_eq(v.seen, 50);
    v = (struct visitor){pool, &o, 0, 0};
    ck_assert_int_eq(pa_foreach(pool, visit_and_stop, &v), 0);
    ck_assert_uint_eq(v.seen, 102); /* the root and one table too */
    pool_finish(pool, dir.text);
}
END_TEST

static int visit_and_change(pa_pptr block, size_t usable_size, void *arg)
{
    struct visitor *v = arg;
    (void)block;
    (void)usable_size;
    size_t i = v->seen++ % v->owners->count;
    int r = pa_deallocate(v->pool, owners_at(v->owners, i));
    if (r == 0)
        r = pa_allocate(v->pool, owners_at(v->owners, i), 1 + i * 37 % 5000);
    if (v->seen > 100000)
        return 1;
    return r;
}

START_TEST(the_visitor_may_allocate_and_free)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_pool *pool = owners_make(&o, dir.text, 300);
    for (size_t i = 0; i < 300; i++)
        CK_OK(pa_allocate(pool, owners_at(&o, i), 128));
    struct visitor v = {pool, &o, 0, 0};
    CK_OK(pa_foreach(pool, visit_and_change, &v));
    owners_verify(&o);
    pool_finish(pool, dir.text);
}
END_TEST

/* Fills the pool with blocks of one size until PA_ENOSPC; returns how many there are now. */
static size_t fill(struct owners *o, size_t size)
{
    size_t n = 0;
    for (; n < o->count; n++) {
        int r = pa_allocate(o->pool, owners_at(o, n), size);
        if (r == PA_ENOSPC)
            break;
        CK_OK(r);
    }
    ck_assert_uint_lt(n, o->count);
    return n;
}

static pa_pool *limited_pool(const char *dir, uint64_t max_size)
{
    pa_options options;
    pa_options_init(&options);
    options.flags = PA_NO_BACKGROUND;
    options.segment_size = 1u << 20;
    options.max_size = max_size;
    options.cores = 2;
    pa_pool *pool = NULL;
    CK_OK(pa_create(dir, &options, &pool));
    return pool;
}

START_TEST(a_full_pool_says_so_and_freeing_makes_room)
{
    struct temp_path dir = temp_new();
    pa_pool *pool = limited_pool(dir.text, 8u << 20);
    struct owners o;
    CK_OK(owners_open(&o, pool, 60000));
    size_t n = fill(&o, 256);
    CK_FAILS(pa_allocate(pool, owners_at(&o, n), 256), PA_ENOSPC, NULL);
    ck_assert(pa_is_null(*owners_at(&o, n)));
    pa_stats stats;
    CK_OK(pa_get_stats(pool, &stats));
    ck_assert_uint_le(stats.file_bytes, 8u << 20);
    ck_assert_uint_gt(stats.allocated_bytes, 5u << 20);
    owners_verify(&o);
    CK_OK(pa_deallocate(pool, owners_at(&o, n / 2)));
    CK_OK(pa_allocate(pool, owners_at(&o, n / 2), 256));
    CK_FAILS(pa_allocate(pool, owners_at(&o, n), 256), PA_ENOSPC, NULL);
    owners_verify(&o);
    CK_OK(pa_close(pool));
    pool_check_sound(dir.text);
    pool = pool_reopen(dir.text);
    CK_OK(owners_open(&o, pool, 60000));
    owners_verify(&o);
    CK_FAILS(pa_allocate(pool, owners_at(&o, n), 256), PA_ENOSPC, NULL);
    CK_OK(owners_free_all(&o));
    owners_verify(&o);
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(freed_space_serves_every_other_size)
{
    struct temp_path dir = temp_new();
    pa_pool *pool = limited_pool(dir.text, 8u << 20);
    struct owners o;
    CK_OK(owners_open(&o, pool, 65536));
    static const size_t sizes[] = {256, 16384, 1000, 128, 5000, 256};
    uint64_t first = 0;
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        size_t n = fill(&o, sizes[k]);
        pa_stats stats;
        CK_OK(pa_get_stats(pool, &stats));
        if (k == 0)
            first = stats.allocated_bytes;
        EXPECT(stats.allocated_bytes > first / 100 * 80, "%zu blocks of %zu: %llu bytes, at first %llu", n, sizes[k],
               (unsigned long long)stats.allocated_bytes, (unsigned long long)first);
        CK_OK(owners_free_all(&o));
        owners_verify(&o);
    }
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(allocating_and_freeing_forever_does_not_grow_the_pool)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_pool *pool = owners_make(&o, dir.text, 512);
    struct random r = {11};
    uint64_t files = 0;
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 2000; i++) {
            pa_pptr *dst = owners_at(&o, random_below(&r, 512));
            if (pa_is_null(*dst))
                CK_OK(pa_allocate(pool, dst, random_size(&r, 1024)));
            else
                CK_OK(pa_deallocate(pool, dst));
        }
        pa_stats stats;
        CK_OK(pa_get_stats(pool, &stats));
        if (round == 4)
            files = stats.segment_files;
        if (round > 4)
            ck_assert_uint_le(stats.segment_files, files + 2);
        CK_OK(pa_close(pool));
        pool = pool_reopen(dir.text);
        CK_OK(owners_open(&o, pool, 512));
    }
    owners_verify(&o);
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(a_pool_opens_with_another_number_of_cores)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_pool *pool = owners_make(&o, dir.text, 600);
    static const unsigned cores[] = {1, 8, 2, 64, 1, 3};
    for (size_t k = 0; k < sizeof cores / sizeof *cores; k++) {
        for (size_t i = 0; i < 600; i++)
            if (i % 6 == k)
                CK_OK(pa_allocate(pool, owners_at(&o, i), 20 + i));
            else if (i % 6 == (k + 3) % 6)
                CK_OK(pa_deallocate(pool, owners_at(&o, i)));
        CK_OK(pa_close(pool));
        pool_check_sound(dir.text);
        pa_options options;
        pa_options_init(&options);
        options.flags = PA_NO_BACKGROUND;
        options.cores = cores[k];
        CK_OK(pa_open(dir.text, &options, &pool));
        CK_OK(owners_open(&o, pool, 600));
        owners_verify(&o);
    }
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(a_process_uses_many_pools_at_once)
{
    enum { POOLS_MAX = 12 };
    struct temp_path dirs[POOLS_MAX];
    pa_pool *pools[POOLS_MAX];
    struct owners o[POOLS_MAX];
    const size_t count = run_option("pools", POOLS_MAX) < POOLS_MAX ? run_option("pools", POOLS_MAX) : POOLS_MAX;
    for (size_t k = 0; k < count; k++) {
        dirs[k] = temp_new();
        pools[k] = pool_make(dirs[k].text);
        CK_OK(owners_open(&o[k], pools[k], 100));
    }
    for (size_t i = 0; i < 100; i++)
        for (size_t k = 0; k < count; k++) {
            CK_OK(pa_allocate(pools[k], owners_at(&o[k], i), 64 + k));
            block_fill(pa_direct(pools[k], *owners_at(&o[k], i)), 64 + k, i * count + k);
        }
    for (size_t i = 0; i < 100; i++)
        for (size_t k = 0; k < count; k++)
            ck_assert(block_is(pa_direct(pools[k], *owners_at(&o[k], i)), 64 + k, i * count + k));
    for (size_t k = 0; k < count; k++) {
        owners_verify(&o[k]);
        pool_finish(pools[k], dirs[k].text);
    }
}
END_TEST

/* A pool wants 16 TiB of addresses, of which a process has 128 or less. */
START_TEST(pools_leave_addresses_to_each_other_and_to_the_program)
{
    enum { POOLS_MAX = 40 };
    struct temp_path dirs[POOLS_MAX];
    pa_pool *pools[POOLS_MAX];
    pa_options options;
    pa_options_init(&options);
    options.flags = PA_SPARSE | PA_NO_BACKGROUND;
#ifdef __SANITIZE_THREAD__
    const size_t count = 8; /* it leaves about a TiB */
#else
    const size_t count = POOLS_MAX;
#endif
    for (unsigned round = 0; round < 2; round++) { /* in the second, the ranges of the first are there to be taken */
        options.segment_size = round == 0 ? 0 : 64u << 20;
        for (size_t k = 0; k < count; k++) {
            dirs[k] = temp_new();
            CK_OK(pa_create(dirs[k].text, &options, &pools[k]));
            struct owners o;
            CK_OK(owners_open(&o, pools[k], 1));
            CK_OK(pa_allocate(pools[k], owners_at(&o, 0), 1u << 30));
            void *own = mmap(NULL, 1u << 30, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            ck_assert_ptr_ne(own, MAP_FAILED);
            munmap(own, 1u << 30);
        }
        for (size_t k = 0; k < count; k++)
            pool_finish(pools[k], dirs[k].text);
    }
}
END_TEST

START_TEST(two_pools_do_not_take_each_others_owners_or_blocks)
{
    struct temp_path a = temp_new(), b = temp_new();
    pa_pool *first = pool_make(a.text), *second = pool_make(b.text);
    struct owners of, os;
    CK_OK(owners_open(&of, first, 4));
    CK_OK(owners_open(&os, second, 4));
    CK_FAILS(pa_allocate(first, owners_at(&os, 0), 64), PA_EINVAL, NULL);
    ck_assert(pa_is_null(*owners_at(&os, 0)));
    CK_OK(pa_allocate(second, owners_at(&os, 0), 64));
    CK_FAILS(pa_deallocate(first, owners_at(&os, 0)), PA_EINVAL, NULL);
    owners_verify(&of);
    owners_verify(&os);
    pool_finish(first, a.text);
    pool_finish(second, b.text);
}
END_TEST

START_TEST(sparse_pools_take_less_than_their_size)
{
    struct temp_path dir = temp_new();
    pa_options options;
    pa_options_init(&options);
    options.segment_size = 64u << 20;
    options.flags = PA_SPARSE | PA_NO_BACKGROUND;
    pa_pool *pool = NULL;
    CK_OK(pa_create(dir.text, &options, &pool));
    struct owners o;
    CK_OK(owners_open(&o, pool, 10));
    CK_OK(pa_allocate(pool, owners_at(&o, 0), 64));
    pa_stats stats;
    CK_OK(pa_get_stats(pool, &stats));
    ck_assert_uint_ge(stats.file_bytes, 64u << 20);
    ck_assert_uint_lt(stats.resident_bytes, 32u << 20);
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(space_is_reserved_unless_sparse)
{
    struct temp_path dir = temp_new();
    pa_options options;
    pa_options_init(&options);
    options.flags = PA_NO_BACKGROUND;
    options.segment_size = 16u << 20;
    pa_pool *pool = NULL;
    CK_OK(pa_create(dir.text, &options, &pool));
    struct owners o;
    CK_OK(owners_open(&o, pool, 10));
    CK_OK(pa_allocate(pool, owners_at(&o, 0), 64));
    pa_stats stats;
    CK_OK(pa_get_stats(pool, &stats));
    ck_assert_uint_ge(stats.resident_bytes, stats.segment_files * (16u << 20));
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(check_is_silent_about_a_sound_pool_and_changes_nothing)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_pool *pool = owners_make(&o, dir.text, 100);
    for (size_t i = 0; i < 100; i++)
        CK_OK(pa_allocate(pool, owners_at(&o, i), 500));
    CK_OK(pa_close(pool));
    uint64_t before = temp_hash_dir(dir.text);
    CK_OK(pa_check(dir.text, NULL));
    char *report = NULL;
    CK_OK(pa_check(dir.text, &report));
    EXPECT(report == NULL || strstr(report, "orrupt") == NULL, "%s", report);
    free(report);
    ck_assert_uint_eq(temp_hash_dir(dir.text), before);
}
END_TEST

static void add(Suite *s)
{
    ADD(s, options_init_sets_every_default, 10);
    ADD(s, every_error_has_a_text_of_its_own, 10);
    ADD(s, the_sentence_belongs_to_the_thread, 10);
    ADD(s, calls_that_succeed_leave_the_sentence, 10);
    ADD(s, closing_null_does_nothing_and_null_pointers_are_null, 10);
    ADD(s, create_makes_the_directory_and_open_finds_the_pool, 10);
    ADD(s, create_takes_an_empty_directory_and_refuses_one_with_a_pool, 10);
    ADD(s, root_is_zeroed_at_first_and_then_the_same_block, 10);
    ADD(s, root_refuses_to_grow, 10);
    ADD(s, allocate_names_the_block_in_dst_and_deallocate_nulls_it, 10);
    ADD(s, blocks_of_every_size_live_side_by_side_and_survive_a_reopen, 20);
    ADD(s, sizes_beyond_the_small_allocator_work_or_are_told, 10);
    ADD(s, a_block_can_own_the_next_block, 10);
    ADD(s, an_owner_may_be_moved_by_the_program, 10);
    ADD(s, addresses_and_pointers_are_inverse, 10);
    ADD(s, an_address_in_a_huge_block_is_counted_from_the_block, 10);
    ADD(s, memcpy_persist_copies_and_returns_dst, 10);
    ADD(s, stats_follow_what_callers_hold, 10);
    ADD(s, the_largest_free_block_can_be_allocated_without_a_new_file, 10);
    ADD(s, foreach_goes_in_address_order_within_a_segment, 10);
    ADD(s, closing_gives_everything_back, 20);
    ADD(s, foreach_stops_with_the_visitors_value, 10);
    ADD(s, the_visitor_may_allocate_and_free, 20);
    ADD(s, a_full_pool_says_so_and_freeing_makes_room, 30);
    ADD(s, freed_space_serves_every_other_size, 30);
    ADD(s, allocating_and_freeing_forever_does_not_grow_the_pool, 30);
    ADD(s, a_pool_opens_with_another_number_of_cores, 20);
    ADD(s, a_process_uses_many_pools_at_once, 20);
    ADD(s, pools_leave_addresses_to_each_other_and_to_the_program, 60);
    ADD(s, two_pools_do_not_take_each_others_owners_or_blocks, 10);
    ADD(s, sparse_pools_take_less_than_their_size, 10);
    ADD(s, space_is_reserved_unless_sparse, 10);
    ADD(s, check_is_silent_about_a_sound_pool_and_changes_nothing, 10);
}

int main(int argc, char **argv)
{
    return run_main(argc, argv, "api", add);
}
