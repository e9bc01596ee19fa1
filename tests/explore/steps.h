/* SPDX-License-Identifier: BSD-3-Clause */
/* steps.h -- the contexts of struct step (recorder.h). */
#ifndef TESTS_EXPLORE_STEPS_H
#define TESTS_EXPLORE_STEPS_H

#include "tests/explore/recorder.h"

/** A thread has stored at an offset of the pool file that is mapped at pool: what its context is now. */
void step_note_store(const char *pool, uint64_t offset, uint8_t *entry, uint8_t *word);

#endif
