/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mount.h -- a file system of the test's own: a tmpfs that can be filled. It is mounted in a mount namespace of the test process
 * (with a user namespace if the process is not root), so it is gone with the process and nobody else sees it.
 */
#ifndef TESTS_SUPPORT_MOUNT_H
#define TESTS_SUPPORT_MOUNT_H

#include <stdbool.h>
#include <stdint.h>

/** May this process mount? Tried in a child. */
bool mount_is_possible(void);
/** Make a directory at path and mount a tmpfs of so many bytes on it; ends the test on failure. */
void mount_tmpfs(const char *path, uint64_t bytes);
/** Make what is mounted at path read-only, or writable again. */
void mount_set_read_only(const char *path, bool read_only);
/** Bytes that the file system at path has left; exact on tmpfs. */
uint64_t mount_free_bytes(const char *path);
/** Make a file of so many bytes at path, with its space. */
void mount_eat(const char *path, uint64_t bytes);

#endif
