/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_full_fault.c -- a file system that is really full: a tmpfs of the test's own, 64 MiB.
 *
 * Out of space is an ordinary answer: the call that gets it changes nothing, frees and pa_defragment work on, space that comes back
 * serves again, and nothing is lost.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pool/pool.h"
#include "pool/pool_fptree.h"
#include "tests/support/mount.h"
#include "tests/support/owners.h"
#include "tests/support/random.h"
#include "tests/support/run.h"
#include "tests/support/temp.h"

#define MIB    (1ull << 20)
#define SPACE  (64 * MIB)
#define OWNERS 40000u

/* A pool on a file system of its own. sizes[i] = what owner i's block was asked for, 0 = none. */
struct full {
    struct temp_path mounted, dir, eater;
    struct owners o;
    struct random random;
    size_t sizes[OWNERS];
    size_t end; /* owners from here on were never used */
    uint64_t segment_size;
};

static void full_open(struct full *f)
{
    pa_pool *pool = pool_reopen(f->dir.text);
    CK_OK(owners_open(&f->o, pool, OWNERS));
}

static struct full *full_make(uint64_t segment_size)
{
    static struct full f;
    f = (struct full){.mounted = temp_new(), .random = {run_seed()}, .segment_size = segment_size};
    mount_tmpfs(f.mounted.text, SPACE);
    f.dir = temp_join(f.mounted.text, "pool");
    f.eater = temp_join(f.mounted.text, "another-file");
    pa_options options;
    pa_options_init(&options);
    options.segment_size = segment_size;
    options.cores = 3;
    pa_pool *pool = NULL;
    CK_OK(pa_create(f.dir.text, &options, &pool));
    CK_OK(owners_open(&f.o, pool, OWNERS));
    return &f;
}

static pa_pool *pool_of(const struct full *f)
{
    return f->o.pool;
}

/* Everything is there: the blocks, and nothing besides, and their contents. */
static void full_verify(const struct full *f)
{
    owners_verify(&f->o);
    for (size_t i = 0; i < f->end; i++) {
        pa_pptr p = *owners_at(&f->o, i);
        ck_assert(pa_is_null(p) == (f->sizes[i] == 0));
        EXPECT(f->sizes[i] == 0 || block_is(pa_direct(pool_of(f), p), f->sizes[i], i),
               "contents of block %zu (%zu bytes)", i, f->sizes[i]);
    }
}

static void full_finish(struct full *f)
{
    full_verify(f);
    pool_finish(pool_of(f), f->dir.text);
    full_open(f);
    full_verify(f);
    pool_finish(pool_of(f), f->dir.text);
}

static int full_allocate(struct full *f, size_t i, size_t size)
{
    sentence_forget();
    int r = pa_allocate(pool_of(f), owners_at(&f->o, i), size);
    if (r == 0) {
        f->sizes[i] = size;
        block_fill(pa_direct(pool_of(f), *owners_at(&f->o, i)), size, i);
        return 0;
    }
    EXPECT(r == PA_ENOSPC, "%zu bytes: %s: %s", size, pa_strerror(r), pa_errormsg());
    ck_assert(sentence_is_good(f->dir.text));
    ck_assert(pa_is_null(*owners_at(&f->o, i)));
    return r;
}

static void full_free(struct full *f, size_t i)
{
    CK_OK(pa_deallocate(pool_of(f), owners_at(&f->o, i)));
    ck_assert(pa_is_null(*owners_at(&f->o, i)));
    f->sizes[i] = 0;
}

/* Allocate sizes of every magnitude up to largest until there is no room for one, then smaller ones, until there is none for 16 bytes.
 * Returns the bytes allocated. */
static uint64_t fill(struct full *f, size_t largest)
{
    uint64_t bytes = 0;
    for (size_t max = largest; max >= 16; max /= 2)
        for (;;) {
            size_t size = max > 64 ? (size_t)random_log(&f->random, max > 65536 ? max / 4096 : 16, max) : max;
            ck_assert_uint_lt(f->end, OWNERS);
            if (full_allocate(f, f->end, size) != 0)
                break;
            bytes += size;
            f->end++;
        }
    return bytes;
}

static uint64_t free_at_random(struct full *f, unsigned percent)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < f->end; i++)
        if (f->sizes[i] != 0 && random_below(&f->random, 100) < percent) {
            bytes += f->sizes[i];
            full_free(f, i);
        }
    return bytes;
}

static void filled_to_the_brim(uint64_t segment_size)
{
    struct full *f = full_make(segment_size);
    uint64_t first = fill(f, 6 * MIB);
    EXPECT(first > SPACE / 2, "only %llu bytes of %llu were allocated", (unsigned long long)first, SPACE);
    ck_assert_uint_lt(mount_free_bytes(f->mounted.text), segment_size);
    full_finish(f);
    full_open(f); /* an open pool needs no space */
    free_at_random(f, 100);
    owners_verify(&f->o);
    f->end = 0;
    uint64_t second = fill(f, 6 * MIB);
    EXPECT(second > first / 4 * 3, "%llu bytes at first, %llu after everything was freed", (unsigned long long)first,
           (unsigned long long)second);
    full_finish(f);
}

START_TEST(a_full_file_system_keeps_every_block)
{
    filled_to_the_brim(MIB);
    filled_to_the_brim(2 * MIB);
    filled_to_the_brim(4 * MIB);
}
END_TEST

START_TEST(a_full_file_system_keeps_every_block_on_cache_line_media)
{
    run_pretend("CACHE_LINE");
    filled_to_the_brim(2 * MIB);
}
END_TEST

START_TEST(freeing_works_when_full_and_makes_room_for_the_same)
{
    struct full *f = full_make(2 * MIB);
    fill(f, 6 * MIB);
    for (size_t i = 0; i < f->end; i++) {
        size_t size = f->sizes[i];
        full_free(f, i);
        EXPECT(full_allocate(f, i, size) == 0, "block %zu: %zu bytes were freed, but: %s", i, size, pa_errormsg());
    }
    full_finish(f);
}
END_TEST

/* Of what the pool lets go, another file gets every byte; while that stands, the pool lives with what it has. */
START_TEST(space_goes_to_another_file_and_comes_back)
{
    struct full *f = full_make(2 * MIB);
    fill(f, 6 * MIB);
    uint64_t freed = free_at_random(f, 70), before = mount_free_bytes(f->mounted.text), released = 0;
    CK_OK(pa_defragment(pool_of(f), UINT64_MAX, &released));
    uint64_t after = mount_free_bytes(f->mounted.text);
    EXPECT(after - before == released, "pa_defragment says %llu bytes, the file system got %llu",
           (unsigned long long)released, (unsigned long long)(after - before));
    EXPECT(after > freed / 2, "%llu bytes freed, %llu given back", (unsigned long long)freed,
           (unsigned long long)after);
    full_verify(f);

    mount_eat(f->eater.text, after);
    ck_assert_uint_eq(mount_free_bytes(f->mounted.text), 0);
    uint64_t squeezed = fill(f, 3 * MIB); /* ends with PA_ENOSPC at every size */
    full_verify(f);
    EXPECT(squeezed < freed - after / 2, "%llu bytes were allocated from holes without space",
           (unsigned long long)squeezed);
    for (size_t i = 0; i < f->end; i += 5)
        if (f->sizes[i] != 0) { /* frees need none; a block of pages may become part of a hole beside it */
            size_t size = f->sizes[i];
            full_free(f, i);
            if (size <= SMALL_SIZE_MAX)
                EXPECT(full_allocate(f, i, size) == 0, "block %zu: %zu bytes: %s", i, size, pa_errormsg());
        }
    CK_OK(pa_defragment(pool_of(f), UINT64_MAX, NULL)); /* when full, and nearly nothing is left to give */
    full_finish(f);

    full_open(f); /* on the full file system */
    temp_remove(f->eater.text);
    uint64_t refilled = fill(f, 3 * MIB);
    EXPECT(squeezed + refilled > after / 4 * 3, "of %llu bytes given back, the pool got %llu",
           (unsigned long long)after, (unsigned long long)(squeezed + refilled));
    full_finish(f);
}
END_TEST

/* --- all or nothing -------------------------------------------------------------------------------------------------------- */

/* The directory's files and their sizes: what a call that fails must not change. */
static uint64_t files_of(const struct full *f)
{
    static char names[1024][64];
    size_t n = temp_list(f->dir.text, "", names, 1024);
    uint64_t h = n;
    for (size_t i = 0; i < n; i++) {
        struct temp_path p = temp_join(f->dir.text, names[i]);
        h = h * 31 + temp_file_size(p.text);
        for (const char *c = names[i]; *c != '\0'; c++)
            h = h * 31 + (unsigned char)*c;
    }
    return h;
}

/* 1 if it was in vain; now and then there is a block of that very size. */
static unsigned grow(struct full *f, size_t i, size_t size)
{
    pa_pptr old = *owners_at(&f->o, i);
    size_t usable = pa_usable_size(pool_of(f), old);
    uint64_t left = mount_free_bytes(f->mounted.text), files = files_of(f);
    sentence_forget();
    int r = pa_reallocate(pool_of(f), owners_at(&f->o, i), size);
    if (r == 0) {
        ck_assert(block_is(pa_direct(pool_of(f), *owners_at(&f->o, i)), f->sizes[i] / 8 * 8, i));
        block_fill(pa_direct(pool_of(f), *owners_at(&f->o, i)), size, i);
        f->sizes[i] = size;
        return 0;
    }
    EXPECT(r == PA_ENOSPC && sentence_is_good(f->dir.text), "%s: %s", pa_strerror(r), pa_errormsg());
    ck_assert_mem_eq(owners_at(&f->o, i), &old, sizeof old);
    ck_assert_uint_eq(pa_usable_size(pool_of(f), old), usable);
    ck_assert(block_is(pa_direct(pool_of(f), old), f->sizes[i], i));
    EXPECT(mount_free_bytes(f->mounted.text) == left && files_of(f) == files,
           "a reallocation from %zu to %zu bytes failed and left something: %llu bytes free before, %llu after",
           f->sizes[i], size, (unsigned long long)left, (unsigned long long)mount_free_bytes(f->mounted.text));
    return 1;
}

START_TEST(growing_into_a_full_file_system_leaves_the_block_as_it_was)
{
    static const size_t from[] = {100, 10000, 16384, 100000, 700000, 2500000, 6 << 20};
    static const size_t to[] = {16384, 60000, 300000, 1900000, 5 << 20, 12 << 20, 40 << 20};
    struct full *f = full_make(2 * MIB);
    size_t n = sizeof from / sizeof *from;
    for (; f->end < n; f->end++)
        ck_assert_int_eq(full_allocate(f, f->end, from[f->end]), 0);
    fill(f, 4 * MIB);
    CK_OK(pa_defragment(pool_of(f), UINT64_MAX, NULL)); /* no segment is free that a failing call could give back */
    mount_eat(f->eater.text, mount_free_bytes(f->mounted.text));
    unsigned in_vain = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t k = n; k-- > 0;)
            if (to[k] > pa_usable_size(pool_of(f), *owners_at(&f->o, i)))
                in_vain += grow(f, i, to[k]);
    ck_assert_uint_ge(in_vain, 10);
    full_verify(f);
    temp_remove(f->eater.text);
    for (size_t i = n; i < f->end; i++)
        full_free(f, i);
    for (size_t i = 0; i < n; i++) {
        size_t size = to[i] < 12 << 20 ? to[i] : 12 << 20;
        CK_OK(pa_reallocate(pool_of(f), owners_at(&f->o, i), size));
        size_t kept = f->sizes[i] < size ? f->sizes[i] : size;
        ck_assert(block_is(pa_direct(pool_of(f), *owners_at(&f->o, i)), kept / 8 * 8, i));
        block_fill(pa_direct(pool_of(f), *owners_at(&f->o, i)), size, i);
        f->sizes[i] = size;
    }
    full_finish(f);
}
END_TEST

START_TEST(a_huge_block_that_does_not_fit_leaves_nothing)
{
    struct full *f = full_make(2 * MIB);
    for (; full_allocate(f, f->end, 5 * MIB + f->end * 4096) == 0; f->end++)
        ;
    ck_assert_uint_gt(f->end, 8);
    uint64_t left = mount_free_bytes(f->mounted.text), files = files_of(f);
    for (size_t size = 6 * MIB; size < 200 * MIB; size *= 2)
        ck_assert_int_eq(full_allocate(f, f->end, size), PA_ENOSPC);
    ck_assert_uint_eq(mount_free_bytes(f->mounted.text), left);
    ck_assert_uint_eq(files_of(f), files);
    full_verify(f);
    for (size_t i = 0; i < f->end; i += 2) {
        left = mount_free_bytes(f->mounted.text);
        size_t size = f->sizes[i];
        full_free(f, i);
        EXPECT(mount_free_bytes(f->mounted.text) >= left + size, "a huge block of %zu bytes gave back %llu", size,
               (unsigned long long)(mount_free_bytes(f->mounted.text) - left));
        ck_assert_int_eq(full_allocate(f, i, size), 0);
    }
    full_finish(f);
}
END_TEST

START_TEST(a_pool_or_a_root_that_does_not_fit_is_not_made)
{
    struct temp_path mounted = temp_new();
    mount_tmpfs(mounted.text, SPACE);
    struct temp_path dir = temp_join(mounted.text, "pool"), eater = temp_join(mounted.text, "another-file");
    pa_options options;
    pa_options_init(&options);
    options.segment_size = MIB;
    pa_pool *pool = NULL;
    mount_eat(eater.text, mount_free_bytes(mounted.text) - 100 * 1024);
    CK_FAILS(pa_create(dir.text, &options, &pool), PA_ENOSPC, dir.text);
    ck_assert_ptr_null(pool);
    char names[4][64];
    ck_assert_uint_eq(temp_list(dir.text, "", names, 4), 0);
    temp_remove(eater.text);
    CK_OK(pa_create(dir.text, &options, &pool));

    mount_eat(eater.text, mount_free_bytes(mounted.text));
    pa_pptr root = {7, 7};
    CK_FAILS(pa_root(pool, 3000, &root), PA_ENOSPC, dir.text);
    ck_assert_uint_eq(root.segment, 7);
    CK_FAILS(pa_root(pool, 3000000, &root), PA_ENOSPC, dir.text);
    CK_OK(pa_close(pool));
    pool_check_sound(dir.text);
    pool = pool_reopen(dir.text);
    CK_FAILS(pa_root(pool, 3000, &root), PA_ENOSPC, dir.text);
    temp_remove(eater.text);
    CK_OK(pa_root(pool, 5000, &root));
    const unsigned char *bytes = pa_direct(pool, root);
    for (size_t i = 0; i < 5000; i++)
        ck_assert_uint_eq(bytes[i], 0);
    struct blocks expected = {0};
    char message[256];
    blocks_add(&expected, pa_off_of(pool, root), 0);
    EXPECT(blocks_are_all(pool, &expected, message, sizeof message), "%s", message);
    blocks_free(&expected);
    pool_finish(pool, dir.text);
}
END_TEST

/* --- a tree ---------------------------------------------------------------------------------------------------------------- */

#define KEYS_MAX 200000u

struct keys {
    const uint8_t *present;
    uint64_t next, count;
};

static uint64_t key_of(uint64_t i)
{
    return (i * 0x9e3779b97f4a7c15u) >> 20; /* in no order */
}

static int visit_key(uint64_t key, uint64_t value, void *arg)
{
    struct keys *k = arg;
    if (k->count++ != 0 && key <= k->next)
        return -1;
    k->next = key;
    return value < KEYS_MAX && k->present[value] && key_of(value) == key ? 0 : -2;
}

/* The tree has exactly the present keys. */
static void tree_verify(fptree *t, const uint8_t *present, uint64_t n)
{
    uint64_t count = 0, value;
    for (uint64_t i = 0; i < n; i++) {
        int r = fptree_find(t, key_of(i), &value);
        EXPECT(present[i] ? r == 0 && value == i : r == PA_ENOENT, "key %llu: %s", (unsigned long long)i,
               pa_strerror(r));
        count += present[i];
    }
    struct keys k = {.present = present};
    ck_assert_int_eq(fptree_scan(t, 0, visit_key, &k), 0);
    ck_assert_uint_eq(k.count, count);
    struct tree_counts counts;
    CK_OK(fptree_check(t, &counts));
}

static int add_tree_block(pa_off block, void *arg)
{
    blocks_add(arg, block, 0);
    return 0;
}

static void tree_and_blocks_verify(const struct full *f, fptree *t, const uint8_t *present, uint64_t n)
{
    tree_verify(t, present, n);
    struct blocks expected = {0};
    char message[256];
    owners_add_blocks(&f->o, &expected); /* the header, which the anchor names, is among them */
    pa_off header = pa_off_of(pool_of(f), *owners_at(&f->o, OWNERS - 1));
    struct blocks tree = {0};
    CK_OK(fptree_foreach_block(t, add_tree_block, &tree));
    for (size_t i = 0; i < tree.n; i++)
        if (tree.at[i].off != header)
            blocks_add(&expected, tree.at[i].off, 0);
    EXPECT(blocks_are_all(pool_of(f), &expected, message, sizeof message), "%s", message);
    blocks_free(&tree);
    blocks_free(&expected);
}

START_TEST(a_tree_in_a_full_file_system_loses_no_key)
{
    struct full *f = full_make(MIB);
    static uint8_t present[KEYS_MAX];
    pa_pptr *anchor = owners_at(&f->o, OWNERS - 1);
    fptree *t = NULL;
    fill(f, 2 * MIB);
    while (full_allocate(f, f->end, TREE_HEADER_BYTES) == 0)
        f->end++;
    int r = fptree_open(pool_of(f), anchor, &t);
    EXPECT(r == PA_ENOSPC && t == NULL && pa_is_null(*anchor), "%s: %s", pa_strerror(r), pa_errormsg());
    for (size_t i = 0; i < f->end && mount_free_bytes(f->mounted.text) < 2 * MIB; i++)
        if (f->sizes[i] > MIB) /* a file of its own, so that there is room for a segment */
            full_free(f, i);
    CK_OK(fptree_open(pool_of(f), anchor, &t));
    uint64_t n = 0, refused = 0;
    for (; refused < 200; n++) { /* some leaves have room when others cannot split any more */
        ck_assert_uint_lt(n, KEYS_MAX);
        sentence_forget();
        r = n % 2 == 0 ? fptree_insert(t, key_of(n), n) : fptree_upsert(t, key_of(n), n);
        EXPECT(r == 0 || (r == PA_ENOSPC && sentence_is_good(NULL)), "%s: %s", pa_strerror(r), pa_errormsg());
        present[n] = r == 0;
        refused += r != 0;
    }
    ck_assert_uint_gt(n, 1000);
    tree_and_blocks_verify(f, t, present, n);
    for (uint64_t i = 0; i < n; i += 2) /* removals and changes need no space that is not there */
        if (present[i]) {
            CK_OK(fptree_remove(t, key_of(i)));
            present[i] = 0;
        }
    tree_and_blocks_verify(f, t, present, n);
    for (uint64_t i = 0; i < n / 4; i++)
        if (!present[i]) {
            CK_OK(fptree_insert(t, key_of(i), i));
            present[i] = 1;
        }
    tree_and_blocks_verify(f, t, present, n);
    CK_OK(fptree_close(t));
    pool_finish(pool_of(f), f->dir.text);
    full_open(f);
    CK_OK(fptree_open(pool_of(f), owners_at(&f->o, OWNERS - 1), &t));
    tree_and_blocks_verify(f, t, present, n);
    for (uint64_t i = 0; i < n; i++)
        if (present[i])
            CK_OK(fptree_remove(t, key_of(i)));
    CK_OK(fptree_close(t));
    pool_finish(pool_of(f), f->dir.text);
}
END_TEST

/* --- threads --------------------------------------------------------------------------------------------------------------- */

#define THREADS     4u
#define OWN_OWNERS  400u
#define LARGEST_OWN (3u << 20)

struct at_the_brim {
    struct full *f;
    atomic_uint next, refused;
    unsigned steps;
};

static void *push_and_shove(void *arg)
{
    struct at_the_brim *b = arg;
    struct full *f = b->f;
    unsigned number = atomic_fetch_add(&b->next, 1);
    struct random r = {run_seed() + number};
    for (unsigned step = 0; step < b->steps; step++) {
        size_t i = number * OWN_OWNERS + random_below(&r, OWN_OWNERS);
        size_t size = (size_t)random_log(&r, 16, LARGEST_OWN), old = f->sizes[i];
        pa_pptr *dst = owners_at(&f->o, i);
        int code = 0;
        if (old != 0)
            EXPECT(block_is(pa_direct(pool_of(f), *dst), old, i), "contents of block %zu (%zu bytes)", i, old);
        if (random_below(&r, 2000) == 0)
            CK_OK(pa_defragment(pool_of(f), random_below(&r, 8 * MIB), NULL));
        if (old != 0 && random_below(&r, 3) != 0) {
            full_free(f, i);
            continue;
        }
        code = old == 0 ? pa_allocate(pool_of(f), dst, size) : pa_reallocate(pool_of(f), dst, size);
        EXPECT(code == 0 || code == PA_ENOSPC, "%s: %s", pa_strerror(code), pa_errormsg());
        atomic_fetch_add(&b->refused, code != 0);
        if (code == 0) {
            size_t kept = old < size ? old : size;
            ck_assert(block_is(pa_direct(pool_of(f), *dst), kept / 8 * 8, i));
            block_fill(pa_direct(pool_of(f), *dst), size, i);
            f->sizes[i] = size;
        }
    }
    return NULL;
}

START_TEST(threads_at_the_brim_lose_nothing)
{
    static struct at_the_brim b;
    b = (struct at_the_brim){.f = full_make(MIB), .steps = (unsigned)run_option("steps", 6000)};
    pthread_t threads[THREADS];
    for (unsigned t = 0; t < THREADS; t++)
        ck_assert_int_eq(pthread_create(&threads[t], NULL, push_and_shove, &b), 0);
    for (unsigned t = 0; t < THREADS; t++)
        pthread_join(threads[t], NULL);
    b.f->end = THREADS * OWN_OWNERS;
    EXPECT(atomic_load(&b.refused) > 0, "the file system was never full");
    full_finish(b.f);
}
END_TEST

/* --- read-only ------------------------------------------------------------------------------------------------------------- */

START_TEST(a_pool_on_a_read_only_mount_can_be_read_only)
{
    struct full *f = full_make(MIB);
    for (; f->end < 500; f->end++)
        ck_assert_int_eq(full_allocate(f, f->end, (size_t)random_log(&f->random, 16, 2 * MIB / 100)), 0);
    CK_OK(pa_close(pool_of(f)));
    mount_set_read_only(f->mounted.text, true);
    uint64_t before = temp_hash_dir(f->dir.text);
    pa_pool *pool = NULL;
    struct temp_path other = temp_join(f->mounted.text, "other");
    CK_FAILS(pa_open(f->dir.text, NULL, &pool), PA_EACCES, f->dir.text);
    CK_FAILS(pa_create(other.text, NULL, &pool), PA_EACCES, other.text);
    CK_OK(pa_check(f->dir.text, NULL));
    pa_options options;
    pa_options_init(&options);
    options.flags = PA_READ_ONLY;
    CK_OK(pa_open(f->dir.text, &options, &pool));
    CK_OK(owners_open(&f->o, pool, OWNERS));
    full_verify(f);
    CK_FAILS(pa_allocate(pool, owners_at(&f->o, f->end), 64), PA_EACCES, NULL);
    CK_FAILS(pa_defragment(pool, MIB, NULL), PA_EACCES, NULL);
    CK_OK(pa_close(pool));
    ck_assert_uint_eq(temp_hash_dir(f->dir.text), before);
    mount_set_read_only(f->mounted.text, false);
    full_open(f);
    full_finish(f);
}
END_TEST

static void add(Suite *s)
{
    ADD(s, a_full_file_system_keeps_every_block, 120);
    ADD(s, a_full_file_system_keeps_every_block_on_cache_line_media, 120);
    ADD(s, freeing_works_when_full_and_makes_room_for_the_same, 120);
    ADD(s, space_goes_to_another_file_and_comes_back, 120);
    ADD(s, growing_into_a_full_file_system_leaves_the_block_as_it_was, 120);
    ADD(s, a_huge_block_that_does_not_fit_leaves_nothing, 120);
    ADD(s, a_pool_or_a_root_that_does_not_fit_is_not_made, 120);
    ADD(s, a_tree_in_a_full_file_system_loses_no_key, 120);
    ADD(s, threads_at_the_brim_lose_nothing, 120);
    ADD(s, a_pool_on_a_read_only_mount_can_be_read_only, 120);
}

int main(int argc, char **argv)
{
    if (!mount_is_possible()) {
        fprintf(stderr, "SKIP: full: this process may not mount a tmpfs, as root or in a user namespace\n");
        return 77;
    }
    return run_main(argc, argv, "full", add);
}
