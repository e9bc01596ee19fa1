/* SPDX-License-Identifier: BSD-3-Clause */
/* small_segment.c -- see small_segment.h, and the parts of small.h that look at media without changing them. */
#include "small/small_segment.h"

#include <stdlib.h>

#include "base/error.h"

static struct pm_slab_line *segment_lines(const struct manager *m, const struct segment *s)
{
    return (struct pm_slab_line *)(m->base + ((uint64_t)s->slot << m->shift) + SEGMENT_HEADER_BYTES);
}

void small_adopt(struct small *o, struct segment *s)
{
    s->next_free = o->unread;
    o->unread = s;
}

/* Put a slab that was just read where it belongs. */
static void file_slab(struct small *o, struct small_segment *home, uint32_t number)
{
    struct small_slab *slab = &home->slabs[number];
    const struct pm_slab_line *lines = slab_lines(slab);
    uint32_t allocated = 0;
    slab->class_index = (uint8_t)slab_line_class(&lines[0]);
    uint32_t lines_used = slab->class_index == SLAB_UNFORMATTED ? 1 : small_class_lines(slab->class_index);
    if (!slab_is_valid(lines, number, &allocated) || slab_is_ahead(lines, lines_used, o->core->lane.lsn)) {
        slab->state = SLAB_BAD; /* nothing is allocated or freed in it; pa_check reports it */
        return;
    }
    uint32_t blocks = slab->class_index == SLAB_UNFORMATTED ? 0 : small_class_blocks(slab->class_index);
    slab->free_blocks = (uint16_t)(blocks - allocated);
    if (allocated == 0) {
        slab->format_pending = slab->class_index == SLAB_UNFORMATTED;
        slab->hole = slab->class_index == SMALL_CLASS_HOLE;
        small_list_free(o, slab);
        return;
    }
    small_count_blocks(o, slab->class_index, allocated);
    slab->state = allocated == blocks ? SLAB_FULL : SLAB_PARTIAL;
    if (slab->state == SLAB_PARTIAL)
        slab_list_push(&o->partial[slab->class_index], slab);
}

static size_t twin_bytes(uint32_t slabs)
{
    return sizeof(struct small_segment) + slabs * sizeof(struct small_slab);
}

static int read_segment(struct small *o, struct segment *s)
{
    uint32_t slabs = small_slabs_of(o->manager->geometry.segment_size);
    struct small_segment *home = calloc(1, twin_bytes(slabs));
    if (home == NULL)
        return error_set(PA_ENOMEM, "no memory for the slab descriptors of segment %u", s->slot);
    o->dram_bytes += twin_bytes(slabs);
    home->segment = s;
    home->slab_count = slabs;
    home->lines = segment_lines(o->manager, s);
    for (uint32_t i = slabs; i-- > 0;) { /* downwards: lists then begin with the lowest address */
        home->slabs[i].home = home;
        home->slabs[i].number = i;
        file_slab(o, home, i);
    }
    atomic_store_explicit(&s->twin, home, memory_order_release);
    return 0;
}

int small_segment_read_next(struct small *o)
{
    struct segment *s = o->unread;
    int code = read_segment(o, s);
    if (code != 0)
        return code;
    o->unread = s->next_free;
    s->next_free = NULL;
    return 0;
}

/* One segment out of the order of the list. */
static int read_this(struct small *o, struct segment *s)
{
    for (struct segment **link = &o->unread; *link != NULL; link = &(*link)->next_free)
        if (*link == s) {
            int code = read_segment(o, s);
            if (code != 0)
                return code;
            *link = s->next_free;
            s->next_free = NULL;
            return 0;
        }
    return error_set(PA_EINVAL, "segment %u does not belong to this core", s->slot);
}

int small_read_all(struct small *o)
{
    while (o->unread != NULL) {
        int code = small_segment_read_next(o);
        if (code != 0)
            return code;
    }
    return 0;
}

void small_segment_forget(struct small *o, struct small_segment *home)
{
    atomic_store_explicit(&home->segment->twin, NULL, memory_order_release);
    o->dram_bytes -= twin_bytes(home->slab_count);
    free(home);
}

/* Slab and block number of an offset by the class that the media show; false if no block of it starts there. */
static bool locate(const struct manager *m, const struct segment *s, uint64_t offset, uint32_t *ret_slab,
                   uint32_t *ret_block, unsigned *ret_class)
{
    uint64_t first = small_first_slab_of(m->geometry.segment_size);
    if (offset < first || offset >= m->geometry.segment_size)
        return false;
    uint32_t slab = (uint32_t)((offset - first) / SLAB_BYTES);
    uint32_t within = (uint32_t)((offset - first) % SLAB_BYTES);
    unsigned class_index = slab_line_class(segment_lines(m, s) + (size_t)slab * SLAB_LINES);
    if (class_index >= SMALL_CLASSES)
        return false;
    uint32_t bytes = small_class_bytes(class_index);
    uint32_t block = within / bytes;
    *ret_slab = slab;
    *ret_block = block;
    *ret_class = class_index;
    return block * bytes == within && block < small_class_blocks(class_index);
}

static int not_allocated(pa_pptr p)
{
    return error_set(PA_EINVAL,
                     "segment %llu offset %llu is not the start of an allocated block; it was freed before, or the "
                     "pointer is wrong",
                     (unsigned long long)p.segment, (unsigned long long)p.offset);
}

int small_segment_locate(struct small *o, struct segment *s, pa_pptr p, enum small_owner owner,
                         struct small_slab **ret_slab, uint32_t *ret_block)
{
    struct small_segment *home = atomic_load_explicit(&s->twin, memory_order_relaxed);
    if (__builtin_expect(home == NULL, 0)) {
        int code = read_this(o, s);
        if (code != 0)
            return code;
        home = atomic_load_explicit(&s->twin, memory_order_relaxed);
    }
    uint32_t number, block;
    unsigned class_index;
    if (!locate(o->manager, s, p.offset, &number, &block, &class_index) ||
        (owner == SMALL_OWNER_USER) != (class_index < SMALL_USER_CLASSES))
        return not_allocated(p);
    struct small_slab *slab = &home->slabs[number];
    if (slab->state == SLAB_BAD)
        return error_set(PA_ECORRUPT, "%s/%s: slab %u is damaged, its blocks cannot be freed; have the pool repaired",
                         o->manager->dir->path, s->file.name, number);
    if (slab->state == SLAB_FREE || slab->format_pending || slab->class_index != class_index ||
        !slab_block_is_allocated(slab_lines(slab), block))
        return not_allocated(p);
    *ret_slab = slab;
    *ret_block = block;
    return 0;
}

size_t small_usable_size(const struct manager *m, const struct segment *s, uint64_t offset)
{
    uint32_t slab, block;
    unsigned class_index;
    if (!locate(m, s, offset, &slab, &block, &class_index) || class_index >= SMALL_USER_CLASSES)
        return 0;
    return slab_block_is_allocated(segment_lines(m, s) + (size_t)slab * SLAB_LINES, block)
               ? small_class_bytes(class_index)
               : 0;
}

bool small_holds(const struct manager *m, const struct segment *s, uint64_t offset, unsigned class_index)
{
    uint32_t slab, block;
    unsigned found;
    return locate(m, s, offset, &slab, &block, &found) && found == class_index &&
           slab_block_is_allocated(segment_lines(m, s) + (size_t)slab * SLAB_LINES, block);
}

bool small_snapshot(const struct manager *m, const struct segment *s, uint32_t slab, uint64_t *ret_bits,
                    unsigned *ret_class)
{
    const struct pm_slab_line *lines = segment_lines(m, s) + (size_t)slab * SLAB_LINES;
    uint32_t allocated = 0;
    if (!slab_is_valid(lines, slab, &allocated) || allocated == 0)
        return false;
    *ret_class = slab_line_class(&lines[0]);
    if (*ret_class >= SMALL_USER_CLASSES)
        return false;
    for (uint32_t i = 0; i < small_class_lines(*ret_class); i++)
        memcpy(ret_bits + i * SLAB_LINE_WORDS, lines[i].bits, sizeof lines[i].bits);
    return true;
}

static int visit_slab(const struct manager *m, const struct segment *s, uint32_t slab,
                      int (*visit)(pa_off off, void *arg), void *arg)
{
    const struct pm_slab_line *lines = segment_lines(m, s) + (size_t)slab * SLAB_LINES;
    unsigned class_index = slab_line_class(&lines[0]);
    pa_off first =
        ((pa_off)s->slot << m->shift) + small_first_slab_of(m->geometry.segment_size) + (uint64_t)slab * SLAB_BYTES;
    int result = 0;
    for (uint32_t block = 0; result == 0 && block < small_class_blocks(class_index); block++)
        if (slab_block_is_allocated(lines, block))
            result = visit(first + (uint64_t)block * small_class_bytes(class_index), arg);
    return result;
}

int small_foreach_library(const struct manager *m, const struct segment *s, int (*visit)(pa_off off, void *arg),
                          void *arg)
{
    int result = 0;
    for (uint32_t slab = 0; result == 0 && slab < small_slabs_of(m->geometry.segment_size); slab++) {
        unsigned class_index = slab_line_class(segment_lines(m, s) + (size_t)slab * SLAB_LINES);
        if (class_index == SMALL_CLASS_LEAF || class_index == SMALL_CLASS_INDEX)
            result = visit_slab(m, s, slab, visit, arg);
    }
    return result;
}

int small_check_segment(const struct manager *m, const struct segment *s)
{
    const struct pm_slab_line *lines = segment_lines(m, s);
    for (uint32_t i = 0; i < small_slabs_of(m->geometry.segment_size); i++) {
        uint32_t allocated = 0;
        const struct pm_slab_line *slab = lines + (size_t)i * SLAB_LINES;
        const char *what = NULL;
        if (!slab_is_valid(slab, i, &allocated))
            what = "are damaged";
        else if (allocated != 0 && atomic_load(&s->kind) != SEGMENT_KIND_SMALL)
            what = "tell of blocks, but the segment table does not call this a segment with slabs";
        if (what != NULL)
            return error_set(PA_ECORRUPT,
                             "%s/%s: the metadata of slab %u (offset %llu) %s; restore the file from a backup",
                             m->dir->path, s->file.name, i,
                             (unsigned long long)(SEGMENT_HEADER_BYTES + (uint64_t)i * SLAB_META_BYTES), what);
    }
    return 0;
}

uint32_t small_line_above(const struct manager *m, const struct segment *s, uint64_t lsn)
{
    const struct pm_slab_line *lines = segment_lines(m, s);
    for (uint32_t k = 0; k < small_slabs_of(m->geometry.segment_size); k++) {
        unsigned class_index = slab_line_class(&lines[(size_t)k * SLAB_LINES]);
        for (uint32_t i = 0; class_index < SMALL_CLASS_TAGS && i < small_class_lines(class_index); i++) {
            const struct pm_slab_line *line = &lines[(size_t)k * SLAB_LINES + i];
            if (line->lsn > lsn && slab_line_is_valid(line, k, i))
                return k;
        }
    }
    return UINT32_MAX;
}

/* --- recovery ------------------------------------------------------------------------------------------------------------- */

int small_redo(const struct manager *m, struct media_tally *t, const struct pm_lane_entry *e, unsigned lane_number)
{
    pa_pptr p = manager_pptr(m, e->block);
    struct segment *s = manager_segment(m, p.segment);
    if (!segment_is_present(s) || atomic_load(&s->kind) != SEGMENT_KIND_SMALL)
        return 0; /* the segment was given back after this entry, with all its lines durable */
    if (e->lsn <= segment_header(s)->born)
        return 0; /* and its file deleted: this is another one */
    uint64_t first = small_first_slab_of(m->geometry.segment_size);
    bool hole = e->op == LANE_OP_SMALL_HOLE;
    if ((hole ? e->class_index != SMALL_CLASS_HOLE : e->class_index >= SMALL_CLASSES) || p.offset < first)
        return lane_refuse_entry(e, lane_number, "it names no block");
    uint32_t bytes = hole ? SLAB_BYTES : small_class_bytes(e->class_index);
    uint32_t within = (uint32_t)((p.offset - first) % SLAB_BYTES);
    struct slab_change c = {.lsn = e->lsn,
                            .slab_number = (uint32_t)((p.offset - first) / SLAB_BYTES),
                            .block = within / bytes,
                            .class_index = e->class_index,
                            .alloc = e->op == LANE_OP_SMALL_ALLOC,
                            .format = (e->flags & LANE_FLAG_FORMAT) != 0};
    if (within % bytes != 0 || (!hole && c.block >= small_class_blocks(e->class_index)) ||
        (c.format && c.alloc == hole))
        return lane_refuse_entry(e, lane_number, "it names no block");
    c.lines = segment_lines(m, s) + (size_t)c.slab_number * SLAB_LINES;
    if (!c.format && c.lines[slab_line_of(c.block)].lsn < e->lsn && !slab_line_explained(m->media, &c))
        return error_set(PA_ECORRUPT, "%s/%s: the metadata of slab %u is damaged; restore the file from a backup",
                         m->dir->path, s->file.name, c.slab_number);
    slab_redo(m->media, &c);
    uint32_t from = c.format ? 0 : slab_line_of(c.block);
    uint32_t count = c.format ? small_class_lines(c.class_index) : 1;
    media_flush(m->media, t, &c.lines[from], (size_t)count * MEDIA_LINE_BYTES);
    return 0;
}

/* --- assertions ----------------------------------------------------------------------------------------------------------- */

static bool list_is_valid(const struct slab_list *list, enum slab_state state, uint32_t *ret_length)
{
    *ret_length = 0;
    for (const struct small_slab *slab = list->first; slab != NULL; slab = slab->next, ++*ret_length)
        if (slab->state != state || (slab->next != NULL && slab->next->previous != slab))
            return false;
    return true;
}

bool small_is_valid(const struct small *o)
{
    uint32_t length;
    if (!list_is_valid(&o->free_list, SLAB_FREE, &length) || length + o->hole_slabs != o->free_slabs)
        return false;
    if (!list_is_valid(&o->hole_list, SLAB_FREE, &length) || length != o->hole_slabs)
        return false;
    for (unsigned c = 0; c < SMALL_CLASSES; c++) {
        if (!list_is_valid(&o->partial[c], SLAB_PARTIAL, &length))
            return false;
        const struct small_slab *slab = o->current[c];
        if (slab != NULL && (slab->state != SLAB_CURRENT || slab->class_index != c))
            return false;
    }
    return true;
}
