/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * step_hooks.c -- the library, compiled with -fsanitize=thread, calls these functions for each of its atomic loads and stores. They are
 * linked instead of the race detector's: each makes the access, and now and then lets other threads go first. So a thread
 * is overtaken between any two of its steps, which on its own would happen once in a million times.
 *
 * The accesses have the strongest order: what is tried is how steps interleave, not how a processor reorders them.
 */
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

/* Only compilers call these. */
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#if defined(__clang__)
#pragma GCC diagnostic ignored "-Watomic-alignment"
#else
#pragma GCC diagnostic ignored "-Wbuiltin-declaration-mismatch"
#endif

static void step(void)
{
    static _Thread_local uint32_t lots;
    if (lots == 0)
        lots = (uint32_t)(uintptr_t)&lots >> 6 | 1;
    lots = lots * 1664525u + 1013904223u;
    if (lots >> 24 == 0)
        sched_yield();
}

void __tsan_init(void)
{
}

void __tsan_func_entry(void *caller)
{
    (void)caller;
}

void __tsan_func_exit(void)
{
}

#define NOTHING(NAME)                                                                                                  \
    void __tsan_##NAME(void *address)                                                                                  \
    {                                                                                                                  \
        (void)address;                                                                                                 \
    }
#define PLAIN(BYTES)                                                                                                   \
    NOTHING(read##BYTES)                                                                                               \
    NOTHING(write##BYTES)                                                                                              \
    NOTHING(read_write##BYTES)                                                                                         \
    NOTHING(unaligned_read##BYTES)                                                                                     \
    NOTHING(unaligned_write##BYTES)                                                                                    \
    NOTHING(unaligned_read_write##BYTES)

PLAIN(1)
PLAIN(2)
PLAIN(4)
PLAIN(8)
PLAIN(16)
NOTHING(vptr_read)

void __tsan_vptr_update(void **address, void *value)
{
    (void)address, (void)value;
}

void __tsan_read_range(void *address, unsigned long size)
{
    (void)address, (void)size;
}

void __tsan_write_range(void *address, unsigned long size)
{
    (void)address, (void)size;
}

void __tsan_atomic_thread_fence(int order)
{
    (void)order;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void __tsan_atomic_signal_fence(int order)
{
    (void)order;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

#define FETCH(BITS, TYPE, NAME)                                                                                        \
    TYPE __tsan_atomic##BITS##_fetch_##NAME(volatile TYPE *address, TYPE value, int order)                             \
    {                                                                                                                  \
        (void)order;                                                                                                   \
        step();                                                                                                        \
        return __atomic_fetch_##NAME(address, value, __ATOMIC_SEQ_CST);                                                \
    }

#define COMPARE(BITS, TYPE, NAME)                                                                                      \
    int __tsan_atomic##BITS##_compare_exchange_##NAME(volatile TYPE *address, TYPE *expected, TYPE value, int order,   \
                                                      int order_if_not)                                                \
    {                                                                                                                  \
        (void)order, (void)order_if_not;                                                                               \
        step();                                                                                                        \
        return __atomic_compare_exchange_n(address, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);       \
    }

#define ATOMIC(BITS, TYPE)                                                                                             \
    TYPE __tsan_atomic##BITS##_load(const volatile TYPE *address, int order)                                           \
    {                                                                                                                  \
        (void)order;                                                                                                   \
        step();                                                                                                        \
        return __atomic_load_n(address, __ATOMIC_SEQ_CST);                                                             \
    }                                                                                                                  \
    void __tsan_atomic##BITS##_store(volatile TYPE *address, TYPE value, int order)                                    \
    {                                                                                                                  \
        (void)order;                                                                                                   \
        step();                                                                                                        \
        __atomic_store_n(address, value, __ATOMIC_SEQ_CST);                                                            \
    }                                                                                                                  \
    TYPE __tsan_atomic##BITS##_exchange(volatile TYPE *address, TYPE value, int order)                                 \
    {                                                                                                                  \
        (void)order;                                                                                                   \
        step();                                                                                                        \
        return __atomic_exchange_n(address, value, __ATOMIC_SEQ_CST);                                                  \
    }                                                                                                                  \
    TYPE __tsan_atomic##BITS##_compare_exchange_val(volatile TYPE *address, TYPE expected, TYPE value, int order,      \
                                                    int order_if_not)                                                  \
    {                                                                                                                  \
        (void)order, (void)order_if_not;                                                                               \
        step();                                                                                                        \
        __atomic_compare_exchange_n(address, &expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);             \
        return expected;                                                                                               \
    }                                                                                                                  \
    COMPARE(BITS, TYPE, strong)                                                                                        \
    COMPARE(BITS, TYPE, weak)                                                                                          \
    FETCH(BITS, TYPE, add)                                                                                             \
    FETCH(BITS, TYPE, sub)                                                                                             \
    FETCH(BITS, TYPE, and)                                                                                             \
    FETCH(BITS, TYPE, or)                                                                                              \
    FETCH(BITS, TYPE, xor)

ATOMIC(8, uint8_t)
ATOMIC(16, uint16_t)
ATOMIC(32, uint32_t)
ATOMIC(64, uint64_t)
