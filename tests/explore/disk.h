/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * disk.h -- puts crash states into a real directory, so that the real library opens them.
 *
 * Files live in ROOT/store by inode number and appear in ROOT/tree under their names as hard links; so a recovery that removes
 * a name loses no content. Invariant between calls: every file's bytes equal the image's durable bytes except for
 * the lines in `touched`, and its size is `size` unless `resized`. So a new state costs only the lines that differ.
 */
#ifndef TESTS_EXPLORE_DISK_H
#define TESTS_EXPLORE_DISK_H

#include "tests/explore/image.h"

struct touched {
    uint32_t inode;
    uint64_t line;
};

struct disk_file {
    int fd; /* -1: not there */
    unsigned char *map;
    uint64_t size;
    bool resized; /* size and content past it are not known */
};

struct disk {
    char root[192], tree[208], pool[216]; /* tree: the world of a state; pool: in it */
    struct disk_file files[INODES_MAX];
    struct touched *touched;
    size_t touched_count, touched_capacity;
    struct name_entry names[NAMES_MAX]; /* in ROOT/tree */
    unsigned names_count;
    bool names_changed; /* names are not known */
};

int disk_open(struct disk *d, const char *root);
/** Remove everything. */
void disk_close(struct disk *d);
/** Make the directory the state image + c. */
void disk_apply(struct disk *d, const struct image *image, const struct choice *c);
/** Take note of what a run of the library, recorded in trace, changed in the directory. */
void disk_absorb(struct disk *d, const struct image *image, const struct trace *trace);
/** A line's durable bytes changed (an image's `changed`). */
void disk_line_changed(void *disk, uint32_t inode, uint64_t line);
/** Forget the files from number first on. */
void disk_forget(struct disk *d, uint32_t first);
/** True if the directory is byte for byte what the last disk_apply and what was absorbed since make it: undoing all of that
 *  leaves the durable bytes. Slow. */
bool disk_verify(struct disk *d, const struct image *image, char *why, size_t why_size);
/** The hash (see image_hash) of what is in the directory now; only after disk_absorb. */
uint64_t disk_hash(struct disk *d, const struct image *image);

void remove_tree(const char *path);

#endif
