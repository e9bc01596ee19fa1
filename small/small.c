/* SPDX-License-Identifier: BSD-3-Clause */
/* small.c -- allocation and free: which slab, which block, and the protocol. See small.h. */
#include "small/small.h"

#include "base/error.h"
#include "segment/owner.h"
#include "small/small_segment.h"

void small_init(struct small *o, struct core *core, struct manager *m)
{
    *o = (struct small){.core = core, .manager = m};
}

void small_fini(struct small *o)
{
    *o = (struct small){0}; /* twins of segments are freed by the manager */
}

/* --- choosing a slab ------------------------------------------------------------------------------------------------------ */

/* How many unread segments one allocation looks at before it prefers a new segment: bounds the first allocation after open. */
#define UNREAD_PER_REFILL 4u

static struct small_slab *take_partial(struct small *o, unsigned class_index)
{
    struct small_slab *slab = o->partial[class_index].first;
    if (slab != NULL)
        slab_list_remove(&o->partial[class_index], slab);
    return slab;
}

/* A hole only when nothing else is left, and only if the file system still has the space; else *ret stays as it is. */
static int take_hole(struct small *o, struct small_slab **ret)
{
    struct small_slab *slab = o->hole_list.first;
    if (slab == NULL)
        return 0;
    int code = manager_refill(o->manager, slab_off(o->manager, slab), SLAB_BYTES);
    if (code != 0)
        return code == PA_ENOSPC ? 0 : code; /* a new segment may be there yet */
    small_unlist_free(o, slab);
    slab->hole = slab->unpunched = false;
    *ret = slab;
    return 0;
}

static int take_free(struct small *o, unsigned class_index, struct small_slab **ret)
{
    struct small_slab *slab;
    for (;;) {
        int code = 0;
        slab = o->free_list.first;
        if (slab != NULL)
            small_unlist_free(o, slab);
        else
            code = take_hole(o, &slab);
        if (slab == NULL)
            return code;
        if (!slab_is_ahead(slab_lines(slab), small_class_lines(class_index), o->core->lane.lsn))
            break;
        slab->state =
            SLAB_BAD; /* lines that its present class does not use are damaged; formatting would pass them over */
    }
    slab->format_pending = slab->format_pending || slab->class_index != class_index; /* of a hole, too */
    slab->class_index = (uint8_t)class_index;
    slab->free_blocks = (uint16_t)small_class_blocks(class_index);
    slab->hint = 0;
    *ret = slab;
    return 0;
}

/* From what was read; *ret = NULL if there is nothing. */
static int take_read(struct small *o, unsigned class_index, struct small_slab **ret)
{
    *ret = take_partial(o, class_index);
    return *ret != NULL ? 0 : take_free(o, class_index, ret);
}

/* Reads unread segments until one has a slab for the class, at most limit. */
static int read_until_found(struct small *o, unsigned class_index, uint32_t limit, struct small_slab **ret)
{
    while (*ret == NULL && o->unread != NULL && limit-- > 0) {
        int code = small_segment_read_next(o);
        if (code == 0)
            code = take_read(o, class_index, ret);
        if (code != 0)
            return code;
    }
    return 0;
}

static int add_segment(struct small *o)
{
    struct segment *s = NULL;
    uint64_t lsn = 0;
    struct error_text before;
    error_save(&before);
    int code = manager_acquire(o->manager, SEGMENT_KIND_SMALL, o->core->index, &s, &lsn);
    if (code == PA_ENOSPC) /* others may have room; who finds that nobody has, says so */
        error_restore(&before);
    if (code != 0)
        return code;
    lane_raise(&o->core->lane, lsn);
    small_adopt(o, s);
    return small_segment_read_next(o);
}

static int find_slab(struct small *o, unsigned class_index, enum small_growth growth, struct small_slab **ret)
{
    int code = take_read(o, class_index, ret);
    if (code == 0)
        code = read_until_found(o, class_index, growth == SMALL_GROW ? UNREAD_PER_REFILL : UINT32_MAX, ret);
    if (code != 0 || *ret != NULL)
        return code;
    code = growth == SMALL_GROW ? add_segment(o) : PA_ENOSPC;
    if (code == 0)
        code = take_read(o, class_index, ret);
    if (code == PA_ENOSPC && growth == SMALL_GROW) {
        int read_code = read_until_found(o, class_index, UINT32_MAX, ret);
        if (*ret != NULL || read_code != 0)
            return read_code;
    }
    if (code == 0 && *ret == NULL)
        code = error_set(PA_ECORRUPT, "a new segment has no usable slab; check the pool");
    return code;
}

/* The class gets a current slab with a free block. */
static int refill(struct small *o, unsigned class_index, enum small_growth growth)
{
    struct small_slab *slab = NULL;
    int code = find_slab(o, class_index, growth, &slab);
    if (code != 0)
        return code;
    struct small_slab *old = o->current[class_index];
    if (old != NULL)
        old->state = SLAB_FULL;
    slab->state = SLAB_CURRENT;
    o->current[class_index] = slab;
    return 0;
}

/* --- choosing a block ----------------------------------------------------------------------------------------------------- */

#define NO_BLOCK UINT32_MAX

/* Lowest free block; advances the hint. */
static uint32_t find_block(struct small_slab *slab)
{
    if (slab->format_pending)
        return 0;
    const struct pm_slab_line *lines = slab_lines(slab);
    uint32_t blocks = small_class_blocks(slab->class_index);
    for (uint32_t word = slab->hint; word * 64 < blocks; word++) {
        uint64_t free = ~lines[word / SLAB_LINE_WORDS].bits[word % SLAB_LINE_WORDS];
        if (free == 0)
            continue;
        slab->hint = (uint8_t)word;
        uint32_t block = word * 64 + (uint32_t)__builtin_ctzll(free);
        return block < blocks ? block : NO_BLOCK;
    }
    return NO_BLOCK;
}

/* Current slab of the class and its lowest free block. */
static int choose(struct small *o, unsigned class_index, enum small_growth growth, struct small_slab **ret_slab,
                  uint32_t *ret_block)
{
    for (;;) {
        struct small_slab *slab = o->current[class_index];
        if (__builtin_expect(slab == NULL || slab->free_blocks == 0, 0)) {
            int code = refill(o, class_index, growth);
            if (code != 0)
                return code;
            slab = o->current[class_index];
        }
        uint32_t block = find_block(slab);
        if (__builtin_expect(block != NO_BLOCK, 1)) {
            *ret_slab = slab;
            *ret_block = block;
            return 0;
        }
        slab->state = SLAB_BAD; /* its bits disagree with what we read before: somebody else wrote them */
        o->current[class_index] = NULL;
    }
}

/* --- the protocol --------------------------------------------------------------------------------------------------------- */

static void touch(struct small *o, struct media_tally *t, struct small_slab *slab, const struct slab_change *c)
{
    struct lane *lane = &o->core->lane;
    if (!c->format) {
        uint32_t number = slab_line_of(c->block);
        lane_touch(lane, t, &c->lines[number], &slab->memo[number]);
        return;
    }
    for (uint32_t number = 0; number < small_class_lines(c->class_index); number++)
        lane_touch(lane, t, &c->lines[number], &slab->memo[number]);
}

/*
 * Allocation, strict guarantee.
 *
 * step                                 | durable after it      | a crash here recovers by
 * -------------------------------------+-----------------------+----------------------------------------------------------
 * 1 entry {alloc, block, dst}, fence   | the intent            | torn: nothing happened
 * 2 dst = block, write-back started    | maybe half of dst     | redo: bit set, dst = block
 * 3 bit set in place, not written back | maybe                 | redo
 * 4 fence                              | dst                   | redo
 * 5 DONE entry, fence                  | the end               | redo of the bit only; dst belongs to the caller again
 *
 * Without the fence in 1 dst could name a block that is free after the crash; without the one in 4 DONE could be durable and
 * dst not: a leak; without the one in 5 the caller could move the pointer and recovery would set it again.
 */
static int alloc(struct small *o, unsigned class_index, pa_pptr *dst, enum small_growth growth, bool blank)
{
    struct small_slab *slab;
    uint32_t block;
    int code = choose(o, class_index, growth, &slab, &block);
    if (__builtin_expect(code != 0, 0))
        return code;

    const struct media *media = o->manager->media;
    struct lane *lane = &o->core->lane;
    struct media_tally t = {0};
    uint64_t offset = slab_offset(o->manager, slab) + (uint64_t)block * small_class_bytes(class_index);
    pa_pptr pointer = {slab->home->segment->slot, offset};
    _Alignas(64) struct pm_lane_entry e = {.op = LANE_OP_SMALL_ALLOC,
                                           .class_index = (uint8_t)class_index,
                                           .flags = slab->format_pending ? LANE_FLAG_FORMAT : 0,
                                           .block = manager_off(o->manager, pointer),
                                           .dst = (uint64_t)((char *)dst - o->manager->base)};
    if (__builtin_expect(blank, 0)) {
        char *address = o->manager->base + e.block;
        media_set(media, address, 0, SMALL_BLANK_BYTES);
        media_persist(media, &t, address,
                      SMALL_BLANK_BYTES); /* before the entry: else recovery may give dst a block with old bytes */
    }
    lane_append(lane, &t, &e);
    lane_commit(lane, &t);

    owner_store(media, &t, dst, pointer);
    struct slab_change c = {slab_lines(slab),     e.lsn, slab->number,        block,
                            (uint8_t)class_index, true,  slab->format_pending};
    slab_redo(media, &c);
    touch(o, &t, slab, &c); /* before DONE: the note belongs to the entry's quarter of the ring */
    media_drain(media, &t);
    lane_done(lane, &t);

    slab->format_pending = false;
    slab->free_blocks--;
    small_count_blocks(o, class_index, 1);
    media_tally_add(&o->core->tally, &t);
    return 0;
}

int small_alloc(struct small *o, unsigned class_index, pa_pptr *dst, enum small_growth growth)
{
    return alloc(o, class_index, dst, growth, class_index == SMALL_CLASS_INDEX);
}

int small_alloc_blank(struct small *o, unsigned class_index, pa_pptr *dst, enum small_growth growth)
{
    return alloc(o, class_index, dst, growth, true);
}

static void give_back_segment(struct small *o, struct small_segment *home)
{
    bool holes = false;
    for (uint32_t i = 0; i < home->slab_count; i++) {
        holes = holes || home->slabs[i].hole;
        small_unlist_free(o, &home->slabs[i]);
    }
    struct media_tally t = {0};
    lane_settle(&o->core->lane, &t); /* no entry of ours is needed for the segment any more */
    media_tally_add(&o->core->tally, &t);
    struct segment *s = home->segment;
    small_segment_forget(o, home);
    if (holes) /* the free list promises reserved space */
        manager_discard(o->manager, s, o->core->lane.lsn);
    else
        manager_release(o->manager, s, o->core->lane.lsn);
}

/* Current slabs without a block go to the free slabs, so that their segment can be given back. */
static void retire_empty_currents(struct small *o)
{
    for (unsigned c = 0; c < SMALL_CLASSES; c++) {
        struct small_slab *slab = o->current[c];
        if (slab == NULL || slab->free_blocks < small_class_blocks(c))
            continue;
        o->current[c] = NULL;
        small_list_free(o, slab);
    }
}

static struct small_segment *find_free_segment(const struct slab_list *list)
{
    for (const struct small_slab *slab = list->first; slab != NULL; slab = slab->next)
        if (slab->home->free_slabs == slab->home->slab_count)
            return slab->home;
    return NULL;
}

void small_release_free(struct small *o)
{
    struct small_segment *home;
    retire_empty_currents(o);
    while ((home = find_free_segment(&o->free_list)) != NULL || (home = find_free_segment(&o->hole_list)) != NULL)
        give_back_segment(o, home);
}

/*
 * Giving a free slab's space back.
 *
 * step                                 | durable after it | a crash here recovers by
 * -------------------------------------+------------------+---------------------------------------------------------------
 * 1 entry {hole, slab}, fence          | the announcement | redo: the slab's first line says hole
 * 2 first line in place                | maybe            | redo if it is older
 * 3 hole punched                       | maybe            | nothing: a hole that is filled is harmless
 */
static void announce_hole(struct small *o, struct small_slab *slab)
{
    struct media_tally t = {0};
    struct lane *lane = &o->core->lane;
    _Alignas(64) struct pm_lane_entry e = {.op = LANE_OP_SMALL_HOLE,
                                           .class_index = SMALL_CLASS_HOLE,
                                           .flags = LANE_FLAG_FORMAT,
                                           .block = slab_off(o->manager, slab)};
    lane_append(lane, &t, &e);
    lane_commit(lane, &t); /* before the hole: a slab that is taken again must know that it has to be filled */
    struct slab_change c = {slab_lines(slab), e.lsn, slab->number, 0, SMALL_CLASS_HOLE, false, true};
    slab_redo(o->manager->media, &c);
    touch(o, &t, slab, &c);
    media_tally_add(&o->core->tally, &t);
    small_unlist_free(o, slab);
    slab->class_index = SMALL_CLASS_HOLE;
    slab->format_pending = false;
    slab->hole = true;
    small_list_free(o, slab);
}

int small_punch(struct small *o, uint64_t *ret_released, bool *ret_any)
{
    struct small_slab *slab = o->free_list.first;
    if (slab != NULL)
        announce_hole(o, slab);
    else
        for (slab = o->hole_list.first; slab != NULL && !slab->unpunched;)
            slab = slab->next;
    *ret_released = 0;
    *ret_any = slab != NULL;
    if (slab == NULL)
        return 0;
    int code = manager_punch(o->manager, slab_off(o->manager, slab), SLAB_BYTES, ret_released);
    slab->unpunched = code != 0;
    return code;
}

/* A block of the slab was freed: the slab may change lists, the segment its owner. */
static void after_free(struct small *o, struct small_slab *slab)
{
    slab->free_blocks++;
    if (slab->state == SLAB_CURRENT || slab->state == SLAB_BAD)
        return;
    if (slab->state == SLAB_FULL) {
        slab->state = SLAB_PARTIAL;
        slab_list_push(&o->partial[slab->class_index], slab);
    }
    if (slab->free_blocks < small_class_blocks(slab->class_index))
        return;
    struct small_segment *home = slab->home;
    slab_list_remove(&o->partial[slab->class_index], slab);
    small_list_free(o, slab);
    /* Keep a quarter of a segment's slabs in reserve, so that a block freed and allocated in turn moves no segment. */
    if (home->free_slabs == home->slab_count && o->free_slabs - home->slab_count >= home->slab_count / 4)
        give_back_segment(o, home);
}

/*
 * Free, strict guarantee.
 *
 * step                                  | durable after it | a crash here recovers by
 * --------------------------------------+------------------+--------------------------------------------------------------
 * 1 entry {free, block, dst}, fence     | the decision     | torn: nothing happened
 * 2 dst = null, write-back started      | maybe half       | redo: bit cleared, dst nulled if it still names the block
 * 3 bit cleared in place                | maybe            | redo
 * 4 fence                               | dst              | redo of the bit; dst no longer names the block
 *
 * No DONE entry: redoing the null is harmless for as long as this is the lane's newest entry, because the block can be
 * named again only after a newer entry in this lane has allocated it (or after a settle, if it changes lanes).
 */
int small_free(struct small *o, struct segment *s, pa_pptr *dst, enum small_owner owner,
               const struct owner_staging *staging)
{
    struct small_slab *slab = NULL;
    uint32_t block = 0;
    int code = small_segment_locate(o, s, *dst, owner, &slab, &block);
    if (__builtin_expect(code != 0, 0))
        return code;

    const struct media *media = o->manager->media;
    struct lane *lane = &o->core->lane;
    struct media_tally t = {0};
    _Alignas(64) struct pm_lane_entry e = {.op = LANE_OP_SMALL_FREE,
                                           .class_index = slab->class_index,
                                           .block = manager_off(o->manager, *dst),
                                           .dst = (uint64_t)((char *)dst - o->manager->base)};
    owner_staging_note(&e, staging);
    lane_append(lane, &t, &e);
    lane_commit(lane, &t);

    owner_release(media, &t, dst, staging);
    struct slab_change c = {slab_lines(slab), e.lsn, slab->number, block, slab->class_index, false, false};
    slab_redo(media, &c);
    touch(o, &t, slab, &c);
    media_drain(media, &t); /* before the caller may reuse dst's memory: recovery compares it with the block */
    if (staging != NULL)
        lane_done(lane, &t); /* before the staging owner is used again */

    uint32_t word = block / 64;
    if (word < slab->hint)
        slab->hint = (uint8_t)word;
    small_count_blocks(o, slab->class_index, -1);
    media_tally_add(&o->core->tally, &t);
    after_free(o, slab);
    return 0;
}

size_t small_largest_free(const struct small *o)
{
    if (o->free_list.first != NULL)
        return SMALL_SIZE_MAX;
    for (unsigned c = SMALL_USER_CLASSES; c-- > 0;)
        if (o->partial[c].first != NULL || (o->current[c] != NULL && o->current[c]->free_blocks != 0))
            return small_class_bytes(c);
    return 0;
}
