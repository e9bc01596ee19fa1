/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * wrap.h -- the functions that the linker puts in the place of others (--wrap=NAME in tests/meson.build): calls of NAME in the
 * program and its static libraries go to __wrap_NAME, and __real_NAME is the function itself.
 */
#ifndef TESTS_FAULT_WRAP_H
#define TESTS_FAULT_WRAP_H

#include <dirent.h>
#include <libpmem2.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/vfs.h>

#define WRAP(result, name, parameters)                                                                                 \
    result __wrap_##name parameters;                                                                                   \
    result __real_##name parameters

WRAP(int, mkdir, (const char *path, mode_t mode));
WRAP(int, open64, (const char *path, int flags, ...));
WRAP(int, openat64, (int fd, const char *path, int flags, ...));
WRAP(int, flock, (int fd, int how));
WRAP(int, fstat64, (int fd, struct stat64 *s));
WRAP(int, fstatat64, (int fd, const char *path, struct stat64 *s, int flags));
WRAP(int, fstatfs64, (int fd, struct statfs64 *s));
WRAP(struct dirent64 *, readdir64, (DIR * stream));
WRAP(ssize_t, pread64, (int fd, void *to, size_t size, off64_t offset));
WRAP(ssize_t, pwrite64, (int fd, const void *from, size_t size, off64_t offset));
WRAP(int, fsync, (int fd));
WRAP(int, pthread_create, (pthread_t * thread, const pthread_attr_t *attributes, void *(*run)(void *), void *arg));
WRAP(char *, realpath, (const char *path, char *resolved));
WRAP(int, fallocate64, (int fd, int mode, off64_t offset, off64_t size));
WRAP(int, posix_fallocate64, (int fd, off64_t offset, off64_t size));
WRAP(int, ftruncate64, (int fd, off64_t size));
WRAP(int, unlinkat, (int fd, const char *path, int flags));
WRAP(int, renameat, (int from_fd, const char *from, int to_fd, const char *to));
WRAP(ssize_t, getrandom, (void *to, size_t size, unsigned flags));
WRAP(int, pmem2_map_new, (struct pmem2_map * *map, const struct pmem2_config *config, struct pmem2_source *source));
WRAP(int, pmem2_vm_reservation_new, (struct pmem2_vm_reservation * *reservation, void *address, size_t size));
WRAP(int, pmem2_config_new, (struct pmem2_config * *config));
WRAP(int, pmem2_source_from_fd, (struct pmem2_source * *source, int fd));

WRAP(void *, malloc, (size_t size));
WRAP(void, free, (void *old));
WRAP(void *, calloc, (size_t n, size_t size));
WRAP(void *, realloc, (void *old, size_t size));
WRAP(void *, aligned_alloc, (size_t alignment, size_t size));
WRAP(int, posix_memalign, (void **ret, size_t alignment, size_t size));
WRAP(char *, strdup, (const char *text));
WRAP(FILE *, open_memstream, (char **text, size_t *size));
WRAP(DIR *, fdopendir, (int fd));

#endif
