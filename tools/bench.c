/* SPDX-License-Identifier: BSD-3-Clause */
/* bench.c -- pallocator bench: allocate/free pairs in a pool of its own, which it takes away again. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tools/files.h"
#include "tools/tool.h"

#define OWNER_STRIDE  128u /* owners of different threads share no line */
#define WARM_UP_PAIRS 1000u
#define LIST_MAX      32u
#define THREADS_MAX   512u

struct bench {
    const char *parent, *sizes_text, *threads_text, *seconds_text, *durability_text;
    int emulate;
    double seconds;
    uint64_t sizes[LIST_MAX], threads[LIST_MAX];
    unsigned size_count, thread_count;
    char dir[4096];
    pa_pool *pool;
    pa_pptr root;
};

struct result {
    uint64_t size, threads, pairs;
    double ns_per_pair, pairs_per_second, fences_per_operation, lines_per_operation;
};

struct worker {
    pthread_t thread;
    const struct bench *bench;
    pa_pptr *owner;
    uint64_t size, pairs;
    double seconds;
    int code;
    char message[512];
};

static volatile sig_atomic_t interrupted;
static _Atomic unsigned ready; /* workers that have warmed up */
static _Atomic bool go, enough;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int pair(struct worker *w)
{
    int code = pa_allocate(w->bench->pool, w->owner, w->size);
    return code == 0 ? pa_deallocate(w->bench->pool, w->owner) : code;
}

/* Between ready and go, the main thread reads the statistics while nothing runs. */
static void *work(void *arg)
{
    struct worker *w = arg;
    for (unsigned i = 0; w->code == 0 && i < WARM_UP_PAIRS; i++)
        w->code = pair(w);
    atomic_fetch_add(&ready, 1);
    while (!atomic_load(&go))
        sched_yield();
    double start = now();
    while (w->code == 0 && !atomic_load_explicit(&enough, memory_order_relaxed)) {
        w->code = pair(w);
        w->pairs++;
    }
    w->seconds = now() - start;
    if (w->code != 0)
        snprintf(w->message, sizeof w->message, "%s", pa_errormsg()); /* the message is the thread's own */
    return NULL;
}

static void sleep_for(double seconds)
{
    for (double end = now() + seconds; now() < end && !interrupted;)
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
}

/* Start the workers and wait until all are warm; *ret_started of them run, on failure too. 0 or an errno value. */
static int start_workers(struct bench *b, struct worker *workers, unsigned count, uint64_t size, unsigned *ret_started)
{
    char *owners = pa_direct(b->pool, b->root);
    int failure = 0;
    unsigned started = 0;
    atomic_store(&ready, 0);
    atomic_store(&go, false);
    atomic_store(&enough, false);
    for (; failure == 0 && started < count; started += failure == 0) {
        struct worker *w = &workers[started];
        *w = (struct worker){.bench = b, .owner = (pa_pptr *)(void *)(owners + started * OWNER_STRIDE), .size = size};
        failure = pthread_create(&w->thread, NULL, work, w);
    }
    while (atomic_load(&ready) < started)
        sched_yield();
    *ret_started = started;
    return failure;
}

static void stop_workers(struct worker *workers, unsigned started)
{
    atomic_store(&enough, true);
    atomic_store(&go, true);
    for (unsigned i = 0; i < started; i++)
        pthread_join(workers[i].thread, NULL);
}

static void summarize(struct result *r, const struct worker *workers, const pa_stats *before, const pa_stats *after,
                      double seconds)
{
    double busy = 0;
    for (unsigned i = 0; i < r->threads; i++) {
        r->pairs += workers[i].pairs;
        busy += workers[i].seconds;
    }
    double pairs = r->pairs != 0 ? (double)r->pairs : 1;
    r->ns_per_pair = busy * 1e9 / pairs;
    r->pairs_per_second = pairs / seconds;
    r->fences_per_operation = (double)(after->fences - before->fences) / (2 * pairs);
    r->lines_per_operation = (double)(after->flushed_lines - before->flushed_lines) / (2 * pairs);
}

/* Let the workers run; their time and cost in *r. */
static int run_workers(const struct tool *t, struct bench *b, struct worker *workers, struct result *r)
{
    pa_stats before = {0}, after = {0};
    unsigned started = 0;
    int failure = start_workers(b, workers, (unsigned)r->threads, r->size, &started);
    int code = pa_get_stats(b->pool, &before);
    double start = now();
    if (failure == 0 && code == 0) {
        atomic_store(&go, true);
        sleep_for(b->seconds);
    }
    stop_workers(workers, started);
    double seconds = now() - start;
    if (failure != 0)
        return tool_fail_text(t, "cannot start %llu threads: %s", (unsigned long long)r->threads, strerror(failure));
    if (code == 0)
        code = pa_get_stats(b->pool, &after);
    if (code != 0)
        return tool_fail(t, code);
    for (unsigned i = 0; i < started; i++)
        if (workers[i].code != 0)
            return tool_fail_text(t, "%s", workers[i].message);
    summarize(r, workers, &before, &after, seconds);
    return TOOL_OK;
}

/* One line of the table. */
static int measure(const struct tool *t, struct bench *b, struct result *r)
{
    struct worker *workers = calloc(r->threads, sizeof *workers);
    if (workers == NULL)
        return tool_fail_text(t, "no memory for %llu threads", (unsigned long long)r->threads);
    int result = run_workers(t, b, workers, r);
    free(workers);
    return result;
}

static json_t *result_json(const struct result *r)
{
    return json_pack("{s:o, s:o, s:o, s:f, s:f, s:f, s:f}", "size", json_size(r->size), "threads",
                     json_size(r->threads), "pairs", json_size(r->pairs), "ns_per_pair", r->ns_per_pair,
                     "pairs_per_second", r->pairs_per_second, "fences_per_operation", r->fences_per_operation,
                     "lines_per_operation", r->lines_per_operation);
}

static void print_result(const struct result *r)
{
    printf("%10llu %8llu %12.1f %14.0f %10.2f %10.2f\n", (unsigned long long)r->size, (unsigned long long)r->threads,
           r->ns_per_pair, r->pairs_per_second, r->fences_per_operation, r->lines_per_operation);
    fflush(stdout);
}

static int measure_all(const struct tool *t, struct bench *b)
{
    json_t *rows = json_array();
    int result = TOOL_OK;
    if (!t->json)
        printf("%10s %8s %12s %14s %10s %10s\n", "bytes", "threads", "ns/pair", "pairs/s", "fences/op", "lines/op");
    for (unsigned s = 0; s < b->size_count; s++)
        for (unsigned i = 0; result == TOOL_OK && !interrupted && i < b->thread_count; i++) {
            struct result r = {.size = b->sizes[s], .threads = b->threads[i]};
            result = measure(t, b, &r);
            if (result == TOOL_OK && t->json)
                json_array_append_new(rows, result_json(&r));
            else if (result == TOOL_OK)
                print_result(&r);
        }
    if (result == TOOL_OK && interrupted)
        result = tool_fail_text(t, "interrupted");
    const char *force = getenv("PMEM2_FORCE_GRANULARITY");
    if (result == TOOL_OK && t->json)
        tool_print(json_pack("{s:b, s:s, s:s?, s:O}", "ok", 1, "parent", b->parent, "forced_granularity", force,
                             "results", rows));
    json_decref(rows);
    return result;
}

static void remove_pool(const struct bench *b)
{
    struct pool_files files;
    if (pool_files_read(b->dir, &files) == 0)
        for (size_t i = 0; i < files.count; i++) {
            char path[sizeof b->dir + sizeof files.list[i].name + 1];
            snprintf(path, sizeof path, "%s/%s", b->dir, files.list[i].name);
            unlink(path);
        }
    pool_files_release(&files);
    rmdir(b->dir);
}

static int run_in_pool(const struct tool *t, struct bench *b, const pa_options *o, uint64_t most_threads)
{
    int code = pa_create(b->dir, o, &b->pool);
    if (code != 0)
        return tool_fail(t, code);
    code = pa_root(b->pool, most_threads * OWNER_STRIDE, &b->root);
    int result = code != 0 ? tool_fail(t, code) : measure_all(t, b);
    code = pa_close(b->pool);
    if (result == TOOL_OK && code != 0)
        result = tool_fail(t, code);
    return result;
}

/* "64,4K": the numbers, each at least 1. */
static int parse_list(const struct tool *t, const char *name, const char *text, uint64_t *list, unsigned *ret_count)
{
    char *copy = strdup(text), *rest = NULL;
    int result = copy == NULL ? tool_fail_text(t, "no memory") : TOOL_OK;
    *ret_count = 0;
    for (char *word = copy == NULL ? NULL : strtok_r(copy, ",", &rest); word != NULL && result == TOOL_OK;
         word = strtok_r(NULL, ",", &rest)) {
        if (*ret_count == LIST_MAX || !text_to_size(word, &list[*ret_count]) || list[*ret_count] == 0)
            result = tool_fail_text(t, "%s %s is not a list of at most %u positive numbers", name, text, LIST_MAX);
        ++*ret_count;
    }
    if (result == TOOL_OK && *ret_count == 0)
        result = tool_fail_text(t, "%s is empty", name);
    free(copy);
    return result;
}

static int parse_options(const struct tool *t, struct bench *b, pa_options *o, uint64_t *ret_most_threads)
{
    char threads[32];
    snprintf(threads, sizeof threads, "1,%ld", sysconf(_SC_NPROCESSORS_ONLN));
    pa_options_init(o);
    o->flags = PA_SPARSE;
    int result =
        parse_list(t, "--sizes", b->sizes_text != NULL ? b->sizes_text : "64,1K,16K,64K", b->sizes, &b->size_count);
    if (result == TOOL_OK)
        result = parse_list(t, "--threads", b->threads_text != NULL ? b->threads_text : threads, b->threads,
                            &b->thread_count);
    if (result == TOOL_OK)
        result = tool_durability_option(t, b->durability_text, &o->durability);
    *ret_most_threads = 0;
    for (unsigned i = 0; result == TOOL_OK && i < b->thread_count; i++) {
        if (b->threads[i] > THREADS_MAX)
            result = tool_fail_text(t, "%llu threads are more than %u", (unsigned long long)b->threads[i], THREADS_MAX);
        if (b->threads[i] > *ret_most_threads)
            *ret_most_threads = b->threads[i];
    }
    char *end = NULL;
    b->seconds = b->seconds_text != NULL ? strtod(b->seconds_text, &end) : 0.5;
    if (result == TOOL_OK && ((end != NULL && *end != '\0') || !(b->seconds > 0 && b->seconds <= 3600)))
        result = tool_fail_text(t, "--seconds %s is not between 0 and 3600", b->seconds_text);
    return result;
}

static int bench(const struct tool *t, struct bench *b)
{
    pa_options o;
    uint64_t most_threads;
    int result = parse_options(t, b, &o, &most_threads);
    if (result != TOOL_OK)
        return result;
    if (b->emulate)
        setenv("PMEM2_FORCE_GRANULARITY", "CACHE_LINE", 1);
    if (b->parent == NULL)
        b->parent = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    if ((size_t)snprintf(b->dir, sizeof b->dir, "%s/pallocator-tool-XXXXXX", b->parent) >= sizeof b->dir ||
        mkdtemp(b->dir) == NULL)
        return tool_fail_text(t, "cannot make a directory in %s: %s", b->parent, strerror(errno));
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    result = run_in_pool(t, b, &o, most_threads);
    remove_pool(b);
    return result;
}

int bench_main(int argc, const char **argv)
{
    struct bench b = {0};
    struct poptOption options[] =
        {{"dir", 'd', POPT_ARG_STRING, &b.parent, 0, "Where to make the pool (default: /dev/shm)", "DIR"},
         {"sizes", 's', POPT_ARG_STRING, &b.sizes_text, 0, "Block sizes (default: 64,1K,16K,64K)", "LIST"},
         {"threads", 't', POPT_ARG_STRING, &b.threads_text, 0, "Numbers of threads (default: 1 and the processors)",
          "LIST"},
         {"seconds", 'n', POPT_ARG_STRING, &b.seconds_text, 0, "Length of each measurement (default: 0.5)", "S"},
         {"durability", 0, POPT_ARG_STRING, &b.durability_text, 0, "auto, power or process", "WHAT"},
         {"emulate", 'e', POPT_ARG_NONE, &b.emulate, 0,
          "Write back and fence as persistent memory needs, also on tmpfs", NULL},
         POPT_TABLEEND};
    struct tool t;
    int result = tool_begin(&t, argc, argv, options, false);
    if (result == TOOL_OK)
        result = bench(&t, &b);
    tool_end(&t);
    return result;
}
