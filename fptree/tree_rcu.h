/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * tree_rcu.h -- how long memory that a reader may still look at stays readable.
 *
 * Readers are sections of liburcu's bp flavour: no registration by the application, no fence where membarrier(2) exists. Only
 * giving a leaf back to the space waits for them; inner nodes and spare leaves are reused at once, because their version words
 * never go back and a late reader starts over.
 */
#ifndef FPTREE_TREE_RCU_H
#define FPTREE_TREE_RCU_H

#include <stdbool.h>
#include <urcu/urcu-bp.h>

/* The read side is inlined, as its header allows any program: 2 ns a pair instead of 16. liburcu 0.13 asks for more alignment than
 * it gives its own readers; that is no finding about us. */
#define TREE_RCU_INLINE static inline __attribute__((no_sanitize("alignment")))
TREE_RCU_INLINE void _urcu_bp_read_lock(void);
TREE_RCU_INLINE void _urcu_bp_read_lock_update(unsigned long tmp);
TREE_RCU_INLINE void _urcu_bp_read_unlock(void);
TREE_RCU_INLINE int _urcu_bp_read_ongoing(void);
#include <urcu/static/urcu-bp.h>

#if defined(__SANITIZE_THREAD__)
#define TREE_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TREE_TSAN 1
#endif
#endif

#if defined(TREE_TSAN)
/* The race detector does not know membarrier: this word tells it what a grace period orders. */
extern unsigned tree_rcu_order;
#define TREE_RCU_ORDER() ((void)__atomic_fetch_add(&tree_rcu_order, 1, __ATOMIC_ACQ_REL))
#else
#define TREE_RCU_ORDER() ((void)0)
#endif

static inline void tree_read_lock(void)
{
    _urcu_bp_read_lock();
}

static inline void tree_read_unlock(void)
{
    TREE_RCU_ORDER();
    _urcu_bp_read_unlock();
}

/** Wait until every section that is now open has ended. False (and no wait) if the caller itself is in one. */
static inline bool tree_read_wait(void)
{
    if (_urcu_bp_read_ongoing())
        return false;
    urcu_bp_synchronize_rcu();
    TREE_RCU_ORDER();
    return true;
}

#endif
