/* SPDX-License-Identifier: BSD-3-Clause */
/* fake_space.c -- see fake_space.h. */
#include "tests/fptree/fake_space.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES  sizeof(struct pm_tree_leaf)
#define FIRST_BLOCK  (2 * (size_t)FAKE_HEADER)
#define FAKE_SEGMENT 7u /* owners carry it, so that an offset taken for an owner shows */

static size_t block_off(uint32_t block)
{
    return FIRST_BLOCK + block * BLOCK_BYTES;
}

/* Both the arena and what is durable: allocation is atomic by decree. */
static void store_owner(struct fake *f, pa_pptr *owner, pa_pptr value)
{
    *owner = value;
    if (f->durable != NULL)
        memcpy(f->durable + ((char *)owner - f->arena), &value, sizeof value);
}

static int allocate(struct fake *f, pa_pptr *owner, size_t bytes)
{
    if (bytes > BLOCK_BYTES || !pa_is_null(*owner))
        abort();
    uint32_t block = 0;
    while (block < f->blocks && f->used[block])
        block++;
    if (block == f->blocks || f->allocations >= f->fail_after)
        return PA_ENOSPC;
    f->allocations++;
    f->allocated++;
    f->used[block] = 1;
    store_owner(f, owner, (pa_pptr){FAKE_SEGMENT, block_off(block)});
    return 0;
}

static int deallocate(struct fake *f, pa_pptr *owner)
{
    if (owner->segment != FAKE_SEGMENT || owner->offset < FIRST_BLOCK ||
        (owner->offset - FIRST_BLOCK) % BLOCK_BYTES != 0)
        return PA_EINVAL;
    size_t block = (owner->offset - FIRST_BLOCK) / BLOCK_BYTES;
    if (block >= f->blocks || !f->used[block])
        return PA_EINVAL;
    f->frees++;
    f->allocated--;
    f->used[block] = 0;
    store_owner(f, owner, PA_NULL);
    return 0;
}

static int fake_allocate(void *context, pa_pptr *owner, size_t bytes)
{
    struct fake *f = context;
    pthread_mutex_lock(&f->mutex);
    int code = allocate(f, owner, bytes);
    if (code == 0 && f->scribble)
        memset(f->arena + owner->offset, 0x5a, bytes); /* plainly: nobody may still read it */
    pthread_mutex_unlock(&f->mutex);
    return code;
}

static int fake_deallocate(void *context, pa_pptr *owner)
{
    struct fake *f = context;
    pthread_mutex_lock(&f->mutex);
    if (f->scribble)
        memset(f->arena + owner->offset, 0xa5, BLOCK_BYTES);
    int code = deallocate(f, owner);
    pthread_mutex_unlock(&f->mutex);
    return code;
}

static bool fake_is_valid(void *context, pa_off off, size_t bytes)
{
    const struct fake *f = context;
    if (off < FIRST_BLOCK || bytes > BLOCK_BYTES || (off - FIRST_BLOCK) % BLOCK_BYTES != 0)
        return false;
    size_t block = (off - FIRST_BLOCK) / BLOCK_BYTES;
    return block < f->blocks && f->used[block];
}

static pa_pptr fake_pptr_of(void *context, pa_off off)
{
    (void)context;
    return (pa_pptr){FAKE_SEGMENT, off};
}

static pa_off fake_off_of(void *context, pa_pptr owner)
{
    (void)context;
    return owner.offset;
}

static void fake_count(void *context, const struct media_tally *tally)
{
    struct fake *f = context;
    __atomic_fetch_add(&f->tally.fences, tally->fences, __ATOMIC_RELAXED);
    __atomic_fetch_add(&f->tally.lines, tally->lines, __ATOMIC_RELAXED);
}

struct fake *fake_new(uint32_t blocks)
{
    struct fake *f = calloc(1, sizeof *f);
    f->bytes = block_off(blocks);
    f->bytes = (f->bytes + 4095) & ~(size_t)4095;
    f->blocks = blocks;
    f->arena = aligned_alloc(4096, f->bytes);
    f->used = calloc(blocks, 1);
    f->fail_after = UINT32_MAX;
    pthread_mutex_init(&f->mutex, NULL);
    memset(f->arena, 0xa5, f->bytes);
    memset(f->arena + FAKE_HEADER, 0, 2 * MEDIA_LINE_BYTES);
    f->media.mode = MEDIA_BYTE; /* counts fences, writes nothing back */
    f->space = (struct tree_space){.context = f,
                                   .base = f->arena,
                                   .media = &f->media,
                                   .allocate = fake_allocate,
                                   .deallocate = fake_deallocate,
                                   .is_valid = fake_is_valid,
                                   .pptr_of = fake_pptr_of,
                                   .off_of = fake_off_of,
                                   .count = fake_count};
    return f;
}

void fake_delete(struct fake *f)
{
    pthread_mutex_destroy(&f->mutex);
    free(f->slot_of_line);
    free(f->lines);
    free(f->used);
    free(f->durable);
    free(f->arena);
    free(f);
}

/* --- recording ---------------------------------------------------------------------------------------------------------- */

static struct fake_line *line_at(struct fake *f, size_t off)
{
    uint32_t number = (uint32_t)(off / MEDIA_LINE_BYTES);
    if (f->slot_of_line[number] != 0)
        return &f->lines[f->slot_of_line[number] - 1];
    if (f->line_count == f->line_capacity) {
        f->line_capacity = f->line_capacity == 0 ? 64 : 2 * f->line_capacity;
        f->lines = realloc(f->lines, f->line_capacity * sizeof *f->lines);
    }
    struct fake_line *l = &f->lines[f->line_count++];
    l->line = number;
    l->count = l->flushed = 0;
    f->slot_of_line[number] = (uint32_t)f->line_count;
    return l;
}

/* The first n stores of the line become durable. */
static void settle(struct fake *f, struct fake_line *l, uint32_t n)
{
    uint64_t *words = (uint64_t *)(f->durable + (size_t)l->line * MEDIA_LINE_BYTES);
    for (uint32_t i = 0; i < n; i++)
        words[l->stores[i].word] = l->stores[i].value;
    memmove(l->stores, l->stores + n, (l->count - n) * sizeof l->stores[0]);
    l->count -= n;
    l->flushed -= l->flushed < n ? l->flushed : n;
}

static void record_store(struct fake *f, size_t off, size_t size)
{
    for (size_t word = off / 8; word * 8 < off + size; word++) {
        struct fake_line *l = line_at(f, word * 8);
        if (l->count == sizeof l->stores / sizeof l->stores[0])
            settle(f, l, 1); /* an eviction: legal at any time */
        memcpy(&l->stores[l->count].value, f->arena + word * 8, 8);
        l->stores[l->count++].word = (uint32_t)(word % FAKE_LINE_WORDS);
    }
}

static void record_flush(struct fake *f, size_t off, size_t size)
{
    for (size_t line = off / MEDIA_LINE_BYTES; line * MEDIA_LINE_BYTES < off + size; line++)
        if (f->slot_of_line[line] != 0) {
            struct fake_line *l = &f->lines[f->slot_of_line[line] - 1];
            l->flushed = l->count;
        }
}

static void record_drain(struct fake *f)
{
    for (size_t i = 0; i < f->line_count;) {
        struct fake_line *l = &f->lines[i];
        settle(f, l, l->flushed);
        if (l->count != 0) {
            i++;
            continue;
        }
        f->slot_of_line[l->line] = 0;
        *l = f->lines[--f->line_count];
        if (i < f->line_count)
            f->slot_of_line[l->line] = (uint32_t)i + 1;
    }
}

static void on_event(void *context, enum media_event event, const void *address, size_t size, const char *site)
{
    struct fake *f = context;
    (void)site;
    size_t off = (size_t)((const char *)address - f->arena);
    f->events++;
    f->at_drain = event == MEDIA_EVENT_DRAIN;
    if (f->at_drain && f->moment != NULL)
        f->moment(f, f->arg);
    if (event == MEDIA_EVENT_STORE || event == MEDIA_EVENT_STORE_NT)
        record_store(f, off, size);
    if (event == MEDIA_EVENT_FLUSH || event == MEDIA_EVENT_STORE_NT)
        record_flush(f, off, size);
    if (event == MEDIA_EVENT_DRAIN)
        record_drain(f);
    else if (f->moment != NULL)
        f->moment(f, f->arg);
}

static bool on_skip(void *context, enum media_event event, const char *site)
{
    struct fake *f = context;
    (void)event;
    bool known = f->sites == NULL;
    for (size_t i = 0; i < f->site_count && !known; i++)
        known = strcmp(f->sites[i], site) == 0;
    if (!known && f->site_count < f->site_room)
        f->sites[f->site_count++] = site;
    return f->omit != NULL && strcmp(f->omit, site) == 0;
}

void fake_record(struct fake *f, void (*moment)(struct fake *f, void *arg), void *arg)
{
    f->durable = malloc(f->bytes);
    memcpy(f->durable, f->arena, f->bytes);
    f->slot_of_line = calloc(f->bytes / MEDIA_LINE_BYTES, sizeof *f->slot_of_line);
    f->line_count = 0;
    f->recorder = (struct media_recorder){.context = f, .event = on_event, .skip = on_skip};
    f->media.recorder = &f->recorder;
    f->media.mode = MEDIA_RECORD;
    f->moment = moment;
    f->arg = arg;
}

void fake_stop(struct fake *f)
{
    f->media.mode = MEDIA_BYTE;
    f->moment = NULL;
    free(f->durable);
    free(f->slot_of_line);
    f->durable = NULL;
    f->slot_of_line = NULL;
}

/* --- crashes ------------------------------------------------------------------------------------------------------------ */

struct fake *fake_crash(const struct fake *f, fake_choice_fn kept, void *arg)
{
    struct fake *c = fake_new(f->blocks);
    memcpy(c->arena, f->durable, f->bytes);
    memcpy(c->used, f->used, f->blocks);
    c->allocated = f->allocated;
    for (size_t i = 0; i < f->line_count; i++) {
        const struct fake_line *l = &f->lines[i];
        uint64_t *words = (uint64_t *)(c->arena + (size_t)l->line * MEDIA_LINE_BYTES);
        uint32_t n = kept(arg, i, l->count);
        for (uint32_t s = 0; s < n; s++)
            words[l->stores[s].word] = l->stores[s].value;
    }
    return c;
}

struct fake *fake_kill(const struct fake *f, void (*moment)(struct fake *f, void *arg), void *arg)
{
    struct fake *c = fake_new(f->blocks);
    memcpy(c->arena, f->arena, f->bytes);
    memcpy(c->used, f->used, f->blocks);
    c->allocated = f->allocated;
    fake_record(c, moment, arg);
    memcpy(c->durable, f->durable, f->bytes);
    for (size_t i = 0; i < f->line_count; i++) {
        struct fake_line *l = line_at(c, (size_t)f->lines[i].line * MEDIA_LINE_BYTES);
        *l = f->lines[i];
        l->flushed = 0; /* nobody will fence for the dead */
    }
    return c;
}

struct visit {
    const struct fake *fake;
    uint8_t *seen;
    const char *finding;
};

static int see(pa_off off, void *arg)
{
    struct visit *v = arg;
    if (!fake_is_valid((void *)v->fake, off, BLOCK_BYTES)) {
        v->finding = "the tree names a block that is not allocated";
        return 1;
    }
    uint8_t *seen = &v->seen[(off - FIRST_BLOCK) / BLOCK_BYTES];
    if (*seen)
        v->finding = "the tree names a block twice";
    *seen = 1;
    return v->finding != NULL;
}

const char *fake_leaks(const struct fake *f, const struct tree *t)
{
    struct visit v = {f, calloc(f->blocks, 1), NULL};
    tree_foreach_block(t, see, &v);
    if (v.finding == NULL && memcmp(v.seen, f->used, f->blocks) != 0)
        v.finding = "a block is allocated that the tree does not name";
    free(v.seen);
    return v.finding;
}
