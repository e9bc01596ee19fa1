/* SPDX-License-Identifier: BSD-3-Clause */
/* steps.c -- which protocol an event belongs to: what the thread's last lane entry and last table word said. See recorder.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "segment/segment_layout.h"
#include "segment/superblock.h"
#include "tests/explore/steps.h"

/* --- the table of steps -------------------------------------------------------------------------------------------------- */

static bool is_step(const struct step *step, unsigned site, uint8_t entry, uint8_t word)
{
    return step->site == site && step->entry == entry && step->word == word;
}

static int find_step(const struct sites *s, uint32_t from, unsigned site, uint8_t entry, uint8_t word)
{
    uint32_t count = __atomic_load_n(&s->steps_count, __ATOMIC_ACQUIRE);
    for (uint32_t i = from; i < count; i++)
        if (is_step(&s->steps[i], site, entry, word))
            return (int)i;
    return -1;
}

static unsigned add_step(struct sites *s, unsigned site, uint8_t entry, uint8_t word)
{
    while (__atomic_exchange_n(&s->lock, 1, __ATOMIC_ACQUIRE) != 0)
        ;
    int found = find_step(s, 0, site, entry, word);
    if (found < 0) {
        if (s->steps_count == STEPS_MAX)
            abort();
        found = (int)s->steps_count;
        s->steps[found].site = (uint16_t)site;
        s->steps[found].entry = entry;
        s->steps[found].word = word;
        __atomic_store_n(&s->steps_count, s->steps_count + 1, __ATOMIC_RELEASE);
    }
    __atomic_store_n(&s->lock, 0, __ATOMIC_RELEASE);
    return (unsigned)found;
}

unsigned step_intern(struct sites *s, unsigned site, uint8_t entry, uint8_t word)
{
    static _Thread_local uint16_t cache[4096]; /* index + 1, direct mapped */
    size_t slot = (size_t)(mix64((uint64_t)site << 16 | (uint64_t)entry << 8 | word) % 4096);
    if (cache[slot] != 0 && is_step(&s->steps[cache[slot] - 1], site, entry, word))
        return cache[slot] - 1u;
    int found = find_step(s, 0, site, entry, word);
    unsigned index = found >= 0 ? (unsigned)found : add_step(s, site, entry, word);
    cache[slot] = (uint16_t)(index + 1);
    return index;
}

/* --- what a store to the pool file says ------------------------------------------------------------------------------------ */

static uint8_t entry_context(const struct pm_lane_entry *e, uint8_t before)
{
    if (e->op == LANE_OP_DONE)
        return before | STEP_ENTRY_DONE;
    return (uint8_t)((e->op & STEP_ENTRY_OP) | ((e->flags & LANE_FLAG_REPLACE) != 0 ? STEP_ENTRY_REPLACE : 0));
}

static uint8_t word_context(uint64_t word, uint8_t before)
{
    unsigned kind = segment_word_state(word) == SEGMENT_STATE_FREE ? (before & STEP_WORD_KIND)
                                                                   : (unsigned)segment_word_kind(word) << 4;
    return (uint8_t)(STEP_WORD_SET | kind | segment_word_state(word));
}

void step_note_store(const char *pool, uint64_t offset, uint8_t *entry, uint8_t *word)
{
    const struct pm_superblock *s = (const struct pm_superblock *)pool;
    if (s->table_offset == 0)
        return; /* being created */
    if (offset >= POOL_LANES_OFFSET && offset < superblock_cores_offset(s)) {
        uint64_t at = offset - offset % sizeof(struct pm_lane_entry);
        *entry = entry_context((const struct pm_lane_entry *)(pool + at), *entry);
    } else if (offset >= s->table_offset && offset < s->table_offset + s->slots * sizeof(uint64_t)) {
        *word = word_context(*(const uint64_t *)(pool + offset), *word);
    }
}

/* --- names --------------------------------------------------------------------------------------------------------------- */

void step_entry_name(uint8_t entry, char *text, size_t size)
{
    static const char *const names[LANE_OP_COUNT] = {"none",      "done",     "small_alloc", "small_free", "small_hole",
                                                     "big_alloc", "big_free", "big_change",  "huge_alloc", "huge_free"};
    unsigned op = entry & STEP_ENTRY_OP;
    snprintf(text, size, "%s%s%s", op < LANE_OP_COUNT ? names[op] : "?",
             (entry & STEP_ENTRY_REPLACE) != 0 ? ".replace" : "", (entry & STEP_ENTRY_DONE) != 0 ? ".done" : "");
}

void step_word_name(uint8_t word, char *text, size_t size)
{
    static const char *const states[] = {"free", "creating", "ready", "deleting"};
    static const char *const kinds[] = {"none", "small", "big", "huge"};
    unsigned state = word & STEP_WORD_STATE, kind = (word & STEP_WORD_KIND) >> 4;
    if ((word & STEP_WORD_SET) == 0 || state >= SEGMENT_STATE_COUNT || kind >= SEGMENT_KIND_COUNT)
        snprintf(text, size, "none");
    else
        snprintf(text, size, "%s.%s", states[state], kinds[kind]);
}
