/* SPDX-License-Identifier: BSD-3-Clause */
/* file_copy.h -- changing files that are not mapped, and moving them to another directory: for repair. */
#ifndef PMEM_FILE_COPY_H
#define PMEM_FILE_COPY_H

#include "pmem/file.h"

/** Write size bytes at offset. Durable after file_sync. */
int file_write_(struct dir *d, struct file *f, uint64_t offset, const void *from, size_t size, const char *site);
#define file_write(d, f, offset, from, size) file_write_((d), (f), (offset), (from), (size), MEDIA_SITE)
/** Move name into the directory `to`, by renaming or, between file systems, by copying. No-op if it is gone from `from` and there in
 *  `to`. Durable on return. */
int dir_move(struct dir *from, struct dir *to, const char *name);

#endif
