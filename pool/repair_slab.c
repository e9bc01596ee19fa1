/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * repair_slab.c -- the lanes replayed in the view, and damaged slab lines.
 *
 * A line with one damaged field (tag, LSN, one bit) is found again by its checksum. Of any other, all blocks are made used, with the
 * highest LSN, so that no entry changes it: what was free leaks, what was allocated stays. The class has to be known for certain, because it
 * says how large the blocks are: from the slab's first line, or from the newest entry about the slab.
 */
#include "big/big.h"
#include "pool/repair.h"
#include "recovery/recovery.h"

#define LSN_TRIES (1u << 18) /* beside 32 bits of checksum */

/* --- a line --------------------------------------------------------------------------------------------------------------- */

struct place {
    struct segment *s;
    uint32_t slab, line;
};

static struct pm_slab_line *line_at(const struct place *p)
{
    return repair_lines(p->s, p->slab) + p->line;
}

/* Blocks of the class that the line tells of. */
static uint32_t blocks_in(unsigned class_index, uint32_t line)
{
    uint32_t blocks = small_class_blocks(class_index), first = line * SLAB_LINE_BITS;
    return first >= blocks ? 0 : blocks - first < SLAB_LINE_BITS ? blocks - first : SLAB_LINE_BITS;
}

static struct pm_slab_line line_with(const struct place *p, unsigned class_index, uint64_t lsn, uint32_t used)
{
    struct pm_slab_line line = {.lsn = lsn};
    for (uint32_t b = 0; b < used; b++)
        line.bits[b / 64] |= 1ull << b % 64;
    line.tag = slab_line_tag(&line, class_index, p->slab, p->line);
    return line;
}

static uint32_t used_in(const struct pm_slab_line *line)
{
    uint32_t n = 0;
    for (uint32_t w = 0; w < SLAB_LINE_WORDS; w++)
        n += (uint32_t)__builtin_popcountll(line->bits[w]);
    return n;
}

static bool has_no_stray_bits(const struct pm_slab_line *line, const struct place *p, unsigned class_index)
{
    struct pm_slab_line full = line_with(p, class_index, 1, blocks_in(class_index, p->line));
    for (uint32_t w = 0; w < SLAB_LINE_WORDS; w++)
        if ((line->bits[w] & ~full.bits[w]) != 0)
            return false;
    return true;
}

static bool is_line_of(const struct pm_slab_line *line, const struct place *p, unsigned class_index)
{
    return line->lsn != 0 && slab_line_class(line) == class_index && slab_line_is_valid(line, p->slab, p->line) &&
           has_no_stray_bits(line, p, class_index);
}

/* The line as it was, by its own checksum: 0 <= class, else all classes are tried. */
static bool restore(const struct repair *r, const struct place *p, int class_index, struct pm_slab_line *ret)
{
    struct pm_slab_line t = *line_at(p);
    for (unsigned c = 0; t.lsn != 0 && c < SMALL_CLASS_TAGS;
         c++) { /* the tag's lower half, or a bit of its upper half */
        uint64_t tag = slab_line_tag(&t, c, p->slab, p->line), differs = (tag ^ t.tag) >> 32;
        bool half = differs == 0 || ((tag ^ t.tag) << 32 == 0 && (differs & (differs - 1)) == 0);
        if (half && (class_index < 0 || c == (unsigned)class_index)) {
            t.tag = tag;
            *ret = t;
            return is_line_of(&t, p, c);
        }
    }
    unsigned c = slab_line_class(&t);
    if (c >= SMALL_CLASS_TAGS || (class_index >= 0 && c != (unsigned)class_index))
        return false;
    for (unsigned bit = 0; bit < 512; bit++) { /* one bit anywhere */
        t = *line_at(p);
        ((uint64_t *)&t)[bit / 64] ^= 1ull << bit % 64;
        if (is_line_of(&t, p, c) && t.lsn <= r->lsn)
            return *ret = t, true;
    }
    t = *line_at(p);
    for (uint64_t n = 0; n < LSN_TRIES && n < r->lsn; n++) {
        t.lsn = r->lsn - n;
        if (is_line_of(&t, p, c))
            return *ret = t, true;
    }
    return false;
}

/* All of the line's blocks become used; how many were not for certain. */
static uint32_t seal(struct repair *r, const struct place *p, unsigned class_index)
{
    uint32_t blocks = blocks_in(class_index, p->line);
    struct pm_slab_line line = line_with(p, class_index, r->lsn, blocks);
    repair_patch(r, line_at(p), &line, sizeof line);
    return blocks;
}

/* --- a slab --------------------------------------------------------------------------------------------------------------- */

static int class_of(const struct repair *r, const struct segment *s, uint32_t slab)
{
    struct place first = {(struct segment *)s, slab, 0};
    const struct pm_slab_line *line = line_at(&first);
    unsigned class_index = slab_line_class(line);
    if (class_index < SMALL_CLASS_TAGS && is_line_of(line, &first, class_index))
        return (int)class_index;
    struct pm_slab_line restored;
    if (restore(r, &first, -1, &restored))
        return (int)slab_line_class(&restored);
    if (class_index < SMALL_CLASSES && (line->tag >> 8 & 0xffffff) == (uint64_t)(slab & 0xffff) << 8)
        return (int)class_index; /* line and slab number are right, so the byte beside them is too */
    class_index = (unsigned)repair_lane_class(r, s->slot, slab);
    return class_index < SMALL_CLASSES ? (int)class_index : -1;
}

/* Every line that counts is to be valid and of the class. */
static void fix_slab(struct repair *r, struct segment *s, uint32_t slab)
{
    uint32_t sealed = 0;
    int class_index = class_of(r, s, slab);
    if (class_index < 0) {
        repair_refuse(r,
                      "%s: nothing tells the block size of slab %u, whose metadata are damaged; the pool can be used "
                      "without it, or restore the file from a backup",
                      s->file.name, slab);
        return;
    }
    for (uint32_t i = 0; i < small_class_lines((unsigned)class_index); i++) {
        struct place p = {s, slab, i};
        struct pm_slab_line line;
        if (is_line_of(line_at(&p), &p, (unsigned)class_index))
            continue;
        if (restore(r, &p, class_index, &line))
            repair_patch(r, line_at(&p), &line, sizeof line);
        else
            sealed += seal(r, &p, (unsigned)class_index);
    }
    r->suspect[s->slot] |= sealed != 0;
    if (sealed != 0)
        repair_did(
            r, "%s: metadata of slab %u were damaged; %u blocks of %u bytes are made used, those that were free leak",
            s->file.name, slab, sealed, small_class_bytes((unsigned)class_index));
    else
        repair_did(r, "%s: metadata of slab %u had a damaged word, which was restored", s->file.name, slab);
}

/* A segment that holds no small blocks: its lines only have to be sound, and newer than what the lanes say about the slab. */
static void clear_slab(struct repair *r, struct segment *s, uint32_t slab)
{
    struct place p = {s, slab, 0};
    if (r->pending[s->slot]) {
        repair_refuse(r,
                      "%s: its table word is damaged, and so are the metadata of slab %u; restore both from a backup",
                      s->file.name, slab);
        return;
    }
    struct pm_slab_line line = line_with(&p, SMALL_CLASS_HOLE, r->lsn, 0);
    repair_patch(r, line_at(&p), &line, sizeof line);
    repair_did(r, "%s: metadata of slab %u, which are not in use, were damaged; reset", s->file.name, slab);
}

/* --- replay --------------------------------------------------------------------------------------------------------------- */

/* A line that cannot have been like this when the entry was made. */
static void fix_for_entry(struct repair *r, const struct pm_lane_entry *e)
{
    const struct manager *m = &r->manager;
    pa_pptr p = manager_pptr(m, e->block);
    struct segment *s = manager_segment(m, p.segment);
    uint64_t data = small_first_slab_of(m->geometry.segment_size);
    unsigned class_index = e->class_index;
    if (!repair_is_kind(s, SEGMENT_KIND_SMALL) || p.offset < data || class_index >= SMALL_CLASSES) {
        repair_refuse(r, "%s", pa_errormsg());
        return;
    }
    struct place at = {s, (uint32_t)((p.offset - data) / SLAB_BYTES), 0};
    uint32_t within = (uint32_t)((p.offset - data) % SLAB_BYTES), block = within / small_class_bytes(class_index);
    if (block >= small_class_blocks(class_index) || within % small_class_bytes(class_index) != 0) {
        repair_refuse(r, "%s", pa_errormsg());
        return;
    }
    at.line = slab_line_of(block);
    struct pm_slab_line line;
    struct media_tally t = {0};
    if (restore(r, &at, (int)class_index, &line)) {
        repair_patch(r, line_at(&at), &line, sizeof line);
        if (small_redo(m, &t, e, 0) == 0) {
            repair_did(r, "%s: metadata of slab %u had a damaged word, which was restored", s->file.name, at.slab);
            return;
        }
    }
    /* An entry that was restored may be what is wrong; and of a slab that had two classes, nothing tells which it has. */
    if (r->entries_fixed != 0 || repair_lane_class(r, s->slot, at.slab) != (int)class_index) {
        repair_refuse(r, "%s", pa_errormsg());
        return;
    }
    uint32_t sealed = 0;
    r->suspect[s->slot] = true;
    for (uint32_t i = 0; i < small_class_lines(class_index); i++) {
        struct place other = {s, at.slab, i};
        if (i == at.line || !is_line_of(line_at(&other), &other, class_index))
            sealed += seal(r, &other, class_index);
    }
    repair_did(
        r, "%s: metadata of slab %u contradict the log; %u blocks of %u bytes are made used, those that were free leak",
        s->file.name, at.slab, sealed, small_class_bytes(class_index));
}

static void replay(struct repair *r, bool big)
{
    const struct manager *m = &r->manager;
    uint32_t entries = m->geometry.lane_entries;
    struct lane_scan scan;
    for (uint32_t lane = 0; lane < m->geometry.lanes; lane++) {
        struct pm_lane_entry *ring = recovery_ring(m, lane);
        if (lane_scan(ring, entries, lane, &scan) != 0)
            continue; /* refused before */
        for (uint32_t i = 0; i < scan.valid; i++) {
            const struct pm_lane_entry *e = lane_scan_entry(ring, entries, &scan, i);
            bool small = e->op == LANE_OP_SMALL_ALLOC || e->op == LANE_OP_SMALL_FREE || e->op == LANE_OP_SMALL_HOLE;
            if (!big && small && small_redo(m, &r->tally, e, lane) != 0)
                fix_for_entry(r, e);
            if (big && e->op >= LANE_OP_BIG_ALLOC && e->op <= LANE_OP_BIG_CHANGE &&
                big_redo(m, &r->tally, e, lane, pool_is_leaf) != 0)
                repair_refuse(r, "%s", pa_errormsg());
        }
    }
}

/* --- after a lost allocation ---------------------------------------------------------------------------------------------- */

static uint64_t seal_lsn(const struct repair *r, unsigned owner)
{
    uint64_t lsn = 0;
    for (uint32_t lane = 0; lane < r->manager.geometry.lanes; lane++)
        if (r->seal[lane] > lsn && repair_may_own(lane, owner, r->manager.geometry.lanes))
            lsn = r->seal[lane];
    return lsn;
}

/* A slab whose lines may lack a lost allocation. One without a block takes its first from its beginning, whatever its class then is: a
 * class of the largest blocks, with the first one used, keeps that. */
static uint32_t seal_slab(struct repair *r, struct segment *s, uint32_t slab, uint64_t lsn)
{
    uint32_t allocated = 0, sealed = 0;
    const struct pm_slab_line *lines = repair_lines(s, slab);
    unsigned class_index = slab_line_class(&lines[0]);
    if (!slab_is_valid(lines, slab, &allocated))
        return 0; /* left to fix_slab */
    if (allocated == 0) {
        struct place p = {s, slab, 0};
        if (lines[0].lsn >= lsn)
            return 0;
        struct pm_slab_line line = line_with(&p, SMALL_USER_CLASSES - 1, r->lsn, 1);
        repair_patch(r, line_at(&p), &line, sizeof line);
        return 1;
    }
    for (uint32_t i = 0; i < small_class_lines(class_index); i++) {
        struct place p = {s, slab, i};
        if (lines[i].lsn < lsn) {
            uint32_t before = used_in(&lines[i]);
            sealed += seal(r, &p, class_index) - before;
        }
    }
    return sealed;
}

static void seal_segments(struct repair *r)
{
    const struct manager *m = &r->manager;
    for (uint32_t slot = 0; slot < m->slots; slot++) {
        struct segment *s = manager_segment(m, slot);
        if (!repair_is_kind(s, SEGMENT_KIND_SMALL))
            continue;
        uint64_t lsn = seal_lsn(r, atomic_load(&s->owner)), sealed = 0;
        for (uint32_t k = 0; lsn != 0 && k < small_slabs_of(m->geometry.segment_size); k++)
            sealed += seal_slab(r, s, k, lsn);
        if (sealed != 0)
            repair_did(
                r, "%s: %llu free blocks are made used, because one of them may have been allocated; the others leak",
                s->file.name, (unsigned long long)sealed);
    }
}

/* --- all ------------------------------------------------------------------------------------------------------------------ */

/* Slabs are formatted from the lowest on. Beside lines that are lost, one that looks as if it never was may have lost its own. */
static void refuse_lost_slabs(struct repair *r, const struct segment *s)
{
    bool formatted = false;
    for (uint32_t k = small_slabs_of(r->manager.geometry.segment_size); k-- > 0;) {
        if (repair_lines(s, k)->lsn != 0)
            formatted = true;
        else if (formatted) {
            repair_refuse(r,
                          "%s: metadata are lost, and those of slab %u look as if it had never been used, though later "
                          "ones were; restore the file from a backup",
                          s->file.name, k);
            return;
        }
    }
}

static void fix_segment(struct repair *r, struct segment *s, uint64_t *highest)
{
    for (uint32_t k = 0; r->failed == 0 && k < small_slabs_of(r->manager.geometry.segment_size); k++) {
        uint32_t allocated;
        const struct pm_slab_line *lines = repair_lines(s, k);
        if (!slab_is_valid(lines, k, &allocated)) {
            if (repair_is_kind(s, SEGMENT_KIND_SMALL))
                fix_slab(r, s, k);
            else
                clear_slab(r, s, k);
        }
        unsigned class_index = slab_line_class(&lines[0]);
        for (uint32_t i = 0; class_index < SMALL_CLASS_TAGS && i < small_class_lines(class_index); i++)
            if (lines[i].lsn > *highest && slab_line_is_valid(&lines[i], k, i))
                *highest = lines[i].lsn;
    }
    if (r->suspect[s->slot] && repair_is_kind(s, SEGMENT_KIND_SMALL))
        refuse_lost_slabs(r, s);
}

/* A line ahead of all lanes shows that the newest entry of one is lost. If that was a free, its owner pointer may still name the block; so
 * what is free in the line becomes used. */
static void seal_if_ahead(struct repair *r, const struct place *p, unsigned class_index)
{
    uint32_t before = used_in(line_at(p));
    uint32_t made = class_index < SMALL_CLASSES ? seal(r, p, class_index) - before : 0;
    if (made != 0)
        repair_did(r,
                   "%s: the newest entry of a lane is lost; %u free blocks of slab %u that it may have been about are "
                   "made used",
                   p->s->file.name, made, p->slab);
}

static void seal_lines_ahead(struct repair *r, struct segment *s, uint64_t *highest)
{
    for (uint32_t k = 0; r->failed == 0 && k < small_slabs_of(r->manager.geometry.segment_size); k++) {
        unsigned class_index = slab_line_class(repair_lines(s, k));
        for (uint32_t i = 0; class_index < SMALL_CLASS_TAGS && i < small_class_lines(class_index); i++) {
            struct place p = {s, k, i};
            if (line_at(&p)->lsn <= r->lanes_lsn || !is_line_of(line_at(&p), &p, class_index))
                continue;
            if (line_at(&p)->lsn > *highest)
                *highest = line_at(&p)->lsn;
            seal_if_ahead(r, &p, class_index);
        }
    }
}

/* More than the one entry that a line can show to be lost may be so: then allocations are lost of which no line tells. */
static void fix_lines_ahead(struct repair *r)
{
    uint64_t highest = r->lanes_lsn;
    for (uint32_t slot = 0; slot < r->manager.slots; slot++) {
        struct segment *s = manager_segment(&r->manager, slot);
        if (repair_is_kind(s, SEGMENT_KIND_SMALL))
            seal_lines_ahead(r, s, &highest);
    }
    if (highest > r->lanes_lsn + 1)
        repair_refuse(r,
                      POOL_FILE_NAME ": lines on the media are newer than all lanes by %llu entries, which are lost; "
                                     "restore the pool from a backup",
                      (unsigned long long)(highest - r->lanes_lsn));
    repair_raise_lsn(r, highest);
}

void repair_slabs(struct repair *r)
{
    const struct manager *m = &r->manager;
    uint64_t highest = 0;
    seal_segments(r);
    replay(r, false);
    for (uint32_t slot = 0; slot < m->slots; slot++) {
        struct segment *s = manager_segment(m, slot);
        /* Also where no small blocks are now: pa_check looks at the lines of every segment, and the next owner will. */
        if (segment_is_present(s) && atomic_load(&s->kind) != SEGMENT_KIND_HUGE)
            fix_segment(r, s, &highest);
    }
    fix_lines_ahead(r);
    repair_raise_lsn(r, highest);
    replay(r, true);
}
