/* SPDX-License-Identifier: BSD-3-Clause */
/* thread.c -- see thread.h. */
#include "base/thread.h"

#include <signal.h>

bool thread_start(pthread_t *ret, void *(*function)(void *arg), void *arg)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* the new thread inherits the mask */
    bool started = pthread_create(ret, NULL, function, arg) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (started)
        pthread_setname_np(*ret, "pallocator");
    return started;
}
