/* SPDX-License-Identifier: BSD-3-Clause */
/* small_segment.h -- the small allocator's view of a segment: reading it, finding blocks in it. For small/ only. */
#ifndef SMALL_SMALL_SEGMENT_H
#define SMALL_SMALL_SEGMENT_H

#include "small/small.h"

static inline struct pm_slab_line *slab_lines(const struct small_slab *slab)
{
    return slab->home->lines + (size_t)slab->number * SLAB_LINES;
}
/** Byte offset of the slab in its segment. */
static inline uint64_t slab_offset(const struct manager *m, const struct small_slab *slab)
{
    return m->geometry.segment_size - (uint64_t)(slab->home->slab_count - slab->number) * SLAB_BYTES;
}
static inline void slab_list_push(struct slab_list *list, struct small_slab *slab)
{
    slab->previous = NULL;
    slab->next = list->first;
    if (list->first != NULL)
        list->first->previous = slab;
    list->first = slab;
}
static inline void slab_list_remove(struct slab_list *list, struct small_slab *slab)
{
    if (slab->previous != NULL)
        slab->previous->next = slab->next;
    else
        list->first = slab->next;
    if (slab->next != NULL)
        slab->next->previous = slab->previous;
    slab->next = slab->previous = NULL;
}

/** As slab_offset, from the pool's first byte. */
static inline pa_off slab_off(const struct manager *m, const struct small_slab *slab)
{
    return ((pa_off)slab->home->segment->slot << m->shift) + slab_offset(m, slab);
}
static inline void small_list_free(struct small *o, struct small_slab *slab)
{
    slab->state = SLAB_FREE;
    slab_list_push(slab->hole ? &o->hole_list : &o->free_list, slab);
    o->hole_slabs += slab->hole;
    o->free_slabs++;
    slab->home->free_slabs++;
}
static inline void small_unlist_free(struct small *o, struct small_slab *slab)
{
    slab_list_remove(slab->hole ? &o->hole_list : &o->free_list, slab);
    o->hole_slabs -= slab->hole;
    o->free_slabs--;
    slab->home->free_slabs--;
}

/** Read the lines of the first unread segment into lists and counts. PA_ENOMEM. Slabs with damaged lines become bad. */
int small_segment_read_next(struct small *o);
/** Drop the twin of an owned segment. */
void small_segment_forget(struct small *o, struct small_segment *home);
/** The slab and number of the allocated block that p names; reads the segment if it is unread. PA_EINVAL, PA_ECORRUPT. */
int small_segment_locate(struct small *o, struct segment *s, pa_pptr p, enum small_owner owner,
                         struct small_slab **ret_slab, uint32_t *ret_block);
static inline void small_count_blocks(struct small *o, unsigned class_index, int64_t blocks)
{
    if (class_index >= SMALL_USER_CLASSES)
        return;
    o->allocated_blocks += (uint64_t)blocks;
    o->allocated_bytes += (uint64_t)(blocks * small_class_bytes(class_index));
}

#endif
