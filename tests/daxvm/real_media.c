/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * real_media.c -- what a pool must find on its directory's media, without any override: the granularity, durability over a power
 * failure, blocks given back by holes; on a DAX file system MAP_SYNC mappings. PA_TEST_DIR is the directory; PA_TEST_EXPECTED = 0
 * (byte) or 1 (cache line): run by scripts/daxvm; 2 (page): run by test_page.sh on an ordinary directory.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <libpmem2.h>
#include <linux/stat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pool/pool.h"
#include "tests/support/owners.h"
#include "tests/support/run.h"
#include "tests/support/temp.h"

enum expected { EXPECT_BYTE, EXPECT_LINE, EXPECT_PAGE, EXPECT_MISSING };

static enum expected expected(void)
{
    return (enum expected)run_option("expected", EXPECT_MISSING);
}

static pa_pool *make(const char *dir, uint64_t segment_size)
{
    pa_options o;
    pa_options_init(&o);
    o.cores = 1; /* what is freed is what is allocated from, wherever the thread runs */
    o.segment_size = segment_size;
    o.durability = PA_DURABILITY_POWER;
    pa_pool *pool = NULL;
    CK_OK(pa_create(dir, &o, &pool));
    return pool;
}

START_TEST(nothing_is_pretended)
{
    ck_assert_ptr_null(getenv("PMEM2_FORCE_GRANULARITY"));
    ck_assert_ptr_null(getenv("PMEM_IS_PMEM_FORCE"));
    ck_assert_msg(expected() < EXPECT_MISSING, "PA_TEST_EXPECTED says which granularity is right");
}
END_TEST

START_TEST(the_pool_finds_the_media_that_the_machine_has)
{
    struct temp_path dir = temp_new();
    pa_pool *pool = make(dir.text, 1u << 20);
    enum pmem2_granularity found = pmem2_map_get_store_granularity(pool->file.map);
    enum media_mode mode = pool_media(pool)->mode;
    fprintf(stderr, "granularity %d (0 byte, 1 cache line, 2 page), media mode %d\n", (int)found, (int)mode);
    if (expected() == EXPECT_BYTE) {
        ck_assert_int_eq(found, PMEM2_GRANULARITY_BYTE);
        ck_assert_int_eq(mode, MEDIA_BYTE);
    } else if (expected() == EXPECT_PAGE) {
        ck_assert_int_eq(found, PMEM2_GRANULARITY_PAGE);
        ck_assert_int_eq(mode, MEDIA_PAGE);
    } else {
        ck_assert_int_eq(found, PMEM2_GRANULARITY_CACHE_LINE);
        ck_assert_msg(mode == MEDIA_CLWB || mode == MEDIA_LIBRARY, "mode %d", (int)mode);
    }
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(write_backs_are_made_only_where_they_are_needed)
{
    struct temp_path dir = temp_new();
    pa_pool *pool = make(dir.text, 1u << 20);
    struct owners o;
    CK_OK(owners_open(&o, pool, 1000));
    size_t n = expected() == EXPECT_PAGE ? 100 : 1000; /* where each write-back is an msync */
    pa_stats before, after;
    CK_OK(pa_get_stats(pool, &before));
    for (size_t i = 0; i < n; i++)
        CK_OK(pa_allocate(pool, owners_at(&o, i), 100));
    CK_OK(pa_get_stats(pool, &after));
    uint64_t fences = after.fences - before.fences, lines = after.flushed_lines - before.flushed_lines;
    fprintf(stderr, "%zu allocations: %" PRIu64 " fences, %" PRIu64 " lines\n", n, fences, lines);
    ck_assert_uint_ge(fences, n);
    if (expected() == EXPECT_BYTE)
        ck_assert_uint_eq(lines, 0);
    else
        ck_assert_uint_ge(lines, n);
    owners_verify(&o);
    pool_finish(pool, dir.text);
}
END_TEST

/* Mappings of the directory's files in /proc/self/smaps, and those of them with the flag. */
static void count_mappings(const char *dir, const char *flag, unsigned *ret_all, unsigned *ret_flagged)
{
    FILE *f = fopen("/proc/self/smaps", "r");
    ck_assert_ptr_nonnull(f);
    char line[1024];
    bool ours = false;
    *ret_all = *ret_flagged = 0;
    while (fgets(line, sizeof line, f) != NULL) {
        unsigned long long from, to;
        if (sscanf(line, "%llx-%llx ", &from, &to) == 2)
            ours = strstr(line, dir) != NULL;
        if (!ours || strncmp(line, "VmFlags:", 8) != 0)
            continue;
        ++*ret_all;
        *ret_flagged += strstr(line + 8, flag) != NULL;
    }
    fclose(f);
}

START_TEST(every_file_of_the_pool_is_mapped_with_map_sync)
{
    struct temp_path dir = temp_new();
    pa_pool *pool = make(dir.text, 1u << 20);
    struct owners o;
    CK_OK(owners_open(&o, pool, 40));
    for (size_t i = 0; i < 40; i++) /* several segments, and huge blocks */
        CK_OK(pa_allocate(pool, owners_at(&o, i), i % 10 == 0 ? 3u << 20 : 200000));
    pa_stats stats;
    CK_OK(pa_get_stats(pool, &stats));
    unsigned mappings, synchronous;
    count_mappings(dir.text, " sf", &mappings, &synchronous);
    fprintf(stderr, "%u mappings of %" PRIu64 " files, %u with MAP_SYNC\n", mappings,
            1 + stats.segment_files + stats.huge_files, synchronous);
    ck_assert_uint_gt(stats.huge_files, 0);
    ck_assert_uint_ge(mappings, 1 + stats.segment_files + stats.huge_files);
    ck_assert_uint_eq(mappings, synchronous);
    pool_finish(pool, dir.text);
}
END_TEST

static uint64_t blocks_of(const char *dir)
{
    char names[256][64];
    uint64_t sum = 0;
    size_t n = temp_list(dir, "", names, 256);
    for (size_t i = 0; i < n; i++) {
        struct stat st;
        struct temp_path p = temp_join(dir, names[i]);
        ck_assert_int_eq(stat(p.text, &st), 0);
        sum += (uint64_t)st.st_blocks * 512;
    }
    return sum;
}

START_TEST(every_file_of_the_pool_is_a_dax_file)
{
    struct temp_path dir = temp_new();
    pa_pool *pool = make(dir.text, 1u << 20);
    char names[64][64];
    size_t n = temp_list(dir.text, "", names, 64);
    ck_assert_uint_ge(n, 1);
    for (size_t i = 0; i < n; i++) {
        struct statx sx;
        struct temp_path p = temp_join(dir.text, names[i]);
        ck_assert_int_eq(statx(AT_FDCWD, p.text, 0, STATX_BASIC_STATS, &sx), 0);
        ck_assert_msg((sx.stx_attributes & STATX_ATTR_DAX) != 0, "%s is not DAX", p.text);
    }
    pool_finish(pool, dir.text);
}
END_TEST

#define PUNCHED_BLOCKS 120u

/* Blocks of 100,000 bytes; every fourth stays, so no segment gets empty. */
START_TEST(holes_give_blocks_back_and_are_filled_again)
{
    struct temp_path dir = temp_new();
    pa_pool *pool = make(dir.text, 4u << 20);
    struct owners o;
    CK_OK(owners_open(&o, pool, PUNCHED_BLOCKS));
    for (size_t i = 0; i < PUNCHED_BLOCKS; i++) {
        CK_OK(pa_allocate(pool, owners_at(&o, i), 100000));
        block_fill(pa_direct(pool, *owners_at(&o, i)), 100000, i);
        pa_persist(pool, pa_direct(pool, *owners_at(&o, i)), 100000);
    }
    for (size_t i = 0; i < PUNCHED_BLOCKS; i++)
        if (i % 4 != 0)
            CK_OK(pa_deallocate(pool, owners_at(&o, i)));
    uint64_t before = blocks_of(dir.text), released = 0;
    pa_stats stats;
    CK_OK(pa_defragment(pool, UINT64_MAX, &released));
    uint64_t after = blocks_of(dir.text);
    CK_OK(pa_get_stats(pool, &stats));
    fprintf(stderr, "holes: %" PRIu64 " bytes released, %" PRIu64 " by st_blocks (%" PRIu64 " before)\n", released,
            before - after, before);
    ck_assert_uint_gt(stats.hole_bytes, 0);
    ck_assert_uint_ge(released, PUNCHED_BLOCKS / 2 * 100000);
    ck_assert_uint_le(after + released * 9 / 10, before);
    for (size_t i = 0; i < PUNCHED_BLOCKS; i++) {
        if (i % 4 != 0)
            CK_OK(pa_allocate(pool, owners_at(&o, i), 100000));
        else
            ck_assert(block_is(pa_direct(pool, *owners_at(&o, i)), 100000, i));
        block_fill(pa_direct(pool, *owners_at(&o, i)), 100000, i);
    }
    ck_assert_uint_ge(blocks_of(dir.text), after + released / 2);
    owners_verify(&o);
    pool_finish(pool, dir.text);
}
END_TEST

static void add(Suite *s)
{
    ADD(s, nothing_is_pretended, 20);
    ADD(s, the_pool_finds_the_media_that_the_machine_has, 20);
    ADD(s, write_backs_are_made_only_where_they_are_needed, 20);
    if (expected() != EXPECT_PAGE) {
        ADD(s, every_file_of_the_pool_is_mapped_with_map_sync, 20);
        ADD(s, every_file_of_the_pool_is_a_dax_file, 20);
    }
    ADD(s, holes_give_blocks_back_and_are_filled_again, 20);
}

int main(int argc, char **argv)
{
    return run_main(argc, argv, "real_media", add);
}
