/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * power_cut.c -- the program that runs when the virtual machine's power is cut, and that judges what is left.
 *
 * power_cut --dir=POOL --acked=A,B,C|none|make [--cut=CUT] [--seed=N]
 *
 * Opens the pool and judges it (ledger.h). --acked: the operations of each thread that an earlier run had reported as finished; none =
 * it had not even reported the pool, so there may be none, or half a ledger; make = make the pool. With a cut (cut.h; or "outside":
 * whoever runs the machine cuts) it then works: threads allocate, free, resize, put and remove; after some hundred operations the
 * pool is closed and opened again. Without, it ends.
 *
 * --spoil=byte|lose|leak|key does to a sound pool what no cut may do; test_judge.sh looks whether the judge sees it.
 *
 * Output: "@@ acked A,B,C" (a promise: what the next judge must find), "@@ verified N operations", "@@ unfinished" (no ledger, and
 * none was promised), "@@ work", "@@ failed: ...".
 * Exit code: 0 = all is well, 1 = not so, 2 = usage.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/daxvm/cut.h"
#include "tests/daxvm/ledger.h"
#include "tests/support/random.h"

#define SEGMENT_BYTES (1u << 20)
#define POOL_BYTES    (320ull << 20)
#define HUGE_MAX      (3u << 20)

struct run {
    const char *dir;
    uint64_t seed, round;
    bool outside, make;
    bool may_miss; /* the pool or its ledger: nobody was told of them */
    struct pool_params params;
    struct ledger ledger;
    uint64_t acked[LEDGER_THREADS];            /* what the judge must find */
    _Atomic uint64_t finished[LEDGER_THREADS]; /* by the threads of this run */
};

static _Noreturn void fail(const char *what, const char *why)
{
    cut_say("@@ failed: %s: %s", what, why);
    _exit(1);
}

static const char *option(int argc, char **argv, const char *name, const char *fallback)
{
    size_t n = strlen(name);
    for (int i = 1; i < argc; i++)
        if (strncmp(argv[i], name, n) == 0 && argv[i][n] == '=')
            return argv[i] + n + 1;
    return fallback;
}

/* --- opening and judging ---------------------------------------------------------------------------------------------------- */

static void options_of(struct run *run, pa_options *o)
{
    pa_options_init(o);
    o->segment_size = SEGMENT_BYTES;
    o->max_size = POOL_BYTES;
    o->durability = PA_DURABILITY_POWER;
    o->cores = 2 + (unsigned)(run->round % 2);
    run->round++;
}

static void say_acked(struct run *run)
{
    cut_say("@@ acked %" PRIu64 ",%" PRIu64 ",%" PRIu64, atomic_load(&run->finished[0]), atomic_load(&run->finished[1]),
            atomic_load(&run->finished[2]));
}

static pa_pool *open_pool(struct run *run, bool make)
{
    pa_options o;
    options_of(run, &o);
    pa_pool *pool = NULL;
    int r = make ? pool_create_ex(run->dir, &o, &run->params, &pool) : pool_open_ex(run->dir, &o, &run->params, &pool);
    if (r == PA_ENOENT && run->may_miss) /* what a creation left must not hinder the next one */
        r = pool_create_ex(run->dir, &o, &run->params, &pool);
    if (r != 0)
        fail("opening", pa_errormsg());
    return pool;
}

static void close_pool(pa_pool *pool)
{
    if (pa_close(pool) != 0)
        fail("closing", pa_errormsg());
}

/* The ledger; the program ends if its making was cut off before it was promised. */
static void open_ledger(struct run *run)
{
    pa_pool *pool = open_pool(run, false);
    int r = ledger_open(&run->ledger, pool);
    if (r == 1 && run->may_miss) {
        close_pool(pool);
        cut_say("@@ unfinished");
        exit(0);
    }
    if (r != 0)
        fail("the root", r == 1 ? "the ledger is gone" : pa_errormsg());
}

static void make_ledger(struct run *run)
{
    if (ledger_make(&run->ledger, open_pool(run, true)) != 0)
        fail("making the ledger", pa_errormsg());
}

static uint64_t judge(struct run *run)
{
    char message[400] = "";
    if (!ledger_verify(&run->ledger, message, sizeof message))
        fail("judging", message);
    uint64_t operations = 0;
    for (unsigned t = 0; t < LEDGER_THREADS; t++) {
        uint64_t done = run->ledger.book->intents[t].done;
        if (done < run->acked[t])
            fail("judging", "finished operations are missing");
        operations += done;
        atomic_store(&run->finished[t], done);
    }
    return operations;
}

/* --- working ------------------------------------------------------------------------------------------------------------------- */

struct worker {
    struct run *run;
    unsigned thread, steps;
    struct random random;
};

static uint64_t some_size(struct random *r)
{
    uint64_t choice = random_below(r, 120); /* large ones are rare: each new page costs the file system a commit */
    uint64_t size = choice == 0  ? 1 + random_below(r, HUGE_MAX)
                    : choice < 6 ? 1 + random_below(r, 300000)
                                 : random_size(r, 16000);
    return (size + 7) & ~7ull;
}

static int one_block(struct worker *w, uint64_t tag)
{
    struct ledger *l = &w->run->ledger;
    uint64_t which = w->thread * LEDGER_OWNERS + random_below(&w->random, LEDGER_OWNERS);
    uint64_t size = some_size(&w->random);
    if (pa_is_null(l->owners[which]))
        return ledger_do(l, w->thread, LEDGER_ALLOCATE, which, size, tag);
    if (random_below(&w->random, 4) == 0)
        return ledger_do(l, w->thread, LEDGER_RESIZE, which, size, tag);
    return ledger_do(l, w->thread, LEDGER_FREE, which, 0, tag);
}

static int one_key(struct worker *w, uint64_t tag)
{
    struct ledger *l = &w->run->ledger;
    uint64_t which = w->thread * LEDGER_KEYS + random_below(&w->random, LEDGER_KEYS);
    bool put = l->book->values[which] == 0 || random_below(&w->random, 3) != 0;
    return ledger_do(l, w->thread, put ? LEDGER_PUT : LEDGER_REMOVE, which, 0, tag);
}

static int one_operation(struct worker *w)
{
    uint64_t tag = random_next(&w->random) | 1, choice = random_below(&w->random, 200);
    if (choice == 0)
        return pa_defragment(w->run->ledger.pool, random_below(&w->random, 2) == 0 ? UINT64_MAX : 4u << 20, NULL);
    return choice < 50 ? one_key(w, tag) : one_block(w, tag);
}

static void *work(void *arg)
{
    struct worker *w = arg;
    for (unsigned i = 0; i < w->steps; i++) {
        if (one_operation(w) != 0)
            fail("working", pa_errormsg());
        atomic_store(&w->run->finished[w->thread], w->run->ledger.book->intents[w->thread].done);
    }
    return NULL;
}

static void *report(void *arg)
{
    struct timespec t = {0, 50000000};
    for (;;) {
        say_acked(arg);
        nanosleep(&t, NULL);
    }
    return NULL;
}

static void start(pthread_t *thread, void *(*run)(void *), void *arg)
{
    if (pthread_create(thread, NULL, run, arg) != 0)
        fail("working", "no thread");
}

/* Some operations by every thread, then out and in again. */
static void one_round(struct run *run, struct random *r)
{
    struct worker workers[LEDGER_THREADS];
    pthread_t threads[LEDGER_THREADS];
    unsigned steps = 20 + (unsigned)random_below(r, 700);
    for (unsigned t = 0; t < LEDGER_THREADS; t++) {
        workers[t] = (struct worker){run, t, steps, {random_next(r)}};
        start(&threads[t], work, &workers[t]);
    }
    for (unsigned t = 0; t < LEDGER_THREADS; t++)
        pthread_join(threads[t], NULL);
    pa_pool *pool = run->ledger.pool;
    ledger_close(&run->ledger);
    close_pool(pool);
    open_ledger(run);
}

static void work_until_the_cut(struct run *run)
{
    struct random r = {run->seed};
    pthread_t reporter;
    start(&reporter, report, run);
    cut_say("@@ work");
    for (;;)
        one_round(run, &r);
}

/* --- spoiling ------------------------------------------------------------------------------------------------------------------ */

/* An owner that names a block. */
static pa_pptr *some_owner(const struct ledger *l)
{
    for (uint64_t i = 0; i < LEDGER_THREADS * LEDGER_OWNERS; i++)
        if (!pa_is_null(l->owners[i]))
            return &l->owners[i];
    fail("spoiling", "there is no block");
}

static int spoil(struct ledger *l, const char *how)
{
    pa_pptr *owner = some_owner(l);
    if (strcmp(how, "byte") == 0) {
        *(unsigned char *)pa_direct(l->pool, *owner) ^= 1;
        return 0;
    }
    if (strcmp(how, "lose") == 0)
        return pa_deallocate(l->pool, owner);
    if (strcmp(how, "leak") == 0) { /* the book knows nothing of it either */
        l->book->blocks[owner - l->owners].size = 0;
        *owner = PA_NULL;
        return 0;
    }
    if (strcmp(how, "key") == 0)
        return fptree_upsert(l->tree, 1, UINT64_MAX);
    return PA_EINVAL;
}

static bool read_acked(struct run *run, const char *text)
{
    run->may_miss = strcmp(text, "none") == 0;
    run->make = strcmp(text, "make") == 0;
    return run->may_miss || run->make ||
           sscanf(text, "%" SCNu64 ",%" SCNu64 ",%" SCNu64, &run->acked[0], &run->acked[1], &run->acked[2]) == 3;
}

int main(int argc, char **argv)
{
    static struct run run;
    const char *cut = option(argc, argv, "--cut", "none");
    run.dir = option(argc, argv, "--dir", NULL);
    run.seed = strtoull(option(argc, argv, "--seed", "1"), NULL, 10);
    run.outside = strcmp(cut, "outside") == 0;
    if (run.dir == NULL || !read_acked(&run, option(argc, argv, "--acked", "")) || (!run.outside && !cut_choose(cut))) {
        fprintf(stderr, "usage: power_cut --dir=POOL --acked=A,B,C|none|make [--cut=CUT] [--seed=N]\n");
        return 2;
    }
    cut_arm(&run.params);
    if (run.make)
        make_ledger(&run);
    else
        open_ledger(&run);
    uint64_t operations = judge(&run);
    say_acked(&run);
    run.may_miss = false;
    cut_say("@@ verified %" PRIu64 " operations", operations);
    if (run.outside || cut_is_chosen())
        work_until_the_cut(&run);
    const char *how = option(argc, argv, "--spoil", NULL);
    if (how != NULL && spoil(&run.ledger, how) != 0)
        fail("spoiling", how);
    pa_pool *pool = run.ledger.pool;
    ledger_close(&run.ledger);
    close_pool(pool);
    return 0;
}
