/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cut.h -- cuts the virtual machine's power at a chosen step of the library.
 *
 * A write to the port of QEMU's isa-debug-exit device ends the machine at once: what the kernel holds in memory is gone, what lies
 * in the NVDIMM stays. Steps are counted from cut_arm on, over all threads.
 */
#ifndef TESTS_DAXVM_CUT_H
#define TESTS_DAXVM_CUT_H

#include <stdbool.h>

#include "pool/pool.h"

/** The machine's exit code is 2 * value + 1. */
#define CUT_VALUE 42

/** Choose the cut: none, time:MICROSECONDS, store:N, flush:N, fence:N (these three through the recorder, in the place of the real
 *  media's instructions), before:N or after:N (the N-th operation that changes the directory or a file's space). False if text is
 *  none of these or the port cannot be had. */
bool cut_choose(const char *text);
/** Is there a cut to come? */
bool cut_is_chosen(void);
/** Set what the pool must be opened with, and start the clock of time:. */
void cut_arm(struct pool_params *params);
/** Write a line to standard output at once. */
void cut_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
