/* SPDX-License-Identifier: BSD-3-Clause */
/* holes.c -- see holes.h. */
#include "tests/explore/holes.h"

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"

void holes_copy(struct holes *to, const struct holes *from)
{
    to->count = from->count;
    memcpy(to->at, from->at, from->count * sizeof *from->at);
}

static void append(struct holes *h, uint32_t inode, uint64_t from, uint64_t to)
{
    if (from >= to)
        return;
    if (h->count == HOLES_MAX)
        abort();
    h->at[h->count].inode = inode;
    h->at[h->count].from = from;
    h->at[h->count++].to = to;
}

void holes_fill(struct holes *h, uint32_t inode, uint64_t from, uint64_t to)
{
    for (unsigned i = h->count; i-- > 0;) {
        uint64_t first = h->at[i].from, end = h->at[i].to;
        if (h->at[i].inode != inode || end <= from || first >= to)
            continue;
        h->at[i] = h->at[--h->count];
        append(h, inode, first, from);
        append(h, inode, to, end);
    }
}

void holes_add(struct holes *h, uint32_t inode, uint64_t from, uint64_t to)
{
    for (unsigned i = h->count; i-- > 0;) {
        uint64_t first = h->at[i].from, end = h->at[i].to;
        if (h->at[i].inode != inode || end < from || first > to)
            continue;
        from = first < from ? first : from;
        to = end > to ? end : to;
        h->at[i] = h->at[--h->count];
    }
    append(h, inode, from, to);
}

bool holes_touch(const struct holes *h, uint32_t inode, uint64_t from, uint64_t to)
{
    for (unsigned i = 0; i < h->count; i++)
        if (h->at[i].inode == inode && h->at[i].to > from && h->at[i].from < to)
            return true;
    return false;
}

uint64_t holes_hash(const struct holes *h)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < h->count; i++)
        sum += mix64(h->at[i].from ^ mix64(h->at[i].to ^ mix64(h->at[i].inode + 1)));
    return sum;
}
