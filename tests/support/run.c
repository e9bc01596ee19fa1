/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/support/run.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "tests/support/temp.h"

static int run_argc;
static char **run_argv;
static uint64_t run_seed_value;

static const char *option_text(const char *name)
{
    size_t length = strlen(name);
    for (int i = 1; i < run_argc; i++)
        if (strncmp(run_argv[i], "--", 2) == 0 && strncmp(run_argv[i] + 2, name, length) == 0 &&
            run_argv[i][2 + length] == '=')
            return run_argv[i] + 3 + length;
    char variable[64];
    snprintf(variable, sizeof variable, "PA_TEST_%s", name);
    for (char *c = variable; *c != '\0'; c++)
        *c = (char)(*c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c);
    return getenv(variable);
}

uint64_t run_option(const char *name, uint64_t fallback)
{
    const char *text = option_text(name);
    return text == NULL || *text == '\0' ? fallback : strtoull(text, NULL, 0);
}

uint64_t run_seed(void)
{
    return run_seed_value;
}

void run_count(uint64_t operations)
{
    printf("operations: %llu\n", (unsigned long long)operations);
    fflush(stdout);
}

void run_pretend(const char *granularity)
{
    if (granularity == NULL || run_option("real_media", 0) != 0)
        unsetenv("PMEM2_FORCE_GRANULARITY");
    else
        setenv("PMEM2_FORCE_GRANULARITY", granularity, 1);
}

static void clean_all(void)
{
    temp_clean();
}

/* Is name one of option "except"'s, which commas separate? */
static bool left_out(const char *name)
{
    const char *at = option_text("except");
    size_t length = strlen(name);
    while (at != NULL && *at != '\0') {
        size_t n = strcspn(at, ",");
        if (n == length && strncmp(at, name, n) == 0)
            return true;
        at += n + (at[n] == ',');
    }
    return false;
}

void run_add(Suite *s, const TTest *test, const char *name, int timeout_seconds)
{
    if (left_out(name)) {
        fprintf(stderr, "left out: %s\n", name);
        return;
    }
    TCase *c = tcase_create(name);
    tcase_set_timeout(c, timeout_seconds);
    tcase_add_unchecked_fixture(c, NULL, clean_all);
    tcase_add_test(c, test);
    suite_add_tcase(s, c);
}

int run_main(int argc, char **argv, const char *name, void (*add)(Suite *s))
{
    run_argc = argc;
    run_argv = argv;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    run_seed_value = run_option("seed", (uint64_t)now.tv_sec * 1000003u ^ (uint64_t)now.tv_nsec);
    if (temp_init() != 0) {
        fprintf(stderr, "%s: cannot make a temporary directory\n", name);
        return EXIT_FAILURE;
    }
    Suite *s = suite_create(name);
    add(s);
    SRunner *runner = srunner_create(s);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    temp_fini();
    if (failed != 0)
        fprintf(stderr, "%s: repeat with --seed=%llu\n", name, (unsigned long long)run_seed_value);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

unsigned process_descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    unsigned n = 0;
    while (d != NULL && readdir(d) != NULL)
        n++;
    if (d != NULL)
        closedir(d);
    return n;
}

uint64_t process_address_space(void)
{
    unsigned long long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f == NULL || fscanf(f, "%llu", &pages) != 1)
        pages = 0;
    if (f != NULL)
        fclose(f);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE) >> 20;
}

#define STALE "(no new sentence)"

void sentence_forget(void)
{
    error_set(0, STALE);
}

bool sentence_is_good(const char *part)
{
    const char *text = pa_errormsg();
    if (strlen(text) < 10 || strcmp(text, STALE) == 0 || strchr(text, '\n') != NULL)
        return false;
    return part == NULL || strstr(text, part) != NULL;
}
