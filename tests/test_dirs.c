/* SPDX-License-Identifier: BSD-3-Clause */
/* test_dirs.c -- pools whose files are spread over several directories. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pool/pool.h"
#include "tests/support/mount.h"
#include "tests/support/owners.h"
#include "tests/support/run.h"
#include "tests/support/temp.h"

#define MIB  (1u << 20)
#define DIRS 3u

/* A pool's directory and the further ones. */
struct places {
    struct temp_path main, more[DIRS];
    const char *dirs[DIRS];
};

static struct places places_new(void)
{
    struct places p = {.main = temp_new()};
    for (unsigned i = 0; i < DIRS; i++)
        p.more[i] = temp_new();
    return p;
}

static pa_options options_with(struct places *p, unsigned n)
{
    pa_options o;
    pa_options_init(&o);
    o.segment_size = MIB;
    o.flags = PA_NO_BACKGROUND;
    for (unsigned i = 0; i < DIRS; i++)
        p->dirs[i] = p->more[i].text;
    o.dirs = p->dirs;
    o.ndirs = n;
    return o;
}

static pa_pool *create(struct places *p)
{
    pa_options o = options_with(p, DIRS);
    pa_pool *pool = NULL;
    CK_OK(pa_create(p->main.text, &o, &pool));
    return pool;
}

static size_t count(const char *dir, const char *prefix)
{
    char names[64][64];
    return temp_list(dir, prefix, names, 64);
}

static void fill(const struct owners *o, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t size = i % 50 == 7 ? 2 * MIB : 40000;
        CK_OK(pa_allocate(o->pool, owners_at(o, i), size));
        block_fill(pa_direct(o->pool, *owners_at(o, i)), size, i);
    }
}

static void verify(const struct owners *o, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ck_assert(block_is(pa_direct(o->pool, *owners_at(o, i)), i % 50 == 7 ? 2 * MIB : 40000, i));
    owners_verify(o);
}

START_TEST(files_are_spread_over_all_directories_and_found_again)
{
    struct places p = places_new();
    pa_pool *pool = create(&p);
    struct owners o;
    CK_OK(owners_open(&o, pool, 400));
    fill(&o, 300);
    size_t segments = count(p.main.text, "segment-"), huge = count(p.main.text, "huge-");
    for (unsigned i = 0; i < DIRS; i++) {
        ck_assert_uint_ge(count(p.more[i].text, "segment-"), 1);
        segments += count(p.more[i].text, "segment-");
        huge += count(p.more[i].text, "huge-");
        ck_assert_uint_eq(count(p.more[i].text, "member.pa"), 1);
    }
    pa_stats s;
    CK_OK(pa_get_stats(pool, &s));
    ck_assert_uint_eq(s.segment_files, segments);
    ck_assert_uint_eq(s.huge_files, huge);
    ck_assert_uint_ge(huge, 6);
    pool_abandon(pool);
    pool = pool_reopen(p.main.text); /* without a word about directories */
    CK_OK(owners_open(&o, pool, 400));
    verify(&o, 300);
    CK_OK(owners_free_all(&o));
    CK_OK(pa_defragment(pool, UINT64_MAX, NULL));
    for (unsigned i = 0; i < DIRS; i++)
        ck_assert_uint_eq(count(p.more[i].text, "huge-"), 0);
    owners_verify(&o);
    pool_finish(pool, p.main.text);
}
END_TEST

START_TEST(a_directory_that_moved_is_named_at_open)
{
    struct places p = places_new();
    pa_pool *pool = create(&p);
    struct owners o;
    CK_OK(owners_open(&o, pool, 400));
    fill(&o, 300);
    CK_OK(pa_close(pool));
    struct temp_path moved = temp_new();
    ck_assert_int_eq(rename(p.more[1].text, moved.text), 0);
    pool = NULL;
    CK_FAILS(pa_open(p.main.text, NULL, &pool), PA_ENOENT, "dir-2");
    char *report = NULL;
    ck_assert_int_ne(pa_check(p.main.text, &report), 0);
    ck_assert_ptr_nonnull(strstr(report, "dir-2"));
    free(report);
    pa_options options = options_with(&p, DIRS);
    p.dirs[1] = p.more[2].text; /* a member, but another number */
    CK_FAILS(pa_open(p.main.text, &options, &pool), PA_EINVAL, p.more[2].text);
    p.dirs[1] = moved.text;
    CK_OK(pa_open(p.main.text, &options, &pool));
    CK_OK(owners_open(&o, pool, 400));
    verify(&o, 300);
    pool_finish(pool, p.main.text);
    pool = pool_reopen(p.main.text); /* the link stays */
    pool_finish(pool, p.main.text);
    options.ndirs = DIRS - 1;
    CK_FAILS(pa_open(p.main.text, &options, &pool), PA_EINVAL, p.main.text);
}
END_TEST

START_TEST(a_directory_of_another_pool_is_refused)
{
    struct places p = places_new(), q = places_new();
    pool_finish(create(&p), p.main.text);
    pa_pool *pool = NULL;
    pa_options options = options_with(&q, DIRS);
    q.dirs[2] = p.more[0].text; /* a member of p */
    CK_FAILS(pa_create(q.main.text, &options, &pool), PA_EEXIST, p.more[0].text);
    q.dirs[2] = p.main.text;
    CK_FAILS(pa_create(q.main.text, &options, &pool), PA_EEXIST, p.main.text);
    q.dirs[2] = q.main.text;
    CK_FAILS(pa_create(q.main.text, &options, &pool), PA_EEXIST, q.main.text);
    q.dirs[2] = q.more[0].text;
    CK_FAILS(pa_create(q.main.text, &options, &pool), PA_EINVAL, q.more[0].text);
    CK_FAILS(pa_create(p.more[1].text, NULL, &pool), PA_EEXIST, p.main.text);
    options.ndirs = PA_DIRS_MAX + 1;
    CK_FAILS(pa_create(q.main.text, &options, &pool), PA_EINVAL, NULL);
    options = options_with(&q, DIRS);
    q.dirs[0] = NULL;
    CK_FAILS(pa_create(q.main.text, &options, &pool), PA_EINVAL, NULL);
    pool = create(&q); /* what failed has left nothing in the way */
    pool_finish(pool, q.main.text);
    pool_check_sound(p.main.text);
}
END_TEST

/* A link's name is taken: by a file, a directory, a link of the user's own, or a file by the name that a link has while it is made. */
START_TEST(what_is_in_the_way_of_a_link_is_refused_and_stays)
{
    for (unsigned what = 0; what < 5; what++) {
        struct places p = places_new();
        temp_make_dir(p.main.text);
        struct temp_path own = temp_join(p.main.text, what == 4 ? "dir-3.new" : "dir-3"), inside = own;
        if (what == 0 || what == 4)
            temp_write_file(own.text, "mine", 4);
        if (what == 1) {
            temp_make_dir(own.text);
            inside = temp_join(own.text, "mine");
            temp_write_file(inside.text, "mine", 4);
        }
        if (what == 2)
            ck_assert_int_eq(symlink("/nowhere/at/all", own.text), 0);
        if (what == 3) { /* to a member of another pool */
            struct places q = places_new();
            pool_finish(create(&q), q.main.text);
            ck_assert_int_eq(symlink(q.more[2].text, own.text), 0);
        }
        pa_options o = options_with(&p, DIRS);
        pa_pool *pool = NULL;
        CK_FAILS(pa_create(p.main.text, &o, &pool), PA_EEXIST, "dir-3");
        ck_assert_uint_eq(count(p.main.text, ""), 1); /* and nothing else was made */
        for (unsigned i = 0; i < DIRS; i++)
            ck_assert_int_ne(access(p.more[i].text, F_OK), 0);
        o.ndirs = 2; /* the name is not needed */
        CK_OK(pa_create(p.main.text, &o, &pool));
        pool_finish(pool, p.main.text);
        struct stat st;
        ck_assert_int_eq(lstat(inside.text, &st), 0);
    }
}
END_TEST

/* Fails, or ends, at the n-th file operation. */
struct stopper {
    unsigned left;
    bool hit;
};

static int stop(void *context, enum file_op op, const char *name, const char *site)
{
    struct stopper *s = context;
    (void)op;
    (void)name;
    (void)site;
    if (s->left-- != 0)
        return 0;
    _exit(7);
}

START_TEST(a_creation_that_was_cut_off_anywhere_is_begun_again)
{
    struct places p = places_new();
    bool ended = false;
    for (unsigned n = 0; !ended; n++) {
        pid_t child = fork();
        if (child == 0) {
            struct stopper s = {.left = n};
            struct file_hooks hooks = {.context = &s, .before = stop};
            struct pool_params params = {.hooks = &hooks};
            pa_options o = options_with(&p, DIRS);
            pa_pool *pool = NULL;
            _exit(pool_create_ex(p.main.text, &o, &params, &pool) == 0 ? 0 : 1);
        }
        int status = 0;
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
        ck_assert(status == 0 || status == 7);
        ended = status == 0;
        pa_pool *pool = NULL;
        if (pa_open(p.main.text, NULL, &pool) == 0) {
            pool_finish(pool, p.main.text);
            temp_remove(p.main.text);
            for (unsigned i = 0; i < DIRS; i++)
                temp_remove(p.more[i].text);
        } else if (n % 2 == 0) { /* else the next attempt finds what this one left */
            pool = create(&p);
            pool_finish(pool, p.main.text);
            temp_remove(p.main.text);
            for (unsigned i = 0; i < DIRS; i++)
                temp_remove(p.more[i].text);
        }
    }
}
END_TEST

/* The first operation that is not left fails, and the process ends `more` operations later: in the cleanup. */
struct failer {
    unsigned left, more;
    bool failed;
};

static int fail_then_stop(void *context, enum file_op op, const char *name, const char *site)
{
    struct failer *f = context;
    (void)op;
    (void)name;
    (void)site;
    if (f->failed && f->more-- == 0)
        _exit(7);
    if (f->failed || f->left-- != 0)
        return 0;
    f->failed = true;
    return EIO;
}

/* 0: made; 1: failed and cleaned up; 7: cut off. */
static int create_in_a_child(struct places *p, struct failer *f)
{
    pid_t child = fork();
    if (child == 0) {
        struct file_hooks hooks = {.context = f, .before = fail_then_stop};
        struct pool_params params = {.hooks = &hooks};
        pa_options o = options_with(p, DIRS);
        pa_pool *pool = NULL;
        setenv("PMEM2_FORCE_GRANULARITY", "CACHE_LINE", 1); /* else no directory is synced after the rename */
        _exit(pool_create_ex(p->main.text, &o, &params, &pool) == 0 ? 0 : 1);
    }
    int status = 0;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status));
    return WEXITSTATUS(status);
}

START_TEST(a_creation_whose_cleanup_was_cut_off_is_begun_again)
{
    struct places p = places_new();
    int ended = 1;
    for (unsigned n = 0; ended != 0; n++) {
        ended = 7;
        for (unsigned more = 0; ended == 7; more++) {
            struct failer f = {.left = n, .more = more};
            ended = create_in_a_child(&p, &f);
            pa_pool *pool = NULL;
            if (pa_open(p.main.text, NULL, &pool) != 0)
                pool = create(&p);
            pool_finish(pool, p.main.text);
            temp_remove(p.main.text);
            for (unsigned i = 0; i < DIRS; i++)
                temp_remove(p.more[i].text);
        }
    }
}
END_TEST

/* ENOSPC for every file in one directory. */
static int full(void *context, enum file_op op, const char *name, const char *site)
{
    const char *prefix = context;
    (void)site;
    return op == FILE_OP_ALLOCATE && strncmp(name, prefix, strlen(prefix)) == 0 ? ENOSPC : 0;
}

START_TEST(a_full_directory_leaves_the_others)
{
    struct places p = places_new();
    char directory[] = "dir-2/";
    struct file_hooks hooks = {.context = directory, .before = full};
    struct pool_params params = {.hooks = &hooks};
    pa_options options = options_with(&p, DIRS);
    pa_pool *pool = NULL;
    CK_OK(pool_create_ex(p.main.text, &options, &params, &pool));
    struct owners o;
    CK_OK(owners_open(&o, pool, 400));
    fill(&o, 300);
    verify(&o, 300);
    ck_assert_uint_eq(count(p.more[1].text, "segment-"), 0);
    ck_assert_uint_eq(count(p.more[1].text, "huge-"), 0);
    pool_finish(pool, p.main.text);
}
END_TEST

/* A directory's file system with little space left gets no spare segment; another's slots serve. */
static void spares_avoid(bool further_is_tight)
{
    struct temp_path base = temp_new();
    struct temp_path tight = temp_join(base.text, "tight"), roomy = temp_join(base.text, "roomy");
    temp_make_dir(base.text);
    mount_tmpfs(tight.text, 24 * MIB);
    temp_make_dir(roomy.text);
    const char *further[] = {further_is_tight ? tight.text : roomy.text};
    const char *main_dir = further_is_tight ? roomy.text : tight.text;
    pa_options o;
    pa_options_init(&o);
    o.segment_size = MIB;
    o.flags = PA_NO_BACKGROUND;
    o.dirs = further;
    o.ndirs = 1;
    pa_pool *pool = NULL;
    CK_OK(pa_create(main_dir, &o, &pool));
    mount_eat(temp_join(tight.text, "eaten").text, mount_free_bytes(tight.text) - 3 * MIB / 2);
    struct segment *s[6];
    uint64_t lsn;
    for (unsigned i = 0; i < 6; i++) {
        CK_OK(manager_make_spare(&pool->manager));
        ck_assert_uint_eq(manager_free_count(&pool->manager), 1);
        CK_OK(manager_acquire(&pool->manager, SEGMENT_KIND_SMALL, 0, &s[i], &lsn));
        ck_assert_uint_eq(s[i]->slot % 2, further_is_tight ? 0 : 1);
    }
    for (unsigned i = 0; i < 6; i++)
        manager_discard(&pool->manager, s[i], lsn);
    pool_finish(pool, main_dir);
}

START_TEST(spare_segments_are_made_where_there_is_space)
{
    if (!mount_is_possible()) {
        fprintf(stderr, "skipped: nothing may be mounted here\n");
        return;
    }
    spares_avoid(true);
    spares_avoid(false);
}
END_TEST

static void add(Suite *s)
{
    ADD(s, files_are_spread_over_all_directories_and_found_again, 30);
    ADD(s, a_directory_that_moved_is_named_at_open, 30);
    ADD(s, a_directory_of_another_pool_is_refused, 30);
    ADD(s, what_is_in_the_way_of_a_link_is_refused_and_stays, 30);
    ADD(s, a_creation_that_was_cut_off_anywhere_is_begun_again, 60);
    ADD(s, a_creation_whose_cleanup_was_cut_off_is_begun_again, 120);
    ADD(s, a_full_directory_leaves_the_others, 30);
    ADD(s, spare_segments_are_made_where_there_is_space, 30);
}

int main(int argc, char **argv)
{
    return run_main(argc, argv, "dirs", add);
}
