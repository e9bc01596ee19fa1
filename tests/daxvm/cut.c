/* SPDX-License-Identifier: BSD-3-Clause */
/* cut.c -- see cut.h. */
#include "tests/daxvm/cut.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define CUT_PORT 0xf4

enum kind { CUT_NONE, CUT_TIME, CUT_STORE, CUT_FLUSH, CUT_FENCE, CUT_BEFORE, CUT_AFTER, CUT_KINDS };

static const char *const kind_names[CUT_KINDS] = {"none", "time", "store", "flush", "fence", "before", "after"};
static const char *const operation_names[] =
    {"open the directory", "create", "open", "stat",   "allocate", "punch", "map", "sync", "unlink",
     "sync the directory", "rename", "lock", "reserve"};

static enum kind chosen;
static uint64_t chosen_at;
static _Atomic uint64_t passed;

void cut_say(const char *format, ...)
{
    char line[256];
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    n = n < (int)sizeof line - 2 ? n : (int)sizeof line - 2;
    line[n] = '\n';
    if (write(STDOUT_FILENO, line, (size_t)n + 1) == n + 1)
        tcdrain(STDOUT_FILENO); /* a line that is still in the kernel would be lost */
}

static void cut_now(void)
{
    outb(CUT_VALUE, CUT_PORT);
    for (;;)
        pause();
}

/* One more step of the chosen kind: is it the one? */
static bool is_due(void)
{
    return atomic_fetch_add(&passed, 1) + 1 == chosen_at;
}

bool cut_choose(const char *text)
{
    const char *colon = strchr(text, ':');
    size_t length = colon == NULL ? strlen(text) : (size_t)(colon - text);
    for (int k = 0; k < CUT_KINDS; k++) {
        if (strlen(kind_names[k]) != length || strncmp(kind_names[k], text, length) != 0)
            continue;
        chosen = (enum kind)k;
        chosen_at = colon == NULL ? 0 : strtoull(colon + 1, NULL, 10);
        return chosen == CUT_NONE || (chosen_at > 0 && ioperm(CUT_PORT, 1, 1) == 0);
    }
    return false;
}

bool cut_is_chosen(void)
{
    return chosen != CUT_NONE;
}

/* --- steps of the media ------------------------------------------------------------------------------------------------------------ */

static void flush_lines(const void *address, size_t size)
{
    uintptr_t a = (uintptr_t)address & ~(uintptr_t)(MEDIA_LINE_BYTES - 1);
    for (; a < (uintptr_t)address + size; a += MEDIA_LINE_BYTES)
        __builtin_ia32_clflush((const void *)a);
}

static void media_step(void *context, enum media_event event, const void *address, size_t size, const char *site)
{
    (void)context;
    bool wanted = chosen == CUT_FENCE ? event == MEDIA_EVENT_DRAIN
                  : chosen == CUT_FLUSH
                      ? event == MEDIA_EVENT_FLUSH
                      : chosen == CUT_STORE && (event == MEDIA_EVENT_STORE || event == MEDIA_EVENT_STORE_NT);
    if (wanted && is_due()) { /* in the place of the flush or fence, and after the store */
        cut_say("@@ cut at %s %" PRIu64 ": %s", kind_names[chosen], chosen_at, site);
        cut_now();
    }
    if (event == MEDIA_EVENT_FLUSH || event == MEDIA_EVENT_STORE_NT)
        flush_lines(address, size);
    else if (event == MEDIA_EVENT_DRAIN)
        __builtin_ia32_sfence();
}

/* --- steps of the files ------------------------------------------------------------------------------------------------------------ */

static bool changes_files(enum file_op op)
{
    return op == FILE_OP_CREATE || op == FILE_OP_ALLOCATE || op == FILE_OP_PUNCH || op == FILE_OP_SYNC ||
           op == FILE_OP_UNLINK || op == FILE_OP_SYNC_DIR || op == FILE_OP_RENAME;
}

static void file_step(enum kind kind, enum file_op op, const char *name, const char *site)
{
    if (chosen != kind || !changes_files(op) || !is_due())
        return;
    cut_say("@@ cut %s file operation %" PRIu64 ": %s %s, %s", kind_names[kind], chosen_at, operation_names[op],
            name == NULL ? "" : name, site);
    cut_now();
}

static int before_file(void *context, enum file_op op, const char *name, const char *site)
{
    (void)context;
    file_step(CUT_BEFORE, op, name, site);
    return 0;
}

static void after_file(void *context, const struct dir *d, enum file_op op, const char *name, uint64_t offset,
                       uint64_t size, void *address, const char *site)
{
    (void)context;
    (void)d;
    (void)offset;
    (void)size;
    (void)address;
    file_step(CUT_AFTER, op, name, site);
}

/* --- the clock --------------------------------------------------------------------------------------------------------------------- */

static void *wait_and_cut(void *arg)
{
    (void)arg;
    struct timespec t = {(time_t)(chosen_at / 1000000), (long)(chosen_at % 1000000) * 1000};
    nanosleep(&t, NULL);
    cut_now();
    return NULL;
}

static const struct media_recorder recorder = {.event = media_step};
static const struct file_hooks hooks = {.before = before_file, .after = after_file};

void cut_arm(struct pool_params *params)
{
    if (chosen == CUT_STORE || chosen == CUT_FLUSH || chosen == CUT_FENCE)
        params->recorder = &recorder;
    if (chosen == CUT_BEFORE || chosen == CUT_AFTER)
        params->hooks = &hooks;
    pthread_t clock;
    if (chosen == CUT_TIME && pthread_create(&clock, NULL, wait_and_cut, NULL) != 0) {
        cut_say("no thread for the clock");
        exit(2);
    }
}
