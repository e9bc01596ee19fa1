/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * repair_files.c -- table words, segment headers, extent words. A word names a file and the file's header names its slot, so either
 * is rebuilt from the other; what kind of segment it is, its contents tell.
 */
#include <stdlib.h>

#include "base/error.h"
#include "pool/repair.h"
#include "segment/provider.h"

/* --- headers -------------------------------------------------------------------------------------------------------------- */

/* What the header has to say, born or extent and checksum apart. */
static struct pm_segment_header expected_header(const struct repair *r, uint32_t slot, uint64_t file_bytes)
{
    const struct pm_superblock *g = &r->manager.geometry;
    struct pm_segment_header h = {.magic = SEGMENT_MAGIC,
                                  .version = POOL_FORMAT_VERSION,
                                  .slot = slot,
                                  .segment_size = g->segment_size,
                                  .file_bytes = file_bytes};
    memcpy(h.uuid, g->uuid, sizeof h.uuid);
    return h;
}

static unsigned equal_words(const struct pm_segment_header *a, const struct pm_segment_header *b)
{
    const uint64_t *x = (const uint64_t *)a, *y = (const uint64_t *)b;
    unsigned n = 0;
    for (unsigned i = 0; i < 6; i++)
        n += x[i] == y[i];
    return n;
}

/* Is the file this pool's by anything but its damaged header: does any slab line in it say so? */
static bool has_slab_lines(const struct repair *r, const struct segment *s)
{
    for (uint32_t k = 0; k < small_slabs_of(r->manager.geometry.segment_size); k++) {
        const struct pm_slab_line *line = repair_lines(s, k);
        if (line->lsn != 0 && slab_line_is_valid(line, k, 0))
            return true;
    }
    return false;
}

/* born: as it stands if that fits the checksum, else the one that fits, else 0: then entries about an earlier file may be redone, which
 * makes blocks used that nobody has, but no used block free. */
static bool find_born(struct pm_segment_header *h, uint64_t found, uint64_t checksum)
{
    h->born = found;
    if (segment_header_checksum(h, false) == checksum)
        return true;
    for (h->born = 0; h->born < REPAIR_TRIES_MAX / 2; h->born++)
        if (segment_header_checksum(h, false) == checksum)
            return true;
    h->born = 0;
    return false;
}

static void fix_header(struct repair *r, struct segment *s)
{
    struct pm_segment_header *h = s->file.address;
    bool damaged = h->magic != SEGMENT_MAGIC || h->checksum != segment_header_checksum(h, false);
    struct pm_segment_header want = expected_header(r, s->slot, s->file.size);
    if (!damaged) {
        repair_refuse(r, "%s is a file of another pool or place; restore the pool's own file", s->file.name);
        return;
    }
    if (equal_words(h, &want) < 3 && !has_slab_lines(r, s)) {
        repair_refuse(r, "%s: its header is lost and nothing in it tells that it is the pool's; restore the file",
                      s->file.name);
        return;
    }
    bool exact = find_born(&want, h->born, h->checksum);
    want.checksum = segment_header_checksum(&want, false);
    repair_patch(r, h, &want, sizeof want);
    repair_did(r, "%s: its header was rebuilt from the pool file%s", s->file.name,
               exact ? ""
                     : "; what the log says about earlier files in its slot may come back as blocks that nobody has");
}

/* --- extents of huge files ------------------------------------------------------------------------------------------------ */

/* Does a lane tell where the block begins? */
static uint64_t block_by_lanes(const struct repair *r, uint32_t slot)
{
    const struct manager *m = &r->manager;
    const struct pm_lane_entry *e = (const struct pm_lane_entry *)((char *)r->view_file.address + POOL_LANES_OFFSET);
    uint64_t newest = 0, block = 0;
    for (size_t i = 0; i < (size_t)m->geometry.lanes * m->geometry.lane_entries; i++)
        if (lane_entry_is_valid(&e[i]) && e[i].op == LANE_OP_HUGE_ALLOC && e[i].block >> m->shift == slot &&
            e[i].lsn > newest) {
            newest = e[i].lsn;
            block = e[i].block - ((uint64_t)slot << m->shift);
        }
    return block;
}

/* Two of the extent's three parts (pages, beginning, checksum) have to be as they stand; then the third follows. */
static uint64_t find_extent(const struct repair *r, uint64_t found, uint32_t slot, uint64_t created, uint64_t size)
{
    uint64_t sizes[3] = {huge_extent_file_bytes(found), created, size & ~(uint64_t)(HUGE_PAGE_BYTES - 1)};
    uint64_t begins[14] = {huge_extent_block_offset(found), block_by_lanes(r, slot)};
    for (unsigned i = 0; i < 12; i++)
        begins[2 + i] = (uint64_t)HUGE_PAGE_BYTES << i;
    uint64_t by_lanes = 0, by_parts = 0;
    for (unsigned i = 0; i < 3; i++)
        for (unsigned k = 0; k < 14; k++) {
            uint64_t bytes = sizes[i], begin = begins[k];
            if (bytes < created || bytes > size || begin < SEGMENT_HEADER_BYTES || begin >= bytes || begin >> 28 != 0)
                continue;
            uint64_t extent = huge_extent(bytes, begin, slot);
            bool pages = ((extent ^ found) & 0xffffffff) == 0, page = ((extent ^ found) >> 32 & 0xffff) == 0;
            bool checksum = (extent ^ found) >> 48 == 0;
            if (checksum && (pages || page))
                return extent;
            if (pages && page)
                by_parts = extent;
            if (k == 1 && by_lanes == 0)
                by_lanes = extent;
        }
    return by_parts != 0 ? by_parts : by_lanes;
}

static void fix_huge_header(struct repair *r, struct segment *s)
{
    struct pm_segment_header *h = s->file.address, want = expected_header(r, s->slot, h->file_bytes);
    bool header_good = h->magic == SEGMENT_MAGIC && h->checksum == segment_header_checksum(h, true);
    bool extent_good = huge_extent_is_valid(h->extent, s->slot) && huge_extent_file_bytes(h->extent) <= s->file.size;
    want.extent = h->extent;
    if (header_good && equal_words(h, &want) != 6) {
        repair_refuse(r, "%s is a file of another pool or place; restore the pool's own file", s->file.name);
        return;
    }
    if (!extent_good && huge_extent_is_valid(h->extent, s->slot)) {
        repair_refuse(r, "%s is shorter than its block; restore the file from a backup", s->file.name);
        return;
    }
    if ((!header_good && !extent_good) || (!header_good && equal_words(h, &want) < 3)) {
        repair_refuse(r, "%s: its header is lost; restore the file from a backup", s->file.name);
        return;
    }
    if (!header_good && segment_header_checksum(&want, true) != h->checksum)
        want.file_bytes = huge_extent_file_bytes(h->extent); /* when created: only a lower bound */
    if (!extent_good)
        want.extent = find_extent(r, h->extent, s->slot, h->file_bytes, s->file.size);
    if (want.extent == 0) {
        repair_refuse(r, "%s: nothing tells where its block begins and ends; restore the file from a backup",
                      s->file.name);
        return;
    }
    want.checksum = segment_header_checksum(&want, true);
    repair_patch(r, h, &want, sizeof want);
    repair_did(r, "%s: its %s rebuilt", s->file.name, extent_good ? "header was" : "extent was");
}

/* --- files ---------------------------------------------------------------------------------------------------------------- */

/* Of two names of one file only one can be right, and what is written to one is in the other. */
static bool has_other_name(const struct repair *r, const struct file *f)
{
    for (uint32_t slot = 0; slot < r->manager.slots; slot++) {
        const struct segment *s = manager_segment(&r->manager, slot);
        if (s != NULL && s->file.inode == f->inode && s->file.device == f->device)
            return true;
    }
    return false;
}

static struct segment *map_file(struct repair *r, uint32_t slot, bool huge)
{
    struct manager *m = &r->manager;
    struct segment *s = segment_new(slot);
    char name[32];
    if (huge)
        segment_huge_name(name, &r->manager.geometry, slot);
    else
        segment_name(name, &r->manager.geometry, slot);
    int code = s == NULL ? PA_ENOMEM : file_open(m->dir, &s->file, name);
    if (code == 0 && has_other_name(r, &s->file))
        code = error_set(PA_ECORRUPT, "%s/%s is a link to another file of the pool; restore the pool's own file",
                         m->dir->path, name);
    bool sized = code == 0 && (huge ? s->file.size >= 2 * HUGE_PAGE_BYTES : s->file.size == m->geometry.segment_size);
    if (sized)
        code = file_map_part(m->dir, &s->file, huge ? SEGMENT_HEADER_BYTES : s->file.size, (uint64_t)slot << m->shift);
    if (code == 0) {
        file_close_descriptor(&s->file);
        atomic_store(&m->segments[slot], s);
        return s;
    }
    if (code == PA_ECORRUPT)
        repair_refuse(r, "%s", pa_errormsg());
    else
        repair_fail(r, code);
    if (s != NULL)
        file_close(m->dir, &s->file);
    free(s);
    return NULL;
}

static void drop(struct repair *r, struct segment *s)
{
    atomic_store(&r->manager.segments[s->slot], NULL);
    file_close(r->manager.dir, &s->file);
    free(s);
}

static void publish(struct repair *r, struct segment *s, enum segment_kind kind, unsigned owner)
{
    atomic_store(&s->kind, (uint8_t)kind);
    atomic_store(&s->owner, (uint16_t)owner);
    for (uint32_t i = s->slot; i < s->slot + s->slots; i++)
        atomic_store(&r->manager.segments[i], s);
}

static void set_word(struct repair *r, uint32_t slot, uint64_t word)
{
    repair_patch64(r, &r->manager.table[slot], word);
}

/* A huge file whose word says that it is there, or is to: in the view only its header is mapped. */
static bool open_huge(struct repair *r, uint32_t slot, unsigned owner)
{
    const struct manager *m = &r->manager;
    struct segment *s = map_file(r, slot, true);
    if (s == NULL)
        return false;
    unsigned refused = r->refused;
    if (!segment_is_present(s))
        repair_refuse(r, "%s is cut short; restore the file from a backup", s->file.name);
    else if (segment_any_header_check(m->dir, &s->file, &m->geometry, slot, true) != 0)
        fix_huge_header(r, s);
    const struct pm_segment_header *h = s->file.address;
    uint64_t bytes = r->refused == refused ? huge_extent_file_bytes(h->extent) : 0;
    uint32_t slots = slots_for(m, bytes);
    bool fits = r->refused == refused && bytes <= s->file.size && slots <= m->slots - slot;
    for (uint32_t i = 1; fits && i < slots; i++)
        fits = !segment_word_is_valid(m->table[slot + i], slot + i) || m->table[slot + i] == 0;
    if (!fits) {
        if (r->refused == refused)
            repair_refuse(r, "%s is shorter than it says, or its slots belong to others too; restore the file",
                          s->file.name);
        drop(r, s);
        return false;
    }
    for (uint32_t i = 1; i < slots; i++)
        if (m->table[slot + i] != 0) {
            set_word(r, slot + i, 0);
            repair_did(r, "table word of slot %u, which %s covers, was damaged; cleared", slot + i, s->file.name);
        }
    s->slots = slots;
    atomic_store(&s->block, ((pa_off)slot << m->shift) + huge_extent_block_offset(h->extent));
    atomic_store(&s->end, ((pa_off)slot << m->shift) + bytes);
    publish(r, s, SEGMENT_KIND_HUGE, owner);
    return true;
}

static void free_slot(struct repair *r, uint32_t slot, const char *why)
{
    char name[32];
    segment_name(name, &r->manager.geometry, slot);
    set_word(r, slot, 0);
    repair_did(r, "%s held nothing and %s; its slot was made free", name, why);
}

static void open_segment(struct repair *r, uint32_t slot, enum segment_kind kind, unsigned owner)
{
    const struct manager *m = &r->manager;
    char name[32];
    segment_name(name, &r->manager.geometry, slot);
    bool empty = kind == SEGMENT_KIND_NONE;
    if (!r->segment_present[slot]) {
        if (empty)
            free_slot(r, slot, "is missing");
        else
            repair_refuse(r, "%s is missing; restore the pool's own file", name);
        return;
    }
    struct segment *s = map_file(r, slot, false);
    if (s == NULL)
        return;
    bool sized = segment_is_present(s) && s->file.size == m->geometry.segment_size;
    bool good = sized && segment_header_check(m->dir, &s->file, &m->geometry, slot) == 0;
    if (!good && empty) {
        free_slot(r, slot, "is damaged"); /* the file becomes a stray */
    } else if (!sized) {
        repair_refuse(r, "%s has %llu bytes instead of %llu; restore the pool's own file", name,
                      (unsigned long long)s->file.size, (unsigned long long)m->geometry.segment_size);
    } else {
        if (!good)
            fix_header(r, s);
        publish(r, s, kind, owner);
        return;
    }
    drop(r, s);
}

/* --- words ---------------------------------------------------------------------------------------------------------------- */

static bool word_is_good(const struct repair *r, uint32_t slot)
{
    uint64_t word = r->manager.table[slot];
    if (!segment_word_is_valid(word, slot) || (slot < r->manager.first_slot && word != 0))
        return false;
    uint32_t lanes = r->manager.geometry.lanes;
    uint32_t owners = segment_word_kind(word) == SEGMENT_KIND_BIG ? 2 * lanes : lanes;
    return segment_word_state(word) != SEGMENT_STATE_READY || segment_word_owner(word) < owners;
}

static bool has_small_blocks(const struct repair *r, const struct segment *s)
{
    for (uint32_t k = 0; k < small_slabs_of(r->manager.geometry.segment_size); k++)
        for (uint32_t i = 0; i < SLAB_LINES; i++) {
            const struct pm_slab_line *line = repair_lines(s, k) + i;
            unsigned class_index = slab_line_class(line);
            uint64_t any = 0;
            for (unsigned w = 0; w < SLAB_LINE_WORDS; w++)
                any |= line->bits[w];
            if (any != 0 && class_index < SMALL_CLASSES && i < small_class_lines(class_index) &&
                slab_line_is_valid(line, k, i))
                return true;
        }
    return false;
}

/* The file is the pool's: what is in it? A small segment's lines tell; else the block indexes will (repair_files_finish). */
static void derive_segment(struct repair *r, uint32_t slot, uint64_t old)
{
    struct manager *m = &r->manager;
    struct segment *s = map_file(r, slot, false);
    if (s == NULL)
        return;
    if (!segment_is_present(s) || s->file.size != m->geometry.segment_size ||
        segment_header_check(m->dir, &s->file, &m->geometry, slot) != 0) {
        if (old != 0) /* a zero word: a stray */
            repair_refuse(r, "table word of slot %u is damaged, and so is %s; restore both from a backup", slot,
                          s->file.name);
        drop(r, s);
        return;
    }
    unsigned owner = segment_word_owner(old) < m->geometry.lanes ? segment_word_owner(old) : 0;
    enum segment_kind hint = repair_lane_hint(r, slot, segment_header(s)->born);
    bool small = has_small_blocks(r, s) || hint == SEGMENT_KIND_SMALL;
    r->pending[slot] = true;
    publish(r, s, small ? SEGMENT_KIND_SMALL : SEGMENT_KIND_NONE, owner);
}

/* Is the word one bit away from one that says that a file is there? Then the file is what is missing. */
static bool was_ready(uint64_t word, uint32_t slot)
{
    for (unsigned bit = 0; bit < 64; bit++)
        if (segment_word_is_valid(word ^ 1ull << bit, slot) &&
            segment_word_state(word ^ 1ull << bit) == SEGMENT_STATE_READY)
            return true;
    return false;
}

/* May the word be zero by damage, though the file is there? A slot that is free has none: it was removed, durably, before. */
static bool is_claimed(struct repair *r, uint32_t slot, bool huge)
{
    char name[32];
    if (huge)
        segment_huge_name(name, &r->manager.geometry, slot);
    else
        segment_name(name, &r->manager.geometry, slot);
    enum segment_claim claim = segment_file_claim(&r->view_dir, name, &r->manager.geometry, slot, huge);
    if (claim == SEGMENT_CLAIM_MAYBE)
        repair_refuse(r,
                      "table word of slot %u is zero, and the header of %s is damaged, so nothing tells whether its "
                      "blocks are somebody's; restore both from a backup, or move the file away if it is not this "
                      "pool's, and repair again",
                      slot, name);
    return claim == SEGMENT_CLAIM_OWN;
}

static void derive_word(struct repair *r, uint32_t slot)
{
    struct manager *m = &r->manager;
    uint64_t old = m->table[slot];
    if (slot < m->first_slot) {
        set_word(r, slot, 0);
        repair_did(r, "table word of slot %u, which is the pool file's own, was damaged; cleared", slot);
    } else if (slot >= m->slots || atomic_load(&m->segments[slot]) != NULL) {
        return; /* covered by a huge file, which has cleared it */
    } else if (r->huge_present[slot] && (old != 0 || is_claimed(r, slot, true))) {
        unsigned owner = segment_word_owner(old) < m->geometry.lanes ? segment_word_owner(old) : 0;
        if (!open_huge(r, slot, owner))
            return;
        uint32_t slots = atomic_load(&m->segments[slot])->slots;
        set_word(r, slot, segment_word_long(SEGMENT_STATE_READY, SEGMENT_KIND_HUGE, owner, slots - 1, slot));
        repair_did(r, "table word of slot %u was rebuilt from its huge file", slot);
    } else if (r->segment_present[slot] && (old != 0 || is_claimed(r, slot, false))) {
        derive_segment(r, slot, old);
    } else if (old != 0 && was_ready(old, slot)) {
        repair_refuse(r, "table word of slot %u is damaged and its file is missing; restore the file", slot);
    } else if (old != 0) {
        set_word(r, slot, 0);
        repair_did(r, "table word of slot %u was damaged, and there is no file for it; the slot was made free", slot);
    }
}

static void open_by_word(struct repair *r, uint32_t slot)
{
    uint64_t word = r->manager.table[slot];
    if (segment_word_state(word) != SEGMENT_STATE_READY)
        return; /* free; or open finishes it */
    if (slot >= r->manager.slots) {
        repair_fail(r,
                    error_set(PA_ENOMEM, "the address range for %s ends before segment %u; raise the limit (ulimit -v)",
                              r->path, slot));
        return;
    }
    if (segment_word_kind(word) != SEGMENT_KIND_HUGE)
        open_segment(r, slot, segment_word_kind(word), segment_word_owner(word));
    else if (r->huge_present[slot])
        open_huge(r, slot, segment_word_owner(word));
    else
        repair_refuse(r, "huge-%08x.pa is missing; restore the pool's own file", slot);
}

void repair_files(struct repair *r)
{
    for (uint32_t slot = 0; r->failed == 0 && slot < r->slots; slot++)
        if (word_is_good(r, slot))
            open_by_word(r, slot);
    for (uint32_t slot = 0; r->failed == 0 && slot < r->slots; slot++) {
        bool has_file = r->segment_present[slot] || r->huge_present[slot];
        if (!word_is_good(r, slot) || (r->manager.table[slot] == 0 && has_file))
            derive_word(r, slot);
    }
}

void repair_files_finish(struct repair *r)
{
    for (uint32_t slot = 0; slot < r->manager.slots; slot++) {
        if (!r->pending[slot])
            continue;
        static const char *const texts[] = {"free", "of small blocks", "of big blocks"};
        struct segment *s = atomic_load(&r->manager.segments[slot]);
        enum segment_kind kind = atomic_load(&s->kind);
        if (kind == SEGMENT_KIND_NONE && (r->sound_indexes == 0 || r->doubtful_indexes != 0)) {
            repair_refuse(
                r,
                "table word of slot %u is damaged, and no sound block index tells whether %s holds big blocks; "
                "restore " POOL_FILE_NAME " from a backup",
                slot, s->file.name);
            return;
        }
        unsigned owner = kind == SEGMENT_KIND_NONE ? 0 : atomic_load(&s->owner);
        set_word(r, slot, segment_word(SEGMENT_STATE_READY, kind, owner, slot));
        repair_did(r, "table word of slot %u was rebuilt: by its contents a segment %s", slot, texts[kind]);
    }
}
