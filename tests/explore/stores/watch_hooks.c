/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * watch_hooks.c -- the functions that -fsanitize=thread makes the library call, and memcpy, memmove and memset, which it does not
 * announce (the linker's --wrap brings them here). Loads are of no interest. See watch.h.
 */
#include <stdbool.h>
#include <stdint.h>

#include "tests/explore/stores/watch.h"

/* Only compilers call these. */
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#if defined(__clang__)
#pragma GCC diagnostic ignored "-Watomic-alignment"
#else
#pragma GCC diagnostic ignored "-Wbuiltin-declaration-mismatch"
#endif

#define CALLER __builtin_return_address(0)

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

#define ACCESS(BYTES)                                                                                                  \
    void __tsan_read##BYTES(void *address)                                                                             \
    {                                                                                                                  \
        (void)address;                                                                                                 \
    }                                                                                                                  \
    void __tsan_unaligned_read##BYTES(void *address)                                                                   \
    {                                                                                                                  \
        (void)address;                                                                                                 \
    }                                                                                                                  \
    void __tsan_write##BYTES(void *address)                                                                            \
    {                                                                                                                  \
        watch_store(address, BYTES, CALLER);                                                                           \
    }                                                                                                                  \
    void __tsan_unaligned_write##BYTES(void *address)                                                                  \
    {                                                                                                                  \
        watch_store(address, BYTES, CALLER);                                                                           \
    }                                                                                                                  \
    void __tsan_read_write##BYTES(void *address)                                                                       \
    {                                                                                                                  \
        watch_store(address, BYTES, CALLER);                                                                           \
    }                                                                                                                  \
    void __tsan_unaligned_read_write##BYTES(void *address)                                                             \
    {                                                                                                                  \
        watch_store(address, BYTES, CALLER);                                                                           \
    }

ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)

void __tsan_read_range(void *address, unsigned long size)
{
    (void)address, (void)size;
}

void __tsan_write_range(void *address, unsigned long size)
{
    watch_store(address, size, CALLER);
}

void __tsan_vptr_update(void **address, void *value)
{
    (void)value;
    watch_store(address, sizeof *address, CALLER);
}

void __tsan_vptr_read(void **address)
{
    (void)address;
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

/* The call makes the access, in the strongest order. */
#define FETCH(BITS, TYPE, NAME)                                                                                        \
    TYPE __tsan_atomic##BITS##_fetch_##NAME(volatile TYPE *address, TYPE value, int order)                             \
    {                                                                                                                  \
        (void)order;                                                                                                   \
        watch_store((const void *)address, sizeof *address, CALLER);                                                   \
        return __atomic_fetch_##NAME(address, value, __ATOMIC_SEQ_CST);                                                \
    }

#define COMPARE(BITS, TYPE, NAME)                                                                                      \
    int __tsan_atomic##BITS##_compare_exchange_##NAME(volatile TYPE *address, TYPE *expected, TYPE value, int order,   \
                                                      int order_if_not)                                                \
    {                                                                                                                  \
        (void)order, (void)order_if_not;                                                                               \
        bool done = __atomic_compare_exchange_n(address, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);  \
        if (done)                                                                                                      \
            watch_store((const void *)address, sizeof *address, CALLER);                                               \
        return done;                                                                                                   \
    }

#define ATOMIC(BITS, TYPE)                                                                                             \
    TYPE __tsan_atomic##BITS##_load(const volatile TYPE *address, int order)                                           \
    {                                                                                                                  \
        (void)order;                                                                                                   \
        return __atomic_load_n(address, __ATOMIC_SEQ_CST);                                                             \
    }                                                                                                                  \
    void __tsan_atomic##BITS##_store(volatile TYPE *address, TYPE value, int order)                                    \
    {                                                                                                                  \
        (void)order;                                                                                                   \
        watch_store((const void *)address, sizeof *address, CALLER);                                                   \
        __atomic_store_n(address, value, __ATOMIC_SEQ_CST);                                                            \
    }                                                                                                                  \
    TYPE __tsan_atomic##BITS##_exchange(volatile TYPE *address, TYPE value, int order)                                 \
    {                                                                                                                  \
        (void)order;                                                                                                   \
        watch_store((const void *)address, sizeof *address, CALLER);                                                   \
        return __atomic_exchange_n(address, value, __ATOMIC_SEQ_CST);                                                  \
    }                                                                                                                  \
    TYPE __tsan_atomic##BITS##_compare_exchange_val(volatile TYPE *address, TYPE expected, TYPE value, int order,      \
                                                    int order_if_not)                                                  \
    {                                                                                                                  \
        (void)order, (void)order_if_not;                                                                               \
        if (__atomic_compare_exchange_n(address, &expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))         \
            watch_store((const void *)address, sizeof *address, CALLER);                                               \
        return expected;                                                                                               \
    }                                                                                                                  \
    COMPARE(BITS, TYPE, strong)                                                                                        \
    COMPARE(BITS, TYPE, weak)                                                                                          \
    FETCH(BITS, TYPE, add)                                                                                             \
    FETCH(BITS, TYPE, sub)                                                                                             \
    FETCH(BITS, TYPE, and)                                                                                             \
    FETCH(BITS, TYPE, or)                                                                                              \
    FETCH(BITS, TYPE, xor)                                                                                             \
    FETCH(BITS, TYPE, nand)

ATOMIC(8, uint8_t)
ATOMIC(16, uint16_t)
ATOMIC(32, uint32_t)
ATOMIC(64, uint64_t)

void *__real_memcpy(void *to, const void *from, size_t size);
void *__real_memmove(void *to, const void *from, size_t size);
void *__real_memset(void *to, int value, size_t size);

void *__wrap_memcpy(void *to, const void *from, size_t size)
{
    watch_store(to, size, CALLER);
    return __real_memcpy(to, from, size);
}

void *__wrap_memmove(void *to, const void *from, size_t size)
{
    watch_store(to, size, CALLER);
    return __real_memmove(to, from, size);
}

void *__wrap_memset(void *to, int value, size_t size)
{
    watch_store(to, size, CALLER);
    return __real_memset(to, value, size);
}

/* clang's own names for them. */
void *__tsan_memcpy(void *to, const void *from, size_t size)
{
    watch_store(to, size, CALLER);
    return __real_memcpy(to, from, size);
}

void *__tsan_memmove(void *to, const void *from, size_t size)
{
    watch_store(to, size, CALLER);
    return __real_memmove(to, from, size);
}

void *__tsan_memset(void *to, int value, size_t size)
{
    watch_store(to, size, CALLER);
    return __real_memset(to, value, size);
}
