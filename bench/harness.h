/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * harness.h -- benchmarks in C on Google Benchmark.
 *
 * A program registers its cases in bench_register_all, which the harness's main calls; every option of Google Benchmark works.
 * Time is measured from the first bench_more to the one that returns false: CPU time of the threads that run the case, and
 * wall-clock time. All numbers are per operation, however many operations a turn of the loop has.
 *
 *     static void run_insert(struct bench *b)
 *     {
 *         struct my_case *c = bench_shared(b);
 *         while (bench_more(b, 100))
 *             for (int i = 0; i < 100; i++)
 *                 ...
 *     }
 */
#ifndef BENCH_HARNESS_H
#define BENCH_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** One thread's part of one run of a case. */
struct bench;

struct bench_case {
    const char *name;   /* "subject/what/size": the harness appends "/threads:N" */
    unsigned threads;   /* that call run at once; 0 = 1 */
    uint64_t argument;  /* for run and setup, as bench_argument */
    const void *params; /* the same, for what does not fit a number; must outlive the program */
    uint64_t fixed_ops; /* exact operations per thread and run, instead of as many as fit the time; 0 = by time */
    /** Before each run, by one thread, not timed: makes what bench_shared returns. May be NULL. */
    void *(*setup)(const struct bench_case *c);
    /** The loop, once per thread. */
    void (*run)(struct bench *b);
    /** After each run, by the last thread, not timed; may add counters. May be NULL. */
    void (*teardown)(struct bench *b, void *shared);
};

/** Copy *c and its name into the list of cases. */
void bench_register(const struct bench_case *c);
/** Written by each program. */
void bench_register_all(void);

/** True while there is more to do: the caller then does n operations. All threads pass the same n. The first call waits for all threads. */
bool bench_more(struct bench *b, uint64_t n);
/** Stop and start the clocks: for what belongs between operations but is not measured. Costs about 1 us a pair. */
void bench_pause(struct bench *b);
void bench_resume(struct bench *b);

void *bench_shared(const struct bench *b);
const struct bench_case *bench_case_of(const struct bench *b);
uint64_t bench_argument(const struct bench *b);
/** 0 .. bench_threads - 1. */
unsigned bench_thread(const struct bench *b);
unsigned bench_threads(const struct bench *b);

/** Add amount to a counter that is reported divided by the number of operations of all threads. */
void bench_count_per_op(struct bench *b, const char *name, double amount);
/** Report a value as it is. */
void bench_value(struct bench *b, const char *name, double value);
/** Report the run as failed, with a sentence. The loop must still end by bench_more or return at once. */
void bench_fail(struct bench *b, const char *why);

/** A directory of this program's own, under --dir=DIR (default /dev/shm); removed with its contents at exit. */
const char *bench_directory(void);
/** An option of the program, --NAME=VALUE or environment variable BENCH_NAME (upper case); fallback if not given. */
const char *bench_option(const char *name, const char *fallback);

/** A small fast generator, so that subjects see the same sequences. */
static inline uint64_t bench_random(uint64_t *state)
{
    uint64_t x = (*state += 0x9e3779b97f4a7c15u);
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/** Keep the compiler from dropping a value that nothing reads. */
static inline void bench_keep(const void *value)
{
    __asm__ volatile("" : : "r"(value) : "memory");
}

#ifdef __cplusplus
}
#endif
#endif
