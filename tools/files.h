/* SPDX-License-Identifier: BSD-3-Clause */
/* files.h -- a pool's files as the file system shows them: names, sizes, and what they hold of its space. */
#ifndef TOOLS_FILES_H
#define TOOLS_FILES_H

#include <stddef.h>
#include <stdint.h>

struct pool_file {
    char name[32];
    uint64_t slot; /* segment number of the pa_pptrs into it; 0: the pool file */
    uint64_t bytes, resident_bytes;
};

struct pool_files {
    struct pool_file *list; /* [count], by slot */
    size_t count;
    uint64_t bytes, resident_bytes;
};

/** List the pool's files in dir; 0 or an errno value. Release with pool_files_release. */
int pool_files_read(const char *dir, struct pool_files *ret);
void pool_files_release(struct pool_files *files);
/** The file with that slot, or NULL. */
struct pool_file *pool_files_find(const struct pool_files *files, uint64_t slot);
/** Bytes that the file system has given to the pool's files; 0 if it does not say. */
uint64_t pool_files_resident(const char *dir);

typedef void (*pool_range_fn)(uint64_t offset, uint64_t size, void *arg);
/** Call visit for each range of a file that holds no data; 0 or an errno value. */
int pool_file_empty_ranges(const char *dir, const struct pool_file *file, pool_range_fn visit, void *arg);

#endif
