/* SPDX-License-Identifier: BSD-3-Clause */
/* manager.c -- which segment belongs to whom: table, free list, limits. See segment.h; open is in manager_open.c. */
#include <stdlib.h>

#include "base/error.h"
#include "pmem/valgrind.h"
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

struct pm_core *manager_core_line(const struct manager *m, uint32_t lane)
{
    return (struct pm_core *)((char *)m->pool_file->address + superblock_cores_offset(&m->geometry)) + lane;
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
    pthread_cond_destroy(&m->gone);
    pthread_cond_destroy(&m->made);
    lock_fini(&m->lock);
}

void manager_leave_to_parent(struct manager *m)
{
    for (uint32_t slot = atomic_load(&m->slots_end);
         slot-- > 0;) { /* downwards: a huge block's first slot comes last */
        struct segment *s = atomic_load(&m->segments[slot]);
        if (s == NULL || s->slot != slot)
            continue;
        free(s->twin);
        free(s);
    }
    free(m->segments);
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

/* Under lock: count a new segment against the limits and take the lowest free slot for it; directory: see slot_is_in. */
static int claim_slot(struct manager *m, int directory, uint32_t *ret_slot)
{
    int code = manager_count_bytes(m, m->geometry.segment_size);
    if (code != 0)
        return code;
    for (uint32_t slot = m->lowest_free_slot; slot < m->slots; slot++)
        if (slot_is_free(m, slot) && slot_is_in(m, slot, directory)) {
            if (directory == ANY_DIRECTORY || slot == m->lowest_free_slot)
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

/* Under lock, which is released while the file system works: the claimed slot is nobody else's. */
static int create_segment_in(struct manager *m, int directory, enum segment_kind kind, unsigned owner,
                             struct segment **ret)
{
    uint32_t slot = 0;
    struct media_tally t = {0};
    int code = claim_slot(m, directory, &slot);
    if (code != 0)
        return code;
    struct segment *s = manager_segment(m, slot);
    if (s == NULL) {
        s = segment_new(slot);
        if (s != NULL)
            manager_publish(m, s);
    }
    if (s == NULL) {
        unclaim_slot(m, slot);
        return PA_ENOMEM;
    }
    uint64_t born = m->lsn_floor;   /* what this slot held before was released earlier */
    provider_announce(m, &t, slot); /* under lock: from here on nobody else takes the slot */
    lock_release(&m->lock);
    code = provider_create(m, &t, s, kind, owner, born);
    if (code == 0) { /* nothing is allocated in it */
        uint64_t data = segment_data_of(m->geometry.segment_size);
        valgrind_mark_free((char *)s->file.address + data, m->geometry.segment_size - data);
    }
    lock_acquire(&m->lock);
    media_tally_add(&m->tally, &t);
    if (code != 0)
        unclaim_slot(m, slot);
    else
        *ret = s;
    return code;
}

/* One directory's file system may be full, and another's not. */
static int create_segment(struct manager *m, enum segment_kind kind, unsigned owner, struct segment **ret)
{
    int code = create_segment_in(m, ANY_DIRECTORY, kind, owner, ret);
    for (int k = 0; code == PA_ENOSPC && m->geometry.directories != 0 && k <= m->geometry.directories; k++)
        code = create_segment_in(m, k, kind, owner, ret);
    return code;
}

/* --- space that is just becoming free ------------------------------------------------------------------------------------------ */

uint64_t manager_removed(struct manager *m)
{
    lock_acquire(&m->lock);
    uint64_t removed = m->removed;
    lock_release(&m->lock);
    return removed;
}

void manager_note_removal(struct manager *m)
{
    atomic_fetch_sub_explicit(&m->removing, 1, memory_order_relaxed);
    m->removed++;
    pthread_cond_broadcast(&m->gone);
}

/* Under lock. Whoever removes a file waits for nobody that may wait here, so a core may be locked. */
static bool await_removal(struct manager *m, uint64_t before)
{
    while (m->removed == before && atomic_load_explicit(&m->removing, memory_order_relaxed) != 0)
        lock_wait(&m->lock, &m->gone);
    return m->removed != before;
}

bool manager_await_removal(struct manager *m, uint64_t before)
{
    lock_acquire(&m->lock);
    bool any = await_removal(m, before);
    lock_release(&m->lock);
    return any;
}

/* --- acquiring and releasing ------------------------------------------------------------------------------------------------ */

/* Under lock. A spare that is being made is waited for by one thread; the others would get it no sooner. */
static struct segment *take_free(struct manager *m)
{
    while (m->free_list == NULL && m->making > m->waiting) {
        m->waiting++;
        lock_wait(&m->lock, &m->made);
        m->waiting--;
    }
    struct segment *s = m->free_list;
    if (s != NULL) {
        m->free_list = s->next_free;
        s->next_free = NULL;
    }
    return s;
}

static void push_free(struct manager *m, struct segment *s)
{
    s->next_free = m->free_list;
    m->free_list = s;
}

/* Under lock. */
static int acquire(struct manager *m, enum segment_kind kind, unsigned owner, struct segment **ret)
{
    struct segment *s = take_free(m);
    if (s == NULL)
        return create_segment(m, kind, owner, ret);
    atomic_store_explicit(&s->owner, (uint16_t)owner, memory_order_relaxed);
    atomic_store_explicit(&s->kind, (uint8_t)kind, memory_order_release);
    provider_set_word(m, &m->tally, s->slot, segment_word(SEGMENT_STATE_READY, kind, owner, s->slot));
    *ret = s;
    return 0;
}

int manager_acquire(struct manager *m, enum segment_kind kind, unsigned owner, struct segment **ret, uint64_t *ret_lsn)
{
    int code;
    uint64_t removed;
    lock_acquire(&m->lock);
    do {
        removed = m->removed;
        code = acquire(m, kind, owner, ret);
    } while (code == PA_ENOSPC && await_removal(m, removed));
    *ret_lsn = m->lsn_floor;
    if (m->free_list == NULL && m->making == 0 && m->spare_wanted != NULL)
        m->spare_wanted(m->spare_context);
    lock_release(&m->lock);
    return code;
}

/* The directories (bit k: members.h) whose file systems have plenty of space. A file that does not fit takes the last of it from
 * others before it is given up. */
static uint64_t roomy_directories(const struct manager *m)
{
    uint64_t roomy = 0;
    for (uint32_t k = 0; k <= m->geometry.directories; k++) {
        char name[32];
        segment_name(name, &m->geometry, k);
        if (m->sparse || dir_free_bytes_of(m->dir, name) / 2 > m->geometry.segment_size)
            roomy |= UINT64_C(1) << k;
    }
    return roomy;
}

/* Under lock: the directory of the lowest free slot that lies in one of these; ANY_DIRECTORY = there is none. */
static int directory_for_spare(const struct manager *m, uint64_t roomy)
{
    for (uint32_t slot = m->lowest_free_slot; roomy != 0 && slot < m->slots; slot++) {
        uint32_t k = slot % (1u + m->geometry.directories);
        if ((roomy >> k & 1) != 0 && slot_is_free(m, slot))
            return (int)k;
    }
    return ANY_DIRECTORY;
}

int manager_make_spare(struct manager *m)
{
    int code = 0;
    struct segment *s = NULL;
    uint64_t roomy = roomy_directories(m);
    lock_acquire(&m->lock);
    int directory = directory_for_spare(m, roomy);
    if (directory != ANY_DIRECTORY && m->free_list == NULL) {
        m->making++;
        code = create_segment_in(m, directory, SEGMENT_KIND_NONE, 0, &s);
        m->making--;
        if (code == 0)
            push_free(m, s);
        pthread_cond_broadcast(&m->made);
    }
    lock_release(&m->lock);
    return code;
}

void manager_release(struct manager *m, struct segment *s, uint64_t lsn)
{
    lock_acquire(&m->lock);
    if (m->lsn_floor < lsn)
        m->lsn_floor = lsn;
    provider_set_word(m, &m->tally, s->slot, segment_word(SEGMENT_STATE_READY, SEGMENT_KIND_NONE, 0, s->slot));
    atomic_store_explicit(&s->kind, SEGMENT_KIND_NONE, memory_order_release);
    push_free(m, s);
    lock_release(&m->lock);
}

/* Under lock, which is released while the file system works: the segment is on no list, and its word keeps the slot. */
static int delete_segment(struct manager *m, struct segment *s)
{
    struct media_tally t = {0};
    manager_file_leaves(m);
    provider_set_word(m, &t, s->slot, segment_word(SEGMENT_STATE_DELETING, SEGMENT_KIND_NONE, 0, s->slot));
    struct file f = file_detach(&s->file); /* pa_get_stats looks at mapped files, under the lock */
    lock_release(&m->lock);
    file_close(m->dir, &f);
    int code = provider_remove_file(m, &t, s->slot);
    lock_acquire(&m->lock);
    media_tally_add(&m->tally, &t);
    if (code == 0) /* else the slot stays DELETING and the next open finishes */
        unclaim_slot(m, s->slot);
    manager_note_removal(m);
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
    int code = file_reopen(m->dir, &f, &s->file, m->geometry.segment_size);
    if (code != 0)
        return code;
    code = operation(m->dir, &f, off - ((uint64_t)s->slot << m->shift), size, MEDIA_SITE);
    if (code == 0 && m->media->mode != MEDIA_PROCESS)
        code = file_sync(m->dir, &f); /* before a block of it is handed out: the reservation must not be lost */
    file_close(m->dir, &f);
    return code;
}

static int nothing(struct dir *d, struct file *f, uint64_t offset, uint64_t size, const char *site)
{
    (void)d, (void)f, (void)offset, (void)size, (void)site;
    return 0;
}

int manager_keep_space(struct manager *m, pa_off off)
{
    return m->sparse || m->media->mode == MEDIA_PROCESS ? 0 : on_range(m, off, 0, nothing);
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
        lock_acquire(&m->lock);                        /* for each anew: allocations come in between */
        while (m->free_list == NULL && m->making != 0) /* a spare that is counted already is space to give back, too */
            lock_wait(&m->lock, &m->made);
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
