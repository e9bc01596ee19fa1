/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * judge.c -- what must hold for any pool, however broken:
 *
 *  1. Nothing crashes, hangs or reports an error of a sanitizer.
 *  2. pa_check and pa_open fail with a code that fits and a sentence.
 *  3. If pa_check says sound: pa_open succeeds, stats and the walk too; blocks do not overlap; new blocks overlap no other; each
 *     block can be freed once; afterwards pa_check says sound again.
 *  4. And then each block that the application held is there with its contents, unless the change hit what describes it.
 *  5. pa_repair makes a pool that pa_check calls sound, for which 3 and 4 hold; or it fails with a code that fits and a sentence, and
 *     has changed nothing.
 */
#include <fptree.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"

#define BLOCKS_MAX (1u << 20) /* a repair may make whole slabs used */

struct fuzz_totals fuzz_totals;

struct seen {
    pa_off off;
    uint64_t size;
    pa_pptr at;
};

static struct seen seen[BLOCKS_MAX];
static unsigned seen_count;

static int see(pa_pptr block, size_t usable_size, void *arg)
{
    if (seen_count == BLOCKS_MAX)
        return 1;
    seen[seen_count++] = (struct seen){pa_off_of(arg, block), usable_size, block};
    return 0;
}

static int compare_seen(const void *a, const void *b)
{
    const struct seen *x = a, *y = b;
    return (x->off > y->off) - (x->off < y->off);
}

static bool is_seen(pa_off off, uint64_t size)
{
    for (unsigned i = 0; i < seen_count; i++)
        if (off < seen[i].off + seen[i].size && seen[i].off < off + size)
            return true;
    return false;
}

/* --- what the change hit -------------------------------------------------------------------------------------------------------- */

static bool hit(const struct fuzz_mutation *m, unsigned file, uint64_t from, uint64_t to)
{
    for (unsigned i = 0; i < m->write_count; i++)
        if (m->writes[i].file == file && m->writes[i].offset < to && m->writes[i].offset + 8 > from)
            return true;
    return false;
}

static bool hit_pool(const struct fuzz_mutation *m, pa_off from, pa_off to)
{
    for (unsigned i = 0; i < m->write_count; i++) {
        pa_off at = fuzz_pool_offset(&m->image->files[m->writes[i].file], m->writes[i].offset);
        if (at < to && at + 8 > from)
            return true;
    }
    return false;
}

/* Lanes, core lines and the root say anything about any block, if their checksums fit or they have none. */
static bool hit_all(const struct fuzz_mutation *m)
{
    const struct pm_superblock *g = &m->image->geometry;
    return m->structural || hit(m, 0, superblock_cores_offset(g), g->table_offset) ||
           (m->forged && hit(m, 0, 0, superblock_cores_offset(g)));
}

static bool hit_index(const struct fuzz_mutation *m)
{
    for (unsigned i = 0; i < m->image->leaf_count; i++) {
        const struct fuzz_leaf *l = &m->image->leaves[i];
        if (l->of_index &&
            hit_pool(m, l->off, l->off + (l->is_header ? TREE_HEADER_BYTES : sizeof(struct pm_tree_leaf))))
            return true;
    }
    return false;
}

/* Did the change hit the metadata that describe the block? What has a checksum counts only if that was put right. */
static bool hit_block(const struct fuzz_mutation *m, const struct fuzz_block *b)
{
    const struct pm_superblock *g = &m->image->geometry;
    uint64_t first = (b->at.segment << FUZZ_SEGMENT_BITS);
    if (b->kind == SEGMENT_KIND_BIG && hit_index(m))
        return true;
    /* A word of zero, and a file that does not say whose it is: nothing tells of the block any more. */
    if (hit(m, 0, g->table_offset + b->at.segment * 8, g->table_offset + b->at.segment * 8 + 8) &&
        hit_pool(m, first, first + 64))
        return true;
    if (!m->forged)
        return false;
    if (hit(m, 0, g->table_offset, g->table_offset + g->slots * 8ull) || hit_pool(m, first, first + 64))
        return true;
    /* A big block depends on its index, and that on the lines of the slabs it lies in. */
    for (unsigned i = 1; i < m->image->file_count; i++) {
        const struct fuzz_file *f = &m->image->files[i];
        if ((b->kind == SEGMENT_KIND_BIG || f->slot == b->at.segment) &&
            hit(m, i, 0, segment_data_of(FUZZ_SEGMENT_SIZE)))
            return true;
    }
    return false;
}

/* --- the application's blocks ------------------------------------------------------------------------------------------------------ */

static const pa_pptr *owner_of(const struct fuzz_mutation *m, const pa_pool *pool, unsigned i)
{
    return (const pa_pptr *)((char *)pa_direct(pool, m->image->root) + FUZZ_OWNERS_OFFSET) + i;
}

static void judge_owners(const struct fuzz_mutation *m, const pa_pool *pool)
{
    if (hit_all(m))
        return;
    const struct fuzz_block root = {m->image->root, FUZZ_ROOT_BYTES, SEGMENT_KIND_SMALL};
    if (hit_block(m, &root))
        return;
    for (unsigned i = 0; i < FUZZ_OWNERS; i++) {
        const struct fuzz_block *b = &m->image->owners[i];
        pa_off owner = pa_off_of(pool, m->image->root) + FUZZ_OWNERS_OFFSET + i * sizeof(pa_pptr);
        if (hit_pool(m, owner, owner + sizeof(pa_pptr)) || hit_block(m, b))
            continue;
        const pa_pptr *now = owner_of(m, pool, i);
        if (now->segment != b->at.segment || now->offset != b->at.offset)
            fuzz_fail("sound, but owner %u changed", i);
        if (pa_is_null(b->at))
            continue;
        if (pa_usable_size(pool, b->at) != b->usable)
            fuzz_fail("sound, but the block of owner %u has %zu bytes instead of %llu", i, pa_usable_size(pool, b->at),
                      (unsigned long long)b->usable);
        pa_off off = pa_off_of(pool, b->at);
        if (!hit_pool(m, off, off + b->usable) && !fuzz_is_filled(pa_direct(pool, b->at), b->usable, i))
            fuzz_fail("sound, but the contents of owner %u's block changed", i);
    }
}

/* --- using the pool ---------------------------------------------------------------------------------------------------------------- */

static void judge_walk(pa_pool *pool, bool sound)
{
    pa_stats stats;
    seen_count = 0;
    int code = pa_foreach(pool, see, pool);
    if (code == 1)
        fuzz_fail("the walk does not end");
    if (sound && code != 0)
        fuzz_fail("sound, but the walk fails: %s", pa_errormsg());
    code = pa_get_stats(pool, &stats);
    if (sound && code != 0)
        fuzz_fail("sound, but there are no statistics: %s", pa_errormsg());
    if (!sound)
        return;
    if (stats.allocated_blocks != seen_count)
        fuzz_fail("sound, but the statistics count %llu blocks and the walk %u",
                  (unsigned long long)stats.allocated_blocks, seen_count);
    qsort(seen, seen_count, sizeof *seen, compare_seen);
    for (unsigned i = 1; i < seen_count; i++)
        if (seen[i].off < seen[i - 1].off + seen[i - 1].size)
            fuzz_fail("sound, but the blocks at %#llx and %#llx overlap", (unsigned long long)seen[i - 1].off,
                      (unsigned long long)seen[i].off);
}

static int count_pairs(uint64_t key, uint64_t value, void *arg)
{
    (void)key;
    (void)value;
    return ++*(unsigned *)arg > 100000;
}

static void use_tree(pa_pool *pool, pa_pptr *anchor)
{
    fptree *t = NULL;
    uint64_t value;
    unsigned pairs = 0;
    if (fptree_open(pool, anchor, &t) != 0)
        return;
    if (fptree_scan(t, 0, count_pairs, &pairs) > 0)
        fuzz_fail("the scan of a tree does not end");
    for (uint64_t key = 0; key < 1009; key += 13) {
        (void)fptree_find(t, key, &value);
        (void)fptree_upsert(t, key, key);
    }
    for (uint64_t key = 0; key < 1009; key += 5)
        (void)fptree_remove(t, key);
    pairs = 0;
    if (fptree_scan(t, 3, count_pairs, &pairs) > 0)
        fuzz_fail("the scan of a tree does not end");
    fptree_close(t);
}

/* Where the judge may put its owners: the root block, or in a pool that is not sound any block. */
static pa_pptr *find_scratch(pa_pool *pool, bool sound, bool *ret_root)
{
    pa_pptr root = PA_NULL;
    int code = pa_root(pool, FUZZ_ROOT_BYTES, &root);
    *ret_root = code == 0;
    if (code == 0)
        return (pa_pptr *)((char *)pa_direct(pool, root) + FUZZ_SCRATCH_OFFSET);
    if (sound && code != PA_EINVAL) /* a smaller root, with its check put right */
        fuzz_fail("sound, but there is no root: %s", pa_errormsg());
    for (unsigned i = 0; i < seen_count; i++)
        if (seen[i].size >= FUZZ_SCRATCH * sizeof(pa_pptr))
            return pa_direct(pool, seen[i].at);
    return NULL;
}

static void use_allocate(pa_pool *pool, pa_pptr *scratch, bool sound)
{
    static const size_t sizes[] = {16, 64, 100, 768, 5000, 16384, 17000, 200000, 1100000};
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        scratch[i] = PA_NULL;
        int code = i % 4 == 3 ? pa_allocate_aligned(pool, &scratch[i], sizes[i], 4096)
                              : pa_allocate(pool, &scratch[i], sizes[i]);
        if (code != 0)
            continue;
        size_t usable = pa_usable_size(pool, scratch[i]);
        if (sound && (usable < sizes[i] || is_seen(pa_off_of(pool, scratch[i]), usable)))
            fuzz_fail("sound, but a new block of %zu bytes at %#llx overlaps another", usable,
                      (unsigned long long)pa_off_of(pool, scratch[i]));
        char *address = pa_direct(pool, scratch[i]);
        memset(address, 0x5a, usable < 65536 ? usable : 4096);
        address[usable - 1] = 1;
    }
    (void)pa_reallocate(pool, &scratch[2], 30000);
    (void)pa_reallocate(pool, &scratch[6], 40000);
    (void)pa_reallocate(pool, &scratch[7], 20000);
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++)
        (void)pa_deallocate(pool, &scratch[i]);
}

/* Every second block of the walk, the root's excepted. */
static void use_free(pa_pool *pool, pa_pptr *scratch, bool sound)
{
    pa_pptr root = pool_root_line(pool)->root;
    for (unsigned i = 0; i < seen_count; i += sound ? 1 : 2) {
        if (memcmp(&seen[i].at, &root, sizeof root) == 0)
            continue;
        scratch[0] = seen[i].at;
        int code = pa_deallocate(pool, &scratch[0]);
        if (!sound)
            continue;
        if (code != 0)
            fuzz_fail("sound, but the block at %#llx cannot be freed: %s", (unsigned long long)seen[i].off,
                      pa_errormsg());
        scratch[0] = seen[i].at;
        if (pa_deallocate(pool, &scratch[0]) != PA_EINVAL)
            fuzz_fail("sound, but the block at %#llx can be freed twice", (unsigned long long)seen[i].off);
        scratch[0] = PA_NULL;
    }
}

static void use(const struct fuzz_mutation *m, pa_pool *pool, bool sound)
{
    uint64_t released;
    bool is_root;
    judge_walk(pool, sound);
    if (sound)
        judge_owners(m, pool);
    pa_pptr *scratch = find_scratch(pool, sound, &is_root);
    if (sound && !is_root)
        return;
    if (scratch != NULL) {
        use_allocate(pool, scratch, sound);
        pa_pptr *anchor = pa_direct(pool, m->image->root);
        if (pa_usable_size(pool, m->image->root) >= FUZZ_ROOT_BYTES)
            use_tree(pool, anchor);
    }
    if (sound)
        judge_walk(pool, sound);
    (void)pa_defragment(pool, UINT64_MAX, &released);
    if (scratch != NULL) {
        use_free(pool, scratch, sound);
        use_allocate(pool, scratch, false);
    }
}

static bool code_is_right(const struct fuzz_mutation *m, int code)
{
    switch (code) {
    case PA_ECORRUPT:
    case PA_EVERSION:
    case PA_ENOTSUP: /* another guarantee */
    case PA_ENOMEM:  /* an address range as large as the superblock says cannot be had */
        return true;
    case PA_ENOENT: /* a file, or a further directory that a forged superblock speaks of */
        return m->structural || m->forged;
    default:
        return false;
    }
}

/* A file of the pool or the directory, or a tree's place. */
static bool names_a_place(const char *sentence)
{
    return strstr(sentence, ".pa") != NULL || strstr(sentence, fuzz_dir()) != NULL || strstr(sentence, "0x") != NULL;
}

static int check(const struct fuzz_mutation *m)
{
    char *report = NULL;
    int code = pa_check(fuzz_dir(), &report);
    if (code != 0 && !code_is_right(m, code))
        fuzz_fail("pa_check says %s: %s", pa_strerror(code), report);
    if (code != 0 && (report == NULL || strlen(report) < 20))
        fuzz_fail("pa_check gives %s and no report", pa_strerror(code));
    if (getenv("FUZZ_VERBOSE") != NULL)
        fprintf(stderr, "pa_check: %s: %s", pa_strerror(code), report);
    free(report);
    return code;
}

/* A sound pool, or the same one. */
static bool judge_repair(const struct fuzz_mutation *m)
{
    char *report = NULL;
    uint64_t before = fuzz_hash();
    int code = pa_repair(fuzz_dir(), NULL, &report);
    if (getenv("FUZZ_VERBOSE") != NULL)
        fprintf(stderr, "pa_repair: %s: %s", pa_strerror(code), report);
    fuzz_totals.repaired += code == 0;
    fuzz_totals.not_repaired += code != 0;
    if (code != 0) {
        if (!code_is_right(m, code) || !names_a_place(pa_errormsg()))
            fuzz_fail("pa_repair says %s: %s", pa_strerror(code), pa_errormsg());
        if (fuzz_hash() != before)
            fuzz_fail("pa_repair refused, but the pool changed: %s", report);
    } else if (check(m) != 0) {
        fuzz_fail("repaired, but not sound: %s", report);
    }
    free(report);
    return code == 0;
}

void fuzz_judge(const struct fuzz_mutation *m)
{
    pa_pool *pool = NULL;
    alarm(20);
    fuzz_totals.runs++;
    bool sound = check(m) == 0;
    if (m->repair) {
        bool repaired = judge_repair(m);
        if (sound && !repaired)
            fuzz_fail("sound, but pa_repair says: %s", pa_errormsg());
        sound = repaired;
    }
    pa_options o;
    pa_options_init(&o);
    o.flags = PA_NO_BACKGROUND; /* the same input gives the same pool */
    o.cores = 2;
    int code = pa_open(fuzz_dir(), &o, &pool);
    fuzz_totals.told += !sound;
    fuzz_totals.sound += sound;
    if (code != 0) {
        if (sound)
            fuzz_fail("sound, but pa_open says %s: %s", pa_strerror(code), pa_errormsg());
        if (!code_is_right(m, code) || !names_a_place(pa_errormsg()))
            fuzz_fail("pa_open says %s: %s", pa_strerror(code), pa_errormsg());
        fuzz_totals.refused++;
        return;
    }
    fuzz_totals.used_unsound += !sound;
    use(m, pool, sound);
    code = pa_close(pool);
    if (code != 0)
        fuzz_fail("pa_close says %s: %s", pa_strerror(code), pa_errormsg());
    if (sound && check(m) != 0)
        fuzz_fail("sound and used, then unsound");
    alarm(0);
}
