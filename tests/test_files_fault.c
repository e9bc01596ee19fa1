/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_files_fault.c -- files of a pool that are something else than regular files, that other programs replace or cut while the pool
 * is open, and names that look like the pool's.
 */
#define XXH_INLINE_ALL
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <xxhash.h>

#include "pool/pool.h"
#include "segment/members.h"
#include "tests/support/owners.h"
#include "tests/support/run.h"
#include "tests/support/temp.h"

#define SEGMENT_SIZE (1u << 20)
#define OWNERS       64u
#define BIG          100000u
#define HUGE         3000000u

/* Big blocks, every other one freed, and a huge block in owner 63. */
struct fixture {
    struct temp_path dir, further;
    pa_pool *pool;
    struct owners o;
    char segment[64], huge[64]; /* a file with freed big blocks; the huge block's */
};

static void fixture_make_in(struct fixture *f, bool further)
{
    f->dir = temp_new();
    f->further = temp_new();
    const char *dirs[] = {f->further.text};
    pa_options options;
    pa_options_init(&options);
    options.segment_size = SEGMENT_SIZE;
    options.flags = PA_NO_BACKGROUND;
    options.dirs = dirs;
    options.ndirs = further ? 1 : 0;
    CK_OK(pa_create(f->dir.text, &options, &f->pool));
    CK_OK(owners_open(&f->o, f->pool, OWNERS));
    for (size_t i = 0; i < 20; i++)
        CK_OK(pa_allocate(f->pool, owners_at(&f->o, i), BIG));
    for (size_t i = 0; i < 20; i += 2)
        CK_OK(pa_deallocate(f->pool, owners_at(&f->o, i)));
    CK_OK(pa_allocate(f->pool, owners_at(&f->o, 63), HUGE));
    segment_name(f->segment, superblock_of(&f->pool->file), (uint32_t)owners_at(&f->o, 1)->segment);
    segment_huge_name(f->huge, superblock_of(&f->pool->file), (uint32_t)owners_at(&f->o, 63)->segment);
}

static void fixture_make(struct fixture *f)
{
    fixture_make_in(f, false);
}

static struct temp_path at(const struct fixture *f, const char *name)
{
    return temp_join(f->dir.text, name);
}

/* A copy takes the file's name, as `cp` and `mv` by an operator do. */
static void replace(const struct fixture *f, const char *name)
{
    struct temp_path file = at(f, name), copy = temp_new();
    temp_copy_file(file.text, copy.text);
    ck_assert_int_eq(rename(copy.text, file.text), 0);
}

static uint64_t blocks_of(const char *path)
{
    struct stat s;
    ck_assert_int_eq(stat(path, &s), 0);
    return (uint64_t)s.st_blocks;
}

/* --- under a running pool --------------------------------------------------------------------------------------------------------- */

START_TEST(another_file_in_a_segments_place_is_not_touched)
{
    struct fixture f;
    fixture_make(&f);
    replace(&f, f.segment);
    struct temp_path file = at(&f, f.segment);
    uint64_t before = blocks_of(file.text), released;
    pa_stats stats;
    CK_FAILS(pa_get_stats(f.pool, &stats), PA_ECORRUPT, f.segment);
    CK_FAILS(pa_defragment(f.pool, UINT64_MAX, &released), PA_ECORRUPT, f.segment);
    ck_assert_uint_eq(blocks_of(file.text), before);
    CK_OK(pa_close(f.pool));
}
END_TEST

START_TEST(another_file_in_a_huge_blocks_place_is_not_touched)
{
    struct fixture f;
    fixture_make(&f);
    replace(&f, f.huge);
    struct temp_path file = at(&f, f.huge);
    uint64_t before = temp_file_size(file.text);
    pa_pptr *owner = owners_at(&f.o, 63), was = *owner;
    CK_FAILS(pa_reallocate(f.pool, owner, HUGE + HUGE / 2), PA_ECORRUPT, f.huge);
    ck_assert(memcmp(owner, &was, sizeof was) == 0);
    ck_assert_uint_eq(temp_file_size(file.text), before);
    CK_OK(pa_close(f.pool));
}
END_TEST

START_TEST(a_file_that_was_cut_is_told_where_it_is_opened_again)
{
    struct fixture f;
    fixture_make(&f);
    struct temp_path file = at(&f, f.segment), huge = at(&f, f.huge);
    uint64_t released;
    ck_assert_int_eq(truncate(huge.text, 65536), 0);
    CK_FAILS(pa_reallocate(f.pool, owners_at(&f.o, 63), HUGE + HUGE / 2), PA_ECORRUPT, f.huge);
    ck_assert_uint_eq(temp_file_size(huge.text), 65536);
    ck_assert_int_eq(truncate(file.text, 65536), 0);
    CK_FAILS(pa_defragment(f.pool, UINT64_MAX, &released), PA_ECORRUPT, f.segment);
    CK_OK(pa_close(f.pool));
    ck_assert_int_eq(pa_check(f.dir.text, NULL), PA_ECORRUPT);
}
END_TEST

START_TEST(a_read_only_pool_makes_and_removes_no_file)
{
    struct fixture f;
    fixture_make(&f);
    CK_OK(pa_close(f.pool));
    uint64_t before = temp_hash_dir(f.dir.text), lsn;
    pa_options options;
    pa_options_init(&options);
    options.flags = PA_READ_ONLY;
    CK_OK(pa_open(f.dir.text, &options, &f.pool));
    struct segment *s = NULL, *huge = NULL;
    for (unsigned i = 0; i < 100; i++) { /* what recovery of a damaged pool may ask for; the free list goes first */
        sentence_forget();
        int code = manager_acquire(&f.pool->manager, SEGMENT_KIND_SMALL, 0, &s, &lsn);
        if (code != 0) {
            ck_assert_int_eq(code, PA_ECORRUPT);
            ck_assert(sentence_is_good(f.dir.text));
            break;
        }
        ck_assert_uint_lt(i, 99);
    }
    CK_OK(manager_huge_claim(&f.pool->manager, HUGE, 4096, -1, &huge));
    CK_FAILS(manager_huge_create(&f.pool->manager, huge), PA_ECORRUPT, f.dir.text);
    ck_assert_int_ne(dir_unlink(&f.pool->dir, f.segment, true), 0);
    ck_assert_int_ne(dir_rename(&f.pool->dir, f.segment, "elsewhere"), 0);
    CK_OK(pa_close(f.pool));
    ck_assert_uint_eq(temp_hash_dir(f.dir.text), before);
}
END_TEST

/* --- things that are no regular files ---------------------------------------------------------------------------------------------- */

enum thing { DIRECTORY, LINK, PIPE, SOCKET, THINGS };

static void make_thing(const char *path, enum thing thing, const char *good)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = -1;
    switch (thing) {
    case DIRECTORY:
        ck_assert_int_eq(mkdir(path, 0700), 0);
        break;
    case LINK:
        ck_assert_int_eq(symlink(good, path), 0);
        break;
    case PIPE:
        ck_assert_int_eq(mkfifo(path, 0600), 0);
        break;
    default:
        fd = socket(AF_UNIX, SOCK_STREAM, 0);
        ck_assert_uint_lt(strlen(path), sizeof address.sun_path);
        memcpy(address.sun_path, path, strlen(path));
        ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
        close(fd);
    }
}

/* Was the file opened, by whatever name? */
static bool was_opened(int watch)
{
    char events[4096];
    ssize_t n = read(watch, events, sizeof events);
    return n > 0;
}

static void things_are_refused(const struct fixture *f, const char *name)
{
    struct temp_path file = at(f, name), good = temp_new();
    ck_assert_int_eq(rename(file.text, good.text), 0);
    for (enum thing thing = DIRECTORY; thing < THINGS; thing++) {
        pa_pool *pool;
        make_thing(file.text, thing, good.text);
        int watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
        ck_assert_int_ge(inotify_add_watch(watch, file.text, IN_OPEN | IN_DONT_FOLLOW), 0);
        CK_FAILS(pa_open(f->dir.text, NULL, &pool), PA_ECORRUPT, name);
        ck_assert_int_eq(pa_check(f->dir.text, NULL), PA_ECORRUPT);
        EXPECT(!was_opened(watch), "%s was opened though it is thing %d", file.text, (int)thing);
        close(watch);
        temp_remove(file.text);
    }
    ck_assert_int_eq(rename(good.text, file.text), 0);
}

START_TEST(what_is_no_regular_file_is_refused_and_not_opened)
{
    struct fixture f;
    fixture_make_in(&f, true);
    CK_OK(pa_close(f.pool));
    things_are_refused(&f, "pool.pa");
    things_are_refused(&f, f.segment);
    things_are_refused(&f, f.huge);
    things_are_refused(&f, "dir-1/" MEMBER_FILE_NAME);
    CK_OK(pa_check(f.dir.text, NULL));
}
END_TEST

START_TEST(what_is_no_regular_file_stops_a_creation)
{
    for (enum thing thing = DIRECTORY; thing < THINGS; thing++) {
        struct temp_path dir = temp_new(), good = temp_new();
        temp_make_dir(dir.text);
        temp_write_file(good.text, "mine", 4);
        pa_pool *pool;
        struct temp_path fresh = temp_join(dir.text, "pool.pa.new"), member = temp_join(dir.text, MEMBER_FILE_NAME);
        make_thing(fresh.text, thing, good.text);
        CK_FAILS(pa_create(dir.text, NULL, &pool), PA_ECORRUPT, "pool.pa.new");
        temp_remove(fresh.text);
        make_thing(member.text, thing, good.text);
        CK_FAILS(pa_create(dir.text, NULL, &pool), PA_ECORRUPT, MEMBER_FILE_NAME);
        temp_remove(member.text);
        make_thing(temp_join(dir.text, "pool.pa").text, thing, good.text);
        CK_FAILS(pa_create(dir.text, NULL, &pool), PA_EEXIST, dir.text);
        ck_assert_uint_eq(temp_file_size(good.text), 4);
    }
}
END_TEST

/* --- who may see and inherit ------------------------------------------------------------------------------------------------------- */

static void modes_are_private(const char *path)
{
    char names[64][64];
    size_t n = temp_list(path, "", names, 64);
    ck_assert_uint_gt(n, 0);
    for (size_t i = 0; i < n; i++) {
        struct stat s;
        ck_assert_int_eq(lstat(temp_join(path, names[i]).text, &s), 0);
        EXPECT(!S_ISREG(s.st_mode) || (s.st_mode & 07777) == 0600, "%s has mode %o", names[i], s.st_mode & 07777);
    }
}

START_TEST(files_are_private_and_descriptors_end_at_exec)
{
    struct fixture f;
    mode_t before = umask(0);
    fixture_make_in(&f, true);
    umask(before);
    modes_are_private(f.dir.text);
    modes_are_private(f.further.text);
    unsigned found = 0;
    for (int fd = 0; fd < 256; fd++) {
        char self[64], path[TEMP_PATH_MAX];
        snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(self, path, sizeof path - 1);
        path[n < 0 ? 0 : n] = '\0';
        if (strncmp(path, f.dir.text, strlen(f.dir.text)) != 0 &&
            strncmp(path, f.further.text, strlen(f.further.text)) != 0)
            continue;
        found++;
        EXPECT((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0, "the descriptor of %s would be inherited", path);
    }
    ck_assert_uint_ge(found, 2); /* directory and pool file */
    CK_OK(pa_close(f.pool));
}
END_TEST

/* --- names ------------------------------------------------------------------------------------------------------------------------- */

START_TEST(names_that_look_like_the_pools_are_nobodys)
{
    static const char *const names[] = {"segment-1.pa",
                                        "segment-+0000001.pa",
                                        "segment- 0000001.pa",
                                        "segment-0x00001.pa",
                                        "segment-00000001.pa.bak",
                                        "segment-100000001.pa",
                                        "segment-0000000A.pa",
                                        "segment-deadlines.txt",
                                        "huge-00000001",
                                        "huge--0000001.pa",
                                        "segment-.pa",
                                        "huge-99999999999999999999.pa",
                                        "segment-0000000\n1.pa",
                                        "huge-\033[2J00000001.pa"};
    struct fixture f;
    fixture_make(&f);
    CK_OK(pa_close(f.pool));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        temp_write_file(at(&f, names[i]).text, "mine", 4);
    char *report;
    CK_OK(pa_check(f.dir.text, &report));
    ck_assert_ptr_null(strstr(report, "note"));
    free(report);
    CK_OK(pa_repair(f.dir.text, NULL, NULL));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        ck_assert_uint_eq(temp_file_size(at(&f, names[i]).text), 4);
    /* Spelled as the library does, of no slot: told, and moved away by a repair. */
    temp_write_file(at(&f, "segment-ffffffff.pa").text, "mine", 4);
    CK_OK(pa_check(f.dir.text, &report));
    ck_assert_ptr_nonnull(strstr(report, "segment-ffffffff.pa"));
    free(report);
    CK_OK(pa_open(f.dir.text, NULL, &f.pool));
    CK_OK(pa_close(f.pool));
}
END_TEST

START_TEST(thousands_of_strange_files_are_no_matter)
{
    struct fixture f;
    fixture_make(&f);
    CK_OK(pa_close(f.pool));
    for (unsigned i = 0; i < 5000; i++) {
        char name[64];
        snprintf(name, sizeof name, i % 2 == 0 ? "segment-%08x.pa" : "huge-%08x.pa", 1000000 + i * 7919);
        temp_write_file(at(&f, name).text, "", 0);
    }
    CK_OK(pa_check(f.dir.text, NULL));
    CK_OK(pa_open(f.dir.text, NULL, &f.pool));
    CK_OK(pa_close(f.pool));
}
END_TEST

START_TEST(control_characters_do_not_get_into_sentences)
{
    struct temp_path base = temp_new();
    temp_make_dir(base.text);
    struct temp_path dir = temp_join(base.text, "a\nb\033[2Jc\x7f");
    pa_pool *pool;
    CK_FAILS(pa_open(dir.text, NULL, &pool), PA_ENOENT, "a?b?[2Jc?");
    pa_options options;
    pa_options_init(&options);
    options.segment_size = SEGMENT_SIZE;
    options.layout = "one\ntwo\033";
    CK_OK(pa_create(dir.text, &options, &pool));
    CK_OK(pa_close(pool));
    options.layout = "three";
    CK_FAILS(pa_open(dir.text, &options, &pool), PA_ELAYOUT, "one?two?");
}
END_TEST

START_TEST(the_reason_is_there_whatever_the_length_of_the_name)
{
    char path[4000] = "/dev/shm";
    while (strlen(path) < 3000)
        strcat(path, "/a-long-name-of-a-directory-that-is-not-there");
    pa_pool *pool;
    CK_FAILS(pa_open(path, NULL, &pool), PA_ENOENT, "No such file or directory");
}
END_TEST

START_TEST(a_relative_name_is_good_after_chdir)
{
    struct temp_path base = temp_new();
    temp_make_dir(base.text);
    char *before = getcwd(NULL, 0);
    ck_assert_int_eq(chdir(base.text), 0);
    pa_options options;
    pa_options_init(&options);
    options.segment_size = SEGMENT_SIZE;
    const char *dirs[] = {"further"};
    options.dirs = dirs;
    options.ndirs = 1;
    pa_pool *pool;
    CK_OK(pa_create("pool", &options, &pool));
    ck_assert_int_eq(chdir("/"), 0);
    struct owners o;
    CK_OK(owners_open(&o, pool, OWNERS));
    for (size_t i = 0; i < 10; i++)
        CK_OK(pa_allocate(pool, owners_at(&o, i), 400000)); /* new files, in both directories */
    pa_stats stats;
    CK_OK(pa_get_stats(pool, &stats));
    CK_OK(pa_close(pool));
    CK_OK(pa_check(temp_join(base.text, "pool").text, NULL));
    ck_assert_int_eq(chdir(before), 0);
    free(before);
}
END_TEST

/* --- member.pa at its extremes ------------------------------------------------------------------------------------------------------ */

static void seal_member(char *data, size_t size)
{
    struct pm_member *m = (struct pm_member *)data;
    m->checksum = 0;
    m->checksum = XXH3_64bits(data, size);
}

static void stands_it(const struct fixture *f, const char *good, size_t size)
{
    struct temp_path file = at(f, "dir-1/" MEMBER_FILE_NAME);
    sentence_forget();
    int code = pa_check(f->dir.text, NULL);
    EXPECT(code == 0 || (code == PA_ECORRUPT && sentence_is_good("dir-1")), "%s: %s", pa_strerror(code), pa_errormsg());
    pa_pool *pool;
    int opened = pa_open(f->dir.text, NULL, &pool);
    ck_assert_int_eq(opened, code);
    if (opened == 0)
        CK_OK(pa_close(pool));
    int created = pa_create(f->further.text, NULL, &pool);
    EXPECT(created == PA_EEXIST || created == PA_ECORRUPT, "%s: %s", pa_strerror(created), pa_errormsg());
    temp_write_file(file.text, good, size);
}

START_TEST(each_field_of_a_member_file_at_its_extremes_is_told)
{
    static const struct {
        size_t offset, bytes;
    } fields[] = {{offsetof(struct pm_member, magic), 8},   {offsetof(struct pm_member, version), 4},
                  {offsetof(struct pm_member, number), 2},  {offsetof(struct pm_member, directories), 2},
                  {offsetof(struct pm_member, uuid), 8},    {offsetof(struct pm_member, path_bytes), 8},
                  {offsetof(struct pm_member, checksum), 8}};
    static const uint64_t values[] =
        {0,          1,         2,          3,         4095,       4096,           4097,
         UINT16_MAX, INT32_MAX, UINT32_MAX, INT64_MAX, 1ull << 63, UINT64_MAX - 1, UINT64_MAX};
    struct fixture f;
    fixture_make_in(&f, true);
    CK_OK(pa_close(f.pool));
    struct temp_path file = at(&f, "dir-1/" MEMBER_FILE_NAME);
    size_t size;
    char *good = temp_read_file(file.text, &size), *bad = malloc(size);
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        for (size_t k = 0; k < sizeof values / sizeof *values; k++)
            for (int seal = 0; seal < 2; seal++) {
                memcpy(bad, good, size);
                memcpy(bad + fields[i].offset, &values[k], fields[i].bytes);
                if (seal == 1)
                    seal_member(bad, size);
                temp_write_file(file.text, bad, size);
                stands_it(&f, good, size);
            }
    free(good);
    free(bad);
    CK_OK(pa_check(f.dir.text, NULL));
}
END_TEST

static void add(Suite *s)
{
    ADD(s, another_file_in_a_segments_place_is_not_touched, 20);
    ADD(s, another_file_in_a_huge_blocks_place_is_not_touched, 20);
    ADD(s, a_file_that_was_cut_is_told_where_it_is_opened_again, 20);
    ADD(s, a_read_only_pool_makes_and_removes_no_file, 20);
    ADD(s, what_is_no_regular_file_is_refused_and_not_opened, 20);
    ADD(s, what_is_no_regular_file_stops_a_creation, 20);
    ADD(s, files_are_private_and_descriptors_end_at_exec, 20);
    ADD(s, names_that_look_like_the_pools_are_nobodys, 20);
    ADD(s, thousands_of_strange_files_are_no_matter, 30);
    ADD(s, control_characters_do_not_get_into_sentences, 20);
    ADD(s, the_reason_is_there_whatever_the_length_of_the_name, 20);
    ADD(s, a_relative_name_is_good_after_chdir, 20);
    ADD(s, each_field_of_a_member_file_at_its_extremes_is_told, 30);
}

int main(int argc, char **argv)
{
    return run_main(argc, argv, "files_fault", add);
}
