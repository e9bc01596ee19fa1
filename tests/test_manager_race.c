/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_manager_race.c -- files that come and go while others look at them. Each test brings the moment about: the hook on a file operation of
 * one thread waits until another thread is where it should be.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "pool/pool.h"
#include "tests/support/owners.h"
#include "tests/support/run.h"
#include "tests/support/temp.h"

#define MIB (1u << 20)

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* For at most two seconds: what is waited for may be impossible, which is what the test wants to see. */
static void await(atomic_bool *flag)
{
    for (unsigned i = 0; i < 2000 && !atomic_load(flag); i++)
        nap();
}

static pa_pool *open_with(const char *dir, const struct file_hooks *hooks, uint64_t max_size, bool create)
{
    pa_options o;
    pa_options_init(&o);
    o.segment_size = MIB;
    o.cores = 2;
    o.flags = PA_NO_BACKGROUND;
    o.max_size = max_size;
    struct pool_params params = {.hooks = hooks};
    pa_pool *pool = NULL;
    CK_OK(create ? pool_create_ex(dir, &o, &params, &pool) : pool_open_ex(dir, &o, &params, &pool));
    return pool;
}

/* --- statistics while a creation fails --------------------------------------------------------------------------------------- */

static struct {
    atomic_bool armed, mapped, looked_at, told, gone;
    char name[32]; /* of the file that is not going to be */
} failing;
static _Thread_local bool makes; /* this thread makes the spare segment */

/* The file is there and mapped, then its sync fails; meanwhile the statistics are on their way to it, if they go there. */
static int fail_in_the_middle(void *context, enum file_op op, const char *name, const char *site)
{
    (void)context, (void)site;
    if (!atomic_load(&failing.armed))
        return 0;
    if (makes && op == FILE_OP_SYNC && strncmp(name, "segment-", 8) == 0) {
        memcpy(failing.name, name, strlen(name) + 1);
        atomic_store(&failing.mapped, true);
        for (unsigned i = 0; i < 2000 && !atomic_load(&failing.looked_at) && !atomic_load(&failing.told); i++)
            nap();
        return EIO;
    }
    if (!makes && op == FILE_OP_STAT && strcmp(name, failing.name) == 0) {
        atomic_store(&failing.looked_at, true);
        await(&failing.gone);
    }
    return 0;
}

static void note_gone(void *context, const struct dir *d, enum file_op op, const char *name, uint64_t offset,
                      uint64_t size, void *address, const char *site)
{
    (void)context, (void)d, (void)offset, (void)size, (void)address, (void)site;
    if (makes && op == FILE_OP_UNLINK && strcmp(name, failing.name) == 0)
        atomic_store(&failing.gone, true);
}

static void *make_spare(void *arg)
{
    makes = true;
    return (void *)(intptr_t)manager_make_spare(&((pa_pool *)arg)->manager);
}

START_TEST(statistics_do_not_miss_a_file_whose_creation_fails)
{
    static const struct file_hooks hooks = {.before = fail_in_the_middle, .after = note_gone};
    struct temp_path dir = temp_new();
    pa_pool *pool = open_with(dir.text, &hooks, 0, true);
    struct owners o;
    CK_OK(owners_open(&o, pool, 100));
    atomic_store(&failing.armed, true);
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, make_spare, pool), 0);
    await(&failing.mapped);
    pa_stats stats;
    int code = pa_get_stats(pool, &stats);
    atomic_store(&failing.told, true);
    void *made;
    pthread_join(thread, &made);
    CK_OK(code);
    ck_assert_int_eq((intptr_t)made, PA_EIO);
    ck_assert(atomic_load(&failing.gone));
    atomic_store(&failing.armed, false);
    owners_verify(&o);
    pool_finish(pool, dir.text);
}
END_TEST

/* --- space that another thread is just freeing ---------------------------------------------------------------------------------- */

static struct {
    const char *prefix; /* of the file whose removal takes its time; NULL = none */
    atomic_bool removing, tried;
} slow;

static int remove_slowly(void *context, enum file_op op, const char *name, const char *site)
{
    (void)context, (void)site;
    if (slow.prefix != NULL && op == FILE_OP_UNLINK && strncmp(name, slow.prefix, strlen(slow.prefix)) == 0 &&
        !atomic_exchange(&slow.removing, true))
        for (unsigned i = 0; i < 300 && !atomic_load(&slow.tried); i++)
            nap();
    return 0;
}

static const struct file_hooks slow_hooks = {.before = remove_slowly};

/* A pool that may grow by so many bytes. */
static pa_pool *pool_with_room(const char *dir, struct owners *o, uint64_t bytes)
{
    pa_pool *pool = open_with(dir, NULL, 0, true);
    pa_stats stats;
    CK_OK(owners_open(o, pool, 100));
    CK_OK(pa_get_stats(pool, &stats));
    CK_OK(pa_close(pool));
    memset(&slow, 0, sizeof slow);
    pool = open_with(dir, &slow_hooks, stats.file_bytes + bytes, false);
    CK_OK(owners_open(o, pool, 100));
    return pool;
}

static void *free_first(void *arg)
{
    struct owners *o = arg;
    CK_OK(pa_deallocate(o->pool, owners_at(o, 0)));
    return NULL;
}

static void *give_back(void *arg)
{
    struct owners *o = arg;
    CK_OK(pa_defragment(o->pool, UINT64_MAX, NULL));
    return NULL;
}

/* While `go` removes a file, another thread needs its space. */
static int allocate_while(struct owners *o, void *(*go)(void *), const char *prefix, size_t size)
{
    pthread_t thread;
    slow.prefix = prefix;
    ck_assert_int_eq(pthread_create(&thread, NULL, go, o), 0);
    await(&slow.removing);
    ck_assert(atomic_load(&slow.removing));
    int code = pa_allocate(o->pool, owners_at(o, 1), size);
    atomic_store(&slow.tried, true);
    pthread_join(thread, NULL);
    slow.prefix = NULL;
    return code;
}

START_TEST(a_huge_block_gets_the_space_of_one_that_is_being_freed)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_pool *pool = pool_with_room(dir.text, &o, 5 * MIB);
    CK_OK(pa_allocate(pool, owners_at(&o, 0), 3 * MIB));
    CK_OK(allocate_while(&o, free_first, "huge-", 3 * MIB));
    owners_verify(&o);
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(a_segment_gets_the_space_of_a_huge_block_that_is_being_freed)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_pool *pool = pool_with_room(dir.text, &o, 6 * MIB);
    CK_OK(pa_allocate(pool, owners_at(&o, 0), 3 * MIB));
    for (unsigned i = 2; pa_allocate(pool, owners_at(&o, i), 600000) == 0; i++)
        ; /* full but for the huge block */
    CK_OK(allocate_while(&o, free_first, "huge-", 600000));
    owners_verify(&o);
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(a_huge_block_gets_the_space_of_segments_that_are_being_given_back)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_pool *pool = pool_with_room(dir.text, &o, 4 * MIB + MIB / 2); /* a file of 4 MiB fits if all segments are gone */
    for (unsigned i = 2; i < 6; i++)
        CK_OK(pa_allocate(pool, owners_at(&o, i), 700000));
    for (unsigned i = 2; i < 6; i++)
        CK_OK(pa_deallocate(pool, owners_at(&o, i)));
    CK_OK(allocate_while(&o, give_back, "segment-", 3 * MIB));
    owners_verify(&o);
    pool_finish(pool, dir.text);
}
END_TEST

/* What stays full is full: nobody waits for ever. */
START_TEST(without_a_removal_a_full_pool_says_so)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_pool *pool = pool_with_room(dir.text, &o, 5 * MIB);
    CK_OK(pa_allocate(pool, owners_at(&o, 0), 3 * MIB));
    CK_FAILS(pa_allocate(pool, owners_at(&o, 1), 3 * MIB), PA_ENOSPC, dir.text);
    CK_OK(pa_deallocate(pool, owners_at(&o, 0)));
    CK_FAILS(pa_allocate(pool, owners_at(&o, 1), 6 * MIB), PA_ENOSPC, dir.text);
    pool_finish(pool, dir.text);
}
END_TEST

/* --- a walk whose segment's twin gets another slot ------------------------------------------------------------------------------ */

struct walk {
    struct owners o;
    uint64_t first, changed; /* segments */
    unsigned after;          /* visits of the changed one since */
};

/* The segment at which the walk is goes, huge blocks take its slot and then its twin. */
static void take_segment_away(struct walk *w)
{
    pa_pool *pool = w->o.pool;
    CK_OK(owners_free_all(&w->o));
    CK_OK(pa_defragment(pool, UINT64_MAX, NULL));
    ck_assert(!segment_is_present(manager_segment(&pool->manager, w->changed)));
    CK_OK(pa_allocate(pool, owners_at(&w->o, 0), 64 * MIB));
    ck_assert_uint_le(owners_at(&w->o, 0)->segment, w->changed);
    for (unsigned i = 1; i < 40; i++)
        CK_OK(pa_allocate(pool, owners_at(&w->o, i), MIB));
}

static int see(pa_pptr block, size_t usable, void *arg)
{
    struct walk *w = arg;
    if (usable > 16384)
        return 0;
    if (w->first == 0)
        w->first = block.segment;
    if (w->changed != 0) {
        ck_assert_uint_eq(block.segment, w->changed);
        w->after++;
    } else if (block.segment != w->first) {
        w->changed = block.segment;
        take_segment_away(w);
    }
    return 0;
}

START_TEST(a_walk_names_its_segment_though_the_twin_serves_another)
{
    struct temp_path dir = temp_new();
    pa_options options;
    pa_options_init(&options);
    options.segment_size = MIB;
    options.cores = 1;
    options.flags = PA_NO_BACKGROUND | PA_SPARSE;
    pa_pool *pool = NULL;
    CK_OK(pa_create(dir.text, &options, &pool));
    struct walk w = {.first = 0};
    CK_OK(owners_open(&w.o, pool, 400));
    for (unsigned i = 0; i < 400; i++)
        CK_OK(pa_allocate(pool, owners_at(&w.o, i), 16000));
    CK_OK(pa_foreach(pool, see, &w));
    ck_assert_uint_gt(w.after, 0);
    owners_verify(&w.o);
    pool_finish(pool, dir.text);
}
END_TEST

/* --- an index that is read without its core locked, while others make segments ------------------------------------------------------ */

#define MADE 20u
static struct {
    pa_pool *pool; /* NULL: done */
    struct segment *at[MADE];
    uint64_t lsn;
} made_meanwhile;

/* The reader asks how much of a free segment is resident: then others take segments behind all that it knew of. */
static int make_segments(void *context, enum file_op op, const char *name, const char *site)
{
    (void)context, (void)name, (void)site;
    pa_pool *pool = made_meanwhile.pool;
    if (op != FILE_OP_STAT || pool == NULL)
        return 0;
    made_meanwhile.pool = NULL;
    for (unsigned i = 0; i < MADE; i++)
        CK_OK(manager_acquire(&pool->manager, SEGMENT_KIND_SMALL, 0, &made_meanwhile.at[i], &made_meanwhile.lsn));
    return 0;
}

/* AddressSanitizer sees what is read behind the end. */
START_TEST(an_index_is_read_while_others_make_segments)
{
    static const struct file_hooks hooks = {.before = make_segments};
    struct temp_path dir = temp_new();
    pa_pool *pool = open_with(dir.text, NULL, 0, true);
    struct owners o;
    CK_OK(owners_open(&o, pool, 100));
    for (unsigned i = 0; i < 4; i++)
        CK_OK(pa_allocate(pool, owners_at(&o, i), 700000));
    uint32_t number = atomic_load(&manager_segment(&pool->manager, owners_at(&o, 0)->segment)->owner);
    for (unsigned i = 0; i < 3; i++)
        CK_OK(pa_deallocate(pool, owners_at(&o, i)));
    pool_abandon(pool);
    pool = open_with(dir.text, &hooks, 0, false);
    made_meanwhile.pool = pool;
    CK_OK(pool_read_index(pool, number));
    ck_assert_ptr_null(made_meanwhile.pool);
    for (unsigned i = 0; i < MADE; i++)
        manager_discard(&pool->manager, made_meanwhile.at[i], made_meanwhile.lsn);
    CK_OK(owners_open(&o, pool, 100));
    owners_verify(&o);
    pool_finish(pool, dir.text);
}
END_TEST

static void add(Suite *s)
{
    ADD(s, statistics_do_not_miss_a_file_whose_creation_fails, 30);
    ADD(s, a_huge_block_gets_the_space_of_one_that_is_being_freed, 30);
    ADD(s, a_segment_gets_the_space_of_a_huge_block_that_is_being_freed, 30);
    ADD(s, a_huge_block_gets_the_space_of_segments_that_are_being_given_back, 30);
    ADD(s, without_a_removal_a_full_pool_says_so, 30);
    ADD(s, a_walk_names_its_segment_though_the_twin_serves_another, 30);
    ADD(s, an_index_is_read_while_others_make_segments, 30);
}

int main(int argc, char **argv)
{
    return run_main(argc, argv, "manager", add);
}
