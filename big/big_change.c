/* SPDX-License-Identifier: BSD-3-Clause */
/* big_change.c -- changes that concern no owner pointer: holes, and resizing in place. */
#include <stdlib.h>

#include "base/error.h"
#include "big/big_private.h"

/*
 * A change of the index alone.
 *
 * step                             | durable after it | a crash here recovers by
 * ---------------------------------+------------------+--------------------------------------------------------------------
 * 1 new pairs into free slots      | maybe            | nothing: the slots are free
 * 2 entry {change, slots}, fence   | the change       | redo
 * 3 leaf headers in place          | maybe            | redo where the leaf's LSN is older
 */
static int commit_change(struct big *o, struct big_entry *b)
{
    struct media_tally t = {0};
    int code = big_prepare(o, b, &t);
    if (code != 0)
        return code;
    _Alignas(64) struct pm_lane_entry e = {.op = LANE_OP_BIG_CHANGE};
    big_entry_encode(b, &e);
    lane_append(&o->core->lane, &t, &e);
    lane_commit(&o->core->lane, &t); /* before what relies on the change: a hole is punched, the caller uses the room */
    big_apply(o, b, e.lsn, &t);
    media_tally_add(&o->core->tally, &t);
    return 0;
}

/* The index says hole before the file has one: a crash between leaves a hole that is filled, which is harmless. */
static int mark_hole(struct big *o, struct big_block *free_block)
{
    if (free_block->state == BIG_HOLE)
        return 0;
    struct big_entry b = {.block = free_block->off, .free_pages = free_block->pages, .free_state = BIG_HOLE};
    big_plan(&b, BIG_ROLE_MERGED);
    int code = commit_change(o, &b);
    if (code != 0)
        return code;
    big_free_remove(&o->free, free_block);
    free_block->state = BIG_HOLE;
    big_free_insert(&o->free, free_block);
    return 0;
}

/* Largest free block that is not whole: whole ones are given back as files. Then holes that were merged with free blocks. */
static struct big_block *largest_to_punch(struct big *o)
{
    for (enum big_state state = BIG_FREE; state <= BIG_HOLE; state++) {
        struct big_block *b = big_free_largest(&o->free, state);
        while (b != NULL && (b->whole || !b->filled))
            b = big_free_previous(b);
        if (b != NULL)
            return b;
    }
    return NULL;
}

int big_punch(struct big *o, uint64_t *ret_released, bool *ret_any)
{
    *ret_released = 0;
    *ret_any = false;
    int code = big_load(o);
    struct big_block *b = code == 0 ? largest_to_punch(o) : NULL;
    if (b == NULL)
        return code;
    code = mark_hole(o, b);
    if (code == 0)
        code = manager_punch(o->manager, b->off, (uint64_t)b->pages << BIG_PAGE_SHIFT, ret_released);
    if (code == 0) {
        b->filled = false;
        *ret_any = true;
    }
    return code;
}

/* The tail of a used block becomes free, together with a free right neighbour. */
static int shrink(struct big *o, pa_off off, uint32_t pages, uint32_t keep)
{
    struct big_block *right = big_free_at(&o->free, off + ((uint64_t)pages << BIG_PAGE_SHIFT));
    struct big_block *tail = right != NULL ? right : calloc(1, sizeof *tail);
    if (tail == NULL)
        return error_set(PA_ENOMEM, "no memory for a free block's descriptor");
    struct big_entry b = {.block = off, .used_pages = keep, .free_pages = pages - keep};
    b.free_state = BIG_FREE;
    if (right != NULL) {
        b.free_pages += right->pages;
        b.free_state = (enum big_state)right->state;
    }
    big_plan(&b, BIG_ROLE_USED);
    big_plan(&b, BIG_ROLE_FREE_AFTER);
    if (right != NULL)
        big_plan_remove(&b, right->off);
    int code = commit_change(o, &b);
    if (code != 0) {
        if (right == NULL)
            free(tail);
        return code;
    }
    if (right != NULL)
        big_free_remove(&o->free, right);
    *tail = (struct big_block){.off = off + ((uint64_t)keep << BIG_PAGE_SHIFT),
                               .pages = b.free_pages,
                               .state = (uint8_t)b.free_state,
                               .filled = true};
    big_free_insert(&o->free, tail);
    return 0;
}

/* A used block takes the front of its free right neighbour. */
static int grow(struct big *o, pa_off off, uint32_t pages, uint32_t want, struct big_block *right)
{
    struct big_entry b = {.block = off, .used_pages = want, .free_pages = pages + right->pages - want};
    b.free_state = (enum big_state)right->state;
    if (right->state == BIG_HOLE) {
        int code = manager_refill(o->manager, right->off, (uint64_t)(want - pages) << BIG_PAGE_SHIFT);
        if (code != 0)
            return code;
    }
    big_plan(&b, BIG_ROLE_USED);
    big_plan_remove(&b, right->off);
    if (b.free_pages != 0)
        big_plan(&b, BIG_ROLE_FREE_AFTER);
    int code = commit_change(o, &b);
    if (code != 0)
        return code;
    big_free_remove(&o->free, right);
    right->off = off + ((uint64_t)want << BIG_PAGE_SHIFT);
    right->pages = b.free_pages;
    if (right->pages != 0)
        big_free_insert(&o->free, right);
    else
        free(right);
    return 0;
}

int big_resize(struct big *o, pa_pptr block, size_t size, bool *ret_done)
{
    pa_off off = manager_off(o->manager, block);
    uint32_t want = (uint32_t)((size + BIG_PAGE_BYTES - 1) >> BIG_PAGE_SHIFT);
    uint32_t pages;
    *ret_done = false;
    int code = big_find_used(o, off, &pages);
    if (code != 0)
        return code;
    struct big_block *right = big_free_at(&o->free, off + ((uint64_t)pages << BIG_PAGE_SHIFT));
    if (want < pages)
        code = shrink(o, off, pages, want);
    else if (want > pages && (right == NULL || pages + right->pages < want))
        return 0;
    else if (want > pages)
        code = grow(o, off, pages, want, right);
    if (code != 0)
        return want < pages || code == PA_ENOSPC || code == PA_ENOMEM ? 0
                                                                      : code; /* the caller moves the block instead */
    *ret_done = true;
    o->allocated_bytes += (uint64_t)want << BIG_PAGE_SHIFT;
    o->allocated_bytes -= (uint64_t)pages << BIG_PAGE_SHIFT;
    return 0;
}
