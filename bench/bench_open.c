/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench_open.c -- from pa_open to the first block, in a large pool whose process was killed.
 *
 * A process fills a PA_SPARSE pool of 8,192 segments of 128 MiB (1 TiB of addresses) with blocks of 128 KiB, frees some, and is killed
 * by SIGKILL while it replaces blocks. It moves from processor to processor meanwhile, so that all allocator objects have a share. full: one block in twenty is freed. thin: all are freed but one in a hundred; the segments
 * stay. Then each round, in processes of their own:
 *
 *   bare    for each of the pool's files: openat, fstat, mmap (shared, at its place in a reserved range), read a byte, close
 *   open    pa_open; first: pa_allocate of 64 B or 128 KiB; total is their sum. The process frees the block and kills itself, so that
 *           every round meets a pool that was not closed.
 *
 * The pools are made when they are first needed, and serve all cases and rounds. Options: segments=N.
 */
#include <dirent.h>
#include <fcntl.h>
#include <pallocator.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench/directory.h"
#include "bench/harness.h"
#include "bench/owner_array.h"

#define SEGMENT_BYTES ((uint64_t)128 << 20)
#define BLOCK_BYTES   ((size_t)128 << 10)

/* How a pool is filled. */
struct filling {
    const char *name;
    unsigned every;   /* of so many blocks in a row ... */
    bool keep_every;  /* ... one is kept, or one is freed */
    bool made, right; /* the pool is there, and as it should be */
    char dir[512];
};

static struct filling fillings[] = {
    {.name = "full", .every = 20, .keep_every = false},
    {.name = "thin", .every = 100, .keep_every = true},
};

struct variant {
    struct filling *filling;
    size_t size; /* of the first block */
};

static uint64_t wanted_segments(void)
{
    return strtoull(bench_option("segments", bench_option("smoke", NULL) != NULL ? "16" : "8192"), NULL, 10);
}

static double clock_ms(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* ---------------------------------------------------------------------------------------------- processes of their own */

/* What a process reports when it is done. */
struct report {
    double open_ms, first_ms, cpu_ms, bare_ms;
};

static void die(const char *what)
{
    fprintf(stderr, "bench_open: %s: %s\n", what, pa_errormsg());
    _exit(1);
}

/* Tell the parent. */
static void tell(int to, const struct report *r)
{
    if (write(to, r, sizeof *r) != (ssize_t)sizeof *r)
        _exit(1);
}

/* Run work in a child until it has told its report; then it is killed. */
static bool in_child(void (*work)(int to, const struct variant *v), const struct variant *v, struct report *ret)
{
    int ends[2];
    if (pipe(ends) != 0)
        return false;
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        work(ends[1], v);
        _exit(1);
    }
    close(ends[1]);
    bool told = child > 0 && read(ends[0], ret, sizeof *ret) == (ssize_t)sizeof *ret;
    close(ends[0]);
    if (child > 0) {
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
    }
    return told;
}

/* ---------------------------------------------------------------------------------------------- filling */

/* Go to the n-th of the processors that allowed names, round about. */
static void move_to(const cpu_set_t *allowed, size_t n)
{
    cpu_set_t one;
    int cpu = 0;
    for (n %= (size_t)CPU_COUNT(allowed);; cpu++)
        if (CPU_ISSET(cpu, allowed) && n-- == 0)
            break;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    sched_setaffinity(0, sizeof one, &one);
}

/* Allocate until the pool has its segments; returns the number of blocks. */
static size_t fill_segments(const char *dir, pa_pool *pool, struct owner_array *owners)
{
    char last[600];
    size_t count = 0;
    cpu_set_t allowed;
    sched_getaffinity(0, sizeof allowed, &allowed);
    snprintf(last, sizeof last, "%s/segment-%08x.pa", dir, (unsigned)wanted_segments());
    for (;; count++) {
        if (count % OWNER_ARRAY_CHUNK == 0 && owner_array_open(owners, pool, count + 1) != 0)
            die("owners");
        if (count % 64 == 0)
            move_to(&allowed, count / 64);
        if (count % 64 == 0 && access(last, F_OK) == 0)
            break;
        if (pa_allocate(pool, owner_at(owners, count), BLOCK_BYTES) != 0)
            die("fill");
    }
    sched_setaffinity(0, sizeof allowed, &allowed);
    return count;
}

static void thin_out(const struct filling *f, pa_pool *pool, struct owner_array *owners, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if ((i % f->every == 0) != f->keep_every && pa_deallocate(pool, owner_at(owners, i)) != 0)
            die("free");
}

/* Fill, tell, and go on replacing blocks until the kill. */
static void filler(int to, const struct variant *v)
{
    const struct filling *f = v->filling;
    pa_options options;
    pa_pool *pool;
    struct owner_array owners;
    pa_options_init(&options);
    options.flags = PA_SPARSE;
    options.segment_size = SEGMENT_BYTES;
    if (pa_create(f->dir, &options, &pool) != 0)
        die("create");
    size_t count = fill_segments(f->dir, pool, &owners);
    thin_out(f, pool, &owners, count);
    tell(to, &(struct report){0});
    for (size_t i = 0;; i = (i + 1237) % count)
        if (!pa_is_null(*owner_at(&owners, i)))
            if (pa_deallocate(pool, owner_at(&owners, i)) != 0 ||
                pa_allocate(pool, owner_at(&owners, i), BLOCK_BYTES) != 0)
                die("replace");
}

/* ---------------------------------------------------------------------------------------------- what is measured */

static void opener(int to, const struct variant *v)
{
    struct report r = {0};
    pa_pool *pool;
    pa_options options;
    pa_pptr root;
    pa_options_init(&options);
    double cpu = clock_ms(CLOCK_PROCESS_CPUTIME_ID), start = clock_ms(CLOCK_MONOTONIC);
    if (pa_open(v->filling->dir, &options, &pool) != 0)
        die("open");
    double opened = clock_ms(CLOCK_MONOTONIC);
    if (pa_root(pool, 1, &root) != 0)
        die("root");
    /* The owner array's last chunk pointer, which nothing else uses. */
    pa_pptr *owner = (pa_pptr *)pa_direct(pool, root) + OWNER_ARRAY_CHUNKS - 1;
    if (pa_allocate(pool, owner, v->size) != 0)
        die("first");
    double end = clock_ms(CLOCK_MONOTONIC);
    r.cpu_ms = clock_ms(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    r.open_ms = opened - start;
    r.first_ms = end - opened;
    if (pa_deallocate(pool, owner) != 0)
        die("free");
    tell(to, &r);
    for (;;)
        pause();
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The names of a directory's files, sorted. */
static char **list_files(const char *dir, size_t *ret_count)
{
    char **names = NULL;
    size_t count = 0;
    DIR *d = opendir(dir);
    if (d == NULL)
        die("opendir");
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (e->d_name[0] != '.') {
            names = realloc(names, (count + 1) * sizeof *names);
            if (names == NULL || (names[count] = strdup(e->d_name)) == NULL)
                die("memory");
            count++;
        }
    closedir(d);
    qsort(names, count, sizeof *names, by_name);
    *ret_count = count;
    return names;
}

static void bare_file(int dir, const char *name, char *base, uint64_t *offset)
{
    struct stat st;
    int fd = openat(dir, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || fstat(fd, &st) != 0)
        die(name);
    volatile char *at = mmap(base + *offset, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
    if (at == MAP_FAILED)
        die(name);
    (void)*at;
    close(fd);
    *offset += ((uint64_t)st.st_size + SEGMENT_BYTES - 1) / SEGMENT_BYTES * SEGMENT_BYTES;
}

static void bare(int to, const struct variant *v)
{
    size_t count;
    uint64_t offset = 0;
    char **names = list_files(v->filling->dir, &count);
    double cpu = clock_ms(CLOCK_PROCESS_CPUTIME_ID), start = clock_ms(CLOCK_MONOTONIC);
    int dir = open(v->filling->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char *base = mmap(NULL, (count + 1) * SEGMENT_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (dir < 0 || base == MAP_FAILED)
        die("reserve");
    for (size_t i = 0; i < count; i++)
        bare_file(dir, names[i], base, &offset);
    tell(to, &(struct report){.bare_ms = clock_ms(CLOCK_MONOTONIC) - start,
                              .cpu_ms = clock_ms(CLOCK_PROCESS_CPUTIME_ID) - cpu});
    for (;;)
        pause();
}

/* ---------------------------------------------------------------------------------------------- cases */

static bool make_pool(const struct variant *v)
{
    struct report ignored;
    struct filling *f = v->filling;
    if (f->made)
        return f->right;
    f->made = true;
    snprintf(f->dir, sizeof f->dir, "%s/%s", bench_directory(), f->name);
    f->right = in_child(filler, v, &ignored) && directory_files(f->dir, "segment-") >= wanted_segments();
    return f->right;
}

static void measure(struct bench *b, const struct variant *v)
{
    struct report r, floor;
    if (!make_pool(v)) {
        bench_fail(b, "the pool cannot be filled");
        return;
    }
    if (!in_child(bare, v, &floor) || !in_child(opener, v, &r)) {
        bench_fail(b, "a process failed");
        return;
    }
    bench_value(b, "1 segments", (double)directory_files(v->filling->dir, "segment-"));
    bench_value(b, "2 held MiB", (double)directory_resident_bytes(v->filling->dir) / (1 << 20));
    bench_value(b, "3 bare ms", floor.bare_ms);
    bench_value(b, "4 open ms", r.open_ms);
    bench_value(b, "5 first ms", r.first_ms);
    bench_value(b, "6 total ms", r.open_ms + r.first_ms);
    bench_value(b, "7 bare CPU ms", floor.cpu_ms);
    bench_value(b, "8 total CPU ms", r.cpu_ms);
}

static void run(struct bench *b)
{
    while (bench_more(b, 1))
        measure(b, bench_case_of(b)->params);
}

void bench_register_all(void)
{
    static const struct variant variants[] = {
        {&fillings[0], 64},
        {&fillings[0], BLOCK_BYTES},
        {&fillings[1], 64},
        {&fillings[1], BLOCK_BYTES},
    };
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        char name[64];
        snprintf(name, sizeof name, "pallocator/%s, %s", variants[i].filling->name,
                 variants[i].size == 64 ? "64 B" : "128 KiB");
        bench_register(&(struct bench_case){.name = name, .params = &variants[i], .fixed_ops = 1, .run = run});
    }
}
