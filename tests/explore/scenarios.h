/* SPDX-License-Identifier: BSD-3-Clause */
/* scenarios.h -- the scenarios by name; scenarios.c lists them. */
#ifndef TESTS_EXPLORE_SCENARIOS_H
#define TESTS_EXPLORE_SCENARIOS_H

#include "tests/explore/history.h"

/* scenarios_self.c */
extern const struct scenario scenario_self_right, scenario_self_right_nt, scenario_self_right_file,
    scenario_self_right_redo, scenario_self_missing_flush, scenario_self_missing_fence, scenario_self_swapped,
    scenario_self_early_eviction, scenario_self_missing_last_fence, scenario_self_nt_without_fence,
    scenario_self_torn_record, scenario_self_missing_file_sync, scenario_self_missing_dir_sync,
    scenario_self_redo_twice, scenario_self_bypass, scenario_self_other_thread_drains, scenario_self_right_look,
    scenario_self_trusts_cache;

/* scenarios_pool.c */
extern const struct scenario scenario_create, scenario_root, scenario_root_dirty, scenario_root_killed, scenario_mixed,
    scenario_wrap, scenario_wrap_redo, scenario_wrap_redo_big, scenario_reformat, scenario_segment,
    scenario_segment_killed, scenario_handover, scenario_remote_free, scenario_takeover, scenario_recovery,
    scenario_chain, scenario_move, scenario_close, scenario_close_lines, scenario_chain_two, scenario_big,
    scenario_big_index, scenario_big_takeover, scenario_defragment, scenario_big_dirty;

/* scenarios_space.c */
extern const struct scenario scenario_coalesce, scenario_holes_big, scenario_holes_small, scenario_deletion,
    scenario_deletion_small, scenario_deletion_begun, scenario_deletion_ended, scenario_spare;

/* scenarios_huge.c */
extern const struct scenario scenario_huge, scenario_huge_takeover, scenario_huge_grow, scenario_huge_sparse,
    scenario_huge_move, scenario_reallocate_small, scenario_reallocate_big, scenario_reallocate_huge, scenario_aligned,
    scenario_everything;

/* scenarios_threads.c */
extern const struct scenario scenario_threads, scenario_threads_four, scenario_threads_any, scenario_threads_spare,
    scenario_threads_background, scenario_threads_index, scenario_threads_tree;

/* scenarios_dirs.c */
extern const struct scenario scenario_create_dir, scenario_dirs_create, scenario_dirs_files, scenario_dirs_led;

/* scenarios_repair.c */
extern const struct scenario scenario_repair_files, scenario_repair_contents, scenario_repair_dirs;

/* scenarios_tree.c */
extern const struct scenario scenario_tree_create, scenario_tree_change, scenario_tree_split, scenario_tree_remove,
    scenario_tree_recovery, scenario_tree_dirty;

#endif
