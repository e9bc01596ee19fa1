/* SPDX-License-Identifier: BSD-3-Clause */
/* maps.h -- what histories are taken of. */
#ifndef TESTS_LINEAR_MAPS_H
#define TESTS_LINEAR_MAPS_H

#include <fptree.h>

#include "fptree/tree.h"
#include "tests/linear/history.h"

struct history_map map_of_tree(struct tree *t);
struct history_map map_of_fptree(fptree *t);
/** One map, empty again at each call, which looks before it changes and lets others in between: not linearizable. Its scan takes
 *  its time. Keys below WRONG_KEYS. */
#define WRONG_KEYS 64u
struct history_map map_that_is_wrong(void);

#endif
