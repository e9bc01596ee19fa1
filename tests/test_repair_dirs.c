/* SPDX-License-Identifier: BSD-3-Clause */
/* test_repair_dirs.c -- repair of pools over several directories, and of files that lost their table word. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/run.h"
#include "tests/support/wreck.h"

#define DIRS 3u

/* --- helpers -------------------------------------------------------------------------------------------------------------- */

static void is_whole(void)
{
    pool_check_sound(wreck.dir.text);
    pa_pool *pool = wreck_open();
    wreck_survives(pool, "after the repair");
    wreck_fill_and_empty(pool, wreck_survives);
    CK_OK(pa_close(pool));
    pool_check_sound(wreck.dir.text);
}

static void repaired(const char *part)
{
    char *report = NULL;
    int code = pa_repair(wreck.dir.text, NULL, &report);
    EXPECT(code == 0, "pa_repair: %s\n%s", pa_errormsg(), report);
    EXPECT(strstr(report, part) != NULL, "the report lacks \"%s\": %s", part, report);
    free(report);
    is_whole();
}

static void refused_as(int expected, const char *part)
{
    char *report = NULL;
    uint64_t before = wreck_hash();
    int code = pa_repair(wreck.dir.text, NULL, &report);
    EXPECT(code == expected, "pa_repair: %d: %s\n%s", code, pa_errormsg(), report);
    EXPECT(strstr(report, "refused: ") != NULL && strstr(report, part) != NULL, "the report lacks \"%s\": %s", part,
           report);
    free(report);
    EXPECT(wreck_hash() == before, "refused, and changed");
}

/* An owner whose block lies in a file of a further directory. */
static size_t owner_in_a_directory(size_t modulo)
{
    for (size_t i = 1; i < WRECK_OWNERS; i++)
        if (!pa_is_null(wreck.owners[i]) && wreck.owners[i].segment % (1 + DIRS) == modulo)
            return i;
    ck_abort_msg("no block in directory %zu", modulo);
    return 0;
}

static uint64_t word_offset(uint64_t slot)
{
    return wreck.geometry.table_offset + slot * 8;
}

/* The backup's only directory. */
static struct temp_path backup(void)
{
    char names[4][64];
    ck_assert_uint_eq(temp_list(wreck.dir.text, "repair-", names, 4), 1);
    return wreck_file(names[0]);
}

/* --- files in further directories ----------------------------------------------------------------------------------------- */

START_TEST(files_in_further_directories_are_repaired_where_they_lie)
{
    for (size_t k = 1; k <= DIRS; k++) {
        wreck_make(true, DIRS);
        char name[32];
        uint64_t rubbish = 0xdeadbeef12345678u, slot = wreck.owners[owner_in_a_directory(k)].segment, kept;
        wreck_name(name, slot, false);
        ck_assert_ptr_nonnull(strchr(name, '/'));
        wreck_put(name, 8, &rubbish, sizeof rubbish);                          /* its header */
        wreck_put("pool.pa", word_offset(slot + 1), &rubbish, sizeof rubbish); /* and a table word */
        repaired(name);
        struct temp_path to = backup(), copy = temp_join(to.text, name);
        size_t size;
        char *data = temp_read_file(copy.text, &size);
        ck_assert_uint_eq(size, WRECK_SEGMENT);
        memcpy(&kept, data + 8, sizeof kept);
        ck_assert_uint_eq(kept, rubbish);
        free(data);
    }
}
END_TEST

START_TEST(a_table_word_is_rebuilt_from_a_file_in_a_further_directory)
{
    for (size_t k = 1; k <= DIRS; k++) {
        wreck_make(true, DIRS);
        uint64_t zero = 0;
        wreck_put("pool.pa", word_offset(wreck.owners[owner_in_a_directory(k)].segment), &zero, sizeof zero);
        repaired("table word");
    }
}
END_TEST

START_TEST(strays_of_all_directories_are_moved_to_their_places_in_the_backup)
{
    wreck_make(true, DIRS);
    struct temp_path a = wreck_file("dir-2/segment-00000031.pa"), b = wreck_file("dir-3/huge-0000002f.pa");
    temp_write_file(a.text, "stray a", 7); /* in the wrong directory */
    temp_write_file(b.text, "stray b", 7);
    repaired("moved away");
    struct temp_path to = backup(), moved_a = temp_join(to.text, "dir-2/segment-00000031.pa"),
                     moved_b = temp_join(to.text, "dir-3/huge-0000002f.pa");
    ck_assert_uint_eq(temp_file_size(moved_a.text), 7);
    ck_assert_uint_eq(temp_file_size(moved_b.text), 7);
    ck_assert(access(a.text, F_OK) != 0 && access(b.text, F_OK) != 0);
}
END_TEST

START_TEST(a_missing_file_of_a_further_directory_is_refused)
{
    wreck_make(true, DIRS);
    char name[32];
    wreck_name(name, wreck.owners[owner_in_a_directory(2)].segment, false);
    struct temp_path path = wreck_file(name);
    temp_remove(path.text);
    refused_as(PA_ECORRUPT, name);
}
END_TEST

/* --- member.pa and the links ---------------------------------------------------------------------------------------------- */

START_TEST(a_lost_or_damaged_member_file_is_made_anew)
{
    for (unsigned missing = 0; missing < 2; missing++)
        for (unsigned k = 1; k <= DIRS; k++) {
            wreck_make(true, DIRS);
            char name[32];
            uint64_t rubbish = 0xdeadbeef12345678u;
            snprintf(name, sizeof name, "dir-%u/member.pa", k);
            struct temp_path path = wreck_file(name);
            size_t size, size_now;
            char *was = temp_read_file(path.text, &size);
            if (missing)
                temp_remove(path.text);
            else
                wreck_put(name, 16, &rubbish, sizeof rubbish);
            ck_assert_int_ne(pa_check(wreck.dir.text, NULL), 0);
            repaired("made anew");
            char *now = temp_read_file(path.text, &size_now);
            ck_assert(size == size_now && memcmp(was, now, size) == 0);
            free(was);
            free(now);
            struct temp_path to = backup(), copy = temp_join(to.text, name);
            ck_assert_int_eq(access(copy.text, F_OK) == 0, !missing);
        }
}
END_TEST

START_TEST(a_member_file_and_others_damaged_together)
{
    wreck_make(true, DIRS);
    uint64_t rubbish = 0xdeadbeef12345678u;
    struct temp_path path = wreck_file("dir-1/member.pa");
    temp_remove(path.text);
    wreck_put("dir-2/member.pa", 0, &rubbish, sizeof rubbish);
    wreck_put("pool.pa", 0, &rubbish, sizeof rubbish); /* the superblock's magic */
    wreck_put("pool.pa", word_offset(wreck.owners[owner_in_a_directory(3)].segment), &rubbish, sizeof rubbish);
    repaired("made anew");
}
END_TEST

START_TEST(a_member_file_without_a_witness_is_refused)
{
    wreck_make(true, DIRS);
    struct temp_path path = wreck_file("dir-1/member.pa"), link = wreck_file("dir-1"), empty = temp_new();
    temp_remove(path.text);
    temp_remove(link.text);
    temp_make_dir(empty.text);
    ck_assert_int_eq(symlink(empty.text, link.text), 0);
    refused_as(PA_ECORRUPT, "lead the link to the right directory");
}
END_TEST

START_TEST(links_that_lead_elsewhere_are_refused_with_what_to_do)
{
    wreck_make(true, DIRS);
    struct temp_path one = wreck_file("dir-1"), two = wreck_file("dir-2");
    temp_remove(one.text);
    refused_as(PA_ENOENT, "dir-1 leads to no directory");
    ck_assert_int_eq(symlink("/nowhere/at/all", one.text), 0);
    refused_as(PA_ENOENT, "dir-1 leads to no directory");
    temp_remove(one.text);
    temp_write_file(one.text, "a file", 6);
    refused_as(PA_ENOENT, "dir-1 leads to no directory");
    temp_remove(one.text);
    temp_remove(two.text);
    ck_assert_int_eq(symlink(wreck.more[1].text, one.text), 0); /* the two change places */
    ck_assert_int_eq(symlink(wreck.more[0].text, two.text), 0);
    refused_as(PA_ECORRUPT, "lead the link to directory 1");
    temp_remove(one.text);
    temp_remove(two.text);
    ck_assert_int_eq(symlink(wreck.more[0].text, one.text), 0);
    ck_assert_int_eq(symlink(wreck.more[1].text, two.text), 0);
    is_whole();
}
END_TEST

/* --- cut off anywhere ----------------------------------------------------------------------------------------------------- */

struct cut {
    int left;
};

static int fail_when_due(void *context, enum file_op op, const char *name, const char *site)
{
    struct cut *cut = context;
    (void)name;
    (void)site;
    bool changes = op == FILE_OP_CREATE || op == FILE_OP_ALLOCATE || op == FILE_OP_WRITE || op == FILE_OP_SYNC ||
                   op == FILE_OP_SYNC_DIR || op == FILE_OP_UNLINK || op == FILE_OP_RENAME;
    return !changes || cut->left-- > 0 ? 0 : EIO;
}

START_TEST(a_repair_of_several_directories_that_is_cut_off_anywhere_is_finished)
{
    wreck_make(true, DIRS);
    uint64_t rubbish = 0xdeadbeef12345678u;
    char name[32];
    wreck_name(name, wreck.owners[owner_in_a_directory(2)].segment, false);
    wreck_put(name, 0, &rubbish, sizeof rubbish);
    struct temp_path member = wreck_file("dir-1/member.pa"), stray = wreck_file("dir-3/segment-00000031.pa");
    temp_remove(member.text);
    temp_write_file(stray.text, "stray", 5);
    struct wreck_image image = wreck_save();
    bool through = false;
    unsigned cuts = 0;
    for (; !through; cuts++) {
        wreck_restore(&image);
        struct cut cut = {.left = (int)cuts};
        struct file_hooks hooks = {.context = &cut, .before = fail_when_due};
        int code = pool_repair_ex(wreck.dir.text, NULL, &hooks, NULL);
        EXPECT(code == 0 || code == PA_EIO, "cut %u: %s", cuts, pa_errormsg());
        through = code == 0 && cut.left >= 0;
        char *report = NULL;
        code = pa_repair(wreck.dir.text, NULL, &report);
        EXPECT(code == 0, "cut %u: %s: %s", cuts, pa_errormsg(), report);
        free(report);
        is_whole();
        ck_assert(access(stray.text, F_OK) != 0 && access(member.text, F_OK) == 0);
    }
    ck_assert_uint_gt(cuts, 25);
}
END_TEST

/* --- files without a table word ------------------------------------------------------------------------------------------- */

/* A slot that is free has no file; so a word that is zero beside a file is damage, unless the file is not the pool's. */
START_TEST(a_huge_file_that_lost_its_word_is_not_lost)
{
    uint64_t zero = 0, rubbish = 0xdeadbeef12345678u;
    char name[32], *report = NULL;
    wreck_make(true, 0);
    uint64_t slot = wreck.owners[0].segment;
    wreck_name(name, slot, true);
    wreck_put("pool.pa", word_offset(slot), &zero, sizeof zero);
    ck_assert_int_eq(pa_check(wreck.dir.text, NULL), PA_ECORRUPT);
    repaired("rebuilt from its huge file");
    for (uint64_t offset = 0; offset < 64; offset += 8) { /* and its header is damaged */
        wreck_make(true, 0);
        wreck_put("pool.pa", word_offset(slot), &zero, sizeof zero);
        wreck_put(name, offset, &rubbish, sizeof rubbish);
        EXPECT(pa_check(wreck.dir.text, &report) == PA_ECORRUPT, "offset %llu: %s", (unsigned long long)offset, report);
        free(report);
        refused_as(PA_ECORRUPT, "restore both");
        struct temp_path path = wreck_file(name), away = temp_new();
        temp_copy_file(path.text, away.text);
        temp_remove(path.text); /* what the sentence tells who knows that it is none of the pool's */
        CK_OK(pa_repair(wreck.dir.text, NULL, NULL));
        pool_check_sound(wreck.dir.text);
    }
}
END_TEST

START_TEST(a_segment_that_lost_its_word_and_its_header_is_refused)
{
    uint64_t zero = 0;
    char name[32], page[4096] = {0};
    wreck_make(true, 0);
    uint64_t slot = wreck.owners[1].segment;
    wreck_name(name, slot, false);
    wreck_put("pool.pa", word_offset(slot), &zero, sizeof zero);
    wreck_put(name, 0, page, sizeof page);
    refused_as(PA_ECORRUPT, "");
}
END_TEST

START_TEST(a_file_that_has_another_name_is_not_moved_away)
{
    uint64_t zero = 0;
    char name[32];
    wreck_make(true, 0);
    uint64_t slot = wreck.owners[0].segment;
    wreck_name(name, slot, true);
    wreck_put("pool.pa", word_offset(slot), &zero, sizeof zero);
    struct temp_path right = wreck_file(name), wrong = wreck_file("huge-0000002f.pa");
    ck_assert_int_eq(rename(right.text, wrong.text), 0);
    refused_as(PA_ECORRUPT, name);
    ck_assert_int_eq(rename(wrong.text, right.text), 0);
    repaired("rebuilt from its huge file");
    temp_copy_file(right.text, wrong.text); /* of a file that is in its place, another one is a copy */
    char *report = NULL;
    CK_OK(pa_repair(wreck.dir.text, NULL, &report));
    EXPECT(strstr(report, "moved away") != NULL, "%s", report);
    free(report);
}
END_TEST

static void add(Suite *s)
{
    ADD(s, files_in_further_directories_are_repaired_where_they_lie, 60);
    ADD(s, a_table_word_is_rebuilt_from_a_file_in_a_further_directory, 60);
    ADD(s, strays_of_all_directories_are_moved_to_their_places_in_the_backup, 30);
    ADD(s, a_missing_file_of_a_further_directory_is_refused, 30);
    ADD(s, a_lost_or_damaged_member_file_is_made_anew, 60);
    ADD(s, a_member_file_and_others_damaged_together, 30);
    ADD(s, a_member_file_without_a_witness_is_refused, 30);
    ADD(s, links_that_lead_elsewhere_are_refused_with_what_to_do, 30);
    ADD(s, a_repair_of_several_directories_that_is_cut_off_anywhere_is_finished, 120);
    ADD(s, a_huge_file_that_lost_its_word_is_not_lost, 60);
    ADD(s, a_segment_that_lost_its_word_and_its_header_is_refused, 30);
    ADD(s, a_file_that_has_another_name_is_not_moved_away, 30);
}

int main(int argc, char **argv)
{
    return run_main(argc, argv, "repair_dirs", add);
}
