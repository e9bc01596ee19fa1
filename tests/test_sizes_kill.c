/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_sizes_kill.c -- kill -9 with blocks of every size, 16 bytes to 40 MB, while they are allocated (aligned or not), reallocated and
 * freed by several threads, and pa_defragment runs beside. After each kill: nothing lost, nothing leaked, no file left over.
 *
 * What a thread does next follows from the seed and from what it owns, so its journal, in memory that it shares with the parent, is a
 * list of results. The parent replays it, finds out about the one operation in flight, and compares everything.
 *
 * Options: --cycles=N --threads=T --milliseconds=M (longest life of a victim) --seed=S.
 */
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pool/pool.h"
#include "tests/support/owners.h"
#include "tests/support/random.h"
#include "tests/support/run.h"
#include "tests/support/temp.h"

#define MIB         (1ull << 20)
#define LARGEST     40000000u
#define SLOTS       64u        /* per thread */
#define BUDGET      (64 * MIB) /* bytes that a thread holds at most, so that memory stays bounded */
#define HUGE_MAX    4u         /* of these, blocks over a MiB */
#define STRIPE      16384u /* contents are written and compared in the first word of each such piece, and the last */
#define THREADS_MAX 8u
#define JOURNAL_MAX (1u << 15)

enum kind { ALLOCATE, ALLOCATE_ALIGNED, REALLOCATE, DEALLOCATE };

struct operation {
    enum kind kind;
    unsigned slot;
    size_t size, alignment;
    uint64_t tag;
};

/* What a slot's owner names; size 0 = nothing. */
struct slot {
    size_t size;
    uint64_t tag;
};

struct journal {
    atomic_uint count;
    int8_t results[JOURNAL_MAX];
};

struct cycle {
    const char *dir;
    uint64_t number, seed;
    unsigned threads, flags;
    struct journal *journals; /* shared with the victim */
    struct slot slots[THREADS_MAX][SLOTS];
    uint64_t operations, happened, did_not, done[4], refused, largest;
};

/* --- contents -------------------------------------------------------------------------------------------------------------- */

static uint64_t word_at(uint64_t tag, size_t at)
{
    return (tag + at) * 0x9e3779b97f4a7c15u;
}

/* The i-th place of a block of size bytes that has contents; false after the last. */
static bool place(size_t size, size_t i, size_t *ret)
{
    size_t whole = size / 8 * 8; /* the last word is the last whole one */
    *ret = i * STRIPE;
    if (*ret + 8 <= whole)
        return true;
    *ret = whole - 8;
    return i > 0 && (i - 1) * STRIPE < *ret;
}

static void mark(pa_pool *pool, pa_pptr p, size_t size, uint64_t tag)
{
    char *block = pa_direct(pool, p);
    size_t at;
    for (size_t i = 0; place(size, i, &at); i++) {
        uint64_t word = word_at(tag, at);
        memcpy(block + at, &word, sizeof word);
        pa_flush(pool, block + at, sizeof word);
    }
    pa_drain(pool);
}

/* Are the first `kept` bytes of what was marked with (size, tag) there? Where other is not 0, its words may be there instead: a mark
 * of (other_size, other) had begun. */
static bool is_marked(const pa_pool *pool, pa_pptr p, size_t kept, const struct slot *was, uint64_t other)
{
    const char *block = pa_direct(pool, p);
    size_t at;
    for (size_t i = 0; place(was->size, i, &at); i++) {
        uint64_t word;
        if (at + 8 > kept)
            continue;
        memcpy(&word, block + at, sizeof word);
        if (word != word_at(was->tag, at) && (other == 0 || word != word_at(other, at)))
            return false;
    }
    return true;
}

/* --- what comes next ------------------------------------------------------------------------------------------------------- */

static struct random thread_random(const struct cycle *c, unsigned thread)
{
    return (struct random){c->seed ^ (c->number * 0x9e3779b97f4a7c15u) ^ ((uint64_t)thread << 48)};
}

/* A size within the thread's budget. */
static size_t next_size(const struct slot *own, struct random *r)
{
    size_t size = (size_t)random_log(r, 16, LARGEST), held = 0;
    unsigned huge = 0;
    for (unsigned i = 0; i < SLOTS; i++) {
        held += own[i].size;
        huge += own[i].size > MIB;
    }
    if (size > MIB && (huge >= HUGE_MAX || held + size > BUDGET))
        size = 16 + size % 30000;
    return size;
}

static struct operation next_operation(const struct cycle *c, unsigned thread, struct random *r)
{
    const struct slot *own = c->slots[thread];
    struct operation op = {.slot = (unsigned)random_below(r, SLOTS)};
    uint64_t choice = random_below(r, 12);
    op.tag = random_next(r) | 1;
    op.size = next_size(own, r);
    op.alignment = (size_t)16 << random_below(r, 18); /* to 2 MiB */
    if (own[op.slot].size == 0)
        op.kind = choice < 3 ? ALLOCATE_ALIGNED : ALLOCATE;
    else
        op.kind = choice < 5 ? REALLOCATE : DEALLOCATE;
    return op;
}

static void apply(struct cycle *c, unsigned thread, const struct operation *op, int result)
{
    struct slot *s = &c->slots[thread][op->slot];
    if (result == 0)
        *s = op->kind == DEALLOCATE ? (struct slot){0} : (struct slot){op->size, op->tag};
}

static pa_pptr *owner_of(const struct owners *o, unsigned thread, unsigned slot)
{
    return owners_at(o, thread * SLOTS + slot);
}

/* --- the victim ------------------------------------------------------------------------------------------------------------ */

struct victim {
    struct cycle *cycle;
    struct owners *o;
    unsigned thread;
};

static int perform(const struct cycle *c, struct owners *o, unsigned thread, const struct operation *op)
{
    pa_pptr *dst = owner_of(o, thread, op->slot);
    const struct slot *was = &c->slots[thread][op->slot];
    int r = 0;
    switch (op->kind) {
    case ALLOCATE:
        r = pa_allocate(o->pool, dst, op->size);
        break;
    case ALLOCATE_ALIGNED:
        r = pa_allocate_aligned(o->pool, dst, op->size, op->alignment);
        if (r == 0 && (uintptr_t)pa_direct(o->pool, *dst) % op->alignment != 0)
            _exit(5);
        break;
    case REALLOCATE:
        r = pa_reallocate(o->pool, dst, op->size);
        if (r == 0 && !is_marked(o->pool, *dst, op->size < was->size ? op->size : was->size, was, 0))
            _exit(4);
        break;
    case DEALLOCATE:
        return pa_deallocate(o->pool, dst);
    }
    if (r == 0)
        mark(o->pool, *dst, op->size, op->tag);
    return r;
}

static void *victim_thread(void *arg)
{
    struct victim *v = arg;
    struct cycle *c = v->cycle;
    struct random r = thread_random(c, v->thread);
    struct journal *j = &c->journals[v->thread];
    for (unsigned k = 0; k < JOURNAL_MAX; k++) {
        struct operation op = next_operation(c, v->thread, &r);
        int result = perform(c, v->o, v->thread, &op);
        if (result != 0 && result != PA_ENOSPC) {
            fprintf(stderr, "victim: cycle %" PRIu64 " thread %u operation %u: %s: %s\n", c->number, v->thread, k,
                    pa_strerror(result), pa_errormsg());
            _exit(7);
        }
        apply(c, v->thread, &op, result);
        j->results[k] = (int8_t)result;
        atomic_store_explicit(&j->count, k + 1, memory_order_release);
    }
    return NULL;
}

static void *defragmenting_thread(void *arg)
{
    struct victim *v = arg;
    struct random r = thread_random(v->cycle, 77);
    for (;;) {
        int code = pa_defragment(v->o->pool, random_log(&r, 1, 32 * MIB), NULL);
        if (code != 0) {
            fprintf(stderr, "victim: cycle %" PRIu64 ": pa_defragment: %s\n", v->cycle->number, pa_errormsg());
            _exit(6);
        }
        usleep((useconds_t)random_below(&r, 3000));
    }
    return NULL;
}

static void victim_main(struct cycle *c)
{
    pa_options options;
    pa_options_init(&options);
    options.cores = 3;
    pa_pool *pool;
    struct owners o;
    if (pa_open(c->dir, &options, &pool) != 0 || owners_open(&o, pool, THREADS_MAX * SLOTS) != 0) {
        fprintf(stderr, "victim: cycle %" PRIu64 ": %s\n", c->number, pa_errormsg());
        _exit(8);
    }
    pthread_t threads[THREADS_MAX], defragmenter;
    struct victim victims[THREADS_MAX];
    for (unsigned t = 0; t < c->threads; t++) {
        victims[t] = (struct victim){c, &o, t};
        if (pthread_create(&threads[t], NULL, victim_thread, &victims[t]) != 0)
            _exit(9);
    }
    if (c->number % 2 == 0 && pthread_create(&defragmenter, NULL, defragmenting_thread, &victims[0]) != 0)
        _exit(9);
    for (;;)
        pause();
}

/* --- the parent ------------------------------------------------------------------------------------------------------------ */

static void run_victim(struct cycle *c, int64_t life_us)
{
    for (unsigned t = 0; t < c->threads; t++)
        atomic_store(&c->journals[t].count, 0);
    pid_t victim = fork();
    ck_assert_int_ge(victim, 0);
    if (victim == 0)
        victim_main(c);
    struct timespec life = {life_us / 1000000, life_us % 1000000 * 1000};
    nanosleep(&life, NULL);
    kill(victim, SIGKILL);
    int status;
    ck_assert_int_eq(waitpid(victim, &status, 0), victim);
    EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
           "cycle %" PRIu64 ": the victim ended by itself, status %#x", c->number, (unsigned)status);
}

/* The one operation that may have been in flight: wholly there or wholly not. Then the slot gets new contents. */
static void settle_unfinished(struct cycle *c, struct owners *o, unsigned thread, const struct operation *op)
{
    struct slot *s = &c->slots[thread][op->slot];
    pa_pptr p = *owner_of(o, thread, op->slot);
    size_t usable = pa_usable_size(o->pool, p);
    bool happened = op->kind == DEALLOCATE ? pa_is_null(p) : !pa_is_null(p) && usable >= op->size;
    if (op->kind == REALLOCATE || (op->kind == DEALLOCATE && !happened)) {
        size_t least = op->kind == REALLOCATE && op->size < s->size ? op->size : s->size;
        EXPECT(usable >= least, "cycle %" PRIu64 " thread %u slot %u: %zu bytes are left of %zu (to be %zu)", c->number,
               thread, op->slot, usable, s->size, op->size);
        EXPECT(is_marked(o->pool, p, least, s, op->kind == REALLOCATE ? op->tag : 0),
               "cycle %" PRIu64 " thread %u slot %u: other contents after an unfinished change", c->number, thread,
               op->slot);
        if (!happened && op->kind == REALLOCATE)
            EXPECT(usable >= s->size, "cycle %" PRIu64 " thread %u slot %u: neither the old size nor the new",
                   c->number, thread, op->slot);
    }
    happened ? c->happened++ : c->did_not++;
    if (happened)
        apply(c, thread, op, 0);
    if (s->size != 0)
        mark(o->pool, p, s->size, s->tag);
    else
        EXPECT(pa_is_null(p), "cycle %" PRIu64 " thread %u slot %u: a block of %zu bytes where %zu were asked for",
               c->number, thread, op->slot, usable, op->size);
}

static void replay(struct cycle *c, struct owners *o)
{
    for (unsigned t = 0; t < c->threads; t++) {
        struct random r = thread_random(c, t);
        unsigned count = atomic_load(&c->journals[t].count);
        for (unsigned k = 0; k < count; k++) {
            struct operation op = next_operation(c, t, &r);
            int result = c->journals[t].results[k];
            apply(c, t, &op, result);
            c->done[op.kind]++;
            c->refused += result != 0;
            if (result == 0 && op.kind != DEALLOCATE && op.size > c->largest)
                c->largest = op.size;
        }
        c->operations += count;
        struct operation op = next_operation(c, t, &r);
        if (count < JOURNAL_MAX)
            settle_unfinished(c, o, t, &op);
    }
}

static void compare(const struct cycle *c, const struct owners *o)
{
    for (unsigned t = 0; t < THREADS_MAX; t++)
        for (unsigned i = 0; i < SLOTS; i++) {
            const struct slot *s = &c->slots[t][i];
            pa_pptr p = *owner_of(o, t, i);
            EXPECT(pa_is_null(p) == (s->size == 0), "cycle %" PRIu64 ": thread %u slot %u: %s", c->number, t, i,
                   s->size == 0 ? "there again" : "lost");
            EXPECT(s->size == 0 || (pa_usable_size(o->pool, p) >= s->size && is_marked(o->pool, p, s->size, s, 0)),
                   "cycle %" PRIu64 ": thread %u slot %u: other contents or size (%zu bytes)", c->number, t, i,
                   s->size);
        }
    char message[256];
    EXPECT(owners_are_whole(o, message, sizeof message), "cycle %" PRIu64 ": %s", c->number, message);
}

/* Each file belongs to a slot that is in use, and each such slot has its file. Opened read-only, so that nobody changes them. */
static void files_belong(const struct cycle *c)
{
    static char names[4096][64];
    pa_options options;
    pa_options_init(&options);
    options.flags = PA_READ_ONLY;
    pa_pool *pool = NULL;
    CK_OK(pa_open(c->dir, &options, &pool));
    size_t n = temp_list(c->dir, "", names, 4096), files = 1;
    for (size_t i = 0; i < n; i++) {
        unsigned number = 0;
        char expected[64];
        bool huge = sscanf(names[i], "huge-%x.pa", &number) == 1;
        if (strcmp(names[i], POOL_FILE_NAME) == 0)
            continue;
        EXPECT(huge || sscanf(names[i], "segment-%x.pa", &number) == 1, "cycle %" PRIu64 ": a stray file %s", c->number,
               names[i]);
        snprintf(expected, sizeof expected, huge ? "huge-%08x.pa" : "segment-%08x.pa", number);
        const struct segment *s = manager_segment(&pool->manager, number);
        EXPECT(strcmp(names[i], expected) == 0 && segment_is_present(s) && s->slot == number &&
                   huge == (atomic_load(&s->kind) == SEGMENT_KIND_HUGE),
               "cycle %" PRIu64 ": %s belongs to no slot in use", c->number, names[i]);
        files++;
    }
    EXPECT(files == n, "cycle %" PRIu64 ": %s has %zu files, %zu of them known", c->number, c->dir, n, files);
    pa_stats stats;
    CK_OK(pa_get_stats(pool, &stats));
    EXPECT(stats.segment_files + stats.huge_files + 1 == n, "cycle %" PRIu64 ": %" PRIu64 " files by pa_get_stats, %zu",
           c->number, stats.segment_files + stats.huge_files + 1, n);
    CK_OK(pa_close(pool));
}

static void check(const struct cycle *c, const char *when)
{
    char *report = NULL;
    int code = pa_check(c->dir, &report);
    EXPECT(code == 0, "cycle %" PRIu64 ": pa_check %s: %s", c->number, when, report == NULL ? "" : report);
    free(report);
}

static void one_cycle(struct cycle *c, struct random *r, int64_t longest_us)
{
    int64_t life = (int64_t)random_below(r, random_below(r, 5) == 0 ? 1500 : (uint64_t)longest_us);
    run_victim(c, life);
    if (c->number % 4 == 0)
        check(c, "after the kill");
    struct owners o;
    pa_pool *pool = NULL;
    int code = pa_open(c->dir, NULL, &pool);
    EXPECT(code == 0, "cycle %" PRIu64 ": open after the kill: %s", c->number, pa_errormsg());
    CK_OK(owners_open(&o, pool, THREADS_MAX * SLOTS));
    replay(c, &o);
    compare(c, &o);
    CK_OK(pa_close(pool));
    check(c, "after closing");
    files_belong(c);
}

static void run_cycles(uint64_t cycles, uint64_t max_size, unsigned flags)
{
    static struct cycle c;
    struct random r = {run_seed()};
    memset(&c, 0, sizeof c);
    c.seed = run_seed();
    c.threads = (unsigned)run_option("threads", 3);
    if (c.threads > THREADS_MAX)
        c.threads = THREADS_MAX;
    c.journals = mmap(NULL, c.threads * sizeof *c.journals, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(c.journals, MAP_FAILED);
    int64_t longest_us = (int64_t)run_option("milliseconds", 60) * 1000;
    struct temp_path dir = {""};
    for (c.number = 0; c.number < cycles; c.number++) {
        if (c.number % 100 == 0) {
            if (c.number > 0)
                temp_remove(dir.text);
            dir = temp_new();
            c.dir = dir.text;
            pa_options options;
            pa_options_init(&options);
            options.segment_size = MIB << (c.number / 100 % 3 * 2); /* 1, 4, 16 MiB */
            options.max_size = max_size;
            options.cores = 3;
            options.flags = flags;
            pa_pool *pool = NULL;
            struct owners o;
            CK_OK(pa_create(dir.text, &options, &pool));
            CK_OK(owners_open(&o, pool, THREADS_MAX * SLOTS));
            CK_OK(pa_close(pool));
            memset(c.slots, 0, sizeof c.slots);
        }
        one_cycle(&c, &r, longest_us);
    }
    fprintf(stderr,
            "kill: %" PRIu64 " cycles, %u threads, %" PRIu64 " operations (%" PRIu64 " allocations, %" PRIu64
            " aligned, %" PRIu64 " reallocations, %" PRIu64 " frees, %" PRIu64 " refused), largest block %" PRIu64
            "; in flight: %" PRIu64 " happened, %" PRIu64 " did not\n",
            cycles, c.threads, c.operations, c.done[ALLOCATE], c.done[ALLOCATE_ALIGNED], c.done[REALLOCATE],
            c.done[DEALLOCATE], c.refused, c.largest, c.happened, c.did_not);
    ck_assert_uint_gt(c.operations, 0);
    temp_remove(dir.text);
}

START_TEST(kill_9_with_blocks_of_every_size)
{
    run_cycles(run_option("cycles", 60), 0, 0);
}
END_TEST

START_TEST(kill_9_with_blocks_of_every_size_in_a_sparse_pool)
{
    run_cycles(run_option("cycles", 60) / 2, 0, PA_SPARSE);
}
END_TEST

START_TEST(kill_9_with_blocks_of_every_size_in_a_pool_that_is_full)
{
    run_cycles(run_option("cycles", 60) / 2, 96 * MIB, 0);
}
END_TEST

START_TEST(kill_9_with_blocks_of_every_size_on_cache_line_media)
{
    run_pretend("CACHE_LINE");
    run_cycles(run_option("cycles", 60) / 2, 0, 0);
}
END_TEST

static void add(Suite *s)
{
    int timeout = 90 + (int)run_option("cycles", 60) / 2;
    ADD(s, kill_9_with_blocks_of_every_size, timeout);
    ADD(s, kill_9_with_blocks_of_every_size_in_a_sparse_pool, timeout);
    ADD(s, kill_9_with_blocks_of_every_size_in_a_pool_that_is_full, timeout);
    ADD(s, kill_9_with_blocks_of_every_size_on_cache_line_media, timeout);
}

int main(int argc, char **argv)
{
    return run_main(argc, argv, "sizes_kill", add);
}
