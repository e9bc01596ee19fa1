/* SPDX-License-Identifier: BSD-3-Clause */
/* recovery.c -- see recovery.h. */
#include "recovery/recovery.h"

#include <stdlib.h>

#include "base/error.h"
#include "big/big.h"
#include "huge/huge.h"
#include "segment/owner.h"
#include "small/small.h"

struct pm_lane_entry *recovery_ring(const struct manager *m, uint32_t lane)
{
    char *lanes = (char *)m->pool_file->address + POOL_LANES_OFFSET;
    return (struct pm_lane_entry *)lanes + (size_t)lane * m->geometry.lane_entries;
}

/* Could an owner pointer be there? In a present segment's blocks, or the root line. */
static pa_pptr *owner_at(const struct manager *m, pa_off dst)
{
    uint64_t cores = superblock_cores_offset(&m->geometry);
    bool in_core_line =
        dst >= cores && dst < m->geometry.table_offset && (dst - cores) % POOL_CORE_BYTES < 3 * sizeof(pa_pptr);
    if (dst == POOL_ROOT_OFFSET || (in_core_line && dst % sizeof(pa_pptr) == 0))
        return (pa_pptr *)(m->base + dst);
    pa_pptr p = manager_pptr(m, dst);
    struct segment *s = manager_segment(m, p.segment);
    if (!segment_is_present(s) || p.offset % sizeof(pa_pptr) != 0)
        return NULL;
    bool huge = s->slots > 1 || atomic_load(&s->kind) == SEGMENT_KIND_HUGE;
    if (huge ? dst < atomic_load(&s->block) || dst + sizeof(pa_pptr) > atomic_load(&s->end)
             : p.offset < segment_data_of(m->geometry.segment_size))
        return NULL;
    return (pa_pptr *)(m->base + dst);
}

/* Is the block that a free puts in the old one's place one that can be allocated? */
static bool staged_is_possible(const struct manager *m, pa_pptr staged)
{
    struct segment *s = manager_segment(m, staged.segment);
    if (!segment_is_present(s) || staged.offset >> m->shift != 0)
        return false;
    switch (atomic_load(&s->kind)) {
    case SEGMENT_KIND_SMALL:
        return small_usable_size(m, s, staged.offset) != 0;
    case SEGMENT_KIND_BIG:
        return staged.offset >= segment_data_of(m->geometry.segment_size) && staged.offset % BIG_PAGE_BYTES == 0;
    case SEGMENT_KIND_HUGE:
        return huge_usable_size(s, manager_off(m, staged)) != 0;
    default:
        return false;
    }
}

static int finish_release(struct manager *m, struct media_tally *t, const struct pm_lane_entry *e, uint32_t lane,
                          pa_pptr *dst)
{
    struct owner_staging staging = {NULL, e->staging};
    bool replaces = (e->flags & LANE_FLAG_REPLACE) != 0;
    if (replaces && e->staging >= m->geometry.lanes)
        return lane_refuse_entry(e, lane, "its staging owner lies outside the pool");
    staging.owner = replaces ? &manager_core_line(m, e->staging)->staging : NULL;
    if (dst == NULL) /* the owner's own block may have been freed since: then there is nothing to null */
        return replaces ? lane_refuse_entry(e, lane, "its owner pointer lies outside the pool") : 0;
    if (replaces && staging.owner->segment != 0 && !staged_is_possible(m, *staging.owner))
        return lane_refuse_entry(e, lane, "its staging owner names no block");
    owner_release_redo(m->media, t, dst, manager_pptr(m, e->block), replaces ? &staging : NULL);
    return 0;
}

/* Did the redo find everything that the newest entry speaks of? Nothing came after it, so nothing of it can be gone. */
static bool alloc_is_in_place(const struct manager *m, const struct pm_lane_entry *e,
                              bool (*is_leaf)(const struct manager *m, pa_off leaf))
{
    pa_pptr block = manager_pptr(m, e->block);
    struct segment *s = manager_segment(m, block.segment);
    if (!segment_is_present(s))
        return false;
    enum segment_kind kind = atomic_load(&s->kind);
    if (e->op == LANE_OP_SMALL_ALLOC)
        return kind == SEGMENT_KIND_SMALL && small_holds(m, s, block.offset, e->class_index);
    return kind == SEGMENT_KIND_BIG && big_is_redone(m, e, is_leaf);
}

/* The newest entry, if it is not DONE: its owner pointer may be unfinished. */
static int finish_owner(struct manager *m, struct media_tally *t, const struct pm_lane_entry *e, uint32_t lane,
                        bool (*is_leaf)(const struct manager *m, pa_off leaf))
{
    pa_pptr block = manager_pptr(m, e->block);
    pa_pptr *dst = owner_at(m, e->dst);
    switch (e->op) {
    case LANE_OP_SMALL_ALLOC:
    case LANE_OP_BIG_ALLOC:
        if (dst == NULL)
            return lane_refuse_entry(e, lane, "its owner pointer lies outside the pool");
        if (!alloc_is_in_place(m, e, is_leaf))
            return lane_refuse_entry(e, lane, "its block is not allocated");
        owner_store(m->media, t, dst, block);
        return 0;
    case LANE_OP_SMALL_FREE:
    case LANE_OP_BIG_FREE:
        return finish_release(m, t, e, lane, dst);
    case LANE_OP_HUGE_ALLOC:
        return huge_redo(m, t, e, lane, dst);
    case LANE_OP_HUGE_FREE: {
        int code = finish_release(m, t, e, lane, dst);
        return code == 0 ? huge_redo(m, t, e, lane, dst) : code;
    }
    default:
        return 0;
    }
}

/* Two passes over all lanes: the second changes leaves of block indexes, which are blocks that the first may find freed. */
enum pass { PASS_SMALL, PASS_BIG };

static int redo_entry(struct manager *m, struct media_tally *t, const struct pm_lane_entry *e, uint32_t lane,
                      enum pass pass, bool (*is_leaf)(const struct manager *m, pa_off leaf))
{
    switch (e->op) {
    case LANE_OP_SMALL_ALLOC:
    case LANE_OP_SMALL_FREE:
    case LANE_OP_SMALL_HOLE:
        return pass == PASS_SMALL ? small_redo(m, t, e, lane) : 0;
    case LANE_OP_BIG_ALLOC:
    case LANE_OP_BIG_FREE:
    case LANE_OP_BIG_CHANGE:
        return pass == PASS_BIG ? big_redo(m, t, e, lane, is_leaf) : 0;
    default:
        return 0;
    }
}

static int replay(struct manager *m, struct media_tally *t, const struct lane_scan *scans, enum pass pass,
                  bool (*is_leaf)(const struct manager *m, pa_off leaf))
{
    uint32_t entries = m->geometry.lane_entries;
    int code = 0;
    for (uint32_t lane = 0; code == 0 && lane < m->geometry.lanes; lane++)
        for (uint32_t i = 0; code == 0 && i < scans[lane].valid; i++)
            code = redo_entry(m, t, lane_scan_entry(recovery_ring(m, lane), entries, &scans[lane], i), lane, pass,
                              is_leaf);
    return code;
}

static int finish_owners(struct manager *m, struct media_tally *t, const struct lane_scan *scans,
                         bool (*is_leaf)(const struct manager *m, pa_off leaf))
{
    int code = 0;
    for (uint32_t lane = 0; code == 0 && lane < m->geometry.lanes; lane++) {
        if (scans[lane].valid == 0)
            continue;
        const struct pm_lane_entry *newest = &recovery_ring(m, lane)[scans[lane].newest];
        code = finish_owner(m, t, newest, lane, is_leaf);
    }
    return code;
}

/* The newest entry of a lane may be in the cache only, if its process was killed: what is redone from it must not outlive it. */
static void make_newest_durable(const struct manager *m, struct media_tally *t, const struct lane_scan *scans)
{
    for (uint32_t lane = 0; lane < m->geometry.lanes; lane++)
        if (scans[lane].valid != 0)
            media_flush(m->media, t, &recovery_ring(m, lane)[scans[lane].newest], sizeof(struct pm_lane_entry));
    /* Before the redo: else its effects may arrive and the entry not. Also for the segment table and the root line, which were
     * flushed before. */
    media_drain(m->media, t);
}

static int scan_lanes(const struct manager *m, struct lane_scan *scans, uint32_t *ret_next, uint64_t *ret_lsn)
{
    uint32_t entries = m->geometry.lane_entries;
    int code = 0;
    *ret_lsn = 0;
    for (uint32_t lane = 0; code == 0 && lane < m->geometry.lanes; lane++) {
        code = lane_scan(recovery_ring(m, lane), entries, lane, &scans[lane]);
        ret_next[lane] = (scans[lane].newest + 1) & (entries - 1);
        if (*ret_lsn < scans[lane].lsn)
            *ret_lsn = scans[lane].lsn;
    }
    return code;
}

/* Close a lane that holds entries, so that the next open redoes no owner pointer of before this one. */
static int close_lane(struct manager *m, struct media_tally *t, uint32_t lane, uint64_t *lsn, uint32_t *next)
{
    struct lane l;
    int code = lane_init(&l, m->media, recovery_ring(m, lane), m->geometry.lane_entries, *next, *lsn);
    if (code != 0)
        return code;
    lane_done(&l, t);
    *lsn = l.lsn;
    *next = l.next;
    lane_fini(&l);
    return 0;
}

/*
 * step                                        | durable after it   | a crash here recovers by
 * --------------------------------------------+--------------------+---------------------------------------------------
 * 1 newest entries written back, fence         | all entries        | nothing has changed
 * 2 redo every entry on older lines, newest   | maybe parts        | the same again: redo is idempotent, LSNs only rise
 *   entry's owner pointer; write-backs, fence | all of it          | the same again: nothing left to do
 * 3 DONE entry in each lane that was not done | the end            | the same again, without owner pointers
 *
 * Lanes are independent: a line's entries are all in one lane, or the older lane was settled before the newer one began.
 */
int recovery_run(struct manager *m, struct media_tally *t, bool (*is_leaf)(const struct manager *m, pa_off leaf),
                 uint32_t *ret_next, uint64_t *ret_lsn)
{
    uint32_t lanes = m->geometry.lanes;
    struct lane_scan *scans = calloc(lanes, sizeof *scans);
    if (scans == NULL)
        return error_set(PA_ENOMEM, "no memory to read %u lanes", lanes);
    int code = scan_lanes(m, scans, ret_next, ret_lsn);
    if (code == 0) {
        make_newest_durable(m, t, scans);
        code = replay(m, t, scans, PASS_SMALL, is_leaf);
    }
    if (code == 0)
        code = replay(m, t, scans, PASS_BIG, is_leaf);
    if (code == 0)
        code = finish_owners(m, t, scans, is_leaf);
    if (code == 0)
        media_drain(
            m->media,
            t); /* before DONE: it ends the redo of owner pointers; and before a new entry overwrites an old one */
    for (uint32_t lane = 0; code == 0 && lane < lanes; lane++)
        if (scans[lane].valid != 0 && recovery_ring(m, lane)[scans[lane].newest].op != LANE_OP_DONE)
            code = close_lane(m, t, lane, ret_lsn, &ret_next[lane]);
    free(scans);
    return code;
}
