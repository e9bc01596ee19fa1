/* SPDX-License-Identifier: BSD-3-Clause */
/* provider.h -- failure-atomic steps on segment files, for the manager only. See segment.c for their step tables. */
#ifndef SEGMENT_PROVIDER_H
#define SEGMENT_PROVIDER_H

#include "segment/segment.h"

struct segment *segment_new(uint32_t slot);
/** Change a table word, durably; t counts what it costs. */
void provider_set_word(struct manager *m, struct media_tally *t, uint32_t slot, uint64_t word);
/** Announce that a file is going to be made for a slot, durably. Under manager.lock. */
void provider_announce(struct manager *m, struct media_tally *t, uint32_t slot);
/** Make the file of an announced slot; kind NONE = for the free list. Needs no lock. born: see pm_segment_header. */
int provider_create(struct manager *m, struct media_tally *t, struct segment *s, enum segment_kind kind, unsigned owner,
                    uint64_t born);
int provider_open(struct manager *m, struct segment *s);
int provider_remove_file(struct manager *m, struct media_tally *t, uint32_t slot);
/** Make name for a slot, bytes long, durable and mapped, with its header; detail: born, or the extent word of a huge file. */
int provider_make_file(struct manager *m, struct file *f, const char *name, uint32_t slot, uint64_t bytes,
                       uint64_t detail, bool huge, bool *ret_left_behind);
/** Remove a file durably. */
int provider_unlink(struct manager *m, const char *name);
/** Open, map and check the file of a twin whose slots are set; then its place and size are. */
int provider_open_huge(struct manager *m, struct segment *s);

/** Make the twin known in all its slots; twins of files that are gone are retired. Under manager.lock, or at open. */
void manager_publish(struct manager *m, struct segment *s);
/** A huge file that is gone: its slots are free and its size is not counted any more. Under manager.lock, or at open. */
void manager_huge_forget(struct manager *m, struct segment *s);
/** Count a file against the limit; PA_ENOSPC. Under manager.lock. */
int manager_count_bytes(struct manager *m, uint64_t bytes);

/** Neither a file of its own, nor covered by a huge file that begins before it. */
static inline bool slot_is_free(const struct manager *m, uint32_t slot)
{
    const struct segment *s = manager_segment(m, slot);
    /* A huge block's word may just be changed by its core; not to or from zero. A word that became zero, without the lock: what
     * its thread did with the file comes before. */
    return __atomic_load_n(&m->table[slot], __ATOMIC_ACQUIRE) == 0 && (s == NULL || s->slot == slot);
}
/** Under lock: a file that was counted as leaving has gone, or stays for ever. */
void manager_note_removal(struct manager *m);
/** Does a slot's file lie in the directory of that number (members.h)? */
static inline bool slot_is_in(const struct manager *m, uint32_t slot, int directory)
{
    return directory == ANY_DIRECTORY || slot % (1u + m->geometry.directories) == (uint32_t)directory;
}
/** Slots that so many bytes from the beginning of one cover. */
static inline uint32_t slots_for(const struct manager *m, uint64_t bytes)
{
    return (uint32_t)((bytes + m->geometry.segment_size - 1) >> m->shift);
}

#endif
