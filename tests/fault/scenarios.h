/* SPDX-License-Identifier: BSD-3-Clause */
/* scenarios.h -- what fails where: each scenario is one thing that a program does to a pool. */
#ifndef TESTS_FAULT_SCENARIOS_H
#define TESTS_FAULT_SCENARIOS_H

#include "tests/fault/world.h"

struct scenario {
    const char *name;
    enum image image;
    void (*prepare)(struct world *w); /* pool open, nothing fails; NULL: the pool is not opened before act */
    int (*act)(struct world *w); /* what fails; called again afterwards it goes on where it failed, or begins again */
    unsigned cores;              /* 0 = 1 */
    unsigned flags;
    uint64_t max_size;
    bool background; /* with the pool's own thread: what fails, and in which thread, differs from run to run */
};

extern const struct scenario scenarios[];
extern const size_t scenario_count;

#endif
