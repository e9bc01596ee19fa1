/* SPDX-License-Identifier: BSD-3-Clause */
/* temp.h -- temporary directories on tmpfs, removed after each test, and what tests do to files in them. */
#ifndef TESTS_SUPPORT_TEMP_H
#define TESTS_SUPPORT_TEMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TEMP_PATH_MAX 256

struct temp_path {
    char text[TEMP_PATH_MAX];
};

/** Make this process's base directory (under PA_TEST_DIR, else /dev/shm) and remove what dead runs left. */
int temp_init(void);
/** Remove everything in the base directory. */
void temp_clean(void);
void temp_fini(void);

/** Is the base directory on tmpfs, where only processes crash? */
bool temp_is_volatile(void);
/** A path in the base directory that does not exist yet. */
struct temp_path temp_new(void);
/** dir/name. */
struct temp_path temp_join(const char *dir, const char *name);

/** All of these end the test on failure. */
void temp_remove(const char *path);
void temp_copy_dir(const char *from, const char *to);
void temp_copy_file(const char *from, const char *to);
void temp_make_dir(const char *path);
void temp_write_file(const char *path, const void *data, size_t size);
void temp_write_at(const char *path, uint64_t offset, const void *data, size_t size);
/** Make the file's contents data again, touching only pages that differ. */
void temp_restore_file(const char *path, const void *data, size_t size);
void *temp_read_file(const char *path, size_t *ret_size);
uint64_t temp_file_size(const char *path);
/** A hash over names, sizes and contents of the directory's files. */
uint64_t temp_hash_dir(const char *path);
/** Names of the directory's files that start with prefix, sorted; returns how many (at most max). */
size_t temp_list(const char *path, const char *prefix, char (*ret_names)[64], size_t max);

#endif
