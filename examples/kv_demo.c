/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * kv_demo.c -- runs a storage engine (kv.h) on real data and checks every record. scripts/demo calls it for each engine.
 *
 *   load the md5sum lists | look up all | delete, insert again, replace and look up at random
 *   several times: a child process opens the store and mixes on with all threads, is killed (SIGKILL) in the middle; the parent
 *   opens the store, times that, and compares every record with the input and the journal, and every block with the records
 *   empty the store: exactly the blocks of an empty store must be left
 *
 * Exit: 0 = verified, 1 = a record was lost or a block leaked, 2 = usage or system error.
 */
#include <argp.h>
#include <ftw.h>
#include <jansson.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "examples/kv_report.h"
#include "examples/kv_work.h"

#define KILLS_MAX 1000u

struct arguments {
    const char *dir;
    char **files;
    size_t file_count;
    unsigned threads, repeat, kills;
    double mix; /* operations per record */
    uint64_t seed;
    const char *variant;
    bool json, keep;
};

struct demo {
    struct arguments a;
    struct kv_input input;
    struct work work;
    struct kv_options options;
    char dir[4096];           /* the store's own, inside a.dir */
    uint64_t baseline_blocks; /* other blocks of a store that was filled a little and emptied */
    struct work_verdict verdict;
    uint64_t failures, acknowledged, kills;
    double open_ms[KILLS_MAX], first_ms[KILLS_MAX];
    json_t *phases;
    double held_bytes, live_bytes;
};

static double milliseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static int store_failed(const char *what)
{
    fprintf(stderr, "%s: %s: %s\n", kv_engine, what, kv_errormsg());
    return -1;
}

/* ---- phases ---- */

static int close_store(struct demo *d)
{
    int r = kv_close(d->work.kv);
    d->work.kv = NULL;
    return r == KV_OK ? 0 : store_failed("close");
}

/** A store may keep spare index blocks while it is open; closing gives them back. */
static int reopen_store(struct demo *d)
{
    if (close_store(d) < 0)
        return -1;
    return kv_open(d->dir, &d->options, &d->work.kv, NULL) == KV_OK ? 0 : store_failed("open");
}

/** A little of everything, so that later the blocks of an empty store can be counted exactly. */
static int measure_baseline(struct demo *d)
{
    struct kv_audit audit;
    for (uint64_t i = 0; i < KV_SHARDS; i++)
        if (kv_put(d->work.kv, i << 57, "x", 1) != KV_OK)
            return store_failed("put");
    for (uint64_t i = 0; i < KV_SHARDS; i++)
        if (kv_delete(d->work.kv, i << 57) != KV_OK)
            return store_failed("delete");
    if (reopen_store(d) < 0)
        return -1;
    if (kv_audit(d->work.kv, &audit) != KV_OK)
        return store_failed("audit");
    d->baseline_blocks = audit.other_blocks;
    return 0;
}

static void run_phase(struct demo *d, const char *name, enum work_phase phase, uint64_t operations)
{
    struct work_result r;
    work_run(&d->work, phase, operations, &r);
    d->failures += r.failures;
    double n = r.operations ? (double)r.operations : 1;
    json_object_set_new(d->phases, name,
                        json_pack("{s:I, s:f, s:f, s:f, s:f, s:f, s:I}", "operations", (json_int_t)r.operations,
                                  "seconds", r.seconds, "per_second", r.seconds > 0 ? n / r.seconds : 0.0, "cpu_ns",
                                  r.cpu_seconds * 1e9 / n, "fences", (double)r.fences / n, "lines", (double)r.lines / n,
                                  "failures", (json_int_t)r.failures));
    if (r.failures > 0)
        fprintf(stderr, "%s: %s: %llu operations failed or gave a wrong answer: %s\n", kv_engine, name,
                (unsigned long long)r.failures, kv_errormsg());
}

static int verify(struct demo *d)
{
    return work_verify(&d->work, &d->verdict) < 0 ? store_failed("verify") : 0;
}

static int measure_memory(struct demo *d)
{
    struct kv_stats stats;
    if (kv_stats(d->work.kv, &stats) != KV_OK)
        return store_failed("statistics");
    d->held_bytes = (double)stats.held_bytes;
    d->live_bytes = (double)d->verdict.live_bytes;
    return 0;
}

/* ---- kill -9 ---- */

/** The victim: opens the store and works until it is killed. Exit code 3: it could not. */
static _Noreturn void be_killed(struct demo *d)
{
    struct work_result r;
    d->work.show_progress = false;
    if (kv_open(d->dir, &d->options, &d->work.kv, NULL) != KV_OK) {
        store_failed("open in the worker");
        _exit(3);
    }
    work_run(&d->work, WORK_UNTIL_KILLED, 0, &r);
    _exit(3);
}

static uint64_t acknowledged(const struct demo *d)
{
    uint64_t sum = 0;
    for (unsigned t = 0; t < d->work.threads; t++)
        sum += __atomic_load_n(&d->work.journal[t].done, __ATOMIC_RELAXED);
    return sum;
}

/** Wait until the victim is in the middle of its work, a random moment longer, then kill it. */
static int kill_in_the_middle(struct demo *d, pid_t child)
{
    int status = 0;
    double patience = milliseconds() + 60e3;
    while (acknowledged(d) < 1000 && milliseconds() < patience && waitpid(child, &status, WNOHANG) == 0)
        usleep(1000);
    d->work.seed = d->work.seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    usleep(5000 + (useconds_t)(d->work.seed >> 40) % 100000);
    kill(child, SIGKILL);
    if (waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        return 0;
    fprintf(stderr, "%s: the worker ended before it was killed\n", kv_engine);
    return -1;
}

/** One kill: the store is closed before and open after it. */
static int kill_cycle(struct demo *d)
{
    fflush(NULL);
    pid_t child = fork();
    if (child < 0) {
        perror("fork");
        return -1;
    }
    if (child == 0)
        be_killed(d);
    if (kill_in_the_middle(d, child) < 0)
        return -1;
    d->acknowledged += acknowledged(d);
    double began = milliseconds();
    if (kv_open(d->dir, &d->options, &d->work.kv, NULL) != KV_OK) {
        d->verdict.lost += d->input.record_count;
        d->work.kv = NULL;
        store_failed("open after kill -9");
        return 1;
    }
    double opened = milliseconds();
    if (work_first_put(&d->work) < 0)
        return store_failed("first put");
    d->open_ms[d->kills] = opened - began;
    d->first_ms[d->kills++] = milliseconds() - opened;
    return verify(d);
}

static int kill_cycles(struct demo *d)
{
    for (unsigned i = 0; i < d->a.kills; i++) {
        if (d->work.show_progress)
            work_progress("kill -9", (double)i / d->a.kills);
        if (close_store(d) < 0)
            return -1;
        int r = kill_cycle(d);
        if (r != 0)
            return r;
    }
    if (d->work.show_progress && d->a.kills > 0)
        work_progress_end();
    return 0;
}

/** An emptied store has the blocks of an empty store, else something leaked that is not a record. */
static int verify_empty(struct demo *d)
{
    if (reopen_store(d) < 0 || verify(d) < 0)
        return -1;
    if (d->verdict.other_blocks == d->baseline_blocks)
        return 0;
    fprintf(stderr, "%s: the emptied store has %llu blocks, a fresh one %llu\n", kv_engine,
            (unsigned long long)d->verdict.other_blocks, (unsigned long long)d->baseline_blocks);
    if (d->verdict.other_blocks > d->baseline_blocks)
        d->verdict.leaked += d->verdict.other_blocks - d->baseline_blocks;
    else
        d->verdict.lost += d->baseline_blocks - d->verdict.other_blocks;
    return 0;
}

/** -1: system error; 1: the store cannot even be opened; 0: judged by the verdict. */
static int run_all(struct demo *d)
{
    if (kv_create(d->dir, &d->options, &d->work.kv) != KV_OK)
        return store_failed("create");
    if (measure_baseline(d) < 0)
        return -1;
    run_phase(d, "load", WORK_LOAD, 0);
    run_phase(d, "lookup", WORK_LOOKUP, 0);
    if (verify(d) < 0 || measure_memory(d) < 0)
        return -1;
    run_phase(d, "mix", WORK_MIX, (uint64_t)(d->a.mix * (double)d->input.record_count));
    int r = verify(d) < 0 ? -1 : kill_cycles(d);
    if (r != 0)
        return r;
    run_phase(d, "empty", WORK_EMPTY, 0);
    if (verify_empty(d) < 0)
        return -1;
    return close_store(d);
}

/* ---- results ---- */

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static json_t *median(double *values, size_t count)
{
    if (count == 0)
        return json_null();
    qsort(values, count, sizeof *values, compare_doubles);
    return json_real(values[count / 2]);
}

static bool is_verified(const struct demo *d)
{
    const struct work_verdict *v = &d->verdict;
    return d->failures + v->lost + v->wrong + v->returned + v->leaked == 0;
}

static json_t *result(struct demo *d)
{
    const struct work_verdict *v = &d->verdict;
    char engine[64];
    snprintf(engine, sizeof engine, "%s%s%s", kv_engine, d->a.variant != NULL ? ", " : "",
             d->a.variant != NULL ? d->a.variant : "");
    json_t *kills = json_object(), *memory, *verified;
    json_object_set_new(kills, "open_ms", median(d->open_ms, d->kills));
    json_object_set_new(kills, "first_put_ms", median(d->first_ms, d->kills));
    memory = json_pack("{s:f, s:f, s:f}", "held_mib", d->held_bytes / (1 << 20), "live_mib", d->live_bytes / (1 << 20),
                       "held_per_live", d->live_bytes > 0 ? d->held_bytes / d->live_bytes : 0.0);
    verified =
        json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "kills", (json_int_t)d->kills, "acknowledged",
                  (json_int_t)d->acknowledged, "in_flight_done", (json_int_t)v->in_flight_done, "in_flight_undone",
                  (json_int_t)(v->in_flight - v->in_flight_done), "checked", (json_int_t)v->checked, "damaged",
                  (json_int_t)(v->lost + v->wrong + v->returned), "lost", (json_int_t)v->lost, "wrong",
                  (json_int_t)v->wrong, "returned", (json_int_t)v->returned, "leaked", (json_int_t)v->leaked);
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:i, s:O, s:o, s:o, s:o, s:b}", "engine", engine, "files",
                     (json_int_t)d->input.files, "lines", (json_int_t)d->input.line_count, "skipped_lines",
                     (json_int_t)d->input.skipped, "records", (json_int_t)d->input.record_count, "threads",
                     (int)d->work.threads, "phases", d->phases, "kill", kills, "memory", memory, "verified", verified,
                     "ok", is_verified(d));
}

static void print_result(struct demo *d)
{
    json_t *one = result(d);
    if (d->a.json) {
        json_dumpf(one, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
        putchar('\n');
    } else {
        json_t *runs = json_pack("[O]", one);
        report_print(stdout, runs);
        json_decref(runs);
    }
    json_decref(one);
}

/* ---- arguments ---- */

static unsigned number(struct argp_state *state, const char *what, const char *text, unsigned low, unsigned high)
{
    char *end;
    unsigned long long n = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != 0 || n < low || n > high)
        argp_error(state, "--%s must be a number from %u to %u, not '%s'", what, low, high, text);
    return (unsigned)n;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    char *end;
    switch (key) {
    case 'd':
        a->dir = arg;
        return 0;
    case 'f':
        a->files = realloc(a->files, (a->file_count + 1) * sizeof *a->files);
        if (a->files == NULL)
            argp_failure(state, 2, 0, "no memory");
        a->files[a->file_count++] = arg;
        return 0;
    case 't':
        a->threads = number(state, "threads", arg, 1, WORK_THREADS_MAX);
        return 0;
    case 'r':
        a->repeat = number(state, "repeat", arg, 1, 100000);
        return 0;
    case 'k':
        a->kills = number(state, "kills", arg, 0, KILLS_MAX);
        return 0;
    case 's':
        a->seed = number(state, "seed", arg, 0, 4000000000u);
        return 0;
    case 'm':
        a->mix = strtod(arg, &end);
        if (end == arg || *end != 0 || !(a->mix >= 0 && a->mix <= 1e6))
            argp_error(state, "--mix must be a number from 0 to 1000000, not '%s'", arg);
        return 0;
    case 'v':
        a->variant = arg;
        if (strcmp(arg, kv_variants) != 0)
            argp_error(state, "--variant can be: %s", kv_variants);
        return 0;
    case 'j':
        a->json = true;
        return 0;
    case 'K':
        a->keep = true;
        return 0;
    case ARGP_KEY_ARG:
        argp_usage(state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options[] = {
    {"dir", 'd', "DIR", 0, "Put the store into a new directory in DIR (default /dev/shm)", 0},
    {"data", 'f', "FILE", 0, "md5sum list to load; may be given again (default: every list that dpkg keeps)", 0},
    {"threads", 't', "N", 0, "Threads (default: processors, at least 2)", 0},
    {"repeat", 'r', "N", 0, "Load N copies of the input, each with keys of its own (default 1)", 0},
    {"mix", 'm', "X", 0, "Operations of the mix per record (default 3)", 0},
    {"kills", 'k', "N", 0, "Times to kill -9 a worker in the middle (default 5)", 0},
    {"seed", 's', "N", 0, "Seed of the mixes", 0},
    {"variant", 'v', "NAME", 0, "Variant of the engine", 0},
    {"json", 'j', NULL, 0, "JSON on standard output instead of a table", 0},
    {"keep", 'K', NULL, 0, "Leave the store's directory behind, and say where", 0},
    {0},
};

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static int prepare(struct demo *d)
{
    char sentence[256];
    if (kv_input_read(&d->input, d->a.files, d->a.file_count, d->a.repeat, sentence, sizeof sentence) < 0) {
        fprintf(stderr, "%s\n", sentence);
        return -1;
    }
    d->options = (struct kv_options){d->input.value_bytes + 64 * d->input.record_count, d->a.variant};
    if (work_init(&d->work, &d->input, d->a.threads, d->a.seed, isatty(STDERR_FILENO) != 0) < 0) {
        fprintf(stderr, "no memory\n");
        return -1;
    }
    snprintf(d->dir, sizeof d->dir, "%s/kv-XXXXXX", d->a.dir);
    if (mkdtemp(d->dir) == NULL) {
        perror(d->dir);
        d->dir[0] = 0;
        return -1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    static const struct argp argp =
        {options,
         parse,
         NULL,
         "Run the storage-engine example on md5sum lists, kill it, and verify every record.\v"
         "Exit: 0 = verified, 1 = a record was lost or a block leaked, 2 = usage or system error.",
         0,
         0,
         0};
    static struct demo d;
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    d.a = (struct arguments){.dir = "/dev/shm", .repeat = 1, .kills = 5, .mix = 3, .seed = 1};
    d.a.threads = processors < 2 ? 2 : processors > 16 ? 16 : (unsigned)processors;
    argp_err_exit_status = 2;
    argp_parse(&argp, argc, argv, 0, NULL, &d.a);

    d.phases = json_object();
    int r = prepare(&d);
    if (r == 0) {
        r = run_all(&d);
        if (r >= 0)
            print_result(&d);
    }
    if (d.a.keep)
        fprintf(stderr, "the store is in %s\n", d.dir);
    else if (d.dir[0] != 0)
        nftw(d.dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    json_decref(d.phases);
    work_fini(&d.work);
    kv_input_free(&d.input);
    free(d.a.files);
    return r < 0 ? 2 : is_verified(&d) ? 0 : 1;
}
