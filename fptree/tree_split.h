/* SPDX-License-Identifier: BSD-3-Clause */
/* tree_split.h -- changes of more than one leaf, each under a micro-log. The step tables are in tree_split.c. */
#ifndef FPTREE_TREE_SPLIT_H
#define FPTREE_TREE_SPLIT_H

#include "fptree/tree_private.h"

/** Split the full leaf, which the caller has locked, and put extra (may be NULL, its key not in the leaf) into the new leaf if it
 *  belongs there: *ret_placed. lsn: see tree_prepare; rule LOG only. All or nothing: PA_ENOSPC, PA_ENOMEM. */
int tree_split(struct tree *t, struct pm_tree_leaf *leaf, const struct pm_tree_entry *extra, bool *ret_placed,
               uint64_t lsn, struct media_tally *tally);
/** Move what right holds to left, its left neighbour, and take right out of the tree. Both are locked (rule SELF) and
 *  clean, and left has room. right stays locked for ever; it is a spare now. False = no micro-log was free, nothing happened. */
bool tree_merge(struct tree *t, struct pm_tree_leaf *left, struct pm_tree_leaf *right, uint64_t lsn,
                struct media_tally *tally);
/** Free the spare leaves if they are many or the tree is down to its head (or all = true). Takes no lock of the tree beyond the call;
 *  the caller is in no read section. */
void tree_give_back(struct tree *t, bool all);

/** Take the leaf that begins after low out of the list if it is empty (rule SELF). */
void tree_drop_empty(struct tree *t, uint64_t low, struct media_tally *tally);
/** Recovery: finish or undo what a micro-log holds; what it owns is a spare then. PA_ECORRUPT. */
int tree_log_recover(struct tree *t, unsigned number, struct media_tally *tally);
/** At open, then: free the leaf that the micro-log owns, if any. PA_ECORRUPT. */
int tree_log_free_spare(struct tree *t, unsigned number);

#endif
