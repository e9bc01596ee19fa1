/* SPDX-License-Identifier: BSD-3-Clause */
/* poolside_judge.c -- is a crash state's pool as the history allows? See poolside.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "pool/pool_fptree.h"
#include "tests/explore/poolside.h"

#define BLOCKS_MAX 4096u

struct block {
    pa_off off;
    uint64_t bytes;
    bool owned;
};

/** An open state in judgement. */
struct look {
    struct judge *j;
    struct poolside *p;
    pa_pool *pool;
    pa_pptr root;
    fptree *trees[TREES_MAX];
    struct block blocks[BLOCKS_MAX];
    unsigned blocks_count;
    pa_pptr *to_free[BLOCKS_MAX];
    unsigned to_free_count;
};

/* --- opening ------------------------------------------------------------------------------------------------------------- */

/* Creation was cut off: there may be no pool. */
static bool may_not_exist(const struct look *l)
{
    const struct history *h = l->j->history;
    return l->p->may_not_exist && !l->j->shown && op_state_at(&h->ops[l->p->creation], l->j->event) != OP_ENDED;
}

static int open_state(struct look *l, unsigned cores, uint64_t max_size)
{
    struct pool_params params = l->p->params;
    pa_options o = l->p->options;
    params.recorder = &l->j->recorder->media;
    params.hooks = &l->j->recorder->hooks;
    params.background = false;
    o.cores = cores;
    o.max_size = max_size;
    o.ndirs = l->p->name_dirs ? o.ndirs : 0;
    int code = pool_open_ex(l->j->dir, &o, &params, &l->pool);
    o.ndirs = l->p->options.ndirs;
    if (code == PA_ENOENT && may_not_exist(l)) {
        code = pool_create_ex(l->j->dir, &o, &params, &l->pool);
        if (code != 0)
            judge_fail(l->j, "there is no pool, and pa_create refuses: %s", pa_errormsg());
        return code;
    }
    if (code != 0)
        judge_fail(l->j, "pa_open gives %d: %s", code, pa_errormsg());
    return code;
}

static int open_root(struct look *l)
{
    if (l->p->owners == 0)
        return 0;
    int code = pa_root(l->pool, l->p->owners * sizeof(pa_pptr), &l->root);
    if (code != 0)
        judge_fail(l->j, "pa_root gives %d: %s", code, pa_errormsg());
    return code;
}

static void close_state(struct look *l)
{
    for (unsigned i = 0; i < TREES_MAX; i++)
        fptree_close(l->trees[i]);
    if (l->pool != NULL && pa_close(l->pool) != 0)
        judge_fail(l->j, "pa_close: %s", pa_errormsg());
    l->pool = NULL;
}

/* --- cells --------------------------------------------------------------------------------------------------------------- */

static pa_pptr *place_address(const struct look *l, const struct cell_place *place)
{
    return cell_address(l->pool, l->root, place);
}

static int open_trees(struct look *l)
{
    for (unsigned i = 0; i < l->p->trees_count; i++) {
        pa_pptr *anchor = place_address(l, &l->p->cells[l->p->trees[i].anchor]);
        if (anchor == NULL || pa_is_null(*anchor))
            continue;
        int code = fptree_open(l->pool, anchor, &l->trees[i]);
        if (code == 0)
            code = fptree_check(l->trees[i], NULL);
        if (code != 0) {
            judge_fail(l->j, "tree %u: %d: %s", i, code, pa_errormsg());
            return code;
        }
    }
    return 0;
}

static bool read_key(const struct look *l, const struct cell_place *place, struct value *ret)
{
    uint64_t value = 0;
    bool there = l->trees[place->tree] != NULL && fptree_find(l->trees[place->tree], place->key, &value) == 0;
    *ret = there ? (struct value){1, value} : (struct value){0, 0};
    return true;
}

/* The size of the block that an owner cell names, or a word in it; {0, 0} if it names none. */
static bool read_tracked(const struct look *l, const struct cell_place *place, struct value *ret)
{
    const pa_pptr *owner = place_address(l, &l->p->cells[place->owner]);
    uint64_t usable = owner == NULL || pa_is_null(*owner) ? 0 : pa_usable_size(l->pool, *owner);
    *ret = (struct value){0, 0};
    if (place->kind == CELL_SIZE)
        ret->a = usable;
    else if (place->at.offset + sizeof ret->a <= usable)
        memcpy(&ret->a, (char *)pa_direct(l->pool, *owner) + place->at.offset, sizeof ret->a);
    return true;
}

static bool read_cell(struct judge *j, uint32_t number, struct value *ret, void *arg)
{
    const struct look *l = arg;
    const struct cell_place *place = &l->p->cells[number];
    if (place->kind == CELL_KEY)
        return read_key(l, place, ret);
    if (place->kind == CELL_SIZE || place->kind == CELL_STAMP)
        return read_tracked(l, place, ret);
    const uint64_t *words = (const uint64_t *)place_address(l, place);
    if (words == NULL) {
        judge_fail(j, "cell %u lies outside the pool", number);
        return false;
    }
    *ret = (struct value){words[0], place->kind == CELL_OWNER ? words[1] : 0};
    return true;
}

/* --- blocks -------------------------------------------------------------------------------------------------------------- */

static int note_block(pa_pptr block, size_t usable, void *arg)
{
    struct look *l = arg;
    if (l->blocks_count == BLOCKS_MAX)
        return 1;
    l->blocks[l->blocks_count++] = (struct block){pa_off_of(l->pool, block), usable, false};
    return 0;
}

static int compare_blocks(const void *a, const void *b)
{
    const struct block *x = a, *y = b;
    return x->off < y->off ? -1 : x->off > y->off;
}

static void collect_blocks(struct look *l)
{
    l->blocks_count = 0;
    int code = pa_foreach(l->pool, note_block, l);
    if (code != 0)
        judge_fail(l->j, "pa_foreach: %d: %s", code, code < 0 ? pa_errormsg() : "too many blocks");
    qsort(l->blocks, l->blocks_count, sizeof *l->blocks, compare_blocks);
    for (unsigned i = 1; i < l->blocks_count; i++)
        if (l->blocks[i - 1].off + l->blocks[i - 1].bytes > l->blocks[i].off)
            judge_fail(l->j, "the blocks at %llx (%llu bytes) and %llx overlap",
                       (unsigned long long)l->blocks[i - 1].off, (unsigned long long)l->blocks[i - 1].bytes,
                       (unsigned long long)l->blocks[i].off);
    for (unsigned i = 0; i < l->blocks_count; i++)
        l->j->fingerprint = mix64(l->j->fingerprint ^ mix64(l->blocks[i].off) ^ l->blocks[i].bytes);
}

static void own(struct look *l, pa_pptr p, const char *who, unsigned long long which)
{
    struct block key = {.off = pa_off_of(l->pool, p)};
    struct block *b = bsearch(&key, l->blocks, l->blocks_count, sizeof key, compare_blocks);
    if (b == NULL)
        judge_fail(l->j, "%s %llu names {%llx, %llx}, which is not allocated", who, which,
                   (unsigned long long)p.segment, (unsigned long long)p.offset);
    else if (b->owned)
        judge_fail(l->j, "%s %llu names {%llx, %llx}, which has another owner", who, which,
                   (unsigned long long)p.segment, (unsigned long long)p.offset);
    else
        b->owned = true;
}

static void own_cell(struct judge *j, uint32_t number, struct value v, void *arg)
{
    struct look *l = arg;
    (void)j;
    if (l->p->cells[number].kind == CELL_OWNER && (v.a | v.b) != 0)
        own(l, (pa_pptr){v.a, v.b}, "cell", number);
}

static int own_tree_block(pa_off block, void *arg)
{
    struct look *l = arg;
    own(l, pa_off_pptr(l->pool, block), "tree block", block);
    return 0;
}

static int count_name(const char *name, void *arg)
{
    *(uint64_t *)arg += strncmp(name, "repair-", 7) != 0; /* a backup directory */
    return 0;
}

/* What the program holds has space in the file system: no store to it dies on a full one. */
static void judge_space(struct look *l)
{
    for (unsigned i = 0; i < l->blocks_count; i++)
        if (!recorder_has_space(l->j->recorder, pa_off_direct(l->pool, l->blocks[i].off), l->blocks[i].bytes))
            judge_fail(l->j, "the block at {%llx, %llx} of %llu bytes lies in a hole of its file",
                       (unsigned long long)pa_off_pptr(l->pool, l->blocks[i].off).segment,
                       (unsigned long long)pa_off_pptr(l->pool, l->blocks[i].off).offset,
                       (unsigned long long)l->blocks[i].bytes);
}

/* No file stays behind that belongs to nothing. */
static void judge_files(struct look *l, const pa_stats *stats)
{
    uint64_t files = 0, dirs = l->p->options.ndirs;
    int code = dir_foreach(pool_dir(l->pool), count_name, &files);
    for (unsigned k = 1; code == 0 && k <= dirs; k++) {
        char name[NAME_BYTES];
        snprintf(name, sizeof name, "dir-%u", k);
        code = dir_foreach_in(pool_dir(l->pool), name, count_name, &files);
    }
    if (code != 0)
        judge_fail(l->j, "listing the directories: %s", pa_errormsg());
    else if (files != 1 + 2 * dirs + stats->segment_files + stats->huge_files)
        judge_fail(l->j, "there are %llu names instead of 1 pool file, %llu links, their member.pa, and %llu files",
                   (unsigned long long)files, (unsigned long long)dirs,
                   (unsigned long long)(stats->segment_files + stats->huge_files));
}

static void judge_stats(struct look *l)
{
    pa_stats stats;
    uint64_t bytes = 0;
    for (unsigned i = 0; i < l->blocks_count; i++)
        bytes += l->blocks[i].bytes;
    int code = pa_get_stats(l->pool, &stats);
    if (code != 0)
        judge_fail(l->j, "pa_get_stats: %d: %s", code, pa_errormsg());
    else if (stats.allocated_blocks != l->blocks_count || stats.allocated_bytes != bytes)
        judge_fail(l->j, "statistics say %llu blocks of %llu bytes, the walk %u of %llu",
                   (unsigned long long)stats.allocated_blocks, (unsigned long long)stats.allocated_bytes,
                   l->blocks_count, (unsigned long long)bytes);
    else
        judge_files(l, &stats);
}

static bool cell_names(const struct look *l, uint32_t cell, struct value v)
{
    const pa_pptr *p = place_address(l, &l->p->cells[cell]);
    return p != NULL && p->segment == v.a && p->offset == v.b;
}

/* While the program moves a pointer, the old or the new owner names the block, or both. */
static void own_loose(struct look *l)
{
    const struct history *h = l->j->history;
    for (size_t i = 0; i < h->ops_count; i++) {
        const struct op *op = &h->ops[i];
        if (!op->loose || op->changes_count != 2 || op_state_at(op, l->j->event) != OP_IN_FLIGHT)
            continue;
        struct value block = op->changes[0].before;
        if (!cell_names(l, op->changes[0].cell, block) && !cell_names(l, op->changes[1].cell, block))
            judge_fail(l->j, "neither cell %u nor cell %u names the block that is moved", op->changes[0].cell,
                       op->changes[1].cell);
        own(l, (pa_pptr){block.a, block.b}, "the move of cell", op->changes[0].cell);
    }
}

static void judge_content(struct look *l)
{
    collect_blocks(l);
    if (!pa_is_null(l->root))
        own(l, l->root, "the root", 0);
    judge_cells(l->j, &(struct cells){.read = read_cell, .found = own_cell, .arg = l});
    own_loose(l);
    for (unsigned i = 0; i < l->p->trees_count; i++)
        if (l->trees[i] != NULL)
            fptree_foreach_block(l->trees[i], own_tree_block, l);
    for (unsigned i = 0; i < l->blocks_count && l->j->why[0] == '\0'; i++)
        if (!l->blocks[i].owned)
            judge_fail(l->j, "the block at {%llx, %llx} of %llu bytes is allocated but nobody's",
                       (unsigned long long)pa_off_pptr(l->pool, l->blocks[i].off).segment,
                       (unsigned long long)pa_off_pptr(l->pool, l->blocks[i].off).offset,
                       (unsigned long long)l->blocks[i].bytes);
    if (l->j->why[0] == '\0')
        judge_stats(l);
    if (l->j->why[0] == '\0' && (l->p->options.flags & PA_SPARSE) == 0)
        judge_space(l);
}

/* A key that no history uses, above all that they use. */
#define WORK_KEY   (UINT64_C(1) << 40)
#define WORK_VALUE 0x70757421u

/* Work goes on in what was found, recorded and cut like the opening itself. The first writer of a leaf after a crash cleans it;
 * what it has cleaned must stay so whatever fails next, or what this opening has found is not what the next one finds. */
static void work_on(struct look *l)
{
    for (unsigned i = 0; i < l->p->trees_count && l->j->why[0] == '\0'; i++) {
        uint64_t value = WORK_VALUE;
        if (l->trees[i] == NULL)
            continue;
        int code = fptree_find(l->trees[i], WORK_KEY, &value);
        if (code == 0 || code == PA_ENOENT)
            code = fptree_upsert(l->trees[i], WORK_KEY, WORK_VALUE);
        if (code == 0)
            code = fptree_remove(l->trees[i], WORK_KEY);
        if (code != 0 || value != WORK_VALUE)
            judge_fail(l->j, "working on in tree %u gives %d, value %llx: %s", i, code, (unsigned long long)value,
                       pa_errormsg());
    }
}

static void judge_open(struct look *l, bool works)
{
    if (open_state(l, l->p->judge_cores, 0) == 0 && open_root(l) == 0 && open_trees(l) == 0) {
        l->j->opened = l->j->recorder->trace->count;
        recorder_opened(l->j->recorder);
        judge_content(l);
        if (works)
            work_on(l);
        if (l->p->trees_count > 0) /* the work may have given leaves back */
            l->j->fingerprint = l->j->cells;
    }
    close_state(l);
}

static void judge_again(struct look *l)
{
    char *report = NULL;
    int code = pa_check(l->j->dir, &report);
    if (code != 0)
        judge_fail(l->j, "pa_check gives %d: %.300s", code, report == NULL ? "" : report);
    free(report);
    if (l->j->why[0] == '\0')
        judge_open(l, false);
}

/* --- filling ------------------------------------------------------------------------------------------------------------- */

#define CHAIN_MAX 16384u

/* Blocks that own one another, from an owner pointer on, until there is no space for one more. */
static unsigned fill_chain(struct look *l, pa_pptr *dst, size_t size, pa_pptr **chain, unsigned count,
                           pa_pptr **ret_last)
{
    static const pa_pptr null;
    while (count < CHAIN_MAX) {
        int code = pa_allocate(l->pool, dst, size);
        if (code == PA_ENOSPC)
            break;
        if (code != 0) {
            judge_fail(l->j, "filling: pa_allocate of %zu gives %d: %s", size, code, pa_errormsg());
            break;
        }
        chain[count++] = dst;
        dst = pa_direct(l->pool, *dst);
        media_write(pool_media(l->pool), dst, &null, sizeof null);
    }
    *ret_last = dst;
    return count;
}

static void empty_chain(struct look *l, pa_pptr **chain, unsigned count)
{
    while (count-- > 0 && l->j->why[0] == '\0')
        if (pa_deallocate(l->pool, chain[count]) != 0)
            judge_fail(l->j, "emptying: pa_deallocate: %s", pa_errormsg());
}

/* Note the owners to free; not yet, because other cells are about their blocks. */
static void note_to_free(struct judge *j, uint32_t number, struct value v, void *arg)
{
    struct look *l = arg;
    const struct cell_place *place = &l->p->cells[number];
    (void)j;
    if (place->kind != CELL_OWNER || !place->in_root || (v.a | v.b) == 0)
        return;
    for (unsigned i = 0; i < l->p->trees_count; i++)
        if (l->p->trees[i].anchor == number)
            return;
    if (l->to_free_count < BLOCKS_MAX)
        l->to_free[l->to_free_count++] = place_address(l, place);
}

static void free_owners(struct look *l)
{
    uint64_t before = l->j->fingerprint;
    judge_cells(l->j, &(struct cells){.read = read_cell, .found = note_to_free, .arg = l});
    l->j->fingerprint = before;
    for (unsigned i = 0; i < l->to_free_count && l->j->why[0] == '\0'; i++)
        if (pa_deallocate(l->pool, l->to_free[i]) != 0)
            judge_fail(l->j, "emptying: pa_deallocate: %s", pa_errormsg());
}

/* Every owner is in the root block, and none is just being moved by the program. */
static bool can_be_emptied(const struct look *l)
{
    const struct history *h = l->j->history;
    bool can = l->p->trees_count == 0;
    for (uint32_t i = 0; i < l->p->cells_count; i++)
        can &= l->p->cells[i].kind != CELL_OWNER || l->p->cells[i].in_root;
    for (size_t i = 0; i < h->ops_count; i++)
        can &= !h->ops[i].loose || op_state_at(&h->ops[i], l->j->event) != OP_IN_FLIGHT;
    return can;
}

/* As many huge blocks as fit, twice. */
static void judge_fill_huge(struct look *l, pa_pptr *first)
{
    static pa_pptr *chain[CHAIN_MAX];
    pa_pptr *last;
    size_t size = big_size_max(l->p->options.segment_size) + 1;
    unsigned all = fill_chain(l, first, size, chain, 0, &last);
    empty_chain(l, chain, all);
    unsigned again = fill_chain(l, first, size, chain, 0, &last);
    if (again < all)
        judge_fail(l->j, "%u huge blocks fitted, after emptying only %u", all, again);
    empty_chain(l, chain, again);
}

/* Fill with large blocks, then with small ones; take all out again; what fitted first must fit again. */
static void judge_fill(struct look *l)
{
    static pa_pptr *chain[CHAIN_MAX];
    pa_pptr *last;
    uint64_t limit = 4 * l->p->options.segment_size; /* three segments, at most, beside the pool file */
    if (l->p->owners == 0 || open_state(l, l->p->judge_cores, limit) != 0)
        return;
    if (open_root(l) != 0)
        return;
    pa_pptr *first = (pa_pptr *)pa_direct(l->pool, l->root) + l->p->owners - 1;
    unsigned large = fill_chain(l, first, 16384, chain, 0, &last);
    unsigned all = fill_chain(l, last, 1024, chain, large, &last);
    all = fill_chain(l, last, 64, chain, all, &last);
    empty_chain(l, chain, all);
    if (can_be_emptied(l)) {
        free_owners(l);
        collect_blocks(l);
        if (l->blocks_count != 1)
            judge_fail(l->j, "everything is freed but %u blocks are allocated", l->blocks_count);
    }
    unsigned again = fill_chain(l, first, 16384, chain, 0, &last);
    if (again < large)
        judge_fail(l->j, "%u blocks of 16 KiB fitted, after emptying only %u", large, again);
    empty_chain(l, chain, again);
    if (l->p->fill_huge && l->j->why[0] == '\0')
        judge_fill_huge(l, first);
}

void poolside_judge(struct judge *j, enum judge_phase phase)
{
    struct look *l = calloc(1, sizeof *l);
    if (l == NULL)
        abort();
    l->j = j;
    l->p = poolside_of(j->history);
    switch (phase) {
    case JUDGE_OPEN:
        judge_open(l, true);
        break;
    case JUDGE_AGAIN:
        judge_again(l);
        break;
    case JUDGE_FILL:
        judge_fill(l);
        close_state(l);
        break;
    }
    free(l);
}
