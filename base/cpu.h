/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cpu.h -- the number of the core the caller runs on: a hint for choosing an allocator object, never trusted for mutual
 * exclusion. Read from the rseq area that glibc (2.35 and later) registers: one load instead of a call.
 */
#ifndef BASE_CPU_H
#define BASE_CPU_H

#include <stddef.h>
#include <stdint.h>

#if defined(__has_include)
#if __has_include(<sys/rseq.h>)
#include <sys/rseq.h>
#define CPU_HAVE_RSEQ 1
#endif
#endif

/** sched_getcpu, or 0 where that fails. */
unsigned cpu_current_slow(void);
/** Processors that are online; at least 1. */
unsigned cpu_count(void);

#if defined(CPU_HAVE_RSEQ)
static inline const volatile struct rseq *cpu_rseq_area(void)
{
    char *thread_pointer;
#if defined(__x86_64__)
    __asm__("mov %%fs:0, %0" : "=r"(thread_pointer));
#elif defined(__aarch64__)
    __asm__("mrs %0, tpidr_el0" : "=r"(thread_pointer));
#else
    return NULL;
#endif
    return (const volatile struct rseq *)(thread_pointer + __rseq_offset);
}
#endif

static inline unsigned cpu_current(void)
{
#if defined(CPU_HAVE_RSEQ) && (defined(__x86_64__) || defined(__aarch64__))
    if (__rseq_size != 0) {
        int32_t cpu = (int32_t)cpu_rseq_area()->cpu_id;
        if (cpu >= 0)
            return (unsigned)cpu;
    }
#endif
    return cpu_current_slow();
}

#endif
