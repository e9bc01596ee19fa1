/* SPDX-License-Identifier: BSD-3-Clause */
/* cpu.c -- see cpu.h. */
#include "base/cpu.h"

#include <sched.h>
#include <unistd.h>

unsigned cpu_current_slow(void)
{
    int cpu = sched_getcpu();
    return cpu < 0 ? 0 : (unsigned)cpu;
}

unsigned cpu_count(void)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    return cores < 1 ? 1 : (unsigned)cores;
}
