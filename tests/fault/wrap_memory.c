/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * wrap_memory.c -- stand-ins for memory allocation. Only calls of the program and its static libraries come here, so neither
 * libcheck nor liburcu (which ends the process when it gets no memory) is concerned, nor a sanitizer.
 */
#include <errno.h>

#include "tests/fault/fault.h"
#include "tests/fault/wrap.h"

static bool refused(const char *function)
{
    if (fault_ask(FAULT_MEMORY, 0, "", function) == 0)
        return false;
    errno = ENOMEM;
    return true;
}

/* Counts what is not freed. */
static void *counted(void *block)
{
    if (block != NULL)
        fault_count_memory(1);
    return block;
}

void *__wrap_malloc(size_t size)
{
    return refused("malloc") ? NULL : counted(__real_malloc(size));
}

void *__wrap_calloc(size_t n, size_t size)
{
    return refused("calloc") ? NULL : counted(__real_calloc(n, size));
}

void *__wrap_realloc(void *old, size_t size)
{
    if (refused("realloc"))
        return NULL;
    bool fresh = old == NULL;
    void *block = __real_realloc(old, size);
    return fresh ? counted(block) : block;
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return refused("aligned_alloc") ? NULL : counted(__real_aligned_alloc(alignment, size));
}

int __wrap_posix_memalign(void **ret, size_t alignment, size_t size)
{
    int code = refused("posix_memalign") ? ENOMEM : __real_posix_memalign(ret, alignment, size);
    if (code == 0)
        fault_count_memory(1);
    return code;
}

char *__wrap_strdup(const char *text)
{
    return refused("strdup") ? NULL : counted(__real_strdup(text));
}

/* The stream is libc's, its text the caller's. */
FILE *__wrap_open_memstream(char **text, size_t *size)
{
    return refused("open_memstream") ? NULL : counted(__real_open_memstream(text, size));
}

DIR *__wrap_fdopendir(int fd)
{
    return refused("fdopendir") ? NULL : __real_fdopendir(fd);
}

char *__wrap_realpath(const char *path, char *resolved)
{
    if (refused("realpath"))
        return NULL;
    char *result = __real_realpath(path, resolved);
    return resolved == NULL ? counted(result) : result;
}

/* A thread needs memory for its stack. */
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *arg)
{
    return refused("pthread_create") ? EAGAIN : __real_pthread_create(thread, attributes, run, arg);
}

void __wrap_free(void *old)
{
    if (old != NULL)
        fault_count_memory(-1);
    __real_free(old);
}
