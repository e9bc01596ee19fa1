/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_kill.c -- kill -9 at random moments, reopen, compare with the journal: nothing lost, nothing leaked.
 *
 * A cycle: the parent forks a victim that opens the pool and runs threads; each pushes and pops nodes on chains of its own
 * (a node is allocated into the tail's next pointer, so links lie inside blocks too). What a thread does next follows from the
 * seed and from the state of its chains, so an acknowledgement is just its result. It goes to a pipe, or, in every second
 * cycle, to memory shared with the parent, which is faster and so puts more kills into the library. The parent kills the
 * victim (sometimes while it still recovers), replays the acknowledged operations in its model, finds out for each thread
 * whether the one operation in flight happened, wholly or not at all, and compares everything.
 *
 * Options: --cycles=N --threads=T --milliseconds=M (longest life of a victim) --seed=S.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/owners.h"
#include "tests/support/random.h"
#include "tests/support/run.h"
#include "tests/support/temp.h"

#define CHAINS      512u
#define DEPTH_MAX   6u
#define THREADS_MAX 16u
#define LARGE       200000u
#define JOURNAL_MAX (1u << 16) /* acknowledgements per thread and cycle */

struct node {
    pa_pptr next;
    uint64_t tag;
    uint64_t size;
};

/* What a chain holds, in the parent's and in the victim's opinion. */
struct chain {
    unsigned depth;
    uint64_t tags[DEPTH_MAX];
    size_t sizes[DEPTH_MAX];
};

struct operation {
    unsigned chain;
    bool push;
    size_t size;
    uint64_t tag;
};

/* Results of one thread in one cycle, in order. */
struct journal {
    atomic_uint count;
    int8_t results[JOURNAL_MAX];
};

/* One acknowledgement on the pipe. */
struct acknowledgement {
    uint32_t thread;
    int32_t result;
};

struct cycle {
    const char *dir;
    uint64_t number, seed;
    unsigned threads;
    size_t size_max; /* of the rare large nodes */
    bool by_pipe;
    int pipe[2];
    struct journal *journals; /* one per thread; shared with the victim */
    struct chain chains[CHAINS];
    uint64_t operations, unfinished_happened, unfinished_not;
};

static struct random thread_random(const struct cycle *c, unsigned thread)
{
    return (struct random){c->seed ^ (c->number * 0x9e3779b97f4a7c15u) ^ ((uint64_t)thread << 48)};
}

/* What a thread does next. Chains change hands from cycle to cycle. */
static struct operation next_operation(const struct cycle *c, unsigned thread, struct random *r)
{
    struct operation op;
    unsigned own = (unsigned)random_below(r, CHAINS / c->threads);
    op.chain = own * c->threads + (thread + (unsigned)c->number) % c->threads;
    uint64_t choice = random_below(r, 100);
    op.tag = random_next(r);
    op.size = sizeof(struct node);
    op.size += choice == 1 ? random_below(r, c->size_max) : random_size(r, choice % 16 == 0 ? 16000 : 300);
    unsigned depth = c->chains[op.chain].depth;
    unsigned bias = c->number % 3 == 0 ? 70 : 45; /* growing cycles and shrinking ones */
    op.push = depth == 0 || (depth < DEPTH_MAX && choice < bias);
    return op;
}

static void apply(struct cycle *c, const struct operation *op, int result)
{
    struct chain *chain = &c->chains[op->chain];
    if (result != 0)
        return;
    if (!op->push) {
        chain->depth--;
        return;
    }
    chain->tags[chain->depth] = op->tag;
    chain->sizes[chain->depth++] = op->size;
}

/* The owner pointer that a push fills (depth) or that names the node at depth - 1 (pop). */
static pa_pptr *chain_end(const struct owners *o, unsigned chain, unsigned depth)
{
    pa_pptr *at = owners_at(o, chain);
    for (unsigned i = 0; i < depth; i++)
        at = &((struct node *)pa_direct(o->pool, *at))->next;
    return at;
}

static void node_fill(pa_pool *pool, pa_pptr p, uint64_t tag, size_t size)
{
    struct node *n = pa_direct(pool, p);
    n->next = PA_NULL;
    n->tag = tag;
    n->size = size;
    block_fill(n + 1, size - sizeof *n, tag);
    pa_persist(pool, n, size);
}

/* --- the victim -------------------------------------------------------------------------------------------------------------------- */

struct victim {
    struct cycle *cycle;
    struct owners *o;
    unsigned thread;
};

static void acknowledge(struct cycle *c, unsigned thread, int result)
{
    if (c->by_pipe) {
        struct acknowledgement a = {thread, result};
        if (write(c->pipe[1], &a, sizeof a) != (ssize_t)sizeof a)
            _exit(9);
        return;
    }
    struct journal *j = &c->journals[thread];
    unsigned count = atomic_load_explicit(&j->count, memory_order_relaxed);
    j->results[count] = (int8_t)result;
    atomic_store_explicit(&j->count, count + 1, memory_order_release);
}

static int perform(struct owners *o, const struct cycle *c, const struct operation *op)
{
    unsigned depth = c->chains[op->chain].depth;
    if (!op->push)
        return pa_deallocate(o->pool, chain_end(o, op->chain, depth - 1));
    pa_pptr *dst = chain_end(o, op->chain, depth);
    int r = pa_allocate(o->pool, dst, op->size);
    if (r == 0)
        node_fill(o->pool, *dst, op->tag, op->size);
    return r;
}

/* Move to another core now and then, so that chains mix blocks of all core objects. */
static void hop(struct random *r)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(random_below(r, (uint64_t)sysconf(_SC_NPROCESSORS_ONLN)), &set);
    sched_setaffinity(0, sizeof set, &set);
}

static void *victim_thread(void *arg)
{
    struct victim *v = arg;
    struct cycle *c = v->cycle;
    struct random r = thread_random(c, v->thread), hopping = {v->thread};
    for (unsigned k = 0; k < JOURNAL_MAX; k++) {
        struct operation op = next_operation(c, v->thread, &r);
        int result = perform(v->o, c, &op);
        if (result != 0 && result != PA_ENOSPC) {
            fprintf(stderr, "victim: cycle %" PRIu64 " thread %u operation %u: %s: %s\n", c->number, v->thread, k,
                    pa_strerror(result), pa_errormsg());
            _exit(7);
        }
        apply(c, &op, result);
        acknowledge(c, v->thread, result);
        if (k % 512 == 511)
            hop(&hopping);
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
    if (pa_open(c->dir, &options, &pool) != 0 || owners_open(&o, pool, CHAINS) != 0) {
        fprintf(stderr, "victim: cycle %" PRIu64 ": %s\n", c->number, pa_errormsg());
        _exit(8);
    }
    pthread_t threads[THREADS_MAX];
    struct victim victims[THREADS_MAX];
    for (unsigned t = 0; t < c->threads; t++) {
        victims[t] = (struct victim){c, &o, t};
        if (pthread_create(&threads[t], NULL, victim_thread, &victims[t]) != 0)
            _exit(6);
    }
    for (unsigned t = 0; t < c->threads; t++)
        pthread_join(threads[t], NULL);
    for (;;)
        pause(); /* the journal is full: wait for the end */
}

/* --- the parent -------------------------------------------------------------------------------------------------------------------- */

static void note(struct cycle *c, const struct acknowledgement *a)
{
    ck_assert_uint_lt(a->thread, c->threads);
    struct journal *j = &c->journals[a->thread];
    unsigned count = atomic_load(&j->count);
    ck_assert_uint_lt(count, JOURNAL_MAX);
    j->results[count] = (int8_t)a->result;
    atomic_store(&j->count, count + 1);
}

/* Take what is in the pipe; false at its end. */
static bool drain_pipe(struct cycle *c)
{
    static struct acknowledgement buffer[4096];
    ssize_t n = read(c->pipe[0], buffer, sizeof buffer);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    ck_assert_int_eq(n % (ssize_t)sizeof *buffer, 0);
    for (size_t i = 0; i < (size_t)n / sizeof *buffer; i++)
        note(c, &buffer[i]);
    return n > 0;
}

static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void wait_until(struct cycle *c, int64_t deadline)
{
    int64_t left;
    while ((left = deadline - now_us()) > 0) {
        struct timespec t = {left / 1000000, left % 1000000 * 1000};
        if (!c->by_pipe) {
            nanosleep(&t, NULL);
            continue;
        }
        struct pollfd p = {.fd = c->pipe[0], .events = POLLIN};
        if (ppoll(&p, 1, &t, NULL) > 0 && !drain_pipe(c))
            return;
    }
}

static void run_victim(struct cycle *c, int64_t life_us)
{
    for (unsigned t = 0; t < c->threads; t++)
        atomic_store(&c->journals[t].count, 0);
    ck_assert_int_eq(pipe2(c->pipe, O_CLOEXEC), 0);
    pid_t victim = fork();
    ck_assert_int_ge(victim, 0);
    if (victim == 0)
        victim_main(c);
    close(c->pipe[1]);
    fcntl(c->pipe[0], F_SETFL, O_NONBLOCK);
    wait_until(c, now_us() + life_us);
    kill(victim, SIGKILL);
    int status;
    ck_assert_int_eq(waitpid(victim, &status, 0), victim);
    EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
           "cycle %" PRIu64 ": the victim ended by itself, status %#x", c->number, (unsigned)status);
    while (c->by_pipe && drain_pipe(c))
        ;
    close(c->pipe[0]);
}

/* The one operation that may have been in flight: wholly there or wholly not. */
static void settle_unfinished(struct cycle *c, struct owners *o, const struct operation *op)
{
    struct chain *chain = &c->chains[op->chain];
    pa_pptr *dst = chain_end(o, op->chain, op->push ? chain->depth : chain->depth - 1);
    bool happened = op->push ? !pa_is_null(*dst) : pa_is_null(*dst);
    if (!happened) {
        c->unfinished_not++;
        return;
    }
    c->unfinished_happened++;
    if (op->push) {
        EXPECT(pa_usable_size(o->pool, *dst) >= op->size, "cycle %" PRIu64 ": chain %u names no block of %zu bytes",
               c->number, op->chain, op->size);
        node_fill(o->pool, *dst, op->tag, op->size);
    }
    apply(c, op, 0);
}

static void replay(struct cycle *c, struct owners *o)
{
    for (unsigned t = 0; t < c->threads; t++) {
        struct random r = thread_random(c, t);
        unsigned count = atomic_load(&c->journals[t].count);
        for (unsigned k = 0; k < count; k++) {
            struct operation op = next_operation(c, t, &r);
            apply(c, &op, c->journals[t].results[k]);
        }
        c->operations += count;
        struct operation op = next_operation(c, t, &r);
        if (count < JOURNAL_MAX)
            settle_unfinished(c, o, &op);
    }
}

/* Every chain as the model says, and no block besides. */
static void compare(const struct cycle *c, struct owners *o)
{
    struct blocks expected = {0};
    struct owners none = *o;
    none.count = 0;
    owners_add_blocks(&none, &expected);
    for (unsigned i = 0; i < CHAINS; i++) {
        const pa_pptr *at = owners_at(o, i);
        for (unsigned d = 0; d < c->chains[i].depth; d++) {
            const struct node *n = pa_direct(o->pool, *at);
            EXPECT(n != NULL && pa_usable_size(o->pool, *at) >= c->chains[i].sizes[d],
                   "cycle %" PRIu64 ": chain %u lost its node %u", c->number, i, d);
            EXPECT(n->tag == c->chains[i].tags[d] && n->size == c->chains[i].sizes[d] &&
                       block_is(n + 1, n->size - sizeof *n, n->tag),
                   "cycle %" PRIu64 ": chain %u node %u has other contents", c->number, i, d);
            blocks_add(&expected, pa_off_of(o->pool, *at), 0);
            at = &n->next;
        }
        EXPECT(pa_is_null(*at), "cycle %" PRIu64 ": chain %u goes on after its %u nodes", c->number, i,
               c->chains[i].depth);
    }
    char message[256];
    EXPECT(blocks_are_all(o->pool, &expected, message, sizeof message), "cycle %" PRIu64 ": %s", c->number, message);
    blocks_free(&expected);
}

static void start_pool(struct cycle *c, const char *dir, uint64_t max_size)
{
    pa_options options;
    pa_options_init(&options);
    options.segment_size = 1u << 20;
    options.max_size = max_size;
    options.cores = 3;
    pa_pool *pool = NULL;
    struct owners o;
    CK_OK(pa_create(dir, &options, &pool));
    CK_OK(owners_open(&o, pool, CHAINS));
    CK_OK(pa_close(pool));
    memset(c->chains, 0, sizeof c->chains);
    c->dir = dir;
}

static void one_cycle(struct cycle *c, struct random *r, int64_t longest_us)
{
    /* A quarter of the victims dies young, maybe in the recovery of the kill before. */
    int64_t life = (int64_t)random_below(r, random_below(r, 4) == 0 ? 700 : (uint64_t)longest_us);
    c->by_pipe = c->number % 2 == 0;
    run_victim(c, life);
    if (c->number % 5 == 0) {
        char *report = NULL;
        int code = pa_check(c->dir, &report);
        EXPECT(code == 0, "cycle %" PRIu64 ": pa_check after the kill: %s", c->number, report == NULL ? "" : report);
        free(report);
    }
    struct owners o;
    pa_pool *pool = NULL;
    int code = pa_open(c->dir, NULL, &pool);
    EXPECT(code == 0, "cycle %" PRIu64 ": open after the kill: %s", c->number, pa_errormsg());
    CK_OK(owners_open(&o, pool, CHAINS));
    replay(c, &o);
    compare(c, &o);
    CK_OK(pa_close(pool));
    if (c->number % 5 == 1)
        pool_check_sound(c->dir);
}

static void run_cycles(uint64_t cycles, unsigned threads, uint64_t max_size, size_t size_max)
{
    static struct cycle c;
    struct random r = {run_seed()};
    memset(&c, 0, sizeof c);
    c.seed = run_seed();
    c.threads = threads;
    c.size_max = size_max;
    c.journals = mmap(NULL, threads * sizeof *c.journals, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(c.journals, MAP_FAILED);
    int64_t longest_us = (int64_t)run_option("milliseconds", 12) * 1000;
    struct temp_path dir = {""};
    for (c.number = 0; c.number < cycles; c.number++) {
        if (c.number % 200 == 0) {
            if (c.number > 0)
                temp_remove(dir.text);
            dir = temp_new();
            start_pool(&c, dir.text, max_size);
        }
        one_cycle(&c, &r, longest_us);
    }
    fprintf(stderr,
            "kill: %" PRIu64 " cycles, %u threads, %" PRIu64 " operations; in flight: %" PRIu64 " happened, %" PRIu64
            " did not\n",
            cycles, threads, c.operations, c.unfinished_happened, c.unfinished_not);
    ck_assert_uint_gt(c.operations, 0);
}

START_TEST(kill_9_loses_nothing_and_leaks_nothing)
{
    run_cycles(run_option("cycles", 250), (unsigned)run_option("threads", 4), 0, LARGE);
}
END_TEST

START_TEST(kill_9_of_a_full_pool_loses_nothing_and_leaks_nothing)
{
    run_cycles(run_option("cycles", 250), (unsigned)run_option("threads", 4), 4u << 20, 16000);
}
END_TEST

START_TEST(kill_9_of_one_thread_loses_nothing_and_leaks_nothing)
{
    run_cycles(run_option("cycles", 250) / 2, 1, 0, 16000);
}
END_TEST

START_TEST(kill_9_on_cache_line_media_loses_nothing_and_leaks_nothing)
{
    run_pretend("CACHE_LINE");
    run_cycles(run_option("cycles", 250) / 2, (unsigned)run_option("threads", 4), 0, LARGE);
}
END_TEST

/* Creates the pool, its root and some blocks below, over and over. */
static void creator_main(const char *dir)
{
    pa_options options;
    pa_options_init(&options);
    options.segment_size = 1u << 20;
    options.cores = 2;
    pa_pool *pool;
    pa_pptr root;
    int r = pa_create(dir, &options, &pool);
    if (r == PA_EEXIST)
        r = pa_open(dir, &options, &pool);
    if (r == 0)
        r = pa_root(pool, 8192, &root);
    if (r == 0) {
        pa_pptr *owners = pa_direct(pool, root);
        for (size_t i = 0; i < 500 && r == 0; i++)
            r = pa_is_null(owners[i]) ? pa_allocate(pool, &owners[i], 1000) : 0;
    }
    if (r != 0) {
        fprintf(stderr, "creator: %s\n", pa_errormsg());
        _exit(8);
    }
    for (;;)
        pause();
}

/* Whatever there is: a pool whose root, if any, holds null or allocated owners, and nothing besides. */
static bool judge_created(const char *dir, uint64_t number)
{
    pa_pool *pool = NULL;
    int r = pa_open(dir, NULL, &pool);
    if (r == PA_ENOENT)
        return false;
    EXPECT(r == 0, "cycle %" PRIu64 ": %s", number, pa_errormsg());
    struct blocks expected = {0};
    pa_pptr root;
    CK_OK(pa_root(pool, 8192, &root));
    blocks_add(&expected, pa_off_of(pool, root), 0);
    const pa_pptr *owners = pa_direct(pool, root);
    for (size_t i = 0; i < 512; i++)
        if (!pa_is_null(owners[i]))
            blocks_add(&expected, pa_off_of(pool, owners[i]), 0);
    char message[256];
    EXPECT(blocks_are_all(pool, &expected, message, sizeof message), "cycle %" PRIu64 ": %s", number, message);
    blocks_free(&expected);
    CK_OK(pa_close(pool));
    pool_check_sound(dir);
    return true;
}

START_TEST(kill_9_while_creating_leaves_a_pool_or_none)
{
    struct random r = {run_seed()};
    uint64_t cycles = run_option("cycles", 250), pools = 0;
    for (uint64_t number = 0; number < cycles; number++) {
        struct temp_path dir = temp_new();
        for (int again = 0; again < 2; again++) {
            pid_t creator = fork();
            ck_assert_int_ge(creator, 0);
            if (creator == 0)
                creator_main(dir.text);
            uint64_t us = random_below(&r, run_option("milliseconds", 12) * 208);
            struct timespec t = {(time_t)(us / 1000000), (long)(us % 1000000) * 1000};
            nanosleep(&t, NULL);
            kill(creator, SIGKILL);
            int status;
            waitpid(creator, &status, 0);
            EXPECT(WIFSIGNALED(status), "cycle %" PRIu64 ": the creator ended by itself, status %#x", number,
                   (unsigned)status);
            if (random_below(&r, 2) == 0)
                pools += judge_created(dir.text, number);
        }
        if (!judge_created(dir.text, number)) {
            pa_pool *pool = pool_make(dir.text);
            pool_finish(pool, dir.text);
        }
        temp_remove(dir.text);
    }
    fprintf(stderr, "kill: %" PRIu64 " cycles of creation, %" PRIu64 " pools seen half way\n", cycles, pools);
}
END_TEST

static void add(Suite *s)
{
    int timeout = 60 + (int)run_option("cycles", 250) / 10;
    ADD(s, kill_9_loses_nothing_and_leaks_nothing, timeout);
    ADD(s, kill_9_of_a_full_pool_loses_nothing_and_leaks_nothing, timeout);
    ADD(s, kill_9_while_creating_leaves_a_pool_or_none, timeout);
    ADD(s, kill_9_of_one_thread_loses_nothing_and_leaks_nothing, timeout);
    ADD(s, kill_9_on_cache_line_media_loses_nothing_and_leaks_nothing, timeout);
}

int main(int argc, char **argv)
{
    return run_main(argc, argv, "kill", add);
}
