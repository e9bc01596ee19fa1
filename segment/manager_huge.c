/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * manager_huge.c -- files of huge blocks: runs of slots, and the steps that make, grow and remove such a file. The protocol that
 * ties them to an owner pointer is in huge/.
 *
 * The manager's lock is held for the table and the counters only, never while the file system works: a claimed run belongs to
 * the thread that claimed it, a block that is being resized or freed to the thread that does so.
 */
#include <stdlib.h>

#include "base/error.h"
#include "segment/provider.h"

/* --- runs of slots -------------------------------------------------------------------------------------------------------- */

struct run {
    uint32_t slot, slots;
    uint64_t file_bytes;
    pa_off block;
};

/* What a block takes if its file begins at slot. */
static struct run run_at(const struct manager *m, uint32_t slot, uint64_t size, uint64_t alignment)
{
    pa_off place = (pa_off)slot << m->shift;
    pa_off block = round_up(place + SEGMENT_HEADER_BYTES, alignment < HUGE_PAGE_BYTES ? HUGE_PAGE_BYTES : alignment);
    uint64_t file_bytes = round_up(block - place + size, HUGE_PAGE_BYTES);
    return (struct run){slot, slots_for(m, file_bytes), file_bytes, block};
}

/* Under lock: the lowest run of free slots that is long enough and begins in the directory. */
static bool find_run(struct manager *m, uint64_t size, uint64_t alignment, int directory, struct run *ret)
{
    while (m->lowest_free_slot < m->slots && !slot_is_free(m, m->lowest_free_slot))
        m->lowest_free_slot++;
    for (uint32_t slot = m->lowest_free_slot; slot < m->slots;) {
        struct run run = run_at(m, slot, size, alignment);
        if (run.slots > m->slots - slot)
            return false;
        uint32_t free = 0;
        while (slot_is_in(m, slot, directory) && free < run.slots && slot_is_free(m, slot + free))
            free++;
        if (free == run.slots) {
            *ret = run;
            return true;
        }
        slot += free + 1;
    }
    return false;
}

/* Under lock: a twin that nobody needs. A stale pointer may lead to it, so whoever comes that way compares kind and block
 * under the core's lock. */
static struct segment *take_twin(struct manager *m, uint32_t slot)
{
    struct segment *s = m->retired;
    if (s == NULL)
        return segment_new(slot);
    m->retired = s->next_free;
    s->next_free = NULL;
    s->slot = slot;
    return s;
}

static void retire(struct manager *m, struct segment *s)
{
    s->next_free = m->retired;
    m->retired = s;
}

/* Under lock: slots from first on are nobody's any more. */
static void unpublish_from(struct manager *m, struct segment *s, uint32_t first)
{
    for (uint32_t slot = first; slot < s->slot + s->slots; slot++)
        atomic_store_explicit(&m->segments[slot], NULL, memory_order_release);
    if (first < m->lowest_free_slot)
        m->lowest_free_slot = first;
}

void manager_huge_forget(struct manager *m, struct segment *s)
{
    unpublish_from(m, s, s->slot);
    m->file_bytes -= s->file.size;
    m->huge_files--;
    retire(m, s);
}

/* --- creation ------------------------------------------------------------------------------------------------------------- */

static int claim_run(struct manager *m, const struct run *run, struct segment **ret)
{
    int code = manager_count_bytes(m, run->file_bytes);
    if (code != 0)
        return code;
    struct segment *s = take_twin(m, run->slot);
    if (s == NULL) {
        m->file_bytes -= run->file_bytes;
        return PA_ENOMEM;
    }
    s->slots = run->slots;
    s->file.size = run->file_bytes;
    s->busy = false;
    atomic_store(&s->block, run->block);
    atomic_store(&s->end, ((pa_off)run->slot << m->shift) + run->file_bytes);
    if (run->slot == m->lowest_free_slot)
        m->lowest_free_slot += run->slots;
    m->huge_files++;
    manager_publish(m, s);
    provider_set_word(m, &m->tally, s->slot,
                      segment_word_long(SEGMENT_STATE_CREATING, SEGMENT_KIND_HUGE, 0, s->slots - 1, s->slot));
    *ret = s;
    return 0;
}

int manager_huge_claim(struct manager *m, uint64_t size, uint64_t alignment, int directory, struct segment **ret)
{
    struct run run;
    if (size > HUGE_SIZE_MAX)
        return error_set(PA_EINVAL, "a block of %llu bytes is larger than a huge file can be (%llu bytes)",
                         (unsigned long long)size, (unsigned long long)HUGE_SIZE_MAX);
    lock_acquire(&m->lock);
    int code = find_run(m, size, alignment, directory, &run)
                   ? claim_run(m, &run, ret)
                   : error_set(PA_ENOSPC,
                               "the pool in %s has no %llu consecutive bytes left in its address "
                               "range; free blocks",
                               m->dir->path, (unsigned long long)size);
    lock_release(&m->lock);
    return code;
}

/* The file is to go, and the slots with it. If it does not go, its word keeps the slots until the next open. */
static int remove_file(struct manager *m, struct segment *s)
{
    char name[32];
    segment_huge_name(name, &m->geometry, s->slot);
    int code = m->media->read_only ? 0 : provider_unlink(m, name);
    if (code != 0)
        return code;
    lock_acquire(&m->lock);
    if (!m->media->read_only) /* a snapshot leaves the file and its word alone */
        provider_set_word(m, &m->tally, s->slot, 0);
    manager_huge_forget(m, s);
    lock_release(&m->lock);
    return 0;
}

int manager_huge_create(struct manager *m, struct segment *s)
{
    char name[32];
    struct file f;
    pa_off place = (pa_off)s->slot << m->shift;
    uint64_t extent = huge_extent(s->file.size, atomic_load(&s->block) - place, s->slot);
    segment_huge_name(name, &m->geometry, s->slot);
    bool left_behind = false;
    int code = provider_make_file(m, &f, name, s->slot, s->file.size, extent, true, &left_behind);
    if (code != 0) {
        struct error_text first;
        error_save(&first);
        (void)remove_file(m, s); /* if that fails too, the word stays CREATING and the next open removes it */
        error_restore(&first);
        return code;
    }
    lock_acquire(&m->lock);
    file_attach(&s->file, &f);
    lock_release(&m->lock);
    return 0;
}

void manager_huge_mark(struct manager *m, struct media_tally *t, uint32_t slot, enum segment_state state,
                       unsigned owner)
{
    uint32_t more = segment_word_more_slots(m->table[slot]);
    media_store64(m->media, &m->table[slot], segment_word_long(state, SEGMENT_KIND_HUGE, owner, more, slot));
    media_flush(m->media, t, &m->table[slot], sizeof m->table[slot]);
}

int manager_huge_open(struct manager *m, uint32_t slot, struct segment **ret)
{
    struct segment *s = take_twin(m, slot);
    if (s == NULL)
        return PA_ENOMEM;
    s->slots = segment_word_more_slots(m->table[slot]) + 1;
    int code = provider_open_huge(m, s);
    if (code != 0) {
        free(s);
        return code;
    }
    s->slots = slots_for(m, atomic_load(&s->end) - ((pa_off)slot << m->shift));
    manager_publish(m, s);
    m->file_bytes += s->file.size;
    m->huge_files++;
    *ret = s;
    return 0;
}

/* --- removal -------------------------------------------------------------------------------------------------------------- */

int manager_huge_remove(struct manager *m, struct segment *s)
{
    lock_acquire(&m->lock);
    struct file f = file_detach(&s->file); /* pa_get_stats looks at mapped files, under the lock */
    lock_release(&m->lock);
    file_close(m->dir, &f);
    int code = remove_file(m, s);
    lock_acquire(&m->lock);
    manager_note_removal(m);
    lock_release(&m->lock);
    return code;
}

/* --- growth --------------------------------------------------------------------------------------------------------------- */

/* Change the slots that the word covers; under lock. */
static void set_slots(struct manager *m, struct segment *s, uint32_t slots)
{
    if (slots == s->slots)
        return;
    if (slots < s->slots)
        unpublish_from(m, s, s->slot + slots);
    s->slots = slots;
    manager_publish(m, s);
    provider_set_word(m, &m->tally, s->slot,
                      segment_word_long(SEGMENT_STATE_READY, SEGMENT_KIND_HUGE, atomic_load(&s->owner), slots - 1,
                                        s->slot));
}

static int claim_growth(struct manager *m, struct segment *s, uint64_t bytes)
{
    uint32_t slots = slots_for(m, bytes);
    bool fits = slots <= m->slots - s->slot;
    for (uint32_t i = s->slots; fits && i < slots; i++)
        fits = slot_is_free(m, s->slot + i);
    if (!fits)
        return error_set(PA_ENOSPC, "the addresses after huge file %u are taken", s->slot);
    uint64_t more = bytes > s->file.size ? bytes - s->file.size : 0;
    int code = manager_count_bytes(m, more);
    if (code != 0)
        return code;
    s->file.size += more;
    set_slots(m, s, slots);
    return 0;
}

/* Give up: the file keeps its content, and whatever size it has got; size, unless the file can be asked. */
static void abandon_growth(struct manager *m, struct segment *s, uint64_t used, uint64_t size)
{
    struct file f;
    if (file_reopen(m->dir, &f, &s->file, used) == 0) {
        size = f.size;
        if (size > used)
            (void)file_punch(m->dir, &f, used, size - used);
        file_close(m->dir, &f);
    }
    lock_acquire(&m->lock);
    m->file_bytes -= s->file.size - size;
    s->file.size = size;
    set_slots(m, s, slots_for(m, used));
    lock_release(&m->lock);
}

/* Space up to bytes and a mapping of it, durable. *ret_size: the file's size, which is kept true on failure too. */
static int extend_file(struct manager *m, struct segment *s, uint64_t used, uint64_t bytes, uint64_t *ret_size)
{
    struct file f;
    uint64_t from = m->sparse ? bytes - HUGE_PAGE_BYTES : used; /* sparse: only the size counts */
    int code = file_reopen(m->dir, &f, &s->file, used);
    if (code != 0)
        return code;
    code = file_allocate(m->dir, &f, from, bytes - from);
    if (code == 0 && *ret_size < bytes)
        *ret_size = bytes;
    if (code == 0)
        code = file_sync(m->dir, &f);
    if (code == 0)
        code = file_map_tail(m->dir, &s->file, &f, used, bytes - used, ((pa_off)s->slot << m->shift) + used);
    file_close(m->dir, &f);
    return code;
}

/*
 * Growth in place. The extent word commits it.
 *
 * step                                    | durable after it          | a crash here recovers by
 * ----------------------------------------+---------------------------+----------------------------------------------------
 * 1 word covers more slots, fence         | the claim                 | open: the word covers what the extent needs
 * 2 space allocated, file sync            | a longer file             | open: as 1, and the space is given back
 * 3 tail mapped                           | -                         | as 2
 * 4 extent = new size, fence              | the growth                | nothing to do
 *
 * Without the sync in 2 the extent could promise bytes that the file has not; without the claim first, another file could
 * begin in slots that this one covers.
 */
int manager_huge_grow(struct manager *m, struct segment *s, uint64_t size)
{
    if (size > HUGE_SIZE_MAX)
        return error_set(PA_ENOSPC, "huge file %u cannot grow to %llu bytes", s->slot, (unsigned long long)size);
    pa_off place = (pa_off)s->slot << m->shift;
    uint64_t lead = atomic_load(&s->block) - place;
    uint64_t used = atomic_load(&s->end) - place;
    uint64_t bytes = round_up(lead + size, HUGE_PAGE_BYTES);
    lock_acquire(&m->lock);
    uint64_t file_bytes = s->file.size;
    int code = claim_growth(m, s, bytes);
    lock_release(&m->lock);
    if (code != 0)
        return code;
    code = extend_file(m, s, used, bytes, &file_bytes);
    if (code != 0) {
        struct error_text first;
        error_save(&first);
        abandon_growth(m, s, used, file_bytes);
        error_restore(&first);
        return code;
    }
    struct media_tally t = {0};
    struct pm_segment_header *h = s->file.address;
    media_store64(m->media, &h->extent, huge_extent(bytes, lead, s->slot));
    media_persist(m->media, &t, &h->extent, sizeof h->extent); /* before the caller uses the room */
    atomic_store(&s->end, place + bytes);
    lock_acquire(&m->lock);
    media_tally_add(&m->tally, &t);
    lock_release(&m->lock);
    return 0;
}
