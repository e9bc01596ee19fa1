/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * valgrind.h -- what memcheck is told about a pool's memory, which it would else take for one mapped file.
 *
 * Built in where valgrind/memcheck.h is (meson option valgrind). VALGRIND_BUILT_IN is a constant, so whoever asks it first costs
 * nothing without. Outside Valgrind the functions do nothing.
 */
#ifndef PMEM_VALGRIND_H
#define PMEM_VALGRIND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(PALLOCATOR_VALGRIND)
#include <valgrind/memcheck.h>
#define VALGRIND_BUILT_IN true
#else
#define VALGRIND_BUILT_IN false
#endif

/** Does the process run under Valgrind, and is this built in? */
static inline bool valgrind_is_running(void)
{
#if defined(PALLOCATOR_VALGRIND)
    return RUNNING_ON_VALGRIND != 0;
#else
    return false;
#endif
}

/** Nobody may touch these bytes. */
static inline void valgrind_mark_free(const void *address, size_t size)
{
#if defined(PALLOCATOR_VALGRIND)
    (void)VALGRIND_MAKE_MEM_NOACCESS(address, size);
#else
    (void)address, (void)size;
#endif
}

/** A block that nobody has written to yet. */
static inline void valgrind_mark_new(const void *address, size_t size)
{
#if defined(PALLOCATOR_VALGRIND)
    (void)VALGRIND_MAKE_MEM_UNDEFINED(address, size);
#else
    (void)address, (void)size;
#endif
}

/** Bytes that may be read, whatever they are. */
static inline void valgrind_mark_filled(const void *address, size_t size)
{
#if defined(PALLOCATOR_VALGRIND)
    (void)VALGRIND_MAKE_MEM_DEFINED(address, size);
#else
    (void)address, (void)size;
#endif
}

/** The first of these bytes that nobody may touch; NULL: there is none. */
static inline void *valgrind_first_free(const void *address, size_t size)
{
#if defined(PALLOCATOR_VALGRIND)
    VALGRIND_DISABLE_ERROR_REPORTING;
    uintptr_t first = VALGRIND_CHECK_MEM_IS_ADDRESSABLE(address, size);
    VALGRIND_ENABLE_ERROR_REPORTING;
    return (void *)first;
#else
    (void)address, (void)size;
    return NULL;
#endif
}

/** Is it memcheck that runs? (Not another of Valgrind's tools.) */
static inline bool valgrind_is_memcheck(void)
{
#if defined(PALLOCATOR_VALGRIND)
    char byte;
    return VALGRIND_MAKE_MEM_DEFINED(&byte, sizeof byte) != 0;
#else
    return false;
#endif
}

/** A line in Valgrind's report. */
#if defined(PALLOCATOR_VALGRIND)
#define VALGRIND_TELL(...) ((void)VALGRIND_PRINTF(__VA_ARGS__))
#else
static inline void valgrind_tell_nobody(const char *format, ...)
{
    (void)format;
}
#define VALGRIND_TELL(...) valgrind_tell_nobody(__VA_ARGS__)
#endif

/** An error in memcheck's report: these bytes, which nobody can reach any more. */
static inline void valgrind_report_lost(const void *address, size_t size)
{
#if defined(PALLOCATOR_VALGRIND)
    (void)VALGRIND_MAKE_MEM_NOACCESS(address, size);
    (void)VALGRIND_CHECK_MEM_IS_ADDRESSABLE(address, size);
#else
    (void)address, (void)size;
#endif
}

/** This thread does what memcheck would misunderstand, until valgrind_reports_on. Pairs nest. */
static inline void valgrind_reports_off(void)
{
#if defined(PALLOCATOR_VALGRIND)
    VALGRIND_DISABLE_ERROR_REPORTING;
#endif
}

static inline void valgrind_reports_on(void)
{
#if defined(PALLOCATOR_VALGRIND)
    VALGRIND_ENABLE_ERROR_REPORTING;
#endif
}

#endif
