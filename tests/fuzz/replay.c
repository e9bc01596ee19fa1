/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * replay.c -- corpus files and seeded random inputs through the fuzzer's entry point, with any compiler.
 *
 *   replay [--count=N] [--seconds=N] [--seed=N] [FILE|DIRECTORY]...
 *
 * Runs the files, then N random inputs (default 0), each made from the seed and its number, until the seconds are over (default:
 * no limit). An input that fails is left in the file fuzz-failed, to be run again by its name. Exit code 0 or death.
 */
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"
#include "tests/support/random.h"

#define FAILED "fuzz-failed"

static uint8_t input[FUZZ_INPUT_MAX];
static size_t input_size;
static char input_name[300];

static void keep_input(int signal_number)
{
    static const char told[] = "fuzz: the input is in the file " FAILED "\n";
    int fd = open(FAILED, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd >= 0 && write(fd, input, input_size) == (ssize_t)input_size)
        (void)!write(STDERR_FILENO, told, sizeof told - 1);
    (void)!write(STDERR_FILENO, input_name, strlen(input_name));
    if (signal_number == SIGALRM)
        (void)!write(STDERR_FILENO, " hangs\n", 7);
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

static void watch(void)
{
    static const int signals[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM};
    for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++)
        signal(signals[i], keep_input);
}

/* --- files ---------------------------------------------------------------------------------------------------------------------- */

static unsigned run_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (f == NULL)
        return 0;
    snprintf(input_name, sizeof input_name, "%.*s\n", (int)sizeof input_name - 2, path);
    input_size = fread(input, 1, sizeof input, f);
    fclose(f);
    fuzz_one(input, input_size);
    return 1;
}

static unsigned run_path(const char *path)
{
    DIR *d = opendir(path);
    unsigned n = 0;
    if (d == NULL)
        return run_file(path);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char name[600];
        snprintf(name, sizeof name, "%s/%s", path, e->d_name);
        if (e->d_name[0] != '.')
            n += run_file(name);
    }
    closedir(d);
    return n;
}

/* --- random ---------------------------------------------------------------------------------------------------------------------- */

/* One change most often, of a field rather than of any byte; a third of them with the checksums put right. */
static void make_input(uint64_t seed, uint64_t number)
{
    struct random r = {seed * 0x9e3779b97f4a7c15u + number};
    size_t records = 1 + (random_below(&r, 3) == 0 ? random_below(&r, 8) : 0);
    input_size = 2 + records * 8;
    for (size_t i = 0; i < input_size; i++)
        input[i] = (uint8_t)random_next(&r);
    input[0] = (uint8_t)(random_below(&r, 2) | (random_below(&r, 3) == 0) << 1 | (random_below(&r, 10) == 0) << 2 |
                         (random_below(&r, 32) == 0) << 3);
    snprintf(input_name, sizeof input_name, "random input %" PRIu64 " of seed %" PRIu64 "\n", number, seed);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int main(int argc, char **argv)
{
    uint64_t count = 0, seconds = 0, seed = (uint64_t)time(NULL), files = 0, number = 0;
    watch();
    if (!fuzz_setup())
        return EXIT_FAILURE;
    for (int i = 1; i < argc; i++)
        if (strncmp(argv[i], "--count=", 8) == 0)
            count = strtoull(argv[i] + 8, NULL, 0);
        else if (strncmp(argv[i], "--seconds=", 10) == 0)
            seconds = strtoull(argv[i] + 10, NULL, 0);
        else if (strncmp(argv[i], "--seed=", 7) == 0)
            seed = strtoull(argv[i] + 7, NULL, 0);
        else
            files += run_path(argv[i]);
    double end = now() + (double)seconds;
    for (; number < count && (seconds == 0 || now() < end); number++) {
        make_input(seed, number);
        fuzz_one(input, input_size);
    }
    printf("replay: %" PRIu64 " files and %" PRIu64 " random inputs (seed %" PRIu64 "): %" PRIu64
           " told by pa_check, %" PRIu64 " refused by pa_open, %" PRIu64 " unsound ones used, %" PRIu64
           " sound, %" PRIu64 " repaired, %" PRIu64 " not; no finding\n",
           files, number, seed, fuzz_totals.told, fuzz_totals.refused, fuzz_totals.used_unsound, fuzz_totals.sound,
           fuzz_totals.repaired, fuzz_totals.not_repaired);
    fuzz_cleanup();
    return EXIT_SUCCESS;
}
