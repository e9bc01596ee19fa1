/* SPDX-License-Identifier: BSD-3-Clause */
/* repair_root.c -- the root line and the staging owners: pointers that the pool file itself holds. */
#include "pool/repair.h"

uint64_t repair_usable(const struct repair *r, pa_pptr p)
{
    const struct manager *m = &r->manager;
    const struct segment *s = manager_segment(m, p.segment);
    if (!segment_is_present(s) || p.offset >= m->geometry.segment_size)
        return 0;
    pa_off off = manager_off(m, p);
    enum segment_kind kind = atomic_load(&s->kind);
    if (kind == SEGMENT_KIND_SMALL)
        return small_usable_size(m, s, p.offset);
    if (kind == SEGMENT_KIND_HUGE)
        return atomic_load(&s->block) == off ? atomic_load(&s->end) - off : 0;
    for (size_t low = 0, high = r->pair_count; low < high;) {
        size_t middle = low + (high - low) / 2;
        const struct repair_pair *pair = &r->pairs[middle];
        if (pair->key == off)
            return pair->state == BIG_USED ? (uint64_t)pair->pages << BIG_PAGE_SHIFT : 0;
        if (pair->key < off)
            low = middle + 1;
        else
            high = middle;
    }
    return 0;
}

/* --- root ----------------------------------------------------------------------------------------------------------------- */

static bool is_ready(const struct repair *r, const struct pm_root *line)
{
    return line->check == superblock_root_check(line) && repair_usable(r, line->root) >= line->size && line->size != 0;
}

static bool try_size(const struct repair *r, struct pm_root *line)
{
    uint64_t usable = repair_usable(r, line->root), old = line->size;
    for (line->size = 1; line->size <= usable && line->size < REPAIR_TRIES_MAX; line->size++)
        if (line->check == superblock_root_check(line))
            return true;
    line->size = old;
    return false;
}

/* Every allocated block, until one fits the check. */
static bool try_small(const struct repair *r, struct pm_root *line)
{
    const struct manager *m = &r->manager;
    uint64_t first = small_first_slab_of(m->geometry.segment_size);
    for (uint32_t slot = 0; slot < m->slots; slot++) {
        const struct segment *s = manager_segment(m, slot);
        for (uint32_t k = 0; repair_is_kind(s, SEGMENT_KIND_SMALL) && k < small_slabs_of(m->geometry.segment_size);
             k++) {
            unsigned class_index = slab_line_class(repair_lines(s, k));
            for (uint32_t b = 0; class_index < SMALL_USER_CLASSES && b < small_class_blocks(class_index); b++) {
                line->root =
                    (pa_pptr){slot, first + (uint64_t)k * SLAB_BYTES + (uint64_t)b * small_class_bytes(class_index)};
                if (line->check == superblock_root_check(line) && is_ready(r, line))
                    return true;
            }
        }
    }
    return false;
}

static bool try_large(const struct repair *r, struct pm_root *line)
{
    const struct manager *m = &r->manager;
    for (size_t i = 0; i < r->pair_count; i++) {
        line->root = manager_pptr(m, r->pairs[i].key);
        if (line->check == superblock_root_check(line) && is_ready(r, line))
            return true;
    }
    for (uint32_t slot = 0; slot < m->slots; slot++) {
        const struct segment *s = manager_segment(m, slot);
        if (!repair_is_kind(s, SEGMENT_KIND_HUGE) || s->slot != slot)
            continue;
        line->root = manager_pptr(m, atomic_load(&s->block));
        if (line->check == superblock_root_check(line) && is_ready(r, line))
            return true;
    }
    return false;
}

static void fix_root(struct repair *r, struct pm_root *at)
{
    struct pm_root line = *at;
    uint64_t usable = repair_usable(r, line.root);
    const char *how = NULL;
    if (line.check != 0 && line.check != ROOT_MAKING && usable != 0 && try_size(r, &line))
        how = "its size was restored";
    if (how == NULL && line.check != 0 && line.check != ROOT_MAKING && (try_small(r, &line) || try_large(r, &line)))
        how = "its pointer was restored";
    if (how == NULL && usable != 0 && at->size != 0 && at->size <= usable) {
        line = *at;
        line.check = superblock_root_check(&line);
        how = "it names a block that its size fits, so its check was made anew";
    }
    if (how == NULL) {
        repair_refuse(r, POOL_FILE_NAME
                      ": the root line is damaged, and nothing tells which block is the root; restore the "
                      "file from a backup");
        return;
    }
    repair_patch(r, at, &line, sizeof line);
    repair_did(r, POOL_FILE_NAME ": the root line was damaged; %s", how);
}

static bool root_is_sound(const struct repair *r, const struct pm_root *line)
{
    bool null = pa_is_null(line->root);
    bool none = null && line->size == 0 && line->check == 0;
    bool unfinished = line->check == ROOT_MAKING && (null || repair_usable(r, line->root) != 0);
    return none || unfinished || is_ready(r, line);
}

/* An operation in flight may be about to change one of these: then open decides. */
static bool is_in_flight(const struct repair *r, pa_off dst)
{
    const struct pm_superblock *g = &r->manager.geometry;
    for (uint32_t lane = 0; lane < g->lanes; lane++) {
        struct lane_scan scan;
        const struct pm_lane_entry *ring =
            (const struct pm_lane_entry *)((char *)r->view_file.address + POOL_LANES_OFFSET) +
            (size_t)lane * g->lane_entries;
        if (lane_scan(ring, g->lane_entries, lane, &scan) != 0 || scan.valid == 0)
            continue;
        const struct pm_lane_entry *e = &ring[scan.newest];
        uint64_t staging =
            superblock_cores_offset(g) + (uint64_t)e->staging * POOL_CORE_BYTES + offsetof(struct pm_core, staging);
        if (e->op != LANE_OP_DONE && (e->dst == dst || ((e->flags & LANE_FLAG_REPLACE) != 0 && staging == dst)))
            return true;
    }
    return false;
}

void repair_roots(struct repair *r)
{
    const struct pm_superblock *g = &r->manager.geometry;
    struct pm_root *root = (struct pm_root *)((char *)r->view_file.address + POOL_ROOT_OFFSET);
    if (!root_is_sound(r, root) && !is_in_flight(r, POOL_ROOT_OFFSET))
        fix_root(r, root);
    for (uint32_t i = 0; i < g->lanes; i++) {
        struct pm_core *line = manager_core_line(&r->manager, i);
        pa_off off = superblock_cores_offset(g) + (uint64_t)i * POOL_CORE_BYTES + offsetof(struct pm_core, staging);
        if (pa_is_null(line->staging) || repair_usable(r, line->staging) != 0 || is_in_flight(r, off))
            continue;
        pa_pptr null = PA_NULL;
        repair_patch(r, &line->staging, &null, sizeof null);
        repair_did(r,
                   POOL_FILE_NAME
                   ": the staging owner of core line %u named no block; cleared, a block that it named leaks",
                   i);
    }
}
