/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_repair.c -- one kind of damage after the other: pa_check names it, pa_repair makes the pool sound, every block that was
 * somebody's is as it was, nothing is handed out twice, and the backup holds the old bytes. What cannot be repaired is refused, and
 * nothing changes.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "big/big.h"
#include "pool/pool.h"
#include "pool/repair.h"
#include "recovery/recovery.h"
#include "tests/support/owners.h"
#include "tests/support/random.h"
#include "tests/support/run.h"
#include "tests/support/temp.h"
#include "tests/support/wreck.h"

/* --- damage, check, repair ------------------------------------------------------------------------------------------------ */

static void unsound(const char *part)
{
    char *report = NULL;
    int code = pa_check(wreck.dir.text, &report);
    EXPECT(code == PA_ECORRUPT, "pa_check: %s: %s", pa_strerror(code), report);
    EXPECT(strstr(report, part) != NULL, "the report lacks \"%s\": %s", part, report);
    free(report);
}

static size_t backups(char (*names)[64], size_t max)
{
    return temp_list(wreck.dir.text, "repair-", names, max);
}

/* Repair; the report has part. Then everything is as it was, again after a second repair, which does nothing. */
static void repaired(const char *part)
{
    char *report = NULL, names[4][64];
    int code = pa_repair(wreck.dir.text, NULL, &report);
    EXPECT(code == 0, "pa_repair: %s: %s\n%s", pa_strerror(code), pa_errormsg(), report);
    EXPECT(strstr(report, part) != NULL, "the report lacks \"%s\": %s", part, report);
    free(report);
    pool_check_sound(wreck.dir.text);
    size_t kept = backups(names, 4);
    EXPECT(kept == 1, "%zu backups", kept);
    CK_OK(pa_repair(wreck.dir.text, NULL, &report));
    EXPECT(strstr(report, "repaired:") == NULL, "repaired twice: %s", report);
    free(report);
    EXPECT(backups(names, 4) == 1, "a second backup, of nothing");
    pa_pool *pool = wreck_open();
    wreck_survives(pool, "after the repair");
    wreck_no_overlap(pool);
    wreck_fill_and_empty(pool, wreck_survives);
    wreck_survives(pool, "at the end");
    CK_OK(pa_close(pool));
    pool_check_sound(wreck.dir.text);
}

static void backup_holds(const char *name, uint64_t offset, const void *bytes, size_t size)
{
    char names[4][64];
    ck_assert_uint_eq(backups(names, 4), 1);
    struct temp_path backup = wreck_file(names[0]), path = temp_join(backup.text, name);
    size_t length;
    char *data = temp_read_file(path.text, &length);
    EXPECT(length >= offset + size && memcmp(data + offset, bytes, size) == 0, "the backup of %s lacks the old bytes",
           name);
    free(data);
}

/* Refused: the sentence, the report, and not a byte changed. */
static void refused(const char *part)
{
    char *report = NULL;
    uint64_t before = temp_hash_dir(wreck.dir.text);
    CK_FAILS(pa_repair(wreck.dir.text, NULL, &report), PA_ECORRUPT, "cannot be repaired");
    EXPECT(strstr(report, "refused: ") != NULL && strstr(report, part) != NULL, "the report lacks \"%s\": %s", part,
           report);
    free(report);
    ck_assert_uint_eq(temp_hash_dir(wreck.dir.text), before);
}

/* Replace words by rubbish; keeps what it wrote for backup_holds. */
static uint64_t rubbish[96];
static void damage(const char *name, uint64_t offset, size_t words)
{
    for (size_t i = 0; i < words; i++)
        rubbish[i] = 0xdeadbeef12345678u * (i + 1) + offset;
    wreck_put(name, offset, rubbish, words * 8);
}

static uint64_t owner_slot(size_t i)
{
    return wreck.owners[i].segment;
}

/* --- superblock ----------------------------------------------------------------------------------------------------------- */

START_TEST(every_word_of_the_superblock)
{
    wreck_make(true, 0);
    struct temp_path good = temp_new();
    temp_copy_dir(wreck.dir.text, good.text);
    for (uint64_t offset = 0; offset < sizeof wreck.geometry; offset += 8) {
        temp_remove(wreck.dir.text);
        temp_copy_dir(good.text, wreck.dir.text);
        if (offset >= 80 && offset < 144) { /* the layout's name: nothing knows it but its checksum */
            char letter = 'X';
            damage("pool.pa", offset, 1);
            unsound("pool.pa");
            refused("superblock");
            temp_remove(wreck.dir.text);
            temp_copy_dir(good.text, wreck.dir.text);
            wreck_put("pool.pa", offset, &letter, 1);
            unsound("pool.pa");
            repaired("superblock");
            continue;
        }
        damage("pool.pa", offset, 1);
        unsound("pool.pa");
        repaired("superblock");
        backup_holds("pool.pa", offset, rubbish, 8);
    }
}
END_TEST

START_TEST(a_superblock_with_two_damaged_words_is_refused)
{
    wreck_make(true, 0);
    damage("pool.pa", 16, 8);
    refused("superblock");
}
END_TEST

/* --- table words and headers ---------------------------------------------------------------------------------------------- */

static uint64_t word_offset(uint64_t slot)
{
    return wreck.geometry.table_offset + slot * 8;
}

START_TEST(table_words_are_rebuilt_from_the_files)
{
    static const uint64_t values[] = {0x1111222233334444u, 0};
    for (size_t owner = 0; owner < 7; owner++) /* a huge, small and big blocks */
        for (size_t v = 0; v < 2; v++) {
            wreck_make(true, 0);
            if (pa_is_null(wreck.owners[owner]))
                continue;
            uint64_t slot = owner_slot(owner);
            wreck_put("pool.pa", word_offset(slot), &values[v], 8);
            char *report = NULL;
            bool harmless = values[v] == 0 && pa_check(wreck.dir.text, &report) == 0; /* a note only */
            free(report);
            if (harmless)
                continue;
            unsound("table word");
            repaired("table word");
            backup_holds("pool.pa", word_offset(slot), &values[v], 8);
        }
}
END_TEST

START_TEST(a_damaged_word_without_a_file_becomes_free)
{
    wreck_make(true, 0);
    damage("pool.pa", word_offset(wreck.geometry.slots - 1), 1);
    unsound("table word");
    repaired("made free");
}
END_TEST

START_TEST(a_missing_file_is_refused)
{
    char name[32];
    wreck_make(true, 0);
    wreck_name(name, owner_slot(1), false);
    struct temp_path path = wreck_file(name);
    temp_remove(path.text);
    unsound(name);
    refused(name);
    uint64_t word;
    wreck_get("pool.pa", word_offset(owner_slot(1)), &word, 8);
    word ^= 1u << 20;
    wreck_put("pool.pa", word_offset(owner_slot(1)), &word, 8);
    refused("file is missing");
}
END_TEST

START_TEST(a_file_of_another_pool_is_refused)
{
    char name[32];
    wreck_make(true, 0);
    struct temp_path first = wreck.dir;
    wreck_make(true, 0);
    wreck_name(name, owner_slot(1), false);
    struct temp_path from = temp_join(first.text, name), to = wreck_file(name);
    temp_remove(to.text);
    temp_copy_file(from.text, to.text);
    unsound("another pool");
    refused("another pool");
}
END_TEST

START_TEST(every_word_of_a_segment_header)
{
    char name[32];
    for (size_t owner = 1; owner < 7; owner += 5)
        for (uint64_t offset = 0; offset < 64; offset += 8) {
            wreck_make(true, 0);
            wreck_name(name, owner_slot(owner), false);
            damage(name, offset, 1);
            unsound(name);
            repaired("header was rebuilt");
            backup_holds(name, offset, rubbish, 8);
        }
    wreck_make(true, 0);
    wreck_name(name, owner_slot(1), false);
    damage(name, 0, 8);
    repaired("header was rebuilt");
}
END_TEST

START_TEST(every_word_of_a_huge_header)
{
    char name[32];
    for (uint64_t offset = 0; offset < 64; offset += 8) {
        wreck_make(true, 0);
        wreck_name(name, owner_slot(0), true);
        if (offset == 48) { /* the extent: one of its three parts at a time */
            for (unsigned part = 0; part < 3; part++) {
                uint64_t word;
                wreck_make(true, 0);
                wreck_get(name, offset, &word, 8);
                word ^= part == 0 ? 0x55u : part == 1 ? 0x2ull << 32 : 0x1234ull << 48;
                wreck_put(name, offset, &word, 8);
                unsound(name);
                repaired("extent was rebuilt");
            }
            continue;
        }
        damage(name, offset, 1);
        unsound(name);
        repaired("header was rebuilt");
        backup_holds(name, offset, rubbish, 8);
    }
    wreck_make(true, 0);
    damage(name, 0, 8);
    refused("header is lost");
}
END_TEST

/* --- strays --------------------------------------------------------------------------------------------------------------- */

START_TEST(strays_are_moved_to_the_backup)
{
    wreck_make(true, 0);
    struct temp_path a = wreck_file("segment-0000002f.pa"), b = wreck_file("huge-00000030.pa"),
                     c = wreck_file("pool.pa.new");
    temp_write_file(a.text, "stray a", 7);
    temp_write_file(b.text, "stray b", 7);
    temp_write_file(c.text, "stray c", 7);
    repaired("moved away");
    backup_holds("segment-0000002f.pa", 0, "stray a", 7);
    backup_holds("huge-00000030.pa", 0, "stray b", 7);
    backup_holds("pool.pa.new", 0, "stray c", 7);
    ck_assert(access(a.text, F_OK) != 0 && access(b.text, F_OK) != 0 && access(c.text, F_OK) != 0);
}
END_TEST

START_TEST(the_backup_goes_where_it_is_told_to)
{
    char names[4][64];
    wreck_make(true, 0);
    struct temp_path elsewhere = temp_new(), a = wreck_file("segment-0000002f.pa");
    temp_write_file(a.text, "stray a", 7);
    CK_OK(pa_repair(wreck.dir.text, elsewhere.text, NULL));
    ck_assert_uint_eq(backups(names, 4), 0);
    ck_assert_uint_eq(temp_list(elsewhere.text, "repair-", names, 4), 1);
    struct temp_path backup = temp_join(elsewhere.text, names[0]),
                     moved = temp_join(backup.text, "segment-0000002f.pa");
    ck_assert_uint_eq(temp_file_size(moved.text), 7);
}
END_TEST

START_TEST(nothing_to_do_changes_nothing)
{
    wreck_make(true, 0);
    uint64_t before = temp_hash_dir(wreck.dir.text);
    char *report = NULL;
    CK_OK(pa_repair(wreck.dir.text, NULL, &report));
    ck_assert_ptr_nonnull(strstr(report, "sound"));
    free(report);
    ck_assert_uint_eq(temp_hash_dir(wreck.dir.text), before);
    CK_FAILS(pa_repair("/dev/shm/there-is-no-such-pool", NULL, NULL), PA_ENOENT, NULL);
    pa_pool *pool = wreck_open();
    CK_FAILS(pa_repair(wreck.dir.text, NULL, NULL), PA_ELOCKED, NULL);
    CK_OK(pa_close(pool));
}
END_TEST

/* --- lanes ---------------------------------------------------------------------------------------------------------------- */

static uint64_t entry_offset(uint32_t lane, uint32_t entry)
{
    return POOL_LANES_OFFSET + ((uint64_t)lane * wreck.geometry.lane_entries + entry) * 64;
}

/* Index of the i-th newest entry of lane 0. */
static uint32_t nth_newest(uint32_t i)
{
    struct pm_lane_entry ring[64];
    wreck_get("pool.pa", entry_offset(0, 0), ring, sizeof ring);
    struct lane_scan scan;
    CK_OK(lane_scan(ring, 64, 0, &scan));
    return (scan.newest + 64 - i) % 64;
}

START_TEST(a_damaged_word_of_an_entry_is_restored)
{
    for (uint32_t back = 1; back < 50; back += 6)
        for (uint64_t word = 0; word < 8; word++) {
            wreck_make(true, 0);
            uint64_t offset = entry_offset(0, nth_newest(back)) + word * 8;
            damage("pool.pa", offset, 1);
            char *report = NULL;
            if (pa_check(wreck.dir.text, &report) == PA_ECORRUPT) {
                ck_assert_ptr_nonnull(strstr(report, "lane 0"));
                repaired("lane 0");
                backup_holds("pool.pa", offset, rubbish, 8);
            }
            free(report);
        }
}
END_TEST

START_TEST(lost_entries_of_a_closed_pool_lose_nothing)
{
    wreck_make(true, 0);
    damage("pool.pa", entry_offset(0, nth_newest(7)), 8);
    unsound("lane 0");
    repaired("lane 0");
}
END_TEST

START_TEST(rubbish_in_a_lane_that_was_never_used_is_cleared)
{
    wreck_make(true, 0);
    damage("pool.pa", entry_offset(1, 9), 8);
    unsound("lane 1");
    repaired("never written");
}
END_TEST

/* The newest entry, a free, is lost, but its slab line is not: the next change would have the same number. */
START_TEST(a_line_ahead_of_the_logs_gets_a_log_that_is_not_behind)
{
    pa_pool *pool = wreck_make(false, 0);
    struct owners o;
    CK_OK(owners_open(&o, pool, WRECK_OWNERS));
    CK_OK(pa_allocate(pool, owners_at(&o, 3), wreck_size_of(3))); /* ends with a DONE entry */
    wreck.owners[3] = *owners_at(&o, 3);
    block_fill(pa_direct(pool, wreck.owners[3]), wreck_size_of(3), 3);
    CK_OK(pa_deallocate(pool, owners_at(&o, 1)));
    wreck.owners[1] = PA_NULL;
    pool_abandon(pool);
    damage("pool.pa", entry_offset(0, nth_newest(0)), 8);
    unsound("newer than every log");
    repaired("goes on above");
}
END_TEST

START_TEST(a_lost_entry_before_lost_lines_never_frees_a_block)
{
    for (uint32_t back = 1; back < 24; back++) {
        wreck_crash(12);
        damage("pool.pa", entry_offset(0, nth_newest(back)), 8);
        unsound("lane 0");
        char *report = NULL;
        int code = pa_repair(wreck.dir.text, NULL, &report);
        if (code != 0) { /* it may have been a change of a block index */
            EXPECT(code == PA_ECORRUPT && strstr(report, "block index") != NULL, "%s: %s", pa_errormsg(), report);
            free(report);
            continue;
        }
        free(report);
        pool_check_sound(wreck.dir.text);
        pa_pool *pool = wreck_open();
        wreck_survives(pool, "after a lost entry");
        wreck_no_overlap(pool);
        wreck_fill_and_empty(pool, wreck_survives);
        wreck_survives(pool, "after a lost entry, at the end");
        CK_OK(pa_close(pool));
        pool_check_sound(wreck.dir.text);
    }
}
END_TEST

/* --- slab lines ----------------------------------------------------------------------------------------------------------- */

static uint64_t line_offset(uint64_t offset_in_segment)
{
    return SEGMENT_HEADER_BYTES +
           (offset_in_segment - small_first_slab_of(WRECK_SEGMENT)) / SLAB_BYTES * SLAB_META_BYTES;
}

START_TEST(every_word_of_a_slab_line)
{
    char name[32];
    for (size_t owner = 1; owner < 6; owner++)
        for (uint64_t word = 0; word < 8; word++) {
            wreck_make(true, 0);
            if (pa_is_null(wreck.owners[owner]))
                continue;
            wreck_name(name, owner_slot(owner), false);
            uint64_t offset = line_offset(wreck.owners[owner].offset) + word * 8;
            damage(name, offset, 1);
            unsound(name);
            char *report = NULL;
            if (word == 1 && pa_repair(wreck.dir.text, NULL, &report) == PA_ECORRUPT) {
                EXPECT(strstr(report, "block size") != NULL, "%s", report); /* the class is gone with the tag */
                free(report);
                continue;
            }
            free(report);
            if (word != 1) {
                repaired("slab");
                backup_holds(name, offset, rubbish, 8);
            }
        }
}
END_TEST

START_TEST(one_flipped_bit_of_a_slab_line_leaks_nothing)
{
    char name[32];
    for (unsigned bit = 0; bit < 512; bit += 37) {
        wreck_make(true, 0);
        pa_pool *pool = wreck_open();
        pa_stats before, after;
        CK_OK(pa_get_stats(pool, &before));
        CK_OK(pa_close(pool));
        wreck_name(name, owner_slot(2), false);
        uint64_t offset = line_offset(wreck.owners[2].offset) + bit / 64 * 8, word;
        wreck_get(name, offset, &word, 8);
        word ^= 1ull << bit % 64;
        wreck_put(name, offset, &word, 8);
        unsound(name);
        repaired("restored");
        pool = wreck_open();
        CK_OK(pa_get_stats(pool, &after));
        ck_assert_uint_eq(before.allocated_blocks, after.allocated_blocks);
        CK_OK(pa_close(pool));
    }
}
END_TEST

/* --- block indexes -------------------------------------------------------------------------------------------------------- */

/* File offset of lane 0's block index. */
static uint64_t index_place(char name[32], bool *ret_any)
{
    pa_pptr p;
    wreck_get("pool.pa", superblock_cores_offset(&wreck.geometry), &p, sizeof p);
    *ret_any = !pa_is_null(p);
    wreck_name(name, p.segment, false);
    return p.offset;
}

START_TEST(every_word_of_a_block_index)
{
    char name[32];
    bool any;
    wreck_make(true, 0);
    uint64_t at = index_place(name, &any);
    ck_assert(any);
    struct temp_path good = temp_new();
    temp_copy_dir(wreck.dir.text, good.text);
    unsigned found = 0;
    for (uint64_t offset = 0; offset < TREE_HEADER_BYTES; offset += 8) {
        if (offset >= 128 && offset < 1792 && offset % 320 != 0 && offset % 64 != 16)
            continue;
        temp_remove(wreck.dir.text);
        temp_copy_dir(good.text, wreck.dir.text);
        damage(name, at + offset, 1);
        char *report = NULL;
        if (pa_check(wreck.dir.text, &report) == PA_ECORRUPT) {
            found++;
            if (offset ==
                offsetof(struct pm_tree_header, head)) { /* the bitmap: which pairs are of today, nothing tells */
                refused("block index");
            } else {
                repaired("block index");
                backup_holds(name, at + offset, rubbish, 8);
            }
        }
        free(report);
    }
    ck_assert_uint_ge(found, 20);
}
END_TEST

START_TEST(a_lost_leaf_of_a_block_index_makes_its_space_used)
{
    char name[32];
    bool any;
    wreck_make(true, 0);
    uint64_t at = index_place(name, &any);
    damage(name, at + offsetof(struct pm_tree_header, head) + 64, 80); /* every entry */
    wreck.pairs_are_lost = true;
    unsound("");
    repaired("block index");
}
END_TEST

/* An index of several leaves: each word of the second one's header, bounds and some pairs. */
START_TEST(every_word_of_a_leaf_in_the_list)
{
    char name[32];
    bool any;
    struct owners o;
    pa_pool *pool = wreck_make(false, 0);
    CK_OK(owners_open(&o, pool, WRECK_OWNERS));
    for (size_t i = 3; i < WRECK_OWNERS; i += 5)
        if (wreck_size_of(i) < 16000 && i < 300) {
            CK_OK(pa_allocate(pool, owners_at(&o, i), 17000 + i * 16));
            block_fill(pa_direct(pool, *owners_at(&o, i)), wreck_size_of(i), i);
            wreck.owners[i] = *owners_at(&o, i);
        }
    CK_OK(pa_close(pool));
    uint64_t at = index_place(name, &any), leaf = 0;
    wreck_get(name, at + offsetof(struct pm_tree_header, head) + offsetof(struct pm_tree_leaf, next), &leaf, 8);
    ck_assert_uint_ne(leaf, 0);
    wreck_name(name, leaf / WRECK_SEGMENT, false);
    struct temp_path good = temp_new();
    temp_copy_dir(wreck.dir.text, good.text);
    unsigned found = 0;
    for (uint64_t offset = 0; offset < 720; offset += offset < 128 || offset >= 640 ? 8 : 56) {
        temp_remove(wreck.dir.text);
        temp_copy_dir(good.text, wreck.dir.text);
        damage(name, leaf % WRECK_SEGMENT + offset, 1);
        char *report = NULL;
        if (pa_check(wreck.dir.text, &report) == PA_ECORRUPT) {
            found++;
            if (offset == 0) { /* the bitmap: which pairs are of today, nothing tells */
                refused("block index");
            } else {
                repaired("block index");
                backup_holds(name, leaf % WRECK_SEGMENT + offset, rubbish, 8);
            }
        }
        free(report);
    }
    ck_assert_uint_ge(found, 15);
}
END_TEST

START_TEST(a_core_line_finds_its_index_again)
{
    wreck_make(true, 0);
    damage("pool.pa", superblock_cores_offset(&wreck.geometry), 2);
    unsound("block index");
    repaired("found again");
}
END_TEST

START_TEST(a_damaged_staging_owner_is_cleared)
{
    wreck_make(true, 0);
    damage("pool.pa", superblock_cores_offset(&wreck.geometry) + 16, 2);
    unsound("staging");
    repaired("staging");
}
END_TEST

/* --- root ----------------------------------------------------------------------------------------------------------------- */

START_TEST(every_word_of_the_root_line)
{
    for (uint64_t word = 0; word < 4; word++) {
        wreck_make(true, 0);
        damage("pool.pa", POOL_ROOT_OFFSET + word * 8, 1);
        unsound("root line");
        repaired("root line");
        backup_holds("pool.pa", POOL_ROOT_OFFSET + word * 8, rubbish, 8);
    }
    wreck_make(true, 0);
    damage("pool.pa", POOL_ROOT_OFFSET, 4);
    unsound("root line");
    refused("root line");
}
END_TEST

/* --- a repair that is cut off --------------------------------------------------------------------------------------------- */

struct cut {
    int left;     /* operations that still work */
    bool changes; /* what did not work would have changed something */
};

static int fail_when_due(void *context, enum file_op op, const char *name, const char *site)
{
    struct cut *cut = context;
    (void)name;
    (void)site;
    bool changes = op == FILE_OP_CREATE || op == FILE_OP_ALLOCATE || op == FILE_OP_WRITE || op == FILE_OP_SYNC ||
                   op == FILE_OP_SYNC_DIR || op == FILE_OP_UNLINK || op == FILE_OP_RENAME;
    if (!changes)
        return 0;
    return cut->left-- > 0 ? 0 : EIO; /* and nothing works from then on, as after a crash */
}

START_TEST(a_repair_that_is_cut_off_anywhere_is_finished_by_the_next)
{
    char name[32];
    unsigned cuts = 0, half = 0;
    for (int left = 0;; left++, cuts++) {
        wreck_make(true, 0);
        wreck_name(name, owner_slot(1), false);
        damage(name, 0, 1);
        damage("pool.pa", word_offset(owner_slot(6)), 1);
        damage("pool.pa", 0, 1);
        struct temp_path stray = wreck_file("segment-0000002f.pa");
        temp_write_file(stray.text, "stray a", 7);
        struct cut cut = {.left = left};
        struct file_hooks hooks = {.context = &cut, .before = fail_when_due};
        int code = pool_repair_ex(wreck.dir.text, NULL, &hooks, NULL);
        bool through = code == 0 && cut.left >= 0;
        EXPECT(code == 0 || code == PA_EIO, "cut %d: %s", left, pa_errormsg());
        pa_pool *pool = NULL;
        int opened = pa_open(wreck.dir.text, NULL, &pool); /* as it was, or refused as half-repaired, or whole */
        if (opened == 0) {
            wreck_survives(pool, "between");
            CK_OK(pa_close(pool));
        } else {
            half += strstr(pa_errormsg(), "cut off") != NULL;
        }
        char *report = NULL;
        code = pa_repair(wreck.dir.text, NULL, &report);
        EXPECT(code == 0, "cut %d: %s: %s", left, pa_errormsg(), report);
        free(report);
        pool_check_sound(wreck.dir.text);
        pool = wreck_open();
        wreck_survives(pool, "after the second repair");
        wreck_fill_and_empty(pool, wreck_survives);
        CK_OK(pa_close(pool));
        struct temp_path redo = wreck_file("pool.pa.repair");
        ck_assert(access(stray.text, F_OK) != 0 && access(redo.text, F_OK) != 0);
        temp_remove(wreck.dir.text);
        if (through)
            break;
    }
    EXPECT(cuts > 15 && half > 3, "%u cuts, %u of them in the middle", cuts, half);
}
END_TEST

/* What repair would do to the pool as it is. */
static unsigned planned(char **ret_report)
{
    size_t size = 0;
    struct repair r = {.path = wreck.dir.text, .dir = {.fd = -1}, .file = {.fd = -1}, .view_dir = {.fd = -1}};
    r.text = open_memstream(ret_report, &size);
    CK_OK(repair_view_open(&r));
    repair_files(&r);
    repair_lanes(&r);
    repair_slabs(&r);
    repair_indexes(&r);
    repair_files_finish(&r);
    repair_roots(&r);
    unsigned planned = r.done + r.refused + (unsigned)r.patch_count;
    ck_assert_int_eq(r.failed, 0);
    repair_view_close(&r);
    repair_plan_fini(&r);
    fclose(r.text);
    return planned;
}

/* Whatever a killed process leaves is sound: repair would find nothing to do in it. */
START_TEST(a_killed_process_leaves_nothing_to_repair)
{
    struct random r = {run_seed()};
    pa_pool *pool = wreck_make(false, 0);
    for (unsigned round = 0; round < 60; round++) {
        struct owners o;
        CK_OK(owners_open(&o, pool, WRECK_OWNERS));
        for (unsigned k = 0; k < 40; k++) {
            size_t i = random_below(&r, WRECK_OWNERS);
            int code = pa_is_null(*owners_at(&o, i)) ? pa_allocate(pool, owners_at(&o, i), wreck_size_of(i))
                       : random_below(&r, 2) == 0    ? pa_deallocate(pool, owners_at(&o, i))
                                                  : pa_reallocate(pool, owners_at(&o, i), 1 + random_below(&r, 90000));
            EXPECT(code == 0 || code == PA_ENOSPC, "%s", pa_errormsg());
        }
        if (random_below(&r, 10) == 0)
            CK_OK(pa_defragment(pool, UINT64_MAX, NULL));
        pool_abandon(pool);
        char *report = NULL;
        unsigned n = planned(&report);
        EXPECT(n == 0, "round %u: %s", round, report);
        free(report);
        pool = wreck_open();
    }
    CK_OK(pa_close(pool));
}
END_TEST

static void add(Suite *s)
{
    ADD(s, every_word_of_the_superblock, 60);
    ADD(s, a_superblock_with_two_damaged_words_is_refused, 10);
    ADD(s, table_words_are_rebuilt_from_the_files, 60);
    ADD(s, a_damaged_word_without_a_file_becomes_free, 10);
    ADD(s, a_missing_file_is_refused, 10);
    ADD(s, a_file_of_another_pool_is_refused, 10);
    ADD(s, every_word_of_a_segment_header, 60);
    ADD(s, every_word_of_a_huge_header, 60);
    ADD(s, strays_are_moved_to_the_backup, 10);
    ADD(s, the_backup_goes_where_it_is_told_to, 10);
    ADD(s, nothing_to_do_changes_nothing, 10);
    ADD(s, a_damaged_word_of_an_entry_is_restored, 120);
    ADD(s, lost_entries_of_a_closed_pool_lose_nothing, 10);
    ADD(s, rubbish_in_a_lane_that_was_never_used_is_cleared, 10);
    ADD(s, a_line_ahead_of_the_logs_gets_a_log_that_is_not_behind, 10);
    ADD(s, a_lost_entry_before_lost_lines_never_frees_a_block, 60);
    ADD(s, every_word_of_a_slab_line, 60);
    ADD(s, one_flipped_bit_of_a_slab_line_leaks_nothing, 60);
    ADD(s, every_word_of_a_block_index, 120);
    ADD(s, every_word_of_a_leaf_in_the_list, 60);
    ADD(s, a_lost_leaf_of_a_block_index_makes_its_space_used, 10);
    ADD(s, a_core_line_finds_its_index_again, 10);
    ADD(s, a_damaged_staging_owner_is_cleared, 10);
    ADD(s, every_word_of_the_root_line, 60);
    ADD(s, a_repair_that_is_cut_off_anywhere_is_finished_by_the_next, 60);
    ADD(s, a_killed_process_leaves_nothing_to_repair, 60);
}

int main(int argc, char **argv)
{
    return run_main(argc, argv, "repair", add);
}
