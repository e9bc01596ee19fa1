/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_fork_race.c -- fork while threads use a pool, and pa_close while calls run.
 *
 * A child holds copies of locks that nobody will release and of lists that are half changed. It may close its copy of the pool or
 * leave; either way nothing may happen to the pool, and the parent goes on.
 */
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pool/pool.h"
#include "tests/support/owners.h"
#include "tests/support/random.h"
#include "tests/support/run.h"
#include "tests/support/temp.h"

#define WORKERS    4u
#define OWN_OWNERS 64u

enum exit_code { FINE, CLOSE_FAILED, STILL_MAPPED, STILL_OPEN, LOCK_LOST };

struct busy {
    struct owners o;
    atomic_bool stop;
    atomic_uint next;
    atomic_uint_fast64_t operations;
};

static size_t any_size(struct random *r)
{
    uint64_t kind = random_below(r, 100);
    if (kind == 0)
        return (1u << 20) + (size_t)random_below(r, 2u << 20); /* huge: segments have 1 MiB */
    return kind < 10 ? 16384 + (size_t)random_below(r, 300000) : random_size(r, 16384);
}

static void *work(void *arg)
{
    struct busy *b = arg;
    unsigned number = atomic_fetch_add(&b->next, 1);
    struct random r = {run_seed() + number};
    while (!atomic_load(&b->stop)) {
        pa_pptr *dst = owners_at(&b->o, number * OWN_OWNERS + random_below(&r, OWN_OWNERS));
        uint64_t kind = random_below(&r, 200);
        if (kind == 0)
            CK_OK(pa_defragment(b->o.pool, 4u << 20, NULL));
        else if (kind < 10)
            CK_OK(pa_reallocate(b->o.pool, dst, any_size(&r)));
        else if (pa_is_null(*dst))
            CK_OK(pa_allocate(b->o.pool, dst, any_size(&r)));
        else
            CK_OK(pa_deallocate(b->o.pool, dst));
        atomic_fetch_add(&b->operations, 1);
    }
    return NULL;
}

/* Is a file of the directory still mapped by this process? */
static bool is_mapped(const char *dir)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[1024];
    bool found = false;
    while (maps != NULL && !found && fgets(line, sizeof line, maps) != NULL)
        found = strstr(line, dir) != NULL;
    if (maps != NULL)
        fclose(maps);
    return found;
}

/* Does a descriptor of this process lead to the directory or to the file with the lock? One of another file may be there, if a thread
 * of the parent had that file open for a moment. */
static bool is_open(const char *dir)
{
    struct temp_path lock_file = temp_join(dir, POOL_FILE_NAME);
    for (int fd = 3; fd < 256; fd++) {
        char name[64], target[512];
        snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(name, target, sizeof target - 1);
        if (n < 0)
            continue;
        target[n] = '\0';
        if (strcmp(target, dir) == 0 || strcmp(target, lock_file.text) == 0)
            return true;
    }
    return false;
}

/* In the child. */
static enum exit_code close_copy(pa_pool *pool, const char *dir)
{
    if (pa_close(pool) != 0)
        return CLOSE_FAILED;
    if (is_mapped(dir))
        return STILL_MAPPED;
    return is_open(dir) ? STILL_OPEN : FINE;
}

static void expect_fine(pid_t child)
{
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == FINE, "the child ended with status %#x", (unsigned)status);
}

START_TEST(children_of_a_busy_process_close_their_copy_or_leave)
{
    struct temp_path dir = temp_new();
    static struct busy b;
    pa_pool *pool = pool_make(dir.text);
    CK_OK(owners_open(&b.o, pool, WORKERS * OWN_OWNERS));
    pthread_t threads[WORKERS];
    for (unsigned i = 0; i < WORKERS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, work, &b), 0);
    unsigned forks = (unsigned)run_option("forks", 60);
    for (unsigned i = 0; i < forks; i++) {
        usleep(2000);
        pid_t child = fork();
        ck_assert_int_ge(child, 0);
        if (child == 0) {
            alarm(60); /* a lock that nobody holds any more must not be waited for */
            _exit(i % 3 == 0 ? FINE : close_copy(pool, dir.text));
        }
        expect_fine(child);
    }
    uint64_t before = atomic_load(&b.operations);
    while (atomic_load(&b.operations) < before + 500)
        usleep(1000); /* the parent goes on */
    atomic_store(&b.stop, true);
    for (unsigned i = 0; i < WORKERS; i++)
        pthread_join(threads[i], NULL);
    run_count(atomic_load(&b.operations));
    owners_verify(&b.o);
    pool_finish(pool, dir.text);
    pool = pool_reopen(dir.text);
    CK_OK(owners_open(&b.o, pool, WORKERS * OWN_OWNERS));
    owners_verify(&b.o);
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(a_child_that_closes_changes_no_byte_and_keeps_the_parents_lock)
{
    struct temp_path dir = temp_new();
    pa_pool *pool = pool_make(dir.text), *second = NULL;
    struct owners o;
    CK_OK(owners_open(&o, pool, 600));
    for (size_t i = 0; i < 600; i++)
        CK_OK(pa_allocate(pool, owners_at(&o, i), 16 + i * 50));
    for (size_t i = 0; i < 600; i += 2)
        CK_OK(pa_deallocate(pool, owners_at(&o, i)));
    uint64_t before = temp_hash_dir(dir.text);
    pid_t child = fork();
    if (child == 0) {
        enum exit_code code = close_copy(pool, dir.text);
        if (code == FINE && pa_open(dir.text, NULL, &second) != PA_ELOCKED)
            code = LOCK_LOST;
        _exit(code);
    }
    expect_fine(child);
    ck_assert_uint_eq(temp_hash_dir(dir.text), before);
    CK_FAILS(pa_open(dir.text, NULL, &second), PA_ELOCKED, dir.text);
    owners_verify(&o);
    pool_finish(pool, dir.text);
}
END_TEST

START_TEST(a_child_that_closed_does_not_keep_the_pool_locked)
{
    struct temp_path dir = temp_new();
    pa_pool *pool = pool_make(dir.text);
    int ready[2], go[2];
    char c = 0;
    ck_assert(pipe(ready) == 0 && pipe(go) == 0);
    pid_t child = fork();
    if (child == 0) {
        enum exit_code code = close_copy(pool, dir.text);
        if (write(ready[1], &c, 1) != 1 || read(go[0], &c, 1) != 1)
            _exit(99);
        _exit(code);
    }
    ck_assert_int_eq(read(ready[0], &c, 1), 1);
    CK_OK(pa_close(pool));
    pool = pool_reopen(dir.text); /* the child lives on */
    ck_assert_int_eq(write(go[1], &c, 1), 1);
    expect_fine(child);
    pool_finish(pool, dir.text);
}
END_TEST

/* --- pa_close too early ---------------------------------------------------------------------------------------------------- */

struct visit {
    pa_pool *pool;
    sem_t inside, leave;
};

static int stay(pa_pptr block, size_t usable_size, void *arg)
{
    struct visit *v = arg;
    (void)block;
    (void)usable_size;
    sem_post(&v->inside);
    while (sem_wait(&v->leave) != 0)
        ;
    return 7;
}

static void *visit(void *arg)
{
    struct visit *v = arg;
    return (void *)(intptr_t)pa_foreach(v->pool, stay, v);
}

START_TEST(closing_while_calls_run_is_refused_where_calls_are_counted)
{
    struct temp_path dir = temp_new();
    struct owners o;
    pa_pool *pool = owners_make(&o, dir.text, 10);
    CK_OK(pa_allocate(pool, owners_at(&o, 0), 100));
    CK_FAILS(pa_allocate(pool, owners_at(&o, 0), 100), PA_EINVAL, NULL); /* a call that fails has ended too */
    if (pool_counts_calls) {
        struct visit v = {.pool = pool};
        pthread_t threads[2];
        void *result;
        sem_init(&v.inside, 0, 0);
        sem_init(&v.leave, 0, 0);
        for (int i = 0; i < 2; i++)
            ck_assert_int_eq(pthread_create(&threads[i], NULL, visit, &v), 0);
        for (int i = 0; i < 2; i++)
            sem_wait(&v.inside);
        CK_FAILS(pa_close(pool), PA_EINVAL, "2 calls");
        CK_OK(pa_allocate(pool, owners_at(&o, 1), 100)); /* it stays open */
        sem_post(&v.leave);
        sem_post(&v.leave);
        for (int i = 0; i < 2; i++) {
            pthread_join(threads[i], &result);
            ck_assert_int_eq((intptr_t)result, 7);
        }
        owners_verify(&o);
    } else {
        fprintf(stderr, "built without assertions: calls are not counted\n");
    }
    pool_finish(pool, dir.text);
}
END_TEST

static void add(Suite *s)
{
    ADD(s, children_of_a_busy_process_close_their_copy_or_leave, 120);
    ADD(s, a_child_that_closes_changes_no_byte_and_keeps_the_parents_lock, 60);
    ADD(s, a_child_that_closed_does_not_keep_the_pool_locked, 60);
    ADD(s, closing_while_calls_run_is_refused_where_calls_are_counted, 60);
}

int main(int argc, char **argv)
{
    return run_main(argc, argv, "fork", add);
}
