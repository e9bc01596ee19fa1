/* SPDX-License-Identifier: BSD-3-Clause */
/* file_copy.h -- moving files to another directory: for repair. */
#ifndef PMEM_FILE_COPY_H
#define PMEM_FILE_COPY_H

#include "pmem/file.h"

/** Move name into the directory `to`, by renaming or, between file systems, by copying. No-op if it is gone from `from` and there in
 *  `to`. Durable on return. */
int dir_move(struct dir *from, struct dir *to, const char *name);

#endif
