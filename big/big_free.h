/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * big_free.h -- the free blocks of one big allocator in DRAM: by (size, address) for best fit, by address for coalescing.
 * Red-black trees of libbsd's <sys/tree.h>.
 */
#ifndef BIG_BIG_FREE_H
#define BIG_BIG_FREE_H

#include <bsd/sys/tree.h>
#include <stdbool.h>
#include <stdint.h>

#include "big/big_layout.h"

struct big_block {
    RB_ENTRY(big_block) by_size, by_address;
    pa_off off;
    uint32_t pages;
    uint8_t state; /* BIG_FREE or BIG_HOLE */
    bool whole;    /* all of its segment, which has no pair in the index */
    bool
        filled; /* some of its space may be there: always if free, sometimes if a hole (merged, or not known since open) */
};
RB_HEAD(big_size_tree, big_block);
RB_HEAD(big_address_tree, big_block);

struct big_free {
    struct big_size_tree free, holes; /* (pages, off) */
    struct big_address_tree all;
    uint64_t count, hole_pages, whole_count;
};

void big_free_init(struct big_free *f);
/** Frees every descriptor. */
void big_free_fini(struct big_free *f);
void big_free_insert(struct big_free *f, struct big_block *b);
void big_free_remove(struct big_free *f, struct big_block *b);
/** Smallest block of a state with at least so many pages, lowest address first; NULL = none. */
struct big_block *big_free_fit(struct big_free *f, enum big_state state, uint32_t pages);
/** The next candidate after b in the same order. */
struct big_block *big_free_next_fit(struct big_block *b);
/** The largest block of a state; NULL = none. */
struct big_block *big_free_largest(struct big_free *f, enum big_state state);
/** The one before b in that order; NULL = none. */
struct big_block *big_free_previous(struct big_block *b);
/** The free block that begins at off, or that ends there; NULL = none. */
struct big_block *big_free_at(struct big_free *f, pa_off off);
struct big_block *big_free_ending_at(struct big_free *f, pa_off off);

#endif
