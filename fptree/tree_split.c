/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * tree_split.c -- splits and merges of leaves.
 *
 * Lock order: leaves (a thread that has one waits only for the next lower one), then tree.smo. A thread takes a micro-log only
 * when it has all its leaves, and waits for nothing but smo and the space while it has one; so every micro-log comes free.
 */
#include "fptree/tree_split.h"

#include "base/error.h"
#include "fptree/tree_inner.h"
#include "fptree/tree_rcu.h"

#define SPARES_MAX 8u /* leaves kept for later splits before a grace period is waited for */

/* --- micro-logs --------------------------------------------------------------------------------------------------------- */

static bool take_log_in(struct tree *t, enum tree_log_state state, unsigned *ret)
{
    for (unsigned i = 0; i < TREE_LOGS; i++) {
        if (t->log_state[i] != state)
            continue;
        t->log_state[i] = TREE_LOG_BUSY;
        if (state == TREE_LOG_SPARE)
            __atomic_store_n(&t->spare_count, t->spare_count - 1, __ATOMIC_RELAXED);
        *ret = i;
        return true;
    }
    return false;
}

/* Under smo. */
static void leave_log(struct tree *t, unsigned number, enum tree_log_state state)
{
    t->log_state[number] = (uint8_t)state;
    if (state == TREE_LOG_SPARE)
        __atomic_store_n(&t->spare_count, t->spare_count + 1, __ATOMIC_RELAXED);
}

static void flush_log(const struct tree *t, const struct pm_tree_log *log, struct media_tally *tally)
{
    media_flush(t->media, tally, log, sizeof *log);
}

/* Decides an operation: left, the deciding word, is stored last. Not written back yet. */
static void decide(const struct tree *t, struct pm_tree_log *log, enum tree_log_op op, pa_off left, pa_off right,
                   pa_off after)
{
    media_store64(t->media, &log->right, right);
    media_store64(t->media, &log->after, after);
    media_store64(t->media, &log->op, op);
    media_store64(t->media, &log->left, left);
}

/* --- split -------------------------------------------------------------------------------------------------------------- */

static void sort_entries(struct pm_tree_entry *e, unsigned n)
{
    for (unsigned i = 1; i < n; i++) {
        struct pm_tree_entry x = e[i];
        unsigned j = i;
        for (; j > 0 && e[j - 1].key > x.key; j--)
            e[j] = e[j - 1];
        e[j] = x;
    }
}

/* Steps 3 and 4 of a split: left, whose new neighbour is durable, lets go of the keys above right's low. Idempotent; for the
 * forward path and recovery. */
static void split_commit(const struct tree *t, struct pm_tree_leaf *left, const struct pm_tree_leaf *right,
                         uint64_t lsn, struct media_tally *tally)
{
    const struct media *m = t->media;
    uint64_t keep = tree_load(&left->bitmap);
    for (unsigned slot = 0; slot < TREE_LEAF_SLOTS; slot++)
        if (left->entry[slot].key > right->low)
            keep &= ~(UINT64_C(1) << slot);
    media_store64(m, &left->next, tree_off_of(t, right)); /* decides: before it, recovery undoes the split */
    media_store64(m, &left->bitmap, keep);
    if (t->rule == TREE_RULE_LOG && lsn > tree_load(&left->lsn))
        media_store64(m, &left->lsn, lsn);
    media_flush(m, tally, left, MEDIA_LINE_BYTES);
    media_drain(
        m, tally); /* before the slots are emptied: until then they are the only certain copy if the split is undone */
}

/* Step 5: the moved slots become fit for inserts, the micro-log idle; left is cleared last. Idempotent. */
static void split_finish(const struct tree *t, struct pm_tree_leaf *left, struct pm_tree_log *log,
                         struct media_tally *tally)
{
    const struct media *m = t->media;
    uint64_t bitmap = tree_load(&left->bitmap);
    for (unsigned slot = 0; slot < TREE_LEAF_SLOTS; slot++) {
        if ((bitmap >> slot & 1) != 0 || left->entry[slot].key == 0)
            continue;
        media_store64(m, &left->entry[slot].key, 0);
        media_flush(m, tally, &left->entry[slot], sizeof left->entry[slot]);
    }
    media_store64(m, &log->owner.segment, 0); /* the list owns the leaf */
    media_store64(m, &log->owner.offset, 0);
    media_store64(m, &log->left, 0);
    flush_log(t, log, tally);
    media_drain(
        m, tally); /* before left takes an insert: redoing the split would then be wrong, and the slots must be empty */
}

/* Are the sorted keys distinct and in the leaf's range? Else the new leaf would begin anywhere. */
static int check_range(const struct tree *t, const struct pm_tree_leaf *leaf, const struct pm_tree_entry *all,
                       unsigned n)
{
    uint64_t high = leaf->next == 0 ? UINT64_MAX : tree_leaf_at(t, leaf->next)->low;
    bool right = n >= 2 && all[n - 1].key <= high && (all[0].key > leaf->low || tree_is_head(t, leaf));
    for (unsigned i = 1; right && i < n; i++)
        right = all[i].key > all[i - 1].key;
    if (!right)
        return error_set(PA_ECORRUPT,
                         "the leaf at %#llx of the tree at %#llx is damaged; restore the pool from a backup",
                         (unsigned long long)tree_off_of(t, leaf), (unsigned long long)t->header_off);
    return 0;
}

/* What the new leaf will hold: the upper half, or nothing if the keys come in ascending order at the tree's end. */
static int choose_upper(const struct tree *t, const struct pm_tree_leaf *leaf, const struct pm_tree_entry *extra,
                        struct pm_tree_entry *upper, unsigned *ret_moved, uint64_t *ret_sep)
{
    struct pm_tree_entry all[TREE_LEAF_SLOTS + 1];
    unsigned n = 0;
    for (uint64_t used = tree_load(&leaf->bitmap); used != 0; used &= used - 1) {
        unsigned slot = (unsigned)__builtin_ctzll(used);
        if (tree_entry_is_whole(t, leaf, slot))
            all[n++] = leaf->entry[slot];
    }
    sort_entries(all, n);
    int code = check_range(t, leaf, all, n);
    if (code != 0)
        return code;
    bool at_end = extra != NULL && leaf->next == 0 && extra->key > all[n - 1].key;
    unsigned keep = at_end ? n : n / 2;
    *ret_sep = all[keep - 1].key;
    unsigned moved = n - keep;
    memcpy(upper, all + keep, moved * sizeof *upper);
    *ret_moved = moved;
    return 0;
}

/* Waits for a micro-log, by preference one with a spare leaf, and makes sure that the inner nodes can grow. */
static int begin_split(struct tree *t, unsigned *ret_number)
{
    unsigned round = 0;
    for (;;) {
        lock_acquire(&t->smo);
        if (take_log_in(t, TREE_LOG_SPARE, ret_number) || take_log_in(t, TREE_LOG_IDLE, ret_number))
            break;
        lock_release(&t->smo);
        tree_pause(&round);
    }
    int code = tree_inner_reserve(t);
    if (code != 0)
        leave_log(t, *ret_number, pa_is_null(t->header->log[*ret_number].owner) ? TREE_LOG_IDLE : TREE_LOG_SPARE);
    lock_release(&t->smo);
    return code;
}

/* The micro-log's leaf, or a new one; and the lock word or LSN that it begins with. */
static int allocate_leaf(struct tree *t, struct pm_tree_log *log, struct pm_tree_leaf **ret, uint64_t *ret_word)
{
    bool fresh = pa_is_null(log->owner);
    if (fresh) {
        int code = t->space.allocate(t->space.context, &log->owner, sizeof(struct pm_tree_leaf));
        if (code != 0)
            return code;
    }
    *ret = tree_leaf_at(t, t->space.off_of(t->space.context, log->owner));
    /* A spare is locked, and its version goes on: a reader that has come too late for it must see that. */
    uint64_t word = tree_load(&(*ret)->lsn);
    *ret_word = fresh || !tree_word_is_current(t, word) ? t->generation << 32 | 1 : word;
    return 0;
}

/*
 * Split. The leaf is locked; no reader or writer gets to either leaf before the end.
 *
 * step                                               | durable after it    | a crash here recovers by
 * ---------------------------------------------------+---------------------+----------------------------------------------
 * 1 the space allocates a leaf into log.owner        | a spare             | freeing the spare
 *   (not if the micro-log has one)                   |                     |
 * 2 write the new leaf; decide SPLIT(leaf, new);     | the new leaf, the   | leaf.next does not name new: left = 0, then
 *   fence                                            | decision            | as a spare
 * 3 leaf.next = new; leaf.bitmap without the moved   | maybe next, maybe   | next does not name new: as 2; else redo from
 *   keys                                             | both                | here: all inputs are durable
 * 4 fence                                            | the split           | redo from 3, which changes nothing
 * 5 empty the moved slots; log.owner = null;         | maybe               | left = 0: nothing to do (empty slots are made
 *   log.left = 0; fence                              |                     | so at the leaf's next lock); else redo from 3
 * 6 inner nodes (DRAM)                               |                     | rebuilt at open
 */
int tree_split(struct tree *t, struct pm_tree_leaf *leaf, const struct pm_tree_entry *extra, bool *ret_placed,
               uint64_t lsn, struct media_tally *tally)
{
    struct pm_tree_entry upper[TREE_LEAF_SLOTS + 1];
    struct pm_tree_leaf *right = NULL;
    uint64_t sep, word;
    unsigned number, n;
    *ret_placed = false;
    int code = choose_upper(t, leaf, extra, upper, &n, &sep);
    if (code == 0)
        code = begin_split(t, &number);
    if (code != 0)
        return code;
    struct pm_tree_log *log = &t->header->log[number];
    code = allocate_leaf(t, log, &right, &word);
    if (code != 0) {
        lock_acquire(&t->smo);
        tree_inner_unreserve(t);
        leave_log(t, number, TREE_LOG_IDLE);
        lock_release(&t->smo);
        return code;
    }

    if (extra != NULL && extra->key > sep) {
        upper[n++] = *extra;
        *ret_placed = true;
    }
    if (t->rule == TREE_RULE_LOG)
        word = lsn;
    tree_leaf_format(t, right, sep, leaf->next, word, upper, n, tally);
    decide(t, log, TREE_LOG_SPLIT, tree_off_of(t, leaf), tree_off_of(t, right), 0);
    flush_log(t, log, tally);
    media_drain(t->media, tally); /* before leaf.next can name the new leaf */
    split_commit(t, leaf, right, lsn, tally);
    split_finish(t, leaf, log, tally);

    lock_acquire(&t->smo);
    tree_inner_insert(t, sep, right);
    leave_log(t, number, TREE_LOG_IDLE);
    lock_release(&t->smo);
    if (t->rule == TREE_RULE_SELF)
        tree_leaf_unlock(t, right, true);
    return 0;
}

/* --- merge -------------------------------------------------------------------------------------------------------------- */

/* Steps 2 to 4 of a merge. Idempotent; for the forward path and recovery. False = left has no room, which no crash can cause. */
static bool merge_commit(const struct tree *t, struct pm_tree_leaf *left, const struct pm_tree_leaf *right,
                         pa_off after, uint64_t lsn, struct media_tally *tally)
{
    const struct media *m = t->media;
    uint64_t bitmap = tree_load(&left->bitmap), arrived = 0;
    for (uint64_t used = tree_load(&right->bitmap); used != 0; used &= used - 1) {
        const struct pm_tree_entry *e = &right->entry[__builtin_ctzll(used)];
        if (e->key == 0 || tree_leaf_find(left, e->key) != TREE_NO_SLOT)
            continue; /* torn, or moved before the crash */
        uint64_t room = tree_leaf_free(t, left, e->key) & ~arrived;
        if (room == 0)
            return false;
        unsigned slot = (unsigned)__builtin_ctzll(room);
        arrived |= UINT64_C(1) << slot;
        tree_leaf_fill(m, left, slot, e->key, e->value);
        media_flush(m, tally, &left->entry[slot], sizeof left->entry[slot]);
        tree_leaf_mark(m, left, slot, e->key); /* means nothing while the bit is clear */
    }
    media_drain(m, tally); /* the entries before their bits; and the decision before next forgets right */
    media_store64(m, &left->bitmap, bitmap | arrived);
    media_store64(m, &left->next, after);
    if (t->rule == TREE_RULE_LOG && lsn > tree_load(&left->lsn))
        media_store64(m, &left->lsn, lsn);
    media_flush(m, tally, left, MEDIA_LINE_BYTES);
    media_drain(m, tally); /* before the decision is withdrawn */
    return true;
}

/* Step 5: the micro-log owns right, and only that. Idempotent. */
static void merge_finish(const struct tree *t, struct pm_tree_log *log, struct media_tally *tally)
{
    media_store64(t->media, &log->left, 0);
    flush_log(t, log, tally);
    media_drain(t->media, tally); /* before left changes again: redoing the merge would then be wrong */
}

static void own(const struct tree *t, struct pm_tree_log *log, pa_off leaf)
{
    pa_pptr owner = t->space.pptr_of(t->space.context, leaf);
    media_store64(t->media, &log->owner.segment, owner.segment);
    media_store64(t->media, &log->owner.offset, owner.offset);
}

/*
 * Merge right into left. Both are locked.
 *
 * step                                               | durable after it    | a crash here recovers by
 * ---------------------------------------------------+---------------------+----------------------------------------------
 * 1 decide MERGE(left, right, right.next), then      | maybe the decision  | log.left = 0: nothing happened; else redo
 *   log.owner = right                                |                     |
 * 2 right's entries into free slots of left; fence   | decision, entries   | redo: owner is stored again, entries that left
 *                                                    |                     | has already are passed over
 * 3 left.bitmap with them; left.next = right.next    | maybe               | redo
 * 4 fence                                            | the merge           | redo, which changes nothing
 * 5 log.left = 0; fence                              | right is a spare    | freeing the spare
 * 6 inner nodes (DRAM)                               |                     | rebuilt at open
 *
 * In the micro-log's line owner is stored after left: while owner is not whole, or right still in the list, left is set.
 *
 * Rule LOG: right's LSN stays as it is. The log's older entries may be redone on right while it is allocated: before the merge is
 * redone they restore its entries; afterwards right is nobody's, and its next use begins with a newer LSN.
 */
bool tree_merge(struct tree *t, struct pm_tree_leaf *left, struct pm_tree_leaf *right, uint64_t lsn,
                struct media_tally *tally)
{
    unsigned number;
    lock_acquire(&t->smo);
    bool found = take_log_in(t, TREE_LOG_IDLE, &number);
    lock_release(&t->smo);
    if (!found)
        return false;
    struct pm_tree_log *log = &t->header->log[number];
    pa_off after = right->next;
    decide(t, log, TREE_LOG_MERGE, tree_off_of(t, left), tree_off_of(t, right), after);
    own(t, log, tree_off_of(t, right));
    flush_log(t, log, tally);
    bool done = merge_commit(t, left, right, after, lsn, tally);
    pa_assert(done);
    (void)done;
    merge_finish(t, log, tally);

    lock_acquire(&t->smo);
    tree_inner_remove(t, right->low);
    leave_log(t, number, TREE_LOG_SPARE);
    lock_release(&t->smo);
    return true;
}

/* --- spares ------------------------------------------------------------------------------------------------------------- */

static uint32_t take_spares(struct tree *t, struct tree_node **ret_nodes)
{
    uint32_t taken = 0;
    unsigned number;
    lock_acquire(&t->smo);
    while (take_log_in(t, TREE_LOG_SPARE, &number))
        taken |= UINT32_C(1) << number;
    *ret_nodes = tree_inner_take_unused(t);
    lock_release(&t->smo);
    return taken;
}

static void free_spares(struct tree *t, uint32_t numbers, bool do_free)
{
    for (; numbers != 0; numbers &= numbers - 1) {
        unsigned number = (unsigned)__builtin_ctz(numbers);
        bool freed = do_free && t->space.deallocate(t->space.context, &t->header->log[number].owner) == 0;
        lock_acquire(&t->smo);
        leave_log(t, number, freed ? TREE_LOG_IDLE : TREE_LOG_SPARE);
        lock_release(&t->smo);
    }
}

void tree_give_back(struct tree *t, bool all)
{
    uint32_t spares = __atomic_load_n(&t->spare_count, __ATOMIC_RELAXED);
    bool small = __atomic_load_n(&t->leaf_count, __ATOMIC_RELAXED) == 1;
    if (spares == 0 || (spares < SPARES_MAX && !small && !all))
        return;
    struct tree_node *nodes;
    uint32_t numbers = take_spares(t, &nodes);
    bool waited = t->rule == TREE_RULE_LOG || tree_read_wait();
    free_spares(t, numbers, waited);
    if (waited) {
        tree_inner_free_list(nodes);
    } else {
        lock_acquire(&t->smo);
        tree_inner_return_unused(t, nodes);
        lock_release(&t->smo);
    }
}

/* --- recovery ----------------------------------------------------------------------------------------------------------- */

static int corrupt_log(unsigned number, const char *what)
{
    return error_set(PA_ECORRUPT, "a tree's micro-log %u %s; the tree cannot be opened", number, what);
}

static int redo_split(struct tree *t, struct pm_tree_log *log, struct pm_tree_leaf *left, unsigned number,
                      struct media_tally *tally)
{
    if (left->next != log->right) { /* not decided by next: undo, by making the new leaf a spare */
        if (pa_is_null(log->owner))
            return corrupt_log(number, "names a split that is neither begun nor done");
        media_store64(t->media, &log->left, 0);
        flush_log(t, log, tally);
        media_drain(t->media, tally); /* before the owner is nulled by the space: see the table of states */
        return 0;
    }
    if (!tree_leaf_is_ours(t, log->right))
        return corrupt_log(number, "names a new leaf that is none");
    const struct pm_tree_leaf *right = tree_leaf_at(t, log->right);
    split_commit(t, left, right, right->lsn, tally);
    split_finish(t, left, log, tally);
    return 0;
}

static int redo_merge(struct tree *t, struct pm_tree_log *log, struct pm_tree_leaf *left, unsigned number,
                      struct media_tally *tally)
{
    if (!tree_leaf_is_ours(t, log->right) || log->right == log->left || tree_is_head(t, tree_leaf_at(t, log->right)))
        return corrupt_log(number, "names a leaf to merge that is none");
    if (log->after != 0 && !tree_leaf_is_ours(t, log->after))
        return corrupt_log(number, "names a next leaf that is none");
    own(t, log, log->right);
    flush_log(t, log, tally);
    const struct pm_tree_leaf *right = tree_leaf_at(t, log->right);
    if (!merge_commit(t, left, right, log->after, right->lsn, tally))
        return corrupt_log(number, "names two leaves that hold too much for one");
    merge_finish(t, log, tally);
    return 0;
}

int tree_log_recover(struct tree *t, unsigned number, struct media_tally *tally)
{
    struct pm_tree_log *log = &t->header->log[number];
    if (log->left != 0) {
        if (!tree_leaf_is_ours(t, log->left))
            return corrupt_log(number, "names a leaf that is none");
        struct pm_tree_leaf *left = tree_leaf_at(t, log->left);
        int code = log->op == TREE_LOG_SPLIT   ? redo_split(t, log, left, number, tally)
                   : log->op == TREE_LOG_MERGE ? redo_merge(t, log, left, number, tally)
                                               : corrupt_log(number, "has an unknown operation");
        if (code != 0)
            return code;
    }
    return 0;
}

static bool owns_a_block(const struct tree *t, const struct pm_tree_log *log)
{
    pa_off off = t->space.off_of(t->space.context, log->owner);
    if (off % MEDIA_LINE_BYTES != 0 || off == t->header_off ||
        !t->space.is_valid(t->space.context, off, sizeof(struct pm_tree_leaf)))
        return false;
    pa_pptr whole = t->space.pptr_of(t->space.context, off);
    return whole.segment == log->owner.segment && whole.offset == log->owner.offset;
}

int tree_log_free_spare(struct tree *t, unsigned number)
{
    struct pm_tree_log *log = &t->header->log[number];
    if (pa_is_null(log->owner))
        return 0;
    if (!owns_a_block(t, log))
        return corrupt_log(number, "owns a leaf that is no allocated block");
    if (t->media->read_only) {
        leave_log(t, number, TREE_LOG_SPARE);
        return 0;
    }
    int code = t->space.deallocate(t->space.context, &log->owner);
    if (code == PA_EINVAL)
        return corrupt_log(number, "owns a leaf that is no allocated block");
    if (code == 0 || code == PA_ECORRUPT)
        return code;
    leave_log(t, number, TREE_LOG_SPARE); /* not now: it serves the next split, or is freed later */
    return 0;
}
