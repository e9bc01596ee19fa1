/* SPDX-License-Identifier: BSD-3-Clause */
/* segment.c -- the provider: creating, opening and deleting segment files, each failure-atomic by its table word. */
#define XXH_INLINE_ALL
#include "segment/segment.h"

#include <stdlib.h>
#include <xxhash.h>

#include "base/error.h"
#include "segment/members.h"
#include "segment/provider.h"

void segment_name(char name[32], const struct pm_superblock *geometry, uint32_t slot)
{
    members_name(name, geometry, "segment", slot);
}

void segment_huge_name(char name[32], const struct pm_superblock *geometry, uint32_t slot)
{
    members_name(name, geometry, "huge", slot);
}

/* A huge file's extent word has a checksum of its own, because it changes. */
uint64_t segment_header_checksum(const struct pm_segment_header *h, bool huge)
{
    struct pm_segment_header copy = *h;
    if (huge)
        copy.extent = 0;
    return XXH3_64bits(&copy, offsetof(struct pm_segment_header, checksum));
}

int segment_word_check(const struct dir *d, uint64_t word, uint32_t slot)
{
    if (segment_word_is_valid(word, slot))
        return 0;
    return error_set(PA_ECORRUPT,
                     "%s/" POOL_FILE_NAME ": table word of slot %u is damaged (0x%016llx); restore the file from "
                     "a backup",
                     d->path, slot, (unsigned long long)word);
}

int segment_any_header_check(const struct dir *d, const struct file *f, const struct pm_superblock *geometry,
                             uint32_t slot, bool huge)
{
    const struct pm_segment_header *h = f->address;
    const char *what = NULL;
    uint64_t bytes = huge ? h->file_bytes : f->size;
    if (h->magic != SEGMENT_MAGIC || h->checksum != segment_header_checksum(h, huge) ||
        (huge && !huge_extent_is_valid(h->extent, slot)))
        what = "its header is damaged";
    else if (h->version != POOL_FORMAT_VERSION)
        what = "its format version is another than the pool file's";
    else if (memcmp(h->uuid, geometry->uuid, sizeof h->uuid) != 0)
        what = "it belongs to another pool";
    else if (h->slot != slot || h->segment_size != geometry->segment_size || h->file_bytes != bytes)
        what = "it belongs to another place in the pool";
    else if (huge && (huge_extent_file_bytes(h->extent) > f->size || h->file_bytes > huge_extent_file_bytes(h->extent)))
        what = "it is shorter than its header says";
    if (what == NULL)
        return 0;
    return error_set(PA_ECORRUPT, "%s/%s: %s; restore the pool's own file", d->path, f->name, what);
}

int segment_header_check(const struct dir *d, const struct file *f, const struct pm_superblock *geometry, uint32_t slot)
{
    return segment_any_header_check(d, f, geometry, slot, false);
}

/* A sound header of another pool or place: the file cannot be meant. */
static bool is_others(const struct pm_segment_header *h, const struct pm_superblock *geometry, uint32_t slot, bool huge)
{
    return h->magic == SEGMENT_MAGIC && h->checksum == segment_header_checksum(h, huge) &&
           (memcmp(h->uuid, geometry->uuid, sizeof h->uuid) != 0 || h->slot != slot);
}

enum segment_claim segment_file_claim(struct dir *d, const char *name, const struct pm_superblock *geometry,
                                      uint32_t slot, bool huge)
{
    struct file f;
    struct pm_segment_header h;
    enum segment_claim claim = SEGMENT_CLAIM_NONE;
    if (file_open(d, &f, name) != 0)
        return claim;
    bool sized =
        huge ? f.size >= 2 * HUGE_PAGE_BYTES && f.size % HUGE_PAGE_BYTES == 0 : f.size == geometry->segment_size;
    if (file_read(d, &f, 0, &h, sizeof h) == 0) {
        f.address = &h; /* header_check looks no further */
        if (segment_any_header_check(d, &f, geometry, slot, huge) == 0)
            claim = SEGMENT_CLAIM_OWN;
        else if (sized && !is_others(&h, geometry, slot, huge))
            claim = SEGMENT_CLAIM_MAYBE;
        f.address = NULL;
    }
    file_close(d, &f);
    return claim;
}

void provider_set_word(struct manager *m, struct media_tally *t, uint32_t slot, uint64_t word)
{
    media_store64(m->media, &m->table[slot], word);
    media_persist(m->media, t, &m->table[slot], sizeof word); /* before the step that the word announces */
}

static void header_write(struct manager *m, struct file *f, uint32_t slot, uint64_t detail, bool huge)
{
    struct pm_segment_header h = {.magic = SEGMENT_MAGIC,
                                  .version = POOL_FORMAT_VERSION,
                                  .slot = slot,
                                  .segment_size = m->geometry.segment_size,
                                  .file_bytes = f->size,
                                  .born = detail};
    memcpy(h.uuid, m->geometry.uuid, sizeof h.uuid);
    h.checksum = segment_header_checksum(&h, huge);
    struct media_tally tally = {0};
    media_write(m->media, f->address, &h, sizeof h);
    media_persist(m->media, &tally, f->address, sizeof h); /* before READY: which promises a valid header */
}

int provider_make_file(struct manager *m, struct file *f, const char *name, uint32_t slot, uint64_t bytes,
                       uint64_t detail, bool huge, bool *ret_left_behind)
{
    if (m->media->read_only) /* of a damaged pool, whose recovery takes space that it must not need */
        return error_set(PA_ECORRUPT,
                         "to open the pool in %s needs a new file, which no sound pool does; have it repaired",
                         m->dir->path);
    int code = dir_unlink(m->dir, name, false); /* not ours if there: its slot has no file */
    if (code != 0)
        return code;
    code = file_create(m->dir, f, name, bytes, m->sparse);
    if (code == 0)
        code = file_map(m->dir, f, (uint64_t)slot << m->shift);
    if (code == 0)
        code = media_accepts(m->media, f);
    if (code == 0) {
        header_write(m, f, slot, detail, huge);
        code = file_sync(m->dir, f);
    }
    if (code == 0)
        code = dir_sync_of(m->dir, name);
    if (code != 0) {
        struct error_text first;
        error_save(&first);
        file_close(m->dir, f);
        *ret_left_behind = provider_unlink(m, name) != 0;
        error_restore(&first);
        return code;
    }
    file_close_descriptor(f);
    return 0;
}

/* The twin gets the file when nothing can fail any more: pa_get_stats must not look at one that goes away again. */
static int make_file(struct manager *m, struct segment *s, uint64_t born, bool *ret_left_behind)
{
    char name[32];
    struct file f;
    segment_name(name, &m->geometry, s->slot);
    int code = provider_make_file(m, &f, name, s->slot, m->geometry.segment_size, born, false, ret_left_behind);
    if (code == 0)
        file_attach(&s->file, &f);
    return code;
}

void provider_announce(struct manager *m, struct media_tally *t, uint32_t slot)
{
    provider_set_word(m, t, slot, segment_word(SEGMENT_STATE_CREATING, SEGMENT_KIND_NONE, 0, slot));
}

struct segment *segment_new(uint32_t slot)
{
    struct segment *s = calloc(1, sizeof *s);
    if (s == NULL) {
        error_set(PA_ENOMEM, "no memory for segment %u", slot);
        return NULL;
    }
    s->slot = slot;
    s->slots = 1;
    s->file.fd = -1;
    return s;
}

/*
 * Segment creation. The slot is chosen and counted already; step 1 is provider_announce, under the manager's lock.
 *
 * step                              | durable after it      | a crash here recovers by
 * ----------------------------------+-----------------------+------------------------------------------------------------
 * 1 word = CREATING, fence          | the announcement      | open removes the file if there is one, word = FREE
 * 2 file made, mapped, header, fence| maybe parts of it     | as 1
 * 3 file sync, directory sync       | the whole file        | as 1
 * 4 word = READY(kind, owner), fence| the segment           | nothing to do
 */
int provider_create(struct manager *m, struct media_tally *t, struct segment *s, enum segment_kind kind, unsigned owner,
                    uint64_t born)
{
    bool left_behind = false;
    int code = make_file(m, s, born, &left_behind);
    if (code != 0) {
        if (!left_behind) /* else the slot stays CREATING and the next open finishes: a FREE slot has no file */
            provider_set_word(m, t, s->slot, 0);
        return code;
    }
    atomic_store_explicit(&s->owner, (uint16_t)owner, memory_order_relaxed);
    atomic_store_explicit(&s->kind, (uint8_t)kind, memory_order_release);
    provider_set_word(m, t, s->slot, segment_word(SEGMENT_STATE_READY, kind, owner, s->slot));
    return 0;
}

/*
 * Segment deletion; also how open finishes a creation or deletion that a crash cut off.
 *
 * step                              | durable after it      | a crash here recovers by
 * ----------------------------------+-----------------------+------------------------------------------------------------
 * 1 word = DELETING, fence          | the announcement      | open continues with 2
 * 2 unlink, directory sync          | the file is gone      | open continues with 2; the file may be missing
 * 3 word = FREE, fence              | the slot is free      | nothing to do
 */
int provider_remove_file(struct manager *m, struct media_tally *t, uint32_t slot)
{
    char name[32];
    if (segment_word_kind(m->table[slot]) == SEGMENT_KIND_HUGE)
        segment_huge_name(name, &m->geometry, slot);
    else
        segment_name(name, &m->geometry, slot);
    if (m->media->read_only)
        return dir_may_unlink(m->dir, name); /* a snapshot leaves the file and its word alone */
    int code = provider_unlink(m, name);
    if (code == 0)
        provider_set_word(m, t, slot, 0);
    return code;
}

int provider_unlink(struct manager *m, const char *name)
{
    int code = dir_unlink(m->dir, name, false);
    if (code == 0)
        code = dir_sync_of(m->dir, name); /* before FREE: else a file may come back in a slot that has none */
    return code;
}

int provider_open(struct manager *m, struct segment *s)
{
    char name[32];
    segment_name(name, &m->geometry, s->slot);
    int code = file_open(m->dir, &s->file, name);
    if (code == PA_ENOENT)
        return error_set(PA_ECORRUPT, "%s/%s is missing; restore the pool's own file", m->dir->path, name);
    if (code != 0)
        return code;
    if (s->file.size != m->geometry.segment_size)
        code = error_set(PA_ECORRUPT, "%s/%s has %llu bytes instead of %llu; restore the pool's own file", m->dir->path,
                         name, (unsigned long long)s->file.size, (unsigned long long)m->geometry.segment_size);
    if (code == 0)
        code = file_map(m->dir, &s->file, (uint64_t)s->slot << m->shift);
    if (code == 0)
        code = media_accepts(m->media, &s->file);
    if (code == 0)
        code = segment_header_check(m->dir, &s->file, &m->geometry, s->slot);
    if (code != 0) {
        file_close(m->dir, &s->file);
        return code;
    }
    file_close_descriptor(&s->file);
    return 0;
}

/* A growth that a crash cut off has left the file longer than its extent: give the space back where that is possible. */
static void drop_excess(struct manager *m, struct file *f, uint64_t used)
{
    if (f->size > used && !m->media->read_only)
        (void)file_punch(m->dir, f, used, f->size - used); /* else it serves the next growth */
}

/* As much as lies in the file's slots; then, by the header, as much as is in use. */
static int map_huge(struct manager *m, struct segment *s, struct file *f)
{
    uint64_t place = (uint64_t)s->slot << m->shift;
    uint64_t most = (uint64_t)s->slots << m->shift;
    uint64_t bytes = f->size < most ? f->size & ~(uint64_t)(HUGE_PAGE_BYTES - 1) : most;
    if (bytes <= SEGMENT_HEADER_BYTES)
        return error_set(PA_ECORRUPT, "%s/%s has only %llu bytes; restore the pool's own file", m->dir->path, f->name,
                         (unsigned long long)f->size);
    int code = file_map_part(m->dir, f, bytes, place);
    if (code == 0)
        code = media_accepts(m->media, f);
    if (code == 0)
        code = segment_any_header_check(m->dir, f, &m->geometry, s->slot, true);
    if (code != 0)
        return code;
    uint64_t extent = ((const struct pm_segment_header *)f->address)->extent;
    uint64_t used = huge_extent_file_bytes(extent);
    if (used > most)
        return error_set(PA_ECORRUPT,
                         "%s/%s is longer than its slots of the segment table; restore the pool's own files",
                         m->dir->path, f->name);
    if (used < bytes) {
        file_unmap(m->dir, f);
        code = file_map_part(m->dir, f, used, place);
        if (code != 0)
            return code;
    }
    drop_excess(m, f, used);
    /* A killed process may have left the extent in the cache only; the caller fences before anybody uses the block. */
    media_flush(m->media, &m->tally, f->address, sizeof(struct pm_segment_header));
    atomic_store(&s->block, place + huge_extent_block_offset(extent));
    atomic_store(&s->end, place + used);
    return 0;
}

int provider_open_huge(struct manager *m, struct segment *s)
{
    char name[32];
    struct file f;
    segment_huge_name(name, &m->geometry, s->slot);
    int code = file_open(m->dir, &f, name);
    if (code == PA_ENOENT)
        return error_set(PA_ECORRUPT, "%s/%s is missing; restore the pool's own file", m->dir->path, name);
    if (code != 0)
        return code;
    code = map_huge(m, s, &f);
    if (code != 0) {
        file_close(m->dir, &f);
        return code;
    }
    file_close_descriptor(&f);
    s->file = f;
    return 0;
}
