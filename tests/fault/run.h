/* SPDX-License-Identifier: BSD-3-Clause */
/* run.h -- a program that injects the faults of one source into every scenario. */
#ifndef TESTS_FAULT_RUN_H
#define TESTS_FAULT_RUN_H

#include "tests/fault/fault.h"

/**
 * Each scenario is a test. It runs as often as it has things that can fail: the n-th fails, once and with all after it, until n is
 * past the last. Options: --thorough=1 each errno value that fits, and both kinds of durability; --at=N --onwards=0 or 1
 * --pick=N one fault alone, as a message names it.
 */
int fault_main(int argc, char **argv, const char *name, enum fault_source source);

#endif
