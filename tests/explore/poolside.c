/* SPDX-License-Identifier: BSD-3-Clause */
/* poolside.c -- recorded operations on a pool. See poolside.h; the judge is in poolside_judge.c. */
#include "tests/explore/poolside.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "segment/provider.h"

static int failed(struct history *h, const char *what, int code)
{
    return history_fail(h, "%s failed with %d: %s", what, code, pa_errormsg());
}

struct poolside *poolside_new(struct history *h, unsigned lanes, unsigned entries, unsigned slots, unsigned cores)
{
    struct poolside *p = calloc(1, sizeof *p);
    if (p == NULL)
        abort();
    pa_options_init(&p->options);
    p->options.layout = "explore";
    p->options.segment_size = 1u << 20;
    p->options.cores = cores;
    p->judge_cores = cores;
    p->params = (struct pool_params){.lanes = lanes, .lane_entries = entries, .slots = slots};
    p->params.recorder = &h->recorder.media;
    p->params.hooks = &h->recorder.hooks;
    h->context = p;
    return p;
}

void poolside_spread(struct history *h, unsigned dirs)
{
    struct poolside *p = poolside_of(h);
    for (unsigned i = 0; i < dirs && i < MORE_MAX; i++) {
        snprintf(p->more[i], sizeof p->more[i], "%s/more-%u", h->root, i + 1);
        p->dirs[i] = p->more[i];
    }
    p->options.dirs = p->dirs;
    p->options.ndirs = dirs;
}

int poolside_cut_links(struct history *h)
{
    struct poolside *p = poolside_of(h);
    struct dir d;
    char name[NAME_BYTES];
    int code = dir_open(&d, h->dir, false, false, p->params.hooks);
    for (unsigned i = 1; code == 0 && i <= p->options.ndirs; i++) {
        snprintf(name, sizeof name, "dir-%u", i);
        code = dir_unlink(&d, name, true);
    }
    if (code != 0)
        return failed(h, "removing the links", code);
    dir_close(&d);
    return 0;
}

void poolside_fini(struct history *h)
{
    struct poolside *p = h->context;
    if (p != NULL)
        free(p->cells);
    free(p);
    h->context = NULL;
}

static uint32_t add_cell(struct poolside *p, struct cell_place place)
{
    p->cells = realloc(p->cells, (p->cells_count + 1) * sizeof *p->cells);
    if (p->cells == NULL)
        abort();
    p->cells[p->cells_count] = place;
    return p->cells_count++;
}

static struct value owner_value(pa_pptr p)
{
    return (struct value){p.segment, p.offset};
}

void *cell_address(const pa_pool *pool, pa_pptr root, const struct cell_place *place)
{
    pa_pptr at = place->at;
    if (place->in_root)
        at = (pa_pptr){root.segment, root.offset + place->at.offset};
    return pa_direct(pool, at);
}

static void *address_of(const struct history *h, uint32_t cell)
{
    const struct poolside *p = poolside_of(h);
    return cell_address(p->pool, p->root, &p->cells[cell]);
}

static pa_pptr *owner_address(const struct history *h, uint32_t cell)
{
    return address_of(h, cell);
}

pa_pptr poolside_read(const struct history *h, uint32_t cell)
{
    return *owner_address(h, cell);
}

/* --- the pool ------------------------------------------------------------------------------------------------------------ */

int poolside_create(struct history *h, unsigned owners)
{
    struct poolside *p = poolside_of(h);
    size_t op = history_begin(h, "pa_create");
    p->creation = op;
    int code = pool_create_ex(h->dir, &p->options, &p->params, &p->pool);
    history_end(h, op);
    if (code != 0)
        return failed(h, "pa_create", code);
    return owners == 0 ? 0 : poolside_root(h, owners);
}

int poolside_root(struct history *h, unsigned owners)
{
    struct poolside *p = poolside_of(h);
    size_t op = history_begin(h, "pa_root of %u owners", owners);
    p->owners = owners;
    int code = pa_root(p->pool, owners * sizeof(pa_pptr), &p->root);
    if (code != 0)
        return failed(h, "pa_root", code);
    for (unsigned i = 0; i < owners; i++) {
        pa_pptr at = {0, i * sizeof(pa_pptr)};
        uint32_t cell = add_cell(p, (struct cell_place){.kind = CELL_OWNER, .in_root = true, .at = at});
        history_change(h, op, cell, (struct value){0, 0}, (struct value){0, 0});
    }
    history_end(h, op);
    return 0;
}

/* A root block while the root line says that there is none, as pa_root has it for a moment. */
static int make_root_block(struct history *h, size_t size, unsigned char fill)
{
    struct poolside *p = poolside_of(h);
    struct pm_root *line = pool_root_line(p->pool);
    int code = pool_allocate(p->pool, &line->root, size);
    if (code != 0)
        return failed(h, "allocating at the root line", code);
    void *block = pa_direct(p->pool, line->root);
    size_t usable = pa_usable_size(p->pool, line->root);
    media_set(pool_media(p->pool), block, fill, usable);
    pa_persist(p->pool, block, usable);
    return 0;
}

int poolside_dirty_root(struct history *h, unsigned owners)
{
    struct poolside *p = poolside_of(h);
    size_t op = history_begin(h, "an earlier root is filled and given up");
    TRY(make_root_block(h, owners * sizeof(pa_pptr), 0xee));
    int code = pool_free(p->pool, &pool_root_line(p->pool)->root, NULL);
    history_end(h, op);
    return code == 0 ? 0 : failed(h, "freeing at the root line", code);
}

int poolside_root_in_cache(struct history *h, unsigned owners)
{
    struct poolside *p = poolside_of(h);
    const struct media *m = pool_media(p->pool);
    struct pm_root *line = pool_root_line(p->pool);
    size_t op = history_begin(h, "a root is made but not written back");
    media_store64(m, &line->check, ROOT_MAKING);
    pa_persist(p->pool, &line->check, sizeof line->check);
    TRY(make_root_block(h, owners * sizeof(pa_pptr), 0));
    media_store64(m, &line->size, owners * sizeof(pa_pptr));
    media_store64(m, &line->check, superblock_root_check(line));
    p->owners = owners;
    history_end(h, op);
    return poolside_kill(h);
}

int poolside_open(struct history *h, unsigned cores)
{
    struct poolside *p = poolside_of(h);
    pa_options o = p->options;
    o.cores = cores;
    o.ndirs = p->name_dirs ? o.ndirs : 0;
    p->judge_cores = cores;
    size_t op = history_begin(h, "pa_open with %u cores", cores);
    int code = pool_open_ex(h->dir, &o, &p->params, &p->pool);
    history_end(h, op);
    return code == 0 ? 0 : failed(h, "pa_open", code);
}

int poolside_close(struct history *h)
{
    struct poolside *p = poolside_of(h);
    size_t op = history_begin(h, "pa_close");
    int code = pa_close(p->pool);
    history_end(h, op);
    p->pool = NULL;
    return code == 0 ? 0 : failed(h, "pa_close", code);
}

int poolside_kill(struct history *h)
{
    struct poolside *p = poolside_of(h);
    pool_abandon(p->pool);
    recorder_killed(&h->recorder);
    p->pool = NULL;
    return 0;
}

/* --- blocks -------------------------------------------------------------------------------------------------------------- */

static bool is_any(struct value v)
{
    return v.a == UINT64_MAX && v.b == UINT64_MAX;
}

static void change_tracked(struct history *h, size_t op, uint32_t cell, struct value after)
{
    struct cell_place *place = &poolside_of(h)->cells[cell];
    history_change(h, op, cell, place->last, after);
    place->last = after;
}

/* The block of an owner cell has from now on, or will have, so many bytes; 0 = there is none. */
static void resize_tracked(struct history *h, size_t op, uint32_t owner, uint64_t usable)
{
    struct poolside *p = poolside_of(h);
    for (uint32_t i = 0; i < p->cells_count; i++) {
        const struct cell_place *place = &p->cells[i];
        if (place->kind == CELL_SIZE && place->owner == owner)
            change_tracked(h, op, i, (struct value){usable, 0});
        if (place->kind == CELL_STAMP && place->owner == owner && !is_any(place->last) &&
            place->at.offset + sizeof(uint64_t) > usable)
            change_tracked(h, op, i, VALUE_ANY);
    }
}

static int check_block(struct history *h, const char *what, pa_pptr block, size_t size, size_t alignment)
{
    const struct poolside *p = poolside_of(h);
    if (pa_is_null(block) || pa_usable_size(p->pool, block) < size)
        return history_fail(h, "%s of %zu gave a block of %zu", what, size, pa_usable_size(p->pool, block));
    if ((uintptr_t)pa_direct(p->pool, block) % alignment != 0)
        return history_fail(h, "%s of %zu gave a block that is not aligned to %zu", what, size, alignment);
    return 0;
}

/* alignment 0: pa_allocate. */
static int allocate(struct history *h, uint32_t cell, size_t size, size_t alignment)
{
    struct poolside *p = poolside_of(h);
    pa_pptr *dst = owner_address(h, cell);
    size_t op = history_begin(h, "allocate %zu into cell %u", size, cell);
    int code = alignment == 0 ? pa_allocate(p->pool, dst, size) : pa_allocate_aligned(p->pool, dst, size, alignment);
    history_change(h, op, cell, owner_value(PA_NULL), owner_value(*dst));
    resize_tracked(h, op, cell, pa_usable_size(p->pool, *dst));
    history_end(h, op);
    if (code != 0)
        return failed(h, "pa_allocate", code);
    return check_block(h, "pa_allocate", *dst, size, alignment == 0 ? 16 : alignment);
}

int poolside_alloc(struct history *h, uint32_t cell, size_t size)
{
    return allocate(h, cell, size, 0);
}

int poolside_alloc_aligned(struct history *h, uint32_t cell, size_t size, size_t alignment)
{
    return allocate(h, cell, size, alignment);
}

int poolside_reallocate(struct history *h, uint32_t cell, size_t size, enum poolside_move moves)
{
    struct poolside *p = poolside_of(h);
    pa_pptr *dst = owner_address(h, cell);
    pa_pptr before = *dst;
    size_t op = history_begin(h, "reallocate cell %u to %zu", cell, size);
    int code = pa_reallocate(p->pool, dst, size);
    history_change(h, op, cell, owner_value(before), owner_value(*dst));
    resize_tracked(h, op, cell, pa_usable_size(p->pool, *dst));
    history_end(h, op);
    if (code != 0)
        return failed(h, "pa_reallocate", code);
    bool moved = before.segment != dst->segment || before.offset != dst->offset;
    if (moves != EITHER && moved != (moves == MOVES))
        return history_fail(h, "pa_reallocate of cell %u to %zu %s", cell, size, moved ? "moves" : "stays");
    return check_block(h, "pa_reallocate", *dst, size, 16);
}

static uint32_t tracked_cell(struct poolside *p, enum cell_kind kind, uint32_t owner, uint64_t offset)
{
    for (uint32_t i = 0; i < p->cells_count; i++)
        if (p->cells[i].kind == kind && p->cells[i].owner == owner && p->cells[i].at.offset == offset)
            return i;
    return add_cell(p, (struct cell_place){.kind = kind, .owner = owner, .at = {0, offset}, .last = VALUE_ANY});
}

int poolside_stamp(struct history *h, uint32_t cell)
{
    struct poolside *p = poolside_of(h);
    pa_pptr block = poolside_read(h, cell);
    uint64_t usable = pa_usable_size(p->pool, block);
    uint64_t offsets[] = {0, usable / 2 & ~(uint64_t)7, usable - 8};
    size_t op = history_begin(h, "stamp the block of cell %u", cell);
    history_loose(h, op);
    change_tracked(h, op, tracked_cell(p, CELL_SIZE, cell, 0), (struct value){usable, 0});
    for (unsigned i = 0; i < 3; i++) {
        uint64_t stamp = 0x5eed000000000000u + ++p->stamps;
        void *at = (char *)pa_direct(p->pool, block) + offsets[i];
        change_tracked(h, op, tracked_cell(p, CELL_STAMP, cell, offsets[i]), (struct value){stamp, 0});
        media_write(pool_media(p->pool), at, &stamp, sizeof stamp);
        pa_flush(p->pool, at, sizeof stamp);
    }
    pa_drain(p->pool);
    history_end(h, op);
    return 0;
}

int poolside_free_with(struct history *h, uint32_t cell, const uint32_t *inside, unsigned count)
{
    struct poolside *p = poolside_of(h);
    pa_pptr *dst = owner_address(h, cell);
    struct value before = owner_value(*dst);
    size_t op = history_begin(h, "free cell %u", cell);
    history_change(h, op, cell, before, owner_value(PA_NULL));
    resize_tracked(h, op, cell, 0);
    for (unsigned i = 0; i < count; i++) {
        const struct cell_place *place = &p->cells[inside[i]];
        struct value old = {*(uint64_t *)address_of(h, inside[i]), 0};
        if (place->kind == CELL_OWNER)
            old = owner_value(*owner_address(h, inside[i]));
        history_change(h, op, inside[i], old, VALUE_ANY);
    }
    int code = pa_deallocate(p->pool, dst);
    history_end(h, op);
    return code == 0 ? 0 : failed(h, "pa_deallocate", code);
}

int poolside_free(struct history *h, uint32_t cell)
{
    return poolside_free_with(h, cell, NULL, 0);
}

static int store(struct history *h, uint32_t cell, enum cell_kind kind, struct value before, struct value after)
{
    struct poolside *p = poolside_of(h);
    void *at = address_of(h, cell);
    uint64_t words[2] = {after.a, after.b};
    size_t op = history_begin(h, "set cell %u to %llu", cell, (unsigned long long)after.a);
    history_change(h, op, cell, before, after);
    history_loose(h, op); /* the program's own store, which may be seen before it is durable */
    pa_memcpy_persist(p->pool, at, words, kind == CELL_WORD ? sizeof words[0] : sizeof words);
    history_end(h, op);
    return 0;
}

int poolside_cell_in(struct history *h, enum cell_kind kind, uint32_t block_owner, uint64_t offset, uint32_t *ret_cell)
{
    struct poolside *p = poolside_of(h);
    pa_pptr block = poolside_read(h, block_owner);
    pa_pptr at = {block.segment, block.offset + offset};
    *ret_cell = add_cell(p, (struct cell_place){.kind = kind, .at = at});
    return store(h, *ret_cell, kind, VALUE_ANY, (struct value){0, 0});
}

int poolside_set(struct history *h, uint32_t cell, uint64_t value)
{
    struct value before = {*(uint64_t *)address_of(h, cell), 0};
    return store(h, cell, CELL_WORD, before, (struct value){value, 0});
}

int poolside_dirty(struct history *h, uint32_t cell)
{
    struct poolside *p = poolside_of(h);
    pa_pptr block = poolside_read(h, cell);
    void *address = pa_direct(p->pool, block);
    size_t size = pa_usable_size(p->pool, block);
    size_t op = history_begin(h, "fill the block of cell %u", cell);
    media_set(pool_media(p->pool), address, 0xee, size);
    pa_persist(p->pool, address, size);
    history_end(h, op);
    return 0;
}

int poolside_spare(struct history *h)
{
    struct poolside *p = poolside_of(h);
    size_t op = history_begin(h, "a segment is made ahead");
    int code = manager_make_spare(&p->pool->manager);
    history_end(h, op);
    return code == 0 ? 0 : failed(h, "manager_make_spare", code);
}

int poolside_segment_in_cache(struct history *h)
{
    struct poolside *p = poolside_of(h);
    struct segment *s;
    uint64_t lsn;
    size_t op = history_begin(h, "a free segment is taken, and its word not written back");
    h->recorder.dying = true; /* one store */
    int code = manager_acquire(&p->pool->manager, SEGMENT_KIND_SMALL, 0, &s, &lsn);
    h->recorder.dying = false;
    history_end(h, op);
    if (code != 0)
        return failed(h, "manager_acquire", code);
    return poolside_kill(h);
}

int poolside_deletion_in_cache(struct history *h, uint32_t slot, bool removed)
{
    struct poolside *p = poolside_of(h);
    struct manager *m = &p->pool->manager;
    struct media_tally t = {0};
    uint64_t deleting = segment_word(SEGMENT_STATE_DELETING, SEGMENT_KIND_NONE, 0, slot);
    int code = 0;
    size_t op =
        history_begin(h, "segment %u is deleted, and its %s word not written back", slot, removed ? "last" : "first");
    h->recorder.dying = !removed;
    provider_set_word(m, &t, slot, deleting);
    h->recorder.dying = true;
    if (removed)
        code = provider_remove_file(m, &t, slot);
    h->recorder.dying = false;
    history_end(h, op);
    if (code != 0)
        return failed(h, "provider_remove_file", code);
    return poolside_kill(h);
}

int poolside_defragment(struct history *h, uint64_t target_bytes, bool must)
{
    struct poolside *p = poolside_of(h);
    uint64_t released;
    size_t op = history_begin(h, "pa_defragment to %llu bytes", (unsigned long long)target_bytes);
    int code = pa_defragment(p->pool, target_bytes, &released);
    history_end(h, op);
    if (code == 0 && must && released == 0)
        return history_fail(h, "pa_defragment gives nothing back");
    return code == 0 ? 0 : failed(h, "pa_defragment", code);
}

/* Each step durable before the next: the block always has an owner. */
int poolside_move(struct history *h, uint32_t from, uint32_t to)
{
    struct poolside *p = poolside_of(h);
    pa_pptr *source = owner_address(h, from), *target = owner_address(h, to);
    pa_pptr block = *source, null = PA_NULL;
    size_t op = history_begin(h, "the program moves cell %u to cell %u", from, to);
    history_change(h, op, from, owner_value(block), owner_value(PA_NULL));
    history_change(h, op, to, owner_value(PA_NULL), owner_value(block));
    history_loose(h, op);
    media_write(pool_media(p->pool), target, &block, sizeof block);
    pa_flush(p->pool, target, sizeof block);
    pa_drain(p->pool);
    media_write(pool_media(p->pool), source, &null, sizeof null);
    pa_persist(p->pool, source, sizeof null);
    history_end(h, op);
    return 0;
}

/* --- trees --------------------------------------------------------------------------------------------------------------- */

int poolside_tree_open(struct history *h, uint32_t anchor, unsigned *ret_tree)
{
    struct poolside *p = poolside_of(h);
    pa_pptr *at = owner_address(h, anchor);
    unsigned number = 0;
    while (number < p->trees_count && p->trees[number].anchor != anchor)
        number++;
    struct value before = owner_value(*at);
    size_t op = history_begin(h, "fptree_open at cell %u", anchor);
    int code = fptree_open(p->pool, at, &p->trees[number].tree);
    history_change(h, op, anchor, before, owner_value(*at));
    history_end(h, op);
    if (code != 0)
        return failed(h, "fptree_open", code);
    p->trees[number].anchor = anchor;
    if (number == p->trees_count)
        p->trees_count++;
    *ret_tree = number;
    return 0;
}

int poolside_tree_close(struct history *h, unsigned tree)
{
    struct poolside *p = poolside_of(h);
    size_t op = history_begin(h, "fptree_close");
    int code = fptree_close(p->trees[tree].tree);
    history_end(h, op);
    p->trees[tree].tree = NULL;
    return code == 0 ? 0 : failed(h, "fptree_close", code);
}

/* The handle's memory is lost, as it would be with the process. */
int poolside_tree_abandon(struct history *h, unsigned tree)
{
    poolside_of(h)->trees[tree].tree = NULL;
    return 0;
}

static uint32_t key_cell(struct poolside *p, unsigned tree, uint64_t key)
{
    for (uint32_t i = 0; i < p->cells_count; i++)
        if (p->cells[i].kind == CELL_KEY && p->cells[i].tree == tree && p->cells[i].key == key)
            return i;
    return add_cell(p, (struct cell_place){.kind = CELL_KEY, .tree = tree, .key = key});
}

static struct value key_value(fptree *t, uint64_t key)
{
    uint64_t value;
    return fptree_find(t, key, &value) == 0 ? (struct value){1, value} : (struct value){0, 0};
}

int poolside_tree_has(struct history *h, unsigned tree, uint64_t key, bool *ret_there)
{
    *ret_there = key_value(poolside_of(h)->trees[tree].tree, key).a != 0;
    return 0;
}

int poolside_tree_op(struct history *h, unsigned tree, char what, uint64_t key, uint64_t value)
{
    struct poolside *p = poolside_of(h);
    fptree *t = p->trees[tree].tree;
    uint32_t cell = key_cell(p, tree, key);
    struct value before = key_value(t, key);
    struct value after = what == 'r' ? (struct value){0, 0} : (struct value){1, value};
    size_t op = history_begin(h, "%s key %llu",
                              what == 'i'   ? "insert"
                              : what == 'u' ? "upsert"
                                            : "remove",
                              (unsigned long long)key);
    history_change(h, op, cell, before, after);
    int code = what == 'i'   ? fptree_insert(t, key, value)
               : what == 'u' ? fptree_upsert(t, key, value)
                             : fptree_remove(t, key);
    history_end(h, op);
    if (code != 0)
        return failed(h, "a tree operation", code);
    struct value now = key_value(t, key);
    if (now.a != after.a || now.b != after.b)
        return history_fail(h, "key %llu is not as the operation made it", (unsigned long long)key);
    return 0;
}
