/* SPDX-License-Identifier: BSD-3-Clause */
/* big.c -- best fit, split, coalesce, and the protocol. See big.h. */
#include "big/big.h"

#include <stdlib.h>

#include "base/error.h"
#include "big/big_private.h"

/* --- index changes ---------------------------------------------------------------------------------------------------------- */

void big_plan(struct big_entry *b, enum big_role role)
{
    b->role[b->changes] = role;
    b->change[b->changes].key = big_entry_key(b, role);
    b->change[b->changes].value = big_entry_value(b, role);
    b->changes++;
}

/* Take key out. */
void big_plan_remove(struct big_entry *b, uint64_t key)
{
    b->role[b->changes] = BIG_ROLE_REMOVE;
    b->change[b->changes].key = key;
    b->change[b->changes].value = 0;
    b->changes++;
}

/* Choose leaves and slots, and start writing the new pairs back. Nothing is visible yet. */
int big_prepare(struct big *o, struct big_entry *b, struct media_tally *t)
{
    bool remove[BIG_CHANGES_MAX];
    for (uint32_t i = 0; i < b->changes; i++)
        remove[i] = b->role[i] == BIG_ROLE_REMOVE;
    return tree_prepare(o->index, b->change, remove, b->changes, o->core->lane.lsn, t);
}

/* Make the changes in place, under the lane's newest entry, and note the lines. */
void big_apply(struct big *o, struct big_entry *b, uint64_t lsn, struct media_tally *t)
{
    const struct manager *m = o->manager;
    tree_redo(m->media, m->base, b->change, b->changes, lsn);
    for (uint32_t i = 0; i < b->changes; i++) {
        void *line = m->base + b->change[i].leaf;
        unsigned slot = (unsigned)(mix64(b->change[i].leaf) % BIG_MEMO_SLOTS);
        if (o->memo[slot].line != line) {
            o->memo[slot].line = line;
            o->memo[slot].memo = 0;
        }
        lane_touch(&o->core->lane, t, line, &o->memo[slot].memo);
    }
}

/* The index of an allocator's first block. */
static int make_index(struct big *o)
{
    if (o->index != NULL)
        return 0;
    pa_pptr *owner = big_index_owner(o->manager, o->number);
    if (pa_is_null(*owner)) {
        int code = o->space.allocate_header(o->space.leaves.context, owner);
        if (code != 0)
            return code;
    }
    struct tree_space space = o->space.leaves;
    space.newest_lsn = o->core->lane.lsn;
    return tree_open(&space, manager_off(o->manager, *owner), TREE_RULE_LOG, &o->index);
}

/* --- choosing a block ------------------------------------------------------------------------------------------------------- */

/* Where in a free block an allocation goes: at the tail, so that the rest keeps its key. */
struct fit {
    struct big_block *from;
    uint32_t pages; /* taken, up to the end of from */
    pa_off off;
};

static bool fits(struct big_block *from, uint32_t pages, uint64_t alignment, struct fit *ret)
{
    uint64_t end = from->off + ((uint64_t)from->pages << BIG_PAGE_SHIFT);
    uint64_t bytes = (uint64_t)pages << BIG_PAGE_SHIFT;
    if (from->pages < pages)
        return false;
    pa_off off = (end - bytes) & ~(alignment - 1);
    if (off < from->off)
        return false;
    *ret = (struct fit){from, (uint32_t)((end - off) >> BIG_PAGE_SHIFT), off};
    return true;
}

static bool best_fit(struct big *o, uint32_t pages, uint64_t alignment, struct fit *ret)
{
    for (enum big_state state = BIG_FREE; state <= BIG_HOLE; state++)
        for (struct big_block *b = big_free_fit(&o->free, state, pages); b != NULL; b = big_free_next_fit(b))
            if (fits(b, pages, alignment, ret))
                return true;
    return false;
}

static int add_segment(struct big *o)
{
    struct segment *s = NULL;
    uint64_t lsn = 0;
    struct big_block *b = calloc(1, sizeof *b);
    if (b == NULL)
        return error_set(PA_ENOMEM, "no memory for a free block's descriptor");
    struct error_text before;
    error_save(&before);
    int code = manager_acquire(o->manager, SEGMENT_KIND_BIG, o->number, &s, &lsn);
    if (code == PA_ENOSPC) /* others may have room; who finds that nobody has, says so */
        error_restore(&before);
    if (code != 0) {
        free(b);
        return code;
    }
    lane_raise(&o->core->lane, lsn);
    *b = (struct big_block){.off = ((pa_off)s->slot << o->manager->shift) +
                                   big_first_of(o->manager->geometry.segment_size),
                            .pages = big_segment_pages(o->manager),
                            .state = BIG_FREE,
                            .whole = true,
                            .filled = true};
    big_free_insert(&o->free, b);
    return 0;
}

static int choose(struct big *o, uint32_t pages, uint64_t alignment, enum big_growth growth, struct fit *ret)
{
    int code = make_index(o);
    if (code != 0)
        return code;
    if (best_fit(o, pages, alignment, ret))
        return 0;
    if (growth == BIG_NO_GROW)
        return PA_ENOSPC; /* without a sentence, as in add_segment */
    code = add_segment(o);
    if (code == 0 && !best_fit(o, pages, alignment, ret))
        code = error_set(PA_EINVAL, "a block of %u pages with alignment %llu does not fit into a segment", pages,
                         (unsigned long long)alignment);
    return code;
}

/* --- the protocol ------------------------------------------------------------------------------------------------------------ */

/* The free index after an allocation: the rest of the block stays, under its key. */
static void take_from_free(struct big *o, const struct fit *fit)
{
    big_free_remove(&o->free, fit->from);
    fit->from->pages -= fit->pages;
    fit->from->whole = false;
    if (fit->from->pages != 0)
        big_free_insert(&o->free, fit->from);
    else
        free(fit->from);
}

/*
 * Allocation. The chosen block is a free pair (or a segment without pairs); the index changes are: the rest of it, and the new
 * block. A hole's space is reserved again before anything else, so that no later store dies of SIGBUS.
 *
 * step                                       | durable after it      | a crash here recovers by
 * -------------------------------------------+-----------------------+------------------------------------------------------
 * 1 new pairs into free slots of leaves,     | maybe                 | nothing: the slots are free
 *   write-back started                       |                       |
 * 2 entry {alloc, block, dst, slots}, fence  | pairs and intent      | redo; what of the pairs had not arrived follows from
 *                                            |                       | the entry
 * 3 dst = block, write-back started          | maybe half            | redo
 * 4 leaf headers changed in place            | maybe                 | redo where the leaf's LSN is older
 * 5 fence                                    | dst                   | redo
 * 6 DONE entry, fence                        | the end               | redo of the index only
 */
static int alloc_at(struct big *o, const struct fit *fit, pa_pptr *dst)
{
    const struct manager *m = o->manager;
    struct lane *lane = &o->core->lane;
    struct media_tally t = {0};
    struct big_entry b = {.block = fit->off, .used_pages = fit->pages, .free_pages = fit->from->pages - fit->pages};
    b.free_state = (enum big_state)fit->from->state;
    if (b.free_pages != 0)
        big_plan(&b, BIG_ROLE_FREE_BEFORE);
    big_plan(&b, BIG_ROLE_USED);
    int code = big_prepare(o, &b, &t);
    if (code != 0)
        return code;

    _Alignas(64) struct pm_lane_entry e = {.op = LANE_OP_BIG_ALLOC, .dst = (uint64_t)((char *)dst - m->base)};
    big_entry_encode(&b, &e);
    lane_append(lane, &t, &e);
    lane_commit(lane, &t); /* before dst: it would name a block that is free after a crash */
    owner_store(m->media, &t, dst, manager_pptr(m, fit->off));
    big_apply(o, &b, e.lsn, &t);
    media_drain(m->media, &t); /* before DONE: else dst is lost and the block leaks */
    lane_done(lane, &t);

    o->allocated_blocks++;
    o->allocated_bytes += (uint64_t)fit->pages << BIG_PAGE_SHIFT;
    media_tally_add(&o->core->tally, &t);
    take_from_free(o, fit);
    return 0;
}

int big_alloc(struct big *o, size_t size, size_t alignment, pa_pptr *dst, enum big_growth growth)
{
    int code = big_load(o);
    if (code != 0)
        return code;
    struct fit fit;
    uint32_t pages = (uint32_t)((size + BIG_PAGE_BYTES - 1) >> BIG_PAGE_SHIFT);
    uint64_t align = alignment < BIG_PAGE_BYTES ? BIG_PAGE_BYTES : alignment;
    code = choose(o, pages, align, growth, &fit);
    if (code == 0 && fit.from->state == BIG_HOLE)
        code = manager_refill(o->manager, fit.off, (uint64_t)fit.pages << BIG_PAGE_SHIFT);
    if (code == 0)
        code = alloc_at(o, &fit, dst);
    return code;
}

/* What a block becomes when it is freed: its neighbours and the result. */
struct merge {
    struct big_block *left, *right;
    uint32_t pages, left_pages, total;
    bool whole;
};

static struct merge find_neighbours(struct big *o, pa_off off, uint32_t pages)
{
    struct merge g = {.pages = pages};
    g.left = big_free_ending_at(&o->free, off);
    g.right = big_free_at(&o->free, off + ((uint64_t)pages << BIG_PAGE_SHIFT));
    g.left_pages = g.left != NULL ? g.left->pages : 0;
    g.total = pages + g.left_pages + (g.right != NULL ? g.right->pages : 0);
    g.whole = g.total == big_segment_pages(o->manager);
    return g;
}

static bool is_hole(const struct big_block *b)
{
    return b != NULL && b->state == BIG_HOLE;
}

/* Index changes of a free: neighbours go, the merged block comes, unless it is the whole segment, which has no pair. */
static void plan_free(struct big_entry *b, pa_off off, const struct merge *g)
{
    *b = (struct big_entry){.block = off, .used_pages = g->left_pages, .free_pages = g->total};
    b->free_state = is_hole(g->left) || is_hole(g->right) ? BIG_HOLE : BIG_FREE;
    if (!g->whole)
        big_plan(b, BIG_ROLE_MERGED);
    if (g->whole || g->left != NULL)
        big_plan_remove(b, off);
    if (g->whole && g->left != NULL)
        big_plan_remove(b, g->left->off);
    if (g->right != NULL)
        big_plan_remove(b, g->right->off);
}

/* The free index after a free. Without DRAM for a descriptor the media are still right; load again later. */
static void merge_into_free(struct big *o, pa_off off, const struct merge *g, enum big_state state)
{
    struct big_block *b = g->left != NULL ? g->left : g->right;
    if (g->left != NULL)
        big_free_remove(&o->free, g->left);
    if (g->right != NULL)
        big_free_remove(&o->free, g->right);
    if (g->left != NULL && g->right != NULL)
        free(g->right);
    if (b == NULL)
        b = calloc(1, sizeof *b);
    if (b == NULL) {
        o->incomplete = true;
        return;
    }
    *b = (struct big_block){.off = off - ((uint64_t)g->left_pages << BIG_PAGE_SHIFT),
                            .pages = g->total,
                            .state = (uint8_t)state,
                            .whole = g->whole,
                            .filled = true};
    big_free_insert(&o->free, b);
}

static int not_allocated(const struct big *o, pa_off off)
{
    pa_pptr p = manager_pptr(o->manager, off);
    return error_set(PA_EINVAL,
                     "segment %llu offset %llu is not the start of an allocated block; it was freed before, or the "
                     "pointer is wrong",
                     (unsigned long long)p.segment, (unsigned long long)p.offset);
}

int big_find_used(struct big *o, pa_off off, uint32_t *ret_pages)
{
    uint64_t value;
    int code = big_load(o);
    if (code != 0)
        return code;
    if (o->index == NULL || tree_find(o->index, off, &value) != 0 || big_value_state(value) != BIG_USED)
        return not_allocated(o, off);
    *ret_pages = big_value_pages(value);
    return 0;
}

static void trim_index(struct big *o, const struct big_entry *b)
{
    uint64_t lsn = o->core->lane.lsn;
    for (uint32_t i = 0; i < b->changes; i++)
        if (b->role[i] == BIG_ROLE_REMOVE)
            tree_trim(o->index, b->change[i].key, lsn);
}

/*
 * Free, with both neighbours coalesced.
 *
 * step                                       | durable after it      | a crash here recovers by
 * -------------------------------------------+-----------------------+------------------------------------------------------
 * 1 merged pair into a free slot             | maybe                 | nothing: the slot is free
 * 2 entry {free, block, dst, slots}, fence   | pair and decision     | redo
 * 3 dst = null, write-back started           | maybe half            | redo if dst still names the block
 * 4 leaf headers changed in place            | maybe                 | redo where the leaf's LSN is older
 * 5 fence                                    | dst                   | redo of the index
 */
int big_free_block(struct big *o, pa_pptr *dst, const struct owner_staging *staging)
{
    const struct manager *m = o->manager;
    struct lane *lane = &o->core->lane;
    struct media_tally t = {0};
    pa_off off = manager_off(m, *dst);
    uint32_t pages;
    int code = big_find_used(o, off, &pages);
    if (code != 0)
        return code;
    struct merge g = find_neighbours(o, off, pages);
    struct big_entry b;
    plan_free(&b, off, &g);
    code = big_prepare(o, &b, &t);
    if (code != 0)
        return code;

    _Alignas(64) struct pm_lane_entry e = {.op = LANE_OP_BIG_FREE, .dst = (uint64_t)((char *)dst - m->base)};
    big_entry_encode(&b, &e);
    owner_staging_note(&e, staging);
    lane_append(lane, &t, &e);
    lane_commit(lane, &t);
    owner_release(m->media, &t, dst, staging);
    big_apply(o, &b, e.lsn, &t);
    media_drain(m->media, &t); /* before the caller may reuse dst's memory: recovery compares it with the block */
    if (staging != NULL)
        lane_done(lane, &t); /* before the staging owner is used again */

    o->allocated_blocks--;
    o->allocated_bytes -= (uint64_t)pages << BIG_PAGE_SHIFT;
    media_tally_add(&o->core->tally, &t);
    merge_into_free(o, off, &g, b.free_state);
    trim_index(o, &b);
    if (g.whole && o->free.whole_count > 1)
        big_release_whole(o);
    return 0;
}

/* --- segments --------------------------------------------------------------------------------------------------------------- */

/* Whole segments go back. */
void big_release_whole(struct big *o)
{
    const struct manager *m = o->manager;
    struct media_tally t = {0};
    uint32_t pages = big_segment_pages(m);
    if (o->free.whole_count == 0)
        return;
    lane_settle(&o->core->lane, &t); /* no entry of ours is needed for the segments any more */
    media_tally_add(&o->core->tally, &t);
    for (enum big_state state = BIG_FREE; state <= BIG_HOLE; state++) {
        struct big_block *b;
        while ((b = big_free_fit(&o->free, state, pages)) != NULL && b->whole) {
            struct segment *s = manager_segment(m, b->off >> m->shift);
            bool holes = b->state == BIG_HOLE;
            big_free_remove(&o->free, b);
            free(b);
            if (holes) /* the free list promises reserved space */
                manager_discard(o->manager, s, o->core->lane.lsn);
            else
                manager_release(o->manager, s, o->core->lane.lsn);
        }
    }
}

uint64_t big_largest_free(struct big *o)
{
    if (big_load(o) != 0)
        return 0;
    struct big_block *b = big_free_largest(&o->free, BIG_FREE);
    return b == NULL ? 0 : (uint64_t)b->pages << BIG_PAGE_SHIFT;
}

int big_usable_size(struct big *o, pa_off off, size_t *ret_bytes)
{
    uint32_t pages = 0;
    int code = big_find_used(o, off, &pages);
    *ret_bytes = (size_t)pages << BIG_PAGE_SHIFT;
    return code == PA_EINVAL ? 0 : code;
}

struct list {
    struct big_visited *to;
    size_t n, count;
    pa_off next;
};

static int list_pair(uint64_t key, uint64_t value, void *arg)
{
    struct list *l = arg;
    if (l->count == l->n) {
        l->next = key;
        return 1;
    }
    if (big_value_state(value) == BIG_USED)
        l->to[l->count++] = (struct big_visited){key, (size_t)big_value_pages(value) << BIG_PAGE_SHIFT};
    return 0;
}

int big_list(struct big *o, pa_off *from, struct big_visited *ret, size_t n, size_t *ret_count)
{
    struct list l = {ret, n, 0, 0};
    int code = big_load(o);
    if (code == 0 && o->index != NULL) {
        code = tree_scan(o->index, *from, list_pair, &l);
        code = code == 1 ? 0 : code;
    }
    *ret_count = l.count;
    *from = l.next;
    return code;
}
