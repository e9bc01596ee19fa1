/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * repair_index.c -- block indexes of big allocators.
 *
 * An index that opens, and whose pairs cover its segments, is left alone. Else it is rebuilt: the list of leaves from the leaves that
 * vouch for their place, the pairs from the leaves. If these cover their segments without gap and overlap, they are right, and it was
 * something redundant that was damaged, or one bit of a bitmap. Else an older state may be mixed with the newest one, and a
 * pair that says free may be of the older: then all that the index covers becomes used. So a block that is named by an owner never
 * becomes free; what was free, or lost its beginning, leaks.
 */
#include <stdlib.h>

#include "base/error.h"
#include "pool/repair.h"

struct index {
    struct repair *r;
    unsigned number;
    pa_off off; /* of the header block */
    struct pm_tree_header *header;
    pa_off *leaves; /* in list order, the head first */
    uint64_t *lows;
    size_t leaf_count, leaf_capacity;
    struct repair_pair *pairs;
    size_t pair_count, pair_capacity;
    bool lost;    /* a leaf may be missing */
    bool wrong;   /* a pair makes no sense */
    bool exact;   /* the pairs are right as they are */
    unsigned bad; /* pairs that are damaged: only their fingerprints are known */
};

static struct pm_tree_leaf *leaf_at(const struct index *x, pa_off off)
{
    return (struct pm_tree_leaf *)(x->r->manager.base + off);
}

static bool more(struct index *x, void **list, size_t count, size_t *capacity, size_t element)
{
    if (count < *capacity)
        return true;
    size_t n = *capacity == 0 ? 64 : 2 * *capacity;
    void *larger = realloc(*list, n * element);
    if (larger == NULL) {
        repair_fail(x->r, error_set(PA_ENOMEM, "no memory to rebuild block index %u", x->number));
        return false;
    }
    *list = larger;
    *capacity = n;
    return true;
}

static void add_pair(struct index *x, struct repair_pair pair)
{
    void *list = x->pairs;
    if (more(x, &list, x->pair_count, &x->pair_capacity, sizeof pair))
        ((struct repair_pair *)list)[x->pair_count++] = pair;
    x->pairs = list;
}

static void index_free(struct index *x)
{
    free(x->leaves);
    free(x->lows);
    free(x->pairs);
}

/* --- segments of an index ------------------------------------------------------------------------------------------------- */

static uint64_t data_of(const struct index *x)
{
    return big_first_of(x->r->manager.geometry.segment_size);
}

/* Big, of this index; or of a kind that its pairs are to tell. */
static bool may_hold(const struct index *x, pa_off key)
{
    const struct manager *m = &x->r->manager;
    pa_pptr p = manager_pptr(m, key);
    const struct segment *s = manager_segment(m, p.segment);
    if (!segment_is_present(s) || p.offset < data_of(x) || (p.offset - data_of(x)) % BIG_PAGE_BYTES != 0)
        return false;
    enum segment_kind kind = atomic_load(&s->kind);
    return (kind == SEGMENT_KIND_BIG && atomic_load(&s->owner) == x->number) ||
           (kind == SEGMENT_KIND_NONE && x->r->pending[p.segment]);
}

static pa_off segment_end(const struct index *x, pa_off key)
{
    return ((key >> x->r->manager.shift) + 1) << x->r->manager.shift;
}

static void adopt(struct index *x, pa_off key)
{
    struct segment *s = manager_segment(&x->r->manager, key >> x->r->manager.shift);
    atomic_store(&s->kind, SEGMENT_KIND_BIG);
    atomic_store(&s->owner, (uint16_t)x->number);
}

/* --- an index that is sound ----------------------------------------------------------------------------------------------- */

static bool space_is_valid(void *context, pa_off off, size_t bytes)
{
    const struct manager *m = &((const struct repair *)context)->manager;
    pa_pptr p = manager_pptr(m, off);
    const struct segment *s = manager_segment(m, p.segment);
    return repair_is_kind(s, SEGMENT_KIND_SMALL) &&
           small_holds(m, s, p.offset, bytes == TREE_HEADER_BYTES ? SMALL_CLASS_INDEX : SMALL_CLASS_LEAF);
}
static pa_pptr space_pptr(void *context, pa_off off)
{
    return manager_pptr(&((const struct repair *)context)->manager, off);
}
static pa_off space_off(void *context, pa_pptr p)
{
    const struct manager *m = &((const struct repair *)context)->manager;
    return p.segment < m->slots ? manager_off(m, p) : 0;
}
static int space_refuse(void *context, pa_pptr *owner)
{
    (void)context;
    (void)owner;
    return PA_ELOCKED;
}
static int space_refuse_new(void *context, pa_pptr *owner, size_t bytes)
{
    (void)context;
    (void)owner;
    (void)bytes;
    return PA_ENOSPC;
}

static int visit_pair(uint64_t key, uint64_t value, void *arg)
{
    struct index *x = arg;
    add_pair(x, (struct repair_pair){key, big_value_pages(value), (uint8_t)big_value_state(value)});
    return x->r->failed;
}

/* Do the pairs, by key, cover what they touch? */
static bool pairs_cover(struct index *x)
{
    pa_off next = 0, end = 0;
    bool last_free = false;
    for (size_t i = 0; i < x->pair_count; i++) {
        const struct repair_pair *p = &x->pairs[i];
        if (next == end) {
            if (!may_hold(x, p->key) || manager_pptr(&x->r->manager, p->key).offset != data_of(x))
                return false;
            next = p->key;
            end = segment_end(x, p->key);
            last_free = false;
        }
        bool free = p->state != BIG_USED;
        uint64_t bytes = (uint64_t)p->pages << BIG_PAGE_SHIFT;
        if (p->key != next || p->pages == 0 || bytes > end - next || p->state < BIG_USED || p->state > BIG_HOLE ||
            (free && last_free))
            return false;
        last_free = free;
        next += bytes;
    }
    return next == end;
}

/* Not ahead of the lanes: a leaf takes only changes with higher numbers than its own. */
static int visit_leaf(pa_off leaf, void *arg)
{
    const struct index *x = arg;
    return leaf_at(x, leaf)->lsn > x->r->lanes_lsn;
}

static bool is_sound(struct index *x)
{
    struct tree_space space = {.context = x->r,
                               .base = x->r->manager.base,
                               .media = &x->r->media,
                               .allocate = space_refuse_new,
                               .deallocate = space_refuse,
                               .is_valid = space_is_valid,
                               .pptr_of = space_pptr,
                               .off_of = space_off,
                               .newest_lsn = x->r->lsn};
    struct tree *tree = NULL;
    if (x->header->magic == 0) /* open would make it anew, without a pair */
        return false;
    if (tree_open(&space, x->off, TREE_RULE_LOG, &tree) != 0)
        return false;
    bool sound = visit_leaf(x->off + offsetof(struct pm_tree_header, head), x) == 0 &&
                 tree_foreach_leaf(tree, visit_leaf, x) == 0 && tree_check(tree, NULL) == 0 &&
                 tree_scan(tree, 0, visit_pair, x) == 0 && pairs_cover(x);
    tree_close(tree);
    if (!sound)
        x->pair_count = 0;
    return sound;
}

/* --- the list of leaves --------------------------------------------------------------------------------------------------- */

static bool vouches(const struct index *x, pa_off off)
{
    const struct pm_tree_leaf *leaf = leaf_at(x, off);
    return leaf->check == tree_leaf_check(off, x->off, leaf->low);
}

static bool is_owned(const struct index *x, pa_off off)
{
    for (unsigned i = 0; i < TREE_LOGS; i++)
        if (!pa_is_null(x->header->log[i].owner) && space_off(x->r, x->header->log[i].owner) == off)
            return true;
    return false;
}

/* The leaf of this tree with the lowest keys above low that is in no micro-log. 0 = none. */
static pa_off find_leaf(const struct index *x, uint64_t low)
{
    const struct manager *m = &x->r->manager;
    uint64_t best = UINT64_MAX;
    pa_off found = 0;
    for (uint32_t slot = 0; slot < m->slots; slot++) {
        const struct segment *s = manager_segment(m, slot);
        for (uint32_t k = 0; repair_is_kind(s, SEGMENT_KIND_SMALL) && k < small_slabs_of(m->geometry.segment_size);
             k++) {
            if (slab_line_class(repair_lines(s, k)) != SMALL_CLASS_LEAF)
                continue;
            pa_off slab =
                ((pa_off)slot << m->shift) + small_first_slab_of(m->geometry.segment_size) + (pa_off)k * SLAB_BYTES;
            for (uint32_t b = 0; b < small_class_blocks(SMALL_CLASS_LEAF); b++) {
                pa_off off = slab + (pa_off)b * SMALL_LEAF_BYTES;
                if (slab_block_is_allocated(repair_lines(s, k), b) && vouches(x, off) && leaf_at(x, off)->low > low &&
                    leaf_at(x, off)->low < best && !is_owned(x, off)) {
                    best = leaf_at(x, off)->low;
                    found = off;
                }
            }
        }
    }
    return found;
}

/* A leaf that the list names and that does not vouch for itself: its lower bound is damaged, or the word that vouches. The bound is a
 * key, so a multiple of a page, below all keys of the leaf. */
static bool restore_leaf(struct index *x, pa_off off, uint64_t above)
{
    struct pm_tree_leaf *leaf = leaf_at(x, off);
    uint64_t lowest = UINT64_MAX;
    for (unsigned s = 0; s < TREE_LEAF_SLOTS; s++)
        if ((leaf->bitmap >> s & 1) != 0 && leaf->entry[s].key != 0 && leaf->entry[s].key < lowest)
            lowest = leaf->entry[s].key;
    if (lowest == UINT64_MAX || lowest <= above || !may_hold(x, lowest))
        return false;
    uint64_t tries = 0;
    for (uint64_t low = lowest - BIG_PAGE_BYTES; low > above && tries < REPAIR_TRIES_MAX;
         low -= BIG_PAGE_BYTES, tries++)
        if (leaf->check == tree_leaf_check(off, x->off, low)) {
            media_store64(&x->r->media, &leaf->low, low);
            return true;
        }
    if (leaf->low <= above || leaf->low >= lowest)
        return false;
    media_store64(&x->r->media, &leaf->check, tree_leaf_check(off, x->off, leaf->low));
    return true;
}

static void add_leaf(struct index *x, pa_off off, uint64_t low)
{
    void *leaves = x->leaves, *lows = x->lows;
    size_t capacity = x->leaf_capacity;
    if (more(x, &leaves, x->leaf_count, &capacity, sizeof *x->leaves) &&
        more(x, &lows, x->leaf_count, &x->leaf_capacity, sizeof *x->lows)) {
        ((pa_off *)leaves)[x->leaf_count] = off;
        ((uint64_t *)lows)[x->leaf_count++] = low;
    }
    x->leaves = leaves;
    x->lows = lows;
}

static void walk(struct index *x)
{
    pa_off off = x->off + offsetof(struct pm_tree_header, head);
    uint64_t low = 0;
    add_leaf(x, off, 0);
    while (x->r->failed == 0) {
        pa_off next = leaf_at(x, off)->next;
        bool is_leaf = next != 0 && space_is_valid(x->r, next, sizeof(struct pm_tree_leaf));
        bool good = is_leaf && ((vouches(x, next) && leaf_at(x, next)->low > low) || restore_leaf(x, next, low));
        if (!good) {
            pa_off found = find_leaf(x, low);
            x->lost = x->lost || next != 0 || found != 0;
            next = found;
        }
        if (next == 0)
            return;
        off = next;
        low = leaf_at(x, off)->low;
        add_leaf(x, off, low);
    }
}

/* --- the pairs ------------------------------------------------------------------------------------------------------------ */

static int pair_order(const void *a, const void *b)
{
    const struct repair_pair *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return (x->state != BIG_USED) - (y->state != BIG_USED);
}

static bool has_fingerprint(const struct pm_tree_leaf *leaf, unsigned s)
{
    return (uint8_t)(leaf->fingerprint[s / 8] >> (8 * (s % 8))) == tree_fingerprint(leaf->entry[s].key);
}

/* A whole pair of this index, as its fingerprint says, in a segment that is not the index's: then the table is wrong about that. */
static bool is_elsewhere(const struct index *x, const struct pm_tree_leaf *leaf, unsigned s)
{
    const struct manager *m = &x->r->manager;
    uint64_t key = leaf->entry[s].key, value = leaf->entry[s].value;
    pa_pptr p = manager_pptr(m, key);
    return has_fingerprint(leaf, s) && p.segment >= m->first_slot && p.segment < m->geometry.slots &&
           p.offset >= data_of(x) && (p.offset - data_of(x)) % BIG_PAGE_BYTES == 0 &&
           big_value_state(value) == BIG_USED && big_value_pages(value) != 0 &&
           (uint64_t)big_value_pages(value) << BIG_PAGE_SHIFT <= segment_end(x, key) - key;
}

/* strict: a pair that its fingerprint contradicts is none. */
static void read_leaf(struct index *x, size_t i, bool strict)
{
    const struct pm_tree_leaf *leaf = leaf_at(x, x->leaves[i]);
    uint64_t high = i + 1 < x->leaf_count ? x->lows[i + 1] : UINT64_MAX;
    for (unsigned s = 0; s < TREE_LEAF_SLOTS; s++) {
        uint64_t key = leaf->entry[s].key, value = leaf->entry[s].value;
        if ((leaf->bitmap >> s & 1) == 0)
            continue;
        if (key <= x->lows[i] || key > high || !may_hold(x, key) || (strict && !has_fingerprint(leaf, s))) {
            x->wrong = true;
            x->bad++;
            continue;
        }
        struct repair_pair p = {key, big_value_pages(value), (uint8_t)big_value_state(value)};
        bool sane = big_value_state(value) >= BIG_USED && big_value_state(value) <= BIG_HOLE && p.pages != 0 &&
                    key + ((uint64_t)p.pages << BIG_PAGE_SHIFT) <= segment_end(x, key);
        if (!sane) {
            x->wrong = true;
            x->bad++;
            p = (struct repair_pair){key, 0, BIG_USED}; /* as far as the next one */
        }
        add_pair(x, p);
    }
}

static void read_pairs(struct index *x, bool strict)
{
    x->pair_count = 0;
    x->wrong = false;
    x->bad = 0;
    for (size_t i = 0; i < x->leaf_count; i++)
        read_leaf(x, i, strict);
    if (x->pair_count > 1)
        qsort(x->pairs, x->pair_count, sizeof *x->pairs, pair_order);
}

/* Fingerprints that do not fit, in how many words? One may be the damage; more tell of another state of the leaf. */
static unsigned wrong_fingerprints(const struct index *x)
{
    unsigned n = 0;
    for (size_t i = 0; i < x->leaf_count; i++) {
        const struct pm_tree_leaf *leaf = leaf_at(x, x->leaves[i]);
        uint64_t words = 0;
        for (unsigned s = 0; s < TREE_LEAF_SLOTS; s++)
            if ((leaf->bitmap >> s & 1) != 0 && !has_fingerprint(leaf, s))
                words |= 1ull << s / 8;
        n += (unsigned)__builtin_popcountll(words);
    }
    return n;
}

/* How far the leaves are ahead of all lanes: so many entries are lost at least. A number far away is no entry's. */
static uint64_t ahead_by(const struct index *x)
{
    uint64_t most = 0;
    for (size_t i = 0; i < x->leaf_count; i++) {
        uint64_t lsn = leaf_at(x, x->leaves[i])->lsn, by = lsn - x->r->lanes_lsn;
        if (lsn > x->r->lanes_lsn && by < REPAIR_TRIES_MAX && by > most)
            most = by;
    }
    return most;
}

/* The pairs with one bit of a bitmap the other way, if that makes all fit. */
static bool find_bit(struct index *x)
{
    uint64_t left = REPAIR_TRIES_MAX;
    for (size_t i = 0; x->r->failed == 0 && i < x->leaf_count; i++)
        for (unsigned s = i == 0 ? 1 : 0; s < TREE_LEAF_SLOTS && left > x->pair_count + 1; s++) {
            struct pm_tree_leaf *leaf = leaf_at(x, x->leaves[i]);
            left -= x->pair_count + 1;
            media_store64(&x->r->media, &leaf->bitmap, leaf->bitmap ^ 1ull << s);
            read_pairs(x, true);
            if (!x->wrong && wrong_fingerprints(x) == 0 && pairs_cover(x))
                return true;
            media_store64(&x->r->media, &leaf->bitmap, leaf->bitmap ^ 1ull << s);
        }
    return false;
}

static void refuse_elsewhere(struct index *x)
{
    for (size_t i = 0; i < x->leaf_count; i++) {
        const struct pm_tree_leaf *leaf = leaf_at(x, x->leaves[i]);
        for (unsigned s = i == 0 ? 1 : 0; s < TREE_LEAF_SLOTS; s++)
            if ((leaf->bitmap >> s & 1) != 0 && !may_hold(x, leaf->entry[s].key) && is_elsewhere(x, leaf, s)) {
                repair_refuse(x->r,
                              POOL_FILE_NAME ": block index %u has blocks in slot %llu, which the segment table does "
                                             "not give to it; restore the file from a backup",
                              x->number, (unsigned long long)(leaf->entry[s].key >> x->r->manager.shift));
                return;
            }
    }
}

/* Is one of the damaged pairs, by its fingerprint, that of the block at off? */
static bool is_bad_pair(const struct index *x, pa_off off)
{
    for (size_t i = 0; i < x->leaf_count; i++) {
        const struct pm_tree_leaf *leaf = leaf_at(x, x->leaves[i]);
        for (unsigned s = 0; s < TREE_LEAF_SLOTS; s++)
            if ((leaf->bitmap >> s & 1) != 0 && (!has_fingerprint(leaf, s) || !may_hold(x, leaf->entry[s].key)) &&
                (uint8_t)(leaf->fingerprint[s / 8] >> (8 * (s % 8))) == tree_fingerprint(off))
                return true;
    }
    return false;
}

static void refuse_at(struct index *x, pa_off off)
{
    pa_pptr p = manager_pptr(&x->r->manager, off);
    repair_refuse(
        x->r,
        "block index %u: nothing tells where the block before segment %llu offset %llu ends; restore the pool "
        "from a backup",
        x->number, (unsigned long long)p.segment, (unsigned long long)p.offset);
}

/* Add a pair, merged with the one before it if both are free. */
static void append(struct index *x, const struct repair_pair *p, pa_off begin)
{
    struct repair_pair *last = x->pair_count > 0 ? &x->pairs[x->pair_count - 1] : NULL;
    bool merges = last != NULL && p->key > begin && p->state != BIG_USED && last->state != BIG_USED &&
                  last->key + ((pa_off)last->pages << BIG_PAGE_SHIFT) == p->key;
    if (!merges) {
        add_pair(x, *p);
        return;
    }
    last->pages += p->pages;
    last->state = last->state == BIG_HOLE || p->state == BIG_HOLE ? BIG_HOLE : BIG_FREE;
}

/* Cover one segment from its pairs, which are sorted. A gap is where a damaged pair was; if no such pair is known, the block before it may
 * reach into it, and if two pairs overlap, one of them has a wrong end. Returns the pages that had no pair. */
static uint64_t cover(struct index *x, const struct repair_pair *old, size_t n, pa_off begin)
{
    pa_off next = begin, end = segment_end(x, begin);
    uint64_t made = 0;
    for (size_t i = 0; next < end && x->r->refused == 0;) {
        pa_off key = i < n ? old[i].key : end;
        if (key > next) {
            struct repair_pair gap = {next, (uint32_t)((key - next) >> BIG_PAGE_SHIFT), BIG_USED};
            if (i > 0 && old[i - 1].state == BIG_USED && !is_bad_pair(x, next))
                refuse_at(x, next);
            append(x, &gap, begin);
            made += gap.pages;
            next = key;
            continue;
        }
        struct repair_pair p = old[i++];
        pa_off limit = i < n ? old[i].key : end;
        if (p.pages == 0 && x->bad == 1)
            p.pages = (uint32_t)((limit - p.key) >> BIG_PAGE_SHIFT);
        if (p.key < next || p.pages == 0 || p.key + ((pa_off)p.pages << BIG_PAGE_SHIFT) > limit) {
            refuse_at(x, limit);
            return made;
        }
        if (!x->exact)
            p.state = BIG_USED;
        append(x, &p, begin);
        next = p.key + ((pa_off)p.pages << BIG_PAGE_SHIFT);
    }
    return made;
}

/* Does a leaf show no pair, as one does whose first line is gone? */
static bool has_empty_leaf(const struct index *x)
{
    for (size_t i = 0; i < x->leaf_count; i++)
        if (leaf_at(x, x->leaves[i])->bitmap == 0)
            return true;
    return false;
}

/* All pairs anew, segment by segment; a segment without pairs is free, unless some may be lost. */
static void cover_all(struct index *x)
{
    struct repair_pair *old = x->pairs;
    size_t n = x->pair_count, at = 0;
    uint64_t made = 0;
    const struct manager *m = &x->r->manager;
    bool doubtful = !x->exact || x->lost || has_empty_leaf(x);
    x->pairs = NULL;
    x->pair_count = x->pair_capacity = 0;
    for (uint32_t slot = 0; slot < m->slots; slot++) {
        pa_off begin = ((pa_off)slot << m->shift) + data_of(x);
        size_t first = at;
        while (at < n && old[at].key >> m->shift == slot)
            at++;
        const struct segment *s = manager_segment(m, slot);
        bool mine = repair_is_kind(s, SEGMENT_KIND_BIG) && atomic_load(&s->owner) == x->number;
        if (at > first || (mine && doubtful)) {
            adopt(x, begin);
            made += cover(x, at > first ? old + first : NULL, at - first, begin);
        }
    }
    free(old);
    if (x->r->refused != 0)
        return;
    repair_did(x->r,
               "block index %u was rebuilt from its leaves; %s%llu bytes without a pair are made used, those that were "
               "free leak",
               x->number, x->exact ? "" : "its free space and ", (unsigned long long)(made << BIG_PAGE_SHIFT));
}

/* --- writing -------------------------------------------------------------------------------------------------------------- */

static void write_leaf(struct index *x, size_t i, const struct repair_pair *pairs, size_t n)
{
    pa_off off = x->leaves[i];
    struct pm_tree_leaf leaf = {.lsn = x->r->lsn, .low = x->lows[i], .check = tree_leaf_check(off, x->off, x->lows[i])};
    unsigned first = i == 0 ? 1 : 0; /* the head's slot 0 is key 0's, which no index has */
    if (n > TREE_LEAF_SLOTS - first) {
        repair_refuse(x->r, "block index %u has no room for the pairs that are missing; restore the pool from a backup",
                      x->number);
        return;
    }
    leaf.next = i + 1 < x->leaf_count ? x->leaves[i + 1] : 0;
    for (unsigned s = first; s < first + n; s++) {
        const struct repair_pair *p = &pairs[s - first];
        leaf.bitmap |= 1ull << s;
        leaf.entry[s] = (struct pm_tree_entry){p->key, big_value(p->pages, (enum big_state)p->state)};
        leaf.fingerprint[s / 8] |= (uint64_t)tree_fingerprint(p->key) << (8 * (s % 8));
    }
    repair_patch(x->r, leaf_at(x, off), &leaf, sizeof leaf);
}

static bool in_list(const struct index *x, pa_off off)
{
    for (size_t i = 0; i < x->leaf_count; i++)
        if (x->leaves[i] == off)
            return true;
    return false;
}

/* Constants, and micro-logs that are idle or own a leaf that is in no list. */
static void write_header(struct index *x)
{
    struct pm_tree_header h = {.magic = TREE_MAGIC,
                               .version = TREE_VERSION,
                               .self = x->off,
                               .rule = TREE_RULE_LOG,
                               .leaf_bytes = sizeof(struct pm_tree_leaf),
                               .logs = TREE_LOGS,
                               .generation = 1};
    h.checksum = tree_header_checksum(&h);
    for (unsigned i = 0; i < TREE_LOGS; i++) {
        pa_pptr owner = x->header->log[i].owner;
        pa_off off = space_off(x->r, owner);
        if (!pa_is_null(owner) && space_is_valid(x->r, off, sizeof(struct pm_tree_leaf)) && !in_list(x, off))
            h.log[i].owner = owner;
    }
    repair_patch(x->r, x->header, &h, offsetof(struct pm_tree_header, head));
}

static void rebuild(struct index *x)
{
    walk(x);
    refuse_elsewhere(x);
    read_pairs(x, false);
    uint64_t ahead = ahead_by(x);
    if (ahead > 1)
        repair_refuse(x->r,
                      "block index %u is newer than all lanes by %llu entries, which are lost; restore the pool from a "
                      "backup",
                      x->number, (unsigned long long)ahead);
    x->exact = ahead == 0 && ((!x->wrong && wrong_fingerprints(x) <= 1 && pairs_cover(x)) || find_bit(x));
    if (!x->exact)
        read_pairs(x, true);
    cover_all(x);
    size_t at = 0;
    for (size_t i = 0; x->r->failed == 0 && x->r->refused == 0 && i < x->leaf_count; i++) {
        uint64_t high = i + 1 < x->leaf_count ? x->lows[i + 1] : UINT64_MAX;
        size_t first = at;
        while (at < x->pair_count && x->pairs[at].key <= high)
            at++;
        write_leaf(x, i, at == first ? NULL : x->pairs + first, at - first);
    }
    if (x->r->failed == 0 && x->r->refused == 0)
        write_header(x);
}

/* --- the core line -------------------------------------------------------------------------------------------------------- */

static bool is_named(const struct repair *r, pa_off off)
{
    for (uint32_t i = 0; i < 2 * r->manager.geometry.lanes; i++) {
        pa_pptr p = *big_index_owner(&r->manager, i);
        if (!pa_is_null(p) && space_off((void *)r, p) == off)
            return true;
    }
    return false;
}

/* Does the header block's index belong to that number: by the segment of its first sensible pair? -1: it has none. */
static int number_of(const struct repair *r, pa_off off)
{
    const struct manager *m = &r->manager;
    const struct pm_tree_header *h = (const struct pm_tree_header *)(m->base + off);
    const struct pm_tree_leaf *leaf = &h->head;
    for (unsigned hops = 0; hops < 64; hops++) {
        for (unsigned s = 0; s < TREE_LEAF_SLOTS; s++) {
            const struct segment *owner = manager_segment(m, leaf->entry[s].key >> m->shift);
            if ((leaf->bitmap >> s & 1) != 0 && repair_is_kind(owner, SEGMENT_KIND_BIG))
                return atomic_load(&owner->owner);
        }
        if (!space_is_valid((void *)r, leaf->next, sizeof *leaf))
            return -1;
        leaf = (const struct pm_tree_leaf *)(m->base + leaf->next);
    }
    return -1;
}

/* The one header block that no core line names and that is this number's, or nobody's. */
static pa_off find_header(const struct repair *r, unsigned number, bool *ret_sure)
{
    const struct manager *m = &r->manager;
    pa_off found = 0;
    *ret_sure = false;
    for (uint32_t slot = 0; slot < m->slots; slot++) {
        const struct segment *s = manager_segment(m, slot);
        for (uint32_t k = 0; repair_is_kind(s, SEGMENT_KIND_SMALL) && k < small_slabs_of(m->geometry.segment_size);
             k++) {
            if (slab_line_class(repair_lines(s, k)) != SMALL_CLASS_INDEX)
                continue;
            pa_off slab =
                ((pa_off)slot << m->shift) + small_first_slab_of(m->geometry.segment_size) + (pa_off)k * SLAB_BYTES;
            for (uint32_t b = 0; b < small_class_blocks(SMALL_CLASS_INDEX); b++) {
                pa_off off = slab + (pa_off)b * SMALL_INDEX_BYTES;
                const struct pm_tree_header *h = (const struct pm_tree_header *)(m->base + off);
                if (!slab_block_is_allocated(repair_lines(s, k), b) || h->magic != TREE_MAGIC || h->self != off ||
                    h->rule != TREE_RULE_LOG || h->checksum != tree_header_checksum(h) || is_named(r, off))
                    continue;
                int owner = number_of(r, off);
                if (owner == (int)number) {
                    *ret_sure = true;
                    return off;
                }
                found = owner < 0 ? off : found;
            }
        }
    }
    return found;
}

static bool has_segments(const struct repair *r, unsigned number)
{
    for (uint32_t slot = 0; slot < r->manager.slots; slot++) {
        const struct segment *s = manager_segment(&r->manager, slot);
        if (repair_is_kind(s, SEGMENT_KIND_BIG) && atomic_load(&s->owner) == number)
            return true;
    }
    return false;
}

/* Place of the index, found again if the core line names none. 0 = there is none. */
static pa_off locate(struct repair *r, unsigned number)
{
    pa_pptr *owner = big_index_owner(&r->manager, number);
    pa_off off = space_off(r, *owner);
    if (!pa_is_null(*owner) && space_is_valid(r, off, TREE_HEADER_BYTES))
        return off;
    if (pa_is_null(*owner) && !has_segments(r, number))
        return 0;
    bool sure;
    pa_off found = find_header(r, number, &sure);
    if (pa_is_null(*owner) && !sure)
        return 0; /* segments without a block have no index yet */
    if (found == 0 && has_segments(r, number)) {
        repair_refuse(r,
                      POOL_FILE_NAME
                      ": nothing names block index %u, and none is found; restore the pool from a backup",
                      number);
        return 0;
    }
    pa_pptr p = found == 0 ? PA_NULL : manager_pptr(&r->manager, found);
    repair_patch(r, owner, &p, sizeof p);
    repair_did(r, POOL_FILE_NAME ": the owner of block index %u was damaged; it %s", number,
               found == 0 ? "has none" : "was found again");
    return found;
}

static void keep_pairs(struct index *x)
{
    struct repair *r = x->r;
    if (x->pair_count == 0)
        return;
    struct repair_pair *all = realloc(r->pairs, (r->pair_count + x->pair_count) * sizeof *all);
    if (all == NULL) {
        repair_fail(r, error_set(PA_ENOMEM, "no memory to note the pairs of block index %u", x->number));
        return;
    }
    r->pairs = all;
    if (x->pair_count != 0)
        memcpy(all + r->pair_count, x->pairs, x->pair_count * sizeof *all);
    r->pair_count += x->pair_count;
}

void repair_indexes(struct repair *r)
{
    for (unsigned number = 0; r->failed == 0 && number < 2 * r->manager.geometry.lanes; number++) {
        pa_off off = locate(r, number);
        if (off == 0)
            continue;
        struct index x = {.r = r, .number = number, .off = off};
        x.header = (struct pm_tree_header *)(r->manager.base + off);
        if (is_sound(&x)) {
            r->sound_indexes++;
            for (size_t i = 0; i < x.pair_count; i++)
                adopt(&x, x.pairs[i].key);
        } else {
            rebuild(&x);
            r->doubtful_indexes += !x.exact || x.lost;
        }
        keep_pairs(&x);
        index_free(&x);
    }
    if (r->pair_count > 1)
        qsort(r->pairs, r->pair_count, sizeof *r->pairs, pair_order);
}
