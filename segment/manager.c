/* SPDX-License-Identifier: BSD-3-Clause */
/* manager.c -- which segment belongs to whom: table, free list, limits. See segment.h. */
#include <stdlib.h>

#include "base/error.h"
#include "segment/provider.h"

void manager_publish(struct manager *m, struct segment *s)
{
    for (uint32_t slot = s->slot; slot < s->slot + s->slots; slot++) {
        struct segment *old = atomic_load_explicit(&m->segments[slot], memory_order_relaxed);
        if (old != NULL && old != s) { /* its file is gone, but a stale pointer may still lead here */
            old->next_free = m->retired;
            m->retired = old;
        }
        atomic_store_explicit(&m->segments[slot], s, memory_order_release);
    }
    if (s->slot + s->slots > atomic_load_explicit(&m->slots_end, memory_order_relaxed))
        atomic_store_explicit(&m->slots_end, s->slot + s->slots, memory_order_release);
}

/* The slots that a huge file covers after its first have words of zero. */
static int check_run(const struct manager *m, uint32_t slot, uint64_t word)
{
    uint32_t more = segment_word_more_slots(word);
    bool free_after = more < m->geometry.slots - slot;
    for (uint32_t i = 1; free_after && i <= more; i++)
        free_after = m->table[slot + i] == 0;
    if (!free_after)
        return error_set(PA_ECORRUPT,
                         "%s/" POOL_FILE_NAME ": slots that huge file %u covers belong to others too; restore the "
                         "file from a backup",
                         m->dir->path, slot);
    if (slot + more >= m->slots)
        return error_set(PA_ENOMEM,
                         "the address range for %s ends before huge file %u does; raise the limit (ulimit -v)",
                         m->dir->path, slot);
    return 0;
}

static int open_huge(struct manager *m, uint32_t slot)
{
    struct segment *s = NULL;
    uint64_t word = m->table[slot];
    int code = manager_huge_open(m, slot, &s);
    if (code != 0)
        return code;
    if (s->slots != segment_word_more_slots(word) + 1) { /* a growth that a crash cut off had claimed more */
        provider_set_word(m, slot,
                          segment_word_long(SEGMENT_STATE_READY, SEGMENT_KIND_HUGE, segment_word_owner(word),
                                            s->slots - 1, slot));
    }
    atomic_init(&s->owner, (uint16_t)segment_word_owner(word));
    atomic_init(&s->kind, SEGMENT_KIND_HUGE);
    return 0;
}

/* One table word at open: map what is ready, finish what a crash cut off. */
static int open_slot(struct manager *m, uint32_t slot)
{
    uint64_t word = m->table[slot];
    int code = segment_word_check(m->dir, word, slot);
    if (code != 0)
        return code;
    if (word == 0)
        return 0;
    if (slot < m->first_slot)
        return error_set(PA_ECORRUPT,
                         "%s/" POOL_FILE_NAME ": slot %u belongs to the pool file but its table word is not zero",
                         m->dir->path, slot);
    if (slot >= m->slots)
        return error_set(PA_ENOMEM, "the address range for %s ends before segment %u; raise the limit (ulimit -v)",
                         m->dir->path, slot);
    if (segment_word_kind(word) == SEGMENT_KIND_HUGE)
        code = check_run(m, slot, word);
    if (code != 0)
        return code;
    if (segment_word_state(word) == SEGMENT_STATE_READY && segment_word_kind(word) == SEGMENT_KIND_HUGE)
        return open_huge(m, slot);
    if (segment_word_state(word) != SEGMENT_STATE_READY)
        return 0; /* a lane may still make it ready; else manager_finish removes it */
    if (segment_word_owner(word) >= m->geometry.lanes)
        return error_set(PA_ECORRUPT,
                         "%s/" POOL_FILE_NAME ": table word of slot %u names owner %u, there are %u; restore the file "
                         "from a backup",
                         m->dir->path, slot, segment_word_owner(word), m->geometry.lanes);
    struct segment *s = segment_new(slot);
    if (s == NULL)
        return PA_ENOMEM;
    code = provider_open(m, s);
    if (code != 0) {
        free(s);
        return code;
    }
    atomic_init(&s->kind, (uint8_t)segment_word_kind(word));
    atomic_init(&s->owner, (uint16_t)segment_word_owner(word));
    manager_publish(m, s);
    m->file_bytes += m->geometry.segment_size;
    m->segment_files++;
    if (segment_word_kind(word) == SEGMENT_KIND_NONE) {
        s->next_free = m->free_list;
        m->free_list = s;
    }
    return 0;
}

int manager_finish(struct manager *m)
{
    int code = 0;
    for (uint32_t slot = m->first_slot; code == 0 && slot < m->slots; slot++) {
        enum segment_state state = segment_word_state(m->table[slot]);
        if (state != SEGMENT_STATE_CREATING && state != SEGMENT_STATE_DELETING)
            continue;
        struct segment *s = manager_segment(m, slot); /* of a huge block that a lane has just freed */
        if (s != NULL)
            file_close(m->dir, &s->file);
        if (!m->media->read_only) /* a snapshot leaves the file and its word alone */
            code = provider_remove_file(m, slot);
        if (code == 0 && s != NULL)
            manager_huge_forget(m, s);
    }
    return code;
}

struct pm_core *manager_core_line(const struct manager *m, uint32_t lane)
{
    return (struct pm_core *)((char *)m->pool_file->address + superblock_cores_offset(&m->geometry)) + lane;
}

/* What a killed process left in caches only, this open has already acted upon; so it must not be lost any more. */
static int make_open_durable(struct manager *m)
{
    if (m->media->read_only)
        return 0;
    media_persist(m->media, &m->tally, m->table, atomic_load(&m->slots_end) * sizeof *m->table);
    return m->media->mode == MEDIA_PROCESS ? 0 : dir_sync(m->dir);
}

int manager_open(struct manager *m, struct dir *d, struct file *pool_file, const struct media *media,
                 const struct pm_superblock *geometry, uint64_t max_size, bool sparse)
{
    *m = (struct manager){.dir = d, .pool_file = pool_file, .media = media, .geometry = *geometry, .sparse = sparse};
    m->table = (uint64_t *)((char *)pool_file->address + geometry->table_offset);
    m->base = d->base;
    m->shift = log2_floor(geometry->segment_size);
    m->first_slot = superblock_own_slots(geometry);
    uint64_t reached = d->reserved_bytes >> m->shift;
    m->slots = reached < geometry->slots ? (uint32_t)reached : geometry->slots;
    m->max_size = max_size != 0 ? max_size : geometry->max_size;
    m->lowest_free_slot = m->first_slot;
    m->file_bytes = geometry->file_bytes;
    lock_init(&m->lock, LOCK_RANK_MANAGER);
    m->segments = calloc(m->slots, sizeof *m->segments);
    if (m->segments == NULL) {
        error_set(PA_ENOMEM, "no memory for the table of %u segments", m->slots);
        manager_close(m);
        return PA_ENOMEM;
    }
    int code = 0;
    for (uint32_t slot = 0; code == 0 && slot < geometry->slots; slot++)
        code = open_slot(m, slot);
    if (code == 0)
        code = make_open_durable(m);
    if (code != 0)
        manager_close(m);
    return code;
}

void manager_close(struct manager *m)
{
    for (uint32_t slot = 0; m->segments != NULL && slot < atomic_load(&m->slots_end); slot++) {
        struct segment *s = atomic_load(&m->segments[slot]);
        if (s != NULL && s->slot == slot) {
            slot += s->slots - 1;
            file_close(m->dir, &s->file);
            free(s->twin);
            free(s);
        }
    }
    while (m->retired != NULL) {
        struct segment *s = m->retired;
        m->retired = s->next_free;
        free(s->twin);
        free(s);
    }
    free(m->segments);
    m->segments = NULL;
    lock_fini(&m->lock);
}

int manager_count_bytes(struct manager *m, uint64_t bytes)
{
    if (m->max_size != 0 && m->file_bytes + bytes > m->max_size)
        return error_set(PA_ENOSPC,
                         "the pool in %s has reached its limit (max_size %llu bytes); free blocks or raise the limit",
                         m->dir->path, (unsigned long long)m->max_size);
    m->file_bytes += bytes;
    return 0;
}

/* Under lock: count a new segment against the limits and take the lowest free slot for it. */
static int claim_slot(struct manager *m, uint32_t *ret_slot)
{
    int code = manager_count_bytes(m, m->geometry.segment_size);
    if (code != 0)
        return code;
    for (uint32_t slot = m->lowest_free_slot; slot < m->slots; slot++)
        if (slot_is_free(m, slot)) {
            m->lowest_free_slot = slot + 1;
            m->segment_files++;
            *ret_slot = slot;
            return 0;
        }
    m->file_bytes -= m->geometry.segment_size;
    return error_set(PA_ENOSPC, "the pool in %s has used its whole address range of %u segments; free blocks",
                     m->dir->path, m->slots);
}

static void unclaim_slot(struct manager *m, uint32_t slot)
{
    if (slot < m->lowest_free_slot)
        m->lowest_free_slot = slot;
    m->file_bytes -= m->geometry.segment_size;
    m->segment_files--;
}

static int create_segment(struct manager *m, enum segment_kind kind, unsigned owner, struct segment **ret)
{
    uint32_t slot = 0;
    int code = claim_slot(m, &slot);
    if (code != 0)
        return code;
    struct segment *s = manager_segment(m, slot);
    if (s == NULL) {
        s = segment_new(slot);
        if (s != NULL)
            manager_publish(m, s);
    }
    code = s == NULL ? PA_ENOMEM : provider_create(m, s, kind, owner);
    if (code != 0)
        unclaim_slot(m, slot);
    else
        *ret = s;
    return code;
}

int manager_acquire(struct manager *m, enum segment_kind kind, unsigned owner, struct segment **ret, uint64_t *ret_lsn)
{
    int code = 0;
    lock_acquire(&m->lock);
    struct segment *s = m->free_list;
    if (s != NULL) {
        m->free_list = s->next_free;
        s->next_free = NULL;
        atomic_store_explicit(&s->owner, (uint16_t)owner, memory_order_relaxed);
        atomic_store_explicit(&s->kind, (uint8_t)kind, memory_order_release);
        provider_set_word(m, s->slot, segment_word(SEGMENT_STATE_READY, kind, owner, s->slot));
        *ret = s;
    } else {
        code = create_segment(m, kind, owner, ret);
    }
    *ret_lsn = m->lsn_floor;
    lock_release(&m->lock);
    return code;
}

void manager_release(struct manager *m, struct segment *s, uint64_t lsn)
{
    lock_acquire(&m->lock);
    if (m->lsn_floor < lsn)
        m->lsn_floor = lsn;
    provider_set_word(m, s->slot, segment_word(SEGMENT_STATE_READY, SEGMENT_KIND_NONE, 0, s->slot));
    atomic_store_explicit(&s->kind, SEGMENT_KIND_NONE, memory_order_release);
    s->next_free = m->free_list;
    m->free_list = s;
    lock_release(&m->lock);
}

static int delete_segment(struct manager *m, struct segment *s)
{
    provider_set_word(m, s->slot, segment_word(SEGMENT_STATE_DELETING, SEGMENT_KIND_NONE, 0, s->slot));
    file_close(m->dir, &s->file);
    int code = provider_remove_file(m, s->slot);
    if (code == 0) /* else the slot stays DELETING and the next open finishes */
        unclaim_slot(m, s->slot);
    return code;
}

void manager_discard(struct manager *m, struct segment *s, uint64_t lsn)
{
    lock_acquire(&m->lock);
    if (m->lsn_floor < lsn)
        m->lsn_floor = lsn;
    atomic_store_explicit(&s->kind, SEGMENT_KIND_NONE, memory_order_release);
    (void)delete_segment(m, s); /* if the unlink fails, the next open finishes it */
    lock_release(&m->lock);
}

/* Open the file for one operation: mapped segments keep no descriptor. */
static int on_range(struct manager *m, pa_off off, uint64_t size,
                    int (*operation)(struct dir *d, struct file *f, uint64_t offset, uint64_t size, const char *site))
{
    struct segment *s = manager_segment(m, off >> m->shift);
    struct file f;
    int code = file_open(m->dir, &f, s->file.name);
    if (code != 0)
        return code;
    code = operation(m->dir, &f, off - ((uint64_t)s->slot << m->shift), size, MEDIA_SITE);
    if (code == 0 && m->media->mode != MEDIA_PROCESS)
        code = file_sync(m->dir, &f); /* before a block of it is handed out: the reservation must not be lost */
    file_close(m->dir, &f);
    return code;
}

int manager_refill(struct manager *m, pa_off off, uint64_t size)
{
    return m->sparse ? 0 : on_range(m, off, size, file_allocate_);
}

int manager_punch(struct manager *m, pa_off off, uint64_t size, uint64_t *ret_released)
{
    const struct segment *s = manager_segment(m, off >> m->shift);
    uint64_t before = 0, after = 0;
    int code = file_resident_bytes(m->dir, &s->file, &before);
    if (code == 0)
        code = on_range(m, off, size, file_punch_);
    if (code == 0)
        code = file_resident_bytes(m->dir, &s->file, &after);
    *ret_released = code == 0 && before > after ? before - after : 0;
    return code;
}

int manager_trim(struct manager *m, uint64_t target, uint64_t *ret_released)
{
    int code = 0;
    *ret_released = 0;
    while (code == 0 && *ret_released < target) {
        lock_acquire(&m->lock); /* for each anew: allocations come in between */
        struct segment *s = m->free_list;
        if (s != NULL) {
            m->free_list = s->next_free;
            code = delete_segment(m, s);
        }
        lock_release(&m->lock);
        if (s == NULL)
            break;
        if (code == 0)
            *ret_released += m->geometry.segment_size;
    }
    return code;
}

uint32_t manager_free_count(struct manager *m)
{
    uint32_t count = 0;
    lock_acquire(&m->lock);
    for (struct segment *s = m->free_list; s != NULL; s = s->next_free)
        count++;
    lock_release(&m->lock);
    return count;
}
