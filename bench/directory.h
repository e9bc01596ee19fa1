/* SPDX-License-Identifier: BSD-3-Clause */
/* directory.h -- what a pool's directory looks like from outside. */
#ifndef BENCH_DIRECTORY_H
#define BENCH_DIRECTORY_H

#include <stdint.h>

/** Sum of st_blocks * 512 over the files: the bytes that the file system has given. */
uint64_t directory_resident_bytes(const char *path);
/** Number of files whose names begin with prefix. */
uint64_t directory_files(const char *path, const char *prefix);
/** Remove the files, then the directory. */
void directory_remove(const char *path);

#endif
