/* SPDX-License-Identifier: BSD-3-Clause */
/* huge.c -- the protocol of blocks with files of their own. See huge.h. */
#include "huge/huge.h"

#include "base/error.h"

/* The entry's argument: the file's first slot. A block may begin in a later one, for its alignment. */
static void note_slot(struct pm_lane_entry *e, uint32_t slot)
{
    memcpy(e->argument, &slot, sizeof slot);
}

static uint32_t noted_slot(const struct pm_lane_entry *e)
{
    uint32_t slot;
    memcpy(&slot, e->argument, sizeof slot);
    return slot;
}

/* --- allocation ----------------------------------------------------------------------------------------------------------- */

static int prepare_in(struct manager *m, size_t size, size_t alignment, int directory, struct segment **ret)
{
    struct segment *s = NULL;
    int code = manager_huge_claim(m, size, alignment, directory, &s);
    if (code == 0)
        code = manager_huge_create(m, s);
    if (code == 0)
        *ret = s;
    return code;
}

/* One directory's file system may be full, and another's not. */
static int prepare(struct manager *m, size_t size, size_t alignment, struct segment **ret)
{
    int code = prepare_in(m, size, alignment, ANY_DIRECTORY, ret);
    for (int k = 0; code == PA_ENOSPC && m->geometry.directories != 0 && k <= m->geometry.directories; k++)
        code = prepare_in(m, size, alignment, k, ret);
    return code;
}

/* What another thread is just freeing is as good as free. */
int huge_prepare(struct manager *m, size_t size, size_t alignment, struct segment **ret)
{
    int code;
    uint64_t removed;
    do {
        removed = manager_removed(m);
        code = prepare(m, size, alignment, ret);
    } while (code == PA_ENOSPC && manager_await_removal(m, removed));
    return code;
}

/* What an allocation changes, in the forward path and in recovery. */
static void apply_alloc(struct manager *m, struct media_tally *t, struct segment *s, unsigned owner, pa_pptr *dst)
{
    owner_store(m->media, t, dst, manager_pptr(m, atomic_load(&s->block)));
    manager_huge_mark(m, t, s->slot, SEGMENT_STATE_READY, owner);
    atomic_store_explicit(&s->owner, (uint16_t)owner, memory_order_relaxed);
    atomic_store_explicit(&s->kind, SEGMENT_KIND_HUGE, memory_order_release);
}

/* What a free changes, its owner pointer apart. */
static void apply_free(struct manager *m, struct media_tally *t, uint32_t slot, unsigned owner)
{
    manager_huge_mark(m, t, slot, SEGMENT_STATE_DELETING, owner);
}

/*
 * Allocation. Steps 1 to 3 are huge_prepare.
 *
 * step                                      | durable after it       | a crash here recovers by
 * ------------------------------------------+------------------------+-----------------------------------------------------
 * 1 run claimed, word = CREATING, fence     | the announcement       | open removes the file if there is one, word = FREE
 * 2 file made, mapped, header, fence        | maybe parts of it      | as 1
 * 3 file sync, directory sync               | the whole file         | as 1
 * 4 entry {alloc, block, dst, slot}, fence  | the decision           | torn: as 1; else redo: word = READY, dst = block
 * 5 dst = block, word = READY, write-backs  | maybe either           | redo
 * 6 fence                                   | dst and word           | redo
 * 7 DONE entry, fence                       | the end                | nothing to do
 *
 * Without the syncs in 3 redo could find a word READY and no file. Without the fence in 4 a crash could keep one of dst and the
 * word: a dangling pointer, or a file that nobody owns. Without the one in 6 DONE could be durable and they not. Without DONE,
 * redo would undo what happens to the block later: words have no LSN.
 */
void huge_alloc(struct manager *m, struct core *core, struct segment *s, pa_pptr *dst)
{
    struct media_tally t = {0};
    _Alignas(64) struct pm_lane_entry e = {.op = LANE_OP_HUGE_ALLOC,
                                           .block = atomic_load(&s->block),
                                           .dst = (uint64_t)((char *)dst - m->base)};
    note_slot(&e, s->slot);
    lane_append(&core->lane, &t, &e);
    lane_commit(&core->lane, &t);
    apply_alloc(m, &t, s, core->index, dst);
    media_drain(m->media, &t);
    lane_done(&core->lane, &t);
    media_tally_add(&core->tally, &t);
}

/* --- free ----------------------------------------------------------------------------------------------------------------- */

static int check_block(const struct manager *m, const struct segment *s, pa_off off)
{
    pa_pptr p = manager_pptr(m, off);
    if (atomic_load(&s->kind) != SEGMENT_KIND_HUGE || atomic_load(&s->block) != off)
        return error_set(PA_EINVAL,
                         "segment %llu offset %llu is not the start of an allocated block; it was freed before, or the "
                         "pointer is wrong",
                         (unsigned long long)p.segment, (unsigned long long)p.offset);
    if (s->busy)
        return error_set(PA_EINVAL, "the block at segment %llu offset %llu is being reallocated by another thread",
                         (unsigned long long)p.segment, (unsigned long long)p.offset);
    return 0;
}

/*
 * Free. Steps 5 and 6 are huge_discard.
 *
 * step                                         | durable after it   | a crash here recovers by
 * ---------------------------------------------+--------------------+------------------------------------------------------
 * 1 entry {free, block, dst, slot}, fence      | the decision       | torn: nothing happened
 * 2 dst = null, word = DELETING, write-backs   | maybe either       | redo: word = DELETING, dst nulled if it still names the
 *   (or dst = the staged block, owner.h)       |                    | block; then open removes the file
 * 3 fence                                      | dst and word       | as 2
 * 4 DONE entry, fence                          | the end            | open removes the file
 * 5 unmap, unlink, directory sync              | the file is gone   | open goes on with 5; the file may be missing
 * 6 word = FREE, fence                         | the slots are free | nothing to do
 *
 * DONE comes before the unlink: else redo could find the slots free, or somebody else's.
 */
int huge_free(struct manager *m, struct core *core, struct segment *s, pa_pptr *dst,
              const struct owner_staging *staging)
{
    pa_off off = manager_off(m, *dst);
    int code = check_block(m, s, off);
    if (code != 0)
        return code;
    struct media_tally t = {0};
    _Alignas(64) struct pm_lane_entry e = {.op = LANE_OP_HUGE_FREE,
                                           .block = off,
                                           .dst = (uint64_t)((char *)dst - m->base)};
    note_slot(&e, s->slot);
    owner_staging_note(&e, staging);
    manager_file_leaves(m); /* before *dst is null: who sees that finds the space free, or waits for it */
    lane_append(&core->lane, &t, &e);
    lane_commit(&core->lane, &t);
    owner_release(m->media, &t, dst, staging);
    apply_free(m, &t, s->slot, core->index);
    media_drain(m->media, &t);  /* before DONE */
    lane_done(&core->lane, &t); /* before the unlink, and before the staging owner is used again */
    atomic_store_explicit(&s->kind, SEGMENT_KIND_NONE, memory_order_release);
    media_tally_add(&core->tally, &t);
    return 0;
}

void huge_discard(struct manager *m, struct segment *s)
{
    (void)manager_huge_remove(m, s); /* if that fails, the next open does it */
}

/* --- size ----------------------------------------------------------------------------------------------------------------- */

size_t huge_usable_size(const struct segment *s, pa_off off)
{
    pa_off end = atomic_load(&s->end);
    return atomic_load(&s->kind) == SEGMENT_KIND_HUGE && atomic_load(&s->block) == off ? end - off : 0;
}

int huge_begin_resize(const struct manager *m, struct segment *s, pa_off off)
{
    int code = check_block(m, s, off);
    if (code == 0)
        s->busy = true;
    return code;
}

int huge_resize(struct manager *m, struct segment *s, size_t size, bool *ret_done)
{
    size_t usable = atomic_load(&s->end) - atomic_load(&s->block);
    *ret_done = true;
    if (size <= usable) {
        *ret_done = size > usable / 2; /* else a smaller file is worth a copy */
        return 0;
    }
    int code = manager_huge_grow(m, s, size);
    if (code == 0)
        return 0;
    *ret_done = false;
    return code == PA_ENOSPC || code == PA_ENOMEM ? 0 : code; /* the caller moves the block instead */
}

void huge_end_resize(struct segment *s)
{
    s->busy = false;
}

/* --- recovery ------------------------------------------------------------------------------------------------------------- */

static int redo_alloc(struct manager *m, struct media_tally *t, const struct pm_lane_entry *e, unsigned lane_number,
                      pa_pptr *dst)
{
    uint32_t slot = noted_slot(e);
    struct segment *s = manager_segment(m, slot);
    if (segment_word_state(m->table[slot]) == SEGMENT_STATE_CREATING) {
        int code = manager_huge_open(m, slot, &s);
        if (code != 0)
            return code;
    }
    if (s == NULL || s->slot != slot || atomic_load(&s->block) != e->block)
        return lane_refuse_entry(e, lane_number, "it names no block");
    apply_alloc(m, t, s, lane_number, dst);
    return 0;
}

static int redo_free(struct manager *m, struct media_tally *t, const struct pm_lane_entry *e, unsigned lane_number)
{
    uint32_t slot = noted_slot(e);
    struct segment *s = manager_segment(m, slot); /* NULL if the word had arrived */
    if (s != NULL && (s->slot != slot || atomic_load(&s->block) != e->block))
        return lane_refuse_entry(e, lane_number, "it names no block");
    apply_free(m, t, slot, lane_number);
    if (s != NULL)
        atomic_store(&s->kind, SEGMENT_KIND_NONE);
    return 0;
}

int huge_redo(struct manager *m, struct media_tally *t, const struct pm_lane_entry *e, unsigned lane_number,
              pa_pptr *dst)
{
    uint32_t slot = noted_slot(e);
    if (slot < m->first_slot || slot >= m->slots || segment_word_kind(m->table[slot]) != SEGMENT_KIND_HUGE)
        return lane_refuse_entry(e, lane_number, "it names no huge block");
    enum segment_state state = segment_word_state(m->table[slot]);
    bool alloc = e->op == LANE_OP_HUGE_ALLOC;
    if (state != SEGMENT_STATE_READY && state != (alloc ? SEGMENT_STATE_CREATING : SEGMENT_STATE_DELETING))
        return lane_refuse_entry(e, lane_number, "its huge block is in another state");
    if (alloc && dst == NULL)
        return lane_refuse_entry(e, lane_number, "its owner pointer lies outside the pool");
    return alloc ? redo_alloc(m, t, e, lane_number, dst) : redo_free(m, t, e, lane_number);
}
