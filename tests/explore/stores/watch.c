/* SPDX-License-Identifier: BSD-3-Clause */
/* watch.c -- see watch.h. */
#include "tests/explore/stores/watch.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define RANGES_MAX  64u
#define PENDING_MAX 128u
#define PLACES_MAX  64u

extern const char __executable_start[];

static struct {
    uintptr_t from, to;
} ranges[RANGES_MAX];
static unsigned ranges_count;

/* Stores of this thread that nobody has announced yet. */
static _Thread_local struct {
    uintptr_t from, to;
    const void *caller;
} pending[PENDING_MAX];
static _Thread_local unsigned pending_count;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t stores, bypasses;
static const void *places[PLACES_MAX]; /* told already */
static unsigned places_count;
static int silent;

void watch_range(const void *address, uint64_t size)
{
    uintptr_t from = (uintptr_t)address;
    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < ranges_count; i++)
        if (ranges[i].from <= from && from + size <= ranges[i].to)
            size = 0;
    if (size > 0 && ranges_count == RANGES_MAX)
        abort();
    if (size > 0) {
        ranges[ranges_count].from = from;
        ranges[ranges_count].to = from + size;
        __atomic_store_n(&ranges_count, ranges_count + 1, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&lock);
}

/* "function at file:line" by binutils; the raw offset if that is not there. */
static void tell_place(const void *caller)
{
    char command[128];
    unsigned long offset = (unsigned long)((const char *)caller - __executable_start) - 1;
    snprintf(command, sizeof command, "addr2line -f -p -i -e /proc/%d/exe 0x%lx", (int)getpid(), offset);
    fprintf(stderr, "    by-passed at offset 0x%lx: ", offset);
    fflush(stderr);
    FILE *tool = popen(command, "r");
    char line[512];
    while (tool != NULL && fgets(line, sizeof line, tool) != NULL)
        fputs(line, stderr);
    if (tool != NULL)
        pclose(tool);
}

static void report(unsigned i)
{
    pthread_mutex_lock(&lock);
    bypasses++;
    int known = silent;
    for (unsigned k = 0; k < places_count; k++)
        known |= places[k] == pending[i].caller;
    if (!known && places_count < PLACES_MAX) {
        places[places_count++] = pending[i].caller;
        tell_place(pending[i].caller);
    }
    pthread_mutex_unlock(&lock);
}

void watch_check(void)
{
    for (unsigned i = 0; i < pending_count; i++)
        report(i);
    pending_count = 0;
}

static void add_pending(uintptr_t from, uintptr_t to, const void *caller)
{
    if (pending_count == PENDING_MAX)
        watch_check();
    pending[pending_count].from = from;
    pending[pending_count].to = to;
    pending[pending_count++].caller = caller;
}

void watch_store(const void *address, size_t size, const void *caller)
{
    uintptr_t from = (uintptr_t)address;
    unsigned count = __atomic_load_n(&ranges_count, __ATOMIC_ACQUIRE);
    for (unsigned i = 0; i < count; i++) {
        if (from >= ranges[i].to || from + size <= ranges[i].from)
            continue;
        __atomic_add_fetch(&stores, 1, __ATOMIC_RELAXED);
        add_pending(from, from + size, caller);
        return;
    }
}

/* [from, to) is announced: what is left of each store stays. */
static void announce(uintptr_t from, uintptr_t to)
{
    for (unsigned i = pending_count; i-- > 0;) {
        uintptr_t first = pending[i].from, end = pending[i].to;
        const void *caller = pending[i].caller;
        if (end <= from || first >= to)
            continue;
        pending[i] = pending[--pending_count];
        if (first < from)
            add_pending(first, from, caller);
        if (end > to)
            add_pending(to, end, caller);
    }
}

void watch_event(enum media_event event, const void *address, size_t size)
{
    if (event == MEDIA_EVENT_STORE || event == MEDIA_EVENT_STORE_NT)
        announce((uintptr_t)address, (uintptr_t)address + size);
    else
        watch_check();
}

struct watch_counts watch_counts(void)
{
    return (struct watch_counts){__atomic_load_n(&stores, __ATOMIC_RELAXED), bypasses};
}

void watch_reset(int quiet)
{
    pending_count = 0;
    stores = bypasses = 0;
    places_count = 0;
    silent = quiet;
}
