/* SPDX-License-Identifier: BSD-3-Clause */
/* big_free.c -- see big_free.h. */
#include "big/big_free.h"

#include <stdlib.h>

static int compare_size(const struct big_block *a, const struct big_block *b)
{
    if (a->pages != b->pages)
        return a->pages < b->pages ? -1 : 1;
    return a->off < b->off ? -1 : a->off > b->off;
}

static int compare_address(const struct big_block *a, const struct big_block *b)
{
    return a->off < b->off ? -1 : a->off > b->off;
}

RB_GENERATE_INTERNAL(big_size_tree, big_block, by_size, compare_size, __attribute__((unused)) static)
RB_GENERATE_INTERNAL(big_address_tree, big_block, by_address, compare_address, __attribute__((unused)) static)

void big_free_init(struct big_free *f)
{
    *f = (struct big_free){0};
    RB_INIT(&f->free);
    RB_INIT(&f->holes);
    RB_INIT(&f->all);
}

void big_free_fini(struct big_free *f)
{
    struct big_block *b;
    while ((b = RB_MIN(big_address_tree, &f->all)) != NULL) {
        RB_REMOVE(big_address_tree, &f->all, b);
        free(b);
    }
    big_free_init(f);
}

static struct big_size_tree *sizes_of(struct big_free *f, enum big_state state)
{
    return state == BIG_HOLE ? &f->holes : &f->free;
}

void big_free_insert(struct big_free *f, struct big_block *b)
{
    RB_INSERT(big_size_tree, sizes_of(f, b->state), b);
    RB_INSERT(big_address_tree, &f->all, b);
    f->count++;
    f->hole_pages += b->state == BIG_HOLE ? b->pages : 0;
    f->whole_count += b->whole;
}

void big_free_remove(struct big_free *f, struct big_block *b)
{
    RB_REMOVE(big_size_tree, sizes_of(f, b->state), b);
    RB_REMOVE(big_address_tree, &f->all, b);
    f->count--;
    f->hole_pages -= b->state == BIG_HOLE ? b->pages : 0;
    f->whole_count -= b->whole;
}

struct big_block *big_free_fit(struct big_free *f, enum big_state state, uint32_t pages)
{
    struct big_block key = {.pages = pages, .off = 0};
    return RB_NFIND(big_size_tree, sizes_of(f, state), &key);
}

struct big_block *big_free_next_fit(struct big_block *b)
{
    return RB_NEXT(big_size_tree, NULL, b);
}

struct big_block *big_free_largest(struct big_free *f, enum big_state state)
{
    return RB_MAX(big_size_tree, sizes_of(f, state));
}

struct big_block *big_free_previous(struct big_block *b)
{
    return RB_PREV(big_size_tree, NULL, b);
}

struct big_block *big_free_at(struct big_free *f, pa_off off)
{
    struct big_block key = {.off = off};
    return RB_FIND(big_address_tree, &f->all, &key);
}

struct big_block *big_free_ending_at(struct big_free *f, pa_off off)
{
    struct big_block key = {.off = off};
    struct big_block *b = RB_NFIND(big_address_tree, &f->all, &key);
    b = b == NULL ? RB_MAX(big_address_tree, &f->all) : RB_PREV(big_address_tree, &f->all, b);
    return b != NULL && b->off + ((uint64_t)b->pages << BIG_PAGE_SHIFT) == off ? b : NULL;
}
