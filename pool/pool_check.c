/* SPDX-License-Identifier: BSD-3-Clause */
/* pool_check.c -- pa_check: everything that open trusts, and everything that it leaves for later, without a change. */
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "pool/pool.h"
#include "segment/members.h"

struct report {
    FILE *text;
    int code; /* of the first finding */
    pa_pool *pool;
    char directory[32]; /* that check_name is in */
};

/* Note the thread's last failure as a finding. */
static void finding(struct report *r, int code)
{
    fprintf(r->text, "%s\n", pa_errormsg());
    if (r->code == 0)
        r->code = code;
}

/* Of the logs. Open itself may have appended entries. */
static uint64_t highest_number(const pa_pool *pool)
{
    uint64_t highest = 0;
    for (unsigned i = 0; i < pool->core_count; i++)
        if (pool->cores[i].lane.lsn > highest)
            highest = pool->cores[i].lane.lsn;
    return highest;
}

static void check_segments(struct report *r)
{
    struct manager *m = &r->pool->manager;
    uint64_t newest = highest_number(r->pool);
    for (uint32_t slot = 0; slot < atomic_load(&m->slots_end); slot++) {
        struct segment *s = manager_segment(m, slot);
        if (!segment_is_present(s))
            continue;
        if (atomic_load(&s->kind) == SEGMENT_KIND_HUGE)
            continue;                         /* open has looked at all there is: header, extent, slots */
        int code = small_check_segment(m, s); /* whatever the kind: the line area keeps what it holds */
        if (code != 0)
            finding(r, code);
        if (segment_header(s)->born > newest)
            finding(r, error_set(PA_ECORRUPT, "%s/%s: its header is newer than all lanes; restore the pool's own files",
                                 m->dir->path, s->file.name));
    }
}

/* A change is made on a line only if its number is higher than the line's: so no line may be ahead of the logs. A log whose newest
 * entry was lost after the line had arrived leaves one that is. */
static void check_line_numbers(struct report *r)
{
    const struct manager *m = &r->pool->manager;
    uint64_t highest = highest_number(r->pool);
    for (uint32_t slot = 0; slot < atomic_load(&m->slots_end); slot++) {
        const struct segment *s = manager_segment(m, slot);
        if (!segment_is_present(s) || atomic_load(&s->kind) != SEGMENT_KIND_SMALL)
            continue;
        uint32_t slab = small_line_above(m, s, highest);
        if (slab != UINT32_MAX)
            finding(r, error_set(PA_ECORRUPT,
                                 "%s/%s: the metadata of slab %u are newer than every log in " POOL_FILE_NAME
                                 "; have the pool repaired",
                                 r->pool->dir.path, s->file.name, slab));
    }
}

struct leaf_numbers {
    const pa_pool *pool;
    uint64_t highest;
};

static int check_leaf_number(pa_off leaf, void *arg)
{
    const struct leaf_numbers *n = arg;
    pa_pptr p = pa_off_pptr(n->pool, leaf);
    const struct pm_tree_leaf *at = (const struct pm_tree_leaf *)(n->pool->manager.base + leaf);
    if (at->lsn <= n->highest)
        return 0;
    return error_set(PA_ECORRUPT,
                     "a leaf of a block index, segment %llu offset %llu, is newer than every log in %s/" POOL_FILE_NAME
                     "; have the pool repaired",
                     (unsigned long long)p.segment, (unsigned long long)p.offset, n->pool->dir.path);
}

/* The core is locked. */
static int check_leaf_numbers(const pa_pool *pool, const struct big *o)
{
    struct leaf_numbers n = {pool, highest_number(pool)};
    if (o->index == NULL)
        return 0;
    pa_off header = manager_off(&pool->manager, *big_index_owner(&pool->manager, o->number));
    int code = check_leaf_number(header + offsetof(struct pm_tree_header, head), &n);
    return code == 0 ? tree_foreach_leaf(o->index, check_leaf_number, &n) : code;
}

static void check_indexes(struct report *r)
{
    for (unsigned i = 0; i < r->pool->big_count; i++) {
        struct big *o = &r->pool->bigs[i];
        lock_acquire(&o->core->lock);
        int code = big_check(o);
        if (code == 0)
            code = check_leaf_numbers(r->pool, o);
        lock_release(&o->core->lock);
        if (code != 0)
            finding(r, code);
    }
}

static int is_no_root(pa_pptr block, size_t usable_size, void *arg)
{
    const struct pm_root *line = pool_root_line(arg);
    (void)usable_size;
    return block.segment != line->root.segment || block.offset != line->root.offset;
}

static void check_root(struct report *r)
{
    const struct pm_root *line = pool_root_line(r->pool);
    bool null = pa_is_null(line->root);
    bool none = null && line->size == 0 && line->check == 0;
    size_t usable = 0;
    if (!null && pool_find_size(r->pool, line->root, &usable) != 0)
        return; /* its block index cannot be read: a finding already */
    bool unfinished = line->check == ROOT_MAKING && (null || usable != 0);
    bool ready = line->check == superblock_root_check(line) && usable != 0 && usable >= line->size;
    if ((none || unfinished) && pa_foreach(r->pool, is_no_root, r->pool) == 1)
        none = unfinished = false; /* owners lie in blocks, so the root comes before all others */
    if (!none && !unfinished && !ready)
        finding(r, error_set(PA_ECORRUPT,
                             "%s/" POOL_FILE_NAME ": the root line at offset %u is damaged; restore the file from a "
                             "backup",
                             r->pool->dir.path, POOL_ROOT_OFFSET));
}

static void check_core_lines(struct report *r)
{
    const struct manager *m = &r->pool->manager;
    for (uint32_t i = 0; i < m->geometry.lanes; i++) {
        const struct pm_core *line = manager_core_line(m, i);
        if ((line->zero[0] | line->zero[1]) != 0)
            finding(r, error_set(PA_ECORRUPT,
                                 "%s/" POOL_FILE_NAME
                                 ": the unused part of core line %u is not zero; restore the file from "
                                 "a backup",
                                 r->pool->dir.path, i));
    }
}

/* --- blocks of the block indexes ------------------------------------------------------------------------------------------ */

struct offsets {
    pa_off *at;
    size_t n, capacity;
};

static int add_offset(pa_off off, void *arg)
{
    struct offsets *o = arg;
    if (o->n == o->capacity) {
        size_t capacity = o->capacity == 0 ? 256 : o->capacity * 2;
        pa_off *at = realloc(o->at, capacity * sizeof *at);
        if (at == NULL)
            return error_set(PA_ENOMEM, "no memory to list %zu blocks of the block indexes", capacity);
        o->at = at;
        o->capacity = capacity;
    }
    o->at[o->n++] = off;
    return 0;
}

static int compare_offsets(const void *a, const void *b)
{
    pa_off x = *(const pa_off *)a, y = *(const pa_off *)b;
    return (x > y) - (x < y);
}

/* What is allocated in the library's classes, and what the indexes are made of. */
static int list_library(pa_pool *pool, struct offsets *held, struct offsets *used)
{
    const struct manager *m = &pool->manager;
    int code = 0;
    for (uint32_t slot = 0; code == 0 && slot < atomic_load(&m->slots_end); slot++) {
        const struct segment *s = manager_segment(m, slot);
        if (segment_is_present(s) && atomic_load(&s->kind) == SEGMENT_KIND_SMALL)
            code = small_foreach_library(m, s, add_offset, held);
    }
    for (unsigned i = 0; code == 0 && i < pool->big_count; i++)
        code = big_foreach_leaf(&pool->bigs[i], add_offset, used);
    return code;
}

/* Each block of the library is in exactly one index, once. One that is in none is lost to everybody, but harms nobody. */
static void compare_library(struct report *r, const struct offsets *held, const struct offsets *used)
{
    for (size_t i = 0, k = 0; i < held->n || k < used->n;) {
        if (i < held->n && k < used->n && held->at[i] == used->at[k]) {
            i++;
            k++;
            continue;
        }
        bool orphan = k >= used->n || (i < held->n && held->at[i] < used->at[k]);
        pa_off off = orphan ? held->at[i++] : used->at[k++];
        pa_pptr p = manager_pptr(&r->pool->manager, off);
        bool header = orphan && ((const struct pm_tree_header *)(r->pool->manager.base + off))->magic == TREE_MAGIC;
        if (header) /* it is never given back: so a core line has forgotten it, and with it all blocks of the index */
            finding(r, error_set(PA_ECORRUPT,
                                 "%s/" POOL_FILE_NAME ": no core line names the block index at segment %llu offset "
                                 "%llu; have the pool repaired",
                                 r->pool->dir.path, (unsigned long long)p.segment, (unsigned long long)p.offset));
        else if (orphan)
            fprintf(r->text,
                    "note: %s: segment %llu offset %llu is allocated for a block index, and in none; it leaks\n",
                    r->pool->dir.path, (unsigned long long)p.segment, (unsigned long long)p.offset);
        else
            finding(
                r, error_set(PA_ECORRUPT,
                             "%s: segment %llu offset %llu is in two block indexes, or is in one and free; restore the "
                             "pool from a backup",
                             r->pool->dir.path, (unsigned long long)p.segment, (unsigned long long)p.offset));
    }
}

/* Only if all indexes could be read. */
static void check_library(struct report *r)
{
    struct offsets held = {0}, used = {0};
    int code = list_library(r->pool, &held, &used);
    if (code != 0) {
        finding(r, code);
    } else {
        if (held.n != 0)
            qsort(held.at, held.n, sizeof *held.at, compare_offsets);
        if (used.n != 0)
            qsort(used.at, used.n, sizeof *used.at, compare_offsets);
        compare_library(r, &held, &used);
    }
    free(held.at);
    free(used.at);
}

/* --- files ---------------------------------------------------------------------------------------------------------------- */

/* A file whose slot has none of its kind. */
static int check_name(const char *name, void *arg)
{
    struct report *r = arg;
    uint32_t slot;
    char exact[32], found[320];
    bool huge;
    if (!members_parse(name, &huge, &slot)) /* a file of the user's */
        return 0;
    const struct manager *m = &r->pool->manager;
    if (huge)
        segment_huge_name(exact, &m->geometry, slot);
    else
        segment_name(exact, &m->geometry, slot);
    bool own = strcmp(r->directory, ".") == 0;
    snprintf(found, sizeof found, "%s%s%s", own ? "" : r->directory, own ? "" : "/", name);
    name = found;
    if (strcmp(exact, name) == 0 && slot < m->geometry.slots &&
        segment_word_state(m->table[slot]) != SEGMENT_STATE_FREE &&
        huge == (segment_word_kind(m->table[slot]) == SEGMENT_KIND_HUGE))
        return 0;
    /* A free slot has no file: it was removed, durably, before its word became free. */
    bool free_slot = strcmp(exact, name) == 0 && slot >= m->first_slot && slot < m->slots && m->table[slot] == 0 &&
                     !segment_is_present(manager_segment(m, slot));
    enum segment_claim claim =
        free_slot ? segment_file_claim(&r->pool->dir, name, &m->geometry, slot, huge) : SEGMENT_CLAIM_NONE;
    if (claim == SEGMENT_CLAIM_MAYBE) {
        finding(r, error_set(PA_ECORRUPT,
                             "%s/" POOL_FILE_NAME ": table word of slot %u is zero, and the header of %s is damaged; "
                             "if the file is this pool's, restore both from a backup, else move it away",
                             r->pool->dir.path, slot, name));
        return 0;
    }
    if (claim == SEGMENT_CLAIM_OWN) {
        finding(r, error_set(PA_ECORRUPT,
                             "%s/" POOL_FILE_NAME ": table word of slot %u is zero, but %s is a file of this pool; "
                             "restore " POOL_FILE_NAME " from a backup",
                             r->pool->dir.path, slot, name));
        return 0;
    }
    fprintf(r->text, "note: %s/%s belongs to no slot of the pool; it is not used and may be removed\n",
            r->pool->dir.path, name);
    return 0;
}

static void check_names(struct report *r)
{
    for (uint32_t k = 0; k <= r->pool->manager.geometry.directories; k++) {
        members_dir_name(r->directory, k);
        int code = dir_foreach_in(&r->pool->dir, r->directory, check_name, r);
        if (code != 0)
            finding(r, code);
    }
}

static void check_all(struct report *r, const char *dir, const struct pool_params *params)
{
    pa_options o;
    pa_options_init(&o);
    o.flags = PA_READ_ONLY;
    int code = pool_open_ex(dir, &o, params, &r->pool);
    if (code != 0) {
        finding(r, code);
        return;
    }
    check_segments(r);
    check_line_numbers(r);
    check_indexes(r);
    check_root(r);
    check_core_lines(r);
    if (r->code == 0)
        check_library(r);
    check_names(r);
    if (r->code == 0)
        fprintf(r->text, "%s: sound\n", dir);
    pa_close(r->pool);
}

int pool_check_ex(const char *dir, const struct pool_params *params, char **ret_report)
{
    char *text = NULL;
    size_t size = 0;
    struct report r = {.text = open_memstream(&text, &size)};
    if (r.text == NULL)
        return error_set(PA_ENOMEM, "no memory for the report");
    check_all(&r, dir, params);
    if (fclose(r.text) != 0) {
        free(text);
        return error_set(PA_ENOMEM, "no memory for the report");
    }
    if (ret_report != NULL)
        *ret_report = text;
    else
        free(text);
    return r.code;
}

int pa_check(const char *dir, char **ret_report)
{
    struct error_text before;
    error_save(&before);
    return error_end(pool_check_ex(dir, NULL, ret_report), &before);
}
