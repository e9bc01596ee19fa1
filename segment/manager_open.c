/* SPDX-License-Identifier: BSD-3-Clause */
/* manager_open.c -- what the segment table says at open: every word is checked, then the files are opened and mapped by several
 * threads; at last, what a crash cut off is finished. */
#include <stdlib.h>

#include "base/cpu.h"
#include "base/error.h"
#include "base/thread.h"
#include "segment/provider.h"

/* --- the table ------------------------------------------------------------------------------------------------------------ */

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
        provider_set_word(m, &m->tally, slot,
                          segment_word_long(SEGMENT_STATE_READY, SEGMENT_KIND_HUGE, segment_word_owner(word),
                                            s->slots - 1, slot));
    }
    atomic_init(&s->owner, (uint16_t)segment_word_owner(word));
    atomic_init(&s->kind, SEGMENT_KIND_HUGE);
    return 0;
}

/* One table word at open. */
static int read_slot(struct manager *m, uint32_t slot)
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
    uint32_t owners = segment_word_kind(word) == SEGMENT_KIND_BIG ? 2 * m->geometry.lanes : m->geometry.lanes;
    if (segment_word_owner(word) >= owners)
        return error_set(PA_ECORRUPT,
                         "%s/" POOL_FILE_NAME ": table word of slot %u names owner %u, there are %u; restore the file "
                         "from a backup",
                         m->dir->path, slot, segment_word_owner(word), owners);
    struct segment *s = segment_new(slot); /* its file comes later, with all the others */
    if (s == NULL)
        return PA_ENOMEM;
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

/* --- the files ------------------------------------------------------------------------------------------------------------ */

#define OPENERS_MAX      8u
#define FILES_PER_OPENER 256u /* fewer are not worth a thread */
#define SLOTS_AT_A_TIME  64u

/* What the threads share: the next slots to look at, and the first failure. */
struct opening {
    struct manager *m;
    _Atomic uint32_t next;
    _Atomic int code;
    struct lock lock; /* guards error */
    struct error_text error;
};

static void open_some(struct opening *o, uint32_t from, uint32_t to)
{
    for (uint32_t slot = from; slot < to && atomic_load(&o->code) == 0; slot++) {
        struct segment *s = manager_segment(o->m, slot);
        if (s == NULL || atomic_load(&s->kind) == SEGMENT_KIND_HUGE)
            continue;
        int code = provider_open(o->m, s);
        if (code == 0)
            continue;
        lock_acquire(&o->lock);
        if (atomic_load(&o->code) == 0) { /* one finding is enough */
            error_save(&o->error);
            atomic_store(&o->code, code);
        }
        lock_release(&o->lock);
    }
}

static void *open_until_done(void *arg)
{
    struct opening *o = arg;
    uint32_t end = atomic_load(&o->m->slots_end);
    for (;;) {
        uint32_t from = atomic_fetch_add(&o->next, SLOTS_AT_A_TIME);
        if (from >= end)
            return NULL;
        open_some(o, from, from + SLOTS_AT_A_TIME < end ? from + SLOTS_AT_A_TIME : end);
    }
}

/* Tests that watch the files see them in order. */
static unsigned openers_for(const struct manager *m)
{
    unsigned most = cpu_count() < OPENERS_MAX ? cpu_count() : OPENERS_MAX;
    unsigned worth = 1 + m->segment_files / FILES_PER_OPENER;
    return m->dir->hooks != NULL ? 1 : worth < most ? worth : most;
}

static int open_segments(struct manager *m)
{
    struct opening o = {.m = m};
    pthread_t threads[OPENERS_MAX];
    unsigned more = 0, wanted = openers_for(m) - 1;
    lock_init(&o.lock, LOCK_RANK_MANAGER);
    while (more < wanted && thread_start(&threads[more], open_until_done, &o))
        more++;
    open_until_done(&o);
    for (unsigned i = 0; i < more; i++)
        pthread_join(threads[i], NULL);
    lock_fini(&o.lock);
    if (atomic_load(&o.code) != 0)
        error_restore(&o.error);
    return atomic_load(&o.code);
}

/* --- open ----------------------------------------------------------------------------------------------------------------- */

/* What a killed process left in caches only, this open has already acted upon; so it must not be lost any more. That is the whole
 * table: the words of slots without a file too, since a deletion goes on from one, and a huge file may cover another. The fence is
 * recovery_run's first. Further directories need no sync: each name in them is durable before a word, or the pool file, says that
 * it is there. */
static int make_open_durable(struct manager *m)
{
    if (m->media->read_only)
        return 0;
    media_flush(m->media, &m->tally, m->table, m->geometry.slots * sizeof *m->table);
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
    pthread_cond_init(&m->made, NULL);
    pthread_cond_init(&m->gone, NULL);
    m->segments = calloc(m->slots, sizeof *m->segments);
    if (m->segments == NULL) {
        error_set(PA_ENOMEM, "no memory for the table of %u segments", m->slots);
        manager_close(m);
        return PA_ENOMEM;
    }
    int code = 0;
    for (uint32_t slot = 0; code == 0 && slot < geometry->slots; slot++)
        code = read_slot(m, slot);
    if (code == 0)
        code = open_segments(m);
    if (code == 0)
        code = make_open_durable(m);
    if (code != 0)
        manager_close(m);
    return code;
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
        code = provider_remove_file(m, &m->tally, slot);
        if (code == 0 && s != NULL)
            manager_huge_forget(m, s);
    }
    return code;
}
