/* SPDX-License-Identifier: BSD-3-Clause */
/* big_load.c -- reading the block index into the free index. What it says is input. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "big/big_private.h"

void big_init(struct big *o, struct core *core, struct manager *m, const struct big_space *space, uint16_t number)
{
    *o = (struct big){.core = core, .manager = m, .space = *space, .number = number};
    big_free_init(&o->free);
}

static void unload(struct big *o)
{
    big_free_fini(&o->free);
    tree_close(o->index);
    o->index = NULL;
    o->loaded = false;
    o->incomplete = false;
    o->allocated_blocks = o->allocated_bytes = 0;
}

void big_fini(struct big *o)
{
    unload(o);
}

pa_pptr *big_index_owner(const struct manager *m, uint32_t number)
{
    uint32_t lanes = m->geometry.lanes;
    return number < lanes ? &manager_core_line(m, number)->index : &manager_core_line(m, number - lanes)->young;
}

uint64_t big_size_max(uint64_t segment_size)
{
    uint64_t data = segment_size - big_first_of(segment_size);
    return data < BIG_SIZE_MAX ? data : BIG_SIZE_MAX;
}

/* The walk over the index: where the next pair must begin. */
struct load {
    struct big *o;
    uint32_t slot; /* of the segment that is being covered; 0 = none */
    pa_off next;   /* end of the last block */
    bool last_was_free;
    uint8_t *covered; /* per slot: has pairs */
};

static int bad_pair(const struct load *l, uint64_t key, const char *what)
{
    pa_pptr p = manager_pptr(l->o->manager, key);
    return error_set(PA_ECORRUPT, "the pair of segment %llu offset %llu %s; restore the pool from a backup",
                     (unsigned long long)p.segment, (unsigned long long)p.offset, what);
}

static bool is_mine(const struct big *o, const struct segment *s)
{
    return segment_is_present(s) && atomic_load(&s->kind) == SEGMENT_KIND_BIG && atomic_load(&s->owner) == o->number;
}

/* Does the walk stand at the end of its segment (or before the first one)? */
static bool at_segment_end(const struct load *l)
{
    return l->slot == 0 || l->next == (pa_off)(l->slot + 1) << l->o->manager->shift;
}

static int add_free(struct big *o, pa_off off, uint32_t pages, enum big_state state, bool whole)
{
    struct big_block *b = calloc(1, sizeof *b);
    if (b == NULL)
        return error_set(PA_ENOMEM, "no memory for a free block's descriptor");
    *b = (struct big_block){.off = off, .pages = pages, .state = (uint8_t)state, .whole = whole, .filled = true};
    big_free_insert(&o->free, b);
    return 0;
}

static int enter_segment(struct load *l, uint64_t key)
{
    const struct manager *m = l->o->manager;
    pa_pptr p = manager_pptr(m, key);
    if (!at_segment_end(l))
        return bad_pair(l, key, "leaves a gap before it");
    if (!is_mine(l->o, manager_segment(m, p.segment)) || p.offset != big_first_of(m->geometry.segment_size))
        return bad_pair(l, key, "lies where no block of this allocator can begin");
    l->slot = (uint32_t)p.segment;
    l->next = key;
    l->last_was_free = false;
    l->covered[l->slot] = 1;
    return 0;
}

static int load_pair(uint64_t key, uint64_t value, void *arg)
{
    struct load *l = arg;
    uint32_t pages = big_value_pages(value);
    enum big_state state = big_value_state(value);
    if (key >> l->o->manager->shift != l->slot) {
        int code = enter_segment(l, key);
        if (code != 0)
            return code;
    }
    uint64_t end = key + ((uint64_t)pages << BIG_PAGE_SHIFT);
    if (key != l->next || pages == 0 || state < BIG_USED || state > BIG_HOLE ||
        end > (pa_off)(l->slot + 1) << l->o->manager->shift)
        return bad_pair(l, key, "contradicts its neighbour or its segment");
    bool free = state != BIG_USED;
    if (free && l->last_was_free)
        return bad_pair(l, key, "is free beside a free block");
    l->last_was_free = free;
    l->next = end;
    if (free)
        return add_free(l->o, key, pages, state, false);
    l->o->allocated_blocks++;
    l->o->allocated_bytes += (uint64_t)pages << BIG_PAGE_SHIFT;
    return 0;
}

uint32_t big_segment_pages(const struct manager *m)
{
    return (uint32_t)((m->geometry.segment_size - big_first_of(m->geometry.segment_size)) >> BIG_PAGE_SHIFT);
}

/* Without a pair nothing tells whether there are holes, so the file is asked. Space that it has since a process was killed while it
 * filled a hole may still be lost, so it is made durable before it counts. */
static int whole_state(const struct big *o, const struct segment *s, enum big_state *ret_state)
{
    uint64_t resident = 0;
    int code = o->manager->sparse ? 0 : file_resident_bytes(o->manager->dir, &s->file, &resident);
    bool holes = !o->manager->sparse && resident < s->file.size;
    *ret_state = holes ? BIG_HOLE : BIG_FREE;
    if (code == 0 && !holes)
        code = manager_keep_space(o->manager, (pa_off)s->slot << o->manager->shift);
    return code;
}

/* The index is named before the first segment is taken. */
static int missing_index(const struct big *o, uint32_t slot)
{
    return error_set(
        PA_ECORRUPT,
        "pool.pa: segment %u belongs to block index %u, which core line %u does not name; restore the pool "
        "from a backup",
        slot, o->number, o->number % o->manager->geometry.lanes);
}

/* Segments of ours without a pair are free as a whole. */
static int add_whole(struct big *o, const uint8_t *covered, uint32_t end)
{
    const struct manager *m = o->manager;
    for (uint32_t slot = 0; slot < end; slot++)
        if (!covered[slot] && is_mine(o, manager_segment(m, slot))) {
            if (o->index == NULL)
                return missing_index(o, slot);
            pa_off off = ((pa_off)slot << m->shift) + big_first_of(m->geometry.segment_size);
            enum big_state state = BIG_FREE;
            int code = whole_state(o, manager_segment(m, slot), &state);
            if (code == 0)
                code = add_free(o, off, big_segment_pages(m), state, true);
            if (code != 0)
                return code;
        }
    return 0;
}

static int read_index(struct big *o)
{
    struct load l = {.o = o};
    /* Without the core locked, others' segments may still be added behind; ours are all there. */
    uint32_t end = atomic_load(&o->manager->slots_end);
    l.covered = calloc((size_t)end + 1, 1);
    if (l.covered == NULL)
        return error_set(PA_ENOMEM, "no memory to read block index %u", o->number);
    int code = o->index == NULL ? 0 : tree_scan(o->index, 0, load_pair, &l);
    if (code == 0 && !at_segment_end(&l))
        code = bad_pair(&l, l.next, "is missing");
    if (code == 0)
        code = add_whole(o, l.covered, end);
    free(l.covered);
    return code;
}

static bool has_segments(const struct big *o)
{
    const struct manager *m = o->manager;
    for (uint32_t slot = 0; slot < atomic_load(&m->slots_end); slot++)
        if (is_mine(o, manager_segment(m, slot)))
            return true;
    return false;
}

static bool is_others(const struct big *o, pa_pptr root)
{
    const struct manager *m = o->manager;
    for (uint32_t i = 0; i < 2 * m->geometry.lanes; i++) {
        const pa_pptr *other = big_index_owner(m, i); /* another thread may just make it */
        if (i != o->number && __atomic_load_n(&other->offset, __ATOMIC_RELAXED) == root.offset &&
            __atomic_load_n(&other->segment, __ATOMIC_RELAXED) == root.segment)
            return true;
    }
    return false;
}

/* The index was made, durably, before the first segment was acquired: so segments without one are damage. */
static int open_index(struct big *o)
{
    const struct manager *m = o->manager;
    pa_pptr root = *big_index_owner(m, o->number);
    if (pa_is_null(root) && !has_segments(o))
        return 0;
    pa_off off = manager_off(m, root);
    if (root.segment >= m->slots || root.offset >> m->shift != 0 || is_others(o, root) ||
        !o->space.leaves.is_valid(o->space.leaves.context, off, TREE_HEADER_BYTES))
        return error_set(PA_ECORRUPT,
                         "%s/" POOL_FILE_NAME ": core line %u names no block index; restore the pool from a backup",
                         m->dir->path, o->number);
    const struct pm_tree_header *header = (const struct pm_tree_header *)(m->base + off);
    if (header->magic == 0 && has_segments(o))
        return error_set(
            PA_ECORRUPT,
            "%s: the header of block index %u at segment %llu offset %llu is damaged; restore the pool from a "
            "backup",
            m->dir->path, o->number, (unsigned long long)root.segment, (unsigned long long)root.offset);
    struct tree_space space = o->space.leaves;
    if (space.newest_lsn == 0)
        space.newest_lsn = o->core->lane.lsn;
    return tree_open(&space, off, TREE_RULE_LOG, &o->index);
}

/* The tree does not know whose it is. */
static int say_where(const struct big *o, int code)
{
    struct error_text cause;
    error_save(&cause);
    const char *path = o->manager->dir->path;
    if (code != PA_ECORRUPT || strstr(cause.text, path) != NULL)
        return code;
    bool remedy = strstr(cause.text, "restore") != NULL;
    return error_set(code, "%s: block index %u: %s%s", path, o->number, cause.text,
                     remedy ? "" : "; restore the pool from a backup");
}

int big_load(struct big *o)
{
    if (__builtin_expect(o->loaded && !o->incomplete, 1))
        return 0;
    unload(o);
    int code = open_index(o);
    if (code == 0)
        code = read_index(o);
    if (code != 0) {
        code = say_where(o, code);
        unload(o);
        return code;
    }
    o->loaded = true;
    return 0;
}

void big_adopt(struct big *o, struct big *read, void *context)
{
    unload(o);
    tree_move(read->index, context);
    o->index = read->index;
    o->free = read->free;
    o->allocated_bytes = read->allocated_bytes;
    o->allocated_blocks = read->allocated_blocks;
    o->loaded = true;
    read->index = NULL;
    big_free_init(&read->free);
}

int big_check(struct big *o)
{
    int code = big_load(o);
    if (code == 0 && o->index != NULL)
        code = say_where(o, tree_check(o->index, NULL));
    return code;
}

int big_foreach_leaf(struct big *o, int (*visit)(pa_off off, void *arg), void *arg)
{
    pa_pptr root = *big_index_owner(o->manager, o->number);
    int result = pa_is_null(root) ? 0 : visit(manager_off(o->manager, root), arg);
    return result == 0 && o->index != NULL ? tree_foreach_block(o->index, visit, arg) : result;
}
