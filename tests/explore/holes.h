/* SPDX-License-Identifier: BSD-3-Clause */
/* holes.h -- which parts of the files have no space reserved in the file system. A store there may die on a full one. */
#ifndef TESTS_EXPLORE_HOLES_H
#define TESTS_EXPLORE_HOLES_H

#include <stdbool.h>
#include <stdint.h>

#define HOLES_MAX 192u

/** Disjoint, and none touches another of the same file. */
struct holes {
    struct {
        uint32_t inode;
        uint64_t from, to; /* bytes */
    } at[HOLES_MAX];
    unsigned count;
};

void holes_copy(struct holes *to, const struct holes *from);
/** [from, to) of a file becomes a hole. */
void holes_add(struct holes *h, uint32_t inode, uint64_t from, uint64_t to);
/** [from, to) of a file gets its space. */
void holes_fill(struct holes *h, uint32_t inode, uint64_t from, uint64_t to);
/** Is a part of [from, to) a hole? */
bool holes_touch(const struct holes *h, uint32_t inode, uint64_t from, uint64_t to);
/** 0 if there is none; the order does not matter. */
uint64_t holes_hash(const struct holes *h);

#endif
