/* SPDX-License-Identifier: BSD-3-Clause */
/* progress.h -- a line on the terminal while something takes long; nothing when stderr is no terminal. */
#ifndef TOOLS_PROGRESS_H
#define TOOLS_PROGRESS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

struct progress {
    const char *label;
    uint64_t total; /* 0: unknown; only the time is shown */
    /** If not NULL, called by the drawing thread instead of reading done. */
    uint64_t (*sample)(void *arg);
    void *arg;
    _Atomic uint64_t done;
    bool running, stop; /* stop: under lock */
    struct timespec start;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
};

/** label, total, sample and arg are set. */
void progress_start(struct progress *p);
/** Take the line away. */
void progress_stop(struct progress *p);

#endif
