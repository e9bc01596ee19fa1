/* SPDX-License-Identifier: BSD-3-Clause */
/* progress.c -- see progress.h. The line appears after half a second, so that short work shows none. */
#include "tools/progress.h"

#include <stdio.h>
#include <unistd.h>

#define FIRST_MS  500
#define EVERY_MS  200
#define BAR_CELLS 30

static double seconds_since(const struct timespec *start)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - start->tv_sec) + (double)(now.tv_nsec - start->tv_nsec) / 1e9;
}

static void draw(struct progress *p)
{
    double elapsed = seconds_since(&p->start);
    uint64_t done = p->sample != NULL ? p->sample(p->arg) : atomic_load_explicit(&p->done, memory_order_relaxed);
    if (p->total == 0) {
        fprintf(stderr, "\r%s: %.0f s\033[K", p->label, elapsed);
        return;
    }
    double share = done >= p->total ? 1 : (double)done / (double)p->total;
    char bar[BAR_CELLS + 1];
    for (int i = 0; i < BAR_CELLS; i++)
        bar[i] = i < share * BAR_CELLS ? '#' : ' ';
    bar[BAR_CELLS] = '\0';
    fprintf(stderr, "\r%s [%s] %3.0f %%, %.0f s", p->label, bar, share * 100, elapsed);
    if (share > 0.01)
        fprintf(stderr, ", %.0f s left", elapsed / share - elapsed);
    fputs("\033[K", stderr);
}

static struct timespec after_ms(long ms)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_nsec += ms * 1000000;
    t.tv_sec += t.tv_nsec / 1000000000;
    t.tv_nsec %= 1000000000;
    return t;
}

static void *run(void *arg)
{
    struct progress *p = arg;
    bool drawn = false;
    pthread_mutex_lock(&p->lock);
    for (struct timespec due = after_ms(FIRST_MS); !p->stop;) {
        if (pthread_cond_timedwait(&p->wake, &p->lock, &due) == 0)
            continue;
        draw(p);
        drawn = true;
        due = after_ms(EVERY_MS);
    }
    pthread_mutex_unlock(&p->lock);
    if (drawn)
        fputs("\r\033[K", stderr);
    return NULL;
}

void progress_start(struct progress *p)
{
    p->running = p->stop = false;
    atomic_store(&p->done, 0);
    if (!isatty(STDERR_FILENO))
        return;
    clock_gettime(CLOCK_MONOTONIC, &p->start);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    p->running = pthread_create(&p->thread, NULL, run, p) == 0;
}

void progress_stop(struct progress *p)
{
    if (!p->running)
        return;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_signal(&p->wake);
    pthread_mutex_unlock(&p->lock);
    pthread_join(p->thread, NULL);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
}
